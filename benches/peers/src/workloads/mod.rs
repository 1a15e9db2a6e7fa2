//! What the engines are given to do, in jobs: each in a process of its own, for all engines in turn.

mod delete;
mod fill;
mod logs;
mod mixed;
mod open;
mod read;
mod sync;
mod values;
mod victim;

use crate::Outcome;
use crate::engines::{self, Engine, Kind, Setup};
use crate::generate::Pool;
use crate::limits::{self, LIMITS, MACHINE};
use crate::plan::{Plan, Task};
use crate::sample::Sample;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

/// What one process does with one engine.
pub struct Job {
    pub name: &'static str,
    /// What it tells of.
    pub workloads: &'static [&'static str],
    pub tables: &'static [&'static str],
    /// Works on the database that the job "fill" made.
    pub shared: bool,
    /// For engines that only read differently as well.
    pub reads: bool,
    run: fn(&Worker) -> Outcome,
}

const BOTH: &[&str] = &["lz4", "none"];
const OWN: Job = Job { name: "", workloads: &[], tables: BOTH, shared: false, reads: false, run: |_| Ok(()) };
/// Logs: see `logs`.
const LOG: Job = Job { tables: &[LOGS], run: logs::load, ..OWN };
const SHARED: Job = Job { shared: true, reads: true, ..OWN };

/// In the order in which they run.
pub const JOBS: &[Job] = &[
    Job { name: "fillseq", workloads: &["fillseq"], run: fill::in_order, ..OWN },
    Job { name: "fillbatch", workloads: &["fillbatch"], run: fill::batches, ..OWN },
    Job { name: "fillpair", workloads: &["fillrandom"], run: fill::by_two, ..OWN },
    Job { name: FILL, workloads: &["fillrandom", "overwrite"], run: fill::map, ..SHARED },
    Job { name: "reads", workloads: read::READS, run: read::reads, ..SHARED },
    Job { name: "memory", workloads: read::STILL, tables: &["allinmemory"], run: read::in_memory, ..SHARED },
    Job { name: "mixed", workloads: mixed::MIXED, run: mixed::mixed, reads: false, ..SHARED },
    Job { name: "compacted", workloads: read::COMPACTED, run: read::compacted, ..SHARED },
    Job { name: "delete", workloads: delete::DELETES, run: delete::deletes, reads: false, ..SHARED },
    Job { name: "values4k", workloads: &["fill4k", "read4k"], run: values::of_4k, ..OWN },
    Job { name: "values64k", workloads: &["fill64k", "read64k"], run: values::of_64k, ..OWN },
    Job { name: "open", workloads: &["openkilled", "openclosed"], run: open::opens, ..OWN },
    Job { name: "synced", workloads: &["synced"], tables: &["synced"], run: sync::synced, ..OWN },
    Job { name: "lograft256", workloads: &["lograft256"], ..LOG },
    Job { name: "lograft4k", workloads: &["lograft4k"], ..LOG },
    Job { name: "loggroups", workloads: &["loggroups"], ..LOG },
    Job { name: "loggroupslong", workloads: &["loggroupslong"], ..LOG },
    Job { name: "logcold", workloads: &["logcold"], ..LOG },
    Job { name: "logevents", workloads: &["logevents", logs::TAIL, logs::CATCH_UP], ..LOG },
    Job { name: "logthreads", workloads: &["logthreads"], run: logs::threads, ..LOG },
];

/// The job that makes the database the shared ones work on.
pub const FILL: &str = "fill";
/// The table of logs.
pub const LOGS: &str = "logs";
/// What a process is told that only writes, to be killed; with a load of logs behind it, that.
const VICTIM: &str = "victim";
/// A bare file, for comparison with synced commits.
pub const DISK: &str = "disk";

pub fn names() -> Vec<&'static str> {
    let mut names: Vec<&str> = Vec::new();
    for name in JOBS.iter().flat_map(|job| job.workloads) {
        if !names.contains(name) {
            names.push(name);
        }
    }
    names.push(LIMITS);
    names
}

