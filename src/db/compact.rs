//! Compacting: plans are picked, carried out, and their outcome installed.

use crate::db::claims::Claim;
use crate::db::clock::Moment;
use crate::db::core::{Core, Installed};
use crate::db::events::Sum;
use crate::db::publish::MadeTables;
use crate::db::tree::{Tree, dropped};
use crate::error::{Error, ErrorKind, Result, closed};
use crate::ids::FileNo;
use crate::job::compact::{self, Inputs};
use crate::job::pick::{self, Manual, PickOptions, Plan};
use crate::version::{Change, Levels, Span, VersionSet};
use crate::view::run::Run;
use std::sync::Arc;

/// Runs of level 0 at which a keyspace is compacted.
pub(crate) const L0_RUNS: usize = 12;

/// The base level is at most so many memtables large.
const BASE_MEMTABLES: u64 = 32;

/// Called every now and then while a job runs: does what is more urgent; its error abandons the job.
pub(crate) type Pause<'a> = &'a mut dyn FnMut() -> Result<()>;

impl Core {
    /// One compaction of `tree`, if it wants one; queues the next. `calm`: also one that only helps reads.
    pub fn compact_once(&self, tree: &Arc<Tree>, calm: bool, pause: Pause<'_>) -> Result<()> {
        let oldest = self.snapshots.oldest();
        let picked = self.choose(tree, |levels, busy| {
            let pick = |calm| pick::pick(levels, busy, oldest, &PickOptions { calm, ..self.pick_options() });
            let plan = pick(calm);
            let left = plan.is_none();
            let held = if left { pick::held_until(levels, oldest) } else { None };
            (plan, (held, left && !calm && pick(true).is_some()))
        });
        let Some(((held, later), claimed)) = picked else { return Ok(()) };
        let Some((plan, claim)) = claimed else {
            self.work.hold(tree, held, || self.snapshots.oldest());
            // On a full disk it would be given up, and asked for again for ever.
            if later && !self.is_short_of_space() {
                self.work.want_calm(tree);
            }
            return Ok(());
        };
        // Another worker may find something beside it.
        self.work.want_compact(tree.clone());
        match self.compact_plan(tree, &plan, pause) {
            // The keyspace was dropped, or the database is closing: nobody minds.
            Err(e) if e.kind() == ErrorKind::Closed => return Ok(()),
            result => result?,
        }
        drop(claim);
        self.work.want_compact(tree.clone());
        Ok(())
    }

    /// Brings all that is in `span` by now down to the deepest level, in this thread; waits for jobs
    /// that are in the way. Not under a lock.
    pub fn compact_range(&self, tree: &Arc<Tree>, span: Span<'_>, pause: Pause<'_>) -> Result<()> {
        let since = {
            let version = self.version.lock();
            let Some(state) = version.as_ref().map(VersionSet::state) else { return Err(closed()) };
            let Some(keyspace) = state.keyspaces.get(&tree.id) else { return Ok(()) };
            pick::Since { seq: keyspace.flushed, file: state.next_file }
        };
        loop {
            self.writable()?;
            let ended = self.claims.ended();
            let oldest = self.snapshots.oldest();
            let chosen = self.choose(tree, |levels, busy| {
                match pick::manual(levels, busy, (span, since), oldest, &self.pick_options()) {
                    Manual::Carry(plan) => (Some(plan), false),
                    Manual::Wait => (None, false),
                    Manual::Done => (None, true),
                }
            });
            match chosen {
                None => return Err(dropped()),
                Some((_, Some((plan, claim)))) => {
                    self.compact_plan(tree, &plan, pause)?;
                    drop(claim);
                    self.work.want_compact(tree.clone());
                    self.wake_writers();
                }
                Some((true, None)) => return Ok(()),
                Some((false, None)) => self.claims.await_end(ended),
            }
        }
    }

