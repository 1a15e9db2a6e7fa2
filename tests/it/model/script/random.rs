//! Scripts and setups drawn from a seed.

use super::logs::NUMBERS;
use super::machine::Setup;
use super::{End, Is, LogWrite, Move, NAMES, Reader, Require, SLOTS, Step, Write};
use crate::model::Range;
use crate::rng::Rng;
use crate::state::Bytes;
use esker::{Compression, Durability, KeyspaceOptions, Options};
use std::ops::Bound;

/// Tables, blocks and memtables of a few rows each, so that every boundary is met.
pub fn setup(rng: &mut Rng) -> Setup {
    Setup {
        options: (0..3).map(|_| options(rng)).collect(),
        keyspaces: std::array::from_fn(|_| keyspace_options(rng)),
        work: rng.one_in(2).then(|| rng.next()),
        threads: false,
        cuts: None,
        forgetful: false,
    }
}

/// The same with threads that work whenever they like.
pub fn threaded(rng: &mut Rng) -> Setup {
    let mut setup = Setup { threads: true, ..setup(rng) };
    setup.options = setup.options.into_iter().map(|options| options.workers(1 + rng.below(2))).collect();
    setup
}

fn options(rng: &mut Rng) -> Options {
    let segment = 16 << (10 + rng.below(2));
    Options::default()
        .workers(0)
        .durability(*rng.pick(&[Durability::Sync, Durability::Buffered]))
        .memtable_bytes(1 << (10 + rng.below(4)))
        .segment_bytes(segment)
        .journal_bytes(segment * (2 + rng.below(4) as u64))
        .table_bytes(1 << (10 + rng.below(3)))
        .cache_bytes(*rng.pick(&[0, 1 << 10, 16 << 10, 1 << 20]))
        .memory_bytes(*rng.pick(&[1 << 20, 64 << 20]))
        .open_files(*rng.pick(&[16, 1000]))
        .mapped(rng.one_in(2))
}

fn keyspace_options(rng: &mut Rng) -> KeyspaceOptions {
    KeyspaceOptions::default()
        .compression(*rng.pick(&[Compression::None, Compression::Lz4]))
        .block_bytes(*rng.pick(&[64, 64, 96, 128, 400]))
        .filter_bits(rng.below(17) as u32)
}

/// All strings of up to three bytes out of four.
fn short_keys() -> Vec<Bytes> {
    let mut keys = vec![Bytes::new()];
    for from in 0.. {
        if keys[from].len() == 3 {
            break;
        }
        for byte in [0, b'a', b'b', 0xff] {
            keys.push([&keys[from][..], &[byte]].concat());
        }
    }
    keys
}

/// The keys a script uses: few enough to collide, and close to each other.
fn keys(rng: &mut Rng) -> Vec<Bytes> {
    let numbers = |n: u16| (0..n).map(|i| i.to_be_bytes().to_vec()).collect::<Vec<_>>();
    match rng.below(5) {
        0 => short_keys(),
        1 => numbers(300),
        // Each a prefix of all that follow.
        2 => (0..60).map(|len| vec![b'a'; len]).collect(),
        3 => {
            let long = |i: Bytes| [b"the same for all ".repeat(1 + rng.below(8)), i].concat();
            numbers(60).into_iter().map(long).collect()
        }
        _ => [short_keys(), numbers(20), (0..80).map(|i| format!("user/{i:02}/name").into()).collect()]
            .concat(),
    }
}

/// What a script is made of, beside chance.
struct Author {
    rng: Rng,
    keys: Vec<Bytes>,
    live: [bool; NAMES.len()],
    /// The rows of a queue: taken away at one end, added at the other.
    queue: std::ops::Range<u64>,
    /// How often ranges are deleted, in a hundred writes.
    ranges: usize,
    /// Whether the power may go.
    cuts: bool,
}

/// A script of so many calls. Without `cuts` its answers do not depend on when work is done.
pub fn script(rng: &mut Rng, calls: usize, cuts: bool) -> Vec<Step> {
    let keys = keys(rng);
    let ranges = *rng.pick(&[2, 10, 25, 50]);
    let mut author = Author { rng: rng.part(), keys, live: [false; NAMES.len()], queue: 0..0, ranges, cuts };
    let mut script = vec![Step::Create(0), Step::Logs(true)];
    author.live[0] = true;
    while script.len() < calls && !author.rng.is_over() {
        script.push(author.step());
    }
    script
}

