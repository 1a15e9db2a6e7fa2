//! Runs operations and takes their time: as cheaply as possible, the same way for every engine.

use crate::Outcome;
use crate::engines::Engine;
use crate::histogram::Histogram;
use crate::process::{self, Watch};
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// One thread's operations.
pub trait Client {
    /// Makes ready some operations, untimed; how many, and none at the end.
    fn prepare(&mut self) -> usize;
    /// Does the `n`th of those.
    fn step(&mut self, n: usize) -> Outcome;
}

/// What some threads did.
#[derive(Clone)]
pub struct Pass {
    pub ops: u64,
    /// Operations per second, over all threads.
    pub rate: f64,
    pub times: Histogram,
}

impl Pass {
    fn new() -> Pass {
        Pass { ops: 0, rate: 0.0, times: Histogram::new() }
    }

    /// Its latencies, as metrics.
    pub fn latencies(&self) -> Vec<(&'static str, f64)> {
        let micros = |took: Duration| took.as_secs_f64() * 1e6;
        let parts = [("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999)];
        let mut all: Vec<_> = parts.map(|(name, part)| (name, micros(self.times.percentile(part)))).into();
        all.push(("max_us", micros(self.times.max())));
        all
    }
}

/// How the time of operations is taken.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Clock {
    /// Once around all that were prepared together: nothing but the operations, and no latencies.
    Around,
    /// Once after each.
    Each,
    /// Once after each, and what prepares them belongs to the work, as all of it happens meanwhile.
    Whole,
    /// So many are due each second, whether those before are through or not (an open loop): each counts
    /// from when it was due.
    Paced(f64),
}

/// Runs `client` until `time` is over or it has no more.
pub fn run(client: &mut impl Client, clock: Clock, time: Duration) -> Outcome<Pass> {
    let mut pass = Pass::new();
    let start = Instant::now();
    let mut busy = Duration::ZERO;
    while start.elapsed() < time {
        let many = client.prepare();
        if many == 0 {
            break;
        }
        let from = Instant::now();
        match clock {
            Clock::Around => (0..many).try_for_each(|n| client.step(n))?,
            Clock::Each | Clock::Whole => {
                let mut last = from;
                for n in 0..many {
                    client.step(n)?;
                    let now = Instant::now();
                    pass.times.add(now - last);
                    last = now;
                }
            }
            Clock::Paced(rate) => {
                for n in 0..many {
                    let due = start + Duration::from_secs_f64((pass.ops + n as u64) as f64 / rate);
                    wait_for(due);
                    client.step(n)?;
                    pass.times.add(due.elapsed());
                }
            }
        }
        busy += from.elapsed();
        pass.ops += many as u64;
    }
    let took = if matches!(clock, Clock::Around | Clock::Each) { busy } else { start.elapsed() };
    pass.rate = pass.ops as f64 / took.as_secs_f64();
    Ok(pass)
}

/// Sleeps like a client that has nothing to do, so that the engine's own threads get the processor; what
/// the sleep is too long counts, for every engine alike.
fn wait_for(due: Instant) {
    let early = due.saturating_duration_since(Instant::now());
    if !early.is_zero() {
        process::pause(early);
    }
}

/// Runs a client per thread, each made where it works.
pub fn run_all<C: Client>(
    threads: u32,
    clock: Clock,
    time: Duration,
    make: impl Fn(u32) -> Outcome<C> + Sync,
) -> Outcome<Pass> {
    if threads == 1 {
        return run(&mut make(0)?, clock, time);
    }
    let ready = Barrier::new(threads as usize);
    let one = |thread| {
        let made = make(thread);
        ready.wait();
        run(&mut made?, clock, time)
    };
    let passes = std::thread::scope(|scope| {
        let spawn =
            |thread| scope.spawn(move || -> Result<Pass, String> { one(thread).map_err(|e| e.to_string()) });
        let running: Vec<_> = (0..threads).map(spawn).collect();
        let joined = running.into_iter().map(|t| t.join().map_err(|_| "a client panicked".to_string())?);
        joined.collect::<Result<Vec<Pass>, String>>()
    })?;
    let mut all = Pass::new();
    for pass in passes {
        all.ops += pass.ops;
        all.rate += pass.rate;
        all.times.merge(&pass.times);
    }
    Ok(all)
}

/// Bytes from which on an engine's own count of what it wrote is precise: RocksDB's has steps of 5 MiB.
const COUNTED: u64 = 16 << 20;

/// What the process uses up meanwhile.
pub struct Usage {
    cpu: Duration,
    written: u64,
    watch: Watch,
}

impl Usage {
    pub fn start(dir: &Path) -> Outcome<Usage> {
        Ok(Usage { cpu: process::cpu(), written: process::written_bytes()?, watch: Watch::start(dir) })
    }

