//! A journal segment: its format and its file.
//!
//! # Format
//!
//! A segment is a file of fixed size, preallocated when it is created and otherwise unwritten
//! until its first use (activation), which writes the header. What was never written may read as
//! anything, but the length is durable before the manifest announces the segment: one whose file
//! is shorter was cut. Or it is *reused*: a segment that nothing needs any more under a new name, with its
//! old headers and records until they are overwritten. All numbers are little-endian.
//!
//! ```text
//! offset  size  what
//!      0    84  header
//!     84  4012  zero, not looked at
//!   4096    84  the same header again
//!   4180  4012  zero, not looked at
//!   8192     -  records, one after another, framed as `record` says: batches and marks
//! ```
//!
//! Without the salt nothing in a segment can be told to be valid, so no witness in it could
//! speak. Therefore the manifest names it when it announces the segment, and the header stands
//! there twice, in two pages: the loss of one changes nothing, and that of both is told by the first
//! record that vouches for more than what is left.
//!
//! ```text
//! offset  size  field of the header
//!      0     8  magic "ESKRJRNL"
//!      8     4  format version: 1
//!     12     4  1 if it is reused, else 0
//!     16     8  database id
//!     24     8  number of this segment
//!     32     8  salt: random, as announced; seeds the checksums of this segment's records
//!     40     8  start: the journal position of byte 0 of this file
//!     48     8  number of the segment before it, 0 if none; that one ended at `start`
//!     56     8  durable: a position known durable when this header was written, at most `start`
//!     64     8  number of the last durable manifest edit when this header was written
//!     72     8  capacity: the length of the file
//!     80     4  checksum: crc32 over bytes 0..80
//! ```
//!
//! Every version keeps magic, version and checksum where they are.
//!
//! Positions count the bytes of all segments since the database was made, headers included: byte
//! `o` of a segment has the position `start + o`. The records end where the next one is not valid
//! and the manifest, or the start of the next segment, says so. A batch has at least one operation
//! and a first sequence number above every one before it; a mark has no payload, a count of zero
//! and the last sequence number before it. A record's watermark is at most its own position.
//!
//! Behind its last record nothing is ever written. Which entries of logs lie in a sealed segment is said
//! in a file beside it, its footer. A cold segment, which entries of logs were moved to, is of the same
//! format; it starts at position 0 and is not part of the journal: its batches, of one operation each,
//! have the sequence numbers they were given first.

