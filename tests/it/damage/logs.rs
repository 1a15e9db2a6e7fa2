//! Logs at rest: where each of their entries lies, by the words of the format and the bytes as they were
//! written, and what must come of damage there. An entry whose bytes are not what was written fails its
//! read, with segment, offset, log and index; no other one does, bounds and tags stay what they were, and no
//! entry is taken for another.

use super::anatomy::{Line, Segment, kind};
use super::base::{Base, ENDS, End};
use super::counts::{Counts, Found};
use super::harm::{Change, Harm};
use super::shapes::{large_appends, logs, mapped_logs};
use crate::state::{Bytes, State, bounds_key, bounds_row, entry_key, entry_row};
use crate::world::{LOGS, Write};
use esker::{Db, Error, Log};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// An append, as it was written.
#[derive(Clone, Debug)]
pub struct Append {
    pub path: PathBuf,
    /// Where in the file it stands, from its log on.
    pub at: usize,
    log: u64,
    first: u64,
    /// Where each payload ends, counted from the first.
    ends: Vec<usize>,
    payloads: usize,
}

/// Bytes of an append before its payloads, and of each entry behind them.
const HEAD: usize = 28;
const PER_ENTRY: usize = 8;

/// What must become of a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Right,
    Fails,
    /// What is damaged only says how much else stands there.
    Either,
}

impl Append {
    /// Those in a segment.
    pub fn all(segment: &Segment, lines: &[Line]) -> Vec<Append> {
        let appends = lines.iter().filter(|line| line.1.starts_with("log operation 4 on "));
        appends.map(|line| Append::read(segment, line.0.unwrap() + 5)).collect()
    }

    fn read(segment: &Segment, at: usize) -> Append {
        let bytes = &segment.bytes[at..];
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let short = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let (count, payloads) = (short(16), short(24));
        let ends = (0..count).map(|i| short(HEAD + payloads + i * PER_ENTRY)).collect();
        Append { path: segment.path.clone(), at, log: long(0), first: long(8), ends, payloads }
    }

    /// Which of its entries this one is.
    fn nth(&self, log: u64, index: u64) -> Option<usize> {
        let nth = index.checked_sub(self.first).filter(|_| self.log == log)? as usize;
        (nth < self.ends.len()).then_some(nth)
    }

    fn payload(&self, nth: usize) -> Range<usize> {
        let start = nth.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.at + HEAD + start..self.at + HEAD + self.ends[nth]
    }

    /// What must become of a read of an entry, if the segment held `whole` and now holds `now`.
    fn fate(&self, nth: usize, whole: &[u8], now: &[u8]) -> Fate {
        let same = |range: Range<usize>| now.get(range.clone()) == whole.get(range);
        let slot = self.at + HEAD + self.payloads + nth * PER_ENTRY;
        let before = if nth > 0 { slot - PER_ENTRY..slot - PER_ENTRY + 4 } else { slot..slot };
        // Log and first index; how long all payloads are; and where this one lies, and its checksum.
        let needed =
            [self.at..self.at + 16, self.at + 24..self.at + 28, before, slot..slot + 8, self.payload(nth)];
        if !needed.into_iter().all(same) {
            return Fate::Fails;
        }
        // How many entries, and runs of tags.
        if same(self.at + 16..self.at + 24) { Fate::Right } else { Fate::Either }
    }
}

/// Entries as a state has them: log, index, tag and bytes.
fn entries(rows: &BTreeMap<Bytes, Bytes>) -> impl Iterator<Item = (u64, u64, u64, &[u8])> {
    rows.iter().filter_map(|(key, row)| {
        let (log, index) = std::str::from_utf8(key).unwrap().split_once('/')?;
        let colon = row.iter().position(|b| *b == b':').unwrap();
        let tag = std::str::from_utf8(&row[..colon]).unwrap().parse().unwrap();
        Some((log.parse().unwrap(), index.parse().unwrap(), tag, &row[colon + 1..]))
    })
}

/// The numbers of the logs that a state has.
fn numbers(rows: &BTreeMap<Bytes, Bytes>) -> Vec<u64> {
    let keys = rows.keys().filter_map(|key| std::str::from_utf8(key).unwrap().parse().ok());
    keys.collect()
}

impl Base {
    /// The append that an entry was written by, if it is in a segment that the manifest names.
    fn place(&self, log: u64, index: u64, bytes: &[u8]) -> Option<(&Append, usize)> {
        self.anatomy.appends.iter().find_map(|append| {
            let nth = append.nth(log, index)?;
            let file = self.anatomy.file(&append.path)?;
            (&file.bytes[append.payload(nth)] == bytes).then_some((append, nth))
        })
    }

