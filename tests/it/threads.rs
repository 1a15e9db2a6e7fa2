//! Many threads at once: what readers see is always the state behind some commit, and never an
//! older one than they saw before. `ESKER_ROUNDS=n` runs n times as long.

use crate::rng::Rng;
use esker::{Db, Durability, Expect, Keyspace, Options, Prefix};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn rounds(few: u64) -> u64 {
    few * std::env::var("ESKER_ROUNDS").map_or(1, |n| n.parse().expect("ESKER_ROUNDS is a number"))
}

/// Flushes, merges and rotations all the time.
fn busy(mapped: bool) -> (tempfile::TempDir, Db) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::default()
        .durability(Durability::Buffered)
        .memtable_bytes(8 << 10)
        .segment_bytes(32 << 10)
        .journal_bytes(128 << 10)
        .table_bytes(8 << 10)
        .cache_bytes(8 << 10)
        .mapped(mapped)
        .workers(2);
    let db = Db::open(dir.path(), options).unwrap();
    (dir, db)
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().unwrap())
}

const ACCOUNTS: usize = 40;
const EACH: u64 = 100;

fn account(n: usize) -> String {
    format!("account {n:03}, with a key of some length")
}

/// Moves money about, under the condition that nobody else did.
fn transfer(db: &Db, spaces: &[Keyspace; 2], rng: &mut Rng) {
    let (from, to) =
        ((rng.below(2), account(rng.below(ACCOUNTS))), (rng.below(2), account(rng.below(ACCOUNTS))));
    if from == to {
        return;
    }
    let (a, b) = (&spaces[from.0], &spaces[to.0]);
    let (old_a, old_b) = (a.get(&from.1).unwrap().unwrap(), b.get(&to.1).unwrap().unwrap());
    let amount = number(&old_a).min(1 + rng.below(20) as u64);
    let mut batch = db.batch();
    batch.require(a, &from.1, Expect::Value(&old_a)).require(b, &to.1, Expect::Value(&old_b));
    batch.put(a, &from.1, (number(&old_a) - amount).to_be_bytes());
    batch.put(b, &to.1, (number(&old_b) + amount).to_be_bytes());
    match batch.commit() {
        Ok(_) => {}
        Err(e) => assert!(e.is_conflict(), "{e:?}"),
    }
}

/// The sum over all accounts at one snapshot, told in one of four ways.
fn sum(db: &Db, spaces: &[Keyspace; 2], rng: &mut Rng) -> (usize, u64) {
    let snapshot = if rng.one_in(4) { db.durable_snapshot() } else { db.snapshot() };
    let way = rng.below(4);
    let mut sums = (0, 0);
    for space in spaces {
        let view = space.at(&snapshot);
        let mut add = |value: &[u8]| sums = (sums.0 + 1, sums.1 + number(value));
        match way {
            0 => view.iter().for_each(|e| add(e.unwrap().value())),
            1 => view.prefix("account").rev().for_each(|e| add(e.unwrap().value())),
            2 => (0..ACCOUNTS).for_each(|n| {
                if let Some(value) = view.get(account(n)).unwrap() {
                    add(&value);
                }
            }),
            _ => {
                let mut cursor = view.cursor(Prefix("account"));
                while let Some((_, value)) = cursor.next().unwrap() {
                    add(value);
                }
            }
        }
    }
    sums
}

#[test]
fn money_is_moved_and_never_made() {
    for mapped in [false, true] {
        let (dir, db) = busy(mapped);
        let spaces = [db.keyspace("a").unwrap(), db.keyspace("b").unwrap()];
        let mut batch = db.batch();
        for space in &spaces {
            for n in 0..ACCOUNTS {
                batch.put(space, account(n), EACH.to_be_bytes());
            }
        }
        batch.commit_with(Durability::Sync).unwrap();
        let whole = (2 * ACCOUNTS, 2 * ACCOUNTS as u64 * EACH);
        let done = AtomicBool::new(false);
        std::thread::scope(|s| {
            let (db, spaces, done) = (&db, &spaces, &done);
            let writers: Vec<_> = (0..3)
                .map(|t| {
                    s.spawn(move || {
                        let mut rng = Rng::new(t);
                        (0..rounds(1000)).for_each(|_| transfer(db, spaces, &mut rng));
                    })
                })
                .collect();
            for t in 0..2 {
                s.spawn(move || {
                    let mut rng = Rng::new(100 + t);
                    while !done.load(Ordering::Relaxed) {
                        assert_eq!(sum(db, spaces, &mut rng), whole);
                    }
                });
            }
            s.spawn(move || {
                let mut rng = Rng::new(200);
                while !done.load(Ordering::Relaxed) {
                    if rng.one_in(2) { db.flush() } else { db.sync() }.unwrap();
                }
            });
            // Checked after the flag is up, so that a panic of one does not leave the others running.
            let ended: Vec<_> = writers.into_iter().map(|w| w.join()).collect();
            done.store(true, Ordering::Relaxed);
            assert!(ended.iter().all(Result::is_ok));
        });
        assert_eq!(sum(&db, &spaces, &mut Rng::new(1)), whole);
        drop((spaces, batch, db));
        let db = Db::open(dir.path(), Options::default()).unwrap();
        let spaces = [db.keyspace("a").unwrap(), db.keyspace("b").unwrap()];
        assert_eq!(sum(&db, &spaces, &mut Rng::new(1)), whole);
    }
}

