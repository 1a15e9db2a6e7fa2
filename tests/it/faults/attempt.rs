//! A run in which any call may fail, and what must be true during and after it.

use super::cases::{Call, Case, is_possible};
use super::kinds::{is_fair, is_rot, may_end, must_end};
use crate::rng::Rng;
use crate::state::{State, state, try_state};
use crate::world::{DIR, Step, World, random_step};
use esker::fs::fault::{Fault, FaultFs, Op, Rule, Struck};
use esker::fs::sim::SimFs;
use esker::{Db, Durability, Error, ErrorKind};
use std::sync::Arc;

pub struct Attempt {
    pub what: String,
    pub world: World,
    pub faults: FaultFs,
    rng: Rng,
    pub errors: usize,
    /// The database is read-only for good.
    pub over: bool,
    /// So many operations had gone wrong when the database was opened, and the disk had done so many.
    opened: (usize, u64),
    refused: usize,
    /// Checkpoints so far.
    copies: usize,
    /// The disk itself may be full.
    pub full: bool,
    /// Checks that found less than was promised, for a bit flipped where no witness is.
    pub residues: usize,
}

impl Attempt {
    pub fn new(case: &Case, seed: u64, what: String) -> Attempt {
        // A disk of its own.
        let sim = case.disk.crash(1);
        let faults = FaultFs::new(Arc::new(sim.clone()));
        let world = World::at_rest(sim, case.options.clone(), case.states.clone(), case.seqs.clone());
        let rng = Rng::new(seed);
        let (opened, full, residues) = ((0, 0), false, 0);
        let (errors, over, refused, copies) = (0, false, 0, 0);
        Attempt { what, world, faults, rng, errors, over, opened, refused, copies, full, residues }
    }

    /// From now on this goes wrong, five times where it cannot be for good.
    pub fn fail(&mut self, rule: Rule) {
        match rule.kind {
            Fault::FlipBit(_) => self.world.losses = Some(0),
            // A system that takes back what it was given: no promise is left but those of syncs.
            Fault::Revert => self.world.keeps = false,
            _ => {}
        }
        if rule.kind == Fault::Interrupted && rule.forever {
            // A system that is interrupted for good is a system that hangs.
            for more in 0..5 {
                self.faults.fail(Rule { nth: rule.nth + more, forever: false, ..rule });
            }
        } else {
            self.faults.fail(rule);
        }
    }

    pub fn run_all(&mut self, calls: &[Call]) {
        for call in calls {
            // Openings that fail and fail are all the same.
            while self.world.db.is_none() && self.refused < 3 {
                self.open();
            }
            if self.over || self.world.db.is_none() {
                break;
            }
            if let Call::Step(step) = call
                && !is_possible(step, self.world.state())
            {
                continue;
            }
            let result = self.call(call);
            self.answered(call, result);
        }
        if self.world.db.is_none() && !self.over {
            self.open();
        }
        if self.over {
            self.stays_over();
        }
    }

    /// So many random calls.
    pub fn run(&mut self, calls: usize) {
        for _ in 0..calls {
            if self.over {
                return;
            }
            if self.world.db.is_none() {
                self.open();
            } else {
                let call = Call::Step(random_step(&mut self.rng, self.world.state()));
                let result = self.call(&call);
                self.answered(&call, result);
            }
        }
    }

    fn open(&mut self) {
        let result = self.world.try_open(Arc::new(self.faults.clone()));
        self.refused = if result.is_err() { self.refused + 1 } else { 0 };
        self.opened = (self.faults.struck().len(), self.world.sim.ops());
        self.answered(&"open", result);
    }

    fn answered(&mut self, call: &dyn std::fmt::Debug, result: esker::Result<()>) {
        if std::env::var_os("ESKER_TRACE").is_some() {
            println!("{}: {call:?}: {result:?}; {:?}", self.what, self.faults.struck());
        }
        if let Err(e) = result {
            self.note(&e);
            self.read();
        } else if self.world.db.is_some() {
            self.look_over();
        }
    }

    fn call(&mut self, call: &Call) -> esker::Result<()> {
        match call {
            Call::Step(Step::Reopen) => {
                let result = self.world.try_run(&Step::Reopen);
                self.opened = (self.faults.struck().len(), self.world.sim.ops());
                result
            }
            Call::Step(step) => self.world.try_run(step),
            Call::Checkpoint => self.checkpoint(),
            Call::Verify => {
                let found = self.world.db().verify()?;
                let struck = self.faults.struck();
                found.damage.iter().for_each(|e| assert!(is_fair(e, &struck), "{}: {e:?}", self.what));
                Ok(())
            }
            Call::Look => self.look(),
        }
    }

