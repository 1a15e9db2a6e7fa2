//! Runs the jobs, each in a process of its own, for all engines in turn, and gathers what they tell.

use crate::Outcome;
use crate::about;
use crate::engines::{self, Kind};
use crate::limits::{LIMITS, MACHINE};
use crate::plan::{Plan, Task};
use crate::progress::Progress;
use crate::report;
use crate::sample::{Csv, Sample};
use crate::workloads::{DISK, FILL, JOBS, Job, LOGS};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// What a paced writer is offered if RocksDB has not said.
const RATE: f64 = 100_000.0;

/// What is filled once, and the tables that come of it.
const PASSES: &[(&str, &[&str])] =
    &[("lz4", &["lz4"]), ("none", &["none", "allinmemory"]), ("synced", &["synced"]), (LOGS, &[LOGS])];

struct Run<'a> {
    plan: &'a Plan,
    args: &'a [String],
    csv: Csv,
    samples: Vec<Sample>,
    /// What RocksDB made of overwrite last, and in which table.
    rate: Option<(String, f64)>,
    /// Where engines failed: they are asked for nothing more there.
    failed: Vec<String>,
    progress: Progress,
}

/// Runs everything that is asked for and writes the report.
pub fn run(plan: &Plan, args: &[String]) -> Outcome {
    let out = plan.out.clone().unwrap_or("peers-out".into());
    std::fs::create_dir_all(&out)?;
    let file = out.join("samples.csv");
    let base = plan.dir.join(format!("peers-{}", std::process::id()));
    std::fs::create_dir_all(&base)?;
    let about = about::about(plan, args, &base);
    about.save(&file)?;
    let tasks: Vec<Task> = (1..=plan.rounds).flat_map(|round| tasks(plan, round, &base)).collect();
    let csv = Csv::create(&file)?;
    let progress = Progress::new(tasks.len());
    let mut run = Run { plan, args, csv, samples: Vec::new(), rate: None, failed: Vec::new(), progress };
    let result = run.all(&tasks);
    let _ = std::fs::remove_dir_all(&base);
    run.progress.finish();
    result?;
    report::write(&run.samples, &about, &out)?;
    match run.failed.is_empty() {
        true => Ok(()),
        false => Err(format!("some of it failed: {:?}", run.failed).into()),
    }
}

fn wanted(plan: &Plan, job: &Job, table: &str) -> bool {
    plan.tables.iter().any(|t| t == table) && plan.wants_any(job.workloads)
}

/// Whether `job` makes what others need that are wanted.
fn needed(plan: &Plan, job: &Job, tables: &[&str]) -> bool {
    let of = |other: &Job| {
        other.shared && tables.iter().any(|t| other.tables.contains(t) && wanted(plan, other, t))
    };
    job.name == FILL && JOBS.iter().any(of)
}

/// The tasks of one round, in order. Whoever goes first does so in turn, too.
fn tasks(plan: &Plan, round: u32, base: &Path) -> Vec<Task> {
    let kinds: Vec<Kind> = plan.engines.iter().filter_map(|name| engines::kind(name).ok()).collect();
    let mut all = Vec::new();
    if plan.wants(LIMITS) {
        let [job, table] = [LIMITS; 2].map(String::from);
        all.push(Task { job, engine: MACHINE.into(), table, round, rate: 0.0, dir: base.join(LIMITS) });
    }
    for (pass, tables) in PASSES {
        for job in JOBS {
            let Some(table) = tables.iter().find(|table| job.tables.contains(table)) else { continue };
            if !wanted(plan, job, table) && !needed(plan, job, tables) {
                continue;
            }
            let task = |engine: &str| Task {
                job: job.name.to_string(),
                engine: engine.to_string(),
                table: table.to_string(),
                round,
                rate: plan.rate.unwrap_or(RATE),
                dir: base.join(format!("{pass}-{engine}-{}", if job.shared { "shared" } else { job.name })),
            };
            let turns = (0..kinds.len()).map(|turn| kinds[(turn + round as usize - 1) % kinds.len()]);
            let able = |kind: &Kind| match *pass {
                LOGS => kind.logs,
                pass => kind.maps && (job.reads || !kind.reads_only) && !(kind.tree && pass == "lz4"),
            };
            all.extend(turns.filter(able).map(|kind| task(kind.name)));
            if job.tables == ["synced"] {
                all.push(task(DISK));
            }
        }
    }
    all
}

