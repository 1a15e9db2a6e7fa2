//! What one sequence number may see: of each key the newest version at or below it, if that is a
//! value no range tombstone covers; within bounds; in both directions.

use crate::cursor::covers::Covers;
use crate::cursor::merge::Merge;
use crate::cursor::{Cursor, Layer};
use crate::error::Result;
use crate::fs::SharedBytes;
use crate::ids::Seq;
use crate::key::{Heads, Kind, Trailer};
use std::sync::Arc;

/// The half-open range `lower..upper`; `None` is unbounded.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// The first key within.
    pub lower: Option<Vec<u8>>,
    /// The first key behind.
    pub upper: Option<Vec<u8>>,
}

/// The entries of some layers that a read at `read` sees. Stands on one, or nowhere.
/// Copies no entry, whichever way it goes.
pub(crate) struct Visible<C> {
    merge: Merge<C>,
    read: Seq,
    bounds: Arc<Bounds>,
    /// Heads of the bounds: most entries need no look at more.
    lower: u64,
    upper: u64,
    covers: Covers,
    /// Whether `merge` stands on an entry that is shown.
    stands: bool,
}

impl<C: Layer> Visible<C> {
    /// `layers`: newest first. `heads`: which most of their keys can be told apart by.
    pub fn new(layers: Vec<C>, heads: Heads, read: Seq, bounds: Arc<Bounds>) -> Visible<C> {
        let covers = Covers::new(&layers, read);
        let lower = bounds.lower.as_deref().map_or(0, |lower| heads.of(lower));
        let upper = bounds.upper.as_deref().map_or(u64::MAX, |upper| heads.of(upper));
        let merge = Merge::new(layers, heads);
        Visible { merge, read, bounds, lower, upper, covers, stands: false }
    }

    /// Whether the merge has come to the end of the bounds.
    #[inline]
    fn above(&self) -> bool {
        self.merge.head() >= self.upper
            && self.bounds.upper.as_deref().is_some_and(|upper| self.merge.key() >= upper)
    }

    /// Whether it has come back to before their start.
    #[inline]
    fn below(&self) -> bool {
        self.merge.head() <= self.lower
            && self.bounds.lower.as_deref().is_some_and(|lower| self.merge.key() < lower)
    }

    #[inline]
    pub fn valid(&self) -> bool {
        self.stands
    }

    /// The key of the entry; only while valid.
    #[inline]
    pub fn key(&self) -> &[u8] {
        self.merge.key()
    }

    /// Key and value of the entry; only while valid.
    #[inline]
    pub fn entry(&self) -> (&[u8], &[u8]) {
        self.merge.entry()
    }

    /// The value of the entry; only while valid.
    #[inline]
    pub fn value(&self) -> &[u8] {
        self.merge.value()
    }

    /// Whose bytes the value lies in, if they can be shared.
    #[inline]
    pub fn owner(&self) -> Option<&SharedBytes> {
        self.merge.owner()
    }

    /// To the first entry of the bounds.
    pub fn seek_first(&mut self) -> Result<()> {
        self.stands = false;
        match &self.bounds.lower {
            Some(lower) => self.merge.seek(lower, Trailer::newest(self.read))?,
            None => self.merge.seek_first()?,
        }
        self.find_forward(false)
    }

    /// To the last entry of the bounds.
    pub fn seek_last(&mut self) -> Result<()> {
        self.stands = false;
        match &self.bounds.upper {
            Some(upper) => self.merge.seek_before(upper)?,
            None => self.merge.seek_last()?,
        }
        self.find_backward()
    }

    /// To the first entry at or after `key`.
    pub fn seek(&mut self, key: &[u8]) -> Result<()> {
        if self.bounds.lower.as_deref().is_some_and(|lower| key < lower) {
            return self.seek_first();
        }
        self.stands = false;
        self.merge.seek(key, Trailer::newest(self.read))?;
        self.find_forward(false)
    }

