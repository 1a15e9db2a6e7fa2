//! What the lock on commits guards: the journal's writer, the last sequence number, and the writing
//! side of every memtable.

use crate::batch::{Op, decode};
use crate::db::registry::Registry;
use crate::db::stage::Retired;
use crate::db::throttle::Throttle;
use crate::db::tree::Tree;
use crate::error::{Error, Result, closed};
use crate::ids::{KeyspaceId, Position, Seq};
use crate::journal::{self, Segment};
use crate::key::{Kind, Trailer};
use crate::memtable::{self, Pool};
use crate::mutant::Mutant;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::view::Mem;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

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
#[derive(Default)]
pub(crate) struct Writers {
    by_id: HashMap<KeyspaceId, TreeWriter, BuildHasherDefault<IdHasher>>,
    /// Where memtables have their memory from.
    pool: Arc<Pool>,
    /// Keyspaces of the batch being applied, each run of operations once.
    touched: Vec<KeyspaceId>,
    /// Keys and values as callers wrote them, over all trees but the catalog.
    pub bytes_in: u64,
    pub operations: u64,
    /// The largest memtable it was applied to.
    largest: usize,
    /// Bytes applied since all memtables together were last looked at.
    unchecked: usize,
}

struct TreeWriter {
    tree: Arc<Tree>,
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
    pub fn new(pool: &Arc<Pool>) -> Writers {
        Writers { pool: pool.clone(), ..Writers::default() }
    }

    pub fn add(&mut self, tree: &Arc<Tree>, memtable: memtable::Writer) {
        let pin = match tree.view.load().memtables.first() {
            Some(mem) => mem.pin.clone(),
            None => Arc::default(),
        };
        self.by_id.insert(tree.id, TreeWriter { tree: tree.clone(), memtable, pin });
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
        mut skip: impl FnMut(&Tree, Seq) -> bool,
    ) -> Result<()> {
        self.touched.clear();
        self.largest = 0;
        let mut seq = first;
        for op in decode(ops) {
            let (id, op) = op?;
            if self.touched.last() != Some(&id) {
                self.touched.push(id);
            }
            match self.by_id.get_mut(&id) {
                Some(w) => {
                    if !skip(&w.tree, seq) {
                        if w.pin.load(Ordering::Relaxed) == u64::MAX {
                            w.pin.store(position.0, Ordering::Relaxed);
                        }
                        w.insert(op, seq);
                        self.largest = self.largest.max(w.memtable.memtable().bytes());
                        if id == KeyspaceId::CATALOG {
                            self.apply_row(op, seq, registry)?;
                        } else {
                            let bytes = op.len() as u64;
                            w.tree.counters.bytes_in.add(bytes);
                            w.tree.counters.operations.add(1);
                            self.bytes_in += bytes;
                            self.operations += 1;
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
        }
        self.unchecked += ops.len();
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

    fn apply_row(&mut self, op: Op<'_>, seq: Seq, registry: &crate::sync::Mutex<Registry>) -> Result<()> {
        let mut registry = registry.lock();
        let before = registry.dropped.len();
        match op {
            Op::Put { key, value } => {
                if let Some(made) = registry.put(key, value, seq)? {
                    self.add(&made.tree, made.writer);
                }
            }
            Op::Delete { key } => registry.delete(key, seq),
            Op::DeleteRange { .. } => return Err(Error::corruption("a range delete on the catalog")),
        }
        for dropped in &registry.dropped[before..] {
            self.by_id.remove(&dropped.tree.id);
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

    /// Freezes every memtable that holds something, of `only` or of all trees.
    pub fn rotate_all(&mut self, only: Option<KeyspaceId>) -> Vec<Arc<Tree>> {
        let mut full = Vec::new();
        for (id, w) in &mut self.by_id {
            if only.is_none_or(|only| only == *id) && !w.memtable.memtable().is_empty() {
                w.rotate(&self.pool);
                full.push(w.tree.clone());
            }
        }
        full.sort_by_key(|tree| tree.id);
        full
    }
}

impl TreeWriter {
    #[inline]
    fn insert(&mut self, op: Op<'_>, seq: Seq) {
        match op {
            Op::Put { key, value } => self.memtable.insert(key, Trailer::new(seq, Kind::Put), value),
            Op::Delete { key } => self.memtable.insert(key, Trailer::new(seq, Kind::Delete), &[]),
            Op::DeleteRange { start, end } => self.memtable.delete_range(start, end, seq),
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

    pub fn journal(&mut self) -> Result<&mut journal::Writer> {
        self.journal.as_mut().ok_or_else(closed)
    }

    /// Takes out the segments that end at `end` or before.
    pub fn retired_before(&mut self, end: Position) -> Vec<Retired> {
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
