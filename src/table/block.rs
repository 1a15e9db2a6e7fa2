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
use std::cmp::Ordering;
use std::ops::Range;

const HEADER_LEN: usize = 28;
const KEYS_FIXED: u8 = 1;
const VALUES_FIXED: u8 = 2;
const HEADS_WIDE: u8 = 4;
const HEADS_APART: u8 = 8;
const KEY_ENDS_WIDE: u8 = 16;
const VALUE_ENDS_WIDE: u8 = 32;
const MIXED: u8 = 0xff;

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
        // The next column starts where one of `len` bytes ends.
        let column = |at: usize, len: usize| at.checked_add(len).filter(|&end| end <= bytes.len());
        let times = |len: usize| rows.checked_mul(len);
        let ends = |fixed, wide| if set(fixed) { 0 } else { 2 << usize::from(set(wide)) };
        let prefix = column(HEADER_LEN, rows)?;
        let heads = column(prefix, prefix_len)?;
        let trailers = column(heads, times(4 << usize::from(set(HEADS_WIDE)))?)?;
        let key_ends = column(trailers, times(width.into())?)?;
        let value_ends = column(key_ends, times(ends(KEYS_FIXED, KEY_ENDS_WIDE))?)?;
        let keys = column(value_ends, times(ends(VALUES_FIXED, VALUE_ENDS_WIDE))?)?;
        let values = column(keys, if set(KEYS_FIXED) { times(key_len)? } else { key_len })?;
        let end = column(values, if set(VALUES_FIXED) { times(value_len)? } else { value_len })?;
        (end == bytes.len()).then_some(Layout {
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

    #[inline]
    fn set(&self, flag: u8) -> bool {
        self.flags & flag != 0
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

    /// The key's bytes behind prefix and, if those are apart, head.
    #[inline]
    fn rest(&self, row: usize) -> &'a [u8] {
        let at = self.at;
        let fixed = at.set(KEYS_FIXED).then_some(at.key_len);
        let span = self.span(row, fixed, at.key_ends, at.set(KEY_ENDS_WIDE), at.keys);
        self.slice(span.start, span.end)
    }

    /// Where the value of `row` lies in the block's bytes.
    #[inline]
    pub fn value_span(&self, row: usize) -> Range<usize> {
        let at = self.at;
        let fixed = at.set(VALUES_FIXED).then_some(at.value_len);
        self.span(row, fixed, at.value_ends, at.set(VALUE_ENDS_WIDE), at.values)
    }

    #[inline]
    pub fn value(&self, row: usize) -> &'a [u8] {
        let span = self.value_span(row);
        self.slice(span.start, span.end)
    }

    /// The head of `row`: 4-byte ones in the high half, so that both widths compare alike.
    #[inline]
    fn head(&self, row: usize) -> u64 {
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

    /// Makes `key` the key of `row`.
    #[inline]
    pub fn read_key(&self, row: usize, key: &mut Vec<u8>) {
        key.clear();
        key.extend_from_slice(self.prefix());
        self.finish_key(row, key);
    }

    /// Makes `key`, which is a key of the same block, that of `row`.
    #[inline]
    pub fn change_key(&self, row: usize, key: &mut Vec<u8>) {
        key.truncate(self.at.prefix_len);
        self.finish_key(row, key);
    }

    #[inline]
    fn finish_key(&self, row: usize, key: &mut Vec<u8>) {
        if self.at.set(HEADS_APART) {
            let head = self.head(row).to_be_bytes();
            key.extend_from_slice(&head[..self.at.head_len()]);
        }
        key.extend_from_slice(self.rest(row));
    }

    /// The newest version of `key` with a sequence number of at most `read`.
    #[inline]
    pub fn find(&self, key: &[u8], hash: u64, read: Seq) -> Option<usize> {
        let key = key.strip_prefix(self.prefix())?;
        let (head, rest) = (key::head(key) & self.head_mask(), key.get(self.at.apart()..)?);
        let wanted = |row| {
            self.head(row) == head && self.rest(row) == rest && self.trailer(row) <= Trailer::newest(read)
        };
        let marks = self.slice(HEADER_LEN, HEADER_LEN + self.at.rows);
        let mark = fingerprint(hash);
        let (chunks, tail) = marks.as_chunks::<8>();
        for (i, chunk) in chunks.iter().enumerate() {
            let mut hits = equal_bytes(u64::from_le_bytes(*chunk), mark);
            while hits != 0 {
                let row = i * 8 + hits.trailing_zeros() as usize / 8;
                if wanted(row) {
                    return Some(row);
                }
                hits &= hits - 1;
            }
        }
        let first = chunks.len() * 8;
        tail.iter().zip(first..).find(|&(&m, row)| m == mark && wanted(row)).map(|(_, row)| row)
    }

    #[inline]
    fn head_mask(&self) -> u64 {
        if self.at.set(HEADS_WIDE) { u64::MAX } else { 0xffff_ffff << 32 }
    }

    /// The first row at or after `(key, trailer)`; the number of rows if there is none.
    pub fn lower_bound(&self, key: &[u8], trailer: Trailer) -> usize {
        let prefix = self.prefix();
        let Some(key) = key.strip_prefix(prefix) else {
            return if key < prefix { 0 } else { self.at.rows };
        };
        let head = key::head(key) & self.head_mask();
        let first = partition(0..self.at.rows, |row| self.head(row) < head);
        if first == self.at.rows || self.head(first) != head {
            return first;
        }
        let last = partition(first..self.at.rows, |row| self.head(row) == head);
        let Some(rest) = key.get(self.at.apart()..) else {
            // Too short for a head, hence shorter than every key with the same.
            return first;
        };
        partition(first..last, |row| {
            key::compare((self.rest(row), self.trailer(row)), (rest, trailer)) == Ordering::Less
        })
    }
}

/// The first of `range` for which `before` does not hold, as `slice::partition_point`. Without
/// branches on the outcome: both are equally likely.
#[inline]
pub(crate) fn partition(range: Range<usize>, before: impl Fn(usize) -> bool) -> usize {
    let (mut first, mut len) = (range.start, range.len());
    while len > 0 {
        let half = len / 2;
        first += if before(first + half) { len - half } else { 0 };
        len = half;
    }
    first
}

/// The high bit of every byte of `word` that equals `byte`; perhaps also of a byte right above such
/// a one.
#[inline]
fn equal_bytes(word: u64, byte: u8) -> u64 {
    const LOW: u64 = 0x0101_0101_0101_0101;
    let x = word ^ (LOW * u64::from(byte));
    x.wrapping_sub(LOW) & !x & (LOW << 7)
}

/// Collects rows and writes them as a block.
#[derive(Default)]
pub(crate) struct Builder {
    fingerprints: Vec<u8>,
    keys: Vec<u8>,
    key_ends: Vec<u32>,
    trailers: Vec<u64>,
    values: Vec<u8>,
    value_ends: Vec<u32>,
    heads: Vec<u64>,
}

impl Builder {
    /// Adds a row behind all others. The caller keeps the order.
    #[inline]
    pub fn push(&mut self, key: &[u8], hash: u64, trailer: Trailer, value: &[u8]) {
        self.fingerprints.push(fingerprint(hash));
        self.keys.extend_from_slice(key);
        self.key_ends.push(self.keys.len() as u32);
        self.trailers.push(trailer.get());
        self.values.extend_from_slice(value);
        self.value_ends.push(self.values.len() as u32);
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.trailers.is_empty()
    }

    /// About the size of the block.
    #[inline]
    pub fn size(&self) -> usize {
        HEADER_LEN + self.keys.len() + self.values.len() + 4 * self.trailers.len()
    }

    #[inline]
    fn key(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.key_ends[row - 1] };
        &self.keys[start as usize..self.key_ends[row] as usize]
    }

    pub fn first(&self) -> Option<&[u8]> {
        (!self.is_empty()).then(|| self.key(0))
    }

    #[inline]
    pub fn last(&self) -> Option<(&[u8], Trailer)> {
        let row = self.trailers.len().checked_sub(1)?;
        Some((self.key(row), Trailer::from_u64(self.trailers[row]).ok()?))
    }

    /// Appends the block to `out` and starts the next one. Not without rows.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let n = self.trailers.len();
        let mut flags = 0;
        let (prefix, wide, shortest) = self.choose_heads();
        let head_len = if wide { 8 } else { 4 };
        let apart = if shortest >= prefix + head_len { head_len } else { 0 };
        let skip = prefix + apart;
        let (key_len, keys_fixed) = match one_length(&self.key_ends) {
            Some(len) => (len - skip, true),
            None => (self.keys.len() - n * skip, false),
        };
        let (value_len, values_fixed) = match one_length(&self.value_ends) {
            Some(len) => (len, true),
            None => (self.values.len(), false),
        };
        let (key_ends_wide, value_ends_wide) = (key_len > 0xffff, value_len > 0xffff);
        for (flag, set) in [
            (KEYS_FIXED, keys_fixed),
            (VALUES_FIXED, values_fixed),
            (HEADS_WIDE, wide),
            (HEADS_APART, apart > 0),
            (KEY_ENDS_WIDE, !keys_fixed && key_ends_wide),
            (VALUE_ENDS_WIDE, !values_fixed && value_ends_wide),
        ] {
            flags |= if set { flag } else { 0 };
        }
        let (kind, base, width) = self.choose_trailers();

        out.extend_from_slice(&(n as u32).to_le_bytes());
        out.extend_from_slice(&[flags, width, kind, 0]);
        out.extend_from_slice(&base.to_le_bytes());
        for len in [prefix, key_len, value_len] {
            out.extend_from_slice(&(len as u32).to_le_bytes());
        }
        out.extend_from_slice(&self.fingerprints);
        out.extend_from_slice(&self.keys[..prefix]);
        put_column(out, &self.heads, head_len, |head| if wide { head } else { head >> 32 });
        let shift = if kind == MIXED { 0 } else { 8 };
        put_column(out, &self.trailers, width.into(), |trailer| (trailer >> shift) - base);
        if !keys_fixed {
            let mut skipped = 0;
            put_column(out, &self.key_ends, if key_ends_wide { 4 } else { 2 }, |end| {
                skipped += skip as u32;
                u64::from(end - skipped)
            });
        }
        if !values_fixed {
            put_column(out, &self.value_ends, if value_ends_wide { 4 } else { 2 }, u64::from);
        }
        for row in 0..n {
            out.extend_from_slice(&self.key(row)[skip..]);
        }
        out.extend_from_slice(&self.values);
        self.clear();
    }

    fn clear(&mut self) {
        self.fingerprints.clear();
        self.keys.clear();
        self.key_ends.clear();
        self.trailers.clear();
        self.values.clear();
        self.value_ends.clear();
        self.heads.clear();
    }

    /// Computes the heads; returns the length of the prefix, whether heads are wide, and the length
    /// of the shortest key.
    fn choose_heads(&mut self) -> (usize, bool, usize) {
        let n = self.trailers.len();
        let (first, last) = (self.key(0), self.key(n - 1));
        let shared = first.iter().zip(last).take_while(|(a, b)| a == b).count();
        let (mut shortest, mut longest) = (usize::MAX, 0);
        let mut start = 0;
        for &end in &self.key_ends {
            let len = (end - start) as usize;
            start = end;
            shortest = shortest.min(len);
            longest = longest.max(len);
        }
        // The prefix leaves enough for a head, so that heads need not be repeated.
        let narrow = shared.min(shortest.saturating_sub(4));
        self.fill_heads(narrow);
        let ties = self.heads.windows(2).filter(|w| w[0] != w[1] && w[0] >> 32 == w[1] >> 32).count();
        // Wide ones where narrow ones decide too little, or where they leave no rests at all.
        let whole = shortest == longest && (5..=8).contains(&(longest - narrow));
        if shortest < 8 || (ties <= n / 8 && !whole) {
            return (narrow, false, shortest);
        }
        let prefix = shared.min(shortest - 8);
        if prefix != narrow {
            self.fill_heads(prefix);
        }
        (prefix, true, shortest)
    }

    fn fill_heads(&mut self, prefix: usize) {
        let mut heads = std::mem::take(&mut self.heads);
        heads.clear();
        heads.extend((0..self.trailers.len()).map(|row| key::head(&self.key(row)[prefix..])));
        self.heads = heads;
    }

    /// Kind, base and width of the deltas that hold all trailers.
    fn choose_trailers(&self) -> (u8, u64, u8) {
        let kind = self.trailers[0] as u8;
        let (mut least, mut most, mut kinds) = (u64::MAX, 0, 0);
        for &t in &self.trailers {
            least = least.min(t);
            most = most.max(t);
            kinds |= t as u8 ^ kind;
        }
        let (kind, shift) = if kinds == 0 { (kind, 8) } else { (MIXED, 0) };
        let (least, most) = (least >> shift, most >> shift);
        match most - least {
            0 => (kind, least, 0),
            1..=0xff => (kind, least, 1),
            0x100..=0xffff => (kind, least, 2),
            0x1_0000..=0xffff_ffff => (kind, least, 4),
            _ => (kind, least, 8),
        }
    }
}

/// The length all share, from their ends.
fn one_length(ends: &[u32]) -> Option<usize> {
    let len = *ends.first()?;
    ends.windows(2).all(|w| w[1] - w[0] == len).then_some(len as usize)
}

/// Appends the low `width` bytes of each number, little-endian.
fn put_column<T: Copy>(out: &mut Vec<u8>, numbers: &[T], width: usize, mut f: impl FnMut(T) -> u64) {
    let start = out.len();
    out.resize(start + numbers.len() * width, 0);
    let column = &mut out[start..];
    match width {
        0 => {}
        1 => column.iter_mut().zip(numbers).for_each(|(to, &n)| *to = f(n) as u8),
        2 => {
            let to = column.as_chunks_mut::<2>().0.iter_mut();
            to.zip(numbers).for_each(|(to, &n)| *to = (f(n) as u16).to_le_bytes());
        }
        4 => {
            let to = column.as_chunks_mut::<4>().0.iter_mut();
            to.zip(numbers).for_each(|(to, &n)| *to = (f(n) as u32).to_le_bytes());
        }
        _ => {
            let to = column.as_chunks_mut::<8>().0.iter_mut();
            to.zip(numbers).for_each(|(to, &n)| *to = f(n).to_le_bytes());
        }
    }
}
