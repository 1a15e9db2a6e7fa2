//! The data block: entries in columns, read where they lie, without a parse step.
//!
//! # Format
//!
//! All numbers are little-endian; nothing is aligned.
//!
//! ```text
//! offset  size  field
//!      0     4  rows n, at least one
//!      4     1  flags
//!                 1  key rests have one length
//!                 2  values have one length
//!                 4  heads are 8 bytes wide (otherwise h = 4)
//!                 8  heads are not repeated in the key rests
//!                16  key ends are 4 bytes wide (otherwise 2)
//!                32  value ends are 4 bytes wide (otherwise 2)
//!      5     1  width w of a trailer delta: 0, 1, 2, 4 or 8
//!      6     1  kind of all rows; 255: the deltas hold it too
//!      7     1  zero
//!      8     8  trailer base
//!     16     4  length p of the prefix all keys share
//!     20     4  length of each key rest, or of all together
//!     24     4  length of each value, or of all together
//!     28     n  fingerprints: the top byte of each key's hash
//!      -     p  prefix
//!      -   h*n  heads: the h bytes of the key after the prefix as a big-endian number, zero-padded
//!      -   w*n  trailer deltas
//!      -   2*n  ends of the key rests (4*n if wide; absent if they have one length)
//!      -   2*n  ends of the values (4*n if wide; absent if they have one length)
//!      -     -  key rests: what follows the prefix, or the head if those are not repeated
//!      -     -  values
//! ```
//!
//! Rows ascend by key, then descend by sequence number. A row's number is `base + delta`; with one
//! kind for all rows that is the sequence number, otherwise the whole trailer (`seq << 8 | kind`).
//! Heads are stored as little-endian numbers. They are left out of the key rests when every key has
//! that many bytes after the prefix.
//!
//! A point read compares fingerprints, many at once, and looks at the rows that match: one or two.
//! A seek searches the heads. Columns that a block can do without take no space.
//!
//! Every length is held against the block's when a block is looked at, and every column once when
//! it is loaded ([`Block::check`]); after that, and even if the bytes change, an access beyond the
//! end reads as nothing instead of failing.

use crate::coding::{u32_at, u64_at};
use crate::error::{Error, Result};
use crate::ids::Seq;
use crate::key::{self, Kind, Trailer};
use crate::table::search::{equal, equal_bytes, partition};
use std::ops::Range;

pub(crate) const HEADER_LEN: usize = 28;
pub(crate) const KEYS_FIXED: u8 = 1;
pub(crate) const VALUES_FIXED: u8 = 2;
pub(crate) const HEADS_WIDE: u8 = 4;
pub(crate) const HEADS_APART: u8 = 8;
pub(crate) const KEY_ENDS_WIDE: u8 = 16;
pub(crate) const VALUE_ENDS_WIDE: u8 = 32;
pub(crate) const MIXED: u8 = 0xff;

/// The fingerprint of a key, from its hash.
#[inline]
pub(crate) fn fingerprint(hash: u64) -> u8 {
    (hash >> 56) as u8
}

/// Where the columns of a block are.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Layout {
    rows: usize,
    flags: u8,
    /// Width of a trailer delta.
    width: u8,
    kind: u8,
    base: u64,
    prefix_len: usize,
    /// Length of each key rest, if they have one.
    key_len: usize,
    value_len: usize,
    prefix: usize,
    heads: usize,
    trailers: usize,
    key_ends: usize,
    value_ends: usize,
    keys: usize,
    values: usize,
}

