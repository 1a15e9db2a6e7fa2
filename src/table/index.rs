//! The index: which data block may hold a key, and where the blocks are.
//!
//! # Format
//!
//! ```text
//! offset  size  field
//!      0     4  blocks n, at least one if the table has entries
//!      4     4  length p of the prefix all separators share
//!      8     p  prefix
//!      -   8*n  ends of the blocks in the file, trailers included; the first starts at 0
//!      -   4*n  lengths of the blocks' contents before compression; the highest bit is set if
//!               they are compressed
//!      -   4*n  ends of the separators' rests
//!      -     -  rests: what follows the prefix
//! ```
//!
//! The separator of a block is not less than its last key and, unless one key spans both, less than
//! the first key of the next block; it is as short as it can be. That of the last block is its last
//! key.
//!
//! In memory each separator has a head, the eight bytes after the prefix as a number, so that a
//! search compares numbers and looks at the rests of equal ones only.

use crate::coding::Reader;
use crate::error::{Error, Result};
use crate::key;
use crate::prefetch;
use crate::table::format::{Codec, MAX_COMPRESSED, TRAILER_LEN};
use crate::table::search::{equal, partition, shared};
use std::cmp::Ordering;
use std::ops::Range;

/// Where a data block is and how long it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BlockAt {
    pub offset: u64,
    /// Bytes in the file, trailer included.
    pub stored: u32,
    /// Bytes of the contents; `PACKED` if they are compressed.
    raw: u32,
}

const PACKED: u32 = 1 << 31;

impl BlockAt {
    /// Whether the contents are in the file as they are.
    #[inline]
    pub fn is_raw(&self) -> bool {
        self.raw & PACKED == 0
    }

    /// Bytes of the contents.
    #[inline]
    pub fn raw(&self) -> usize {
        (self.raw & !PACKED) as usize
    }

    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.stored)
    }
}

/// The head of a separator together with its block, so that a search ends where its answer is.
#[derive(Clone, Copy)]
struct Row {
    head: u64,
    at: BlockAt,
}

/// The index in memory.
pub(crate) struct Index {
    prefix: Box<[u8]>,
    rows: Box<[Row]>,
    radix: Radix,
    rest_ends: Box<[u32]>,
    rests: Box<[u8]>,
}

impl Index {
    /// Reads the index of a table whose data blocks take the first `data_len` bytes.
    pub fn decode(bytes: &[u8], data_len: u64) -> Result<Index> {
        let mut r = Reader::new(bytes);
        let n = r.u32()? as usize;
        let prefix_len = r.u32()? as usize;
        let prefix = r.take(prefix_len)?.into();
        let mut column = |width: usize| r.take(n.checked_mul(width).ok_or_else(contradiction)?);
        let (ends, raws, rest_ends) = (column(8)?, column(4)?, column(4)?);
        let rests = r.take(bytes.len() - r.at())?;
        let rest_ends: Box<[u32]> = numbers(rest_ends).collect();

        let mut rows = Vec::with_capacity(n);
        let (mut offset, mut rest_start, mut before) = (0, 0, &[][..]);
        let ends = ends.as_chunks().0.iter().map(|&end| u64::from_le_bytes(end));
        for ((end, raw), &rest_end) in ends.zip(numbers(raws)).zip(&rest_ends) {
            let stored = end.checked_sub(offset).and_then(|len| u32::try_from(len).ok());
            let at = BlockAt { offset, stored: stored.ok_or_else(contradiction)?, raw };
            check_lengths(&at)?;
            let rest = rests.get(rest_start..rest_end as usize).filter(|&rest| rest >= before);
            let rest = rest.ok_or_else(contradiction)?;
            rows.push(Row { head: key::head(rest), at });
            (offset, rest_start, before) = (end, rest_end as usize, rest);
        }
        if offset != data_len || rest_start != rests.len() {
            return Err(contradiction());
        }
        let radix = Radix::new(&rows);
        Ok(Index { prefix, rows: rows.into(), radix, rest_ends, rests: rests.into() })
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    #[inline]
    pub fn block(&self, i: usize) -> Option<BlockAt> {
        self.rows.get(i).map(|row| row.at)
    }

    #[inline]
    fn rest(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.rest_ends[i - 1] };
        &self.rests[start as usize..self.rest_ends[i] as usize]
    }

