//! Bugs that were found, each as a small run that showed it.

use crate::hook::{Doing, HookFs};
use esker::fs::Fs;
use esker::fs::fault::{Fault, FaultFs, Op, Rule};
use esker::fs::sim::SimFs;
use esker::{Db, Durability, ErrorKind, Expect, Keyspace, Options, Prefix};
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Wake, Waker};

const DIR: &str = "/db";

/// Small everything, no thread but the test's.
fn small() -> Options {
    Options::default()
        .workers(0)
        .durability(Durability::Buffered)
        .memtable_bytes(16 << 10)
        .segment_bytes(16 << 10)
        .journal_bytes(64 << 10)
        .mapped(false)
}

fn open(options: &Options, fs: &Arc<impl esker::fs::Fs + 'static>) -> Db {
    Db::open(DIR, options.clone().fs(fs.clone())).unwrap()
}

fn kind<T>(result: esker::Result<T>) -> Option<ErrorKind> {
    result.err().map(|e| e.kind())
}

fn keys(keyspace: &Keyspace) -> Vec<String> {
    keyspace.iter().map(|e| String::from_utf8(e.unwrap().key().to_vec()).unwrap()).collect()
}

fn is(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|e| e == extension)
}

fn files(sim: &SimFs, extension: &str) -> usize {
    sim.files().iter().filter(|(path, _)| is(path, extension)).count()
}

/// Its delete went to the journal, where no reader accepts it: the database was read-only at once,
/// and could never be opened again.
#[test]
fn a_prefix_longer_than_any_key_is_refused() {
    let sim = Arc::new(SimFs::new(1));
    let db = open(&small(), &sim);
    let a = db.keyspace("a").unwrap();
    let long = vec![7u8; esker::MAX_KEY_LEN + 2];
    assert_eq!(kind(a.delete_range(Prefix(&long))), Some(ErrorKind::Invalid));
    assert_eq!(kind(db.batch().delete_range(&a, Prefix(&long)).commit()), Some(ErrorKind::Invalid));
    assert_eq!(kind(a.prefix(&long).next().unwrap()), Some(ErrorKind::Invalid));
    a.delete_range(Prefix(&long[..esker::MAX_KEY_LEN])).unwrap();
    a.put("k", "v").unwrap();
    drop((a, db));
    assert_eq!(keys(&open(&small(), &sim).keyspace("a").unwrap()), ["k"]);
}

/// The room for the mark behind a batch was forgotten where a segment was made to measure: the
/// commit made one segment after another until the disk was full.
#[test]
fn a_batch_of_any_size_finds_a_segment() {
    for lengths in [8100..8200, 12_200..12_300usize] {
        let sim = Arc::new(SimFs::new(1));
        sim.set_capacity(Some(8 << 20));
        let db = open(&small(), &sim);
        let a = db.keyspace("a").unwrap();
        for len in lengths {
            a.put("k", vec![1; len]).unwrap();
            while db.step().unwrap() {}
        }
    }
}

/// A segment that the journal had left, with nothing to sync any more, was never sealed; the empty
/// one behind it was, and the directory did not open any more.
#[test]
fn a_rotation_that_no_commit_followed_survives_the_close() {
    let sim = Arc::new(SimFs::new(1));
    let faults = Arc::new(FaultFs::new(sim.clone()));
    let options = small().mapped(true).segment_bytes(1 << 20).journal_bytes(8 << 20).memtable_bytes(8 << 20);
    let db = open(&options, &faults);
    let a = db.keyspace("a").unwrap();
    a.put("1", vec![1; 600 << 10]).unwrap();
    db.sync().unwrap();
    // The next one rotates, and then its pages cannot be made ready.
    faults.fail(Rule { op: Op::Populate, nth: 2, kind: Fault::Full, forever: false });
    assert_eq!(kind(a.put("2", vec![2; 600 << 10])), Some(ErrorKind::DiskFull));
    drop(a);
    db.close().unwrap();
    assert_eq!(keys(&open(&options, &sim).keyspace("a").unwrap()), ["1"]);
}

