//! The reserve: space on the disk that is kept for when there is none left.
//!
//! Two files that are allocated and never written. When the disk is full the *spare* is removed, so
//! that deletes and drops, and flushes and compactions of what they leave, go on; both are, the one
//! after the other, so that the database can still be opened. They are made again when there is space.
//! A file may have any length, or be missing: that is worth less, and no error. Nothing but the space
//! they take ever depends on them.

use crate::error::{ErrorKind, Result};
use crate::fs::Fs;
use crate::fs::names::Name;
use crate::sync::atomic::{AtomicBool, Ordering};
use std::io;
use std::path::Path;

/// Each file is a part of a journal segment, within these limits: the least holds the manifest and
/// the segment of a small database.
const PART: u64 = 16;
const LEAST: u64 = 96 << 10;
const MOST: u64 = 4 << 20;

/// When space may be given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum When {
    Opening,
    Running,
}

#[derive(Debug)]
pub(crate) struct Reserve {
    /// Of each file.
    bytes: u64,
    /// In the order in which they are made; given up in the other.
    files: [Held; 2],
    /// Somebody is making it.
    making: AtomicBool,
}

#[derive(Debug)]
struct Held {
    name: Name,
    /// Whether there is something to give up. Relaxed: the file system has the last word.
    there: AtomicBool,
    /// Whether it is as long as it should be.
    whole: AtomicBool,
}

impl Reserve {
    /// Of a database with such segments; `found` tells what is in its directory.
    pub fn new(segment_bytes: u64, found: impl Fn(Name) -> bool) -> Reserve {
        let held = |name| Held { name, there: AtomicBool::new(found(name)), whole: AtomicBool::new(false) };
        let bytes = (segment_bytes / PART).clamp(LEAST, MOST);
        Reserve { bytes, files: [held(Name::Reserve), held(Name::Spare)], making: AtomicBool::new(false) }
    }

    /// The size of a segment for what gives space back.
    pub fn segment_bytes(&self) -> u64 {
        self.bytes / 4
    }

    pub fn is_whole(&self) -> bool {
        self.files.iter().all(|held| held.whole.load(Ordering::Relaxed))
    }

    /// Takes the space, or what is missing of it. If there is none it can be tried again.
    pub fn make(&self, fs: &dyn Fs, dir: &Path) {
        if !self.making.swap(true, Ordering::Acquire) {
            let _ = self.files.iter().all(|held| held.make(fs, dir, self.bytes));
            self.making.store(false, Ordering::Release);
        }
    }

    /// Gives a part of the space back. Whether there was any.
    fn give_up(&self, fs: &dyn Fs, dir: &Path, when: When) -> bool {
        let [_, spare] = &self.files;
        let files = if when == When::Opening { &self.files[..] } else { std::slice::from_ref(spare) };
        let Some(held) = files.iter().rev().find(|held| held.there.swap(false, Ordering::Relaxed)) else {
            return false;
        };
        held.whole.store(false, Ordering::Relaxed);
        log::warn!(target: "esker", "the disk is full: {} bytes that were kept for this are given up", self.bytes);
        // The sync makes file systems hand the space out that keep it until the removal is durable.
        fs.remove(&held.name.path(dir)).and_then(|()| fs.sync_dir(dir)).is_ok()
    }

    /// Does what may not fail for want of space if that can be helped: again without a part of the
    /// reserve, as long as there is one.
    pub fn use_for<T>(
        &self,
        fs: &dyn Fs,
        dir: &Path,
        when: When,
        mut what: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        loop {
            match what() {
                Err(e) if e.kind() == ErrorKind::DiskFull && self.give_up(fs, dir, when) => {}
                done => return done,
            }
        }
    }
}

