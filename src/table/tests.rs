//! Whole tables: what is written is what is read, however it is read.

use crate::cache::Cache;
use crate::cursor::Cursor;
use crate::error::{ErrorKind, Result};
use crate::fs::{File, Fs, Lock, SharedBytes, Window};
use crate::ids::{FileNo, Seq};
use crate::key::{self, Kind, Trailer};
use crate::options::Compression;
use crate::table::format;
use crate::table::{Handle, Pin, ReadOptions, Store, Summary, Table, TableCursor, WriteOptions, Writer};
use crate::tombstones::{RangeDelete, RangeTombstones};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

mod damage;
mod golden;
mod measure;

/// A file in memory.
#[derive(Default, Debug)]
struct MemFile(Mutex<Vec<u8>>);

impl File for MemFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.0.lock().unwrap();
        let from = bytes.get(offset as usize..).unwrap_or_default();
        let n = from.len().min(buf.len());
        buf[..n].copy_from_slice(&from[..n]);
        Ok(n)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let mut bytes = self.0.lock().unwrap();
        let end = offset as usize + buf.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset as usize..end].copy_from_slice(buf);
        Ok(buf.len())
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }
    fn allocate(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn map(&self) -> io::Result<Option<SharedBytes>> {
        Ok(Some(Arc::new(self.0.lock().unwrap().clone())))
    }
    fn window(&self, _len: u64) -> io::Result<Option<Box<dyn Window>>> {
        Ok(None)
    }
}

#[derive(Default, Debug)]
struct MemFs(Mutex<BTreeMap<PathBuf, Arc<MemFile>>>);

impl Fs for MemFs {
    fn create_dir_all(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }
    fn list(&self, _dir: &Path) -> io::Result<Vec<(std::ffi::OsString, Option<u64>)>> {
        Ok(Vec::new())
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut files = self.0.lock().unwrap();
        if files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(files.entry(path.into()).or_default().clone())
    }
    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.open_read(path)
    }
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let files = self.0.lock().unwrap();
        Ok(files.get(path).ok_or(io::ErrorKind::NotFound)?.clone())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.lock().unwrap().remove(path).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }
    fn link(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }
    fn lock(&self, _path: &Path, _shared: bool) -> io::Result<Box<dyn Lock>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

const ID: u64 = 0x1234_5678_9abc_def0;
const PATH: &str = "/db/000007.table";

/// Entries in internal order.
type Entries = Vec<(Vec<u8>, Trailer, Vec<u8>)>;

fn seq(n: u64) -> Seq {
    Seq::new(n).unwrap()
}

fn put(n: u64) -> Trailer {
    Trailer::new(seq(n), Kind::Put)
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 33) % n
    }
}

fn write(entries: &Entries, tombstones: &RangeTombstones, options: WriteOptions) -> (Vec<u8>, Summary) {
    let file = Arc::new(MemFile::default());
    let mut writer = Writer::new(file.clone(), Path::new(PATH), ID, options);
    for (key, trailer, value) in entries {
        writer.add(key, *trailer, value).unwrap();
    }
    let summary = writer.finish(tombstones).unwrap();
    let bytes = file.0.lock().unwrap().clone();
    assert_eq!(summary.size, bytes.len() as u64);
    (bytes, summary)
}

fn open(bytes: &[u8], mapped: bool, cache: &Arc<Cache>) -> Result<Arc<Table>> {
    let file = Arc::new(MemFile(Mutex::new(bytes.to_vec())));
    let size = bytes.len() as u64;
    Table::open(file, Path::new(PATH), ID, size, ReadOptions { mapped }, cache).map(Arc::new)
}

fn compressions() -> Vec<Compression> {
    vec![
        Compression::None,
        Compression::Lz4,
        #[cfg(feature = "zstd")]
        Compression::Zstd,
    ]
}

/// Sorted entries of several shapes of keys, some with many versions.
fn random_entries(random: &mut Random, n: u64) -> Entries {
    let shape = random.below(5);
    let values = random.below(3);
    let versions = random.below(3);
    let top = 1 << (4 + random.below(50));
    let mut map = BTreeMap::new();
    let mut key = Vec::new();
    for _ in 0..n {
        if versions == 0 || key.is_empty() || random.below(if versions == 1 { 2 } else { 40 }) == 0 {
            let id = random.below(3 * n);
            key = match shape {
                0 => id.to_be_bytes().to_vec(),
                1 => format!("user{id:012}:field").into_bytes(),
                2 => (0..random.below(7)).map(|_| b"\0a\xff"[random.below(3) as usize]).collect(),
                3 => format!("{}/shared by many/{}", id % 3, id).into_bytes(),
                _ => id.to_string().into_bytes(),
            };
        }
        let kind = if random.below(10) == 0 { Kind::Delete } else { Kind::Put };
        let len = match values {
            0 => 20,
            1 => random.below(30),
            _ => random.below(5) * random.below(5) * 50,
        };
        let value = if kind == Kind::Put { vec![random.next() as u8; len as usize] } else { Vec::new() };
        map.insert((key.clone(), !random.below(top)), (kind, value));
    }
    let trailer = |not: u64, kind| Trailer::new(seq(!not), kind);
    map.into_iter().map(|((key, not), (kind, value))| (key, trailer(not, kind), value)).collect()
}

