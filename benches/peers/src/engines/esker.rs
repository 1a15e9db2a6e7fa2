//! Esker.

use super::{BLOCK, Engine, FILTER_BITS, MEMTABLE, Setup, TABLE, workers};
use crate::Outcome;
use std::hint::black_box;
use std::path::Path;

pub struct Esker {
    db: esker::Db,
    map: esker::Keyspace,
}

impl Esker {
    pub fn open(setup: &Setup) -> Outcome<Esker> {
        use esker::{Compression, Durability};
        let tables = esker::KeyspaceOptions::default()
            .compression(if setup.lz4 { Compression::Lz4 } else { Compression::None })
            .block_bytes(BLOCK)
            .filter_bits(FILTER_BITS);
        let options = esker::Options::default()
            .durability(if setup.synced { Durability::Sync } else { Durability::Buffered })
            .cache_bytes(setup.cache)
            // The cache has its size in any case.
            .memory_bytes(setup.cache + 16 * MEMTABLE)
            .memtable_bytes(MEMTABLE)
            .segment_bytes(MEMTABLE as u64)
            .table_bytes(TABLE as u64)
            .workers(workers());
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
            cursor.seek_last();
        }
        let mut n = 0;
        while let Some((key, value)) = if reverse { cursor.prev()? } else { cursor.next()? } {
            black_box((key[0], value[0]));
            n += 1;
        }
        Ok(n)
    }

    fn delete_range(&self, from: &[u8], to: &[u8]) -> Outcome {
        self.map.delete_range(from..to)?;
        Ok(())
    }

    fn flush(&self) -> Outcome {
        Ok(self.db.flush()?)
    }

    fn compact(&self) -> Outcome {
        // There is no compaction on demand yet: what is due is done, so several runs may remain.
        self.db.flush()?;
        while self.db.step()? {}
        Ok(())
    }

    fn is_table(&self, file: &Path) -> bool {
        file.extension().is_some_and(|e| e == "table")
    }

    fn written_bytes(&self) -> Option<u64> {
        let metrics = self.db.metrics();
        Some(metrics.journal.bytes + metrics.manifest.bytes + metrics.jobs.written())
    }
}
