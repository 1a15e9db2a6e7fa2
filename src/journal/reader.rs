//! Reads a segment front to back through a window, trusting nothing it says.

use crate::error::{Error, Result};
use crate::fs::{File, read_exact_at};
use crate::ids::Position;
use crate::journal::segment::{DATA_START, HEADERS, SEGMENT_HEADER_LEN, SegmentHeader, allows};
use crate::mutant::Mutant;
use crate::record::{self, ALIGN, HEADER_LEN};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes read at once, unless a record is larger: at first, since most of some files is never looked at, and
/// when it goes on.
const FIRST_WINDOW: u64 = 64 << 10;
const WINDOW: u64 = 256 << 10;
/// The scan for later records skips zero space in pieces of this size.
const PIECE: usize = 4096;
/// A piece, and what a header that begins in it may have behind it, if all is zero. Comparing with
/// it is many times quicker than looking for a byte that is not.
static ZEROS: [u8; PIECE + HEADER_LEN - ALIGN] = [0; PIECE + HEADER_LEN - ALIGN];

pub(super) struct Reader {
    file: Arc<dyn File>,
    path: PathBuf,
    len: u64,
    /// From here on all was zero when the file was opened.
    written: u64,
    /// The bytes from offset `at` on.
    window: Vec<u8>,
    at: u64,
}

/// A record whose checksums hold.
pub(super) struct Record<'a> {
    pub header: record::Header,
    pub payload: &'a [u8],
    /// Header, payload and padding.
    pub whole: &'a [u8],
}

/// What a scan behind the last valid record saw.
#[derive(Clone, Copy, Default)]
pub(super) struct Remains {
    /// The highest watermark of any record header.
    pub watermark: Position,
    /// The place of the last record header, if there was any.
    pub last: Option<u64>,
    /// The offset behind the last byte that is not zero; 0 if all are.
    pub end: u64,
}

impl Reader {
    pub fn new(file: Arc<dyn File>, path: &Path) -> Result<Reader> {
        let len = file.len().map_err(|e| Error::io("asking for the length of", path, e))?;
        let written = file.data_end().map_or(len, |end| end.min(len));
        Ok(Reader { file, path: path.to_path_buf(), len, written, window: Vec::new(), at: 0 })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of the file.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The `n` bytes at `offset`, fewer at the end of the file.
    pub fn bytes(&mut self, offset: u64, n: usize) -> Result<&[u8]> {
        let left = self.len.saturating_sub(offset);
        let n = left.min(n as u64);
        let behind = self.at + self.window.len() as u64;
        if n > 0 && (offset < self.at || offset + n > behind) {
            let usual = if self.window.is_empty() { FIRST_WINDOW } else { WINDOW };
            let want = left.min(n.max(usual.min(self.written.saturating_sub(offset))));
            if want > self.window.capacity() as u64 {
                self.window = Vec::new();
                self.window.reserve_exact(want as usize);
            }
            self.window.resize(want as usize, 0);
            self.at = offset;
            if let Err(e) = read_exact_at(&*self.file, &mut self.window, offset) {
                self.window.clear();
                return Err(Error::io("reading the journal", &self.path, e));
            }
        }
        let from = offset.saturating_sub(self.at) as usize;
        Ok(self.window.get(from..from + n as usize).unwrap_or_default())
    }

    /// The valid copies of the segment's header and where they stand.
    pub fn headers(&mut self) -> Result<Vec<(u64, SegmentHeader)>> {
        let mut headers = Vec::new();
        for at in HEADERS {
            let decoded = SegmentHeader::decode(self.bytes(at, SEGMENT_HEADER_LEN)?);
            headers.extend(decoded.map_err(|e| e.at(&self.path, at))?.map(|header| (at, header)));
        }
        Ok(headers)
    }

    /// The record at `offset`; `None` if there is no valid one.
    pub fn record(&mut self, salt: u64, offset: u64) -> Result<Option<Record<'_>>> {
        if Mutant::AllocateUnbounded.on() {
            let len = crate::coding::u32_at(self.bytes(offset, HEADER_LEN)?, 8).unwrap_or_default();
            std::hint::black_box(vec![0u8; len as usize]);
        }
        let Some(header) = record::decode_header(salt, offset, self.bytes(offset, HEADER_LEN)?) else {
            return Ok(None);
        };
        let size = record::size(header.len as usize);
        if self.len.saturating_sub(offset) < size as u64 {
            return Ok(None);
        }
        let whole = self.bytes(offset, size)?;
        let body = whole.get(HEADER_LEN..).and_then(|body| body.split_at_checked(header.len as usize));
        let Some((payload, padding)) = body else { return Ok(None) };
        let valid = padding.iter().all(|&b| b == 0) && header.matches(salt, offset, payload);
        Ok(valid.then_some(Record { header, payload, whole }))
    }

    /// Whether the bytes at `offset` look never written: the first 32 are zero.
    pub fn is_blank(&mut self, offset: u64) -> Result<bool> {
        Ok(self.bytes(offset, HEADER_LEN)?.iter().all(|&b| b == 0))
    }

    /// Looks for record headers with this salt at every place from `offset` on, in a segment that
    /// starts at `start` or before. Linear in the file, whatever the headers claim.
    pub fn scan(&mut self, salt: u64, start: Position, offset: u64) -> Result<Remains> {
        let mut seen = Remains::default();
        let mut offset = offset.max(DATA_START).next_multiple_of(ALIGN as u64);
        while offset < self.written {
            let bytes = self.bytes(offset, ZEROS.len())?;
            let blank = ZEROS.get(..bytes.len()) == Some(bytes);
            if !blank && let Some(last) = bytes.iter().rposition(|&b| b != 0) {
                seen.end = offset + last as u64 + 1;
                for from in record::candidates(bytes, start.plus(offset + PIECE as u64).0) {
                    let place = offset + from as u64;
                    let found = record::decode_header(salt, place, &bytes[from..]);
                    if let Some(found) = found.filter(|r| allows(start.plus(place), r)) {
                        seen.last = Some(place);
                        seen.watermark = seen.watermark.max(Position(found.meta.watermark));
                    }
                }
            }
            offset += PIECE as u64;
        }
        Ok(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::os::OsFs;
    use crate::fs::{Fs, write_all_at};
    use crate::ids::Seq;
    use crate::record::{Meta, RecordKind};

    #[test]
    fn a_header_behind_space_that_was_never_written_is_found() {
        let dir = tempfile::tempdir().unwrap();
        // At the start of a page, across the border to one, alone at the end.
        for (i, place) in [2 << 20, (3 << 20) - 8, (1 << 20) - 24, (4 << 20) - 32].into_iter().enumerate() {
            let path = dir.path().join(i.to_string());
            let file = OsFs.create(&path).unwrap();
            file.allocate(4 << 20).unwrap();
            let watermark = 77 + i as u64;
            let meta = Meta { kind: RecordKind::Mark, first_seq: Seq::ZERO, count: 0, watermark };
            write_all_at(&*file, &record::encode_header(3, place, meta, &[]), place).unwrap();
            let mut reader = Reader::new(file, &path).unwrap();
            let seen = reader.scan(3, Position(0), DATA_START).unwrap();
            assert_eq!((seen.last, seen.watermark), (Some(place), Position(watermark)));
            assert!(place < seen.end && seen.end <= place + HEADER_LEN as u64);
        }
    }
}
