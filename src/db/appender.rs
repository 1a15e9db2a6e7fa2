//! What the lock on commits guards: the journal's writer, the last sequence number, and the writing
//! side of every memtable.

use crate::batch::{Op, decode};
use crate::catalog;
use crate::db::registry::{Made, Registry};
use crate::db::stage::Retired;
use crate::db::throttle::Throttle;
use crate::db::tree::{Tree, put_in_order};
use crate::entries::{APPEND, Verb};
use crate::error::{Error, Result, closed};
use crate::fs::File;
use crate::ids::{FileNo, KeyspaceId, Position, Seq};
use crate::journal::{self, Segment};
use crate::key::{Kind, Trailer};
use crate::log::extent::LogKey;
use crate::log::head::{self, Head};
use crate::log::index::LogIndex;
use crate::log::segment::LogSegment;
use crate::memtable::{self, Pool};
use crate::mutant::Mutant;
use crate::record::HEADER_LEN;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::view::Mem;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;
use std::sync::Arc;

/// Operations on logs are kept for readers in pieces of about this size: a value that is read keeps no more.
const KEEP_TOGETHER: usize = 64 << 10;

/// What the lock on commits guards.
pub(crate) struct CommitState {
    /// `None` in a read-only database, and once closed.
    pub journal: Option<journal::Writer>,
    /// Where the active segment starts.
    pub segment_start: Position,
    /// Where the first segment of this opening starts.
    pub began: Position,
    /// Batches committed since opening.
    pub commits: u64,
    /// The active segment is a small one on a full disk, for what gives space back.
    pub spare: bool,
    /// Segments behind the active one that are not synced whole, oldest first.
    pub retired: Vec<Retired>,
    /// Where segments begin that are not known to be durable up to there, oldest first.
    pub boundaries: Vec<Boundary>,
    /// The last sequence number given.
    pub last_seq: Seq,
    pub writers: Writers,
}

/// A place between two commits: all up to `seq` stand before `position` of the journal, where a segment
/// starts, all others behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Boundary {
    pub position: Position,
    pub seq: Seq,
}

/// The journal when memtables are looked at.
#[derive(Clone, Copy)]
pub(crate) struct Look {
    /// About where it ends.
    pub end: Position,
    /// How much of it memtables may need.
    pub bytes: u64,
}

/// The writing side of every live tree's memtable.
pub(crate) struct Writers {
    by_id: HashMap<KeyspaceId, TreeWriter, BuildHasherDefault<IdHasher>>,
    /// Where memtables have their memory from.
    pool: Arc<Pool>,
    /// Where the entries of logs are.
    logs: Arc<LogIndex>,
    /// The segment that records are applied from.
    segment: Source,
    /// Keyspaces of the batch being applied, each run of operations once.
    touched: Vec<KeyspaceId>,
    /// Where rows of logs are made.
    row: Vec<u8>,
    /// Keys and values as callers wrote them, over all trees but the catalog.
    pub bytes_in: u64,
    pub operations: u64,
    /// The largest memtable it was applied to.
    largest: usize,
    /// Bytes applied since all memtables together were last looked at.
    unchecked: usize,
}

/// The segment that the records stand in which are applied.
#[derive(Clone, Default)]
pub(crate) struct Source {
    pub no: FileNo,
    pub salt: u64,
    pub start: Position,
    /// Open, while it is being written to.
    pub file: Option<Arc<dyn File>>,
    /// Made known with the first log entry in it.
    pub known: Option<Arc<LogSegment>>,
}

/// Where an operation stands.
#[derive(Clone, Copy)]
struct Place {
    id: KeyspaceId,
    seq: Seq,
    /// Of its record.
    record: Position,
    /// From its code on.
    position: Position,
    /// Whether it is in tables already.
    skip: bool,
}

struct TreeWriter {
    tree: Arc<Tree>,
    /// What the tree is of.
    kind: catalog::Kind,
    memtable: memtable::Writer,
    pin: Arc<AtomicU64>,
}

