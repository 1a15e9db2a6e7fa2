//! What every part of an open database shares: the commit state, the version set, the registry,
//! the snapshots, and the one way to fail for good.
//!
//! Lock order, outermost first: `keeping`, `rotation`, `version`, `commit`, `registry`, a tree's
//! `swap`; the locks of `snapshots`, `sync`, `work`, `claims`, `kept`, `left_segments` and `logs` are leaves, taken last and
//! never held across a call.

use crate::budget::Budget;
use crate::counters::{Jobs, Tally};
use crate::db::appender::{Boundary, CommitState};
use crate::db::claims::Claims;
use crate::db::clock::Moment;
use crate::db::queue::Work;
use crate::db::registry::Registry;
use crate::db::reserve::{Reserve, When};
use crate::db::salts::Salts;
use crate::db::snapshots::Snapshots;
use crate::db::stage::{Retired, SyncStage, Synced};
use crate::db::throttle::{Load, Throttle};
use crate::db::tree::Tree;
use crate::db::turn::Turn;
use crate::error::{Error, ErrorKind, Result, closed};
use crate::fs::names::Name;
use crate::fs::{Fs, Lock};
use crate::ids::{FileNo, KeyspaceId, Position, Seq};
use crate::job::pick;
use crate::journal::Segment;
use crate::log::footer::Run;
use crate::log::index::LogIndex;
use crate::log::segment::LogSegment;
use crate::memtable::{Memtable, Pool};
use crate::mutant::Mutant;
use crate::options::Options;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex};
use crate::table::Store;
use crate::version::{Change, Edit, Levels, MAX_LEVELS, SegmentState, VersionSet};
use crate::view::{View, run};
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// An open database without its threads.
pub(crate) struct Core {
    pub fs: Arc<dyn Fs>,
    pub dir: PathBuf,
    pub options: Options,
    /// The database's random id.
    pub id: u64,
    pub budget: Arc<Budget>,
    pub store: Arc<Store>,
    /// Where the entries of logs are.
    pub logs: Arc<LogIndex>,
    /// Where memtables have their memory from.
    pub pool: Arc<Pool>,
    /// The table that was closed last to keep the budget; held while tables are closed.
    pub closed_last: Mutex<FileNo>,
    pub salts: Mutex<Salts>,
    /// Held while the journal moves to its next segment.
    pub rotation: Turn,
    /// The next segment: created, announced, not yet used.
    pub next_segment: Mutex<Option<Arc<Segment>>>,
    /// Segments that nothing needs any more, for those after that.
    pub left_segments: Mutex<Vec<FileNo>>,
    /// `None` in a read-only database.
    pub version: Mutex<Option<VersionSet>>,
    /// The last durable edit, for who must not wait for the next: the lock on versions is held while that is
    /// synced.
    pub last_edit: AtomicU64,
    pub commit: Mutex<CommitState>,
    pub registry: Mutex<Registry>,
    pub throttle: Arc<Throttle>,
    pub reserve: Reserve,
    pub snapshots: Snapshots,
    pub sync: SyncStage,
    pub work: Work,
    /// Tables that are being compacted.
    pub claims: Claims,
    /// Segments whose end is known and durable, not yet written to the manifest.
    pub sealed: Mutex<Vec<(FileNo, Position, Position)>>,
    pub counters: Counters,
    /// Why no write can succeed any more.
    failed: OnceLock<Error>,
    /// No write begins any more.
    pub closed: AtomicBool,
    /// Nothing becomes durable any more.
    pub ended: AtomicBool,
    /// Held while files are [kept](crate::db::kept::Kept).
    pub keeping: Mutex<()>,
    /// While files are kept: those that are to be removed after that.
    pub kept: Mutex<Option<Vec<Name>>>,
    /// Writers that wait for room.
    pub room: (Mutex<()>, Condvar),
    /// Held until the database closes.
    pub lock: Mutex<Option<Box<dyn Lock>>>,
}

