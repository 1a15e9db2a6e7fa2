//! The long run: one directory, many lives. In each, writers, readers, holders of snapshots and
//! iterators, creators and droppers of keyspaces work at once, in a process that is killed or ends
//! in order; after each, everything is compared with what the writers must have made. In the end
//! disk, memory and journal must be within what was asked for, and nearly nothing be left once
//! everything is deleted.
//!
//! `ESKER_SOAK_SECS=3600 cargo test --release soak -- --nocapture` for an hour of it, with other
//! options every few minutes; `ESKER_SEEDS=a..b` for other seeds. A failure names its seed; the
//! threads make it another run each time.

mod life;
mod stream;

use crate::model::seeds;
use crate::rng::Rng;
use esker::{Compression, Db, Durability, Keyspace, KeyspaceOptions, Options};
use life::{COUNTS, Life, PASSING, Until, made, say};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use stream::{Model, Stream, name, value};

const DIR: &str = "ESKER_SOAK_DIR";
const SEED: &str = "ESKER_SOAK_SEED";
/// Operations per writer, or `secs` with a number of seconds.
const UNTIL: &str = "ESKER_SOAK_UNTIL";
const WRITERS: u64 = 3;

/// All that a run is drawn from.
#[derive(Clone, Debug)]
pub struct Plan {
    seed: u64,
    keys: u64,
    budget: Budget,
    options: Options,
}

/// What was asked for, by the names of the options.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    memory: usize,
    memtable: usize,
    segment: u64,
    journal: u64,
    files: usize,
}

impl Budget {
    /// The bytes of journal that may have to be replayed: memtables that pin too much are flushed, and
    /// writers wait while too much waits for that. Then the largest batches.
    fn replay(&self) -> u64 {
        2 * self.journal + 8 * self.memtable as u64 + (1 << 20)
    }
}

impl Plan {
    fn new(seed: u64, large: bool) -> Plan {
        let mut rng = Rng::new(seed);
        let scale = if large { 6 } else { 0 };
        let segment = 64 << (10 + rng.below(3 + scale));
        let keyspaces = KeyspaceOptions::default()
            .compression(*rng.pick(&[Compression::None, Compression::Lz4]))
            .block_bytes(64 << rng.below(8))
            .filter_bits(rng.below(17) as u32);
        let memory = 4 << (20 + rng.below(if large { 4 } else { 2 }));
        let files = 16 << rng.below(7);
        let memtable = 16 << (10 + rng.below(4 + scale));
        let journal = segment * (3 + rng.below(6) as u64);
        let options = Options::default()
            .durability(*rng.pick(&[Durability::Buffered, Durability::Buffered, Durability::Sync]))
            .memtable_bytes(memtable)
            .table_bytes(16 << (10 + rng.below(4 + scale)))
            .segment_bytes(segment)
            .journal_bytes(journal)
            .cache_bytes(*rng.pick(&[0, 64 << 10, 4 << 20]))
            .memory_bytes(memory)
            .open_files(files)
            .mapped(rng.one_in(2))
            .workers(1 + rng.below(3))
            .keyspaces(keyspaces);
        let budget = Budget { memory, memtable, segment, journal, files };
        Plan { seed, keys: if large { 30_000 } else { 600 }, budget, options }
    }

    fn stream(&self, writer: u64) -> Stream {
        Stream { seed: self.seed, writer, keys: self.keys }
    }
}

/// Not a test: the process that is killed.
#[test]
#[ignore = "started by the other test of this file"]
fn child() {
    let var = |name| std::env::var(name).unwrap();
    let Ok(dir) = std::env::var(DIR) else { return };
    let large = std::env::var_os("ESKER_SOAK_SECS").is_some();
    let plan = Plan::new(var(SEED).parse().unwrap(), large);
    let until = match var(UNTIL).split_once(' ') {
        Some((secs, _)) => Until::Time(Instant::now() + Duration::from_secs(secs.parse().unwrap())),
        None => Until::Ops(var(UNTIL).parse().unwrap()),
    };
    let dir = Path::new(&dir);
    let life = Life::new(Db::open(dir.join("db"), plan.options.clone()).unwrap());
    life.run(&plan, &dir.join("copies"), until);
    for writer in 0..WRITERS {
        say(&format!("made {writer} {}", life.made(writer)));
    }
    let reads = life.close();
    say(&format!("end {reads} {}", peak_memory()));
}

/// The most memory this process ever had, in bytes; 0 where the system does not tell.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().strip_suffix(" kB")?.parse().ok()).map_or(0, |kib: u64| kib << 10)
}

/// What is known of a directory.
struct Soak<'a> {
    plan: &'a Plan,
    /// The database in `db`, copies of it in `copies`.
    dir: &'a Path,
    /// Copies that were completed.
    copies: BTreeSet<String>,
    models: Vec<Model>,
    /// What each writer was told to have committed.
    told: [u64; WRITERS as usize],
}

