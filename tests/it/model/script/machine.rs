//! Makes the calls of a script on the engine and on the model, and holds the answers against each
//! other.

use super::{End, Move, NAMES, Reader, SLOTS, Step, Write};
use crate::model::{ALL, Change, LOGS, Model, ModelLogs, Range, empty};
use crate::rng::Rng;
use crate::state::{Bytes, try_state};
use esker::fs::sim::SimFs;
use esker::{
    Batch, Db, Durability, ErrorKind, Keyspace, KeyspaceOptions, KeyspaceView, Logs, Options, Seq, Snapshot,
    Ticket, Watch,
};
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Bound;
use std::sync::Arc;

/// Under which circumstances a script is run.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The first is what it begins with.
    pub options: Vec<Options>,
    /// What the keyspaces are created with, by name.
    pub keyspaces: [KeyspaceOptions; NAMES.len()],
    /// Between any two calls, background work drawn from this seed.
    pub work: Option<u64>,
    /// Background work is done by threads: when, nobody knows.
    pub threads: bool,
    /// Between any two calls, while nothing is held, a sync and then a power cut drawn from this seed:
    /// answers stay what they are.
    pub cuts: Option<u64>,
    /// For a control: the model forgets range deletes.
    pub forgetful: bool,
}

/// What went wrong.
#[derive(Debug)]
pub struct Failure(pub String);

impl From<esker::Error> for Failure {
    fn from(e: esker::Error) -> Failure {
        Failure(format!("{e:?}"))
    }
}

pub type Result<T> = std::result::Result<T, Failure>;
type Row = (Bytes, Bytes);
/// Keyspaces by the numbers of their names.
type Live = BTreeMap<usize, Keyspace>;

/// A snapshot, its point in time, and the keyspaces of that time.
pub(super) struct Kept {
    pub snapshot: Snapshot,
    pub at: usize,
    live: Live,
    pub logs: Option<Logs>,
}

/// What a batch does to the model.
#[derive(Default)]
pub(super) struct Changes {
    pub list: Vec<Change>,
    /// Those that take a number.
    pub operations: u64,
    /// There is a reversed range.
    pub bad: bool,
    /// Something cannot be done to a log.
    pub conflict: bool,
    /// The logs after what is in it so far.
    pub logs: Option<ModelLogs>,
    /// The indexes that entries get at its commit.
    pub pushed: Vec<u64>,
}

/// A script that ran to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// A hash of all answers.
    pub answers: u64,
    /// Power cuts that the setup asked for.
    pub cuts: usize,
}

/// An iterator on its way, and what is left of what it must show.
struct Walker {
    entries: esker::Iter,
    left: std::collections::VecDeque<Row>,
}

pub struct Machine {
    setup: Setup,
    sim: SimFs,
    db: Option<Db>,
    pub(super) model: Model,
    pub(super) live: Live,
    pub(super) logs: Option<Logs>,
    pub(super) kept: [Option<Kept>; SLOTS],
    walkers: [Option<Walker>; SLOTS],
    pub(super) tickets: [Option<Ticket>; SLOTS],
    /// Of what is visible, and of what is durable, with what was told last.
    pub(super) watches: [(Option<Watch>, Option<Seq>); 2],
    timing: Option<Rng>,
    /// The seed of power cuts, and how many there were.
    cuts: (Option<Rng>, usize),
    /// The number of copies made, and the point in time of the last one.
    copies: (usize, Option<usize>),
    pub(super) answers: DefaultHasher,
}

pub(super) fn same<T: PartialEq + fmt::Debug>(
    found: &T,
    expected: &T,
    what: impl fmt::Display,
) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Failure(format!("{what}: {found:?} instead of {expected:?}")))
}

