//! What the machine can do: its primitives, measured in the same run as the engines, and a model of what
//! the workloads could be at most if nothing but those had to be done.

mod cpu;
mod file;
pub mod model;
mod primitives;

pub use primitives::Primitives;

use crate::Outcome;
use crate::plan::{Plan, Task};
use crate::sample::Sample;
use std::time::{Duration, Instant};

/// The table, the workload in it and the job.
pub const LIMITS: &str = "limits";
/// Who is measured.
pub const MACHINE: &str = "machine";

/// Measures all primitives and prints a line for each.
pub fn run(plan: &Plan, task: &Task) -> Outcome {
    let time = plan.time / 16;
    let cores = std::thread::available_parallelism()?.get();
    let of_run = [
        ("cores", cores as f64),
        ("data_bytes", plan.keys as f64 * model::PAIR),
        ("cache_bytes", plan.cache as f64),
    ];
    let tell = |(metric, value): (&str, f64)| {
        let sample = Sample {
            table: LIMITS.into(),
            workload: LIMITS.into(),
            phase: String::new(),
            threads: 1,
            engine: MACHINE.into(),
            round: task.round,
            metric: metric.into(),
            value,
        };
        println!("{}", sample.line());
    };
    of_run.into_iter().for_each(tell);
    cpu::measure(time)?.into_iter().for_each(tell);
    file::measure(time, &task.dir)?.into_iter().for_each(tell);
    Ok(())
}

/// A primitive's name and its value.
type Told = (&'static str, f64);

/// How often something is done.
#[derive(Clone, Copy)]
struct Often {
    /// Between two looks at the clock.
    batch: u64,
    /// In all, if it does not take too long.
    most: u64,
}

impl Often {
    const fn batches(batch: u64) -> Often {
        Often { batch, most: u64::MAX }
    }
}

/// What one `work(n)`, for n = 0, 1, 2 ..., takes when nobody disturbs: in nanoseconds, the mean within a
/// batch, of which the fastest tenth counts. At least one batch is done.
fn undisturbed(time: Duration, often: Often, mut work: impl FnMut(u64) -> Outcome) -> Outcome<f64> {
    let (start, mut taken, mut done) = (Instant::now(), Vec::new(), 0);
    while taken.is_empty() || (start.elapsed() < time && done + often.batch <= often.most) {
        let from = Instant::now();
        (done..done + often.batch).try_for_each(&mut work)?;
        taken.push(from.elapsed().as_secs_f64() * 1e9 / often.batch as f64);
        done += often.batch;
    }
    taken.sort_by(f64::total_cmp);
    Ok(taken[taken.len() / 10])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_primitive_is_measured_once() {
        let dir = std::env::temp_dir().join(format!("peers-limits-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut told = file::measure(Duration::from_millis(1), &dir).unwrap();
        std::fs::remove_dir(&dir).expect("its files are gone");
        told.extend(cpu::measure(Duration::from_millis(1)).unwrap());
        assert!(told.iter().all(|(_, value)| *value > 0.0 && value.is_finite()), "{told:?}");
        let names: BTreeSet<&str> = told.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), told.len());
        let of_run = ["cores", "data_bytes", "cache_bytes"];
        let known = Primitives::NAMES.iter().copied().filter(|name| !of_run.contains(name));
        assert_eq!(names, known.collect());
    }

    #[test]
    fn work_is_done_in_whole_batches_and_no_more_than_there_is() {
        let mut done = Vec::new();
        let often = Often { batch: 4, most: 10 };
        let push = |n| {
            done.push(n);
            Ok(())
        };
        undisturbed(Duration::from_secs(60), often, push).unwrap();
        assert_eq!(done, (0..8).collect::<Vec<_>>());
        assert!(undisturbed(Duration::ZERO, often, |_| Err("no".into())).is_err());
    }
}
