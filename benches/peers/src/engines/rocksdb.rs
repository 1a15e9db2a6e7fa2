//! RocksDB.

use super::{BLOCK, Engine, FILTER_BITS, MEMTABLE, Setup, TABLE, workers};
use crate::Outcome;
use rocksdb::{
    BlockBasedOptions, BottommostLevelCompaction, Cache, CompactOptions, DB, DBCompressionType,
    DataBlockIndexType, Options, ReadOptions, WriteBatch, WriteOptions,
};
use std::hint::black_box;
use std::path::Path;

/// One is written to, the others wait for their flush, as with Esker.
const MEMTABLES: usize = 4;

pub struct RocksDb {
    db: DB,
    read: ReadOptions,
    write: WriteOptions,
    synced: WriteOptions,
}

fn tables(setup: &Setup) -> BlockBasedOptions {
    let mut tables = BlockBasedOptions::default();
    tables.set_block_size(BLOCK);
    tables.set_block_cache(&Cache::new_hyper_clock_cache(setup.cache, 0));
    // Whole keys, one filter per table, not one per block.
    tables.set_bloom_filter(f64::from(FILTER_BITS), false);
    tables.set_whole_key_filtering(true);
    tables.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
    tables.set_data_block_hash_ratio(0.75);
    // On the heap beside the cache, as with the others.
    tables.set_cache_index_and_filter_blocks(false);
    tables
}

impl RocksDb {
    pub fn open(setup: &Setup) -> Outcome<RocksDb> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&tables(setup));
        options.set_compression_type(if setup.lz4 {
            DBCompressionType::Lz4
        } else {
            DBCompressionType::None
        });
        options.set_write_buffer_size(MEMTABLE);
        options.set_max_write_buffer_number(MEMTABLES as i32);
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_max_bytes_for_level_base(4 * MEMTABLE as u64);
        options.set_target_file_size_base(TABLE as u64);
        options.set_max_background_jobs(workers() as i32);
        options.set_max_open_files(-1);
        options.set_bytes_per_sync(1 << 20);
        options.set_recycle_log_file_num(MEMTABLES);
        options.set_allow_concurrent_memtable_write(setup.synced);
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        let db = DB::open(&options, &setup.dir)?;
        Ok(RocksDb { db, read: ReadOptions::default(), write: WriteOptions::default(), synced })
    }
}

impl Engine for RocksDb {
    fn put(&self, key: &[u8], value: &[u8]) -> Outcome {
        Ok(self.db.put_opt(key, value, &self.write)?)
    }

    fn put_synced(&self, key: &[u8], value: &[u8]) -> Outcome {
        Ok(self.db.put_opt(key, value, &self.synced)?)
    }

    fn get(&self, key: &[u8]) -> Outcome<bool> {
        Ok(self.db.get_pinned_opt(key, &self.read)?.map(|value| black_box(value[0])).is_some())
    }

    fn seek(&self, key: &[u8], steps: usize) -> Outcome<usize> {
        let mut entries = self.db.raw_iterator();
        entries.seek(key);
        let mut n = 0;
        while n < steps
            && let Some((key, value)) = entries.item()
        {
            black_box((key[0], value[0]));
            entries.next();
            n += 1;
        }
        entries.status()?;
        Ok(n)
    }

    fn scan(&self, reverse: bool) -> Outcome<u64> {
        let mut entries = self.db.raw_iterator();
        if reverse {
            entries.seek_to_last()
        } else {
            entries.seek_to_first()
        }
        let mut n = 0;
        while let Some((key, value)) = entries.item() {
            black_box((key[0], value[0]));
            if reverse {
                entries.prev()
            } else {
                entries.next()
            }
            n += 1;
        }
        entries.status()?;
        Ok(n)
    }

    fn delete_range(&self, from: &[u8], to: &[u8]) -> Outcome {
        let mut batch = WriteBatch::default();
        batch.delete_range(from, to);
        Ok(self.db.write_opt(batch, &self.write)?)
    }

    fn flush(&self) -> Outcome {
        Ok(self.db.flush()?)
    }

    fn compact(&self) -> Outcome {
        let mut options = CompactOptions::default();
        // Also the last level, which RocksDB would leave alone without a reason.
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        self.db.compact_range_opt(None::<&[u8]>, None::<&[u8]>, &options);
        Ok(())
    }

    fn is_table(&self, file: &Path) -> bool {
        file.extension().is_some_and(|e| e == "sst")
    }
}
