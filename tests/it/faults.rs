//! Disks that fail: every operation of a small workload in turn, in every way; full disks; syncs
//! that fail. Calls answer with typed errors, and no acknowledged commit is lost.

use crate::model::{Change, Model, Range};
use crate::state::Later;
use crate::state::{open_and_read, small, state};
use esker::fs::fault::{Fault, FaultFs, Op, Rule};
use esker::fs::sim::SimFs;
use esker::{Batch, Db, Durability, ErrorKind, Options};
use std::ops::Bound;
use std::sync::Arc;

const DIR: &str = "/db";

/// A run in which any call may fail.
struct Attempt {
    model: Model,
    /// Changes whose fate only the next opening tells: the call failed, and the database with it.
    unknown: Vec<Change>,
    errors: usize,
}

impl Attempt {
    /// Runs the workload until its end or until the database is read-only.
    fn run(options: &Options) -> Attempt {
        let mut attempt = Attempt { model: Model::default(), unknown: Vec::new(), errors: 0 };
        for _ in 0..2 {
            if attempt.session(options).is_err() || !attempt.unknown.is_empty() {
                attempt.errors += 1;
                break;
            }
        }
        attempt
    }

    fn session(&mut self, options: &Options) -> esker::Result<()> {
        let db = Db::open(DIR, options.clone())?;
        let missing = |model: &Model| model.space("a", model.now()).is_none();
        if missing(&self.model) {
            let made = db.keyspace("a").map(|_| ());
            self.note(&db, made.map(|()| db.visible_seq()), vec![Change::Create("a".into())])?;
            if missing(&self.model) {
                return Ok(());
            }
        }
        let (a, space) = (db.keyspace("a")?, self.model.space("a", self.model.now()).unwrap());
        for round in 0..6usize {
            let mut batch = db.batch();
            let mut changes = Vec::new();
            for i in 0..4 {
                let (key, value) = (format!("k{}", (round * 3 + i) % 9), vec![b'a' + round as u8; 300]);
                batch.put(&a, &key, &value);
                changes.push(Change::Put(space, key.into(), value));
            }
            if round == 3 {
                let range: Range = (Bound::Included(b"k2".to_vec()), Bound::Excluded(b"k4".to_vec()));
                batch.delete_range(&a, range.clone());
                changes.push(Change::DeleteRange(space, range));
            }
            let result = if round % 2 == 0 { batch.commit_with(Durability::Sync) } else { batch.commit() };
            self.note(&db, result, changes)?;
            if round % 2 == 1 {
                self.count(db.flush());
            }
            // What can be read meanwhile is right, whatever has failed.
            match a.get("k0") {
                Ok(found) if self.unknown.is_empty() => {
                    let expected = self.model.get(space, b"k0", self.model.now());
                    assert_eq!(found.map(|v| v.to_vec()), expected);
                }
                Ok(_) => {}
                Err(_) => self.errors += 1,
            }
        }
        self.count(a.compact(..));
        drop(a);
        db.close()
    }

    fn count<T>(&mut self, result: esker::Result<T>) {
        if let Err(e) = result {
            assert_ne!(e.kind(), ErrorKind::Corruption, "a failing disk is not a damaged one: {e:?}");
            self.errors += 1;
        }
    }

    /// Takes down what became of a commit. `Err`: there is no going on.
    fn note(
        &mut self,
        db: &Db,
        result: esker::Result<esker::Seq>,
        changes: Vec<Change>,
    ) -> esker::Result<()> {
        let before = self.model.seq(self.model.now());
        match result {
            Ok(seq) => {
                self.model.commit(seq.get(), changes);
                Ok(())
            }
            Err(e) => {
                self.count::<()>(Err(e.clone()));
                let empty: &mut Batch = &mut db.batch();
                if empty.commit().is_err_and(|e| e.is_final()) {
                    self.unknown = changes;
                    return Err(e);
                }
                assert_eq!(db.visible_seq().get(), before, "nothing was written: {e:?}");
                Ok(())
            }
        }
    }
}

#[test]
fn every_operation_fails_once() {
    let kinds = [Fault::Io, Fault::IoAfter, Fault::Full, Fault::Interrupted, Fault::Short, Fault::Forget];
    for mapped in [false, true] {
        let durability = if mapped { Durability::Buffered } else { Durability::Sync };
        let options = small().mapped(mapped).durability(durability);
        let faults = FaultFs::new(Arc::new(SimFs::new(1)));
        let clean = Attempt::run(&options.clone().fs(Arc::new(faults.clone())));
        assert_eq!(clean.errors, 0);
        let ops = faults.count(Op::Any);
        let mut met = 0;
        for nth in 1..=ops {
            // One way each, all ways within six in a row; both once and for good.
            let kind = kinds[(nth % 6) as usize];
            for forever in [false, true] {
                let sim = SimFs::new(nth);
                let faults = FaultFs::new(Arc::new(sim.clone()));
                faults.fail(Rule { op: Op::Any, nth, kind, forever });
                let attempt = Attempt::run(&options.clone().fs(Arc::new(faults)));
                met += usize::from(attempt.errors > 0);
                let what =
                    format!("operation {nth} of {ops}: {kind:?}, forever: {forever}, mapped: {mapped}");
                check_after(&sim, attempt, &options, &what);
            }
        }
        println!("{ops} operations, {met} of {} runs met an error", 2 * ops);
        assert!(met > ops as usize / 2);
    }
}

/// The process ends; the next one finds a good disk.
fn check_after(sim: &SimFs, mut attempt: Attempt, options: &Options, what: &str) {
    let found = open_and_read(DIR, options, sim).unwrap_or_else(|e| panic!("{what}: {e:?}"));
    let now = attempt.model.now();
    if attempt.model.state(now) == found {
        return;
    }
    let unknown = std::mem::take(&mut attempt.unknown);
    assert!(!unknown.is_empty(), "{what}: an acknowledged commit is lost or a failed one is there");
    let at = attempt.model.commit(attempt.model.seq(now) + 1, unknown);
    assert!(attempt.model.state(at) == found, "{what}: neither with nor without the unknown commit");
}

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
        for round in 1..4u64 {
            sim.set_capacity(Some(sim.files().iter().map(|f| f.1).sum::<u64>() + round * (40 << 10)));
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
            assert_eq!(a.iter().map(|e| e.unwrap()).count() as u64, written);
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
    db.verify().unwrap();
}
