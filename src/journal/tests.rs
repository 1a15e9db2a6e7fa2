//! Tests of the journal as a whole.

use super::*;
use crate::error::Result;
use crate::fs::names::Name;
use crate::fs::os::OsFs;
use crate::fs::{Fs, read_exact_at};
use crate::ids::{FileNo, Position, Seq};
use std::path::Path;
use std::sync::Arc;

const DB: u64 = 0xdb;
const SALT: u64 = 0x5a17_0000;

fn seq(n: u64) -> Seq {
    Seq::new(n).unwrap()
}

/// A batch as recovery reports it: first sequence number, count, payload.
type Batch = (u64, u32, Vec<u8>);

/// A journal under test, and what its user would keep in a manifest.
struct Rig<'a> {
    fs: &'a dyn Fs,
    dir: &'a Path,
    mode: Mode,
    capacity: u64,
    announced: Vec<Announced>,
    writer: Option<Writer>,
    /// Where the next segment starts while there is no writer.
    start: Position,
    durable: Position,
    next_no: u64,
    next_seq: u64,
    batches: Vec<(Position, Batch)>,
}

impl<'a> Rig<'a> {
    fn new(fs: &'a dyn Fs, dir: &'a Path, mode: Mode, capacity: u64) -> Rig<'a> {
        Rig {
            fs,
            dir,
            mode,
            capacity,
            announced: Vec::new(),
            writer: None,
            start: Position(0),
            durable: Position(0),
            next_no: 1,
            next_seq: 1,
            batches: Vec::new(),
        }
    }

    /// Creates and activates the next segment.
    fn rotate(&mut self) -> Result<()> {
        let no = FileNo(self.next_no);
        self.next_no += 1;
        let segment = Arc::new(Segment::create(self.fs, self.dir, no, self.capacity)?);
        self.fs.sync_dir(self.dir).unwrap();
        let previous = self.writer.as_ref().map_or(FileNo(0), |w| w.segment().no());
        let start = self.writer.as_ref().map_or(self.start, |w| w.end());
        self.announced.push(Announced { no, sealed: None });
        let salt = SALT + no.0;
        let info = ActivationInfo { db: DB, salt, start, previous, durable: self.durable, last_edit: no.0 };
        self.writer = Some(Writer::activate(segment, info, self.mode)?);
        Ok(())
    }

    fn append(&mut self, count: u32, payload: &[u8]) -> Result<()> {
        if self.writer.as_ref().is_none_or(|w| !w.fits(payload.len())) {
            if let Some(w) = &mut self.writer {
                w.flush()?;
            }
            self.rotate()?;
        }
        let w = self.writer.as_mut().unwrap();
        let at = w.append(seq(self.next_seq), count, payload, self.durable)?;
        assert!(at < w.end());
        self.batches.push((w.end(), (self.next_seq, count, payload.to_vec())));
        self.next_seq += u64::from(count);
        Ok(())
    }

    /// Syncs the active segment; those before it must have been synced when they were left.
    fn sync(&mut self) -> Result<()> {
        let w = self.writer.as_mut().unwrap();
        w.flush()?;
        let end = w.end();
        w.segment().file().sync().unwrap();
        self.durable = end;
        Ok(())
    }

    fn input(&self) -> Recover<'_> {
        Recover {
            fs: self.fs,
            dir: self.dir,
            db: DB,
            segments: &self.announced,
            durable: Position(0),
            hint: None,
            last_edit: u64::MAX,
            start: Position(0),
            persist: false,
        }
    }
}

fn collect(input: Recover) -> Result<(Report, Vec<Batch>)> {
    let mut batches = Vec::new();
    let report = recover(input, &mut |r: Replayed| {
        assert!(r.position < r.end);
        batches.push((r.first_seq.get(), r.count, r.payload.to_vec()));
        Ok(())
    })?;
    assert_eq!(report.records, batches.len() as u64);
    Ok((report, batches))
}

fn bytes_of(fs: &dyn Fs, dir: &Path, name: Name) -> Vec<u8> {
    let file = fs.open_read(&name.path(dir)).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    read_exact_at(&*file, &mut bytes, 0).unwrap();
    bytes
}

const MODES: [Mode; 2] = [Mode::Positioned, Mode::Mapped];

#[test]
fn comes_back_over_several_segments() {
    for mode in MODES {
        let dir = tempfile::tempdir().unwrap();
        let mut rig = Rig::new(&OsFs, dir.path(), mode, 16 << 10);
        for i in 0..100u32 {
            rig.append(1 + i % 3, &vec![i as u8; (i * 37 % 900) as usize]).unwrap();
            if i % 10 == 9 {
                rig.sync().unwrap();
            }
        }
        rig.writer.as_mut().unwrap().flush().unwrap();
        assert!(rig.announced.len() > 2);
        let expect: Vec<Batch> = rig.batches.iter().map(|(_, b)| b.clone()).collect();
        for persist in [false, true, true] {
            let hint = Some(rig.durable);
            let (report, got) = collect(Recover { persist, hint, ..rig.input() }).unwrap();
            assert_eq!(got, expect);
            assert_eq!((report.end, report.torn), (rig.writer.as_ref().unwrap().end(), None));
            assert!(report.unused.is_empty());
            assert_eq!(report.ends.len(), rig.announced.len());
        }
    }
}
