//! What is durable when: tickets, watches, durable snapshots.

use super::{buffered, fails, fresh, settle};
use esker::fs::sim::SimFs;
use esker::{Db, Durability, ErrorKind, Options};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// A waker that puts a word into a channel: all the runtime a future needs.
struct Bell(Sender<()>);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        let _ = self.0.send(());
    }
}

fn bell() -> (Waker, Receiver<()>) {
    let (send, receive) = channel();
    (Arc::new(Bell(send)).into(), receive)
}

fn block_on<F: Future>(future: F) -> F::Output {
    let (waker, rung) = bell();
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(out) => return out,
            Poll::Pending => rung.recv_timeout(LONG).expect("to be woken"),
        }
    }
}

#[test]
fn a_ticket_is_kept_once_the_commit_is_durable() {
    let (_dir, db) = fresh();
    let a = db.keyspace("a").unwrap();
    let mut batch = db.batch();
    let mut last = db.visible_seq();
    for i in 0..20u64 {
        batch.put(&a, i.to_be_bytes(), "v");
        let ticket = batch.submit().unwrap();
        assert!(batch.is_empty());
        assert!(a.contains(i.to_be_bytes()).unwrap(), "readable before it is durable");
        assert!(ticket.seq() > last);
        last = ticket.seq();
        match i % 3 {
            0 => assert_eq!(ticket.wait().unwrap(), last),
            1 => assert_eq!(ticket.wait_timeout(LONG).unwrap(), Some(last)),
            _ => assert_eq!(block_on(ticket).unwrap(), last),
        }
        assert!(db.durable_seq() >= last);
    }
}

#[test]
fn tickets_are_kept_in_the_order_of_commits() {
    let (_dir, db) = fresh();
    let a = db.keyspace("a").unwrap();
    let tickets: Vec<_> =
        (0..50u64).map(|i| db.batch().put(&a, i.to_be_bytes(), "v").submit().unwrap()).collect();
    tickets[49].wait().unwrap();
    assert!(tickets.iter().all(|t| t.is_done()));
    assert!(tickets.windows(2).all(|w| w[0].seq() < w[1].seq()));
}

#[test]
fn a_ticket_survives_its_database_handle() {
    let (dir, db) = fresh();
    let a = db.keyspace("a").unwrap();
    let ticket = db.batch().put(&a, "k", "v").submit().unwrap();
    drop((a, db));
    ticket.wait().unwrap();
    let db = Db::open(dir.path(), buffered()).unwrap();
    assert!(db.keyspace("a").unwrap().contains("k").unwrap());
}

#[test]
fn a_closed_database_has_kept_its_tickets() {
    let (_dir, db) = fresh();
    let a = db.keyspace("a").unwrap();
    let ticket = db.batch().put(&a, "k", "v").submit().unwrap();
    db.close().unwrap();
    assert_eq!(ticket.wait().unwrap(), ticket.seq());
    assert!(ticket.is_done());
}

#[test]
fn a_durable_snapshot_holds_what_survives() {
    let sim = Arc::new(SimFs::new(1));
    let options = buffered().workers(0).fs(sim);
    let db = Db::open("/db", options).unwrap();
    let a = db.keyspace("a").unwrap();
    a.put("k", "1").unwrap();
    db.sync().unwrap();
    let seq = db.visible_seq();
    a.put("k", "2").unwrap();
    assert!(db.durable_seq() < db.visible_seq());
    let durable = db.durable_snapshot();
    assert_eq!(durable.seq(), seq);
    assert_eq!(a.at(&durable).get("k").unwrap().unwrap(), "1");
    // Neither flushing nor merging takes away what it reads.
    db.flush().unwrap();
    a.put("k", "3").unwrap();
    db.flush().unwrap();
    settle(&db);
    assert_eq!(a.at(&durable).get("k").unwrap().unwrap(), "1");
    db.sync().unwrap();
    assert_eq!(a.at(&db.durable_snapshot()).get("k").unwrap().unwrap(), "3");
}

