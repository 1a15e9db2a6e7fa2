//! Work on logs in the background: footers for segments that were sealed, survivors of mostly dead ones
//! moved to cold segments, and the end of those that nothing in is live of.
//!
//! What moves, and when, says [`space`](crate::log::space). A segment with live entries goes through these
//! states; each step is one edit, or none:
//!
//! 1. written to, left, synced, sealed: like any other;
//! 2. its footer is written and durable: the extents leave memory;
//! 3. no memtable needs it any more: it is for logs only, and not replayed;
//! 4. less than half of it is live, and logs take too much: what is live moves, with its sequence numbers,
//!    into a cold segment, whose edit takes the old ones away; or nothing of it is, durably: it goes.

use crate::batch::{Op, decode};
use crate::db::core::{Core, Installed, Moved};
use crate::entries::{self, APPEND, Entries, Verb};
use crate::error::{Error, Result};
use crate::fs::names::Name;
use crate::fs::write_all_at;
use crate::ids::{FileNo, Position, Seq};
use crate::journal::{self, ActivationInfo, Mode, Segment, Writer};
use crate::log::extent::{Extent, LogKey};
use crate::log::footer::{Builder, Range, Run};
use crate::log::segment::{Access, LogSegment, Wanted};
use crate::log::space::{self, By, Held, Plan};
use crate::mutant::Mutant;
use crate::record::size;
use crate::version::{Change, SegmentState};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes before an operation's log: code and keyspace.
const BEFORE: usize = 5;

/// A piece of an operation that is to be moved: entries of one log.
struct Piece {
    seq: Seq,
    /// Which of the runs that are moved.
    run: usize,
    extents: Vec<Extent>,
}

/// A run that is moved.
struct Source {
    segment: Arc<LogSegment>,
    run: Run,
    extents: Vec<Extent>,
}

impl Core {
    /// Makes the footers that are missing, has segments go that nothing needs, and moves some survivors.
    pub fn work_on_logs(&self) -> Result<()> {
        if !self.logs.begin_work() {
            // Whoever is at it looks again.
            return Ok(());
        }
        let worked = self.tell_sealed().and_then(|()| self.make_footers());
        let worked = worked.and_then(|()| self.release_segments()).and_then(|()| self.keep_space());
        let again = self.logs.end_work();
        if matches!(worked, Ok(true)) || again {
            self.work.want_logs();
        }
        worked.map(drop)
    }

    /// Tells the manifest of segments with entries that are ready to be sealed: the next edit may be long in
    /// coming.
    fn tell_sealed(&self) -> Result<()> {
        let is_of_logs = |no| self.logs.known_segment(no).is_some();
        let sealed = self.sealed.lock().iter().any(|s| is_of_logs(s.0));
        if sealed { self.install(Installed::default()).map(drop) } else { Ok(()) }
    }

    fn make_footers(&self) -> Result<()> {
        let durable = self.snapshots.durable();
        for segment in self.logs.segments() {
            if segment.is_finished() && !segment.has_footer() && segment.is_needed(durable) {
                self.writable()?;
                let built = self.logs.of_segment(&segment);
                if !self.have_cuts_durable(&segment)? {
                    // One is being applied right now.
                    self.work.want_logs();
                    continue;
                }
                self.write_footer(&segment, &built)?;
                let runs = segment.open_footer(&self.logs.access)?;
                self.logs.let_go(&segment, &runs);
                log::debug!(target: "esker", "made the footer of segment {}: {} runs", segment.no, runs.len());
            }
        }
        Ok(())
    }

    /// Makes what took entries away from the segment until now durable, after its live ones were listed: the
    /// list leaves those out, and will be all that is known of them. Otherwise a crash could bring bounds back
    /// without entries. `false`: some of it is not visible yet, and it is to be tried again.
    fn have_cuts_durable(&self, segment: &LogSegment) -> Result<bool> {
        let cut = segment.last_cut();
        if cut > self.snapshots.durable() && !Mutant::FooterAheadOfJournal.on() {
            self.sync_to(cut.min(self.snapshots.visible()))?;
        }
        Ok(cut <= self.snapshots.durable() || Mutant::FooterAheadOfJournal.on())
    }

