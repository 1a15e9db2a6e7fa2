//! Damage at rest: flipped bits, lost sectors, cut, removed and exchanged files. A database that has
//! it tells so, with the name of a file, or answers as if it had not; never anything else.
//!
//! What must come of damage to the journal is worked out from what was written ([`oracle`]): neither
//! more may be lost nor more be refused than that. The one loss that nothing tells of is what no
//! witness can vouch for: after a power loss, commits whose records were the last. They are counted.
//!
//! `ESKER_SEEDS=a..b` tries other random databases than the few that are always tried.
//! `ESKER_DAMAGE_STRIDE=n` tries every n-th case of the databases of [`shapes`], beginning with
//! the one of number `ESKER_DAMAGE_SHARD`: n runs with the shards below n try them all.

mod anatomy;
mod base;
mod control;
mod counts;
mod harm;
mod judge;
mod lies;
mod logs;
mod lookalikes;
mod oracle;
mod shapes;
mod stranger;

use crate::crash::seeds;
use crate::rng::Rng;
use crate::state::small;
use crate::world::{DIR, How, Step, World, rows};
use anatomy::{FileAt, kind};
use base::{Base, ENDS, End};
use counts::{Counts, Found};
use esker::fs::sim::SimFs;
use esker::{Db, Durability, ErrorKind};
use shapes::shapes;
use std::path::PathBuf;
use std::sync::Arc;

fn damage_all(seeds: std::ops::Range<u64>, each: usize) {
    let mut all = Counts::default();
    for end in ENDS {
        let mut counts = Counts::default();
        for seed in seeds.clone() {
            let base = Base::random(seed, end);
            let mut rng = Rng::new(seed);
            (0..each).for_each(|_| base.judge(&base.some_harm(&mut rng), &mut counts));
        }
        assert!(counts.of(Found::Open) > 0 && counts.of(Found::Nothing) > 0, "{end:?}");
        assert!(end != End::Closed || counts.of(Found::Residue) == 0);
        all.merge(counts);
    }
    println!("{all}");
    assert!(all.of(Found::Read) > 0);
}

#[test]
fn a_sample_of_damage_is_told_or_does_nothing() {
    damage_all(seeds(5), 40);
}

#[test]
#[ignore = "takes long"]
fn much_damage_is_told_or_does_nothing() {
    damage_all(seeds(100), 4000);
}

#[test]
fn files_that_are_mixed_up_are_told() {
    let mut counts = Counts::default();
    for end in ENDS {
        for seed in seeds(2) {
            let base = Base::random(seed, end);
            let mixed = base.files_harmed().into_iter().chain(base.space_reused());
            mixed.for_each(|harm| base.judge(&harm, &mut counts));
        }
    }
    println!("{counts}");
    // A table in the place of another is told when opening, unless both are equally long.
    assert!(counts.of(Found::Open) > 0 && counts.of(Found::Nothing) > 0);
}

/// One case of so many, and with which to begin.
fn asked(or: usize) -> (usize, usize) {
    let number = |name: &str| {
        let asked = std::env::var(name).ok()?;
        Some(asked.parse().unwrap_or_else(|_| panic!("{name} is a number")))
    };
    let stride = number("ESKER_DAMAGE_STRIDE").unwrap_or(or).max(1);
    (stride, number("ESKER_DAMAGE_SHARD").unwrap_or(stride / 2) % stride)
}

fn sweep(base: &Base, (stride, shard): (usize, usize), all: bool) -> Counts {
    let mut counts = Counts::default();
    let whole = base.files_harmed().into_iter().chain(base.pieces_harmed()).chain(base.space_reused());
    let cases = base.bytes_harmed(all).chain(whole).skip(shard).step_by(stride);
    cases.for_each(|harm| base.judge(&harm, &mut counts));
    counts
}

#[test]
fn bytes_all_over_small_databases() {
    let mut all = Counts::default();
    for base in shapes() {
        let counts = sweep(&base, asked(3999), false);
        assert!(counts.of(Found::Open) > 0, "{}", base.name);
        all.merge(counts);
    }
    println!("{all}");
}

