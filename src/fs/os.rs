//! The real file system.
//!
//! Files are made for this user alone (mode 0600, directories 0700), a symbolic link in the place
//! of a file is never followed, and only regular files are opened: a FIFO or a device with the name
//! of a table is an error, not a hang.
//!
//! The uses of `unsafe` here are memory maps, and the few calls that std has not. An I/O error under a map
//! kills the process (SIGBUS), so nothing is mapped on network and FUSE file systems, and the writable window
//! exists only on Linux, on file systems known to overwrite allocated space in place.

use crate::fs::{File, Fs, Lock, SharedBytes, Window};
use std::ffi::OsString;
use std::fs as std_fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

/// Whether the system refused to open a file because too many are open, here or in all.
pub(crate) fn out_of_files(e: &io::Error) -> bool {
    // The same numbers on every Unix.
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ERROR_TOO_MANY_OPEN_FILES: i32 = 4;
    match e.raw_os_error() {
        Some(code) if cfg!(windows) => code == ERROR_TOO_MANY_OPEN_FILES,
        code => matches!(code, Some(ENFILE | EMFILE)),
    }
}

/// Lowers the priority of the calling thread: where processors are short, those who wait for an answer come
/// before it.
pub(crate) fn give_precedence() {
    // Two fifths of the share of a thread that was left alone. On Linux, other than POSIX has it, this is the
    // calling thread's own.
    #[cfg(target_os = "linux")]
    sys::nice(4);
}

/// The file system of the operating system.
///
/// ```
/// use esker::fs::{Fs, os::OsFs, read_exact_at, write_all_at};
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path();
/// let file = OsFs.create(&dir.join("greeting"))?;
/// write_all_at(&*file, b"hello", 0)?;
/// file.sync()?; // the data survives power loss,
/// OsFs.sync_dir(dir)?; // and so does its name
///
/// let mut buf = [0; 5];
/// read_exact_at(&*OsFs.open_read(&dir.join("greeting"))?, &mut buf, 0)?;
/// assert_eq!(&buf, b"hello");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Default, Debug)]
pub struct OsFs;

impl Fs for OsFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut builder = std_fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(OsString, Option<u64>)>> {
        let mut names = Vec::new();
        for entry in std_fs::read_dir(dir)? {
            let entry = entry?;
            match entry.metadata() {
                Ok(meta) => names.push((entry.file_name(), meta.is_file().then_some(meta.len()))),
                // Removed between being listed and being asked.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(names)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        open_file(path, std_fs::OpenOptions::new().read(true).write(true).create_new(true))
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        open_file(path, std_fs::OpenOptions::new().read(true).write(true))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        open_file(path, std_fs::OpenOptions::new().read(true))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std_fs::remove_file(path)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        std_fs::hard_link(from, to)
    }

    #[cfg(unix)]
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        // What is above the first part of a relative path.
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        std_fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(dir)?.sync_all()
    }

    #[cfg(not(unix))]
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // A directory cannot be opened here, and the system journals its entries.
        std_fs::read_dir(dir).map(|_| ())
    }

    fn lock(&self, path: &Path, shared: bool) -> io::Result<Box<dyn Lock>> {
        if shared { lock_shared(path) } else { lock_exclusive(path) }
    }
}

/// Opens `path` if it is, or is made, a regular file.
fn open_regular(path: &Path, options: &mut std_fs::OpenOptions) -> io::Result<std_fs::File> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // NONBLOCK means nothing for a regular file, and keeps a FIFO from blocking the open.
        options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY);
    }
    let not_regular =
        || io::Error::new(io::ErrorKind::InvalidInput, format!("{} is not a regular file", path.display()));
    match options.open(path) {
        Ok(file) if file.metadata()?.is_file() => Ok(file),
        Ok(_) => Err(not_regular()),
        // Whatever the system calls it (ELOOP, EISDIR, ENXIO ...), it is one thing to our caller.
        Err(e) => match std_fs::symlink_metadata(path) {
            Ok(meta) if !meta.is_file() && e.kind() != io::ErrorKind::AlreadyExists => Err(not_regular()),
            _ => Err(e),
        },
    }
}

