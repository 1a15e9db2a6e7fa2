//! Esker's logs.

use super::{Change, JOURNAL, LogEngine, Setup};
use crate::Outcome;
use crate::engines::workers;
use std::ops::Range;

pub struct Esker {
    db: esker::Db,
    logs: esker::Logs,
}

/// The newest entries are kept in this part of all memory, at most.
const TAIL: usize = 32;
/// Entries have tags; a Raft log's change with its leader.
const TAG: u64 = 1;

impl Esker {
    pub fn open(setup: &Setup) -> Outcome<Esker> {
        let options = esker::Options::default()
            .durability(esker::Durability::Sync)
            .memory_bytes(TAIL * setup.memory)
            .cache_bytes(setup.memory)
            .memtable_bytes(setup.memory)
            .segment_bytes(setup.memory as u64)
            .journal_bytes(JOURNAL)
            .workers(workers());
        let db = esker::Db::open(&setup.dir, options)?;
        let logs = db.logs("logs")?;
        Ok(Esker { db, logs })
    }
}

impl LogEngine for Esker {
    fn commit(&self, changes: &[Change]) -> Outcome {
        let mut batch = self.db.batch();
        for change in changes {
            let log = self.logs.log(change.group);
            for (index, entry) in change.entries() {
                batch.append(&log, index, TAG, entry);
            }
            if !change.purge.is_empty() {
                batch.purge(&log, change.purge.end);
            }
        }
        batch.commit()?;
        Ok(())
    }

    fn bounds(&self, group: u64) -> Outcome<Range<u64>> {
        Ok(self.logs.log(group).bounds()?)
    }

    fn read(
        &self,
        group: u64,
        range: Range<u64>,
        most: usize,
        see: &mut dyn FnMut(u64, &[u8]) -> Outcome,
    ) -> Outcome<u64> {
        let entries = self.logs.log(group).read(range, most)?;
        for entry in &entries {
            see(entry.index(), entry.bytes())?;
        }
        Ok(entries.len() as u64)
    }

    fn syncs(&self) -> Option<u64> {
        Some(self.db.metrics().journal.syncs)
    }
}
