//! Log operations as they stand in a batch: entries with their tags and checksums, and cuts.
//!
//! # Format
//!
//! Behind code and keyspace, as `batch` says, stands the log (u64) and then, by code:
//!
//! ```text
//!  4 append    first index u64 | count u32 | runs u32 | bytes u32 | payloads, `bytes` in all
//!              | for each entry: where it ends in the payloads u32, checksum u32
//!              | for each run of entries of one tag: entries u32, tag u64
//!  5 truncate  from u64   | tag of the entry before, as below: `first..from` stay
//!  6 purge     before u64 | likewise: `before..next` stay
//!  7 reset     first u64  | likewise: nothing stays, the next index is `first`
//!  8 remove    -
//! tag: 0 u8 | 0 u64 (not known), or 1 u8 | tag u64
//! ```
//!
//! An entry's checksum is the crc32 of its bytes, exclusive-or a hash of log and index, so that one
//! that is whole and stands for another is not taken for it; and an index that is known at the commit
//! only costs no second look at the bytes. Index and tag have a fixed width, so that the commit can put
//! them in. The tag of a cut stands in it, so that whoever replays it need not look for the entry.

use crate::coding::{u32_at, u64_at};
use crate::dump::{Dump, text};
use crate::error::{Error, Result};
use crate::mutant::Mutant;
use std::ops::Range;

pub(crate) const APPEND: u8 = 4;
pub(crate) const TRUNCATE: u8 = 5;
pub(crate) const PURGE: u8 = 6;
pub(crate) const RESET: u8 = 7;
pub(crate) const REMOVE: u8 = 8;

/// Bytes of an append before its payloads, from its log on.
pub(crate) const APPEND_HEAD: usize = 28;
/// Bytes of an entry beside its payload.
pub(crate) const PER_ENTRY: usize = 8;
/// Bytes of a run.
pub(crate) const PER_RUN: usize = 12;
/// Bytes of a cut, from its log on.
const CUT: usize = 25;

/// A log operation, not looked into yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LogOp<'a> {
    pub code: u8,
    /// From the log on.
    pub body: &'a [u8],
}

/// What a log operation does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verb<'a> {
    Append(Entries<'a>),
    Truncate(Cut),
    Purge(Cut),
    Reset(Cut),
    Remove,
}

/// Where a log is cut, and the tag of the entry before that, if it is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cut {
    pub at: u64,
    pub tag: Option<u64>,
}

/// Entries that are appended together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entries<'a> {
    pub log: u64,
    pub first: u64,
    pub count: u32,
    payloads: &'a [u8],
    table: &'a [u8],
    runs: &'a [u8],
}

/// What binds an entry's checksum to its place.
#[inline]
pub(crate) fn place(log: u64, index: u64) -> u32 {
    if Mutant::EntryAnywhere.on() {
        return 0;
    }
    // Two rounds of splitmix64's mixer: neighbouring logs and indexes share no pattern.
    let mut x = log.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ index.wrapping_add(0x632b_e59b_d9b4_e019);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) as u32
}

/// The numbers at the head of an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AppendHead {
    pub log: u64,
    pub first: u64,
    pub count: u32,
    pub runs: u32,
    pub bytes: u32,
}

impl AppendHead {
    /// Of the bytes from the log on; an error if it cannot be.
    pub fn read(body: &[u8]) -> Result<AppendHead> {
        let read = || {
            Some(AppendHead {
                log: u64_at(body, 0)?,
                first: u64_at(body, 8)?,
                count: u32_at(body, 16)?,
                runs: u32_at(body, 20)?,
                bytes: u32_at(body, 24)?,
            })
        };
        let head = read().ok_or_else(ends_early)?;
        let possible = head.count > 0
            && (1..=head.count).contains(&head.runs)
            && head.first.checked_add(u64::from(head.count)).is_some();
        if possible { Ok(head) } else { Err(malformed()) }
    }

    /// Where the table of entries stands, from the log on.
    pub fn table(&self) -> usize {
        APPEND_HEAD + self.bytes as usize
    }

    /// The bytes of the whole, from the log on.
    pub fn len(&self) -> usize {
        self.table() + self.count as usize * PER_ENTRY + self.runs as usize * PER_RUN
    }
}

