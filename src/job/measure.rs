//! Not a test: what merges and scans cost per entry, in nanoseconds or, better, in instructions:
//! `cargo test --release --lib --no-run`, then
//! `valgrind --tool=callgrind --toggle-collect='*measured*' BINARY job::measure --ignored`
//! with `ESKER_MEASURE` naming one line.

use crate::cache::Cache;
use crate::cursor::testing::Random;
use crate::db::handle::Db;
use crate::fs::os::OsFs;
use crate::ids::{FileNo, Seq};
use crate::job::compact::{Inputs, compact};
use crate::job::flush::{Keys, flush};
use crate::job::output::{Output, OutputOptions};
use crate::job::retain::Horizon;
use crate::key::{Kind, Trailer};
use crate::memtable;
use crate::options::{Compression, Durability, KeyspaceOptions, Options};
use crate::table::{Handle, ReadOptions, Store, WriteOptions};
use crate::tombstones::RangeTombstones;
use crate::view::run::{Run, RunTable};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

const N: u64 = 100_000;

/// 16 bytes, scattered.
fn key(i: u64) -> [u8; 16] {
    let x = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut key = [0; 16];
    key[..8].copy_from_slice(&x.to_be_bytes());
    key[8..].copy_from_slice(&x.wrapping_mul(0x94d0_49bb_1331_11eb).to_le_bytes());
    key
}

fn key_in_order(i: u64) -> [u8; 16] {
    format!("{i:016}").into_bytes().try_into().unwrap()
}

/// 100 bytes, half of them noise.
fn value(random: &mut Random) -> [u8; 100] {
    let mut value = [b'.'; 100];
    value[..50].fill_with(|| random.below(256) as u8);
    value
}

#[inline(never)]
fn measured(what: &mut dyn FnMut()) {
    what();
}

fn wanted(line: &str) -> bool {
    std::env::var("ESKER_MEASURE").map_or(true, |only| only.ends_with(line))
}

#[allow(clippy::disallowed_methods)]
fn report(name: &str, entries: u64, mut what: impl FnMut()) {
    if std::env::var("ESKER_MEASURE").is_ok_and(|only| only != name) {
        return;
    }
    let start = Instant::now();
    measured(&mut what);
    println!("{name:<40} {:8.1} ns", start.elapsed().as_nanos() as f64 / entries as f64);
}

/// `runs` runs with every `runs`th of the keys each.
fn runs(store: &Arc<Store>, options: OutputOptions, runs: u64) -> Vec<Arc<Run>> {
    let mut no = 0;
    let mut new_table = || {
        no += 1;
        (FileNo(no), no)
    };
    let mut values = Random(5);
    let one = |r: u64| {
        let mut keys: Vec<_> = (r..N).step_by(runs as usize).map(|i| (key(i), i)).collect();
        keys.sort();
        let mut output = Output::new(store, options, &mut new_table, RangeTombstones::default());
        for (key, i) in keys {
            output
                .add(&key, Trailer::new(Seq::new(i + 1).unwrap(), Kind::Put), &value(&mut values), false)
                .unwrap();
        }
        let tables = output.finish().unwrap().into_iter().map(|meta| RunTable {
            handle: Handle::new(store, meta.no, meta.id, meta.size),
            meta: Arc::new(meta),
        });
        Arc::new(Run::new(0, tables.collect()))
    };
    (0..runs).map(one).collect()
}

