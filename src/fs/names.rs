//! File names: made from numbers, never read from a file's contents.
//!
//! | name | what |
//! |---|---|
//! | `LOCK` | held while the database is open; the holder's process id in text |
//! | `HINT` | the last durable journal position, exact after process death |
//! | `RESERVE`, `SPARE` | space kept for when the disk is full; of any length, the bytes mean nothing |
//! | `000012.journal` | a journal segment |
//! | `000012.footer` | the footer of the journal segment of that number: where log entries lie in it |
//! | `000012.manifest` | a manifest |
//! | `000012.table` | a sorted table |

use crate::ids::FileNo;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// What a file of the database directory is, told from its name alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Name {
    Lock,
    Hint,
    Reserve,
    Spare,
    Journal(FileNo),
    Footer(FileNo),
    Manifest(FileNo),
    Table(FileNo),
}

impl Name {
    /// Tells a name of ours from a foreign one (`None`). Only the exact spelling that
    /// [`Name::path`] makes is ours.
    pub fn parse(name: &OsStr) -> Option<Name> {
        let name = name.to_str()?;
        let parsed = match name {
            "LOCK" => Name::Lock,
            "HINT" => Name::Hint,
            "RESERVE" => Name::Reserve,
            "SPARE" => Name::Spare,
            _ => {
                let (digits, suffix) = name.split_once('.')?;
                let no = FileNo(digits.parse().ok()?);
                match suffix {
                    "journal" => Name::Journal(no),
                    "footer" => Name::Footer(no),
                    "manifest" => Name::Manifest(no),
                    "table" => Name::Table(no),
                    _ => return None,
                }
            }
        };
        (parsed.spelling() == name).then_some(parsed)
    }

    /// The number in the name.
    pub fn number(self) -> Option<FileNo> {
        match self {
            Name::Lock | Name::Hint | Name::Reserve | Name::Spare => None,
            Name::Journal(no) | Name::Footer(no) | Name::Manifest(no) | Name::Table(no) => Some(no),
        }
    }

    fn spelling(self) -> String {
        match self {
            Name::Lock => "LOCK".into(),
            Name::Hint => "HINT".into(),
            Name::Reserve => "RESERVE".into(),
            Name::Spare => "SPARE".into(),
            Name::Journal(no) => format!("{no}.journal"),
            Name::Footer(no) => format!("{no}.footer"),
            Name::Manifest(no) => format!("{no}.manifest"),
            Name::Table(no) => format!("{no}.table"),
        }
    }

    /// The full path of this file in `dir`.
    pub fn path(self, dir: &Path) -> PathBuf {
        dir.join(self.spelling())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_spelling_is_ours() {
        for name in [
            Name::Lock,
            Name::Hint,
            Name::Reserve,
            Name::Spare,
            Name::Journal(FileNo(1)),
            Name::Footer(FileNo(2)),
            Name::Manifest(FileNo(1_234_567)),
            Name::Table(FileNo(u64::MAX)),
        ] {
            assert_eq!(Name::parse(OsStr::new(&name.spelling())), Some(name));
        }
        for foreign in
            ["1.table", "0000001.table", "+00001.table", "000001.table.bak", "lock", "", ".", "000001."]
        {
            assert_eq!(Name::parse(OsStr::new(foreign)), None, "{foreign}");
        }
    }
}
