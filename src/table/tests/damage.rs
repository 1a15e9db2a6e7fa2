//! Bytes that are not what was written: an error, or the right answer.

use super::golden::{alike, mixed};
use super::*;
use crate::error::Error;
use crate::table::format::{FOOTER_LEN, Footer, Section, TRAILER_LEN};

/// Reads everything in every way. What is answered must be right, unless `lies` are expected.
fn read_all(bytes: &[u8], mapped: bool, entries: &Entries, lies: bool) -> Result<()> {
    let table = open(bytes, mapped, &Cache::new(1 << 20))?;
    let mut result = Ok(());
    let mut note = |e: Error| {
        assert!(lies || e.file() == Some(Path::new(PATH)), "{e}");
        result = Err(e);
    };
    let mut pin = Pin::default();
    for (key, trailer, value) in entries {
        match table.get(key, key::hash(key), trailer.seq(), &mut pin) {
            Ok(found) => {
                let found = found.map(|f| (f.trailer, f.value));
                assert!(lies || found == Some((*trailer, value)), "{key:?}: {found:?}");
            }
            Err(e) => note(e),
        }
    }
    for mut cursor in cursors(&table) {
        let mut at = 0;
        if let Err(e) = cursor.seek_first() {
            note(e);
        }
        while cursor.valid() {
            if !lies {
                assert_at(&mut cursor, entries, Some(at));
            }
            at += 1;
            match cursor.fetch().and_then(|()| cursor.next()) {
                Ok(()) => {}
                Err(e) => note(e),
            }
        }
        if let Err(e) = cursor.seek_last() {
            note(e);
        }
        while cursor.valid() {
            if let Err(e) = cursor.prev() {
                note(e);
            }
        }
        for (i, (key, trailer, _)) in entries.iter().enumerate() {
            match cursor.seek(key, *trailer) {
                Ok(()) if !lies => assert_at(&mut cursor, entries, Some(i)),
                Ok(()) => {}
                Err(e) => note(e),
            }
            if let Err(e) = cursor.seek_before(key) {
                note(e);
            }
        }
    }
    if let Err(e) = table.verify() {
        note(e);
    }
    result
}

fn samples() -> Vec<(Vec<u8>, Entries)> {
    let (entries, tombstones, options) = mixed();
    let mut samples = vec![(write(&entries, &tombstones, options).0, entries)];
    let (entries, options) = alike();
    for compression in compressions() {
        let options = WriteOptions { compression, ..options };
        samples.push((write(&entries, &RangeTombstones::default(), options).0, entries.clone()));
    }
    samples
}

#[test]
fn every_flipped_bit_is_noticed() {
    for (good, entries) in samples() {
        for mapped in [true, false] {
            read_all(&good, mapped, &entries, false).unwrap();
        }
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            // Half of the bits of each byte one way, half the other.
            let e = read_all(&bad, (bit + bit / 8) % 2 == 0, &entries, false).unwrap_err();
            assert!(e.is_corruption(), "bit {bit}: {e}");
        }
    }
}

#[test]
fn every_cut_and_every_excess_is_noticed() {
    for (good, _) in samples() {
        let cache = Cache::new(1 << 20);
        for cut in 0..good.len() {
            assert!(open(&good[..cut], true, &cache).unwrap_err().is_corruption(), "cut {cut}");
        }
        let mut more = good.clone();
        more.push(0);
        assert!(open(&more, true, &cache).unwrap_err().is_corruption());
        // A file that is not as long as the manifest says.
        let file = Arc::new(MemFile(Mutex::new(good.clone())));
        let wrong = Table::open(
            file,
            Path::new(PATH),
            ID,
            good.len() as u64 - 1,
            ReadOptions { mapped: true },
            &cache,
        );
        assert!(wrong.unwrap_err().is_corruption());
    }
}

