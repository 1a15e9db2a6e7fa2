//! An open table: point reads, and blocks for cursors.

use crate::budget::{Budget, OpenFile, Share, Use};
use crate::cache::{Cache, Slots};
use crate::error::{Error, Result};
use crate::fs::{self, File, SharedBytes};
use crate::ids::Seq;
use crate::key::{Found, Trailer};
use crate::prefetch;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::table::block::{Block, HEADER_LEN, Layout};
use crate::table::codec::{self, Undone};
use crate::table::filter::{FALSE_POSITIVE, FOUND, Filter, FilterReads, SPARED};
use crate::table::format::{self, Codec, FOOTER_LEN, Footer, Properties, Section};
use crate::table::index::{BlockAt, Index};
use crate::table::scratch::Scratch;
use crate::tombstones::RangeTombstones;
use bytes::Bytes;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Lines of a block that a get will need: the header, fingerprints and some heads.
const PREFETCHED: usize = 4;

/// The columns of keys have about so many bytes: what a search in a block of small pairs looks at.
const KEYS: usize = 1 << 10;

/// How to read tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ReadOptions {
    /// Read blocks that are not compressed in place, where the file system can map files.
    pub mapped: bool,
}

/// An open table. Immutable; shared by reference count.
pub(crate) struct Table {
    file: Arc<dyn File>,
    path: PathBuf,
    id: u64,
    map: Option<SharedBytes>,
    /// The same bytes, at hand without a call: what walks take their blocks from.
    whole: Bytes,
    index: Index,
    filter: Option<Filter>,
    tombstones: RangeTombstones,
    properties: Properties,
    data_len: u64,
    cache: Arc<Cache>,
    /// Made when the first block is cached: a mapped table may never need it.
    slots: OnceLock<Arc<Slots>>,
    /// A bit per block of the map: it was checked and may be used.
    checked: Box<[AtomicU64]>,
    filter_reads: Option<Arc<FilterReads>>,
    share: Share,
    _open: OpenFile,
}

/// Keeps what a point read found alive.
#[derive(Default)]
pub(crate) struct Pin {
    block: Option<SharedBytes>,
    scratch: Option<Box<Scratch>>,
}

impl Drop for Pin {
    #[inline]
    fn drop(&mut self) {
        if let Some(scratch) = self.scratch.take() {
            scratch.give_back();
        }
    }
}

/// The bytes of a block, by whoever keeps them.
pub(crate) enum BlockBytes {
    /// In the table's map.
    Mapped(Bytes),
    Owned(SharedBytes),
}

/// A map, for [`Bytes`] to hold.
struct Whole(SharedBytes);

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

/// Where a compressed block lies.
#[derive(Clone, Default)]
pub(super) struct Packed {
    pub codec: Codec,
    /// Whether what it is undone to was never looked at.
    pub fresh: bool,
    range: Range<usize>,
}

impl Packed {
    /// The compressed bytes, in the table's map or in `stored`.
    #[inline]
    pub fn bytes<'a>(&self, table: &'a Table, stored: &'a [u8]) -> &'a [u8] {
        let from = table.map().map_or(stored, |map| (**map).as_ref());
        from.get(self.range.clone()).unwrap_or_default()
    }
}

impl Table {
    /// Opens the table in `file`, which has the given id and length. Reads and checks everything
    /// but the data blocks.
    pub fn open(
        file: Arc<dyn File>,
        path: &Path,
        id: u64,
        size: u64,
        options: ReadOptions,
        cache: &Arc<Cache>,
    ) -> Result<Table> {
        Table::open_without(file, path, id, size, options, cache, &mut Err)
    }

