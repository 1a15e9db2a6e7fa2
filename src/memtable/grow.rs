//! How the tree grows: leaves and inner nodes are copied, split and linked in, and published with
//! one store each time.

use super::arena::{Allocator, Chain, Ref};
use super::node::{FAN, Inner, LEAF, Leaf, NodePtr, Prefix, Slot, head, shared};
use super::tree::{Fences, Tree};
use crate::key::Trailer;
use std::cmp::Ordering;

/// The writer at work on its tree.
pub(super) struct Grower<'a> {
    pub tree: &'a Tree,
    pub allocator: &'a mut Allocator,
}

type Path<'a> = [(&'a Inner, usize)];

impl<'a> Grower<'a> {
    /// Adds a record and publishes it.
    pub fn insert(&mut self, key: &[u8], trailer: Trailer, value: &[u8]) {
        let arena = &self.tree.arena;
        loop {
            let Some(leaf) = self.tree.leaf(key) else {
                let r = self.allocator.record(arena, key, trailer, value, None);
                let guess =
                    Prefix { skip: key.len().saturating_sub(4).min(u16::MAX.into()) as u16, open: true };
                let slot = Slot::new(head(key, guess.skip.into()), r);
                let leaf = Leaf::new(arena, self.allocator, guess, &[slot], 1);
                return self.tree.set_root(leaf.ptr());
            };
            if let Some((i, newest, record)) = self.tree.find(leaf, key) {
                assert!(record.trailer() < trailer, "versions of a key come in commit order");
                let chain = self.chain(newest);
                let r = self.allocator.record(arena, key, trailer, value, Some(chain));
                return leaf.supersede(i, r);
            }
            if leaf.len() == LEAF {
                if self.ends(leaf, key) {
                    let r = self.allocator.record(arena, key, trailer, value, None);
                    return self.append(key, r);
                }
                self.split(key);
            } else if self.tree.compare_leaf(leaf, key) != Ordering::Equal {
                self.widen(key);
            } else {
                let r = self.allocator.record(arena, key, trailer, value, None);
                let head = head(key, leaf.prefix().skip.into());
                // SAFETY: this is the writer, and the leaf has room.
                return unsafe { leaf.push(head, r) };
            }
        }
    }

    /// What leads from a new version to the older ones.
    fn chain(&self, older: Ref) -> Chain {
        // A first version is its own jump.
        let of =
            |r: Ref| self.tree.record(r).chain().unwrap_or(Chain { older: r, jump: r, depth: 0, oldest: r });
        let old = of(older);
        let jump = of(old.jump);
        let far = of(jump.jump);
        let even = old.depth - jump.depth == jump.depth - far.depth;
        Chain { older, jump: if even { jump.jump } else { older }, depth: old.depth + 1, oldest: old.oldest }
    }

    /// Whether a full leaf seems to be filled in ascending order, and `key` goes on with that.
    fn ends(&self, leaf: &Leaf, key: &[u8]) -> bool {
        let heads = leaf.heads(leaf.len());
        let Some(&last) = heads.last() else { return false };
        heads.is_sorted()
            && (0..heads.len())
                .rev()
                .take_while(|&i| heads[i] == last)
                .all(|i| self.tree.record(leaf.record(i)).key() < key)
    }

    /// A prefix for a node between `fences` whose keys go from `first` to `last`.
    fn prefix(&self, fences: Fences, first: Ref, last: Ref) -> Prefix {
        let key = |r| self.tree.record(r).key();
        match (fences.low, fences.high) {
            (Some(low), Some(high)) => Prefix { skip: shared(key(low), key(high)), open: false },
            _ => Prefix { skip: shared(key(first), key(last)), open: true },
        }
    }

    /// Takes the heads of `slots` anew where the prefix is another.
    fn rehead(&self, slots: &mut [Slot], old: Option<Prefix>, new: Prefix) {
        if old.is_none_or(|old| old.skip != new.skip) {
            for slot in slots {
                let r = slot.record();
                *slot = Slot::new(head(self.tree.record(r).key(), new.skip.into()), r);
            }
        }
    }

