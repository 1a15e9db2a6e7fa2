//! What range deletes hide from a scan, found out as it comes along.
//!
//! Nothing is collected. For the key at hand the layers are asked, newest first, up to the first
//! that has a visible delete over it; the answer holds for a stretch of keys around, so that an
//! entry within costs one comparison. Everything in older layers is hidden there, for it is older.
//! Where several hidden entries follow each other the older layers leap to the end of what is
//! covered without a gap, whatever lies in between (after Pebble's merging iterator, which seeks
//! the levels below a range delete to its end).

use crate::cursor::merge::{Direction, Merge};
use crate::cursor::{Cursor, Layer};
use crate::error::Result;
use crate::ids::Seq;
use crate::tombstones::Around;

/// So many hidden entries in a row are passed one by one: a leap costs a few seeks.
const PATIENCE: u32 = 4;

/// The range deletes over the place where a scan stands.
pub(crate) struct Covers {
    read: Seq,
    /// Whether any layer may have range deletes.
    any: bool,
    /// The stretch the rest is true for, if any.
    known: bool,
    lower: Vec<u8>,
    upper: Vec<u8>,
    bounded: bool,
    /// The newest layer with a delete over the stretch, and the delete.
    over: Option<(usize, Seq)>,
    /// Entries hidden since one was shown.
    hidden: u32,
    /// The key the stretch was found around, and where a leap ends.
    key: Vec<u8>,
    edge: Vec<u8>,
}

impl Covers {
    pub fn new<C: Layer>(layers: &[C], read: Seq) -> Covers {
        let any = layers.iter().any(Layer::may_cover);
        let (lower, upper, key, edge) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Covers { read, any, known: false, lower, upper, bounded: false, over: None, hidden: 0, key, edge }
    }

    /// Whether the entry that `merge` stands on, which the read may see, is deleted.
    #[inline]
    pub fn hide<C: Layer>(&mut self, merge: &mut Merge<C>) -> Result<bool> {
        if !self.any {
            return Ok(false);
        }
        self.ask(merge)
    }

    fn ask<C: Layer>(&mut self, merge: &mut Merge<C>) -> Result<bool> {
        let key = merge.key();
        let within = self.known && *self.lower <= *key && (!self.bounded || *key < *self.upper);
        if !within {
            self.look(merge)?;
        }
        let hidden = self.over.is_some_and(|(layer, newest)| {
            debug_assert!(merge.child() <= layer || merge.trailer().seq() < newest, "layers out of order");
            merge.child() > layer || (merge.child() == layer && merge.trailer().seq() < newest)
        });
        self.hidden = if hidden { self.hidden + 1 } else { 0 };
        Ok(hidden)
    }

    /// Asks the layers what is over the entry.
    fn look<C: Layer>(&mut self, merge: &mut Merge<C>) -> Result<()> {
        self.known = false;
        self.key.clear();
        self.key.extend_from_slice(merge.key());
        self.lower.clear();
        self.bounded = false;
        self.over = None;
        for (i, layer) in merge.children_mut().iter_mut().enumerate().filter(|(_, l)| l.may_cover()) {
            let Around { lower, upper, newest } = layer.around(&self.key, self.read)?;
            if *lower > *self.lower {
                self.lower.clear();
                self.lower.extend_from_slice(lower);
            }
            if let Some(upper) = upper.filter(|upper| !self.bounded || **upper < *self.upper) {
                self.bounded = true;
                self.upper.clear();
                self.upper.extend_from_slice(upper);
            }
            if let Some(newest) = newest {
                self.over = Some((i, newest));
                break;
            }
        }
        self.known = true;
        Ok(())
    }

    /// After [`hide`](Covers::hide) has hidden an entry: passes what is deleted around it, if that
    /// is worth it. Whether the merge has left the entry.
    #[inline]
    pub fn leap<C: Layer>(&mut self, merge: &mut Merge<C>) -> Result<bool> {
        if self.hidden < PATIENCE || !merge.valid() {
            return Ok(false);
        }
        self.leap_now(merge)
    }

    fn leap_now<C: Layer>(&mut self, merge: &mut Merge<C>) -> Result<bool> {
        let Some((at, newest)) = self.over else { return Ok(false) };
        self.hidden = 0;
        let layer = &merge.children()[at];
        let Some(solid) = layer.solid(&self.key, self.read) else { return Ok(false) };
        let edge = match merge.direction() {
            Direction::Forward => solid.upper,
            Direction::Backward => Some(solid.lower).filter(|lower| !lower.is_empty()),
        };
        let own = layer.max_seq() <= newest;
        let bounded = edge.is_some();
        self.edge.clear();
        self.edge.extend_from_slice(edge.unwrap_or_default());
        let left = merge.leap(at + 1.., bounded.then_some(&self.edge))?;
        if !own || !merge.valid() {
            return Ok(left);
        }
        // The layer's own entries are older than this delete, but perhaps not than those beside it.
        let edge = match merge.direction() {
            Direction::Forward => self.bounded.then_some(&*self.upper),
            Direction::Backward => Some(&*self.lower).filter(|lower| !lower.is_empty()),
        };
        Ok(merge.leap(at..at + 1, edge)? || left)
    }
}