impl<'a> LogOp<'a> {
    /// How many of `bytes`, which begin with the log, belong to an operation of this code.
    pub fn len(code: u8, bytes: &[u8]) -> Result<usize> {
        Ok(match code {
            APPEND => AppendHead::read(bytes)?.len(),
            REMOVE => 8,
            _ => CUT,
        })
    }

    pub fn log(&self) -> u64 {
        u64_at(self.body, 0).unwrap_or_default()
    }

    pub fn verb(&self) -> Result<Verb<'a>> {
        Ok(match self.code {
            APPEND => Verb::Append(Entries::read(self.body)?),
            TRUNCATE => Verb::Truncate(Cut::read(self.body)?),
            PURGE => Verb::Purge(Cut::read(self.body)?),
            RESET => Verb::Reset(Cut::read(self.body)?),
            REMOVE => Verb::Remove,
            code => return Err(Error::corruption(format!("unknown log operation {code}"))),
        })
    }

    /// The bytes a caller wrote.
    pub fn payload(&self) -> usize {
        if self.code != APPEND {
            return 0;
        }
        u32_at(self.body, 24).map_or(0, |n| n as usize)
    }

    /// An error unless everything in it is as it must be, the checksums of entries included.
    pub fn check(&self) -> Result<()> {
        self.check_shape()?;
        let Verb::Append(entries) = self.verb()? else { return Ok(()) };
        entries.walk(entries.first..entries.next())?.try_for_each(|entry| entry.map(drop))
    }

    /// An error unless its parts fit each other: what a checksum over all of it leaves to ask.
    pub fn check_shape(&self) -> Result<()> {
        let Verb::Append(entries) = self.verb()? else { return Ok(()) };
        let ends = entries.table.chunks_exact(PER_ENTRY).map(|slot| u32_at(slot, 0).unwrap_or_default());
        let full = ends.clone().next_back().map(|end| end as usize) == Some(entries.payloads.len());
        let covered: u64 = entries.runs().map(|(n, _)| u64::from(n)).sum();
        let covered = covered == u64::from(entries.count) && entries.runs().all(|(n, _)| n > 0);
        if covered && full && ends.is_sorted() { Ok(()) } else { Err(malformed()) }
    }
}

impl Cut {
    fn read(body: &[u8]) -> Result<Cut> {
        let read = || {
            let tag = match *body.get(16)? {
                0 => Some(None),
                1 => Some(Some(u64_at(body, 17)?)),
                _ => None,
            };
            Some((u64_at(body, 8)?, tag))
        };
        let (at, tag) = read().ok_or_else(ends_early)?;
        Ok(Cut { at, tag: tag.ok_or_else(malformed)? })
    }

    /// As it stands from the log on.
    pub fn encode(&self, log: u64) -> [u8; CUT] {
        let mut out = [0; CUT];
        out[..8].copy_from_slice(&log.to_le_bytes());
        out[8..16].copy_from_slice(&self.at.to_le_bytes());
        if let Some(tag) = self.tag {
            out[16] = 1;
            out[17..].copy_from_slice(&tag.to_le_bytes());
        }
        out
    }
}

impl<'a> Entries<'a> {
    /// The bytes from the log on.
    pub fn read(body: &'a [u8]) -> Result<Entries<'a>> {
        let head = AppendHead::read(body)?;
        let rest = body.get(APPEND_HEAD..head.len()).ok_or_else(ends_early)?;
        let split = rest.split_at_checked(head.bytes as usize);
        let (payloads, rest) = split.ok_or_else(ends_early)?;
        let (table, runs) = rest.split_at_checked(head.count as usize * PER_ENTRY).ok_or_else(ends_early)?;
        Ok(Entries { log: head.log, first: head.first, count: head.count, payloads, table, runs })
    }

    /// The bytes of the whole, from the log on.
    pub fn len(&self) -> usize {
        APPEND_HEAD + self.payloads.len() + self.table.len() + self.runs.len()
    }

    /// The index behind the last.
    pub fn next(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }

    /// Numbers of entries and their tag, in order.
    pub fn runs(&self) -> impl DoubleEndedIterator<Item = (u32, u64)> + 'a {
        let run = |r: &'a [u8]| (u32_at(r, 0).unwrap_or_default(), u64_at(r, 4).unwrap_or_default());
        self.runs.chunks_exact(PER_RUN).map(run)
    }

    /// The tag of the last entry.
    pub fn last_tag(&self) -> u64 {
        self.runs().next_back().map_or(0, |(_, tag)| tag)
    }