#[test]
fn a_watch_sees_what_it_has_not_seen() {
    let (_dir, db) = fresh();
    let a = db.keyspace("a").unwrap();
    let first = a.put("k", "1").unwrap();
    let mut visible = db.watch(Durability::Buffered);
    assert_eq!(visible.wait().unwrap(), first, "the first call returns at once");
    assert_eq!(visible.wait_timeout(Duration::ZERO).unwrap(), None);
    let second = a.put("k", "2").unwrap();
    assert_eq!(visible.wait_timeout(LONG).unwrap(), Some(second));
    a.put("k", "3").unwrap();
    let fourth = a.put("k", "4").unwrap();
    assert_eq!(block_on(visible.changed()).unwrap(), fourth, "several commits may be one change");
}

#[test]
fn a_watch_for_durable_commits_waits_for_a_sync() {
    let sim = Arc::new(SimFs::new(1));
    let db = Db::open("/db", buffered().workers(0).fs(sim)).unwrap();
    let a = db.keyspace("a").unwrap();
    db.sync().unwrap();
    let mut watch = db.watch(Durability::Sync);
    watch.wait().unwrap();
    let seq = a.put("k", "1").unwrap();
    assert_eq!(watch.wait_timeout(Duration::ZERO).unwrap(), None, "visible is not durable");
    db.sync().unwrap();
    assert_eq!(watch.wait_timeout(LONG).unwrap(), Some(seq));
}

#[test]
fn a_watch_wakes_from_another_thread() {
    let (_dir, db) = fresh();
    let a = db.keyspace("a").unwrap();
    for durability in [Durability::Buffered, Durability::Sync] {
        db.sync().unwrap();
        let mut watch = db.watch(durability);
        let mut seen = watch.wait().unwrap();
        let last = seen.get() + 50;
        std::thread::scope(|s| {
            s.spawn(|| {
                for i in 0..50u64 {
                    a.put(i.to_be_bytes(), "v").unwrap();
                }
                db.sync().unwrap();
            });
            while seen.get() < last {
                let next = watch.wait_timeout(LONG).unwrap().expect("to be woken");
                assert!(next > seen, "each time further");
                assert!(durability == Durability::Buffered || next <= db.durable_seq());
                seen = next;
            }
        });
    }
}

#[test]
fn a_future_that_is_dropped_takes_its_waker_along() {
    let (_dir, db) = fresh();
    let mut watch = db.watch(Durability::Buffered);
    watch.wait().unwrap();
    let (waker, rung) = bell();
    let mut changed = Box::pin(watch.changed());
    let poll = Pin::as_mut(&mut changed).poll(&mut Context::from_waker(&waker));
    assert!(poll.is_pending());
    drop(changed);
    drop(waker);
    db.keyspace("a").unwrap().put("k", "v").unwrap();
    // All that held the waker let go of it, at the latest with the next wake.
    while rung.try_recv().is_ok() {}
    assert!(watch.wait_timeout(LONG).unwrap().is_some());
}

#[test]
fn a_close_ends_every_watch() {
    let (_dir, db) = fresh();
    db.keyspace("a").unwrap();
    let mut watch = db.watch(Durability::Buffered);
    watch.wait().unwrap();
    std::thread::scope(|s| {
        let waiting = s.spawn(|| watch.wait());
        db.close().unwrap();
        fails(waiting.join().unwrap(), ErrorKind::Closed);
    });
}

#[test]
fn sync_is_the_default() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), Options::default()).unwrap();
    let a = db.keyspace("a").unwrap();
    let seq = a.put("k", "v").unwrap();
    assert!(db.durable_seq() >= seq);
    let seq = db.batch().put(&a, "k", "w").commit_with(Durability::Buffered).unwrap();
    assert!(db.visible_seq() >= seq);
}
