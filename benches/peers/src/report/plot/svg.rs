//! Drawing: a few shapes, as text of an SVG. What they look like is said once, by class, for light and
//! for dark surroundings.

use std::fmt::Write;

/// The look of each engine, always the same: on light ground and on dark.
const COLOURS: [(&str, &str, &str); 8] = [
    ("esker", "#e8590c", "#ff9248"),
    ("rocksdb", "#1864ab", "#4dabf7"),
    ("rocksdb-mmap", "#74b0e0", "#b4dcff"),
    ("fjall", "#2b8a3e", "#51cf66"),
    ("redb", "#862e9c", "#da77f2"),
    ("lmdb", "#b58900", "#ffd43b"),
    ("raft-engine", "#0b7285", "#3bc9db"),
    ("disk", "#868e96", "#adb5bd"),
];

/// Grounds, texts, grids: on light ground and on dark.
const INKS: [(&str, &str, &str); 6] = [
    (".ground{fill:*}", "#ffffff", "#0d1117"),
    ("text{fill:*}", "#1f2328", "#e6edf3"),
    (".quiet{fill:*}", "#59636e", "#9198a1"),
    (".grid{stroke:*}", "#e4e8ec", "#262c34"),
    (".base{stroke:*}", "#868e96", "#6e7681"),
    ("circle{stroke:* !important;stroke-width:.7}", "#ffffff", "#0d1117"),
];

const SHAPES: &str = "\
text{font:12px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif}\
.title{font-size:16px;font-weight:600}.head{font-size:13px;font-weight:600}\
.label{font-size:11px}.small{font-size:10px}.tiny{font-size:9px}\
.grid,.whisker{stroke-width:1}.base{stroke-width:1.5}.band{opacity:.25}.range{opacity:.55}rect{stroke:none !important}";

fn colours(dark: bool) -> String {
    let mut css = String::new();
    for (rule, on_light, on_dark) in INKS {
        css += &rule.replace('*', if dark { on_dark } else { on_light });
    }
    let whisker = if dark { "#c9d1d9" } else { "#343a40" };
    let _ = write!(css, ".whisker{{stroke:{whisker}}}");
    for (engine, on_light, on_dark) in COLOURS {
        let colour = if dark { on_dark } else { on_light };
        let _ = write!(css, ".{engine}{{fill:{colour};stroke:{colour}}}");
    }
    css
}

pub struct Svg {
    width: f64,
    body: String,
}

#[derive(Clone, Copy)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    pub fn new(width: f64) -> Svg {
        Svg { width, body: String::new() }
    }

    fn shape(&mut self, shape: std::fmt::Arguments) {
        // To a String, which does not fail.
        let _ = writeln!(self.body, "{shape}");
    }

    pub fn rect(&mut self, class: &str, [x, y]: [f64; 2], [width, height]: [f64; 2]) {
        self.shape(format_args!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
        ));
    }

    pub fn line(&mut self, class: &str, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2]) {
        self.shape(format_args!(
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        ));
    }

    pub fn dot(&mut self, class: &str, [x, y]: [f64; 2], radius: f64) {
        self.shape(format_args!("<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"/>"));
    }

    pub fn text(&mut self, class: &str, anchor: Anchor, [x, y]: [f64; 2], text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escaped(text);
        self.shape(format_args!(
            "<text class=\"{class}\" text-anchor=\"{anchor}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>"
        ));
    }

    /// The whole picture; `title` is what those hear who cannot see it.
    pub fn finish(self, title: &str, height: f64) -> String {
        let Svg { width, body } = self;
        let (title, light, dark) = (escaped(title), colours(false), colours(true));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\">\n<title>{title}</title>\n\
             <style>{SHAPES}{light}@media (prefers-color-scheme:dark){{{dark}}}</style>\n\
             <rect class=\"ground\" width=\"{width:.0}\" height=\"{height:.0}\" rx=\"6\"/>\n{body}</svg>\n"
        )
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::KINDS;

    #[test]
    fn every_engine_has_its_colour() {
        for name in KINDS.iter().map(|kind| kind.name).chain(["disk"]) {
            let own = COLOURS
                .iter()
                .filter(|(_, light, _)| COLOURS.iter().any(|(engine, of, _)| *engine == name && of == light));
            assert_eq!(own.count(), 1, "{name}");
        }
    }
}
