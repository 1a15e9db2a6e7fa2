//! Background work: the doing of one piece of it. Threads take pieces one after another; with no
//! threads they are taken by hand.

use crate::db::core::{Core, Installed};
use crate::db::queue::Piece;
use crate::db::tree::Tree;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::names::Name;
use crate::ids::{FileNo, Seq};
use crate::job::output::{OutputOptions, discard};
use crate::job::{compact, flush, pick};
use crate::memtable::Memtable;
use crate::table::WriteOptions;
use crate::version::{Change, TableMeta};
use crate::view::run::Run;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Runs of level 0 at which a keyspace is compacted.
const L0_RUNS: usize = 4;
/// Runs of level 0 at which writes wait.
const L0_STALL: usize = 24;
/// Frozen memtables may hold this many times the size of one before writes wait.
const FROZEN_MEMTABLES: usize = 3;
/// Who waits looks again after this long at the latest.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The frozen memtables of a tree, and the newest of their operations.
type Frozen<'a> = (&'a Arc<Tree>, Vec<Arc<Memtable>>, Seq);

impl Core {
    /// Does the most urgent piece of work. `false`: there is none.
    pub fn step(&self) -> Result<bool> {
        match self.work.take() {
            Some((piece, _running)) => self.run(piece).map(|()| true),
            None => Ok(false),
        }
    }

    /// The body of a background thread.
    pub fn run_worker(&self) {
        while let Some((piece, _running)) = self.work.wait() {
            if let Err(e) = self.run(piece) {
                if self.failure().is_some() {
                    return;
                }
                log::warn!("background work failed and will be tried again: {e}");
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
        self.sync_retired()
    }

    /// Takes dropped keyspaces and their tables out of the manifest; their files go when the last
    /// snapshot or iterator lets go of them.
    fn forget_dropped(&self) -> Result<()> {
        let dropped: Vec<(Seq, Arc<Tree>)> =
            self.registry.lock().dropped.iter().map(|d| (d.seq, d.tree.clone())).collect();
        let Some(last) = dropped.iter().map(|d| d.0).max() else { return Ok(()) };
        // Without this a crash could bring a keyspace back that has lost its tables.
        self.sync_to(last)?;
        let mut changes = Vec::new();
        let mut tables: BTreeSet<FileNo> = BTreeSet::new();
        if let Some(set) = self.version.lock().as_ref() {
            for (_, tree) in &dropped {
                if let Some(state) = set.state().keyspaces.get(&tree.id) {
                    changes.push(Change::DropKeyspace { keyspace: tree.id });
                    tables.extend(state.levels.tables().map(|(_, table)| table.no));
                }
            }
        }
        if !changes.is_empty() {
            self.install(Installed { changes, ..Installed::default() })?;
        }
        for (_, tree) in &dropped {
            for table in tree.view.load().runs.iter().flat_map(|r| r.tables.iter()) {
                table.handle.obsolete();
                tables.remove(&table.meta.no);
            }
        }
        // Those that a job finished just when the keyspace was dropped: no view ever held them.
        for no in tables {
            self.remove_file(Name::Table(no));
        }
        self.registry.lock().forget_dropped(last);
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
            // There will be none as long as the work fails that makes it.
            let lacking = trees.iter().find(|t| !self.has_room(t)).map(|t| t.id);
            if let Some(e) = lacking.and_then(|id| self.work.failed(id)) {
                // Whether a disk is still full is tried here: space may have come back since.
                let again = e.kind() == ErrorKind::DiskFull && deadline.is_none();
                let again = lacking.filter(|_| again).and_then(|id| self.work.take_failed(id));
                let Some((piece, _running)) = again else { return Err(e) };
                self.run(piece)?;
                continue;
            }
            let guard = self.room.0.lock();
            let left = match deadline {
                None => LOOK_AGAIN,
                Some(d) => d.left().ok_or_else(|| {
                    Error::new(ErrorKind::Busy, "no room for the write before its deadline")
                })?,
            };
            // Under the lock, so that it is not missed when room is made just now.
            if !trees.iter().all(|t| self.has_room(t)) {
                drop(self.room.1.wait_timeout(guard, left.min(LOOK_AGAIN)));
            }
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

    /// Flushes what is frozen, when nobody else does any work any more.
    pub fn flush_last(&self) -> Result<()> {
        let trees: Vec<Arc<Tree>> = self.registry.lock().trees().cloned().collect();
        self.flush_trees(&trees)
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
                self.writable()?;
                if let Some((piece, _running)) = self.work.take_flush() {
                    self.run(piece)?;
                    continue;
                }
                if let Some(e) = self.work.flush_failed() {
                    return Err(e);
                }
                let guard = self.room.0.lock();
                if tree.view.load().flushed < last {
                    drop(self.room.1.wait_timeout(guard, Duration::from_millis(10)));
                }
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

#[cfg(test)]
mod tests {
    use crate::db::handle::Db;
    use crate::fs::sim::SimFs;
    use crate::job::pick::Plan;
    use crate::options::Options;
    use std::sync::Arc;

    /// It was removed with its old place, and with it the file once the last view was gone.
    #[test]
    fn a_table_that_moves_to_another_level_stays() {
        let sim = Arc::new(SimFs::new(1));
        let options = Options::default().workers(0).fs(sim);
        let db = Db::open("/db", options.clone()).unwrap();
        let a = db.keyspace("a").unwrap();
        a.put("k", "v").unwrap();
        db.flush().unwrap();
        let tree = a.slot.tree.load_full().unwrap();
        let (level, table) = {
            let version = db.core().version.lock();
            let levels = &version.as_ref().unwrap().state().keyspaces[&tree.id].levels;
            levels.tables().map(|(level, t)| (level, t.clone())).next().unwrap()
        };
        let plan = Plan {
            inputs: vec![(level, table.no)],
            level_out: level + 1,
            run_out: table.max_seq,
            bottom: true,
            trivial: true,
        };
        db.core().compact_plan(&tree, &plan).unwrap();
        drop((tree, a, db));
        let db = Db::open("/db", options).unwrap();
        assert_eq!(db.keyspace("a").unwrap().get("k").unwrap().unwrap(), "v");
    }
}
