//! What is allocated, counted: nothing on the fast paths of reads and buffered writes, and no more
//! than must be by anything else.

use esker::{Compression, Db, Durability, Keyspace, KeyspaceOptions, Options};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use tempfile::TempDir;

/// Counts by thread, so that tests that run at the same time do not disturb each other.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// Bytes allocated and not freed by this thread; below zero where it frees what others gave it.
    static LIVE: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

/// `size`: of a new allocation, or 0.
fn note(size: usize, bytes: i64) {
    // A thread that ends may still free: nothing is counted then.
    let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + u64::from(size > 0)));
    let _ = LARGEST.try_with(|n| n.set(n.get().max(size)));
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

// SAFETY: everything is handed on to the system's allocator as it is; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size(), layout.size() as i64);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        note(0, -(layout.size() as i64));
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size(), layout.size() as i64);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size, size as i64 - layout.size() as i64);
        // SAFETY: as promised by the caller.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// How many allocations this thread makes meanwhile.
fn allocations(run: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    run();
    ALLOCATIONS.get() - before
}

/// By how many bytes what this thread holds grows, and by how many it had grown at most.
fn growth(run: impl FnOnce()) -> (i64, i64) {
    let before = LIVE.get();
    PEAK.set(before);
    run();
    (LIVE.get() - before, PEAK.get() - before)
}

/// What a call of this thread takes from the allocator.
#[derive(Clone, Copy, Debug)]
pub struct Grown {
    /// The largest piece asked for at once.
    pub largest: usize,
    /// By how many bytes what is held had grown at most.
    pub peak: usize,
}

pub fn grown<T>(run: impl FnOnce() -> T) -> (T, Grown) {
    LARGEST.set(0);
    let mut result = None;
    let (_, peak) = growth(|| result = Some(run()));
    (result.expect("it ran"), Grown { largest: LARGEST.get(), peak: peak as usize })
}

fn fresh(options: Options) -> (TempDir, Db) {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), options.durability(Durability::Buffered).workers(0)).unwrap();
    (dir, db)
}

fn key(n: u64) -> [u8; 12] {
    let mut key = *b"key/00000000";
    key[4..].copy_from_slice(&n.to_be_bytes());
    key
}

#[test]
fn a_buffered_put_allocates_nothing() {
    for mapped in [true, false] {
        let (_dir, db) = fresh(Options::default().mapped(mapped));
        let a = db.keyspace("a").unwrap();
        for n in 0..20_000 {
            a.put(key(n % 500), [7; 100]).unwrap();
        }
        // The memtable takes its memory in pieces of a megabyte, thousands of puts apart.
        let puts = (0..3_000).filter(|&n| allocations(|| drop(a.put(key(n % 500), [8; 100]))) > 0).count();
        assert!(puts <= 1, "{puts} of 3000 puts (mapped: {mapped})");
        let deletes = (0..3_000).filter(|&n| allocations(|| drop(a.delete(key(n % 500)))) > 0).count();
        assert!(deletes <= 1, "{deletes} of 3000 deletes (mapped: {mapped})");
        // New keys: where a leaf is full it is split, one of some dozens.
        let new = (0..3_000).filter(|&n| allocations(|| drop(a.put(key(1000 + n), [8; 100]))) > 0).count();
        assert!(new <= 200, "{new} of 3000 puts of new keys (mapped: {mapped})");
    }
}

/// A keyspace in each state reads find one in, with 2000 keys.
fn states(db: &Db) -> Vec<(String, Keyspace)> {
    let mut all = Vec::new();
    for (name, compression) in [("raw", Compression::None), ("compressed", Compression::Lz4)] {
        let options = KeyspaceOptions::default().compression(compression);
        let filled = |state: &str| {
            let name = format!("{name}, {state}");
            let keyspace = db.keyspace_with(&name, options).unwrap();
            for n in 0..2000 {
                keyspace.put(key(n), [n as u8; 60]).unwrap();
            }
            (name, keyspace)
        };
        let (flushed, mixed) = (filled("in a table"), filled("in all places"));
        db.flush().unwrap();
        for round in 0..3 {
            for n in (round..2000).step_by(7) {
                mixed.1.put(key(n), [1; 60]).unwrap();
            }
            mixed.1.delete_range(key(1000 + round)..key(1001 + round)).unwrap();
            if round < 2 {
                db.flush().unwrap();
            }
        }
        all.extend([flushed, mixed, filled("in memory")]);
    }
    all
}

#[test]
fn reads_in_place_allocate_nothing() {
    for mapped in [true, false] {
        let (_dir, db) = fresh(Options::default().mapped(mapped));
        for (name, keyspace) in states(&db) {
            let snapshot = db.snapshot();
            let view = keyspace.at(&snapshot);
            let mut buf = Vec::with_capacity(100);
            let mut read = || {
                for n in 0..2100 {
                    let found = keyspace.get_with(key(n), |value| value.len()).unwrap();
                    assert_eq!(found.is_some(), keyspace.get_into(key(n), &mut buf).unwrap());
                    assert_eq!(found.is_some(), keyspace.contains(key(n)).unwrap());
                    assert_eq!(found, view.get_with(key(n), |value| value.len()).unwrap());
                }
            };
            // Opens tables, fills the cache.
            read();
            assert_eq!(allocations(read), 0, "{name} (mapped: {mapped})");
        }
    }
}

