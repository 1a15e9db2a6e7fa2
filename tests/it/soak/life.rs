//! One life of the database under all sorts of load at once, in a process of its own, which may be
//! killed at any time.

use super::stream::{self, Op, SPACES, Stream, Write, is_value};
use super::{Budget, Plan, WRITERS};
use crate::rng::Rng;
use esker::{Batch, Db, Durability, ErrorKind, Keyspace, Snapshot};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The row in which each writer counts its operations, in a keyspace of its own.
pub const COUNTS: &str = "counts";
/// Keyspaces that are made and dropped all the time begin with this.
pub const PASSING: &str = "passing";

pub struct Life {
    db: Db,
    counts: Keyspace,
    /// The keyspaces of all writers, for those who read.
    shared: Mutex<BTreeMap<String, Keyspace>>,
    over: AtomicBool,
    reads: AtomicU64,
}

/// Until when a life lasts.
#[derive(Clone, Copy)]
pub enum Until {
    Ops(u64),
    Time(Instant),
}

pub fn made(counts: &Keyspace, writer: u64) -> u64 {
    counts.get(writer.to_be_bytes()).unwrap().map_or(0, |n| u64::from_le_bytes(n[..].try_into().unwrap()))
}

impl Life {
    pub fn new(db: Db) -> Life {
        let counts = db.keyspace(COUNTS).unwrap();
        for (name, _) in db.names().unwrap() {
            if name.starts_with(PASSING) {
                db.drop_keyspace(&name).unwrap();
            }
        }
        let (shared, over, reads) = (Mutex::default(), AtomicBool::new(false), AtomicU64::new(0));
        Life { db, counts, shared, over, reads }
    }

    /// All threads at once, until the writers have done their work.
    pub fn run(&self, plan: &Plan, copies: &Path, until: Until) {
        std::thread::scope(|s| {
            let writers: Vec<_> =
                (0..WRITERS).map(|n| s.spawn(move || self.write(plan.stream(n), until))).collect();
            let seed = plan.seed ^ made(&self.counts, 0);
            let others = [
                s.spawn(move || self.read(&mut Rng::new(seed))),
                s.spawn(move || self.hold(&mut Rng::new(seed + 1))),
                s.spawn(move || self.shape(&mut Rng::new(seed + 2), copies, &plan.budget)),
            ];
            let written: Vec<_> = writers.into_iter().map(|w| w.join()).collect();
            self.over.store(true, Ordering::SeqCst);
            for end in written.into_iter().chain(others.map(|o| o.join())) {
                end.unwrap();
            }
        });
    }

    fn write(&self, stream: Stream, until: Until) {
        let mut writer = Writer::new(self, stream);
        let first = made(&self.counts, stream.writer);
        for n in first.. {
            let goes_on = match until {
                Until::Ops(ops) => n < ops,
                Until::Time(end) => n % 16 > 0 || Instant::now() < end,
            };
            if !goes_on || self.over.load(Ordering::Relaxed) {
                break;
            }
            writer.make(n);
            if n % 50 == 0 {
                say(&format!("made {} {}", stream.writer, n + 1));
            }
        }
    }

    /// A keyspace and a snapshot at which it is there: it is not dropped before it is taken out of
    /// what is shared.
    fn some(&self, rng: &mut Rng, durable: bool) -> Option<(Keyspace, Snapshot)> {
        let shared = self.shared.lock().unwrap();
        let at = rng.below(shared.len().max(1));
        let keyspace = shared.values().nth(at)?.clone();
        let snapshot = if durable { self.db.durable_snapshot() } else { self.db.snapshot() };
        Some((keyspace, snapshot))
    }

    /// Short and long scans both ways at one point, which must agree with each other and with gets.
    fn read(&self, rng: &mut Rng) {
        while !self.over.load(Ordering::Relaxed) {
            let Some((keyspace, snapshot)) = self.some(rng, false) else { continue };
            let view = keyspace.at(&snapshot);
            let from = format!("{:02x}", rng.below(256));
            let long = rng.one_in(10);
            let limit = if long { usize::MAX } else { rng.below(200) };
            let rows: Vec<_> = view.range(from.as_bytes()..).take(limit).map(|e| e.unwrap()).collect();
            assert!(rows.is_sorted_by(|a, b| a.key() < b.key()), "out of order in {keyspace:?}");
            assert!(rows.iter().all(|row| is_value(row.value())), "not a value, in {keyspace:?}");
            if let Some(last) = rows.last() {
                let mut back = view.range(from.as_bytes()..=last.key()).rev();
                for row in rows.iter().rev() {
                    let found = back.next().unwrap().unwrap();
                    assert!(
                        found.key() == row.key() && found.value() == row.value(),
                        "{keyspace:?} backward"
                    );
                }
                assert!(back.next().is_none(), "{keyspace:?}: more backward than forward");
                let row = rng.pick(&rows);
                assert_eq!(view.get(row.key()).unwrap().as_deref(), Some(row.value()), "{keyspace:?}");
            }
            self.reads.fetch_add(rows.len() as u64, Ordering::Relaxed);
        }
    }

