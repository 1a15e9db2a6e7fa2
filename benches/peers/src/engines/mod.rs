//! The engines, behind one face, set up alike. The settings and the reasons are in README.md.

mod esker;
mod fjall;
#[cfg(feature = "rocksdb")]
mod rocksdb;

use crate::Outcome;
use std::path::{Path, PathBuf};

#[cfg(feature = "rocksdb")]
pub const NAMES: &[&str] = &["esker", "rocksdb", "fjall"];
#[cfg(not(feature = "rocksdb"))]
pub const NAMES: &[&str] = &["esker", "fjall"];

const MEMTABLE: usize = 16 << 20;
const TABLE: usize = 16 << 20;
const BLOCK: usize = 4 << 10;
const FILTER_BITS: u32 = 10;

#[derive(Clone)]
pub struct Setup {
    pub dir: PathBuf,
    pub cache: usize,
    /// LZ4 for tables, or nothing. The journal is never compressed.
    pub lz4: bool,
    /// For commits that are synced, by several threads at a time.
    pub synced: bool,
}

fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What is measured. Values are looked at where they lie.
pub trait Engine: Sync {
    /// Survives the death of the process.
    fn put(&self, key: &[u8], value: &[u8]) -> Outcome;
    /// Survives power loss.
    fn put_synced(&self, key: &[u8], value: &[u8]) -> Outcome;
    fn get(&self, key: &[u8]) -> Outcome<bool>;
    /// Reads up to `steps` entries from `key` on, as of now.
    fn seek(&self, key: &[u8], steps: usize) -> Outcome<usize>;
    /// Reads everything and answers how many entries there were.
    fn scan(&self, reverse: bool) -> Outcome<u64>;
    fn delete_range(&self, from: &[u8], to: &[u8]) -> Outcome;
    /// Everything in memory into tables. What follows from that happens in the background.
    fn flush(&self) -> Outcome;
    /// Merges all tables.
    fn compact(&self) -> Outcome;
    /// Whether this file of the database is a table.
    fn is_table(&self, file: &Path) -> bool;
    /// Bytes written, if the engine counts them.
    fn written_bytes(&self) -> Option<u64> {
        None
    }
}

pub fn open(engine: &str, setup: &Setup) -> Outcome<Box<dyn Engine>> {
    match engine {
        "esker" => Ok(Box::new(esker::Esker::open(setup)?)),
        "fjall" => Ok(Box::new(fjall::Fjall::open(setup)?)),
        #[cfg(feature = "rocksdb")]
        "rocksdb" => Ok(Box::new(rocksdb::RocksDb::open(setup)?)),
        other => Err(format!("no engine called {other}; there are {NAMES:?}").into()),
    }
}