#[test]
fn many_reads_at_once_find_what_single_ones_do_and_allocate_two_lists() {
    for mapped in [true, false] {
        let (_dir, db) = fresh(Options::default().mapped(mapped));
        for (name, keyspace) in states(&db) {
            let snapshot = db.snapshot();
            let view = keyspace.at(&snapshot);
            // All, in an order of their own, some twice, some that are not there.
            let keys: Vec<_> = (0..2500).map(|n| key(n * 7 % 2300)).collect();
            let single: Vec<_> = keys.iter().map(|key| keyspace.get(key).unwrap()).collect();
            assert!(single.iter().any(Option::is_none) && single.iter().any(Option::is_some));
            assert_eq!(view.multi_get(&keys).unwrap(), single, "{name}");
            let mut many = Vec::new();
            let count = allocations(|| many = keyspace.multi_get(&keys).unwrap());
            assert_eq!(many, single, "{name}");
            // Values that lie in a memtable are copied.
            let most = if name.ends_with("in a table") { 2 } else { 2 + keys.len() as u64 };
            assert!(count <= most, "{name} (mapped: {mapped}): {count}");
        }
    }
}

#[test]
fn cursors_allocate_nothing_on_their_way() {
    for mapped in [true, false] {
        let (_dir, db) = fresh(Options::default().mapped(mapped));
        for (name, keyspace) in states(&db) {
            let mut cursor = keyspace.cursor(..);
            // The first walk fills the cache, and gets what turning around takes.
            for round in 0..2 {
                cursor.seek_first();
                // Going to a table makes a cursor over it.
                cursor.next().unwrap().unwrap();
                let steps = allocations(|| {
                    let mut n = 1;
                    while let Some((key, value)) = cursor.next().unwrap() {
                        assert_eq!((key.len(), value.len()), (12, 60));
                        n += 1;
                    }
                    assert!(n > 1900, "{n}");
                });
                assert!(round == 0 || steps == 0, "{name} (mapped: {mapped}): {steps}");
                cursor.seek_last();
                cursor.prev().unwrap().unwrap();
                let steps = allocations(|| while cursor.prev().unwrap().is_some() {});
                assert!(round == 0 || steps == 0, "{name} (mapped: {mapped}), back: {steps}");
            }
        }
    }
}

#[test]
fn keyspaces_that_come_and_go_leave_nothing() {
    let (_dir, db) = fresh(Options::default().memtable_bytes(64 << 10).segment_bytes(1 << 20));
    let kept = db.keyspace("kept").unwrap();
    let cycles = |n: usize| {
        for i in 0..n {
            let name = format!("passing/{i}");
            let passing = db.keyspace(&name).unwrap();
            passing.put("k", [7; 100]).unwrap();
            let staging = db.keyspace("staging").unwrap();
            staging.put("k", [8; 100]).unwrap();
            db.batch().replace(&kept, &staging).commit().unwrap();
            let snapshot = db.snapshot();
            db.drop_keyspace(&name).unwrap();
            assert!(passing.at(&snapshot).contains("k").unwrap());
            if i % 20 == 0 {
                db.flush().unwrap();
            }
            while db.step().unwrap() {}
        }
        db.flush().unwrap();
        while db.step().unwrap() {}
    };
    cycles(100);
    let (left, _) = growth(|| cycles(300));
    assert!(left < 20_000, "{left} bytes of 300 cycles");
}

/// Each of them covers all before it: their fragments list half a million numbers.
#[test]
fn range_deletes_over_each_other_cost_what_they_are() {
    const N: u64 = 1000;
    let (_dir, db) = fresh(Options::default());
    let a = db.keyspace("a").unwrap();
    for n in 0..N {
        a.put(key(n), "v").unwrap();
        a.delete_range(..key(n)).unwrap();
    }
    let (_, most) = growth(|| assert_eq!(a.iter().count(), 1));
    assert!(most < (N * 1000) as i64, "{most} bytes for a scan");
    let (_, most) = growth(|| db.flush().unwrap());
    assert!(most < (N * 2000 + (1 << 20)) as i64, "{most} bytes for a flush");
    assert_eq!(a.iter().count(), 1);
    assert!(a.contains(key(N - 1)).unwrap() && !a.contains(key(N - 2)).unwrap());
}

#[test]
fn a_short_scan_costs_the_same_among_many_range_deletes() {
    let (_dir, db) = fresh(Options::default());
    let a = db.keyspace("a").unwrap();
    let fill = |from: u64, to: u64| {
        for n in from..to {
            a.put(key(n), [7; 40]).unwrap();
        }
        for n in (from..to).filter(|n| n % 4 > 0) {
            a.delete_range(key(n)..key(n + 1)).unwrap();
        }
    };
    fill(0, 20_000);
    db.flush().unwrap();
    fill(10_000, 30_000);
    for at in [0, 9_990, 15_000, 29_900] {
        let scan = || {
            assert_eq!(a.range(key(at)..).take(10).count(), 10);
            assert_eq!(a.range(..key(at + 100)).rev().take(10).count(), 10);
        };
        // Opens the table.
        scan();
        let (mut count, (_, most)) = (0, growth(|| ()));
        assert_eq!(most, 0);
        let (_, most) = growth(|| count = allocations(scan));
        assert!(count < 60 && most < 10_000, "{count} allocations, {most} bytes");
    }
}
