//! How many operations a second the machine could do at most: of each workload only what no engine can
//! leave out, at the price that the machine's primitives have. A pure function of those.
//!
//! What must be done, and what it is taken for:
//!
//! - **A put** is made sure against errors (a checksum of the pair), appended to a journal that survives the
//!   process (the cheapest kind of append), and copied into a sorted memtable. In random order the place
//!   is found by one load that waits, all above it being in a cache; of a batch the loads do not wait for
//!   one another. Appends have one order: several threads do all else at a time, not those. The harness
//!   looks at the clock after each put, which is counted as well.
//! - **A fill** is no faster than puts, than all cores doing puts and flushes (a checksum, LZ4 and a copy of
//!   each entry, once), and than the disk takes the bytes of tables.
//! - **A get** hashes the key and waits for two loads, one after the other: the index's last step, in as
//!   much memory as an index takes, and the block's head; the entry's is made beside that. LZ4: a part of the gets finds the block in the cache, namely as much of the data
//!   as the cache can hold. The others touch the page cache, check the stored bytes and undo half of a
//!   block, as an entry lies in its middle. For many keys in one call no load waits.
//! - **A get of nothing** waits for one load, that of the filter, and is a get for as many as the filter's
//!   ten bits let through.
//! - **A seek** is a get, and then entries as of a scan.
//! - **A scan** reads every byte from memory, once; LZ4: and checks and undoes all blocks.
//! - **A synced commit** is part of one sync at a time: with so many threads, as many commits at most.
//!
//! What it leaves out, so that no engine comes to 100 %: what else the harness does; descending trees and
//! searching blocks where all is in a cache; keeping versions apart; locks and wake-ups; encoding and
//! decoding; merging several runs; **compaction** (a fill may end with all of it owing, so a limit of what is
//! settled would need a write amplification, which is an engine's choice and no physics); the journal's bytes
//! on the disk (a file that is removed soon enough never gets there); reading ahead of a scan. What
//! could let an engine come to more: pages of 2 MiB; compression that undoes less than half a block or is
//! faster than lz4_flex; gets that hit caches of the processor by luck; a disk that was busy when it was
//! measured. What is mixed, deletes, or has larger values has no model: `None`.

use super::Primitives;

/// Bytes of a pair, as a number to reckon with.
pub const PAIR: f64 = 116.0;
/// Bytes of a block, and how many keys make a hot one.
const BLOCK: f64 = 4096.0;
const HOT: f64 = 100.0;
/// Bytes that an index needs for a block: the beginning of a key, and a place.
const INDEXED: f64 = 16.0;
/// Of a filter with ten bits for each key: its bytes, and how many it lets through without a reason.
const FILTER: f64 = 1.25;
const LET_THROUGH: f64 = 0.0082;
/// Bytes of the memtables, of which a random put finds its place in one.
const MEMTABLE: f64 = 16.0 * 1024.0 * 1024.0;
/// Entries of a seek and of a scan of a prefix.
const STEPS: f64 = 10.0;
const PREFIX: f64 = 100.0;

/// Operations a second of `workload` as `table` and so many `threads` have it: at most. None if there is no
/// model of it.
pub fn limit(table: &str, workload: &str, threads: u32, primitives: &Primitives) -> Option<f64> {
    if table == "synced" {
        return (workload == "synced").then(|| f64::from(threads) * 1e9 / primitives.sync());
    }
    let lz4 = match table {
        "lz4" => true,
        "none" | "allinmemory" => false,
        _ => return None,
    };
    let model = Model { p: primitives, lz4 };
    let threads = f64::from(threads.max(1));
    let read = |took: f64| threads.min(primitives.cores) * 1e9 / took;
    Some(match workload {
        "fillseq" => model.fill(0.0, threads),
        "fillrandom" | "overwrite" => model.fill(primitives.load(MEMTABLE), threads),
        "fillbatch" => model.fill_batch(threads),
        "readrandom" => read(model.get(primitives.data_bytes)),
        "readhot" => read(model.get(primitives.data_bytes / HOT)),
        "readmissing" => read(model.miss()),
        "multireadrandom" => read(model.get_of_many()),
        "seekrandom" => read(model.seek(STEPS)),
        "prefixscan" => read(model.seek(PREFIX)),
        "readseq" | "readreverse" => read(model.step()),
        _ => return None,
    })
}