    /// Asks for a plan on the tables of `tree` and claims its inputs. `None`: the tree is gone.
    fn choose<'a, T>(
        &'a self,
        tree: &Tree,
        plan: impl FnOnce(&Levels, &dyn Fn(FileNo) -> bool) -> (Option<Plan>, T),
    ) -> Option<(T, Option<(Plan, Claim<'a>)>)> {
        let version = self.version.lock();
        let levels = &version.as_ref()?.state().keyspaces.get(&tree.id)?.levels;
        let mut said = None;
        let claimed = self.claims.claim(|busy| {
            let (plan, what) = plan(levels, busy);
            said = Some(what);
            plan.map(|plan| {
                let tables = plan.inputs.iter().map(|&(_, no)| no).collect();
                (plan, tables)
            })
        });
        said.map(|said| (said, claimed))
    }

    pub fn pick_options(&self) -> PickOptions {
        PickOptions {
            l0_runs: L0_RUNS,
            level_base: self.options.memtable_limit() as u64 * BASE_MEMTABLES,
            fanout: 10,
            table_bytes: self.options.table_bytes,
            calm: false,
        }
    }

    /// Carries out a plan whose inputs are claimed.
    fn compact_plan(&self, tree: &Arc<Tree>, plan: &Plan, pause: Pause<'_>) -> Result<()> {
        pause()?;
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
        let below = view.runs.iter().find(|run| run.level == plan.level_out + 1);
        let below: Vec<_> = below.iter().flat_map(|run| run.tables.iter().map(|t| t.meta.clone())).collect();
        let inputs = Inputs { runs: &inputs, bottom: plan.bottom, level: plan.level_out, below: &below };
        let (output, new_table) = (self.output(tree), &mut || self.new_table());
        let merged = compact::compact(&inputs, &horizon, &self.store, output, new_table, pause)?;
        let mut made = MadeTables { core: self, tables: Vec::new() };
        made.note(&merged.tables);
        let written = Sum::of(&merged.tables);
        let hidden = self.claim_hidden(id, &merged.tombstones, &horizon);
        changes.extend(merged.tables.into_iter().map(add));
        changes.extend(hidden.iter().flat_map(|(gone, _)| gone.iter().cloned()));
        let installed = Installed { changes, touched: vec![id], ..Installed::default() };
        self.publish(installed, made, None)?;
        self.note_compaction(tree, plan.level_out, read, written, began);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::handle::Db;
    use crate::fs::sim::SimFs;
    use crate::ids::Seq;
    use crate::options::Options;
    use crate::view::View;

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
        db.core().compact_plan(&tree, &plan, &mut || Ok(())).unwrap();
        drop((tree, a, db));
        let db = Db::open("/db", options).unwrap();
        assert_eq!(db.keyspace("a").unwrap().get("k").unwrap().unwrap(), "v");
    }

    /// Four tables at the bottom, each to be written again in place.
    fn four_tables() -> (Db, Arc<Tree>, Vec<Plan>) {
        let options = Options::default().workers(0).table_bytes(1 << 10).fs(Arc::new(SimFs::new(1)));
        let db = Db::open("/db", options).unwrap();
        let a = db.keyspace("a").unwrap();
        for n in 0..100 {
            a.put(format!("{n:03}"), [n; 30]).unwrap();
        }
        a.compact(..).unwrap();
        let tree = a.slot.tree.load_full().unwrap();
        let in_place = |(level, no)| Plan {
            inputs: vec![(level, no)],
            level_out: level,
            run_out: Seq::ZERO,
            bottom: true,
            trivial: false,
        };
        let tables = |view: &View| {
            let tables = view.runs.iter().flat_map(|r| r.tables.iter().map(|t| (r.level, t.meta.no)));
            tables.collect::<Vec<_>>()
        };
        let plans: Vec<Plan> = tables(&tree.view.load()).into_iter().map(in_place).collect();
        assert!(plans.len() >= 4);
        (db, tree, plans)
    }

    #[test]
    fn a_plan_is_carried_out_within_another() {
        let (db, tree, plans) = four_tables();
        let core = db.core();
        let free = |levels: &Levels, busy: &dyn Fn(FileNo) -> bool| {
            levels.tables().filter(|(_, t)| !busy(t.no)).count()
        };
        let all = core.choose(&tree, |levels, busy| (None, free(levels, busy))).unwrap().0;
        let (_, one) = core.choose(&tree, |_, _| (Some(plans[0].clone()), ())).unwrap();
        let (one, claim) = one.unwrap();
        let mut inner = 0;
        core.compact_plan(&tree, &one, &mut || {
            inner += 1;
            let (left, two) = core.choose(&tree, |l, busy| (Some(plans[2].clone()), free(l, busy))).unwrap();
            assert_eq!(left, all - 1);
            let (two, _claim) = two.unwrap();
            core.compact_plan(&tree, &two, &mut || Ok(()))
        })
        .unwrap();
        assert_eq!(inner, 1);
        drop(claim);
        // One that fails lets go of its tables as well, and nothing has changed.
        let (_, three) = core.choose(&tree, |_, _| (Some(plans[1].clone()), ())).unwrap();
        let (three, claim) = three.unwrap();
        core.compact_plan(&tree, &three, &mut || Err(closed())).unwrap_err();
        drop(claim);
        assert_eq!(core.choose(&tree, |levels, busy| (None, free(levels, busy))).unwrap().0, all);
        let a = db.keyspace("a").unwrap();
        assert_eq!(a.iter().count(), 100);
        a.compact(..).unwrap();
        assert_eq!(a.get("042").unwrap().unwrap(), [42; 30]);
    }

    #[test]
    fn runs_that_did_not_change_stay_as_they_are() {
        let (db, tree, plans) = four_tables();
        let a = db.keyspace("a").unwrap();
        let before = tree.view.load().runs.last().unwrap().clone();
        a.put("x", "y").unwrap();
        db.flush().unwrap();
        let view = tree.view.load_full();
        assert!(view.runs.len() == 2 && Arc::ptr_eq(&view.runs[1], &before));
        db.core().compact_plan(&tree, &plans[0], &mut || Ok(())).unwrap();
        let after = tree.view.load_full();
        assert!(Arc::ptr_eq(&after.runs[0], &view.runs[0]) && !Arc::ptr_eq(&after.runs[1], &before));
        assert_eq!(a.iter().count(), 101);
    }

    #[test]
    fn a_merge_gives_way_to_a_flush() {
        let (db, tree, plans) = four_tables();
        let core = db.core();
        let a = db.keyspace("a").unwrap();
        a.put("x", "y").unwrap();
        core.freeze(None);
        assert_eq!(tree.view.load().memtables.len(), 2);
        core.compact_plan(&tree, &plans[0], &mut || core.give_way(&tree)).unwrap();
        assert_eq!(tree.view.load().memtables.len(), 1);
        assert_eq!(a.get("x").unwrap().unwrap(), "y");
        // The trees of dropped keyspaces, and closed databases, are not worked for.
        db.drop_keyspace("a").unwrap();
        assert!(core.give_way(&tree).is_err());
        let b = db.keyspace("b").unwrap();
        let tree = b.slot.tree.load_full().unwrap();
        core.give_way(&tree).unwrap();
        db.clone().close().unwrap();
        assert!(core.give_way(&tree).is_err());
    }
}
