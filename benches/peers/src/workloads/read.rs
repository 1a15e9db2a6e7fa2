//! Reads, in whatever state a database is.

use super::{Of, Worker};
use crate::Outcome;
use crate::engines::{Engine, Reader};
use crate::generate::{Key, PREFIX, Rng, key, missing_key};
use crate::measure::{self, Client, Clock, Span};
use crate::process;
use std::path::Path;
use std::time::{Duration, Instant};

/// The first is what unsettles it.
pub const READS: &[&str] = &[
    "overwrite",
    "readrandom",
    "readmissing",
    "readhot",
    "multireadrandom",
    "seekrandom",
    "prefixscan",
    "readseq",
    "readreverse",
];
pub const STILL: &[&str] = READS.split_at(1).1;
pub const COMPACTED: &[&str] =
    &["compact", "readrandom", "readmissing", "seekrandom", "readseq", "readreverse"];

/// The number of entries a seek is followed by.
const STEPS: usize = 10;
/// Keys in one call.
const MULTI: usize = 32;
/// Of all keys, those that are hot: the first of so many, beside one another, as in LevelDB's benchmark.
const HOT: u64 = 100;
/// Keys made ready at a time.
const CHUNK: usize = 64;

#[derive(Clone, Copy)]
enum What {
    Get,
    Missing,
    Multi,
    Seek,
    Prefix,
}

/// Reads of keys with random numbers below `below`.
pub struct Reads<'a> {
    reader: Box<dyn Reader + 'a>,
    rng: Rng,
    below: u64,
    what: What,
    ready: Vec<Key>,
}

impl<'a> Reads<'a> {
    fn new(db: &'a dyn Engine, what: What, below: u64, thread: u32) -> Outcome<Reads<'a>> {
        let rng = Rng::new(5 + u64::from(thread));
        Ok(Reads { reader: db.reader(true)?, rng, below, what, ready: Vec::new() })
    }

    /// Gets beside a writer.
    pub fn live(db: &'a dyn Engine, below: u64) -> Outcome<Reads<'a>> {
        Ok(Reads { reader: db.reader(false)?, ..Reads::new(db, What::Get, below, 0)? })
    }
}

impl Client for Reads<'_> {
    fn prepare(&mut self) -> usize {
        let many = if let What::Multi = self.what { MULTI } else { CHUNK };
        self.ready.clear();
        for _ in 0..many {
            let n = self.rng.below(self.below);
            self.ready.push(if let What::Missing = self.what { missing_key(n) } else { key(n) });
        }
        if let What::Multi = self.what { 1 } else { many }
    }

    fn step(&mut self, n: usize) -> Outcome {
        let key = &self.ready[n];
        let right = match self.what {
            What::Get => self.reader.get(key)?,
            What::Missing => !self.reader.get(key)?,
            What::Multi => self.reader.multi_get(&self.ready)? == MULTI,
            What::Seek => self.reader.seek(key, STEPS)? > 0,
            What::Prefix => self.reader.prefix(&key[..PREFIX])? > 0,
        };
        if right { Ok(()) } else { Err("a read found what it should not have, or did not find it".into()) }
    }
}

/// A workload, which kind of read it is, of one key in how many, and with how many threads.
type Point = (&'static str, What, u64, &'static [u32]);

const POINTS: &[Point] = &[
    ("readrandom", What::Get, 1, &[1, 2]),
    ("readmissing", What::Missing, 1, &[1, 2]),
    ("readhot", What::Get, HOT, &[1, 2]),
    ("multireadrandom", What::Multi, 1, &[1]),
    ("seekrandom", What::Seek, 1, &[1, 2]),
    ("prefixscan", What::Prefix, 1, &[1]),
];

impl Worker<'_> {
    /// Two passes: what they do in the time, without a clock for each, and how long each takes.
    fn point(
        &self,
        (name, what, part, threads): Point,
        phase: &'static str,
        db: &dyn Engine,
        dir: &Path,
    ) -> Outcome {
        let below = (self.plan.keys / part).max(1);
        // Elsewhere one thread tells enough.
        let threads = if phase == "settled" { threads } else { &threads[..1] };
        for &threads in threads {
            let read = |thread| Reads::new(db, what, below, thread);
            let span = Span::start(db, dir)?;
            let pass = measure::run_all(threads, Clock::Around, self.half(), read)?;
            // A call of several keys is one for the latencies, and as many for all else.
            let per_call = if let What::Multi = what { MULTI as u64 } else { 1 };
            let mut metrics = vec![("ops_per_s", pass.rate * per_call as f64)];
            metrics.extend(span.end(db, pass.ops * per_call, 0)?);
            metrics.extend(measure::run_all(threads, Clock::Each, self.half(), read)?.latencies());
            self.tell(Of::reads(name, phase, threads), &metrics);
        }
        Ok(())
    }

