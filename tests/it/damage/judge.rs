//! One damaged database, opened both ways, read in every way, verified, written to, flushed and
//! compacted: each answer is right, or an error that names the place.

use super::anatomy::kind;
use super::base::Base;
use super::counts::{Counts, Found};
use super::harm::{Change, Harm, is_read};
use super::logs::{are_footers, writes_to_logs};
use super::oracle::Expect;
use crate::alloc::{Grown, grown};
use crate::state::{State, try_state};
use crate::world::{LOGS, apply_write, batch};
use esker::fs::Fs;
use esker::fs::sim::SimFs;
use esker::{Db, Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the engine may allocate beyond the size of a file.
pub const BEYOND: usize = 16 << 20;

/// What became of one way to open it.
struct Use {
    found: Found,
    /// The commits that are there.
    at: Option<usize>,
}

impl Base {
    pub fn judge(&self, harm: &Harm, counts: &mut Counts) {
        let changes = harm.changes(self);
        let what = format!("{}, {harm:?} ({})", self.name, changes[0].0.display());
        let expect = self.expect(&changes);
        let disk = self.disk.crash(1);
        make(&disk, &changes);
        let in_place = matches!(harm, Harm::Flip(..) | Harm::Byte(..) | Harm::Noise(..));
        // Beside tables, and where logs lie, few reads meet what was damaged: most cases do with one way to read.
        let log_only =
            |path: &Path| self.anatomy.named.log_only.contains_key(&path.with_extension("journal"));
        let met = changes.iter().any(|(path, _)| kind(path) == "table" || log_only(path));
        let every_way = met || counts.all().is_multiple_of(8);
        let case = Case { base: self, disk, changes, what, in_place, every_way, expect };
        let reading = case.open_and_use(true, counts);
        let writing = case.open_and_use(false, counts);
        assert_eq!(reading.at, writing.at, "{}: read-only, and not", case.what);
        let found = reading.found.min(writing.found);
        counts.add(self, harm, found);
        if let Some(at) = writing.at.filter(|at| *at < self.there) {
            counts.add_lost(self, at);
        }
    }

    /// What must come of it; for damage outside of the journal only that nothing is lost.
    fn expect(&self, changes: &[Change]) -> Option<Expect> {
        let harmless = |path: &Path| ["journal", "footer"].contains(&kind(path)) || !is_read(path);
        let hint = self.dir.join("HINT");
        if !changes.iter().all(|(path, _)| harmless(path) || *path == hint) {
            return None;
        }
        let now = |path: &Path| match changes.iter().find(|c| c.0 == path) {
            Some((_, bytes)) => bytes.as_deref(),
            None => self.anatomy.file(path).map(|f| &f.bytes[..]),
        };
        Some(self.anatomy.expect(&now))
    }
}

/// Whether no allocation, nor, if asked for, all together, are too much for files of this length.
pub fn is_bounded(took: Grown, longest: usize, peak: bool) -> bool {
    let most = if peak { took.peak.max(took.largest) } else { took.largest };
    most <= longest + BEYOND
}

fn make(disk: &SimFs, changes: &[Change]) {
    for (path, bytes) in changes {
        if disk.read(path).is_err() {
            drop(disk.create(path).unwrap());
        }
        match bytes {
            Some(bytes) => disk.damage(path, |b| b.clone_from(bytes)).unwrap(),
            None => disk.remove(path).unwrap(),
        }
    }
}

struct Case<'a> {
    base: &'a Base,
    disk: SimFs,
    changes: Vec<Change>,
    what: String,
    /// Bytes of one file are others, and nothing else.
    in_place: bool,
    /// To be read, verified and written to both ways.
    every_way: bool,
    expect: Option<Expect>,
}

