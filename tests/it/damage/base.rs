//! Databases at rest: of every shape, however they came to their end.

use super::anatomy::{Anatomy, kind};
use super::judge::live_tables;
use crate::rng::Rng;
use crate::state::{State, small, state};
use crate::world::{DIR, How, Step, World, Write, random_step, value};
use esker::fs::sim::SimFs;
use esker::{Db, Durability, Options};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How the database came to rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Closed,
    Killed,
    PowerLoss,
    /// The power went while it was being opened, when the new manifest was complete and the old one
    /// still there.
    Opening,
}

pub const ENDS: [End; 4] = [End::Closed, End::Killed, End::PowerLoss, End::Opening];

/// A database at rest, and what may be found there.
#[derive(Clone)]
pub struct Base {
    pub name: String,
    pub disk: SimFs,
    pub dir: PathBuf,
    pub options: Options,
    /// The state behind each commit, and its sequence number.
    pub states: Vec<State>,
    pub seqs: Vec<u64>,
    /// The commits that are there, those that were promised to be, and those that were durable before
    /// the last sync.
    pub there: usize,
    pub durable: usize,
    pub before_last_sync: usize,
    pub anatomy: Anatomy,
    /// The tables that are part of it.
    pub live_tables: Vec<PathBuf>,
    /// Journal segments as they were at earlier moments.
    pub past: Vec<(PathBuf, Vec<u8>)>,
    /// The manifests of earlier moments.
    pub old_manifests: Vec<Vec<(PathBuf, Vec<u8>)>>,
}

/// What a run leaves beside the world itself.
#[derive(Default)]
pub struct Past {
    segments: Vec<(PathBuf, Vec<u8>)>,
    pub tables: Vec<(PathBuf, Vec<u8>)>,
    manifests: Vec<Vec<(PathBuf, Vec<u8>)>>,
}

impl Past {
    /// Takes down what the files look like now.
    pub fn note(&mut self, world: &World) {
        let files = world.sim.files().into_iter().filter(|f| f.1 > 0);
        let files: Vec<_> = files.map(|(path, _)| (path.clone(), world.sim.read(path).unwrap())).collect();
        let of = |wanted: &str| files.iter().filter(|f| kind(&f.0) == wanted).cloned().collect::<Vec<_>>();
        for segment in of("journal").into_iter().filter(|s| s.1.starts_with(b"ESKRJRNL")) {
            if !self.segments.contains(&segment) {
                self.segments.push(segment);
            }
        }
        self.tables.extend(of("table"));
        self.manifests.push(of("manifest"));
    }
}

impl Base {
    /// After random calls.
    pub fn random(seed: u64, end: End) -> Base {
        let mut rng = Rng::new(seed);
        let mapped = rng.one_in(2);
        let options = small().durability(Durability::Buffered).mapped(mapped).memtable_bytes(2 << 10);
        let (mut world, mut past) = (World::new(options), Past::default());
        for n in 0..60 {
            let step = random_step(&mut rng, world.state());
            world.run(&step);
            if n > 30 && n % 3 == 0 {
                past.note(&world);
            }
        }
        if world.state().is_empty() {
            world.run(&Step::Create("a"));
        }
        Base::at_rest(format!("seed {seed}, {end:?}"), world, past, end)
    }

    /// Lets the run come to its end: some commits that are durable, the last of them by a sync of
    /// its own, and one that is not.
    pub fn at_rest(name: String, mut world: World, past: Past, end: End) -> Base {
        let to = *["a", "b", "staging"].iter().find(|to| world.state().contains_key(**to)).unwrap();
        let one =
            |how, n: u64| Step::Commit(how, vec![Write::Put(to, n.to_be_bytes().to_vec(), value(n, 100))]);
        (0..6).for_each(|n| world.run(&one(if n % 2 == 0 { How::Buffered } else { How::Sync }, n)));
        let disk = match end {
            End::Closed => {
                world.db.take().unwrap().close().unwrap();
                world.sim.crash(1)
            }
            End::Killed => {
                world.run(&one(How::Buffered, 7));
                world.sim.crash(1)
            }
            End::PowerLoss => world.sim.crash(0),
            End::Opening => amid_opening(&world.sim.crash(1), &world.options),
        };
        let durable = if end == End::Closed { world.now() } else { world.durable_before(0) };
        let before_last_sync = world.durable_before(1).min(durable);
        let World { options, states, seqs, .. } = world;
        Base::new(name, disk, DIR.into(), options, (states, seqs), (before_last_sync, durable), past)
    }

