//! The checker itself: histories that are right, however strange, and those that must be refused.

use super::check::{Call, History, Is, Require, What, Write, check};

fn call(begin: u64, end: u64, what: What) -> Call {
    Call { thread: 0, begin, end, what }
}

fn commit(begin: u64, end: u64, seq: u64, writes: &[Write]) -> Call {
    let writes = writes.to_vec();
    call(begin, end, What::Commit { requires: Vec::new(), writes, seq: Some(seq), durable: false })
}

fn put(begin: u64, end: u64, seq: u64, key: u8, value: u64) -> Call {
    commit(begin, end, seq, &[Write::Put((0, key), value)])
}

/// With a condition on key 1, which puts 1 there.
fn swap(begin: u64, end: u64, seq: Option<u64>, is: Is) -> Call {
    let requires = vec![Require { keyspace: 0, from: 1, to: 2, is }];
    let writes = vec![Write::Put((0, 1), 100 + begin)];
    call(begin, end, What::Commit { requires, writes, seq, durable: false })
}

fn get(begin: u64, end: u64, key: u8, found: Option<u64>) -> Call {
    call(begin, end, What::Get { at: None, keys: vec![(0, key)], found: vec![found] })
}

fn scan(begin: u64, end: u64, rows: &[(u8, u64)]) -> Call {
    call(begin, end, What::Scan { at: None, keyspace: 0, from: 0, to: 9, rows: rows.to_vec() })
}

fn newest(begin: u64, end: u64, seq: u64) -> Call {
    call(begin, end, What::Newest(seq))
}

fn passes(calls: &[Call]) {
    let history = History { base: 0, calls: calls.to_vec() };
    check(&history).unwrap_or_else(|why| panic!("{why}\n{history}"));
}

fn refused(why: &str, calls: &[Call]) {
    let history = History { base: 0, calls: calls.to_vec() };
    assert!(check(&history).is_err(), "{why} passes\n{history}");
}

#[test]
fn calls_at_the_same_time_may_take_place_in_any_order() {
    let a = put(1, 10, 1, 1, 7);
    passes(&[a.clone(), get(2, 3, 1, None), get(4, 5, 1, Some(7)), get(11, 12, 1, Some(7))]);
    passes(&[a.clone(), get(2, 9, 1, Some(7)), get(3, 8, 1, None)]);
    // The later number began first.
    passes(&[put(1, 10, 2, 1, 7), put(2, 9, 1, 1, 8), get(11, 12, 1, Some(7))]);
    passes(&[a.clone(), swap(2, 5, None, Is::Absent), swap(6, 7, None, Is::Value(3))]);
    passes(&[a.clone(), swap(2, 5, Some(2), Is::Value(7))]);
    passes(&[a.clone(), newest(2, 3, 0), newest(4, 5, 1), call(6, 7, What::Durable(0))]);
    passes(&[a, call(11, 12, What::Sync), call(13, 14, What::Durable(1))]);
}

#[test]
fn stale_and_early_reads_are_refused() {
    let (a, b) = (put(1, 2, 1, 1, 7), put(3, 4, 2, 1, 8));
    refused("a read of what was overwritten", &[a.clone(), b.clone(), get(5, 6, 1, Some(7))]);
    refused("a read of what is not written yet", &[a.clone(), get(2, 3, 1, Some(8)), put(4, 5, 2, 1, 8)]);
    refused("a read of nothing", &[a.clone(), get(3, 4, 1, None)]);
    let slow = put(3, 20, 2, 1, 8);
    refused(
        "a read that goes back",
        &[a.clone(), slow.clone(), get(4, 5, 1, Some(8)), get(6, 7, 1, Some(7))],
    );
    refused("a value nobody wrote", &[a.clone(), get(3, 4, 1, Some(9))]);
    refused("a newest number that goes back", &[a.clone(), slow, newest(4, 5, 2), newest(6, 7, 1)]);
    refused("a commit that is in no later number", &[a, newest(3, 4, 0)]);
}

