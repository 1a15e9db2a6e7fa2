//! The work each engine is given.

use crate::engines::{self, Engine, Setup};
use crate::measure::{self, Histogram, MemoryWatch};
use crate::{Outcome, Plan};
use std::path::Path;
use std::time::{Duration, Instant};

/// The number of entries a seek is followed by.
const STEPS: usize = 10;
/// More reads than that tell nothing new.
const READS: u64 = 500_000;
/// Range deletes, which together delete every other key.
const RANGES: u64 = 100;
const COMMITS: u64 = 2000;
const THREADS: u64 = 16;
/// Bytes of a key and its value.
const PAIR: u64 = 116;

/// xorshift64*, the same for every engine.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }
}

/// 16 bytes, in the order of the numbers.
fn key(n: u64) -> [u8; 16] {
    let mut out = [b'0'; 16];
    let mut n = n;
    for digit in out.iter_mut().take(15).rev() {
        *digit = b'0' + (n % 10) as u8;
        n /= 10;
    }
    out
}

/// Between the keys, never one of them.
fn missing_key(n: u64) -> [u8; 16] {
    let mut out = key(n);
    out[15] = b'x';
    out
}

/// 100 bytes; the first half is noise.
fn value(rng: &mut Rng) -> [u8; 100] {
    let mut out = [b'.'; 100];
    for chunk in out[..50].chunks_mut(8) {
        let noise = rng.next().to_le_bytes();
        chunk.copy_from_slice(&noise[..chunk.len()]);
    }
    out
}

fn shuffled(keys: u64, rng: &mut Rng) -> Vec<u32> {
    let mut order: Vec<u32> = (0..keys as u32).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, rng.below(i as u64 + 1) as usize);
    }
    order
}

/// One measurement: a line of standard output.
fn tell(name: &str, unit: &str, value: f64) {
    println!("{name}, {unit} {value}");
}

fn micros(took: Duration) -> f64 {
    took.as_secs_f64() * 1e6
}

/// Runs `work` and tells what each of `ops` operations took.
fn timed(name: &str, unit: &str, ops: u64, work: impl FnOnce() -> Outcome) -> Outcome {
    let start = Instant::now();
    work()?;
    tell(name, &format!("us/{unit}"), micros(start.elapsed()) / ops as f64);
    Ok(())
}

/// All work for one engine.
pub fn run(engine: &str, dir: &Path, plan: &Plan) -> Outcome {
    let setup = |name: &str, synced| Setup { dir: dir.join(name), cache: plan.cache, lz4: plan.lz4, synced };
    let memory = MemoryWatch::start();
    let keys = plan.keys;
    let in_order = setup("in-order", false);
    let db = engines::open(engine, &in_order)?;
    fills(&*db, &in_order.dir, keys, &[("fillseq", (0..keys as u32).collect())])?;
    drop(db);
    std::fs::remove_dir_all(&in_order.dir)?;

    let at_random = setup("at-random", false);
    let db = engines::open(engine, &at_random)?;
    let orders = [("fillrandom", shuffled(keys, &mut Rng(77))), ("overwrite", shuffled(keys, &mut Rng(78)))];
    fills(&*db, &at_random.dir, keys, &orders)?;
    reads(&*db, keys, "")?;
    let cpu = measure::cpu()?;
    timed("compact all", "key", keys, || db.compact())?;
    tell("compact all", "CPU us/key", micros(measure::cpu()? - cpu) / keys as f64);
    measure::settle(&at_random.dir)?;
    space(&*db, &at_random.dir, keys, "compact all")?;
    reads(&*db, keys, ", compacted")?;
    range_deletes(&*db, keys)?;
    drop(db);
    std::fs::remove_dir_all(&at_random.dir)?;
    tell("anonymous memory", "MiB at most", memory.peak() as f64 / f64::from(1 << 20));

    let db = engines::open(engine, &setup("synced", true))?;
    synced_commits(&*db, 1, COMMITS)?;
    synced_commits(&*db, THREADS, COMMITS * 4)
}

