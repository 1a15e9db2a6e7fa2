//! Writes sorted entries into one table after another, cutting between keys.

use crate::error::Result;
use crate::ids::FileNo;
use crate::key::Trailer;
use crate::mutant::Mutant;
use crate::table::{Store, Summary, Unsynced, WriteOptions, Writer};
use crate::tombstones::RangeTombstones;
use crate::version::TableMeta;
use std::sync::Arc;

/// A table's number and random id, given by the database for each output.
pub(crate) type NewTable<'a> = &'a mut dyn FnMut() -> (FileNo, u64);

/// No entry takes more bytes of a table beside its key and value: fingerprint, head, trailer, ends,
/// its share of the filter.
const MOST_BESIDE: usize = 32;

/// A table is cut before it shares keys with so many times its own limit of the level below: or to merge
/// it into that would be a large job later (LevelDB's `MaxGrandParentOverlapBytes`).
const MOST_BELOW: u64 = 10;

/// How outputs are written.
#[derive(Clone, Copy)]
pub(crate) struct OutputOptions {
    pub write: WriteOptions,
    /// Where a table is cut, in bytes.
    pub table_bytes: u64,
}

/// Entries in internal order go in, tables come out. Tables of an output that is dropped
/// unfinished are removed.
pub(crate) struct Output<'a> {
    store: &'a Arc<Store>,
    options: OutputOptions,
    new_table: NewTable<'a>,
    /// Range tombstones of the whole output; each table gets those of its keys.
    tombstones: RangeTombstones,
    open: Option<(FileNo, Writer)>,
    /// Bytes that the open table can take before its size must be looked at: what it is exactly is
    /// not worth knowing after each entry.
    room: u64,
    /// Where the open table begins; `None` for the first.
    from: Option<Vec<u8>>,
    /// Where the last one ends at the latest.
    to: Option<Vec<u8>>,
    /// The tables of the level below the output, in key order; those up to `passed` begin before the
    /// next entry.
    below: &'a [Arc<TableMeta>],
    passed: usize,
    /// Bytes of them that the open table shares keys with.
    shared: u64,
    done: Vec<TableMeta>,
    /// Those of `done` that are not synced yet, if somebody else does that.
    unsynced: Option<Vec<Unsynced>>,
}

impl<'a> Output<'a> {
    pub fn new(
        store: &'a Arc<Store>,
        options: OutputOptions,
        new_table: NewTable<'a>,
        tombstones: RangeTombstones,
    ) -> Output<'a> {
        let (open, room, from, to, done, unsynced) = (None, 0, None, None, Vec::new(), None);
        let (below, passed, shared) = (&[][..], 0, 0);
        Output {
            store,
            options,
            new_table,
            tombstones,
            open,
            room,
            from,
            to,
            below,
            passed,
            shared,
            done,
            unsynced,
        }
    }

    /// The level below the output holds these tables, in key order: outputs are cut with regard to them.
    pub fn above(mut self, below: &'a [Arc<TableMeta>]) -> Output<'a> {
        self.below = below;
        self
    }

    /// Only keys `from..to` come, and range tombstones are cut off there: others write the rest.
    pub fn within(mut self, from: Option<&[u8]>, to: Option<&[u8]>) -> Output<'a> {
        self.from = from.map(<[u8]>::to_vec);
        self.to = to.map(<[u8]>::to_vec);
        self
    }

    /// The caller syncs the tables.
    pub fn unsynced(mut self) -> Output<'a> {
        self.unsynced = Some(Vec::new());
        self
    }

    /// Adds the next entry in internal order. `again`: its key may be that of the entry before.
    #[inline]
    pub fn add(&mut self, key: &[u8], trailer: Trailer, value: &[u8], again: bool) -> Result<()> {
        if !again && self.below.get(self.passed).is_some_and(|next| *next.smallest <= *key) {
            self.pass(key)?;
        }
        let again = again && !Mutant::SplitUserKey.on();
        let bytes = (key.len() + value.len() + MOST_BESIDE) as u64;
        match self.room.checked_sub(bytes) {
            Some(room) => self.room = room,
            None if again => {}
            None => self.look(key)?,
        }
        self.writer()?.add(key, trailer, value)
    }

    /// Cuts before `key` if the open table is full.
    #[cold]
    fn look(&mut self, key: &[u8]) -> Result<()> {
        let limit = self.options.table_bytes;
        let mut size = self.open.as_ref().map_or(0, |(_, writer)| writer.size());
        if size >= limit {
            self.cut(Some(key))?;
            size = 0;
        }
        // Not too fine a look at the end.
        self.room = (limit - size).max(limit / 64);
        Ok(())
    }

    /// Comes to `key`, where a table of the level below has begun; cuts before it if the open table shares
    /// keys with enough of them.
    #[cold]
    fn pass(&mut self, key: &[u8]) -> Result<()> {
        let rest = &self.below[self.passed..];
        let begun = &rest[..rest.partition_point(|t| *t.smallest <= *key)];
        self.passed += begun.len();
        self.shared = begun.iter().fold(self.shared, |sum, t| sum.saturating_add(t.size));
        if self.open.is_some() && self.shared > self.options.table_bytes.saturating_mul(MOST_BELOW) {
            self.cut(Some(key))?;
        }
        if self.open.is_none() {
            // Of those passed only the last can hold keys from here on.
            self.shared = begun.last().map_or(0, |t| t.size);
            self.room = self.options.table_bytes;
        }
        Ok(())
    }

    fn writer(&mut self) -> Result<&mut Writer> {
        if self.open.is_none() {
            let (no, id) = (self.new_table)();
            self.open = Some((no, self.store.create(no, id, self.options.write)?));
        }
        Ok(&mut self.open.as_mut().expect("just opened").1)
    }

    /// Ends the open table before `to` (`None`: the last one), if it holds anything.
    fn cut(&mut self, to: Option<&[u8]>) -> Result<()> {
        let tombstones = self.tombstones.clip(self.from.as_deref(), to);
        if self.open.is_none() && !tombstones.is_empty() {
            self.writer()?;
        }
        self.from = to.map(<[u8]>::to_vec);
        self.shared = 0;
        let Some((no, writer)) = self.open.take() else { return Ok(()) };
        let finished = match &mut self.unsynced {
            None => writer.finish(&tombstones),
            Some(unsynced) => writer.finish_unsynced(&tombstones).map(|(summary, file)| {
                unsynced.push(file);
                summary
            }),
        };
        match finished {
            Ok(summary) => self.done.push(meta(no, summary)),
            Err(e) => {
                discard(self.store, no);
                return Err(e);
            }
        }
        Ok(())
    }

    /// The tables written, synced, in key order. Their directory is not synced yet.
    pub fn finish(self) -> Result<Vec<TableMeta>> {
        self.finish_all().map(|(tables, _)| tables)
    }

    /// Also what is left to be [synced](Output::unsynced).
    pub fn finish_all(mut self) -> Result<(Vec<TableMeta>, Vec<Unsynced>)> {
        let to = self.to.take();
        self.cut(to.as_deref())?;
        Ok((std::mem::take(&mut self.done), self.unsynced.take().unwrap_or_default()))
    }
}

