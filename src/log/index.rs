//! Where the live entries of all logs are. One answer for readers and the commit alike; what a snapshot
//! sees of it, its sequence number tells.
//!
//! Of two copies of an index the later one counts, so entries are put in in the order of commits: what
//! comes in at an index takes away everything at or behind it. While opening, some of what is put in was
//! dead long ago, and what came between may be gone; there can be gaps then. In the end everything is
//! clipped to the bounds, and within those the newest copy of each index is the one that counts.

use crate::budget::{Budget, Share, Use};
use crate::entries::Entries;
use crate::error::{Error, Result};
use crate::ids::{FileNo, KeyspaceId, Position, Seq};
use crate::log::extent::{Extent, LogKey};
use crate::log::extents::Extents;
use crate::log::footer::{Builder, Range, Run};
use crate::log::head::Head;
use crate::log::segment::{Access, LogSegment, Wanted};
use crate::log::tail::Tail;
use crate::record::size;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// Bytes before an operation's log: code and keyspace.
const BEFORE: usize = 5;
/// So many locks, so that readers of some logs do not wait for writers of others.
const SHARDS: usize = 16;

pub(crate) struct LogIndex {
    shards: Vec<Mutex<Shard>>,
    segments: Mutex<BTreeMap<FileNo, Arc<LogSegment>>>,
    pub access: Access,
    pub tail: Tail,
    work: LogWork,
}

/// What is to be done, and whether somebody is at it.
struct LogWork {
    busy: AtomicBool,
    /// Somebody else wanted to meanwhile.
    again: AtomicBool,
    wanted: Arc<Wanted>,
}

struct Shard {
    logs: HashMap<LogKey, LogState, BuildHasherDefault<KeyHasher>>,
    /// How often a log was forgotten: who read its head before that must read it again.
    forgotten: u64,
    /// What the map of logs takes.
    share: Share,
}

/// What is known of a log that was touched since opening, or has entries.
#[derive(Default)]
struct LogState {
    /// `None`: no row.
    head: Option<Head>,
    /// How often a tag at some index may have changed.
    epoch: u32,
    /// In index order; without gaps, but while opening.
    parts: VecDeque<Part>,
}

/// The entries of one log in one segment.
struct Part {
    segment: Arc<LogSegment>,
    first: u64,
    next: u64,
    /// What they take, about.
    bytes: u64,
    held: Held,
}

/// What says where the entries of a part lie.
enum Held {
    Memory(Box<Extents>),
    /// These of the extents in the footer.
    Footer(Range),
}

/// Where an entry is.
#[derive(Clone)]
pub(crate) struct Found {
    pub segment: Arc<LogSegment>,
    pub extent: Extent,
}

/// A log's head, and the stamp with which tags are looked up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Known {
    pub head: Option<Head>,
    pub epoch: u32,
}

/// Ids are small and logs are numbered by callers: one multiplication spreads both.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&b| self.write_u64(b.into()));
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(n.into());
    }

    fn write_u64(&mut self, n: u64) {
        let x = (self.0.rotate_left(29) ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = x ^ (x >> 32);
    }
}

impl Shard {
    fn new(budget: &Arc<Budget>) -> Shard {
        Shard { logs: HashMap::default(), forgotten: 0, share: budget.share(Use::LogIndex) }
    }

    /// What is known of a log, made known if it is not.
    fn entry(&mut self, key: LogKey, head: Option<Head>) -> &mut LogState {
        // A byte of control for each place in the map.
        let place = size_of::<(LogKey, LogState)>() + 1;
        let capacity = self.logs.capacity();
        if self.share.bytes() != capacity * place {
            self.share.set(capacity * place);
        }
        self.logs.entry(key).or_insert_with(|| LogState { head, ..LogState::default() })
    }
}

impl LogState {
    /// Takes away everything at `from` and behind it.
    fn cut_tail(&mut self, from: u64, seq: Seq) {
        while let Some(part) = self.parts.back_mut() {
            if part.first >= from {
                part.clip(part.first, part.first, seq);
                self.parts.pop_back();
            } else {
                part.clip(part.first, from, seq);
                return;
            }
        }
    }

    /// Takes away everything before `first`.
    fn cut_front(&mut self, first: u64, seq: Seq) {
        while let Some(part) = self.parts.front_mut() {
            if part.next <= first {
                part.clip(part.next, part.next, seq);
                self.parts.pop_front();
            } else {
                part.clip(first, part.next, seq);
                return;
            }
        }
    }

