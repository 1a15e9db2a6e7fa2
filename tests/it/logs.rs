//! Logs against the simplest thing that could say what must be in them, over segments so small that
//! everything which can happen to an entry does: on a disk that loses power, with snapshots held.

use crate::rng::Rng;
use esker::fs::Fs;
use esker::fs::sim::SimFs;
use esker::{Batch, Db, Durability, ErrorKind, Keyspace, Log, Logs, Options, Snapshot};
use std::collections::BTreeMap;
use std::sync::Arc;

const DIR: &str = "/data/db";

/// One log.
#[derive(Clone, PartialEq, Debug, Default)]
struct Model {
    first: u64,
    before: Option<u64>,
    entries: Vec<(u64, Vec<u8>)>,
}

impl Model {
    fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn tag(&self, index: u64) -> Option<u64> {
        if index + 1 == self.first {
            return self.before;
        }
        self.entries.get(index.checked_sub(self.first)? as usize).map(|e| e.0)
    }
}

type State = BTreeMap<u64, Model>;

/// A snapshot with what it must show.
struct Held {
    snapshot: Snapshot,
    state: State,
}

struct World {
    rng: Rng,
    sim: SimFs,
    options: Options,
    db: Option<Db>,
    logs: Option<Logs>,
    meta: Option<Keyspace>,
    /// The state behind each commit, by its sequence number; the newest last.
    history: Vec<(u64, State)>,
    held: Vec<Held>,
    commits: u64,
    entries: usize,
}

impl World {
    fn new(seed: u64, options: Options) -> World {
        let sim = SimFs::new(seed);
        let mut world = World {
            rng: Rng::new(seed),
            options: options.fs(Arc::new(sim.clone())),
            sim,
            db: None,
            logs: None,
            meta: None,
            history: Vec::new(),
            held: Vec::new(),
            commits: 0,
            entries: 0,
        };
        world.open();
        let db = world.db.clone().unwrap();
        world.logs = Some(db.logs("raft").unwrap());
        world.meta = Some(db.keyspace("meta").unwrap());
        db.sync().unwrap();
        world.history.push((db.visible_seq().get(), State::new()));
        world
    }

    fn open(&mut self) {
        let db = Db::open(DIR, self.options.clone()).unwrap();
        if !self.history.is_empty() {
            self.logs = Some(db.logs("raft").unwrap());
            self.meta = Some(db.keyspace("meta").unwrap());
        }
        self.db = Some(db);
    }

    fn db(&self) -> &Db {
        self.db.as_ref().unwrap()
    }

    fn log(&self, id: u64) -> Log {
        self.logs.as_ref().unwrap().log(id)
    }

    fn now(&self) -> &State {
        &self.history.last().unwrap().1
    }

    /// One operation on some log of `state`, which it changes; `pushed` gets the index of a push.
    fn op(&mut self, batch: &mut Batch, state: &mut State, pushed: &mut Vec<u64>) {
        let id = self.rng.below(6) as u64;
        let log = self.log(id);
        let had = state.get(&id).cloned();
        let mut model = had.clone().unwrap_or_default();
        let (first, next) = (model.first, model.next());
        match self.rng.below(14) {
            0 if next > first => {
                let from = first + self.rng.below((next - first) as usize + 1) as u64;
                batch.truncate(&log, from);
                model.entries.truncate((from - first) as usize);
            }
            1..=3 if next > first => {
                let before = first + self.rng.below((next - first) as usize + 1) as u64;
                batch.purge(&log, before);
                if before > first {
                    model.before = model.tag(before - 1);
                }
                model.entries.drain(..(before - first) as usize);
                model.first = before;
            }
            4 if self.rng.one_in(3) => {
                let (to, tag) = (self.rng.below(50) as u64, self.rng.next() >> 60);
                batch.reset(&log, to, tag);
                model = Model { first: to, before: Some(tag).filter(|_| to > 0), entries: Vec::new() };
            }
            5 if self.rng.one_in(4) => {
                batch.remove(&log);
                state.remove(&id);
                return;
            }
            kind => {
                for _ in 0..1 + self.rng.below(6) {
                    let len = if self.rng.one_in(30) { self.rng.below(9000) } else { self.rng.below(300) };
                    let tag = self.rng.below(3) as u64;
                    let mut bytes = self.entries.to_le_bytes().to_vec();
                    bytes.resize(len, kind as u8);
                    self.entries += 1;
                    if self.rng.one_in(2) {
                        batch.append(&log, model.next(), tag, &bytes);
                    } else {
                        pushed.push(model.next());
                        batch.push(&log, tag, &bytes);
                    }
                    model.entries.push((tag, bytes));
                }
            }
        }
        // A log that nothing was done to is not there yet.
        if had.is_some() || model != Model::default() {
            state.insert(id, model);
        }
    }

