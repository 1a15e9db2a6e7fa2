//! Power cuts at every operation of small workloads: whatever the simulated disk may be left with,
//! opening it gives a prefix of the commits that holds all that was promised, and a database that
//! works. The cuts are made in recovery too, and in the recovery from those.
//!
//! The tests that run always try a sample. `ESKER_CRASH_SAMPLES=n` tries n seeded states at every
//! operation beside those with a meaning of their own; the ignored tests do so for n = 8, and for
//! many random workloads.

pub mod workloads;

use crate::rng::Rng;
use crate::state::{State, small, state};
use crate::world::{DIR, How, Step, World, random_step};
use esker::fs::sim::SimFs;
use esker::{Db, Durability, Options};
use std::sync::Arc;
use workloads::{WORKLOADS, put};

/// How much is tried.
#[derive(Clone, Copy)]
struct Effort {
    /// About so many states of each workload; `None`: those with a meaning at every operation...
    budget: Option<usize>,
    /// ... and so many seeded ones.
    samples: u64,
    /// One of so many states is cut again while it recovers.
    nested: usize,
}

fn samples() -> Option<u64> {
    let asked = std::env::var("ESKER_CRASH_SAMPLES").ok()?;
    Some(asked.parse().expect("ESKER_CRASH_SAMPLES is a number"))
}

/// The sample that is tried always.
fn quick(budget: usize) -> Effort {
    match samples() {
        Some(samples) => Effort { budget: None, samples, nested: 10 },
        None => Effort { budget: Some(budget), samples: 1, nested: 4 },
    }
}

fn thorough() -> Effort {
    Effort { budget: None, samples: samples().unwrap_or(8), nested: 10 }
}

#[derive(Default)]
struct Counts {
    points: u64,
    states: usize,
    recoveries: usize,
    deeper: usize,
}

/// The check of one finished run.
struct Cuts<'a> {
    name: &'a str,
    world: &'a World,
    effort: Effort,
    rng: Rng,
    counts: Counts,
}