/// Bytes of a value, unless a workload says otherwise.
pub const VALUE: usize = 100;
/// Bytes of a key and its value.
const PAIR: u64 = 116;
/// Small, so that a few million keys make several levels.
const MEMTABLE: usize = 16 << 20;
const BATCH: usize = 1000;
/// Beyond any workload that is to be whole.
const FOREVER: Duration = Duration::from_secs(100_000);

/// A process that does a job.
pub struct Worker<'a> {
    plan: &'a Plan,
    task: &'a Task,
    kind: Kind,
    /// Made when values are needed: it would count as the engine's memory.
    pool: LazyLock<Pool>,
}

/// Does the task of this process and prints a line for each measurement.
pub fn work(plan: &Plan, task: &Task) -> Outcome {
    match task.engine.as_str() {
        DISK => return sync::bare(plan, task),
        MACHINE => return limits::run(plan, task),
        _ => {}
    }
    let worker = Worker { plan, task, kind: engines::kind(&task.engine)?, pool: LazyLock::new(Pool::new) };
    if task.job == VICTIM {
        return open::victim(&worker);
    }
    if let Some(load) = task.job.strip_prefix(VICTIM) {
        return logs::victim(&worker, load);
    }
    let job = JOBS.iter().find(|job| job.name == task.job).ok_or("no such job")?;
    (job.run)(&worker)
}

/// What a measurement is of.
#[derive(Clone, Copy)]
struct Of {
    workload: &'static str,
    phase: &'static str,
    threads: u32,
    /// Commits are part of it.
    writes: bool,
}

impl Of {
    const fn reads(workload: &'static str, phase: &'static str, threads: u32) -> Of {
        Of { workload, phase, threads, writes: false }
    }

    const fn writes(workload: &'static str, threads: u32) -> Of {
        Of { workload, phase: "", threads, writes: true }
    }

    const fn phase(self, phase: &'static str) -> Of {
        Of { phase, ..self }
    }
}

impl Worker<'_> {
    fn wants(&self, workload: &str) -> bool {
        self.plan.wants(workload)
    }

    /// Half of what a workload may take: one for each way of measuring.
    fn half(&self) -> Duration {
        self.plan.time / 2
    }

    fn setup(&self, name: &str) -> Setup {
        Setup {
            dir: self.dir(name),
            cache: self.plan.cache,
            memtable: MEMTABLE,
            lz4: self.task.table == "lz4",
            synced: self.task.table == "synced",
            room: (self.plan.keys * PAIR * 8).next_multiple_of(1 << 30) as usize + (4 << 30),
        }
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.task.dir.join(name)
    }

    fn open(&self, setup: &Setup) -> Outcome<Box<dyn Engine>> {
        engines::open(self.kind.name, setup)
    }

    /// The database that the jobs share, as it is now.
    fn map(&self) -> Outcome<(Setup, Box<dyn Engine>)> {
        let setup = self.setup("map");
        let db = self.open(&setup)?;
        Ok((setup, db))
    }

    fn tell(&self, of: Of, metrics: &[(&str, f64)]) {
        if self.kind.reads_only && of.writes {
            return;
        }
        let less = of.writes && self.kind.volatile && self.task.table != "synced";
        let table = if less { "volatile" } else { &self.task.table };
        tell(table, self.task, of, metrics);
    }
}

fn tell(table: &str, task: &Task, of: Of, metrics: &[(&str, f64)]) {
    for (metric, value) in metrics {
        let sample = Sample {
            table: table.to_string(),
            workload: of.workload.to_string(),
            phase: of.phase.to_string(),
            threads: of.threads,
            engine: task.engine.clone(),
            round: task.round,
            metric: metric.to_string(),
            value: *value,
        };
        println!("{}", sample.line());
    }
}