    fn checkpoint(&mut self) -> esker::Result<()> {
        self.copies += 1;
        let dir = format!("/data/copy{}", self.copies);
        let made = self.world.db().checkpoint(&dir);
        self.world.note_durable();
        // Whole, or refused, now and after a power cut.
        let options = self.world.options.clone();
        for (disk, cut) in [(self.world.sim.crash(1), false), (self.world.sim.crash(0), true)] {
            let copy = Db::open(&dir, options.clone().fs(Arc::new(disk)).read_only(true));
            match copy.and_then(|db| try_state(&db)) {
                Ok(found) => assert!(found == *self.world.state(), "{}: {dir} is another", self.what),
                Err(e) if made.is_ok() => {
                    assert!(self.rotten() && e.is_corruption(), "{}: {dir}, {cut}: {e:?}", self.what);
                }
                Err(e) => {
                    let fair = matches!(e.kind(), ErrorKind::Io | ErrorKind::Corruption);
                    assert!(fair, "{}: {dir}: {e:?}", self.what);
                }
            }
        }
        made.map(drop)
    }

    /// Closes, and reads without writing.
    fn look(&mut self) -> esker::Result<()> {
        let Some(db) = self.world.let_go() else { return Ok(()) };
        db.close()?;
        let options = self.world.options.clone().fs(Arc::new(self.faults.clone())).read_only(true);
        let files = self.world.sim.files();
        let db = Db::open(DIR, options)?;
        let found = try_state(&db)?;
        let lost = self.world.losses.is_some();
        assert!(found == *self.world.state() || lost, "{}: read-only", self.what);
        let e = db.batch().commit().unwrap_err();
        assert_eq!(e.kind(), ErrorKind::ReadOnly);
        drop(db);
        assert_eq!(self.world.sim.files(), files, "{}: who only reads changes nothing", self.what);
        Ok(())
    }

    fn struck_since_opening(&self) -> Vec<Struck> {
        // Where only reading went on files of ours were open too; other directories do not count.
        let mut struck = self.faults.struck().split_off(self.opened.0);
        struck.retain(|s| s.path.starts_with(DIR));
        struck
    }

    fn rotten(&self) -> bool {
        self.faults.struck().iter().any(is_rot)
    }

    fn flipped(&self) -> bool {
        self.faults.struck().iter().any(|s| matches!(s.kind, Fault::FlipBit(_)))
    }

    fn note(&mut self, e: &Error) {
        let (what, struck) = (&self.what, self.faults.struck());
        let fair = is_fair(e, &struck) || self.full && e.kind() == ErrorKind::DiskFull;
        assert!(fair, "{what}: no answer to {struck:?}: {e:?}");
        self.errors += 1;
        if self.world.db.is_some() {
            self.look_over();
            assert!(self.over || !e.is_final(), "{}: {e:?}", self.what);
            // A table that could not be made may be told while the journal has failed as well.
            let beside = e.file().is_some_and(|file| file.extension() == Some("table".as_ref()));
            assert!(!self.over || beside || !e.is_retryable(), "{}: no retry will help: {e:?}", self.what);
        }
    }

    /// Whether the database takes no more writes, and whether that is as it should be.
    fn look_over(&mut self) {
        let Some(db) = &self.world.db else { return };
        let refused = db.batch().commit_with(Durability::Buffered).err();
        self.over = refused.is_some();
        let (what, struck) = (&self.what, self.struck_since_opening());
        if let Some(e) = refused {
            assert!(e.kind() == ErrorKind::ReadOnly && e.is_final(), "{what}: {e:?}");
            let files = self.world.sim.files();
            let manifests = files.iter().filter(|f| f.0.extension() == Some("manifest".as_ref())).count();
            let why = struck.iter().find(|s| may_end(s) && (s.op != Op::SyncDir || manifests > 1));
            assert!(why.is_some(), "{what}: read-only after {struck:?}: {e:?}");
        } else {
            // One that was only being made is removed, unless that fails too.
            let stays = |s: &&Struck| self.world.sim.read(&s.path).is_ok();
            let removed = !struck.iter().any(|s| s.op == Op::Remove);
            let end = struck.iter().filter(|s| must_end(s)).find(stays).filter(|_| removed);
            assert!(end.is_none(), "{what}: goes on after {end:?}");
        }
    }

    /// Every write says that it is over, also on a good disk; reads go on.
    fn stays_over(&mut self) {
        let Some(db) = &self.world.db else { return };
        let what = &self.what;
        let visible = db.visible_seq();
        for _ in 0..2 {
            let any = self.world.state().keys().next().map(|name| db.keyspace(name).unwrap());
            let mut answers = vec![
                ("create", db.keyspace("another").map(drop)),
                ("flush", if any.is_some() { db.flush() } else { Ok(()) }),
                ("checkpoint", db.checkpoint("/data/none").map(drop)),
            ];
            if let Some(keyspace) = &any {
                answers.push(("put", keyspace.put("k", "v").map(drop)));
                answers.push(("delete", keyspace.delete_range(..).map(drop)));
                answers.push(("submit", db.batch().put(keyspace, "k", "v").submit().map(drop)));
                answers.push(("drop", db.drop_keyspace(keyspace.name())));
            }
            if db.durable_seq() < visible {
                answers.push(("sync", db.sync()));
            }
            for (call, answer) in answers {
                let kind = answer.as_ref().err().map(|e| e.kind());
                // A flush of nothing has nothing to say.
                let fine = kind == Some(ErrorKind::ReadOnly) || call == "flush" && answer.is_ok();
                assert!(fine, "{what}: {call} after the end: {answer:?}");
            }
            assert_eq!(db.visible_seq(), visible, "{what}: written after the end");
            self.faults.clear();
        }
        self.read();
    }

