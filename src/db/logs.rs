//! Logs, as callers hold them: reading entries, tags and bounds, now and at a snapshot. What is written
//! to them stands in a batch.

use crate::cursor::visible::Bounds;
use crate::db::core::Core;
use crate::db::handle::Db;
use crate::db::registry::empty_tree;
use crate::db::scan::{Iter, Scanned};
use crate::db::snapshot::Snapshot;
use crate::db::tree::{Slot, Tree, dropped};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::Seq;
use crate::log::extent::{Extent, LogKey};
use crate::log::head::{self, Head};
use crate::log::index::Found;
use crate::log::segment::Op;
use crate::mutant::Mutant;
use crate::value::Value;
use std::fmt;
use std::iter::FusedIterator;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

/// Any number of logs in a database, addressed by `u64`: dense sequences of entries, each a byte string
/// with a number of its own (its index) and a tag (for a Raft log: the term).
///
/// A cheap handle; it keeps the database open. It costs nothing to name a log, and nothing is there until
/// it is written to, by a [`Batch`](crate::Batch).
///
/// ```
/// # fn main() -> esker::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = esker::Db::open(dir.path(), esker::Options::default())?;
/// let raft = db.logs("raft")?;
/// let log = raft.log(7);
/// let mut batch = db.batch();
/// batch.append(&log, 0, 1, "first").push(&log, 1, "second");
/// batch.commit()?;
/// assert_eq!(log.bounds()?, 0..2);
/// assert_eq!(log.get(1)?.unwrap().bytes(), b"second");
/// batch.purge(&log, 1).commit()?;
/// assert_eq!((log.bounds()?, log.tag(0)?), (1..2, Some(1)));
/// # Ok(())
/// # }
/// ```
///
/// **What survives** is as for every other operation of a batch: what was committed synced is there after a
/// power loss, and of the rest a prefix, in the one order of all commits.
///
/// **Costs.** An entry, of at most [`MAX_VALUE_LEN`](crate::MAX_VALUE_LEN) bytes, is written once, to the journal,
/// and again only when most of what was written beside it is gone. What tags, cuts or purges reads and writes no
/// entry. In memory are where runs of entries lie, and the newest entries.
///
/// **Errors.** An entry that is not at the end, and a cut or purge out of bounds, are a
/// [`Conflict`](ErrorKind::Conflict) of the commit, which then writes nothing. A damaged entry is a
/// [`Corruption`](ErrorKind::Corruption) of its own read, with file and offset; one that is missing is
/// one of opening the database. Neither makes a log shorter.
#[derive(Clone)]
pub struct Logs {
    pub(crate) db: Db,
    pub(crate) slot: Arc<Slot>,
}

/// One log: its entries are `first..next` by index. A cheap handle.
///
/// Each call reads one state. Entries that are cut off or purged while a call, or a walk, reads them are
/// [`Gone`](ErrorKind::Gone): none is skipped, and none is taken for another.
#[derive(Clone)]
pub struct Log {
    pub(crate) logs: Logs,
    id: u64,
}

/// A log as it was at a [`Snapshot`]: its bounds and tags of then. An entry that was purged or cut off
/// since is [`Gone`](ErrorKind::Gone): snapshots keep no entries. Owned; it keeps the snapshot.
#[derive(Clone)]
pub struct LogView {
    snapshot: Snapshot,
    tree: Result<Arc<Tree>>,
    id: u64,
}

impl Logs {
    /// The name.
    pub fn name(&self) -> &str {
        self.slot.key.get(1..).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default()
    }

    /// The database they belong to.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// The log of this number. No I/O, and nothing is made.
    pub fn log(&self, id: u64) -> Log {
        Log { logs: self.clone(), id }
    }

    /// The logs that were written to and not removed, in the order of their numbers; also those that are
    /// empty by now.
    pub fn iter(&self) -> LogIter {
        LogIter { rows: Iter::new(self.rows()), logs: self.clone(), failed: false }
    }

    fn rows(&self) -> Result<Scanned> {
        let core: &Core = self.db.core();
        core.open()?;
        core.relieve();
        let tree = self.slot.tree.load();
        let view = tree.as_ref().ok_or_else(dropped)?.view.load_full();
        Ok(Scanned::new(view, core.snapshots.visible(), Bounds::default()))
    }
}

impl IntoIterator for &Logs {
    type Item = Result<Log>;
    type IntoIter = LogIter;

