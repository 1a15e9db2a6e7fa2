//! Commits: numbered, appended to the journal, applied to the memtables and made visible, one
//! after another under one lock. Nothing waits for the disk here but the write of a `Buffered`
//! commit where the journal is not mapped; syncing is the sync stage's business.

use crate::batch::{Op, Ops};
use crate::db::appender::{CommitState, Look};
use crate::db::clock::{Deadline, no_room_in_time};
use crate::db::core::Core;
use crate::db::tree::Tree;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{KeyspaceId, Seq};
use crate::mutant::Mutant;
use crate::options::Durability;
use std::sync::Arc;

/// What an attempt came to.
enum Tried {
    Committed {
        last: Seq,
        /// Trees with memtables that were frozen.
        full: Vec<Arc<Tree>>,
        /// Their flush will not need the journal.
        parted: bool,
        /// Whether memtables may have grown by much since this was last so.
        grown: bool,
    },
    /// The check could not tell.
    Unsure,
    /// The journal must move to its next segment first.
    NoRoom,
}

impl Core {
    /// Commits `ops`: checks, numbers, appends, applies, publishes. Answers the last sequence
    /// number. With [`Durability::Sync`] the caller syncs.
    ///
    /// `check` may still say which indexes entries of logs get.
    ///
    /// `Ok(None)`: `check` could not tell; nothing was written. `deadline`: only for the journal's next
    /// segment.
    pub fn commit_ops(
        &self,
        ops: &mut Ops,
        durability: Durability,
        deadline: Option<Deadline>,
        check: &mut dyn FnMut(&CommitState, &mut Ops) -> Result<bool>,
    ) -> Result<Option<Seq>> {
        self.commit_known(ops, None, durability, deadline, check)
    }

    /// [`commit_ops`](Core::commit_ops), which need not decode `ops` if they are but `one` operation.
    #[inline]
    pub fn commit_known(
        &self,
        ops: &mut Ops,
        one: Option<(KeyspaceId, Op<'_>)>,
        durability: Durability,
        deadline: Option<Deadline>,
        mut check: impl FnMut(&CommitState, &mut Ops) -> Result<bool>,
    ) -> Result<Option<Seq>> {
        debug_assert!(one.is_none() || ops.count() == 1);
        ops.complete();
        loop {
            let mut commit = self.commit.lock();
            let tried = self.try_commit(&mut commit, ops, one, durability, &mut check);
            drop(commit);
            match tried {
                Ok(Tried::Committed { last, full, parted, grown }) => {
                    self.sync.tell_visible(last);
                    if grown {
                        self.trim_memory();
                    }
                    if self.logs.take_wanted() {
                        self.work.want_logs();
                    }
                    if !full.is_empty() {
                        if parted {
                            self.work.want_segment();
                        } else {
                            // Their flush needs the journal durable that far. The disk may as well begin
                            // now, beside the flush before.
                            self.ask_sync(last);
                        }
                        self.work.want_flush(full);
                        self.tell_failed();
                    }
                    return Ok(Some(last));
                }
                Ok(Tried::Unsure) => return Ok(None),
                Ok(Tried::NoRoom) => {
                    self.next_segment(ops.bytes().len(), ops.only_take_away(), deadline)?;
                    if deadline.is_some_and(|d| d.left().is_none()) {
                        return Err(no_room_in_time());
                    }
                }
                Err(e) => {
                    self.tell_failed();
                    return Err(e);
                }
            }
        }
    }

    #[inline]
    fn try_commit(
        &self,
        commit: &mut CommitState,
        ops: &mut Ops,
        one: Option<(KeyspaceId, Op<'_>)>,
        durability: Durability,
        check: &mut impl FnMut(&CommitState, &mut Ops) -> Result<bool>,
    ) -> Result<Tried> {
        self.writable()?;
        if !check(commit, ops)? {
            return Ok(Tried::Unsure);
        }
        if ops.count() == 0 {
            let (last, full) = (commit.last_seq, Vec::new());
            return Ok(Tried::Committed { last, full, parted: false, grown: false });
        }
        let first = commit.last_seq.plus(1);
        let last = commit.last_seq.plus(u64::from(ops.count()));
        if last == Seq::MAX {
            return Err(Error::invalid("the sequence numbers are used up"));
        }
        if commit.spare && !ops.only_take_away() {
            return Ok(Tried::NoRoom);
        }
        let journal = commit.journal()?;
        if !journal.fits(ops.bytes().len()) {
            return Ok(Tried::NoRoom);
        }
        let mut durable = self.sync.durable_hint();
        if Mutant::WatermarkAhead.on() {
            durable = journal.end();
        }
        let appended = journal.append(first, ops.count(), ops.bytes(), durable);
        let position = appended.map_err(|e| match e.kind() {
            // Nothing was written, and the journal goes on when there is space.
            ErrorKind::DiskFull => e,
            _ => self.latch(e),
        })?;
        if durability == Durability::Buffered {
            journal.flush().map_err(|e| self.latch(e))?;
        }
        if Mutant::VisibleBeforeApplied.on() {
            self.snapshots.publish(last);
        }
        let writers = &mut commit.writers;
        let applied = match one {
            Some(one) => writers.apply_one(ops.bytes(), one, first, position, &self.registry),
            None => writers.apply(ops.bytes(), first, position, &self.registry, |_, _| false),
        };
        applied.map_err(|e| self.latch(e))?;
        commit.last_seq = last;
        commit.commits += 1;
        self.snapshots.publish(last);
        let limit = self.freeze_at(commit);
        let look = Look { end: position, bytes: self.options.journal_bytes };
        let mut full = commit.writers.rotate_full(limit, look, &self.throttle);
        // What fails is latched, and told to the commits that follow.
        let parted = !full.is_empty() && self.part_journal(commit, &mut full).unwrap_or(false);
        Ok(Tried::Committed { last, full, parted, grown: commit.writers.looked() })
    }

    /// Freezes the memtables of `only` or of all trees and queues them for flushing.
    pub fn freeze(&self, only: Option<KeyspaceId>) {
        let full = self.commit.lock().writers.rotate_all(only);
        self.work.want_flush(full);
    }
}
