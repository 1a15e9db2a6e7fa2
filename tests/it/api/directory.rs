//! Opening: directories that are missing, locked, half made, damaged or somebody else's; options
//! that cannot be; read-only.

use super::{buffered, fails, fresh, keys};
use esker::{Db, ErrorKind, KeyspaceOptions, Options};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// All files of a folder with their bytes.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    paths.map(|p| (p.clone(), fs::read(&p).unwrap())).collect()
}

/// Files of the database by the end of their names.
fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    contents(dir).into_keys().filter(|p| p.extension().is_some_and(|e| e == ending)).collect()
}

/// A closed database with a table, a few rows in the journal, and its folder.
fn made() -> tempfile::TempDir {
    let (dir, db) = fresh();
    let a = db.keyspace("a").unwrap();
    for i in 0..1000 {
        a.put(format!("{i:04}"), [i as u8; 50]).unwrap();
    }
    db.flush().unwrap();
    a.put("behind", "the flush").unwrap();
    drop(a);
    db.close().unwrap();
    dir
}

#[test]
fn impossible_options_create_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let cases = [
        ("memtable_bytes", Options::default().memtable_bytes(0)),
        ("segment_bytes", Options::default().segment_bytes(1)),
        ("journal_bytes", Options::default().journal_bytes(1)),
        ("table_bytes", Options::default().table_bytes(0)),
        ("workers", Options::default().workers(1000)),
        ("block_bytes", Options::default().keyspaces(KeyspaceOptions::default().block_bytes(0))),
        ("filter_bits", Options::default().keyspaces(KeyspaceOptions::default().filter_bits(99))),
    ];
    for (name, options) in cases {
        let e = fails(Db::open(&path, options), ErrorKind::Invalid);
        assert!(e.to_string().contains(name), "{e}");
    }
    assert!(!path.exists());
    let db = Db::open(&path, Options::default()).unwrap();
    fails(db.keyspace_with("a", KeyspaceOptions::default().block_bytes(0)), ErrorKind::Invalid);
}

#[test]
fn a_missing_directory_is_made_with_its_parents() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("some/where/deep");
    Db::open(&path, buffered()).unwrap().keyspace("a").unwrap().put("k", "v").unwrap();
    let db = Db::open(&path, buffered()).unwrap();
    assert_eq!(keys(&db.keyspace("a").unwrap()), ["k"]);
}

#[test]
fn a_half_made_directory_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("LOCK"), "").unwrap();
    let db = Db::open(dir.path(), buffered()).unwrap();
    db.keyspace("a").unwrap().put("k", "v").unwrap();
}

#[test]
fn a_second_opening_is_told_who_has_it() {
    let (dir, db) = fresh();
    let e = fails(Db::open(dir.path(), buffered()), ErrorKind::Locked);
    assert!(e.to_string().contains(&std::process::id().to_string()), "{e}");
    fails(Db::open(dir.path(), buffered().read_only(true)), ErrorKind::Locked);
    drop(db);
    Db::open(dir.path(), buffered()).unwrap();
}

#[test]
fn foreign_files_are_left_alone() {
    for name in ["notes.txt", "1.table", "000001.sst", "subfolder/x"] {
        let dir = made();
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "mine").unwrap();
        let first = name.split('/').next().unwrap();
        let e = Db::open(dir.path(), buffered()).unwrap_err();
        assert!(e.to_string().contains(first), "{e}");
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }
    // Not even a new database settles among them.
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    assert!(Db::open(dir.path(), buffered()).is_err());
    assert_eq!(contents(dir.path()).len(), 1);
}

#[test]
fn a_file_in_place_of_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "mine").unwrap();
    let e = Db::open(&path, buffered()).unwrap_err();
    assert!(e.to_string().contains("file"), "{e}");
    assert_eq!(fs::read(&path).unwrap(), b"mine");
}

#[test]
fn data_without_a_manifest_is_damage() {
    let dir = made();
    for path in files(dir.path(), "manifest") {
        fs::remove_file(path).unwrap();
    }
    let before = contents(dir.path());
    fails(Db::open(dir.path(), buffered()), ErrorKind::Corruption);
    let after = contents(dir.path());
    assert!(before.keys().all(|path| after.get(path) == before.get(path)), "nothing is touched");
}

