//! The engines, behind one face, set up alike. The settings and the reasons are in README.md.

mod esker;
#[cfg(feature = "fjall")]
mod fjall;
#[cfg(feature = "lmdb")]
mod lmdb;
pub mod logs;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;

use crate::Outcome;
use crate::generate::Key;
use std::path::PathBuf;
use std::time::Duration;

/// An engine as the harness has to know it.
#[derive(Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    /// Keeps one tree in one file: compresses nothing, has nothing to settle or compact, and is loaded
    /// in batches, as single puts take it too long.
    pub tree: bool,
    /// Only reads differ from another engine's: its writes are not told.
    pub reads_only: bool,
    /// What it promises of a commit that is not synced is less than surviving the process.
    pub volatile: bool,
    /// Keeps a map; raft-engine does not.
    pub maps: bool,
    /// Keeps logs: it has them, or fjall's keys stand for them.
    pub logs: bool,
    /// What a feature of this package brings is there.
    pub built: bool,
}

const LSM: Kind =
    Kind { name: "", tree: false, reads_only: false, volatile: false, maps: true, logs: false, built: true };
const ROCKSDB: Kind = Kind { name: "rocksdb", built: cfg!(feature = "rocksdb"), ..LSM };

pub const KINDS: &[Kind] = &[
    Kind { name: "esker", logs: true, ..LSM },
    ROCKSDB,
    Kind { name: "rocksdb-mmap", reads_only: true, ..ROCKSDB },
    Kind { name: "fjall", logs: true, built: cfg!(feature = "fjall"), ..LSM },
    Kind { name: "redb", tree: true, volatile: true, built: cfg!(feature = "redb"), ..LSM },
    Kind { name: "lmdb", tree: true, built: cfg!(feature = "lmdb"), ..LSM },
    Kind { name: "raft-engine", maps: false, logs: true, built: cfg!(feature = "raft-engine"), ..LSM },
];

pub fn kind(name: &str) -> Outcome<Kind> {
    let known = KINDS.iter().find(|kind| kind.name == name && kind.built);
    known.copied().ok_or_else(|| format!("no engine called {name}, or built without its feature").into())
}

const TABLE: usize = 16 << 20;
const BLOCK: usize = 4 << 10;
const FILTER_BITS: u32 = 10;
/// One is written to, the others wait for their flush.
const MEMTABLES: usize = 4;

#[derive(Clone)]
pub struct Setup {
    pub dir: PathBuf,
    /// Bytes of blocks or pages it may keep.
    pub cache: usize,
    /// Bytes of a memtable.
    pub memtable: usize,
    /// LZ4 for tables, or nothing. The journal is never compressed.
    pub lz4: bool,
    /// Each commit survives power loss; the process, otherwise.
    pub synced: bool,
    /// Bytes that one file for everything may grow to, where that has to be said before.
    #[cfg_attr(not(feature = "lmdb"), expect(dead_code))]
    pub room: usize,
}

fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Writes, with what the setup promises.
pub trait Engine: Sync {
    fn put(&self, key: &Key, value: &[u8]) -> Outcome;
    /// All in one commit.
    fn put_batch(&self, pairs: &[(Key, &[u8])]) -> Outcome;
    fn delete(&self, key: &Key) -> Outcome;
    fn delete_range(&self, from: &Key, to: &Key) -> Outcome;
    /// What a thread reads with. If it is `still`, nobody writes meanwhile, and engines that read in
    /// transactions may keep one; each call sees the newest commit otherwise.
    fn reader(&self, still: bool) -> Outcome<Box<dyn Reader + '_>>;
    /// Everything in memory into tables. What follows from that happens in the background.
    fn flush(&self) -> Outcome {
        Ok(())
    }
    /// Merges all tables; not if there is no such thing.
    fn compact(&self) -> Outcome {
        Ok(())
    }
    /// Bytes written, if the engine counts them.
    fn written_bytes(&self) -> Option<u64> {
        None
    }
    /// Syncs of the journal, if the engine counts them.
    fn syncs(&self) -> Option<u64> {
        None
    }
    /// The time in which one of them was under way, if the engine says.
    fn syncing(&self) -> Option<Duration> {
        None
    }
}

/// Reads. Values are looked at where they lie.
pub trait Reader {
    fn get(&mut self, key: &Key) -> Outcome<bool>;
    /// How many of them there are; in one call where there is one.
    fn multi_get(&mut self, keys: &[Key]) -> Outcome<usize> {
        let mut found = 0;
        for key in keys {
            found += usize::from(self.get(key)?);
        }
        Ok(found)
    }
    /// Reads up to `steps` entries from `key` on, as of now.
    fn seek(&mut self, key: &Key, steps: usize) -> Outcome<usize>;
    /// Reads all entries that begin so, as of now.
    fn prefix(&mut self, prefix: &[u8]) -> Outcome<usize>;
    /// Reads everything and answers how many entries there were.
    fn scan(&mut self, reverse: bool) -> Outcome<u64>;
}

pub fn open(engine: &str, setup: &Setup) -> Outcome<Box<dyn Engine>> {
    match engine {
        "esker" => Ok(Box::new(esker::Esker::open(setup)?)),
        #[cfg(feature = "fjall")]
        "fjall" => Ok(Box::new(fjall::Fjall::open(setup)?)),
        #[cfg(feature = "lmdb")]
        "lmdb" => Ok(Box::new(lmdb::Lmdb::open(setup)?)),
        #[cfg(feature = "redb")]
        "redb" => Ok(Box::new(redb::Redb::open(setup)?)),
        #[cfg(feature = "rocksdb")]
        "rocksdb" => Ok(Box::new(rocksdb::RocksDb::open(setup, false)?)),
        #[cfg(feature = "rocksdb")]
        "rocksdb-mmap" => Ok(Box::new(rocksdb::RocksDb::open(setup, true)?)),
        other => Err(format!("no engine called {other}").into()),
    }
}
