//! What an opening says of what it found.

use crate::hook::{Doing, HookFs};
use esker::fs::Fs;
use esker::fs::sim::SimFs;
use esker::{Db, Durability, Keyspace, Options, Recovery};
use std::path::Path;
use std::sync::{Arc, Mutex};

const DIR: &str = "/db";

fn on(sim: &SimFs) -> Options {
    Options::default()
        .workers(0)
        .durability(Durability::Buffered)
        .segment_bytes(64 << 10)
        .mapped(false)
        .fs(Arc::new(sim.clone()))
}

/// A disk with a database that was left without a close after these commits, all of them synced.
fn left(commits: u32) -> SimFs {
    let sim = SimFs::new(1);
    let db = Db::open(DIR, on(&sim)).unwrap();
    let a = db.keyspace("a").unwrap();
    for i in 1..commits {
        a.put(i.to_be_bytes(), [7; 100]).unwrap();
    }
    db.sync().unwrap();
    sim.crash(0)
}

fn opened(sim: &SimFs) -> Recovery {
    Db::open(DIR, on(sim)).unwrap().recovery().clone()
}

/// The journal segment that was written last.
fn journal(sim: &SimFs) -> std::path::PathBuf {
    let holds = |path: &Path| sim.read(path).unwrap().windows(100).any(|bytes| bytes == [7; 100]);
    let mut journals = sim.files().into_iter().map(|(path, _)| path);
    journals.rfind(|path| path.extension().is_some_and(|e| e == "journal") && holds(path)).unwrap()
}

#[test]
fn a_new_database_was_created() {
    let sim = SimFs::new(1);
    let db = Db::open(DIR, on(&sim)).unwrap();
    let found = db.recovery();
    assert!(found.created && found.torn.is_none());
    assert_eq!((found.commits, found.bytes, found.rewritten, found.removed), (0, 0, 0, 0));
    assert_eq!(found.to_string(), "created");
    db.close().unwrap();
    let again = opened(&sim);
    assert!(!again.created);
    assert_eq!((again.commits, again.torn), (0, None));
}

#[test]
fn what_was_left_in_the_journal_is_counted() {
    let sim = left(10);
    let found = opened(&sim);
    assert!(!found.created && found.torn.is_none(), "{found:?}");
    assert_eq!(found.commits, 10, "nine puts, and the row of the keyspace");
    assert!(found.bytes > 9 * 100 && found.bytes < 64 << 10, "{found:?}");
    let text = found.to_string();
    assert!(
        text.starts_with(&format!("replayed 10 commits from {} bytes of journal", found.bytes)),
        "{text}"
    );
}

#[test]
fn a_torn_tail_is_named_by_file_and_place() {
    let sim = left(10);
    let path = journal(&sim);
    // Only the last sync vouched for the last record, and the hint went with the power.
    let mut tail = 0;
    sim.damage(&path, |bytes| {
        let last = bytes.windows(100).rposition(|w| w == [7; 100]).unwrap();
        bytes[last] ^= 1;
        tail = last as u64;
    })
    .unwrap();
    let db = Db::open(DIR, on(&sim)).unwrap();
    let found = db.recovery();
    assert_eq!(found.commits, 9);
    let torn = found.torn.as_ref().unwrap();
    assert_eq!(torn.file, path);
    // The record begins with its header, before the value that was hit.
    assert!(torn.offset < tail && tail < torn.offset + torn.bytes && torn.offset + 200 > tail, "{torn:?}");
    assert!(found.to_string().ends_with(&format!("a torn tail of {} bytes at {}", torn.bytes, torn.offset)));
    assert_eq!(db.keyspace("a").unwrap().iter().count(), 8);
}

#[test]
fn what_is_not_vouched_for_is_written_again() {
    // Not synced: some of what a power loss may leave holds it, and nothing says that it is on disk.
    let sim = SimFs::new(1);
    let db = Db::open(DIR, on(&sim)).unwrap();
    db.keyspace("a").unwrap().put("k", [7; 1000]).unwrap();
    let mut survived = 0;
    for choice in 0..sim.states_at(sim.ops()) {
        let disk = sim.crash(choice);
        let found = opened(&disk);
        assert!(found.rewritten > 0 || found.commits == 0, "{found:?}");
        survived += found.commits;
        assert_eq!(opened(&disk).rewritten, 0, "it was synced then");
    }
    assert!(survived > 0);
}

#[test]
fn files_left_over_are_removed_and_counted() {
    let sim = left(10);
    let strays = ["900000.table", "900001.table", "900002.journal"].map(|name| Path::new(DIR).join(name));
    for path in &strays {
        sim.create(path).unwrap();
    }
    let found = opened(&sim);
    assert_eq!(found.removed, 3);
    assert!(!sim.files().iter().any(|(path, _)| strays.contains(path)));
    assert_eq!(opened(&sim).removed, 0);
}

/// A commit that is appended while a sync is under way does not know yet what that makes durable; the
/// next sync says so first, with a mark. Else damage to the commit before it, which was acknowledged as
/// durable two syncs ago, would pass for a torn tail once the power had gone.
#[test]
fn what_a_commit_beside_a_sync_could_not_say_is_said_by_a_mark() {
    let sim = SimFs::new(1);
    let beside = Arc::new(Mutex::new(None::<Keyspace>));
    let armed = beside.clone();
    let fs = HookFs::new(Arc::new(sim.clone()), move |doing, path| {
        if doing == Doing::Sync && path.extension().is_some_and(|e| e == "journal") {
            let keyspace = armed.lock().unwrap().take();
            if let Some(a) = keyspace {
                a.put("beside", "the sync").unwrap();
            }
        }
    });
    let db = Db::open(DIR, on(&sim).fs(fs)).unwrap();
    let a = db.keyspace("a").unwrap();
    db.sync().unwrap();
    a.put("first", "durable two syncs ago").unwrap();
    *beside.lock().unwrap() = Some(a.clone());
    db.sync().unwrap();
    assert!(beside.lock().unwrap().is_none() && db.durable_seq() < db.visible_seq());
    db.sync().unwrap();
    assert_eq!(db.durable_seq(), db.visible_seq());
    let left = sim.crash(0);
    let sound = Db::open(DIR, on(&left.crash(1))).unwrap();
    assert_eq!(sound.keyspace("a").unwrap().iter().count(), 2);
    let text = b"durable two syncs ago";
    let mut harmed = 0;
    for (path, _) in left.files() {
        left.damage(&path, |bytes| {
            let found: Vec<usize> =
                bytes.windows(text.len()).enumerate().filter(|w| w.1 == text).map(|w| w.0).collect();
            harmed += found.len();
            found.into_iter().for_each(|at| bytes[at] ^= 1);
        })
        .unwrap();
    }
    assert_eq!(harmed, 1);
    let refused = Db::open(DIR, on(&left)).unwrap_err();
    assert!(refused.is_corruption() && refused.file().is_some(), "{refused:?}");
}
