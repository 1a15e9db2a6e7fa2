//! Power cuts at every operation of small workloads: whatever the simulated disk may be left with,
//! opening it gives a prefix of the commits that holds all that was promised, and a database that
//! works. The cuts are made in recovery too, and in the recovery from those.
//!
//! The tests that run always try a sample. The ignored ones try every operation of all workloads, of
//! random ones and of all words of up to four calls, and end in a line of counts:
//!
//! | variable | is |
//! |---|---|
//! | `ESKER_CRASH_SAMPLES` | how many states are tried at an operation, beside those with a meaning of their own |
//! | `ESKER_CRASH_WORDS` | how many calls the words have at most |
//! | `ESKER_SEEDS` | `a..b`, the seeds of the random workloads |
//! | `ESKER_CRASH_ONLY` | the one state to try: a test that fails says which |

mod control;
mod cuts;
mod paths;
mod words;
pub mod workloads;

use crate::rng::Rng;
use crate::state::small;
use crate::world::{DIR, Step, World, random_step};
use cuts::{Counts, Effort, Seen, cut_between};
use esker::fs::sim::SimFs;
use esker::{Db, Durability, Options};
use paths::{Path, taken};
use std::collections::BTreeSet;
use std::sync::Arc;
use workloads::{WORKLOADS, Workload};

fn number(variable: &str) -> Option<u64> {
    let asked = std::env::var(variable).ok()?;
    Some(asked.parse().unwrap_or_else(|_| panic!("{variable} is {asked:?}, not a number")))
}

/// The sample that is tried always.
fn quick(budget: usize) -> Effort {
    Effort { budget: Some(budget), samples: 0, nested: 4, further: 4 }
}

/// Every operation; `samples` unless other is asked for, and one of `nested` again in its recovery.
fn thorough(samples: u64, nested: usize) -> Effort {
    let samples = number("ESKER_CRASH_SAMPLES").unwrap_or(samples);
    Effort { budget: None, samples, nested, further: 8 }
}

/// The ways to write a journal.
fn ways() -> [(&'static str, Options); 3] {
    [
        ("sync", small().durability(Durability::Sync)),
        ("buffered", small().durability(Durability::Buffered)),
        ("mapped", small().durability(Durability::Buffered).mapped(true)),
    ]
}

/// Every workload, in every way. Answers what was taken in at least one.
fn try_all(effort: impl Fn(usize) -> Effort) -> (Counts, BTreeSet<Path>) {
    let (mut all, mut reached) = (Counts::default(), BTreeSet::new());
    for Workload { name, sample, run, through } in WORKLOADS {
        for (way, options) in ways() {
            let mut world = World::new(options);
            run(&mut world);
            let (name, taken) = (format!("{name}, {way}"), taken(&world));
            for path in *through {
                assert!(taken.contains(path), "{name} does not lead through {path:?} any more: {taken:?}");
            }
            reached.extend(taken);
            let ops = world.dull..=world.sim.ops();
            let counts = cut_between(&name, &world, ops, effort(*sample), &mut Seen::default());
            counts.print(&name);
            all.add(counts);
        }
    }
    (all, reached)
}

/// No part of recovery was left out.
fn met_everything(counts: &Counts) {
    let Counts { copies, recovered, in_recovery, deeper, later, .. } = counts;
    let kinds =
        [recovered.created, recovered.replayed, recovered.torn, recovered.rewritten, recovered.removed];
    let met = kinds.iter().chain(copies).chain([in_recovery, deeper, later]);
    assert!(std::env::var("ESKER_CRASH_ONLY").is_ok() || met.min() > Some(&0), "not all was met");
}

#[test]
fn a_sample_of_all_cuts() {
    let (counts, reached) = try_all(quick);
    counts.print("all workloads");
    met_everything(&counts);
    assert!(reached.contains(&Path::Mapped) && reached.contains(&Path::Unsynced));
}

#[test]
#[ignore = "takes long"]
fn all_cuts() {
    let (counts, _) = try_all(|_| thorough(6, 12));
    met_everything(&counts);
    counts.print("proof: crash: workloads");
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
            let step = if rng.one_in(40) { Step::Checkpoint } else { random_step(&mut rng, world.state()) };
            world.run(&step);
        }
        let (name, ops) = (format!("seed {seed}, life {life}"), world.sim.ops());
        counts.add(cut_between(&name, &world, 0..=ops, effort, &mut Seen::default()));
        let op = ops - rng.below(1 + ops as usize / 3) as u64;
        let choice = rng.below(world.sim.states_at(op) as usize) as u64;
        let disk = world.sim.crash_at(op, choice);
        let db = Db::open(DIR, options.clone().fs(Arc::new(disk.crash(1)))).unwrap();
        let at = world.seqs.binary_search(&db.visible_seq().get()).unwrap();
        let (states, seqs) = (world.states[..=at].to_vec(), world.seqs[..=at].to_vec());
        world = World::at_rest(disk, options.clone(), states, seqs);
        world.open();
    }
    counts.print(&format!("seed {seed}"));
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
    seeds(20).for_each(|seed| all.add(random_lives(seed, thorough(2, 12))));
    all.print("proof: crash: random workloads");
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
