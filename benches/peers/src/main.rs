//! Esker beside its peers: the same work, the same seeds, the same promises, caches and compression;
//! each engine in a process and a folder of its own, in turn, several rounds; medians in one table.
//!
//!     cargo run --release --manifest-path benches/peers/Cargo.toml -- --quick
//!
//! Keys have 16 bytes, values 100, of which half compress. Unless a line says "sync", a write
//! survives the death of the process and no more. Reads follow a complete compaction.

mod engines;
mod work;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const HELP: &str = "\
peers [--quick] [--keys N] [--rounds N] [--dir DIR] [--engines A,B]

    --quick      200 thousand keys and 3 rounds, instead of 2 million and 5
    --dir DIR    where to put the databases (default: the system's temporary folder);
                 what it lies on decides what the sync lines say";

pub type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// What is asked for on the command line.
struct Plan {
    keys: u64,
    rounds: usize,
    dir: PathBuf,
    engines: Vec<String>,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.first().map(String::as_str) {
        Some("--help" | "-h") => {
            println!("{HELP}");
            Ok(())
        }
        // A process of its own for each engine and round.
        Some("run-one") => run_one(&args[1..]),
        _ => plan(&args).and_then(|plan| compare(&plan)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("peers: {e}");
            ExitCode::FAILURE
        }
    }
}

fn plan(args: &[String]) -> Outcome<Plan> {
    let engines = engines::NAMES.map(String::from).to_vec();
    let mut plan = Plan { keys: 2_000_000, rounds: 5, dir: std::env::temp_dir(), engines };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--quick" => (plan.keys, plan.rounds) = (200_000, 3),
            "--keys" => plan.keys = value()?.parse()?,
            "--rounds" => plan.rounds = value()?.parse()?,
            "--dir" => plan.dir = value()?.into(),
            "--engines" => plan.engines = value()?.split(',').map(String::from).collect(),
            _ => return Err(format!("{arg}: no such option; --help says more").into()),
        }
    }
    if plan.keys == 0 || plan.rounds == 0 {
        return Err("there is nothing to do".into());
    }
    Ok(plan)
}

fn run_one(args: &[String]) -> Outcome {
    let [engine, dir, keys] = args else { return Err("run-one ENGINE DIR KEYS".into()) };
    work::run(engine, Path::new(dir), keys.parse()?)
}

/// Runs all engines in turn and prints the table.
fn compare(plan: &Plan) -> Outcome {
    let mut times: BTreeMap<(usize, String), Vec<Vec<f64>>> = BTreeMap::new();
    for round in 0..plan.rounds {
        for turn in 0..plan.engines.len() {
            // Whoever goes first does so in turn, too.
            let no = (turn + round) % plan.engines.len();
            let engine = &plan.engines[no];
            let dir = plan.dir.join(format!("peers-{}-{engine}", std::process::id()));
            eprintln!("round {} of {}: {engine}", round + 1, plan.rounds);
            let mut child = Command::new(std::env::current_exe()?);
            child.args(["run-one", engine]).arg(&dir).arg(plan.keys.to_string());
            let out = child.stderr(std::process::Stdio::inherit()).output();
            let _ = std::fs::remove_dir_all(&dir);
            let out = out?;
            if !out.status.success() {
                return Err(format!("{engine} ended with {}", out.status).into());
            }
            for (line_no, line) in String::from_utf8(out.stdout)?.lines().enumerate() {
                let (name, value) = line.rsplit_once(' ').ok_or("a strange line from the other process")?;
                let row = times.entry((line_no, name.to_string())).or_default();
                row.resize(plan.engines.len(), Vec::new());
                row[no].push(value.parse()?);
            }
        }
    }
    print_table(plan, times);
    Ok(())
}

fn print_table(plan: &Plan, times: BTreeMap<(usize, String), Vec<Vec<f64>>>) {
    println!("{} keys, medians of {} rounds", plan.keys, plan.rounds);
    print!("{:<28}", "");
    plan.engines.iter().for_each(|e| print!("{e:>12}"));
    plan.engines.iter().skip(1).for_each(|e| print!("{:>16}", format!("{e} / {}", plan.engines[0])));
    println!();
    for ((_, name), mut row) in times {
        print!("{name:<28}");
        let medians: Vec<f64> = row.iter_mut().map(median).collect();
        medians.iter().for_each(|m| print!("{m:>12.2}"));
        medians.iter().skip(1).for_each(|m| print!("{:>16.2}", m / medians[0]));
        println!();
    }
}

fn median(values: &mut Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
