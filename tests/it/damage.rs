//! Damage at rest: flipped bits, lost sectors, cut, removed and exchanged files. A database that has
//! it tells so, with the name of a file, or answers as if it had not; never anything else.
//!
//! The one exception is what no witness can vouch for: after a power loss, or another end that was
//! not in order, commits behind the last sync but one may be taken for a torn tail. They are counted.
//!
//! `ESKER_SEEDS=a..b` tries other databases than the few that are always tried, and
//! `ESKER_DAMAGE_STRIDE=n` every n-th byte of the small ones.

use crate::crash::seeds;
use crate::rng::Rng;
use crate::state::{State, small, try_state};
use crate::world::{DIR, How, Step, World, Write, random_step, rows, value};
use esker::fs::Fs;
use esker::fs::sim::SimFs;
use esker::{Db, Durability, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How the database came to rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Closed,
    Killed,
    PowerLoss,
}

/// A database at rest, and what may be found there.
struct Base {
    name: String,
    disk: SimFs,
    world: World,
    /// What must be there where a witness has survived, and where none can.
    least: usize,
    residue: usize,
    /// The same where a whole sector is gone, with the witnesses in it.
    sector: usize,
    /// The tables that are part of it.
    tables: Vec<PathBuf>,
    /// The manifests of earlier moments.
    old_manifests: Vec<Vec<(PathBuf, Vec<u8>)>>,
}

/// What is done to it.
#[derive(Clone, Debug)]
enum Damage {
    Flip(PathBuf, usize),
    Byte(PathBuf, usize, u8),
    /// A sector of zeros, or of what is random.
    Sector(PathBuf, usize, Option<u64>),
    Cut(PathBuf, usize),
    Longer(PathBuf, usize),
    Remove(PathBuf),
    Swap(PathBuf, PathBuf),
    /// The contents of one file also under another name.
    Double(PathBuf, PathBuf),
    /// The manifests of an earlier moment in the place of those that are there.
    OldManifest(usize),
}

#[derive(Default, Debug)]
struct Outcomes {
    unharmed: usize,
    /// By open, and by the first read of the place.
    refused: usize,
    failed: usize,
    /// By verify.
    told: usize,
    /// Commits without a witness are gone.
    residue: usize,
}

impl Base {
    fn new(seed: u64, end: End) -> Base {
        let mut rng = Rng::new(seed);
        let mapped = rng.one_in(2);
        let options = small().durability(Durability::Buffered).mapped(mapped).memtable_bytes(2 << 10);
        let mut world = World::new(options);
        let mut old_manifests = Vec::new();
        for n in 0..60 {
            let step = random_step(&mut rng, world.state());
            world.run(&step);
            if n > 30 && n % 3 == 0 {
                let mut manifests = contents(&world.sim);
                manifests.retain(|f| f.0.extension().is_some_and(|e| e == "manifest"));
                old_manifests.push(manifests);
            }
        }
        Base::at_rest(format!("seed {seed}, {end:?}"), world, old_manifests, end)
    }

