//! Keys, values and orders: the same for every engine, and cheap enough to be made while it works.

/// xorshift64*.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// From 0 to 1.
    pub fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

pub const KEY: usize = 16;
pub type Key = [u8; KEY];

/// 15 digits and a zero, in the order of the numbers.
pub fn key(n: u64) -> Key {
    let mut out = [b'0'; KEY];
    let (mut high, mut low) = ((n / 10_000_000) as u32, (n % 10_000_000) as u32);
    for digit in out[8..15].iter_mut().rev() {
        *digit = b'0' + (low % 10) as u8;
        low /= 10;
    }
    for digit in out[..8].iter_mut().rev() {
        if high == 0 {
            break;
        }
        *digit = b'0' + (high % 10) as u8;
        high /= 10;
    }
    out
}

/// Right behind key `n`, never one of the keys.
pub fn missing_key(n: u64) -> Key {
    let mut out = key(n);
    out[KEY - 1] = b'x';
    out
}

/// Between key `n` and the next: what workloads insert.
pub fn new_key(n: u64) -> Key {
    let mut out = key(n);
    out[KEY - 1] = b'5';
    out
}

/// What the keys of a hundred numbers share.
pub const PREFIX: usize = KEY - 3;

/// What values are cut from, half of it noise in short pieces, as in db_bench.
pub struct Pool(Vec<u8>);

const PIECE: usize = 100;
const POOL: usize = 40_000 * PIECE;
pub const LONGEST: usize = 64 << 10;

impl Pool {
    pub fn new() -> Pool {
        let mut rng = Rng::new(1);
        let mut pool = vec![b'.'; POOL + LONGEST.next_multiple_of(PIECE)];
        for piece in pool.chunks_mut(PIECE) {
            for chunk in piece[..PIECE / 2].chunks_mut(8) {
                chunk.copy_from_slice(&rng.next().to_le_bytes()[..chunk.len()]);
            }
        }
        Pool(pool)
    }

    /// Values of one length, one after the other.
    pub fn values(&self, len: usize, seed: u64) -> Values<'_> {
        Values { pool: &self.0, len, at: Rng::new(seed).below((POOL / PIECE) as u64) as usize * PIECE }
    }
}

pub struct Values<'a> {
    pool: &'a [u8],
    len: usize,
    at: usize,
}

impl<'a> Values<'a> {
    pub fn next(&mut self) -> &'a [u8] {
        let at = self.at;
        self.at = (at + self.len.next_multiple_of(PIECE)) % POOL;
        &self.pool[at..at + self.len]
    }
}

/// The numbers below `keys` in an order that looks random, without a list of them: it would count as the
/// engine's memory. A Feistel network over the next power of four, walked until it is below `keys`.
#[derive(Clone, Copy)]
pub struct Shuffle {
    keys: u64,
    half: u32,
    seed: u64,
}

impl Shuffle {
    pub fn new(keys: u64, seed: u64) -> Shuffle {
        Shuffle { keys, half: (u64::BITS - (keys - 1).leading_zeros()).div_ceil(2), seed }
    }

    pub fn at(&self, n: u64) -> u64 {
        let mask = (1 << self.half) - 1;
        let mut n = n;
        loop {
            let (mut high, mut low) = (n >> self.half, n & mask);
            for round in 1..=4 {
                let mixed = (low ^ self.seed.wrapping_mul(round)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
                (high, low) = (low, high ^ (mixed & mask));
            }
            n = high << self.half | low;
            if n < self.keys {
                return n;
            }
        }
    }
}

/// Ranks below `n`, the first most often: YCSB's generator (Gray et al., "Quickly generating
/// billion-record synthetic databases").
pub struct Zipf {
    n: f64,
    alpha: f64,
    zeta: f64,
    eta: f64,
}

const THETA: f64 = 0.99;

impl Zipf {
    pub fn new(n: u64) -> Zipf {
        let zeta = |n: u64| (1..=n).map(|i| (i as f64).powf(-THETA)).sum::<f64>();
        let (all, two) = (zeta(n), zeta(2));
        let eta = (1.0 - (2.0 / n as f64).powf(1.0 - THETA)) / (1.0 - two / all);
        Zipf { n: n as f64, alpha: 1.0 / (1.0 - THETA), zeta: all, eta }
    }

    pub fn next(&self, rng: &mut Rng) -> u64 {
        let u = rng.part();
        let uz = u * self.zeta;
        if uz < 1.0 {
            0
        } else if uz < 1.0 + 0.5f64.powf(THETA) {
            1
        } else {
            ((self.n * (self.eta * u - self.eta + 1.0).powf(self.alpha)) as u64).min(self.n as u64 - 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_the_order_of_their_numbers() {
        let numbers = [0, 1, 9, 10, 9_999_999, 10_000_000, 10_000_001, 123_456_789_012];
        for pair in numbers.windows(2) {
            assert!(key(pair[0]) < new_key(pair[0]) && new_key(pair[0]) < missing_key(pair[0]));
            assert!(missing_key(pair[0]) < key(pair[1]));
        }
        assert_eq!(&key(1_234_567_890), b"0000012345678900");
        let shared = |n: u64| (0..1000).filter(|m| key(*m)[..PREFIX] == key(n)[..PREFIX]).count();
        assert_eq!((shared(0), shared(555)), (100, 100));
    }

    #[test]
    fn values_have_their_length_and_are_half_noise() {
        let pool = Pool::new();
        for len in [100, 4096, LONGEST] {
            let mut values = pool.values(len, 7);
            for _ in 0..100_000 / (len / 100) {
                let value = values.next();
                assert_eq!(value.len(), len);
                let dots = value.iter().filter(|b| **b == b'.').count();
                assert!((len / 2..len * 6 / 10).contains(&(dots + len / 64)), "{dots} of {len}");
            }
        }
    }

    #[test]
    fn a_shuffle_holds_every_number_once() {
        for keys in [1000, 1024, 1025, 5000] {
            let shuffle = Shuffle::new(keys, 7);
            let mut all: Vec<u64> = (0..keys).map(|n| shuffle.at(n)).collect();
            assert_ne!(all, (0..keys).collect::<Vec<_>>());
            all.sort_unstable();
            assert_eq!(all, (0..keys).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_first_ranks_are_as_frequent_as_zipf_says() {
        let (n, draws) = (10_000, 400_000);
        let (zipf, mut rng) = (Zipf::new(n), Rng::new(3));
        let mut counts = vec![0u32; n as usize];
        (0..draws).for_each(|_| counts[zipf.next(&mut rng) as usize] += 1);
        let zeta: f64 = (1..=n).map(|i| (i as f64).powf(-0.99)).sum();
        let expected = |ranks: std::ops::Range<u64>| {
            ranks.map(|r| ((r + 1) as f64).powf(-0.99) / zeta).sum::<f64>() * f64::from(draws)
        };
        for ranks in [0..1, 1..2, 2..10, 10..100, 100..1000, 1000..n] {
            let found: u32 = counts[ranks.start as usize..ranks.end as usize].iter().sum();
            let part = f64::from(found) / expected(ranks.clone());
            assert!((0.85..1.15).contains(&part), "{ranks:?}: {part}");
        }
    }
}
