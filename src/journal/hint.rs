//! The hint: how far the journal was durable, exact after the death of the process.
//!
//! Stored after each sync of the journal and never synced itself, so after power loss it may be
//! old, missing or torn; what it says was true all the same. It only ever serves as a witness
//! that journal bytes below its position once were durable.
//!
//! # Format
//!
//! The file `HINT` has two slots, at offsets 0 and 512, so that no sector holds both. They are
//! written in turn. All numbers are little-endian.
//!
//! ```text
//! offset  size  field of a slot
//!      0     4  magic "EHNT"
//!      4     4  checksum: crc32 over bytes 8..32, seeded with the slot's offset
//!      8     8  database id
//!     16     8  counter: one more with every store
//!     24     8  durable journal position
//!     32   480  zero, not looked at
//! ```

use crate::coding::{u32_at, u64_at};
use crate::dump::Dump;
use crate::error::{Error, Result};
use crate::fs::names::Name;
use crate::fs::{File, Fs, Window, read_exact_at, write_all_at};
use crate::ids::Position;
use crate::record;
use std::io;
use std::path::Path;
use std::sync::Arc;

const MAGIC: [u8; 4] = *b"EHNT";
const SLOT_LEN: usize = 32;
const SLOTS: [u64; 2] = [0, 512];
/// The file, once both were written.
const LEN: u64 = SLOTS[1] + SLOT_LEN as u64;

#[derive(Clone, Copy)]
struct Slot {
    db: u64,
    counter: u64,
    durable: Position,
}

impl Slot {
    fn encode(&self, offset: u64) -> [u8; SLOT_LEN] {
        let mut s = [0; SLOT_LEN];
        s[..4].copy_from_slice(&MAGIC);
        s[8..16].copy_from_slice(&self.db.to_le_bytes());
        s[16..24].copy_from_slice(&self.counter.to_le_bytes());
        s[24..32].copy_from_slice(&self.durable.0.to_le_bytes());
        let crc = record::checksum(0, offset, &s[8..]);
        s[4..8].copy_from_slice(&crc.to_le_bytes());
        s
    }

    fn decode(bytes: &[u8], offset: u64) -> Option<Slot> {
        let s = bytes.get(..SLOT_LEN)?;
        if !s.starts_with(&MAGIC) || u32_at(s, 4)? != record::checksum(0, offset, &s[8..]) {
            return None;
        }
        Some(Slot { db: u64_at(s, 8)?, counter: u64_at(s, 16)?, durable: Position(u64_at(s, 24)?) })
    }
}

/// The slot of `db` that reaches furthest: the newest.
fn newest(file: &dyn File, db: u64) -> Option<Slot> {
    let slot = |offset| {
        let mut bytes = [0; SLOT_LEN];
        read_exact_at(file, &mut bytes, offset).ok()?;
        Slot::decode(&bytes, offset).filter(|s| s.db == db)
    };
    SLOTS.into_iter().filter_map(slot).max_by_key(|s| (s.durable, s.counter))
}

/// What the hint of database `db` says; damage, or none at all, is `None`. Creates nothing.
pub(crate) fn read_hint(fs: &dyn Fs, dir: &Path, db: u64) -> Option<Position> {
    let file = fs.open_read(&Name::Hint.path(dir)).ok()?;
    newest(&*file, db).map(|s| s.durable)
}

/// The open hint file.
pub(crate) struct Hint {
    file: Arc<dyn File>,
    /// Where it is stored through, if it can be: without a system call beside each sync.
    window: Option<Box<dyn Window>>,
    last: Slot,
}

impl Hint {
    /// Opens the hint file of database `db`, or creates it. `mapped`: it may be stored through a window.
    pub fn open(fs: &dyn Fs, dir: &Path, db: u64, mapped: bool) -> Result<Hint> {
        let path = Name::Hint.path(dir);
        let opened = match fs.open_write(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => fs.create(&path),
            opened => opened,
        };
        let file = opened.map_err(|e| Error::io("opening the hint file", &path, e))?;
        let last = newest(&*file, db).unwrap_or(Slot { db, counter: 0, durable: Position(0) });
        let window = if mapped { window(&*file).ok().flatten() } else { None };
        Ok(Hint { file, window, last })
    }

    /// Stores that everything below `durable` is durable. Best effort: a failure is not reported,
    /// an older slot stays true.
    pub fn store(&mut self, durable: Position) {
        if durable <= self.last.durable {
            return;
        }
        let slot = Slot { counter: self.last.counter.wrapping_add(1), durable, ..self.last };
        let offset = SLOTS[(slot.counter % 2) as usize];
        let stored = match &mut self.window {
            Some(window) => window.write(offset, &slot.encode(offset)),
            None => write_all_at(&*self.file, &slot.encode(offset), offset),
        };
        if stored.is_ok() {
            self.last = slot;
        }
    }
}

