//! A run: tables that do not overlap, one after another in key order, read as one.

use crate::cursor::visible::Bounds;
use crate::cursor::{Cursor, Layer, Near};
use crate::error::Result;
use crate::fs::SharedBytes;
use crate::ids::{FileNo, Seq};
use crate::key::{Heads, Trailer};
use crate::table::{Handle, Store, Table, TableCursor};
use crate::tombstones::Around;
use crate::version::{self, Levels, TableMeta};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A table of a run: what the manifest says of it, and the file.
#[derive(Clone)]
pub(crate) struct RunTable {
    pub meta: Arc<TableMeta>,
    pub handle: Arc<Handle>,
}

/// Sorted, disjoint tables.
pub(crate) struct Run {
    pub level: u8,
    pub tables: Box<[RunTable]>,
    /// How to tell its keys apart.
    pub heads: Heads,
    /// Heads of the tables' ends: a search touches the tables only where they are equal.
    ends: Box<[u64]>,
    /// Heads of the tables' smallest keys, for the same reason.
    starts: Box<[u64]>,
    /// Whether any of the tables holds range tombstones.
    pub range_deletes: bool,
    /// What it was made of, if it is all of that. Held, so that nothing else can come to lie there.
    of: Option<Arc<version::Run>>,
}

impl Run {
    pub fn new(level: u8, tables: Vec<RunTable>) -> Run {
        let range_deletes = tables.iter().any(|t| t.meta.range_deletes > 0);
        let heads = match (tables.first(), tables.last()) {
            (Some(RunTable { meta: first, .. }), Some(RunTable { meta: last, .. })) => {
                Heads::between(&first.smallest, last.end.as_ref().unwrap_or(&last.smallest))
            }
            _ => Heads::default(),
        };
        let ends =
            tables.iter().map(|t| t.meta.end.as_deref().map_or(u64::MAX, |end| heads.of(end))).collect();
        let starts = tables.iter().map(|t| heads.of(&t.meta.smallest)).collect();
        Run { level, tables: tables.into(), heads, ends, starts, range_deletes, of: None }
    }

    /// The tables of the run that are `wanted`.
    pub fn only(self: &Arc<Run>, wanted: impl Fn(&RunTable) -> bool) -> Arc<Run> {
        if self.tables.iter().all(&wanted) {
            return self.clone();
        }
        Arc::new(Run::new(self.level, self.tables.iter().filter(|t| wanted(t)).cloned().collect()))
    }

    /// The first table that ends behind `key`.
    #[inline]
    fn first_ending_after(&self, key: &[u8]) -> usize {
        let head = self.heads.of(key);
        let from = self.ends.partition_point(|&end| end < head);
        if self.ends.get(from) != Some(&head) {
            return from;
        }
        let equal = self.ends[from..].iter().take_while(|&&end| end == head).count();
        let ended = |t: &RunTable| t.meta.end.as_deref().is_some_and(|end| end <= key);
        from + self.tables[from..from + equal].partition_point(ended)
    }

    /// The table whose range holds `key`.
    #[inline]
    pub fn find(&self, key: &[u8]) -> Option<&RunTable> {
        let (at, head) = (self.first_ending_after(key), self.heads.of(key));
        let (start, table) = (*self.starts.get(at)?, self.tables.get(at)?);
        let holds = start < head || (start == head && *table.meta.smallest <= *key);
        holds.then_some(table)
    }

    /// The tables that reach into `bounds`.
    pub fn within(&self, bounds: &Bounds) -> &[RunTable] {
        let from = bounds.lower.as_ref().map_or(0, |lower| self.first_ending_after(lower));
        let rest = &self.tables[from..];
        let to = bounds
            .upper
            .as_ref()
            .map_or(rest.len(), |upper| rest.partition_point(|t| *t.meta.smallest < **upper));
        &rest[..to]
    }

    /// The same run, with fresh handles for the tables `close` names; `None` if it has none of them.
    pub fn reopened(&self, close: &HashSet<FileNo>) -> Option<Run> {
        if !self.tables.iter().any(|t| close.contains(&t.meta.no)) {
            return None;
        }
        let again = |t: &RunTable| match close.contains(&t.meta.no) {
            true => RunTable { meta: t.meta.clone(), handle: t.handle.fresh() },
            false => t.clone(),
        };
        let tables = self.tables.iter().map(again).collect();
        let (ends, starts, of) = (self.ends.clone(), self.starts.clone(), self.of.clone());
        Some(Run { tables, ends, starts, of, ..*self })
    }

