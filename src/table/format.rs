//! The table file: its sections, their checksums, the footer and the properties.
//!
//! # Format
//!
//! All numbers are little-endian. The sections follow each other without gaps, in this order; each
//! byte of the file is covered by exactly one checksum.
//!
//! ```text
//! data block, data block, ...     each with its own trailer, see below
//! range tombstones                may be empty
//! filter                          may be empty; see filter.rs
//! index                           see index.rs
//! properties
//! footer                          fixed size, ends the file
//! ```
//!
//! Every checksum is a crc32 seeded with the table's random id and the offset of the bytes it
//! covers ([`crate::record::checksum`]), so a valid block of another table, or at another place, is
//! not valid. The name of the file is not part of it: a table can be linked and moved.
//!
//! ## Data block, as stored
//!
//! ```text
//! size  field
//!    -  contents, perhaps compressed (see block.rs)
//!    -  contents that are not compressed: filling, so that the next block starts a page
//!    1  codec: 0 as it is, 1 LZ4 (block format), 2 Zstandard
//!    4  checksum over all of that
//! ```
//!
//! A block is stored as it is where compression would save less than an eighth, and always when it
//! is larger than 16 MiB, so that no read allocates more than the file's size and 16 MiB. The index
//! holds the length of the contents before compression.
//!
//! ## Range tombstones
//!
//! ```text
//! varint  number of fragments (at least one; without any, the section is empty)
//! then per fragment, ascending and disjoint:
//! varint, bytes   start
//! 1               1: an end follows; 0: to the last key
//! varint, bytes   end, exclusive
//! varint          number of deletes
//! 8 each          their sequence numbers, descending
//! ```
//!
//! ## Properties
//!
//! ```text
//! offset  size  field
//!      0     8  entries
//!      8     8  point tombstones among them
//!     16     8  range deletes (once per fragment)
//!     24     8  bytes of keys and values before any encoding
//!     32     8  smallest sequence number, range deletes included
//!     40     8  largest sequence number
//!     48     4  data blocks
//!     52     4  block size asked for
//!     56     4  filter bits per key asked for
//!     60     4  codec asked for
//!     64     -  varint, bytes: smallest key or start of a range delete
//!      -     1  1: an end follows; 0: to the last key
//!      -     -  varint, bytes: the exclusive end of all keys and range deletes
//! ```
//!
//! ## Footer
//!
//! ```text
//! offset  size  field
//!      0     8  table id
//!      8    12  range tombstones: length (8), checksum (4)
//!     20    12  filter, likewise
//!     32    12  index, likewise
//!     44    12  properties, likewise
//!     56     4  feature flags: none is known
//!     60     4  format version: 1
//!     64     4  checksum over bytes 0..64
//!     68     8  magic "eskertbl"
//! ```
//!
//! Size, checksum and magic of the footer stay where they are in every version. An unknown version
//! or feature flag is refused.

use crate::coding::{Reader, put_bytes, put_varint, u32_at, u64_at};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::Seq;
use crate::key::MAX_BOUND_LEN;
use crate::mutant::Mutant;
use crate::options::Compression;
use crate::record::checksum;
use crate::tombstones::{Fragment, RangeTombstones};

/// The bytes of the footer.
pub(crate) const FOOTER_LEN: usize = 76;
const MAGIC: &[u8; 8] = b"eskertbl";
const VERSION: u32 = 1;
const FOOTER_SUM: usize = 64;

/// The bytes after a data block's contents.
pub(crate) const TRAILER_LEN: usize = 5;

/// Larger blocks are stored as they are.
pub(crate) const MAX_COMPRESSED: usize = 16 << 20;

/// How the contents of one block are stored. On disk; the numbers never change.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(u8)]
pub(crate) enum Codec {
    #[default]
    Raw = 0,
    Lz4 = 1,
    Zstd = 2,
}

impl Codec {
    pub fn of(compression: Compression) -> Codec {
        match compression {
            Compression::None => Codec::Raw,
            Compression::Lz4 => Codec::Lz4,
            #[cfg(feature = "zstd")]
            Compression::Zstd => Codec::Zstd,
        }
    }

    fn from_u32(n: u32) -> Result<Codec> {
        match n {
            0 => Ok(Codec::Raw),
            1 => Ok(Codec::Lz4),
            2 => Ok(Codec::Zstd),
            _ => Err(Error::corruption(format!("unknown codec {n}"))),
        }
    }
}

/// What binds a block to its place.
fn bound(id: u64, offset: u64) -> (u64, u64) {
    if Mutant::BlockAnywhere.on() { (0, 0) } else { (id, offset) }
}

