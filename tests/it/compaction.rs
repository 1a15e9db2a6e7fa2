//! Compaction from outside: by hand and in the background, side by side, in the way of nobody.

use crate::hook::{Doing, HookFs};
use crate::rng::Rng;
use crate::state::small;
use esker::fs::fault::{Fault, FaultFs, Op, Rule};
use esker::fs::sim::SimFs;
use esker::{Compression, Db, Durability, ErrorKind, Keyspace, KeyspaceOptions, Options};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

fn tables(sim: &SimFs) -> usize {
    sim.files().iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "table")).count()
}

fn key(n: usize) -> Vec<u8> {
    format!("{:06}", n * 7919 % 1_000_000).into_bytes()
}

fn fill(keyspace: &Keyspace, count: usize, value: &[u8]) {
    for n in 0..count {
        keyspace.put(key(n), value).unwrap();
    }
}

fn options(workers: usize) -> Options {
    let raw = KeyspaceOptions::default().compression(Compression::None);
    small().workers(workers).durability(Durability::Buffered).keyspaces(raw)
}

#[test]
fn after_everything_was_deleted_nothing_is_left() {
    for workers in [0, 1, 3] {
        for by_range in [false, true] {
            let sim = SimFs::new(1);
            let db = Db::open("/db", options(workers).fs(Arc::new(sim.clone()))).unwrap();
            let a = db.keyspace("a").unwrap();
            fill(&a, 1500, &[7; 50]);
            a.compact(..).unwrap();
            assert!(tables(&sim) > 10);
            if by_range {
                a.delete_range(..).unwrap();
            } else {
                (0..1500).for_each(|n| _ = a.delete(key(n)).unwrap());
            }
            a.compact(..).unwrap();
            assert_eq!(a.iter().count(), 0);
            // A worker may still look at the last view; the catalog may have a table.
            drop(a);
            db.close().unwrap();
            assert!(tables(&sim) <= 1, "workers {workers}, by range {by_range}: {:?}", sim.files());
        }
    }
}

#[test]
fn what_a_snapshot_held_back_goes_with_it() {
    let sim = SimFs::new(1);
    let db = Db::open("/db", options(0).fs(Arc::new(sim.clone()))).unwrap();
    let a = db.keyspace("a").unwrap();
    fill(&a, 1000, &[7; 50]);
    a.compact(..).unwrap();
    let full = tables(&sim);
    let snapshot = db.snapshot();
    for n in 0..1000 {
        a.delete(key(n)).unwrap();
    }
    a.compact(..).unwrap();
    while db.step().unwrap() {}
    assert_eq!(a.at(&snapshot).iter().count(), 1000);
    assert!(tables(&sim) >= full);
    drop(snapshot);
    while db.step().unwrap() {}
    assert!(tables(&sim) <= 1, "{:?}", sim.files());
}

