//! Range tombstones: which ranges of keys were deleted, and when.
//!
//! Deletes of overlapping ranges are cut into fragments, disjoint ranges with the sequence numbers
//! of all deletes that cover them, so that "which deletes cover this key" is one binary search
//! (after Pebble's `keyspan`).

use crate::ids::Seq;

/// One delete of the keys `start..end`; an end of `None` means "to the last key".
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RangeDelete {
    pub start: Box<[u8]>,
    pub end: Option<Box<[u8]>>,
    pub seq: Seq,
}

/// A range of keys with every delete that covers all of it, newest first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Fragment {
    pub start: Box<[u8]>,
    /// `None`: to the last key.
    pub end: Option<Box<[u8]>>,
    /// Descending, distinct, not empty.
    pub seqs: Box<[Seq]>,
}

/// Sorted, disjoint fragments. Immutable once built.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct RangeTombstones {
    fragments: Vec<Fragment>,
}

impl Fragment {
    /// The newest delete at or below `read`.
    pub fn newest(&self, read: Seq) -> Option<Seq> {
        let first = self.seqs.partition_point(|&s| s > read);
        self.seqs.get(first).copied()
    }

    fn ends_by(&self, key: &[u8]) -> bool {
        self.end.as_deref().is_some_and(|end| end <= key)
    }
}

impl RangeTombstones {
    /// Cuts `deletes` into fragments. O(n log n) in the number of fragments made.
    pub fn new(deletes: impl IntoIterator<Item = RangeDelete>) -> RangeTombstones {
        let mut deletes: Vec<RangeDelete> =
            deletes.into_iter().filter(|d| d.end.as_ref().is_none_or(|end| d.start < *end)).collect();
        if deletes.is_empty() {
            return RangeTombstones::default();
        }
        deletes.sort_by(|a, b| a.start.cmp(&b.start));
        // Every start and end is a border; `None` (to the last key) stands behind all.
        let mut borders: Vec<Box<[u8]>> = Vec::with_capacity(deletes.len() * 2);
        for d in &deletes {
            borders.push(d.start.clone());
            borders.extend(d.end.clone());
        }
        borders.sort();
        borders.dedup();
        let mut fragments: Vec<Fragment> = Vec::new();
        let mut active: Vec<RangeDelete> = Vec::new();
        let mut coming = deletes.into_iter().peekable();
        for (i, start) in borders.iter().enumerate() {
            active.retain(|d| d.end.as_ref().is_none_or(|end| end > start));
            while let Some(d) = coming.next_if(|d| d.start <= *start) {
                active.push(d);
            }
            if active.is_empty() {
                continue;
            }
            let mut seqs: Vec<Seq> = active.iter().map(|d| d.seq).collect();
            seqs.sort_by(|a, b| b.cmp(a));
            seqs.dedup();
            let end = borders.get(i + 1).cloned();
            match fragments.last_mut() {
                // The border was one of an older delete that ended: nothing changes here.
                Some(last) if last.end.as_ref() == Some(start) && *last.seqs == *seqs => last.end = end,
                _ => fragments.push(Fragment { start: start.clone(), end, seqs: seqs.into() }),
            }
        }
        RangeTombstones { fragments }
    }

    /// Takes fragments as they are; `None` unless they are sorted, disjoint and not empty.
    pub fn from_fragments(fragments: Vec<Fragment>) -> Option<RangeTombstones> {
        let whole = fragments.iter().all(|f| {
            f.end.as_ref().is_none_or(|end| f.start < *end)
                && !f.seqs.is_empty()
                && f.seqs.is_sorted_by(|a, b| a > b)
        });
        let sorted = fragments.windows(2).all(|w| w[0].end.as_ref().is_some_and(|end| *end <= w[1].start));
        (whole && sorted).then_some(RangeTombstones { fragments })
    }

    /// What lies within `lower..upper`; `None` is unbounded.
    pub fn clip(&self, lower: Option<&[u8]>, upper: Option<&[u8]>) -> RangeTombstones {
        let clipped = self.fragments.iter().filter_map(|f| {
            let start = lower.filter(|l| **l > *f.start).unwrap_or(&f.start);
            let end = match (f.end.as_deref(), upper) {
                (Some(end), Some(upper)) => Some(end.min(upper)),
                (end, upper) => end.or(upper),
            };
            end.is_none_or(|end| start < end).then(|| Fragment {
                start: start.into(),
                end: end.map(Into::into),
                seqs: f.seqs.clone(),
            })
        });
        RangeTombstones { fragments: clipped.collect() }
    }

    pub fn is_empty(&self) -> bool {
        self.fragments.is_empty()
    }

    pub fn fragments(&self) -> &[Fragment] {
        &self.fragments
    }

    /// The deletes these fragments stand for (cut at the fragments' borders).
    pub fn deletes(&self) -> impl Iterator<Item = RangeDelete> + '_ {
        self.fragments.iter().flat_map(|f| {
            f.seqs.iter().map(|&seq| RangeDelete { start: f.start.clone(), end: f.end.clone(), seq })
        })
    }

    /// The fragment that holds `key`.
    pub fn find(&self, key: &[u8]) -> Option<&Fragment> {
        let at = self.fragments.partition_point(|f| f.ends_by(key));
        self.fragments.get(at).filter(|f| *f.start <= *key)
    }

    /// The newest delete at or below `read` that covers `key`. One binary search.
    pub fn newest_cover(&self, key: &[u8], read: Seq) -> Option<Seq> {
        self.find(key)?.newest(read)
    }

    /// The newest delete of all, if any.
    pub fn max_seq(&self) -> Option<Seq> {
        self.fragments.iter().filter_map(|f| f.seqs.first().copied()).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delete(start: u8, end: Option<u8>, seq: u64) -> RangeDelete {
        RangeDelete {
            start: Box::from([start]),
            end: end.map(|e| Box::from([e])),
            seq: Seq::new(seq).unwrap(),
        }
    }

    #[test]
    fn agrees_with_asking_every_delete() {
        let mut x = 12345u64;
        let mut random = |n: u64| {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (x >> 33) % n
        };
        for _ in 0..300 {
            let deletes: Vec<RangeDelete> = (0..random(8))
                .map(|i| {
                    let (a, b) = (random(12) as u8, random(14) as u8);
                    delete(a, (b < 13).then_some(b), i + 1)
                })
                .collect();
            let t = RangeTombstones::new(deletes.clone());
            assert!(RangeTombstones::from_fragments(t.fragments().to_vec()).is_some());
            for key in 0..14u8 {
                for read in 0..10u64 {
                    let read = Seq::new(read).unwrap();
                    let expect = deletes
                        .iter()
                        .filter(|d| {
                            *d.start <= [key][..]
                                && d.end.as_ref().is_none_or(|e| **e > [key][..])
                                && d.seq <= read
                        })
                        .map(|d| d.seq)
                        .max();
                    assert_eq!(t.newest_cover(&[key], read), expect, "{deletes:?} {key} {read}");
                }
            }
            let again = RangeTombstones::new(t.deletes());
            assert_eq!(again.max_seq(), t.max_seq());
        }
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
    }

    #[test]
    fn reversed_ranges_cover_nothing() {
        assert!(RangeTombstones::new([delete(5, Some(5), 1), delete(6, Some(2), 2)]).is_empty());
    }
}
