//! Writes one table, front to back, into a fresh file.

use crate::budget::{Budget, OpenFile, Share, Use};
use crate::error::{Error, Result};
use crate::fs::{self, File};
use crate::ids::Seq;
use crate::key::{self, Kind, MAX_KEY_LEN, MAX_VALUE_LEN, Trailer};
use crate::mutant::Mutant;
use crate::options::Compression;
use crate::table::builder::Builder;
use crate::table::codec::Compressor;
use crate::table::filter::Filter;
use crate::table::format::{self, Codec, Footer, Properties, Section, TRAILER_LEN};
use crate::table::index;
use crate::table::search::compare;
use crate::tombstones::RangeTombstones;
use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Blocks are cut at this size at the latest; one value can make one larger.
const MAX_BLOCK_BYTES: usize = 16 << 20;
/// Blocks aim at the borders of pages of this size.
const PAGE: usize = 4096;
/// A block that ends so close before a border is filled up to it.
const MAX_FILL: usize = PAGE / 16;

/// A stretch of so many entries at most is dense in tombstones if they are three quarters of it. To walk over it takes
/// about as long as one read from disk (50 to 100 us), which is where scans begin to feel it.
const STRETCH: u64 = 4096;
/// The stretch is moved on by so many entries at a time (after RocksDB's `CompactOnDeletionCollector`).
const STRIDE: u64 = STRETCH / 8;

/// How to write a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WriteOptions {
    /// A data block is full when its contents reach so many bytes.
    pub block_bytes: usize,
    pub compression: Compression,
    /// Bits per key; 0: no filter.
    pub filter_bits: u32,
}

/// What was written: all that the manifest has to know about a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Summary {
    pub id: u64,
    pub size: u64,
    /// The smallest key or start of a range delete.
    pub smallest: Box<[u8]>,
    /// The exclusive end of all keys and range deletes; `None`: to the last key.
    pub end: Option<Box<[u8]>>,
    pub min_seq: Seq,
    pub max_seq: Seq,
    pub entries: u64,
    /// Point tombstones.
    pub deletes: u64,
    /// Range deletes, counted once per fragment.
    pub range_deletes: u64,
    /// Bytes of keys and values.
    pub raw_bytes: u64,
    /// Entries behind a newer one of the same key.
    pub superseded: u64,
    /// Some stretch of it is nearly nothing but point tombstones.
    pub dense: bool,
}

/// A table that is written, and not synced yet.
pub(crate) struct Unsynced {
    file: Arc<dyn File>,
    path: PathBuf,
}

impl Unsynced {
    pub fn sync(self) -> Result<()> {
        if Mutant::PublishUnsyncedTable.on() {
            return Ok(());
        }
        self.file.sync().map_err(|e| Error::io("syncing a table", &self.path, e))
    }
}

/// Writes one table.
pub(crate) struct Writer {
    file: Arc<dyn File>,
    path: PathBuf,
    id: u64,
    options: WriteOptions,
    block: Builder,
    /// The block must not exceed so many bytes, unless by its first row.
    limit: usize,
    index: index::Builder,
    compressor: Compressor,
    /// The block being finished, before compression.
    raw: Vec<u8>,
    /// Bytes not yet written, which belong at `written`.
    out: Vec<u8>,
    written: u64,
    /// One per distinct key.
    hashes: Vec<u64>,
    first: Option<Box<[u8]>>,
    counts: Counts,
    /// How much is written at once.
    buffer: usize,
    share: Share,
    _open: OpenFile,
}

struct Counts {
    entries: u64,
    deletes: u64,
    superseded: u64,
    raw_bytes: u64,
    min_seq: Seq,
    max_seq: Seq,
    dense: bool,
    /// `deletes` at the end of each of the last strides.
    marks: [u64; (STRETCH / STRIDE) as usize],
}

impl Counts {
    fn new() -> Counts {
        Counts {
            entries: 0,
            deletes: 0,
            superseded: 0,
            raw_bytes: 0,
            min_seq: Seq::MAX,
            max_seq: Seq::ZERO,
            dense: false,
            marks: [0; (STRETCH / STRIDE) as usize],
        }
    }

    /// Counts an entry; `fresh`: the newest of its key.
    #[inline]
    fn add(&mut self, trailer: Trailer, fresh: bool, bytes: usize) {
        self.entries += 1;
        self.deletes += u64::from(trailer.kind() == Kind::Delete);
        self.superseded += u64::from(!fresh);
        self.raw_bytes += bytes as u64;
        self.min_seq = self.min_seq.min(trailer.seq());
        self.max_seq = self.max_seq.max(trailer.seq());
        if self.entries.is_multiple_of(STRIDE) {
            self.end_stride();
        }
    }

