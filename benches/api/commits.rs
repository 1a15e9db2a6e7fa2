//! Commits that survive power loss, by several threads that share syncs. One iteration is one commit.

use crate::support::{Rng, Store, key, value};
use criterion::{BenchmarkId, Criterion, Throughput};
use esker::{Compression, Durability};
use std::time::{Duration, Instant};

pub fn all(c: &mut Criterion) {
    let mut group = c.benchmark_group("synced commit");
    group.sample_size(10).throughput(Throughput::Elements(1));
    for threads in [1, 4, 16] {
        let store = Store::empty(Compression::Lz4, 2, 2 << 20);
        group.bench_function(BenchmarkId::new("threads", threads), |b| {
            b.iter_custom(|commits| {
                let each = commits.div_ceil(threads);
                run(&store, threads, each).mul_f64(commits as f64 / (threads * each) as f64)
            });
        });
    }
    group.finish();
}

/// `threads` threads make `each` commits.
fn run(store: &Store, threads: u64, each: u64) -> Duration {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let mut rng = Rng::new(thread);
                let mut batch = store.db.batch();
                for _ in 0..each {
                    batch.put(&store.map, key(rng.below(store.keys)), value(&mut rng));
                    batch.commit_with(Durability::Sync).expect("commit");
                }
            });
        }
    });
    start.elapsed()
}
