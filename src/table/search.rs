//! Searches and comparisons of short things, without calls and without branches that cannot be
//! predicted.

use crate::key;
use std::cmp::Ordering;
use std::hint::select_unpredictable;
use std::ops::Range;

/// The first of `range` for which `before` does not hold, as `slice::partition_point`. Without a
/// branch on the outcomes: they cannot be predicted.
#[inline]
pub(crate) fn partition(range: Range<usize>, before: impl Fn(usize) -> bool) -> usize {
    let (mut first, mut len) = (range.start, range.len());
    while len > 0 {
        let half = len / 2;
        first = select_unpredictable(before(first + half), first + len - half, first);
        len = half;
    }
    first
}

/// The high bit of every byte of `word` that equals `byte`; perhaps also of a byte right above such
/// a one.
#[inline]
pub(crate) fn equal_bytes(word: u64, byte: u8) -> u64 {
    const LOW: u64 = 0x0101_0101_0101_0101;
    let x = word ^ (LOW * u64::from(byte));
    x.wrapping_sub(LOW) & !x & (LOW << 7)
}

/// Whether two short strings are equal, without a call.
#[inline]
pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
    fn ends<const N: usize>(a: &[u8], b: &[u8]) -> bool {
        a.first_chunk::<N>() == b.first_chunk::<N>() && a.last_chunk::<N>() == b.last_chunk::<N>()
    }
    a.len() == b.len()
        && match a.len() {
            8..=16 => ends::<8>(a, b),
            4..8 => ends::<4>(a, b),
            2..4 => ends::<2>(a, b),
            0..2 => a.first() == b.first(),
            _ => a == b,
        }
}

/// The order of two keys, as `Ord` has it.
#[inline]
pub(crate) fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let (mut x, mut y) = (a, b);
    while let (Some((first, a)), Some((second, b))) = (x.split_first_chunk::<8>(), y.split_first_chunk::<8>())
    {
        if first != second {
            return u64::from_be_bytes(*first).cmp(&u64::from_be_bytes(*second));
        }
        (x, y) = (a, b);
    }
    // Zero-padded and equal: one is the other and zeros behind it.
    key::head(x).cmp(&key::head(y)).then(a.len().cmp(&b.len()))
}

/// How many bytes two strings start with in common.
#[inline]
pub(crate) fn shared(a: &[u8], b: &[u8]) -> usize {
    let mut at = 0;
    while let (Some(x), Some(y)) = (a[at..].first_chunk::<8>(), b[at..].first_chunk::<8>()) {
        let differ = u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y);
        if differ != 0 {
            return at + differ.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + a[at..].iter().zip(&b[at..]).take_while(|(x, y)| x == y).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_strings_are_compared_whole() {
        let a: Vec<u8> = (1..40).collect();
        for len in 0..40usize {
            let a = &a[..len.min(39)];
            let same = a.to_vec();
            assert!(equal(a, &same));
            for i in 0..a.len() {
                let mut b = a.to_vec();
                b[i] ^= 1;
                assert!(!equal(a, &b) && !equal(a, &b[..i]));
            }
        }
        for byte in [0, 1, 0x7f, 0x80, 0xff] {
            let word = u64::from_le_bytes([byte; 8]);
            assert_eq!(equal_bytes(word, byte), 0x8080_8080_8080_8080);
            assert_eq!(equal_bytes(word, byte ^ 0x10), 0);
        }
    }

    #[test]
    fn keys_compare_as_slices_do() {
        let mut x = 7u64;
        let mut random = |n: u64| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 20) % n
        };
        let mut keys: Vec<Vec<u8>> = (0..300)
            .map(|_| {
                let start = [&b""[..], b"sevens.", b"eight...", b"more than eight"][random(4) as usize];
                let len = random(12);
                let tail: Vec<u8> = (0..len).map(|_| [0, 0, 1, 0xff][random(4) as usize]).collect();
                [start, &tail].concat()
            })
            .collect();
        keys.push(Vec::new());
        for a in &keys {
            for b in &keys {
                assert_eq!(compare(a, b), a.cmp(b), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn what_is_shared_is_counted() {
        let a = b"0123456789abcdef0123";
        for len in 0..a.len() {
            let mut b = a[..len].to_vec();
            assert_eq!((shared(a, &b), shared(&b, a)), (len, len));
            b.extend_from_slice(b"x and so on");
            assert_eq!((shared(a, &b), shared(&b, a)), (len, len));
        }
    }
}
