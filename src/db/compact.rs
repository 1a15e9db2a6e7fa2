//! Compacting: plans are picked, carried out, and their outcome installed.

use crate::db::clock::Moment;
use crate::db::core::{Core, Installed};
use crate::db::events::Sum;
use crate::db::publish::MadeTables;
use crate::db::tree::Tree;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{compact, pick};
use crate::version::Change;
use crate::view::run::Run;
use std::sync::Arc;

/// Runs of level 0 at which a keyspace is compacted.
pub(crate) const L0_RUNS: usize = 4;

impl Core {
    /// One compaction of `tree`, if it wants one; queues the next.
    pub fn compact_once(&self, tree: &Arc<Tree>) -> Result<()> {
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

    pub fn pick_options(&self) -> pick::PickOptions {
        pick::PickOptions {
            l0_runs: L0_RUNS,
            level_base: self.options.memtable_limit() as u64 * L0_RUNS as u64,
            fanout: 10,
            table_bytes: self.options.table_bytes,
        }
    }

    fn compact_plan(&self, tree: &Arc<Tree>, plan: &pick::Plan) -> Result<()> {
        let (id, began) = (tree.id, Moment::now());
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
        let read = Sum::of(inputs.iter().flat_map(|r| r.tables.iter()).map(|t| &*t.meta));
        if plan.trivial {
            changes.extend(inputs.iter().flat_map(|r| r.tables.iter()).map(|t| add((*t.meta).clone())));
            self.install(Installed { changes, touched: vec![id], ..Installed::default() })?;
            self.note_move(tree, plan.level_out, read);
            return Ok(());
        }
        self.snapshots.meet(began);
        let horizon = self.snapshots.horizon();
        let new_table = &mut || self.new_table();
        let tables = compact::compact(
            &inputs,
            plan.bottom,
            &horizon,
            &self.store,
            self.output(tree),
            new_table,
            &mut || Ok(()),
        )?;
        let mut made = MadeTables { core: self, tables: Vec::new() };
        made.note(&tables);
        let written = Sum::of(&tables);
        changes.extend(tables.into_iter().map(add));
        self.publish(Installed { changes, touched: vec![id], ..Installed::default() }, made)?;
        self.note_compaction(tree, plan.level_out, read, written, began);
        Ok(())
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
