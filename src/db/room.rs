//! Waiting for background work: for room, by those who write faster than the work gets done, and for
//! flushes. Never under a lock.

use crate::db::clock::Deadline;
use crate::db::core::Core;
use crate::db::tree::Tree;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::Seq;
use std::sync::Arc;
use std::time::Duration;

/// Runs of level 0 at which writes wait.
const L0_STALL: usize = 24;
/// Frozen memtables may hold this many times the size of one before writes wait.
const FROZEN_MEMTABLES: usize = 3;
/// Who waits looks again after this long at the latest.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

impl Core {
    /// Waits until there is room for a write: while too much is frozen or level 0 is too deep.
    /// Never under a lock. `deadline`: then a typed error, and nothing was written.
    pub fn await_room(&self, trees: &[Arc<Tree>], deadline: Option<Deadline>) -> Result<()> {
        loop {
            if trees.iter().all(|t| self.has_room(t)) {
                return Ok(());
            }
            self.writable()?;
            if self.options.workers == 0 {
                if !self.step()? {
                    return Ok(());
                }
                continue;
            }
            // There will be none as long as the work fails that makes it.
            let lacking = trees.iter().find(|t| !self.has_room(t)).map(|t| t.id);
            if let Some(e) = lacking.and_then(|id| self.work.failed(id)) {
                // Whether a disk is still full is tried here: space may have come back since.
                let again = e.kind() == ErrorKind::DiskFull && deadline.is_none();
                let again = lacking.filter(|_| again).and_then(|id| self.work.take_failed(id));
                let Some((piece, _running)) = again else { return Err(e) };
                self.run(piece)?;
                continue;
            }
            let guard = self.room.0.lock();
            let left = match deadline {
                None => LOOK_AGAIN,
                Some(d) => d.left().ok_or_else(|| {
                    Error::new(ErrorKind::Busy, "no room for the write before its deadline")
                })?,
            };
            // Under the lock, so that it is not missed when room is made just now.
            if !trees.iter().all(|t| self.has_room(t)) {
                drop(self.room.1.wait_timeout(guard, left.min(LOOK_AGAIN)));
            }
        }
    }

    #[inline]
    fn has_room(&self, tree: &Tree) -> bool {
        let view = tree.view.load();
        if view.memtables.len() <= 1 && view.runs.len() < L0_STALL {
            return true;
        }
        let frozen: usize = view.memtables.iter().skip(1).map(|m| m.table.bytes()).sum();
        frozen <= FROZEN_MEMTABLES * self.options.memtable_limit()
            && view.runs.iter().filter(|r| r.level == 0).count() < L0_STALL
    }

    /// Waits until everything that is frozen now is in tables; does the work itself where it can.
    pub fn await_flushed(&self) -> Result<()> {
        let trees: Vec<Arc<Tree>> = self.registry.lock().trees().cloned().collect();
        let frozen: Vec<(Arc<Tree>, Seq)> = trees
            .into_iter()
            .filter_map(|tree| {
                let last = tree.view.load().memtables.iter().skip(1).map(|m| m.table.max_seq()).max()?;
                Some((tree, last))
            })
            .collect();
        for (tree, last) in frozen {
            while tree.view.load().flushed < last && self.registry.lock().tree(tree.id).is_some() {
                self.writable()?;
                if let Some((piece, _running)) = self.work.take_flush() {
                    self.run(piece)?;
                    continue;
                }
                if let Some(e) = self.work.flush_failed() {
                    return Err(e);
                }
                let guard = self.room.0.lock();
                if tree.view.load().flushed < last {
                    drop(self.room.1.wait_timeout(guard, Duration::from_millis(10)));
                }
            }
        }
        Ok(())
    }
}
