//! What the engine must do, in the simplest words: maps that remember every version, and the list
//! of commits that made them.

mod logs;
mod random;
mod script;

pub use logs::{LOGS, LogChange, ModelLog, ModelLogs};
pub use random::seeds;
pub use script::fuzz;

use crate::state::{Bytes, State};
use std::collections::BTreeMap;
use std::ops::Bound;

/// Both ends of a range.
pub type Range = (Bound<Bytes>, Bound<Bytes>);

/// All keys.
pub const ALL: Range = (Bound::Unbounded, Bound::Unbounded);

/// What one operation of a batch does. Keyspaces are named by their number in [`Model::spaces`].
#[derive(Clone)]
pub enum Change {
    Put(usize, Bytes, Bytes),
    Delete(usize, Bytes),
    DeleteRange(usize, Range),
    /// A new, empty keyspace under a free name.
    Create(String),
    Drop(String),
    /// The contents of the first become those of the second, which is dropped.
    Replace(String, String),
    /// What all logs are in is made, or dropped.
    Logs(bool),
    /// An operation on a log, which can be.
    Log(u64, LogChange),
}

impl std::fmt::Debug for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Change::Put(space, key, value) => write!(f, "put {space} {} ({} B)", show(key), value.len()),
            Change::Delete(space, key) => write!(f, "delete {space} {}", show(key)),
            Change::DeleteRange(space, range) => write!(f, "delete {space} {}", show_range(range)),
            Change::Create(name) => write!(f, "create {name}"),
            Change::Drop(name) => write!(f, "drop {name}"),
            Change::Replace(to, from) => write!(f, "replace {to} by {from}"),
            Change::Logs(there) => write!(f, "{} logs", if *there { "create" } else { "drop" }),
            Change::Log(id, change) => write!(f, "log {id}: {change:?}"),
        }
    }
}

/// A key for the eye.
pub fn show(key: &[u8]) -> String {
    let (start, end) = key.split_at(key.len().min(20));
    let more = if end.is_empty() {
        String::new()
    } else {
        format!("..{:02x} ({} B)", end[end.len() - 1], key.len())
    };
    format!("\"{}\"{more}", start.escape_ascii())
}

/// A range for the eye.
pub fn show_range((lower, upper): &Range) -> String {
    let bound = |bound: &Bound<Bytes>| match bound {
        Bound::Included(key) => show(key),
        Bound::Excluded(key) => format!("after/before {}", show(key)),
        Bound::Unbounded => String::new(),
    };
    format!("{}..{}", bound(lower), bound(upper))
}

/// A commit: the sequence number it answered with.
#[derive(Clone, Debug)]
pub struct Commit {
    pub seq: u64,
    changes: Vec<Change>,
}

/// One keyspace with every version its rows ever had: (number of commits before and with it, value).
#[derive(Clone, Default, Debug)]
struct Space {
    rows: BTreeMap<Bytes, Vec<(usize, Option<Bytes>)>>,
}

/// All commits and what they made. A point in time is a number of commits.
#[derive(Clone, Default, Debug)]
pub struct Model {
    commits: Vec<Commit>,
    spaces: Vec<Space>,
    names: BTreeMap<String, Vec<(usize, Option<usize>)>>,
    logs: Vec<(usize, Option<ModelLogs>)>,
}

impl Model {
    /// The number of commits: the newest point in time.
    pub fn now(&self) -> usize {
        self.commits.len()
    }

    /// The sequence number that commit number `at` answered with; 0 before the first.
    pub fn seq(&self, at: usize) -> u64 {
        at.checked_sub(1).map_or(0, |i| self.commits[i].seq)
    }

    /// Applies a commit, and returns the point in time behind it.
    pub fn commit(&mut self, seq: u64, changes: Vec<Change>) -> usize {
        let at = self.now() + 1;
        for change in &changes {
            self.apply(at, change);
        }
        self.commits.push(Commit { seq, changes });
        at
    }

