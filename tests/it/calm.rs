//! Writers that are faster than the disk: delays, deadlines, budgets that all keyspaces share.

use crate::crash::seeds;
use crate::hook::{Doing, HookFs};
use crate::state::small;
use esker::fs::sim::SimFs;
use esker::{Compression, Db, Durability, ErrorKind, Keyspace, KeyspaceOptions, Options};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

const DIR: &str = "/db";

/// A place where the disk stands still until it is told to go on.
#[derive(Default)]
struct Gate {
    /// Whether it is shut, and how many wait in front of it.
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, shut: bool) {
        self.state.lock().unwrap().0 = shut;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        self.changed.notify_all();
        while state.0 {
            state = self.changed.wait(state).unwrap();
        }
        state.1 -= 1;
    }

    fn await_somebody(&self) {
        let mut state = self.state.lock().unwrap();
        while state.1 == 0 {
            state = self.changed.wait(state).unwrap();
        }
    }
}

/// A database whose files of one kind are created only when the gate is open.
fn gated(extension: &'static str, options: Options) -> (Db, Arc<Gate>) {
    let gate: Arc<Gate> = Arc::default();
    let hook = gate.clone();
    let fs = HookFs::new(Arc::new(SimFs::new(1)), move |doing, path: &Path| {
        if doing == Doing::Create && path.extension().is_some_and(|e| e == extension) {
            hook.pass();
        }
    });
    (Db::open(DIR, options.fs(fs)).unwrap(), gate)
}

/// Opens the gate also when the test fails, or the close would wait for ever.
struct Opens(Arc<Gate>);

impl Drop for Opens {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

fn fill_with_deadline(db: &Db, a: &Keyspace, from: u64) -> (u64, esker::Error) {
    let mut batch = db.batch();
    batch.deadline(Duration::from_millis(20));
    for n in from..from + 10_000 {
        batch.put(a, n.to_be_bytes(), [7; 200]);
        let committed = if n % 2 == 0 { batch.commit().map(drop) } else { batch.submit().map(drop) };
        if let Err(e) = committed {
            assert_eq!(batch.len(), 1, "left for a retry");
            return (n, e);
        }
    }
    panic!("there is always room");
}

/// No table can be written, so nothing is flushed: memory is full soon.
#[test]
fn a_stalled_database_answers_busy_before_anything_is_written() {
    for durability in [Durability::Buffered, Durability::Sync] {
        let (db, gate) = gated("table", small().workers(1).durability(durability).journal_bytes(1 << 20));
        let _opens = Opens(gate.clone());
        let a = db.keyspace("a").unwrap();
        gate.set(true);
        let (written, e) = fill_with_deadline(&db, &a, 0);
        assert_eq!(e.kind(), ErrorKind::Busy, "{e}");
        assert!(e.is_retryable());
        let seq = db.visible_seq();
        for submit in [false, true] {
            let mut batch = db.batch();
            batch.deadline(Duration::ZERO).put(&a, "late", "v");
            let e = if submit { batch.submit().map(drop) } else { batch.commit().map(drop) };
            assert_eq!(e.unwrap_err().kind(), ErrorKind::Busy);
        }
        assert_eq!(db.visible_seq(), seq);
        assert_eq!(a.iter().count() as u64, written);
        // A batch that writes nothing needs no room.
        db.batch().deadline(Duration::ZERO).commit().unwrap();
        // Without a deadline it waits, and is written when there is room.
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| a.put("late", "v"));
            gate.await_somebody();
            gate.set(false);
            waiting.join().unwrap().unwrap();
        });
        let mut batch = db.batch();
        batch.deadline(Duration::from_secs(3600)).put(&a, "later", "v");
        batch.commit().unwrap();
        assert_eq!(a.iter().count() as u64, written + 2);
    }
}