    /// The first block whose separator is not less than `key`: the first that can hold it. The
    /// number of blocks if all its keys are less.
    #[inline]
    pub fn find(&self, key: &[u8]) -> usize {
        let Some(rest) = self.rest_of(key) else {
            return if *key < *self.prefix { 0 } else { self.len() };
        };
        let head = key::head(rest);
        let first = self.first_head(self.radix.narrow(head, self.len()), head);
        match self.rows.get(first) {
            Some(row) if row.head == head => self.find_tied(first, rest),
            _ => first,
        }
    }

    /// What follows the prefix in `key`, if it starts with that.
    #[inline]
    fn rest_of<'a>(&self, key: &'a [u8]) -> Option<&'a [u8]> {
        let (prefix, rest) = key.split_at_checked(self.prefix.len())?;
        equal(prefix, &self.prefix).then_some(rest)
    }

    /// Starts to load the rows `find` will look at first.
    #[inline]
    pub fn prefetch(&self, key: &[u8]) {
        let Some(rest) = self.rest_of(key) else { return };
        let range = self.radix.narrow(key::head(rest), self.len());
        let rows = self.rows.get(range).unwrap_or_default();
        if rows.len() <= COUNTED {
            rows.iter().step_by(2).for_each(prefetch::touch);
        } else {
            rows.get(rows.len() / 2).into_iter().for_each(prefetch::touch);
        }
    }

    /// The first of `range` whose head is not less than `head`.
    #[inline]
    fn first_head(&self, range: Range<usize>, head: u64) -> usize {
        match self.rows.get(range.clone()) {
            // Few rows are counted: their cache lines are loaded together, where each step of a search
            // waits for the one before.
            Some(rows) if rows.len() <= COUNTED => {
                range.start + rows.iter().filter(|row| row.head < head).count()
            }
            _ => partition(range, |i| self.rows[i].head < head),
        }
    }

    /// The first block from `first` on whose separator is not less, heads being equal.
    fn find_tied(&self, first: usize, rest: &[u8]) -> usize {
        let head = self.rows[first].head;
        let last = partition(first..self.len(), |i| self.rows[i].head == head);
        partition(first..last, |i| self.rest(i) < rest)
    }

    /// How the separator of block `i` compares to `key`.
    pub fn compare(&self, i: usize, key: &[u8]) -> Ordering {
        match key.strip_prefix(&*self.prefix) {
            Some(rest) => self.rest(i).cmp(rest),
            None => (*self.prefix).cmp(key),
        }
    }

    /// Bytes of memory.
    pub fn memory(&self) -> usize {
        self.prefix.len()
            + self.len() * (size_of::<Row>() + 4)
            + self.radix.starts.len() * 4
            + self.rests.len()
    }
}

/// The little-endian numbers of a column.
fn numbers(column: &[u8]) -> impl Iterator<Item = u32> {
    column.as_chunks().0.iter().map(|&n| u32::from_le_bytes(n))
}

/// Narrows a search to the heads that agree in their leading bits, those in which all heads agree
/// left out: bytes of text differ in four or five of their eight bits.
#[derive(Default)]
struct Radix {
    /// Any head, and the bits in which none may differ from it.
    base: u64,
    same: u64,
    /// Runs of bits that make up the number of a bucket, the highest first.
    runs: [Run; RUNS],
    /// The first row of each bucket; one more for the end. Empty if there are few rows.
    starts: Box<[u32]>,
}

const RUNS: usize = 4;
/// Fewer rows are searched as fast without.
const FEW: usize = 16;
/// So many rows are counted rather than searched.
const COUNTED: usize = 16;

#[derive(Clone, Copy, Default)]
struct Run {
    shift: u32,
    mask: u64,
    /// How far the bits move up in the bucket's number.
    up: u32,
}

impl Radix {
    fn new(rows: &[Row]) -> Radix {
        let base = rows.first().map_or(0, |row| row.head);
        let differ = rows.iter().fold(0, |bits, row| bits | (row.head ^ base));
        if rows.len() < FEW || differ == 0 {
            return Radix::default();
        }
        let (mut left, mut wanted) = (differ, rows.len().ilog2());
        let mut radix = Radix { base, ..Radix::default() };
        for run in &mut radix.runs {
            if left == 0 || wanted == 0 {
                break;
            }
            let len = (left << left.leading_zeros()).leading_ones().min(wanted);
            let shift = 64 - left.leading_zeros() - len;
            wanted -= len;
            *run = Run { shift, mask: (1 << len) - 1, up: wanted };
            left &= !(run.mask << shift);
            radix.same = !differ & (u64::MAX << shift);
        }
        // Bits that were wanted but did not differ.
        radix.runs.iter_mut().for_each(|run| run.up = run.up.saturating_sub(wanted));
        let buckets = 1 << (rows.len().ilog2() - wanted);
        let mut starts = Vec::with_capacity(buckets + 1);
        for (i, row) in rows.iter().enumerate() {
            let bucket = radix.bucket(row.head);
            while starts.len() <= bucket {
                starts.push(i as u32);
            }
        }
        starts.resize(buckets + 1, rows.len() as u32);
        radix.starts = starts.into();
        radix
    }