    /// As metrics; `bytes` of keys and values were written.
    pub fn end(self, ops: u64, bytes: u64) -> Outcome<Vec<(&'static str, f64)>> {
        let cpu = process::cpu() - self.cpu;
        let (memory, disk) = self.watch.stop();
        let mut all =
            vec![("cpu_us_per_op", cpu.as_secs_f64() * 1e6 / ops as f64), ("anon_peak_bytes", memory as f64)];
        if bytes > 0 {
            let written = (process::written_bytes()? - self.written) as f64;
            all.push(("device_bytes_per_op", written / ops as f64));
            all.push(("write_amp", written / bytes as f64));
            all.push(("disk_peak_bytes", disk as f64));
        }
        Ok(all)
    }
}

/// The same, and what the engine says it wrote.
pub struct Span {
    usage: Usage,
    own: Option<u64>,
}

impl Span {
    pub fn start(db: &dyn Engine, dir: &Path) -> Outcome<Span> {
        Ok(Span { own: db.written_bytes(), usage: Usage::start(dir)? })
    }

    /// As metrics; `bytes` of keys and values were written.
    pub fn end(self, db: &dyn Engine, ops: u64, bytes: u64) -> Outcome<Vec<(&'static str, f64)>> {
        let mut all = self.usage.end(ops, bytes)?;
        if bytes >= COUNTED
            && let Some((after, before)) = db.written_bytes().zip(self.own)
        {
            all.push(("write_amp_own", (after - before) as f64 / bytes as f64));
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts its operations; one of them takes long.
    struct Counting {
        left: usize,
        done: u64,
        long: Option<(u64, Duration)>,
    }

    impl Client for Counting {
        fn prepare(&mut self) -> usize {
            let many = self.left.min(10);
            self.left -= many;
            many
        }

        fn step(&mut self, _: usize) -> Outcome {
            if let Some((_, time)) = self.long.filter(|(n, _)| *n == self.done) {
                process::pause(time);
            }
            self.done += 1;
            Ok(())
        }
    }

    #[test]
    fn a_client_runs_until_it_has_no_more() {
        for clock in [Clock::Around, Clock::Each, Clock::Whole, Clock::Paced(1e6)] {
            let make = |_| Ok(Counting { left: 105, done: 0, long: None });
            let pass = run_all(3, clock, Duration::from_secs(60), make).unwrap();
            assert_eq!(pass.ops, 315, "{clock:?}");
            let timed = pass.times.max() > Duration::ZERO;
            assert_eq!(timed, clock != Clock::Around, "{clock:?}");
        }
    }

    #[test]
    fn who_is_due_behind_a_slow_one_has_waited_too() {
        // One operation of 100 takes 100 ms: at 1000 a second, all behind it are late as well.
        let long = Some((10, Duration::from_millis(100)));
        let mut client = Counting { left: 100, done: 0, long };
        let paced = run(&mut client, Clock::Paced(1000.0), Duration::from_secs(60)).unwrap();
        assert!(
            paced.times.percentile(0.5) >= Duration::from_millis(20),
            "{:?}",
            paced.times.percentile(0.5)
        );
        let mut client = Counting { left: 100, done: 0, long };
        let closed = run(&mut client, Clock::Each, Duration::from_secs(60)).unwrap();
        assert!(closed.times.max() >= Duration::from_millis(100));
        assert!(closed.times.percentile(0.5) < paced.times.percentile(0.5));
    }
}
