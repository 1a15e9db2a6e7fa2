//! The sync stage: makes commits durable beside the commits that follow. One sync is in flight at
//! a time; whoever finds none starts one, for everything appended by then; the rest wait for it,
//! or for the next (group commit, as in LevelDB's and Pebble's commit pipelines).

use crate::db::appender::Boundary;
use crate::db::clock::{Deadline, Moment};
use crate::db::core::{Core, Installed};
use crate::db::stage::{Place, State, Synced, wake};
use crate::error::{Error, Result, closed};
use crate::ids::Seq;
use crate::journal::Segment;
use crate::mutant::Mutant;
use crate::options::Durability;
use crate::sync::MutexGuard;
use crate::sync::atomic::Ordering;
use crate::sync::thread::{self, Thread};
use crate::version::Edit;
use std::task::Waker;
use std::time::Duration;

impl Core {
    /// Returns once everything up to `seq` survives power loss.
    pub fn sync_to(&self, seq: Seq) -> Result<()> {
        let mut waited = false;
        loop {
            // A durable commit stays durable, whatever has failed since.
            if self.snapshots.durable() >= seq || Mutant::AckBeforeSync.on() {
                return Ok(());
            }
            let mut state = self.sync.state.lock();
            if state.durable_seq >= seq {
                return Ok(());
            }
            if let Some(e) = self.failure() {
                return Err(e);
            }
            if !waited {
                state.gather.came();
                waited = true;
            }
            if !state.in_flight {
                state.in_flight = true;
                self.sync_now(self.gather(state))?;
                continue;
            }
            // Woken for nothing it is listed twice, and will be woken for nothing once more.
            state.sleepers.add(seq);
            drop(state);
            thread::park();
        }
    }

    /// Makes the segments that the journal has left durable, and ready to be sealed: also those
    /// that held nothing any more that was to be synced.
    pub fn sync_retired(&self) -> Result<()> {
        // What is in flight may cover them.
        let mut state = self.sync.state.lock();
        let ended = state.rounds + u64::from(state.in_flight);
        while state.rounds < ended {
            state = self.sync.moved.wait(state);
        }
        drop(state);
        if self.commit.lock().retired.is_empty() {
            return Ok(());
        }
        self.sync_all()
    }

    /// One sync that begins from here on: makes durable what was appended, and everything that the
    /// journal has left ready to be sealed.
    pub fn sync_all(&self) -> Result<()> {
        let mut state = self.sync.state.lock();
        // What is in flight has begun before.
        let ended = state.syncs + 1 + u64::from(state.in_flight);
        loop {
            if let Some(e) = self.failure() {
                return Err(e);
            }
            if state.syncs >= ended {
                return Ok(());
            }
            if !state.in_flight {
                state.in_flight = true;
                return self.sync_now(state);
            }
            state = self.sync.moved.wait(state);
        }
    }

