//! A directory from a stranger, on the real file system: names that are made up, and things with our
//! names that are no files. None is followed, waited for or overwritten, and what we make ourselves is
//! for nobody but the user.

use esker::{Db, Durability, ErrorKind, Options};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn options() -> Options {
    Options::default().workers(0).durability(Durability::Buffered).segment_bytes(64 << 10)
}

/// A closed database with tables and a segment that is needed.
fn made() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), options()).unwrap();
    let a = db.keyspace("a").unwrap();
    a.put("k", "v").unwrap();
    db.flush().unwrap();
    a.put("l", "w").unwrap();
    drop(a);
    db.close().unwrap();
    dir
}

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    paths
        .filter(|p| p.symlink_metadata().unwrap().is_file())
        .map(|p| (p.clone(), fs::read(&p).unwrap()))
        .collect()
}

fn of_kind(dir: &Path, kind: &str) -> PathBuf {
    let mut found = files(dir).into_keys().filter(|p| p.extension().is_some_and(|e| e == kind));
    found.next_back().unwrap_or_else(|| panic!("no {kind}"))
}

fn holds(dir: &Path) -> esker::Result<usize> {
    Db::open(dir, options())?.keyspace("a")?.iter().try_fold(0, |n, e| e.map(|_| n + 1))
}

/// Numbers that nobody gave, and spellings that nobody writes.
#[test]
fn made_up_names_are_refused_or_left_over() {
    let foreign =
        ["0.table", "00000001.table", "1e6.table", "-00001.table", "+00001.journal", "000001.TABLE"];
    let foreign =
        foreign.into_iter().chain(["18446744073709551616.journal", "000001.table/", "000001..table"]);
    for name in foreign.chain(["hint", "LOCK ", "000001", ".table", "000001.manifest.tmp", "..journal"]) {
        let dir = made();
        let path = dir.path().join(name.trim_end_matches('/'));
        if name.ends_with('/') {
            fs::create_dir(&path).unwrap()
        } else {
            fs::write(&path, "mine").unwrap()
        }
        let before = files(dir.path());
        for read_only in [true, false] {
            let e = Db::open(dir.path(), options().read_only(read_only)).unwrap_err();
            assert_eq!((e.kind(), e.file()), (ErrorKind::Invalid, Some(&*path)), "{name}: {e}");
        }
        assert!(files(dir.path()) == before, "{name}: something was touched");
    }
    // In our own spelling, but beyond any number that was ever given.
    for number in [u64::MAX, u64::MAX - 1, 1 << 56] {
        for kind in ["table", "journal", "manifest", "footer"] {
            let dir = made();
            let path = dir.path().join(format!("{number}.{kind}"));
            fs::write(&path, vec![0xa5; 5000]).unwrap();
            let e = holds(dir.path()).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Corruption, "{number}.{kind}: {e}");
            assert_eq!(fs::read(&path).unwrap().len(), 5000, "{number}.{kind}");
            let db = Db::open(dir.path(), options().read_only(true)).unwrap();
            assert_eq!(db.keyspace("a").unwrap().iter().count(), 2);
        }
    }
    // Below that it is one that a crash has left over, and numbers go on behind it.
    for kind in ["table", "journal", "manifest", "footer"] {
        let dir = made();
        let path = dir.path().join(format!("{}.{kind}", (1u64 << 56) - 2));
        fs::write(&path, vec![0xa5; 5000]).unwrap();
        match holds(dir.path()) {
            Ok(n) => assert_eq!(n, 2),
            Err(e) => assert!(matches!(e.kind(), ErrorKind::Corruption | ErrorKind::Invalid), "{kind}: {e}"),
        }
    }
}

