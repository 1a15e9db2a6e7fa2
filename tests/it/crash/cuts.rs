//! The check of one finished run: the power is cut, what is left is opened, and must hold what was
//! promised and serve as a database again, on which the power can be cut.

use crate::checkpoint::{Left, check_cut};
use crate::rng::Rng;
use crate::state::{State, state};
use crate::world::{Copy, DIR, Step, World, random_step};
use esker::fs::sim::SimFs;
use esker::{Db, Recovery};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// How much is tried.
#[derive(Clone, Copy)]
pub struct Effort {
    /// About so many states of each run; `None`: at every operation those with a meaning of their own
    /// and...
    pub budget: Option<usize>,
    /// ... so many of the others, all of them if there are no more.
    pub samples: u64,
    /// One of so many different states is cut again while it recovers: at one operation with a
    /// budget, else at all.
    pub nested: usize,
    /// One of so many is worked with and cut again, and one of so many opened again and again.
    pub further: usize,
}

#[derive(Clone, Copy, Default)]
pub struct Counts {
    pub points: u64,
    pub states: u64,
    /// States that were opened: the others show what one of the same workload has shown.
    pub distinct: u64,
    pub in_recovery: u64,
    /// In the recovery from a cut in a recovery.
    pub deeper: u64,
    /// After work on what a cut had left.
    pub later: u64,
    /// What was left of copies that were begun.
    pub copies: [u64; 3],
    pub recovered: Recovered,
}

/// What recovery had to do: so many times each.
#[derive(Clone, Copy, Default, Debug)]
pub struct Recovered {
    pub created: u64,
    pub replayed: u64,
    pub torn: u64,
    pub rewritten: u64,
    pub removed: u64,
}

impl Recovered {
    fn note(&mut self, report: &Recovery) {
        self.created += u64::from(report.created);
        self.replayed += u64::from(report.commits > 0);
        self.torn += u64::from(report.torn.is_some());
        self.rewritten += u64::from(report.rewritten > 0);
        self.removed += u64::from(report.removed > 0);
    }
}

impl Counts {
    pub fn add(&mut self, other: Counts) {
        self.points += other.points;
        self.states += other.states;
        self.distinct += other.distinct;
        self.in_recovery += other.in_recovery;
        self.deeper += other.deeper;
        self.later += other.later;
        for (sum, n) in self.copies.iter_mut().zip(other.copies) {
            *sum += n;
        }
        let (sum, more) = (&mut self.recovered, other.recovered);
        sum.created += more.created;
        sum.replayed += more.replayed;
        sum.torn += more.torn;
        sum.rewritten += more.rewritten;
        sum.removed += more.removed;
    }

    pub fn print(&self, what: &str) {
        let Counts { points, states, distinct, in_recovery, deeper, later, copies, recovered } = self;
        let [nothing, refused, whole] = copies;
        println!(
            "{what}: {points} crash points, {states} crash states ({distinct} distinct), {in_recovery} of \
             them inside recovery ({deeper} deeper), {later} after further work; copies: {whole} whole, \
             {refused} refused, {nothing} not there; {recovered:?}; 0 lost without damage, 0 failures"
        );
    }
}

/// What was found on a disk that shows the same.
#[derive(Clone, Copy)]
struct Found {
    seq: u64,
    state: u64,
    /// A bit for each copy that is whole.
    whole: u64,
}

/// Disks that were looked at, by their digests.
#[derive(Default)]
pub struct Seen(HashMap<u64, Found>);

fn hash(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

/// Says which test to run again if this one panics.
struct Reproduce<'a>(&'a str, u64, u64);

impl Drop for Reproduce<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Reproduce(name, op, choice) = self;
            eprintln!("to repeat it alone, run this test with ESKER_CRASH_ONLY='{name}@{op}.{choice}'");
        }
    }
}

