//! Levels of tables: level 0 is the newest, and of one level its runs descend by age. A run is a
//! list of disjoint tables in key order. Newer versions of a key always stand in an earlier run.

use crate::error::{Error, Result};
use crate::ids::{FileNo, Seq};
use crate::key::{self, MAX_BOUND_LEN};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// How many levels there can be.
pub(crate) const MAX_LEVELS: usize = 8;

/// The keys from `start` to before `end`; an end of `None` means "to the last key".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span<'a> {
    pub start: &'a [u8],
    pub end: Option<&'a [u8]>,
}

impl<'a> Span<'a> {
    /// All keys.
    pub const ALL: Span<'static> = Span { start: &[], end: None };

    pub fn contains(&self, key: &[u8]) -> bool {
        self.start <= key && self.reaches_beyond(key)
    }

    pub fn overlaps(&self, other: Span<'_>) -> bool {
        self.reaches_beyond(other.start) && other.reaches_beyond(self.start)
    }

    /// The smallest span that holds both.
    pub fn join(self, other: Span<'a>) -> Span<'a> {
        let end = match (self.end, other.end) {
            (Some(a), Some(b)) => Some(a.max(b)),
            _ => None,
        };
        Span { start: self.start.min(other.start), end }
    }

    /// Whether the end lies behind `key`.
    fn reaches_beyond(&self, key: &[u8]) -> bool {
        self.end.is_none_or(|end| key < end)
    }
}

/// One table: the file, what is in it, and which keys it may answer for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TableMeta {
    pub no: FileNo,
    /// The random id that the table's checksums are seeded with.
    pub id: u64,
    /// The length of the file in bytes.
    pub size: u64,
    /// No key of an entry or start of a range tombstone is smaller.
    pub smallest: Box<[u8]>,
    /// Every key and every range tombstone ends before or here; `None`: to the last key.
    pub end: Option<Box<[u8]>>,
    pub min_seq: Seq,
    pub max_seq: Seq,
    /// Entries, deletes among them included; range tombstones are not entries.
    pub entries: u64,
    pub deletes: u64,
    pub range_deletes: u64,
    /// Keys and values before compression, in bytes.
    pub raw_bytes: u64,
}

impl TableMeta {
    /// The keys it may answer for.
    pub fn span(&self) -> Span<'_> {
        Span { start: &self.smallest, end: self.end.as_deref() }
    }

    /// Whether its numbers can be.
    pub fn check(&self) -> Result<()> {
        let refuse = |why: &str| Err(Error::corruption(format!("table {}: {why}", self.no)));
        if self.smallest.len().max(self.end.as_ref().map_or(0, |e| e.len())) > MAX_BOUND_LEN {
            return refuse("a bound is longer than any key");
        }
        if self.end.as_ref().is_some_and(|end| *end <= self.smallest) {
            return refuse("its bounds are reversed");
        }
        if self.min_seq > self.max_seq {
            return refuse("its sequence numbers are reversed");
        }
        Ok(())
    }
}

/// Disjoint tables in key order, all of one age.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    /// Orders the runs of one level, newest (largest) first.
    pub age: Seq,
    /// Sorted, disjoint: each ends at or before where the next begins.
    pub tables: Vec<Arc<TableMeta>>,
    /// The sizes of all tables.
    pub bytes: u64,
    /// [`key::head`] of each table's smallest key, so that a search reads one array.
    heads: Vec<u64>,
}

impl Run {
    fn new(age: Seq) -> Run {
        Run { age, tables: Vec::new(), bytes: 0, heads: Vec::new() }
    }

    /// How many tables begin before `key`, or at it where `or_at`.
    fn count_before(&self, key: &[u8], or_at: bool) -> usize {
        let head = key::head(key);
        let first = self.heads.partition_point(|&h| h < head);
        // Equal heads decide nothing: there the keys themselves are compared.
        let equal = match self.heads.get(first) {
            Some(&h) if h == head => self.heads[first..].partition_point(|&h| h == head),
            _ => return first,
        };
        let before = |t: &Arc<TableMeta>| if or_at { *t.smallest <= *key } else { *t.smallest < *key };
        first + self.tables[first..first + equal].partition_point(before)
    }

    /// The one table that may hold `key`.
    #[inline]
    pub fn find(&self, key: &[u8]) -> Option<&Arc<TableMeta>> {
        let table = self.tables.get(self.count_before(key, true).checked_sub(1)?)?;
        table.end.as_ref().is_none_or(|end| *key < **end).then_some(table)
    }

    /// The tables that share keys with `span`.
    pub fn overlapping(&self, span: Span<'_>) -> &[Arc<TableMeta>] {
        let mut first = self.count_before(span.start, true);
        if first > 0 && self.tables[first - 1].span().overlaps(span) {
            first -= 1;
        }
        let last = span.end.map_or(self.tables.len(), |end| self.count_before(end, false));
        &self.tables[first..last.max(first)]
    }

