//! Two processes and the real disk: one writes and is killed, the other looks at what is left.

use crate::rng::Rng;
use esker::{Db, Durability, ErrorKind, Keyspace, Options};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What the writing process is to do, by way of its environment.
const DIR: &str = "ESKER_TEST_DIR";
const JOB: &str = "ESKER_TEST_JOB";

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

/// Not a test of its own: the process that is killed.
#[test]
#[ignore = "started by the other tests of this file"]
fn writer() {
    let (Ok(dir), Ok(job)) = (std::env::var(DIR), std::env::var(JOB)) else { return };
    let job: Vec<&str> = job.split(' ').collect();
    match job[..] {
        ["batches", mapped] => write_batches(Path::new(&dir), mapped == "true"),
        ["pairs", count, from] => {
            Pairs { count: count.parse().unwrap() }.write(Path::new(&dir), from.parse().unwrap())
        }
        _ => panic!("no such job: {job:?}"),
    }
}

fn tell(n: u64) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "wrote {n}").unwrap();
    out.flush().unwrap();
}

/// Starts the writer; what it tells.
fn start(dir: &Path, job: &str) -> (Child, impl Iterator<Item = u64> + use<>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["process::writer", "--exact", "--ignored", "--nocapture"]);
    command.env(DIR, dir).env(JOB, job).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The first line may follow words of the test harness.
    (child, lines.filter_map(|line| line.ok()?.split_once("wrote ")?.1.parse().ok()))
}

/// One batch after another over two keyspaces, each told once it is committed.
fn write_batches(dir: &Path, mapped: bool) {
    let db = Db::open(dir, small(mapped)).unwrap();
    let (a, b) = (db.keyspace("a").unwrap(), db.keyspace("b").unwrap());
    let first = a.iter().count() as u64;
    for n in first.. {
        let mut batch = db.batch();
        batch.put(&a, n.to_be_bytes(), [n as u8; 100]).put(&b, n.to_be_bytes(), "").put(
            &b,
            "last",
            n.to_be_bytes(),
        );
        batch.commit().unwrap();
        tell(n);
    }
}

