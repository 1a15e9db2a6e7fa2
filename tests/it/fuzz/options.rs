//! Options of any value: refused by name, or they work.

use super::any_state;
use crate::rng::Rng;
use crate::state::{State, small, state};
use crate::world::DIR;
use esker::fs::sim::SimFs;
use esker::{Compression, Db, Durability, ErrorKind, KeyspaceOptions};
use std::sync::Arc;

/// Opens, writes, cuts and opens with other options: nothing is lost, and no option is a panic.
pub fn options(data: &[u8]) {
    let mut rng = Rng::made(data);
    let mut sim = SimFs::new(1);
    let mut expected = State::new();
    for life in 0..4u8 {
        let Some(db) = open(&mut rng, &sim) else { continue };
        assert!(state(&db) == expected, "life {life}");
        let name = ["a", "b"][rng.below(2)];
        let keyspace = match db.keyspace_with(name, keyspace_options(&mut rng)) {
            Ok(keyspace) => keyspace,
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Invalid, "{e:?}");
                continue;
            }
        };
        let rows = expected.entry(name.into()).or_default();
        for _ in 0..rng.below(64) {
            let (key, len) = (vec![rng.below(256) as u8; rng.below(20)], rng.below(600));
            let value = crate::world::value(rng.next(), len);
            keyspace.put(&key, &value).unwrap();
            rows.insert(key, value);
        }
        if rng.one_in(2) {
            db.flush().unwrap();
        }
        for _ in 0..rng.below(4) {
            db.step().unwrap();
        }
        db.sync().unwrap();
        assert!(state(&db) == expected, "life {life}, written");
        sim = sim.crash(any_state(&mut rng, &sim, sim.ops()));
    }
    let db = Db::open(DIR, small().fs(Arc::new(sim))).unwrap();
    assert!(state(&db) == expected && db.verify().unwrap().is_ok());
}

fn open(rng: &mut Rng, sim: &SimFs) -> Option<Db> {
    let mut options = small().fs(Arc::new(sim.clone()));
    // Many that are as they should be, so that most inputs get somewhere.
    for _ in 0..rng.below(10) {
        let n = number(rng);
        let bytes = usize::try_from(n).unwrap_or(usize::MAX);
        options = match rng.below(11) {
            0 => options.durability(Durability::Buffered),
            1 => options.memtable_bytes(bytes),
            // Large ones work, and take seconds to read.
            2 => options.segment_bytes(if n > 1 << 20 && n <= 4 << 30 { n >> 12 } else { n }),
            3 => options.journal_bytes(n),
            4 => options.memory_bytes(bytes),
            5 => options.cache_bytes(bytes),
            6 => options.open_files(bytes),
            7 => options.table_bytes(n),
            8 => options.mapped(n.is_multiple_of(2)),
            // Threads would make a run differ from the next.
            9 => options.workers(if bytes > 64 { bytes } else { 0 }),
            _ => options.keyspaces(keyspace_options(rng)),
        };
    }
    match Db::open(DIR, options) {
        Ok(db) => Some(db),
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::Invalid, "{e:?}");
            assert!(e.to_string().contains("option "), "{e}");
            None
        }
    }
}

fn keyspace_options(rng: &mut Rng) -> KeyspaceOptions {
    let mut options =
        KeyspaceOptions::default().compression(*rng.pick(&[Compression::Lz4, Compression::None]));
    if rng.one_in(2) {
        options = options.block_bytes(number(rng) as usize);
    }
    if rng.one_in(2) {
        options = options.filter_bits(number(rng) as u32);
    }
    options
}

/// Small, near a power of two, or anything.
fn number(rng: &mut Rng) -> u64 {
    match rng.below(256) {
        small @ 0..32 => small as u64,
        at @ 32..96 => (1u64 << (at - 32)).wrapping_sub(1),
        at @ 96..160 => 1 << (at - 96),
        at @ 160..224 => (1 << (at - 160)) + 1,
        _ => (0..8).fold(0, |n, _| n << 8 | rng.below(256) as u64),
    }
}
