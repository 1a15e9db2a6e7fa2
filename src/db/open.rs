//! Opening and closing: from a directory to a running database and back.
//!
//! Every step of an open may be the last before a crash; each leaves a directory that the next open
//! takes for what it is:
//!
//! 1. The directory and its lock file. Nothing in them decides anything.
//! 2. The newest manifest with a complete snapshot tells what there is. None, and no segment and no
//!    table: the database is new.
//! 3. The journal is replayed into memtables. Its tail is written again and synced where nothing
//!    synced vouches for it (the bytes do not change).
//! 4. A new manifest with that state, in which the segments are sealed, or gone if nothing needs them:
//!    complete and synced before it counts, ignored until then.
//! 5. Files it does not name are removed.
//! 6. A new segment, its name synced, then the edit that announces it.

use crate::batch::{Op, decode};
use crate::budget::Budget;
use crate::cache::Cache;
use crate::db::appender::{CommitState, Look, Source, Writers};
use crate::db::core::Core;
use crate::db::logwork;
use crate::db::registry::{Registry, Unborn};
use crate::db::reserve::{Reserve, When};
use crate::db::salts::Salts;
use crate::db::stage::SyncStage;
use crate::db::throttle::STOP;
use crate::db::throttle::Throttle;
use crate::db::tree::Tree;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::names::Name;
use crate::fs::{Fs, Lock};
use crate::ids::{FileNo, KeyspaceId, Position, Seq};
use crate::journal::{self, Announced, Hint, Recover, Whole};
use crate::log::extent::LogKey;
use crate::log::footer::Run;
use crate::log::head::{self, Head};
use crate::log::index::LogIndex;
use crate::log::segment::{Access, LogSegment};
use crate::log::tail::Tail;
use crate::memtable::Pool;
use crate::mutant::Mutant;
use crate::options::Options;
use crate::sync::Mutex;
use crate::sync::atomic::Ordering;
use crate::table::{ReadOptions, Store};
use crate::version::{self, Change, Edit, KeyspaceState, SegmentState, State, VersionSet};
use crate::view::run::{self, Passage};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// At close, a journal that would take longer to replay than this is flushed.
const CLOSE_REPLAY_BYTES: u64 = 1 << 20;
/// Segments of logs are looked at as often as that part of one has died.
const LOOKS: u64 = 16;

/// What opening found and did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Recovery {
    /// Whether the database was created.
    pub created: bool,
    /// Commits read from the journal.
    pub commits: u64,
    /// Bytes of journal read.
    pub bytes: u64,
    /// The tail of the journal that a crash had cut off, if there was one. It held no commit that
    /// was acknowledged as durable.
    pub torn: Option<TornTail>,
    /// Bytes at the end of the journal that were written again, because nothing vouched for their
    /// being on disk.
    pub rewritten: u64,
    /// Files that were left over, and removed.
    pub removed: u64,
}

/// The end of a journal that was being written when the machine stopped.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TornTail {
    /// The segment's file.
    pub file: PathBuf,
    /// Where in the file it begins.
    pub offset: u64,
    /// About how many bytes were there.
    pub bytes: u64,
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.created {
            return f.write_str("created");
        }
        write!(f, "replayed {} commits from {} bytes of journal", self.commits, self.bytes)?;
        if let Some(torn) = &self.torn {
            write!(f, ", cut off a torn tail of {} bytes at {}", torn.bytes, torn.offset)?;
        }
        Ok(())
    }
}

/// What a directory holds, told from names alone.
#[derive(Default)]
struct Listing {
    files: BTreeMap<Name, u64>,
}

impl Listing {
    fn read(fs: &dyn Fs, dir: &Path) -> Result<Listing> {
        let mut listing = Listing::default();
        let names = fs.list(dir).map_err(|e| Error::io("listing the directory", dir, e))?;
        for (name, len) in names {
            match (Name::parse(&name), len) {
                (Some(name), Some(len)) => {
                    listing.files.insert(name, len);
                }
                _ => {
                    let message = "a file in the directory is not the database's";
                    return Err(Error::invalid(message).in_file(&dir.join(name)));
                }
            }
        }
        Ok(listing)
    }