/// Rows that are not the same, told by the first difference.
fn same_rows(found: &[Row], expected: &[Row], what: impl fmt::Display) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let at = found.iter().zip(expected).take_while(|(f, e)| f == e).count();
    let show = |row: Option<&Row>| match row {
        Some((key, value)) => format!("{} ({} B)", crate::model::show(key), value.len()),
        None => "the end".into(),
    };
    Err(Failure(format!(
        "{what}: {} rows instead of {}; row {at} is {} instead of {}",
        found.len(),
        expected.len(),
        show(found.get(at)),
        show(expected.get(at))
    )))
}

fn row(entry: esker::Entry) -> Row {
    (entry.key().to_vec(), entry.value().to_vec())
}

/// Whether the range ends before it starts.
pub(super) fn reversed((lower, upper): &Range) -> bool {
    match (lower, upper) {
        (Bound::Included(l) | Bound::Excluded(l), Bound::Included(u) | Bound::Excluded(u)) => l > u,
        _ => false,
    }
}

/// The answer to a reversed range.
fn refused<T>(result: esker::Result<T>, what: &str) -> Result<()> {
    same(&result.err().map(|e| e.kind()), &Some(ErrorKind::Invalid), what)
}

impl Machine {
    pub fn start(setup: &Setup) -> Result<Machine> {
        let sim = SimFs::new(7);
        let mut machine = Machine {
            setup: setup.clone(),
            sim,
            db: None,
            model: Model::default(),
            live: Live::new(),
            logs: None,
            kept: Default::default(),
            walkers: Default::default(),
            tickets: Default::default(),
            watches: Default::default(),
            timing: setup.work.map(Rng::new),
            cuts: (setup.cuts.map(Rng::new), 0),
            copies: (0, None),
            answers: DefaultHasher::new(),
        };
        machine.open(0)?;
        Ok(machine)
    }

    /// Runs a whole script, and once more reads all of it.
    pub fn run(setup: &Setup, script: &[Step]) -> std::result::Result<Outcome, (usize, Failure)> {
        let mut machine = Machine::start(setup).map_err(|e| (0, e))?;
        for (i, step) in script.iter().enumerate() {
            machine.step(step).map_err(|e| (i, e))?;
        }
        machine.finish().map_err(|e| (script.len(), e))
    }

    fn finish(mut self) -> Result<Outcome> {
        self.check_all()?;
        self.settle()?;
        self.check_all()?;
        self.reopen(End::Close, 0)?;
        Ok(Outcome { answers: self.answers.finish(), cuts: self.cuts.1 })
    }

    pub(super) fn db(&self) -> &Db {
        self.db.as_ref().expect("a database that is open")
    }

    fn open(&mut self, options: usize) -> Result<()> {
        self.db = Some(Db::open("/db", self.options(options))?);
        self.watches =
            [Durability::Buffered, Durability::Sync].map(|kind| (Some(self.db().watch(kind)), None));
        let at = self.point(self.db().visible_seq().get())?;
        self.model.cut(at);
        let mut names: Vec<String> = self.db().names()?.into_iter().map(|(name, _)| name).collect();
        names.sort();
        let mut expected: Vec<String> = self.model.names(at).into_iter().map(|(name, _)| name).collect();
        expected.extend(self.model.logs(at).map(|_| LOGS.into()));
        expected.sort();
        same(&names, &expected, "names")?;
        if self.model.logs(at).is_some() {
            self.logs = Some(self.db().logs(LOGS)?);
        }
        for (number, name) in NAMES.iter().enumerate() {
            if self.model.space(name, at).is_some() {
                self.live.insert(number, self.db().keyspace(name)?);
            }
        }
        self.check_all()
    }

    /// The point in time at which this was the newest sequence number.
    fn point(&self, seq: u64) -> Result<usize> {
        let found = (0..=self.model.now()).rev().find(|&at| self.model.seq(at) == seq);
        found.ok_or_else(|| Failure(format!("no commit ended with sequence number {seq}")))
    }