fn open_file(path: &Path, options: &mut std_fs::OpenOptions) -> io::Result<Arc<dyn File>> {
    Ok(Arc::new(OsFile { file: open_regular(path, options)? }))
}

/// In a file with more stretches of written space it is not asked where the last one ends.
#[cfg(target_os = "linux")]
const SEEKS: usize = 100;

/// A file of [`OsFs`].
#[derive(Debug)]
struct OsFile {
    file: std_fs::File,
}

impl File for OsFile {
    #[cfg(unix)]
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(&self.file, buf, offset)
    }

    #[cfg(windows)]
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_read(&self.file, buf, offset)
    }

    #[cfg(unix)]
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(&self.file, buf, offset)
    }

    #[cfg(windows)]
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_write(&self.file, buf, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Where the system cannot reserve, zeros are written from the present end on, which must
    /// not run together with another write there.
    fn allocate(&self, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        #[cfg(any(target_os = "linux", target_os = "android"))]
        loop {
            let Err(e) = sys::fallocate(&self.file, len) else { return Ok(()) };
            match e.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EOPNOTSUPP | libc::ENOSYS) => break,
                _ => return Err(e),
            }
        }
        write_zeros(self, len)
    }

    #[cfg(target_os = "linux")]
    fn data_end(&self) -> Option<u64> {
        if is_remote(&self.file) {
            return None;
        }
        // Every read and write here is by position, so the file's own does not matter.
        let mut end = 0;
        for _ in 0..SEEKS {
            match sys::seek(&self.file, end, libc::SEEK_DATA) {
                Ok(data) => end = sys::seek(&self.file, data, libc::SEEK_HOLE).ok()?,
                Err(e) if e.raw_os_error() == Some(libc::ENXIO) => return Some(end),
                Err(_) => return None,
            }
        }
        None
    }

    #[cfg(unix)]
    fn names(&self) -> Option<u64> {
        Some(std::os::unix::fs::MetadataExt::nlink(&self.file.metadata().ok()?))
    }

    #[cfg(target_os = "linux")]
    fn warm(&self, len: u64) {
        // What cannot be had now is had when it is stored to.
        sys::will_need(&self.file, len);
    }

    fn sync(&self) -> io::Result<()> {
        // `fdatasync` writes the length too where it changed. On Apple's systems std uses
        // F_FULLFSYNC for either call; a plain fsync there leaves data in the drive's cache.
        if cfg!(any(target_os = "linux", target_os = "android")) {
            self.file.sync_data()
        } else {
            self.file.sync_all()
        }
    }

    fn map(&self) -> io::Result<Option<SharedBytes>> {
        let len = self.len()?;
        if len == 0 {
            return Ok(Some(Arc::new([0u8; 0])));
        }
        let Ok(len) = usize::try_from(len) else { return Ok(None) };
        if is_remote(&self.file) {
            return Ok(None);
        }
        // SAFETY: the bytes must not change while they are mapped. The face asks for maps only of
        // files that no longer change, the files belong to this user alone (mode 0600), and the
        // directory is locked against other processes of this engine. The length is the file's.
        let map = unsafe { memmap2::MmapOptions::new().len(len).map(&self.file) };
        // Positioned reads are always there, and will report what is truly wrong.
        Ok(map.ok().map(|map| Arc::new(map) as SharedBytes))
    }

    #[cfg(target_os = "linux")]
    fn window(&self, len: u64) -> io::Result<Option<Box<dyn Window>>> {
        window::open(&self.file, len)
    }

    #[cfg(not(target_os = "linux"))]
    fn window(&self, _len: u64) -> io::Result<Option<Box<dyn Window>>> {
        Ok(None)
    }
}

/// Extends `file` to `len` with written zeros, so that the space is really there.
fn write_zeros(file: &OsFile, len: u64) -> io::Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut at = file.len()?;
    while at < len {
        let n = usize::try_from(len - at).unwrap_or(usize::MAX).min(ZEROS.len());
        crate::fs::write_all_at(file, &ZEROS[..n], at)?;
        at += n as u64;
    }
    Ok(())
}

