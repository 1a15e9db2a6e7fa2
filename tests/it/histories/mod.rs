//! Concurrent histories: threads write, swap, read, scan and take snapshots at the same time, beside
//! background work, with everything so small that memtables and segments end all the time. Each call
//! is written down with when it began and ended, and its answer; then all of it is checked for
//! linearizability, and what the power leaves for being one of its states.
//!
//! `ESKER_SEEDS=a..b` runs others than the few fixed ones;
//! `cargo test --release --test it histories:: -- --ignored --nocapture` thousands.

mod check;
mod control;

use crate::crash::seeds;
use crate::hook::HookFs;
use crate::rng::Rng;
use check::{Call, Checked, History, Is, Place, Require, State, What, Write, check, promises};
use esker::fs::Fs;
use esker::fs::sim::SimFs;
use esker::{
    Batch, Compression, Db, Durability, Expect, Keyspace, KeyspaceOptions, Options, Snapshot, Value,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};

const KEYS: u8 = 8;
const SPACES: [&str; 2] = ["a", "b"];

fn key(n: u8) -> [u8; 2] {
    [b'k', n]
}

/// Starts with what tells it from all others.
fn value(id: u64) -> Vec<u8> {
    let mut value = id.to_le_bytes().to_vec();
    value.resize(8 + (id % 80) as usize, b'.');
    value
}

fn id(value: &[u8]) -> u64 {
    u64::from_le_bytes(value[..8].try_into().unwrap())
}

fn options(rng: &mut Rng) -> Options {
    let keyspaces = KeyspaceOptions::default()
        .block_bytes(64)
        .compression(*rng.pick(&[Compression::None, Compression::Lz4]))
        .filter_bits(*rng.pick(&[0, 10]));
    Options::default()
        .workers(rng.below(3))
        .durability(*rng.pick(&[Durability::Sync, Durability::Buffered]))
        .memtable_bytes(1 << 10)
        .table_bytes(1 << 10)
        .segment_bytes(16 << 10)
        .journal_bytes(32 << 10)
        .cache_bytes(*rng.pick(&[0, 8 << 10]))
        .mapped(rng.one_in(2))
        .keyspaces(keyspaces)
}

/// One thread and its memory.
struct Worker<'a> {
    thread: usize,
    rng: Rng,
    db: &'a Db,
    spaces: &'a [Keyspace; 2],
    clock: &'a AtomicU64,
    calls: Vec<Call>,
    snapshots: Vec<Snapshot>,
    watch: [Option<esker::Watch>; 2],
    /// Numbers for values, nobody else's.
    values: u64,
}

