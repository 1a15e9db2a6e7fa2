//! The memtable against a sorted map of versions, and readers beside its writer.

use super::{MemCursor, Memtable, Pool, new, new_in};
use crate::budget::{Budget, Use};
use crate::cursor::Cursor;
use crate::ids::Seq;
use crate::key::{Kind, Trailer};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

type InternalKey = (Vec<u8>, Reverse<Trailer>);
type Model = BTreeMap<InternalKey, Vec<u8>>;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let x = self.0 ^ self.0 >> 33;
        x.wrapping_mul(0xff51_afd7_ed55_8ccd) >> 16
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

fn seq(n: u64) -> Seq {
    Seq::new(n).unwrap()
}

fn put(n: u64) -> Trailer {
    Trailer::new(seq(n), Kind::Put)
}

/// How keys are drawn: each a shape that a tree of key heads might get wrong.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// Up to three letters of two: many versions of few keys, the empty key among them.
    Tiny,
    /// Random bytes of random length.
    Bytes,
    /// A shared prefix, then decimal digits.
    Users,
    /// Ascending numbers behind several prefixes.
    Streams,
    /// Two ascending streams of two-byte numbers, taking turns.
    Pairs,
    /// Zero and 0xff bytes, so that heads are equal where keys are not.
    Edges,
    /// Equal in the first 40 bytes or nearly all of 64 KiB.
    Long,
}

const SHAPES: [Shape; 7] =
    [Shape::Tiny, Shape::Bytes, Shape::Users, Shape::Streams, Shape::Pairs, Shape::Edges, Shape::Long];

fn key(shape: Shape, r: &mut Random, i: u64) -> Vec<u8> {
    match shape {
        Shape::Tiny => (0..r.below(4)).map(|_| b'a' + r.below(2) as u8).collect(),
        Shape::Bytes => (0..r.below(20)).map(|_| r.next() as u8).collect(),
        Shape::Users => format!("user:{:08}", r.below(3000)).into_bytes(),
        Shape::Streams => format!("stream/{}/{:05}", r.below(5), i).into_bytes(),
        Shape::Pairs => (i as u16 * 3 + i as u16 % 2 * 0x9000).to_be_bytes().to_vec(),
        Shape::Edges => (0..r.below(14)).map(|_| [0, 0, 0, 1, 0xff][r.below(5) as usize]).collect(),
        Shape::Long => {
            let n = [40, 41, 300, 65_534][r.below(400).saturating_sub(396) as usize];
            let mut key = vec![b'x'; n];
            key.extend_from_slice(&(r.below(500) as u16).to_le_bytes());
            key
        }
    }
}

/// A memtable and the model it must agree with.
fn build(shape: Shape, seed: u64, n: u64) -> (Arc<Memtable>, Model) {
    let mut r = Random(seed);
    let (mut writer, mem) = new();
    let mut model = Model::new();
    for i in 1..=n {
        let key = key(shape, &mut r, i);
        let kind = if r.below(8) == 0 { Kind::Delete } else { Kind::Put };
        let trailer = Trailer::new(seq(i * 2), kind);
        let value: Vec<u8> = i.to_le_bytes()[..r.below(9) as usize].to_vec();
        writer.insert(&key, trailer, &value);
        model.insert((key, Reverse(trailer)), value);
    }
    assert_eq!(mem.len() as u64, n);
    (mem, model)
}

type Entry<'a> = Option<(&'a [u8], Trailer, &'a [u8])>;

fn entry<'a>(at: Option<(&'a InternalKey, &'a Vec<u8>)>) -> Entry<'a> {
    at.map(|((k, t), v)| (&k[..], t.0, &v[..]))
}

fn at(c: &MemCursor) -> Entry<'_> {
    c.valid().then(|| (c.key(), c.trailer(), c.value()))
}

