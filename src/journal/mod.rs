//! The journal: the one append-only log every commit goes to first.
//!
//! It is a chain of preallocated segment files. [`Segment`] creates one ahead of need, a
//! [`Writer`] activates it and appends records, [`recover`] reads the chain back after a restart
//! and tells a torn tail from damage, [`Hint`] keeps the durable position where the death of the
//! process cannot reach it. Who calls what under which lock is decided above.

mod segment;

mod hint;
mod reader;
mod writer;

mod recover;

mod scan;
mod verify;

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;

pub(crate) use {
    hint::{Hint, dump as dump_hint, read_hint},
    recover::{Announced, Recover, Replayed, Report, last_edit, recover},
    scan::{Whole, scan},
    segment::{Segment, dump},
    verify::{Verify, verify},
    writer::{ActivationInfo, Mode, Writer},
};
