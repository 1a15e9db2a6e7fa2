//! The tail cache: the operations that appended the newest entries, as they stand in the journal, within
//! a number of bytes. Who follows a log reads from here; the active segment cannot be mapped.

use crate::budget::{Budget, Share, Use};
use crate::fs::SharedBytes;
use crate::ids::Position;
use crate::sync::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;

pub(crate) struct Tail {
    limit: usize,
    budget: Arc<Budget>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// In journal order.
    ops: VecDeque<(Position, Arc<Op>)>,
    bytes: usize,
}

/// The bytes of an operation from its log on; counted as long as anybody holds them.
struct Op {
    bytes: Box<[u8]>,
    _share: Share,
}

impl AsRef<[u8]> for Op {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Tail {
    pub fn new(limit: usize, budget: &Arc<Budget>) -> Tail {
        Tail { limit, budget: budget.clone(), held: Mutex::default() }
    }

    /// Keeps the operation that stands at `position`, the newest so far.
    pub fn push(&self, position: Position, body: &[u8]) {
        if body.len() > self.limit / 2 {
            return;
        }
        let mut share = self.budget.share(Use::Logs);
        share.set(body.len());
        let op = Arc::new(Op { bytes: body.into(), _share: share });
        let mut gone = Vec::new();
        let mut held = self.held.lock();
        held.bytes += body.len();
        held.ops.push_back((position, op));
        while held.bytes > self.limit {
            let Some((_, op)) = held.ops.pop_front() else { break };
            held.bytes -= op.bytes.len();
            gone.push(op);
        }
        drop(held);
    }

    /// The operation that stands at `position`, if it is here.
    pub fn get(&self, position: Position) -> Option<SharedBytes> {
        let held = self.held.lock();
        let at = held.ops.binary_search_by_key(&position, |op| op.0).ok()?;
        let op: Arc<Op> = held.ops.get(at)?.1.clone();
        Some(op)
    }

    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.held.lock().bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_and_what_a_reader_holds_counts() {
        let budget = Budget::unlimited();
        let tail = Tail::new(100, &budget);
        for i in 0..5 {
            tail.push(Position(i * 40), &[i as u8; 30]);
        }
        assert_eq!((tail.bytes(), budget.used(Use::Logs)), (90, 90));
        assert!(tail.get(Position(40)).is_none() && tail.get(Position(81)).is_none());
        let kept = tail.get(Position(80)).unwrap();
        assert_eq!((*kept).as_ref(), [2; 30]);
        tail.push(Position(500), &[9; 51]);
        assert!(tail.get(Position(500)).is_none(), "as much as half of all");
        for i in 0..5 {
            tail.push(Position(600 + i), &[9; 30]);
        }
        assert_eq!((tail.bytes(), budget.used(Use::Logs)), (90, 120));
        drop(kept);
        assert_eq!(budget.used(Use::Logs), 90);
    }
}