/// Replacing a keyspace touches every key of it; the check asked only the new contents.
#[test]
fn a_replaced_keyspace_is_not_unchanged() {
    let sim = Arc::new(SimFs::new(1));
    let db = open(&small(), &sim);
    let (users, staging) = (db.keyspace("users").unwrap(), db.keyspace("staging").unwrap());
    users.put("k", "1").unwrap();
    staging.put("other", "1").unwrap();
    let snapshot = db.snapshot();
    let since = |condition: &dyn Fn(&mut esker::Batch)| {
        let mut batch = db.batch();
        condition(&mut batch);
        kind(batch.put(&users, "mark", "m").commit())
    };
    let key = |batch: &mut esker::Batch| {
        batch.require(&users, "k", Expect::Unchanged(&snapshot));
    };
    let range = |batch: &mut esker::Batch| {
        batch.require_range(&users, "k".."l", Expect::Unchanged(&snapshot));
    };
    assert_eq!((since(&key), since(&range)), (None, None));
    db.batch().replace(&users, &staging).commit().unwrap();
    assert_eq!(since(&key), Some(ErrorKind::Conflict));
    assert_eq!(since(&range), Some(ErrorKind::Conflict));
    // One that did not exist yet was empty then, and whatever came since is known.
    let young = db.keyspace("young").unwrap();
    let mut batch = db.batch();
    batch.require(&young, "k", Expect::Unchanged(&snapshot)).put(&young, "k", "v").commit().unwrap();
    batch.require(&young, "k", Expect::Unchanged(&snapshot)).put(&young, "k", "v");
    assert_eq!(kind(batch.commit()), Some(ErrorKind::Conflict));
    // Made since, and then replaced by what is older than the snapshot.
    let staging = db.keyspace("staging").unwrap();
    staging.put("old", "1").unwrap();
    let snapshot = db.snapshot();
    let late = db.keyspace("late").unwrap();
    db.batch().replace(&late, &staging).commit().unwrap();
    batch.clear().require(&late, "old", Expect::Unchanged(&snapshot)).put(&late, "k", "v");
    assert_eq!(kind(batch.commit()), Some(ErrorKind::Conflict));
}

/// A keyspace was dropped while it was being flushed: its tables were left out of the manifest, and
/// its journal was freed as if they were in it. A power loss that took the drop back took the data
/// with it.
#[test]
fn a_drop_during_a_flush_can_be_taken_back_by_a_power_loss() {
    let sim = Arc::new(SimFs::new(1));
    let to_drop: Arc<Mutex<Option<Db>>> = Arc::default();
    let hook = to_drop.clone();
    let fs = HookFs::new(sim.clone(), move |doing, path| {
        if doing == Doing::Create && is(path, "table") {
            let db = hook.lock().unwrap().take();
            if let Some(db) = db {
                db.drop_keyspace("k").unwrap();
            }
        }
    });
    let options = small().memtable_bytes(1 << 20);
    let db = open(&options, &fs);
    let (a, k) = (db.keyspace("a").unwrap(), db.keyspace("k").unwrap());
    for i in 0..40 {
        a.put(format!("{i:02}"), [1; 500]).unwrap();
        k.put(format!("{i:02}"), [2; 500]).unwrap();
    }
    *to_drop.lock().unwrap() = Some(db.clone());
    db.flush().unwrap();
    assert_eq!(db.names().unwrap().len(), 1, "dropped by now");
    for choice in 0..sim.states_at(sim.ops()) {
        let crashed = Arc::new(sim.crash(choice));
        let db = open(&options, &crashed);
        assert_eq!(db.keyspace("a").unwrap().iter().count(), 40);
        if db.names().unwrap().len() == 2 {
            assert_eq!(db.keyspace("k").unwrap().iter().count(), 40, "choice {choice}");
        }
    }
}

