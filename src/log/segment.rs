//! A journal segment as a place where log entries lie: read where it is mapped, by position elsewhere, and
//! never believed.

use crate::budget::{Budget, OpenFile};
use crate::coding::u32_at;
use crate::entries::{APPEND_HEAD, AppendHead, Entries, PER_ENTRY, check, misplaced};
use crate::error::{Error, Result};
use crate::fs::names::Name;
use crate::fs::{File, Fs, SharedBytes, read_exact_at};
use crate::ids::{FileNo, Position, Seq};
use crate::log::extent::{Extent, LogKey};
use crate::log::footer::{Footer, Range, Run, Source};
use crate::mutant::Mutant;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::value::Value;
use arc_swap::ArcSwapOption;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An operation up to this size is read whole where it is read by position, a larger one entry by entry.
const WHOLE: usize = 64 << 10;
/// So much is read by position at first.
const GUESS: usize = 4 << 10;

/// A segment that holds log entries, or held some.
pub(crate) struct LogSegment {
    pub no: FileNo,
    /// What seeds the checksums of its records.
    pub salt: u64,
    /// The journal position of its first byte; none if it is a cold one.
    pub start: Option<Position>,
    path: PathBuf,
    /// What is known of its entries is counted in.
    pub budget: Arc<Budget>,
    footer: ArcSwapOption<Footer>,
    /// It is being moved.
    moving: AtomicBool,
    opened: ArcSwapOption<Opened>,
    /// Nothing is written to it any more.
    finished: AtomicBool,
    /// The entries that are live, and the bytes they take; changed under the locks on their logs.
    entries: AtomicU64,
    bytes: AtomicU64,
    /// The newest operation that took entries away from it.
    cut: AtomicU64,
    /// The logs that have a part in it, in the order in which they got one; until it is known elsewhere.
    pub logs: Mutex<Vec<LogKey>>,
    /// Read since it was last asked.
    used: AtomicBool,
    /// Something in it cannot be read.
    damaged: AtomicBool,
    /// The bytes of all entries that ever came to lie here.
    ever: AtomicU64,
    /// It was mapped: values that somebody holds may lie in it for ever.
    mapped: AtomicBool,
    /// How large its file is, once that is known and does not change any more; 0 until then.
    size: AtomicU64,
    wanted: Arc<Wanted>,
}

/// Whether it is worth looking at the segments: some have nothing live left, or so much has died in all of
/// them.
#[derive(Debug)]
pub(crate) struct Wanted {
    is_due: AtomicBool,
    died: AtomicU64,
    each: u64,
}

impl Wanted {
    /// After each so many bytes that die.
    pub fn new(each: u64) -> Wanted {
        Wanted { is_due: AtomicBool::new(false), died: AtomicU64::new(0), each }
    }

    /// Whether it has become so since this was last asked.
    pub fn take(&self) -> bool {
        self.is_due.load(Ordering::Relaxed) && self.is_due.swap(false, Ordering::Relaxed)
    }

    fn set(&self) {
        self.died.store(0, Ordering::Relaxed);
        self.is_due.store(true, Ordering::Relaxed);
    }

    fn died(&self, bytes: u64) {
        // Who is overtaken here by another is a look late, or early.
        if self.died.fetch_add(bytes, Ordering::Relaxed) + bytes >= self.each {
            self.set();
        }
    }
}

struct Opened {
    file: Arc<dyn File>,
    map: Option<SharedBytes>,
    _count: OpenFile,
}

/// How segments are opened.
pub(crate) struct Access {
    pub fs: Arc<dyn Fs>,
    pub dir: PathBuf,
    pub budget: Arc<Budget>,
    pub mapped: bool,
}

/// An append that was read: its bytes from the log on.
pub(crate) struct Op {
    owner: SharedBytes,
    start: usize,
    len: usize,
    /// Values may share the owner.
    shared: bool,
}

impl Op {
    /// The one that stands at `start` of `owner`, which values may share; `None` if none does.
    pub fn within(owner: SharedBytes, start: usize) -> Option<Op> {
        let body = (*owner).as_ref().get(start..)?;
        let len = AppendHead::read(body).ok()?.len();
        (len <= body.len()).then_some(Op { owner, start, len, shared: true })
    }