#[test]
fn gets_agree_with_the_model() {
    for (shape, n) in SHAPES.into_iter().flat_map(|s| [(s, 5), (s, 70), (s, 3000)]) {
        let (mem, model) = build(shape, n, n);
        let mut r = Random(99);
        for round in 0..2000 {
            let i = 1 + r.below(n);
            let key = key(shape, &mut r, i);
            let read = seq(if round % 2 == 0 { Seq::MAX.get() } else { r.below(2 * n + 2) });
            let from = (key.clone(), Reverse(Trailer::newest(read)));
            let expect = model.range(from..).next().filter(|((k, _), _)| *k == key);
            let found = mem.get(&key, read);
            let found = found.as_ref().map(|f| (&key[..], f.trailer, f.value));
            assert_eq!(found, entry(expect), "{shape:?} {n} {key:?} {read}");
            let since = seq(r.below(2 * n + 2));
            let newest = model.range((key.clone(), Reverse(Trailer::newest(Seq::MAX)))..).next();
            let changed = newest.is_some_and(|((k, t), _)| *k == key && t.0.seq() > since);
            let next = [&key[..], &[0]].concat();
            assert_eq!(mem.range_changed_since(&key, Some(&next), since), changed);
        }
    }
}

#[test]
fn scans_agree_with_the_model_both_ways() {
    for (shape, n) in SHAPES.into_iter().flat_map(|s| [(s, 0), (s, 1), (s, 70), (s, 2500)]) {
        let (mem, model) = build(shape, n + 7, n);
        let mut c = MemCursor::new(mem);
        assert!(!c.valid());
        c.seek_first().unwrap();
        for e in model.iter() {
            assert_eq!(at(&c), entry(Some(e)), "{shape:?} {n}");
            c.next().unwrap();
        }
        assert!(!c.valid());
        c.seek_last().unwrap();
        for e in model.iter().rev() {
            assert_eq!(at(&c), entry(Some(e)), "{shape:?} {n}");
            c.prev().unwrap();
        }
        assert!(!c.valid());
    }
}

#[test]
fn seeks_and_turns_agree_with_the_model() {
    for (shape, n) in SHAPES.into_iter().flat_map(|s| [(s, 3), (s, 70), (s, 2000)]) {
        let (mem, model) = build(shape, n + 21, n);
        let mut c = MemCursor::new(mem);
        let mut r = Random(5);
        for _ in 0..600 {
            let i = 1 + r.below(n);
            let key = key(shape, &mut r, i);
            let mut expect = if r.below(2) == 0 {
                let trailer = Trailer::newest(seq(r.below(2 * n + 2)));
                c.seek(&key, trailer).unwrap();
                model.range((key.clone(), Reverse(trailer))..).next()
            } else {
                c.seek_before(&key).unwrap();
                model.range(..(key.clone(), Reverse(Trailer::newest(Seq::MAX)))).next_back()
            };
            for _ in 0..r.below(12) {
                assert_eq!(at(&c), entry(expect), "{shape:?} {n} {key:?}");
                let Some((stand, _)) = expect else { break };
                let before = model.range(..stand).next_back();
                let newer = before.filter(|e| e.0.0 == stand.0).map(|e| e.0.1.0);
                assert_eq!(c.newer().unwrap(), newer);
                if r.below(3) > 0 {
                    c.next().unwrap();
                    expect = model.range((Bound::Excluded(stand), Bound::Unbounded)).next();
                } else {
                    c.prev().unwrap();
                    expect = before;
                }
                if let Some(expect) = expect {
                    assert_eq!(c.repeats(), expect.0.0 == stand.0);
                }
            }
            assert_eq!(at(&c), entry(expect), "{shape:?} {n} {key:?}");
        }
    }
}