    pub fn overlaps(&self, bounds: &Bounds) -> bool {
        !self.within(bounds).is_empty()
    }
}

/// The runs of `levels`, newest first. Those of `known` that have not changed stay as they are, and
/// tables keep their open handles.
pub(crate) fn runs(levels: &Levels, store: &Arc<Store>, known: &[Arc<Run>]) -> Vec<Arc<Run>> {
    let same = |level, of: &Arc<version::Run>| {
        let is = |r: &&Arc<Run>| r.level == level && r.of.as_ref().is_some_and(|o| Arc::ptr_eq(o, of));
        known.iter().find(is)
    };
    let kept: Vec<Option<&Arc<Run>>> = levels.runs().map(|(level, run)| same(level, run)).collect();
    let stays = |r: &&Arc<Run>| kept.iter().flatten().any(|k| Arc::ptr_eq(k, r));
    let changed = known.iter().filter(|r| !stays(r));
    let open: HashMap<FileNo, &Arc<Handle>> =
        changed.flat_map(|r| r.tables.iter().map(|t| (t.meta.no, &t.handle))).collect();
    let table = |meta: &Arc<TableMeta>| RunTable {
        meta: meta.clone(),
        handle: match open.get(&meta.no) {
            Some(handle) => (*handle).clone(),
            None => Handle::new(store, meta.no, meta.id, meta.size),
        },
    };
    let made = levels.runs().zip(&kept).map(|((level, run), kept)| match kept {
        Some(kept) => (*kept).clone(),
        None => {
            let tables = run.tables.iter().map(table).collect();
            Arc::new(Run { of: Some(run.clone()), ..Run::new(level, tables) })
        }
    });
    made.collect()
}

/// Walks over a run; opens a table when it comes to it.
pub(crate) struct RunCursor {
    run: Arc<Run>,
    at: usize,
    table: Option<TableCursor>,
    passage: Passage,
    covers: Covers,
}

/// What a walk wants of the tables it comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Passage {
    /// Values that can be shared.
    Shared,
    /// Values until the next step.
    Lent,
    /// Everything, once: by position with read-ahead, past cache and maps.
    Streaming,
}

/// Where range deletes were asked for last.
#[derive(Default)]
struct Covers {
    /// The first table that ends behind the key.
    at: usize,
    /// It, if it holds range deletes and the key.
    table: Option<(usize, Arc<Table>)>,
    /// The fragment in it.
    near: usize,
}

impl RunCursor {
    pub fn new(run: Arc<Run>, passage: Passage) -> RunCursor {
        RunCursor { run, at: 0, table: None, passage, covers: Covers::default() }
    }

    /// A cursor over table `at`; none beyond the last.
    fn open(&mut self, at: usize) -> Result<Option<&mut TableCursor>> {
        if at != self.at || self.table.is_none() {
            self.table = None;
            self.at = at;
            if let Some(t) = self.run.tables.get(at) {
                let table = t.handle.visit()?;
                self.table = Some(match self.passage {
                    Passage::Shared => TableCursor::new(table),
                    Passage::Lent => TableCursor::lending(table),
                    Passage::Streaming => TableCursor::streaming(table),
                });
            }
        }
        Ok(self.table.as_mut())
    }

    /// While the table has run out and there is a next one: to its first entry.
    #[inline]
    fn skip_forward(&mut self) -> Result<()> {
        while self.table.as_ref().is_some_and(|t| !t.valid()) {
            if let Some(table) = self.open(self.at + 1)? {
                table.seek_first()?;
            }
        }
        Ok(())
    }

    #[inline]
    fn skip_backward(&mut self) -> Result<()> {
        while self.table.as_ref().is_some_and(|t| !t.valid()) {
            let Some(before) = self.at.checked_sub(1) else {
                self.table = None;
                return Ok(());
            };
            if let Some(table) = self.open(before)? {
                table.seek_last()?;
            }
        }
        Ok(())
    }

    #[inline]
    fn current(&self) -> &TableCursor {
        self.table.as_ref().expect("asked only while valid")
    }
}

impl Cursor for RunCursor {
    fn seek_first(&mut self) -> Result<()> {
        if let Some(table) = self.open(0)? {
            table.seek_first()?;
        }
        self.skip_forward()
    }

