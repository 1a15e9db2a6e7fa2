//! Every interleaving of one writer and its readers, over tiny nodes:
//! `RUSTFLAGS="--cfg loom" cargo test --release --lib memtable::loom`
//!
//! What is shared is counted by `std`'s `Arc`, which loom does not see: it explores what the tree
//! itself does.

use super::{MemCursor, Memtable, Writer, new};
use crate::cursor::Cursor;
use crate::ids::Seq;
use crate::key::{Kind, Trailer};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::thread;
use std::sync::Arc;

fn seq(n: u64) -> Seq {
    Seq::new(n).unwrap()
}

fn insert(writer: &mut Writer, key: &[u8], n: u64) {
    writer.insert(key, Trailer::new(seq(n), Kind::Put), &value(key, n));
}

fn value(key: &[u8], n: u64) -> Vec<u8> {
    [key, &n.to_le_bytes()].concat()
}

/// Inserts `before`, then `during` while a reader runs `read` with what it may see: the first so
/// many of all keys at least.
fn model(
    before: &'static [&'static str],
    during: &'static [&'static str],
    read: fn(&Arc<Memtable>, &[&[u8]]),
) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.max_branches = 100_000;
    builder.check(move || {
        let (mut writer, mem) = new();
        let keys: Vec<&[u8]> = before.iter().chain(during).map(|k| k.as_bytes()).collect();
        for (i, key) in keys[..before.len()].iter().enumerate() {
            insert(&mut writer, key, i as u64 + 1);
        }
        let visible = Arc::new(AtomicU64::new(before.len() as u64));
        let reader = {
            let (visible, keys) = (visible.clone(), keys.clone());
            thread::spawn(move || {
                let n = visible.load(Ordering::Acquire) as usize;
                read(&mem, &keys[..n]);
            })
        };
        for (i, key) in keys.iter().enumerate().skip(before.len()) {
            insert(&mut writer, key, i as u64 + 1);
            visible.store(i as u64 + 1, Ordering::Release);
        }
        reader.join().unwrap();
    });
}

/// Gets the newest version of the first, the middle and the last key.
fn get(mem: &Arc<Memtable>, seen: &[&[u8]]) {
    for at in [0, seen.len() / 2, seen.len() - 1] {
        let newest = seen.iter().rposition(|key| *key == seen[at]).unwrap() as u64 + 1;
        let found = mem.get(seen[at], seq(seen.len() as u64)).unwrap();
        assert_eq!(found.trailer.seq(), seq(newest));
        assert_eq!(found.value, value(seen[at], newest));
    }
}

/// Walks over everything, on or back.
fn scan(mem: &Arc<Memtable>, seen: &[&[u8]], back: bool) {
    let mut expect: Vec<(&[u8], u64)> = seen.iter().zip(1..).map(|(key, n)| (*key, n)).collect();
    expect.sort_by(|a, b| a.0.cmp(b.0).then(b.1.cmp(&a.1)));
    if back {
        expect.reverse();
    }
    let mut expect = expect.into_iter();
    let mut c = MemCursor::new(mem.clone());
    if back { c.seek_last() } else { c.seek_first() }.unwrap();
    while c.valid() {
        let n = c.trailer().seq().get();
        assert_eq!(c.value(), value(c.key(), n));
        if n <= seen.len() as u64 {
            assert_eq!(Some((c.key(), n)), expect.next());
        }
        if back { c.prev() } else { c.next() }.unwrap();
    }
    assert_eq!(expect.next(), None);
}

#[test]
fn into_an_empty_tree() {
    model(&["a"], &["b", "c"], get);
}

#[test]
fn a_leaf_splits() {
    model(&["a", "g", "c", "e"], &["d", "f"], get);
}

#[test]
fn a_leaf_is_followed_by_another() {
    model(&["a", "b", "c", "d"], &["e", "f"], get);
}

#[test]
fn a_leaf_gets_a_shorter_prefix() {
    model(&["user:1", "user:2"], &["us", "user:3"], get);
}

#[test]
fn a_version_is_superseded() {
    model(&["a", "b", "a"], &["b", "a"], get);
}

#[test]
fn a_leaf_below_an_inner_node_splits() {
    // Two leaves, the second of them full after one more. Whoever finds its left half in its place must look
    // for the last key in the right one.
    model(&["a", "g", "c", "e", "i"], &["h", "f"], get);
}

#[test]
fn inner_nodes_split() {
    // Four leaves under a full root, the second of them full; then it splits, and so does the root.
    let before = &["a", "z", "c", "x", "m", "e", "g", "v", "i", "t", "k", "b", "d", "f"];
    model(before, &["n", "o", "p"], get);
}

#[test]
fn scans_on_while_a_leaf_splits() {
    model(&["a", "g", "c", "e", "i"], &["d", "f"], |mem, seen| scan(mem, seen, false));
}

#[test]
fn scans_back_while_a_leaf_splits() {
    model(&["a", "g", "c", "e", "i"], &["h", "b"], |mem, seen| scan(mem, seen, true));
}