/// The commit is in the journal and readers see it: an error that invites to try again would have
/// it done twice.
#[test]
fn a_full_disk_at_a_sync_is_final() {
    let sim = Arc::new(SimFs::new(1));
    let faults = Arc::new(FaultFs::new(sim.clone()));
    let db = open(&small().durability(Durability::Sync), &faults);
    let a = db.keyspace("a").unwrap();
    faults.fail_in(".journal", Rule { op: Op::Sync, nth: 1, kind: Fault::Full, forever: false });
    let e = a.put("k", "v").unwrap_err();
    assert!(!e.is_retryable(), "{e:?}");
    assert!(a.put("k", "v").unwrap_err().is_final());
}

/// Nobody knows what such a write left behind, and the journal takes nothing more; the error said
/// "full" forever instead, and that nothing was written.
#[test]
fn a_full_disk_in_the_middle_of_a_write_is_final() {
    for len in [100, 100 << 10] {
        let sim = Arc::new(SimFs::new(1));
        let faults = Arc::new(FaultFs::new(sim.clone()));
        let options = small().segment_bytes(1 << 20).journal_bytes(4 << 20);
        let db = open(&options, &faults);
        let a = db.keyspace("a").unwrap();
        faults.fail_in(".journal", Rule { op: Op::Write, nth: 1, kind: Fault::Full, forever: false });
        let e = a.put("k", vec![1; len]).unwrap_err();
        assert!(!e.is_retryable(), "{e:?}");
        assert!(a.put("k", "v").unwrap_err().is_final());
    }
}

/// What could not be announced stayed on the disk; with the disk full, each try took more of it.
#[test]
fn a_segment_that_could_not_be_announced_is_removed() {
    let sim = Arc::new(SimFs::new(1));
    let faults = Arc::new(FaultFs::new(sim.clone()));
    let db = open(&small(), &faults);
    let before = files(&sim, "journal");
    for _ in 0..3 {
        faults.fail(Rule { op: Op::SyncDir, nth: 1, kind: Fault::Io, forever: false });
        let failed =
            std::iter::from_fn(|| db.step().map(|more| more.then_some(())).transpose()).find(|s| s.is_err());
        assert_eq!(failed.map(kind), Some(Some(ErrorKind::Io)));
        assert_eq!(files(&sim, "journal"), before);
    }
    while db.step().unwrap() {}
    assert_eq!(files(&sim, "journal"), before + 1);
}

/// A piece of work that failed was the most urgent one again at once, and nothing else was done any
/// more: no flush, while there was no room for the next journal segment.
#[test]
fn work_that_fails_keeps_nothing_else_from_being_done() {
    let sim = Arc::new(SimFs::new(1));
    let faults = Arc::new(FaultFs::new(sim.clone()));
    let db = open(&small(), &faults);
    let a = db.keyspace("a").unwrap();
    // Only segments cannot be made.
    faults.fail_in(".journal", Rule { op: Op::Allocate, nth: 1, kind: Fault::Full, forever: true });
    while a.put("k", [1; 300]).is_ok() {}
    let mut failed = 0;
    for _ in 0..20 {
        failed += usize::from(db.step().is_err());
    }
    assert!(failed > 0);
    let flushed = db.flush();
    assert!(flushed.is_ok(), "{flushed:?}");
    assert!(files(&sim, "table") > 0);
    faults.clear();
    a.put("k", [1; 300]).unwrap();
}

