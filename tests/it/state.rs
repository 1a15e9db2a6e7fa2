//! What a database shows, and small options to make it show everything soon.

use crate::model::{Bytes, State};
use esker::fs::sim::SimFs;
use esker::{Db, Options};
use std::sync::Arc;

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

fn try_state(db: &Db) -> esker::Result<State> {
    let mut out = State::new();
    for (name, _) in db.names()? {
        let keyspace = db.keyspace(&name)?;
        let row = |e: esker::Result<esker::Entry>| e.map(|e| (e.key().to_vec(), e.value().to_vec()));
        let rows: Vec<(Bytes, Bytes)> = keyspace.iter().map(row).collect::<esker::Result<_>>()?;
        let mut back: Vec<(Bytes, Bytes)> = keyspace.iter().rev().map(row).collect::<esker::Result<_>>()?;
        back.reverse();
        assert_eq!(rows, back, "forward and backward differ in {name}");
        for (key, value) in &rows {
            assert_eq!(keyspace.get(key)?.as_deref(), Some(&value[..]), "get {key:?} of {name}");
        }
        out.insert(name, rows.into_iter().collect());
    }
    Ok(out)
}

/// Opens what is on `sim` and reads everything.
pub fn open_and_read(dir: &str, options: &Options, sim: &SimFs) -> esker::Result<State> {
    let db = Db::open(dir, options.clone().fs(Arc::new(sim.clone())))?;
    try_state(&db)
}

/// Verbs that are still to come, by way of what is there.
pub trait Later {
    fn compact(&self, range: impl esker::KeyRange) -> esker::Result<()>;
    fn verify(&self) -> esker::Result<()>;
}

impl Later for esker::Keyspace {
    fn compact(&self, _range: impl esker::KeyRange) -> esker::Result<()> {
        self.db().flush()?;
        while self.db().step()? {}
        Ok(())
    }

    fn verify(&self) -> esker::Result<()> {
        self.db().verify()
    }
}

impl Later for Db {
    fn compact(&self, _range: impl esker::KeyRange) -> esker::Result<()> {
        self.flush()
    }

    fn verify(&self) -> esker::Result<()> {
        try_state(self).map(drop)
    }
}
