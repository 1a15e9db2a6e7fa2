//! The manifest's file: what comes back, and what is said of every way to damage it.

use super::{Random, edit, next, show, state};
use crate::error::Error;
use crate::fs::Fs;
use crate::fs::names::Name;
use crate::fs::os::OsFs;
use crate::ids::FileNo;
use crate::record;
use crate::version::edit::{Counters, Edit};
use crate::version::fuzz::{NO, RECORDS, SALT, Written};
use crate::version::manifest::{self, Manifest, Torn, parse};
use crate::version::state::State;
use std::path::Path;

/// Writes a manifest with a snapshot of what `before` adds up to, and these edits.
fn write(before: &[&str], edits: &[Edit]) -> Written {
    let dir = tempfile::tempdir().unwrap();
    let mut state = state(before).unwrap();
    state.saw_file(NO).unwrap();
    let mut m = Manifest::create(&OsFs, dir.path(), NO, SALT, &state).unwrap();
    let (mut states, mut ends) = (vec![state.clone()], vec![m.bytes() as usize]);
    for edit in edits {
        let counters = Counters { next_file: state.next_file.max(FileNo(1000)), ..next(&state) };
        m.append(counters, edit).unwrap();
        state.apply(counters, edit).unwrap();
        states.push(state.clone());
        ends.push(m.bytes() as usize);
    }
    let bytes = std::fs::read(Name::Manifest(NO).path(dir.path())).unwrap();
    Written { bytes, states, ends }
}

/// The same with hardly any space behind the last edit, so that it is read faster.
fn shrink(w: Written) -> Written {
    let space = w.ends[w.ends.len() - 1] + 200;
    let mut bytes = w.bytes[..RECORDS].to_vec();
    for _ in &w.ends {
        let at = bytes.len();
        let (head, payload) = record::decode(SALT, at as u64, &w.bytes[at..]).unwrap();
        let mut payload = payload.to_vec();
        payload[..8].copy_from_slice(&(space as u64).to_le_bytes());
        record::encode(&mut bytes, SALT, at as u64, head.meta, &payload);
    }
    bytes.resize(space, 0);
    Written { bytes, ..w }
}

fn small_sample() -> Written {
    shrink(sample())
}

fn sample() -> Written {
    let before = ["+k1 L0@9 7[a-c); +k1 L1@0 6[c-d); flushed k1 9; announce 3; seal 3 0 100; announce 4"];
    let edits = [
        "+k1 L0@12 9[b-..); flushed k1 12",
        "flushed k2 11; +k2 L0@11 10[x-y); seal 4 100 200; announce 5; for-logs 3; cold 11 77",
        "+k1 L1@0 7[a-c); -k1 L0 7; gone 3",
    ];
    write(&before, &edits.map(edit))
}

fn load(dir: &Path, numbers: &[u64]) -> Result<Option<manifest::Loaded>, Error> {
    let candidates: Vec<(FileNo, u64)> = numbers
        .iter()
        .map(|&n| {
            let path = Name::Manifest(FileNo(n)).path(dir);
            (FileNo(n), std::fs::metadata(path).unwrap().len())
        })
        .collect();
    manifest::load(&OsFs, dir, &candidates)
}

fn put(dir: &Path, no: u64, bytes: &[u8]) {
    std::fs::write(Name::Manifest(FileNo(no)).path(dir), bytes).unwrap();
}

#[test]
fn comes_back() {
    let w = sample();
    assert_eq!(w.bytes.len() % 4096, 0);
    let (state, torn) = parse(&w.bytes, NO).unwrap().unwrap();
    assert_eq!((&state, torn), (&w.states[3], None));
    assert_eq!(
        show(&state),
        "k1 flushed 12\nL0 age 12: 9[b-..)\nL1 age 0: 7[a-c) 6[c-d)\nk2 flushed 11\nL0 age 11: 10[x-y)\n\
         segment 4 100..200\nsegment 5\nsegment 11 of 77 bytes, cold\n"
    );
}

#[test]
fn golden() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/manifest.txt");
    let dump = manifest::dump(&sample().bytes);
    if std::env::var_os("ESKER_REWRITE").is_some() {
        std::fs::write(&path, &dump).unwrap();
    }
    assert_eq!(dump, std::fs::read_to_string(&path).unwrap(), "the manifest's format changed");
}

