//! What the sync stage remembers: how far the journal is durable, and who waits for more.

use crate::ids::{Position, Seq};
use crate::journal::{Hint, Segment};
use crate::options::Durability;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use crate::sync::{Condvar, Mutex};
use std::sync::Arc;
use std::task::Waker;

/// A segment the journal has left, not yet synced whole.
pub(crate) struct Retired {
    pub segment: Arc<Segment>,
    pub start: Position,
    pub end: Position,
}

pub(crate) struct SyncStage {
    pub state: Mutex<State>,
    /// `state.durable` for who must not wait.
    pub durable: AtomicU64,
    /// How many wait for commits to become visible.
    pub watching: AtomicUsize,
    /// Durable has moved, a sync has ended, or the database has failed.
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
    /// Who is to be woken when something is durable, or visible, beyond a sequence number.
    pub wakers: Vec<((Durability, Seq), Waker)>,
    pub hint: Option<Hint>,
    pub stop: bool,
    pub syncs: u64,
}

impl SyncStage {
    pub fn new(durable: Position, durable_seq: Seq, hint: Option<Hint>) -> SyncStage {
        let (wakers, asked, in_flight, stop, syncs) = (Vec::new(), Seq::ZERO, false, false, 0);
        SyncStage {
            state: Mutex::new(State { in_flight, durable, durable_seq, asked, wakers, hint, stop, syncs }),
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

    /// Wakes everybody who waits: something has happened that no sync will tell.
    pub fn wake_all(&self) {
        let mut state = self.state.lock();
        for (_, waker) in state.wakers.drain(..) {
            waker.wake();
        }
        self.moved.notify_all();
        self.wanted.notify_all();
    }

    /// Wakes those that wait for commits to become visible, if any.
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

    fn wake_visible(&self, visible: Seq) {
        let mut state = self.state.lock();
        wake(&mut state.wakers, Durability::Buffered, visible);
        // Those that wait for more than this one brought still count; threads count themselves again
        // when they have looked.
        let still = state.wakers.iter().filter(|(w, _)| w.0 == Durability::Buffered).count();
        self.watching.store(still, Ordering::SeqCst);
        self.moved.notify_all();
    }

    /// Ends the sync thread.
    pub fn stop(&self) {
        self.state.lock().stop = true;
        self.wake_all();
    }
}

/// Wakes those whose sequence number `newest` has passed.
pub(crate) fn wake(wakers: &mut Vec<((Durability, Seq), Waker)>, kind: Durability, newest: Seq) {
    let mut i = 0;
    while i < wakers.len() {
        let (waits_for, seen) = wakers[i].0;
        if waits_for == kind && newest > seen {
            wakers.swap_remove(i).1.wake();
        } else {
            i += 1;
        }
    }
}
