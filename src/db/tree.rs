//! A tree: the memtables and tables of one keyspace id. A slot: the name a handle stands for, and
//! the tree it stood for at each moment.

use crate::counters::{Jobs, Tally};
use crate::db::throttle::{Gauge, Load, Throttle};
use crate::error::{Error, ErrorKind};
use crate::ids::{FileNo, KeyspaceId, Seq};
use crate::memtable::Memtable;
use crate::mutant::Mutant;
use crate::options::KeyspaceOptions;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::view::run::Run;
use crate::view::{Mem, View};
use arc_swap::{ArcSwap, ArcSwapOption};
use std::collections::HashSet;
use std::sync::Arc;

/// One keyspace id: its current view, swapped whole.
pub(crate) struct Tree {
    pub id: KeyspaceId,
    pub options: Mutex<KeyspaceOptions>,
    pub view: ArcSwap<View>,
    pub counters: TreeCounters,
    /// How long writes are delayed by what this tree has yet to compact.
    pub gauge: Gauge,
    /// What all trees share.
    throttle: Arc<Throttle>,
    /// Held while a new view is made of the old one: the bytes of its frozen memtables as they are
    /// counted in `throttle`; `None` once the tree was dropped.
    swap: Mutex<Option<u64>>,
}

/// What is counted for each tree. On cache lines of its own: each commit writes here, and each read
/// loads the view beside it.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct TreeCounters {
    /// Keys and values as callers wrote them. Counted under the lock on commits, like operations.
    pub bytes_in: Tally,
    pub operations: Tally,
    pub jobs: Jobs,
    /// Bytes by which levels below level 0 exceed their targets. Set under the lock on versions.
    pub excess: Tally,
}

/// Puts trees in the order of their ids, each once.
pub(crate) fn put_in_order(trees: &mut Vec<Arc<Tree>>) {
    trees.sort_by_key(|tree| tree.id);
    trees.dedup_by_key(|tree| tree.id);
}

impl Tree {
    pub fn new(id: KeyspaceId, options: KeyspaceOptions, view: View, throttle: Arc<Throttle>) -> Tree {
        let gauge = Gauge::default();
        gauge.set(level0(&view.runs).pressure());
        let (options, view) = (Mutex::new(options), ArcSwap::from_pointee(view));
        let counters = TreeCounters::default();
        Tree { id, options, view, counters, gauge, throttle, swap: Mutex::new(Some(0)) }
    }

    /// Counts what is frozen in `memtables`.
    fn count_frozen(&self, counted: &mut Option<u64>, memtables: &[Mem]) {
        let Some(before) = counted else { return };
        let now = memtables.iter().skip(1).map(|m| m.table.bytes() as u64).sum();
        if *before != now {
            self.throttle.frozen(*before, now);
            *before = now;
        }
    }

    /// The tree was dropped: what it holds will not be flushed, and nobody waits for that.
    pub fn discount(&self) {
        let mut counted = self.swap.lock();
        self.count_frozen(&mut counted, &[]);
        *counted = None;
    }

    /// A new memtable in front: the one written to until now is frozen.
    pub fn rotate(&self, fresh: Mem) {
        let mut counted = self.swap.lock();
        let old = self.view.load();
        let mut memtables = Vec::with_capacity(old.memtables.len() + 1);
        memtables.push(fresh);
        memtables.extend(old.memtables.iter().cloned());
        self.count_frozen(&mut counted, &memtables);
        self.view.store(Arc::new(View { memtables, runs: old.runs.clone(), flushed: old.flushed }));
    }

    /// Tables in `close` get fresh handles: they are closed with the last reader of the view before, which
    /// is answered. `None`: there are none of them.
    pub fn reopen(&self, close: &HashSet<FileNo>) -> Option<Arc<View>> {
        let _guard = self.swap.lock();
        let old = self.view.load_full();
        let changed: Vec<_> = old.runs.iter().map(|run| run.reopened(close)).collect();
        if changed.iter().all(Option::is_none) {
            return None;
        }
        let runs = changed.into_iter().zip(&old.runs);
        let runs = runs.map(|(new, old)| new.map_or_else(|| old.clone(), Arc::new)).collect();
        self.view.store(Arc::new(View { memtables: old.memtables.clone(), runs, flushed: old.flushed }));
        Some(old)
    }

