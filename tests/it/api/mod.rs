//! The public face, case by case: what calls answer at their edges, and what their errors say.

mod conditions;
mod directory;
mod failures;
mod logs;
mod metrics;
mod recovery;
mod tickets;

use esker::{Db, Durability, Entry, Error, ErrorKind, Keyspace, Options, Result};
use tempfile::TempDir;

/// A fresh database in a folder of its own, written without syncs.
fn fresh() -> (TempDir, Db) {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), buffered()).unwrap();
    (dir, db)
}

fn buffered() -> Options {
    Options::default().durability(Durability::Buffered)
}

fn row(entry: Result<Entry>) -> (Vec<u8>, Vec<u8>) {
    let entry = entry.unwrap();
    (entry.key().to_vec(), entry.value().to_vec())
}

/// The keys of a keyspace, as text.
fn keys(keyspace: &Keyspace) -> Vec<String> {
    keyspace.iter().map(|e| String::from_utf8(row(e).0).unwrap()).collect()
}

/// Does all background work there is, or leaves it to whom it belongs.
fn settle(db: &Db) {
    db.flush().unwrap();
    while db.step().unwrap() {}
}

/// Insists on the kind of an error, and hands it on.
#[track_caller]
fn fails<T>(result: Result<T>, kind: ErrorKind) -> Error {
    match result {
        Ok(_) => panic!("succeeded, should have failed with {kind:?}"),
        Err(e) => {
            assert_eq!(e.kind(), kind, "{e:?}");
            e
        }
    }
}

#[test]
fn types_can_be_shared_and_sent() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    fn sent<T: Send + 'static>() {}
    shared::<Db>();
    shared::<Keyspace>();
    shared::<esker::KeyspaceView>();
    shared::<esker::Snapshot>();
    shared::<Error>();
    shared::<esker::Value>();
    shared::<Options>();
    sent::<esker::Batch>();
    sent::<esker::Ticket>();
    sent::<esker::Watch>();
    sent::<esker::Iter>();
    sent::<esker::Cursor>();
}

#[test]
fn keys_and_values_have_limits() {
    let (_dir, db) = fresh();
    let a = db.keyspace("a").unwrap();
    let longest = vec![7; esker::MAX_KEY_LEN];
    let too_long = vec![7; esker::MAX_KEY_LEN + 1];
    a.put(&longest, "v").unwrap();
    assert!(a.get(&longest).unwrap().is_some());
    a.put("", "the empty key").unwrap();
    assert_eq!(a.get("").unwrap().unwrap(), "the empty key");
    let before = db.visible_seq();
    fails(a.put(&too_long, "v"), ErrorKind::Invalid);
    fails(a.delete(&too_long), ErrorKind::Invalid);
    fails(a.put("k", vec![0; esker::MAX_VALUE_LEN + 1]), ErrorKind::Invalid);
    fails(a.delete_range([&too_long[..], b"x"].concat()..), ErrorKind::Invalid);
    assert_eq!(db.visible_seq(), before);
    // Reading what can never be there is as wrong as writing it.
    fails(a.get(&too_long), ErrorKind::Invalid);
    fails(a.multi_get([&too_long]), ErrorKind::Invalid);
    fails(a.range([too_long, vec![0]].concat()..).next().unwrap(), ErrorKind::Invalid);
}

#[test]
fn a_batch_remembers_its_first_bad_operation() {
    let (_dir, db) = fresh();
    let a = db.keyspace("a").unwrap();
    let mut batch = db.batch();
    batch.put(&a, "k", "v").put(&a, vec![0; esker::MAX_KEY_LEN + 1], "v").delete_range(&a, "b".."a");
    let e = fails(batch.commit(), ErrorKind::Invalid);
    assert!(e.to_string().contains("operation 1"), "{e}");
    fails(batch.submit(), ErrorKind::Invalid);
    assert!(a.get("k").unwrap().is_none(), "nothing of it was written");
    batch.clear();
    assert!(batch.is_empty());
    batch.put(&a, "k", "v").commit().unwrap();
    assert_eq!(keys(&a), ["k"]);
}

#[test]
fn an_empty_batch_commits_at_the_present() {
    let (_dir, db) = fresh();
    let a = db.keyspace("a").unwrap();
    let seq = a.put("k", "v").unwrap();
    assert_eq!(db.batch().commit().unwrap(), seq);
    assert_eq!(db.batch().submit().unwrap().wait().unwrap(), seq);
    assert!(db.durable_seq() >= seq);
}

