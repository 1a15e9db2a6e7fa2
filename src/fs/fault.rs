//! A file system that fails on demand, wrapped around any other.
//!
//! ```
//! use esker::fs::fault::{Fault, FaultFs, Op, Rule};
//! use esker::fs::{Fs, sim::SimFs};
//! use std::{path::Path, sync::Arc};
//!
//! let fs = FaultFs::new(Arc::new(SimFs::new(1)));
//! fs.fail(Rule { op: Op::Sync, nth: 2, kind: Fault::Io, forever: false });
//! let file = fs.create(Path::new("/f"))?;
//! assert!(file.sync().is_ok());
//! assert!(file.sync().is_err());
//! assert!(file.sync().is_ok());
//! assert_eq!(fs.count(Op::Sync), 3);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Nothing here renames, because [`Fs`] does not: names are created, linked and removed. A disk that
//! is full for all files at once is [`SimFs::set_capacity`](crate::fs::sim::SimFs::set_capacity);
//! [`Fault::Full`] is one that is full for whom the rule says.
//!
//! To try every failure a run can meet, run it once without rules, read [`FaultFs::count`] of
//! [`Op::Any`], and run it again with a rule for each number up to there.

use crate::fs::{File, Fs, Lock, SharedBytes, Window, write_all_at};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An operation that can fail.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Op {
    /// Any of the others.
    Any,
    /// [`Fs::create_dir_all`]
    CreateDir,
    /// [`Fs::list`]
    List,
    /// [`Fs::create`]
    Create,
    /// [`Fs::open_write`]
    OpenWrite,
    /// [`Fs::open_read`]
    OpenRead,
    /// [`Fs::remove`]
    Remove,
    /// [`Fs::link`]; its path is that of the new name.
    Link,
    /// [`Fs::sync_dir`]
    SyncDir,
    /// [`Fs::lock`]
    Lock,
    /// [`File::read_at`]
    Read,
    /// [`File::write_at`]
    Write,
    /// [`File::len`]
    Len,
    /// [`File::allocate`]
    Allocate,
    /// [`File::sync`]
    Sync,
    /// [`File::map`]
    Map,
    /// [`File::window`]
    Window,
    /// [`Window::populate`]
    Populate,
    /// [`Window::write`]
    Store,
}

/// What systems say where too many files are open: the same number on every Unix.
const EMFILE: i32 = if cfg!(windows) { 4 } else { 24 };

impl Op {
    /// Every operation, without [`Op::Any`].
    pub const ALL: [Op; OPS - 1] = [
        Op::CreateDir,
        Op::List,
        Op::Create,
        Op::OpenWrite,
        Op::OpenRead,
        Op::Remove,
        Op::Link,
        Op::SyncDir,
        Op::Lock,
        Op::Read,
        Op::Write,
        Op::Len,
        Op::Allocate,
        Op::Sync,
        Op::Map,
        Op::Window,
        Op::Populate,
        Op::Store,
    ];
}

/// How many kinds of operation there are, [`Op::Any`] included.
const OPS: usize = Op::Store as usize + 1;

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// The operation does nothing and fails (EIO).
    Io,
    /// The operation is done, and reported as failed (EIO).
    IoAfter,
    /// The operation does nothing and fails with `StorageFull` (ENOSPC).
    Full,
    /// The operation does nothing and fails with `Interrupted` (EINTR).
    Interrupted,
    /// Mapping and windows answer `Ok(None)`; anything else fails with `Unsupported`.
    Unsupported,
    /// A read or write of two bytes or more handles only the first half. Nothing happens to other
    /// operations.
    Short,
    /// A read or a map shows one bit flipped: this one, counted round the bits that were read. A
    /// write or a store leaves one flipped at rest, and claims success. Nothing happens to other
    /// operations.
    FlipBit(u64),
    /// A sync fails, and every later sync of the same handle claims success and does nothing: so do
    /// systems that take pages they could not write for clean, and go on showing them. Any other
    /// operation fails as with [`Fault::Io`].
    Forget,
    /// A sync fails, and what was written to the file since the last one is gone: every reader sees
    /// the old bytes again, and later syncs succeed. So do systems that drop the pages they could
    /// not write. What was written before the first rule of this kind was added stays. Any other
    /// operation fails as with [`Fault::Io`].
    Revert,
    /// The operation does nothing and fails as where too many files are open (EMFILE).
    NoFiles,
}

