//! Metrics gathered: counters and states of all parts, as the plain data of `crate::metrics`.

use crate::budget::Use;
use crate::counters::Jobs;
use crate::db::clock::Moment;
use crate::db::compact::L0_RUNS;
use crate::db::core::Core;
use crate::db::handle::Db;
use crate::db::tree::Tree;
use crate::ids::Position;
use crate::metrics::{
    BackgroundMetrics, CacheMetrics, FilterMetrics, JobMetrics, JournalMetrics, KeyspaceMetrics,
    LevelMetrics, ManifestMetrics, MemoryMetrics, Metrics, SnapshotMetrics, StallMetrics, TableMetrics,
};
use crate::sync::atomic::Ordering;
use crate::view::View;
use std::sync::Arc;
use std::time::Duration;

impl Db {
    /// What the database has done since it was opened, and how it stands: plain data, readable
    /// through `Display`. Costs a walk over the names of all tables and no I/O; cheap enough for
    /// every second.
    pub fn metrics(&self) -> Metrics {
        self.core().metrics()
    }
}

impl Core {
    fn metrics(&self) -> Metrics {
        let (mut metrics, end) = self.commit_metrics();
        let mut tables = TableMetrics {
            open: self.budget.files() as u64,
            open_limit: self.store.file_limit() as u64,
            held: self.store.held.get(),
            held_bytes: self.store.held_bytes.get(),
            ..TableMetrics::default()
        };
        for (name, tree) in self.named_trees() {
            let view = tree.view.load_full();
            let keyspace = keyspace_metrics(name, &tree, &view);
            metrics.background.frozen_bytes += keyspace.frozen_bytes;
            metrics.background.due_bytes += keyspace.due_bytes;
            tables.tables += keyspace.levels.iter().map(|level| level.tables).sum::<u64>();
            tables.bytes += keyspace.table_bytes();
            metrics.keyspaces.push(keyspace);
        }
        metrics.tables = tables;
        metrics.keyspaces.sort_by(|a, b| a.name.cmp(&b.name));
        self.pinned(end, &mut metrics.journal);
        metrics.snapshots = self.snapshot_metrics();
        let used = |what| self.budget.used(what) as u64;
        metrics.memory = MemoryMetrics {
            limit: self.budget.limit() as u64,
            memtables: used(Use::Memtables),
            blocks: used(Use::Blocks),
            tables: used(Use::Tables),
            jobs: used(Use::Jobs),
            logs: used(Use::Logs),
            log_index: used(Use::LogIndex),
        };
        for segment in self.logs.segments().iter().filter(|s| s.live_entries() > 0) {
            metrics.logs.segments += 1;
            metrics.logs.entries += segment.live_entries();
            metrics.logs.bytes += segment.live();
        }
        let cache = self.store.cache_stats();
        metrics.cache = CacheMetrics {
            hits: cache.hits,
            misses: cache.misses,
            blocks: cache.entries,
            bytes: cache.bytes,
        };
        let [spared, found, false_positives] = self.store.filter_reads.sums();
        metrics.filters = FilterMetrics { spared, found, false_positives };
        metrics
    }

    /// What the lock on commits guards, and where the journal ends; then what needs no lock.
    fn commit_metrics(&self) -> (Metrics, Position) {
        let counters = &self.counters;
        let mut metrics = Metrics {
            open_for: counters.opened.elapsed(),
            manifest: ManifestMetrics { edits: counters.edits.get(), bytes: counters.manifest_bytes.get() },
            jobs: job_metrics(&counters.jobs),
            ..Metrics::default()
        };
        // Before the journal's end, so that nothing is durable that was not written.
        let ((syncs, syncing), durable) = (self.syncs(), self.sync.durable_position().0);
        let end = {
            let commit = self.commit.lock();
            metrics.bytes_in = commit.writers.bytes_in;
            metrics.operations = commit.writers.operations;
            metrics.commits = commit.commits;
            let end = commit.journal.as_ref().map_or(durable, |journal| journal.end());
            metrics.journal.bytes = end.0.saturating_sub(commit.began.0);
            end
        };
        metrics.journal.syncs = syncs;
        metrics.journal.syncing = syncing;
        metrics.journal.segments = counters.segments.get();
        let work = self.work.counts();
        metrics.background = BackgroundMetrics {
            flushes_running: work.flushes_running as u64,
            flushes_queued: work.flushes_queued as u64,
            compactions_running: work.compactions_running as u64,
            compactions_queued: work.compactions_queued as u64,
            frozen_bytes: 0,
            due_bytes: 0,
            disk_full: counters.disk_full.load(Ordering::Relaxed),
        };
        let stalls = &self.throttle.stalls;
        let [delayed, delayed_nanos, stopped, stopped_nanos, waiting] =
            [&stalls.delayed, &stalls.delayed_nanos, &stalls.stopped, &stalls.stopped_nanos, &stalls.waiting]
                .map(|n| n.load(Ordering::Relaxed));
        let (delayed_for, stopped_for) =
            (Duration::from_nanos(delayed_nanos), Duration::from_nanos(stopped_nanos));
        metrics.stalls = StallMetrics { delayed, delayed_for, stopped, stopped_for, waiting };
        (metrics, end)
    }

