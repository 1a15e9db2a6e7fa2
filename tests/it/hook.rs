//! A file system that tells what is about to be done on it, so that a test can do something else in
//! between, at exactly that place.

use esker::fs::{File, Fs, Lock, SharedBytes, Window};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is about to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doing {
    Create,
    Write,
    Sync,
    SyncDir,
    /// The lock is being let go of.
    Unlock,
    /// Anything else that changes something.
    Other,
}

type Hook = dyn Fn(Doing, &Path) + Send + Sync;

/// `inner`, with a call of `hook` before everything that changes something.
#[derive(Clone)]
pub struct HookFs {
    inner: Arc<dyn Fs>,
    hook: Arc<Hook>,
}

impl HookFs {
    pub fn new(inner: Arc<dyn Fs>, hook: impl Fn(Doing, &Path) + Send + Sync + 'static) -> Arc<HookFs> {
        Arc::new(HookFs { inner, hook: Arc::new(hook) })
    }

    fn file(&self, path: &Path, inner: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(HookFile { inner, path: path.to_path_buf(), hook: self.hook.clone() })
    }
}

impl fmt::Debug for HookFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HookFs")
    }
}

impl Fs for HookFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        (self.hook)(Doing::Other, dir);
        self.inner.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(OsString, Option<u64>)>> {
        self.inner.list(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        (self.hook)(Doing::Create, path);
        self.inner.create(path).map(|file| self.file(path, file))
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.inner.open_write(path).map(|file| self.file(path, file))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.inner.open_read(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        (self.hook)(Doing::Other, path);
        self.inner.remove(path)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        (self.hook)(Doing::Other, to);
        self.inner.link(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        (self.hook)(Doing::SyncDir, dir);
        self.inner.sync_dir(dir)
    }

    fn lock(&self, path: &Path, shared: bool) -> io::Result<Box<dyn Lock>> {
        let inner = self.inner.lock(path, shared)?;
        Ok(Box::new(HookLock { _inner: inner, path: path.to_path_buf(), hook: self.hook.clone() }))
    }

    fn random(&self) -> io::Result<u64> {
        self.inner.random()
    }
}

struct HookLock {
    _inner: Box<dyn Lock>,
    path: PathBuf,
    hook: Arc<Hook>,
}

impl fmt::Debug for HookLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HookLock")
    }
}

impl Lock for HookLock {}

impl Drop for HookLock {
    fn drop(&mut self) {
        (self.hook)(Doing::Unlock, &self.path);
    }
}

struct HookFile {
    inner: Arc<dyn File>,
    path: PathBuf,
    hook: Arc<Hook>,
}

impl fmt::Debug for HookFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HookFile")
    }
}

impl File for HookFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        (self.hook)(Doing::Write, &self.path);
        self.inner.write_at(buf, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        (self.hook)(Doing::Other, &self.path);
        self.inner.allocate(len)
    }

    fn sync(&self) -> io::Result<()> {
        (self.hook)(Doing::Sync, &self.path);
        self.inner.sync()
    }

    fn map(&self) -> io::Result<Option<SharedBytes>> {
        self.inner.map()
    }

    fn window(&self, len: u64) -> io::Result<Option<Box<dyn Window>>> {
        self.inner.window(len)
    }
}
