//! The kinds of sorted source a view is made of, as one type: calls are dispatched by a match, not
//! through a pointer.

use crate::cursor::{Cursor, Layer, Near};
use crate::error::Result;
use crate::fs::SharedBytes;
use crate::ids::Seq;
use crate::key::Trailer;
use crate::memtable::{MemCursor, Memtable, RangeSets};
use crate::tombstones::Around;
use crate::view::run::RunCursor;
use std::sync::Arc;

/// A cursor over a memtable or over a run.
#[allow(clippy::large_enum_variant, reason = "a handful live in one vector; a box would cost each step")]
pub(crate) enum Source {
    Mem(MemSource),
    Run(RunCursor),
}

/// A cursor over a memtable, and the memtable's range deletes.
pub(crate) struct MemSource {
    cursor: MemCursor,
    ranges: Option<Arc<RangeSets>>,
    max_seq: Seq,
}

impl MemSource {
    /// What was inserted so far.
    pub fn new(mem: &Arc<Memtable>) -> MemSource {
        // What comes later is newer than any read that is to use this.
        let (ranges, max_seq) = (mem.range_sets(), mem.max_seq());
        MemSource { cursor: MemCursor::new(mem.clone()), ranges, max_seq }
    }
}

macro_rules! each {
    ($self:ident, $c:ident => $call:expr) => {
        match $self {
            Source::Mem(MemSource { cursor: $c, .. }) => $call,
            Source::Run($c) => $call,
        }
    };
}

impl Cursor for Source {
    fn seek_first(&mut self) -> Result<()> {
        each!(self, c => c.seek_first())
    }

    fn seek_last(&mut self) -> Result<()> {
        each!(self, c => c.seek_last())
    }

    fn seek(&mut self, key: &[u8], trailer: Trailer) -> Result<()> {
        each!(self, c => c.seek(key, trailer))
    }

    fn approach(&self, key: &[u8], near: Near) {
        each!(self, c => c.approach(key, near))
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        each!(self, c => c.seek_before(key))
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        each!(self, c => c.next())
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        each!(self, c => c.prev())
    }

    #[inline]
    fn valid(&self) -> bool {
        each!(self, c => c.valid())
    }

    #[inline]
    fn repeats(&self) -> bool {
        each!(self, c => c.repeats())
    }

    #[inline]
    fn alone(&self) -> bool {
        each!(self, c => c.alone())
    }

    #[inline]
    fn newer(&mut self) -> Result<Option<Trailer>> {
        each!(self, c => c.newer())
    }

    #[inline]
    fn key(&self) -> &[u8] {
        each!(self, c => c.key())
    }

    #[inline]
    fn trailer(&self) -> Trailer {
        each!(self, c => c.trailer())
    }

    #[inline]
    fn fetch(&mut self) -> Result<()> {
        each!(self, c => c.fetch())
    }

    #[inline]
    fn value(&self) -> &[u8] {
        each!(self, c => c.value())
    }

    #[inline]
    fn entry(&self) -> (&[u8], &[u8]) {
        each!(self, c => c.entry())
    }

    fn owner(&self) -> Option<&SharedBytes> {
        each!(self, c => c.owner())
    }
}

impl Layer for Source {
    fn may_cover(&self) -> bool {
        match self {
            Source::Mem(mem) => mem.ranges.is_some(),
            Source::Run(run) => run.may_cover(),
        }
    }

    fn around(&mut self, key: &[u8], read: Seq) -> Result<Around<'_>> {
        match self {
            Source::Mem(mem) => Ok(mem.ranges.as_ref().map_or(Around::NOTHING, |r| r.around(key, read))),
            Source::Run(run) => run.around(key, read),
        }
    }

    fn solid(&self, key: &[u8], read: Seq) -> Option<Around<'_>> {
        match self {
            Source::Mem(mem) => mem.ranges.as_ref()?.solid(key, read),
            Source::Run(run) => run.solid(key, read),
        }
    }

    fn max_seq(&self) -> Seq {
        match self {
            Source::Mem(mem) => mem.max_seq,
            Source::Run(run) => run.max_seq(),
        }
    }
}