    fn numbers(&self, of: impl Fn(FileNo) -> Name) -> Vec<(FileNo, u64)> {
        let number =
            |(name, len): (&Name, &u64)| name.number().filter(|&no| of(no) == *name).map(|no| (no, *len));
        self.files.iter().filter_map(number).collect()
    }

    fn highest(&self) -> FileNo {
        self.files.keys().filter_map(|name| name.number()).max().unwrap_or_default()
    }
}

pub(crate) fn open(dir: &Path, options: Options) -> Result<(Arc<Core>, Recovery)> {
    options.check()?;
    let fs = options.fs.clone();
    let lock = enter(&*fs, dir, options.read_only)?;
    let listing = Listing::read(&*fs, dir)?;
    let (mut state, counts) = load_state(&*fs, dir, &listing)?;
    let created = counts.is_none();
    if created && options.read_only {
        return Err(Error::new(ErrorKind::Io, "there is no database to open read-only").in_file(dir));
    }
    if created {
        // Before there is anything in it that could be relied on.
        sync_names(&*fs, dir)?;
    }
    check_tables(dir, &state, &listing)?;
    check_segments(&*fs, dir, &state, &listing)?;
    let segments = announced(&state);
    let Places { pool, store, logs } = places(dir, &options);
    // What a table holds that cannot be used has no place of its own.
    let build = Build::new(&state, &store, (&pool, &logs), &options);
    let mut build = build.map_err(|e| e.in_file(dir))?;
    build.read_footers(&state, options.read_only)?;
    let report = journal::recover(
        Recover {
            fs: &*fs,
            dir,
            db: state.db,
            segments: &segments,
            durable: state.durable,
            hint: journal::read_hint(&*fs, dir, state.db),
            last_edit: state.edit,
            start: state.sealed_end,
            persist: !options.read_only,
        },
        &mut |record| build.replay(&record),
    )?;
    let mut recovery = Recovery {
        created,
        commits: report.records,
        bytes: report.bytes,
        torn: report.torn.as_ref().map(|t| TornTail {
            file: t.path.clone(),
            offset: t.offset,
            bytes: t.bytes,
        }),
        rewritten: report.persisted,
        removed: 0,
    };
    build.settle_logs().map_err(|e| e.in_file(dir))?;
    let Build { registry, writers, last_seq, needed, .. } = build;
    // What is left belongs to keyspaces that were dropped.
    registry.lock().unborn.clear();
    let last_seq =
        if Mutant::ReuseSequenceNumber.on() { state.last_seq } else { last_seq.max(state.last_seq) };
    let mut salts = Salts::new(random(&*fs, dir)?);
    let reserve = Reserve::new(options.segment_bytes, |name| listing.files.contains_key(&name));
    let (mut version, mut hint) = (None, None);
    if !options.read_only {
        if listing.highest() >= state.next_file && !Mutant::ReuseFileNumber.on() {
            state.saw_file(listing.highest())?;
        }
        let changes = opening_changes(&state, last_seq, &report, &needed, (&registry.lock(), &logs));
        let edit = Edit { durable: report.end, last_seq, changes };
        let begun = if edit.changes.is_empty() { state.clone() } else { state.after(&edit)? };
        version = Some(open_versions(&fs, dir, &begun, &listing, counts, &reserve, &mut salts)?);
        let open = || Hint::open(&*fs, dir, state.db, options.mapped);
        hint = Some(reserve.use_for(&*fs, dir, When::Opening, open)?);
    }
    let core = Arc::new(Core::new(crate::db::core::Parts {
        fs,
        dir: dir.into(),
        options,
        id: state.db,
        store,
        logs,
        pool,
        salts,
        version,
        commit: CommitState::new(report.end, last_seq, writers),
        registry: registry.into_inner(),
        sync: SyncStage::new(report.durable, last_seq, hint),
        reserve,
        lock,
    }));
    core.snapshots.publish(last_seq);
    core.snapshots.publish_durable(last_seq);
    if !core.options.read_only {
        recovery.removed = begin(&core, &state, &report, &listing)?;
        queue_left_work(&core);
    }
    Ok((core, recovery))
}

