//! The one place where time is read: for deadlines that a caller sets, for how long writes are delayed,
//! and to say how long things took; never to decide what is true.

use crate::error::{Error, ErrorKind};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Nanoseconds since this was first asked.
pub(crate) fn nanos() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = START.get_or_init(Instant::now);
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

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

/// What a write with a deadline gets that had to wait longer.
#[cold]
pub(crate) fn no_room_in_time() -> Error {
    Error::new(ErrorKind::Busy, "no room for the write before its deadline")
}

/// A moment, to say later how long ago it was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment(Instant);

impl Moment {
    pub fn now() -> Moment {
        Moment(Instant::now())
    }

    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// The time from `earlier` to here; none if it was not earlier.
    pub fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }
}
