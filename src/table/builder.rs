//! Collects rows and writes them as a data block; [`block`](crate::table::block) has the format.

use crate::key::{self, Trailer};
use crate::table::block::{
    HEADER_LEN, HEADS_APART, HEADS_WIDE, KEY_ENDS_WIDE, KEYS_FIXED, MIXED, VALUE_ENDS_WIDE, VALUES_FIXED,
    fingerprint,
};
use crate::table::search::shared;

/// Collects rows and writes them as a block.
#[derive(Default)]
pub(crate) struct Builder {
    shape: Shape,
    fingerprints: Vec<u8>,
    keys: Vec<u8>,
    key_ends: Vec<u32>,
    trailers: Vec<u64>,
    values: Vec<u8>,
    value_ends: Vec<u32>,
    heads: Vec<u64>,
}

/// What decides which columns a block has, kept up to date row by row.
#[derive(Clone, Copy, Default)]
struct Shape {
    rows: usize,
    /// Bytes of all keys, and of all values.
    keys: usize,
    values: usize,
    /// The bytes all keys start with.
    shared: usize,
    shortest_key: usize,
    longest_key: usize,
    shortest_value: usize,
    longest_value: usize,
    /// Bits of the trailers: the least, the greatest, and in which their kinds differ.
    least: u64,
    most: u64,
    kinds: u8,
}

impl Shape {
    /// The shape with another row. `first` is the first key.
    #[inline]
    fn with(&self, first: &[u8], key: &[u8], trailer: u64, value: usize) -> Shape {
        if self.rows == 0 {
            return Shape {
                rows: 1,
                keys: key.len(),
                values: value,
                shared: key.len(),
                shortest_key: key.len(),
                longest_key: key.len(),
                shortest_value: value,
                longest_value: value,
                least: trailer,
                most: trailer,
                kinds: 0,
            };
        }
        Shape {
            rows: self.rows + 1,
            keys: self.keys + key.len(),
            values: self.values + value,
            shared: shared(&first[..self.shared], key),
            shortest_key: self.shortest_key.min(key.len()),
            longest_key: self.longest_key.max(key.len()),
            shortest_value: self.shortest_value.min(value),
            longest_value: self.longest_value.max(value),
            least: self.least.min(trailer),
            most: self.most.max(trailer),
            kinds: self.kinds | (self.least as u8 ^ trailer as u8),
        }
    }

    /// The size of the block, or slightly more.
    #[inline]
    fn size(&self) -> usize {
        let rows = self.rows;
        let prefix = self.prefix(8);
        let repeated = if self.shortest_key < 4 { 4 * rows } else { 0 };
        let key_ends = if self.keys_fixed() { 0 } else { 2 << usize::from(self.keys > 0xffff) };
        let value_ends = if self.values_fixed() { 0 } else { 2 << usize::from(self.values > 0xffff) };
        let columns = 1 + usize::from(self.trailers().2) + key_ends + value_ends;
        HEADER_LEN + prefix + rows * columns + self.keys - rows * prefix + repeated + self.values
    }

    /// The length of the prefix in front of heads of `head_len` bytes: it leaves enough of every key
    /// for those, if there is enough.
    #[inline]
    fn prefix(&self, head_len: usize) -> usize {
        self.shared.min(self.shortest_key.saturating_sub(head_len))
    }

    #[inline]
    fn keys_fixed(&self) -> bool {
        self.shortest_key == self.longest_key
    }

    #[inline]
    fn values_fixed(&self) -> bool {
        self.shortest_value == self.longest_value
    }

    /// Kind, base and width of the deltas that hold all trailers.
    #[inline]
    fn trailers(&self) -> (u8, u64, u8) {
        let (kind, shift) = if self.kinds == 0 { (self.least as u8, 8) } else { (MIXED, 0) };
        let (least, most) = (self.least >> shift, self.most >> shift);
        let width = match most - least {
            0 => 0,
            1..=0xff => 1,
            0x100..=0xffff => 2,
            0x1_0000..=0xffff_ffff => 4,
            _ => 8,
        };
        (kind, least, width)
    }
}

impl Builder {
    /// Whether the block with this row, too, might be larger than `limit`.
    #[inline]
    pub fn exceeds(&self, limit: usize, key: &[u8], trailer: Trailer, value: usize) -> bool {
        // No row costs more than this beside its key and value.
        const MOST: usize = 1 + 8 + 8 + 4 + 4;
        let shape = &self.shape;
        let rough = HEADER_LEN + shape.keys + key.len() + shape.values + value + (shape.rows + 1) * MOST;
        rough > limit && shape.with(self.first(), key, trailer.get(), value).size() > limit
    }

    /// Adds a row behind all others. The caller keeps the order.
    #[inline]
    pub fn push(&mut self, key: &[u8], hash: u64, trailer: Trailer, value: &[u8]) {
        self.shape = self.shape.with(self.first(), key, trailer.get(), value.len());
        self.fingerprints.push(fingerprint(hash));
        self.keys.extend_from_slice(key);
        self.key_ends.push(self.shape.keys as u32);
        self.trailers.push(trailer.get());
        self.values.extend_from_slice(value);
        self.value_ends.push(self.shape.values as u32);
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.shape.rows == 0
    }

    /// About the size of the block.
    #[inline]
    pub fn size(&self) -> usize {
        self.shape.size()
    }