impl Soak<'_> {
    /// One life. Kills it after so long, if told so. Answers the rows it read and its peak memory, if
    /// it ended in order.
    fn live(&mut self, until: &str, kill: Option<u64>) -> Option<(u64, u64)> {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["soak::child", "--exact", "--ignored", "--nocapture"]);
        command.env(DIR, self.dir).env(SEED, self.plan.seed.to_string()).env(UNTIL, until);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let (mut end, mut lines) = (None, 0);
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["made", writer, n] => self.told[writer.parse::<usize>().unwrap()] = n.parse().unwrap(),
                ["copy", name] => _ = self.copies.insert(name.into()),
                ["end", reads, peak] => end = Some((reads.parse().unwrap(), peak.parse().unwrap())),
                _ => continue,
            }
            lines += 1;
            if kill.is_some_and(|after| lines > after) {
                child.kill().unwrap();
            }
        }
        let status = child.wait().unwrap();
        assert!(status.success() || kill.is_some() && end.is_none(), "the process ended with {status}");
        end
    }

    /// The copies made in this life are what was there at some time in it; then they go.
    fn check_copies(&mut self) {
        // In the order in which they were made.
        for name in std::mem::take(&mut self.copies) {
            let db = Db::open(self.dir.join("copies").join(name), self.plan.options.clone()).unwrap();
            self.check(&db, [0; WRITERS as usize]);
            db.close().unwrap();
        }
        let _ = std::fs::remove_dir_all(self.dir.join("copies"));
    }

    /// Everything the writers made is there, at least what they were told, and nothing else.
    fn check(&mut self, db: &Db, told: [u64; WRITERS as usize]) {
        let counts = db.keyspace(COUNTS).unwrap();
        for (model, told) in self.models.iter_mut().zip(told) {
            let made = made(&counts, model.stream.writer);
            let writer = model.stream.writer;
            assert!(made >= told, "writer {writer}: {made} operations are there, {told} were acknowledged");
            model.advance(made);
            // The next one may be there but for its number, where that is a commit of its own.
            let found = names(db, writer);
            if model.made > 0 && found != model.names() {
                let op = model.stream.op(made);
                assert!(!matches!(op, stream::Op::Batch(_)), "writer {writer} at {made}: {found:?}");
                model.apply(&op);
                assert_eq!(found, model.names(), "writer {writer} at {made}");
            }
            for (space, rows) in model.spaces.iter().enumerate() {
                if let Some(rows) = rows {
                    let keyspace = db.keyspace(&name(writer, space)).unwrap();
                    same(&keyspace, rows);
                }
            }
        }
        let rest = db.names().unwrap().into_iter().map(|(name, _)| name);
        let rest: Vec<_> = rest.filter(|n| !n.starts_with("writer ") && n != COUNTS).collect();
        assert!(rest.iter().all(|name| name.starts_with(PASSING)), "{rest:?}");
    }
}

fn names(db: &Db, writer: u64) -> BTreeSet<String> {
    let names = db.names().unwrap().into_iter().map(|(name, _)| name);
    names.filter(|name| name.starts_with(&format!("writer {writer},"))).collect()
}

/// Both ways and by key.
fn same(keyspace: &Keyspace, rows: &BTreeMap<Vec<u8>, u64>) {
    let mut cursor = keyspace.cursor(..);
    let as_bytes = |(key, id): (&Vec<u8>, &u64)| (key.clone(), value(*id));
    for expected in rows.iter().map(as_bytes) {
        let found = cursor.next().unwrap().map(|(key, value)| (key.to_vec(), value.to_vec()));
        assert_eq!(found, Some(expected), "{keyspace:?}");
    }
    assert_eq!(cursor.next().unwrap(), None, "{keyspace:?}: more than there should be");
    for (n, expected) in rows.iter().rev().map(as_bytes).enumerate() {
        let found = cursor.prev().unwrap();
        assert_eq!(found, Some((&expected.0[..], &expected.1[..])), "{keyspace:?} backward");
        if n % 7 == 0 {
            assert_eq!(keyspace.get(&expected.0).unwrap().as_deref(), Some(&expected.1[..]), "{keyspace:?}");
        }
    }
    assert_eq!(cursor.prev().unwrap(), None, "{keyspace:?}: more than there should be, backward");
}

/// The bytes of all files whose names end so.
fn bytes(dir: &Path, end: &str) -> u64 {
    let files = std::fs::read_dir(dir).unwrap().map(|f| f.unwrap());
    let sizes = files.filter(|f| f.file_name().to_string_lossy().ends_with(end));
    sizes.map(|f| f.metadata().unwrap().len()).sum()
}

