//! Reads the journal back after a restart, and tells a torn tail from damage.
//!
//! Segments that the manifest calls sealed must hold exactly what it says. The others form a chain:
//! each starts where the one before it ended. The chain ends at the first place X where no valid
//! record and no next segment stands. What lies behind X was either never made durable (a torn
//! tail: dropped, and reported) or it is damage. It is damage exactly if a witness vouches for a
//! position beyond X: the manifest, the hint, or a watermark in any record or segment header
//! behind X, whether its segment's own header is left or not. That such a header exists proves
//! nothing by itself: without a sync, later bytes may survive a power loss that earlier ones do not.
//!
//! Before anything is built on the recovered tail, it must be durable. What was read may have
//! come from the page cache, whose failed writes the system does not report twice; so the part
//! that no synced witness vouches for is written again in place, and synced. The same bytes are
//! written to the same places, so a crash in the middle changes nothing.

use crate::error::{Error, Result};
use crate::fs::names::Name;
use crate::fs::{File, Fs, write_all_at};
use crate::ids::{FileNo, Position, Seq};
use crate::journal::reader::{Reader, Remains};
use crate::journal::segment::{DATA_START, HEADERS, SegmentHeader};
use crate::mutant::Mutant;
use crate::record::{HEADER_LEN, RecordKind};
use std::io;
use std::path::{Path, PathBuf};

/// What is written again is gathered in pieces of this size.
const PIECE: usize = 1 << 20;
/// Of so many bytes of a segment the place of a record is remembered.
const PLACES: u64 = 64 << 10;

/// A segment as the manifest knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Announced {
    pub no: FileNo,
    /// What seeds the checksums of its records.
    pub salt: u64,
    /// Start and end, if it is sealed.
    pub sealed: Option<(Position, Position)>,
}

/// What recovery starts from.
pub(crate) struct Recover<'a> {
    pub fs: &'a dyn Fs,
    pub dir: &'a Path,
    pub db: u64,
    pub segments: &'a [Announced],
    /// What the manifest knows durable.
    pub durable: Position,
    pub hint: Option<Position>,
    /// The number of the manifest's last edit.
    pub last_edit: u64,
    /// Where the first segment that is not sealed must start: the end of the last sealed one,
    /// also if that is long gone, or 0.
    pub start: Position,
    /// `false`: writes nothing.
    pub persist: bool,
}

/// A batch read back.
pub(crate) struct Replayed<'a> {
    /// Where the record starts.
    pub position: Position,
    /// Where it ends.
    #[cfg_attr(not(test), expect(dead_code, reason = "for tests"))]
    pub end: Position,
    pub first_seq: Seq,
    pub count: u32,
    pub payload: &'a [u8],
    pub segment: FileNo,
    /// What seeds the checksums of the segment's records, and where it starts.
    pub salt: u64,
    pub start: Position,
}

/// What recovery found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Report {
    /// Every segment that holds something, with its start and end in journal order; from now on
    /// they are sealed.
    pub ends: Vec<(FileNo, Position, Position)>,
    /// Announced segments that hold nothing (their files may be missing): to be dropped.
    pub unused: Vec<FileNo>,
    /// Where the journal ends, and the next segment starts.
    pub end: Position,
    /// Up to where it is known to be durable: to its end, unless nothing was to be written.
    pub durable: Position,
    /// Batches.
    pub records: u64,
    /// Bytes of valid records, headers and marks included.
    pub bytes: u64,
    pub torn: Option<Torn>,
    /// Bytes written again.
    pub persisted: u64,
}

/// A tail that was never made durable, and was dropped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Torn {
    pub segment: FileNo,
    pub path: PathBuf,
    /// Where the valid records end.
    pub offset: u64,
    /// An estimate of how much was there.
    pub bytes: u64,
}

type Visit<'v> = dyn FnMut(Replayed) -> Result<()> + 'v;

