//! The extents of a log in a segment that has no footer yet, packed: entries of one log in one segment follow
//! each other, so of each extent it is enough to know how far it is from the first. 12 bytes for each, and 16
//! where the tag changes: at most 32 for each entry, were each of an operation and a tag of its own.

use crate::budget::{Budget, Share, Use};
use crate::ids::Seq;
use crate::log::extent::Extent;
use std::collections::VecDeque;
use std::sync::Arc;

/// Extents without a gap, in index order.
pub(crate) struct Extents {
    /// What the others are counted from.
    first: u64,
    seq: Seq,
    packed: VecDeque<Packed>,
    /// From which entry on, counted from the first, entries have which tag.
    tags: VecDeque<(u32, u64)>,
    /// Behind the last entry.
    next: u64,
    share: Share,
}

struct Packed {
    first: u32,
    seq: u32,
    offset: u32,
}

impl Extents {
    /// None yet; entries from `first` on, of operations from `seq` on.
    pub fn new(first: u64, seq: Seq, budget: &Arc<Budget>) -> Extents {
        let (packed, tags) = (VecDeque::new(), VecDeque::new());
        Extents { first, seq, packed, tags, next: first, share: budget.share(Use::LogIndex) }
    }

    /// Whether extents up to this entry and operation can be told from the first.
    pub fn takes(&self, next: u64, seq: Seq) -> bool {
        let near = |n: u64, from: u64| n.checked_sub(from).is_some_and(|n| n <= u64::from(u32::MAX));
        near(next, self.first) && near(seq.get(), self.seq.get())
    }

    /// Adds the extent behind the last, which these [take](Extents::takes).
    pub fn push(&mut self, extent: Extent) {
        let Extent { first, seq, tag, offset, .. } = extent;
        let first = first.saturating_sub(self.first) as u32;
        let seq = seq.get().saturating_sub(self.seq.get()) as u32;
        if self.packed.len() == self.packed.capacity() {
            // In smaller steps than doubling: most of the memory that logs take is here.
            self.packed.reserve_exact(self.packed.len() / 8 + 1);
        }
        self.packed.push_back(Packed { first, seq, offset });
        if self.tags.back().is_none_or(|last| last.1 != tag) {
            if self.tags.len() == self.tags.capacity() {
                self.tags.reserve_exact(self.tags.len() / 8 + 1);
            }
            self.tags.push_back((first, tag));
        }
        self.next = extent.next();
        let packed = self.packed.capacity() * size_of::<Packed>();
        self.share.set(size_of::<Extents>() + packed + self.tags.capacity() * size_of::<(u32, u64)>());
    }

    /// Keeps what lies within `first..next`.
    pub fn clip(&mut self, first: u64, next: u64) {
        self.next = self.next.min(next).max(self.first);
        let (from, to) = (first.saturating_sub(self.first), self.next - self.first);
        while self.packed.back().is_some_and(|e| u64::from(e.first) >= to) {
            self.packed.pop_back();
        }
        while self.tags.back().is_some_and(|t| u64::from(t.0) >= to) {
            self.tags.pop_back();
        }
        while self.packed.get(1).is_some_and(|e| u64::from(e.first) <= from) {
            self.packed.pop_front();
        }
        while self.tags.get(1).is_some_and(|t| u64::from(t.0) <= from) {
            self.tags.pop_front();
        }
        if from >= to {
            self.packed.clear();
            self.tags.clear();
        }
        let later = |n: &mut u32| *n = (*n).max(u32::try_from(from).unwrap_or(u32::MAX));
        self.packed.front_mut().into_iter().for_each(|e| later(&mut e.first));
        self.tags.front_mut().into_iter().for_each(|t| later(&mut t.0));
    }

    /// The extent that the entry `index` is in.
    pub fn find(&self, index: u64) -> Option<Extent> {
        let of = u32::try_from(index.checked_sub(self.first)?).ok().filter(|_| index < self.next)?;
        self.get(self.packed.partition_point(|e| e.first <= of).checked_sub(1)?)
    }

    /// The operation of the first.
    pub fn min_seq(&self) -> Option<Seq> {
        self.packed.front().map(|e| self.seq.plus(e.seq.into()))
    }

    pub fn iter(&self) -> impl Iterator<Item = Extent> {
        (0..self.packed.len()).filter_map(|i| self.get(i))
    }

    fn get(&self, i: usize) -> Option<Extent> {
        let Packed { first, seq, offset } = *self.packed.get(i)?;
        let end = self.first.saturating_add(u64::from(first));
        let next = self.packed.get(i + 1).map_or(self.next, |e| self.first.saturating_add(e.first.into()));
        let tag = self.tags.partition_point(|t| t.0 <= first).checked_sub(1)?;
        let tag = self.tags.get(tag)?.1;
        let count = (next - end) as u32;
        Some(Extent { first: end, seq: self.seq.plus(seq.into()), tag, offset, count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(first: u64, seq: u64, tag: u64, count: u32) -> Extent {
        Extent { first, seq: Seq::new(seq).unwrap(), tag, offset: (seq * 10) as u32, count }
    }

    /// Against a list of extents, clipped one by one.
    #[test]
    fn they_are_what_a_list_would_be() {
        let budget = Budget::unlimited();
        let mut random = 1u64;
        let mut below = |n: u64| {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (random >> 33) % n
        };
        for _ in 0..200 {
            let (first, seq) = (below(1 << 40), 1 + below(1 << 50));
            let mut packed = Extents::new(first, Seq::new(seq).unwrap(), &budget);
            let (mut list, mut next): (Vec<Extent>, u64) = (Vec::new(), first);
            for i in 0..60 {
                let e = extent(next, seq + i * 3, below(3), 1 + below(4) as u32);
                assert!(packed.takes(e.next(), e.seq));
                packed.push(e);
                list.push(e);
                next = e.next();
                if below(4) == 0 {
                    let from = list[0].first + below(4);
                    next = (next - below(5)).max(from);
                    packed.clip(from, next);
                    list = list.iter().filter_map(|e| e.within(from, next)).collect();
                }
                assert_eq!(packed.iter().collect::<Vec<_>>(), list);
                assert_eq!(packed.min_seq(), list.first().map(|e| e.seq));
                for index in first.saturating_sub(2)..next + 2 {
                    let of = list.iter().find(|e| e.first <= index && index < e.next());
                    assert_eq!(packed.find(index).as_ref(), of, "{index}");
                }
                if list.is_empty() {
                    break;
                }
            }
        }
        assert_eq!(budget.used(Use::LogIndex), 0);
    }

    #[test]
    fn an_entry_takes_no_more_than_32_bytes() {
        let budget = Budget::unlimited();
        let mut packed = Extents::new(0, Seq::new(1).unwrap(), &budget);
        let mut most = 0;
        for n in 0..10_000 {
            packed.push(extent(n, n + 1, n, 1));
            most = most.max(if n < 1000 { 0 } else { budget.used(Use::LogIndex) as u64 / (n + 1) });
        }
        assert!((28..=32).contains(&most), "{most}");
        let one_tag = Extents::new(0, Seq::new(1).unwrap(), &budget);
        let far = 1 << 32;
        assert!(one_tag.takes(far - 1, Seq::new(far).unwrap()));
        assert!(!one_tag.takes(far, Seq::new(1).unwrap()) && !one_tag.takes(1, Seq::new(far + 1).unwrap()));
    }
}
