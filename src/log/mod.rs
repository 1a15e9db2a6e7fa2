//! Logs: dense sequences of entries, which live in the journal segments they were committed to. Here is
//! where the entries are; what a log's bounds are stands in rows of an ordinary tree.

// == what is known of a log, and of a piece of it ==
pub(crate) mod extent;
pub(crate) mod head;

// == extents in memory ==
pub(crate) mod extents;

// == what was appended last ==
pub(crate) mod tail;

// == what says where entries are in a file ==
pub(crate) mod footer;

// == how much of a disk they take ==
pub(crate) mod space;

// == a file with entries ==
pub(crate) mod segment;

// == which entries are where ==
pub(crate) mod index;

// == beside it ==
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