/// Pieces of work that callers were doing went on after the close had let go of the directory.
#[test]
fn a_close_waits_for_work_that_callers_do() {
    let sim = Arc::new(SimFs::new(1));
    let unlocked = Arc::new(AtomicBool::new(false));
    let late = Arc::new(AtomicUsize::new(0));
    let closing: Arc<OnceLock<Db>> = Arc::default();
    let closer: Arc<Mutex<Option<std::thread::JoinHandle<()>>>> = Arc::default();
    let (to_close, started, is_unlocked, is_late) =
        (closing.clone(), closer.clone(), unlocked.clone(), late.clone());
    let fs = HookFs::new(sim.clone(), move |doing, path| {
        if doing == Doing::Unlock {
            is_unlocked.store(true, Ordering::SeqCst);
        } else if is_unlocked.load(Ordering::SeqCst) {
            is_late.fetch_add(1, Ordering::SeqCst);
        }
        if doing == Doing::Create
            && is(path, "table")
            && let Some(db) = to_close.get()
            && started.lock().unwrap().is_none()
        {
            let closing = db.clone();
            *started.lock().unwrap() = Some(std::thread::spawn(move || closing.close().unwrap()));
            while db.names().is_ok() {
                std::thread::yield_now();
            }
            // Time to go wrong in.
            for _ in 0..1000 {
                std::thread::yield_now();
            }
        }
    });
    let db = open(&small(), &fs);
    let a = db.keyspace("a").unwrap();
    for i in 0..20 {
        a.put(format!("{i:02}"), [1; 500]).unwrap();
    }
    let _ = closing.set(db.clone());
    let _ = db.flush();
    let handle = closer.lock().unwrap().take().unwrap();
    handle.join().unwrap();
    assert!(unlocked.load(Ordering::SeqCst));
    assert_eq!(late.load(Ordering::SeqCst), 0, "changes after the directory was let go of");
}

/// A waker may do anything; it was called under the lock on commits.
#[test]
fn a_waker_may_use_the_database() {
    struct Writes(Keyspace, AtomicUsize);
    impl Wake for Writes {
        fn wake(self: Arc<Self>) {
            self.0.put("from the waker", "v").unwrap();
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }
    let sim = Arc::new(SimFs::new(1));
    let db = open(&small(), &sim);
    let a = db.keyspace("a").unwrap();
    for kind in [Durability::Buffered, Durability::Sync] {
        let writes = Arc::new(Writes(a.clone(), AtomicUsize::new(0)));
        let waker: Waker = writes.clone().into();
        db.sync().unwrap();
        let mut watch = db.watch(kind);
        watch.wait().unwrap();
        {
            let mut changed = pin!(watch.changed());
            assert!(changed.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            a.put("k", "v").unwrap();
            db.sync().unwrap();
        }
        assert_eq!(writes.1.load(Ordering::SeqCst), 1);
    }
}

/// The last handle may go with a waker, in the thread that wakes: that one cannot wait for itself.
#[test]
fn the_last_handle_may_go_with_a_waker() {
    struct Holds(#[expect(dead_code, reason = "held")] Db);
    impl Wake for Holds {
        fn wake(self: Arc<Self>) {}
    }
    let dir = tempfile::tempdir().unwrap();
    let options = Options::default().workers(1);
    for _ in 0..20 {
        let db = Db::open(dir.path(), options.clone()).unwrap();
        let a = db.keyspace("a").unwrap();
        let mut ticket = Box::pin(db.batch().put(&a, "k", "v").submit().unwrap());
        let waker: Waker = Arc::new(Holds(db.clone())).into();
        drop((a, db));
        let pending = ticket.as_mut().poll(&mut Context::from_waker(&waker)).is_pending();
        drop(waker);
        while pending && ticket.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            std::thread::yield_now();
        }
        // Whoever closes it, the directory becomes free.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            match Db::open(dir.path(), options.clone()) {
                Ok(db) => break db.close().unwrap(),
                Err(e) => assert_eq!(e.kind(), ErrorKind::Locked),
            }
            assert!(std::time::Instant::now() < deadline, "the directory was never let go of");
            std::thread::yield_now();
        }
    }
}

