//! A lock that may be held while the disk works: who waits for it can give up in time.

use crate::sync::{Condvar, Mutex};
use std::time::Duration;

/// One after another.
#[derive(Default)]
pub(crate) struct Turn {
    taken: Mutex<bool>,
    free: Condvar,
}

/// Whoever holds this has the turn.
pub(crate) struct Taken<'a>(&'a Turn);

impl Turn {
    pub fn lock(&self) -> Taken<'_> {
        let mut taken = self.taken.lock();
        while *taken {
            taken = self.free.wait(taken);
        }
        *taken = true;
        Taken(self)
    }

    /// Only if nobody has it.
    pub fn try_lock(&self) -> Option<Taken<'_>> {
        self.lock_in_time(|| None)
    }

    /// Waits as long as `left` says there is time.
    pub fn lock_in_time(&self, left: impl Fn() -> Option<Duration>) -> Option<Taken<'_>> {
        let mut taken = self.taken.lock();
        while *taken {
            taken = self.free.wait_timeout(taken, left()?);
        }
        *taken = true;
        Some(Taken(self))
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *self.0.taken.lock() = false;
        self.0.free.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_no_time_gives_up() {
        let turn = Turn::default();
        let held = turn.lock();
        assert!(turn.try_lock().is_none());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| turn.lock_in_time(|| Some(Duration::MAX)).is_some());
            drop(held);
            assert!(waiting.join().unwrap());
        });
        assert!(turn.try_lock().is_some());
    }
}