/// The one state that was asked for, `NAME@OPERATION.CHOICE`.
fn only() -> Option<(String, u64, u64)> {
    let asked = std::env::var("ESKER_CRASH_ONLY").ok()?;
    let parsed = asked.rsplit_once('@').and_then(|(name, at)| {
        let (op, choice) = at.split_once('.')?;
        Some((name.to_string(), op.parse().ok()?, choice.parse().ok()?))
    });
    Some(parsed.unwrap_or_else(|| panic!("ESKER_CRASH_ONLY is {asked:?}, not NAME@OPERATION.CHOICE")))
}

pub struct Cuts<'a> {
    name: &'a str,
    world: &'a World,
    effort: Effort,
    /// The hashes of the world's states.
    hashes: Vec<u64>,
    seen: &'a mut Seen,
    pub counts: Counts,
}

/// Where a state is in the tree of cuts and cuts in what follows, and the chances that are taken there.
struct Place {
    what: String,
    depth: usize,
    seed: u64,
    /// The copies that are whole: recovery does not touch them.
    whole: u64,
}

impl Place {
    fn then(&self, op: u64, choice: u64, what: String) -> Place {
        let seed = Rng::new(self.seed ^ (op << 20) ^ choice).next();
        Place { what, depth: self.depth + 1, seed, whole: self.whole }
    }
}

/// Cuts the power at every operation of `world` in `ops`.
pub fn cut_between(
    name: &str,
    world: &World,
    ops: std::ops::RangeInclusive<u64>,
    effort: Effort,
    seen: &mut Seen,
) -> Counts {
    let mut cuts = Cuts::new(name, world, effort, seen);
    if let Some((only, op, choice)) = only() {
        if only == name {
            cuts.effort.nested = 1;
            cuts.cut(op, choice);
        }
        return cuts.counts;
    }
    let (first, span) = (*ops.start(), ops.end() + 1 - ops.start());
    cuts.counts.points = span;
    let mut rng = Rng::new(world.sim.ops());
    for op in ops {
        let states = world.sim.states_at(op).max(2);
        let Some(budget) = effort.budget else {
            (0..states.min(6)).for_each(|choice| cuts.cut(op, choice));
            let rest = states.saturating_sub(6);
            for n in 0..rest.min(effort.samples) {
                let drawn = if rest <= effort.samples { n } else { rng.below(rest as usize) as u64 };
                cuts.cut(op, 6 + drawn);
            }
            continue;
        };
        // A fraction of one per operation becomes one of so many operations.
        let upto = |op| budget as u64 * (op - first) / span;
        for _ in upto(op)..upto(op + 1) {
            let few = if rng.one_in(2) { states.min(6) } else { states };
            cuts.cut(op, rng.below(few as usize) as u64);
        }
    }
    cuts.counts
}

