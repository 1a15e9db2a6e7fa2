//! Reads all of the journal that is durable, and reports every place that is not what was written.
//! Changes nothing, and does not mind that the journal grows meanwhile.

use crate::batch::{self, Op};
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::fs::names::Name;
use crate::ids::{FileNo, Position, Seq};
use crate::journal::reader::{Reader, Record};
use crate::journal::recover::Announced;
use crate::journal::segment::{DATA_START, HEADERS, SEGMENT_HEADER_LEN, SegmentHeader};
use crate::record::{self, ALIGN, HEADER_LEN, RecordKind};
use std::io;
use std::path::Path;

/// What is to be verified.
pub(crate) struct Verify<'a> {
    pub fs: &'a dyn Fs,
    pub dir: &'a Path,
    pub db: u64,
    pub segments: &'a [Announced],
    /// Where the last sealed segment ended.
    pub start: Position,
    /// The journal is durable up to here.
    pub durable: Position,
}

/// What was read.
#[derive(Default)]
pub(crate) struct Verified {
    pub segments: u64,
    pub bytes: u64,
}

/// Tells `report` of everything that is wrong. Segments that are announced may be missing or blank
/// unless something durable must be in them.
pub(crate) fn verify(input: &Verify<'_>, report: &mut dyn FnMut(Error)) -> Verified {
    let mut verified = Verified::default();
    let sealed = input.segments.iter().filter_map(|s| Some((s, s.sealed?)));
    for (announced, (start, end)) in sealed.filter(|(_, (start, end))| start != end) {
        let mut segment = match Open::new(input, announced) {
            Ok(Some(segment)) => segment,
            Ok(None) => {
                let path = Name::Journal(announced.no).path(input.dir);
                report(Error::corruption("a sealed journal segment is missing").in_file(&path));
                continue;
            }
            Err(e) => {
                report(e);
                continue;
            }
        };
        verified.segments += 1;
        match segment.header(report) {
            Ok(Some(header)) if header.start == start => {
                verified.bytes += segment.records(&header, end.0.saturating_sub(start.0), report);
            }
            Ok(Some(header)) => {
                let why =
                    format!("the segment starts at position {}, sealed it was at {start}", header.start);
                report(segment.damage(why, 40));
            }
            Ok(None) => {
                report(segment.damage("the header of a sealed journal segment is not valid".into(), 0));
            }
            Err(e) => report(e),
        }
    }
    unsealed(input, report, &mut verified);
    verified
}

/// The chain of the other segments, up to the durable end.
fn unsealed(input: &Verify<'_>, report: &mut dyn FnMut(Error), verified: &mut Verified) {
    let (mut chain, mut blank): (Vec<(SegmentHeader, Open)>, Vec<FileNo>) = Default::default();
    // Where something could not be read, what is missing may well be there.
    let mut unread = false;
    for announced in input.segments.iter().filter(|s| s.sealed.is_none()) {
        match Open::new(input, announced) {
            Ok(Some(mut segment)) => {
                // What a copy of the header lacks is told when it is known to be needed.
                match segment.header(&mut |_| {}) {
                    Ok(Some(header)) => chain.push((header, segment)),
                    Ok(None) => blank.push(announced.no),
                    Err(e) => {
                        report(e);
                        unread = true;
                    }
                }
            }
            Ok(None) => blank.push(announced.no),
            Err(e) => {
                report(e);
                unread = true;
            }
        }
    }
    chain.sort_by_key(|(header, _)| header.start);
    let starts: Vec<Position> = chain.iter().map(|(header, _)| header.start).collect();
    let (mut at, mut last) = (input.start, None);
    for (i, (header, mut segment)) in chain.into_iter().enumerate() {
        if header.start >= input.durable {
            break;
        }
        let stop = starts.get(i + 1).copied().unwrap_or(input.durable).min(input.durable);
        if header.start != at && !unread {
            let why =
                format!("the segment starts at position {}, what is before it ends at {at}", header.start);
            report(segment.damage(why, 40));
        }
        if let Err(e) = segment.header(report) {
            report(e);
        }
        if segment.reader.len() < header.capacity {
            let why = format!("the file was cut: it had at least {} bytes", header.capacity);
            report(segment.damage(why, segment.reader.len()));
        }
        verified.segments += 1;
        verified.bytes += segment.records(&header, stop.0.saturating_sub(header.start.0), report);
        (at, last) = (stop, Some(segment.no));
    }
    if at < input.durable && !unread {
        let why = format!("the journal was durable up to position {}, and ends at {at}", input.durable);
        // Most likely in the next one, whose header is gone.
        let no = blank.into_iter().find(|no| last.is_none_or(|last| last < *no)).or(last);
        let path = no.map_or(input.dir.to_path_buf(), |no| Name::Journal(no).path(input.dir));
        report(Error::corruption(why).at(&path, 0));
    }
}

