//! How the tree grows: records are added, leaves and inner nodes copied, split and linked in, and
//! published with one store each time.

use super::arena::{Allocator, Chain, Record, Ref};
use super::node::{Child, FAN, Inner, Kept, LEAF, Leaf, Node, NodePtr, Prefix, Slot, head, print, shared};
use super::tree::{Fences, Tree};
use crate::key::Trailer;
use std::cmp::Ordering;

/// The writer at work on its tree.
pub(super) struct Grower<'a> {
    pub tree: &'a Tree,
    pub allocator: &'a mut Allocator,
    pub tail: &'a mut Option<Tail>,
}

/// The last leaf of the tree, while it is known: where ascending keys go without a descent.
pub(super) struct Tail {
    leaf: Kept,
    /// The last record of the tree.
    last: Ref,
}

type Path<'a> = [(&'a Inner, Child)];

impl<'a> Grower<'a> {
    /// Adds a record and publishes it. Answers whether there was no such version of the key yet.
    pub fn insert(&mut self, key: &[u8], hash: u64, trailer: Trailer, value: &[u8]) -> bool {
        let arena = &self.tree.arena;
        loop {
            if let Some(leaf) = self.tail_for(key) {
                let r = self.allocator.record(arena, key, trailer, value, None);
                *self.tail = Some(Tail { leaf: Kept(leaf.ptr()), last: r });
                leaf.push(self.allocator, slot(key, leaf.prefix(), hash, r));
                return true;
            }
            let Some(leaf) = self.tree.leaf(key) else {
                let r = self.allocator.record(arena, key, trailer, value, None);
                let skip = key.len().saturating_sub(4).min(u16::MAX.into()) as u16;
                let leaf = self.one(Prefix { skip, open: true }, key, hash, r);
                *self.tail = Some(Tail { leaf: Kept(leaf.ptr()), last: r });
                self.tree.set_root(leaf.ptr());
                return true;
            };
            leaf.fetch_next();
            if let Some((i, newest, record)) = self.tree.find(leaf, key, hash) {
                let r = match record.trailer() < trailer {
                    true => self.version(newest, key, trailer, value),
                    false => self.weave(newest, key, trailer, value),
                };
                r.into_iter().for_each(|r| leaf.supersede(i, r));
                return r.is_some();
            }
            if leaf.len() == LEAF {
                if self.ends(leaf, key) {
                    let r = self.allocator.record(arena, key, trailer, value, None);
                    self.append(key, hash, r);
                    return true;
                }
                self.split(key);
            } else if self.tree.compare_leaf(leaf, key) != Ordering::Equal {
                self.widen(key);
            } else {
                let r = self.allocator.record(arena, key, trailer, value, None);
                leaf.push(self.allocator, slot(key, leaf.prefix(), hash, r));
                return true;
            }
        }
    }

