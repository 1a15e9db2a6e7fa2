//! Keys and their order: the internal key is a user key and a [`Trailer`] (sequence number and
//! kind); user keys ascend bytewise, versions of one key descend by sequence number.

use crate::error::{Error, Result};
use crate::fs::SharedBytes;
use crate::ids::Seq;
use std::cmp::Ordering;

/// The longest key, in bytes (64 KiB).
pub const MAX_KEY_LEN: usize = 64 << 10;
/// The longest value, in bytes (256 MiB).
pub const MAX_VALUE_LEN: usize = 256 << 20;
/// The longest bound of a range: a key and the zero byte that makes it exclusive.
pub(crate) const MAX_BOUND_LEN: usize = MAX_KEY_LEN + 1;

/// What an entry says about its key. On disk; the numbers never change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The key is gone (a tombstone).
    Delete = 0,
    /// The key has this value.
    Put = 1,
    // Reserved: 2 merge operand, 3 single delete, 4 value reference. Range tombstones are not
    // entries: they live beside them.
}

impl Kind {
    pub fn from_u8(n: u8) -> Option<Kind> {
        match n {
            0 => Some(Kind::Delete),
            1 => Some(Kind::Put),
            _ => None,
        }
    }
}

/// Sequence number and kind in one word: `seq << 8 | kind`. Larger is newer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Trailer(u64);

impl Trailer {
    #[inline]
    pub fn new(seq: Seq, kind: Kind) -> Trailer {
        Trailer(seq.get() << 8 | kind as u64)
    }

    /// Newer than or equal to everything at or below `seq`: where a read at `seq` starts.
    #[inline]
    pub fn newest(seq: Seq) -> Trailer {
        Trailer(seq.get() << 8 | 0xff)
    }

    /// From disk: refuses a kind that is not known.
    #[inline]
    pub fn from_u64(n: u64) -> Result<Trailer> {
        match Kind::from_u8(n as u8) {
            Some(_) => Ok(Trailer(n)),
            None => Err(Error::corruption(format!("unknown kind of entry {}", n as u8))),
        }
    }

    #[inline]
    pub fn get(self) -> u64 {
        self.0
    }

    #[inline]
    pub fn seq(self) -> Seq {
        match Seq::new(self.0 >> 8) {
            Some(seq) => seq,
            None => Seq::MAX,
        }
    }

    #[inline]
    pub fn kind(self) -> Kind {
        match self.0 as u8 {
            0 => Kind::Delete,
            _ => Kind::Put,
        }
    }
}

/// The order of internal keys: key ascending, then newest first.
#[inline]
pub(crate) fn compare(a: (&[u8], Trailer), b: (&[u8], Trailer)) -> Ordering {
    a.0.cmp(b.0).then_with(|| b.1.cmp(&a.1))
}

/// The head of a key: its first eight bytes as a big-endian number, zero-padded. `head(a) < head(b)`
/// implies `a < b`; equal heads decide nothing.
#[inline]
pub(crate) fn head(key: &[u8]) -> u64 {
    if let Some(first) = key.first_chunk::<8>() {
        return u64::from_be_bytes(*first);
    }
    // Two halves that may overlap, instead of a copy of unknown length.
    let behind = 64 - 8 * key.len() as u32;
    if let (Some(first), Some(last)) = (key.first_chunk::<4>(), key.last_chunk::<4>()) {
        return u64::from(u32::from_be_bytes(*first)) << 32 | u64::from(u32::from_be_bytes(*last)) << behind;
    }
    key.iter().zip([56, 48, 40]).fold(0, |head, (&b, shift)| head | u64::from(b) << shift)
}

/// Heads behind a prefix: keys that begin alike have equal heads of their own. Any prefix will do; one that
/// most of the keys share tells most.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Heads {
    /// Of the prefix, at most eight bytes.
    len: usize,
    prefix: u64,
}

impl Heads {
    /// For the keys from the one to the other.
    pub fn between(first: &[u8], last: &[u8]) -> Heads {
        let of = |key: &[u8]| Heads { len: key.len().min(8), prefix: head(key) };
        of(first).and(of(last))
    }

    /// For the keys of both sets.
    pub fn and(self, other: Heads) -> Heads {
        let same = (self.prefix ^ other.prefix).leading_zeros() as usize / 8;
        let len = same.min(self.len).min(other.len);
        Heads { len, prefix: self.prefix & mask(len) }
    }