    /// Gets of the first `keys`, in a database of its own.
    pub fn gets(&self, name: &'static str, keys: u64, db: &dyn Engine, dir: &Path) -> Outcome {
        // LMDB takes one transaction of a thread at a time: this one ends here.
        measure::run(&mut Reads::new(db, What::Get, keys, 9)?, Clock::Around, self.half())?;
        self.point((name, What::Get, self.plan.keys.div_ceil(keys), &[1]), "settled", db, dir)
    }

    /// Everything, as often as the time allows, and once at least.
    fn scans(&self, phase: &'static str, db: &dyn Engine, dir: &Path) -> Outcome {
        for (name, reverse) in [("readseq", false), ("readreverse", true)] {
            if !self.wants(name) {
                continue;
            }
            let (span, start) = (Span::start(db, dir)?, Instant::now());
            let mut read = 0;
            while read == 0 || start.elapsed() < self.half() {
                read += db.reader(true)?.scan(reverse)?;
            }
            let mut metrics = vec![("ops_per_s", read as f64 / start.elapsed().as_secs_f64())];
            metrics.extend(span.end(db, read, 0)?);
            self.tell(Of::reads(name, phase, 1), &metrics);
        }
        Ok(())
    }

    /// The workloads of these that are asked for.
    fn points(&self, names: &[&str], phase: &'static str, db: &dyn Engine, dir: &Path) -> Outcome {
        let wanted = POINTS.iter().filter(|(name, ..)| names.contains(name) && self.wants(name));
        wanted.copied().try_for_each(|point| self.point(point, phase, db, dir))
    }

    /// Reads for a while, untimed, so that nobody pays for what is cold.
    fn warm(&self, db: &dyn Engine, time: Duration) -> Outcome {
        let mut reads = Reads::new(db, What::Get, self.plan.keys, 9)?;
        measure::run(&mut reads, Clock::Around, time).map(drop)
    }
}

pub fn reads(worker: &Worker) -> Outcome {
    let (setup, db) = worker.map()?;
    let before = ["overwrite", "readrandom", "readmissing", "seekrandom"];
    if worker.plan.wants_any(&before) {
        let span = Span::start(&*db, &setup.dir)?;
        let pass = worker.overwrite_by_two(&*db)?;
        let mut metrics = vec![("ops_per_s", pass.rate)];
        metrics.extend(pass.latencies());
        metrics.extend(span.end(&*db, pass.ops, 0)?);
        worker.tell(Of::writes("overwrite", 2), &metrics);
        if !worker.kind.tree {
            worker.points(&before, "before settling", &*db, &setup.dir)?;
        }
        db.flush()?;
    }
    process::settle(&setup.dir)?;
    worker.warm(&*db, worker.plan.time)?;
    worker.points(READS, "settled", &*db, &setup.dir)?;
    worker.scans("settled", &*db, &setup.dir)
}

/// With caches that everything fits into, for those who copy into caches.
pub fn in_memory(worker: &Worker) -> Outcome {
    let mut setup = worker.setup("map");
    setup.cache = (worker.plan.keys * super::PAIR * 4) as usize + (64 << 20);
    let db = worker.open(&setup)?;
    db.reader(true)?.scan(false)?;
    worker.warm(&*db, worker.plan.time)?;
    worker.points(READS, "settled", &*db, &setup.dir)?;
    worker.scans("settled", &*db, &setup.dir)
}

/// Once more after a full compaction by hand.
pub fn compacted(worker: &Worker) -> Outcome {
    if worker.kind.tree {
        return Ok(());
    }
    let (setup, db) = worker.map()?;
    let (span, start) = (Span::start(&*db, &setup.dir)?, Instant::now());
    db.compact()?;
    let took = start.elapsed() + process::settle(&setup.dir)?;
    let keys = worker.plan.keys;
    let mut metrics = vec![("ops_per_s", keys as f64 / took.as_secs_f64())];
    metrics.extend(span.end(&*db, keys, keys * super::PAIR)?);
    metrics.push(("disk_settled_bytes", process::disk_bytes(&setup.dir)? as f64));
    worker.tell(Of::writes("compact", 1), &metrics);
    worker.warm(&*db, worker.plan.time)?;
    worker.points(COMPACTED, "compacted", &*db, &setup.dir)?;
    worker.scans("compacted", &*db, &setup.dir)
}
