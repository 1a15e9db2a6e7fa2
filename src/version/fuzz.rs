//! The fuzz target for the manifest: edits, states, and the file that keeps them.

use crate::choices::{Choices, edit, hurt};
use crate::fs::names::Name;
use crate::fs::sim::SimFs;
use crate::fuzz::{damage, seal_record};
use crate::ids::{FileNo, KeyspaceId, Position, Seq};
use crate::record;
use crate::version::edit::{Change, Counters, Edit};
use crate::version::levels::TableMeta;
use crate::version::manifest::{Manifest, parse};
use crate::version::state::State;
use std::path::Path;

pub(super) const NO: FileNo = FileNo(40);
pub(super) const SALT: u64 = 0x5a17_0000_0000_0001;
/// Where the records start.
pub(super) const RECORDS: usize = 4096;

/// A manifest as it stands in its file.
pub(super) struct Written {
    pub bytes: Vec<u8>,
    /// The state of the snapshot, then that after each edit.
    pub states: Vec<State>,
    /// Where each record ends.
    pub ends: Vec<usize>,
}

/// Edits that add up or are refused, in a manifest that is whole, damaged, or valid in each of its
/// checksums and wrong in what it says.
pub fn manifest(data: &[u8]) {
    let mut input = Choices::new(data);
    let how = input.byte() % 8;
    if how == 0 {
        return payload(&mut input);
    }
    let written = write(&mut input);
    let Written { bytes, states, ends } = &written;
    let last = states.len() - 1;
    assert_eq!(parse(bytes, NO).expect("what was written"), Some((states[last].clone(), None)));
    let mut bytes = bytes.clone();
    // Where the records are, more than their headers, and the header's two copies.
    let hot = [RECORDS..ends[last] + 8, RECORDS..ends[0], 0..64, RECORDS / 2..RECORDS / 2 + 64];
    match how {
        1 => {}
        2 | 3 => {
            let before = bytes.clone();
            let (at, burst) = hurt(&mut input, &mut bytes, &hot);
            if bytes != before {
                written.judge(&bytes, at, burst);
            }
        }
        4 => {
            bytes.truncate(RECORDS);
            bytes.extend_from_slice(input.rest());
            seal(&mut bytes);
            any(&bytes);
        }
        _ => {
            edit(&mut input, &mut bytes, &hot);
            seal(&mut bytes);
            any(&bytes);
        }
    }
}

/// Any bytes as an edit, and as a snapshot: what can be read is written as something that reads the
/// same.
fn payload(input: &mut Choices<'_>) {
    let (number, count, snapshot) = (input.number(), input.below(32) as u32, input.one_in(2));
    let bytes = input.rest();
    if snapshot {
        if let Some(state) = damage(State::decode(bytes, number, count)) {
            same_again(&state);
        }
    } else if let Some((counters, edit)) = damage(Edit::decode(bytes, number, count)) {
        let mut again = Vec::new();
        edit.encode(&mut again, counters);
        assert_eq!(Edit::decode(&again, number, count).expect("what was written"), (counters, edit));
    }
}

/// The state says of itself what it is.
fn same_again(state: &State) {
    let mut payload = Vec::new();
    let count = state.encode(&mut payload) as u32;
    assert!(State::decode(&payload, state.edit, count).expect("what was written") == *state);
    for k in state.keyspaces.values() {
        k.levels.check().expect("levels that were accepted");
    }
}

/// Few files, keyspaces and keys, so that they meet.
fn change(input: &mut Choices<'_>) -> Change {
    let keyspace = KeyspaceId(1 + input.below(3) as u32);
    let no = FileNo(1 + input.below(36) as u64);
    match input.byte() % 18 {
        0..6 => {
            let (start, len) = (input.below(26) as u8, input.byte() % 6);
            let end = (len < 5).then(|| vec![b'a' + start + len].into());
            let table = TableMeta {
                no,
                id: input.number(),
                size: input.number(),
                smallest: vec![b'a' + start].into(),
                end,
                min_seq: Seq::ZERO.plus(input.below(40) as u64),
                max_seq: Seq::ZERO.plus(input.below(80) as u64),
                entries: input.number(),
                deletes: 3,
                range_deletes: 0,
                raw_bytes: 9,
                superseded: 1,
                dense: input.one_in(2),
            };
            let (level, run) = (input.below(9) as u8, Seq::ZERO.plus(input.below(60) as u64));
            Change::AddTable { keyspace, level, run, table }
        }
        6..9 => Change::RemoveTable { keyspace, level: input.below(9) as u8, no },
        9 | 10 => Change::Flushed { keyspace, seq: Seq::ZERO.plus(input.below(100) as u64) },
        11 => Change::DropKeyspace { keyspace },
        12 | 13 => Change::SegmentAnnounced { no, salt: input.number() },
        14 => {
            let start = input.number() >> 1;
            let end = start.saturating_add(input.below(1 << 12) as u64);
            Change::SegmentSealed { no, start: Position(start), end: Position(end) }
        }
        15 => Change::SegmentForLogs { no },
        16 => Change::ColdSegment { no, salt: input.number(), len: input.number() },
        _ => Change::SegmentGone { no },
    }
}

