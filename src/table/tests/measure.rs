//! Prints what reads and writes of tables cost:
//! `cargo test --release table::tests::measure -- --ignored --nocapture`; `ESKER_MEASURE=get` picks
//! the lines with that word.

use super::*;
use crate::budget::Use;
use crate::fs::os::OsFs;
use std::hint::black_box;
use std::time::Instant;

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

/// Short rounds, so that some are undisturbed by others on the machine; the best counts, and the
/// one in the middle is shown beside it.
fn report(what: &str, rounds: usize, n: usize, mut round: impl FnMut(usize)) {
    if std::env::var("ESKER_MEASURE").is_ok_and(|only| !what.contains(&only)) {
        return;
    }
    let mut times: Vec<f64> = (0..rounds)
        .map(|i| {
            let start = Instant::now();
            round(i);
            start.elapsed().as_nanos() as f64 / n as f64
        })
        .collect();
    let first = times[0];
    times.sort_by(f64::total_cmp);
    println!("{what:<40} {:8.1} ns, middle {:8.1} ns, first {first:8.1} ns", times[0], times[rounds / 2]);
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
    let entries = 20_000;
    report("write, per entry", 30, entries, |_| {
        let mut writer = Writer::new(Arc::new(Nowhere), Path::new(PATH), ID, options);
        fill(&mut writer, make, 0..entries as u64);
        black_box(writer.finish(&RangeTombstones::default()).unwrap());
    });
    let cache = Cache::new(2 << 30);
    let (mut tables, mut size, mut memory) = (Vec::new(), 0, 0usize);
    let dir = tempfile::tempdir().unwrap();
    for t in 0..TABLES {
        let path = dir.path().join(t.to_string());
        let file = OsFs.create(&path).unwrap();
        let mut writer = Writer::new(file.clone(), &path, ID, options);
        fill(&mut writer, make, t * PER_TABLE..(t + 1) * PER_TABLE);
        let summary = writer.finish(&RangeTombstones::default()).unwrap();
        let mapped = ReadOptions { mapped: true };
        let start = Instant::now();
        let table = Table::open(file, &path, ID, summary.size, mapped, &cache).unwrap();
        if t == 0 {
            println!("open: {:?}, {} blocks", start.elapsed(), table.properties().blocks);
        }
        size += summary.size;
        memory = cache.budget().used(Use::Tables);
        tables.push(Arc::new(table));
    }
    println!("{} bytes per entry, {:.2} of them in memory", size / ALL, memory as f64 / ALL as f64);
    points(make, &tables);
    for (what, hot) in [("(64 MB)", false), ("again and again", true)] {
        walks(what, make, hot, TableCursor::new(tables[3].clone()));
        walks(&format!("streaming {what}"), make, hot, TableCursor::streaming(tables[3].clone()));
    }
}

fn points(make: MakeKey, tables: &[Arc<Table>]) {
    const N: usize = 20_000;
    const ROUNDS: usize = 40;
    let mut random = Random(1);
    let order: Vec<u64> = (0..N * ROUNDS).map(|_| random.below(ALL)).collect();
    let keys: Vec<[u8; 16]> = order.iter().map(|&i| make(i)).collect();
    let maps: Vec<&[u8]> = tables.iter().map(|t| (**t.map().unwrap()).as_ref()).collect();
    let mut last = 0;
    report("one byte, anywhere in the files", ROUNDS, N, |round| {
        for &i in &order[round * N..][..N] {
            let map = maps[(i / PER_TABLE) as usize];
            // Each waits for the one before.
            last = map[(i.wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize + last as usize) % map.len()];
        }
    });
    black_box(last);
    // `some` of the keys, again and again; or all of them once.
    let each = |what: &str, some: Option<usize>, f: &mut dyn FnMut(&Table, &[u8])| {
        report(what, ROUNDS, N, |round| {
            let at = if some.is_some() { 0 } else { round * N };
            let some = some.unwrap_or(N);
            for _ in 0..N / some {
                for (&i, key) in order[at..].iter().zip(&keys[at..]).take(some) {
                    f(&tables[(i / PER_TABLE) as usize], key);
                }
            }
        });
    };
    let mut pin = Pin::default();
    let mut get = |table: &Table, key: &[u8]| {
        let found = table.get(key, key::hash(key), Seq::MAX, &mut pin).unwrap();
        black_box(found.unwrap().value[50]);
    };
    each("get (first)", None, &mut get);
    each("get, over 4 M entries", None, &mut get);
    each("get, 1000 entries again and again", Some(1000), &mut get);
    each("get, one entry again and again", Some(1), &mut get);
    let mut filter = |table: &Table, key: &[u8]| {
        black_box(table.may_contain(key::hash(key) ^ 0x1234_5678_9012_3456));
    };
    each("filter, over 4 M entries", None, &mut filter);
    each("filter, again and again", Some(100), &mut filter);
    let mut index = |table: &Table, key: &[u8]| {
        black_box(table.index().find(key));
    };
    each("index, over 4 M entries", None, &mut index);
    each("index, again and again", Some(100), &mut index);
}

/// Within the fourth table.
fn walks(what: &str, make: MakeKey, hot: bool, mut cursor: TableCursor) {
    const N: usize = 10_000;
    const ROUNDS: usize = 50;
    let mut scan = |what: String, f: &mut dyn FnMut(&TableCursor)| {
        cursor.seek_first().unwrap();
        report(&what, ROUNDS, N, |_| {
            if hot {
                cursor.seek_first().unwrap();
            }
            for _ in 0..N {
                f(&cursor);
                cursor.next().unwrap();
                if !cursor.valid() {
                    cursor.seek_first().unwrap();
                }
            }
        });
    };
    scan(format!("scan, nothing, {what}"), &mut |_| {});
    scan(format!("scan, key and trailer, {what}"), &mut |c| {
        black_box((c.key()[15], c.trailer()));
    });
    scan(format!("scan, value, too, {what}"), &mut |c| {
        black_box((c.value()[50], c.key()[15], c.trailer()));
    });
    if what.starts_with("streaming") {
        return;
    }
    report(&format!("scan back {what}"), ROUNDS, N, |i| {
        if hot || i == 0 {
            cursor.seek_last().unwrap();
        }
        for _ in 0..N {
            cursor.prev().unwrap();
        }
    });
    let mut random = Random(2);
    let mut keys: Vec<_> = (0..N * ROUNDS).map(|_| make(3 * PER_TABLE + random.below(PER_TABLE))).collect();
    if hot {
        keys = keys[..100].repeat(N * ROUNDS / 100);
    }
    report(&format!("seek {what}"), ROUNDS, N, |round| {
        for key in &keys[round * N..][..N] {
            cursor.seek(&key[..], Trailer::newest(Seq::MAX)).unwrap();
            assert!(cursor.valid());
        }
    });
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