    fn named_trees(&self) -> Vec<(String, Arc<Tree>)> {
        let registry = self.registry.lock();
        registry.trees().filter_map(|tree| Some((registry.name(tree.id)?, tree.clone()))).collect()
    }

    /// From where on the journal is needed, and by whom.
    fn pinned(&self, end: Position, journal: &mut JournalMetrics) {
        let floor = self.needed_from(end, &|_| false);
        journal.replay_bytes = end.0.saturating_sub(floor.0);
        if journal.replay_bytes == 0 {
            return;
        }
        let registry = self.registry.lock();
        let pins = |tree: &&Arc<Tree>| tree.view.load().memtables.iter().any(|m| m.pinned() == Some(floor));
        journal.pinned_by = registry.trees().find(pins).and_then(|tree| registry.name(tree.id));
    }

    fn snapshot_metrics(&self) -> SnapshotMetrics {
        let now = Moment::now();
        let (live, oldest) = self.snapshots.meet(now);
        SnapshotMetrics {
            live: live as u64,
            oldest: oldest.map(|(seq, _)| seq),
            oldest_for: oldest.map(|(_, met)| now.since(met)),
        }
    }
}

fn job_metrics(jobs: &Jobs) -> JobMetrics {
    JobMetrics {
        flushes: jobs.flushes.get(),
        flushed_bytes: jobs.flushed_bytes.get(),
        compactions: jobs.compactions.get(),
        moves: jobs.moves.get(),
        compaction_read: jobs.compaction_read.get(),
        compaction_written: jobs.compaction_written.get(),
    }
}

fn keyspace_metrics(name: String, tree: &Tree, view: &View) -> KeyspaceMetrics {
    let bytes = |skip| view.memtables.iter().skip(skip).map(|m| m.table.bytes() as u64).sum();
    let levels = level_metrics(view);
    let level0 = levels.first().filter(|l| l.level == 0 && l.runs >= L0_RUNS as u64);
    KeyspaceMetrics {
        due_bytes: tree.counters.excess.get() + level0.map_or(0, |l| l.bytes),
        name,
        id: tree.id.0,
        bytes_in: tree.counters.bytes_in.get(),
        operations: tree.counters.operations.get(),
        jobs: job_metrics(&tree.counters.jobs),
        memtable_bytes: bytes(0),
        frozen_bytes: bytes(1),
        levels,
    }
}

fn level_metrics(view: &View) -> Vec<LevelMetrics> {
    let mut levels: Vec<LevelMetrics> = Vec::new();
    for run in &view.runs {
        if levels.last().is_none_or(|last| last.level != run.level) {
            levels.push(LevelMetrics { level: run.level, ..LevelMetrics::default() });
        }
        let Some(level) = levels.last_mut() else { continue };
        level.runs += 1;
        level.oldest_run_bytes = 0;
        for table in &run.tables {
            level.tables += 1;
            level.bytes += table.meta.size;
            // Runs come newest first: the last to be added up is the oldest.
            level.oldest_run_bytes += table.meta.size;
            level.entries += table.meta.entries;
            level.deletes += table.meta.deletes;
            level.range_deletes += table.meta.range_deletes;
        }
    }
    levels
}