    /// New runs; `gone` memtables are in them now. `levels`: what is to be compacted of them.
    pub fn install(
        &self,
        runs: impl FnOnce(&View) -> Vec<Arc<Run>>,
        gone: &[Arc<Memtable>],
        flushed: Seq,
        levels: Load,
    ) {
        let mut counted = self.swap.lock();
        let old = self.view.load();
        let stays = |m: &&Mem| !gone.iter().any(|g| Arc::ptr_eq(g, &m.table));
        let memtables: Vec<Mem> = old.memtables.iter().filter(stays).cloned().collect();
        debug_assert!(!memtables.is_empty());
        self.count_frozen(&mut counted, &memtables);
        let runs = runs(&old);
        self.gauge.set(level0(&runs).pressure().max(levels.pressure()));
        self.view.store(Arc::new(View { memtables, runs, flushed: old.flushed.max(flushed) }));
    }
}

fn level0(runs: &[Arc<Run>]) -> Load {
    Load::level0(runs.iter().filter(|r| r.level == 0).count())
}

/// What a handle by name stands for: the current tree, and those that snapshots may still need.
pub(crate) struct Slot {
    /// The row's key in the catalog.
    pub key: Vec<u8>,
    /// `None`: dropped.
    pub tree: ArcSwapOption<Tree>,
    /// How often the name came to stand for another tree.
    changes: AtomicU64,
    /// Which tree the name stood for from which sequence number on, oldest first, never empty.
    history: Mutex<Vec<(Seq, Option<Arc<Tree>>)>>,
}

impl Slot {
    pub fn new(key: Vec<u8>, since: Seq, tree: Arc<Tree>) -> Slot {
        Slot {
            key,
            tree: ArcSwapOption::from(Some(tree.clone())),
            changes: AtomicU64::new(0),
            history: Mutex::new(vec![(since, Some(tree))]),
        }
    }

    /// From `since` on the name stands for `tree` (`None`: for nothing).
    pub fn change(&self, since: Seq, tree: Option<Arc<Tree>>) {
        self.history.lock().push((since, tree.clone()));
        self.tree.store(tree);
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Who reads the same number before it loads the tree, and later under the lock on commits, knows that
    /// the name stands for that tree still: it changes only under that lock.
    #[inline]
    pub fn changes(&self) -> u64 {
        // Acquire: the tree that is loaded next is at least as new.
        self.changes.load(Ordering::Acquire)
    }

    /// The tree at sequence number `at`; `Err` if the name was not there yet, `Ok(None)` if it had
    /// been dropped.
    pub fn tree_at(&self, at: Seq) -> Result<Option<Arc<Tree>>, NotYet> {
        let history = self.history.lock();
        let after = history.partition_point(|(since, _)| *since <= at);
        match after.checked_sub(1) {
            Some(i) => Ok(history[i].1.clone()),
            None => Err(NotYet),
        }
    }

    /// All trees that the name has stood for, as far as anybody may ask.
    pub fn past(&self) -> Vec<Arc<Tree>> {
        self.history.lock().iter().filter_map(|(_, tree)| tree.clone()).collect()
    }

    /// Whether the name came to stand for another tree after `at`. That it was given at all is not
    /// a change.
    pub fn changed_since(&self, at: Seq) -> bool {
        let history = self.history.lock();
        history.len() > history.partition_point(|(since, _)| *since <= at).max(1)
    }

    /// Takes out the trees that no snapshot at or above `oldest` needs. Whether older ones remain.
    pub fn forget_before(&self, oldest: Seq, forgotten: &mut Vec<Arc<Tree>>) -> bool {
        let oldest = if Mutant::DropIgnoresSnapshots.on() { Seq::MAX } else { oldest };
        let mut history = self.history.lock();
        let needed = history.partition_point(|(since, _)| *since <= oldest).saturating_sub(1);
        forgotten.extend(history.drain(..needed).filter_map(|(_, tree)| tree));
        history.len() > 1
    }
}

/// The name was given after the snapshot.
pub(crate) struct NotYet;

/// The error of every use of a handle whose keyspace is gone.
#[cold]
pub(crate) fn dropped() -> Error {
    Error::new(ErrorKind::Closed, "the keyspace was dropped")
}
