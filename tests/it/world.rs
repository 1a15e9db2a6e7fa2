//! A run of a small workload on a disk that remembers, beside the simplest thing that could say what
//! must be there: the list of all states, one behind each commit.

use crate::rng::Rng;
use crate::state::{Bytes, State, bounds_key, bounds_row, entry_key, entry_row};
use esker::fs::Fs;
use esker::fs::sim::SimFs;
use esker::metrics::JobMetrics;
use esker::{Batch, Compression, Db, Durability, Keyspace, KeyspaceOptions, Options, Snapshot, Ticket};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

pub const DIR: &str = "/data/db";
pub type Name = &'static str;
pub const NAMES: [Name; 3] = ["a", "b", "staging"];

/// One operation of a batch.
#[derive(Clone, Debug)]
pub enum Write {
    Put(Name, Bytes, Bytes),
    Delete(Name, Bytes),
    DeleteRange(Name, Bytes, Bytes),
    Clear(Name),
    /// An entry for one of the [`LOGS`], with its tag.
    Push(u64, u64, Bytes),
    /// The newest entries of a log stay, so many. Nothing of the same batch is before it.
    Keep(u64, u64),
    /// The newest entries of a log go, so many. Nothing of the same batch is before it.
    CutLast(u64, u64),
    Remove(u64),
    /// Emptied, to go on at an index, behind an entry of a tag.
    Reset(u64, u64, u64),
}

/// What the logs are called.
pub const LOGS: Name = "logs";

impl Write {
    pub fn name(&self) -> Name {
        let (Write::Put(name, ..)
        | Write::Delete(name, _)
        | Write::DeleteRange(name, ..)
        | Write::Clear(name)) = self
        else {
            return LOGS;
        };
        name
    }
}

/// How a batch is committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    Buffered,
    Sync,
    /// Submitted, and the ticket kept for [`Step::Wait`].
    Submit,
}

/// One call.
#[derive(Clone, Debug)]
pub enum Step {
    Create(Name),
    Drop(Name),
    Replace(Name, Name),
    Commit(How, Vec<Write>),
    /// For the oldest ticket that is kept.
    Wait,
    Sync,
    Flush,
    /// One piece of background work.
    Work,
    /// All background work.
    Settle,
    /// By hand, from the first key to before the second.
    Compact(Name, Bytes, Bytes),
    Reopen,
    /// Taken, and kept until the next [`Step::Release`].
    Snapshot,
    Release,
    /// Into a directory of its own.
    Checkpoint,
}

/// What a call does to the state. Answers how many operations that are.
fn apply(state: &mut State, step: &Step) -> u64 {
    match step {
        Step::Create(name) => drop(state.insert(name.to_string(), Default::default())),
        Step::Drop(name) => drop(state.remove(*name)),
        Step::Replace(name, staging) => {
            let rows = state.remove(*staging).expect("a live staging keyspace");
            state.insert(name.to_string(), rows);
            return 2;
        }
        Step::Commit(_, writes) => {
            writes.iter().for_each(|write| apply_write(state, write));
            let nothing = |w: &&Write| matches!(w, Write::DeleteRange(_, from, to) if from >= to);
            // Entries of one log, one after another, are one operation.
            let one =
                |a: &&Write, b: &&Write| matches!((a, b), (Write::Push(a, ..), Write::Push(b, ..)) if a == b);
            let writes: Vec<&Write> = writes.iter().filter(|w| !nothing(w)).collect();
            return writes.chunk_by(one).count() as u64;
        }
        _ => return 0,
    }
    1
}