    /// Waits until there were so many commits, or the writers are over.
    fn let_pass(&self, commits: usize) {
        let mut watch = self.db.watch(Durability::Buffered);
        for _ in 0..commits {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            watch.wait_timeout(Duration::from_millis(20)).unwrap();
        }
    }

    /// Snapshots and iterators that stay while the world moves on.
    fn hold(&self, rng: &mut Rng) {
        struct Held {
            snapshot: Snapshot,
            keyspace: Keyspace,
            sum: u64,
            slow: esker::Iter,
            seen: u64,
        }
        let mut held: Vec<Held> = Vec::new();
        while !self.over.load(Ordering::Relaxed) {
            let durable = rng.one_in(2);
            let Some((keyspace, snapshot)) = self.some(rng, durable) else { continue };
            let view = keyspace.at(&snapshot);
            held.push(Held { sum: sum(view.iter()), slow: view.iter(), seen: 0, snapshot, keyspace });
            for h in &mut held {
                let pace = 1 + rng.below(50);
                h.seen = h.slow.by_ref().take(pace).fold(h.seen, |sum, e| fold(sum, &e.unwrap()));
            }
            self.let_pass(rng.below(60));
            if held.len() > 6 {
                let h = held.swap_remove(rng.below(held.len()));
                let view = h.keyspace.at(&h.snapshot);
                assert_eq!(sum(view.iter()), h.sum, "{:?} at {:?} changed", h.keyspace, h.snapshot);
                let seen = h.slow.fold(h.seen, |sum, e| fold(sum, &e.unwrap()));
                assert_eq!(seen, h.sum, "an iterator over {:?} at {:?}", h.keyspace, h.snapshot);
            }
        }
    }

    /// Keyspaces that come and go, and everything that is asked of a database as a whole.
    fn shape(&self, rng: &mut Rng, copies: &Path, budget: &Budget) {
        for n in 0u64.. {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            let name = format!("{PASSING} {}", n % 5);
            let passing = self.db.keyspace(&name).unwrap();
            let rows = rng.below(60) as u64;
            for i in 0..rows {
                passing.put(i.to_be_bytes(), stream::value(i)).unwrap();
            }
            let left = rows - rng.below(rows as usize + 1) as u64;
            passing.delete_range(left.to_be_bytes()..).unwrap();
            let snapshot = self.db.snapshot();
            self.db.drop_keyspace(&name).unwrap();
            assert_eq!(passing.at(&snapshot).iter().count() as u64, left);
            self.check_budgets(budget);
            if rng.one_in(20) {
                let name = format!("{:020}", self.db.visible_seq().get());
                self.db.checkpoint(copies.join(&name)).unwrap();
                say(&format!("copy {name}"));
            }
            match rng.below(6) {
                0 => self.db.flush().unwrap(),
                1 => self.db.sync().unwrap(),
                3 => self.compact(rng),
                4 if rng.one_in(4) => assert!(self.db.verify().unwrap().is_ok()),
                2 => drop(self.db.step().unwrap()),
                _ => self.let_pass(rng.below(40)),
            }
        }
    }

    pub fn made(&self, writer: u64) -> u64 {
        made(&self.counts, writer)
    }

    /// A part of some keyspace, by hand. It may be dropped meanwhile.
    fn compact(&self, rng: &mut Rng) {
        let Some((keyspace, _)) = self.some(rng, false) else { return };
        let from = rng.below(256);
        let range = format!("{from:02x}")..format!("{:02x}", from + rng.below(256 - from));
        if let Err(e) = keyspace.compact(range) {
            assert_eq!(e.kind(), ErrorKind::Closed, "{e:?}");
        }
    }

