//! What the operating system says of this process and its files (Linux), and a histogram.

use crate::Outcome;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Nothing may have happened for so long before a database counts as settled.
const QUIET: Duration = Duration::from_millis(500);
/// Processor time that a thread that merely looks whether there is work may take of that.
const IDLE: Duration = Duration::from_millis(30);

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

/// Processor time of all threads, the ended ones too, in user and kernel.
pub fn cpu() -> Outcome<Duration> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let field =
        |n: usize| fields.get(n).and_then(|f| f.parse::<u64>().ok()).ok_or("a strange /proc/self/stat");
    // In hundredths of seconds wherever Linux runs today.
    Ok(Duration::from_millis(10 * (field(11)? + field(12)?)))
}

/// Every file below `dir`: path, length, bytes allocated.
fn files(dir: &Path) -> Outcome<Vec<(PathBuf, u64, u64)>> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            // A file that has just gone is no error.
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

/// Bytes that the files below `dir` take of the disk, of those that `counts` counts.
pub fn disk_bytes(dir: &Path, counts: impl Fn(&Path) -> bool) -> Outcome<u64> {
    Ok(files(dir)?.iter().filter(|(path, ..)| counts(path)).map(|(_, _, allocated)| allocated).sum())
}

#[allow(clippy::disallowed_methods, reason = "nobody tells when a file has changed, or memory grown")]
fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

/// Waits until neither the files below `dir` change nor this process works; how long that took, without
/// the quiet time at the end that proved it.
pub fn settle(dir: &Path) -> Outcome<Duration> {
    let start = Instant::now();
    let mut quiet_since = start;
    let (mut before, mut worked) = (files(dir)?, cpu()?);
    loop {
        pause(50);
        let now = files(dir)?;
        if now != before || cpu()? > worked + IDLE {
            (before, worked, quiet_since) = (now, cpu()?, Instant::now());
        }
        if quiet_since.elapsed() >= QUIET {
            return Ok(quiet_since - start);
        }
    }
}

/// Watches how much anonymous memory the process has: heap and stacks, no mapped files.
pub struct MemoryWatch {
    peak: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl MemoryWatch {
    pub fn start() -> MemoryWatch {
        let (peak, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, stopped) = (peak.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Ok(kib) = number("/proc/self/status", "RssAnon:") {
                    seen.fetch_max(kib << 10, Ordering::Relaxed);
                }
                pause(10);
            }
        });
        MemoryWatch { peak, stop, thread: Some(thread) }
    }

    /// Bytes, so far.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// Counts of durations in steps of a sixteenth: a percentile is known to 6 %.
pub struct Histogram {
    counts: Vec<u64>,
    max: u64,
}

const STEPS: u32 = 16;

impl Histogram {
    pub fn new() -> Histogram {
        Histogram { counts: vec![0; (64 * STEPS) as usize], max: 0 }
    }

    pub fn add(&mut self, took: Duration) {
        let nanos = (took.as_nanos() as u64).max(u64::from(STEPS));
        let power = nanos.ilog2();
        let step = (nanos >> (power - STEPS.ilog2())) as u32 - STEPS;
        self.counts[(power * STEPS + step) as usize] += 1;
        self.max = self.max.max(nanos);
    }

    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// The least duration that `part` of all stayed below.
    pub fn percentile(&self, part: f64) -> Duration {
        let mut left = (self.counts.iter().sum::<u64>() as f64 * part).ceil() as u64;
        for (at, &count) in self.counts.iter().enumerate() {
            left = left.saturating_sub(count);
            if left == 0 {
                let (power, step) = (at as u32 / STEPS, at as u32 % STEPS);
                return Duration::from_nanos((u64::from(STEPS + step) + 1) << (power.saturating_sub(4)));
            }
        }
        self.max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_within_a_sixteenth() {
        let mut all = Histogram::new();
        (1..=10_000).for_each(|n| all.add(Duration::from_micros(n)));
        for part in [0.5, 0.99, 0.999] {
            let exact = part * 10_000.0;
            let micros = all.percentile(part).as_secs_f64() * 1e6;
            assert!((exact..exact * 1.07).contains(&micros), "{part}: {micros}");
        }
        assert_eq!(all.max(), Duration::from_millis(10));
    }
}
