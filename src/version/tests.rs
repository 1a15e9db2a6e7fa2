//! Edits and states, and manifests that were damaged on purpose.

use super::edit::{Change, Counters, Edit};
use super::levels::TableMeta;
use super::state::{SegmentState, State};
use crate::error::Result;
use crate::ids::{FileNo, KeyspaceId, Position, Seq};
use std::collections::BTreeMap;

mod crash;
mod manifest;

fn seq(n: u64) -> Seq {
    Seq::new(n).unwrap()
}

/// One change per line, or divided by `;`:
/// `+k1 L0@9 7[a-c)`, `-k1 L0 7`, `flushed k1 9`, `drop k1`, `announce 3`, `seal 3 0 100`, `gone 3`.
fn edit(text: &str) -> Edit {
    let mut edit = Edit { durable: Position(5000), last_seq: seq(500), changes: Vec::new() };
    let keyspace = |word: &str| KeyspaceId(word.trim_start_matches(['+', '-', 'k']).parse().unwrap());
    let number = |word: &str| word.parse::<u64>().unwrap();
    let level = |word: &str| word.trim_start_matches('L').parse::<u8>().unwrap();
    for line in text.split([';', '\n']).map(str::trim).filter(|l| !l.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        edit.changes.push(match words[..] {
            ["flushed", k, n] => Change::Flushed { keyspace: keyspace(k), seq: seq(number(n)) },
            ["drop", k] => Change::DropKeyspace { keyspace: keyspace(k) },
            ["announce", no] => Change::SegmentAnnounced { no: FileNo(number(no)), salt: !number(no) },
            ["seal", no, start, end] => Change::SegmentSealed {
                no: FileNo(number(no)),
                start: Position(number(start)),
                end: Position(number(end)),
            },
            ["gone", no] => Change::SegmentGone { no: FileNo(number(no)) },
            ["for-logs", no] => Change::SegmentForLogs { no: FileNo(number(no)) },
            ["cold", no, len] => {
                Change::ColdSegment { no: FileNo(number(no)), salt: !number(no), len: number(len) }
            }
            [k, place, table] if k.starts_with('+') => {
                let (l, age) = place.split_once('@').unwrap();
                let (level, run, table) = (level(l), seq(number(age)), TableMeta::parse(table));
                Change::AddTable { keyspace: keyspace(k), level, run, table }
            }
            [k, l, no] if k.starts_with('-') => {
                Change::RemoveTable { keyspace: keyspace(k), level: level(l), no: FileNo(number(no)) }
            }
            _ => panic!("{line}"),
        });
    }
    edit
}

fn next(state: &State) -> Counters {
    Counters { number: state.edit + 1, next_file: FileNo(1000), next_keyspace: 10 }
}

fn state(edits: &[&str]) -> Result<State> {
    let mut state = State::new(77);
    for text in edits {
        state.apply(next(&state), &edit(text))?;
    }
    Ok(state)
}

fn show(state: &State) -> String {
    let mut text = String::new();
    for (id, k) in &state.keyspaces {
        text += &format!("k{id} flushed {}\n{:?}", k.flushed, k.levels);
    }
    for (no, segment) in &state.segments {
        text += &match segment {
            SegmentState::Announced { .. } => format!("segment {}\n", no.0),
            SegmentState::Sealed { start, end, .. } => format!("segment {} {start}..{end}\n", no.0),
            SegmentState::ForLogs { start, end, .. } => {
                format!("segment {} {start}..{end} for logs\n", no.0)
            }
            SegmentState::Cold { len, .. } => format!("segment {} of {len} bytes, cold\n", no.0),
        };
    }
    text
}

/// All that should hold of a state, asked of the whole.
fn check(state: &State) {
    let mut files = BTreeMap::new();
    for (&id, k) in &state.keyspaces {
        k.levels.check().unwrap();
        for (level, table) in k.levels.tables() {
            assert_eq!(files.insert(table.no, (id, level, table.clone())), None);
        }
    }
    assert!(state.tables().eq(files.keys().copied()));
    for (no, (id, level, table)) in &files {
        assert_eq!(state.table(*no), Some((*id, *level, table)));
        assert!(*no < state.next_file && !state.segments.contains_key(no));
    }
}

