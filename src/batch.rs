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
//!  4 log append, 5 log truncate, 6 log purge, 7 log reset, 8 log remove: see `entries`
//!  9 replace       reserved: replacing a keyspace is written as rows of the catalog
//! 16 merge operand, 17 single delete, 18 value reference, 19 carry: reserved
//! ```
//!
//! An unknown code refuses to open: it was written by a newer Esker.

use crate::coding::{Reader, put_varint, u32_at};
use crate::dump::{Dump, text};
use crate::entries::{self, Builder, Cut, LogOp};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::KeyspaceId;
use crate::key::{MAX_BOUND_LEN, MAX_KEY_LEN, MAX_VALUE_LEN};

const PUT: u8 = 1;
const DELETE: u8 = 2;
const DELETE_RANGE: u8 = 3;

/// One operation, as it stands in a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Op<'a> {
    Put {
        key: &'a [u8],
        value: &'a [u8],
    },
    Delete {
        key: &'a [u8],
    },
    DeleteRange {
        start: &'a [u8],
        end: Option<&'a [u8]>,
    },
    /// On a log.
    Log(LogOp<'a>),
}

impl Op<'_> {
    /// The bytes of it that a caller wrote: key and value, or both ends.
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            Op::Put { key, value } => key.len() + value.len(),
            Op::Delete { key } => key.len(),
            Op::DeleteRange { start, end } => start.len() + end.map_or(0, <[u8]>::len),
            Op::Log(op) => op.payload(),
        }
    }
}

/// Encoded operations and their number.
#[derive(Clone, Default, Debug)]
pub(crate) struct Ops {
    bytes: Vec<u8>,
    count: u32,
    /// How many of them are puts or appends.
    puts: u32,
    /// Operations on logs, if there are any.
    logs: Option<Box<OnLogs>>,
}

/// The operations of a batch that are on logs.
#[derive(Clone, Default, Debug)]
struct OnLogs {
    ops: Vec<OnLog>,
    /// The last one is an append that may get more entries.
    open: bool,
    builder: Builder,
    /// Entries whose index was left to the commit: operation and number in it.
    pushes: Vec<(u32, u32)>,
}

/// One operation on a log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OnLog {
    pub keyspace: KeyspaceId,
    pub log: u64,
    /// Which of all operations it is.
    pub nth: u32,
    /// Where its bytes from the log on start.
    at: usize,
    /// The index its entries are bound to; the commit gives it to one that begins with a push.
    bound: Option<u64>,
    pushed: bool,
}

impl Ops {
    /// The operations as they go to the journal, once they are [complete](Ops::complete).
    pub fn bytes(&self) -> &[u8] {
        debug_assert!(self.logs.as_ref().is_none_or(|logs| !logs.open));
        &self.bytes
    }

    /// How many bytes that will be.
    pub fn size(&self) -> usize {
        let pending = self.logs.as_ref().filter(|logs| logs.open).map_or(0, |logs| logs.builder.pending());
        self.bytes.len() + pending
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
        if let Some(logs) = &mut self.logs {
            logs.ops.clear();
            logs.pushes.clear();
            logs.open = false;
        }
    }

    /// The bytes that its buffers take.
    pub fn buffers(&self) -> usize {
        let logs = self.logs.as_ref().map_or(0, |logs| {
            logs.builder.buffers() + size_of_val(&logs.ops[..]) + size_of_val(&logs.pushes[..])
        });
        self.bytes.capacity() + logs
    }

    /// Completes an append that could have got more entries.
    #[inline]
    pub fn complete(&mut self) {
        if let Some(logs) = &mut self.logs {
            logs.close(&mut self.bytes);
        }
    }

