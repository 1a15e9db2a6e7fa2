//! What one sequence number may see: of each key the newest version at or below it, if that is a
//! value no range tombstone covers; within bounds; in both directions.

use crate::cursor::Cursor;
use crate::error::Result;
use crate::fs::SharedBytes;
use crate::ids::Seq;
use crate::key::{Kind, Trailer};
use crate::tombstones::RangeTombstones;

/// The half-open range `lower..upper`; `None` is unbounded.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// The first key within.
    pub lower: Option<Vec<u8>>,
    /// The first key behind.
    pub upper: Option<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    /// Off both ends, or not yet positioned.
    Nowhere,
    /// `inner` stands on the entry shown.
    Inner,
    /// The entry shown is in `key` and `value`; `inner` stands before all its versions.
    Saved,
}

/// The entries of `inner` that a read at `read` sees. Stands on one, or nowhere.
pub(crate) struct Visible<C> {
    inner: C,
    read: Seq,
    bounds: Bounds,
    tombstones: RangeTombstones,
    at: At,
    /// Forward: the key whose remaining versions are to be skipped. Backward: the key shown.
    key: Vec<u8>,
    value: Vec<u8>,
}

impl<C: Cursor> Visible<C> {
    pub fn new(inner: C, read: Seq, bounds: Bounds, tombstones: RangeTombstones) -> Visible<C> {
        Visible { inner, read, bounds, tombstones, at: At::Nowhere, key: Vec::new(), value: Vec::new() }
    }

    #[inline]
    pub fn valid(&self) -> bool {
        self.at != At::Nowhere
    }

    /// The key of the entry; only while valid.
    #[inline]
    pub fn key(&self) -> &[u8] {
        if self.at == At::Inner { self.inner.key() } else { &self.key }
    }

    /// The value of the entry; only while valid.
    #[inline]
    pub fn value(&self) -> &[u8] {
        if self.at == At::Inner { self.inner.value() } else { &self.value }
    }

    /// Whose bytes the value lies in, if they can be shared.
    pub fn owner(&self) -> Option<&SharedBytes> {
        if self.at == At::Inner { self.inner.owner() } else { None }
    }

    /// To the first entry of the bounds.
    pub fn seek_first(&mut self) -> Result<()> {
        self.at = At::Nowhere;
        match &self.bounds.lower {
            Some(lower) => self.inner.seek(lower, Trailer::newest(self.read))?,
            None => self.inner.seek_first()?,
        }
        self.find_forward(false)
    }

    /// To the last entry of the bounds.
    pub fn seek_last(&mut self) -> Result<()> {
        self.at = At::Nowhere;
        match &self.bounds.upper {
            Some(upper) => self.inner.seek_before(upper)?,
            None => self.inner.seek_last()?,
        }
        self.find_backward()
    }

    /// To the first entry at or after `key`.
    pub fn seek(&mut self, key: &[u8]) -> Result<()> {
        if self.bounds.lower.as_deref().is_some_and(|lower| key < lower) {
            return self.seek_first();
        }
        self.at = At::Nowhere;
        self.inner.seek(key, Trailer::newest(self.read))?;
        self.find_forward(false)
    }