    /// As [`open`](Table::open), but without properties, filter or range tombstones that are
    /// damaged, if `lacking` puts up with that.
    pub fn open_without(
        file: Arc<dyn File>,
        path: &Path,
        id: u64,
        size: u64,
        options: ReadOptions,
        cache: &Arc<Cache>,
        lacking: &mut dyn FnMut(Error) -> Result<()>,
    ) -> Result<Table> {
        let open = cache.budget().open_file();
        let len = file.len().map_err(|e| Error::io("opening a table", path, e))?;
        let end = match size.checked_sub(FOOTER_LEN as u64) {
            Some(end) if len == size => end,
            _ => {
                let message = format!("a table is {len} bytes long instead of {size}");
                return Err(Error::corruption(message).in_file(path));
            }
        };
        let mut footer = [0; FOOTER_LEN];
        read(&*file, path, &mut footer, end)?;
        let footer = Footer::decode(&footer, id, end).map_err(|e| e.at(path, end))?;
        let section = |section: Section| {
            let mut bytes = vec![0; usize::try_from(section.len).map_err(|_| too_large(path))?];
            read(&*file, path, &mut bytes, section.offset)?;
            section.check(id, &bytes).map_err(|e| e.at(path, section.offset))?;
            Ok(bytes)
        };
        let at = |section: Section| move |e: Error| e.at(path, section.offset);
        let properties = section(footer.properties).and_then(|b| Properties::decode(&b));
        let properties = match properties.map_err(at(footer.properties)) {
            Ok(properties) => properties,
            Err(e) => lacking(e).map(|()| Properties::default())?,
        };
        let filter = match footer.filter.len {
            0 => None,
            _ => match section(footer.filter).and_then(|b| Filter::decode(&b)).map_err(at(footer.filter)) {
                Ok(filter) => Some(filter),
                Err(e) => lacking(e).map(|()| None)?,
            },
        };
        let tombstones = section(footer.tombstones).and_then(|b| format::decode_tombstones(&b));
        let tombstones = match tombstones.map_err(at(footer.tombstones)) {
            Ok(tombstones) => tombstones,
            Err(e) => lacking(e).map(|()| RangeTombstones::default())?,
        };
        let index = section(footer.index).and_then(|b| Index::decode(&b, footer.data_len));
        let index = index.map_err(at(footer.index))?;
        let map = match options.mapped && index.len() > 0 {
            true => file.map().map_err(|e| Error::io("mapping a table", path, e))?,
            false => None,
        };
        if map.as_ref().is_some_and(|map| (**map).as_ref().len() as u64 != size) {
            return Err(Error::corruption("the map of a table is not as long as its file").in_file(path));
        }
        let words = if map.is_some() { index.len().div_ceil(64) } else { 0 };
        let mut table = Table {
            file,
            path: path.to_path_buf(),
            id,
            whole: map.clone().map_or_else(Bytes::new, |map| Bytes::from_owner(Whole(map))),
            map,
            index,
            filter,
            tombstones,
            properties,
            data_len: footer.data_len,
            cache: cache.clone(),
            slots: OnceLock::new(),
            checked: (0..words).map(|_| AtomicU64::new(0)).collect(),
            filter_reads: None,
            share: cache.budget().share(Use::Tables),
            _open: open,
        };
        table.share.set(table.memory());
        Ok(table)
    }

    /// The same table; what its filter says, if it has one, is counted in `reads`.
    pub fn counting(self, reads: &Arc<FilterReads>) -> Table {
        Table { filter_reads: self.filter.as_ref().map(|_| reads.clone()), ..self }
    }

