//! Esker: an embeddable log-structured storage engine.

// The layers, lowest first. A module imports only from groups before its own; the modules of one
// group are strangers. `tests/it/tidy` reads this list and fails on an arrow that points up or
// sideways.

// == words ==
mod error;
mod ids;
// == materials ==
mod coding;
mod dump;
mod metrics;
mod sync;
// == files ==
mod cache;
pub mod fs;
// == settings ==
mod options;
// == keys and bytes ==
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
mod version;
// == what a keyspace is at a moment ==
mod view;
// == jobs ==
mod job;
// == the database ==
mod db;
mod inspect;

pub use catalog::Kind;
pub use db::handle::{Db, Keyspace};
pub use db::open::{Recovery, TornTail};
pub use db::range::{KeyRange, Prefix};
pub use db::read::KeyspaceView;
pub use db::scan::{Cursor, Entry, Iter};
pub use db::snapshot::Snapshot;
pub use db::ticket::{Ticket, Watch};
pub use db::write::{Batch, Expect};
pub use error::{Error, ErrorKind, Result};
pub use ids::Seq;
pub use key::{MAX_KEY_LEN, MAX_VALUE_LEN};
pub use options::{Compression, Durability, KeyspaceOptions, Options};
pub use value::Value;