/// What must be said of damage in the byte `at`.
fn judge(w: &Written, at: usize, damaged: &[u8]) {
    let last = w.ends.len() - 1;
    let found = parse(damaged, NO);
    let message = format!("byte {at}: {:?}", found.as_ref().map(|f| f.as_ref().map(|(s, t)| (s.edit, t))));
    if at >= w.ends[last] {
        // Nothing was written there yet.
        let (state, torn) = found.unwrap().unwrap();
        assert!(state == w.states[last] && torn.is_some_and(|(o, _)| o == w.ends[last] as u64), "{message}");
    } else if at >= w.ends[last - 1] {
        // The last edit: no witness can tell it from one that was never acknowledged.
        let (state, torn) = found.unwrap().unwrap();
        let expect = Some(w.ends[last - 1] as u64);
        assert!(state == w.states[last - 1] && torn.map(|(o, _)| o) == expect, "{message}");
    } else {
        let (offset, error) = found.expect_err(&message);
        let starts = [0, RECORDS / 2, RECORDS].into_iter().chain(w.ends.iter().copied());
        let expect = starts.filter(|&s| s <= at).max().unwrap();
        assert!(error.is_corruption() && offset == expect as u64, "{message}");
    }
}

#[test]
fn every_flipped_bit_is_damage_or_the_last_edit() {
    let mut w = small_sample();
    let used = *w.ends.last().unwrap();
    let mut random = Random(1);
    for at in 0..used + 16 {
        // The headers' zeros are many and all alike: one bit of each byte there.
        let zeros = at < RECORDS && at % 2048 >= 64;
        for bit in if zeros { random.below(8)..8 } else { 0..8 } {
            w.bytes[at] ^= 1 << bit;
            let damaged = std::mem::take(&mut w.bytes);
            judge(&w, at, &damaged);
            w.bytes = damaged;
            w.bytes[at] ^= 1 << bit;
            if zeros {
                break;
            }
        }
    }
}

#[test]
fn zeroed_ranges_are_damage_or_the_last_edit() {
    let w = small_sample();
    let mut random = Random(2);
    for _ in 0..300 {
        let at = random.below(w.ends[2] as u64) as usize;
        let len = 1 + random.below(512.min((w.ends[2] - at) as u64)) as usize;
        let mut bytes = w.bytes.clone();
        bytes[at..at + len].fill(0);
        if bytes != w.bytes {
            // Of a longer range the first difference counts.
            let at = bytes.iter().zip(&w.bytes).position(|(a, b)| a != b).unwrap();
            judge(&w, at, &bytes);
        }
    }
}

#[test]
fn every_cut_is_noticed() {
    let w = small_sample();
    for cut in 0..w.bytes.len() {
        let found = parse(&w.bytes[..cut], NO);
        if cut < w.ends[0] + record::HEADER_LEN {
            // No edit is left to say that the snapshot was ever complete.
            assert!(matches!(found, Ok(None)), "cut {cut}");
        } else {
            let (_, error) = found.expect_err(&format!("cut {cut}"));
            assert!(error.is_corruption() && error.to_string().contains("cut short"), "{error}");
        }
    }
}

#[test]
fn cuts_are_noticed_after_the_file_has_grown() {
    let many: Vec<Edit> = (0..700).map(|i| edit(&format!("flushed k1 {}", i / 2))).collect();
    let mut edits = many;
    for (i, edit) in edits.iter_mut().enumerate() {
        // Longer edits: a table comes and goes.
        let text = match i % 2 {
            0 => "+k3 L0@1 5[aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-..); +k3 L1@1 6[a-..); flushed k3 1",
            _ => "-k3 L0 5; -k3 L1 6; flushed k3 1",
        };
        edit.changes.extend(super::edit(text).changes);
    }
    let w = write(&[], &edits);
    let (grown, end) = (w.bytes.len(), *w.ends.last().unwrap());
    assert!(grown > (64 << 10) && end > (64 << 10) && end + 100 < grown, "{grown} {end}");
    // Exactly the lengths that the file had once, too.
    let starts = [RECORDS].into_iter().chain(w.ends.iter().copied()).take(w.ends.len());
    let mut lengths: Vec<usize> =
        starts.map(|at| u64::from_le_bytes(*w.bytes[at + 32..].first_chunk().unwrap()) as usize).collect();
    lengths.dedup();
    assert!(lengths.len() > 1 && lengths.pop() == Some(grown));
    for cut in (w.ends[2]..grown).step_by(501).chain(lengths).chain([end, end + 1, grown - 1]) {
        let error = parse(&w.bytes[..cut], NO).expect_err("cut").1;
        assert!(error.is_corruption(), "cut {cut}: {error}");
    }
    assert_eq!(parse(&w.bytes, NO).unwrap().unwrap().0, *w.states.last().unwrap());
}

