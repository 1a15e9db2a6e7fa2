//! Bytes that are not what was written there.

use super::*;
use crate::error::{Error, ErrorKind};
use crate::fs::fault::{Fault, FaultFs, Op, Rule};
use crate::journal::segment::SegmentHeader;
use crate::record;
use std::fmt::Debug;

/// Two segments, four groups, each made durable before the next was begun.
fn four_groups(rig: &mut Rig) {
    for group in 0..3u8 {
        if group == 2 {
            rig.rotate().unwrap();
        }
        rig.append(1, &[group; 5]).unwrap();
        rig.append(2, &[0x40 + group; 16]).unwrap();
        if group == 1 {
            rig.mark().unwrap();
        }
        rig.sync().unwrap();
    }
    rig.append(4, b"the last group").unwrap();
    rig.append(1, b"").unwrap();
    rig.sync().unwrap();
    assert_eq!(rig.announced.len(), 2);
}

/// Recovers what was damaged on purpose: it is an error, or a prefix that has everything up to
/// `floor`. Answers `None` for an error, else whether a torn tail was reported.
fn error_or_prefix(rig: &Rig, input: Recover, floor: Position, what: &dyn Debug) -> Option<bool> {
    match collect(input) {
        Err(e) => {
            assert!(e.is_corruption(), "{what:?}: {e}");
            assert!(e.file().is_some(), "{what:?}: {e}");
            None
        }
        Ok((report, got)) => {
            let all = rig.up_to(Position(u64::MAX));
            let kept = rig.up_to(floor).len();
            assert!(got.len() >= kept && all.starts_with(&got), "{what:?}: {} of {}", got.len(), all.len());
            Some(report.torn.is_some())
        }
    }
}

#[test]
fn no_flipped_bit_passes_for_data() {
    let fs = SimFs::new(0);
    let mut rig = Rig::new(&fs, Path::new("/"), Mode::Positioned, 8192 + 512);
    four_groups(&mut rig);
    let all = rig.up_to(rig.durable);
    let (mut errors, mut torn) = (0, 0);
    for no in [1, 2] {
        let file = fs.open_write(&rig.path(no)).unwrap();
        let bytes = bytes_of(rig.fs, rig.dir, Name::Journal(FileNo(no)));
        let used = bytes.iter().rposition(|&b| b != 0).unwrap() + 9;
        // Nothing looks at the rest of the header's page.
        let places = (0..84).chain((84..4180).step_by(509)).chain(8192..used);
        for bit in places.flat_map(|place| (0..8).map(move |bit| place * 8 + bit)) {
            let (place, flipped) = (bit / 8, bytes[bit / 8] ^ 1 << (bit % 8));
            write_all_at(&*file, &[flipped], place as u64).unwrap();
            let what = (no, place, bit % 8);
            let floor = rig.vouched_without(no, place..place + 1);
            match error_or_prefix(&rig, rig.input(), floor, &what) {
                None => errors += 1,
                Some(true) => torn += 1,
                Some(false) => assert_eq!(collect(rig.input()).unwrap().1, all, "{what:?}: silence"),
            }
            // With the hint nothing of what was durable can be missing.
            if bit % 3 == 0 {
                let hint = Some(rig.durable);
                error_or_prefix(&rig, Recover { hint, ..rig.input() }, rig.durable, &what);
            }
            write_all_at(&*file, &bytes[place..=place], place as u64).unwrap();
        }
    }
    assert!(errors > 1000 && torn > 500, "{errors} {torn}");
    assert_eq!(collect(rig.input()).unwrap().1, all);
}

/// Runs `check` with the bytes of segment `no` replaced, and puts them back.
fn with_bytes(rig: &Rig, no: u64, bytes: &[u8], check: impl FnOnce()) {
    let old = bytes_of(rig.fs, rig.dir, Name::Journal(FileNo(no)));
    let put = |bytes: &[u8]| {
        rig.fs.remove(&rig.path(no)).unwrap();
        write_all_at(&*rig.fs.create(&rig.path(no)).unwrap(), bytes, 0).unwrap();
    };
    put(bytes);
    check();
    put(&old);
}

