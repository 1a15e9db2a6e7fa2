//! What a measurement is, and the file that keeps it: what runs the engines and what tells of them share
//! nothing else.

use crate::Outcome;
use crate::limits::Primitives;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// One measurement of one round.
#[derive(Clone, PartialEq, Debug)]
pub struct Sample {
    /// What must not be mixed: one of [`TABLES`].
    pub table: String,
    /// `readrandom` and the like.
    pub workload: String,
    /// One of [`PHASES`].
    pub phase: String,
    /// Client threads.
    pub threads: u32,
    /// `esker`, `rocksdb`, `rocksdb-mmap`, `fjall`, `redb`, `lmdb`, `raft-engine`; no engines are `disk`, a bare file, and
    /// `machine`, in the table `limits`.
    pub engine: String,
    /// From 1.
    pub round: u32,
    /// One of [`METRICS`] or, in the table `limits`, of [`Primitives::NAMES`].
    pub metric: String,
    pub value: f64,
}

/// `lz4` and `none`: commits survive the death of the process, tables compressed or not.
/// `allinmemory`: as `none`, with caches larger than the data. `synced`: commits survive power loss.
/// `logs`: the same, of logs instead of a map.
/// `volatile`: commits survive nothing until a later one is synced. `build`: no database, but what it
/// takes to build the engine, measured apart (README.md). `limits`: what the machine can do.
pub const TABLES: &[&str] = &["lz4", "none", "allinmemory", "synced", "logs", "volatile", "build", "limits"];

/// Reads: what the database went through before. `reader`, `writer` and `alone` are the sides of one
/// workload: the reader beside the writer, the writer, and the reader without it.
pub const PHASES: &[&str] = &["", "before settling", "settled", "compacted", "reader", "writer", "alone"];

pub const METRICS: &[&str] = &[
    // Over all threads. For fills while they run, whatever is left owing; settled: with that.
    "ops_per_s",
    "settled_ops_per_s",
    // Paced workloads: what was asked for. Their latencies count from when an operation was due.
    "offered_per_s",
    "p50_us",
    "p99_us",
    "p999_us",
    "max_us",
    // Of all threads of the process, user and kernel; fills: until settled.
    "cpu_us_per_op",
    // Pages made dirty (`write_bytes` of /proc/self/io), fills: until settled; and over bytes of keys and values.
    "device_bytes_per_op",
    "write_amp",
    // The same by the engine's own count, where it has one.
    "write_amp_own",
    // Logs: bytes of entries; bytes handed to the system (`wchar`) over those.
    "payload_bytes",
    "written_per_payload",
    // From the last operation until nothing happens any more.
    "settle_s",
    "disk_settled_bytes",
    "disk_peak_bytes",
    // Settled, over bytes of living keys and values.
    "space_amp",
    // Logs: at most, over bytes of living entries; and both sizes over what is promised: twice those and two
    // files of the log.
    "space_amp_peak",
    "space_of_room",
    "space_peak_of_room",
    // Heap and stacks: no mapped files, no page cache.
    "anon_peak_bytes",
    "commits_per_sync",
    // The part of the time in which some thread of the machine waited for the disk, 0 to 1.
    "sync_in_flight",
    "open_ms",
    "cpu_s",
];

/// What else a reader of the numbers must know, in order: name ("command", "cpu", "keys", ...) and value.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct About(pub Vec<(String, String)>);

impl About {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// It lies beside the samples.
    fn path(csv: &Path) -> PathBuf {
        csv.with_extension("about")
    }

    pub fn save(&self, csv: &Path) -> Outcome {
        let lines = self.0.iter().map(|(name, value)| format!("{name} = {}\n", value.replace('\n', " ")));
        Ok(std::fs::write(About::path(csv), lines.collect::<String>())?)
    }

    pub fn load(csv: &Path) -> Outcome<About> {
        let text = std::fs::read_to_string(About::path(csv))?;
        let fact = |line: &str| line.split_once(" = ").map(|(n, v)| (n.to_string(), v.to_string()));
        Ok(About(text.lines().filter_map(fact).collect()))
    }
}

const HEAD: &str = "table,workload,phase,threads,engine,round,metric,value";

impl Sample {
    /// No field has a comma or a quote in it.
    pub fn line(&self) -> String {
        let Sample { table, workload, phase, threads, engine, round, metric, value } = self;
        format!("{table},{workload},{phase},{threads},{engine},{round},{metric},{value}")
    }

    pub fn parse(line: &str) -> Outcome<Sample> {
        let fields: Vec<&str> = line.split(',').collect();
        let [table, workload, phase, threads, engine, round, metric, value] = fields[..] else {
            return Err(format!("no sample: {line}").into());
        };
        let [table, workload, phase, engine, metric] =
            [table, workload, phase, engine, metric].map(String::from);
        let metrics = if table == "limits" { Primitives::NAMES } else { METRICS };
        let known = [(TABLES, &table), (PHASES, &phase), (metrics, &metric)];
        if let Some((_, name)) = known.iter().find(|(names, name)| !names.contains(&name.as_str())) {
            return Err(format!("a sample of an unknown kind, {name}: {line}").into());
        }
        let (threads, round, value) = (threads.parse()?, round.parse()?, value.parse()?);
        Ok(Sample { table, workload, phase, threads, engine, round, metric, value })
    }
}

/// A file of samples, complete up to the last one told.
pub struct Csv(File);

impl Csv {
    pub fn create(path: &Path) -> Outcome<Csv> {
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).open(path)?;
        writeln!(file, "{HEAD}")?;
        Ok(Csv(file))
    }

    pub fn append(&mut self, samples: &[Sample]) -> Outcome {
        let lines: String = samples.iter().map(|sample| sample.line() + "\n").collect();
        Ok(self.0.write_all(lines.as_bytes())?)
    }

    pub fn read(path: &Path) -> Outcome<Vec<Sample>> {
        let text = std::fs::read_to_string(path)?;
        let mut lines = text.lines();
        match lines.next() {
            Some(HEAD) => lines.map(Sample::parse).collect(),
            _ => Err(format!("{}: not a file of samples", path.display()).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let csv = std::env::temp_dir().join(format!("peers-sample-{}.csv", std::process::id()));
        let of = |metric: &str, value| Sample {
            table: "none".into(),
            workload: "readrandom".into(),
            phase: "before settling".into(),
            threads: 2,
            engine: "rocksdb-mmap".into(),
            round: 3,
            metric: metric.into(),
            value,
        };
        let samples: Vec<Sample> = METRICS.iter().zip(0..).map(|(m, n)| of(m, 0.1 * f64::from(n))).collect();
        let mut file = Csv::create(&csv).unwrap();
        file.append(&samples[..2]).unwrap();
        file.append(&samples[2..]).unwrap();
        assert_eq!(Csv::read(&csv).unwrap(), samples);

        let about = About(vec![("command".into(), "peers --x = y".into()), ("keys".into(), "7".into())]);
        about.save(&csv).unwrap();
        assert_eq!(About::load(&csv).unwrap(), about);
        assert_eq!(about.get("keys"), Some("7"));

        std::fs::write(&csv, "a,b\n1,2\n").unwrap();
        assert!(Csv::read(&csv).is_err());
        std::fs::remove_file(About::path(&csv)).unwrap();
        std::fs::remove_file(csv).unwrap();
    }
}