#[test]
fn a_creation_cut_short_anywhere_is_incomplete() {
    let w = shrink(write(&["+k1 L0@9 7[a-c); flushed k1 9"], &[]));
    let end = w.ends[0];
    let full = |bytes: &[u8]| -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        bytes.resize(w.bytes.len(), 0);
        bytes
    };
    let complete = |found: Option<(State, Torn)>| found.is_some_and(|(s, _)| s == w.states[0]);
    let mut random = Random(4);
    for cut in 0..=end {
        // In order, up to here; the rest is zeros. The last bytes of the record may be zeros too.
        let whole = w.bytes[cut..end].iter().all(|&b| b == 0);
        assert_eq!(complete(parse(&full(&w.bytes[..cut]), NO).unwrap()), whole, "cut {cut}");
        // The file has not its length yet.
        assert!(!complete(parse(&w.bytes[..cut], NO).unwrap()), "cut {cut}");
    }
    // Any of its sectors, with garbage in those that were not written.
    for _ in 0..200 {
        let mut bytes = w.bytes.clone();
        for sector in bytes.chunks_mut(512) {
            match random.below(4) {
                0 => sector.fill(0),
                1 => sector.iter_mut().for_each(|b| *b = random.below(256) as u8),
                _ => {}
            }
        }
        if let Some((state, _)) = parse(&bytes, NO).unwrap() {
            assert_eq!(state, w.states[0]);
        }
    }
    let garbage: Vec<u8> = (0..w.bytes.len()).map(|_| random.below(256) as u8).collect();
    assert!(parse(&garbage, NO).unwrap().is_none());
}

#[test]
fn one_copy_of_the_header_is_enough_where_nothing_proves_damage() {
    let w = write(&["flushed k1 9"], &[]);
    for (from, to) in [(0, 2048), (2048, 4096)] {
        let mut bytes = w.bytes.clone();
        bytes[from..to].fill(0);
        assert_eq!(parse(&bytes, NO).unwrap().unwrap(), (w.states[0].clone(), None));
    }
}

#[test]
fn valid_records_that_say_nonsense_are_damage() {
    use record::RecordKind::{Batch, Edit as EditKind, Snapshot};
    let w = sample();
    // Records with good checksums, put in the place of the first edit.
    let put = |kind, number: u64, count, payload: &[u8]| {
        let mut bytes = w.bytes[..w.ends[0]].to_vec();
        let meta = record::Meta { kind, first_seq: super::seq(number), count, watermark: w.ends[0] as u64 };
        record::encode(&mut bytes, SALT, w.ends[0] as u64, meta, payload);
        bytes.resize(w.bytes.len(), 0);
        parse(&bytes, NO).map(|found| found.map(|(s, _)| s.edit))
    };
    // And in that of the snapshot.
    let put_snapshot = |db: u64, next_file: u64| {
        let mut state = w.states[0].clone();
        state.db = db;
        state.next_file = FileNo(next_file);
        let mut payload = (w.bytes.len() as u64).to_le_bytes().to_vec();
        let count = state.encode(&mut payload) as u32;
        let meta = record::Meta { kind: Snapshot, first_seq: super::seq(1), count, watermark: 0 };
        let mut bytes = w.bytes[..RECORDS].to_vec();
        record::encode(&mut bytes, SALT, RECORDS as u64, meta, &payload);
        bytes.resize(w.bytes.len(), 0);
        parse(&bytes, NO).map(|found| found.map(|(s, _)| s.edit))
    };
    let payload = |edit: &Edit, next_file: u64| {
        let mut payload = (w.bytes.len() as u64).to_le_bytes().to_vec();
        edit.encode(&mut payload, Counters { number: 2, next_file: FileNo(next_file), next_keyspace: 10 });
        payload
    };
    assert_eq!(put_snapshot(77, 1000).unwrap(), Some(1));
    assert!(put_snapshot(78, 1000).unwrap_err().1.to_string().contains("another database"));
    assert!(put_snapshot(77, 40).unwrap_err().1.to_string().contains("never given out"));
    let good = payload(&edit("flushed k1 10"), 1000);
    assert_eq!(put(EditKind, 2, 1, &good).unwrap(), Some(2));
    for (kind, number, count, payload, why) in [
        (Batch, 2, 1, good.clone(), "not an edit"),
        (Snapshot, 2, 1, good.clone(), "not an edit"),
        (EditKind, 3, 1, good.clone(), "edit 3 follows edit 1"),
        (EditKind, 2, 0, good.clone(), "bytes follow"),
        (EditKind, 2, 2, good.clone(), "end too early"),
        (EditKind, 2, 1, good[..6].to_vec(), "end too early"),
        (EditKind, 2, 1, payload(&edit("-k1 L0 1"), 1000), "no table 000001"),
        (EditKind, 2, 1, payload(&edit("flushed k1 10"), 5), "go back"),
        (EditKind, 2, 1, [&(1u64 << 40).to_le_bytes(), &good[8..]].concat(), "cut short"),
    ] {
        let (offset, error) = put(kind, number, count, &payload).unwrap_err();
        assert!(error.is_corruption() && error.to_string().contains(why), "{error}");
        assert_eq!(offset, w.ends[0] as u64);
    }
}

