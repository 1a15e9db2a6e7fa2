//! Reads and writes at a time.

use super::fill::Puts;
use super::read::Reads;
use super::{Of, VALUE, Worker};
use crate::Outcome;
use crate::engines::{Engine, Reader};
use crate::generate::{Key, Rng, Shuffle, Values, Zipf, key, new_key};
use crate::measure::{self, Client, Clock, Pass, Span};
use crate::process;
use std::path::Path;

pub const MIXED: &[&str] = &[
    "readwhilewriting",
    "readwhilewriting100k",
    "pacedoverwrite",
    "ycsb-a",
    "ycsb-b",
    "ycsb-c",
    "ycsb-d",
    "ycsb-e",
    "ycsb-f",
];

/// Puts a second beside the reader.
const BESIDE: f64 = 100_000.0;

pub fn mixed(worker: &Worker) -> Outcome {
    let (setup, db) = worker.map()?;
    if worker.wants("readwhilewriting") {
        worker.beside("readwhilewriting", &*db, &setup.dir, Clock::Each)?;
    }
    if worker.wants("readwhilewriting100k") {
        settle(&*db, &setup.dir)?;
        worker.alone("readwhilewriting100k", &*db)?;
        worker.beside("readwhilewriting100k", &*db, &setup.dir, Clock::Paced(BESIDE))?;
    }
    if worker.wants("pacedoverwrite") {
        settle(&*db, &setup.dir)?;
        worker.paced(&*db, &setup.dir)?;
    }
    ycsb(worker, &*db, &setup.dir)
}

fn settle(db: &dyn Engine, dir: &Path) -> Outcome {
    db.flush()?;
    process::settle(dir).map(drop)
}

fn told(pass: &Pass) -> Vec<(&'static str, f64)> {
    let mut metrics = vec![("ops_per_s", pass.rate)];
    metrics.extend(pass.latencies());
    metrics
}

impl Worker<'_> {
    /// Overwrites in random order, without end.
    fn overwrites<'a>(&'a self, db: &'a dyn Engine, seed: u64) -> Puts<'a, impl Fn(u64) -> u64> {
        let (keys, order) = (self.plan.keys, Shuffle::new(self.plan.keys, seed));
        let nth = move |n| order.at(n % keys);
        let values = self.pool.values(VALUE, seed);
        Puts { db, values, nth, next: 0, step: 1, end: u64::MAX, ready: Vec::new() }
    }

    fn alone(&self, name: &'static str, db: &dyn Engine) -> Outcome {
        let mut reads = Reads::live(db, self.plan.keys)?;
        measure::run(&mut reads, Clock::Around, self.half())?;
        let pass = measure::run(&mut reads, Clock::Each, self.plan.time)?;
        self.tell(Of::writes(name, 1).phase("alone"), &told(&pass));
        Ok(())
    }

    /// One thread reads while another writes.
    fn beside(&self, name: &'static str, db: &dyn Engine, dir: &Path, clock: Clock) -> Outcome {
        let span = Span::start(db, dir)?;
        let (reader, writer) = std::thread::scope(|scope| -> Outcome<(Pass, Pass)> {
            let write = || measure::run(&mut self.overwrites(db, 80), clock, self.plan.time);
            let writing = scope.spawn(move || write().map_err(|e| e.to_string()));
            let mut reads = Reads::live(db, self.plan.keys)?;
            let reader = measure::run(&mut reads, Clock::Each, self.plan.time)?;
            Ok((reader, writing.join().map_err(|_| "the writer panicked")??))
        })?;
        let both = span.end(db, reader.ops + writer.ops, 0)?;
        self.tell(Of::writes(name, 1).phase("reader"), &told(&reader));
        self.tell(Of::writes(name, 1).phase("writer"), &told(&writer));
        self.tell(Of::writes(name, 2), &both);
        Ok(())
    }

    fn paced(&self, db: &dyn Engine, dir: &Path) -> Outcome {
        let span = Span::start(db, dir)?;
        let clock = Clock::Paced(self.task.rate);
        let pass = measure::run(&mut self.overwrites(db, 81), clock, 2 * self.plan.time)?;
        let mut metrics = told(&pass);
        metrics.push(("offered_per_s", self.task.rate));
        metrics.extend(span.end(db, pass.ops, 0)?);
        self.tell(Of::writes("pacedoverwrite", 1), &metrics);
        settle(db, dir)
    }
}

/// Parts of a hundred; the rest reads and writes the same key.
struct Mix {
    name: &'static str,
    read: u64,
    update: u64,
    insert: u64,
    scan: u64,
    /// Reads prefer what was inserted last, not what is popular.
    latest: bool,
}

