//! Logs in the simplest words: of each its first index, the tag before that if it is known, and entries.

use super::{Bytes, State};
use crate::state::{bounds_key, bounds_row, entry_key, entry_row};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What they are called.
pub const LOGS: &str = "logs";

/// An entry, and the number of the commit that appended it.
#[derive(Clone, PartialEq, Debug)]
pub struct LogEntry {
    pub tag: u64,
    pub bytes: Arc<[u8]>,
    pub at: usize,
}

#[derive(Clone, Default, PartialEq, Debug)]
pub struct ModelLog {
    pub first: u64,
    before: Option<u64>,
    pub entries: VecDeque<LogEntry>,
}

/// All logs, and the commit that made what they are in.
#[derive(Clone, Debug)]
pub struct ModelLogs {
    pub made: usize,
    pub logs: BTreeMap<u64, ModelLog>,
}

/// What one operation does to a log; entries with their index, tag and bytes.
#[derive(Clone, Debug)]
pub enum LogChange {
    Append(u64, u64, Bytes),
    Truncate(u64),
    Purge(u64),
    Reset(u64, u64),
    Remove,
}

impl ModelLog {
    pub fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    pub fn entry(&self, index: u64) -> Option<&LogEntry> {
        self.entries.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    pub fn tag(&self, index: u64) -> Option<u64> {
        if index.checked_add(1) == Some(self.first) {
            return self.before;
        }
        self.entry(index).map(|entry| entry.tag)
    }

    /// Whether it could be done; if not, nothing was.
    fn apply(&mut self, change: &LogChange, at: usize) -> bool {
        let (first, next) = (self.first, self.next());
        match *change {
            LogChange::Append(index, tag, ref bytes) if index == next => {
                self.entries.push_back(LogEntry { tag, bytes: bytes[..].into(), at });
            }
            LogChange::Truncate(from) if (first..=next).contains(&from) => {
                self.entries.truncate((from - first) as usize);
            }
            LogChange::Purge(to) if to <= first => {}
            LogChange::Purge(to) if to <= next => {
                self.before = self.tag(to - 1);
                self.entries.drain(..(to - first) as usize);
                self.first = to;
            }
            LogChange::Reset(to, tag) => {
                let before = Some(tag).filter(|_| to > 0);
                *self = ModelLog { first: to, before, entries: VecDeque::new() };
            }
            _ => return false,
        }
        true
    }
}

impl ModelLogs {
    pub fn new(made: usize) -> ModelLogs {
        ModelLogs { made, logs: BTreeMap::new() }
    }

    pub fn log(&self, id: u64) -> ModelLog {
        self.logs.get(&id).cloned().unwrap_or_default()
    }

    /// Whether it could be done; if not, nothing was.
    pub fn apply(&mut self, id: u64, change: &LogChange, at: usize) -> bool {
        if matches!(change, LogChange::Remove) {
            self.logs.remove(&id);
            return true;
        }
        let mut log = self.log(id);
        let had = log.clone();
        let done = log.apply(change, at);
        // One that nothing was done to is not there yet.
        if log != had || matches!(change, LogChange::Reset(..)) {
            self.logs.insert(id, log);
        }
        done
    }

    /// As rows.
    pub fn show(&self, state: &mut State) {
        let rows = state.entry(LOGS.into()).or_default();
        for (&id, log) in &self.logs {
            rows.insert(bounds_key(id), bounds_row(log.first, log.next(), log.before));
            for (index, entry) in (log.first..).zip(&log.entries) {
                rows.insert(entry_key(id, index), entry_row(entry.tag, &entry.bytes));
            }
        }
    }
}

#[test]
fn the_model_of_a_log() {
    let mut logs = ModelLogs::new(1);
    let push = |logs: &mut ModelLogs, index, tag| logs.apply(7, &LogChange::Append(index, tag, vec![1]), 2);
    assert!(logs.apply(7, &LogChange::Truncate(0), 2) && logs.logs.is_empty());
    assert!(
        push(&mut logs, 0, 5) && push(&mut logs, 1, 6) && !push(&mut logs, 1, 6) && !push(&mut logs, 3, 6)
    );
    assert!(logs.apply(7, &LogChange::Purge(1), 3) && !logs.apply(7, &LogChange::Purge(3), 3));
    assert!(!logs.apply(7, &LogChange::Truncate(0), 3));
    let log = logs.log(7);
    assert_eq!((log.first, log.next(), log.tag(0), log.tag(1)), (1, 2, Some(5), Some(6)));
    assert!(logs.apply(7, &LogChange::Reset(9, 8), 4) && push(&mut logs, 9, 8));
    assert_eq!((logs.log(7).tag(8), logs.log(7).entries.len()), (Some(8), 1));
    assert!(logs.apply(7, &LogChange::Remove, 5) && logs.logs.is_empty());
}
