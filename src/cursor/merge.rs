//! Several cursors as one, in internal order.
//!
//! A heap of children, compared by key head first and by the rest of the key only where heads are
//! equal. The top child is advanced in place and sinks only as far as it must: a run that stays
//! smallest costs two comparisons of heads a step.

use crate::cursor::Cursor;
use crate::error::Result;
use crate::fs::SharedBytes;
use crate::key::{Trailer, compare};
use std::cmp::Ordering;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Direction {
    Forward,
    Backward,
}

/// The merge of `children`. No internal key may stand in two of them.
pub(crate) struct Merge<C> {
    children: Vec<C>,
    /// The valid children, smallest (largest when walking backward) first, heap-ordered.
    heap: Vec<Top>,
    direction: Direction,
    /// Kept for turning around.
    turn_key: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Top {
    head: u64,
    child: usize,
}

impl<C: Cursor> Merge<C> {
    pub fn new(children: Vec<C>) -> Merge<C> {
        let heap = Vec::with_capacity(children.len());
        Merge { children, heap, direction: Direction::Forward, turn_key: Vec::new() }
    }

    #[inline]
    fn top(&self) -> &C {
        &self.children[self.heap[0].child]
    }

    /// Whether `a` stands before `b` in the direction of the walk.
    #[inline]
    fn before(&self, a: Top, b: Top) -> bool {
        let order = a.head.cmp(&b.head).then_with(|| self.full_order(a, b));
        match self.direction {
            Direction::Forward => order == Ordering::Less,
            Direction::Backward => order == Ordering::Greater,
        }
    }

    fn full_order(&self, a: Top, b: Top) -> Ordering {
        let (a, b) = (&self.children[a.child], &self.children[b.child]);
        compare((a.key(), a.trailer()), (b.key(), b.trailer()))
    }

    fn rebuild(&mut self, direction: Direction) {
        self.direction = direction;
        self.heap.clear();
        for (child, c) in self.children.iter().enumerate() {
            if c.valid() {
                self.heap.push(Top { head: c.head(), child });
            }
        }
        for at in (0..self.heap.len() / 2).rev() {
            self.sink(at);
        }
    }

    #[inline]
    fn sink(&mut self, mut at: usize) {
        loop {
            let mut least = 2 * at + 1;
            if least >= self.heap.len() {
                return;
            }
            if least + 1 < self.heap.len() && self.before(self.heap[least + 1], self.heap[least]) {
                least += 1;
            }
            if !self.before(self.heap[least], self.heap[at]) {
                return;
            }
            self.heap.swap(at, least);
            at = least;
        }
    }

    /// After the top child has moved: puts it where it belongs.
    #[inline]
    fn settle(&mut self) {
        let child = self.heap[0].child;
        if self.children[child].valid() {
            self.heap[0].head = self.children[child].head();
        } else {
            self.heap.swap_remove(0);
            if self.heap.is_empty() {
                return;
            }
        }
        self.sink(0);
    }

    /// Moves every other child to the far side of the entry the merge stands on.
    fn turn(&mut self, direction: Direction) -> Result<()> {
        let current = self.heap[0].child;
        let trailer = self.children[current].trailer();
        let mut key = std::mem::take(&mut self.turn_key);
        key.clear();
        key.extend_from_slice(self.children[current].key());
        for (i, child) in self.children.iter_mut().enumerate() {
            if i == current {
                continue;
            }
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

    /// Runs `act` on the children; after an error the merge is not valid.
    fn guard(&mut self, act: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let result = act(self);
        if result.is_err() {
            self.heap.clear();
        }
        result
    }

    fn seek_all(&mut self, direction: Direction, seek: impl Fn(&mut C) -> Result<()>) -> Result<()> {
        self.guard(|m| {
            for child in &mut m.children {
                seek(child)?;
            }
            m.rebuild(direction);
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
        self.seek_all(Direction::Forward, |c| c.seek(key, trailer))
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.seek_all(Direction::Backward, |c| c.seek_before(key))
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        self.guard(|m| {
            if m.direction == Direction::Backward {
                m.turn(Direction::Forward)?;
            }
            let child = m.heap[0].child;
            m.children[child].next()?;
            m.settle();
            Ok(())
        })
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        self.guard(|m| {
            if m.direction == Direction::Forward {
                m.turn(Direction::Backward)?;
            }
            let child = m.heap[0].child;
            m.children[child].prev()?;
            m.settle();
            Ok(())
        })
    }

    #[inline]
    fn valid(&self) -> bool {
        !self.heap.is_empty()
    }

    #[inline]
    fn key(&self) -> &[u8] {
        self.top().key()
    }

    #[inline]
    fn head(&self) -> u64 {
        self.heap[0].head
    }

    #[inline]
    fn trailer(&self) -> Trailer {
        self.top().trailer()
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.top().value()
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
        for round in 0..200 {
            let all = entries(&mut random, 40);
            let k = 1 + random.below(5) as usize;
            let mut parts = vec![Vec::new(); k];
            for e in &all {
                parts[random.below(k as u64) as usize].push(e.clone());
            }
            let mut merge = Merge::new(parts.into_iter().map(Sorted::new).collect());
            let mut model = Sorted::new(all.clone());
            for step in 0..60 {
                let target = all.get(random.below(all.len() as u64 + 1) as usize);
                let (key, trailer) = target
                    .map_or((vec![0xff; 3], Trailer::newest(crate::ids::Seq::MAX)), |e| (e.0.clone(), e.1));
                match random.below(8) {
                    0 => both(&mut merge, &mut model, |c| c.seek_first()),
                    1 => both(&mut merge, &mut model, |c| c.seek_last()),
                    2 => both(&mut merge, &mut model, |c| c.seek(&key, trailer)),
                    3 => both(&mut merge, &mut model, |c| c.seek_before(&key)),
                    n if model.valid() && n < 6 => both(&mut merge, &mut model, |c| c.next()),
                    _ if model.valid() => both(&mut merge, &mut model, |c| c.prev()),
                    _ => {}
                }
                assert_eq!(merge.valid(), model.valid(), "round {round} step {step}");
                if model.valid() {
                    assert_eq!((merge.key(), merge.trailer()), (model.key(), model.trailer()));
                    assert_eq!(merge.value(), model.value());
                    assert_eq!(merge.head(), crate::key::head(model.key()));
                }
            }
        }
    }

    fn both(a: &mut dyn Cursor, b: &mut dyn Cursor, act: impl Fn(&mut dyn Cursor) -> Result<()>) {
        act(a).unwrap();
        act(b).unwrap();
    }
}
