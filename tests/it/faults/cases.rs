//! What is run while the disk fails: every workload the power is cut in, from the first creation on;
//! what a power cut left, as it recovers; and calls that those have not.

use crate::crash::workloads::{WORKLOADS, Workload, put};
use crate::rng::Rng;
use crate::state::{State, small};
use crate::world::{DIR, How, Step, World, rows};
use esker::fs::sim::SimFs;
use esker::{Db, Durability, Options};
use std::sync::Arc;

/// One call, of those that may fail.
#[derive(Clone, Debug)]
pub enum Call {
    Step(Step),
    Checkpoint,
    Verify,
    /// Close, and open to read only.
    Look,
}

/// A run: where it begins, and what it does.
pub struct Case {
    pub name: String,
    pub options: Options,
    /// At rest.
    pub disk: SimFs,
    /// The states up to what the disk holds, and their sequence numbers.
    pub states: Vec<State>,
    pub seqs: Vec<u64>,
    pub calls: Vec<Call>,
}

/// Whether a call makes sense in `state`, now that an earlier one may have failed.
pub fn is_possible(step: &Step, state: &State) -> bool {
    let live = |name: &str| state.contains_key(name);
    match step {
        Step::Create(name) => !live(name),
        Step::Drop(name) | Step::Compact(name, ..) => live(name),
        Step::Replace(name, staging) => live(name) && live(staging),
        Step::Commit(_, writes) => writes.iter().all(|write| live(write.name())),
        _ => true,
    }
}

/// The ways to write a journal.
pub fn ways() -> [(&'static str, Options); 3] {
    [
        ("sync", small().durability(Durability::Sync)),
        ("buffered", small().durability(Durability::Buffered)),
        ("mapped", small().durability(Durability::Buffered).mapped(true)),
    ]
}

impl Case {
    /// From nothing.
    pub fn new(name: String, options: Options, calls: Vec<Call>) -> Case {
        let (states, seqs) = (vec![State::new()], vec![0]);
        Case { name, options, disk: SimFs::new(1), states, seqs, calls }
    }

    /// From what a power cut left of `world`.
    fn recovery(name: String, world: &World, op: u64, choice: u64) -> Case {
        let disk = world.sim.crash_at(op, choice);
        let db = Db::open(DIR, world.options.clone().fs(Arc::new(disk.crash(1)))).unwrap();
        let at = world.seqs.binary_search(&db.visible_seq().get()).unwrap();
        let (states, seqs) = (world.states[..=at].to_vec(), world.seqs[..=at].to_vec());
        let mut calls = vec![Call::Verify];
        if let Some(name) = ["a", "b"].into_iter().find(|name| states[at].contains_key(*name)) {
            calls.push(Call::Step(put(name, How::Sync, "after", "the cut")));
        }
        calls.extend([Step::Flush, Step::Settle, Step::Reopen].map(Call::Step));
        Case { name, options: world.options.clone(), disk, states, seqs, calls }
    }
}

/// All workloads in all ways, or in one way each, followed by `recoveries` from cuts in them.
pub fn all(recoveries: usize, one_way: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    for (n, Workload { name, run, .. }) in WORKLOADS.iter().enumerate() {
        for (_, (way, options)) in (0..).zip(ways()).filter(|(way, _)| !one_way || *way == n % 3) {
            let mut world = World::new(options.clone());
            run(&mut world);
            let calls = world.told.iter().map(|told| Call::Step(told.step.clone())).collect();
            let name = format!("{name}, {way}");
            cases.push(Case::new(name.clone(), options, calls));
            let mut rng = Rng::new(cases.len() as u64);
            for n in 0..recoveries {
                let ops = world.sim.ops() as usize;
                let op = ((n + 1) * ops / recoveries - rng.below(ops / recoveries)) as u64;
                let choice = rng.below(world.sim.states_at(op).max(6) as usize) as u64;
                let name = format!("{name}, recovery at {op} from {choice}");
                cases.push(Case::recovery(name, &world, op, choice));
            }
        }
    }
    for (way, options) in ways() {
        cases.push(Case::new(format!("copies, {way}"), options.clone(), copies()));
        cases.push(Case::new(format!("read-only, {way}"), options, looks()));
    }
    cases
}

/// Checkpoints, with tables and without, and what the original does afterwards.
pub fn copies() -> Vec<Call> {
    let mut calls = vec![Call::Step(Step::Create("a")), Call::Checkpoint];
    for round in 0..2 {
        calls
            .push(Call::Step(Step::Commit(How::Buffered, rows(&["a"], round..round + 8, 200, round as u64))));
        calls.extend([Call::Checkpoint, Call::Step(Step::Flush), Call::Step(Step::Settle)]);
        calls.extend([Call::Checkpoint, Call::Verify, Call::Step(Step::Reopen)]);
    }
    calls
}

/// Readers between writers, with something left to replay.
fn looks() -> Vec<Call> {
    let mut calls = vec![Call::Step(Step::Create("a"))];
    for round in 0..3 {
        calls
            .push(Call::Step(Step::Commit(How::Buffered, rows(&["a"], round..round + 6, 300, round as u64))));
        calls.extend([Call::Look, Call::Step(Step::Flush), Call::Step(Step::Settle), Call::Look]);
    }
    calls
}
