//! fjall 3.

use super::{BLOCK, Engine, FILTER_BITS, MEMTABLE, Setup, TABLE, workers};
use crate::Outcome;
use std::hint::black_box;
use std::path::Path;

pub struct Fjall {
    map: fjall::Keyspace,
    db: fjall::Database,
}

/// Buckets per key in the hash index of a block; RocksDB's 0.75 is keys per bucket.
const BUCKETS: f32 = 1.33;

impl Fjall {
    pub fn open(setup: &Setup) -> Outcome<Fjall> {
        use fjall::CompressionType::{Lz4, None};
        use fjall::compaction::Leveled;
        use fjall::config::*;
        let db = fjall::Database::builder(&setup.dir)
            .cache_size(setup.cache as u64)
            .worker_threads(workers())
            .journal_compression(None)
            .open()?;
        let bloom = BloomConstructionPolicy::BitsPerKey(FILTER_BITS as f32);
        let map = db.keyspace("map", || {
            fjall::KeyspaceCreateOptions::default()
                .max_memtable_size(MEMTABLE as u64)
                .data_block_size_policy(BlockSizePolicy::all(BLOCK as u32))
                .data_block_hash_ratio_policy(HashRatioPolicy::all(BUCKETS))
                .data_block_compression_policy(CompressionPolicy::all(if setup.lz4 { Lz4 } else { None }))
                .filter_policy(FilterPolicy::all(FilterPolicyEntry::Bloom(bloom)))
                // On the heap beside the cache, as with the others.
                .filter_block_pinning_policy(PinningPolicy::all(true))
                .index_block_pinning_policy(PinningPolicy::all(true))
                .filter_block_partitioning_policy(PartitioningPolicy::all(false))
                .index_block_partitioning_policy(PartitioningPolicy::all(false))
                .compaction_strategy(std::sync::Arc::new(
                    Leveled::default().with_table_target_size(TABLE as u64),
                ))
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

    fn delete_range(&self, from: &[u8], to: &[u8]) -> Outcome {
        // There are no range deletes: the keys are looked for and deleted one by one.
        for entry in self.map.range(from..to) {
            self.map.remove(entry.key()?)?;
        }
        Ok(())
    }

    fn flush(&self) -> Outcome {
        Ok(self.map.rotate_memtable_and_wait()?)
    }

    fn compact(&self) -> Outcome {
        Ok(self.map.major_compact()?)
    }

    fn is_table(&self, file: &Path) -> bool {
        file.parent().is_some_and(|folder| folder.ends_with("tables"))
    }
}
