//! Compaction: runs are merged into one sorted run, and what no read can see any more is left out.

use crate::cursor::Cursor;
use crate::cursor::merge::Merge;
use crate::error::Result;
use crate::job::output::{NewTable, Output, OutputOptions};
use crate::job::retain::{Horizon, Retain};
use crate::table::Store;
use crate::version::TableMeta;
use crate::view::run::{Run, RunCursor};
use std::sync::Arc;

/// `pause` is called after so many bytes of input.
const PAUSE_BYTES: usize = 256 << 10;

/// Merges `inputs`. `bottom`: nothing older than the inputs can lie below the output, so tombstones
/// that no snapshot needs go as well. The tables are synced, their names are not. A block that
/// cannot be read fails the whole job: nothing is dropped on the strength of an error.
///
/// `pause` is called every now and then, for what is more urgent; its error abandons the job.
pub(crate) fn compact(
    inputs: &[Arc<Run>],
    bottom: bool,
    horizon: &Horizon,
    store: &Arc<Store>,
    options: OutputOptions,
    new_table: NewTable<'_>,
    pause: &mut dyn FnMut() -> Result<()>,
) -> Result<Vec<TableMeta>> {
    let mut tables = Vec::new();
    for table in inputs.iter().flat_map(|r| r.tables.iter()).filter(|t| t.meta.range_deletes > 0) {
        tables.push(table.handle.visit()?);
    }
    let tombstones = horizon.thin(tables.iter().flat_map(|t| t.tombstones().deletes()));
    drop(tables);
    let kept = crate::job::retain::tombstones(&tombstones, horizon, bottom);
    let mut entries = Merge::new(inputs.iter().map(|r| RunCursor::streaming(r.clone())).collect());
    let mut retain = Retain::new(horizon, &tombstones, bottom);
    let mut output = Output::new(store, options, new_table, kept);
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
        if retain.keep(key, trailer, again) {
            output.add(key, trailer, value, again)?;
        }
        entries.next()?;
    }
    output.finish()
}
