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
//! file was synced when the record was built. A payload is the length of the file in bytes (8
//! bytes) and then what `edit` describes.
//!
//! The file is written into allocated space only, and every edit is synced before it counts, so an
//! edit's watermark is its own offset. Hence one rule tells damage from an interrupted write: bytes
//! that are not valid are damage if a valid record header behind them has a watermark beyond them,
//! and an edit (or a snapshot) that was never acknowledged if there is none. That is also why the
//! header is there twice: without the salt no record could testify.
//!
//! The length that an edit names was synced before the edit was written: a shorter file was cut.
//! Space is allocated ahead of need, so that edits testify to it before they use it. The length
//! that a snapshot names is synced together with it: where the file is shorter, and no edit
//! follows, that sync was interrupted.
//!
//! The manifest with the highest number and a complete snapshot is the one that counts. A new one
//! holds the same state as the one before it, which is no longer written to and is removed, for
//! good, before the new one gets its first edit. A manifest is never appended to after it was opened
//! again.

use crate::coding::{Reader, u32_at, u64_at};
use crate::dump::Dump;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::names::Name;
use crate::fs::{File, Fs, write_all_at};
use crate::ids::{FileNo, Seq};
use crate::mutant::Mutant;
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
/// When less than this is left, more is allocated.
const AHEAD: u64 = 16 << 10;
/// Space is allocated in multiples of this.
const SPACE_UNIT: u64 = 4 << 10;
/// At the start of each payload: the length of the file.
const SPACE_FIELD: usize = 8;
/// Longer than any manifest: the largest snapshot, and the edits until it is replaced.
const MAX_LEN: u64 = 8 * MAX_PAYLOAD as u64;

/// The one manifest that is being written.
#[derive(Debug)]
pub(crate) struct Manifest {
    no: FileNo,
    path: PathBuf,
    file: Arc<dyn File>,
    salt: u64,
    /// Where the next record goes; everything before is synced.
    end: u64,
    /// The length of the file; synced.
    space: u64,
    /// The first failure that left the file's contents unknown.
    failed: Option<Error>,
}

/// A file with room for a snapshot and nothing in it yet: nobody can take it for a manifest.
#[derive(Debug)]
pub(super) struct Blank {
    no: FileNo,
    db: u64,
    path: PathBuf,
    file: Arc<dyn File>,
    space: u64,
    meta: Meta,
    payload: Vec<u8>,
}

impl Manifest {
    /// Makes the manifest `no` with a snapshot of `state`, durable when this returns.
    pub fn create(fs: &dyn Fs, dir: &Path, no: FileNo, salt: u64, state: &State) -> Result<Manifest> {
        Blank::create(fs, dir, no, state)?.begin(fs, dir, salt)
    }

    /// Writes and syncs one edit. A failed allocation (the disk is full) changes nothing and may be
    /// tried again; a failed write or sync is final, and what became of the edit is unknown.
    pub fn append(&mut self, counters: Counters, edit: &Edit) -> Result<()> {
        if let Some(e) = &self.failed {
            return Err(e.clone());
        }
        let mut payload = vec![0; SPACE_FIELD];
        edit.encode(&mut payload, counters);
        let meta = Meta {
            kind: RecordKind::Edit,
            first_seq: number_field(counters.number)?,
            count: count_field(edit.changes.len())?,
            watermark: self.end,
        };
        let end = self.end + framed_len(&payload)?;
        self.make_room(end)?;
        let bytes = framed(self.salt, self.end, meta, &mut payload, self.space);
        write_all_at(&*self.file, &bytes, self.end)
            .map_err(|e| self.fail(Error::io("writing an edit", &self.path, e)))?;
        if !Mutant::SkipManifestSync.on() {
            self.sync()?;
        }
        self.end = end;
        Ok(())
    }

    /// Makes sure that the file has room up to `end`, and some beyond if there is any to be had.
    fn make_room(&mut self, end: u64) -> Result<()> {
        if end + AHEAD <= self.space {
            return Ok(());
        }
        match grow(&*self.file, &self.path, self.space.saturating_mul(2), end) {
            Ok(space) if space > self.space => {
                // Edits name the length of the file, so it has to be durable before they are written.
                self.sync()?;
                self.space = space;
                Ok(())
            }
            Err(e) if end > self.space => Err(e),
            _ => Ok(()),
        }
    }

    fn sync(&mut self) -> Result<()> {
        self.file.sync().map_err(|e| self.fail(Error::io("syncing the manifest", &self.path, e)))
    }

