//! The one integration binary: what can be said about Esker from outside.

#![allow(clippy::unwrap_used)]

mod crash;
mod faults;
mod rng;
mod state;
mod tidy;
mod world;
