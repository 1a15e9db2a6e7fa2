//! `kill`: the child dies at a random moment (SIGKILL), thousands of times in the same directory.

use crate::args::Args;
use crate::check::End;
use crate::dir::{Dir, Span, acknowledged};
use crate::steps::Rng;
use crate::tell::{Level, Told};
use crate::work::Work;
use crate::writer::Lie;
use crate::{Outcome, progress};
use std::time::Duration;

/// A directory is given up for a new one, with other options, after so many cycles on average.
const LIFE: usize = 50;

/// What was done and seen.
#[derive(Default)]
pub struct Counts {
    kills: u64,
    opening: u64,
    closing: u64,
    recovering: u64,
    acks: u64,
    steps: u64,
    torn: u64,
    copies: u64,
    dirs: u64,
}

pub fn run(args: &Args) -> Outcome {
    let mut work = Work::new(args)?;
    let counts = cycles(args, &work, args.cycles.unwrap_or(200), None).map_err(|e| work.keep(e))?;
    let Counts { kills, opening, closing, recovering, acks, steps, torn, copies, dirs } = counts;
    println!(
        "proof: kill: {kills} kills, {opening} of them before the database was open, {closing} while it closed and {recovering} in \
         recoveries, {dirs} directories, {acks} commits acknowledged, {steps} found, {torn} torn tails, \
         {copies} checkpoints, 0 failures"
    );
    Ok(())
}

/// So many cycles; with a child that lies, the error is what was caught.
pub fn cycles(args: &Args, work: &Work, cycles: u64, lie: Option<Lie>) -> Outcome<Counts> {
    let mut counts = Counts::default();
    let mut dir = None;
    for cycle in 0..cycles {
        let mut rng = Rng::new(&[args.seed, cycle]);
        if rng.one_in(LIFE) {
            dir = None;
        }
        let dir = match &mut dir {
            Some(dir) => dir,
            None => {
                counts.dirs += 1;
                dir.insert(Dir::new(work.path().join("db"), rng.next() >> 1, lie)?)
            }
        };
        one(&mut rng, work, dir, &mut counts)
            .map_err(|e| format!("cycle {cycle} (--seed {}; {}): {e}", args.seed, dir.orders.setup))?;
        progress(cycle + 1, cycles, "kills");
    }
    Ok(counts)
}

fn one(rng: &mut Rng, work: &Work, dir: &mut Dir, counts: &mut Counts) -> Outcome {
    let life = dir.live(&work.log(), Span::draw(rng), || Ok(()))?;
    let claims = life.claims(End::Killed)?;
    counts.kills += 1;
    counts.closing += u64::from(life.told.contains(&Told::Done));
    counts.opening += u64::from(!life.told.contains(&Told::Open));
    counts.acks += acknowledged(&claims.acks, Level::Buffered);
    if rng.one_in(4) {
        // Killed again in the recovery, up to three times.
        for _ in 0..1 + rng.below(3) {
            let long = Duration::from_micros(rng.next() % 8000);
            counts.recovering += u64::from(dir.open(&work.log(), long, || Ok(()))?);
            counts.kills += 1;
        }
    }
    let found = dir.look(&work.path().join("before"), &claims, rng.one_in(2))?;
    counts.copies += dir.look_at_copies(&life, &claims)?;
    counts.steps += found.steps;
    counts.torn += u64::from(found.torn);
    Ok(())
}
