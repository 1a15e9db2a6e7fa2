//! Random workloads on disks that fail, and on disks that are full.

use super::attempt::Attempt;
use super::cases::Case;
use crate::crash::seeds;
use crate::rng::Rng;
use crate::state::{small, state};
use esker::fs::fault::{Fault, Op, Rule};
use esker::{Durability, Options};

const KINDS: [Fault; 9] = [
    Fault::Io,
    Fault::IoAfter,
    Fault::Full,
    Fault::Interrupted,
    Fault::Unsupported,
    Fault::Short,
    Fault::Forget,
    Fault::Revert,
    Fault::NoFiles,
];

fn options(seed: u64) -> Options {
    let durability = if seed.is_multiple_of(3) { Durability::Sync } else { Durability::Buffered };
    let rotten = 1 << (10 + seed % 3);
    small().durability(durability).mapped(seed % 3 == 2).memtable_bytes(rotten).table_bytes(rotten as u64)
}

/// A run of random calls.
fn attempt(seed: u64, what: String) -> Attempt {
    Attempt::new(&Case::new(format!("seed {seed}"), options(seed), Vec::new()), seed, what)
}

/// The rule met every so often in a workload drawn from `seed`.
fn fail_everywhere(seed: u64, one_in: usize) -> (usize, usize) {
    let calls = 40;
    let mut clean = attempt(seed, format!("seed {seed}, no failure"));
    clean.run(calls);
    assert_eq!(clean.errors, 0);
    let ops = clean.faults.count(Op::Any);
    clean.close();
    let (mut runs, mut met) = (0, 0);
    let mut rng = Rng::new(seed);
    for nth in 1..=ops {
        for kind in KINDS {
            for forever in [false, true] {
                if !rng.one_in(one_in) {
                    continue;
                }
                let how = if forever { "from then on" } else { "once" };
                let what = format!("seed {seed}, {nth} of {ops}: {kind:?} {how}");
                let mut attempt = attempt(seed, what);
                attempt.fail(Rule { op: Op::Any, nth, kind, forever });
                attempt.run(calls);
                runs += 1;
                met += usize::from(attempt.errors > 0);
                attempt.cut();
                if rng.one_in(2) {
                    attempt.recover();
                }
                attempt.close();
            }
        }
    }
    println!("seed {seed}: {ops} operations, {met} of {runs} runs met an error");
    (runs, met)
}

#[test]
fn a_sample_of_operations_fails() {
    let (runs, met) =
        seeds(6).map(|seed| fail_everywhere(seed, 150)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    println!("{met} of {runs} runs met an error");
    assert!(met > runs / 4);
}

#[test]
#[ignore = "takes long"]
fn every_operation_fails() {
    let (mut runs, mut met) = (0, 0);
    for seed in seeds(12) {
        let (more, failed) = fail_everywhere(seed, 1);
        (runs, met) = (runs + more, met + failed);
    }
    println!("proof: faults in random workloads: {runs} fault points, {met} failed a call, 0 failures");
}

/// No call but one that needs space fails, none for good, and all work when space returns.
fn fill_up(seed: u64) -> usize {
    let mut attempt = attempt(seed, format!("seed {seed}, full"));
    // What is full is the disk itself.
    attempt.full = true;
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
    attempt.cut();
    attempt.close();
    full
}

#[test]
fn a_full_disk_stops_nothing_for_good() {
    let full: usize = seeds(20).map(fill_up).sum();
    println!("{full} calls found the disk full");
    assert!(full > 20);
}
