//! Which versions must be kept: a pure rule over snapshots and range tombstones.
//!
//! The live snapshots cut the sequence numbers into strata. Of one key, a read sees the newest
//! version at or below its sequence number, so within a stratum only the newest version can ever be
//! seen; the rest go. (LevelDB's rule in `DoCompactionWork`, stated for any set of snapshots.)

use crate::ids::Seq;
use crate::key::{Kind, Trailer};
use crate::mutant::Mutant;
use crate::tombstones::{Active, Fragment, RangeDelete, RangeTombstones};
use crate::version::{Levels, Span, TableMeta};
use std::sync::Arc;

/// What reads there can still be.
#[derive(Clone, Debug)]
pub(crate) struct Horizon {
    /// Ascending. The last is not a snapshot but a point no new read will be before: everything
    /// above it is kept.
    points: Vec<Seq>,
}

impl Horizon {
    /// From the live snapshots (ascending) and a sequence number no new snapshot will be below.
    pub fn new(snapshots: impl IntoIterator<Item = Seq>, now: Seq) -> Horizon {
        let known = |s: &Seq| *s < now && !Mutant::IgnoreSnapshots.on();
        let mut points: Vec<Seq> = snapshots.into_iter().filter(known).collect();
        points.push(now);
        debug_assert!(points.is_sorted());
        Horizon { points }
    }

    /// Cuts range deletes into fragments, of each the newest delete of each stratum: no read can
    /// tell the others from it. O((n + fragments * strata) * log n).
    pub fn thin<'a>(&self, deletes: impl IntoIterator<Item = RangeDelete<'a>>) -> RangeTombstones {
        RangeTombstones::cut(deletes, |active, seqs| self.newest_of_each(active, seqs))
    }

    fn newest_of_each(&self, active: &Active, seqs: &mut Vec<Seq>) {
        let mut newest = active.newest(Seq::MAX);
        while let Some(seq) = newest {
            seqs.push(seq);
            let below = match self.stratum(seq) {
                // Above all points each may be seen.
                None => Seq::new(seq.get().wrapping_sub(1)),
                Some(stratum) => stratum.checked_sub(1).map(|i| self.points[i]),
            };
            newest = below.and_then(|below| active.newest(below));
        }
    }

    /// The first point that sees `seq`; none if it is above all of them.
    #[inline]
    fn stratum(&self, seq: Seq) -> Option<usize> {
        let at = self.points.partition_point(|&p| p < seq);
        (at < self.points.len()).then_some(at)
    }
}

/// Decides entry by entry, in internal order.
pub(crate) struct Retain<'a> {
    horizon: &'a Horizon,
    /// Thinned: of the deletes of a stratum only the newest can hide what that stratum sees.
    fragments: &'a [Fragment],
    /// Nothing older of any key can lie below the output.
    bottom: bool,
    /// There what every read sees gets a number below all others.
    renumber: bool,
    /// The stratum of the previous version of the key, kept or not.
    above: Option<usize>,
}

impl<'a> Retain<'a> {
    /// `tombstones`: as [`Horizon::thin`] made them.
    pub fn new(horizon: &'a Horizon, tombstones: &'a RangeTombstones, bottom: bool) -> Retain<'a> {
        Retain { horizon, fragments: tombstones.fragments(), bottom, renumber: false, above: None }
    }

    /// At the bottom, what every read there can still be sees gets the number 0: no read can tell, since
    /// nothing older is left for it to be newer than, and a column that is constant takes no space.
    pub fn renumbering(mut self, renumber: bool) -> Retain<'a> {
        self.renumber = renumber && self.bottom;
        self
    }

    /// The trailer to write the entry with, if it must be written. `again`: its key is that of the entry
    /// before.
    #[inline]
    pub fn keep(&mut self, key: &[u8], trailer: Trailer, again: bool) -> Option<Trailer> {
        if !again {
            self.above = None;
        }
        let seq = trailer.seq();
        let Some(stratum) = self.horizon.stratum(seq) else { return Some(trailer) };
        if self.above == Some(stratum) {
            return None;
        }
        self.above = Some(stratum);
        if !self.fragments.is_empty() && self.hidden(key, seq, stratum) {
            return None;
        }
        if stratum > 0 {
            return Some(trailer);
        }
        // In the lowest stratum a delete hides only what this merge drops with it.
        match trailer.kind() {
            Kind::Delete if self.bottom || Mutant::DropTombstoneEarly.on() => None,
            Kind::Put if self.renumber => Some(Trailer::new(Seq::ZERO, Kind::Put)),
            _ => Some(trailer),
        }
    }

    /// Whether a range delete of its stratum hides version `seq` of `key`.
    fn hidden(&mut self, key: &[u8], seq: Seq, stratum: usize) -> bool {
        while self.fragments.first().is_some_and(|f| f.ends_by(key)) {
            self.fragments = &self.fragments[1..];
        }
        let over = self.fragments.first().filter(|f| *f.start <= *key);
        over.and_then(|f| f.newest(self.horizon.points[stratum])).is_some_and(|t| t > seq)
    }
}

