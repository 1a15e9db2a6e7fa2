//! What the checks must not accept: engines, played by file systems that lie to them, which do the
//! wrong thing after a fault; beside a twin that does the right one.

use super::attempt::Attempt;
use super::cases::{Call, Case, ways};
use super::kinds::{is_fair, kinds};
use crate::crash::workloads::put;
use crate::world::{How, Step};
use esker::fs::fault::{Fault, Op, Rule, Struck};
use esker::{Error, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};

fn case(calls: &[Step]) -> Case {
    let calls = calls.iter().cloned().map(Call::Step).collect();
    Case::new("control".into(), ways()[1].1.clone(), calls)
}

fn attempt(case: &Case) -> Attempt {
    Attempt::new(case, 1, case.name.clone())
}

/// Whether a check finds fault with what `wrong` has done to an attempt that was as it should be.
fn is_caught(case: &Case, wrong: impl FnOnce(&mut Attempt), check: impl FnOnce(&mut Attempt)) -> bool {
    let mut attempt = attempt(case);
    attempt.run_all(&case.calls);
    wrong(&mut attempt);
    catch_unwind(AssertUnwindSafe(|| check(&mut attempt))).is_err()
}

fn two_commits() -> Case {
    case(&[Step::Create("a"), put("a", How::Sync, "k", "1"), put("a", How::Sync, "k", "2")])
}

#[test]
fn what_is_right_passes() {
    let case = two_commits();
    assert!(!is_caught(&case, |_| {}, |a| (0..20).for_each(|_| a.cut())));
    assert!(!is_caught(&case, |_| {}, Attempt::recover));
    let mut whole = attempt(&case);
    whole.run_all(&case.calls);
    assert_eq!(whole.close(), 0);
}

/// An acknowledged commit that is gone, one that nobody made, and an older state under a newer number.
#[test]
fn lost_and_invented_data_are_noticed() {
    let case = two_commits();
    let forget = |a: &mut Attempt| {
        // Promised: one commit more than there are.
        let state = a.world.state().clone();
        a.world.states.push(state);
        a.world.seqs.push(100);
        a.world.promise(a.world.now());
    };
    assert!(is_caught(&case, forget, |a| (0..20).for_each(|_| a.cut())));
    let alter = |a: &mut Attempt| a.world.states.last_mut().unwrap().clear();
    assert!(is_caught(&case, alter, |a| (0..20).for_each(|_| a.cut())));
    let put = |a: &mut Attempt| {
        a.world.db().keyspace("a").unwrap().put("invented", "x").unwrap();
    };
    assert!(is_caught(&case, put, Attempt::recover));
    assert!(is_caught(&case, put, |a| (0..20).for_each(|_| a.cut())));
}

/// A journal whose sync has failed, and a database that goes on: a failure the engine never heard of.
#[test]
fn going_on_after_a_failed_sync_is_noticed() {
    let case = two_commits();
    let mut attempt = attempt(&case);
    attempt.run_all(&case.calls);
    let rule = Rule { op: Op::Sync, nth: 1, kind: Fault::Io, forever: false };
    attempt.faults.fail_in(".journal", rule);
    let disk = attempt.world.sim.files();
    let journal = disk.iter().find(|f| f.0.extension().is_some_and(|x| x == "journal")).unwrap();
    // Struck, and told to nobody but the test.
    use esker::fs::Fs;
    assert!(attempt.faults.open_write(&journal.0).unwrap().sync().is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| attempt.run_all(&case.calls[1..]))).is_err());
}

/// The answers a fault allows, and those it does not.
#[test]
fn answers_are_of_the_right_kind() {
    let error = |kind: Fault, op: Op| -> Error {
        let case = two_commits();
        let mut attempt = attempt(&case);
        attempt.fail(Rule { op, nth: 1, kind, forever: true });
        let fs = std::sync::Arc::new(attempt.faults.clone());
        attempt.world.try_open(fs).unwrap_err()
    };
    let (io, full) = (error(Fault::Io, Op::Create), error(Fault::Full, Op::Create));
    assert_eq!((io.kind(), full.kind()), (ErrorKind::Io, ErrorKind::DiskFull));
    let struck = |op: Op, kind: Fault| {
        let case = two_commits();
        let mut attempt = attempt(&case);
        attempt.fail(Rule { op, nth: 1, kind, forever: true });
        attempt.run_all(&case.calls);
        attempt.faults.struck()
    };
    let by: Vec<Struck> = struck(Op::Create, Fault::Io);
    assert!(is_fair(&io, &by) && !is_fair(&full, &by) && !is_fair(&io, &[]));
    let by = struck(Op::Create, Fault::Full);
    assert!(is_fair(&full, &by));
    let by = struck(Op::Read, Fault::Short);
    assert!(!is_fair(&io, &by), "nobody may notice a short read");
}

/// No operation is left out, and each has its faults.
#[test]
fn every_operation_is_met() {
    assert!(Op::ALL.iter().all(|op| !kinds(*op, 0).is_empty()));
    let case = Case::new("copies".into(), ways()[2].1.clone(), super::cases::copies());
    let mut all = attempt(&case);
    all.run_all(&case.calls);
    let missing: Vec<_> = Op::ALL.iter().filter(|op| all.faults.count(**op) == 0).collect();
    assert!(missing.is_empty(), "{missing:?} never happens");
}