const IDLE: Mix = Mix { name: "", read: 0, update: 0, insert: 0, scan: 0, latest: false };
const MIXES: [Mix; 6] = [
    Mix { name: "ycsb-a", read: 50, update: 50, ..IDLE },
    Mix { name: "ycsb-b", read: 95, update: 5, ..IDLE },
    Mix { name: "ycsb-c", read: 100, ..IDLE },
    Mix { name: "ycsb-d", read: 95, insert: 5, latest: true, ..IDLE },
    Mix { name: "ycsb-e", scan: 95, insert: 5, ..IDLE },
    Mix { name: "ycsb-f", read: 50, ..IDLE },
];

/// Entries of a scan at most; their number is uniform.
const LONGEST: u64 = 100;
const CHUNK: usize = 64;

enum Op<'a> {
    Read(Key),
    Write(Key, &'a [u8]),
    Scan(Key, usize),
    Modify(Key, &'a [u8]),
}

struct Ycsb<'a> {
    db: &'a dyn Engine,
    reader: Box<dyn Reader + 'a>,
    mix: &'a Mix,
    zipf: &'a Zipf,
    scramble: Shuffle,
    rng: Rng,
    values: Values<'a>,
    keys: u64,
    /// Records beyond those, inserted by the mixes.
    inserted: u64,
    ready: Vec<Op<'a>>,
}

impl Ycsb<'_> {
    /// The popular ones lie anywhere, and those that are inserted between the others.
    fn record(&self, n: u64) -> Key {
        match n.checked_sub(self.keys) {
            None => key(self.scramble.at(n)),
            Some(new) => new_key(self.scramble.at(new % self.keys)),
        }
    }

    fn chosen(&mut self) -> Key {
        let rank = self.zipf.next(&mut self.rng);
        self.record(if self.mix.latest { self.keys + self.inserted - 1 - rank } else { rank })
    }
}

impl Client for Ycsb<'_> {
    fn prepare(&mut self) -> usize {
        self.ready.clear();
        // Inserted by operations that are made ready at the same time is not inserted yet.
        let mut inserts = 0;
        for _ in 0..CHUNK {
            let Mix { read, update, insert, scan, .. } = *self.mix;
            let die = self.rng.below(100);
            let op = if die < read {
                Op::Read(self.chosen())
            } else if die < read + update {
                Op::Write(self.chosen(), self.values.next())
            } else if die < read + update + insert {
                inserts += 1;
                Op::Write(self.record(self.keys + self.inserted + inserts - 1), self.values.next())
            } else if die < read + update + insert + scan {
                Op::Scan(self.chosen(), 1 + self.rng.below(LONGEST) as usize)
            } else {
                Op::Modify(self.chosen(), self.values.next())
            };
            self.ready.push(op);
        }
        self.inserted += inserts;
        CHUNK
    }

    fn step(&mut self, n: usize) -> Outcome {
        let there = match &self.ready[n] {
            Op::Read(key) => self.reader.get(key)?,
            Op::Write(key, value) => {
                self.db.put(key, value)?;
                true
            }
            Op::Scan(key, most) => self.reader.seek(key, *most)? > 0,
            Op::Modify(key, value) => {
                let there = self.reader.get(key)?;
                self.db.put(key, value)?;
                there
            }
        };
        if there { Ok(()) } else { Err("a record is missing".into()) }
    }
}

fn ycsb(worker: &Worker, db: &dyn Engine, dir: &Path) -> Outcome {
    let wanted: Vec<&Mix> = MIXES.iter().filter(|mix| worker.wants(mix.name)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let keys = worker.plan.keys;
    let zipf = Zipf::new(keys);
    let mut inserted = 0;
    for mix in wanted {
        settle(db, dir)?;
        let mut client = Ycsb {
            db,
            reader: db.reader(mix.read == 100)?,
            mix,
            zipf: &zipf,
            scramble: Shuffle::new(keys, 82),
            rng: Rng::new(7),
            values: worker.pool.values(VALUE, 7),
            keys,
            inserted,
            ready: Vec::new(),
        };
        let span = Span::start(db, dir)?;
        let pass = measure::run(&mut client, Clock::Around, worker.half())?;
        let mut metrics = vec![("ops_per_s", pass.rate)];
        metrics.extend(span.end(db, pass.ops, 0)?);
        metrics.extend(measure::run(&mut client, Clock::Each, worker.half())?.latencies());
        inserted = client.inserted;
        let of = Of { writes: mix.read < 100, ..Of::reads(mix.name, "", 1) };
        worker.tell(of, &metrics);
    }
    Ok(())
}