    /// The tag of the entry `index`.
    pub fn tag(&self, index: u64) -> Option<u64> {
        let mut left = index.checked_sub(self.first)?;
        for (n, tag) in self.runs() {
            match left.checked_sub(u64::from(n)) {
                Some(rest) => left = rest,
                None => return Some(tag),
            }
        }
        None
    }

    fn end_of(&self, i: u32) -> Option<usize> {
        u32_at(self.table, i as usize * PER_ENTRY).map(|end| end as usize)
    }

    /// The entries of these indexes, one after another: where each lies, from the log on, if it is what was
    /// written there. An error if one is not among those that were appended.
    pub fn walk(
        &self,
        indexes: Range<u64>,
    ) -> Result<impl Iterator<Item = Result<(u64, Range<usize>)>> + use<'a>> {
        let Entries { log, first, payloads, table, .. } = *self;
        if indexes.start < first || indexes.end > self.next() {
            return Err(misplaced(log, indexes.start));
        }
        let nth = (indexes.start - first) as usize;
        let mut start = match nth.checked_sub(1) {
            Some(before) => self.end_of(before as u32).ok_or_else(|| misplaced(log, indexes.start))?,
            None => 0,
        };
        let slots = table.get(nth * PER_ENTRY..).unwrap_or_default().chunks_exact(PER_ENTRY);
        Ok(slots.zip(indexes).map(move |(slot, index)| {
            let number = |at| u32_at(slot, at).unwrap_or_default();
            let (end, crc) = (number(0) as usize, number(4));
            let from = std::mem::replace(&mut start, end);
            let bytes = payloads.get(from..end).ok_or_else(|| misplaced(log, index))?;
            check(log, index, bytes, crc)?;
            Ok((index, APPEND_HEAD + from..APPEND_HEAD + end))
        }))
    }

    /// The bytes of the entry `index`, if they are what was written there.
    #[cfg(any(test, fuzzing))]
    pub fn checked(&self, index: u64) -> Result<&'a [u8]> {
        let missing = || misplaced(self.log, index);
        let (_, at) = self.walk(index..index.saturating_add(1))?.next().ok_or_else(missing)??;
        self.payloads.get(at.start - APPEND_HEAD..at.end - APPEND_HEAD).ok_or_else(missing)
    }
}

/// An error unless `bytes` are those of this entry.
#[inline]
pub(crate) fn check(log: u64, index: u64, bytes: &[u8], crc: u32) -> Result<()> {
    if crc32fast::hash(bytes) ^ place(log, index) == crc {
        return Ok(());
    }
    Err(Error::corruption(format!("the bytes of entry {index} of log {log} are not what was written")))
}

/// An append being built, at the end of a batch.
#[derive(Clone, Default, Debug)]
pub(crate) struct Builder {
    /// For each entry: where it ends, and the checksum.
    table: Vec<u8>,
    runs: Vec<(u32, u64)>,
    count: u32,
    bytes: u32,
}

impl Builder {
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The bytes that [`close`](Builder::close) will add.
    pub fn pending(&self) -> usize {
        self.table.len() + self.runs.len() * PER_RUN
    }

    /// The bytes that its buffers take.
    pub fn buffers(&self) -> usize {
        self.table.capacity() + size_of_val(&self.runs[..])
    }

    /// Begins an append of `log` at `first`: its head, to be completed.
    pub fn begin(&mut self, out: &mut Vec<u8>, log: u64, first: u64) {
        self.table.clear();
        self.runs.clear();
        (self.count, self.bytes) = (0, 0);
        out.extend_from_slice(&log.to_le_bytes());
        out.extend_from_slice(&first.to_le_bytes());
        out.extend_from_slice(&[0; 12]);
    }

    /// Whether one more entry of `len` bytes can be part of it.
    pub fn fits(&self, len: usize) -> bool {
        self.count < u32::MAX / 16 && (self.bytes as usize).saturating_add(len) <= u32::MAX as usize / 2
    }

    /// Adds an entry with its checksum, which [fits](Builder::fits).
    pub fn add(&mut self, out: &mut Vec<u8>, tag: u64, bytes: &[u8], checksum: u32) {
        out.extend_from_slice(bytes);
        self.bytes += bytes.len() as u32;
        self.count += 1;
        self.table.extend_from_slice(&self.bytes.to_le_bytes());
        self.table.extend_from_slice(&checksum.to_le_bytes());
        match self.runs.last_mut().filter(|run| run.1 == tag) {
            Some(run) => run.0 += 1,
            None => self.runs.push((1, tag)),
        }
    }