#[test]
fn edits_add_up() {
    let s = state(&[
        "+k1 L0@9 7[a-c); +k1 L0@9 8[c-d); flushed k1 9; announce 3",
        "+k1 L0@12 9[b-..); flushed k1 12; +k2 L0@11 10[x-y); flushed k2 11; seal 3 0 100; announce 4",
        // Listed the wrong way round on purpose: what goes makes room for what comes.
        "+k1 L1@0 7[a-c); +k1 L1@0 11[c-d); -k1 L0 7; -k1 L0 8; drop k2; gone 3; seal 4 100 100",
    ])
    .unwrap();
    check(&s);
    assert_eq!(show(&s), "k1 flushed 12\nL0 age 12: 9[b-..)\nL1 age 0: 7[a-c) 11[c-d)\nsegment 4 100..100\n");
    assert_eq!((s.edit, s.durable, s.last_seq), (3, Position(5000), seq(500)));
}

#[test]
fn what_contradicts_the_state_is_refused_wholly() {
    let before = ["+k1 L0@9 7[a-c); flushed k1 9; announce 3; announce 4; seal 4 5 9; flushed k2 7"];
    let good = state(&before).unwrap();
    for (bad, why) in [
        ("-k1 L0 8", "no table 000008"),
        ("-k1 L1 7", "no table 000007"),
        ("-k2 L0 7", "no table 000007"),
        ("-k1 L0 7; -k1 L0 7", "no table 000007"),
        ("-k1 L0 7; drop k1; drop k9; -k1 L0 7", "no table 000007"),
        ("+k1 L0@9 8[b-d)", "overlaps"),
        ("+k1 L0@10 8[b-d); +k1 L0@10 9[c-..)", "overlaps"),
        ("+k1 L0@10 7[x-y)", "twice"),
        ("+k1 L0@10 3[x-y)", "twice"),
        ("+k1 L0@10 8[x-y); +k1 L1@10 8[x-y)", "twice"),
        ("announce 7", "twice"),
        ("announce 8; +k1 L0@10 8[x-y)", "twice"),
        ("+k1 L8@10 8[x-y)", "level 8"),
        ("+k1 L0@10 8[y-x)", "reversed"),
        ("+k1 L0@10 501[x-y)", "durable"),
        ("+k1 L0@10 1000[x-y)", "never given"),
        ("+k3 L0@10 8[x-y)", "not known"),
        ("-k1 L0 7; drop k1; +k1 L0@10 8[x-y)", "not known"),
        ("drop k1; flushed k1 10", "dropped and flushed"),
        ("flushed k1 8", "further before"),
        ("flushed k1 501", "not durable"),
        ("flushed k10 5", "never given out"),
        ("announce 3", "twice"),
        ("announce 1000", "never given"),
        ("seal 5 0 1", "not announced"),
        ("seal 4 5 9", "sealed before"),
        ("seal 3 9 5", "reversed"),
        ("for-logs 3", "not sealed"),
        ("for-logs 4; for-logs 4", "not sealed"),
        ("cold 4 77", "twice"),
        ("gone 5", "not there"),
        ("gone 3; gone 3", "not there"),
    ] {
        // What stands before the bad change is taken back.
        for prefix in
            ["", "flushed k1 11; flushed k5 3; +k1 L2@0 20[a-b); announce 21;", "gone 4; drop k2; -k1 L0 7;"]
        {
            let mut s = good.clone();
            let error = s.apply(next(&s), &edit(&format!("{prefix}{bad}")));
            if prefix.is_empty() {
                let error = error.unwrap_err();
                assert!(error.is_corruption() && error.to_string().contains(why), "{bad}: {error}");
            } else if error.is_ok() {
                continue;
            }
            assert_eq!(s, good, "{prefix}{bad}");
        }
    }
}

