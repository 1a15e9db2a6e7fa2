//! Checkpoints: a copy is the state at its sequence number and a database of its own, however the
//! original goes on, whatever fails and wherever the power goes.
//!
//! `ESKER_SEEDS=a..b` runs other workloads than the few that run always.

use crate::crash::seeds;
use crate::hook::{Doing, HookFs};
use crate::rng::Rng;
use crate::state::{State, small, state};
use crate::world::{DIR, How, Step, World, random_step, rows};
use esker::fs::Fs;
use esker::fs::fault::{Fault, FaultFs, Op, Rule};
use esker::fs::sim::SimFs;
use esker::{Db, Durability, ErrorKind, Options};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

const COPY: &str = "/backup/of/today";

fn options(seed: u64) -> Options {
    let durability = if seed.is_multiple_of(2) { Durability::Buffered } else { Durability::Sync };
    small().durability(durability).mapped(seed.is_multiple_of(3)).memtable_bytes(2 << 10)
}

/// A database in the middle of its life.
fn world(seed: u64, calls: usize) -> (World, Rng) {
    let (mut world, mut rng) = (World::new(options(seed)), Rng::new(seed));
    go_on(&mut world, &mut rng, calls);
    (world, rng)
}

fn go_on(world: &mut World, rng: &mut Rng, calls: usize) {
    for _ in 0..calls {
        let step = random_step(rng, world.state());
        world.run(&step);
    }
}

/// Opens the copy, which must hold `expected`, and closes it after it was worked with; answers what
/// it holds then.
fn use_copy(disk: &SimFs, dir: &str, options: &Options, expected: &State, what: &str) -> State {
    let open = || Db::open(dir, options.clone().fs(Arc::new(disk.clone())));
    let db = open().unwrap_or_else(|e| panic!("{what}: {e:?}"));
    assert!(state(&db) == *expected, "{what}: the copy is wrong");
    let verified = db.verify().unwrap();
    assert!(verified.is_ok(), "{what}: {verified}");
    assert!(!db.recovery().created && db.recovery().torn.is_none(), "{what}: {:?}", db.recovery());
    let more = db.keyspace("more").unwrap();
    let batch = (0..40).map(|n| (format!("key{n:02}").into_bytes(), vec![n; 100]));
    let rows: BTreeMap<_, _> = batch.collect();
    rows.iter().for_each(|(key, value)| assert!(more.put(key, value).is_ok()));
    db.flush().unwrap();
    while db.step().unwrap() {}
    let mut expected = expected.clone();
    expected.insert("more".into(), rows);
    drop(more);
    db.close().unwrap();
    let db = open().unwrap();
    assert!(state(&db) == expected, "{what}: the copy after work");
    assert_eq!(db.recovery().removed, 0, "{what}");
    expected
}

#[test]
fn a_copy_is_the_state_at_its_number_and_stays_it() {
    for seed in seeds(10) {
        let (mut world, mut rng) = world(seed, 5);
        let mut copies = Vec::new();
        for n in 0..6 {
            let calls = rng.below(40);
            go_on(&mut world, &mut rng, calls);
            let dir = format!("/backup/{n}");
            let seq = world.db().checkpoint(&dir).unwrap();
            assert_eq!(seq, world.db().visible_seq());
            assert_eq!(seq, world.db().durable_seq());
            assert!(state(world.db()) == *world.state());
            copies.push((dir, world.state().clone()));
            // One of them at a time: old ones, whose files the original has let go of, as well.
            let at = rng.below(copies.len());
            let (dir, expected) = copies.swap_remove(at);
            let what = format!("seed {seed}, {dir} of {n}");
            let now = use_copy(&world.sim, &dir, &world.options, &expected, &what);
            assert!(state(world.db()) == *world.state(), "{what}: the original has changed");
            go_on(&mut world, &mut rng, 10);
            let options = world.options.clone().read_only(true).fs(Arc::new(world.sim.clone()));
            assert!(state(&Db::open(&dir, options).unwrap()) == now, "{what}: the copy has changed");
        }
        world.run(&Step::Reopen);
        for (dir, expected) in copies {
            use_copy(&world.sim, &dir, &world.options, &expected, &format!("seed {seed}, {dir} at the end"));
        }
        world.run(&Step::Reopen);
    }
}

