//! Reads the records of one segment that is known to be whole, for what is derived from them.

use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::fs::names::Name;
use crate::ids::{FileNo, Position, Seq};
use crate::journal::reader::Reader;
use crate::journal::segment::DATA_START;
use crate::record::{HEADER_LEN, RecordKind};
use std::path::Path;

/// A segment that is complete and durable.
pub(crate) struct Whole {
    pub no: FileNo,
    pub salt: u64,
    pub start: Position,
    /// How many bytes of it count.
    pub len: u64,
}

type Visit<'v> = dyn FnMut(u64, Seq, &[u8]) -> Result<()> + 'v;

/// Hands every batch to `visit`: where in the file its payload stands, its first sequence number, and the
/// payload. What is not as it was written is an error.
pub(crate) fn scan(fs: &dyn Fs, dir: &Path, db: u64, segment: &Whole, visit: &mut Visit<'_>) -> Result<()> {
    let &Whole { no, salt, start, len } = segment;
    let path = Name::Journal(no).path(dir);
    let file = fs.open_read(&path).map_err(|e| Error::io("opening a journal segment", &path, e))?;
    let mut reader = Reader::new(file, &path)?;
    let broken = |why: &str, offset| Err(Error::corruption(why).at(&path, offset));
    let named =
        |h: &crate::journal::segment::SegmentHeader| (h.db, h.no, h.salt, h.start) == (db, no, salt, start);
    let headers = reader.headers()?;
    let Some((_, header)) = headers.into_iter().find(|(_, h)| named(h)) else {
        return broken("the header of a sealed journal segment is not valid", 0);
    };
    let mut offset = DATA_START;
    while offset < len {
        let Some(record) = reader.record(salt, offset)? else {
            return broken("a durable journal record is not valid", offset);
        };
        let next = offset + record.whole.len() as u64;
        if !header.allows(offset, &record.header) || next > len {
            return broken("a journal record cannot be what it says", offset);
        }
        if record.header.meta.kind == RecordKind::Batch {
            let visited = visit(offset + HEADER_LEN as u64, record.header.meta.first_seq, record.payload);
            visited.map_err(|e| e.at(&path, offset))?;
        }
        offset = next;
    }
    Ok(())
}
