//! A first, simple memtable: an ordered map behind a lock.

use super::ranges::{RangeSets, Ranges};
use crate::ids::Seq;
use crate::key::{Found, Kind, Trailer};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::tombstones::RangeTombstones;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

pub(super) type Map = BTreeMap<(Box<[u8]>, Reverse<Trailer>), Box<[u8]>>;

/// The readers' side of a memtable. Shared as `Arc<Memtable>`.
pub(crate) struct Memtable {
    pub(super) map: Mutex<Map>,
    ranges: Ranges,
    len: AtomicUsize,
    deletes: AtomicUsize,
    bytes: AtomicUsize,
    min_seq: AtomicU64,
    max_seq: AtomicU64,
}

/// The writer's side of a memtable: the only way to insert.
pub(crate) struct Writer {
    mem: Arc<Memtable>,
}

/// An empty memtable. Takes a few hundred bytes until the first insert.
pub(crate) fn new() -> (Writer, Arc<Memtable>) {
    let mem = Arc::new(Memtable {
        map: Mutex::new(Map::new()),
        ranges: Ranges::default(),
        len: AtomicUsize::new(0),
        deletes: AtomicUsize::new(0),
        bytes: AtomicUsize::new(0),
        min_seq: AtomicU64::new(Seq::MAX.get()),
        max_seq: AtomicU64::new(0),
    });
    (Writer { mem: mem.clone() }, mem)
}

impl Writer {
    /// Adds an entry; readers see it when this returns. The trailers of one key must come in
    /// ascending order of their sequence numbers.
    pub fn insert(&mut self, key: &[u8], trailer: Trailer, value: &[u8]) {
        self.mem.map.lock().insert((key.into(), Reverse(trailer)), value.into());
        self.count(trailer.seq(), trailer.kind() == Kind::Delete, key.len() + value.len() + 64);
    }

    /// Adds the delete of the keys `start..end` (`None`: to the last key).
    pub fn delete_range(&mut self, start: &[u8], end: Option<&[u8]>, seq: Seq) {
        let grown = self.mem.ranges.insert(start, end, seq);
        self.count(seq, true, 0);
        let bytes = self.mem.bytes.load(Ordering::Relaxed).saturating_add_signed(grown);
        self.mem.bytes.store(bytes, Ordering::Relaxed);
    }

    pub fn memtable(&self) -> &Arc<Memtable> {
        &self.mem
    }

    fn count(&mut self, seq: Seq, delete: bool, bytes: usize) {
        let m = &*self.mem;
        m.len.fetch_add(1, Ordering::Relaxed);
        m.deletes.fetch_add(usize::from(delete), Ordering::Relaxed);
        m.bytes.fetch_add(bytes, Ordering::Relaxed);
        m.min_seq.fetch_min(seq.get(), Ordering::Relaxed);
        m.max_seq.fetch_max(seq.get(), Ordering::Relaxed);
    }
}

impl Memtable {
    /// The newest entry of `key` at or below `read`. Range deletes are asked apart.
    pub fn get(&self, key: &[u8], read: Seq) -> Option<Found<'_>> {
        let map = self.map.lock();
        let from = (Box::from(key), Reverse(Trailer::newest(read)));
        let ((found, trailer), value) = map.range((Bound::Included(from), Bound::Unbounded)).next()?;
        if **found != *key {
            return None;
        }
        // SAFETY: nothing is ever removed from the map or replaced in it before the memtable is
        // dropped, and the boxed bytes do not move.
        let value = unsafe { std::slice::from_raw_parts(value.as_ptr(), value.len()) };
        Some(Found { trailer: trailer.0, value, owner: None })
    }

    /// The newest range delete at or below `read` that covers `key`.
    #[inline]
    pub fn newest_cover(&self, key: &[u8], read: Seq) -> Option<Seq> {
        self.ranges.newest_cover(key, read)
    }

    /// All range deletes so far, as one set. Linear in its fragments: for a flush. A scan takes
    /// [`range_sets`](Memtable::range_sets).
    pub fn range_tombstones(&self) -> Arc<RangeTombstones> {
        self.ranges.load().combined()
    }

    /// All range deletes so far, as the few sets they are kept in: cheap.
    pub fn range_sets(&self) -> Arc<RangeSets> {
        self.ranges.load()
    }

    /// Whether `key` was written, or covered by a range delete, after `since`.
    pub fn changed_since(&self, key: &[u8], since: Seq) -> bool {
        self.get(key, Seq::MAX).is_some_and(|f| f.trailer.seq() > since)
            || self.newest_cover(key, Seq::MAX).is_some_and(|seq| seq > since)
    }

    /// Whether a key of `start..end` was written, or covered by a range delete, after `since`.
    /// Linear in the entries of the range.
    pub fn range_changed_since(&self, start: &[u8], end: Option<&[u8]>, since: Seq) -> bool {
        let map = self.map.lock();
        let from = (Box::from(start), Reverse(Trailer::newest(Seq::MAX)));
        map.range(from..)
            .take_while(|((key, _), _)| end.is_none_or(|end| **key < *end))
            .any(|((_, trailer), _)| trailer.0.seq() > since)
            || self.ranges.changed_since(start, end, since)
    }

    /// The memory this memtable takes: what counts against the budget.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Entries and range deletes.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tombstones: deletes of one key and of ranges.
    pub fn deletes(&self) -> usize {
        self.deletes.load(Ordering::Relaxed)
    }

    /// The largest sequence number inserted; zero while empty.
    pub fn max_seq(&self) -> Seq {
        Seq::new(self.max_seq.load(Ordering::Relaxed)).unwrap_or(Seq::MAX)
    }

    /// The smallest sequence number inserted; [`Seq::MAX`] while empty.
    pub fn min_seq(&self) -> Seq {
        Seq::new(self.min_seq.load(Ordering::Relaxed)).unwrap_or(Seq::MAX)
    }
}
