//! What a database shows, and small options to make it show everything soon.

use esker::{Db, Options};
use std::collections::BTreeMap;

pub type Bytes = Vec<u8>;
/// Everything a reader can see at one point: the keyspaces by name, each with its rows.
pub type State = BTreeMap<String, BTreeMap<Bytes, Bytes>>;

/// Small everything, and no thread but the test's: a run is the same each time.
pub fn small() -> Options {
    Options::default()
        .workers(0)
        .memtable_bytes(4 << 10)
        .segment_bytes(16 << 10)
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
    for (name, _) in db.names()? {
        let keyspace = db.keyspace(&name)?;
        let row = |e: esker::Result<esker::Entry>| e.map(|e| (e.key().to_vec(), e.value().to_vec()));
        let rows: Vec<(Bytes, Bytes)> = keyspace.iter().map(row).collect::<esker::Result<_>>()?;
        let mut back: Vec<(Bytes, Bytes)> = keyspace.iter().rev().map(row).collect::<esker::Result<_>>()?;
        back.reverse();
        assert!(rows == back, "forward and backward differ in {name}");
        for (key, value) in &rows {
            assert!(keyspace.get(key)?.as_deref() == Some(&value[..]), "get {key:?} of {name}");
            // Next to what is there nothing shows that was not walked over.
            let beside = [&key[..], b"\0"].concat();
            if rows.binary_search_by(|row| row.0.cmp(&beside)).is_err() {
                assert!(!keyspace.contains(&beside)?, "{beside:?} of {name} is not in the scan");
            }
        }
        out.insert(name, rows.into_iter().collect());
    }
    Ok(out)
}
