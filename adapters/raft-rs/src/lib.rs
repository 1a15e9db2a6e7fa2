//! Esker under [raft-rs] 0.7: its `Storage` on a Raft log of Esker's, and what a ready state asks to be
//! written as operations of one batch.
//!
//! A node writes what a `Ready` holds into a batch, together with what it applies, and commits that
//! synced if `Ready::must_sync` says so:
//!
//! ```
//! use esker::raft_log::RaftLogs;
//! use esker::{Db, Durability, Options};
//! use esker_raft_rs::{Snapshots, Store};
//! use raft::eraftpb::{ConfState, Snapshot};
//!
//! struct None;
//! impl Snapshots for None {
//!     fn snapshot(&self) -> esker::Result<Option<Snapshot>> {
//!         Ok(Option::None)
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let db = Db::open(dir.path(), Options::default())?;
//! let members = ConfState { voters: vec![1], ..Default::default() };
//! let store = Store::open(RaftLogs::open(&db, "raft")?.group(1), None, &members)?;
//! let logger = slog::Logger::root(slog::Discard, slog::o!());
//! let mut node = raft::RawNode::new(&raft::Config::new(1), store.clone(), &logger)?;
//! node.campaign()?;
//! while node.has_ready() {
//!     let mut ready = node.ready();
//!     let mut batch = db.batch();
//!     store.append(&mut batch, ready.entries())?;
//!     if let Some(hard_state) = ready.hs() {
//!         store.set_hard_state(&mut batch, hard_state)?;
//!     }
//!     let sync = if ready.must_sync() { Durability::Sync } else { Durability::Buffered };
//!     batch.commit_with(sync)?;
//!     let _to_apply = ready.take_committed_entries();
//!     let _to_apply = node.advance(ready).take_committed_entries();
//!     node.advance_apply();
//! }
//! assert!(node.raft.state == raft::StateRole::Leader);
//! # Ok(())
//! # }
//! ```
//!
//! [raft-rs]: https://docs.rs/raft/0.7

use esker::raft_log::{self, LogId, RaftLog, Row};
use esker::{Batch, Durability};
use protobuf::Message;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Result, StorageError};
use std::sync::Arc;

const MEMBERS: Row = Row::User(0);

/// Where snapshots come from: the state machine.
pub trait Snapshots: Send + Sync + 'static {
    /// The state now, with the index, term and members it is at; `None` if there is none just now.
    fn snapshot(&self) -> esker::Result<Option<Snapshot>>;
}

/// A group's storage, for raft-rs. A cheap handle.
#[derive(Clone)]
pub struct Store {
    log: RaftLog,
    snapshots: Arc<dyn Snapshots>,
}

fn other(e: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Store(StorageError::Other(Box::new(e)))
}

fn missing(e: raft_log::Error) -> Error {
    match e {
        raft_log::Error::Purged { .. } => Error::Store(StorageError::Compacted),
        raft_log::Error::Beyond { .. } => Error::Store(StorageError::Unavailable),
        e => other(e),
    }
}

fn bytes(message: &impl Message) -> Result<Vec<u8>> {
    message.write_to_bytes().map_err(other)
}

impl Store {
    /// The storage of the group of `log`. A group that was never written to begins with `members`.
    pub fn open(log: RaftLog, snapshots: impl Snapshots, members: &ConfState) -> Result<Store> {
        let store = Store { log, snapshots: Arc::new(snapshots) };
        if store.log.bounds().map_err(other)? == (0..0) {
            let mut batch = store.log.db().batch();
            // raft-rs counts from 1.
            store.log.reset(&mut batch, LogId::default());
            store.set_members(&mut batch, members)?;
            batch.commit_with(Durability::Sync).map_err(other)?;
        }
        Ok(store)
    }

    /// The log below.
    pub fn log(&self) -> &RaftLog {
        &self.log
    }

    /// Writes entries of a `Ready`: they take the place of those the log has from the first of them on.
    pub fn append(&self, batch: &mut Batch, entries: &[Entry]) -> Result<()> {
        if let Some(first) = entries.first() {
            self.log.truncate(batch, first.index);
        }
        for entry in entries {
            self.log.append(batch, LogId::new(entry.index, entry.term), bytes(entry)?);
        }
        Ok(())
    }

    /// Writes the hard state. A vote and a term must be synced before a message tells of them; a commit
    /// index need not be, but must not be behind what is applied: write it in the same batch or before.
    pub fn set_hard_state(&self, batch: &mut Batch, hard_state: &HardState) -> Result<()> {
        self.log.set(batch, Row::Vote, bytes(hard_state)?);
        Ok(())
    }

    /// Writes the commit index alone, as a `LightReady` has it.
    pub fn set_commit(&self, batch: &mut Batch, commit: u64) -> Result<()> {
        self.log.commit_index(batch, commit);
        Ok(())
    }

    /// Writes the members, as `RawNode::apply_conf_change` answers them.
    pub fn set_members(&self, batch: &mut Batch, members: &ConfState) -> Result<()> {
        self.log.set(batch, MEMBERS, bytes(members)?);
        Ok(())
    }

    /// Has the log go on behind a snapshot that was received. The state it holds, and the hard state of
    /// the same `Ready`, belong in the same batch.
    pub fn install(&self, batch: &mut Batch, snapshot: &Snapshot) -> Result<()> {
        let meta = snapshot.get_metadata();
        self.log.reset(batch, LogId::new(meta.index, meta.term));
        self.set_members(batch, meta.get_conf_state())
    }

    /// Lets go of the entries up to `upto`, which must be applied.
    pub fn compact(&self, batch: &mut Batch, upto: u64) -> Result<()> {
        match self.log.term(upto) {
            Ok(term) => _ = self.log.purge(batch, LogId::new(upto, term)).map_err(other)?,
            Err(raft_log::Error::Purged { .. }) => {}
            Err(e) => return Err(missing(e)),
        }
        Ok(())
    }

    fn row<M: Message>(&self, row: Row) -> Result<M> {
        match self.log.row(row).map_err(other)? {
            Some(bytes) => M::parse_from_bytes(&bytes).map_err(other),
            None => Ok(M::new()),
        }
    }
}

impl raft::Storage for Store {
    fn initial_state(&self) -> Result<RaftState> {
        let mut hard_state: HardState = self.row(Row::Vote)?;
        hard_state.commit = hard_state.commit.max(self.log.committed().map_err(other)?.unwrap_or(0));
        Ok(RaftState::new(hard_state, self.row(MEMBERS)?))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        let max = max_size.into().map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        let entries = self.log.entries(low..high, max).map_err(missing)?;
        entries.iter().map(|entry| Entry::parse_from_bytes(entry.bytes()).map_err(other)).collect()
    }

    fn term(&self, index: u64) -> Result<u64> {
        self.log.term(index).map_err(missing)
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.log.bounds().map_err(other)?.start)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.log.bounds().map_err(other)?.end.saturating_sub(1))
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> Result<Snapshot> {
        let snapshot = self.snapshots.snapshot().map_err(other)?;
        snapshot
            .filter(|snapshot| snapshot.get_metadata().index >= request_index)
            .ok_or(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}
