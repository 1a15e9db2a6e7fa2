//! Batches with conditions: every expectation, held and broken, and that a conflict leaves no
//! trace.

use super::{fails, fresh, settle};
use esker::{ErrorKind, Expect};

#[test]
fn every_expectation_of_a_key() {
    let (_dir, db) = fresh();
    let a = db.keyspace("a").unwrap();
    a.put("there", "1").unwrap();
    let cases: [(&str, Expect, bool); 8] = [
        ("there", Expect::Present, true),
        ("there", Expect::Absent, false),
        ("there", Expect::Value(b"1"), true),
        ("there", Expect::Value(b"2"), false),
        ("none", Expect::Present, false),
        ("none", Expect::Absent, true),
        ("none", Expect::Value(b"1"), false),
        ("none", Expect::Value(b""), false),
    ];
    for flushed in [false, true] {
        if flushed {
            db.flush().unwrap();
        }
        for (key, expect, holds) in cases {
            let before = db.visible_seq();
            let mut batch = db.batch();
            batch.require(&a, key, expect).put(&a, "mark", "m");
            if holds {
                batch.commit().unwrap();
                a.delete("mark").unwrap();
            } else {
                let e = fails(batch.commit(), ErrorKind::Conflict);
                assert!(e.is_conflict() && !e.is_retryable());
                assert_eq!(db.visible_seq(), before);
                assert!(!a.contains("mark").unwrap());
            }
        }
    }
}

#[test]
fn every_expectation_of_a_range() {
    let (_dir, db) = fresh();
    let a = db.keyspace("a").unwrap();
    a.put("b", "1").unwrap();
    a.put("d", "1").unwrap();
    a.delete("d").unwrap();
    for flushed in [false, true] {
        if flushed {
            db.flush().unwrap();
        }
        let holds = |from: &str, to: &str, expect: Expect| {
            let mut batch = db.batch();
            batch.require_range(&a, from..to, expect);
            match batch.commit() {
                Ok(_) => true,
                Err(e) if e.is_conflict() => false,
                Err(e) => panic!("{e:?}"),
            }
        };
        assert!(holds("a", "c", Expect::Present) && !holds("a", "c", Expect::Absent));
        assert!(holds("c", "e", Expect::Absent) && !holds("c", "e", Expect::Present));
    }
    let mut batch = db.batch();
    batch.require_range(&a, "a".."b", Expect::Value(b"1"));
    fails(batch.commit(), ErrorKind::Invalid);
    let mut batch = db.batch();
    batch.require_range(&a, "b".."a", Expect::Absent);
    fails(batch.commit(), ErrorKind::Invalid);
}

#[test]
fn unchanged_means_not_written_since() {
    let (_dir, db) = fresh();
    let a = db.keyspace("a").unwrap();
    a.put("k", "1").unwrap();
    a.put("other", "1").unwrap();
    let unchanged = |snapshot, key: &str| {
        let mut batch = db.batch();
        batch.require(&a, key, Expect::Unchanged(snapshot)).put(&a, "mark", "m");
        batch.commit().is_ok()
    };
    let unchanged_range = |snapshot, from: &str, to: &str| {
        let mut batch = db.batch();
        batch.require_range(&a, from..to, Expect::Unchanged(snapshot)).put(&a, "mark", "m");
        batch.commit().is_ok()
    };
    let snapshot = db.snapshot();
    assert!(unchanged(&snapshot, "k") && unchanged(&snapshot, "none"));
    assert!(unchanged_range(&snapshot, "a", "l"));
    a.put("k", "2").unwrap();
    assert!(!unchanged(&snapshot, "k") && unchanged(&snapshot, "other"));
    assert!(!unchanged_range(&snapshot, "a", "l") && unchanged_range(&snapshot, "n", "z"));
    // The evidence outlives flushes and merges.
    db.flush().unwrap();
    settle(&db);
    assert!(!unchanged(&snapshot, "k") && unchanged(&snapshot, "other"));

    // Deleting counts, of a key, of a range, and of what was not there.
    let snapshot = db.snapshot();
    a.delete("k").unwrap();
    assert!(!unchanged(&snapshot, "k"));
    a.delete_range("o".."p").unwrap();
    assert!(!unchanged(&snapshot, "other") && !unchanged_range(&snapshot, "o", "z"));
    db.flush().unwrap();
    settle(&db);
    assert!(!unchanged(&snapshot, "k") && !unchanged(&snapshot, "other"));
}

#[test]
fn conditions_are_checked_before_the_batch_and_together() {
    let (_dir, db) = fresh();
    let (a, b) = (db.keyspace("a").unwrap(), db.keyspace("b").unwrap());
    let mut batch = db.batch();
    // About the state before: the batch's own put does not count.
    batch.put(&a, "k", "v").require(&a, "k", Expect::Absent).require(&b, "k", Expect::Absent);
    batch.commit().unwrap();
    let mut batch = db.batch();
    batch.put(&a, "l", "v").require(&a, "k", Expect::Present).require(&b, "k", Expect::Present);
    fails(batch.commit(), ErrorKind::Conflict);
    // The batch is as it was; once the condition holds, it goes through.
    b.put("k", "v").unwrap();
    batch.commit().unwrap();
    assert!(a.contains("l").unwrap());
    // Emptied by success, conditions and all.
    b.delete("k").unwrap();
    batch.put(&a, "m", "v").commit().unwrap();
}

/// Counters raised by several threads at once, each by reading and then requiring what it read:
/// none is lost.
#[test]
fn compare_and_swap_loses_nothing() {
    let (_dir, db) = fresh();
    let a = db.keyspace("a").unwrap();
    a.put("n", 0u64.to_be_bytes()).unwrap();
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for _ in 0..100 {
                    loop {
                        let old = a.get("n").unwrap().unwrap();
                        let n = u64::from_be_bytes(old[..].try_into().unwrap());
                        let mut batch = db.batch();
                        batch.require(&a, "n", Expect::Value(&old)).put(&a, "n", (n + 1).to_be_bytes());
                        match batch.commit() {
                            Ok(_) => break,
                            Err(e) => assert!(e.is_conflict(), "{e:?}"),
                        }
                    }
                }
            });
        }
    });
    assert_eq!(a.get("n").unwrap().unwrap(), 400u64.to_be_bytes());
}
