//! Waiting for background work: for room, by those who write faster than the work gets done, and for
//! flushes. Never under a lock.

use crate::db::clock::{self, Deadline, no_room_in_time};
use crate::db::core::Core;
use crate::db::throttle::{Pressure, Throttle};
use crate::db::tree::Tree;
use crate::error::{ErrorKind, Result};
use crate::ids::Seq;
use crate::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

/// Who waits looks again after this long at the latest.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// A write that asks for room.
pub(crate) struct Asked {
    /// Those that delays are counted by.
    pub bytes: usize,
    /// It does nothing but take away: what a full disk waits for.
    pub takes_away: bool,
    /// Then a typed error, and nothing was written.
    pub deadline: Option<Deadline>,
}

impl Core {
    /// Waits until there is room for a write to `trees`, and as long as it has to be delayed: see
    /// `throttle`. Never under a lock.
    #[inline]
    pub fn await_room(&self, trees: &[Arc<Tree>], write: &Asked) -> Result<()> {
        if self.pressure(trees) == Pressure::NONE {
            return Ok(());
        }
        self.await_relief(trees, write)
    }

    #[inline]
    fn pressure(&self, trees: &[Arc<Tree>]) -> Pressure {
        let pressure = self.throttle.gauge.get();
        trees.iter().fold(pressure, |pressure, tree| pressure.max(tree.gauge.get()))
    }

    #[cold]
    fn await_relief(&self, trees: &[Arc<Tree>], write: &Asked) -> Result<()> {
        if trees.is_empty() {
            // Nothing is written.
            return Ok(());
        }
        if self.pressure(trees) == Pressure::STOP {
            let began = clock::nanos();
            self.note_stop(trees);
            let relieved = self.await_end_of_stop(trees, write.deadline);
            let stalls = &self.throttle.stalls;
            stalls.stopped.fetch_add(1, Ordering::Relaxed);
            let took = clock::nanos() - began;
            stalls.stopped_nanos.fetch_add(took, Ordering::Relaxed);
            self.note_relief(Duration::from_nanos(took));
            match relieved {
                // Or the disk could be full for ever. The journal's space bounds them.
                Err(e) if e.kind() == ErrorKind::DiskFull && write.takes_away => {}
                done => done?,
            }
        }
        // Who does the work itself is slow enough.
        match self.pressure(trees) {
            Pressure::NONE | Pressure::STOP => Ok(()),
            _ if self.options.workers == 0 => Ok(()),
            pressure => self.pay(pressure.delay(write.bytes), trees, write.deadline),
        }
    }

    /// Waits as long as a write has to be delayed, once the delays of all writers together are worth
    /// it; or until nothing has to be delayed any more.
    fn pay(&self, delay: u64, trees: &[Arc<Tree>], deadline: Option<Deadline>) -> Result<()> {
        let Throttle { stalls, .. } = &*self.throttle;
        let began = clock::nanos();
        stalls.delayed.fetch_add(u64::from(delay > 0), Ordering::Relaxed);
        let Some(until) = self.throttle.owe(delay, began) else { return Ok(()) };
        let mut guard = self.room.0.lock();
        let mut now = began;
        let paid = loop {
            if now >= until || self.pressure(trees) == Pressure::NONE {
                break Ok(());
            }
            let left = Duration::from_nanos(until - now);
            let left = match deadline.map(Deadline::left) {
                None => left,
                Some(Some(time)) => left.min(time),
                Some(None) => break Err(no_room_in_time()),
            };
            if let Err(e) = self.writable() {
                break Err(e);
            }
            guard = self.room.1.wait_timeout(guard, left);
            now = clock::nanos();
        };
        drop(guard);
        if paid.is_err() {
            self.throttle.forgive(delay);
        }
        stalls.delayed_nanos.fetch_add(now - began, Ordering::Relaxed);
        paid
    }

    fn await_end_of_stop(&self, trees: &[Arc<Tree>], deadline: Option<Deadline>) -> Result<()> {
        while self.pressure(trees) == Pressure::STOP {
            self.writable()?;
            if self.options.workers == 0 {
                if !self.step()? {
                    return Ok(());
                }
                continue;
            }
            // There will be no room as long as the work fails that makes it.
            let lacking = trees.iter().max_by_key(|t| t.gauge.get()).map(|t| t.id);
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
                Some(d) => d.left().ok_or_else(no_room_in_time)?,
            };
            // Under the lock, so that it is not missed when room is made just now.
            if self.pressure(trees) == Pressure::STOP {
                drop(self.room.1.wait_timeout(guard, left.min(LOOK_AGAIN)));
            }
        }
        Ok(())
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