    /// `of(a) < of(b)` implies `a < b`; equal ones decide nothing.
    #[inline]
    pub fn of(&self, key: &[u8]) -> u64 {
        let first = head(key);
        match key.get(self.len..) {
            Some(rest) if first & mask(self.len) == self.prefix => head(rest),
            // One that is too short to differ is less, too.
            _ if first <= self.prefix => 0,
            _ => u64::MAX,
        }
    }
}

/// What picks the first `len` bytes of a head.
#[inline]
fn mask(len: usize) -> u64 {
    u64::MAX.checked_shl(64 - 8 * len as u32).unwrap_or(0)
}

/// The hash of a key for filters and fingerprints (xxh3-64). Not a checksum. Computed once per
/// operation and handed down.
#[inline]
pub(crate) fn hash(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key)
}

/// The newest entry of a key that a read found in one place.
#[derive(Clone, Copy)]
pub(crate) struct Found<'a> {
    pub trailer: Trailer,
    pub value: &'a [u8],
    /// Whose bytes `value` lies in, if they can be shared. `None`: copy what must outlive the read.
    pub owner: Option<&'a SharedBytes>,
}

/// An error unless `key` may be a key.
pub(crate) fn check_len(key: &[u8]) -> Result<()> {
    if key.len() > MAX_KEY_LEN {
        return Err(Error::invalid(format!("a key of {} bytes exceeds {MAX_KEY_LEN}", key.len())));
    }
    Ok(())
}

/// The smallest key greater than every key that starts with `prefix`; `None` if there is none
/// (the prefix is empty or all 0xff).
pub(crate) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let keep = prefix.iter().rposition(|&b| b != 0xff)? + 1;
    let mut end = prefix[..keep].to_vec();
    end[keep - 1] += 1;
    Some(end)
}

/// The key right after `key`: itself and a zero byte.
pub(crate) fn after(key: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_never_contradict_the_order() {
        let keys: [&[u8]; 12] = [
            b"",
            b"\0",
            b"\0\0",
            b"a",
            b"a\0",
            b"ab",
            b"abc",
            b"abcde",
            b"abcdefg",
            b"abcdefgh",
            b"abcdefghi",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ];
        for a in keys {
            for b in keys {
                if head(a) < head(b) {
                    assert!(a < b, "{a:?} {b:?}");
                }
            }
            let mut padded = [0; 8];
            let cut = a.len().min(8);
            padded[..cut].copy_from_slice(&a[..cut]);
            assert_eq!(head(a), u64::from_be_bytes(padded), "{a:?}");
        }
    }

    #[test]
    fn heads_behind_a_prefix_never_contradict_the_order() {
        let keys: [&[u8]; 14] = [
            b"",
            b"\0\0",
            b"user",
            b"user\0",
            b"user\0\0\0\0\0",
            b"user000",
            b"user0000",
            b"user00001",
            b"user000011234567a",
            b"user000011234567b",
            b"user0001",
            b"user1",
            b"v",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ];
        let sets = keys.iter().flat_map(|a| keys.iter().map(|b| Heads::between(a, b)));
        let sets: Vec<Heads> = sets.flat_map(|s| [s, s.and(Heads::between(b"use", b"usf"))]).collect();
        for heads in sets {
            for a in keys {
                for b in keys {
                    assert!(heads.of(a) >= heads.of(b) || a < b, "{heads:?} {a:?} {b:?}");
                }
            }
        }
        let heads = Heads::between(b"user0000", b"user0009999");
        assert_eq!(heads, Heads { len: 7, prefix: head(b"user000") });
        assert_eq!(heads.of(b"user0001234"), head(b"1234"));
        assert_eq!((heads.of(b"user001"), heads.of(b"user00")), (u64::MAX, 0));
        assert_eq!(Heads::default().of(b"key"), head(b"key"));
    }

    #[test]
    fn versions_descend_and_the_read_point_stands_before_them() {
        let (s4, s5) = (Seq::new(4).unwrap(), Seq::new(5).unwrap());
        let old = Trailer::new(s4, Kind::Put);
        let new = Trailer::new(s5, Kind::Delete);
        assert_eq!(compare((b"k", new), (b"k", old)), Ordering::Less);
        assert!(Trailer::newest(s4) > old && Trailer::newest(s4) < new);
        assert_eq!((new.seq(), new.kind()), (s5, Kind::Delete));
        assert!(Trailer::from_u64(5 << 8 | 7).is_err());
    }

    #[test]
    fn prefix_ends() {
        assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_end(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(prefix_end(b"\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }
}