/// Where memtables, tables and entries of logs are.
struct Places {
    pool: Arc<Pool>,
    store: Arc<Store>,
    logs: Arc<LogIndex>,
}

/// All of them within one budget.
fn places(dir: &Path, options: &Options) -> Places {
    let budget = Budget::new(options.memory_bytes, options.open_files);
    let cache = Cache::within(&budget, options.cache_bytes);
    let read = ReadOptions { mapped: options.mapped };
    let store = Store::new(options.fs.clone(), dir.into(), cache, read);
    let access =
        Access { fs: options.fs.clone(), dir: dir.into(), budget: budget.clone(), mapped: options.mapped };
    let tail = Tail::new(options.log_cache(), &budget);
    let logs = Arc::new(LogIndex::new(access, tail, options.segment_bytes / LOOKS));
    Places { pool: Pool::new(options.memtable_limit() * STOP, &budget), store, logs }
}

/// The segments of the journal, as recovery wants to know them.
pub(crate) fn announced(state: &State) -> Vec<Announced> {
    let announced = |(&no, state): (&FileNo, &SegmentState)| match *state {
        SegmentState::Announced { salt } => Some(Announced { no, salt, sealed: None }),
        SegmentState::Sealed { salt, start, end } => Some(Announced { no, salt, sealed: Some((start, end)) }),
        SegmentState::ForLogs { .. } | SegmentState::Cold { .. } => None,
    };
    state.segments.iter().filter_map(announced).collect()
}

/// The segments that only entries of logs are in.
pub(crate) fn for_logs(state: &State) -> Vec<Whole> {
    let whole = |(&no, segment): (&FileNo, &SegmentState)| match *segment {
        SegmentState::ForLogs { salt, start, .. } => Some(Whole { no, salt, start, len: segment.len()? }),
        SegmentState::Cold { salt, len } => Some(Whole { no, salt, start: Position(0), len }),
        SegmentState::Announced { .. } | SegmentState::Sealed { .. } => None,
    };
    state.segments.iter().filter_map(whole).collect()
}

/// The directory and its lock.
pub(crate) fn enter(fs: &dyn Fs, dir: &Path, read_only: bool) -> Result<Option<Box<dyn Lock>>> {
    if !read_only {
        fs.create_dir_all(dir).map_err(|e| Error::io("creating the directory", dir, e))?;
        // Somebody else's folder stays as it is, without so much as a lock file of ours.
        Listing::read(fs, dir)?;
    }
    let path = Name::Lock.path(dir);
    match fs.lock(&path, read_only) {
        Ok(lock) => Ok(Some(lock)),
        Err(e) if e.kind() == io::ErrorKind::NotFound && read_only => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
            Err(Error::new(ErrorKind::Locked, format!("the database is open elsewhere: {e}")).in_file(dir))
        }
        Err(e) => Err(Error::io("locking the database", &path, e)),
    }
}

/// Makes the directory's own name survive, and those of the directories above it, which may be as
/// new: made just now, or by a creation that was interrupted.
pub(crate) fn sync_names(fs: &dyn Fs, dir: &Path) -> Result<()> {
    for above in dir.ancestors().skip(1).filter(|_| !Mutant::SkipDirSyncOfParent.on()) {
        match fs.sync_dir(above) {
            Ok(()) => {}
            // What is above one that may not be opened was not made by us.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => break,
            Err(e) => return Err(Error::io("syncing the directory", above, e)),
        }
    }
    Ok(())
}