/// Reads the journal, handing every batch to `visit` in order. After an error, what was visited
/// counts for nothing.
pub(crate) fn recover(input: Recover, visit: &mut Visit) -> Result<Report> {
    let mut chain = Chain::new(&input, visit);
    chain.sealed()?;
    let loose = chain.unsealed()?;
    let end = chain.end;
    let tail = chain.tail()?;
    let (witness, later) = loose.witness(&input, end)?;
    let vouched = [input.durable, input.hint.unwrap_or_default(), tail.seen.watermark, witness];
    let vouched = vouched.into_iter().max().unwrap_or_default();
    if vouched > end && !Mutant::BadRecordIsTail.on() {
        return Err(damage(&input, &tail, &loose, (end, vouched), chain.last_seq));
    }
    let torn = torn(&input, &tail, &loose, later)?;
    let Chain { parts, watermark, records, bytes, .. } = chain;
    let mut persisted = 0;
    if input.persist && !Mutant::TrustPageCache.on() {
        for part in parts.iter().filter(|p| p.end > watermark) {
            persisted += persist(&input, part, watermark)?;
        }
    }
    let durable = if input.persist { end } else { vouched.max(watermark).min(end) };
    let ends = parts.iter().map(|p| (p.no, p.start, p.end)).collect();
    let mut unused: Vec<FileNo> =
        loose.lost.iter().map(|(no, _)| *no).chain(loose.blank.iter().map(|b| b.no)).collect();
    unused.sort();
    Ok(Report { ends, unused, end, durable, records, bytes, torn, persisted })
}

/// A segment of the chain.
struct Part {
    no: FileNo,
    start: Position,
    end: Position,
    /// `None`: sealed before, and so durable.
    header: Option<SegmentHeader>,
    /// Offsets of some of its records, one in each piece.
    places: Vec<u64>,
}

/// The journal as far as it has been read.
struct Chain<'a, 'v> {
    input: &'a Recover<'a>,
    visit: &'a mut Visit<'v>,
    parts: Vec<Part>,
    end: Position,
    /// The highest position that the manifest or anything read so far says was synced.
    watermark: Position,
    last_seq: Seq,
    records: u64,
    bytes: u64,
}

/// What follows the end of the chain in its last segment.
#[derive(Default)]
struct Tail {
    segment: Option<FileNo>,
    offset: u64,
    /// Nothing looks as if it was written there in this life of the segment.
    blank: bool,
    seen: Remains,
}

/// Segments that are announced and not part of the chain.
struct Loose {
    /// With a header, so activated, but nothing leads to them.
    lost: Vec<(FileNo, SegmentHeader)>,
    /// Without a valid header.
    blank: Vec<Blank>,
    /// The bytes of all segments that are not sealed.
    bytes: u64,
}

struct Blank {
    no: FileNo,
    salt: u64,
    /// Bytes stand where the header should, and are not that of an earlier life.
    dirty: bool,
}

impl<'a, 'v> Chain<'a, 'v> {
    fn new(input: &'a Recover<'a>, visit: &'a mut Visit<'v>) -> Chain<'a, 'v> {
        let watermark = input.durable.max(input.start);
        let (parts, end, last_seq) = (Vec::new(), Position(0), Seq::ZERO);
        Chain { input, visit, parts, end, watermark, last_seq, records: 0, bytes: 0 }
    }

    /// Reads the segments whose start and end the manifest names.
    fn sealed(&mut self) -> Result<()> {
        let input = self.input;
        let sealed = input.segments.iter().filter_map(|s| Some((s.no, s.salt, s.sealed?)));
        let mut sealed: Vec<_> = sealed.filter(|(.., (start, end))| start != end).collect();
        sealed.sort_by_key(|(.., range)| *range);
        for (no, salt, (start, end)) in sealed {
            let path = Name::Journal(no).path(input.dir);
            let broken = |why: String, offset| Err(Error::corruption(why).at(&path, offset));
            let len = end.0.saturating_sub(start.0);
            if start < self.end || len < DATA_START {
                return broken(format!("the manifest gives it the positions {start} to {end}"), 0);
            }
            let Some(mut reader) = open(input, no)? else {
                return Err(Error::corruption("a sealed journal segment is missing").in_file(&path));
            };
            let Some(header) = header(input, (no, salt), &mut reader)? else {
                return broken("the header of a sealed journal segment is not valid".into(), 0);
            };
            if header.start != start {
                let why =
                    format!("the segment starts at position {}, sealed it was at {start}", header.start);
                return broken(why, 40);
            }
            let (offset, _) = self.read(&header, &mut reader, Some(len))?;
            if offset != len {
                let (rest, last) = (len - offset, self.last_seq);
                let why = format!(
                    "a durable journal record is not valid: {rest} bytes were sealed from here on, \
                     commits after sequence number {last} are affected"
                );
                return broken(why, offset);
            }
            self.parts.push(Part { no, start, end, header: None, places: Vec::new() });
            self.end = end;
        }
        if input.start < self.end {
            let (start, end) = (input.start, self.end);
            return Err(Error::corruption(format!("the journal is sealed up to {end}, not to {start}")));
        }
        self.end = input.start;
        Ok(())
    }

