//! The operations of one commit as bytes: what the journal holds, what recovery replays, and what
//! is applied to the memtables. Encoded once, by whoever fills the batch.
//!
//! # Format
//!
//! A batch is operations one after another; operation `i` has the record's first sequence number
//! plus `i`. Numbers are little-endian, lengths are varints.
//!
//! ```text
//! code u8 | keyspace u32 | then by code:
//!  1 put           key length, value length, key, value
//!  2 delete        key length, key
//!  3 range delete  start length, end length + 1 (0: to the last key), start, end
//!  4 log append    reserved     5 log truncate  reserved     6 log purge  reserved
//!  7 log reset     reserved     8 log remove    reserved
//!  9 replace       reserved: replacing a keyspace is written as rows of the catalog
//! 16 merge operand, 17 single delete, 18 value reference, 19 carry: reserved
//! ```
//!
//! An unknown code refuses to open: it was written by a newer Esker.

use crate::coding::{Reader, put_varint};
use crate::dump::{Dump, text};
use crate::error::{Error, Result};
use crate::ids::KeyspaceId;
use crate::key::{MAX_BOUND_LEN, MAX_KEY_LEN, MAX_VALUE_LEN};

const PUT: u8 = 1;
const DELETE: u8 = 2;
const DELETE_RANGE: u8 = 3;

/// One operation, as it stands in a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Op<'a> {
    Put { key: &'a [u8], value: &'a [u8] },
    Delete { key: &'a [u8] },
    DeleteRange { start: &'a [u8], end: Option<&'a [u8]> },
}

impl Op<'_> {
    /// The bytes of it that a caller wrote: key and value, or both ends.
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            Op::Put { key, value } => key.len() + value.len(),
            Op::Delete { key } => key.len(),
            Op::DeleteRange { start, end } => start.len() + end.map_or(0, <[u8]>::len),
        }
    }
}

/// Encoded operations and their number.
#[derive(Clone, Default, Debug)]
pub(crate) struct Ops {
    bytes: Vec<u8>,
    count: u32,
    /// How many of them are puts.
    puts: u32,
}

impl Ops {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether they do nothing but take away.
    pub fn only_take_away(&self) -> bool {
        self.puts == 0
    }

    /// Empties it, keeping the buffer.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.count = 0;
        self.puts = 0;
    }

    /// Appends one operation. The caller has checked the lengths.
    #[inline]
    pub fn push(&mut self, keyspace: KeyspaceId, op: Op<'_>) {
        let out = &mut self.bytes;
        let code = match op {
            Op::Put { .. } => PUT,
            Op::Delete { .. } => DELETE,
            Op::DeleteRange { .. } => DELETE_RANGE,
        };
        out.push(code);
        out.extend_from_slice(&keyspace.0.to_le_bytes());
        match op {
            Op::Put { key, value } => {
                put_varint(out, key.len() as u64);
                put_varint(out, value.len() as u64);
                out.extend_from_slice(key);
                out.extend_from_slice(value);
            }
            Op::Delete { key } => {
                put_varint(out, key.len() as u64);
                out.extend_from_slice(key);
            }
            Op::DeleteRange { start, end } => {
                put_varint(out, start.len() as u64);
                put_varint(out, end.map_or(0, |end| end.len() as u64 + 1));
                out.extend_from_slice(start);
                out.extend_from_slice(end.unwrap_or_default());
            }
        }
        self.count += 1;
        self.puts += u32::from(code == PUT);
    }

    /// Makes the operations on keyspace `from` operations on `to`.
    pub fn redirect(&mut self, from: KeyspaceId, to: KeyspaceId) -> Result<()> {
        let mut places = Vec::new();
        let mut ops = decode(&self.bytes);
        let mut at = 0;
        while let Some(op) = ops.next() {
            if op?.0 == from {
                places.push(at + 1);
            }
            at = ops.reader.at();
        }
        for place in places {
            self.bytes[place..place + 4].copy_from_slice(&to.0.to_le_bytes());
        }
        Ok(())
    }
}

/// Walks over the operations of a batch; ends after the first error.
pub(crate) fn decode(bytes: &[u8]) -> Decode<'_> {
    Decode { reader: Reader::new(bytes), failed: false }
}

/// See [`decode`].
pub(crate) struct Decode<'a> {
    reader: Reader<'a>,
    failed: bool,
}

impl<'a> Iterator for Decode<'a> {
    type Item = Result<(KeyspaceId, Op<'a>)>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.reader.is_empty() {
            return None;
        }
        let op = decode_one(&mut self.reader);
        self.failed = op.is_err();
        Some(op)
    }
}

