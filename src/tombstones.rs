//! Range tombstones: which ranges of keys were deleted, and when.
//!
//! Deletes of overlapping ranges are cut into fragments, disjoint ranges with the sequence numbers
//! of all deletes that cover them, so that "which deletes cover this key" is one binary search
//! (after Pebble's `keyspan`).

use crate::ids::Seq;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// One delete of the keys `start..end`; an end of `None` means "to the last key".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RangeDelete<'a> {
    pub start: &'a [u8],
    pub end: Option<&'a [u8]>,
    pub seq: Seq,
}

/// A range of keys with the deletes that cover all of it, newest first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Fragment {
    pub start: Box<[u8]>,
    /// `None`: to the last key.
    pub end: Option<Box<[u8]>>,
    /// Descending, distinct, not empty.
    pub seqs: Box<[Seq]>,
}

/// Sorted, disjoint fragments. Immutable once built.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RangeTombstones {
    fragments: Vec<Fragment>,
    /// The first fragment of each group without a gap.
    groups: Vec<u32>,
    /// The newest delete of all; zero if there are none.
    max_seq: Seq,
}

/// What a read finds around a key: from `lower` to before `upper` (`None`: to the last key) the
/// newest delete it may see is the same everywhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Around<'a> {
    pub lower: &'a [u8],
    pub upper: Option<&'a [u8]>,
    pub newest: Option<Seq>,
}

impl<'a> Around<'a> {
    /// No delete anywhere.
    pub const NOTHING: Around<'static> = Around { lower: &[], upper: None, newest: None };

    /// The part of it that lies within `lower..upper`.
    pub fn within(self, lower: &'a [u8], upper: Option<&'a [u8]>) -> Around<'a> {
        let upper = match (self.upper, upper) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Around { lower: self.lower.max(lower), upper, newest: self.newest }
    }
}

/// The deletes that cover the place where a sweep stands.
#[derive(Default)]
pub(crate) struct Active(BTreeMap<Seq, usize>);

impl Active {
    /// The newest at or below `read`.
    pub fn newest(&self, read: Seq) -> Option<Seq> {
        self.0.range(..=read).next_back().map(|(&seq, _)| seq)
    }

    fn begin(&mut self, seq: Seq) {
        *self.0.entry(seq).or_default() += 1;
    }

    fn end(&mut self, seq: Seq) {
        if let Entry::Occupied(mut count) = self.0.entry(seq) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// Where a delete begins (`true`) or ends; an end of `None` stands behind all.
type Border<'a> = (&'a [u8], bool, Seq);

impl Fragment {
    /// The newest delete at or below `read`.
    pub fn newest(&self, read: Seq) -> Option<Seq> {
        let first = self.seqs.partition_point(|&s| s > read);
        self.seqs.get(first).copied()
    }

    pub fn ends_by(&self, key: &[u8]) -> bool {
        self.end.as_deref().is_some_and(|end| end <= key)
    }
}

impl Default for RangeTombstones {
    fn default() -> RangeTombstones {
        RangeTombstones { fragments: Vec::new(), groups: Vec::new(), max_seq: Seq::ZERO }
    }
}

impl RangeTombstones {
    /// Cuts `deletes` into fragments that list all deletes. As many deletes over each other make
    /// fragments that list as many: quadratic. [`cut`](RangeTombstones::cut) lists what counts.
    pub fn new<'a>(deletes: impl IntoIterator<Item = RangeDelete<'a>>) -> RangeTombstones {
        RangeTombstones::cut(deletes, |active, seqs| seqs.extend(active.0.keys().rev()))
    }