#[test]
fn later_operations_of_a_batch_win() {
    let (_dir, db) = fresh();
    let a = db.keyspace("a").unwrap();
    let mut batch = db.batch();
    batch
        .put(&a, "k", "1")
        .delete_range(&a, ..)
        .put(&a, "l", "2")
        .put(&a, "l", "3")
        .put(&a, "m", "4")
        .delete(&a, "m");
    assert_eq!(batch.len(), 6);
    assert!(batch.bytes() > 0);
    batch.commit().unwrap();
    assert_eq!(keys(&a), ["l"]);
    assert_eq!(a.get("l").unwrap().unwrap(), "3");
}

#[test]
fn reversed_ranges_are_errors_and_empty_ones_are_not() {
    let (_dir, db) = fresh();
    let a = db.keyspace("a").unwrap();
    a.put("k", "v").unwrap();
    fails(a.delete_range("b".."a"), ErrorKind::Invalid);
    let mut entries = a.range("b".."a");
    fails(entries.next().unwrap(), ErrorKind::Invalid);
    assert!(entries.next().is_none(), "fused after an error");
    assert!(entries.next_back().is_none());
    fails(a.cursor("b".."a").next().map(|_| ()), ErrorKind::Invalid);
    assert_eq!(a.range("k".."k").count(), 0);
    a.delete_range("k".."k").unwrap();
    assert_eq!(keys(&a), ["k"]);
}

#[test]
fn ranges_come_in_all_forms() {
    use std::ops::Bound::{Excluded, Unbounded};
    let (_dir, db) = fresh();
    let a = db.keyspace("a").unwrap();
    for key in ["a", "b", "b1", "b2", "c"] {
        a.put(key, "").unwrap();
    }
    let names = |r: esker::Iter| r.map(|e| String::from_utf8(row(e).0).unwrap()).collect::<Vec<_>>();
    assert_eq!(names(a.range("b".."c")), ["b", "b1", "b2"]);
    assert_eq!(names(a.range("b"..="c")), ["b", "b1", "b2", "c"]);
    assert_eq!(names(a.range("b1"..)), ["b1", "b2", "c"]);
    assert_eq!(names(a.range(.."b")), ["a"]);
    assert_eq!(names(a.range(..="b")), ["a", "b"]);
    assert_eq!(names(a.range(..)), ["a", "b", "b1", "b2", "c"]);
    assert_eq!(names(a.range((Excluded("b"), Unbounded::<&str>))), ["b1", "b2", "c"]);
    assert_eq!(names(a.range(esker::Prefix("b"))), ["b", "b1", "b2"]);
    assert_eq!(names(a.prefix("b")), ["b", "b1", "b2"]);
    assert_eq!(a.prefix("b").rev().count(), 3);
    a.delete_range(esker::Prefix("b")).unwrap();
    assert_eq!(keys(&a), ["a", "c"]);
}

#[test]
fn reads_without_allocation() {
    let (_dir, db) = fresh();
    let a = db.keyspace("a").unwrap();
    a.put("k", "value").unwrap();
    assert_eq!(a.get_with("k", |v| v.len()).unwrap(), Some(5));
    assert_eq!(a.get_with("none", |v| v.len()).unwrap(), None);
    let mut buf = b"old contents".to_vec();
    assert!(a.get_into("k", &mut buf).unwrap());
    assert_eq!(buf, b"value");
    assert!(!a.get_into("none", &mut buf).unwrap());
    let found = a.multi_get(["k", "none", "k"]).unwrap();
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true]);
}