#[test]
fn a_copy_of_a_copy_and_of_nothing() {
    let mut world = World::new(options(0));
    world.db().checkpoint("/empty").unwrap();
    use_copy(&world.sim, "/empty", &world.options, &State::new(), "empty");
    world.run(&Step::Create("a"));
    world.run(&Step::Commit(How::Buffered, rows(&["a"], 0..9, 100, 1)));
    world.db().checkpoint("/one").unwrap();
    world.db().checkpoint("/same").unwrap();
    // With nothing between them, no segment is used up.
    let files = |dir: &str| world.sim.files().iter().filter(|f| f.0.starts_with(dir)).count();
    let before = files(DIR);
    for n in 0..5 {
        world.db().checkpoint(format!("/same/{n}")).unwrap();
    }
    assert_eq!(files(DIR), before);
    let db = Db::open("/one", world.options.clone().fs(Arc::new(world.sim.clone()))).unwrap();
    db.checkpoint("/two").unwrap();
    use_copy(&world.sim, "/two", &world.options, world.state(), "copy of a copy");
    assert!(state(&db) == *world.state());
}

/// Some are synced and wait for the next edit to say so, the last is not even synced.
#[test]
fn segments_that_wait_for_their_seal_are_in_the_copy() {
    let mut world = World::new(small().durability(Durability::Buffered).memtable_bytes(1 << 20));
    world.run(&Step::Create("a"));
    for n in 0..8 {
        world.run(&Step::Commit(How::Buffered, rows(&["a"], n * 10..n * 10 + 10, 500, n as u64)));
        // The next segment is there when it is needed.
        world.run(&Step::Work);
    }
    world.db().checkpoint(COPY).unwrap();
    use_copy(&world.sim.crash(0), COPY, &world.options, world.state(), "waiting for seals");
}

#[test]
fn where_there_are_no_links_the_bytes_are_copied() {
    for seed in seeds(4) {
        let (world, _) = world(seed, 80);
        let faults = FaultFs::new(Arc::new(world.sim.crash(1)));
        faults.fail(Rule { op: Op::Link, nth: 1, kind: Fault::Unsupported, forever: true });
        let options = world.options.clone().fs(Arc::new(faults.clone()));
        let db = Db::open(DIR, options.clone()).unwrap();
        let expected = state(&db);
        db.checkpoint(COPY).unwrap();
        // The copy does not need the original.
        drop(db);
        for (name, _) in faults.list(Path::new(DIR)).unwrap() {
            faults.remove(&Path::new(DIR).join(name)).unwrap();
        }
        let db = Db::open(COPY, options).unwrap();
        assert!(state(&db) == expected, "seed {seed}");
        assert!(faults.count(Op::Link) > 0 || expected.is_empty());
    }
}

#[test]
fn what_is_in_the_way_is_refused() {
    let (world, _) = world(1, 30);
    let (db, disk) = (world.db(), &world.sim);
    let kind = |dir: &str| db.checkpoint(dir).unwrap_err().kind();
    assert_eq!(kind(DIR), ErrorKind::Invalid);
    assert_eq!(kind(&format!("{DIR}/copy")), ErrorKind::Invalid);
    // Not empty; and what is there stays.
    db.checkpoint(COPY).unwrap();
    let files = disk.files();
    assert_eq!(kind(COPY), ErrorKind::Invalid);
    assert_eq!(disk.files(), files);
    disk.create_dir_all(Path::new("/mine")).unwrap();
    drop(disk.create(Path::new("/mine/notes.txt")).unwrap());
    assert_eq!(kind("/mine"), ErrorKind::Invalid);
    assert_eq!(disk.list(Path::new("/mine")).unwrap().len(), 1);
    assert!(kind("/mine/notes.txt") != ErrorKind::Corruption);
    let open = |dir: &str, read_only| {
        Db::open(dir, world.options.clone().read_only(read_only).fs(Arc::new(disk.clone()))).unwrap()
    };
    let copy = open(COPY, false);
    assert_eq!(kind(COPY), ErrorKind::Locked);
    copy.close().unwrap();
    let refused = open(COPY, true).checkpoint("/more").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReadOnly);
    let clone = db.clone();
    clone.close().unwrap();
    assert_eq!(kind("/more"), ErrorKind::Closed);
}