/// An operation that went wrong as a [`Rule`] has it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Struck {
    /// What it was.
    pub op: Op,
    /// The file or directory.
    pub path: PathBuf,
    /// What went wrong.
    pub kind: Fault,
}

/// Which operation fails, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    /// The operations the rule looks at.
    pub op: Op,
    /// Which of them fails, counted from when the rule is set; 1 is the next one.
    pub nth: u64,
    /// What goes wrong.
    pub kind: Fault,
    /// Whether all later ones fail as well, until [`FaultFs::clear`].
    pub forever: bool,
}

/// A wrapper around a file system that fails by [`Rule`]s. Clones share the rules.
#[derive(Clone, Debug)]
pub struct FaultFs {
    inner: Arc<dyn Fs>,
    faults: Arc<Faults>,
}

#[derive(Default, Debug)]
struct Faults(Mutex<State>);

#[derive(Default, Debug)]
struct State {
    rules: Vec<Active>,
    counts: [u64; OPS],
    struck: Vec<Struck>,
    /// What was there before each write since the last sync, oldest first, by file; only kept once
    /// there is a rule that asks for it.
    undo: Option<BTreeMap<PathBuf, Vec<Old>>>,
}

/// The bytes that a write has replaced.
#[derive(Debug)]
struct Old {
    offset: u64,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Active {
    rule: Rule,
    path_end: String,
    seen: u64,
}

impl FaultFs {
    /// Wraps `inner`; without rules, nothing fails.
    pub fn new(inner: Arc<dyn Fs>) -> FaultFs {
        FaultFs { inner, faults: Arc::default() }
    }

    /// Adds a rule. Where several apply to one operation, the one added first decides.
    pub fn fail(&self, rule: Rule) -> &FaultFs {
        self.fail_in("", rule)
    }

    /// Adds a rule for paths that end in `path_end` only; others are not counted for it.
    pub fn fail_in(&self, path_end: &str, rule: Rule) -> &FaultFs {
        let active = Active { rule, path_end: path_end.to_string(), seen: 0 };
        let mut state = self.faults.0.lock();
        if rule.kind == Fault::Revert {
            state.undo.get_or_insert_default();
        }
        state.rules.push(active);
        drop(state);
        self
    }

    /// Removes all rules. What [`Fault::Forget`] did to open files stays.
    pub fn clear(&self) {
        self.faults.0.lock().rules.clear();
    }

    /// How many operations of this kind there were, failed ones included.
    pub fn count(&self, op: Op) -> u64 {
        self.faults.0.lock().counts[op as usize]
    }

    /// What went wrong so far, in order.
    pub fn struck(&self) -> Vec<Struck> {
        self.faults.0.lock().struck.clone()
    }

    fn file(&self, path: &Path, inner: Arc<dyn File>) -> Arc<dyn File> {
        let (path, faults) = (path.to_path_buf(), self.faults.clone());
        Arc::new(FaultFile { inner, path, faults, forgetful: AtomicBool::new(false) })
    }
}

impl Faults {
    /// Counts the operation, and tells what goes wrong with it.
    fn meet(&self, op: Op, path: &Path) -> Option<Fault> {
        let mut state = self.0.lock();
        for op in [op, Op::Any] {
            state.counts[op as usize] += 1;
        }
        let mut fault = None;
        for active in &mut state.rules {
            let Rule { op: wanted, nth, kind, forever } = active.rule;
            if wanted != op && wanted != Op::Any || !path.to_string_lossy().ends_with(&active.path_end) {
                continue;
            }
            active.seen += 1;
            let nth = nth.max(1);
            if active.seen == nth || forever && active.seen > nth {
                fault = fault.or(Some(kind));
            }
        }
        if let Some(kind) = fault {
            state.struck.push(Struck { op, path: path.to_path_buf(), kind });
        }
        fault
    }

    /// Remembers what a write of `len` bytes is about to replace, if anybody may want it back.
    fn remember(&self, file: &dyn File, path: &Path, offset: u64, len: usize) -> io::Result<()> {
        if self.0.lock().undo.is_none() {
            return Ok(());
        }
        let mut bytes = vec![0; len];
        let mut filled = 0;
        while filled < len {
            match file.read_at(&mut bytes[filled..], offset + filled as u64)? {
                0 => break,
                n => filled += n,
            }
        }
        if let Some(undo) = &mut self.0.lock().undo {
            undo.entry(path.to_path_buf()).or_default().push(Old { offset, bytes });
        }
        Ok(())
    }

