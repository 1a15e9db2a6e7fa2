//! Prints what reads and writes of tables cost:
//! `cargo test --release table::tests::measure -- --ignored --nocapture`.

use super::*;
use std::hint::black_box;
use std::time::{Duration, Instant};

const TABLES: u64 = 8;
const PER_TABLE: u64 = 500_000;
const ALL: u64 = TABLES * PER_TABLE;

type MakeKey = fn(u64) -> [u8; 16];

fn random_key(i: u64) -> [u8; 16] {
    let x = i * (u64::MAX / ALL) + i % 1000;
    let mut key = [0; 16];
    key[..8].copy_from_slice(&x.to_be_bytes());
    key[8..].copy_from_slice(&x.wrapping_mul(0x94d0_49bb_1331_11eb).to_le_bytes());
    key
}

fn decimal_key(i: u64) -> [u8; 16] {
    let mut key = *b"user000000000000";
    let mut x = i * 3;
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (x % 10) as u8;
        x /= 10;
    }
    key
}

/// Takes everything and keeps nothing.
#[derive(Debug)]
struct Nowhere;

impl File for Nowhere {
    fn read_at(&self, _buf: &mut [u8], _offset: u64) -> io::Result<usize> {
        Ok(0)
    }
    fn write_at(&self, buf: &[u8], _offset: u64) -> io::Result<usize> {
        Ok(buf.len())
    }
    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }
    fn allocate(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn map(&self) -> io::Result<Option<SharedBytes>> {
        Ok(None)
    }
    fn window(&self, _len: u64) -> io::Result<Option<Box<dyn Window>>> {
        Ok(None)
    }
}

/// Time this thread has run, where the system tells; other time otherwise.
fn now(start: Instant) -> Duration {
    let ran = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let ran = ran.and_then(|text| text.split(' ').next()?.parse().ok());
    ran.map_or_else(|| start.elapsed(), Duration::from_nanos)
}

/// Runs `round`, which does something `n` times, again and again. The first may differ; the best of
/// the others is the least disturbed.
fn report(what: &str, n: u64, mut round: impl FnMut()) {
    let start = Instant::now();
    let times: Vec<f64> = (0..6)
        .map(|_| {
            let begun = now(start);
            round();
            (now(start) - begun).as_nanos() as f64 / n as f64
        })
        .collect();
    let best = times[1..].iter().copied().fold(f64::MAX, f64::min);
    println!("{what:<40} {best:8.1} ns, first {:8.1} ns", times[0]);
}

fn fill(writer: &mut Writer, make: MakeKey, range: std::ops::Range<u64>) {
    let mut random = Random(88_172_645_463_325_252);
    let mut value = [0u8; 100];
    for i in range {
        let x = random.next();
        for part in value.chunks_exact_mut(20) {
            part[..8].copy_from_slice(&x.to_le_bytes());
        }
        writer.add(&make(i), put(1 + (x & 0x3f_ffff)), &value).unwrap();
    }
}

