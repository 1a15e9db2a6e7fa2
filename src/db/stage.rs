//! What the sync stage remembers: how far the journal is durable, and who waits for more.

use crate::db::gather::Gather;
use crate::ids::{FileNo, Position, Seq};
use crate::journal::{self, Hint, Segment};
use crate::options::Durability;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use crate::sync::thread::{self, Thread};
use crate::sync::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

/// A segment the journal has left, not yet synced whole.
pub(crate) struct Retired {
    pub segment: Arc<Segment>,
    pub start: Position,
    pub end: Position,
    /// Goes with this, once it is synced: to unmap a window takes milliseconds.
    #[expect(dead_code, reason = "only when it is dropped counts")]
    pub writer: journal::Writer,
}

/// What a sync has made durable.
pub(crate) struct Synced {
    pub durable: Position,
    pub seq: Seq,
    /// Segments that are ready to be sealed.
    pub sealed: Vec<(FileNo, Position, Position)>,
}

pub(crate) struct SyncStage {
    pub state: Mutex<State>,
    /// `state.durable` for who must not wait.
    pub durable: AtomicU64,
    /// At least how many wait for commits to become visible. Raised under the lock on the state.
    pub watching: AtomicUsize,
    /// Durable has moved, a sync has ended, or the database has failed: for who waits for more than one
    /// commit of its own.
    pub moved: Condvar,
    /// The sync thread has something to do.
    pub wanted: Condvar,
}

pub(crate) struct State {
    pub in_flight: bool,
    pub durable: Position,
    pub durable_seq: Seq,
    /// What the sync thread is asked to make durable.
    pub asked: Seq,
    pub wakers: Wakers,
    pub sleepers: Sleepers,
    pub gather: Gather,
    pub hint: Option<Hint>,
    pub stop: bool,
    /// Syncs of the journal that have ended.
    pub syncs: u64,
    /// The time they took.
    pub syncing: Duration,
    /// The same, and whatever else was in flight.
    pub rounds: u64,
}

impl SyncStage {
    pub fn new(durable: Position, durable_seq: Seq, hint: Option<Hint>) -> SyncStage {
        let state = State {
            in_flight: false,
            durable,
            durable_seq,
            asked: Seq::ZERO,
            wakers: Wakers::default(),
            sleepers: Sleepers::default(),
            gather: Gather::default(),
            hint,
            stop: false,
            syncs: 0,
            syncing: Duration::ZERO,
            rounds: 0,
        };
        SyncStage {
            state: Mutex::new(state),
            durable: AtomicU64::new(durable.0),
            watching: AtomicUsize::new(0),
            moved: Condvar::new(),
            wanted: Condvar::new(),
        }
    }

    /// A position known durable, perhaps not the newest: what records carry as watermark.
    #[inline]
    pub fn durable_hint(&self) -> Position {
        Position(self.durable.load(Ordering::Acquire))
    }

    /// How far the journal is durable, in bytes and in operations.
    pub fn durable_position(&self) -> (Position, Seq) {
        let state = self.state.lock();
        (state.durable, state.durable_seq)
    }

    /// Announces somebody who is about to look at what is visible, and to wait if that is not
    /// enough. Under the lock on the state.
    pub fn watch(&self, kind: Durability) {
        if kind == Durability::Buffered {
            self.watching.fetch_add(1, Ordering::SeqCst);
            // SeqCst: see `tell_visible`.
            fence(Ordering::SeqCst);
        }
    }

    /// Wakes everybody who waits: something has happened that no sync will tell.
    pub fn wake_all(&self) {
        let mut state = self.state.lock();
        let waiting = state.wakers.take_all();
        let asleep = state.sleepers.take_all();
        self.moved.notify_all();
        self.wanted.notify_all();
        drop(state);
        asleep.iter().for_each(Thread::unpark);
        wake(waiting);
    }

    /// Wakes those that wait for commits to become visible, if any. Under no lock: a waker is
    /// somebody else's code.
    #[inline]
    pub fn tell_visible(&self, visible: Seq) {
        // SeqCst: the watcher counts itself, then looks at what is visible; the commit publishes,
        // then looks at the count. One of the two sees the other.
        fence(Ordering::SeqCst);
        if self.watching.load(Ordering::SeqCst) == 0 {
            return;
        }
        self.wake_visible(visible);
    }

    #[cold]
    fn wake_visible(&self, visible: Seq) {
        let mut state = self.state.lock();
        let passed = state.wakers.take_passed(Durability::Buffered, visible);
        // Who came after `visible` goes on waiting. Threads count themselves again when they find
        // that they have to wait on.
        self.watching.store(state.wakers.visible.len(), Ordering::SeqCst);
        self.moved.notify_all();
        drop(state);
        wake(passed);
    }

    /// Ends the sync thread.
    pub fn stop(&self) {
        self.state.lock().stop = true;
        self.wake_all();
    }
}

/// Threads that are parked until their commit is durable, or until it is their turn to sync. Each is woken
/// by itself, and only then: with one condition variable for all, 64 threads spent their time at the
/// lock on the state instead of making the next group.
#[derive(Default)]
pub(crate) struct Sleepers(Vec<(Seq, Thread)>);

impl Sleepers {
    /// Lists the calling thread, which waits for `seq`. It parks once it has let go of the lock.
    pub fn add(&mut self, seq: Seq) {
        self.0.push((seq, thread::current()));
    }