    fn commit(&mut self) {
        let mut batch = self.db().batch();
        let (mut state, mut pushed) = (self.now().clone(), Vec::new());
        if self.rng.one_in(3) {
            let id = self.rng.below(6) as u64;
            batch.require_next(&self.log(id), state.get(&id).map_or(0, Model::next));
        }
        for _ in 0..1 + self.rng.below(4) {
            self.op(&mut batch, &mut state, &mut pushed);
        }
        self.commits += 1;
        batch.put(self.meta.as_ref().unwrap(), "commits", self.commits.to_string());
        let durability = if self.rng.one_in(3) { Durability::Sync } else { Durability::Buffered };
        let seq = batch.commit_with(durability).unwrap();
        assert_eq!(batch.pushed(), pushed);
        self.history.push((seq.get(), state));
    }

    /// Reads all of it, in some of the ways there are.
    fn check(&mut self) {
        let state = self.now().clone();
        let ids: Vec<u64> = self.logs.as_ref().unwrap().iter().map(|log| log.unwrap().id()).collect();
        assert_eq!(ids, state.keys().copied().collect::<Vec<_>>());
        for id in 0..6 {
            let (log, model) = (self.log(id), state.get(&id).cloned().unwrap_or_default());
            assert_eq!(log.bounds().unwrap(), model.first..model.next(), "log {id}");
            for index in model.first.saturating_sub(2)..model.next() + 2 {
                assert_eq!(log.tag(index).unwrap(), model.tag(index), "tag of entry {index} of log {id}");
            }
            let range = log.range(..).map(|e| e.unwrap());
            let read: Vec<_> = range.map(|e| (e.tag(), e.into_value().into_vec())).collect();
            assert!(read == model.entries, "log {id}: {} of {} entries", read.len(), model.entries.len());
            let back = log.range(..).rev().map(|e| e.unwrap().into_value().into_vec());
            assert!(back.eq(model.entries.iter().rev().map(|e| e.1.clone())));
            if let Some(i) = (!model.entries.is_empty()).then(|| self.rng.below(model.entries.len())) {
                let entry = log.get(model.first + i as u64).unwrap().unwrap();
                assert_eq!((entry.tag(), entry.bytes()), (model.entries[i].0, &model.entries[i].1[..]));
                let some = log.read(model.first + i as u64.., 500).unwrap();
                assert!(
                    !some.is_empty() && some.iter().zip(&model.entries[i..]).all(|(e, m)| e.bytes() == m.1)
                );
            }
            let runs: Vec<_> = log.tag_runs(..).unwrap();
            let tags = runs.iter().flat_map(|run| run.range.clone().map(|_| run.tag));
            assert!(tags.eq(model.entries.iter().map(|e| e.0)));
        }
        for held in &self.held {
            for id in 0..6 {
                let past = self.log(id).at(&held.snapshot);
                let model = held.state.get(&id).cloned().unwrap_or_default();
                assert_eq!(past.bounds().unwrap(), model.first..model.next());
                for (index, (tag, bytes)) in (model.first..).zip(&model.entries) {
                    match past.get(index) {
                        Ok(entry) => {
                            let entry = entry.unwrap();
                            assert_eq!((entry.tag(), entry.bytes()), (*tag, &bytes[..]));
                        }
                        Err(e) => assert_eq!(e.kind(), ErrorKind::Gone, "{e}"),
                    }
                }
            }
        }
    }

    fn reopen(&mut self) {
        self.held.clear();
        (self.logs, self.meta) = (None, None);
        self.db.take().unwrap().close().unwrap();
        self.open();
        self.check();
    }