    fn entries(&self) -> Result<Entries<'_>> {
        let body = (*self.owner).as_ref().get(self.start..).and_then(|rest| rest.get(..self.len));
        Entries::read(body.unwrap_or_default())
    }

    /// The bytes of an entry, if they are what was written.
    pub fn entry(&self, log: u64, index: u64) -> Result<Value> {
        let mut entry = Err(misplaced(log, index));
        self.walk(log, index..index.saturating_add(1), |_, value| {
            entry = Ok(value);
            true
        })?;
        entry
    }

    /// Shows the entries of these indexes, as long as `see` says so; an error at the first one that is not
    /// what was written.
    pub fn walk(
        &self,
        log: u64,
        indexes: std::ops::Range<u64>,
        mut see: impl FnMut(u64, Value) -> bool,
    ) -> Result<()> {
        let entries = self.entries().map_err(|_| misplaced(log, indexes.start))?;
        if entries.log != log {
            return Err(misplaced(log, indexes.start));
        }
        let whole = (*self.owner).as_ref();
        for entry in entries.walk(indexes)? {
            let (index, at) = entry?;
            let at = self.start + at.start..self.start + at.end;
            let value = match self.shared {
                true => Value::part(&self.owner, whole, at),
                false => Value::copied(whole.get(at).unwrap_or_default()),
            };
            if !see(index, value) {
                break;
            }
        }
        Ok(())
    }
}

