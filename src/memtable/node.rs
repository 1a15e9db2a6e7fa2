//! The nodes of the tree, as they lie in the arena.
//!
//! A node orders its keys by *heads*: four bytes of each key, as a big-endian number, taken after a
//! prefix that all keys of the node share. `head(a) < head(b)` implies `a < b`; equal heads decide
//! nothing, and the keys themselves are compared.
//!
//! Which prefix: a node that lies between two separators holds only keys with the prefix these two
//! share; that needs no check. At the edge of the tree, and where that prefix is so short that heads
//! are equal, a node takes the prefix its present keys share: it is `open`, every key that comes is
//! checked, and a leaf is copied if one lacks the prefix.
//!
//! An inner node has a sorted part that never changes but for its child pointers, and room for a few
//! separators more, each *under* the gap of the sorted part that it divides and published by a count. A
//! child is split by adding the separator and the right half, then putting the left half in the child's
//! place. Whoever loads a child and finds the count moved since it chose may have the left half and need
//! the right one: it chooses again. A leaf's slots are written once, in the
//! order of arrival behind a sorted part, and published by its count; but a slot may come to lead to
//! a newer version of the same key.

use super::arena::{Allocator, Arena, Ref, prefetch};
use crate::sync::atomic::{AtomicPtr, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::ptr::null_mut;

/// Entries of a leaf.
pub(super) const LEAF: usize = if cfg!(loom) { 4 } else { 56 };
const WORDS: usize = LEAF.div_ceil(8);
/// Separators in the sorted part of an inner node, which has one more child.
pub(super) const FAN: usize = if cfg!(loom) { 3 } else { 23 };
/// Separators that can be added to it.
const MORE: usize = if cfg!(loom) { 2 } else { 7 };
/// Heads of an inner node are searched all at once: padded to whole vectors.
const PADDED: usize = FAN.next_multiple_of(8);

#[cfg(not(loom))]
type Cell = std::cell::UnsafeCell<u32>;
#[cfg(loom)]
type Cell = loom::cell::UnsafeCell<u32>;

/// What every node starts with.
#[repr(C)]
pub(super) struct Top {
    /// 0: a leaf.
    level: u8,
    /// Whether keys that lack the prefix may come here.
    open: bool,
    /// How many bytes of each key the heads leave out.
    skip: u16,
    /// Leaf: how many of the slots are in order, from the first on. Inner node: separators.
    fixed: u16,
    /// How many slots of a leaf, or added separators of an inner node, are published.
    count: AtomicU16,
}

#[repr(C, align(64))]
pub(super) struct Leaf {
    top: Top,
    /// A byte of each key's hash: finds an equal key without an order, all in one cache line.
    prints: [AtomicU64; WORDS],
    heads: [Cell; LEAF],
    refs: [AtomicU32; LEAF],
}

#[repr(C, align(64))]
pub(super) struct Inner {
    top: Top,
    /// A byte for each added separator: how many of the sorted ones are below it.
    under: AtomicU64,
    heads: [u32; PADDED],
    separators: [u32; FAN],
    children: [AtomicPtr<Top>; FAN + 1],
    /// The added separators: the head above, the record below.
    more: [AtomicU64; MORE],
    /// The child behind each of them.
    behind: [AtomicPtr<Top>; MORE],
}

const _: () = assert!(cfg!(loom) || size_of::<Inner>() == 512 && size_of::<Leaf>() == 512);

/// The address of a node. Null only in an empty tree's root.
pub(super) type NodePtr = *mut Top;

/// The address of a node, to be kept by the writer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept(pub NodePtr);

// SAFETY: nodes are made to be shared between threads.
unsafe impl Send for Kept {}

/// A node by its kind.
pub(super) enum Node<'a> {
    Leaf(&'a Leaf),
    Inner(&'a Inner),
}

/// A child of an inner node, by the separator it comes after.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Child {
    /// After so many separators of the sorted part, before any that was added.
    Sorted(u8),
    /// Behind this one of the added separators.
    Behind(u8),
}

/// How a node's heads are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Prefix {
    pub skip: u16,
    pub open: bool,
}

