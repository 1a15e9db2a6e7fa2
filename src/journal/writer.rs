//! Appends records to the active segment, by position or through a window.

use crate::error::{Error, Result};
use crate::fs::{Window, write_all_at};
use crate::ids::{FileNo, Position, Seq};
use crate::journal::segment::{DATA_START, HEADERS, Segment, SegmentHeader};
use crate::record::{self, ALIGN, HEADER_LEN, MAX_PAYLOAD, Meta, RecordKind};
use std::sync::Arc;

/// A payload from here on is written from where it lies instead of being gathered.
const LARGE: usize = 64 << 10;
/// The gathering buffer is written when it has grown to this, and keeps no more between flushes.
const KEEP: usize = 1 << 20;
/// A record up to this size is built whole and stored at once.
const SMALL: usize = 4 << 10;
/// Pages of a window are made ready this far ahead.
const STEP: u64 = 256 << 10;

/// How records reach the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// Gathered, and written by [`Writer::flush`] with one call.
    Positioned,
    /// Stored through a window as they come, where the file system has windows; else as above.
    Mapped,
}

/// What the header of a segment says when it is first used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ActivationInfo {
    pub db: u64,
    /// Where the segment before it ended.
    pub start: Position,
    /// The segment before it; 0 if it is the first of all.
    pub previous: FileNo,
    /// A position known durable.
    pub durable: Position,
    /// The last durable edit of the manifest.
    pub last_edit: u64,
}

/// Appends to the active segment.
///
/// What it appends survives power loss once the segment's file was synced after the flush. Once the
/// next segment is activated, which starts at [`Writer::end`], nothing more is appended here.
/// After an error in the middle of a write nobody knows what stands in the file: from then on
/// every call answers that error. A batch that does not fit, or pages that cannot be made ready,
/// change nothing and leave the writer usable.
pub(crate) struct Writer {
    segment: Arc<Segment>,
    start: Position,
    salt: u64,
    /// The offset behind the last record.
    end: u64,
    vouched: Position,
    last_seq: Seq,
    sink: Sink,
    failed: Option<Error>,
}

enum Sink {
    /// What is gathered stands from offset `at` on.
    Gather { buf: Vec<u8>, at: u64 },
    Window {
        window: Box<dyn Window>,
        populated: u64,
        /// Where small records are built.
        record: Vec<u8>,
    },
}

impl Writer {
    /// Writes the header of `segment`. After an error the segment is not used again.
    pub fn activate(segment: Arc<Segment>, info: ActivationInfo, mode: Mode) -> Result<Writer> {
        let ActivationInfo { db, start, previous, durable, last_edit } = info;
        if start.0.checked_add(segment.capacity()).is_none() {
            return Err(Error::invalid("the journal's positions are used up"));
        }
        let durable = durable.min(start);
        let (no, capacity, salt) = (segment.no(), segment.capacity(), segment.salt());
        let reused = segment.is_reused();
        let header = SegmentHeader { db, no, salt, start, previous, durable, last_edit, capacity, reused };
        let mut first = [0; DATA_START as usize];
        let header = header.encode();
        for at in HEADERS.map(|at| at as usize) {
            first[at..at + header.len()].copy_from_slice(&header);
        }

        let window = match mode {
            Mode::Positioned => None,
            // Whatever a mapping fails for, positioned writes go on, and report what is truly wrong.
            Mode::Mapped => segment.file().window(segment.capacity()).ok().flatten(),
        };
        let sink = match window {
            Some(window) => Sink::Window { window, populated: 0, record: Vec::with_capacity(SMALL) },
            None => Sink::Gather { buf: Vec::new(), at: DATA_START },
        };
        let last_seq = Seq::ZERO;
        let mut writer =
            Writer { segment, start, salt, end: DATA_START, vouched: durable, last_seq, sink, failed: None };
        if writer.make_ready(DATA_START).is_err() {
            writer.sink = Sink::Gather { buf: Vec::new(), at: DATA_START };
        }
        let result = match &mut writer.sink {
            Sink::Gather { .. } => write_all_at(&**writer.segment.file(), &first, 0),
            Sink::Window { window, .. } => window.write(0, &first),
        };
        result.map_err(|e| Error::io("activating a journal segment", writer.segment.path(), e).for_good())?;
        Ok(writer)
    }

    /// What must not be done: goes on in a recovered segment.
    #[cfg(esker_mutants)]
    pub fn resume(
        fs: &dyn crate::fs::Fs,
        dir: &std::path::Path,
        no: FileNo,
        end: Position,
    ) -> Result<Writer> {
        let (segment, header) = Segment::reopen(fs, dir, no)?;
        let SegmentHeader { salt, start, durable: vouched, .. } = header;
        let end = end.0 - start.0;
        let (sink, last_seq) = (Sink::Gather { buf: Vec::new(), at: end }, Seq::ZERO);
        Ok(Writer { segment: Arc::new(segment), start, salt, end, vouched, last_seq, sink, failed: None })
    }

    /// Whether a batch with a payload of `len` bytes fits, and one mark behind it.
    #[inline]
    pub fn fits(&self, len: usize) -> bool {
        len <= MAX_PAYLOAD
            && self.end + record::size(len) as u64 + HEADER_LEN as u64 <= self.segment.capacity()
    }

