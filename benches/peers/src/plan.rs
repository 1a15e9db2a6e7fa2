//! What is asked for on the command line.

use crate::Outcome;
use crate::engines;
use crate::sample::TABLES;
use crate::workloads;
use std::path::PathBuf;
use std::time::Duration;

pub const HELP: &str = "\
peers [--quick] [--only A,B] [--tables A,B] [--engines A,B] [--keys N] [--rounds N] [--seconds S]
      [--cache MIB] [--rate N] [--dir DIR] [--out DIR] | --report FILE.csv [--out DIR] | --list

    --quick            200 thousand keys, 1 round, 0.2 seconds; instead of 1 million, 3 and 1.5
    --only A,B         these workloads, and what they need; --list tells their names
    --tables A,B       of lz4, none, allinmemory, synced, logs (default: all)
    --engines A,B      of those that were built in (default: all)
    --seconds S        what a workload may take that need not be whole: reads, mixed ones, synced commits
    --cache MIB        what each engine may cache of blocks (default: 64)
    --rate N           puts a second that the paced overwrite is offered (default: what RocksDB made of
                       overwrite before in the same round; 100000 without it)
    --dir DIR          where to put the databases (default: the system's temporary folder);
                       what it lies on decides what synced commits cost
    --out DIR          for samples.csv, written as it goes, and the report (default: peers-out)
    --report FILE.csv  runs nothing: makes the report from samples that are there";

pub struct Plan {
    pub keys: u64,
    pub rounds: u32,
    pub time: Duration,
    pub cache: usize,
    pub rate: Option<f64>,
    pub only: Vec<String>,
    pub tables: Vec<String>,
    pub engines: Vec<String>,
    pub dir: PathBuf,
    pub out: Option<PathBuf>,
    pub report: Option<PathBuf>,
    /// In the processes that do the work: what of it.
    pub task: Option<Task>,
}

/// What one process does.
#[derive(Clone, PartialEq, Debug)]
pub struct Task {
    pub job: String,
    pub engine: String,
    pub table: String,
    pub round: u32,
    /// For the paced overwrite.
    pub rate: f64,
    pub dir: PathBuf,
}

impl Task {
    /// As an argument.
    pub fn text(&self) -> String {
        let Task { job, engine, table, round, rate, dir } = self;
        format!("{job},{engine},{table},{round},{rate},{}", dir.display())
    }

    fn parse(text: &str) -> Outcome<Task> {
        let fields: Vec<&str> = text.splitn(6, ',').collect();
        let [job, engine, table, round, rate, dir] = fields[..] else {
            return Err("a strange task".into());
        };
        let [job, engine, table] = [job, engine, table].map(String::from);
        Ok(Task { job, engine, table, round: round.parse()?, rate: rate.parse()?, dir: dir.into() })
    }
}

impl Plan {
    pub fn parse(args: &[String]) -> Outcome<Plan> {
        let built = engines::KINDS.iter().filter(|kind| kind.built);
        let mut plan = Plan {
            keys: 1_000_000,
            rounds: 3,
            time: Duration::from_millis(1500),
            cache: 64 << 20,
            rate: None,
            only: Vec::new(),
            tables: ["lz4", "none", "allinmemory", "synced", "logs"].map(String::from).into(),
            engines: built.map(|kind| kind.name.to_string()).collect(),
            dir: std::env::temp_dir(),
            out: None,
            report: None,
            task: None,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            let list = |text: &str| text.split(',').map(String::from).collect::<Vec<_>>();
            match arg.as_str() {
                "--quick" => {
                    (plan.keys, plan.rounds, plan.time) = (200_000, 1, Duration::from_millis(200));
                }
                "--keys" => plan.keys = value()?.parse()?,
                "--rounds" => plan.rounds = value()?.parse()?,
                "--seconds" => plan.time = Duration::try_from_secs_f64(value()?.parse()?)?,
                "--cache" => plan.cache = value()?.parse::<usize>()? << 20,
                "--rate" => plan.rate = Some(value()?.parse()?),
                "--only" => plan.only = list(value()?),
                "--tables" => plan.tables = list(value()?),
                "--engines" => plan.engines = list(value()?),
                "--dir" => plan.dir = value()?.into(),
                "--out" => plan.out = Some(value()?.into()),
                "--report" => plan.report = Some(value()?.into()),
                "--task" => plan.task = Some(Task::parse(value()?)?),
                _ => return Err(format!("{arg}: no such option; --help says more").into()),
            }
        }
        plan.check()?;
        Ok(plan)
    }

    fn check(&self) -> Outcome {
        if !(10_000..=1 << 32).contains(&self.keys) || self.rounds == 0 || self.time.is_zero() {
            return Err("there is nothing to do, or too much: 10 thousand keys at least".into());
        }
        self.engines.iter().try_for_each(|engine| engines::kind(engine).map(drop))?;
        if let Some(table) = self.tables.iter().find(|table| !TABLES.contains(&table.as_str())) {
            return Err(format!("no table called {table}; there are {TABLES:?}").into());
        }
        let known = workloads::names();
        match self.only.iter().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(format!("no workload called {name}; there are {known:?}").into()),
            None => Ok(()),
        }
    }

    /// Whether this workload is asked for.
    pub fn wants(&self, workload: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == workload)
    }

    pub fn wants_any(&self, workloads: &[&str]) -> bool {
        workloads.iter().any(|workload| self.wants(workload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Outcome<Plan> {
        Plan::parse(&line.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn options_say_what_is_wanted() {
        let plan = parse("--quick --keys 30000 --only readrandom,synced --tables none").unwrap();
        assert_eq!((plan.keys, plan.rounds, plan.tables.len()), (30_000, 1, 1));
        assert!(plan.wants("synced") && !plan.wants("fillseq"));
        assert!(parse("").unwrap().wants("fillseq"));
        for wrong in ["--keys 10", "--only nothing", "--tables some", "--engines one", "--keys", "--what"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_task_is_told_to_another_process() {
        let (job, engine, table) = ("reads".into(), "rocksdb-mmap".into(), "none".into());
        let task = Task { job, engine, table, round: 2, rate: 1.5e5, dir: "/some, where".into() };
        assert_eq!(Task::parse(&task.text()).unwrap(), task);
    }
}