#[test]
fn a_damaged_block_fails_its_reads_alone() {
    let (entries, tombstones, options) = mixed();
    let (good, _) = write(&entries, &tombstones, options);
    let mut bad = good.clone();
    bad[10] ^= 1;
    for mapped in [true, false] {
        let table = open(&bad, mapped, &Cache::new(1 << 20)).unwrap();
        let first = table.index().block(0).unwrap();
        let mut pin = Pin::default();
        for _ in 0..2 {
            let mut failed = 0;
            for (key, trailer, value) in &entries {
                match table.get(key, key::hash(key), trailer.seq(), &mut pin) {
                    Ok(found) => assert_eq!(found.map(|f| f.value), Some(&value[..])),
                    Err(e) => {
                        assert_eq!((e.file(), e.offset()), (Some(Path::new(PATH)), Some(first.offset)));
                        failed += 1;
                    }
                }
            }
            assert!(failed > 0 && failed < entries.len());
        }
        assert_eq!(table.verify().unwrap_err().offset(), Some(0));
        for mut cursor in cursors(&table) {
            assert!(cursor.seek_first().unwrap_err().is_corruption());
            assert!(!cursor.valid());
            cursor.seek_last().unwrap();
            assert_at(&mut cursor, &entries, Some(entries.len() - 1));
        }
    }
}

/// Makes every checksum of `bytes` fit again, the sections being where they were in `good`.
fn reseal(bytes: &mut [u8], good: &[u8]) {
    let place = good.len() - FOOTER_LEN;
    let footer = Footer::decode(good[place..].try_into().unwrap(), ID, place as u64).unwrap();
    let index = open(good, true, &Cache::new(0)).unwrap();
    for at in (0..index.index().len()).map(|i| index.index().block(i).unwrap()) {
        let sum = at.end() as usize - 4;
        let crc = crate::record::checksum(ID, at.offset, &bytes[at.offset as usize..sum]);
        bytes[sum..sum + 4].copy_from_slice(&crc.to_le_bytes());
    }
    let seal =
        |s: Section| Section::new(ID, s.offset, &bytes[s.offset as usize..(s.offset + s.len) as usize]);
    let sealed = Footer {
        tombstones: seal(footer.tombstones),
        filter: seal(footer.filter),
        index: seal(footer.index),
        properties: seal(footer.properties),
        ..footer
    };
    bytes[place..].copy_from_slice(&sealed.encode(place as u64));
}

#[test]
fn lies_with_valid_checksums_end_well() {
    let mut random = Random(7);
    for (good, entries) in samples() {
        let body = good.len() - FOOTER_LEN;
        let mut noticed = 0;
        for at in 0..body {
            let byte = good[at];
            for lie in
                [0, 1, byte.wrapping_add(1), byte.wrapping_sub(1), byte ^ 0x80, 0xff, random.next() as u8]
            {
                let mut bad = good.clone();
                bad[at] = lie;
                if random.below(4) == 0 {
                    bad[random.below(body as u64) as usize] = random.next() as u8;
                }
                reseal(&mut bad, &good);
                let mapped = random.below(2) == 0;
                noticed += usize::from(read_all(&bad, mapped, &entries, true).is_err());
            }
        }
        assert!(noticed > body, "{noticed} of {}", 3 * body);
    }
}

#[test]
fn other_versions_are_refused() {
    let (good, _) = samples().swap_remove(0);
    let place = good.len() - FOOTER_LEN;
    for at in [56, 59, 60, 63] {
        let mut other = good.clone();
        other[place + at] ^= 2;
        let sum = crate::record::checksum(ID, place as u64, &other[place..place + 64]);
        other[place + 64..place + 68].copy_from_slice(&sum.to_le_bytes());
        let e = open(&other, true, &Cache::new(0)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Invalid, "{e}");
    }
}

#[test]
fn a_block_elsewhere_is_not_a_block() {
    // Two blocks of equal length and equal content but for the key, swapped.
    let entries: Entries = [b"a", b"b"].iter().map(|k| (k.to_vec(), put(1), b"value".to_vec())).collect();
    let options = WriteOptions { block_bytes: 1, compression: Compression::None, filter_bits: 0 };
    let (mut bytes, _) = write(&entries, &RangeTombstones::default(), options);
    let table = open(&bytes, true, &Cache::new(0)).unwrap();
    let (a, b) = (table.index().block(0).unwrap(), table.index().block(1).unwrap());
    assert_eq!(a.stored, b.stored);
    let (first, second) = bytes.split_at_mut(b.offset as usize);
    first.swap_with_slice(&mut second[..b.stored as usize]);
    assert!(open(&bytes, true, &Cache::new(0)).unwrap().verify().unwrap_err().is_corruption());
    // And the lengths of the trailer are those of the format.
    assert_eq!(a.stored as usize, a.raw() + TRAILER_LEN);
}
