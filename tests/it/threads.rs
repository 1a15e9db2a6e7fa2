//! Threads against each other, with everything so small that rotations, flushes and merges happen
//! all the time: money is moved between accounts, and none may appear or vanish in any state that
//! anybody sees, now or after a crash.

use crate::rng::Rng;
use esker::fs::Fs;
use esker::fs::sim::SimFs;
use esker::{Batch, Db, Durability, Expect, Keyspace, KeyspaceView, Options, Snapshot};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const ACCOUNTS: usize = 6;
const START: u64 = 1000;
const WRITERS: usize = 3;
/// Entries of the keyspace that is replaced as a whole.
const REPLACED: usize = 20;

fn options(durability: Durability) -> Options {
    Options::default()
        .workers(2)
        .durability(durability)
        .memtable_bytes(2 << 10)
        .segment_bytes(16 << 10)
        .journal_bytes(64 << 10)
        .table_bytes(2 << 10)
        .cache_bytes(8 << 10)
}

/// What everybody works on.
struct Bank {
    db: Db,
    /// Transfers go between these two, and within each.
    banks: [Keyspace; 2],
    /// Every transfer stays within: so that one scan must find all of it.
    alone: Keyspace,
    /// Replaced again and again; all entries are of one generation.
    replaced: Keyspace,
    done: AtomicBool,
    conflicts: AtomicU64,
}

fn account(n: usize) -> Vec<u8> {
    format!("account/{n}").into_bytes()
}

fn amount(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes[..8].try_into().unwrap())
}

/// The value of an account: what is in it, and something that fills memtables.
fn value(amount: u64, rng: &mut Rng) -> Vec<u8> {
    [&amount.to_be_bytes()[..], &vec![7; rng.below(100)]].concat()
}

impl Bank {
    fn open(db: Db) -> Bank {
        let keyspace = |name: &str| db.keyspace(name).unwrap();
        let bank = Bank {
            banks: [keyspace("one"), keyspace("two")],
            alone: keyspace("alone"),
            replaced: keyspace("replaced"),
            done: AtomicBool::new(false),
            conflicts: AtomicU64::new(0),
            db,
        };
        if bank.alone.iter().next().is_none() {
            let mut batch = bank.db.batch();
            for n in 0..ACCOUNTS {
                for keyspace in [&bank.banks[0], &bank.banks[1], &bank.alone] {
                    batch.put(keyspace, account(n), START.to_be_bytes());
                }
            }
            batch.commit_with(Durability::Sync).unwrap();
        }
        bank
    }

    /// Moves money between two accounts, if they are as they were read.
    fn transfer(&self, rng: &mut Rng, batch: &mut Batch, mark: &[u8], count: u64) -> bool {
        let (from, to) = match rng.below(3) {
            0 => (&self.alone, &self.alone),
            _ => (rng.pick(&self.banks), rng.pick(&self.banks)),
        };
        let (a, b) = (rng.below(ACCOUNTS), rng.below(ACCOUNTS));
        let (a_key, b_key) = (account(a), account(b));
        if a == b && from.name() == to.name() {
            return false;
        }
        let snapshot = rng.one_in(2).then(|| self.db.snapshot());
        let read = |keyspace: &Keyspace, key: &[u8]| match &snapshot {
            Some(snapshot) => keyspace.at(snapshot).get(key).unwrap().unwrap(),
            None => keyspace.get(key).unwrap().unwrap(),
        };
        let (had, has) = (read(from, &a_key), read(to, &b_key));
        let moved = amount(&had).min(1 + rng.below(20) as u64);
        batch.clear();
        batch.require(from, &a_key, as_read(&snapshot, &had)).require(to, &b_key, as_read(&snapshot, &has));
        if rng.one_in(4) {
            // Deleted and put again in one batch: never seen gone.
            batch.delete(from, &a_key).delete_range(to, esker::Prefix(&b_key));
        }
        batch.put(from, &a_key, value(amount(&had) - moved, rng));
        batch.put(to, &b_key, value(amount(&has) + moved, rng));
        batch.put(&self.banks[0], mark, count.to_be_bytes());
        let done = match rng.below(8) {
            0 => batch.commit_with(Durability::Sync).map(|_| ()),
            1 => batch.submit().and_then(|ticket| ticket.wait()).map(|_| ()),
            2 => batch.submit().map(|_| ()),
            _ => batch.commit_with(Durability::Buffered).map(|_| ()),
        };
        match done {
            Ok(()) => true,
            Err(e) => {
                assert!(e.is_conflict(), "{e:?}");
                self.conflicts.fetch_add(1, Ordering::Relaxed);
                false
            }
        }
    }

