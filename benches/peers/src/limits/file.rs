//! Files: appends, reads from the page cache, syncs.

use super::{Often, Told, undisturbed};
use crate::Outcome;
use crate::generate::Rng;
use memmap2::{Advice, Mmap, MmapMut};
use rustix::fs::{FallocateFlags, fallocate, fdatasync};
use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes of an append: a pair with what a journal adds.
const APPEND: u64 = 150;
const FILE: u64 = 32 << 20;
const APPENDS: Often = Often { batch: 1000, most: FILE / APPEND };
const PAGE: u64 = 4096;
/// Bytes of a write that is meant for the disk.
const PIECE: usize = 1 << 20;

/// Leaves nothing behind in `dir`.
pub fn measure(time: Duration, dir: &Path) -> Outcome<Vec<Told>> {
    let path = dir.join("bare");
    let mut told = Vec::new();
    let mut on = |how: fn(&File, Duration) -> Outcome<Vec<Told>>| -> Outcome {
        let file = OpenOptions::new().create_new(true).read(true).write(true).open(&path)?;
        let outcome = how(&file, time);
        std::fs::remove_file(&path)?;
        told.extend(outcome?);
        Ok(())
    };
    on(writes)?;
    on(map_writes)?;
    on(populated_map_writes)?;
    on(reads)?;
    on(growing_syncs)?;
    on(preallocated_syncs)?;
    on(disk)?;
    Ok(told)
}

fn preallocate(file: &File) -> Outcome {
    Ok(fallocate(file, FallocateFlags::empty(), 0, FILE)?)
}

/// Both kinds of `write`: the second goes over what the first has populated.
fn writes(file: &File, time: Duration) -> Outcome<Vec<Told>> {
    preallocate(file)?;
    let append = |n| Ok(file.write_all_at(&[b'.'; APPEND as usize], n * APPEND)?);
    let first = undisturbed(time, APPENDS, append)?;
    fill(file)?;
    let populated = undisturbed(time, APPENDS, append)?;
    Ok(vec![("write_ns", first), ("write_populated_ns", populated)])
}

/// Writes all of `file`.
fn fill(file: &File) -> Outcome {
    let piece = noise();
    (0..FILE / PIECE as u64).try_for_each(|n| Ok(file.write_all_at(&piece, n * PIECE as u64)?))
}

/// Nothing that anything below the file could make smaller.
fn noise() -> Vec<u8> {
    let mut rng = Rng::new(11);
    (0..PIECE / 8).flat_map(|_| rng.next().to_le_bytes()).collect()
}

/// SAFETY of both maps: the file was just made by this process under a name of its own, nobody else opens
/// it, and nobody shortens it while it is mapped.
fn map_mut(file: &File) -> Outcome<MmapMut> {
    // SAFETY: as above.
    Ok(unsafe { MmapMut::map_mut(file) }?)
}

fn map(file: &File) -> Outcome<Mmap> {
    // SAFETY: as above; nor is it written to while it is mapped.
    Ok(unsafe { Mmap::map(file) }?)
}

fn mapped_appends(map: &mut MmapMut, time: Duration) -> Outcome<f64> {
    undisturbed(time, APPENDS, |n| {
        let at = (n * APPEND) as usize;
        black_box(&mut map[at..at + APPEND as usize]).copy_from_slice(black_box(&[b'.'; APPEND as usize]));
        Ok(())
    })
}

fn map_writes(file: &File, time: Duration) -> Outcome<Vec<Told>> {
    preallocate(file)?;
    Ok(vec![("map_write_ns", mapped_appends(&mut map_mut(file)?, time)?)])
}

fn populated_map_writes(file: &File, time: Duration) -> Outcome<Vec<Told>> {
    preallocate(file)?;
    let mut map = map_mut(file)?;
    if map.advise(Advice::PopulateWrite).is_err() {
        // Before Linux 5.14.
        map.chunks_mut(PAGE as usize).for_each(|page| page[0] = 0);
    }
    Ok(vec![("map_write_populated_ns", mapped_appends(&mut map, time)?)])
}

fn reads(file: &File, time: Duration) -> Outcome<Vec<Told>> {
    fill(file)?;
    let (mut rng, mut page, pages) = (Rng::new(5), [0; PAGE as usize], FILE / PAGE);
    let pread = undisturbed(time, Often::batches(100), |_| {
        file.read_exact_at(&mut page, rng.below(pages) * PAGE)?;
        black_box(&mut page);
        Ok(())
    })?;
    let map = map(file)?;
    let touch = |page: u64| {
        black_box(map[(page * PAGE) as usize]);
        Ok(())
    };
    // In large batches: the system maps several pages at a time.
    let first = undisturbed(time, Often { batch: 1024, most: pages }, touch)?;
    (0..pages).try_for_each(touch)?;
    let later = undisturbed(time, Often::batches(1000), |_| touch(rng.below(pages)))?;
    Ok(vec![("pread_ns", pread), ("touch_first_ns", first), ("touch_ns", later)])
}

/// The mean of an append and its sync, from the file's beginning on: what now and then takes long is the
/// disk's way of working. They are slow, so they have more time than others.
fn syncs(file: &File, time: Duration) -> Outcome<f64> {
    let (start, mut done) = (Instant::now(), 0);
    while done == 0 || (start.elapsed() < 4 * time && (done + 1) * APPEND <= FILE) {
        file.write_all_at(&[b','; APPEND as usize], done * APPEND)?;
        fdatasync(file)?;
        done += 1;
    }
    Ok(start.elapsed().as_secs_f64() * 1e9 / done as f64)
}

fn growing_syncs(file: &File, time: Duration) -> Outcome<Vec<Told>> {
    file.sync_all()?;
    Ok(vec![("sync_growing_ns", syncs(file, time)?)])
}

fn preallocated_syncs(file: &File, time: Duration) -> Outcome<Vec<Told>> {
    preallocate(file)?;
    file.sync_all()?;
    let first = syncs(file, time)?;
    fill(file)?;
    file.sync_all()?;
    Ok(vec![("sync_preallocated_ns", first), ("sync_rewritten_ns", syncs(file, time)?)])
}

fn disk(file: &File, time: Duration) -> Outcome<Vec<Told>> {
    preallocate(file)?;
    file.sync_all()?;
    let (piece, start, mut written) = (noise(), Instant::now(), 0);
    while written == 0 || start.elapsed() < 4 * time {
        (0..FILE / PIECE as u64).try_for_each(|n| file.write_all_at(&piece, n * PIECE as u64))?;
        fdatasync(file)?;
        written += FILE;
    }
    Ok(vec![("disk_bytes_per_s", written as f64 / start.elapsed().as_secs_f64())])
}