/// What is counted for the whole database since it was opened, beside what the parts count.
pub(crate) struct Counters {
    pub opened: Moment,
    pub jobs: Jobs,
    /// Edits of the manifest, the bytes they took, and the segments it names now: so that who asks
    /// need not wait for the lock on versions, which is held while the disk works.
    pub edits: Tally,
    pub manifest_bytes: Tally,
    pub segments: Tally,
    /// Something could not be written for want of space, and nothing was since.
    pub disk_full: AtomicBool,
}

impl Default for Counters {
    fn default() -> Self {
        let (jobs, opened) = (Jobs::default(), Moment::now());
        let [edits, manifest_bytes, segments] = Default::default();
        let disk_full = AtomicBool::new(false);
        Counters { opened, jobs, edits, manifest_bytes, segments, disk_full }
    }
}

/// What a job made, to become part of the database in one edit.
#[derive(Default)]
pub(crate) struct Installed {
    pub changes: Vec<Change>,
    /// Memtables that are in tables now, with their tree and the newest of their operations.
    pub flushed: Vec<(KeyspaceId, Vec<Arc<Memtable>>, Seq)>,
    /// Trees whose runs change.
    pub touched: Vec<KeyspaceId>,
    /// Entries of logs that are in another segment now.
    pub moved: Option<Moved>,
}

/// Entries of logs that were moved to a segment, with the runs they are there, and where from.
pub(crate) struct Moved {
    pub to: Arc<LogSegment>,
    pub from: Vec<(Arc<LogSegment>, Run)>,
}

impl Installed {
    /// Whether what this memtable holds is in tables with this.
    pub fn holds(&self, memtable: &Arc<Memtable>) -> bool {
        self.flushed.iter().any(|f| f.1.iter().any(|m| Arc::ptr_eq(m, memtable)))
    }
}

/// What a database is made of when it is opened.
pub(crate) struct Parts {
    pub fs: Arc<dyn Fs>,
    pub dir: PathBuf,
    pub options: Options,
    pub id: u64,
    pub store: Arc<Store>,
    pub logs: Arc<LogIndex>,
    pub pool: Arc<Pool>,
    pub salts: Salts,
    pub version: Option<VersionSet>,
    pub commit: CommitState,
    pub registry: Registry,
    pub sync: SyncStage,
    pub reserve: Reserve,
    pub lock: Option<Box<dyn Lock>>,
}

impl Core {
    pub fn new(parts: Parts) -> Core {
        Core {
            work: Work::new(parts.options.workers),
            fs: parts.fs,
            dir: parts.dir,
            options: parts.options,
            id: parts.id,
            budget: parts.pool.budget().clone(),
            store: parts.store,
            logs: parts.logs,
            pool: parts.pool,
            closed_last: Mutex::default(),
            salts: Mutex::new(parts.salts),
            rotation: Turn::default(),
            next_segment: Mutex::new(None),
            left_segments: Mutex::default(),
            last_edit: AtomicU64::new(parts.version.as_ref().map_or(0, VersionSet::last_edit)),
            version: Mutex::new(parts.version),
            commit: Mutex::new(parts.commit),
            throttle: parts.registry.throttle.clone(),
            reserve: parts.reserve,
            registry: Mutex::new(parts.registry),
            snapshots: Snapshots::default(),
            sync: parts.sync,
            claims: Claims::default(),
            sealed: Mutex::new(Vec::new()),
            counters: Counters::default(),
            failed: OnceLock::new(),
            closed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            keeping: Mutex::new(()),
            kept: Mutex::new(None),
            room: (Mutex::new(()), Condvar::new()),
            lock: Mutex::new(parts.lock),
        }
    }

    /// Latches the first fatal failure: from here on the database is read-only. Answers the error as
    /// the caller may see it: not as one after which another try could help.
    ///
    /// Under a lock; without one see [`fail`](Core::fail).
    pub fn latch(&self, e: Error) -> Error {
        let e = e.for_good();
        if self.failed.set(e.clone()).is_ok() {
            log::error!(target: "esker", "the database is read-only until reopened: {e}");
        }
        e
    }

    /// [Latches](Core::latch) the failure, and wakes everybody who waits for something that will not
    /// come. Not under the lock on commits: wakers are somebody else's code.
    pub fn fail(&self, e: Error) -> Error {
        let e = self.latch(e);
        self.tell_failed();
        e
    }

