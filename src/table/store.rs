//! The table files of a database: created, opened on first use, removed with their last user.

use crate::budget::Use;
use crate::cache::{Cache, CacheStats};
use crate::counters::Counter;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::fs::names::Name;
use crate::fs::os::out_of_files;
use crate::ids::FileNo;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::table::filter::FilterReads;
use crate::table::reader::{ReadOptions, Table};
use crate::table::writer::{WriteOptions, Writer};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// Eighths of the memory there is that open tables may take.
const TABLE_EIGHTHS: usize = 3;
/// So many tables may be open whatever the system says.
const MIN_FILES: usize = 16;

/// Where tables live and how they are read, and how many may be open.
#[derive(Debug)]
pub(crate) struct Store {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    cache: Arc<Cache>,
    read_options: ReadOptions,
    /// So many tables may be open: fewer than the budget says once the system has refused more.
    file_limit: AtomicUsize,
    /// More is open than may be, and nobody has been told yet.
    pressed: AtomicBool,
    pub filter_reads: Arc<FilterReads>,
    /// Tables that are obsolete and whose files are still there, and their bytes.
    pub held: Counter,
    pub held_bytes: Counter,
}

impl Store {
    pub fn new(fs: Arc<dyn Fs>, dir: PathBuf, cache: Arc<Cache>, read_options: ReadOptions) -> Arc<Store> {
        let (file_limit, pressed) = (cache.budget().file_limit().into(), false.into());
        let (filter_reads, held, held_bytes) = Default::default();
        Arc::new(Store { fs, dir, cache, read_options, file_limit, pressed, filter_reads, held, held_bytes })
    }

    pub fn cache_stats(&self) -> CacheStats {
        self.cache.stats()
    }

    /// So many tables may be open.
    pub fn file_limit(&self) -> usize {
        self.file_limit.load(Ordering::Relaxed)
    }

    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// Starts a new table file. Its name is durable only after a sync of the directory.
    pub fn create(&self, no: FileNo, id: u64, options: WriteOptions) -> Result<Writer> {
        let path = self.path(no);
        let file = self.fs.create(&path).map_err(|e| Error::io("creating a table", &path, e))?;
        Ok(Writer::new(file, &path, id, options).within(self.cache.budget()))
    }

    /// Removes the file of a table that did not come to be.
    pub fn remove(&self, no: FileNo) -> Result<()> {
        let path = self.path(no);
        self.fs.remove(&path).map_err(|e| Error::io("removing a table", &path, e))
    }

    /// Whether more is open than may be, and this was not [taken up](Store::take_pressed) yet.
    #[inline]
    pub fn pressed(&self) -> bool {
        self.pressed.load(Ordering::Relaxed)
    }

    /// The same, for the one who takes it up.
    pub fn take_pressed(&self) -> bool {
        self.pressed.swap(false, Ordering::Relaxed)
    }

    #[cold]
    fn press(&self) {
        self.pressed.store(true, Ordering::Relaxed);
    }

    /// By how many files, and bytes of memory, what is open exceeds so many eighths of what may be; one
    /// more file is to find room.
    pub fn excess(&self, eighths: usize) -> (usize, usize) {
        let budget = self.cache.budget();
        let files = self.file_limit.load(Ordering::Relaxed);
        let memory = budget.limit() / 8 * TABLE_EIGHTHS;
        let part = |n: usize| (n / 8).saturating_mul(eighths).saturating_add(n % 8 * eighths / 8);
        let over = |held: usize, limit: usize| held.saturating_sub(part(limit));
        (over(budget.files() + 1, files), over(budget.used(Use::Tables), memory))
    }

    fn open_quarters(&self, quarters: usize) -> bool {
        self.excess(2 * quarters) != (0, 0)
    }

    /// After a table was opened, or was not.
    fn note(&self, error: Option<&Error>) {
        let refused = error.and_then(Error::io_error).is_some_and(out_of_files);
        if refused {
            let open = self.cache.budget().files();
            let before = self.file_limit.fetch_min((open / 8 * 7).max(MIN_FILES), Ordering::Relaxed);
            log::warn!(target: "esker", "the system refuses to open more than {open} tables; {before} were to be");
        }
        if refused || self.open_quarters(4) {
            self.press();
        }
    }

    pub fn path(&self, no: FileNo) -> PathBuf {
        Name::Table(no).path(&self.dir)
    }
}

/// A table file that is part of the database. Removed, once it is obsolete, with the last handle.
struct TableFile {
    store: Arc<Store>,
    no: FileNo,
    id: u64,
    size: u64,
    obsolete: AtomicBool,
}