/// Ends a data block: `out[start..]` are its contents, which stand at `offset` of the file.
pub(crate) fn seal_block(id: u64, offset: u64, codec: Codec, out: &mut Vec<u8>, start: usize) {
    out.push(codec as u8);
    let (id, offset) = bound(id, offset);
    let sum = checksum(id, offset, &out[start..]);
    out.extend_from_slice(&sum.to_le_bytes());
}

/// The contents (and filling) of the data block stored at `offset`, if its checksum holds.
pub(crate) fn open_block(id: u64, offset: u64, stored: &[u8]) -> Result<(Codec, &[u8])> {
    let (covered, sum) = stored.split_last_chunk::<4>().ok_or_else(|| bad("a block is too short"))?;
    let (id, offset) = bound(id, offset);
    if checksum(id, offset, covered) != u32::from_le_bytes(*sum) && !Mutant::BlockUnchecked.on() {
        return Err(bad("the checksum of a data block does not match"));
    }
    split_block(stored)
}

/// The same of a block whose checksum was found to hold before.
pub(crate) fn split_block(stored: &[u8]) -> Result<(Codec, &[u8])> {
    let (covered, _) = stored.split_last_chunk::<4>().ok_or_else(|| bad("a block is too short"))?;
    let (&codec, contents) = covered.split_last().ok_or_else(|| bad("a block is too short"))?;
    Ok((Codec::from_u32(codec.into())?, contents))
}

#[cold]
fn bad(message: &str) -> Error {
    Error::corruption(message)
}

/// Length and checksum of a section; its offset follows from the lengths behind it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Section {
    pub offset: u64,
    pub len: u64,
    sum: u32,
}

impl Section {
    pub fn new(id: u64, offset: u64, bytes: &[u8]) -> Section {
        Section { offset, len: bytes.len() as u64, sum: checksum(id, offset, bytes) }
    }

    /// Whether `bytes` are what was written there.
    pub fn check(&self, id: u64, bytes: &[u8]) -> Result<()> {
        if bytes.len() as u64 == self.len && checksum(id, self.offset, bytes) == self.sum {
            return Ok(());
        }
        Err(bad("the checksum of a section does not match"))
    }
}

/// Where everything is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Footer {
    pub id: u64,
    /// The data blocks are the first so many bytes of the file.
    pub data_len: u64,
    pub tombstones: Section,
    pub filter: Section,
    pub index: Section,
    pub properties: Section,
}

impl Footer {
    /// The footer's bytes; `offset` is where they will stand.
    pub fn encode(&self, offset: u64) -> [u8; FOOTER_LEN] {
        let mut out = [0; FOOTER_LEN];
        out[..8].copy_from_slice(&self.id.to_le_bytes());
        let sections = [self.tombstones, self.filter, self.index, self.properties];
        for (to, section) in out[8..56].chunks_exact_mut(12).zip(sections) {
            to[..8].copy_from_slice(&section.len.to_le_bytes());
            to[8..].copy_from_slice(&section.sum.to_le_bytes());
        }
        out[60..64].copy_from_slice(&VERSION.to_le_bytes());
        let sum = checksum(self.id, offset, &out[..FOOTER_SUM]);
        out[64..68].copy_from_slice(&sum.to_le_bytes());
        out[68..].copy_from_slice(MAGIC);
        out
    }

    /// Reads the footer that stands at `offset`, of the table with this id.
    pub fn decode(bytes: &[u8; FOOTER_LEN], id: u64, offset: u64) -> Result<Footer> {
        if &bytes[68..] != MAGIC {
            return Err(bad("not a table: the magic at its end is missing"));
        }
        let found = u64_at(bytes, 0).unwrap_or_default();
        if u32_at(bytes, FOOTER_SUM) != Some(checksum(found, offset, &bytes[..FOOTER_SUM])) {
            return Err(bad("the checksum of the footer does not match"));
        }
        if found != id {
            return Err(Error::corruption(format!("table {found:016x} stands where {id:016x} should")));
        }
        let mut r = Reader::new(&bytes[8..FOOTER_SUM]);
        let mut sections = [Section::default(); 4];
        for section in &mut sections {
            *section = Section { offset: 0, len: r.u64()?, sum: r.u32()? };
        }
        let (flags, version) = (r.u32()?, r.u32()?);
        if version != VERSION || flags != 0 {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("a table of format version {version}, features {flags:#x}, is not known here"),
            ));
        }
        let mut end = offset;
        for section in sections.iter_mut().rev() {
            end = end.checked_sub(section.len).ok_or_else(|| bad("a section is longer than its file"))?;
            section.offset = end;
        }
        let [tombstones, filter, index, properties] = sections;
        Ok(Footer { id, data_len: end, tombstones, filter, index, properties })
    }
}

