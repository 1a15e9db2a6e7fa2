//! The writer: what it refuses, what it leaves behind when it fails, what it asks of the disk.

use super::*;
use crate::error::ErrorKind;
use crate::fs::fault::{Fault, FaultFs, Op, Rule};
use crate::journal::segment::DATA_START;
use crate::record;

fn fault_fs() -> (FaultFs, SimFs) {
    let disk = SimFs::new(0);
    (FaultFs::new(Arc::new(disk.clone())), disk)
}

fn rule(op: Op, nth: u64, kind: Fault) -> Rule {
    Rule { op, nth, kind, forever: false }
}

#[test]
fn what_does_not_fit_or_ascend_is_refused_and_harms_nothing() {
    for mode in MODES {
        let fs = SimFs::new(0);
        let capacity = Segment::capacity_for(100);
        assert!(Segment::create(&fs, Path::new("/"), FileNo(7), Segment::capacity_for(0) - 1, SALT).is_err());
        let mut rig = Rig::new(&fs, Path::new("/"), mode, capacity);
        rig.rotate().unwrap();
        let w = rig.writer.as_mut().unwrap();
        assert_eq!((w.end(), w.vouched()), (Position(DATA_START), Position(0)));
        assert!(w.fits(100) && !w.fits(105) && !w.fits(usize::MAX >> 1));
        let refused = |w: &mut Writer, first, count, payload: &[u8]| {
            let e = w.append(first, count, payload, Position(0)).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Invalid);
        };
        refused(w, seq(1), 1, &[0; 105]);
        refused(w, seq(0), 1, b"");
        refused(w, seq(1), 0, b"");
        refused(w, Seq::MAX, 2, b"");
        w.append(seq(5), 2, &[1; 48], Position(0)).unwrap();
        refused(w, seq(6), 1, b"");
        w.append(seq(7), 1, b"", Position(0)).unwrap();
        // Full; the reserve is there for one mark, and only one.
        assert!(!w.fits(0));
        let end = w.end();
        w.mark(end).unwrap();
        assert_eq!((w.end(), w.vouched()), (end.plus(32), end));
        assert_eq!(w.mark(end).unwrap_err().kind(), ErrorKind::Invalid);
        w.flush().unwrap();
        let end = w.end();
        let (report, got) = collect(rig.input()).unwrap();
        assert_eq!(got, [(5, 2, vec![1; 48]), (7, 1, vec![])]);
        assert_eq!((report.end, report.torn), (end, None));
    }
}

#[test]
fn old_bytes_in_the_reserved_space_do_not_matter() {
    for mode in MODES {
        let fs = SimFs::new(0);
        let dir = Path::new("/");
        let segment = Arc::new(Segment::create(&fs, dir, FileNo(1), 1 << 20, SALT + 1).unwrap());
        write_all_at(&**segment.file(), &[0xee; 1 << 20], 0).unwrap();
        let zero = Position(0);
        let info = ActivationInfo { db: DB, start: zero, previous: FileNo(0), durable: zero, last_edit: 0 };
        let mut w = Writer::activate(segment, info, mode).unwrap();
        let mut expect = Vec::new();
        let large = 64 << 10;
        let lens = [0, 1, 7, 8, 9, 100, large - 1, large, large + 1, 3, 2 * large + 5, large + 8, 6];
        for (i, len) in lens.into_iter().enumerate() {
            let payload = vec![i as u8 + 1; len];
            let first = seq(i as u64 + 1);
            let end = w.end();
            assert_eq!(w.append(first, 1, &payload, zero).unwrap(), end);
            assert_eq!(w.end().0 - end.0, record::size(len) as u64);
            if i % 3 == 0 {
                w.mark(end).unwrap();
            }
            if i % 4 == 0 {
                w.flush().unwrap();
            }
            expect.push((first.get(), 1, payload));
        }
        w.flush().unwrap();
        let segments = [Announced { no: FileNo(1), salt: SALT + 1, sealed: None }];
        let (hint, start, durable) = (None, zero, zero);
        for persist in [false, true] {
            let (fs, segments) = (&fs, &segments[..]);
            let input = Recover { fs, dir, db: DB, segments, durable, hint, last_edit: 0, start, persist };
            let (report, got) = collect(input).unwrap();
            assert!(got == expect && report.end == w.end());
            // The old bytes behind the end look like a torn tail.
            assert_eq!(report.torn.map(|t| t.offset), Some(w.end().0));
        }
    }
}

