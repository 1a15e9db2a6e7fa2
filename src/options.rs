//! Options: plain data, checked when the database is opened.

use crate::error::{Error, Result};
use crate::fs::{Fs, os::OsFs};
use std::sync::Arc;

/// The largest memtable that can be asked for; references into one are 32 bits wide.
pub(crate) const MAX_MEMTABLE_BYTES: usize = 1 << 30;

/// What a commit's return promises.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Durability {
    /// The commit survives the death of the process, not of the machine. Costs no system call
    /// where the journal is mapped, one `write` elsewhere.
    Buffered,
    /// The commit survives power loss. Costs one `fdatasync`, shared by all that wait for it.
    #[default]
    Sync,
}

/// How data blocks of tables are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all: blocks are read in place, without a copy.
    None,
    /// LZ4: cheap, and the default.
    #[default]
    Lz4,
    /// Zstandard, level 3: smaller and slower. Needs the `zstd` feature.
    #[cfg(feature = "zstd")]
    Zstd,
}

/// How one keyspace keeps its tables. Stored with the keyspace; a change applies to tables written
/// from then on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyspaceOptions {
    pub(crate) compression: Compression,
    pub(crate) block_bytes: usize,
    pub(crate) filter_bits: u32,
}

impl Default for KeyspaceOptions {
    fn default() -> Self {
        KeyspaceOptions { compression: Compression::default(), block_bytes: 4 << 10, filter_bits: 10 }
    }
}

impl KeyspaceOptions {
    /// Compression of data blocks. Default: LZ4.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Bytes of keys and values per data block, 64 B to 1 MiB. Larger blocks compress better and
    /// cost more per point read. Default: 4 KiB.
    #[must_use]
    pub fn block_bytes(mut self, bytes: usize) -> Self {
        self.block_bytes = bytes;
        self
    }

    /// Bits per key of the filters that keep point reads away from tables without the key, 0 (no
    /// filter) to 16. Ten bits let about 1 % of misses through. Default: 10.
    #[must_use]
    pub fn filter_bits(mut self, bits: u32) -> Self {
        self.filter_bits = bits;
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        within("block_bytes", self.block_bytes as u64, 64, 1 << 20)?;
        within("filter_bits", u64::from(self.filter_bits), 0, 16)
    }
}

/// How a database is opened. Plain data: nothing is checked before [`Db::open`](crate::Db::open).
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) durability: Durability,
    pub(crate) memtable_bytes: usize,
    pub(crate) segment_bytes: u64,
    pub(crate) journal_bytes: u64,
    pub(crate) memory_bytes: usize,
    pub(crate) cache_bytes: usize,
    pub(crate) open_files: usize,
    pub(crate) table_bytes: u64,
    pub(crate) mapped: bool,
    pub(crate) workers: usize,
    pub(crate) read_only: bool,
    pub(crate) keyspaces: KeyspaceOptions,
    pub(crate) fs: Arc<dyn Fs>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            durability: Durability::default(),
            memtable_bytes: 64 << 20,
            segment_bytes: 64 << 20,
            journal_bytes: 512 << 20,
            memory_bytes: 512 << 20,
            cache_bytes: 64 << 20,
            open_files: 1000,
            table_bytes: 64 << 20,
            mapped: true,
            workers: std::thread::available_parallelism().map_or(1, usize::from).clamp(1, 8),
            read_only: false,
            keyspaces: KeyspaceOptions::default(),
            fs: Arc::new(OsFs),
        }
    }
}

impl Options {
    /// What a commit promises unless it says otherwise. Default: [`Durability::Sync`].
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Bytes a keyspace gathers in memory before they are flushed to a table, 1 KiB to 1 GiB, but no
    /// more than an eighth of [`memory_bytes`](Options::memory_bytes). All memtables together are held
    /// to about four times this. Default: 64 MiB.
    #[must_use]
    pub fn memtable_bytes(mut self, bytes: usize) -> Self {
        self.memtable_bytes = bytes;
        self
    }

    /// Bytes of a journal segment, preallocated, at least 16 KiB. A larger batch gets a larger
    /// segment of its own. Beside those in use, one lies ready and one that was is kept to be used again.
    /// Default: 64 MiB.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// Bytes of journal that opening after a crash may have to replay: memtables that pin older
    /// journal are flushed. At least two segments. Default: 512 MiB.
    #[must_use]
    pub fn journal_bytes(mut self, bytes: u64) -> Self {
        self.journal_bytes = bytes;
        self
    }

