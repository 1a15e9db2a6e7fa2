//! Logs, verb by verb: what each does, and what bad input gets.

use super::{fails, fresh, settle};
use esker::{Db, Entries, ErrorKind, Kind, Log, TagRun};

fn bytes(log: &Log, index: u64) -> Vec<u8> {
    log.get(index).unwrap().unwrap().bytes().to_vec()
}

fn all(entries: Entries) -> Vec<(u64, u64, Vec<u8>)> {
    entries.map(|e| e.unwrap()).map(|e| (e.index(), e.tag(), e.bytes().to_vec())).collect()
}

/// A log of the entries 0..n, with one tag for ten of them.
fn filled(db: &Db, n: u64) -> Log {
    let log = db.logs("raft").unwrap().log(7);
    let mut batch = db.batch();
    for i in 0..n {
        batch.append(&log, i, i / 10, format!("entry {i}"));
    }
    batch.commit().unwrap();
    log
}

#[test]
fn types_can_be_shared_and_sent() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    shared::<esker::Logs>();
    shared::<Log>();
    shared::<esker::LogView>();
    shared::<esker::LogEntry>();
    shared::<TagRun>();
    fn sent<T: Send + 'static>() {}
    sent::<Entries>();
    sent::<esker::LogIter>();
}

#[test]
fn entries_come_back_one_by_one_and_by_range() {
    let (_dir, db) = fresh();
    let log = filled(&db, 25);
    assert_eq!((log.id(), log.logs().name(), log.bounds().unwrap()), (7, "raft", 0..25));
    for settled in [false, true] {
        if settled {
            settle(&db);
        }
        let entry = log.get(11).unwrap().unwrap();
        assert_eq!((entry.index(), entry.tag(), entry.bytes()), (11, 1, &b"entry 11"[..]));
        assert_eq!(entry.into_value(), *b"entry 11");
        assert!(log.get(25).unwrap().is_none() && log.get(u64::MAX).unwrap().is_none());
        let forward = all(log.range(..));
        assert_eq!(forward.len(), 25);
        assert!(forward.iter().enumerate().all(|(i, e)| *e == (i as u64, e.0 / 10, bytes(&log, i as u64))));
        let backward: Vec<_> = log.range(3..=7).rev().map(|e| e.unwrap().index()).collect();
        assert_eq!(backward, [7, 6, 5, 4, 3]);
        let mut ends = log.range(20..);
        assert_eq!(ends.next().unwrap().unwrap().index(), 20);
        assert_eq!(ends.next_back().unwrap().unwrap().index(), 24);
        assert_eq!(all(ends).len(), 3);
        assert_eq!(all(log.range(30..40)), []);
        #[expect(clippy::reversed_empty_ranges, reason = "what callers write")]
        let reversed = log.range(7..3);
        assert_eq!(all(reversed), []);
    }
}

#[test]
fn reads_are_limited_by_bytes_and_give_at_least_one() {
    let (_dir, db) = fresh();
    let log = filled(&db, 10);
    let read = |range, max| log.read(range, max).unwrap().len();
    assert_eq!([read(0..10, 0), read(0..10, 7), read(0..10, 14), read(0..10, 15)], [1, 1, 2, 2]);
    assert_eq!([read(4..6, 1000), read(9..20, 1000), read(10..20, 1000)], [2, 1, 0]);
}

#[test]
fn tags_are_known_without_entries() {
    let (_dir, db) = fresh();
    let log = filled(&db, 25);
    let run = |range: std::ops::Range<u64>, tag| (range, tag);
    for settled in [false, true] {
        if settled {
            settle(&db);
        }
        let runs = |log: &Log| -> Vec<_> {
            log.tag_runs(5..22).unwrap().into_iter().map(|r: TagRun| (r.range, r.tag)).collect()
        };
        assert_eq!(runs(&log), [run(5..10, 0), run(10..20, 1), run(20..22, 2)]);
        assert_eq!(
            [0, 9, 10, 24, 25].map(|i| log.tag(i).unwrap()),
            [Some(0), Some(0), Some(1), Some(2), None]
        );
    }
    db.batch().purge(&log, 12).commit().unwrap();
    assert_eq!([10, 11, 12].map(|i| log.tag(i).unwrap()), [None, Some(1), Some(1)]);
    db.batch().purge(&log, 25).commit().unwrap();
    assert_eq!((log.bounds().unwrap(), log.tag(24).unwrap(), log.tag(25).unwrap()), (25..25, Some(2), None));
    db.batch().append(&log, 25, 9, "").commit().unwrap();
    assert_eq!((log.tag(24).unwrap(), log.tag(25).unwrap()), (Some(2), Some(9)));
}

