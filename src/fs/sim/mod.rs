//! A simulated disk that can lose power at any operation, and be looked at in every state a real
//! one could be found in, and some worse.
//!
//! One run of a program serves all its crash points: [`SimFs`] numbers every operation that changes
//! something, and [`SimFs::crash_at`] rebuilds the disk as it could be found had the power gone
//! right after any of them.
//!
//! ```
//! use esker::fs::{Fs, sim::SimFs, write_all_at};
//! use std::path::Path;
//!
//! let path = Path::new("/note");
//! let fs = SimFs::new(1);
//! let file = fs.create(path)?;
//! write_all_at(&*file, b"hello", 0)?;
//! file.sync()?;
//! let forgotten = fs.ops();
//! fs.sync_dir(Path::new("/"))?;
//!
//! // Before the directory was synced, the name may be lost, with all that was synced under it.
//! let states = || (0..fs.states_at(forgotten)).map(|choice| fs.crash_at(forgotten, choice));
//! assert!(states().any(|disk| disk.read(path).is_err()));
//! assert!(states().any(|disk| disk.read(path).is_ok_and(|bytes| bytes == b"hello")));
//! // Afterwards it is there whatever happens.
//! for choice in 0..fs.states_at(fs.ops()) {
//!     assert_eq!(fs.crash(choice).read(path)?, b"hello");
//! }
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # The fault model
//!
//! While the program runs, the disk does what it is told; a reader sees what was written. When the
//! power goes, only this is certain:
//!
//! - **Data and length**: what a file held when [`File::sync`] was called for it.
//! - **Names**: what a directory held when [`Fs::sync_dir`] was called for it. A file whose name is
//!   lost is lost. A directory is a name in the one above it.
//!
//! Everything later is in doubt, each thing independently of every other, in whatever order it was
//! done:
//!
//! - **A sector** (512 bytes) written since the last sync of its file is found as it was at the last
//!   sync, as it is now, or as it was at any moment between. So later writes may survive where
//!   earlier ones are lost, in other files and in the same one.
//! - **A torn write**: in one sector, only the first bytes of a write arrived. The rest of that
//!   write is found either independently, or in order: all before the tear, nothing behind it.
//! - **Garbage**: bytes that an unsynced write changed may be found as neither the old nor the new.
//!   Bytes that it wrote again as they were, and those beside it in the same sector, are not in
//!   danger: a log that appends could not be kept on a disk that takes those.
//! - **The length** of a file may survive without its data, its data without the length (and is
//!   then cut off), and of one that grew any length on the way.
//! - **Space never written** (allocated or skipped) reads as zeros until a crash. After one, even
//!   when the length had been synced, it may show garbage or what another file, removed or lost by
//!   then, once held at the same offset, and goes on showing it. Zeros found there may yet become
//!   garbage in the next crash.
//! - **A name** created, removed or linked since its directory was last synced stands for what it
//!   stood for then, for what it does now, or for anything between. A file that comes back so has
//!   its bytes. There are no renames, for there are none in [`Fs`].
//!
//! What is written through a [`Window`] is seen at once by every reader, and survives or not like
//! any other write: the system writes mapped pages when it likes, also half of a store. Killing only the
//! process loses nothing: go on with the same `SimFs`.
//!
//! **A sync that fails** does so in [`fault`](crate::fs::fault): what it was to make durable stays in
//! doubt here, and with [`Fault::Forget`](crate::fs::fault::Fault::Forget) every later sync of
//! the file claims success while nothing becomes durable. Readers in the running process go on seeing
//! what was written, as on ext4 and XFS (Btrfs shows them the old bytes): who reads back what a sync
//! has failed for is not told the difference.
//!
//! # The choices
//!
//! | choice | what is found |
//! |---|---|
//! | 0 | nothing that was in doubt |
//! | 1 | everything |
//! | 2 | all names and lengths, no data |
//! | 3 | all names and lengths; garbage for data, and in space never written |
//! | 4 | all names and lengths, and data of the newest file (of those with data in doubt) only |
//! | 5 | all data and lengths, no names |
//! | 6 and on | up to 12 things in doubt: every combination once, then 16 seeded states with what they leave out; else 64 seeded states |
//!
//! A thing in doubt is a sector with writes, a length or a name; a combination says of each whether it
//! is as it was or as it is. A seeded state draws a coin for each, the odds anew for each state, tears
//! one write, and shows garbage and moments between. Any larger number is a seeded state too.
//!
//! The same seed and the same operations give the same states, and random numbers are drawn from the
//! seed too ([`Fs::random`]): a run of the engine without threads (`workers(0)`) is the same to the
//! byte each time.
//!
//! [`SimFs::allows`] asks the other way round: whether what was found on some disk is one of these states.
//! By that the model is held against real file systems (`examples/torture`).
//!
//! Not simulated: sectors going bad on their own ([`SimFs::damage`] does that by hand), failing
//! calls (see [`fault`](crate::fs::fault)), permissions, symbolic links, `..` in paths.

