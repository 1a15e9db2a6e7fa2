//! Fills: one iteration writes all entries and waits for every flush and compaction that follows from
//! them, so nothing is left to be paid later.

use crate::support::{COMPRESSIONS, Rng, Store, key, keys, value};
use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, Throughput};
use esker::Compression;
use std::time::Duration;

/// Operations of one batch, where batches are measured.
const BATCH: usize = 1000;

pub fn all(c: &mut Criterion) {
    let mut group = c.benchmark_group("fill");
    group.sample_size(10).sampling_mode(SamplingMode::Flat).measurement_time(Duration::from_secs(4));
    group.throughput(Throughput::Elements(keys()));
    let in_order: Vec<u64> = (0..keys()).collect();
    let at_random = Rng::new(2).order(keys());
    for (name, compression) in COMPRESSIONS {
        let empty = || empty(compression);
        let full = || full(compression, &in_order);
        fill(&mut group, BenchmarkId::new("in order", name), empty, |store| singly(store, &in_order));
        fill(&mut group, BenchmarkId::new("at random", name), empty, |store| singly(store, &at_random));
        fill(&mut group, BenchmarkId::new("batches of 1000", name), empty, |store| {
            batched(store, &at_random)
        });
        fill(&mut group, BenchmarkId::new("overwrite", name), full, |store| singly(store, &at_random));
    }
}

/// Measures `work` and what it leaves to the background, each time on a store of its own.
fn fill(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: BenchmarkId,
    store: impl Fn() -> Store,
    work: impl Fn(&Store),
) {
    group.bench_function(id, |b| {
        b.iter_batched(
            &store,
            |store| {
                work(&store);
                store.settle();
                store
            },
            BatchSize::PerIteration,
        );
    });
}

fn empty(compression: Compression) -> Store {
    Store::empty(compression, 2, 2 << 20)
}

fn full(compression: Compression, order: &[u64]) -> Store {
    let store = empty(compression);
    batched(&store, order);
    store.settle();
    store
}

fn singly(store: &Store, order: &[u64]) {
    let mut rng = Rng::new(3);
    order.iter().for_each(|&n| store.put(n, &mut rng));
}

fn batched(store: &Store, order: &[u64]) {
    let mut rng = Rng::new(3);
    let mut batch = store.db.batch();
    for some in order.chunks(BATCH) {
        for &n in some {
            batch.put(&store.map, key(n), value(&mut rng));
        }
        batch.commit().expect("commit");
    }
}