#[test]
fn lost_pages_and_cut_files_do_not_pass_for_data() {
    let fs = SimFs::new(0);
    let mut rig = Rig::new(&fs, Path::new("/"), Mode::Positioned, 8192 + 512);
    four_groups(&mut rig);
    for no in [1, 2] {
        let bytes = bytes_of(rig.fs, rig.dir, Name::Journal(FileNo(no)));
        let check = |bad: &[u8], from: usize, to: usize| {
            with_bytes(&rig, no, bad, || {
                let floor = rig.vouched_without(no, from..to);
                let error = error_or_prefix(&rig, rig.input(), floor, &(no, from, to));
                assert!(error.is_none() || bad.len() == bytes.len(), "a cut file is never a crash's work");
                let hint = Some(rig.durable);
                error_or_prefix(&rig, Recover { hint, ..rig.input() }, rig.durable, &(no, from, to));
            });
        };
        for cut in (0..84).chain((84..8192).step_by(333)).chain(8192..bytes.len()) {
            check(&bytes[..cut], cut, bytes.len());
        }
        // Lost writes and sectors; header pages one at a time, and both.
        let pages = [(0, 4096), (4096, 4096), (0, 8192)];
        for (from, len) in (0..bytes.len()).step_by(512).map(|at| (at, 512)).chain(pages) {
            for fill in [0, 0xff, 1] {
                let mut bad = bytes.clone();
                bad[from..(from + len).min(bytes.len())].fill(fill);
                check(&bad, from, from + len);
            }
        }
    }
    let everything = rig.up_to(rig.durable);
    for no in [1, 2] {
        let bytes = bytes_of(rig.fs, rig.dir, Name::Journal(FileNo(no)));
        for page in [0, 4096] {
            let mut bad = bytes.clone();
            bad[page..page + 4096].fill(0);
            with_bytes(&rig, no, &bad, || assert_eq!(collect(rig.input()).unwrap().1, everything));
        }
    }
}

#[test]
fn a_segment_under_another_number_is_not_taken_for_it() {
    let fs = SimFs::new(0);
    let mut rig = Rig::new(&fs, Path::new("/"), Mode::Positioned, 8192 + 512);
    four_groups(&mut rig);
    let first = bytes_of(rig.fs, rig.dir, Name::Journal(FileNo(1)));
    let second = bytes_of(rig.fs, rig.dir, Name::Journal(FileNo(2)));
    with_bytes(&rig, 1, &second, || {
        assert_eq!(error_or_prefix(&rig, rig.input(), rig.durable, &"1 is 2"), None)
    });
    let hint = Some(rig.durable);
    with_bytes(&rig, 2, &first, || {
        assert_eq!(error_or_prefix(&rig, Recover { hint, ..rig.input() }, rig.durable, &"2 is 1"), None);
        // Nothing vouches: a segment that is reused holds an older one's bytes until it is written to.
        let (report, got) = collect(rig.input()).unwrap();
        assert_eq!(report.torn, None);
        assert_eq!((report.unused, got.len()), (vec![FileNo(2)], 4));
    });
    // Announced under a number of its own, a copy is not used either.
    write_all_at(&*fs.create(&rig.path(3)).unwrap(), &second, 0).unwrap();
    rig.announced.push(Announced { no: FileNo(3), salt: SALT + 3, sealed: None });
    let (report, got) = collect(Recover { hint, ..rig.input() }).unwrap();
    assert_eq!((report.unused, got), (vec![FileNo(3)], rig.up_to(rig.durable)));
}

