//! What the writers do: a step for each writer and number, drawn from the seed alone, so that the
//! checker knows from two numbers what must be there.

use std::collections::BTreeMap;

/// Writers of a child.
pub const WRITERS: usize = 4;
/// Keyspaces that all writers share; each has keys of its own there.
pub const SHARED: [&str; 3] = ["a", "b", "c"];
/// Holds a row per writer: the number of its last step, and what it knew of the others.
pub const COUNTS: &str = "counts";
/// The number of a writer's own keyspace, behind the shared ones.
pub const OWN: usize = SHARED.len();

const BUCKETS: usize = 6;
const BUCKET: usize = 40;

/// A seed with this bit makes values large enough to fill a small disk.
pub const HEAVY: u64 = 1 << 63;

/// The keyspace that one writer has for itself, and drops, clears and replaces.
pub fn own(writer: usize) -> String {
    format!("own-{writer}")
}

/// Where the contents are gathered that replace it.
pub fn staging(writer: usize, n: u64) -> String {
    format!("staging-{writer}-{n}")
}

/// A small generator; the same seed gives the same numbers.
pub struct Rng(u64);

impl Rng {
    pub fn new(seeds: &[u64]) -> Rng {
        let mut rng = Rng(0x9e37_79b9_7f4a_7c15);
        for seed in seeds {
            rng.0 = rng.next() ^ seed;
        }
        rng
    }

    /// The step of splitmix64.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// One operation of a batch. `space` is the index of a shared keyspace, or [`OWN`].
pub enum Act {
    Put { space: usize, key: Vec<u8>, value: Vec<u8> },
    Delete { space: usize, key: Vec<u8> },
    DeleteRange { space: usize, from: Vec<u8>, to: Vec<u8> },
    ClearOwn,
}

/// How a step's last commit is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    Buffered,
    Sync,
    Submit,
}

pub enum Kind {
    /// A batch alone.
    Plain,
    /// The own keyspace is dropped and made again, then the batch follows.
    Drop,
    /// These rows are put into a staging keyspace, which replaces the own one in the batch.
    Replace(Vec<(Vec<u8>, Vec<u8>)>),
}

pub struct Step {
    pub kind: Kind,
    pub acts: Vec<Act>,
    pub how: How,
}

/// A key of this writer. Keys of all writers lie between each other.
fn key(writer: usize, bucket: usize, n: usize) -> Vec<u8> {
    format!("{bucket:02}/{writer}/{n:03}").into_bytes()
}

fn value(rng: &mut Rng, heavy: bool, writer: usize, n: u64) -> Vec<u8> {
    let len = match rng.below(60) {
        _ if heavy => 1000 + rng.below(8000),
        0 => 0,
        1 => 2000 + rng.below(4000),
        2 if rng.one_in(8) => 20_000 + rng.below(20_000),
        _ => 8 + rng.below(150),
    };
    let mut out = format!("{writer}.{n}.").into_bytes();
    while out.len() < len {
        // Half of it compresses.
        if out.len() % 64 < 32 {
            out.extend(rng.next().to_le_bytes());
        } else {
            out.extend([b'.'; 8]);
        }
    }
    out.truncate(len);
    out
}

/// Step number `n` (from 1) of a writer.
pub fn step(seed: u64, writer: usize, n: u64) -> Step {
    let mut rng = Rng::new(&[seed, writer as u64, n]);
    let heavy = seed & HEAVY != 0;
    let any = |rng: &mut Rng| key(writer, rng.below(BUCKETS), rng.below(BUCKET));
    let kind = match rng.below(80) {
        0 => Kind::Drop,
        1 => {
            let rows: BTreeMap<_, _> =
                (0..rng.below(20)).map(|_| (any(&mut rng), value(&mut rng, heavy, writer, n))).collect();
            Kind::Replace(rows.into_iter().collect())
        }
        _ => Kind::Plain,
    };
    let many = if rng.one_in(10) { 40 } else { 8 };
    let acts = (0..1 + rng.below(many))
        .map(|_| {
            let space = rng.below(SHARED.len() + 1);
            match rng.below(100) {
                0..12 => Act::Delete { space, key: any(&mut rng) },
                12..18 => {
                    let bucket = rng.below(BUCKETS);
                    let (from, to) = (rng.below(BUCKET), rng.below(BUCKET));
                    let bound = |n| key(writer, bucket, n);
                    Act::DeleteRange { space, from: bound(from.min(to)), to: bound(from.max(to)) }
                }
                18 => Act::ClearOwn,
                _ => Act::Put { space, key: any(&mut rng), value: value(&mut rng, heavy, writer, n) },
            }
        })
        .collect();
    let how = match rng.below(10) {
        0..5 => How::Buffered,
        5..7 => How::Sync,
        _ => How::Submit,
    };
    Step { kind, acts, how }
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// What the database holds after so many steps of each writer. Writers never touch each other's
/// keys, so that the order between them does not matter.
#[derive(Clone)]
pub struct Model {
    seed: u64,
    pub counts: [u64; WRITERS],
    pub shared: [Rows; SHARED.len()],
    pub own: [Rows; WRITERS],
}

impl Model {
    pub fn new(seed: u64) -> Model {
        let (shared, own) = (Default::default(), Default::default());
        Model { seed, counts: [0; WRITERS], shared, own }
    }

    /// Takes the writer on to its step `n`.
    pub fn advance(&mut self, writer: usize, n: u64) {
        while self.counts[writer] < n {
            self.counts[writer] += 1;
            self.make(writer, step(self.seed, writer, self.counts[writer]));
        }
    }

    fn make(&mut self, writer: usize, step: Step) {
        match step.kind {
            Kind::Plain => {}
            Kind::Drop => self.own[writer].clear(),
            Kind::Replace(rows) => self.own[writer] = rows.into_iter().collect(),
        }
        for act in step.acts {
            match act {
                Act::Put { space, key, value } => drop(self.rows(writer, space).insert(key, value)),
                Act::Delete { space, key } => drop(self.rows(writer, space).remove(&key)),
                Act::DeleteRange { space, from, to } => {
                    // Between two keys of one writer in one bucket lie only keys of that writer.
                    self.rows(writer, space).retain(|key, _| *key < from || *key >= to);
                }
                Act::ClearOwn => self.own[writer].clear(),
            }
        }
    }

    fn rows(&mut self, writer: usize, space: usize) -> &mut Rows {
        if space == OWN { &mut self.own[writer] } else { &mut self.shared[space] }
    }

    /// Whether the next step of the writer begins by dropping its own keyspace, which is a commit of
    /// its own and may have happened already.
    pub fn may_have_dropped(&self, writer: usize) -> bool {
        matches!(step(self.seed, writer, self.counts[writer] + 1).kind, Kind::Drop)
    }
}