/// Every bit of whole databases, every cut, every sector; of space that was never written a taste.
/// `ESKER_DAMAGE_SHAPE=text`: of those whose names hold the text. `ESKER_DAMAGE_ALL=1`: also every bit
/// of what was never written.
#[test]
#[ignore = "takes long"]
fn every_bit_of_whole_databases() {
    let only = std::env::var("ESKER_DAMAGE_SHAPE").unwrap_or_default();
    let all_space = std::env::var_os("ESKER_DAMAGE_ALL").is_some();
    let (stride, shard) = asked(1);
    let mut all = Counts::default();
    for base in shapes().filter(|base| base.name.contains(&only)) {
        let counts = sweep(&base, (stride, shard), all_space);
        println!("{}, of {stride} the cases {shard}: {counts}", base.name);
        all.merge(counts);
    }
    println!("{all}");
}

/// Damage in many places at once: each is named, and nothing beside them.
#[test]
fn verify_names_every_damaged_place() {
    for (seed, mapped) in [(1, false), (2, true)] {
        let mut rng = Rng::new(seed);
        let options = small()
            .memtable_bytes(32 << 10)
            .journal_bytes(256 << 10)
            .durability(Durability::Buffered)
            .mapped(mapped)
            .memtable_bytes(64 << 10);
        let mut world = World::new(options);
        world.run_all(&[Step::Create("a"), Step::Create("b")]);
        for n in 0..6 {
            world.run(&Step::Commit(How::Buffered, rows(&["a", "b"], n * 10..n * 10 + 40, 60, n as u64)));
            world.run(&Step::Flush);
        }
        for n in 0..10 {
            world.run(&Step::Commit(How::Buffered, rows(&["a"], n..n + 9, 300, n as u64)));
        }
        world.run(&Step::Sync);
        let clean = world.db().verify().unwrap();
        assert!(clean.is_ok() && clean.tables > 5 && clean.segments > 1, "{clean}");
        assert!(clean.to_string().ends_with("no damage"));
        // The first block of tables, the filter of some, and records in the middle of segments.
        let mut places = Vec::new();
        for (path, len) in world.sim.files() {
            let at = match path.extension().and_then(|e| e.to_str()) {
                Some("table") => rng.below(20),
                Some("journal") if len > 0 => 8192 + 40,
                _ => continue,
            };
            let bytes = world.sim.read(&path).unwrap();
            if bytes[at..at + 8].iter().all(|b| *b == 0) {
                continue;
            }
            world.sim.damage(&path, |b| b[at] ^= 0x10).unwrap();
            places.push(path.clone());
            // And one further behind, which the first must not hide.
            if path.extension().is_some_and(|e| e == "table") {
                world.sim.damage(&path, |b| b[len as usize - 100] ^= 0x10).unwrap();
                places.push(path);
            }
        }
        // Everything goes on.
        world.run(&Step::Commit(How::Sync, rows(&["b"], 0..3, 10, 99)));
        let found = world.db().verify().unwrap();
        let mut named: Vec<PathBuf> = found.damage.iter().map(|e| e.file().unwrap().into()).collect();
        assert!(found.damage.iter().all(|e| e.is_corruption() && e.offset().is_some()), "{found}");
        named.sort();
        places.sort();
        assert_eq!(named, places, "{found}");
        assert!(found.to_string().contains("places"), "{found}");
    }
}

/// Damage is told by a database that was opened read-only as well, and one that is closed answers
/// so.
#[test]
fn verify_of_a_read_only_database() {
    let base = Base::random(3, End::Killed);
    let open = |disk: &SimFs| {
        let options = base.options.clone().read_only(true);
        Db::open(DIR, options.fs(Arc::new(disk.clone()))).unwrap()
    };
    let disk = base.disk.crash(1);
    let db = open(&disk);
    let verified = db.verify().unwrap();
    assert!(verified.is_ok() && verified.segments > 0, "{verified}");
    for FileAt { path, bytes, pieces, counts } in base.anatomy.files.iter().filter(|f| !f.bytes.is_empty()) {
        let needed = match kind(path) {
            "table" => base.live_tables.contains(path),
            // One that was prepared holds nothing yet, one that is kept nothing any more.
            "journal" => *counts && pieces[0].what != "never used",
            "manifest" => true,
            _ => continue,
        };
        disk.damage(path, |b| b[..5000.min(bytes.len())].fill(0xa5)).unwrap();
        let found = db.verify().unwrap();
        assert!(!needed || found.damage.iter().any(|e| e.file() == Some(path)), "{path:?}: {found}");
        disk.damage(path, |b| b.clone_from(bytes)).unwrap();
    }
    assert!(db.verify().unwrap().is_ok());
    db.clone().close().unwrap();
    assert_eq!(db.verify().unwrap_err().kind(), ErrorKind::Closed);
}
