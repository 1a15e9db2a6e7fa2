//! What the samples say: medians and ratios.

use crate::Outcome;
use crate::sample::{About, METRICS, Sample};
use std::collections::BTreeMap;
use std::path::Path;

/// Prints, for each workload, the median of each engine and its ratio to Esker's.
pub fn write(samples: &[Sample], about: &About, _out_dir: &Path) -> Outcome {
    println!("{}", about.get("command").unwrap_or_default());
    let mut rows: BTreeMap<(String, usize, usize), BTreeMap<&str, Vec<f64>>> = BTreeMap::new();
    let mut names: Vec<String> = Vec::new();
    for s in samples {
        let name = format!("{} {} {}", s.workload, s.phase, s.threads);
        let at = names.iter().position(|n| *n == name).unwrap_or_else(|| {
            names.push(name);
            names.len() - 1
        });
        let metric = METRICS.iter().position(|m| *m == s.metric).ok_or("an unknown metric")?;
        rows.entry((s.table.clone(), at, metric)).or_default().entry(&s.engine).or_default().push(s.value);
    }
    for ((table, at, metric), engines) in rows {
        let medians: Vec<(&str, f64)> = engines.into_iter().map(|(e, values)| (e, median(values))).collect();
        let own = medians.iter().find(|(e, _)| *e == "esker").map_or(f64::NAN, |(_, m)| *m);
        print!("{table:<12} {:<40} {:<20}", names[at], METRICS[metric]);
        for (engine, m) in medians {
            print!(" {engine} {m:.2} ({:.2})", own / m);
        }
        println!();
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
