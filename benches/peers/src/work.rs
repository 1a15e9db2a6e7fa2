//! The work each engine is given.

use crate::Outcome;
use crate::engines::{self, Engine, Setup};
use std::path::Path;
use std::time::Instant;

/// The number of entries a seek is followed by.
const STEPS: usize = 10;
const COMMITS: u64 = 2000;
const THREADS: u64 = 16;

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

/// Runs `work` and prints what each of `ops` operations took, in microseconds.
fn timed(name: &str, ops: u64, work: impl FnOnce() -> Outcome) -> Outcome {
    let start = Instant::now();
    work()?;
    println!("{name} {}", start.elapsed().as_secs_f64() * 1e6 / ops as f64);
    Ok(())
}

/// All work for one engine. One line per measurement goes to stdout.
pub fn run(engine: &str, dir: &Path, keys: u64) -> Outcome {
    let setup = |name: &str| Setup { dir: dir.join(name) };
    let seq = engines::open(engine, &setup("seq"))?;
    timed("fillseq us/op", keys, || fill(&*seq, 0..keys, 1))?;
    drop(seq);

    let db = engines::open(engine, &setup("random"))?;
    let order = shuffled(keys, &mut Rng(77));
    timed("fillrandom us/op", keys, || fill(&*db, order.iter().map(|&n| u64::from(n)), 2))?;
    let order = shuffled(keys, &mut Rng(78));
    timed("overwrite us/op", keys, || fill(&*db, order.iter().map(|&n| u64::from(n)), 3))?;
    timed("compact us/key", keys, || db.compact())?;
    reads(&*db, keys)?;
    drop(db);

    let db = engines::open(engine, &setup("sync"))?;
    let commit = |n: u64, rng: &mut Rng| db.put_synced(&key(n), &value(rng));
    timed("sync, 1 thread us/commit", COMMITS, || {
        let mut rng = Rng(9);
        (0..COMMITS).try_for_each(|n| commit(n, &mut rng))
    })?;
    timed("sync, 16 threads us/commit", COMMITS * 4, || {
        std::thread::scope(|s| {
            let work = |t: u64| move || (0..COMMITS * 4 / THREADS).try_for_each(|n| commit(n * THREADS + t, &mut Rng(t + 1)).map_err(|e| e.to_string()));
            let threads: Vec<_> = (0..THREADS).map(|t| s.spawn(work(t))).collect();
            threads.into_iter().try_for_each(|t| t.join().map_err(|_| "a writer panicked".to_string())?)
        })
        .map_err(Into::into)
    })
}

fn fill(db: &dyn Engine, order: impl Iterator<Item = u64>, seed: u64) -> Outcome {
    let mut rng = Rng(seed);
    for n in order {
        db.put(&key(n), &value(&mut rng))?;
    }
    Ok(())
}

fn reads(db: &dyn Engine, keys: u64) -> Outcome {
    let mut rng = Rng(5);
    timed("readrandom us/op", keys, || {
        (0..keys).try_for_each(|_| match db.get(&key(rng.below(keys)))? {
            true => Ok(()),
            false => Err("a key is missing".into()),
        })
    })?;
    timed("readmissing us/op", keys, || {
        (0..keys).try_for_each(|_| match db.get(&missing_key(rng.below(keys)))? {
            false => Ok(()),
            true => Err("a key is there that was not written".into()),
        })
    })?;
    let seeks = keys / 4;
    timed("seekrandom+10 us/op", seeks, || {
        (0..seeks).try_for_each(|_| db.seek(&key(rng.below(keys)), STEPS).map(drop))
    })?;
    timed("readseq us/entry", keys, || all_there(db.scan(false)?, keys))?;
    timed("readreverse us/entry", keys, || all_there(db.scan(true)?, keys))
}

fn all_there(found: u64, keys: u64) -> Outcome {
    if found == keys { Ok(()) } else { Err(format!("a scan found {found} of {keys} entries").into()) }
}