    /// Completes the append whose bytes from the log on start at `at`.
    pub fn close(&mut self, out: &mut Vec<u8>, at: usize) {
        out.extend_from_slice(&self.table);
        for (n, tag) in &self.runs {
            out.extend_from_slice(&n.to_le_bytes());
            out.extend_from_slice(&tag.to_le_bytes());
        }
        let head = [self.count, self.runs.len() as u32, self.bytes];
        for (to, n) in out[at + 16..at + APPEND_HEAD].chunks_exact_mut(4).zip(head) {
            to.copy_from_slice(&n.to_le_bytes());
        }
    }
}

/// Makes an append whose bytes from the log on are `body`, and whose entries are bound to the index
/// `old` (`None`: to none), one at `first`.
pub(crate) fn rebind(body: &mut [u8], old: Option<u64>, first: u64) -> Result<()> {
    body[8..16].copy_from_slice(&first.to_le_bytes());
    let head = AppendHead::read(body)?;
    let table = head.table();
    let table = body.get_mut(table..table + head.count as usize * PER_ENTRY).ok_or_else(ends_early)?;
    for (i, slot) in table.chunks_exact_mut(PER_ENTRY).enumerate() {
        let crc = u32_at(slot, 4).unwrap_or_default();
        let bound = old.map_or(0, |old| place(head.log, old.saturating_add(i as u64)));
        let crc = crc ^ bound ^ place(head.log, first + i as u64);
        slot[4..].copy_from_slice(&crc.to_le_bytes());
    }
    Ok(())
}

/// Says what the operation is, whose bytes come next.
pub(crate) fn describe(op: &LogOp<'_>) -> String {
    let log = op.log();
    let of =
        |cut: Cut| format!("{}{}", cut.at, cut.tag.map_or(String::new(), |t| format!(", tag {t} before")));
    match op.verb() {
        Ok(Verb::Append(e)) => {
            let tags: Vec<String> = e.runs().map(|(n, tag)| format!("{n} x tag {tag}")).collect();
            format!("entries {}..{} of log {log}, {}", e.first, e.next(), tags.join(", "))
        }
        Ok(Verb::Truncate(cut)) => format!("log {log} truncated from {}", of(cut)),
        Ok(Verb::Purge(cut)) => format!("log {log} purged before {}", of(cut)),
        Ok(Verb::Reset(cut)) => format!("log {log} reset to {}", of(cut)),
        Ok(Verb::Remove) => format!("log {log} removed"),
        Err(e) => e.to_string(),
    }
}

/// Shows the fields of an operation whose code and keyspace were shown as `what`.
pub(crate) fn dump(dump: &mut Dump<'_>, op: &LogOp<'_>) {
    let Ok(Verb::Append(e)) = op.verb() else {
        dump.field(op.body.len(), "log and cut");
        return;
    };
    dump.number(8, "log");
    dump.number(8, "first index");
    dump.number(4, "entries");
    dump.number(4, "runs");
    dump.number(4, "bytes of payloads");
    let mut at = 0;
    for i in 0..e.count {
        let end = e.end_of(i).unwrap_or_default().clamp(at, e.payloads.len());
        dump.field(
            end - at,
            format_args!("entry {}: {}", e.first + u64::from(i), text(&e.payloads[at..end])),
        );
        at = end;
    }
    dump.field(e.payloads.len() - at, "left over");
    for i in 0..e.count {
        dump.field(PER_ENTRY, format_args!("entry {}: end and checksum", e.first + u64::from(i)));
    }
    for (n, tag) in e.runs() {
        dump.field(PER_RUN, format_args!("{n} entries of tag {tag}"));
    }
}

/// An entry is not where it should be.
#[cold]
pub(crate) fn misplaced(log: u64, index: u64) -> Error {
    Error::corruption(format!("entry {index} of log {log} is not where it was written"))
}

#[cold]
fn ends_early() -> Error {
    Error::corruption("a log operation ends too early")
}