    /// The file's contents are unknown from here on.
    fn fail(&mut self, e: Error) -> Error {
        self.failed.get_or_insert(e.for_good()).clone()
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

/// Makes a fresh directory with the files of `state` the database of that state, durable when this
/// returns. Answers the manifest's number.
pub(crate) fn found(fs: &dyn Fs, dir: &Path, mut state: State, salt: u64) -> Result<FileNo> {
    let no = state.next_file;
    state.saw_file(no)?;
    Manifest::create(fs, dir, no, salt, &state).map(|manifest| manifest.no())
}

impl Blank {
    /// Creates the file and allocates room for a snapshot of `state`.
    pub fn create(fs: &dyn Fs, dir: &Path, no: FileNo, state: &State) -> Result<Blank> {
        let mut payload = vec![0; SPACE_FIELD];
        let count = count_field(state.encode(&mut payload))?;
        let need = RECORDS as u64 + framed_len(&payload)?;
        let number = number_field(state.edit)?;
        let meta = Meta { kind: RecordKind::Snapshot, first_seq: number, count, watermark: 0 };
        let path = Name::Manifest(no).path(dir);
        let file = fs.create(&path).map_err(|e| Error::io("creating a manifest", &path, e))?;
        match grow(&*file, &path, need + FIRST_SPACE - RECORDS as u64, need) {
            Ok(space) => Ok(Blank { no, db: state.db, path, file, space, meta, payload }),
            Err(e) => {
                // It would be ignored if it stayed; gone is tidier, and gives space back.
                let _ = fs.remove(&path);
                Err(e)
            }
        }
    }

    /// Writes header and snapshot, and makes file and name durable.
    pub fn begin(mut self, fs: &dyn Fs, dir: &Path, salt: u64) -> Result<Manifest> {
        let mut bytes = Vec::new();
        encode_header(&mut bytes, self.db, self.no, salt);
        let offset = bytes.len() as u64;
        bytes.extend(framed(salt, offset, self.meta, &mut self.payload, self.space));
        let Blank { no, path, file, space, .. } = self;
        write_all_at(&*file, &bytes, 0).map_err(|e| Error::io("writing a manifest", &path, e))?;
        file.sync().map_err(|e| Error::io("syncing a manifest", &path, e))?;
        if !Mutant::SkipDirSyncOfManifest.on() {
            fs.sync_dir(dir).map_err(|e| Error::io("syncing the directory", dir, e))?;
        }
        Ok(Manifest { no, path, file, salt, end: bytes.len() as u64, space, failed: None })
    }
}

/// The bytes of the record that will hold this payload.
fn framed_len(payload: &[u8]) -> Result<u64> {
    match payload.len() {
        len if len <= MAX_PAYLOAD => Ok(record::size(len) as u64),
        len => Err(Error::invalid(format!("an edit of {len} bytes is too large"))),
    }
}

/// The record, with the length of the file entered.
fn framed(salt: u64, offset: u64, meta: Meta, payload: &mut [u8], space: u64) -> Vec<u8> {
    payload[..SPACE_FIELD].copy_from_slice(&space.to_le_bytes());
    let mut bytes = Vec::with_capacity(record::size(payload.len()));
    record::encode(&mut bytes, salt, offset, meta, payload);
    bytes
}

fn number_field(number: u64) -> Result<Seq> {
    Seq::new(number).ok_or_else(|| Error::invalid("edit numbers have run out"))
}

fn count_field(changes: usize) -> Result<u32> {
    u32::try_from(changes).map_err(|_| Error::invalid("an edit has too many changes"))
}

/// Allocates `ample` bytes (at least `need`), or where the disk is too full for that hardly more
/// than needed, since the edit may be the one that gives space back. Returns the file's length.
fn grow(file: &dyn File, path: &Path, ample: u64, need: u64) -> Result<u64> {
    let least = need.next_multiple_of(SPACE_UNIT);
    let ample = ample.next_multiple_of(SPACE_UNIT).max(least);
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
        let parsed = match parse(&bytes, no) {
            Err(_) if Mutant::TakeOlderManifest.on() => Ok(None),
            parsed => parsed,
        };
        match parsed.map_err(|(offset, e)| e.at(&path, offset))? {
            Some((state, torn)) => return Ok(Some(Loaded { state, no, torn, incomplete })),
            None => incomplete.push(no),
        }
    }
    Ok(None)
}

/// The first `len` bytes, or what there is of them.
fn read_file(fs: &dyn Fs, path: &Path, len: u64) -> Result<Vec<u8>> {
    let failed = |e| Error::io("reading a manifest", path, e);
    if len > MAX_LEN {
        return Err(Error::corruption(format!("no manifest is {len} bytes long")).in_file(path));
    }
    let file = fs.open_read(path).map_err(failed)?;
    let mut bytes =
        vec![0; usize::try_from(len).map_err(|_| failed(std::io::ErrorKind::OutOfMemory.into()))?];
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

pub(super) type Torn = Option<(u64, u64)>;

/// Reads one manifest: `None` if its creation was interrupted. An error comes with its offset.
pub(super) fn parse(bytes: &[u8], no: FileNo) -> Result<Option<(State, Torn)>, (u64, Error)> {
    // Space that was never written may still hold what an earlier file left there: the header of
    // another number, or of this one given before.
    let copy = |at| match decode_header(bytes, at) {
        Ok(header) => Ok(header.filter(|h| h.no == no)),
        Err(e) => Err((at as u64, e)),
    };
    let (first, second) = (copy(0)?, copy(COPY_LEN)?);
    for header in first.into_iter().chain(second.filter(|_| first != second)) {
        for (copy, at) in [(first, 0), (second, COPY_LEN)] {
            if copy != Some(header) {
                check_unvouched(bytes, header.salt, at, RECORDS, "the header is damaged")?;
            }
        }
        if let Some(found) = parse_as(bytes, header)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Reads the manifest that has this header.
fn parse_as(bytes: &[u8], header: FileHeader) -> Result<Option<(State, Torn)>, (u64, Error)> {
    let Some((head, payload)) = record_at(bytes, header.salt, RECORDS) else {
        check_unvouched(bytes, header.salt, RECORDS, RECORDS + ALIGN, "the snapshot is damaged")?;
        return Ok(None);
    };
    let start = RECORDS as u64;
    if head.meta.kind != RecordKind::Snapshot {
        return Err((start, Error::corruption("the manifest does not begin with a snapshot")));
    }
    let first_edit = RECORDS + record::size(payload.len());
    let (space, payload) = split_space(payload).map_err(|e| (start, e))?;
    if (bytes.len() as u64) < space {
        check_unvouched(bytes, header.salt, RECORDS, first_edit, &cut_short(space))?;
        return Ok(None);
    }
    let state = State::decode(payload, head.meta.first_seq.get(), head.meta.count).map_err(|e| (start, e))?;
    if state.db != header.db {
        return Err((start, Error::corruption("the snapshot is that of another database")));
    }
    if state.next_file <= header.no {
        return Err((start, Error::corruption("the manifest's own number was never given out")));
    }
    replay(bytes, header.salt, first_edit, state).map(Some)
}

/// Applies the edits that begin at `at`.
fn replay(bytes: &[u8], salt: u64, mut at: usize, mut state: State) -> Result<(State, Torn), (u64, Error)> {
    while let Some((head, payload)) = record_at(bytes, salt, at) {
        let size = record::size(payload.len());
        apply_record(&mut state, bytes.len(), head.meta, payload).map_err(|e| (at as u64, e))?;
        at += size;
    }
    Ok((state, torn_tail(bytes, salt, at)?))
}

fn apply_record(state: &mut State, file_len: usize, meta: Meta, payload: &[u8]) -> Result<()> {
    if meta.kind != RecordKind::Edit {
        return Err(Error::corruption("a record that is not an edit stands among the edits"));
    }
    let (space, payload) = split_space(payload)?;
    if (file_len as u64) < space {
        return Err(Error::corruption(cut_short(space)));
    }
    let (counters, edit) = Edit::decode(payload, meta.first_seq.get(), meta.count)?;
    state.apply(counters, &edit)
}

/// The length of the file that a payload names, and the rest of it.
fn split_space(payload: &[u8]) -> Result<(u64, &[u8])> {
    let mut r = Reader::new(payload);
    Ok((r.u64()?, &payload[r.at()..]))
}

fn cut_short(space: u64) -> String {
    format!("the file was cut short: it had {space} bytes")
}

/// What is left behind the last edit: nothing, or zero bytes, or an edit whose write was cut short.
fn torn_tail(bytes: &[u8], salt: u64, end: usize) -> Result<Torn, (u64, Error)> {
    let rest = bytes.get(end..).unwrap_or_default();
    let len = rest.len() - zeros_at_end(rest);
    if len == 0 {
        return Ok(None);
    }
    check_unvouched(bytes, salt, end, end + ALIGN, "an edit is damaged")?;
    Ok(Some((end as u64, len as u64)))
}

/// How many zero bytes end these: most of a manifest is space that was never written.
fn zeros_at_end(bytes: &[u8]) -> usize {
    const ZEROS: [u8; 512] = [0; 512];
    let blocks = bytes.rchunks(ZEROS.len()).take_while(|block| **block == ZEROS[..block.len()]).count();
    let rest = &bytes[..bytes.len().saturating_sub(blocks * ZEROS.len())];
    bytes.len() - rest.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1)
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
        let mut fixed = 0;
        for (len, what) in [(SPACE_FIELD, "file length"), (8, "database id"), (8, "next segment starts at")] {
            if what == "file length" || kind == RecordKind::Snapshot {
                d.number(len.min(payload.len() - fixed), what);
                fixed = payload.len().min(fixed + len);
            }
        }
        edit::dump_payload(&mut d, &payload[fixed..], count);
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