    /// What must become of a read of this entry; and the append that it is part of, if that is not replayed:
    /// what is, was found whole when it was.
    fn fate(&self, changes: &[Change], log: u64, index: u64, bytes: &[u8]) -> (Fate, Option<&Append>) {
        let Some((append, nth)) = self.place(log, index, bytes) else { return (Fate::Right, None) };
        let not_replayed = self.anatomy.named.log_only.contains_key(&append.path);
        let Some((_, now)) = changes.iter().find(|c| c.0 == append.path).filter(|_| not_replayed) else {
            return (Fate::Right, None);
        };
        let whole = &self.anatomy.file(&append.path).unwrap().bytes;
        (append.fate(nth, whole, now.as_deref().unwrap_or_default()), Some(append))
    }

    /// Whether, as `rows` say, some entry cannot be read.
    pub fn harms_an_entry(&self, changes: &[Change], rows: &BTreeMap<Bytes, Bytes>) -> bool {
        let fates = entries(rows).map(|(log, index, _, bytes)| self.fate(changes, log, index, bytes).0);
        fates.into_iter().any(|fate| fate == Fate::Fails)
    }

    /// Reads all logs, of which something cannot be read. `says` is told of every error.
    pub fn read_logs(
        &self,
        db: &Db,
        changes: &[Change],
        rows: &BTreeMap<Bytes, Bytes>,
        says: &dyn Fn(&Error),
    ) {
        let logs = db.logs(LOGS).unwrap();
        for id in numbers(rows) {
            let log = logs.log(id);
            match log.bounds() {
                Ok(bounds) => {
                    let before = bounds.start.checked_sub(1).and_then(|i| log.tag(i).unwrap());
                    assert_eq!(bounds_row(bounds.start, bounds.end, before), rows[&bounds_key(id)]);
                    walks(&log, bounds, rows, says);
                }
                Err(e) => says(&e),
            }
        }
        for (id, index, tag, bytes) in entries(rows) {
            let log = logs.log(id);
            match log.tag(index) {
                Ok(found) => assert_eq!(found, Some(tag), "entry {index} of log {id}"),
                Err(e) => says(&e),
            }
            let (fate, append) = self.fate(changes, id, index, bytes);
            match log.get(index) {
                Ok(found) => {
                    let found = found.unwrap_or_else(|| panic!("log {id} has become shorter"));
                    assert!(found.tag() == tag && found.bytes() == bytes, "entry {index} of log {id}");
                    assert_ne!(fate, Fate::Fails, "entry {index} of log {id} is damaged, and shown");
                }
                Err(e) => {
                    says(&e);
                    if let Some(append) = append {
                        assert_ne!(fate, Fate::Right, "entry {index} of log {id} is as it was: {e}");
                        let place = (e.file(), e.offset());
                        assert_eq!(place, (Some(&*append.path), Some(append.at as u64)), "{e}");
                        let said = e.to_string();
                        assert!(said.contains(&format!("entry {index} of log {id}")), "{said}");
                    }
                }
            }
        }
    }
}

/// From both ends up to what cannot be read: nothing is left out, nothing else shown, and then it is over.
fn walks(log: &Log, bounds: Range<u64>, rows: &BTreeMap<Bytes, Bytes>, says: &dyn Fn(&Error)) {
    for back in [false, true] {
        let (mut walk, mut left) = (log.range(..), bounds.clone());
        loop {
            let (entry, index) =
                if back { (walk.next_back(), left.next_back()) } else { (walk.next(), left.next()) };
            match entry {
                None => break assert_eq!(index, None, "log {} has become shorter", log.id()),
                Some(Ok(entry)) => {
                    let row = entry_row(entry.tag(), entry.bytes());
                    assert_eq!(Some(entry.index()), index);
                    assert!(rows[&entry_key(log.id(), entry.index())] == row, "{index:?} of {log:?}");
                }
                Some(Err(e)) => {
                    says(&e);
                    break assert!(walk.next().is_none() && walk.next_back().is_none(), "it goes on");
                }
            }
        }
    }
}

/// Whether all of these files are footers: what they say can be told from their segments.
pub fn are_footers(changes: &[Change]) -> bool {
    changes.iter().all(|(path, _)| kind(path) == "footer")
}

