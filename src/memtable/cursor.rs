//! The cursor over a memtable: the slots of one leaf at a time, in order.

use super::Memtable;
use super::arena::{RawRecord, Record, Ref, prefetch};
use super::node::{LEAF, head};
use super::tree::{Fences, Toward, Tree};
use crate::cursor::Cursor;
use crate::error::Result;
use crate::ids::Seq;
use crate::key::Trailer;
use std::cmp::Ordering;
use std::sync::Arc;

/// How many entries before its turn a record is fetched.
const AHEAD: usize = 6;

/// A cursor that owns its share of the memtable. Sees at least what was inserted before its last
/// seek, and each entry at most once in one direction.
pub(crate) struct MemCursor {
    mem: Arc<Memtable>,
    leaf: View,
    /// The slot the cursor stands in, and the version it stands on.
    at: usize,
    stand: Option<RawRecord>,
    repeats: bool,
}

/// A leaf as it was when the cursor came.
struct View {
    /// In order: heads above, references below.
    slots: [u64; LEAF],
    len: usize,
    /// Which slots are known to be where they belong: those with equal heads are put in order when
    /// the cursor comes to them.
    settled: u64,
    /// The leaf's place in the tree.
    fences: Fences,
}

impl View {
    /// Goes to the leaf where `toward` leads. Answers how many of its entries lie before the key of
    /// `toward`, and whether the next one is that key.
    fn load(&mut self, tree: &Tree, toward: Toward<'_>) -> (usize, bool) {
        self.len = 0;
        self.settled = 0;
        let Some((leaf, fences)) = tree.find_leaf(toward) else { return (0, false) };
        self.fences = fences;
        self.len = leaf.len();
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
        self.settle(tree, first);
        let slots = &self.slots[..self.len];
        let key_of = |slot: u64| tree.record(record(slot)).key();
        let i = first + slots[first..].partition_point(|&s| s >> 32 == head && key_of(s) < key);
        (i, slots.get(i).is_some_and(|&s| s >> 32 == head && key_of(s) == key))
    }

    /// Makes sure that slot `at` is the one that belongs there.
    #[inline]
    fn settle(&mut self, tree: &Tree, at: usize) {
        if self.settled >> at & 1 == 0 {
            let run = tree.settle(&mut self.slots[..self.len], at, record);
            run.for_each(|i| self.settled |= 1 << i);
        }
    }

    /// The newest version in slot `at`; `None` behind the last.
    #[inline]
    fn newest(&mut self, tree: &Tree, at: usize) -> Option<Ref> {
        if at >= self.len {
            return None;
        }
        self.settle(tree, at);
        Some(record(self.slots[at]))
    }

    /// Fetches the record of slot `at`, if there is one, before its turn: neighbours in order lie
    /// anywhere in memory.
    #[inline]
    fn fetch(&self, tree: &Tree, at: usize) {
        if let Some(&slot) = self.slots[..self.len].get(at) {
            prefetch(tree.record(record(slot)).address());
        }
    }
}

fn record(slot: u64) -> Ref {
    Ref::from_u32(slot as u32)
}

impl MemCursor {
    pub fn new(mem: Arc<Memtable>) -> MemCursor {
        let leaf = View { slots: [0; LEAF], len: 0, settled: 0, fences: Fences::default() };
        MemCursor { mem, leaf, at: 0, stand: None, repeats: false }
    }

    #[inline]
    fn record(&self) -> Option<Record<'_>> {
        self.stand.map(|raw| self.mem.tree.held(raw))
    }

    /// The version that stands before the one the cursor stands on, if it is of the same key.
    #[inline]
    fn newer_version(&self) -> Option<Record<'_>> {
        let tree = &self.mem.tree;
        let newest = tree.record(record(*self.leaf.slots[..self.leaf.len].get(self.at)?));
        tree.newer(newest, self.record()?.trailer())
    }

    /// Onto the newest version of slot `at`, or of the first one of the next leaf.
    fn forward(&mut self, at: usize) {
        let tree = &self.mem.tree;
        self.at = at;
        let mut newest = self.leaf.newest(tree, at);
        self.leaf.fetch(tree, at + AHEAD);
        if newest.is_none()
            && self.leaf.len > 0
            && let Some(high) = self.leaf.fences.high
        {
            (self.at, _) = self.leaf.load(tree, Toward::At(tree.record(high).key()));
            (self.at..=self.at + AHEAD).for_each(|i| self.leaf.fetch(tree, i));
            newest = self.leaf.newest(tree, self.at);
        }
        self.stand = newest.map(|r| tree.record(r).raw());
    }

    /// Onto the oldest version of the slot before `at`, or of the last one of the leaf before.
    fn backward(&mut self, at: usize) {
        let tree = &self.mem.tree;
        self.at = at;
        if at == 0
            && self.leaf.len > 0
            && let Some(low) = self.leaf.fences.low
        {
            (self.at, _) = self.leaf.load(tree, Toward::Before(tree.record(low).key()));
            (1..=AHEAD).for_each(|i| self.leaf.fetch(tree, self.at.wrapping_sub(i)));
        }
        let Some(before) = self.at.checked_sub(1) else {
            self.stand = None;
            return;
        };
        self.at = before;
        self.leaf.fetch(tree, before.wrapping_sub(AHEAD));
        let newest = self.leaf.newest(tree, before).map(|r| tree.record(r));
        self.stand = newest.map(|newest| match newest.chain() {
            Some(chain) => tree.record(chain.oldest).raw(),
            None => newest.raw(),
        });
    }
}

impl Cursor for MemCursor {
    fn seek_first(&mut self) -> Result<()> {
        self.leaf.load(&self.mem.tree, Toward::First);
        self.forward(0);
        Ok(())
    }

    fn seek_last(&mut self) -> Result<()> {
        self.leaf.load(&self.mem.tree, Toward::Last);
        self.backward(self.leaf.len);
        Ok(())
    }

    fn seek(&mut self, key: &[u8], trailer: Trailer) -> Result<()> {
        let tree = &self.mem.tree;
        let (i, same) = self.leaf.load(tree, Toward::At(key));
        let newest = self.leaf.newest(tree, i).filter(|_| same);
        if let Some(version) = newest.and_then(|r| tree.version(tree.record(r), trailer)) {
            (self.at, self.stand) = (i, Some(version.raw()));
            return Ok(());
        }
        self.forward(i + usize::from(same));
        Ok(())
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        let (i, _) = self.leaf.load(&self.mem.tree, Toward::Before(key));
        self.backward(i);
        Ok(())
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        let Some(record) = self.record() else { return Ok(()) };
        let older = record.chain().map(|chain| chain.older);
        self.repeats = older.is_some();
        match older {
            Some(older) => self.stand = Some(self.mem.tree.record(older).raw()),
            None => self.forward(self.at + 1),
        }
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        if self.stand.is_none() {
            return Ok(());
        }
        let newer = self.newer_version().map(|newer| newer.raw());
        self.repeats = newer.is_some();
        match newer {
            Some(newer) => self.stand = Some(newer),
            None => self.backward(self.at),
        }
        Ok(())
    }

    #[inline]
    fn repeats(&self) -> bool {
        self.repeats
    }

    #[inline]
    fn newer(&mut self) -> Result<Option<Trailer>> {
        Ok(self.newer_version().map(|newer| newer.trailer()))
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