/// Whether a page of this file may have to come over a network or from another process: nothing
/// that may fail at any time is mapped.
#[cfg(target_os = "linux")]
fn is_remote(file: &std_fs::File) -> bool {
    const REMOTE: [u32; 11] = [
        0x6969,      // NFS
        0x517b,      // SMB
        0xff53_4d42, // CIFS
        0xfe53_4d42, // SMB2
        0x6573_5546, // FUSE
        0x0102_1997, // 9p
        0x00c3_6400, // Ceph
        0x5346_414f, // AFS (OpenAFS)
        0x6b41_4653, // AFS (kAFS)
        0x7375_7245, // Coda
        0x0bd0_0bd0, // Lustre
    ];
    sys::magic(file).is_none_or(|magic| REMOTE.contains(&magic))
}

#[cfg(not(target_os = "linux"))]
fn is_remote(_file: &std_fs::File) -> bool {
    false
}

/// The calls that std has not.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod sys {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;

    /// An offset as the system takes it: not wider than 31 bits on some machines.
    fn offset(offset: u64) -> io::Result<libc::off_t> {
        libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))
    }

    pub(super) fn fallocate(file: &File, len: u64) -> io::Result<()> {
        let len = offset(len)?;
        // SAFETY: numbers only, and the descriptor is open.
        match unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    #[cfg(target_os = "linux")]
    pub(super) fn seek(file: &File, from: u64, whence: i32) -> io::Result<u64> {
        let from = offset(from)?;
        // SAFETY: numbers only, and the descriptor is open.
        let found = unsafe { libc::lseek(file.as_raw_fd(), from, whence) };
        u64::try_from(found).map_err(|_| io::Error::last_os_error())
    }

    #[cfg(target_os = "linux")]
    pub(super) fn will_need(file: &File, len: u64) {
        if let Ok(len) = offset(len) {
            // SAFETY: numbers only, and the descriptor is open.
            unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, len, libc::POSIX_FADV_WILLNEED) };
        }
    }

    #[cfg(target_os = "linux")]
    pub(super) fn nice(by: i32) {
        // SAFETY: a number only.
        unsafe { libc::nice(by) };
    }

    /// The kind of the file system under `file`, as statfs names it.
    #[cfg(target_os = "linux")]
    pub(super) fn magic(file: &File) -> Option<u32> {
        let mut stat = std::mem::MaybeUninit::<libc::statfs>::uninit();
        // SAFETY: there is room for what is written, and the descriptor is open.
        let done = unsafe { libc::fstatfs(file.as_raw_fd(), stat.as_mut_ptr()) } == 0;
        // SAFETY: written by the call, which has succeeded.
        let stat = done.then(|| unsafe { stat.assume_init() })?;
        // Magic numbers have 32 bits; the field is wider, and sign-extended, on some machines.
        Some(stat.f_type as u32)
    }
}

/// Writing through a map.
#[cfg(target_os = "linux")]
mod window {
    use super::sys::magic;
    use crate::fs::Window;
    use memmap2::{Advice, MmapOptions, MmapRaw};
    use std::io;
    use std::ops::Range;

    /// File systems that overwrite allocated space in place. On one that copies on write, a store
    /// to a page that has been synced needs new space, and dies when there is none.
    const IN_PLACE: [u32; 4] = [
        0xef53,      // ext2, ext3, ext4
        0x5846_5342, // XFS
        0x0102_1994, // tmpfs
        0x794c_7630, // overlayfs, whose upper layer is nearly always one of the above
    ];

    pub(super) fn open(file: &std::fs::File, len: u64) -> io::Result<Option<Box<dyn Window>>> {
        if len > file.metadata()?.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a window beyond the end of the file"));
        }
        let Ok(len) = usize::try_from(len) else { return Ok(None) };
        if len == 0 || !magic(file).is_some_and(|magic| IN_PLACE.contains(&magic)) {
            return Ok(None);
        }
        let window = OsWindow { map: MmapOptions::new().len(len).map_raw(file)?, populated: 0..0 };
        match window.advise(0..1) {
            Ok(()) => Ok(Some(Box::new(window))),
            // MADV_POPULATE_WRITE is not known here: Linux before 5.14, or a sandbox.
            Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// A shared, writable map of which only `populated` is ever stored to. A raw map: no
    /// reference into it is ever made.
    #[derive(Debug)]
    struct OsWindow {
        map: MmapRaw,
        populated: Range<usize>,
    }

    impl OsWindow {
        fn range(&self, offset: u64, len: u64) -> io::Result<Range<usize>> {
            let end = offset.checked_add(len).and_then(|end| usize::try_from(end).ok());
            match (usize::try_from(offset), end) {
                (Ok(start), Some(end)) if end <= self.map.len() => Ok(start..end),
                _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "outside of the window")),
            }
        }