#[test]
fn counters_only_go_on() {
    let good = state(&["flushed k1 9"]).unwrap();
    for (counters, why) in [
        (Counters { number: 1, ..next(&good) }, "edit 1 follows edit 1"),
        (Counters { number: 3, ..next(&good) }, "edit 3 follows edit 1"),
        (Counters { next_file: FileNo(999), ..next(&good) }, "go back"),
        (Counters { next_keyspace: 9, ..next(&good) }, "go back"),
        (Counters { next_file: FileNo(u64::MAX), ..next(&good) }, "beyond"),
    ] {
        let mut s = good.clone();
        let error = s.apply(counters, &edit("flushed k1 10")).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(s, good);
    }
    let mut s = good.clone();
    s.saw_file(FileNo(5)).unwrap();
    assert_eq!(s, good);
    s.saw_file(FileNo(1000)).unwrap();
    assert_eq!(s.next_file, FileNo(1001));
    assert!(s.saw_file(FileNo(u64::MAX)).is_err());
    // An edit built earlier does not take the journal's positions back.
    let old = Edit { durable: Position(1), last_seq: seq(1), changes: Vec::new() };
    s.apply(Counters { next_file: s.next_file, ..next(&s) }, &old).unwrap();
    assert_eq!((s.durable, s.last_seq, s.edit), (Position(5000), seq(500), 2));
}

