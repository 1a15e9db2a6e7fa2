//! The plots: throughput, latency, what is written and what space it takes.

mod amplification;
mod latency;
mod panels;
mod scale;
mod svg;
mod throughput;

#[cfg(test)]
mod tests;

use super::results::{Line, Results};

/// A file below `plots/`, and what is in it.
pub struct Plot {
    pub file: &'static str,
    pub svg: String,
}

/// All plots for which there are numbers.
pub fn all(results: &Results) -> Vec<Plot> {
    let drawn = [
        ("throughput.svg", throughput::draw(results)),
        ("latency.svg", latency::draw(results)),
        ("amplification.svg", amplification::draw(results)),
    ];
    drawn.into_iter().filter_map(|(file, svg)| Some(Plot { file, svg: svg? })).collect()
}

/// What a panel of a table is called.
fn title(table: &str) -> &str {
    match table {
        "lz4" => "tables in LZ4",
        "none" => "no compression",
        "allinmemory" => "no compression, caches hold everything",
        "synced" => "every commit survives power loss",
        "logs" => "logs, every commit survives power loss",
        other => other,
    }
}

/// Nearly all of them are settled, which need not be said.
fn name(line: &Line) -> String {
    line.name().replace(", settled", "")
}
