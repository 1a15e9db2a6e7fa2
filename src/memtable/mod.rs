//! The memtable: the newest entries of one keyspace, sorted, in memory.
//!
//! One writer inserts, any number of readers read at the same time without ever waiting. Entries
//! live in a tree of small nodes over an arena: a descent compares four-byte heads of keys that lie
//! next to each other, and touches the records themselves once, at the end. Nothing that was
//! published changes in place: leaves fill behind a count, inner nodes are replaced by copies.
//! Versions of one key share one slot, newest first, so that overwriting does not grow the tree.

mod arena;
#[cfg(test)]
#[cfg(not(loom))]
mod bench;
mod cursor;
mod grow;
#[cfg(test)]
#[cfg(loom)]
mod loom;
mod node;
mod ranges;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
mod tree;

pub(crate) use arena::Pool;
#[allow(unused_imports)]
pub(crate) use cursor::MemCursor;
pub(crate) use ranges::RangeSets;

use crate::budget::{Share, Use};
use crate::ids::Seq;
use crate::key::{self, Found, Trailer};
use crate::options::MAX_MEMTABLE_BYTES;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use arena::Allocator;
use grow::{Grower, Tail};
use ranges::Ranges;
use std::sync::Arc;
use tree::{Toward, Tree};

/// How many bytes a memtable can hold for sure, beside one batch of the largest size: budgets stay
/// below.
const MAX_BYTES: usize = arena::MAX_BYTES;
const _: () = assert!(MAX_MEMTABLE_BYTES <= MAX_BYTES);

/// The readers' side of a memtable. Shared as `Arc<Memtable>`.
pub(crate) struct Memtable {
    tree: Tree,
    ranges: Ranges,
    stats: Stats,
    /// What it takes beside the arena.
    share: Mutex<Option<Share>>,
}

/// What the writer counts. On cache lines of its own: readers of the tree do not wait for it.
#[repr(align(64))]
struct Stats {
    len: AtomicUsize,
    bytes: AtomicUsize,
    max_seq: AtomicU64,
}

/// The writer's side of a memtable: the only way to insert.
pub(crate) struct Writer {
    mem: Arc<Memtable>,
    allocator: Allocator,
    tail: Option<Tail>,
    /// Bytes of range deletes.
    range_bytes: usize,
}

/// An empty memtable. Takes a few hundred bytes until the first insert.
#[cfg(test)]
pub(crate) fn new() -> (Writer, Arc<Memtable>) {
    make(None)
}

/// An empty memtable that takes its memory from `pool`, where it counts, and leaves it there in the end.
pub(crate) fn new_in(pool: &Arc<Pool>) -> (Writer, Arc<Memtable>) {
    make(Some(pool.clone()))
}

fn make(pool: Option<Arc<Pool>>) -> (Writer, Arc<Memtable>) {
    let share = pool.as_ref().map(|pool| {
        let mut share = pool.budget().share(Use::Memtables);
        share.grow(size_of::<Memtable>());
        share
    });
    let (tree, allocator) = Tree::new(pool);
    let stats = Stats {
        len: AtomicUsize::new(0),
        bytes: AtomicUsize::new(size_of::<Memtable>()),
        max_seq: AtomicU64::new(0),
    };
    let mem = Arc::new(Memtable { tree, ranges: Ranges::default(), stats, share: Mutex::new(share) });
    (Writer { mem: mem.clone(), allocator, tail: None, range_bytes: 0 }, mem)
}

impl Writer {
    /// Adds an entry; readers see it when this returns. An entry that is there already (the same key
    /// and trailer) is left as it is. The versions of one key are expected in ascending order: one
    /// that comes late costs a copy of those that are newer.
    #[inline]
    pub fn insert(&mut self, key: &[u8], trailer: Trailer, value: &[u8]) {
        let Writer { mem, allocator, tail, .. } = self;
        if (Grower { tree: &mem.tree, allocator, tail }).insert(key, key::hash(key), trailer, value) {
            self.count(trailer.seq());
        }
    }