impl Worker<'_> {
    /// Makes a call. Answers when it began and ended.
    fn timed<T>(&self, call: impl FnOnce() -> T) -> (u64, u64, T) {
        let begin = self.clock.fetch_add(1, Ordering::SeqCst);
        let answer = call();
        (begin, self.clock.fetch_add(1, Ordering::SeqCst), answer)
    }

    /// Makes a call, and writes it down.
    fn note(&mut self, call: impl FnOnce() -> What) {
        let (begin, end, what) = self.timed(call);
        self.calls.push(Call { thread: self.thread, begin, end, what });
    }

    fn note_of(&mut self, call: impl FnOnce(&Db) -> What) {
        let db = self.db;
        self.note(|| call(db));
    }

    fn place(&mut self) -> Place {
        (self.rng.below(2) as u8, self.rng.below(KEYS.into()) as u8)
    }

    fn range(&mut self) -> (u8, u8, u8) {
        let (keyspace, from) = self.place();
        (keyspace, from, from + 1 + self.rng.below((KEYS - from).into()) as u8)
    }

    fn step(&mut self) {
        if self.rng.one_in(3) {
            std::thread::yield_now();
        }
        match self.rng.below(32) {
            0..8 => self.commit(false),
            8..14 => self.commit(true),
            14..18 => self.swap(),
            18..22 => self.get(),
            22..26 => self.scan(),
            26..28 => self.take_snapshot(),
            28 => self.note_of(|db| What::Newest(db.visible_seq().get())),
            29 => self.note_of(|db| What::Durable(db.durable_seq().get())),
            30 => self.told(),
            _ => match self.rng.below(4) {
                0 => self.note_of(|db| {
                    db.sync().unwrap();
                    What::Sync
                }),
                1 => self.db.flush().unwrap(),
                2 => self.spaces[self.rng.below(2)].compact(..).unwrap(),
                _ => drop(self.db.step().unwrap()),
            },
        }
    }

    fn write(&mut self) -> Write {
        match self.rng.below(8) {
            0..5 => {
                self.values += 1;
                Write::Put(self.place(), (self.values << 8) | self.thread as u64)
            }
            5..7 => Write::Delete(self.place()),
            _ => {
                let (keyspace, from, to) = self.range();
                Write::DeleteRange(keyspace, from, to)
            }
        }
    }

    fn commit(&mut self, conditional: bool) {
        let count = *self.rng.pick(&[1, 1, 2, 3, 6]);
        let writes: Vec<Write> = (0..count).map(|_| self.write()).collect();
        let conditions = if conditional { 1 + self.rng.below(2) } else { 0 };
        let mut batch = self.db.batch();
        for write in &writes {
            self.put_into(&mut batch, write);
        }
        let requires: Vec<Require> = (0..conditions).map(|_| self.require(&mut batch)).collect();
        self.carry_out(batch, requires, writes);
    }

    fn put_into(&self, batch: &mut Batch, write: &Write) {
        match *write {
            Write::Put((k, n), id) => batch.put(&self.spaces[k as usize], key(n), value(id)),
            Write::Delete((k, n)) => batch.delete(&self.spaces[k as usize], key(n)),
            Write::DeleteRange(k, from, to) => {
                batch.delete_range(&self.spaces[k as usize], key(from)..key(to))
            }
        };
    }

    /// A condition that may or may not hold.
    fn require(&mut self, batch: &mut Batch) -> Require {
        let (keyspace, from, mut to) = self.range();
        let space = &self.spaces[keyspace as usize];
        let one = self.rng.one_in(2);
        if one {
            to = from + 1;
        }
        let snapshot = (!self.snapshots.is_empty() && self.rng.one_in(2))
            .then(|| self.snapshots[self.rng.below(self.snapshots.len())].clone());
        let (is, expect) = match &snapshot {
            Some(snapshot) => (Is::Unchanged(snapshot.seq().get()), Expect::Unchanged(snapshot)),
            None if self.rng.one_in(2) => (Is::Absent, Expect::Absent),
            None => (Is::Present, Expect::Present),
        };
        if one {
            batch.require(space, key(from), expect);
        } else {
            batch.require_range(space, key(from)..key(to), expect);
        }
        Require { keyspace, from, to, is }
    }

    /// Read, then written if it is still so: in two calls.
    fn swap(&mut self) {
        let place = self.place();
        let space = &self.spaces[place.0 as usize];
        let mut found: Option<Value> = None;
        self.note(|| {
            found = space.get(key(place.1)).unwrap();
            What::Get { at: None, keys: vec![place], found: vec![found.as_deref().map(id)] }
        });
        let is = found.as_deref().map_or(Is::Absent, |value| Is::Value(id(value)));
        let expect = found.as_deref().map_or(Expect::Absent, Expect::Value);
        self.values += 1;
        let writes = vec![Write::Put(place, (self.values << 8) | self.thread as u64)];
        let mut batch = self.db.batch();
        batch.require(space, key(place.1), expect);
        self.put_into(&mut batch, &writes[0]);
        let (keyspace, from) = place;
        self.carry_out(batch, vec![Require { keyspace, from, to: from + 1, is }], writes);
    }

    fn carry_out(&mut self, mut batch: Batch, requires: Vec<Require>, writes: Vec<Write>) {
        let way = self.rng.below(5);
        let mut ticket = None;
        self.note(|| {
            let done = match way {
                0 => batch.commit_with(Durability::Sync),
                1 => batch.submit().map(|t| ticket.insert(t).seq()),
                _ => batch.commit_with(Durability::Buffered),
            };
            match done {
                Ok(seq) => What::Commit { requires, writes, seq: Some(seq.get()), durable: way == 0 },
                Err(e) if e.is_conflict() => What::Commit { requires, writes, seq: None, durable: false },
                Err(e) => panic!("{e:?}"),
            }
        });
        if let Some(ticket) = ticket
            && self.rng.one_in(2)
        {
            self.note(|| What::Awaited(ticket.wait().unwrap().get()));
        }
    }

    /// A snapshot that was taken earlier, or none.
    fn some_snapshot(&mut self) -> Option<Snapshot> {
        let some = !self.snapshots.is_empty() && self.rng.one_in(3);
        some.then(|| self.snapshots[self.rng.below(self.snapshots.len())].clone())
    }

    fn get(&mut self) {
        let snapshot = self.some_snapshot();
        let (keyspace, from, to) = self.range();
        let space = &self.spaces[keyspace as usize];
        let numbers: Vec<[u8; 2]> = (from..to).map(key).collect();
        self.note(|| {
            let found = match &snapshot {
                Some(snapshot) => space.at(snapshot).multi_get(&numbers),
                None => space.multi_get(&numbers),
            };
            let found = found.unwrap().iter().map(|v| v.as_deref().map(id)).collect();
            let keys = (from..to).map(|n| (keyspace, n)).collect();
            What::Get { at: snapshot.map(|s| s.seq().get()), keys, found }
        });
    }

    fn scan(&mut self) {
        let snapshot = self.some_snapshot();
        let (keyspace, from, to) = self.range();
        let space = &self.spaces[keyspace as usize];
        let range = key(from)..key(to);
        let backward = self.rng.one_in(2);
        // What it shows is decided when it is made, however late it is read.
        let (begin, end, entries) = self.timed(|| match &snapshot {
            Some(snapshot) => space.at(snapshot).range(range),
            None => space.range(range),
        });
        std::thread::yield_now();
        let row = |e: esker::Result<esker::Entry>| e.map(|e| (e.key()[1], id(e.value()))).unwrap();
        let mut rows: Vec<_> =
            if backward { entries.rev().map(row).collect() } else { entries.map(row).collect() };
        if backward {
            rows.reverse();
        }
        let at = snapshot.map(|s| s.seq().get());
        let what = What::Scan { at, keyspace, from, to, rows };
        self.calls.push(Call { thread: self.thread, begin, end, what });
    }

    fn take_snapshot(&mut self) {
        let durable = self.rng.one_in(3);
        let mut taken = None;
        self.note_of(|db| {
            let snapshot = if durable { db.durable_snapshot() } else { db.snapshot() };
            let seq = taken.insert(snapshot).seq().get();
            if durable { What::Durable(seq) } else { What::Newest(seq) }
        });
        self.snapshots.extend(taken);
        if self.snapshots.len() > 3 {
            self.snapshots.swap_remove(self.rng.below(3));
        }
    }

    /// What watches tell: of what is visible, of what is durable.
    fn told(&mut self) {
        let which = self.rng.below(2);
        let mut watch = self.watch[which].take().expect("nobody else has it");
        let (begin, end, told) = self.timed(|| watch.wait_timeout(std::time::Duration::ZERO).unwrap());
        self.watch[which] = Some(watch);
        let Some(seq) = told else { return };
        let what = if which == 0 { What::Newest(seq.get()) } else { What::Durable(seq.get()) };
        self.calls.push(Call { thread: self.thread, begin, end, what });
    }
}