impl Layout {
    /// Reads the header. The columns named lie inside of `bytes`.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Layout> {
        Layout::try_parse(bytes).ok_or_else(malformed)
    }

    #[inline]
    fn try_parse(bytes: &[u8]) -> Option<Layout> {
        let h = bytes.first_chunk::<HEADER_LEN>()?;
        let [_, _, _, _, flags, width, kind, zero, ..] = *h;
        let field = |at| u32_at(h, at).map(|n| n as usize);
        let rows = field(0)?;
        let (prefix_len, key_len, value_len) = (field(16)?, field(20)?, field(24)?);
        let known = flags < 64 && zero == 0 && matches!(width, 0 | 1 | 2 | 4 | 8);
        if !known || !(kind == MIXED || Kind::from_u8(kind).is_some()) || rows == 0 || rows > bytes.len() {
            return None;
        }
        let set = |flag| flags & flag != 0;
        let ends = |fixed, wide| if set(fixed) { 0 } else { 2 << usize::from(set(wide)) };
        let all_keys = if set(KEYS_FIXED) { rows.checked_mul(key_len)? } else { key_len };
        let all_values = if set(VALUES_FIXED) { rows.checked_mul(value_len)? } else { value_len };
        // No sum of these overflows, so that it is enough to look at the last.
        if prefix_len.max(all_keys).max(all_values) > bytes.len() {
            return None;
        }
        let prefix = HEADER_LEN + rows;
        let heads = prefix + prefix_len;
        let trailers = heads + rows * if set(HEADS_WIDE) { 8 } else { 4 };
        let key_ends = trailers + rows * usize::from(width);
        let value_ends = key_ends + rows * ends(KEYS_FIXED, KEY_ENDS_WIDE);
        let keys = value_ends + rows * ends(VALUES_FIXED, VALUE_ENDS_WIDE);
        let values = keys + all_keys;
        (values + all_values == bytes.len()).then_some(Layout {
            rows,
            flags,
            width,
            kind,
            base: u64_at(h, 8)?,
            prefix_len,
            key_len,
            value_len,
            prefix,
            heads,
            trailers,
            key_ends,
            value_ends,
            keys,
            values,
        })
    }

    #[inline]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Where the values begin, behind all else.
    #[inline]
    pub fn values(&self) -> usize {
        self.values
    }

    /// Whether all rows have the same trailer.
    #[inline]
    pub fn one_trailer(&self) -> bool {
        self.width == 0 && self.kind != MIXED
    }

    #[inline]
    fn set(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The columns in their order, for a dump.
    pub fn columns(&self) -> [(&'static str, Range<usize>); 8] {
        let all_values = if self.set(VALUES_FIXED) { self.rows * self.value_len } else { self.value_len };
        [
            ("fingerprints", HEADER_LEN..self.prefix),
            ("prefix", self.prefix..self.heads),
            ("heads", self.heads..self.trailers),
            ("trailer deltas", self.trailers..self.key_ends),
            ("ends of key rests", self.key_ends..self.value_ends),
            ("ends of values", self.value_ends..self.keys),
            ("key rests", self.keys..self.values),
            ("values", self.values..self.values + all_values),
        ]
    }

    /// Bytes of a head.
    #[inline]
    fn head_len(&self) -> usize {
        if self.set(HEADS_WIDE) { 8 } else { 4 }
    }

    /// Bytes of a key between prefix and rest.
    #[inline]
    fn apart(&self) -> usize {
        if self.set(HEADS_APART) { self.head_len() } else { 0 }
    }
}

#[cold]
fn malformed() -> Error {
    Error::corruption("a data block contradicts itself")
}

/// A block's bytes together with where its columns are.
#[derive(Clone, Copy)]
pub(crate) struct Block<'a> {
    bytes: &'a [u8],
    at: &'a Layout,
}

