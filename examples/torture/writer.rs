//! The child: opens the database and makes its steps in several threads, beside flushes, merges and
//! reads, until it is killed. What it has done it tells its parent.

use crate::Outcome;
use crate::setup::Setup;
use crate::steps::{self, Act, COUNTS, How, Kind, OWN, Rng, SHARED, Step, WRITERS};
use crate::tell::{Level, Told, tell};
use esker::{Db, Durability, ErrorKind, Keyspace, Snapshot, Ticket};
use std::collections::VecDeque;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How a child lies, for the controls: each must be caught.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lie {
    /// Tells of steps before they are committed.
    Ahead,
    /// Calls what is buffered durable.
    Durable,
    /// Commits one batch as two.
    Torn,
}

impl Lie {
    pub const ALL: [(&str, Lie); 3] = [("ahead", Lie::Ahead), ("durable", Lie::Durable), ("torn", Lie::Torn)];
}

/// What a child is started with.
#[derive(Clone)]
pub struct Orders {
    pub dir: PathBuf,
    pub setup: Setup,
    pub lie: Option<Lie>,
    /// Only opens.
    pub idle: bool,
    /// Waits where the disk is full, and tries again.
    pub patient: bool,
    /// Ends after so many steps of each writer.
    pub steps: Option<u64>,
}

impl Orders {
    pub fn new(dir: PathBuf, setup: Setup) -> Orders {
        Orders { dir, setup, lie: None, idle: false, patient: false, steps: None }
    }

    /// Where copies go: beside the database, on the same file system.
    pub fn copies(&self) -> PathBuf {
        self.dir.with_file_name("copies")
    }
}

fn fail(writer: usize, e: &esker::Error) {
    tell(Told::Failed { writer, kind: format!("{:?}", e.kind()), text: e.to_string() });
}

fn wrong(writer: usize, text: &str) {
    tell(Told::Failed { writer, kind: "Wrong".into(), text: text.into() });
}

/// The whole life of a child.
pub fn run(orders: &Orders) -> Result<(), String> {
    tell(Told::Opening);
    let db = match Db::open(&orders.dir, orders.setup.options()) {
        Ok(db) => db,
        Err(e) => {
            fail(0, &e);
            return Ok(());
        }
    };
    tell(Told::Open);
    if orders.idle {
        // Until the parent is gone, if it does not kill us before.
        return io::stdin().read_to_end(&mut Vec::new()).map(drop).map_err(|e| e.to_string());
    }
    match Life::new(orders, &db) {
        Ok(life) => life.run(),
        Err(e) => fail(0, &e),
    }
    tell(Told::Done);
    Ok(())
}

struct Life<'a> {
    orders: &'a Orders,
    db: &'a Db,
    shared: Vec<Keyspace>,
    counts: Keyspace,
    /// The last step that each writer has committed.
    made: [AtomicU64; WRITERS],
    over: AtomicBool,
}

/// Word number `at` of a row of [`COUNTS`]: the writer's last step, then those it had seen of all.
pub fn count(row: Option<&esker::Value>, at: usize) -> u64 {
    let word = row.and_then(|row| row.get(at * 8..at * 8 + 8)?.try_into().ok());
    word.map_or(0, u64::from_le_bytes)
}

