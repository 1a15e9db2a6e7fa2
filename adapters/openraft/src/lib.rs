//! Esker under [openraft] 0.9: a log store and a state machine, in one database.
//!
//! A [`Group`] is one Raft group of a node; any number of them share a database, its journal and its
//! syncs. It hands openraft a [`LogStore`] (on [`esker::raft_log`]) and a [`StateMachine`] (a keyspace,
//! changed by an [`App`] of yours):
//!
//! ```
//! use esker_openraft::{App, AppResult, Group, SnapshotData, Writes};
//!
//! openraft::declare_raft_types!(
//!     pub Types: D = String, R = u64, NodeId = u64, Node = openraft::BasicNode, SnapshotData = SnapshotData
//! );
//!
//! /// Counts how often each word was said.
//! struct Counter;
//!
//! impl App<Types> for Counter {
//!     fn apply(&mut self, state: &mut Writes<'_>, word: String) -> AppResult<u64> {
//!         let count = state.get(&word)?.and_then(|v| v.first_chunk().copied()).map_or(0, u64::from_be_bytes);
//!         state.put(word, (count + 1).to_be_bytes());
//!         Ok(count + 1)
//!     }
//!
//!     fn blank(&mut self) -> u64 {
//!         0
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let db = esker::Db::open(dir.path(), esker::Options::default())?;
//! let (log, state) = Group::open(&db, "raft", 1)?.stores::<Types, _>(Counter)?;
//! let counts = state.reader();
//! // openraft::Raft::new(id, config, network, log, state).await?;
//! # drop((log, state));
//! assert_eq!(counts.get("word")?, None);
//! # Ok(())
//! # }
//! ```
//!
//! # What is durable when
//!
//! - **Votes and entries** survive power loss before the call returns; the callback of an append fires
//!   then, so callbacks are in order. Nothing blocks a thread of the runtime meanwhile: the commit is
//!   submitted, and its ticket awaited. Appends of groups that wait at the same time share a sync.
//! - **What is applied** is committed unsynced: data, applied id and membership in one batch. A power cut
//!   may take the state machine back to an earlier applied id, never the log: what was purged is older,
//!   in the one order of all commits, than the state that made it superfluous. openraft applies again.
//! - **The committed id and purges** ride along unsynced, for the same reason.
//! - **An installed snapshot** is received into a keyspace of its own, row by row as it comes. One synced
//!   commit then replaces all of the old state, the applied id and the membership, and moves the log.
//!   openraft purges the log at the same time, and would do it also if the install came to nothing; so
//!   a purge beyond what is applied waits for the install that was begun.
//!
//! # Snapshots
//!
//! A snapshot is a view of the database, which costs nothing to make; its bytes are made while they are
//! sent. Two nodes that have applied the same make the same bytes, under the same name, so a transfer goes
//! on with another leader. The current snapshot is always one of now. While one is held, the versions it
//! shows are kept.
//!
//! A checksum runs along with the bytes. What was damaged, cut off or made up is refused where it is received,
//! with a [`SnapshotError`], at the latest when its end is to be there: before openraft tries to install it,
//! which would stop the node. The sender begins again. No more of it is in memory than a row.
//!
//! [openraft]: https://docs.rs/openraft/0.9

mod log;
mod snapshot;
mod state;

pub use log::LogStore;
pub use snapshot::{SnapshotData, SnapshotError};
pub use state::{App, AppResult, Builder, StateMachine, StateReader, Writes};

use esker::raft_log::{RaftLog, RaftLogs};
use esker::{Db, Keyspace};
use openraft::{AnyError, RaftTypeConfig};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use tokio::sync::watch;

/// One Raft group of a node. A cheap handle.
#[derive(Clone)]
pub struct Group(Arc<Shared>);

/// What the log store and the state machine of a group know together.
struct Shared {
    log: RaftLog,
    state: Keyspace,
    /// The name under which a snapshot is received.
    staging: String,
    incoming: watch::Sender<Incoming>,
}

/// Snapshots on their way in.
#[derive(Clone, Copy, Default)]
struct Incoming {
    /// How many are being received, or were and are not installed yet.
    transfers: u64,
    /// The last install came to nothing.
    failed: bool,
}

/// One of [`Incoming::transfers`], until it is dropped.
struct Transfer(Arc<Shared>);

impl Transfer {
    fn begin(shared: &Arc<Shared>) -> Transfer {
        shared.incoming.send_modify(|incoming| incoming.transfers += 1);
        Transfer(shared.clone())
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.0.incoming.send_modify(|incoming| incoming.transfers -= 1);
    }
}

impl Group {
    /// Opens the group `id` of those called `name` in `db`, or makes it: a log among `db.logs(name)`,
    /// and a keyspace for its state.
    pub fn open(db: &Db, name: &str, id: u64) -> esker::Result<Group> {
        let log = RaftLogs::open(db, name)?.group(id);
        let state = db.keyspace(&format!("{name} state {id}"))?;
        let staging = format!("{name} staging {id}");
        let shared = Shared { log, state, staging, incoming: watch::Sender::default() };
        shared.drop_staging()?;
        Ok(Group(Arc::new(shared)))
    }

    /// The stores for openraft. For each group once: they take it that nobody else writes to it.
    pub fn stores<C, A>(&self, app: A) -> esker::Result<(LogStore<C>, StateMachine<C, A>)>
    where
        C: RaftTypeConfig<SnapshotData = SnapshotData>,
        C::Entry: Serialize + DeserializeOwned,
        A: App<C>,
    {
        // Whoever was stopped by an install that failed begins anew.
        self.0.incoming.send_modify(|incoming| incoming.failed = false);
        Ok((LogStore::new(self.0.clone()), StateMachine::new(self.0.clone(), app)))
    }

    /// The log, for looking at.
    pub fn log(&self) -> &RaftLog {
        &self.0.log
    }

    /// Forgets the group: its log, its votes and its state. Its stores must be gone.
    pub fn remove(self) -> esker::Result<()> {
        let mut batch = self.0.log.db().batch();
        self.0.log.remove(&mut batch);
        batch.clear_keyspace(&self.0.state);
        batch.commit_with(esker::Durability::Sync)?;
        self.0.log.db().drop_keyspace(self.0.state.name())?;
        self.0.drop_staging()
    }
}

impl Shared {
    fn drop_staging(&self) -> esker::Result<()> {
        let db = self.log.db();
        if db.names()?.iter().any(|(name, _)| *name == self.staging) {
            db.drop_keyspace(&self.staging)?;
        }
        Ok(())
    }

    /// An empty keyspace to receive a snapshot in.
    fn fresh_staging(&self) -> esker::Result<Keyspace> {
        self.drop_staging()?;
        self.log.db().keyspace(&self.staging)
    }
}

fn encode(what: &impl Serialize) -> Result<Vec<u8>, AnyError> {
    rmp_serde::to_vec(what).map_err(|e| AnyError::new(&e))
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, AnyError> {
    rmp_serde::from_slice(bytes).map_err(|e| AnyError::new(&e))
}
