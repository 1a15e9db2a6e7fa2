//! The state that all edits add up to. Pure: no file is touched here.
//!
//! A change is checked as it is made, and an edit is made wholly or not at all: what was changed
//! before one of its changes is refused is taken back.

use crate::coding::Reader;
use crate::error::{Error, Result};
use crate::ids::{FileNo, KeyspaceId, Position, Seq};
use crate::version::edit::{self, Change, Counters, Edit};
use crate::version::levels::{Levels, TableMeta};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Edit numbers stand in 56 bits of a record header, and file numbers shall not run out either.
const LIMIT: u64 = 1 << 56;

/// Which files there are and what they hold, after the edit of number `edit`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct State {
    /// The database's random id.
    pub db: u64,
    /// The number of the last edit applied.
    pub edit: u64,
    /// The journal was durable up to here when that edit was made.
    pub durable: Position,
    /// The newest sequence number that was durable then.
    pub last_seq: Seq,
    /// Where the last sealed segment ended, also if it is gone: where the next one starts.
    pub sealed_end: Position,
    /// No file has this number or a larger one.
    pub next_file: FileNo,
    /// No keyspace has this id or a larger one.
    pub next_keyspace: u32,
    /// Keyspaces that were flushed at least once.
    pub keyspaces: BTreeMap<KeyspaceId, KeyspaceState>,
    /// Journal segments that exist, or may.
    pub segments: BTreeMap<FileNo, SegmentState>,
    /// Where each table stands, over all keyspaces.
    places: HashMap<FileNo, Place>,
}

/// One keyspace.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct KeyspaceState {
    /// Everything at or below is in tables.
    pub flushed: Seq,
    pub levels: Levels,
}

/// One journal segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SegmentState {
    /// It may exist, and may be in use.
    Announced { salt: u64 },
    /// Complete and durable.
    Sealed { salt: u64, start: Position, end: Position },
    /// The same, and only entries of logs are needed of it: it is not replayed.
    ForLogs { salt: u64, start: Position, end: Position },
    /// Entries of logs that were moved: not part of the journal.
    Cold { salt: u64, len: u64 },
}

impl SegmentState {
    pub fn salt(&self) -> u64 {
        match *self {
            SegmentState::Announced { salt }
            | SegmentState::Sealed { salt, .. }
            | SegmentState::ForLogs { salt, .. }
            | SegmentState::Cold { salt, .. } => salt,
        }
    }

