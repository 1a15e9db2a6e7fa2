//! The set on a disk that loses power, fills up, or fails.

use super::{Random, check, edit};
use crate::error::{Error, ErrorKind};
use crate::fs::Fs;
use crate::fs::fault::{Fault, FaultFs, Op, Rule};
use crate::fs::names::Name;
use crate::fs::sim::SimFs;
use crate::ids::FileNo;
use crate::version::edit::{Change, Edit};
use crate::version::manifest::{self, Loaded};
use crate::version::set::VersionSet;
use crate::version::state::State;
use std::path::Path;
use std::sync::Arc;

fn dir() -> &'static Path {
    Path::new("/db")
}

/// A disk with an empty directory on it.
fn disk(seed: u64) -> SimFs {
    let fs = SimFs::new(seed);
    fs.create_dir_all(dir()).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    fs
}

fn manifests(fs: &dyn Fs) -> Vec<(FileNo, u64)> {
    let names = fs.list(dir()).unwrap();
    names
        .into_iter()
        .map(|(name, len)| match Name::parse(&name) {
            Some(Name::Manifest(no)) => (no, len.unwrap()),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn load(fs: &dyn Fs) -> Result<Option<Loaded>, Error> {
    manifest::load(fs, dir(), &manifests(fs))
}

/// What opening a database does with its manifests. The set rolls often.
fn open<F: Fs + Clone + 'static>(fs: &F, salt: u64) -> Result<VersionSet, Error> {
    let old = manifests(fs);
    let mut state = match manifest::load(fs, dir(), &old)? {
        Some(loaded) => loaded.state,
        None => State::new(7),
    };
    let old: Vec<FileNo> = old.into_iter().map(|(no, _)| no).collect();
    old.iter().try_for_each(|&no| state.saw_file(no))?;
    state.next_keyspace = 4;
    let mut salt = salt << 32;
    let salts = move || {
        salt += 1;
        salt
    };
    let mut set = VersionSet::open(Arc::new(fs.clone()), dir(), state, &old, Box::new(salts))?;
    set.set_roll_rule(|bytes| bytes + 400);
    Ok(set)
}

/// An edit that jobs might make in this state.
fn any_edit(random: &mut Random, set: &mut VersionSet) -> Edit {
    let mut next = set.state().next_file.0;
    let edit = random.edit(set.state(), &mut next, true);
    while set.state().next_file.0 < next {
        set.new_file_no();
    }
    edit
}

/// States by edit number, and from which operation on each is durable.
#[derive(Default)]
struct History {
    states: Vec<State>,
    durable: Vec<u64>,
}

impl History {
    fn add(&mut self, fs: &SimFs, set: &VersionSet) {
        assert_eq!(set.last_edit(), self.states.len() as u64);
        check(set.state());
        self.states.push(set.state().clone());
        self.durable.push(fs.ops());
    }

    /// Checks what is found on a disk that lost power after `op`.
    fn judge(&self, disk: &SimFs, op: u64, message: &str) {
        let acknowledged = self.durable.partition_point(|&at| at <= op);
        let Some(loaded) = load(disk).unwrap_or_else(|e| panic!("{message}: {e}")) else {
            assert_eq!(acknowledged, 0, "{message}");
            return;
        };
        let mut state = loaded.state;
        let edit = state.edit as usize;
        assert!(edit + 1 >= acknowledged, "{message}: edit {edit} of {acknowledged}");
        // The number of the next manifest may be given already, or not yet.
        state.next_file = self.states[edit].next_file;
        assert_eq!(state, self.states[edit], "{message}");
    }
}

impl History {
    /// Should the newest manifest be destroyed, an older one that is still there must not lack what
    /// was acknowledged.
    fn judge_older(&self, disk: &SimFs, op: u64, message: &str) {
        let mut left = manifests(disk);
        left.sort();
        left.pop();
        if let Some(loaded) = manifest::load(disk, dir(), &left).unwrap() {
            let acknowledged = self.durable.partition_point(|&at| at <= op);
            assert!(loaded.state.edit as usize + 1 >= acknowledged, "{message}: {} is stale", loaded.no);
        }
    }
}

/// Opens, and applies so many edits.
fn run(fs: &SimFs, edits: u64, seed: u64, history: &mut History) -> VersionSet {
    let mut random = Random(seed);
    let mut set = open(fs, seed + 1).unwrap();
    if history.states.is_empty() {
        history.add(fs, &set);
    }
    for _ in 0..edits {
        let edit = any_edit(&mut random, &mut set);
        set.apply(&edit).unwrap();
        history.add(fs, &set);
    }
    set
}

#[test]
fn after_power_loss_at_any_operation_a_prefix_with_all_that_was_acknowledged_is_found() {
    let fs = disk(1);
    let mut history = History::default();
    let set = run(&fs, 20, 9, &mut history);
    assert!(set.manifest() > FileNo(1) && manifests(&fs).len() == 1, "it rolled");
    let mut judged = 0;
    for op in 2..=fs.ops() {
        for choice in 0..fs.states_at(op).min(20) {
            let message = format!("op {op}, choice {choice}");
            let crashed = fs.crash_at(op, choice);
            history.judge(&crashed, op, &message);
            history.judge_older(&crashed, op, &message);
            judged += 1;
        }
    }
    assert!(judged > 500, "{judged}");
}

#[test]
fn a_growing_file_is_never_taken_for_one_that_was_cut() {
    let fs = disk(4);
    let mut history = History::default();
    let mut set = open(&fs, 1).unwrap();
    set.set_roll_rule(|_| u64::MAX);
    history.add(&fs, &set);
    let first = manifests(&fs)[0].1;
    // Long edits until shortly before, then short ones, which can be lost in few ways.
    for len in [10_000; 4].into_iter().chain([700; 13]) {
        let mut edit = endless(&mut set);
        for change in &mut edit.changes {
            if let Change::AddTable { table, .. } = change {
                table.smallest = vec![b'k'; len].into();
            }
        }
        set.apply(&edit).unwrap();
        history.add(&fs, &set);
    }
    assert!(manifests(&fs)[0].1 >= 2 * first);
    for op in history.durable[10]..=fs.ops() {
        for choice in 0..fs.states_at(op).min(40) {
            history.judge(&fs.crash_at(op, choice), op, &format!("op {op}, choice {choice}"));
        }
    }
}

#[test]
fn crashes_during_recovery_from_crashes_lose_nothing_either() {
    let mut random = Random(5);
    let mut rolled = 0;
    for round in 0..25 {
        let mut fs = disk(round);
        let mut history = History::default();
        for depth in 0..5 {
            let before = fs.ops();
            let edits = random.below(8);
            run(&fs, edits, 100 * round + depth, &mut history);
            rolled += u64::from(manifests(&fs)[0].0 > FileNo(2));
            // Anywhere since this opening, the opening included; on a fresh disk the directory is
            // durable before.
            let op = before.max(2) + random.below(fs.ops() - before.max(2) + 1);
            let choice = random.below(fs.states_at(op));
            let crashed = fs.crash_at(op, choice);
            history.judge(&crashed, op, &format!("round {round}, depth {depth}, op {op}, choice {choice}"));
            // Go on from there: what is found now is certain, the rest never was.
            let found = load(&crashed).unwrap().map_or(0, |loaded| loaded.state.edit as usize + 1);
            history.states.truncate(found);
            history.durable = vec![0; found];
            fs = crashed;
        }
    }
    assert!(rolled > 20, "{rolled}");
}

/// Edits of about 200 bytes that may be repeated for ever.
fn endless(set: &mut VersionSet) -> Edit {
    let no = set.new_file_no();
    let key = "k".repeat(150);
    let mut edit = edit(&format!("+k1 L0@5 {}[{key}-..); flushed k1 5", no.0.min(400)));
    for change in &mut edit.changes {
        if let Change::AddTable { run, table, .. } = change {
            (*run, table.no) = (super::seq(no.0), no);
            table.max_seq = super::seq(5);
        }
    }
    edit
}

#[test]
fn a_full_disk_refuses_an_edit_cleanly_and_space_lets_it_pass() {
    let fs = disk(1);
    let mut set = open(&fs, 1).unwrap();
    set.set_roll_rule(|_| u64::MAX);
    let len = manifests(&fs)[0].1;
    // Some space, less than the file would like to have.
    fs.set_capacity(Some(len + 9000));
    let (mut edits, refused, error) = loop {
        let edit = endless(&mut set);
        let before = (set.state().clone(), fs.ops(), fs.read(fs.files()[0].0.clone()).unwrap());
        if let Err(e) = set.apply(&edit) {
            let after = (set.state().clone(), fs.ops(), fs.read(fs.files()[0].0.clone()).unwrap());
            assert!(before == after, "something changed");
            break (set.last_edit(), edit, e);
        }
        assert!(set.last_edit() < 1000, "it was never full");
    };
    assert!(error.kind() == ErrorKind::DiskFull && set.failed().is_none(), "{error}");
    assert_eq!(manifests(&fs)[0].1, (len + 9000) / 4096 * 4096, "all space was used");
    assert_eq!(set.apply(&refused).unwrap_err().kind(), ErrorKind::DiskFull);
    assert_eq!(load(&fs).unwrap().unwrap().state.edit, edits);
    fs.set_capacity(None);
    set.apply(&refused).unwrap();
    for _ in 0..1000 {
        let edit = endless(&mut set);
        set.apply(&edit).unwrap();
    }
    edits += 1001;
    let loaded = load(&fs).unwrap().unwrap();
    assert_eq!((loaded.state.edit, loaded.torn), (edits, None));
    assert_eq!(loaded.state.keyspaces, set.state().keyspaces);
}

#[test]
fn where_there_is_no_room_for_a_new_manifest_the_old_one_goes_on() {
    let fs = disk(1);
    let mut set = open(&fs, 1).unwrap();
    fs.set_capacity(Some(manifests(&fs)[0].1 + 4000));
    let first = set.manifest();
    for _ in 0..100 {
        let edit = endless(&mut set);
        set.apply(&edit).unwrap();
        assert_eq!((set.manifest(), manifests(&fs).len()), (first, 1));
    }
    fs.set_capacity(None);
    while set.manifest() == first {
        let edit = endless(&mut set);
        set.apply(&edit).unwrap();
        assert!(set.last_edit() < 1000, "it never rolled");
    }
    assert_eq!(manifests(&fs).len(), 1);
    assert_eq!(load(&fs).unwrap().unwrap().state, *set.state());
}

#[test]
fn an_edit_that_contradicts_the_state_is_refused_before_anything_is_written() {
    let fs = disk(1);
    let mut set = open(&fs, 1).unwrap();
    let ops = fs.ops();
    let error = set.apply(&edit("-k1 L0 7")).unwrap_err();
    assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains("no table"), "{error}");
    assert_eq!((fs.ops(), set.last_edit()), (ops, 0));
    set.apply(&edit("flushed k1 7")).unwrap();
}

/// Runs the same edits with the `nth` operation failing. Returns whether that came to pass.
fn run_with_fault(kind: Fault, nth: u64) -> bool {
    let sim = disk(3);
    let fs = FaultFs::new(Arc::new(sim.clone()));
    fs.fail(Rule { op: Op::Any, nth, kind, forever: false });
    let message = format!("{kind:?} at {nth}");
    let (mut history, mut random) = (History::default(), Random(11));
    let mut set = match open(&fs, 1) {
        Ok(set) => set,
        // The next try finds what the first one left.
        Err(_) => open(&fs, 2).unwrap_or_else(|e| panic!("{message}: {e}")),
    };
    history.add(&sim, &set);
    let (mut attempted, mut since) = (None, 0);
    for _ in 0..12 {
        let edit = any_edit(&mut random, &mut set);
        let before = set.state().clone();
        if let Err(error) = set.apply(&edit) {
            assert_eq!(*set.state(), before, "{message}");
            if set.failed().is_some() {
                assert!(!error.is_retryable(), "{message}: {error}");
                let mut after = before;
                after.apply(after.next_counters(), &edit).unwrap();
                attempted = Some(after);
                break;
            }
            set.apply(&edit).unwrap_or_else(|e| panic!("{message}: again: {e}"));
        }
        history.add(&sim, &set);
        let failed = fs.count(Op::Any) >= nth;
        if failed {
            history.judge(&sim, sim.ops(), &format!("{message}: and on"));
            since += 1;
        }
        if set.failed().is_some() || since == 4 {
            break;
        }
    }
    if let Some(first) = set.failed().map(|e| e.to_string()) {
        let ops = sim.ops();
        let error = set.apply(&Edit::default()).unwrap_err();
        assert_eq!((error.to_string(), sim.ops()), (first, ops), "{message}");
    }
    // Whether the failed edit is there is unknown; nothing else is.
    history.states.extend(attempted);
    history.judge(&sim, sim.ops(), &format!("{message}: reopened"));
    for choice in 0..sim.states_at(sim.ops()).min(8) {
        history.judge(&sim.crash(choice), sim.ops(), &format!("{message}, then power loss {choice}"));
    }
    nth <= fs.count(Op::Any)
}

#[test]
fn whatever_fails_nothing_acknowledged_is_lost() {
    for kind in [Fault::Io, Fault::IoAfter, Fault::Full, Fault::Interrupted, Fault::Short, Fault::Forget] {
        // The first is the listing of the directory, which is the test's own.
        let mut nth = 2;
        while run_with_fault(kind, nth) {
            nth += 1;
        }
        assert!(nth > 35, "{kind:?}: {nth}");
    }
}

#[test]
fn a_failed_sync_is_final() {
    let fs = FaultFs::new(Arc::new(disk(1)));
    let mut set = open(&fs, 1).unwrap();
    set.apply(&edit("flushed k1 7")).unwrap();
    fs.fail(Rule { op: Op::Sync, nth: 1, kind: Fault::Io, forever: false });
    let first = set.apply(&edit("flushed k1 8")).unwrap_err();
    let second = set.apply(&edit("flushed k1 8")).unwrap_err();
    assert_eq!((first.kind(), first.to_string()), (ErrorKind::Io, second.to_string()));
    assert_eq!(set.failed().map(|e| e.to_string()), Some(first.to_string()));
    assert_eq!(set.last_edit(), 1);
}

#[test]
fn a_failed_allocation_is_not() {
    for kind in [Fault::Io, Fault::Full] {
        let fs = FaultFs::new(Arc::new(disk(1)));
        let mut set = open(&fs, 1).unwrap();
        set.set_roll_rule(|_| u64::MAX);
        fs.fail(Rule { op: Op::Allocate, nth: 1, kind, forever: true });
        let (edit, _error) = loop {
            let edit = endless(&mut set);
            if let Err(e) = set.apply(&edit) {
                break (edit, e);
            }
        };
        fs.clear();
        set.apply(&edit).unwrap();
        assert_eq!(load(&fs).unwrap().unwrap().state, *set.state());
    }
}

#[test]
fn a_new_manifest_that_may_count_is_not_given_up() {
    let fs = FaultFs::new(Arc::new(disk(1)));
    let mut set = open(&fs, 1).unwrap();
    // Directories are synced for new manifests only.
    fs.fail(Rule { op: Op::SyncDir, nth: 1, kind: Fault::Full, forever: false });
    while set.failed().is_none() {
        assert_eq!(fs.list(dir()).unwrap().len(), 1);
        let edit = endless(&mut set);
        set.apply(&edit).unwrap();
    }
    // The last edit is in both. One more would be missing in the one that counts.
    assert_eq!(load(&fs).unwrap().unwrap().state.keyspaces, set.state().keyspaces);
    let edit = endless(&mut set);
    assert_eq!(set.apply(&edit).unwrap_err().kind(), ErrorKind::Io);
}