#[test]
fn a_part_is_compacted_alone_and_nothing_costs_nothing() {
    let sim = SimFs::new(1);
    let db = Db::open("/db", options(0).fs(Arc::new(sim.clone()))).unwrap();
    let a = db.keyspace("a").unwrap();
    a.compact(..).unwrap();
    fill(&a, 3000, &[7; 50]);
    a.compact(..).unwrap();
    let count = tables(&sim);
    a.delete_range(key(0)..).unwrap();
    fill(&a, 3000, &[7; 50]);
    db.flush().unwrap();
    a.compact("5".."6").unwrap();
    assert!(tables(&sim) >= count);
    a.compact(..).unwrap();
    let ops = sim.ops();
    a.compact(..).unwrap();
    a.compact("5".."5").unwrap();
    a.put("x", "y").unwrap();
    let put = sim.ops();
    a.compact(..="9").unwrap();
    assert_eq!(sim.ops(), put, "the memtable holds nothing of the range");
    assert!(put <= ops + 1);
    assert_eq!(a.compact("6".."5").unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(a.iter().count(), 3001);
    db.drop_keyspace("a").unwrap();
    assert_eq!(a.compact(..).unwrap_err().kind(), ErrorKind::Closed);
    let b = db.keyspace("b").unwrap();
    db.close().unwrap();
    assert_eq!(b.compact(..).unwrap_err().kind(), ErrorKind::Closed);
}

/// Whole tables go with the range delete that hides them, and nobody reads them for it.
#[test]
fn tables_under_a_range_delete_go_unread() {
    for held in [false, true] {
        let sim = SimFs::new(1);
        let faults = FaultFs::new(Arc::new(sim.clone()));
        let options = options(0).fs(Arc::new(faults.clone()));
        let db = Db::open("/db", options.clone()).unwrap();
        fill(&db.keyspace("a").unwrap(), 1500, &[7; 50]);
        db.keyspace("a").unwrap().compact(..).unwrap();
        db.close().unwrap();
        let db = Db::open("/db", options).unwrap();
        while db.step().unwrap() {}
        let a = db.keyspace("a").unwrap();
        let before = tables(&sim);
        for (path, _) in sim.files().iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "table"))
        {
            for op in [Op::OpenRead, Op::Read] {
                let rule = Rule { op, nth: 1, kind: Fault::Io, forever: true };
                faults.fail_in(path.to_str().unwrap(), rule);
            }
        }
        assert!(a.get(key(1)).is_err(), "it could read them all the time");
        let snapshot = held.then(|| db.snapshot());
        a.delete_range("0".."4999999").unwrap();
        a.delete_range("4999999"..).unwrap();
        a.put("5", "x").unwrap();
        db.flush().unwrap();
        if held {
            assert!(tables(&sim) > before);
            drop(snapshot);
            while db.step().unwrap() {}
        }
        // One of the catalog, and one for the new entry.
        assert!(tables(&sim) <= 3 && before > 10, "{before} {held} {:?}", sim.files());
        assert_eq!(a.iter().map(|e| e.unwrap().key().to_vec()).collect::<Vec<_>>(), [b"5"]);
    }
}

/// Calls `then` before the table `at` (counted from when `armed` is set) is created.
fn at_table(
    sim: &SimFs,
    at: usize,
    then: impl Fn() + Send + Sync + 'static,
) -> (Arc<HookFs>, Arc<AtomicBool>) {
    let (armed, seen) = (Arc::new(AtomicBool::new(false)), AtomicUsize::new(0));
    let arm = armed.clone();
    let hook = move |doing, path: &Path| {
        let table = doing == Doing::Create && path.extension().is_some_and(|e| e == "table");
        if table && armed.load(Ordering::SeqCst) && seen.fetch_add(1, Ordering::SeqCst) == at {
            then();
        }
    };
    (HookFs::new(Arc::new(sim.clone()), hook), arm)
}

