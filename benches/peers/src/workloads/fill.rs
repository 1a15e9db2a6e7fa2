//! Writes.

use super::{BATCH, FOREVER, MEMTABLE, Of, PAIR, VALUE, Worker};
use crate::Outcome;
use crate::engines::{Engine, Setup};
use crate::generate::{Key, Shuffle, Values, key};
use crate::measure::{self, Client, Clock, Pass, Span};
use crate::process;
use std::time::{Duration, Instant};

/// Operations made ready at a time.
const CHUNK: u64 = 256;
/// Pairs of a commit that loads a tree: each writes most pages anew.
const LOAD: u64 = 400_000;

/// Puts the keys with the numbers `nth(from)`, `nth(from + step)` and so on.
pub struct Puts<'a, N> {
    pub db: &'a dyn Engine,
    pub values: Values<'a>,
    pub nth: N,
    pub next: u64,
    pub step: u64,
    pub end: u64,
    pub ready: Vec<(Key, &'a [u8])>,
}

impl<'a, N: Fn(u64) -> u64> Puts<'a, N> {
    /// What thread `thread` of `threads` puts of the first `keys`.
    fn new(worker: &'a Worker, db: &'a dyn Engine, keys: u64, nth: N, thread: u32, threads: u32) -> Self {
        let values = worker.pool.values(VALUE, u64::from(thread));
        let (next, step) = (u64::from(thread), u64::from(threads));
        Puts { db, values, nth, next, step, end: keys, ready: Vec::new() }
    }

    fn make(&mut self, most: u64) {
        self.ready.clear();
        let many = (self.end.saturating_sub(self.next)).div_ceil(self.step).min(most);
        for _ in 0..many {
            self.ready.push((key((self.nth)(self.next)), self.values.next()));
            self.next += self.step;
        }
    }
}

impl<N: Fn(u64) -> u64> Client for Puts<'_, N> {
    fn prepare(&mut self) -> usize {
        self.make(CHUNK);
        self.ready.len()
    }

    fn step(&mut self, n: usize) -> Outcome {
        let (key, value) = &self.ready[n];
        self.db.put(key, value)
    }
}

/// The same, so many in each commit.
struct Batches<'a, N>(Puts<'a, N>, u64);

impl<N: Fn(u64) -> u64> Client for Batches<'_, N> {
    fn prepare(&mut self) -> usize {
        self.0.make(self.1);
        usize::from(!self.0.ready.is_empty())
    }

    fn step(&mut self, _: usize) -> Outcome {
        self.0.db.put_batch(&self.0.ready)
    }
}

/// Settles, and tells what `pass` of puts of `size` bytes cost altogether.
pub fn tell_fill(
    worker: &Worker,
    (of, size, live): (Of, u64, u64),
    (db, setup): (&dyn Engine, &Setup),
    pass: &Pass,
    (start, span): (Instant, Span),
) -> Outcome {
    let filled = Instant::now();
    db.flush()?;
    let settled = filled.elapsed() + process::settle(&setup.dir)?;
    let took = filled - start + settled;
    let mut metrics = vec![
        ("ops_per_s", pass.rate),
        ("settled_ops_per_s", pass.ops as f64 / took.as_secs_f64()),
        ("settle_s", settled.as_secs_f64()),
    ];
    metrics.extend(pass.latencies());
    metrics.extend(span.end(db, pass.ops, pass.ops * size)?);
    let disk = process::disk_bytes(&setup.dir)? as f64;
    metrics.push(("disk_settled_bytes", disk));
    // What is there of a fill that was not whole is what it put.
    metrics.push(("space_amp", disk / (live * size) as f64));
    worker.tell(of, &metrics);
    Ok(())
}

impl Worker<'_> {
    /// What a fill may take: engines of one tree get as far as they get.
    pub fn fill_time(&self) -> Duration {
        if self.kind.tree { self.plan.time } else { FOREVER }
    }

    /// Puts all keys, and tells if it is asked for.
    fn fill(&self, of: Of, db: &dyn Engine, setup: &Setup, nth: impl Fn(u64) -> u64) -> Outcome {
        let keys = self.plan.keys;
        let (span, start) = (Span::start(db, &setup.dir)?, Instant::now());
        let mut puts = Puts::new(self, db, keys, nth, 0, 1);
        let pass = measure::run(&mut puts, Clock::Whole, self.fill_time())?;
        let live = if of.workload == "overwrite" { keys } else { pass.ops };
        tell_fill(self, (of, PAIR, live), (db, setup), &pass, (start, span))
    }

    /// What is left of `puts`, into one tree, as quickly as may be.
    pub fn load<N: Fn(u64) -> u64>(&self, puts: Puts<'_, N>) -> Outcome {
        let db = puts.db;
        let mut batches = Batches(puts, LOAD);
        // A page that was replaced is free again once that is durable: the file would grow and grow.
        while measure::run(&mut batches, Clock::Around, Duration::from_millis(1))?.ops > 0 {
            db.flush()?;
        }
        Ok(())
    }

    /// Overwrites keys with two threads, for as long as a workload may take.
    pub fn overwrite_by_two(&self, db: &dyn Engine) -> Outcome<Pass> {
        let order = Shuffle::new(self.plan.keys, 79);
        let put = |thread| Ok(Puts::new(self, db, self.plan.keys, |n| order.at(n), thread, 2));
        measure::run_all(2, Clock::Whole, self.plan.time, put)
    }
}

