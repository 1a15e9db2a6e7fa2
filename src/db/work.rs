//! Background work: the doing of one piece of it. Threads take pieces one after another; with no
//! threads they are taken by hand.

use crate::db::core::{Core, Installed};
use crate::db::queue::Piece;
use crate::db::tree::Tree;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{KeyspaceId, Seq};
use crate::job::output::{OutputOptions, discard};
use crate::job::{compact, flush, pick};
use crate::memtable::Memtable;
use crate::table::WriteOptions;
use crate::version::{Change, TableMeta};
use crate::view::run::Run;
use std::sync::Arc;
use std::time::Duration;

/// Runs of level 0 at which a keyspace is compacted.
const L0_RUNS: usize = 4;
/// Runs of level 0 at which writes wait.
const L0_STALL: usize = 24;
/// Frozen memtables may hold this many times the size of one before writes wait.
const FROZEN_MEMTABLES: usize = 3;
/// A job that failed is tried again after this long, or when something changes.
const RETRY: Duration = Duration::from_millis(500);

/// The frozen memtables of a tree, and the newest of their operations.
type Frozen<'a> = (&'a Arc<Tree>, Vec<Arc<Memtable>>, Seq);

impl Core {
    /// Does the most urgent piece of work. `false`: there is none.
    pub fn step(&self) -> Result<bool> {
        let Some(piece) = self.work.take() else { return Ok(false) };
        self.run(piece).map(|()| true)
    }

    /// The body of a background thread.
    pub fn run_worker(&self) {
        while let Some(piece) = self.work.wait() {
            if let Err(e) = self.run(piece) {
                if self.failure().is_some() {
                    return;
                }
                log::warn!("background work failed and will be tried again: {e}");
                self.work.pause(RETRY);
            }
        }
    }

    fn run(&self, piece: Piece) -> Result<()> {
        let result = match &piece {
            Piece::Segment => self.prepare_segment(),
            Piece::Seal => self.seal_retired(),
            Piece::Drop => self.forget_dropped(),
            Piece::Flush(trees) => self.flush_trees(trees),
            Piece::Compact(tree) => self.compact_once(tree),
        };
        self.work.done(piece, &result);
        self.wake_writers();
        result
    }

    /// Syncs the segments the journal has left; their ends go to the manifest with the next edit.
    fn seal_retired(&self) -> Result<()> {
        if self.commit.lock().retired.is_empty() {
            return Ok(());
        }
        self.sync_to(self.snapshots.visible())
    }

    /// Takes dropped keyspaces and their tables out of the manifest; their files go when the last
    /// snapshot or iterator lets go of them.
    fn forget_dropped(&self) -> Result<()> {
        let dropped: Vec<(Seq, Arc<Tree>)> =
            self.registry.lock().dropped.iter().map(|d| (d.seq, d.tree.clone())).collect();
        let Some(last) = dropped.iter().map(|d| d.0).max() else { return Ok(()) };
        // Without this a crash could bring a keyspace back that has lost its tables.
        self.sync_to(last)?;
        let known: Vec<KeyspaceId> = {
            let version = self.version.lock();
            let state = version.as_ref().map(|set| &set.state().keyspaces);
            dropped.iter().map(|d| d.1.id).filter(|id| state.is_some_and(|s| s.contains_key(id))).collect()
        };
        let changes = known.iter().map(|&keyspace| Change::DropKeyspace { keyspace }).collect();
        if !known.is_empty() {
            self.install(Installed { changes, ..Installed::default() })?;
        }
        for (_, tree) in &dropped {
            for table in tree.view.load().runs.iter().flat_map(|r| r.tables.iter()) {
                table.handle.obsolete();
            }
        }
        self.registry.lock().dropped.retain(|d| !dropped.iter().any(|(_, tree)| Arc::ptr_eq(tree, &d.tree)));
        self.forget_before(self.snapshots.oldest());
        Ok(())
    }

