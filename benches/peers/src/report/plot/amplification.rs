//! What is written for each byte that was put, and what each living byte takes on disk.

use super::lanes::{Labels, Panel, WIDTH, heading, span};
use super::scale::Scale;
use super::svg::{Anchor, Svg};
use super::throughput::plain;
use super::{names, shown};
use crate::report::results::Results;
use crate::report::text::three_digits;

const NOTES: &[&str] = &[
    "Once everything has settled, journal included. Less is better; 1 would be every byte once.",
    "Bars end at the median of all rounds, whiskers at the least and the most.",
];

const PANELS: [(&str, &str, &str); 2] = [
    ("write_amp", "Write amplification", "bytes made dirty in files / bytes of keys and values put"),
    ("space_amp", "Space amplification", "bytes allocated on disk / bytes of living keys and values"),
];

pub fn draw(results: &Results, table: &str) -> Option<String> {
    let lines_of = |metric| shown(results, table, metric);
    let all: Vec<_> = PANELS.iter().flat_map(|(metric, ..)| lines_of(metric)).collect();
    let mut engines = PANELS.map(|(metric, ..)| results.engines_of(&all, metric)).concat();
    // Each has them in the same order; the second may know some that the first does not.
    let mut seen = Vec::new();
    engines.retain(|engine| {
        !seen.contains(engine) && {
            seen.push(*engine);
            true
        }
    });
    if engines.is_empty() {
        return None;
    }
    let rows = names(&all);
    let mut svg = Svg::new(WIDTH);
    let title = format!("Written and kept, table {table}");
    let mut y = heading(&mut svg, &title, NOTES, &engines);
    for (metric, caption, axis) in PANELS {
        let lines = lines_of(metric);
        if lines.is_empty() {
            continue;
        }
        let spread = |row: usize, engine: &str| results.get(lines[row], engine, metric);
        let cells = || (0..lines.len()).flat_map(|row| engines.iter().map(move |engine| (row, *engine)));
        let most = cells().filter_map(|(row, engine)| Some(spread(row, engine)?.max));
        let scale = Scale::linear(most, span(&rows));
        svg.text("", Anchor::Start, [scale.ends()[0], y + 12.0], caption);
        let labels = Labels { rows: &names(&lines), lanes: engines.len(), axis, tick: plain };
        let panel = Panel::draw(&mut svg, y + 22.0, scale, &labels);
        for (row, engine) in cells() {
            let lane = engines.iter().position(|of| *of == engine)?;
            if let Some(spread) = spread(row, engine) {
                let text = three_digits(spread.median);
                panel.bar(&mut svg, engine, panel.lane(row, lane), 0.0, spread, &text);
            }
        }
        y = panel.end() + 6.0;
    }
    Some(svg.finish(&title, y))
}
