//! What is waiting to be done in the background, most urgent first.

use crate::db::part::Part;
use crate::db::tree::Tree;
use crate::error::{Error, Result};
use crate::ids::{KeyspaceId, Seq};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// What failed is tried again after this long, or once something else has been done.
const RETRY: Duration = Duration::from_millis(500);
/// Nothing is being written when nothing was for this long.
const CALM: Duration = Duration::from_millis(100);

/// Pieces of work, most urgent first.
pub(crate) enum Piece {
    /// Create the next journal segment.
    Segment,
    /// Flush the frozen memtables of these trees.
    Flush(Vec<Arc<Tree>>),
    /// Write part of what the flush under way writes.
    Part(Arc<Part>),
    /// Tell the manifest of dropped keyspaces.
    Drop,
    /// See to the segments that log entries lie in.
    Logs,
    /// Close tables that were not read for long.
    Trim,
    /// Compact this tree, if it wants it.
    Compact(Arc<Tree>),
    /// Merge in this tree what only helps reads.
    Calm(Arc<Tree>),
}

pub(crate) struct Work {
    queue: Mutex<Queue>,
    changed: Condvar,
    /// So many compactions may run at a time: a flush shall not have to wait for one.
    compactions: usize,
    /// The least number in `held`, or `u64::MAX`.
    held_until: AtomicU64,
}

/// Pieces that are to be done.
#[derive(Default)]
struct Wanted {
    segment: bool,
    drop: bool,
    logs: bool,
    trim: bool,
    flush: BTreeMap<KeyspaceId, Arc<Tree>>,
    compact: BTreeMap<KeyspaceId, Arc<Tree>>,
}

#[derive(Default)]
struct Queue {
    wanted: Wanted,
    /// What failed. It waits until something else has been done or some time has passed, so that
    /// it does not keep everything else from being done.
    failed: Wanted,
    /// At most one flush runs at a time: memtables of a tree must reach level 0 in order.
    flushing: bool,
    /// What that flush has to offer to other threads.
    parts: Vec<Arc<Part>>,
    /// Trees being compacted, and by how many.
    compacting: BTreeMap<KeyspaceId, usize>,
    /// Trees in which something waits for snapshots to go, and how far the oldest must be.
    held: BTreeMap<KeyspaceId, (Seq, Weak<Tree>)>,
    /// Trees in which something is worth merging once nothing is being written.
    calm: BTreeMap<KeyspaceId, Weak<Tree>>,
    /// The tree compacted last: the ones after it come first.
    compacted: KeyspaceId,
    /// Pieces being worked on.
    running: usize,
    /// Threads that wait for a piece.
    idle: usize,
    /// Why the last flush failed, if it did; writers that wait for room are told.
    flush_error: Option<Error>,
    /// Likewise for the last compaction of each tree.
    compact_errors: BTreeMap<KeyspaceId, Error>,
    stop: bool,
}

/// How many pieces there are; what failed and waits is queued.
pub(crate) struct Counts {
    pub flushes_running: usize,
    pub flushes_queued: usize,
    pub compactions_running: usize,
    pub compactions_queued: usize,
}

/// A piece is being worked on as long as this lives.
pub(crate) struct Running<'a>(&'a Work);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.add(|q| q.running -= 1);
    }
}

impl Work {
    /// For so many threads; 0: done by hand.
    pub fn new(threads: usize) -> Work {
        let compactions = if threads == 0 { usize::MAX } else { (threads - 1).max(1) };
        let held_until = AtomicU64::new(u64::MAX);
        Work { queue: Mutex::default(), changed: Condvar::default(), compactions, held_until }
    }

    fn add(&self, change: impl FnOnce(&mut Queue)) {
        let mut queue = self.queue.lock();
        change(&mut queue);
        self.changed.notify_all();
    }

    pub fn want_flush(&self, trees: Vec<Arc<Tree>>) {
        self.add(|q| q.wanted.put(Piece::Flush(trees)));
    }