    /// Flushes the frozen memtables of `trees`: one directory sync and one edit for all of them.
    fn flush_trees(&self, trees: &[Arc<Tree>]) -> Result<()> {
        let mut frozen: Vec<Frozen<'_>> = Vec::new();
        for tree in trees {
            let mems: Vec<_> = tree.view.load().memtables.iter().skip(1).map(|m| m.table.clone()).collect();
            if let Some(last) = mems.iter().map(|m| m.max_seq()).max() {
                frozen.push((tree, mems, last));
            }
        }
        let Some(last) = frozen.iter().map(|f| f.2).max() else { return Ok(()) };
        // A table is published only once the journal is durable up to its newest operation: the
        // state after a crash must be a prefix over all keyspaces.
        self.sync_to(last)?;
        let horizon = self.snapshots.horizon();
        let mut installed = Installed::default();
        let mut made = MadeTables { core: self, tables: Vec::new() };
        for (tree, mems, last) in frozen {
            let id = tree.id;
            let tables =
                flush::flush(&mems, &horizon, &self.store, self.output(tree), &mut || self.new_table())?;
            made.note(&tables);
            let add = |table| Change::AddTable { keyspace: id, level: 0, run: last, table };
            installed.changes.extend(tables.into_iter().map(add));
            installed.changes.push(Change::Flushed { keyspace: id, seq: last });
            installed.flushed.push((id, mems, last));
            installed.touched.push(id);
        }
        self.publish(installed, made)?;
        for tree in trees {
            self.work.want_compact(tree.clone());
        }
        Ok(())
    }

    /// One compaction of `tree`, if it wants one; queues the next.
    fn compact_once(&self, tree: &Arc<Tree>) -> Result<()> {
        let plan = {
            let version = self.version.lock();
            let state = version.as_ref().and_then(|set| set.state().keyspaces.get(&tree.id));
            state.and_then(|s| pick::pick(&s.levels, &|_| false, &self.pick_options()))
        };
        let Some(plan) = plan else { return Ok(()) };
        self.compact_plan(tree, &plan)?;
        self.work.want_compact(tree.clone());
        Ok(())
    }

    fn pick_options(&self) -> pick::PickOptions {
        pick::PickOptions {
            l0_runs: L0_RUNS,
            level_base: self.options.memtable_bytes as u64 * L0_RUNS as u64,
            fanout: 10,
            table_bytes: self.options.table_bytes,
        }
    }

    fn compact_plan(&self, tree: &Arc<Tree>, plan: &pick::Plan) -> Result<()> {
        let id = tree.id;
        let view = tree.view.load_full();
        let mut inputs: Vec<Arc<Run>> = Vec::new();
        let mut changes: Vec<Change> = Vec::new();
        for run in &view.runs {
            let chosen = |no| plan.inputs.iter().any(|&(level, input)| level == run.level && input == no);
            let tables: Vec<_> = run.tables.iter().filter(|t| chosen(t.meta.no)).cloned().collect();
            for table in &tables {
                changes.push(Change::RemoveTable { keyspace: id, level: run.level, no: table.meta.no });
            }
            if !tables.is_empty() {
                inputs.push(Arc::new(Run::new(run.level, tables)));
            }
        }
        if changes.len() != plan.inputs.len() {
            return Err(Error::new(ErrorKind::Io, "a compaction was planned on tables that are gone"));
        }
        let add = |table| Change::AddTable { keyspace: id, level: plan.level_out, run: plan.run_out, table };
        if plan.trivial {
            changes.extend(inputs.iter().flat_map(|r| r.tables.iter()).map(|t| add((*t.meta).clone())));
            return self
                .install(Installed { changes, touched: vec![id], ..Installed::default() })
                .map(|_| ());
        }
        let horizon = self.snapshots.horizon();
        let new_table = &mut || self.new_table();
        let tables =
            compact::compact(&inputs, plan.bottom, &horizon, &self.store, self.output(tree), new_table)?;
        let mut made = MadeTables { core: self, tables: Vec::new() };
        made.note(&tables);
        changes.extend(tables.into_iter().map(add));
        self.publish(Installed { changes, touched: vec![id], ..Installed::default() }, made)
    }

