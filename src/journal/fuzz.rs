//! The fuzz target for the journal.

use super::*;
use crate::batch::{Op, Ops};
use crate::choices::{Choices, edit, hurt};
use crate::error::Result;
use crate::fs::names::Name;
use crate::fs::sim::SimFs;
use crate::fuzz::{damage, seal_record};
use crate::ids::{FileNo, KeyspaceId, Position, Seq};
use crate::journal::segment::{DATA_START, HEADERS, SEGMENT_HEADER_LEN, SegmentHeader};
use crate::record;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const DIR: &str = "/";
const DB: u64 = 0xdb;
const SALT: u64 = 0x5a17_0000;

/// A batch as recovery reports it: first sequence number, count, payload.
type Batches = Vec<(u64, u32, Vec<u8>)>;

/// What was written, and what a manifest would know of it.
struct Written {
    fs: SimFs,
    segments: Vec<Announced>,
    batches: Batches,
    durable: Position,
}

/// Records as commits and syncs write them, in one segment or a few; then they are read whole, with a
/// piece of damage, or with any contents under checksums that are right.
pub fn journal(data: &[u8]) {
    let mut input = Choices::new(data);
    let how = input.byte();
    let mut written = write(&mut input);
    match how % 4 {
        0 => written.whole(),
        1 => written.hurt(&mut input),
        2 => written.edit(&mut input),
        _ => written.replace(&mut input),
    }
}

fn path(no: FileNo) -> PathBuf {
    Name::Journal(no).path(Path::new(DIR))
}

/// A batch of so many operations.
fn payload(input: &mut Choices<'_>, count: u32) -> Vec<u8> {
    let value = match input.byte() {
        few @ 0..250 => vec![few; usize::from(few % 48)],
        _ => input.take(200).repeat(3),
    };
    let mut ops = Ops::default();
    for i in 0..count {
        ops.push(KeyspaceId(i), Op::Put { key: b"k", value: if i == 0 { &value } else { b"" } });
    }
    ops.bytes().to_vec()
}

fn write(input: &mut Choices<'_>) -> Written {
    let (fs, dir) = (SimFs::new(1), Path::new(DIR));
    let mode = *input.pick(&[Mode::Positioned, Mode::Mapped]);
    let (mut writer, mut left): (Option<Writer>, Vec<Arc<Segment>>) = (None, Vec::new());
    let mut w = Written { fs, segments: Vec::new(), batches: Vec::new(), durable: Position(0) };
    let mut seq = 1;
    for _ in 0..1 + input.below(20) {
        let call = input.byte() % 8;
        let count = 1 + u32::from(call % 5);
        let payload = payload(input, count);
        if call == 0 || writer.as_ref().is_none_or(|writer| !writer.fits(payload.len())) {
            let no = FileNo(w.segments.len() as u64 + 1);
            let capacity = Segment::capacity_for(payload.len()) + 512;
            let salt = SALT + no.0;
            let segment = Segment::create(&w.fs, dir, no, capacity, salt).expect("a good disk");
            let segment = Arc::new(segment);
            w.segments.push(Announced { no, salt, sealed: None });
            let mut before = writer.take();
            if let Some(before) = &mut before {
                before.flush().expect("a good disk");
                left.push(before.segment().clone());
            }
            let info = ActivationInfo {
                db: DB,
                start: before.as_ref().map_or(Position(0), Writer::end),
                previous: before.as_ref().map_or(FileNo(0), |w| w.segment().no()),
                durable: w.durable,
                last_edit: no.0,
            };
            writer = Some(Writer::activate(segment, info, mode).expect("a good disk"));
        }
        let Some(writer) = &mut writer else { continue };
        if call < 5 {
            let first = Seq::ZERO.plus(seq);
            writer.append(first, count, &payload, w.durable).expect("a good disk");
            w.batches.push((seq, count, payload));
            seq += u64::from(count);
        } else if call == 5 && !w.batches.is_empty() && writer.fits(0) {
            writer.mark(w.durable).expect("a good disk");
        } else {
            writer.flush().expect("a good disk");
            w.durable = writer.end();
        }
    }
    if let Some(writer) = &mut writer {
        writer.flush().expect("a good disk");
        w.durable = writer.end();
    }
    w
}

