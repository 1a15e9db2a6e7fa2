//! Range deletes over tables so small that their bounds are everywhere: whatever is deleted, from
//! wherever it is looked at, in both directions, now and at snapshots.

use crate::rng::Rng;
use esker::fs::sim::SimFs;
use esker::{Cursor, Db, Durability, KeyspaceOptions, KeyspaceView, Options, Snapshot};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;
type Range = (Bound<Vec<u8>>, Bound<Vec<u8>>);

fn tiny(random: &mut Rng) -> Options {
    Options::default()
        .workers(0)
        .durability(Durability::Buffered)
        .memtable_bytes(4 << 10)
        .table_bytes(1 << 10)
        .segment_bytes(64 << 10)
        .journal_bytes(256 << 10)
        .mapped(random.one_in(2))
        .keyspaces(KeyspaceOptions::default().block_bytes(64))
        .fs(Arc::new(SimFs::new(1)))
}

/// Few enough that deletes hit, with the empty one, prefixes of each other and both ends.
fn key(random: &mut Rng) -> Vec<u8> {
    match random.below(12) {
        0 => Vec::new(),
        1 => vec![0xff; 1 + random.below(2)],
        2 => vec![b'k'; random.below(12)],
        _ => format!("k{:03}", random.below(400)).into_bytes(),
    }
}

/// Never reversed.
fn range(random: &mut Rng) -> Range {
    let (mut a, mut b) = (key(random), key(random));
    if random.one_in(2) && a.len() == 4 {
        // A short one, such as a queue deletes.
        b = format!("k{:03}", 400.min(a[1..].iter().fold(0, |n, d| n * 10 + usize::from(d - b'0')) + 5))
            .into();
    }
    if a > b {
        std::mem::swap(&mut a, &mut b);
    }
    let lower = match random.below(6) {
        0 => Bound::Unbounded,
        1 => Bound::Excluded(a),
        _ => Bound::Included(a),
    };
    let upper = match random.below(6) {
        0 => Bound::Unbounded,
        1 => Bound::Included(b),
        _ => Bound::Excluded(b),
    };
    (lower, upper)
}

