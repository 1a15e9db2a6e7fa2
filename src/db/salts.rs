//! Salts: what names files for ever and seeds their checksums; nothing is decided by it.

/// A source of numbers that never repeat in practice, drawn from one random seed (splitmix64).
#[derive(Debug)]
pub(crate) struct Salts(u64);

impl Salts {
    pub fn new(seed: u64) -> Salts {
        Salts(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}