use crate::batch;
use crate::coding::{u32_at, u64_at};
use crate::dump::Dump;
use crate::error::{Error, Result};
use crate::fs::names::Name;
use crate::fs::{File, Fs};
use crate::ids::{FileNo, Position};
use crate::mutant::Mutant;
use crate::record::{self, HEADER_LEN, RecordKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the first record stands.
pub(super) const DATA_START: u64 = 8192;
/// Where the two copies of the header stand.
pub(super) const HEADERS: [u64; 2] = [0, 4096];
/// The length of a header.
pub(super) const SEGMENT_HEADER_LEN: usize = 84;

const MAGIC: [u8; 8] = *b"ESKRJRNL";
const VERSION: u32 = 1;
const CHECKED: usize = 80;

/// What the header of an activated segment says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SegmentHeader {
    pub db: u64,
    pub no: FileNo,
    pub salt: u64,
    pub start: Position,
    pub previous: FileNo,
    pub durable: Position,
    pub last_edit: u64,
    pub capacity: u64,
    /// Records of its earlier life may stand behind its own.
    pub reused: bool,
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_LEN] {
        let mut h = [0; SEGMENT_HEADER_LEN];
        h[..8].copy_from_slice(&MAGIC);
        h[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let SegmentHeader { db, no, salt, start, previous, durable, last_edit, capacity, reused } = *self;
        h[12..16].copy_from_slice(&u32::from(reused).to_le_bytes());
        let fields = [db, no.0, salt, start.0, previous.0, durable.0, last_edit, capacity];
        for (to, n) in h[16..CHECKED].chunks_exact_mut(8).zip(fields) {
            to.copy_from_slice(&n.to_le_bytes());
        }
        let crc = record::checksum(0, 0, &h[..CHECKED]);
        h[CHECKED..].copy_from_slice(&crc.to_le_bytes());
        h
    }

    /// The header at the start of `bytes`. `None`: never activated, or not whole.
    pub fn decode(bytes: &[u8]) -> Result<Option<SegmentHeader>> {
        let Some((version, header)) = Self::fields(bytes) else { return Ok(None) };
        if version != VERSION {
            return Err(Error::corruption(format!("the journal format version {version} is not known")));
        }
        Ok(Some(header))
    }

    fn fields(bytes: &[u8]) -> Option<(u32, SegmentHeader)> {
        let checked = bytes.get(..CHECKED)?;
        if !checked.starts_with(&MAGIC) || u32_at(bytes, CHECKED)? != record::checksum(0, 0, checked) {
            return None;
        }
        let header = SegmentHeader {
            db: u64_at(bytes, 16)?,
            no: FileNo(u64_at(bytes, 24)?),
            salt: u64_at(bytes, 32)?,
            start: Position(u64_at(bytes, 40)?),
            previous: FileNo(u64_at(bytes, 48)?),
            durable: Position(u64_at(bytes, 56)?),
            last_edit: u64_at(bytes, 64)?,
            capacity: u64_at(bytes, 72)?,
            reused: u32_at(bytes, 12)? == 1,
        };
        Some((u32_at(bytes, 8)?, header))
    }

    /// Whether a valid record header that stands at `offset` of this segment may say what it says.
    pub fn allows(&self, offset: u64, record: &record::Header) -> bool {
        allows(self.start.plus(offset), record)
    }
}

/// Whether a valid record header that stands at `position` may say what it says.
pub(super) fn allows(position: Position, record: &record::Header) -> bool {
    let shape = match record.meta.kind {
        RecordKind::Batch => record.meta.count > 0,
        RecordKind::Mark => record.meta.count == 0 && record.len == 0,
        RecordKind::Snapshot | RecordKind::Edit => false,
    };
    shape && record.meta.watermark <= position.0
}

/// An open, preallocated segment file.
#[derive(Debug)]
pub(crate) struct Segment {
    no: FileNo,
    path: PathBuf,
    file: Arc<dyn File>,
    capacity: u64,
    salt: u64,
    reused: bool,
}

impl Segment {
    /// Creates the file, reserves its space and syncs it; the caller syncs the directory. After an
    /// error the file is gone again, if the system lets it.
    pub fn create(fs: &dyn Fs, dir: &Path, no: FileNo, capacity: u64, salt: u64) -> Result<Segment> {
        if capacity < Self::capacity_for(0) {
            return Err(Error::invalid(format!("a journal segment of {capacity} bytes holds no record")));
        }
        let path = Name::Journal(no).path(dir);
        let file = fs.create(&path).map_err(|e| Error::io("creating a journal segment", &path, e))?;
        if let Err(e) = file.allocate(capacity).and_then(|()| file.sync()) {
            drop(file);
            let _ = fs.remove(&path);
            return Err(Error::io("reserving space for a journal segment", &path, e));
        }
        Ok(Segment { no, path, file, capacity, salt, reused: false })
    }

    /// As [`create`](Segment::create), in the file of the segment `old`, which nothing needs any more: blocks that were
    /// written before are written again faster, and synced much faster, than those that are new. It gets the new name
    /// beside the old one, which the caller removes when the new one is durable. Nothing is written: its length
    /// is durable since it was made. `None`: it has another length, or names elsewhere, or the system has
    /// something against it, which is no reason to do without a new one.
    pub fn reuse(
        fs: &dyn Fs,
        dir: &Path,
        old: FileNo,
        (no, capacity, salt): (FileNo, u64, u64),
    ) -> Option<Segment> {
        let (from, path) = (Name::Journal(old).path(dir), Name::Journal(no).path(dir));
        let file = fs.open_write(&from).ok()?;
        if file.len().ok()? != capacity || (file.names()? != 1 && !Mutant::ReuseLinkedSegment.on()) {
            return None;
        }
        fs.link(&from, &path).ok()?;
        Some(Segment { no, path, file, capacity, salt, reused: true })
    }

