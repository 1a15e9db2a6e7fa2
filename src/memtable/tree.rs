//! Reading the tree: descent, lookup in a leaf, versions of a key.
//!
//! A reader descends from the root through child pointers, each loaded once, and never waits or
//! tries again. What it meets may be replaced by the writer meanwhile; nodes that were replaced stay
//! as they were, so it finds at least what had been published when it started.

use super::arena::{Allocator, Arena, Pool, RawRecord, Record, Ref};
use super::node::{Child, Inner, Leaf, Node, NodePtr, Slot, Top, head, node, print};
use crate::key::Trailer;
use crate::sync::atomic::{AtomicPtr, Ordering as Memory};
use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

/// The tree of one memtable, shared by its writer and its readers.
#[repr(align(64))]
pub(super) struct Tree {
    pub(super) arena: Arena,
    root: AtomicPtr<Top>,
}

/// Where a descent goes.
#[derive(Clone, Copy)]
pub(super) enum Toward<'k> {
    First,
    Last,
    /// To the leaf whose range holds the key.
    At(&'k [u8]),
    /// To the leaf that holds the last entry before the key.
    Before(&'k [u8]),
}

/// The separators a leaf lies between; `None` at the edges of the tree. The lower one is the first
/// key of the leaf.
#[derive(Clone, Copy, Default)]
pub(super) struct Fences {
    pub low: Option<Ref>,
    pub high: Option<Ref>,
}

impl Tree {
    pub fn new(pool: Option<Arc<Pool>>) -> (Tree, Allocator) {
        let (arena, allocator) = Arena::new(pool);
        (Tree { arena, root: AtomicPtr::new(std::ptr::null_mut()) }, allocator)
    }

    #[inline]
    pub fn root(&self) -> NodePtr {
        self.root.load(Memory::Acquire)
    }

    /// Publishes a new root. Only for the writer.
    pub fn set_root(&self, root: NodePtr) {
        self.root.store(root, Memory::Release);
    }

    /// The record at `r`, which a node or a record of this tree named.
    #[inline]
    pub fn record(&self, r: Ref) -> Record<'_> {
        // SAFETY: references come from this tree's nodes and records only (nothing hands them from
        // one tree to another), and those were reached by acquiring loads.
        unsafe { self.arena.record(r) }
    }

    /// A record of this tree, which was kept without the borrow.
    #[inline]
    pub fn held(&self, raw: RawRecord) -> Record<'_> {
        // SAFETY: records live as long as the tree; as above, nothing goes from one to another.
        unsafe { raw.record() }
    }

    /// The node at `ptr`, which is or was this tree's root or a child in it.
    #[inline]
    pub fn node(&self, ptr: NodePtr) -> Option<Node<'_>> {
        // SAFETY: the root and all children point to nodes of this tree's arena, released when they
        // were stored and acquired when they were loaded.
        unsafe { node(ptr) }
    }

    /// One step down from `inner`: the child where `toward` leads, out of how many added separators it was
    /// chosen, and where it is.
    #[inline]
    fn enter(&self, inner: &Inner, toward: Toward<'_>) -> (Child, usize, NodePtr) {
        let mut added = inner.added();
        loop {
            let child = match toward {
                Toward::First => Child::Sorted(0),
                Toward::Last => self.last(inner, added),
                Toward::At(key) => self.pick(inner, added, key, false),
                Toward::Before(key) => self.pick(inner, added, key, true),
            };
            let at = inner.child(child);
            // If the child was split meanwhile, and this is what is left of it, the separator is seen here:
            // it was added before. That happens as often as there is room for one.
            match inner.added() {
                same if same == added => return (child, added, at),
                more => added = more,
            }
        }
    }

    /// The separator in the middle of the root, if that is an inner node.
    pub fn middle(&self) -> Option<Ref> {
        match self.node(self.root())? {
            Node::Inner(inner) if inner.len() > 0 => Some(inner.separator(inner.len() / 2)),
            _ => None,
        }
    }

    /// The leaf in whose range `key` lies. `None` while the tree is empty.
    #[inline]
    pub fn leaf(&self, key: &[u8]) -> Option<&Leaf> {
        let mut at = self.root();
        loop {
            match self.node(at)? {
                Node::Leaf(leaf) => return Some(leaf),
                Node::Inner(inner) => (_, _, at) = self.enter(inner, Toward::At(key)),
            }
        }
    }

    /// The leaf where `toward` leads, and what it lies between.
    pub fn find_leaf(&self, toward: Toward<'_>) -> Option<(&Leaf, Fences)> {
        let mut fences = Fences::default();
        let mut at = self.root();
        loop {
            match self.node(at)? {
                Node::Leaf(leaf) => return Some((leaf, fences)),
                Node::Inner(inner) => {
                    let (child, added, below) = self.enter(inner, toward);
                    self.narrow(&mut fences, inner, added, child);
                    at = below;
                }
            }
        }
    }

    /// The inner nodes from the root down to `key`'s leaf, each with the child taken, and the leaf. Only for
    /// the writer.
    pub fn path(&self, key: &[u8]) -> Option<(Vec<(&Inner, Child)>, &Leaf)> {
        let mut path = Vec::with_capacity(8);
        let mut at = self.root();
        loop {
            match self.node(at)? {
                Node::Leaf(leaf) => return Some((path, leaf)),
                Node::Inner(inner) => {
                    let (child, _, below) = self.enter(inner, Toward::At(key));
                    path.push((inner, child));
                    at = below;
                }
            }
        }
    }

    /// Narrows the fences to those of a child.
    pub fn narrow(&self, fences: &mut Fences, inner: &Inner, added: usize, child: Child) {
        let (gap, low) = inner.place(child);
        if let Some(low) = low {
            fences.low = Some(low.record);
        } else if gap > 0 {
            fences.low = Some(inner.separator(gap - 1));
        }
        let above = |separator: &Slot| low.is_none_or(|low| self.order(low, *separator) == Ordering::Less);
        let next = inner.within(gap, added).map(|(_, separator)| separator).filter(above);
        if let Some(high) = next.min_by(|a, b| self.order(*a, *b)) {
            fences.high = Some(high.record);
        } else if gap < inner.len() {
            fences.high = Some(inner.separator(gap));
        }
    }

    /// The order of two separators of one node.
    pub fn order(&self, a: Slot, b: Slot) -> Ordering {
        a.head.cmp(&b.head).then_with(|| self.record(a.record).key().cmp(self.record(b.record).key()))
    }

    /// The last child of `inner`.
    #[inline]
    pub fn last(&self, inner: &Inner, added: usize) -> Child {
        let gap = inner.len();
        let last = inner.within(gap, added).max_by(|a, b| self.order(a.1, b.1));
        last.map_or(Child::Sorted(gap as u8), |(child, _)| child)
    }

    /// Which child of `inner` holds `key`: the one behind the last separator at or below it, or,
    /// `before` it, strictly below.
    #[inline]
    fn pick(&self, inner: &Inner, added: usize, key: &[u8], before: bool) -> Child {
        let prefix = inner.prefix();
        let skip = usize::from(prefix.skip);
        if prefix.open {
            match self.compare_prefix(key, inner.separator(0), skip) {
                Ordering::Less => return Child::Sorted(0),
                Ordering::Greater => return self.last(inner, added),
                Ordering::Equal => {}
            }
        }
        let head = head(key, skip);
        let below = |separator: Ref| {
            let order = self.record(separator).key().cmp(key);
            order == Ordering::Less || order == Ordering::Equal && !before
        };
        let (mut low, mut high) = inner.search(head);
        while low < high {
            let middle = (low + high) / 2;
            if below(inner.separator(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let mut best: Option<(Child, Slot)> = None;
        for (child, separator) in inner.within(low, added) {
            if (separator.head < head || separator.head == head && below(separator.record))
                && best.is_none_or(|(_, best)| self.order(best, separator) == Ordering::Less)
            {
                best = Some((child, separator));
            }
        }
        best.map_or(Child::Sorted(low as u8), |(child, _)| child)
    }

    /// Whether a separator may be added to `inner` as it is: whether it has the prefix.
    pub fn takes(&self, inner: &Inner, separator: Ref) -> bool {
        let prefix = inner.prefix();
        let key = self.record(separator).key();
        !prefix.open || self.compare_prefix(key, inner.separator(0), prefix.skip.into()) == Ordering::Equal
    }

    /// How `key` compares to the first `skip` bytes of a record's key: equal if it starts with them.
    #[inline]
    fn compare_prefix(&self, key: &[u8], with: Ref, skip: usize) -> Ordering {
        let prefix = self.record(with).key();
        key[..key.len().min(skip)].cmp(&prefix[..skip.min(prefix.len())])
    }

    /// How `key` compares to the prefix of a leaf's keys.
    #[inline]
    pub fn compare_leaf(&self, leaf: &Leaf, key: &[u8]) -> Ordering {
        let prefix = leaf.prefix();
        if !prefix.open || prefix.skip == 0 {
            return Ordering::Equal;
        }
        self.compare_prefix(key, leaf.record(0), usize::from(prefix.skip))
    }

    /// The slot of `key` in its leaf, and the newest version of it.
    #[inline]
    pub fn find<'a>(&'a self, leaf: &Leaf, key: &[u8], hash: u64) -> Option<(usize, Ref, Record<'a>)> {
        // A key that lacks the leaf's prefix is not in it, whatever its head: the full key decides.
        let head = head(key, usize::from(leaf.prefix().skip));
        leaf.find(leaf.len(), (print(hash), head), |i| {
            let r = leaf.record(i);
            let record = self.record(r);
            (record.key() == key).then_some((i, r, record))
        })
    }

    /// The newest version of `key`.
    #[inline]
    pub fn newest(&self, key: &[u8], hash: u64) -> Option<Record<'_>> {
        let leaf = self.leaf(key)?;
        leaf.fetch_refs();
        let (_, _, record) = self.find(leaf, key, hash)?;
        Some(record)
    }

    /// The newest version at or below `trailer`, of the key whose newest version is given.
    #[inline]
    pub fn version<'a>(&'a self, newest: Record<'a>, trailer: Trailer) -> Option<Record<'a>> {
        let mut at = newest;
        while at.trailer() > trailer {
            let chain = at.chain()?;
            let jump = self.record(chain.jump);
            at = if jump.trailer() > trailer { jump } else { self.record(chain.older) };
        }
        Some(at)
    }

    /// The oldest version above `trailer`, of the key whose newest version is given.
    pub fn newer<'a>(&'a self, newest: Record<'a>, trailer: Trailer) -> Option<Record<'a>> {
        let mut at = newest;
        if at.trailer() <= trailer {
            return None;
        }
        while let Some(chain) = at.chain() {
            let (jump, older) = (self.record(chain.jump), self.record(chain.older));
            if older.trailer() <= trailer {
                break;
            }
            at = if jump.trailer() > trailer { jump } else { older };
        }
        Some(at)
    }

    /// Puts those of `slots` that have the same head as slot `at` in key order; the heads, in the
    /// upper halves, are in order already. `of` says where a slot's record is. Answers which they are.
    pub fn settle(&self, slots: &mut [u64], at: usize, of: impl Fn(u64) -> Ref) -> Range<usize> {
        let same = |slot: &&u64| **slot >> 32 == slots[at] >> 32;
        let start = at - slots[..at].iter().rev().take_while(same).count();
        let end = at + slots[at..].iter().take_while(same).count();
        if end - start > 1 {
            let key = |slot: u64| self.record(of(slot)).key();
            slots[start..end].sort_unstable_by(|a, b| key(*a).cmp(key(*b)));
        }
        start..end
    }
}
