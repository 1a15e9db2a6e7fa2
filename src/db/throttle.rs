//! Backpressure: how long a byte that is written has to wait for the work it makes.
//!
//! Policy is [`Load::pressure`], a pure function. Up to a soft limit nothing waits; from there to
//! the hard one, where writes stop, the delay of a byte grows as x*x/(1-x), x being the part of the
//! way. No throughput is measured: the load itself is the feedback. As long as writers are faster
//! than the background, the load grows and with it the delay, until both are equally fast. The
//! curve passes any speed there is: 180 MB/s at a fifth of the way, 20 MB/s at a half, 1.2 MB/s at
//! nine tenths, so that where a machine comes to rest leaves room on both sides.

use crate::ids::Position;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// So many memtables, as bytes, in all keyspaces: writes wait.
pub(crate) const STOP: usize = 4;
/// Runs of level 0 at which writes begin to be delayed.
const L0_SOFT: u64 = 20;
/// Runs of level 0 at which writes wait.
const L0_STOP: u64 = 36;
/// Nanoseconds per KiB where the curve's x*x/(1-x) is one.
const SCALE: f64 = 100.0 * 1024.0;
/// Delays are gathered until they come to this, which a sleep is worth.
const NAP: u64 = 1_000_000;
/// The longest delay of one write, a large batch far up the curve.
const LONGEST: u64 = 2_000_000_000;

/// Something there is too much of.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Load {
    pub now: u64,
    /// What is nothing to worry about.
    pub soft: u64,
    /// What must not be exceeded.
    pub hard: u64,
}

impl Load {
    /// Bytes in memtables of all keyspaces, each of which may take `memtable` of them. One being
    /// written and one being flushed is how it should be.
    pub fn memory(bytes: u64, memtable: u64) -> Load {
        Load { now: bytes, soft: memtable.saturating_mul(2), hard: memtable.saturating_mul(STOP as u64) }
    }

    /// Bytes of journal that memtables need, of `limit`.
    pub fn journal(bytes: u64, limit: u64) -> Load {
        Load { now: bytes, soft: limit / 4 * 3, hard: limit }
    }

    /// Runs of level 0 of one tree.
    pub fn level0(runs: usize) -> Load {
        Load { now: runs as u64, soft: L0_SOFT, hard: L0_STOP }
    }

    /// Bytes of one tree by which levels exceed their targets, against the `data` in it; `base` is
    /// what the first level may hold. A tree so far behind reads slower, and goes on being written.
    pub fn levels(excess: u64, data: u64, base: u64) -> Load {
        let soft = (data / 4).saturating_add(base.saturating_mul(2));
        let hard = data.saturating_add(base.saturating_mul(8));
        Load { now: excess.min(hard - hard / 50), soft, hard }
    }

    pub fn pressure(self) -> Pressure {
        let Load { now, soft, hard } = self;
        if now >= hard {
            return Pressure::STOP;
        }
        if now <= soft {
            return Pressure::NONE;
        }
        let x = (now - soft) as f64 / (hard - soft) as f64;
        let delay = SCALE * x * x / (1.0 - x);
        // Saturates; above nothing, and below everything.
        Pressure((delay as u32).clamp(1, Pressure::STOP.0 - 1))
    }
}

/// The delay of what is written, in nanoseconds per KiB.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(crate) struct Pressure(u32);

impl Pressure {
    pub const NONE: Pressure = Pressure(0);
    /// Writes wait.
    pub const STOP: Pressure = Pressure(u32::MAX);

    /// The delay of so many bytes, in nanoseconds.
    pub fn delay(self, bytes: usize) -> u64 {
        u64::from(self.0).saturating_mul(bytes as u64).div_ceil(1024).min(LONGEST)
    }
}

/// A pressure that changes with what jobs install, read by every write.
#[derive(Default, Debug)]
pub(crate) struct Gauge(AtomicU32);

impl Gauge {
    // Relaxed, both: nothing is read on the strength of it.
    #[inline]
    pub fn get(&self) -> Pressure {
        Pressure(self.0.load(Ordering::Relaxed))
    }

    pub fn set(&self, pressure: Pressure) {
        self.0.store(pressure.0, Ordering::Relaxed);
    }
}