    /// Lets the run come to its end.
    fn at_rest(
        name: String,
        mut world: World,
        old_manifests: Vec<Vec<(PathBuf, Vec<u8>)>>,
        end: End,
    ) -> Base {
        if world.state().is_empty() {
            world.run(&Step::Create("a"));
        }
        // Some that are durable, the last of them by a sync of its own, and one that is not.
        let to = *["a", "b", "staging"].iter().find(|to| world.state().contains_key(**to)).unwrap();
        let one =
            |how, n: u64| Step::Commit(how, vec![Write::Put(to, n.to_be_bytes().to_vec(), value(n, 100))]);
        (0..6).for_each(|n| world.run(&one(if n % 2 == 0 { How::Buffered } else { How::Sync }, n)));
        let [mut least, mut residue, mut sector] = [0, 1, 5].map(|syncs| world.durable_before(syncs));
        match end {
            End::Closed => {
                world.db.take().unwrap().close().unwrap();
                [least, residue, sector] = [world.now(); 3];
            }
            End::Killed => world.run(&one(How::Buffered, 7)),
            End::PowerLoss => {}
        }
        let disk = world.sim.crash(u64::from(end != End::PowerLoss));
        let copy = disk.crash(1);
        let db = Db::open(DIR, world.options.clone().fs(Arc::new(copy.clone()))).unwrap();
        let verified = db.verify().unwrap();
        assert!(verified.is_ok() && verified.bytes > 0, "{name}: {verified}");
        let mut tables: Vec<PathBuf> = copy.files().into_iter().map(|f| f.0).collect();
        tables.retain(|path| path.extension().is_some_and(|e| e == "table"));
        assert_eq!(tables.len() as u64, verified.tables);
        drop(db);
        Base { name, disk, world, least, residue, sector, tables, old_manifests }
    }

    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let files = self.disk.files().into_iter().filter(|f| !f.0.ends_with("LOCK") && f.1 > 0);
        files.map(|(path, _)| (path.clone(), self.disk.read(path).unwrap())).collect()
    }

    fn some_damage(&self, rng: &mut Rng, files: &[(PathBuf, Vec<u8>)]) -> Damage {
        let (path, bytes) = rng.pick(files);
        let path = path.clone();
        let mut at = rng.below(bytes.len());
        if !rng.one_in(4) {
            // Most of some files is space that was never written.
            at = (at..bytes.len()).chain(0..at).find(|&at| bytes[at] != 0).unwrap_or(at);
        }
        match rng.below(20) {
            0..9 => Damage::Flip(path, at * 8 + rng.below(8)),
            9..12 => Damage::Byte(path, at, *rng.pick(&[0, 1, 0x7f, 0xff])),
            12 | 13 => Damage::Sector(path, at / 512, None),
            14 => Damage::Sector(path, at / 512, Some(rng.next())),
            15 | 16 => Damage::Cut(path, at),
            17 => Damage::Longer(path, 1 + rng.below(5000)),
            18 => Damage::Remove(path),
            _ => Damage::Swap(path, rng.pick(files).0.clone()),
        }
    }

    /// Whether the damage may take the only witness with it.
    fn takes_witnesses(&self, damage: &Damage) -> bool {
        damage.places().iter().any(|path| path.ends_with("HINT"))
    }

    /// Whole files: each lost, each in the place of another of its kind, each twice, and the manifests
    /// of the past.
    fn mixed_up(&self) -> Vec<Damage> {
        let files = self.files();
        let mut all: Vec<Damage> = (0..self.old_manifests.len()).map(Damage::OldManifest).collect();
        for (i, (one, _)) in files.iter().enumerate() {
            all.push(Damage::Remove(one.clone()));
            for (other, _) in files[i + 1..].iter().filter(|f| f.0.extension() == one.extension()) {
                all.push(Damage::Swap(one.clone(), other.clone()));
            }
            if let Some(kind) = one.extension() {
                all.push(Damage::Double(one.clone(), Path::new(DIR).join("900000").with_extension(kind)));
            }
        }
        all
    }

    fn judge(&self, damage: &Damage, rng: &mut Rng, outcomes: &mut Outcomes) {
        let what = format!("{}, {damage:?}", self.name);
        let disk = self.disk.crash(1);
        let unharmed = contents(&disk);
        damage.make(self, &disk);
        let read_only = rng.one_in(3);
        let options = self.world.options.clone().fs(Arc::new(disk.clone()));
        let before = contents(&disk);
        let db = match Db::open(DIR, options.clone().read_only(read_only)) {
            Ok(db) => db,
            Err(e) => {
                assert!(e.kind() == ErrorKind::Corruption && e.file().is_some(), "{what}: {e:?}");
                outcomes.refused += 1;
                assert!(before == contents(&disk), "{what}: an open that was refused has changed something");
                return;
            }
        };
        let seq = db.visible_seq().get();
        let Ok(at) = self.world.seqs.binary_search(&seq) else {
            panic!("{what}: no commit ended with sequence number {seq}")
        };
        // With the hint there is a witness for everything that was synced.
        let hint = self.name.ends_with("Killed") && !self.takes_witnesses(damage);
        let least = match damage {
            _ if hint => self.least,
            Damage::Sector(..) => self.sector,
            _ => self.residue,
        };
        assert!(at >= least, "{what}: {at} commits are there, must be {least}");
        let verified = db.verify().unwrap();
        for e in &verified.damage {
            assert!(e.is_corruption() && e.file().is_some(), "{what}: {e:?}");
        }
        let mut failed = self.read(&db, &self.world.states[at], &what);
        assert!(!failed || !verified.is_ok(), "{what}: verify does not tell");
        if before != unharmed && damage.places().iter().any(|path| self.tables.contains(path)) {
            assert!(!verified.is_ok(), "{what}: every byte of a table is verified");
        }
        outcomes.told += usize::from(!verified.is_ok());
        if !read_only && rng.one_in(2) {
            // Work on damaged tables must not make it worse.
            let flushed = db.flush().and_then(|()| {
                while db.step()? {}
                Ok(())
            });
            if let Err(e) = flushed {
                assert!(e.kind() == ErrorKind::Corruption && e.file().is_some(), "{what}: {e:?}");
                failed = true;
            }
            failed |= self.read(&db, &self.world.states[at], &what);
        }
        if failed {
            outcomes.failed += 1;
        } else if at < self.least {
            outcomes.residue += 1;
        } else {
            outcomes.unharmed += 1;
        }
    }

    /// Reads all there is. Answers whether that failed.
    fn read(&self, db: &Db, expected: &State, what: &str) -> bool {
        match try_state(db) {
            Ok(found) => {
                assert!(found == *expected, "{what}: wrong data");
                return false;
            }
            Err(e) => assert!(e.kind() == ErrorKind::Corruption && e.file().is_some(), "{what}: {e:?}"),
        }
        // What can be read is right, key by key.
        for (name, rows) in expected {
            let Ok(keyspace) = db.keyspace(name) else { continue };
            for (key, value) in rows {
                match keyspace.get(key) {
                    Ok(found) => assert_eq!(found.as_deref(), Some(&value[..]), "{what}: {key:?}"),
                    Err(e) => assert!(e.is_corruption(), "{what}: {e:?}"),
                }
            }
        }
        true
    }
}

