//! The one door to atomics, locks and threads, so that loom can take their place (`--cfg loom`).
//!
//! Locks do not poison: a panic under a lock is a bug that the thread reports itself, and no state
//! here is left half-changed across a call that can panic.

#![allow(unused_imports)]

#[cfg(loom)]
pub(crate) use loom::{sync::Arc, sync::atomic, thread};
#[cfg(not(loom))]
pub(crate) use std::{sync::Arc, sync::atomic, thread};

#[cfg(loom)]
use loom::sync as imp;
#[cfg(not(loom))]
use std::sync as imp;
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

    #[inline]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }
}

/// `std`'s condition variable without poisoning.
#[derive(Default, Debug)]
pub(crate) struct Condvar(imp::Condvar);

impl Condvar {
    pub fn new() -> Condvar {
        Condvar(imp::Condvar::new())
    }

    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        match self.0.wait(guard) {
            Ok(guard) => guard,
            Err(poisoned) => poisoned.into_inner(),
        }
    }

    /// Waits, at most for `timeout`; wakes may be spurious.
    pub fn wait_timeout<'a, T>(&self, guard: MutexGuard<'a, T>, timeout: Duration) -> MutexGuard<'a, T> {
        match self.0.wait_timeout(guard, timeout) {
            Ok((guard, _)) => guard,
            Err(poisoned) => poisoned.into_inner().0,
        }
    }

    /// Like [`wait_timeout`](Condvar::wait_timeout); also whether it was woken in time.
    pub fn wait_until<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> (MutexGuard<'a, T>, bool) {
        let (guard, result) = match self.0.wait_timeout(guard, timeout) {
            Ok(woken) => woken,
            Err(poisoned) => poisoned.into_inner(),
        };
        (guard, !result.timed_out())
    }

    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}