/// Makes an edit and, unless it is refused, applies it. A refused one changes nothing.
fn next(input: &mut Choices<'_>, state: &mut State) -> Option<(Counters, Edit)> {
    let changes = (0..1 + input.below(6)).map(|_| change(input)).collect();
    let durable = Position(state.durable.0.saturating_add(input.below(256) as u64));
    let last_seq = state.last_seq.plus(input.below(256) as u64);
    let edit = Edit { durable, last_seq, changes };
    let counters = Counters { next_file: FileNo(60), next_keyspace: 9, ..state.next_counters() };
    let before = state.clone();
    match damage(state.apply(counters, &edit)) {
        Some(()) => Some((counters, edit)),
        None => {
            assert!(*state == before, "an edit that is refused changes nothing");
            None
        }
    }
}

fn write(input: &mut Choices<'_>) -> Written {
    let fs = SimFs::new(1);
    let mut state = State::new(77);
    for _ in 0..input.below(3) {
        next(input, &mut state);
    }
    state.saw_file(NO).expect("a small number");
    let mut m = Manifest::create(&fs, Path::new("/"), NO, SALT, &state).expect("a good disk");
    let (mut states, mut ends) = (vec![state.clone()], vec![m.bytes() as usize]);
    for _ in 0..input.below(8) {
        let Some((counters, edit)) = next(input, &mut state) else { continue };
        m.append(counters, &edit).expect("a good disk");
        states.push(state.clone());
        ends.push(m.bytes() as usize);
    }
    states.iter().for_each(same_again);
    let bytes = fs.read(Name::Manifest(NO).path(Path::new("/"))).expect("a good disk");
    shrink(Written { bytes, states, ends })
}

/// The same with hardly any space behind the last edit, so that it is read faster.
fn shrink(w: Written) -> Written {
    let space = w.ends[w.ends.len() - 1] + 200;
    let mut bytes = w.bytes[..RECORDS].to_vec();
    for _ in &w.ends {
        let at = bytes.len();
        let (head, payload) = record::decode(SALT, at as u64, &w.bytes[at..]).expect("a record");
        let mut payload = payload.to_vec();
        payload[..8].copy_from_slice(&(space as u64).to_le_bytes());
        record::encode(&mut bytes, SALT, at as u64, head.meta, &payload);
    }
    bytes.resize(space, 0);
    Written { bytes, ..w }
}

impl Written {
    /// One piece of damage from `at` on: an error, or a state that was. The last edit may be taken
    /// for one that was never acknowledged, what was before it only if nothing behind it is left.
    fn judge(&self, bytes: &[u8], at: usize, burst: bool) {
        let found = match parse(bytes, NO) {
            Ok(found) => found,
            Err((_, e)) => return assert!(e.is_corruption(), "{e:?}"),
        };
        let Some((state, torn)) = found else {
            // Where no edit is left, nothing says that the snapshot was ever complete.
            let gone = at < self.ends[0] + record::HEADER_LEN && (self.ends.len() == 1 || !burst);
            assert!(gone, "the snapshot is gone");
            return;
        };
        let which = self.states.iter().rposition(|s| *s == state).expect("a state that was");
        let whole = self.ends.iter().filter(|&&end| end <= at).count();
        let last = self.states.len() - 1;
        // Zeros stand where nothing was written yet.
        let blank = bytes[self.ends[which]..].iter().all(|&b| b == 0);
        assert!(which == last || torn.is_some() || blank && !burst, "edits are missing without a word");
        assert!(which + 1 >= whole, "edits are missing before the damage");
        assert!(!burst || which + 1 >= last, "one burst takes more than the last edit");
    }
}

/// Makes the checksums of all records right, as far as their lengths lead.
fn seal(bytes: &mut [u8]) {
    let mut at = RECORDS;
    while let Some(end) = seal_record(bytes, SALT, at) {
        at = end;
    }
}

/// What is accepted is a state like any other.
fn any(bytes: &[u8]) {
    match parse(bytes, NO) {
        Ok(Some((state, _))) => same_again(&state),
        Ok(None) => {}
        // A version of the future, perhaps.
        Err((_, e)) => assert!(e.is_corruption() || e.kind() == crate::error::ErrorKind::Invalid, "{e:?}"),
    }
}