fn contents(disk: &SimFs) -> Vec<(PathBuf, Vec<u8>)> {
    let files = disk.files().into_iter().filter(|f| !f.0.ends_with("LOCK"));
    files.map(|(path, _)| (path.clone(), disk.read(path).unwrap())).collect()
}

impl Damage {
    fn places(&self) -> Vec<&PathBuf> {
        match self {
            Damage::Flip(path, _) | Damage::Byte(path, ..) | Damage::Sector(path, ..) => vec![path],
            Damage::Cut(path, _) | Damage::Longer(path, _) | Damage::Remove(path) => vec![path],
            Damage::Swap(a, b) => vec![a, b],
            Damage::Double(_, new) => vec![new],
            Damage::OldManifest(_) => vec![],
        }
    }

    fn make(&self, base: &Base, disk: &SimFs) {
        let change = |path: &Path, change: &dyn Fn(&mut Vec<u8>)| disk.damage(path, change).unwrap();
        match self {
            Damage::Flip(path, bit) => change(path, &|b| b[bit / 8] ^= 1 << (bit % 8)),
            Damage::Byte(path, at, byte) => change(path, &|b| b[*at] = *byte),
            Damage::Sector(path, no, seed) => change(path, &|b| {
                let end = b.len().min(no * 512 + 512);
                let mut rng = seed.map(Rng::new);
                b[no * 512..end].fill_with(|| rng.as_mut().map_or(0, |rng| rng.next() as u8));
            }),
            Damage::Cut(path, len) => change(path, &|b| b.truncate(*len)),
            Damage::Longer(path, more) => change(path, &|b| b.resize(b.len() + more, 0xa5)),
            Damage::Remove(path) => disk.remove(path).unwrap(),
            Damage::Swap(one, other) => {
                let (a, b) = (disk.read(one).unwrap(), disk.read(other).unwrap());
                change(one, &|bytes| bytes.clone_from(&b));
                change(other, &|bytes| bytes.clone_from(&a));
            }
            Damage::Double(path, new) => {
                let bytes = disk.read(path).unwrap();
                drop(disk.create(new).unwrap());
                change(new, &|b| b.clone_from(&bytes));
            }
            Damage::OldManifest(n) => {
                let is_manifest = |f: &(PathBuf, Vec<u8>)| f.0.extension().is_some_and(|e| e == "manifest");
                contents(disk).iter().filter(|f| is_manifest(f)).for_each(|f| disk.remove(&f.0).unwrap());
                for (path, bytes) in &base.old_manifests[*n] {
                    drop(disk.create(path).unwrap());
                    change(path, &|b| b.clone_from(bytes));
                }
            }
        }
    }
}

fn damage_all(seeds: std::ops::Range<u64>, each: usize) {
    for end in [End::Closed, End::Killed, End::PowerLoss] {
        let mut outcomes = Outcomes::default();
        for seed in seeds.clone() {
            let base = Base::new(seed, end);
            let (files, mut rng) = (base.files(), Rng::new(seed));
            for _ in 0..each {
                let damage = base.some_damage(&mut rng, &files);
                base.judge(&damage, &mut rng, &mut outcomes);
            }
        }
        println!("{end:?}: {outcomes:?}");
        assert!(outcomes.refused > 0 && outcomes.failed > 0 && outcomes.unharmed > 0);
        assert!(end != End::Closed || outcomes.residue == 0);
    }
}

#[test]
fn a_sample_of_damage_is_told_or_does_nothing() {
    damage_all(seeds(6), 60);
}

#[test]
#[ignore = "takes long"]
fn much_damage_is_told_or_does_nothing() {
    damage_all(seeds(100), 4000);
}

