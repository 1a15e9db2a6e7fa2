//! The range deletes of a memtable: a few immutable sets, newest last, published as one list.
//!
//! Each insert adds a set of one delete and merges sets of equal weight, as a binary counter
//! carries, so that an insert costs O(log n) amortized and a read asks O(log n) sets. Deletes that
//! overlap much make fragments that each list many deletes; sets that would grow so are left apart,
//! which keeps memory linear.

use crate::ids::Seq;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::tombstones::{Around, Fragment, RangeDelete, RangeTombstones};
use arc_swap::ArcSwapOption;
use std::sync::Arc;

/// Sets whose fragments list more sequence numbers per delete than this are not merged further.
const SPREAD: usize = 32;

/// The range deletes of one memtable. One writer, any number of readers.
#[derive(Default)]
pub(super) struct Ranges {
    /// How many deletes there are: what readers of a memtable without any look at.
    count: AtomicUsize,
    sets: ArcSwapOption<RangeSets>,
}

/// The range deletes of a memtable at one moment. Later deletes are newer than all of these.
#[derive(Clone, Default)]
pub(crate) struct RangeSets {
    sets: Vec<Set>,
}

#[derive(Clone)]
struct Set {
    tombstones: Arc<RangeTombstones>,
    /// Deletes inserted, before they were cut into fragments.
    weight: usize,
    /// Sequence numbers that all fragments list together.
    spread: usize,
    /// Roughly the memory this set takes.
    bytes: usize,
    min: Seq,
    max: Seq,
}

impl Set {
    fn new(tombstones: RangeTombstones, weight: usize, min: Seq, max: Seq) -> Set {
        let mut set = Set { tombstones: Arc::default(), weight, spread: 0, bytes: 0, min, max };
        for f in tombstones.fragments() {
            set.spread += f.seqs.len();
            set.bytes += size_of::<Fragment>() + f.start.len() + f.end.as_ref().map_or(0, |e| e.len());
        }
        set.bytes += set.spread * size_of::<Seq>();
        set.tombstones = Arc::new(tombstones);
        set
    }
}

impl Ranges {
    /// Adds the delete of `start..end`. Only for the writer; `seq` is newer than all before.
    /// Answers by how many bytes the sets grew.
    pub fn insert(&self, start: &[u8], end: Option<&[u8]>, seq: Seq) -> isize {
        let fragment = Fragment { start: start.into(), end: end.map(Box::from), seqs: Box::from([seq]) };
        let Some(tombstones) = RangeTombstones::from_fragments(vec![fragment]) else { return 0 };
        let mut list = self.sets.load().as_deref().cloned().unwrap_or_default();
        let before = list.bytes();
        list.sets.push(Set::new(tombstones, 1, seq, seq));
        list.carry();
        let grown = list.bytes() as isize - before as isize;
        self.sets.store(Some(Arc::new(list)));
        self.count.fetch_add(1, Ordering::Release);
        grown
    }

    /// The newest delete at or below `read` that covers `key`.
    #[inline]
    pub fn newest_cover(&self, key: &[u8], read: Seq) -> Option<Seq> {
        // Whoever may see a delete has synchronized with its insert, so that no stale zero is read.
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.sets.load().as_ref()?.newest_cover(key, read)
    }

    /// Whether a delete newer than `since` covers a key of `start..end`.
    pub fn changed_since(&self, start: &[u8], end: Option<&[u8]>, since: Seq) -> bool {
        self.count.load(Ordering::Relaxed) != 0
            && self.sets.load().as_ref().is_some_and(|list| list.changed_since(start, end, since))
    }

    pub fn load(&self) -> Option<Arc<RangeSets>> {
        // As in `newest_cover`.
        if self.count.load(Ordering::Relaxed) == 0 { None } else { self.sets.load_full() }
    }
}

impl RangeSets {
    /// The newest delete at or below `read` that covers `key`.
    pub fn newest_cover(&self, key: &[u8], read: Seq) -> Option<Seq> {
        // Sets hold disjoint stretches of sequence numbers: the first hit from behind is the newest.
        let older = self.sets.iter().rev().skip_while(|s| s.min > read);
        older.filter_map(|s| s.tombstones.newest_cover(key, read)).next()
    }

