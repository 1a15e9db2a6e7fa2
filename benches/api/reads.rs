//! Point reads at random over a memtable and several levels of tables, all in the cache or the map.

use crate::support::{Late, Rng, Store, key, missing};
use criterion::{BenchmarkId, Criterion, Throughput};
use std::hint::black_box;

/// Keys of one `multi_get`.
const MANY: u64 = 100;

pub fn all(c: &mut Criterion, store: &Late, name: &str) {
    let mut group = c.benchmark_group("get");
    let mut rng = Rng::new(4);
    group.bench_function(BenchmarkId::new("hit", name), |b| {
        let Store { map, keys, .. } = &**store;
        b.iter(|| map.get(key(rng.below(*keys))).expect("get").expect("what was put"));
    });
    group.bench_function(BenchmarkId::new("hit, in place", name), |b| {
        let Store { map, keys, .. } = &**store;
        b.iter(|| map.get_with(key(rng.below(*keys)), |value| black_box(value[0])).expect("get"));
    });
    group.bench_function(BenchmarkId::new("miss", name), |b| {
        let Store { map, keys, .. } = &**store;
        b.iter(|| assert!(map.get(missing(rng.below(*keys))).expect("get").is_none()));
    });
    group.throughput(Throughput::Elements(MANY));
    group.bench_function(BenchmarkId::new("100 at once", name), |b| {
        let Store { map, keys, .. } = &**store;
        b.iter(|| map.multi_get((0..MANY).map(|_| key(rng.below(*keys)))).expect("multi_get"));
    });
    group.finish();
}
