//! What all plots have in common: a heading with a legend, and panels, two beside one another, with a row
//! for each line of the tables, in which each engine has a lane. Whoever was not measured leaves it empty.

use super::scale::Scale;
use super::svg::{Anchor, Svg};
use crate::report::results::sort_engines;

const WIDTH: f64 = 960.0;
const MARGIN: f64 = 20.0;
const COLUMNS: usize = 2;
const COLUMN: f64 = (WIDTH - 3.0 * MARGIN) / COLUMNS as f64;
/// Between rows.
const GAP: f64 = 6.0;
/// What a letter of a label takes, about.
const LETTER: f64 = 6.3;
/// For numbers that stand behind the end of a bar.
const BEHIND: f64 = 34.0;

pub struct Panel<'a, T> {
    pub title: String,
    pub rows: Vec<Row<'a, T>>,
}

/// An engine, and what it has there.
pub type Cell<'a, T> = (&'a str, T);

pub struct Row<'a, T> {
    pub name: String,
    pub cells: Vec<Cell<'a, T>>,
}

pub struct Look<'l, T> {
    pub title: &'l str,
    pub notes: &'l [&'l str],
    /// What stands below each axis.
    pub axis: &'l str,
    pub tick: fn(f64) -> String,
    /// What a number below the axis needs.
    pub room: f64,
    /// What is marked on each axis.
    pub base: Option<f64>,
    /// How high a lane is.
    pub lane: f64,
    pub scale: fn(&[&Cell<T>], [f64; 2]) -> Scale,
    /// Draws what an engine has around a height.
    pub mark: fn(&mut Svg, Scale, (&str, &T), f64),
}

impl<'a, T> Panel<'a, T> {
    fn engines(&self) -> Vec<&'a str> {
        let mut engines = self.cells().map(|(engine, _)| *engine).collect();
        sort_engines(&mut engines);
        engines
    }

    fn cells(&self) -> impl Iterator<Item = &Cell<'a, T>> {
        self.rows.iter().flat_map(|row| &row.cells)
    }

    fn row_height(&self, look: &Look<T>) -> f64 {
        (self.engines().len() as f64 * look.lane).max(10.0) + GAP
    }

    /// With its title above and its axis below.
    fn height(&self, look: &Look<T>) -> f64 {
        26.0 + self.rows.len() as f64 * self.row_height(look) + 52.0
    }
}

/// The picture of all panels that have anything in them; none if there is none.
pub fn draw<T>(panels: &[Panel<T>], look: &Look<T>) -> Option<String> {
    let panels: Vec<&Panel<T>> = panels.iter().filter(|panel| panel.cells().next().is_some()).collect();
    let mut engines: Vec<&str> = panels.iter().flat_map(|panel| panel.engines()).collect();
    sort_engines(&mut engines);
    if engines.is_empty() {
        return None;
    }
    let names = panels.iter().flat_map(|panel| &panel.rows).map(|row| row.name.chars().count());
    let labels = names.max().unwrap_or(0) as f64 * LETTER + 8.0;
    let mut svg = Svg::new(WIDTH);
    let mut y = heading(&mut svg, look.title, look.notes, &engines);
    for beside in panels.chunks(COLUMNS) {
        for (column, panel) in beside.iter().enumerate() {
            let left = MARGIN + column as f64 * (COLUMN + MARGIN);
            draw_panel(&mut svg, panel, look, [left + labels, left + COLUMN - BEHIND], y);
        }
        y += beside.iter().map(|panel| panel.height(look)).fold(0.0, f64::max);
    }
    Some(svg.finish(look.title, y))
}

/// Draws title, notes and legend; answers where it ends.
fn heading(svg: &mut Svg, title: &str, notes: &[&str], engines: &[&str]) -> f64 {
    let mut y = 30.0;
    svg.text("title", Anchor::Start, [MARGIN, y], title);
    for note in notes {
        y += 17.0;
        svg.text("quiet", Anchor::Start, [MARGIN, y], note);
    }
    y += 24.0;
    let mut x = MARGIN;
    for engine in engines {
        svg.rect(engine, [x, y - 9.0], [11.0, 11.0]);
        svg.text("", Anchor::Start, [x + 16.0, y], engine);
        x += 16.0 + engine.len() as f64 * (LETTER + 0.9) + 18.0;
    }
    y + 22.0
}

fn draw_panel<T>(svg: &mut Svg, panel: &Panel<T>, look: &Look<T>, [left, right]: [f64; 2], y: f64) {
    let cells: Vec<&Cell<T>> = panel.cells().collect();
    let (engines, scale) = (panel.engines(), (look.scale)(&cells, [left, right]));
    let (top, height) = (y + 26.0, panel.row_height(look));
    let bottom = top + panel.rows.len() as f64 * height;
    svg.text("head", Anchor::Start, [left, y + 14.0], &panel.title);
    for tick in scale.ticks(look.room) {
        let x = scale.at(tick);
        svg.line("grid", [x, top], [x, bottom]);
        svg.text("quiet small", Anchor::Middle, [x, bottom + 13.0], &(look.tick)(tick));
    }
    svg.text("quiet small", Anchor::Middle, [(left + right) / 2.0, bottom + 28.0], look.axis);
    for (n, row) in panel.rows.iter().enumerate() {
        let y = top + n as f64 * height;
        svg.text("label", Anchor::End, [left - 8.0, y + height / 2.0 + 4.0], &row.name);
        svg.line("grid", [left, y], [right, y]);
    }
    svg.line("grid", [left, bottom], [right, bottom]);
    if let Some(base) = look.base {
        svg.line("base", [scale.at(base), top], [scale.at(base), bottom]);
    }
    let lanes = engines.len() as f64 * look.lane;
    for (n, row) in panel.rows.iter().enumerate() {
        let first = top + n as f64 * height + (height - lanes) / 2.0;
        for (engine, cell) in &row.cells {
            let lane = engines.iter().position(|of| of == engine).unwrap_or(0);
            (look.mark)(svg, scale, (engine, cell), first + (lane as f64 + 0.5) * look.lane);
        }
    }
}
