//! What is written for each byte that was put, and what each living byte takes on disk.

use super::panels::{Cell, Look, Panel, Row, draw as draw_panels};
use super::scale::Scale;
use super::svg::{Anchor, Svg};
use super::throughput::plain;
use super::{name, title};
use crate::report::results::{Line, Results, Spread};
use crate::report::text::three_digits;

const LOOK: Look<Spread> = Look {
    title: "Written, and kept on disk",
    notes: &[
        "Over bytes of keys and values that were put, and over those that live; settled, journals included. Less is better.",
        "Written: by an engine's own count, or the system's if it has none (fjall, LMDB, logs). A bar at the edge is longer: see its number.",
    ],
    axis: "1: every byte once",
    tick: plain,
    room: 26.0,
    base: None,
    lane: 10.0,
    scale,
    mark,
};

/// How a panel is called, and the first of these metrics that an engine has.
const PANELS: [(&str, &[&str]); 2] =
    [("Written", &["written_per_payload", "write_amp_own", "write_amp"]), ("Disk size", &["space_amp"])];
const TABLES: [&str; 3] = ["lz4", "none", "logs"];

/// Nobody beyond so many times the longest bar of these leaves the others any room.
const MEASURE: [&str; 3] = ["esker", "rocksdb", "fjall"];
const ROOM: f64 = 1.5;

pub fn draw(results: &Results) -> Option<String> {
    let of = |table: &'static str| {
        PANELS.map(|(what, metrics)| Panel {
            title: format!("{what}: {}", title(table)),
            rows: rows(results, table, metrics),
        })
    };
    draw_panels(&TABLES.map(of).into_iter().flatten().collect::<Vec<_>>(), &LOOK)
}

fn rows<'a>(results: &'a Results, table: &str, metrics: &[&str]) -> Vec<Row<'a, Spread>> {
    // Whatever is settled and measured.
    let lines = results.lines(table, "space_amp").into_iter().filter(|line| line.threads == 1);
    let row = |line: &'a Line| {
        let of = |engine| Some((engine, metrics.iter().find_map(|m| results.get(line, engine, m))?));
        let cells = results.engines_of(&[line], "space_amp").into_iter().filter_map(of).collect();
        Row { name: name(line), cells }
    };
    lines.map(row).collect()
}

fn scale(cells: &[&Cell<Spread>], ends: [f64; 2]) -> Scale {
    let most =
        |cells: &mut dyn Iterator<Item = &&Cell<Spread>>| cells.map(|(_, s)| s.max).fold(0.0, f64::max);
    let all = most(&mut cells.iter());
    let measure = most(&mut cells.iter().filter(|(engine, _)| MEASURE.contains(engine)));
    let end = if measure > 0.0 { all.min(measure * ROOM) } else { all };
    Scale::linear([end].into_iter(), ends)
}

/// A bar to the median, the spread as a whisker over it, and the number behind both.
fn mark(svg: &mut Svg, scale: Scale, (engine, spread): (&str, &Spread), y: f64) {
    let [low, to, high] = [spread.min, spread.median, spread.max].map(|value| scale.at(value));
    let from = scale.at(0.0);
    svg.rect(engine, [from, y - 4.0], [(to - from).max(1.0), 8.0]);
    if high - low >= 1.0 {
        svg.line("whisker", [low, y], [high, y]);
        for x in [low, high] {
            svg.line("whisker", [x, y - 2.0], [x, y + 2.0]);
        }
    }
    svg.text("quiet tiny", Anchor::Start, [high + 4.0, y + 3.0], &three_digits(spread.median));
}
