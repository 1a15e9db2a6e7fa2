//! Walking over entries: an owned, double-ended iterator, and a cursor that lends.

use crate::cursor::visible::{Bounds, Visible};
use crate::error::{Error, Result};
use crate::ids::Seq;
use crate::value::Value;
use crate::view::View;
use crate::view::run::Passage;
use crate::view::source::Source;
use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;

type Entries = Visible<Source>;

/// What a walk reads, or why it cannot: the error comes with the first step.
#[derive(Clone)]
pub(crate) struct Scanned {
    view: Arc<View>,
    read: Seq,
    bounds: Arc<Bounds>,
}

impl Scanned {
    pub fn new(view: Arc<View>, read: Seq, bounds: Bounds) -> Scanned {
        Scanned { view, read, bounds: Arc::new(bounds) }
    }

    fn open(&self, passage: Passage) -> Entries {
        self.view.scan(self.read, self.bounds.clone(), passage)
    }
}

/// One entry of an iterator, owned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    key: Value,
    value: Value,
}

impl Entry {
    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The value.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// Key and value, without copying them.
    pub fn into_parts(self) -> (Value, Value) {
        (self.key, self.value)
    }
}

/// The entries of a range, from both ends, as of the moment it was made.
///
/// Owned: it outlives flushes, the drop of its keyspace and the closing of the database. Fused: after
/// an error it ends. Nothing is read before the first step; a step that stays in a block costs no
/// I/O. Holds the memtables and tables it reads.
pub struct Iter {
    source: Result<Scanned>,
    front: Option<Entries>,
    back: Option<Entries>,
    done: bool,
}

impl Iter {
    pub(crate) fn new(source: Result<Scanned>) -> Iter {
        Iter { source, front: None, back: None, done: false }
    }

    /// Moves one end; what it stands on then, unless the ends have met.
    #[inline]
    fn step(&mut self, forward: bool) -> Result<Option<&Entries>> {
        let (own, other) =
            if forward { (&mut self.front, &self.back) } else { (&mut self.back, &self.front) };
        let entries = match own {
            Some(entries) => {
                if forward {
                    entries.next()?;
                } else {
                    entries.prev()?;
                }
                entries
            }
            None => {
                let source = self.source.as_ref().map_err(Clone::clone)?;
                let entries = own.insert(source.open(Passage::Shared));
                if forward {
                    entries.seek_first()?;
                } else {
                    entries.seek_last()?;
                }
                entries
            }
        };
        // The ends have met when one stands where the other has been.
        let met = |other: &Entries| match forward {
            true => entries.key() >= other.key(),
            false => entries.key() <= other.key(),
        };
        if !entries.valid() || other.as_ref().is_some_and(met) {
            return Ok(None);
        }
        Ok(Some(entries))
    }

    /// The entry is made where it is returned: nothing of its size is moved about.
    #[inline]
    fn fused(&mut self, forward: bool) -> Option<Result<Entry>> {
        if self.done {
            return None;
        }
        let e = match self.step(forward) {
            Ok(Some(entries)) => {
                let value = Value::shared(entries.value(), entries.owner());
                return Some(Ok(Entry { key: Value::copied(entries.key()), value }));
            }
            Ok(None) => None,
            Err(e) => Some(Err(e)),
        };
        self.done = true;
        self.front = None;
        self.back = None;
        e
    }
}

impl Iterator for Iter {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        self.fused(true)
    }
}

impl DoubleEndedIterator for Iter {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.fused(false)
    }
}

impl FusedIterator for Iter {}

impl fmt::Debug for Iter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.done { "Iter(done)" } else { "Iter" })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Gap {
    /// Before the first entry of the range.
    Start,
    /// Right before the entry the walk stands on.
    Before,
    /// Right after it.
    After,
    /// After the last entry of the range.
    End,
}

/// Walks over a range in both directions and lends what it passes; copies and allocates nothing on its
/// way.
///
/// A cursor stands between entries, as the standard library's do; it starts before the first.
/// After an error it stands at the start again.
pub struct Cursor {
    source: Result<Scanned>,
    entries: Option<Entries>,
    gap: Gap,
}

impl Cursor {
    pub(crate) fn new(source: Result<Scanned>) -> Cursor {
        Cursor { source, entries: None, gap: Gap::Start }
    }

    /// Opens the walk if need be, moves it, and answers whether it stands on an entry.
    fn walk(&mut self, go: impl FnOnce(&mut Entries) -> Result<()>) -> Result<bool> {
        if self.entries.is_none() {
            let source = self.source.as_ref().map_err(Error::clone)?;
            self.entries = Some(source.open(Passage::Lent));
        }
        let Some(entries) = &mut self.entries else { return Ok(false) };
        match go(entries) {
            Ok(()) => Ok(entries.valid()),
            Err(e) => {
                self.gap = Gap::Start;
                Err(e)
            }
        }
    }

    #[inline]
    fn lend(&self) -> Option<(&[u8], &[u8])> {
        self.entries.as_ref().map(Entries::entry)
    }