    /// Reads the chain of the other segments; answers those that are not in it.
    fn unsealed(&mut self) -> Result<Loose> {
        let input = self.input;
        let (mut headers, mut blank, mut bytes) = (Vec::new(), Vec::new(), 0u64);
        for &Announced { no, salt, .. } in input.segments.iter().filter(|s| s.sealed.is_none()) {
            let Some(mut reader) = open(input, no)? else {
                blank.push(Blank { no, salt, dirty: false });
                continue;
            };
            bytes = bytes.saturating_add(reader.len());
            let found = header(input, (no, salt), &mut reader)?;
            let least = found.map_or(DATA_START, |h| h.capacity);
            if reader.len() < least {
                let why = format!("the file was cut: it had at least {least} bytes");
                return Err(Error::corruption(why).at(reader.path(), reader.len()));
            }
            match found {
                Some(header) => headers.push((no, header)),
                None => {
                    let (mut dirty, old) = (false, reader.headers()?);
                    for at in HEADERS {
                        dirty |= !reader.is_blank(at)? && old.iter().all(|(of, _)| *of != at);
                    }
                    blank.push(Blank { no, salt, dirty });
                }
            }
        }
        headers.sort_by_key(|(no, header)| (header.start, *no));
        let mut lost = headers.into_iter().peekable();
        while let Some((no, header)) = lost.next_if(|(_, h)| h.start <= self.end) {
            self.follow(no, &header)?;
        }
        let lost: Vec<_> = lost.collect();
        let follows_sealed = blank.is_empty() && self.parts.iter().all(|p| p.header.is_none());
        if let Some((no, header)) = lost.first().filter(|_| follows_sealed) {
            // Between the sealed part and this segment nothing can have been lost.
            let (start, end) = (header.start, self.end);
            let why = format!("the segment starts at position {start}, the one before it ends at {end}");
            return Err(Error::corruption(why).at(&Name::Journal(*no).path(input.dir), 40));
        }
        Ok(Loose { lost, blank, bytes })
    }

    /// Reads one more segment of the chain.
    fn follow(&mut self, no: FileNo, header: &SegmentHeader) -> Result<()> {
        let path = Name::Journal(no).path(self.input.dir);
        let broken = |why: String, offset| Err(Error::corruption(why).at(&path, offset));
        if header.start < self.end {
            let (start, end) = (header.start, self.end);
            let why = format!("the segment starts at {start}, inside the one before it, which ends at {end}");
            return broken(why, 40);
        }
        // A crash explains a segment whose predecessor lost its end, not one that names another.
        if let Some(last) = self.parts.last().filter(|p| p.header.is_some() && p.no != header.previous) {
            let (named, last) = (header.previous, last.no);
            return broken(format!("the segment names {named} as the one before it, which is {last}"), 48);
        }
        let Some(mut reader) = open(self.input, no)? else {
            return Err(Error::corruption("a journal segment vanished while it was read").in_file(&path));
        };
        self.watermark = self.watermark.max(header.durable);
        let (offset, places) = self.read(header, &mut reader, None)?;
        self.end = header.start.plus(offset);
        self.parts.push(Part { no, start: header.start, end: self.end, header: Some(*header), places });
        Ok(())
    }

    /// Reads the records of one segment, up to `stop` if that is given; answers the offset where
    /// the valid ones end, and those of some.
    fn read(
        &mut self,
        header: &SegmentHeader,
        reader: &mut Reader,
        stop: Option<u64>,
    ) -> Result<(u64, Vec<u64>)> {
        let path = reader.path().to_path_buf();
        let (mut offset, mut places) = (DATA_START, Vec::new());
        while stop != Some(offset) {
            let Some(record) = reader.record(header.salt, offset)? else { break };
            let next = offset + record.whole.len() as u64;
            if !header.allows(offset, &record.header) || stop.is_some_and(|stop| next > stop) {
                break;
            }
            let meta = record.header.meta;
            if meta.kind == RecordKind::Batch {
                let last = meta.first_seq.get().checked_add(u64::from(meta.count) - 1).and_then(Seq::new);
                let Some(last) = last.filter(|_| meta.first_seq > self.last_seq) else { break };
                self.last_seq = last;
                self.records += 1;
                let replayed = Replayed {
                    position: header.start.plus(offset),
                    end: header.start.plus(next),
                    first_seq: meta.first_seq,
                    count: meta.count,
                    payload: record.payload,
                    segment: header.no,
                    salt: header.salt,
                    start: header.start,
                };
                (self.visit)(replayed).map_err(|e| e.at(&path, offset))?;
            }
            self.watermark = self.watermark.max(Position(meta.watermark));
            self.bytes += next - offset;
            if places.last().is_none_or(|last| last + PLACES <= offset) {
                places.push(offset);
            }
            offset = next;
        }
        Ok((offset, places))
    }

