//! The contents of compressed blocks, for who passes by: one at a time, in a buffer of its own, undone as
//! far as it is looked at.
//!
//! A block's values stand behind all else, so that where a key belongs is told without them; and a short
//! scan needs some of them only. Nothing comes to the cache this way, and what is cached need not come
//! this way.

use crate::budget::{Share, Use};
use crate::error::Result;
use crate::table::block::{Block, HEADER_LEN, Layout};
use crate::table::codec;
use crate::table::format::Codec;
use crate::table::index::BlockAt;
use crate::table::lz4;
use crate::table::reader::{Packed, Table};
use std::cell::RefCell;

/// Values are undone so many bytes at a time: a few of them, if they are small.
const STEP: usize = 512;

/// The last few buffers of a thread's cursors, for its next: a short scan should not have to clear memory.
const SPARES: usize = 8;
/// Larger ones are not kept.
const SPARE_BYTES: usize = 16 << 10;

thread_local! {
    static SPARE: RefCell<Vec<(Vec<u8>, Vec<u8>)>> = const { RefCell::new(Vec::new()) };
}

/// A compressed block, undone in part.
#[derive(Default)]
pub(crate) struct Unpacked {
    /// What is stored, if it is not in the table's map.
    stored: Vec<u8>,
    /// Where in the map, or in `stored`, what is compressed lies.
    packed: Packed,
    /// Only grows; the block has the first `len` bytes, of which the first `done` are there.
    contents: Vec<u8>,
    len: usize,
    done: usize,
    progress: lz4::Progress,
    /// None until there is something to count.
    share: Option<Share>,
}

impl Unpacked {
    /// Makes block `no`, which is compressed, the current one, but for its values.
    pub fn enter(&mut self, table: &Table, no: usize, at: BlockAt) -> Result<Layout> {
        (self.len, self.done) = (0, 0);
        if self.contents.capacity() == 0
            && let Ok(Some(spare)) = SPARE.try_with(|spare| spare.borrow_mut().pop())
        {
            (self.contents, self.stored) = spare;
        }
        table.prefetch(at, at.stored as usize);
        self.packed = table.packed(no, at, &mut self.stored)?;
        if self.contents.len() < at.raw() {
            self.contents.resize(at.raw().next_multiple_of(4096), 0);
        }
        let share = self.share.get_or_insert_with(|| table.budget().share(Use::Blocks));
        share.set(self.contents.capacity() + self.stored.capacity());
        self.len = at.raw();
        self.progress = lz4::Progress::default();
        self.undo(table, HEADER_LEN).and_then(|()| {
            let layout = Layout::parse(self.bytes())?;
            self.undo(table, layout.values())?;
            if self.packed.fresh {
                Block::new(self.bytes(), &layout).check()?;
                table.note_checked(no);
            }
            Ok(layout)
        })
    }

    /// The bytes of the block. Those at and behind [`done`](Unpacked::done) may be anything.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.contents.get(..self.len).unwrap_or_default()
    }

    #[inline]
    pub fn done(&self) -> usize {
        self.done
    }

    /// Makes the bytes before `end` be there.
    pub fn reach(&mut self, table: &Table, end: usize) -> Result<()> {
        self.undo(table, end.max(self.done + STEP))
    }

    fn undo(&mut self, table: &Table, want: usize) -> Result<()> {
        let packed = self.packed.bytes(table, &self.stored);
        let out = self.contents.get_mut(..self.len).unwrap_or_default();
        if self.packed.codec == Codec::Lz4 {
            self.progress.decode(packed, out, want)?;
            self.done = self.progress.done();
        } else if self.done < self.len {
            codec::decompress(self.packed.codec, packed, out)?;
            self.done = self.len;
        }
        Ok(())
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        let (contents, stored) = (std::mem::take(&mut self.contents), std::mem::take(&mut self.stored));
        if contents.capacity() == 0 || contents.capacity().max(stored.capacity()) > SPARE_BYTES {
            return;
        }
        // A thread that ends keeps nothing.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARES {
                spare.push((contents, stored));
            }
        });
    }
}