impl Author {
    fn step(&mut self) -> Step {
        match self.rng.below(100) {
            0..30 => self.commit(),
            30..34 => self.commit_if(),
            34..37 => Step::Submit(self.rng.below(SLOTS), self.writes()),
            37 if self.rng.one_in(2) => Step::Await(self.rng.below(SLOTS)),
            37 => Step::Told(self.rng.one_in(2)),
            38..41 => self.queue(),
            41..43 => {
                let slot = self.rng.one_in(3).then(|| self.rng.below(SLOTS));
                Step::ReadLog(self.rng.below(NUMBERS as usize) as u64, slot)
            }
            43..47 => Step::Get(self.reader(), (0..1 + self.rng.below(8)).map(|_| self.key()).collect()),
            47..57 => Step::Scan(self.reader(), self.range(), self.ways()),
            57..65 => Step::Walk(self.reader(), self.range(), self.moves()),
            65..68 => Step::Begin(self.rng.below(SLOTS), self.reader(), self.range()),
            68..72 => Step::Advance(self.rng.below(SLOTS), self.ways()),
            72..76 => Step::Snapshot(self.rng.below(SLOTS), self.cuts && self.rng.one_in(3)),
            76..78 => Step::Release(self.rng.below(SLOTS)),
            78..82 => self.catalog(),
            82..89 => Step::Work(1 + self.rng.below(4)),
            89..92 => Step::Settle,
            92..96 => Step::Flush,
            96 => Step::Sync,
            97 if self.rng.one_in(2) => Step::Logs(!self.rng.one_in(4)),
            97 => Step::Tune(self.rng.below(NAMES.len()), keyspace_options(&mut self.rng)),
            98 if self.rng.one_in(4) => Step::Verify,
            98 if self.rng.one_in(4) => Step::Look(self.rng.below(3)),
            98 => self.reopen(),
            99 if self.rng.one_in(2) => Step::Compact(self.name(), self.range()),
            99 if self.rng.one_in(2) => Step::Checkpoint(self.rng.below(3)),
            _ => self.commit(),
        }
    }

    fn reopen(&mut self) -> Step {
        let cut = End::Cut(self.rng.below(1000) as u64);
        let end = *self.rng.pick(&[End::Close, End::Drop, cut, cut]);
        let end = if self.cuts || !matches!(end, End::Cut(_)) { end } else { End::Drop };
        Step::Reopen(end, self.rng.below(3))
    }

    fn catalog(&mut self) -> Step {
        let name = self.rng.below(NAMES.len());
        let other = (name + 1 + self.rng.below(NAMES.len() - 1)) % NAMES.len();
        if !self.live[name] {
            self.live[name] = true;
            Step::Create(name)
        } else if self.live[other] && self.rng.one_in(2) {
            self.live[other] = false;
            Step::Replace(name, other)
        } else {
            self.live[name] = false;
            Step::Drop(name)
        }
    }

    /// A name that most likely is there.
    fn name(&mut self) -> usize {
        let name = self.rng.below(NAMES.len());
        if self.live[name] { name } else { self.live.iter().position(|live| *live).unwrap_or(name) }
    }

    fn reader(&mut self) -> Reader {
        let snapshot = self.rng.one_in(2).then(|| self.rng.below(SLOTS));
        Reader { name: self.name(), snapshot }
    }

    /// A key, or what lies right beside one.
    fn key(&mut self) -> Bytes {
        let mut key = self.rng.pick(&self.keys).clone();
        match self.rng.below(12) {
            0 => key.push(0),
            1 => drop(key.pop()),
            _ => {}
        }
        key
    }

    fn bound(&mut self) -> Bound<Bytes> {
        match self.rng.below(9) {
            0 => Bound::Unbounded,
            1..6 => Bound::Included(self.key()),
            _ => Bound::Excluded(self.key()),
        }
    }

    /// Mostly the right way round; small as often as large.
    fn range(&mut self) -> Range {
        let (mut lower, mut upper) = (self.bound(), self.bound());
        if self.rng.one_in(3) {
            let at = self.rng.below(self.keys.len());
            let to = (at + self.rng.below(6)).min(self.keys.len() - 1);
            (lower, upper) = (Bound::Included(self.keys[at].clone()), Bound::Excluded(self.keys[to].clone()));
        }
        let key = |bound: &Bound<Bytes>| match bound {
            Bound::Included(key) | Bound::Excluded(key) => Some(key.clone()),
            Bound::Unbounded => None,
        };
        let reversed = matches!((key(&lower), key(&upper)), (Some(l), Some(u)) if l > u);
        if reversed && !self.rng.one_in(12) { (upper, lower) } else { (lower, upper) }
    }

    fn ways(&mut self) -> Vec<bool> {
        match self.rng.below(4) {
            0 => vec![true],
            1 => vec![false],
            _ => (0..1 + self.rng.below(12)).map(|_| self.rng.one_in(2)).collect(),
        }
    }

