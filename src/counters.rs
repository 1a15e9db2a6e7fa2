//! Counters that are always on: what they cost is an addition on a cache line that no other core
//! writes to just then.
//!
//! Three kinds, by who counts: a [`Tally`] has one writer at a time, a [`Counter`] is for what
//! happens a few times a second, a [`Striped`] set is for what every read does in every thread.

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};
use std::cell::Cell;
use std::sync::OnceLock;

/// Counted by one thread at a time, which holds the lock that guards the counting; read by anyone.
#[derive(Default, Debug)]
pub(crate) struct Tally(AtomicU64);

impl Tally {
    /// Under the lock.
    #[inline]
    pub fn add(&self, n: u64) {
        self.set(self.get().wrapping_add(n));
    }

    /// Under the lock.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counted by anyone, rarely.
#[derive(Default, Debug)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What flushes and compactions did, to one tree or to all of them.
#[derive(Default, Debug)]
pub(crate) struct Jobs {
    pub flushes: Counter,
    pub flushed_bytes: Counter,
    pub compactions: Counter,
    /// Compactions that only moved tables to another level.
    pub moves: Counter,
    pub compaction_read: Counter,
    pub compaction_written: Counter,
}

/// How many threads have a line to themselves; the rest share the last one.
const LINES: usize = 32;
const SHARED: usize = LINES - 1;
/// The thread has not counted anything yet.
const UNKNOWN: usize = usize::MAX;

/// `N` counters, once for each thread: a thread adds to its own line with neither a locked
/// instruction nor a line that another core has written to.
#[derive(Debug)]
pub(crate) struct Striped<const N: usize> {
    lines: Box<[Line<N>; LINES]>,
}

/// Alone on its cache line, and on the one that is fetched with it.
#[derive(Debug)]
#[repr(align(128))]
struct Line<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Striped<N> {
    fn default() -> Self {
        Striped { lines: Box::new(std::array::from_fn(|_| Line(std::array::from_fn(|_| AtomicU64::new(0))))) }
    }
}

impl<const N: usize> Striped<N> {
    #[inline]
    pub fn add(&self, which: usize, n: u64) {
        let line = line();
        let counter = &self.lines[line].0[which];
        if line == SHARED {
            counter.fetch_add(n, Ordering::Relaxed);
        } else {
            // Nobody else writes to it: a line passes to another thread through the lock on lines.
            counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        }
    }

    /// Every counter over all threads.
    pub fn sums(&self) -> [u64; N] {
        let sum = |which: usize| {
            let counts = self.lines.iter().map(|line| line.0[which].load(Ordering::Relaxed));
            counts.fold(0, u64::wrapping_add)
        };
        std::array::from_fn(sum)
    }
}

/// The lines that no thread has.
struct Free {
    returned: Vec<usize>,
    /// Those from here on were never given.
    next: usize,
}

static FREE: OnceLock<Mutex<Free>> = OnceLock::new();

fn free() -> &'static Mutex<Free> {
    FREE.get_or_init(|| Mutex::new(Free { returned: Vec::new(), next: 0 }))
}

/// A thread's line, until the thread ends.
struct Owned(usize);

impl Owned {
    fn claim() -> Owned {
        let mut free = free().lock();
        if let Some(line) = free.returned.pop() {
            return Owned(line);
        }
        let line = free.next;
        free.next = (line + 1).min(SHARED);
        Owned(line)
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // What the thread counts from here on, while it ends, goes to the shared line.
        LINE.set(SHARED);
        if self.0 != SHARED {
            free().lock().returned.push(self.0);
        }
    }
}

thread_local! {
    static LINE: Cell<usize> = const { Cell::new(UNKNOWN) };
    static OWNED: Owned = Owned::claim();
}

#[inline]
fn line() -> usize {
    match LINE.get() {
        UNKNOWN => first_line(),
        line => line,
    }
}

#[cold]
fn first_line() -> usize {
    let line = OWNED.try_with(|owned| owned.0).unwrap_or(SHARED);
    LINE.set(line);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_and_lines_come_back_with_more_threads_than_lines() {
        let counters = Striped::<3>::default();
        for _ in 0..3 {
            let together = std::sync::Barrier::new(2 * LINES);
            std::thread::scope(|scope| {
                for t in 0..2 * LINES {
                    let (counters, together) = (&counters, &together);
                    scope.spawn(move || {
                        together.wait();
                        for i in 0..1000 {
                            counters.add((t + i) % 2, 1);
                            counters.add(2, 5);
                        }
                        // Until all have begun, so that no line is given back too soon.
                        together.wait();
                    });
                }
            });
        }
        let n = 3 * 2 * LINES as u64 * 1000;
        assert_eq!(counters.sums(), [n / 2, n / 2, 5 * n]);
        // All lines were given. They came back with the end of their threads.
        assert!((0..1000).any(|_| std::thread::spawn(line).join().unwrap() != SHARED));
    }

    #[test]
    fn a_tally_counts_under_its_lock() {
        let (tally, lock) = (Tally::default(), Mutex::new(()));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let _guard = lock.lock();
                        tally.add(2);
                    }
                });
            }
        });
        assert_eq!(tally.get(), 8000);
    }
}
