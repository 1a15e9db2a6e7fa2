//! The samples of all rounds, put in order: one median and its spread for each line, engine and metric.

use crate::sample::Sample;
use std::collections::BTreeMap;

/// The order of engines in tables, plots and legends. Whoever is missing here comes after them by name.
const ORDER: [&str; 8] = ["esker", "rocksdb", "rocksdb-mmap", "fjall", "redb", "lmdb", "raft-engine", "disk"];

/// The line of what all workloads of a table took at most, and of what.
pub const EVERYTHING: &str = "everything";
pub const PEAK: &str = "anon_peak_bytes";

/// Puts engines into the order of all tables and plots, each once.
pub fn sort_engines(engines: &mut Vec<&str>) {
    engines.sort_by_key(|name| (ORDER.iter().position(|known| known == name).unwrap_or(ORDER.len()), *name));
    engines.dedup();
}

/// What several rounds said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub rounds: usize,
}

impl Spread {
    /// Of the numbers among `values`; none if there are none.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = match sorted.len() {
            0 => return None,
            n if n % 2 == 1 => sorted[middle],
            _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
        };
        Some(Spread { median, min: sorted[0], max: sorted[sorted.len() - 1], rounds: sorted.len() })
    }

    /// All of it times `factor`.
    pub fn times(self, factor: f64) -> Spread {
        Spread { median: self.median * factor, min: self.min * factor, max: self.max * factor, ..self }
    }
}

/// A line of a table: what was done, and in which state of the database.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    pub table: String,
    pub workload: String,
    pub phase: String,
    pub threads: u32,
}

impl Line {
    pub fn new(table: &str, workload: &str, phase: &str, threads: u32) -> Line {
        Line { table: table.into(), workload: workload.into(), phase: phase.into(), threads }
    }

    /// As people read it: `readrandom, settled, 2 threads`.
    pub fn name(&self) -> String {
        let mut name = self.workload.clone();
        if !self.phase.is_empty() {
            name = format!("{name}, {}", self.phase);
        }
        match self.threads {
            0 | 1 => name,
            n => format!("{name}, {n} threads"),
        }
    }
}

/// All that was measured, by line, engine and metric.
#[derive(Default)]
pub struct Results {
    lines: Vec<Line>,
    spreads: BTreeMap<(Line, String, String), Spread>,
}

impl Results {
    pub fn of(samples: &[Sample]) -> Results {
        let mut lines = Vec::new();
        let mut values: BTreeMap<(Line, String, String), Vec<f64>> = BTreeMap::new();
        for s in samples {
            let line = Line::new(&s.table, &s.workload, &s.phase, s.threads);
            if !lines.contains(&line) {
                lines.push(line.clone());
            }
            values.entry((line, s.engine.clone(), s.metric.clone())).or_default().push(s.value);
        }
        for ((table, engine, _), most) in peaks(samples) {
            let line = Line::new(table, EVERYTHING, "", 1);
            if !lines.contains(&line) {
                lines.push(line.clone());
            }
            values.entry((line, engine.into(), PEAK.into())).or_default().push(most);
        }
        let spreads = values.into_iter().filter_map(|(key, of)| Some((key, Spread::of(&of)?))).collect();
        Results { lines, spreads }
    }

    /// The names of the tables, as they were first met.
    pub fn tables(&self) -> Vec<&str> {
        let mut tables: Vec<&str> = Vec::new();
        for line in &self.lines {
            if !tables.contains(&line.table.as_str()) {
                tables.push(&line.table);
            }
        }
        tables
    }

    /// The lines of `table` for which anybody has `metric`, as they were first met.
    pub fn lines(&self, table: &str, metric: &str) -> Vec<&Line> {
        let measured = |line: &Line| !self.engines(line, metric).is_empty();
        self.lines.iter().filter(|line| line.table == table && measured(line)).collect()
    }

    pub fn get(&self, line: &Line, engine: &str, metric: &str) -> Option<Spread> {
        self.spreads.get(&(line.clone(), engine.to_string(), metric.to_string())).copied()
    }

    fn engines(&self, line: &Line, metric: &str) -> Vec<&str> {
        let here = (line.clone(), String::new(), String::new());
        let of_line = self.spreads.range(here..).take_while(|((at, ..), _)| at == line);
        of_line.filter(|((_, _, of), _)| of == metric).map(|((_, engine, _), _)| engine.as_str()).collect()
    }

