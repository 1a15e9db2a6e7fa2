//! Fuzz targets for tables and their parts.

use crate::cache::Cache;
use crate::choices::{Choices, edit, hurt};
use crate::cursor::Cursor;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::sim::SimFs;
use crate::fs::{Fs, read_exact_at, write_all_at};
use crate::fuzz::damage;
use crate::ids::Seq;
use crate::key::{self, Kind, Trailer};
use crate::options::Compression;
use crate::record::checksum;
use crate::table::block::{Block, KeyBuf, Layout, fingerprint};
use crate::table::builder::Builder;
use crate::table::filter::Filter;
use crate::table::format::{Codec, FOOTER_LEN};
use crate::table::index::{self, Index};
use crate::table::{Pin, ReadOptions, Table, TableCursor, WriteOptions, Writer};
use crate::tombstones::{RangeDelete, RangeTombstones};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Entries in internal order.
type Rows = Vec<(Vec<u8>, Trailer, Vec<u8>)>;

fn seq(n: u64) -> Seq {
    Seq::ZERO.plus(n)
}

/// Keys close to each other: parts of the one before, and little else.
fn key(input: &mut Choices<'_>, before: &[u8]) -> Vec<u8> {
    let keep = input.below(before.len() + 1);
    match input.byte() % 8 {
        0 => input.some().to_vec(),
        1 => [&before[..keep], &[0xff; 9][..input.below(10)]].concat(),
        2 => [before, &[0; 9][..input.below(10)]].concat(),
        3 => before.to_vec(),
        4 => [&b"the same for all"[..], input.take(2)].concat(),
        _ => [&before[..keep], input.take(2)].concat(),
    }
}

/// Rows as a flush or a compaction might write them.
fn rows(input: &mut Choices<'_>, most: usize) -> Rows {
    let mut sorted = BTreeMap::new();
    let mut last = Vec::new();
    for _ in 0..input.below(most + 1) {
        last = key(input, &last);
        let kind = if input.one_in(6) { Kind::Delete } else { Kind::Put };
        let seq = seq(input.number());
        let value = match input.byte() {
            _ if kind == Kind::Delete => Vec::new(),
            few @ 0..240 => vec![b'v'; usize::from(few % 24)],
            _ => input.some().repeat(8),
        };
        sorted.insert((last.clone(), std::cmp::Reverse(seq)), (kind, value));
    }
    let row = |((key, seq), (kind, value)): ((_, std::cmp::Reverse<Seq>), _)| {
        (key, Trailer::new(seq.0, kind), value)
    };
    sorted.into_iter().map(row).collect()
}

/// Somewhere in or near the rows.
fn probe(input: &mut Choices<'_>, rows: &Rows) -> (Vec<u8>, Trailer) {
    let near = rows.get(input.below(rows.len().max(1))).map(|r| (&r.0[..], r.1));
    let (near, trailer) = near.unwrap_or((b"", Trailer::newest(Seq::ZERO)));
    let key = key(input, near);
    (key, *input.pick(&[trailer, Trailer::newest(seq(input.clone().number())), Trailer::newest(Seq::MAX)]))
}

/// How many rows stand before that place.
fn before(rows: &Rows, key: &[u8], trailer: Trailer) -> usize {
    rows.partition_point(|r| key::compare((&r.0, r.1), (key, trailer)).is_lt())
}

/// A block of any bytes, and one of any rows.
pub fn block(data: &[u8]) {
    let mut input = Choices::new(data);
    let bytes = match input.byte() % 3 {
        0 => input.rest().to_vec(),
        how => {
            let rows = rows(&mut input, 40);
            if rows.is_empty() {
                return;
            }
            let mut bytes = build(&rows);
            assert_eq!(read_block(&bytes).expect("what was written"), rows);
            if how == 2 {
                let columns = [0..28, 0..bytes.len()];
                edit(&mut input, &mut bytes, &columns);
            }
            bytes
        }
    };
    let Some(rows) = damage(read_block(&bytes)) else { return };
    if find_all(&bytes, &rows) {
        assert_eq!(read_block(&build(&rows)).expect("what was written"), rows);
        for _ in 0..4 {
            let (key, trailer) = probe(&mut input, &rows);
            look_for(&bytes, &rows, &key, trailer);
        }
    }
}

fn build(rows: &Rows) -> Vec<u8> {
    let mut builder = Builder::default();
    for (key, trailer, value) in rows {
        builder.push(key, key::hash(key), *trailer, value);
    }
    let (mut out, most) = (Vec::new(), builder.size());
    builder.finish(&mut out);
    assert!(out.len() <= most, "{} bytes, not {most}", out.len());
    out
}

