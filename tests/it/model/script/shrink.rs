//! Makes a failing script short: whatever can be left out without the failure going away is left
//! out, first large pieces, then single calls, then the operations of batches.

use super::machine::{Failure, Machine, Outcome, Setup};
use super::{Step, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// So many runs are spent on it.
const RUNS: usize = 1500;

/// Runs a script; a panic of the engine is a failure like any other.
pub fn attempt(setup: &Setup, script: &[Step]) -> Result<Outcome, (usize, Failure)> {
    catch_unwind(AssertUnwindSafe(|| Machine::run(setup, script))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("?");
        Err((script.len(), Failure(format!("panic: {text}"))))
    })
}

/// Tries to leave things out of a list, halves first. `fails` says whether what is left still fails.
fn thin<T: Clone>(mut list: Vec<T>, runs: &mut usize, mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut piece = list.len().div_ceil(2);
    while piece > 0 {
        let mut at = 0;
        while at < list.len() && *runs > 0 {
            let mut shorter = list.clone();
            shorter.drain(at..(at + piece).min(list.len()));
            *runs -= 1;
            if fails(&shorter) {
                list = shorter;
            } else {
                at += piece;
            }
        }
        piece = if piece == 1 { 0 } else { piece.div_ceil(2) };
    }
    list
}

/// A shorter script for which `fails` holds as it does for this one.
pub fn shrink(script: &[Step], fails: impl Fn(&[Step]) -> bool) -> Vec<Step> {
    let mut runs = RUNS;
    let mut script = thin(script.to_vec(), &mut runs, &fails);
    for at in (0..script.len()).rev() {
        if let Step::Commit(durability, writes) = script[at].clone() {
            let with = |writes: &[Write]| {
                let mut script = script.clone();
                script[at] = Step::Commit(durability, writes.to_vec());
                script
            };
            let fewer = thin(writes, &mut runs, |writes| fails(&with(writes)));
            script = with(&fewer);
        }
    }
    thin(script, &mut runs, &fails)
}

/// Runs a script. If it fails, panics with the shortest one that does.
pub fn run(name: &str, setup: &Setup, script: &[Step]) -> Outcome {
    let (at, Failure(why)) = match attempt(setup, script) {
        Ok(outcome) => return outcome,
        Err(failure) => failure,
    };
    let upto = &script[..(at + 1).min(script.len())];
    let short = shrink(upto, |script| attempt(setup, script).is_err());
    let end = attempt(setup, &short).err().map_or(String::new(), |(_, Failure(why))| why);
    let steps: String = short.iter().map(|step| format!("\n    {step:?}")).collect();
    panic!("{name}: call {at} fails: {why}\n  with {setup:#?}\n  in short:{steps}\n  => {end}");
}

#[test]
fn what_does_not_matter_is_left_out() {
    let put = |n: u8| {
        Step::Commit(esker::Durability::Buffered, vec![Write::Put(0, vec![n], vec![]), Write::Clear(1)])
    };
    let script: Vec<Step> = (0..50).map(put).chain([Step::Flush]).collect();
    let has = |script: &[Step], n: u8| {
        script.iter().any(|s| matches!(s, Step::Commit(_, w) if w.iter().any(|w| matches!(w, Write::Put(_, k, _) if k[0] == n))))
    };
    let short = shrink(&script, |script| has(script, 7) && has(script, 31));
    assert_eq!(
        format!("{short:?}"),
        r#"[commit Buffered [put a "\x07" (0 B)], commit Buffered [put a "\x1f" (0 B)]]"#
    );
}
