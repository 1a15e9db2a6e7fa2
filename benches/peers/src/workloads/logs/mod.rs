//! Logs: loads of appends and purges, each a commit that survives power loss, killed in the end and
//! opened again; reads of what they leave; and appends by many threads at once.

mod read;
mod script;
mod threads;

pub use read::{CATCH_UP, TAIL};
pub use threads::threads;

use super::{MEMTABLE, Of, VICTIM, Worker, victim};
use crate::Outcome;
use crate::engines::logs::{self, LogEngine, Setup, room};
use crate::measure::{self, Client, Clock, Usage};
use crate::process;
use script::{LOADS, Load, Noise, Script};
use std::time::Instant;

/// Bytes of entries for each key that is asked for: 512 MiB for 4 million.
const PAYLOAD: u64 = 128;
/// A load may take so many times what other workloads may.
const TIMES: u32 = 40;
/// Of groups that have that much, so many entries in the middle are looked at.
const SOME: u64 = 40;

/// Has a process do the load and kills it; opens what is left and looks at it.
pub fn load(worker: &Worker) -> Outcome {
    let load = find(&worker.task.job)?;
    let commits: u64 = victim::kill(worker, format!("{VICTIM}{}", load.name))?.parse()?;
    let (mut script, noise) = (Script::new(load, worker.commits(load)), Noise::new());
    for _ in 0..commits {
        script.step();
    }
    let setup = worker.setup_of(load);
    let start = Instant::now();
    let db = worker.open_logs(&setup)?;
    let group = script.last();
    let last = script.bounds(group).end - 1;
    let read = db.read(group, last..last + 1, load.len, &mut |index, bytes| {
        noise.check(group, index, load.len, bytes)
    })?;
    let took = start.elapsed();
    if read != 1 {
        return Err(format!("entry {last} of group {group} did not survive").into());
    }
    worker.tell(Of::reads(load.name, "", 1), &[("open_ms", took.as_secs_f64() * 1e3)]);
    check(&*db, load, &script, &noise)?;
    if load.name == "logevents" { read::reads(worker, &*db, load, &noise, last + 1) } else { Ok(()) }
}

/// Does the load, tells what it cost, and waits to be killed.
pub fn victim(worker: &Worker, name: &str) -> Outcome {
    let load = find(name)?;
    let (noise, commits) = (Noise::new(), worker.commits(load));
    let script = Script::new(load, commits);
    let setup = worker.setup_of(load);
    let (db, dir) = (worker.open_logs(&setup)?, &setup.dir);
    let (usage, handed, syncs) = (Usage::start(dir)?, process::handed_bytes()?, db.syncs());
    let mut loading = Loading { db: &*db, script, noise: &noise, bytes: Vec::new() };
    let pass = measure::run(&mut loading, Clock::Each, worker.plan.time * TIMES)?;
    let filled = process::settle(dir)?;
    if process::written_by_map(dir)? > 0 {
        return Err("files are written through maps: what was written is not known".into());
    }
    let handed = process::handed_bytes()? - handed;
    let (payload, each) = (pass.ops * load.commit_bytes(), load.touched as u64 * load.entries);
    if pass.ops < commits {
        eprintln!("{} of {name}: cut after {} of {commits} commits", worker.task.engine, pass.ops);
    }
    let mut metrics = vec![
        ("ops_per_s", pass.rate * each as f64),
        ("settle_s", filled.as_secs_f64()),
        ("payload_bytes", payload as f64),
        ("written_per_payload", handed as f64 / payload as f64),
    ];
    metrics.extend(pass.latencies());
    if let Some((after, before)) = db.syncs().zip(syncs) {
        metrics.push(("commits_per_sync", pass.ops as f64 / (after - before) as f64));
    }
    metrics.extend(usage.end(pass.ops * each, payload)?);
    let script = loading.script;
    let living = |group| script.bounds(group).end - script.bounds(group).start;
    let live = (0..script.groups()).map(living).sum::<u64>() * load.len as u64;
    let settled = process::disk_bytes(dir)? as f64;
    let peak = metrics.iter().find(|(name, _)| *name == "disk_peak_bytes").map_or(0.0, |(_, peak)| *peak);
    let room = room(live, MEMTABLE) as f64;
    metrics.extend([
        ("disk_settled_bytes", settled),
        ("space_amp", settled / live as f64),
        ("space_amp_peak", peak.max(settled) / live as f64),
        ("space_of_room", settled / room),
        ("space_peak_of_room", peak.max(settled) / room),
    ]);
    worker.tell(Of::writes(load.name, 1), &metrics);
    check(&*db, load, &script, &noise)?;
    victim::wait(&pass.ops.to_string())
}

fn find(name: &str) -> Outcome<&'static Load> {
    LOADS.iter().find(|load| load.name == name).ok_or_else(|| format!("no load called {name}").into())
}

impl Worker<'_> {
    fn commits(&self, load: &Load) -> u64 {
        (self.plan.keys * PAYLOAD / load.commit_bytes()).max(1)
    }

    fn setup_of(&self, load: &Load) -> Setup {
        self.log_setup(load.name, load.live(self.commits(load)), load.keep)
    }

    fn log_setup(&self, name: &str, live: u64, keep: Option<u64>) -> Setup {
        Setup { dir: self.dir(name), memory: MEMTABLE, live, keep }
    }

    fn open_logs(&self, setup: &Setup) -> Outcome<Box<dyn LogEngine>> {
        logs::open(self.kind.name, setup)
    }
}

/// The commits of a load.
struct Loading<'a> {
    db: &'a dyn LogEngine,
    script: Script<'a>,
    noise: &'a Noise,
    bytes: Vec<u8>,
}

impl Client for Loading<'_> {
    fn prepare(&mut self) -> usize {
        let more = self.script.step();
        if more {
            self.script.fill(self.noise, &mut self.bytes);
        }
        usize::from(more)
    }

    fn step(&mut self, _: usize) -> Outcome {
        self.db.commit(&self.script.changes(&self.bytes))
    }
}

/// Complains unless each group has the bounds it must have, and its first, its last and some entries
/// between them are what was appended.
fn check(db: &dyn LogEngine, load: &Load, script: &Script, noise: &Noise) -> Outcome {
    for group in 0..script.groups() {
        let (is, must) = (db.bounds(group)?, script.bounds(group));
        if is != must {
            return Err(format!("group {group} is {is:?} instead of {must:?}").into());
        }
        if must.is_empty() {
            continue;
        }
        let middle = must.start + (must.end - must.start) / 2;
        for from in [must.start, middle, must.end - 1] {
            let range = from..must.end.min(from + SOME);
            let mut next = range.start;
            let read = db.read(group, range.clone(), usize::MAX, &mut |index, bytes| {
                next += 1;
                noise.check(group, index, load.len, bytes)
            })?;
            if read != range.end - range.start || next != range.end {
                return Err(format!("group {group}: {read} entries instead of {range:?}").into());
            }
        }
    }
    Ok(())
}
