//! fjall 3.

use super::{BLOCK, Engine, FILTER_BITS, Reader, Setup, TABLE, workers};
use crate::Outcome;
use crate::generate::Key;
use std::hint::black_box;

pub struct Fjall {
    map: fjall::Keyspace,
    db: fjall::Database,
    synced: bool,
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
                .max_memtable_size(setup.memtable as u64)
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
        Ok(Fjall { map, db, synced: setup.synced })
    }

    fn persist(&self) -> Outcome {
        match self.synced {
            true => Ok(self.db.persist(fjall::PersistMode::SyncData)?),
            false => Ok(()),
        }
    }
}

impl Engine for Fjall {
    fn put(&self, key: &Key, value: &[u8]) -> Outcome {
        self.map.insert(key, value)?;
        self.persist()
    }

    fn put_batch(&self, pairs: &[(Key, &[u8])]) -> Outcome {
        let mut batch = self.db.batch();
        for (key, value) in pairs {
            batch.insert(&self.map, key, *value);
        }
        batch.commit()?;
        self.persist()
    }

    fn delete(&self, key: &Key) -> Outcome {
        self.map.remove(key)?;
        self.persist()
    }

    fn delete_range(&self, from: &Key, to: &Key) -> Outcome {
        // There are no range deletes: the keys are looked for and deleted one by one.
        for entry in self.map.range(&from[..]..&to[..]) {
            self.map.remove(entry.key()?)?;
        }
        self.persist()
    }

    fn reader(&self, _still: bool) -> Outcome<Box<dyn Reader + '_>> {
        Ok(Box::new(&self.map))
    }

    fn flush(&self) -> Outcome {
        Ok(self.map.rotate_memtable_and_wait()?)
    }

    fn compact(&self) -> Outcome {
        Ok(self.map.major_compact()?)
    }
}

fn look(entry: fjall::Guard) -> Outcome {
    let (key, value) = entry.into_inner()?;
    black_box((key[0], value[0]));
    Ok(())
}

fn walk(entries: impl Iterator<Item = fjall::Guard>) -> Outcome<usize> {
    let mut n = 0;
    for entry in entries {
        look(entry)?;
        n += 1;
    }
    Ok(n)
}

impl Reader for &fjall::Keyspace {
    fn get(&mut self, key: &Key) -> Outcome<bool> {
        Ok(fjall::Keyspace::get(self, key)?.map(|value| black_box(value[0])).is_some())
    }

    fn seek(&mut self, key: &Key, steps: usize) -> Outcome<usize> {
        walk(self.range(&key[..]..).take(steps))
    }

    fn prefix(&mut self, prefix: &[u8]) -> Outcome<usize> {
        walk(fjall::Keyspace::prefix(self, prefix))
    }

    fn scan(&mut self, reverse: bool) -> Outcome<u64> {
        let mut n = 0;
        let mut entries = self.iter();
        while let Some(entry) = if reverse { entries.next_back() } else { entries.next() } {
            look(entry)?;
            n += 1;
        }
        Ok(n)
    }
}