    /// Adds an entry to `log`, at `index` or (`None`) wherever the log ends then. The caller has checked
    /// the length.
    pub fn append(&mut self, keyspace: KeyspaceId, log: u64, index: Option<u64>, tag: u64, bytes: &[u8]) {
        let logs = self.logs.get_or_insert_default();
        let crc = crc32fast::hash(bytes);
        let goes_on = logs.ops.last().is_some_and(|op| {
            let next = op.bound.map(|first| first.saturating_add(u64::from(logs.builder.count())));
            logs.open
                && (op.keyspace, op.log) == (keyspace, log)
                && logs.builder.fits(bytes.len())
                && (index.is_none() || index == next)
        });
        if !goes_on {
            logs.close(&mut self.bytes);
            self.bytes.push(entries::APPEND);
            self.bytes.extend_from_slice(&keyspace.0.to_le_bytes());
            let at = self.bytes.len();
            logs.builder.begin(&mut self.bytes, log, index.unwrap_or_default());
            let (nth, pushed) = (self.count, index.is_none());
            logs.ops.push(OnLog { keyspace, log, nth, at, bound: index, pushed });
            logs.open = true;
            self.count += 1;
            self.puts += 1;
        }
        let Some(op) = logs.ops.last() else { return };
        let nth = logs.builder.count();
        let bound = op.bound.map_or(0, |first| entries::place(log, first.saturating_add(u64::from(nth))));
        if index.is_none() {
            logs.pushes.push((logs.ops.len() as u32 - 1, nth));
        }
        logs.builder.add(&mut self.bytes, tag, bytes, crc ^ bound);
    }

    /// Adds a cut of `log`, of one of the codes for that, or its removal (no cut).
    pub fn cut(&mut self, keyspace: KeyspaceId, log: u64, code: u8, cut: Option<Cut>) {
        let logs = self.logs.get_or_insert_default();
        logs.close(&mut self.bytes);
        self.bytes.push(code);
        self.bytes.extend_from_slice(&keyspace.0.to_le_bytes());
        let at = self.bytes.len();
        logs.ops.push(OnLog { keyspace, log, nth: self.count, at, bound: None, pushed: false });
        match cut {
            Some(cut) => self.bytes.extend_from_slice(&cut.encode(log)),
            None => self.bytes.extend_from_slice(&log.to_le_bytes()),
        }
        self.count += 1;
    }

    /// The operations on logs.
    #[inline]
    pub fn on_logs(&self) -> &[OnLog] {
        self.logs.as_ref().map_or(&[], |logs| &logs.ops)
    }