    /// The deletes, cut at the borders of fragments.
    pub fn deletes(&self) -> impl Iterator<Item = RangeDelete<'_>> {
        self.sets.iter().flat_map(|s| s.tombstones.deletes())
    }

    /// What a read at `read` finds around `key`.
    pub fn around(&self, key: &[u8], read: Seq) -> Around<'_> {
        let mut all = Around::NOTHING;
        for set in self.sets.iter().rev().skip_while(|s| s.min > read) {
            let around = set.tombstones.around(key, read, &mut 0);
            all = all.within(around.lower, around.upper);
            if around.newest.is_some() {
                all.newest = around.newest;
                break;
            }
        }
        all
    }

    /// How far around `key` deletes that a read at `read` sees reach without a gap, or less.
    pub fn solid(&self, key: &[u8], read: Seq) -> Option<Around<'_>> {
        self.sets.iter().rev().skip_while(|s| s.min > read).find_map(|s| s.tombstones.solid(key, read))
    }

    fn changed_since(&self, start: &[u8], end: Option<&[u8]>, since: Seq) -> bool {
        self.sets
            .iter()
            .rev()
            .take_while(|s| s.max > since)
            .any(|s| s.tombstones.changed_since(start, end, since))
    }

    /// Merges sets of equal weight at the end of the list.
    fn carry(&mut self) {
        while let [.., a, b] = &self.sets[..] {
            if a.weight != b.weight || a.spread + b.spread > SPREAD * b.weight {
                return;
            }
            let tombstones = merge(&a.tombstones, &b.tombstones);
            let merged = Set::new(tombstones, a.weight + b.weight, a.min, b.max);
            self.sets.truncate(self.sets.len() - 2);
            self.sets.push(merged);
        }
    }

    fn bytes(&self) -> usize {
        self.sets.iter().map(|s| s.bytes).sum()
    }
}

/// One set out of two, all of whose deletes are older and newer. Linear.
fn merge(older: &RangeTombstones, newer: &RangeTombstones) -> RangeTombstones {
    let (mut a, mut b) = (older.fragments().iter().peekable(), newer.fragments().iter().peekable());
    let mut out: Vec<Fragment> = Vec::new();
    // Everything before this border is done; `None`: nothing is yet.
    let mut done: Option<&[u8]> = None;
    loop {
        let ends_by_now = |f: &&Fragment| done.is_some_and(|d| f.end.as_deref().is_some_and(|e| e <= d));
        while a.next_if(ends_by_now).is_some() {}
        while b.next_if(ends_by_now).is_some() {}
        let from = |f: &&'_ &Fragment| done.map_or(&*f.start, |d| d.max(&*f.start)).to_vec();
        let (old, new) = (a.peek().copied(), b.peek().copied());
        let Some(start) = old.iter().map(|f| from(&f)).chain(new.iter().map(|f| from(&f))).min() else {
            break;
        };
        let covers = |f: &&Fragment| *f.start <= *start;
        let (over, under) = (new.filter(covers), old.filter(covers));
        // The next border: an end of what covers, or the start of what does not yet.
        let ends = [over, under].into_iter().flatten().filter_map(|f| f.end.as_deref());
        let starts = [new, old].into_iter().flatten().map(|f| &*f.start).filter(|s| **s > *start);
        let end = ends.chain(starts).min();
        let seqs: Vec<Seq> =
            [over, under].into_iter().flatten().flat_map(|f| f.seqs.iter().copied()).collect();
        out.push(Fragment { start: start.into(), end: end.map(Box::from), seqs: seqs.into() });
        match end {
            Some(end) => done = Some(end),
            None => break,
        }
    }
    let merged = RangeTombstones::from_fragments(out);
    debug_assert!(merged.is_some());
    merged.unwrap_or_else(|| RangeTombstones::new(older.deletes().chain(newer.deletes())))
}
