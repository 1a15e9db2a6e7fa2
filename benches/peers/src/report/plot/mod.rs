//! The plots: throughput, latency, what is written and what space it takes.

mod amplification;
mod lanes;
mod latency;
mod scale;
mod svg;
mod throughput;

#[cfg(test)]
mod tests;

use super::results::{Line, Results};

/// A file below `plots/`, and what is in it.
pub struct Plot {
    pub file: String,
    pub svg: String,
}

/// All plots for which there are numbers: for each table throughput and latency, and for those with
/// tables on disk the amplifications.
pub fn all(results: &Results) -> Vec<Plot> {
    let mut plots = Vec::new();
    for table in results.tables().into_iter().filter(|table| *table != "limits") {
        let drawn = [
            ("throughput", throughput::draw(results, table)),
            ("latency", latency::draw(results, table)),
            ("amplification", amplification::draw(results, table)),
        ];
        for (name, svg) in drawn {
            plots.extend(svg.map(|svg| Plot { file: format!("{name}-{table}.svg"), svg }));
        }
    }
    plots
}

/// The lines of a plot: one state of the database each. With commits that survive power loss, the
/// number of threads is what matters; elsewhere it is one.
fn shown<'a>(results: &'a Results, table: &str, metric: &str) -> Vec<&'a Line> {
    let settled = |line: &&Line| ["", "settled", "reader", "writer"].contains(&line.phase.as_str());
    let one_thread = |line: &&Line| line.threads <= 1 || table == "synced";
    results.lines(table, metric).into_iter().filter(settled).filter(one_thread).collect()
}

fn names(lines: &[&Line]) -> Vec<String> {
    // Nearly all of them are settled, which the plot says once.
    let short = |line: &&Line| line.name().replace(", settled", "");
    lines.iter().map(short).collect()
}