    /// How many bytes of it count, once that is known.
    pub fn len(&self) -> Option<u64> {
        match *self {
            SegmentState::Announced { .. } => None,
            SegmentState::Sealed { start, end, .. } | SegmentState::ForLogs { start, end, .. } => {
                Some(end.0.saturating_sub(start.0))
            }
            SegmentState::Cold { len, .. } => Some(len),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Place {
    keyspace: KeyspaceId,
    level: u8,
    run: Seq,
    table: Arc<TableMeta>,
}

/// How to take back an edit.
#[derive(Debug)]
#[must_use]
pub(super) struct Undo {
    counters: Counters,
    durable: Position,
    last_seq: Seq,
    sealed_end: Position,
    steps: Vec<Step>,
}

/// What was changed.
#[derive(Debug)]
enum Step {
    Added(FileNo),
    Removed(Place),
    /// The keyspace as far as it was before; `None`: it was not known.
    Flushed(KeyspaceId, Option<Seq>),
    Dropped(KeyspaceId, KeyspaceState),
    Segment(FileNo, Option<SegmentState>),
}

impl State {
    /// The state of a fresh database: keyspace 0 is the catalog's, file numbers begin at 1.
    pub fn new(db: u64) -> State {
        State {
            db,
            edit: 0,
            durable: Position(0),
            last_seq: Seq::ZERO,
            sealed_end: Position(0),
            next_file: FileNo(1),
            next_keyspace: 1,
            keyspaces: BTreeMap::new(),
            segments: BTreeMap::new(),
            places: HashMap::new(),
        }
    }

    /// Makes all changes of the edit, or, with an error, none.
    pub fn apply(&mut self, counters: Counters, edit: &Edit) -> Result<()> {
        self.change(counters, edit).map(|_done| ())
    }

    /// What it is once `edit`, the next one, is made.
    pub fn after(&self, edit: &Edit) -> Result<State> {
        let mut state = self.clone();
        state.apply(self.next_counters(), edit)?;
        Ok(state)
    }

    /// The counters as the edit after the last one will carry them.
    pub(super) fn next_counters(&self) -> Counters {
        Counters { number: self.edit + 1, ..self.counters() }
    }

    /// Makes sure that `no`, seen in the directory, is not given again.
    pub fn saw_file(&mut self, no: FileNo) -> Result<()> {
        if no.0 >= LIMIT {
            return Err(Error::corruption(format!("no file was ever given the number {no}")));
        }
        self.next_file = self.next_file.max(FileNo(no.0 + 1));
        Ok(())
    }

    /// Where a table stands: its keyspace, its level and itself.
    pub fn table(&self, no: FileNo) -> Option<(KeyspaceId, u8, &Arc<TableMeta>)> {
        self.places.get(&no).map(|p| (p.keyspace, p.level, &p.table))
    }

    /// The numbers of all tables.
    #[cfg(test)]
    pub fn tables(&self) -> impl Iterator<Item = FileNo> + '_ {
        let mut tables: Vec<FileNo> = self.places.keys().copied().collect();
        tables.sort();
        tables.into_iter()
    }

    /// Whether this is what `other` says that was read back from disk. Numbers that were given since
    /// and are not used yet do not count.
    pub fn is_written(&self, other: &State) -> bool {
        let (next_file, next_keyspace) = (other.next_file, other.next_keyspace);
        State { next_file, next_keyspace, ..self.clone() } == *other
    }

    /// The same at a moment when the segments `sealed`, of those announced, held the last of the
    /// journal, up to `last_seq`, and no other was in use.
    pub fn sealed(&self, sealed: &[(FileNo, Position, Position)], last_seq: Seq) -> Result<State> {
        let mut state = self.clone();
        for &(no, start, end) in sealed {
            state.change_segment(&Change::SegmentSealed { no, start, end })?;
        }
        state.segments.retain(|_, segment| !matches!(segment, SegmentState::Announced { .. }));
        state.durable = state.sealed_end;
        state.last_seq = last_seq;
        Ok(state)
    }

    fn counters(&self) -> Counters {
        Counters { number: self.edit, next_file: self.next_file, next_keyspace: self.next_keyspace }
    }

    /// As [`State::apply`], with the way back.
    pub(super) fn change(&mut self, counters: Counters, edit: &Edit) -> Result<Undo> {
        if Some(counters.number) != self.edit.checked_add(1) {
            let why = format!("edit {} follows edit {}", counters.number, self.edit);
            return Err(Error::corruption(why));
        }
        self.change_to(counters, edit).map_err(|e| e.context(format_args!("edit {}", counters.number)))
    }

    fn change_to(&mut self, counters: Counters, edit: &Edit) -> Result<Undo> {
        if counters.number >= LIMIT || counters.next_file.0 > LIMIT {
            return Err(Error::corruption("a number is beyond any that could have been given"));
        }
        if counters.next_file < self.next_file || counters.next_keyspace < self.next_keyspace {
            return Err(Error::corruption("file numbers or keyspace ids go back"));
        }
        let mut undo = Undo {
            counters: self.counters(),
            durable: self.durable,
            last_seq: self.last_seq,
            sealed_end: self.sealed_end,
            steps: Vec::with_capacity(edit.changes.len()),
        };
        self.edit = counters.number;
        self.next_file = counters.next_file;
        self.next_keyspace = counters.next_keyspace;
        // Edits are numbered when they are applied, not when they are built: an older view of the
        // journal may come later.
        self.durable = self.durable.max(edit.durable);
        self.last_seq = self.last_seq.max(edit.last_seq);
        match self.make(&edit.changes, &mut undo.steps) {
            Ok(()) => Ok(undo),
            Err(e) => {
                self.revert(undo);
                Err(e)
            }
        }
    }

    /// What goes first, then keyspaces, then tables into them, then segments.
    fn make(&mut self, changes: &[Change], steps: &mut Vec<Step>) -> Result<()> {
        for change in changes {
            if let Change::RemoveTable { keyspace, level, no } = *change {
                steps.push(self.remove_table(keyspace, level, no)?);
            }
        }
        let mut dropped = HashSet::new();
        for change in changes {
            if let Change::DropKeyspace { keyspace } = *change {
                dropped.insert(keyspace);
                steps.extend(self.drop_keyspace(keyspace));
            }
        }
        for change in changes {
            if let Change::Flushed { keyspace, seq } = *change {
                if dropped.contains(&keyspace) {
                    return Err(Error::corruption(format!("keyspace {keyspace} is dropped and flushed")));
                }
                steps.push(self.flushed(keyspace, seq)?);
            }
        }
        for change in changes {
            match change {
                Change::AddTable { keyspace, level, run, table } => {
                    steps.push(self.add_table(*keyspace, *level, *run, table)?);
                }
                Change::SegmentAnnounced { no, .. }
                | Change::SegmentSealed { no, .. }
                | Change::SegmentGone { no }
                | Change::SegmentForLogs { no }
                | Change::ColdSegment { no, .. } => {
                    let old = self.segments.get(no).copied();
                    self.change_segment(change)?;
                    steps.push(Step::Segment(*no, old));
                }
                Change::RemoveTable { .. } | Change::Flushed { .. } | Change::DropKeyspace { .. } => {}
            }
        }
        Ok(())
    }

    fn remove_table(&mut self, keyspace: KeyspaceId, level: u8, no: FileNo) -> Result<Step> {
        let found = self.places.get(&no).filter(|p| p.keyspace == keyspace && p.level == level);
        let levels = self.keyspaces.get_mut(&keyspace).map(|k| &mut k.levels);
        let removed = found.zip(levels).and_then(|(p, levels)| levels.remove(level, p.run, &p.table));
        match removed.and_then(|_| self.places.remove(&no)) {
            Some(place) => Ok(Step::Removed(place)),
            None => Err(Error::corruption(format!(
                "there is no table {no} on level {level} of keyspace {keyspace} to remove"
            ))),
        }
    }

    fn drop_keyspace(&mut self, keyspace: KeyspaceId) -> Option<Step> {
        let dropped = self.keyspaces.remove(&keyspace)?;
        for (_, table) in dropped.levels.tables() {
            self.places.remove(&table.no);
        }
        Some(Step::Dropped(keyspace, dropped))
    }

    fn flushed(&mut self, keyspace: KeyspaceId, seq: Seq) -> Result<Step> {
        let refuse =
            |why: &str| Err(Error::corruption(format!("keyspace {keyspace} flushed to {seq}: {why}")));
        if keyspace.0 >= self.next_keyspace {
            return refuse("the keyspace was never given out");
        }
        if seq > self.last_seq {
            // Numbers that a crash takes back are given again, and must not count as flushed.
            return refuse("that is not durable yet");
        }
        let old = self.keyspaces.get(&keyspace).map(|k| k.flushed);
        if old.is_some_and(|old| old > seq) {
            return refuse("it was flushed further before");
        }
        self.keyspaces.entry(keyspace).or_default().flushed = seq;
        Ok(Step::Flushed(keyspace, old))
    }

    fn add_table(&mut self, keyspace: KeyspaceId, level: u8, run: Seq, table: &TableMeta) -> Result<Step> {
        let no = table.no;
        let refuse = |why: &str| Err(Error::corruption(format!("table {no}: {why}")));
        table.check()?;
        self.check_new_file(no)?;
        if table.max_seq > self.last_seq {
            return refuse("it holds more than is durable in the journal");
        }
        let Some(k) = self.keyspaces.get_mut(&keyspace) else {
            return refuse("its keyspace is not known");
        };
        let table = Arc::new(table.clone());
        k.levels.insert(level, run, table.clone())?;
        self.places.insert(no, Place { keyspace, level, run, table });
        Ok(Step::Added(no))
    }

    fn check_new_file(&self, no: FileNo) -> Result<()> {
        if no >= self.next_file {
            return Err(Error::corruption(format!("file {no} was never given its number")));
        }
        if self.places.contains_key(&no) || self.segments.contains_key(&no) {
            return Err(Error::corruption(format!("file {no} is there twice")));
        }
        Ok(())
    }

    fn change_segment(&mut self, change: &Change) -> Result<()> {
        let refuse = |no: FileNo, why: &str| Err(Error::corruption(format!("segment {no}: {why}")));
        match *change {
            Change::SegmentAnnounced { no, salt } => {
                self.check_new_file(no)?;
                self.segments.insert(no, SegmentState::Announced { salt });
            }
            Change::SegmentSealed { no, start, end } => {
                let Some(&SegmentState::Announced { salt }) = self.segments.get(&no) else {
                    return refuse(no, "sealed, but not announced or sealed before");
                };
                if start > end {
                    return refuse(no, "its positions are reversed");
                }
                self.segments.insert(no, SegmentState::Sealed { salt, start, end });
                self.sealed_end = self.sealed_end.max(end);
            }
            Change::SegmentGone { no } if self.segments.remove(&no).is_none() => {
                return refuse(no, "gone, but it was not there");
            }
            Change::SegmentForLogs { no } => {
                let Some(&SegmentState::Sealed { salt, start, end }) = self.segments.get(&no) else {
                    return refuse(no, "for logs only, but not sealed");
                };
                self.segments.insert(no, SegmentState::ForLogs { salt, start, end });
            }
            Change::ColdSegment { no, salt, len } => {
                self.check_new_file(no)?;
                self.segments.insert(no, SegmentState::Cold { salt, len });
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes back the last edit.
    pub(super) fn revert(&mut self, undo: Undo) {
        self.edit = undo.counters.number;
        self.next_file = undo.counters.next_file;
        self.next_keyspace = undo.counters.next_keyspace;
        self.durable = undo.durable;
        self.last_seq = undo.last_seq;
        self.sealed_end = undo.sealed_end;
        for step in undo.steps.into_iter().rev() {
            self.step_back(step);
        }
    }

    fn step_back(&mut self, step: Step) {
        match step {
            Step::Added(no) => {
                if let Some(place) = self.places.remove(&no)
                    && let Some(k) = self.keyspaces.get_mut(&place.keyspace)
                {
                    let removed = k.levels.remove(place.level, place.run, &place.table);
                    debug_assert!(removed.is_some());
                }
            }
            Step::Removed(place) => {
                if let Some(k) = self.keyspaces.get_mut(&place.keyspace) {
                    let back = k.levels.insert(place.level, place.run, place.table.clone());
                    debug_assert!(back.is_ok());
                }
                self.places.insert(place.table.no, place);
            }
            Step::Flushed(keyspace, None) => {
                self.keyspaces.remove(&keyspace);
            }
            Step::Flushed(keyspace, Some(seq)) => {
                self.keyspaces.entry(keyspace).or_default().flushed = seq;
            }
            Step::Dropped(keyspace, state) => {
                self.places.extend(places(keyspace, &state.levels));
                self.keyspaces.insert(keyspace, state);
            }
            Step::Segment(no, None) => {
                self.segments.remove(&no);
            }
            Step::Segment(no, Some(old)) => {
                self.segments.insert(no, old);
            }
        }
    }

    /// Whether the levels that an edit has changed are as they should be.
    pub fn check_changed(&self, edit: &Edit) -> Result<()> {
        let changed: HashSet<KeyspaceId> = edit.changes.iter().filter_map(Change::levels_of).collect();
        for k in changed.iter().filter_map(|id| self.keyspaces.get(id)) {
            k.levels.check().and_then(|()| k.levels.check_order())?;
        }
        Ok(())
    }

    /// Appends the payload of a snapshot record: the database's id, where the next segment starts, and
    /// the edit that makes this
    /// state from nothing. Returns the number of changes.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> usize {
        out.extend_from_slice(&self.db.to_le_bytes());
        out.extend_from_slice(&self.sealed_end.0.to_le_bytes());
        edit::encode_head(out, self.counters(), self.durable, self.last_seq);
        let mut count = 0;
        for (&keyspace, k) in &self.keyspaces {
            Change::Flushed { keyspace, seq: k.flushed }.encode(out);
            count += 1;
            for (level, run) in k.levels.runs() {
                for table in &run.tables {
                    edit::encode_add(out, keyspace, level, run.age, table);
                    count += 1;
                }
            }
        }
        for (&no, &segment) in &self.segments {
            if let SegmentState::Cold { salt, len } = segment {
                Change::ColdSegment { no, salt, len }.encode(out);
                count += 1;
                continue;
            }
            Change::SegmentAnnounced { no, salt: segment.salt() }.encode(out);
            count += 1;
            if let SegmentState::Sealed { start, end, .. } | SegmentState::ForLogs { start, end, .. } =
                segment
            {
                Change::SegmentSealed { no, start, end }.encode(out);
                count += 1;
            }
            if let SegmentState::ForLogs { .. } = segment {
                Change::SegmentForLogs { no }.encode(out);
                count += 1;
            }
        }
        count
    }

    /// Reads such a payload back, for the state after edit `number`.
    pub(super) fn decode(payload: &[u8], number: u64, count: u32) -> Result<State> {
        let mut r = Reader::new(payload);
        let mut state = State::new(r.u64()?);
        state.sealed_end = Position(r.u64()?);
        let (counters, edit) = Edit::decode(&payload[r.at()..], number, count)?;
        let _done = state.change_to(counters, &edit).map_err(|e| e.context("snapshot"))?;
        Ok(state)
    }
}

fn places(keyspace: KeyspaceId, levels: &Levels) -> impl Iterator<Item = (FileNo, Place)> + '_ {
    levels.runs().flat_map(move |(level, run)| {
        let place = move |t: &Arc<TableMeta>| Place { keyspace, level, run: run.age, table: t.clone() };
        run.tables.iter().map(move |t| (t.no, place(t)))
    })
}