    /// Wakes everybody, if the database has failed.
    pub fn tell_failed(&self) {
        if self.failed.get().is_some() {
            self.sync.wake_all();
            self.wake_writers();
        }
    }

    /// Why no write can succeed, if so.
    pub fn failure(&self) -> Option<Error> {
        let e = self.failed.get()?;
        Some(Error::new(ErrorKind::ReadOnly, format!("read-only until reopened, because of: {e}")))
    }

    /// An error unless the database takes writes.
    #[inline]
    pub fn writable(&self) -> Result<()> {
        // Acquire is not needed: a write that slips in before the close is ordered by the commit lock.
        if self.closed.load(Ordering::Relaxed) {
            return Err(closed());
        }
        if self.options.read_only {
            return Err(Error::new(ErrorKind::ReadOnly, "the database was opened read-only"));
        }
        match self.failed.get() {
            None => Ok(()),
            Some(_) => Err(self.failure().unwrap_or_else(closed)),
        }
    }

    /// An error once the database is closed.
    #[inline]
    pub fn open(&self) -> Result<()> {
        if self.closed.load(Ordering::Relaxed) { Err(closed()) } else { Ok(()) }
    }

    /// Does what may not fail for want of space if that can be helped.
    pub fn use_reserve<T>(&self, mut what: impl FnMut() -> Result<T>) -> Result<T> {
        // Before the reserve: what is merely there to be quick.
        let what = || match what() {
            Err(e) if e.kind() == ErrorKind::DiskFull && self.drop_left_segments() => what(),
            done => done,
        };
        self.reserve.use_for(&*self.fs, &self.dir, When::Running, what)
    }

    pub fn wake_writers(&self) {
        let _guard = self.room.0.lock();
        self.room.1.notify_all();
    }

    /// A number and a random id for a new table.
    pub fn new_table(&self) -> (FileNo, u64) {
        (self.new_file(), self.salts.lock().next())
    }

    /// A number for a new file. 0 never names a file: it is what a read-only database answers, which
    /// makes none.
    pub fn new_file(&self) -> FileNo {
        self.version.lock().as_mut().map_or(FileNo(0), VersionSet::new_file_no)
    }

    /// Makes `installed` durable in the manifest, together with the segments that are sealed by now
    /// and those nobody needs any more; then swaps the views. The one place where edits are applied.
    /// What concerns a keyspace that was dropped meanwhile is left out. Answers the edit.
    pub fn install(&self, installed: Installed) -> Result<Edit> {
        self.install_with(installed, None)
    }