/// The next segment of the journal is waited for as well.
#[test]
fn a_deadline_holds_for_the_next_segment() {
    let (db, gate) = gated("journal", small().workers(1).memtable_bytes(1 << 20));
    let _opens = Opens(gate.clone());
    let a = db.keyspace("a").unwrap();
    gate.set(true);
    std::thread::scope(|scope| {
        // Somebody without a deadline is at it, or the background is.
        let blocked =
            scope.spawn(|| (0..500u64).try_for_each(|n| a.put(n.to_be_bytes(), [7; 200]).map(drop)));
        gate.await_somebody();
        let (_, e) = fill_with_deadline(&db, &a, 1000);
        assert_eq!(e.kind(), ErrorKind::Busy, "{e}");
        let (seq, count) = (db.visible_seq(), a.range(1000u64.to_be_bytes()..).count());
        let mut batch = db.batch();
        batch.deadline(Duration::from_millis(1)).put(&a, "late", [7; 200]);
        assert_eq!(batch.submit().map(drop).unwrap_err().kind(), ErrorKind::Busy);
        assert_eq!((db.visible_seq(), a.range(1000u64.to_be_bytes()..).count()), (seq, count));
        gate.set(false);
        blocked.join().unwrap().unwrap();
        batch.deadline(Duration::from_secs(3600)).commit().unwrap();
    });
    assert!(a.contains("late").unwrap());
}

/// A hundred keyspaces: what is frozen of all of them together is what writers wait for.
#[test]
fn keyspaces_share_what_may_be_frozen() {
    const MEMTABLE: usize = 64 << 10;
    let (db, gate) = gated("table", small().workers(1).memtable_bytes(MEMTABLE).journal_bytes(64 << 20));
    let _opens = Opens(gate.clone());
    let keyspaces: Vec<Keyspace> = (0..100).map(|n| db.keyspace(&format!("{n:02}")).unwrap()).collect();
    gate.set(true);
    let mut batch = db.batch();
    batch.deadline(Duration::from_millis(300));
    let mut written = 0;
    let e = 'full: loop {
        for keyspace in &keyspaces {
            batch.put(keyspace, (written as u64).to_be_bytes(), [7; 1000]);
            if let Err(e) = batch.commit_with(Durability::Buffered) {
                break 'full e;
            }
            written += 1000;
        }
    };
    assert_eq!(e.kind(), ErrorKind::Busy, "{e}");
    // Arenas of small memtables take more than what is in them.
    assert!((MEMTABLE..5 * MEMTABLE).contains(&written), "{written} bytes of values in memory");
    // Those that are dropped are not waited for.
    (0..100).for_each(|n| db.drop_keyspace(&format!("{n:02}")).unwrap());
    let last = db.keyspace("last").unwrap();
    let mut batch = db.batch();
    batch.deadline(Duration::from_secs(60)).put(&last, "k", "v");
    batch.commit_with(Durability::Buffered).unwrap();
    gate.set(false);
    db.flush().unwrap();
}

/// Prints what writers see that are faster than the background: the longest puts, and what gets through. `cargo
/// test --release --test it calm::writers_faster -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn writers_faster_than_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::default()
        .durability(Durability::Buffered)
        .workers(1)
        .memtable_bytes(4 << 20)
        .table_bytes(4 << 20)
        .segment_bytes(16 << 20)
        .journal_bytes(256 << 20);
    let db = Db::open(dir.path(), options).unwrap();
    let a = db.keyspace("a").unwrap();
    for threads in [1usize, 4] {
        let seconds = std::env::var("ESKER_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(20);
        let begin = std::time::Instant::now();
        let mut all: Vec<(u64, u64)> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..threads)
                .map(|t| {
                    let a = &a;
                    scope.spawn(move || {
                        let mut rng = crate::rng::Rng::new(t as u64 + threads as u64 * 10);
                        let mut puts = Vec::new();
                        while begin.elapsed().as_secs() < seconds {
                            let began = std::time::Instant::now();
                            a.put(rng.next().to_be_bytes(), [7; 200]).unwrap();
                            puts.push((
                                began.duration_since(begin).as_millis() as u64,
                                began.elapsed().as_nanos() as u64,
                            ));
                        }
                        puts
                    })
                })
                .collect();
            writers.into_iter().flat_map(|w| w.join().unwrap()).collect()
        });
        let mut slices = vec![0u64; seconds as usize + 1];
        all.iter().for_each(|(at, _)| slices[(*at / 1000) as usize] += 208);
        all.sort_by_key(|p| p.1);
        let at = |part: f64| all[((all.len() - 1) as f64 * part) as usize].1 as f64 / 1e6;
        println!(
            "{threads} writers: {} puts, {:.1} MB/s; p50 {:.4} p99 {:.3} p99.9 {:.3} p99.99 {:.3} max {:.1} ms",
            all.len(),
            all.len() as f64 * 208e-6 / seconds as f64,
            at(0.5),
            at(0.99),
            at(0.999),
            at(0.9999),
            at(1.0)
        );
        println!("MB in each second: {:?}", slices.iter().map(|b| b / 1_000_000).collect::<Vec<_>>());
    }
}