    fn into_iter(self) -> LogIter {
        self.iter()
    }
}

impl Log {
    /// The number of the log.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The logs it is one of.
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// The log as it was at `snapshot`.
    pub fn at(&self, snapshot: &Snapshot) -> LogView {
        let tree = if Arc::ptr_eq(self.logs.db.core(), snapshot.core()) {
            match self.logs.slot.tree_at(snapshot.seq()) {
                Ok(tree) => tree.ok_or_else(dropped),
                // Made after the snapshot: empty then.
                Err(_) => Ok(empty_tree()),
            }
        } else {
            Err(Error::invalid("the snapshot belongs to another database"))
        };
        LogView { snapshot: snapshot.clone(), tree, id: self.id }
    }

    /// One state of the log. In this order, as every read: see `db/read.rs`.
    fn state(&self) -> Result<State> {
        let core = self.logs.db.core();
        core.open()?;
        core.reading(|| {
            let tree = self.logs.slot.tree.load_full().ok_or_else(dropped)?;
            let view = tree.view.load();
            let seq = core.snapshots.visible();
            let head = view.log_head(self.id, seq)?;
            Ok(State { core: core.clone(), key: (tree.id, self.id), seq, head: head.unwrap_or_default() })
        })
    }
}

impl LogView {
    /// The number of the log.
    pub fn id(&self) -> u64 {
        self.id
    }

    fn state(&self) -> Result<State> {
        let tree = self.tree.as_ref().map_err(Error::clone)?;
        let (core, seq) = (self.snapshot.core(), self.snapshot.seq());
        core.reading(|| {
            let head = tree.view.load().log_head(self.id, seq)?;
            Ok(State { core: core.clone(), key: (tree.id, self.id), seq, head: head.unwrap_or_default() })
        })
    }
}

/// A log at a sequence number.
struct State {
    core: Arc<Core>,
    key: LogKey,
    seq: Seq,
    head: Head,
}

/// An operation that was read.
struct Loaded {
    found: Found,
    /// `None`: it is too large, and read entry by entry.
    op: Option<Op>,
}

impl State {
    /// What of `range` the log has.
    fn clamp(&self, range: impl RangeBounds<u64>) -> Range<u64> {
        let Head { first, next, .. } = self.head;
        let start = match range.start_bound() {
            Bound::Included(&n) => n,
            Bound::Excluded(&n) => n.saturating_add(1),
            Bound::Unbounded => first,
        };
        let end = match range.end_bound() {
            Bound::Included(&n) => n.saturating_add(1),
            Bound::Excluded(&n) => n,
            Bound::Unbounded => next,
        };
        let start = start.clamp(first, next);
        start..end.clamp(start, next)
    }

    /// Where the entry `index` is, which was there at this state.
    fn find(&self, index: u64) -> Result<Found> {
        let (found, _) = self.core.logs.find(self.key, index)?.ok_or_else(|| self.gone(index))?;
        // Appended anew since.
        let newer = found.extent.seq > self.seq && !Mutant::SnapshotTakesNewer.on();
        if newer { Err(self.gone(index)) } else { Ok(found) }
    }

    fn gone(&self, index: u64) -> Error {
        let log = self.key.1;
        Error::new(ErrorKind::Gone, format!("entry {index} of log {log} was purged or cut off since"))
    }

    fn tag(&self, index: u64) -> Result<Option<u64>> {
        let Head { first, next, before, last } = self.head;
        match index.checked_add(1) {
            Some(end) if end == first => Ok(before),
            Some(end) if end == next => Ok(last),
            Some(end) if (first..next).contains(&index) && end < next => {
                self.find(index).map(|found| Some(found.extent.tag))
            }
            _ => Ok(None),
        }
    }

    fn tag_runs(&self, range: impl RangeBounds<u64>) -> Result<Vec<TagRun>> {
        let mut runs: Vec<TagRun> = Vec::new();
        let Range { start: mut at, end } = self.clamp(range);
        while at < end {
            let extent = self.find(at)?.extent;
            let next = extent.next().min(end);
            match runs.last_mut().filter(|run| run.tag == extent.tag) {
                Some(run) => run.range.end = next,
                None => runs.push(TagRun { range: at..next, tag: extent.tag }),
            }
            at = next;
        }
        Ok(runs)
    }