/// The node at `ptr`; `None` if it is null.
///
/// # Safety
/// `ptr` was made by [`Leaf::ptr`] or [`Inner::ptr`] of a node in an arena that outlives `'a`, and
/// reached this thread by an acquiring load of what the writer released after making it.
#[inline]
pub(super) unsafe fn node<'a>(ptr: NodePtr) -> Option<Node<'a>> {
    // SAFETY: by the caller's promise; `Top` is the first field of both kinds.
    unsafe {
        match ptr.as_ref()?.level {
            0 => Some(Node::Leaf(&*ptr.cast::<Leaf>())),
            _ => Some(Node::Inner(&*ptr.cast::<Inner>())),
        }
    }
}

/// Four bytes of `key` from `skip` on, as a number that orders like them.
#[inline]
pub(super) fn head(key: &[u8], skip: usize) -> u32 {
    match key.get(skip..).unwrap_or_default() {
        [a, b, c, d, ..] => u32::from_be_bytes([*a, *b, *c, *d]),
        [a, b, c] => u32::from_be_bytes([*a, *b, *c, 0]),
        [a, b] => u32::from_be_bytes([*a, *b, 0, 0]),
        [a] => u32::from_be_bytes([*a, 0, 0, 0]),
        [] => 0,
    }
}

/// How many bytes `a` and `b` share from the start on, as far as a node can say.
pub(super) fn shared(a: &[u8], b: &[u8]) -> u16 {
    a.iter().zip(b).take(usize::from(u16::MAX)).take_while(|(a, b)| a == b).count() as u16
}

/// The byte of a key's hash that a leaf keeps.
#[inline]
pub(super) fn print(hash: u64) -> u8 {
    hash as u8
}

/// Those of eight bytes that equal `byte`: their highest bits.
#[inline]
fn equal_bytes(bytes: u64, byte: u8) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let x = bytes ^ (ONES * u64::from(byte));
    !(((x & !(ONES << 7)) + (ONES * 0x7f)) | x) & (ONES << 7)
}

/// A slot of a leaf, or a separator.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub head: u32,
    pub record: Ref,
    pub print: u8,
}

