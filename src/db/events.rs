//! Events: what happened, counted and told through the `log` facade under the one target `esker`.
//! Never on the path of a single put or get, and not under a lock that those take.

use crate::db::clock::Moment;
use crate::db::core::Core;
use crate::db::tree::Tree;
use crate::ids::KeyspaceId;
use crate::version::TableMeta;
use std::fmt;
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

/// A duration in a log line, without digits nobody reads.
pub(crate) struct Took(pub Duration);

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s", self.0.as_secs_f64())
    }
}