impl Primitives {
    /// A load somewhere in `bytes` of memory that another waits for.
    fn load(&self, bytes: f64) -> f64 {
        between(bytes, [self.load_256k_ns, self.load_4m_ns, self.load_64m_ns, self.load_1g_ns])
    }

    fn independent(&self, bytes: f64) -> f64 {
        between(
            bytes,
            [
                self.independent_256k_ns,
                self.independent_4m_ns,
                self.independent_64m_ns,
                self.independent_1g_ns,
            ],
        )
    }

    fn checksum_of_pair(&self) -> f64 {
        self.crc32_116_ns.min(self.xxh3_116_ns)
    }

    fn checksum_of_block(&self) -> f64 {
        self.crc32_4096_ns.min(self.xxh3_4096_ns)
    }

    fn copy(&self, bytes: f64) -> f64 {
        bytes / self.memcpy_bytes_per_s * 1e9
    }

    fn append(&self) -> f64 {
        let written = self.write_ns.min(self.write_populated_ns);
        written.min(self.map_write_ns).min(self.map_write_populated_ns)
    }

    fn sync(&self) -> f64 {
        self.sync_growing_ns.min(self.sync_preallocated_ns).min(self.sync_rewritten_ns)
    }
}

/// What was measured with 256 KiB, 4 MiB, 64 MiB and 1 GiB, for any number of bytes: straight lines over
/// the logarithm; what is smaller or larger counts as the ends.
fn between(bytes: f64, measured: [f64; 4]) -> f64 {
    // Each is sixteen times the one before.
    let at = ((bytes / f64::from(256 << 10)).log2() / 4.0).clamp(0.0, 3.0);
    let below = (at as usize).min(2);
    measured[below] + (measured[below + 1] - measured[below]) * (at - below as f64)
}

/// The times of operations, in nanoseconds.
struct Model<'a> {
    p: &'a Primitives,
    lz4: bool,
}