/// What the rules say about one journal, two groups in each of two segments.
#[test]
fn witnesses_decide() {
    let fs = SimFs::new(0);
    let mut rig = Rig::new(&fs, Path::new("/"), Mode::Positioned, 8192 + 512);
    four_groups(&mut rig);
    let end = rig.durable;
    let all = rig.up_to(end);
    let start2 = match &collect(rig.input()).unwrap().0.ends[..] {
        [(FileNo(1), Position(0), e1), (FileNo(2), s2, e2)] if e1 == s2 && *e2 == end => *s2,
        ends => panic!("{ends:?}"),
    };
    let fails = |input: Recover, with: &str, offset: Option<u64>| {
        let e = collect(input).unwrap_err();
        assert!(e.is_corruption() && e.to_string().contains(with) && e.offset() == offset, "{e:?}");
    };
    let past = Position(end.0 + 1);
    let tail = end.0 - start2.0;
    // The manifest or the hint know more than there is.
    fails(Recover { durable: past, ..rig.input() }, "1 bytes before", Some(tail));
    fails(Recover { hint: Some(past), ..rig.input() }, "1 bytes before", Some(tail));
    assert_eq!(collect(Recover { durable: end, hint: Some(end), ..rig.input() }).unwrap().1, all);
    // The journal knows more than the manifest, or belongs elsewhere.
    fails(Recover { last_edit: 1, ..rig.input() }, "manifest ends at edit 1", Some(64));
    assert!(collect(Recover { last_edit: 2, ..rig.input() }).is_ok());
    fails(Recover { db: 1, ..rig.input() }, "belongs to the database", Some(16));
    // The first segment starts elsewhere.
    fails(Recover { start: Position(8), ..rig.input() }, "inside the one before", Some(40));
    let sealed = |e1: Position, s2: Position| {
        let one = Announced { no: FileNo(1), salt: SALT + 1, sealed: Some((Position(0), e1)) };
        [one, Announced { no: FileNo(2), salt: SALT + 2, sealed: Some((s2, end)) }]
    };
    let both = sealed(start2, start2);
    assert_eq!(collect(Recover { segments: &both, start: end, ..rig.input() }).unwrap().1, all);
    assert_eq!(
        collect(Recover { segments: &both[..1], start: start2, ..rig.input() }).unwrap().1,
        rig.up_to(start2)
    );
    fn at<'a>(rig: &'a Rig, segments: &'a [Announced], start: Position) -> Recover<'a> {
        Recover { segments, start, ..rig.input() }
    }
    // All is sealed, and something behind it is missing.
    let e = collect(Recover { hint: Some(past), ..at(&rig, &both, end) }).unwrap_err();
    assert!(e.is_corruption() && e.file() == Some(rig.dir), "{e}");
    assert!(e.to_string().contains("commits after sequence number 14 are affected"), "{e}");
    let mixed = [both[0], rig.announced[1]];
    let (report, got) = collect(Recover { segments: &mixed, start: start2, ..rig.input() }).unwrap();
    assert_eq!((report.ends.len(), got), (2, all.clone()));
    // Sealed segments hold exactly what the manifest says.
    fails(
        at(&rig, &sealed(Position(start2.0 - 8), start2), end),
        "24 bytes were sealed",
        Some(start2.0 - 32),
    );
    let over = sealed(Position(start2.0 + 8), start2);
    fails(at(&rig, &over, end), "8 bytes were sealed", Some(start2.0));
    fails(at(&rig, &sealed(Position(10), start2), end), "the manifest gives it", Some(0));
    fails(at(&rig, &sealed(start2, Position(start2.0 + 8)), end), "the segment starts at position", Some(40));
    fails(Recover { segments: &both, start: start2, ..rig.input() }, "is sealed up to", None);
    fails(Recover { segments: &both, last_edit: 1, start: end, ..rig.input() }, "manifest ends", Some(64));
    let gone = [both[0], Announced { no: FileNo(9), salt: SALT + 9, sealed: Some((end, past)) }];
    fails(at(&rig, &gone, end), "the manifest gives it", Some(0));
    let behind = Position(end.0 + 9000);
    let gone = [both[0], Announced { no: FileNo(9), salt: SALT + 9, sealed: Some((end, behind)) }];
    fails(at(&rig, &gone, behind), "segment is missing", None);
    // One that holds nothing may be missing, as may one that was never used.
    let empty = [both[0], both[1], Announced { no: FileNo(9), salt: SALT + 9, sealed: Some((end, end)) }];
    assert_eq!(collect(at(&rig, &empty, end)).unwrap().0.ends.len(), 2);
    let missing =
        [rig.announced[0], rig.announced[1], Announced { no: FileNo(9), salt: SALT + 9, sealed: None }];
    let (report, got) = collect(Recover { segments: &missing, ..rig.input() }).unwrap();
    assert_eq!((report.unused, report.torn, got), (vec![FileNo(9)], None, all));
    fails(Recover { segments: &missing, hint: Some(past), ..rig.input() }, "1 bytes before", Some(0));
}