pub fn apply_write(state: &mut State, write: &Write) {
    let rows = state.get_mut(write.name()).expect("a live keyspace");
    match write {
        Write::Put(_, key, value) => drop(rows.insert(key.clone(), value.clone())),
        Write::Delete(_, key) => drop(rows.remove(key)),
        Write::DeleteRange(_, from, to) => rows.retain(|key, _| key < from || key >= to),
        Write::Clear(_) => rows.clear(),
        Write::Push(log, tag, bytes) => {
            let (first, next, before) = bounds(rows, *log);
            rows.insert(bounds_key(*log), bounds_row(first, next + 1, before));
            rows.insert(entry_key(*log, next), entry_row(*tag, bytes));
        }
        Write::Keep(log, n) => {
            let (first, next, before) = bounds(rows, *log);
            let to = next.saturating_sub(*n).max(first);
            let tag = to.checked_sub(1).and_then(|i| tag(rows, *log, i)).or(before);
            let had = (first..to).filter(|i| rows.remove(&entry_key(*log, *i)).is_some()).count();
            if had > 0 {
                rows.insert(bounds_key(*log), bounds_row(to, next, tag));
            }
        }
        Write::CutLast(log, n) => {
            let (first, next, before) = bounds(rows, *log);
            let to = next.saturating_sub(*n).max(first);
            let had = (to..next).filter(|i| rows.remove(&entry_key(*log, *i)).is_some()).count();
            if had > 0 {
                rows.insert(bounds_key(*log), bounds_row(first, to, before));
            }
        }
        Write::Remove(log) => rows.retain(|key, _| !key.starts_with(&bounds_key(*log))),
        Write::Reset(log, first, tag) => {
            rows.retain(|key, _| !key.starts_with(&bounds_key(*log)));
            rows.insert(bounds_key(*log), bounds_row(*first, *first, Some(*tag).filter(|_| *first > 0)));
        }
    }
}

/// First and next index of a log in these rows, and the tag before.
fn bounds(rows: &BTreeMap<Bytes, Bytes>, log: u64) -> (u64, u64, Option<u64>) {
    let Some(row) = rows.get(&bounds_key(log)) else { return (0, 0, None) };
    let row = std::str::from_utf8(row).unwrap();
    let (range, before) = row.split_once(' ').unwrap();
    let (first, next) = range.split_once("..").unwrap();
    let before = before.strip_prefix("Some(").map(|n| n.trim_end_matches(')').parse().unwrap());
    (first.parse().unwrap(), next.parse().unwrap(), before)
}

fn tag(rows: &BTreeMap<Bytes, Bytes>, log: u64, index: u64) -> Option<u64> {
    let row = rows.get(&entry_key(log, index))?;
    let digits: Vec<u8> = row.iter().copied().take_while(|b| *b != b':').collect();
    String::from_utf8(digits).unwrap().parse().ok()
}

/// A value that no other seed gives, half of which compresses.
pub fn value(seed: u64, len: usize) -> Bytes {
    let mut rng = Rng::new(seed);
    let mut out = seed.to_le_bytes().to_vec();
    while out.len() < len {
        out.push(if out.len() % 32 < 16 { rng.next() as u8 } else { b'.' });
    }
    out.truncate(len);
    out
}

/// A batch in which each of `names` gets the same rows.
pub fn rows(names: &[Name], keys: std::ops::Range<usize>, len: usize, seed: u64) -> Vec<Write> {
    let row = |name, key| Write::Put(name, format!("key{key:04}").into(), value(seed << 8 | key as u64, len));
    names.iter().flat_map(|name| keys.clone().map(move |key| row(*name, key))).collect()
}

/// What one call did.
pub struct Told {
    pub step: Step,
    /// The operations of the disk before and after it.
    pub ops: Range<u64>,
    /// The jobs that were done meanwhile.
    pub jobs: JobMetrics,
}

/// A checkpoint that was made.
pub struct Copy {
    pub dir: String,
    pub ops: Range<u64>,
    /// It holds so many commits.
    pub commits: usize,
}

/// A snapshot with what it must show.
struct Held {
    snapshot: Snapshot,
    state: State,
    keyspaces: Vec<Keyspace>,
}