    /// One of them as it stands now.
    pub fn on_log(&self, op: &OnLog) -> LogOp<'_> {
        let code = op.at.checked_sub(5).and_then(|at| self.bytes.get(at)).copied().unwrap_or_default();
        let body = self.bytes.get(op.at..).unwrap_or_default();
        let len = LogOp::len(code, body).unwrap_or(body.len()).min(body.len());
        LogOp { code, body: &body[..len] }
    }

    /// Gives the `i`th operation on logs, if it is an append that left its index to the commit, the index
    /// `first`.
    pub fn bind(&mut self, i: usize, first: u64) -> Result<()> {
        let Some(op) = self.logs.as_mut().and_then(|logs| logs.ops.get_mut(i)) else { return Ok(()) };
        if !op.pushed || op.bound == Some(first) {
            return Ok(());
        }
        // One that no entry may have must leave the checksums as they are.
        let count = u32_at(&self.bytes, op.at + 16).unwrap_or_default();
        if first.checked_add(u64::from(count)).is_none() {
            return Err(Error::new(ErrorKind::Conflict, "the indexes of the log are used up"));
        }
        entries::rebind(&mut self.bytes[op.at..], op.bound, first)?;
        op.bound = Some(first);
        Ok(())
    }

    /// Puts the tag of the entry before it into the `i`th operation on logs, which is a cut.
    pub fn set_tag(&mut self, i: usize, cut: Cut) {
        let Some(op) = self.on_logs().get(i).copied() else { return };
        let bytes = cut.encode(op.log);
        self.bytes[op.at..op.at + bytes.len()].copy_from_slice(&bytes);
    }

    /// Which indexes the entries got that left theirs to the commit.
    pub fn pushed(&self, out: &mut Vec<u64>) {
        out.clear();
        let Some(logs) = &self.logs else { return };
        out.extend(logs.pushes.iter().map(|&(op, nth)| {
            let first = logs.ops.get(op as usize).and_then(|op| op.bound).unwrap_or_default();
            first.saturating_add(u64::from(nth))
        }));
    }

    /// Appends one operation. The caller has checked the lengths.
    #[inline]
    pub fn push(&mut self, keyspace: KeyspaceId, op: Op<'_>) {
        self.complete();
        let out = &mut self.bytes;
        let code = match op {
            Op::Log(op) => op.code,
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
            Op::Log(op) => out.extend_from_slice(op.body),
        }
        self.count += 1;
        self.puts += u32::from(code == PUT || code == entries::APPEND);
    }

    /// Makes the operations on keyspace `from` operations on `to`.
    pub fn redirect(&mut self, from: KeyspaceId, to: KeyspaceId) -> Result<()> {
        self.complete();
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

impl OnLogs {
    fn close(&mut self, bytes: &mut Vec<u8>) {
        if let Some(op) = self.ops.last().filter(|_| self.open) {
            self.builder.close(bytes, op.at);
            self.open = false;
        }
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

impl Decode<'_> {
    /// Where the operation that comes next begins.
    #[inline]
    pub fn at(&self) -> usize {
        self.reader.at()
    }
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
        code => Op::Log(decode_log(r, code)?),
    };
    Ok((keyspace, op))
}

/// Not part of the way that puts take.
#[inline(never)]
fn decode_log<'a>(r: &mut Reader<'a>, code: u8) -> Result<LogOp<'a>> {
    if !(entries::APPEND..=entries::REMOVE).contains(&code) {
        return Err(Error::corruption(format!("unknown operation {code} in a batch")));
    }
    let len = LogOp::len(code, r.rest())?;
    Ok(LogOp { code, body: r.take(len)? })
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
            Ok((ks, Op::Log(op))) => {
                dump.field(5, format_args!("log operation {} on {ks}: {}", op.code, entries::describe(&op)));
                entries::dump(dump, &op);
                at = ops.reader.at();
                continue;
            }
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

    /// Appends one after another to one log are one operation, until anything else comes.
    #[test]
    fn entries_of_one_log_are_gathered() {
        let (a, b) = (KeyspaceId(1), KeyspaceId(2));
        let mut ops = Ops::default();
        ops.append(a, 7, Some(5), 1, b"five");
        ops.append(a, 7, Some(6), 1, b"six");
        ops.append(a, 7, None, 2, b"seven");
        ops.append(a, 7, Some(9), 2, b"a hole");
        ops.append(b, 7, None, 2, b"pushed");
        ops.append(b, 7, None, 2, b"");
        let size = ops.size();
        ops.complete();
        assert_eq!((ops.size(), ops.count()), (size, 3));
        ops.cut(a, 7, entries::PURGE, Some(Cut { at: 6, tag: None }));
        ops.push(a, Op::Delete { key: b"k" });
        ops.cut(b, 8, entries::REMOVE, None);
        ops.bind(0, 77).unwrap();
        ops.bind(2, 30).unwrap();
        ops.bind(2, 31).unwrap();
        ops.set_tag(3, Cut { at: 6, tag: Some(1) });
        assert!(ops.bind(2, u64::MAX).unwrap_err().is_conflict());
        let mut pushed = Vec::new();
        ops.pushed(&mut pushed);
        assert_eq!(pushed, [7, 31, 32]);
        let back: Vec<_> = decode(ops.bytes()).collect::<Result<_>>().unwrap();
        let said: Vec<String> = back
            .iter()
            .map(|(ks, op)| match op {
                Op::Log(op) => {
                    op.check().unwrap();
                    format!("{ks}: {}", entries::describe(op))
                }
                op => format!("{ks}: {op:?}"),
            })
            .collect();
        assert_eq!(
            said,
            [
                "1: entries 5..8 of log 7, 2 x tag 1, 1 x tag 2",
                "1: entries 9..10 of log 7, 1 x tag 2",
                "2: entries 31..33 of log 7, 2 x tag 2",
                "1: log 7 purged before 6, tag 1 before",
                "1: Delete { key: [107] }",
                "2: log 8 removed",
            ]
        );
        let on: Vec<u32> = ops.on_logs().iter().map(|op| op.nth).collect();
        assert_eq!(on, [0, 1, 2, 3, 5]);
        ops.clear();
        assert!(ops.on_logs().is_empty() && ops.only_take_away());
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