    /// Puts in what footers name, in the order of commits with what is there already: what one segment
    /// holds of a log without a gap is older than all that another one holds, or newer.
    fn merge(&mut self, runs: Vec<(Arc<LogSegment>, Run)>) {
        let mut parts: Vec<(Seq, Part)> = Vec::with_capacity(runs.len() + self.parts.len());
        for (segment, run) in runs {
            segment.add(run.next - run.first, run.bytes);
            let held = Held::Footer(run.extents);
            parts.push((run.min_seq, Part::new(segment, (run.first, run.next), run.bytes, held)));
        }
        for part in self.parts.drain(..) {
            let seq = match &part.held {
                Held::Memory(extents) => extents.min_seq().unwrap_or(Seq::ZERO),
                Held::Footer(_) => Seq::ZERO,
            };
            parts.push((seq, part));
        }
        parts.sort_by_key(|(seq, _)| *seq);
        for (_, part) in parts {
            self.cut_tail(part.first, Seq::ZERO);
            self.parts.push_back(part);
        }
    }

    fn find(&self, index: u64) -> Option<&Part> {
        let at = self.parts.partition_point(|part| part.next <= index);
        self.parts.get(at).filter(|part| part.first <= index)
    }
}

impl Part {
    fn new(segment: Arc<LogSegment>, (first, next): (u64, u64), bytes: u64, held: Held) -> Part {
        segment.budget.grow(Use::LogIndex, size_of::<Part>());
        Part { segment, first, next, bytes, held }
    }

    /// Keeps what lies within `first..next`.
    fn clip(&mut self, first: u64, next: u64, seq: Seq) {
        let (first, next) = (self.first.max(first), self.next.min(next).max(self.first.max(first)));
        let (had, has) = (self.next - self.first, next - first);
        if had == has {
            return;
        }
        // In proportion, and nothing at the end.
        let left = u128::from(self.bytes) * u128::from(has) / u128::from(had.max(1));
        let bytes = self.bytes - left as u64;
        self.segment.take(had - has, bytes, seq);
        self.bytes -= bytes;
        (self.first, self.next) = (first, next);
        if let Held::Memory(extents) = &mut self.held {
            extents.clip(first, next);
        }
    }

    fn entries(&self) -> u64 {
        self.next - self.first
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.segment.budget.shrink(Use::LogIndex, size_of::<Part>());
    }
}

impl LogIndex {
    /// Segments are worth a look after each `look_after` bytes that die.
    pub fn new(access: Access, tail: Tail, look_after: u64) -> LogIndex {
        let shards = (0..SHARDS).map(|_| Mutex::new(Shard::new(&access.budget))).collect();
        let wanted = Arc::new(Wanted::new(look_after));
        let work = LogWork { busy: AtomicBool::new(false), again: AtomicBool::new(false), wanted };
        LogIndex { shards, segments: Mutex::default(), access, tail, work }
    }

    fn shard(&self, key: LogKey) -> &Mutex<Shard> {
        let mut hasher = KeyHasher::default();
        hasher.write_u32(key.0.0);
        hasher.write_u64(key.1);
        &self.shards[(hasher.finish() >> 48) as usize % SHARDS]
    }

    /// The segment of this number, made known if it is not.
    pub fn segment(&self, no: FileNo, salt: u64, start: Option<Position>) -> Arc<LogSegment> {
        let mut segments = self.segments.lock();
        let wanted = &self.work.wanted;
        let new = || Arc::new(LogSegment::new(&self.access, (no, salt, start), wanted));
        segments.entry(no).or_insert_with(new).clone()
    }

    pub fn known_segment(&self, no: FileNo) -> Option<Arc<LogSegment>> {
        self.segments.lock().get(&no).cloned()
    }

    pub fn segments(&self) -> Vec<Arc<LogSegment>> {
        self.segments.lock().values().cloned().collect()
    }

    /// The segment's file is about to go. Answers it if it was one with log entries.
    pub fn forget_segment(&self, no: FileNo) -> Option<Arc<LogSegment>> {
        let segment = self.segments.lock().remove(&no);
        segment.inspect(|segment| segment.close())
    }

    /// Whether the segment holds entries that are live, or could become so again by the loss of what is
    /// newer than `durable`.
    pub fn needs(&self, no: FileNo, durable: Seq) -> bool {
        self.segments.lock().get(&no).is_some_and(|segment| segment.is_needed(durable))
    }

    /// Closes the files of segments that were not read since this was last done.
    pub fn close_unused(&self) {
        for segment in self.segments() {
            if segment.is_finished() && segment.is_open() && !segment.take_used() {
                segment.close();
            }
        }
    }

    /// Whether it is known where entries lie in the segment, without what is in memory.
    pub fn has_footer(&self, no: FileNo) -> bool {
        self.segments.lock().get(&no).is_some_and(|segment| segment.has_footer())
    }

    /// Whether it has become worth looking at segments since this was last asked.
    pub fn take_wanted(&self) -> bool {
        self.work.wanted.take()
    }