/// A close makes every commit durable; tickets that were polled while it did were told that it had
/// failed.
#[test]
fn a_ticket_polled_during_the_close_is_kept() {
    let sim = Arc::new(SimFs::new(1));
    let hold = Arc::new(AtomicUsize::new(0));
    let holding = hold.clone();
    // 1: the next sync that the ticket asks for shall wait, 2: it does, 0: none has to.
    let fs = HookFs::new(sim.clone(), move |doing, path| {
        let asked = doing == Doing::Sync && is(path, "journal");
        let asked = asked && std::thread::current().name() == Some("esker-sync");
        if asked && holding.load(Ordering::SeqCst) == 1 {
            holding.store(2, Ordering::SeqCst);
            while holding.load(Ordering::SeqCst) == 2 {
                std::thread::yield_now();
            }
        }
    });
    let db = open(&small().workers(1), &fs);
    let a = db.keyspace("a").unwrap();
    db.sync().unwrap();
    hold.store(1, Ordering::SeqCst);
    let mut ticket = pin!(db.batch().put(&a, "k", "v").submit().unwrap());
    while hold.load(Ordering::SeqCst) == 1 {
        std::thread::yield_now();
    }
    std::thread::scope(|s| {
        let closing = db.clone();
        s.spawn(move || closing.close().unwrap());
        while db.names().is_ok() {
            std::thread::yield_now();
        }
        let polled = ticket.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        hold.store(0, Ordering::SeqCst);
        assert!(polled.is_pending(), "{polled:?}");
    });
    let polled = ticket.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Ready(Ok(_))), "{polled:?}");
}

/// A segment whose operations are all in tables, behind one that is still needed, is given up by the
/// next opening. It was counted as left over, as if the close had not been a clean one.
#[test]
fn a_segment_given_up_by_an_opening_is_not_left_over() {
    let sim = Arc::new(SimFs::new(1));
    // Synced, so that no flush takes along what others hold.
    let options = small().memtable_bytes(4 << 10).journal_bytes(1 << 20).durability(Durability::Sync);
    let db = open(&options, &sim);
    let (a, b) = (db.keyspace("a").unwrap(), db.keyspace("b").unwrap());
    a.put("k", "needs the first segment").unwrap();
    // Through the second one and into the third, and most of it to tables.
    for i in 0..12 {
        b.put([i], [1; 3000]).unwrap();
        while db.step().unwrap() {}
    }
    drop((a, b));
    db.close().unwrap();
    let journals = files(&sim, "journal");
    let db = open(&options, &sim);
    assert_eq!(db.recovery().removed, 0);
    assert!(files(&sim, "journal") < journals, "what was not needed went");
}

/// A segment that could not be opened or read left a gap in the journal, which was told as damage; so
/// was the header of a sealed one.
#[test]
fn what_verify_cannot_read_is_not_damaged() {
    for seal in [false, true] {
        let sim = Arc::new(SimFs::new(1));
        let faults = Arc::new(FaultFs::new(sim));
        let db = open(&small(), &faults);
        let a = db.keyspace("a").unwrap();
        for i in 0..15u8 {
            a.put([i], [7; 1000]).unwrap();
        }
        db.sync().unwrap();
        if seal {
            db.checkpoint("/copy").unwrap();
        }
        assert!(db.verify().unwrap().is_ok());
        for op in [Op::OpenRead, Op::Len, Op::Read] {
            faults.fail_in(".journal", Rule { op, nth: 1, kind: Fault::Io, forever: true });
            let damage = db.verify().unwrap().damage;
            assert!(!damage.is_empty(), "{op:?}");
            assert!(damage.iter().all(|e| e.kind() == ErrorKind::Io), "{op:?}: {damage:?}");
            faults.clear();
        }
        assert!(db.verify().unwrap().is_ok());
    }
}

/// Of a segment whose end was cut off, behind all that it held, verification said nothing, and the
/// next opening refused it.
#[test]
fn a_segment_that_was_cut_is_seen_by_verification() {
    let sim = Arc::new(SimFs::new(1));
    let db = open(&small(), &sim);
    db.keyspace("a").unwrap().put("k", "v").unwrap();
    db.sync().unwrap();
    assert!(db.verify().unwrap().is_ok());
    let (path, len) = sim.files().into_iter().find(|(path, _)| is(path, "journal")).unwrap();
    sim.damage(&path, |bytes| bytes.truncate(len as usize - 1)).unwrap();
    let damage = db.verify().unwrap().damage;
    assert!(damage.len() == 1 && damage[0].file() == Some(&path), "{damage:?}");
    assert!(damage[0].to_string().contains("was cut"), "{damage:?}");
    let refused = Db::open(DIR, small().fs(Arc::new(sim.crash(1)))).unwrap_err();
    assert!(refused.is_corruption() && refused.file() == Some(&path), "{refused:?}");
}

