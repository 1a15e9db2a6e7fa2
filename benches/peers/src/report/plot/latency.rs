//! How long single operations take.

use super::lanes::{Labels, Panel, WIDTH, heading, span};
use super::scale::Scale;
use super::svg::Svg;
use super::{names, shown};
use crate::report::results::{Line, Results, Spread};
use crate::report::text::Unit;

const NOTES: &[&str] = &[
    "Of single operations: the thick bar from the median to p99, the thin one to p99.9, the dot is the slowest of all.",
    "Pale: from the best to the worst round, of p99.9 and of the slowest. Less is better.",
];

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

    fn draw(&self, svg: &mut Svg, panel: &Panel, engine: &str, y: f64) {
        let at = |value: f64| panel.scale.at(value);
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

pub fn draw(results: &Results, table: &str) -> Option<String> {
    let lines = shown(results, table, "p99_us");
    let engines = results.engines_of(&lines, "p99_us");
    if lines.is_empty() {
        return None;
    }
    let rows = names(&lines);
    let of = |row: usize, engine: &str| Percentiles::of(results, lines[row], engine);
    let cells = || (0..rows.len()).flat_map(|row| engines.iter().map(move |engine| (row, *engine)));
    let values: Vec<f64> = cells()
        .filter_map(|(row, engine)| of(row, engine))
        .flat_map(|p| p.all().collect::<Vec<_>>())
        .collect();
    let scale = Scale::log(values.into_iter(), span(&rows));

    let mut svg = Svg::new(WIDTH);
    let title = format!("Latency, table {table}");
    let top = heading(&mut svg, &title, NOTES, &engines);
    let tick =
        |value| Unit::Micros.write(value).replace(".00 ", " ").replace(".0 ", " ").replace("0 us", "0 us");
    let labels =
        Labels { rows: &rows, lanes: engines.len(), axis: "time of one operation, logarithmic", tick };
    let panel = Panel::draw(&mut svg, top, scale, &labels);
    for (row, engine) in cells() {
        let lane = engines.iter().position(|of| *of == engine)?;
        if let Some(percentiles) = of(row, engine) {
            percentiles.draw(&mut svg, &panel, engine, panel.lane(row, lane));
        }
    }
    Some(svg.finish(&title, panel.end()))
}