    /// Bytes of memory for everything: memtables (half of it at most), indexes and filters of open
    /// tables (three eighths; about 2 % of the data when entries are small), buffers of background work,
    /// and, in what is left, cached blocks. Held to within a few buffers and what callers hold
    /// themselves: values, iterators. Maps of files are not memory in this sense. At least 1 MiB.
    /// Default: 512 MiB.
    #[must_use]
    pub fn memory_bytes(mut self, bytes: usize) -> Self {
        self.memory_bytes = bytes;
        self
    }

    /// Bytes of blocks kept in memory, within [`memory_bytes`](Options::memory_bytes): less when the
    /// rest needs more. Tables that are read in place through a map do not use it. Default: 64 MiB.
    #[must_use]
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Table files that are open (and mapped) at a time, at least 16: beyond, those unused for longest are
    /// closed. Ranges being walked and merges that run hold theirs open on top of that, one a run.
    /// Default: 1000.
    #[must_use]
    pub fn open_files(mut self, files: usize) -> Self {
        self.open_files = files;
        self
    }

    /// Bytes at which a merge starts its next table, at least 1 KiB. Default: 64 MiB.
    #[must_use]
    pub fn table_bytes(mut self, bytes: u64) -> Self {
        self.table_bytes = bytes;
        self
    }

    /// Whether uncompressed blocks are read, and the journal of a `Buffered` database written,
    /// through memory maps where the file system allows it. The price: an I/O error under a map
    /// kills the process with SIGBUS instead of failing the call. Default: true.
    #[must_use]
    pub fn mapped(mut self, mapped: bool) -> Self {
        self.mapped = mapped;
        self
    }

    /// Background threads for flushes and merges, at most 64. With 0 the work is done by whoever
    /// needs its result, or by hand with [`Db::step`](crate::Db::step): then a run is
    /// deterministic. On Linux they have a lower priority than who starts them (`nice` 4). Default: the
    /// number of cores, at most 8.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Opens without changing or creating anything; fails if somebody has the database open for
    /// writing. Default: false.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// What new keyspaces get that do not say otherwise.
    #[must_use]
    pub fn keyspaces(mut self, options: KeyspaceOptions) -> Self {
        self.keyspaces = options;
        self
    }

    /// The file system to live on: the real one or, with the feature `sim`, a simulated or faulty one.
    /// Default: the real one.
    #[must_use]
    pub fn fs(mut self, fs: Arc<dyn Fs>) -> Self {
        self.fs = fs;
        self
    }

    /// The size at which a memtable is frozen. One and a half of it may be written to, and three be
    /// frozen, over all keyspaces: that is about half of the memory there is.
    pub(crate) fn memtable_limit(&self) -> usize {
        self.memtable_bytes.min(self.memory_bytes / 8)
    }

    /// Bytes of the newest log entries that are kept in memory.
    pub(crate) fn log_cache(&self) -> usize {
        (self.memory_bytes / 32).min(16 << 20)
    }

    pub(crate) fn check(&self) -> Result<()> {
        within("memtable_bytes", self.memtable_bytes as u64, 1 << 10, MAX_MEMTABLE_BYTES as u64)?;
        within("segment_bytes", self.segment_bytes, 16 << 10, 4 << 30)?;
        within("journal_bytes", self.journal_bytes, 2 * self.segment_bytes, u64::MAX)?;
        within("memory_bytes", self.memory_bytes as u64, 1 << 20, u64::MAX)?;
        within("open_files", self.open_files as u64, 16, u64::MAX)?;
        within("table_bytes", self.table_bytes, 1 << 10, 16 << 30)?;
        within("workers", self.workers as u64, 0, 64)?;
        self.keyspaces.check()
    }
}

fn within(name: &str, n: u64, least: u64, most: u64) -> Result<()> {
    if (least..=most).contains(&n) {
        return Ok(());
    }
    Err(Error::invalid(format!("option {name} is {n}, outside of {least} to {most}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_options_are_named() {
        Options::default().check().unwrap();
        let e = Options::default().segment_bytes(1).check().unwrap_err();
        assert!(e.to_string().contains("segment_bytes"), "{e}");
        assert!(Options::default().keyspaces(KeyspaceOptions::default().filter_bits(17)).check().is_err());
        assert!(Options::default().journal_bytes(1 << 20).check().is_err());
        assert!(Options::default().open_files(15).check().is_err());
        assert!(Options::default().memory_bytes(1 << 10).check().is_err());
        assert_eq!(Options::default().memory_bytes(16 << 20).memtable_limit(), 2 << 20);
    }
}
