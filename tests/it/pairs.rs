//! Many pairs of 16 + 100 bytes: written at random, overwritten, a third of them deleted by ranges,
//! killed on the way, and read back: by key, forward and backward. In the end the directory holds
//! little more than what is left. `ESKER_PAIRS=4000000 cargo test --release pairs -- --nocapture` for a
//! size that leaves memory.

use crate::rng::Rng;
use esker::{Db, Durability, Keyspace, Options};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

const DIR: &str = "ESKER_PAIRS_DIR";
const PAIRS: &str = "ESKER_PAIRS";
/// Operations that are committed together, with the count of all so far.
const BATCH: u64 = 100;
/// Ranges that are deleted in the end, one operation each, and how much of all keys each takes away:
/// together a third, since they overlap.
const RANGES: u64 = 300;
const RANGE: u64 = u64::MAX / 740;
/// The journal's budget.
const JOURNAL: u64 = 64 << 20;

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

/// The range of scattered numbers that operation `r` of those deletes.
fn range(r: u64) -> (u64, u64) {
    let from = mix(r.wrapping_mul(77) ^ 5);
    (from, from.saturating_add(RANGE))
}

fn value(n: u64) -> [u8; 100] {
    let mut value = [b'.'; 100];
    value[..8].copy_from_slice(&n.to_le_bytes());
    value[8..16].copy_from_slice(&mix(n).to_le_bytes());
    value
}

fn open(dir: &Path) -> (Db, Keyspace, Keyspace) {
    let memtable = if pairs() < 1_000_000 { 256 << 10 } else { 32 << 20 };
    let options = Options::default()
        .durability(Durability::Buffered)
        .memtable_bytes(memtable)
        .segment_bytes(JOURNAL / 8)
        .journal_bytes(JOURNAL)
        .workers(2);
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
    for r in done(&count) - 2 * pairs..RANGES {
        let (from, to) = range(r);
        batch.delete_range(&data, format!("{from:016x}")..format!("{to:016x}"));
        batch.put(&count, "n", (2 * pairs + r + 1).to_le_bytes()).commit().unwrap();
        println!("acked {}", 2 * pairs + r + 1);
    }
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

/// A key, and the operation that wrote it last.
type Pair = ([u8; 16], u64);

/// What is there after operation `n`: the pairs by number with the operation that wrote them last,
/// and those that were not deleted, in order.
fn expect(n: u64, pairs: u64) -> (Vec<Option<u64>>, Vec<Pair>) {
    let (writes, ranges) = (n.min(2 * pairs), n.saturating_sub(2 * pairs));
    let mut last = vec![None; pairs as usize];
    (0..writes).for_each(|n| last[target(n, pairs) as usize] = Some(n));
    let mut ranges: Vec<_> = (0..ranges).map(range).collect();
    ranges.sort_unstable();
    for (i, n) in (0..).zip(&mut last) {
        // Of ranges of one width only the last that begins before can reach this far.
        let before = ranges.partition_point(|(from, _)| *from <= mix(i));
        if before.checked_sub(1).is_some_and(|at| mix(i) < ranges[at].1) {
            *n = None;
        }
    }
    let mut sorted: Vec<_> = (0..).zip(&last).filter_map(|(i, n)| Some((key(i), (*n)?))).collect();
    sorted.sort_unstable();
    (last, sorted)
}

/// Everything up to operation `n` is there, and nothing else; told by key and by scans both ways.
/// Answers how many pairs that are.
fn check(data: &Keyspace, n: u64, pairs: u64, rng: &mut Rng) -> u64 {
    let (last, sorted) = expect(n, pairs);
    let mut cursor = data.cursor(..);
    for (key, n) in &sorted {
        assert_eq!(cursor.next().unwrap(), Some((&key[..], &value(*n)[..])));
    }
    assert_eq!(cursor.next().unwrap(), None);
    for (key, n) in sorted.iter().rev() {
        assert_eq!(cursor.prev().unwrap(), Some((&key[..], &value(*n)[..])));
    }
    assert_eq!(cursor.prev().unwrap(), None);
    for _ in 0..20_000 {
        let i = rng.below(pairs as usize * 2) as u64;
        let expect = last.get(i as usize).copied().flatten().map(value);
        assert_eq!(data.get(key(i)).unwrap().as_deref(), expect.as_ref().map(|v| &v[..]));
    }
    for _ in 0..200 {
        let (from, _) = range(rng.below(RANGES as usize) as u64);
        let at = sorted.partition_point(|(key, _)| key[..] < *format!("{from:016x}").as_bytes());
        cursor.seek(format!("{from:016x}")).unwrap();
        assert_eq!(
            cursor.next().unwrap().map(|(key, _)| key.to_vec()),
            sorted.get(at).map(|(key, _)| key.to_vec())
        );
    }
    sorted.len() as u64
}

/// The bytes of all files with this extension.
fn bytes(dir: &Path, extension: &str) -> u64 {
    let files = std::fs::read_dir(dir).unwrap().map(|f| f.unwrap());
    let some = files.filter(|f| f.path().extension().is_some_and(|e| e == extension));
    some.map(|f| f.metadata().unwrap().len()).sum()
}

#[test]
fn many_pairs_stay_right_across_kills() {
    let dir = tempfile::tempdir().unwrap();
    let pairs = pairs();
    let mut rng = Rng::new(7);
    let all = 2 * pairs + RANGES;
    let parts = [3, 9, 14, 20, 29, 40].map(|part| pairs * part / 20);
    for until in parts.into_iter().chain([2 * pairs + RANGES / 2, all]) {
        let acked = run(dir.path(), until);
        let (db, data, count) = open(dir.path());
        let n = done(&count);
        println!("killed after {acked}, found {n}; {}", db.recovery());
        assert!(n >= acked, "{n} of {acked} acknowledged");
        assert!(n >= 2 * pairs || n.is_multiple_of(BATCH), "{n} are not whole batches");
        check(&data, n, pairs, &mut rng);
    }
    let (db, data, count) = open(dir.path());
    assert_eq!(done(&count), all);
    assert!(db.verify().unwrap().is_ok());
    db.flush().unwrap();
    data.compact(..).unwrap();
    while db.step().unwrap() {}
    let left = check(&data, all, pairs, &mut rng);
    assert!((pairs * 6 / 10..pairs * 7 / 10).contains(&left), "{left} of {pairs} are left");
    drop((data, count));
    db.close().unwrap();
    let (tables, journal) = (bytes(dir.path(), "table"), bytes(dir.path(), "journal"));
    println!("{left} pairs of {} bytes: {tables} in tables, {journal} in the journal", left * 116);
    assert!(tables < left * 116 * 5 / 4 + (1 << 20), "{tables} bytes of tables");
    assert!(journal <= JOURNAL, "{journal} bytes of journal");
}