    /// One at a time works on segments. `false`: somebody does, and will look again.
    pub fn begin_work(&self) -> bool {
        self.work.again.store(true, Ordering::SeqCst);
        if self.work.busy.swap(true, Ordering::SeqCst) {
            return false;
        }
        self.work.again.store(false, Ordering::SeqCst);
        true
    }

    /// Whether somebody else came meanwhile.
    pub fn end_work(&self) -> bool {
        self.work.busy.store(false, Ordering::SeqCst);
        self.work.again.swap(false, Ordering::SeqCst)
    }

    /// The head of a log, if it was touched since opening.
    pub fn known(&self, key: LogKey) -> Option<Known> {
        let shard = self.shard(key).lock();
        shard.logs.get(&key).map(|state| Known { head: state.head, epoch: state.epoch })
    }

    /// A stamp for [`offer`](LogIndex::offer), to be taken before the head is read.
    pub fn stamp(&self, key: LogKey) -> u64 {
        self.shard(key).lock().forgotten
    }

    /// Makes a head known that was read, unless it may have changed since.
    pub fn offer(&self, key: LogKey, head: Option<Head>, stamp: u64) {
        let mut shard = self.shard(key).lock();
        if shard.forgotten == stamp {
            shard.entry(key, head);
        }
    }

    /// Puts the entries of an append in, which stand at `offset` of `segment`. After an operation that
    /// is replayed the head is not known yet.
    pub fn append(
        &self,
        (key, seq): (LogKey, Seq),
        entries: &Entries<'_>,
        (segment, offset): (&Arc<LogSegment>, u32),
        head: Option<Head>,
    ) {
        let mut shard = self.shard(key).lock();
        let state = shard.entry(key, head);
        state.head = head;
        state.cut_tail(entries.first, seq);
        let goes_on = |part: &Part| match &part.held {
            Held::Memory(extents) => {
                let here = part.segment.no == segment.no && part.next == entries.first;
                here && extents.takes(entries.next(), seq)
            }
            Held::Footer(_) => false,
        };
        if !state.parts.back().is_some_and(goes_on) {
            segment.logs.lock().push(key);
            let first = entries.first;
            let held = Held::Memory(Box::new(Extents::new(first, seq, &segment.budget)));
            if state.parts.len() == state.parts.capacity() {
                // Most logs have one or two: room for four would be most of what an idle one costs.
                state.parts.reserve_exact(state.parts.len() / 8 + 1);
            }
            state.parts.push_back(Part::new(segment.clone(), (first, first), 0, held));
        }
        let Some(part) = state.parts.back_mut() else { return };
        // As a record of its own: so large it will be where it is moved to.
        let bytes = size(BEFORE + entries.len()) as u64;
        segment.add(u64::from(entries.count), bytes);
        part.bytes += bytes;
        part.next = entries.next();
        let mut first = entries.first;
        let Held::Memory(extents) = &mut part.held else { return };
        for (count, tag) in entries.runs() {
            extents.push(Extent { first, seq, tag, offset, count });
            first = first.saturating_add(u64::from(count));
        }
    }

    /// After a cut, or a removal, at `seq`: what is left of the log.
    pub fn cut(&self, key: LogKey, head: Option<Head>, seq: Seq) {
        let mut shard = self.shard(key).lock();
        let Some(state) = shard.logs.get_mut(&key) else { return };
        let (first, next) = head.map_or((0, 0), |head| (head.first, head.next));
        if state.head.is_none_or(|old| next < old.next || first > old.next) {
            state.epoch = state.epoch.wrapping_add(1);
        }
        state.head = head;
        state.cut_tail(next, seq);
        state.cut_front(first, seq);
        if head.is_none() {
            shard.logs.remove(&key);
            shard.forgotten += 1;
        }
    }

    /// The entry `index` of a log as it is now, with the stamp of its tags.
    pub fn find(&self, key: LogKey, index: u64) -> Result<Option<(Found, u32)>> {
        let (segment, run, (first, next), epoch) = {
            let shard = self.shard(key).lock();
            let Some(state) = shard.logs.get(&key) else { return Ok(None) };
            let Some(part) = state.find(index) else { return Ok(None) };
            let (segment, epoch) = (part.segment.clone(), state.epoch);
            match &part.held {
                Held::Memory(extents) => {
                    return Ok(extents.find(index).map(|extent| (Found { segment, extent }, epoch)));
                }
                Held::Footer(run) => (segment, *run, (part.first, part.next), epoch),
            }
        };
        // Not under the lock: it may have to be read from disk.
        let extent = segment.find(run, index)?.and_then(|e| e.within(first, next));
        let extent = extent.filter(|e| e.first <= index && index < e.next()).ok_or_else(|| {
            let why = format!("the footer does not tell where entry {index} of log {} is", key.1);
            Error::corruption(why).in_file(segment.path())
        })?;
        Ok(Some((Found { segment, extent }, epoch)))
    }