pub fn in_order(worker: &Worker) -> Outcome {
    let setup = worker.setup("fillseq");
    let db = worker.open(&setup)?;
    worker.fill(Of::writes("fillseq", 1), &*db, &setup, |n| n)
}

/// Batches of a thousand keys, in random order.
pub fn batches(worker: &Worker) -> Outcome {
    let setup = worker.setup("fillbatch");
    let db = worker.open(&setup)?;
    let order = Shuffle::new(worker.plan.keys, 77);
    let (span, start) = (Span::start(&*db, &setup.dir)?, Instant::now());
    let puts = Puts::new(worker, &*db, worker.plan.keys, |n| order.at(n), 0, 1);
    let mut batches = Batches(puts, BATCH as u64);
    let mut pass = measure::run(&mut batches, Clock::Whole, worker.fill_time())?;
    // Latencies are those of batches, all else is per pair.
    let pairs = batches.0.next;
    pass.rate *= pairs as f64 / pass.ops as f64;
    pass.ops = pairs;
    let of = (Of::writes("fillbatch", 1), PAIR, pass.ops);
    tell_fill(worker, of, (&*db, &setup), &pass, (start, span))
}

pub fn by_two(worker: &Worker) -> Outcome {
    let setup = worker.setup("fillpair");
    let db = worker.open(&setup)?;
    let order = Shuffle::new(worker.plan.keys, 77);
    let put = |thread| Ok(Puts::new(worker, &*db, worker.plan.keys, |n| order.at(n), thread, 2));
    let span = Span::start(&*db, &setup.dir)?;
    let pass = measure::run_all(2, Clock::Whole, worker.plan.time, put)?;
    let mut metrics = vec![("ops_per_s", pass.rate)];
    metrics.extend(pass.latencies());
    metrics.extend(span.end(&*db, pass.ops, 0)?);
    worker.tell(Of::writes("fillrandom", 2), &metrics);
    Ok(())
}

/// Makes the database that other jobs go on with: all keys in random order, then all of them over again
/// in another.
pub fn map(worker: &Worker) -> Outcome {
    let keys = worker.plan.keys;
    let (first, second) = (Shuffle::new(keys, 77), Shuffle::new(keys, 78));
    if worker.kind.tree && worker.wants("fillrandom") {
        let setup = worker.setup("fillrandom");
        let db = worker.open(&setup)?;
        worker.fill(Of::writes("fillrandom", 1), &*db, &setup, |n| first.at(n))?;
    }
    let (setup, db) = worker.map()?;
    if worker.kind.tree {
        worker.load(Puts::new(worker, &*db, keys, |n| first.at(n), 0, 1))?;
        if worker.wants("overwrite") {
            worker.fill(Of::writes("overwrite", 1), &*db, &setup, |n| second.at(n))?;
        }
        return Ok(());
    }
    worker.fill(Of::writes("fillrandom", 1), &*db, &setup, |n| first.at(n))?;
    worker.fill(Of::writes("overwrite", 1), &*db, &setup, |n| second.at(n))
}

/// Pairs that fit a memtable of four times the usual size in every engine, if there are so many.
pub fn memtable_pairs(worker: &Worker) -> u64 {
    ((MEMTABLE as u64 * 5 / 2) / PAIR).min(worker.plan.keys)
}

/// Fills memtables that hold all of it.
pub fn memtables(worker: &Worker, setup: &Setup) -> Outcome<Box<dyn Engine>> {
    let db = worker.open(setup)?;
    let keys = memtable_pairs(worker);
    let order = Shuffle::new(keys, 77);
    let mut puts = Puts::new(worker, &*db, keys, |n| order.at(n), 0, 1);
    match worker.kind.tree {
        true => worker.load(puts)?,
        false => drop(measure::run(&mut puts, Clock::Around, FOREVER)?),
    }
    Ok(db)
}