impl Drop for Output<'_> {
    fn drop(&mut self) {
        for no in self.open.iter().map(|(no, _)| *no).chain(self.done.iter().map(|t| t.no)) {
            discard(self.store, no);
        }
    }
}

/// Removes a table that no manifest names. One that stays is found by the next open.
pub(crate) fn discard(store: &Store, no: FileNo) {
    if let Err(e) = store.remove(no) {
        log::warn!(target: "esker", "removing an unfinished table: {e}");
    }
}

fn meta(no: FileNo, s: Summary) -> TableMeta {
    TableMeta {
        no,
        id: s.id,
        size: s.size,
        smallest: s.smallest,
        end: s.end,
        min_seq: s.min_seq,
        max_seq: s.max_seq,
        entries: s.entries,
        deletes: s.deletes,
        range_deletes: s.range_deletes,
        raw_bytes: s.raw_bytes,
        superseded: s.superseded,
        dense: s.dense,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;
    use crate::fs::sim::SimFs;
    use crate::ids::Seq;
    use crate::key::Kind;
    use crate::options::Compression;
    use crate::table::ReadOptions;

    /// The keys of each table, of `keys` written above tables of so many bytes that begin at these keys.
    fn cut(keys: &str, below: &[(&str, u64)]) -> String {
        let write = WriteOptions { block_bytes: 64, compression: Compression::None, filter_bits: 0 };
        let options = OutputOptions { write, table_bytes: 1 << 20 };
        let fs = Arc::new(SimFs::new(1));
        let store = Store::new(fs, "/".into(), Cache::new(0), ReadOptions { mapped: false });
        let below: Vec<Arc<TableMeta>> = below
            .iter()
            .map(|(from, size)| {
                let table = TableMeta::parse("1[00-01):1");
                Arc::new(TableMeta { smallest: from.as_bytes().into(), size: size << 20, ..table })
            })
            .collect();
        let mut no = 0;
        let mut new_table = || {
            no += 1;
            (FileNo(no), no)
        };
        let mut output =
            Output::new(&store, options, &mut new_table, RangeTombstones::default()).above(&below);
        for (i, key) in keys.split(' ').enumerate() {
            let seq = Seq::new(100 - i as u64).unwrap();
            let again = i > 0 && keys.split(' ').nth(i - 1) == Some(key);
            output.add(key.as_bytes(), Trailer::new(seq, Kind::Put), b"", again).unwrap();
        }
        let tables = output.finish().unwrap();
        let mut left = keys.split(' ');
        let of = |n: u64| left.by_ref().take(n as usize).collect::<Vec<_>>().join(" ");
        tables.iter().map(|t| t.entries).map(of).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn tables_are_cut_before_they_share_keys_with_too_much_below() {
        assert_eq!(cut("b d f h", &[]), "b d f h");
        assert_eq!(cut("b d f h", &[("a", 5), ("c", 5), ("e", 1), ("g", 1)]), "b d | f h");
        assert_eq!(cut("b d f h", &[("a", 11), ("c", 11), ("e", 11), ("g", 11)]), "b | d | f | h");
        // What lies in gaps costs nothing, and what is passed at once counts together.
        assert_eq!(cut("m n", &[("a", 90), ("c", 90), ("l", 1)]), "m n");
        assert_eq!(cut("b x y", &[("a", 1), ("c", 8), ("d", 8), ("e", 1)]), "b | x y");
        // Never between the versions of a key.
        assert_eq!(cut("b d d d f", &[("a", 6), ("c", 6), ("e", 6)]), "b | d d d | f");
    }
}