/// The header of another manifest of the same number, which a crash took back with its name.
#[test]
fn a_header_left_by_an_earlier_file_is_none() {
    let w = sample();
    let dir = tempfile::tempdir().unwrap();
    let mut s = state(&[]).unwrap();
    s.saw_file(NO).unwrap();
    Manifest::create(&OsFs, dir.path(), NO, 0xbad, &s).unwrap();
    let other = std::fs::read(Name::Manifest(NO).path(dir.path())).unwrap();
    for half in [0..RECORDS / 2, RECORDS / 2..RECORDS] {
        // Only the other copy was written, and what follows or not.
        let mut bytes = w.bytes[..w.ends[0]].to_vec();
        bytes.resize(w.bytes.len(), 0);
        bytes[half.clone()].copy_from_slice(&other[half.clone()]);
        assert!(parse(&bytes, NO).unwrap().is_some());
        bytes[RECORDS..].fill(0);
        assert!(parse(&bytes, NO).unwrap().is_none());
        // Where edits testify, it is damage.
        let mut bytes = w.bytes.clone();
        bytes[half.clone()].copy_from_slice(&other[half.clone()]);
        assert_eq!(parse(&bytes, NO).unwrap_err().0, half.start as u64);
    }
}

#[test]
fn the_highest_complete_one_counts() {
    let dir = tempfile::tempdir().unwrap();
    let create = |no: u64, flushed: u64| {
        let mut s = state(&[&format!("flushed k1 {flushed}")]).unwrap();
        s.saw_file(FileNo(no)).unwrap();
        Manifest::create(&OsFs, dir.path(), FileNo(no), no, &s).unwrap();
    };
    assert!(load(dir.path(), &[]).unwrap().is_none());
    create(9, 1);
    create(1010, 2);
    put(dir.path(), 1011, &[]);
    put(dir.path(), 1012, &[0; 70_000]);
    let loaded = load(dir.path(), &[1012, 9, 1010, 1011]).unwrap().unwrap();
    assert_eq!((loaded.no, loaded.torn), (FileNo(1010), None));
    assert_eq!(loaded.incomplete, [FileNo(1012), FileNo(1011)]);
    assert_eq!(show(&loaded.state), "k1 flushed 2\n");
    assert!(load(dir.path(), &[1011, 1012]).unwrap().is_none());

    // What another file left in the space of one that was never written does not.
    let w = sample();
    put(dir.path(), 1013, &w.bytes);
    assert_eq!(load(dir.path(), &[1010, 1013]).unwrap().unwrap().incomplete, [FileNo(1013)]);
    // One whose damage is proven stops the search.
    let mut bytes = w.bytes.clone();
    bytes[RECORDS + 50] ^= 4;
    put(dir.path(), 40, &bytes);
    let error = load(dir.path(), &[9, 40]).unwrap_err();
    assert!(error.is_corruption() && error.offset() == Some(4096), "{error}");
    assert_eq!(error.file(), Some(&*Name::Manifest(FileNo(40)).path(dir.path())));
    // A length that was listed, but is not there, is the same as a cut.
    assert!(manifest::load(&OsFs, dir.path(), &[(FileNo(1012), 80_000)]).unwrap().is_none());
    let error = manifest::load(&OsFs, dir.path(), &[(FileNo(1012), u64::MAX)]).unwrap_err();
    assert!(error.is_corruption());
    assert!(OsFs.open_read(&dir.path().join("nothing")).is_err());
}

#[test]
fn another_version_is_named() {
    let mut w = sample();
    for copy in [0, 2048] {
        w.bytes[copy + 8] = 2;
        w.bytes[copy + 12..copy + 16].fill(0);
        let crc = record::checksum(0, copy as u64, &w.bytes[copy..copy + 2048]);
        w.bytes[copy + 12..copy + 16].copy_from_slice(&crc.to_le_bytes());
    }
    let (_, error) = parse(&w.bytes, NO).unwrap_err();
    assert!(error.to_string().contains("version 2 is not known"), "{error}");
}

#[test]
fn dumps_show_whatever_bytes_they_get() {
    let w = sample();
    for cut in (0..w.ends[3]).step_by(7) {
        manifest::dump(&w.bytes[..cut]);
    }
    let mut bytes = w.bytes[..w.ends[3]].to_vec();
    bytes[w.ends[1] + 40] ^= 1;
    assert!(manifest::dump(&bytes).contains("not valid"));
}
