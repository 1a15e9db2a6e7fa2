//! Reads of one long log: of its end, as a leader reads what its followers lack, and of all of it, as
//! for one that comes back after long.

use super::script::{Load, Noise};
use crate::Outcome;
use crate::engines::logs::{Change, LogEngine};
use crate::measure::{self, Client, Clock, Usage};
use crate::workloads::{FOREVER, Of, Worker};
use std::ops::Range;
use std::time::Instant;

pub const TAIL: &str = "logtail";
pub const CATCH_UP: &str = "logcatchup";

/// Entries of a tail.
const LAST: u64 = 300;
/// Reads between two looks at the time.
const CHUNK: usize = 16;
/// Bytes of a range, and entries after which it was enough.
const RANGE: usize = 1 << 20;
const ENOUGH: u64 = 1_000_000;
/// All of an entry is looked at where its index is a multiple of this, its index everywhere.
const WHOLE: u64 = 1000;

/// Appends to the log that ends at `next` a little, then reads it.
pub fn reads(worker: &Worker, db: &dyn LogEngine, load: &Load, noise: &Noise, next: u64) -> Outcome {
    let end = next + 4 * load.entries;
    for first in (next..end).step_by(load.entries as usize) {
        let mut bytes = Vec::new();
        (first..first + load.entries).for_each(|index| noise.entry(0, index, load.len, &mut bytes));
        db.commit(&[Change { group: 0, first, bytes: &bytes, len: load.len, purge: 0..0 }])?;
    }
    let log = OneLog { db, noise, len: load.len };
    let dir = worker.dir(load.name);
    if worker.wants(TAIL) {
        let range = end - LAST.min(end)..end;
        let each = (range.end - range.start) as f64;
        let mut tail = Tail { log: &log, range };
        let usage = Usage::start(&dir)?;
        let fast = measure::run(&mut tail, Clock::Around, worker.half())?;
        let mut metrics = vec![("ops_per_s", fast.rate * each)];
        metrics.extend(usage.end(fast.ops * each as u64, 0)?);
        metrics.extend(measure::run(&mut tail, Clock::Each, worker.half())?.latencies());
        worker.tell(Of::reads(TAIL, "", 1), &metrics);
    }
    if worker.wants(CATCH_UP) {
        let until = Instant::now() + worker.plan.time;
        let mut walk = CatchUp { log: &log, at: 0, end, read: 0, until };
        let usage = Usage::start(&dir)?;
        let pass = measure::run(&mut walk, Clock::Each, FOREVER)?;
        let mut metrics = vec![("ops_per_s", pass.rate * walk.read as f64 / pass.ops as f64)];
        metrics.extend(pass.latencies());
        metrics.extend(usage.end(walk.read, 0)?);
        worker.tell(Of::reads(CATCH_UP, "", 1), &metrics);
    }
    Ok(())
}

struct OneLog<'a> {
    db: &'a dyn LogEngine,
    noise: &'a Noise,
    len: usize,
}

impl OneLog<'_> {
    /// Reads and looks whether it is what it should be; how many entries that were.
    fn read(&self, range: Range<u64>, most: usize) -> Outcome<u64> {
        let mut next = range.start;
        let read = self.db.read(0, range, most, &mut |index, bytes| {
            if index % WHOLE == 0 {
                self.noise.check(0, index, self.len, bytes)?;
            }
            let is = bytes.get(8..16).is_some_and(|is| is == index.to_be_bytes());
            if !is || index != next {
                return Err(format!("instead of entry {next} there is another").into());
            }
            next += 1;
            Ok(())
        })?;
        if read == 0 { Err(format!("there is no entry {next}").into()) } else { Ok(read) }
    }
}

/// The last entries, again and again.
struct Tail<'a> {
    log: &'a OneLog<'a>,
    range: Range<u64>,
}

impl Client for Tail<'_> {
    fn prepare(&mut self) -> usize {
        CHUNK
    }

    fn step(&mut self, _: usize) -> Outcome {
        let read = self.log.read(self.range.clone(), usize::MAX)?;
        if read == self.range.end - self.range.start { Ok(()) } else { Err("the tail is short".into()) }
    }
}

/// All entries in their order; if that is soon done, again.
struct CatchUp<'a> {
    log: &'a OneLog<'a>,
    at: u64,
    end: u64,
    read: u64,
    until: Instant,
}

impl Client for CatchUp<'_> {
    fn prepare(&mut self) -> usize {
        let whole = self.read >= self.end && Instant::now() >= self.until;
        usize::from(self.read < ENOUGH && !whole)
    }

    fn step(&mut self, _: usize) -> Outcome {
        let to = self.end.min(self.at + (RANGE / self.log.len) as u64);
        let read = self.log.read(self.at..to, RANGE)?;
        (self.at, self.read) = (self.at + read, self.read + read);
        if self.at == self.end {
            self.at = 0;
        }
        Ok(())
    }
}
