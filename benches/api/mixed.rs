//! Reads and overwrites at a time, with the flushes and compactions that follow from them.

use crate::support::{Late, Rng, Store, key};
use criterion::{Criterion, Throughput};
use esker::Compression;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};

pub fn all(c: &mut Criterion) {
    let mut group = c.benchmark_group("mixed");
    group.throughput(Throughput::Elements(1));
    let store = Late::new(Box::new(overwritten));
    let mut rng = Rng::new(6);
    group.bench_function("a get or an overwrite", |b| {
        let store = &*store;
        b.iter(|| match rng.next() >> 63 {
            0 => store.put(rng.below(store.keys), &mut rng),
            _ => get(store, &mut rng),
        });
    });
    group.bench_function("a get beside a writer", |b| {
        let store = &*store;
        beside_a_writer(store, || b.iter(|| get(store, &mut rng)))
    });
    group.finish();
}

fn overwritten() -> Store {
    let store = Store::empty(Compression::Lz4, 2, 1 << 20);
    let mut rng = Rng::new(8);
    for n in rng.order(store.keys).into_iter().chain(rng.order(store.keys)) {
        store.put(n, &mut rng);
    }
    store.settle();
    store
}

fn get(store: &Store, rng: &mut Rng) {
    let found = store.map.get_with(key(rng.below(store.keys)), |value| black_box(value[0]));
    assert!(found.expect("get").is_some());
}

/// Runs `work` while a thread overwrites as fast as it is let.
fn beside_a_writer(store: &Store, work: impl FnOnce()) {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut rng = Rng::new(7);
            while !stop.load(Ordering::Relaxed) {
                store.put(rng.below(store.keys), &mut rng);
            }
        });
        // Also if `work` panics: the scope waits for the thread.
        let _stop = Stop(stop);
        work();
    });
}
