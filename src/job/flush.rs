//! Flush: memtables become tables of level 0.

use crate::cursor::Cursor;
use crate::cursor::merge::Merge;
use crate::error::Result;
use crate::job::output::{NewTable, Output, OutputOptions};
use crate::job::retain::{Horizon, Retain};
use crate::key::Heads;
use crate::memtable::{MemCursor, Memtable};
use crate::table::{Store, Unsynced};
use crate::version::TableMeta;
use std::sync::Arc;

/// Writes the contents of `memtables` as one sorted run. Versions no read can see are left out;
/// tombstones stay. Neither the tables nor their names are synced: the caller does so, for many flushes
/// at a time.
pub(crate) fn flush(
    memtables: &[Arc<Memtable>],
    horizon: &Horizon,
    store: &Arc<Store>,
    options: OutputOptions,
    new_table: NewTable<'_>,
) -> Result<(Vec<TableMeta>, Vec<Unsynced>)> {
    let ranges: Vec<_> = memtables.iter().filter_map(|m| m.range_sets()).collect();
    let tombstones = horizon.thin(ranges.iter().flat_map(|sets| sets.deletes()));
    drop(ranges);
    let cursors = memtables.iter().map(|m| MemCursor::new(m.clone())).collect();
    let mut entries = Merge::new(cursors, Heads::default());
    let mut retain = Retain::new(horizon, &tombstones, false);
    let kept = crate::job::retain::tombstones(&tombstones, horizon, false);
    let mut output = Output::new(store, options, new_table, kept).unsynced();
    entries.seek_first()?;
    while entries.valid() {
        let (key, trailer, again) = (entries.key(), entries.trailer(), entries.repeats());
        if let Some(trailer) = retain.keep(key, trailer, again) {
            output.add(key, trailer, entries.value(), again)?;
        }
        entries.next()?;
    }
    output.finish_all()
}