    /// Writes the footer, and makes it and its name durable.
    fn write_footer(&self, segment: &LogSegment, built: &Builder) -> Result<()> {
        write_footer(&self.logs.access, segment, &built.encode(segment.no, segment.salt))?;
        self.fs.sync_dir(&self.dir).map_err(|e| Error::io("syncing the directory", &self.dir, e))
    }

    /// Tells the manifest of segments that only logs need from now on, and of those that nothing does.
    fn release_segments(&self) -> Result<()> {
        let cut = self.logs.segments().iter().filter(|s| s.live_entries() == 0).map(|s| s.last_cut()).max();
        let sync = !Mutant::ReleaseLogSegmentEarly.on();
        if let Some(cut) = cut.filter(|&cut| sync && cut > self.snapshots.durable()) {
            // Until then a crash could bring the entries back.
            self.sync_to(cut.min(self.snapshots.visible()))?;
        }
        let (durable, last_seq) = self.sync.durable_position();
        let floor = self.needed_from(durable, &|_| false);
        let due = self.version.lock().as_ref().is_some_and(|set| {
            set.state().segments.iter().any(|(&no, state)| match *state {
                SegmentState::Announced { .. } => false,
                SegmentState::Sealed { end, .. } => {
                    end <= floor && (self.logs.has_footer(no) || !self.logs.needs(no, last_seq))
                }
                SegmentState::ForLogs { .. } | SegmentState::Cold { .. } => !self.logs.needs(no, last_seq),
            })
        });
        if due {
            self.install(Installed::default())?;
        }
        Ok(())
    }

    /// Does what there is to be done for logs to take no more space than they may: has memtables flushed, or
    /// moves survivors, as much as fits one segment. Whether there may be more.
    fn keep_space(&self) -> Result<bool> {
        let (victims, flushed) = self.plan_space();
        if let Some(end) = flushed {
            let full = self.commit.lock().writers.rotate_pinning(end);
            self.work.want_flush(full);
        }
        if victims.is_empty() {
            return Ok(false);
        }
        self.writable()?;
        let moved = self.move_from(&victims);
        for segment in &victims {
            segment.set_moving(false);
        }
        match moved {
            Err(e) if e.is_corruption() => {
                // What is not damaged can be read as before; it is not tried again.
                log::warn!(target: "esker", "log entries cannot be moved: {e}");
                victims.iter().filter(|s| e.file() == Some(s.path())).for_each(|s| s.set_damaged());
                Ok(false)
            }
            moved => moved.map(|()| true),
        }
    }

    /// The segments whose survivors are to move, which are marked as moving, and the end of the journal
    /// that memtables shall not need any more.
    fn plan_space(&self) -> (Vec<Arc<LogSegment>>, Option<Position>) {
        let version = self.version.lock();
        let Some(set) = version.as_ref() else { return (Vec::new(), None) };
        let states = &set.state().segments;
        // Those that the journal has left, by where they end: not synced yet, or sealed.
        let retired = self.commit.lock().retired.iter().map(|r| (r.segment.no(), r.end)).collect::<Vec<_>>();
        let end_of = |no: FileNo| match states.get(&no) {
            Some(SegmentState::Sealed { end, .. }) => Some(*end),
            _ => retired.iter().find(|r| r.0 == no).map(|r| r.1),
        };
        let known = self.logs.segments();
        let held = |s: &Arc<LogSegment>| self.held(s, states.get(&s.no), end_of(s.no).is_some());
        let held: Vec<Held> = known.iter().filter_map(held).collect();
        let Plan { moved, flushed } = space::plan(&held, self.options.segment_bytes);
        let victims: Vec<_> = known.into_iter().filter(|s| moved.contains(&s.no)).collect();
        victims.iter().for_each(|segment| segment.set_moving(true));
        (victims, flushed.and_then(end_of))
    }