/// Writes all keys in each of the orders, one after another, and settles after each.
fn fills(db: &dyn Engine, dir: &Path, keys: u64, orders: &[(&str, Vec<u32>)]) -> Outcome {
    for (seed, (name, order)) in orders.iter().enumerate() {
        let (written, cpu) = (measure::written_bytes()?, measure::cpu()?);
        let counted = db.written_bytes();
        let mut took = Histogram::new();
        let mut rng = Rng(seed as u64 + 1);
        let start = Instant::now();
        let mut last = start;
        for &n in order {
            db.put(&key(u64::from(n)), &value(&mut rng))?;
            let now = Instant::now();
            took.add(now - last);
            last = now;
        }
        tell(name, "us/op", micros(last - start) / keys as f64);
        tell(name, "p99.9 us", micros(took.percentile(0.999)));
        tell(name, "max ms", micros(took.max()) / 1e3);
        let flush = Instant::now();
        db.flush()?;
        let settled = flush.elapsed() + measure::settle(dir)?;
        tell(name, "s to settle", settled.as_secs_f64());
        tell(name, "us/op, settled", micros(flush - start + settled) / keys as f64);
        tell(name, "CPU us/op, settled", micros(measure::cpu()? - cpu) / keys as f64);
        let of_put = |bytes: u64| bytes as f64 / (keys * PAIR) as f64;
        tell(name, "written / put", of_put(measure::written_bytes()? - written));
        let counted = db.written_bytes().zip(counted).map(|(after, before)| of_put(after - before));
        tell(name, "written / put, its own count", counted.unwrap_or(f64::NAN));
        space(db, dir, keys, name)?;
    }
    Ok(())
}

/// What is on disk, in terms of what is alive.
fn space(db: &dyn Engine, dir: &Path, keys: u64, name: &str) -> Outcome {
    let of_live = |bytes: u64| bytes as f64 / (keys * PAIR) as f64;
    tell(name, "tables / live", of_live(measure::disk_bytes(dir, |file| db.is_table(file))?));
    tell(name, "all files / live", of_live(measure::disk_bytes(dir, |_| true)?));
    Ok(())
}

fn reads(db: &dyn Engine, keys: u64, when: &str) -> Outcome {
    let mut rng = Rng(5);
    let ops = keys.min(READS);
    // Once without the clock, so that nobody pays for what is cold.
    (0..ops).try_for_each(|_| db.get(&key(rng.below(keys))).map(drop))?;
    timed(&format!("readrandom{when}"), "op", ops, || {
        (0..ops).try_for_each(|_| match db.get(&key(rng.below(keys)))? {
            true => Ok(()),
            false => Err("a key is missing".into()),
        })
    })?;
    timed(&format!("readmissing{when}"), "op", ops, || {
        (0..ops).try_for_each(|_| match db.get(&missing_key(rng.below(keys)))? {
            false => Ok(()),
            true => Err("a key is there that was not written".into()),
        })
    })?;
    let seeks = ops / 4;
    timed(&format!("seekrandom+10{when}"), "op", seeks, || {
        (0..seeks).try_for_each(|_| db.seek(&key(rng.below(keys)), STEPS).map(drop))
    })?;
    timed(&format!("readseq{when}"), "entry", keys, || all_there(db.scan(false)?, keys))?;
    timed(&format!("readreverse{when}"), "entry", keys, || all_there(db.scan(true)?, keys))
}

/// Deletes every other stretch of keys, and scans what is left before anything else has happened to it.
fn range_deletes(db: &dyn Engine, keys: u64) -> Outcome {
    let stretch = keys / RANGES / 2;
    let gone = |n: u64| (2 * n * stretch, (2 * n + 1) * stretch);
    timed("range delete", "range", RANGES, || {
        (0..RANGES).map(gone).try_for_each(|(from, to)| db.delete_range(&key(from), &key(to)))
    })?;
    let left = keys - RANGES * stretch;
    timed("readseq after range deletes", "entry left", left, || all_there(db.scan(false)?, left))
}

fn all_there(found: u64, keys: u64) -> Outcome {
    if found == keys { Ok(()) } else { Err(format!("a scan found {found} of {keys} entries").into()) }
}

fn synced_commits(db: &dyn Engine, threads: u64, commits: u64) -> Outcome {
    let work = |thread: u64| {
        let mut rng = Rng(thread + 1);
        (thread..commits).step_by(threads as usize).try_for_each(|n| db.put_synced(&key(n), &value(&mut rng)))
    };
    timed(&format!("synced, {threads} threads"), "commit", commits, || {
        std::thread::scope(|scope| {
            let run = |thread| scope.spawn(move || work(thread).map_err(|e| e.to_string()));
            let running: Vec<_> = (0..threads).map(run).collect();
            running.into_iter().try_for_each(|t| t.join().map_err(|_| "a writer panicked".to_string())?)
        })
        .map_err(Into::into)
    })
}