    /// Appends a batch; answers the position of its record. By position, it is in the file only
    /// after [`Writer::flush`].
    pub fn append(
        &mut self,
        first_seq: Seq,
        count: u32,
        payload: &[u8],
        durable: Position,
    ) -> Result<Position> {
        self.check()?;
        // Recovery would take such a record for damage.
        let last = first_seq.get() + u64::from(count.max(1)) - 1;
        let Some(last) = Seq::new(last).filter(|_| count > 0 && first_seq > self.last_seq) else {
            return Err(Error::invalid("sequence numbers of batches must ascend"));
        };
        if !self.fits(payload.len()) {
            return Err(Error::invalid("the batch does not fit the journal segment"));
        }
        let position = self.put(RecordKind::Batch, first_seq, count, payload, durable)?;
        self.last_seq = last;
        Ok(position)
    }

    /// Appends a record that says nothing but that everything below `durable` is durable.
    pub fn mark(&mut self, durable: Position) -> Result<()> {
        self.check()?;
        if self.end + HEADER_LEN as u64 > self.segment.capacity() {
            return Err(Error::invalid("a mark does not fit the journal segment"));
        }
        self.put(RecordKind::Mark, self.last_seq, 0, &[], durable).map(|_| ())
    }

    /// Hands what was gathered to the file; does nothing where records are stored as they come.
    pub fn flush(&mut self) -> Result<()> {
        self.check()?;
        let Sink::Gather { buf, at } = &mut self.sink else { return Ok(()) };
        if buf.is_empty() {
            return Ok(());
        }
        if let Err(e) = write_all_at(&**self.segment.file(), buf, *at) {
            return Err(self.poison(Error::io("writing the journal", self.segment.path(), e)));
        }
        *at += buf.len() as u64;
        buf.clear();
        buf.shrink_to(KEEP);
        Ok(())
    }

    /// Whether no batch was appended to this segment.
    pub fn is_empty(&self) -> bool {
        self.last_seq == Seq::ZERO
    }

    /// The position behind the last record.
    #[inline]
    pub fn end(&self) -> Position {
        self.start.plus(self.end)
    }

    /// The highest watermark in the header or any record of this segment, gathered ones included.
    #[inline]
    pub fn vouched(&self) -> Position {
        self.vouched
    }

    pub fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    #[inline]
    fn check(&self) -> Result<()> {
        match &self.failed {
            None => Ok(()),
            Some(e) => Err(e.clone()),
        }
    }

    #[cold]
    fn poison(&mut self, e: Error) -> Error {
        self.failed.get_or_insert(e.for_good()).clone()
    }

    /// The caller has checked that there is room.
    fn put(
        &mut self,
        kind: RecordKind,
        first_seq: Seq,
        count: u32,
        payload: &[u8],
        durable: Position,
    ) -> Result<Position> {
        let offset = self.end;
        let position = self.start.plus(offset);
        debug_assert!(durable <= position);
        let durable = durable.min(position);
        let next = offset + record::size(payload.len()) as u64;
        self.make_ready(next)?;
        let meta = Meta { kind, first_seq, count, watermark: durable.0 };
        let header = record::encode_header(self.salt, offset, meta, payload);
        self.store(offset, &header, payload)?;
        self.end = next;
        self.vouched = self.vouched.max(durable);
        Ok(position)
    }

    #[inline]
    fn store(&mut self, offset: u64, header: &[u8; HEADER_LEN], payload: &[u8]) -> Result<()> {
        let padding = &[0; ALIGN][..record::size(payload.len()) - HEADER_LEN - payload.len()];
        let written = match &mut self.sink {
            Sink::Gather { buf, at } if payload.len() < LARGE => {
                buf.reserve(record::size(payload.len()));
                buf.extend_from_slice(header);
                buf.extend_from_slice(payload);
                buf.extend_from_slice(padding);
                if buf.len() < KEEP {
                    return Ok(());
                }
                // Whoever submits without waiting could gather any amount.
                let written = write_all_at(&**self.segment.file(), buf, *at);
                *at += buf.len() as u64;
                buf.clear();
                written
            }
            Sink::Gather { buf, at } => {
                buf.extend_from_slice(header);
                let file = &**self.segment.file();
                let behind = *at + buf.len() as u64;
                let written = write_all_at(file, buf, *at).and_then(|()| write_all_at(file, payload, behind));
                *at = behind + payload.len() as u64;
                buf.clear();
                buf.extend_from_slice(padding);
                written
            }
            Sink::Window { window, record, .. } if record::size(payload.len()) <= SMALL => {
                record.clear();
                record.extend_from_slice(header);
                record.extend_from_slice(payload);
                record.extend_from_slice(padding);
                window.write(offset, record)
            }
            Sink::Window { window, .. } => {
                let behind = offset + HEADER_LEN as u64;
                let padding_at = behind + payload.len() as u64;
                window.write(offset, header).and_then(|()| window.write(behind, payload)).and_then(|()| {
                    if padding.is_empty() { Ok(()) } else { window.write(padding_at, padding) }
                })
            }
        };
        written.map_err(|e| {
            let e = Error::io("writing the journal", self.segment.path(), e);
            self.poison(e)
        })
    }

    /// Makes the pages of a window ready up to `end` and a step beyond.
    #[inline]
    fn make_ready(&mut self, end: u64) -> Result<()> {
        match &mut self.sink {
            Sink::Window { window, populated, .. } if end > *populated => {
                let to = end.next_multiple_of(STEP).min(self.segment.capacity());
                let made = window.populate(*populated, to - *populated);
                made.map_err(|e| Error::io("making journal pages ready", self.segment.path(), e))?;
                *populated = to;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
