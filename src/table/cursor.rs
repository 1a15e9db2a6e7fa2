//! Cursors over one table.

use crate::cursor::Cursor;
use crate::error::Result;
use crate::fs::SharedBytes;
use crate::ids::Seq;
use crate::key::Trailer;
use crate::mutant::Mutant;
use crate::prefetch;
use crate::table::block::{Block, KeyBuf, Layout};
use crate::table::reader::{BlockBytes, Stream, Table};
use crate::table::unpack::Unpacked;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

/// Walks the entries of a table.
pub(crate) struct TableCursor {
    blocks: Blocks,
    /// The block whose bytes are at hand, if one is `entered`; the cursor stands in it if `valid`.
    no: usize,
    entered: bool,
    layout: Layout,
    row: usize,
    valid: bool,
    /// Whether the last step came from another version of the same key.
    repeats: bool,
    /// Whether the row before has the same key, if a step back has found out: the next one needs it again.
    same_before: Option<bool>,
    /// Of the row: its head in the block.
    head: u64,
    /// Of the row: its key, trailer, and where its value is in the block.
    key: KeyBuf,
    trailer: Trailer,
    value: Range<usize>,
}

/// A table's blocks, one at a time.
struct Blocks {
    table: Arc<Table>,
    source: Source,
    unpacked: Unpacked,
    /// Whether values are only lent: then compressed blocks need not be undone as a whole.
    lends: bool,
    /// Whether the next one to enter is where a seek leads: it may come again, and is worth keeping in the
    /// cache. What lies beyond is passed once, and a step allocates nothing.
    sought: bool,
}

/// Where the current block's bytes are.
enum Source {
    Shared(BlockBytes),
    /// In `unpacked`.
    Unpacked,
    Streaming(Box<Stream>),
}

/// Of values so many bytes are loaded ahead after a seek: two or three small ones.
const VALUES: usize = 256;

/// On the way back each value is loaded so many bytes before its turn.
const BEFORE: usize = 384;

impl Blocks {
    /// Makes block `no` the current one; `None` if there is none.
    fn enter(&mut self, no: usize) -> Result<Option<Layout>> {
        let table = &self.table;
        let Some(at) = table.index().block(no) else { return Ok(None) };
        let sought = std::mem::take(&mut self.sought);
        if let Source::Streaming(stream) = &mut self.source {
            stream.go(table, at)?;
        } else if !self.lends || at.is_raw() {
            if sought && at.is_raw() {
                table.prefetch_keys(no);
            }
            // Who lends has no buffer for blocks that are not compressed: without a map they take the cache.
            let kept = sought || self.lends;
            self.source = Source::Shared(table.block(no, at, kept)?);
        } else if let Some(bytes) = table.cached(no, sought)? {
            self.source = Source::Shared(BlockBytes::Owned(bytes));
        } else {
            self.source = Source::Unpacked;
            let entered = self.unpacked.enter(table, no, at);
            return entered.map(Some).map_err(|e| table.at_block(e, no));
        }
        Layout::parse(self.bytes()).map(Some).map_err(|e| table.at_block(e, no))
    }

    /// Block `no`, if there is one, is likely the next: starts to load it. On the way back nothing else does,
    /// for processors look ahead in the direction of addresses.
    fn expect(&self, no: usize) {
        if let Some(at) = self.table.index().block(no) {
            self.table.prefetch_ends(at);
        }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        match &self.source {
            Source::Shared(BlockBytes::Mapped(bytes)) => bytes,
            Source::Shared(BlockBytes::Owned(bytes)) => (**bytes).as_ref(),
            Source::Unpacked => self.unpacked.bytes(),
            Source::Streaming(stream) => stream.bytes(),
        }
    }
}

impl TableCursor {
    /// A cursor that reads through map and cache.
    pub fn new(table: Arc<Table>) -> TableCursor {
        TableCursor::with(table, Source::Shared(BlockBytes::Mapped(Bytes::new())), false)
    }

    /// The same for who needs no value for longer than until the next step, and only those it has
    /// [fetched](Cursor::fetch).
    pub fn lending(table: Arc<Table>) -> TableCursor {
        TableCursor::with(table, Source::Shared(BlockBytes::Mapped(Bytes::new())), true)
    }