#[test]
#[ignore = "prints timings"]
fn compactions() {
    for (shape, count) in [("1 run", 1), ("4 runs", 4), ("12 runs", 12)] {
        for compression in [Compression::None, Compression::Lz4] {
            if !wanted(&format!("{shape} {compression:?}")) {
                continue;
            }
            let dir = tempfile::tempdir().unwrap();
            let read = ReadOptions { mapped: true };
            let store = Store::new(Arc::new(OsFs), dir.path().into(), Cache::new(64 << 20), read);
            let write = WriteOptions { block_bytes: 4096, compression, filter_bits: 10 };
            let options = OutputOptions { write, table_bytes: 4 << 20 };
            let runs = runs(&store, options, count);
            let inputs = Inputs { runs: &runs, bottom: true, level: 7, below: &[] };
            let horizon = Horizon::new([], Seq::new(N + 1).unwrap());
            let mut no = 1000;
            let mut new_table = || {
                no += 1;
                (FileNo(no), no)
            };
            report(&format!("compact {shape} {compression:?}"), N, || {
                let pause = &mut || Ok(());
                black_box(compact(&inputs, &horizon, &store, options, &mut new_table, pause).unwrap());
            });
        }
    }
}

#[test]
#[ignore = "prints timings"]
fn flushes() {
    for (shape, scattered) in [("in order", false), ("scattered", true)] {
        for compression in [Compression::None, Compression::Lz4] {
            if !wanted(&format!("{shape} {compression:?}")) {
                continue;
            }
            let dir = tempfile::tempdir().unwrap();
            let read = ReadOptions { mapped: true };
            let store = Store::new(Arc::new(OsFs), dir.path().into(), Cache::new(64 << 20), read);
            let write = WriteOptions { block_bytes: 4096, compression, filter_bits: 10 };
            let options = OutputOptions { write, table_bytes: 16 << 20 };
            let (mut writer, table) = memtable::new();
            let mut values = Random(5);
            for i in 0..N {
                let key = if scattered { key(i) } else { key_in_order(i) };
                let trailer = Trailer::new(Seq::new(i + 1).unwrap(), Kind::Put);
                writer.insert(&key, trailer, &value(&mut values));
            }
            let horizon = Horizon::new([], Seq::new(N + 1).unwrap());
            let mut new_table = || (FileNo(1), 1);
            report(&format!("flush {shape} {compression:?}"), N, || {
                let made = flush(
                    std::slice::from_ref(&table),
                    Keys::default(),
                    &horizon,
                    &store,
                    options,
                    &mut new_table,
                );
                black_box(made.unwrap());
            });
        }
    }
}

#[test]
#[ignore = "prints timings"]
fn scans() {
    for (shape, count) in [("memtable", 0), ("1 run", 1), ("4 runs", 4)] {
        for compression in [Compression::None, Compression::Lz4] {
            if !wanted(&format!("{shape} {compression:?}")) {
                continue;
            }
            let dir = tempfile::tempdir().unwrap();
            let options = Options::default().durability(Durability::Buffered).workers(0);
            let db = Db::open(dir.path(), options).unwrap();
            let a = db.keyspace_with("a", KeyspaceOptions::default().compression(compression)).unwrap();
            for r in 0..count.max(1) {
                for i in (r..N).step_by(count.max(1) as usize) {
                    a.put(key(i), [i as u8; 100]).unwrap();
                }
                if count > 0 {
                    db.flush().unwrap();
                }
            }
            let line = |what: &str| format!("{what} {shape} {compression:?}");
            a.iter().for_each(|e| drop(e.unwrap()));
            report(&line("forward"), N, || {
                a.iter().for_each(|e| drop(black_box(e.unwrap())));
            });
            report(&line("reverse"), N, || {
                a.iter().rev().for_each(|e| drop(black_box(e.unwrap())));
            });
            report(&line("cursor"), N, || {
                let mut cursor = a.cursor(..);
                while let Some(entry) = cursor.next().unwrap() {
                    black_box(entry);
                }
            });
            report(&line("cursor back"), N, || {
                let mut cursor = a.cursor(..);
                cursor.seek_last();
                while let Some(entry) = cursor.prev().unwrap() {
                    black_box(entry);
                }
            });
            report(&line("seek+10"), 10_000, || {
                for i in 0..10_000 {
                    a.range(key(i * 7)..).take(10).for_each(|e| drop(black_box(e.unwrap())));
                }
            });
        }
    }
}
