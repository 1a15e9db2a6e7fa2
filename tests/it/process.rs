//! Two processes and the real disk: one writes and is killed, the other looks at what is left.

use esker::{Db, Durability, ErrorKind, Options};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const DIR: &str = "ESKER_TEST_DIR";
const MAPPED: &str = "ESKER_TEST_MAPPED";

/// Small enough that rotations, flushes and merges happen all the time.
fn small(mapped: bool) -> Options {
    Options::default()
        .durability(Durability::Buffered)
        .memtable_bytes(16 << 10)
        .segment_bytes(64 << 10)
        .journal_bytes(512 << 10)
        .table_bytes(16 << 10)
        .workers(1)
        .mapped(mapped)
}

/// Not a test of its own: the process that is killed. One batch after another over two keyspaces,
/// each told once it is committed.
#[test]
#[ignore = "started by the other tests of this file"]
fn writer() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let db = Db::open(&dir, small(std::env::var(MAPPED).is_ok())).unwrap();
    let (a, b) = (db.keyspace("a").unwrap(), db.keyspace("b").unwrap());
    let first = a.iter().count() as u64;
    let mut out = std::io::stdout().lock();
    for n in first.. {
        let mut batch = db.batch();
        batch.put(&a, n.to_be_bytes(), [n as u8; 100]).put(&b, n.to_be_bytes(), "").put(
            &b,
            "last",
            n.to_be_bytes(),
        );
        batch.commit().unwrap();
        writeln!(out, "wrote {n}").unwrap();
        out.flush().unwrap();
    }
}

/// Starts the writer; what it tells.
fn start(dir: &Path, mapped: bool) -> (Child, impl Iterator<Item = u64> + use<>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["process::writer", "--exact", "--ignored", "--nocapture"]);
    command.env(DIR, dir).stdout(Stdio::piped()).stderr(Stdio::inherit());
    if mapped {
        command.env(MAPPED, "1");
    }
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The first line may follow words of the test harness.
    (child, lines.filter_map(|line| line.ok()?.split_once("wrote ")?.1.parse().ok()))
}

fn kill_and_look(mapped: bool) {
    let dir = tempfile::tempdir().unwrap();
    let mut told = 0;
    for round in 0..4 {
        let (mut child, mut wrote) = start(dir.path(), mapped);
        told = wrote.by_ref().find(|n| *n >= told + 150 + 400 * round).expect("the writer to go on");
        if round == 0 {
            let e = Db::open(dir.path(), small(mapped)).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Locked);
            assert!(e.to_string().contains(&child.id().to_string()), "{e}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        told = wrote.last().unwrap_or(told);

        let db = Db::open(dir.path(), small(mapped)).unwrap();
        let (a, b) = (db.keyspace("a").unwrap(), db.keyspace("b").unwrap());
        let mut count = 0u64;
        for entry in a.iter() {
            let entry = entry.unwrap();
            assert_eq!(*entry.key(), count.to_be_bytes());
            assert_eq!(*entry.value(), [count as u8; 100]);
            count += 1;
        }
        // All that was told is there, and nothing in part.
        assert!(count > told, "{count} batches are there, {told} was told");
        assert_eq!(b.iter().count() as u64, count + 1);
        assert_eq!(b.get("last").unwrap().unwrap(), (count - 1).to_be_bytes());
    }
}

#[test]
fn a_killed_writer_loses_nothing_it_was_told_about() {
    kill_and_look(false);
}

#[test]
fn a_killed_writer_loses_nothing_it_had_mapped() {
    kill_and_look(true);
}
