//! The file system as the engine sees it: a small face, so that the same engine runs on the real
//! one ([`os`]), on a simulated disk that can lose power (`sim`) and on one that fails on demand
//! (`fault`); the last two with the feature `sim`.
//!
//! What is deliberately absent: truncating, appending at "the end", overwriting by name. Fewer
//! operations mean fewer assumptions about what a crash leaves behind.
//!
//! All paths are full paths. Reads and writes may be short; [`read_exact_at`] and [`write_all_at`]
//! loop, and go on after `Interrupted`. Nothing else is to answer `Interrupted`: it is a failure like
//! any other there. An implementation must answer `StorageFull` for a full disk.

#[cfg(any(test, fuzzing, feature = "sim"))]
pub mod fault;
pub(crate) mod names;
pub mod os;
#[cfg(any(test, fuzzing, feature = "sim"))]
pub mod sim;

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Bytes somebody else keeps alive: a mapped file, a cached block. Shared by reference count.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A directory tree to keep files in. Cheap to share; every call may come from any thread.
pub trait Fs: Send + Sync + Debug {
    /// Creates `dir` and its missing parents. An existing directory is fine.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// The names in `dir` with the length of each file in bytes, in no particular order.
    /// Sub-directories are listed with `None` for a length.
    fn list(&self, dir: &Path) -> io::Result<Vec<(std::ffi::OsString, Option<u64>)>>;

    /// Creates a file that must not exist yet, readable and writable, for this user only.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens an existing regular file for reading and writing.
    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens an existing regular file for reading.
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Removes a file. Handles that are open go on.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Gives a file a second name (a hard link).
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes creations and removals in `dir` survive power loss.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the lock file at `path` for this handle alone (`shared: false`, created if missing, and
    /// marked with this process's id) or together with other readers (`shared: true`, which creates
    /// and changes nothing, and answers `NotFound` if there is none). Held until the guard drops.
    /// When somebody else holds it: `Err(WouldBlock)` whose message names the holder's process id if
    /// it is known.
    fn lock(&self, path: &Path, shared: bool) -> io::Result<Box<dyn Lock>>;

    /// A number that no other call anywhere is likely to give; ids and salts of files are drawn from
    /// it. The operating system's, unless a disk is simulated: there a seed repeats a run to the byte.
    fn random(&self) -> io::Result<u64> {
        getrandom::u64().map_err(|e| io::Error::other(e.to_string()))
    }
}

/// A held lock file; dropping it lets go.
pub trait Lock: Send + Sync + Debug {}

/// An open file. Dropping the last handle closes it.
#[expect(clippy::len_without_is_empty, reason = "a length on disk, not of a collection")]
pub trait File: Send + Sync + Debug {
    /// Reads at most `buf.len()` bytes at `offset`; fewer only at the end of the file or when the
    /// system gives fewer, 0 only at or beyond the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at `offset`, extending the file if needed; may write fewer bytes than given.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize>;

    /// The length of the file in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Reserves space for the first `len` bytes and makes the file at least that long. What was
    /// never written there may read as anything after a crash. A full disk shows here.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// An offset from which on all bytes are zero, if the system tells, for who looks for others. Asked before the
    /// file is read: what is read ahead passes for written.
    fn data_end(&self) -> Option<u64> {
        None
    }

    /// How many names the file has, if that is known: one that has others is somebody else's, too.
    fn names(&self) -> Option<u64> {
        None
    }

    /// Makes all data and the length survive power loss (`fdatasync`, `F_FULLFSYNC` on Apple's).
    fn sync(&self) -> io::Result<()>;

    /// Brings the first `len` bytes into memory, for who will write parts of their pages; promises nothing.
    fn warm(&self, _len: u64) {}

    /// The whole file as memory, for files that no longer change. `None` where mapping is not
    /// supported; callers then read by position.
    fn map(&self) -> io::Result<Option<SharedBytes>>;

    /// A window for writing the first `len` bytes (already allocated) without a system call each.
    /// `None` where that is not supported; callers then write by position. What is written through a
    /// window becomes durable with [`File::sync`] of this file.
    fn window(&self, len: u64) -> io::Result<Option<Box<dyn Window>>>;
}

/// A writable mapping of a file: writing is a call, never a `&mut [u8]`, so that a simulated disk
/// sees every store.
pub trait Window: Send + Debug {
    /// Makes sure that the `len` bytes at `offset` can be stored to without a fault that kills the
    /// process. Must have covered whatever [`Window::write`] touches.
    fn populate(&mut self, offset: u64, len: u64) -> io::Result<()>;

    /// Stores `bytes` at `offset`. Fails, storing nothing, outside of what was populated.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
}

/// Reads exactly `buf.len()` bytes at `offset`, or fails with `UnexpectedEof`.
pub fn read_exact_at(file: &dyn File, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match file.read_at(buf, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                buf = &mut buf[n..];
                offset += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Writes all of `buf` at `offset`.
pub fn write_all_at(file: &dyn File, mut buf: &[u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match file.write_at(buf, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                buf = &buf[n..];
                offset += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
