//! The cursor over a memtable: the sorted slots of one leaf at a time.

use super::Memtable;
use super::arena::{Record, Ref, prefetch};
use super::node::{LEAF, head};
use super::tree::{Fences, Toward};
use crate::cursor::Cursor;
use crate::error::Result;
use crate::ids::Seq;
use crate::key::Trailer;
use crate::sync::Arc;
use std::cmp::Ordering;

/// How many entries before its turn a record is fetched.
const AHEAD: usize = 4;

/// A cursor that owns its share of the memtable. Sees at least what was inserted before its last
/// seek, and each entry at most once in one direction.
pub(crate) struct MemCursor {
    mem: Arc<Memtable>,
    /// A leaf's slots as they were when the cursor came, in order: heads above, references below.
    slots: [u64; LEAF],
    len: usize,
    /// Which slots stand where they belong: those with equal heads are put in order when the cursor
    /// comes to them.
    settled: u64,
    /// The leaf's place in the tree.
    fences: Fences,
    /// The slot the cursor stands in, and which version in it.
    at: usize,
    stand: Option<Ref>,
}

impl MemCursor {
    pub fn new(mem: Arc<Memtable>) -> MemCursor {
        MemCursor { mem, slots: [0; LEAF], len: 0, settled: 0, fences: Fences::default(), at: 0, stand: None }
    }

    fn record(&self) -> Option<Record<'_>> {
        self.stand.map(|r| self.mem.tree.record(r))
    }

    /// Goes to the leaf where `toward` leads. Answers how many of its entries lie before the key of
    /// `toward`, and whether the next one is that key.
    fn load(&mut self, toward: Toward<'_>) -> (usize, bool) {
        self.stand = None;
        self.len = 0;
        let mem = self.mem.clone();
        let tree = &mem.tree;
        let Some((leaf, fences)) = tree.find_leaf(toward) else { return (0, false) };
        self.fences = fences;
        self.len = leaf.len();
        self.settled = 0;
        leaf.order(self.len, |i| leaf.record(i).get(), &mut self.slots);
        let (Toward::At(key) | Toward::Before(key)) = toward else { return (0, false) };
        match tree.compare_leaf(leaf, key) {
            Ordering::Less => return (0, false),
            Ordering::Greater => return (self.len, false),
            Ordering::Equal => {}
        }
        let head = u64::from(head(key, leaf.prefix().skip.into()));
        let first = self.slots[..self.len].partition_point(|&s| s >> 32 < head);
        if self.slots[..self.len].get(first).is_none_or(|&s| s >> 32 != head) {
            return (first, false);
        }
        self.settle(first);
        let slots = &self.slots[..self.len];
        let key_of = |slot: u64| tree.record(record(slot)).key();
        let i = first + slots[first..].partition_point(|&s| s >> 32 == head && key_of(s) < key);
        (i, slots.get(i).is_some_and(|&s| s >> 32 == head && key_of(s) == key))
    }

    /// Makes sure that slot `at` is the one that belongs there.
    #[inline]
    fn settle(&mut self, at: usize) {
        if self.settled >> at & 1 == 0 {
            let run = self.mem.tree.settle(&mut self.slots[..self.len], at, record);
            run.for_each(|i| self.settled |= 1 << i);
        }
    }

    /// Onto the newest version of slot `at`, or of the first one of the next leaf.
    fn forward(&mut self, at: usize) {
        self.at = at;
        self.stand = None;
        if at < self.len {
            self.settle(at);
            self.stand = Some(record(self.slots[at]));
            // Records of neighbours lie anywhere: fetch the ones to come early.
            if let Some(&ahead) = self.slots[..self.len].get(at + AHEAD) {
                prefetch(self.mem.tree.record(record(ahead)).address());
            }
        } else if let Some(high) = self.fences.high.filter(|_| self.len > 0) {
            let mem = self.mem.clone();
            let (first, _) = self.load(Toward::At(mem.tree.record(high).key()));
            self.at = first;
            self.stand = self.slots[..self.len].get(first).map(|&s| record(s));
        }
    }

    /// Onto the oldest version of the slot before `at`, or of the last one of the leaf before.
    fn backward(&mut self, at: usize) {
        self.stand = None;
        let mut before = at;
        if let Some(low) = self.fences.low.filter(|_| at == 0) {
            let mem = self.mem.clone();
            (before, _) = self.load(Toward::Before(mem.tree.record(low).key()));
        }
        if let Some(i) = before.checked_sub(1) {
            self.settle(i);
            let newest = record(self.slots[i]);
            self.at = i;
            self.stand = Some(self.mem.tree.record(newest).chain().map_or(newest, |chain| chain.oldest));
        }
    }
}

fn record(slot: u64) -> Ref {
    Ref::from_u32(slot as u32)
}

impl Cursor for MemCursor {
    fn seek_first(&mut self) -> Result<()> {
        self.load(Toward::First);
        self.forward(0);
        Ok(())
    }

    fn seek_last(&mut self) -> Result<()> {
        self.load(Toward::Last);
        if self.len > 0 {
            self.backward(self.len);
        }
        Ok(())
    }

    fn seek(&mut self, key: &[u8], trailer: Trailer) -> Result<()> {
        let (i, same) = self.load(Toward::At(key));
        if same {
            let tree = &self.mem.tree;
            let newest = record(self.slots[i]);
            if let Some((r, _)) = tree.version((newest, tree.record(newest)), trailer) {
                (self.at, self.stand) = (i, Some(r));
                return Ok(());
            }
        }
        self.forward(i + usize::from(same));
        Ok(())
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        let (i, _) = self.load(Toward::Before(key));
        if self.len > 0 {
            self.backward(i);
        }
        Ok(())
    }

    fn next(&mut self) -> Result<()> {
        let Some(record) = self.record() else { return Ok(()) };
        match record.chain() {
            Some(chain) => self.stand = Some(chain.older),
            None => self.forward(self.at + 1),
        }
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        let Some(stand) = self.stand else { return Ok(()) };
        match self.mem.tree.newer(record(self.slots[self.at]), stand) {
            Some(newer) => self.stand = Some(newer),
            None => self.backward(self.at),
        }
        Ok(())
    }

    #[inline]
    fn valid(&self) -> bool {
        self.stand.is_some()
    }

    #[inline]
    fn key(&self) -> &[u8] {
        self.record().map_or(&[], |r| r.key())
    }

    #[inline]
    fn trailer(&self) -> Trailer {
        self.record().map_or(Trailer::newest(Seq::ZERO), |r| r.trailer())
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.record().map_or(&[], |r| r.value())
    }
}
