//! What cursor tests share: a sorted list as a cursor, and random entries.

use crate::cursor::{Cursor, Layer};
use crate::error::Result;
use crate::ids::Seq;
use crate::key::{Kind, Trailer, compare};
use crate::tombstones::{Around, RangeDelete, RangeTombstones};
use std::rc::Rc;

pub(crate) type Entry = (Vec<u8>, Trailer, Vec<u8>);

/// A sorted list of entries as a cursor: the model every other cursor is held against.
pub(crate) struct Sorted {
    entries: Vec<Entry>,
    at: Option<usize>,
    repeats: bool,
}

impl Sorted {
    pub fn new(entries: Vec<Entry>) -> Sorted {
        assert!(entries.is_sorted_by(|a, b| compare((&a.0, a.1), (&b.0, b.1)).is_lt()));
        Sorted { entries, at: None, repeats: false }
    }

    fn step(&mut self, from: usize, to: usize) -> Result<()> {
        self.repeats = self.entries.get(to).is_some_and(|e| e.0 == self.entries[from].0);
        self.stand(to)
    }

    fn stand(&mut self, at: usize) -> Result<()> {
        self.at = Some(at).filter(|&at| at < self.entries.len());
        Ok(())
    }
}

impl Cursor for Sorted {
    fn seek_first(&mut self) -> Result<()> {
        self.stand(0)
    }

    fn seek_last(&mut self) -> Result<()> {
        self.stand(self.entries.len().wrapping_sub(1))
    }

    fn seek(&mut self, key: &[u8], trailer: Trailer) -> Result<()> {
        self.stand(self.entries.partition_point(|e| compare((&e.0, e.1), (key, trailer)).is_lt()))
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.stand(self.entries.partition_point(|e| &e.0[..] < key).wrapping_sub(1))
    }

    fn next(&mut self) -> Result<()> {
        let at = self.at.unwrap();
        self.step(at, at + 1)
    }

    fn prev(&mut self) -> Result<()> {
        let at = self.at.unwrap();
        self.step(at, at.wrapping_sub(1))
    }

    fn repeats(&self) -> bool {
        self.repeats
    }

    fn alone(&self) -> bool {
        let at = self.at.unwrap();
        at.checked_sub(1).is_none_or(|before| self.entries[before].0 != self.entries[at].0)
    }

    fn newer(&mut self) -> Result<Option<Trailer>> {
        let at = self.at.unwrap();
        let before = at.checked_sub(1).map(|before| &self.entries[before]);
        Ok(before.filter(|e| e.0 == self.entries[at].0).map(|e| e.1))
    }

    fn valid(&self) -> bool {
        self.at.is_some()
    }

    fn key(&self) -> &[u8] {
        &self.entries[self.at.unwrap()].0
    }

    fn trailer(&self) -> Trailer {
        self.entries[self.at.unwrap()].1
    }

    fn value(&self) -> &[u8] {
        &self.entries[self.at.unwrap()].2
    }
}

/// A sorted list and range deletes as a layer; counts what it is asked to do.
pub(crate) struct Deletable {
    entries: Sorted,
    tombstones: RangeTombstones,
    max_seq: Seq,
    pub steps: Rc<std::cell::Cell<usize>>,
}

/// A delete of the keys from the first to before the second.
pub(crate) type OwnedDelete = (Vec<u8>, Option<Vec<u8>>, Seq);

impl Deletable {
    pub fn new(entries: Vec<Entry>, deletes: &[OwnedDelete]) -> Deletable {
        let newest = entries.iter().map(|e| e.1.seq()).chain(deletes.iter().map(|d| d.2)).max();
        let tombstones = RangeTombstones::new(deletes.iter().map(|(start, end, seq)| RangeDelete {
            start,
            end: end.as_deref(),
            seq: *seq,
        }));
        let max_seq = newest.unwrap_or(Seq::ZERO);
        Deletable { entries: Sorted::new(entries), tombstones, max_seq, steps: Rc::default() }
    }

    fn count(&mut self) -> &mut Sorted {
        self.steps.set(self.steps.get() + 1);
        &mut self.entries
    }
}

impl Cursor for Deletable {
    fn seek_first(&mut self) -> Result<()> {
        self.count().seek_first()
    }

    fn seek_last(&mut self) -> Result<()> {
        self.count().seek_last()
    }

    fn seek(&mut self, key: &[u8], trailer: Trailer) -> Result<()> {
        self.count().seek(key, trailer)
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.count().seek_before(key)
    }

    fn next(&mut self) -> Result<()> {
        self.count().next()
    }

    fn prev(&mut self) -> Result<()> {
        self.count().prev()
    }

    fn valid(&self) -> bool {
        self.entries.valid()
    }

    fn repeats(&self) -> bool {
        self.entries.repeats()
    }

    fn alone(&self) -> bool {
        self.entries.alone()
    }

    fn newer(&mut self) -> Result<Option<Trailer>> {
        self.entries.newer()
    }

    fn key(&self) -> &[u8] {
        self.entries.key()
    }

    fn trailer(&self) -> Trailer {
        self.entries.trailer()
    }

    fn value(&self) -> &[u8] {
        self.entries.value()
    }
}

impl Layer for Deletable {
    fn may_cover(&self) -> bool {
        !self.tombstones.is_empty()
    }

    fn around(&mut self, key: &[u8], read: Seq) -> Result<Around<'_>> {
        Ok(self.tombstones.around(key, read, &mut 0))
    }

    fn solid(&self, key: &[u8], read: Seq) -> Option<Around<'_>> {
        self.tombstones.solid(key, read)
    }

    fn max_seq(&self) -> Seq {
        self.max_seq
    }
}

/// A small seeded generator (xorshift).
pub(crate) struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n.max(1)
    }

    /// A short key: many collide, some share a head of eight bytes.
    pub fn key(&mut self) -> Vec<u8> {
        let mut key = if self.below(3) == 0 { b"longprefix".to_vec() } else { Vec::new() };
        for _ in 0..self.below(3) {
            key.push(b'a' + self.below(4) as u8);
        }
        key
    }
}

/// At most `n` entries with distinct sequence numbers, sorted.
pub(crate) fn entries(random: &mut Random, n: u64) -> Vec<Entry> {
    let mut entries: Vec<Entry> = (0..random.below(n + 1))
        .map(|i| {
            let kind = if random.below(4) == 0 { Kind::Delete } else { Kind::Put };
            let value = if kind == Kind::Put { format!("v{i}").into_bytes() } else { Vec::new() };
            (random.key(), Trailer::new(Seq::new(i + 1).unwrap(), kind), value)
        })
        .collect();
    entries.sort_by(|a, b| compare((&a.0, a.1), (&b.0, b.1)));
    entries
}
