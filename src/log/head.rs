//! The head of a log: its bounds, and what the tags at its ends are. A row of the tree of its logs,
//! derived from each operation on the log.
//!
//! # Format
//!
//! ```text
//! key    log u64, big-endian
//! value  format u8 (1) | flags u8 (1: tag before, 2: last tag) | first varint | next - first varint
//!        | tag of entry first - 1 u64, if flagged | tag of entry next - 1 u64, if flagged
//! ```
//!
//! A log without a row was never written, or was removed.

use crate::coding::{Reader, put_varint};
use crate::entries::Verb;
use crate::error::{Error, ErrorKind, Result};

const FORMAT: u8 = 1;

/// Bounds and tags of a log.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Head {
    pub first: u64,
    pub next: u64,
    /// The tag of entry `first - 1`, if it is known.
    pub before: Option<u64>,
    /// The tag of entry `next - 1`, if it is known; that of `before` while the log is empty.
    pub last: Option<u64>,
}

/// The key of a log's row.
pub(crate) fn key(log: u64) -> [u8; 8] {
    log.to_be_bytes()
}

/// The log whose row has this key.
pub(crate) fn log(key: &[u8]) -> Result<u64> {
    let bytes = key.try_into().map_err(|_| Error::corruption("the head of a log has a malformed key"))?;
    Ok(u64::from_be_bytes(bytes))
}

impl Head {
    /// Appends the value of the row.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let flags = u8::from(self.before.is_some()) | u8::from(self.last.is_some()) << 1;
        out.extend_from_slice(&[FORMAT, flags]);
        put_varint(out, self.first);
        put_varint(out, self.next.saturating_sub(self.first));
        for tag in self.before.iter().chain(&self.last) {
            out.extend_from_slice(&tag.to_le_bytes());
        }
    }

    pub fn decode(bytes: &[u8]) -> Result<Head> {
        let mut r = Reader::new(bytes);
        let (format, flags) = (r.u8()?, r.u8()?);
        let first = r.varint()?;
        let next = first.checked_add(r.varint()?);
        let next = next.filter(|_| format == FORMAT && flags < 4).ok_or_else(malformed)?;
        let before = if flags & 1 != 0 { Some(r.u64()?) } else { None };
        let last = if flags & 2 != 0 { Some(r.u64()?) } else { None };
        if r.is_empty() { Ok(Head { first, next, before, last }) } else { Err(malformed()) }
    }

    pub fn is_empty(&self) -> bool {
        self.first == self.next
    }
}

/// The head of a log after an operation, or why that conflicts with the head before; `None` is a log
/// that was never written, or was removed.
pub(crate) fn after(old: Option<Head>, verb: &Verb<'_>) -> Result<Option<Head>> {
    let head = old.unwrap_or_default();
    let Head { first, next, .. } = head;
    let refuse = |why: String| Err(Error::new(ErrorKind::Conflict, why));
    Ok(Some(match verb {
        Verb::Append(e) if e.first != next => {
            return refuse(format!("entry {} is appended to a log that ends before {next}", e.first));
        }
        Verb::Append(e) => Head { next: e.next(), last: Some(e.last_tag()), ..head },
        Verb::Truncate(cut) if !(first..=next).contains(&cut.at) => {
            return refuse(format!("a log of the entries {first}..{next} is truncated from {}", cut.at));
        }
        Verb::Purge(cut) if cut.at > next => {
            return refuse(format!("a log of the entries {first}..{next} is purged before {}", cut.at));
        }
        Verb::Truncate(cut) if cut.at == next => return Ok(old),
        Verb::Purge(cut) if cut.at <= first => return Ok(old),
        Verb::Truncate(cut) => {
            Head { next: cut.at, last: if cut.at == first { head.before } else { cut.tag }, ..head }
        }
        Verb::Purge(cut) => {
            Head { first: cut.at, before: if cut.at == next { head.last } else { cut.tag }, ..head }
        }
        Verb::Reset(cut) => {
            let tag = cut.tag.filter(|_| cut.at > 0);
            Head { first: cut.at, next: cut.at, before: tag, last: tag }
        }
        Verb::Remove => return Ok(None),
    }))
}

#[cold]
fn malformed() -> Error {
    Error::corruption("the head of a log is malformed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entries::Cut;

    #[test]
    fn golden() {
        let head = Head { first: 5, next: 300, before: Some(2), last: Some(9) };
        let bytes = [1, 3, 5, 0xa7, 2, 2, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0];
        let encode = |head: Head| {
            let mut out = Vec::new();
            head.encode(&mut out);
            out
        };
        assert_eq!(encode(head), bytes);
        assert_eq!(Head::decode(&bytes).unwrap(), head);
        let bare = Head::default();
        assert_eq!(encode(bare), [1, 0, 0, 0]);
        assert_eq!(Head::decode(&encode(bare)).unwrap(), bare);
        assert_eq!((key(258), log(&key(258)).unwrap()), ([0, 0, 0, 0, 0, 0, 1, 2], 258));
        for cut in 0..bytes.len() {
            assert!(Head::decode(&bytes[..cut]).is_err());
        }
        assert!(Head::decode(&[2, 0, 0, 0]).is_err() && Head::decode(&[1, 4, 0, 0]).is_err());
        assert!(Head::decode(&[&encode(bare)[..], &[0]].concat()).is_err() && log(b"x").is_err());
    }

    #[test]
    fn cuts_keep_to_the_bounds() {
        let head = Head { first: 5, next: 9, before: Some(1), last: Some(4) };
        let cut = |at, tag| Cut { at, tag: Some(tag) };
        let of = |verb| after(Some(head), &verb);
        for at in [4, 10] {
            assert!(of(Verb::Truncate(cut(at, 0))).unwrap_err().is_conflict());
        }
        assert!(of(Verb::Purge(cut(10, 0))).unwrap_err().is_conflict());
        assert_eq!(of(Verb::Truncate(cut(9, 0))).unwrap(), Some(head));
        assert_eq!(of(Verb::Purge(cut(5, 0))).unwrap(), Some(head));
        assert_eq!(of(Verb::Truncate(cut(7, 3))).unwrap(), Some(Head { next: 7, last: Some(3), ..head }));
        assert_eq!(of(Verb::Truncate(cut(5, 3))).unwrap(), Some(Head { next: 5, last: Some(1), ..head }));
        assert_eq!(of(Verb::Purge(cut(7, 3))).unwrap(), Some(Head { first: 7, before: Some(3), ..head }));
        assert_eq!(of(Verb::Purge(cut(9, 3))).unwrap(), Some(Head { first: 9, before: Some(4), ..head }));
        let reset = Head { first: 2, next: 2, before: Some(8), last: Some(8) };
        assert_eq!(of(Verb::Reset(cut(2, 8))).unwrap(), Some(reset));
        assert_eq!(of(Verb::Reset(cut(0, 8))).unwrap(), Some(Head::default()));
        assert_eq!(of(Verb::Remove).unwrap(), None);
        assert_eq!(after(None, &Verb::Purge(cut(0, 0))).unwrap(), None);
        assert!(after(None, &Verb::Purge(cut(1, 0))).unwrap_err().is_conflict());
    }
}