impl LogSegment {
    /// `wanted` is set when it is worth looking at what is left in it.
    pub fn new(
        access: &Access,
        (no, salt, start): (FileNo, u64, Option<Position>),
        wanted: &Arc<Wanted>,
    ) -> LogSegment {
        LogSegment {
            no,
            salt,
            start,
            path: Name::Journal(no).path(&access.dir),
            budget: access.budget.clone(),
            footer: ArcSwapOption::empty(),
            moving: AtomicBool::new(false),
            opened: ArcSwapOption::empty(),
            finished: AtomicBool::new(false),
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            logs: Mutex::default(),
            used: AtomicBool::new(false),
            damaged: AtomicBool::new(false),
            ever: AtomicU64::new(0),
            mapped: AtomicBool::new(false),
            size: AtomicU64::new(0),
            wanted: wanted.clone(),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file as its writer has it open.
    pub fn lend(&self, access: &Access, file: Arc<dyn File>) {
        let opened = Opened { file, map: None, _count: access.budget.open_file() };
        self.opened.store(Some(Arc::new(opened)));
    }

    /// Nothing is written to it any more: from now on it can be mapped.
    pub fn finish(&self) {
        // Release: pairs with the load of who maps it.
        self.finished.store(true, Ordering::Release);
        self.close();
    }

    pub fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    /// Lets go of the file; who reads goes on.
    pub fn close(&self) {
        drop(self.opened.swap(None));
    }

    /// Whether nobody reads it any more, and nobody holds what he has read there: it can be written to again.
    pub fn is_left(self: Arc<LogSegment>) -> bool {
        let left = Arc::into_inner(self).is_some_and(|segment| !segment.mapped.into_inner());
        left || Mutant::ReuseReadSegment.on()
    }

    pub fn is_open(&self) -> bool {
        self.opened.load().is_some()
    }

    /// Whether it was read since this was last asked.
    pub fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// Counts entries that came to lie here.
    pub fn add(&self, entries: u64, bytes: u64) {
        self.entries.fetch_add(entries, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.ever.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts entries that the operation of `seq` took away.
    pub fn take(&self, entries: u64, bytes: u64, seq: Seq) {
        // The number first: who finds no entry left must find the operation that took the last.
        self.cut.fetch_max(seq.get(), Ordering::Release);
        let had = self.entries.fetch_sub(entries, Ordering::Release);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.wanted.died(bytes);
        if had == entries && self.is_finished() {
            self.wanted.set();
        }
    }

    pub fn set_damaged(&self) {
        self.damaged.store(true, Ordering::Relaxed);
    }

    pub fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    /// How large the file of a finished segment is.
    pub fn file_len(&self, access: &Access) -> Result<u64> {
        let known = self.size.load(Ordering::Relaxed);
        if known > 0 {
            return Ok(known);
        }
        let opened = self.opened(access)?;
        let len = self.left(&opened, 0)?;
        self.size.store(len, Ordering::Relaxed);
        Ok(len)
    }

    /// The runs that its footer names.
    pub fn runs(&self) -> Result<Vec<Run>> {
        self.footer.load().as_ref().map_or(Ok(Vec::new()), |footer| footer.runs())
    }

    /// Whether entries in it are live, or would be again if what is not durable were lost.
    pub fn is_needed(&self, durable: Seq) -> bool {
        self.entries.load(Ordering::Acquire) > 0
            || self.cut.load(Ordering::Acquire) > durable.get() && !Mutant::ReleaseLogSegmentEarly.on()
            || self.moving.load(Ordering::Acquire)
    }

    /// The newest operation that took entries away from it.
    pub fn last_cut(&self) -> Seq {
        Seq::new(self.cut.load(Ordering::Acquire)).unwrap_or(Seq::MAX)
    }

    /// While it is being moved it stays, whatever becomes of its entries.
    pub fn set_moving(&self, moving: bool) {
        self.moving.store(moving, Ordering::Release);
    }

    /// Takes over a run of another segment, whose entries are here now,
    /// that took the first number of bytes there and take the second here.
    pub fn take_over(&self, from: &LogSegment, entries: u64, (there, here): (u64, u64)) {
        self.cut.fetch_max(from.cut.load(Ordering::Acquire), Ordering::Release);
        self.add(entries, here);
        from.take(entries, there, Seq::ZERO);
    }

    /// Whether it is known which entries lie here, beside what is in memory.
    pub fn has_footer(&self) -> bool {
        self.footer.load().is_some()
    }

    pub fn set_footer(&self, footer: Footer) {
        self.footer.store(Some(Arc::new(footer)));
    }

    /// The extent of a run that the entry `index` is in.
    pub fn find(&self, run: Range, index: u64) -> Result<Option<Extent>> {
        match &*self.footer.load() {
            Some(footer) => footer.find(run, index),
            None => Ok(None),
        }
    }

    /// The extents of a run.
    pub fn extents(&self, run: Range) -> Result<Vec<Extent>> {
        self.footer.load().as_ref().map_or(Ok(Vec::new()), |footer| footer.extents(run))
    }

    /// Uses these bytes for its footer; its runs.
    pub fn use_footer(&self, access: &Access, bytes: Vec<u8>) -> Result<Vec<Run>> {
        let path = Name::Footer(self.no).path(&access.dir);
        let source = Source::Shared(Arc::new(bytes));
        let (footer, runs) = Footer::open((self.no, self.salt), &path, source, None)?;
        self.set_footer(footer);
        Ok(runs)
    }

    /// Opens the footer that is beside it; its runs.
    pub fn open_footer(&self, access: &Access) -> Result<Vec<Run>> {
        let path = Name::Footer(self.no).path(&access.dir);
        let file = access.fs.open_read(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::corruption("a footer is missing").in_file(&path),
            _ => Error::io("opening a footer", &path, e),
        })?;
        let map = if access.mapped { file.map().ok().flatten() } else { None };
        let (source, count) = match map {
            Some(map) => (Source::Shared(map), None),
            None => (Source::File(file), Some(access.budget.open_file())),
        };
        let (footer, runs) = Footer::open((self.no, self.salt), &path, source, count)?;
        self.set_footer(footer);
        Ok(runs)
    }

    /// The bytes that live entries take, about.
    pub fn live(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The bytes that entries took here when they came.
    pub fn written(&self) -> u64 {
        self.ever.load(Ordering::Relaxed)
    }

    pub fn live_entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    fn opened(&self, access: &Access) -> Result<Arc<Opened>> {
        self.used.store(true, Ordering::Relaxed);
        let finished = self.is_finished();
        if let Some(opened) = &*self.opened.load() {
            return Ok(opened.clone());
        }
        let failed = |e| Error::io("opening a journal segment", &self.path, e);
        let file = access.fs.open_read(&self.path).map_err(failed)?;
        // Whatever a map fails for, reads by position tell what is truly wrong.
        let map = if finished && access.mapped { file.map().ok().flatten() } else { None };
        if map.is_some() {
            self.mapped.store(true, Ordering::Relaxed);
        }
        let opened = Arc::new(Opened { file, map, _count: access.budget.open_file() });
        self.opened.store(Some(opened.clone()));
        Ok(opened)
    }

    /// Reads the append that stands at `offset`, from its log on. `None`: it is too large to be read as a
    /// whole.
    pub fn op(&self, access: &Access, offset: u32) -> Result<Option<Op>> {
        let opened = self.opened(access)?;
        let at = u64::from(offset);
        if let Some(map) = &opened.map {
            let start = offset as usize;
            let body = (**map).as_ref().get(start..).unwrap_or_default();
            let len = AppendHead::read(body).map_err(|e| self.at(e, at))?.len();
            if len > body.len() {
                return Err(self.at(Error::corruption("an append reaches beyond the segment"), at));
            }
            return Ok(Some(Op { owner: map.clone(), start, len, shared: true }));
        }
        let left = self.left(&opened, at)?;
        let mut bytes = vec![0; left.min(GUESS as u64) as usize];
        self.read(&opened, &mut bytes, at)?;
        let len = AppendHead::read(&bytes).map_err(|e| self.at(e, at))?.len();
        if len as u64 > left {
            return Err(self.at(Error::corruption("an append reaches beyond the segment"), at));
        }
        if len > WHOLE {
            return Ok(None);
        }
        let had = bytes.len().min(len);
        bytes.resize(len, 0);
        self.read(&opened, &mut bytes[had..], at + had as u64)?;
        Ok(Some(Op { owner: Arc::new(bytes), start: 0, len, shared: false }))
    }

    /// Reads one entry of a large append.
    pub fn entry(&self, access: &Access, offset: u32, log: u64, index: u64) -> Result<Value> {
        let opened = self.opened(access)?;
        let at = u64::from(offset);
        let mut head = [0; APPEND_HEAD];
        self.read(&opened, &mut head, at)?;
        let head = AppendHead::read(&head).map_err(|_| self.at(misplaced(log, index), at))?;
        let nth = index.checked_sub(head.first).filter(|&n| head.log == log && n < u64::from(head.count));
        let nth = nth.ok_or_else(|| self.at(misplaced(log, index), at))? as usize;
        // Where the one before ends, with that of the first being 0, and this one.
        let mut slots = [0; 2 * PER_ENTRY];
        let table = at + head.table() as u64;
        match nth.checked_sub(1) {
            Some(before) => self.read(&opened, &mut slots, table + (before * PER_ENTRY) as u64)?,
            None => self.read(&opened, &mut slots[PER_ENTRY..], table)?,
        }
        let number = |at| u32_at(&slots, at).unwrap_or_default();
        let (from, to, crc) = (number(0), number(PER_ENTRY), number(PER_ENTRY + 4));
        if from > to || to > head.bytes || u64::from(head.bytes) > self.left(&opened, at)? {
            return Err(self.at(misplaced(log, index), at));
        }
        let mut bytes = vec![0; (to - from) as usize];
        self.read(&opened, &mut bytes, at + APPEND_HEAD as u64 + u64::from(from))?;
        check(log, index, &bytes, crc).map_err(|e| self.at(e, at))?;
        Ok(Value::from_vec(bytes))
    }

    fn left(&self, opened: &Opened, at: u64) -> Result<u64> {
        let len = opened.file.len().map_err(|e| Error::io("asking for the length of", &self.path, e))?;
        Ok(len.saturating_sub(at))
    }

    fn read(&self, opened: &Opened, buf: &mut [u8], at: u64) -> Result<()> {
        read_exact_at(&*opened.file, buf, at).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                self.at(Error::corruption("the segment ends before an entry does"), at)
            }
            _ => Error::io("reading a log entry", &self.path, e),
        })
    }

    /// Adds the place to what is wrong there.
    pub fn at(&self, e: Error, offset: u64) -> Error {
        e.at(&self.path, offset)
    }
}