    /// What the plan has to know of a segment, which memtables may need or not. `None`: it goes as it is.
    fn held(&self, segment: &LogSegment, state: Option<&SegmentState>, needed: bool) -> Option<Held> {
        let cold = matches!(state, Some(SegmentState::Cold { .. }));
        // The file's size: one that was recovered takes more than it holds; without what every segment has.
        let whole = match state {
            Some(SegmentState::Cold { len, .. }) => Some(*len),
            Some(SegmentState::ForLogs { .. }) => segment.file_len(&self.logs.access).ok(),
            _ => None,
        };
        let whole = whole.map(|len| len.saturating_sub(Segment::capacity_for(0)));
        let by = match whole {
            _ if segment.is_damaged() => By::Others,
            Some(_) if segment.has_footer() => By::Logs { cold },
            _ if needed => By::Memtables,
            _ => By::Others,
        };
        if segment.live_entries() == 0 && matches!(by, By::Logs { .. }) {
            return None;
        }
        let bytes = whole.unwrap_or_else(|| segment.written());
        Some(Held { no: segment.no, by, bytes, live: segment.live() })
    }

    fn move_from(&self, victims: &[Arc<LogSegment>]) -> Result<()> {
        let mut sources: Vec<Source> = Vec::new();
        for segment in victims {
            let runs = segment.runs()?;
            for (run, extents) in self.logs.live_runs(segment, &runs)? {
                sources.push(Source { segment: segment.clone(), run, extents });
            }
        }
        // What is not live any more must not become so again by a crash.
        self.sync_to(self.snapshots.visible())?;
        for segment in victims {
            if !self.have_cuts_durable(segment)? {
                return Ok(());
            }
        }
        sources.sort_by_key(|s| (s.run.key, s.run.first));
        let pieces = pieces(&sources);
        let gone: Vec<Change> = victims.iter().map(|s| Change::SegmentGone { no: s.no }).collect();
        if pieces.is_empty() {
            return self.install(Installed { changes: gone, ..Installed::default() }).map(drop);
        }
        let no = self.new_file();
        let made = self.write_cold(no, &sources, &pieces);
        let installed = made.and_then(|(to, len, built)| {
            self.write_footer(&to, &built)?;
            to.open_footer(&self.logs.access)?;
            self.give_up_if_closed()?;
            let salt = to.salt;
            let mut changes = gone;
            changes.push(Change::ColdSegment { no, salt, len });
            let from = sources.iter().map(|s| s.segment.clone()).zip(built.runs().iter().copied()).collect();
            let entries = to.clone();
            self.install(Installed { changes, moved: Some(Moved { to, from }), ..Installed::default() })?;
            Ok(entries.live())
        });
        match installed {
            Ok(bytes) => {
                log::debug!(target: "esker", "moved {bytes} bytes of logs from {} segments to {no}", victims.len());
                Ok(())
            }
            Err(e) => {
                // After a failure that leaves unknown what the manifest says, it stays.
                if self.failure().is_none() {
                    self.logs.forget_segment(no);
                    self.remove_file(Name::Journal(no));
                    self.remove_file(Name::Footer(no));
                }
                Err(e)
            }
        }
    }

    fn give_up_if_closed(&self) -> Result<()> {
        self.writable()
    }

    /// Writes the pieces into a new segment, in the order of their sequence numbers, and makes it durable.
    /// Its footer lists the runs in the order of `sources`.
    fn write_cold(
        &self,
        no: FileNo,
        sources: &[Source],
        pieces: &[Piece],
    ) -> Result<(Arc<LogSegment>, u64, Builder)> {
        let mut bytes = Segment::capacity_for(0);
        let mut payload = Vec::new();
        for piece in pieces {
            payload.clear();
            self.encode_piece(&sources[piece.run], piece, &mut payload)?;
            bytes += size(payload.len()) as u64;
        }
        let salt = self.salts.lock().next();
        let file = Segment::create(&*self.fs, &self.dir, no, bytes.next_multiple_of(4096), salt)?;
        let file = Arc::new(file);
        let info = ActivationInfo {
            db: self.id,
            start: Position(0),
            previous: FileNo(0),
            durable: Position(0),
            last_edit: self.last_edit.load(crate::sync::atomic::Ordering::Acquire),
        };
        let mut writer = Writer::activate(file.clone(), info, Mode::Positioned)?;
        let mut extents: Vec<Vec<Extent>> = vec![Vec::new(); sources.len()];
        let mut held = vec![0; sources.len()];
        for piece in pieces {
            payload.clear();
            self.encode_piece(&sources[piece.run], piece, &mut payload)?;
            let at = writer.append(piece.seq, 1, &payload, Position(0))?;
            let offset = at.plus((crate::record::HEADER_LEN + BEFORE) as u64).0;
            let offset = u32::try_from(offset).map_err(|_| Error::invalid("a cold segment beyond 4 GiB"))?;
            let tag = |e: &Extent| if Mutant::MoveForgetsTags.on() { 0 } else { e.tag };
            extents[piece.run].extend(piece.extents.iter().map(|e| Extent { offset, tag: tag(e), ..*e }));
            held[piece.run] += size(payload.len()) as u64;
        }
        writer.flush()?;
        file.file().sync().map_err(|e| Error::io("syncing a cold segment", file.path(), e))?;
        let len = writer.end().0;
        let mut built = Builder::default();
        for ((source, extents), bytes) in sources.iter().zip(extents).zip(held) {
            let Run { key, first, next, .. } = source.run;
            let min_seq = extents.first().map_or(Seq::ZERO, |e| e.seq);
            built.add(Run { key, first, next, min_seq, bytes, extents: Range::default() }, extents);
        }
        let to = self.logs.segment(no, salt, None);
        to.finish();
        Ok((to, len, built))
    }

