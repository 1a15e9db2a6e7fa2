//! Point reads at random over a memtable and several levels of tables, all in the cache or the map.

use crate::support::{Rng, Store, key, missing};
use criterion::{BenchmarkId, Criterion, Throughput};
use std::hint::black_box;

/// Keys of one `multi_get`.
const MANY: u64 = 100;

pub fn all(c: &mut Criterion, store: &Store, name: &str) {
    let Store { map, keys, .. } = store;
    // The cache is warm from here on.
    assert_eq!(map.iter().filter(Result::is_ok).count() as u64, *keys);

    let mut group = c.benchmark_group("get");
    let mut rng = Rng::new(4);
    group.bench_function(BenchmarkId::new("hit", name), |b| {
        b.iter(|| map.get(key(rng.below(*keys))).expect("get").expect("what was put"));
    });
    group.bench_function(BenchmarkId::new("hit, in place", name), |b| {
        b.iter(|| map.get_with(key(rng.below(*keys)), |value| black_box(value[0])).expect("get"));
    });
    group.bench_function(BenchmarkId::new("miss", name), |b| {
        b.iter(|| assert!(map.get(missing(rng.below(*keys))).expect("get").is_none()));
    });
    group.throughput(Throughput::Elements(MANY));
    group.bench_function(BenchmarkId::new("100 at once", name), |b| {
        b.iter(|| map.multi_get((0..MANY).map(|_| key(rng.below(*keys)))).expect("multi_get"));
    });
    group.finish();
}
