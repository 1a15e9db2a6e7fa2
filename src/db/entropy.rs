//! The one place where randomness is read. It names files and salts checksums; nothing is decided
//! by it.

use crate::error::{Error, ErrorKind, Result};

/// A random number from the operating system.
pub(crate) fn random() -> Result<u64> {
    getrandom::u64()
        .map_err(|e| Error::new(ErrorKind::Io, format!("the system gives no random numbers: {e}")))
}

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