    fn end_stride(&mut self) {
        let at = (self.entries / STRIDE) as usize % self.marks.len();
        // What stands there is a whole stretch old; at the start of the table it is 0.
        let before = std::mem::replace(&mut self.marks[at], self.deletes);
        self.dense |= self.deletes - before >= STRETCH / 4 * 3;
    }
}

impl Writer {
    /// Starts a table in `file`, which is empty. `id` is random: it seeds the checksums.
    pub fn new(file: Arc<dyn File>, path: &Path, id: u64, options: WriteOptions) -> Writer {
        let block_bytes = options.block_bytes.clamp(1, MAX_BLOCK_BYTES);
        let budget = Budget::unlimited();
        let mut writer = Writer {
            file,
            path: path.to_path_buf(),
            id,
            options: WriteOptions { block_bytes, ..options },
            block: Builder::default(),
            limit: 0,
            index: index::Builder::default(),
            compressor: Compressor::new(Codec::of(options.compression)),
            raw: Vec::new(),
            out: Vec::new(),
            written: 0,
            hashes: Vec::new(),
            first: None,
            counts: Counts::new(),
            buffer: budget.gather(),
            share: budget.share(Use::Jobs),
            _open: budget.open_file(),
        };
        writer.limit = writer.next_limit();
        writer
    }

    /// Counts what it holds in `budget`, and gathers as much as that allows.
    pub fn within(mut self, budget: &Arc<Budget>) -> Writer {
        self.buffer = budget.gather();
        self.share = budget.share(Use::Jobs);
        self._open = budget.open_file();
        self
    }

    /// Counts what it holds now, and `more`.
    fn charge(&mut self, more: usize) {
        let hashes = self.hashes.capacity() * size_of::<u64>();
        let blocks = 2 * self.raw.capacity().max(self.options.block_bytes);
        self.share.set(self.out.capacity() + blocks + hashes + self.index.size() + more);
    }

    /// Adds an entry behind all others in internal order (key ascending, newest first).
    #[inline]
    pub fn add(&mut self, key: &[u8], trailer: Trailer, value: &[u8]) -> Result<()> {
        if key.len() > MAX_KEY_LEN || value.len() > MAX_VALUE_LEN {
            return Err(Error::invalid("a key or a value is too large for a table"));
        }
        let fresh = match self.block.last() {
            Some((last, before)) => match compare(last, key) {
                Ordering::Less => true,
                Ordering::Equal if before > trailer.get() => false,
                _ => return Err(Error::invalid("entries of a table must be added in order")),
            },
            None => {
                self.first = Some(key.into());
                true
            }
        };
        if self.block.exceeds(self.limit, key, trailer, value.len()) {
            self.cut_block(Some(key))?;
        }
        let hash = key::hash(key);
        let forgotten = Mutant::FilterForgetsKey.on() && self.hashes.len() % 16 == 7;
        if fresh && self.options.filter_bits > 0 && !forgotten {
            self.hashes.push(hash);
        }
        self.counts.add(trailer, fresh, key.len() + value.len());
        self.block.push(key, hash, trailer, value);
        Ok(())
    }

    /// About how many bytes the file would have if it ended here.
    #[inline]
    pub fn size(&self) -> u64 {
        let filter = self.hashes.len() * self.options.filter_bits as usize / 8;
        self.place() + (self.block.size() + self.index.size() + filter) as u64
    }

    /// Where the next byte will stand in the file.
    #[inline]
    fn place(&self) -> u64 {
        self.written + self.out.len() as u64
    }

    /// How large the next block may become. Blocks that are stored as they are aim at the end of a
    /// page, so that reading one touches as few pages as it can.
    fn next_limit(&self) -> usize {
        let block = self.options.block_bytes;
        if self.compressor.codec() != Codec::Raw || block < PAGE {
            return block;
        }
        let in_page = (self.place() % PAGE as u64) as usize;
        let end = (in_page + block + PAGE / 2) / PAGE * PAGE;
        end - in_page - TRAILER_LEN
    }

    /// Ends the block, if it has rows; `next` is the key behind it.
    fn cut_block(&mut self, next: Option<&[u8]>) -> Result<()> {
        let Some((last, _)) = self.block.last() else { return Ok(()) };
        self.index.separate(last, next)?;
        if self.out.capacity() == 0 {
            self.out.reserve_exact(self.buffer + 2 * self.options.block_bytes);
        }
        let (start, offset) = (self.out.len(), self.place());
        let (codec, raw) = if self.compressor.codec() == Codec::Raw {
            self.block.finish(&mut self.out);
            let raw = self.out.len() - start;
            if next.is_some() && self.options.block_bytes >= PAGE {
                let over = (offset as usize + raw + TRAILER_LEN) % PAGE;
                let fill = if over >= PAGE - MAX_FILL { PAGE - over } else { 0 };
                self.out.resize(self.out.len() + fill, 0);
            }
            (Codec::Raw, raw)
        } else {
            self.raw.clear();
            self.block.finish(&mut self.raw);
            let (codec, contents) = self.compressor.compress(&self.raw);
            self.out.extend_from_slice(contents);
            (codec, self.raw.len())
        };
        format::seal_block(self.id, offset, codec, &mut self.out, start);
        self.index.place(self.place(), raw as u32, codec);
        while self.out.len() >= self.buffer {
            self.write_out(self.buffer)?;
        }
        self.limit = self.next_limit();
        self.charge(0);
        Ok(())
    }

