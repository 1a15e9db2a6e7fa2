//! `sim`: the simulated disk, held against a real file system: whatever that shows after a shutdown
//! must be among what the simulation allows.

use crate::args::Args;
use crate::child::Child;
use crate::disk::{Cut, Disk, Kind};
use crate::power::{kinds, possible};
use crate::script::{self, Player, Truth};
use crate::steps::Rng;
use crate::work::{self, Work};
use crate::{Outcome, progress};
use esker::fs::Fs;
use esker::fs::os::OsFs;
use esker::fs::sim::{SimFs, Survived, Tally, Tree};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A file system is given up for a new one, made in another way, after so many scripts on average.
const LIFE: usize = 25;

/// What was done and seen.
#[derive(Default)]
pub struct Counts {
    scripts: u64,
    steps: u64,
    begun: u64,
    sum: Survived,
    /// Which of old, new and other was seen of names, lengths and sectors, together.
    kinds: BTreeSet<[bool; 9]>,
}

pub fn run(args: &Args) -> Outcome {
    let mut work = Work::new(args)?;
    for kind in kinds(args)? {
        let name = kind.name();
        if let Err(e) = possible(&work, kind) {
            println!("skipped: sim on {name}: {e}");
            continue;
        }
        let cycles_ = args.cycles.unwrap_or(100);
        let counts = cycles(args, &work, kind, cycles_, Truth::Honest).map_err(|e| work.keep(e))?;
        let Counts { scripts, steps, begun, sum, kinds } = counts;
        let tally = |t: Tally| format!("{}/{}/{}", t.old, t.new, t.other);
        println!(
            "proof: sim: {name}: {scripts} scripts of {steps} operations, {begun} cut off in one; old/new/other: \
             names {}, lengths {}, sectors {}; {} kinds of outcome, 0 that the simulation excludes",
            tally(sum.names),
            tally(sum.lengths),
            tally(sum.sectors),
            kinds.len()
        );
    }
    Ok(())
}

/// So many scripts; where the real one never syncs, the error is what was caught.
pub fn cycles(args: &Args, work: &Work, kind: Kind, cycles: u64, truth: Truth) -> Outcome<Counts> {
    let mut counts = Counts::default();
    let mut disk = None;
    for cycle in 0..cycles {
        let mut rng = Rng::new(&[args.seed, cycle, kind as u64, 7]);
        if rng.one_in(LIFE) {
            disk = None;
        }
        let disk = match &mut disk {
            Some(disk) => disk,
            None => disk.insert(Disk::new(work.path(), kind, &mut rng)?),
        };
        one(&mut rng, work, disk, truth, &mut counts).map_err(|e| {
            format!("script {cycle} (--fs {} --seed {}; {disk}): {e}", kind.name(), args.seed)
        })?;
        progress(cycle + 1, cycles, "scripts");
    }
    Ok(counts)
}

fn one(rng: &mut Rng, work: &Work, disk: &mut Disk, truth: Truth, counts: &mut Counts) -> Outcome {
    let dir = disk.path().join("script");
    work::remove(&dir)?;
    OsFs.create_dir_all(&dir)?;
    OsFs.sync_dir(&dir)?;
    OsFs.sync_dir(disk.path())?;

    let (seed, root) = (rng.next(), Path::new("/"));
    let sim = SimFs::new(seed);
    let mut player = Player::new(Arc::new(sim.clone()), root, seed, Truth::Honest);
    let args =
        ["child-script".into(), "--db".into(), dir.clone().into(), "--seed".into(), seed.to_string().into()];
    let lie = (truth == Truth::NeverSyncs).then(|| "--never-syncs".into());
    let mut child = Child::start(&args.into_iter().chain(lie).collect::<Vec<_>>(), &[], &work.log())?;
    let steps = 5 + rng.below(60);
    for _ in 0..steps {
        script::step(&mut child)?;
        player.step()?;
        if rng.one_in(12) {
            write_back(rng, &dir)?;
        }
    }
    // All that is known to have been done, and at most one operation more.
    let done = sim.ops();
    let begin = rng.one_in(2);
    if begin {
        child.say("")?;
        player.step()?;
        let until = Instant::now() + Duration::from_micros(rng.next() % 300);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
    }
    disk.cut(if rng.one_in(2) { Cut::Data } else { Cut::All })?;
    drop(child);
    disk.restart()?;

    let tree = Tree::read(&OsFs, &dir)?;
    let answers: Vec<_> = (done..=sim.ops()).map(|op| sim.allows(op, root, &tree)).collect();
    let found = answers.iter().find_map(|answer| answer.as_ref().ok());
    let Some(found) = found else {
        let log = sim.log().join("\n");
        return Err(
            format!("the simulation excludes this: {answers:?}\nafter operation {done} of\n{log}").into()
        );
    };
    counts.add(found);
    counts.scripts += 1;
    counts.steps += steps as u64;
    counts.begun += u64::from(begin);
    Ok(())
}

/// Behind the back of the simulation something is written back: that it survives is as legal as that
/// it does not.
fn write_back(rng: &mut Rng, dir: &Path) -> Outcome {
    let names = ["", "d", "a", "b", "c", "d/a", "d/b", "d/c"];
    if let Ok(file) = File::open(dir.join(rng.pick(&names))) {
        file.sync_all()?;
    }
    Ok(())
}

impl Counts {
    fn add(&mut self, found: &Survived) {
        let mut kinds = Vec::new();
        let sum = &mut self.sum;
        for (sum, found) in [
            (&mut sum.names, found.names),
            (&mut sum.lengths, found.lengths),
            (&mut sum.sectors, found.sectors),
        ] {
            sum.old += found.old;
            sum.new += found.new;
            sum.other += found.other;
            kinds.extend([found.old > 0, found.new > 0, found.other > 0]);
        }
        self.kinds.insert(std::array::from_fn(|i| kinds[i]));
    }
}