    /// A cursor for reading everything once: by position, ahead, leaving map and cache alone, each
    /// checksum verified.
    pub fn streaming(table: Arc<Table>) -> TableCursor {
        let stream = Box::new(Stream::new(&table));
        TableCursor::with(table, Source::Streaming(stream), false)
    }

    fn with(table: Arc<Table>, source: Source, lends: bool) -> TableCursor {
        let unpacked = Unpacked::default();
        TableCursor {
            blocks: Blocks { table, source, unpacked, lends, sought: false },
            no: 0,
            entered: false,
            layout: Layout::default(),
            row: 0,
            valid: false,
            repeats: false,
            same_before: None,
            head: 0,
            key: KeyBuf::default(),
            trailer: Trailer::newest(Seq::ZERO),
            value: 0..0,
        }
    }

    #[inline]
    pub(super) fn block(&self) -> Block<'_> {
        Block::new(self.blocks.bytes(), &self.layout)
    }

    /// Where it stands in the block.
    pub(super) fn row(&self) -> usize {
        self.row
    }

    /// To the first row of block `no`; answers how many there are.
    pub(super) fn first_of(&mut self, no: usize) -> Result<usize> {
        if !self.enter(no)? {
            return Ok(0);
        }
        self.stand(0);
        Ok(self.layout.rows())
    }

    /// Enters block `no`, standing nowhere in it yet; `false` if there is none.
    fn enter(&mut self, no: usize) -> Result<bool> {
        self.valid = false;
        if self.no == no && self.entered {
            self.blocks.sought = false;
            return Ok(true);
        }
        self.entered = false;
        let Some(layout) = self.blocks.enter(no)? else { return Ok(false) };
        self.layout = layout;
        self.no = no;
        self.entered = true;
        Ok(true)
    }

    /// Stands on `row` of the entered block.
    fn stand(&mut self, row: usize) {
        let block = Block::new(self.blocks.bytes(), &self.layout);
        block.read_prefix(&mut self.key);
        self.trailer = block.trailer(row);
        self.step(row);
        self.repeats = false;
        self.valid = true;
    }

    /// Stands on another row of the block it stands in.
    #[inline]
    pub(super) fn step(&mut self, row: usize) {
        self.go::<false>(row);
    }

    /// `BACK`: to the row before.
    #[inline]
    fn go<const BACK: bool>(&mut self, row: usize) {
        let block = Block::new(self.blocks.bytes(), &self.layout);
        let head = block.head(row);
        self.repeats = match self.same_before {
            Some(same) if BACK => same,
            _ => head == self.head && block.same_rest(self.row, row),
        };
        self.same_before = match row.checked_sub(1) {
            Some(before) if BACK => Some(block.head(before) == head && block.same_rest(before, row)),
            _ => None,
        };
        self.head = head;
        block.change_key(row, head, &mut self.key);
        if !self.layout.one_trailer() {
            self.trailer = block.trailer(row);
        }
        self.value = block.value_span(row);
        self.row = row;
        if BACK {
            prefetch::line(self.blocks.bytes(), self.value.start.wrapping_sub(BEFORE));
        }
    }

    /// After a seek: starts to load the value, and some behind it. Others may seek before it is asked for.
    fn expect_values(&self) {
        if let Source::Shared(_) = self.blocks.source {
            let (bytes, start) = (self.blocks.bytes(), self.value.start);
            (start..start + VALUES).step_by(64).for_each(|at| prefetch::line(bytes, at));
        }
    }

    /// Whether the key the cursor stands on, the first of the block behind `no`, is also the last of
    /// block `no`: a separator equals the key behind it only then.
    fn spans(&self, no: usize) -> bool {
        self.blocks.table.index().compare(no, self.key()).is_eq()
    }

    /// Of a block that is undone as it is asked for: makes the value be there.
    fn unpack_value(&mut self) -> Result<()> {
        let (end, no) = (self.value.end, self.no);
        let Blocks { table, unpacked, .. } = &mut self.blocks;
        if end <= unpacked.done() {
            return Ok(());
        }
        unpacked.reach(table, end).map_err(|e| {
            (self.valid, self.entered) = (false, false);
            self.blocks.table.at_block(e, no)
        })
    }

    /// From the first row of a block: what [`newer`](Cursor::newer) is. Comes back to the row.
    fn newer_in_block_before(&mut self) -> Result<Option<Trailer>> {
        let here = self.no;
        let Some(before) = here.checked_sub(1).filter(|&before| self.spans(before)) else { return Ok(None) };
        let mut newer = None;
        if self.enter(before)? {
            newer = Some(self.block().trailer(self.layout.rows() - 1));
        }
        self.valid = self.enter(here)?;
        Ok(newer)
    }

    fn last_of(&mut self, no: usize) -> Result<()> {
        if self.enter(no)? {
            self.stand(self.layout.rows() - 1);
        }
        Ok(())
    }
}

