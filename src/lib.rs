//! Esker: an embeddable, log-structured storage engine.
//!
//! A [`Db`] is a directory with one journal and any number of [`Keyspace`]s, sorted maps of byte
//! strings. Whatever is committed together goes to the journal with one append and is made durable
//! by one sync, however many keyspaces it touches.
//!
//! ```
//! use esker::{Db, Options};
//!
//! # fn main() -> esker::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! let db = Db::open(dir.path(), Options::default())?;
//! let fruit = db.keyspace("fruit")?;
//! fruit.put("apple", "red")?; // survives power loss when this returns
//! assert_eq!(fruit.get("apple")?.as_deref(), Some(&b"red"[..]));
//!
//! let mut batch = db.batch();
//! batch.put(&fruit, "pear", "green").delete(&fruit, "apple");
//! batch.commit()?; // both or neither
//! for entry in fruit.range("a".."q") {
//!     let entry = entry?;
//!     println!("{:?} is {:?}", entry.key(), entry.value());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # The tour
//!
//! - [`Db`] opens, names, syncs, flushes; [`Options`] say how, [`Db::recovery`] what was found.
//!   [`Db::checkpoint`] makes a copy while it runs, [`Db::verify`] reads everything.
//! - [`Keyspace`] reads, writes and [compacts](Keyspace::compact); [`Keyspace::at`] reads the past of a
//!   [`Snapshot`] with the same
//!   verbs.
//! - [`Batch`] gathers operations on any keyspaces, with conditions ([`Expect`]), and commits them or
//!   submits them for a [`Ticket`]. [`Watch`] tells of commits as they come.
//! - [`Iter`] walks a range from both ends and owns what it yields; [`Cursor`] lends it.
//! - [`Logs`] are dense sequences of entries, written once, in the journal; [`raft_log`] is what a Raft
//!   library needs of them.
//! - [`Durability`] has two words: [`Buffered`](Durability::Buffered) survives the death of the
//!   process, [`Sync`](Durability::Sync) that of the machine.
//! - [`Error`] has a [kind](ErrorKind) a caller acts on. Damage on disk is an error that names file
//!   and offset, never a panic and never a wrong answer.
//! - `fs::sim` is a disk that loses power on demand, `fs::fault` one that fails on demand: for tests of
//!   what is built on Esker as well, with the feature `sim`. [`inspect`] shows any file in words.
//!
//! Handles are cheap to clone, `Send + Sync`, and without lifetimes. `DESIGN.md` in the repository
//! tells how it works and why each promise holds.

// The layers, lowest first. A module imports only from groups before its own; the modules of one
// group are strangers. `tests/it/tidy` reads this list and fails on an arrow that points up or
// sideways.

// == words ==
mod error;
mod ids;
mod mutant;
// == materials ==
#[cfg(any(test, fuzzing))]
mod choices;
mod coding;
mod dump;
pub mod metrics;
mod prefetch;
mod sync;
// == counts ==
mod budget;
mod counters;
// == files ==
mod cache;
pub mod fs;
// == settings ==
mod options;
// == keys and bytes ==
mod entries;
mod key;
mod record;
mod tombstones;
mod value;
// == many keys ==
mod batch;
mod catalog;
mod cursor;
// == places for data ==
mod journal;
mod memtable;
mod table;
// == which files ==
mod log;
mod version;
// == what a keyspace is at a moment ==
mod view;
// == jobs ==
mod job;
// == the database ==
mod db;
// == on top ==
pub mod raft_log;
// == beside it ==
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
pub mod inspect;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use catalog::Kind;
pub use db::handle::{Db, Keyspace};
pub use db::logs::{Entries, Log, LogEntry, LogIter, LogView, Logs, TagRun};
pub use db::open::{Recovery, TornTail};
pub use db::range::{KeyRange, Prefix};
pub use db::read::KeyspaceView;
pub use db::scan::{Cursor, Entry, Iter};
pub use db::snapshot::Snapshot;
pub use db::ticket::{Ticket, Watch};
pub use db::verify::Verification;
pub use db::write::{Batch, Expect};
pub use error::{Error, ErrorKind, Result};
pub use ids::Seq;
pub use key::{MAX_KEY_LEN, MAX_VALUE_LEN};
pub use metrics::Metrics;
pub use options::{Compression, Durability, KeyspaceOptions, Options};
pub use value::Value;
