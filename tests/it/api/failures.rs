//! Disks that fail, seen from the caller: what is final, what may be tried again, what goes on.

use crate::state::{small, state};
use esker::fs::fault::{Fault, FaultFs, Op, Rule};
use esker::fs::sim::SimFs;
use esker::{Db, Durability, ErrorKind};
use std::sync::Arc;

const DIR: &str = "/db";

#[test]
fn a_full_disk_stops_nothing_for_good() {
    for (workers, mapped) in [(0, false), (0, true), (1, false), (1, true)] {
        let sim = SimFs::new(1);
        let options = small()
            .workers(workers)
            .mapped(mapped)
            .durability(Durability::Buffered)
            .fs(Arc::new(sim.clone()));
        let db = Db::open(DIR, options.clone()).unwrap();
        let a = db.keyspace("a").unwrap();
        let value = [7; 500];
        let mut written = 0u64;
        for round in 1..3u64 {
            sim.set_capacity(Some(sim.files().iter().map(|f| f.1).sum::<u64>() + round * (24 << 10)));
            let e = loop {
                match a.put(written.to_be_bytes(), value) {
                    Ok(_) => written += 1,
                    Err(e) => break e,
                }
                assert!(written < 100_000, "the disk is never full");
            };
            assert_eq!(e.kind(), ErrorKind::DiskFull, "{e:?}");
            assert!(e.is_retryable() && !e.is_final());
            // Everything can be read, and what was refused is not there.
            assert_eq!(a.iter().filter(|e| e.is_ok()).count() as u64, written);
            assert!(!a.contains(written.to_be_bytes()).unwrap());
            // Space returns: the same process writes on.
            sim.set_capacity(None);
            a.put(written.to_be_bytes(), value).unwrap();
            written += 1;
        }
        db.sync().unwrap();
        drop((a, db));
        let db = Db::open(DIR, options).unwrap();
        assert_eq!(db.keyspace("a").unwrap().iter().count() as u64, written);
    }
}

#[test]
fn a_database_on_a_full_disk_still_opens_and_shrinks() {
    let sim = SimFs::new(1);
    let options = small().durability(Durability::Buffered).fs(Arc::new(sim.clone()));
    let db = Db::open(DIR, options.clone()).unwrap();
    let a = db.keyspace("a").unwrap();
    for i in 0..200u64 {
        a.put(i.to_be_bytes(), [7; 500]).unwrap();
    }
    drop((a, db));
    sim.set_capacity(Some(sim.files().iter().map(|f| f.1).sum()));
    // Reading needs no space.
    let reader = Db::open(DIR, options.clone().read_only(true)).unwrap();
    assert_eq!(reader.keyspace("a").unwrap().iter().count(), 200);
    drop(reader);
    match Db::open(DIR, options.clone()) {
        Ok(db) => assert_eq!(db.keyspace("a").unwrap().iter().count(), 200),
        Err(e) => assert_eq!(e.kind(), ErrorKind::DiskFull, "{e:?}"),
    }
    sim.set_capacity(None);
    assert_eq!(Db::open(DIR, options).unwrap().keyspace("a").unwrap().iter().count(), 200);
}

#[test]
fn a_failed_sync_is_final() {
    for kind in [Fault::Io, Fault::Forget] {
        let sim = SimFs::new(1);
        let faults = FaultFs::new(Arc::new(sim.clone()));
        let options = small().durability(Durability::Sync).fs(Arc::new(faults.clone()));
        let db = Db::open(DIR, options).unwrap();
        let a = db.keyspace("a").unwrap();
        let kept = a.put("before", "1").unwrap();
        faults.fail_in(".journal", Rule { op: Op::Sync, nth: 1, kind, forever: false });
        let ticket = db.batch().put(&a, "lost", "2").submit();
        let outcome = ticket.and_then(|t| t.wait());
        assert!(outcome.is_err(), "a sync that failed is not reported as one that did not");
        // The disk is good again, and nobody pretends that nothing happened.
        for _ in 0..3 {
            let e = a.put("after", "3").unwrap_err();
            assert!(e.is_final() && e.kind() == ErrorKind::ReadOnly, "{e:?}");
            assert!(db.sync().is_err());
        }
        assert_eq!(db.durable_seq(), kept);
        assert!(a.contains("before").unwrap(), "reading goes on");
        assert!(!a.contains("after").unwrap());
        drop((a, db));
        // The power goes as well: everything that was acknowledged is there.
        let sim = sim.crash(0);
        let db = Db::open(DIR, small().fs(Arc::new(sim))).unwrap();
        let found = state(&db);
        assert!(found["a"].contains_key(&b"before"[..]));
        assert!(!found["a"].contains_key(&b"after"[..]));
    }
}

#[test]
fn a_failed_flush_is_done_again() {
    let sim = SimFs::new(1);
    let faults = FaultFs::new(Arc::new(sim.clone()));
    let options = small().durability(Durability::Buffered).fs(Arc::new(faults.clone()));
    let db = Db::open(DIR, options).unwrap();
    let a = db.keyspace("a").unwrap();
    a.put("k", "v").unwrap();
    for op in [Op::Create, Op::Write, Op::Sync] {
        faults.fail_in(".table", Rule { op, nth: 1, kind: Fault::Io, forever: false });
        a.put("l", "v").unwrap();
        let e = db.flush().unwrap_err();
        assert!(e.file().is_some_and(|f| f.extension().is_some_and(|x| x == "table")), "{e:?}");
        db.flush().unwrap();
        a.put("m", "v").unwrap();
        let tables = sim.files().iter().filter(|f| f.0.extension().is_some_and(|x| x == "table")).count();
        assert!(tables > 0);
    }
    assert_eq!(a.iter().count(), 3);
}