    /// Lets those come whom the last sync let go. To sleep here would take longer than what is waited for.
    fn gather<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let Some(patience) = state.gather.patience() else { return state };
        let start = Moment::now();
        while state.gather.patience().is_some() && start.elapsed() < patience {
            drop(state);
            thread::yield_now();
            state = self.sync.state.lock();
        }
        state
    }

    /// One sync, which is in flight by the mark of the caller.
    fn sync_now(&self, mut state: MutexGuard<'_, State>) -> Result<()> {
        state.gather.over();
        drop(state);
        let start = Moment::now();
        let synced = self.sync_once();
        self.end_sync(Some(start.elapsed()), synced)
    }

    /// Installs a flush after which nothing needs the journal before `boundary`. That takes the place of a
    /// sync: everything up to there survives power loss by the tables alone.
    pub fn install_for_sync(&self, installed: Installed, boundary: Boundary) -> Result<Edit> {
        let mut state = self.sync.state.lock();
        while state.in_flight {
            state = self.sync.moved.wait(state);
        }
        state.in_flight = true;
        drop(state);
        let Boundary { position: durable, seq } = boundary;
        let mut synced = Synced { durable, seq, sealed: Vec::new() };
        // A sync that failed has taken segments with it that this would have to give up.
        let edit = match self.failure() {
            Some(e) => Err(e),
            None => self.install_with(installed, Some(&mut synced)),
        };
        self.end_sync(None, edit.as_ref().map(|_| synced).map_err(Error::clone))?;
        edit
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
            self.sync.watch(kind);
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

    /// An error if nothing will come any more. A close that is under way still makes everything
    /// durable.
    fn alive(&self) -> Result<()> {
        if self.ended.load(Ordering::Acquire) {
            return Err(closed());
        }
        self.failure().map_or(Ok(()), Err)
    }

    /// Tells what is durable now, after a sync of the journal, which `took` so long, or what took its place.
    fn end_sync(&self, took: Option<Duration>, synced: Result<Synced>) -> Result<()> {
        let mut state = self.sync.state.lock();
        state.in_flight = false;
        state.rounds += 1;
        if let Some(took) = took {
            state.syncs += 1;
            state.syncing += took;
        }
        self.sync.moved.notify_all();
        let Synced { durable, seq, sealed } = match synced {
            Ok(synced) => synced,
            Err(e) => {
                let all = state.sleepers.take_all();
                drop(state);
                all.iter().for_each(Thread::unpark);
                return Err(e);
            }
        };
        // A flush may have been overtaken by a sync.
        let (durable, seq) = (durable.max(state.durable), seq.max(state.durable_seq));
        state.durable = durable;
        state.durable_seq = seq;
        self.sync.durable.store(durable.0, Ordering::Release);
        self.snapshots.publish_durable(seq);
        if let Some(hint) = &mut state.hint {
            hint.store(durable);
        }
        let for_logs = sealed.iter().any(|s| self.logs.known_segment(s.0).is_some());
        self.sealed.lock().extend(sealed);
        let passed = state.wakers.take_passed(Durability::Sync, seq);
        let (next, awake) = state.sleepers.take_passed(seq);
        if let Some(took) = took {
            // Who synced waited for it as well.
            state.gather.ended(awake.len() + 1, took);
        }
        drop(state);
        // First who starts the next sync: the others have time while the disk works.
        next.iter().chain(&awake).for_each(Thread::unpark);
        wake(passed);
        if for_logs {
            self.work.want_logs();
        }
        Ok(())
    }

    /// One sync of everything appended by now. The lock on commits is held only to take the
    /// target, not while the disk works.
    pub fn sync_once(&self) -> Result<Synced> {
        let known = self.sync.durable_position().0;
        let (durable, seq, active, retired) = {
            let mut commit = self.commit.lock();
            let taken = commit.sync_target(known);
            drop(commit);
            taken.map_err(|e| self.fail(e))?
        };
        let sync = |segment: &Segment| {
            let mut synced = segment.file().sync();
            if Mutant::RetryFailedSync.on() {
                synced = synced.or_else(|_| segment.file().sync());
            }
            synced.map_err(|e| self.fail(Error::io("syncing the journal", segment.path(), e)))
        };
        // In journal order: the newer must not be durable without the older.
        for old in retired.iter().filter(|_| !Mutant::SkipSyncAtRotation.on()) {
            sync(&old.segment)?;
        }
        if !Mutant::SkipJournalSync.on() {
            sync(&active)?;
        }
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
    /// woken when it is worth asking again, in place of the one at `place`.
    pub fn poll_past(
        &self,
        kind: Durability,
        seen: Seq,
        waker: &Waker,
        place: &mut Option<Place>,
    ) -> Option<Result<Seq>> {
        // Cloned and dropped under no lock: a waker is somebody else's code.
        let waker = waker.clone();
        let mut state = self.sync.state.lock();
        let old = place.take().and_then(|place| state.wakers.remove(place));
        self.sync.watch(kind);
        let newest = self.newest(kind);
        let answer = match self.alive() {
            _ if newest > seen => Some(Ok(newest)),
            Err(e) => Some(Err(e)),
            Ok(()) => {
                *place = Some(state.wakers.add(kind, seen, waker));
                None
            }
        };
        drop(state);
        drop(old);
        answer
    }

    /// Has nobody woken for `place` any more.
    pub fn leave(&self, place: &mut Option<Place>) {
        let Some(place) = place.take() else { return };
        let waker = self.sync.state.lock().wakers.remove(place);
        drop(waker);
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

    /// How many syncs of the journal have ended, and the time they took.
    pub fn syncs(&self) -> (u64, Duration) {
        let state = self.sync.state.lock();
        (state.syncs, state.syncing)
    }
}
