//! What a database shows, and small options to make it show everything soon.

use esker::{Cursor, Db, Entry, Iter, Keyspace, Kind, Logs, Options};
use std::collections::BTreeMap;

pub type Bytes = Vec<u8>;
/// Everything a reader can see at one point: the keyspaces by name, each with its rows.
pub type State = BTreeMap<String, BTreeMap<Bytes, Bytes>>;

pub const SEGMENT_BYTES: u64 = 16 << 10;

/// Small everything, and no thread but the test's: a run is the same each time.
pub fn small() -> Options {
    Options::default()
        .workers(0)
        .memtable_bytes(4 << 10)
        .segment_bytes(SEGMENT_BYTES)
        .journal_bytes(64 << 10)
        .table_bytes(4 << 10)
        .cache_bytes(16 << 10)
        .mapped(false)
}

/// Everything the database shows, after checking that all ways to read agree.
pub fn state(db: &Db) -> State {
    try_state(db).unwrap()
}

/// As [`state`], where reading may fail. Ways to read that disagree are a panic all the same.
pub fn try_state(db: &Db) -> esker::Result<State> {
    let mut out = State::new();
    for (name, kind) in db.names()? {
        if kind == Kind::Logs {
            out.insert(name.clone(), log_rows(&db.logs(&name)?)?);
            continue;
        }
        let rows = try_rows(&db.keyspace(&name)?, &name)?;
        out.insert(name, rows.into_iter().collect());
    }
    Ok(out)
}

/// Logs as rows: bounds, and entries with their tags.
fn log_rows(logs: &Logs) -> esker::Result<BTreeMap<Bytes, Bytes>> {
    let mut rows = BTreeMap::new();
    for log in logs.iter() {
        let log = log?;
        let bounds = log.bounds()?;
        let before = bounds.start.checked_sub(1).map(|i| log.tag(i)).transpose()?.flatten();
        rows.insert(bounds_key(log.id()), bounds_row(bounds.start, bounds.end, before));
        for entry in log.range(..) {
            let entry = entry?;
            assert_eq!(log.tag(entry.index())?, Some(entry.tag()));
            assert_eq!(log.get(entry.index())?.as_ref(), Some(&entry));
            rows.insert(entry_key(log.id(), entry.index()), entry_row(entry.tag(), entry.bytes()));
        }
        let back = log.range(..).rev().collect::<esker::Result<Vec<_>>>()?;
        assert!(back.iter().rev().map(|e| e.index()).eq(bounds));
    }
    Ok(rows)
}

pub fn bounds_key(log: u64) -> Bytes {
    format!("{log:03}").into()
}

pub fn bounds_row(first: u64, next: u64, before: Option<u64>) -> Bytes {
    format!("{first}..{next} {before:?}").into()
}

pub fn entry_key(log: u64, index: u64) -> Bytes {
    format!("{log:03}/{index:06}").into()
}

pub fn entry_row(tag: u64, bytes: &[u8]) -> Bytes {
    [format!("{tag}:").as_bytes(), bytes].concat()
}

fn try_rows(keyspace: &Keyspace, name: &str) -> esker::Result<Vec<Row>> {
    let walks = Walks::take(keyspace)?;
    walks.agree().unwrap_or_else(|walk| panic!("{walk} of {name} is not the walk forward: {walks:?}"));
    let rows = walks.forward;
    for (key, value) in &rows {
        assert!(keyspace.get(key)?.as_deref() == Some(&value[..]), "get {key:?} of {name}");
        // Next to what is there nothing shows that was not walked over.
        let beside = [&key[..], b"\0"].concat();
        if rows.binary_search_by(|row| row.0.cmp(&beside)).is_err() {
            assert!(!keyspace.contains(&beside)?, "{beside:?} of {name} is not in the scan");
        }
    }
    Ok(rows)
}

pub type Row = (Bytes, Bytes);

/// All rows of a keyspace, as every way of walking shows them; each put into ascending order.
#[derive(Clone, PartialEq, Debug)]
pub struct Walks {
    pub forward: Vec<Row>,
    pub backward: Vec<Row>,
    /// From both ends in turns, until they meet.
    pub meeting: Vec<Row>,
    /// A cursor set down in the middle, taken to the end, and from there to the start.
    pub turning: Vec<Row>,
    /// Two ranges, up to the middle forward and from there on backward.
    pub halves: Vec<Row>,
}

impl Walks {
    fn take(keyspace: &Keyspace) -> esker::Result<Walks> {
        let forward = rows(keyspace.iter())?;
        let middle = forward.get(forward.len() / 2).map_or(&b""[..], |row| &row.0);
        let mut halves = rows(keyspace.range(middle..).rev())?;
        halves.extend(reversed(rows(keyspace.range(..middle))?));
        Ok(Walks {
            backward: reversed(rows(keyspace.iter().rev())?),
            meeting: meeting(keyspace.iter())?,
            turning: turning(keyspace.cursor(..), middle)?,
            halves: reversed(halves),
            forward,
        })
    }

    /// Or the name of one that differs.
    pub fn agree(&self) -> Result<(), &'static str> {
        let Walks { forward, backward, meeting, turning, halves } = self;
        let ascending = forward.is_sorted_by(|a, b| a.0 < b.0);
        let all = [("backward", backward), ("meeting", meeting), ("turning", turning), ("halves", halves)];
        match all.into_iter().find(|(_, walk)| *walk != forward) {
            Some((name, _)) => Err(name),
            None if !ascending => Err("what ascends"),
            None => Ok(()),
        }
    }
}

fn reversed(mut rows: Vec<Row>) -> Vec<Row> {
    rows.reverse();
    rows
}

fn row(entry: Entry) -> Row {
    (entry.key().to_vec(), entry.value().to_vec())
}

fn rows(walk: impl Iterator<Item = esker::Result<Entry>>) -> esker::Result<Vec<Row>> {
    walk.map(|entry| entry.map(row)).collect()
}

/// Two steps from the front for each from the back, with a change of pace where they meet.
fn meeting(mut walk: Iter) -> esker::Result<Vec<Row>> {
    let (mut front, mut back) = (Vec::new(), Vec::new());
    for turn in 0.. {
        let from_back = turn % 3 == 2;
        let entry = if from_back { walk.next_back() } else { walk.next() };
        let Some(entry) = entry else { break };
        if from_back { &mut back } else { &mut front }.push(row(entry?));
    }
    assert!(walk.next().is_none() && walk.next_back().is_none(), "it goes on behind its end");
    front.extend(reversed(back));
    Ok(front)
}

fn turning(mut cursor: Cursor, middle: &[u8]) -> esker::Result<Vec<Row>> {
    let (mut up, mut down) = (Vec::new(), Vec::new());
    cursor.seek(middle)?;
    while let Some((key, value)) = cursor.next()? {
        up.push((key.to_vec(), value.to_vec()));
    }
    while let Some((key, value)) = cursor.prev()? {
        down.push((key.to_vec(), value.to_vec()));
    }
    let down = reversed(down);
    if !down.ends_with(&up) {
        // Not what was passed on the way up: no walk at all.
        up.extend(down);
        return Ok(up);
    }
    Ok(down)
}
