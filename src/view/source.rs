//! The kinds of sorted source a view is made of, as one type: calls are dispatched by a match, not
//! through a pointer.

use crate::cursor::Cursor;
use crate::error::Result;
use crate::fs::SharedBytes;
use crate::key::Trailer;
use crate::memtable::MemCursor;
use crate::view::run::RunCursor;

/// A cursor over a memtable or over a run.
#[allow(clippy::large_enum_variant, reason = "a handful live in one vector; a box would cost each step")]
pub(crate) enum Source {
    Mem(MemCursor),
    Run(RunCursor),
}

macro_rules! each {
    ($self:ident, $c:ident => $call:expr) => {
        match $self {
            Source::Mem($c) => $call,
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
    fn key(&self) -> &[u8] {
        each!(self, c => c.key())
    }

    #[inline]
    fn head(&self) -> u64 {
        each!(self, c => c.head())
    }

    #[inline]
    fn trailer(&self) -> Trailer {
        each!(self, c => c.trailer())
    }

    #[inline]
    fn value(&self) -> &[u8] {
        each!(self, c => c.value())
    }

    fn owner(&self) -> Option<&SharedBytes> {
        each!(self, c => c.owner())
    }
}
