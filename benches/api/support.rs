//! What all benches share: how long they take, the entries, and stores that hold them.

use criterion::Criterion;
use esker::{Compression, Db, Durability, Keyspace, KeyspaceOptions, Options, Result};
use std::cell::LazyCell;
use std::time::Duration;
use tempfile::TempDir;

pub const COMPRESSIONS: [(&str, Compression); 2] = [("lz4", Compression::Lz4), ("none", Compression::None)];

/// So few and so short that all benches are done in minutes: they tell twice from half, not 2 %.
pub fn short() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500))
}

/// How many entries a store has; few if nothing is measured.
pub fn keys() -> u64 {
    let given = |name: &str| std::env::args().any(|arg| arg == name);
    if !given("--bench") || given("--test") {
        return 2_000;
    }
    std::env::var("ESKER_KEYS").ok().and_then(|n| n.parse().ok()).unwrap_or(200_000)
}

/// xorshift64*: the same numbers in every run.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// 0 to `n`, each once.
    pub fn order(&mut self, n: u64) -> Vec<u64> {
        let mut order: Vec<u64> = (0..n).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, self.below(i as u64 + 1) as usize);
        }
        order
    }
}

/// 16 bytes in the order of the numbers, which they share 8 of: a stream's name and an event, say.
pub fn key(n: u64) -> [u8; 16] {
    let mut out = *b"key of n........";
    out[8..].copy_from_slice(&(n * 2).to_be_bytes());
    out
}

/// Between the keys, and none of them.
pub fn missing(n: u64) -> [u8; 16] {
    let mut out = key(n);
    out[15] |= 1;
    out
}

/// 100 bytes, half of them noise: what compresses, compresses to about a half.
pub fn value(rng: &mut Rng) -> [u8; 100] {
    let mut out = [b'.'; 100];
    for chunk in out[..50].chunks_mut(8) {
        let noise = rng.next().to_le_bytes();
        chunk.copy_from_slice(&noise[..chunk.len()]);
    }
    out
}

/// A store that is made for the first bench that needs it: whoever asks for one bench waits for no other.
pub type Late = LazyCell<Store, Box<dyn FnOnce() -> Store>>;

/// A database with one keyspace, in a folder of its own.
pub struct Store {
    pub map: Keyspace,
    pub db: Db,
    pub keys: u64,
    _dir: TempDir,
}

impl Store {
    /// An empty one that gets its background work from `workers` threads, with memtables of
    /// `memtable_bytes`.
    pub fn empty(compression: Compression, workers: usize, memtable_bytes: usize) -> Store {
        let dir = tempfile::tempdir().expect("a folder for the benches");
        let options = Options::default()
            .durability(Durability::Buffered)
            .memtable_bytes(memtable_bytes)
            .table_bytes(4 * memtable_bytes as u64)
            .workers(workers)
            .keyspaces(KeyspaceOptions::default().compression(compression));
        let open = || -> Result<(Db, Keyspace)> {
            let db = Db::open(dir.path(), options)?;
            let map = db.keyspace("map")?;
            Ok((db, map))
        };
        let (db, map) = open().expect("a new database opens");
        Store { map, db, keys: keys(), _dir: dir }
    }

    /// One with all entries, written in random order and without threads, so that every run finds
    /// the same tables: the last entries in the memtable, then level 0, then the levels below. The
    /// cache is warm.
    pub fn filled(compression: Compression) -> Store {
        let store = Store::empty(compression, 0, 256 << 10);
        let mut rng = Rng::new(1);
        for n in rng.order(store.keys) {
            store.put(n, &mut rng);
            while n % 64 == 0 && store.db.step().expect("background work") {}
        }
        assert_eq!(store.map.iter().filter(Result::is_ok).count() as u64, store.keys);
        store
    }

    pub fn put(&self, n: u64, rng: &mut Rng) {
        self.map.put(key(n), value(rng)).expect("put");
    }

    /// Waits until all is in tables; what compaction still owes is paid here, too.
    pub fn settle(&self) {
        self.db.flush().expect("flush");
        while self.db.step().expect("background work") {}
    }
}