    /// To the last entry before `key`.
    pub fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        if self.bounds.upper.as_deref().is_some_and(|upper| key > upper) {
            return self.seek_last();
        }
        self.at = At::Nowhere;
        self.inner.seek_before(key)?;
        self.find_backward()
    }

    /// One entry on. Only while valid.
    #[inline]
    pub fn next(&mut self) -> Result<()> {
        if self.at == At::Saved {
            // `inner` stands before the entry shown: go to it first.
            let key = std::mem::take(&mut self.key);
            let sought = self.seek(&key);
            self.key = key;
            sought?;
            debug_assert!(self.at == At::Inner);
        }
        self.at = At::Nowhere;
        self.key.clear();
        self.key.extend_from_slice(self.inner.key());
        self.inner.next()?;
        self.find_forward(true)
    }

    /// One entry back. Only while valid.
    #[inline]
    pub fn prev(&mut self) -> Result<()> {
        if self.at == At::Inner {
            self.at = At::Nowhere;
            self.key.clear();
            self.key.extend_from_slice(self.inner.key());
            self.inner.seek_before(&self.key)?;
        }
        self.at = At::Nowhere;
        self.find_backward()
    }

    fn covered(&self, key: &[u8], seq: Seq) -> bool {
        !self.tombstones.is_empty() && self.tombstones.newest_cover(key, self.read).is_some_and(|t| t > seq)
    }

    /// From where `inner` stands to the first visible entry. `skip`: first past the rest of the
    /// versions of `self.key`.
    #[inline]
    fn find_forward(&mut self, mut skip: bool) -> Result<()> {
        while self.inner.valid() {
            let key = self.inner.key();
            if skip && key == self.key {
                self.inner.next()?;
                continue;
            }
            skip = false;
            if self.bounds.upper.as_deref().is_some_and(|upper| key >= upper) {
                break;
            }
            let trailer = self.inner.trailer();
            if trailer.seq() > self.read {
                self.inner.next()?;
                continue;
            }
            if trailer.kind() == Kind::Put && !self.covered(key, trailer.seq()) {
                self.at = At::Inner;
                return Ok(());
            }
            self.key.clear();
            self.key.extend_from_slice(key);
            skip = true;
            self.inner.next()?;
        }
        self.at = At::Nowhere;
        Ok(())
    }

    /// From where `inner` stands back to the first visible entry. Backward, the versions of a key
    /// come oldest first: the last one the read may see decides.
    fn find_backward(&mut self) -> Result<()> {
        while self.inner.valid() {
            if self.bounds.lower.as_deref().is_some_and(|lower| self.inner.key() < lower) {
                break;
            }
            self.key.clear();
            self.key.extend_from_slice(self.inner.key());
            let mut newest: Option<Trailer> = None;
            while self.inner.valid() && self.inner.key() == self.key {
                let trailer = self.inner.trailer();
                if trailer.seq() <= self.read {
                    newest = Some(trailer);
                    self.value.clear();
                    if trailer.kind() == Kind::Put {
                        self.value.extend_from_slice(self.inner.value());
                    }
                }
                self.inner.prev()?;
            }
            if let Some(newest) = newest
                && newest.kind() == Kind::Put
                && !self.covered(&self.key, newest.seq())
            {
                self.at = At::Saved;
                return Ok(());
            }
        }
        self.at = At::Nowhere;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::testing::{Random, Sorted, entries};
    use crate::tombstones::RangeDelete;
    use std::collections::BTreeMap;

    type OwnedDelete = (Vec<u8>, Option<Vec<u8>>, Seq);
    type Shown = Vec<(Vec<u8>, Vec<u8>)>;

    fn model(all: &[(Vec<u8>, Trailer, Vec<u8>)], deletes: &[OwnedDelete], read: Seq, b: &Bounds) -> Shown {
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

    #[test]
    fn shows_what_a_map_of_versions_would() {
        let mut random = Random(99);
        for round in 0..300 {
            let all = entries(&mut random, 60);
            let deletes: Vec<OwnedDelete> = (0..random.below(4))
                .map(|_| {
                    let end = (random.below(4) > 0).then(|| random.key());
                    (random.key(), end, Seq::new(random.below(70)).unwrap())
                })
                .collect();
            let read = Seq::new(random.below(70)).unwrap();
            let bound = |random: &mut Random| (random.below(3) == 0).then(|| random.key());
            let bounds = Bounds { lower: bound(&mut random), upper: bound(&mut random) };
            let expect = model(&all, &deletes, read, &bounds);
            let tombstones = RangeTombstones::new(deletes.iter().map(|(start, end, seq)| RangeDelete {
                start,
                end: end.as_deref(),
                seq: *seq,
            }));
            let mut cursor = Visible::new(Sorted::new(all), read, bounds, tombstones);
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
}
