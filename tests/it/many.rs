//! Many keyspaces: most of them idle, some trickling, some that come and go; and the journal, which none of
//! them may keep.

use crate::crash::seeds;
use crate::rng::Rng;
use crate::state::{small, state};
use esker::fs::sim::SimFs;
use esker::{Db, Durability, Keyspace, Options};
use std::sync::Arc;

const DIR: &str = "/db";

fn open(sim: &SimFs, options: &Options) -> Db {
    Db::open(DIR, options.clone().fs(Arc::new(sim.clone()))).unwrap()
}

/// The bytes of journal that opening would replay had the process died now.
fn to_replay(sim: &SimFs, options: &Options) -> u64 {
    open(&sim.crash(1), &options.clone().read_only(true)).recovery().bytes
}

/// Busy, trickling and idle ones in any mixture, and memtables smaller and larger than the journal.
#[test]
fn no_keyspace_keeps_more_journal_than_its_budget() {
    for seed in seeds(3) {
        let mut rng = Rng::new(seed);
        let memtable = [4 << 10, 64 << 10, 1 << 20][seed as usize % 3];
        let (segment, journal) = (16 << 10, 64 << 10);
        let options = small()
            .durability(Durability::Buffered)
            .memtable_bytes(memtable)
            .segment_bytes(segment)
            .journal_bytes(journal);
        let sim = SimFs::new(seed);
        let db = open(&sim, &options);
        let keyspaces: Vec<Keyspace> = (0..20).map(|n| db.keyspace(&format!("{n}")).unwrap()).collect();
        let mut most = 0;
        for round in 0..1200u32 {
            // The first is busy; the last are written to once in a while.
            let at = rng.below(20).min(rng.below(20)).min(rng.below(20));
            let longest = if rng.one_in(10) { 2000 } else { 300 };
            let len = rng.below(longest);
            keyspaces[at].put(format!("{:03}", rng.below(300)), vec![round as u8; len]).unwrap();
            if seed % 2 == 0 && rng.one_in(3) {
                db.step().unwrap();
            }
            if round % 150 == 149 {
                most = most.max(to_replay(&sim, &options));
            }
        }
        // What flushes of small memtables leave to replay is less: they take along what others hold.
        let least = if memtable < segment as usize { segment / 2 } else { journal / 4 };
        assert!(most > least, "seed {seed}: {most} bytes are no test");
        assert!(most <= journal + segment, "seed {seed}: {most} bytes to replay");
    }
}

/// ESKER_KEYSPACES=10000: all of them.
#[test]
fn thousands_of_keyspaces_trickle_within_the_budgets() {
    let many = std::env::var("ESKER_KEYSPACES").ok().and_then(|n| n.parse().ok()).unwrap_or(400);
    let trickling = many / 50;
    let (segment, journal) = (32 << 10, 256 << 10);
    let options = small()
        .durability(Durability::Buffered)
        .memtable_bytes(1 << 20)
        .segment_bytes(segment)
        .journal_bytes(journal);
    let sim = SimFs::new(1);
    let db = open(&sim, &options);
    let keyspaces: Vec<Keyspace> = (0..many).map(|n| db.keyspace(&format!("{n:05}")).unwrap()).collect();
    // Each has been written to once.
    for keyspace in &keyspaces {
        keyspace.put("k", "v").unwrap();
        while db.step().unwrap() {}
    }
    let mut most = 0;
    for round in 0..100u32 {
        for keyspace in keyspaces.iter().step_by(many / trickling) {
            keyspace.put(round.to_be_bytes(), [7; 100]).unwrap();
        }
        keyspaces[1].put(round.to_be_bytes(), [7; 20_000]).unwrap();
        while db.step().unwrap() {}
        if round % 10 == 9 {
            most = most.max(to_replay(&sim, &options));
        }
    }
    assert!(most > journal / 4, "{most} bytes are no test");
    assert!(most <= journal + segment, "{most} bytes to replay");
    db.close().unwrap();
    let db = open(&sim, &options);
    assert!(keyspaces.len() == many && db.names().unwrap().len() == many);
    for n in (0..many).step_by(97) {
        assert_eq!(db.keyspace(&format!("{n:05}")).unwrap().get("k").unwrap().unwrap(), "v");
    }
}

/// What there is on the disk, but for the journal: how many files, and their bytes.
fn on_disk(sim: &SimFs) -> (usize, u64) {
    let files = sim.files();
    let journal = |path: &std::path::Path| path.extension().is_some_and(|e| e == "journal");
    let rest: Vec<u64> = files.iter().filter(|f| !journal(&f.0)).map(|f| f.1).collect();
    (files.len(), rest.iter().sum())
}

/// ESKER_CYCLES=1000000: a million. A snapshot is held across some of them, and the power goes.
#[test]
fn keyspaces_that_come_and_go_leave_nothing_behind() {
    let cycles: u64 = std::env::var("ESKER_CYCLES").ok().and_then(|n| n.parse().ok()).unwrap_or(1500);
    let options = small().durability(Durability::Buffered);
    let mut sim = SimFs::new(1);
    let mut db = open(&sim, &options);
    let kept = db.keyspace("kept").unwrap();
    kept.put("k", "v").unwrap();
    drop(kept);
    let mut held = None;
    let mut early = (0, 0);
    for cycle in 0..cycles {
        let name = format!("passing {cycle}");
        let passing = db.keyspace(&name).unwrap();
        for n in 0..cycle % 4 {
            passing.put(n.to_be_bytes(), [7; 300]).unwrap();
        }
        if cycle % 7 == 0 {
            db.flush().unwrap();
        }
        match cycle % 50 {
            10 => held = Some((db.snapshot(), passing.clone(), cycle % 4)),
            30 => {
                let (snapshot, passing, rows) = held.take().unwrap();
                assert_eq!(passing.at(&snapshot).iter().count() as u64, rows);
            }
            _ => {}
        }
        if cycle % 3 == 0 {
            let staging = db.keyspace("staging").unwrap();
            staging.put("k", "v").unwrap();
            let kept = db.keyspace("kept").unwrap();
            db.batch().replace(&kept, &staging).commit().unwrap();
        }
        db.drop_keyspace(&name).unwrap();
        if cycle % 5 == 0 {
            while db.step().unwrap() {}
        }
        if cycle % 400 == 399 {
            held = None;
            db.sync().unwrap();
            let disk = sim.crash(6 + cycle);
            drop((passing, db));
            sim = disk;
            db = open(&sim, &options);
            assert_eq!(db.names().unwrap().len(), 1);
        }
        if cycle == 450 {
            early = settle(&db, &sim);
        }
    }
    drop(held);
    let late = settle(&db, &sim);
    // Numbers have grown longer by then.
    assert!(late.0 <= early.0 + 2 && late.1 <= early.1 + (8 << 10), "{early:?}, then {late:?}");
    assert_eq!(state(&db)["kept"].len(), 1);
    db.close().unwrap();
    let db = open(&sim, &options);
    assert_eq!(db.names().unwrap().len(), 1);
    assert!(db.recovery().bytes < 64 << 10);
}

fn settle(db: &Db, sim: &SimFs) -> (usize, u64) {
    db.flush().unwrap();
    while db.step().unwrap() {}
    on_disk(sim)
}
