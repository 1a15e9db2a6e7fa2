//! openraft's own suite: a database for each case, and all cases as groups of one.

use crate::{Map, Types};
use esker::{Db, Options};
use esker_openraft::{Group, LogStore, StateMachine};
use openraft::StorageError;
use openraft::testing::{StoreBuilder, Suite};
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;

type Stores = (LogStore<Types>, StateMachine<Types, Map>);

fn options() -> Options {
    Options::default().segment_bytes(1 << 20)
}

struct Fresh {
    pipelined: bool,
}

impl StoreBuilder<Types, LogStore<Types>, StateMachine<Types, Map>, TempDir> for Fresh {
    async fn build(&self) -> Result<(TempDir, LogStore<Types>, StateMachine<Types, Map>), StorageError<u64>> {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path(), options()).unwrap();
        let (log, state): Stores = Group::open(&db, "raft", 1).unwrap().stores(Map).unwrap();
        Ok((dir, if self.pipelined { log.pipelined() } else { log }, state))
    }
}

#[test]
fn with_a_database_for_each_case() {
    Suite::test_all(Fresh { pipelined: false }).unwrap();
}

#[test]
fn with_callbacks_that_come_later() {
    Suite::test_all(Fresh { pipelined: true }).unwrap();
}

struct Shared {
    db: Db,
    groups: AtomicU64,
}

impl StoreBuilder<Types, LogStore<Types>, StateMachine<Types, Map>> for &Shared {
    async fn build(&self) -> Result<((), LogStore<Types>, StateMachine<Types, Map>), StorageError<u64>> {
        let id = self.groups.fetch_add(1, Ordering::Relaxed);
        let (log, state): Stores = Group::open(&self.db, "raft", id).unwrap().stores(Map).unwrap();
        Ok(((), log, state))
    }
}

#[test]
fn with_all_cases_as_groups_of_one_database() {
    let dir = tempfile::tempdir().unwrap();
    let shared = Shared { db: Db::open(dir.path(), options()).unwrap(), groups: AtomicU64::new(0) };
    Suite::test_all(&shared).unwrap();
    assert!(shared.groups.load(Ordering::Relaxed) > 30);
}