    fn cut_power(&mut self) {
        self.held.clear();
        let durable = self.db().durable_seq().get();
        let choice = self.rng.below(self.sim.states_at(self.sim.ops()) as usize) as u64;
        let disk = self.sim.crash(choice as _);
        self.options = self.options.clone().fs(Arc::new(disk.clone()));
        (self.logs, self.meta) = (None, None);
        // The old one goes on with a disk that nobody looks at any more.
        drop(self.db.take());
        self.sim = disk;
        self.open();
        let seq = self.db().visible_seq().get();
        assert!(seq >= durable, "{seq} of {durable}");
        let at = self.history.iter().rposition(|h| h.0 <= seq).unwrap();
        assert_eq!(self.history[at].0, seq, "a part of a commit");
        self.history.truncate(at + 1);
        let said = self.meta.as_ref().unwrap().get("commits").unwrap();
        let said = said.map_or(0, |v| String::from_utf8(v.to_vec()).unwrap().parse().unwrap());
        assert!(said <= self.commits);
        self.commits = said;
        self.check();
    }

    fn step(&mut self) {
        match self.rng.below(40) {
            0 => self.check(),
            1 => self.reopen(),
            2 => self.cut_power(),
            3 => {
                let (snapshot, state) = (self.db().snapshot(), self.now().clone());
                self.held.push(Held { snapshot, state });
            }
            4 => self.held.clear(),
            5 => self.db().flush().unwrap(),
            6..=9 => _ = self.db().step().unwrap(),
            10 => while self.db().step().unwrap() {},
            11 => self.db().sync().unwrap(),
            _ => self.commit(),
        }
    }
}

fn options(rng: &mut Rng) -> Options {
    Options::default()
        .workers(0)
        .segment_bytes(16 << 10)
        .journal_bytes(*rng.pick(&[32 << 10, 64 << 10, 1 << 20]))
        .memtable_bytes(*rng.pick(&[1 << 10, 4 << 10, 64 << 10]))
        .memory_bytes(*rng.pick(&[1 << 20, 64 << 20]))
        .mapped(rng.one_in(2))
        .durability(Durability::Buffered)
}

/// What the disk holds of each kind of file: how many there are, and their bytes.
fn files(sim: &SimFs, kind: &str) -> (usize, u64) {
    let files = sim.files();
    let of_kind = files.iter().filter(|f| f.0.extension().is_some_and(|e| e == kind));
    of_kind.fold((0, 0), |(n, bytes), file| (n + 1, bytes + file.1))
}

/// A few logs over many segments on a disk: one keeps all its entries, the others a few, and most of
/// what was written is dead.
fn settled(rounds: u64) -> (SimFs, Options, Vec<(u64, Model)>) {
    let sim = SimFs::new(1);
    let options = Options::default().workers(0).segment_bytes(16 << 10).journal_bytes(64 << 10);
    let options = options.memtable_bytes(4 << 10).durability(Durability::Buffered);
    let options = options.fs(Arc::new(sim.clone()));
    let db = Db::open(DIR, options.clone()).unwrap();
    let logs = db.logs("raft").unwrap();
    let mut models = vec![Model::default(); 4];
    for i in 0..rounds {
        let mut batch = db.batch();
        for (id, model) in models.iter_mut().enumerate() {
            let bytes = vec![i as u8; if id == 0 { 60 } else { 700 }];
            batch.append(&logs.log(id as u64), i, i / 10, &bytes);
            model.entries.push((i / 10, bytes));
            if id > 0 && model.entries.len() > 3 {
                model.before = model.tag(model.first);
                model.entries.remove(0);
                model.first += 1;
                batch.purge(&logs.log(id as u64), model.first);
            }
        }
        batch.commit().unwrap();
        db.step().unwrap();
    }
    db.flush().unwrap();
    while db.step().unwrap() {}
    // And something to replay.
    for i in rounds..rounds + 3 {
        db.batch().append(&logs.log(0), i, i, [9; 400]).commit().unwrap();
        models[0].entries.push((i, vec![9; 400]));
    }
    drop((logs, db));
    (sim, options, (0..).zip(models).collect())
}

fn agree(db: &Db, models: &[(u64, Model)]) {
    let logs = db.logs("raft").unwrap();
    for (id, model) in models {
        let log = logs.log(*id);
        assert_eq!(log.bounds().unwrap(), model.first..model.next());
        let read = log.range(..).map(|e| e.unwrap()).map(|e| (e.tag(), e.bytes().to_vec()));
        assert!(read.eq(model.entries.iter().cloned()), "log {id}");
    }
}

