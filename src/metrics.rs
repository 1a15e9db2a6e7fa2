//! Metrics: what a database counts while it runs, as plain data.
//!
//! [`Db::metrics`](crate::Db::metrics) answers a [`Metrics`]; its `Display` is a table to read in a
//! terminal. All numbers are in bytes, entries or occurrences, and count since the database was
//! opened, unless a field says that it is a state. They only ever rise then, so an exporter may hand
//! them on as counters and leave rates to whoever collects them.
//!
//! What is counted costs an addition or two per operation and is always on.

use crate::ids::Seq;
use std::fmt;
use std::time::Duration;

/// What a database has done since it was opened, and how it stands.
///
/// The parts are read one after another while the database runs: each is true of its moment, sums
/// over several of them may be off by what happened in between.
#[derive(Clone, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct Metrics {
    /// Since when everything is counted.
    pub open_for: Duration,
    /// Keys and values as callers wrote them, over all keyspaces, dropped ones included.
    pub bytes_in: u64,
    /// Puts, deletes and range deletes that were committed, each counted once.
    pub operations: u64,
    /// Batches that were committed.
    pub commits: u64,
    /// The journal.
    pub journal: JournalMetrics,
    /// The manifest.
    pub manifest: ManifestMetrics,
    /// Flushes and compactions over all keyspaces, dropped ones and the catalog of names included.
    pub jobs: JobMetrics,
    /// The state of the background work.
    pub background: BackgroundMetrics,
    /// Writes that had to wait for the background.
    pub stalls: StallMetrics,
    /// The state of the budgets.
    pub memory: MemoryMetrics,
    /// Logs.
    pub logs: LogMetrics,
    /// The block cache.
    pub cache: CacheMetrics,
    /// The filters of tables.
    pub filters: FilterMetrics,
    /// The state of the tables.
    pub tables: TableMetrics,
    /// The state of the snapshots.
    pub snapshots: SnapshotMetrics,
    /// The keyspaces there are now, by name.
    pub keyspaces: Vec<KeyspaceMetrics>,
}

/// The journal.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct JournalMetrics {
    /// Bytes appended: records, with their headers and padding.
    pub bytes: u64,
    /// Syncs of the journal. Commits that wait at the same time share one.
    pub syncs: u64,
    /// The time in which one of them was under way, of whatever part it was the disk that worked.
    pub syncing: Duration,
    /// State: segments on disk, the prepared one included.
    pub segments: u64,
    /// State: bytes from the oldest operation that is in no table to the end: what opening after a
    /// crash would have to read, to within a segment. Held below
    /// [`Options::journal_bytes`](crate::Options::journal_bytes).
    pub replay_bytes: u64,
    /// State: the keyspace that oldest operation belongs to. `None` if everything is in tables, or
    /// if it belongs to the catalog of names or to a keyspace dropped just now.
    pub pinned_by: Option<String>,
}

/// The manifest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ManifestMetrics {
    /// Edits; each costs one sync.
    pub edits: u64,
    /// Bytes written.
    pub bytes: u64,
}

/// What flushes and compactions did. Bytes are those of table files, compressed as they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct JobMetrics {
    /// Flushes; of the whole database, one that took several keyspaces counts for each.
    pub flushes: u64,
    /// Bytes of tables that flushes wrote.
    pub flushed_bytes: u64,
    /// Compactions that merged tables.
    pub compactions: u64,
    /// Compactions that only moved tables to a deeper level, at the cost of an edit.
    pub moves: u64,
    /// Bytes of tables that compactions read.
    pub compaction_read: u64,
    /// Bytes of tables that compactions wrote.
    pub compaction_written: u64,
}

impl JobMetrics {
    /// Bytes of all tables written.
    pub fn written(&self) -> u64 {
        self.flushed_bytes + self.compaction_written
    }
}