#[test]
fn changed_ranges_agree_with_the_model() {
    for shape in [Shape::Tiny, Shape::Users, Shape::Edges] {
        let n = 400;
        let (mem, model) = build(shape, 3, n);
        let mut r = Random(17);
        for _ in 0..500 {
            let (a, b) = (key(shape, &mut r, 1), key(shape, &mut r, 1));
            let end = (r.below(5) > 0).then_some(&b);
            let since = seq(2 * n - r.below(2 * n).min(r.below(2 * n)));
            let expect =
                model.keys().any(|(k, t)| *k >= a && end.is_none_or(|end| k < end) && t.0.seq() > since);
            assert_eq!(mem.range_changed_since(&a, end.map(|e| &e[..]), since), expect, "{shape:?}");
        }
    }
}

#[test]
fn a_key_with_many_versions_is_read_at_each() {
    let (mut writer, mem) = new();
    let n = 2000;
    for i in 1..=n {
        writer.insert(b"hot", put(i * 3), &i.to_le_bytes());
        if i % 10 == 0 {
            writer.insert(format!("hot{i}").as_bytes(), put(i * 3 + 1), b"");
        }
    }
    for read in 0..3 * n + 3 {
        let got = mem.get(b"hot", seq(read)).map(|f| f.trailer);
        assert_eq!(got, (read >= 3).then(|| put(read / 3 * 3)));
    }
    let mut c = MemCursor::new(mem);
    for read in (0..3 * n + 3).step_by(7) {
        c.seek(b"hot", Trailer::newest(seq(read))).unwrap();
        let expect = if read >= 3 { (&b"hot"[..], put(read / 3 * 3)) } else { (&b"hot10"[..], put(31)) };
        assert_eq!((c.key(), c.trailer()), expect);
    }
    c.seek_before(b"hot1").unwrap();
    assert_eq!((c.key(), c.trailer()), (&b"hot"[..], put(3)));
    for i in 2..=n {
        c.prev().unwrap();
        assert_eq!(c.trailer(), put(i * 3));
    }
    c.prev().unwrap();
    assert!(!c.valid());
}

#[test]
fn sizes_up_to_the_limits() {
    let (mut writer, mem) = new();
    assert!(mem.is_empty() && mem.bytes() < 1024 && mem.max_seq() == Seq::ZERO);
    let long = vec![7; crate::key::MAX_KEY_LEN];
    let large: Vec<u8> = (0..3 << 20).map(|i| (i * 31) as u8).collect();
    writer.insert(&long, put(4), &large);
    writer.insert(b"", put(5), b"");
    writer.insert(&long[1..], put(6), b"short");
    writer.insert(b"", Trailer::new(seq(8), Kind::Delete), b"");
    assert!(mem.get(&long, Seq::MAX).unwrap().value == large);
    assert_eq!(mem.get(&long[1..], Seq::MAX).unwrap().value, b"short");
    assert_eq!(mem.get(b"", seq(7)).unwrap().trailer.kind(), Kind::Put);
    assert_eq!(mem.get(b"", seq(8)).unwrap().trailer.kind(), Kind::Delete);
    assert!(mem.bytes() > 3 << 20 && mem.bytes() < 5 << 20);
    assert_eq!((mem.max_seq(), mem.len()), (seq(8), 4));
}

/// Lengths just below and above what a short record's header can say, with an older version and without.
#[test]
fn sizes_around_those_of_short_records() {
    let (mut writer, mem) = new();
    let sizes = [0, 1, 2045, 2046, 2047, 2048].map(|k| [0, 1, (1 << 20) - 1, 1 << 20].map(|v| (k, v)));
    let kept: Vec<(Vec<u8>, Vec<u8>)> =
        sizes.iter().flatten().map(|&(k, v)| (vec![1; k], vec![2; v])).collect();
    for (i, (key, value)) in kept.iter().enumerate() {
        writer.insert(key, put(i as u64 + 1), value);
    }
    for (i, (key, value)) in kept.iter().enumerate() {
        let found = mem.get(key, seq(i as u64 + 1)).unwrap();
        assert!(found.trailer == put(i as u64 + 1) && found.value == value, "{}, {}", key.len(), value.len());
    }
}