fn measure(make: MakeKey, compression: Compression) {
    let options = WriteOptions { block_bytes: 4096, compression, filter_bits: 10 };
    report("write, per entry", PER_TABLE, || {
        let mut writer = Writer::new(Arc::new(Nowhere), Path::new(PATH), ID, options);
        fill(&mut writer, make, 0..PER_TABLE);
        black_box(writer.finish(&RangeTombstones::default()).unwrap());
    });
    let cache = Cache::new(2 << 30);
    let (mut tables, mut size, mut memory) = (Vec::new(), 0, 0);
    for t in 0..TABLES {
        let file = Arc::new(MemFile(Mutex::new(Vec::with_capacity(80 << 20))));
        let mut writer = Writer::new(file.clone(), Path::new(PATH), ID, options);
        fill(&mut writer, make, t * PER_TABLE..(t + 1) * PER_TABLE);
        let summary = writer.finish(&RangeTombstones::default()).unwrap();
        let mapped = ReadOptions { mapped: true };
        let start = Instant::now();
        let table = Table::open(file.clone(), Path::new(PATH), ID, summary.size, mapped, &cache).unwrap();
        if t == 0 {
            println!("open and copy: {:?}, {} blocks", start.elapsed(), table.properties().blocks);
        }
        *file.0.lock().unwrap() = Vec::new();
        size += summary.size;
        memory += table.memory();
        tables.push(Arc::new(table));
    }
    println!("{} bytes per entry, {:.2} of them in memory", size / ALL, memory as f64 / ALL as f64);
    let mut random = Random(1);
    let order: Vec<u64> = (0..500_000).map(|_| random.below(ALL)).collect();
    let keys: Vec<[u8; 16]> = order.iter().map(|&i| make(i)).collect();
    let table_of = |i: u64| &tables[(i / PER_TABLE) as usize];
    let maps: Vec<&[u8]> = tables.iter().map(|t| (**t.map().unwrap()).as_ref()).collect();
    report("one byte, anywhere in the files", 500_000, || {
        let mut last = 0;
        for &i in &order {
            let map = maps[(i / PER_TABLE) as usize];
            // Each waits for the one before.
            last = map[(i.wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize + last as usize) % map.len()];
        }
        black_box(last);
    });
    let mut pin = Pin::default();
    let mut get = |what: &str, some: usize| {
        let n = if some > 1000 { 500_000 } else { 4_000_000 };
        report(what, n, || {
            for _ in 0..n as usize / some {
                for (&i, key) in order[..some].iter().zip(&keys) {
                    let found = table_of(i).get(key, key::hash(key), Seq::MAX, &mut pin).unwrap();
                    black_box(found.unwrap().value[50]);
                }
            }
        });
    };
    get("get, over 4 M entries", 500_000);
    get("get, 1000 entries again and again", 1000);
    get("get, one entry again and again", 1);
    for (what, some) in [("filter, over 4 M entries", 500_000), ("filter, again and again", 100)] {
        let n = if some > 1000 { 500_000 } else { 4_000_000 };
        report(what, n, || {
            for _ in 0..n as usize / some {
                for (&i, key) in order[..some].iter().zip(&keys) {
                    black_box(table_of(i).may_contain(key::hash(key) ^ 0x1234_5678_9012_3456));
                }
            }
        });
    }
    for (what, some) in [("index, over 4 M entries", 500_000), ("index, again and again", 100)] {
        let n = if some > 1000 { 500_000 } else { 4_000_000 };
        report(what, n, || {
            for _ in 0..n as usize / some {
                for (&i, key) in order[..some].iter().zip(&keys) {
                    black_box(table_of(i).index().find(key));
                }
            }
        });
    }
    let mut cursor = TableCursor::new(tables[3].clone());
    report("scan key, trailer, value (64 MB)", PER_TABLE, || {
        cursor.seek_first().unwrap();
        while cursor.valid() {
            black_box((cursor.value()[50], cursor.key()[15], cursor.trailer()));
            cursor.next().unwrap();
        }
    });
    report("scan back, no values (64 MB)", PER_TABLE, || {
        cursor.seek_last().unwrap();
        while cursor.valid() {
            cursor.prev().unwrap();
        }
    });
    report("scan 1000 entries again and again", 500_000, || {
        for _ in 0..500 {
            cursor.seek_first().unwrap();
            for _ in 0..1000 {
                black_box((cursor.value()[50], cursor.key()[15], cursor.trailer()));
                cursor.next().unwrap();
            }
        }
    });
    let near: Vec<_> = order.iter().zip(&keys).filter(|(i, _)| *i / PER_TABLE == 3).map(|(_, k)| k).collect();
    for (what, some) in [("seek (64 MB)", near.len()), ("seek, again and again", 100)] {
        report(what, near.len() as u64, || {
            for key in near[..some].iter().cycle().take(near.len()) {
                cursor.seek(&key[..], Trailer::newest(Seq::MAX)).unwrap();
                assert!(cursor.valid());
            }
        });
    }
}

#[test]
#[ignore = "prints timings"]
fn measure_tables() {
    for (shape, make) in [("random binary keys", random_key as MakeKey), ("decimal keys", decimal_key)] {
        for compression in compressions() {
            println!("-- {shape}, {compression:?}");
            measure(make, compression);
        }
    }
}