/// Tables take the space that what is in them takes.
fn raw() -> Options {
    small().keyspaces(KeyspaceOptions::default().compression(Compression::None))
}

/// Fills the disk, and says how many puts that took.
fn fill(db: &Db, a: &Keyspace, from: u64) -> u64 {
    for n in from.. {
        match a.put(n.to_be_bytes(), [7; 400]) {
            Ok(_) => while db.step().is_ok_and(|more| more) {},
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::DiskFull, "{e}");
                return n;
            }
        }
    }
    unreachable!()
}

fn used(sim: &SimFs) -> u64 {
    sim.files().iter().map(|f| f.1).sum()
}

fn is_there(sim: &SimFs, name: &str) -> bool {
    sim.files().iter().any(|(path, _)| path.ends_with(name))
}

/// A full disk with a closed database on it: keyspace `a` with so many rows, `b` with 100.
fn full_disk(options: &Options) -> (SimFs, u64) {
    let sim = SimFs::new(1);
    let db = Db::open(DIR, options.clone().fs(Arc::new(sim.clone()))).unwrap();
    let (a, b) = (db.keyspace("a").unwrap(), db.keyspace("b").unwrap());
    (0..100u64).for_each(|n| assert!(b.put(n.to_be_bytes(), [8; 400]).is_ok()));
    while db.step().unwrap() {}
    sim.set_capacity(Some(used(&sim) + (60 << 10)));
    // Space that is free by accident goes as well.
    let mut n = fill(&db, &a, 0);
    for _ in 0..5 {
        while db.step().is_ok_and(|more| more) {}
        sim.set_capacity(Some(used(&sim)));
        n = fill(&db, &a, n);
    }
    db.close().unwrap();
    sim.set_capacity(Some(used(&sim)));
    (sim, n)
}

/// What can be done on a full disk, and when there is space again.
fn live_on_a_full_disk(sim: &SimFs, options: &Options, rows: u64) -> esker::Result<()> {
    let db = Db::open(DIR, options.clone().fs(Arc::new(sim.clone())))?;
    let a = db.keyspace("a")?;
    let count = || a.range(..rows.to_be_bytes()).filter(|e| e.is_ok()).count() as u64;
    assert_eq!(count(), rows);
    let full = || {
        let mut more = rows..rows + 10_000;
        let e = more.find_map(|n| a.put(n.to_be_bytes(), [7; 400]).err()).expect("a full disk");
        assert_eq!(e.kind(), ErrorKind::DiskFull, "{e}");
    };
    full();
    // What takes away goes on.
    for n in 0..10 {
        a.delete((rows - 1 - n).to_be_bytes())?;
    }
    a.delete_range(0u64.to_be_bytes()..5u64.to_be_bytes())?;
    full();
    assert_eq!(count(), rows - 15);
    db.drop_keyspace("b")?;
    for _ in 0..1000 {
        let _ = db.step();
    }
    // The space of what was dropped is that of new writes, without reopening.
    for n in 0..20 {
        a.put((rows - 1 - n % 10).to_be_bytes(), [9; 40])?;
    }
    while db.step().is_ok_and(|more| more) {}
    db.close()
}