/// A segment being read.
struct Open {
    no: FileNo,
    salt: u64,
    db: u64,
    reader: Reader,
}

impl Open {
    /// `None` if the file is missing.
    fn new(input: &Verify<'_>, &Announced { no, salt, .. }: &Announced) -> Result<Option<Open>> {
        let path = Name::Journal(no).path(input.dir);
        match input.fs.open_read(&path) {
            Ok(file) => Ok(Some(Open { no, salt, db: input.db, reader: Reader::new(file, &path)? })),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("opening a journal segment", &path, e)),
        }
    }

    fn damage(&self, why: String, offset: u64) -> Error {
        Error::corruption(why).at(self.reader.path(), offset)
    }

    /// The header; where one of its copies is not valid or says something else, that is reported.
    /// Fails if there may be a valid one where nothing could be read.
    fn header(&mut self, report: &mut dyn FnMut(Error)) -> Result<Option<SegmentHeader>> {
        let (mut found, mut unread) = (None, None);
        let mut missing = Vec::new();
        for at in HEADERS {
            let decoded = match self.reader.bytes(at, SEGMENT_HEADER_LEN) {
                Ok(bytes) => SegmentHeader::decode(bytes),
                Err(e) => Err(e),
            };
            match decoded {
                Ok(Some(h)) if self.is_named(&h) && found.is_none_or(|f| f == h) => {
                    found = Some(h);
                }
                Ok(_) => missing.push(at),
                Err(e) if e.is_corruption() => report(e.at(self.reader.path(), at)),
                Err(e) => unread = Some(e),
            }
        }
        match (found, unread) {
            (None, Some(e)) => return Err(e),
            (_, unread) => unread.into_iter().for_each(&mut *report),
        }
        for at in missing.into_iter().filter(|_| found.is_some()) {
            report(self.damage("a copy of the segment's header is not valid".into(), at));
        }
        Ok(found)
    }

    fn is_named(&self, header: &SegmentHeader) -> bool {
        (header.db, header.no, header.salt) == (self.db, self.no, self.salt)
    }

    /// Reads the records up to the offset `stop`; answers how many bytes that were.
    fn records(&mut self, header: &SegmentHeader, stop: u64, report: &mut dyn FnMut(Error)) -> u64 {
        let mut last_seq = Seq::ZERO;
        let mut offset = DATA_START;
        while offset < stop {
            let next = match self.reader.record(header.salt, offset) {
                Ok(Some(record)) => check(header, offset, stop, &record, &mut last_seq),
                Ok(None) => Err(Error::corruption("a durable journal record is not valid")),
                Err(e) => Err(e),
            };
            offset = match next {
                Ok(next) => next,
                Err(e) => {
                    let next = self.skip(header, offset, stop);
                    let affected = format!(
                        "{} bytes up to the next record, after sequence number {last_seq}",
                        next - offset
                    );
                    report(e.context(affected).at(self.reader.path(), offset));
                    next
                }
            };
        }
        offset
    }

    /// Where the next record begins behind one that is damaged; at most `stop`.
    fn skip(&mut self, header: &SegmentHeader, offset: u64, stop: u64) -> u64 {
        let mut at = offset;
        while at < stop {
            let found = self.reader.bytes(at, HEADER_LEN).ok();
            let found = found.and_then(|bytes| record::decode_header(header.salt, at, bytes));
            if let Some(found) = found.filter(|r| header.allows(at, r)) {
                // A header that is right says where the next one is.
                let from = if at == offset { record::size(found.len as usize) as u64 } else { 0 };
                return at.saturating_add(from).min(stop);
            }
            at += ALIGN as u64;
        }
        stop
    }
}

/// Whether a valid record may stand there; answers where it ends.
fn check(header: &SegmentHeader, offset: u64, stop: u64, record: &Record<'_>, last: &mut Seq) -> Result<u64> {
    let meta = record.header.meta;
    let next = offset + record.whole.len() as u64;
    let refuse = |why: &str| Err(Error::corruption(why));
    if !header.allows(offset, &record.header) {
        return refuse("a journal record cannot be what it says");
    }
    if next > stop {
        return refuse("a journal record reaches beyond the end");
    }
    if meta.kind == RecordKind::Batch {
        if meta.first_seq <= *last {
            return refuse("sequence numbers in the journal go back");
        }
        let mut count = 0;
        for op in batch::decode(record.payload) {
            if let (_, Op::Log(op)) = op? {
                op.check()?;
            }
            count += 1;
        }
        if count != meta.count {
            return refuse("a commit does not hold as many operations as its record says");
        }
        *last = meta.first_seq.plus(u64::from(count).saturating_sub(1));
    }
    Ok(next)
}