/// Jumps shorten the way to any version to a few steps.
#[test]
fn versions_are_found_in_few_steps() {
    let (mut writer, mem) = new();
    let n = 10_000u64;
    for i in 1..=n {
        writer.insert(b"k", put(i), b"");
    }
    let tree = &mem.tree;
    let newest = tree.newest(b"k", crate::key::hash(b"k")).unwrap();
    for read in (1..=n).step_by(37) {
        let (mut at, mut steps) = (newest, 0);
        while at.trailer() > put(read) {
            let chain = at.chain().unwrap();
            assert_eq!(u64::from(chain.depth) + 1, at.trailer().seq().get());
            assert_eq!(tree.record(chain.oldest).trailer(), put(1));
            let jump = tree.record(chain.jump);
            at = if jump.trailer() > put(read) { jump } else { tree.record(chain.older) };
            steps += 1;
        }
        assert_eq!(at.trailer(), put(read));
        assert!(steps <= 3 * n.ilog2(), "{steps} steps to {read}");
    }
}

/// Many leaves and three levels, grown from all sides at once: ascending streams of several
/// prefixes, a descending one, and random keys between them.
#[test]
fn grows_from_all_sides() {
    let (mut writer, mem) = new();
    let mut model = Model::new();
    let mut r = Random(1);
    for i in 1..=24_000u64 {
        let key = match i % 6 {
            0 => format!("down/{:08}", 99_999_999 - i).into_bytes(),
            1 => [&b"up"[..], &i.to_be_bytes()].concat(),
            2 => (0..3 + r.below(6)).map(|_| r.next() as u8).collect(),
            3 => format!("zzz/{i}").into_bytes(),
            n => format!("stream-with-a-long-name-{:03}/{i:09}", n * r.below(7)).into_bytes(),
        };
        writer.insert(&key, put(i), &i.to_le_bytes());
        model.insert((key, Reverse(put(i))), i.to_le_bytes().to_vec());
    }
    let mut c = MemCursor::new(mem.clone());
    c.seek_first().unwrap();
    for e in &model {
        assert_eq!(at(&c), entry(Some(e)));
        assert_eq!(mem.get(&e.0.0, Seq::MAX).unwrap().trailer, model_newest(&model, &e.0.0));
        c.next().unwrap();
    }
    assert!(!c.valid());
    c.seek_last().unwrap();
    for e in model.iter().rev() {
        assert_eq!(at(&c), entry(Some(e)));
        c.prev().unwrap();
    }
    assert!(!c.valid());
}

fn model_newest(model: &Model, key: &[u8]) -> Trailer {
    model.range((key.to_vec(), Reverse(Trailer::newest(Seq::MAX)))..).next().unwrap().0.1.0
}

/// Leaves that fill in order are left full; others are two thirds full on average.
#[test]
fn memory_per_entry_stays_low() {
    let payload = 16 + 40;
    let bytes = |key: &dyn Fn(u64) -> [u8; 16]| {
        let (mut writer, mem) = new();
        for i in 1..=40_000 {
            writer.insert(&key(i), put(i), &[0; 40]);
        }
        mem.bytes() / 40_000 - payload
    };
    let mut r = Random(3);
    let random: Vec<u64> = (0..=40_000).map(|_| r.next()).collect();
    let spread = |n: u64, m: u64| {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&n.to_be_bytes());
        key[8..].copy_from_slice(&m.to_be_bytes());
        key
    };
    // A record's header takes 12 bytes; up to two chunks are partly empty.
    let ascending = bytes(&|i| spread(i, i));
    assert!(ascending < 12 + 14 + 40, "{ascending}");
    let streams = bytes(&|i| spread(random[i as usize % 20], i));
    assert!(streams < 12 + 14 + 40, "{streams}");
    let scattered = bytes(&|i| spread(random[i as usize], i));
    assert!(scattered < 12 + 32 + 40, "{scattered}");
}

#[test]
fn an_idle_memtable_takes_little() {
    let (mut writer, mem) = new();
    assert!(mem.bytes() < 1 << 10, "{}", mem.bytes());
    writer.insert(b"key", put(1), b"value");
    assert!(mem.bytes() < 3 << 10, "{}", mem.bytes());
}

