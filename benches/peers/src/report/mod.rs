//! What the samples say: tables, targets and plots, as Markdown and SVG.

mod goals;
mod limits;
pub mod machine;
mod markdown;
mod plot;
mod results;
mod targets;
mod text;

use crate::Outcome;
use crate::sample::{About, Sample};
use results::Results;
use std::path::Path;

/// Prints the report, and puts it into `out_dir` as `RESULTS.md`, with the plots below `plots/`.
pub fn write(samples: &[Sample], about: &About, out_dir: &Path) -> Outcome {
    let results = Results::of(samples);
    let text = markdown::report(&results, about);
    print!("{text}");
    let plots = out_dir.join("plots");
    std::fs::create_dir_all(&plots)?;
    for plot in plot::all(&results) {
        std::fs::write(plots.join(plot.file), plot.svg)?;
    }
    Ok(std::fs::write(out_dir.join("RESULTS.md"), text)?)
}
