//! The sync stage: makes commits durable beside the commits that follow. One sync is in flight at
//! a time; whoever finds none starts one, for everything appended by then; the rest wait for it,
//! or for the next (group commit, as in LevelDB's and Pebble's commit pipelines).

use crate::db::clock::Deadline;
use crate::db::core::Core;
use crate::db::stage::{State, wake};
use crate::error::{Error, Result};
use crate::ids::{FileNo, Position, Seq};
use crate::journal::Segment;
use crate::options::Durability;
use crate::sync::atomic::{Ordering, fence};
use std::task::Waker;
use std::time::Duration;

impl Core {
    /// Returns once everything up to `seq` survives power loss.
    pub fn sync_to(&self, seq: Seq) -> Result<()> {
        // A durable commit stays durable, whatever has failed since.
        if self.snapshots.durable() >= seq {
            return Ok(());
        }
        let mut state = self.sync.state.lock();
        loop {
            if state.durable_seq >= seq {
                return Ok(());
            }
            if let Some(e) = self.failure() {
                return Err(e);
            }
            if state.in_flight {
                state = self.sync.moved.wait(state);
                continue;
            }
            state.in_flight = true;
            drop(state);
            let synced = self.sync_once();
            state = self.sync.state.lock();
            self.end_sync(&mut state, synced)?;
        }
    }

    /// The newest sequence number that is durable, or visible.
    pub fn newest(&self, kind: Durability) -> Seq {
        match kind {
            Durability::Sync => self.snapshots.durable(),
            Durability::Buffered => self.snapshots.visible(),
        }
    }

    /// Waits until something is durable, or visible, beyond `seen`; at most for `timeout` if there is
    /// one. `None`: the time is over.
    pub fn await_past(&self, kind: Durability, seen: Seq, timeout: Option<Duration>) -> Result<Option<Seq>> {
        let deadline = timeout.map(Deadline::after);
        let mut state = self.sync.state.lock();
        loop {
            self.sync.watching.fetch_add(1, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            let newest = self.newest(kind);
            if newest > seen {
                return Ok(Some(newest));
            }
            self.alive()?;
            state = match deadline {
                None => self.sync.moved.wait(state),
                Some(deadline) => match deadline.left() {
                    Some(left) => self.sync.moved.wait_timeout(state, left),
                    None => return Ok(None),
                },
            };
        }
    }

    fn alive(&self) -> Result<()> {
        self.open()?;
        self.failure().map_or(Ok(()), Err)
    }

    fn end_sync(&self, state: &mut State, synced: Result<Synced>) -> Result<()> {
        state.in_flight = false;
        state.syncs += 1;
        let result = match synced {
            Ok(Synced { durable, seq, sealed }) => {
                state.durable = durable;
                state.durable_seq = seq;
                self.sync.durable.store(durable.0, Ordering::Release);
                self.snapshots.publish_durable(seq);
                if let Some(hint) = &mut state.hint {
                    hint.store(durable);
                }
                self.sealed.lock().extend(sealed);
                wake(&mut state.wakers, Durability::Sync, seq);
                Ok(())
            }
            Err(e) => Err(e),
        };
        self.sync.moved.notify_all();
        result
    }

    /// One sync of everything appended by now. The lock on commits is held only to take the
    /// target, not while the disk works.
    fn sync_once(&self) -> Result<Synced> {
        let known = self.sync.durable_position().0;
        let (durable, seq, active, retired) = {
            let mut commit = self.commit.lock();
            let taken = commit.sync_target(known);
            drop(commit);
            taken.inspect_err(|e| self.fail(e))?
        };
        let sync = |segment: &Segment| {
            let synced = segment.file().sync();
            synced
                .map_err(|e| Error::io("syncing the journal", segment.path(), e).for_good())
                .inspect_err(|e| self.fail(e))
        };
        // In journal order: the newer must not be durable without the older.
        for old in &retired {
            sync(&old.segment)?;
        }
        sync(&active)?;
        let sealed = retired.iter().map(|r| (r.segment.no(), r.start, r.end)).collect();
        Ok(Synced { durable, seq, sealed })
    }

    /// Asks the sync thread to make `seq` durable.
    pub fn ask_sync(&self, seq: Seq) {
        let mut state = self.sync.state.lock();
        if state.asked < seq {
            state.asked = seq;
            self.sync.wanted.notify_one();
        }
    }

    /// Answers what [`await_past`](Core::await_past) would if it need not wait; else has `waker`
    /// woken when it is worth asking again.
    pub fn poll_past(&self, kind: Durability, seen: Seq, waker: &Waker) -> Option<Result<Seq>> {
        let mut state = self.sync.state.lock();
        self.sync.watching.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let newest = self.newest(kind);
        if newest > seen {
            return Some(Ok(newest));
        }
        if let Err(e) = self.alive() {
            return Some(Err(e));
        }
        let wake = (kind, seen);
        state.wakers.retain(|(w, old)| *w != wake || !old.will_wake(waker));
        state.wakers.push((wake, waker.clone()));
        None
    }

    /// The body of the sync thread: makes durable what tickets ask for, until stopped.
    pub fn run_sync_thread(&self) {
        loop {
            let asked = {
                let mut state = self.sync.state.lock();
                loop {
                    if state.stop || self.failure().is_some() {
                        return;
                    }
                    if state.asked > state.durable_seq {
                        break state.asked;
                    }
                    state = self.sync.wanted.wait(state);
                }
            };
            // The failure is latched and told to every waiter by whoever met it.
            let _ = self.sync_to(asked);
        }
    }

    /// How many syncs of the journal have ended.
    pub fn syncs(&self) -> u64 {
        self.sync.state.lock().syncs
    }
}

struct Synced {
    durable: Position,
    seq: Seq,
    sealed: Vec<(FileNo, Position, Position)>,
}
