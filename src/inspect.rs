//! Files of a database as annotated text: every byte with its meaning. Works on any bytes, whole or
//! damaged; needs no open database and changes nothing.

use crate::error::{Error, Result};
use crate::fs::names::Name;
use crate::fs::{Fs, read_exact_at};
use crate::log::footer;
use crate::{journal, table, version};
use std::path::Path;

/// Shows the file at `path` (a journal segment or its footer, a manifest, a table or the hint file, told by its
/// name) as lines of offset, bytes and meaning. Reads the whole file into memory.
///
/// Errors: [`Invalid`](crate::ErrorKind::Invalid) for a name that is not a database file's,
/// [`Io`](crate::ErrorKind::Io) if it cannot be read. Damage is not an error: it is shown.
pub fn dump(fs: &dyn Fs, path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    let name = path.file_name().and_then(Name::parse);
    let show: fn(&[u8]) -> String = match name {
        Some(Name::Journal(_)) => journal::dump,
        Some(Name::Manifest(_)) => version::dump,
        Some(Name::Table(_)) => table::dump,
        Some(Name::Hint) => journal::dump_hint,
        Some(Name::Footer(_)) => footer::dump,
        Some(Name::Reserve | Name::Spare) => return Ok("space kept for when the disk is full\n".into()),
        Some(Name::Lock) | None => {
            return Err(Error::invalid("not a file that can be shown").in_file(path));
        }
    };
    let failed = |e| Error::io("reading", path, e);
    let file = fs.open_read(path).map_err(failed)?;
    let len = usize::try_from(file.len().map_err(failed)?)
        .map_err(|_| Error::invalid("a file too large to show"))?;
    let mut bytes = vec![0; len];
    read_exact_at(&*file, &mut bytes, 0).map_err(failed)?;
    Ok(show(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::sim::SimFs;
    use std::sync::Arc;

    #[test]
    fn every_kind_of_file_can_be_shown() {
        let fs = SimFs::new(1);
        let options =
            crate::options::Options::default().fs(Arc::new(fs.clone())).segment_bytes(16 << 10).workers(0);
        let db = crate::db::handle::Db::open("/db", options.journal_bytes(1 << 20)).unwrap();
        let fruit = db.keyspace("fruit").unwrap();
        fruit.put("apple", "red").unwrap();
        db.flush().unwrap();
        fruit.put("pear", "green").unwrap();
        let log = db.logs("logs").unwrap().log(1);
        for _ in 0..3 {
            db.batch().push(&log, 1, [7; 7000]).commit().unwrap();
        }
        while db.step().unwrap() {}
        drop((fruit, log, db));
        let mut kinds = Vec::new();
        for (path, _) in fs.files() {
            match dump(&fs, &path) {
                Ok(text) if text.starts_with("space kept") => {}
                Ok(text) => {
                    kinds.push(path.extension().map_or("hint".into(), |e| e.to_string_lossy().into_owned()));
                    assert!(text.contains("checksum"), "{}:\n{text}", path.display());
                }
                Err(e) => assert!(path.ends_with("LOCK"), "{e}"),
            }
        }
        kinds.sort();
        kinds.dedup();
        assert_eq!(kinds, ["footer", "hint", "journal", "manifest", "table"]);
    }
}