    /// The copy that a checkpoint makes of the world as it is, and a power loss leaves.
    pub fn checkpoint(name: String, world: World, past: Past) -> Base {
        let dir = PathBuf::from("/copy/of");
        world.db().checkpoint(&dir).unwrap();
        let (disk, now) = (world.sim.crash(0), world.now());
        let World { options, states, seqs, .. } = world;
        Base::new(name, disk, dir, options, (states, seqs), (now, now), past)
    }

    fn new(
        name: String,
        disk: SimFs,
        dir: PathBuf,
        options: Options,
        (states, seqs): (Vec<State>, Vec<u64>),
        (before_last_sync, durable): (usize, usize),
        past: Past,
    ) -> Base {
        let copy = disk.crash(1);
        let db = Db::open(&dir, options.clone().fs(Arc::new(copy)).read_only(true)).unwrap();
        let there = seqs.binary_search(&db.visible_seq().get()).unwrap();
        assert!(there >= durable && state(&db) == states[there], "{name}");
        let verified = db.verify().unwrap();
        assert!(verified.is_ok() && verified.bytes > 0, "{name}: {verified}");
        let anatomy = Anatomy::new(&disk, &dir, &newest_manifest(&disk, &dir, &options));
        let Past { segments, manifests, .. } = past;
        let mut base = Base {
            name,
            disk,
            dir,
            options,
            states,
            seqs,
            there,
            durable,
            before_last_sync,
            anatomy,
            live_tables: Vec::new(),
            past: segments,
            old_manifests: manifests,
        };
        base.live_tables = live_tables(&base);
        assert_eq!(base.live_tables.len() as u64, verified.tables);
        base
    }

    /// The commits that are there if none from this sequence number on is.
    pub fn commits_before(&self, seq: u64) -> usize {
        (self.seqs.partition_point(|s| *s < seq) - 1).min(self.there)
    }
}

/// The disk as a power loss finds it when two manifests are complete.
fn amid_opening(disk: &SimFs, options: &Options) -> SimFs {
    let options = options.clone().fs(Arc::new(disk.clone()));
    let db = Db::open(DIR, options).unwrap();
    let manifests = |disk: &SimFs| {
        let files = disk.files().into_iter().filter(|f| kind(&f.0) == "manifest");
        files.filter(|f| disk.read(&f.0).unwrap().starts_with(b"esker\0mf")).count()
    };
    let found = (0..=disk.ops()).map(|op| disk.crash_at(op, 0)).rfind(|disk| manifests(disk) == 2);
    drop(db);
    found.expect("a moment with two manifests")
}

/// The manifest that counts: the one without which the database is another, or none.
fn newest_manifest(disk: &SimFs, dir: &Path, options: &Options) -> PathBuf {
    let files = disk.files().into_iter().map(|f| f.0);
    let mut manifests: Vec<PathBuf> = files.filter(|f| f.starts_with(dir) && kind(f) == "manifest").collect();
    manifests.sort();
    let newest = manifests.pop().unwrap();
    let copy = disk.crash(1);
    manifests.iter().for_each(|old| copy.damage(old, |b| b.fill(0)).unwrap());
    Db::open(dir, options.clone().fs(Arc::new(copy)).read_only(true))
        .expect("the newest manifest is complete");
    newest
}
