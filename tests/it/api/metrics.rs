//! Metrics: what is counted is what happened.

use super::{fails, settle};
use esker::fs::sim::SimFs;
use esker::{Db, Durability, ErrorKind, KeyspaceOptions, Metrics, Options};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn on(sim: &Arc<SimFs>) -> Options {
    Options::default().workers(0).durability(Durability::Buffered).mapped(false).fs(sim.clone())
}

fn simulated() -> (Arc<SimFs>, Db) {
    let sim = Arc::new(SimFs::new(1));
    let db = Db::open("/db", on(&sim)).unwrap();
    (sim, db)
}

/// The sizes of all table files on the disk.
fn table_bytes(sim: &SimFs) -> u64 {
    let is_table = |path: &std::path::Path| path.extension().is_some_and(|e| e == "table");
    sim.files().iter().filter(|(path, _)| is_table(path)).map(|(_, len)| len).sum()
}

fn near(ratio: Option<f64>, part: u64, whole: u64) {
    let ratio = ratio.unwrap();
    assert!((ratio - part as f64 / whole as f64).abs() < 1e-9, "{ratio} is not {part} / {whole}");
}

#[test]
fn writes_and_flushes_are_counted_to_the_byte() {
    let (sim, db) = simulated();
    let (a, b) = (db.keyspace("a").unwrap(), db.keyspace("b").unwrap());
    for i in 0..100 {
        a.put(format!("{i:04}"), [7; 20]).unwrap();
    }
    let mut batch = db.batch();
    batch.put(&a, "0001", "12345").delete(&a, "0002").delete_range(&b, "x".."yy");
    batch.commit().unwrap();
    fails(a.delete(vec![0; esker::MAX_KEY_LEN + 1]), ErrorKind::Invalid);
    let m = db.metrics();
    let (of_a, of_b) = (m.keyspace("a").unwrap(), m.keyspace("b").unwrap());
    assert_eq!((of_a.bytes_in, of_a.operations), (100 * 24 + 9 + 4, 102));
    assert_eq!((of_b.bytes_in, of_b.operations), (3, 1));
    assert_eq!((m.bytes_in, m.operations), (100 * 24 + 16, 103));
    // Making a keyspace is a commit of its own.
    assert_eq!(m.commits, 2 + 101);
    assert!(m.journal.bytes > m.bytes_in && m.journal.segments >= 1);
    assert!(of_a.memtable_bytes > of_a.bytes_in && of_a.frozen_bytes == 0 && of_a.levels.is_empty());
    assert_eq!(
        (m.jobs, of_a.space_amplification(), of_a.read_amplification()),
        (Default::default(), None, 0)
    );

    db.flush().unwrap();
    let m = db.metrics();
    let (of_a, of_b) = (m.keyspace("a").unwrap(), m.keyspace("b").unwrap());
    assert_eq!(m.jobs.flushed_bytes, table_bytes(&sim));
    assert_eq!(m.jobs.flushes, 3, "two keyspaces and the catalog");
    assert_eq!(m.tables.bytes, of_a.jobs.flushed_bytes + of_b.jobs.flushed_bytes);
    assert_eq!((m.tables.tables, m.tables.open), (2, 0));
    assert!(m.memory.memtables > 0 && m.memory.used() <= m.memory.limit);
    let [level] = of_a.levels[..] else { panic!("{:?}", of_a.levels) };
    // Of the two versions of a key the older one is dropped; the delete stays.
    assert_eq!((level.level, level.runs, level.tables, level.entries, level.deletes), (0, 1, 1, 100, 1));
    assert_eq!(level.bytes, of_a.jobs.flushed_bytes);
    assert_eq!(of_b.levels[0].range_deletes, 1);
    near(of_a.write_amplification(), of_a.jobs.flushed_bytes, of_a.bytes_in);
    near(
        m.write_amplification(),
        m.journal.bytes + m.manifest.bytes + m.jobs.flushed_bytes + m.jobs.compaction_written,
        m.bytes_in,
    );
    assert_eq!((of_a.read_amplification(), of_a.space_amplification()), (1, Some(1.0)));
}