    /// Offers part of the flush that the caller is at.
    pub fn offer(&self, part: &Arc<Part>) {
        self.add(|q| q.parts.push(part.clone()));
    }

    /// It is offered no longer.
    pub fn withdraw(&self, part: &Arc<Part>) {
        self.queue.lock().parts.retain(|other| !Arc::ptr_eq(part, other));
    }

    pub fn want_segment(&self) {
        self.add(|q| q.wanted.put(Piece::Segment));
    }

    pub fn want_drop(&self) {
        self.add(|q| q.wanted.put(Piece::Drop));
    }

    pub fn want_logs(&self) {
        self.add(|q| q.wanted.put(Piece::Logs));
    }

    pub fn want_trim(&self) {
        self.add(|q| q.wanted.put(Piece::Trim));
    }

    pub fn want_compact(&self, tree: Arc<Tree>) {
        self.add(|q| q.wanted.put(Piece::Compact(tree)));
    }

    /// Something in `tree` is worth merging once nothing is being written.
    pub fn want_calm(&self, tree: &Arc<Tree>) {
        self.add(|q| _ = q.calm.insert(tree.id, Arc::downgrade(tree)));
    }

    /// Something in `tree` is to be compacted once no snapshot is older than `until` (`None`: nothing
    /// is). `oldest` tells the oldest now.
    pub fn hold(&self, tree: &Arc<Tree>, until: Option<Seq>, oldest: impl FnOnce() -> Seq) {
        let mut queue = self.queue.lock();
        match until {
            Some(seq) => _ = queue.held.insert(tree.id, (seq, Arc::downgrade(tree))),
            None if queue.held.remove(&tree.id).is_none() => return,
            None => {}
        }
        self.note_held(&queue);
        drop(queue);
        // It may have gone just before this could be seen.
        self.snapshots_gone(oldest());
    }