/// The database, its disk and what it promised.
pub struct World {
    pub sim: SimFs,
    /// Without a file system.
    pub options: Options,
    fs: Arc<dyn Fs>,
    pub db: Option<Db>,
    /// The state after so many commits, those of an earlier life included.
    pub states: Vec<State>,
    /// The sequence number of each.
    pub seqs: Vec<u64>,
    /// So many commits were there before the disk began to remember.
    base: usize,
    /// The number of operations of the disk when the call of each later commit began.
    begun: Vec<u64>,
    /// From this many operations on, so many commits survive the death of the process.
    kept: Vec<(u64, usize)>,
    /// From this many operations on, so many commits survive power loss.
    durable: Vec<(u64, usize)>,
    tickets: Vec<Ticket>,
    snapshot: Option<Held>,
    /// The calls so far.
    pub told: Vec<Told>,
    pub copies: Vec<Copy>,
    /// The sequence number and the state behind a commit that has failed, and the database with it:
    /// whether it was made only the next opening tells.
    pub unknown: Option<(u64, State)>,
    /// Cuts before this operation are not worth the time.
    pub dull: u64,
    /// Whether the system keeps what it was given when the process dies.
    pub keeps: bool,
    /// Openings that found fewer commits than were promised: `None` where there must be none.
    pub losses: Option<usize>,
}

impl World {
    /// A disk with nothing on it.
    pub fn new(options: Options) -> World {
        let mut world = World::at_rest(SimFs::new(1), options, vec![State::new()], vec![0]);
        world.open();
        world
    }

    /// A disk that holds the last of `states`, not opened yet.
    pub fn at_rest(sim: SimFs, options: Options, states: Vec<State>, seqs: Vec<u64>) -> World {
        let base = states.len() - 1;
        let (begun, kept, durable) = (Vec::new(), vec![(0, base)], vec![(0, base)]);
        let (db, tickets, snapshot) = (None, Vec::new(), None);
        let (told, copies) = (Vec::new(), Vec::new());
        let (fs, unknown) = (Arc::new(sim.clone()), None);
        World {
            sim,
            options,
            fs,
            unknown,
            db,
            states,
            seqs,
            base,
            begun,
            kept,
            durable,
            tickets,
            snapshot,
            told,
            copies,
            dull: 0,
            keeps: true,
            losses: None,
        }
    }

    pub fn open(&mut self) {
        self.try_open(Arc::new(self.sim.clone())).unwrap();
    }

    /// Opens the database through `fs`, which leads to the disk.
    pub fn try_open(&mut self, fs: Arc<dyn Fs>) -> esker::Result<()> {
        self.fs = fs;
        self.db = Some(Db::open(DIR, self.options.clone().fs(self.fs.clone()))?);
        // A close that failed may have lost what was not promised.
        let (seq, least) = (self.db().visible_seq().get(), self.bounds(self.sim.ops(), self.keeps).0);
        let at = self.seqs.iter().rposition(|s| *s == seq).expect("a commit that ended with this number");
        if let (Some(losses), true) = (&mut self.losses, at < least) {
            *losses += 1;
            self.base = self.base.min(at);
            self.kept.iter_mut().chain(&mut self.durable).for_each(|promise| promise.1 = promise.1.min(at));
        } else {
            assert!(at >= least, "{at} commits are there after opening, must be {least}");
        }
        self.states.truncate(at + 1);
        self.seqs.truncate(at + 1);
        self.begun.truncate(at.saturating_sub(self.base));
        self.note_durable();
        Ok(())
    }

    pub fn db(&self) -> &Db {
        self.db.as_ref().unwrap()
    }

    /// The database, which nothing else holds.
    pub fn let_go(&mut self) -> Option<Db> {
        self.tickets.clear();
        self.snapshot = None;
        self.db.take()
    }

    /// The number of commits.
    pub fn now(&self) -> usize {
        self.states.len() - 1
    }

