//! Processor and memory.

use super::{Often, Told, undisturbed};
use crate::Outcome;
use crate::generate::{Pool, key};
use std::hint::black_box;
use std::time::{Duration, Instant};

pub fn measure(time: Duration) -> Outcome<Vec<Told>> {
    let mut told = vec![("memcpy_bytes_per_s", copied(time)?)];
    told.push(("syscall_ns", each(time, rustix::process::getppid)?));
    told.push(("clock_ns", each(time, Instant::now)?));
    let block = block();
    told.extend(hashes(time, ["crc32_16_ns", "crc32_116_ns", "crc32_4096_ns"], &block, crc32fast::hash)?);
    let names = ["xxh3_16_ns", "xxh3_116_ns", "xxh3_4096_ns"];
    told.extend(hashes(time, names, &block, xxhash_rust::xxh3::xxh3_64)?);
    told.extend(lz4(time, &block)?);
    told.extend(loads(time, ["load_256k_ns", "independent_256k_ns"], 256 << 10)?);
    told.extend(loads(time, ["load_4m_ns", "independent_4m_ns"], 4 << 20)?);
    told.extend(loads(time, ["load_64m_ns", "independent_64m_ns"], 64 << 20)?);
    told.extend(loads(time, ["load_1g_ns", "independent_1g_ns"], 1 << 30)?);
    Ok(told)
}

fn each<T>(time: Duration, work: impl Fn() -> T) -> Outcome<f64> {
    undisturbed(time, Often::batches(1000), |_| {
        black_box(work());
        Ok(())
    })
}

fn hashes<T>(
    time: Duration,
    names: [&'static str; 3],
    block: &[u8],
    hash: impl Fn(&[u8]) -> T,
) -> Outcome<[Told; 3]> {
    let [short, pair, whole] = [16, 116, 4096].map(|len| each(time, || hash(black_box(&block[..len]))));
    Ok([(names[0], short?), (names[1], pair?), (names[2], whole?)])
}

/// 4 KiB of pairs.
fn block() -> Vec<u8> {
    let (pool, mut block) = (Pool::new(), Vec::new());
    let mut values = pool.values(crate::workloads::VALUE, 1);
    for n in 0.. {
        block.extend_from_slice(&key(n));
        block.extend_from_slice(values.next());
        if block.len() >= 4096 {
            break;
        }
    }
    block.truncate(4096);
    block
}

/// More than any cache, so that it is memory that is measured.
const COPIED: usize = 64 << 20;

fn copied(time: Duration) -> Outcome<f64> {
    let (from, mut to) = (vec![1u8; COPIED], vec![2u8; COPIED]);
    let took = undisturbed(time, Often::batches(1), |_| {
        to.copy_from_slice(black_box(&from));
        black_box(&mut to);
        Ok(())
    })?;
    Ok(COPIED as f64 / took * 1e9)
}

fn lz4(time: Duration, block: &[u8]) -> Outcome<[Told; 3]> {
    use lz4_flex::block::{
        CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size,
    };
    let mut table = CompressTable::default();
    let mut packed = vec![0; get_maximum_output_size(block.len())];
    let mut len = 0;
    let compress = undisturbed(time, Often::batches(20), |_| {
        len = compress_into_with_table(black_box(block), &mut packed, &mut table)?;
        Ok(())
    })?;
    let mut out = vec![0; block.len()];
    let decompress = undisturbed(time, Often::batches(50), |_| {
        decompress_into(black_box(&packed[..len]), &mut out)?;
        black_box(&mut out);
        Ok(())
    })?;
    let part = len as f64 / block.len() as f64;
    Ok([("lz4_compress_ns", compress), ("lz4_decompress_ns", decompress), ("lz4_part", part)])
}

/// A line of the cache, and which one comes after it.
#[repr(align(64))]
#[derive(Clone)]
struct Line(u64);

/// Where one goes from `at`, below a power of two: comes by every place once (Hull and Dobell), and looks
/// random to whatever guesses what is read next.
fn next(at: u64, places: u64) -> u64 {
    at.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f) & (places - 1)
}

fn loads(time: Duration, names: [&'static str; 2], bytes: usize) -> Outcome<[Told; 2]> {
    let places = (bytes / size_of::<Line>()) as u64;
    let lines: Vec<Line> = (0..places).map(|at| Line(next(at, places))).collect();
    let mut at = 0;
    let dependent = undisturbed(time, Often::batches(1000), |_| {
        at = lines[at as usize].0;
        Ok(())
    })?;
    // From elsewhere: what was just read is in some cache.
    let mut at = places / 2 + at / 2;
    let mut sum = 0u64;
    let independent = undisturbed(time, Often::batches(1000), |_| {
        at = next(at, places);
        sum = sum.wrapping_add(lines[at as usize].0);
        Ok(())
    })?;
    black_box((at, sum));
    Ok([(names[0], dependent), (names[1], independent)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_comes_by_every_place_once() {
        let places = 1 << 12;
        let (mut at, mut seen) = (0, vec![false; places as usize]);
        for _ in 0..places {
            assert!(!std::mem::replace(&mut seen[at as usize], true));
            at = next(at, places);
        }
        assert_eq!(at, 0);
    }

    #[test]
    fn a_block_is_half_compressible() {
        let [.., (name, part)] = lz4(Duration::ZERO, &block()).unwrap();
        assert!(name == "lz4_part" && (0.4..0.7).contains(&part), "{part}");
    }
}