/// What became of writes that found the background behind. All but the last only ever grow.
#[derive(Default, Debug)]
pub(crate) struct Stalls {
    /// Writes that were delayed.
    pub delayed: AtomicU64,
    /// For how long, together.
    pub delayed_nanos: AtomicU64,
    /// Writes that found no room and had to wait for it.
    pub stopped: AtomicU64,
    /// For how long, together.
    pub stopped_nanos: AtomicU64,
    /// Writes that are stopped now.
    pub waiting: AtomicU64,
}

/// What memtables take.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Memory {
    /// Bytes in those that are written to, as of the last look at them.
    pub active: u64,
    /// Bytes in those that wait for their flush, exactly.
    pub frozen: u64,
    /// The journal positions of that look, and of the oldest record any of them needs.
    pub journal_end: Position,
    pub journal_start: Position,
}

/// What all trees of a database have in common for those who write.
#[derive(Debug)]
pub(crate) struct Throttle {
    memtable_bytes: u64,
    journal_bytes: u64,
    memory: Mutex<Memory>,
    /// The pressure of memory and journal.
    pub gauge: Gauge,
    /// When all delays so far are over, in nanoseconds of the clock.
    until: AtomicU64,
    pub stalls: Stalls,
}

impl Default for Throttle {
    fn default() -> Throttle {
        Throttle::new(64 << 20, u64::MAX)
    }
}

impl Throttle {
    pub fn new(memtable_bytes: usize, journal_bytes: u64) -> Throttle {
        Throttle {
            memtable_bytes: memtable_bytes as u64,
            journal_bytes,
            memory: Mutex::default(),
            gauge: Gauge::default(),
            until: AtomicU64::new(0),
            stalls: Stalls::default(),
        }
    }

    /// What a tree has frozen was `before` bytes and is `now`.
    pub fn frozen(&self, before: u64, now: u64) {
        self.change(|memory| {
            // What is frozen is no longer active.
            memory.active = memory.active.saturating_sub(now.saturating_sub(before));
            memory.frozen = (memory.frozen + now).saturating_sub(before);
        });
    }

    /// The memtables that are written to hold so many bytes, and the journal ends here.
    pub fn active(&self, bytes: u64, end: Position) {
        self.change(|memory| (memory.active, memory.journal_end) = (bytes, end));
    }

    /// No memtable needs the journal before this.
    pub fn needed_from(&self, start: Position) {
        self.change(|memory| memory.journal_start = start);
    }

    pub fn memory(&self) -> Memory {
        *self.memory.lock()
    }

    fn change(&self, change: impl FnOnce(&mut Memory)) {
        let mut memory = self.memory.lock();
        change(&mut memory);
        let Memory { active, frozen, journal_end, journal_start } = *memory;
        // Only what is frozen becomes less by waiting.
        let pressure = if frozen == 0 {
            Pressure::NONE
        } else {
            let journal = Load::journal(journal_end.0.saturating_sub(journal_start.0), self.journal_bytes);
            Load::memory(active + frozen, self.memtable_bytes).pressure().max(journal.pressure())
        };
        self.gauge.set(pressure);
    }

