//! How fast each engine is beside Esker.

use super::panels::{Look, Panel, Row, draw as draw_panels};
use super::scale::Scale;
use super::svg::Svg;
use super::{name, title};
use crate::report::results::{Line, Results, Spread};
use crate::report::text::three_digits;

const LOOK: Look<Spread> = Look {
    title: "Throughput beside Esker",
    notes: &[
        "Operations per second over Esker's, logarithmic: left of the line, an engine is slower than Esker.",
        "Dots: medians of all rounds; whiskers: the slowest and the fastest. No dot: cannot, or was not run.",
    ],
    axis: "slower  \u{2190}  times Esker's throughput  \u{2192}  faster",
    tick: plain,
    room: 26.0,
    base: Some(1.0),
    lane: 2.6,
    scale: |cells, ends| {
        Scale::log(cells.iter().flat_map(|(_, s)| [s.min, s.max]).chain([0.5, 1.0, 2.0]), ends)
    },
    mark,
};

const TABLES: [&str; 5] = ["lz4", "none", "allinmemory", "synced", "logs"];

/// What a row may be of, and how it is called.
const METRICS: [(&str, &str); 2] = [("ops_per_s", ""), ("settled_ops_per_s", ", until settled")];

pub fn draw(results: &Results) -> Option<String> {
    let panels = TABLES.map(|table| Panel { title: title(table).to_string(), rows: rows(results, table) });
    draw_panels(&panels, &LOOK)
}

fn rows<'a>(results: &'a Results, table: &str) -> Vec<Row<'a, Spread>> {
    let lines = results.lines(table, METRICS[0].0).into_iter().filter(|line| shown(line));
    let of = |line: &'a Line| METRICS.map(|(metric, of)| row(results, line, metric, name(line) + of));
    // Without anybody beside Esker there is nothing to compare.
    lines.flat_map(of).flatten().filter(|row| row.cells.len() > 1).collect()
}

/// One state of the database each, and not what was to be as fast as it was. With commits that survive
/// power loss, the number of threads is what matters; elsewhere it is one.
fn shown(line: &Line) -> bool {
    let paced = line.workload == "pacedoverwrite" || line.workload == "readwhilewriting100k";
    let state = ["", "settled", "reader", "writer"].contains(&line.phase.as_str());
    state && !paced && (line.threads == 1 || ["synced", "logs"].contains(&line.table.as_str()))
}

fn row<'a>(results: &'a Results, line: &'a Line, metric: &str, name: String) -> Option<Row<'a, Spread>> {
    let own = results.get(line, "esker", metric)?.median;
    let relative = |engine| Some((engine, results.get(line, engine, metric)?.times(1.0 / own)));
    let cells = results.engines_of(&[line], metric).into_iter().filter_map(relative).collect();
    (own > 0.0).then_some(Row { name, cells })
}

fn mark(svg: &mut Svg, scale: Scale, (engine, spread): (&str, &Spread), y: f64) {
    let (low, high) = (scale.at(spread.min), scale.at(spread.max));
    svg.line(engine, [low, y], [high, y]);
    svg.dot(engine, [scale.at(spread.median), y], 3.4);
}

/// Without zeros that say nothing.
pub fn plain(value: f64) -> String {
    let text = three_digits(value);
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    }
}
