//! The one integration binary: what can be said about Esker from outside.

#![allow(clippy::unwrap_used)]

mod alloc;
mod api;
mod calm;
mod checkpoint;
mod compaction;
mod crash;
mod damage;
mod events;
mod faults;
mod fuzz;
mod histories;
mod hook;
mod limits;
mod logs;
mod many;
mod model;
mod pairs;
mod process;
mod ranges;
mod regress;
mod reuse;
mod rng;
mod soak;
mod state;
mod threads;
mod tidy;
mod world;
