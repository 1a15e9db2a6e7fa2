//! Verbs for the care of a keyspace: compacting by hand.

use crate::db::handle::Keyspace;
use crate::db::range::KeyRange;
use crate::db::tree::dropped;
use crate::error::Result;
use crate::ids::Seq;
use crate::version::Span;

impl Keyspace {
    /// Merges everything in `range` into one sorted run and leaves out what no read can see any more:
    /// replaced values, deletes and what they deleted, unless a [snapshot](crate::Snapshot) still
    /// sees it. Gives space back after much was deleted, and makes scans and reads as fast as they
    /// can be. Nothing needs it to stay correct; what comes due is compacted in the background
    /// without it.
    ///
    /// Flushes the keyspace first if its newest operations touch the range. Then it runs in the
    /// calling thread, and waits for background work that is in its way; writes go on meanwhile, and
    /// what they write after the call began is not its business. Costs: all of the keyspace that was
    /// flushed but not yet sorted into levels, and the tables that reach into the range, are read and
    /// written about once per level; while a merge runs, old and new tables both take space. An empty
    /// range, and one that is compacted already, costs next to nothing.
    ///
    /// When this returns, what it did is durable. An error leaves the part of it done that was done;
    /// no data is lost either way. [`Closed`](crate::ErrorKind::Closed) if the database is closed or
    /// the keyspace dropped meanwhile.
    pub fn compact(&self, range: impl KeyRange) -> Result<()> {
        let bounds = range.bounds()?;
        let core = self.db.core();
        core.writable()?;
        let tree = self.slot.tree.load_full().ok_or_else(dropped)?;
        let start = bounds.lower.unwrap_or_default();
        let span = Span { start: &start, end: bounds.upper.as_deref() };
        if span.end.is_some_and(|end| *end <= start[..]) {
            return Ok(());
        }
        if tree.view.load().changed_in_memory(span.start, span.end, Seq::ZERO) {
            core.freeze(Some(tree.id));
            core.await_flushed()?;
        }
        core.compact_range(&tree, span, &mut || core.give_way(&tree))
    }
}
