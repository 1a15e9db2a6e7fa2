//! Compaction: runs are merged into one sorted run, and what no read can see any more is left out.

use crate::cursor::Cursor;
use crate::cursor::merge::Merge;
use crate::error::Result;
use crate::job::output::{NewTable, Output, OutputOptions};
use crate::job::retain::{Horizon, Retain, hides};
use crate::key::Heads;
use crate::mutant::Mutant;
use crate::table::Store;
use crate::tombstones::RangeTombstones;
use crate::version::TableMeta;
use crate::view::run::{Passage, Run, RunCursor, RunTable};
use std::sync::Arc;

/// `pause` is called after so many bytes of input.
const PAUSE_BYTES: usize = 256 << 10;

/// What is to be merged.
pub(crate) struct Inputs<'a> {
    /// Newest first.
    pub runs: &'a [Arc<Run>],
    /// Nothing older than the inputs can lie below the output, so tombstones that no snapshot needs go
    /// as well.
    pub bottom: bool,
    /// The level of the output. On level 0 numbers tell which run is newer.
    pub level: u8,
    /// The tables of the level below the output's, in key order.
    pub below: &'a [Arc<TableMeta>],
}

/// What a merge made.
pub(crate) struct Merged {
    pub tables: Vec<TableMeta>,
    /// The range deletes of its inputs, [thinned](Horizon::thin).
    pub tombstones: RangeTombstones,
}

/// Merges `inputs`. The tables are synced, their names are not. A block that cannot be read fails the
/// whole job: nothing is dropped on the strength of an error.
///
/// Tables of which no read can see anything behind range deletes of the others are not even opened.
///
/// `pause` is called every now and then, for what is more urgent; its error abandons the job.
pub(crate) fn compact(
    inputs: &Inputs<'_>,
    horizon: &Horizon,
    store: &Arc<Store>,
    options: OutputOptions,
    new_table: NewTable<'_>,
    pause: &mut dyn FnMut() -> Result<()>,
) -> Result<Merged> {
    let &Inputs { runs, bottom, level, below } = inputs;
    let mut tables = Vec::new();
    for table in runs.iter().flat_map(|r| r.tables.iter()).filter(|t| t.meta.range_deletes > 0) {
        tables.push(table.handle.visit()?);
    }
    let tombstones = horizon.thin(tables.iter().flat_map(|t| t.tombstones().deletes()));
    drop(tables);
    let mut kept = crate::job::retain::tombstones(&tombstones, horizon, bottom);
    if Mutant::ForgetRangeDeletes.on() {
        kept = RangeTombstones::default();
    }
    let seen = |t: &RunTable| tombstones.is_empty() || !hides(&tombstones, horizon, &t.meta);
    let seen = runs.iter().map(|r| r.only(seen));
    let heads = runs.iter().map(|run| run.heads).reduce(Heads::and).unwrap_or_default();
    let mut entries = Merge::new(seen.map(|run| RunCursor::new(run, Passage::Streaming)).collect(), heads);
    let mut retain = Retain::new(horizon, &tombstones, bottom).renumbering(level > 0);
    let mut output = Output::new(store, options, new_table, kept).above(below);
    entries.seek_first()?;
    let mut read = 0;
    while entries.valid() {
        let (key, trailer, value) = (entries.key(), entries.trailer(), entries.value());
        read += key.len() + value.len();
        if read >= PAUSE_BYTES {
            read = 0;
            pause()?;
        }
        let again = entries.repeats();
        if let Some(trailer) = retain.keep(key, trailer, again) {
            output.add(key, trailer, value, again)?;
        }
        match entries.next() {
            Err(_) if Mutant::SwallowReadError.on() => break,
            next => next?,
        }
    }
    Ok(Merged { tables: output.finish()?, tombstones })
}
