//! Many pairs of 16 + 100 bytes: written at random, overwritten, killed on the way, and read back:
//! by key, forward and backward. `ESKER_PAIRS=4000000 cargo test --release pairs -- --nocapture` for
//! a size that leaves memory.

use crate::rng::Rng;
use esker::{Db, Durability, Keyspace, Options};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

const DIR: &str = "ESKER_PAIRS_DIR";
const PAIRS: &str = "ESKER_PAIRS";
/// Operations that are committed together, with the count of all so far.
const BATCH: u64 = 100;

fn pairs() -> u64 {
    std::env::var(PAIRS).ok().and_then(|n| n.parse().ok()).unwrap_or(40_000)
}

fn mix(n: u64) -> u64 {
    let mut x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ (x >> 31)
}

fn key(i: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key.copy_from_slice(format!("{:016x}", mix(i)).as_bytes());
    key
}

/// Which pair operation `n` writes: each once, then any of them.
fn target(n: u64, pairs: u64) -> u64 {
    if n < pairs { n } else { mix(!n) % pairs }
}

fn value(n: u64) -> [u8; 100] {
    let mut value = [b'.'; 100];
    value[..8].copy_from_slice(&n.to_le_bytes());
    value[8..16].copy_from_slice(&mix(n).to_le_bytes());
    value
}

fn open(dir: &Path) -> (Db, Keyspace, Keyspace) {
    let memtable = if pairs() < 1_000_000 { 256 << 10 } else { 32 << 20 };
    let options = Options::default().durability(Durability::Buffered).memtable_bytes(memtable).workers(2);
    let db = Db::open(dir, options).unwrap();
    let (data, count) = (db.keyspace("data").unwrap(), db.keyspace("count").unwrap());
    (db, data, count)
}

fn done(count: &Keyspace) -> u64 {
    count.get("n").unwrap().map_or(0, |n| u64::from_le_bytes(n[..].try_into().unwrap()))
}

/// Not a test: what the test kills.
#[test]
#[ignore = "started by the other test of this file"]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let (db, data, count) = open(Path::new(&dir));
    let pairs = pairs();
    let mut batch = db.batch();
    for from in (done(&count)..2 * pairs).step_by(BATCH as usize) {
        for n in from..from + BATCH {
            batch.put(&data, key(target(n, pairs)), value(n));
        }
        batch.put(&count, "n", (from + BATCH).to_le_bytes()).commit().unwrap();
        if from % (pairs / 20).next_multiple_of(BATCH) == 0 {
            println!("acked {}", from + BATCH);
        }
    }
    println!("acked {}", 2 * pairs);
}

/// Runs the writer until it has acknowledged `until`, then kills it. What it acknowledged last.
fn run(dir: &Path, until: u64) -> u64 {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["pairs::child", "--exact", "--ignored", "--nocapture"]);
    command.env(DIR, dir).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().unwrap();
    let mut acked = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some((_, n)) = line.split_once("acked ") {
            acked = n.trim().parse().unwrap();
            if acked >= until {
                break;
            }
        }
    }
    let _ = child.kill();
    child.wait().unwrap();
    acked
}

/// Everything up to operation `n` is there, and nothing else; told by key and by scans both ways.
fn check(data: &Keyspace, n: u64, pairs: u64, rng: &mut Rng) {
    let mut last = vec![u64::MAX; pairs as usize];
    (0..n).for_each(|n| last[target(n, pairs) as usize] = n);
    let mut expect: Vec<([u8; 16], u64)> =
        (0..pairs).zip(&last).filter(|(_, n)| **n != u64::MAX).map(|(i, &n)| (key(i), n)).collect();
    expect.sort_unstable();
    let mut cursor = data.cursor(..);
    for (key, n) in &expect {
        assert_eq!(cursor.next().unwrap(), Some((&key[..], &value(*n)[..])));
    }
    assert_eq!(cursor.next().unwrap(), None);
    for (key, n) in expect.iter().rev() {
        assert_eq!(cursor.prev().unwrap(), Some((&key[..], &value(*n)[..])));
    }
    assert_eq!(cursor.prev().unwrap(), None);
    for _ in 0..20_000 {
        let i = rng.below(pairs as usize * 2) as u64;
        let expect = last.get(i as usize).filter(|n| **n != u64::MAX).map(|&n| value(n));
        assert_eq!(data.get(key(i)).unwrap().as_deref(), expect.as_ref().map(|v| &v[..]));
    }
    let seek = expect.len() / 2;
    cursor.seek(expect[seek].0).unwrap();
    assert_eq!(cursor.next().unwrap().unwrap().0, expect[seek].0);
}

#[test]
fn many_pairs_stay_right_across_kills() {
    let dir = tempfile::tempdir().unwrap();
    let pairs = pairs();
    let mut rng = Rng::new(7);
    for part in [3, 9, 14, 20, 29, 40] {
        let acked = run(dir.path(), pairs * part / 20);
        let (db, data, count) = open(dir.path());
        let n = done(&count);
        println!("killed after {acked}, found {n}; {}", db.recovery());
        assert!(n >= acked && n.is_multiple_of(BATCH), "{n} of {acked} acknowledged");
        check(&data, n, pairs, &mut rng);
    }
    let (db, data, count) = open(dir.path());
    assert_eq!(done(&count), 2 * pairs);
    db.flush().unwrap();
    while db.step().unwrap() {}
    check(&data, 2 * pairs, pairs, &mut rng);
}
