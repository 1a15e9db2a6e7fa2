//! RocksDB.

use super::{BLOCK, Engine, FILTER_BITS, MEMTABLES, Reader, Setup, TABLE, workers};
use crate::Outcome;
use crate::generate::Key;
use rocksdb::{
    BlockBasedOptions, BottommostLevelCompaction, Cache, CompactOptions, DB, DBCompressionType,
    DataBlockIndexType, Options, ReadOptions, WriteBatch, WriteOptions,
};
use std::hint::black_box;

pub struct RocksDb {
    db: DB,
    read: ReadOptions,
    write: WriteOptions,
}

/// What a batched get has to name.
const FAMILY: &str = "default";

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
    pub fn open(setup: &Setup, mapped: bool) -> Outcome<RocksDb> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&tables(setup));
        options.set_compression_type(if setup.lz4 {
            DBCompressionType::Lz4
        } else {
            DBCompressionType::None
        });
        options.set_allow_mmap_reads(mapped);
        options.set_write_buffer_size(setup.memtable);
        options.set_max_write_buffer_number(MEMTABLES as i32);
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_max_bytes_for_level_base((MEMTABLES * setup.memtable) as u64);
        options.set_target_file_size_base(TABLE as u64);
        options.set_max_background_jobs(workers() as i32);
        options.set_max_open_files(-1);
        options.set_bytes_per_sync(1 << 20);
        options.set_recycle_log_file_num(MEMTABLES);
        options.set_allow_concurrent_memtable_write(setup.synced);
        let mut write = WriteOptions::default();
        write.set_sync(setup.synced);
        let db = DB::open_cf_with_opts(&options.clone(), &setup.dir, [(FAMILY, options)])?;
        Ok(RocksDb { db, read: ReadOptions::default(), write })
    }

    fn stats(&self) -> Option<String> {
        self.db.property_value("rocksdb.stats").ok()?
    }
}

/// The number before `unit` in the line that begins with `line`, behind `name`.
fn stat(stats: &str, line: &str, name: &str, unit: &str) -> Option<f64> {
    let line = stats.lines().find_map(|l| l.strip_prefix(line))?;
    let (before, _) = line.get(line.find(name)? + name.len()..)?.split_once(unit)?;
    let number = before.trim();
    match number.strip_suffix(['K', 'M', 'G']) {
        Some(digits) => {
            let times = [('K', 1e3), ('M', 1e6), ('G', 1e9)].iter().find(|(c, _)| number.ends_with(*c))?.1;
            Some(digits.parse::<f64>().ok()? * times)
        }
        None => number.parse().ok(),
    }
}

impl Engine for RocksDb {
    fn put(&self, key: &Key, value: &[u8]) -> Outcome {
        Ok(self.db.put_opt(key, value, &self.write)?)
    }

    fn put_batch(&self, pairs: &[(Key, &[u8])]) -> Outcome {
        let mut batch = WriteBatch::default();
        for (key, value) in pairs {
            batch.put(key, value);
        }
        Ok(self.db.write_opt(batch, &self.write)?)
    }

    fn delete(&self, key: &Key) -> Outcome {
        Ok(self.db.delete_opt(key, &self.write)?)
    }

    fn delete_range(&self, from: &Key, to: &Key) -> Outcome {
        let mut batch = WriteBatch::default();
        batch.delete_range(from, to);
        Ok(self.db.write_opt(batch, &self.write)?)
    }

    fn reader(&self, _still: bool) -> Outcome<Box<dyn Reader + '_>> {
        Ok(Box::new(self))
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

    fn written_bytes(&self) -> Option<u64> {
        let stats = self.stats()?;
        // In gigabytes, with two digits behind the point.
        let gib = stat(&stats, "Cumulative WAL:", "written:", "GB")?
            + stat(&stats, "Cumulative compaction:", "", "GB write")?;
        Some((gib * f64::from(1 << 30)) as u64)
    }

    fn syncs(&self) -> Option<u64> {
        Some(stat(&self.stats()?, "Cumulative WAL:", "writes,", "syncs")? as u64)
    }
}

impl RocksDb {
    fn walk(&self, from: &[u8], most: usize, goes_on: impl Fn(&[u8]) -> bool) -> Outcome<usize> {
        let mut entries = self.db.raw_iterator();
        entries.seek(from);
        let mut n = 0;
        while n < most
            && let Some((key, value)) = entries.item()
            && goes_on(key)
        {
            black_box((key[0], value[0]));
            entries.next();
            n += 1;
        }
        entries.status()?;
        Ok(n)
    }
}

impl Reader for &RocksDb {
    fn get(&mut self, key: &Key) -> Outcome<bool> {
        Ok(self.db.get_pinned_opt(key, &self.read)?.map(|value| black_box(value[0])).is_some())
    }

    fn multi_get(&mut self, keys: &[Key]) -> Outcome<usize> {
        let family = self.db.cf_handle(FAMILY).ok_or("no default column family")?;
        let mut found = 0;
        for value in self.db.batched_multi_get_cf_opt(family, keys, false, &self.read) {
            found += usize::from(value?.map(|value| black_box(value[0])).is_some());
        }
        Ok(found)
    }

    fn seek(&mut self, key: &Key, steps: usize) -> Outcome<usize> {
        self.walk(key, steps, |_| true)
    }

    fn prefix(&mut self, prefix: &[u8]) -> Outcome<usize> {
        self.walk(prefix, usize::MAX, |key| key.starts_with(prefix))
    }

    fn scan(&mut self, reverse: bool) -> Outcome<u64> {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_statistics_are_understood() {
        let stats = "** DB Stats **\n\
            Cumulative WAL: 4123K writes, 312 syncs, 13214.74 writes per sync, written: 0.52 GB, 8.2 MB/s\n\
            Cumulative compaction: 2.05 GB write, 53.00 MB/s write, 1.45 GB read, 37.4 MB/s read\n";
        assert_eq!(stat(stats, "Cumulative WAL:", "written:", "GB"), Some(0.52));
        assert_eq!(stat(stats, "Cumulative WAL:", "writes,", "syncs"), Some(312.0));
        assert_eq!(stat(stats, "Cumulative WAL:", "", "writes"), Some(4.123e6));
        assert_eq!(stat(stats, "Cumulative compaction:", "", "GB write"), Some(2.05));
        assert_eq!(stat(stats, "Cumulative nothing:", "", "GB write"), None);
    }
}
