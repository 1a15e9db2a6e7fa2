//! Giving way: closing tables that were not read for longest, and handing back memory that can be had
//! again.

use crate::db::core::Core;
use crate::error::{Error, Result};
use crate::fs::os::out_of_files;
use crate::ids::FileNo;
use crate::table::Handle;
use std::collections::HashSet;
use std::sync::Arc;

impl Core {
    /// Memory that can be had again gives way, if more is held than may be.
    pub fn trim_memory(&self) {
        if self.budget.total() > self.budget.limit() {
            self.pool.shrink(0);
            self.store.cache().trim();
        }
    }

    /// Keeps as much for new memtables as was written while the last ones were flushed, and one more: a
    /// writer that is ahead of the flushes takes all of that up before they give anything back.
    pub fn trim_pool(&self) {
        self.pool.shrink(self.throttle.memory().frozen as usize + self.options.memtable_limit());
    }

    /// Does `read`, and sees to it that not too many tables stay open. If the system refused to open one,
    /// others are closed, and `read` is tried once more; it must not hold a view in between.
    #[inline]
    pub fn reading<R>(&self, mut read: impl FnMut() -> Result<R>) -> Result<R> {
        let result = read();
        if self.store.pressed() { self.relieved(result, read) } else { result }
    }

    #[cold]
    fn relieved<R>(&self, result: Result<R>, mut read: impl FnMut() -> Result<R>) -> Result<R> {
        if result.as_ref().is_err_and(is_out_of_files) {
            self.trim_tables();
            return read();
        }
        self.relieve();
        result
    }

    /// Has tables closed, if too many are open: in the background where there is one.
    pub fn relieve(&self) {
        if !self.store.pressed() || !self.store.take_pressed() {
            return;
        }
        if self.options.workers == 0 || self.options.read_only {
            self.trim_tables();
        } else {
            self.work.want_trim();
        }
    }

    /// Closes the tables that were not read for longest, down to seven eighths of what may be open. Those
    /// that somebody is reading are closed when he is done.
    pub fn trim_tables(&self) {
        let mut hand = self.closed_last.lock();
        let _ = self.store.take_pressed();
        self.logs.close_unused();
        let (files, bytes) = self.store.excess(7);
        if (files, bytes) == (0, 0) {
            return;
        }
        let trees = self.registry.lock().all_trees();
        let mut open: Vec<(Arc<Handle>, usize)> = Vec::new();
        for tree in &trees {
            let view = tree.view.load();
            let tables = view.runs.iter().flat_map(|run| run.tables.iter());
            open.extend(tables.filter_map(|t| Some((t.handle.clone(), t.handle.opened()?.held()))));
        }
        open.sort_by_key(|(handle, _)| handle.no());
        let start = open.partition_point(|(handle, _)| handle.no() <= *hand);
        let held: Vec<usize> = open.iter().map(|o| o.1).collect();
        let chosen = choose(&held, start, files, bytes, |i| open[i].0.take_used());
        let close: HashSet<FileNo> = chosen.iter().map(|&i| open[i].0.no()).collect();
        *hand = chosen.last().map_or(FileNo(0), |&i| open[i].0.no());
        // Handles and views go when nothing is locked: with the last of them a file may be removed.
        drop(hand);
        drop(open);
        for tree in trees {
            drop(tree.reopen(&close));
        }
    }
}

/// Whether the system has refused to open another file.
pub(crate) fn is_out_of_files(e: &Error) -> bool {
    e.io_error().is_some_and(out_of_files)
}

/// Which of the open tables, each holding so much memory, to close so that `files` fewer are open and
/// `bytes` fewer held: by a clock whose hand goes on from `start`. `used`: whether one was read since it
/// was last asked, which buys it another round.
fn choose(
    held: &[usize],
    start: usize,
    files: usize,
    bytes: usize,
    mut used: impl FnMut(usize) -> bool,
) -> Vec<usize> {
    let (mut chosen, mut freed) = (Vec::new(), 0);
    let mut spared = Vec::new();
    let round = (start..held.len()).chain(0..start.min(held.len()));
    for i in round {
        if chosen.len() >= files && freed >= bytes {
            return chosen;
        }
        if used(i) {
            spared.push(i);
        } else {
            freed += held[i];
            chosen.push(i);
        }
    }
    for i in spared {
        if chosen.len() >= files && freed >= bytes {
            break;
        }
        freed += held[i];
        chosen.push(i);
    }
    chosen
}

#[cfg(test)]
mod tests;
