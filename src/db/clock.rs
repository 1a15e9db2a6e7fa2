//! The one place where time is read: for deadlines that a caller sets, never to decide what is
//! true.

use std::time::{Duration, Instant};

/// A moment after which waiting ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// `timeout` from now; never, if that is beyond what the clock can say.
    pub fn after(timeout: Duration) -> Deadline {
        Deadline(Instant::now().checked_add(timeout))
    }

    /// The time left; `None` when it is over.
    pub fn left(self) -> Option<Duration> {
        match self.0 {
            None => Some(Duration::MAX),
            Some(at) => at.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()),
        }
    }
}