    /// Looks at what stands behind the end of the last segment.
    fn tail(&self) -> Result<Tail> {
        let Some((part, header)) = self.parts.last().and_then(|p| Some((p, p.header?))) else {
            return Ok(Tail::default());
        };
        let Some(mut reader) = open(self.input, part.no)? else { return Ok(Tail::default()) };
        let offset = part.end.0.saturating_sub(part.start.0);
        let mut blank = reader.is_blank(offset)?;
        let mut seen = reader.scan(header.salt, header.start, offset)?;
        if header.reused {
            // Whatever else stands there may be from its earlier life.
            blank = seen.last.is_none();
            seen.end = seen.last.map_or(0, |last| last + HEADER_LEN as u64);
        }
        Ok(Tail { segment: Some(part.no), offset, blank, seen })
    }
}

impl Loose {
    /// The highest position that anything in these segments vouches for, and how many bytes were
    /// written to those with a header. The chain ends at `end`.
    fn witness(&self, input: &Recover, end: Position) -> Result<(Position, u64)> {
        let (mut vouched, mut bytes) = (Position(0), 0u64);
        for (no, header) in &self.lost {
            let Some(mut reader) = open(input, *no)? else { continue };
            let seen = reader.scan(header.salt, header.start, DATA_START)?;
            vouched = vouched.max(header.durable).max(seen.watermark);
            let end = if header.reused { seen.last.unwrap_or_default() } else { seen.end };
            bytes = bytes.saturating_add(end.max(DATA_START));
        }
        // One that was in use and has lost both headers; its records still know the salt.
        for Blank { no, salt, .. } in &self.blank {
            let Some(mut reader) = open(input, *no)? else { continue };
            vouched = vouched.max(reader.scan(*salt, end.plus(self.bytes), DATA_START)?.watermark);
        }
        Ok((vouched, bytes))
    }
}

/// The last edit of the manifest when the segment `no` of database `db` was first used; `None` if it
/// never was.
pub(crate) fn last_edit(fs: &dyn Fs, dir: &Path, db: u64, no: FileNo) -> Result<Option<u64>> {
    let path = Name::Journal(no).path(dir);
    let failed = |e| Error::io("opening a journal segment", &path, e);
    let headers = Reader::new(fs.open_read(&path).map_err(failed)?, &path)?.headers()?;
    Ok(headers.into_iter().find(|(_, h)| h.db == db && h.no == no).map(|(_, h)| h.last_edit))
}

/// The segment's file; `None` if it is missing.
fn open(input: &Recover, no: FileNo) -> Result<Option<Reader>> {
    let path = Name::Journal(no).path(input.dir);
    match input.fs.open_read(&path) {
        Ok(file) => Ok(Some(Reader::new(file, &path)?)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("opening a journal segment", &path, e)),
    }
}

/// The header of the segment with this number and salt; `None` if it was never written, or not wholly.
/// What no crash can leave behind is an error.
fn header(input: &Recover, name: (FileNo, u64), reader: &mut Reader) -> Result<Option<SegmentHeader>> {
    let mut found: Option<SegmentHeader> = None;
    for (at, header) in reader.headers()? {
        let broken = |why: String, field| Err(Error::corruption(why).at(reader.path(), at + field));
        if header.db != input.db {
            return broken(format!("the segment belongs to the database {:016x}", header.db), 16);
        }
        if (header.no, header.salt) != name {
            // Space that was never written may still hold what an earlier file left there.
            continue;
        }
        if header.last_edit > input.last_edit {
            let (known, last) = (header.last_edit, input.last_edit);
            return broken(format!("the manifest ends at edit {last}, but the journal saw edit {known}"), 64);
        }
        if header.durable > header.start || header.start.0.checked_add(reader.len()).is_none() {
            return broken("the positions in the segment's header cannot be".into(), 40);
        }
        if found.is_some_and(|other| other != header) {
            return broken("the two headers of the segment differ".into(), 0);
        }
        found = Some(header);
    }
    Ok(found)
}

