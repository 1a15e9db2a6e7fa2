//! Random operations on the engine and on the model, step by step the same answers.
//!
//! `ESKER_SEEDS=a..b` runs other seeds than the few fixed ones, `ESKER_OPS=n` more steps per seed.

use super::{Change, Model, Range, empty, show, show_range};
use crate::rng::Rng;
use crate::state::Bytes;
use esker::fs::sim::SimFs;
use esker::{
    Batch, Compression, Db, Durability, ErrorKind, Expect, Keyspace, KeyspaceOptions, KeyspaceView, Options,
    Snapshot, Value,
};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The read verbs, which a keyspace and a keyspace at a snapshot share.
trait Reads {
    fn get(&self, key: &[u8]) -> esker::Result<Option<Value>>;
    fn contains(&self, key: &[u8]) -> esker::Result<bool>;
    fn multi_get(&self, keys: &[Bytes]) -> esker::Result<Vec<Option<Value>>>;
    fn get_with(&self, key: &[u8]) -> esker::Result<Option<Bytes>>;
    fn get_into(&self, key: &[u8], buf: &mut Vec<u8>) -> esker::Result<bool>;
    fn range(&self, range: Range) -> esker::Iter;
    fn prefix(&self, prefix: &[u8]) -> esker::Iter;
    fn iter(&self) -> esker::Iter;
    fn cursor(&self, range: Range) -> esker::Cursor;
}

/// Keyspaces by name, with their numbers in the model.
type Live = BTreeMap<String, (Keyspace, usize)>;

macro_rules! reads {
    ($($name:ty),*) => {$(
        impl Reads for $name {
            fn get(&self, key: &[u8]) -> esker::Result<Option<Value>> {
                <$name>::get(self, key)
            }
            fn contains(&self, key: &[u8]) -> esker::Result<bool> {
                <$name>::contains(self, key)
            }
            fn multi_get(&self, keys: &[Bytes]) -> esker::Result<Vec<Option<Value>>> {
                <$name>::multi_get(self, keys)
            }
            fn get_with(&self, key: &[u8]) -> esker::Result<Option<Bytes>> {
                <$name>::get_with(self, key, |bytes| bytes.to_vec())
            }
            fn get_into(&self, key: &[u8], buf: &mut Vec<u8>) -> esker::Result<bool> {
                <$name>::get_into(self, key, buf)
            }
            fn range(&self, range: Range) -> esker::Iter {
                <$name>::range(self, range)
            }
            fn prefix(&self, prefix: &[u8]) -> esker::Iter {
                <$name>::prefix(self, prefix)
            }
            fn iter(&self) -> esker::Iter {
                <$name>::iter(self)
            }
            fn cursor(&self, range: Range) -> esker::Cursor {
                <$name>::cursor(self, range)
            }
        }
    )*};
}
reads!(Keyspace, KeyspaceView);

struct Run {
    seed: u64,
    rng: Rng,
    dir: PathBuf,
    /// `None`: the real file system.
    sim: Option<SimFs>,
    db: Option<Db>,
    model: Model,
    live: Live,
    /// Handles of keyspaces that were dropped.
    dropped: Vec<Keyspace>,
    /// Snapshots with their points in time, and the keyspaces of that time.
    kept: Vec<(Snapshot, usize, Live)>,
    trail: VecDeque<String>,
    steps: usize,
}

impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}, step {}; the last steps:", self.seed, self.steps);
            for step in &self.trail {
                eprintln!("  {step}");
            }
        }
    }
}

const NAMES: [&str; 4] = ["alpha", "beta", "gamma", "a rather long name for a keyspace"];

impl Run {
    fn new(seed: u64, dir: &Path, sim: Option<SimFs>) -> Run {
        let mut run = Run {
            seed,
            rng: Rng::new(seed),
            dir: dir.to_path_buf(),
            sim,
            db: None,
            model: Model::default(),
            live: Live::new(),
            dropped: Vec::new(),
            kept: Vec::new(),
            trail: VecDeque::new(),
            steps: 0,
        };
        run.open();
        run.resume();
        run
    }

