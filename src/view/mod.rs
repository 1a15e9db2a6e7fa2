//! A view: what one keyspace consists of at a moment (its memtables and its runs of tables), and
//! the one read path over it. A view never changes; a new one takes its place whole.

pub(crate) mod many;
pub(crate) mod run;
pub(crate) mod source;

use crate::cursor::Cursor;
use crate::cursor::visible::{Bounds, Visible};
use crate::error::Result;
use crate::ids::{Position, Seq};
use crate::key::{Found, Heads, Kind, Trailer, hash};
use crate::log::head::{self, Head};
use crate::memtable::Memtable;
use crate::mutant::Mutant;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::table::{Pin, Table, TableCursor};
use crate::view::run::{Passage, Run, RunCursor, RunTable};
use crate::view::source::{MemSource, Source};
use std::sync::Arc;

/// A memtable and the oldest journal position it needs.
#[derive(Clone)]
pub(crate) struct Mem {
    pub table: Arc<Memtable>,
    /// Where the first record stands that this memtable took an operation from; `u64::MAX` while
    /// it is empty. Journal segments before it are not needed for it.
    pub pin: Arc<AtomicU64>,
}

impl Mem {
    pub fn new(table: Arc<Memtable>) -> Mem {
        Mem { table, pin: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    /// The oldest journal position this memtable needs; none while it is empty.
    pub fn pinned(&self) -> Option<Position> {
        // Relaxed: whoever frees journal has read the journal's end before it comes here, and the
        // pin was stored before that end was published.
        Some(self.pin.load(Ordering::Relaxed)).filter(|&p| p != u64::MAX).map(Position)
    }
}

/// Memtables and runs of one keyspace, both newest first: of one key, everything in an earlier
/// place is newer than everything in a later one.
pub(crate) struct View {
    /// Never empty; the first is the one written to.
    pub memtables: Vec<Mem>,
    pub runs: Vec<Arc<Run>>,
    /// Everything at or below this is in the runs.
    pub flushed: Seq,
}

/// What a view knows of one key at one sequence number.
pub(crate) enum Lookup<'a> {
    /// No operation on it remains.
    Nothing,
    /// The newest operation is a delete, of the key or of a range around it.
    Deleted(Seq),
    /// The newest operation gave it a value.
    Value(Found<'a>),
}

impl<'a> Lookup<'a> {
    /// The value, if there is one.
    #[inline]
    pub fn value(self) -> Option<Found<'a>> {
        match self {
            Lookup::Value(found) => Some(found),
            _ => None,
        }
    }

    /// The newest operation on the key.
    pub fn seq(&self) -> Option<Seq> {
        match self {
            Lookup::Nothing => None,
            Lookup::Deleted(seq) => Some(*seq),
            Lookup::Value(found) => Some(found.trailer.seq()),
        }
    }

    #[inline]
    fn of(found: Option<Found<'a>>, cover: Option<Seq>) -> Lookup<'a> {
        match (found, cover) {
            (None, None) => Lookup::Nothing,
            (None, Some(cover)) => Lookup::Deleted(cover),
            (Some(f), Some(cover)) if cover > f.trailer.seq() || Mutant::RangeHidesNewer.on() => {
                Lookup::Deleted(cover)
            }
            (Some(f), _) if f.trailer.kind() == Kind::Delete => Lookup::Deleted(f.trailer.seq()),
            (Some(f), _) => Lookup::Value(f),
        }
    }
}

/// What one source knows of a key, if anything.
#[inline]
fn known<'a>(found: Option<Found<'a>>, cover: Option<Seq>) -> Option<Lookup<'a>> {
    (found.is_some() || cover.is_some()).then(|| Lookup::of(found, cover))
}

/// What a table knows of `key`, if anything; `covers`: it may hold range deletes.
#[inline]
fn ask<'a>(
    table: &'a Table,
    covers: bool,
    key: &[u8],
    hash: u64,
    read: Seq,
    pin: &'a mut Pin,
) -> Result<Option<Lookup<'a>>> {
    let cover = if covers { table.tombstones().newest_cover(key, read) } else { None };
    Ok(known(table.get(key, hash, read, pin)?, cover))
}

