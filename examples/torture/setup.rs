//! The options a database is opened with, drawn from a seed: all small, so that rotations, flushes and
//! merges happen all the time.

use crate::steps::Rng;
use esker::{Compression, Durability, KeyspaceOptions, Options};
use std::fmt;

/// What one directory is opened with as long as it lives.
#[derive(Clone, Copy)]
pub struct Setup {
    pub seed: u64,
    default: Durability,
    mapped: bool,
    memtable: usize,
    segment: u64,
    segments: u64,
    table: u64,
    workers: usize,
}

impl Setup {
    pub fn new(seed: u64) -> Setup {
        let mut rng = Rng::new(&[seed, 1]);
        Setup {
            seed,
            // The journal is mapped where the default is buffered.
            default: rng.pick(&[Durability::Buffered, Durability::Buffered, Durability::Sync]),
            mapped: !rng.one_in(3),
            memtable: rng.pick(&[1, 4, 16, 64, 256]) << 10,
            segment: rng.pick(&[16, 32, 64, 256]) << 10,
            segments: rng.pick(&[2, 4, 8]),
            table: rng.pick(&[4, 16, 64]) << 10,
            workers: rng.pick(&[0, 1, 1, 2]),
        }
    }

    pub fn options(&self) -> Options {
        Options::default()
            .durability(self.default)
            .mapped(self.mapped)
            .memtable_bytes(self.memtable)
            .segment_bytes(self.segment)
            .journal_bytes(self.segment * self.segments)
            .table_bytes(self.table)
            .memory_bytes(8 << 20)
            .open_files(32)
            .workers(self.workers)
            .keyspaces(self.keyspace(0))
    }

    /// The options of the shared keyspace number `n`.
    pub fn keyspace(&self, n: usize) -> KeyspaceOptions {
        let mut rng = Rng::new(&[self.seed, 2, n as u64]);
        KeyspaceOptions::default()
            .compression(rng.pick(&[Compression::None, Compression::Lz4]))
            .block_bytes(rng.pick(&[256, 1024, 4096]))
            .filter_bits(rng.pick(&[0, 10]))
    }
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setup { seed, default, mapped, memtable, segment, segments, table, workers } = self;
        write!(
            f,
            "seed {seed}: {default:?}, mapped {mapped}, memtables {memtable}, {segments} segments of {segment}, \
             tables {table}, {workers} workers"
        )
    }
}