    #[inline]
    fn bucket(&self, head: u64) -> usize {
        self.runs.iter().map(|run| ((head >> run.shift) & run.mask) << run.up).sum::<u64>() as usize
    }

    /// Which of `n` rows may be the first whose head is not less than `head`; that after the last of
    /// them otherwise.
    #[inline]
    fn narrow(&self, head: u64, n: usize) -> Range<usize> {
        if (head ^ self.base) & self.same == 0
            && let Some(&[start, end]) = self.starts.get(self.bucket(head)..).and_then(|s| s.first_chunk())
        {
            return start as usize..end as usize;
        }
        0..n
    }
}

/// Refuses lengths no block can have, before anything is allocated for it.
fn check_lengths(at: &BlockAt) -> Result<()> {
    let contents = (at.stored as usize).checked_sub(TRAILER_LEN).ok_or_else(contradiction)?;
    let fits = if at.is_raw() { at.raw() <= contents } else { at.raw() <= MAX_COMPRESSED };
    if fits { Ok(()) } else { Err(contradiction()) }
}

#[cold]
fn contradiction() -> Error {
    Error::corruption("the index contradicts itself or the file")
}

/// Collects separators and writes the index.
#[derive(Default)]
pub(crate) struct Builder {
    separators: Vec<u8>,
    ends: Vec<u32>,
    blocks: Vec<(u64, u32)>,
}

impl Builder {
    /// Adds the separator of a block whose last key is `last`, and `next` the key behind it.
    pub fn separate(&mut self, last: &[u8], next: Option<&[u8]>) -> Result<()> {
        put_separator(&mut self.separators, last, next);
        let end = u32::try_from(self.separators.len());
        self.ends.push(end.map_err(|_| Error::invalid("the index of a table exceeds 4 GiB"))?);
        Ok(())
    }

    /// Adds the place of that block: where it ends in the file, and how long its contents are.
    pub fn place(&mut self, end: u64, raw: u32, codec: Codec) {
        self.blocks.push((end, if codec == Codec::Raw { raw } else { raw | PACKED }));
    }

    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// About the size of the index.
    pub fn size(&self) -> usize {
        self.separators.len() + 16 * self.blocks.len()
    }

    pub fn finish(&self) -> Vec<u8> {
        let separator = |i: usize| {
            let start = if i == 0 { 0 } else { self.ends[i - 1] };
            &self.separators[start as usize..self.ends[i] as usize]
        };
        let n = self.blocks.len();
        let prefix = match n {
            0 => &[][..],
            _ => {
                let (first, last) = (separator(0), separator(n - 1));
                &first[..shared(first, last)]
            }
        };
        let mut out = Vec::with_capacity(self.size() + 8);
        out.extend_from_slice(&(n as u32).to_le_bytes());
        out.extend_from_slice(&(prefix.len() as u32).to_le_bytes());
        out.extend_from_slice(prefix);
        for (end, _) in &self.blocks {
            out.extend_from_slice(&end.to_le_bytes());
        }
        for (_, raw) in &self.blocks {
            out.extend_from_slice(&raw.to_le_bytes());
        }
        for (i, end) in self.ends.iter().enumerate() {
            let rests = *end - (prefix.len() * (i + 1)) as u32;
            out.extend_from_slice(&rests.to_le_bytes());
        }
        for i in 0..n {
            out.extend_from_slice(&separator(i)[prefix.len()..]);
        }
        out
    }
}