#[test]
fn closing_does_not_wait_for_a_long_merge_which_leaves_nothing_behind() {
    let sim = SimFs::new(1);
    let barrier = Arc::new(Barrier::new(2));
    let there = barrier.clone();
    // In the merge: until the database is being closed.
    let (fs, arm) = at_table(&sim, 3, move || {
        there.wait();
        there.wait();
    });
    let options = options(0).table_bytes(64 << 10).memtable_bytes(1 << 20);
    let db = Db::open("/db", options.clone().fs(fs)).unwrap();
    let a = db.keyspace("a").unwrap();
    fill(&a, 2000, &[7; 500]);
    a.compact(..).unwrap();
    a.delete_range("5".."51").unwrap();
    fill(&a, 1900, &[8; 500]);
    db.flush().unwrap();
    let before = tables(&sim);
    arm.store(true, Ordering::SeqCst);
    let merge = {
        let a = a.clone();
        std::thread::spawn(move || a.compact(..))
    };
    barrier.wait();
    let close = std::thread::spawn(move || db.close());
    // Not by writing: what is written would be flushed.
    while a.get("k").is_ok() {
        std::thread::yield_now();
    }
    barrier.wait();
    assert_eq!(merge.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    close.join().unwrap().unwrap();
    let after = tables(&sim);
    drop(a);
    let db = Db::open("/db", options.fs(Arc::new(sim.clone()))).unwrap();
    let left = (after, tables(&sim));
    assert!(left.0 <= before + 1 && left.1 == left.0, "{before} {left:?}");
    assert!(db.keyspace("a").unwrap().iter().count() > 1000);
}

#[test]
fn a_keyspace_that_is_dropped_lets_go_of_its_merge() {
    let sim = SimFs::new(1);
    let db: Arc<std::sync::Mutex<Option<Db>>> = Arc::default();
    let other = db.clone();
    let (fs, arm) = at_table(&sim, 3, move || {
        other.lock().unwrap().as_ref().unwrap().drop_keyspace("a").unwrap();
    });
    let options = options(0).table_bytes(64 << 10).memtable_bytes(1 << 20);
    *db.lock().unwrap() = Some(Db::open("/db", options.fs(fs)).unwrap());
    let now = db.lock().unwrap().clone().unwrap();
    let a = now.keyspace("a").unwrap();
    fill(&a, 2000, &[7; 500]);
    a.compact(..).unwrap();
    a.delete_range("5".."51").unwrap();
    fill(&a, 1900, &[8; 500]);
    now.flush().unwrap();
    arm.store(true, Ordering::SeqCst);
    assert_eq!(a.compact(..).unwrap_err().kind(), ErrorKind::Closed);
    drop(a);
    while now.step().unwrap() {}
    assert!(tables(&sim) <= 1, "{:?}", sim.files());
    // A circle: the hook holds the database that holds the hook.
    db.lock().unwrap().take();
}

/// Writers, workers and compactions by hand, all at once: nothing is lost, nothing comes back.
#[test]
fn many_at_once_change_nothing_that_is_seen() {
    let sim = SimFs::new(1);
    let options = options(4).memtable_bytes(2 << 10).table_bytes(1 << 10);
    let db = Db::open("/db", options.clone().fs(Arc::new(sim.clone()))).unwrap();
    let a = db.keyspace("a").unwrap();
    let done = AtomicBool::new(false);
    let model = std::thread::scope(|s| {
        for seed in 0..2 {
            let (a, db, done) = (&a, &db, &done);
            s.spawn(move || {
                let mut rng = Rng::new(seed);
                while !done.load(Ordering::SeqCst) {
                    let (from, to) = (rng.below(1000), rng.below(1000));
                    let _snapshot = rng.one_in(2).then(|| db.snapshot());
                    let range = format!("{:06}", from.min(to) * 1000)..format!("{:06}", from.max(to) * 1000);
                    a.compact(range).unwrap();
                }
            });
        }
        let mut rng = Rng::new(9);
        let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for round in 0..3000usize {
            let n = rng.below(1500);
            match rng.below(40) {
                0 => {
                    let (from, to) = (key(n), key(n + 1));
                    let (from, to) = (from.clone().min(to.clone()), from.max(to));
                    a.delete_range(from.clone()..to.clone()).unwrap();
                    model.retain(|k, _| *k < from || *k >= to);
                }
                1..=10 => {
                    a.delete(key(n)).unwrap();
                    model.remove(&key(n));
                }
                _ => {
                    let value = vec![round as u8; rng.below(60)];
                    a.put(key(n), &value).unwrap();
                    model.insert(key(n), value);
                }
            }
            if round % 500 == 0 {
                check(&a, &model);
            }
        }
        done.store(true, Ordering::SeqCst);
        model
    });
    check(&a, &model);
    a.compact(..).unwrap();
    check(&a, &model);
    drop(a);
    db.close().unwrap();
    let db = Db::open("/db", options.fs(Arc::new(sim))).unwrap();
    assert_eq!(db.recovery().removed, 0, "a job has left something behind");
    check(&db.keyspace("a").unwrap(), &model);
}

fn check(a: &Keyspace, model: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let rows: Vec<_> = a.iter().map(|e| e.unwrap()).map(|e| (e.key().to_vec(), e.value().to_vec())).collect();
    assert!(rows.iter().map(|(k, v)| (k, v)).eq(model.iter()), "{} rows, {}", rows.len(), model.len());
}
