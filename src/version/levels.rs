//! Levels of tables: level 0 is the newest, and of one level its runs descend by age. A run is a
//! list of disjoint tables in key order. Newer versions of a key always stand in an earlier run.

use crate::error::{Error, Result};
use crate::ids::{FileNo, Seq};
use crate::key::MAX_BOUND_LEN;
use std::collections::HashSet;
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

    #[cfg(test)]
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
    /// Entries behind a newer one of the same key.
    pub superseded: u64,
    /// Some stretch of it is nearly nothing but tombstones.
    pub dense: bool,
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
}

impl Run {
    fn new(age: Seq) -> Run {
        Run { age, tables: Vec::new(), bytes: 0 }
    }

    /// The tables that share keys with `span`.
    pub fn overlapping(&self, span: Span<'_>) -> &[Arc<TableMeta>] {
        let ends_before = |t: &Arc<TableMeta>| t.end.as_deref().is_some_and(|end| end <= span.start);
        let rest = &self.tables[self.tables.partition_point(ends_before)..];
        &rest[..rest.partition_point(|t| span.end.is_none_or(|end| *t.smallest < *end))]
    }

    fn insert(&mut self, table: Arc<TableMeta>) -> Result<()> {
        if let Some(other) = self.overlapping(table.span()).first() {
            return Err(Error::corruption(format!(
                "table {} overlaps table {} of the same run",
                table.no, other.no
            )));
        }
        let at = self.tables.partition_point(|t| t.smallest < table.smallest);
        self.bytes = self
            .bytes
            .checked_add(table.size)
            .ok_or_else(|| Error::corruption(format!("table {} is impossibly large", table.no)))?;
        self.tables.insert(at, table);
        Ok(())
    }

