//! What the samples say: tables, targets and plots, as Markdown and SVG.

mod goals;
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

/// The folder of the plots, beside the report.
const PLOTS: &str = "plots";

/// Prints the report, and puts it into `out_dir` as `RESULTS.md`, with the plots below `plots/`.
pub fn write(samples: &[Sample], about: &About, out_dir: &Path) -> Outcome {
    let results = Results::of(samples);
    let plots = plot::all(&results);
    let text = markdown::report(&results, about, &plots);
    print!("{text}");
    let folder = out_dir.join(PLOTS);
    std::fs::create_dir_all(&folder)?;
    for plot in plots {
        std::fs::write(folder.join(plot.file), plot.svg)?;
    }
    Ok(std::fs::write(out_dir.join("RESULTS.md"), text)?)
}
