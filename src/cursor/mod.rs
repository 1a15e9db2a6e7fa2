//! Cursors over internal entries: the face every sorted source shows, the merge of several, and
//! the view of what one sequence number may see.

pub(crate) mod merge;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod visible;

use crate::error::Result;
use crate::fs::SharedBytes;
use crate::key::Trailer;

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
    /// To the last entry whose key is less than `key` (its oldest version).
    fn seek_before(&mut self, key: &[u8]) -> Result<()>;
    /// One entry on. Only while valid.
    fn next(&mut self) -> Result<()>;
    /// One entry back. Only while valid.
    fn prev(&mut self) -> Result<()>;
    fn valid(&self) -> bool;
    /// The user key.
    fn key(&self) -> &[u8];
    /// [`crate::key::head`] of the user key, for cheap comparisons.
    fn head(&self) -> u64 {
        crate::key::head(self.key())
    }
    fn trailer(&self) -> Trailer;
    fn value(&self) -> &[u8];
    /// Whose bytes the value lies in, if they can be shared.
    fn owner(&self) -> Option<&SharedBytes> {
        None
    }
}
