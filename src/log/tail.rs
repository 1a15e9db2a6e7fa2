//! The tail cache: the newest operations on logs, as they stand in the journal, within a number of bytes.
//! Who follows a log reads from here; the active segment cannot be mapped.

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
    pieces: VecDeque<(Position, Arc<Piece>)>,
    bytes: usize,
}

/// Operations next to each other; counted as long as anybody holds them.
struct Piece {
    bytes: Box<[u8]>,
    _share: Share,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Tail {
    pub fn new(limit: usize, budget: &Arc<Budget>) -> Tail {
        Tail { limit, budget: budget.clone(), held: Mutex::default() }
    }

    /// Keeps what stands at `position`, the newest so far.
    pub fn push(&self, position: Position, bytes: &[u8]) {
        if bytes.len() > self.limit / 2 {
            return;
        }
        let mut share = self.budget.share(Use::Logs);
        share.set(bytes.len());
        let piece = Arc::new(Piece { bytes: bytes.into(), _share: share });
        let mut gone = Vec::new();
        let mut held = self.held.lock();
        held.bytes += bytes.len();
        held.pieces.push_back((position, piece));
        while held.bytes > self.limit {
            let Some((_, piece)) = held.pieces.pop_front() else { break };
            held.bytes -= piece.bytes.len();
            gone.push(piece);
        }
        drop(held);
    }

    /// What holds the bytes at `position`, and where in it they are; if they are here.
    pub fn get(&self, position: Position) -> Option<(SharedBytes, usize)> {
        let held = self.held.lock();
        let at = held.pieces.partition_point(|piece| piece.0 <= position).checked_sub(1)?;
        let (start, piece) = held.pieces.get(at)?;
        let offset = usize::try_from(position.0 - start.0).ok().filter(|&at| at < piece.bytes.len())?;
        let piece: Arc<Piece> = piece.clone();
        Some((piece, offset))
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
        assert!(tail.get(Position(40)).is_none() && tail.get(Position(69)).is_none());
        assert!(tail.get(Position(110)).is_none() && tail.get(Position(119)).is_none());
        let (kept, at) = tail.get(Position(109)).unwrap();
        assert_eq!(((*kept).as_ref(), at), (&[2; 30][..], 29));
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
