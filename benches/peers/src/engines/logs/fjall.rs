//! Logs on fjall 3, as whoever has only keys and values keeps them: the key is group and index.

use super::{Change, JOURNAL, LogEngine, Setup, header};
use crate::Outcome;
use crate::engines::{BLOCK, FILTER_BITS, TABLE, workers};
use std::ops::Range;

pub struct Fjall {
    logs: fjall::Keyspace,
    db: fjall::Database,
}

impl Fjall {
    pub fn open(setup: &Setup) -> Outcome<Fjall> {
        use fjall::compaction::Leveled;
        use fjall::config::*;
        let db = fjall::Database::builder(&setup.dir)
            .cache_size(setup.memory as u64)
            .worker_threads(workers())
            .max_journaling_size(JOURNAL)
            .journal_compression(fjall::CompressionType::None)
            .open()?;
        let bloom = BloomConstructionPolicy::BitsPerKey(FILTER_BITS as f32);
        let logs = db.keyspace("logs", || {
            fjall::KeyspaceCreateOptions::default()
                .max_memtable_size(setup.memory as u64)
                .data_block_size_policy(BlockSizePolicy::all(BLOCK as u32))
                .data_block_compression_policy(CompressionPolicy::all(fjall::CompressionType::None))
                .filter_policy(FilterPolicy::all(FilterPolicyEntry::Bloom(bloom)))
                .compaction_strategy(std::sync::Arc::new(
                    Leveled::default().with_table_target_size(TABLE as u64),
                ))
        })?;
        Ok(Fjall { logs, db })
    }
}

impl LogEngine for Fjall {
    fn commit(&self, changes: &[Change]) -> Outcome {
        let mut batch = self.db.batch();
        for change in changes {
            for (index, entry) in change.entries() {
                batch.insert(&self.logs, header(change.group, index), entry);
            }
            // There are no range deletes.
            for index in change.purge.clone() {
                batch.remove(&self.logs, header(change.group, index));
            }
        }
        batch.commit()?;
        Ok(self.db.persist(fjall::PersistMode::SyncData)?)
    }

    fn bounds(&self, group: u64) -> Outcome<Range<u64>> {
        let index = |entry: fjall::Guard| -> Outcome<u64> {
            let key = entry.key()?;
            let index = key.get(8..).and_then(|bytes| bytes.try_into().ok()).ok_or("a strange key")?;
            Ok(u64::from_be_bytes(index))
        };
        let mut entries = self.logs.prefix(group.to_be_bytes());
        let Some(first) = entries.next() else { return Ok(0..0) };
        let first = index(first)?;
        let last = entries.next_back().map_or(Ok(first), index)?;
        Ok(first..last + 1)
    }

    fn read(
        &self,
        group: u64,
        range: Range<u64>,
        most: usize,
        see: &mut dyn FnMut(u64, &[u8]) -> Outcome,
    ) -> Outcome<u64> {
        let (mut n, mut bytes) = (0, 0);
        for entry in self.logs.range(header(group, range.start)..header(group, range.end)) {
            let value = entry.value()?;
            bytes += value.len();
            if n > 0 && bytes > most {
                break;
            }
            see(range.start + n, &value)?;
            n += 1;
        }
        Ok(n)
    }
}
