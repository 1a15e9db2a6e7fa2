//! The filter: which keys are surely not in a table, from their hashes.
//!
//! A Bloom filter whose probes for one key all fall into one cache line (64 bytes, 512 bits): a
//! question costs one miss.
//!
//! # Format
//!
//! ```text
//! offset  size  field
//!      0     1  kind: 1
//!      1     1  probes per key, 1 to 16
//!      2     2  zero
//!      4     4  number of lines n, at least one
//!      8  64*n  lines: eight words of 64 bits, little-endian
//! ```
//!
//! The high 32 bits of the key's hash choose the line: `high * n >> 32`. The low 32 bits give the
//! first probe; each further one is the previous times 0x9e3779b9. The top 9 bits of a probe are the
//! bit: 3 bits the word, 6 bits the place in it.

use crate::coding::Reader;
use crate::counters::Striped;
use crate::error::{Error, Result};
use crate::prefetch;

const KIND: u8 = 1;
const MAX_PROBES: u8 = 16;
const HEADER_LEN: usize = 8;
/// The bytes of a line.
pub(crate) const LINE_LEN: usize = 64;
/// More would not pay: all bits of a key share a line.
const MAX_BITS: u32 = 16;

/// What filters said to point reads: how often each of the three.
pub(crate) type FilterReads = Striped<3>;
/// The key is not there.
pub(crate) const SPARED: usize = 0;
/// The key may be there, and was.
pub(crate) const FOUND: usize = 1;
/// The key may be there, and was not.
pub(crate) const FALSE_POSITIVE: usize = 2;

#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Line([u64; 8]);

/// A filter in memory.
pub(crate) struct Filter {
    probes: u32,
    lines: Box<[Line]>,
}

impl Filter {
    /// A filter for these hashes, one per distinct key. `None` for no keys or no bits.
    pub fn build(hashes: &[u64], bits: u32) -> Option<Filter> {
        let bits = bits.min(MAX_BITS);
        if hashes.is_empty() || bits == 0 {
            return None;
        }
        let n = (hashes.len() * bits as usize).div_ceil(LINE_LEN * 8);
        // The probes that give the fewest false positives within one line.
        let probes = (bits * 3 / 5).clamp(1, 9);
        let mut lines = vec![Line::default(); n].into_boxed_slice();
        for &hash in hashes {
            let line = &mut lines[place(hash, n)];
            for (word, bit) in bits_of(hash, probes) {
                line.0[word] |= bit;
            }
        }
        Some(Filter { probes, lines })
    }

    /// `false`: no key with this hash is in the table.
    #[inline]
    pub fn may_contain(&self, hash: u64) -> bool {
        let Some(line) = self.lines.get(place(hash, self.lines.len())) else { return true };
        let mut missing = 0;
        for (word, bit) in bits_of(hash, self.probes) {
            missing |= bit & !line.0[word];
        }
        missing == 0
    }

    /// Starts to load what `may_contain` will look at.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        if let Some(line) = self.lines.get(place(hash, self.lines.len())) {
            prefetch::touch(line);
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN + self.lines.len() * LINE_LEN);
        out.extend_from_slice(&[KIND, self.probes as u8, 0, 0]);
        out.extend_from_slice(&(self.lines.len() as u32).to_le_bytes());
        for word in self.lines.iter().flat_map(|line| line.0) {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Filter> {
        let mut r = Reader::new(bytes);
        let (kind, probes, zero, n) = (r.u8()?, r.u8()?, r.take(2)?, r.u32()?);
        if kind != KIND || !(1..=MAX_PROBES).contains(&probes) || zero != [0, 0] || n == 0 {
            return Err(Error::corruption(format!("a filter of unknown kind {kind} with {probes} probes")));
        }
        let (lines, rest) = bytes.get(HEADER_LEN..).unwrap_or_default().as_chunks::<LINE_LEN>();
        if lines.len() != n as usize || !rest.is_empty() {
            return Err(Error::corruption("a filter's length is not what it says"));
        }
        let lines = lines.iter().map(|bytes| {
            let mut line = Line::default();
            for (word, bytes) in line.0.iter_mut().zip(bytes.as_chunks::<8>().0) {
                *word = u64::from_le_bytes(*bytes);
            }
            line
        });
        Ok(Filter { probes: probes.into(), lines: lines.collect() })
    }

    /// Bytes of memory.
    pub fn memory(&self) -> usize {
        self.lines.len() * LINE_LEN
    }
}

/// The line of a hash among `n`.
#[inline]
fn place(hash: u64, n: usize) -> usize {
    (((hash >> 32) * n as u64) >> 32) as usize
}

/// The bits of a hash in its line, as words and masks.
#[inline]
fn bits_of(hash: u64, probes: u32) -> impl Iterator<Item = (usize, u64)> {
    let mut probe = hash as u32;
    (0..probes).map(move |_| {
        let bit = probe >> 23;
        probe = probe.wrapping_mul(0x9e37_79b9);
        ((bit >> 6) as usize & 7, 1 << (bit & 63))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key;

    fn hashes(range: std::ops::Range<u32>) -> Vec<u64> {
        range.map(|n| key::hash(&n.to_le_bytes())).collect()
    }

    #[test]
    fn holds_every_key_and_few_others() {
        for (bits, most) in [(4, 0.2), (8, 0.04), (10, 0.016), (16, 0.004), (99, 0.004)] {
            for n in [1, 100, 10_000] {
                let filter = Filter::build(&hashes(0..n), bits).unwrap();
                assert!(hashes(0..n).iter().all(|&h| filter.may_contain(h)));
                let wrong =
                    hashes(1 << 20..(1 << 20) + 20_000).iter().filter(|&&h| filter.may_contain(h)).count();
                assert!((wrong as f64) < 20_000.0 * most, "{bits} bits, {n} keys: {wrong} of 20000");
                let back = Filter::decode(&filter.encode()).unwrap();
                assert_eq!(back.encode(), filter.encode());
            }
        }
        assert!(Filter::build(&[], 10).is_none() && Filter::build(&[1], 0).is_none());
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let good = Filter::build(&hashes(0..100), 10).unwrap().encode();
        for at in 0..HEADER_LEN {
            let mut bad = good.clone();
            bad[at] ^= 0x80;
            assert!(Filter::decode(&bad).is_err(), "byte {at}");
        }
        for cut in 0..good.len() {
            assert!(Filter::decode(&good[..cut]).is_err(), "cut {cut}");
        }
    }
}
