//! Power is lost at every operation, also of recovery, and over generations.

use super::*;

const DIR: &str = "/db";

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
}

/// What the manifest holds.
#[derive(Clone)]
struct Known {
    segments: Vec<Announced>,
    durable: Position,
    start: Position,
}

impl Known {
    fn new() -> Known {
        Known { segments: Vec::new(), durable: Position(0), start: Position(0) }
    }

    /// What it held after operation `op` of `rig`, which began with `self`.
    fn at(&self, rig: &Rig, op: u64, knows_durable: bool) -> Known {
        let last = rig.announcements.iter().rfind(|(ops, ..)| *ops <= op);
        let Some((_, segments, durable)) = last else { return self.clone() };
        let durable = if knows_durable { *durable } else { self.durable };
        Known { segments: segments.clone(), durable, start: self.start }
    }

    /// What it holds once a recovery has been written down.
    fn sealed(report: &Report) -> Known {
        let seal = |&(no, start, end): &(FileNo, Position, Position)| Announced {
            no,
            salt: SALT + no.0,
            sealed: Some((start, end)),
        };
        Known { segments: report.ends.iter().map(seal).collect(), durable: report.end, start: report.end }
    }

    fn recover(&self, fs: &SimFs, persist: bool) -> (Report, Vec<Batch>) {
        let dir = Path::new(DIR);
        let last_edit = self.segments.iter().map(|s| s.no.0).max().unwrap_or(0);
        let hint = read_hint(fs, dir, DB);
        let Known { segments, durable, start } = self;
        let (durable, start) = (*durable, *start);
        collect(Recover { fs, dir, db: DB, segments, durable, hint, last_edit, start, persist }).unwrap()
    }
}

fn disk(seed: u64) -> SimFs {
    let fs = SimFs::new(seed);
    fs.create_dir_all(Path::new(DIR)).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    fs
}

fn rig(fs: &SimFs, mode: Mode) -> Rig<'_> {
    let mut rig = Rig::new(fs, Path::new(DIR), mode, 8192 + 1000);
    rig.sim = Some(fs);
    rig.hint = Some(Hint::open(fs, Path::new(DIR), DB, true).unwrap());
    rig
}

/// One step of a writer's life.
fn step(rig: &mut Rig, rng: &mut Rng) {
    let n = rng.below(12);
    if rig.writer.is_none() || n < 6 {
        let len = if rng.below(8) == 0 { rng.below(900) } else { rng.below(120) };
        let payload: Vec<u8> = (0..len).map(|_| rng.below(256) as u8).collect();
        return rig.append(1 + rng.below(3) as u32, &payload).unwrap();
    }
    let writer = rig.writer.as_mut().unwrap();
    match n {
        6 => writer.flush().unwrap(),
        7 if writer.fits(0) && writer.vouched() < rig.durable => rig.mark().unwrap(),
        8 | 9 => rig.sync().unwrap(),
        10 => {
            // A sync that was begun before the last commit.
            writer.flush().unwrap();
            let end = writer.end();
            rig.append(1, b"while a sync is in flight").unwrap();
            rig.sync_files(end);
        }
        11 => rig.rotate().unwrap(),
        _ => {}
    }
}

/// The choices tried at `op`: all with a meaning of their own, and some others.
fn choices(fs: &SimFs, op: u64, rng: &mut Rng, more: u64) -> Vec<u64> {
    let states = fs.states_at(op);
    (0..states.min(6)).chain((0..more).map(|_| rng.below(states))).collect()
}

/// `got` is a prefix of what `rig` wrote, and holds at least what was durable at `floor`.
fn assert_prefix(rig: &Rig, got: &[Batch], floor: Position, what: &str) {
    assert!(got.len() >= rig.up_to(floor).len(), "{what}: only {} batches up to {floor}", got.len());
    assert!(rig.batches.iter().zip(got).all(|((_, a), b)| a == b), "{what}: not a prefix");
    assert!(got.len() <= rig.batches.len(), "{what}: invented");
}

#[test]
fn power_loss_at_every_operation_leaves_a_prefix() {
    for (mode, seed) in [(Mode::Positioned, 1), (Mode::Mapped, 2)] {
        let fs = disk(seed);
        let mut rng = Rng(seed);
        let mut rig = rig(&fs, mode);
        for _ in 0..30 {
            step(&mut rig, &mut rng);
        }
        assert!(
            rig.announced.len() > 2 && rig.acked.len() > 4,
            "{} {}",
            rig.announced.len(),
            rig.acked.len()
        );
        for op in 0..=fs.ops() {
            let known = Known::new().at(&rig, op, op % 2 == 0);
            let floor = rig.acked.iter().rfind(|(ops, _)| *ops <= op).map_or(Position(0), |(_, p)| *p);
            for choice in choices(&fs, op, &mut rng, 4) {
                let what = format!("seed {seed}, operation {op}, choice {choice}");
                let found = fs.crash_at(op, choice);
                let (report, got) = known.recover(&found, true);
                assert_prefix(&rig, &got, floor, &what);
                assert!(report.end >= floor);
                if rng.below(16) == 0 {
                    recovery_survives(&found, &known, &report, &got, &mut rng, &what);
                }
            }
        }
    }
}