    /// The keys from the first table's to the last table's.
    pub fn span(&self) -> Option<Span<'_>> {
        let (first, last) = (self.tables.first()?, self.tables.last()?);
        Some(Span { start: &first.smallest, end: last.end.as_deref() })
    }

    fn insert(&mut self, table: Arc<TableMeta>) -> Result<()> {
        if let Some(other) = self.overlapping(table.span()).first() {
            return Err(Error::corruption(format!(
                "table {} overlaps table {} of the same run",
                table.no, other.no
            )));
        }
        let at = self.count_before(&table.smallest, true);
        self.bytes = self
            .bytes
            .checked_add(table.size)
            .ok_or_else(|| Error::corruption(format!("table {} is impossibly large", table.no)))?;
        self.heads.insert(at, key::head(&table.smallest));
        self.tables.insert(at, table);
        Ok(())
    }

    fn remove(&mut self, table: &TableMeta) -> Option<Arc<TableMeta>> {
        let at = self.count_before(&table.smallest, false);
        if self.tables.get(at)?.no != table.no {
            return None;
        }
        self.heads.remove(at);
        let removed = self.tables.remove(at);
        self.bytes -= removed.size;
        Some(removed)
    }
}

/// All tables of one keyspace. Cheap to clone: runs are shared until one of the two changes.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Levels {
    levels: [Vec<Arc<Run>>; MAX_LEVELS],
}

impl Levels {
    pub fn is_empty(&self) -> bool {
        self.levels.iter().all(Vec::is_empty)
    }

    /// The runs of one level, newest first; empty beyond the last level.
    pub fn level(&self, level: u8) -> &[Arc<Run>] {
        self.levels.get(usize::from(level)).map_or(&[], Vec::as_slice)
    }

    /// All runs with their levels, newest first.
    pub fn runs(&self) -> impl DoubleEndedIterator<Item = (u8, &Arc<Run>)> {
        let levels = self.levels.iter().enumerate();
        levels.flat_map(|(level, runs)| runs.iter().map(move |run| (level as u8, run)))
    }

    /// All tables with their levels, newest run first.
    pub fn tables(&self) -> impl Iterator<Item = (u8, &Arc<TableMeta>)> {
        self.runs().flat_map(|(level, run)| run.tables.iter().map(move |t| (level, t)))
    }

    /// The sizes of the tables of one level.
    pub fn bytes(&self, level: u8) -> u64 {
        self.level(level).iter().fold(0, |sum, run| sum.saturating_add(run.bytes))
    }

    /// The tables of one level that share keys with `span`, newest run first.
    pub fn overlapping(&self, level: u8, span: Span<'_>) -> impl Iterator<Item = &Arc<TableMeta>> {
        self.level(level).iter().flat_map(move |run| run.overlapping(span))
    }

    /// The deepest level that holds a table.
    pub fn deepest(&self) -> Option<u8> {
        (0u8..).zip(&self.levels).filter(|(_, runs)| !runs.is_empty()).map(|(level, _)| level).last()
    }

    /// Adds a table to the run of that age, which is made if need be. On an error nothing changed.
    pub fn insert(&mut self, level: u8, age: Seq, table: Arc<TableMeta>) -> Result<()> {
        let runs = self
            .levels
            .get_mut(usize::from(level))
            .ok_or_else(|| Error::corruption(format!("table {} is on level {level}", table.no)))?;
        let at = runs.partition_point(|run| run.age > age);
        match runs.get_mut(at) {
            Some(run) if run.age == age => Arc::make_mut(run).insert(table),
            _ => {
                let mut run = Run::new(age);
                run.insert(table)?;
                runs.insert(at, Arc::new(run));
                Ok(())
            }
        }
    }

    /// Takes a table out of the run of that age; an empty run goes with it.
    pub fn remove(&mut self, level: u8, age: Seq, table: &TableMeta) -> Option<Arc<TableMeta>> {
        let runs = self.levels.get_mut(usize::from(level))?;
        let at = runs.iter().position(|run| run.age == age)?;
        let removed = Arc::make_mut(&mut runs[at]).remove(table)?;
        if runs[at].tables.is_empty() {
            runs.remove(at);
        }
        Some(removed)
    }

    /// Whether all that should hold does. Linear; for tests and verification, since every change
    /// is checked as it is made.
    pub fn check(&self) -> Result<()> {
        let mut seen = BTreeSet::new();
        for (level, run) in self.runs() {
            let refuse =
                |why: &str| Err(Error::corruption(format!("level {level}, run of age {}: {why}", run.age)));
            if run.tables.is_empty() {
                return refuse("it is empty");
            }
            if run.heads.len() != run.tables.len()
                || run.heads.iter().zip(&run.tables).any(|(&h, t)| h != key::head(&t.smallest))
            {
                return refuse("its heads are not those of its tables");
            }
            if run.bytes != run.tables.iter().map(|t| t.size).sum() {
                return refuse("its size is not the sum of its tables");
            }
            for table in &run.tables {
                table.check()?;
                if !seen.insert(table.no) {
                    return refuse(&format!("table {} stands in two places", table.no));
                }
            }
            let apart = |w: &[Arc<TableMeta>]| w[0].end.as_ref().is_some_and(|end| *end <= w[1].smallest);
            if !run.tables.windows(2).all(apart) {
                return refuse("its tables overlap or are out of order");
            }
        }
        match self.levels.iter().all(|runs| runs.is_sorted_by(|a, b| a.age > b.age)) {
            true => Ok(()),
            false => Err(Error::corruption("the runs of a level do not descend by age")),
        }
    }
}

/// One line per run, for tests and messages.
impl fmt::Debug for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (level, run) in self.runs() {
            write!(f, "L{level} age {}:", run.age)?;
            for t in &run.tables {
                let end = t.end.as_ref().map_or("..".into(), |e| e.escape_ascii().to_string());
                write!(f, " {}[{}-{end})", t.no.0, t.smallest.escape_ascii())?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