/// Puts a header of its own over the second segment of four groups.
fn second_header(rig: &Rig, start: u64, previous: u64, durable: u64, check: impl FnOnce()) {
    let mut bytes = bytes_of(rig.fs, rig.dir, Name::Journal(FileNo(2)));
    let header = SegmentHeader::decode(&bytes).unwrap().unwrap();
    let (start, previous, durable) = (Position(start), FileNo(previous), Position(durable));
    let header = SegmentHeader { start, previous, durable, ..header }.encode();
    for at in [0, 4096] {
        bytes[at..at + header.len()].copy_from_slice(&header);
    }
    with_bytes(rig, 2, &bytes, check);
}

#[test]
fn headers_that_no_crash_can_leave_are_damage() {
    let fs = SimFs::new(0);
    let mut rig = Rig::new(&fs, Path::new("/"), Mode::Positioned, 8192 + 512);
    four_groups(&mut rig);
    let fails = |segments: &[Announced], with: &str| {
        let e = collect(Recover { segments, start: Position(0), ..rig.input() }).unwrap_err();
        assert!(e.is_corruption() && e.to_string().contains(with), "{e:?}");
    };
    let start2 = collect(rig.input()).unwrap().0.ends[1].1.0;
    let both = rig.announced.clone();
    second_header(&rig, start2, 1, start2, || assert_eq!(collect(rig.input()).unwrap().1.len(), 8));
    second_header(&rig, start2, 7, start2, || fails(&both, "names 000007 as the one before it"));
    second_header(&rig, start2 - 8, 1, 0, || fails(&both, "inside the one before it"));
    second_header(&rig, start2, 1, start2 + 8, || fails(&both, "cannot be"));
    second_header(&rig, u64::MAX - 9, 1, 0, || fails(&both, "cannot be"));
    // With the first segment sealed, nothing can be missing in between.
    let sealed =
        [Announced { no: FileNo(1), salt: SALT + 1, sealed: Some((Position(0), Position(start2))) }, both[1]];
    second_header(&rig, start2 + 8, 1, 0, || {
        let e = collect(Recover { segments: &sealed, start: Position(start2), ..rig.input() }).unwrap_err();
        assert!(e.to_string().contains("the one before it ends at"), "{e:?}");
    });
    // A version of the future.
    let mut bytes = bytes_of(rig.fs, rig.dir, Name::Journal(FileNo(2)));
    bytes[8] = 2;
    let crc = crate::record::checksum(0, 0, &bytes[..80]);
    bytes[80..84].copy_from_slice(&crc.to_le_bytes());
    with_bytes(&rig, 2, &bytes, || fails(&both, "format version 2 is not known"));
}

/// Bytes that were never made durable survive in any order, and prove nothing.
#[test]
fn a_later_part_without_an_earlier_one_is_a_torn_tail() {
    let fs = SimFs::new(0);
    let mut rig = Rig::new(&fs, Path::new("/"), Mode::Positioned, 8192 + 512);
    rig.append(1, b"synced").unwrap();
    rig.sync().unwrap();
    let durable = rig.durable;
    rig.append(1, &[1; 100]).unwrap();
    rig.append(1, &[2; 100]).unwrap();
    rig.rotate().unwrap();
    rig.append(1, &[3; 100]).unwrap();
    rig.writer.as_mut().unwrap().flush().unwrap();
    let expect = rig.up_to(durable);
    let input = || Recover { durable, hint: Some(durable), ..rig.input() };
    // The first record behind the sync is gone: in part, and wholly.
    for (fill, len) in [(0, 32), (0xee, 32), (0, 136)] {
        let mut bytes = bytes_of(rig.fs, rig.dir, Name::Journal(FileNo(1)));
        let at = durable.0 as usize;
        bytes[at..at + len].fill(fill);
        with_bytes(&rig, 1, &bytes, || {
            let (report, got) = collect(input()).unwrap();
            let torn = report.torn.unwrap();
            assert_eq!((torn.segment, torn.offset), (FileNo(1), durable.0));
            assert!(torn.bytes > 8192 + 200, "{}", torn.bytes);
            assert_eq!((report.unused, report.end, got), (vec![FileNo(2)], durable, expect.clone()));
        });
    }
    // The second segment was never written, or never made.
    let all = rig.up_to(Position(u64::MAX));
    with_bytes(&rig, 2, &[0; 8192 + 512], || {
        let (report, got) = collect(input()).unwrap();
        assert_eq!((report.unused, report.torn, got), (vec![FileNo(2)], None, all[..3].to_vec()));
    });
    assert_eq!(collect(input()).unwrap().1, all);
}