    pub fn state(&self) -> &State {
        self.states.last().unwrap()
    }

    /// The number of commits that must and that can be there when so many operations were done.
    /// `process`: the machine went on, only the process died.
    pub fn bounds(&self, op: u64, process: bool) -> (usize, usize) {
        let promised = |list: &[(u64, usize)]| list.iter().rev().find(|(at, _)| *at <= op).unwrap().1;
        let least = promised(&self.durable).max(if process { promised(&self.kept) } else { 0 });
        (least, self.base + self.begun.partition_point(|&began| began < op))
    }

    /// How many commits were durable before the last `syncs`.
    pub fn durable_before(&self, syncs: usize) -> usize {
        self.durable[self.durable.len().saturating_sub(syncs + 1)].1
    }

    /// What the database says is durable is a promise.
    pub fn note_durable(&mut self) {
        let durable = self.db().durable_seq().get();
        let n = self.seqs.partition_point(|&seq| seq <= durable) - 1;
        if self.durable.last().unwrap().1 < n {
            self.promise(n);
        }
    }

    /// From now on so many commits survive whatever comes.
    pub fn promise(&mut self, n: usize) {
        self.durable.push((self.sim.ops(), n));
        self.kept.push((self.sim.ops(), n));
    }

    /// Moves each promise so many operations forward, to before it was kept: for controls.
    pub fn promise_early(&mut self, ops: u64) {
        self.durable.iter_mut().for_each(|(at, _)| *at = at.saturating_sub(ops));
    }

    pub fn run(&mut self, step: &Step) {
        self.try_run(step).unwrap_or_else(|e| panic!("{step:?}: {e:?}"));
    }

    /// Makes one call, and takes down what became of it. After an error the database may be closed
    /// or read-only.
    pub fn try_run(&mut self, step: &Step) -> esker::Result<()> {
        let began = self.sim.ops();
        let mut next = self.state().clone();
        let operations = apply(&mut next, step);
        let seq = self.seqs[self.now()] + operations;
        let jobs = self.db.as_ref().map(|db| db.metrics().jobs).unwrap_or_default();
        let result = self.call(step);
        self.tell(step, began, jobs);
        let Some(db) = &self.db else { return result };
        // A commit whose sync has failed is visible, and acknowledged it is not.
        if operations > 0 && db.visible_seq().get() == seq {
            self.states.push(next);
            self.seqs.push(seq);
            self.begun.push(began);
            if result.is_ok() && !matches!(step, Step::Commit(How::Submit, _)) {
                self.kept.push((self.sim.ops(), self.now()));
            }
        } else {
            assert!(operations == 0 || result.is_err(), "{step:?} has done nothing");
            assert_eq!(db.visible_seq().get(), self.seqs[self.now()], "{step:?}");
            if operations > 0 && db.batch().commit_with(Durability::Buffered).is_err() {
                self.unknown = Some((seq, next));
            }
        }
        if matches!(step, Step::Commit(How::Sync, _) | Step::Sync | Step::Reopen | Step::Checkpoint)
            && result.is_ok()
        {
            assert_eq!(db.durable_seq().get(), self.seqs[self.now()], "{step:?}");
        }
        self.note_durable();
        result
    }

    pub fn run_all(&mut self, steps: &[Step]) {
        steps.iter().for_each(|step| self.run(step));
    }

    /// Takes down what was done since the disk and the jobs were as they say.
    fn tell(&mut self, step: &Step, began: u64, before: JobMetrics) {
        let Some(db) = &self.db else { return };
        let mut jobs = db.metrics().jobs;
        // Another database, if it was opened again.
        if !matches!(step, Step::Reopen) {
            jobs.flushes -= before.flushes;
            jobs.compactions -= before.compactions;
            jobs.moves -= before.moves;
        }
        self.told.push(Told { step: step.clone(), ops: began..self.sim.ops(), jobs });
    }

