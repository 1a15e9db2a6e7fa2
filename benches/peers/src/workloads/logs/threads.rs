//! Many threads, each appending to a log of its own.

use super::script::Noise;
use crate::Outcome;
use crate::engines::logs::{Change, LogEngine};
use crate::measure::{self, Client, Clock, Usage};
use crate::process;
use crate::workloads::{Of, Worker};

const THREADS: u32 = 64;
/// Bytes of an entry.
const SMALL: usize = 128;

/// One entry after the other, each a commit.
struct Appends<'a> {
    db: &'a dyn LogEngine,
    noise: &'a Noise,
    group: u64,
    next: u64,
    bytes: Vec<u8>,
}

impl Client for Appends<'_> {
    fn prepare(&mut self) -> usize {
        self.bytes.clear();
        self.noise.entry(self.group, self.next, SMALL, &mut self.bytes);
        1
    }

    fn step(&mut self, _: usize) -> Outcome {
        let Appends { group, next: first, .. } = *self;
        self.next += 1;
        self.db.commit(&[Change { group, first, bytes: &self.bytes, len: SMALL, purge: 0..0 }])
    }
}

pub fn threads(worker: &Worker) -> Outcome {
    let name = "logthreads";
    let noise = Noise::new();
    let setup = worker.log_setup(name, worker.plan.keys * super::PAYLOAD, None);
    let db = worker.open_logs(&setup)?;
    let client = |thread| {
        let group = u64::from(thread);
        Ok(Appends { db: &*db, noise: &noise, group, next: 0, bytes: Vec::new() })
    };
    let (usage, handed, syncs) = (Usage::start(&setup.dir)?, process::handed_bytes()?, db.syncs());
    let pass = measure::run_all(THREADS, Clock::Whole, worker.plan.time, client)?;
    let payload = pass.ops * SMALL as u64;
    let handed = process::handed_bytes()? - handed;
    let mut metrics = vec![
        ("ops_per_s", pass.rate),
        ("payload_bytes", payload as f64),
        ("written_per_payload", handed as f64 / payload as f64),
    ];
    if let Some((after, before)) = db.syncs().zip(syncs) {
        metrics.push(("commits_per_sync", pass.ops as f64 / (after - before) as f64));
    }
    metrics.extend(pass.latencies());
    metrics.extend(usage.end(pass.ops, payload)?);
    worker.tell(Of::writes(name, THREADS), &metrics);
    check(&*db, &noise, pass.ops)
}

/// Complains unless so many appends left so many entries, in their order.
fn check(db: &dyn LogEngine, noise: &Noise, appends: u64) -> Outcome {
    let mut there = 0;
    for group in 0..u64::from(THREADS) {
        let bounds = db.bounds(group)?;
        let last = bounds.end.saturating_sub(1);
        db.read(group, last..bounds.end, SMALL, &mut |index, bytes| noise.check(group, index, SMALL, bytes))?;
        there += bounds.end - bounds.start;
    }
    if there == appends { Ok(()) } else { Err(format!("{there} entries of {appends} appends").into()) }
}