/// Whatever one log keeps, the space of the others comes back, and what opening replays does not grow.
#[test]
fn survivors_move_and_space_comes_back() {
    let (sim, options, models) = settled(600);
    let live: usize = models.iter().flat_map(|(_, m)| &m.entries).map(|e| e.1.len() + 100).sum();
    let (segments, bytes) = files(&sim, "journal");
    let (footers, _) = files(&sim, "footer");
    assert!(footers > 0 && footers <= segments, "{footers} of {segments}");
    // Their headers take half of segments as small as these.
    let bound = 2 * live as u64 + (segments as u64 + 2) * (8 << 10) + ((3 * 16) << 10);
    assert!(bytes < bound, "{bytes} bytes in {segments} segments for {live} that are live");
    let db = Db::open(DIR, options).unwrap();
    assert!(db.recovery().bytes < 64 << 10, "{:?}", db.recovery());
    agree(&db, &models);
    assert!(db.verify().unwrap().is_ok());
    let metrics = db.metrics();
    assert_eq!(metrics.logs.entries as usize, models.iter().map(|(_, m)| m.entries.len()).sum::<usize>());
    // All of it goes.
    let logs = db.logs("raft").unwrap();
    models.iter().for_each(|(id, _)| _ = db.batch().remove(&logs.log(*id)).commit().unwrap());
    db.flush().unwrap();
    while db.step().unwrap() {}
    assert_eq!((db.metrics().logs.entries, files(&sim, "footer").0), (0, 0));
}

/// A random programme on logs of which each keeps another number of entries: at every commit, once what
/// that wants done is done, they take less than twice what is live and two segments, whatever memtables need.
fn stays_within_the_bound(seed: u64) {
    const SEGMENT: u64 = 128 << 10;
    // A sector of each segment is its header's.
    const HEADER: u64 = 8 << 10;
    let (mut rng, sim) = (Rng::new(seed), SimFs::new(seed));
    // Left to itself, the journal would be needed much longer.
    let options = Options::default().workers(0).segment_bytes(SEGMENT).journal_bytes(16 * SEGMENT);
    let db = Db::open(DIR, options.fs(Arc::new(sim.clone()))).unwrap();
    let (logs, meta) = (db.logs("raft").unwrap(), db.keyspace("meta").unwrap());
    let keep: Vec<u64> = (0..8).map(|_| *rng.pick(&[1, 8, 64, 200])).collect();
    let mut bounds = [(0, 0); 8];
    for i in 0..800u64 {
        let mut batch = db.batch();
        for _ in 0..1 + rng.below(4) {
            let id = rng.below(8);
            let (log, (first, next)) = (logs.log(id as u64), &mut bounds[id]);
            for _ in 0..1 + rng.below(4) {
                batch.push(&log, 1, vec![i as u8; rng.below(1200)]);
                *next += 1;
            }
            if *next - *first > keep[id] && rng.one_in(2) {
                *first = *next - keep[id];
                batch.purge(&log, *first);
            } else if rng.one_in(100) {
                *next = *first;
                batch.truncate(&log, *next);
            }
        }
        if rng.one_in(3) {
            batch.put(&meta, "applied", i.to_string());
        }
        let durability = if rng.one_in(4) { Durability::Sync } else { Durability::Buffered };
        batch.commit_with(durability).unwrap();
        while db.step().unwrap() {}
        let (live, (segments, bytes)) = (db.metrics().logs.bytes, files(&sim, "journal"));
        // The next one is there already, and nobody's; and in some are rows, cuts and an end that is empty.
        let bound = 2 * live + 3 * SEGMENT + segments as u64 * (HEADER + SEGMENT / 32);
        assert!(bytes < bound, "seed {seed}, commit {i}: {bytes} of {bound} for {live} in {segments}");
    }
    for (id, (first, next)) in (0..).zip(bounds) {
        assert_eq!(logs.log(id).bounds().unwrap(), first..next);
        assert_eq!(logs.log(id).range(..).map(Result::unwrap).count() as u64, next - first);
    }
}

#[test]
fn logs_take_no_more_than_their_bound_at_every_commit() {
    (0..8).for_each(stays_within_the_bound);
}

/// A footer that is missing or damaged is made again; a damaged one `verify` tells of.
#[test]
fn footers_are_made_again() {
    let (sim, options, models) = settled(200);
    let footers = || sim.files().into_iter().filter(|f| f.0.extension().is_some_and(|e| e == "footer"));
    assert!(footers().count() > 1);
    for (n, (path, len)) in footers().enumerate() {
        if n % 2 == 0 {
            sim.remove(&path).unwrap();
        } else {
            sim.damage(&path, |bytes| bytes[len as usize / 2] ^= 1).unwrap();
        }
    }
    let read_only = Db::open(DIR, options.clone().read_only(true)).unwrap();
    agree(&read_only, &models);
    assert!(!read_only.verify().unwrap().is_ok());
    drop(read_only);
    let db = Db::open(DIR, options.clone()).unwrap();
    agree(&db, &models);
    assert!(db.verify().unwrap().is_ok());
    let (path, len) = footers().next().unwrap();
    sim.damage(&path, |bytes| bytes[len as usize - 1] ^= 1).unwrap();
    let found = db.verify().unwrap();
    assert_eq!(found.damage.len(), 1, "{found}");
    assert_eq!(found.damage[0].file(), Some(path.as_path()));
}