/// The new manifest. On a full disk everything else that could give space back goes first.
fn open_versions(
    fs: &Arc<dyn Fs>,
    dir: &Path,
    state: &State,
    listing: &Listing,
    counts: Option<FileNo>,
    reserve: &Reserve,
    salts: &mut Salts,
) -> Result<VersionSet> {
    let old: Vec<FileNo> = listing.numbers(Name::Manifest).into_iter().map(|(no, _)| no).collect();
    let mut begin = || {
        let mut more = Salts::new(salts.next());
        VersionSet::open(fs.clone(), dir, state.clone(), &old, Box::new(move || more.next()))
    };
    match reserve.use_for(&**fs, dir, When::Opening, &mut begin) {
        Err(e) if e.kind() == ErrorKind::DiskFull && old.len() > 1 => {
            // Openings that were interrupted leave more than one. What takes the place of another
            // must be durable before that goes.
            let counts = counts.ok_or(e)?;
            let path = Name::Manifest(counts).path(dir);
            let synced = fs.open_write(&path).and_then(|file| file.sync()).and_then(|()| fs.sync_dir(dir));
            synced.map_err(|e| Error::io("syncing the manifest", &path, e))?;
            for no in old.iter().filter(|&&no| no != counts) {
                let path = Name::Manifest(*no).path(dir);
                fs.remove(&path).map_err(|e| Error::io("removing an old manifest", &path, e))?;
            }
            begin()
        }
        opened => opened,
    }
}

/// A number to draw ids and salts from.
fn random(fs: &dyn Fs, dir: &Path) -> Result<u64> {
    fs.random().map_err(|e| Error::io("drawing a random number", dir, e))
}

/// What the newest manifest says, and which that is; a new state if this is no database yet.
fn load_state(fs: &dyn Fs, dir: &Path, listing: &Listing) -> Result<(State, Option<FileNo>)> {
    if let Some(loaded) = version::load(fs, dir, &listing.numbers(Name::Manifest))? {
        if let Some((offset, bytes)) = loaded.torn {
            log::info!(target: "esker", "the manifest ends in an edit of {bytes} bytes at {offset} that was never completed");
        }
        for no in loaded.incomplete {
            log::info!(target: "esker", "the creation of manifest {no} was interrupted");
        }
        return Ok((loaded.state, Some(loaded.no)));
    }
    let data =
        listing.files.keys().find(|n| matches!(n, Name::Journal(_) | Name::Table(_) | Name::Footer(_)));
    match data {
        Some(name) => {
            Err(Error::corruption("the directory holds data but no manifest").in_file(&name.path(dir)))
        }
        None => Ok((State::new(random(fs, dir)?), None)),
    }
}

/// Every table the manifest names must be there, as long as it was.
fn check_tables(dir: &Path, state: &State, listing: &Listing) -> Result<()> {
    for (_, table) in state.keyspaces.values().flat_map(|k| k.levels.tables()) {
        let name = Name::Table(table.no);
        match listing.files.get(&name) {
            Some(len) if *len == table.size => {}
            Some(len) => {
                let message = format!("a table has {len} bytes instead of {}", table.size);
                return Err(Error::corruption(message).in_file(&name.path(dir)));
            }
            None => return Err(Error::corruption("a table is missing").in_file(&name.path(dir))),
        }
    }
    Ok(())
}

/// So must every segment: its name was synced before the manifest announced it, and is removed only
/// after the manifest says so. One that came back after that is older than the manifest's last edit:
/// a newer one tells that the manifest is not the newest.
fn check_segments(fs: &dyn Fs, dir: &Path, state: &State, listing: &Listing) -> Result<()> {
    for (&no, segment) in &state.segments {
        let name = Name::Journal(no);
        let Some(&has) = listing.files.get(&name) else {
            return Err(Error::corruption("a journal segment is missing").in_file(&name.path(dir)));
        };
        let replayed = matches!(segment, SegmentState::Announced { .. } | SegmentState::Sealed { .. });
        if let Some(len) = segment.len().filter(|&len| has < len && !replayed) {
            let why = format!("the file was cut: it had at least {len} bytes");
            return Err(Error::corruption(why).at(&name.path(dir), has));
        }
    }
    let unnamed = listing.numbers(Name::Journal).into_iter().map(|(no, _)| no);
    for no in unnamed.filter(|no| !state.segments.contains_key(no)) {
        let saw = journal::last_edit(fs, dir, state.db, no)?;
        if let Some(saw) = saw.filter(|saw| *saw > state.edit) {
            let last = state.edit;
            let why = format!("the manifest ends at edit {last}, but the journal saw edit {saw}");
            return Err(Error::corruption(why).in_file(&Name::Journal(no).path(dir)));
        }
    }
    Ok(())
}