    /// To the last entry before `key`.
    #[cfg(test)]
    pub fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        if self.bounds.upper.as_deref().is_some_and(|upper| key > upper) {
            return self.seek_last();
        }
        self.stands = false;
        self.merge.seek_before(key)?;
        self.find_backward()
    }

    /// One entry on. Only while valid.
    #[inline]
    pub fn next(&mut self) -> Result<()> {
        self.stands = false;
        self.merge.next()?;
        self.find_forward(true)
    }

    /// One entry back. Only while valid.
    #[inline]
    pub fn prev(&mut self) -> Result<()> {
        self.stands = false;
        self.merge.prev()?;
        self.find_backward()
    }

    /// From where `merge` stands to the first visible entry. `skip`: first past the rest of the
    /// versions of the key it came from.
    #[inline]
    fn find_forward(&mut self, mut skip: bool) -> Result<()> {
        while self.merge.valid() {
            if skip && self.merge.repeats() {
                self.merge.next()?;
                continue;
            }
            skip = false;
            if self.above() {
                break;
            }
            let trailer = self.merge.trailer();
            if trailer.seq() <= self.read {
                let hidden = self.covers.hide(&mut self.merge)?;
                if trailer.kind() == Kind::Put && !hidden {
                    self.merge.fetch()?;
                    self.stands = true;
                    return Ok(());
                }
                if hidden && self.covers.leap(&mut self.merge)? {
                    continue;
                }
                skip = true;
            }
            self.merge.next()?;
        }
        self.stands = false;
        Ok(())
    }

    /// On the way back: whether no newer version of the key is one that the read may see.
    #[inline]
    fn decides(&mut self) -> Result<bool> {
        if self.merge.alone() {
            return Ok(true);
        }
        Ok(self.merge.newer()?.is_none_or(|newer| newer.seq() > self.read))
    }

    /// From where `merge` stands back to the first visible entry. Of the versions of a key, which come
    /// oldest first, the last one that the read may see decides: the one before which stands none, or one
    /// that is too new.
    #[inline]
    fn find_backward(&mut self) -> Result<()> {
        while self.merge.valid() {
            if self.below() {
                break;
            }
            let trailer = self.merge.trailer();
            if trailer.seq() <= self.read && self.decides()? {
                let hidden = self.covers.hide(&mut self.merge)?;
                if trailer.kind() == Kind::Put && !hidden {
                    self.merge.fetch()?;
                    self.stands = true;
                    return Ok(());
                }
                if hidden && self.covers.leap(&mut self.merge)? {
                    continue;
                }
            }
            self.merge.prev()?;
        }
        self.stands = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::testing::{Deletable, Entry, OwnedDelete, Random, entries};
    use std::collections::BTreeMap;

    type Shown = Vec<(Vec<u8>, Vec<u8>)>;

    fn model(all: &[Entry], deletes: &[OwnedDelete], read: Seq, b: &Bounds) -> Shown {
        let mut newest: BTreeMap<&[u8], (Seq, Option<&[u8]>)> = BTreeMap::new();
        for (key, trailer, value) in all {
            if trailer.seq() <= read {
                let value = (trailer.kind() == Kind::Put).then_some(&value[..]);
                let entry = newest.entry(key).or_insert((trailer.seq(), value));
                if trailer.seq() > entry.0 {
                    *entry = (trailer.seq(), value);
                }
            }
        }
        let covered = |key: &[u8], seq| {
            deletes
                .iter()
                .any(|d| d.2 <= read && d.2 > seq && *d.0 <= *key && d.1.as_deref().is_none_or(|e| key < e))
        };
        newest
            .into_iter()
            .filter(|(k, _)| {
                b.lower.as_deref().is_none_or(|l| *k >= l) && b.upper.as_deref().is_none_or(|u| *k < u)
            })
            .filter_map(|(k, (seq, v))| v.filter(|_| !covered(k, seq)).map(|v| (k.to_vec(), v.to_vec())))
            .collect()
    }

    /// Deals everything out to layers by age.
    fn layers(random: &mut Random, all: Vec<Entry>, deletes: &[OwnedDelete]) -> Vec<Deletable> {
        let mut cuts: Vec<u64> = (0..random.below(5)).map(|_| random.below(70)).collect();
        cuts.extend([0, u64::MAX]);
        cuts.sort_by(|a, b| b.cmp(a));
        let ages = cuts.windows(2).map(|w| w[1]..w[0]);
        let layer = |age: std::ops::Range<u64>| {
            let entries = all.iter().filter(|e| age.contains(&e.1.seq().get())).cloned().collect();
            let deletes: Vec<_> = deletes.iter().filter(|d| age.contains(&d.2.get())).cloned().collect();
            Deletable::new(entries, &deletes)
        };
        ages.map(layer).collect()
    }

    #[test]
    fn shows_what_a_map_of_versions_would() {
        let mut random = Random(99);
        for round in 0..1500 {
            let mut all = entries(&mut random, 60);
            let deletes: Vec<OwnedDelete> = (0..random.below(8))
                .map(|_| {
                    let end = (random.below(4) > 0).then(|| random.key());
                    (random.key(), end, Seq::new(random.below(70)).unwrap())
                })
                .collect();
            // No two operations have one number.
            all.retain(|e| deletes.iter().all(|d| d.2 != e.1.seq()));
            let read = Seq::new(random.below(70)).unwrap();
            let bound = |random: &mut Random| (random.below(3) == 0).then(|| random.key());
            let bounds = Bounds { lower: bound(&mut random), upper: bound(&mut random) };
            let expect = model(&all, &deletes, read, &bounds);
            let heads = Heads::between(&random.key(), &random.key());
            let layers = layers(&mut random, all, &deletes);
            let mut cursor = Visible::new(layers, heads, read, Arc::new(bounds));
            let mut at: Option<usize> = None;
            for step in 0..60 {
                let key = random.key();
                match random.below(8) {
                    0 => {
                        cursor.seek_first().unwrap();
                        at = (!expect.is_empty()).then_some(0);
                    }
                    1 => {
                        cursor.seek_last().unwrap();
                        at = expect.len().checked_sub(1);
                    }
                    2 => {
                        cursor.seek(&key).unwrap();
                        at = Some(expect.partition_point(|e| e.0 < key)).filter(|&i| i < expect.len());
                    }
                    3 => {
                        cursor.seek_before(&key).unwrap();
                        at = expect.partition_point(|e| e.0 < key).checked_sub(1);
                    }
                    n => {
                        let Some(i) = at else { continue };
                        if n < 6 {
                            cursor.next().unwrap();
                            at = Some(i + 1).filter(|&i| i < expect.len());
                        } else {
                            cursor.prev().unwrap();
                            at = i.checked_sub(1);
                        }
                    }
                }
                assert_eq!(cursor.valid(), at.is_some(), "round {round} step {step}");
                if let Some(i) = at {
                    assert_eq!((cursor.key(), cursor.value()), (&expect[i].0[..], &expect[i].1[..]));
                }
            }
        }
    }

    fn put(i: u32, n: u64) -> Entry {
        (i.to_be_bytes().to_vec(), Trailer::new(Seq::new(n).unwrap(), Kind::Put), vec![1])
    }

    /// The older layers step over what newer range deletes cover in a few seeks, in both directions.
    #[test]
    fn what_is_covered_is_leapt_over() {
        const N: u32 = 10_000;
        let key = |i: u32| i.to_be_bytes().to_vec();
        let old: Vec<Entry> = (0..N).map(|i| put(i, 1 + u64::from(i))).collect();
        // All but the first and the last ten: by one delete, or by many that abut.
        let (from, to, read) = (10, N - 10, Seq::MAX);
        let one = vec![(key(from), Some(key(to)), Seq::new(50_000).unwrap())];
        let many: Vec<OwnedDelete> = (from..to)
            .step_by(10)
            .map(|i| (key(i), Some(key(i + 10)), Seq::new(50_000 + u64::from(i * 7 % N)).unwrap()))
            .collect();
        for (deletes, newer) in [(one.clone(), true), (many, true), (one, false)] {
            // In a layer above, or in the same one.
            let layers = match newer {
                true => vec![
                    Deletable::new(vec![put(0, 90_000), put(N - 1, 90_001)], &deletes),
                    Deletable::new(old.clone(), &[]),
                ],
                false => vec![Deletable::new(old.clone(), &deletes)],
            };
            let steps: Vec<_> = layers.iter().map(|l| l.steps.clone()).collect();
            let mut cursor = Visible::new(layers, Heads::default(), read, Arc::default());
            cursor.seek_first().unwrap();
            let mut shown = 0;
            while cursor.valid() {
                shown += 1;
                cursor.next().unwrap();
            }
            cursor.seek_last().unwrap();
            while cursor.valid() {
                shown += 1;
                cursor.prev().unwrap();
            }
            assert_eq!(shown, 40);
            let steps: usize = steps.iter().map(|s| s.get()).sum();
            assert!(steps < 100, "{steps} steps");
        }
    }
}
