//! redb 4.

use super::{Engine, Reader, Setup};
use crate::Outcome;
use crate::generate::Key;
use redb::{Durability, ReadableDatabase, TableDefinition, WriteTransaction};
use std::hint::black_box;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::atomic::{AtomicU64, Ordering};

type Bytes = &'static [u8];
type Table = redb::ReadOnlyTable<Bytes, Bytes>;

const MAP: TableDefinition<Bytes, Bytes> = TableDefinition::new("map");

/// Of so many commits that are not to be durable one is: without any, no page is ever free again.
const DURABLE_EVERY: u64 = 1000;

pub struct Redb {
    db: redb::Database,
    synced: bool,
    commits: AtomicU64,
}

impl Redb {
    pub fn open(setup: &Setup) -> Outcome<Redb> {
        std::fs::create_dir_all(&setup.dir)?;
        let file = setup.dir.join("redb");
        let db = redb::Database::builder().set_cache_size(setup.cache).create(file)?;
        let start = db.begin_write()?;
        start.open_table(MAP)?;
        start.commit()?;
        Ok(Redb { db, synced: setup.synced, commits: AtomicU64::new(0) })
    }

    fn commit(&self, work: impl FnOnce(&WriteTransaction) -> Outcome) -> Outcome {
        let mut transaction = self.db.begin_write()?;
        let n = self.commits.fetch_add(1, Ordering::Relaxed);
        if !self.synced && n % DURABLE_EVERY != DURABLE_EVERY - 1 {
            transaction.set_durability(Durability::None)?;
        }
        work(&transaction)?;
        Ok(transaction.commit()?)
    }
}

impl Engine for Redb {
    fn put(&self, key: &Key, value: &[u8]) -> Outcome {
        self.put_batch(&[(*key, value)])
    }

    fn put_batch(&self, pairs: &[(Key, &[u8])]) -> Outcome {
        self.commit(|transaction| {
            let mut map = transaction.open_table(MAP)?;
            for (key, value) in pairs {
                map.insert(&key[..], *value)?;
            }
            Ok(())
        })
    }

    fn delete(&self, key: &Key) -> Outcome {
        self.commit(|transaction| {
            transaction.open_table(MAP)?.remove(&key[..])?;
            Ok(())
        })
    }

    fn delete_range(&self, from: &Key, to: &Key) -> Outcome {
        self.commit(|transaction| {
            let mut map = transaction.open_table(MAP)?;
            Ok(map.retain_in(&from[..]..&to[..], |_, _| false)?)
        })
    }

    fn reader(&self, still: bool) -> Outcome<Box<dyn Reader + '_>> {
        let kept = if still { Some(self.table()?) } else { None };
        Ok(Box::new(RedbReader { db: self, kept }))
    }

    fn flush(&self) -> Outcome {
        // A commit that is durable, whatever the others were.
        Ok(self.db.begin_write()?.commit()?)
    }
}

impl Redb {
    fn table(&self) -> Outcome<Table> {
        Ok(self.db.begin_read()?.open_table(MAP)?)
    }
}

struct RedbReader<'a> {
    db: &'a Redb,
    kept: Option<Table>,
}

impl RedbReader<'_> {
    fn with<T>(&self, read: impl FnOnce(&Table) -> Outcome<T>) -> Outcome<T> {
        match &self.kept {
            Some(table) => read(table),
            None => read(&self.db.table()?),
        }
    }
}

/// Reads up to `most` entries from `from` on, while they go on like that.
fn walk(table: &Table, from: &[u8], most: usize, goes_on: impl Fn(&[u8]) -> bool) -> Outcome<usize> {
    let mut n = 0;
    for entry in table.range::<&[u8]>((Included(from), Unbounded))?.take(most) {
        let (key, value) = entry?;
        if !goes_on(key.value()) {
            break;
        }
        black_box((key.value()[0], value.value()[0]));
        n += 1;
    }
    Ok(n)
}

impl Reader for RedbReader<'_> {
    fn get(&mut self, key: &Key) -> Outcome<bool> {
        self.with(|table| Ok(table.get(&key[..])?.map(|value| black_box(value.value()[0])).is_some()))
    }

    fn multi_get(&mut self, keys: &[Key]) -> Outcome<usize> {
        self.with(|table| {
            let mut found = 0;
            for key in keys {
                let value = table.get(&key[..])?;
                found += usize::from(value.map(|value| black_box(value.value()[0])).is_some());
            }
            Ok(found)
        })
    }

    fn seek(&mut self, key: &Key, steps: usize) -> Outcome<usize> {
        self.with(|table| walk(table, key, steps, |_| true))
    }

    fn prefix(&mut self, prefix: &[u8]) -> Outcome<usize> {
        self.with(|table| walk(table, prefix, usize::MAX, |key| key.starts_with(prefix)))
    }

    fn scan(&mut self, reverse: bool) -> Outcome<u64> {
        self.with(|table| {
            let mut entries = table.range::<&[u8]>((Unbounded, Excluded(&b"\xff"[..])))?;
            let mut n = 0;
            while let Some(entry) = if reverse { entries.next_back() } else { entries.next() } {
                let (key, value) = entry?;
                black_box((key.value()[0], value.value()[0]));
                n += 1;
            }
            Ok(n)
        })
    }
}
