//! Several cursors as one, in internal order.
//!
//! The children stand in a short list in the order of their entries, by key head and, only where
//! heads are equal, by the rest of the key. The first is advanced in place; as long as it stays
//! before the second, a step costs one comparison of heads. Otherwise it moves down the list, which
//! for as many runs as there are costs less than a heap or a tree.
//!
//! What the comparisons tell on the way is kept: whether neighbours in the list have the same key.
//! So users learn whether a step led to another version of the same key without copying keys.

use crate::cursor::{Cursor, Near};
use crate::error::Result;
use crate::fs::SharedBytes;
use crate::ids::Seq;
use crate::key::{Heads, Trailer};
use std::cmp::Ordering;
use std::ops::RangeBounds;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    Forward,
    Backward,
}

impl Direction {
    /// What turns a head into a rank: ranks ascend in the direction of the walk.
    #[inline]
    fn mask(self) -> u64 {
        match self {
            Direction::Forward => 0,
            Direction::Backward => u64::MAX,
        }
    }
}

/// The merge of `children`. No internal key may stand in two of them.
pub(crate) struct Merge<C> {
    children: Vec<C>,
    heads: Heads,
    /// The valid children in the order of the walk.
    order: Vec<Place>,
    direction: Direction,
    /// Whether the last step led to another version of the same key.
    repeats: bool,
    /// Kept for turning around.
    turn_key: Vec<u8>,
}