impl Leaf {
    /// A leaf that holds `slots`, the first `sorted` of which are in order. Not published yet.
    pub fn new<'a>(
        arena: &'a Arena,
        allocator: &mut Allocator,
        prefix: Prefix,
        slots: &[Slot],
        sorted: usize,
    ) -> &'a Leaf {
        debug_assert!(sorted <= slots.len() && slots.len() <= LEAF);
        let mut words = [0u64; WORDS];
        for (i, slot) in slots.iter().enumerate() {
            words[i / 8] |= u64::from(slot.print) << (i % 8 * 8);
        }
        let at = |i: usize| slots.get(i);
        let leaf = Leaf {
            top: Top {
                level: 0,
                open: prefix.open,
                skip: prefix.skip,
                fixed: sorted as u16,
                count: AtomicU16::new(slots.len() as u16),
            },
            prints: words.map(AtomicU64::new),
            heads: std::array::from_fn(|i| Cell::new(at(i).map_or(0, |s| s.head))),
            refs: std::array::from_fn(|i| AtomicU32::new(at(i).map_or(0, |s| s.record.get()))),
        };
        let to = allocator.node::<Leaf>(arena);
        // SAFETY: the memory was just allocated for one leaf, and lives as long as the arena.
        unsafe {
            to.write(leaf);
            to.as_ref()
        }
    }

    #[inline]
    pub fn ptr(&self) -> NodePtr {
        std::ptr::from_ref(self).cast_mut().cast()
    }

    #[inline]
    pub fn prefix(&self) -> Prefix {
        self.top.prefix()
    }

    /// How many slots are published.
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.top.count.load(Ordering::Acquire)).min(LEAF)
    }

    /// How many slots, from the first on, are in order.
    #[inline]
    pub fn sorted(&self) -> usize {
        usize::from(self.top.fixed)
    }

    /// The head of slot `i`, which is published.
    #[cfg(not(loom))]
    #[inline]
    pub fn head(&self, i: usize) -> u32 {
        // SAFETY: a published head never changes.
        unsafe { *self.heads[i].get() }
    }

    #[cfg(loom)]
    pub fn head(&self, i: usize) -> u32 {
        // SAFETY: a published head never changes; loom checks that.
        self.heads[i].with(|h| unsafe { *h })
    }

    /// The newest record of a published slot.
    #[inline]
    pub fn record(&self, i: usize) -> Ref {
        Ref::from_u32(self.refs[i].load(Ordering::Acquire))
    }

    /// Slot `i`, which is published.
    #[inline]
    pub fn slot(&self, i: usize) -> Slot {
        let print = (self.prints[i / 8].load(Ordering::Relaxed) >> (i % 8 * 8)) as u8;
        Slot { head: self.head(i), record: self.record(i), print }
    }

    /// Fetches the references ahead of a lookup: the one of a match is needed next.
    #[inline]
    pub fn fetch_refs(&self) {
        self.refs.chunks(64 / size_of::<u32>()).for_each(|line| prefetch(line.as_ptr()));
    }

    /// Fetches what the next [`Leaf::push`] writes.
    #[inline]
    pub fn fetch_next(&self) {
        let n = self.len().min(LEAF - 1);
        prefetch(&raw const self.heads[n]);
        prefetch(&raw const self.refs[n]);
    }

    /// Calls `found` with each of the first `len` slots that has this print and head, until it
    /// answers something.
    #[inline]
    pub fn find<T>(
        &self,
        len: usize,
        slot: (u8, u32),
        mut found: impl FnMut(usize) -> Option<T>,
    ) -> Option<T> {
        let (print, head) = slot;
        for (w, word) in self.prints.iter().enumerate().take(len.div_ceil(8)) {
            let mut equal = equal_bytes(word.load(Ordering::Relaxed), print);
            while equal != 0 {
                let i = w * 8 + equal.trailing_zeros() as usize / 8;
                equal &= equal - 1;
                if i < len
                    && self.head(i) == head
                    && let Some(t) = found(i)
                {
                    return Some(t);
                }
            }
        }
        None
    }

    /// Puts the first `len` slots into `out` in the order of their heads: the head above, what `low`
    /// says below. Equal heads are not ordered any further.
    #[inline]
    pub fn order(&self, len: usize, low: impl Fn(usize) -> u32, out: &mut [u64; LEAF]) {
        // Compared as signed numbers, which vector code can do on every processor.
        let mut heads = [0i32; LEAF];
        for (i, head) in heads[..len].iter_mut().enumerate() {
            *head = (self.head(i) ^ 1 << 31).cast_signed();
        }
        let word = |i: usize| u64::from(heads[i].cast_unsigned() ^ 1 << 31) << 32 | u64::from(low(i));
        let mut sorted = self.sorted().min(len);
        while sorted < len && (sorted == 0 || heads[sorted - 1] <= heads[sorted]) {
            sorted += 1;
        }
        // Where a slot behind the sorted ones belongs is the number of smaller heads: more
        // comparisons than a sort needs, but without a branch that could be guessed wrongly.
        let mut free = u64::MAX;
        for first in (sorted..len).step_by(8) {
            let mut eight = [i32::MAX; 8];
            let n = eight.len().min(len - first);
            eight[..n].copy_from_slice(&heads[first..first + n]);
            let mut below = [0u32; 8];
            for &head in &heads[..len] {
                below.iter_mut().zip(&eight).for_each(|(below, h)| *below += u32::from(head < *h));
            }
            for (i, &below) in below[..n].iter().enumerate() {
                let place = (free >> below).trailing_zeros() + below;
                out[place as usize] = word(first + i);
                free &= !(1 << place);
            }
        }
        // The sorted ones fill the rest.
        for i in 0..sorted {
            out[free.trailing_zeros() as usize] = word(i);
            free &= free - 1;
        }
    }

    /// Adds a slot to a leaf that has room, and publishes it. Having the allocator shows that this is
    /// the one writer.
    #[inline]
    pub fn push(&self, _writer: &mut Allocator, slot: Slot) {
        let n = self.len();
        let Slot { head, record, print } = slot;
        let word = &self.prints[n / 8];
        word.store(word.load(Ordering::Relaxed) | u64::from(print) << (n % 8 * 8), Ordering::Relaxed);
        #[cfg(not(loom))]
        // SAFETY: no reader looks at a head at or above the count, and there is one writer.
        unsafe {
            *self.heads[n].get() = head;
        }
        #[cfg(loom)]
        // SAFETY: likewise; loom checks that.
        self.heads[n].with_mut(|h| unsafe { *h = head });
        self.refs[n].store(record.get(), Ordering::Relaxed);
        self.top.count.store(n as u16 + 1, Ordering::Release);
    }

    /// Puts a newer version of the same key into a slot.
    #[inline]
    pub fn supersede(&self, i: usize, record: Ref) {
        self.refs[i].store(record.get(), Ordering::Release);
    }
}