    /// The append of the entries in `piece`, read and checked.
    fn encode_piece(&self, source: &Source, piece: &Piece, out: &mut Vec<u8>) -> Result<()> {
        let (access, segment) = (&self.logs.access, &source.segment);
        let (keyspace, log) = source.run.key;
        let Some(first) = piece.extents.first() else { return Ok(()) };
        let op = segment.op(access, first.offset)?;
        out.push(APPEND);
        out.extend_from_slice(&keyspace.0.to_le_bytes());
        let at = out.len();
        let mut builder = entries::Builder::default();
        builder.begin(out, log, first.first);
        for extent in &piece.extents {
            for index in extent.first..extent.next() {
                let value = match &op {
                    Some(op) => op.entry(log, index).map_err(|e| segment.at(e, extent.offset.into()))?,
                    None => segment.entry(access, extent.offset, log, index)?,
                };
                let crc = crc32fast::hash(&value) ^ entries::place(log, index);
                builder.add(out, extent.tag, &value, crc);
            }
        }
        builder.close(out, at);
        Ok(())
    }
}

/// The runs of all sources cut into operations, in the order of commits.
fn pieces(sources: &[Source]) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for (run, source) in sources.iter().enumerate() {
        for &extent in &source.extents {
            match pieces.last_mut().filter(|p| p.run == run && p.seq == extent.seq) {
                Some(piece) => piece.extents.push(extent),
                None => pieces.push(Piece { seq: extent.seq, run, extents: vec![extent] }),
            }
        }
    }
    pieces.sort_by_key(|p| p.seq);
    pieces
}

/// Writes a footer's file and syncs it; its name is not durable yet.
fn write_footer(access: &Access, segment: &LogSegment, bytes: &[u8]) -> Result<()> {
    let path = Name::Footer(segment.no).path(&access.dir);
    match access.fs.remove(&path) {
        // One that a crash has left, of whatever is in it.
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("removing an old footer", &path, e));
        }
        _ => {}
    }
    let file = access.fs.create(&path).map_err(|e| Error::io("creating a footer", &path, e))?;
    let written = write_all_at(&*file, bytes, 0).and_then(|()| file.sync());
    written.map_err(|e| {
        drop(file);
        let _ = access.fs.remove(&path);
        Error::io("writing a footer", &path, e)
    })
}

