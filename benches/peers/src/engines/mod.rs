//! The engines, behind one face, set up alike: 64 MiB of cache, 16 MiB memtables, 4 KiB blocks, LZ4
//! for tables and nothing for the journal, 10 bits of filter per key, two background threads.

use crate::Outcome;
use std::hint::black_box;
use std::path::PathBuf;

pub const NAMES: [&str; 2] = ["esker", "fjall"];

const CACHE: usize = 64 << 20;
const MEMTABLE: usize = 16 << 20;
const BLOCK: usize = 4 << 10;
const FILTER_BITS: u32 = 10;
const WORKERS: usize = 2;

pub struct Setup {
    pub dir: PathBuf,
}

/// What is measured. Values are looked at where they lie.
pub trait Engine: Sync {
    /// Survives the death of the process.
    fn put(&self, key: &[u8], value: &[u8]) -> Outcome;
    /// Survives power loss.
    fn put_synced(&self, key: &[u8], value: &[u8]) -> Outcome;
    fn get(&self, key: &[u8]) -> Outcome<bool>;
    /// Reads up to `steps` entries from `key` on.
    fn seek(&self, key: &[u8], steps: usize) -> Outcome<usize>;
    /// Reads everything and answers how many entries there were.
    fn scan(&self, reverse: bool) -> Outcome<u64>;
    /// Everything into tables, merged as far as the engine offers.
    fn compact(&self) -> Outcome;
}

pub fn open(engine: &str, setup: &Setup) -> Outcome<Box<dyn Engine>> {
    match engine {
        "esker" => Ok(Box::new(Esker::open(setup)?)),
        "fjall" => Ok(Box::new(Fjall::open(setup)?)),
        other => Err(format!("no engine called {other}; there are {NAMES:?}").into()),
    }
}

struct Esker {
    db: esker::Db,
    map: esker::Keyspace,
}

impl Esker {
    fn open(setup: &Setup) -> Outcome<Esker> {
        let tables = esker::KeyspaceOptions::default()
            .compression(esker::Compression::Lz4)
            .block_bytes(BLOCK)
            .filter_bits(FILTER_BITS);
        let options = esker::Options::default()
            .durability(esker::Durability::Buffered)
            .cache_bytes(CACHE)
            .memtable_bytes(MEMTABLE)
            .workers(WORKERS);
        let db = esker::Db::open(&setup.dir, options)?;
        let map = db.keyspace_with("map", tables)?;
        Ok(Esker { db, map })
    }
}

impl Engine for Esker {
    fn put(&self, key: &[u8], value: &[u8]) -> Outcome {
        self.map.put(key, value)?;
        Ok(())
    }

    fn put_synced(&self, key: &[u8], value: &[u8]) -> Outcome {
        self.db.batch().put(&self.map, key, value).commit_with(esker::Durability::Sync)?;
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Outcome<bool> {
        Ok(self.map.get_with(key, |value| black_box(value[0]))?.is_some())
    }

    fn seek(&self, key: &[u8], steps: usize) -> Outcome<usize> {
        let mut cursor = self.map.cursor(key..);
        let mut n = 0;
        while n < steps
            && let Some((key, value)) = cursor.next()?
        {
            black_box((key[0], value[0]));
            n += 1;
        }
        Ok(n)
    }

    fn scan(&self, reverse: bool) -> Outcome<u64> {
        let mut cursor = self.map.cursor(..);
        if reverse {
            cursor.seek([0xff; 17])?;
        }
        let mut n = 0;
        while let Some((key, value)) = if reverse { cursor.prev()? } else { cursor.next()? } {
            black_box((key[0], value[0]));
            n += 1;
        }
        Ok(n)
    }

    fn compact(&self) -> Outcome {
        // There is no compaction on demand yet: what is due is done, so several runs may remain.
        self.db.flush()?;
        while self.db.step()? {}
        Ok(())
    }
}

struct Fjall {
    map: fjall::Keyspace,
    db: fjall::Database,
}

impl Fjall {
    fn open(setup: &Setup) -> Outcome<Fjall> {
        use fjall::config::{BlockSizePolicy, BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry};
        let db = fjall::Database::builder(&setup.dir)
            .cache_size(CACHE as u64)
            .worker_threads(WORKERS)
            .journal_compression(fjall::CompressionType::None)
            .open()?;
        let bloom = BloomConstructionPolicy::BitsPerKey(FILTER_BITS as f32);
        let map = db.keyspace("map", || {
            fjall::KeyspaceCreateOptions::default()
                .max_memtable_size(MEMTABLE as u64)
                .data_block_size_policy(BlockSizePolicy::all(BLOCK as u32))
                .data_block_compression_policy(CompressionPolicy::all(fjall::CompressionType::Lz4))
                .filter_policy(FilterPolicy::all(FilterPolicyEntry::Bloom(bloom)))
        })?;
        Ok(Fjall { map, db })
    }
}

impl Fjall {
    fn look(entry: fjall::Guard) -> Outcome {
        let (key, value) = entry.into_inner()?;
        black_box((key[0], value[0]));
        Ok(())
    }
}

impl Engine for Fjall {
    fn put(&self, key: &[u8], value: &[u8]) -> Outcome {
        Ok(self.map.insert(key, value)?)
    }

    fn put_synced(&self, key: &[u8], value: &[u8]) -> Outcome {
        self.map.insert(key, value)?;
        Ok(self.db.persist(fjall::PersistMode::SyncData)?)
    }

    fn get(&self, key: &[u8]) -> Outcome<bool> {
        Ok(self.map.get(key)?.map(|value| black_box(value[0])).is_some())
    }

    fn seek(&self, key: &[u8], steps: usize) -> Outcome<usize> {
        let mut n = 0;
        for entry in self.map.range(key..).take(steps) {
            Fjall::look(entry)?;
            n += 1;
        }
        Ok(n)
    }

    fn scan(&self, reverse: bool) -> Outcome<u64> {
        let mut n = 0;
        let mut entries = self.map.iter();
        while let Some(entry) = if reverse { entries.next_back() } else { entries.next() } {
            Fjall::look(entry)?;
            n += 1;
        }
        Ok(n)
    }

    fn compact(&self) -> Outcome {
        self.map.rotate_memtable_and_wait()?;
        Ok(self.map.major_compact()?)
    }
}
