//! Power cuts at every operation of small workloads: whatever the simulated disk may be left with,
//! opening it gives a prefix of the commits that holds all that was durable, and a database that
//! works.
//!
//! Which states are tried at each operation is sampled; `ESKER_CRASH=n` tries n times as many.

use crate::model::{Bytes, Change, Model, Range, State};
use crate::rng::Rng;
use crate::state::Later;
use crate::state::{small, state};
use esker::fs::sim::SimFs;
use esker::{Compression, Db, Durability, Keyspace, KeyspaceOptions, Options};
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

const DIR: &str = "/db";
const ALL: Range = (Bound::Unbounded, Bound::Unbounded);

/// A run of the workload, and what was promised at which operation of the disk.
struct World {
    sim: Arc<SimFs>,
    options: Options,
    db: Option<Db>,
    model: Model,
    /// (operations when the call began, operations when it returned) of each commit.
    calls: Vec<(u64, u64)>,
    /// From this many operations on, so many commits are durable.
    durable: Vec<(u64, usize)>,
}

impl World {
    fn new(options: Options) -> World {
        let sim = Arc::new(SimFs::new(1));
        let options = options.fs(sim.clone());
        let mut world =
            World { sim, options, db: None, model: Model::default(), calls: Vec::new(), durable: Vec::new() };
        world.open();
        world
    }

    fn open(&mut self) {
        self.db = Some(Db::open(DIR, self.options.clone()).unwrap());
    }

    fn db(&self) -> &Db {
        self.db.as_ref().unwrap()
    }

    fn reopen(&mut self) {
        self.db.take().unwrap().close().unwrap();
        self.open();
    }

    fn keyspace(&self, name: &str) -> (Keyspace, usize) {
        let space = self.model.space(name, self.model.now()).unwrap();
        (self.db().keyspace(name).unwrap(), space)
    }

    /// Runs one call that commits `changes`.
    fn commit(&mut self, changes: Vec<Change>, call: impl FnOnce(&Db)) {
        let began = self.sim.ops();
        call(self.db());
        let seq = self.db().visible_seq().get();
        self.model.commit(seq, changes);
        self.calls.push((began, self.sim.ops()));
        self.note_durable();
    }

    /// What the database says is durable is a promise.
    fn note_durable(&mut self) {
        let durable = self.db().durable_seq().get();
        let at = (0..=self.model.now()).rev().find(|&at| self.model.seq(at) <= durable).unwrap();
        self.durable.push((self.sim.ops(), at));
    }

    fn create(&mut self, name: &str) {
        let options = KeyspaceOptions::default().block_bytes(256).compression(Compression::None);
        self.commit(vec![Change::Create(name.into())], |db| {
            db.keyspace_with(name, options).unwrap();
        });
    }

    fn drop_keyspace(&mut self, name: &str) {
        self.commit(vec![Change::Drop(name.into())], |db| db.drop_keyspace(name).unwrap());
    }

    fn replace(&mut self, target: &str, staging: &str) {
        let (to, from) = (self.keyspace(target).0, self.keyspace(staging).0);
        self.commit(vec![Change::Replace(target.into(), staging.into())], |db| {
            db.batch().replace(&to, &from).commit().unwrap();
        });
    }

    fn put(&mut self, name: &str, key: &str, value: Bytes) {
        let (keyspace, space) = self.keyspace(name);
        let change = Change::Put(space, key.into(), value.clone());
        self.commit(vec![change], |_| {
            keyspace.put(key, value).unwrap();
        });
    }

    /// A batch over several keyspaces, in which each gets the same rows.
    fn put_all(&mut self, names: &[&str], keys: std::ops::Range<usize>, len: usize) {
        let mut changes = Vec::new();
        let mut batch = self.db().batch();
        for name in names {
            let (keyspace, space) = self.keyspace(name);
            for key in keys.clone() {
                let (key, value) = (format!("key{key:04}"), value(self.model.now() + key, len));
                batch.put(&keyspace, &key, &value);
                changes.push(Change::Put(space, key.into(), value));
            }
        }
        self.commit(changes, |_| {
            batch.commit().unwrap();
        });
    }

    fn delete_range(&mut self, name: &str, range: Range) {
        let (keyspace, space) = self.keyspace(name);
        self.commit(vec![Change::DeleteRange(space, range.clone())], |_| {
            keyspace.delete_range(range).unwrap();
        });
    }

    fn clear(&mut self, name: &str) {
        let (keyspace, space) = self.keyspace(name);
        self.commit(vec![Change::DeleteRange(space, ALL)], |_| {
            keyspace.clear().unwrap();
        });
    }

    fn sync(&mut self) {
        self.db().sync().unwrap();
        self.note_durable();
        assert_eq!(self.durable.last().unwrap().1, self.model.now(), "sync makes all commits durable");
    }

    fn flush(&mut self) {
        self.db().flush().unwrap();
        self.note_durable();
    }