/// The whole file, ready to be stored to, if there is space for it and the file system has windows.
fn window(file: &dyn File) -> io::Result<Option<Box<dyn Window>>> {
    file.allocate(LEN)?;
    let Some(mut window) = file.window(LEN)? else { return Ok(None) };
    window.populate(0, LEN)?;
    Ok(Some(window))
}

/// The annotated bytes of a hint file.
pub(crate) fn dump(bytes: &[u8]) -> String {
    let mut d = Dump::new(bytes, 0);
    for offset in SLOTS {
        d.field((offset as usize).saturating_sub(d.at()), "not looked at");
        let slot = bytes.get(offset as usize..).and_then(|b| Slot::decode(b, offset));
        d.title(if slot.is_some() { "slot" } else { "slot, not valid" });
        d.field(4, "magic");
        d.number(4, "checksum");
        d.number(8, "database id");
        d.number(8, "counter");
        d.number(8, "durable position");
    }
    d.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::sim::SimFs;

    const DIR: &str = "/";
    const DB: u64 = 9;

    fn hint(fs: &SimFs) -> Option<u64> {
        read_hint(fs, Path::new(DIR), DB).map(|p| p.0)
    }

    #[test]
    fn the_last_store_is_read_back_and_nothing_is_created_by_reading() {
        let fs = SimFs::new(1);
        assert_eq!((hint(&fs), fs.files().len()), (None, 0));
        for round in 0..3 {
            // An open hint goes on where the last one stopped.
            let mut open = Hint::open(&fs, Path::new(DIR), DB, round == 1).unwrap();
            for n in 1..=3 {
                open.store(Position(round * 10 + n));
                assert_eq!(hint(&fs), Some(round * 10 + n));
            }
            open.store(Position(round));
            assert_eq!(hint(&fs), Some(round * 10 + 3));
        }
        assert_eq!(read_hint(&fs, Path::new(DIR), DB + 1), None);
        // Another database in this place starts from nothing.
        let mut other = Hint::open(&fs, Path::new(DIR), DB + 1, true).unwrap();
        other.store(Position(1));
        assert_eq!(read_hint(&fs, Path::new(DIR), DB + 1), Some(Position(1)));
    }

    #[test]
    fn damage_leaves_the_other_slot_or_nothing() {
        let fs = SimFs::new(1);
        let mut open = Hint::open(&fs, Path::new(DIR), DB, false).unwrap();
        open.store(Position(100));
        open.store(Position(200));
        let path = Name::Hint.path(Path::new(DIR));
        let bytes = fs.read(&path).unwrap();
        assert_eq!(bytes.len(), 512 + 32);
        for bit in (0..32 * 8).chain(512 * 8..544 * 8) {
            fs.damage(&path, |b| b[bit / 8] ^= 1 << (bit % 8)).unwrap();
            // Counter 2 stands in the first slot.
            assert_eq!(hint(&fs), Some(if bit < 512 * 8 { 100 } else { 200 }), "{bit}");
            fs.damage(&path, |b| b.copy_from_slice(&bytes)).unwrap();
        }
        for cut in 0..bytes.len() {
            fs.damage(&path, |b| b.truncate(cut)).unwrap();
            assert_eq!(hint(&fs), if cut < 32 { None } else { Some(200) }, "{cut}");
            fs.damage(&path, |b| b.clone_from(&bytes)).unwrap();
        }
        // A slot is bound to its place.
        fs.damage(&path, |b| b.copy_within(..32, 512)).unwrap();
        fs.damage(&path, |b| b[..32].fill(0)).unwrap();
        assert_eq!(hint(&fs), None);
        // And it can be used again.
        let mut open = Hint::open(&fs, Path::new(DIR), DB, false).unwrap();
        open.store(Position(50));
        assert_eq!(hint(&fs), Some(50));
    }

    #[test]
    fn whatever_a_crash_leaves_was_true() {
        for mapped in [false, true] {
            let fs = SimFs::new(1);
            let mut open = Hint::open(&fs, Path::new(DIR), DB, mapped).unwrap();
            fs.sync_dir(Path::new(DIR)).unwrap();
            for n in 1..=4 {
                open.store(Position(n * 1000));
            }
            for choice in 0..fs.states_at(fs.ops()) {
                let found = hint(&fs.crash(choice));
                assert!(found.is_none_or(|p| p % 1000 == 0 && p <= 4000), "{choice}: {found:?}");
            }
        }
    }
}
