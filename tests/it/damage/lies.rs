//! Files whose checksums all hold and that lie: what a stranger could write. What they say may be
//! believed, for nobody can know better; but nothing panics, hangs, takes more memory than it may or
//! ends in an error that is not one of the database's.

use super::anatomy::{FileAt, Piece};
use super::base::{Base, End};
use super::judge::is_bounded;
use super::shapes::{everything, logs, mapped_logs, tables_and_journal};
use crate::alloc::grown;
use crate::rng::Rng;
use crate::state::State;
use esker::fs::sim::SimFs;
use esker::{Db, Error, ErrorKind, Log};
use std::sync::Arc;

/// As `src/record.rs` says.
fn checksum(salt: u64, offset: usize, bytes: &[u8]) -> u32 {
    let mut x = salt ^ (offset as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mut hasher = crc32fast::Hasher::new_with_initial((x ^ (x >> 32)) as u32);
    hasher.update(bytes);
    hasher.finalize()
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn put(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

/// Makes the checksums over this piece hold. The salts are those of the file as it was.
fn seal(file: &FileAt, piece: &Piece, bytes: &mut [u8]) {
    let at = piece.range.start;
    match (file.kind(), piece.what) {
        ("journal", "header") => {
            let sum = checksum(0, 0, &bytes[at..at + 80]);
            put(bytes, at + 80, sum);
        }
        ("manifest", "header") => {
            let mut copy = bytes[piece.range.clone()].to_vec();
            copy[12..16].fill(0);
            put(bytes, at + 12, checksum(0, at, &copy));
        }
        ("journal" | "manifest", "record" | "snapshot" | "edit" | "last edit") => {
            let salt = u64_at(&file.bytes, 32);
            let len = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
            let payload = bytes.get(at + 32..).and_then(|rest| rest.get(..len)).unwrap_or_default();
            put(bytes, at + 4, checksum(salt, at, payload));
            let sum = checksum(salt, at, &bytes[at + 4..at + 32]);
            put(bytes, at, sum);
        }
        ("hint", "slot") => {
            let sum = checksum(0, at, &bytes[at + 8..at + 32]);
            put(bytes, at + 4, sum);
        }
        ("footer", what) => {
            let salt = u64_at(&file.bytes, 24);
            let count = |at: usize| u32::from_le_bytes(file.bytes[at..at + 4].try_into().unwrap()) as usize;
            let fences = 64 + 56 * count(32);
            let extents = fences + 16 * count(36).div_ceil(64);
            for (n, at) in (extents..bytes.len()).step_by(64 * 32).enumerate() {
                let sum = checksum(salt, at, &bytes[at..bytes.len().min(at + 64 * 32)]);
                put(bytes, fences + 16 * n + 8, sum);
            }
            if what != "head" {
                put(bytes, 40, checksum(salt, 64, &bytes[64..fences]));
                put(bytes, 44, checksum(salt, fences, &bytes[fences..extents]));
            }
            put(bytes, 48, checksum(salt, 0, &bytes[..48]));
        }
        ("table", what) => {
            let footer = bytes.len() - 76;
            let id = u64_at(&file.bytes, footer);
            let sections = ["range tombstones", "filter", "index", "properties"];
            if let Some(n) = sections.iter().position(|name| *name == what) {
                let sum = checksum(id, at, &bytes[piece.range.clone()]);
                put(bytes, footer + 8 + 12 * n + 8, sum);
            } else if what == "data block" {
                let end = piece.range.end - 4;
                put(bytes, end, checksum(id, at, &bytes[at..end]));
            }
            let id = u64_at(bytes, footer);
            put(bytes, footer + 64, checksum(id, footer, &bytes[footer..footer + 64]));
        }
        (kind, what) => panic!("{kind}: {what}"),
    }
}

const NUMBERS: [u64; 14] = [
    0,
    1,
    7,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 40,
    (1 << 56) - 1,
    1 << 56,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 8191,
    u64::MAX - 1,
    u64::MAX,
];

/// What is written over the original: other bytes at one place.
fn lies(piece: &Piece, bytes: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let mut all = Vec::new();
    // The rest of a manifest's header is zero and not looked at.
    let len = if piece.what == "header" { piece.range.len().min(84) } else { piece.range.len() };
    for (at, &byte) in bytes.iter().enumerate().skip(piece.range.start).take(len) {
        let near = [byte.wrapping_add(1), byte.wrapping_sub(1), byte ^ 0x80, 0, 0xff, 0x7f];
        all.extend(near.into_iter().filter(|lie| *lie != byte).map(|lie| (at, vec![lie])));
        if at.is_multiple_of(4) || piece.what == "last edit" || piece.what == "edit" {
            let wide = NUMBERS.into_iter().map(|n| n.to_le_bytes().to_vec());
            let narrow = [0u32, 1, 0x4000_0000, 0x7fff_ffff, u32::MAX].map(|n| n.to_le_bytes().to_vec());
            let varint = [vec![0xff; 9], [vec![0xff; 9], vec![1]].concat(), vec![0xff, 0xff, 0xff, 0x7f]];
            let fits = |lie: &Vec<u8>| at + lie.len() <= piece.range.end;
            all.extend(wide.chain(narrow).chain(varint).filter(fits).map(|lie| (at, lie)));
        }
    }
    all
}

/// Uses the database in every way, whatever it answers.
struct Believer<'a> {
    base: &'a Base,
    disk: SimFs,
    what: String,
}

impl Believer<'_> {
    fn typed<T>(&self, done: esker::Result<T>) -> Option<T> {
        // Work that meets entries out of order takes that for a mistake of its own.
        let ours = |e: &Error| match e.kind() {
            ErrorKind::Corruption => e.file().is_some(),
            // And an entry that says of itself to be newer than all commits was not there yet.
            kind => matches!(kind, ErrorKind::Invalid | ErrorKind::ReadOnly | ErrorKind::Gone),
        };
        match done {
            Ok(done) => Some(done),
            Err(e) => {
                assert!(ours(&e), "{}: {e:?}", self.what);
                None
            }
        }
    }

    /// Answers whether nothing was noticed.
    fn open_and_use(&self, read_only: bool) -> bool {
        let options = self.base.options.clone().fs(Arc::new(self.disk.clone())).read_only(read_only);
        let Some(db) = self.typed(Db::open(&self.base.dir, options)) else { return false };
        let verified = self.typed(db.verify());
        self.read(&db, &self.base.states[self.base.there]);
        if !read_only {
            for (name, _) in self.typed(db.names()).unwrap_or_default() {
                if let Some(logs) = self.typed(db.logs(&name)) {
                    for log in logs.iter().take(8).filter_map(|log| self.typed(log)) {
                        self.typed(db.batch().push(&log, 1, "told").commit());
                        let half = self.typed(log.bounds()).map_or(0, |b| b.start + (b.end - b.start) / 2);
                        self.typed(db.batch().purge(&log, half).commit());
                    }
                }
                let Some(keyspace) = self.typed(db.keyspace(&name)) else { continue };
                self.typed(keyspace.put("lies", "told"));
                self.typed(keyspace.delete_range("key0002".."key0004"));
            }
            self.typed(db.flush());
            while self.typed(db.step()).unwrap_or(false) {}
            for (name, _) in self.typed(db.names()).unwrap_or_default() {
                self.typed(db.keyspace(&name).and_then(|k| k.compact(..)));
            }
            self.read(&db, &self.base.states[self.base.there]);
            self.typed(db.close());
        }
        verified.is_some_and(|v| v.is_ok())
    }

    /// What is said to be a log, as far as somebody would go who does not know how long it is.
    fn read_log(&self, log: &Log) {
        let Some(bounds) = self.typed(log.bounds()) else { return };
        self.typed(log.tag_runs(bounds.start..bounds.end.min(bounds.start.saturating_add(99))));
        self.typed(log.tag(bounds.end / 2));
        log.range(..).take(99).for_each(|e| drop(self.typed(e)));
        log.range(..).rev().take(99).for_each(|e| drop(self.typed(e)));
        self.typed(log.read(.., 9999));
    }

    fn read(&self, db: &Db, keys: &State) {
        for (name, _) in self.typed(db.names()).unwrap_or_default() {
            if let Some(logs) = self.typed(db.logs(&name)) {
                logs.iter().filter_map(|log| self.typed(log)).for_each(|log| self.read_log(&log));
            }
            let Some(keyspace) = self.typed(db.keyspace(&name)) else { continue };
            // A scan ends with its first error.
            keyspace.iter().for_each(|e| drop(self.typed(e)));
            keyspace.iter().rev().for_each(|e| drop(self.typed(e)));
            for key in keys.get(&name).into_iter().flat_map(|rows| rows.keys()) {
                self.typed(keyspace.get(key));
            }
        }
    }
}

/// Tells every `stride`-th lie; answers how many, and how many were noticed.
fn tell(base: &Base, stride: usize, rng: &mut Rng) -> (usize, usize) {
    let (mut told, mut noticed) = (0, 0);
    for file in base.anatomy.files.iter().filter(|f| f.counts && !["lock", "reserve"].contains(&f.kind())) {
        let idle = ["never written", "never used", "not looked at", "all of it", "slot, not valid"];
        for piece in file.pieces.iter().filter(|p| !idle.contains(&p.what)) {
            let all = lies(piece, &file.bytes);
            for (at, lie) in all.into_iter().skip(rng.below(stride)).step_by(stride) {
                let mut bytes = file.bytes.clone();
                bytes[at..at + lie.len()].copy_from_slice(&lie);
                seal(file, piece, &mut bytes);
                if piece.what == "header" && rng.one_in(2) {
                    // Both headers tell it.
                    let twin = file.pieces.iter().filter(|p| p.what == "header");
                    for twin in twin.filter(|t| t.range != piece.range) {
                        let to = twin.range.start + at - piece.range.start;
                        bytes[to..to + lie.len()].copy_from_slice(&lie);
                        seal(file, twin, &mut bytes);
                    }
                }
                let disk = base.disk.crash(1);
                disk.damage(&file.path, |b| b.clone_from(&bytes)).unwrap();
                let what =
                    format!("{}, {} at {at} ({}): {lie:x?}", base.name, file.path.display(), piece.what);
                let believer = Believer { base, disk, what };
                let longest = base.anatomy.files.iter().map(|f| f.bytes.len()).max().unwrap();
                let mut silent = true;
                for read_only in [true, false] {
                    let (nothing, took) = grown(|| believer.open_and_use(read_only));
                    assert!(is_bounded(took, longest, false), "{}: {took:?}", believer.what);
                    silent &= nothing;
                }
                told += 1;
                noticed += usize::from(!silent);
            }
        }
    }
    (told, noticed)
}

fn tell_all(stride: usize) {
    let (mut told, mut noticed, mut rng) = (0, 0, Rng::new(stride as u64));
    let tables = [tables_and_journal(End::Killed), everything(End::PowerLoss), everything(End::Closed)];
    for base in tables.into_iter().chain([logs(End::Killed), mapped_logs(End::PowerLoss)]) {
        let (more, of_them) = tell(&base, stride, &mut rng);
        (told, noticed) = (told + more, noticed + of_them);
    }
    assert!(noticed > told / 10, "{noticed} of {told}");
    println!("proof: damage: {told} lies under checksums that hold, {noticed} noticed, 0 failures");
}

fn asked() -> Option<usize> {
    Some(std::env::var("ESKER_DAMAGE_STRIDE").ok()?.parse().expect("ESKER_DAMAGE_STRIDE is a number"))
}

#[test]
fn a_sample_of_lies_ends_well() {
    tell_all(asked().unwrap_or(2003));
}

#[test]
#[ignore = "takes long"]
fn lies_under_checksums_that_hold_end_well() {
    tell_all(asked().unwrap_or(1));
}

/// The control: the seals are those of the format, or no lie would be looked at.
#[test]
fn seals_hold() {
    for base in [everything(End::Killed), logs(End::Killed)] {
        for file in base.anatomy.files.iter().filter(|f| f.counts) {
            for piece in &file.pieces {
                if ["never written", "never used", "not looked at", "all of it"].contains(&piece.what) {
                    continue;
                }
                let mut bytes = file.bytes.clone();
                seal(file, piece, &mut bytes);
                assert!(bytes == file.bytes, "{:?}: {piece:?}", file.path);
            }
        }
    }
}

/// A row of the catalog, in a table, that cannot be used was refused without a word about where.
#[test]
fn a_catalog_that_lies_is_named() {
    let base = tables_and_journal(End::Killed);
    let mut named = 0;
    for file in base.anatomy.files.iter().filter(|f| f.kind() == "table") {
        let Some(piece) = file.pieces.iter().find(|p| p.what == "data block") else { continue };
        for at in piece.range.clone() {
            let mut bytes = file.bytes.clone();
            bytes[at] = 0;
            seal(file, piece, &mut bytes);
            let disk = base.disk.crash(1);
            disk.damage(&file.path, |b| b.clone_from(&bytes)).unwrap();
            if let Err(e) = Db::open(&base.dir, base.options.clone().fs(Arc::new(disk))) {
                assert!(e.is_corruption() && e.file().is_some(), "{at}: {e:?}");
                named += usize::from(e.to_string().contains("block_bytes"));
            }
        }
    }
    assert!(named > 0);
}