/// The background work as it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct BackgroundMetrics {
    /// Flushes that are running.
    pub flushes_running: u64,
    /// Keyspaces that wait for a flush.
    pub flushes_queued: u64,
    /// Compactions that are running.
    pub compactions_running: u64,
    /// Keyspaces that wait to be looked at for a compaction. Not all of them need one.
    pub compactions_queued: u64,
    /// Bytes of memtables that wait for their flush.
    pub frozen_bytes: u64,
    /// Bytes of tables that wait for their compaction: see [`KeyspaceMetrics::due_bytes`].
    pub due_bytes: u64,
    /// Something could not be written for want of space, and nothing was since.
    pub disk_full: bool,
}

/// Writes that found the background behind: they are delayed, the more the further it is, and stop
/// when a limit is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct StallMetrics {
    /// Writes that were delayed.
    pub delayed: u64,
    /// For how long, added up over all writers.
    pub delayed_for: Duration,
    /// Writes that were stopped.
    pub stopped: u64,
    /// For how long, added up over all writers.
    pub stopped_for: Duration,
    /// State: writes that are stopped now.
    pub waiting: u64,
}

/// Memory as it is held now, under the one limit of
/// [`Options::memory_bytes`](crate::Options::memory_bytes).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct MemoryMetrics {
    /// The limit.
    pub limit: u64,
    /// Memtables: written to, frozen, flushed but still read, and memory kept for the next ones.
    pub memtables: u64,
    /// Blocks of tables: cached, and those that were evicted while a reader holds them.
    pub blocks: u64,
    /// Open tables: indexes, filters, range deletes.
    pub tables: u64,
    /// Buffers of flushes, compactions and whatever else reads or writes whole tables.
    pub jobs: u64,
    /// The newest entries of logs, and those that readers hold.
    pub logs: u64,
    /// The bounds of logs, and where their entries are.
    pub log_index: u64,
}

/// Logs, over all names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct LogMetrics {
    /// State: journal segments in which entries are live, those being written to included.
    pub segments: u64,
    /// State: the entries that are live.
    pub entries: u64,
    /// State: the bytes they take there, about.
    pub bytes: u64,
}

impl MemoryMetrics {
    /// All of it.
    pub fn used(&self) -> u64 {
        self.memtables + self.blocks + self.tables + self.jobs + self.logs + self.log_index
    }
}

/// The block cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct CacheMetrics {
    /// Blocks that were found. Blocks read in place, through a map, are not looked for.
    pub hits: u64,
    /// Blocks that had to be read.
    pub misses: u64,
    /// State: blocks that are held.
    pub blocks: u64,
    /// State: the bytes they take.
    pub bytes: u64,
}

impl CacheMetrics {
    /// The part of look-ups that hit, 0 to 1. `None` before the first.
    pub fn hit_rate(&self) -> Option<f64> {
        ratio(self.hits, self.hits + self.misses)
    }
}

/// What filters said to point reads that had come to their table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct FilterMetrics {
    /// The key is surely not there: the table was spared.
    pub spared: u64,
    /// The key may be there, and was.
    pub found: u64,
    /// The key may be there, and was not (or only newer than the read).
    pub false_positives: u64,
}

impl FilterMetrics {
    /// Of the tables without the key, the part that was looked into nevertheless, 0 to 1. `None` if
    /// there were none.
    pub fn false_positive_rate(&self) -> Option<f64> {
        ratio(self.false_positives, self.spared + self.false_positives)
    }
}

/// The tables as they stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct TableMetrics {
    /// Tables of all keyspaces.
    pub tables: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Table files that are open.
    pub open: u64,
    /// How many may be: [`Options::open_files`](crate::Options::open_files).
    pub open_limit: u64,
    /// Tables that are no part of the database any more: their files are on disk only because a
    /// reader still holds them.
    pub held: u64,
    /// The bytes of those files.
    pub held_bytes: u64,
}

/// The snapshots as they stand.
///
/// What they keep from being dropped cannot be known without reading everything: versions that only
/// a snapshot sees stand in tables between others. [`TableMetrics::held_bytes`] is a lower bound of
/// what readers (snapshots, iterators, cursors) pin; a space amplification that rises while the
/// oldest snapshot ages tells the rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct SnapshotMetrics {
    /// Sequence numbers at which there are snapshots.
    pub live: u64,
    /// The oldest of them.
    pub oldest: Option<Seq>,
    /// How old it is, at least. Taking a snapshot reads no clock; its age begins when a call of
    /// [`Db::metrics`](crate::Db::metrics), a flush or a compaction first meets it.
    pub oldest_for: Option<Duration>,
}

