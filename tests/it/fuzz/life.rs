//! Calls on a disk that fails when the input says so and loses power when the input says so, over
//! and over: each life goes on with what the one before left on the disk.

use super::{CALLS, any_state};
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

/// After any crash there is a prefix of the commits, with all that were promised; failing calls
/// answer with typed errors, and what failed is there wholly or not at all.
pub fn crash_recovery(data: &[u8]) {
    let mut rng = Rng::made(data);
    let options = options(&mut rng);
    let mut life = Life::new(rng, World::at_rest(SimFs::new(1), options, vec![Default::default()], vec![0]));
    for _ in 0..CALLS {
        if life.rng.is_over() {
            break;
        }
        match life.rng.below(24) {
            0 => life = life.cut(),
            1 => life.fail(),
            2 => life.heal(),
            // Only the next life will change anything.
            _ if life.over => life = life.cut(),
            _ => life.call(),
        }
    }
    life.cut().call();
}

fn options(rng: &mut Rng) -> Options {
    let (durability, mapped) = *rng.pick(&[
        (Durability::Sync, false),
        (Durability::Buffered, false),
        (Durability::Buffered, true),
        (Durability::Sync, true),
    ]);
    let (memtable, table) = (1 << (10 + rng.below(3)), 1 << (10 + rng.below(3)));
    small().durability(durability).mapped(mapped).memtable_bytes(memtable).table_bytes(table)
}

struct Life {
    rng: Rng,
    world: World,
    faults: FaultFs,
    /// Whether anything was told to fail, and whether anything did.
    faulty: bool,
    errors: usize,
    /// The database is read-only for good.
    over: bool,
}

impl Life {
    fn new(rng: Rng, world: World) -> Life {
        let faults = FaultFs::new(Arc::new(world.sim.clone()));
        Life { rng, world, faults, faulty: false, errors: 0, over: false }
    }

    fn fail(&mut self) {
        self.faults.fail(rule(&mut self.rng));
        self.faulty = true;
    }

    /// From here on the disk is good, and what goes on must do so without an error.
    fn heal(&mut self) {
        self.faults.clear();
        self.faulty = false;
        if let Some(db) = &self.world.db {
            assert!(state(db) == *self.world.state(), "wrong after failures");
        }
    }

    fn call(&mut self) {
        let result = match &self.world.db {
            None => self.world.try_open(Arc::new(self.faults.clone())),
            Some(_) => {
                let step = random_step(&mut self.rng, self.world.state());
                let result = self.world.try_run(&step);
                trace(|| format!("{step:?}: {result:?}"));
                result
            }
        };
        if let Err(e) = result {
            self.note(&e);
        }
    }

    fn note(&mut self, e: &Error) {
        let fine = matches!(e.kind(), ErrorKind::Io | ErrorKind::DiskFull | ErrorKind::ReadOnly);
        assert!(fine && self.faulty, "{e:?}");
        self.errors += 1;
        let Some(db) = &self.world.db else { return };
        self.over = db.batch().commit_with(Durability::Buffered).is_err_and(|e| e.is_final());
        assert!(self.over || !e.is_final(), "{e:?}");
        assert!(!self.over || !e.is_retryable(), "no retry will help: {e:?}");
        match try_state(db) {
            Ok(found) => assert!(found == *self.world.state(), "wrong while failing"),
            Err(e) => assert!(matches!(e.kind(), ErrorKind::Io | ErrorKind::DiskFull), "{e:?}"),
        }
    }

    /// The power goes, at any operation so far. Answers the life that goes on from there.
    fn cut(mut self) -> Life {
        let (sim, ops) = (self.world.sim.clone(), self.world.sim.ops());
        // What calls promised while they failed is not known for each operation.
        let back = if self.errors > 0 { 0 } else { self.rng.below(ops.clamp(1, 256) as usize) as u64 };
        let op = ops - back;
        let choice = any_state(&mut self.rng, &sim, op);
        let (mut least, mut most) = self.world.bounds(op, choice == 1);
        trace(|| format!("cut at {op} of {ops}, choice {choice}: {least} to {most}"));
        // A commit that failed may be found made.
        if back == 0
            && let Some((seq, state)) = self.world.unknown.take()
        {
            self.world.seqs.push(seq);
            self.world.states.push(state);
            most = self.world.now();
        }
        let mut disk = sim.crash_at(op, choice);
        for _ in 0..4 {
            if self.rng.one_in(4) {
                disk = self.fail_to_open(disk, least, most);
            }
            let at = self.open(Arc::new(disk.clone()), least, most).unwrap_or_else(|e| panic!("{e:?}"));
            (least, most) = (at, at);
            if !self.rng.one_in(3) {
                break;
            }
            // Again, while it recovered.
            let op = disk.ops() - self.rng.below(disk.ops().clamp(1, 256) as usize) as u64;
            let choice = any_state(&mut self.rng, &disk, op);
            trace(|| format!("cut in recovery, at {op} of {}, choice {choice}", disk.ops()));
            disk = disk.crash_at(op, choice);
        }
        let World { mut states, mut seqs, options, .. } = self.world;
        states.truncate(least + 1);
        seqs.truncate(least + 1);
        let mut next = Life::new(self.rng, World::at_rest(disk, options, states, seqs));
        next.call();
        next
    }

    /// Opens through a disk that fails somewhere. Answers what that leaves, after another cut.
    fn fail_to_open(&mut self, disk: SimFs, least: usize, most: usize) -> SimFs {
        let faults = FaultFs::new(Arc::new(disk.clone()));
        faults.fail(rule(&mut self.rng));
        if let Err(e) = self.open(Arc::new(faults), least, most) {
            assert!(matches!(e.kind(), ErrorKind::Io | ErrorKind::DiskFull), "{e:?}");
        }
        let choice = any_state(&mut self.rng, &disk, disk.ops());
        disk.crash(choice)
    }

    /// Opens and closes. Answers how many of the commits there are.
    fn open(&self, fs: Arc<dyn esker::fs::Fs>, least: usize, most: usize) -> esker::Result<usize> {
        let db = Db::open(DIR, self.world.options.clone().fs(fs))?;
        let seq = db.visible_seq();
        let Ok(at) = self.world.seqs.binary_search(&seq.get()) else {
            panic!("no commit ended with sequence number {seq}");
        };
        assert!((least..=most).contains(&at), "{at} commits are there, must be {least} to {most}");
        assert_eq!(db.durable_seq(), seq, "what an open shows is durable");
        assert!(try_state(&db)? == self.world.states[at], "not the state after {at} commits");
        Ok(at)
    }
}

fn rule(rng: &mut Rng) -> Rule {
    let (nth, kind) = (1 + rng.below(64) as u64, *rng.pick(&KINDS));
    // A system that is interrupted for good is a system that hangs.
    let forever = rng.one_in(3) && kind != Fault::Interrupted;
    trace(|| format!("operation {nth} from here fails: {kind:?}, forever: {forever}"));
    Rule { op: Op::Any, nth, kind, forever }
}

fn trace(line: impl FnOnce() -> String) {
    if cfg!(not(fuzzing)) && std::env::var_os("ESKER_TRACE").is_some() {
        println!("{}", line());
    }
}