    /// What is read at the snapshot is what was there when it was taken, gone or not.
    fn look_back(&self) -> esker::Result<()> {
        let Some(Held { snapshot, state, keyspaces }) = &self.snapshot else { return Ok(()) };
        for keyspace in keyspaces {
            let row = |e: esker::Result<esker::Entry>| e.map(|e| (e.key().to_vec(), e.value().to_vec()));
            let rows: BTreeMap<_, _> = keyspace.at(snapshot).iter().map(row).collect::<esker::Result<_>>()?;
            assert!(rows == state[keyspace.name()], "{} at {snapshot:?}", keyspace.name());
        }
        Ok(())
    }

    fn hold(&self) -> esker::Result<Held> {
        let state = self.state().clone();
        let keyspaces = state
            .keys()
            .filter(|name| *name != LOGS)
            .map(|name| self.db().keyspace(name))
            .collect::<esker::Result<_>>()?;
        Ok(Held { snapshot: self.db().snapshot(), state, keyspaces })
    }

    fn call(&mut self, step: &Step) -> esker::Result<()> {
        match step {
            Step::Commit(how, writes) => self.tickets.extend(commit(self.db(), *how, writes)?),
            Step::Wait if self.tickets.is_empty() => {}
            Step::Wait => {
                let ticket = self.tickets.remove(0);
                let seq = ticket.wait()?;
                assert!(self.db().durable_seq() >= seq);
            }
            Step::Reopen => {
                self.look_back()?;
                self.let_go().unwrap().close()?;
                let now = self.now();
                self.try_open(self.fs.clone())?;
                assert!(self.now() == now || self.losses.is_some(), "a close that succeeds loses nothing");
            }
            Step::Snapshot => self.snapshot = Some(self.hold()?),
            Step::Release => {
                self.look_back()?;
                self.snapshot = None;
            }
            Step::Checkpoint => {
                let (mut dirs, began) = ((0..).map(|n| format!("/backup/{n}")), self.sim.ops());
                let dir = dirs.find(|dir| self.sim.list(dir.as_ref()).is_err()).unwrap();
                let seq = self.db().checkpoint(&dir)?;
                assert_eq!(seq.get(), self.seqs[self.now()]);
                self.copies.push(Copy { dir, ops: began..self.sim.ops(), commits: self.now() });
            }
            other => call(self.db(), other)?,
        }
        Ok(())
    }
}

/// Makes one of the calls that need nothing but the database.
fn call(db: &Db, step: &Step) -> esker::Result<()> {
    match step {
        Step::Create(LOGS) => db.logs(LOGS).map(|_| ()),
        Step::Drop(LOGS) => db.drop_logs(LOGS),
        Step::Create(name) => {
            let options = KeyspaceOptions::default().block_bytes(256).compression(Compression::None);
            let options = if *name == "b" { options.compression(Compression::Lz4) } else { options };
            db.keyspace_with(name, options).map(|_| ())
        }
        Step::Drop(name) => db.drop_keyspace(name),
        Step::Replace(name, staging) => {
            let (to, from) = (db.keyspace(name)?, db.keyspace(staging)?);
            db.batch().replace(&to, &from).commit().map(|_| ())
        }
        Step::Compact(name, from, to) => db.keyspace(name)?.compact(from.clone()..to.clone()),
        Step::Sync => db.sync(),
        Step::Flush => db.flush(),
        Step::Work => db.step().map(|_| ()),
        Step::Settle => {
            while db.step()? {}
            Ok(())
        }
        other => panic!("{other:?} needs a world"),
    }
}

fn commit(db: &Db, how: How, writes: &[Write]) -> esker::Result<Option<Ticket>> {
    let mut batch = batch(db, writes)?;
    match how {
        How::Buffered => batch.commit_with(Durability::Buffered).map(|_| None),
        How::Sync => batch.commit_with(Durability::Sync).map(|_| None),
        How::Submit => batch.submit().map(Some),
    }
}