/// One keyspace.
#[derive(Clone, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct KeyspaceMetrics {
    /// The name.
    pub name: String,
    /// The number that stands for it on disk.
    pub id: u32,
    /// Keys and values as callers wrote them. Batches that the journal was replayed from do not count.
    pub bytes_in: u64,
    /// Puts, deletes and range deletes, each counted once.
    pub operations: u64,
    /// Its flushes and compactions.
    pub jobs: JobMetrics,
    /// State: bytes of its memtables.
    pub memtable_bytes: u64,
    /// State: those of them that wait for their flush.
    pub frozen_bytes: u64,
    /// State: bytes of tables that wait for a compaction: those of level 0 once it has as many runs as are
    /// compacted, and those by which deeper levels exceed their targets. As of the last flush or
    /// compaction.
    pub due_bytes: u64,
    /// State: its levels that hold tables, from the newest to the deepest.
    pub levels: Vec<LevelMetrics>,
}

/// One level of a keyspace, as it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct LevelMetrics {
    /// Its number; 0 is where flushes put their tables.
    pub level: u8,
    /// Runs: sets of tables that do not overlap.
    pub runs: u64,
    /// Tables.
    pub tables: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The bytes of its oldest run.
    pub oldest_run_bytes: u64,
    /// Entries: every version of every key, deletes included.
    pub entries: u64,
    /// The deletes among them.
    pub deletes: u64,
    /// Range deletes. One that reaches over several tables counts in each.
    pub range_deletes: u64,
}

impl KeyspaceMetrics {
    /// Bytes of all its tables.
    pub fn table_bytes(&self) -> u64 {
        self.levels.iter().map(|level| level.bytes).sum()
    }

    /// Bytes of tables written per byte that callers wrote: 1 for the flush (less where tables are
    /// compressed or versions were overwritten in memory), the rest for compactions. The journal,
    /// which is shared, is not in it. `None` if nothing was written since opening.
    pub fn write_amplification(&self) -> Option<f64> {
        ratio(self.jobs.written(), self.bytes_in)
    }

    /// How many runs hold no key that is not there: what a point read that misses has to ask in
    /// the worst case. Filters spare it all but about one in a hundred of the tables.
    pub fn read_amplification(&self) -> u64 {
        self.levels.iter().map(|level| level.runs).sum()
    }

    /// Bytes of all tables per byte of the oldest run of the deepest level. That run holds about
    /// what is alive: the rest is newer versions, deletes, and what they will replace. An estimate,
    /// high where much is new and not yet compacted. `None` without tables.
    pub fn space_amplification(&self) -> Option<f64> {
        ratio(self.table_bytes(), self.levels.last()?.oldest_run_bytes)
    }
}

impl Metrics {
    /// Bytes written to disk per byte that callers wrote: journal, manifest, flushes and
    /// compactions. `None` if nothing was written since opening.
    pub fn write_amplification(&self) -> Option<f64> {
        ratio(self.journal.bytes + self.manifest.bytes + self.jobs.written(), self.bytes_in)
    }

    /// Bytes of all tables per byte of the oldest runs of the deepest levels, as in
    /// [`KeyspaceMetrics::space_amplification`].
    pub fn space_amplification(&self) -> Option<f64> {
        let deepest = self.keyspaces.iter().filter_map(|k| k.levels.last());
        let all: u64 = self.keyspaces.iter().map(KeyspaceMetrics::table_bytes).sum();
        ratio(all, deepest.map(|level| level.oldest_run_bytes).sum())
    }

    /// How many commits shared one sync of the journal. `None` before the first sync.
    pub fn commits_per_sync(&self) -> Option<f64> {
        ratio(self.commits, self.journal.syncs)
    }

