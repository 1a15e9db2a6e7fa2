//! Cursors over internal entries: the face every sorted source shows, the merge of several, and
//! the view of what one sequence number may see.

// == sources ==
#[cfg(test)]
pub(crate) mod testing;
// == several as one ==
pub(crate) mod merge;
// == what range deletes hide in them ==
pub(crate) mod covers;
// == what a read sees ==
pub(crate) mod visible;

use crate::error::Result;
use crate::fs::SharedBytes;
use crate::ids::Seq;
use crate::key::Trailer;
use crate::tombstones::Around;

/// What a cursor is to have at hand before a seek.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Near {
    /// What tells where to look.
    Index,
    /// Where that says.
    Block,
}

/// Walks a sorted source of internal entries in both directions.
///
/// A cursor stands on an entry ([`valid`](Cursor::valid)) or off both ends. Entries are ordered by
/// key ascending, then newest first; each internal key stands in a source at most once. After an
/// error the cursor is not valid until the next seek. What `key`, `trailer`, `value` and `owner`
/// return is only asked for while valid, and holds until the cursor moves.
pub(crate) trait Cursor {
    /// To the first entry.
    fn seek_first(&mut self) -> Result<()>;
    /// To the last entry.
    fn seek_last(&mut self) -> Result<()>;
    /// To the first entry at or after `(key, trailer)` in internal order.
    fn seek(&mut self, key: &[u8], trailer: Trailer) -> Result<()>;
    /// A seek to `key` comes next: starts to load what it will look at. For who has several to seek in, and need
    /// not wait for one after another.
    fn approach(&self, _key: &[u8], _near: Near) {}
    /// To the last entry whose key is less than `key` (its oldest version).
    fn seek_before(&mut self, key: &[u8]) -> Result<()>;
    /// One entry on. Only while valid.
    fn next(&mut self) -> Result<()>;
    /// One entry back. Only while valid.
    fn prev(&mut self) -> Result<()>;
    fn valid(&self) -> bool;
    /// Whether the last step, which led here, came from another version of the same key. Told
    /// without a copy of the key that was left. Only while valid, and only after a step.
    fn repeats(&self) -> bool;
    /// The trailer of the entry before, if that is a newer version of the same key. Only while valid, and
    /// before the value is [fetched](Cursor::fetch).
    fn newer(&mut self) -> Result<Option<Trailer>>;
    /// Whether it is known at once that [`newer`](Cursor::newer) has none to tell.
    fn alone(&self) -> bool {
        false
    }
    /// The user key.
    fn key(&self) -> &[u8];
    fn trailer(&self) -> Trailer;
    /// Makes the value of the entry be there: to be called, while valid, before `value` is.
    fn fetch(&mut self) -> Result<()> {
        Ok(())
    }
    fn value(&self) -> &[u8];
    /// Key and value.
    fn entry(&self) -> (&[u8], &[u8]) {
        (self.key(), self.value())
    }
    /// Whose bytes the value lies in, if they can be shared.
    fn owner(&self) -> Option<&SharedBytes> {
        None
    }
}

/// One of the sources of a scan: its entries, and its range deletes. Of one key, all operations of
/// an earlier source are newer than all of a later one.
pub(crate) trait Layer: Cursor {
    /// Whether there may be range deletes.
    fn may_cover(&self) -> bool;
    /// What the range deletes at or below `read` are around `key`. May open a file.
    fn around(&mut self, key: &[u8], read: Seq) -> Result<Around<'_>>;
    /// How far around `key`, where [`around`](Layer::around) was asked last and found a delete,
    /// everything is deleted at or below `read`. May fall short.
    fn solid(&self, key: &[u8], read: Seq) -> Option<Around<'_>>;
    /// The newest operation there may be where [`around`](Layer::around) was asked last.
    fn max_seq(&self) -> Seq;
}