/// What a cut leaves of a copy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Left {
    Nothing,
    /// Something that is not opened.
    Refused,
    Whole,
}

/// Opens what a cut has left of the copy in `dir`. `work`: if it is whole, it is worked with.
pub fn check_cut(
    dir: &str,
    disk: &SimFs,
    options: &Options,
    expected: &State,
    work: bool,
    what: &str,
) -> Left {
    match Db::open(dir, options.clone().fs(Arc::new(disk.clone()))) {
        Ok(db) if db.recovery().created => {
            assert!(db.names().unwrap().is_empty(), "{what}: from where?");
            Left::Nothing
        }
        Ok(db) => {
            assert!(state(&db) == *expected, "{what}: the copy is wrong");
            drop(db);
            if work {
                use_copy(disk, dir, options, expected, what);
            }
            Left::Whole
        }
        Err(e) => {
            assert!(e.is_corruption() && e.file().is_some(), "{what}: {e:?}");
            Left::Refused
        }
    }
}

#[test]
fn power_cuts_leave_the_original_and_no_half_of_a_copy() {
    let mut seen = BTreeMap::new();
    for seed in seeds(4) {
        let (mut world, mut rng) = world(seed, 60);
        let from = world.sim.ops();
        let seq = world.db().checkpoint(COPY).unwrap();
        assert_eq!(seq, world.db().visible_seq());
        let (to, expected) = (world.sim.ops(), world.state().clone());
        go_on(&mut world, &mut rng, 10);
        for op in (from..=to).chain([world.sim.ops()]) {
            let states = world.sim.states_at(op);
            let seeded = 6 + rng.below(states.saturating_sub(6).max(1) as usize) as u64;
            for choice in (0..6).chain([seeded]) {
                if op != to && rng.one_in(3) {
                    continue;
                }
                let what = format!("seed {seed}, cut at {op} of {from} to {to}, choice {choice}");
                let disk = world.sim.crash_at(op, choice);
                let work = op == to || rng.one_in(4);
                let found = check_cut(COPY, &disk, &world.options, &expected, work, &what);
                assert!(op < to || found == Left::Whole, "{what}: {found:?}");
                *seen.entry(found).or_insert(0) += 1;
                let options = world.options.clone().fs(Arc::new(disk.clone()));
                let db = Db::open(DIR, options).unwrap_or_else(|e| panic!("{what}: {e:?}"));
                let (least, most) = world.bounds(op.min(to), choice == 1);
                let at = world.seqs.binary_search(&db.visible_seq().get()).unwrap();
                assert!(at >= least && (op > to || at <= most), "{what}: {at}, {least} to {most}");
                assert!(state(&db) == world.states[at], "{what}: the original is wrong");
            }
        }
    }
    println!("{seen:?}");
    assert!(seen.len() == 3, "{seen:?}");
}