#[test]
fn a_cursor_stands_between_entries() {
    let (_dir, db) = fresh();
    let a = db.keyspace("a").unwrap();
    for key in ["b", "d", "f"] {
        a.put(key, key).unwrap();
    }
    let mut c = a.cursor(..);
    assert!(c.prev().unwrap().is_none());
    assert_eq!(c.next().unwrap(), Some((&b"b"[..], &b"b"[..])));
    assert_eq!(c.prev().unwrap(), Some((&b"b"[..], &b"b"[..])), "over the same entry, back");
    c.seek("c").unwrap();
    assert_eq!(c.prev().unwrap().unwrap().0, b"b");
    c.seek("d").unwrap();
    assert_eq!(c.next().unwrap().unwrap().0, b"d");
    c.seek("z").unwrap();
    assert!(c.next().unwrap().is_none());
    assert!(c.next().unwrap().is_none());
    assert_eq!(c.prev().unwrap().unwrap().0, b"f");
    // A seek outside of the cursor's range stops at its edge.
    let mut c = a.cursor("c".."e");
    c.seek("a").unwrap();
    assert_eq!(c.next().unwrap().unwrap().0, b"d");
    c.seek("z").unwrap();
    assert_eq!(c.prev().unwrap().unwrap().0, b"d");
    assert!(c.prev().unwrap().is_none());
}

#[test]
fn names_of_keyspaces() {
    let (_dir, db) = fresh();
    assert!(db.names().unwrap().is_empty());
    let b = db.keyspace("b").unwrap();
    db.keyspace("a").unwrap();
    b.put("k", "v").unwrap();
    assert_eq!(
        db.names().unwrap(),
        [("a".into(), esker::Kind::Keyspace), ("b".into(), esker::Kind::Keyspace)]
    );
    // The same name is the same keyspace.
    assert_eq!(db.keyspace("b").unwrap().get("k").unwrap().unwrap(), "v");
    fails(db.keyspace(""), ErrorKind::Invalid);
    fails(db.keyspace(&"x".repeat(256)), ErrorKind::Invalid);
    db.keyspace(&"x".repeat(255)).unwrap();
    db.drop_keyspace("b").unwrap();
    fails(b.get("k"), ErrorKind::Closed);
    assert!(db.keyspace("b").unwrap().get("k").unwrap().is_none(), "anew and empty");
    fails(b.get("k"), ErrorKind::Closed);
}

#[test]
fn what_was_dropped_is_closed() {
    let (_dir, db) = fresh();
    let a = db.keyspace("a").unwrap();
    a.put("k", "v").unwrap();
    let snapshot = db.snapshot();
    let mut open_before = a.iter();
    db.drop_keyspace("a").unwrap();
    fails(a.get("k"), ErrorKind::Closed);
    fails(a.contains("k"), ErrorKind::Closed);
    fails(a.multi_get(["k"]), ErrorKind::Closed);
    fails(a.put("k", "w"), ErrorKind::Closed);
    fails(a.delete_range(..), ErrorKind::Closed);
    fails(a.clear(), ErrorKind::Closed);
    fails(a.iter().next().unwrap(), ErrorKind::Closed);
    let mut batch = db.batch();
    batch.put(&a, "k", "w");
    fails(batch.commit(), ErrorKind::Closed);
    fails(db.drop_keyspace("a"), ErrorKind::Invalid);
    // Whoever was there before goes on, also when the files would go.
    db.flush().unwrap();
    assert_eq!(a.at(&snapshot).get("k").unwrap().unwrap(), "v");
    assert_eq!(row(open_before.next().unwrap()).0, b"k");
}

#[test]
fn a_keyspace_replaced_has_the_new_contents_at_once() {
    let (_dir, db) = fresh();
    let (users, staging) = (db.keyspace("users").unwrap(), db.keyspace("staging").unwrap());
    users.put("old", "1").unwrap();
    staging.put("new", "2").unwrap();
    let before = db.snapshot();
    let mut batch = db.batch();
    batch.replace(&users, &staging);
    batch.commit().unwrap();
    assert_eq!(keys(&users), ["new"]);
    fails(staging.get("new"), ErrorKind::Closed);
    users.put("newer", "3").unwrap();
    assert_eq!(keys(&users), ["new", "newer"]);
    assert!(users.at(&before).contains("old").unwrap() && !users.at(&before).contains("new").unwrap());
    assert!(staging.at(&before).contains("new").unwrap());
    assert_eq!(db.names().unwrap().len(), 1);
}

