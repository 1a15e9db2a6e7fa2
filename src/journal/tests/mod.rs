//! Tests of the journal as a whole.

mod crash;
mod hostile;
mod writer;

use super::*;
use crate::error::Result;
use crate::fs::names::Name;
use crate::fs::os::OsFs;
use crate::fs::sim::SimFs;
use crate::fs::{Fs, read_exact_at, write_all_at};
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
    /// Left and not synced yet.
    unsynced: Vec<Arc<Segment>>,
    /// Where the next segment starts while there is no writer.
    start: Position,
    durable: Position,
    next_no: u64,
    next_seq: u64,
    batches: Vec<(Position, Batch)>,
    /// Segment, offset and watermark of every record.
    heads: Vec<(FileNo, u64, Position)>,
    segment_start: Position,
    hint: Option<Hint>,
    /// The disk, if it is a simulated one: what follows is only kept then.
    sim: Option<&'a SimFs>,
    /// The segments that were announced after so many operations, and what was durable then.
    announcements: Vec<(u64, Vec<Announced>, Position)>,
    /// What was known durable after so many operations.
    acked: Vec<(u64, Position)>,
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
            unsynced: Vec::new(),
            start: Position(0),
            durable: Position(0),
            next_no: 1,
            next_seq: 1,
            batches: Vec::new(),
            heads: Vec::new(),
            segment_start: Position(0),
            hint: None,
            sim: None,
            announcements: Vec::new(),
            acked: Vec::new(),
        }
    }

    /// Creates and activates the next segment.
    fn rotate(&mut self) -> Result<()> {
        if let Some(w) = &mut self.writer {
            w.flush()?;
            self.unsynced.push(w.segment().clone());
        }
        let no = FileNo(self.next_no);
        self.next_no += 1;
        let salt = SALT + no.0;
        let segment = Arc::new(Segment::create(self.fs, self.dir, no, self.capacity, salt)?);
        self.fs.sync_dir(self.dir).unwrap();
        let previous = self.writer.as_ref().map_or(FileNo(0), |w| w.segment().no());
        let start = self.writer.as_ref().map_or(self.start, |w| w.end());
        self.segment_start = start;
        self.announced.push(Announced { no, salt, sealed: None });
        if let Some(sim) = self.sim {
            self.announcements.push((sim.ops(), self.announced.clone(), self.durable));
        }
        let info = ActivationInfo { db: DB, start, previous, durable: self.durable, last_edit: no.0 };
        self.writer = Some(Writer::activate(segment, info, self.mode)?);
        Ok(())
    }

    fn append(&mut self, count: u32, payload: &[u8]) -> Result<()> {
        if self.writer.as_ref().is_none_or(|w| !w.fits(payload.len())) {
            self.rotate()?;
        }
        let w = self.writer.as_mut().unwrap();
        let at = w.append(seq(self.next_seq), count, payload, self.durable)?;
        self.heads.push((w.segment().no(), at.0 - self.segment_start.0, self.durable));
        self.batches.push((w.end(), (self.next_seq, count, payload.to_vec())));
        self.next_seq += u64::from(count);
        Ok(())
    }

    fn mark(&mut self) -> Result<()> {
        let w = self.writer.as_mut().unwrap();
        self.heads.push((w.segment().no(), w.end().0 - self.segment_start.0, self.durable));
        w.mark(self.durable)
    }

    /// How far the watermarks reach if those in the bytes `lost` of segment `no` do not count.
    fn vouched_without(&self, no: u64, lost: std::ops::Range<usize>) -> Position {
        let left = self.heads.iter().filter(|(segment, offset, _)| {
            let offset = *offset as usize;
            segment.0 != no || offset + 32 <= lost.start || lost.end <= offset
        });
        left.map(|(.., watermark)| *watermark).max().unwrap_or_default()
    }

    /// Makes everything so far durable.
    fn sync(&mut self) -> Result<()> {
        let w = self.writer.as_mut().unwrap();
        w.flush()?;
        let end = w.end();
        self.sync_files(end);
        Ok(())
    }

    /// Syncs all files with something new, and takes `end` for durable.
    fn sync_files(&mut self, end: Position) {
        let active = self.writer.as_ref().unwrap().segment().clone();
        for segment in self.unsynced.drain(..).chain([active]) {
            segment.file().sync().unwrap();
        }
        self.durable = end;
        if let Some(sim) = self.sim {
            self.acked.push((sim.ops(), end));
        }
        if let Some(hint) = &mut self.hint {
            hint.store(end);
        }
    }

    fn path(&self, no: u64) -> std::path::PathBuf {
        Name::Journal(FileNo(no)).path(self.dir)
    }

    /// The batches that end at or before `position`.
    fn up_to(&self, position: Position) -> Vec<Batch> {
        self.batches.iter().filter(|(end, _)| *end <= position).map(|(_, b)| b.clone()).collect()
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

/// Holds `text` against the golden file of that name; writes it anew if asked to.
fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("ESKER_REWRITE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, golden, "{name}: if the format was meant to change, set ESKER_REWRITE=1");
}

#[test]
fn the_format_is_the_golden_one() {
    let mut dumps = Vec::new();
    for mode in MODES {
        let dir = tempfile::tempdir().unwrap();
        let mut rig = Rig::new(&OsFs, dir.path(), mode, 12 << 10);
        rig.start = Position(0x10_0000);
        rig.durable = Position(0xf_0000);
        let mut ops = crate::batch::Ops::default();
        ops.push(crate::ids::KeyspaceId(1), crate::batch::Op::Put { key: b"apple", value: b"red" });
        rig.append(1, ops.bytes()).unwrap();
        rig.append(3, &[0xaa; 24]).unwrap();
        rig.sync().unwrap();
        rig.append(2, b"after a sync").unwrap();
        rig.mark().unwrap();
        rig.writer.as_mut().unwrap().flush().unwrap();
        dumps.push(dump(&bytes_of(rig.fs, rig.dir, Name::Journal(FileNo(1)))));
    }
    assert_eq!(dumps[0], dumps[1]);
    golden("journal.txt", &dumps[0]);

    let dir = tempfile::tempdir().unwrap();
    let mut hint = Hint::open(&OsFs, dir.path(), DB, true).unwrap();
    for n in 1..=3 {
        hint.store(Position(n << 20));
    }
    golden("hint.txt", &dump_hint(&bytes_of(&OsFs, dir.path(), Name::Hint)));
}