/// How long a run is.
struct Length {
    lives: u64,
    large: bool,
    /// What a life is told, by its number.
    until: fn(u64) -> String,
}

fn soak(seed: u64, length: &Length) {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::new(seed, length.large);
    println!("{plan:?}");
    let models = (0..WRITERS).map(|writer| Model::new(plan.stream(writer))).collect();
    let (told, copies) = (Default::default(), BTreeSet::new());
    let mut soak = Soak { plan: &plan, dir: dir.path(), copies, models, told };
    let mut rng = Rng::new(seed);
    for life in 0..length.lives {
        let kill = (life + 1 < length.lives && !rng.one_in(3)).then(|| 4 + rng.below(60) as u64);
        let end = soak.live(&(length.until)(life), kill);
        println!("life {life}, {:?} made, {} copies, {end:?}", soak.told, soak.copies.len());
        soak.check_copies();
        let db = Db::open(dir.path().join("db"), plan.options.clone()).unwrap();
        println!("{}", db.recovery());
        let (replayed, most) = (db.recovery().bytes, plan.budget.replay());
        assert!(replayed <= most, "{replayed} bytes replayed, may be {most}");
        soak.check(&db, soak.told);
        if let Some((_, peak)) = end {
            // The code itself, stacks, and the buffers of those who read.
            let most = plan.budget.memory as u64 + (64 << 20);
            assert!(peak <= most, "{} KiB of memory at most, may be {} KiB", peak >> 10, most >> 10);
        }
    }
    soak.end();
}

impl Soak<'_> {
    /// At rest the directory is within its budgets; with everything deleted, nearly nothing is left.
    fn end(&mut self) {
        let dir = self.dir.join("db");
        let db = Db::open(&dir, self.plan.options.clone().workers(0)).unwrap();
        self.check(&db, self.told);
        let settle = || {
            db.flush().unwrap();
            while db.step().unwrap() {}
        };
        let compact = || {
            settle();
            for (name, _) in db.names().unwrap() {
                db.keyspace(&name).unwrap().compact(..).unwrap();
            }
            settle();
        };
        compact();
        let live: u64 = self.models.iter().map(Model::bytes).sum();
        let (tables, journal) = (bytes(&dir, ".table"), bytes(&dir, ".journal"));
        println!("at rest {live} bytes of rows: {tables} in tables, {journal} in the journal");
        assert!(tables <= live * 5 / 4 + (128 << 10), "{tables} bytes of tables for {live} of rows");
        let verified = db.verify().unwrap();
        assert!(verified.is_ok(), "{verified:?}");
        let metrics = db.metrics();
        // The catalog's are not counted.
        let known = metrics.tables.bytes;
        assert!(
            (known..known + (64 << 10)).contains(&tables),
            "{tables} bytes of tables, {:?}",
            metrics.tables
        );
        assert_eq!(metrics.tables.held, 0);
        assert_eq!((metrics.snapshots.live, metrics.background.frozen_bytes), (0, 0));
        // The active segment, the next one, and those of large batches.
        assert!(journal <= 4 * self.plan.budget.segment + (1 << 20), "{journal} bytes of journal at rest");
        for (name, _) in db.names().unwrap() {
            db.keyspace(&name).unwrap().delete_range(..).unwrap();
        }
        compact();
        let left = bytes(&dir, ".table");
        assert!(left < 64 << 10, "{left} bytes of tables with every row deleted");
        for (name, _) in db.names().unwrap() {
            db.drop_keyspace(&name).unwrap();
        }
        settle();
        let left = bytes(&dir, ".table");
        // The catalog, with the traces of what was in it.
        assert!(left < 64 << 10, "{left} bytes of tables with everything deleted");
        db.close().unwrap();
        let db = Db::open(&dir, self.plan.options.clone()).unwrap();
        assert_eq!((db.names().unwrap().len(), db.recovery().removed), (0, 0));
    }
}

#[test]
fn a_short_soak() {
    if std::env::var_os("ESKER_SOAK_SECS").is_some() {
        return;
    }
    for seed in seeds(2) {
        soak(seed, &Length { lives: 4, large: false, until: |life| (400 * (life + 1)).to_string() });
    }
}

/// As long as `ESKER_SOAK_SECS` says: options and directory are new every 20 lives of 10 seconds.
#[test]
fn a_long_soak() {
    let Ok(secs) = std::env::var("ESKER_SOAK_SECS") else { return };
    let end = Instant::now() + Duration::from_secs(secs.parse().expect("a number of seconds"));
    for seed in seeds(u64::MAX) {
        soak(seed, &Length { lives: 20, large: true, until: |_| "10 s".into() });
        if Instant::now() > end {
            return;
        }
    }
}
