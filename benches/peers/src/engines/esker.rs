//! Esker.

use super::{BLOCK, Engine, FILTER_BITS, MEMTABLES, Reader, Setup, TABLE, workers};
use crate::Outcome;
use crate::generate::Key;
use std::hint::black_box;
use std::time::Duration;

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
            .memory_bytes(setup.cache + 4 * MEMTABLES * setup.memtable)
            .memtable_bytes(setup.memtable)
            .segment_bytes(setup.memtable as u64)
            .table_bytes(TABLE as u64)
            .workers(workers());
        let db = esker::Db::open(&setup.dir, options)?;
        let map = db.keyspace_with("map", tables)?;
        Ok(Esker { db, map })
    }
}

impl Engine for Esker {
    fn put(&self, key: &Key, value: &[u8]) -> Outcome {
        self.map.put(key, value)?;
        Ok(())
    }

    fn put_batch(&self, pairs: &[(Key, &[u8])]) -> Outcome {
        let mut batch = self.db.batch();
        for (key, value) in pairs {
            batch.put(&self.map, key, value);
        }
        batch.commit()?;
        Ok(())
    }

    fn delete(&self, key: &Key) -> Outcome {
        self.map.delete(key)?;
        Ok(())
    }

    fn delete_range(&self, from: &Key, to: &Key) -> Outcome {
        self.map.delete_range(&from[..]..&to[..])?;
        Ok(())
    }

    fn reader(&self, _still: bool) -> Outcome<Box<dyn Reader + '_>> {
        Ok(Box::new(&self.map))
    }

    fn flush(&self) -> Outcome {
        Ok(self.db.flush()?)
    }

    fn compact(&self) -> Outcome {
        Ok(self.map.compact(..)?)
    }

    fn written_bytes(&self) -> Option<u64> {
        let metrics = self.db.metrics();
        Some(metrics.journal.bytes + metrics.manifest.bytes + metrics.jobs.written())
    }

    fn syncs(&self) -> Option<u64> {
        Some(self.db.metrics().journal.syncs)
    }

    fn syncing(&self) -> Option<Duration> {
        Some(self.db.metrics().journal.syncing)
    }
}

/// Reads up to `most` entries.
fn walk(mut cursor: esker::Cursor, most: usize) -> Outcome<usize> {
    let mut n = 0;
    while n < most
        && let Some((key, value)) = cursor.next()?
    {
        black_box((key[0], value[0]));
        n += 1;
    }
    Ok(n)
}

impl Reader for &esker::Keyspace {
    fn get(&mut self, key: &Key) -> Outcome<bool> {
        Ok(self.get_with(key, |value| black_box(value[0]))?.is_some())
    }

    fn multi_get(&mut self, keys: &[Key]) -> Outcome<usize> {
        let values = esker::Keyspace::multi_get(self, keys)?;
        let mut found = 0;
        for value in values.iter().flatten() {
            black_box(value[0]);
            found += 1;
        }
        Ok(found)
    }

    fn seek(&mut self, key: &Key, steps: usize) -> Outcome<usize> {
        walk(self.cursor(&key[..]..), steps)
    }

    fn prefix(&mut self, prefix: &[u8]) -> Outcome<usize> {
        walk(self.cursor(esker::Prefix(prefix)), usize::MAX)
    }

    fn scan(&mut self, reverse: bool) -> Outcome<u64> {
        let mut cursor = self.cursor(..);
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
}