/// What a table says about itself as a whole.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Properties {
    pub entries: u64,
    /// Point tombstones.
    pub deletes: u64,
    /// Range deletes, counted once per fragment.
    pub range_deletes: u64,
    /// Bytes of keys and values.
    pub raw_bytes: u64,
    pub min_seq: Seq,
    pub max_seq: Seq,
    pub blocks: u32,
    pub block_bytes: u32,
    pub filter_bits: u32,
    pub codec: Codec,
    pub smallest: Box<[u8]>,
    /// Exclusive; `None`: to the last key.
    pub end: Option<Box<[u8]>>,
}

impl Properties {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let wide = [
            self.entries,
            self.deletes,
            self.range_deletes,
            self.raw_bytes,
            self.min_seq.get(),
            self.max_seq.get(),
        ];
        for n in wide {
            out.extend_from_slice(&n.to_le_bytes());
        }
        for n in [self.blocks, self.block_bytes, self.filter_bits, self.codec as u32] {
            out.extend_from_slice(&n.to_le_bytes());
        }
        put_bytes(&mut out, &self.smallest);
        put_end(&mut out, self.end.as_deref());
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Properties> {
        let mut r = Reader::new(bytes);
        let properties = Properties {
            entries: r.u64()?,
            deletes: r.u64()?,
            range_deletes: r.u64()?,
            raw_bytes: r.u64()?,
            min_seq: seq(r.u64()?)?,
            max_seq: seq(r.u64()?)?,
            blocks: r.u32()?,
            block_bytes: r.u32()?,
            filter_bits: r.u32()?,
            codec: Codec::from_u32(r.u32()?)?,
            smallest: r.bytes(MAX_BOUND_LEN)?.into(),
            end: read_end(&mut r)?,
        };
        if !r.is_empty() {
            return Err(bad("bytes after the properties"));
        }
        Ok(properties)
    }
}

fn seq(n: u64) -> Result<Seq> {
    Seq::new(n).ok_or_else(|| bad("a sequence number exceeds 56 bits"))
}

fn put_end(out: &mut Vec<u8>, end: Option<&[u8]>) {
    out.push(end.is_some().into());
    if let Some(end) = end {
        put_bytes(out, end);
    }
}

fn read_end(r: &mut Reader<'_>) -> Result<Option<Box<[u8]>>> {
    match r.u8()? {
        0 => Ok(None),
        1 => Ok(Some(r.bytes(MAX_BOUND_LEN)?.into())),
        n => Err(Error::corruption(format!("an end is marked {n}, neither present nor absent"))),
    }
}

/// The bytes of the range tombstones' section.
pub(crate) fn encode_tombstones(tombstones: &RangeTombstones) -> Vec<u8> {
    let mut out = Vec::new();
    if tombstones.is_empty() {
        return out;
    }
    put_varint(&mut out, tombstones.fragments().len() as u64);
    for f in tombstones.fragments() {
        put_bytes(&mut out, &f.start);
        put_end(&mut out, f.end.as_deref());
        put_varint(&mut out, f.seqs.len() as u64);
        for seq in &f.seqs {
            out.extend_from_slice(&seq.get().to_le_bytes());
        }
    }
    out
}

pub(crate) fn decode_tombstones(bytes: &[u8]) -> Result<RangeTombstones> {
    if bytes.is_empty() {
        return Ok(RangeTombstones::default());
    }
    let mut r = Reader::new(bytes);
    let mut fragments = Vec::new();
    for _ in 0..r.varint()? {
        let start = r.bytes(MAX_BOUND_LEN)?.into();
        let end = read_end(&mut r)?;
        let count = usize::try_from(r.varint()?).ok().and_then(|n| n.checked_mul(8));
        let seqs = r.take(count.ok_or_else(|| bad("too many range deletes"))?)?;
        let seqs = seqs.as_chunks::<8>().0.iter().map(|&n| seq(u64::from_le_bytes(n)));
        fragments.push(Fragment { start, end, seqs: seqs.collect::<Result<_>>()? });
    }
    if !r.is_empty() || fragments.is_empty() {
        return Err(bad("bytes after the range tombstones"));
    }
    RangeTombstones::from_fragments(fragments).ok_or_else(|| bad("range tombstones out of order"))
}
