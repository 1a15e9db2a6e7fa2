//! Flush: memtables become tables of level 0.

use crate::cursor::Cursor;
use crate::cursor::merge::Merge;
use crate::error::Result;
use crate::ids::Seq;
use crate::job::output::{NewTable, Output, OutputOptions};
use crate::job::retain::{Horizon, Retain};
use crate::key::{Heads, Trailer};
use crate::memtable::{MemCursor, Memtable};
use crate::table::{Store, Unsynced};
use crate::version::TableMeta;
use std::sync::Arc;

/// Tables in key order, and what is left to be synced.
pub(crate) type Written = (Vec<TableMeta>, Vec<Unsynced>);

/// Which keys of the memtables are to be written: those from here up to there.
#[derive(Clone, Copy, Default)]
pub(crate) struct Keys<'a> {
    pub from: Option<&'a [u8]>,
    pub to: Option<&'a [u8]>,
}

/// Writes the contents of `memtables` as one sorted run, or the part of it that has these `keys`. Versions
/// no read can see are left out; tombstones stay. Neither the tables nor their names are synced: the caller
/// does so, for many flushes at a time.
pub(crate) fn flush(
    memtables: &[Arc<Memtable>],
    keys: Keys<'_>,
    horizon: &Horizon,
    store: &Arc<Store>,
    options: OutputOptions,
    new_table: NewTable<'_>,
) -> Result<Written> {
    let ranges: Vec<_> = memtables.iter().filter_map(|m| m.range_sets()).collect();
    let tombstones = horizon.thin(ranges.iter().flat_map(|sets| sets.deletes()));
    drop(ranges);
    let cursors = memtables.iter().map(|m| MemCursor::new(m.clone())).collect();
    let mut entries = Merge::new(cursors, Heads::default());
    let mut retain = Retain::new(horizon, &tombstones, false);
    let kept = crate::job::retain::tombstones(&tombstones, horizon, false);
    let mut output = Output::new(store, options, new_table, kept).within(keys.from, keys.to).unsynced();
    match keys.from {
        Some(from) => entries.seek(from, Trailer::newest(Seq::MAX))?,
        None => entries.seek_first()?,
    }
    while entries.valid() {
        let (key, trailer, again) = (entries.key(), entries.trailer(), entries.repeats());
        if keys.to.is_some_and(|to| key >= to) {
            break;
        }
        if let Some(trailer) = retain.keep(key, trailer, again) {
            output.add(key, trailer, entries.value(), again)?;
        }
        entries.next()?;
    }
    output.finish_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;
    use crate::fs::sim::SimFs;
    use crate::ids::FileNo;
    use crate::key::Kind;
    use crate::memtable;
    use crate::options::Compression;
    use crate::table::{ReadOptions, WriteOptions};

    /// Each table's keys, entries and range deletes.
    fn written(memtable: &Arc<Memtable>, keys: Keys<'_>) -> Vec<(String, String, u64, u64)> {
        let write = WriteOptions { block_bytes: 64, compression: Compression::None, filter_bits: 0 };
        let options = OutputOptions { write, table_bytes: 1 << 20 };
        let store =
            Store::new(Arc::new(SimFs::new(1)), "/".into(), Cache::new(0), ReadOptions { mapped: false });
        let horizon = Horizon::new([], Seq::ZERO);
        let mut no = 0;
        let new_table = &mut || {
            no += 1;
            (FileNo(no), no)
        };
        let memtables = std::slice::from_ref(memtable);
        let (tables, _) = flush(memtables, keys, &horizon, &store, options, new_table).unwrap();
        let text = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
        let show = |t: TableMeta| {
            (text(&t.smallest), text(t.end.as_deref().unwrap_or_default()), t.entries, t.range_deletes)
        };
        tables.into_iter().map(show).collect()
    }

    #[test]
    fn parts_do_not_overlap_and_leave_nothing_out() {
        let (mut writer, memtable) = memtable::new();
        let seq = |n| Seq::new(n).unwrap();
        let trailer = |n| Trailer::new(seq(n), Kind::Put);
        // Versions of the key in the middle, and a range delete across it.
        for (key, n) in [("b", 1), ("m", 2), ("m", 3), ("p", 4)] {
            writer.insert(key.as_bytes(), trailer(n), b"");
        }
        writer.delete_range(b"c", Some(b"o"), seq(5));
        let part = |from: Option<&str>, to: Option<&str>| {
            let keys = Keys { from: from.map(str::as_bytes), to: to.map(str::as_bytes) };
            written(&memtable, keys)
        };
        let table = |from: &str, end: &str, entries, ranges| vec![(from.into(), end.into(), entries, ranges)];
        assert_eq!(part(None, None), table("b", "p\0", 4, 1));
        assert_eq!(part(None, Some("m")), table("b", "m", 1, 1));
        assert_eq!(part(Some("m"), None), table("m", "p\0", 3, 1));
        // Of one of them nothing but the range delete may be left, or nothing at all.
        assert_eq!(part(Some("c"), Some("d")), table("c", "d", 0, 1));
        assert_eq!(part(Some("q"), None), []);
    }
}
