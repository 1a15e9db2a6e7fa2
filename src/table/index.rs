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
//!      -   4*n  lengths of the blocks' contents before compression
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
use crate::table::block::partition;
use crate::table::codec::plausible;
use crate::table::format::{Codec, MAX_COMPRESSED, TRAILER_LEN};
use std::cmp::Ordering;

/// Where a data block is and how long it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BlockAt {
    pub offset: u64,
    /// Bytes in the file, trailer included.
    pub stored: u32,
    /// Bytes of the contents.
    pub raw: u32,
}

impl BlockAt {
    /// Whether the contents are in the file as they are.
    #[inline]
    pub fn is_raw(&self) -> bool {
        self.raw as usize + TRAILER_LEN == self.stored as usize
    }

    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.stored)
    }
}

/// The index in memory.
pub(crate) struct Index {
    prefix: Box<[u8]>,
    heads: Box<[u64]>,
    blocks: Box<[BlockAt]>,
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

        let mut blocks = Vec::with_capacity(n);
        let mut offset = 0;
        for (end, raw) in ends.as_chunks().0.iter().zip(raws.as_chunks().0) {
            let (end, raw) = (u64::from_le_bytes(*end), u32::from_le_bytes(*raw));
            let stored = end.checked_sub(offset).and_then(|len| u32::try_from(len).ok());
            let at = BlockAt { offset, stored: stored.ok_or_else(contradiction)?, raw };
            check_lengths(&at)?;
            blocks.push(at);
            offset = end;
        }
        if offset != data_len {
            return Err(contradiction());
        }

        let mut heads = Vec::with_capacity(n);
        let mut last: &[u8] = &[];
        let mut start = 0;
        for end in rest_ends.as_chunks().0 {
            let end = u32::from_le_bytes(*end) as usize;
            let rest = rests.get(start..end).filter(|&rest| rest >= last).ok_or_else(contradiction)?;
            heads.push(key::head(rest));
            (last, start) = (rest, end);
        }
        if start != rests.len() {
            return Err(contradiction());
        }
        Ok(Index {
            prefix,
            heads: heads.into(),
            blocks: blocks.into(),
            rest_ends: rest_ends.as_chunks().0.iter().map(|&end| u32::from_le_bytes(end)).collect(),
            rests: rests.into(),
        })
    }

    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    #[inline]
    pub fn block(&self, i: usize) -> Option<BlockAt> {
        self.blocks.get(i).copied()
    }

    pub fn blocks(&self) -> &[BlockAt] {
        &self.blocks
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
        let Some(rest) = key.strip_prefix(&*self.prefix) else {
            return if *key < *self.prefix { 0 } else { self.len() };
        };
        let head = key::head(rest);
        let first = partition(0..self.heads.len(), |i| self.heads[i] < head);
        if self.heads.get(first) != Some(&head) {
            return first;
        }
        let last = partition(first..self.heads.len(), |i| self.heads[i] == head);
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
        self.prefix.len() + self.len() * (8 + size_of::<BlockAt>() + 4) + self.rests.len()
    }
}

/// Refuses lengths no block can have, before anything is allocated for it.
fn check_lengths(at: &BlockAt) -> Result<()> {
    let contents = (at.stored as usize).checked_sub(TRAILER_LEN).ok_or_else(contradiction)?;
    let raw = at.raw as usize;
    match contents.cmp(&raw) {
        Ordering::Less if raw > MAX_COMPRESSED => Err(contradiction()),
        Ordering::Less => Ok(()),
        Ordering::Equal => plausible(Codec::Raw, contents, raw),
        Ordering::Greater => Err(contradiction()),
    }
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
    /// Adds a block that ends at `end` of the file and has `raw` bytes of contents. `next` is the
    /// first key of the block behind it.
    pub fn push(&mut self, last: &[u8], next: Option<&[u8]>, end: u64, raw: u32) -> Result<()> {
        put_separator(&mut self.separators, last, next);
        let separators = u32::try_from(self.separators.len());
        self.ends.push(separators.map_err(|_| Error::invalid("the index of a table exceeds 4 GiB"))?);
        self.blocks.push((end, raw));
        Ok(())
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
                &first[..first.iter().zip(last).take_while(|(a, b)| a == b).count()]
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
    let same = last.iter().zip(next).take_while(|(a, b)| a == b).count();
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
            b.push(s, None, 100 * (i as u64 + 1), 95).unwrap();
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

    #[test]
    fn refuses_blocks_that_cannot_be() {
        let with = |end: u64, raw: u32| {
            let mut b = Builder::default();
            b.push(b"k", None, end, raw).unwrap();
            Index::decode(&b.finish(), 100)
        };
        assert!(with(100, 95).is_ok() && with(100, 5000).is_ok());
        assert!(with(100, 94).is_err(), "contents that grew");
        assert!(with(101, 96).is_err(), "beyond the data");
        assert!(with(100, MAX_COMPRESSED as u32 + 1).is_err());
        assert!(Index::decode(&u32::MAX.to_le_bytes().repeat(2), 0).is_err());
    }
}
