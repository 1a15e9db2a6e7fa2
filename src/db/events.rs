//! Events: what happened, counted and told through the `log` facade under the one target `esker`.
//! Never on the path of a single put or get, and not under a lock that those take.

use crate::db::clock::Moment;
use crate::db::core::Core;
use crate::db::tree::Tree;
use crate::error::{Error, ErrorKind};
use crate::ids::KeyspaceId;
use crate::sync::atomic::Ordering;
use crate::version::TableMeta;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// So many tables, and what is in them.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sum {
    tables: u64,
    entries: u64,
    bytes: u64,
}

impl Sum {
    pub fn of<'a>(tables: impl IntoIterator<Item = &'a TableMeta>) -> Sum {
        let add = |sum: Sum, t: &TableMeta| Sum {
            tables: sum.tables + 1,
            entries: sum.entries.saturating_add(t.entries),
            bytes: sum.bytes.saturating_add(t.size),
        };
        tables.into_iter().fold(Sum::default(), add)
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} entries, {} bytes in {} tables", self.entries, self.bytes, self.tables)
    }
}

impl Core {
    /// What a log line calls a keyspace.
    fn name(&self, id: KeyspaceId) -> String {
        match self.registry.lock().name(id) {
            Some(name) => format!("{name:?}"),
            None if id == KeyspaceId::CATALOG => "the catalog".into(),
            None => format!("keyspace {id}, dropped meanwhile,"),
        }
    }

    /// A flush of `tree` is part of the database.
    pub fn note_flush(&self, tree: &Tree, made: Sum, began: Moment) {
        for jobs in [&self.counters.jobs, &tree.counters.jobs] {
            jobs.flushes.add(1);
            jobs.flushed_bytes.add(made.bytes);
        }
        self.note_space();
        if log::log_enabled!(target: "esker", log::Level::Debug) {
            let (name, took) = (self.name(tree.id), Took(began.elapsed()));
            log::debug!(target: "esker", "flushed {name}: {made}, took {took}");
        }
    }

    /// A compaction of `tree` into `level` is part of the database.
    pub fn note_compaction(&self, tree: &Tree, level: u8, read: Sum, made: Sum, began: Moment) {
        for jobs in [&self.counters.jobs, &tree.counters.jobs] {
            jobs.compactions.add(1);
            jobs.compaction_read.add(read.bytes);
            jobs.compaction_written.add(made.bytes);
        }
        if log::log_enabled!(target: "esker", log::Level::Debug) {
            let (name, took) = (self.name(tree.id), Took(began.elapsed()));
            let dropped = read.entries.saturating_sub(made.entries);
            log::debug!(
                target: "esker",
                "compacted {name} into level {level}: {read} became {made}, {dropped} entries dropped, took {took}"
            );
        }
    }

    /// Tables of `tree` were moved to `level` as they are.
    pub fn note_move(&self, tree: &Tree, level: u8, moved: Sum) {
        for jobs in [&self.counters.jobs, &tree.counters.jobs] {
            jobs.moves.add(1);
        }
        if log::log_enabled!(target: "esker", log::Level::Debug) {
            log::debug!(target: "esker", "moved tables of {} to level {level}: {moved}", self.name(tree.id));
        }
    }
}

impl Core {
    /// A write to `trees` finds no room, and waits.
    pub fn note_stop(&self, trees: &[Arc<Tree>]) {
        let first = self.throttle.stalls.waiting.fetch_add(1, Ordering::Relaxed) == 0;
        // Without threads the writer does the work itself.
        if !first || self.options.workers == 0 {
            return;
        }
        let memory = self.throttle.memory();
        let level0 = |tree: &Arc<Tree>| tree.view.load().runs.iter().filter(|r| r.level == 0).count();
        log::warn!(
            target: "esker",
            "writes stop until the background has caught up: {} bytes in memtables, {} of them frozen; \
             {} runs in level 0",
            memory.active + memory.frozen,
            memory.frozen,
            trees.iter().map(level0).max().unwrap_or(0)
        );
    }

    /// The write goes on, or is given up.
    pub fn note_relief(&self, took: Duration) {
        let last = self.throttle.stalls.waiting.fetch_sub(1, Ordering::Relaxed) == 1;
        if last && self.options.workers > 0 {
            log::info!(target: "esker", "writes stopped for {}", Took(took));
        }
    }

    /// Something could not be written.
    pub fn note_failure(&self, e: &Error) {
        if e.kind() == ErrorKind::DiskFull && !self.counters.disk_full.swap(true, Ordering::Relaxed) {
            log::warn!(target: "esker", "the disk is full: {e}");
        }
    }

    /// Something was written that takes space.
    pub fn note_space(&self) {
        if self.counters.disk_full.swap(false, Ordering::Relaxed) {
            log::info!(target: "esker", "there is space on the disk again");
        }
    }
}

/// A duration in a log line, without digits nobody reads.
pub(crate) struct Took(pub Duration);

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s", self.0.as_secs_f64())
    }
}
