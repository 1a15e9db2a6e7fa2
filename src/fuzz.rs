//! Fuzz targets for formats: each takes any bytes, and checks what must hold of whatever they mean.
//! The package `fuzz` runs them; their seeds are replayed by the tests here.

use crate::batch::{self, Op, Ops};
use crate::catalog::{self, Row};
use crate::choices::Choices;
use crate::error::Result;
use crate::fs::names::Name;
use crate::fs::sim::SimFs;
use crate::fs::{Fs, write_all_at};
use crate::ids::KeyspaceId;
use crate::options::{Compression, KeyspaceOptions};
use crate::{journal, record, table, version};
use std::path::Path;

pub use crate::log::fuzz::{entries, footer};
pub use journal::fuzz::journal;
pub use table::fuzz::{block, filter, index, table};
pub use version::fuzz::manifest;

/// The encoding of batches, rows of the catalog, records and the hint.
pub fn batch(data: &[u8]) {
    let mut input = Choices::new(data);
    match input.byte() % 6 {
        0 => decoded(input.rest()),
        1 => encoded(&mut input),
        2 => row(input.rest()),
        3 => made_row(&mut input),
        4 => hint(&mut input),
        _ => framing(&mut input),
    }
}

/// The error, if it is one that bytes from disk may lead to.
pub(crate) fn damage<T>(result: Result<T>) -> Option<T> {
    match result {
        Ok(fine) => Some(fine),
        Err(e) => {
            assert!(e.is_corruption(), "{e:?}");
            None
        }
    }
}

/// Makes the checksums of the record at `at` right, as long as its length leads nowhere. Answers where
/// the next one stands.
pub(crate) fn seal_record(bytes: &mut [u8], salt: u64, at: usize) -> Option<usize> {
    let (offset, left) = (at as u64, bytes.get_mut(at..)?);
    let len = crate::coding::u32_at(left, 8)? as usize;
    let (header, rest) = left.split_first_chunk_mut::<{ record::HEADER_LEN }>()?;
    let payload = rest.get_mut(..len)?;
    header[4..8].copy_from_slice(&record::checksum(salt, offset, payload).to_le_bytes());
    let sum = record::checksum(salt, offset, &header[4..]);
    header[..4].copy_from_slice(&sum.to_le_bytes());
    if let Some(padding) = rest.get_mut(len..record::size(len) - record::HEADER_LEN) {
        padding.fill(0);
    }
    Some(at + record::size(len))
}

/// What can be read is written as something that reads the same.
fn decoded(bytes: &[u8]) {
    let mut ops = Ops::default();
    let mut read = 0;
    for op in batch::decode(bytes) {
        let Some((keyspace, op)) = damage(op) else { break };
        read += op.len();
        ops.push(keyspace, op);
    }
    assert!(read <= bytes.len());
    assert_eq!(batch::decode(ops.bytes()).count(), ops.count() as usize);
    let again = batch::decode(ops.bytes()).map(|op| op.expect("what was written"));
    assert!(batch::decode(bytes).map_while(Result::ok).eq(again));
}

fn encoded(input: &mut Choices<'_>) {
    let mut wanted = Vec::new();
    while !input.is_empty() {
        let keyspace = KeyspaceId(input.number() as u32);
        let op = match input.byte() % 4 {
            0 => Op::Put { key: input.some(), value: input.some() },
            1 => Op::Delete { key: input.some() },
            2 => Op::DeleteRange { start: input.some(), end: Some(input.some()) },
            _ => Op::DeleteRange { start: input.some(), end: None },
        };
        wanted.push((keyspace, op));
    }
    let mut ops = Ops::default();
    wanted.iter().for_each(|(keyspace, op)| ops.push(*keyspace, *op));
    check(&ops, &wanted);
    assert_eq!(ops.count() as usize, wanted.len());
    assert_eq!(ops.only_take_away(), !wanted.iter().any(|(_, op)| matches!(op, Op::Put { .. })));
    let Some(&(from, _)) = wanted.first() else { return };
    let to = KeyspaceId(!from.0);
    wanted.iter_mut().filter(|(k, _)| *k == from).for_each(|(k, _)| *k = to);
    ops.redirect(from, to).expect("what was written");
    check(&ops, &wanted);
}