/// All rows, forward; they must be the same backward.
fn read_block(bytes: &[u8]) -> Result<Rows> {
    let layout = Layout::parse(bytes)?;
    let block = Block::new(bytes, &layout);
    block.check()?;
    let mut key = KeyBuf::default();
    block.read_prefix(&mut key);
    let mut row = |i: usize| {
        block.change_key(i, block.head(i), &mut key);
        let value = bytes.get(block.value_span(i)).expect("a value inside of its block");
        (key.as_slice().to_vec(), block.trailer(i), value.to_vec())
    };
    let rows: Rows = (0..layout.rows()).map(&mut row).collect();
    for i in (0..layout.rows()).rev() {
        assert_eq!(row(i), rows[i], "row {i} read backward");
    }
    Ok(rows)
}

/// If the rows are what a writer may have written: each is found. Whatever they are, nothing else
/// is. Answers whether they are.
fn find_all(bytes: &[u8], rows: &Rows) -> bool {
    let layout = Layout::parse(bytes).expect("what was read before");
    let block = Block::new(bytes, &layout);
    let sorted = rows.is_sorted_by(|a, b| key::compare((&a.0, a.1), (&b.0, b.1)).is_lt());
    let prefix = layout.columns()[1].1.len();
    let narrow = layout.columns()[2].1.len() == 4 * rows.len();
    let mask = if narrow { 0xffff_ffff << 32 } else { u64::MAX };
    let marks = &bytes[layout.columns()[0].1.clone()];
    let fit = rows.iter().enumerate().all(|(i, (key, ..))| {
        let head = key.get(prefix..).map(|rest| key::head(rest) & mask);
        head == Some(block.head(i)) && marks[i] == fingerprint(key::hash(key))
    });
    for (i, (key, trailer, _)) in rows.iter().enumerate() {
        let found = block.find(key, key::hash(key), trailer.seq());
        assert!(found.is_none_or(|row| rows[row].0 == *key && rows[row].1.seq() <= trailer.seq()));
        assert!(block.lower_bound(key, *trailer) <= rows.len());
        let one = i == 0 || rows[i - 1].0 != *key || rows[i - 1].1.seq() != trailer.seq();
        if sorted && fit && one {
            assert_eq!((found, block.lower_bound(key, *trailer)), (Some(i), i));
        }
    }
    sorted && fit
}

fn look_for(bytes: &[u8], rows: &Rows, key: &[u8], trailer: Trailer) {
    let layout = Layout::parse(bytes).expect("what was read before");
    let block = Block::new(bytes, &layout);
    assert_eq!(block.lower_bound(key, trailer), before(rows, key, trailer), "{key:?} {trailer:?}");
    let newest = before(rows, key, Trailer::newest(trailer.seq()));
    let expected = rows.get(newest).filter(|r| r.0 == key).map(|_| newest);
    assert_eq!(block.find(key, key::hash(key), trailer.seq()), expected, "{key:?} {trailer:?}");
}

/// An index of any bytes, and one of any separators.
pub fn index(data: &[u8]) {
    let mut input = Choices::new(data);
    let (bytes, data_len) = match input.byte() % 3 {
        0 => {
            let bytes = input.rest().to_vec();
            let end = ends(&bytes).and_then(|ends| ends.last().copied());
            (bytes, end.unwrap_or(0))
        }
        how => {
            let (mut bytes, mut end) = made_index(&mut input);
            if how == 2 {
                let all = [0..8, 0..bytes.len()];
                edit(&mut input, &mut bytes, &all);
                end = ends(&bytes).and_then(|ends| ends.last().copied()).unwrap_or(end);
            }
            (bytes, end)
        }
    };
    let Some(index) = damage(Index::decode(&bytes, data_len)) else { return };
    assert!(index.memory() <= 8 * bytes.len() + 64);
    let mut end = 0;
    for i in 0..index.len() {
        let at = index.block(i).expect("a block");
        assert_eq!(at.offset, end);
        end = at.end();
    }
    assert!(end == data_len && index.block(index.len()).is_none());
    // What follows the columns are the separators: good probes, with what is next to them.
    let mut probes: Vec<Vec<u8>> = (0..4).map(|_| input.some().to_vec()).collect();
    for len in 0..24 {
        let from = bytes.len() - (bytes.len() * len / 24);
        probes.push(bytes[from..].iter().copied().take(len).collect());
        let prefix = bytes.get(8..8 + u32_at(&bytes, 4).min(bytes.len() - 8)).unwrap_or_default();
        probes.push([prefix, &probes[probes.len() - 1]].concat());
    }
    for key in probes {
        // Separators ascend, or the index would have been refused.
        let expected =
            (0..index.len()).collect::<Vec<_>>().partition_point(|&i| index.compare(i, &key).is_lt());
        assert_eq!(index.find(&key), expected, "{key:?}");
    }
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    crate::coding::u32_at(bytes, at).map_or(0, |n| n as usize)
}