/// A copy went on with the numbers of the original. Removed, it left a manifest on the disk that had the
/// number which the original's next opening gives to its own; where that lay in the same place and
/// the power went before it was written, the old one showed, was complete, and was taken for it.
#[test]
fn what_a_removed_copy_leaves_on_the_disk_is_not_taken_for_ours() {
    let sim = Arc::new(SimFs::new(1));
    let db = open(&small(), &sim);
    let a = db.keyspace("a").unwrap();
    a.put("k", "in the copy").unwrap();
    db.checkpoint("/copy").unwrap();
    a.put("l", "later").unwrap();
    drop((a, db));
    let manifest = |sim: &SimFs, dir: &str| {
        let mut files =
            sim.files().into_iter().filter(|(path, _)| path.starts_with(dir) && is(path, "manifest"));
        files.next().unwrap().0
    };
    let left = sim.read(manifest(&sim, "/copy")).unwrap();
    // Where the next opening puts its manifest, with what lay there before.
    let next = sim.crash(1);
    drop(open(&small(), &Arc::new(next.clone())));
    let fresh = sim.create(&manifest(&next, DIR)).unwrap();
    esker::fs::write_all_at(&*fresh, &left, 0).unwrap();
    let db = open(&small(), &sim);
    assert_eq!(keys(&db.keyspace("a").unwrap()), ["k", "l"]);
    assert!(manifest(&sim, DIR) > manifest(&next, DIR));
}

/// A process that dies within the write that begins a segment may leave one of the two copies of its
/// header; read-only, where nothing is written again, verification called that damage, as if all
/// that was read were durable.
#[test]
fn what_a_death_leaves_half_written_is_not_damaged() {
    let sim = SimFs::new(1);
    let options = small().fs(Arc::new(sim.clone()));
    let a = Db::open(DIR, options.clone()).unwrap().keyspace("a").unwrap();
    let created = sim.ops();
    for i in 0..20u8 {
        a.put([i], [i; 1000]).unwrap();
        if i % 16 == 7 {
            a.db().sync().unwrap();
        }
    }
    let mut headers = 0;
    for op in created..=sim.ops() {
        // Everything is left, or something.
        for choice in [1, 70, 71, 72] {
            let disk = sim.crash_at(op, choice);
            for read_only in [true, false] {
                let left = options.clone().fs(Arc::new(disk.clone())).read_only(read_only);
                let found = Db::open(DIR, left).unwrap().verify().unwrap();
                assert!(
                    found.is_ok(),
                    "{op} {choice} {read_only}: {found}\n{:?}",
                    sim.log()[op as usize - 1]
                );
            }
        }
        let done = &sim.log()[op as usize - 1];
        headers += u32::from(done.contains(".journal") && done.ends_with(" at 0"));
    }
    assert!(headers > 1, "{:#?}", sim.log());
}