    fn remove(&mut self, table: &TableMeta) -> Option<Arc<TableMeta>> {
        let at = self.tables.partition_point(|t| t.smallest < table.smallest);
        if self.tables.get(at)?.no != table.no {
            return None;
        }
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
        let mut seen = HashSet::new();
        for (level, run) in self.runs() {
            let refuse =
                |why: &str| Err(Error::corruption(format!("level {level}, run of age {}: {why}", run.age)));
            if run.tables.is_empty() {
                return refuse("it is empty");
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

impl Levels {
    /// What jobs keep to beyond [`check`](Levels::check), as far as the tables' numbers tell: one run
    /// per level below level 0, and on level 0 nothing older lies above anything newer.
    pub fn check_order(&self) -> Result<()> {
        if let Some(level) = self.levels.iter().skip(1).position(|runs| runs.len() > 1) {
            return Err(Error::corruption(format!("level {} has several runs", level + 1)));
        }
        let mut above = Seq::MAX;
        for run in self.level(0) {
            let newest = run.tables.iter().map(|t| t.max_seq).max().unwrap_or(Seq::ZERO);
            if newest >= above || newest > run.age {
                return Err(Error::corruption(format!("the run of age {} lies too deep", run.age)));
            }
            above = run.tables.iter().map(|t| t.min_seq).min().unwrap_or(above);
        }
        Ok(())
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

#[cfg(test)]
impl Levels {
    /// Reads what [`fmt::Debug`] writes. A table may be followed by `:size` (else 100 bytes).
    pub fn parse(text: &str) -> Result<Levels> {
        let mut levels = Levels::default();
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
            let (head, tables) = line.split_once(':').expect("L0 age 1: tables");
            let (level, age) = head.strip_prefix('L').and_then(|h| h.split_once(" age ")).expect("L0 age 1");
            let age = Seq::new(age.parse().unwrap()).unwrap();
            for table in tables.split_whitespace() {
                levels.insert(level.parse().unwrap(), age, Arc::new(TableMeta::parse(table)))?;
            }
        }
        Ok(levels)
    }
}

#[cfg(test)]
impl TableMeta {
    /// Reads `7[a-c)`, `7[a-..)` or either with `:size`.
    pub fn parse(text: &str) -> TableMeta {
        let (no, rest) = text.split_once('[').expect("no[a-b)");
        let (bounds, size) = rest.split_once(')').expect("no[a-b)");
        let (smallest, end) = bounds.split_once('-').expect("a-b");
        let no = no.parse().unwrap();
        TableMeta {
            no: FileNo(no),
            id: no * 1000,
            size: size.strip_prefix(':').map_or(100, |s| s.parse().unwrap()),
            smallest: smallest.as_bytes().into(),
            end: (end != "..").then(|| end.as_bytes().into()),
            min_seq: Seq::ZERO,
            max_seq: Seq::new(no).unwrap(),
            entries: 1,
            deletes: 0,
            range_deletes: 0,
            raw_bytes: 10,
            superseded: 0,
            dense: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Random(u64);

    impl Random {
        fn below(&mut self, n: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (self.0 >> 33) % n
        }
    }

    #[test]
    fn layouts_come_back_as_text_whatever_the_order_of_insertion() {
        let text = "L0 age 9: 12[b-d)\nL0 age 7: 11[a-c) 10[c-..)\nL2 age 0: 1[-b) 2[b-f) 3[g-x)\n";
        let levels = Levels::parse(text).unwrap();
        levels.check().unwrap();
        assert_eq!(format!("{levels:?}"), text);
        let back: String = text.lines().rev().map(|l| format!("{l}\n")).collect();
        assert_eq!(Levels::parse(&back).unwrap(), levels);
        assert_eq!((levels.bytes(0), levels.bytes(1), levels.bytes(2)), (300, 0, 300));
        assert_eq!((levels.deepest(), levels.level(0).len(), levels.level(200).len()), (Some(2), 2, 0));
        let at = |level, start: &'static str, end: Option<&'static str>| -> Vec<u64> {
            let span = Span { start: start.as_bytes(), end: end.map(str::as_bytes) };
            levels.overlapping(level, span).map(|t| t.no.0).collect()
        };
        assert_eq!(at(0, "b", Some("c")), [12, 11]);
        assert_eq!(at(0, "c", None), [12, 10]);
        assert_eq!(at(2, "f", Some("g")), [0; 0]);
        assert_eq!(at(2, "f", Some("g0")), [3]);
        assert_eq!(at(2, "", Some("")), [0; 0]);
        assert_eq!(at(2, "", Some("b")), [1]);
        assert_eq!(at(2, "x", None), [0; 0]);
    }

    #[test]
    fn what_overlaps_is_refused_and_nothing_changes() {
        let text = "L0 age 7: 11[b-d) 10[f-..)\n";
        let mut levels = Levels::parse(text).unwrap();
        for bad in ["1[a-c)", "1[b-d)", "1[c-c0)", "1[a-..)", "1[z-..)", "1[c-g)", "1[d-f0)"] {
            let table = Arc::new(TableMeta::parse(bad));
            let error = levels.insert(0, Seq::new(7).unwrap(), table.clone()).unwrap_err();
            assert!(error.to_string().contains("overlaps"), "{bad}: {error}");
            assert_eq!(format!("{levels:?}"), text);
            levels.insert(0, Seq::new(8).unwrap(), table.clone()).unwrap();
            assert!(levels.remove(0, Seq::new(7).unwrap(), &table).is_none());
            assert!(levels.remove(0, Seq::new(8).unwrap(), &table).is_some());
            assert_eq!(format!("{levels:?}"), text);
        }
        let table = Arc::new(TableMeta::parse("1[d-f)"));
        assert!(levels.insert(MAX_LEVELS as u8, Seq::ZERO, table.clone()).is_err());
        levels.insert(0, Seq::new(7).unwrap(), table).unwrap();
        assert_eq!(format!("{levels:?}"), "L0 age 7: 11[b-d) 1[d-f) 10[f-..)\n");
        let huge = TableMeta { size: u64::MAX, ..TableMeta::parse("2[a-b)") };
        assert!(levels.insert(0, Seq::new(7).unwrap(), Arc::new(huge)).is_err());
        levels.check().unwrap();
    }

    #[test]
    fn a_clone_does_not_see_later_changes() {
        let text = "L1 age 0: 1[a-b) 2[b-c)\n";
        let mut levels = Levels::parse(text).unwrap();
        let view = levels.clone();
        levels.remove(1, Seq::ZERO, &TableMeta::parse("1[a-b)")).unwrap();
        assert_eq!((format!("{view:?}"), levels.bytes(1)), (text.to_string(), 100));
    }

    #[test]
    fn bad_bounds_and_numbers_are_seen() {
        for bad in ["1[b-b)", "1[b-a)"] {
            assert!(TableMeta::parse(bad).check().is_err(), "{bad}");
        }
        let long = || vec![b'x'; MAX_BOUND_LEN + 1].into_boxed_slice();
        let good = || TableMeta::parse("1[a-..)");
        good().check().unwrap();
        assert!(TableMeta { smallest: long(), ..good() }.check().is_err());
        assert!(TableMeta { end: Some(long()), ..good() }.check().is_err());
        assert!(TableMeta { min_seq: Seq::new(2).unwrap(), ..good() }.check().is_err());
    }

    #[test]
    fn check_sees_each_way_to_be_wrong() {
        let good = Levels::parse("L0 age 2: 1[a-b) 2[b-c)\nL0 age 1: 3[a-b)").unwrap();
        good.check().unwrap();
        let broken: [fn(&mut Levels); 6] = [
            |l| Arc::make_mut(&mut l.levels[0][0]).tables.swap(0, 1),
            |l| Arc::make_mut(&mut l.levels[0][0]).bytes += 1,
            |l| l.levels[0].swap(0, 1),
            |l| l.levels[3] = l.levels[0].clone(),
            |l| l.levels[1].push(Arc::new(Run::new(Seq::ZERO))),
            |l| Arc::make_mut(&mut Arc::make_mut(&mut l.levels[0][0]).tables[0]).end = None,
        ];
        for (i, breaking) in broken.iter().enumerate() {
            let mut bad = good.clone();
            breaking(&mut bad);
            assert!(bad.check().is_err(), "{i}");
        }
    }

    #[test]
    fn an_older_run_above_a_newer_one_is_seen() {
        let levels = |runs: &[(u8, u64, u64, u64)]| {
            let mut levels = Levels::default();
            for (no, &(level, age, min, max)) in (1..).zip(runs) {
                let seq = |n| Seq::new(n).unwrap();
                let table = TableMeta::parse(&format!("{no}[a-b)"));
                let table = TableMeta { min_seq: seq(min), max_seq: seq(max), ..table };
                levels.insert(level, seq(age), Arc::new(table)).unwrap();
            }
            levels.check_order().is_ok()
        };
        assert!(levels(&[(0, 9, 6, 9), (0, 5, 2, 5), (7, 0, 1, 9)]));
        assert!(!levels(&[(0, 9, 5, 9), (0, 5, 2, 5)]));
        assert!(!levels(&[(0, 9, 2, 5), (0, 5, 6, 9)]));
        assert!(!levels(&[(0, 8, 6, 9)]));
        assert!(!levels(&[(6, 8, 6, 9), (6, 0, 1, 2)]));
    }

    #[test]
    fn searches_agree_with_looking_at_every_table() {
        let mut random = Random(7);
        for round in 0..200 {
            let key = |n: u64| format!("{n:02}").into_bytes();
            let mut levels = Levels::default();
            let mut at = random.below(3);
            let mut expect: Vec<TableMeta> = Vec::new();
            while at < 40 {
                let end = at + 1 + random.below(4);
                let last = end >= 40 && random.below(2) == 0;
                let mut table = TableMeta::parse("1[a-b)");
                table.no = FileNo(at + 1);
                table.smallest = key(at).into();
                table.end = (!last).then(|| key(end).into());
                expect.push(table);
                at = end + random.below(3) * random.below(2);
            }
            let mut shuffled: Vec<&TableMeta> = expect.iter().collect();
            for i in (1..shuffled.len()).rev() {
                shuffled.swap(i, random.below(i as u64 + 1) as usize);
            }
            for table in shuffled {
                levels.insert(1, Seq::ZERO, Arc::new(table.clone())).unwrap();
            }
            levels.check().unwrap();
            for _ in 0..50 {
                let (a, b) = (random.below(44), random.below(44));
                let (start, end) = (key(a), key(b));
                let span = Span { start: &start, end: (b < 43).then_some(&end) };
                if span.end.is_some_and(|end| end <= span.start) {
                    continue;
                }
                let naive: Vec<FileNo> =
                    expect.iter().filter(|t| t.span().overlaps(span)).map(|t| t.no).collect();
                let found: Vec<FileNo> = levels.overlapping(1, span).map(|t| t.no).collect();
                assert_eq!(found, naive, "round {round}: {span:?} of {levels:?}");
            }
        }
    }

    #[test]
    fn spans_join_and_overlap() {
        let span = |start: &'static str, end: Option<&'static str>| Span {
            start: start.as_bytes(),
            end: end.map(str::as_bytes),
        };
        assert_eq!(span("b", Some("c")).join(span("a", Some("b"))), span("a", Some("c")));
        assert_eq!(span("b", Some("c")).join(span("x", None)), span("b", None));
        assert!(!span("b", Some("c")).overlaps(span("c", None)) && span("b", None).overlaps(span("z", None)));
        assert!(Span::ALL.contains(b"") && Span::ALL.overlaps(span("", Some("a"))));
        assert!(!span("b", Some("c")).contains(b"c") && span("b", Some("c")).contains(b"b"));
    }
}