    /// Every row of every keyspace, now and at every snapshot, both ways.
    fn check_all(&self) -> Result<()> {
        for (number, keyspace) in &self.live {
            let expected = self.rows(*number, self.model.now(), &ALL);
            let found = keyspace.iter().map(|e| e.map(row)).collect::<esker::Result<Vec<Row>>>()?;
            same_rows(&found, &expected, format_args!("all of {}", NAMES[*number]))?;
            let mut found = keyspace.iter().rev().map(|e| e.map(row)).collect::<esker::Result<Vec<Row>>>()?;
            found.reverse();
            same_rows(&found, &expected, format_args!("all of {}, backward", NAMES[*number]))?;
        }
        for (slot, kept) in self.kept.iter().enumerate() {
            let Some(kept) = kept else { continue };
            for (number, keyspace) in &kept.live {
                let found = keyspace.at(&kept.snapshot).iter().map(|e| e.map(row));
                let what = format!("all of {} at snapshot {slot}", NAMES[*number]);
                let found = found.collect::<esker::Result<Vec<Row>>>()?;
                same_rows(&found, &self.rows(*number, kept.at, &ALL), what)?;
            }
        }
        self.check_logs()
    }

    pub(super) fn rows(&self, name: usize, at: usize, range: &Range) -> Vec<Row> {
        self.model.space(NAMES[name], at).map_or_else(Vec::new, |space| self.model.range(space, range, at))
    }

    /// A view to read from and its point in time, if there is such a keyspace then.
    fn view(&self, reader: Reader) -> Option<(KeyspaceView, usize)> {
        match reader.snapshot {
            None => {
                let keyspace = self.live.get(&reader.name)?;
                Some((keyspace.at(&self.db().snapshot()), self.model.now()))
            }
            Some(slot) => {
                let kept = self.kept[slot].as_ref()?;
                Some((kept.live.get(&reader.name)?.at(&kept.snapshot), kept.at))
            }
        }
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        if let Some(timing) = &mut self.timing
            && timing.one_in(3)
        {
            let pieces = 1 + timing.below(4);
            self.work(pieces)?;
        }
        let free = self.kept.iter().all(Option::is_none) && self.walkers.iter().all(Option::is_none);
        if let Some(cuts) = self.cuts.0.as_mut().filter(|_| free)
            && cuts.one_in(4)
        {
            let (choice, options) = (cuts.next() % 1000, cuts.below(3));
            self.cuts.1 += 1;
            self.db().sync()?;
            self.reopen(End::Cut(choice), options)?;
        }
        match step {
            Step::Create(name) => self.create(*name),
            Step::Tune(name, options) if self.live.contains_key(name) => {
                let before = self.db().visible_seq();
                self.db().keyspace_with(NAMES[*name], *options)?;
                let seq = self.db().visible_seq();
                if seq > before {
                    self.model.commit(seq.get(), Vec::new());
                }
                Ok(())
            }
            Step::Tune(..) => Ok(()),
            Step::Drop(name) => self.drop_keyspace(*name),
            Step::Replace(name, staging) => self.replace(*name, *staging),
            Step::Commit(durability, writes) => self.commit(*durability, writes),
            Step::Try(durability, requires, writes) => self.commit_if(*durability, requires, writes),
            Step::Submit(slot, writes) => self.submit(*slot, writes),
            Step::Await(slot) => self.wait(*slot),
            Step::Told(durable) => self.ask_watch(*durable),
            Step::Snapshot(slot, durable) => self.snapshot(*slot, *durable),
            Step::Release(slot) => {
                self.kept[*slot] = None;
                Ok(())
            }
            Step::Get(reader, keys) => self.get(*reader, keys),
            Step::Scan(reader, range, ways) => self.scan(*reader, range, ways),
            Step::Begin(slot, reader, range) => self.begin(*slot, *reader, range),
            Step::Advance(slot, ways) => match self.walkers[*slot].take() {
                Some(mut walker) => {
                    ways.iter().try_for_each(|way| walker.advance(*way))?;
                    self.walkers[*slot] = Some(walker);
                    Ok(())
                }
                None => Ok(()),
            },
            Step::Walk(reader, range, moves) => self.walk(*reader, range, moves),
            Step::Logs(there) => self.make_logs(*there),
            Step::ReadLog(id, slot) => self.read_log(*id, *slot),
            Step::Work(pieces) => self.work(*pieces),
            Step::Settle => self.settle(),
            Step::Flush => Ok(self.db().flush()?),
            Step::Sync => {
                self.db().sync()?;
                same(&self.db().durable_seq(), &self.db().visible_seq(), "durable after a sync")
            }
            Step::Verify => same(&self.db().verify()?.is_ok(), &true, "verify"),
            Step::Compact(name, range) => self.compact(*name, range),
            Step::Checkpoint(options) => self.checkpoint(*options),
            Step::Reopen(end, options) => self.reopen(*end, *options),
            Step::Look(options) => self.look(*options),
        }
    }