    /// Reads the operation that the entry is part of. It may move to another segment just now.
    fn load(&self, index: u64) -> Result<Loaded> {
        let found = self.find(index)?;
        match self.load_op(&found, index) {
            Err(_) if self.find(index).map_or(true, |now| now.segment.no != found.segment.no) => {
                let found = self.find(index)?;
                self.load_op(&found, index).map(|op| Loaded { found, op })
            }
            loaded => loaded.map(|op| Loaded { found, op }),
        }
    }

    /// Reads the operation that stands where the entry was found.
    fn load_op(&self, found: &Found, index: u64) -> Result<Option<Op>> {
        let Found { segment, extent } = found;
        let logs = &self.core.logs;
        let position = segment.start.map(|start| start.plus(extent.offset.into()));
        let held = position.and_then(|position| logs.tail.get(position));
        if let Some(op) = held.and_then(|(owner, start)| Op::within(owner, start)) {
            return Ok(Some(op));
        }
        if !segment.is_finished() {
            self.core.write_gathered()?;
        }
        let op = self.core.reading(|| segment.op(&logs.access, extent.offset));
        // What is wrong with an operation as a whole does not say whose it is.
        let op = op.map_err(|e| match e.is_corruption() {
            true => e.context(format_args!("entry {index} of log {}", self.key.1)),
            false => e,
        });
        let budget = &logs.access.budget;
        if budget.files() > budget.file_limit() {
            logs.close_unused();
        }
        op
    }

    /// The entry `index`; `loaded` is the operation read last.
    fn entry(&self, index: u64, loaded: &mut Option<Loaded>) -> Result<LogEntry> {
        let has = |l: &Loaded| l.found.extent.within(index, index.saturating_add(1)).is_some();
        let loaded = match loaded.take().filter(has) {
            Some(had) => loaded.insert(had),
            None => loaded.insert(self.load(index)?),
        };
        let Loaded { found: Found { segment, extent }, op } = loaded;
        let log = self.key.1;
        let value = match op {
            Some(op) => op.entry(log, index).map_err(|e| segment.at(e, extent.offset.into()))?,
            None => segment.entry(&self.core.logs.access, extent.offset, log, index)?,
        };
        Ok(LogEntry { index, tag: extent.tag, value })
    }

    fn get(&self, index: u64) -> Result<Option<LogEntry>> {
        if !(self.head.first..self.head.next).contains(&index) {
            return Ok(None);
        }
        self.entry(index, &mut None).map(Some)
    }

    fn read(&self, range: impl RangeBounds<u64>, max_bytes: usize) -> Result<Vec<LogEntry>> {
        let Range { start: mut at, end } = self.clamp(range);
        let (mut read, mut bytes, mut enough) = (Vec::new(), 0usize, false);
        while at < end && !enough {
            let Loaded { found: Found { segment, extent }, op } = self.load(at)?;
            let (upto, Extent { tag, offset, .. }) = (extent.next().min(end), extent);
            // False: that one was too much.
            let mut take = |index, value: Value| {
                bytes = bytes.saturating_add(value.len());
                enough = bytes > max_bytes && !read.is_empty();
                if !enough {
                    read.push(LogEntry { index, tag, value });
                }
                !enough
            };
            match op {
                Some(op) => {
                    let walked = op.walk(self.key.1, at..upto, take);
                    walked.map_err(|e| segment.at(e, offset.into()))?;
                }
                None => {
                    for index in at..upto {
                        let access = &self.core.logs.access;
                        if !take(index, segment.entry(access, offset, self.key.1, index)?) {
                            break;
                        }
                    }
                }
            }
            at = upto;
        }
        Ok(read)
    }
}

impl Core {
    /// Has what the journal has gathered written, so that it can be read by position.
    fn write_gathered(&self) -> Result<()> {
        match &mut self.commit.lock().journal {
            Some(journal) => journal.flush().map_err(|e| self.latch(e)),
            None => Ok(()),
        }
    }
}