/// One writer counts up over keys that are put, deleted singly and by range; readers never see the
/// count go back, nor rows that do not belong to it.
#[test]
fn readers_never_go_back() {
    let (_dir, db) = busy(true);
    let space = db.keyspace("a").unwrap();
    let done = AtomicBool::new(false);
    let told = AtomicU64::new(0);
    space.put("n", 0u64.to_be_bytes()).unwrap();
    std::thread::scope(|s| {
        for t in 0..3 {
            let (db, space, done, told) = (&db, &space, &done, &told);
            s.spawn(move || {
                let mut rng = Rng::new(t);
                let mut seen = 0;
                while !done.load(Ordering::Relaxed) {
                    let least = told.load(Ordering::Acquire);
                    let snapshot = db.snapshot();
                    let view = space.at(&snapshot);
                    let n = number(&space.get("n").unwrap().unwrap());
                    assert!(n >= seen && n >= least, "{n} after {seen}, {least} was told");
                    let now = number(&view.get("n").unwrap().unwrap());
                    assert!(now <= n && now >= least);
                    seen = n;
                    // Rows "r" hold exactly the last ten numbers, in every way of reading.
                    let rows: Vec<u64> = if rng.one_in(2) {
                        view.prefix("r").map(|e| number(e.unwrap().value())).collect()
                    } else {
                        let mut back: Vec<u64> =
                            view.prefix("r").rev().map(|e| number(e.unwrap().value())).collect();
                        back.reverse();
                        back
                    };
                    let expected: Vec<u64> = (now.saturating_sub(9).max(1)..=now).collect();
                    assert_eq!(rows, expected, "at {now}");
                }
            });
        }
        let key = |n: u64| [&b"r"[..], &n.to_be_bytes()].concat();
        let mut rng = Rng::new(9);
        for n in 1..=rounds(3000) {
            let mut batch = db.batch();
            batch.put(&space, key(n), n.to_be_bytes()).put(&space, "n", n.to_be_bytes());
            if n > 10 {
                if rng.one_in(2) {
                    batch.delete(&space, key(n - 10));
                } else {
                    batch.delete_range(&space, key(0)..key(n - 9));
                }
            }
            batch.commit().unwrap();
            told.store(n, Ordering::Release);
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// Keyspaces come, are filled, replaced and go, while others read and write.
#[test]
fn catalog_changes_beside_everything_else() {
    let (dir, db) = busy(false);
    std::thread::scope(|s| {
        for t in 0..3u64 {
            let db = &db;
            s.spawn(move || {
                let (name, staging) = (format!("space {t}"), format!("staging {t}"));
                for round in 1..=rounds(30) {
                    let new = db.keyspace(&staging).unwrap();
                    assert_eq!(new.iter().count(), 0, "a new keyspace is empty");
                    for i in 0..20u64 {
                        new.put(i.to_be_bytes(), (round * 100 + i).to_be_bytes()).unwrap();
                    }
                    let live = db.keyspace(&name).unwrap();
                    let before = db.snapshot();
                    db.batch().replace(&live, &new).commit().unwrap();
                    let value = |i: u64, round: u64| (round * 100 + i).to_be_bytes();
                    for i in 0..20u64 {
                        assert_eq!(live.get(i.to_be_bytes()).unwrap().unwrap(), value(i, round));
                        let old = live.at(&before).get(i.to_be_bytes()).unwrap();
                        let was_there = round > 1 && !(round - 1).is_multiple_of(7);
                        assert_eq!(old.map(|v| v.to_vec()), was_there.then(|| value(i, round - 1).to_vec()));
                    }
                    assert!(new.get("x").is_err());
                    if round.is_multiple_of(7) {
                        db.drop_keyspace(&name).unwrap();
                        assert!(live.get("x").is_err());
                    }
                }
            });
        }
    });
    let last = rounds(30);
    let names = db.names().unwrap().len();
    drop(db);
    let db = Db::open(dir.path(), Options::default()).unwrap();
    assert_eq!(db.names().unwrap().len(), names);
    for t in 0..3u64 {
        let space = db.keyspace(&format!("space {t}")).unwrap();
        let expected = if last.is_multiple_of(7) { 0 } else { 20 };
        assert_eq!(space.iter().count(), expected);
    }
}