#[test]
fn tables_on_disk_are_what_was_written_less_what_was_read() {
    let (sim, db) = simulated();
    let a = db.keyspace_with("a", KeyspaceOptions::default().compression(esker::Compression::None)).unwrap();
    let mut before = db.metrics();
    for round in 0..30u8 {
        for i in 0..50u8 {
            a.put(format!("{:04}", (u32::from(i) * 7 + u32::from(round)) % 200), [round; 100]).unwrap();
        }
        db.flush().unwrap();
        let m = db.metrics();
        if m.jobs.compactions > before.jobs.compactions {
            assert!(m.jobs.compaction_read > before.jobs.compaction_read);
        }
        before = m;
    }
    settle(&db);
    let m = db.metrics();
    let of_a = m.keyspace("a").unwrap();
    assert!(of_a.jobs.compactions > 0 && of_a.jobs.flushes == 30);
    // Whatever was read was replaced, and moving a table writes nothing.
    assert_eq!(table_bytes(&sim), m.jobs.written() - m.jobs.compaction_read);
    assert_eq!(of_a.table_bytes(), of_a.jobs.written() - of_a.jobs.compaction_read);
    assert_eq!(m.tables.held, 0);
    near(of_a.write_amplification(), of_a.jobs.flushed_bytes + of_a.jobs.compaction_written, of_a.bytes_in);
    // New runs over one old run.
    let deepest = of_a.levels.last().unwrap();
    near(of_a.space_amplification(), of_a.table_bytes(), deepest.oldest_run_bytes);
    assert_eq!(of_a.levels.iter().map(|l| l.runs).sum::<u64>(), of_a.read_amplification());
    assert_eq!((m.background.flushes_queued, m.background.compactions_queued), (0, 0));
}

#[test]
fn every_look_up_is_a_filters_or_the_caches() {
    let (_sim, db) = simulated();
    let a = db.keyspace("a").unwrap();
    for i in 0..500 {
        a.put(format!("{:04}", 2 * i), [7; 50]).unwrap();
    }
    db.flush().unwrap();
    let start = db.metrics();
    for i in 0..500 {
        assert!(a.contains(format!("{:04}", 2 * i)).unwrap());
    }
    let found = db.metrics();
    assert_eq!(found.filters.found - start.filters.found, 500);
    assert_eq!(found.filters.spared, start.filters.spared);
    for i in 0..499 {
        assert!(!a.contains(format!("{:04}", 2 * i + 1)).unwrap());
    }
    let m = db.metrics();
    assert_eq!(m.filters.found, found.filters.found);
    assert_eq!(m.filters.spared + m.filters.false_positives, 499);
    assert!(m.filters.false_positive_rate().unwrap() < 0.1);
    // Each read that a filter let through asked the cache for one block.
    let asked = |m: &Metrics| m.cache.hits + m.cache.misses;
    assert_eq!(asked(&m) - asked(&start), m.filters.found + m.filters.false_positives - start.filters.found);
    assert_eq!(m.cache.misses, m.cache.blocks, "each block was read once");
    assert!(m.cache.bytes > 0 && m.cache.hit_rate().unwrap() > 0.5);
    assert_eq!(m.tables.open, 1);
}

#[test]
fn who_holds_what() {
    let (_sim, db) = simulated();
    let a = db.keyspace("a").unwrap();
    let snapshots = |db: &Db| db.metrics().snapshots;
    assert_eq!((snapshots(&db).live, snapshots(&db).oldest), (0, None));
    let first = db.snapshot();
    let same = db.snapshot();
    for round in 0..6 {
        for i in 0..50 {
            a.put(format!("{i:04}"), [round; 40]).unwrap();
        }
        db.flush().unwrap();
    }
    let later = db.snapshot();
    let now = snapshots(&db);
    assert_eq!((now.live, now.oldest), (2, Some(first.seq())));
    let age = now.oldest_for.unwrap();
    assert!(snapshots(&db).oldest_for.unwrap() >= age);
    drop((first, same));
    assert_eq!((snapshots(&db).live, snapshots(&db).oldest), (1, Some(later.seq())));
    drop(later);
    assert_eq!(snapshots(&db).oldest_for, None);

    // An iterator holds the tables that compactions replace under it.
    let mut entries = a.iter();
    entries.next().unwrap().unwrap();
    let before = db.metrics().tables;
    assert_eq!((before.held, before.held_bytes), (0, 0));
    settle(&db);
    let held = db.metrics().tables;
    assert!(held.held > 0 && held.held_bytes > 0 && held.tables < before.tables, "{held:?}");
    drop(entries);
    let after = db.metrics().tables;
    assert_eq!((after.held, after.held_bytes), (0, 0));
}

