//! What an open database may hold: bytes of memory, by use, and open files.
//!
//! One limit for all uses of memory and a counter for each. Counting never fails and never waits:
//! who holds says so with a [`Share`], which gives back what it took when it is dropped; who can give
//! way (the block cache, open tables, memtables that could be flushed) looks at the sum and does.

use crate::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// The larger of the two usual sizes of a page.
const HUGE_PAGE: usize = 2 << 20;

/// What memory is held for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Use {
    /// Memtables: written to, frozen, flushed but still read, and memory kept for the next ones.
    Memtables,
    /// Blocks of tables: cached, and those that were evicted while a reader holds them.
    Blocks,
    /// Indexes, filters, range tombstones: all that an open table holds.
    Tables,
    /// Buffers of flushes, compactions and whatever else reads or writes tables as a whole.
    Jobs,
    /// The newest entries of logs, and those that were evicted while a reader holds them.
    Logs,
    /// The heads of logs, and where their entries are.
    LogIndex,
}

impl Use {
    pub const ALL: [Use; 6] = [Use::Memtables, Use::Blocks, Use::Tables, Use::Jobs, Use::Logs, Use::LogIndex];
}

/// The limits, and what is held.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    used: [Counter; Use::ALL.len()],
    file_limit: usize,
    files: Counter,
}

/// Alone on its cache line. Relaxed throughout: the counters order nothing.
#[derive(Default, Debug)]
#[repr(align(64))]
struct Counter(AtomicUsize);

impl Counter {
    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn grow(&self, n: usize) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn shrink(&self, n: usize) {
        let before = self.0.fetch_sub(n, Ordering::Relaxed);
        debug_assert!(before >= n, "more is given back than was taken");
    }
}

impl Budget {
    /// At most `limit` bytes and `file_limit` open files.
    pub fn new(limit: usize, file_limit: usize) -> Arc<Budget> {
        Arc::new(Budget { limit, used: Default::default(), file_limit, files: Counter::default() })
    }

    /// No limits: everything is counted, nothing gives way.
    pub fn unlimited() -> Arc<Budget> {
        Budget::new(usize::MAX, usize::MAX)
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes held for one use.
    pub fn used(&self, what: Use) -> usize {
        self.used[what as usize].get()
    }

    /// Bytes held for all uses.
    pub fn total(&self) -> usize {
        self.used.iter().map(Counter::get).sum()
    }

    /// What all other uses leave to this one.
    pub fn left_to(&self, what: Use) -> usize {
        let others: usize = Use::ALL.into_iter().filter(|u| *u != what).map(|u| self.used(u)).sum();
        self.limit.saturating_sub(others)
    }

    /// How much a job reads ahead or gathers before it writes: less where memory is short.
    pub fn buffer(&self) -> usize {
        (self.limit / 256).clamp(16 << 10, 256 << 10)
    }

    /// How much of a table is gathered before it is written: where memory allows it a huge page, for then the
    /// page cache holds the file in such, and a map of it needs a five-hundredth of the translations.
    pub fn gather(&self) -> usize {
        if self.limit / HUGE_PAGE >= 128 { HUGE_PAGE } else { self.buffer() }
    }

    /// Open table files.
    pub fn files(&self) -> usize {
        self.files.get()
    }

    pub fn file_limit(&self) -> usize {
        self.file_limit
    }

    /// Counts `bytes` more, for who gives them back with [`shrink`](Budget::shrink).
    pub fn grow(&self, what: Use, bytes: usize) {
        self.used[what as usize].grow(bytes);
    }

    pub fn shrink(&self, what: Use, bytes: usize) {
        self.used[what as usize].shrink(bytes);
    }

    /// A share of nothing yet.
    pub fn share(self: &Arc<Budget>, what: Use) -> Share {
        Share { budget: self.clone(), what, bytes: 0 }
    }

    /// Counts one more open file, as long as the answer lives.
    pub fn open_file(self: &Arc<Budget>) -> OpenFile {
        self.files.grow(1);
        OpenFile { budget: self.clone() }
    }
}

/// Bytes that somebody holds.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    what: Use,
    bytes: usize,
}

impl Share {
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn grow(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.budget.grow(self.what, bytes);
    }

    /// Gives back so many bytes, or all there are.
    pub fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.budget.shrink(self.what, bytes);
    }

    /// Grows or shrinks to `bytes`.
    pub fn set(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.grow(bytes - self.bytes);
        } else if bytes < self.bytes {
            self.shrink(self.bytes - bytes);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// An open file, counted.
#[derive(Debug)]
pub(crate) struct OpenFile {
    budget: Arc<Budget>,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.budget.files.shrink(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_give_back_what_they_took() {
        let budget = Budget::new(1000, 10);
        let (mut a, mut b) = (budget.share(Use::Blocks), budget.share(Use::Tables));
        a.grow(300);
        b.set(500);
        b.set(450);
        assert_eq!((budget.used(Use::Blocks), budget.used(Use::Tables)), (300, 450));
        assert_eq!((budget.total(), budget.left_to(Use::Blocks)), (750, 550));
        // More than there is: nobody is refused, and nothing is left to the others.
        a.grow(800);
        assert_eq!((budget.total(), budget.left_to(Use::Jobs)), (1550, 0));
        a.shrink(2000);
        assert_eq!((a.bytes(), budget.total()), (0, 450));
        drop((a, b));
        assert_eq!((budget.total(), budget.left_to(Use::Memtables)), (0, 1000));
    }

    #[test]
    fn files_are_counted_while_they_are_open() {
        let budget = Budget::new(1, 2);
        let files: Vec<OpenFile> = (0..3).map(|_| budget.open_file()).collect();
        assert_eq!((budget.files(), budget.file_limit(), budget.total()), (3, 2, 0));
        drop(files);
        assert_eq!(budget.files(), 0);
    }

    #[test]
    fn threads_lose_nothing() {
        let budget = Budget::unlimited();
        std::thread::scope(|scope| {
            for t in 0..4 {
                let budget = &budget;
                scope.spawn(move || {
                    let mut share = budget.share(Use::ALL[t % 2]);
                    for i in 0..1000 {
                        share.set((i * 7919 + t) % 100);
                    }
                    share.set(t + 1);
                    assert!(budget.total() > t);
                });
            }
        });
        assert_eq!(budget.total(), 0);
    }
}