/// A flush took the place of a sync that had failed: it called durable what the failed sync had left
/// unknown, and the segments that sync had taken were never given up.
#[test]
fn no_flush_takes_the_place_of_a_sync_that_failed() {
    let sim = Arc::new(SimFs::new(1));
    let faults = Arc::new(FaultFs::new(sim.clone()));
    let synced = |sim: &SimFs, from: usize| {
        sim.log()[from..].iter().any(|done| done.starts_with("sync /") && done.ends_with(".journal"))
    };
    let to_sync: Arc<Mutex<Option<Db>>> = Arc::default();
    let began = Arc::new(AtomicUsize::new(0));
    let (hook, disk, failing, step) = (to_sync.clone(), sim.clone(), faults.clone(), began.clone());
    let fs = HookFs::new(faults.clone(), move |doing, path| {
        // A flush writes its table, and has not synced the journal: it stands alone.
        let flush = doing == Doing::Create && is(path, "table");
        let alone = flush && !synced(&disk, step.load(Ordering::Relaxed));
        let to_sync = if alone { hook.lock().unwrap().take() } else { None };
        if let Some(db) = to_sync {
            let rule = Rule { op: Op::Sync, nth: 1, kind: Fault::Io, forever: false };
            failing.fail_in(".journal", rule);
            assert_eq!(kind(db.sync()), Some(ErrorKind::Io));
        }
    });
    let db = open(&small(), &fs);
    let a = db.keyspace("a").unwrap();
    let (mut n, mut alone, mut failed) = (0, 0, false);
    while !failed && n < 2000 {
        a.put(format!("{n:06}"), [n as u8; 500]).unwrap();
        n += 1;
        // First some that do take the place of syncs.
        if alone == 3 {
            *to_sync.lock().unwrap() = Some(db.clone());
        }
        began.store(sim.ops() as usize, Ordering::Relaxed);
        let (durable, segments) = (db.durable_seq(), files(&sim, "journal"));
        let done = db.step();
        failed = alone == 3 && to_sync.lock().unwrap().is_none();
        if failed {
            assert_eq!((db.durable_seq(), files(&sim, "journal")), (durable, segments));
            assert_eq!(kind(done), Some(ErrorKind::ReadOnly));
        } else {
            let without_sync = !synced(&sim, began.load(Ordering::Relaxed));
            alone += u32::from(done.is_ok() && db.durable_seq() > durable && without_sync);
        }
    }
    assert!(failed && alone == 3, "{alone} flushes stood alone: {:#?}", sim.log());
    let durable = db.durable_seq().get() as usize;
    for choice in 0..sim.states_at(sim.ops()) {
        let db = open(&small(), &Arc::new(sim.crash(choice)));
        let found = keys(&db.keyspace("a").unwrap());
        assert!(found.iter().enumerate().all(|(i, key)| *key == format!("{i:06}")));
        assert!(found.len() <= n && db.visible_seq().get() as usize >= durable);
    }
}

/// What an operation says of itself was damaged where it says how many entries it holds: reading one of them
/// failed with a word about the operation, which did not tell the log, nor the index.
#[test]
fn an_entry_whose_operation_is_damaged_is_named() {
    let sim = Arc::new(SimFs::new(1));
    let db = open(&small().memtable_bytes(1 << 10), &sim);
    let logs = db.logs("logs").unwrap();
    for n in 0..20u8 {
        db.batch().push(&logs.log(7), 1, [b'x' + n % 2; 900]).commit().unwrap();
    }
    db.flush().unwrap();
    while db.step().unwrap() {}
    let first = sim.files().into_iter().map(|f| f.0).find(|path| is(path, "footer")).unwrap();
    let segment = first.with_extension("journal");
    drop((logs, db));
    // Before the payloads: log, first index, how many entries, runs of tags, and bytes.
    let at = sim.read(&segment).unwrap().windows(900).position(|bytes| bytes == [b'x'; 900]).unwrap() - 28;
    sim.damage(&segment, |bytes| bytes[at + 16..at + 20].fill(0)).unwrap();
    for mapped in [false, true] {
        let db = open(&small().mapped(mapped).read_only(true), &sim);
        let log = db.logs("logs").unwrap().log(7);
        let e = log.get(0).unwrap_err();
        assert!(e.is_corruption() && e.to_string().contains("entry 0 of log 7"), "{e}");
        assert_eq!((e.file(), e.offset()), (Some(&*segment), Some(at as u64)));
        assert_eq!(log.get(1).unwrap().unwrap().bytes(), [b'y'; 900]);
    }
}