    /// What was written to a file since its last sync, which ends now.
    fn take_old(&self, path: &Path) -> Vec<Old> {
        self.0.lock().undo.as_mut().and_then(|undo| undo.remove(path)).unwrap_or_default()
    }

    /// Does the operation, unless it is to fail.
    fn run<T>(&self, op: Op, path: &Path, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        fail(self.meet(op, path), op, path, work)
    }
}

fn fail<T>(fault: Option<Fault>, op: Op, path: &Path, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let kind = match fault {
        None | Some(Fault::Short | Fault::FlipBit(_)) => return work(),
        Some(Fault::IoAfter) => {
            work()?;
            ErrorKind::Other
        }
        Some(Fault::Io | Fault::Forget | Fault::Revert) => ErrorKind::Other,
        Some(Fault::Full) => ErrorKind::StorageFull,
        Some(Fault::Interrupted) => ErrorKind::Interrupted,
        Some(Fault::Unsupported) => ErrorKind::Unsupported,
        Some(Fault::NoFiles) => return Err(io::Error::from_raw_os_error(EMFILE)),
    };
    Err(io::Error::new(kind, format!("injected failure of {op:?}: {}", path.display())))
}

impl Fs for FaultFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.faults.run(Op::CreateDir, dir, || self.inner.create_dir_all(dir))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(OsString, Option<u64>)>> {
        self.faults.run(Op::List, dir, || self.inner.list(dir))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = self.faults.run(Op::Create, path, || self.inner.create(path))?;
        Ok(self.file(path, file))
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = self.faults.run(Op::OpenWrite, path, || self.inner.open_write(path))?;
        Ok(self.file(path, file))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = self.faults.run(Op::OpenRead, path, || self.inner.open_read(path))?;
        Ok(self.file(path, file))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.faults.run(Op::Remove, path, || self.inner.remove(path))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.faults.run(Op::Link, to, || self.inner.link(from, to))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.faults.run(Op::SyncDir, dir, || self.inner.sync_dir(dir))
    }

    fn lock(&self, path: &Path, shared: bool) -> io::Result<Box<dyn Lock>> {
        self.faults.run(Op::Lock, path, || self.inner.lock(path, shared))
    }

    fn random(&self) -> io::Result<u64> {
        self.inner.random()
    }
}

/// An open file of a [`FaultFs`].
#[derive(Debug)]
struct FaultFile {
    inner: Arc<dyn File>,
    path: PathBuf,
    faults: Arc<Faults>,
    /// Syncs claim success and do nothing.
    forgetful: AtomicBool,
}

/// How many of `len` bytes a short transfer handles: fewer, but never none, which means the end.
fn half(fault: Option<Fault>, len: usize) -> usize {
    if fault == Some(Fault::Short) { len.div_ceil(2) } else { len }
}

/// Flips bit number `bit` of `bytes`, counted round.
fn flip(bytes: &mut [u8], bit: u64) {
    if !bytes.is_empty() {
        let bit = bit % (bytes.len() as u64 * 8);
        bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
    }
}

/// What arrives of `bytes` that are written.
fn as_stored(fault: Option<Fault>, bytes: &[u8]) -> Cow<'_, [u8]> {
    let Some(Fault::FlipBit(bit)) = fault else { return bytes.into() };
    let mut bytes = bytes.to_vec();
    flip(&mut bytes, bit);
    bytes.into()
}