impl Cuts<'_> {
    fn open(&self, disk: &SimFs, what: &str) -> Db {
        let options = self.world.options.clone().fs(Arc::new(disk.clone()));
        Db::open(DIR, options).unwrap_or_else(|e| panic!("{}: {what}: {e:?}", self.name))
    }

    /// Opens what a cut left behind. Answers which prefix of the commits it holds.
    fn recover(&self, disk: &SimFs, least: usize, most: usize, what: &str) -> (Db, usize) {
        let (name, seqs) = (self.name, &self.world.seqs);
        let db = self.open(disk, what);
        let seq = db.visible_seq().get();
        let Ok(at) = seqs.binary_search(&seq) else {
            panic!("{name}: {what}: no commit ended with sequence number {seq}");
        };
        assert!(
            (least..=most).contains(&at),
            "{name}: {what}: {at} commits are there, must be {least} to {most}"
        );
        assert_eq!(db.durable_seq().get(), seq, "{name}: {what}: what an open shows is durable");
        self.compare(&db, &self.world.states[at], &format!("{what}, after {at} commits"));
        (db, at)
    }

    fn compare(&self, db: &Db, expected: &State, what: &str) {
        let found = state(db);
        if found == *expected {
            return;
        }
        let (name, mut diff) = (self.name, String::new());
        for key in found.keys().chain(expected.keys()) {
            let (f, e) = (found.get(key), expected.get(key));
            if f != e {
                diff +=
                    &format!("\n{key}: {:?} rows instead of {:?}", f.map(|r| r.len()), e.map(|r| r.len()));
            }
        }
        let other = self.world.states.iter().position(|s| *s == found);
        panic!("{name}: {what}: the state is wrong (it is that after {other:?} commits){diff}");
    }

    /// One state of the disk after one operation.
    fn cut(&mut self, op: u64, choice: u64) {
        // Choice 1 keeps everything that was written: the process died, not the machine.
        let (least, most) = self.world.bounds(op, choice == 1);
        let what = format!("cut at operation {op}, choice {choice}");
        let disk = self.world.sim.crash_at(op, choice);
        self.counts.states += 1;
        self.check(&disk, least, most, &what, 1);
    }

    /// Checks that `disk`, on which nothing is in doubt, is good for everything.
    fn check(&mut self, disk: &SimFs, least: usize, most: usize, what: &str, depth: usize) {
        let (db, at) = self.recover(disk, least, most, what);
        let recovery = disk.ops();
        if self.rng.one_in(2) {
            self.go_on(disk, db, at, what);
        } else {
            self.open_again(disk, db, at, what);
        }
        if recovery == 0 || depth == 3 || !self.rng.one_in(self.effort.nested) {
            return;
        }
        // Cut again, in the middle of recovering. Everything that was left is durable by now, so
        // the same commits must be found.
        let ops: Vec<u64> = match self.effort.budget {
            None if depth == 1 => (1..=recovery).collect(),
            _ => vec![1 + self.rng.below(recovery as usize) as u64],
        };
        for op in ops {
            let choice = self.rng.below(disk.states_at(op).max(3) as usize) as u64;
            let what = format!("{what}, then at {op} of {recovery}, choice {choice}");
            self.counts.recoveries += 1;
            self.counts.deeper += usize::from(depth > 1);
            self.check(&disk.crash_at(op, choice), at, at, &what, depth + 1);
        }
    }

    /// It works, and a commit it calls durable survives the hardest cut.
    fn go_on(&mut self, disk: &SimFs, db: Db, at: usize, what: &str) {
        let more = db.keyspace("more").unwrap();
        let rows = ["one", "two", "three"].map(|key| (key.as_bytes().to_vec(), what.as_bytes().to_vec()));
        for (key, value) in &rows {
            more.put(key, value).unwrap();
        }
        match self.rng.below(4) {
            0 => db.flush().unwrap(),
            1 => while db.step().unwrap() {},
            _ => {}
        }
        db.sync().unwrap();
        let mut expected = self.world.states[at].clone();
        expected.insert("more".into(), rows.into());
        let choice = self.rng.below(4) as u64;
        let what = format!("{what}, then three commits and a cut of choice {choice}");
        let later = self.open(&disk.crash(choice), &what);
        self.compare(&later, &expected, &what);
    }

    /// Opening changes nothing, however often, and leaves nothing behind.
    fn open_again(&mut self, disk: &SimFs, db: Db, at: usize, what: &str) {
        let mut before = None;
        let mut db = db;
        for round in 0..2 {
            if self.rng.one_in(2) {
                db.close().unwrap_or_else(|e| panic!("{}: {what}: closing: {e:?}", self.name));
            } else {
                drop(db);
            }
            let files = disk.files();
            let now = (files.len(), files.iter().map(|f| f.1).sum::<u64>());
            if let Some(before) = before {
                assert!(now <= before, "{}: {what}: it grew from {before:?} to {files:?}", self.name);
            }
            before = Some(now);
            let what = format!("{what}, then opened again");
            db = self.open(disk, &what);
            self.compare(&db, &self.world.states[at], &what);
            assert_eq!(db.durable_seq().get(), self.world.seqs[at]);
            let left = db.recovery();
            assert!(left.removed == 0 && left.torn.is_none(), "{}: {what} ({round}): {left:?}", self.name);
        }
    }
}