    /// In the middle of everything.
    fn check_budgets(&self, budget: &Budget) {
        let metrics = self.db.metrics();
        // Memtables that are flushed and still read are those of slow iterators: they count, and nothing
        // can be done about them.
        let memtables: u64 = metrics.keyspaces.iter().map(|k| k.memtable_bytes).sum();
        let used = metrics.memory.used() - metrics.memory.memtables.saturating_sub(memtables);
        // A few buffers, and the blocks readers hold.
        let most = budget.memory as u64 + (4 << 20);
        assert!(used <= most, "{used} bytes of memory, may be {most}: {:?}", metrics.memory);
        // A quarter more, and those walks and merges hold.
        let most = (budget.files * 5 / 4) as u64 + 1000;
        assert!(metrics.tables.open <= most, "{} open tables, may be {most}", metrics.tables.open);
        let replay = metrics.journal.replay_bytes;
        assert!(replay <= budget.replay(), "{replay} bytes to replay, may be {}", budget.replay());
    }

    /// In order, so that the next opening finds nothing to repair. Answers what was read.
    pub fn close(self) -> u64 {
        self.db.clone().close().unwrap();
        self.reads.into_inner()
    }
}

/// A writer and its keyspaces.
struct Writer<'a> {
    life: &'a Life,
    stream: Stream,
    spaces: [Option<Keyspace>; SPACES],
    batch: Batch,
}

impl<'a> Writer<'a> {
    fn new(life: &'a Life, stream: Stream) -> Writer<'a> {
        let names: Vec<String> = life.db.names().unwrap().into_iter().map(|(name, _)| name).collect();
        let mut writer = Writer { life, stream, spaces: Default::default(), batch: life.db.batch() };
        for space in 0..SPACES {
            if space == 0 || names.contains(&stream::name(stream.writer, space)) {
                writer.create(space);
            }
        }
        writer
    }

    fn create(&mut self, space: usize) {
        if self.spaces[space].is_none() {
            let name = stream::name(self.stream.writer, space);
            let keyspace = self.life.db.keyspace(&name).unwrap();
            self.life.shared.lock().unwrap().insert(name, keyspace.clone());
            self.spaces[space] = Some(keyspace);
        }
    }

    fn make(&mut self, n: u64) {
        let count = |batch: &mut Batch| {
            let (key, n) = (self.stream.writer.to_be_bytes(), (n + 1).to_le_bytes());
            batch.put(&self.life.counts, key, n).commit().unwrap();
        };
        match self.stream.op(n) {
            Op::Batch(writes) => {
                for write in &writes {
                    if let Some(keyspace) = &self.spaces[write.space()] {
                        put(&mut self.batch, keyspace, write);
                    }
                }
                count(&mut self.batch);
            }
            Op::Create(space) => {
                self.create(space);
                self.life.counts.put(self.stream.writer.to_be_bytes(), (n + 1).to_le_bytes()).unwrap();
            }
            Op::Drop(space) => {
                if self.spaces[space].take().is_some() {
                    let name = stream::name(self.stream.writer, space);
                    self.life.shared.lock().unwrap().remove(&name);
                    self.life.db.drop_keyspace(&name).unwrap();
                }
                count(&mut self.batch);
            }
            Op::Replace(space) => {
                if let Some(staging) = self.spaces[space].take() {
                    self.life.shared.lock().unwrap().remove(staging.name());
                    self.batch.replace(self.spaces[0].as_ref().unwrap(), &staging);
                }
                count(&mut self.batch);
            }
        }
    }
}

fn put(batch: &mut Batch, keyspace: &Keyspace, write: &Write) {
    match write {
        Write::Put(_, key, id) => batch.put(keyspace, key, stream::value(*id)),
        Write::Delete(_, key) => batch.delete(keyspace, key),
        Write::DeleteRange(_, from, to) => batch.delete_range(keyspace, from.clone()..to.clone()),
        Write::Clear(_) => batch.clear_keyspace(keyspace),
    };
}

fn fold(sum: u64, entry: &esker::Entry) -> u64 {
    assert!(is_value(entry.value()));
    let bytes = entry.key().iter().chain(&entry.value()[..8]);
    bytes.fold(sum, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// One number for all rows in their order.
fn sum(entries: esker::Iter) -> u64 {
    entries.fold(0, |sum, e| fold(sum, &e.unwrap()))
}

/// A line for the process that waits for it.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{line}").and_then(|()| out.flush()).unwrap();
}
