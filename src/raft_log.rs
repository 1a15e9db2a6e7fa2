//! A Raft log on Esker: what the store of a Raft library has to do, for no library in particular.
//!
//! [`RaftLogs`] are the Raft groups of a node, any number of them in one database: each is a log, whose
//! tags are terms, and a few rows beside it (what it voted, what is committed, what was purged last).
//! Everything is written by a [`Batch`] that the caller commits: one batch, one append to the journal and
//! one sync serve any number of groups, their votes, and whatever else is put in it.
//!
//! ```
//! use esker::raft_log::{LogId, RaftLogs, Row};
//! use esker::{Db, Durability, Options};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir().unwrap();
//! let db = Db::open(dir.path(), Options::default())?;
//! let groups = RaftLogs::open(&db, "raft")?;
//! let (a, b) = (groups.group(1), groups.group(2));
//!
//! // A vote and the entries of two groups, durable with one sync.
//! let mut batch = db.batch();
//! a.append(&mut batch, LogId::new(0, 1), "first").append(&mut batch, LogId::new(1, 1), "second");
//! b.append(&mut batch, LogId::new(0, 7), "other").set(&mut batch, Row::Vote, 7u64.to_le_bytes());
//! batch.commit()?;
//!
//! // A new leader overwrites the end: cut and appended in one batch. That an entry is committed need not
//! // be synced; it is with the next batch that is.
//! a.truncate(&mut batch, 1).append(&mut batch, LogId::new(1, 2), "2nd").commit_index(&mut batch, 1);
//! batch.commit_with(Durability::Buffered)?;
//! assert_eq!(a.term(1)?, 2);
//! assert_eq!(a.entries(0..2, usize::MAX)?[1].bytes(), b"2nd");
//!
//! // A snapshot was taken: what it holds goes, its last id stays.
//! a.purge(&mut batch, LogId::new(0, 1))?;
//! batch.commit_with(Durability::Buffered)?;
//! let state = a.state()?;
//! assert_eq!((state.purged, state.last), (Some(LogId::new(0, 1)), Some(LogId::new(1, 2))));
//! # Ok(())
//! # }
//! ```
//!
//! # What a Raft library is promised
//!
//! - What a commit wrote is readable when it returns, also a [`Buffered`](crate::Durability::Buffered)
//!   one and a submitted one, and durable when a [`Sync`](crate::Durability::Sync) commit returns or the
//!   [`Ticket`](crate::Ticket) completes. Votes and entries must be that before they are acknowledged to
//!   others; commit indexes, purges and truncations need not.
//! - All commits are in one order, and what a crash leaves is a prefix of it: a vote never survives
//!   without the entries that were committed before it, nor an append without the cut before it.
//! - Appending never cuts, and never leaves a hole: an entry anywhere but at the end fails the commit with
//!   [`Conflict`](crate::ErrorKind::Conflict), and nothing is written. Where entries may have to be
//!   overwritten, [truncate](RaftLog::truncate) in the same batch.
//! - Each group has one writer. [`purge`](RaftLog::purge) and [`reset`](RaftLog::reset) look at the log
//!   before they write, and two of them at once would not know of each other.
//!
//! # Format
//!
//! Logs `NAME`, log = group; and a keyspace `NAME rows`:
//!
//! ```text
//! key    group u64, big-endian | row u8 (0 vote, 1 committed, 2 purged, 3 user) | number of a user row u8, else 0
//! value  the caller's bytes; what `commit_index` writes: index u64, little-endian
//! ```

// Written against what lib.rs re-exports, and nothing else.
use crate::db::handle::{Db, Keyspace};
use crate::db::logs::{Log, LogEntry, LogIter, Logs, TagRun};
use crate::db::range::Prefix;
use crate::db::write::Batch;
use crate::error::{self, ErrorKind};
use crate::value::Value;
use std::fmt;
use std::ops::Range;

/// The place of an entry in a Raft log: its index, and the term it was written in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LogId {
    /// Where it is.
    pub index: u64,
    /// When it was proposed.
    pub term: u64,
}

impl LogId {
    /// The id of the entry `index` of `term`.
    pub fn new(index: u64, term: u64) -> LogId {
        LogId { index, term }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of term {}", self.index, self.term)
    }
}