#[test]
fn the_end_is_cut_and_written_anew() {
    let (_dir, db) = fresh();
    let log = filled(&db, 25);
    let snapshot = db.snapshot();
    let mut batch = db.batch();
    // As a follower does whose leader has changed.
    batch.truncate(&log, 12).append(&log, 12, 5, "new").push(&log, 5, "newer");
    batch.commit().unwrap();
    assert_eq!(batch.pushed(), [13]);
    assert_eq!(
        (log.bounds().unwrap(), log.tag(11).unwrap(), log.tag(12).unwrap()),
        (0..14, Some(1), Some(5))
    );
    assert_eq!(bytes(&log, 12), b"new");
    let past = log.at(&snapshot);
    assert_eq!((past.bounds().unwrap(), past.tag(24).unwrap()), (0..25, Some(2)));
    assert_eq!(past.get(11).unwrap().unwrap().bytes(), b"entry 11");
    for index in [12, 13, 14, 24] {
        let e = fails(past.get(index), ErrorKind::Gone);
        assert!(e.to_string().contains(&format!("entry {index} of log 7")), "{e}");
    }
    let read: Vec<_> = past.range(10..20).collect();
    assert_eq!(read.len(), 3);
    assert_eq!(read[2].as_ref().unwrap_err().kind(), ErrorKind::Gone);
    // All of it, and nothing of it.
    db.batch().truncate(&log, 14).commit().unwrap();
    assert_eq!(log.bounds().unwrap(), 0..14);
    db.batch().truncate(&log, 0).commit().unwrap();
    assert_eq!((log.bounds().unwrap(), log.tag(0).unwrap()), (0..0, None));
}

#[test]
fn a_log_that_is_reset_goes_on_elsewhere() {
    let (_dir, db) = fresh();
    let log = filled(&db, 5);
    let mut batch = db.batch();
    batch.reset(&log, 100, 8).append(&log, 100, 9, "a hundred");
    batch.commit().unwrap();
    assert_eq!(log.bounds().unwrap(), 100..101);
    assert_eq!([98, 99, 100].map(|i| log.tag(i).unwrap()), [None, Some(8), Some(9)]);
    batch.reset(&log, 3, 1).commit().unwrap();
    assert_eq!((log.bounds().unwrap(), log.tag(2).unwrap()), (3..3, Some(1)));
    batch.reset(&log, 0, 1).commit().unwrap();
    assert_eq!((log.bounds().unwrap(), log.tag(0).unwrap(), log.tag(u64::MAX).unwrap()), (0..0, None, None));
}