fn within(map: &Map, range: &Range) -> Vec<(Vec<u8>, Vec<u8>)> {
    let inside = |key: &&Vec<u8>| {
        (match &range.0 {
            Bound::Included(from) => *key >= from,
            Bound::Excluded(from) => *key > from,
            Bound::Unbounded => true,
        }) && (match &range.1 {
            Bound::Included(to) => *key <= to,
            Bound::Excluded(to) => *key < to,
            Bound::Unbounded => true,
        })
    };
    map.iter().filter(|(key, _)| inside(key)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn owned(entry: esker::Result<esker::Entry>) -> (Vec<u8>, Vec<u8>) {
    let (key, value) = entry.unwrap().into_parts();
    (key.to_vec(), value.to_vec())
}

fn check(random: &mut Rng, view: &KeyspaceView, map: &Map) {
    let range = if random.one_in(3) { (Bound::Unbounded, Bound::Unbounded) } else { range(random) };
    let expect = within(map, &range);
    assert_eq!(view.range(range.clone()).map(owned).collect::<Vec<_>>(), expect);
    let mut back: Vec<_> = view.range(range.clone()).rev().map(owned).collect();
    back.reverse();
    assert_eq!(back, expect);
    for _ in 0..3 {
        let key = key(random);
        assert_eq!(view.get(&key).unwrap().map(Vec::from), map.get(&key).cloned());
    }
    walk(random, &mut view.cursor(range), &expect);
}

/// A cursor that turns around and seeks, in the gaps between `expect`.
fn walk(random: &mut Rng, cursor: &mut Cursor, expect: &[(Vec<u8>, Vec<u8>)]) {
    let mut gap = 0;
    for _ in 0..40 {
        match random.below(12) {
            0 => {
                let key = key(random);
                cursor.seek(&key).unwrap();
                gap = expect.partition_point(|e| e.0 < key);
            }
            1 => {
                cursor.seek_first();
                gap = 0;
            }
            2 => {
                cursor.seek_last();
                gap = expect.len();
            }
            3..8 => {
                let passed = cursor.next().unwrap().map(|(k, v)| (k.to_vec(), v.to_vec()));
                assert_eq!(passed.as_ref(), expect.get(gap));
                gap = expect.len().min(gap + 1);
            }
            _ => {
                let passed = cursor.prev().unwrap().map(|(k, v)| (k.to_vec(), v.to_vec()));
                assert_eq!(passed.as_ref(), gap.checked_sub(1).map(|i| &expect[i]));
                gap = gap.saturating_sub(1);
            }
        }
    }
}

#[test]
fn scans_agree_with_the_model_at_every_table_bound() {
    for seed in 0..12 {
        let random = &mut Rng::new(seed);
        let db = Db::open("/db", tiny(random)).unwrap();
        let a = db.keyspace("a").unwrap();
        let mut map = Map::new();
        let mut snapshots: Vec<(Snapshot, Map)> = Vec::new();
        for step in 0..600u32 {
            match random.below(20) {
                0..3 => {
                    let range = range(random);
                    a.delete_range(range.clone()).unwrap();
                    for (key, _) in within(&map, &range) {
                        map.remove(&key);
                    }
                }
                3..5 => {
                    let key = key(random);
                    a.delete(&key).unwrap();
                    map.remove(&key);
                }
                // In runs, as most are written.
                5..12 => {
                    let from = random.below(400);
                    for i in from..400.min(from + random.below(20)) {
                        let (key, value) = (format!("k{i:03}"), format!("{step}/{i}"));
                        a.put(&key, &value).unwrap();
                        map.insert(key.into(), value.into());
                    }
                }
                12..16 => {
                    let (key, value) = (key(random), step.to_string());
                    a.put(&key, &value).unwrap();
                    map.insert(key, value.into());
                }
                16 => db.flush().unwrap(),
                17 => {
                    db.step().unwrap();
                }
                18 if snapshots.len() < 5 => snapshots.push((db.snapshot(), map.clone())),
                18 => drop(snapshots.swap_remove(random.below(5))),
                _ => {
                    check(random, &a.at(&db.snapshot()), &map);
                    for (snapshot, then) in &snapshots {
                        check(random, &a.at(snapshot), then);
                    }
                }
            }
        }
    }
}

/// Thousands of range deletes, nested, abutting and apart, flushed and compacted.
#[test]
fn many_range_deletes_are_as_right_as_few() {
    let key = |i: u32| i.to_be_bytes();
    let db = Db::open("/db", tiny(&mut Rng::new(3)).memtable_bytes(256 << 10)).unwrap();
    let a = db.keyspace("a").unwrap();
    let put_all = || {
        (0..10_000).step_by(7).for_each(|i| {
            a.put(key(i), "v").unwrap();
        })
    };
    put_all();
    for i in 0..2000 {
        a.delete_range(key(i)..key(4000 - i)).unwrap();
        a.delete_range(key(5000 + i)..key(5001 + i)).unwrap();
        a.delete_range(key(8000 + 2 * (i % 500))..key(8001 + 2 * (i % 500))).unwrap();
    }
    let left: Vec<u32> = (0..10_000)
        .step_by(7)
        .filter(|i| !(0..4000).contains(i) && !(5000..7000).contains(i))
        .filter(|i| !(8000..9000).contains(i) || i % 2 == 1)
        .collect();
    let check = || {
        let seen: Vec<_> = a.iter().map(|e| e.unwrap().key().to_vec()).collect();
        assert!(seen.iter().eq(left.iter().map(|&i| key(i)).collect::<Vec<_>>().iter()));
        assert_eq!(a.iter().rev().count(), left.len());
    };
    check();
    db.flush().unwrap();
    check();
    while db.step().unwrap() {}
    check();
    let before = db.snapshot();
    put_all();
    for i in 0..1000 {
        a.delete_range(key(10 * i)..key(10 * i + 10)).unwrap();
    }
    db.flush().unwrap();
    while db.step().unwrap() {}
    assert_eq!(a.iter().count(), 0);
    assert_eq!(a.at(&before).iter().count(), left.len());
}