#[test]
fn handles_of_another_database_are_refused() {
    let (_dir1, one) = fresh();
    let (_dir2, two) = fresh();
    let (a1, a2) = (one.keyspace("a").unwrap(), two.keyspace("a").unwrap());
    a2.put("k", "v").unwrap();
    let mut batch = one.batch();
    batch.put(&a1, "x", "y").put(&a2, "x", "y");
    let e = fails(batch.commit(), ErrorKind::Invalid);
    assert!(e.to_string().contains("operation 1"), "{e}");
    assert!(!a1.contains("x").unwrap());
    let foreign = two.snapshot();
    fails(a1.at(&foreign).get("k"), ErrorKind::Invalid);
    let mut batch = one.batch();
    batch.require(&a1, "k", esker::Expect::Unchanged(&foreign)).put(&a1, "k", "v");
    fails(batch.commit(), ErrorKind::Invalid);
    let b2 = two.keyspace("b").unwrap();
    let mut batch = one.batch();
    batch.replace(&a1, &b2);
    fails(batch.commit(), ErrorKind::Invalid);
}

#[test]
fn after_the_close() {
    let (dir, db) = fresh();
    let a = db.keyspace("a").unwrap();
    for i in 0..100 {
        a.put(format!("{i:03}"), "v").unwrap();
    }
    let (snapshot, mut entries) = (db.snapshot(), a.iter());
    entries.next().unwrap().unwrap();
    let other = db.clone();
    let mut batch = db.batch();
    batch.put(&a, "k", "v");
    db.close().unwrap();
    fails(a.put("k", "v"), ErrorKind::Closed);
    fails(batch.commit(), ErrorKind::Closed);
    fails(other.keyspace("b"), ErrorKind::Closed);
    fails(other.sync(), ErrorKind::Closed);
    fails(other.flush(), ErrorKind::Closed);
    assert!(fails(a.put("k", "v"), ErrorKind::Closed).is_final());
    // Snapshots and iterators go on.
    assert_eq!(a.at(&snapshot).get("007").unwrap().unwrap(), "v");
    assert_eq!(entries.count(), 99);
    // The directory is free, even while they live.
    let again = Db::open(dir.path(), buffered()).unwrap();
    assert_eq!(keys(&again.keyspace("a").unwrap()).len(), 100);
}

#[test]
fn dropping_the_last_handle_closes() {
    let (dir, db) = fresh();
    let a = db.keyspace("a").unwrap();
    drop(db);
    a.put("k", "v").unwrap();
    drop(a);
    let db = Db::open(dir.path(), buffered()).unwrap();
    assert_eq!(keys(&db.keyspace("a").unwrap()), ["k"]);
}

#[test]
fn iterators_outlive_all_that_changes_under_them() {
    let dir = tempfile::tempdir().unwrap();
    let options = buffered().memtable_bytes(4 << 10).table_bytes(4 << 10).workers(0);
    let db = Db::open(dir.path(), options).unwrap();
    let a = db.keyspace("a").unwrap();
    for i in 0..500 {
        a.put(format!("{i:04}"), [7; 40]).unwrap();
    }
    let (mut entries, mut cursor) = (a.iter(), a.cursor(..));
    entries.by_ref().take(10).for_each(|e| drop(e.unwrap()));
    cursor.next().unwrap();
    let kept = a.get("0100").unwrap().unwrap();
    db.flush().unwrap();
    a.clear().unwrap();
    for i in 0..500 {
        a.put(format!("x{i:04}"), [8; 40]).unwrap();
    }
    db.flush().unwrap();
    settle(&db);
    db.drop_keyspace("a").unwrap();
    db.flush().unwrap();
    while db.step().unwrap() {}
    drop((a, db));
    let rest: Vec<_> = entries.map(row).collect();
    assert_eq!(rest.len(), 490);
    assert!(rest.iter().all(|(_, v)| *v == [7; 40]));
    let mut n = 1;
    while let Some((_, value)) = cursor.next().unwrap() {
        assert_eq!(value, [7; 40]);
        n += 1;
    }
    assert_eq!(n, 500);
    assert_eq!(kept, [7; 40]);
}

#[test]
fn values_become_bytes() {
    let (_dir, db) = fresh();
    let a = db.keyspace("a").unwrap();
    for len in [0, 1, 30, 31, 5000] {
        a.put("k", vec![3; len]).unwrap();
        for flushed in [false, true] {
            if flushed {
                db.flush().unwrap();
            }
            let value = a.get("k").unwrap().unwrap();
            assert_eq!(value, vec![3; len]);
            assert_eq!(value.clone().detach(), vec![3; len]);
            assert_eq!(bytes::Bytes::from(value), vec![3; len]);
        }
    }
}
