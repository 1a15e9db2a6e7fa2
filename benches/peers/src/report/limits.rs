//! How near each result comes to what the machine can do.

use super::results::{Line, Results};
use super::text::{Table, Unit, three_digits};
use crate::limits::{LIMITS, MACHINE, Primitives, model};

const HOW_TO_READ: &str = "\
Measured once a round, in the same run: of everything but syncs and the disk the fastest tenth, as it is
when nobody disturbs. From these `src/limits/model.rs` reckons what each workload could reach at most if
an engine did only what none can leave out, and says what that is and what it leaves out: searching,
versions, locks, merging, compaction. So 100 % is out of reach, and what counts is who is nearer. A
number above 100 % says that the machine was busier when it was measured than in the workload, or that
an engine has found a way around what the model takes for needed.
";

fn line() -> Line {
    Line::new(LIMITS, LIMITS, "", 1)
}

fn primitives(results: &Results) -> Option<Primitives> {
    Primitives::of(|name| Some(results.get(&line(), MACHINE, name)?.median))
}

fn limit(line: &Line, primitives: &Primitives) -> Option<f64> {
    model::limit(&line.table, &line.workload, line.threads, primitives)
}

/// Which part of the limit of `line` the engine has reached, if there is one.
pub fn of_limit(results: &Results, line: &Line, engine: &str) -> Option<f64> {
    Some(results.get(line, engine, "ops_per_s")?.median / limit(line, &primitives(results)?)?)
}

/// The primitives, and all results as percentages; nothing if those were not measured.
pub fn section(results: &Results) -> String {
    let Some(primitives) = primitives(results) else { return String::new() };
    let mut rows = Table::new(["", "median", "least", "most"]);
    for name in Primitives::NAMES {
        if let Some(spread) = results.get(&line(), MACHINE, name) {
            let values = [spread.median, spread.min, spread.max].map(|value| written(name, value));
            rows.row(std::iter::once(title(name)).chain(values));
        }
    }
    let mut out = format!("## `{LIMITS}`: What the machine can do\n\n{HOW_TO_READ}\n{}", rows.markdown());
    for table in results.tables() {
        let rows = percentages(results, table, &primitives);
        if !rows.is_empty() {
            out += &format!("\n### Of the machine's limit, `{table}`\n\n{}", rows.markdown());
        }
    }
    out + "\n"
}

fn percentages(results: &Results, table: &str, primitives: &Primitives) -> Table {
    let lines = results.lines(table, "ops_per_s");
    let engines = results.engines_of(&lines, "ops_per_s");
    let mut rows = Table::new(["", "limit, per second"].into_iter().chain(engines.iter().copied()));
    for line in lines {
        let Some(limit) = limit(line, primitives) else { continue };
        let part = |engine: &&str| match results.get(line, engine, "ops_per_s") {
            Some(reached) => Unit::Part.write(reached.median / limit),
            None => "-".to_string(),
        };
        rows.row([line.name(), Unit::Rate.write(limit)].into_iter().chain(engines.iter().map(part)));
    }
    rows
}

const UNITS: [&str; 3] = ["_ns", "_bytes_per_s", "_bytes"];

/// A primitive's name without its unit.
fn title(name: &str) -> String {
    UNITS.iter().find_map(|unit| name.strip_suffix(unit)).unwrap_or(name).replace('_', " ")
}

fn written(name: &str, value: f64) -> String {
    match UNITS.iter().find(|unit| name.ends_with(**unit)) {
        Some(&"_ns") if value < 1000.0 => format!("{} ns", three_digits(value)),
        Some(&"_ns") => Unit::Micros.write(value / 1000.0),
        Some(&"_bytes_per_s") => Unit::Bytes.write(value) + "/s",
        Some(_) => Unit::Bytes.write(value),
        None => three_digits(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    fn sample(line: &Line, engine: &str, metric: &str, value: f64) -> Sample {
        Sample {
            table: line.table.clone(),
            workload: line.workload.clone(),
            phase: line.phase.clone(),
            threads: line.threads,
            engine: engine.into(),
            round: 1,
            metric: metric.into(),
            value,
        }
    }

    /// Every primitive takes 1000: a sync takes 1000 ns.
    fn machine() -> Vec<Sample> {
        Primitives::NAMES.iter().map(|name| sample(&line(), MACHINE, name, 1000.0)).collect()
    }

    fn synced(threads: u32) -> Line {
        Line::new("synced", "synced", "", threads)
    }

    #[test]
    fn a_result_is_a_part_of_its_limit() {
        let mut samples = machine();
        samples.push(sample(&synced(4), "esker", "ops_per_s", 3e6));
        samples.push(sample(&synced(4), "fjall", "ops_per_s", 1e6));
        let results = Results::of(&samples);
        assert_eq!(of_limit(&results, &synced(4), "esker"), Some(0.75));
        assert_eq!(of_limit(&results, &synced(1), "esker"), None);
        let section = section(&results);
        let row = section.lines().find(|line| line.starts_with("| synced, 4")).unwrap();
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells, ["synced, 4 threads", "4.00M", "75.0 %", "25.0 %"]);
        assert!(!section.contains("Of the machine's limit, `limits`"), "{section}");
    }

    #[test]
    fn without_a_primitive_there_is_no_limit() {
        let mut samples = machine();
        samples.push(sample(&synced(1), "esker", "ops_per_s", 3e6));
        samples.remove(7);
        let results = Results::of(&samples);
        assert_eq!(of_limit(&results, &synced(1), "esker"), None);
        assert_eq!(section(&results), "");
    }

    #[test]
    fn primitives_are_written_in_their_units() {
        let of = [
            ("load_1g_ns", 296.0, "load 1g", "296 ns"),
            ("sync_growing_ns", 170e3, "sync growing", "170 us"),
            ("disk_bytes_per_s", 270e6, "disk", "270 MB/s"),
            ("data_bytes", 464e6, "data", "464 MB"),
            ("cores", 2.0, "cores", "2.00"),
        ];
        for (name, value, called, text) in of {
            assert!(Primitives::NAMES.contains(&name));
            assert_eq!((title(name).as_str(), written(name, value).as_str()), (called, text));
        }
    }
}
