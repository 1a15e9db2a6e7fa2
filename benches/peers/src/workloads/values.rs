//! Values of kilobytes: as many bytes as with small ones, in fewer pairs.

use super::fill::{Puts, tell_fill};
use super::{Of, PAIR, Worker};
use crate::Outcome;
use crate::generate::{KEY, Shuffle};
use crate::measure::{self, Clock, Span};
use crate::process;
use std::time::Instant;

pub fn of_4k(worker: &Worker) -> Outcome {
    run(worker, 4 << 10, "fill4k", "read4k")
}

pub fn of_64k(worker: &Worker) -> Outcome {
    run(worker, 64 << 10, "fill64k", "read64k")
}

fn run(worker: &Worker, len: usize, fill: &'static str, read: &'static str) -> Outcome {
    let size = (len + KEY) as u64;
    let keys = (worker.plan.keys * PAIR / size).max(2);
    let setup = worker.setup("values");
    let db = worker.open(&setup)?;
    let order = Shuffle::new(keys, 77);
    let values = worker.pool.values(len, 0);
    let nth = |n| order.at(n);
    let mut puts = Puts { db: &*db, values, nth, next: 0, step: 1, end: keys, ready: Vec::new() };
    let (span, start) = (Span::start(&*db, &setup.dir)?, Instant::now());
    let pass = measure::run(&mut puts, Clock::Whole, worker.fill_time())?;
    tell_fill(worker, (Of::writes(fill, 1), size, pass.ops), (&*db, &setup), &pass, (start, span))?;
    worker.load(puts)?;
    process::settle(&setup.dir)?;
    if worker.wants(read) { worker.gets(read, keys, &*db, &setup.dir) } else { Ok(()) }
}