/// Somewhere in or near `entries`.
fn random_place(random: &mut Random, entries: &Entries) -> (Vec<u8>, Trailer) {
    let (key, trailer, _) = &entries[random.below(entries.len() as u64) as usize];
    let mut key = key.clone();
    match random.below(6) {
        0 => key.push(random.next() as u8),
        1 => drop(key.pop()),
        2 => key = key::prefix_end(&key).unwrap_or_default(),
        _ => {}
    }
    let around = trailer.seq().get().saturating_add(random.below(3)).saturating_sub(1);
    let trailer = if random.below(2) == 0 { *trailer } else { Trailer::newest(seq(around)) };
    (key, trailer)
}

fn assert_at(cursor: &mut TableCursor, entries: &Entries, at: Option<usize>) {
    match at.and_then(|at| entries.get(at)) {
        Some((key, trailer, value)) => {
            assert!(cursor.valid());
            // Whoever needs no value does not ask for it.
            if key.len().is_multiple_of(2) {
                cursor.fetch().unwrap();
                assert_eq!(cursor.value(), &value[..]);
            }
            assert_eq!((cursor.key(), cursor.trailer()), (&key[..], *trailer));
            let before = at.and_then(|at| at.checked_sub(1)).map(|i| &entries[i]);
            let newer = before.filter(|before| before.0 == *key).map(|before| before.1);
            assert!(!cursor.alone() || newer.is_none());
            assert_eq!(cursor.newer().unwrap(), newer);
            assert_eq!((cursor.key(), cursor.trailer()), (&key[..], *trailer));
        }
        None => assert!(!cursor.valid()),
    }
}

/// A cursor of each kind.
fn cursors(table: &Arc<Table>) -> [TableCursor; 3] {
    [TableCursor::new, TableCursor::lending, TableCursor::streaming].map(|make| make(table.clone()))
}

fn check_gets(random: &mut Random, table: &Table, entries: &Entries) {
    let mut pin = Pin::default();
    for _ in 0..150 {
        let (key, trailer) = random_place(random, entries);
        let read = trailer.seq();
        let expect = entries.iter().find(|e| e.0 == key && e.1.seq() <= read);
        let found = table.get(&key, key::hash(&key), read, &mut pin).unwrap();
        assert_eq!(found.map(|f| (f.trailer, f.value)), expect.map(|e| (e.1, &e.2[..])), "{key:?} {read}");
        if let Some(found) = found {
            assert!(table.may_contain(key::hash(&key)));
            // A compressed block that is not to be cached has no owner.
            let owned = found.owner.map(|owner| (**owner).as_ref());
            let within = |owned: &[u8]| owned.as_ptr_range().contains(&found.value.as_ptr());
            assert!(found.value.is_empty() || owned.is_none_or(within));
        }
    }
}

fn check_cursor(random: &mut Random, cursor: &mut TableCursor, entries: &Entries) {
    let n = entries.len();
    cursor.seek_first().unwrap();
    for i in 0..=n {
        assert_at(cursor, entries, Some(i));
        if i < n {
            cursor.next().unwrap();
            let behind = entries.get(i + 1);
            assert!(behind.is_none_or(|b| cursor.repeats() == (b.0 == entries[i].0)));
        }
    }
    cursor.seek_last().unwrap();
    for i in (0..n).rev() {
        assert_at(cursor, entries, Some(i));
        cursor.prev().unwrap();
        assert!(i == 0 || cursor.repeats() == (entries[i - 1].0 == entries[i].0));
    }
    assert!(!cursor.valid());
    for _ in 0..100 {
        let (key, trailer) = random_place(random, entries);
        let at = entries.partition_point(|e| key::compare((&e.0, e.1), (&key, trailer)).is_lt());
        cursor.seek(&key, trailer).unwrap();
        assert_at(cursor, entries, Some(at));
        if cursor.valid() {
            cursor.prev().unwrap();
            assert_at(cursor, entries, at.checked_sub(1));
        }
        let at = entries.partition_point(|e| e.0 < key).checked_sub(1);
        cursor.seek_before(&key).unwrap();
        assert_at(cursor, entries, at);
        if cursor.valid() {
            cursor.next().unwrap();
            assert_at(cursor, entries, at.map(|at| at + 1));
        }
    }
}

