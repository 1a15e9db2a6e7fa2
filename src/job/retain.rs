//! Which versions must be kept: a pure rule over snapshots and range tombstones.
//!
//! The live snapshots cut the sequence numbers into strata. Of one key, a read sees the newest
//! version at or below its sequence number, so within a stratum only the newest version can ever be
//! seen; the rest go. (LevelDB's rule in `DoCompactionWork`, stated for any set of snapshots.)

use crate::ids::Seq;
use crate::key::{Kind, Trailer};
use crate::tombstones::{Fragment, RangeTombstones};

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
        let mut points: Vec<Seq> = snapshots.into_iter().filter(|&s| s < now).collect();
        points.push(now);
        debug_assert!(points.is_sorted());
        Horizon { points }
    }

    /// The first point that sees `seq`; none if it is above all of them.
    fn stratum(&self, seq: Seq) -> Option<usize> {
        let at = self.points.partition_point(|&p| p < seq);
        (at < self.points.len()).then_some(at)
    }
}

/// Decides entry by entry, in internal order.
pub(crate) struct Retain<'a> {
    horizon: &'a Horizon,
    tombstones: &'a RangeTombstones,
    /// Nothing older of any key can lie below the output.
    bottom: bool,
    key: Vec<u8>,
    /// The stratum of the previous version of `key`, kept or not.
    above: Option<usize>,
    started: bool,
}

impl<'a> Retain<'a> {
    pub fn new(horizon: &'a Horizon, tombstones: &'a RangeTombstones, bottom: bool) -> Retain<'a> {
        Retain { horizon, tombstones, bottom, key: Vec::new(), above: None, started: false }
    }

    /// Whether the entry must be written.
    #[inline]
    pub fn keep(&mut self, key: &[u8], trailer: Trailer) -> bool {
        if !self.started || key != self.key {
            self.started = true;
            self.key.clear();
            self.key.extend_from_slice(key);
            self.above = None;
        }
        let seq = trailer.seq();
        let Some(stratum) = self.horizon.stratum(seq) else { return true };
        if self.above == Some(stratum) {
            return false;
        }
        self.above = Some(stratum);
        if !self.tombstones.is_empty() {
            let cover = self.tombstones.newest_cover(key, self.horizon.points[stratum]);
            if cover.is_some_and(|t| t > seq) {
                return false;
            }
        }
        // In the lowest stratum a delete hides only what this merge drops with it.
        !(trailer.kind() == Kind::Delete && self.bottom && stratum == 0)
    }
}

/// The range tombstones that must be written: of each fragment the newest delete of each stratum,
/// none of the lowest stratum at the bottom.
pub(crate) fn tombstones(all: &RangeTombstones, horizon: &Horizon, bottom: bool) -> RangeTombstones {
    let kept = all.fragments().iter().filter_map(|f| {
        let mut above = None;
        let seqs: Vec<Seq> = f
            .seqs
            .iter()
            .copied()
            .filter(|&seq| match horizon.stratum(seq) {
                None => true,
                Some(0) if bottom => false,
                stratum => {
                    let newest = above != stratum;
                    above = stratum;
                    newest
                }
            })
            .collect();
        (!seqs.is_empty()).then(|| Fragment { start: f.start.clone(), end: f.end.clone(), seqs: seqs.into() })
    });
    RangeTombstones::from_fragments(kept.collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tombstones::RangeDelete;

    fn seq(n: u64) -> Seq {
        Seq::new(n).unwrap()
    }

    /// Versions of one key, newest first, as `p9` or `d9`; what is kept comes back in kind.
    fn run(versions: &str, snapshots: &[u64], now: u64, deletes: &[u64], bottom: bool) -> String {
        let horizon = Horizon::new(snapshots.iter().map(|&s| seq(s)), seq(now));
        let tombstones = RangeTombstones::new(deletes.iter().map(|&s| RangeDelete {
            start: Box::from(*b"a"),
            end: None,
            seq: seq(s),
        }));
        let mut retain = Retain::new(&horizon, &tombstones, bottom);
        let kept = versions.split(' ').filter(|v| {
            let kind = if v.starts_with('d') { Kind::Delete } else { Kind::Put };
            retain.keep(b"k", Trailer::new(seq(v[1..].parse().unwrap()), kind))
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
    fn range_deletes_hide_within_their_stratum() {
        assert_eq!(run("p9 p7 p5", &[], 20, &[8], false), "p9");
        assert_eq!(run("p7 p5", &[], 20, &[8], false), "");
        assert_eq!(run("p7 p5", &[7], 20, &[8], false), "p7");
        assert_eq!(run("p7 p5", &[6], 20, &[8], false), "p5");
        let all = RangeTombstones::new([3u64, 5, 8].map(|s| RangeDelete {
            start: Box::from(*b"a"),
            end: None,
            seq: seq(s),
        }));
        let left = |snapshots: &[u64], now, bottom| {
            let horizon = Horizon::new(snapshots.iter().map(|&s| seq(s)), seq(now));
            tombstones(&all, &horizon, bottom).deletes().map(|d| d.seq.get()).collect::<Vec<_>>()
        };
        assert_eq!(left(&[], 20, false), [8]);
        assert_eq!(left(&[4], 20, false), [8, 3]);
        assert_eq!(left(&[4], 20, true), [8]);
        assert_eq!(left(&[], 20, true), [0u64; 0]);
        assert_eq!(left(&[], 4, true), [8, 5]);
    }
}