#[test]
fn files_that_are_mixed_up_are_told() {
    let mut outcomes = Outcomes::default();
    for end in [End::Closed, End::Killed, End::PowerLoss] {
        for seed in seeds(4) {
            let (base, mut rng) = (Base::new(seed, end), Rng::new(seed));
            base.mixed_up().iter().for_each(|damage| base.judge(damage, &mut rng, &mut outcomes));
        }
        println!("after {end:?}: {outcomes:?}");
    }
    // A table in the place of another is told when opening, unless both are equally long.
    assert!(outcomes.refused > 0 && outcomes.unharmed > 0);
}

/// The small databases whose every byte is damaged in turn.
fn shapes() -> Vec<(&'static str, World)> {
    let options = || small().durability(Durability::Buffered).memtable_bytes(64 << 10);
    let fill = |world: &mut World, round: usize| {
        world.run(&Step::Commit(How::Buffered, rows(&["a", "b"], round..round + 12, 40, round as u64)));
        world.run(&Step::Commit(How::Sync, vec![Write::Delete("a", b"key0003".to_vec())]));
    };
    let start = || {
        let mut world = World::new(options());
        world.run_all(&[Step::Create("a"), Step::Create("b")]);
        fill(&mut world, 0);
        world
    };
    let journal = start();
    let mut tables = start();
    tables.run(&Step::Flush);
    fill(&mut tables, 4);
    let mut levels = start();
    for round in 0..9 {
        fill(&mut levels, round);
        let from = format!("key{round:04}").into_bytes();
        levels.run(&Step::Commit(How::Buffered, vec![Write::DeleteRange("b", from, b"key0020".to_vec())]));
        levels.run_all(&[Step::Flush, Step::Settle]);
    }
    vec![("journal", journal), ("tables and journal", tables), ("levels", levels)]
}

#[test]
fn bytes_all_over_small_databases() {
    let asked = std::env::var("ESKER_DAMAGE_STRIDE").ok();
    let asked: Option<usize> = asked.map(|n| n.parse().expect("ESKER_DAMAGE_STRIDE is a number"));
    for end in [End::Closed, End::Killed, End::PowerLoss] {
        for (shape, world) in shapes() {
            let base = Base::at_rest(format!("{shape}, {end:?}"), world, Vec::new(), end);
            let (mut outcomes, mut rng) = (Outcomes::default(), Rng::new(7));
            for (path, bytes) in base.files() {
                let stride = asked.unwrap_or(bytes.len() / 16).max(1);
                // Most of some files is space that was never written: a taste of it is enough.
                let written = bytes.len() - bytes.iter().rev().take_while(|b| **b == 0).count();
                for at in (rng.below(stride)..bytes.len()).step_by(stride) {
                    let at = if at < written || rng.one_in(8) { at } else { rng.below(written.max(1)) };
                    let kinds = [
                        Damage::Flip(path.clone(), at * 8 + rng.below(8)),
                        Damage::Sector(path.clone(), at / 512, None),
                        Damage::Cut(path.clone(), at),
                    ];
                    match asked {
                        Some(_) => kinds.iter().for_each(|d| base.judge(d, &mut rng, &mut outcomes)),
                        None => base.judge(rng.pick(&kinds), &mut rng, &mut outcomes),
                    }
                }
            }
            println!("{}: {outcomes:?}", base.name);
            assert!(outcomes.refused > 0, "{}", base.name);
        }
    }
}

/// Damage in many places at once: each is named, and nothing beside them.
#[test]
fn verify_names_every_damaged_place() {
    for (seed, mapped) in [(1, false), (2, true)] {
        let mut rng = Rng::new(seed);
        let options = small().durability(Durability::Buffered).mapped(mapped).memtable_bytes(64 << 10);
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
    let base = Base::new(3, End::Killed);
    let open = |disk: &SimFs| {
        let options = base.world.options.clone().read_only(true);
        Db::open(DIR, options.fs(Arc::new(disk.clone()))).unwrap()
    };
    let disk = base.disk.crash(1);
    let db = open(&disk);
    let verified = db.verify().unwrap();
    assert!(verified.is_ok() && verified.segments > 0, "{verified}");
    for (path, _) in base.files() {
        let bytes = disk.read(&path).unwrap();
        let needed = match path.extension().and_then(|e| e.to_str()) {
            Some("table") => base.tables.contains(&path),
            // One that was prepared holds nothing yet.
            Some("journal") => bytes.starts_with(b"ESKRJRNL"),
            Some("manifest") => true,
            _ => continue,
        };
        disk.damage(&path, |b| b[..5000.min(bytes.len())].fill(0xa5)).unwrap();
        let found = db.verify().unwrap();
        assert!(!needed || found.damage.iter().any(|e| e.file() == Some(&path)), "{path:?}: {found}");
        disk.damage(&path, |b| b.clone_from(&bytes)).unwrap();
    }
    assert!(db.verify().unwrap().is_ok());
    db.clone().close().unwrap();
    assert_eq!(db.verify().unwrap_err().kind(), ErrorKind::Closed);
}