fn kill_and_look(mapped: bool) {
    let dir = tempfile::tempdir().unwrap();
    let mut told = 0;
    for round in 0..4 {
        let (mut child, mut wrote) = start(dir.path(), &format!("batches {mapped}"));
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

/// So many pairs of 16 and 100 bytes, written in random order, then overwritten in another one:
/// operation n for n below `count`, then those up to twice that.
#[derive(Clone, Copy)]
struct Pairs {
    count: u64,
}

impl Pairs {
    /// Primes, larger than any count: steps that meet every pair once.
    const STEPS: [u64; 2] = [6_700_417, 479_001_599];

    /// Which pair an operation writes.
    fn pair(self, op: u64) -> u64 {
        let step = Self::STEPS[(op / self.count) as usize];
        (u128::from(op % self.count) * u128::from(step) % u128::from(self.count)) as u64
    }

    /// Scattered over the whole range of keys, and the pair's number again.
    fn key(pair: u64) -> [u8; 16] {
        let mut out = [0; 16];
        out[..8].copy_from_slice(&pair.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        out[8..].copy_from_slice(&pair.to_be_bytes());
        out
    }

    /// The operation that wrote it, and noise that follows from it.
    fn value(op: u64) -> [u8; 100] {
        let mut out = [b'.'; 100];
        let mut rng = Rng::new(op);
        for chunk in out[..56].chunks_mut(8) {
            chunk.copy_from_slice(&rng.next().to_le_bytes());
        }
        out[..8].copy_from_slice(&op.to_be_bytes());
        out
    }

    fn options(self) -> Options {
        // The usual settings where there is enough to fill them.
        let options = Options::default().durability(Durability::Buffered);
        if self.count < 1 << 20 { options.memtable_bytes(256 << 10).segment_bytes(1 << 20) } else { options }
    }

    fn write(self, dir: &Path, from: u64) {
        let db = Db::open(dir, self.options()).unwrap();
        let a = db.keyspace("a").unwrap();
        for op in from..2 * self.count {
            a.put(Self::key(self.pair(op)), Self::value(op)).unwrap();
            if op % 1000 == 999 {
                tell(op + 1);
            }
        }
        db.sync().unwrap();
    }

    /// Reads everything in every way; how many operations are there, all of them from the first on.
    fn check(self, a: &Keyspace) -> u64 {
        // The newest operation on each pair.
        let mut newest = vec![None; self.count as usize];
        let mut cursor = a.cursor(..);
        let mut before = None;
        while let Some((key, value)) = cursor.next().unwrap() {
            let pair = u64::from_be_bytes(key[8..].try_into().unwrap());
            let op = u64::from_be_bytes(value[..8].try_into().unwrap());
            assert!(key == Self::key(pair) && value == Self::value(op) && self.pair(op) == pair);
            assert!(before < Some(key.to_vec()), "in order, each once");
            before = Some(key.to_vec());
            newest[pair as usize] = Some(op);
        }
        let ops = newest.iter().flatten().max().map_or(0, |op| op + 1);
        let mut expected = vec![None; self.count as usize];
        for op in 0..ops {
            expected[self.pair(op) as usize] = Some(op);
        }
        assert!(newest == expected, "not what {ops} operations make");
        let there = newest.iter().flatten().count();
        assert_eq!(there as u64, ops.min(self.count));

        // Backward, owned.
        let mut back = a.iter().rev();
        let mut count = 0;
        for entry in back.by_ref() {
            let (key, value) = entry.unwrap().into_parts();
            let pair = u64::from_be_bytes(key[8..].try_into().unwrap());
            assert_eq!(value, Self::value(newest[pair as usize].unwrap()));
            count += 1;
        }
        assert_eq!(count, there);

        // One by one, and what is not there.
        let mut rng = Rng::new(ops);
        for _ in 0..self.count / 4 {
            let pair = rng.below(self.count as usize);
            let found = a.get(Self::key(pair as u64)).unwrap();
            assert!(found.as_deref() == newest[pair].map(Self::value).as_ref().map(|v| &v[..]));
            assert!(!a.contains(Self::key(self.count + pair as u64)).unwrap());
        }
        ops
    }

    /// Writes it all, killed after so many operations on the way.
    fn run(self, kills: &[u64]) {
        let dir = tempfile::tempdir().unwrap();
        let mut done = 0;
        for kill in kills.iter().chain(&[u64::MAX]) {
            let (mut child, mut wrote) = start(dir.path(), &format!("pairs {} {done}", self.count));
            let mut told = wrote.by_ref().find(|n| n >= kill).unwrap_or(0);
            if *kill < u64::MAX {
                child.kill().unwrap();
                child.wait().unwrap();
                told = wrote.last().unwrap_or(told);
            } else {
                assert!(child.wait().unwrap().success());
                told = 2 * self.count;
            }
            let db = Db::open(dir.path(), self.options()).unwrap();
            done = self.check(&db.keyspace("a").unwrap());
            assert!(done >= told, "{done} operations are there, {told} were told");
            println!("killed after {told} of {}: {done} are there", 2 * self.count);
            db.close().unwrap();
        }
        // Once more, after nothing but a clean close.
        let db = Db::open(dir.path(), self.options()).unwrap();
        assert_eq!(self.check(&db.keyspace("a").unwrap()), 2 * self.count);
    }
}

#[test]
fn pairs_survive_kills() {
    Pairs { count: 8_000 }.run(&[3_000, 9_000, 12_000]);
}

#[test]
#[ignore = "takes long: four million pairs"]
fn four_million_pairs_survive_kills() {
    Pairs { count: 4_000_000 }.run(&[1_000_000, 3_999_000, 5_000_000, 7_000_000]);
}