#[test]
fn a_full_disk_is_opened_read_and_emptied() {
    for durability in [Durability::Buffered, Durability::Sync] {
        let options = raw().durability(durability);
        let (sim, rows) = full_disk(&options);
        // Reading takes no space, and leaves everything as it is.
        let files = sim.files();
        let db = Db::open(DIR, options.clone().read_only(true).fs(Arc::new(sim.clone()))).unwrap();
        assert_eq!(db.keyspace("a").unwrap().iter().count() as u64, rows);
        drop(db);
        assert_eq!(sim.files(), files);
        live_on_a_full_disk(&sim, &options, rows).unwrap();
        // When there is space the reserve is there again.
        sim.set_capacity(None);
        let db = Db::open(DIR, options.clone().fs(Arc::new(sim.clone()))).unwrap();
        assert_eq!(db.keyspace("a").unwrap().range(..rows.to_be_bytes()).count() as u64, rows - 5);
        db.close().unwrap();
        assert!(is_there(&sim, "RESERVE"));
    }
}

/// The disk as the crash leaves it is as full as before. Where removed files come back, what took
/// their space cannot have: it is free.
fn crashed(sim: &SimFs, op: u64, choice: u64, capacity: u64) -> SimFs {
    let (live, disk) = (sim.crash_at(op, 1), sim.crash_at(op, choice));
    let lost = ["RESERVE", "SPARE"].iter().filter(|name| is_there(&live, name) && !is_there(&disk, name));
    disk.set_capacity(Some(capacity.max(used(&disk) + lost.count() as u64 * (96 << 10))));
    disk
}

/// The power goes at every operation of a life on a full disk, and again while it is opened after that: each
/// time it opens, and everything is there.
#[test]
fn a_full_disk_survives_power_loss_at_every_operation() {
    let options = raw().durability(Durability::Sync);
    let (full, rows) = full_disk(&options);
    let capacity = used(&full);
    let sim = crashed(&full, full.ops(), 1, capacity);
    live_on_a_full_disk(&sim, &options, rows).unwrap();
    let check = |disk: &SimFs, what: &str| {
        let db = Db::open(DIR, options.clone().fs(Arc::new(disk.clone())));
        let db = db.unwrap_or_else(|e| panic!("{what}: {e}"));
        let there = db
            .keyspace("a")
            .unwrap()
            .range(..rows.to_be_bytes())
            .map(|e| e.map(drop))
            .collect::<esker::Result<Vec<_>>>();
        let there = there.unwrap_or_else(|e| panic!("{what}: {e}")).len() as u64;
        assert!((rows - 15..=rows).contains(&there), "{what}: {there} of {rows}");
        db
    };
    // ESKER_SEEDS asks for all of them.
    let one_in = if seeds(1).count() > 1 { 1 } else { 31 };
    for op in (0..=sim.ops()).filter(|op| *op < 40 || op.is_multiple_of(one_in)) {
        for choice in [0, 6 + op].into_iter().chain((one_in == 1).then_some(3)) {
            let disk = crashed(&sim, op, choice, capacity);
            let what = format!("operation {op}, choice {choice}");
            drop(check(&disk, &what));
            // That opening is interrupted as well, and the next, in the middle of it.
            let mut again = disk;
            for depth in 0..if one_in == 1 { 5 } else { 2 } {
                let ops = again.ops();
                let (at, choice) = (ops * (op % 11) / 10, op + choice + depth);
                let at = at.min(ops);
                again = crashed(&again, at, choice % 8, capacity);
                check(&again, &format!("{what}, again at {at} of {ops}, choice {choice}"));
            }
            again.set_capacity(None);
            let db = check(&again, &what);
            let a = db.keyspace("a").unwrap();
            a.put("more", [1; 1000]).unwrap();
            db.flush().unwrap();
            db.close().unwrap();
            assert!(is_there(&again, "RESERVE") && is_there(&again, "SPARE"), "{what}");
        }
    }
}
