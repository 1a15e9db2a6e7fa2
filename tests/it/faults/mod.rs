//! Disks that fail: every operation of small workloads in turn, in every way, once and for good;
//! full disks; syncs that fail. Calls answer with typed errors, no promise is broken, and what can
//! go on goes on; so it is in the process that met the fault, after opening again, and after a
//! power cut on top.
//!
//! What always runs is a sample. All of it:
//! `cargo test --release --test it faults:: -- --ignored --nocapture`. A failure names its point;
//! `ESKER_POINT=...` runs only points with that in their name. `ESKER_FAULTS=n` tries one point of
//! so many, `ESKER_SEEDS=a..b` other random workloads.

mod attempt;
mod cases;
mod control;
mod everywhere;
mod kinds;
mod random;
