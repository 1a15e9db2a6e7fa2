//! Disks that fail: every operation of small workloads in turn, in every way, once and for good;
//! full disks; syncs that fail. Calls answer with typed errors, no promise is broken, and what can
//! go on goes on.
//!
//! `ESKER_SEEDS=a..b` runs other workloads than the few that run always.

use crate::crash::seeds;
use crate::rng::Rng;
use crate::state::{small, state, try_state};
use crate::world::{DIR, World, random_step};
use esker::fs::fault::{Fault, FaultFs, Op, Rule};
use esker::fs::sim::SimFs;
use esker::{Db, Durability, Error, ErrorKind, Options};
use std::sync::Arc;

const KINDS: [Fault; 7] = [
    Fault::Io,
    Fault::IoAfter,
    Fault::Full,
    Fault::Interrupted,
    Fault::Unsupported,
    Fault::Short,
    Fault::Forget,
];

fn options(seed: u64) -> Options {
    let durability = if seed.is_multiple_of(3) { Durability::Sync } else { Durability::Buffered };
    let rotten = 1 << (10 + seed % 3);
    small().durability(durability).mapped(seed % 3 == 2).memtable_bytes(rotten).table_bytes(rotten as u64)
}

/// A run in which any call may fail.
struct Attempt {
    what: String,
    world: World,
    faults: FaultFs,
    rng: Rng,
    errors: usize,
    /// The database is read-only for good.
    over: bool,
}

impl Attempt {
    fn new(seed: u64, what: String) -> Attempt {
        let sim = SimFs::new(seed);
        let faults = FaultFs::new(Arc::new(sim.clone()));
        let world = World::at_rest(sim, options(seed), vec![Default::default()], vec![0]);
        Attempt { what, world, faults, rng: Rng::new(seed), errors: 0, over: false }
    }

    /// Runs so many calls, or until there is no going on.
    fn run(&mut self, calls: usize) {
        for _ in 0..calls {
            let result = if self.world.db.is_none() {
                self.world.try_open(Arc::new(self.faults.clone()))
            } else {
                let step = random_step(&mut self.rng, self.world.state());
                let result = self.world.try_run(&step);
                if std::env::var_os("ESKER_TRACE").is_some() {
                    println!("{}: {step:?}: {result:?}", self.what);
                }
                result
            };
            if let Err(e) = result {
                self.note(&e);
                self.read();
            }
            if self.over {
                return;
            }
        }
    }

    fn note(&mut self, e: &Error) {
        let what = &self.what;
        let fine = matches!(e.kind(), ErrorKind::Io | ErrorKind::DiskFull | ErrorKind::ReadOnly);
        assert!(fine, "{what}: a failing disk is nothing else: {e:?}");
        self.errors += 1;
        if let Some(db) = &self.world.db {
            self.over = db.batch().commit_with(Durability::Buffered).is_err_and(|e| e.is_final());
            assert!(self.over || !e.is_final(), "{what}: {e:?}");
            assert!(!self.over || !e.is_retryable(), "{what}: no retry will help: {e:?}");
        }
    }

    /// Reads all there is: the truth, or an error.
    fn read(&mut self) {
        let Some(db) = &self.world.db else { return };
        match try_state(db) {
            Ok(found) => assert!(found == *self.world.state(), "{}: wrong while failing", self.what),
            Err(e) => {
                assert!(matches!(e.kind(), ErrorKind::Io | ErrorKind::DiskFull), "{}: {e:?}", self.what)
            }
        }
    }

    /// The disk is good again, and the database must be: everything works, or it is read-only and
    /// reads.
    fn recover(&mut self) {
        self.faults.clear();
        if let Some(db) = &self.world.db {
            assert!(state(db) == *self.world.state(), "{}: wrong after the failure", self.what);
        }
        let errors = self.errors;
        if !self.over {
            self.run(6);
        }
        assert_eq!(self.errors, errors, "{}: an error on a good disk", self.what);
    }

    /// The process ends, in one way or another, and the next one finds a good disk.
    fn end(mut self) {
        let sim = self.world.sim.clone();
        match self.rng.below(4) {
            // Without the power: what was durable is there.
            0 => {
                let choice = self.rng.below(sim.states_at(sim.ops()) as usize) as u64;
                self.check(&sim.crash(choice), choice == 1, &format!("power cut of choice {choice}"));
            }
            1 => self.check(&sim.crash(1), true, "killed"),
            way => {
                if way == 2 {
                    self.faults.clear();
                }
                if let Some(Err(e)) = self.world.db.take().map(Db::close) {
                    self.note(&e);
                }
                self.faults.clear();
                self.check(&sim, true, "closed");
            }
        }
    }

