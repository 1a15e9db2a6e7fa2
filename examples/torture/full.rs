//! `full`: a small file system fills up and grows under the writers. The same process must go on,
//! reads in the meantime, and nothing may be lost.

use crate::args::Args;
use crate::check::End;
use crate::child::{Child, Heard};
use crate::dir::{Dir, Life, acknowledged};
use crate::disk::Tmpfs;
use crate::steps::{HEAVY, Rng, WRITERS};
use crate::tell::{Level, Told};
use crate::work::Work;
use crate::writer::Lie;
use crate::{Outcome, progress};
use std::time::{Duration, Instant};

const SMALL: u64 = 12 << 20;
/// For the controls.
const TINY: u64 = 4 << 20;
const MORE: u64 = 4 << 20;
/// Nobody may hang for so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was done and seen.
#[derive(Default)]
struct Counts {
    full: u64,
    reads: u64,
    acks: u64,
    steps: u64,
    refused: u64,
}

pub fn run(args: &Args) -> Outcome {
    let mut work = Work::new(args)?;
    if let Err(e) = possible(&work) {
        println!("skipped: full: {e}");
        return Ok(());
    }
    let mut counts = Counts::default();
    let cycles = args.cycles.unwrap_or(5);
    for cycle in 0..cycles {
        let mut rng = Rng::new(&[args.seed, cycle, 13]);
        one(&mut rng, &work, SMALL, None, &mut counts)
            .map_err(|e| work.keep(format!("cycle {cycle} (--seed {}): {e}", args.seed).into()))?;
        progress(cycle + 1, cycles, "file systems");
    }
    let Counts { full, reads, acks, steps, refused } = counts;
    println!(
        "proof: full: {cycles} file systems of 12 MiB, full {full} times and grown under the writers, {reads} \
         reads while full, {acks} commits acknowledged, {steps} found, {refused} times too full to be opened, \
         0 failures"
    );
    Ok(())
}

/// Whether a file system in memory can be made here.
pub fn possible(work: &Work) -> Outcome {
    Tmpfs::new(work.path(), SMALL)?.resize(SMALL + MORE)
}

/// One file system, for the controls: where the child lies, the error is what was caught.
pub fn control(args: &Args, work: &Work, lie: Option<Lie>) -> Outcome {
    one(&mut Rng::new(&[args.seed, 14]), work, TINY, lie, &mut Counts::default())
}

fn one(rng: &mut Rng, work: &Work, bytes: u64, lie: Option<Lie>, counts: &mut Counts) -> Outcome {
    let disk = Tmpfs::new(work.path(), bytes)?;
    let mut dir = Dir::new(disk.path().join("db"), rng.next() | HEAVY, lie)?;
    dir.orders.patient = true;
    let child = Child::writer(&dir.orders, &work.log())?;
    let mut life = Life::default();
    let grown = 1 + rng.below(3) as u64;
    for n in 0..=grown {
        fill(&child, &mut life).map_err(|e| format!("{}, {n} times grown: {e}", dir.orders.setup))?;
        counts.full += 1;
        counts.reads += reads(&child, &mut life)?;
        if n < grown {
            disk.resize(bytes + (n + 1) * MORE)?;
            resume(&child, &mut life).map_err(|e| format!("{}, {n} times grown: {e}", dir.orders.setup))?;
        }
    }
    life.told.extend(child.heard());
    life.late = child.kill()?;
    let claims = life.claims(End::Killed)?;
    counts.acks += acknowledged(&claims.acks, Level::Buffered);
    dir.exists();
    // Full as it is, it can be read, and opened or refused for that reason.
    let before = work.path().join("before");
    counts.steps += dir.look(&before, &claims, false)?.steps;
    if let Err(e) = dir.look(&before, &claims, true) {
        if !e.to_string().contains("No space left on device") {
            return Err(e);
        }
        counts.refused += 1;
    }
    disk.resize(bytes + (grown + 2) * MORE)?;
    dir.look(&before, &claims, true)?;
    Ok(())
}

/// Listens until `enough` of what was told.
fn listen(child: &Child, life: &mut Life, what: &str, mut enough: impl FnMut(&Told) -> bool) -> Outcome {
    let until = Instant::now() + PATIENCE;
    loop {
        match child.hear(until) {
            Heard::Told(told) => {
                if let Told::Failed { .. } = told {
                    return Err(format!("the child: {told}").into());
                }
                let done = enough(&told);
                life.told.push(told);
                if done {
                    return Ok(());
                }
            }
            Heard::Nothing => return Err(format!("{what}: not in {PATIENCE:?}").into()),
            Heard::End => return Err(format!("{what}: the child has ended: {}", child.log()).into()),
        }
    }
}

/// Until all writers find the disk full.
fn fill(child: &Child, life: &mut Life) -> Outcome {
    let mut full = [false; WRITERS];
    listen(child, life, "filling the disk", |told| {
        match told {
            Told::Full { writer } => full[*writer] = true,
            Told::Made { writer, .. } => full[*writer] = false,
            _ => {}
        }
        full == [true; WRITERS]
    })
}

/// Reads go on: so many were made.
fn reads(child: &Child, life: &mut Life) -> Outcome<u64> {
    let mut reads = 0;
    listen(child, life, "reading while the disk is full", |told| {
        reads += u64::from(matches!(told, Told::Read { .. }));
        reads == 4
    })?;
    Ok(reads)
}

/// There is space again: all writers go on.
fn resume(child: &Child, life: &mut Life) -> Outcome {
    let mut made = [false; WRITERS];
    listen(child, life, "going on once there is space", |told| {
        if let Told::Made { writer, .. } = told {
            made[*writer] = true;
        }
        made == [true; WRITERS]
    })
}
