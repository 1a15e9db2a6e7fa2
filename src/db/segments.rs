//! Journal segments over their life: created and announced ahead of need, activated when the one
//! before is full, left to the sync stage to be sealed.

use crate::db::appender::{Boundary, CommitState};
use crate::db::clock::{Deadline, no_room_in_time};
use crate::db::core::{Core, Installed};
use crate::db::reserve::When;
use crate::db::stage::Retired;
use crate::db::tree::Tree;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::names::Name;
use crate::ids::{FileNo, Position, Seq};
use crate::journal::{ActivationInfo, Mode, Segment, Writer};
use crate::mutant::Mutant;
use crate::options::Durability;
use crate::sync::atomic::Ordering;
use crate::version::Change;
use std::sync::Arc;

/// The smallest segment that is worth making.
const LEAST_SEGMENT: u64 = 16 << 10;

impl Core {
    /// Creates a segment that a batch of `len` bytes fits into, and announces it in the manifest.
    /// Nothing is durable in it yet; its name is.
    pub fn create_segment(&self, len: usize) -> Result<Arc<Segment>> {
        let segment = self.create_sized(self.options.segment_bytes, len)?;
        self.note_space();
        Ok(segment)
    }

    /// As [`create_segment`](Core::create_segment) where the disk is full: a small one, if need be in
    /// the space of the reserve.
    fn create_spare_segment(&self, len: usize, when: When) -> Result<Arc<Segment>> {
        let bytes = self.reserve.segment_bytes().min(self.options.segment_bytes);
        let create = || self.create_sized(bytes, len);
        let created = self.reserve.use_for(&*self.fs, &self.dir, when, create);
        created.or_else(|e| match e.kind() {
            ErrorKind::DiskFull => self.create_sized(LEAST_SEGMENT, len),
            _ => Err(e),
        })
    }

    fn create_sized(&self, bytes: u64, len: usize) -> Result<Arc<Segment>> {
        let capacity = bytes.max(Segment::capacity_for(len)).next_multiple_of(4096);
        let no = self.new_file();
        let salt = self.salts.lock().next();
        let left = self.left_segments.lock().pop();
        let reused = left.and_then(|old| Segment::reuse(&*self.fs, &self.dir, old, (no, capacity, salt)));
        if let Some(old) = left.filter(|_| reused.is_none()) {
            self.remove_file(Name::Journal(old));
        }
        let create = || Segment::create(&*self.fs, &self.dir, no, capacity, salt);
        let created = reused.map_or_else(create, Ok);
        let segment = created.inspect_err(|e| self.note_failure(e)).map_err(|e| match e.kind() {
            ErrorKind::DiskFull if Mutant::FullDiskIsFinal.on() => self.latch(e),
            _ => e,
        })?;
        let synced = if Mutant::SkipDirSyncOfSegment.on() { Ok(()) } else { self.fs.sync_dir(&self.dir) };
        let synced = synced.map_err(|e| Error::io("syncing the directory", &self.dir, e));
        let changes = vec![Change::SegmentAnnounced { no, salt }];
        let announced =
            synced.and_then(|()| self.install(Installed { changes, ..Installed::default() }).map(drop));
        if let Some(old) = left.filter(|_| segment.is_reused()) {
            // Not before the new name is durable: its space would be free for others with the next crash.
            self.remove_file(Name::Journal(old));
        }
        match announced {
            Ok(()) => {
                let how = if segment.is_reused() { "reused" } else { "created" };
                log::debug!(target: "esker", "{how} journal segment {no} of {capacity} bytes");
                Ok(Arc::new(segment))
            }
            Err(e) => {
                self.note_failure(&e);
                // After a failure that leaves unknown what the manifest says, it stays.
                if self.failure().is_none() {
                    drop(segment);
                    self.remove_file(Name::Journal(no));
                }
                Err(e)
            }
        }
    }

    /// Removes the files of a segment that the manifest has forgotten, or keeps it to be reused.
    pub fn let_go(&self, no: FileNo) {
        let of_logs = self.logs.forget_segment(no);
        if of_logs.is_some() {
            self.remove_file(Name::Footer(no));
        }
        let is_left = of_logs.is_none_or(|segment| segment.is_left());
        if is_left && !self.is_short_of_space() && self.keep_for_reuse(no, 1) {
            log::debug!(target: "esker", "journal segment {no} is kept to be reused");
        } else if self.remove_file(Name::Journal(no)) {
            log::debug!(target: "esker", "removed journal segment {no}");
        }
    }

    /// Keeps the file of a segment that nothing needs any more for one that is to be created. `false`: there are
    /// `most` already, or files are being linked, or the database closes.
    pub fn keep_for_reuse(&self, no: FileNo, most: usize) -> bool {
        if self.kept.lock().is_some() || self.closed.load(Ordering::SeqCst) {
            return false;
        }
        let mut left = self.left_segments.lock();
        let keep = left.len() < most;
        if keep {
            left.push(no);
        }
        keep
    }

