//! The list of targets. Each line says what Esker is to reach on one line of the tables.

use super::targets::{Against, Bound, Place, Target};

const LZ4: &[&str] = &["lz4"];
const NONE: &[&str] = &["none"];
const BOTH: &[&str] = &["lz4", "none"];
const CACHED: &[&str] = &["allinmemory"];
const SYNCED: &[&str] = &["synced"];

/// RocksDB as it is set up best for the line, with mapped reads or without, and fjall.
const PEERS: Against = Against::Best(&["rocksdb", "rocksdb-mmap", "fjall"]);
const ROCKSDB: Against = Against::Best(&["rocksdb", "rocksdb-mmap"]);
const FJALL: Against = Against::Best(&["fjall"]);
const LMDB: Against = Against::Best(&["lmdb"]);
const DISK: Against = Against::Best(&["disk"]);

const fn rate(tables: &'static [&'static str], place: Place, against: Against, ratio: f64) -> Target {
    let (metric, bound) = ("ops_per_s", Bound::AtLeast(ratio));
    Target { tables, place, metric, against, bound, or_of_limit: None }
}

const fn at_most(place: Place, metric: &'static str, against: Against, bound: f64) -> Target {
    let bound = Bound::AtMost(bound);
    Target { tables: LZ4, place, metric, against, bound, or_of_limit: None }
}

const fn alone(workload: &'static str) -> Place {
    Place::new(workload, "", 1)
}

const fn settled(workload: &'static str) -> Place {
    Place::new(workload, "settled", 1)
}

pub const GOALS: &[Target] = &[
    Target { or_of_limit: Some(0.9), ..rate(BOTH, alone("fillseq"), PEERS, 4.0) },
    rate(BOTH, alone("fillrandom"), PEERS, 2.5),
    until_settled("fillrandom"),
    at_most(alone("fillrandom"), "write_amp", ROCKSDB, 0.8),
    rate(BOTH, alone("overwrite"), PEERS, 2.5),
    until_settled("overwrite"),
    at_most(alone("overwrite"), "write_amp", ROCKSDB, 0.8),
    // Offered the rate that RocksDB reached.
    at_most(alone("pacedoverwrite"), "p999_us", ROCKSDB, 1.0),
    at_most(alone("pacedoverwrite"), "max_us", Against::Nothing, 20_000.0),
    rate(BOTH, alone("fillbatch"), PEERS, 2.5),
    rate(SYNCED, alone("synced"), PEERS, 1.0),
    rate(SYNCED, alone("synced"), DISK, 0.9),
    rate(SYNCED, Place::new("synced", "", 16), PEERS, 2.0),
    rate(SYNCED, Place::new("synced", "", 64), PEERS, 2.0),
    sync_share(16, "disk_wait", 0.95),
    sync_share(64, "disk_wait", 0.95),
    // 0.45 for each thread.
    sync_share(16, "commits_per_sync", 7.2),
    sync_share(64, "commits_per_sync", 28.8),
    rate(CACHED, settled("readrandom"), ROCKSDB, 2.0),
    rate(CACHED, settled("readrandom"), FJALL, 4.0),
    rate(CACHED, settled("readrandom"), LMDB, 0.9),
    rate(LZ4, settled("readrandom"), PEERS, 1.5),
    rate(BOTH, settled("readhot"), PEERS, 4.0),
    rate(NONE, settled("readhot"), LMDB, 1.5),
    rate(BOTH, settled("readmissing"), PEERS, 1.5),
    rate(BOTH, settled("multireadrandom"), PEERS, 4.0),
    rate(BOTH, settled("seekrandom"), PEERS, 3.0),
    rate(NONE, settled("seekrandom"), LMDB, 0.7),
    rate(BOTH, settled("readseq"), PEERS, 3.0),
    rate(NONE, settled("readseq"), LMDB, 0.6),
    rate(BOTH, settled("readreverse"), PEERS, 3.0),
    rate(NONE, settled("readreverse"), LMDB, 0.6),
    // "Both alike": a tenth is what repeated runs differ by.
    rate(BOTH, settled("readreverse"), Against::Itself(&[settled("readseq")]), 0.9),
    rate(BOTH, beside("readwhilewriting", "reader"), PEERS, 2.0),
    rate(BOTH, beside("readwhilewriting", "writer"), PEERS, 1.0),
    at_most(beside(PACED, "reader"), "p99_us", Against::Itself(&[beside(PACED, "alone")]), 1.5),
    rate(BOTH, alone("ycsb-a"), PEERS, 2.0),
    rate(BOTH, alone("ycsb-b"), PEERS, 2.0),
    rate(BOTH, alone("ycsb-c"), PEERS, 2.0),
    rate(NONE, alone("ycsb-c"), LMDB, 0.8),
    rate(BOTH, alone("ycsb-d"), PEERS, 2.0),
    rate(BOTH, alone("ycsb-e"), PEERS, 2.0),
    rate(BOTH, alone("ycsb-f"), PEERS, 2.0),
    at_most(alone("overwrite"), "disk_settled_bytes", ROCKSDB, 1.05),
    at_most(alone("overwrite"), "anon_peak_bytes", ROCKSDB, 1.0),
    at_most(alone("openkilled"), "open_ms", PEERS, 0.3),
    Target { tables: &["build"], ..at_most(alone("build"), "cpu_s", ROCKSDB, 0.02) },
];

const fn sync_share(threads: u32, metric: &'static str, least: f64) -> Target {
    Target { metric, ..rate(SYNCED, Place::new("synced", "", threads), Against::Nothing, least) }
}

const fn until_settled(workload: &'static str) -> Target {
    Target { metric: "settled_ops_per_s", ..rate(BOTH, alone(workload), PEERS, 1.5) }
}

/// One side of a reader and a writer.
const fn beside(workload: &'static str, side: &'static str) -> Place {
    Place::new(workload, side, 1)
}

const PACED: &str = "readwhilewriting100k";