#[test]
fn chunks_go_from_one_memtable_to_the_next() {
    let budget = Budget::new(20 << 20, 0);
    let pool = Pool::new(3 << 20, &budget);
    let held = || budget.used(Use::Memtables);
    let fill = || {
        let (mut writer, mem) = new_in(&pool);
        for i in 1..=6000u64 {
            writer.insert(&i.to_be_bytes(), put(i), &[i as u8; 1000]);
        }
        for i in 1..=6000u64 {
            assert_eq!(mem.get(&i.to_be_bytes(), Seq::MAX).unwrap().value, [i as u8; 1000]);
        }
        (writer, mem)
    };
    let first = fill();
    assert_eq!(pool.bytes(), 0);
    assert_eq!(held(), first.1.bytes());
    drop(first);
    assert_eq!((pool.bytes(), held()), (3 << 20, 3 << 20));
    let second = fill();
    assert_eq!(pool.bytes(), 0);
    drop(second);
    pool.shrink(1 << 20);
    assert_eq!((pool.bytes(), held()), (1 << 20, 1 << 20));
    // Nothing is kept where others need the memory.
    let third = fill();
    budget.grow(Use::Blocks, 20 << 20);
    drop(third);
    assert_eq!((pool.bytes(), held()), (0, 0));
    // Range deletes and idle memtables count as well.
    let (mut writer, mem) = new_in(&pool);
    assert_eq!(held(), mem.bytes());
    writer.delete_range(b"a", Some(b"b"), Seq::new(7).unwrap());
    assert_eq!(held(), mem.bytes());
    drop((writer, mem, pool));
    assert_eq!(held(), 0);
}

#[test]
fn versions_may_come_late_or_twice() {
    let (mut writer, mem) = new();
    let mut model = Model::new();
    let mut r = Random(11);
    for _ in 0..3000 {
        let key = key(Shape::Tiny, &mut r, 0);
        let trailer = put(1 + r.below(200));
        writer.insert(&key, trailer, &trailer.get().to_le_bytes());
        model.insert((key, Reverse(trailer)), trailer.get().to_le_bytes().to_vec());
    }
    assert_eq!(mem.len(), model.len());
    let mut c = MemCursor::new(mem.clone());
    c.seek_first().unwrap();
    for e in &model {
        assert_eq!(at(&c), entry(Some(e)));
        let found = mem.get(&e.0.0, e.0.1.0.seq()).unwrap();
        assert_eq!((found.trailer, found.value), (e.0.1.0, &e.1[..]));
        c.next().unwrap();
    }
    assert!(!c.valid());
}

#[test]
fn range_deletes_agree_with_asking_each() {
    for rounds in [1u64, 2, 3, 40, 120] {
        let mut r = Random(rounds);
        let (mut writer, mem) = new();
        let mut deletes: Vec<(Vec<u8>, Option<[u8; 1]>, Seq)> = Vec::new();
        for i in 1..=rounds {
            let (a, b) = (r.below(30) as u8, r.below(32) as u8);
            // Half of them nested, as a queue deletes its front again and again.
            let start: &[u8] = if rounds == 120 && i % 2 == 0 { &[] } else { &[a] };
            let end = (b < 31).then_some([b]);
            writer.delete_range(start, end.as_ref().map(|e| &e[..]), seq(i * 2));
            deletes.push((start.into(), end, seq(i * 2)));
        }
        let sets = mem.range_sets().unwrap_or_default();
        for key in 0..33u8 {
            let covers =
                |d: &&(Vec<u8>, Option<[u8; 1]>, Seq)| d.0[..] <= [key][..] && d.1.is_none_or(|e| e > [key]);
            for read in 0..2 * rounds + 2 {
                let expect = deletes.iter().filter(covers).map(|d| d.2).filter(|&s| s <= seq(read)).max();
                assert_eq!(mem.newest_cover(&[key], seq(read)), expect);
                let around = sets.around(&[key], seq(read));
                assert_eq!((sets.newest_cover(&[key], seq(read)), around.newest), (expect, expect));
                assert_eq!(sets.solid(&[key], seq(read)).is_some(), expect.is_some());
                for near in (0..33u8)
                    .filter(|&k| *around.lower <= [k][..] && around.upper.is_none_or(|e| *e > [k][..]))
                {
                    assert_eq!(sets.newest_cover(&[near], seq(read)), expect);
                }
            }
            let newest = deletes.iter().filter(covers).map(|d| d.2).max();
            for since in 0..2 * rounds + 2 {
                let changed = newest.is_some_and(|s| s > seq(since));
                assert_eq!(mem.range_changed_since(&[key], Some(&[key, 0]), seq(since)), changed);
            }
        }
        assert_eq!(mem.len() as u64, rounds);
    }
}

