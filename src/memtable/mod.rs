//! The memtable: the newest entries of one keyspace, sorted, in memory.
//!
//! One writer inserts, any number of readers read at the same time.

#![allow(unused_imports)]

mod cursor;
mod ranges;
#[cfg(test)]
mod tests;
mod tree;

pub(crate) use cursor::MemCursor;
pub(crate) use ranges::RangeSets;
pub(crate) use tree::{Memtable, Writer, new};