#[cfg(test)]
thread_local! {
    /// Steps and seeks of children, for tests that hold them against a bound.
    pub(crate) static STEPS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

#[inline]
fn count() {
    #[cfg(test)]
    STEPS.set(STEPS.get() + 1);
}

#[derive(Clone, Copy)]
struct Place {
    rank: u64,
    child: u32,
    /// Whether the child before, when both stood where they stand, had the same key. Of the first:
    /// nothing.
    same: bool,
}

impl<C: Cursor> Merge<C> {
    /// `heads`: which most keys can be told apart by.
    pub fn new(children: Vec<C>, heads: Heads) -> Merge<C> {
        let order = Vec::with_capacity(children.len());
        Merge { children, heads, order, direction: Direction::Forward, repeats: false, turn_key: Vec::new() }
    }

    /// Which child the entry is of.
    #[inline]
    pub fn child(&self) -> usize {
        self.order[0].child as usize
    }

    /// The head of the key, among the `heads` it was made with.
    #[inline]
    pub fn head(&self) -> u64 {
        self.order[0].rank ^ self.direction.mask()
    }

    pub fn children(&self) -> &[C] {
        &self.children
    }

    pub fn children_mut(&mut self) -> &mut [C] {
        &mut self.children
    }

    pub fn direction(&self) -> Direction {
        self.direction
    }

    #[inline]
    fn top(&self) -> &C {
        &self.children[self.order[0].child as usize]
    }

    /// The order of two children whose ranks are equal, and whether their keys are.
    fn tied(&self, a: u32, b: u32) -> (Ordering, bool) {
        let (a, b) = (&self.children[a as usize], &self.children[b as usize]);
        let keys = a.key().cmp(b.key());
        let order = keys.then_with(|| b.trailer().cmp(&a.trailer()));
        let order = if self.direction == Direction::Backward { order.reverse() } else { order };
        (order, keys.is_eq())
    }

    /// Puts the children that are valid in order.
    fn rebuild(&mut self, direction: Direction) {
        self.direction = direction;
        self.order.clear();
        let valid = self.children.iter().enumerate().filter(|(_, c)| c.valid());
        self.order.extend(valid.map(|(child, _)| Place { rank: 0, child: child as u32, same: false }));
        self.arrange();
    }

    /// Puts the list in order, whatever order it is in.
    fn arrange(&mut self) {
        for place in &mut self.order {
            place.rank = self.heads.of(self.children[place.child as usize].key()) ^ self.direction.mask();
        }
        for i in (0..self.order.len()).rev() {
            self.sink(i);
        }
        self.repeats = false;
    }

    /// After the first child has moved: puts it where it belongs.
    #[inline]
    fn settle(&mut self) {
        let first = &mut self.order[0];
        let child = &self.children[first.child as usize];
        if !child.valid() {
            self.order.remove(0);
            self.repeats = self.order.first().is_some_and(|p| p.same);
            return;
        }
        first.rank = self.heads.of(child.key()) ^ self.direction.mask();
        self.repeats = child.repeats();
        let rank = first.rank;
        if let Some(second) = self.order.get(1).filter(|second| rank >= second.rank) {
            let same = second.same;
            if self.sink(0) {
                self.repeats = same;
            }
        }
    }

    /// Moves what stands at `from` down to its place in the rest of the list, which is in order.
    /// Whether it moved at all.
    fn sink(&mut self, from: usize) -> bool {
        let mut me = self.order[from];
        let mut at = from;
        while let Some(&next) = self.order.get(at + 1) {
            let (order, same) = match me.rank.cmp(&next.rank) {
                Ordering::Equal => self.tied(me.child, next.child),
                order => (order, false),
            };
            if order == Ordering::Less {
                self.order[at + 1].same = same;
                break;
            }
            me.same = same;
            self.order[at] = next;
            at += 1;
        }
        self.order[at] = me;
        at > from
    }

    /// Moves every other child to the far side of the entry the merge stands on.
    fn turn(&mut self, direction: Direction) -> Result<()> {
        let current = self.child();
        let trailer = self.children[current].trailer();
        let mut key = std::mem::take(&mut self.turn_key);
        key.clear();
        key.extend_from_slice(self.children[current].key());
        for (i, child) in self.children.iter_mut().enumerate() {
            if i == current {
                continue;
            }
            count();
            // No other child holds this very entry, so "at or after" is "after".
            child.seek(&key, trailer)?;
            if direction == Direction::Backward {
                if child.valid() {
                    child.prev()?;
                } else {
                    child.seek_last()?;
                }
            }
        }
        self.turn_key = key;
        // The current entry is the first of the new order too: it bounds all others.
        self.rebuild(direction);
        Ok(())
    }

    /// Moves the children `which` out of a stretch of keys: to its end at `edge` (`None`:
    /// past everything), or, on the way back, to before its start at `edge`. Whether the entry the
    /// merge stood on was among those passed.
    pub fn leap(&mut self, which: impl RangeBounds<usize>, edge: Option<&[u8]>) -> Result<bool> {
        let current = self.child();
        let mut passed = false;
        self.guard(|m| {
            let mut at = 0;
            while let Some(child) = m.order.get(at).map(|p| p.child as usize) {
                at += 1;
                let c = &mut m.children[child];
                let inside = match (m.direction, edge) {
                    (_, None) => true,
                    (Direction::Forward, Some(edge)) => c.key() < edge,
                    (Direction::Backward, Some(edge)) => c.key() >= edge,
                };
                if !which.contains(&child) || !inside {
                    continue;
                }
                passed |= child == current;
                count();
                match (m.direction, edge) {
                    (_, None) => {}
                    (Direction::Forward, Some(edge)) => c.seek(edge, Trailer::newest(Seq::MAX))?,
                    (Direction::Backward, Some(edge)) => c.seek_before(edge)?,
                }
                if edge.is_none() || !c.valid() {
                    at -= 1;
                    m.order.remove(at);
                }
            }
            m.arrange();
            Ok(())
        })?;
        Ok(passed)
    }

    /// Runs `act` on the children; after an error the merge is not valid.
    #[inline]
    fn guard(&mut self, act: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let result = act(self);
        if result.is_err() {
            self.order.clear();
        }
        result
    }

    fn seek_all(&mut self, direction: Direction, seek: impl Fn(&mut C) -> Result<()>) -> Result<()> {
        self.guard(|m| {
            for child in &mut m.children {
                count();
                seek(child)?;
            }
            m.rebuild(direction);
            Ok(())
        })
    }

    /// Has the children load side by side what seeks to `key` will look at.
    fn approach_all(&self, key: &[u8]) {
        if self.children.len() > 1 {
            for near in [Near::Index, Near::Block] {
                self.children.iter().for_each(|c| c.approach(key, near));
            }
        }
    }

    /// Steps in `direction`, turning around if need be.
    #[inline]
    fn step(&mut self, direction: Direction) -> Result<()> {
        self.guard(|m| {
            if m.direction != direction {
                m.turn(direction)?;
            }
            count();
            let child = &mut m.children[m.order[0].child as usize];
            match direction {
                Direction::Forward => child.next()?,
                Direction::Backward => child.prev()?,
            }
            m.settle();
            Ok(())
        })
    }
}

impl<C: Cursor> Cursor for Merge<C> {
    fn seek_first(&mut self) -> Result<()> {
        self.seek_all(Direction::Forward, |c| c.seek_first())
    }

    fn seek_last(&mut self) -> Result<()> {
        self.seek_all(Direction::Backward, |c| c.seek_last())
    }

    fn seek(&mut self, key: &[u8], trailer: Trailer) -> Result<()> {
        self.approach_all(key);
        self.seek_all(Direction::Forward, |c| c.seek(key, trailer))
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.approach_all(key);
        self.seek_all(Direction::Backward, |c| c.seek_before(key))
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        self.step(Direction::Forward)
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        self.step(Direction::Backward)
    }

    #[inline]
    fn valid(&self) -> bool {
        !self.order.is_empty()
    }

    #[inline]
    fn repeats(&self) -> bool {
        self.repeats
    }

    /// As `newer`: only on the way back.
    #[inline]
    fn alone(&self) -> bool {
        debug_assert!(self.direction == Direction::Backward);
        self.order.get(1).is_none_or(|second| !second.same) && self.top().alone()
    }

    /// Told without a look at other children only on the way back.
    #[inline]
    fn newer(&mut self) -> Result<Option<Trailer>> {
        debug_assert!(self.direction == Direction::Backward);
        let top = self.child();
        let second = self.order.get(1).filter(|second| second.same);
        let second = second.map(|second| self.children[second.child as usize].trailer());
        let own = match self.children[top].newer() {
            Ok(own) => own,
            Err(e) => {
                self.order.clear();
                return Err(e);
            }
        };
        Ok(match (own, second) {
            (Some(own), Some(second)) => Some(own.min(second)),
            (own, second) => own.or(second),
        })
    }

    #[inline]
    fn key(&self) -> &[u8] {
        self.top().key()
    }

    #[inline]
    fn trailer(&self) -> Trailer {
        self.top().trailer()
    }

    #[inline]
    fn fetch(&mut self) -> Result<()> {
        let top = self.child();
        let fetched = self.children[top].fetch();
        if fetched.is_err() {
            self.order.clear();
        }
        fetched
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.top().value()
    }

    #[inline]
    fn entry(&self) -> (&[u8], &[u8]) {
        self.top().entry()
    }

    fn owner(&self) -> Option<&SharedBytes> {
        self.top().owner()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::testing::{Random, Sorted, entries};

    #[test]
    fn walks_like_one_sorted_list() {
        let mut random = Random(7);
        for round in 0..1000 {
            let all = entries(&mut random, 40);
            let k = 1 + random.below(5) as usize;
            let mut parts = vec![Vec::new(); k];
            for e in &all {
                parts[random.below(k as u64) as usize].push(e.clone());
            }
            let heads = Heads::between(&random.key(), &random.key());
            let mut merge = Merge::new(parts.into_iter().map(Sorted::new).collect(), heads);
            let mut model = Sorted::new(all.clone());
            for step in 0..60 {
                let before = model.valid().then(|| model.key().to_vec());
                let mut stepped = 0;
                let target = all.get(random.below(all.len() as u64 + 1) as usize);
                let (key, trailer) = target
                    .map_or((vec![0xff; 3], Trailer::newest(crate::ids::Seq::MAX)), |e| (e.0.clone(), e.1));
                match random.below(8) {
                    0 => both(&mut merge, &mut model, |c| c.seek_first()),
                    1 => both(&mut merge, &mut model, |c| c.seek_last()),
                    2 => both(&mut merge, &mut model, |c| c.seek(&key, trailer)),
                    3 => both(&mut merge, &mut model, |c| c.seek_before(&key)),
                    n if model.valid() && n < 6 => {
                        stepped = 1;
                        both(&mut merge, &mut model, |c| c.next());
                    }
                    _ if model.valid() => {
                        stepped = -1;
                        both(&mut merge, &mut model, |c| c.prev());
                    }
                    _ => {}
                }
                assert_eq!(merge.valid(), model.valid(), "round {round} step {step}");
                if model.valid() {
                    assert_eq!((merge.key(), merge.trailer()), (model.key(), model.trailer()));
                    assert_eq!(merge.value(), model.value());
                    assert_eq!(merge.head(), heads.of(model.key()));
                    if stepped != 0 {
                        assert_eq!(merge.repeats(), before.as_deref() == Some(model.key()));
                    }
                    assert_eq!(merge.entry(), model.entry());
                    if stepped < 0 {
                        let newer = model.newer().unwrap();
                        assert!(!merge.alone() || newer.is_none());
                        assert_eq!(merge.newer().unwrap(), newer);
                    }
                }
            }
        }
    }

    fn both(a: &mut dyn Cursor, b: &mut dyn Cursor, act: impl Fn(&mut dyn Cursor) -> Result<()>) {
        act(a).unwrap();
        act(b).unwrap();
    }
}