/// Where the blocks of an index end.
fn ends(bytes: &[u8]) -> Option<Vec<u64>> {
    let (n, prefix) = (crate::coding::u32_at(bytes, 0)? as usize, crate::coding::u32_at(bytes, 4)? as usize);
    let column = bytes.get(8usize.checked_add(prefix)?..)?.get(..n.checked_mul(8)?)?;
    Some(column.as_chunks().0.iter().map(|&n| u64::from_le_bytes(n)).collect())
}

fn made_index(input: &mut Choices<'_>) -> (Vec<u8>, u64) {
    let mut keys: Vec<Vec<u8>> = Vec::new();
    for _ in 0..1 + input.below(80) {
        let last = keys.last().cloned().unwrap_or_default();
        keys.push(key(input, &last));
    }
    keys.sort();
    let (mut builder, mut end) = (index::Builder::default(), 0);
    for (i, key) in keys.iter().enumerate() {
        builder.separate(key, keys.get(i + 1).map(|next| &next[..])).expect("a small index");
        let (len, codec) = (input.below(1 << 12) as u32, *input.pick(&[Codec::Raw, Codec::Lz4]));
        end += u64::from(len) + 5;
        builder.place(end, len, codec);
    }
    let bytes = builder.finish();
    let index = Index::decode(&bytes, end).expect("what was written");
    for (i, key) in keys.iter().enumerate() {
        let first = index.find(key);
        assert!(first <= i && index.compare(i, key).is_ge());
        // Blocks before that hold less only.
        assert!(first == 0 || keys[first - 1] < *key);
    }
    (bytes, end)
}

/// A filter of any bytes, and one of any hashes.
pub fn filter(data: &[u8]) {
    let mut input = Choices::new(data);
    let mut bytes = match input.byte() % 3 {
        0 => input.rest().to_vec(),
        how => {
            let bits = input.number() as u32;
            let mut hashes: Vec<u64> = (0..input.below(64)).map(|_| input.number()).collect();
            hashes.extend(hashes.clone().iter().map(|h| key::hash(&h.to_le_bytes())));
            let Some(filter) = Filter::build(&hashes, bits) else {
                assert!(bits == 0 || hashes.is_empty());
                return;
            };
            let bytes = filter.encode();
            let back = Filter::decode(&bytes).expect("what was written");
            for hash in hashes {
                assert!(filter.may_contain(hash) && back.may_contain(hash));
            }
            if how == 1 {
                return;
            }
            bytes
        }
    };
    let all = [0..8, 0..bytes.len()];
    edit(&mut input, &mut bytes, &all);
    let Some(filter) = damage(Filter::decode(&bytes)) else { return };
    assert_eq!(filter.encode(), bytes);
    assert!(filter.memory() <= bytes.len() + 64);
    for _ in 0..8 {
        filter.may_contain(input.number());
    }
}

const ID: u64 = 0x1234_5678_9abc_def0;
const PATH: &str = "/000007.table";

fn written(rows: &Rows, tombstones: &RangeTombstones, options: WriteOptions) -> Vec<u8> {
    let fs = SimFs::new(1);
    let file = fs.create(Path::new(PATH)).expect("an empty disk");
    let mut writer = Writer::new(file.clone(), Path::new(PATH), ID, options);
    for (key, trailer, value) in rows {
        writer.add(key, *trailer, value).expect("a good disk");
    }
    let size = writer.finish(tombstones).expect("a good disk").size;
    let mut bytes = vec![0; size as usize];
    read_exact_at(&*file, &mut bytes, 0).expect("a good disk");
    bytes
}

