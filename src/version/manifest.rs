//! The manifest: a log of numbered edits, led by a complete snapshot.
//!
//! # Format
//!
//! ```text
//! offset  size  field
//!      0  2048  header
//!   2048  2048  the same header again
//!   4096     -  records (see `record`), one behind the other: one snapshot, then edits
//! header:
//!      0     8  magic "esker\0mf"
//!      8     4  format version (1)
//!     12     4  checksum: crc32 of all other bytes of the 2048, seeded with 0 and the offset
//!     16     8  database id
//!     24     8  manifest number, as in the file's name
//!     32     8  random salt: seeds the checksums of this file's records
//!     40     -  zero bytes
//! ```
//!
//! Of a record's header, the sequence field holds the edit's number (a snapshot's: that of the last
//! edit in it), the count is that of the changes, and the watermark is the offset up to which this
//! file was synced when the record was built. The payloads are described in `edit`.
//!
//! The file is written into allocated space only, and every edit is synced before it counts, so an
//! edit's watermark is its own offset. Hence one rule tells damage from an interrupted write: bytes
//! that are not valid are damage if a valid record header behind them has a watermark beyond them,
//! and an edit (or a snapshot) that was never acknowledged if there is none. That is also why the
//! header is there twice: without the salt no record could testify.
//!
//! The manifest with the highest number and a complete snapshot is the one that counts. A new one
//! holds the same state as the one before it, which is no longer written to and is removed, for
//! good, before the new one gets its first edit. A manifest is never appended to after it was opened
//! again.

use crate::coding::{u32_at, u64_at};
use crate::dump::Dump;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::names::Name;
use crate::fs::{File, Fs, write_all_at};
use crate::ids::{FileNo, Seq};
use crate::record::{self, ALIGN, HEADER_LEN, MAX_PAYLOAD, Meta, RecordKind};
use crate::version::edit::{self, Counters, Edit};
use crate::version::state::State;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: [u8; 8] = *b"esker\0mf";
const VERSION: u32 = 1;
/// One of the two copies of the header.
const COPY_LEN: usize = 2048;
/// Where the records start.
const RECORDS: usize = 2 * COPY_LEN;
/// The least space a manifest allocates.
const FIRST_SPACE: u64 = 64 << 10;
/// Space is allocated in multiples of this.
const SPACE_UNIT: u64 = 4 << 10;

/// The one manifest that is being written.
#[derive(Debug)]
pub(crate) struct Manifest {
    no: FileNo,
    path: PathBuf,
    file: Arc<dyn File>,
    salt: u64,
    /// Where the next record goes; everything before is synced.
    end: u64,
    allocated: u64,
    /// The first failure that left the file's contents unknown.
    failed: Option<Error>,
}

/// A file with room for a snapshot and nothing in it yet: nobody can take it for a manifest.
#[derive(Debug)]
pub(super) struct Blank {
    no: FileNo,
    path: PathBuf,
    file: Arc<dyn File>,
    allocated: u64,
}

impl Manifest {
    /// Makes the manifest `no` with a snapshot of `state`, durable when this returns.
    pub fn create(fs: &dyn Fs, dir: &Path, no: FileNo, salt: u64, state: &State) -> Result<Manifest> {
        let snapshot = snapshot(salt, state)?;
        Blank::create(fs, dir, no, snapshot.len())?.begin(fs, dir, salt, state.db, &snapshot)
    }

    /// Writes and syncs one edit. A failed allocation (the disk is full) changes nothing and may be
    /// tried again; any other failure is final, and what became of the edit is unknown.
    pub fn append(&mut self, counters: Counters, edit: &Edit) -> Result<()> {
        if let Some(e) = &self.failed {
            return Err(e.clone());
        }
        let mut payload = Vec::new();
        edit.encode(&mut payload, counters);
        let meta = Meta {
            kind: RecordKind::Edit,
            first_seq: number_field(counters.number)?,
            count: count_field(edit.changes.len())?,
            watermark: self.end,
        };
        let bytes = framed(self.salt, self.end, meta, &payload)?;
        let end = self.end + bytes.len() as u64;
        if end > self.allocated {
            self.allocated = grow(&*self.file, &self.path, self.allocated, end)?;
        }
        let written = write_all_at(&*self.file, &bytes, self.end)
            .map_err(|e| Error::io("writing an edit", &self.path, e))
            .and_then(|()| self.file.sync().map_err(|e| Error::io("syncing an edit", &self.path, e)));
        match written {
            Ok(()) => {
                self.end = end;
                Ok(())
            }
            Err(e) => {
                self.failed = Some(e.clone());
                Err(e)
            }
        }
    }