    fn output(&self, tree: &Tree) -> OutputOptions {
        let o = *tree.options.lock();
        let write = WriteOptions {
            block_bytes: o.block_bytes,
            compression: o.compression,
            filter_bits: o.filter_bits,
        };
        OutputOptions { write, table_bytes: self.options.table_bytes }
    }

    /// Makes the names of new tables durable, then installs them.
    fn publish(&self, installed: Installed, mut made: MadeTables<'_>) -> Result<()> {
        if !made.tables.is_empty() {
            self.fs.sync_dir(&self.dir).map_err(|e| Error::io("syncing the directory", &self.dir, e))?;
        }
        let result = self.install(installed);
        match &result {
            Ok(edit) => made.tables.retain(|no| !edit.adds(*no)),
            // After a failure that leaves unknown what the manifest holds, nothing is removed.
            Err(_) if self.failure().is_some() => made.tables.clear(),
            Err(_) => {}
        }
        result.map(|_| ())
    }

    /// Waits until there is room for a write: while too much is frozen or level 0 is too deep.
    /// Never under a lock. `deadline`: then a typed error, and nothing was written.
    pub fn await_room(
        &self,
        trees: &[Arc<Tree>],
        deadline: Option<crate::db::clock::Deadline>,
    ) -> Result<()> {
        loop {
            if trees.iter().all(|t| self.has_room(t)) {
                return Ok(());
            }
            self.writable()?;
            if self.options.workers == 0 {
                if !self.step()? {
                    return Ok(());
                }
                continue;
            }
            // A full disk is not waited for, but it is looked at anew: space may have come back since
            // a worker last met it.
            if self.work.error().is_some_and(|e| e.kind() == ErrorKind::DiskFull) && self.step()? {
                continue;
            }
            let guard = self.room.0.lock();
            let left = match deadline {
                None => RETRY,
                Some(d) => d.left().ok_or_else(|| {
                    Error::new(ErrorKind::Busy, "no room for the write before its deadline")
                })?,
            };
            drop(self.room.1.wait_timeout(guard, left.min(RETRY)));
        }
    }

    #[inline]
    fn has_room(&self, tree: &Tree) -> bool {
        let view = tree.view.load();
        if view.memtables.len() <= 1 && view.runs.len() < L0_STALL {
            return true;
        }
        let frozen: usize = view.memtables.iter().skip(1).map(|m| m.table.bytes()).sum();
        frozen <= FROZEN_MEMTABLES * self.options.memtable_bytes
            && view.runs.iter().filter(|r| r.level == 0).count() < L0_STALL
    }

    /// Waits until everything that is frozen now is in tables; does the work itself where it can.
    pub fn await_flushed(&self) -> Result<()> {
        let trees: Vec<Arc<Tree>> = self.registry.lock().trees().cloned().collect();
        let frozen: Vec<(Arc<Tree>, Seq)> = trees
            .into_iter()
            .filter_map(|tree| {
                let last = tree.view.load().memtables.iter().skip(1).map(|m| m.table.max_seq()).max()?;
                Some((tree, last))
            })
            .collect();
        for (tree, last) in frozen {
            while tree.view.load().flushed < last && self.registry.lock().tree(tree.id).is_some() {
                if let Some(e) = self.failure() {
                    return Err(e);
                }
                if self.step()? {
                    continue;
                }
                if let Some(e) = self.work.error() {
                    return Err(e);
                }
                let guard = self.room.0.lock();
                drop(self.room.1.wait_timeout(guard, Duration::from_millis(10)));
            }
        }
        Ok(())
    }
}

/// New tables that no manifest names yet: removed if the job ends before one does.
struct MadeTables<'a> {
    core: &'a Core,
    tables: Vec<crate::ids::FileNo>,
}

impl MadeTables<'_> {
    fn note(&mut self, tables: &[TableMeta]) {
        self.tables.extend(tables.iter().map(|t| t.no));
    }
}

impl Drop for MadeTables<'_> {
    fn drop(&mut self) {
        for &no in &self.tables {
            discard(&self.core.store, no);
        }
    }
}