        fn advise(&self, range: Range<usize>) -> io::Result<()> {
            loop {
                match self.map.advise_range(Advice::PopulateWrite, range.start, range.len()) {
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    result => return result,
                }
            }
        }
    }

    impl Window for OsWindow {
        fn populate(&mut self, offset: u64, len: u64) -> io::Result<()> {
            let new = self.range(offset, len)?;
            if new.is_empty() {
                return Ok(());
            }
            self.advise(new.clone())?;
            // One range is enough for a log. One that lies apart takes the place of the old one.
            let old = &self.populated;
            let apart = new.start > old.end || new.end < old.start;
            self.populated = if apart { new } else { old.start.min(new.start)..old.end.max(new.end) };
            Ok(())
        }

        fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            let range = self.range(offset, bytes.len() as u64)?;
            if range.start < self.populated.start || range.end > self.populated.end {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "not populated"));
            }
            // SAFETY: the range lies within the map (checked by `range`) and `bytes` is no part of
            // it, because no reference into the map ever exists. The pages have been populated
            // for writing, and the file is never cut short, so that the store has a page to go to.
            // Nobody in this process reads the map; maps of this file are made only once it no
            // longer changes.
            unsafe {
                let to = self.map.as_mut_ptr().add(range.start);
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
            }
            Ok(())
        }
    }
}

/// A lock on an open file, kept by the system until the file is closed, also by a crash. The text
/// in the file is for people only.
#[derive(Debug)]
struct OsLock {
    file: std_fs::File,
    exclusive: bool,
}

impl Lock for OsLock {}

impl Drop for OsLock {
    fn drop(&mut self) {
        if self.exclusive {
            // So that nobody is told of a holder that has gone. Failing here harms no one.
            let _ = self.file.set_len(0);
        }
        let _ = self.file.unlock();
    }
}

fn lock_exclusive(path: &Path) -> io::Result<Box<dyn Lock>> {
    // Not truncated by opening: the text belongs to the holder.
    let mut file =
        open_regular(path, std_fs::OpenOptions::new().read(true).write(true).create(true).truncate(false))?;
    match file.try_lock() {
        Ok(()) => {
            let text = format!("{}\n", std::process::id());
            // Over the old one, and then cut: a full disk has the space for that. Without the
            // text the lock is as good.
            match file.write_all(text.as_bytes()).and_then(|()| file.set_len(text.len() as u64)) {
                Err(e) if e.kind() != io::ErrorKind::StorageFull => return Err(e),
                _ => {}
            }
            Ok(Box::new(OsLock { file, exclusive: true }))
        }
        Err(std_fs::TryLockError::WouldBlock) => {
            // Readers leave no text, and the text of a dead writer must not be blamed on them.
            let readers = file.try_lock_shared().is_ok();
            Err(held(if readers { None } else { holder(&file) }))
        }
        Err(std_fs::TryLockError::Error(e)) => Err(e),
    }
}

fn lock_shared(path: &Path) -> io::Result<Box<dyn Lock>> {
    let file = open_regular(path, std_fs::OpenOptions::new().read(true))?;
    match file.try_lock_shared() {
        Ok(()) => Ok(Box::new(OsLock { file, exclusive: false })),
        Err(std_fs::TryLockError::WouldBlock) => Err(held(holder(&file))),
        Err(std_fs::TryLockError::Error(e)) => Err(e),
    }
}