    /// `false`: no entry has a key with this hash. Says nothing about range tombstones.
    #[inline]
    pub fn may_contain(&self, hash: u64) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.may_contain(hash))
    }

    /// The newest entry of `key` with a sequence number of at most `read`; asks the filter first.
    /// Does not look at range tombstones. `hash` is that of the key.
    #[inline]
    pub fn get<'a>(
        &'a self,
        key: &[u8],
        hash: u64,
        read: Seq,
        pin: &'a mut Pin,
    ) -> Result<Option<Found<'a>>> {
        if !self.passes(hash) {
            return Ok(None);
        }
        self.get_from(self.index.find(key), key, hash, read, pin)
    }

    /// Whether the filter lets `key` pass; counted if it does not.
    #[inline]
    pub fn passes(&self, hash: u64) -> bool {
        let passes = self.may_contain(hash);
        if !passes {
            self.count(SPARED);
        }
        passes
    }

    /// Starts to load what [`passes`](Table::passes) will look at.
    #[inline]
    pub fn prefetch_filter(&self, hash: u64) {
        if let Some(filter) = &self.filter {
            filter.prefetch(hash);
        }
    }

    /// Starts to load what a get that begins at block `no` will look at first.
    #[inline]
    pub fn prefetch_block(&self, no: usize) {
        let Some(at) = self.index.block(no) else { return };
        match &self.map {
            Some(map) if at.is_raw() => {
                let (bytes, start) = ((**map).as_ref(), at.offset as usize);
                for line in 0..PREFETCHED {
                    prefetch::line(bytes, start + line * 64);
                }
            }
            _ => {}
        }
    }

    /// As [`get`](Table::get), but for the filter, from block `no` on, which the index named.
    #[inline]
    pub fn get_from<'a>(
        &'a self,
        mut no: usize,
        key: &[u8],
        hash: u64,
        read: Seq,
        pin: &'a mut Pin,
    ) -> Result<Option<Found<'a>>> {
        while let Some(at) = self.index.block(no) {
            if let (Some(map), true) = (&self.map, at.is_raw()) {
                let bytes = self.in_map(map, no, at)?;
                if let Some((trailer, span)) = self.find(bytes, at, key, hash, read)? {
                    let value = bytes.get(span).unwrap_or_default();
                    self.count(FOUND);
                    return Ok(Some(Found { trailer, value, owner: Some(map) }));
                }
            } else if let Some(bytes) = self.block_of_get(no, at)? {
                if let Some((trailer, span)) = self.find((*bytes).as_ref(), at, key, hash, read)? {
                    let owner = &*pin.block.insert(bytes);
                    let value = (**owner).as_ref().get(span).unwrap_or_default();
                    self.count(FOUND);
                    return Ok(Some(Found { trailer, value, owner: Some(owner) }));
                }
            } else {
                let scratch = pin.scratch.get_or_insert_with(Scratch::take);
                if let Some((trailer, span)) = self.find_packed(no, at, key, hash, read, scratch)? {
                    let value = pin.scratch.as_ref().and_then(|s| s.contents.get(span)).unwrap_or_default();
                    self.count(FOUND);
                    return Ok(Some(Found { trailer, value, owner: None }));
                }
            }
            // Older versions of the same key may follow in the next block.
            if self.index.compare(no, key).is_ne() {
                break;
            }
            no += 1;
        }
        self.count(FALSE_POSITIVE);
        Ok(None)
    }

    #[inline]
    fn count(&self, what: usize) {
        if let Some(reads) = &self.filter_reads {
            reads.add(what, 1);
        }
    }

    #[inline]
    fn find(
        &self,
        bytes: &[u8],
        at: BlockAt,
        key: &[u8],
        hash: u64,
        read: Seq,
    ) -> Result<Option<(Trailer, Range<usize>)>> {
        let layout = Layout::parse(bytes).map_err(|e| e.at(&self.path, at.offset))?;
        let block = Block::new(bytes, &layout);
        Ok(block.find(key, hash, read).map(|row| (block.trailer(row), block.value_span(row))))
    }

    /// As [`find`](Table::find) in a block that is compressed and not cached. It is undone up to the entry: on
    /// average half of it, and none of the values if the key is not there.
    fn find_packed(
        &self,
        no: usize,
        at: BlockAt,
        key: &[u8],
        hash: u64,
        read: Seq,
        scratch: &mut Scratch,
    ) -> Result<Option<(Trailer, Range<usize>)>> {
        let packed = self.packed(no, at, &mut scratch.stored)?;
        if scratch.contents.len() < at.raw() {
            scratch.contents.resize(at.raw(), 0);
        }
        let stored = packed.bytes(self, &scratch.stored);
        let out = scratch.contents.get_mut(..at.raw()).unwrap_or_default();
        let mut undone = Undone::new(packed.codec);
        let mut find = || {
            undone.reach(stored, out, HEADER_LEN)?;
            let layout = Layout::parse(out)?;
            undone.reach(stored, out, layout.values())?;
            let block = Block::new(out, &layout);
            if packed.fresh {
                block.check()?;
            }
            let Some(row) = block.find(key, hash, read) else { return Ok(None) };
            let (trailer, span) = (block.trailer(row), block.value_span(row));
            undone.reach(stored, out, span.end)?;
            Ok(Some((trailer, span)))
        };
        let found = find().map_err(|e: Error| e.at(&self.path, at.offset))?;
        if packed.fresh {
            self.note_checked(no);
        }
        Ok(found)
    }

    /// The contents of a block that lies in the map as it is.
    #[inline]
    fn in_map<'a>(&self, map: &'a SharedBytes, no: usize, at: BlockAt) -> Result<&'a [u8]> {
        let start = at.offset as usize;
        let bytes = (**map).as_ref().get(start..start + at.raw()).ok_or_else(|| too_large(&self.path))?;
        let bit = 1 << (no % 64);
        match self.checked.get(no / 64) {
            Some(word) if word.load(Ordering::Acquire) & bit != 0 => {}
            Some(word) => {
                self.check_in_map(map, at)?;
                word.fetch_or(bit, Ordering::Release);
            }
            None => self.check_in_map(map, at)?,
        }
        Ok(bytes)
    }

    #[cold]
    fn check_in_map(&self, map: &SharedBytes, at: BlockAt) -> Result<()> {
        self.check_stored(self.stored_in_map(map, at)?, at).map(drop)
    }

    fn stored_in_map<'a>(&self, map: &'a SharedBytes, at: BlockAt) -> Result<&'a [u8]> {
        let start = at.offset as usize;
        (**map).as_ref().get(start..start + at.stored as usize).ok_or_else(|| too_large(&self.path))
    }

    /// Block `no`, for a cursor: from the map or through the cache, where it stays if it is to be `kept`.
    #[inline]
    pub fn block(&self, no: usize, at: BlockAt, kept: bool) -> Result<BlockBytes> {
        if let (Some(map), true) = (&self.map, at.is_raw()) {
            // Which says that it is within.
            self.in_map(map, no, at)?;
            let start = at.offset as usize;
            return Ok(BlockBytes::Mapped(self.whole.slice(start..start + at.raw())));
        }
        let slots = self.slots();
        match slots.get(no) {
            Some(entry) => Ok(BlockBytes::Owned(entry)),
            None if kept => Ok(BlockBytes::Owned(slots.insert(no, self.contents(slots, no, at)?))),
            None => Ok(BlockBytes::Owned(slots.lend(self.contents(slots, no, at)?))),
        }
    }

    /// Block `no`, if it is cached. Where it is missed but `wanted`, it is put there now and then, so that
    /// what is missed often comes to be there.
    #[inline]
    pub fn cached(&self, no: usize, wanted: bool) -> Result<Option<SharedBytes>> {
        let slots = self.slots();
        if let Some(entry) = slots.get(no) {
            return Ok(Some(entry));
        }
        match self.index.block(no) {
            Some(at) if wanted && slots.invites() => {
                Ok(Some(slots.insert(no, self.contents(slots, no, at)?)))
            }
            _ => Ok(None),
        }
    }

    #[inline]
    fn slots(&self) -> &Arc<Slots> {
        self.slots.get_or_init(|| self.cache.slots(self.index.len()))
    }

    /// Block `no` for a point read: from the cache, or put there; `None` if it is compressed and not to come
    /// there, since there is no room and it was not missed often.
    #[inline]
    fn block_of_get(&self, no: usize, at: BlockAt) -> Result<Option<SharedBytes>> {
        let slots = self.slots();
        match slots.get(no) {
            Some(entry) => Ok(Some(entry)),
            None if !at.is_raw() && !slots.admits(at.raw()) => Ok(None),
            None => Ok(Some(slots.insert(no, self.contents(slots, no, at)?))),
        }
    }

    /// The contents of a block, in memory of their own.
    fn contents(&self, slots: &Slots, no: usize, at: BlockAt) -> Result<Vec<u8>> {
        if at.is_raw() {
            let mut stored = slots.buffer(at.stored as usize);
            read(&*self.file, &self.path, &mut stored, at.offset)?;
            self.check_stored(&stored, at)?;
            stored.truncate(at.raw());
            return Ok(stored);
        }
        let mut stored = Vec::new();
        let packed = self.packed(no, at, &mut stored)?;
        let mut contents = slots.buffer(at.raw());
        codec::decompress(packed.codec, packed.bytes(self, &stored), &mut contents)
            .and_then(|()| if packed.fresh { check_contents(&contents) } else { Ok(()) })
            .map_err(|e| e.at(&self.path, at.offset))?;
        if packed.fresh {
            self.note_checked(no);
        }
        Ok(contents)
    }

    /// Checks a stored block; its codec, and its contents as stored.
    fn check_stored<'a>(&self, stored: &'a [u8], at: BlockAt) -> Result<(Codec, &'a [u8])> {
        let checked = || {
            let (codec, contents) = format::open_block(self.id, at.offset, stored)?;
            codec::plausible(codec, contents, at.raw())?;
            if at.is_raw() != (codec == Codec::Raw) {
                return Err(Error::corruption("a block is not stored as the index says"));
            }
            if at.is_raw() {
                check_contents(contents.get(..at.raw()).unwrap_or_default())?;
            }
            Ok((codec, contents))
        };
        checked().map_err(|e: Error| e.at(&self.path, at.offset))
    }

    /// Checks a stored block and puts its contents into `out`, which they replace.
    fn unpack(&self, stored: &[u8], at: BlockAt, out: &mut Vec<u8>) -> Result<()> {
        let (codec, contents) = self.check_stored(stored, at)?;
        out.clear();
        out.resize(at.raw(), 0);
        let unpacked = codec::decompress(codec, contents, out).and_then(|()| check_contents(out));
        unpacked.map_err(|e| e.at(&self.path, at.offset))
    }

    /// Starts to load the first `len` bytes of the block at `at`, if it lies in the map.
    #[inline]
    pub(super) fn prefetch(&self, at: BlockAt, len: usize) {
        let start = at.offset as usize;
        let bytes = self.whole.get(start..start + len).unwrap_or_default();
        bytes.iter().step_by(64).for_each(prefetch::touch);
    }

    /// Starts to load what a search in block `no` will look at.
    pub fn prefetch_keys(&self, no: usize) {
        if let Some(at) = self.index.block(no) {
            self.prefetch(at, KEYS.min(at.stored as usize));
        }
    }

    /// Starts to load what a walk back into the block at `at` looks at first: most of the columns of keys, and
    /// the last values.
    pub(super) fn prefetch_ends(&self, at: BlockAt) {
        const FRONT: usize = 640;
        const BACK: usize = 512;
        if let Some(map) = &self.map {
            let (map, start) = ((**map).as_ref(), at.offset as usize);
            let end = start + at.stored as usize;
            let front = start..end.min(start + FRONT);
            front.step_by(64).for_each(|at| prefetch::line(map, at));
            (end.saturating_sub(BACK)..end).step_by(64).for_each(|at| prefetch::line(map, at));
        }
    }

    /// What is stored of block `no`, which is compressed: in the map, or read into `stored`.
    pub(super) fn packed(&self, no: usize, at: BlockAt, stored: &mut Vec<u8>) -> Result<Packed> {
        let Some(map) = &self.map else {
            // In whole pages, so that a block that is a little longer needs no other buffer.
            let len = at.stored as usize;
            stored.reserve_exact(len.next_multiple_of(4096).saturating_sub(stored.len()));
            stored.resize(len, 0);
            read(&*self.file, &self.path, stored, at.offset)?;
            let (codec, contents) = self.check_stored(stored, at)?;
            return Ok(Packed { codec, fresh: true, range: 0..contents.len() });
        };
        let stored = self.stored_in_map(map, at)?;
        let (word, bit) = self.checked_bit(no);
        let fresh = word.is_none_or(|word| word.load(Ordering::Acquire) & bit == 0);
        let (codec, contents) = match fresh {
            true => self.check_stored(stored, at)?,
            false => format::split_block(stored).map_err(|e| e.at(&self.path, at.offset))?,
        };
        let start = at.offset as usize;
        Ok(Packed { codec, fresh, range: start..start + contents.len() })
    }

    /// Block `no` of the map, all of which was read, is what was written there.
    pub(super) fn note_checked(&self, no: usize) {
        let (word, bit) = self.checked_bit(no);
        if let Some(word) = word {
            word.fetch_or(bit, Ordering::Release);
        }
    }

    #[inline]
    fn checked_bit(&self, no: usize) -> (Option<&AtomicU64>, u64) {
        (self.checked.get(no / 64), 1 << (no % 64))
    }

    pub(super) fn budget(&self) -> &Arc<Budget> {
        self.cache.budget()
    }

    pub fn tombstones(&self) -> &RangeTombstones {
        &self.tombstones
    }

    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The map, where there is one.
    #[inline]
    pub fn map(&self) -> Option<&SharedBytes> {
        self.map.as_ref()
    }

    /// Adds the place of a block to an error.
    pub fn at_block(&self, e: Error, no: usize) -> Error {
        e.at(&self.path, self.index.block(no).map_or(0, |at| at.offset))
    }

    /// Bytes of memory that are held for the table while it is open. Cached blocks, and the slots for them,
    /// count apart.
    pub fn held(&self) -> usize {
        self.share.bytes()
    }

    fn memory(&self) -> usize {
        let tombstones: usize = self
            .tombstones
            .fragments()
            .iter()
            .map(|f| {
                size_of_val(f) + f.start.len() + f.end.as_ref().map_or(0, |e| e.len()) + f.seqs.len() * 8
            })
            .sum();
        size_of::<Table>()
            + self.index.memory()
            + self.filter.as_ref().map_or(0, Filter::memory)
            + tombstones
            + self.checked.len() * 8
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Table({}, {:016x})", self.path.display(), self.id)
    }
}