impl<'a> Life<'a> {
    fn new(orders: &'a Orders, db: &'a Db) -> esker::Result<Life<'a>> {
        let space = |(n, name): (usize, &&str)| db.keyspace_with(name, orders.setup.keyspace(n));
        let shared = SHARED.iter().enumerate().map(space).collect::<esker::Result<_>>()?;
        let counts = db.keyspace(COUNTS)?;
        let made: [AtomicU64; WRITERS] = Default::default();
        for (writer, made) in made.iter().enumerate() {
            made.store(count(counts.get([writer as u8])?.as_ref(), 0), Ordering::Relaxed);
        }
        Ok(Life { orders, db, shared, counts, made, over: AtomicBool::new(false) })
    }

    fn run(&self) {
        let (seed, others) = (self.orders.setup.seed, [WRITERS, WRITERS + 1]);
        let began = self.made.iter().map(|n| n.load(Ordering::Relaxed)).sum();
        std::thread::scope(|s| {
            let writers: Vec<_> = (0..WRITERS).map(|writer| s.spawn(move || self.write(writer))).collect();
            s.spawn(move || {
                if let Err(e) = self.shape(&mut Rng::new(&[seed, 3, began])) {
                    fail(others[0], &e);
                }
            });
            s.spawn(move || {
                let mut reader =
                    Reader { life: self, held: VecDeque::new(), rng: Rng::new(&[seed, 4, began]) };
                if let Err(e) = reader.run() {
                    match e.downcast_ref::<esker::Error>() {
                        Some(e) => fail(others[1], e),
                        None => wrong(others[1], &e.to_string()),
                    }
                }
            });
            for writer in writers {
                // A panic is told by the thread itself, and by the code the child ends with.
                if let Err(panic) = writer.join() {
                    std::panic::resume_unwind(panic);
                }
            }
            self.over.store(true, Ordering::Relaxed);
        });
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn write(&self, writer: usize) {
        let mut pending = VecDeque::new();
        let first = self.made[writer].load(Ordering::Relaxed) + 1;
        for n in first..self.orders.steps.map_or(u64::MAX, |steps| first + steps) {
            let step = steps::step(self.orders.setup.seed, writer, n);
            let mut told = false;
            if self.orders.lie == Some(Lie::Ahead) {
                tell(Told::Made { writer, n, seq: 0, level: Level::Durable });
            }
            loop {
                match self.make(writer, n, &step, &mut pending) {
                    Ok(()) => break,
                    Err(e) if self.orders.patient && e.is_retryable() => {
                        if !told {
                            tell(Told::Full { writer });
                        }
                        told = true;
                        std::thread::park_timeout(Duration::from_millis(5));
                    }
                    Err(e) => {
                        fail(writer, &e);
                        // What failed for good must go on failing, also that of another.
                        let synced = e.to_string().contains("syncing the journal");
                        if (e.is_final() || synced) && self.counts.put("later", "").is_ok() {
                            wrong(writer, "a write went through after the database had failed");
                        }
                        return;
                    }
                }
            }
        }
        if let Err(e) = await_all(writer, &mut pending, 0) {
            fail(writer, &e);
        }
    }

    fn make(&self, writer: usize, n: u64, step: &Step, pending: &mut Pending) -> esker::Result<()> {
        let (db, lie) = (self.db, self.orders.lie);
        let mut batch = db.batch();
        let name = steps::own(writer);
        if let Kind::Drop = step.kind {
            match db.drop_keyspace(&name) {
                Err(e) if e.kind() != ErrorKind::Invalid => return Err(e),
                // Done, or it was not there.
                _ => {}
            }
        }
        let own = db.keyspace(&name)?;
        if let Kind::Replace(rows) = &step.kind {
            let staging = db.keyspace(&steps::staging(writer, n))?;
            let mut fill = db.batch();
            for (key, value) in rows {
                fill.put(&staging, key, value);
            }
            fill.commit_with(Durability::Buffered)?;
            batch.replace(&own, &staging);
        }
        for (i, act) in step.acts.iter().enumerate() {
            if lie == Some(Lie::Torn) && i > 0 && i == step.acts.len() / 2 {
                batch.commit_with(Durability::Buffered)?;
            }
            let space = |space: usize| if space == OWN { &own } else { &self.shared[space] };
            match act {
                Act::Put { space: s, key, value } => batch.put(space(*s), key, value),
                Act::Delete { space: s, key } => batch.delete(space(*s), key),
                Act::DeleteRange { space: s, from, to } => batch.delete_range(space(*s), &from[..]..&to[..]),
                Act::ClearOwn => batch.clear_keyspace(&own),
            };
        }
        let seen = self.made.iter().map(|made| made.load(Ordering::Acquire));
        let row: Vec<u8> = std::iter::once(n).chain(seen).flat_map(u64::to_le_bytes).collect();
        batch.put(&self.counts, [writer as u8], row);
        let made = |seq: u64, level| tell(Told::Made { writer, n, seq, level });
        match step.how {
            How::Buffered => {
                let seq = batch.commit_with(Durability::Buffered)?.get();
                made(seq, if lie == Some(Lie::Durable) { Level::Durable } else { Level::Buffered });
            }
            How::Sync => made(batch.commit_with(Durability::Sync)?.get(), Level::Durable),
            How::Submit => {
                let ticket = batch.submit()?;
                made(ticket.seq().get(), Level::Sent);
                pending.push_back((n, ticket));
                await_all(writer, pending, n as usize % 8)?;
            }
        }
        self.made[writer].store(n, Ordering::Release);
        Ok(())
    }

    fn shape(&self, rng: &mut Rng) -> esker::Result<()> {
        // Not the number of one that was removed and that a power cut has brought back.
        let mut copies = u64::from(std::process::id()) * 1000;
        while !self.is_over() {
            let space = &self.shared[rng.below(SHARED.len())];
            let done = match rng.below(12) {
                0..3 => self.db.flush(),
                3 => space.compact(..),
                4..6 => space.compact(&b"01"[..]..&b"03"[..]),
                6 => self.counts.compact(..),
                7 | 8 => {
                    let seq = self.db.visible_seq().get();
                    self.db.sync().map(|()| tell(Told::Synced { seq }))
                }
                // Room for copies is there only where the disk is not to be full.
                9 if !self.orders.patient => {
                    copies += 1;
                    let copied = self.db.checkpoint(self.orders.copies().join(copies.to_string()));
                    copied.map(|seq| tell(Told::Copied { n: copies, seq: seq.get() }))
                }
                _ => self.db.step().map(drop),
            };
            match done {
                Err(e) if self.orders.patient && e.is_retryable() => {}
                done => done?,
            }
            std::thread::park_timeout(Duration::from_micros(rng.next() % 8000));
        }
        Ok(())
    }
}

