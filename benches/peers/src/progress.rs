//! Says how far it is: a bar on a terminal, a line for each task elsewhere.

use crate::plan::Task;
use crate::sample::Sample;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;

pub struct Progress {
    bar: Option<ProgressBar>,
    tasks: usize,
}

impl Progress {
    pub fn new(tasks: usize) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(tasks as u64);
            if let Ok(style) = ProgressStyle::with_template("{elapsed} {wide_bar} {pos}/{len} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_secs(1));
            bar
        });
        Progress { bar, tasks }
    }

    /// Task `n` begins.
    pub fn at(&self, n: usize, task: &Task, rounds: u32) {
        let Task { job, engine, table, round, .. } = task;
        match &self.bar {
            Some(bar) => {
                bar.set_position(n as u64);
                bar.set_message(format!("round {round}/{rounds}: {table} {job} {engine}"));
            }
            None => {
                eprintln!("{}/{}: round {round}/{rounds}: {table} {job} {engine}", n + 1, self.tasks);
            }
        }
    }

    pub fn tell(&self, sample: &Sample) {
        if let (Some(bar), "ops_per_s") = (&self.bar, sample.metric.as_str()) {
            let Sample { table, workload, engine, value, .. } = sample;
            bar.set_message(format!("{table} {engine} {workload}: {value:.0}/s"));
        }
    }

    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