    /// The keyspace of that name.
    pub fn keyspace(&self, name: &str) -> Option<&KeyspaceMetrics> {
        self.keyspaces.iter().find(|k| k.name == name)
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// A number of bytes as a person reads it.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(power) = self.0.checked_ilog2().map(|log| log / 10).filter(|&p| p > 0) else {
            return f.pad(&format!("{} B", self.0));
        };
        let unit = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"][power as usize - 1];
        f.pad(&format!("{:.1} {unit}", self.0 as f64 / (1u64 << (10 * power)) as f64))
    }
}

/// A ratio as a person reads it.
struct Ratio(Option<f64>);

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(ratio) => f.pad(&format!("{ratio:.2}")),
            None => f.pad("-"),
        }
    }
}

/// A duration as a person reads it.
struct Time(Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (minutes, seconds) = (self.0.as_secs() / 60, self.0.as_secs() % 60);
        match (minutes / 60 / 24, minutes / 60 % 24, minutes % 60) {
            (0, 0, 0) => write!(f, "{seconds} s"),
            (0, 0, minutes) => write!(f, "{minutes} min {seconds} s"),
            (0, hours, minutes) => write!(f, "{hours} h {minutes} min"),
            (days, hours, _) => write!(f, "{days} d {hours} h"),
        }
    }
}

struct Percent(Option<f64>);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(part) => f.pad(&format!("{:.2} %", part * 100.0)),
            None => f.pad("- %"),
        }
    }
}

/// So many keyspaces are shown, those with most bytes first.
const SHOWN: usize = 32;

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.totals(f)?;
        let mut largest: Vec<&KeyspaceMetrics> = self.keyspaces.iter().collect();
        largest.sort_by_key(|k| std::cmp::Reverse(k.table_bytes() + k.memtable_bytes));
        for keyspace in largest.iter().take(SHOWN) {
            write!(f, "\n{keyspace}")?;
        }
        match largest.len().checked_sub(SHOWN) {
            None | Some(0) => Ok(()),
            Some(more) => writeln!(f, "\nand {more} smaller keyspaces"),
        }
    }
}

impl Metrics {
    fn totals(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Metrics { journal, manifest, jobs, background, stalls, .. } = self;
        writeln!(f, "open for    {}", Time(self.open_for))?;
        writeln!(
            f,
            "written     {} in {} operations, {} commits; amplification {}",
            Bytes(self.bytes_in),
            self.operations,
            self.commits,
            Ratio(self.write_amplification())
        )?;
        writeln!(
            f,
            "journal     {} written, {} syncs in {} for {} commits each; {} segments",
            Bytes(journal.bytes),
            journal.syncs,
            Time(journal.syncing),
            Ratio(self.commits_per_sync()),
            journal.segments
        )?;
        write!(f, "  replay    {}", Bytes(journal.replay_bytes))?;
        match &journal.pinned_by {
            Some(name) => writeln!(f, ", from the oldest operation of {name:?} on")?,
            None => writeln!(f)?,
        }
        writeln!(f, "manifest    {} in {} edits", Bytes(manifest.bytes), manifest.edits)?;
        writeln!(
            f,
            "flushes     {} done, {} written; {} running, {} queued, {} frozen",
            jobs.flushes,
            Bytes(jobs.flushed_bytes),
            background.flushes_running,
            background.flushes_queued,
            Bytes(background.frozen_bytes)
        )?;
        writeln!(
            f,
            "compactions {} done, {} read, {} written, {} moves; {} running, {} queued, {} due",
            jobs.compactions,
            Bytes(jobs.compaction_read),
            Bytes(jobs.compaction_written),
            jobs.moves,
            background.compactions_running,
            background.compactions_queued,
            Bytes(background.due_bytes)
        )?;
        writeln!(
            f,
            "stalls      {} writes delayed for {}, {} stopped for {}; {} waiting{}",
            stalls.delayed,
            Time(stalls.delayed_for),
            stalls.stopped,
            Time(stalls.stopped_for),
            stalls.waiting,
            if background.disk_full { "; the disk is full" } else { "" }
        )?;
        self.held(f)
    }