impl<'a> Block<'a> {
    /// `at` must have been read from the same bytes; with others, reads answer nonsense.
    #[inline]
    pub fn new(bytes: &'a [u8], at: &'a Layout) -> Block<'a> {
        Block { bytes, at }
    }

    /// Looks at every column once: ends ascend and stay inside, trailers can be.
    pub fn check(&self) -> Result<()> {
        let at = self.at;
        let ends = |fixed, column, wide, total| {
            if at.set(fixed) {
                return true;
            }
            let mut last = 0;
            let ascending = (0..at.rows).all(|row| {
                let end = self.end(column, at.set(wide), row);
                let fine = end >= last;
                last = end;
                fine
            });
            ascending && last == total
        };
        let kinds = at.kind != MIXED || (0..at.rows).all(|r| Kind::from_u8(self.number(r) as u8).is_some());
        let shift = if at.kind == MIXED { 8 } else { 0 };
        let seqs = (0..at.rows).all(|r| self.number(r) >> shift <= Seq::MAX.get());
        if kinds
            && seqs
            && ends(KEYS_FIXED, at.key_ends, KEY_ENDS_WIDE, at.values - at.keys)
            && ends(VALUES_FIXED, at.value_ends, VALUE_ENDS_WIDE, self.bytes.len() - at.values)
        {
            Ok(())
        } else {
            Err(malformed())
        }
    }

    #[inline]
    fn slice(&self, start: usize, end: usize) -> &'a [u8] {
        self.bytes.get(start..end).unwrap_or_default()
    }

    /// The number at `row` of a column of ends.
    #[inline]
    fn end(&self, column: usize, wide: bool, row: usize) -> usize {
        if wide {
            u32_at(self.bytes, column + row * 4).unwrap_or_default() as usize
        } else {
            let bytes = self.bytes.get(column + row * 2..).and_then(|b| b.first_chunk());
            bytes.map_or(0, |&b| u16::from_le_bytes(b).into())
        }
    }

    /// Where the bytes of `row` lie in a column with one length or with ends.
    #[inline]
    fn span(&self, row: usize, fixed: Option<usize>, ends: usize, wide: bool, column: usize) -> Range<usize> {
        match fixed {
            Some(len) => column + row * len..column + row * len + len,
            None => {
                let start = if row == 0 { 0 } else { self.end(ends, wide, row - 1) };
                column + start..column + self.end(ends, wide, row)
            }
        }
    }

    #[inline]
    fn prefix(&self) -> &'a [u8] {
        self.slice(self.at.prefix, self.at.heads)
    }

    /// Where the key's bytes behind prefix and, if those are apart, head are.
    #[inline]
    fn rest_span(&self, row: usize) -> Range<usize> {
        let at = self.at;
        let fixed = at.set(KEYS_FIXED).then_some(at.key_len);
        self.span(row, fixed, at.key_ends, at.set(KEY_ENDS_WIDE), at.keys)
    }

    #[inline]
    fn rest(&self, row: usize) -> &'a [u8] {
        let span = self.rest_span(row);
        self.slice(span.start, span.end)
    }

    /// Where the value of `row` lies in the block's bytes.
    #[inline]
    pub fn value_span(&self, row: usize) -> Range<usize> {
        let at = self.at;
        let fixed = at.set(VALUES_FIXED).then_some(at.value_len);
        self.span(row, fixed, at.value_ends, at.set(VALUE_ENDS_WIDE), at.values)
    }

    /// Whether two rows with equal heads have the same key.
    #[inline]
    pub fn same_rest(&self, a: usize, b: usize) -> bool {
        equal(self.rest(a), self.rest(b))
    }

    /// The head of `row`: 4-byte ones in the high half, so that both widths compare alike.
    #[inline]
    pub fn head(&self, row: usize) -> u64 {
        if self.at.set(HEADS_WIDE) {
            u64_at(self.bytes, self.at.heads + row * 8).unwrap_or_default()
        } else {
            u64::from(u32_at(self.bytes, self.at.heads + row * 4).unwrap_or_default()) << 32
        }
    }

    /// Sequence number or trailer of `row`.
    #[inline]
    fn number(&self, row: usize) -> u64 {
        let (bytes, at) = (self.bytes, self.at.trailers);
        let delta = match self.at.width {
            0 => 0,
            1 => bytes.get(at + row).copied().unwrap_or_default().into(),
            2 => self.end(at, false, row) as u64,
            4 => u32_at(bytes, at + row * 4).unwrap_or_default().into(),
            _ => u64_at(bytes, at + row * 8).unwrap_or_default(),
        };
        self.at.base.wrapping_add(delta)
    }

    #[inline]
    pub fn trailer(&self, row: usize) -> Trailer {
        let n = self.number(row);
        let n = if self.at.kind == MIXED { n } else { n << 8 | u64::from(self.at.kind) };
        // Kinds were checked when the block was loaded.
        Trailer::from_u64(n).unwrap_or(Trailer::new(Seq::ZERO, Kind::Delete))
    }

    /// Makes `key` start as all keys of the block do.
    pub fn read_prefix(&self, key: &mut KeyBuf) {
        key.put(0, self.bytes, self.at.prefix..self.at.heads);
    }

    /// Makes `key`, which starts as all keys of the block do, that of `row`, whose head is given.
    #[inline]
    pub fn change_key(&self, row: usize, head: u64, key: &mut KeyBuf) {
        let (prefix, apart, rest) = (self.at.prefix_len, self.at.apart(), self.rest_span(row));
        // What of the head is not apart is overwritten by the rest.
        if !key.put_short(prefix, head, apart, self.bytes, &rest) {
            key.put_head(prefix, head);
            key.put(prefix + apart, self.bytes, rest);
        }
    }

    /// The newest version of `key` with a sequence number of at most `read`.
    #[inline]
    pub fn find(&self, key: &[u8], hash: u64, read: Seq) -> Option<usize> {
        let (prefix, key) = key.split_at_checked(self.at.prefix_len)?;
        let (head, rest) = (key::head(key) & self.head_mask(), key.get(self.at.apart()..)?);
        let wanted = |row| {
            self.head(row) == head
                && equal(self.rest(row), rest)
                && self.trailer(row) <= Trailer::newest(read)
                && equal(self.prefix(), prefix)
        };
        let mark = fingerprint(hash);
        for first in (0..self.at.rows).step_by(8) {
            let mut hits = equal_bytes(self.marks(first), mark);
            while hits != 0 {
                let row = first + hits.trailing_zeros() as usize / 8;
                if row >= self.at.rows {
                    return None;
                }
                if wanted(row) {
                    return Some(row);
                }
                hits &= hits - 1;
            }
        }
        None
    }

    /// Eight fingerprints from `row` on; behind the last stands anything.
    #[inline]
    fn marks(&self, row: usize) -> u64 {
        let at = HEADER_LEN + row;
        u64_at(self.bytes, at).unwrap_or_else(|| {
            let left = self.slice(at, self.bytes.len());
            left.iter().rev().fold(0, |word, &mark| word << 8 | u64::from(mark))
        })
    }

    #[inline]
    fn head_mask(&self) -> u64 {
        if self.at.set(HEADS_WIDE) { u64::MAX } else { 0xffff_ffff << 32 }
    }

    /// The first row at or after `(key, trailer)`; the number of rows if there is none.
    #[inline]
    pub fn lower_bound(&self, key: &[u8], trailer: Trailer) -> usize {
        let rest = match key.split_at_checked(self.at.prefix_len) {
            Some((prefix, rest)) if equal(prefix, self.prefix()) => rest,
            _ => return if key < self.prefix() { 0 } else { self.at.rows },
        };
        let head = key::head(rest) & self.head_mask();
        let column = self.slice(self.at.heads, self.at.trailers);
        let first = if self.at.set(HEADS_WIDE) {
            let heads = column.as_chunks().0;
            partition(0..heads.len(), |row| u64::from_le_bytes(heads[row]) < head)
        } else {
            let (heads, head) = (column.as_chunks().0, (head >> 32) as u32);
            partition(0..heads.len(), |row| u32::from_le_bytes(heads[row]) < head)
        };
        if first == self.at.rows || self.head(first) != head {
            return first;
        }
        let Some(rest) = rest.get(self.at.apart()..) else {
            // Too short for a head, hence less than every key with the same.
            return first;
        };
        // Rows with the same head are few, but need not be.
        let before = |row| key::compare((self.rest(row), self.trailer(row)), (rest, trailer)).is_lt();
        if first + 1 == self.at.rows || self.head(first + 1) != head {
            return first + usize::from(before(first));
        }
        let last = partition(first..self.at.rows, |row| self.head(row) == head);
        partition(first..last, before)
    }
}