pub fn batch(db: &Db, writes: &[Write]) -> esker::Result<Batch> {
    let mut batch = db.batch();
    for write in writes {
        let log = |log: u64| db.logs(LOGS).map(|logs| logs.log(log));
        // Within the bounds.
        let at = |id: u64, n: u64| {
            let bounds = log(id)?.bounds()?;
            Ok::<_, esker::Error>(bounds.end.saturating_sub(n).max(bounds.start))
        };
        match write {
            Write::Push(id, tag, bytes) => batch.push(&log(*id)?, *tag, bytes),
            Write::Keep(id, n) => batch.purge(&log(*id)?, at(*id, *n)?),
            Write::CutLast(id, n) => batch.truncate(&log(*id)?, at(*id, *n)?),
            Write::Remove(id) => batch.remove(&log(*id)?),
            Write::Reset(id, first, tag) => batch.reset(&log(*id)?, *first, *tag),
            Write::Put(name, key, value) => batch.put(&db.keyspace(name)?, key, value),
            Write::Delete(name, key) => batch.delete(&db.keyspace(name)?, key),
            Write::DeleteRange(name, from, to) => {
                batch.delete_range(&db.keyspace(name)?, from.clone()..to.clone())
            }
            Write::Clear(name) => batch.clear_keyspace(&db.keyspace(name)?),
        };
    }
    Ok(batch)
}

/// The next call of a random workload, one that makes sense in `state`.
pub fn random_step(rng: &mut Rng, state: &State) -> Step {
    let live: Vec<Name> = NAMES.into_iter().filter(|name| state.contains_key(*name)).collect();
    let dead: Vec<Name> = NAMES.into_iter().filter(|name| !state.contains_key(*name)).collect();
    if live.is_empty() {
        return Step::Create(one(rng, &dead));
    }
    let how = *rng.pick(&[How::Buffered, How::Buffered, How::Sync, How::Submit]);
    match rng.below(40) {
        0..24 => {
            let n = if rng.one_in(12) { 30 } else { 1 + rng.below(5) };
            Step::Commit(how, (0..n).map(|_| random_write(rng, &live)).collect())
        }
        24 => Step::Wait,
        25 => Step::Sync,
        26 => Step::Flush,
        27 => {
            let (a, b) = (rng.below(24), rng.below(24));
            let key = |n: usize| format!("key{n:02}").into_bytes();
            Step::Compact(one(rng, &live), key(a.min(b)), key(a.max(b)))
        }
        28..32 => Step::Work,
        32 => Step::Settle,
        33 => Step::Reopen,
        34 => Step::Snapshot,
        35 => Step::Release,
        36 => Step::Drop(one(rng, &live)),
        37 if live.len() > 1 => {
            let at = rng.below(live.len());
            Step::Replace(live[at], live[(at + 1 + rng.below(live.len() - 1)) % live.len()])
        }
        _ if !dead.is_empty() => Step::Create(one(rng, &dead)),
        _ => Step::Commit(how, vec![random_write(rng, &live)]),
    }
}

fn one(rng: &mut Rng, names: &[Name]) -> Name {
    names[rng.below(names.len())]
}

fn random_write(rng: &mut Rng, live: &[Name]) -> Write {
    let key = |rng: &mut Rng| format!("key{:02}", rng.below(24)).into_bytes();
    let name = one(rng, live);
    match rng.below(16) {
        0..11 => {
            let len = if rng.one_in(10) { 500 + rng.below(1500) } else { rng.below(150) };
            Write::Put(name, key(rng), value(rng.next(), len))
        }
        11..14 => Write::Delete(name, key(rng)),
        14 => {
            let (a, b) = (key(rng), key(rng));
            Write::DeleteRange(name, a.clone().min(b.clone()), a.max(b))
        }
        _ if rng.one_in(6) => Write::Clear(name),
        _ => Write::Delete(name, key(rng)),
    }
}