    fn held(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Metrics { memory, cache, filters, tables, snapshots, .. } = self;
        writeln!(
            f,
            "memory      {} of {}: memtables {}, blocks {}, tables {}, jobs {}, logs {}",
            Bytes(memory.used()),
            Bytes(memory.limit),
            Bytes(memory.memtables),
            Bytes(memory.blocks),
            Bytes(memory.tables),
            Bytes(memory.jobs),
            Bytes(memory.logs + memory.log_index)
        )?;
        writeln!(
            f,
            "cache       {} in {} blocks; {} hits, {} misses ({} hit)",
            Bytes(cache.bytes),
            cache.blocks,
            cache.hits,
            cache.misses,
            Percent(cache.hit_rate())
        )?;
        writeln!(
            f,
            "filters     {} tables spared, {} found, {} false positives ({})",
            filters.spared,
            filters.found,
            filters.false_positives,
            Percent(filters.false_positive_rate())
        )?;
        writeln!(
            f,
            "tables      {} in {}, {} of at most {} open; {} in {} held by readers alone",
            Bytes(tables.bytes),
            tables.tables,
            tables.open,
            tables.open_limit,
            Bytes(tables.held_bytes),
            tables.held
        )?;
        write!(f, "snapshots   {}", snapshots.live)?;
        if let (Some(oldest), Some(age)) = (snapshots.oldest, snapshots.oldest_for) {
            write!(f, ", the oldest at {oldest}, for {} or more", Time(age))?;
        }
        writeln!(f)
    }
}

