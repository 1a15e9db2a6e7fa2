//! The bytes of tables, held against files that were read and found right. `ESKER_REWRITE=1` writes
//! them anew.

use super::*;
use crate::table::dump;

fn check(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let found = dump(bytes);
    if std::env::var_os("ESKER_REWRITE").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let expect = std::fs::read_to_string(&path).unwrap();
    assert!(found == expect, "{name} has changed:\n{found}");
}

/// Several small blocks, everything mixed.
pub(super) fn mixed() -> (Entries, RangeTombstones, WriteOptions) {
    let entry = |key: &str, n, value: Option<&str>| {
        let kind = if value.is_some() { Kind::Put } else { Kind::Delete };
        (key.as_bytes().to_vec(), Trailer::new(seq(n), kind), value.unwrap_or_default().into())
    };
    let entries = vec![
        entry("fruit/apple", 70_000, Some("red")),
        entry("fruit/apple", 12, Some("green")),
        entry("fruit/apricot", 13, None),
        entry("fruit/banana", 14, Some("yellow, for a while")),
        entry("fruit/banana", 11, Some("green")),
        entry("fruit/cherry", 20, Some("red")),
        entry("fruit/fig", 20, Some("")),
        entry("fruit/grape", 21, Some("blue")),
    ];
    let tombstones = RangeTombstones::new([
        RangeDelete { start: b"fruit/b", end: Some(b"fruit/d"), seq: seq(30) },
        RangeDelete { start: b"fruit/c", end: None, seq: seq(9) },
    ]);
    (entries, tombstones, WriteOptions { block_bytes: 120, compression: Compression::None, filter_bits: 10 })
}

/// One compressed block whose rows are alike.
pub(super) fn alike() -> (Entries, WriteOptions) {
    let entry = |i: u64| (format!("row{:05}", 500 + i).into_bytes(), put(8), b"the same value".to_vec());
    let options = WriteOptions { block_bytes: 4096, compression: Compression::Lz4, filter_bits: 0 };
    ((0..8).map(entry).collect(), options)
}

#[test]
fn tables_look_as_they_always_did() {
    let (entries, tombstones, options) = mixed();
    check("table.txt", &write(&entries, &tombstones, options).0);
    let (entries, options) = alike();
    check("table-lz4.txt", &write(&entries, &RangeTombstones::default(), options).0);
}

#[test]
fn a_dump_survives_damage() {
    let (entries, tombstones, options) = mixed();
    let good = write(&entries, &tombstones, options).0;
    let expect = dump(&good);
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x55;
        assert_ne!(dump(&bad), expect);
        dump(&good[..at]);
    }
}