    /// Takes those whose commits are durable now, and of the others the one that is to sync next. Whoever
    /// that is finds a sync in flight, or its commit durable through one that has ended since, or starts one:
    /// in each case the end of a sync looks after those that stay here.
    pub fn take_passed(&mut self, durable: Seq) -> (Option<Thread>, Vec<Thread>) {
        let mut passed = Vec::with_capacity(self.0.len());
        self.0.retain(|(seq, thread)| {
            let stays = *seq > durable;
            if !stays {
                passed.push(thread.clone());
            }
            stays
        });
        (self.0.pop().map(|(_, thread)| thread), passed)
    }

    pub fn take_all(&mut self) -> Vec<Thread> {
        std::mem::take(&mut self.0).into_iter().map(|(_, thread)| thread).collect()
    }
}

/// Who is to be woken when something is durable, or visible, beyond a sequence number.
#[derive(Default)]
pub(crate) struct Wakers {
    visible: Waiting,
    durable: Waiting,
    /// Given to the next who waits.
    next: u64,
}

/// Beyond which number, and who.
type Waiting = BTreeMap<(Seq, u64), Waker>;

/// A place among the wakers. It may be empty by now: then its waker was woken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    kind: Durability,
    seen: Seq,
    who: u64,
}

impl Wakers {
    fn of(&mut self, kind: Durability) -> &mut Waiting {
        match kind {
            Durability::Buffered => &mut self.visible,
            Durability::Sync => &mut self.durable,
        }
    }

    /// Has `waker` woken when something is durable, or visible, beyond `seen`.
    pub fn add(&mut self, kind: Durability, seen: Seq, waker: Waker) -> Place {
        let who = self.next;
        self.next += 1;
        self.of(kind).insert((seen, who), waker);
        Place { kind, seen, who }
    }

    /// Takes a waker back. What is answered is dropped under no lock.
    #[must_use]
    pub fn remove(&mut self, place: Place) -> Option<Waker> {
        self.of(place.kind).remove(&(place.seen, place.who))
    }

    /// Takes those whose sequence number `newest` has passed, to be [woken](wake).
    pub fn take_passed(&mut self, kind: Durability, newest: Seq) -> Vec<Waker> {
        let waiting = self.of(kind);
        match waiting.first_key_value() {
            Some(((seen, _), _)) if *seen < newest => {}
            _ => return Vec::new(),
        }
        let rest = waiting.split_off(&(newest, 0));
        std::mem::replace(waiting, rest).into_values().collect()
    }

    fn take_all(&mut self) -> Vec<Waker> {
        let (visible, durable) = (std::mem::take(&mut self.visible), std::mem::take(&mut self.durable));
        visible.into_values().chain(durable.into_values()).collect()
    }
}

/// Wakes all of them. Under no lock: a waker is somebody else's code, and its drop as well.
pub(crate) fn wake(wakers: Vec<Waker>) {
    for waker in wakers {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seq(n: u64) -> Seq {
        Seq::new(n).unwrap()
    }

    fn wait(stage: &SyncStage, kind: Durability, seen: u64) -> Place {
        let mut state = stage.state.lock();
        stage.watch(kind);
        state.wakers.add(kind, seq(seen), Waker::noop().clone())
    }

    /// A commit that is late with its news does not put out whoever came meanwhile.
    #[test]
    fn who_waits_for_the_next_commit_stays_counted() {
        let stage = SyncStage::new(Position(0), Seq::ZERO, None);
        wait(&stage, Durability::Buffered, 9);
        wait(&stage, Durability::Buffered, 10);
        stage.tell_visible(seq(10));
        assert_eq!(stage.watching.load(Ordering::SeqCst), 1);
        stage.tell_visible(seq(11));
        assert_eq!(stage.watching.load(Ordering::SeqCst), 0);
        // Who waits for durable commits costs visible ones nothing.
        wait(&stage, Durability::Sync, 11);
        assert_eq!(stage.watching.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn wakers_go_when_passed_or_taken_back() {
        let mut wakers = Wakers::default();
        let places: Vec<_> = [3, 5, 5, 7]
            .iter()
            .map(|&n| wakers.add(Durability::Sync, seq(n), Waker::noop().clone()))
            .collect();
        assert!(wakers.take_passed(Durability::Buffered, seq(9)).is_empty());
        assert!(wakers.take_passed(Durability::Sync, seq(3)).is_empty());
        assert!(wakers.remove(places[1]).is_some() && wakers.remove(places[1]).is_none());
        assert_eq!(wakers.take_passed(Durability::Sync, seq(6)).len(), 2);
        assert!(wakers.remove(places[0]).is_none());
        assert_eq!(wakers.take_all().len(), 1);
    }
}

/// Every interleaving of a commit and of who waits for it.
#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use crate::sync::{Arc, thread};

    /// A commit looks, under no lock, whether anybody waits. Were a wake-up lost, the model would hang.
    #[test]
    fn who_waits_for_a_commit_is_woken() {
        loom::model(|| {
            let stage = Arc::new(SyncStage::new(Position(0), Seq::ZERO, None));
            let visible = Arc::new(AtomicU64::new(0));
            let waiter = {
                let (stage, visible) = (stage.clone(), visible.clone());
                thread::spawn(move || {
                    let mut state = stage.state.lock();
                    loop {
                        stage.watch(Durability::Buffered);
                        if visible.load(Ordering::Acquire) > 0 {
                            return;
                        }
                        state = stage.moved.wait(state);
                    }
                })
            };
            visible.store(1, Ordering::Release);
            stage.tell_visible(Seq::new(1).unwrap());
            waiter.join().unwrap();
        });
    }
}
