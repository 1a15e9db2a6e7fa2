//! The targets that see Esker from outside are tests of the engine, driven by the fuzzer's choices
//! instead of a seed. Those of formats are in the engine itself (`esker::fuzz`).

#![allow(dead_code, unused_imports, clippy::unwrap_used, reason = "the tests themselves are not built here")]

#[path = "../../tests/it/fuzz/mod.rs"]
mod fuzz;
#[path = "../../tests/it/model/mod.rs"]
mod model;
#[path = "../../tests/it/rng.rs"]
mod rng;
#[path = "../../tests/it/state.rs"]
mod state;
#[path = "../../tests/it/world.rs"]
mod world;

pub use fuzz::{crash_recovery, model, options};
