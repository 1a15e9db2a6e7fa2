//! What the public API costs: `cargo bench`, or `cargo bench -- get` for those with "get" in their names.
//!
//! Everything lies in the system's temporary folder (`TMPDIR` moves it), which decides what the lines
//! about synced commits say. `ESKER_KEYS` sets the number of entries, 200 thousand by default; 23 MB
//! over memtables of 256 KiB make three levels below level 0. `cargo test --bench api` runs everything
//! once and measures nothing.

mod commits;
mod fills;
mod mixed;
mod reads;
mod scans;
mod support;

use criterion::{Criterion, criterion_group, criterion_main};
use support::{COMPRESSIONS, Late, Store};

/// Reads and scans share a store: filled at random, so that every level has tables, and settled.
fn tables(c: &mut Criterion) {
    for (name, compression) in COMPRESSIONS {
        let store = Late::new(Box::new(move || Store::filled(compression)));
        reads::all(c, &store, name);
        scans::all(c, &store, name);
    }
}

criterion_group! {
    name = api;
    config = support::short();
    targets = fills::all, tables, commits::all, mixed::all
}
criterion_main!(api);