/// The process id written in a lock file.
fn holder(file: &std_fs::File) -> Option<u32> {
    let mut text = String::new();
    Read::take(file, 32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn held(by: Option<u32>) -> io::Error {
    let message = match by {
        Some(pid) => format!("held by process {pid}"),
        None => "held by another process or handle".to_string(),
    };
    io::Error::new(io::ErrorKind::WouldBlock, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{read_exact_at, write_all_at};

    fn kind<T>(result: io::Result<T>) -> io::ErrorKind {
        match result {
            Ok(_) => panic!("should have failed"),
            Err(e) => e.kind(),
        }
    }

    #[test]
    fn create_refuses_what_exists_and_sets_modes() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        OsFs.create_dir_all(&deep).unwrap();
        OsFs.create_dir_all(&deep).unwrap();
        let path = deep.join("f");
        assert_eq!(kind(OsFs.open_write(&path)), io::ErrorKind::NotFound);
        assert_eq!(kind(OsFs.open_read(&path)), io::ErrorKind::NotFound);
        drop(OsFs.create(&path).unwrap());
        assert_eq!(kind(OsFs.create(&path)), io::ErrorKind::AlreadyExists);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |p: &Path| std_fs::metadata(p).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&path), mode(&deep)), (0o600, 0o700));
        }
    }

    #[cfg(unix)]
    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        drop(OsFs.create(&file).unwrap());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let dangling = dir.path().join("dangling");
        std::os::unix::fs::symlink(dir.path().join("nowhere"), &dangling).unwrap();
        let sub = dir.path().join("sub");
        OsFs.create_dir_all(&sub).unwrap();
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let mut odd = vec![link.clone(), dangling.clone(), sub, socket];
        #[cfg(target_os = "linux")]
        {
            let fifo = dir.path().join("fifo");
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
            odd.push(fifo);
        }
        for path in odd {
            assert_eq!(kind(OsFs.open_read(&path)), io::ErrorKind::InvalidInput, "{path:?}");
            assert_eq!(kind(OsFs.open_write(&path)), io::ErrorKind::InvalidInput, "{path:?}");
            assert_eq!(kind(OsFs.lock(&path, false)), io::ErrorKind::InvalidInput, "{path:?}");
            assert_eq!(kind(OsFs.create(&path)), io::ErrorKind::AlreadyExists, "{path:?}");
        }
        assert!(!dir.path().join("nowhere").exists());
    }

    #[test]
    fn list_tells_files_from_directories() {
        let dir = tempfile::tempdir().unwrap();
        write_all_at(&*OsFs.create(&dir.path().join("f")).unwrap(), &[1; 10], 5).unwrap();
        OsFs.create_dir_all(&dir.path().join("d")).unwrap();
        let mut names = OsFs.list(dir.path()).unwrap();
        names.sort();
        assert_eq!(names, [("d".into(), None), ("f".into(), Some(15))]);
        OsFs.link(&dir.path().join("f"), &dir.path().join("g")).unwrap();
        OsFs.remove(&dir.path().join("f")).unwrap();
        OsFs.sync_dir(dir.path()).unwrap();
        let mut buf = [9; 15];
        read_exact_at(&*OsFs.open_read(&dir.path().join("g")).unwrap(), &mut buf, 0).unwrap();
        assert_eq!(buf, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        assert_eq!(kind(OsFs.list(&dir.path().join("none"))), io::ErrorKind::NotFound);
    }

    #[test]
    fn allocating_extends_and_never_shrinks() {
        let dir = tempfile::tempdir().unwrap();
        let file = OsFs.create(&dir.path().join("f")).unwrap();
        write_all_at(&*file, b"abc", 0).unwrap();
        for (len, after) in [(0, 3), (2, 3), (200_000, 200_000), (100, 200_000)] {
            file.allocate(len).unwrap();
            assert_eq!(file.len().unwrap(), after);
        }
        // The way of systems that cannot reserve.
        let plain = open_regular(&dir.path().join("f"), std_fs::OpenOptions::new().read(true).write(true));
        let plain = OsFile { file: plain.unwrap() };
        write_zeros(&plain, 300_001).unwrap();
        write_zeros(&plain, 5).unwrap();
        assert_eq!(file.len().unwrap(), 300_001);
        let mut buf = vec![9; 300_001];
        read_exact_at(&*file, &mut buf, 0).unwrap();
        assert!(buf.starts_with(b"abc\0") && buf[3..].iter().all(|&b| b == 0));
        assert_eq!(file.read_at(&mut buf, 300_001).unwrap(), 0);
    }

    #[test]
    fn what_was_written_is_before_the_end_of_data() {
        let dir = tempfile::tempdir().unwrap();
        let file = OsFs.create(&dir.path().join("f")).unwrap();
        file.allocate(1 << 20).unwrap();
        for at in [5, 4096, 70_000, 500_000] {
            write_all_at(&*file, b"x", at).unwrap();
            assert!(file.data_end().is_none_or(|end| end > at));
        }
        if let Some(mut window) = file.window(1 << 20).unwrap() {
            window.populate(0, 1 << 20).unwrap();
            window.write(900_000, b"x").unwrap();
            assert!(file.data_end().is_none_or(|end| end > 900_000));
        }
        file.sync().unwrap();
        assert!(file.data_end().is_none_or(|end| end > 500_000));
    }

    #[test]
    fn maps_show_the_file_and_outlive_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = OsFs.create(&path).unwrap();
        assert_eq!((*file.map().unwrap().unwrap()).as_ref(), b"");
        write_all_at(&*file, b"finished", 0).unwrap();
        let map = file.map().unwrap();
        OsFs.remove(&path).unwrap();
        drop(file);
        if let Some(map) = map {
            assert_eq!((*map).as_ref(), b"finished");
        }
    }

    #[test]
    fn a_window_stores_only_where_populated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = OsFs.create(&path).unwrap();
        file.allocate(10_000).unwrap();
        assert_eq!(file.window(0).unwrap().map(|_| ()), None);
        let Some(mut window) = file.window(9_000).unwrap() else { return };
        assert_eq!(kind(file.window(10_001)), io::ErrorKind::InvalidInput);
        assert_eq!(kind(window.write(0, b"x")), io::ErrorKind::InvalidInput);
        window.populate(0, 4096).unwrap();
        window.populate(4096, 100).unwrap();
        window.write(4090, b"across").unwrap();
        assert_eq!(kind(window.write(4190, b"too far")), io::ErrorKind::InvalidInput);
        assert_eq!(kind(window.write(u64::MAX, b"overflow")), io::ErrorKind::InvalidInput);
        assert_eq!(kind(window.populate(8_999, 2)), io::ErrorKind::InvalidInput);
        assert_eq!(kind(window.populate(u64::MAX, 2)), io::ErrorKind::InvalidInput);
        window.populate(8_000, 1_000).unwrap();
        window.write(8_990, b"at the end").unwrap();
        assert_eq!(kind(window.write(0, b"x")), io::ErrorKind::InvalidInput, "only one range is kept");
        file.sync().unwrap();
        let mut buf = vec![0; 10_000];
        read_exact_at(&*file, &mut buf, 0).unwrap();
        assert_eq!((&buf[4090..4096], &buf[8_990..9_000]), (&b"across"[..], &b"at the end"[..]));
        assert_eq!(buf.iter().filter(|&&b| b != 0).count(), 16);
    }

    #[test]
    fn locks_exclude_and_name_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        assert_eq!(kind(OsFs.lock(&path, true)), io::ErrorKind::NotFound);
        let lock = OsFs.lock(&path, false).unwrap();
        let holder = format!("held by process {}", std::process::id());
        for shared in [false, true] {
            let e = OsFs.lock(&path, shared).unwrap_err();
            assert_eq!((e.kind(), e.to_string()), (io::ErrorKind::WouldBlock, holder.clone()));
        }
        drop(lock);
        // A dead writer's id stays behind; readers change nothing, and are not mistaken for it.
        std_fs::write(&path, "99").unwrap();
        let readers = [OsFs.lock(&path, true).unwrap(), OsFs.lock(&path, true).unwrap()];
        let e = OsFs.lock(&path, false).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::WouldBlock);
        assert!(!e.to_string().contains("99"), "{e}");
        drop(readers);
        assert_eq!(std_fs::read(&path).unwrap(), b"99");
        drop(OsFs.lock(&path, false).unwrap());
    }
}