    fn settle(&mut self) {
        while self.db().step().unwrap() {}
        self.note_durable();
    }
}

fn value(seed: usize, len: usize) -> Bytes {
    let mut rng = Rng::new(seed as u64);
    (0..len).map(|_| rng.next() as u8).collect()
}

/// The check of one finished workload.
struct Cuts<'a> {
    name: &'a str,
    world: &'a World,
    states: Vec<State>,
    rng: Rng,
    tried: usize,
    nested: usize,
}

impl Cuts<'_> {
    /// The number of commits that must be there when so many operations were done. `process`: only
    /// the process died, so that returned commits count too.
    fn least(&self, op: u64, process: bool) -> usize {
        let durable = self.world.durable.iter().filter(|(at, _)| *at <= op).map(|(_, n)| *n).max();
        let returned = self.world.calls.iter().filter(|(_, end)| process && *end <= op).count();
        durable.unwrap_or(0).max(returned)
    }

    /// The number of commits that may be there: those whose call had begun.
    fn most(&self, op: u64) -> usize {
        self.world.calls.iter().filter(|(begin, _)| *begin < op).count()
    }

    /// Opens what a cut left behind. Answers which prefix of the commits it holds.
    fn open(&self, disk: &Arc<SimFs>, least: usize, most: usize, what: &str) -> (Db, usize) {
        let options = self.world.options.clone().fs(disk.clone());
        let db = match Db::open(DIR, options) {
            Ok(db) => db,
            Err(e) => panic!("{}: {what}: {e:?}", self.name),
        };
        let found = state(&db);
        let Some(at) = (least..=most).rev().find(|&at| self.states[at] == found) else {
            let other = self.states.iter().position(|s| *s == found);
            panic!(
                "{}: {what}: not the state after {least} to {most} commits{}",
                self.name,
                other.map_or(" nor any other".into(), |n| format!(", but after {n}")),
            );
        };
        (db, at)
    }

    fn cut(&mut self, op: u64, choice: u64) {
        // Choice 1 keeps everything that was written: the process died, not the machine.
        let (least, most) = (self.least(op, choice == 1), self.most(op));
        let what = format!("cut at operation {op}, choice {choice}");
        let disk = Arc::new(self.world.sim.crash_at(op, choice));
        let (db, at) = self.open(&disk, least, most, &what);
        self.tried += 1;
        let recovery = disk.ops();
        let durable = db.durable_seq() >= db.visible_seq();

        // It works, and a commit it calls durable survives the hardest cut.
        let more = db.keyspace("more").unwrap();
        for key in ["one", "two", "three"] {
            more.put(key, &what).unwrap();
        }
        db.sync().unwrap();
        let mut expected = self.states[at].clone();
        let rows = ["one", "two", "three"].map(|key| (key.as_bytes().to_vec(), what.clone().into_bytes()));
        expected.insert("more".into(), rows.into());
        let again = Arc::new(disk.crash_at(disk.ops(), 0));
        drop(db);
        let db = Db::open(DIR, self.world.options.clone().fs(again)).unwrap();
        assert!(state(&db) == expected, "{}: {what}: later commits are lost", self.name);
        drop(db);

        // Cut again, in the middle of recovering.
        if self.rng.one_in(3) && recovery > 0 {
            let op2 = 1 + self.rng.below(recovery as usize) as u64;
            let choice2 = self.rng.below(disk.states_at(op2) as usize) as u64;
            let least = if op2 == recovery && durable { at } else { self.least(op, false) };
            let what = format!("{what}, then at {op2} of {recovery}, choice {choice2}");
            let disk2 = Arc::new(disk.crash_at(op2, choice2));
            self.open(&disk2, least, most, &what);
            self.nested += 1;
        }
    }
}

/// Cuts the power at every operation of `world`, about `budget` times in all.
fn cut_everywhere(name: &str, world: World, budget: usize) {
    let more: usize = std::env::var("ESKER_CRASH").map_or(1, |n| n.parse().expect("ESKER_CRASH is a number"));
    let states = (0..=world.model.now()).map(|at| world.model.state(at)).collect();
    let ops = world.sim.ops();
    let mut cuts = Cuts { name, world: &world, states, rng: Rng::new(7), tried: 0, nested: 0 };
    let per_op = ((budget * more) as u64 / (ops + 1)).max(2);
    let mut possible = 0;
    for op in 0..=ops {
        let states = world.sim.states_at(op);
        possible += states;
        if states <= per_op {
            (0..states).for_each(|choice| cuts.cut(op, choice));
        } else {
            cuts.cut(op, 0);
            cuts.cut(op, 1);
            for _ in 2..per_op {
                let choice = 2 + cuts.rng.below(states as usize - 2) as u64;
                cuts.cut(op, choice);
            }
        }
    }
    println!(
        "{name}: {ops} operations, {} of {possible} states, {} cuts in recovery, {} commits",
        cuts.tried,
        cuts.nested,
        world.model.now()
    );
}

