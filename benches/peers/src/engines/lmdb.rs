//! LMDB.

use super::{Engine, Reader, Setup};
use crate::Outcome;
use crate::generate::Key;
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, RoTxn, RwTxn, WithTls};
use std::hint::black_box;
use std::ops::Bound::{Excluded, Included, Unbounded};

type Map = Database<'static, Bytes, Bytes>;

pub struct Lmdb {
    env: Env,
    map: Map,
}

/// Threads that read.
const READERS: u32 = 128;

impl Lmdb {
    pub fn open(setup: &Setup) -> Outcome<Lmdb> {
        std::fs::create_dir_all(&setup.dir)?;
        let mut options = EnvOpenOptions::new();
        options.map_size(setup.room).max_readers(READERS);
        if !setup.synced {
            // SAFETY: these may lose commits, and with them the file, when the machine dies, not the
            // process; its pages lie in a map that nobody else here writes to.
            unsafe { options.flags(EnvFlags::NO_SYNC | EnvFlags::WRITE_MAP) };
        }
        // SAFETY: the folder is this process's alone, and opened once at a time.
        let env = unsafe { options.open(&setup.dir)? };
        let start = env.write_txn()?;
        let map = env.create_databases_and_commit(start, |opener, start| {
            opener.create_database(start, None).map(CommitOrAbort::<_, ()>::Commit)
        })?;
        Ok(Lmdb { env, map: map.unwrap_commit() })
    }

    fn commit(&self, work: impl FnOnce(&Map, &mut RwTxn) -> heed::Result<()>) -> Outcome {
        let mut transaction = self.env.write_txn()?;
        work(&self.map, &mut transaction)?;
        Ok(transaction.commit()?)
    }
}

impl Engine for Lmdb {
    fn put(&self, key: &Key, value: &[u8]) -> Outcome {
        self.commit(|map, transaction| map.put(transaction, key, value))
    }

    fn put_batch(&self, pairs: &[(Key, &[u8])]) -> Outcome {
        self.commit(|map, transaction| pairs.iter().try_for_each(|(k, v)| map.put(transaction, k, v)))
    }

    fn delete(&self, key: &Key) -> Outcome {
        self.commit(|map, transaction| map.delete(transaction, key).map(drop))
    }

    fn delete_range(&self, from: &Key, to: &Key) -> Outcome {
        self.commit(|map, transaction| {
            map.delete_range(transaction, &(Included(&from[..]), Excluded(&to[..]))).map(drop)
        })
    }

    fn reader(&self, still: bool) -> Outcome<Box<dyn Reader + '_>> {
        let kept = if still { Some(self.env.read_txn()?) } else { None };
        Ok(Box::new(LmdbReader { db: self, kept }))
    }
}

struct LmdbReader<'a> {
    db: &'a Lmdb,
    kept: Option<RoTxn<'a, WithTls>>,
}

impl LmdbReader<'_> {
    fn with<T>(&self, read: impl FnOnce(&Map, &RoTxn) -> Outcome<T>) -> Outcome<T> {
        match &self.kept {
            Some(transaction) => read(&self.db.map, transaction),
            None => read(&self.db.map, &*self.db.env.read_txn()?),
        }
    }
}

fn look(entry: heed::Result<(&[u8], &[u8])>) -> Outcome {
    let (key, value) = entry?;
    black_box((key[0], value[0]));
    Ok(())
}

/// Looks at all entries and counts them.
fn walk<'t>(entries: impl Iterator<Item = heed::Result<(&'t [u8], &'t [u8])>>) -> Outcome<usize> {
    let mut n = 0;
    for entry in entries {
        look(entry)?;
        n += 1;
    }
    Ok(n)
}

impl Reader for LmdbReader<'_> {
    fn get(&mut self, key: &Key) -> Outcome<bool> {
        self.with(|map, t| Ok(map.get(t, key)?.map(|value| black_box(value[0])).is_some()))
    }

    fn multi_get(&mut self, keys: &[Key]) -> Outcome<usize> {
        self.with(|map, t| {
            let mut found = 0;
            for key in keys {
                found += usize::from(map.get(t, key)?.map(|value| black_box(value[0])).is_some());
            }
            Ok(found)
        })
    }

    fn seek(&mut self, key: &Key, steps: usize) -> Outcome<usize> {
        self.with(|map, t| walk(map.range(t, &(Included(&key[..]), Unbounded))?.take(steps)))
    }

    fn prefix(&mut self, prefix: &[u8]) -> Outcome<usize> {
        self.with(|map, t| walk(map.prefix_iter(t, prefix)?))
    }

    fn scan(&mut self, reverse: bool) -> Outcome<u64> {
        self.with(|map, t| {
            let n = if reverse { walk(map.rev_iter(t)?)? } else { walk(map.iter(t)?)? };
            Ok(n as u64)
        })
    }
}