    /// Gives the space back that is kept for the next segments. Whether there was any.
    pub fn drop_left_segments(&self) -> bool {
        let left = std::mem::take(&mut *self.left_segments.lock());
        let removed = left.into_iter().filter(|&no| self.remove_file(Name::Journal(no))).count();
        // The sync makes file systems hand the space out that keep it until the removal is durable.
        removed > 0 && self.fs.sync_dir(&self.dir).is_ok()
    }

    /// Creates the segment after the active one, unless it is there.
    pub fn prepare_segment(&self) -> Result<()> {
        let _guard = self.rotation.lock();
        if self.next_segment.lock().is_none() {
            let segment = self.create_segment(0)?;
            if self.mode() == Mode::Mapped || segment.is_reused() {
                segment.warm();
            }
            *self.next_segment.lock() = Some(segment);
        }
        Ok(())
    }

    /// Moves the journal to a segment that takes a batch of `len` bytes, unless the active one
    /// does. Until `deadline`, if somebody else is at it. `spare`: on a full disk a small one is made
    /// for this batch, because it gives space back.
    pub fn next_segment(&self, len: usize, spare: bool, deadline: Option<Deadline>) -> Result<()> {
        let _guard = match deadline {
            None => self.rotation.lock(),
            Some(d) => self.rotation.lock_in_time(|| d.left()).ok_or_else(no_room_in_time)?,
        };
        // Under the lock: a close waits for rotations that are under way.
        self.writable()?;
        {
            let commit = self.commit.lock();
            if commit.journal.as_ref().is_none_or(|j| j.fits(len)) && (spare || !commit.spare) {
                return Ok(());
            }
        }
        let enough = |s: &Arc<Segment>| s.capacity() >= Segment::capacity_for(len);
        let ready = self.next_segment.lock().take_if(|s| enough(s));
        let (segment, spare) = match ready.map_or_else(|| self.create_segment(len), Ok) {
            Err(e) if e.kind() == ErrorKind::DiskFull && spare => {
                (self.create_spare_segment(len, When::Running)?, true)
            }
            created => (created?, false),
        };
        let last_edit = self.last_edit.load(Ordering::Acquire);
        let (activated, full) = {
            let mut commit = self.commit.lock();
            commit.spare = spare;
            // If memtables are about to be frozen anyway, here they need no segment of their own.
            let enough = self.options.memtable_limit() / 8 * 7;
            let part = self.is_worth_parting(&commit) && commit.writers.active_bytes() >= enough;
            let activated = self.activate(&mut commit, segment, last_edit);
            let part = part && activated.is_ok();
            (activated, if part { commit.writers.rotate_all(None) } else { Vec::new() })
        };
        self.tell_failed();
        activated?;
        self.work.want_segment();
        if !full.is_empty() {
            self.work.want_flush(full);
        }
        Ok(())
    }

    /// Whether so much of the journal is not durable that a flush had better do without, and so much in the
    /// active segment that leaving it is no waste.
    fn is_worth_parting(&self, commit: &CommitState) -> bool {
        let Some(journal) = &commit.journal else { return false };
        let (end, capacity) = (journal.end().0, journal.segment().capacity());
        let unsynced = end.saturating_sub(self.sync.durable_hint().0);
        let used = end.saturating_sub(commit.segment_start.0);
        // Log entries stay in the journal, which has to be durable then.
        let for_logs = commit.writers.has_log_entries();
        unsynced >= self.options.memtable_limit() as u64 / 2
            && used >= capacity / 4
            && !commit.spare
            && !for_logs
    }

    /// The size at which a memtable is frozen now: while the journal could not be parted there, some
    /// more than usual.
    pub fn freeze_at(&self, commit: &CommitState) -> usize {
        let limit = self.options.memtable_limit();
        let wait = commit.writers.largest() >= limit
            && self.is_worth_parting(commit)
            && self.next_segment.lock().is_none();
        if wait { limit / 8 * 9 } else { limit }
    }

    /// Just after memtables were frozen, the `full` ones: lets the journal go on in the segment that is
    /// ready and freezes what else holds something. All before that segment is then in memtables of one
    /// flush, which need not sync the journal to be durable. `false`: it would not pay, since most is
    /// durable already or the others hold much, or somebody else is moving the journal.
    pub fn part_journal(&self, commit: &mut CommitState, full: &mut Vec<Arc<Tree>>) -> Result<bool> {
        let little = self.options.memtable_limit() / 4;
        if !self.is_worth_parting(commit) || commit.writers.active_bytes() > little {
            return Ok(false);
        }
        // Tried only: a checkpoint may hold it and wait for the lock that is held here.
        let Some(_turn) = self.rotation.try_lock() else { return Ok(false) };
        let Some(segment) = self.next_segment.lock().take() else { return Ok(false) };
        self.activate(commit, segment, self.last_edit.load(Ordering::Acquire))?;
        full.extend(commit.writers.rotate_all(None));
        Ok(true)
    }