/// One of so many failures is tried.
fn fail(seeds: std::ops::Range<u64>, one_in: usize) -> (usize, usize) {
    let kinds =
        [Fault::Io, Fault::IoAfter, Fault::Full, Fault::Unsupported, Fault::Short, Fault::Interrupted];
    let (mut failed, mut fine) = (0, 0);
    for seed in seeds {
        let (world, mut rng) = world(seed, 70);
        let start = || {
            let disk = world.sim.crash(1);
            let faults = FaultFs::new(Arc::new(disk.clone()));
            let options = world.options.clone().fs(Arc::new(faults.clone()));
            let db = Db::open(DIR, options).unwrap();
            let last = db.keyspace("last").unwrap();
            db.batch().put(&last, "k", "v").commit_with(Durability::Buffered).unwrap();
            (disk, faults, db)
        };
        let (_, faults, db) = start();
        let before = faults.count(Op::Any);
        db.checkpoint(COPY).unwrap();
        let ops = faults.count(Op::Any) - before;
        for (nth, kind) in (1..=ops).flat_map(|nth| kinds.map(|kind| (nth, kind))) {
            if !rng.one_in(one_in) {
                continue;
            }
            let (disk, faults, db) = start();
            let what = format!("seed {seed}, {nth} of {ops}: {kind:?}");
            let expected = state(&db);
            let forever = kind != Fault::Interrupted && rng.one_in(4);
            faults.fail(Rule { op: Op::Any, nth, kind, forever });
            let mut made = db.checkpoint(COPY);
            faults.clear();
            assert!(state(&db) == expected, "{what}: the original has changed");
            if let Err(e) = &made {
                failed += 1;
                let fine = [ErrorKind::Io, ErrorKind::DiskFull, ErrorKind::ReadOnly];
                assert!(fine.contains(&e.kind()), "{what}: {e:?}");
                let full = !forever && kind == Fault::Full && db.batch().commit().is_ok();
                assert!(!full || e.is_retryable(), "{what}: {e:?}");
                // With the disk as it is again, if the journal or the manifest has not failed.
                made = db.checkpoint(COPY);
                if let Err(e) = &made
                    && e.kind() == ErrorKind::Invalid
                {
                    // What could not be removed.
                    assert!(forever || kind == Fault::IoAfter, "{what}: {e:?}");
                    made = db.checkpoint("/another/place").inspect(|_| {
                        use_copy(&disk, "/another/place", &world.options, &expected, &what);
                    });
                    assert!(made.is_ok(), "{what}: {made:?}");
                    continue;
                }
            }
            match made {
                Ok(_) => {
                    fine += 1;
                    use_copy(&disk, COPY, &world.options, &expected, &what);
                }
                Err(e) => assert_eq!(e.kind(), ErrorKind::ReadOnly, "{what}: {e:?}"),
            }
            drop(db);
            let db = Db::open(DIR, world.options.clone().fs(Arc::new(disk))).unwrap();
            assert!(state(&db) == expected, "{what}: the original after the failure");
        }
    }
    println!("{failed} failed, {fine} in the end made");
    (failed, fine)
}

#[test]
fn what_fails_is_told_and_can_be_tried_again() {
    let (failed, fine) = fail(seeds(3), 8);
    assert!(failed > 20 && fine > 20);
}

#[test]
#[ignore = "takes long"]
fn whatever_fails_is_told_and_can_be_tried_again() {
    fail(seeds(20), 1);
}

/// Everything goes on while checkpoints are made; each holds what was committed up to its number.
#[test]
fn beside_writers_a_copy_is_a_prefix_over_all_keyspaces() {
    const WRITERS: u64 = 3;
    let dir = tempfile::tempdir().unwrap();
    let options = Options::default()
        .workers(2)
        .durability(Durability::Buffered)
        .memtable_bytes(4 << 10)
        .segment_bytes(32 << 10)
        .journal_bytes(128 << 10)
        .table_bytes(8 << 10);
    let db = Db::open(dir.path().join("db"), options.clone()).unwrap();
    let done = AtomicBool::new(false);
    /// Also ends the writers if a checkpoint fails.
    struct Ends<'a>(&'a AtomicBool);
    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (logs, copies) = std::thread::scope(|scope| {
        let ends = Ends(&done);
        let write = |writer: u64| {
            let keyspaces = [format!("one{writer}"), format!("two{writer}")];
            let [one, two] = keyspaces.each_ref().map(|name| db.keyspace(name).unwrap());
            let mut log = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let n = log.len() as u64;
                let mut batch = db.batch();
                let value = [&n.to_be_bytes()[..], &[7; 90]].concat();
                batch.put(&one, (n % 50).to_be_bytes(), &value).put(&two, n.to_be_bytes(), &value);
                if n % 64 == 63 {
                    batch.delete_range(&one, 10u64.to_be_bytes()..20u64.to_be_bytes());
                }
                log.push(batch.commit().unwrap());
                if n % 200 == 199 {
                    db.keyspace("now and then").unwrap();
                    db.drop_keyspace("now and then").unwrap_or_default();
                }
            }
            log
        };
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || write(writer))).collect();
        let mut copies = Vec::new();
        for n in 0..12 {
            let copy = dir.path().join(format!("copies/{n}"));
            let seq = db.checkpoint(&copy).unwrap();
            assert!(db.durable_seq() >= seq);
            let verified = db.verify().unwrap();
            assert!(verified.is_ok() && verified.segments > 0, "{verified}");
            copies.push((seq, copy));
            if n == 6 {
                db.flush().unwrap();
            }
        }
        drop(ends);
        (writers.into_iter().map(|w| w.join().unwrap()).collect::<Vec<_>>(), copies)
    });
    db.close().unwrap();
    for (seq, copy) in copies {
        let db = Db::open(&copy, options.clone()).unwrap();
        assert_eq!(db.visible_seq(), seq);
        let found = state(&db);
        for (writer, log) in logs.iter().enumerate() {
            let there = log.iter().filter(|s| **s <= seq).count();
            let two = found.get(&format!("two{writer}"));
            assert_eq!(two.map_or(0, |rows| rows.len()), there, "{copy:?}, writer {writer}");
            let newest = |k: u64| (0..there as u64).rev().find(|n| n % 50 == k);
            let deleted = |n: u64, k: u64| {
                (10..20).contains(&k) && (n + 1..there as u64).any(|later| later % 64 == 63) || {
                    // A range delete comes behind the put of its own batch.
                    (10..20).contains(&k) && n % 64 == 63
                }
            };
            for k in 0..50 {
                let expected = newest(k).filter(|&n| !deleted(n, k));
                let row = found.get(&format!("one{writer}")).and_then(|rows| rows.get(&k.to_be_bytes()[..]));
                let row = row.map(|value| u64::from_be_bytes(value[..8].try_into().unwrap()));
                assert_eq!(row, expected, "{copy:?}, writer {writer}, key {k}");
            }
        }
    }
}

