//! How long single operations take.

use super::panels::{Look, Panel, Row, draw as draw_panels};
use super::scale::Scale;
use super::svg::Svg;
use super::{name, title};
use crate::report::results::{Line, Results, Spread};
use crate::report::text::Unit;

const LOOK: Look<Percentiles> = Look {
    title: "Latency of single operations",
    notes: &[
        "The thick bar goes from the median to p99, the thin one to p99.9, the dot is the slowest of all. Less is better.",
        "Pale: from the best to the worst round, of p99.9 and of the slowest. pacedoverwrite is offered what RocksDB can do.",
    ],
    axis: "time of one operation, logarithmic",
    tick: |micros| Unit::Micros.write(micros).replace(".00 ", " ").replace(".0 ", " "),
    room: 40.0,
    base: None,
    lane: 8.0,
    scale: |cells, ends| Scale::log(cells.iter().flat_map(|(_, of)| of.all()), ends),
    mark: |svg, scale, (engine, of), y| of.draw(svg, scale, engine, y),
};

const TABLES: [&str; 3] = ["lz4", "none", "synced"];
const WORKLOADS: [&str; 5] = ["fillrandom", "overwrite", "pacedoverwrite", "readrandom", "synced"];

/// The percentiles of an engine on a line; p99.9 and the maximum may be missing.
struct Percentiles {
    p50: f64,
    p99: f64,
    p999: Option<Spread>,
    max: Option<Spread>,
}

impl Percentiles {
    fn of(results: &Results, line: &Line, engine: &str) -> Option<Percentiles> {
        let get = |metric| results.get(line, engine, metric);
        let (p50, p99) = (get("p50_us")?.median, get("p99_us")?.median);
        Some(Percentiles { p50, p99, p999: get("p999_us"), max: get("max_us") })
    }

    fn all(&self) -> impl Iterator<Item = f64> {
        let far = [self.p999, self.max].into_iter().flatten();
        [self.p50, self.p99].into_iter().chain(far.flat_map(|s| [s.min, s.max]))
    }

    fn draw(&self, svg: &mut Svg, scale: Scale, engine: &str, y: f64) {
        let at = |value: f64| scale.at(value);
        for spread in [self.p999, self.max].into_iter().flatten() {
            let (low, high) = (at(spread.min), at(spread.max));
            svg.rect(&format!("{engine} band"), [low, y - 3.5], [high - low, 7.0]);
        }
        svg.rect(engine, [at(self.p50), y - 3.0], [(at(self.p99) - at(self.p50)).max(1.5), 6.0]);
        let tail = self.p999.map_or(self.p99, |s| s.median);
        svg.rect(engine, [at(self.p99), y - 1.0], [at(tail) - at(self.p99), 2.0]);
        if let Some(max) = self.max {
            svg.line(&format!("{engine} range"), [at(tail), y], [at(max.median), y]);
            svg.dot(engine, [at(max.median), y], 2.2);
        }
    }
}

pub fn draw(results: &Results) -> Option<String> {
    let panels = TABLES.map(|table| Panel { title: title(table).to_string(), rows: rows(results, table) });
    draw_panels(&panels, &LOOK)
}

fn rows<'a>(results: &'a Results, table: &str) -> Vec<Row<'a, Percentiles>> {
    let lines = results.lines(table, "p99_us").into_iter().filter(|line| shown(line));
    let row = |line: &'a Line| {
        let of = |engine| Some((engine, Percentiles::of(results, line, engine)?));
        let cells = results.engines_of(&[line], "p99_us").into_iter().filter_map(of).collect();
        Row { name: name(line), cells }
    };
    lines.map(row).collect()
}

fn shown(line: &Line) -> bool {
    let state = line.phase.is_empty() || line.phase == "settled";
    let threads = line.threads == 1 || line.table == "synced";
    state && threads && WORKLOADS.contains(&line.workload.as_str())
}