#[test]
fn payloads_come_back_and_refuse_every_cut() {
    let text = "+k1 L0@9 7[a-c); +k1 L0@9 8[c-..):123456; -k1 L3 300; flushed k2 200; drop k300;
        announce 3; seal 3 0 100000; for-logs 3; cold 7 300; gone 3";
    let edit = Edit { last_seq: Seq::MAX, ..edit(text) };
    let counters = Counters { number: 9, next_file: FileNo(u64::MAX), next_keyspace: u32::MAX };
    let count = edit.changes.len() as u32;
    let mut bytes = Vec::new();
    edit.encode(&mut bytes, counters);
    assert_eq!(Edit::decode(&bytes, 9, count).unwrap(), (counters, edit));
    for cut in 0..bytes.len() {
        assert!(Edit::decode(&bytes[..cut], 9, count).unwrap_err().is_corruption(), "{cut}");
    }
    for count in [0, count - 1, count + 1, u32::MAX] {
        assert!(Edit::decode(&bytes, 9, count).unwrap_err().is_corruption(), "{count}");
    }
    for tag in [0, 10, 255] {
        let error = Edit::decode(&[5, 1, 0, 0, tag, 0, 0], 9, 1).unwrap_err();
        assert!(error.to_string().contains("unknown change"), "{error}");
    }
    // Hostile bytes that no checksum stops: an answer, whatever it is.
    let mut random = Random(3);
    for _ in 0..20_000 {
        let mut bad = bytes.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(bad.len() as u64) as usize;
            bad[at] = random.below(256) as u8;
        }
        if let Ok((counters, edit)) = Edit::decode(&bad, 1, count) {
            let _ = State::new(1).apply(counters, &edit);
        }
        let _ = State::decode(&bad, 1, count);
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.below(from.len() as u64) as usize])
    }

    fn table(&mut self, no: u64, max_seq: u64) -> TableMeta {
        let start = self.below(40);
        let end = start + 1 + self.below(10);
        let bounds = if end > 45 { format!("{start:02}-..") } else { format!("{start:02}-{end:02}") };
        let size = self.below(100_000);
        let (superseded, dense) = (no % 5 * 100, no.is_multiple_of(3));
        let table = TableMeta::parse(&format!("{no}[{bounds}):{size}"));
        TableMeta { max_seq: seq(max_seq), superseded, dense, ..table }
    }

    /// Something jobs might do to this state, or (seldom, unless `valid`) something they must not.
    /// `next` is where free file numbers begin.
    fn edit(&mut self, state: &State, next: &mut u64, valid: bool) -> Edit {
        let last = state.last_seq.get() + self.below(20);
        let durable = Position(state.durable.0 + self.below(3000));
        let mut edit = Edit { durable, last_seq: seq(last), changes: Vec::new() };
        for _ in 0..=self.below(3) {
            self.changes(state, next, last, &mut edit.changes);
            if valid
                && state
                    .clone()
                    .apply(Counters { next_file: FileNo(*next), ..state.next_counters() }, &edit)
                    .is_err()
            {
                edit.changes.clear();
            }
        }
        edit
    }

    fn changes(&mut self, state: &State, next: &mut u64, last: u64, out: &mut Vec<Change>) {
        let mut number = || {
            *next += 1;
            *next - 1
        };
        let keyspace = KeyspaceId(self.below(4) as u32);
        let tables: Vec<FileNo> = state.tables().collect();
        let segments: Vec<FileNo> = state.segments.keys().copied().collect();
        match self.below(8) {
            0..=2 => {
                let age = seq(last);
                out.push(Change::Flushed { keyspace, seq: age });
                for _ in 0..self.below(3) {
                    let table = self.table(number(), last);
                    out.push(Change::AddTable { keyspace, level: 0, run: age, table });
                }
            }
            3..=4 => {
                // A move, or a merge of one table into another of the same keys.
                let Some((keyspace, level, table)) = self.pick(&tables).and_then(|no| state.table(no)) else {
                    return;
                };
                out.push(Change::RemoveTable { keyspace, level, no: table.no });
                let mut table = TableMeta::clone(table);
                if self.below(2) == 0 {
                    table.no = FileNo(number());
                }
                out.push(Change::AddTable {
                    keyspace,
                    level: level + self.below(2) as u8,
                    run: Seq::ZERO,
                    table,
                });
            }
            5 => out.push(Change::SegmentAnnounced { no: FileNo(number()), salt: number() }),
            6 => {
                let Some(no) = self.pick(&segments) else { return };
                out.push(match state.segments[&no] {
                    SegmentState::Announced { .. } => {
                        let start = self.below(5000);
                        Change::SegmentSealed {
                            no,
                            start: Position(start),
                            end: Position(start + self.below(99)),
                        }
                    }
                    SegmentState::Sealed { .. } if self.below(3) == 0 => Change::SegmentForLogs { no },
                    _ => Change::SegmentGone { no },
                });
                if self.below(4) == 0 {
                    out.push(Change::ColdSegment {
                        no: FileNo(number()),
                        salt: number(),
                        len: self.below(99),
                    });
                }
            }
            _ if self.below(6) == 0 => out.push(Change::DropKeyspace { keyspace }),
            _ => {}
        }
    }
}

#[test]
fn random_edits_keep_the_state_whole_and_can_be_taken_back() {
    let (mut made, mut refused) = (0, 0);
    for round in 0..40 {
        let mut random = Random(round);
        let mut s = State::new(5);
        let mut free = 1;
        for _ in 0..60 {
            let edit = random.edit(&s, &mut free, false);
            let counters = Counters { number: s.edit + 1, next_file: FileNo(free), next_keyspace: 4 };
            let before = s.clone();
            match s.change(counters, &edit) {
                Err(_) => refused += 1,
                Ok(undo) => {
                    made += 1;
                    check(&s);
                    let mut payload = Vec::new();
                    let count = s.encode(&mut payload) as u32;
                    assert_eq!(State::decode(&payload, s.edit, count).unwrap(), s);
                    let after = s.clone();
                    s.revert(undo);
                    assert_eq!(s, before);
                    s.apply(counters, &edit).unwrap();
                    assert_eq!(s, after);
                }
            }
            if s.edit == before.edit {
                assert_eq!(s, before);
            }
        }
    }
    assert!(made > 1000 && refused > 100, "{made} {refused}");
}