/// Trees being filled from tables and journal.
struct Build {
    memtable_bytes: usize,
    journal_bytes: u64,
    registry: Mutex<Registry>,
    throttle: Arc<Throttle>,
    writers: Writers,
    logs: Arc<LogIndex>,
    /// What footers name of each log.
    runs: HashMap<LogKey, Vec<(Arc<LogSegment>, Run)>>,
    /// The segment of the record before.
    segment: FileNo,
    last_seq: Seq,
    /// What was asked last: a keyspace, and up to where its operations are in tables.
    flushed: (KeyspaceId, Seq),
    /// Segments with operations that are in no table.
    needed: HashSet<FileNo>,
}

impl Build {
    /// The catalog, from its tables, and a memtable for every keyspace it names.
    fn new(
        state: &State,
        store: &Arc<Store>,
        (pool, logs): (&Arc<Pool>, &Arc<LogIndex>),
        options: &Options,
    ) -> Result<Build> {
        let (memtable_bytes, journal_bytes) = (options.memtable_limit(), options.journal_bytes);
        let mut registry = Registry::new(pool);
        let throttle = Arc::new(Throttle::new(memtable_bytes, journal_bytes));
        registry.throttle = throttle.clone();
        registry.next_id = state.next_keyspace.max(1);
        for (&id, KeyspaceState { flushed, levels }) in &state.keyspaces {
            let runs = run::runs(levels, store, &[]);
            registry.unborn.insert(id, Unborn { runs, flushed: *flushed });
        }
        let mut writers = Writers::new(pool, logs);
        let catalog = registry.make_catalog();
        let flushed = catalog.tree.view.load().flushed;
        let mut rows = catalog.tree.view.load().scan(Seq::MAX, Default::default(), Passage::Lent);
        writers.add(catalog);
        rows.seek_first()?;
        while rows.valid() {
            if let Some(made) = registry.put(rows.key(), rows.value(), Seq::ZERO)? {
                writers.add(made);
            }
            rows.next()?;
        }
        Ok(Build {
            memtable_bytes,
            journal_bytes,
            registry: Mutex::new(registry),
            throttle,
            writers,
            logs: logs.clone(),
            runs: HashMap::new(),
            segment: FileNo(0),
            last_seq: Seq::ZERO,
            flushed: (KeyspaceId::CATALOG, flushed),
            needed: HashSet::new(),
        })
    }

    fn replay(&mut self, record: &journal::Replayed<'_>) -> Result<()> {
        let first = record.first_seq;
        let damaged = |e: Error| e.context(format_args!("the commit of sequence number {first}"));
        // Counted first: a record whose number of operations lies would shift the numbers of all. Entries are
        // held against their own checksums when they are read.
        let mut count = 0;
        for op in decode(record.payload) {
            if let (_, Op::Log(op)) = op.map_err(damaged)? {
                op.check_shape().map_err(damaged)?;
            }
            count += 1;
        }
        if count != record.count {
            return Err(damaged(Error::corruption("it does not hold as many operations as its record says")));
        }
        if self.segment != record.segment {
            let (salt, start) = (record.salt, record.start);
            self.writers.enter(Source { no: record.segment, salt, start, file: None, known: None });
            self.segment = record.segment;
        }
        let mut needed = false;
        let applied =
            self.writers.apply(record.payload, first, record.position, &self.registry, |tree, seq| {
                if self.flushed.0 != tree.id {
                    self.flushed = (tree.id, tree.view.load().flushed);
                }
                let in_tables = seq <= self.flushed.1;
                needed |= !in_tables;
                in_tables
            });
        applied.map_err(damaged)?;
        if needed {
            self.needed.insert(record.segment);
        }
        self.last_seq = first.plus(u64::from(count).saturating_sub(1));
        // Frozen memtables are flushed once the database runs.
        let look = Look { end: Position(0), bytes: self.journal_bytes };
        self.writers.rotate_full(self.memtable_bytes, look, &self.throttle);
        Ok(())
    }
}

