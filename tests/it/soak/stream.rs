//! What a writer of the soak does: operation number n of a writer is a function of the seed, so that
//! whoever knows how many were made knows what must be there.

use crate::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// Keyspaces of each writer: the first is always there, the others come and go.
pub const SPACES: usize = 4;
/// The rows of the queue: each operation adds some, and some go at the other end.
const QUEUED: u64 = 300;

/// What a stream is made from.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    pub seed: u64,
    pub writer: u64,
    /// How many keys there are in each keyspace, queue aside.
    pub keys: u64,
}

pub enum Op {
    /// Committed together, with the number of the operation. What concerns keyspaces that are not
    /// there is left out.
    Batch(Vec<Write>),
    Create(usize),
    Drop(usize),
    /// The first keyspace becomes what the other is, which goes.
    Replace(usize),
}

/// A write to the keyspace of a number.
#[derive(Clone)]
pub enum Write {
    Put(usize, Vec<u8>, u64),
    Delete(usize, Vec<u8>),
    /// Up to before the second.
    DeleteRange(usize, Vec<u8>, Vec<u8>),
    Clear(usize),
}

impl Write {
    pub fn space(&self) -> usize {
        let (Write::Put(space, ..)
        | Write::Delete(space, _)
        | Write::DeleteRange(space, ..)
        | Write::Clear(space)) = self;
        *space
    }
}

fn mix(n: u64) -> u64 {
    let mut x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ (x >> 31)
}

/// The value of this number: which one it is, then bytes of its own, half of which compress.
pub fn value(id: u64) -> Vec<u8> {
    let mut rng = Rng::new(id);
    let len = match rng.below(100) {
        0 => 3000 + rng.below(20_000),
        1..10 => 300,
        10..30 => 0,
        _ => rng.below(100),
    };
    let mut out = id.to_le_bytes().to_vec();
    while out.len() < len {
        out.push(if out.len() % 64 < 32 { rng.next() as u8 } else { b'.' });
    }
    out
}

/// Whether this is a value at all.
pub fn is_value(bytes: &[u8]) -> bool {
    bytes.first_chunk().is_some_and(|id| value(u64::from_le_bytes(*id)) == bytes)
}

pub fn name(writer: u64, space: usize) -> String {
    format!("writer {writer}, {space}")
}

impl Stream {
    fn key(&self, i: u64) -> Vec<u8> {
        // Scattered, and of lengths that differ.
        let key = format!("{:016x}", mix(i % self.keys));
        let len = 6 + (i % 11) as usize;
        [&key.as_bytes()[..len], &(i % self.keys).to_be_bytes()[4..]].concat()
    }

    /// Operation number `n`.
    pub fn op(&self, n: u64) -> Op {
        let mut rng = Rng::new(mix(self.seed) ^ mix(self.writer << 48 | n));
        let side = 1 + rng.below(SPACES - 1);
        match rng.below(400) {
            0..6 => Op::Create(side),
            6..8 => Op::Drop(side),
            8 => Op::Replace(side),
            9 => Op::Batch(vec![Write::Clear(side)]),
            10..30 => Op::Batch(self.queue(n, &mut rng)),
            30..33 => {
                let many = 200 + rng.below(300);
                Op::Batch((0..many as u64).map(|i| self.put(n, i, &mut rng)).collect())
            }
            _ => {
                let count = 1 + rng.below(6) as u64;
                Op::Batch((0..count).map(|i| self.write(n, i, &mut rng)).collect())
            }
        }
    }

    fn space(rng: &mut Rng) -> usize {
        if rng.one_in(2) { 0 } else { rng.below(SPACES) }
    }

    fn put(&self, n: u64, i: u64, rng: &mut Rng) -> Write {
        let id = mix(self.seed ^ self.writer << 56 ^ n << 10 ^ i);
        Write::Put(Self::space(rng), self.key(rng.next()), id)
    }

    fn write(&self, n: u64, i: u64, rng: &mut Rng) -> Write {
        match rng.below(100) {
            0..75 => self.put(n, i, rng),
            75..92 => Write::Delete(Self::space(rng), self.key(rng.next())),
            way => {
                let (a, mut b) = (self.key(rng.next()), self.key(rng.next()));
                if way > 92 {
                    // A small one: to the next two hundredth of all keys.
                    b = a.clone();
                    b[1] = b[1].saturating_add(1);
                }
                Write::DeleteRange(Self::space(rng), a.clone().min(b.clone()), a.max(b))
            }
        }
    }

    /// Rows are added behind the last, and all but the newest deleted at once.
    fn queue(&self, n: u64, rng: &mut Rng) -> Vec<Write> {
        let key = |n: u64, i: u64| [b"queue".to_vec(), n.to_be_bytes().to_vec(), vec![i as u8]].concat();
        let id = |i| mix(self.seed ^ self.writer << 56 ^ n << 10 ^ i);
        let mut writes: Vec<_> = (0..20).map(|i| Write::Put(0, key(n, i), id(i))).collect();
        if rng.one_in(2) {
            writes.push(Write::DeleteRange(0, b"queue".to_vec(), key(n.saturating_sub(QUEUED), 0)));
        }
        writes
    }
}

/// What a writer's keyspaces hold after so many operations: keys, and the numbers of their values.
#[derive(Clone)]
pub struct Model {
    pub stream: Stream,
    pub made: u64,
    pub spaces: [Option<BTreeMap<Vec<u8>, u64>>; SPACES],
}

impl Model {
    pub fn new(stream: Stream) -> Model {
        Model { stream, made: 0, spaces: Default::default() }
    }

    pub fn names(&self) -> BTreeSet<String> {
        let there = (0..SPACES).filter(|&space| self.spaces[space].is_some());
        there.map(|space| name(self.stream.writer, space)).collect()
    }

    pub fn advance(&mut self, made: u64) {
        while self.made < made {
            self.apply(&self.stream.op(self.made));
            self.made += 1;
        }
    }

    /// What the next operation makes of it. The parts of one that is not a batch may be there before
    /// its number is.
    pub fn apply(&mut self, op: &Op) {
        self.spaces[0].get_or_insert_default();
        match op {
            Op::Batch(writes) => writes.iter().for_each(|write| self.write(write)),
            Op::Create(space) => drop(self.spaces[*space].get_or_insert_default()),
            Op::Drop(space) => self.spaces[*space] = None,
            Op::Replace(space) => {
                if let Some(rows) = self.spaces[*space].take() {
                    self.spaces[0] = Some(rows);
                }
            }
        }
    }

    fn write(&mut self, write: &Write) {
        let Some(rows) = &mut self.spaces[write.space()] else { return };
        match write {
            Write::Put(_, key, id) => _ = rows.insert(key.clone(), *id),
            Write::Delete(_, key) => _ = rows.remove(key),
            Write::DeleteRange(_, from, to) => {
                let gone: Vec<_> = rows.range(from.clone()..to.clone()).map(|(key, _)| key.clone()).collect();
                gone.iter().for_each(|key| assert!(rows.remove(key).is_some()));
            }
            Write::Clear(_) => rows.clear(),
        }
    }

    /// Keys and values in bytes.
    pub fn bytes(&self) -> u64 {
        let rows = self.spaces.iter().flatten().flatten();
        rows.map(|(key, id)| (key.len() + value(*id).len()) as u64).sum()
    }
}