    fn check(&self, disk: &SimFs, process: bool, how: &str) {
        let (what, world) = (format!("{}, {how}", self.what), &self.world);
        let options = world.options.clone().fs(Arc::new(disk.clone()));
        let db = Db::open(DIR, options.clone()).unwrap_or_else(|e| panic!("{what}: {e:?}"));
        let (least, _) = world.bounds(world.sim.ops(), process);
        let (seq, found) = (db.visible_seq().get(), state(&db));
        let expected = match (&world.unknown, world.seqs.binary_search(&seq)) {
            (_, Ok(at)) => {
                assert!(at >= least, "{what}: {at} commits are there, must be {least}");
                &world.states[at]
            }
            (Some((unknown, state)), _) if *unknown == seq => state,
            _ => panic!("{what}: no commit ended with sequence number {seq}"),
        };
        assert!(found == *expected, "{what}: the state is wrong");
        db.keyspace("more").unwrap().put("k", "v").unwrap();
        db.sync().unwrap();
        db.close().unwrap();
        let db = Db::open(DIR, options).unwrap();
        assert_eq!(state(&db).len(), found.len() + 1);
        assert_eq!(db.recovery().removed, 0, "{what}: a clean close leaves nothing behind");
    }
}

/// The rule met every so often in a workload drawn from `seed`.
fn fail_everywhere(seed: u64, one_in: usize) -> (usize, usize) {
    let calls = 40;
    let mut clean = Attempt::new(seed, format!("seed {seed}, no failure"));
    clean.run(calls);
    assert_eq!(clean.errors, 0);
    let ops = clean.faults.count(Op::Any);
    clean.end();
    let (mut runs, mut met) = (0, 0);
    let mut rng = Rng::new(seed);
    for nth in 1..=ops {
        for kind in KINDS {
            for forever in [false, true] {
                // A system that is interrupted for good is a system that hangs.
                if forever && kind == Fault::Interrupted || !rng.one_in(one_in) {
                    continue;
                }
                let mut attempt =
                    Attempt::new(seed, format!("seed {seed}, {nth} of {ops}: {kind:?}, {forever}"));
                attempt.faults.fail(Rule { op: Op::Any, nth, kind, forever });
                attempt.run(calls);
                runs += 1;
                met += usize::from(attempt.errors > 0);
                if rng.one_in(2) {
                    attempt.recover();
                }
                attempt.end();
            }
        }
    }
    println!("seed {seed}: {ops} operations, {met} of {runs} runs met an error");
    (runs, met)
}

#[test]
fn a_sample_of_operations_fails() {
    let (runs, met) =
        seeds(6).map(|seed| fail_everywhere(seed, 60)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    println!("{met} of {runs} runs met an error");
    assert!(met > runs / 4);
}

#[test]
#[ignore = "takes long"]
fn every_operation_fails() {
    for seed in seeds(12) {
        fail_everywhere(seed, 1);
    }
}

/// No call but one that needs space fails, none for good, and all work when space returns.
fn fill_up(seed: u64) -> usize {
    let mut attempt = Attempt::new(seed, format!("seed {seed}, full"));
    let sim = attempt.world.sim.clone();
    let mut full = 0;
    let mut rng = Rng::new(seed);
    for round in 0..6 {
        let used: u64 = sim.files().iter().map(|f| f.1).sum();
        sim.set_capacity(Some(used + rng.below(40 << 10) as u64));
        for _ in 0..30 {
            let errors = attempt.errors;
            attempt.run(1);
            full += attempt.errors - errors;
            assert!(!attempt.over, "{}, round {round}: a full disk is final", attempt.what);
            if let Some(db) = &attempt.world.db {
                assert!(state(db) == *attempt.world.state(), "{}: wrong while full", attempt.what);
            }
        }
        sim.set_capacity(None);
        attempt.recover();
    }
    attempt.end();
    full
}

#[test]
fn a_full_disk_stops_nothing_for_good() {
    let full: usize = seeds(20).map(fill_up).sum();
    println!("{full} calls found the disk full");
    assert!(full > 20);
}