impl View {
    /// Looks `key` up at `read` and hands the answer to `then`, whose borrow ends with the call.
    ///
    /// Sources are asked newest first; the first that knows the key, or a range delete over it,
    /// decides, for everything behind it is older.
    #[inline]
    pub fn get<R>(&self, key: &[u8], read: Seq, then: impl FnOnce(Lookup<'_>) -> R) -> Result<R> {
        let hash = hash(key);
        if let Some(lookup) = self.in_memory(key, hash, read) {
            return Ok(then(lookup));
        }
        for run in &self.runs {
            let Some(table) = run.find(key) else { continue };
            let (table, mut pin) = (table.handle.table()?, Pin::default());
            if let Some(lookup) = ask(&table, run.range_deletes, key, hash, read, &mut pin)? {
                return Ok(then(lookup));
            }
        }
        Ok(then(Lookup::Nothing))
    }

    /// The head of a log at `read`, of a tree of logs.
    pub fn log_head(&self, log: u64, read: Seq) -> Result<Option<Head>> {
        let row = |found: Lookup<'_>| found.value().map(|found| Head::decode(found.value)).transpose();
        self.get(&head::key(log), read, row)?
    }

    /// What the memtables know of `key`, if anything.
    #[inline]
    fn in_memory(&self, key: &[u8], hash: u64, read: Seq) -> Option<Lookup<'_>> {
        self.memtables.iter().find_map(|mem| {
            let found = mem.table.get_hashed(key, hash, read);
            known(found, mem.table.newest_cover(key, read))
        })
    }

    /// What the memtables alone know of `key`. Never touches a file.
    pub fn newest_in_memory(&self, key: &[u8]) -> Lookup<'_> {
        self.in_memory(key, hash(key), Seq::MAX).unwrap_or(Lookup::Nothing)
    }

    /// Whether the memtables hold an operation newer than `since` on a key of the range.
    pub fn changed_in_memory(&self, start: &[u8], end: Option<&[u8]>, since: Seq) -> bool {
        self.memtables
            .iter()
            .any(|m| m.table.max_seq() > since && m.table.range_changed_since(start, end, since))
    }

    /// Whether any operation newer than `since`, also one that is hidden, touched a key of `bounds`.
    pub fn changed_since(&self, bounds: &Bounds, since: Seq) -> Result<bool> {
        let start = bounds.lower.as_deref().unwrap_or_default();
        let end = bounds.upper.as_deref();
        if self.changed_in_memory(start, end, since) {
            return Ok(true);
        }
        let newer = |t: &&RunTable| t.meta.max_seq > since;
        for table in self.runs.iter().flat_map(|run| run.within(bounds).iter().filter(newer)) {
            let table = table.handle.visit()?;
            if table.tombstones().changed_since(start, end, since) {
                return Ok(true);
            }
            let mut entries = TableCursor::lending(table.clone());
            entries.seek(start, Trailer::newest(Seq::MAX))?;
            while entries.valid() && end.is_none_or(|end| entries.key() < end) {
                if entries.trailer().seq() > since {
                    return Ok(true);
                }
                entries.next()?;
            }
        }
        Ok(false)
    }

    /// The entries within `bounds` that a read at `read` sees. Opens nothing yet.
    pub fn scan(&self, read: Seq, bounds: Arc<Bounds>, passage: Passage) -> Visible<Source> {
        let mut layers = Vec::with_capacity(self.memtables.len() + self.runs.len());
        for mem in &self.memtables {
            if !mem.table.is_empty() {
                layers.push(Source::Mem(MemSource::new(&mem.table)));
            }
        }
        for run in &self.runs {
            if run.overlaps(&bounds) {
                layers.push(Source::Run(RunCursor::new(run.clone(), passage)));
            }
        }
        let heads = self.runs.iter().map(|run| run.heads).reduce(Heads::and).unwrap_or_default();
        Visible::new(layers, heads, read, bounds)
    }
}