    fn seek_last(&mut self) -> Result<()> {
        let Some(last) = self.run.tables.len().checked_sub(1) else { return Ok(()) };
        if let Some(table) = self.open(last)? {
            table.seek_last()?;
        }
        self.skip_backward()
    }

    fn seek(&mut self, key: &[u8], trailer: Trailer) -> Result<()> {
        let at = self.run.first_ending_after(key);
        if let Some(table) = self.open(at)? {
            table.seek(key, trailer)?;
        }
        self.skip_forward()
    }

    fn approach(&self, key: &[u8], near: Near) {
        if self.passage == Passage::Streaming {
            return;
        }
        let at = self.run.first_ending_after(key);
        let Some(table) = self.run.tables.get(at).and_then(|t| t.handle.opened()) else { return };
        match near {
            Near::Index => table.index().prefetch(key),
            Near::Block => table.prefetch_keys(table.index().find(key)),
        }
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        match self.run.tables.partition_point(|t| *t.meta.smallest < *key).checked_sub(1) {
            Some(at) => {
                if let Some(table) = self.open(at)? {
                    table.seek_before(key)?;
                }
                self.skip_backward()
            }
            None => {
                self.table = None;
                Ok(())
            }
        }
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        if let Some(table) = &mut self.table {
            table.next()?;
        }
        self.skip_forward()
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        if let Some(table) = &mut self.table {
            table.prev()?;
        }
        self.skip_backward()
    }

    #[inline]
    fn valid(&self) -> bool {
        self.table.as_ref().is_some_and(|t| t.valid())
    }

    #[inline]
    fn repeats(&self) -> bool {
        self.current().repeats()
    }

    #[inline]
    fn alone(&self) -> bool {
        self.table.as_ref().is_some_and(TableCursor::alone)
    }

    #[inline]
    fn newer(&mut self) -> Result<Option<Trailer>> {
        self.table.as_mut().map_or(Ok(None), TableCursor::newer)
    }

    #[inline]
    fn key(&self) -> &[u8] {
        self.current().key()
    }

    #[inline]
    fn trailer(&self) -> Trailer {
        self.current().trailer()
    }

    #[inline]
    fn fetch(&mut self) -> Result<()> {
        self.table.as_mut().map_or(Ok(()), TableCursor::fetch)
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.current().value()
    }

    #[inline]
    fn entry(&self) -> (&[u8], &[u8]) {
        self.current().entry()
    }

    fn owner(&self) -> Option<&SharedBytes> {
        self.current().owner()
    }
}

impl Layer for RunCursor {
    fn may_cover(&self) -> bool {
        self.run.range_deletes
    }

    fn around(&mut self, key: &[u8], read: Seq) -> Result<Around<'_>> {
        let (covers, tables) = (&mut self.covers, &self.run.tables);
        covers.at = self.run.first_ending_after(key);
        let Some(table) = tables.get(covers.at).filter(|t| *t.meta.smallest <= *key) else {
            // Between two tables.
            let lower = covers.at.checked_sub(1).and_then(|i| tables[i].meta.end.as_deref());
            let upper = tables.get(covers.at).map(|t| &*t.meta.smallest);
            return Ok(Around { lower: lower.unwrap_or_default(), upper, newest: None });
        };
        let (smallest, end) = (&*table.meta.smallest, table.meta.end.as_deref());
        if table.meta.range_deletes == 0 {
            return Ok(Around::NOTHING.within(smallest, end));
        }
        if covers.table.as_ref().is_none_or(|(at, _)| *at != covers.at) {
            covers.table = Some((covers.at, table.handle.visit()?));
            covers.near = 0;
        }
        let (_, table) = covers.table.as_ref().expect("was just put there");
        Ok(table.tombstones().around(key, read, &mut covers.near).within(smallest, end))
    }

    fn solid(&self, key: &[u8], read: Seq) -> Option<Around<'_>> {
        let (at, table) = self.covers.table.as_ref()?;
        let meta = &self.run.tables.get(*at)?.meta;
        Some(table.tombstones().solid(key, read)?.within(&meta.smallest, meta.end.as_deref()))
    }

    fn max_seq(&self) -> Seq {
        self.run.tables.get(self.covers.at).map_or(Seq::MAX, |t| t.meta.max_seq)
    }
}
