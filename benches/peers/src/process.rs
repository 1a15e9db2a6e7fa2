//! What the operating system says of this process and its files (Linux).

use crate::Outcome;
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Nothing may have happened for so long before a database counts as settled.
const QUIET: Duration = Duration::from_millis(300);
/// Processor time that a thread that merely looks whether there is work may take of that.
const IDLE: Duration = Duration::from_millis(20);

/// The number behind `name` in a file of lines of name, number and whatever else.
fn number(file: &str, name: &str) -> Outcome<u64> {
    let text = fs::read_to_string(file)?;
    let line =
        text.lines().find_map(|line| line.strip_prefix(name)).ok_or(format!("{file} has no {name}"))?;
    let digits = line.split_whitespace().next().unwrap_or("");
    Ok(digits.parse()?)
}

/// Bytes of pages this process has made dirty: whole pages, each time one goes from clean to dirty,
/// whether by `write` or through a map. What is written through a map `wchar` does not know, and what
/// the file system adds for itself neither does.
pub fn written_bytes() -> Outcome<u64> {
    number("/proc/self/io", "write_bytes:")
}

/// Bytes all threads of this process have handed to the system by `write` and its like, whatever becomes
/// of them.
pub fn handed_bytes() -> Outcome<u64> {
    number("/proc/self/io", "wchar:")
}

/// Files below `dir` that are mapped so that a store into memory changes them: what is written that way,
/// [`handed_bytes`] does not know. Those of one page do not count: what is written there over and over reaches the
/// device once in a while.
pub fn written_by_map(dir: &Path) -> Outcome<usize> {
    let (maps, dir) = (fs::read_to_string("/proc/self/maps")?, fs::canonicalize(dir)?);
    let dir = dir.to_string_lossy();
    let shared = |line: &&str| {
        let mode = line.split_whitespace().nth(1).unwrap_or("");
        mode.get(1..2) == Some("w") && mode.ends_with('s') && line.contains(&*dir) && !is_one_page(line)
    };
    Ok(maps.lines().filter(shared).count())
}

fn is_one_page(line: &str) -> bool {
    let (start, end) =
        line.split_whitespace().next().and_then(|range| range.split_once('-')).unwrap_or_default();
    let at = |hex| u64::from_str_radix(hex, 16).unwrap_or_default();
    at(end).saturating_sub(at(start)) <= 4096
}

/// Processor time of all threads, the ended ones too, in user and kernel.
pub fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Every file below `dir`: path, length, bytes allocated.
fn files(dir: &Path) -> Outcome<Vec<(PathBuf, u64, u64)>> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        // A folder or a file that has just gone is no error.
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for entry in entries {
            let Ok(entry) = entry else { continue };
            let Ok(meta) = entry.metadata() else { continue };
            match meta.is_dir() {
                true => folders.push(entry.path()),
                false => found.push((entry.path(), meta.len(), meta.blocks() * 512)),
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Bytes that the files below `dir` take of the disk.
pub fn disk_bytes(dir: &Path) -> Outcome<u64> {
    Ok(files(dir)?.iter().map(|(_, _, allocated)| allocated).sum())
}

#[allow(clippy::disallowed_methods, reason = "nobody tells when a file has changed, or memory grown")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Waits until neither the files below `dir` change nor this process works; how long that took, without
/// the quiet time at the end that proved it.
pub fn settle(dir: &Path) -> Outcome<Duration> {
    let start = Instant::now();
    let mut quiet_since = start;
    let (mut before, mut worked) = (files(dir)?, cpu());
    loop {
        pause(Duration::from_millis(30));
        let now = files(dir)?;
        if now != before || cpu() > worked + IDLE {
            (before, worked, quiet_since) = (now, cpu(), Instant::now());
        }
        if quiet_since.elapsed() >= QUIET {
            return Ok(quiet_since - start);
        }
    }
}

/// Watches how much anonymous memory the process has (heap and stacks, no mapped files) and how much
/// disk its files take.
pub struct Watch {
    memory: Arc<AtomicU64>,
    disk: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Looks at memory between two looks at the disk, which cost more.
const LOOKS: u32 = 5;

impl Watch {
    pub fn start(dir: &Path) -> Watch {
        let (memory, disk, stop) = Default::default();
        let mut watch = Watch { memory, disk, stop, thread: None };
        let (memory, disk, stop) = (watch.memory.clone(), watch.disk.clone(), watch.stop.clone());
        let dir = dir.to_path_buf();
        watch.thread = Some(std::thread::spawn(move || {
            for look in 0u32.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                if let Ok(kib) = number("/proc/self/status", "RssAnon:") {
                    memory.fetch_max(kib << 10, Ordering::Relaxed);
                }
                if look % LOOKS == 0
                    && let Ok(bytes) = disk_bytes(&dir)
                {
                    disk.fetch_max(bytes, Ordering::Relaxed);
                }
                pause(Duration::from_millis(10));
            }
        }));
        watch
    }

    /// Bytes of memory and of disk at most.
    pub fn stop(mut self) -> (u64, u64) {
        self.end();
        (self.memory.load(Ordering::Relaxed), self.disk.load(Ordering::Relaxed))
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}
