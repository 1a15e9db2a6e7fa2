//! Ranges of keys, as callers write them.

use crate::cursor::visible::Bounds;
use crate::error::{Error, Result};
use crate::key::{after, prefix_end};
use std::ops::{Bound, Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

/// A range of keys: `a..b`, `a..`, `..=b`, `..`, a pair of [`Bound`]s, or a [`Prefix`], of anything
/// that is bytes.
///
/// A range that ends before it starts is an error of kind [`Invalid`](crate::ErrorKind::Invalid)
/// where it is used; one that is merely empty is not.
pub trait KeyRange: sealed::Sealed {
    #[doc(hidden)]
    fn bounds(self) -> Result<Bounds>;
}

/// All keys that start with these bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix<K>(
    /// The bytes.
    pub K,
);

mod sealed {
    /// Only the types named at [`KeyRange`](super::KeyRange).
    pub trait Sealed {}
}

fn between(lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> Result<Bounds> {
    if let (Bound::Included(l) | Bound::Excluded(l), Bound::Included(u) | Bound::Excluded(u)) = (lower, upper)
        && l > u
    {
        return Err(Error::invalid("the range ends before it starts"));
    }
    let lower = match lower {
        Bound::Included(key) => Some(key.to_vec()),
        Bound::Excluded(key) => Some(after(key)),
        Bound::Unbounded => None,
    };
    let upper = match upper {
        Bound::Included(key) => Some(after(key)),
        Bound::Excluded(key) => Some(key.to_vec()),
        Bound::Unbounded => None,
    };
    checked(lower, upper)
}

/// Bounds that the journal and the tables take.
fn checked(lower: Option<Vec<u8>>, upper: Option<Vec<u8>>) -> Result<Bounds> {
    for bound in lower.iter().chain(&upper) {
        if bound.len() > crate::key::MAX_BOUND_LEN {
            return Err(Error::invalid("a bound of the range is longer than any key"));
        }
    }
    Ok(Bounds { lower, upper })
}

fn bytes<K: AsRef<[u8]>>(bound: &Bound<K>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key.as_ref()),
        Bound::Excluded(key) => Bound::Excluded(key.as_ref()),
        Bound::Unbounded => Bound::Unbounded,
    }
}

impl<K: AsRef<[u8]>> sealed::Sealed for (Bound<K>, Bound<K>) {}
impl<K: AsRef<[u8]>> KeyRange for (Bound<K>, Bound<K>) {
    fn bounds(self) -> Result<Bounds> {
        between(bytes(&self.0), bytes(&self.1))
    }
}

impl sealed::Sealed for RangeFull {}
impl KeyRange for RangeFull {
    fn bounds(self) -> Result<Bounds> {
        Ok(Bounds::default())
    }
}

impl<K: AsRef<[u8]>> sealed::Sealed for Prefix<K> {}
impl<K: AsRef<[u8]>> KeyRange for Prefix<K> {
    fn bounds(self) -> Result<Bounds> {
        let prefix = self.0.as_ref();
        let lower = (!prefix.is_empty()).then(|| prefix.to_vec());
        checked(lower, prefix_end(prefix))
    }
}

macro_rules! ranges {
    ($($range:ident: $self:ident => $lower:expr, $upper:expr;)*) => {$(
        impl<K: AsRef<[u8]>> sealed::Sealed for $range<K> {}
        impl<K: AsRef<[u8]>> KeyRange for $range<K> {
            fn bounds($self) -> Result<Bounds> {
                between($lower, $upper)
            }
        }
    )*};
}

ranges! {
    Range: self => Bound::Included(self.start.as_ref()), Bound::Excluded(self.end.as_ref());
    RangeInclusive: self => Bound::Included(self.start().as_ref()), Bound::Included(self.end().as_ref());
    RangeFrom: self => Bound::Included(self.start.as_ref()), Bound::Unbounded;
    RangeTo: self => Bound::Unbounded, Bound::Excluded(self.end.as_ref());
    RangeToInclusive: self => Bound::Unbounded, Bound::Included(self.end.as_ref());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(range: impl KeyRange) -> String {
        match range.bounds() {
            Ok(b) => {
                let part = |b: Option<Vec<u8>>| b.map(|b| b.escape_ascii().to_string()).unwrap_or_default();
                format!("{}..{}", part(b.lower), part(b.upper))
            }
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn every_range_becomes_half_open() {
        assert_eq!(show("a".."b"), "a..b");
        assert_eq!(show("a"..="b"), "a..b\\x00");
        assert_eq!(show("a"..), "a..");
        assert_eq!(show(.."b"), "..b");
        assert_eq!(show(..=vec![1u8]), "..\\x01\\x00");
        assert_eq!(show(..), "..");
        assert_eq!(show((Bound::Excluded("a"), Bound::Unbounded)), "a\\x00..");
        assert_eq!(show(Prefix("ab")), "ab..ac");
        assert_eq!(show(Prefix(b"\xff")), "\\xff..");
        assert_eq!(show("a".."a"), "a..a");
        assert_eq!(show("b".."a"), "the range ends before it starts");
    }
}