macro_rules! read_verbs {
    ($type:ident, $now:literal) => {
        #[doc = concat!("Reading ", $now, ".")]
        impl $type {
            /// The entries there are: from the first up to the next, also if there are none. `0..0` for a
            /// log that was never written, or was removed.
            pub fn bounds(&self) -> Result<Range<u64>> {
                self.state().map(|state| state.head.first..state.head.next)
            }

            /// The tag of the entry `index`, also of the one before the first if it is known. Reads no
            /// entry.
            pub fn tag(&self, index: u64) -> Result<Option<u64>> {
                self.state()?.tag(index)
            }

            /// The tags of the entries in `range`, as runs of entries with one tag. Reads no entry.
            pub fn tag_runs(&self, range: impl RangeBounds<u64>) -> Result<Vec<TagRun>> {
                self.state()?.tag_runs(range)
            }

            /// The entry `index`; `None` if it is not within the bounds.
            pub fn get(&self, index: u64) -> Result<Option<LogEntry>> {
                self.state()?.get(index)
            }

            /// The entries in `range`, from both ends, as of now. What goes wrong is an item, the last.
            pub fn range(&self, range: impl RangeBounds<u64>) -> Entries {
                Entries::new(self.state().map(|state| (state.clamp(range), state)))
            }

            /// The first entries in `range`, of at most `max_bytes` together, but at least one if there is
            /// one.
            pub fn read(&self, range: impl RangeBounds<u64>, max_bytes: usize) -> Result<Vec<LogEntry>> {
                self.state()?.read(range, max_bytes)
            }
        }
    };
}

read_verbs!(Log, "the newest commits: each call sees all that returned before it");
read_verbs!(LogView, "the log as it was at the snapshot");

/// Entries next to each other with one tag.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TagRun {
    /// Their indexes.
    pub range: Range<u64>,
    /// Their tag.
    pub tag: u64,
}

/// An entry of a log, owned: larger ones share the mapped segment, or the newest part of the log in
/// memory, and keep it; [`Value::detach`] copies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogEntry {
    index: u64,
    tag: u64,
    value: Value,
}

impl LogEntry {
    /// Its number in the log.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Its tag.
    pub fn tag(&self) -> u64 {
        self.tag
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.value
    }

    /// Its bytes, without copying them.
    pub fn into_value(self) -> Value {
        self.value
    }
}

/// The entries of a range of a log, from both ends, as of the moment it was made. Fused: after an error it
/// ends.
pub struct Entries {
    state: Result<State>,
    left: Range<u64>,
    loaded: Option<Loaded>,
}

impl Entries {
    fn new(of: Result<(Range<u64>, State)>) -> Entries {
        match of {
            Ok((left, state)) => Entries { state: Ok(state), left, loaded: None },
            // Its error is the one item.
            Err(e) => Entries { state: Err(e), left: 0..1, loaded: None },
        }
    }

    fn entry(&mut self, index: u64) -> Result<LogEntry> {
        let entry = match &self.state {
            Ok(state) => state.entry(index, &mut self.loaded),
            Err(e) => Err(e.clone()),
        };
        if entry.is_err() {
            self.left = 0..0;
        }
        entry
    }
}

impl Iterator for Entries {
    type Item = Result<LogEntry>;

    fn next(&mut self) -> Option<Result<LogEntry>> {
        let index = self.left.next()?;
        Some(self.entry(index))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(!self.left.is_empty()), self.left.size_hint().1)
    }
}

impl DoubleEndedIterator for Entries {
    fn next_back(&mut self) -> Option<Result<LogEntry>> {
        let index = self.left.next_back()?;
        Some(self.entry(index))
    }
}

impl FusedIterator for Entries {}

/// The logs there are: see [`Logs::iter`].
pub struct LogIter {
    rows: Iter,
    logs: Logs,
    failed: bool,
}

impl LogIter {
    fn log(&mut self, row: Option<Result<crate::db::scan::Entry>>) -> Option<Result<Log>> {
        if self.failed {
            return None;
        }
        let id = row?.and_then(|row| head::log(row.key()));
        self.failed = id.is_err();
        Some(id.map(|id| self.logs.log(id)))
    }
}

impl Iterator for LogIter {
    type Item = Result<Log>;

    fn next(&mut self) -> Option<Result<Log>> {
        let row = self.rows.next();
        self.log(row)
    }
}

impl DoubleEndedIterator for LogIter {
    fn next_back(&mut self) -> Option<Result<Log>> {
        let row = self.rows.next_back();
        self.log(row)
    }
}

impl FusedIterator for LogIter {}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Logs({:?})", self.name())
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Log({:?}, {})", self.logs.name(), self.id)
    }
}

impl fmt::Debug for LogView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogView({}, {:?})", self.id, self.snapshot)
    }
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entries({:?})", self.left)
    }
}

impl fmt::Debug for LogIter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogIter({:?})", self.logs)
    }
}
