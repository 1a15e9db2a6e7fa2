//! `preload`: calls of the C library fail below a writer. Nothing may panic, errors are typed, what
//! failed for good stays so, and what was acknowledged is there afterwards.

use crate::args::Args;
use crate::check::End;
use crate::child::{Child, Heard};
use crate::dir::{Dir, Life, acknowledged};
use crate::disk::call;
use crate::steps::Rng;
use crate::tell::{Level, Told};
use crate::work::Work;
use crate::writer::Orders;
use crate::{Outcome, progress};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A directory is given up for a new one, with other options, after so many points on average.
const LIFE: usize = 10;
/// So many steps of each writer in one life.
const STEPS: u64 = 12;

/// How a call fails: a word, and the number of the error.
type How = (&'static str, i32);
const EINTR: How = ("EINTR", 4);
const EIO: How = ("EIO", 5);
const ENODEV: How = ("ENODEV", 19);
const EMFILE: How = ("EMFILE", 24);
const ENOSPC: How = ("ENOSPC", 28);
/// The call does half of what it was asked.
const SHORT: How = ("half done", 0);
/// The call does nothing and claims success: what no program can stand.
const LOST: How = ("lost", -1);

/// What can fail, in the order of the library's numbers, and how.
const CALLS: [(&str, &[How]); 8] = [
    ("pwrite", &[EIO, ENOSPC, EINTR, SHORT]),
    ("pread", &[EIO, EINTR, SHORT]),
    ("fdatasync", &[EIO, ENOSPC, EINTR]),
    ("fsync", &[EIO, ENOSPC, EINTR]),
    ("open", &[EIO, ENOSPC, EINTR, EMFILE]),
    ("unlink", &[EIO]),
    ("mmap", &[ENODEV]),
    ("fallocate", &[EIO, ENOSPC, EINTR]),
];

/// The kinds of error there may be.
const KINDS: [&str; 4] = ["Io", "DiskFull", "ReadOnly", "Closed"];

/// What was done and seen.
#[derive(Default)]
pub struct Counts {
    points: u64,
    /// Points at which a call failed: the others lay beyond the last one.
    reached: u64,
    /// Calls that failed, by what and how.
    failed: BTreeMap<(&'static str, &'static str), u64>,
    /// Errors told by the writer, by kind.
    errors: BTreeMap<String, u64>,
    acks: u64,
    /// How often each call was seen in one life, at most.
    seen: [u64; CALLS.len()],
}

/// What fails, and when.
struct Fault {
    call: usize,
    nth: u64,
    times: u64,
    with: How,
}

/// What the calls of a run do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Calls {
    /// They fail, and say so.
    Fail,
    /// None fails.
    Work,
    /// Writes are lost.
    Lie,
}

/// The library, and the file it counts in.
pub struct Library {
    path: PathBuf,
    counts: PathBuf,
}

pub fn run(args: &Args) -> Outcome {
    let mut work = Work::new(args)?;
    let library = match Library::build(work.path()) {
        Ok(library) => library,
        Err(e) => {
            println!("skipped: preload: the library cannot be compiled: {e}");
            return Ok(());
        }
    };
    let cycles = args.cycles.unwrap_or(100);
    let counts = points(args, &work, &library, cycles, Calls::Fail).map_err(|e| work.keep(e))?;
    let list = |words: Vec<String>| words.join(", ");
    let failed: Vec<_> = counts.failed.iter().map(|((call, with), n)| format!("{call} {with} {n}")).collect();
    println!("calls that failed: {}", list(failed));
    if let Some((call, _)) = CALLS.iter().zip(counts.seen).find(|(_, seen)| *seen == 0).map(|(call, _)| call)
    {
        println!("never seen: {call}");
    }
    println!(
        "proof: preload: {} points, {} of them reached, {} calls failed, errors {}, {} commits acknowledged, 0 failures",
        counts.points,
        counts.reached,
        counts.failed.values().sum::<u64>(),
        list(counts.errors.iter().map(|(kind, n)| format!("{kind} {n}")).collect()),
        counts.acks
    );
    Ok(())
}

/// So many points; where calls lie, the error is what was caught.
pub fn points(args: &Args, work: &Work, library: &Library, points: u64, calls: Calls) -> Outcome<Counts> {
    let mut counts = Counts::default();
    let mut dir = None;
    for point in 0..points {
        let mut rng = Rng::new(&[args.seed, point, 11]);
        if rng.one_in(LIFE) {
            dir = None;
        }
        let dir = match &mut dir {
            Some(dir) => dir,
            None => dir.insert(Dir::new(work.path().join("db"), rng.next() >> 1, None)?),
        };
        dir.orders.steps = Some(STEPS);
        let fault = Fault::draw(&mut rng, &counts.seen, calls);
        one(work, library, dir, &fault, &mut counts).map_err(|e| {
            let Fault { call, nth, times, with } = fault;
            format!(
                "point {point} (--seed {}; {}): {} number {nth}, {times} times, {}: {e}",
                args.seed, dir.orders.setup, CALLS[call].0, with.0
            )
        })?;
        progress(point + 1, points, "points");
    }
    Ok(counts)
}