    fn db(&self) -> &Db {
        self.db.as_ref().unwrap()
    }

    fn note(&mut self, step: String) {
        if self.trail.len() == 30 {
            self.trail.pop_front();
        }
        self.trail.push_back(step);
    }

    /// Opens the database with options drawn anew.
    fn open(&mut self) {
        let rng = &mut self.rng;
        let segment = 16 << (10 + rng.below(4));
        let mut options = Options::default()
            .durability(*rng.pick(&[Durability::Sync, Durability::Buffered, Durability::Buffered]))
            .memtable_bytes(1 << (10 + rng.below(6)))
            .segment_bytes(segment)
            .journal_bytes(segment * (2 + rng.below(6) as u64))
            .table_bytes(1 << (10 + rng.below(6)))
            .cache_bytes(*rng.pick(&[0, 4 << 10, 1 << 20]))
            .mapped(rng.one_in(2))
            .workers(*rng.pick(&[0, 0, 2]));
        self.note(format!("open {options:?}"));
        if let Some(sim) = &self.sim {
            options = options.fs(Arc::new(sim.clone()));
        }
        self.db = Some(Db::open(&self.dir, options).unwrap());
    }

    /// Takes up the handles after opening, and checks that everything is as the model has it.
    fn resume(&mut self) {
        let now = self.model.now();
        assert_eq!(self.db().visible_seq().get(), self.model.seq(now));
        let names: Vec<String> = self.db().names().unwrap().into_iter().map(|(name, _)| name).collect();
        let expected = self.model.names(now);
        assert_eq!(names, expected.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
        for (name, space) in expected {
            let handle = self.db().keyspace(&name).unwrap();
            self.live.insert(name, (handle, space));
        }
        self.check_all();
    }

    fn let_go(&mut self) -> Db {
        self.kept.clear();
        self.dropped.clear();
        self.live.clear();
        self.db.take().unwrap()
    }

    fn reopen(&mut self) {
        self.note("close".into());
        let db = self.let_go();
        if self.rng.one_in(2) {
            db.close().unwrap();
        } else {
            drop(db);
        }
        self.open();
        self.resume();
    }

    /// The power goes, and comes back: what is there is a prefix of the commits, and all that was
    /// durable.
    fn cut_power(&mut self) {
        let Some(sim) = self.sim.clone() else { return self.reopen() };
        let durable = self.db().durable_seq().get();
        let choice = self.rng.below(sim.states_at(sim.ops()) as usize + 1) as u64;
        self.note(format!("cut with {durable} durable, choice {choice}"));
        self.sim = Some(sim.crash(choice));
        drop(self.let_go());
        self.open();
        let found = self.db().visible_seq().get();
        let at = (0..=self.model.now()).find(|&at| self.model.seq(at) == found);
        let at = at.unwrap_or_else(|| panic!("no commit ended with {found}"));
        assert!(found >= durable, "{found} is visible, {durable} was durable");
        self.model.cut(at);
        self.resume();
    }

    /// Every row of every keyspace, forward and backward.
    fn check_all(&self) {
        for (keyspace, space) in self.live.values() {
            let expected = self.model.all(*space, self.model.now());
            let found: Vec<_> = keyspace.iter().map(row).collect();
            assert_eq!(found, expected, "forward");
            let mut found: Vec<_> = keyspace.iter().rev().map(row).collect();
            found.reverse();
            assert_eq!(found, expected, "backward");
        }
    }

    fn step(&mut self) {
        self.steps += 1;
        match self.rng.below(100) {
            0..40 => self.write(),
            40..55 => self.read_points(),
            55..70 => self.read_range(),
            70..80 => self.walk_cursor(),
            80..83 => self.keep_snapshot(),
            83..86 => self.drop_snapshot(),
            86..91 => self.change_catalog(),
            91..93 => self.conditions(),
            93 => {
                self.note("sync".into());
                self.db().sync().unwrap();
                assert!(self.db().durable_seq().get() >= self.model.seq(self.model.now()));
            }
            94..96 => {
                self.note("flush".into());
                self.db().flush().unwrap();
            }
            96 => {
                self.note("settle".into());
                self.db().flush().unwrap();
                while self.db().step().unwrap() {}
            }
            97 => {
                self.note("step".into());
                while self.db().step().unwrap() {}
            }
            98 if self.rng.one_in(2) => self.cut_power(),
            99 if self.rng.one_in(2) => self.reopen(),
            _ => self.write(),
        }
    }

    fn some_keyspace(&mut self) -> Option<(Keyspace, usize)> {
        let all: Vec<_> = self.live.values().cloned().collect();
        (!all.is_empty()).then(|| self.rng.pick(&all).clone())
    }

    /// A keyspace as it is now, or as a snapshot sees it; with its number and point in time.
    fn some_reader(&mut self) -> Option<(Box<dyn Reads>, usize, usize)> {
        if !self.kept.is_empty() && self.rng.one_in(2) {
            let (snapshot, at, live) = &self.kept[self.rng.below(self.kept.len())];
            let all: Vec<_> = live.values().collect();
            if all.is_empty() {
                return None;
            }
            let (keyspace, space) = *self.rng.pick(&all);
            return Some((Box::new(keyspace.at(snapshot)), *space, *at));
        }
        let (keyspace, space) = self.some_keyspace()?;
        Some((Box::new(keyspace), space, self.model.now()))
    }

    fn some_bound(&mut self) -> Bound<Bytes> {
        match self.rng.below(5) {
            0 => Bound::Unbounded,
            1 | 2 => Bound::Included(self.rng.key()),
            _ => Bound::Excluded(self.rng.key()),
        }
    }

    /// A range that is not reversed, though maybe empty.
    fn some_range(&mut self) -> Range {
        loop {
            let range = (self.some_bound(), self.some_bound());
            if !empty(&range) {
                return range;
            }
        }
    }

    fn write(&mut self) {
        let Some((keyspace, space)) = self.some_keyspace() else { return self.change_catalog() };
        let before = self.model.seq(self.model.now());
        let (key, value) = (self.rng.key(), self.rng.value());
        let (seq, changes) = match self.rng.below(20) {
            0..5 => (keyspace.put(&key, &value).unwrap(), vec![Change::Put(space, key, value)]),
            5..7 => (keyspace.delete(&key).unwrap(), vec![Change::Delete(space, key)]),
            7 => {
                let range = self.some_range();
                (keyspace.delete_range(range.clone()).unwrap(), vec![Change::DeleteRange(space, range)])
            }
            8 if self.rng.one_in(4) => {
                let all = (Bound::Unbounded, Bound::Unbounded);
                (keyspace.clear().unwrap(), vec![Change::DeleteRange(space, all)])
            }
            _ => return self.write_batch(),
        };
        self.note(format!("{seq}: {changes:?}"));
        assert_eq!(seq.get(), before + 1);
        self.model.commit(seq.get(), changes);
    }

    fn write_batch(&mut self) {
        let before = self.model.seq(self.model.now());
        let mut batch = self.db().batch();
        let mut changes = Vec::new();
        let len = if self.rng.one_in(20) { 100 } else { 1 + self.rng.below(8) };
        for _ in 0..len {
            let (keyspace, space) = self.some_keyspace().unwrap();
            let key = self.rng.key();
            match self.rng.below(12) {
                0..8 => {
                    let value = self.rng.value();
                    batch.put(&keyspace, &key, &value);
                    changes.push(Change::Put(space, key, value));
                }
                8..11 => {
                    batch.delete(&keyspace, &key);
                    changes.push(Change::Delete(space, key));
                }
                _ => {
                    let range = self.some_range();
                    batch.delete_range(&keyspace, range.clone());
                    changes.push(Change::DeleteRange(space, range));
                }
            }
        }
        assert_eq!(batch.len(), changes.len());
        let seq = self.commit(&mut batch);
        self.note(format!("{seq}: {changes:?}"));
        assert_eq!(seq, before + changes.len() as u64);
        assert!(batch.is_empty());
        self.model.commit(seq, changes);
    }

    /// Commits in one of the four ways.
    fn commit(&mut self, batch: &mut Batch) -> u64 {
        let seq = match self.rng.below(6) {
            0 => batch.commit_with(Durability::Sync).unwrap(),
            1 => batch.commit_with(Durability::Buffered).unwrap(),
            2 => {
                let ticket = batch.submit().unwrap();
                assert!(self.db().visible_seq() >= ticket.seq());
                if self.rng.one_in(2) {
                    assert_eq!(ticket.wait().unwrap(), ticket.seq());
                    assert!(self.db().durable_seq() >= ticket.seq());
                }
                ticket.seq()
            }
            _ => batch.commit().unwrap(),
        };
        assert!(self.db().visible_seq() >= seq);
        seq.get()
    }

    fn read_points(&mut self) {
        let Some((reader, space, at)) = self.some_reader() else { return };
        let keys: Vec<Bytes> = (0..1 + self.rng.below(6)).map(|_| self.rng.key()).collect();
        self.note(format!("read {:?} of {space} at {at}", keys.iter().map(|k| show(k)).collect::<Vec<_>>()));
        let expected: Vec<_> = keys.iter().map(|key| self.model.get(space, key, at)).collect();
        for (key, expected) in keys.iter().zip(&expected) {
            assert_eq!(reader.get(key).unwrap().map(Value::into_vec), *expected, "get {key:?}");
            assert_eq!(reader.contains(key).unwrap(), expected.is_some(), "contains {key:?}");
            assert_eq!(reader.get_with(key).unwrap(), *expected, "get_with {key:?}");
            let mut buf = b"before".to_vec();
            let there = reader.get_into(key, &mut buf).unwrap();
            assert_eq!(there, expected.is_some(), "get_into {key:?}");
            if let Some(expected) = expected {
                assert_eq!(buf, *expected);
            }
        }
        let found: Vec<_> =
            reader.multi_get(&keys).unwrap().into_iter().map(|v| v.map(Value::into_vec)).collect();
        assert_eq!(found, expected, "multi_get {keys:?}");
    }

    fn read_range(&mut self) {
        let Some((reader, space, at)) = self.some_reader() else { return };
        let (range, entries) = match self.rng.below(8) {
            0 => ((Bound::Unbounded, Bound::Unbounded), reader.iter()),
            1 | 2 => {
                let mut prefix = self.rng.key();
                prefix.truncate(self.rng.below(8));
                let range = prefix_range(&prefix);
                (range, reader.prefix(&prefix))
            }
            _ => {
                let range = self.some_range();
                (range.clone(), reader.range(range))
            }
        };
        self.note(format!("range {} of {space} at {at}", show_range(&range)));
        let expected = self.model.range(space, &range, at);
        let mut entries = entries.map(row);
        let (mut front, mut back) = (Vec::new(), Vec::new());
        // Forward, backward, or both in turn until they meet.
        let way = self.rng.below(3);
        loop {
            let forward = way == 0 || way == 2 && self.rng.one_in(2);
            match if forward { entries.next() } else { entries.next_back() } {
                Some(row) if forward => front.push(row),
                Some(row) => back.push(row),
                None => break,
            }
        }
        assert!(entries.next().is_none() && entries.next_back().is_none());
        back.reverse();
        front.extend(back);
        assert_eq!(front, expected, "way {way}");
    }

    fn walk_cursor(&mut self) {
        let Some((reader, space, at)) = self.some_reader() else { return };
        let range = self.some_range();
        self.note(format!("cursor {} of {space} at {at}", show_range(&range)));
        let expected = self.model.range(space, &range, at);
        let mut cursor = reader.cursor(range);
        // The cursor stands before the entry of this number.
        let mut gap = 0;
        for _ in 0..self.rng.below(40) {
            match self.rng.below(5) {
                0 => {
                    let key = self.rng.key();
                    cursor.seek(&key).unwrap();
                    gap = expected.partition_point(|(k, _)| *k < key);
                }
                1 | 2 => {
                    let found = cursor.next().unwrap().map(|(k, v)| (k.to_vec(), v.to_vec()));
                    assert_eq!(found.as_ref(), expected.get(gap), "next at {gap}");
                    gap = (gap + 1).min(expected.len());
                }
                _ => {
                    let found = cursor.prev().unwrap().map(|(k, v)| (k.to_vec(), v.to_vec()));
                    let before = gap.checked_sub(1);
                    assert_eq!(found.as_ref(), before.map(|i| &expected[i]), "prev at {gap}");
                    gap = before.unwrap_or(0);
                }
            }
        }
    }

    fn keep_snapshot(&mut self) {
        let now = self.model.now();
        self.note(format!("snapshot at {now}"));
        let snapshot = self.db().snapshot();
        assert_eq!(snapshot.seq().get(), self.model.seq(now));
        self.kept.push((snapshot, now, self.live.clone()));
        if self.kept.len() > 5 {
            self.drop_snapshot();
        }
    }

    /// Reads one kept snapshot wholly, then lets go of it.
    fn drop_snapshot(&mut self) {
        if self.kept.is_empty() {
            return;
        }
        let (snapshot, at, live) = self.kept.swap_remove(self.rng.below(self.kept.len()));
        self.note(format!("end of the snapshot at {at}"));
        for (keyspace, space) in live.values() {
            let found: Vec<_> = keyspace.at(&snapshot).iter().map(row).collect();
            assert_eq!(found, self.model.all(*space, at));
        }
    }

    fn change_catalog(&mut self) {
        let name = self.rng.pick(&NAMES).to_string();
        if !self.live.contains_key(&name) {
            let options = KeyspaceOptions::default()
                .compression(*self.rng.pick(&[Compression::None, Compression::Lz4]))
                .block_bytes(*self.rng.pick(&[64, 256, 4096]))
                .filter_bits(*self.rng.pick(&[0, 4, 10]));
            self.note(format!("create {name}"));
            let keyspace = self.db().keyspace_with(&name, options).unwrap();
            let seq = self.db().visible_seq().get();
            let at = self.model.commit(seq, vec![Change::Create(name.clone())]);
            self.live.insert(name.clone(), (keyspace, self.model.space(&name, at).unwrap()));
        } else if self.rng.one_in(2) {
            self.note(format!("drop {name}"));
            self.db().drop_keyspace(&name).unwrap();
            let seq = self.db().visible_seq().get();
            self.model.commit(seq, vec![Change::Drop(name.clone())]);
            let (keyspace, _) = self.live.remove(&name).unwrap();
            self.dropped.push(keyspace);
        } else {
            let other = self.rng.pick(&NAMES).to_string();
            if other != name && self.live.contains_key(&other) {
                self.replace(&name, &other);
            }
        }
        for keyspace in &self.dropped {
            assert_eq!(keyspace.get(b"k").unwrap_err().kind(), ErrorKind::Closed);
            assert_eq!(keyspace.put(b"k", b"v").unwrap_err().kind(), ErrorKind::Closed);
        }
    }

    fn replace(&mut self, target: &str, staging: &str) {
        self.note(format!("replace {target} by {staging}"));
        let mut batch = self.db().batch();
        batch.replace(&self.live[target].0, &self.live[staging].0);
        let seq = self.commit(&mut batch);
        self.model.commit(seq, vec![Change::Replace(target.into(), staging.into())]);
        let (keyspace, _) = self.live.remove(staging).unwrap();
        self.dropped.push(keyspace);
    }

    /// A batch with a condition: committed if it holds, else a conflict that leaves no trace.
    fn conditions(&mut self) {
        let Some((keyspace, space)) = self.some_keyspace() else { return };
        let now = self.model.now();
        let (key, value) = (self.rng.key(), self.rng.value());
        let there = self.model.get(space, &key, now);
        let snapshot = self.db().snapshot();
        let mut batch = self.db().batch();
        let holds = match self.rng.below(6) {
            0 => {
                batch.require(&keyspace, &key, Expect::Absent);
                there.is_none()
            }
            1 => {
                batch.require(&keyspace, &key, Expect::Present);
                there.is_some()
            }
            2 => {
                batch.require(&keyspace, &key, Expect::Value(&value));
                there.as_ref() == Some(&value)
            }
            3 => {
                let old = there.clone().unwrap_or_default();
                batch.require(&keyspace, &key, Expect::Value(&old));
                there.is_some()
            }
            4 => {
                batch.require(&keyspace, &key, Expect::Unchanged(&snapshot));
                true
            }
            _ => {
                let range = self.some_range();
                batch.require_range(&keyspace, range.clone(), Expect::Absent);
                self.model.range(space, &range, now).is_empty()
            }
        };
        batch.put(&keyspace, &key, &value);
        self.note(format!("condition on {} of {space}, which holds: {holds}", show(&key)));
        if holds {
            let seq = self.commit(&mut batch);
            self.model.commit(seq, vec![Change::Put(space, key, value)]);
        } else {
            assert_eq!(batch.commit().unwrap_err().kind(), ErrorKind::Conflict);
            assert_eq!(batch.len(), 1, "kept for a retry");
            assert_eq!(self.db().visible_seq().get(), self.model.seq(now));
        }
    }
}

/// An entry as a pair.
fn row(entry: esker::Result<esker::Entry>) -> (Bytes, Bytes) {
    let entry = entry.unwrap();
    (entry.key().to_vec(), entry.value().to_vec())
}

/// The keys that start with `prefix`, as a range.
fn prefix_range(prefix: &[u8]) -> Range {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return (Bound::Included(prefix.to_vec()), Bound::Excluded(end));
        }
    }
    (Bound::Included(prefix.to_vec()), Bound::Unbounded)
}

