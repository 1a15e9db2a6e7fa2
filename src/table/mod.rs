//! Sorted tables: immutable files of internal entries, written once by a flush or a compaction.
//!
//! The file as a whole is described in [`format`], its parts in [`block`], [`index`] and
//! [`filter`].

// == the file as a whole ==
mod format;
mod lz4;
mod scratch;
mod search;
// == its parts ==
mod block;
mod codec;
mod filter;
// == where they are ==
mod index;
// == a data block from rows ==
mod builder;
// == one table ==
mod dump;
mod reader;
mod writer;
// == one block of it, in part ==
mod unpack;
// == its users ==
mod cursor;
mod store;
// == as a whole, against itself ==
mod verify;

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;

pub(crate) use cursor::TableCursor;
#[allow(unused_imports)]
pub(crate) use dump::dump;
#[allow(unused_imports)]
pub(crate) use format::Properties;
#[allow(unused_imports)]
pub(crate) use reader::{Pin, ReadOptions, Table};
pub(crate) use store::{Handle, Opened, Store};
pub(crate) use verify::verify;
pub(crate) use writer::{Summary, Unsynced, WriteOptions, Writer};
