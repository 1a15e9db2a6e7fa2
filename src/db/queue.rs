//! What is waiting to be done in the background, most urgent first.

use crate::db::tree::Tree;
use crate::error::{Error, Result};
use crate::ids::KeyspaceId;
use crate::sync::{Condvar, Mutex};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Pieces of work, most urgent first.
pub(crate) enum Piece {
    /// Create the next journal segment.
    Segment,
    /// Flush the frozen memtables of these trees.
    Flush(Vec<Arc<Tree>>),
    /// Tell the manifest of dropped keyspaces.
    Drop,
    /// Sync and seal segments the journal has left.
    Seal,
    /// Compact this tree, if it wants it.
    Compact(Arc<Tree>),
}

#[derive(Default)]
pub(crate) struct Work {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    segment: bool,
    seal: bool,
    drop: bool,
    flush: BTreeMap<KeyspaceId, Arc<Tree>>,
    compact: BTreeMap<KeyspaceId, Arc<Tree>>,
    /// At most one flush runs at a time: memtables of a tree must reach level 0 in order.
    flushing: bool,
    /// Trees being compacted.
    compacting: BTreeSet<KeyspaceId>,
    /// Pieces being worked on.
    running: usize,
    /// Why the last piece failed; writers that wait for room are told.
    error: Option<Error>,
    stop: bool,
}

impl Work {
    fn add(&self, change: impl FnOnce(&mut Queue)) {
        let mut queue = self.queue.lock();
        change(&mut queue);
        self.changed.notify_all();
    }

    pub fn want_flush(&self, trees: Vec<Arc<Tree>>) {
        self.add(|q| q.flush.extend(trees.into_iter().map(|t| (t.id, t))));
    }

    pub fn want_segment(&self) {
        self.add(|q| {
            q.segment = true;
            q.seal = true;
        });
    }

    pub fn want_drop(&self) {
        self.add(|q| q.drop = true);
    }

    pub fn want_compact(&self, tree: Arc<Tree>) {
        self.add(|q| {
            q.compact.insert(tree.id, tree);
        });
    }

    pub fn stop(&self) {
        self.add(|q| q.stop = true);
    }

    /// The most urgent piece, marked as running; `None` if there is none.
    pub fn take(&self) -> Option<Piece> {
        self.queue.lock().take()
    }

    /// Waits for a piece; `None` once stopped.
    pub fn wait(&self) -> Option<Piece> {
        let mut queue = self.queue.lock();
        loop {
            if queue.stop {
                return None;
            }
            if let Some(piece) = queue.take() {
                return Some(piece);
            }
            queue = self.changed.wait(queue);
        }
    }

    /// After a piece has ended: what failed is put back.
    pub fn done(&self, piece: Piece, result: &Result<()>) {
        let failed = result.is_err();
        self.add(|q| {
            q.running -= 1;
            q.error = result.as_ref().err().cloned();
            match piece {
                Piece::Segment => q.segment |= failed,
                Piece::Drop => q.drop |= failed,
                Piece::Seal => q.seal |= failed,
                Piece::Flush(trees) => {
                    q.flushing = false;
                    if failed {
                        q.flush.extend(trees.into_iter().map(|t| (t.id, t)));
                    }
                }
                Piece::Compact(tree) => {
                    q.compacting.remove(&tree.id);
                    if failed {
                        q.compact.insert(tree.id, tree);
                    }
                }
            }
        });
    }

    pub fn pause(&self, time: Duration) {
        let queue = self.queue.lock();
        if !queue.stop {
            drop(self.changed.wait_timeout(queue, time));
        }
    }

    pub fn error(&self) -> Option<Error> {
        self.queue.lock().error.clone()
    }
}

impl Queue {
    fn take(&mut self) -> Option<Piece> {
        let queue = self;
        let piece = if std::mem::take(&mut queue.segment) {
            Piece::Segment
        } else if !queue.flush.is_empty() && !queue.flushing {
            queue.flushing = true;
            Piece::Flush(std::mem::take(&mut queue.flush).into_values().collect())
        } else if std::mem::take(&mut queue.drop) {
            Piece::Drop
        } else if std::mem::take(&mut queue.seal) {
            Piece::Seal
        } else {
            let id = *queue.compact.keys().find(|id| !queue.compacting.contains(id))?;
            queue.compacting.insert(id);
            Piece::Compact(queue.compact.remove(&id)?)
        };
        queue.running += 1;
        Some(piece)
    }
}
