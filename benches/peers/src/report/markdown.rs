//! The report as Markdown: what was measured where, the tables, the targets.

use super::PLOTS;
use super::goals::GOALS;
use super::limits;
use super::plot::Plot;
use super::results::{Line, Results, Spread};
use super::targets::{Judged, Verdict, judge};
use super::text::{Table, Unit, three_digits};
use crate::limits::LIMITS;
use crate::sample::About;

/// A number each engine has on each line.
struct Quantity {
    title: &'static str,
    metric: &'static str,
    unit: Unit,
    /// Throughput; nearly all else is better when there is less of it.
    more_is_better: bool,
}

const fn less(title: &'static str, metric: &'static str, unit: Unit) -> Quantity {
    Quantity { title, metric, unit, more_is_better: false }
}

const fn more(title: &'static str, metric: &'static str, unit: Unit) -> Quantity {
    Quantity { title, metric, unit, more_is_better: true }
}

const THROUGHPUT: &[Quantity] = &[
    more("Throughput, per second", "ops_per_s", Unit::Rate),
    more("Throughput until settled, per second", "settled_ops_per_s", Unit::Rate),
    more("Offered, per second", "offered_per_s", Unit::Rate),
];

const COSTS: &[Quantity] = &[
    less("Processor time per operation, all threads", "cpu_us_per_op", Unit::Micros),
    less("Time to settle", "settle_s", Unit::Seconds),
    less("Written to the device per operation", "device_bytes_per_op", Unit::Bytes),
    less(
        "Write amplification, as the system counts (without RocksDB's recycled log)",
        "write_amp",
        Unit::Number,
    ),
    less("Write amplification, the engine's own count", "write_amp_own", Unit::Number),
    less("Bytes of entries, if it was not cut", "payload_bytes", Unit::Bytes),
    less("Handed to the system for each byte of entries", "written_per_payload", Unit::Number),
    less("Space amplification, settled", "space_amp", Unit::Number),
    less("Space amplification at most", "space_amp_peak", Unit::Number),
    less("On disk, settled, of twice what lives and two files", "space_of_room", Unit::Part),
    less("On disk at most, of twice what lives and two files", "space_peak_of_room", Unit::Part),
    less("On disk, settled", "disk_settled_bytes", Unit::Bytes),
    less("On disk at most", "disk_peak_bytes", Unit::Bytes),
    less("Anonymous memory at most", "anon_peak_bytes", Unit::Bytes),
    more("Commits per sync", "commits_per_sync", Unit::Number),
    more("Part of the time in which a sync was under way", "sync_in_flight", Unit::Part),
    less("Open", "open_ms", Unit::Millis),
];

const LATENCIES: [(&str, &str); 4] =
    [("p50", "p50_us"), ("p99", "p99_us"), ("p99.9", "p999_us"), ("max", "max_us")];

const HOW_TO_READ: &str = "\
Each number is the median of all rounds, behind it how far the round farthest from it lay. In brackets:
how many times better Esker is on that line; above 1, Esker is ahead. A dash: not measured, or the engine
cannot do it. `README.md` says what the lines mean, how the engines are set up, and how such tables lie.
";

const HOW_TO_JUDGE: &str = "\
Medians over medians, against the best of those named. Writes are compared by each engine's own count
(`write_amp_own`) where both have one: RocksDB's recycled log is missing from what the system counts.
`fillseq` does as well with nine tenths of the machine's limit, which is its disk's or its processor's
(not with more than all of it: such a limit was none).
";

pub fn report(results: &Results, about: &About, plots: &[Plot]) -> String {
    let of_limit = |line: &Line| limits::of_limit(results, line, "esker");
    let judged: Vec<Judged> = GOALS.iter().flat_map(|goal| judge(goal, results, of_limit)).collect();
    let mut out = String::from("# Esker beside its peers\n\n");
    out += &facts(about);
    out += &format!("\n{HOW_TO_READ}\n{}\n", sum(&judged));
    for Plot { file, .. } in plots {
        out += &format!("![{}]({PLOTS}/{file})\n\n", file.trim_end_matches(".svg"));
    }
    for table in results.tables().into_iter().filter(|table| *table != LIMITS) {
        out += &section(results, table);
    }
    out += &limits::section(results);
    out + &targets(&judged)
}