#[test]
fn logs_are_there_from_their_first_write_to_their_removal() {
    let (_dir, db) = fresh();
    let raft = db.logs("raft").unwrap();
    assert_eq!(raft.iter().count(), 0);
    let mut batch = db.batch();
    for id in [5, 1, u64::MAX, 300] {
        batch.push(&raft.log(id), 0, id.to_string());
    }
    batch.purge(&raft.log(9), 0).truncate(&raft.log(9), 0);
    batch.commit().unwrap();
    assert_eq!(batch.pushed(), [0; 4]);
    let ids = || raft.iter().map(|log| log.unwrap().id()).collect::<Vec<_>>();
    assert_eq!(ids(), [1, 5, 300, u64::MAX]);
    assert_eq!(raft.iter().next_back().unwrap().unwrap().bounds().unwrap(), 0..1);
    let snapshot = db.snapshot();
    db.batch().remove(&raft.log(5)).purge(&raft.log(1), 1).remove(&raft.log(77)).commit().unwrap();
    assert_eq!(ids(), [1, 300, u64::MAX]);
    let log = raft.log(5);
    assert_eq!((log.bounds().unwrap(), log.tag(0).unwrap()), (0..0, None));
    assert!(log.get(0).unwrap().is_none());
    assert_eq!(log.at(&snapshot).bounds().unwrap(), 0..1);
    fails(log.at(&snapshot).get(0), ErrorKind::Gone);
    // From the beginning, in one batch with its end.
    db.batch().push(&log, 1, "again").remove(&log).push(&log, 2, "and again").commit().unwrap();
    assert_eq!((log.bounds().unwrap(), bytes(&log, 0)), (0..1, b"and again".to_vec()));
    fails(log.at(&snapshot).get(0), ErrorKind::Gone);
}

#[test]
fn what_does_not_fit_the_bounds_is_a_conflict_and_writes_nothing() {
    let (_dir, db) = fresh();
    let log = filled(&db, 5);
    db.batch().purge(&log, 2).commit().unwrap();
    let meta = db.keyspace("meta").unwrap();
    type Call = fn(&mut esker::Batch, &Log);
    let calls: [Call; 9] = [
        |b, log| _ = b.append(log, 6, 0, "a hole"),
        |b, log| _ = b.append(log, 4, 0, "too late"),
        |b, log| _ = b.append(log, 5, 0, "fine").append(log, 5, 0, "twice"),
        |b, log| _ = b.append(log, 5, 0, "fine").append(log, 7, 0, "a hole"),
        |b, log| _ = b.truncate(log, 6),
        |b, log| _ = b.truncate(log, 1),
        |b, log| _ = b.purge(log, 6),
        |b, log| _ = b.require_next(log, 4),
        |b, log| _ = b.push(log, 0, "x").require_next(log, 6),
    ];
    for (i, call) in calls.iter().enumerate() {
        let before = db.visible_seq();
        let mut batch = db.batch();
        batch.put(&meta, "k", "v");
        call(&mut batch, &log);
        let e = fails(batch.commit(), ErrorKind::Conflict);
        assert!(i >= 7 || e.to_string().contains("operation"), "{e}");
        assert_eq!((db.visible_seq(), log.bounds().unwrap()), (before, 2..5));
        assert!(!meta.contains("k").unwrap());
    }
    // Below the first and at the end nothing happens.
    db.batch().purge(&log, 1).purge(&log, 2).truncate(&log, 5).commit().unwrap();
    assert_eq!(log.bounds().unwrap(), 2..5);
    // A batch that met a conflict can be tried again when that is gone.
    let mut batch = db.batch();
    batch.append(&log, 6, 0, "six").push(&log, 0, "seven");
    fails(batch.commit(), ErrorKind::Conflict);
    db.batch().push(&log, 0, "five").commit().unwrap();
    batch.commit().unwrap();
    assert_eq!((batch.pushed(), log.bounds().unwrap()), (&[7][..], 2..8));
    assert_eq!(bytes(&log, 7), b"seven");
    // One that does not know where its entries will go is right wherever that is.
    let mut batch = db.batch();
    batch.push(&log, 0, "late").require_next(&log, 9);
    fails(batch.commit(), ErrorKind::Conflict);
    db.batch().push(&log, 0, "eight").commit().unwrap();
    batch.commit().unwrap();
    assert_eq!((batch.pushed(), bytes(&log, 9)), (&[9][..], b"late".to_vec()));
}