    /// Cuts `deletes` into fragments. Of the deletes over each piece `choose` takes those that
    /// count, newest first; where it takes none there is no fragment. O(n log n) for n deletes, and
    /// 2n calls of `choose`, however they lie.
    pub fn cut<'a>(
        deletes: impl IntoIterator<Item = RangeDelete<'a>>,
        mut choose: impl FnMut(&Active, &mut Vec<Seq>),
    ) -> RangeTombstones {
        let mut borders: Vec<Border<'_>> = Vec::new();
        for d in deletes.into_iter().filter(|d| d.end.is_none_or(|end| d.start < end)) {
            borders.push((d.start, true, d.seq));
            borders.extend(d.end.map(|end| (end, false, d.seq)));
        }
        RangeTombstones::between(borders, &mut choose)
    }

    /// What of [`cut`](RangeTombstones::cut) is the same for all its callers.
    fn between(
        mut borders: Vec<Border<'_>>,
        choose: &mut dyn FnMut(&Active, &mut Vec<Seq>),
    ) -> RangeTombstones {
        borders.sort_unstable_by(|a, b| a.0.cmp(b.0));
        let mut fragments: Vec<Fragment> = Vec::new();
        let mut active = Active::default();
        // The piece that is open: where it starts, and what covers it.
        let (mut start, mut seqs, mut now): (&[u8], Vec<Seq>, Vec<Seq>) = (&[], Vec::new(), Vec::new());
        let mut close = |start: &[u8], end: Option<&[u8]>, seqs: &[Seq]| {
            if !seqs.is_empty() {
                fragments.push(Fragment { start: start.into(), end: end.map(Into::into), seqs: seqs.into() });
            }
        };
        for here in borders.chunk_by(|a, b| a.0 == b.0) {
            for &(_, begins, seq) in here {
                if begins { active.begin(seq) } else { active.end(seq) }
            }
            now.clear();
            choose(&active, &mut now);
            // Otherwise nothing that counts changes here.
            if now != seqs {
                close(start, Some(here[0].0), &seqs);
                start = here[0].0;
                std::mem::swap(&mut seqs, &mut now);
            }
        }
        close(start, None, &seqs);
        RangeTombstones::built(fragments)
    }

    /// Takes fragments as they are; `None` unless they are sorted, disjoint and not empty.
    pub fn from_fragments(fragments: Vec<Fragment>) -> Option<RangeTombstones> {
        let whole = fragments.iter().all(|f| {
            f.end.as_ref().is_none_or(|end| f.start < *end)
                && !f.seqs.is_empty()
                && f.seqs.is_sorted_by(|a, b| a > b)
        });
        let sorted = fragments.windows(2).all(|w| w[0].end.as_ref().is_some_and(|end| *end <= w[1].start));
        (whole && sorted).then(|| RangeTombstones::built(fragments))
    }

    fn built(fragments: Vec<Fragment>) -> RangeTombstones {
        let max_seq = fragments.iter().filter_map(|f| f.seqs.first().copied()).max().unwrap_or(Seq::ZERO);
        let opens = |&i: &usize| i == 0 || fragments[i - 1].end.as_deref() != Some(&fragments[i].start);
        let groups = (0..fragments.len()).filter(opens).map(|i| i as u32).collect();
        RangeTombstones { fragments, groups, max_seq }
    }

    /// What lies within `lower..upper`; `None` is unbounded.
    pub fn clip(&self, lower: Option<&[u8]>, upper: Option<&[u8]>) -> RangeTombstones {
        let inside = self.overlapping(lower.unwrap_or_default(), upper);
        let clipped = inside.iter().map(|f| {
            let whole = Around { lower: &f.start, upper: f.end.as_deref(), newest: None };
            let part = whole.within(lower.unwrap_or_default(), upper);
            Fragment { start: part.lower.into(), end: part.upper.map(Into::into), seqs: f.seqs.clone() }
        });
        RangeTombstones::built(clipped.collect())
    }

    /// The fragments that share keys with `lower..upper`.
    pub fn overlapping(&self, lower: &[u8], upper: Option<&[u8]>) -> &[Fragment] {
        let rest = &self.fragments[self.first_ending_after(lower)..];
        match upper {
            // A range that is empty or reversed shares none.
            Some(upper) if upper <= lower => &[],
            Some(upper) => &rest[..rest.partition_point(|f| *f.start < *upper)],
            None => rest,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.fragments.is_empty()
    }

    pub fn fragments(&self) -> &[Fragment] {
        &self.fragments
    }

    /// The deletes these fragments stand for (cut at the fragments' borders).
    pub fn deletes(&self) -> impl Iterator<Item = RangeDelete<'_>> {
        self.fragments.iter().flat_map(|f| {
            f.seqs.iter().map(|&seq| RangeDelete { start: &f.start, end: f.end.as_deref(), seq })
        })
    }

    fn first_ending_after(&self, key: &[u8]) -> usize {
        self.fragments.partition_point(|f| f.ends_by(key))
    }

    /// The fragment that holds `key`.
    pub fn find(&self, key: &[u8]) -> Option<&Fragment> {
        self.fragments.get(self.first_ending_after(key)).filter(|f| *f.start <= *key)
    }

    /// The newest delete at or below `read` that covers `key`. One binary search.
    pub fn newest_cover(&self, key: &[u8], read: Seq) -> Option<Seq> {
        self.find(key)?.newest(read)
    }

    /// What a read at `read` finds around `key`. `near`: where the last answer was found; the next
    /// is often there or beside.
    pub fn around(&self, key: &[u8], read: Seq, near: &mut usize) -> Around<'_> {
        let begins = |i: usize| i == 0 || self.fragments.get(i - 1).is_some_and(|f| f.ends_by(key));
        let ends = |i: usize| self.fragments.get(i).is_none_or(|f| !f.ends_by(key));
        let beside = [*near, *near + 1, near.saturating_sub(1)];
        *near = match beside.into_iter().find(|&i| i <= self.fragments.len() && begins(i) && ends(i)) {
            Some(i) => i,
            None => self.first_ending_after(key),
        };
        match self.fragments.get(*near) {
            Some(f) if *f.start <= *key => {
                Around { lower: &f.start, upper: f.end.as_deref(), newest: f.newest(read) }
            }
            behind => {
                let before = near.checked_sub(1).and_then(|i| self.fragments[i].end.as_deref());
                Around { lower: before.unwrap_or_default(), upper: behind.map(|f| &*f.start), newest: None }
            }
        }
    }

    /// How far around `key`, which it covers, deletes at or below `read` reach without a gap; less,
    /// perhaps, if not all of them are.
    pub fn solid(&self, key: &[u8], read: Seq) -> Option<Around<'_>> {
        let at = self.first_ending_after(key);
        let f = self.fragments.get(at).filter(|f| *f.start <= *key)?;
        let newest = Some(f.newest(read)?);
        if self.max_seq > read {
            return Some(Around { lower: &f.start, upper: f.end.as_deref(), newest });
        }
        let next = self.groups.partition_point(|&first| first as usize <= at);
        let first = self.groups.get(next.checked_sub(1)?).map_or(at, |&first| first as usize);
        let last = self.groups.get(next).map_or(self.fragments.len(), |&first| first as usize) - 1;
        let upper = self.fragments[last].end.as_deref();
        Some(Around { lower: &self.fragments[first].start, upper, newest })
    }

    /// Whether a delete newer than `since` covers a key of `start..end`.
    pub fn changed_since(&self, start: &[u8], end: Option<&[u8]>, since: Seq) -> bool {
        self.max_seq > since && self.overlapping(start, end).iter().any(|f| f.seqs.first() > Some(&since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

    fn key(n: u8) -> &'static [u8] {
        std::slice::from_ref(&BYTES[usize::from(n)])
    }

    fn delete(start: u8, end: Option<u8>, seq: u64) -> RangeDelete<'static> {
        RangeDelete { start: key(start), end: end.map(key), seq: Seq::new(seq).unwrap() }
    }

    /// The newest that covers a key, by asking each.
    fn naive(deletes: &[RangeDelete<'_>], key: &[u8], read: Seq) -> Option<Seq> {
        let covers = |d: &&RangeDelete<'_>| {
            d.start <= key && d.end.is_none_or(|end| end > key && end > d.start) && d.seq <= read
        };
        deletes.iter().filter(covers).map(|d| d.seq).max()
    }

    #[test]
    fn agrees_with_asking_every_delete() {
        let mut x = 12345u64;
        let mut random = |n: u64| {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (x >> 33) % n
        };
        for _ in 0..500 {
            let deletes: Vec<RangeDelete<'_>> = (0..random(8))
                .map(|i| {
                    let (a, b) = (random(12) as u8, random(14) as u8);
                    delete(a, (b < 13).then_some(b), i + 1)
                })
                .collect();
            let t = RangeTombstones::new(deletes.clone());
            assert_eq!(RangeTombstones::from_fragments(t.fragments().to_vec()), Some(t.clone()));
            let mut near = random(9) as usize;
            for _ in 0..150 {
                let (at, read) = (random(14) as u8, Seq::new(random(10)).unwrap());
                let expect = naive(&deletes, key(at), read);
                assert_eq!(t.newest_cover(key(at), read), expect, "{deletes:?} {at} {read}");
                let around = t.around(key(at), read, &mut near);
                assert_eq!(around.newest, expect);
                let solid = t.solid(key(at), read);
                assert_eq!(solid.map(|s| s.newest), expect.map(Some));
                let inside = |a: Around<'_>, n| a.lower <= key(n) && a.upper.is_none_or(|end| key(n) < end);
                assert!(inside(around, at));
                for n in 0..14 {
                    if inside(around, n) {
                        assert_eq!(naive(&deletes, key(n), read), expect);
                    }
                    if solid.is_some_and(|s| inside(s, n)) {
                        assert!(naive(&deletes, key(n), read).is_some());
                    } else if let (Some(solid), true) = (solid, read.get() == 9) {
                        // Nothing is left out at its ends.
                        assert!(Some(key(n)) != solid.upper || naive(&deletes, key(n), read).is_none());
                        assert!(
                            n + 1 > 13
                                || key(n + 1) != solid.lower
                                || naive(&deletes, key(n), read).is_none()
                        );
                    }
                }
            }
            assert_eq!(RangeTombstones::new(t.deletes()), t);
        }
    }

    #[test]
    fn nested_deletes_cost_what_they_must() {
        const N: u32 = 20_000;
        let keys: Vec<[u8; 4]> = (0..2 * N).map(u32::to_be_bytes).collect();
        let nested = (0..N).map(|i| RangeDelete {
            start: &keys[i as usize],
            end: Some(&keys[(2 * N - 1 - i) as usize]),
            seq: Seq::new(u64::from(i) + 1).unwrap(),
        });
        let mut chosen = 0;
        let t = RangeTombstones::cut(nested, |active, seqs| {
            chosen += 1;
            seqs.extend(active.newest(Seq::MAX));
        });
        assert_eq!(chosen, 2 * N);
        assert_eq!(t.fragments().len(), 2 * N as usize - 1);
        assert!(t.fragments().iter().all(|f| f.seqs.len() == 1));
    }

    #[test]
    fn clips() {
        let t = RangeTombstones::new([delete(2, Some(5), 1), delete(7, None, 2)]);
        let show = |t: RangeTombstones| {
            t.deletes().map(|d| (d.start[0], d.end.map(|e| e[0]), d.seq.get())).collect::<Vec<_>>()
        };
        assert_eq!(show(t.clip(None, None)), [(2, Some(5), 1), (7, None, 2)]);
        assert_eq!(show(t.clip(Some(&[3]), Some(&[9]))), [(3, Some(5), 1), (7, Some(9), 2)]);
        assert_eq!(show(t.clip(Some(&[5]), Some(&[7]))), []);
        assert_eq!(show(t.clip(Some(&[8]), None)), [(8, None, 2)]);
        assert_eq!(show(t.clip(Some(&[4]), Some(&[4]))), []);
    }

    #[test]
    fn reversed_ranges_cover_nothing() {
        assert!(RangeTombstones::new([delete(5, Some(5), 1), delete(6, Some(2), 2)]).is_empty());
    }
}
