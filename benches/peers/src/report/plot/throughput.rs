//! How fast each engine is beside Esker.

use super::lanes::{Labels, Panel, WIDTH, heading, span};
use super::scale::Scale;
use super::svg::Svg;
use super::{names, shown};
use crate::report::results::{Results, Spread};
use crate::report::text::three_digits;

const METRIC: &str = "ops_per_s";
const NOTES: &[&str] = &[
    "Operations per second over Esker's: left of the line an engine is slower than Esker, right of it faster.",
    "Bars end at the median of all rounds, whiskers at the slowest and the fastest; a gap: cannot, or was not run.",
];

pub fn draw(results: &Results, table: &str) -> Option<String> {
    let lines = shown(results, table, METRIC);
    let own = |line| Some(results.get(line, "esker", METRIC)?.median).filter(|own| *own > 0.0);
    let lines: Vec<_> = lines.into_iter().filter(|line| own(line).is_some()).collect();
    let engines = results.engines_of(&lines, METRIC);
    // Without anybody beside Esker there is nothing to compare.
    if engines.len() < 2 {
        return None;
    }
    let relative = |row: usize, engine: &str| -> Option<Spread> {
        Some(results.get(lines[row], engine, METRIC)?.times(1.0 / own(lines[row])?))
    };
    let rows = names(&lines);
    let cells = || (0..rows.len()).flat_map(|row| engines.iter().map(move |engine| (row, *engine)));
    let spreads = cells().filter_map(|(row, engine)| relative(row, engine));
    let scale = Scale::log(spreads.flat_map(|s| [s.min, s.max]).chain([1.0]), span(&rows));

    let mut svg = Svg::new(WIDTH);
    let title = format!("Throughput beside Esker, table {table}");
    let top = heading(&mut svg, &title, NOTES, &engines);
    let axis = "times Esker's throughput, logarithmic";
    let labels = Labels { rows: &rows, lanes: engines.len(), axis, tick: plain };
    let panel = Panel::draw(&mut svg, top, scale, &labels);
    let one = scale.at(1.0);
    svg.line("esker base", [one, panel.top()], [one, panel.bottom()]);
    for (row, engine) in cells() {
        let lane = engines.iter().position(|of| *of == engine)?;
        if let Some(spread) = relative(row, engine) {
            let text = if engine == "esker" { String::new() } else { three_digits(spread.median) };
            panel.bar(&mut svg, engine, panel.lane(row, lane), 1.0, spread, &text);
        }
    }
    Some(svg.finish(&title, panel.end()))
}

/// Without zeros that say nothing.
pub fn plain(value: f64) -> String {
    let text = three_digits(value);
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    }
}