/// A copy has the footers of the segments that it is not to replay, and what is in them.
#[test]
fn a_checkpoint_brings_its_footers() {
    let (sim, options, models) = settled(200);
    let db = Db::open(DIR, options.clone()).unwrap();
    db.checkpoint("/data/copy").unwrap();
    let footers = |dir: &str| -> BTreeMap<_, u64> {
        let of_dir = sim.files().into_iter().filter(|f| f.0.starts_with(dir));
        let footers = of_dir.filter(|f| f.0.extension().is_some_and(|e| e == "footer"));
        footers.map(|f| (f.0.file_name().unwrap().to_owned(), f.1)).collect()
    };
    let (here, there) = (footers(DIR), footers("/data/copy"));
    assert!(!there.is_empty() && there.iter().all(|(name, len)| here.get(name) == Some(len)), "{there:?}");
    let copy = Db::open("/data/copy", options).unwrap();
    agree(&copy, &models);
    assert!(copy.verify().unwrap().is_ok());
}

/// A flipped bit anywhere in the segments and footers of logs: the right entries, or an error that says
/// where; never others, never fewer.
#[test]
fn a_flipped_bit_is_an_error_or_nothing() {
    let (sim, options, models) = settled(120);
    let mut rng = Rng::new(7);
    let (mut at_open, mut at_read, mut harmless) = (0, 0, 0);
    for (path, len) in sim.files() {
        let kind = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if !matches!(kind, "journal" | "footer") {
            continue;
        }
        for _ in 0..60 {
            let (byte, bit) = (rng.below(len as usize), rng.below(8));
            let disk = sim.crash(1);
            disk.damage(&path, |bytes| bytes[byte] ^= 1 << bit).unwrap();
            let case = format!("bit {bit} of byte {byte} of {}", path.display());
            let db = match Db::open(DIR, options.clone().mapped(rng.one_in(2)).fs(Arc::new(disk))) {
                Ok(db) => db,
                Err(e) => {
                    assert!(e.is_corruption() && e.file().is_some(), "{case}: {e:?}");
                    at_open += 1;
                    continue;
                }
            };
            let logs = db.logs("raft").unwrap();
            let mut failed = false;
            for (id, model) in &models {
                let log = logs.log(*id);
                assert_eq!(log.bounds().unwrap(), model.first..model.next(), "{case}");
                for (index, (tag, bytes)) in (model.first..).zip(&model.entries) {
                    match log.get(index) {
                        Ok(entry) => {
                            let entry = entry.unwrap();
                            assert!(entry.tag() == *tag && entry.bytes() == bytes, "{case}");
                        }
                        Err(e) => {
                            assert!(e.is_corruption() && e.file() == Some(path.as_path()), "{case}: {e:?}");
                            assert!(e.offset().is_some(), "{case}: {e:?}");
                            failed = true;
                        }
                    }
                }
            }
            at_read += usize::from(failed);
            harmless += usize::from(!failed);
            if failed {
                assert!(!db.verify().unwrap().is_ok(), "{case}");
            }
        }
    }
    assert!(at_open > 0 && at_read > 0 && harmless > 0, "{at_open} {at_read} {harmless}");
}

fn run(seed: u64, steps: usize) {
    let mut rng = Rng::new(seed);
    let mut world = World::new(seed, options(&mut rng));
    for _ in 0..steps {
        world.step();
    }
    world.check();
    world.reopen();
}

#[test]
fn logs_are_what_the_model_says() {
    let seeds = match std::env::var("ESKER_LOG_SEED") {
        Ok(seed) => seed.parse().unwrap()..seed.parse::<u64>().unwrap() + 1,
        Err(_) => 0..40,
    };
    for seed in seeds {
        let result = std::panic::catch_unwind(|| run(seed, 400));
        if let Err(e) = result {
            eprintln!("ESKER_LOG_SEED={seed}");
            std::panic::resume_unwind(e);
        }
    }
}