mod allows;
mod content;
mod crash;
mod disk;
#[cfg(test)]
mod tests;

use crate::fs::{File, Fs, Lock, SharedBytes, Window};
use crate::sync::{Mutex, MutexGuard};
pub use allows::{Survived, Tally, Tree};
use content::{Content, SECTOR, mix};
use disk::{Disk, Node, Op, is_root, split};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// States of the past are kept every so many operations.
const CHECKPOINT: u64 = 64;

/// A simulated disk. Clones are the same disk.
///
/// See the [module](self) for what a crash does to it.
#[derive(Clone)]
pub struct SimFs(Arc<Mutex<State>>);

struct State {
    seed: u64,
    disk: Disk,
    log: Vec<Op>,
    /// The disk after so many operations, to start from: 0, multiples of [`CHECKPOINT`] as far
    /// as anybody asked, and the last place asked for.
    past: BTreeMap<u64, Disk>,
    capacity: Option<u64>,
    /// How many random numbers were drawn.
    drawn: u64,
    /// Open handles of each file.
    open: BTreeMap<u64, u64>,
    locks: BTreeMap<u64, Held>,
}

enum Held {
    Alone,
    Shared(u64),
}

fn error(kind: ErrorKind, message: &str, path: &Path) -> io::Error {
    io::Error::new(kind, format!("{message}: {}", path.display()))
}

impl SimFs {
    /// An empty disk. `seed` decides what the seeded states and garbage look like.
    pub fn new(seed: u64) -> SimFs {
        SimFs::with_disk(seed, Disk::default(), None)
    }