/// What everybody did, in one history.
fn record(seed: u64, db: &Db, threads: usize, steps: usize) -> History {
    let spaces = SPACES.map(|name| db.keyspace(name).unwrap());
    db.sync().unwrap();
    let base = db.visible_seq().get();
    let (clock, start) = (AtomicU64::new(1), Barrier::new(threads));
    let (db, spaces, clock, start) = (db, &spaces, &clock, &start);
    let work = |thread: usize| {
        let watch = [Durability::Buffered, Durability::Sync].map(|kind| Some(db.watch(kind)));
        let (rng, calls) = (Rng::new(seed << 8 | thread as u64), Vec::new());
        let snapshots = Vec::new();
        let mut worker = Worker { thread, rng, db, spaces, clock, calls, snapshots, watch, values: 0 };
        start.wait();
        (0..steps).for_each(|_| worker.step());
        worker.calls
    };
    let calls = std::thread::scope(|s| {
        let running: Vec<_> = (0..threads).map(|thread| s.spawn(move || work(thread))).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    History { base, calls }
}

fn shown(db: &Db) -> State {
    let mut state = State::new();
    for (number, name) in (0..).zip(SPACES) {
        let entries = db.keyspace(name).unwrap().iter().map(|e| e.unwrap());
        state.extend(entries.map(|e| ((number, e.key()[1]), id(e.value()))));
    }
    state
}

/// What is found after the end is a state of the history, and holds what was promised.
fn check_end(db: &Db, least: u64, states: &BTreeMap<u64, State>, what: &str) {
    let seq = db.visible_seq().get();
    assert!(seq >= least, "{what}: {seq} is there, {least} was promised");
    let state = states.get(&seq).unwrap_or_else(|| panic!("{what}: no commit ended with {seq}"));
    assert!(shown(db) == *state, "{what}: not the state at {seq}");
}

fn run(seed: u64) -> Checked {
    let mut rng = Rng::new(seed);
    let sim = SimFs::new(seed);
    let turns = AtomicU64::new(0);
    // Others get their turn while the disk works.
    let hooked: Arc<dyn Fs> = HookFs::new(Arc::new(sim.clone()), move |_, _| {
        if turns.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) {
            std::thread::yield_now();
        }
    });
    let dir = (seed % 8 == 7).then(|| tempfile::tempdir().unwrap());
    let path = dir.as_ref().map_or(Path::new("/db"), |dir| dir.path()).to_path_buf();
    let options = options(&mut rng);
    let options = if dir.is_some() { options } else { options.fs(hooked) };
    let db = Db::open(&path, options.clone()).unwrap();
    let (threads, steps) = (2 + rng.below(3), 10 + rng.below(40));
    let history = record(seed, &db, threads, steps);
    let checked = check(&history).unwrap_or_else(|why| panic!("seed {seed}: {why}\n{history}"));
    let (durable, states) = promises(&history).unwrap();
    let newest = *states.keys().last().unwrap();
    check_end(&db, newest, &states, &format!("seed {seed}, at the end"));
    if dir.is_none() {
        let choice = rng.below(sim.states_at(sim.ops()) as usize) as u64;
        let cut = options.clone().workers(0).fs(Arc::new(sim.crash(choice)));
        let left = Db::open(&path, cut.clone()).unwrap();
        check_end(&left, durable, &states, &format!("seed {seed}, power cut of choice {choice}"));
    }
    db.close().unwrap();
    let reader = Db::open(&path, options.read_only(true)).unwrap();
    check_end(&reader, newest, &states, &format!("seed {seed}, read only"));
    checked
}

fn run_all(seeds: std::ops::Range<u64>) {
    let (mut all, mut histories) = (Checked::default(), 0);
    for seed in seeds {
        let Checked { commits, conflicts, reads, wide } = run(seed);
        all.commits += commits;
        all.conflicts += conflicts;
        all.reads += reads;
        all.wide += wide;
        histories += 1;
    }
    let Checked { commits, conflicts, reads, wide } = all;
    println!(
        "proof: histories: {histories} concurrent histories linearizable, {commits} commits, \
         {conflicts} conflicts, {reads} reads ({wide} beside commits), 0 failures"
    );
    assert!(conflicts > 0 && wide > reads / 50, "that is no test of concurrency");
}

#[test]
fn a_few_histories_are_linearizable() {
    run_all(seeds(60));
}

#[test]
#[ignore = "takes long"]
fn many_histories_are_linearizable() {
    run_all(seeds(20_000));
}