fn check(ops: &Ops, wanted: &[(KeyspaceId, Op<'_>)]) {
    let read = batch::decode(ops.bytes()).collect::<Result<Vec<_>>>();
    assert_eq!(read.expect("what was written"), wanted);
}

fn row(bytes: &[u8]) {
    if let Some((kind, name)) = damage(catalog::name(bytes)) {
        assert!(catalog::key(kind, &name).map_or(name.is_empty() || name.len() > 255, |key| key == bytes));
    }
    // A build without Zstandard refuses what one with it may have written.
    let zstd = cfg!(not(feature = "zstd")) && bytes.get(5) == Some(&2);
    if !zstd && let Some(row) = damage(Row::decode(bytes)) {
        assert_eq!(Row::decode(&row.encode()).expect("what was written"), row);
    }
}

fn made_row(input: &mut Choices<'_>) {
    let options = KeyspaceOptions {
        compression: *input.pick(&[Compression::None, Compression::Lz4]),
        block_bytes: input.number() as usize,
        filter_bits: input.number() as u32,
    };
    let row = Row { id: KeyspaceId(input.number() as u32), options };
    let read = damage(Row::decode(&row.encode()));
    let fine = options.check().is_ok() && row.id != KeyspaceId::CATALOG;
    assert_eq!(read, fine.then_some(row));
}

/// Of two slots that may be damaged, the one that reaches further counts.
fn hint(input: &mut Choices<'_>) {
    let (fs, dir) = (SimFs::new(1), Path::new("/"));
    let mut hint = journal::Hint::open(&fs, dir, 7, false).expect("an empty disk");
    let mut furthest = Vec::new();
    for _ in 0..input.below(4) {
        let to = crate::ids::Position(input.number());
        hint.store(to);
        furthest.push(to);
    }
    let stored = furthest.iter().copied().filter(|to| to.0 > 0).max();
    assert_eq!(journal::read_hint(&fs, dir, 7), stored);
    assert_eq!(journal::read_hint(&fs, dir, 8), None);
    let file = fs.open_write(&Name::Hint.path(dir)).expect("the hint");
    let (at, bytes) = (input.below(600) as u64, input.take(4));
    let mut old = [0; 4];
    let had = file.read_at(&mut old, at).expect("a good disk");
    let flipped: Vec<u8> = old.iter().zip(bytes).map(|(a, b)| a ^ b).collect();
    write_all_at(&*file, &flipped[..flipped.len().min(had)], at).expect("a good disk");
    let found = journal::read_hint(&fs, dir, 7);
    assert!(found.is_none_or(|to| furthest.contains(&to)), "{found:?}");
    let _ = journal::Hint::open(&fs, dir, 7, true).expect("any hint");
}

fn framing(input: &mut Choices<'_>) {
    let (salt, at) = (input.number(), input.number() & !7);
    if let Some((header, payload)) = record::decode(salt, at, input.clone().rest()) {
        let mut again = Vec::new();
        record::encode(&mut again, salt, at, header.meta, payload);
        assert!(input.rest().starts_with(&again[..record::HEADER_LEN + payload.len()]));
        return;
    }
    let kinds = [record::RecordKind::Batch, record::RecordKind::Mark, record::RecordKind::Snapshot];
    let meta = record::Meta {
        kind: *input.pick(&kinds),
        first_seq: crate::ids::Seq::ZERO.plus(input.number()),
        count: input.number() as u32,
        watermark: input.number(),
    };
    let payload = input.rest();
    let mut bytes = Vec::new();
    record::encode(&mut bytes, salt, at, meta, payload);
    assert_eq!(bytes.len(), record::size(payload.len()));
    let (header, found) = record::decode(salt, at, &bytes).expect("what was written");
    assert_eq!((header.meta, found), (meta, payload));
    assert!(record::decode(salt, at ^ 8, &bytes).is_none());
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;
    use std::path::PathBuf;

    type Target = fn(&[u8]);
    const TARGETS: [(&str, Target); 9] = [
        ("batch", super::batch),
        ("block", super::block),
        ("entries", super::entries),
        ("filter", super::filter),
        ("footer", super::footer),
        ("index", super::index),
        ("journal", super::journal),
        ("manifest", super::manifest),
        ("table", super::table),
    ];

    /// Runs the target on its seeds. Answers how many there are, and those that fail.
    fn replay(name: &str, target: Target) -> (usize, Vec<PathBuf>) {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
        let seeds: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
        let fails = |path: &PathBuf| {
            let seed = std::fs::read(path).unwrap();
            catch_unwind(|| target(&seed)).is_err()
        };
        (seeds.len(), seeds.into_iter().filter(fails).collect())
    }

    #[test]
    fn no_seed_fails() {
        for (name, target) in TARGETS {
            let (seeds, failed) = replay(name, target);
            assert!(seeds > 0 && failed.is_empty(), "{name}: of {seeds} {failed:?}");
        }
    }

    /// Not only what a fuzzer chose.
    #[test]
    fn random_bytes_find_nothing() {
        let mut random = 1u64;
        for round in 0..200 {
            let bytes = std::array::from_fn::<u8, 400, _>(|_| {
                random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (random >> 56) as u8
            });
            for (_, target) in TARGETS {
                target(&bytes[..2 * round]);
            }
        }
    }

    #[test]
    fn a_target_that_fails_would_be_noticed() {
        let broken = |data: &[u8]| {
            super::batch(data);
            assert!(data.first().is_some_and(|b| b % 6 == 1), "not what must hold");
        };
        let (seeds, failed) = replay("batch", broken);
        assert!(!failed.is_empty() && failed.len() < seeds, "{} of {seeds}", failed.len());
    }
}