/// Cuts the power at every operation of `world`.
fn cut_everywhere(name: &str, world: &World, effort: Effort) -> Counts {
    let ops = world.sim.ops();
    let counts = Counts::default();
    let mut cuts = Cuts { name, world, effort, rng: Rng::new(ops), counts };
    let mut possible = 0;
    let span = ops + 1 - world.dull;
    for op in world.dull..=ops {
        let states = world.sim.states_at(op).max(2);
        possible += states;
        let Some(budget) = effort.budget else {
            (0..states.min(6)).for_each(|choice| cuts.cut(op, choice));
            for _ in 0..effort.samples.min(states.saturating_sub(6)) {
                let choice = 6 + cuts.rng.below((states - 6) as usize) as u64;
                cuts.cut(op, choice);
            }
            continue;
        };
        // A fraction of one per operation becomes one of so many operations.
        let upto = |op| budget as u64 * (op - world.dull) / span;
        let wanted = upto(op + 1) - upto(op);
        for _ in 0..wanted {
            let few = states.min(6) as usize;
            let choice =
                if cuts.rng.one_in(2) { cuts.rng.below(few) } else { cuts.rng.below(states as usize) };
            cuts.cut(op, choice as u64);
        }
    }
    let mut counts = cuts.counts;
    counts.points = span;
    let Counts { points, states, recoveries, deeper } = counts;
    println!(
        "{name}: {points} crash points, {states} of {possible} states, {recoveries} in recovery \
         ({deeper} deeper), {} commits",
        world.now()
    );
    counts
}

/// The ways to write a journal.
fn ways() -> [(&'static str, Options); 3] {
    [
        ("sync", small().durability(Durability::Sync)),
        ("buffered", small().durability(Durability::Buffered)),
        ("mapped", small().durability(Durability::Buffered).mapped(true)),
    ]
}

fn try_all(effort: impl Fn(usize) -> Effort) {
    let mut all = Counts::default();
    for (name, budget, workload) in WORKLOADS {
        for (way, options) in ways() {
            let mut world = World::new(options);
            workload(&mut world);
            all.add(cut_everywhere(&format!("{name}, {way}"), &world, effort(*budget)));
        }
    }
    all.print("all workloads");
}

impl Counts {
    fn add(&mut self, other: Counts) {
        self.points += other.points;
        self.states += other.states;
        self.recoveries += other.recoveries;
        self.deeper += other.deeper;
    }

    fn print(&self, name: &str) {
        let Counts { points, states, recoveries, deeper } = self;
        println!(
            "{name}: {points} crash points, {states} states, {recoveries} in recovery ({deeper} deeper)"
        );
    }
}

#[test]
fn a_sample_of_all_cuts() {
    try_all(quick);
}

#[test]
#[ignore = "takes long"]
fn all_cuts() {
    try_all(|_| thorough());
}

/// A workload drawn from `seed`, and the disk of a random cut in it as the start of another.
fn random_lives(seed: u64, effort: Effort) -> Counts {
    let mut rng = Rng::new(seed);
    let way = rng.below(3);
    let options = ways()[way].1.clone();
    let options = options.memtable_bytes(1 << (10 + rng.below(3))).table_bytes(1 << (10 + rng.below(3)));
    let mut world = World::new(options.clone());
    let mut counts = Counts::default();
    for life in 0..2 {
        for _ in 0..20 + rng.below(40) {
            let step = random_step(&mut rng, world.state());
            world.run(&step);
        }
        let name = format!("seed {seed}, life {life}");
        counts.add(cut_everywhere(&name, &world, effort));
        let ops = world.sim.ops();
        let op = ops - rng.below(1 + ops as usize / 3) as u64;
        let choice = rng.below(world.sim.states_at(op) as usize) as u64;
        let disk = world.sim.crash_at(op, choice);
        let db = Db::open(DIR, options.clone().fs(Arc::new(disk.crash(1)))).unwrap();
        let at = world.seqs.binary_search(&db.visible_seq().get()).unwrap();
        let (states, seqs) = (world.states[..=at].to_vec(), world.seqs[..=at].to_vec());
        world = World::at_rest(disk, options.clone(), states, seqs);
        world.open();
    }
    counts
}

pub fn seeds(few: u64) -> std::ops::Range<u64> {
    let Ok(asked) = std::env::var("ESKER_SEEDS") else { return 0..few };
    let parsed = asked.split_once("..").and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    parsed.unwrap_or_else(|| panic!("ESKER_SEEDS is {asked:?}, not a..b"))
}

#[test]
fn a_sample_of_cuts_in_random_workloads() {
    let mut all = Counts::default();
    seeds(12).for_each(|seed| all.add(random_lives(seed, quick(60))));
    all.print("random workloads");
}

#[test]
#[ignore = "takes long"]
fn all_cuts_in_random_workloads() {
    let mut all = Counts::default();
    for seed in seeds(200) {
        println!("seed {seed}");
        all.add(random_lives(seed, Effort { samples: samples().unwrap_or(2), ..thorough() }));
    }
    all.print("random workloads");
}

/// The check itself: what it must not accept.
#[test]
fn a_lost_commit_would_be_noticed() {
    let mut world = World::new(small());
    world.run_all(&[Step::Create("a"), put("a", How::Sync, "k", "1")]);
    let (ops, began) = (world.sim.ops(), world.sim.ops() - 2);
    assert_eq!(world.bounds(ops, false), (2, 2));
    assert_eq!(world.bounds(0, true), (0, 0));
    let cuts = Cuts {
        name: "control",
        world: &world,
        effort: quick(1),
        rng: Rng::new(7),
        counts: Counts::default(),
    };
    assert_eq!(cuts.recover(&world.sim.crash(0), 2, 2, "as it is").1, 2);
    // The state before the last operations is not one with both commits.
    let early = world.sim.crash_at(began, 0);
    let opened =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cuts.recover(&early, 2, 2, "early").1));
    assert!(opened.is_err());
}