impl TableFile {
    fn open(&self) -> Result<Arc<Table>> {
        let Store { fs, cache, read_options, .. } = &*self.store;
        let path = self.store.path(self.no);
        let opened = fs.open_read(&path).map_err(|e| Error::io("opening a table", &path, e));
        let opened = opened.and_then(|f| Table::open(f, &path, self.id, self.size, *read_options, cache));
        self.store.note(opened.as_ref().err());
        opened.map(|table| Arc::new(table.counting(&self.store.filter_reads)))
    }
}

impl Drop for TableFile {
    fn drop(&mut self) {
        if !self.obsolete.load(Ordering::Acquire) {
            return;
        }
        self.store.held.sub(1);
        self.store.held_bytes.sub(self.size);
        if let Err(e) = self.store.remove(self.no) {
            // Found and removed again when the database is opened next.
            log::warn!(target: "esker", "{e}");
        }
    }
}

/// A place in a view for a table that is opened when it is first read, and then stays open as long as the
/// handle lives. To close it, the view is replaced by one with a [fresh](Handle::fresh) handle: readers of
/// the old one go on, and nobody has to look whether a table is still open.
pub(crate) struct Handle {
    // Closed before the file may be removed.
    table: OnceLock<Arc<Table>>,
    opening: Mutex<()>,
    /// Read since this was last asked.
    used: AtomicBool,
    file: Arc<TableFile>,
}

/// An open table: one that stays so, or one that is closed after this use because too many are open.
#[derive(Debug)]
pub(crate) enum Opened<'a> {
    Kept(&'a Table),
    Passing(Arc<Table>),
}

impl Deref for Opened<'_> {
    type Target = Table;

    #[inline]
    fn deref(&self) -> &Table {
        match self {
            Opened::Kept(table) => table,
            Opened::Passing(table) => table,
        }
    }
}

impl Handle {
    /// A table that the manifest knows under this id and size. Touches no file yet. There must be no
    /// other handle for this file that is not a [fresh](Handle::fresh) one of this.
    pub fn new(store: &Arc<Store>, no: FileNo, id: u64, size: u64) -> Arc<Handle> {
        let file = TableFile { store: store.clone(), no, id, size, obsolete: AtomicBool::new(false) };
        Handle::of(Arc::new(file))
    }

    fn of(file: Arc<TableFile>) -> Arc<Handle> {
        let (table, opening) = (OnceLock::new(), Mutex::default());
        Arc::new(Handle { table, opening, used: AtomicBool::new(false), file })
    }

    /// Another handle of the same file, not opened.
    pub fn fresh(&self) -> Arc<Handle> {
        Handle::of(self.file.clone())
    }

    pub fn no(&self) -> FileNo {
        self.file.no
    }

    /// The open table; opens it on first use. A failure is not remembered: the next call tries again.
    #[inline]
    pub fn table(&self) -> Result<Opened<'_>> {
        match self.table.get() {
            Some(table) => {
                // Read first: a store by every reader would pass the line around between cores.
                if !self.used.load(Ordering::Relaxed) {
                    self.used.store(true, Ordering::Relaxed);
                }
                Ok(Opened::Kept(table))
            }
            None => self.open(5),
        }
    }

    /// The open table, for who reads through it once: it stays open only if there is room for more.
    pub fn visit(&self) -> Result<Arc<Table>> {
        if let Some(table) = self.table.get() {
            return Ok(table.clone());
        }
        match self.open(4)? {
            Opened::Passing(table) => Ok(table),
            Opened::Kept(_) => self.table.get().cloned().map_or_else(|| self.file.open(), Ok),
        }
    }

    /// The table if somebody has opened it.
    pub fn opened(&self) -> Option<&Arc<Table>> {
        self.table.get()
    }

    /// Whether it was read since this was last asked.
    pub fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// Opens the table; to stay open, unless so many quarters of what may be open are.
    #[cold]
    fn open(&self, quarters: usize) -> Result<Opened<'_>> {
        if self.file.store.open_quarters(quarters) {
            self.file.store.press();
            return self.file.open().map(Opened::Passing);
        }
        let _one_at_a_time = self.opening.lock();
        if self.table.get().is_none() {
            let table = self.file.open()?;
            self.used.store(true, Ordering::Relaxed);
            return Ok(Opened::Kept(self.table.get_or_init(|| table)));
        }
        self.table()
    }

    /// The database no longer needs the file: it is removed with the last handle of it.
    pub fn obsolete(&self) {
        let file = &self.file;
        if !file.obsolete.swap(true, Ordering::AcqRel) {
            file.store.held.add(1);
            file.store.held_bytes.add(file.size);
        }
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let TableFile { no, id, size, .. } = &*self.file;
        write!(f, "table {no} ({id:016x}, {size} bytes)")
    }
}