    /// `alone`: once this is installed nothing needs the journal before there, which is as good as durable
    /// then, whatever becomes of its segments. The caller keeps others from syncing meanwhile.
    pub fn install_with(&self, mut installed: Installed, mut alone: Option<&mut Synced>) -> Result<Edit> {
        let mut version = self.version.lock();
        let Some(set) = version.as_mut() else { return Err(closed()) };
        {
            let registry = self.registry.lock();
            installed.changes.retain(|c| match c {
                Change::AddTable { keyspace, .. }
                | Change::RemoveTable { keyspace, .. }
                | Change::Flushed { keyspace, .. } => registry.tree(*keyspace).is_some(),
                _ => true,
            });
            // What was flushed of them is in no table then, and needs the journal as before: a power
            // loss may take the drop back.
            installed.flushed.retain(|f| registry.tree(f.0).is_some());
        }
        let mut sealed: Vec<_> = self.sealed.lock().clone();
        // Read before the pins: a commit that is being applied right now lies behind it.
        let (mut durable, mut last_seq) = self.sync.durable_position();
        let mut unsynced: Vec<Retired> = Vec::new();
        if let Some(synced) = &mut alone {
            let boundary = Boundary { position: synced.durable, seq: synced.seq };
            if !self.is_needless_before(boundary, &|m| installed.holds(m)) {
                // A keyspace was dropped just now, and is not flushed.
                **synced = self.sync_once()?;
            }
            (durable, last_seq) = (durable.max(synced.durable), last_seq.max(synced.seq));
            unsynced = self.commit.lock().take_retired(durable);
            // As good as sealed, and gone with this edit.
            sealed.extend(unsynced.iter().map(|r| (r.segment.no(), r.start, r.end)));
        }
        let mut floor = self.needed_from(durable, &|m| installed.holds(m));
        let changes = &mut installed.changes;
        changes.extend(sealed.iter().map(|&(no, start, end)| Change::SegmentSealed { no, start, end }));
        if Mutant::DeleteSegmentEarly.on() {
            floor = durable;
        }
        let taken_back = |c: &Change| if let Change::SegmentGone { no } = c { Some(*no) } else { None };
        let mut gone: BTreeSet<FileNo> = changes.iter().filter_map(taken_back).collect();
        changes.retain(|c| taken_back(c).is_none());
        let behind = self.settle_segments(set, (floor, last_seq), changes, &mut gone);
        gone.extend(sealed.iter().filter(|s| s.2 <= floor && !self.logs.needs(s.0, last_seq)).map(|s| s.0));
        changes.extend(gone.iter().map(|&no| Change::SegmentGone { no }));
        set.set_next_keyspace(self.registry.lock().next_id);
        let edit = Edit { durable, last_seq, changes: installed.changes };
        if Mutant::RemoveInputsEarly.on() {
            let removed = edit.changes.iter().filter_map(|c| match c {
                Change::RemoveTable { no, .. } if !edit.adds(*no) => Some(*no),
                _ => None,
            });
            for no in removed {
                self.remove_file(Name::Table(no));
            }
        }
        let applied = set.apply(&edit);
        // Release: pairs with the load of who activates a segment.
        self.last_edit.store(set.last_edit(), Ordering::Release);
        self.counters.edits.set(set.edits());
        self.counters.manifest_bytes.set(set.bytes_written());
        self.counters.segments.set(set.state().segments.len() as u64);
        if let Some(e) = set.failed() {
            // If the edit was applied it is durable, but the last one: its manifest could not be
            // replaced.
            self.latch(e.clone());
        }
        if let Err(e) = applied {
            self.commit.lock().retired.splice(..0, unsynced);
            drop(version);
            self.tell_failed();
            return Err(e);
        }
        debug_assert_eq!(set.state().check_changed(&edit).map_err(|e| e.to_string()), Ok(()));
        self.sealed.lock().retain(|s| !sealed.contains(s));
        self.throttle.needed_from(behind);
        if let Some(Moved { to, from }) = &installed.moved {
            // Before files go: whoever does not find one looks here again.
            from.iter().for_each(|(from, run)| self.logs.moved(from, to, run));
        }
        let old_views = self.swap_views(set, &edit, &installed.flushed, &installed.touched);
        drop(version);
        self.tell_failed();
        // With the last view that holds it, a table's file is removed: not under a lock.
        drop((old_views, unsynced));
        for (no, start, end) in sealed {
            if let Some(segment) = self.logs.known_segment(no) {
                segment.finish();
                self.work.want_logs();
            }
            log::debug!(target: "esker", "sealed journal segment {no}: from {start} to {end}");
        }
        gone.into_iter().for_each(|no| self.let_go(no));
        Ok(edit)
    }

    /// What becomes of sealed segments when memtables need the journal from `floor` on: some are gone,
    /// some are for logs only from here on. Answers from where on it would have to be replayed, if only
    /// for want of a footer.
    fn settle_segments(
        &self,
        set: &VersionSet,
        (floor, last_seq): (Position, Seq),
        changes: &mut Vec<Change>,
        gone: &mut BTreeSet<FileNo>,
    ) -> Position {
        let mut behind = floor;
        for (&no, state) in &set.state().segments {
            match *state {
                _ if gone.contains(&no) => {}
                SegmentState::Sealed { end, .. } if end > floor => {}
                SegmentState::Announced { .. } => {}
                _ if !self.logs.needs(no, last_seq) => _ = gone.insert(no),
                SegmentState::Sealed { start, .. } => {
                    if self.logs.has_footer(no) {
                        changes.push(Change::SegmentForLogs { no });
                    } else {
                        behind = behind.min(start);
                    }
                }
                SegmentState::ForLogs { .. } | SegmentState::Cold { .. } => {}
            }
        }
        behind
    }