// Stories of bugs.

/// Only the directory right above was synced: with the one above that, the power took everything.
#[test]
fn the_names_of_all_new_directories_survive() {
    for dir in ["/db", "/new/db", "/new/newer/db", "new/db"] {
        let sim = SimFs::new(1);
        let options = small().fs(Arc::new(sim.clone()));
        let db = Db::open(dir, options).unwrap();
        db.keyspace("a").unwrap().put("k", "v").unwrap();
        let left = Db::open(dir, small().fs(Arc::new(sim.crash(0)))).unwrap();
        assert!(left.keyspace("a").unwrap().contains("k").unwrap(), "{dir}");
    }
}

/// While anything was left to replay, each opening added a segment that stayed.
#[test]
fn opening_again_and_again_takes_no_space() {
    let sim = SimFs::new(1);
    let options = small().fs(Arc::new(sim.clone()));
    let db = Db::open("/db", options.clone()).unwrap();
    db.keyspace("a").unwrap().put("k", "v").unwrap();
    drop(db);
    let files = || (sim.files().len(), sim.files().iter().map(|f| f.1).sum::<u64>());
    let before = files();
    for crash in [false, false, true, true] {
        let db = Db::open("/db", options.clone()).unwrap();
        if crash {
            let sim = sim.crash(1);
            drop(Db::open("/db", options.clone().fs(Arc::new(sim.clone()))).unwrap());
            assert_eq!(sim.files().iter().map(|f| f.1).sum::<u64>(), before.1);
        }
        drop(db);
        assert_eq!(files(), before);
    }
}

/// Tables that a compaction moves to another level as they are must outlive the move.
#[test]
fn moved_tables_stay() {
    let sim = SimFs::new(1);
    let options = small().fs(Arc::new(sim.clone()));
    let db = Db::open("/db", options.clone()).unwrap();
    let keys = db.keyspace("a").unwrap();
    let mut rng = Rng::new(1);
    // In order, so that no two tables overlap, and of a size that is not worth joining.
    for i in 0..20 {
        let value: Vec<u8> = (0..3000).map(|_| rng.below(256) as u8).collect();
        keys.put(format!("{i:02}"), value).unwrap();
        db.flush().unwrap();
        while db.step().unwrap() {}
    }
    drop((keys, db));
    let db = Db::open("/db", options).unwrap();
    assert_eq!(db.keyspace("a").unwrap().iter().count(), 20);
}