/// Why an entry, or its term, could not be read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// It was purged: a snapshot has what is wanted.
    Purged {
        /// The first entry that is there.
        first: u64,
    },
    /// It is not there yet.
    Beyond {
        /// Where the log ends.
        next: u64,
    },
    /// The database failed.
    Engine(error::Error),
}

/// What reading entries and terms returns.
pub type Result<T> = std::result::Result<T, Error>;

impl From<error::Error> for Error {
    fn from(e: error::Error) -> Error {
        Error::Engine(e)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Purged { first } => write!(f, "entries before {first} were purged"),
            Error::Beyond { next } => write!(f, "the log ends before {next}"),
            Error::Engine(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Engine(e) => Some(e),
            _ => None,
        }
    }
}

/// What is kept beside the entries of a group: bytes, since libraries differ in what they vote for and by
/// what they know a leader.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Row {
    /// The vote, or the hard state. To be durable before anybody hears of it.
    Vote,
    /// What is known to be committed. Need not be synced. [`RaftLog::commit_index`] writes it as a number.
    Committed,
    /// Whatever else is to be remembered of the last purged entry: who was the leader.
    Purged,
    /// Anything else: the members, what the last snapshot was.
    User(u8),
}

/// Where a Raft log begins and ends.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct State {
    /// The last entry that was purged, if any was and its term is known.
    pub purged: Option<LogId>,
    /// The entries there are.
    pub bounds: Range<u64>,
    /// The last entry, the purged one if there is no other.
    pub last: Option<LogId>,
}

/// The Raft groups of a node. A cheap handle; see the [module](self).
#[derive(Clone, Debug)]
pub struct RaftLogs {
    logs: Logs,
    rows: Keyspace,
}

/// One Raft group. A cheap handle; it costs nothing to name one, and nothing is there until it is
/// written to.
///
/// What writes takes the batch to write with, and answers the group: calls can be chained.
#[derive(Clone, Debug)]
pub struct RaftLog {
    log: Log,
    rows: Keyspace,
}

impl RaftLogs {
    /// Opens the Raft groups called `name` in `db`, or makes them.
    pub fn open(db: &Db, name: &str) -> error::Result<RaftLogs> {
        Ok(RaftLogs { logs: db.logs(name)?, rows: db.keyspace(&format!("{name} rows"))? })
    }

    /// The group of this number.
    pub fn group(&self, id: u64) -> RaftLog {
        RaftLog { log: self.logs.log(id), rows: self.rows.clone() }
    }

    /// The groups whose log was written to, and not removed since.
    pub fn iter(&self) -> impl Iterator<Item = error::Result<RaftLog>> + use<> {
        let rows = self.rows.clone();
        let logs: LogIter = self.logs.iter();
        logs.map(move |log| Ok(RaftLog { log: log?, rows: rows.clone() }))
    }

    /// The database they are in.
    pub fn db(&self) -> &Db {
        self.logs.db()
    }
}

/// Reading.
impl RaftLog {
    /// The number of the group.
    pub fn id(&self) -> u64 {
        self.log.id()
    }

    /// The log itself.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The database it is in.
    pub fn db(&self) -> &Db {
        self.rows.db()
    }

    /// The entries there are: [`Log::bounds`].
    pub fn bounds(&self) -> error::Result<Range<u64>> {
        self.log.bounds()
    }

    /// Bounds and ids, of one moment. Reads no entry.
    pub fn state(&self) -> error::Result<State> {
        let log = self.log.at(&self.db().snapshot());
        let bounds = log.bounds()?;
        let id = |next: u64| -> error::Result<Option<LogId>> {
            let Some(index) = next.checked_sub(1) else { return Ok(None) };
            Ok(log.tag(index)?.map(|term| LogId { index, term }))
        };
        Ok(State { purged: id(bounds.start)?, last: id(bounds.end)?, bounds })
    }

    /// The term of an entry, also of the last purged one. Reads no entry.
    pub fn term(&self, index: u64) -> Result<u64> {
        match self.log.tag(index) {
            Ok(Some(term)) => Ok(term),
            Ok(None) => Err(self.missing(index)?),
            Err(e) => Err(self.why(e, index)),
        }
    }