    /// The tree's last leaf, if `key` comes after all others and can go there at once.
    #[inline]
    fn tail_for(&self, key: &[u8]) -> Option<&'a Leaf> {
        let tail = self.tail.as_ref().filter(|tail| self.key(tail.last) < key)?;
        let Some(Node::Leaf(leaf)) = self.tree.node(tail.leaf.0) else { return None };
        (leaf.len() < LEAF && self.tree.compare_leaf(leaf, key) == Ordering::Equal).then_some(leaf)
    }

    /// A leaf of one entry.
    fn one(&mut self, prefix: Prefix, key: &[u8], hash: u64, r: Ref) -> &'a Leaf {
        Leaf::new(&self.tree.arena, self.allocator, prefix, &[slot(key, prefix, hash, r)], 1)
    }

    /// Makes a version newer than `older`, the newest so far.
    fn version(&mut self, older: Ref, key: &[u8], trailer: Trailer, value: &[u8]) -> Option<Ref> {
        let chain = self.chain(older);
        Some(self.allocator.record(&self.tree.arena, key, trailer, value, Some(chain)))
    }

    /// Makes a version that comes late, and newer ones above it anew. `None` if it is there already.
    #[cold]
    fn weave(&mut self, newest: Ref, key: &[u8], trailer: Trailer, value: &[u8]) -> Option<Ref> {
        let mut newer: Vec<Record<'a>> = Vec::new();
        let mut below = Some(newest);
        while let Some(r) = below {
            let record = self.tree.record(r);
            match record.trailer().cmp(&trailer) {
                Ordering::Less => break,
                Ordering::Equal => return None,
                Ordering::Greater => newer.push(record),
            }
            below = record.chain().map(|chain| chain.older);
        }
        let anew = newer.iter().rev().map(|record| (record.trailer(), record.value()));
        for (trailer, value) in std::iter::once((trailer, value)).chain(anew) {
            let chain = below.map(|older| self.chain(older));
            below = Some(self.allocator.record(&self.tree.arena, key, trailer, value, chain));
        }
        below
    }

    /// What leads from a new version to the older ones.
    fn chain(&self, older: Ref) -> Chain {
        let Some(old) = self.tree.record(older).chain() else {
            return Chain { older, jump: older, depth: 1, oldest: older };
        };
        let depth = old.depth + 1;
        // The jump leads to the version before, or to where that one's jump's jump leads.
        let jump = match stride(depth) {
            1 => older,
            _ => self.tree.record(old.jump).chain().map_or(old.jump, |chain| chain.jump),
        };
        Chain { older, jump, depth, oldest: old.oldest }
    }

    /// Whether a full leaf seems to be filled in ascending order, and `key` goes on with that.
    fn ends(&self, leaf: &Leaf, key: &[u8]) -> bool {
        let last = leaf.head(LEAF - 1);
        (1..LEAF).all(|i| leaf.head(i - 1) <= leaf.head(i))
            && (0..LEAF)
                .rev()
                .take_while(|&i| leaf.head(i) == last)
                .all(|i| self.tree.record(leaf.record(i)).key() < key)
    }

    fn key(&self, r: Ref) -> &'a [u8] {
        self.tree.record(r).key()
    }

    /// Settles on a prefix for a node between `fences` that will hold `slots`, which are in order
    /// and have heads behind the prefix `old`, if any; gives them heads behind the new one.
    fn settle(&self, slots: &mut [Slot], fences: Fences, old: Option<Prefix>) -> Prefix {
        let (first, last) = (self.key(slots[0].record), self.key(slots[slots.len() - 1].record));
        let open = Prefix { skip: shared(first, last), open: true };
        let (Some(low), Some(high)) = (fences.low, fences.high) else {
            self.rehead(slots, old, open);
            return open;
        };
        let closed = Prefix { skip: shared(self.key(low), self.key(high)), open: false };
        self.rehead(slots, old, closed);
        // A check of each key that comes pays if heads can tell more keys apart then.
        if open.skip <= closed.skip || slots.windows(2).all(|w| w[0].head < w[1].head) {
            return closed;
        }
        self.rehead(slots, Some(closed), open);
        open
    }

    /// Takes the heads of `slots` anew where the prefix is another.
    fn rehead(&self, slots: &mut [Slot], old: Option<Prefix>, new: Prefix) {
        if old.is_some_and(|old| old.skip == new.skip) {
            return;
        }
        for slot in &mut *slots {
            slot.head = head(self.key(slot.record), new.skip.into());
        }
        if old.is_some_and(|old| old.skip < new.skip) {
            // What had equal heads, in whatever order, may have others now.
            slots.sort_by_key(|slot| slot.head);
        }
    }

    /// Splits `key`'s leaf.
    fn split(&mut self, key: &[u8]) {
        let Some((path, leaf)) = self.tree.path(key) else { return };
        self.tail.take_if(|tail| tail.leaf == Kept(leaf.ptr()));
        let mut order = [0; LEAF];
        leaf.order(LEAF, |i| i as u32, &mut order);
        let cut = cut(&order);
        // Which of those with equal heads comes first matters only for the separator, and for the
        // first key of all: a prefix it lacks (because it ends) is no prefix of the node.
        for at in [0, cut] {
            self.tree.settle(&mut order, at, |slot| leaf.record(slot as u32 as usize));
        }
        let mut slots: Vec<Slot> = order.iter().map(|&w| leaf.slot(w as u32 as usize)).collect();
        let (left, right) = slots.split_at_mut(cut);
        let separator = right[0].record;
        let fences = self.fences(&path);
        let left = self.half(left, Fences { high: Some(separator), ..fences }, leaf.prefix());
        let right = self.half(right, Fences { low: Some(separator), ..fences }, leaf.prefix());
        self.link(&path, left.ptr(), separator, right.ptr(), 1);
    }

    fn half(&mut self, slots: &mut [Slot], fences: Fences, old: Prefix) -> &'a Leaf {
        let prefix = self.settle(slots, fences, Some(old));
        Leaf::new(&self.tree.arena, self.allocator, prefix, slots, slots.len())
    }

    /// Puts a record behind `key`'s full leaf, as the first of a new one.
    fn append(&mut self, key: &[u8], hash: u64, r: Ref) {
        let Some((path, leaf)) = self.tree.path(key) else { return };
        // As many keys to come share with this one what it shares with as many before; where those
        // begin with the end of another stream, what it shares with the last ones, but for a digit.
        let whole = shared(self.key(leaf.record(0)), key);
        let near = shared(self.key(leaf.record(LEAF - 1 - LEAF / 8)), key).saturating_sub(1);
        let right = self.one(Prefix { skip: whole.max(near), open: true }, key, hash, r);
        if self.fences(&path).high.is_none() {
            *self.tail = Some(Tail { leaf: Kept(right.ptr()), last: r });
        }
        self.link(&path, leaf.ptr(), r, right.ptr(), 1);
    }

    /// Copies `key`'s leaf so that its prefix is one that `key` has too.
    fn widen(&mut self, key: &[u8]) {
        let Some((path, leaf)) = self.tree.path(key) else { return };
        let old = leaf.prefix();
        let skip = old.skip.min(shared(self.key(leaf.record(0)), key));
        let prefix = Prefix { skip, ..old };
        let mut slots: Vec<Slot> = (0..leaf.len()).map(|i| leaf.slot(i)).collect();
        self.rehead(&mut slots, Some(old), prefix);
        let copy = Leaf::new(&self.tree.arena, self.allocator, prefix, &slots, leaf.sorted());
        if let Some(tail) = self.tail.as_mut().filter(|tail| tail.leaf == Kept(leaf.ptr())) {
            tail.leaf = Kept(copy.ptr());
        }
        self.replace(&path, copy.ptr());
    }

    /// Publishes a copy in the place that `path` leads to.
    fn replace(&self, path: &Path<'a>, copy: NodePtr) {
        match path.last() {
            None => self.tree.set_root(copy),
            Some((parent, i)) => parent.replace(*i, copy),
        }
    }

    /// Publishes two nodes in the place of the one that `path` leads to. The left one may be that
    /// node itself. `level` is that of their parent.
    fn link(&mut self, path: &Path<'a>, left: NodePtr, separator: Ref, right: NodePtr, level: u8) {
        let Some(((parent, i), above)) = path.split_last() else {
            let slots = &mut [Slot { head: 0, record: separator, print: 0 }];
            let root = self.inner(level, slots, &[left, right], Fences::default(), None);
            return self.tree.set_root(root.ptr());
        };
        let head = head(self.tree.record(separator).key(), parent.prefix().skip.into());
        let slot = Slot { head, record: separator, print: 0 };
        let (gap, _) = parent.place(*i);
        let split = parent.child(*i);
        if self.tree.takes(parent, separator) && parent.add(self.allocator, gap, slot, right) {
            if split != left {
                parent.replace(*i, left);
            }
            return;
        }
        let (mut slots, mut children) = parent.parts(|a, b| self.tree.order(a, b));
        if slots.len() >= FAN && split == left && *i == self.tree.last(parent, parent.added()) {
            // An ascending stream: the parent stays as it is, and a new one begins.
            let next = self.inner(level, &mut [], &[right], Fences::default(), None);
            return self.link(above, parent.ptr(), separator, next.ptr(), level + 1);
        }
        let at = children.iter().position(|&child| child == split).unwrap_or(slots.len());
        slots.insert(at, slot);
        children[at] = left;
        children.insert(at + 1, right);
        let fences = self.fences(above);
        let old = Some(parent.prefix());
        if slots.len() <= FAN {
            let copy = self.inner(level, &mut slots, &children, fences, old);
            return self.replace(above, copy.ptr());
        }
        let middle = slots.len() / 2;
        let up = slots[middle].record;
        let (low, high) = (Fences { high: Some(up), ..fences }, Fences { low: Some(up), ..fences });
        let left = self.inner(level, &mut slots[..middle], &children[..=middle], low, old);
        let right = self.inner(level, &mut slots[middle + 1..], &children[middle + 1..], high, old);
        self.link(above, left.ptr(), up, right.ptr(), level + 1);
    }

    /// What the node lies between that `path` leads to.
    fn fences(&self, path: &Path<'_>) -> Fences {
        let mut fences = Fences::default();
        path.iter().for_each(|(inner, i)| self.tree.narrow(&mut fences, inner, inner.added(), *i));
        fences
    }

    /// An inner node whose heads were taken behind the prefix `old`, or must be taken anew.
    fn inner(
        &mut self,
        level: u8,
        slots: &mut [Slot],
        children: &[NodePtr],
        fences: Fences,
        old: Option<Prefix>,
    ) -> &'a Inner {
        let prefix = match slots.is_empty() {
            true => Prefix { skip: 0, open: false },
            false => self.settle(slots, fences, old),
        };
        Inner::new(&self.tree.arena, self.allocator, level, prefix, slots, children)
    }
}

fn slot(key: &[u8], prefix: Prefix, hash: u64, record: Ref) -> Slot {
    Slot { head: head(key, prefix.skip.into()), record, print: print(hash) }
}

/// Where to cut slots in two: near the middle, where the heads differ earliest, so that both halves
/// share long prefixes.
fn cut(order: &[u64]) -> usize {
    let middle = order.len() / 2;
    let window = order.len() / 6;
    let same = |i: usize| ((order[i - 1] ^ order[i]) >> 32 << 32).leading_zeros() / 8;
    let near = |i: &usize| (same(*i), i.abs_diff(middle));
    (middle - window..=middle + window).filter(|&i| i > 0).min_by_key(near).unwrap_or(middle)
}

/// How many versions the jump of the one at `depth` passes: the last weight when `depth` is taken
/// apart into the largest numbers 2^k - 1 that fit.
fn stride(mut depth: u32) -> u32 {
    let mut weight = 0;
    while depth > 0 {
        weight = (u32::MAX >> 1) >> (depth + 1).leading_zeros();
        depth -= weight;
    }
    weight
}