fn facts(about: &About) -> String {
    let mut out = String::new();
    if let Some(command) = about.get("command") {
        out += &format!("```sh\n{command}\n```\n\n");
    }
    let others = about.0.iter().filter(|(name, _)| name != "command");
    others.for_each(|(name, value)| out += &format!("- {name}: {value}\n"));
    out
}

/// What a table has in common: it stands at its head.
fn title(table: &str) -> &str {
    match table {
        "lz4" => "Tables in LZ4, a cache of a part of the data",
        "none" => "No compression, a cache of a part of the data",
        "allinmemory" => "No compression, caches larger than the data",
        "synced" => "Commits that survive power loss",
        "logs" => "Logs: commits that survive power loss",
        "volatile" => "Commits that survive nothing until a later one is synced",
        other => other,
    }
}

fn section(results: &Results, table: &str) -> String {
    let mut out = format!("## `{table}`: {}\n", title(table));
    THROUGHPUT.iter().for_each(|quantity| out += &quantity_table(results, table, quantity));
    out += &latencies(results, table);
    COSTS.iter().for_each(|quantity| out += &quantity_table(results, table, quantity));
    out + "\n"
}

fn head(engines: &[&str]) -> Table {
    Table::new(std::iter::once("").chain(engines.iter().copied()))
}

fn part(title: &str, table: &Table) -> String {
    if table.is_empty() { String::new() } else { format!("\n### {title}\n\n{}", table.markdown()) }
}

fn quantity_table(results: &Results, table: &str, quantity: &Quantity) -> String {
    let lines = results.lines(table, quantity.metric);
    let engines = results.engines_of(&lines, quantity.metric);
    let mut rows = head(&engines);
    for line in lines {
        let cell = |engine: &&str| cell(results, line, engine, quantity).unwrap_or("-".to_string());
        rows.row(std::iter::once(line.name()).chain(engines.iter().map(cell)));
    }
    part(quantity.title, &rows)
}

fn cell(results: &Results, line: &Line, engine: &str, quantity: &Quantity) -> Option<String> {
    let spread = results.get(line, engine, quantity.metric)?;
    let mut cell = with_spread(spread, quantity.unit);
    if engine != "esker"
        && let Some(ratio) = results.ratio(line, quantity.metric, engine, "esker")
        && ratio != 0.0
    {
        let better = if quantity.more_is_better { 1.0 / ratio } else { ratio };
        cell += &format!(" ({}x)", three_digits(better));
    }
    Some(cell)
}

/// The median, and how far off the round was that was farthest.
fn with_spread(spread: Spread, unit: Unit) -> String {
    let median = unit.write(spread.median);
    if spread.rounds < 2 || spread.median == 0.0 {
        return median;
    }
    let off = (spread.max - spread.median).max(spread.median - spread.min) / spread.median.abs();
    format!("{median} +-{:.0}%", off * 100.0)
}

fn latencies(results: &Results, table: &str) -> String {
    let lines = results.lines(table, "p99_us");
    let engines = results.engines_of(&lines, "p99_us");
    let mut rows = head(&engines);
    for line in lines {
        let of = |engine: &&str| {
            let one = |(_, metric): &(&str, &str)| {
                results.get(line, engine, metric).map_or("-".to_string(), |s| Unit::Micros.write(s.median))
            };
            match results.get(line, engine, "p99_us") {
                Some(_) => LATENCIES.iter().map(one).collect::<Vec<_>>().join(" / "),
                None => "-".to_string(),
            }
        };
        rows.row(std::iter::once(line.name()).chain(engines.iter().map(of)));
    }
    let names = LATENCIES.map(|(name, _)| name).join(" / ");
    part(&format!("Latency of single operations, {names}"), &rows)
}

fn sum(judged: &[Judged]) -> String {
    let count = |verdict: Verdict| judged.iter().filter(|one| one.verdict == verdict).count();
    let (met, missed, unknown) = (count(Verdict::Met), count(Verdict::Missed), count(Verdict::NotMeasured));
    format!("**Targets: {met} met, {missed} missed, {unknown} not measured** (at the end).\n")
}

