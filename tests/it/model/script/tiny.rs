//! Random scripts at tiny sizes against the model, and the same scripts under other circumstances
//! against each other: other options, background work at other moments or by threads, power cuts
//! between calls.
//!
//! `ESKER_SEEDS=a..b` runs other seeds than the few fixed ones, `ESKER_OPS=n` more calls per seed.
//! `cargo test --release --test it model:: -- --ignored --nocapture` runs until ten million operations
//! are made, or `ESKER_MODEL_OPS`.

use super::machine::Outcome;
use super::random::{script, setup, threaded};
use super::shrink::run;
use super::{Step, Write};
use crate::model::random::{ops, seeds};
use crate::rng::Rng;
use std::panic::{AssertUnwindSafe, catch_unwind};

#[derive(Default)]
struct Counts {
    scripts: usize,
    runs: usize,
    calls: usize,
    operations: usize,
    cuts: usize,
}

impl Counts {
    fn add(&mut self, script: &[Step], outcome: Outcome) {
        self.runs += 1;
        self.calls += script.len();
        self.operations += script.iter().map(Step::operations).sum::<usize>();
        self.cuts += outcome.cuts;
    }

    fn print(&self) {
        let Counts { scripts, runs, calls, operations, cuts } = self;
        println!(
            "proof: model: {operations} operations in {calls} calls, {scripts} scripts under {runs} \
             circumstances, {cuts} power cuts between, 0 failures"
        );
    }
}

/// A script with power cuts of its own, against the model.
fn against_the_model(seed: u64, counts: &mut Counts) {
    let mut rng = Rng::new(seed);
    let setup = setup(&mut rng);
    let script = script(&mut rng, ops(250), true);
    counts.scripts += 1;
    counts.add(&script, run(&format!("seed {seed}"), &setup, &script));
}

/// A script whose answers depend on nothing but its calls, under circumstances that differ.
fn against_itself(seed: u64, counts: &mut Counts) {
    let mut rng = Rng::new(!seed);
    let script = script(&mut rng, ops(200), false);
    counts.scripts += 1;
    let mut answers = Vec::new();
    for variant in 0..4 {
        let mut setup = if variant == 2 { threaded(&mut rng) } else { setup(&mut rng) };
        setup.cuts = (variant == 3).then(|| rng.next());
        let outcome = run(&format!("seed {seed}, variant {variant}"), &setup, &script);
        counts.add(&script, outcome);
        answers.push(outcome.answers);
    }
    let same = answers.iter().all(|a| *a == answers[0]);
    assert!(same, "seed {seed}: the variants do not answer the same: {answers:?}");
}

#[test]
fn every_boundary_is_met() {
    let mut counts = Counts::default();
    seeds(24).for_each(|seed| against_the_model(seed, &mut counts));
    counts.print();
}

/// What a script answers does not depend on options, on when background work is done, or on crashes.
#[test]
fn circumstances_change_no_answer() {
    let mut counts = Counts::default();
    seeds(6).for_each(|seed| against_itself(seed, &mut counts));
    counts.print();
    assert!(counts.cuts > 0 || counts.scripts < 6);
}

#[test]
#[ignore = "takes long"]
fn millions_of_operations() {
    let wanted = std::env::var("ESKER_MODEL_OPS").map_or(10_000_000, |n| n.parse().expect("a number"));
    let mut counts = Counts::default();
    for seed in seeds(u64::MAX) {
        if counts.operations >= wanted {
            break;
        }
        against_the_model(seed, &mut counts);
        against_itself(seed, &mut counts);
    }
    counts.print();
}

/// Control: a model that forgets range deletes finds every engine wrong, and says so in few calls.
#[test]
fn what_is_wrong_is_found_and_made_short() {
    let mut rng = Rng::new(5);
    let mut setup = setup(&mut rng);
    let calls = script(&mut rng, 250, false);
    setup.forgetful = true;
    let failure = catch_unwind(AssertUnwindSafe(|| run("control", &setup, &calls))).unwrap_err();
    let text = failure.downcast_ref::<String>().unwrap();
    let (_, short) = text.split_once("in short:").unwrap();
    let lines = short.lines().filter(|line| line.starts_with("    ")).count();
    assert!((1..=4).contains(&lines), "{short}");
    setup.forgetful = false;
    run("its twin", &setup, &calls);
    let deletes = calls
        .iter()
        .any(|c| matches!(c, Step::Commit(_, w) if w.iter().any(|w| matches!(w, Write::DeleteRange(..)))));
    assert!(deletes);
}
