//! `power`: the file system is shut down under the writer, as if the power had gone: its caches are
//! lost. What was acknowledged as durable before that must be there when it is mounted again.

use crate::args::Args;
use crate::check::{Claims, End};
use crate::dir::{Dir, Span, acknowledged};
use crate::disk::{Cut, Disk, Kind};
use crate::steps::Rng;
use crate::tell::{Level, Told};
use crate::work::Work;
use crate::writer::Lie;
use crate::{Outcome, progress};
use std::time::Duration;

/// A file system is given up for a new one, made in another way, after so many cycles on average.
const LIFE: usize = 25;

/// What was done and seen.
#[derive(Default)]
pub struct Counts {
    cuts: u64,
    opening: u64,
    closing: u64,
    recovering: u64,
    after: u64,
    with_journal: u64,
    disks: u64,
    acks: u64,
    steps: u64,
    lost: u64,
    torn: u64,
    copies: u64,
}

pub fn run(args: &Args) -> Outcome {
    let mut work = Work::new(args)?;
    for kind in kinds(args)? {
        let name = kind.name();
        if let Err(e) = possible(&work, kind) {
            println!("skipped: power on {name}: {e}");
            continue;
        }
        let counts = cycles(args, &work, kind, args.cycles.unwrap_or(50), None).map_err(|e| work.keep(e))?;
        let Counts {
            cuts,
            opening,
            closing,
            recovering,
            after,
            with_journal,
            disks,
            acks,
            steps,
            lost,
            torn,
            copies,
        } = counts;
        println!(
            "proof: power: {name}: {cuts} power cuts, {opening} of them before the database was open, \
             {closing} while it closed, {recovering} in recoveries and {after} after a close, {with_journal} kept the file system's \
             journal; {disks} disks, {acks} commits acknowledged as durable, {steps} found, {lost} buffered \
             ones lost, {torn} torn tails, {copies} checkpoints, 0 failures"
        );
    }
    Ok(())
}

/// The kinds asked for.
pub fn kinds(args: &Args) -> Outcome<Vec<Kind>> {
    let Some(name) = &args.fs else { return Ok(Kind::ALL.to_vec()) };
    let known = Kind::ALL.into_iter().find(|kind| name == kind.name());
    Ok(vec![known.ok_or("--fs is ext4 or xfs")?])
}

/// Whether such a file system can be made, mounted and shut down here.
pub fn possible(work: &Work, kind: Kind) -> Outcome {
    let mut disk = Disk::new(work.path(), kind, &mut Rng::new(&[]))?;
    disk.cut(Cut::All).map_err(|e| format!("shutting it down: {e}"))?;
    disk.restart()
}

/// So many cycles; with a child that lies, the error is what was caught.
pub fn cycles(args: &Args, work: &Work, kind: Kind, cycles: u64, lie: Option<Lie>) -> Outcome<Counts> {
    let mut counts = Counts::default();
    let mut place = None;
    for cycle in 0..cycles {
        let mut rng = Rng::new(&[args.seed, cycle, kind as u64]);
        if rng.one_in(LIFE) {
            place = None;
        }
        let (disk, dir) = match &mut place {
            Some(place) => place,
            None => {
                counts.disks += 1;
                let disk = Disk::new(work.path(), kind, &mut rng)?;
                let dir = Dir::new(disk.path().join("db"), rng.next() >> 1, lie)?;
                place.insert((disk, dir))
            }
        };
        one(&mut rng, work, disk, dir, &mut counts).map_err(|e| {
            let setup = dir.orders.setup;
            format!("cycle {cycle} (--fs {} --seed {}; {setup}; {disk}): {e}", kind.name(), args.seed)
        })?;
        progress(cycle + 1, cycles, "power cuts");
    }
    Ok(counts)
}

fn one(rng: &mut Rng, work: &Work, disk: &mut Disk, dir: &mut Dir, counts: &mut Counts) -> Outcome {
    let (span, cut) = (Span::draw(rng), counts.draw(rng));
    let life = dir.live(&work.log(), span, || Ok(disk.cut(cut)?))?;
    disk.restart()?;
    let claims = life.claims(End::Cut)?;
    counts.closing += u64::from(life.told.contains(&Told::Done));
    counts.opening += u64::from(!life.told.contains(&Told::Open));
    counts.acks += acknowledged(&claims.acks, Level::Durable);
    if rng.one_in(4) {
        // Again in the recovery, up to three times.
        for _ in 0..1 + rng.below(3) {
            let (long, cut) = (Duration::from_micros(rng.next() % 15_000), counts.draw(rng));
            counts.recovering += u64::from(dir.open(&work.log(), long, || Ok(disk.cut(cut)?))?);
            disk.restart()?;
        }
    }
    let write = rng.one_in(2);
    let found = dir.look(&work.path().join("before"), &claims, write)?;
    counts.copies += dir.look_at_copies(&life, &claims)?;
    counts.steps += found.steps;
    counts.lost += found.lost;
    counts.torn += u64::from(found.torn);
    if write && rng.one_in(4) {
        // What was opened, looked at and closed must be there for good.
        disk.cut(counts.draw(rng))?;
        disk.restart()?;
        counts.after += 1;
        dir.look(&work.path().join("before"), &Claims::none(), false)?;
    }
    Ok(())
}

impl Counts {
    fn draw(&mut self, rng: &mut Rng) -> Cut {
        let cut = if rng.one_in(4) { Cut::Data } else { Cut::All };
        self.cuts += 1;
        self.with_journal += u64::from(cut == Cut::Data);
        cut
    }
}
