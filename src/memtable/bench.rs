//! Not a test: prints what inserts, gets and scans cost, beside `std`'s ordered map.
//! `cargo test --release --lib memtable::bench -- --ignored --nocapture`

use super::{MemCursor, Pool, new_in};
use crate::budget::Budget;
use crate::cursor::Cursor;
use crate::ids::Seq;
use crate::key::{Kind, Trailer};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

const N: u64 = 500_000;

fn mix(i: u64) -> u64 {
    let mut x = i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn seq(n: u64) -> Seq {
    Seq::new(n).unwrap()
}

/// Nanoseconds per operation: the median over blocks of operations, so that blocks during which
/// somebody else had the processor do not count.
#[allow(clippy::disallowed_methods)]
fn time(n: usize, mut work: impl FnMut(usize)) -> f64 {
    const BLOCK: usize = 500;
    let mut blocks: Vec<u128> = Vec::with_capacity(n / BLOCK + 1);
    for block in 0..n.div_ceil(BLOCK) {
        let start = Instant::now();
        (block * BLOCK..n.min((block + 1) * BLOCK)).for_each(&mut work);
        blocks.push(start.elapsed().as_nanos());
    }
    blocks.sort_unstable();
    blocks[blocks.len() / 2] as f64 / BLOCK.min(n) as f64
}

fn run(pool: &Arc<Pool>, name: &str, keys: &[Vec<u8>], missing: &[Vec<u8>]) {
    let n = keys.len();
    let value = [7u8; 100];
    let mut shuffled: Vec<Vec<u8>> = keys.to_vec();
    for i in (1..shuffled.len()).rev() {
        shuffled.swap(i, mix(i as u64) as usize % (i + 1));
    }
    // Copied once more, so that they lie in the order in which they are used.
    let shuffled: Vec<Vec<u8>> = shuffled.iter().map(|k| k.to_vec()).collect();

    let (mut writer, mem) = new_in(pool);
    let insert = time(n, |i| writer.insert(&keys[i], Trailer::new(seq(i as u64 + 1), Kind::Put), &value));
    let get = time(n, |i| assert!(black_box(mem.get(&shuffled[i], Seq::MAX)).is_some()));
    let miss = time(missing.len(), |i| assert!(black_box(mem.get(&missing[i], Seq::MAX)).is_none()));
    let mut c = MemCursor::new(mem.clone());
    let seek = time(n / 2, |i| {
        c.seek(&shuffled[i], Trailer::newest(Seq::MAX)).unwrap();
        black_box(c.key());
    });
    c.seek_first().unwrap();
    let scan = time(n - 1, |_| {
        black_box((c.key(), c.trailer(), c.value()));
        c.next().unwrap();
    });
    assert!(c.valid());
    let back = time(n - 1, |_| {
        black_box((c.key(), c.trailer(), c.value()));
        c.prev().unwrap();
    });
    let bytes = mem.bytes() as f64 / n as f64;

    let mut map = BTreeMap::new();
    let std_insert = time(n, |i| {
        map.insert((keys[i].clone(), Reverse(i as u64 + 1)), value.to_vec());
    });
    let std_get = time(n, |i| {
        let from = (shuffled[i].clone(), Reverse(u64::MAX));
        assert!(black_box(map.range(from..).next()).is_some());
    });
    println!(
        "{name:10} insert {insert:5.0} ({:4.1}x)  get {get:5.0} ({:4.1}x)  miss {miss:5.0}  seek {seek:5.0}  \
         scan {scan:4.0}  back {back:4.0}  bytes/entry {bytes:4.0}",
        std_insert / insert,
        std_get / get,
    );
}

#[test]
#[ignore = "measures"]
fn ratios() {
    let make = |n: u64, key: &dyn Fn(u64) -> Vec<u8>| (0..n).map(key).collect::<Vec<_>>();
    let random = |i: u64| [mix(i).to_be_bytes(), mix(!i).to_be_bytes()].concat();
    let users = |i: u64| format!("user:{:011}", mix(i) % 100_000_000_000).into_bytes();
    let two = |i: u64| {
        format!("{}:{:011}", ["acct", "user"][i as usize % 2], mix(i) % 100_000_000_000).into_bytes()
    };
    let long =
        |i: u64| format!("tenant-0000000000000{:02}/orders/{:08x}", i % 20, mix(i) as u32).into_bytes();
    let ascending = |i: u64| i.to_be_bytes().repeat(2);
    let streams = |i: u64| [(mix(i % 100)).to_be_bytes(), (i / 100).to_be_bytes()].concat();
    let hot = |i: u64| [mix(mix(i) % 10_000).to_be_bytes(), [0; 8]].concat();
    let pool = Pool::new(256 << 20, &Budget::unlimited());
    let missing = make(100_000, &|i| random(i + N));
    run(&pool, "random", &make(N, &random), &missing);
    run(&pool, "users", &make(N, &users), &missing);
    run(&pool, "two", &make(N, &two), &missing);
    run(&pool, "long", &make(N, &long), &missing);
    run(&pool, "ascending", &make(N, &ascending), &missing);
    run(&pool, "streams", &make(N, &streams), &missing);
    run(&pool, "hot", &make(N, &hot), &missing);
    run(&pool, "small", &make(10_000, &random), &missing);
}
