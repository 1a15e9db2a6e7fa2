//! The cursor over a memtable.

use super::tree::{Map, Memtable};
use crate::cursor::Cursor;
use crate::error::Result;
use crate::ids::Seq;
use crate::key::Trailer;
use std::cmp::Reverse;
use std::ops::Bound;
use std::sync::Arc;

/// A cursor that owns its share of the memtable. Sees at least what was inserted before its last
/// seek.
#[allow(clippy::type_complexity)]
pub(crate) struct MemCursor {
    mem: Arc<Memtable>,
    at: Option<(Box<[u8]>, Trailer, Box<[u8]>)>,
}

impl MemCursor {
    pub fn new(mem: Arc<Memtable>) -> MemCursor {
        MemCursor { mem, at: None }
    }

    fn go(&mut self, find: impl FnOnce(&Map) -> Option<(&(Box<[u8]>, Reverse<Trailer>), &Box<[u8]>)>) {
        let at = find(&self.mem.map.lock()).map(|((k, t), v)| (k.clone(), t.0, v.clone()));
        self.at = at;
    }
}

impl Cursor for MemCursor {
    fn seek_first(&mut self) -> Result<()> {
        self.go(|map| map.first_key_value());
        Ok(())
    }

    fn seek_last(&mut self) -> Result<()> {
        self.go(|map| map.last_key_value());
        Ok(())
    }

    fn seek(&mut self, key: &[u8], trailer: Trailer) -> Result<()> {
        self.go(|map| map.range((Box::from(key), Reverse(trailer))..).next());
        Ok(())
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        let end = (Box::from(key), Reverse(Trailer::newest(Seq::MAX)));
        self.go(|map| map.range(..end).next_back());
        Ok(())
    }

    fn next(&mut self) -> Result<()> {
        if let Some((key, trailer, _)) = self.at.take() {
            let from = (key, Reverse(trailer));
            self.go(|map| map.range((Bound::Excluded(from), Bound::Unbounded)).next());
        }
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        if let Some((key, trailer, _)) = self.at.take() {
            self.go(|map| map.range(..(key, Reverse(trailer))).next_back());
        }
        Ok(())
    }

    fn valid(&self) -> bool {
        self.at.is_some()
    }

    fn key(&self) -> &[u8] {
        self.at.as_ref().map_or(&[], |(key, ..)| key)
    }

    fn trailer(&self) -> Trailer {
        self.at.as_ref().map_or(Trailer::newest(Seq::ZERO), |at| at.1)
    }

    fn value(&self) -> &[u8] {
        self.at.as_ref().map_or(&[], |(.., value)| value)
    }
}