/// Recovery of `known` on `fs` was the last thing done: whatever crash follows, it is found again.
fn recovery_survives(fs: &SimFs, known: &Known, report: &Report, got: &[Batch], rng: &mut Rng, what: &str) {
    for op in 0..=fs.ops() {
        for choice in choices(fs, op, rng, 1).into_iter().skip(1).step_by(2) {
            let found = fs.crash_at(op, choice);
            let (again, same) = known.recover(&found, true);
            assert!(same == got && again.ends == report.ends, "{what}, then {op}, {choice}");
            let (again, same) = Known::sealed(report).recover(&found.crash(3), false);
            assert!(same == got && again.ends == report.ends, "{what}, then {op}, {choice}, sealed");
        }
    }
}

/// The process dies, and what it left in the page cache is recovered; then the power goes.
#[test]
fn what_recovery_found_in_the_page_cache_survives() {
    let (mut rewritten, mut spared) = (0, 0);
    for (mode, seed) in [(Mode::Positioned, 11), (Mode::Mapped, 12)] {
        for steps in (1..40).step_by(5) {
            let fs = disk(seed);
            let mut rng = Rng(seed);
            let mut rig = rig(&fs, mode);
            for _ in 0..steps {
                step(&mut rig, &mut rng);
            }
            if steps % 2 == 0 {
                rig.writer.as_mut().unwrap().flush().unwrap();
            }
            let flushed = match (mode, steps % 2) {
                (Mode::Positioned, 1) => rig.durable,
                _ => rig.writer.as_ref().unwrap().end(),
            };
            drop(rig.writer.take());
            let before = fs.ops();
            let known = Known::new().at(&rig, before, false);
            let (report, got) = known.recover(&fs, true);
            assert_prefix(&rig, &got, flushed, "process death");
            rewritten += report.persisted;
            spared += report.end.0 - report.persisted;
            let after = fs.ops();
            for op in before..=after {
                for choice in choices(&fs, op, &mut rng, 4) {
                    let what = format!("seed {seed}, {steps} steps, operation {op}, choice {choice}");
                    let found = fs.crash_at(op, choice);
                    let (again, prefix) = known.recover(&found, true);
                    assert_prefix(&rig, &prefix, rig.durable, &what);
                    if op == after {
                        assert_eq!((&again.ends, &prefix), (&report.ends, &got), "{what}");
                        assert_eq!(Known::sealed(&report).recover(&found, true).1, got, "{what}");
                    }
                }
            }
        }
    }
    assert!(rewritten > 5_000 && spared > 20_000, "{rewritten} {spared}");
}

#[test]
fn nothing_is_lost_over_generations_of_crashes() {
    for seed in 0..120 {
        let mode = MODES[seed as usize % 2];
        let mut rng = Rng(seed);
        let mut fs = disk(seed);
        let mut known = Known::new();
        let (mut kept, mut next_no) = (Vec::<(Position, Batch)>::new(), 1);
        for generation in 0..6 {
            let mut rig = rig(&fs, mode);
            rig.announced = known.segments.clone();
            rig.start = known.start;
            rig.durable = known.durable;
            rig.next_no = next_no;
            rig.next_seq = kept.last().map_or(1, |(_, b)| b.0 + u64::from(b.1));
            rig.batches = kept.clone();
            rig.acked.push((0, known.durable));
            let begun = fs.ops();
            for _ in 0..rng.below(25) {
                step(&mut rig, &mut rng);
            }
            next_no = rig.next_no;
            let op = begun + rng.below(fs.ops() - begun + 1);
            let choice = rng.below(fs.states_at(op));
            let floor = rig.acked.iter().rfind(|(ops, _)| *ops <= op).unwrap().1;
            let found = fs.crash_at(op, choice);
            let before = known.at(&rig, op, rng.below(2) == 0);
            let (report, got) = before.recover(&found, true);
            let what = format!("seed {seed}, generation {generation}, operation {op}, choice {choice}");
            assert_prefix(&rig, &got, floor, &what);
            kept = rig.batches[..got.len()].to_vec();
            assert!(kept.last().is_none_or(|(end, _)| *end <= report.end));
            drop(rig);
            // The manifest forgets what holds nothing; the files may go later, or never.
            for no in &report.unused {
                let _ = found.remove(&Name::Journal(*no).path(Path::new(DIR)));
            }
            known = Known::sealed(&report);
            fs = found;
        }
    }
}