    /// Has its pages in memory before parts of them are written.
    pub fn warm(&self) {
        self.file.warm(self.capacity);
    }

    /// What must not be done: opens a recovered segment for writing.
    #[cfg(esker_mutants)]
    pub(super) fn reopen(fs: &dyn Fs, dir: &Path, no: FileNo) -> Result<(Segment, SegmentHeader)> {
        let path = Name::Journal(no).path(dir);
        let file = fs.open_write(&path).map_err(|e| Error::io("opening a journal segment", &path, e))?;
        let mut bytes = [0; SEGMENT_HEADER_LEN];
        file.read_at(&mut bytes, 0).map_err(|e| Error::io("reading a journal segment", &path, e))?;
        let header = SegmentHeader::decode(&bytes)?.ok_or_else(|| Error::invalid("no header"))?;
        let SegmentHeader { capacity, salt, reused, .. } = header;
        Ok((Segment { no, path, file, capacity, salt, reused }, header))
    }

    /// The least capacity that a batch with a payload of `len` bytes fits.
    pub const fn capacity_for(len: usize) -> u64 {
        // The last part is the reserve for a mark.
        DATA_START + record::size(len) as u64 + HEADER_LEN as u64
    }

    pub fn no(&self) -> FileNo {
        self.no
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn file(&self) -> &Arc<dyn File> {
        &self.file
    }

    /// The bytes reserved, header included.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Whether its file was another segment's before.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// What seeds the checksums of its records.
    pub fn salt(&self) -> u64 {
        self.salt
    }
}

/// The annotated bytes of a segment, up to where its records end.
pub(crate) fn dump(bytes: &[u8]) -> String {
    let mut d = Dump::new(bytes, 0);
    d.title("journal segment");
    let mut found = None;
    for at in HEADERS {
        d.field((at as usize).saturating_sub(d.at()), "zero, not looked at");
        match SegmentHeader::decode(bytes.get(at as usize..).unwrap_or_default()) {
            Ok(Some(header)) => found = found.or(Some(header)),
            Ok(None) => _ = d.title("this header is not valid"),
            Err(e) => _ = d.title(e),
        }
        d.field(8, "magic");
        d.number(4, "format version");
        d.number(4, "reused");
        d.number(8, "database id");
        d.number(8, "segment number");
        d.number(8, "salt");
        d.number(8, "start position");
        d.number(8, "previous segment");
        d.number(8, "durable position");
        d.number(8, "last manifest edit");
        d.number(8, "capacity");
        d.number(4, "header checksum");
    }
    let Some(SegmentHeader { salt, start, .. }) = found else { return d.finish() };
    d.field((DATA_START as usize).saturating_sub(d.at()), "zero, not looked at");
    loop {
        let offset = d.at() as u64;
        let rest = bytes.get(d.at()..).unwrap_or_default();
        let Some((header, payload)) = record::decode(salt, offset, rest) else { break };
        d.title(format_args!("{:?} at position {}", header.meta.kind, start.plus(offset)));
        d.number(4, "header checksum");
        d.number(4, "payload checksum");
        d.number(4, "payload length");
        d.number(4, "count");
        d.field(8, format_args!("first sequence number = {}, kind", header.meta.first_seq));
        d.number(8, "watermark");
        batch::dump(&mut d, payload);
        let padding = record::size(payload.len()) - HEADER_LEN - payload.len();
        if padding > 0 {
            d.field(padding, "padding");
        }
    }
    d.title(format_args!("no record at offset {}", d.at()));
    d.finish()
}