#[test]
fn torn_batches_and_scans_are_refused() {
    let both = commit(3, 10, 4, &[Write::Put((0, 1), 8), Write::Put((0, 2), 8)]);
    let before = commit(1, 2, 2, &[Write::Put((0, 1), 7), Write::Put((0, 2), 7)]);
    passes(&[before.clone(), both.clone(), scan(4, 5, &[(1, 7), (2, 7)]), scan(6, 7, &[(1, 8), (2, 8)])]);
    refused("half a batch", &[before.clone(), both.clone(), scan(4, 5, &[(1, 8), (2, 7)])]);
    let gets = What::Get { at: None, keys: vec![(0, 1), (0, 2)], found: vec![Some(7), Some(8)] };
    refused("half a batch by keys", &[before.clone(), both.clone(), call(4, 5, gets)]);
    refused("a number within a batch", &[before.clone(), both.clone(), newest(4, 5, 3)]);
    let gone = commit(11, 12, 5, &[Write::DeleteRange(0, 1, 3)]);
    passes(&[before.clone(), both.clone(), gone.clone(), scan(13, 14, &[])]);
    refused("half a range delete", &[before, both, gone, scan(11, 12, &[(2, 8)])]);
}

#[test]
fn numbers_must_be_an_order() {
    refused("a number given twice", &[put(1, 2, 1, 1, 7), put(3, 4, 1, 1, 8)]);
    refused("a number left out", &[put(1, 2, 1, 1, 7), put(3, 4, 3, 1, 8)]);
    refused("an order against time", &[put(1, 2, 2, 1, 7), put(3, 4, 1, 1, 8)]);
}

#[test]
fn lost_updates_are_refused() {
    let a = put(1, 2, 1, 1, 7);
    let twice = [swap(3, 10, Some(2), Is::Value(7)), swap(4, 9, Some(3), Is::Value(7))];
    refused("two swaps of one value", &[&[a.clone()][..], &twice].concat());
    refused("a conflict without a cause", &[a.clone(), swap(3, 4, None, Is::Value(7))]);
    refused("two that were first", &[swap(1, 5, Some(1), Is::Absent), swap(2, 6, Some(2), Is::Absent)]);
    let since = |seq| Is::Unchanged(seq);
    passes(&[a.clone(), swap(3, 4, Some(2), since(1)), swap(5, 6, None, since(1))]);
    refused("changed, and not told", &[a.clone(), put(3, 4, 2, 1, 7), swap(5, 6, Some(3), since(1))]);
    let gone = commit(3, 4, 2, &[Write::DeleteRange(0, 0, 9)]);
    refused("deleted by a range, and not told", &[a.clone(), gone, swap(5, 6, Some(3), since(1))]);
    refused("told of a change that was not", &[a.clone(), put(3, 4, 2, 2, 7), swap(5, 6, None, since(1))]);
}

#[test]
fn snapshots_stay_and_come_from_the_past() {
    let (a, b) = (put(1, 2, 1, 1, 7), put(3, 10, 2, 1, 8));
    let at = |begin, seq, value| {
        call(begin, begin + 1, What::Get { at: Some(seq), keys: vec![(0, 1)], found: vec![value] })
    };
    passes(&[a.clone(), b.clone(), newest(4, 5, 1), at(20, 1, Some(7))]);
    refused("a snapshot that moved", &[a.clone(), b.clone(), newest(4, 5, 1), at(20, 1, Some(8))]);
    refused("a snapshot from the future", &[a.clone(), newest(3, 4, 2), put(5, 6, 2, 1, 8)]);
    refused("a snapshot from the past", &[a, b, newest(11, 12, 1)]);
}

#[test]
fn what_is_durable_only_grows() {
    let (a, b) = (put(1, 2, 1, 1, 7), put(3, 4, 2, 1, 8));
    let durable = |begin, seq| call(begin, begin + 1, What::Durable(seq));
    passes(&[a.clone(), b.clone(), durable(5, 0), durable(7, 2), durable(9, 2)]);
    refused("less than before", &[a.clone(), b.clone(), durable(5, 2), durable(7, 1)]);
    refused("less than was awaited", &[a.clone(), b.clone(), call(5, 6, What::Awaited(2)), durable(7, 1)]);
    refused("less than was synced", &[a.clone(), b.clone(), call(5, 6, What::Sync), durable(7, 1)]);
    refused("what is not begun", &[a, durable(3, 2), put(5, 6, 2, 1, 8)]);
}
