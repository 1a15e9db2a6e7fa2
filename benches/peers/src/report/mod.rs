//! What the samples say: tables, targets and plots, as Markdown and SVG.

mod goals;
pub mod machine;
mod markdown;
mod results;
mod targets;
mod text;

use crate::Outcome;
use crate::sample::{About, Sample};
use results::Results;
use std::path::Path;

/// Prints the report, and puts it into `out_dir` as `RESULTS.md`.
pub fn write(samples: &[Sample], about: &About, out_dir: &Path) -> Outcome {
    let text = markdown::report(&Results::of(samples), about);
    print!("{text}");
    std::fs::create_dir_all(out_dir)?;
    Ok(std::fs::write(out_dir.join("RESULTS.md"), text)?)
}
