//! The one door to atomics, locks and threads, so that loom can take their place (`--cfg loom`).
//!
//! Locks do not poison: a panic under a lock is a bug that the thread reports itself, and no state
//! here is left half-changed across a call that can panic.

#![allow(unused_imports)]

#[cfg(loom)]
pub(crate) use loom::{sync::Arc, sync::atomic, thread};
#[cfg(not(loom))]
pub(crate) use std::{sync::Arc, sync::atomic, thread};

use atomic::AtomicUsize;
use atomic::Ordering::Relaxed;
#[cfg(loom)]
use loom::sync as imp;
#[cfg(not(loom))]
use std::sync as imp;
use std::sync::PoisonError;
use std::time::Duration;

pub(crate) use imp::MutexGuard;

/// `std`'s mutex without poisoning.
#[derive(Default, Debug)]
pub(crate) struct Mutex<T>(imp::Mutex<T>);

impl<T> Mutex<T> {
    pub fn new(value: T) -> Mutex<T> {
        Mutex(imp::Mutex::new(value))
    }

    pub fn into_inner(self) -> T {
        match self.0.into_inner() {
            Ok(value) => value,
            Err(poisoned) => poisoned.into_inner(),
        }
    }

    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        match self.0.lock() {
            Ok(guard) => guard,
            Err(poisoned) => poisoned.into_inner(),
        }
    }
}

/// `std`'s condition variable without poisoning, and without a system call where nobody waits: what is told
/// of must have been changed under the lock that who waits holds.
#[derive(Default, Debug)]
pub(crate) struct Condvar {
    imp: imp::Condvar,
    /// Who waits, or is about to, or has just been woken. Raised under the lock.
    waiting: AtomicUsize,
}

impl Condvar {
    pub fn new() -> Condvar {
        Condvar::default()
    }

    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.waiting.fetch_add(1, Relaxed);
        let guard = self.imp.wait(guard).unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Relaxed);
        guard
    }

    /// Waits, at most for `timeout`; wakes may be spurious.
    pub fn wait_timeout<'a, T>(&self, guard: MutexGuard<'a, T>, timeout: Duration) -> MutexGuard<'a, T> {
        self.wait_until(guard, timeout).0
    }

    /// Like [`wait_timeout`](Condvar::wait_timeout); also whether it was woken in time.
    pub fn wait_until<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> (MutexGuard<'a, T>, bool) {
        self.waiting.fetch_add(1, Relaxed);
        let woken = self.imp.wait_timeout(guard, timeout);
        self.waiting.fetch_sub(1, Relaxed);
        let (guard, result) = woken.unwrap_or_else(PoisonError::into_inner);
        (guard, !result.timed_out())
    }

    pub fn notify_one(&self) {
        if self.waiting.load(Relaxed) > 0 {
            self.imp.notify_one();
        }
    }

    pub fn notify_all(&self) {
        if self.waiting.load(Relaxed) > 0 {
            self.imp.notify_all();
        }
    }
}