fn open(bytes: &[u8], id: u64, mapped: bool) -> Result<Arc<Table>> {
    let fs = SimFs::new(1);
    let file = fs.create(Path::new(PATH)).expect("an empty disk");
    write_all_at(&*file, bytes, 0).expect("a good disk");
    let (size, options) = (bytes.len() as u64, ReadOptions { mapped });
    Table::open(file, Path::new(PATH), id, size, options, &Cache::new(1 << 16)).map(Arc::new)
}

/// A table of any bytes; one of any rows, whole and damaged; and one whose every checksum is right
/// and whose contents are not.
pub fn table(data: &[u8]) {
    let mut input = Choices::new(data);
    let (how, mapped) = (input.byte(), input.one_in(2));
    if how % 8 == 0 {
        let mut bytes = input.rest().to_vec();
        let id = bytes.len().checked_sub(FOOTER_LEN).and_then(|at| crate::coding::u64_at(&bytes, at));
        if how >= 64 {
            seal(&mut bytes);
        }
        return any(&bytes, id.unwrap_or(ID), mapped);
    }
    let rows = rows(&mut input, 40);
    let tombstones = tombstones(&mut input);
    if rows.is_empty() && tombstones.is_empty() {
        return;
    }
    let options = WriteOptions {
        block_bytes: *input.pick(&[1, 64, 128, 4096]),
        compression: *input.pick(&[Compression::None, Compression::Lz4]),
        filter_bits: input.below(17) as u32,
    };
    let mut bytes = written(&rows, &tombstones, options);
    let hot = sections(&bytes);
    match how % 8 {
        1 => whole(&bytes, &rows, &tombstones, mapped, &mut input),
        2 | 3 => {
            let before = bytes.clone();
            hurt(&mut input, &mut bytes, &hot);
            if bytes == before {
                return whole(&bytes, &rows, &tombstones, mapped, &mut input);
            }
            assert!(read(&bytes, ID, mapped, Some(&rows)).is_err(), "damage that nobody notices");
        }
        _ => {
            edit(&mut input, &mut bytes, &hot);
            seal(&mut bytes);
            any(&bytes, ID, mapped);
        }
    }
}

fn tombstones(input: &mut Choices<'_>) -> RangeTombstones {
    let mut deletes = Vec::new();
    for _ in 0..input.below(5) {
        let (start, end) = (input.some(), if input.one_in(4) { None } else { Some(input.some()) });
        deletes.push(RangeDelete { start, end, seq: seq(input.number()) });
    }
    RangeTombstones::new(deletes)
}

/// Where the sections of a table are, the footer last.
fn sections(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut borders = vec![bytes.len()];
    if let Some(place) = bytes.len().checked_sub(FOOTER_LEN) {
        borders.push(place);
        for i in (0..4).rev() {
            let len = crate::coding::u64_at(bytes, place + 8 + 12 * i).unwrap_or(0);
            let end = borders[borders.len() - 1];
            let Some(start) = usize::try_from(len).ok().and_then(|len| end.checked_sub(len)) else { break };
            borders.push(start);
        }
    }
    borders.push(0);
    borders.reverse();
    borders.windows(2).map(|w| w[0]..w[1]).collect()
}

/// Makes every checksum right.
fn seal(bytes: &mut [u8]) {
    let sections = sections(bytes);
    let [data, parts @ .., footer] = &sections[..] else { return };
    let Some(id) = crate::coding::u64_at(bytes, footer.start).filter(|_| parts.len() == 4) else { return };
    let mut start = data.start;
    for end in ends(&bytes[parts[2].clone()]).unwrap_or_default() {
        let Some(end) = usize::try_from(end).ok().filter(|&end| end <= data.end && end >= start + 4) else {
            break;
        };
        let sum = checksum(id, start as u64, &bytes[start..end - 4]);
        bytes[end - 4..end].copy_from_slice(&sum.to_le_bytes());
        start = end;
    }
    for (i, part) in parts.iter().enumerate() {
        let sum = checksum(id, part.start as u64, &bytes[part.clone()]);
        let at = footer.start + 16 + 12 * i;
        bytes[at..at + 4].copy_from_slice(&sum.to_le_bytes());
    }
    let sum = checksum(id, footer.start as u64, &bytes[footer.start..footer.start + 64]);
    bytes[footer.start + 64..footer.start + 68].copy_from_slice(&sum.to_le_bytes());
}

/// What bytes from disk may lead to.
fn typed(e: Error) -> Error {
    // Another version, or another build's codec.
    assert!(e.is_corruption() || e.kind() == ErrorKind::Invalid, "{e:?}");
    assert!(e.file() == Some(Path::new(PATH)), "{e:?}");
    e
}

