//! Esker under openraft: its suites, with and without power, and snapshots.
#![allow(clippy::unwrap_used, missing_docs)]

mod cuts;
mod snapshots;
mod suite;

use esker_openraft::{App, AppResult, SnapshotData, Writes};

openraft::declare_raft_types!(
    pub Types: D = String, R = Option<String>, NodeId = u64, Node = (), SnapshotData = SnapshotData
);

/// `key=value` gives a key a value and answers the one before, `key` takes it away.
pub struct Map;

impl App<Types> for Map {
    fn apply(&mut self, state: &mut Writes<'_>, request: String) -> AppResult<Option<String>> {
        let (key, value) = request.split_once('=').unwrap_or((&request, ""));
        let before = state.get(key)?.map(String::from_utf8).transpose()?;
        if request.contains('=') {
            state.put(key, value);
        } else {
            state.delete(key);
        }
        Ok(before)
    }

    fn blank(&mut self) -> Option<String> {
        None
    }
}