impl File for FaultFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let fault = self.faults.meet(Op::Read, &self.path);
        let len = half(fault, buf.len());
        let n = fail(fault, Op::Read, &self.path, || self.inner.read_at(&mut buf[..len], offset))?;
        if let Some(Fault::FlipBit(bit)) = fault {
            flip(&mut buf[..n], bit);
        }
        Ok(n)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let fault = self.faults.meet(Op::Write, &self.path);
        let buf = &buf[..half(fault, buf.len())];
        self.faults.remember(&*self.inner, &self.path, offset, buf.len())?;
        fail(fault, Op::Write, &self.path, || self.inner.write_at(&as_stored(fault, buf), offset))
    }

    fn len(&self) -> io::Result<u64> {
        self.faults.run(Op::Len, &self.path, || self.inner.len())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.faults.run(Op::Allocate, &self.path, || self.inner.allocate(len))
    }

    fn sync(&self) -> io::Result<()> {
        let fault = self.faults.meet(Op::Sync, &self.path);
        // One flag of its own; it orders nothing else.
        let forgetful = self.forgetful.load(Ordering::Relaxed);
        if fault == Some(Fault::Forget) {
            self.forgetful.store(true, Ordering::Relaxed);
        }
        if fault.is_none_or(|fault| fault == Fault::Revert) {
            let old = self.faults.take_old(&self.path);
            if fault.is_some() {
                for Old { offset, bytes } in old.iter().rev() {
                    write_all_at(&*self.inner, bytes, *offset)?;
                }
            }
        }
        fail(fault, Op::Sync, &self.path, || if forgetful { Ok(()) } else { self.inner.sync() })
    }

    fn names(&self) -> Option<u64> {
        self.inner.names()
    }

    fn warm(&self, len: u64) {
        self.inner.warm(len);
    }

    fn map(&self) -> io::Result<Option<SharedBytes>> {
        match self.faults.meet(Op::Map, &self.path) {
            Some(Fault::Unsupported) => Ok(None),
            Some(Fault::FlipBit(bit)) => {
                let Some(map) = self.inner.map()? else { return Ok(None) };
                let mut bytes = (*map).as_ref().to_vec();
                flip(&mut bytes, bit);
                Ok(Some(Arc::new(bytes)))
            }
            fault => fail(fault, Op::Map, &self.path, || self.inner.map()),
        }
    }

    fn window(&self, len: u64) -> io::Result<Option<Box<dyn Window>>> {
        let fault = self.faults.meet(Op::Window, &self.path);
        if fault == Some(Fault::Unsupported) {
            return Ok(None);
        }
        let Some(inner) = fail(fault, Op::Window, &self.path, || self.inner.window(len))? else {
            return Ok(None);
        };
        let (file, path, faults) = (self.inner.clone(), self.path.clone(), self.faults.clone());
        Ok(Some(Box::new(FaultWindow { inner, file, path, faults })))
    }
}

#[derive(Debug)]
struct FaultWindow {
    inner: Box<dyn Window>,
    file: Arc<dyn File>,
    path: PathBuf,
    faults: Arc<Faults>,
}