    /// All logs of `keyspace` are gone, by the operation of `seq`.
    pub fn drop_logs(&self, keyspace: KeyspaceId, seq: Seq) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let before = shard.logs.len();
            shard.logs.retain(|key, state| {
                if key.0 == keyspace {
                    state.cut_front(u64::MAX, seq);
                }
                key.0 != keyspace
            });
            shard.forgotten += u64::from(shard.logs.len() != before);
        }
    }

    /// While opening, when all entries are in: those of a log that are replayed and those that footers
    /// name, clipped to its bounds. An error if entries are missing.
    pub fn settle(&self, key: LogKey, head: Head, runs: Vec<(Arc<LogSegment>, Run)>) -> Result<()> {
        let mut shard = self.shard(key).lock();
        if head.is_empty() && !shard.logs.contains_key(&key) {
            return Ok(());
        }
        let state = shard.entry(key, Some(head));
        if !runs.is_empty() {
            state.merge(runs);
        }
        state.cut_tail(head.next, Seq::ZERO);
        state.cut_front(head.first, Seq::ZERO);
        state.head = Some(head);
        let mut at = head.first;
        for part in &state.parts {
            if part.first != at {
                break;
            }
            at = part.next;
        }
        if at == head.next {
            return Ok(());
        }
        Err(Error::corruption(format!("entry {at} of log {} is in no segment of the journal", key.1)))
    }

    /// While opening, at the end: logs that have no head are no logs.
    pub fn settled(&self) {
        for shard in &self.shards {
            shard.lock().logs.retain(|_, state| {
                if state.head.is_none() {
                    state.cut_front(u64::MAX, Seq::ZERO);
                }
                state.head.is_some()
            });
        }
        for segment in self.segments() {
            segment.finish();
        }
    }

    /// What lies in a segment, as far as it is in memory: for its footer.
    pub fn of_segment(&self, segment: &LogSegment) -> Builder {
        let mut keys = segment.logs.lock().clone();
        keys.sort_unstable();
        keys.dedup();
        let mut builder = Builder::default();
        for key in keys {
            let shard = self.shard(key).lock();
            let Some(state) = shard.logs.get(&key) else { continue };
            for part in state.parts.iter().filter(|part| part.segment.no == segment.no) {
                let Held::Memory(extents) = &part.held else { continue };
                let min_seq = extents.min_seq().unwrap_or(Seq::ZERO);
                let Part { first, next, bytes, .. } = *part;
                let run = Run { key, first, next, min_seq, bytes, extents: Range::default() };
                builder.add(run, extents.iter());
            }
        }
        builder
    }

    /// The footer of a segment is there: its extents need not be in memory any more.
    pub fn let_go(&self, segment: &LogSegment, runs: &[Run]) {
        for run in runs {
            let mut shard = self.shard(run.key).lock();
            let Some(state) = shard.logs.get_mut(&run.key) else { continue };
            for part in state.parts.iter_mut().filter(|part| part.segment.no == segment.no) {
                if run.first <= part.first && part.next <= run.next {
                    part.held = Held::Footer(run.extents);
                }
            }
        }
        *segment.logs.lock() = Vec::new();
    }

    /// The runs of a finished segment that are live, each with its extents.
    pub fn live_runs(&self, segment: &LogSegment, runs: &[Run]) -> Result<Vec<(Run, Vec<Extent>)>> {
        let mut live = Vec::new();
        for run in runs {
            let range = {
                let shard = self.shard(run.key).lock();
                let parts = shard.logs.get(&run.key).map(|state| &state.parts);
                let mut parts = parts.into_iter().flatten().filter(|part| part.segment.no == segment.no);
                let part = parts.find(|part| run.first <= part.first && part.next <= run.next);
                part.map(|part| (part.first, part.next))
            };
            let Some((first, next)) = range else { continue };
            let extents = segment.extents(run.extents)?.into_iter().filter_map(|e| e.within(first, next));
            live.push((Run { first, next, ..*run }, extents.collect()));
        }
        Ok(live)
    }

    /// What is live of this run is in the segment `to` now, whose footer names it so.
    pub fn moved(&self, from: &LogSegment, to: &Arc<LogSegment>, run: &Run) {
        let mut shard = self.shard(run.key).lock();
        let Some(state) = shard.logs.get_mut(&run.key) else { return };
        for part in state.parts.iter_mut().filter(|part| part.segment.no == from.no) {
            if run.first <= part.first && part.next <= run.next {
                // What was counted was in proportion; what was written is known.
                let bytes = u128::from(run.bytes) * u128::from(part.entries());
                let bytes = (bytes / u128::from((run.next - run.first).max(1))) as u64;
                to.take_over(from, part.entries(), (part.bytes, bytes));
                part.bytes = bytes;
                part.segment = to.clone();
                part.held = Held::Footer(run.extents);
            }
        }
    }
}
