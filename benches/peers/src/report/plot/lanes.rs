//! What all plots share: a heading with a legend, and panels with a row for each line of the table, in
//! which each engine has its lane. Whoever was not measured leaves its lane empty.

use super::scale::Scale;
use super::svg::{Anchor, Svg};
use crate::report::results::Spread;

pub const WIDTH: f64 = 860.0;
const MARGIN: f64 = 20.0;
const LANE: f64 = 9.0;
/// Between rows.
const GAP: f64 = 9.0;
/// What a letter of a label takes, about.
const LETTER: f64 = 6.6;

/// Draws title, notes and legend; answers where it ends.
pub fn heading(svg: &mut Svg, title: &str, notes: &[&str], engines: &[&str]) -> f64 {
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
        x += 16.0 + engine.len() as f64 * LETTER + 22.0;
    }
    y + 14.0
}

/// What stands to the left of and below a panel.
pub struct Labels<'a> {
    pub rows: &'a [String],
    pub lanes: usize,
    pub axis: &'a str,
    pub tick: fn(f64) -> String,
}

pub struct Panel {
    top: f64,
    lanes: usize,
    rows: usize,
    pub scale: Scale,
}

/// From where to where values lie, beside such labels.
pub fn span(rows: &[String]) -> [f64; 2] {
    let longest = rows.iter().map(|row| row.chars().count()).max().unwrap_or(0);
    [MARGIN + (longest as f64 * LETTER).clamp(60.0, 300.0) + 12.0, WIDTH - MARGIN - 24.0]
}

impl Panel {
    /// Draws the grid and all labels from `top` on.
    pub fn draw(svg: &mut Svg, top: f64, scale: Scale, labels: &Labels) -> Panel {
        let panel = Panel { top, lanes: labels.lanes, rows: labels.rows.len(), scale };
        let (bottom, [left, right]) = (panel.bottom(), scale.ends());
        for tick in scale.ticks() {
            let x = scale.at(tick);
            svg.line("grid", [x, top], [x, bottom]);
            svg.text("quiet small", Anchor::Middle, [x, bottom + 14.0], &(labels.tick)(tick));
        }
        svg.text("quiet", Anchor::Middle, [(left + right) / 2.0, bottom + 32.0], labels.axis);
        for (row, name) in labels.rows.iter().enumerate() {
            let middle = panel.row_top(row) + panel.row_height() / 2.0;
            svg.text("", Anchor::End, [left - 12.0, middle + 4.0], name);
            if row > 0 {
                let y = panel.row_top(row);
                svg.line("grid", [left, y], [right, y]);
            }
        }
        panel
    }

    fn row_height(&self) -> f64 {
        (self.lanes as f64 * LANE).max(12.0) + GAP
    }

    fn row_top(&self, row: usize) -> f64 {
        self.top + row as f64 * self.row_height()
    }

    /// The middle of a lane.
    pub fn lane(&self, row: usize, lane: usize) -> f64 {
        let spare = self.row_height() - self.lanes as f64 * LANE;
        self.row_top(row) + spare / 2.0 + (lane as f64 + 0.5) * LANE
    }

    pub fn top(&self) -> f64 {
        self.top
    }

    pub fn bottom(&self) -> f64 {
        self.row_top(self.rows)
    }

    /// Below the labels of the axis.
    pub fn end(&self) -> f64 {
        self.bottom() + 48.0
    }

    /// A bar from `base` to the median, the spread as a whisker over it, and the number behind both.
    pub fn bar(&self, svg: &mut Svg, engine: &str, y: f64, base: f64, spread: Spread, text: &str) {
        let (from, to) = (self.scale.at(base), self.scale.at(spread.median));
        svg.rect(engine, [from.min(to), y - 3.5], [(to - from).abs().max(1.0), 7.0]);
        self.whisker(svg, y, spread);
        let (low, high) = (self.scale.at(spread.min), self.scale.at(spread.max));
        let (anchor, x) = match to < from {
            true => (Anchor::End, low.min(to) - 4.0),
            false => (Anchor::Start, high.max(to) + 4.0),
        };
        svg.text("quiet tiny", anchor, [x, y + 3.0], text);
    }

    fn whisker(&self, svg: &mut Svg, y: f64, spread: Spread) {
        let (low, high) = (self.scale.at(spread.min), self.scale.at(spread.max));
        if high - low < 1.0 {
            return;
        }
        svg.line("whisker", [low, y], [high, y]);
        for x in [low, high] {
            svg.line("whisker", [x, y - 2.0], [x, y + 2.0]);
        }
    }
}