/// Appends the shortest key that is at least `last` and less than `next`; `last` if they are equal
/// or nothing follows.
fn put_separator(out: &mut Vec<u8>, last: &[u8], next: Option<&[u8]>) {
    let Some(next) = next else { return out.extend_from_slice(last) };
    let same = shared(last, next);
    if same == last.len() {
        return out.extend_from_slice(last);
    }
    if next.len() > same + 1 {
        // Greater than `last` in its last byte, and a proper prefix of `next`.
        return out.extend_from_slice(&next[..=same]);
    }
    // Less than `next` at the byte that differs, so any byte behind it may grow.
    match last[same + 1..].iter().position(|&b| b != 0xff) {
        Some(i) => {
            let at = same + 1 + i;
            out.extend_from_slice(&last[..at]);
            if at + 1 == last.len() {
                out.push(last[at]);
            } else {
                out.push(last[at] + 1);
            }
        }
        None => out.extend_from_slice(last),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_separate_and_are_short() {
        let cases: [(&[u8], &[u8], &[u8]); 9] = [
            (b"abcdef", b"abzz", b"abz"),
            (b"abcdef", b"abd", b"abce"),
            (b"abc", b"abcd", b"abc"),
            (b"abc", b"abc", b"abc"),
            (b"ab\xff\xffq", b"ac", b"ab\xff\xffq"),
            (b"ab\xff\xffqr", b"ac", b"ab\xff\xffr"),
            (b"a\xff\xff", b"b", b"a\xff\xff"),
            (b"", b"a", b""),
            (b"a", b"c", b"a"),
        ];
        for (last, next, expect) in cases {
            let mut out = Vec::new();
            put_separator(&mut out, last, Some(next));
            assert_eq!(out, expect, "{last:?} {next:?}");
            assert!(&*out >= last && (&*out < next || last == next));
        }
    }

    #[test]
    fn finds_the_first_block_that_can_hold_a_key() {
        let separators: [&[u8]; 7] =
            [b"pre", b"preaaaaaaaa", b"preaaaaaaaab", b"preaaaaaaaab", b"preaaaaaaaac", b"preb", b"preb\0\0"];
        let mut b = Builder::default();
        for (i, s) in separators.iter().enumerate() {
            b.separate(s, None).unwrap();
            b.place(100 * (i as u64 + 1), 95, Codec::Raw);
        }
        let index = Index::decode(&b.finish(), 700).unwrap();
        assert_eq!(index.block(6), Some(BlockAt { offset: 600, stored: 100, raw: 95 }));
        let more: [&[u8]; 6] = [b"", b"pr", b"prd", b"preb\0", b"preb\0\0\0", b"z"];
        for key in separators.into_iter().chain(more) {
            let expect = separators.partition_point(|&s| s < key);
            assert_eq!(index.find(key), expect, "{key:?}");
            for (i, s) in separators.iter().enumerate() {
                assert_eq!(index.compare(i, key), (**s).cmp(key));
            }
        }
    }

    /// Many separators: spread evenly, in decimal digits, and nearly all under one leading byte, so that
    /// their buckets hold one row, some, and hundreds.
    #[test]
    fn finds_among_many() {
        let digits = |n: u64| format!("user{n:08}").into_bytes();
        let even = |n: u64| (n << 50).to_be_bytes().to_vec();
        let skewed = |n: u64| if n == 0 { vec![0] } else { [&[0xff; 7][..], &n.to_be_bytes()[5..]].concat() };
        let kinds: [&dyn Fn(u64) -> Vec<u8>; 3] = [&digits, &even, &skewed];
        for key_of in kinds {
            let separators: Vec<Vec<u8>> = (0..3000).map(|n| key_of(n * 3)).collect();
            let mut b = Builder::default();
            for (i, s) in separators.iter().enumerate() {
                b.separate(s, None).unwrap();
                b.place(100 * (i as u64 + 1), 95, Codec::Raw);
            }
            let index = Index::decode(&b.finish(), 300_000).unwrap();
            for n in 0..9010 {
                let key = key_of(n);
                let expect = separators.partition_point(|s| *s < key);
                assert_eq!(index.find(&key), expect, "{key:?}");
            }
        }
    }

    #[test]
    fn refuses_blocks_that_cannot_be() {
        let with = |end: u64, raw: u32, codec| {
            let mut b = Builder::default();
            b.separate(b"k", None).unwrap();
            b.place(end, raw, codec);
            Index::decode(&b.finish(), 100)
        };
        assert!(with(100, 95, Codec::Raw).is_ok() && with(100, 40, Codec::Raw).is_ok());
        assert!(with(100, 5000, Codec::Lz4).is_ok());
        assert!(with(100, 96, Codec::Raw).is_err(), "longer than what is stored");
        assert!(with(101, 96, Codec::Raw).is_err(), "beyond the data");
        assert!(with(100, MAX_COMPRESSED as u32 + 1, Codec::Lz4).is_err());
        assert!(Index::decode(&u32::MAX.to_le_bytes().repeat(2), 0).is_err());
    }
}
