//! Scans and seeks over a memtable and several levels of tables. Of every entry a byte of key and value
//! is looked at.

use crate::support::{Late, Rng, Store, key, keys};
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use esker::Cursor;
use std::hint::black_box;

/// Entries of a short scan.
const SOME: u64 = 100;

#[derive(Clone, Copy)]
enum Way {
    Forward,
    Backward,
}
use Way::{Backward, Forward};

pub fn all(c: &mut Criterion, store: &Late, name: &str) {
    whole(c, store, name);
    some(c, store, name);
}

fn whole(c: &mut Criterion, store: &Late, name: &str) {
    let mut group = c.benchmark_group("scan");
    group.sample_size(10).sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(keys()));
    for (way, what) in [(Forward, "all forward"), (Backward, "all backward")] {
        group.bench_function(BenchmarkId::new(what, name), |b| {
            let Store { map, keys, .. } = &**store;
            b.iter(|| {
                let mut cursor = map.cursor(..);
                if let Backward = way {
                    cursor.seek_last();
                }
                assert_eq!(walk(&mut cursor, way, u64::MAX), *keys);
            });
        });
    }
    group.bench_function(BenchmarkId::new("all, owned entries", name), |b| {
        let Store { map, keys, .. } = &**store;
        b.iter(|| {
            let mut entries = 0;
            for entry in map.iter() {
                let entry = entry.expect("scan");
                black_box((entry.key()[0], entry.value()[0]));
                entries += 1;
            }
            assert_eq!(entries, *keys);
        });
    });
    group.finish();
}

fn some(c: &mut Criterion, store: &Late, name: &str) {
    let mut rng = Rng::new(5);
    let mut group = c.benchmark_group("seek");
    let entries =
        [(Forward, 1, "1 forward"), (Forward, SOME, "100 forward"), (Backward, SOME, "100 backward")];
    for (way, steps, what) in entries {
        group.bench_function(BenchmarkId::new(what, name), |b| {
            let Store { map, keys, .. } = &**store;
            b.iter(|| {
                let mut cursor = map.cursor(..);
                cursor.seek(key(rng.below(*keys))).expect("seek");
                walk(&mut cursor, way, steps)
            });
        });
    }
    group.bench_function(BenchmarkId::new("again", name), |b| {
        let Store { map, keys, .. } = &**store;
        // The cursor stays; only the place changes.
        let mut cursor = map.cursor(..);
        b.iter(|| {
            cursor.seek(key(rng.below(*keys))).expect("seek");
            walk(&mut cursor, Forward, 1)
        });
    });
    group.finish();
}

/// Walks over at most `steps` entries; how many there were.
fn walk(cursor: &mut Cursor, way: Way, steps: u64) -> u64 {
    for n in 0..steps {
        let entry = match way {
            Forward => cursor.next(),
            Backward => cursor.prev(),
        };
        let Some((key, value)) = entry.expect("scan") else { return n };
        black_box((key[0], value[0]));
    }
    steps
}