impl Build {
    /// What lies in the segments that are not replayed. A footer that is missing, or damaged, is made
    /// again.
    fn read_footers(&mut self, state: &State, read_only: bool) -> Result<()> {
        for whole in for_logs(state) {
            let cold = matches!(state.segments.get(&whole.no), Some(SegmentState::Cold { .. }));
            let segment = self.logs.segment(whole.no, whole.salt, Some(whole.start).filter(|_| !cold));
            segment.finish();
            let runs = match segment.open_footer(&self.logs.access) {
                Err(e) if e.is_corruption() => {
                    log::warn!(target: "esker", "the footer of segment {} is made again: {e}", whole.no);
                    let built = logwork::rebuild(&self.logs.access, state.db, &whole, cold)?;
                    logwork::put_footer(&self.logs.access, &segment, &built, read_only)?
                }
                opened => opened?,
            };
            for run in runs {
                self.runs.entry(run.key).or_default().push((segment.clone(), run));
            }
        }
        Ok(())
    }

    /// When all entries of logs are known: those within the bounds stay.
    fn settle_logs(&mut self) -> Result<()> {
        let trees = self.registry.lock().logs();
        for tree in trees {
            let mut rows = tree.view.load().scan(Seq::MAX, Default::default(), Passage::Lent);
            rows.seek_first()?;
            while rows.valid() {
                let log = head::log(rows.key())?;
                let key = (tree.id, log);
                let runs = self.runs.remove(&key).unwrap_or_default();
                self.logs.settle(key, Head::decode(rows.value())?, runs)?;
                rows.next()?;
            }
        }
        self.logs.settled();
        Ok(())
    }
}

/// What this opening makes of `state`: the segments that were in use are sealed, those that nothing needs are
/// gone, and so are keyspaces that were dropped.
fn opening_changes(
    state: &State,
    last_seq: Seq,
    journal: &journal::Report,
    needed: &HashSet<FileNo>,
    (registry, logs): (&Registry, &LogIndex),
) -> Vec<Change> {
    let journal::Report { ends, unused, .. } = journal;
    let mut changes: Vec<Change> = ends
        .iter()
        .filter(|(no, ..)| !is_sealed(state, *no) && !goes_on(state, journal, *no))
        .map(|&(no, start, end)| Change::SegmentSealed { no, start, end })
        .collect();
    // Segments are large however little they hold: one that is not needed does not wait for those
    // before it.
    let idle =
        |no: &&FileNo| !needed.contains(no) && !logs.needs(**no, last_seq) && !goes_on(state, journal, **no);
    let idle = ends.iter().map(|e| &e.0).filter(idle);
    changes.extend(unused.iter().chain(idle).map(|&no| Change::SegmentGone { no }));
    let dead = state.keyspaces.keys().filter(|id| registry.tree(**id).is_none());
    changes.extend(dead.map(|&keyspace| Change::DropKeyspace { keyspace }));
    changes
}

fn is_sealed(state: &State, no: FileNo) -> bool {
    matches!(state.segments.get(&no), Some(SegmentState::Sealed { .. }))
}

/// What must not be: see [`Mutant::AppendToRecovered`].
fn goes_on(state: &State, journal: &journal::Report, no: FileNo) -> bool {
    let is_last = || journal.ends.last().is_some_and(|e| e.0 == no);
    Mutant::AppendToRecovered.on() && !is_sealed(state, no) && is_last()
}

/// Clears up after what was `before`, and begins the journal anew. Answers how many files were left over.
fn begin(core: &Arc<Core>, before: &State, journal: &journal::Report, listing: &Listing) -> Result<u64> {
    // What was given up may be the space that the new segment needs.
    let removed = remove_strays(core, listing, before);
    let previous = journal.ends.last().map_or(FileNo(0), |e| e.0);
    #[cfg(esker_mutants)]
    if let Some(&(no, start, _)) = journal.ends.last().filter(|e| goes_on(before, journal, e.0)) {
        core.append_to_recovered(no, start, journal.end)?;
        return Ok(removed);
    }
    // This syncs the directory, also for the old manifest that was removed.
    core.begin_journal(previous, journal.end)?;
    core.reserve.make(&*core.fs, &core.dir);
    Ok(removed)
}