/// The ways to write a journal.
fn ways() -> [(&'static str, Options); 3] {
    [
        ("sync", small().durability(Durability::Sync)),
        ("buffered", small().durability(Durability::Buffered)),
        ("mapped", small().durability(Durability::Buffered).mapped(true)),
    ]
}

/// Runs a workload in each way, and cuts it everywhere.
fn try_all(name: &str, budget: usize, workload: impl Fn(&mut World)) {
    for (way, options) in ways() {
        let mut world = World::new(options);
        workload(&mut world);
        cut_everywhere(&format!("{name}, {way}"), world, budget);
    }
}

#[test]
fn cuts_in_creation_and_first_commits() {
    try_all("first commits", 400, |w| {
        w.create("a");
        w.put("a", "k", b"1".into());
        w.put("a", "k", b"2".into());
        w.sync();
        w.put("a", "l", value(3, 700));
    });
}

#[test]
fn cuts_in_a_journal_that_rotates() {
    try_all("rotation", 500, |w| {
        w.create("a");
        w.create("b");
        for i in 0..24 {
            w.put_all(&["a", "b"], i..i + 2, 600);
            if i % 7 == 3 {
                w.sync();
            }
        }
    });
}

#[test]
fn cuts_in_a_batch_larger_than_a_segment() {
    try_all("large batch", 300, |w| {
        w.create("a");
        w.put("a", "before", b"1".into());
        w.put_all(&["a"], 0..30, 1000);
        w.put("a", "behind", b"1".into());
        w.sync();
        w.put_all(&["a"], 10..40, 1000);
    });
}

#[test]
fn cuts_in_flushes_and_merges() {
    try_all("flush and merge", 600, |w| {
        w.create("a");
        w.create("b");
        for round in 0..6 {
            w.put_all(&["a"], round * 3..round * 3 + 8, 120);
            w.put("b", "round", value(round, 20));
            w.flush();
            w.settle();
        }
        w.keyspace("a").0.compact(ALL).unwrap();
        w.note_durable();
        w.put("a", "end", b"1".into());
    });
}

#[test]
fn cuts_in_many_manifest_edits() {
    try_all("manifest", 600, |w| {
        w.create("a");
        for i in 0..40 {
            w.put("a", &format!("k{}", i % 10), value(i, 30));
            w.flush();
            if i % 8 == 7 {
                w.settle();
            }
        }
    });
}

#[test]
fn cuts_in_changes_of_the_catalog() {
    try_all("catalog", 600, |w| {
        for round in 0..3 {
            w.create("a");
            w.put_all(&["a"], 0..5, 50);
            w.flush();
            w.create("staging");
            w.put_all(&["staging"], 3..9, 50);
            if round == 1 {
                w.flush();
            }
            w.replace("a", "staging");
            w.put("a", "after", value(round, 10));
            w.settle();
            w.drop_keyspace("a");
            w.settle();
        }
    });
}

#[test]
fn cuts_around_range_deletes() {
    try_all("range deletes", 500, |w| {
        w.create("a");
        w.put_all(&["a"], 0..20, 60);
        w.flush();
        let cut = |a: &str, b: &str| (Bound::Included(a.into()), Bound::Excluded(b.into()));
        w.delete_range("a", cut("key0003", "key0011"));
        w.put("a", "key0005", b"again".into());
        w.flush();
        w.delete_range("a", cut("key0015", "zzz"));
        w.settle();
        w.clear("a");
        w.put("a", "key0001", b"anew".into());
        w.flush();
        w.settle();
    });
}

#[test]
fn cuts_in_closing_and_opening_again() {
    try_all("reopening", 500, |w| {
        w.create("a");
        for round in 0..3 {
            w.put_all(&["a"], round..round + 4, 200);
            w.put("a", "round", value(round, 20));
            if round == 1 {
                w.flush();
            }
            w.reopen();
            w.note_durable();
        }
        w.put("a", "end", b"1".into());
    });
}

/// The check itself: what it must not accept.
#[test]
fn a_lost_commit_would_be_noticed() {
    let mut world = World::new(small());
    world.create("a");
    world.put("a", "k", b"1".into());
    let ops = world.sim.ops();
    let states: Vec<State> = (0..=world.model.now()).map(|at| world.model.state(at)).collect();
    let cuts = Cuts { name: "control", world: &world, states, rng: Rng::new(7), tried: 0, nested: 0 };
    assert_eq!((cuts.least(ops, false), cuts.most(ops)), (2, 2));
    // The state before the last operations is not one with both commits.
    let early = Arc::new(world.sim.crash_at(world.calls[1].0, 0));
    let opened =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cuts.open(&early, 2, 2, "control").1));
    assert!(opened.is_err());
    assert!(Path::new(DIR).is_absolute());
}