    /// Adds the delete of the keys `start..end` (`None`: to the last key).
    pub fn delete_range(&mut self, start: &[u8], end: Option<&[u8]>, seq: Seq) {
        let grown = self.mem.ranges.insert(start, end, seq);
        self.range_bytes = self.range_bytes.saturating_add_signed(grown);
        if let Some(share) = &mut *self.mem.share.lock() {
            share.set(size_of::<Memtable>() + self.range_bytes);
        }
        self.count(seq);
    }

    pub fn memtable(&self) -> &Arc<Memtable> {
        &self.mem
    }

    #[inline]
    fn count(&mut self, seq: Seq) {
        // There is one writer: plain stores will do.
        let s = &self.mem.stats;
        let relaxed = Ordering::Relaxed;
        s.len.store(s.len.load(relaxed) + 1, relaxed);
        s.bytes.store(size_of::<Memtable>() + self.allocator.bytes() + self.range_bytes, relaxed);
        s.max_seq.store(seq.get().max(s.max_seq.load(relaxed)), relaxed);
    }
}

impl Memtable {
    /// [`get_hashed`](Memtable::get_hashed) for who has no hash at hand.
    #[cfg(test)]
    pub fn get(&self, key: &[u8], read: Seq) -> Option<Found<'_>> {
        self.get_hashed(key, key::hash(key), read)
    }

    /// The newest entry of `key`, whose hash is [`key::hash`], at or below `read`. Range
    /// deletes are asked apart.
    #[inline]
    pub fn get_hashed(&self, key: &[u8], hash: u64, read: Seq) -> Option<Found<'_>> {
        let newest = self.tree.newest(key, hash)?;
        let record = self.tree.version(newest, Trailer::newest(read))?;
        Some(Found { trailer: record.trailer(), value: record.value(), owner: None })
    }

    /// The newest range delete at or below `read` that covers `key`.
    #[inline]
    pub fn newest_cover(&self, key: &[u8], read: Seq) -> Option<Seq> {
        self.ranges.newest_cover(key, read)
    }

    /// All range deletes so far, as the few sets they are kept in: cheap. `None`: there are none.
    pub fn range_sets(&self) -> Option<Arc<RangeSets>> {
        self.ranges.load()
    }

    /// Whether a key of `start..end` was written, or covered by a range delete, after `since`.
    /// Linear in the entries of the range.
    pub fn range_changed_since(&self, start: &[u8], end: Option<&[u8]>, since: Seq) -> bool {
        self.ranges.changed_since(start, end, since) || self.any_newer(start, end, since)
    }

    fn any_newer(&self, start: &[u8], end: Option<&[u8]>, since: Seq) -> bool {
        if self.max_seq() <= since {
            return false;
        }
        let mut from = start;
        // Leaf by leaf, each slot's newest version, in whatever order.
        while let Some((leaf, fences)) = self.tree.find_leaf(Toward::At(from)) {
            let newer = (0..leaf.len()).map(|i| self.tree.record(leaf.record(i))).any(|record| {
                let key = record.key();
                record.trailer().seq() > since && key >= start && end.is_none_or(|end| key < end)
            });
            if newer {
                return true;
            }
            match fences.high.map(|high| self.tree.record(high).key()) {
                Some(high) if end.is_none_or(|end| high < end) => from = high,
                _ => break,
            }
        }
        false
    }

    /// A key with about as many entries before it as behind; `None` where there are too few to tell.
    pub fn middle(&self) -> Option<&[u8]> {
        self.tree.middle().map(|separator| self.tree.record(separator).key())
    }

    /// The memory this memtable takes: what counts against the budget.
    pub fn bytes(&self) -> usize {
        self.stats.bytes.load(Ordering::Relaxed)
    }

    /// Entries and range deletes.
    pub fn len(&self) -> usize {
        self.stats.len.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The largest sequence number inserted; zero while empty.
    pub fn max_seq(&self) -> Seq {
        Seq::new(self.stats.max_seq.load(Ordering::Relaxed)).unwrap_or(Seq::MAX)
    }
}
