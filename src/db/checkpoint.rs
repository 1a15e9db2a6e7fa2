//! Checkpoints: a copy of the database in another directory, by links, while writes go on.
//!
//! The journal moves on to a fresh segment. At that moment the state of the manifest and the
//! segments behind the journal are every commit up to there and none after it: no table can hold a
//! later one, for tables are installed under the lock that is held meanwhile. Those segments are
//! synced and sealed, so nothing is ever written to them again, and tables never change: both can
//! be shared with the copy by a second name. The manifest of that state comes last and is synced
//! together with all names: without a complete one files are refused, and so is a manifest whose
//! files are missing. What a crash leaves behind is no database, or the whole.

use crate::db::clock;
use crate::db::core::{Core, Installed};
use crate::db::events::Took;
use crate::db::handle::Db;
use crate::db::kept::Kept;
use crate::db::open;
use crate::error::{Error, Result, closed};
use crate::fs::names::Name;
use crate::fs::{read_exact_at, write_all_at};
use crate::ids::{FileNo, Seq};
use crate::journal::Segment;
use crate::mutant::Mutant;
use crate::version::{self, SegmentState, State};
use crate::view::View;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

/// Where files cannot be linked they are copied in pieces of this size.
const PIECE: usize = 1 << 20;

impl Db {
    /// Makes a copy in the directory `dir`, a database of its own that can be opened at once and
    /// shares nothing with this one but the id. Answers the sequence number up to which it holds
    /// every commit, over all keyspaces, and none after. The copy survives power loss when this
    /// returns, and so does everything in it here, with any [durability](crate::Durability).
    ///
    /// `dir` is created; it may exist if it is empty, and must not lie in the database's own
    /// directory. Tables and journal are linked, which takes no space until this database lets go
    /// of them, and as much time as there are files; they are copied where the file system cannot
    /// link, also to another one. Writes go on meanwhile; two syncs of the journal are made.
    /// Checkpoints wait for each other.
    ///
    /// After an error everything that was made in `dir` is removed again but an empty lock file, if
    /// the system lets it. What an interrupted call leaves behind is refused by an open as a
    /// database without a manifest, or, if nothing of it had come to be, an empty directory.
    ///
    /// Errors: [`Invalid`](crate::ErrorKind::Invalid) if `dir` is not empty,
    /// [`Locked`](crate::ErrorKind::Locked) if somebody is at it,
    /// [`ReadOnly`](crate::ErrorKind::ReadOnly) from a database that cannot write,
    /// [`DiskFull`](crate::ErrorKind::DiskFull), after which another try may succeed.
    pub fn checkpoint(&self, dir: impl AsRef<Path>) -> Result<Seq> {
        let (dir, began) = (dir.as_ref(), clock::Moment::now());
        let seq = self.core().checkpoint(dir)?;
        let took = Took(began.elapsed());
        log::info!(target: "esker", "checkpoint of all up to {seq} in {}, took {took}", dir.display());
        Ok(seq)
    }
}

impl Core {
    fn checkpoint(&self, dir: &Path) -> Result<Seq> {
        self.writable()?;
        if dir.starts_with(&self.dir) {
            return Err(Error::invalid("a checkpoint within the database's own directory").in_file(dir));
        }
        let _kept = Kept::new(self);
        let fs = &*self.fs;
        let _lock = open::enter(fs, dir, false)?;
        let names = fs.list(dir).map_err(|e| Error::io("listing the directory", dir, e))?;
        if names.iter().any(|(name, _)| Name::parse(name) != Some(Name::Lock)) {
            return Err(Error::invalid("the directory for a checkpoint is not empty").in_file(dir));
        }
        let Moment { seq, mut state, _views } = self.moment()?;
        let mut copy = Copy { core: self, dir, made: Vec::new() };
        for (name, len) in files(&state) {
            copy.add(name, len)?;
        }
        if !Mutant::CheckpointUnsynced.on() {
            open::sync_names(fs, dir)?;
        }
        let (salt, far) = {
            let mut salts = self.salts.lock();
            (salts.next(), salts.next())
        };
        state.next_file = FileNo(state.next_file.0 + apart(far));
        copy.made.push(Name::Manifest(state.next_file));
        version::found(fs, dir, state, salt)?;
        copy.made.clear();
        Ok(seq)
    }

    /// Parts the journal: what is before is sealed and part of the copy.
    fn moment(&self) -> Result<Moment> {
        // Most of what is to be synced, while nobody waits for it.
        self.sync_to(self.snapshots.visible())?;
        let _rotation = self.rotation.lock();
        // Under the lock: a close waits for what is under way.
        self.writable()?;
        // From here on only the active segment is not ready to be sealed.
        self.sync_all()?;
        let spare = self.spare_segment()?;
        let parted = self.part(spare);
        self.tell_failed();
        let (seq, state, views) = parted?;
        self.work.want_segment();
        self.sync_all()?;
        // Once the manifest knows them as sealed, not even recovery writes to them.
        self.install(Installed::default())?;
        Ok(Moment { seq, state, _views: views })
    }