    /// Goes to the gap before the first entry at or after `key`, within the range.
    pub fn seek(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        let stands = self.walk(|e| e.seek(key.as_ref()))?;
        self.gap = if stands { Gap::Before } else { Gap::End };
        Ok(())
    }

    /// Goes before the first entry of the range.
    pub fn seek_first(&mut self) {
        self.gap = Gap::Start;
    }

    /// Goes after the last entry of the range.
    pub fn seek_last(&mut self) {
        self.gap = Gap::End;
    }

    /// Passes the next entry and lends it; `None` at the end.
    #[expect(clippy::should_implement_trait, reason = "lends, which an iterator cannot")]
    #[inline]
    pub fn next(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        let stands = match self.gap {
            Gap::After => self.walk(Entries::next)?,
            Gap::Before => true,
            Gap::Start => self.walk(Entries::seek_first)?,
            Gap::End => return Ok(None),
        };
        self.gap = if stands { Gap::After } else { Gap::End };
        Ok(if stands { self.lend() } else { None })
    }

    /// Passes the entry before and lends it; `None` at the start.
    #[inline]
    pub fn prev(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        let stands = match self.gap {
            Gap::Before => self.walk(Entries::prev)?,
            Gap::After => true,
            Gap::End => self.walk(Entries::seek_last)?,
            Gap::Start => return Ok(None),
        };
        self.gap = if stands { Gap::Before } else { Gap::Start };
        Ok(if stands { self.lend() } else { None })
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cursor({:?})", self.gap)
    }
}

#[cfg(test)]
mod tests {
    use crate::cursor::merge::STEPS;
    use crate::db::handle::{Db, Keyspace};
    use crate::fs::sim::SimFs;
    use crate::options::{Durability, Options};
    use std::sync::Arc;

    const BATCH: u64 = 20;
    const WINDOW: u64 = 200;

    /// Tiny memtables and tables, so that much happens in few rounds.
    fn open() -> (Db, Keyspace) {
        let options = Options::default()
            .workers(0)
            .durability(Durability::Buffered)
            .memtable_bytes(16 << 10)
            .segment_bytes(64 << 10)
            .journal_bytes(256 << 10)
            .mapped(false)
            .fs(Arc::new(SimFs::new(1)));
        let db = Db::open("/db", options).unwrap();
        let queue = db.keyspace("queue").unwrap();
        (db, queue)
    }

    type Take = fn(&Keyspace, u64, u64);

    /// Puts at one end, takes at the other by `take`, and scans from the start and from the end in
    /// each round. The most steps of merges that one scan took, in the second half.
    fn most_steps(rounds: u64, take: Take) -> u64 {
        let (db, queue) = open();
        let mut most = 0;
        for round in 0..rounds {
            let (first, end) = ((round * BATCH).saturating_sub(WINDOW), (round + 1) * BATCH);
            for i in round * BATCH..end {
                queue.put(i.to_be_bytes(), [7; 20]).unwrap();
            }
            if round * BATCH >= WINDOW {
                take(&queue, first, first + BATCH);
            }
            while db.step().unwrap() {}
            let left = if round * BATCH >= WINDOW { first + BATCH } else { first };
            let before = STEPS.get();
            let from_start: Vec<_> = queue.iter().take(10).map(|e| e.unwrap().key().to_vec()).collect();
            let from_end: Vec<_> = queue.iter().rev().take(10).map(|e| e.unwrap().key().to_vec()).collect();
            if round > rounds / 2 {
                most = most.max(STEPS.get() - before);
            }
            assert!(
                from_start
                    .iter()
                    .eq(&(left..left + 10).map(|i| i.to_be_bytes().to_vec()).collect::<Vec<_>>())
            );
            assert!(
                from_end
                    .iter()
                    .eq(&(end - 10..end).rev().map(|i| i.to_be_bytes().to_vec()).collect::<Vec<_>>())
            );
        }
        most
    }

    fn ranges(queue: &Keyspace, from: u64, to: u64) {
        queue.delete_range(from.to_be_bytes()..to.to_be_bytes()).unwrap();
    }

    fn fronts(queue: &Keyspace, _: u64, to: u64) {
        queue.delete_range(..to.to_be_bytes()).unwrap();
    }

    fn singles(queue: &Keyspace, from: u64, to: u64) {
        for i in from..to {
            queue.delete(i.to_be_bytes()).unwrap();
        }
    }

    /// What was deleted costs a scan no more than what a few memtables hold, however much it was.
    #[test]
    fn a_queue_stays_fast() {
        for (what, take, bound) in
            [("ranges", ranges as Take, 100), ("fronts", fronts, 100), ("singles", singles, 1500)]
        {
            let most = most_steps(150, take);
            assert!(most <= bound, "{what}: {most} steps");
        }
    }

    #[test]
    #[ignore = "prints counts"]
    fn queues_over_many_rounds() {
        for rounds in [100, 1000, 10_000] {
            let most = [ranges as Take, fronts, singles].map(|take| most_steps(rounds, take));
            println!("{rounds} rounds: at most {most:?} steps by ranges, fronts, single keys");
        }
    }
}
