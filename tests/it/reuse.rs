//! Journal segments that nothing needs any more are written to again: often, and never while somebody could
//! still see what they held.

use esker::fs::Fs;
use esker::fs::os::OsFs;
use esker::fs::sim::SimFs;
use esker::{Db, Durability, Log, Options, Value};
use std::path::Path;
use std::sync::Arc;

const DIR: &str = "/data/db";
const SEGMENT: u64 = 64 << 10;
const ENTRY: usize = 400;

fn options(fs: impl Fs + 'static) -> Options {
    let options = Options::default().workers(0).segment_bytes(SEGMENT).memtable_bytes(16 << 10);
    options.durability(Durability::Buffered).fs(Arc::new(fs))
}

fn bytes(index: u64) -> Vec<u8> {
    vec![index as u8 | 1; ENTRY]
}

/// Appends as a Raft log does: each group synced, the oldest purged, work done in between.
fn append(db: &Db, log: &Log, groups: u64, keep: u64) {
    for _ in 0..groups {
        let first = log.bounds().unwrap().end;
        let mut batch = db.batch();
        for index in first..first + 8 {
            batch.append(log, index, 1, bytes(index));
        }
        batch.purge(log, (first + 8).saturating_sub(keep));
        batch.commit_with(Durability::Sync).unwrap();
        while db.step().unwrap() {}
    }
}

fn agree(log: &Log) {
    for entry in log.range(..) {
        let entry = entry.unwrap();
        assert_eq!(entry.bytes()[..], bytes(entry.index()));
    }
}

fn reused(sim: &SimFs) -> usize {
    let is_reuse = |line: &&String| line.starts_with("link") && line.ends_with(".journal");
    sim.log().iter().filter(is_reuse).count()
}

fn made(sim: &SimFs) -> usize {
    let is_new = |line: &&String| line.starts_with("create") && line.ends_with(".journal");
    sim.log().iter().filter(is_new).count()
}

#[test]
fn a_log_that_is_purged_lives_on_a_few_segments() {
    let sim = SimFs::new(1);
    let db = Db::open(DIR, options(sim.clone())).unwrap();
    let log = db.logs("raft").unwrap().log(1);
    append(&db, &log, 400, 20);
    let (reused, made) = (reused(&sim), made(&sim));
    assert!(reused >= 12 && made <= 8, "{reused} segments were reused, {made} made");
    agree(&log);
    assert!(db.verify().unwrap().is_ok());
    // As much as there is, is one beside those in use.
    let journal =
        |sim: &SimFs| sim.files().iter().filter(|f| f.0.extension().is_some_and(|e| e == "journal")).count();
    assert!(journal(&sim) <= 5, "{}", journal(&sim));
    drop(log);
    db.close().unwrap();
    assert!(journal(&sim) <= 1, "{}", journal(&sim));
}

#[test]
fn what_a_segment_held_before_is_neither_data_nor_a_torn_tail() {
    for mapped in [false, true] {
        let sim = SimFs::new(2);
        let options = options(sim.clone()).mapped(mapped);
        let db = Db::open(DIR, options.clone()).unwrap();
        let log = db.logs("raft").unwrap().log(1);
        append(&db, &log, 150, 20);
        assert!(reused(&sim) > 3);
        let bounds = log.bounds().unwrap();
        // All was synced, so whatever the crash leaves is that.
        for choice in 0..sim.states_at(sim.ops()).min(40) {
            let disk = sim.crash(choice);
            let db = Db::open(DIR, options.clone().fs(Arc::new(disk))).unwrap();
            assert_eq!(db.recovery().torn, None);
            let log = db.logs("raft").unwrap().log(1);
            assert_eq!(log.bounds().unwrap(), bounds);
            agree(&log);
            append(&db, &log, 3, 20);
            assert!(db.verify().unwrap().is_ok());
        }
    }
}

#[test]
fn values_that_somebody_holds_are_never_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), options(OsFs).mapped(true).memory_bytes(1 << 20)).unwrap();
    let log = db.logs("raft").unwrap().log(1);
    let mut held: Vec<(u64, Value)> = Vec::new();
    for _ in 0..40 {
        append(&db, &log, 12, 600);
        // The oldest are in segments that are finished, and mapped by this.
        let oldest = log.range(..).next().unwrap().unwrap();
        held.push((oldest.index(), oldest.into_value()));
        append(&db, &log, 12, 20);
    }
    for (index, value) in &held {
        assert_eq!(value[..], bytes(*index));
    }
}

#[test]
fn a_checkpoint_is_never_written_over() {
    for real in [false, true] {
        let (sim, tmp) = (SimFs::new(3), tempfile::tempdir().unwrap());
        let (options, dir) = match real {
            true => (options(OsFs), tmp.path()),
            false => (options(sim), Path::new("/data")),
        };
        let db = Db::open(dir.join("db"), options.clone()).unwrap();
        let log = db.logs("raft").unwrap().log(1);
        append(&db, &log, 60, 100);
        let bounds = log.bounds().unwrap();
        db.checkpoint(dir.join("copy")).unwrap();
        append(&db, &log, 200, 20);
        agree(&log);
        let copy = Db::open(dir.join("copy"), options).unwrap();
        let log = copy.logs("raft").unwrap().log(1);
        assert_eq!(log.bounds().unwrap(), bounds);
        agree(&log);
        assert!(copy.verify().unwrap().is_ok());
    }
}

/// The header of another database, in a segment that was never written to, would be taken for damage.
#[test]
fn a_segment_that_nobody_named_is_not_used() {
    let (sim, other) = (SimFs::new(5), SimFs::new(6));
    for fs in [&sim, &other] {
        let db = Db::open(DIR, options(fs.clone())).unwrap();
        append(&db, &db.logs("raft").unwrap().log(1), 3, 20);
    }
    let sim = sim.crash(1);
    let (path, _) =
        other.files().into_iter().find(|f| f.0.extension().is_some_and(|e| e == "journal")).unwrap();
    let file = sim.create(Path::new("/data/db/000099.journal")).unwrap();
    file.allocate(SEGMENT).unwrap();
    file.write_at(&other.read(path).unwrap(), 0).unwrap();
    file.sync().unwrap();
    sim.sync_dir(Path::new(DIR)).unwrap();
    drop(Db::open(DIR, options(sim.clone())).unwrap());
    for op in 0..=sim.ops() {
        for choice in 0..sim.states_at(op).min(4) {
            let db = Db::open(DIR, options(sim.crash_at(op, choice)));
            assert!(db.is_ok(), "{op}, {choice}: {:?}", db.err());
        }
    }
}

#[test]
fn a_full_disk_has_the_space_that_was_kept() {
    let sim = SimFs::new(4);
    let db = Db::open(DIR, options(sim.clone())).unwrap();
    let log = db.logs("raft").unwrap().log(1);
    append(&db, &log, 100, 20);
    let used = |sim: &SimFs| sim.files().iter().map(|f| f.1).sum::<u64>();
    sim.set_capacity(Some(used(&sim)));
    let rows = db.keyspace("rows").unwrap();
    // More than is free, less than what is kept.
    for i in 0..30u64 {
        rows.put(i.to_be_bytes(), [1; 1000]).unwrap();
    }
    db.flush().unwrap();
    agree(&log);
}