impl Case<'_> {
    fn open_and_use(&self, read_only: bool, counts: &mut Counts) -> Use {
        let options = self.base.options.clone().fs(Arc::new(self.disk.clone()));
        let before = self.disk.ops();
        let (opened, took) = grown(|| Db::open(&self.base.dir, options.read_only(read_only)));
        self.bounded("opening", took, true, counts);
        let db = match opened {
            Ok(db) => db,
            Err(e) => {
                self.names_a_place(&e);
                let because = self.expect;
                assert!(!matches!(because, Some(Expect::Whole | Expect::Before(_))), "{}: {e}", self.what);
                self.is_untouched(before, read_only);
                return Use { found: Found::Open, at: None };
            }
        };
        let at = self.commits(&db);
        let expected = &self.base.states[at];
        let read = |db: &Db| (read_only && !self.every_way) || self.read(db, expected);
        let (read, took) = grown(|| read(&db));
        self.bounded("reading", took, false, counts);
        let verify = read_only || self.every_way;
        let (verified, took) = grown(|| if verify { db.verify().unwrap() } else { Default::default() });
        self.bounded("verifying", took, false, counts);
        verified.damage.iter().for_each(|e| self.names_a_place(e));
        assert!(read || !verified.is_ok(), "{}: reading fails, and verify does not tell", self.what);
        assert!(!verified.is_ok() || !self.harms_a_table(), "{}: verify reads all of a table", self.what);
        if are_footers(&self.changes) {
            assert!(read && (read_only || verified.is_ok()), "{}: a footer is not made again", self.what);
        }
        let mut found = match (read, verified.is_ok()) {
            (false, _) => Found::Read,
            (true, false) => Found::Verify,
            (true, true) => Found::Nothing,
        };
        if read_only {
            self.is_untouched(before, true);
        } else if self.every_way {
            let (worked, took) = grown(|| self.work(&db, expected));
            self.bounded("writing", took, false, counts);
            if !worked {
                found = found.min(Found::Write);
            }
        }
        if at < self.base.there {
            found = if at < self.base.durable { Found::Residue } else { Found::Unsynced };
        }
        Use { found, at: Some(at) }
    }

    /// How many commits are there, which must be as many as can be.
    fn commits(&self, db: &Db) -> usize {
        let (base, what) = (self.base, &self.what);
        let seq = db.visible_seq().get();
        let Ok(at) = base.seqs.binary_search(&seq) else {
            panic!("{what}: no commit ended with sequence number {seq}")
        };
        match self.expect {
            None | Some(Expect::Whole) => assert_eq!(at, base.there, "{what}: commits are gone"),
            Some(Expect::Before(seq)) => assert_eq!(at, base.commits_before(seq), "{what}: torn at {seq}"),
            Some(Expect::Refused) => panic!("{what}: durable commits are damaged, and {at} are shown"),
        }
        at
    }

    /// The file, which for a few bytes of a table or of the journal is the one they are in, and then
    /// the offset too.
    fn names_a_place(&self, e: &Error) {
        assert!(e.kind() == ErrorKind::Corruption && e.file().is_some(), "{}: {e:?}", self.what);
        if let [(path, _)] = &self.changes[..]
            && self.in_place
            && ["table", "journal"].contains(&kind(path))
        {
            assert!(e.file() == Some(path) && e.offset().is_some(), "{}: {e:?}", self.what);
        }
        if are_footers(&self.changes) {
            assert!(self.changes.iter().any(|(path, _)| e.file() == Some(path)), "{}: {e:?}", self.what);
        }
    }

    /// Nothing but the lock file may have come.
    fn is_untouched(&self, before: u64, read_only: bool) {
        let ops = self.disk.ops() - before;
        if read_only {
            assert_eq!(ops, 0, "{}: changed, and read-only", self.what);
        } else if ops > 0 {
            let log = self.disk.log().split_off(before as usize);
            assert!(log.iter().all(|op| op.contains("LOCK")), "{}: refused, and {log:?}", self.what);
        }
    }

    fn bounded(&self, doing: &str, took: Grown, peak: bool, counts: &mut Counts) {
        let longest = self.disk.files().into_iter().map(|f| f.1 as usize).max().unwrap_or(0);
        assert!(is_bounded(took, longest, peak), "{}: {doing} allocates {took:?}", self.what);
        counts.largest = counts.largest.max(took.largest);
        counts.peak = counts.peak.max(took.peak);
    }

    /// Whether bytes of a table that counts are not as they were.
    fn harms_a_table(&self) -> bool {
        self.changes.iter().any(|(path, bytes)| {
            let whole = self.base.anatomy.file(path).map(|f| &f.bytes);
            self.base.live_tables.contains(path) && bytes.as_ref() != whole
        })
    }

    /// Reads all there is. Answers whether that went well.
    fn read(&self, db: &Db, expected: &State) -> bool {
        match try_state(db) {
            Ok(found) => {
                assert!(found == *expected, "{}: wrong data", self.what);
                let harmed = |rows| self.base.harms_an_entry(&self.changes, rows);
                assert!(!expected.get(LOGS).is_some_and(harmed), "{}: a damaged entry is shown", self.what);
                return true;
            }
            Err(e) => self.names_a_place(&e),
        }
        // What can be read is right, key by key.
        for (name, rows) in expected {
            if name == LOGS {
                self.base.read_logs(db, &self.changes, rows, &|e| self.names_a_place(e));
                continue;
            }
            let keyspace = db.keyspace(name).unwrap();
            for (key, value) in rows {
                match keyspace.get(key) {
                    Ok(found) => assert_eq!(found.as_deref(), Some(&value[..]), "{}: {key:?}", self.what),
                    Err(e) => self.names_a_place(&e),
                }
            }
        }
        false
    }

    /// Writes, flushes, compacts and reads again, and once more when opened anew. Work on damaged
    /// tables must not make it worse. Answers whether all went well.
    fn work(&self, db: &Db, expected: &State) -> bool {
        let mut expected = expected.clone();
        let mut well = true;
        let mut did = |done: esker::Result<()>| match done {
            Ok(()) => true,
            Err(e) => {
                self.names_a_place(&e);
                well = false;
                false
            }
        };
        for write in writes_to_logs(&expected) {
            let batch = batch(db, std::slice::from_ref(&write));
            if did(batch.and_then(|mut batch| batch.commit().map(drop))) {
                apply_write(&mut expected, &write);
            }
        }
        for (name, rows) in expected.iter_mut().filter(|(name, _)| *name != LOGS) {
            if did(db.keyspace(name).unwrap().put("harm", "less").map(drop)) {
                rows.insert(b"harm".to_vec(), b"less".to_vec());
            }
        }
        did(db.flush());
        while db.step().is_ok_and(|more| more) {}
        for name in expected.keys().filter(|name| *name != LOGS) {
            did(db.keyspace(name).unwrap().compact(..));
        }
        well & self.read(db, &expected)
    }
}

/// The tables that an opening keeps: not those of keyspaces that were dropped.
pub fn live_tables(base: &Base) -> Vec<PathBuf> {
    let copy = base.disk.crash(1);
    drop(Db::open(&base.dir, base.options.clone().fs(Arc::new(copy.clone()))).unwrap());
    let files = copy.files().into_iter().map(|f| f.0);
    files.filter(|f| f.starts_with(&base.dir) && f.extension().is_some_and(|e| e == "table")).collect()
}