impl Inner {
    /// An inner node. Not published yet.
    pub fn new<'a>(
        arena: &'a Arena,
        allocator: &mut Allocator,
        level: u8,
        prefix: Prefix,
        separators: &[Slot],
        children: &[NodePtr],
    ) -> &'a Inner {
        debug_assert!(separators.len() <= FAN && children.len() == separators.len() + 1 && level > 0);
        let at = |i: usize| separators.get(i);
        let inner = Inner {
            top: Top {
                level,
                open: prefix.open,
                skip: prefix.skip,
                fixed: separators.len() as u16,
                count: AtomicU16::new(0),
            },
            under: AtomicU64::new(0),
            // Padding counts as greater than all.
            heads: std::array::from_fn(|i| at(i).map_or(u32::MAX, |s| s.head)),
            separators: std::array::from_fn(|i| at(i).map_or(0, |s| s.record.get())),
            children: std::array::from_fn(|i| AtomicPtr::new(children.get(i).copied().unwrap_or(null_mut()))),
            more: std::array::from_fn(|_| AtomicU64::new(0)),
            behind: std::array::from_fn(|_| AtomicPtr::new(null_mut())),
        };
        let to = allocator.node::<Inner>(arena);
        // SAFETY: the memory was just allocated for one inner node, and lives as long as the arena.
        unsafe {
            to.write(inner);
            to.as_ref()
        }
    }

    #[inline]
    pub fn ptr(&self) -> NodePtr {
        std::ptr::from_ref(self).cast_mut().cast()
    }

    #[inline]
    pub fn prefix(&self) -> Prefix {
        self.top.prefix()
    }

    /// How many separators the sorted part has.
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.top.fixed)
    }

    /// How many separators have been added.
    #[inline]
    pub fn added(&self) -> usize {
        usize::from(self.top.count.load(Ordering::Acquire)).min(MORE)
    }

    /// How many heads of the sorted part are less than `head`, and how many are not greater.
    #[inline]
    pub fn search(&self, head: u32) -> (usize, usize) {
        let below = self.heads.iter().map(|&h| u32::from(h < head)).sum::<u32>() as usize;
        let equal = self.heads.iter().skip(below).take_while(|&&h| h == head).count();
        (below, (below + equal).min(self.len()))
    }

    /// Those of the first `added` separators that divide `gap` of the sorted part, in no order: the child
    /// behind each, and the separator with its head.
    #[inline]
    pub fn within(&self, gap: usize, added: usize) -> impl Iterator<Item = (Child, Slot)> {
        const { assert!(MORE < 8) };
        let mut within =
            equal_bytes(self.under.load(Ordering::Relaxed), gap as u8) & ((1 << (added * 8)) - 1);
        std::iter::from_fn(move || {
            let i = (within != 0).then(|| within.trailing_zeros() / 8)?;
            within &= within - 1;
            Some((Child::Behind(i as u8), self.more(i as usize)))
        })
    }

    fn more(&self, i: usize) -> Slot {
        let word = self.more[i].load(Ordering::Relaxed);
        Slot { head: (word >> 32) as u32, record: Ref::from_u32(word as u32), print: 0 }
    }

    /// Separator `i` of the sorted part.
    #[inline]
    pub fn separator(&self, i: usize) -> Ref {
        Ref::from_u32(self.separators[i])
    }

    /// The gap of the sorted part that a child lies in, and its lower separator if that was added.
    #[inline]
    pub fn place(&self, child: Child) -> (usize, Option<Slot>) {
        match child {
            Child::Sorted(i) => (i.into(), None),
            Child::Behind(i) => {
                let under = self.under.load(Ordering::Relaxed) >> (i * 8);
                ((under as u8).into(), Some(self.more(i.into())))
            }
        }
    }

    #[inline]
    fn pointer(&self, child: Child) -> &AtomicPtr<Top> {
        match child {
            Child::Sorted(i) => &self.children[usize::from(i)],
            Child::Behind(i) => &self.behind[usize::from(i)],
        }
    }

    #[inline]
    pub fn child(&self, child: Child) -> NodePtr {
        self.pointer(child).load(Ordering::Acquire)
    }

    /// Puts a copy of a child, or what is left of it, in its place. Only for the writer.
    pub fn replace(&self, child: Child, by: NodePtr) {
        self.pointer(child).store(by, Ordering::Release);
    }

    /// Adds a separator within `gap` of the sorted part, and the child behind it. Answers whether there was
    /// room. Having the allocator shows that this is the one writer.
    pub fn add(&self, _writer: &mut Allocator, gap: usize, separator: Slot, behind: NodePtr) -> bool {
        let n = self.added();
        if n == MORE {
            return false;
        }
        let Slot { head, record, .. } = separator;
        self.more[n].store(u64::from(head) << 32 | u64::from(record.get()), Ordering::Relaxed);
        self.behind[n].store(behind, Ordering::Release);
        let under = self.under.load(Ordering::Relaxed);
        self.under.store(under | (gap as u64) << (n * 8), Ordering::Relaxed);
        self.top.count.store(n as u16 + 1, Ordering::Release);
        true
    }

    /// The separators with their heads, and the children. `before` says which of two separators that were
    /// added comes first.
    pub fn parts(&self, before: impl Fn(Slot, Slot) -> std::cmp::Ordering) -> (Vec<Slot>, Vec<NodePtr>) {
        let (mut separators, mut children) = (Vec::with_capacity(FAN + MORE + 1), Vec::new());
        for gap in 0..=self.len() {
            children.push(self.child(Child::Sorted(gap as u8)));
            let mut within: Vec<(Child, Slot)> = self.within(gap, self.added()).collect();
            within.sort_unstable_by(|a, b| before(a.1, b.1));
            separators.extend(within.iter().map(|(_, separator)| *separator));
            children.extend(within.iter().map(|(child, _)| self.child(*child)));
            if gap < self.len() {
                separators.push(Slot { head: self.heads[gap], record: self.separator(gap), print: 0 });
            }
        }
        (separators, children)
    }
}

impl Top {
    #[inline]
    fn prefix(&self) -> Prefix {
        Prefix { skip: self.skip, open: self.open }
    }
}