#[test]
fn what_is_written_is_read() {
    for seed in 1..=12 {
        let mut random = Random(seed);
        let entries = random_entries(&mut random, 1 + (seed * seed * 3) % 500);
        for compression in compressions() {
            let block_bytes = 64 << random.below(11);
            let filter_bits = [0, 1, 10, 16][random.below(4) as usize];
            let options = WriteOptions { block_bytes, compression, filter_bits };
            let (bytes, summary) = write(&entries, &RangeTombstones::default(), options);
            let count = |kind| entries.iter().filter(|e| e.1.kind() == kind).count() as u64;
            assert_eq!(summary.entries, entries.len() as u64);
            assert_eq!(summary.deletes, count(Kind::Delete));
            assert_eq!(*summary.smallest, *entries[0].0);
            assert_eq!(summary.end.as_deref(), Some(&*key::after(&entries[entries.len() - 1].0)));
            assert_eq!(Some(summary.min_seq), entries.iter().map(|e| e.1.seq()).min());
            assert_eq!(Some(summary.max_seq), entries.iter().map(|e| e.1.seq()).max());
            for mapped in [true, false] {
                let cache = Cache::new([0, 20 << 10, 1 << 20][random.below(3) as usize]);
                let table = open(&bytes, mapped, &cache).unwrap();
                table.verify().unwrap();
                check_gets(&mut random, &table, &entries);
                for mut cursor in cursors(&table) {
                    check_cursor(&mut random, &mut cursor, &entries);
                }
            }
        }
    }
}

#[test]
fn small_rows_do_not_cross_pages() {
    let entries: Entries =
        (0..2000u64).map(|i| (i.wrapping_mul(i).to_be_bytes().to_vec(), put(i), vec![7; 90])).collect();
    let mut entries = entries;
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    let options = WriteOptions { block_bytes: 4096, compression: Compression::None, filter_bits: 10 };
    let (bytes, _) = write(&entries, &RangeTombstones::default(), options);
    let table = open(&bytes, true, &Cache::new(0)).unwrap();
    for i in 0..table.index().len() {
        assert_eq!(table.index().block(i).unwrap().offset, 4096 * i as u64);
    }
    // Larger rows waste no space on borders.
    let entries: Entries = (0..300u64).map(|i| (i.to_be_bytes().to_vec(), put(i), vec![7; 1000])).collect();
    let (bytes, summary) = write(&entries, &RangeTombstones::default(), options);
    assert!(summary.size < summary.raw_bytes * 103 / 100);
    open(&bytes, true, &Cache::new(0)).unwrap().verify().unwrap();
}

#[test]
fn a_huge_value_is_one_block_stored_as_it_is() {
    // More than is ever decompressed at once, although it would compress well.
    let huge = vec![7; format::MAX_COMPRESSED + 1];
    let entries = vec![(b"a".to_vec(), put(1), b"1".to_vec()), (b"b".to_vec(), put(2), huge)];
    let options = WriteOptions { block_bytes: 4096, compression: Compression::Lz4, filter_bits: 10 };
    let (bytes, summary) = write(&entries, &RangeTombstones::default(), options);
    assert!(summary.size > format::MAX_COMPRESSED as u64);
    let table = open(&bytes, true, &Cache::new(1 << 20)).unwrap();
    let mut pin = Pin::default();
    for (key, trailer, value) in &entries {
        let found = table.get(key, key::hash(key), trailer.seq(), &mut pin).unwrap().unwrap();
        assert!(found.value == value);
    }
}