/// More entries for every log, and then half as many of all but the first: survivors have to move.
pub fn writes_to_logs(state: &State) -> Vec<Write> {
    let Some(rows) = state.get(LOGS) else { return Vec::new() };
    let push = |log| Write::Push(log, 9, b"harmless".to_vec());
    let half = |log| Write::Keep(log, entries(rows).filter(|e| e.0 == log).count() as u64 / 2);
    let logs = numbers(rows);
    logs.iter().map(|&log| push(log)).chain(logs.iter().skip(1).map(|&log| half(log))).collect()
}

/// Every `stride`-th byte of what only logs need, and of their footers, with a bit of it flipped.
fn bytes_of_logs(base: &Base, stride: usize, counts: &mut Counts) {
    for (i, file) in base.anatomy.files.iter().enumerate() {
        let path = file.path.with_extension("journal");
        let Some(segment) = base.anatomy.named.log_only.get(&path) else { continue };
        let len = if kind(&file.path) == "footer" { file.bytes.len() } else { segment.len as usize };
        let places = (0..len).filter(|&at| !["not looked at", "never written"].contains(&file.what(at)));
        for at in places.skip((97 * i) % stride.min(len)).step_by(stride) {
            base.judge(&Harm::Flip(i, at * 8 + at % 8), counts);
        }
    }
}

fn stride(or: usize) -> usize {
    std::env::var("ESKER_DAMAGE_STRIDE").map_or(or, |n| n.parse().expect("a number")).max(1)
}

fn bytes_of_all_logs(stride: usize) {
    let mut all = Counts::default();
    let small = ENDS.into_iter().flat_map(|end| [logs(end), mapped_logs(end)]).map(|base| (base, stride));
    // Most of it is the payloads.
    let large = [End::Killed, End::PowerLoss].map(|end| (large_appends(end), stride * 16));
    for (base, stride) in small.chain(large) {
        let mut counts = Counts::default();
        bytes_of_logs(&base, stride, &mut counts);
        assert!(counts.of(Found::Read) > 0, "{}: {counts}", base.name);
        assert_eq!(counts.of(Found::Open) + counts.of(Found::Residue), 0, "{}: {counts}", base.name);
        all.merge(counts);
    }
    println!("{all}");
}

#[test]
fn damaged_entries_are_told_one_by_one() {
    bytes_of_all_logs(stride(3989));
}

#[test]
#[ignore = "takes long"]
fn every_byte_of_logs_is_told_or_does_nothing() {
    bytes_of_all_logs(stride(1));
}

/// Where an operation says which is its first entry, and says one more or one less: each of its entries is
/// whole, and would pass for the one beside it.
#[test]
fn no_entry_passes_for_its_neighbour() {
    let base = logs(End::Killed);
    let mut counts = Counts::default();
    for append in base.anatomy.appends.iter().filter(|append| append.ends.len() > 1) {
        let file = base.anatomy.files.iter().position(|f| f.path == append.path).unwrap();
        base.judge(&Harm::Flip(file, (append.at + 8) * 8), &mut counts);
    }
    assert!(counts.of(Found::Read) > 3, "{counts}");
}

/// The control: entries lie in every kind of place there is, each in one.
#[test]
fn entries_lie_everywhere() {
    for end in ENDS {
        for base in [logs(end), mapped_logs(end), large_appends(end)] {
            let rows = &base.states[base.there][LOGS];
            let (mut tail, mut kept, mut cold, mut large) = (0, 0, 0, 0);
            for (log, index, _, bytes) in entries(rows) {
                let (append, nth) = base.place(log, index, bytes).expect("a place");
                let twins =
                    base.anatomy.appends.iter().filter(|a| a.path == append.path && a.at != append.at);
                let twin = |a: &Append| a.nth(log, index).is_some_and(|n| a.payload(n).len() == bytes.len());
                assert!(twins.filter(|a| twin(a)).count() <= 1);
                match base.anatomy.named.log_only.get(&append.path) {
                    None => tail += 1,
                    Some(segment) if segment.cold => cold += 1,
                    Some(_) => kept += 1,
                }
                large += usize::from(append.payloads > 64 << 10 && nth > 0);
            }
            let logs = numbers(rows);
            assert!(logs.len() > 3 && tail > 0 && kept > 0, "{}: {tail}, {kept}, {cold}", base.name);
            assert!(cold > 0 || large > 0, "{}: {cold}, {large}", base.name);
            let unharmed = Path::new("no file").to_path_buf();
            assert!(!base.harms_an_entry(&[(unharmed, None)], rows));
        }
    }
    assert!(large_appends(End::Killed).name.contains("large"));
}