/// What a user stores may look like a record, even like one that stood in this very segment.
#[test]
fn payloads_that_look_like_records_fool_nobody() {
    let fs = SimFs::new(0);
    let mut rig = Rig::new(&fs, Path::new("/"), Mode::Positioned, 8192 + 4096);
    rig.append(1, &[7; 64]).unwrap();
    rig.sync().unwrap();
    rig.append(1, b"says that the first is durable").unwrap();
    rig.sync().unwrap();
    let durable = rig.durable;
    let bytes = bytes_of(rig.fs, rig.dir, Name::Journal(FileNo(1)));
    let copied = bytes[8192..durable.0 as usize].to_vec();
    rig.append(1, &copied).unwrap();
    rig.append(1, &[&copied[..], &copied[..]].concat()).unwrap();
    rig.sync().unwrap();
    assert_eq!(collect(rig.input()).unwrap().1, rig.up_to(rig.durable));
    // The record that carries the copies loses its header, and so does the one behind it.
    let mut bytes = bytes_of(rig.fs, rig.dir, Name::Journal(FileNo(1)));
    for (end, _) in &rig.batches[1..3] {
        bytes[end.0 as usize..][..32].fill(0xee);
    }
    with_bytes(&rig, 1, &bytes, || {
        let (report, got) = collect(Recover { durable, ..rig.input() }).unwrap();
        assert_eq!((report.end, got), (durable, rig.up_to(durable)));
        assert_eq!(report.torn.map(|t| t.offset), Some(durable.0));
    });
    // The tail of one segment stands at the same place in the next.
    rig.rotate().unwrap();
    rig.append(1, &[9; 64]).unwrap();
    rig.sync().unwrap();
    let end = (rig.durable.0 - collect(rig.input()).unwrap().0.ends[1].1.0) as usize;
    let first = bytes_of(rig.fs, rig.dir, Name::Journal(FileNo(1)));
    let mut next = bytes_of(rig.fs, rig.dir, Name::Journal(FileNo(2)));
    next[end..].copy_from_slice(&first[end..]);
    with_bytes(&rig, 2, &next, || {
        assert_eq!(collect(rig.input()).unwrap().1, rig.up_to(rig.durable));
    });
}

/// A record of its own making, valid for its place, in segment `no`.
fn plant(rig: &Rig, no: u64, offset: u64, meta: record::Meta, payload: &[u8]) {
    let mut bytes = Vec::new();
    record::encode(&mut bytes, SALT + no, offset, meta, payload);
    write_all_at(&*rig.fs.open_write(&rig.path(no)).unwrap(), &bytes, offset).unwrap();
}

#[test]
fn records_that_cannot_be_end_the_journal() {
    use record::RecordKind::{Batch, Edit, Mark, Snapshot};
    let cases: [(record::RecordKind, u64, u32, u64, &[u8]); 9] = [
        (Batch, 3, 1, 0, b"the last sequence number again"),
        (Batch, 1, 1, 0, b"one from before"),
        (Batch, 9, 0, 0, b"no operation"),
        (Batch, Seq::MAX.get(), 2, 0, b"beyond the last number"),
        (Batch, 9, 1, 20_000, b"vouches for itself"),
        (Mark, 3, 1, 0, b""),
        (Mark, 3, 0, 0, b"a mark with a payload"),
        (Edit, 9, 1, 0, b"for a manifest"),
        (Snapshot, 9, 1, 0, b"for a manifest"),
    ];
    for (kind, first, count, watermark, payload) in cases {
        let fs = SimFs::new(0);
        let mut rig = Rig::new(&fs, Path::new("/"), Mode::Positioned, 8192 + 512);
        rig.append(3, b"three").unwrap();
        rig.sync().unwrap();
        let meta = record::Meta { kind, first_seq: seq(first), count, watermark };
        plant(&rig, 1, rig.durable.0, meta, payload);
        let (report, got) = collect(rig.input()).unwrap();
        assert_eq!((report.end, got), (rig.durable, rig.up_to(rig.durable)), "{payload:?}");
        assert!(report.torn.is_some(), "{payload:?}");
    }
}