    /// Writes the first `len` bytes of those that wait: each time but the last as many, so that every write
    /// begins at a multiple of that.
    fn write_out(&mut self, len: usize) -> Result<()> {
        let bytes = self.out.get(..len).unwrap_or_default();
        fs::write_all_at(&*self.file, bytes, self.written)
            .map_err(|e| Error::io("writing a table", &self.path, e))?;
        self.written += len as u64;
        self.out.drain(..len);
        Ok(())
    }

    fn put_section(&mut self, bytes: &[u8]) -> Section {
        let section = Section::new(self.id, self.place(), bytes);
        self.out.extend_from_slice(bytes);
        section
    }

    /// Writes what is left and what leads to it, then makes the file durable. A table holds at
    /// least one entry or range delete.
    pub fn finish(self, tombstones: &RangeTombstones) -> Result<Summary> {
        let (summary, unsynced) = self.finish_unsynced(tombstones)?;
        unsynced.sync()?;
        Ok(summary)
    }

    /// As [`finish`](Writer::finish), but for the sync.
    pub fn finish_unsynced(mut self, tombstones: &RangeTombstones) -> Result<(Summary, Unsynced)> {
        let last = self.block.last().map(|(last, _)| last.to_vec());
        self.cut_block(None)?;
        let properties = self.properties(last.as_deref(), tombstones)?;
        let data_len = self.place();
        // The filter and the index: as they are made, as bytes, and among what is to be written.
        let filter = self.hashes.len() * self.options.filter_bits as usize / 8;
        self.charge(3 * (filter + self.index.size()));
        let tombstones = self.put_section(&format::encode_tombstones(tombstones));
        let filter = Filter::build(&self.hashes, self.options.filter_bits);
        let filter = self.put_section(&filter.map(|f| f.encode()).unwrap_or_default());
        let index = self.put_section(&self.index.finish());
        let encoded = self.put_section(&properties.encode());
        let footer = Footer { id: self.id, data_len, tombstones, filter, index, properties: encoded };
        let end = footer.encode(self.place());
        self.out.extend_from_slice(&end);
        self.write_out(self.out.len())?;
        let unsynced = Unsynced { file: self.file.clone(), path: self.path.clone() };
        let summary = Summary {
            id: self.id,
            size: self.written,
            smallest: properties.smallest,
            end: properties.end,
            min_seq: properties.min_seq,
            max_seq: properties.max_seq,
            entries: properties.entries,
            deletes: properties.deletes,
            range_deletes: properties.range_deletes,
            raw_bytes: properties.raw_bytes,
            superseded: self.counts.superseded,
            dense: self.counts.dense,
        };
        Ok((summary, unsynced))
    }

    fn properties(&mut self, last: Option<&[u8]>, tombstones: &RangeTombstones) -> Result<Properties> {
        let fragments = tombstones.fragments();
        let starts = [self.first.take(), fragments.first().map(|f| f.start.clone())];
        let Some(smallest) = starts.into_iter().flatten().min() else {
            return Err(Error::invalid("a table must not be empty"));
        };
        let last = last.map(|last| key::after(last).into_boxed_slice());
        let end = match fragments.last() {
            // `None` is less than `Some`, but greater as an end.
            Some(f) => f.end.clone().map(|end| last.map_or(end.clone(), |last| last.max(end))),
            None => last,
        };
        let Counts { entries, deletes, raw_bytes, mut min_seq, mut max_seq, .. } = self.counts;
        let mut range_deletes = 0;
        for &seq in fragments.iter().flat_map(|f| &f.seqs) {
            range_deletes += 1;
            min_seq = min_seq.min(seq);
            max_seq = max_seq.max(seq);
        }
        Ok(Properties {
            entries,
            deletes,
            range_deletes,
            raw_bytes,
            min_seq,
            max_seq,
            blocks: self.index.len() as u32,
            block_bytes: self.options.block_bytes as u32,
            filter_bits: self.options.filter_bits,
            codec: Codec::of(self.options.compression),
            smallest,
            end,
        })
    }
}