    fn apply(&mut self, at: usize, change: &Change) {
        match change {
            Change::Put(space, key, value) => self.set(*space, at, key, Some(value.clone())),
            Change::Delete(space, key) => self.set(*space, at, key, None),
            Change::DeleteRange(space, range) => {
                for (key, _) in self.range(*space, range, at) {
                    self.set(*space, at, &key, None);
                }
            }
            Change::Create(name) => {
                self.spaces.push(Space::default());
                self.name(name, at, Some(self.spaces.len() - 1));
            }
            Change::Drop(name) => self.name(name, at, None),
            Change::Replace(target, staging) => {
                let to = self.space(target, at).expect("a live target");
                let from = self.space(staging, at).expect("a live staging");
                for (key, _) in self.all(to, at) {
                    self.set(to, at, &key, None);
                }
                for (key, value) in self.all(from, at) {
                    self.set(to, at, &key, Some(value));
                }
                self.name(staging, at, None);
            }
            Change::Logs(there) => self.logs.push((at, there.then(|| ModelLogs::new(at)))),
            Change::Log(id, change) => {
                let mut logs = self.logs(at).expect("live logs").clone();
                assert!(logs.apply(*id, change, at), "log {id}: {change:?}");
                self.logs.push((at, Some(logs)));
            }
        }
    }

    fn set(&mut self, space: usize, at: usize, key: &[u8], value: Option<Bytes>) {
        self.spaces[space].rows.entry(key.to_vec()).or_default().push((at, value));
    }

    fn name(&mut self, name: &str, at: usize, space: Option<usize>) {
        self.names.entry(name.to_string()).or_default().push((at, space));
    }

    /// The keyspace that had this name at a point in time.
    pub fn space(&self, name: &str, at: usize) -> Option<usize> {
        *newest(self.names.get(name)?, at)?
    }

    /// The names at a point in time, and the keyspaces they stood for.
    pub fn names(&self, at: usize) -> Vec<(String, usize)> {
        let live = self.names.keys().filter_map(|name| Some((name.clone(), self.space(name, at)?)));
        live.collect()
    }

    /// The logs at a point in time.
    pub fn logs(&self, at: usize) -> Option<&ModelLogs> {
        newest(&self.logs, at)?.as_ref()
    }

    pub fn get(&self, space: usize, key: &[u8], at: usize) -> Option<Bytes> {
        newest(self.spaces[space].rows.get(key)?, at)?.clone()
    }

    /// The rows in `range`, in order.
    pub fn range(&self, space: usize, range: &Range, at: usize) -> Vec<(Bytes, Bytes)> {
        if empty(range) {
            return Vec::new();
        }
        let rows = self.spaces[space].rows.range(range.clone());
        rows.filter_map(|(key, versions)| Some((key.clone(), newest(versions, at)?.clone()?))).collect()
    }

    pub fn all(&self, space: usize, at: usize) -> Vec<(Bytes, Bytes)> {
        self.range(space, &(Bound::Unbounded, Bound::Unbounded), at)
    }

    /// All that can be seen at a point in time.
    pub fn state(&self, at: usize) -> State {
        let names = self.names(at).into_iter();
        let rows = |(name, space)| (name, self.all(space, at).into_iter().collect());
        let mut state: State = names.map(rows).collect();
        if let Some(logs) = self.logs(at) {
            logs.show(&mut state);
        }
        state
    }

    /// The newest point in time, at or after `least`, at which the state was `state`.
    pub fn find(&self, state: &State, least: usize) -> Option<usize> {
        (least..=self.now()).rev().find(|&at| self.state(at) == *state)
    }

