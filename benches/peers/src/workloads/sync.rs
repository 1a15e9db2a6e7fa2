//! Commits that survive power loss.

use super::{Of, VALUE, Worker};
use crate::Outcome;
use crate::engines::Engine;
use crate::generate::{Key, Rng, Values, key};
use crate::histogram::Histogram;
use crate::measure::{self, Client, Clock, Span};
use crate::plan::{Plan, Task};
use rustix::fs::{FallocateFlags, fallocate, fdatasync};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::time::Instant;

const THREADS: [u32; 4] = [1, 4, 16, 64];

/// Puts of random keys, each a commit.
struct Commits<'a> {
    db: &'a dyn Engine,
    values: Values<'a>,
    rng: Rng,
    keys: u64,
    ready: (Key, &'a [u8]),
}

impl Client for Commits<'_> {
    fn prepare(&mut self) -> usize {
        self.ready = (key(self.rng.below(self.keys)), self.values.next());
        1
    }

    fn step(&mut self, _: usize) -> Outcome {
        self.db.put(&self.ready.0, self.ready.1)
    }
}

pub fn synced(worker: &Worker) -> Outcome {
    let setup = worker.setup("synced");
    let db = worker.open(&setup)?;
    for threads in THREADS {
        let client = |thread| {
            let seed = u64::from(thread) + 1;
            let (values, rng) = (worker.pool.values(VALUE, seed), Rng::new(seed));
            Ok(Commits { db: &*db, values, rng, keys: worker.plan.keys, ready: (key(0), &[]) })
        };
        let (span, syncs, syncing) = (Span::start(&*db, &setup.dir)?, db.syncs(), db.syncing());
        let start = Instant::now();
        let pass = measure::run_all(threads, Clock::Whole, worker.plan.time, client)?;
        let mut metrics = vec![("ops_per_s", pass.rate)];
        if let Some((after, before)) = db.syncs().zip(syncs) {
            metrics.push(("commits_per_sync", pass.ops as f64 / (after - before) as f64));
        }
        if let Some((after, before)) = db.syncing().zip(syncing) {
            metrics.push(("sync_in_flight", (after - before).as_secs_f64() / start.elapsed().as_secs_f64()));
        }
        metrics.extend(pass.latencies());
        metrics.extend(span.end(&*db, pass.ops, pass.ops * super::PAIR)?);
        worker.tell(Of::writes("synced", threads), &metrics);
    }
    Ok(())
}

/// A put's record in a journal.
const RECORD: usize = 132;
const FILE: u64 = 64 << 20;

/// What the disk makes of one append and one sync after the other, to a file that has its space.
pub fn bare(plan: &Plan, task: &Task) -> Outcome {
    std::fs::create_dir_all(&task.dir)?;
    let file = OpenOptions::new().create_new(true).write(true).open(task.dir.join("bare"))?;
    fallocate(&file, FallocateFlags::empty(), 0, FILE)?;
    file.sync_all()?;
    let (mut times, mut at) = (Histogram::new(), 0);
    let start = Instant::now();
    while start.elapsed() < plan.time && at + (RECORD as u64) < FILE {
        let from = Instant::now();
        file.write_all_at(&[b'.'; RECORD], at)?;
        fdatasync(&file)?;
        times.add(from.elapsed());
        at += RECORD as u64;
    }
    let ops = at / RECORD as u64;
    let pass = measure::Pass { ops, rate: ops as f64 / start.elapsed().as_secs_f64(), times };
    let mut metrics = vec![("ops_per_s", pass.rate)];
    metrics.extend(pass.latencies());
    super::tell(&task.table, task, Of::writes("synced", 1), &metrics);
    Ok(())
}