#[test]
fn what_can_never_be_is_invalid_and_remembered() {
    let (_dir, db) = fresh();
    let (_other, elsewhere) = fresh();
    let log = filled(&db, 1);
    let mut batch = db.batch();
    batch.push(&log, 0, "fine").append(&log, u64::MAX, 0, "the largest index");
    let e = fails(batch.commit(), ErrorKind::Invalid);
    assert!(e.to_string().contains("operation 1 of the batch"), "{e}");
    let mut batch = db.batch();
    batch.push(&elsewhere.logs("raft").unwrap().log(1), 0, "x");
    fails(batch.commit(), ErrorKind::Invalid);
    let mut batch = db.batch();
    batch.push(&log, 0, vec![0; esker::MAX_VALUE_LEN + 1]);
    fails(batch.commit(), ErrorKind::Invalid);
    fails(log.at(&elsewhere.snapshot()).bounds(), ErrorKind::Invalid);
    // The last index there can be, and none behind it.
    let mut batch = db.batch();
    batch.reset(&log, u64::MAX - 1, 0).push(&log, 0, "the last").commit().unwrap();
    assert_eq!(log.bounds().unwrap(), u64::MAX - 1..u64::MAX);
    batch.push(&log, 0, "one more");
    fails(batch.commit(), ErrorKind::Conflict);
}

#[test]
fn names_stand_for_keyspaces_or_logs() {
    let (_dir, db) = fresh();
    let (log, users) = (filled(&db, 3), db.keyspace("users").unwrap());
    assert_eq!(db.names().unwrap(), [("users".into(), Kind::Keyspace), ("raft".into(), Kind::Logs)]);
    fails(db.keyspace("raft"), ErrorKind::Invalid);
    fails(db.logs("users"), ErrorKind::Invalid);
    fails(db.drop_logs("users"), ErrorKind::Invalid);
    fails(db.drop_keyspace("raft"), ErrorKind::Invalid);
    let snapshot = db.snapshot();
    db.drop_logs("raft").unwrap();
    fails(db.drop_logs("raft"), ErrorKind::Invalid);
    fails(log.bounds(), ErrorKind::Closed);
    fails(log.logs().iter().next().unwrap(), ErrorKind::Closed);
    fails(db.batch().push(&log, 0, "x").commit(), ErrorKind::Closed);
    assert_eq!(log.at(&snapshot).bounds().unwrap(), 0..3);
    fails(log.at(&snapshot).get(0), ErrorKind::Gone);
    settle(&db);
    // The name is free, for either.
    db.keyspace("raft").unwrap().put("k", "v").unwrap();
    db.drop_keyspace("raft").unwrap();
    let log = db.logs("raft").unwrap().log(7);
    assert_eq!(log.bounds().unwrap(), 0..0);
    users.put("k", "v").unwrap();
    db.close().unwrap();
    fails(log.bounds(), ErrorKind::Closed);
}

#[test]
fn entries_of_one_batch_cost_little() {
    let (_dir, db) = fresh();
    let log = db.logs("raft").unwrap().log(1);
    let mut batch = db.batch();
    for i in 0..256 {
        batch.append(&log, i, 1, [7; 256]);
    }
    assert!(batch.bytes() < 256 * 256 * 11 / 10, "{}", batch.bytes());
    assert_eq!(batch.len(), 1);
    batch.commit().unwrap();
    assert_eq!(log.bounds().unwrap(), 0..256);
}

#[test]
fn appends_by_many_threads_are_dense() {
    let (_dir, db) = fresh();
    let log = db.logs("raft").unwrap().log(1);
    std::thread::scope(|scope| {
        for t in 0..4u64 {
            let (db, log) = (&db, &log);
            scope.spawn(move || {
                for i in 0..200u64 {
                    let mut batch = db.batch();
                    batch.push(log, t, (t << 32 | i).to_le_bytes());
                    batch.commit().unwrap();
                    let index = batch.pushed()[0];
                    assert_eq!(log.get(index).unwrap().unwrap().bytes(), (t << 32 | i).to_le_bytes());
                }
            });
        }
    });
    assert_eq!(log.bounds().unwrap(), 0..800);
    let mut last = [None; 4];
    for entry in log.range(..) {
        let entry = entry.unwrap();
        let n = u64::from_le_bytes(entry.bytes().try_into().unwrap());
        let (t, i) = ((n >> 32) as usize, n as u32);
        assert!(last[t].is_none_or(|last| last < i));
        last[t] = Some(i);
    }
}