    /// The engines that have `metric` for one of `lines`, in the order of all tables and plots.
    pub fn engines_of(&self, lines: &[&Line], metric: &str) -> Vec<&str> {
        let mut engines: Vec<&str> = lines.iter().flat_map(|line| self.engines(line, metric)).collect();
        sort_engines(&mut engines);
        engines
    }

    /// The median of `engine` over that of `base`.
    pub fn ratio(&self, line: &Line, metric: &str, engine: &str, base: &str) -> Option<f64> {
        let (of, base) = (self.get(line, engine, metric)?, self.get(line, base, metric)?);
        (base.median != 0.0).then(|| of.median / base.median)
    }
}

/// The most memory each engine took in a table and a round.
fn peaks(samples: &[Sample]) -> BTreeMap<(&str, &str, u32), f64> {
    let mut peaks = BTreeMap::new();
    for s in samples.iter().filter(|s| s.metric == PEAK) {
        let most = peaks.entry((s.table.as_str(), s.engine.as_str(), s.round)).or_insert(s.value);
        *most = s.value.max(*most);
    }
    peaks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(engine: &str, round: u32, value: f64) -> Sample {
        Sample {
            table: "lz4".into(),
            workload: "readrandom".into(),
            phase: "settled".into(),
            threads: 2,
            engine: engine.into(),
            round,
            metric: "ops_per_s".into(),
            value,
        }
    }

    #[test]
    fn a_median_is_the_middle_or_between_the_two_in_the_middle() {
        let odd = Spread::of(&[3.0, 1.0, 9.0]).unwrap();
        assert_eq!(odd, Spread { median: 3.0, min: 1.0, max: 9.0, rounds: 3 });
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 9.0]).unwrap().median, 3.0);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn what_is_no_number_counts_for_nothing() {
        assert_eq!(Spread::of(&[f64::NAN, 2.0]).unwrap().rounds, 1);
        assert_eq!(Spread::of(&[f64::NAN, f64::INFINITY]), None);
    }

    #[test]
    fn rounds_are_put_together_and_engines_in_order() {
        let samples = [
            sample("lmdb", 1, 7.0),
            sample("zzz", 1, 1.0),
            sample("rocksdb", 1, 3.0),
            sample("esker", 1, 8.0),
            sample("esker", 2, 4.0),
            sample("esker", 3, 6.0),
        ];
        let results = Results::of(&samples);
        let lines = results.lines("lz4", "ops_per_s");
        assert_eq!(lines, [&Line::new("lz4", "readrandom", "settled", 2)]);
        assert_eq!(results.engines_of(&lines, "ops_per_s"), ["esker", "rocksdb", "lmdb", "zzz"]);
        assert_eq!(results.get(lines[0], "esker", "ops_per_s").unwrap().median, 6.0);
        assert_eq!(results.ratio(lines[0], "ops_per_s", "rocksdb", "esker"), Some(0.5));
        assert_eq!(results.ratio(lines[0], "ops_per_s", "fjall", "esker"), None);
        assert!(results.lines("lz4", "p99_us").is_empty() && results.lines("none", "ops_per_s").is_empty());
        assert_eq!(results.tables(), ["lz4"]);
    }

    #[test]
    fn memory_is_also_told_of_all_workloads_together() {
        let of = |workload: &str, round, value| Sample {
            workload: workload.into(),
            metric: PEAK.into(),
            ..sample("esker", round, value)
        };
        let rounds = [of("a", 1, 5.0), of("b", 1, 7.0), of("a", 2, 9.0), of("b", 2, 6.0)];
        let peak = Results::of(&rounds).get(&Line::new("lz4", EVERYTHING, "", 1), "esker", PEAK).unwrap();
        assert_eq!((peak.min, peak.max, peak.rounds), (7.0, 9.0, 2));
    }

    #[test]
    fn a_line_has_a_name_for_people() {
        assert_eq!(Line::new("lz4", "readrandom", "settled", 2).name(), "readrandom, settled, 2 threads");
        assert_eq!(Line::new("lz4", "fillseq", "", 1).name(), "fillseq");
    }
}
