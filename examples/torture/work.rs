//! The directory everything happens in: a fresh one, removed at the end unless something failed.

use crate::Outcome;
use crate::args::Args;
use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub struct Work {
    dir: TempDir,
}

impl Work {
    /// A new directory in the one asked for, or in the system's own place for such.
    pub fn new(args: &Args) -> Outcome<Work> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("esker-torture-");
        let dir = match &args.dir {
            Some(dir) => {
                fs::create_dir_all(dir)?;
                builder.tempdir_in(dir)?
            }
            None => builder.tempdir()?,
        };
        Ok(Work { dir })
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where the standard error of children goes.
    pub fn log(&self) -> PathBuf {
        self.path().join("stderr")
    }

    /// Leaves everything as it is, for `e` to be looked into.
    pub fn keep(&mut self, e: Box<dyn Error>) -> Box<dyn Error> {
        self.dir.disable_cleanup(true);
        format!("{e}\nwhat was found is kept in {}", self.path().display()).into()
    }
}

/// Removes a directory with everything in it, if it is there.
pub fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Copies the files of a directory into another, which is made anew.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    remove(to)?;
    fs::create_dir_all(to)?;
    let entries = match fs::read_dir(from) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
