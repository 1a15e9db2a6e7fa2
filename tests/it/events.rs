//! Events: what a database tells through the `log` facade.
//!
//! A process has one logger, and the tests of this binary run beside each other: the logger keeps what
//! is told in threads that listen. A database without workers tells everything in its caller's.

use esker::fs::fault::{Fault, FaultFs, Op, Rule};
use esker::fs::sim::SimFs;
use esker::{Db, Durability, Options};
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::cell::RefCell;
use std::sync::{Arc, Once};

thread_local! {
    static HEARD: RefCell<Option<Vec<(Level, String)>>> = const { RefCell::new(None) };
}

struct Listener;

impl Log for Listener {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        HEARD.with_borrow(|heard| heard.is_some())
    }

    fn log(&self, record: &Record<'_>) {
        HEARD.with_borrow_mut(|heard| {
            if let Some(heard) = heard {
                assert_eq!(record.target(), "esker", "{}", record.args());
                heard.push((record.level(), record.args().to_string()));
            }
        });
    }

    fn flush(&self) {}
}

/// What is told in this thread while `run` does.
fn told(run: impl FnOnce()) -> Vec<(Level, String)> {
    static LISTEN: Once = Once::new();
    LISTEN.call_once(|| {
        log::set_logger(&Listener).unwrap();
        log::set_max_level(LevelFilter::Debug);
    });
    HEARD.set(Some(Vec::new()));
    run();
    HEARD.take().unwrap()
}

fn options(fs: Arc<dyn esker::fs::Fs>) -> Options {
    Options::default().workers(0).durability(Durability::Buffered).segment_bytes(64 << 10).fs(fs)
}

/// Each of `story` begins a line that was told, in this order; others may stand between.
#[track_caller]
fn tells(told: &[(Level, String)], story: &[(Level, &str)]) {
    let mut lines = told.iter();
    for (level, start) in story {
        let found = lines.any(|(l, line)| l == level && line.starts_with(start));
        assert!(found, "{level} {start:?} is not told, or too early: {told:#?}");
    }
}

#[test]
fn the_story_of_a_small_run() {
    use Level::{Debug, Info};
    let sim = Arc::new(SimFs::new(1));
    let told = told(|| {
        let db = Db::open("/db", options(sim)).unwrap();
        let a = db.keyspace("a").unwrap();
        db.keyspace("a").unwrap();
        for round in 0..5u8 {
            for i in 0..100u32 {
                a.put(i.to_be_bytes(), [round; 200]).unwrap();
            }
            db.flush().unwrap();
        }
        while db.step().unwrap() {}
        db.checkpoint("/copy").unwrap();
        db.drop_keyspace("a").unwrap();
        while db.step().unwrap() {}
        drop(a);
        db.close().unwrap();
    });
    let story = [
        (Debug, "created journal segment 0000"),
        (Info, "opened /db: created"),
        (Info, "created keyspace \"a\" (1)"),
        (Debug, "flushed \"a\": 100 entries, "),
        (Debug, "compacted \"a\" into level "),
        (Info, "checkpoint of all up to 501 in /copy, took "),
        (Info, "dropped keyspace \"a\""),
        (Debug, "forgot 1 dropped keyspaces"),
        (Info, "closed /db"),
    ];
    tells(&told, &story);
    tells(&told, &[(Debug, "sealed journal segment 0000"), (Debug, "removed journal segment 0000")]);
    let merged: Vec<_> = told.iter().filter(|(_, line)| line.starts_with("compacted \"a\"")).collect();
    assert!(merged.iter().any(|(_, line)| line.contains(" became 100 entries, ")), "{merged:#?}");
    assert_eq!(told.iter().filter(|(_, line)| line.starts_with("created keyspace")).count(), 1);
    assert!(told.iter().all(|(level, _)| matches!(level, Debug | Info)), "{told:#?}");
}

#[test]
fn failures_are_told() {
    let fault = Arc::new(FaultFs::new(Arc::new(SimFs::new(1))));
    let told = told(|| {
        let db = Db::open("/db", options(fault.clone())).unwrap();
        let a = db.keyspace("a").unwrap();
        a.put("k", "v").unwrap();
        fault.fail_in(".journal", Rule { op: Op::Sync, nth: 1, kind: Fault::Io, forever: true });
        db.sync().unwrap_err();
    });
    tells(&told, &[(Level::Error, "the database is read-only until reopened: ")]);
}

#[test]
fn a_full_disk_is_told_of_and_its_end() {
    let sim = Arc::new(SimFs::new(1));
    let told = told(|| {
        let db = Db::open("/db", options(sim.clone())).unwrap();
        let a = db.keyspace("a").unwrap();
        let full = || db.metrics().background.disk_full;
        assert!(!full());
        sim.set_capacity(Some(sim.files().iter().map(|f| f.1).sum()));
        let mut written = 0u32;
        while a.put(written.to_be_bytes(), [7; 500]).is_ok() {
            written += 1;
        }
        assert!(full());
        sim.set_capacity(None);
        a.put(written.to_be_bytes(), [7; 500]).unwrap();
        assert!(!full());
    });
    tells(&told, &[(Level::Warn, "the disk is full: "), (Level::Info, "there is space on the disk again")]);
}

#[test]
fn writes_that_stop_are_told_of_and_counted() {
    let fault = Arc::new(FaultFs::new(Arc::new(SimFs::new(1))));
    let told = told(|| {
        let options = options(fault.clone()).workers(1).memtable_bytes(4 << 10);
        let db = Db::open("/db", options).unwrap();
        let a = db.keyspace("a").unwrap();
        fault.fail_in(".table", Rule { op: Op::Create, nth: 1, kind: Fault::Io, forever: true });
        assert_eq!(db.metrics().stalls, Default::default());
        // No flush succeeds: at some point writes wait, and are told why there will be no room.
        while a.put("k", [7; 500]).is_ok() {}
        let stalls = db.metrics().stalls;
        assert!(stalls.stopped > 0 && stalls.waiting == 0, "{stalls:?}");
        assert!(db.metrics().background.frozen_bytes > 0);
        fault.clear();
    });
    let story = [
        (Level::Warn, "writes stop until the background has caught up: "),
        (Level::Info, "writes stopped for "),
    ];
    tells(&told, &story);
}
