//! Stored values that look like what the database writes: records of the journal, whole segments,
//! edits, tables, footers, cut out of its own files. They are values, before a crash and behind it,
//! and where what holds them is damaged.

use super::anatomy::Anatomy;
use super::base::{Base, ENDS, End, Past};
use super::counts::{Counts, Found};
use super::harm::Harm;
use super::shapes::everything;
use crate::rng::Rng;
use crate::state::{Bytes, small, state};
use crate::world::{DIR, How, Step, World, Write};
use esker::{Db, Durability};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Records, headers, snapshots, edits, blocks, footers and slots, a few of each, and whole files.
fn cuttings(anatomy: &Anatomy) -> Vec<Bytes> {
    let mut cut: BTreeMap<(&str, &str), Vec<Bytes>> = BTreeMap::new();
    for file in anatomy.files.iter().filter(|f| f.counts && f.bytes.len() <= 64 << 10) {
        let written = file.bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
        cut.entry((file.kind(), "file")).or_default().push(file.bytes[..written].to_vec());
        for piece in file.pieces.iter().filter(|p| p.range.len() <= 4096) {
            cut.entry((file.kind(), piece.what)).or_default().push(file.bytes[piece.range.clone()].to_vec());
        }
    }
    cut.into_values().flat_map(|alike| alike.into_iter().rev().take(2)).collect()
}

/// A database, and one whose values are cut out of it and out of itself, each at one of the eight
/// places that a multiple of eight may be away.
fn with_cuttings() -> (World, Past) {
    let options = small()
        .durability(Durability::Buffered)
        .memtable_bytes(64 << 10)
        .segment_bytes(64 << 10)
        .journal_bytes(1 << 20);
    let (mut world, mut past) = (World::new(options), Past::default());
    world.run_all(&[Step::Create("a"), Step::Create("b")]);
    let mut values = cuttings(&everything(End::Killed).anatomy);
    for round in 0..2 {
        for (n, value) in values.drain(..).enumerate() {
            let key = format!("{round}/{}/{}", "x".repeat(n % 8), n).into_bytes();
            let to = if n % 2 == 0 { "a" } else { "b" };
            let how = if n % 3 == 0 { How::Sync } else { How::Buffered };
            world.run(&Step::Commit(how, vec![Write::Put(to, key, value)]));
            if n == 9 {
                world.run(&Step::Flush);
            }
        }
        past.note(&world);
        // The files that hold them are cut up in turn, and by now some of them are of this database.
        let disk = world.sim.crash(1);
        let manifests = disk.files().into_iter().map(|f| f.0);
        let manifest = manifests.filter(|f| f.extension().is_some_and(|e| e == "manifest")).max().unwrap();
        values = cuttings(&Anatomy::new(&disk, DIR.as_ref(), &manifest));
        values.retain(|value| value.len() < 20_000);
    }
    (world, past)
}

#[test]
fn values_that_look_like_files_fool_nobody() {
    let mut counts = Counts::default();
    for end in ENDS {
        let (world, past) = with_cuttings();
        let base = Base::at_rest(format!("lookalikes, {end:?}"), world, past, end);
        let mut rng = Rng::new(3);
        for (i, file) in base.anatomy.files.iter().enumerate().filter(|(_, f)| f.counts) {
            // What holds them is damaged, in its head most of all: the bytes behind it are looked through.
            for piece in file.pieces.iter().filter(|p| ["record", "data block"].contains(&p.what)) {
                if rng.one_in(8) {
                    let at = piece.range.start + rng.below(32.min(piece.range.len()));
                    base.judge(&Harm::Flip(i, at * 8 + rng.below(8)), &mut counts);
                }
            }
        }
    }
    println!("{counts}");
    assert!(counts.of(Found::Open) > 0 && counts.of(Found::Read) > 0);
}

#[test]
fn values_that_look_like_files_survive_power_cuts() {
    let (world, _) = with_cuttings();
    let mut rng = Rng::new(5);
    let (ops, mut cuts) = (world.sim.ops(), 0);
    for op in (0..=ops).step_by(5) {
        for choice in [0, 1, 3, 6 + rng.below(60) as u64] {
            let disk = world.sim.crash_at(op, choice);
            let what = format!("operation {op} of {ops}, choice {choice}");
            let db = Db::open(DIR, world.options.clone().fs(Arc::new(disk)))
                .unwrap_or_else(|e| panic!("{what}: {e}"));
            let (least, most) = world.bounds(op, false);
            let at = world.seqs.binary_search(&db.visible_seq().get()).unwrap();
            assert!(least <= at && at <= most, "{what}: {at} commits, must be {least} to {most}");
            assert!(state(&db) == world.states[at], "{what}: wrong data");
            let verified = db.verify().unwrap();
            assert!(verified.is_ok(), "{what}: {verified}");
            cuts += 1;
        }
    }
    println!("proof: damage: {cuts} power cuts among values that look like files, 0 failures");
}