/// One record vouches, alone in a waste, wherever it stands.
#[test]
fn the_scan_finds_a_lone_witness_at_every_place() {
    for offset in (8192 + 64..8192 + 3 * 4096).step_by(8).filter(|o| o % 4096 < 64 || o % 4096 > 4000) {
        let fs = SimFs::new(0);
        let mut rig = Rig::new(&fs, Path::new("/"), Mode::Positioned, 8192 + 4 * 4096);
        rig.rotate().unwrap();
        let meta =
            record::Meta { kind: record::RecordKind::Mark, first_seq: seq(5), count: 0, watermark: 8193 };
        plant(&rig, 1, offset, meta, b"");
        let e = collect(rig.input()).unwrap_err();
        assert!(e.is_corruption() && e.offset() == Some(8192), "{offset}: {e}");
        let meta = record::Meta { watermark: 8192, ..meta };
        plant(&rig, 1, offset, meta, b"");
        assert!(collect(rig.input()).unwrap().0.torn.is_some(), "{offset}");
    }
}

/// The first segment lost its end. Its successor vouches for it in its header or in its records.
#[test]
fn a_later_segment_vouches_with_its_header_and_with_its_records() {
    for in_header in [true, false] {
        let fs = SimFs::new(0);
        let mut rig = Rig::new(&fs, Path::new("/"), Mode::Positioned, 8192 + 512);
        rig.append(1, b"first").unwrap();
        if in_header {
            rig.sync().unwrap();
            rig.rotate().unwrap();
        } else {
            rig.rotate().unwrap();
            rig.append(1, b"second").unwrap();
            rig.sync().unwrap();
            rig.mark().unwrap();
        }
        rig.sync().unwrap();
        let (report, _) = collect(rig.input()).unwrap();
        assert_eq!((report.ends.len(), report.torn), (2, None));
        let mut bytes = bytes_of(rig.fs, rig.dir, Name::Journal(FileNo(1)));
        bytes[8192..].fill(0);
        with_bytes(&rig, 1, &bytes, || {
            let e = collect(rig.input()).unwrap_err();
            assert!(e.is_corruption() && e.offset() == Some(8192), "{e}");
        });
    }
}

/// The manifest has named the salt: the records of a segment vouch for it without a header. What was
/// never durable still goes, and so does what an earlier use of the space has left there.
#[test]
fn a_segment_without_a_header_is_missed_if_it_was_durable() {
    for (synced, stale) in [(true, false), (false, false), (true, true)] {
        let fs = SimFs::new(0);
        let mut rig = Rig::new(&fs, Path::new("/"), Mode::Positioned, 8192 + 512);
        rig.append(1, b"first").unwrap();
        rig.sync().unwrap();
        rig.rotate().unwrap();
        rig.append(1, b"second").unwrap();
        if synced {
            rig.sync().unwrap();
            rig.append(1, b"vouches").unwrap();
        }
        rig.writer.as_mut().unwrap().flush().unwrap();
        let mut bytes = bytes_of(rig.fs, rig.dir, Name::Journal(FileNo(2)));
        bytes[..8192].fill(0);
        let mut announced = rig.announced.clone();
        announced[1].salt += u64::from(stale);
        with_bytes(&rig, 2, &bytes, || match collect(Recover { segments: &announced, ..rig.input() }) {
            Err(e) => {
                assert!(synced && !stale && e.is_corruption(), "{e}");
                assert_eq!((e.file(), e.offset()), (Some(Path::new("/000002.journal")), Some(0)));
            }
            Ok((report, got)) => {
                assert!(!synced || stale);
                assert_eq!((got.len(), report.unused), (1, vec![FileNo(2)]));
            }
        });
    }
}