    fn work(&mut self, pieces: usize) -> Result<()> {
        for _ in 0..pieces {
            if !self.db().step()? {
                break;
            }
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        while self.db().step()? {}
        if self.setup.threads {
            return Ok(());
        }
        // What is on the disk is known, and either needed or held; the catalog's tables are not counted.
        let files = self.sim.files();
        let tables = files
            .iter()
            .filter(|(path, _)| path.starts_with("/db") && path.extension() == Some("table".as_ref()));
        let metrics = self.db().metrics().tables;
        let on_disk: u64 = tables.map(|(_, bytes)| bytes).sum();
        let known = metrics.bytes + metrics.held_bytes;
        let fits = (known..known + (16 << 10)).contains(&on_disk);
        same(&fits, &true, format_args!("{on_disk} bytes of tables, {metrics:?}"))
    }

    fn create(&mut self, name: usize) -> Result<()> {
        if self.live.contains_key(&name) {
            return Ok(());
        }
        let keyspace = self.db().keyspace_with(NAMES[name], self.setup.keyspaces[name])?;
        self.live.insert(name, keyspace);
        self.committed(vec![Change::Create(NAMES[name].into())], 1)
    }

    fn drop_keyspace(&mut self, name: usize) -> Result<()> {
        if self.live.remove(&name).is_none() {
            return Ok(());
        }
        self.db().drop_keyspace(NAMES[name])?;
        self.committed(vec![Change::Drop(NAMES[name].into())], 1)
    }

    fn replace(&mut self, name: usize, staging: usize) -> Result<()> {
        if name == staging || !self.live.contains_key(&name) {
            return Ok(());
        }
        let Some(from) = self.live.remove(&staging) else { return Ok(()) };
        self.db().batch().replace(&self.live[&name], &from).commit()?;
        same(
            &from.get("k").err().map(|e| e.kind()),
            &Some(ErrorKind::Closed),
            "a handle that lost its name",
        )?;
        self.committed(vec![Change::Replace(NAMES[name].into(), NAMES[staging].into())], 2)
    }

    /// Takes down a commit of so many operations that was just made.
    pub(super) fn committed(&mut self, changes: Vec<Change>, operations: u64) -> Result<()> {
        let seq = self.model.seq(self.model.now()) + operations;
        same(&self.db().visible_seq().get(), &seq, format_args!("visible after {changes:?}"))?;
        if operations > 0 {
            let forgotten = |c: &Change| self.setup.forgetful && matches!(c, Change::DeleteRange(..));
            self.model.commit(seq, changes.into_iter().filter(|c| !forgotten(c)).collect());
        }
        Ok(())
    }

    /// Puts writes into a batch, those to keyspaces that are there.
    pub(super) fn fill(&self, batch: &mut Batch, writes: &[Write]) -> Changes {
        let mut changes = Changes::default();
        for write in writes {
            let name = match write {
                Write::Put(name, ..)
                | Write::Delete(name, _)
                | Write::DeleteRange(name, _)
                | Write::Clear(name) => *name,
                Write::Log(id, write) => {
                    self.fill_log(batch, &mut changes, *id, write);
                    continue;
                }
            };
            let Some(keyspace) = self.live.get(&name) else { continue };
            let space = self.space(name);
            if let Write::DeleteRange(_, range) = write {
                changes.bad |= reversed(range);
                changes.operations += u64::from(!empty(range));
            } else {
                changes.operations += 1;
            }
            changes.list.push(apply(batch, keyspace, space, write));
        }
        changes
    }

    fn commit(&mut self, durability: Durability, writes: &[Write]) -> Result<()> {
        let mut batch = self.db().batch();
        let Changes { list, operations, bad, conflict, pushed, .. } = self.fill(&mut batch, writes);
        if bad {
            return refused(batch.commit_with(durability), "a reversed range");
        }
        if conflict {
            return self.conflicts(|| batch.commit_with(durability));
        }
        let seq = batch.commit_with(durability)?.get();
        same(&batch.pushed().to_vec(), &pushed, "indexes of pushed entries")?;
        // Not the number itself: tuning to what is so already takes none.
        operations.hash(&mut self.answers);
        self.committed(list, operations)?;
        if durability == Durability::Sync && operations > 0 {
            same(&self.db().durable_seq().get(), &seq, "durable")?;
        }
        Ok(())
    }

    /// Something that cannot be done to a log: nothing is.
    pub(super) fn conflicts<T>(&self, commit: impl FnOnce() -> esker::Result<T>) -> Result<()> {
        let before = self.db().visible_seq();
        let answer = commit().err().map(|e| e.kind());
        same(&answer, &Some(ErrorKind::Conflict), "what cannot be done to a log")?;
        same(&self.db().visible_seq(), &before, "a conflict leaves no trace")
    }

    fn space(&self, name: usize) -> usize {
        self.model.space(NAMES[name], self.model.now()).expect("a live keyspace")
    }

    fn snapshot(&mut self, slot: usize, durable: bool) -> Result<()> {
        let snapshot = if durable { self.db().durable_snapshot() } else { self.db().snapshot() };
        let at = self.point(snapshot.seq().get())?;
        let at = if durable { at } else { self.model.now() };
        // Names may have changed hands since something durable: only what still is what it was.
        let was = |name: usize| self.model.space(NAMES[name], at) == Some(self.space(name));
        let live = self.live.iter().filter(|(name, _)| was(**name));
        let live = live.map(|(name, keyspace)| (*name, keyspace.clone())).collect();
        let made = |at: usize| self.model.logs(at).map(|logs| logs.made);
        let logs = self.logs.clone().filter(|_| made(at) == made(self.model.now()));
        self.kept[slot] = Some(Kept { snapshot, at, live, logs });
        Ok(())
    }

    fn get(&mut self, reader: Reader, keys: &[Bytes]) -> Result<()> {
        let Some((view, at)) = self.view(reader) else { return Ok(()) };
        let space = self.model.space(NAMES[reader.name], at);
        let expected = |key: &Bytes| self.model.get(space?, key, at);
        let expected: Vec<Option<Bytes>> = keys.iter().map(expected).collect();
        for (key, expected) in keys.iter().zip(&expected) {
            let found = view.get(key)?.map(esker::Value::into_vec);
            same(&found, expected, format_args!("get {}", crate::model::show(key)))?;
            if reader.snapshot.is_none() {
                let found = self.live[&reader.name].get(key)?.map(esker::Value::into_vec);
                same(&found, expected, format_args!("get now {}", crate::model::show(key)))?;
            }
        }
        let found = view.multi_get(keys)?.into_iter().map(|v| v.map(esker::Value::into_vec));
        same(&found.collect(), &expected, "multi_get")?;
        expected.hash(&mut self.answers);
        Ok(())
    }

    fn scan(&mut self, reader: Reader, range: &Range, ways: &[bool]) -> Result<()> {
        let Some((view, at)) = self.view(reader) else { return Ok(()) };
        let mut entries = view.range(range.clone());
        if reversed(range) {
            return refused(entries.next().unwrap_or_else(|| panic!("an end")), "a reversed range");
        }
        let expected = self.rows(reader.name, at, range);
        let (mut front, mut back) = (Vec::new(), Vec::new());
        for way in ways.iter().cycle() {
            let found = if *way { entries.next() } else { entries.next_back() };
            match found.transpose()?.map(row) {
                Some(row) if *way => front.push(row),
                Some(row) => back.push(row),
                None => break,
            }
        }
        same(&(entries.next().is_none() && entries.next_back().is_none()), &true, "an end stays one")?;
        back.reverse();
        front.extend(back);
        front.hash(&mut self.answers);
        same_rows(&front, &expected, "scan")
    }

    fn begin(&mut self, slot: usize, reader: Reader, range: &Range) -> Result<()> {
        let Some((view, at)) = self.view(reader) else { return Ok(()) };
        if reversed(range) {
            return Ok(());
        }
        let left = self.rows(reader.name, at, range).into();
        self.walkers[slot] = Some(Walker { entries: view.range(range.clone()), left });
        Ok(())
    }

    fn walk(&mut self, reader: Reader, range: &Range, moves: &[Move]) -> Result<()> {
        let Some((view, at)) = self.view(reader) else { return Ok(()) };
        let mut cursor = view.cursor(range.clone());
        if reversed(range) {
            return refused(cursor.next().map(|_| ()), "a reversed range");
        }
        let rows = self.rows(reader.name, at, range);
        // The cursor stands before the row of this number.
        let mut gap = 0;
        for (i, go) in moves.iter().enumerate() {
            let (found, expected) = match go {
                Move::Seek(key) => {
                    cursor.seek(key)?;
                    gap = rows.partition_point(|(k, _)| k < key);
                    continue;
                }
                Move::Next => {
                    let expected = rows.get(gap);
                    gap = (gap + 1).min(rows.len());
                    (cursor.next()?, expected)
                }
                Move::Prev => {
                    let before = gap.checked_sub(1);
                    gap = before.unwrap_or(0);
                    (cursor.prev()?, before.map(|i| &rows[i]))
                }
            };
            let found: Vec<Row> = found.map(|(k, v)| (k.to_vec(), v.to_vec())).into_iter().collect();
            let expected: Vec<Row> = expected.cloned().into_iter().collect();
            same_rows(&found, &expected, format_args!("move {i}"))?;
            found.hash(&mut self.answers);
        }
        Ok(())
    }

    fn options(&self, number: usize) -> Options {
        let options = self.setup.options[number % self.setup.options.len()].clone();
        options.fs(Arc::new(self.sim.clone()))
    }

    fn compact(&mut self, name: usize, range: &Range) -> Result<()> {
        let Some(keyspace) = self.live.get(&name) else { return Ok(()) };
        if reversed(range) {
            return refused(keyspace.compact(range.clone()), "a reversed range");
        }
        Ok(keyspace.compact(range.clone())?)
    }

    fn checkpoint(&mut self, options: usize) -> Result<()> {
        self.copies.0 += 1;
        let seq = self.db().checkpoint(format!("/copies/{}", self.copies.0))?;
        same(&seq, &self.db().visible_seq(), "the last commit of a copy")?;
        same(&seq, &self.db().durable_seq(), "durable after a checkpoint")?;
        self.copies.1 = Some(self.model.now());
        self.check_copy(options)
    }

    /// The last copy is whole, and can be closed.
    fn check_copy(&self, options: usize) -> Result<()> {
        let (copy, Some(at)) = self.copies else { return Ok(()) };
        let db = Db::open(format!("/copies/{copy}"), self.options(options))?;
        same(&(try_state(&db)? == self.model.state(at)), &true, format_args!("copy {copy}"))?;
        Ok(db.close()?)
    }

    /// Reads without writing, between two who write.
    fn look(&mut self, options: usize) -> Result<()> {
        self.live.clear();
        self.logs = None;
        self.kept = Default::default();
        self.tickets = Default::default();
        self.watches = Default::default();
        self.db.take().expect("a database that is open").close()?;
        for walker in self.walkers.iter_mut().filter_map(Option::take) {
            walker.finish()?;
        }
        let reader = Db::open("/db", self.options(options).read_only(true))?;
        same(&(try_state(&reader)? == self.model.state(self.model.now())), &true, "what is read only")?;
        same(&reader.verify()?.is_ok(), &true, "verify, read only")?;
        let refused = reader.batch().commit().err().map(|e| e.kind());
        same(&refused, &Some(ErrorKind::ReadOnly), "a write to what is read only")?;
        drop(reader);
        self.open(options + 1)
    }

    fn reopen(&mut self, end: End, options: usize) -> Result<()> {
        let durable = self.db().durable_seq().get();
        self.live.clear();
        self.logs = None;
        self.kept = Default::default();
        self.tickets = Default::default();
        self.watches = Default::default();
        let db = self.db.take().expect("a database that is open");
        match end {
            End::Close => db.close()?,
            End::Drop => drop(db),
            End::Cut(choice) => {
                self.walkers = Default::default();
                self.sim = self.sim.crash(choice % self.sim.states_at(self.sim.ops()).max(3));
                drop(db);
            }
        }
        // What was begun goes on after the close.
        for walker in self.walkers.iter_mut().filter_map(Option::take) {
            walker.finish()?;
        }
        if matches!(end, End::Cut(_)) {
            self.check_copy(options + 1)?;
        }
        let before = self.model.now();
        self.open(options)?;
        if self.model.now() < before {
            same(&matches!(end, End::Cut(_)), &true, "a close loses nothing")?;
        }
        same(&(self.model.seq(self.model.now()) >= durable), &true, "what was durable is there")?;
        let left = self.db().recovery();
        same(
            &(end != End::Close || left.removed == 0),
            &true,
            format_args!("a close leaves nothing: {left:?}"),
        )
    }
}

impl Walker {
    fn advance(&mut self, way: bool) -> Result<()> {
        let found = if way { self.entries.next() } else { self.entries.next_back() };
        let expected = if way { self.left.pop_front() } else { self.left.pop_back() };
        let found: Vec<Row> = found.transpose()?.map(row).into_iter().collect();
        same_rows(&found, &expected.into_iter().collect::<Vec<_>>(), "an iterator that was kept")
    }

    fn finish(mut self) -> Result<()> {
        for turn in 0..self.left.len() + 1 {
            self.advance(turn % 3 > 0)?;
        }
        Ok(())
    }
}

/// Puts a write into the batch. Answers what the model makes of it.
fn apply(batch: &mut Batch, keyspace: &Keyspace, space: usize, write: &Write) -> Change {
    match write {
        Write::Put(_, key, value) => {
            batch.put(keyspace, key, value);
            Change::Put(space, key.clone(), value.clone())
        }
        Write::Delete(_, key) => {
            batch.delete(keyspace, key);
            Change::Delete(space, key.clone())
        }
        Write::DeleteRange(_, range) => {
            batch.delete_range(keyspace, range.clone());
            Change::DeleteRange(space, range.clone())
        }
        Write::Clear(_) => {
            batch.clear_keyspace(keyspace);
            Change::DeleteRange(space, ALL)
        }
        Write::Log(..) => unreachable!("not of a keyspace"),
    }
}