/// Removes what no manifest names: outputs of jobs that did not end, segments and manifests that are no longer
/// needed, of which it keeps some to be used again. Answers how many of them were left over, and not just given up by this
/// opening: `before` is what it found.
fn remove_strays(core: &Core, listing: &Listing, before: &State) -> u64 {
    let version = core.version.lock();
    let Some(set) = version.as_ref() else { return 0 };
    let state = set.state();
    let mut removed = 0;
    for name in listing.files.keys() {
        let stray = match name {
            Name::Lock | Name::Hint | Name::Reserve | Name::Spare => false,
            Name::Journal(no) | Name::Footer(no) => !state.segments.contains_key(no),
            // The set removes those that came before its own.
            Name::Manifest(_) => false,
            Name::Table(no) => state.table(*no).is_none(),
        };
        let named = match name {
            Name::Journal(no) => before.segments.contains_key(no),
            Name::Table(no) => before.table(*no).is_some(),
            _ => false,
        };
        // One segment is needed at once, and one after that. Not what is here for reasons nobody knows: until
        // it is written to, its header would be taken for that of a segment of another database.
        let kept = || matches!(name, Name::Journal(no) if named && core.keep_for_reuse(*no, 2));
        if stray && (kept() || core.remove_file(*name)) {
            removed += u64::from(!named);
        }
    }
    removed
}

/// What the last run left undone: frozen memtables, dropped keyspaces, deep level 0.
fn queue_left_work(core: &Arc<Core>) {
    let trees: Vec<Arc<Tree>> = core.registry.lock().trees().cloned().collect();
    let frozen = trees.iter().filter(|t| t.view.load().memtables.len() > 1).cloned().collect();
    core.work.want_flush(frozen);
    for tree in trees {
        core.work.want_compact(tree);
    }
    core.work.want_segment();
    core.work.want_logs();
    core.work.want_drop();
}

/// Ends everything in order. Only the first call does anything.
pub(crate) fn close(core: &Arc<Core>, stop_threads: impl FnOnce()) -> Result<()> {
    if core.closed.swap(true, Ordering::SeqCst) {
        return Ok(());
    }
    // Whoever keeps files ends soon, with an error.
    drop(core.keeping.lock());
    // A rotation and a commit that were under way have ended when this is past.
    drop(core.rotation.lock());
    drop(core.commit.lock());
    core.wake_writers();
    stop_threads();
    // Callers do pieces of work too.
    core.work.settle();
    let result = if core.options.read_only || core.failure().is_some() { Ok(()) } else { leave(core) };
    // Before the lock: whoever opens next must find the journal at rest.
    core.commit.lock().journal = None;
    *core.next_segment.lock() = None;
    core.ended.store(true, Ordering::Release);
    core.sync.wake_all();
    *core.lock.lock() = None;
    if result.is_ok() {
        log::info!(target: "esker", "closed {}", core.dir.display());
    }
    result
}

/// Makes everything durable and leaves next to nothing to replay.
fn leave(core: &Arc<Core>) -> Result<()> {
    core.sync_to(core.snapshots.visible())?;
    core.sync_retired()?;
    // What was dropped pins the journal until the manifest has forgotten it.
    core.use_reserve(|| core.forget_dropped())?;
    let end = core.sync.durable_position().0;
    let needed = core.needed_from(end, &|_| false);
    if end.0.saturating_sub(needed.0) > CLOSE_REPLAY_BYTES {
        core.freeze(None);
        match core.use_reserve(|| core.flush_last()) {
            // The journal has it all.
            Err(e) if e.kind() == ErrorKind::DiskFull => {
                log::warn!(target: "esker", "not flushed at close: {e}")
            }
            flushed => flushed?,
        }
    }
    core.seal_active()?;
    if !core.reserve.is_whole() {
        core.reserve.make(&*core.fs, &core.dir);
    }
    Ok(())
}