/// Ids are small and distinct: one multiplication spreads them.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.write_u32(u32::from(b));
        }
    }

    fn write_u32(&mut self, n: u32) {
        self.0 = (self.0 ^ u64::from(n)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Writers {
    pub fn new(pool: &Arc<Pool>, logs: &Arc<LogIndex>) -> Writers {
        Writers {
            by_id: HashMap::default(),
            pool: pool.clone(),
            logs: logs.clone(),
            segment: Source::default(),
            touched: Vec::new(),
            row: Vec::new(),
            bytes_in: 0,
            operations: 0,
            largest: 0,
            unchecked: 0,
        }
    }

    /// Whether the segment that records are applied from holds log entries that are live.
    pub fn has_log_entries(&self) -> bool {
        self.segment.known.as_ref().is_some_and(|segment| segment.live_entries() > 0)
    }

    /// From here on records of this segment are applied.
    pub fn enter(&mut self, segment: Source) {
        self.segment = segment;
    }

    pub fn add(&mut self, made: Made) {
        let Made { tree, writer: memtable, kind } = made;
        let pin = match tree.view.load().memtables.first() {
            Some(mem) => mem.pin.clone(),
            None => Arc::default(),
        };
        self.by_id.insert(tree.id, TreeWriter { tree, kind, memtable, pin });
    }

    /// Applies the operations of one batch: `first` is the first one's sequence number, `position`
    /// where its record stands. Rows of the catalog take effect in `registry`. `skip` says which
    /// operations are in tables already (replay).
    pub fn apply(
        &mut self,
        ops: &[u8],
        first: Seq,
        position: Position,
        registry: &crate::sync::Mutex<Registry>,
        skip: impl FnMut(&Tree, Seq) -> bool,
    ) -> Result<()> {
        let mut decoded = decode(ops);
        let placed = std::iter::from_fn(|| {
            let at = decoded.at();
            let op = decoded.next()?;
            Some(op.map(|(id, op)| (at..decoded.at(), id, op)))
        });
        self.apply_each(ops, placed, first, position, registry, skip)
    }

    /// [Applies](Writers::apply) a batch of one operation, an entry of a keyspace in `ops`, which need not be
    /// decoded again.
    #[inline]
    pub fn apply_one(
        &mut self,
        ops: &[u8],
        (id, op): (KeyspaceId, Op<'_>),
        seq: Seq,
        position: Position,
        registry: &crate::sync::Mutex<Registry>,
    ) -> Result<()> {
        let op = std::iter::once(Ok((0..ops.len(), id, op)));
        self.apply_each(ops, op, seq, position, registry, |_, _| false)
    }

    /// Applies operations, each with its place in the batch.
    #[inline]
    fn apply_each<'a>(
        &mut self,
        whole: &'a [u8],
        mut ops: impl Iterator<Item = Result<(Range<usize>, KeyspaceId, Op<'a>)>>,
        first: Seq,
        position: Position,
        registry: &crate::sync::Mutex<Registry>,
        mut skip: impl FnMut(&Tree, Seq) -> bool,
    ) -> Result<()> {
        self.touched.clear();
        self.largest = 0;
        let mut seq = first;
        // Operations on logs next to each other, for the tail cache.
        let mut on_logs = 0..0;
        let mut next = ops.next().transpose()?;
        while let Some((at, id, op)) = next {
            if self.touched.last() != Some(&id) {
                self.touched.push(id);
            }
            match self.by_id.get_mut(&id) {
                Some(w) if w.takes(op) => {
                    // What a run of operations on one keyspace has in common is done once.
                    let (mut bytes, mut operations) = (0, 0);
                    next = Some((at, id, op));
                    while let Some((_, same, op)) = next
                        && same == id
                        && w.takes(op)
                    {
                        if !skip(&w.tree, seq) {
                            w.pin_from(position);
                            w.insert(op, seq);
                            bytes += op.len() as u64;
                            operations += 1;
                        }
                        seq = seq.plus(1);
                        next = ops.next().transpose()?;
                    }
                    if operations > 0 {
                        self.largest = self.largest.max(w.memtable.memtable().bytes());
                        w.count(bytes, operations);
                        self.bytes_in += bytes;
                        self.operations += operations;
                    }
                    continue;
                }
                Some(w) => {
                    let skip = skip(&w.tree, seq);
                    if id == KeyspaceId::CATALOG {
                        self.apply_row(op, (seq, position), registry, skip)?;
                    } else {
                        let place = Place {
                            id,
                            seq,
                            record: position,
                            position: in_payload(position, at.start),
                            skip,
                        };
                        self.apply_log(op, place)?;
                        let goes_on = on_logs.end == at.start && (1..KEEP_TOGETHER).contains(&on_logs.len());
                        if goes_on {
                            on_logs.end = at.end;
                        } else if matches!(op, Op::Log(op) if op.code == APPEND) {
                            self.keep(position, whole, &on_logs);
                            on_logs = at;
                        }
                    }
                }
                // Only replay meets it: the keyspace was dropped later on.
                None if id.0 < registry.lock().next_id => {}
                None => {
                    return Err(Error::corruption(format!("an operation on keyspace {id}, which never was")));
                }
            }
            seq = seq.plus(1);
            next = ops.next().transpose()?;
        }
        self.keep(position, whole, &on_logs);
        self.unchecked += whole.len();
        Ok(())
    }

    /// Keeps a part of the payload `ops` of the record at `position` for who reads the newest entries.
    #[inline]
    fn keep(&self, position: Position, ops: &[u8], part: &Range<usize>) {
        if !part.is_empty() && self.segment.file.is_some() {
            self.logs.tail.push(in_payload(position, part.start), &ops[part.clone()]);
        }
    }

    /// Applies an operation on a log: its head becomes a row, and its entries can be found.
    #[inline(never)]
    fn apply_log(&mut self, op: Op<'_>, place: Place) -> Result<()> {
        let Place { id, seq, record, position, skip } = place;
        let Some(w) = self.by_id.get_mut(&id) else { return Ok(()) };
        let Op::Log(op) = op else {
            return Err(Error::corruption(format!("an operation of a keyspace on the logs {id}")));
        };
        if w.kind != catalog::Kind::Logs {
            return Err(Error::corruption(format!("a log operation on the keyspace {id}")));
        }
        let (key, verb) = ((id, op.log()), op.verb()?);
        let replaying = self.segment.file.is_none();
        if skip {
            // Where its entries are is in no table.
            return self.put_entries(key, seq, &verb, position, None);
        }
        w.pin_from(record);
        let old = match self.logs.known(key).filter(|_| !replaying) {
            Some(known) => known.head,
            None => w.head(key.1)?,
        };
        let new = head::after(old, &verb).map_err(|e| Error::corruption(e.to_string()))?;
        let forgotten = Mutant::PurgeNotReplayed.on() && replaying && matches!(verb, Verb::Purge(_));
        if new != old && !forgotten {
            w.put_head(key.1, new, seq, &mut self.row);
        }
        let bytes = op.payload() as u64;
        w.count(bytes, 1);
        self.bytes_in += bytes;
        self.operations += 1;
        self.largest = self.largest.max(w.memtable.memtable().bytes());
        if let Verb::Append(_) = verb {
            return self.put_entries(key, seq, &verb, position, new.filter(|_| !replaying));
        }
        // What is replayed is clipped to the bounds at the end.
        if !replaying {
            self.logs.cut(key, new, seq);
        }
        Ok(())
    }

    /// Makes the entries of an append known.
    fn put_entries(
        &mut self,
        key: LogKey,
        seq: Seq,
        verb: &Verb<'_>,
        position: Position,
        head: Option<Head>,
    ) -> Result<()> {
        let Verb::Append(entries) = verb else { return Ok(()) };
        let Source { no, salt, start, file, known } = &mut self.segment;
        if known.is_none() {
            let segment = self.logs.segment(*no, *salt, Some(*start));
            if let Some(file) = file {
                segment.lend(&self.logs.access, file.clone());
            }
            *known = Some(segment);
        }
        let Some(segment) = known else { return Ok(()) };
        // Behind code and keyspace.
        let position = position.plus(5);
        let offset = u32::try_from(position.0.saturating_sub(start.0));
        let offset = offset.map_err(|_| Error::corruption("a log entry lies beyond 4 GiB of its segment"))?;
        self.logs.append((key, seq), entries, (segment, offset), head);
        Ok(())
    }

    /// What was applied until now, in replay, does not count.
    fn count_from_here(&mut self) {
        (self.bytes_in, self.operations) = (0, 0);
        for w in self.by_id.values() {
            w.tree.counters.bytes_in.set(0);
            w.tree.counters.operations.set(0);
        }
    }

    /// Applies an operation on the catalog: it is a row there, and takes effect.
    #[inline(never)]
    fn apply_row(
        &mut self,
        op: Op<'_>,
        (seq, position): (Seq, Position),
        registry: &crate::sync::Mutex<Registry>,
        skip: bool,
    ) -> Result<()> {
        let Some(w) = self.by_id.get_mut(&KeyspaceId::CATALOG).filter(|_| !skip) else { return Ok(()) };
        if !matches!(op, Op::Log(_)) {
            w.pin_from(position);
            w.insert(op, seq);
            self.largest = self.largest.max(w.memtable.memtable().bytes());
        }
        let mut registry = registry.lock();
        let before = registry.dropped.len();
        match op {
            Op::Put { key, value } => {
                if let Some(made) = registry.put(key, value, seq)? {
                    self.add(made);
                }
            }
            Op::Delete { key } => registry.delete(key, seq),
            Op::DeleteRange { .. } => return Err(Error::corruption("a range delete on the catalog")),
            Op::Log(_) => return Err(Error::corruption("a log operation on the catalog")),
        }
        for dropped in &registry.dropped[before..] {
            let writer = self.by_id.remove(&dropped.tree.id);
            if writer.is_some_and(|w| w.kind == catalog::Kind::Logs) {
                self.logs.drop_logs(dropped.tree.id, seq);
            }
        }
        Ok(())
    }

    /// Freezes memtables that have grown to `limit`, or that make all of them together too large,
    /// or that pin journal that is half its limit behind. Answers the trees that want a flush.
    pub fn rotate_full(&mut self, limit: usize, journal: Look, throttle: &Throttle) -> Vec<Arc<Tree>> {
        let mut full = Vec::new();
        let grown = if self.largest < limit { 0 } else { self.touched.len() };
        for i in 0..grown {
            if let Some(w) = self.by_id.get_mut(&self.touched[i])
                && w.memtable.memtable().bytes() >= limit
            {
                w.rotate(&self.pool);
                full.push(w.tree.clone());
            }
        }
        // All of them are looked at after every sixteenth of a memtable, or of the journal: often
        // enough to stay near the limit, rarely enough to cost nothing.
        if self.unchecked as u64 >= (limit as u64).min(journal.bytes) / 16 {
            self.unchecked = 0;
            let pinned = Position(journal.end.0.saturating_sub(journal.bytes / 2));
            throttle.active(self.rotate_excess(limit, pinned, &mut full) as u64, journal.end);
        }
        full
    }

    /// The bytes of the largest memtable that the last batch went to.
    pub fn largest(&self) -> usize {
        self.largest
    }

    /// Whether the last batch was the one after which all memtables were looked at.
    pub fn looked(&self) -> bool {
        self.unchecked == 0
    }

    /// Answers the bytes in what is not frozen.
    fn rotate_excess(&mut self, limit: usize, pinned: Position, full: &mut Vec<Arc<Tree>>) -> usize {
        // Of those that hold something: what the others take cannot be flushed away.
        let mut total = 0;
        let mut by_size: Vec<(usize, KeyspaceId)> = Vec::new();
        for (id, w) in &mut self.by_id {
            let memtable = w.memtable.memtable();
            if memtable.is_empty() {
                continue;
            }
            if w.pin.load(Ordering::Relaxed) < pinned.0 {
                w.rotate(&self.pool);
                full.push(w.tree.clone());
            } else {
                total += memtable.bytes();
                by_size.push((memtable.bytes(), *id));
            }
        }
        if total <= limit + limit / 2 {
            return total;
        }
        by_size.sort_unstable_by(|a, b| b.cmp(a));
        for (bytes, id) in by_size {
            if total <= limit {
                break;
            }
            if let Some(w) = self.by_id.get_mut(&id) {
                w.rotate(&self.pool);
                full.push(w.tree.clone());
                total -= bytes;
            }
        }
        total
    }

    /// The bytes in memtables that hold something and are not frozen.
    pub fn active_bytes(&self) -> usize {
        let memtables = self.by_id.values().map(|w| w.memtable.memtable());
        memtables.filter(|m| !m.is_empty()).map(|m| m.bytes()).sum()
    }

    /// Freezes every memtable that needs the journal before `end`.
    pub fn rotate_pinning(&mut self, end: Position) -> Vec<Arc<Tree>> {
        let mut full = Vec::new();
        for w in self.by_id.values_mut() {
            if w.pin.load(Ordering::Relaxed) < end.0 && !w.memtable.memtable().is_empty() {
                w.rotate(&self.pool);
                full.push(w.tree.clone());
            }
        }
        put_in_order(&mut full);
        full
    }

    /// Freezes every memtable that holds something, of `only` or of all trees.
    pub fn rotate_all(&mut self, only: Option<KeyspaceId>) -> Vec<Arc<Tree>> {
        let mut full = Vec::new();
        for (id, w) in &mut self.by_id {
            if only.is_none_or(|only| only == *id) && !w.memtable.memtable().is_empty() {
                w.rotate(&self.pool);
                full.push(w.tree.clone());
            }
        }
        put_in_order(&mut full);
        full
    }
}

/// Where byte `at` of the payload of the record at `record` stands.
#[inline]
fn in_payload(record: Position, at: usize) -> Position {
    record.plus((HEADER_LEN + at) as u64)
}

impl TreeWriter {
    /// Whether the operation is an entry or a range delete of an ordinary keyspace.
    #[inline]
    fn takes(&self, op: Op<'_>) -> bool {
        self.kind == catalog::Kind::Keyspace
            && self.tree.id != KeyspaceId::CATALOG
            && !matches!(op, Op::Log(_))
    }

    /// The memtable needs the journal from this record on, if not from an earlier one.
    #[inline]
    fn pin_from(&self, record: Position) {
        if self.pin.load(Ordering::Relaxed) == u64::MAX {
            self.pin.store(record.0, Ordering::Relaxed);
        }
    }

    #[inline]
    fn count(&self, bytes: u64, operations: u64) {
        self.tree.counters.bytes_in.add(bytes);
        self.tree.counters.operations.add(operations);
    }

    #[inline]
    fn insert(&mut self, op: Op<'_>, seq: Seq) {
        match op {
            Op::Put { key, value } => self.memtable.insert(key, Trailer::new(seq, Kind::Put), value),
            Op::Delete { key } => self.memtable.insert(key, Trailer::new(seq, Kind::Delete), &[]),
            Op::DeleteRange { start, end } => self.memtable.delete_range(start, end, seq),
            Op::Log(_) => debug_assert!(false, "applied on a way of its own"),
        }
    }

    /// The row of a log as of the newest operation applied.
    fn head(&self, log: u64) -> Result<Option<Head>> {
        self.tree.view.load().log_head(log, Seq::MAX)
    }

    /// `row`: where it is made.
    fn put_head(&mut self, log: u64, new: Option<Head>, seq: Seq, row: &mut Vec<u8>) {
        match new {
            Some(new) => {
                row.clear();
                new.encode(row);
                self.memtable.insert(&head::key(log), Trailer::new(seq, Kind::Put), row);
            }
            None => self.memtable.insert(&head::key(log), Trailer::new(seq, Kind::Delete), &[]),
        }
    }

    fn rotate(&mut self, pool: &Arc<Pool>) {
        let (writer, table) = memtable::new_in(pool);
        let mem = Mem::new(table);
        self.pin = mem.pin.clone();
        self.memtable = writer;
        self.tree.rotate(mem);
    }
}

impl CommitState {
    /// Before the first segment is activated; the journal so far ends at `end`.
    pub fn new(end: Position, last_seq: Seq, mut writers: Writers) -> CommitState {
        writers.count_from_here();
        let (segment_start, began) = (end, end);
        CommitState {
            journal: None,
            segment_start,
            began,
            commits: 0,
            spare: false,
            retired: Vec::new(),
            boundaries: Vec::new(),
            last_seq,
            writers,
        }
    }

    /// The journal's writer is at a segment that starts at `start`.
    pub fn enter(&mut self, start: Position) {
        self.segment_start = start;
        let Some(journal) = &self.journal else { return };
        let segment = journal.segment();
        let file = Some(segment.file().clone());
        self.writers.enter(Source { no: segment.no(), salt: segment.salt(), start, file, known: None });
    }

    pub fn journal(&mut self) -> Result<&mut journal::Writer> {
        self.journal.as_mut().ok_or_else(closed)
    }

    /// The segments that end at `end` or before and are not synced.
    pub fn retired_until(&self, end: Position) -> Vec<FileNo> {
        self.retired.iter().take_while(|r| r.end <= end).map(|r| r.segment.no()).collect()
    }

    /// Takes those out.
    pub fn take_retired(&mut self, end: Position) -> Vec<Retired> {
        let before = self.retired.partition_point(|r| r.end <= end);
        self.retired.drain(..before).collect()
    }

    /// Writes out what is gathered and answers what a sync must cover. `durable` is what the last
    /// sync covered: if no record says so yet, a mark is appended that does, so that damage below
    /// it can be told from a torn tail.
    pub fn sync_target(&mut self, durable: Position) -> Result<(Position, Seq, Arc<Segment>, Vec<Retired>)> {
        let last_seq = self.last_seq;
        let journal = self.journal()?;
        if journal.end() > durable && journal.vouched() < durable && !Mutant::SkipMark.on() {
            journal.mark(durable)?;
        }
        journal.flush()?;
        let (end, segment) = (journal.end(), journal.segment().clone());
        Ok((end, last_seq, segment, std::mem::take(&mut self.retired)))
    }
}