    /// The entries in `range`, as many as have at most `max_bytes` together, but at least one. All of
    /// `range` must be there.
    pub fn entries(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<LogEntry>> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let bounds = self.bounds()?;
        if range.start < bounds.start || range.end > bounds.end {
            return Err(self.missing(if range.start < bounds.start {
                range.start
            } else {
                range.end - 1
            })?);
        }
        match self.log.read(range.clone(), max_bytes) {
            // Purged or cut in between.
            Ok(read) if read.first().map(LogEntry::index) != Some(range.start) => {
                Err(self.missing(range.start)?)
            }
            read => read.map_err(|e| self.why(e, range.start)),
        }
    }

    /// The entry `index`.
    pub fn entry(&self, index: u64) -> Result<LogEntry> {
        match self.log.get(index) {
            Ok(Some(entry)) => Ok(entry),
            Ok(None) => Err(self.missing(index)?),
            Err(e) => Err(self.why(e, index)),
        }
    }

    /// The terms of all entries in `range`, as runs: where each leader began. Reads no entry.
    pub fn term_runs(&self, range: Range<u64>) -> Result<Vec<TagRun>> {
        self.log.tag_runs(range.clone()).map_err(|e| self.why(e, range.start))
    }

    /// What was [set](RaftLog::set).
    pub fn row(&self, row: Row) -> error::Result<Option<Value>> {
        self.rows.get(self.key(row))
    }

    /// What [`commit_index`](RaftLog::commit_index) wrote.
    pub fn committed(&self) -> error::Result<Option<u64>> {
        let row = self.row(Row::Committed)?;
        Ok(row.and_then(|row| row.first_chunk().copied()).map(u64::from_le_bytes))
    }

    /// Why the entry `index` is not there.
    fn missing(&self, index: u64) -> error::Result<Error> {
        let Range { start: first, end: next } = self.bounds()?;
        Ok(if index < first { Error::Purged { first } } else { Error::Beyond { next } })
    }

    /// The entry `index`, or one behind it, went while it was read: it was purged, or cut off.
    fn why(&self, e: error::Error, index: u64) -> Error {
        if e.kind() == ErrorKind::Gone { self.missing(index).unwrap_or_else(Error::Engine) } else { e.into() }
    }

    fn key(&self, row: Row) -> [u8; 10] {
        let (kind, n) = match row {
            Row::Vote => (0, 0),
            Row::Committed => (1, 0),
            Row::Purged => (2, 0),
            Row::User(n) => (3, n),
        };
        let mut out = [0, 0, 0, 0, 0, 0, 0, 0, kind, n];
        out[..8].copy_from_slice(&self.id().to_be_bytes());
        out
    }
}

/// Writing.
impl RaftLog {
    /// Adds an entry at the end, which must be at its index; else the commit fails with
    /// [`Conflict`](crate::ErrorKind::Conflict).
    pub fn append(&self, batch: &mut Batch, id: LogId, bytes: impl AsRef<[u8]>) -> &Self {
        batch.append(&self.log, id.index, id.term, bytes);
        self
    }

    /// Cuts off the entries from `from` on, before whatever the batch appends after this. Nothing
    /// happens where the log ends at `from`; the commit fails with
    /// [`Conflict`](crate::ErrorKind::Conflict) if it ends earlier, or was purged beyond it.
    pub fn truncate(&self, batch: &mut Batch, from: u64) -> &Self {
        batch.truncate(&self.log, from);
        self
    }

    /// Lets go of the entries up to `upto`, inclusive, once a snapshot holds them. Beyond the end of
    /// the log it is a [`reset`](RaftLog::reset); below its beginning nothing happens. Need not be synced.
    pub fn purge(&self, batch: &mut Batch, upto: LogId) -> error::Result<&Self> {
        let bounds = self.bounds()?;
        match upto.index.checked_add(1) {
            Some(before) if before <= bounds.end => {
                batch.purge(&self.log, before);
            }
            _ => {
                batch.require_next(&self.log, bounds.end);
                self.reset(batch, upto);
            }
        }
        Ok(self)
    }

    /// Empties the log and has it go on behind `last`: a snapshot was installed that ends there, or the
    /// library counts from another number than 0.
    pub fn reset(&self, batch: &mut Batch, last: LogId) -> &Self {
        batch.reset(&self.log, last.index.saturating_add(1), last.term);
        self
    }