    /// Reads all there is: the truth, or an error.
    fn read(&mut self) {
        let Some(db) = &self.world.db else { return };
        match try_state(db) {
            Ok(found) => assert!(found == *self.world.state(), "{}: wrong while failing", self.what),
            Err(e) => {
                let fair = is_fair(&e, &self.faults.struck()) && e.kind() != ErrorKind::ReadOnly;
                assert!(fair, "{}: {e:?}", self.what);
            }
        }
    }

    /// The disk is good again, and the database must be: everything works, or it is read-only and
    /// reads.
    pub fn recover(&mut self) {
        self.faults.clear();
        if self.rotten() {
            return;
        }
        if self.flipped() && !self.over {
            // A map may show a wrong bit for as long as it lives.
            drop(self.world.let_go());
            self.open();
        }
        if let Some(db) = &self.world.db
            && !self.flipped()
        {
            assert!(state(db) == *self.world.state(), "{}: wrong after the failure", self.what);
        }
        let errors = self.errors;
        if !self.over {
            self.run(6);
        }
        assert_eq!(self.errors, errors, "{}: an error on a good disk", self.what);
    }

    /// What the next process would find, had this one been killed now, or the power gone at any
    /// moment since the database was last opened.
    pub fn cut(&mut self) {
        let sim = self.world.sim.clone();
        if self.rng.one_in(3) {
            return self.check(&sim.crash(1), sim.ops(), true, "killed");
        }
        let from = self.opened.1.min(sim.ops());
        let op = from + self.rng.below((sim.ops() - from) as usize + 1) as u64;
        let choice = self.rng.below(sim.states_at(op).max(6) as usize) as u64;
        let how = format!("power cut at {op} of {}, choice {choice}", sim.ops());
        self.check(&sim.crash_at(op, choice), op, choice == 1, &how);
    }

    /// The process ends in order, and the next one finds a good disk.
    pub fn close(mut self) -> usize {
        if let Some(Err(e)) = self.world.let_go().map(Db::close) {
            self.note(&e);
        }
        self.faults.clear();
        let sim = self.world.sim.clone();
        self.check(&sim, sim.ops(), true, "closed");
        self.residues + self.world.losses.unwrap_or(0)
    }

    fn check(&mut self, disk: &SimFs, op: u64, process: bool, how: &str) {
        let (what, world) = (format!("{}, {how}", self.what), &self.world);
        let options = world.options.clone().fs(Arc::new(disk.clone()));
        let rotten = self.rotten();
        let opened = Db::open(DIR, options.clone());
        let db = match opened {
            Err(e) if rotten && e.is_corruption() && e.file().is_some() => return,
            opened => opened.unwrap_or_else(|e| panic!("{what}: {e:?}")),
        };
        let seq = db.visible_seq().get();
        let found = match try_state(&db) {
            Err(e) if rotten && e.is_corruption() && e.file().is_some() => return,
            found => found.unwrap_or_else(|e| panic!("{what}: {e:?}")),
        };
        let (least, _) = world.bounds(op, process && world.keeps);
        let expected = match (&world.unknown, world.seqs.binary_search(&seq)) {
            (_, Ok(at)) => {
                assert!(at >= least || rotten, "{what}: {at} commits are there, must be {least}");
                self.residues += usize::from(at < least);
                &world.states[at]
            }
            (Some((unknown, state)), _) if *unknown == seq => state,
            _ => panic!("{what}: no commit ended with sequence number {seq}"),
        };
        assert!(found == *expected, "{what}: the state is wrong{}", difference(&found, expected));
        if rotten {
            return;
        }
        db.keyspace("more").unwrap().put("k", "v").unwrap();
        db.sync().unwrap();
        db.close().unwrap();
        let db = Db::open(DIR, options).unwrap();
        assert_eq!(state(&db).len(), found.len() + 1);
        assert_eq!(db.recovery().removed, 0, "{what}: a clean close leaves nothing behind");
    }
}

fn difference(found: &State, expected: &State) -> String {
    let mut names: Vec<_> = found.keys().chain(expected.keys()).collect();
    names.dedup();
    let count = |state: &State, name: &String| state.get(name).map(|rows| rows.len());
    let differs = names.into_iter().filter(|name| found.get(*name) != expected.get(*name));
    differs
        .map(|name| format!("; {name}: {:?} rows, must be {:?}", count(found, name), count(expected, name)))
        .collect()
}