    fn moves(&mut self) -> Vec<Move> {
        let mut moves = Vec::new();
        for _ in 0..1 + self.rng.below(30) {
            match self.rng.below(5) {
                0 => moves.push(Move::Seek(self.key())),
                1 | 2 => moves.push(Move::Next),
                _ => moves.push(Move::Prev),
            }
        }
        moves
    }

    fn durability(&mut self) -> Durability {
        *self.rng.pick(&[Durability::Sync, Durability::Buffered, Durability::Buffered, Durability::Buffered])
    }

    fn commit(&mut self) -> Step {
        Step::Commit(self.durability(), self.writes())
    }

    fn writes(&mut self) -> Vec<Write> {
        let count = match self.rng.below(30) {
            0 => 60,
            1..8 => 1 + self.rng.below(20),
            _ => 1 + self.rng.below(3),
        };
        (0..count).map(|_| self.write()).collect()
    }

    /// Conditions on what was written to before, of which some hold.
    fn commit_if(&mut self) -> Step {
        let requires = (0..1 + self.rng.below(2)).map(|_| self.require()).collect();
        let count = self.rng.below(3);
        Step::Try(self.durability(), requires, (0..count).map(|_| self.write()).collect())
    }

    fn require(&mut self) -> Require {
        let key = self.key();
        let one = (Bound::Included(key.clone()), Bound::Included(key));
        let range = if self.rng.one_in(2) { one } else { self.range() };
        let is = match self.rng.below(8) {
            0..2 => Is::Absent,
            2..4 => Is::Present,
            4 => Is::Value(Bytes::new()),
            _ => Is::Unchanged(self.rng.below(SLOTS)),
        };
        Require { name: self.name(), range, is }
    }

    /// Mostly entries; few things that cannot be.
    fn log_write(&mut self) -> LogWrite {
        let few = |rng: &mut Rng| if rng.one_in(8) { rng.below(40) as u64 } else { rng.below(4) as u64 };
        let tag = self.rng.below(3) as u64;
        match self.rng.below(24) {
            0 => LogWrite::Truncate(few(&mut self.rng)),
            1..4 => LogWrite::Purge(few(&mut self.rng)),
            4 if self.rng.one_in(3) => LogWrite::Reset(self.rng.below(50) as u64, tag),
            4 if self.rng.one_in(3) => LogWrite::Remove,
            5 => LogWrite::RequireNext(if self.rng.one_in(6) { -1 } else { 0 }),
            kind => {
                let len = *self.rng.pick(&[0, 1, 20, 80, 200, 900]);
                let bytes = self.value(len);
                let off = if self.rng.one_in(50) { 1 - 2 * self.rng.below(2) as i64 } else { 0 };
                if kind % 2 == 0 { LogWrite::Append(off, tag, bytes) } else { LogWrite::Push(tag, bytes) }
            }
        }
    }

    fn write(&mut self) -> Write {
        if self.rng.one_in(4) {
            return Write::Log(self.rng.below(NUMBERS as usize) as u64, self.log_write());
        }
        let name = self.name();
        if self.rng.below(100) < self.ranges {
            return match self.rng.below(20) {
                0 => Write::Clear(name),
                _ => Write::DeleteRange(name, self.range()),
            };
        }
        match self.rng.below(5) {
            0 => Write::Delete(name, self.key()),
            _ => {
                let len = *self.rng.pick(&[0, 1, 10, 20, 40, 80, 200]);
                Write::Put(name, self.key(), self.value(len))
            }
        }
    }

    /// A value that no other write has, unless it is very short; half of it compresses.
    fn value(&mut self, len: usize) -> Bytes {
        let mut value = self.rng.next().to_le_bytes().to_vec();
        value.resize(len.max(8), b'.');
        value.truncate(len);
        value
    }

    /// Rows are added behind the last, and those before the first that counts are deleted at once.
    fn queue(&mut self) -> Step {
        let key = |n: u64| [b"q".to_vec(), n.to_be_bytes().to_vec()].concat();
        let name = self.name();
        let mut writes = Vec::new();
        for _ in 0..self.rng.below(30) {
            writes.push(Write::Put(name, key(self.queue.end), self.value(20)));
            self.queue.end += 1;
        }
        if self.rng.one_in(2) {
            let taken = self.rng.below((self.queue.end - self.queue.start) as usize + 1) as u64;
            self.queue.start += taken;
            let from = if self.rng.one_in(2) { key(0) } else { key(self.queue.start - taken) };
            writes.push(Write::DeleteRange(
                name,
                (Bound::Included(from), Bound::Excluded(key(self.queue.start))),
            ));
        }
        Step::Commit(self.durability(), writes)
    }
}