type Pending = VecDeque<(u64, Ticket)>;

/// Waits until no more than `most` tickets are open.
fn await_all(writer: usize, pending: &mut Pending, most: usize) -> esker::Result<()> {
    while pending.len() > most {
        let Some((n, ticket)) = pending.pop_front() else { break };
        let seq = ticket.wait()?.get();
        tell(Told::Made { writer, n, seq, level: Level::Durable });
    }
    Ok(())
}

/// Reads at snapshots, at once and again later.
struct Reader<'a> {
    life: &'a Life<'a>,
    held: VecDeque<(Snapshot, usize, u64)>,
    rng: Rng,
}

impl Reader<'_> {
    fn run(&mut self) -> Outcome {
        let mut times = 0;
        while !self.life.is_over() {
            let db = self.life.db;
            let snapshot = if self.rng.one_in(3) { db.durable_snapshot() } else { db.snapshot() };
            let space = self.rng.below(SHARED.len());
            let sum = self.sum(&snapshot, space)?;
            self.held.push_back((snapshot, space, sum));
            if self.held.len() > 1 + self.rng.below(6) {
                let (snapshot, space, sum) = self.held.pop_front().ok_or("nothing held")?;
                if self.sum(&snapshot, space)? != sum {
                    return Err(
                        format!("keyspace {} has changed at {:?}", SHARED[space], snapshot.seq()).into()
                    );
                }
            }
            times += 1;
            tell(Told::Read { times });
            std::thread::park_timeout(Duration::from_micros(self.rng.next() % 5000));
        }
        Ok(())
    }

    /// A number made of all rows, read both ways.
    fn sum(&self, snapshot: &Snapshot, space: usize) -> Outcome<u64> {
        let view = self.life.shared[space].at(snapshot);
        let rows: Vec<_> = view.iter().collect::<esker::Result<_>>()?;
        let mut back = view.iter().rev().collect::<esker::Result<Vec<_>>>()?;
        back.reverse();
        if rows != back || !rows.is_sorted_by(|a, b| a.key() < b.key()) {
            return Err(format!("keyspace {} is not the same both ways", SHARED[space]).into());
        }
        let bytes = rows.iter().flat_map(|row| row.key().iter().chain(row.value()));
        Ok(bytes.fold(0, |sum: u64, &b| sum.wrapping_mul(0x100_0000_01b3).wrapping_add(u64::from(b) + 1)))
    }
}