impl Cursor for TableCursor {
    fn seek_first(&mut self) -> Result<()> {
        self.blocks.sought = true;
        if self.enter(0)? {
            self.stand(0);
        }
        Ok(())
    }

    fn seek_last(&mut self) -> Result<()> {
        self.blocks.sought = true;
        self.valid = false;
        match self.blocks.table.index().len() {
            0 => Ok(()),
            n => self.last_of(n - 1),
        }
    }

    fn seek(&mut self, key: &[u8], trailer: Trailer) -> Result<()> {
        self.blocks.sought = true;
        let mut no = self.blocks.table.index().find(key);
        while self.enter(no)? {
            let row = self.block().lower_bound(key, trailer);
            if row < self.layout.rows() {
                self.stand(row);
                self.expect_values();
                break;
            }
            no += 1;
        }
        Ok(())
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.blocks.sought = true;
        let no = self.blocks.table.index().find(key);
        if !self.enter(no)? {
            return self.seek_last();
        }
        match self.block().lower_bound(key, Trailer::newest(Seq::MAX)) {
            0 if no == 0 => Ok(()),
            0 => self.last_of(no - 1),
            row => {
                self.stand(row - 1);
                self.expect_values();
                Ok(())
            }
        }
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        if self.row + 1 < self.layout.rows() {
            self.step(self.row + 1);
            return Ok(());
        }
        let left = self.no;
        let skip = Mutant::SkipLastBlock.on() && left + 2 == self.blocks.table.index().len();
        if self.enter(left + 1 + usize::from(skip))? {
            self.stand(0);
            self.repeats = self.spans(left);
        }
        Ok(())
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        if self.row > 0 {
            self.go::<true>(self.row - 1);
            return Ok(());
        }
        match self.no {
            0 => {
                self.valid = false;
                Ok(())
            }
            no => {
                let repeats = self.spans(no - 1);
                self.last_of(no - 1)?;
                self.repeats = repeats;
                self.blocks.expect(no.wrapping_sub(2));
                Ok(())
            }
        }
    }

    #[inline]
    fn repeats(&self) -> bool {
        self.repeats
    }

    #[inline]
    fn alone(&self) -> bool {
        self.same_before == Some(false)
    }

    #[inline]
    fn newer(&mut self) -> Result<Option<Trailer>> {
        let Some(before) = self.row.checked_sub(1) else { return self.newer_in_block_before() };
        let block = self.block();
        let same = match self.same_before {
            Some(same) => same,
            None => block.head(before) == self.head && block.same_rest(before, self.row),
        };
        Ok(same.then(|| block.trailer(before)))
    }

    #[inline]
    fn valid(&self) -> bool {
        self.valid
    }

    #[inline]
    fn key(&self) -> &[u8] {
        self.key.as_slice()
    }

    #[inline]
    fn trailer(&self) -> Trailer {
        self.trailer
    }

    #[inline]
    fn fetch(&mut self) -> Result<()> {
        if matches!(self.blocks.source, Source::Unpacked) { self.unpack_value() } else { Ok(()) }
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.blocks.bytes().get(self.value.clone()).unwrap_or_default()
    }

    fn owner(&self) -> Option<&SharedBytes> {
        match &self.blocks.source {
            Source::Shared(BlockBytes::Mapped(_)) => self.blocks.table.map(),
            Source::Shared(BlockBytes::Owned(bytes)) => Some(bytes),
            Source::Unpacked | Source::Streaming(_) => None,
        }
    }
}
