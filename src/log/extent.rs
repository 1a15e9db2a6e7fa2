//! An extent: entries of one log and tag that were appended by one operation, and where that stands.

use crate::ids::{KeyspaceId, Seq};

/// Which log: the id of its logs, and its number among them.
pub(crate) type LogKey = (KeyspaceId, u64);

/// Entries of one tag within one operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Extent {
    /// The index of the first.
    pub first: u64,
    /// The operation's sequence number.
    pub seq: Seq,
    pub tag: u64,
    /// Where in the segment's file the operation stands, from its log on.
    pub offset: u32,
    /// How many.
    pub count: u32,
}

impl Extent {
    /// The index behind the last.
    pub fn next(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }

    /// What is left of it within `first..next`; `None`: nothing.
    pub fn within(self, first: u64, next: u64) -> Option<Extent> {
        let (from, to) = (self.first.max(first), self.next().min(next));
        let count = to.checked_sub(from).filter(|&n| n > 0)? as u32;
        Some(Extent { first: from, count, ..self })
    }
}