    fn with_disk(seed: u64, disk: Disk, capacity: Option<u64>) -> SimFs {
        SimFs(Arc::new(Mutex::new(State {
            seed,
            past: BTreeMap::from([(0, disk.clone())]),
            disk,
            log: Vec::new(),
            capacity,
            drawn: 0,
            open: BTreeMap::new(),
            locks: BTreeMap::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// Limits the sum of the lengths of all files. What would exceed it fails with `StorageFull` and
    /// changes nothing. Files removed but open count. Can be changed at any time.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// The number of operations so far that changed something or made it durable. Operation numbers
    /// start at 1.
    pub fn ops(&self) -> u64 {
        self.state().log.len() as u64
    }

    /// A line for each operation so far, in order; the first is operation number 1.
    pub fn log(&self) -> Vec<String> {
        let state = self.state();
        let line = |op| {
            let mut line = String::new();
            state.disk.describe(op, &mut line).map_or_else(|_| String::new(), |()| line)
        };
        state.log.iter().map(line).collect()
    }

    /// The disk as it could be found had the power gone right after operation number `op` (0: before
    /// the first). `choice` picks one of the states that are possible then; any number is valid, and
    /// those below [`SimFs::states_at`] are worth trying. Everything on the new disk is durable, its
    /// log is empty, nothing is open or locked. This disk is not changed.
    ///
    /// Quickest when asked in ascending order of `op`.
    ///
    /// # Panics
    ///
    /// If there were fewer than `op` operations.
    pub fn crash_at(&self, op: u64, choice: u64) -> SimFs {
        let mut state = self.state();
        let (seed, capacity) = (mix(state.seed, op), state.capacity);
        let disk = crash::rebuild(state.at(op), seed, choice);
        SimFs::with_disk(mix(seed, choice), disk, capacity)
    }

    /// [`SimFs::crash_at`] the present.
    pub fn crash(&self, choice: u64) -> SimFs {
        let ops = self.ops();
        self.crash_at(ops, choice)
    }

    /// How many choices are worth trying at [`SimFs::crash_at`] `op`: fewer where little is in doubt.
    ///
    /// # Panics
    ///
    /// If there were fewer than `op` operations.
    pub fn states_at(&self, op: u64) -> u64 {
        crash::states(self.state().at(op))
    }

    /// All files by name, with their lengths.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let state = self.state();
        let mut files = Vec::new();
        for dir in state.disk.dirs.keys() {
            for (name, node) in state.disk.names(dir) {
                if let Node::File(id) = node {
                    files.push((dir.join(name), state.live(id).len));
                }
            }
        }
        files
    }

    /// All bytes of a file, as a reader sees them now.
    pub fn read(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let state = self.state();
        Ok(state.live(state.file_id(path.as_ref())?).to_vec())
    }

    /// A number that disks share if they show the same directories, names, links and bytes, and that
    /// others have by chance only. For leaving out states that were seen before.
    pub fn digest(&self) -> u64 {
        self.state().disk.digest()
    }

    /// Changes the bytes of a file at rest, behind the back of the program: flips, cuts, appends.
    /// The result is durable at once, with all that was in doubt in this file. It is an operation.
    pub fn damage(&self, path: impl AsRef<Path>, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let state = self.state();
        let id = state.file_id(path.as_ref())?;
        let mut content = state.live(id).clone();
        // The change may itself look at this disk.
        drop(state);
        let mut bytes = content.to_vec();
        change(&mut bytes);
        content.set_len(bytes.len() as u64);
        for (no, new) in bytes.chunks(SECTOR).enumerate() {
            if content.sector(no as u64)[..new.len()] != *new {
                content.write((no * SECTOR) as u64, new);
            }
        }
        self.state().run(Op::Damage { id, content: Arc::new(content) });
        Ok(())
    }

    fn open(&self, path: &Path, writable: bool) -> io::Result<Arc<dyn File>> {
        let mut state = self.state();
        let id = state.file_id(path)?;
        Ok(Arc::new(self.handle(&mut state, id, writable)))
    }

    fn handle(&self, state: &mut State, id: u64, writable: bool) -> SimFile {
        *state.open.entry(id).or_default() += 1;
        SimFile { fs: self.clone(), id, writable }
    }
}

impl fmt::Debug for SimFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFs").field("ops", &self.ops()).field("files", &self.files()).finish()
    }
}

impl State {
    fn run(&mut self, op: Op) {
        self.disk.apply(self.log.len() as u64 + 1, &op);
        self.log.push(op);
    }

    /// The disk after `op` operations.
    fn at(&mut self, op: u64) -> &Disk {
        let ops = self.log.len() as u64;
        assert!(op <= ops, "operation {op} of {ops}");
        if op == ops {
            return &self.disk;
        }
        let (from, mut disk) = match self.past.range(..=op).next_back() {
            Some((&from, _)) if from != op && from % CHECKPOINT != 0 => {
                (from, self.past.remove(&from).unwrap_or_default())
            }
            Some((&from, disk)) if from != op => (from, disk.clone()),
            _ => return &self.past[&op],
        };
        self.past.retain(|op, _| op % CHECKPOINT == 0);
        for no in from + 1..=op {
            disk.apply(no, &self.log[no as usize - 1]);
            if no % CHECKPOINT == 0 {
                self.past.insert(no, disk.clone());
            }
        }
        self.past.entry(op).or_insert(disk)
    }

    fn live(&self, id: u64) -> &Content {
        &self.disk.files[&id].live
    }

    fn file_id(&self, path: &Path) -> io::Result<u64> {
        match self.disk.node(path) {
            Some(Node::File(id)) => Ok(id),
            Some(Node::Dir) => Err(error(ErrorKind::InvalidInput, "not a regular file", path)),
            None => Err(error(ErrorKind::NotFound, "no such file", path)),
        }
    }

    fn need_dir(&self, path: &Path) -> io::Result<()> {
        match self.disk.node(path) {
            Some(Node::Dir) => Ok(()),
            Some(Node::File(_)) => Err(error(ErrorKind::NotADirectory, "not a directory", path)),
            None => Err(error(ErrorKind::NotFound, "no such directory", path)),
        }
    }

    /// Checks that `path` can be given to a new file.
    fn need_free(&self, path: &Path) -> io::Result<()> {
        let Some((dir, _)) = split(path) else {
            return Err(error(ErrorKind::InvalidInput, "not a file name", path));
        };
        self.need_dir(dir)?;
        match self.disk.node(path) {
            Some(_) => Err(error(ErrorKind::AlreadyExists, "exists", path)),
            None => Ok(()),
        }
    }

    /// Checks that file `id` may become `len` bytes long.
    fn need_space(&self, id: u64, len: u64) -> io::Result<()> {
        let more = len.saturating_sub(self.live(id).len);
        let Some(capacity) = self.capacity else { return Ok(()) };
        if more == 0 {
            return Ok(());
        }
        let mut files = self.disk.named();
        files.extend(self.open.keys());
        let used: u64 = files.iter().map(|&id| self.live(id).len).sum();
        if used.saturating_add(more) > capacity {
            return Err(error(
                ErrorKind::StorageFull,
                "the simulated disk is full",
                &self.disk.files[&id].path,
            ));
        }
        Ok(())
    }

    fn create(&mut self, path: &Path) -> io::Result<u64> {
        self.need_free(path)?;
        let id = self.disk.next_id;
        self.run(Op::Create { path: path.to_path_buf(), id });
        Ok(id)
    }
}

impl Fs for SimFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        let mut missing = Vec::new();
        for above in dir.ancestors().filter(|dir| !is_root(dir)) {
            match state.disk.node(above) {
                Some(Node::Dir) => break,
                Some(Node::File(_)) if above == dir => {
                    return Err(error(ErrorKind::AlreadyExists, "not a directory", above));
                }
                Some(Node::File(_)) => {
                    return Err(error(ErrorKind::NotADirectory, "not a directory", above));
                }
                None => missing.push(above.to_path_buf()),
            }
        }
        if !missing.is_empty() {
            missing.reverse();
            state.run(Op::MakeDirs(missing));
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(OsString, Option<u64>)>> {
        let state = self.state();
        state.need_dir(dir)?;
        let len = |node| if let Node::File(id) = node { Some(state.live(id).len) } else { None };
        Ok(state.disk.names(dir).map(|(name, node)| (name.clone(), len(node))).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut state = self.state();
        let id = state.create(path)?;
        Ok(Arc::new(self.handle(&mut state, id, true)))
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.open(path, true)
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.open(path, false)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        match state.disk.node(path) {
            Some(Node::Dir) => Err(error(ErrorKind::IsADirectory, "a directory", path)),
            _ => {
                state.file_id(path)?;
                state.run(Op::Remove { path: path.to_path_buf() });
                Ok(())
            }
        }
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let id = match state.disk.node(from) {
            Some(Node::Dir) => return Err(error(ErrorKind::PermissionDenied, "a directory", from)),
            _ => state.file_id(from)?,
        };
        state.need_free(to)?;
        state.run(Op::Link { id, to: to.to_path_buf() });
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.need_dir(dir)?;
        state.run(Op::SyncDir { dir: dir.to_path_buf() });
        Ok(())
    }

    /// Works between all users of this disk. The process id is not written into the file, so that
    /// runs are equal; only creating the file is an operation.
    fn lock(&self, path: &Path, shared: bool) -> io::Result<Box<dyn Lock>> {
        let mut state = self.state();
        let id = match state.file_id(path) {
            Err(e) if e.kind() == ErrorKind::NotFound && !shared => state.create(path)?,
            found => found?,
        };
        match (state.locks.get_mut(&id), shared) {
            (Some(Held::Shared(readers)), true) => *readers += 1,
            (Some(Held::Shared(_)), false) => {
                return Err(io::Error::new(ErrorKind::WouldBlock, "held by another process or handle"));
            }
            (Some(Held::Alone), _) => {
                let message = format!("held by process {}", std::process::id());
                return Err(io::Error::new(ErrorKind::WouldBlock, message));
            }
            (None, _) => {
                state.locks.insert(id, if shared { Held::Shared(1) } else { Held::Alone });
            }
        }
        drop(state);
        Ok(Box::new(SimLock { fs: self.clone(), id }))
    }

    /// From the seed: the same calls are answered the same, those after a crash anew.
    fn random(&self) -> io::Result<u64> {
        let mut state = self.state();
        state.drawn += 1;
        Ok(mix(!state.seed, state.drawn))
    }
}

#[derive(Debug)]
struct SimLock {
    fs: SimFs,
    id: u64,
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.fs.state();
        match state.locks.get_mut(&self.id) {
            Some(Held::Shared(readers)) if *readers > 1 => *readers -= 1,
            _ => drop(state.locks.remove(&self.id)),
        }
    }
}

/// An open file of a [`SimFs`].
struct SimFile {
    fs: SimFs,
    id: u64,
    writable: bool,
}

impl SimFile {
    fn need_writable(&self) -> io::Result<()> {
        if self.writable {
            return Ok(());
        }
        Err(io::Error::new(ErrorKind::PermissionDenied, "the file was opened for reading"))
    }

    fn write(&self, data: &[u8], offset: u64, window: bool) -> io::Result<usize> {
        self.need_writable()?;
        if data.is_empty() {
            return Ok(0);
        }
        let end = offset.checked_add(data.len() as u64).filter(|&end| i64::try_from(end).is_ok());
        let Some(end) = end else {
            return Err(io::Error::new(ErrorKind::InvalidInput, "a write beyond all files"));
        };
        let mut state = self.fs.state();
        state.need_space(self.id, end)?;
        state.run(Op::Write { id: self.id, offset, data: data.into(), window });
        Ok(data.len())
    }
}

impl File for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(self.fs.state().live(self.id).read(buf, offset))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.write(buf, offset, false)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.fs.state().live(self.id).len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.need_writable()?;
        let mut state = self.fs.state();
        state.need_space(self.id, len)?;
        state.run(Op::Allocate { id: self.id, len });
        Ok(())
    }