#[test]
fn the_journal_says_who_holds_it_back() {
    let (sim, db) = simulated();
    let (a, b) = (db.keyspace("a").unwrap(), db.keyspace("b").unwrap());
    a.put("k", "v").unwrap();
    db.flush().unwrap();
    let idle = db.metrics().journal;
    assert_eq!((idle.replay_bytes, idle.pinned_by), (0, None));
    b.put("k", "v").unwrap();
    let one = db.metrics().journal;
    a.put("k", [7; 1000]).unwrap();
    let both = db.metrics().journal;
    assert_eq!((one.pinned_by.as_deref(), both.pinned_by.as_deref()), (Some("b"), Some("b")));
    assert!(both.replay_bytes > one.replay_bytes + 1000, "{one:?} {both:?}");
    assert_eq!(both.bytes - one.bytes, both.replay_bytes - one.replay_bytes);
    // Syncs are shared.
    let before = db.metrics();
    let tickets: Vec<_> = (0..10)
        .map(|i| {
            let mut batch = db.batch();
            batch.put(&a, [i], "v");
            batch.submit().unwrap()
        })
        .collect();
    tickets.into_iter().for_each(|t| _ = t.wait().unwrap());
    let m = db.metrics();
    assert_eq!((m.commits - before.commits, m.journal.syncs - before.journal.syncs), (10, 1));
    near(m.commits_per_sync(), m.commits, m.journal.syncs);

    // What is replayed was not written since opening; it still is to be replayed.
    drop((a, b, db));
    let db = Db::open("/db", on(&sim)).unwrap();
    let m = db.metrics();
    assert_eq!((m.bytes_in, m.operations, m.commits, m.journal.bytes), (0, 0, 0, m.journal.bytes));
    assert!(db.recovery().commits > 0 && m.journal.replay_bytes > 0);
    assert_eq!(m.write_amplification(), None);
    assert!(m.manifest.edits > 0 && m.manifest.bytes > 0);
}

/// Every number that only rises, in the order of the fields.
fn rising(m: &Metrics) -> Vec<u64> {
    let mut all = vec![
        m.bytes_in,
        m.operations,
        m.commits,
        m.journal.bytes,
        m.journal.syncs,
        m.manifest.edits,
        m.manifest.bytes,
        m.jobs.flushes,
        m.jobs.flushed_bytes,
        m.jobs.compactions,
        m.jobs.moves,
        m.jobs.compaction_read,
        m.jobs.compaction_written,
        m.cache.hits,
        m.cache.misses,
        m.filters.spared,
        m.filters.found,
        m.filters.false_positives,
    ];
    for k in &m.keyspaces {
        all.extend([k.bytes_in, k.operations, k.jobs.flushed_bytes, k.jobs.compaction_written]);
    }
    all
}

#[test]
fn counters_only_rise_and_lose_nothing_under_threads() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::default().durability(Durability::Buffered).memtable_bytes(64 << 10).workers(2);
    let db = Db::open(dir.path(), options).unwrap();
    let keyspaces: Vec<_> = ["a", "b", "c"].map(|name| db.keyspace(name).unwrap()).into();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3u32)
            .map(|t| {
                let keyspaces = &keyspaces;
                scope.spawn(move || {
                    for i in 0..2000u32 {
                        let a = &keyspaces[((i + t) % 3) as usize];
                        a.put([t.to_be_bytes(), i.to_be_bytes()].concat(), [7; 92]).unwrap();
                        a.get((i / 2).to_be_bytes()).unwrap();
                    }
                })
            })
            .collect();
        let watch = scope.spawn(|| {
            let mut last = rising(&db.metrics());
            while !done.load(Ordering::Relaxed) {
                let now = rising(&db.metrics());
                let fell = last.iter().zip(&now).position(|(a, b)| b < a);
                assert_eq!(fell, None, "{last:?} {now:?}");
                last = now;
            }
        });
        writers.into_iter().for_each(|w| w.join().unwrap());
        done.store(true, Ordering::Relaxed);
        watch.join().unwrap();
    });
    let m = db.metrics();
    assert_eq!((m.bytes_in, m.operations, m.commits), (6000 * 100, 6000, 3 + 6000));
    for k in &m.keyspaces {
        assert_eq!((k.bytes_in, k.operations), (2000 * 100, 2000));
    }
    assert!(m.jobs.flushes > 0);
    // What was dropped still counts.
    db.drop_keyspace("a").unwrap();
    let after = db.metrics();
    assert_eq!((after.bytes_in, after.keyspaces.len()), (m.bytes_in, 2));
    assert!(after.jobs.flushed_bytes >= m.jobs.flushed_bytes);
    assert!(after.open_for >= m.open_for && m.open_for > Duration::ZERO);
}