/// Holds the footer of a segment against its records; answers its length. What is wrong with the segment
/// itself others tell.
pub(crate) fn verify_footer(
    access: &Access,
    db: u64,
    whole: &journal::Whole,
    report: &mut dyn FnMut(Error),
) -> Result<u64> {
    let wanted = Arc::new(Wanted::new(u64::MAX));
    let segment = LogSegment::new(access, (whole.no, whole.salt, None), &wanted);
    let path = Name::Footer(whole.no).path(&access.dir);
    let runs = segment.open_footer(access)?;
    let len = access.fs.open_read(&path).and_then(|file| file.len());
    let len = len.map_err(|e| Error::io("asking for the length of", &path, e))?;
    // By where each operation stands: what it is, and its tags.
    type Said = (LogKey, Seq, u64, Vec<(u32, u64)>);
    let mut ops: BTreeMap<u32, Said> = BTreeMap::new();
    let read = each_append(access, db, whole, &mut |key, seq, offset, entries| {
        ops.insert(offset, (key, seq, entries.first, entries.runs().collect()));
    });
    if read.is_err() {
        return Ok(len);
    }
    for run in runs {
        for extent in segment.extents(run.extents)? {
            let is_there = ops.get(&extent.offset).is_some_and(|(key, seq, first, runs)| {
                let mut at = *first;
                (*key, *seq) == (run.key, extent.seq)
                    && runs.iter().any(|&(count, tag)| {
                        let from = at;
                        at = at.saturating_add(count.into());
                        tag == extent.tag && from <= extent.first && extent.next() <= at
                    })
            });
            if !is_there {
                let why =
                    format!("the footer names entry {} of log {} where it is not", extent.first, run.key.1);
                report(Error::corruption(why).in_file(&path));
            }
        }
    }
    Ok(len)
}

/// Tells `visit` of every append in a segment: its log, sequence number and where it stands, from its log
/// on.
fn each_append(
    access: &Access,
    db: u64,
    whole: &journal::Whole,
    visit: &mut dyn FnMut(LogKey, Seq, u32, &Entries<'_>),
) -> Result<()> {
    journal::scan(&*access.fs, &access.dir, db, whole, &mut |at, first_seq, payload| {
        let (mut ops, mut seq) = (decode(payload), first_seq);
        loop {
            let offset = at + (ops.at() + BEFORE) as u64;
            let Some(op) = ops.next() else { return Ok(()) };
            let (keyspace, op) = op?;
            if let Op::Log(op) = op
                && let Verb::Append(entries) = op.verb()?
            {
                let offset = u32::try_from(offset);
                let offset = offset.map_err(|_| Error::corruption("a log entry lies beyond 4 GiB"))?;
                visit((keyspace, op.log()), seq, offset, &entries);
            }
            seq = seq.plus(1);
        }
    })
}

/// The footer of a segment made again from its records. `cold`: what it holds of a log may come from
/// several segments.
pub(crate) fn rebuild(access: &Access, db: u64, whole: &journal::Whole, cold: bool) -> Result<Builder> {
    let mut logs: BTreeMap<LogKey, Vec<(Extent, u64)>> = BTreeMap::new();
    each_append(access, db, whole, &mut |key, seq, offset, entries| {
        let list = logs.entry(key).or_default();
        // The newest copy of an index counts.
        while list.pop_if(|(e, _)| e.first >= entries.first).is_some() {}
        if let Some((e, _)) = list.last_mut()
            && let Some(left) = e.within(0, entries.first)
        {
            *e = left;
        }
        let mut first = entries.first;
        let mut bytes = size(BEFORE + entries.len()) as u64;
        for (count, tag) in entries.runs() {
            list.push((Extent { first, seq, tag, offset, count }, std::mem::take(&mut bytes)));
            first = first.saturating_add(count.into());
        }
    })?;
    let mut built = Builder::default();
    for (key, list) in logs {
        let goes_on = |a: &(Extent, u64), b: &(Extent, u64)| !cold && a.0.next() == b.0.first;
        for run in list.chunk_by(goes_on) {
            let (Some((a, _)), Some((z, _))) = (run.first(), run.last()) else { continue };
            let bytes = run.iter().map(|r| r.1).sum();
            let extents = Range::default();
            let run_of = Run { key, first: a.first, next: z.next(), min_seq: a.seq, bytes, extents };
            built.add(run_of, run.iter().map(|r| r.0));
        }
    }
    Ok(built)
}

/// Puts a footer that was made again in the place of the one that was not right, if there may be one, and
/// uses it. Answers its runs.
pub(crate) fn put_footer(
    access: &Access,
    segment: &LogSegment,
    built: &Builder,
    read_only: bool,
) -> Result<Vec<Run>> {
    let bytes = built.encode(segment.no, segment.salt);
    if !read_only && let Err(e) = write_footer(access, segment, &bytes) {
        // It is made again as often as need be.
        log::warn!(target: "esker", "a footer could not be written: {e}");
    }
    segment.use_footer(access, bytes)
}