    fn names(&self) -> Option<u64> {
        Some(self.fs.state().disk.names_of(self.id))
    }

    fn sync(&self) -> io::Result<()> {
        self.fs.state().run(Op::Sync { id: self.id });
        Ok(())
    }

    /// A copy of the bytes as they are now.
    fn map(&self) -> io::Result<Option<SharedBytes>> {
        Ok(Some(Arc::new(self.fs.state().live(self.id).to_vec())))
    }

    fn window(&self, len: u64) -> io::Result<Option<Box<dyn Window>>> {
        self.need_writable()?;
        let mut state = self.fs.state();
        if len > state.live(self.id).len {
            return Err(io::Error::new(ErrorKind::InvalidInput, "a window beyond the end of the file"));
        }
        if len == 0 {
            return Ok(None);
        }
        let file = self.fs.handle(&mut state, self.id, true);
        Ok(Some(Box::new(SimWindow { file, len, populated: 0..0 })))
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.fs.state().disk.files[&self.id].path;
        f.debug_struct("SimFile").field("path", path).field("writable", &self.writable).finish()
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.fs.state();
        if let Some(open) = state.open.get_mut(&self.id) {
            *open -= 1;
            if *open == 0 {
                state.open.remove(&self.id);
            }
        }
    }
}

/// Stores are operations like any other write.
#[derive(Debug)]
struct SimWindow {
    file: SimFile,
    len: u64,
    populated: Range<u64>,
}

impl SimWindow {
    fn range(&self, offset: u64, len: u64) -> io::Result<Range<u64>> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(offset..end),
            _ => Err(io::Error::new(ErrorKind::InvalidInput, "outside of the window")),
        }
    }
}

impl Window for SimWindow {
    fn populate(&mut self, offset: u64, len: u64) -> io::Result<()> {
        let new = self.range(offset, len)?;
        let old = &self.populated;
        if new.is_empty() {
            return Ok(());
        }
        // One range only, as the real window keeps it.
        let apart = new.start > old.end || new.end < old.start;
        self.populated = if apart { new } else { old.start.min(new.start)..old.end.max(new.end) };
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let range = self.range(offset, bytes.len() as u64)?;
        if range.start < self.populated.start || range.end > self.populated.end {
            return Err(io::Error::new(ErrorKind::InvalidInput, "not populated"));
        }
        self.file.write(bytes, offset, true).map(|_| ())
    }
}