fn run(seed: u64, ops: usize, dir: &Path, sim: Option<SimFs>) {
    let mut run = Run::new(seed, dir, sim);
    for _ in 0..ops {
        run.step();
    }
    run.reopen();
}

/// The seeds to run: `few` fixed ones, or those of `ESKER_SEEDS`.
pub fn seeds(few: u64) -> std::ops::Range<u64> {
    let Ok(asked) = std::env::var("ESKER_SEEDS") else { return 0..few };
    let parsed = asked.split_once("..").and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    parsed.unwrap_or_else(|| panic!("ESKER_SEEDS is {asked:?}, not a..b"))
}

/// The steps per seed: `few`, or `ESKER_OPS`.
pub fn ops(few: usize) -> usize {
    let Ok(asked) = std::env::var("ESKER_OPS") else { return few };
    asked.parse().unwrap_or_else(|_| panic!("ESKER_OPS is {asked:?}, not a number"))
}

#[test]
fn random_operations_on_the_simulated_disk() {
    for seed in seeds(6) {
        run(seed, ops(400), Path::new("/db"), Some(SimFs::new(seed)));
    }
}

#[test]
fn random_operations_on_the_real_disk() {
    for seed in seeds(3) {
        let dir = tempfile::tempdir().unwrap();
        run(seed, ops(400), dir.path(), None);
    }
}
