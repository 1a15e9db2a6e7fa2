//! Esker beside its peers: the same work, the same seeds, the same promises, caches and compression;
//! each engine in a process and a folder of its own, in turn, several rounds; medians and their spread.
//! README.md says what each workload is, how the engines are set up and why, and how such tables lie.

mod about;
mod engines;
mod generate;
mod histogram;
mod limits;
mod measure;
mod plan;
mod process;
mod progress;
mod report;
mod run;
mod sample;
mod workloads;

use plan::Plan;
use sample::{About, Csv};
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

pub type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |names: [&str; 2]| args.iter().any(|arg| names.contains(&arg.as_str()));
    if has(["--help", "-h"]) {
        println!("{}", plan::HELP);
        return ExitCode::SUCCESS;
    }
    if has(["--list", "-l"]) {
        println!("{}", workloads::names().join("\n"));
        return ExitCode::SUCCESS;
    }
    match Plan::parse(&args).and_then(|plan| go(&plan, &args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("peers: {e}");
            ExitCode::FAILURE
        }
    }
}

fn go(plan: &Plan, args: &[String]) -> Outcome {
    if let Some(task) = &plan.task {
        return workloads::work(plan, task);
    }
    match &plan.report {
        Some(csv) => {
            let folder = csv.parent().unwrap_or(Path::new("."));
            let out = plan.out.as_deref().unwrap_or(folder);
            report::write(&Csv::read(csv)?, &About::load(csv)?, out)
        }
        None => run::run(plan, args),
    }
}