#[test]
fn a_failed_read_is_reported_and_not_remembered() {
    #[derive(Debug)]
    struct Failing(MemFile, AtomicBool);
    impl File for Failing {
        fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
            if self.1.load(Ordering::Relaxed) {
                return Err(io::Error::other("the disk is gone"));
            }
            self.0.read_at(buf, offset)
        }
        fn write_at(&self, _buf: &[u8], _offset: u64) -> io::Result<usize> {
            unreachable!("tables are not written to")
        }
        fn len(&self) -> io::Result<u64> {
            self.0.len()
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
    let entries: Entries = (0..100u8).map(|i| (vec![i], put(i.into()), vec![i; 50])).collect();
    let options = WriteOptions { block_bytes: 200, compression: Compression::None, filter_bits: 10 };
    let (bytes, summary) = write(&entries, &RangeTombstones::default(), options);
    let file = Arc::new(Failing(MemFile(Mutex::new(bytes)), AtomicBool::new(false)));
    let mapped = ReadOptions { mapped: true };
    let cache = Cache::new(1 << 20);
    let table = Table::open(file.clone(), Path::new(PATH), ID, summary.size, mapped, &cache).unwrap();
    let table = Arc::new(table);
    let mut pin = Pin::default();
    let mut cursors = cursors(&table);
    file.1.store(true, Ordering::Relaxed);
    let e = table.get(&[50], key::hash(&[50]), Seq::MAX, &mut pin).err().unwrap();
    assert_eq!((e.kind(), e.file()), (ErrorKind::Io, Some(Path::new(PATH))));
    for cursor in &mut cursors {
        assert_eq!(cursor.seek(&[50], put(50)).unwrap_err().kind(), ErrorKind::Io);
        assert!(!cursor.valid());
    }
    file.1.store(false, Ordering::Relaxed);
    assert!(table.get(&[50], key::hash(&[50]), Seq::MAX, &mut pin).unwrap().is_some());
    for cursor in &mut cursors {
        cursor.seek(&[50], put(50)).unwrap();
        assert_at(cursor, &entries, Some(50));
    }
}

#[test]
fn threads_share_a_table_and_a_cache_that_is_too_small() {
    let entries: Entries = (0..400u64)
        .map(|i| (format!("{i:05}").into_bytes(), put(i), format!("{i} and so on").repeat(9).into_bytes()))
        .collect();
    let options = WriteOptions { block_bytes: 512, compression: Compression::Lz4, filter_bits: 10 };
    let (bytes, _) = write(&entries, &RangeTombstones::default(), options);
    let cache = Cache::new(20 << 10);
    let table = open(&bytes, true, &cache).unwrap();
    std::thread::scope(|scope| {
        for t in 0..4 {
            let (table, entries) = (&table, &entries);
            scope.spawn(move || {
                let (mut random, mut pin) = (Random(t + 1), Pin::default());
                for _ in 0..500 {
                    let (key, trailer, value) = &entries[random.below(400) as usize];
                    let found = table.get(key, key::hash(key), Seq::MAX, &mut pin).unwrap().unwrap();
                    assert_eq!((found.trailer, found.value), (*trailer, &value[..]));
                }
            });
        }
    });
    assert!(cache.stats().hits > 0 && cache.stats().bytes <= 20 << 10);
    drop(table);
    assert_eq!(cache.stats().bytes, 0);
}

#[test]
fn range_tombstones_widen_the_table() {
    fn delete<'a>(start: &'a [u8], end: Option<&'a [u8]>, n: u64) -> RangeDelete<'a> {
        RangeDelete { start, end, seq: seq(n) }
    }
    let options = WriteOptions { block_bytes: 4096, compression: Compression::Lz4, filter_bits: 10 };
    let entries = vec![(b"k".to_vec(), put(5), b"v".to_vec())];
    let cache = Cache::new(1 << 20);

    let t = RangeTombstones::new([delete(b"a", Some(b"c"), 9), delete(b"b", Some(b"x"), 2)]);
    let (bytes, summary) = write(&entries, &t, options);
    assert_eq!((&*summary.smallest, summary.end.as_deref()), (&b"a"[..], Some(&b"x"[..])));
    assert_eq!((summary.min_seq, summary.max_seq, summary.range_deletes), (seq(2), seq(9), 4));
    let table = open(&bytes, true, &cache).unwrap();
    assert_eq!(table.tombstones(), &t);
    table.verify().unwrap();

    let t = RangeTombstones::new([delete(b"q", None, 9)]);
    let (bytes, summary) = write(&Vec::new(), &t, options);
    assert_eq!((&*summary.smallest, summary.end.as_deref(), summary.entries), (&b"q"[..], None, 0));
    let table = open(&bytes, true, &cache).unwrap();
    assert_eq!(table.tombstones().newest_cover(b"z", Seq::MAX), Some(seq(9)));
    table.verify().unwrap();
    let mut cursor = TableCursor::new(table.clone());
    for go in [Cursor::seek_first, Cursor::seek_last] {
        go(&mut cursor).unwrap();
        assert!(!cursor.valid());
    }
    cursor.seek_before(b"z").unwrap();
    assert!(!cursor.valid());
    assert!(table.get(b"k", key::hash(b"k"), Seq::MAX, &mut Pin::default()).unwrap().is_none());

    let t = RangeTombstones::new([delete(b"a", Some(b"c"), 9)]);
    let (_, summary) = write(&entries, &t, options);
    assert_eq!(summary.end.as_deref(), Some(&b"k\0"[..]));
}

#[test]
fn a_writer_refuses_disorder_and_emptiness() {
    let writer = || {
        let options = WriteOptions { block_bytes: 1, compression: Compression::None, filter_bits: 10 };
        Writer::new(Arc::new(MemFile::default()), Path::new(PATH), ID, options)
    };
    let mut w = writer();
    w.add(b"b", put(5), b"").unwrap();
    for (key, trailer) in [(b"a", put(9)), (b"b", put(5)), (b"b", put(6))] {
        assert_eq!(w.add(key, trailer, b"").unwrap_err().kind(), ErrorKind::Invalid);
    }
    w.add(b"b", put(4), b"").unwrap();
    assert_eq!(writer().finish(&RangeTombstones::default()).unwrap_err().kind(), ErrorKind::Invalid);
    let large = vec![0; key::MAX_KEY_LEN + 1];
    assert_eq!(writer().add(&large, put(1), b"").unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn an_obsolete_table_goes_with_its_last_user() {
    let fs = Arc::new(MemFs::default());
    let cache = Cache::new(1 << 20);
    let store = Store::new(fs.clone(), "/db".into(), cache, ReadOptions { mapped: false });
    let options = WriteOptions { block_bytes: 4096, compression: Compression::Lz4, filter_bits: 10 };
    let mut writer = store.create(FileNo(7), ID, options).unwrap();
    assert!(store.create(FileNo(7), ID, options).is_err());
    writer.add(b"k", put(1), b"v").unwrap();
    let size = writer.finish(&RangeTombstones::default()).unwrap().size;

    let wrong = Handle::new(&store, FileNo(8), ID, size);
    assert_eq!(wrong.table().unwrap_err().kind(), ErrorKind::Io);
    let other = Handle::new(&store, FileNo(7), ID + 1, size);
    assert!(other.table().unwrap_err().is_corruption());
    drop((wrong, other));

    let handle = Handle::new(&store, FileNo(7), ID, size);
    assert!(handle.opened().is_none());
    drop(handle.table().unwrap());
    let table = handle.visit().unwrap();
    assert!(Arc::ptr_eq(&table, handle.opened().unwrap()));
    // Another handle of the same file opens it for itself.
    let second = handle.fresh();
    assert!(second.opened().is_none());
    assert_eq!(second.table().unwrap().properties().entries, 1);
    assert_eq!(store.cache().budget().files(), 2);
    handle.obsolete();
    drop(handle);
    assert_eq!(store.cache().budget().files(), 2);
    let mut pin = Pin::default();
    let get = |pin| table.get(b"k", key::hash(b"k"), Seq::MAX, pin).unwrap().unwrap().value.to_vec();
    assert_eq!(get(&mut pin), b"v");
    assert_eq!(fs.0.lock().unwrap().len(), 1);
    drop(second);
    assert_eq!(store.cache().budget().files(), 1);
    assert!(fs.0.lock().unwrap().is_empty());
}

/// Whether a table of puts (`.`) and deletes (`x`), so many of each, is dense in tombstones; and
/// whether what is said of versions of one key is right.
#[test]
fn stretches_of_tombstones_are_noticed() {
    for (stretches, dense) in [
        (&[(3071, 'x')][..], false),
        (&[(3072, 'x')], true),
        (&[(512, '.'), (3072, 'x'), (512, '.')], true),
        (&[(512, '.'), (3071, 'x'), (513, '.')], false),
        // Somewhere in a table that is mostly something else, and behind something like it.
        (&[(30_000, '.'), (4096, 'x'), (30_000, '.')], true),
        (&[(3000, '.'), (3000, 'x'), (2000, '.'), (3000, 'x'), (3000, '.')], false),
    ] {
        let mut entries = Entries::new();
        for &(count, kind) in stretches {
            for _ in 0..count {
                let key = format!("{:08}", entries.len() / 2).into_bytes();
                // Two versions of each key.
                let seq = Seq::new(2 - entries.len() as u64 % 2).unwrap();
                let kind = if kind == 'x' { Kind::Delete } else { Kind::Put };
                entries.push((key, Trailer::new(seq, kind), Vec::new()));
            }
        }
        let options = WriteOptions { block_bytes: 4096, compression: Compression::None, filter_bits: 10 };
        let summary = write(&entries, &RangeTombstones::default(), options).1;
        assert_eq!((summary.dense, summary.superseded), (dense, entries.len() as u64 / 2), "{stretches:?}");
    }
}