#[test]
fn after_a_failed_write_nothing_more_is_written() {
    for (mode, op) in [(Mode::Positioned, Op::Write), (Mode::Mapped, Op::Store)] {
        for kind in [Fault::Io, Fault::IoAfter, Fault::Full] {
            for nth in [1, 2, 3, 4, 5, 8] {
                let (fs, disk) = fault_fs();
                let mut rig = Rig::new(&fs, Path::new("/"), mode, 256 << 10);
                rig.rotate().unwrap();
                fs.fail(rule(op, nth, kind));
                let (mut failed, mut tried) = (None, Vec::new());
                for i in 0..6u32 {
                    let len = if i % 3 == 2 { 65 << 10 } else { 10 };
                    let payload = vec![i as u8; len];
                    let batch = (rig.next_seq, 1, payload.clone());
                    let result = rig.append(1, &payload);
                    if failed.is_none() {
                        tried.push(batch);
                    }
                    let result = result.and_then(|()| rig.writer.as_mut().unwrap().flush());
                    match (&failed, result) {
                        (None, Ok(())) => {}
                        (None, Err(e)) => failed = Some(e),
                        (Some(first), Err(e)) => assert_eq!(e.to_string(), first.to_string()),
                        (Some(_), Ok(())) => panic!("went on"),
                    }
                }
                let failed = failed.unwrap();
                // Also where the disk was full: nothing is gained by trying again.
                assert_eq!(failed.kind(), ErrorKind::Io);
                let w = rig.writer.as_mut().unwrap();
                assert!(w.mark(Position(0)).is_err() && w.flush().is_err());
                let (_, got) = collect(Recover { fs: &disk, ..rig.input() }).unwrap();
                // Of the write that failed all may be there, or nothing.
                assert!(tried.starts_with(&got) && got.len() + 1 >= tried.len());
            }
        }
    }
}

#[test]
fn a_full_disk_shows_before_anything_is_written() {
    // At creation: the file is gone again.
    let (fs, disk) = fault_fs();
    let dir = Path::new("/");
    disk.set_capacity(Some(1 << 20));
    let e = Segment::create(&fs, dir, FileNo(1), 2 << 20, SALT).unwrap_err();
    assert_eq!((e.kind(), disk.files().len()), (ErrorKind::DiskFull, 0));
    for op in [Op::Create, Op::Allocate, Op::Sync] {
        fs.fail(rule(op, 1, Fault::Io));
        assert_eq!(Segment::create(&fs, dir, FileNo(1), 10 << 10, SALT).unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(disk.files().len(), 0, "{op:?}");
        fs.clear();
    }
    // Where pages cannot be made ready, the batch fails and the next one may succeed.
    disk.set_capacity(None);
    let mut rig = Rig::new(&fs, dir, Mode::Mapped, 1 << 20);
    rig.append(1, b"first").unwrap();
    fs.fail(rule(Op::Populate, 1, Fault::Full));
    let e = rig.append(1, &[1; 400 << 10]).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::DiskFull);
    rig.append(1, b"fits what is ready").unwrap();
    rig.append(1, &[2; 400 << 10]).unwrap();
    rig.writer.as_mut().unwrap().mark(Position(0)).unwrap();
    assert_eq!(collect(rig.input()).unwrap().1, rig.up_to(Position(u64::MAX)));
    assert_eq!(rig.batches.len(), 3);
}

#[test]
fn without_windows_it_writes_by_position() {
    for kind in [Fault::Unsupported, Fault::Io] {
        let (fs, _) = fault_fs();
        fs.fail(Rule { op: Op::Window, nth: 1, kind, forever: true });
        let mut rig = Rig::new(&fs, Path::new("/"), Mode::Mapped, 1 << 20);
        rig.append(1, b"by position").unwrap();
        rig.writer.as_mut().unwrap().flush().unwrap();
        assert_eq!(fs.count(Op::Store), 0);
        assert_eq!(collect(rig.input()).unwrap().1, rig.up_to(Position(u64::MAX)));
    }
}

#[test]
fn a_flush_is_one_write_and_a_window_needs_none() {
    let (fs, _) = fault_fs();
    let mut rig = Rig::new(&fs, Path::new("/"), Mode::Positioned, 1 << 20);
    rig.rotate().unwrap();
    let before = fs.count(Op::Write);
    for _ in 0..100 {
        rig.append(1, &[1; 150]).unwrap();
    }
    assert_eq!(fs.count(Op::Write), before);
    rig.writer.as_mut().unwrap().flush().unwrap();
    assert_eq!(fs.count(Op::Write), before + 1);
    rig.writer.as_mut().unwrap().flush().unwrap();
    assert_eq!(fs.count(Op::Write), before + 1);

    let (fs, _) = fault_fs();
    let mut rig = Rig::new(&fs, Path::new("/"), Mode::Mapped, 1 << 20);
    for _ in 0..100 {
        rig.append(1, &[1; 150]).unwrap();
    }
    rig.writer.as_mut().unwrap().flush().unwrap();
    assert_eq!((fs.count(Op::Write), fs.count(Op::Populate)), (0, 1));
}