    fn write(&self, seed: u64, rounds: u64) {
        let mut rng = Rng::new(seed);
        let mut batch = self.db.batch();
        let mark = format!("mark/{seed}").into_bytes();
        let mut count = self.banks[0].get(&mark).unwrap().map_or(0, |v| amount(&v));
        for _ in 0..rounds {
            if self.transfer(&mut rng, &mut batch, &mark, count + 1) {
                count += 1;
            }
            assert_eq!(self.banks[0].get(&mark).unwrap().map_or(0, |v| amount(&v)), count, "own writes");
        }
    }

    /// Creates, fills, drops and replaces keyspaces.
    fn reshape(&self, seed: u64) {
        let mut rng = Rng::new(seed);
        let mut generation = self.replaced.get("00").unwrap().map_or(0, |v| amount(&v));
        while !self.done.load(Ordering::SeqCst) {
            let name = format!("passing/{}", rng.below(3));
            let passing = self.db.keyspace(&name).unwrap();
            for n in 0..rng.below(40) {
                passing.put(n.to_be_bytes(), [1; 50]).unwrap();
            }
            let snapshot = self.db.snapshot();
            let before = passing.iter().count();
            self.db.drop_keyspace(&name).unwrap();
            assert!(passing.put("k", "v").is_err());
            assert_eq!(passing.at(&snapshot).iter().count(), before);
            generation += 1;
            let staging = self.db.keyspace("staging").unwrap();
            for n in 0..REPLACED {
                staging.put(format!("{n:02}"), value(generation, &mut rng)).unwrap();
            }
            let mut batch = self.db.batch();
            batch.replace(&self.replaced, &staging).put(&self.replaced, "after", generation.to_be_bytes());
            batch.commit().unwrap();
            assert_eq!(self.replaced.get("00").unwrap().map(|v| amount(&v)), Some(generation));
            if rng.one_in(4) {
                self.db.flush().unwrap();
            }
        }
    }

    fn read(&self, seed: u64) {
        let mut rng = Rng::new(seed);
        let mut kept: Vec<Snapshot> = Vec::new();
        while !self.done.load(Ordering::SeqCst) {
            match rng.below(4) {
                0 => assert_eq!(sum_of(self.alone.iter()), total(1)),
                1 => assert_eq!(sum_of(self.alone.iter().rev()), total(1)),
                2 => {
                    let mut cursor = self.alone.cursor(..);
                    let mut sum = 0;
                    while let Some((_, value)) = cursor.next().unwrap() {
                        sum += amount(value);
                    }
                    assert_eq!(sum, total(1));
                }
                _ => {
                    let mut both = self.alone.iter();
                    let (mut sum, mut front) = (0, true);
                    while let Some(entry) = if front { both.next() } else { both.next_back() } {
                        sum += amount(entry.unwrap().value());
                        front = rng.one_in(2);
                    }
                    assert_eq!(sum, total(1));
                }
            }
            kept.push(if rng.one_in(2) { self.db.snapshot() } else { self.db.durable_snapshot() });
            if kept.len() > 4 {
                kept.swap_remove(rng.below(4));
            }
            self.check(rng.pick(&kept));
        }
    }

