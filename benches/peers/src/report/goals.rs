//! The list of targets. Each line says what Esker is to reach on one line of the tables.

use super::results::{EVERYTHING, PEAK};
use super::targets::{Against, Bound, Place, Target};

const LZ4: &[&str] = &["lz4"];
const NONE: &[&str] = &["none"];
const BOTH: &[&str] = &["lz4", "none"];
const CACHED: &[&str] = &["allinmemory"];
const SYNCED: &[&str] = &["synced"];
const LOGS: &[&str] = &["logs"];

/// RocksDB as it is set up best for the line, with mapped reads or without, and fjall.
const PEERS: Against = Against::Best(&["rocksdb", "rocksdb-mmap", "fjall"]);
const ROCKSDB: Against = Against::Best(&["rocksdb", "rocksdb-mmap"]);
/// Set up as for writes: with mapped reads only some of the workloads run.
const WRITING: Against = Against::Best(&["rocksdb"]);
const FJALL: Against = Against::Best(&["fjall"]);
const LMDB: Against = Against::Best(&["lmdb"]);
const RAFT_ENGINE: Against = Against::Best(&["raft-engine"]);
const DISK: Against = Against::Best(&["disk"]);

/// RocksDB writes its recycled log over pages that are still dirty, which the system does not count.
const WRITTEN: &[&str] = &["write_amp_own", "write_amp"];

const fn rate(tables: &'static [&'static str], place: Place, against: Against, ratio: f64) -> Target {
    let bound = Bound::AtLeast(ratio);
    Target { tables, place, metrics: &["ops_per_s"], against, bound, or_of_limit: None }
}

const fn at_most(place: Place, metrics: &'static [&'static str], against: Against, bound: f64) -> Target {
    let bound = Bound::AtMost(bound);
    Target { tables: BOTH, place, metrics, against, bound, or_of_limit: None }
}

const fn alone(workload: &'static str) -> Place {
    Place::new(workload, "", 1)
}

const fn settled(workload: &'static str) -> Place {
    Place::new(workload, "settled", 1)
}

const fn synced(threads: u32) -> Place {
    Place::new("synced", "", threads)
}

