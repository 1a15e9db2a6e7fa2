//! The database: one write path (a put is a batch of one), one read path (a view and a sequence
//! number), and the work in between.

// == time and chance ==
pub(crate) mod clock;
pub(crate) mod gather;
pub(crate) mod salts;
// == parts ==
pub(crate) mod claims;
pub(crate) mod part;
pub(crate) mod range;
pub(crate) mod reserve;
pub(crate) mod snapshots;
pub(crate) mod stage;
pub(crate) mod throttle;
pub(crate) mod turn;
// == what a keyspace is ==
pub(crate) mod tree;
// == collections of them ==
pub(crate) mod queue;
pub(crate) mod registry;
// == what the lock on commits guards ==
pub(crate) mod appender;
// == what all share ==
pub(crate) mod core;
// == what happened ==
pub(crate) mod events;
// == what is done with it ==
pub(crate) mod commit;
pub(crate) mod kept;
pub(crate) mod publish;
pub(crate) mod segments;
pub(crate) mod sync;
pub(crate) mod trim;
// == in the background ==
pub(crate) mod compact;
pub(crate) mod flush;
pub(crate) mod logwork;
// == one piece after another ==
pub(crate) mod work;
// == waiting ==
pub(crate) mod room;
// == from a directory and back ==
pub(crate) mod open;
pub(crate) mod worker;
// == what callers hold ==
pub(crate) mod handle;
pub(crate) mod scan;
pub(crate) mod snapshot;
pub(crate) mod ticket;
// == logs, as callers hold them ==
pub(crate) mod logs;
// == its verbs ==
pub(crate) mod checkpoint;
pub(crate) mod database;
pub(crate) mod maintain;
pub(crate) mod metrics;
pub(crate) mod read;
pub(crate) mod verify;
pub(crate) mod write;