    /// Whether any operation after the point in time `since` said something about a key in `range`.
    pub fn touched(&self, space: usize, range: &Range, since: usize) -> bool {
        let one = |key: &Bytes| (Bound::Included(key.clone()), Bound::Included(key.clone()));
        (since..self.now()).flat_map(|at| self.commits[at].changes.iter().map(move |c| (at + 1, c))).any(
            |(at, change)| match change {
                Change::Put(s, key, _) | Change::Delete(s, key) => *s == space && meet(&one(key), range),
                Change::DeleteRange(s, deleted) => *s == space && meet(deleted, range),
                Change::Replace(target, _) => self.space(target, at) == Some(space),
                Change::Create(_) | Change::Drop(_) | Change::Logs(_) | Change::Log(..) => false,
            },
        )
    }

    /// Forgets all commits after `at`: what a crash does to those that were not durable.
    pub fn cut(&mut self, at: usize) {
        let kept: Vec<Commit> = self.commits.drain(..at).collect();
        *self = Model::default();
        for commit in kept {
            self.commit(commit.seq, commit.changes);
        }
    }
}

/// The first key of a range, and the first behind it if there is one.
fn ends(range: &Range) -> (Bytes, Option<Bytes>) {
    let after = |key: &Bytes| [&key[..], &[0]].concat();
    let lower = match &range.0 {
        Bound::Included(key) => key.clone(),
        Bound::Excluded(key) => after(key),
        Bound::Unbounded => Vec::new(),
    };
    let upper = match &range.1 {
        Bound::Included(key) => Some(after(key)),
        Bound::Excluded(key) => Some(key.clone()),
        Bound::Unbounded => None,
    };
    (lower, upper)
}

/// Whether no key can lie in `range`.
pub fn empty(range: &Range) -> bool {
    let (lower, upper) = ends(range);
    upper.is_some_and(|upper| lower >= upper)
}

/// Whether a key can lie in both.
fn meet(a: &Range, b: &Range) -> bool {
    let (a, b) = (ends(a), ends(b));
    let lower = a.0.max(b.0);
    [a.1, b.1].into_iter().flatten().all(|upper| lower < upper)
}

/// The version that counts at a point in time.
fn newest<T>(versions: &[(usize, T)], at: usize) -> Option<&T> {
    let behind = versions.partition_point(|(when, _)| *when <= at);
    Some(&versions[behind.checked_sub(1)?].1)
}

#[test]
fn the_model_remembers() {
    let mut m = Model::default();
    m.commit(1, vec![Change::Create("a".into())]);
    let a = m.space("a", 1).unwrap();
    m.commit(3, vec![Change::Put(a, b"k".into(), b"1".into()), Change::Put(a, b"l".into(), b"2".into())]);
    m.commit(4, vec![Change::DeleteRange(a, (Bound::Unbounded, Bound::Excluded(b"l".into())))]);
    assert_eq!(m.get(a, b"k", 2), Some(b"1".into()));
    assert_eq!(m.get(a, b"k", 3), None);
    assert_eq!(m.all(a, 3), vec![(b"l".to_vec(), b"2".to_vec())]);
    assert_eq!(m.find(&m.state(2), 0), Some(2));
    assert_eq!(m.find(&m.state(2), 3), None);
    m.commit(5, vec![Change::Create("b".into())]);
    let b = m.space("b", 4).unwrap();
    m.commit(6, vec![Change::Put(b, b"z".into(), b"9".into()), Change::Replace("a".into(), "b".into())]);
    assert_eq!(m.all(a, 5), vec![(b"z".to_vec(), b"9".to_vec())]);
    assert_eq!(m.names(5).len(), 1);
    assert_eq!(m.space("b", 4), Some(b));
    let upto = |key: &str| (Bound::Unbounded, Bound::Excluded(key.as_bytes().to_vec()));
    assert!(m.touched(b, &ALL, 4) && !m.touched(b, &upto("z"), 4));
    assert!(m.touched(a, &upto("l"), 4) && !m.touched(a, &ALL, 5), "replaced, which touches all");
    m.cut(3);
    assert_eq!((m.now(), m.seq(3)), (3, 4));
    assert_eq!(m.all(a, 3).len(), 1);
}