    /// Adds a delay to those of all writers, one behind the other, at the moment `now`. Answers when it is over
    /// if that is worth sleeping for; else the next writer pays for it.
    pub fn owe(&self, delay: u64, now: u64) -> Option<u64> {
        let after = |until: u64| until.max(now).saturating_add(delay);
        // Relaxed: a sum of its own.
        let before = self.until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |u| Some(after(u)));
        let until = after(before.unwrap_or_else(|same| same));
        (until - now >= NAP).then_some(until)
    }

    /// Takes back a delay whose write was given up.
    pub fn forgive(&self, delay: u64) {
        let less = |until: u64| Some(until.saturating_sub(delay));
        let _ = self.until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes a second that one writer gets through, in MB.
    fn speed(load: Load) -> u64 {
        1_000_000_000 / load.pressure().delay(1_000_000).max(1)
    }

    #[test]
    fn nothing_waits_at_rest() {
        let m = 64 << 20;
        assert_eq!(Load::memory(0, m).pressure(), Pressure::NONE);
        assert_eq!(Load::memory(2 * m, m).pressure(), Pressure::NONE);
        assert_eq!(Load::level0(20).pressure(), Pressure::NONE);
        assert_eq!(Load::levels(512 << 20, 0, 256 << 20).pressure(), Pressure::NONE);
        assert_eq!(Load::default().pressure(), Pressure::STOP, "no limit is no room");
        assert_eq!(Pressure::NONE.delay(usize::MAX), 0);
    }

    #[test]
    fn writes_stop_at_the_limit_and_not_before() {
        let m = 64 << 20;
        assert_eq!(Load::memory(4 * m, m).pressure(), Pressure::STOP);
        assert!(Load::memory(4 * m - 1, m).pressure() < Pressure::STOP);
        assert_eq!(Load::level0(36).pressure(), Pressure::STOP);
        assert!(Load::level0(35).pressure() < Pressure::STOP);
        // However deep the levels are: level 0 is what stops.
        assert!(Load::levels(u64::MAX, 1 << 30, m).pressure() < Pressure::STOP);
        assert!(Load::levels(u64::MAX, u64::MAX, u64::MAX).pressure() < Pressure::STOP);
    }

    #[test]
    fn the_delay_grows_smoothly() {
        let hard = 100_000;
        let mut last = Pressure::NONE;
        for now in 0..hard {
            let p = Load { now, soft: hard / 2, hard }.pressure();
            assert!(p >= last, "{now}");
            // In steps of a fifty-thousandth of the way: by at most 1 % where a byte waits for
            // more than a few nanoseconds, and less than 1 % remains of the way.
            let (before, after) = (last.delay(1 << 20), p.delay(1 << 20));
            let near = now > hard - hard / 200;
            assert!(near || after - before <= 10_000 + before / 100, "{now}: {before} to {after}");
            last = p;
        }
    }

    /// MB a second at so many runs of level 0, and for parts of the way in memory.
    #[test]
    fn the_curve_passes_every_speed_a_disk_may_have() {
        let runs: Vec<u64> = [21, 24, 28, 32, 34, 35].map(|n| speed(Load::level0(n))).into();
        assert_eq!(runs, [2403, 120, 20, 4, 1, 0]);
        let parts: Vec<u64> =
            [10, 20, 50, 80, 90, 99].map(|n| speed(Load { now: n, soft: 0, hard: 100 })).into();
        assert_eq!(parts, [900, 200, 20, 3, 1, 0]);
    }

    #[test]
    fn delays_are_gathered_until_a_sleep_is_worth_it() {
        let throttle = Throttle::default();
        assert_eq!(throttle.owe(400_000, 1_000), None);
        assert_eq!(throttle.owe(400_000, 1_000), None);
        assert_eq!(throttle.owe(400_000, 1_000), Some(1_201_000));
        // The next one waits behind it; what was given up does not count.
        assert_eq!(throttle.owe(400_000, 301_000), Some(1_601_000));
        throttle.forgive(400_000);
        assert_eq!(throttle.owe(0, 301_000), None);
        // Time that passes pays as well, and is not saved up.
        assert_eq!(throttle.owe(500_000, 10_000_000), None);
        assert_eq!(throttle.owe(500_000, 10_000_000), Some(11_000_000));
    }

    #[test]
    fn what_is_frozen_is_no_longer_active() {
        let throttle = Throttle::new(100, u64::MAX);
        throttle.active(350, Position(0));
        assert_eq!(throttle.gauge.get(), Pressure::NONE, "nothing would be gained by waiting");
        throttle.frozen(0, 150);
        let Memory { active, frozen, .. } = throttle.memory();
        assert_eq!((active, frozen), (200, 150));
        assert!(throttle.gauge.get() > Pressure::NONE);
        throttle.active(250, Position(0));
        assert_eq!(throttle.gauge.get(), Pressure::STOP);
        throttle.frozen(150, 0);
        assert_eq!(throttle.gauge.get(), Pressure::NONE);
    }

    #[test]
    fn the_journal_that_memtables_need_counts() {
        let throttle = Throttle::new(1 << 20, 1000);
        throttle.active(0, Position(5900));
        throttle.needed_from(Position(5000));
        assert_eq!(throttle.gauge.get(), Pressure::NONE, "nothing is being flushed");
        throttle.frozen(0, 1);
        assert!(throttle.gauge.get() > Pressure::NONE && throttle.gauge.get() < Pressure::STOP);
        throttle.active(0, Position(6000));
        assert_eq!(throttle.gauge.get(), Pressure::STOP);
        throttle.needed_from(Position(5400));
        assert_eq!(throttle.gauge.get(), Pressure::NONE);
    }
}