#[cfg(unix)]
mod unix {
    use super::*;
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};

    fn mkfifo(path: &Path) {
        let done = std::process::Command::new("mkfifo").arg(path).status().unwrap();
        assert!(done.success());
    }

    /// Whatever is put in the place of a file that the database needs, or of one that it would make.
    #[test]
    fn only_files_are_opened() {
        let outside = tempfile::tempdir().unwrap();
        let target = outside.path().join("precious");
        type Put<'a> = (&'static str, &'a dyn Fn(&Path));
        let put: [Put; 5] = [
            ("a link to a file", &|at| symlink(&target, at).unwrap()),
            ("a link to nothing", &|at| symlink(outside.path().join("nowhere"), at).unwrap()),
            ("a link to a directory", &|at| symlink(outside.path(), at).unwrap()),
            ("a directory", &|at| fs::create_dir(at).unwrap()),
            ("a fifo", &mkfifo),
        ];
        for (what, put) in put {
            for kind in ["LOCK", "HINT", "RESERVE", "SPARE", "table", "journal", "manifest", "footer", "next"]
            {
                let dir = made();
                let path = match kind {
                    "table" | "journal" | "manifest" => of_kind(dir.path(), kind),
                    "footer" => dir.path().join("000001.footer"),
                    // Where the next segment, table or manifest might be made.
                    "next" => dir.path().join("000012.journal"),
                    name => dir.path().join(name),
                };
                let bytes = fs::read(&path).unwrap_or_default();
                let _ = fs::remove_file(&path);
                // It even holds what should be there.
                fs::write(&target, &bytes).unwrap();
                put(&path);
                let before = files(dir.path());
                for read_only in [true, false] {
                    let e = Db::open(dir.path(), options().read_only(read_only)).unwrap_err();
                    let typed =
                        [ErrorKind::Invalid, ErrorKind::Corruption, ErrorKind::Io].contains(&e.kind());
                    assert!(typed && e.file() == Some(&*path), "{what} as {kind}: {e:?}");
                }
                assert!(files(dir.path()) == before, "{what} as {kind}: something was touched");
                assert_eq!(fs::read(&target).unwrap(), bytes, "{what} as {kind}: followed");
                assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "{what} as {kind}: made");
            }
        }
    }

    /// The directory itself may be reached by a link: that is the caller's word, not the stranger's.
    #[test]
    fn the_directory_may_be_a_link() {
        let dir = made();
        let outside = tempfile::tempdir().unwrap();
        let link = outside.path().join("db");
        symlink(dir.path(), &link).unwrap();
        assert_eq!(holds(&link).unwrap(), 2);
    }

    /// Changed while the database is open: a table that is opened on its first read only.
    #[test]
    fn a_link_in_the_place_of_a_table_is_not_followed_later() {
        let dir = made();
        let db = Db::open(dir.path(), options()).unwrap();
        let a = db.keyspace("a").unwrap();
        let outside = tempfile::tempdir().unwrap();
        for table in files(dir.path()).into_keys().filter(|p| p.extension().is_some_and(|e| e == "table")) {
            let target = outside.path().join(table.file_name().unwrap());
            fs::copy(&table, &target).unwrap();
            fs::remove_file(&table).unwrap();
            symlink(&target, &table).unwrap();
        }
        let e = a.get("k").unwrap_err();
        assert!(e.file().is_some() && [ErrorKind::Io, ErrorKind::Corruption].contains(&e.kind()), "{e:?}");
        assert!(!db.verify().unwrap().is_ok());
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn check_modes(dir: &Path) -> usize {
        assert_eq!(mode(dir), 0o700, "{dir:?}");
        let files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
        for path in &files {
            assert_eq!(mode(path), 0o600, "{path:?}");
        }
        files.len()
    }

    #[test]
    fn what_is_made_is_for_the_user_alone() {
        let root = tempfile::tempdir().unwrap();
        let (dir, copy, far) =
            (root.path().join("new/db"), root.path().join("copies/1"), root.path().join("2"));
        let db = Db::open(&dir, options()).unwrap();
        let a = db.keyspace("a").unwrap();
        for n in 0..50u32 {
            a.put(n.to_be_bytes(), [7; 5000]).unwrap();
            if n % 10 == 0 {
                db.flush().unwrap();
                while db.step().unwrap() {}
            }
        }
        // Lock, hint, reserve and spare, manifest, two segments, tables.
        assert!(check_modes(&dir) >= 8);
        assert_eq!(mode(dir.parent().unwrap()), 0o700);
        db.checkpoint(&copy).unwrap();
        assert!(check_modes(&copy) >= 4);
        // A directory that is there keeps what its owner gave it; what is made in it is ours.
        fs::DirBuilder::new().mode(0o755).create(&far).unwrap();
        let before = mode(&far);
        db.checkpoint(&far).unwrap();
        assert_eq!(mode(&far), before);
        for path in fs::read_dir(&far).unwrap().map(|e| e.unwrap().path()) {
            assert_eq!(mode(&path), 0o600, "{path:?}");
        }
        drop(a);
        db.close().unwrap();
        drop(Db::open(&dir, options()).unwrap());
        check_modes(&dir);
    }
}