    /// Removes a file nobody needs, or has it removed when files are no longer kept; one that stays is
    /// found by the next open. Whether it was there and is gone.
    pub fn remove_file(&self, name: Name) -> bool {
        if let Some(kept) = &mut *self.kept.lock() {
            kept.push(name);
            return false;
        }
        let path = name.path(&self.dir);
        match self.fs.remove(&path) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(e) => {
                log::warn!(target: "esker", "{}", Error::io("removing a file", &path, e));
                false
            }
        }
    }

    /// An id for a new keyspace. Ids never return.
    pub fn new_keyspace_id(&self) -> Result<KeyspaceId> {
        let mut registry = self.registry.lock();
        let id = registry.next_id;
        registry.next_id =
            id.checked_add(1).ok_or_else(|| Error::invalid("the ids of keyspaces are used up"))?;
        Ok(KeyspaceId(id))
    }

    /// Answers the views that were replaced.
    fn swap_views(
        &self,
        set: &VersionSet,
        edit: &Edit,
        flushed: &[(KeyspaceId, Vec<Arc<Memtable>>, Seq)],
        touched: &[KeyspaceId],
    ) -> Vec<Arc<View>> {
        let mut replaced = Vec::with_capacity(touched.len());
        let taken_away = |c: &Change| match c {
            // A table that is added in the same edit has moved to another level.
            Change::RemoveTable { no, .. } if !edit.adds(*no) => Some(*no),
            _ => None,
        };
        let removed: Vec<FileNo> = edit.changes.iter().filter_map(taken_away).collect();
        for &id in touched {
            let Some(tree) = self.registry.lock().tree(id).cloned() else { continue };
            let Some(state) = set.state().keyspaces.get(&id) else { continue };
            let gone = flushed.iter().find(|f| f.0 == id).map_or(&[][..], |f| &f.1);
            let old = tree.view.load_full();
            tree.install(
                |view| run::runs(&state.levels, &self.store, &view.runs),
                gone,
                state.flushed,
                self.levels_load(&tree, &state.levels),
            );
            for table in old.runs.iter().flat_map(|r| r.tables.iter()) {
                if removed.contains(&table.meta.no) {
                    table.handle.obsolete();
                }
            }
            replaced.push(old);
        }
        replaced
    }

    /// How far behind compaction is in these levels.
    fn levels_load(&self, tree: &Tree, levels: &Levels) -> Load {
        let options = self.pick_options();
        let excess = pick::excess(levels, &options);
        tree.counters.excess.set(excess);
        Load::levels(excess, (0..MAX_LEVELS as u8).map(|level| levels.bytes(level)).sum(), options.level_base)
    }

    /// The journal position from which on memtables still need it, were those in tables that `flushed`
    /// says.
    pub fn needed_from(&self, end: Position, flushed: &dyn Fn(&Arc<Memtable>) -> bool) -> Position {
        let registry = self.registry.lock();
        // A dropped tree counts until the manifest has forgotten it: until then the drop itself may
        // not be durable.
        let trees = registry.trees().chain(registry.dropped.iter().map(|d| &d.tree));
        let mut floor = end;
        for tree in trees {
            for mem in &tree.view.load().memtables {
                if let Some(pin) = mem.pinned()
                    && !flushed(&mem.table)
                {
                    floor = floor.min(pin);
                }
            }
        }
        floor
    }

    /// Whether nothing needs the journal before `boundary`, were those memtables in tables that `flushed`
    /// says: no other memtable, and no entry of a log.
    pub fn is_needless_before(&self, boundary: Boundary, flushed: &dyn Fn(&Arc<Memtable>) -> bool) -> bool {
        let Boundary { position, seq } = boundary;
        let retired = self.commit.lock().retired_until(position);
        let in_logs = retired.into_iter().any(|no| self.logs.needs(no, seq));
        (!in_logs && self.needed_from(position, flushed) >= position) || Mutant::FlushIgnoresOthers.on()
    }

    /// Lets go of trees only reads before `oldest` could see.
    pub fn forget_before(&self, oldest: Seq) {
        let forgotten = self.registry.lock().forget_before(oldest);
        // With the last tree that holds it, a table's file is removed: not under a lock.
        drop(forgotten);
    }
}