/// Whether no read can see anything of a table: everywhere in it a range delete is newer than all
/// that it holds, and no read is between the two. `thinned`: as [`Horizon::thin`] made them.
pub(crate) fn hides(thinned: &RangeTombstones, horizon: &Horizon, table: &TableMeta) -> bool {
    let Some(stratum) = horizon.stratum(table.min_seq) else { return false };
    let point = horizon.points[stratum];
    let fragments = thinned.fragments();
    let first = fragments.partition_point(|f| f.ends_by(&table.smallest));
    let mut from = &table.smallest;
    for fragment in &fragments[first..] {
        let newer = fragment.newest(point).is_some_and(|seq| seq > table.max_seq);
        if fragment.start > *from || !newer {
            return false;
        }
        match (&fragment.end, &table.end) {
            (None, _) => return true,
            (Some(end), Some(last)) if end >= last => return true,
            (Some(end), _) => from = end,
        }
    }
    false
}

/// The tables of which no read can see anything behind these range deletes, and their levels.
pub(crate) fn hidden<'a>(
    levels: &'a Levels,
    thinned: &'a RangeTombstones,
    horizon: &'a Horizon,
) -> impl Iterator<Item = (u8, &'a Arc<TableMeta>)> {
    let ends = thinned.fragments().first().zip(thinned.fragments().last());
    let span = ends.map(|(first, last)| Span { start: &first.start, end: last.end.as_deref() });
    let near = levels.runs().flat_map(move |(level, run)| {
        span.map_or(&[][..], |span| run.overlapping(span)).iter().map(move |t| (level, t))
    });
    near.filter(|(_, t)| hides(thinned, horizon, t))
}