    /// What must hold of every point in the order of commits since the first.
    fn check(&self, snapshot: &Snapshot) {
        let at = |keyspace: &Keyspace| sum_of_accounts(&keyspace.at(snapshot));
        assert_eq!(at(&self.banks[0]) + at(&self.banks[1]), total(2), "{snapshot:?}");
        assert_eq!(at(&self.alone), total(1), "{snapshot:?}");
        let replaced = self.replaced.at(snapshot);
        let generations: Vec<u64> = replaced.iter().map(|e| amount(e.unwrap().value())).collect();
        assert!(generations.is_empty() || generations.len() == REPLACED + 1, "{snapshot:?}");
        assert!(generations.windows(2).all(|w| w[0] == w[1]), "{snapshot:?}: {generations:?}");
    }

    /// How many transfers each writer has made.
    fn marks(&self) -> Vec<(esker::Value, esker::Value)> {
        self.banks[0].prefix("mark/").map(|e| e.unwrap().into_parts()).collect()
    }

    /// All threads at once, until the writers have done their rounds.
    fn run(&self, seed: u64, rounds: u64) {
        std::thread::scope(|s| {
            let writers: Vec<_> =
                (0..WRITERS as u64).map(|n| s.spawn(move || self.write(seed * 100 + n, rounds))).collect();
            let others = [s.spawn(|| self.reshape(seed + 50)), s.spawn(|| self.read(seed + 60))];
            let written: Vec<_> = writers.into_iter().map(|w| w.join()).collect();
            self.done.store(true, Ordering::SeqCst);
            for end in written.into_iter().chain(others.map(|o| o.join())) {
                end.unwrap();
            }
        });
        self.check(&self.db.snapshot());
    }
}

fn total(keyspaces: u64) -> u64 {
    keyspaces * ACCOUNTS as u64 * START
}

fn sum_of(entries: impl Iterator<Item = esker::Result<esker::Entry>>) -> u64 {
    entries.map(|e| amount(e.unwrap().value())).sum()
}

fn sum_of_accounts(view: &KeyspaceView) -> u64 {
    sum_of(view.prefix("account/"))
}

fn as_read<'a>(snapshot: &'a Option<Snapshot>, value: &'a [u8]) -> Expect<'a> {
    match snapshot {
        Some(snapshot) => Expect::Unchanged(snapshot),
        None => Expect::Value(value),
    }
}

#[test]
fn no_money_appears_or_vanishes() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..4 {
        let durability = if round % 2 == 0 { Durability::Buffered } else { Durability::Sync };
        let options = options(durability).mapped(round < 2);
        let bank = Bank::open(Db::open(dir.path(), options.clone()).unwrap());
        bank.run(round, if durability == Durability::Sync { 60 } else { 400 });
        let marks = bank.marks();
        bank.db.clone().close().unwrap();
        drop(bank);
        let bank = Bank::open(Db::open(dir.path(), options).unwrap());
        assert_eq!(bank.marks(), marks, "every commit is there");
        bank.check(&bank.db.snapshot());
    }
}

#[test]
fn no_money_appears_or_vanishes_when_the_power_goes() {
    let sim = SimFs::new(1);
    let fs = |sim: &SimFs| -> Arc<dyn Fs> { Arc::new(sim.clone()) };
    let options = options(Durability::Buffered).mapped(false);
    let bank = Bank::open(Db::open("/db", options.clone().fs(fs(&sim))).unwrap());
    let begun = sim.ops();
    bank.run(9, 100);
    let (durable, end) = (bank.db.durable_seq(), sim.ops());
    let mut rng = Rng::new(4);
    for round in 0..40 {
        let op = if round < 10 { end } else { begun + rng.below((end - begun) as usize) as u64 };
        let crashed = sim.crash_at(op, rng.below(sim.states_at(op) as usize) as u64);
        let bank = Bank::open(Db::open("/db", options.clone().workers(0).fs(fs(&crashed))).unwrap());
        assert!(op < end || bank.db.visible_seq() >= durable);
        bank.check(&bank.db.snapshot());
    }
}