/// Commits in the middle of a checkpoint, at every place where one can come: the copy holds those up
/// to its number, all of them durable, and no later one.
#[test]
fn commits_in_between_are_in_the_copy_or_not() {
    let mut behind = 0;
    for at in 0.. {
        let sim = SimFs::new(at);
        // What is done at which of the places.
        type Act = Box<dyn Fn(bool) + Send>;
        let act: Arc<Mutex<(u64, Option<Act>)>> = Arc::default();
        let hook = {
            let act = act.clone();
            move |doing: Doing, path: &Path| {
                let copying = path.starts_with(COPY) && doing == Doing::Other && path.extension().is_some();
                let journal = path.extension().is_some_and(|e| e == "journal");
                let parting = journal && matches!(doing, Doing::Sync | Doing::Create);
                if !copying && !parting {
                    return;
                }
                let Some(mut act) = act.try_lock().ok() else { return };
                if act.1.is_some() && act.0 == 0 {
                    act.1.take().unwrap()(copying);
                } else if act.1.is_some() {
                    act.0 -= 1;
                }
            }
        };
        let options = small().durability(Durability::Buffered);
        let db = Db::open(DIR, options.clone().fs(HookFs::new(Arc::new(sim.clone()), hook))).unwrap();
        let (a, b) = (db.keyspace("a").unwrap(), db.keyspace("b").unwrap());
        let states = Arc::new(Mutex::new(BTreeMap::new()));
        let commit = {
            let (db, states, a, b) = (db.clone(), states.clone(), a.clone(), b.clone());
            move |n: u64| {
                let mut batch = db.batch();
                batch.put(&a, n.to_be_bytes(), [1; 60]).put(&b, n.to_be_bytes(), [2; 60]);
                let seq = batch.commit().unwrap();
                states.lock().unwrap().insert(seq, state(&db));
            }
        };
        (0..5).for_each(&commit);
        db.flush().unwrap();
        (5..10).for_each(&commit);
        let work = {
            let (db, commit) = (db.clone(), commit.clone());
            move |copying: bool| {
                commit(10);
                if copying {
                    // No lock is held: everything may happen.
                    for round in 0..3 {
                        (0..20).for_each(|n| commit(100 * round + n));
                        db.flush().unwrap();
                        while db.step().unwrap() {}
                    }
                }
            }
        };
        *act.lock().unwrap() = (at, Some(Box::new(work)));
        let seq = db.checkpoint(COPY).unwrap();
        let done = act.lock().unwrap().1.take().is_none();
        let expected = states.lock().unwrap()[&seq].clone();
        behind += u64::from(db.visible_seq() > seq);
        use_copy(&sim.crash(0), COPY, &options, &expected, &format!("commits at place {at}"));
        drop((a, b, commit));
        if !done {
            assert!(at > 4 && behind > 2, "{at}, {behind}");
            return;
        }
    }
}