impl Window for FaultWindow {
    fn populate(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.faults.run(Op::Populate, &self.path, || self.inner.populate(offset, len))
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let fault = self.faults.meet(Op::Store, &self.path);
        self.faults.remember(&*self.file, &self.path, offset, bytes.len())?;
        fail(fault, Op::Store, &self.path, || self.inner.write(offset, &as_stored(fault, bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::read_exact_at;
    use crate::fs::sim::SimFs;

    fn setup() -> (SimFs, FaultFs, Arc<dyn File>) {
        let disk = SimFs::new(1);
        let fs = FaultFs::new(Arc::new(disk.clone()));
        let file = fs.create(Path::new("/f")).unwrap();
        write_all_at(&*file, &[0x55; 1000], 0).unwrap();
        (disk, fs, file)
    }

    fn once(op: Op, kind: Fault) -> Rule {
        Rule { op, nth: 1, kind, forever: false }
    }

    /// Calls the operation once; the `n`-th creation and removal are of fresh names.
    fn call(fs: &FaultFs, file: &Arc<dyn File>, window: &mut dyn Window, op: Op, n: u32) -> io::Result<()> {
        let (root, f) = (Path::new("/"), Path::new("/f"));
        let fresh = PathBuf::from(format!("/{op:?}-{n}"));
        match op {
            Op::CreateDir => fs.create_dir_all(&fresh),
            Op::List => fs.list(root).map(drop),
            Op::Create => fs.create(&fresh).map(drop),
            Op::OpenWrite => fs.open_write(f).map(drop),
            Op::OpenRead => fs.open_read(f).map(drop),
            Op::Remove => fs.remove(Path::new(&format!("/victim-{n}"))),
            Op::Link => fs.link(f, &fresh),
            Op::SyncDir => fs.sync_dir(root),
            Op::Lock => fs.lock(&fresh, false).map(drop),
            Op::Read => file.read_at(&mut [0; 10], 0).map(drop),
            Op::Write => file.write_at(&[1; 10], 0).map(drop),
            Op::Len => file.len().map(drop),
            Op::Allocate => file.allocate(1000),
            Op::Sync => file.sync(),
            Op::Map => file.map().map(drop),
            Op::Window => file.window(10).map(drop),
            Op::Populate => window.populate(0, 10),
            Op::Store => window.write(0, b"x"),
            Op::Any => panic!("not one operation"),
        }
    }

    #[test]
    fn every_operation_fails_when_told_and_only_then() {
        for op in Op::ALL {
            let (disk, fs, file) = setup();
            (0..6).for_each(|n| drop(disk.create(Path::new(&format!("/victim-{n}"))).unwrap()));
            let mut window = file.window(1000).unwrap().unwrap();
            window.populate(0, 100).unwrap();
            let before = fs.count(op);
            let mut call = |n| call(&fs, &file, &mut *window, op, n).map_err(|e| e.kind());
            fs.fail(Rule { op, nth: 2, kind: Fault::Io, forever: false });
            call(0).unwrap();
            let ops = disk.ops();
            assert_eq!(call(1), Err(ErrorKind::Other), "{op:?}");
            assert_eq!(disk.ops(), ops, "{op:?} did something");
            call(2).unwrap();
            fs.fail(Rule { op, nth: 1, kind: Fault::Full, forever: true });
            assert_eq!([call(3), call(3)], [Err(ErrorKind::StorageFull); 2], "{op:?}");
            fs.clear();
            call(4).unwrap();
            fs.fail(once(op, Fault::Interrupted)).fail(once(Op::Any, Fault::Io));
            assert_eq!(call(5), Err(ErrorKind::Interrupted), "{op:?}: the first rule decides");
            assert_eq!(fs.count(op) - before, 7, "{op:?}");
        }
    }

    #[test]
    fn a_failure_may_come_after_the_deed() {
        let (disk, fs, file) = setup();
        fs.fail(once(Op::Create, Fault::IoAfter)).fail(once(Op::Write, Fault::IoAfter));
        assert!(fs.create(Path::new("/g")).is_err());
        assert!(disk.read("/g").is_ok());
        assert!(file.write_at(b"done", 0).is_err());
        assert!(disk.read("/f").unwrap().starts_with(b"done"));
    }

    #[test]
    fn short_transfers_are_finished_by_the_helpers() {
        let (disk, fs, file) = setup();
        for kind in [Fault::Short, Fault::Interrupted] {
            fs.clear();
            fs.fail(Rule { op: Op::Read, nth: 1, kind, forever: kind == Fault::Short });
            fs.fail(Rule { op: Op::Write, nth: 1, kind, forever: kind == Fault::Short });
            let (reads, writes) = (fs.count(Op::Read), fs.count(Op::Write));
            write_all_at(&*file, &[7; 100], 50).unwrap();
            let mut buf = [0; 1000];
            read_exact_at(&*file, &mut buf, 0).unwrap();
            assert_eq!(disk.read("/f").unwrap(), buf);
            assert!(buf[50..150] == [7; 100] && fs.count(Op::Read) > reads + 1);
            assert!(fs.count(Op::Write) > writes + 1);
        }
        fs.fail(once(Op::Write, Fault::Short));
        assert_eq!(file.write_at(b"x", 0).unwrap(), 1, "one byte cannot be cut");
    }

    #[test]
    fn one_bit_is_flipped_on_the_way_and_not_on_disk() {
        let (disk, fs, file) = setup();
        for op in [Op::Read, Op::Map] {
            fs.fail(once(op, Fault::FlipBit(8003)));
            let mut reads = (0..2).map(|_| {
                let mut buf = vec![0; 1000];
                match op {
                    Op::Read => assert_eq!(file.read_at(&mut buf, 0).unwrap(), 1000),
                    _ => buf = (*file.map().unwrap().unwrap()).as_ref().to_vec(),
                }
                buf
            });
            let (flipped, sound) = (reads.next().unwrap(), reads.next().unwrap());
            assert!(flipped[0] == 0x55 ^ 8 && flipped[1..] == sound[1..]);
            assert!(sound == [0x55; 1000] && disk.read("/f").unwrap() == sound);
        }
        fs.fail(once(Op::Read, Fault::FlipBit(1)));
        assert_eq!(file.read_at(&mut [0; 4], 5000).unwrap(), 0, "nothing to flip");
    }

    #[test]
    fn maps_and_windows_may_not_exist() {
        let (_, fs, file) = setup();
        fs.fail(Rule { op: Op::Any, nth: 1, kind: Fault::Unsupported, forever: true });
        assert!(file.map().unwrap().is_none() && file.window(10).unwrap().is_none());
        assert_eq!(file.len().unwrap_err().kind(), ErrorKind::Unsupported);
        fs.clear();
        assert!(file.map().unwrap().is_some() && file.window(10).unwrap().is_some());
    }

    #[test]
    fn a_forgetful_disk_claims_success_later() {
        let (disk, fs, file) = setup();
        fs.sync_dir(Path::new("/")).unwrap();
        fs.fail(once(Op::Sync, Fault::Forget));
        assert!(file.sync().is_err());
        file.sync().unwrap();
        assert!(disk.crash(0).read("/f").unwrap().is_empty(), "a retried sync pretends");
        fs.open_write(Path::new("/f")).unwrap().sync().unwrap();
        assert_eq!(disk.crash(0).read("/f").unwrap(), [0x55; 1000]);
    }

    #[test]
    fn a_bit_may_be_flipped_at_rest() {
        let (disk, fs, file) = setup();
        let mut window = file.window(1000).unwrap().unwrap();
        window.populate(0, 1000).unwrap();
        for op in [Op::Write, Op::Store] {
            fs.fail(once(op, Fault::FlipBit(9)));
            let mut write = |byte: u8| match op {
                Op::Write => assert_eq!(file.write_at(&[byte; 10], 20).unwrap(), 10),
                _ => window.write(20, &[byte; 10]).unwrap(),
            };
            write(0);
            assert_eq!(disk.read("/f").unwrap()[20..30], [0, 2, 0, 0, 0, 0, 0, 0, 0, 0], "{op:?}");
            write(7);
            assert_eq!(disk.read("/f").unwrap()[20..30], [7; 10], "{op:?}");
        }
        let struck: Vec<_> = fs.struck().into_iter().map(|s| (s.op, s.path)).collect();
        assert_eq!(struck, [Op::Write, Op::Store].map(|op| (op, PathBuf::from("/f"))));
    }

    #[test]
    fn a_failed_sync_may_take_back_what_was_written() {
        let (disk, fs, file) = setup();
        fs.sync_dir(Path::new("/")).unwrap();
        fs.fail(Rule { op: Op::Sync, nth: 2, kind: Fault::Revert, forever: false });
        file.sync().unwrap();
        let mut window = file.window(1000).unwrap().unwrap();
        window.populate(0, 1000).unwrap();
        file.write_at(&[1; 10], 5).unwrap();
        window.write(10, &[2; 10]).unwrap();
        assert!(file.sync().is_err());
        assert_eq!(disk.read("/f").unwrap(), [0x55; 1000], "what was synced, and nothing since");
        file.write_at(&[3; 10], 0).unwrap();
        file.sync().unwrap();
        let left = disk.crash(0).read("/f").unwrap();
        assert!(left[..10] == [3; 10] && left[10..] == [0x55; 990], "later syncs are honest");
    }

    #[test]
    fn there_may_be_too_many_files() {
        let (_, fs, _) = setup();
        fs.fail(once(Op::OpenRead, Fault::NoFiles));
        let e = fs.open_read(Path::new("/f")).map(drop).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(EMFILE));
        assert!(fs.open_read(Path::new("/f")).is_ok());
    }

    #[test]
    fn rules_may_be_bound_to_names() {
        let (_, fs, file) = setup();
        let table = fs.create(Path::new("/1.table")).unwrap();
        fs.fail_in(".table", Rule { op: Op::Sync, nth: 2, kind: Fault::Io, forever: true });
        (0..3).for_each(|_| file.sync().unwrap());
        assert!(table.sync().is_ok());
        assert!(table.sync().is_err() && file.sync().is_ok() && table.sync().is_err());
        assert_eq!(fs.count(Op::Sync), 7);
        assert!(fs.count(Op::Any) > 7);
    }
}