    #[inline]
    fn first(&self) -> &[u8] {
        let end = self.key_ends.first().copied().unwrap_or_default();
        &self.keys[..end as usize]
    }

    /// The last row's key and trailer.
    #[inline]
    pub fn last(&self) -> Option<(&[u8], u64)> {
        let (&trailer, before) = self.trailers.split_last()?;
        let start = before.len().checked_sub(1).map_or(0, |row| self.key_ends[row]);
        Some((&self.keys[start as usize..], trailer))
    }

    /// Appends the block to `out` and starts the next one. Not without rows.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let shape = self.shape;
        let n = shape.rows;
        let (prefix, wide) = self.choose_heads();
        let head_len = if wide { 8 } else { 4 };
        let apart = if shape.shortest_key >= prefix + head_len { head_len } else { 0 };
        let skip = prefix + apart;
        let (keys_fixed, values_fixed) = (shape.keys_fixed(), shape.values_fixed());
        let rests = shape.keys - n * skip;
        let key_len = if keys_fixed { shape.longest_key - skip } else { rests };
        let value_len = if values_fixed { shape.longest_value } else { shape.values };
        let (key_ends_wide, value_ends_wide) = (rests > 0xffff, shape.values > 0xffff);
        let mut flags = 0;
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
        let (kind, base, width) = shape.trailers();

        out.reserve(shape.size() + SLACK);
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
        self.put_rests(out, skip);
        out.extend_from_slice(&self.values);
        self.clear();
    }

    fn clear(&mut self) {
        self.shape = Shape::default();
        self.fingerprints.clear();
        self.keys.clear();
        self.key_ends.clear();
        self.trailers.clear();
        self.values.clear();
        self.value_ends.clear();
        self.heads.clear();
    }

    /// Computes the heads; returns the length of the prefix and whether heads are wide.
    fn choose_heads(&mut self) -> (usize, bool) {
        let Shape { rows, shortest_key, longest_key, .. } = self.shape;
        let narrow = self.shape.prefix(4);
        self.fill_heads(narrow);
        let ties = self.heads.windows(2).filter(|w| w[0] != w[1] && w[0] >> 32 == w[1] >> 32).count();
        // Wide ones where narrow ones decide too little, or where they leave no rests at all.
        let whole = shortest_key == longest_key && (5..=8).contains(&(longest_key - narrow));
        if shortest_key < 8 || (ties <= rows / 8 && !whole) {
            return (narrow, false);
        }
        let prefix = self.shape.prefix(8);
        if prefix != narrow {
            self.fill_heads(prefix);
        }
        (prefix, true)
    }

    fn fill_heads(&mut self, prefix: usize) {
        self.heads.clear();
        let mut start = 0;
        for &end in &self.key_ends {
            self.heads.push(key::head(&self.keys[start + prefix..end as usize]));
            start = end as usize;
        }
    }

    /// Appends what follows the first `skip` bytes of each key.
    fn put_rests(&self, out: &mut Vec<u8>, skip: usize) {
        let mut at = out.len();
        let end = at + self.shape.keys - self.shape.rows * skip;
        // Short rests are copied as a whole word, the next covers what is too much.
        out.resize(end + SLACK, 0);
        let mut start = 0;
        for &key_end in &self.key_ends {
            let rest = &self.keys[start + skip..key_end as usize];
            let word = self.keys[start + skip..].first_chunk::<SLACK>();
            match (word, out[at..].first_chunk_mut::<SLACK>()) {
                (Some(word), Some(to)) if rest.len() <= SLACK => *to = *word,
                _ => out[at..at + rest.len()].copy_from_slice(rest),
            }
            at += rest.len();
            start = key_end as usize;
        }
        out.truncate(end);
    }
}

const SLACK: usize = 16;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Seq;
    use crate::key::Kind;

    #[test]
    fn the_size_is_known_before_the_block_is_built() {
        let mut x = 99u64;
        let mut random = |n: u64| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 20) % n
        };
        for round in 0..200 {
            let (longest, letters) = (random(24) as usize, 1 + random(3));
            let mut keys: Vec<Vec<u8>> = (0..1 + random(60))
                .map(|_| {
                    let len = if round % 2 == 0 { longest } else { random(longest as u64 + 1) as usize };
                    (0..len).map(|_| random(letters) as u8).collect()
                })
                .collect();
            keys.sort();
            let mut b = Builder::default();
            for key in &keys {
                let kind = if random(9) == 0 { Kind::Delete } else { Kind::Put };
                let trailer = Trailer::new(Seq::new(random(1 << (8 + round % 40))).unwrap(), kind);
                let value = vec![7; if round % 3 == 0 { 10 } else { random(40) as usize }];
                let whole = b.shape.with(b.first(), key, trailer.get(), value.len()).size();
                assert!(b.exceeds(whole - 1, key, trailer, value.len()));
                assert!(!b.exceeds(whole, key, trailer, value.len()));
                b.push(key, 0, trailer, &value);
                assert_eq!(b.last(), Some((&key[..], trailer.get())));
            }
            let (size, rows) = (b.size(), b.shape.rows);
            let mut out = vec![1, 2, 3];
            b.finish(&mut out);
            // Wide heads are not known before; they cost four bytes of prefix per row at most.
            let built = out.len() - 3;
            assert!(built <= size && size <= built + 8 * rows, "{built} {size} {rows}");
        }
    }
}