#[test]
fn a_missing_table_is_named() {
    let dir = made();
    let table = files(dir.path(), "table").pop().unwrap();
    fs::remove_file(&table).unwrap();
    let e = fails(Db::open(dir.path(), buffered()), ErrorKind::Corruption);
    assert_eq!(e.file(), Some(&*table), "{e}");
}

/// Opens the database and reads everything; the first error, if one.
fn read_all(dir: &Path) -> esker::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let db = Db::open(dir, buffered().workers(0))?;
    let mut rows = Vec::new();
    for (name, _) in db.names()? {
        for entry in db.keyspace(&name)?.iter() {
            let entry = entry?;
            rows.push((entry.key().to_vec(), entry.value().to_vec()));
        }
    }
    Ok(rows)
}

#[test]
fn a_damaged_file_is_named_and_never_believed() {
    let dir = made();
    let whole = read_all(dir.path()).unwrap();
    assert_eq!(whole.len(), 1001);
    let clean = contents(dir.path());
    for (path, bytes) in &clean {
        if path.ends_with("LOCK") || path.ends_with("HINT") || bytes.is_empty() {
            continue;
        }
        // Some bytes of the part in use, spread over it.
        let used = bytes.iter().rposition(|&b| b != 0).unwrap_or(0) + 1;
        for n in 0..12 {
            let mut flipped = bytes.clone();
            let at = used * n / 12;
            flipped[at] ^= 1 << (n % 8);
            for (path, bytes) in &clean {
                fs::write(path, bytes).unwrap();
            }
            fs::write(path, &flipped).unwrap();
            match read_all(dir.path()) {
                // A torn tail cannot be told from damage in the very last sync; nothing else may go.
                Ok(rows) => assert!(rows == whole, "{}: byte {at} was believed", path.display()),
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::Corruption, "{}: byte {at}: {e:?}", path.display());
                    assert_eq!(e.file(), Some(&**path), "byte {at}: {e}");
                }
            }
            // What the opening made is not part of the next round.
            for extra in contents(dir.path()).into_keys().filter(|p| !clean.contains_key(p)) {
                fs::remove_file(extra).unwrap();
            }
        }
    }
}

#[test]
fn read_only_reads_and_nothing_else() {
    let dir = made();
    let before = contents(dir.path());
    let db = Db::open(dir.path(), buffered().read_only(true)).unwrap();
    let a = db.keyspace("a").unwrap();
    assert_eq!(a.iter().count(), 1001);
    assert_eq!(a.get("behind").unwrap().unwrap(), "the flush");
    for result in [a.put("k", "v").map(drop), a.delete_range(..).map(drop), db.drop_keyspace("a").map(drop)] {
        fails(result, ErrorKind::ReadOnly);
    }
    fails(db.keyspace("new"), ErrorKind::ReadOnly);
    fails(db.flush(), ErrorKind::ReadOnly);
    // Readers share; a writer waits for them to go.
    let other = Db::open(dir.path(), buffered().read_only(true)).unwrap();
    assert_eq!(other.keyspace("a").unwrap().iter().count(), 1001);
    fails(Db::open(dir.path(), buffered()), ErrorKind::Locked);
    db.close().unwrap();
    drop((a, other));
    assert!(contents(dir.path()) == before, "a byte has changed");
    Db::open(dir.path(), buffered()).unwrap();
}

#[test]
fn read_only_sees_what_a_killed_process_left() {
    let (dir, db) = fresh();
    db.keyspace("a").unwrap().put("k", "v").unwrap();
    // As a kill would leave it: copied while it is open.
    let copy = tempfile::tempdir().unwrap();
    for (path, bytes) in contents(dir.path()) {
        fs::write(copy.path().join(path.file_name().unwrap()), bytes).unwrap();
    }
    let before = contents(copy.path());
    let reader = Db::open(copy.path(), buffered().read_only(true)).unwrap();
    assert_eq!(keys(&reader.keyspace("a").unwrap()), ["k"]);
    drop(reader);
    assert!(contents(copy.path()) == before, "a byte has changed");
}

#[test]
fn read_only_creates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none");
    assert!(Db::open(&path, buffered().read_only(true)).is_err());
    assert!(!path.exists());
    assert!(Db::open(dir.path(), buffered().read_only(true)).is_err());
    assert!(contents(dir.path()).is_empty());
}
