//! The table files of a database: created, opened on first use, removed with their last user.

use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::fs::names::Name;
use crate::ids::FileNo;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::table::reader::{ReadOptions, Table};
use crate::table::writer::{WriteOptions, Writer};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// Where tables live and how they are read.
#[derive(Debug)]
pub(crate) struct Store {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    cache: Arc<Cache>,
    read_options: ReadOptions,
}

impl Store {
    pub fn new(fs: Arc<dyn Fs>, dir: PathBuf, cache: Arc<Cache>, read_options: ReadOptions) -> Arc<Store> {
        Arc::new(Store { fs, dir, cache, read_options })
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

    pub fn path(&self, no: FileNo) -> PathBuf {
        Name::Table(no).path(&self.dir)
    }
}

/// A table file that is part of the database, shared by all versions that name it.
pub(crate) struct Handle {
    store: Arc<Store>,
    no: FileNo,
    id: u64,
    size: u64,
    table: OnceLock<Arc<Table>>,
    opening: Mutex<()>,
    obsolete: AtomicBool,
}

impl Handle {
    /// A table that the manifest knows under this id and size. Touches no file yet.
    pub fn new(store: &Arc<Store>, no: FileNo, id: u64, size: u64) -> Arc<Handle> {
        Arc::new(Handle {
            store: store.clone(),
            no,
            id,
            size,
            table: OnceLock::new(),
            opening: Mutex::new(()),
            obsolete: AtomicBool::new(false),
        })
    }

    pub fn no(&self) -> FileNo {
        self.no
    }

    /// The open table; opens it on first use. A failure is not remembered: the next call tries again.
    #[inline]
    pub fn table(&self) -> Result<&Arc<Table>> {
        match self.table.get() {
            Some(table) => Ok(table),
            None => self.open(),
        }
    }

    /// The table if somebody has opened it.
    pub fn opened(&self) -> Option<&Arc<Table>> {
        self.table.get()
    }

    #[cold]
    fn open(&self) -> Result<&Arc<Table>> {
        let _one_at_a_time = self.opening.lock();
        if let Some(table) = self.table.get() {
            return Ok(table);
        }
        let Store { fs, cache, read_options, .. } = &*self.store;
        let path = self.store.path(self.no);
        let file = fs.open_read(&path).map_err(|e| Error::io("opening a table", &path, e))?;
        let table = Table::open(file, &path, self.id, self.size, *read_options, cache)?;
        Ok(self.table.get_or_init(|| Arc::new(table)))
    }

    /// The database no longer needs the file: it is removed with the last reference to this handle.
    pub fn obsolete(&self) {
        self.obsolete.store(true, Ordering::Release);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.obsolete.load(Ordering::Acquire) {
            return;
        }
        drop(self.table.take());
        if let Err(e) = self.store.remove(self.no) {
            // Found and removed again when the database is opened next.
            log::warn!("{e}");
        }
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "table {} ({:016x}, {} bytes)", self.no, self.id, self.size)
    }
}