/// What is written again: exactly what no synced witness vouches for.
#[test]
fn recovery_rewrites_the_unvouched_tail_in_order() {
    let fs = SimFs::new(0);
    let mut rig = Rig::new(&fs, Path::new("/"), Mode::Positioned, 8192 + 512);
    rig.append(1, b"first").unwrap();
    rig.sync().unwrap();
    rig.append(1, b"vouches for the first").unwrap();
    rig.rotate().unwrap();
    rig.append(1, b"third").unwrap();
    rig.sync().unwrap();
    let first = rig.batches[0].0;
    let (second, third) = (record::size(21) as u64, record::size(5) as u64);
    let headers = 2 * 84;
    let run = |rig: &Rig, durable: Position, hint: Option<Position>| {
        let ops = fs.ops() as usize;
        let (report, got) = collect(Recover { durable, hint, persist: true, ..rig.input() }).unwrap();
        assert_eq!(got, rig.up_to(rig.durable));
        (report.persisted, fs.log()[ops..].to_vec())
    };
    let all = vec![
        format!("write /000001.journal {second} bytes at {first}"),
        "sync /000001.journal".into(),
        "write /000002.journal 84 bytes at 0".into(),
        "write /000002.journal 84 bytes at 4096".into(),
        format!("write /000002.journal {third} bytes at 8192"),
        "sync /000002.journal".into(),
    ];
    assert_eq!(run(&rig, Position(0), None), (second + headers + third, all.clone()));
    // The hint was not synced itself, and does not count.
    assert_eq!(run(&rig, Position(0), Some(rig.durable)).1, all);
    let start2 = first.plus(second);
    assert_eq!(run(&rig, start2, None), (headers + third, all[2..].to_vec()));
    assert_eq!(run(&rig, start2.plus(8192), None), (third, all[4..].to_vec()));
    assert_eq!(run(&rig, rig.durable, None), (0, vec![]));
    // A mark vouches for everything below it, but not for itself.
    let end = rig.durable.0 - start2.0;
    rig.mark().unwrap();
    rig.sync().unwrap();
    let mark = vec![format!("write /000002.journal 32 bytes at {end}"), "sync /000002.journal".into()];
    assert_eq!(run(&rig, Position(0), None), (32, mark));
}

/// A bit that flips on the way from the disk, in any read of recovery: with the hint it is an
/// error or does no harm, and what is written again is right in either case.
#[test]
fn bits_flipped_while_reading_are_noticed() {
    let disk = SimFs::new(0);
    let mut rig = Rig::new(&disk, Path::new("/"), Mode::Positioned, 8192 + 512);
    four_groups(&mut rig);
    let hint = Some(rig.durable);
    let all = rig.up_to(rig.durable);
    let fs = FaultFs::new(Arc::new(disk.clone()));
    collect(Recover { fs: &fs, hint, persist: true, ..rig.input() }).unwrap();
    let reads = fs.count(Op::Read);
    let mut errors = 0;
    for nth in 1..=reads {
        for bit in (0..84 * 8).step_by(41).chain((8192 * 8..8704 * 8).step_by(37)) {
            fs.clear();
            fs.fail(Rule { op: Op::Read, nth, kind: Fault::FlipBit(bit), forever: false });
            match collect(Recover { fs: &fs, hint, persist: true, ..rig.input() }) {
                Ok((_, got)) => assert_eq!(got, all, "{nth} {bit}"),
                Err(e) => {
                    assert!(e.is_corruption(), "{e}");
                    errors += 1;
                }
            }
        }
    }
    assert!(errors > 100, "{errors}");
    assert_eq!(collect(Recover { hint, ..rig.input() }).unwrap().1, all);
}