/// A key put together from its parts.
#[derive(Default)]
pub(crate) struct KeyBuf {
    /// Longer than the key where that ends in short parts, so that these are copied as whole words
    /// without a look at their length.
    bytes: Vec<u8>,
    len: usize,
}

const SLACK: usize = 16;

impl KeyBuf {
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    #[inline]
    fn room(&mut self, len: usize) {
        if self.bytes.len() < len + 8 + SLACK {
            self.grow(len);
        }
    }

    #[cold]
    fn grow(&mut self, len: usize) {
        self.bytes.resize(len + 2 * SLACK, 0);
    }

    /// Puts `from[span]` at `at`, which ends the key.
    #[inline]
    fn put(&mut self, at: usize, from: &[u8], span: Range<usize>) {
        let len = span.len();
        self.room(at + len);
        self.len = at + len;
        if len <= SLACK
            && let Some(word) = from.get(span.start..).and_then(|from| from.first_chunk::<SLACK>())
            && let Some(to) = self.bytes.get_mut(at..).and_then(|to| to.first_chunk_mut::<SLACK>())
        {
            *to = *word;
            return;
        }
        if let (Some(from), Some(to)) = (from.get(span), self.bytes.get_mut(at..at + len)) {
            to.copy_from_slice(from);
        }
    }