impl Model<'_> {
    /// As much of a pair as is stored in a table.
    fn stored(&self) -> f64 {
        if self.lz4 { self.p.lz4_part } else { 1.0 }
    }

    fn flush(&self) -> f64 {
        let compress = if self.lz4 { self.p.lz4_compress_ns } else { 0.0 };
        let blocks = compress + self.p.checksum_of_block() * self.stored();
        blocks * PAIR / BLOCK + self.p.copy(PAIR * self.stored())
    }

    /// Puts a second, of which one appends for `append` and does `else_` beside others.
    fn puts(&self, append: f64, else_: f64, threads: f64) -> f64 {
        let put = append + else_;
        let clients = (threads.min(self.p.cores) / put).min(1.0 / append);
        let cores = self.p.cores / (put + self.flush());
        let disk = self.p.disk_bytes_per_s / (PAIR * self.stored());
        (clients.min(cores) * 1e9).min(disk)
    }

    fn fill(&self, find: f64, threads: f64) -> f64 {
        let insert = self.p.checksum_of_pair() + find + self.p.copy(PAIR);
        self.puts(self.p.append(), insert + self.p.clock_ns, threads)
    }

    /// A batch is so long that its append is a copy and its checksum that of a block.
    fn fill_batch(&self, threads: f64) -> f64 {
        let check = self.p.checksum_of_block() * PAIR / BLOCK;
        let insert = check + self.p.independent(MEMTABLE) + self.p.copy(PAIR);
        self.puts(self.p.copy(PAIR), insert, threads)
    }

    /// What `blocks` of LZ4 cost, from the page cache.
    fn unpack(&self, blocks: f64) -> f64 {
        match self.lz4 {
            true => self.p.checksum_of_block() * self.p.lz4_part + self.p.lz4_decompress_ns * blocks,
            false => 0.0,
        }
    }

    /// How many gets below `data` bytes find no block in the cache, and have to make one.
    fn uncached(&self, data: f64) -> f64 {
        if self.lz4 { (1.0 - self.p.cache_bytes / data).max(0.0) } else { 0.0 }
    }

    /// Of the entry at its place.
    fn find(&self, data: f64) -> f64 {
        self.p.load(data / BLOCK * INDEXED) + self.p.load(data) + self.p.independent(data)
    }

    fn get(&self, data: f64) -> f64 {
        let found = self.p.xxh3_16_ns + self.find(data);
        found + self.uncached(data) * (self.p.touch_ns + self.unpack(0.5))
    }

    fn get_of_many(&self) -> f64 {
        let data = self.p.data_bytes;
        let loads = self.p.independent(data / BLOCK * INDEXED) + 2.0 * self.p.independent(data);
        let found = self.p.xxh3_16_ns + loads;
        found + self.uncached(data) * (self.p.touch_ns + self.unpack(0.5))
    }

    fn miss(&self) -> f64 {
        let keys = self.p.data_bytes / PAIR;
        self.p.xxh3_16_ns + self.p.load(keys * FILTER) + LET_THROUGH * self.get(self.p.data_bytes)
    }

    /// Blocks are undone up to where the last entry ends.
    fn seek(&self, entries: f64) -> f64 {
        let data = self.p.data_bytes;
        let unpacked = self.unpack(0.5 + entries * PAIR / BLOCK);
        self.find(data) + self.uncached(data) * (self.p.touch_ns + unpacked) + self.p.copy(entries * PAIR)
    }

    fn step(&self) -> f64 {
        self.p.copy(PAIR * self.stored()) + self.unpack(1.0) * PAIR / BLOCK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Round numbers near those of a small machine; 1 GiB of pairs, of which the cache holds a quarter.
    fn machine() -> Primitives {
        let of = |name: &str| {
            Some(match name {
                "cores" => 2.0,
                "data_bytes" => f64::from(1 << 30),
                "cache_bytes" => f64::from(1 << 28),
                "clock_ns" => 30.0,
                "memcpy_bytes_per_s" => 11.6e9,
                "crc32_116_ns" => 20.0,
                "xxh3_16_ns" => 3.0,
                "xxh3_116_ns" => 8.0,
                "xxh3_4096_ns" => 160.0,
                "crc32_4096_ns" => 170.0,
                "lz4_compress_ns" => 4096.0,
                "lz4_decompress_ns" => 2000.0,
                "lz4_part" => 0.5,
                "load_256k_ns" => 10.0,
                "load_4m_ns" => 20.0,
                "load_64m_ns" => 100.0,
                "load_1g_ns" => 300.0,
                "independent_256k_ns" => 2.0,
                "independent_4m_ns" => 4.0,
                "independent_64m_ns" => 8.0,
                "independent_1g_ns" => 20.0,
                "map_write_populated_ns" => 72.0,
                "touch_ns" => 15.0,
                "sync_rewritten_ns" => 200e3,
                "sync_growing_ns" => 400e3,
                "sync_preallocated_ns" => 300e3,
                "disk_bytes_per_s" => 5.8e9,
                _ => 1000.0,
            })
        };
        Primitives::of(of).unwrap()
    }

    fn nanos(table: &str, workload: &str, threads: u32) -> f64 {
        1e9 / limit(table, workload, threads, &machine()).unwrap()
    }

    #[track_caller]
    fn near(a: f64, b: f64) {
        assert!((a / b - 1.0).abs() < 1e-6, "{a} and {b}");
    }

    #[test]
    fn a_put_is_a_checksum_an_append_a_copy_and_a_look_at_the_clock() {
        near(nanos("none", "fillseq", 1), 8.0 + 72.0 + 10.0 + 30.0);
        // 16 MiB lie in the middle between 4 and 64.
        near(nanos("none", "fillrandom", 1), 120.0 + 60.0);
        near(nanos("none", "overwrite", 1), 180.0);
        // Of a batch: two copies, a block's checksum for the part, a load that waits for no other.
        near(nanos("none", "fillbatch", 1), 20.0 + 160.0 * 116.0 / 4096.0 + 6.0);
    }

    #[test]
    fn threads_append_one_after_the_other_and_share_the_cores_with_flushes() {
        let flush = 160.0 * 116.0 / 4096.0 + 10.0;
        near(nanos("none", "fillrandom", 2), (180.0 + flush) / 2.0);
        near(nanos("none", "fillrandom", 64), (180.0 + flush) / 2.0);
        let packed = 116.0 + 160.0 * 0.5 * 116.0 / 4096.0 + 5.0;
        near(nanos("lz4", "fillrandom", 2), (180.0 + packed) / 2.0);
        let many = Primitives { cores: 64.0, disk_bytes_per_s: 1e12, ..machine() };
        near(1e9 / limit("none", "fillrandom", 64, &many).unwrap(), 72.0);
    }

    #[test]
    fn a_slow_disk_bounds_a_fill_by_the_bytes_of_its_tables() {
        let slow = Primitives { disk_bytes_per_s: 116e6, ..machine() };
        near(limit("none", "fillseq", 1, &slow).unwrap(), 1e6);
        near(limit("lz4", "fillseq", 1, &slow).unwrap(), 2e6);
    }

    #[test]
    fn a_get_is_three_loads_and_in_lz4_half_a_block() {
        // The index is 4 MiB.
        near(nanos("none", "readrandom", 1), 3.0 + 20.0 + 300.0 + 20.0);
        near(nanos("none", "readrandom", 2), 343.0 / 2.0);
        near(nanos("none", "readrandom", 16), 343.0 / 2.0);
        near(nanos("allinmemory", "readrandom", 1), 343.0);
        near(nanos("lz4", "readrandom", 1), 343.0 + 0.75 * (15.0 + 80.0 + 1000.0));
        near(nanos("none", "multireadrandom", 1), 3.0 + 4.0 + 20.0 + 20.0);
        // The cache holds what is hot: the loads alone are left.
        near(nanos("lz4", "readhot", 1), nanos("none", "readhot", 1));
        assert!(nanos("lz4", "readhot", 1) < 100.0);
    }

    #[test]
    fn what_is_not_there_is_one_load_and_sometimes_a_get() {
        // Its filters are 4 MiB.
        let data_bytes = f64::from(4 << 20) / 1.25 * 116.0;
        let of =
            |workload| 1e9 / limit("none", workload, 1, &Primitives { data_bytes, ..machine() }).unwrap();
        near(of("readmissing"), 3.0 + 20.0 + 0.0082 * of("readrandom"));
    }

    #[test]
    fn a_scan_is_bytes_and_in_lz4_blocks() {
        near(nanos("none", "readseq", 1), 10.0);
        near(nanos("lz4", "readreverse", 1), 5.0 + (80.0 + 2000.0) * 116.0 / 4096.0);
        near(nanos("none", "seekrandom", 1), 340.0 + 100.0);
        let blocks = 0.5 + 1160.0 / 4096.0;
        near(nanos("lz4", "seekrandom", 1), 440.0 + 0.75 * (15.0 + 80.0 + 2000.0 * blocks));
        assert!(nanos("none", "prefixscan", 1) > nanos("none", "seekrandom", 1));
    }

    #[test]
    fn a_sync_takes_all_who_wait_along() {
        let per_s = |threads| limit("synced", "synced", threads, &machine()).unwrap();
        for threads in [1, 16, 64] {
            near(per_s(threads), 5000.0 * f64::from(threads));
        }
    }

    #[test]
    fn between_sizes_are_lines_and_beyond_them_the_ends() {
        let at = |bytes: u64| between(bytes as f64, [10.0, 20.0, 100.0, 300.0]);
        near(at(1 << 10), 10.0);
        near(at(1 << 20), 15.0);
        near(at(4 << 20), 20.0);
        near(at(16 << 20), 60.0);
        near(at(64 << 20), 100.0);
        near(at(256 << 20), 200.0);
        near(at(1 << 30), 300.0);
        near(at(1 << 40), 300.0);
    }

    #[test]
    fn what_has_no_model_has_no_limit() {
        for (table, workload) in
            [("lz4", "ycsb-a"), ("synced", "fillseq"), ("volatile", "fillseq"), ("limits", "limits")]
        {
            assert_eq!(limit(table, workload, 1, &machine()), None, "{table} {workload}");
        }
    }
}