/// Any operation of recovery fails: an error, and the next attempt goes as if nothing had been.
#[test]
fn recovery_can_fail_anywhere_and_be_tried_again() {
    for kind in [Fault::Io, Fault::IoAfter, Fault::Full, Fault::Short, Fault::Interrupted] {
        let disk = SimFs::new(0);
        let mut rig = Rig::new(&disk, Path::new("/"), Mode::Positioned, 8192 + 512);
        four_groups(&mut rig);
        rig.append(1, b"never synced").unwrap();
        rig.writer.as_mut().unwrap().flush().unwrap();
        let all = rig.up_to(Position(u64::MAX));
        let fs = FaultFs::new(Arc::new(disk.clone()));
        let run = || collect(Recover { fs: &fs, persist: true, ..rig.input() });
        let report = run().unwrap().0;
        let mut errors = 0;
        for nth in 1..=fs.count(Op::Any) {
            fs.clear();
            fs.fail(Rule { op: Op::Any, nth, kind, forever: false });
            match run() {
                Ok((again, got)) => assert_eq!((&again, &got), (&report, &all), "{kind:?} {nth}"),
                Err(e) => {
                    assert!(matches!(e.kind(), ErrorKind::Io | ErrorKind::DiskFull), "{kind:?} {nth}: {e:?}");
                    errors += 1;
                }
            }
        }
        assert!(errors > 10 || kind == Fault::Short, "{errors}");
        fs.clear();
        assert_eq!(run().unwrap(), (report, all));
    }
}

/// What the caller makes of a batch is its own; where it stood is added to the error.
#[test]
fn an_error_of_the_visitor_stops_recovery_and_gets_a_place() {
    let fs = SimFs::new(0);
    let mut rig = Rig::new(&fs, Path::new("/"), Mode::Positioned, 8192 + 512);
    four_groups(&mut rig);
    let mut seen = 0;
    let result = recover(rig.input(), &mut |r| {
        seen += 1;
        if seen == 2 { Err(Error::corruption(format!("refused {}", r.first_seq))) } else { Ok(()) }
    });
    let e = result.unwrap_err();
    assert_eq!((seen, e.offset(), e.file()), (2, Some(8192 + 40), Some(&*rig.path(1))));
    assert!(e.to_string().starts_with("refused 2"), "{e}");
}

/// Whatever is thrown together: an error or a prefix, never a panic, never wrong data.
#[test]
fn pieces_thrown_together_never_pass_for_data() {
    let fs = SimFs::new(0);
    let mut rig = Rig::new(&fs, Path::new("/"), Mode::Positioned, 8192 + 512);
    four_groups(&mut rig);
    let old: Vec<_> = [1, 2].map(|no| bytes_of(rig.fs, rig.dir, Name::Journal(FileNo(no)))).into();
    let mut x = 7u64;
    let mut random = |n: usize| {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (x >> 33) as usize % n
    };
    // Mostly where something stands.
    let place = |random: &mut dyn FnMut(usize) -> usize| match random(4) {
        0 => random(84),
        1 => 4096 + random(84),
        _ => 8192 + random(400),
    };
    let mut outcomes = [0; 2];
    for round in 0..1500 {
        let mut new = old.clone();
        for _ in 0..1 + random(4) {
            let (from, to) = (random(2), random(2));
            let (at, len) = (place(&mut random), 1 + random(100));
            match random(4) {
                0 => new[to][at] = random(256) as u8,
                1 => new[to][at..at + len].fill([0, 0xff, 1][random(3)]),
                2 => {
                    let piece = old[from][at..at + len].to_vec();
                    let aligned = place(&mut random) / 8 * 8 + at % 8;
                    new[to][aligned..aligned + len].copy_from_slice(&piece);
                }
                _ => new[to].truncate(at.max(random(9000))),
            }
            new[to].resize(8192 + 512, 0);
        }
        for (no, bytes) in [1, 2].into_iter().zip(&new) {
            write_all_at(&*fs.open_write(&rig.path(no)).unwrap(), bytes, 0).unwrap();
            assert!(dump(&bytes[..random(bytes.len())]).starts_with("# journal segment"));
        }
        let result = error_or_prefix(&rig, rig.input(), Position(0), &round);
        outcomes[usize::from(result.is_none())] += 1;
    }
    assert!(outcomes[0] > 100 && outcomes[1] > 100, "{outcomes:?}");
}
