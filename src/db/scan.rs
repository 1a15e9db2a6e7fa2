//! Walking over entries: an owned, double-ended iterator, and a cursor that lends.

use crate::cursor::visible::{Bounds, Visible};
use crate::error::{Error, Result};
use crate::ids::Seq;
use crate::value::Value;
use crate::view::View;
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
    bounds: Bounds,
}

impl Scanned {
    pub fn new(view: Arc<View>, read: Seq, bounds: Bounds) -> Scanned {
        Scanned { view, read, bounds }
    }

    fn open(&self) -> Entries {
        self.view.scan(self.read, self.bounds.clone())
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

    fn step(&mut self, forward: bool) -> Result<Option<Entry>> {
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
                let entries = own.insert(source.open());
                if forward {
                    entries.seek_first()?;
                } else {
                    entries.seek_last()?;
                }
                entries
            }
        };
        if !entries.valid() {
            return Ok(None);
        }
        // The ends have met when one stands where the other has been.
        if let Some(other) = other
            && (if forward { entries.key() >= other.key() } else { entries.key() <= other.key() })
        {
            return Ok(None);
        }
        let value = Value::shared(entries.value(), entries.owner());
        Ok(Some(Entry { key: Value::copied(entries.key()), value }))
    }

    fn fused(&mut self, forward: bool) -> Option<Result<Entry>> {
        if self.done {
            return None;
        }
        let step = self.step(forward);
        if !matches!(step, Ok(Some(_))) {
            self.done = true;
            self.front = None;
            self.back = None;
        }
        step.transpose()
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

/// Walks over a range in both directions and lends what it passes; copies and allocates nothing on
/// the way forward.
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
            self.entries = Some(source.open());
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

    fn lend(&self) -> Option<(&[u8], &[u8])> {
        self.entries.as_ref().map(|e| (e.key(), e.value()))
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
