//! Fuzz targets that see Esker from outside: sequences of calls, drawn from the fuzzer's bytes as
//! tests draw theirs from a seed, and values of options. The package `fuzz` runs them; here their
//! seeds are replayed.

mod life;
mod options;
#[cfg(test)]
mod replay;

use crate::rng::Rng;
use esker::fs::sim::SimFs;

pub use life::crash_recovery;
pub use options::options;

/// So many calls at most: what is found is found by short runs, and those are quick.
const CALLS: usize = 200;

/// Calls against the model: snapshots, iterators, range deletes, work at any moment, reopening.
pub fn model(data: &[u8]) {
    crate::model::fuzz(&mut Rng::made(data), CALLS);
}

/// Any state the disk may be in after the power went at operation `op`.
fn any_state(rng: &mut Rng, sim: &SimFs, op: u64) -> u64 {
    rng.below(sim.states_at(op).clamp(6, 256) as usize) as u64
}
