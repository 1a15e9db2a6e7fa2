//! Each fault at each operation of each case.

use super::attempt::Attempt;
use super::cases::{self, Case};
use super::kinds::kinds;
use crate::rng::Rng;
use esker::fs::fault::{Fault, Op, Rule};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

#[derive(Default)]
pub struct Counts {
    /// Operations a fault was put at, in one way or another, and runs so made.
    pub operations: u64,
    pub points: u64,
    pub in_recovery: u64,
    /// Runs in which a call failed, and those that ended read-only.
    pub met: u64,
    pub over: u64,
    pub residues: usize,
    pub by_op: BTreeMap<String, u64>,
    pub failures: Vec<String>,
}

/// A point that is tried: its own seed, so that it can be tried alone.
struct Point<'a> {
    case: &'a Case,
    rule: Rule,
    what: String,
}

impl Point<'_> {
    fn seed(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.what.hash(&mut hasher);
        hasher.finish()
    }

    /// Whether a call failed, whether that was the end, and what was lost where no witness is.
    fn run(&self) -> (bool, bool, usize) {
        let mut attempt = Attempt::new(self.case, self.seed(), self.what.clone());
        attempt.fail(self.rule);
        attempt.run_all(&self.case.calls);
        let (met, over) = (attempt.errors > 0, attempt.over);
        attempt.cut();
        attempt.recover();
        (met, over, attempt.close())
    }

    fn try_run(&self, counts: &mut Counts) {
        counts.points += 1;
        match catch_unwind(AssertUnwindSafe(|| self.run())) {
            Ok((met, over, residues)) => {
                counts.met += u64::from(met);
                counts.over += u64::from(over);
                counts.residues += residues;
            }
            Err(_) => {
                eprintln!("FAILED: ESKER_POINT='{}'", self.what);
                counts.failures.push(self.what.clone());
                assert!(counts.failures.len() < 20, "enough: {:#?}", counts.failures);
            }
        }
    }
}

/// How often each operation is done when nothing fails.
fn clean(case: &Case) -> Vec<(Op, u64)> {
    let mut attempt = Attempt::new(case, 1, format!("{}, no failure", case.name));
    attempt.run_all(&case.calls);
    assert!(attempt.errors == 0 && !attempt.over);
    let counts = Op::ALL.map(|op| (op, attempt.faults.count(op)));
    attempt.cut();
    attempt.recover();
    attempt.close();
    counts.into()
}

/// Which points are tried.
#[derive(Clone)]
enum Wanted {
    All,
    /// About so many of each case.
    Some(u64),
    /// One in so many.
    OneIn(usize),
    /// Those with this in their name.
    Named(String),
}

impl Wanted {
    fn includes(&self, what: &str, possible: u64, rng: &mut Rng) -> bool {
        match self {
            Wanted::All => true,
            Wanted::Some(n) => (rng.below(possible as usize) as u64) < *n,
            Wanted::OneIn(n) => rng.one_in(*n),
            Wanted::Named(name) => what.contains(name.as_str()),
        }
    }
}

fn fail_everywhere(case: &Case, counts: &mut Counts, wanted: &Wanted, watch: &Watch) {
    let before = counts.points;
    let (mut bits, mut rng) = (Rng::new(7), Rng::new(counts.operations));
    let clean = clean(case);
    let possible = clean.iter().map(|(op, count)| count * 2 * kinds(*op, 0).len() as u64).sum();
    for (op, count) in clean {
        counts.operations += count;
        for nth in 1..=count {
            for kind in kinds(op, bits.next() >> 8) {
                for forever in [false, true] {
                    let how = if forever { "from then on" } else { "once" };
                    let what = format!("{}: {op:?} {nth} of {count}: {kind:?} {how}", case.name);
                    if wanted.includes(&what, possible, &mut rng) {
                        let rule = Rule { op, nth, kind, forever };
                        watch.at.lock().unwrap().clone_from(&what);
                        Point { case, rule, what }.try_run(counts);
                        *counts.by_op.entry(format!("{op:?}")).or_default() += 1;
                    }
                }
            }
        }
    }
    if case.name.contains("recovery") {
        counts.in_recovery += counts.points - before;
    }
}

impl Counts {
    pub fn print(&self) {
        let Counts { operations, points, in_recovery, met, over, residues, by_op, failures } = self;
        println!("{by_op:?}");
        println!(
            "proof: faults: {points} fault points at {operations} operations ({in_recovery} points in \
             recovery), {met} failed a call, {over} ended read-only, {residues} times what no witness \
             vouched for was lost, {} failures",
            failures.len()
        );
        assert!(failures.is_empty(), "{failures:#?}");
    }
}

/// Runs of all cases. The environment may want other points than the test does.
fn all(recoveries: usize, one_way: bool, wanted: Wanted) -> Counts {
    let wanted = match (std::env::var("ESKER_POINT"), std::env::var("ESKER_FAULTS")) {
        (Ok(name), _) => Wanted::Named(name),
        (_, Ok(n)) => Wanted::OneIn(n.parse().expect("ESKER_FAULTS is a number")),
        _ => wanted,
    };
    let mut counts = Counts::default();
    let watch = Watch::start();
    for case in cases::all(recoveries, one_way) {
        let before = counts.points;
        fail_everywhere(&case, &mut counts, &wanted, &watch);
        println!("{}: {} points", case.name, counts.points - before);
    }
    watch.end();
    counts.print();
    counts
}

/// So long a point may take, which is thousands of times what the slowest does.
const HANGS: Duration = Duration::from_secs(600);

/// Looks on from a thread of its own, and ends the process with the name of a point that hangs.
struct Watch {
    at: Arc<Mutex<String>>,
    done: Sender<()>,
    thread: JoinHandle<()>,
}

impl Watch {
    fn start() -> Watch {
        let at = Arc::new(Mutex::new(String::new()));
        let (done, ended) = channel();
        let seen = at.clone();
        let thread = std::thread::spawn(move || {
            let mut last = String::new();
            while ended.recv_timeout(HANGS) == Err(RecvTimeoutError::Timeout) {
                let now = seen.lock().unwrap().clone();
                if now == last && !now.is_empty() {
                    eprintln!("HANGS: ESKER_POINT='{now}'");
                    std::process::abort();
                }
                last = now;
            }
        });
        Watch { at, done, thread }
    }

    fn end(self) {
        drop(self.done);
        self.thread.join().unwrap();
    }
}

#[test]
fn a_sample_of_all_operations_fails() {
    let counts = all(1, true, Wanted::Some(12));
    assert!(counts.met > counts.points / 4 || std::env::var_os("ESKER_POINT").is_some());
}

#[test]
#[ignore = "takes long"]
fn all_operations_fail() {
    all(3, false, Wanted::All);
}

/// What is called harmless is: the same calls, and none of them fails.
#[test]
fn short_and_interrupted_transfers_change_nothing() {
    for case in cases::all(0, true).iter().step_by(2) {
        let mut attempt = Attempt::new(case, 1, format!("{}, all short", case.name));
        for op in [Op::Read, Op::Write] {
            attempt.fail(Rule { op, nth: 1, kind: Fault::Short, forever: true });
        }
        attempt.run_all(&case.calls);
        assert_eq!(attempt.errors, 0, "{}", case.name);
        attempt.close();
    }
}