/// Reads all, in every way, and holds it against `expected`. Answers the rows if all reads and the
/// verification went well.
fn read(bytes: &[u8], id: u64, mapped: bool, expected: Option<&Rows>) -> Result<Rows> {
    let table = open(bytes, id, mapped).map_err(typed)?;
    let verified = table.verify().map_err(typed);
    let mut all: Vec<Result<Rows>> = Vec::new();
    let cursors = [TableCursor::new, TableCursor::lending, TableCursor::streaming];
    for mut cursor in cursors.map(|make| make(table.clone())) {
        all.push(walk(&mut cursor, true).map_err(typed));
        all.push(walk(&mut cursor, false).map_err(typed));
    }
    if let Some(rows) = expected {
        let mut pin = Pin::default();
        for (key, trailer, value) in rows {
            if let Ok(found) = table.get(key, key::hash(key), trailer.seq(), &mut pin).map_err(typed) {
                assert_eq!(found.map(|f| (f.trailer, f.value)), Some((*trailer, &value[..])));
            }
        }
        all.iter().flatten().for_each(|found| assert!(found == rows, "not the rows that were written"));
    }
    verified?;
    // Whatever verification has nothing against is told the same by every read.
    let all = all.into_iter().collect::<Result<Vec<_>>>().expect("a table that was verified");
    assert!(all.iter().all(|rows| *rows == all[0]));
    Ok(all.into_iter().next().unwrap_or_default())
}

fn walk(cursor: &mut TableCursor, forward: bool) -> Result<Rows> {
    let mut rows = Rows::new();
    if forward {
        cursor.seek_first()?
    } else {
        cursor.seek_last()?
    }
    while cursor.valid() {
        cursor.fetch()?;
        rows.push((cursor.key().to_vec(), cursor.trailer(), cursor.value().to_vec()));
        if forward { cursor.next()? } else { cursor.prev()? }
    }
    if !forward {
        rows.reverse();
    }
    Ok(rows)
}

fn any(bytes: &[u8], id: u64, mapped: bool) {
    let Ok(rows) = read(bytes, id, mapped, None) else { return };
    // It is a table like any other.
    let table = open(bytes, id, mapped).expect("what was read before");
    let tombstones = table.tombstones().clone();
    assert_eq!(table.properties().entries, rows.len() as u64);
    let mut nothing = Choices::new(&[]);
    whole(bytes, &rows, &tombstones, mapped, &mut nothing);
    let options = WriteOptions { block_bytes: 64, compression: Compression::Lz4, filter_bits: 10 };
    let again = written(&rows, &tombstones, options);
    whole(&again, &rows, &tombstones, mapped, &mut nothing);
}

/// All of these rows are there, and nothing else.
fn whole(bytes: &[u8], rows: &Rows, tombstones: &RangeTombstones, mapped: bool, input: &mut Choices<'_>) {
    let id = crate::coding::u64_at(bytes, bytes.len() - FOOTER_LEN).unwrap_or(ID);
    assert!(read(bytes, id, mapped, Some(rows)).expect("a good table") == *rows);
    let table = open(bytes, id, mapped).expect("a good table");
    assert!(table.tombstones() == tombstones);
    let mut cursor = TableCursor::new(table.clone());
    let mut pin = Pin::default();
    let at = |cursor: &TableCursor| cursor.valid().then(|| (cursor.key().to_vec(), cursor.trailer()));
    let row = |i: Option<usize>| i.and_then(|i| rows.get(i)).map(|r| (r.0.clone(), r.1));
    let mut look = |key: &[u8], trailer: Trailer| {
        cursor.seek(key, trailer).expect("a good table");
        assert_eq!(at(&cursor), row(Some(before(rows, key, trailer))));
        cursor.seek_before(key).expect("a good table");
        assert_eq!(at(&cursor), row(before(rows, key, Trailer::newest(Seq::MAX)).checked_sub(1)));
        let newest = before(rows, key, Trailer::newest(trailer.seq()));
        let found = table.get(key, key::hash(key), trailer.seq(), &mut pin).expect("a good table");
        let expected = rows.get(newest).filter(|r| r.0 == key).map(|r| (r.1, &r.2[..]));
        assert_eq!(found.map(|f| (f.trailer, f.value)), expected);
    };
    for (key, trailer, _) in rows {
        look(key, *trailer);
    }
    for _ in 0..4 {
        let (key, trailer) = probe(input, rows);
        look(&key, trailer);
    }
}