    /// Splits `key`'s leaf in the middle.
    fn split(&mut self, key: &[u8]) {
        let Some((path, leaf)) = self.tree.path(key) else { return };
        let mut slots = [Slot::NONE; LEAF];
        let n = self.tree.sorted(leaf, &mut slots);
        let (left, right) = slots[..n].split_at_mut(n / 2);
        let separator = right[0].record();
        let fences = fences(&path);
        let left = self.half(left, Fences { high: Some(separator), ..fences }, Some(leaf.prefix()));
        let right = self.half(right, Fences { low: Some(separator), ..fences }, Some(leaf.prefix()));
        self.link(&path, left.ptr(), separator, right.ptr(), 1);
    }

    fn half(&mut self, slots: &mut [Slot], fences: Fences, old: Option<Prefix>) -> &'a Leaf {
        let (first, last) = (slots[0].record(), slots[slots.len() - 1].record());
        let prefix = self.prefix(fences, first, last);
        self.rehead(slots, old, prefix);
        Leaf::new(&self.tree.arena, self.allocator, prefix, slots, slots.len())
    }

    /// Puts a record behind `key`'s full leaf, as the first of a new one.
    fn append(&mut self, key: &[u8], r: Ref) {
        let Some((path, leaf)) = self.tree.path(key) else { return };
        // Keys to come share with this one what it shares with those before.
        let fences = Fences { low: Some(r), ..fences(&path) };
        let prefix = self.prefix(fences, leaf.record(0), r);
        let slot = Slot::new(head(key, prefix.skip.into()), r);
        let right = Leaf::new(&self.tree.arena, self.allocator, prefix, &[slot], 1);
        self.link(&path, leaf.ptr(), r, right.ptr(), 1);
    }

    /// Copies `key`'s leaf so that its prefix is one that `key` has too.
    fn widen(&mut self, key: &[u8]) {
        let Some((path, leaf)) = self.tree.path(key) else { return };
        let old = leaf.prefix();
        let skip = old.skip.min(shared(self.tree.record(leaf.record(0)).key(), key));
        let prefix = Prefix { skip, ..old };
        let mut slots = [Slot::NONE; LEAF];
        let n = leaf.slots(&mut slots);
        self.rehead(&mut slots[..n], Some(old), prefix);
        let copy = Leaf::new(&self.tree.arena, self.allocator, prefix, &slots[..n], leaf.sorted());
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
            let slots = &mut [Slot::new(0, separator)];
            let root = self.inner(level, slots, &[left, right], Fences::default(), None);
            return self.tree.set_root(root.ptr());
        };
        let fences = fences(above);
        if parent.len() == FAN && *i == FAN && parent.child(*i) == left {
            // An ascending stream: the parent stays as it is, full, and a new one begins.
            let next = self.inner(level, &mut [], &[right], Fences::default(), None);
            return self.link(above, parent.ptr(), separator, next.ptr(), level + 1);
        }
        let (mut slots, mut children) = parent.parts();
        let head = head(self.tree.record(separator).key(), parent.prefix().skip.into());
        slots.insert(*i, Slot::new(head, separator));
        children[*i] = left;
        children.insert(*i + 1, right);
        let old = Some(parent.prefix());
        if slots.len() <= FAN {
            let copy = self.inner(level, &mut slots, &children, fences, old);
            return self.replace(above, copy.ptr());
        }
        let middle = slots.len() / 2;
        let up = slots[middle].record();
        let (low, high) = (Fences { high: Some(up), ..fences }, Fences { low: Some(up), ..fences });
        let left = self.inner(level, &mut slots[..middle], &children[..=middle], low, old);
        let right = self.inner(level, &mut slots[middle + 1..], &children[middle + 1..], high, old);
        self.link(above, left.ptr(), up, right.ptr(), level + 1);
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
        let prefix = match (slots.first(), slots.last()) {
            (Some(first), Some(last)) => self.prefix(fences, first.record(), last.record()),
            _ => Prefix { skip: 0, open: false },
        };
        self.rehead(slots, old, prefix);
        Inner::new(&self.tree.arena, self.allocator, level, prefix, slots, children)
    }
}

/// What the node lies between that `path` leads to.
fn fences(path: &Path<'_>) -> Fences {
    let mut fences = Fences::default();
    path.iter().for_each(|(inner, i)| fences.enter(inner, *i));
    fences
}