#[test]
fn nested_range_deletes_stay_linear() {
    let (mut writer, mem) = new();
    for i in 1..=3000u32 {
        writer.delete_range(b"", Some(&i.to_be_bytes()), seq(i.into()));
    }
    assert!(mem.bytes() < 3000 * 1000, "{}", mem.bytes());
    assert_eq!(mem.newest_cover(&2998u32.to_be_bytes(), Seq::MAX), Some(seq(3000)));
    assert_eq!(mem.newest_cover(&3000u32.to_be_bytes(), Seq::MAX), None);
    assert_eq!(mem.newest_cover(&10u32.to_be_bytes(), seq(12)), Some(seq(12)));
}

/// Readers run beside the writer: whatever was announced is found, whole, and stays.
#[test]
fn readers_see_everything_announced() {
    let n = 30_000u64;
    let key = |i: u64| format!("k{:07}", i.wrapping_mul(7919) % 1_000_003).into_bytes();
    let value = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes().repeat(1 + (i % 3) as usize);
    let (mut writer, mem) = new();
    let done = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        for t in 0..2u64 {
            let (done, stop, mem) = (&done, &stop, mem.clone());
            s.spawn(move || {
                let mut r = Random(t);
                let mut c = MemCursor::new(mem.clone());
                while !stop.load(Ordering::Relaxed) {
                    let seen = done.load(Ordering::Acquire);
                    if seen == 0 {
                        continue;
                    }
                    let i = 1 + r.below(seen);
                    let found = mem.get(&key(i), seq(seen)).unwrap();
                    assert_eq!((found.trailer, found.value), (put(i), &value(i)[..]));
                    if t == 1 && r.below(100) == 0 {
                        // A scan sees each announced entry once, in order.
                        let (mut count, mut last) = (0, Vec::new());
                        c.seek_first().unwrap();
                        while c.valid() {
                            count += u64::from(c.trailer().seq() <= seq(seen));
                            assert!(last.is_empty() || *last < *c.key());
                            last = c.key().to_vec();
                            c.next().unwrap();
                        }
                        assert_eq!(count, seen);
                    }
                }
            });
        }
        for i in 1..=n {
            writer.insert(&key(i), put(i), &value(i));
            done.store(i, Ordering::Release);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(mem.len() as u64, n);
}

#[test]
fn the_middle_has_many_entries_on_both_sides() {
    for ascending in [false, true] {
        let (mut writer, memtable) = new();
        assert!(memtable.middle().is_none());
        let mut random = Random(3);
        for i in 0..200_000u64 {
            let key = if ascending { i } else { random.next() };
            writer.insert(&key.to_be_bytes(), put(i + 1), b"");
        }
        let middle = memtable.middle().unwrap();
        let mut cursor = MemCursor::new(memtable.clone());
        cursor.seek_first().unwrap();
        let mut before = 0;
        while cursor.key() < middle {
            before += 1;
            cursor.next().unwrap();
        }
        assert!((50_000..150_000).contains(&before), "{before} of 200000 when ascending is {ascending}");
    }
}