fn check_contents(contents: &[u8]) -> Result<()> {
    Block::new(contents, &Layout::parse(contents)?).check()
}

#[cold]
fn too_large(path: &Path) -> Error {
    Error::corruption("a table's part lies outside of what can be read").in_file(path)
}

fn read(file: &dyn File, path: &Path, buf: &mut [u8], offset: u64) -> Result<()> {
    fs::read_exact_at(file, buf, offset).map_err(|e| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::corruption("a table ends too early").at(path, offset),
        _ => Error::io("reading a table", path, e),
    })
}

/// Reads a table's blocks by position, ahead, into buffers of its own: past cache and map.
pub(crate) struct Stream {
    /// Bytes of the file from `start` on.
    ahead: Vec<u8>,
    start: u64,
    /// The contents of the last block that was compressed.
    unpacked: Vec<u8>,
    /// Where the contents of the last block are: in `ahead`, or all of `unpacked`.
    last: Option<Range<usize>>,
    share: Share,
}

impl Stream {
    pub fn new(table: &Table) -> Stream {
        let share = table.cache.budget().share(Use::Jobs);
        Stream { ahead: Vec::new(), start: 0, unpacked: Vec::new(), last: None, share }
    }

    /// Makes the block at `at` the current one.
    pub fn go(&mut self, table: &Table, at: BlockAt) -> Result<()> {
        let held = self.start..self.start + self.ahead.len() as u64;
        if at.offset < held.start || at.end() > held.end {
            // Backwards only the block itself: what is ahead is not wanted.
            let backwards = at.offset < held.start && at.end() >= held.start;
            let want = if backwards { 0 } else { self.share.budget().buffer() as u64 };
            let left = table.data_len.saturating_sub(at.offset);
            let len = want.min(left).max(at.stored.into()) as usize;
            self.ahead.resize(len, 0);
            self.start = at.offset;
            if let Err(e) = read(&*table.file, &table.path, &mut self.ahead, at.offset) {
                self.ahead.clear();
                return Err(e);
            }
        }
        let skip = (at.offset - self.start) as usize;
        let stored = self.ahead.get(skip..skip + at.stored as usize).unwrap_or_default();
        if at.is_raw() {
            table.check_stored(stored, at)?;
            self.last = Some(skip..skip + at.raw());
        } else {
            table.unpack(stored, at, &mut self.unpacked)?;
            self.last = None;
        }
        self.share.set(self.ahead.capacity() + self.unpacked.capacity());
        Ok(())
    }

    /// The contents of the current block.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match &self.last {
            Some(range) => self.ahead.get(range.clone()).unwrap_or_default(),
            None => &self.unpacked,
        }
    }
}