    /// Leaves the active segment, unless no batch is in it: every commit so far is behind the journal
    /// then. `spare` takes its place, or is kept for the next time. Adds the segment that was left to
    /// those that are `sealed` after the next sync; answers the last sequence number. The caller holds
    /// `rotation`.
    pub fn leave_segment(
        &self,
        spare: Arc<Segment>,
        last_edit: u64,
        sealed: &mut Vec<(FileNo, Position, Position)>,
    ) -> Result<Seq> {
        let mut commit = self.commit.lock();
        if commit.journal()?.is_empty() {
            *self.next_segment.lock() = Some(spare);
            return Ok(commit.last_seq);
        }
        self.activate(&mut commit, spare, last_edit)?;
        sealed.extend(commit.retired.last().map(|r| (r.segment.no(), r.start, r.end)));
        Ok(commit.last_seq)
    }

    /// The segment that was prepared, or a new one. The caller holds `rotation`.
    pub fn spare_segment(&self) -> Result<Arc<Segment>> {
        let ready = self.next_segment.lock().take();
        ready.map_or_else(|| self.create_segment(0), Ok)
    }

    fn activate(&self, commit: &mut CommitState, segment: Arc<Segment>, last_edit: u64) -> Result<()> {
        let start = commit.segment_start;
        let Some(old) = commit.journal.as_mut() else { return Ok(()) };
        old.flush().map_err(|e| self.latch(e))?;
        let end = old.end();
        let segment_left = old.segment().clone();
        let info = ActivationInfo {
            db: self.id,
            start: end,
            previous: segment_left.no(),
            durable: self.sync.durable_hint(),
            last_edit,
        };
        let writer = Writer::activate(segment, info, self.mode()).map_err(|e| self.latch(e))?;
        let left = commit.journal.replace(writer);
        commit.enter(end);
        let durable = self.sync.durable_hint();
        commit.boundaries.retain(|b| b.position > durable);
        commit.boundaries.push(Boundary { position: end, seq: commit.last_seq });
        commit.retired.extend(left.map(|writer| Retired { segment: segment_left, start, end, writer }));
        Ok(())
    }

    /// Creates and activates the first segment of this opening.
    pub fn begin_journal(&self, previous: FileNo, start: Position) -> Result<()> {
        let (segment, spare) = match self.create_segment(0) {
            Err(e) if e.kind() == ErrorKind::DiskFull => (self.create_spare_segment(0, When::Opening)?, true),
            created => (created?, false),
        };
        let last_edit = self.last_edit.load(Ordering::Acquire);
        let info = ActivationInfo { db: self.id, start, previous, durable: start, last_edit };
        let mut commit = self.commit.lock();
        commit.journal = Some(Writer::activate(segment, info, self.mode())?);
        commit.enter(start);
        commit.began = start;
        commit.spare = spare;
        Ok(())
    }

    /// What must not be done: see [`Mutant::AppendToRecovered`].
    #[cfg(esker_mutants)]
    pub fn append_to_recovered(&self, no: FileNo, start: Position, end: Position) -> Result<()> {
        let mut commit = self.commit.lock();
        commit.journal = Some(Writer::resume(&*self.fs, &self.dir, no, end)?);
        commit.enter(start);
        commit.began = start;
        Ok(())
    }

    fn mode(&self) -> Mode {
        if self.options.mapped && self.options.durability == Durability::Buffered {
            Mode::Mapped
        } else {
            Mode::Positioned
        }
    }

    /// At close: the active segment is sealed, and given back if no batch is in it; so is the one
    /// prepared after it. The journal is durable by now.
    pub fn seal_active(&self) -> Result<()> {
        let (no, start, idle) = {
            let commit = self.commit.lock();
            let Some(journal) = &commit.journal else { return Ok(()) };
            (journal.segment().no(), commit.segment_start, journal.is_empty())
        };
        let end = self.sync.durable_position().0;
        self.drop_left_segments();
        self.sealed.lock().push((no, start, end));
        let prepared = self.next_segment.lock().take().map(|s| s.no());
        let gone: Vec<FileNo> = prepared.into_iter().chain(idle.then_some(no)).collect();
        self.use_reserve(|| {
            let changes = gone.iter().map(|&no| Change::SegmentGone { no }).collect();
            self.install(Installed { changes, ..Installed::default() }).map(|_| ())
        })
    }
}
