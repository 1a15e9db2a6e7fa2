//! Deletes, the last thing that happens to a database.

use super::{Of, Worker};
use crate::Outcome;
use crate::engines::Engine;
use crate::generate::{Key, Shuffle, key};
use crate::measure::{self, Client, Clock, Span};
use std::time::Instant;

pub const DELETES: &[&str] = &["deleterange", "readseqdeleted", "deleterandom"];

/// Range deletes, which together delete every other stretch of keys.
const RANGES: u64 = 100;
const CHUNK: usize = 256;

pub fn deletes(worker: &Worker) -> Outcome {
    let (setup, db) = worker.map()?;
    if worker.plan.wants_any(&["deleterange", "readseqdeleted"]) {
        let there = db.reader(true)?.scan(false)?;
        let mut ranges = Ranges { db: &*db, stretch: worker.plan.keys / RANGES / 2, left: RANGES };
        let span = Span::start(&*db, &setup.dir)?;
        let pass = measure::run(&mut ranges, Clock::Each, super::FOREVER)?;
        let mut metrics = vec![("ops_per_s", pass.rate)];
        metrics.extend(pass.latencies());
        metrics.extend(span.end(&*db, pass.ops, 0)?);
        worker.tell(Of::writes("deleterange", 1), &metrics);

        // Before anything else has happened to it.
        let (span, start) = (Span::start(&*db, &setup.dir)?, Instant::now());
        let left = db.reader(true)?.scan(false)?;
        let mut metrics = vec![("ops_per_s", left as f64 / start.elapsed().as_secs_f64())];
        metrics.extend(span.end(&*db, left, 0)?);
        worker.tell(Of::reads("readseqdeleted", "", 1), &metrics);
        // Records that were inserted lie between the others, everywhere alike.
        if !(there * 9 / 20..there * 11 / 20).contains(&left) {
            return Err(format!("of {there} entries {left} are left of a half").into());
        }
    }
    if worker.wants("deleterandom") {
        let order = Shuffle::new(worker.plan.keys, 83);
        let mut deletes = Deletes { db: &*db, order, next: 0, end: worker.plan.keys, ready: Vec::new() };
        let span = Span::start(&*db, &setup.dir)?;
        let pass = measure::run(&mut deletes, Clock::Whole, worker.plan.time)?;
        let mut metrics = vec![("ops_per_s", pass.rate)];
        metrics.extend(pass.latencies());
        metrics.extend(span.end(&*db, pass.ops, 0)?);
        worker.tell(Of::writes("deleterandom", 1), &metrics);
    }
    Ok(())
}

struct Ranges<'a> {
    db: &'a dyn Engine,
    stretch: u64,
    left: u64,
}

impl Client for Ranges<'_> {
    fn prepare(&mut self) -> usize {
        let many = usize::from(self.left > 0);
        self.left -= many as u64;
        many
    }

    fn step(&mut self, _: usize) -> Outcome {
        let from = 2 * self.left * self.stretch;
        self.db.delete_range(&key(from), &key(from + self.stretch))
    }
}

struct Deletes<'a> {
    db: &'a dyn Engine,
    order: Shuffle,
    next: u64,
    end: u64,
    ready: Vec<Key>,
}

impl Client for Deletes<'_> {
    fn prepare(&mut self) -> usize {
        let to = self.end.min(self.next + CHUNK as u64);
        self.ready.clear();
        self.ready.extend((self.next..to).map(|n| key(self.order.at(n))));
        self.next = to;
        self.ready.len()
    }

    fn step(&mut self, n: usize) -> Outcome {
        self.db.delete(&self.ready[n])
    }
}