impl fmt::Display for KeyspaceMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:?} ({}): {} in {} operations, memtables {} ({} frozen)",
            self.name,
            self.id,
            Bytes(self.bytes_in),
            self.operations,
            Bytes(self.memtable_bytes),
            Bytes(self.frozen_bytes)
        )?;
        writeln!(
            f,
            "  amplification: write {}, read {}, space {}",
            Ratio(self.write_amplification()),
            self.read_amplification(),
            Ratio(self.space_amplification())
        )?;
        if self.levels.is_empty() {
            return Ok(());
        }
        writeln!(f, "  level  runs  tables       bytes      entries      deletes  range deletes")?;
        for l in &self.levels {
            writeln!(
                f,
                "  {:>5}  {:>4}  {:>6}  {:>10}  {:>11}  {:>11}  {:>13}",
                l.level,
                l.runs,
                l.tables,
                Bytes(l.bytes),
                l.entries,
                l.deletes,
                l.range_deletes
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = r#"open for    1 h 2 min
written     3.0 GiB in 26843555 operations, 1000000 commits; amplification 5.00
journal     4.0 GiB written, 80000 syncs in 5 min 20 s for 12.50 commits each; 5 segments
  replay    300.0 MiB, from the oldest operation of "users" on
manifest    63.5 KiB in 99 edits
flushes     48 done, 3.0 GiB written; 1 running, 2 queued, 64.0 MiB frozen
compactions 20 done, 9.0 GiB read, 8.0 GiB written, 3 moves; 3 running, 4 queued, 200.0 MiB due
stalls      4000 writes delayed for 1 min 30 s, 2 stopped for 1 s; 1 waiting; the disk is full
memory      138.5 MiB of 512.0 MiB: memtables 71.0 MiB, blocks 64.0 MiB, tables 3.0 MiB, jobs 512.0 KiB, logs 0 B
cache       64.0 MiB in 50 blocks; 900 hits, 100 misses (90.00 % hit)
filters     990 tables spared, 5000 found, 10 false positives (1.00 %)
tables      12.0 GiB in 8, 7 of at most 256 open; 65.0 MiB in 1 held by readers alone
snapshots   3, the oldest at 12345, for 1 min 1 s or more

"users" (2): 3.0 GiB in 26843545 operations, memtables 70.0 MiB (64.0 MiB frozen)
  amplification: write 3.67, read 4, space 1.11
  level  runs  tables       bytes      entries      deletes  range deletes
      0     2       4   128.0 MiB      1342177       134217              2
      5     1       2     1.0 GiB     10737418      1073741              1
      6     1       2    10.0 GiB    107374182     10737418              1

"idle" (3): 0 B in 0 operations, memtables 0 B (0 B frozen)
  amplification: write -, read 0, space -
"#;

    /// Numbers that can be told apart.
    fn made_up() -> Metrics {
        let level = |level, runs, bytes| LevelMetrics {
            level,
            runs,
            tables: 2 * runs,
            bytes,
            oldest_run_bytes: bytes / runs,
            entries: bytes / 100,
            deletes: bytes / 1000,
            range_deletes: runs,
        };
        let users = KeyspaceMetrics {
            name: "users".into(),
            id: 2,
            bytes_in: 3 << 30,
            operations: 26_843_545,
            jobs: JobMetrics {
                flushes: 48,
                flushed_bytes: 3 << 30,
                compactions: 20,
                moves: 3,
                compaction_read: 9 << 30,
                compaction_written: 8 << 30,
            },
            memtable_bytes: 70 << 20,
            frozen_bytes: 64 << 20,
            due_bytes: 200 << 20,
            levels: vec![level(0, 2, 128 << 20), level(5, 1, 1 << 30), level(6, 1, 10 << 30)],
        };
        Metrics {
            open_for: Duration::from_millis(3_723_999),
            bytes_in: (3 << 30) + 1000,
            operations: 26_843_555,
            commits: 1_000_000,
            journal: JournalMetrics {
                bytes: 4 << 30,
                syncs: 80_000,
                syncing: Duration::from_secs(320),
                segments: 5,
                replay_bytes: 300 << 20,
                pinned_by: Some("users".into()),
            },
            manifest: ManifestMetrics { edits: 99, bytes: 65_000 },
            jobs: users.jobs,
            background: BackgroundMetrics {
                flushes_running: 1,
                flushes_queued: 2,
                compactions_running: 3,
                compactions_queued: 4,
                frozen_bytes: 64 << 20,
                due_bytes: 200 << 20,
                disk_full: true,
            },
            stalls: StallMetrics {
                delayed: 4000,
                delayed_for: Duration::from_millis(90_500),
                stopped: 2,
                stopped_for: Duration::from_millis(1500),
                waiting: 1,
            },
            cache: CacheMetrics { hits: 900, misses: 100, blocks: 50, bytes: 64 << 20 },
            filters: FilterMetrics { spared: 990, found: 5000, false_positives: 10 },
            logs: LogMetrics::default(),
            memory: MemoryMetrics {
                limit: 512 << 20,
                memtables: 71 << 20,
                blocks: 64 << 20,
                tables: 3 << 20,
                jobs: 1 << 19,
                logs: 0,
                log_index: 0,
            },
            tables: TableMetrics {
                tables: 8,
                bytes: 12 << 30,
                open: 7,
                open_limit: 256,
                held: 1,
                held_bytes: 65 << 20,
            },
            snapshots: SnapshotMetrics {
                live: 3,
                oldest: Seq::new(12_345),
                oldest_for: Some(Duration::from_millis(61_500)),
            },
            keyspaces: vec![KeyspaceMetrics { name: "idle".into(), id: 3, ..Default::default() }, users],
        }
    }

    #[test]
    fn golden() {
        let shown = made_up().to_string();
        assert!(shown == GOLDEN, "{shown}");
    }

    #[test]
    fn nothing_yet_is_no_ratio() {
        let nothing = Metrics::default();
        assert_eq!(nothing.write_amplification(), None);
        assert_eq!((nothing.cache.hit_rate(), nothing.filters.false_positive_rate()), (None, None));
        assert!(nothing.to_string().contains("amplification -"), "{nothing}");
    }

    #[test]
    fn many_keyspaces_are_not_all_shown() {
        let one = |n: u64| KeyspaceMetrics { name: format!("k{n}"), memtable_bytes: n, ..Default::default() };
        let many = Metrics { keyspaces: (0..100).map(one).collect(), ..Default::default() };
        let shown = many.to_string();
        assert!(shown.contains("\"k99\"") && shown.contains("\"k68\"") && !shown.contains("\"k67\""));
        assert!(shown.ends_with("and 68 smaller keyspaces\n"), "{shown}");
    }

    #[test]
    fn bytes_for_people() {
        let shown = [0, 1023, 1024, 1536, 1 << 20, u64::MAX].map(|n| Bytes(n).to_string());
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "16.0 EiB"]);
    }
}