impl Written {
    fn recover(&self, hint: Option<Position>, persist: bool) -> Result<(Report, Batches)> {
        let input = Recover {
            fs: &self.fs,
            dir: Path::new(DIR),
            db: DB,
            segments: &self.segments,
            durable: Position(0),
            hint,
            last_edit: u64::MAX,
            start: Position(0),
            persist,
        };
        let mut batches = Batches::new();
        let report = recover(input, &mut |r: Replayed<'_>| {
            batches.push((r.first_seq.get(), r.count, r.payload.to_vec()));
            Ok(())
        })?;
        assert_eq!(report.records, batches.len() as u64);
        assert!(batches.windows(2).all(|w| w[0].0 + u64::from(w[0].1) <= w[1].0), "numbers ascend");
        Ok((report, batches))
    }

    fn verify(&self) -> usize {
        let (fs, dir, start) = (&self.fs, Path::new(DIR), Position(0));
        let input = Verify { fs, dir, db: DB, segments: &self.segments, start, durable: self.durable };
        let mut found = 0;
        verify(&input, &mut |e| {
            assert!(e.is_corruption(), "{e:?}");
            found += 1;
        });
        found
    }

    fn whole(&mut self) {
        for hint in [None, Some(self.durable)] {
            for persist in [false, true, false] {
                let (report, found) = self.recover(hint, persist).expect("a good journal");
                assert!(found == self.batches && report.end == self.durable && report.torn.is_none());
            }
        }
        assert_eq!(self.verify(), 0);
    }

    /// Changes the bytes of one segment, around where something stands.
    fn change(
        &self,
        input: &mut Choices<'_>,
        change: impl FnOnce(&mut Choices<'_>, &mut Vec<u8>, &[Range<usize>]),
    ) -> bool {
        let no = self.segments[input.below(self.segments.len())].no;
        let mut changed = false;
        let file = path(no);
        let damaged = self.fs.damage(&file, |bytes| {
            let used = bytes.iter().rposition(|&b| b != 0).unwrap_or(0) + 1;
            let header = |at: u64| at as usize..at as usize + SEGMENT_HEADER_LEN;
            let data = DATA_START as usize..used.max(DATA_START as usize + 8);
            let before = bytes.clone();
            change(input, bytes, &[data.clone(), header(HEADERS[0]), data, header(HEADERS[1])]);
            changed = *bytes != before;
        });
        damaged.expect("a segment");
        changed
    }

    /// One piece of damage: an error or, if nothing vouches for what is gone, a prefix.
    fn hurt(&mut self, input: &mut Choices<'_>) {
        let lost = |found: &Batches| !self.batches.starts_with(found);
        if !self.change(input, |input, bytes, hot| _ = hurt(input, bytes, hot)) {
            return self.whole();
        }
        if let Some((_, found)) = damage(self.recover(Some(self.durable), false)) {
            assert!(found == self.batches, "what the hint vouches for is lost without a word");
        } else {
            assert!(self.verify() > 0, "damage that stops recovery, and verification does not see");
        }
        if let Some((report, found)) = damage(self.recover(None, false)) {
            assert!(!lost(&found), "not a prefix");
            let (again, twice) = self.recover(None, true).expect("what was read before");
            assert!(twice == found && again.end == report.end);
            assert!(self.recover(None, false).expect("what was written again").1 == found);
        }
    }

    /// Any damage, under checksums that are right. Whatever is accepted stays what it is.
    fn edit(&mut self, input: &mut Choices<'_>) {
        let headers = input.one_in(4);
        self.change(input, |input, bytes, hot| {
            edit(input, bytes, hot);
            seal(bytes, headers);
        });
        self.stable(input);
    }

    /// Any bytes instead of the records of the last segment.
    fn replace(&mut self, input: &mut Choices<'_>) {
        let (sealed, last) = (!input.one_in(4), self.segments.len() - 1);
        let no = self.segments[last].no;
        let damaged = self.fs.damage(path(no), |bytes| {
            bytes.truncate(DATA_START as usize);
            bytes.extend_from_slice(input.rest());
            if sealed {
                seal(bytes, false);
            }
        });
        damaged.expect("a segment");
        self.stable(input);
    }

    fn stable(&self, input: &mut Choices<'_>) {
        self.verify();
        let hint = input.one_in(2).then_some(Position(input.number()));
        let Some((report, found)) = damage(self.recover(hint, false)) else { return };
        let (again, twice) = self.recover(hint, true).expect("what was read before");
        assert!(twice == found && again.end == report.end && again.torn == report.torn);
        let (again, twice) = self.recover(hint, false).expect("what was written again");
        assert!(twice == found && again.end == report.end);
    }
}

/// Makes the checksums of all records right, as far as their lengths lead, and of the headers if asked.
fn seal(bytes: &mut [u8], headers: bool) {
    for at in HEADERS.map(|at| at as usize) {
        if headers && let Some(copy) = bytes.get_mut(at..at + SEGMENT_HEADER_LEN) {
            let sum = record::checksum(0, 0, &copy[..SEGMENT_HEADER_LEN - 4]);
            copy[SEGMENT_HEADER_LEN - 4..].copy_from_slice(&sum.to_le_bytes());
        }
    }
    let header = HEADERS.iter().find_map(|&at| SegmentHeader::decode(bytes.get(at as usize..)?).ok()?);
    let Some(header) = header else { return };
    let mut at = DATA_START as usize;
    while let Some(end) = seal_record(bytes, header.salt, at) {
        at = end;
    }
}