    /// Keeps `bytes` beside the entries.
    pub fn set(&self, batch: &mut Batch, row: Row, bytes: impl AsRef<[u8]>) -> &Self {
        batch.put(&self.rows, self.key(row), bytes);
        self
    }

    /// Takes a row away.
    pub fn unset(&self, batch: &mut Batch, row: Row) -> &Self {
        batch.delete(&self.rows, self.key(row));
        self
    }

    /// Remembers that all entries up to `index` are committed.
    pub fn commit_index(&self, batch: &mut Batch, index: u64) -> &Self {
        self.set(batch, Row::Committed, index.to_le_bytes())
    }

    /// Forgets the group: its entries and its rows.
    pub fn remove(&self, batch: &mut Batch) -> &Self {
        batch.remove(&self.log).delete_range(&self.rows, Prefix(self.id().to_be_bytes()));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::sim::SimFs;
    use crate::options::{Durability, Options};
    use std::sync::Arc;

    fn open(disk: &SimFs) -> (Db, RaftLogs) {
        let options = Options::default().workers(0).segment_bytes(16 << 10).fs(Arc::new(disk.clone()));
        let db = Db::open("/db", options).unwrap();
        let groups = RaftLogs::open(&db, "raft").unwrap();
        (db, groups)
    }

    /// A group of the entries 0..n, three to a term.
    fn filled(groups: &RaftLogs, id: u64, n: u64) -> RaftLog {
        let (mut batch, group) = (groups.db().batch(), groups.group(id));
        for i in 0..n {
            group.append(&mut batch, LogId::new(i, i / 3), i.to_string());
        }
        batch.commit().unwrap();
        group
    }

    fn purged_before(result: Result<impl fmt::Debug>) -> u64 {
        match result.unwrap_err() {
            Error::Purged { first } => first,
            e => panic!("{e}"),
        }
    }

    fn ends_before(result: Result<impl fmt::Debug>) -> u64 {
        match result.unwrap_err() {
            Error::Beyond { next } => next,
            e => panic!("{e}"),
        }
    }

    #[test]
    fn a_group_from_its_first_entry_to_its_removal() {
        let (db, groups) = open(&SimFs::new(1));
        let none = groups.group(9);
        assert_eq!((none.state().unwrap(), none.row(Row::Vote).unwrap()), (State::default(), None));
        assert_eq!((ends_before(none.term(0)), ends_before(none.entries(0..1, 9))), (0, 0));
        let a = filled(&groups, 1, 10);
        let last = Some(LogId::new(9, 3));
        assert_eq!(a.state().unwrap(), State { purged: None, bounds: 0..10, last });
        assert_eq!((a.term(5).unwrap(), ends_before(a.term(10))), (1, 10));
        assert_eq!(a.entry(4).unwrap().bytes(), b"4");
        assert_eq!((a.entries(2..9, 3).unwrap().len(), a.entries(2..9, 0).unwrap().len()), (3, 1));
        assert_eq!((a.entries(4..4, 0).unwrap().len(), ends_before(a.entries(8..11, 99))), (0, 10));
        let runs = a.term_runs(0..10).unwrap();
        let runs: Vec<_> = runs.into_iter().map(|run| (run.range.start, run.tag)).collect();
        assert_eq!(runs, [(0, 0), (3, 1), (6, 2), (9, 3)]);

        let mut batch = db.batch();
        a.purge(&mut batch, LogId::new(4, 1)).unwrap().set(&mut batch, Row::Purged, "node 3");
        batch.commit().unwrap();
        assert_eq!(a.state().unwrap(), State { purged: Some(LogId::new(4, 1)), bounds: 5..10, last });
        assert_eq!((a.term(4).unwrap(), purged_before(a.term(3)), purged_before(a.entry(4))), (1, 5, 5));
        assert_eq!((purged_before(a.entries(4..6, 9)), a.row(Row::Purged).unwrap().unwrap().len()), (5, 6));
        // Again, and below: nothing. All of it: the last id stays.
        for index in [4, 2, 9] {
            a.purge(&mut batch, LogId::new(index, 3)).unwrap();
            batch.commit().unwrap();
        }
        assert_eq!(a.state().unwrap(), State { purged: last, bounds: 10..10, last });
        // Beyond the end.
        a.purge(&mut batch, LogId::new(20, 5)).unwrap().append(&mut batch, LogId::new(21, 6), "x");
        batch.commit().unwrap();
        assert_eq!((a.term(20).unwrap(), a.bounds().unwrap()), (5, 21..22));

        let b = filled(&groups, 2, 1);
        a.commit_index(&mut batch, 21).set(&mut batch, Row::User(7), "members");
        b.set(&mut batch, Row::User(7), "others");
        batch.commit().unwrap();
        assert_eq!((a.committed().unwrap(), b.committed().unwrap()), (Some(21), None));
        let ids = || groups.iter().map(|group| group.unwrap().id()).collect::<Vec<_>>();
        assert_eq!(ids(), [1, 2]);
        a.remove(&mut batch);
        batch.commit().unwrap();
        assert_eq!((a.state().unwrap(), a.committed().unwrap(), ids()), (State::default(), None, vec![2]));
        assert_eq!(b.row(Row::User(7)).unwrap().unwrap(), *b"others");
        b.unset(&mut batch, Row::User(7));
        batch.commit().unwrap();
        assert_eq!(b.row(Row::User(7)).unwrap(), None);
    }

    #[test]
    fn what_would_leave_a_hole_or_erase_is_refused_whole() {
        let (db, groups) = open(&SimFs::new(1));
        let a = filled(&groups, 1, 5);
        let mut batch = db.batch();
        for index in [4, 6] {
            a.append(&mut batch, LogId::new(index, 9), "x").set(&mut batch, Row::Vote, "v");
            assert!(batch.commit().unwrap_err().is_conflict());
            batch.clear();
        }
        a.truncate(&mut batch, 6);
        assert!(batch.commit().unwrap_err().is_conflict());
        batch.clear();
        assert_eq!((a.bounds().unwrap(), a.row(Row::Vote).unwrap()), (0..5, None));
        // Somebody else appends between the look and the write.
        a.purge(&mut batch, LogId::new(7, 2)).unwrap();
        filled_behind(&a);
        assert!(batch.commit().unwrap_err().is_conflict());
        // The end of the world.
        batch.clear();
        a.reset(&mut batch, LogId::new(u64::MAX, 1));
        batch.commit().unwrap();
        assert_eq!(a.bounds().unwrap(), u64::MAX..u64::MAX);
    }

    fn filled_behind(a: &RaftLog) {
        let mut batch = a.db().batch();
        a.append(&mut batch, LogId::new(5, 2), "x");
        batch.commit().unwrap();
    }

    #[test]
    fn votes_and_entries_survive_in_their_order() {
        let disk = SimFs::new(3);
        let (db, groups) = open(&disk);
        let (a, b) = (filled(&groups, 1, 5), filled(&groups, 2, 5));
        let mut batch = db.batch();
        // What is not synced may go, from the end on; what is may not.
        a.truncate(&mut batch, 3).append(&mut batch, LogId::new(3, 8), "new").set(&mut batch, Row::Vote, "8");
        b.append(&mut batch, LogId::new(5, 9), "new");
        batch.commit().unwrap();
        b.commit_index(&mut batch, 5).truncate(&mut batch, 5);
        batch.commit_with(Durability::Buffered).unwrap();
        let mut seen = [false; 2];
        for choice in 0..disk.states_at(disk.ops()) {
            let (_db, groups) = open(&disk.crash(choice));
            let (a, b) = (groups.group(1), groups.group(2));
            assert_eq!((a.bounds().unwrap(), a.term(3).unwrap(), a.term(2).unwrap()), (0..4, 8, 0));
            assert_eq!(a.row(Row::Vote).unwrap().unwrap(), *b"8");
            match b.committed().unwrap() {
                None => assert_eq!((b.bounds().unwrap(), b.term(5).unwrap()), (0..6, 9)),
                Some(5) => assert_eq!(b.bounds().unwrap(), 0..5),
                other => panic!("{other:?}"),
            }
            seen[usize::from(b.committed().unwrap().is_some())] = true;
        }
        assert_eq!(seen, [true; 2]);
    }
}