pub const GOALS: &[Target] = &[
    Target { or_of_limit: Some(0.9), ..rate(BOTH, alone("fillseq"), PEERS, 4.0) },
    rate(BOTH, alone("fillrandom"), PEERS, 2.5),
    until_settled("fillrandom"),
    at_most(alone("fillrandom"), WRITTEN, WRITING, 0.8),
    rate(BOTH, alone("overwrite"), PEERS, 2.5),
    until_settled("overwrite"),
    at_most(alone("overwrite"), WRITTEN, WRITING, 0.8),
    // Offered the rate that RocksDB reached.
    at_most(alone("pacedoverwrite"), &["p999_us"], PEERS, 1.0),
    at_most(alone("pacedoverwrite"), &["max_us"], Against::Nothing, 20_000.0),
    rate(BOTH, alone("fillbatch"), PEERS, 2.5),
    rate(SYNCED, synced(1), PEERS, 1.0),
    rate(SYNCED, synced(1), DISK, 0.9),
    rate(SYNCED, synced(16), PEERS, 2.0),
    rate(SYNCED, synced(64), PEERS, 2.0),
    sync_share(16, &["sync_in_flight"], 0.95),
    sync_share(64, &["sync_in_flight"], 0.95),
    // 0.45 for each thread.
    sync_share(16, &["commits_per_sync"], 7.2),
    sync_share(64, &["commits_per_sync"], 28.8),
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
    rate(BOTH, settled("readreverse"), Against::Itself(settled("readseq")), 0.9),
    rate(BOTH, beside("reader"), PEERS, 2.0),
    rate(BOTH, beside("writer"), PEERS, 1.0),
    at_most(paced("reader"), &["p99_us"], Against::Itself(paced("alone")), 1.5),
    rate(BOTH, alone("ycsb-a"), PEERS, 2.0),
    rate(BOTH, alone("ycsb-b"), PEERS, 2.0),
    rate(BOTH, alone("ycsb-c"), PEERS, 2.0),
    rate(NONE, alone("ycsb-c"), LMDB, 0.8),
    rate(BOTH, alone("ycsb-d"), PEERS, 2.0),
    rate(BOTH, alone("ycsb-e"), PEERS, 2.0),
    rate(BOTH, alone("ycsb-f"), PEERS, 2.0),
    Target { tables: LZ4, ..at_most(alone("overwrite"), &["disk_settled_bytes"], WRITING, 1.05) },
    at_most(alone(EVERYTHING), &[PEAK], WRITING, 1.0),
    at_most(alone("openkilled"), &["open_ms"], PEERS, 0.3),
    written("lograft256", 1.10),
    written("lograft4k", 1.05),
    written("loggroups", 1.15),
    written("loggroupslong", 1.3),
    written("logcold", 2.0),
    written("logevents", 1.10),
    rate(LOGS, alone("lograft256"), RAFT_ENGINE, 1.2),
    rate(LOGS, alone("loggroups"), RAFT_ENGINE, 1.2),
    logs("loggroupslong", PEAK_ONLY, RAFT_ENGINE, 0.333),
    logs("logevents", PEAK_ONLY, Against::Nothing, (64 << 20) as f64),
    // Twice what lives, and two segments; also while it runs.
    logs("logcold", &["space_of_room"], Against::Nothing, 1.0),
    logs("logcold", &["space_peak_of_room"], Against::Nothing, 1.0),
    rate(LOGS, alone("logtail"), RAFT_ENGINE, 2.0),
    rate(LOGS, alone("logcatchup"), RAFT_ENGINE, 2.0),
    logs("lograft256", OPEN, RAFT_ENGINE, 1.0),
    logs("lograft4k", OPEN, RAFT_ENGINE, 1.0),
    logs("loggroups", OPEN, RAFT_ENGINE, 1.0),
    logs("loggroupslong", OPEN, RAFT_ENGINE, 1.0),
    logs("logcold", OPEN, RAFT_ENGINE, 1.0),
    logs("logevents", OPEN, RAFT_ENGINE, 1.0),
    rate(LOGS, LOG_THREADS, RAFT_ENGINE, 1.5),
    // 0.45 for each thread.
    Target { metrics: &["commits_per_sync"], ..rate(LOGS, LOG_THREADS, Against::Nothing, 28.8) },
    Target { tables: &["build"], ..at_most(alone("build"), &["cpu_s"], WRITING, 0.02) },
];

const fn sync_share(threads: u32, metrics: &'static [&'static str], least: f64) -> Target {
    Target { metrics, ..rate(SYNCED, synced(threads), Against::Nothing, least) }
}

const LOG_THREADS: Place = Place::new("logthreads", "", 64);
const PEAK_ONLY: &[&str] = &[PEAK];
const OPEN: &[&str] = &["open_ms"];

const fn logs(load: &'static str, metrics: &'static [&'static str], against: Against, bound: f64) -> Target {
    Target { tables: LOGS, ..at_most(alone(load), metrics, against, bound) }
}

/// Bytes handed to the system for each byte of entries.
const fn written(load: &'static str, most: f64) -> Target {
    logs(load, &["written_per_payload"], Against::Nothing, most)
}

const fn until_settled(workload: &'static str) -> Target {
    Target { metrics: &["settled_ops_per_s"], ..rate(BOTH, alone(workload), PEERS, 1.5) }
}

/// A side of reads and writes at a time, as fast as they go.
const fn beside(side: &'static str) -> Place {
    Place::new("readwhilewriting", side, 1)
}

/// The same with a writer of 100 thousand puts a second.
const fn paced(side: &'static str) -> Place {
    Place::new("readwhilewriting100k", side, 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{METRICS, PHASES, TABLES};
    use crate::workloads;

    #[test]
    fn every_target_is_of_something_that_is_measured() {
        let mut names = workloads::names();
        names.extend([EVERYTHING, "build"]);
        for Target { tables, place, metrics, against, .. } in GOALS {
            let also = if let Against::Itself(other) = against { other } else { place };
            for Place { workload, phase, .. } in [place, also] {
                assert!(names.contains(workload) && PHASES.contains(phase), "{place:?}");
            }
            assert!(tables.iter().all(|table| TABLES.contains(table)), "{tables:?}");
            assert!(metrics.iter().all(|metric| METRICS.contains(metric)), "{metrics:?}");
        }
    }
}