    pub fn no(&self) -> FileNo {
        self.no
    }

    /// Header, snapshot and edits, in bytes.
    pub fn bytes(&self) -> u64 {
        self.end
    }

    /// Why nothing can be appended any more.
    pub fn failed(&self) -> Option<&Error> {
        self.failed.as_ref()
    }
}

impl Blank {
    /// Creates the file and allocates room for a snapshot record of `len` bytes.
    pub fn create(fs: &dyn Fs, dir: &Path, no: FileNo, len: usize) -> Result<Blank> {
        let path = Name::Manifest(no).path(dir);
        let file = fs.create(&path).map_err(|e| Error::io("creating a manifest", &path, e))?;
        let need = RECORDS as u64 + len as u64;
        match grow(&*file, &path, FIRST_SPACE / 2, need) {
            Ok(allocated) => Ok(Blank { no, path, file, allocated }),
            Err(e) => {
                // It would be ignored if it stayed; gone is tidier, and gives space back.
                let _ = fs.remove(&path);
                Err(e)
            }
        }
    }

    /// Writes header and snapshot, and makes file and name durable.
    pub fn begin(self, fs: &dyn Fs, dir: &Path, salt: u64, db: u64, snapshot: &[u8]) -> Result<Manifest> {
        let Blank { no, path, file, allocated } = self;
        let mut bytes = Vec::with_capacity(RECORDS + snapshot.len());
        encode_header(&mut bytes, db, no, salt);
        bytes.extend_from_slice(snapshot);
        write_all_at(&*file, &bytes, 0).map_err(|e| Error::io("writing a manifest", &path, e))?;
        file.sync().map_err(|e| Error::io("syncing a manifest", &path, e))?;
        fs.sync_dir(dir).map_err(|e| Error::io("syncing the directory", dir, e))?;
        Ok(Manifest { no, path, file, salt, end: bytes.len() as u64, allocated, failed: None })
    }
}

/// The snapshot record of a manifest with this salt.
pub(super) fn snapshot(salt: u64, state: &State) -> Result<Vec<u8>> {
    let mut payload = Vec::new();
    let count = count_field(state.encode(&mut payload))?;
    let meta = Meta { kind: RecordKind::Snapshot, first_seq: number_field(state.edit)?, count, watermark: 0 };
    framed(salt, RECORDS as u64, meta, &payload)
}

fn framed(salt: u64, offset: u64, meta: Meta, payload: &[u8]) -> Result<Vec<u8>> {
    if payload.len() > MAX_PAYLOAD {
        return Err(Error::invalid(format!("an edit of {} bytes is too large", payload.len())));
    }
    let mut bytes = Vec::with_capacity(record::size(payload.len()));
    record::encode(&mut bytes, salt, offset, meta, payload);
    Ok(bytes)
}

fn number_field(number: u64) -> Result<Seq> {
    Seq::new(number).ok_or_else(|| Error::invalid("edit numbers have run out"))
}

fn count_field(changes: usize) -> Result<u32> {
    u32::try_from(changes).map_err(|_| Error::invalid("an edit has too many changes"))
}

/// Allocates `need` bytes and more: twice what was, or where that is refused, hardly more than
/// needed, since the edit may be the one that gives space back. Returns what is allocated now.
fn grow(file: &dyn File, path: &Path, allocated: u64, need: u64) -> Result<u64> {
    let least = need.next_multiple_of(SPACE_UNIT);
    let ample = allocated.saturating_mul(2).max(least);
    let allocate = |len: u64| match file.allocate(len) {
        Ok(()) => Ok(len),
        Err(e) => Err(Error::io("allocating space for the manifest", path, e)),
    };
    match allocate(ample) {
        Err(e) if e.kind() == ErrorKind::DiskFull && ample > least => allocate(least),
        done => done,
    }
}