fn one(work: &Work, library: &Library, dir: &mut Dir, fault: &Fault, counts: &mut Counts) -> Outcome {
    let (life, log) = library.live(&work.log(), &dir.orders, fault)?;
    let (seen, hits) = library.counts()?;
    for (call, seen) in seen.into_iter().enumerate() {
        counts.seen[call] = counts.seen[call].max(seen);
    }
    counts.points += 1;
    if hits > 0 {
        counts.reached += 1;
        *counts.failed.entry((CALLS[fault.call].0, fault.with.0)).or_default() += hits;
    }
    // What was interrupted or done by half is tried again, and nobody hears of it.
    let silent = matches!(fault.with, EINTR | SHORT);
    for told in &life.told {
        let Told::Failed { kind, .. } = told else { continue };
        if silent || hits == 0 || !KINDS.contains(&&kind[..]) {
            return Err(format!("{hits} failed, and the child told: {told} {log}").into());
        }
        *counts.errors.entry(kind.clone()).or_default() += 1;
    }
    let claims = life.all_claims(End::Killed);
    counts.acks += acknowledged(&claims.acks, Level::Buffered);
    dir.look(&work.path().join("before"), &claims, true)?;
    dir.look_at_copies(&life, &claims)?;
    Ok(())
}

impl Fault {
    /// One at a call that is likely to be made: lives differ in how many they make, so rather an early one.
    fn draw(rng: &mut Rng, seen: &[u64; CALLS.len()], calls: Calls) -> Fault {
        let call = if calls == Calls::Lie { 0 } else { rng.below(CALLS.len()) };
        let with = if calls == Calls::Lie { LOST } else { rng.pick(CALLS[call].1) };
        let nth = if calls == Calls::Work {
            u64::MAX
        } else {
            1 + rng.next() % (1 + rng.next() % seen[call].max(8))
        };
        // Nobody is interrupted for ever.
        let most = if with == EINTR { 3 } else { u64::MAX };
        Fault { call, nth, times: rng.pick(&[1, 1, 2, most]), with }
    }
}

impl Library {
    pub fn build(work: &Path) -> Outcome<Library> {
        let (source, path) = (work.join("preload.c"), work.join("preload.so"));
        fs::write(&source, include_str!("preload.c"))?;
        let flags = ["-shared", "-fPIC", "-O1", "-o"].map(Path::new);
        call("cc", flags.into_iter().chain([&*path, &*source, Path::new("-ldl")]))?;
        Ok(Library { path, counts: work.join("counts") })
    }

    /// A life below the library, to its own end.
    fn live(&self, log: &Path, orders: &Orders, fault: &Fault) -> Outcome<(Life, String)> {
        fs::write(&self.counts, vec![0; 8 * (CALLS.len() + 1)])?;
        let env = [
            ("LD_PRELOAD", self.path.clone().into()),
            ("TORTURE_COUNTS", self.counts.clone().into()),
            ("TORTURE_DIR", orders.dir.clone().into()),
            ("TORTURE_CALL", fault.call.to_string().into()),
            ("TORTURE_NTH", fault.nth.to_string().into()),
            ("TORTURE_TIMES", fault.times.to_string().into()),
            ("TORTURE_ERRNO", fault.with.1.to_string().into()),
        ];
        let mut child = Child::writer_with(orders, &env, log)?;
        let until = Instant::now() + Duration::from_secs(60);
        let mut life = Life::default();
        loop {
            match child.hear(until) {
                Heard::Told(told) => life.told.push(told),
                Heard::End => break,
                Heard::Nothing => return Err(format!("the child hangs: {}", child.log()).into()),
            }
        }
        let status = child.end()?;
        if !status.success() || child.log().contains("panicked") {
            return Err(format!("the child ended with {status}: {}", child.log()).into());
        }
        Ok((life, child.log()))
    }

    /// How often each call was made, and how often one failed.
    fn counts(&self) -> Outcome<([u64; CALLS.len()], u64)> {
        let bytes = fs::read(&self.counts)?;
        let word = |at: usize| bytes[8 * at..8 * at + 8].iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
        Ok((std::array::from_fn(word), word(CALLS.len())))
    }
}