impl Held {
    /// Whether it is as long as it should be.
    fn make(&self, fs: &dyn Fs, dir: &Path, bytes: u64) -> bool {
        let path = self.name.path(dir);
        let (file, fresh) = match fs.open_write(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => (fs.create(&path), true),
            found => (found, false),
        };
        let allocated = file.and_then(|file| {
            // A part of it is better than leaving the space to whoever comes next.
            let parts: &[u64] = if fresh { &[4, 3, 2, 1] } else { &[4] };
            let mut allocated = Ok(0);
            for part in parts {
                allocated = file.allocate(bytes / 4 * part).map(|()| *part);
                if allocated.is_ok() {
                    break;
                }
            }
            if allocated.is_ok() && fresh {
                // One that a power loss takes is none. What was there already is durable.
                file.sync().and_then(|()| fs.sync_dir(dir))?;
            }
            allocated
        });
        // What it has already it keeps.
        self.there.store(allocated.is_ok() || !fresh, Ordering::Relaxed);
        if let Err(e) = &allocated {
            log::debug!(target: "esker", "less is kept for a full disk than should be: {e}, {}", path.display());
            if fresh {
                let _ = fs.remove(&path);
            }
        }
        let whole = allocated.is_ok_and(|part| part == 4);
        self.whole.store(whole, Ordering::Relaxed);
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::fs::sim::SimFs;

    const DIR: &str = "/";

    fn len(fs: &SimFs, name: Name) -> Option<u64> {
        let path = name.path(Path::new(DIR));
        fs.files().into_iter().find(|file| file.0 == path).map(|file| file.1)
    }

    fn lens(fs: &SimFs) -> [Option<u64>; 2] {
        [len(fs, Name::Reserve), len(fs, Name::Spare)]
    }

    #[test]
    fn it_is_given_up_by_and_by_and_made_again_when_there_is_space() {
        let (fs, dir) = (SimFs::new(1), Path::new(DIR));
        let reserve = Reserve::new(64 << 20, |_| false);
        reserve.make(&fs, dir);
        assert_eq!(lens(&fs), [Some(MOST); 2]);
        fs.set_capacity(Some(2 * MOST));
        let tries = |when| {
            let mut tries = 0;
            let failed = reserve.use_for(&fs, dir, when, || {
                tries += 1;
                Err::<(), _>(Error::io("x", dir, io::ErrorKind::StorageFull.into()))
            });
            assert_eq!(failed.unwrap_err().kind(), ErrorKind::DiskFull);
            tries
        };
        // Other failures do not touch it.
        assert!(reserve.use_for(&fs, dir, When::Opening, || Err::<(), _>(Error::invalid("x"))).is_err());
        assert_eq!(tries(When::Running), 2);
        assert_eq!((lens(&fs), reserve.is_whole()), ([Some(MOST), None], false));
        assert_eq!((tries(When::Running), tries(When::Opening)), (1, 2));
        assert_eq!(lens(&fs), [None; 2]);
        // Somebody takes a part of the space: the one for opening comes first.
        let file = fs.create(Path::new("/other")).unwrap();
        file.allocate(100).unwrap();
        reserve.make(&fs, dir);
        assert_eq!((lens(&fs), reserve.is_whole()), ([Some(MOST), Some(MOST / 4 * 3)], false));
        assert_eq!(tries(When::Opening), 3);
        file.allocate(MOST + 1).unwrap();
        reserve.make(&fs, dir);
        assert_eq!((lens(&fs), reserve.is_whole()), ([Some(MOST / 4 * 3), None], false));
        fs.set_capacity(None);
        reserve.make(&fs, dir);
        assert_eq!((lens(&fs), reserve.is_whole()), ([Some(MOST); 2], true));
        assert_eq!(tries(When::Opening), 3);
    }

    #[test]
    fn whatever_length_a_file_has_it_is_enlarged_and_never_cut() {
        for found in [0, 100, LEAST, MOST] {
            let (fs, dir) = (SimFs::new(1), Path::new(DIR));
            fs.create(&Name::Reserve.path(dir)).unwrap().allocate(found).unwrap();
            let reserve = Reserve::new(16 << 10, |name| name == Name::Reserve);
            fs.set_capacity(Some(found));
            reserve.make(&fs, dir);
            assert_eq!(lens(&fs), [Some(found), None], "the disk is full");
            fs.set_capacity(None);
            reserve.make(&fs, dir);
            assert_eq!(lens(&fs), [Some(found.max(LEAST)), Some(LEAST)]);
        }
    }
}