impl<'a> Cuts<'a> {
    pub fn new(name: &'a str, world: &'a World, effort: Effort, seen: &'a mut Seen) -> Cuts<'a> {
        let hashes = world.states.iter().map(hash).collect();
        Cuts { name, world, effort, hashes, seen, counts: Counts::default() }
    }

    fn open(&self, disk: &SimFs, what: &str) -> Db {
        let options = self.world.options.clone().fs(Arc::new(disk.clone()));
        Db::open(DIR, options).unwrap_or_else(|e| panic!("{}: {what}: {e:?}", self.name))
    }

    /// Which prefix of the commits ends with this sequence number; it must be one of so many.
    fn prefix(&self, seq: u64, least: usize, most: usize, what: &str) -> usize {
        let name = self.name;
        let Ok(at) = self.world.seqs.binary_search(&seq) else {
            panic!("{name}: {what}: no commit ended with sequence number {seq}");
        };
        assert!(
            (least..=most).contains(&at),
            "{name}: {what}: {at} commits are there, must be {least} to {most}"
        );
        at
    }

    /// Opens what a cut left behind. Answers which prefix of the commits it holds.
    pub fn recover(&self, disk: &SimFs, least: usize, most: usize, what: &str) -> (Db, usize) {
        let db = self.open(disk, what);
        let seq = db.visible_seq().get();
        let at = self.prefix(seq, least, most, what);
        assert_eq!(db.durable_seq().get(), seq, "{}: {what}: what an open shows is durable", self.name);
        self.compare(&db, &self.world.states[at], &format!("{what}, after {at} commits"));
        (db, at)
    }

    fn compare(&self, db: &Db, expected: &State, what: &str) {
        let found = state(db);
        if found == *expected {
            return;
        }
        let (name, mut diff) = (self.name, String::new());
        for key in found.keys().chain(expected.keys()) {
            let (f, e) = (found.get(key), expected.get(key));
            if f != e {
                let (f, e) = (f.map(|rows| rows.len()), e.map(|rows| rows.len()));
                diff += &format!("\n{key}: {f:?} rows instead of {e:?}");
            }
        }
        let other = self.world.states.iter().position(|s| *s == found);
        panic!("{name}: {what}: the state is wrong (it is that after {other:?} commits){diff}");
    }

    /// One state of the disk after one operation.
    pub fn cut(&mut self, op: u64, choice: u64) {
        let _guard = Reproduce(self.name, op, choice);
        // Choice 1 keeps everything that was written: the process died, not the machine.
        let (least, most) = self.world.bounds(op, choice == 1);
        let what = format!("cut at operation {op}, choice {choice}");
        let disk = self.world.sim.crash_at(op, choice);
        self.counts.states += 1;
        let digest = self.digest(&disk);
        let found = match digest.and_then(|digest| self.seen.0.get(&digest)) {
            Some(found) => *found,
            None => {
                self.counts.distinct += 1;
                let whole = self.copies(op, choice, &what);
                let seed = Rng::new(op << 20 ^ choice).next();
                let place = Place { what: what.clone(), depth: 1, seed, whole };
                let at = self.check(&disk, least, most, &place);
                let found = Found { seq: self.world.seqs[at], state: self.hashes[at], whole };
                self.seen.0.extend(digest.map(|digest| (digest, found)));
                found
            }
        };
        let at = self.prefix(found.seq, least, most, &what);
        assert_eq!(found.state, self.hashes[at], "{}: {what}: the state seen before is another", self.name);
        for (n, copy) in self.world.copies.iter().enumerate() {
            let there = found.whole >> n & 1 == 1;
            assert!(there || copy.ops.end > op, "{}: {what}: {} is not whole", self.name, copy.dir);
        }
    }

    /// What the disk is known by; of a sample none is expected twice.
    fn digest(&self, disk: &SimFs) -> Option<u64> {
        self.effort.budget.is_none().then(|| disk.digest())
    }

    /// Looks at the copies that were begun. Answers which are whole, each by a bit.
    fn copies(&mut self, op: u64, choice: u64, what: &str) -> u64 {
        let mut whole = 0;
        let begun = |copy: &&Copy| copy.ops.start < op;
        for (n, copy) in self.world.copies.iter().take_while(begun).enumerate() {
            let disk = self.world.sim.crash_at(op, choice);
            let (options, expected) = (&self.world.options, &self.world.states[copy.commits]);
            let what = format!("{}: {what}: {}", self.name, copy.dir);
            let left = check_cut(&copy.dir, &disk, options, expected, (op + choice).is_multiple_of(4), &what);
            self.counts.copies[left as usize] += 1;
            whole |= u64::from(left == Left::Whole) << n;
        }
        whole
    }

    /// Checks that `disk`, on which nothing is in doubt, is good for everything. Answers how many
    /// commits it holds.
    fn check(&mut self, disk: &SimFs, least: usize, most: usize, place: &Place) -> usize {
        let (db, at) = self.recover(disk, least, most, &place.what);
        let recovery = disk.ops();
        self.counts.recovered.note(db.recovery());
        let mut rng = Rng::new(place.seed);
        match rng.below(self.effort.further.max(2)) {
            0 => self.go_on(disk, db, at, place, &mut rng),
            1 => self.open_again(disk, db, at, place, &mut rng),
            _ => drop(db),
        }
        if recovery == 0 || place.depth == 3 || !rng.one_in(self.effort.nested) {
            return at;
        }
        // Cut again, in the middle of recovering. From when the new manifest counts the same commits must be
        // found; until then nobody was promised any, and what was never synced may look otherwise this time.
        let counts_from = disk.log().iter().position(|done| done.starts_with("sync_dir"));
        let ops: Vec<u64> = match self.effort.budget {
            None if place.depth == 1 => (1..=recovery).collect(),
            _ => vec![1 + rng.below(recovery as usize) as u64],
        };
        for op in ops {
            let choice = rng.below(disk.states_at(op).max(3) as usize) as u64;
            self.counts.states += 1;
            self.counts.in_recovery += 1;
            self.counts.deeper += u64::from(place.depth > 1);
            let left = disk.crash_at(op, choice);
            let what = format!("{}, then at {op} of {recovery}, choice {choice}", place.what);
            let counts = counts_from.is_some_and(|from| op > from as u64);
            let (least, most) = if counts { (at, at) } else { (least, most) };
            let digest = self.digest(&left);
            if let Some(found) = digest.and_then(|digest| self.seen.0.get(&digest)) {
                let at = self.prefix(found.seq, least, most, &what);
                assert_eq!(found.state, self.hashes[at], "{}: {what}: not the state seen before", self.name);
                continue;
            }
            self.counts.distinct += 1;
            let (place, whole) = (place.then(op, choice, what), place.whole);
            let at = self.check(&left, least, most, &place);
            let found = Found { seq: self.world.seqs[at], state: self.hashes[at], whole };
            self.seen.0.extend(digest.map(|digest| (digest, found)));
        }
        at
    }

    /// It works, and what it promises from here on survives a cut as it did before.
    fn go_on(&mut self, disk: &SimFs, db: Db, at: usize, place: &Place, rng: &mut Rng) {
        let (states, seqs) = (vec![self.world.states[at].clone()], vec![self.world.seqs[at]]);
        let mut world = World::at_rest(disk.clone(), self.world.options.clone(), states, seqs);
        world.db = Some(db);
        let began = disk.ops();
        for _ in 0..3 + rng.below(5) {
            let step = random_step(rng, world.state());
            world.run(&step);
        }
        world.run(&Step::Sync);
        let ops = disk.ops();
        let op = if rng.one_in(2) { ops } else { began + rng.below((ops - began + 1) as usize) as u64 };
        let choice = rng.below(disk.states_at(op).min(70) as usize) as u64;
        let what = format!("{}, then worked with and cut at {op} of {ops}, choice {choice}", place.what);
        let (least, most) = world.bounds(op, choice == 1);
        self.counts.states += 1;
        self.counts.distinct += 1;
        self.counts.later += 1;
        Cuts::new(self.name, &world, self.effort, &mut Seen::default()).recover(
            &disk.crash_at(op, choice),
            least,
            most,
            &what,
        );
    }

    /// All of it is sound, opening changes nothing, however often, and leaves nothing behind.
    fn open_again(&mut self, disk: &SimFs, db: Db, at: usize, place: &Place, rng: &mut Rng) {
        let (mut before, mut db) = (None, db);
        let (name, what) = (self.name, &place.what);
        let verified = db.verify().unwrap();
        assert!(verified.is_ok(), "{name}: {what}: {verified}");
        for round in 0..2 {
            if rng.one_in(2) {
                db.close().unwrap_or_else(|e| panic!("{name}: {what}: closing: {e:?}"));
            } else {
                drop(db);
            }
            let files = disk.files();
            let now = (files.len(), files.iter().map(|f| f.1).sum::<u64>());
            if let Some(before) = before {
                assert!(now <= before, "{name}: {what}: it grew from {before:?} to {files:?}");
            }
            before = Some(now);
            let what = format!("{what}, then opened again");
            db = self.open(disk, &what);
            self.compare(&db, &self.world.states[at], &what);
            assert_eq!(db.durable_seq().get(), self.world.seqs[at]);
            let left = db.recovery();
            assert!(left.removed == 0 && left.torn.is_none(), "{name}: {what} ({round}): {left:?}");
        }
    }
}