/// Which of the thinned range tombstones must be written: at the bottom none of the lowest stratum.
pub(crate) fn tombstones(thinned: &RangeTombstones, horizon: &Horizon, bottom: bool) -> RangeTombstones {
    if !bottom {
        return thinned.clone();
    }
    RangeTombstones::cut(thinned.deletes(), |active, seqs| {
        horizon.newest_of_each(active, seqs);
        seqs.retain(|&seq| horizon.stratum(seq) != Some(0));
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tombstones::RangeDelete;

    fn seq(n: u64) -> Seq {
        Seq::new(n).unwrap()
    }

    fn from_a(s: u64) -> RangeDelete<'static> {
        RangeDelete { start: b"a", end: None, seq: seq(s) }
    }

    /// Versions of one key, newest first, as `p9` or `d9`; what is kept comes back in kind.
    fn run(versions: &str, snapshots: &[u64], now: u64, deletes: &[u64], bottom: bool) -> String {
        let horizon = Horizon::new(snapshots.iter().map(|&s| seq(s)), seq(now));
        let tombstones = horizon.thin(deletes.iter().map(|&s| from_a(s)));
        let mut retain = Retain::new(&horizon, &tombstones, bottom);
        let mut again = false;
        let kept = versions.split(' ').filter(|v| {
            let kind = if v.starts_with('d') { Kind::Delete } else { Kind::Put };
            let trailer = Trailer::new(seq(v[1..].parse().unwrap()), kind);
            retain.keep(b"k", trailer, std::mem::replace(&mut again, true)).is_some()
        });
        kept.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn only_the_newest_of_each_stratum_stays() {
        assert_eq!(run("p9 p7 p5 p3", &[], 20, &[], false), "p9");
        assert_eq!(run("p9 p7 p5 p3", &[6], 20, &[], false), "p9 p5");
        assert_eq!(run("p9 p7 p5 p3", &[3, 4, 7, 8], 20, &[], false), "p9 p7 p3");
        assert_eq!(run("p9 p7 p5 p3", &[], 6, &[], false), "p9 p7 p5");
    }

    #[test]
    fn a_delete_goes_only_where_nothing_can_hide_behind_it() {
        assert_eq!(run("d9 p7", &[], 20, &[], false), "d9");
        assert_eq!(run("d9 p7", &[], 20, &[], true), "");
        assert_eq!(run("d9 p7", &[8], 20, &[], true), "d9 p7");
        assert_eq!(run("p9 d7 p5", &[8], 20, &[], true), "p9");
        assert_eq!(run("p9 d7 p5", &[6], 20, &[], true), "p9 p5");
        assert_eq!(run("d9 p7", &[], 8, &[], true), "d9 p7");
    }

    #[test]
    fn what_every_read_sees_loses_its_number_at_the_bottom() {
        let numbers = |snapshots: &[u64], bottom| {
            let horizon = Horizon::new(snapshots.iter().map(|&s| seq(s)), seq(8));
            let none = RangeTombstones::default();
            let mut retain = Retain::new(&horizon, &none, bottom).renumbering(true);
            let put = |n: u64| Trailer::new(seq(n), Kind::Put);
            let kept = [9, 8, 6, 4, 3].map(|n| retain.keep(b"k", put(n), n < 9));
            kept.into_iter().flatten().map(|t| t.seq().get()).collect::<Vec<_>>()
        };
        assert_eq!(numbers(&[], true), [9, 0]);
        assert_eq!(numbers(&[6], true), [9, 8, 0]);
        assert_eq!(numbers(&[4, 6], true), [9, 8, 6, 0]);
        assert_eq!(numbers(&[1], true), [9, 8]);
        assert_eq!(numbers(&[], false), [9, 8]);
    }

    #[test]
    fn range_deletes_hide_within_their_stratum() {
        assert_eq!(run("p9 p7 p5", &[], 20, &[8], false), "p9");
        assert_eq!(run("p7 p5", &[], 20, &[8], false), "");
        assert_eq!(run("p7 p5", &[7], 20, &[8], false), "p7");
        assert_eq!(run("p7 p5", &[6], 20, &[8], false), "p5");
        let left = |snapshots: &[u64], now, bottom| {
            let horizon = Horizon::new(snapshots.iter().map(|&s| seq(s)), seq(now));
            let all = horizon.thin([3, 5, 8].map(from_a));
            tombstones(&all, &horizon, bottom).deletes().map(|d| d.seq.get()).collect::<Vec<_>>()
        };
        assert_eq!(left(&[], 20, false), [8]);
        assert_eq!(left(&[4], 20, false), [8, 3]);
        assert_eq!(left(&[4], 20, true), [8]);
        assert_eq!(left(&[], 20, true), [0u64; 0]);
        assert_eq!(left(&[], 4, true), [8, 5]);
    }

    /// What thinning leaves hides from every read, and from what is kept, what all deletes would.
    #[test]
    fn thinned_deletes_hide_what_all_of_them_do() {
        use crate::cursor::testing::Random;
        const KEYS: [&[u8]; 6] = [b"", b"a", b"b", b"ba", b"c", b"d"];
        let mut random = Random(17);
        for round in 0..2000 {
            let deletes: Vec<RangeDelete<'_>> = (0..random.below(9))
                .map(|_| RangeDelete {
                    start: KEYS[random.below(5) as usize],
                    end: (random.below(4) > 0).then(|| KEYS[1 + random.below(5) as usize]),
                    seq: seq(1 + random.below(20)),
                })
                .collect();
            let now = random.below(24);
            let snapshots: Vec<Seq> = (0..now).filter(|_| random.below(4) == 0).map(seq).collect();
            let horizon = Horizon::new(snapshots.iter().copied(), seq(now));
            let all = RangeTombstones::new(deletes.iter().copied());
            let thinned = horizon.thin(deletes.iter().copied());
            let strata = snapshots.len() + 1 + (20u64.saturating_sub(now)) as usize;
            assert!(thinned.fragments().iter().all(|f| f.seqs.len() <= strata));
            let written = tombstones(&thinned, &horizon, true);
            for key in KEYS {
                for &point in &horizon.points {
                    let (full, thin) = (all.newest_cover(key, point), thinned.newest_cover(key, point));
                    assert_eq!(full, thin, "round {round}");
                    // At the bottom the lowest stratum goes, and with it all it would hide.
                    let low = full.filter(|&t| horizon.stratum(t) != Some(0));
                    assert_eq!(written.newest_cover(key, point), low, "round {round}");
                }
                for n in (0..22).rev() {
                    let mut retain = Retain::new(&horizon, &thinned, false);
                    let kept = retain.keep(key, Trailer::new(seq(n), Kind::Put), false).is_some();
                    let hidden = horizon.stratum(seq(n)).is_some_and(|stratum| {
                        all.newest_cover(key, horizon.points[stratum]).is_some_and(|t| t > seq(n))
                    });
                    assert_eq!(kept, !hidden, "round {round}");
                }
            }
        }
    }

    /// Tables whose every entry is hidden from every read are told from all others.
    #[test]
    fn hidden_tables_agree_with_asking_each_read_for_each_key() {
        use crate::cursor::testing::Random;
        let mut random = Random(5);
        let bound = |n: u64| vec![b'a' + n as u8].into_boxed_slice();
        let (mut yes, mut held) = (0, 0);
        for _ in 0..20_000 {
            let (start, end) = (random.below(8), random.below(10));
            let (low, high) = (1 + random.below(12), 1 + random.below(12));
            let table = TableMeta {
                smallest: bound(start),
                end: (end < 8).then(|| bound(start + 1 + end)),
                min_seq: seq(low.min(high)),
                max_seq: seq(low.max(high)),
                ..TableMeta::parse("1[a-b)")
            };
            let bounds: Vec<_> =
                (0..random.below(5)).map(|_| (bound(random.below(8)), random.below(12))).collect();
            let ends: Vec<_> = bounds.iter().map(|b| (b.1 < 8).then(|| bound(b.1 + 1))).collect();
            let deletes = bounds.iter().zip(&ends).map(|((start, _), end)| RangeDelete {
                start,
                end: end.as_deref(),
                seq: seq(1 + random.below(20)),
            });
            let deletes: Vec<_> = deletes.collect();
            let now = random.below(24);
            let snapshots: Vec<Seq> = (0..now).filter(|_| random.below(6) == 0).map(seq).collect();
            let horizon = Horizon::new(snapshots, seq(now));
            let thinned = horizon.thin(deletes.iter().copied());
            // Every key there can be, at every state that can be asked for: both ends of the numbers
            // may be on any key.
            let keys = (0..26u64).map(bound).filter(|key| table.span().contains(key));
            let reads = (0..30).map(seq).filter(|r| horizon.points.contains(r) || r.get() >= now);
            let seen = |key: &[u8], read: Seq| {
                let over = thinned.newest_cover(key, read);
                read >= table.min_seq && over.is_none_or(|cover| cover <= table.max_seq.min(read))
            };
            let reads: Vec<Seq> = reads.collect();
            let visible = keys.clone().any(|key| reads.iter().any(|&read| seen(&key, read)));
            assert_eq!(hides(&thinned, &horizon, &table), !visible, "{table:?} {deletes:?} {horizon:?}");
            let newest = deletes.iter().map(|d| d.seq).max();
            yes += usize::from(!visible);
            held += usize::from(visible && horizon.points.len() > 1 && newest > Some(table.max_seq));
        }
        assert!(yes > 300 && held > 300, "{yes} {held}");
    }
}
