//! Values handed to the caller: small ones inline, larger ones a share of the block or map they
//! lie in.

use crate::fs::SharedBytes;
use std::fmt;
use std::ops::{Deref, Range};

/// The longest value kept without a heap allocation or a reference count.
const INLINE: usize = 30;

/// The bytes of a key or value, owned. Derefs to `[u8]`.
///
/// Up to 30 bytes live in the value itself. Larger ones share the cached block or the mapped table
/// they were read from, and keep it in memory as long as they live, where a block counts against
/// [`memory_bytes`](crate::Options::memory_bytes); [`detach`](Value::detach) copies them out. Converts into [`bytes::Bytes`] without a copy. Cloning costs at most a
/// reference count, or a copy for bytes that came from a memtable.
#[derive(Clone)]
pub struct Value(Repr);

#[derive(Clone)]
enum Repr {
    Inline(u8, [u8; INLINE]),
    Heap(Box<[u8]>),
    Shared { owner: SharedBytes, start: usize, len: usize },
}

impl Value {
    /// A copy of `bytes`.
    #[inline]
    pub(crate) fn copied(bytes: &[u8]) -> Value {
        if bytes.len() <= INLINE {
            let mut inline = [0; INLINE];
            inline[..bytes.len()].copy_from_slice(bytes);
            return Value(Repr::Inline(bytes.len() as u8, inline));
        }
        Value(Repr::Heap(bytes.into()))
    }

    /// These bytes, without a copy unless they are few.
    pub(crate) fn from_vec(bytes: Vec<u8>) -> Value {
        if bytes.len() <= INLINE { Value::copied(&bytes) } else { Value(Repr::Heap(bytes.into())) }
    }

    /// `bytes`, which lie in `owner` if one is given: shared instead of copied.
    #[inline]
    pub(crate) fn shared(bytes: &[u8], owner: Option<&SharedBytes>) -> Value {
        if bytes.len() > INLINE
            && let Some(owner) = owner
        {
            let whole = (**owner).as_ref();
            let start = (bytes.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
            // Told by the addresses alone; bytes that lie elsewhere are copied.
            if start.checked_add(bytes.len()).is_some_and(|end| end <= whole.len()) {
                return Value(Repr::Shared { owner: owner.clone(), start, len: bytes.len() });
            }
        }
        Value::copied(bytes)
    }

    /// These bytes of `owner`, whose bytes are `whole`: shared if they are many. The caller has checked that they
    /// are there.
    #[inline]
    pub(crate) fn part(owner: &SharedBytes, whole: &[u8], part: Range<usize>) -> Value {
        if part.len() <= INLINE {
            return Value::copied(whole.get(part).unwrap_or_default());
        }
        Value(Repr::Shared { owner: owner.clone(), start: part.start, len: part.len() })
    }

    /// A value that keeps nothing else alive: copies the bytes if they are shared.
    #[must_use]
    pub fn detach(self) -> Value {
        match self.0 {
            Repr::Shared { .. } => Value::copied(&self),
            _ => self,
        }
    }

    /// The bytes in a vector of their own.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        match self.0 {
            Repr::Heap(bytes) => bytes.into_vec(),
            _ => self.to_vec(),
        }
    }
}

impl Deref for Value {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline(len, bytes) => &bytes[..usize::from(*len)],
            Repr::Heap(bytes) => bytes,
            Repr::Shared { owner, start, len } => &(**owner).as_ref()[*start..*start + *len],
        }
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Value> for bytes::Bytes {
    /// Without a copy, except for inline values, which are moved.
    fn from(value: Value) -> bytes::Bytes {
        bytes::Bytes::from_owner(value)
    }
}

impl From<Value> for Vec<u8> {
    fn from(value: Value) -> Vec<u8> {
        value.into_vec()
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Value {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

impl Eq for Value {}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Value) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Value) -> std::cmp::Ordering {
        (**self).cmp(&**other)
    }
}

impl std::hash::Hash for Value {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn shares_what_lies_in_the_owner_and_copies_the_rest() {
        let owner: SharedBytes = Arc::new(vec![7u8; 100]);
        let inside = &(*owner).as_ref()[10..60];
        let v = Value::shared(inside, Some(&owner));
        assert_eq!(Arc::strong_count(&owner), 2);
        assert_eq!(v, *inside);
        assert_eq!(v.as_ptr(), inside.as_ptr());
        let detached = v.detach();
        assert_eq!(Arc::strong_count(&owner), 1);
        assert_eq!(detached, *inside);

        let elsewhere = vec![1u8; 50];
        assert_eq!(Value::shared(&elsewhere, Some(&owner)), elsewhere);
        assert_eq!(Arc::strong_count(&owner), 1);
        let small = Value::shared(&inside[..INLINE], Some(&owner));
        assert_eq!(Arc::strong_count(&owner), 1);
        assert_eq!(bytes::Bytes::from(small), vec![7u8; INLINE]);
    }
}