#[inline]
fn decode_one<'a>(r: &mut Reader<'a>) -> Result<(KeyspaceId, Op<'a>)> {
    let top = r.take(5)?;
    let keyspace = KeyspaceId(u32::from_le_bytes([top[1], top[2], top[3], top[4]]));
    let op = match top[0] {
        PUT => {
            let (key_len, value_len) = (r.varint()?, r.varint()?);
            let key = take(r, key_len, MAX_KEY_LEN)?;
            Op::Put { key, value: take(r, value_len, MAX_VALUE_LEN)? }
        }
        DELETE => {
            let key_len = r.varint()?;
            Op::Delete { key: take(r, key_len, MAX_KEY_LEN)? }
        }
        DELETE_RANGE => {
            let (start_len, end_len) = (r.varint()?, r.varint()?);
            let start = take(r, start_len, MAX_BOUND_LEN)?;
            let end = match end_len.checked_sub(1) {
                Some(len) => Some(take(r, len, MAX_BOUND_LEN)?),
                None => None,
            };
            Op::DeleteRange { start, end }
        }
        unknown => return Err(Error::corruption(format!("unknown operation {unknown} in a batch"))),
    };
    Ok((keyspace, op))
}

#[inline]
fn take<'a>(r: &mut Reader<'a>, len: u64, max: usize) -> Result<&'a [u8]> {
    if len > max as u64 {
        return Err(Error::corruption(format!("a length of {len} exceeds the limit of {max}")));
    }
    r.take(len as usize)
}

/// The batch whose bytes come next in `dump`, operation by operation.
pub(crate) fn dump(dump: &mut Dump<'_>, bytes: &[u8]) {
    let mut ops = decode(bytes);
    let mut at = 0;
    while let Some(op) = ops.next() {
        let meaning = match op {
            Ok((ks, Op::Put { key, value })) => format!("put {ks}: {} = {}", text(key), text(value)),
            Ok((ks, Op::Delete { key })) => format!("delete {ks}: {}", text(key)),
            Ok((ks, Op::DeleteRange { start, end })) => {
                format!("delete range {ks}: {}..{}", text(start), end.map(text).unwrap_or_default())
            }
            Err(e) => {
                dump.field(bytes.len() - at, format_args!("{e}: {}", text(&bytes[at..])));
                return;
            }
        };
        dump.field(ops.reader.at() - at, meaning);
        at = ops.reader.at();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Ops {
        let mut ops = Ops::default();
        let (a, b) = (KeyspaceId(1), KeyspaceId(300));
        ops.push(a, Op::Put { key: b"apple", value: b"red" });
        ops.push(b, Op::Delete { key: b"" });
        ops.push(a, Op::DeleteRange { start: b"b", end: Some(b"") });
        ops.push(b, Op::DeleteRange { start: b"", end: None });
        ops
    }

    #[test]
    fn golden() {
        let ops = sample();
        let mut d = Dump::new(ops.bytes(), 0);
        dump(&mut d, ops.bytes());
        let line = |at, hex: &str, text: &str| format!("{at:08x}  {hex:<47}  {text}\n");
        let expect = [
            line(0, "01 01 00 00 00 05 03 61 70 70 6c 65 72 65 64", "put 1: \"apple\" = \"red\""),
            line(15, "02 2c 01 00 00 00", "delete 300: \"\""),
            line(21, "03 01 00 00 00 01 01 62", "delete range 1: \"b\"..\"\""),
            line(29, "03 2c 01 00 00 00 00", "delete range 300: \"\".."),
        ];
        assert_eq!(d.finish(), expect.concat());
    }

    #[test]
    fn comes_back_and_can_be_redirected() {
        let mut ops = sample();
        ops.redirect(KeyspaceId(1), KeyspaceId(9)).unwrap();
        let back: Vec<_> = decode(ops.bytes()).collect::<Result<_>>().unwrap();
        assert_eq!(back.len(), ops.count() as usize);
        assert_eq!(back[0], (KeyspaceId(9), Op::Put { key: b"apple", value: b"red" }));
        assert_eq!(back[2], (KeyspaceId(9), Op::DeleteRange { start: b"b", end: Some(b"") }));
        assert_eq!(back[3], (KeyspaceId(300), Op::DeleteRange { start: b"", end: None }));
    }

    #[test]
    fn hostile_bytes_end_in_an_error() {
        let ops = sample();
        for cut in 0..ops.bytes().len() {
            // Ends cleanly between operations, with an error anywhere else; never panics.
            let _ = decode(&ops.bytes()[..cut]).last();
        }
        assert!(decode(&[77, 0, 0, 0, 0]).next().unwrap().is_err());
        let huge = [PUT, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f, 0];
        assert!(decode(&huge).next().unwrap().is_err());
    }
}