    /// Puts the bytes of a head at `at`, and `from[span]`, which ends the key, so many bytes behind: both at
    /// once, if that is short and no room is to be made. Whether it did.
    #[inline]
    fn put_short(&mut self, at: usize, head: u64, apart: usize, from: &[u8], span: &Range<usize>) -> bool {
        if span.len() <= SLACK
            && let Some(word) = from.get(span.start..).and_then(|from| from.first_chunk::<SLACK>())
            && let Some(to) = self.bytes.get_mut(at..).and_then(|to| to.first_chunk_mut::<{ 8 + SLACK }>())
            && apart <= 8
        {
            to[..8].copy_from_slice(&head.to_be_bytes());
            to[apart..apart + SLACK].copy_from_slice(word);
            self.len = at + apart + span.len();
            return true;
        }
        false
    }

    /// Puts the bytes of a head at `at`; more of the key follows.
    #[inline]
    fn put_head(&mut self, at: usize, head: u64) {
        self.room(at);
        if let Some(to) = self.bytes.get_mut(at..).and_then(|to| to.first_chunk_mut::<8>()) {
            *to = head.to_be_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::builder::Builder;

    fn trailer(seq: u64, kind: Kind) -> Trailer {
        Trailer::new(Seq::new(seq).unwrap(), kind)
    }

    fn build(rows: &[(&[u8], Trailer, &[u8])]) -> Vec<u8> {
        let mut b = Builder::default();
        for (key, trailer, value) in rows {
            b.push(key, key::hash(key), *trailer, value);
        }
        let mut out = Vec::new();
        b.finish(&mut out);
        assert!(b.is_empty());
        out
    }

    /// Every row comes back; returns the flags.
    fn check(rows: &[(&[u8], Trailer, &[u8])]) -> u8 {
        let bytes = build(rows);
        let layout = Layout::parse(&bytes).unwrap();
        let block = Block::new(&bytes, &layout);
        block.check().unwrap();
        assert_eq!(layout.rows(), rows.len());
        let mut key = KeyBuf::default();
        block.read_prefix(&mut key);
        for (i, (k, t, v)) in rows.iter().enumerate() {
            block.change_key(i, block.head(i), &mut key);
            assert_eq!((key.as_slice(), block.trailer(i)), (*k, *t));
            assert_eq!(&bytes[block.value_span(i)], *v);
            assert_eq!(block.find(k, key::hash(k), t.seq()), Some(i));
            assert_eq!(block.lower_bound(k, *t), i);
        }
        layout.flags
    }

    #[test]
    fn columns_that_are_not_needed_are_not_there() {
        let t = trailer(7, Kind::Put);
        let flags = check(&[(b"key-0001", t, b"abc"), (b"key-0002", t, b"abd"), (b"key-0009", t, b"")]);
        assert_eq!(flags, KEYS_FIXED | HEADS_APART);
        let same = build(&[(b"key-0001", t, b"abc"), (b"key-0002", t, b"abd")]);
        // Header, fingerprints, prefix, heads, values: the heads are the keys.
        assert_eq!(same.len(), HEADER_LEN + 2 + 4 + 8 + 6);
        let flags = check(&[(b"01234567", t, b""), (b"11234567", t, b"")]);
        assert_eq!(flags, KEYS_FIXED | VALUES_FIXED | HEADS_WIDE | HEADS_APART);
        assert_eq!(check(&[(b"", t, b"")]), KEYS_FIXED | VALUES_FIXED);
        assert_eq!(check(&[(b"", t, b""), (b"\0", t, b""), (b"\0\0", t, b"")]), VALUES_FIXED);
    }

    #[test]
    fn wide_forms() {
        let t = trailer(7, Kind::Put);
        let (long, large) = (vec![b'x'; 40_000], vec![1; 70_000]);
        let mut longer = long.clone();
        longer.push(b'a');
        let mut longest = longer.clone();
        longest.push(b'a');
        let rows: [(&[u8], Trailer, &[u8]); 5] =
            [(b"a", t, &large), (b"b", t, b""), (&long, t, b"1"), (&longer, t, b""), (&longest, t, &large)];
        assert_eq!(check(&rows), KEY_ENDS_WIDE | VALUE_ENDS_WIDE);
        // Narrow heads decide nothing here.
        let keys: Vec<Vec<u8>> = (0..20u8).map(|i| [&b"aaaaaaa"[..], &[i], b"rest"].concat()).collect();
        let mut rows: Vec<(&[u8], Trailer, &[u8])> = keys.iter().map(|k| (&k[..], t, &b"v"[..])).collect();
        rows.insert(0, (b"a1111111111", t, b"v"));
        assert_eq!(check(&rows) & (HEADS_WIDE | HEADS_APART), HEADS_WIDE | HEADS_APART);
    }

    #[test]
    fn trailers_take_what_they_need() {
        let max = Seq::MAX.get();
        for (low, high, width) in
            [(5, 5, 0), (5, 260, 1), (5, 261, 2), (0, 65536, 4), (0, 1 << 32, 8), (0, max, 8)]
        {
            let (a, b) = (trailer(low, Kind::Put), trailer(high, Kind::Put));
            let rows: [(&[u8], Trailer, &[u8]); 2] = [(b"a", a, b"1"), (b"b", b, b"2")];
            check(&rows);
            assert_eq!(build(&rows)[5..7], [width, 1], "{low} {high}");
        }
        let rows: [(&[u8], Trailer, &[u8]); 3] = [
            (b"a", trailer(max, Kind::Delete), b""),
            (b"a", trailer(300, Kind::Put), b""),
            (b"a", trailer(0, Kind::Put), b"1"),
        ];
        check(&rows);
        assert_eq!(build(&rows)[5..7], [8, MIXED]);
    }

    #[test]
    fn many_versions_of_one_key_are_told_apart() {
        let rows: Vec<_> =
            (0..100).rev().map(|s| (&b"hot"[..], trailer(3 * s, Kind::Put), &b"v"[..])).collect();
        check(&rows);
        let bytes = build(&rows);
        let layout = Layout::parse(&bytes).unwrap();
        let block = Block::new(&bytes, &layout);
        for read in 0..310 {
            let expect = 99 - (read / 3).min(99) as usize;
            let read = Seq::new(read).unwrap();
            assert_eq!(block.find(b"hot", key::hash(b"hot"), read), Some(expect));
            assert_eq!(block.lower_bound(b"hot", Trailer::newest(read)), expect);
        }
        assert_eq!(block.find(b"ho", key::hash(b"ho"), Seq::MAX), None);
    }

    #[test]
    fn headers_that_lie_are_refused() {
        let t = trailer(7, Kind::Put);
        let good = build(&[(b"key-1", t, b"abc"), (b"key-22", trailer(8, Kind::Delete), b"abdef")]);
        for at in 0..HEADER_LEN {
            for bit in 0..8 {
                // Any base is possible, and rests may or may not repeat the heads.
                if (8..16).contains(&at) || (at, 1 << bit) == (4, HEADS_APART) {
                    continue;
                }
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                let layout = Layout::parse(&bad);
                assert!(layout.is_err() || Block::new(&bad, &layout.unwrap()).check().is_err(), "{at} {bit}");
            }
        }
        for cut in 0..good.len() {
            assert!(Layout::parse(&good[..cut]).is_err());
        }
    }
}