/// The error for a journal that ends before what a witness vouches for.
fn damage(
    input: &Recover,
    tail: &Tail,
    loose: &Loose,
    (end, vouched): (Position, Position),
    last_seq: Seq,
) -> Error {
    let missing = vouched.0 - end.0;
    let why = format!(
        "the journal is damaged: it was durable up to position {vouched}, but it is valid only up to {end}, \
         {missing} bytes before; commits after sequence number {last_seq} are affected"
    );
    // Where the chain ends in blank space, the next segment is more likely the damaged one.
    let next = loose.blank.iter().map(|b| b.no).find(|no| tail.segment.is_none_or(|segment| segment < *no));
    let (no, offset) = match (tail.segment, next) {
        (Some(segment), None) => (segment, tail.offset),
        (Some(segment), _) if !tail.blank || tail.seen.last.is_some() => (segment, tail.offset),
        (_, Some(next)) => (next, 0),
        (None, None) => return Error::corruption(why).in_file(input.dir),
    };
    Error::corruption(why).at(&Name::Journal(no).path(input.dir), offset)
}

/// The report of a tail that is dropped, if there is anything to drop.
fn torn(input: &Recover, tail: &Tail, loose: &Loose, later: u64) -> Result<Option<Torn>> {
    let here = tail.seen.end.saturating_sub(tail.offset);
    let lost = loose.lost.first().map(|(no, _)| *no);
    let dirty = loose.blank.iter().find(|b| b.dirty).map(|b| b.no);
    let (segment, offset) = match tail.segment {
        Some(segment) if !tail.blank || tail.seen.last.is_some() || lost.is_some() => (segment, tail.offset),
        _ => match lost.into_iter().chain(dirty).min() {
            Some(no) => (no, 0),
            None => return Ok(None),
        },
    };
    let path = Name::Journal(segment).path(input.dir);
    Ok(Some(Torn { segment, path, offset, bytes: here.saturating_add(later) }))
}

/// Writes the part of a segment behind `from` again, as it was read, and syncs the file.
fn persist(input: &Recover, part: &Part, from: Position) -> Result<u64> {
    let Some(known) = part.header else { return Ok(0) };
    let path = Name::Journal(part.no).path(input.dir);
    let failed = |e| Error::io("writing a recovered journal tail again", &path, e);
    let changed = |offset| Error::corruption("the journal changed while it was read").at(&path, offset);
    let file = input.fs.open_write(&path).map_err(failed)?;
    let mut reader = Reader::new(file.clone(), &path)?;
    let found = header(input, (part.no, known.salt), &mut reader)?;
    let mut out = Rewrite { file: &*file, piece: Vec::new(), at: 0, written: 0 };
    let Some(header) = found.filter(|found| *found == known) else { return Err(changed(0)) };
    if from < part.start.plus(DATA_START) {
        for at in HEADERS {
            out.put(at, &header.encode()).map_err(failed)?;
        }
    }
    // Read and checked a second time: a page that was evicted in between comes back from the
    // disk, and may not be what the first reading saw.
    let before = part.places.iter().rev().find(|&&place| part.start.plus(place) <= from);
    let mut offset = before.copied().unwrap_or(DATA_START);
    while part.start.plus(offset) < part.end {
        let Some(record) = reader.record(header.salt, offset)? else { return Err(changed(offset)) };
        let next = offset + record.whole.len() as u64;
        if part.start.plus(next) > from {
            out.put(offset, record.whole).map_err(failed)?;
        }
        offset = next;
    }
    out.flush().and_then(|()| file.sync()).map_err(failed)?;
    Ok(out.written)
}

/// Gathers neighbouring writes.
struct Rewrite<'a> {
    file: &'a dyn File,
    /// Stands from offset `at` on.
    piece: Vec<u8>,
    at: u64,
    written: u64,
}

impl Rewrite<'_> {
    fn put(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if offset != self.at + self.piece.len() as u64 || self.piece.len() + bytes.len() > PIECE {
            self.flush()?;
            self.at = offset;
        }
        self.written += bytes.len() as u64;
        if bytes.len() > PIECE {
            self.at += bytes.len() as u64;
            return write_all_at(self.file, bytes, offset);
        }
        self.piece.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        write_all_at(self.file, &self.piece, self.at)?;
        self.at += self.piece.len() as u64;
        self.piece.clear();
        Ok(())
    }
}