#[cold]
fn malformed() -> Error {
    Error::corruption("a log operation cannot be what it says")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two tags, three entries, bound to no index yet.
    fn body(first: u64) -> Vec<u8> {
        let (mut out, mut b) = (Vec::new(), Builder::default());
        b.begin(&mut out, 7, first);
        for (tag, bytes) in [(1, &b"one"[..]), (1, b""), (2, b"three")] {
            b.add(&mut out, tag, bytes, crc32fast::hash(bytes));
        }
        assert_eq!(b.pending(), 3 * PER_ENTRY + 2 * PER_RUN);
        b.close(&mut out, 0);
        out
    }

    #[test]
    fn entries_come_back_at_the_index_they_are_bound_to() {
        let mut body = body(0);
        rebind(&mut body, None, 10).unwrap();
        // A commit that had to begin anew.
        rebind(&mut body, Some(10), 40).unwrap();
        let op = LogOp { code: APPEND, body: &body };
        op.check().unwrap();
        assert_eq!((op.log(), op.payload(), LogOp::len(APPEND, &body).unwrap()), (7, 8, body.len()));
        let Verb::Append(e) = op.verb().unwrap() else { panic!() };
        assert_eq!((e.first, e.next(), e.last_tag()), (40, 43, 2));
        let walk = |indexes| e.walk(indexes).map(|entries| entries.map(Result::unwrap).collect::<Vec<_>>());
        let at = |from: usize, len: usize| APPEND_HEAD + from..APPEND_HEAD + from + len;
        let all = [(40, at(0, 3)), (41, at(3, 0)), (42, at(3, 5))];
        assert_eq!(&body[all[2].1.clone()], b"three");
        for (from, to) in [(0, 3), (0, 1), (1, 2), (1, 3), (2, 3)] {
            assert_eq!(walk(40 + from..40 + to).unwrap(), all[from as usize..to as usize]);
        }
        assert!(walk(39..41).is_err() && walk(42..44).is_err() && walk(43..44).is_err());
        assert_eq!([40, 41, 42, 43, 39].map(|i| e.tag(i)), [Some(1), Some(1), Some(2), None, None]);
        assert_eq!(e.len(), body.len());
        // The same bytes for another index or log are not taken.
        let mut moved = body.clone();
        moved[8] += 1;
        assert!(LogOp { code: APPEND, body: &moved }.check().unwrap_err().is_corruption());
        let mut other = body.clone();
        other[0] += 1;
        assert!(LogOp { code: APPEND, body: &other }.check().is_err());
        assert!(LogOp { code: APPEND, body: &other }.check_shape().is_ok());
    }

    #[test]
    fn hostile_bytes_are_errors() {
        let mut good = body(0);
        rebind(&mut good, None, 0).unwrap();
        for cut in 0..good.len() {
            assert!(LogOp { code: APPEND, body: &good[..cut] }.verb().is_err(), "cut {cut}");
        }
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let op = LogOp { code: APPEND, body: &bad };
            // Tags are under the record's checksum alone.
            let tags = good.len() - PER_RUN..good.len() - 8;
            let in_tag = bit / 8 >= tags.end || (tags.start - 8..tags.start).contains(&(bit / 8));
            assert!(op.check().is_err() || in_tag, "bit {bit}");
        }
        // The end of the first entry lies behind that of the second, that of the last beyond all.
        let table = APPEND_HEAD + 8;
        for (at, end) in [(table, 4), (table + 2 * PER_ENTRY, 9)] {
            let mut bad = good.clone();
            bad[at] = end;
            assert!(LogOp { code: APPEND, body: &bad }.check_shape().is_err());
        }
        let mut cut = Cut { at: 9, tag: Some(3) }.encode(1);
        assert_eq!(Cut::read(&cut).unwrap(), Cut { at: 9, tag: Some(3) });
        cut[16] = 2;
        assert!(LogOp { code: PURGE, body: &cut }.verb().is_err());
        assert!(LogOp { code: PURGE, body: &cut[..20] }.verb().is_err());
        assert!(LogOp { code: 77, body: &cut }.verb().is_err());
    }

    #[test]
    fn what_stands_beside_entries_is_little() {
        let (mut out, mut b) = (Vec::new(), Builder::default());
        b.begin(&mut out, 1, 0);
        for _ in 0..256 {
            b.add(&mut out, 1, &[7; 256], 0);
        }
        b.close(&mut out, 0);
        assert!(out.len() < 256 * 256 * 104 / 100, "{}", out.len());
    }
}