    /// The last sequence number, the state of all that is up to there, and views that keep its tables.
    fn part(&self, spare: Arc<Segment>) -> Result<(Seq, State, Vec<Arc<View>>)> {
        let version = self.version.lock();
        let set = version.as_ref().ok_or_else(closed)?;
        // Before the journal moves: from then on a sync may add the segment that is left.
        let mut sealed = self.sealed.lock().clone();
        let seq = self.leave_segment(spare, set.last_edit(), &mut sealed)?;
        let mut state = set.state().sealed(&sealed, seq)?;
        state.next_keyspace = state.next_keyspace.max(self.registry.lock().next_id);
        Ok((seq, state, self.all_views()))
    }
}

/// How far ahead the copy begins to number its files. Both have one id, so nothing else tells what the
/// one left on the disk, when it is removed, from what the other writes there next.
fn apart(random: u64) -> u64 {
    (1 + random % (1 << 16)) << 20
}

/// What the copy is to hold.
struct Moment {
    seq: Seq,
    state: State,
    /// Tables go with their last view; [`Kept`] keeps all other files.
    _views: Vec<Arc<View>>,
}

/// The files that `state` names, with so many bytes as it speaks of; footers, of which it does not, whole.
fn files(state: &State) -> Vec<(Name, Option<u64>)> {
    let tables = state.keyspaces.values().flat_map(|k| k.levels.tables());
    let mut files: Vec<_> = tables.map(|(_, table)| (Name::Table(table.no), Some(table.size))).collect();
    for (&no, segment) in &state.segments {
        files.extend(segment.len().map(|len| (Name::Journal(no), Some(len))));
        if matches!(segment, SegmentState::ForLogs { .. } | SegmentState::Cold { .. }) {
            files.push((Name::Footer(no), None));
        }
    }
    files
}

/// The directory being filled. What was made is removed if it does not become whole.
struct Copy<'a> {
    core: &'a Core,
    dir: &'a Path,
    made: Vec<Name>,
}

impl Copy<'_> {
    /// Gives a file that never changes a second name, or copies its first `len` bytes.
    fn add(&mut self, name: Name, len: Option<u64>) -> Result<()> {
        self.core.open()?;
        let (from, to) = (name.path(&self.core.dir), name.path(self.dir));
        self.made.push(name);
        match self.core.fs.link(&from, &to) {
            Ok(()) => Ok(()),
            // It could not be written when it was made again. Who opens the copy makes it once more.
            Err(e) if e.kind() == ErrorKind::NotFound && matches!(name, Name::Footer(_)) => Ok(()),
            Err(e) if cannot_link(e.kind()) => self.copy(&from, &to, len),
            Err(e) => Err(Error::io("linking a file into the checkpoint", &to, e)),
        }
    }

    fn copy(&self, from: &Path, to: &Path, len: Option<u64>) -> Result<()> {
        let fs = &*self.core.fs;
        let source = fs.open_read(from).map_err(|e| Error::io("opening a file to copy", from, e))?;
        let len = len.map_or_else(|| source.len(), Ok);
        let len = len.map_err(|e| Error::io("asking for the length of", from, e))?;
        let made = fs.create(to).map_err(|e| Error::io("creating a copy", to, e))?;
        let mut piece = vec![0; PIECE.min(usize::try_from(len).unwrap_or(PIECE))];
        let mut at = 0;
        while at < len {
            self.core.open()?;
            let n = (len - at).min(piece.len() as u64) as usize;
            let read = read_exact_at(&*source, &mut piece[..n], at);
            read.map_err(|e| Error::io("reading a file to copy", from, e))?;
            let written = write_all_at(&*made, &piece[..n], at);
            written.map_err(|e| Error::io("writing a copy", to, e))?;
            at += n as u64;
        }
        made.sync().map_err(|e| Error::io("syncing a copy", to, e))
    }
}

/// Whether bytes can be copied where this says that a link cannot be made.
fn cannot_link(e: ErrorKind) -> bool {
    // Some systems answer EPERM for file systems without links.
    let kinds = [
        ErrorKind::Unsupported,
        ErrorKind::CrossesDevices,
        ErrorKind::PermissionDenied,
        ErrorKind::TooManyLinks,
    ];
    kinds.contains(&e)
}

impl Drop for Copy<'_> {
    fn drop(&mut self) {
        // The manifest first: without it nothing passes for a database.
        for name in self.made.drain(..).rev() {
            let path = name.path(self.dir);
            match self.core.fs.remove(&path) {
                Err(e) if e.kind() != ErrorKind::NotFound => {
                    log::warn!(target: "esker", "{}", Error::io("removing part of a checkpoint", &path, e));
                }
                _ => {}
            }
        }
    }
}
