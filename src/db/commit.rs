//! Commits: numbered, appended to the journal, applied to the memtables and made visible, one
//! after another under one lock. Nothing waits for the disk here but the write of a `Buffered`
//! commit where the journal is not mapped; syncing is the sync stage's business.

use crate::batch::Ops;
use crate::db::appender::CommitState;
use crate::db::core::Core;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{KeyspaceId, Position, Seq};
use crate::options::Durability;

impl Core {
    /// Commits `ops`: checks, numbers, appends, applies, publishes. Answers the last sequence
    /// number. With [`Durability::Sync`] the caller syncs.
    ///
    /// `Ok(None)`: `check` could not tell; nothing was written.
    pub fn commit_ops(
        &self,
        ops: &Ops,
        durability: Durability,
        mut check: impl FnMut(&CommitState) -> Result<bool>,
    ) -> Result<Option<Seq>> {
        loop {
            let mut guard = self.commit.lock();
            let commit = &mut *guard;
            self.writable()?;
            if !check(commit)? {
                return Ok(None);
            }
            if ops.count() == 0 {
                return Ok(Some(commit.last_seq));
            }
            let first = commit.last_seq.plus(1);
            let last = commit.last_seq.plus(u64::from(ops.count()));
            if last == Seq::MAX {
                return Err(Error::invalid("the sequence numbers are used up"));
            }
            let journal = commit.journal()?;
            if !journal.fits(ops.bytes().len()) {
                drop(guard);
                self.next_segment(ops.bytes().len())?;
                continue;
            }
            let durable = self.sync.durable_hint();
            let appended = journal.append(first, ops.count(), ops.bytes(), durable);
            let position = appended.inspect_err(|e| {
                if e.kind() != ErrorKind::DiskFull {
                    self.fail(e);
                }
            })?;
            if durability == Durability::Buffered {
                journal.flush().inspect_err(|e| self.fail(e))?;
            }
            let applied = commit.writers.apply(ops.bytes(), first, position, &self.registry, |_, _| false);
            applied.inspect_err(|e| self.fail(e))?;
            commit.last_seq = last;
            self.snapshots.publish(last);
            self.sync.tell_visible(last);
            let full =
                commit.writers.rotate_full(self.options.memtable_bytes, || self.pinned_limit(position));
            drop(guard);
            if !full.is_empty() {
                self.work.want_flush(full);
            }
            return Ok(Some(last));
        }
    }

    /// Memtables that pin the journal before this are flushed.
    fn pinned_limit(&self, end: Position) -> Position {
        Position(end.0.saturating_sub(self.options.journal_bytes / 2))
    }

    /// Freezes the memtables of `only` or of all trees and queues them for flushing.
    pub fn freeze(&self, only: Option<KeyspaceId>) {
        let full = self.commit.lock().writers.rotate_all(only);
        self.work.want_flush(full);
    }
}