impl Run<'_> {
    fn all(&mut self, tasks: &[Task]) -> Outcome {
        for (n, task) in tasks.iter().enumerate() {
            self.progress.at(n, task, self.plan.rounds);
            let place = format!("{} with {}", task.engine, task.table);
            if self.failed.contains(&place) {
                continue;
            }
            if let Err(e) = self.one(task) {
                self.progress.say(&format!("{}: {}: {e}", place, task.job));
                self.failed.push(place);
            }
            let last = !tasks[n + 1..].iter().any(|later| later.dir == task.dir && later.round == task.round);
            if last {
                let _ = std::fs::remove_dir_all(&task.dir);
            }
            // What one has written and the system not yet must not be the next one's burden.
            rustix::fs::sync();
        }
        Ok(())
    }

    /// Runs a process for `task` and takes what it tells.
    fn one(&mut self, task: &Task) -> Outcome {
        let mut task = task.clone();
        if let (None, Some((table, rate))) = (self.plan.rate, &self.rate)
            && *table == task.table
        {
            task.rate = rate.round();
        }
        std::fs::create_dir_all(&task.dir)?;
        let mut child = Command::new(std::env::current_exe()?);
        child.args(self.args).args(["--task", &task.text()]).stdout(Stdio::piped());
        let mut child = child.spawn()?;
        let out = child.stdout.take().ok_or("no output to read")?;
        let told = BufReader::new(out).lines().try_for_each(|line| self.take(&task, &line?));
        let status = child.wait()?;
        told?;
        if status.success() { Ok(()) } else { Err(format!("the process ended with {status}").into()) }
    }

    fn take(&mut self, task: &Task, line: &str) -> Outcome {
        let sample = Sample::parse(line)?;
        self.progress.tell(&sample);
        let whole = (sample.workload.as_str(), sample.threads, sample.metric.as_str());
        if sample.engine == "rocksdb" && whole == ("overwrite", 1, "ops_per_s") {
            self.rate = Some((task.table.clone(), sample.value));
        }
        // The machine's belong to all tables.
        let table = task.engine == MACHINE || self.plan.tables.contains(&task.table);
        if table && self.plan.wants(&sample.workload) {
            self.csv.append(std::slice::from_ref(&sample))?;
            self.samples.push(sample);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Vec<String> {
        let args: Vec<String> = line.split_whitespace().map(String::from).collect();
        let tasks = tasks(&Plan::parse(&args).unwrap(), 1, Path::new("/base"));
        tasks.iter().map(|t| format!("{} {} {}", t.table, t.job, t.engine)).collect()
    }

    #[test]
    fn only_what_is_wanted_or_needed_runs() {
        assert_eq!(of("--engines esker --only fillseq --tables lz4"), ["lz4 fillseq esker"]);
        assert_eq!(of("--engines esker --only synced"), ["synced synced esker", "synced synced disk"]);
        let reads = ["none fill esker", "allinmemory memory esker"];
        assert_eq!(of("--engines esker --only readhot --tables allinmemory"), reads);
        assert_eq!(of("--engines esker --only limits --tables none"), ["limits limits machine"]);
        let deletes = ["lz4 fill esker", "lz4 delete esker", "none fill esker", "none delete esker"];
        assert_eq!(of("--engines esker --only deleterandom"), deletes);
        assert_eq!(of("--engines esker --only logcold,logtail").len(), 2);
    }
}