    fn note_held(&self, queue: &Queue) {
        let least = queue.held.values().map(|(seq, _)| seq.get()).min();
        // Relaxed: the lock on snapshots, which both sides take, orders this and them.
        self.held_until.store(least.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// No snapshot is older than `oldest` any more: queues what waited for that. One load if nothing
    /// did.
    #[inline]
    pub fn snapshots_gone(&self, oldest: Seq) {
        if oldest.get() >= self.held_until.load(Ordering::Relaxed) {
            self.release(oldest);
        }
    }

    #[cold]
    fn release(&self, oldest: Seq) {
        self.add(|q| {
            q.held.retain(|_, (until, tree)| {
                let released = oldest >= *until;
                if released && let Some(tree) = tree.upgrade() {
                    q.wanted.put(Piece::Compact(tree));
                }
                !released
            });
            self.note_held(q);
        });
    }

    pub fn stop(&self) {
        self.add(|q| q.stop = true);
    }

    /// After [`stop`](Work::stop): returns when nothing is being worked on any more.
    pub fn settle(&self) {
        let mut queue = self.queue.lock();
        while queue.running > 0 {
            queue = self.changed.wait(queue);
        }
    }

    /// The most urgent piece; if there is none, one that failed before, or one for calm times, which
    /// these are. `None` once stopped.
    pub fn take(&self) -> Option<(Piece, Running<'_>)> {
        let mut queue = self.queue.lock();
        if queue.wanted.is_empty() {
            queue.try_again();
        }
        let piece = queue.take(self.compactions).or_else(|| queue.take_calm(self.compactions));
        Some((piece?, Running(self)))
    }

    /// What writers wait for, if no thread is free to do it.
    pub fn take_urgent(&self) -> Option<(Piece, Running<'_>)> {
        let mut queue = self.queue.lock();
        if queue.idle > 0 {
            return None;
        }
        Some((queue.take_urgent()?, Running(self)))
    }

    /// What is to be flushed, if no flush is running.
    pub fn take_flush(&self) -> Option<(Piece, Running<'_>)> {
        let mut queue = self.queue.lock();
        let failed = std::mem::take(&mut queue.failed.flush);
        queue.wanted.flush.extend(failed);
        Some((queue.take_flush()?, Running(self)))
    }

    /// What failed last and would make room in the tree `id`, if nobody is at it just now.
    pub fn take_failed(&self, id: KeyspaceId) -> Option<(Piece, Running<'_>)> {
        let mut queue = self.queue.lock();
        if queue.flush_error.is_some() && !queue.flushing {
            let failed = std::mem::take(&mut queue.failed.flush);
            queue.wanted.flush.extend(failed);
            return Some((queue.take_flush()?, Running(self)));
        }
        if queue.stop || queue.compacting.contains_key(&id) {
            return None;
        }
        let failed = queue.failed.compact.remove(&id);
        let tree = failed.or_else(|| queue.wanted.compact.remove(&id))?;
        queue.running += 1;
        Some((queue.begin_compact(tree), Running(self)))
    }

    /// Waits for a piece; `None` once stopped. `written` tells how much was written so far.
    pub fn wait(&self, written: impl Fn() -> Seq) -> Option<(Piece, Running<'_>)> {
        let mut queue = self.queue.lock();
        // As of the last look, if there was nothing to do since.
        let mut before = None;
        loop {
            if queue.stop {
                return None;
            }
            if let Some(piece) = queue.take(self.compactions) {
                return Some((piece, Running(self)));
            }
            queue.idle += 1;
            let (again, in_time) = match queue.patience() {
                None => (self.changed.wait(queue), true),
                Some(time) => self.changed.wait_until(queue, time),
            };
            queue = again;
            queue.idle -= 1;
            if in_time {
                before = None;
                continue;
            }
            queue.try_again();
            let now = Some(written());
            if now == before
                && let Some(piece) = queue.take_calm(self.compactions)
            {
                return Some((piece, Running(self)));
            }
            before = now;
        }
    }

    /// After a piece has ended.
    pub fn done(&self, piece: Piece, result: &Result<()>) {
        self.add(|q| {
            let error = result.as_ref().err().cloned();
            match &piece {
                Piece::Flush(_) => {
                    q.flushing = false;
                    q.flush_error = error;
                }
                Piece::Compact(tree) => {
                    let others = q.end_compact(tree.id);
                    match error {
                        Some(e) => _ = q.compact_errors.insert(tree.id, e),
                        // One that found nothing to do beside others says nothing about them.
                        None if others => {}
                        None => _ = q.compact_errors.remove(&tree.id),
                    }
                }
                Piece::Calm(tree) => _ = q.end_compact(tree.id),
                Piece::Segment | Piece::Part(_) | Piece::Drop | Piece::Logs | Piece::Trim => {}
            }
            match result {
                // Nobody waits for it. Whatever changes the tree next asks again.
                Err(_) if matches!(piece, Piece::Calm(_)) => {}
                Err(_) => q.failed.put(piece),
                Ok(()) => {
                    // A tree that cannot be compacted costs much each time, and gains nothing by
                    // what others did.
                    let compact = std::mem::take(&mut q.failed.compact);
                    q.try_again();
                    q.failed.compact = compact;
                }
            }
        });
    }

    pub fn counts(&self) -> Counts {
        let queue = self.queue.lock();
        Counts {
            flushes_running: usize::from(queue.flushing),
            flushes_queued: queue.wanted.flush.len() + queue.failed.flush.len(),
            compactions_running: queue.compacting.len(),
            compactions_queued: queue.wanted.compact.len() + queue.failed.compact.len(),
        }
    }

    /// Why the flush that is to come again failed, unless it runs again already.
    pub fn flush_failed(&self) -> Option<Error> {
        let queue = self.queue.lock();
        queue.flush_error.clone().filter(|_| !queue.flushing)
    }

    /// Why no room is made in the tree `id`, unless it is being tried again just now.
    pub fn failed(&self, id: KeyspaceId) -> Option<Error> {
        let queue = self.queue.lock();
        let compact = queue.compact_errors.get(&id).filter(|_| !queue.compacting.contains_key(&id));
        queue.flush_error.as_ref().filter(|_| !queue.flushing).or(compact).cloned()
    }
}

impl Wanted {
    fn put(&mut self, piece: Piece) {
        match piece {
            Piece::Segment => self.segment = true,
            Piece::Drop => self.drop = true,
            Piece::Logs => self.logs = true,
            Piece::Trim => self.trim = true,
            Piece::Flush(trees) => self.flush.extend(trees.into_iter().map(|t| (t.id, t))),
            Piece::Compact(tree) => _ = self.compact.insert(tree.id, tree),
            Piece::Calm(_) | Piece::Part(_) => {}
        }
    }

    fn is_empty(&self) -> bool {
        !(self.segment || self.drop || self.logs || self.trim)
            && self.flush.is_empty()
            && self.compact.is_empty()
    }
}

impl Queue {
    /// Puts what failed back among the rest.
    fn try_again(&mut self) {
        let Wanted { segment, drop, logs, trim, flush, compact } = std::mem::take(&mut self.failed);
        self.wanted.segment |= segment;
        self.wanted.drop |= drop;
        self.wanted.logs |= logs;
        self.wanted.trim |= trim;
        self.wanted.flush.extend(flush);
        self.wanted.compact.extend(compact);
    }

    fn take(&mut self, compactions: usize) -> Option<Piece> {
        if self.stop {
            return None;
        }
        if let Some(piece) = self.take_urgent() {
            return Some(piece);
        }
        let piece = if std::mem::take(&mut self.wanted.drop) {
            Piece::Drop
        } else if std::mem::take(&mut self.wanted.logs) {
            Piece::Logs
        } else if std::mem::take(&mut self.wanted.trim) {
            Piece::Trim
        } else {
            self.take_compact(compactions)?
        };
        self.running += 1;
        Some(piece)
    }

    fn take_urgent(&mut self) -> Option<Piece> {
        if !self.stop && std::mem::take(&mut self.wanted.segment) {
            self.running += 1;
            return Some(Piece::Segment);
        }
        if !self.stop
            && let Some(part) = self.parts.pop()
        {
            self.running += 1;
            return Some(Piece::Part(part));
        }
        self.take_flush()
    }

    fn take_flush(&mut self) -> Option<Piece> {
        if self.stop || self.flushing || self.wanted.flush.is_empty() {
            return None;
        }
        self.flushing = true;
        self.running += 1;
        Some(Piece::Flush(std::mem::take(&mut self.wanted.flush).into_values().collect()))
    }

    /// Trees take turns: one that always wants more does not keep the others waiting. A tree that
    /// still wants something may be taken by several.
    fn take_compact(&mut self, compactions: usize) -> Option<Piece> {
        if self.compacting.values().sum::<usize>() >= compactions {
            return None;
        }
        let wanted = &self.wanted.compact;
        let after = wanted.range((Bound::Excluded(self.compacted), Bound::Unbounded));
        let id = after.chain(wanted.range(..=self.compacted)).map(|(id, _)| *id).next()?;
        let tree = self.wanted.compact.remove(&id)?;
        self.compacted = id;
        Some(self.begin_compact(tree))
    }

    fn begin_compact(&mut self, tree: Arc<Tree>) -> Piece {
        *self.compacting.entry(tree.id).or_insert(0) += 1;
        Piece::Compact(tree)
    }

    /// What is worth doing when nothing else is.
    fn take_calm(&mut self, compactions: usize) -> Option<Piece> {
        if self.stop || self.compacting.values().sum::<usize>() >= compactions {
            return None;
        }
        let tree = std::iter::from_fn(|| self.calm.pop_first()).find_map(|(_, tree)| tree.upgrade())?;
        *self.compacting.entry(tree.id).or_insert(0) += 1;
        self.running += 1;
        Some(Piece::Calm(tree))
    }

    /// How long to wait for something to do before looking around.
    fn patience(&self) -> Option<Duration> {
        match (self.failed.is_empty(), self.calm.is_empty()) {
            (false, _) => Some(RETRY),
            (true, false) => Some(CALM),
            (true, true) => None,
        }
    }

    /// Whether others are still at it.
    fn end_compact(&mut self, id: KeyspaceId) -> bool {
        let Some(count) = self.compacting.get_mut(&id) else { return false };
        *count -= 1;
        if *count == 0 {
            self.compacting.remove(&id);
        }
        self.compacting.contains_key(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memtable;
    use crate::options::KeyspaceOptions;
    use crate::view::{Mem, View};

    fn tree(id: u32) -> Arc<Tree> {
        let memtables = vec![Mem::new(memtable::new().1)];
        let view = View { memtables, runs: Vec::new(), flushed: Seq::ZERO };
        Arc::new(Tree::new(KeyspaceId(id), KeyspaceOptions::default(), view, Arc::default()))
    }

    fn name(piece: &Piece) -> String {
        match piece {
            Piece::Segment => "segment".into(),
            Piece::Flush(trees) => format!("flush {}", trees.len()),
            Piece::Part(_) => "part".into(),
            Piece::Drop => "drop".into(),
            Piece::Logs => "logs".into(),
            Piece::Trim => "trim".into(),
            Piece::Compact(tree) => format!("compact {}", tree.id),
            Piece::Calm(tree) => format!("calm {}", tree.id),
        }
    }

    /// Takes the next piece and ends it, well or not.
    fn next(work: &Work, fails: &dyn Fn(&str) -> bool) -> Option<String> {
        let (piece, _running) = work.take()?;
        let name = name(&piece);
        let result = if fails(&name) { Err(Error::corruption("broken")) } else { Ok(()) };
        work.done(piece, &result);
        Some(name)
    }

    #[test]
    fn the_most_urgent_comes_first_and_trees_take_turns() {
        let work = Work::new(0);
        for id in [1, 2, 3] {
            work.want_compact(tree(id));
        }
        work.want_segment();
        work.want_drop();
        work.want_flush(vec![tree(1), tree(2)]);
        let mut done = Vec::new();
        while let Some(name) = next(&work, &|_| false) {
            // The first tree always wants more.
            if done.len() < 9 {
                work.want_compact(tree(1));
            }
            done.push(name);
        }
        let first = ["segment", "flush 2", "drop", "compact 1", "compact 2", "compact 3"];
        assert_eq!(&done[..6], first);
        assert!(done[6..].iter().all(|d| d == "compact 1"));
    }

    #[test]
    fn what_fails_lets_everything_else_go_first() {
        let work = Work::new(0);
        work.want_segment();
        work.want_flush(vec![tree(7)]);
        for id in [1, 2] {
            work.want_compact(tree(id));
        }
        let fails = |name: &str| name == "segment" || name == "compact 1";
        let done: Vec<_> = (0..8).map_while(|_| next(&work, &fails)).collect();
        for expect in ["segment", "flush 1", "compact 1", "compact 2"] {
            assert!(done.contains(&expect.to_string()), "{expect}: {done:?}");
        }
        assert!(work.failed(KeyspaceId(1)).is_some() && work.failed(KeyspaceId(2)).is_none());
        // They are not forgotten.
        let later: Vec<_> = (0..4).map_while(|_| next(&work, &|_| false)).collect();
        assert!(later.contains(&"segment".into()) && later.contains(&"compact 1".into()), "{later:?}");
        assert!(work.failed(KeyspaceId(1)).is_none());
        assert!(work.take().is_none());
    }

    #[test]
    fn a_thread_is_kept_for_flushes() {
        let work = Work::new(3);
        for id in [1, 2, 3] {
            work.want_compact(tree(id));
        }
        let (one, two) = (work.take().unwrap(), work.take().unwrap());
        assert!(work.take().is_none());
        work.want_flush(vec![tree(1)]);
        assert_eq!(name(&work.take().unwrap().0), "flush 1");
        drop((one, two));
        work.stop();
        work.settle();
        assert!(work.take().is_none() && work.take_flush().is_none());
    }

    #[test]
    fn a_tree_that_wants_more_is_compacted_by_several() {
        let work = Work::new(4);
        let mut pieces = Vec::new();
        for _ in 0..3 {
            work.want_compact(tree(1));
            pieces.push(work.take().unwrap());
        }
        work.want_compact(tree(1));
        assert!(work.take().is_none() && work.take_failed(KeyspaceId(1)).is_none());
        // One of them has failed; another found nothing to do.
        let broken = Err(Error::corruption("broken"));
        work.done(pieces.pop().unwrap().0, &broken);
        work.done(pieces.pop().unwrap().0, &Ok(()));
        assert!(work.failed(KeyspaceId(1)).is_none(), "somebody is at it");
        work.done(pieces.pop().unwrap().0, &broken);
        assert!(work.failed(KeyspaceId(1)).is_some());
        assert_eq!(next(&work, &|_| false).unwrap(), "compact 1");
        assert!(work.failed(KeyspaceId(1)).is_none());
    }

    #[test]
    fn what_is_urgent_is_taken_by_those_at_work_if_nobody_waits() {
        let work = Work::new(2);
        work.want_compact(tree(1));
        let merge = work.take().unwrap();
        work.want_flush(vec![tree(1)]);
        work.want_segment();
        work.want_drop();
        let names: Vec<String> =
            std::iter::from_fn(|| work.take_urgent().map(|(piece, _running)| name(&piece))).collect();
        assert_eq!(names, ["segment", "flush 1"]);
        // There is a thread for it.
        work.want_segment();
        work.queue.lock().idle = 1;
        assert!(work.take_urgent().is_none());
        drop(merge);
    }

    #[test]
    fn what_only_helps_reads_comes_when_nothing_is_written() {
        let work = Work::new(2);
        let (one, two) = (tree(1), tree(2));
        work.want_calm(&one);
        work.want_calm(&two);
        work.want_compact(one.clone());
        drop(two);
        let done: Vec<_> = (0..4).map_while(|_| next(&work, &|_| false)).collect();
        assert_eq!(done, ["compact 1", "calm 1"]);
        // It is not tried again by itself.
        work.want_calm(&one);
        assert_eq!(next(&work, &|_| true).unwrap(), "calm 1");
        assert!(work.take().is_none() && work.failed(KeyspaceId(1)).is_none());
        // Threads see whether something is being written: at the first look, and for a while since then.
        let written = std::cell::Cell::new(0);
        work.want_calm(&one);
        let (piece, _running) = work
            .wait(|| {
                written.set(written.get() + 1);
                Seq::new(written.get().min(3)).unwrap()
            })
            .unwrap();
        assert_eq!((name(&piece).as_str(), written.get()), ("calm 1", 4));
        // One compaction at a time leaves no room for another.
        work.want_calm(&one);
        assert!(work.take().is_none());
    }

    #[test]
    fn what_snapshots_hold_back_is_queued_once_they_have_gone() {
        let work = Work::new(0);
        let seq = |n| Seq::new(n).unwrap();
        let (one, two) = (tree(1), tree(2));
        work.hold(&one, Some(seq(5)), || seq(3));
        work.hold(&two, Some(seq(7)), || seq(3));
        work.snapshots_gone(seq(4));
        assert!(work.take().is_none());
        work.snapshots_gone(seq(6));
        assert_eq!(next(&work, &|_| false).unwrap(), "compact 1");
        assert!(work.take().is_none());
        // It went while that was found out.
        work.hold(&one, Some(seq(9)), || seq(9));
        assert_eq!(next(&work, &|_| false).unwrap(), "compact 2");
        assert_eq!(next(&work, &|_| false).unwrap(), "compact 1");
        // Nothing waits any more, or the tree is gone.
        work.hold(&one, Some(seq(20)), || seq(9));
        work.hold(&one, None, || seq(9));
        work.hold(&two, Some(seq(21)), || seq(9));
        drop(two);
        work.snapshots_gone(seq(30));
        assert!(work.take().is_none() && work.queue.lock().held.is_empty());
    }
}