fn targets(judged: &[Judged]) -> String {
    let mut rows = Table::new(["line", "table", "of", "asked for", "reached", "against", ""]);
    for one in judged {
        let reached = one.reached.map_or("-".to_string(), three_digits);
        let of_limit = one.of_limit.map_or(String::new(), |of| format!(", {:.0} % of the limit", of * 100.0));
        let verdict = match one.verdict {
            Verdict::Met => "met",
            Verdict::Missed => "**missed**",
            Verdict::NotMeasured => "not measured",
        };
        rows.row([
            one.line.name(),
            one.line.table.clone(),
            one.metric.to_string(),
            one.asked.clone(),
            reached + &of_limit,
            one.rival.clone().unwrap_or_default(),
            verdict.to_string(),
        ]);
    }
    format!("## Targets\n\n{HOW_TO_JUDGE}\n{}", rows.markdown())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    fn sample(engine: &str, round: u32, metric: &str, value: f64) -> Sample {
        Sample {
            table: "lz4".into(),
            workload: "fillrandom".into(),
            phase: String::new(),
            threads: 1,
            engine: engine.into(),
            round,
            metric: metric.into(),
            value,
        }
    }

    fn report_of(samples: &[Sample]) -> String {
        let about = About(vec![("command".into(), "peers --quick".into()), ("cores".into(), "2".into())]);
        report(&Results::of(samples), &about, &[Plot { file: "some.svg", svg: String::new() }])
    }

    /// The cells of the row that begins with `name`, of the table below `title`.
    fn row(report: &str, title: &str, name: &str) -> Vec<String> {
        let below = report.split(title).nth(1).unwrap();
        let row = below.lines().find(|line| line.starts_with(&format!("| {name} "))).unwrap();
        row.trim_matches('|').split('|').map(|cell| cell.trim().to_string()).collect()
    }

    #[test]
    fn a_table_has_medians_spreads_and_how_much_better_esker_is() {
        let of_round = |(round, value): (u32, f64)| sample("esker", round, "ops_per_s", value);
        let mut samples: Vec<Sample> = [(1, 900e3), (2, 1e6), (3, 1.05e6)].map(of_round).into();
        samples.push(sample("rocksdb", 1, "ops_per_s", 250e3));
        samples.push(sample("esker", 1, "write_amp", 4.0));
        samples.push(sample("rocksdb", 1, "write_amp", 6.0));
        let report = report_of(&samples);
        assert_eq!(row(&report, "### Throughput, per", "fillrandom")[1..], ["1.00M +-10%", "250k (4.00x)"]);
        assert_eq!(row(&report, "### Write amplification", "fillrandom")[1..], ["4.00", "6.00 (1.50x)"]);
        assert!(
            report.contains("```sh\npeers --quick\n```") && report.contains("\n- cores: 2\n"),
            "{report}"
        );
    }

    #[test]
    fn targets_are_judged() {
        let mut samples =
            vec![sample("esker", 1, "ops_per_s", 1e6), sample("rocksdb", 1, "ops_per_s", 250e3)];
        samples.extend([sample("esker", 1, "write_amp", 4.0), sample("rocksdb", 1, "write_amp", 4.0)]);
        let report = report_of(&samples);
        let (_, targets) = report.split_once("## Targets").unwrap();
        let verdicts: Vec<&str> = targets.lines().filter(|line| line.contains("fillrandom ")).collect();
        assert!(
            verdicts[0].contains("4.00") && verdicts[0].contains("rocksdb") && verdicts[0].contains(" met ")
        );
        assert!(verdicts[1].contains("not measured"), "{}", verdicts[1]);
        assert!(verdicts[4].contains("1.00") && verdicts[4].contains("**missed**"), "{}", verdicts[4]);
    }

    #[test]
    fn latencies_stand_side_by_side() {
        let of = [("p50_us", 1.0), ("p99_us", 4.0), ("p999_us", 20.0), ("max_us", 16_300.0)];
        let samples: Vec<Sample> =
            of.iter().map(|(metric, value)| sample("esker", 1, metric, *value)).collect();
        let cells = row(&report_of(&samples), "### Latency", "fillrandom");
        assert_eq!(cells[1], "1.00 us / 4.00 us / 20.0 us / 16.3 ms");
    }

    #[test]
    fn nothing_measured_is_an_empty_report_not_a_wrong_one() {
        let report = report_of(&[]);
        assert!(report.contains("\n![some](plots/some.svg)\n"), "{report}");
        assert!(report.contains("0 met, 0 missed"), "{report}");
    }
}