fn encode_header(out: &mut Vec<u8>, db: u64, no: FileNo, salt: u64) {
    for _ in 0..2 {
        let start = out.len();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for n in [db, no.0, salt] {
            out.extend_from_slice(&n.to_le_bytes());
        }
        out.resize(start + COPY_LEN, 0);
        let crc = header_checksum(&out[start..], start as u64);
        out[start + 12..start + 16].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Over the copy without its checksum field.
fn header_checksum(copy: &[u8], offset: u64) -> u32 {
    let mut rest = copy.to_vec();
    rest[12..16].fill(0);
    record::checksum(0, offset, &rest)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct FileHeader {
    db: u64,
    no: FileNo,
    salt: u64,
}

/// The copy of the header at `offset`; `None` if it is not whole. Another version is an error.
fn decode_header(bytes: &[u8], offset: usize) -> Result<Option<FileHeader>> {
    let whole = bytes.get(offset..offset + COPY_LEN).filter(|c| c.starts_with(&MAGIC));
    let Some(copy) = whole else { return Ok(None) };
    if u32_at(copy, 12) != Some(header_checksum(copy, offset as u64)) {
        return Ok(None);
    }
    match u32_at(copy, 8) {
        Some(VERSION) => {}
        version => {
            let version = version.unwrap_or_default();
            let why = format!("the manifest's format version {version} is not known (this is {VERSION})");
            return Err(Error::corruption(why));
        }
    }
    let field = |at| u64_at(copy, at).unwrap_or_default();
    Ok(Some(FileHeader { db: field(16), no: FileNo(field(24)), salt: field(32) }))
}

/// What the manifests of a directory say.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub state: State,
    /// The manifest it was read from.
    pub no: FileNo,
    /// Offset and length of what stood behind the last edit: one that was never acknowledged.
    pub torn: Option<(u64, u64)>,
    /// Newer manifests without a complete snapshot: their creation was interrupted.
    pub incomplete: Vec<FileNo>,
}

/// Reads the newest complete manifest among `candidates` (numbers and lengths, in any order).
/// `None` if none is complete.
pub(crate) fn load(fs: &dyn Fs, dir: &Path, candidates: &[(FileNo, u64)]) -> Result<Option<Loaded>> {
    let mut candidates = candidates.to_vec();
    candidates.sort_by(|a, b| b.cmp(a));
    let mut incomplete = Vec::new();
    for (no, len) in candidates {
        let path = Name::Manifest(no).path(dir);
        let bytes = read_file(fs, &path, len)?;
        match parse(&bytes, no).map_err(|(offset, e)| e.at(&path, offset))? {
            Some((state, torn)) => return Ok(Some(Loaded { state, no, torn, incomplete })),
            None => incomplete.push(no),
        }
    }
    Ok(None)
}

/// The first `len` bytes, or what there is of them.
fn read_file(fs: &dyn Fs, path: &Path, len: u64) -> Result<Vec<u8>> {
    let failed = |e| Error::io("reading a manifest", path, e);
    let file = fs.open_read(path).map_err(failed)?;
    let mut bytes = Vec::new();
    usize::try_from(len)
        .ok()
        .and_then(|len| bytes.try_reserve_exact(len).ok().map(|()| bytes.resize(len, 0)))
        .ok_or_else(|| failed(std::io::ErrorKind::OutOfMemory.into()))?;
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(failed(e)),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

type Torn = Option<(u64, u64)>;

/// Reads one manifest: `None` if its creation was interrupted. An error comes with its offset.
fn parse(bytes: &[u8], no: FileNo) -> Result<Option<(State, Torn)>, (u64, Error)> {
    let copies = [0, COPY_LEN].map(|at| decode_header(bytes, at).map_err(|e| (at as u64, e)));
    let [first, second] = copies;
    let (first, second) = (first?, second?);
    let Some(header) = first.or(second) else {
        return Ok(None);
    };
    if first.is_some_and(|a| second.is_some_and(|b| a != b)) {
        return Err((0, Error::corruption("the two copies of the manifest's header differ")));
    }
    if header.no != no {
        let why = format!("this is manifest {}, not {no}", header.no);
        return Err((0, Error::corruption(why)));
    }
    if first.is_none() || second.is_none() {
        let at = if first.is_none() { 0 } else { COPY_LEN };
        check_unvouched(bytes, header.salt, at, RECORDS, "the header is damaged")?;
    }
    let Some((head, payload)) = record_at(bytes, header.salt, RECORDS) else {
        check_unvouched(bytes, header.salt, RECORDS, RECORDS + ALIGN, "the snapshot is damaged")?;
        return Ok(None);
    };
    let start = RECORDS as u64;
    if head.meta.kind != RecordKind::Snapshot {
        return Err((start, Error::corruption("the manifest does not begin with a snapshot")));
    }
    let mut state =
        State::decode(payload, head.meta.first_seq.get(), head.meta.count).map_err(|e| (start, e))?;
    if state.db != header.db {
        return Err((start, Error::corruption("the snapshot is that of another database")));
    }
    if state.next_file <= no {
        return Err((start, Error::corruption("the manifest's own number was never given out")));
    }
    let end = replay(bytes, header.salt, RECORDS + record::size(payload.len()), &mut state)?;
    Ok(Some((state, torn_tail(bytes, header.salt, end)?)))
}

/// Applies the edits that begin at `at`; returns where they end.
fn replay(bytes: &[u8], salt: u64, mut at: usize, state: &mut State) -> Result<usize, (u64, Error)> {
    while let Some((head, payload)) = record_at(bytes, salt, at) {
        let Meta { kind, first_seq, count, watermark: _ } = head.meta;
        let applied = match kind {
            RecordKind::Edit => Edit::decode(payload, first_seq.get(), count)
                .and_then(|(counters, edit)| state.apply(counters, &edit)),
            _ => Err(Error::corruption("a record that is not an edit stands among the edits")),
        };
        applied.map_err(|e| (at as u64, e))?;
        at += record::size(payload.len());
    }
    Ok(at)
}

/// What is left behind the last edit: nothing, or zero bytes, or an edit whose write was cut short.
fn torn_tail(bytes: &[u8], salt: u64, end: usize) -> Result<Torn, (u64, Error)> {
    let rest = bytes.get(end..).unwrap_or_default();
    let Some(last) = rest.iter().rposition(|&b| b != 0) else {
        return Ok(None);
    };
    check_unvouched(bytes, salt, end, end + ALIGN, "an edit is damaged")?;
    Ok(Some((end as u64, last as u64 + 1)))
}

fn record_at(bytes: &[u8], salt: u64, at: usize) -> Option<(record::Header, &[u8])> {
    record::decode(salt, at as u64, bytes.get(at..)?)
}

/// What stands at `bad` is not valid: that is damage if a record from `scan` on says that it was
/// durable once. Linear in what is left of the file.
fn check_unvouched(bytes: &[u8], salt: u64, bad: usize, scan: usize, why: &str) -> Result<(), (u64, Error)> {
    for at in (scan..bytes.len().saturating_sub(HEADER_LEN - 1)).step_by(ALIGN) {
        if let Some(head) = record::decode_header(salt, at as u64, &bytes[at..])
            && head.meta.watermark > bad as u64
        {
            let number = head.meta.first_seq;
            let why = format!("{why}; it was durable before edit {number} was written at offset {at}");
            return Err((bad as u64, Error::corruption(why)));
        }
    }
    Ok(())
}

/// Shows a manifest's bytes with their meaning.
pub(crate) fn dump(bytes: &[u8]) -> String {
    let mut d = Dump::new(bytes, 0);
    for copy in ["header", "header again"] {
        d.title(copy);
        d.field(8, "magic");
        d.number(4, "format version");
        d.field(4, "checksum");
        d.field(8, "database id");
        d.number(8, "manifest number");
        d.field(8, "salt");
        d.field(COPY_LEN - 40, "zero bytes");
    }
    let salt = [0, COPY_LEN].iter().find_map(|&at| decode_header(bytes, at).ok().flatten()).map(|h| h.salt);
    while let Some((head, payload)) = salt.and_then(|salt| record_at(bytes, salt, d.at())) {
        let Meta { kind, first_seq, count, .. } = head.meta;
        d.title(format_args!("{kind:?} {first_seq}"));
        record_header(&mut d);
        match kind {
            RecordKind::Snapshot => {
                d.field(payload.len().min(8), "database id");
                edit::dump_payload(&mut d, payload.get(8..).unwrap_or_default(), count);
            }
            _ => edit::dump_payload(&mut d, payload, count),
        }
        let padding = record::size(payload.len()) - HEADER_LEN - payload.len();
        if padding > 0 {
            d.field(padding, "padding");
        }
    }
    let rest = &bytes[d.at()..];
    if rest.iter().all(|&b| b == 0) {
        d.title(format_args!("{} zero bytes", rest.len()));
    } else {
        d.title("not valid");
        d.field(rest.len(), "");
    }
    d.finish()
}

fn record_header(d: &mut Dump<'_>) {
    d.field(4, "header checksum");
    d.field(4, "payload checksum");
    d.number(4, "payload length");
    d.number(4, "changes");
    d.field(8, "edit number, record kind");
    d.number(8, "watermark");
}
