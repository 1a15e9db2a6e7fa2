//! Writes sorted entries into one table after another, cutting between keys.

use crate::error::Result;
use crate::ids::FileNo;
use crate::key::Trailer;
use crate::table::{Store, Summary, Unsynced, WriteOptions, Writer};
use crate::tombstones::RangeTombstones;
use crate::version::TableMeta;
use std::sync::Arc;

/// A table's number and random id, given by the database for each output.
pub(crate) type NewTable<'a> = &'a mut dyn FnMut() -> (FileNo, u64);

/// No entry takes more bytes of a table beside its key and value: fingerprint, head, trailer, ends,
/// its share of the filter.
const MOST_BESIDE: usize = 32;

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
        let (open, room, from, done, unsynced) = (None, 0, None, Vec::new(), None);
        Output { store, options, new_table, tombstones, open, room, from, done, unsynced }
    }

    /// The caller syncs the tables.
    pub fn unsynced(mut self) -> Output<'a> {
        self.unsynced = Some(Vec::new());
        self
    }

    /// Adds the next entry in internal order. `again`: its key may be that of the entry before.
    #[inline]
    pub fn add(&mut self, key: &[u8], trailer: Trailer, value: &[u8], again: bool) -> Result<()> {
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
        self.cut(None)?;
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
