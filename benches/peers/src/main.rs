//! Esker beside its peers: the same work, the same seeds, the same promises, caches and compression;
//! each engine in a process and a folder of its own, in turn, several rounds; medians in one table.
//! README.md says what each line means, how the engines are set up and why, and how such tables lie.

mod engines;
mod measure;
#[allow(dead_code)]
mod report;
#[allow(dead_code)]
mod sample;
mod work;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

const HELP: &str = "\
peers [--quick] [--keys N] [--rounds N] [--cache MIB] [--no-compression] [--dir DIR] [--engines A,B] [--csv FILE]

    --quick            200 thousand keys and 1 round, instead of 1 million and 3
    --cache MIB        what each engine may cache of blocks (default: 64)
    --no-compression   of tables (default: LZ4)
    --dir DIR          where to put the databases (default: the system's temporary folder);
                       what it lies on decides what the lines about synced commits say
    --csv FILE         each measurement of each round, beside the table";

pub type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// What is asked for on the command line.
pub struct Plan {
    pub keys: u64,
    pub cache: usize,
    pub lz4: bool,
    rounds: usize,
    dir: PathBuf,
    engines: Vec<String>,
    csv: Option<PathBuf>,
    /// Set in the processes that do the work: which engine this one is for. `dir` is its own then.
    only: Option<String>,
}

/// By the place of the line in the output and its name: the values of each engine.
type Table = BTreeMap<(usize, String), Vec<Vec<f64>>>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let result = plan(&args).and_then(|plan| match &plan.only {
        Some(engine) => work::run(engine, &plan.dir, &plan),
        None => compare(&plan, &args),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("peers: {e}");
            ExitCode::FAILURE
        }
    }
}

fn plan(args: &[String]) -> Outcome<Plan> {
    let mut plan = Plan {
        keys: 1_000_000,
        cache: 64 << 20,
        lz4: true,
        rounds: 3,
        dir: std::env::temp_dir(),
        engines: engines::NAMES.iter().map(ToString::to_string).collect(),
        csv: None,
        only: None,
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--quick" => (plan.keys, plan.rounds) = (200_000, 1),
            "--keys" => plan.keys = value()?.parse()?,
            "--cache" => plan.cache = value()?.parse::<usize>()? << 20,
            "--no-compression" => plan.lz4 = false,
            "--rounds" => plan.rounds = value()?.parse()?,
            "--dir" => plan.dir = value()?.into(),
            "--engines" => plan.engines = value()?.split(',').map(String::from).collect(),
            "--csv" => plan.csv = Some(value()?.into()),
            "--only" => plan.only = Some(value()?.clone()),
            _ => return Err(format!("{arg}: no such option; --help says more").into()),
        }
    }
    if !(1000..=1 << 32).contains(&plan.keys) || plan.rounds == 0 || plan.engines.is_empty() {
        return Err("there is nothing to do, or too much".into());
    }
    Ok(plan)
}

/// Runs all engines in turn and prints the table.
fn compare(plan: &Plan, args: &[String]) -> Outcome {
    let mut table = Table::new();
    for round in 0..plan.rounds {
        for turn in 0..plan.engines.len() {
            // Whoever goes first does so in turn, too.
            let no = (turn + round) % plan.engines.len();
            let engine = &plan.engines[no];
            let dir = plan.dir.join(format!("peers-{}-{engine}", std::process::id()));
            eprintln!("round {} of {}: {engine}", round + 1, plan.rounds);
            let lines = run_one(engine, &dir, args);
            let _ = std::fs::remove_dir_all(&dir);
            for (line_no, line) in lines?.lines().enumerate() {
                let (name, value) = line.rsplit_once(' ').ok_or("a strange line from the other process")?;
                let row = table.entry((line_no, name.to_string())).or_default();
                row.resize(plan.engines.len(), Vec::new());
                row[no].push(value.parse()?);
            }
        }
    }
    if let Some(file) = &plan.csv {
        std::fs::write(file, csv(plan, &table)?)?;
    }
    print!("{}", medians(plan, table)?);
    Ok(())
}

/// What a process that runs `engine` in `dir` prints.
fn run_one(engine: &str, dir: &Path, args: &[String]) -> Outcome<String> {
    std::fs::create_dir_all(dir)?;
    let mut child = Command::new(std::env::current_exe()?);
    child.args(args).args(["--only", engine, "--dir"]).arg(dir);
    let out = child.stderr(Stdio::inherit()).output()?;
    if !out.status.success() {
        return Err(format!("{engine} ended with {}", out.status).into());
    }
    Ok(String::from_utf8(out.stdout)?)
}

fn csv(plan: &Plan, table: &Table) -> Outcome<String> {
    let mut out = String::from("name,engine,round,value\n");
    for ((_, name), row) in table {
        for (engine, values) in plan.engines.iter().zip(row) {
            for (round, value) in values.iter().enumerate() {
                writeln!(out, "\"{name}\",{engine},{},{value}", round + 1)?;
            }
        }
    }
    Ok(out)
}

/// A table in Markdown, one line per measurement: the median of each engine, then those of the others
/// over the first's.
fn medians(plan: &Plan, table: Table) -> Outcome<String> {
    let compression = if plan.lz4 { "LZ4" } else { "no compression" };
    let mut out = format!(
        "{} keys, {compression}, {} MiB of cache, {} cores, medians of {} rounds; less is better\n\n",
        plan.keys,
        plan.cache >> 20,
        std::thread::available_parallelism()?,
        plan.rounds
    );
    let (first, others) = plan.engines.split_first().ok_or("no engines")?;
    let ratios = others.iter().map(|other| format!("{other} / {first}"));
    let heads: Vec<String> = plan.engines.iter().cloned().chain(ratios).collect();
    write!(out, "| {:<42} |", "")?;
    heads.iter().try_for_each(|head| write!(out, " {head:>15} |"))?;
    write!(out, "\n|{:-<44}|", "")?;
    heads.iter().try_for_each(|_| write!(out, "{:->16}:|", ""))?;
    for ((_, name), mut row) in table {
        let medians: Vec<f64> = row.iter_mut().map(|values| median(values)).collect();
        let ratios = medians.iter().skip(1).map(|m| m / medians[0]);
        write!(out, "\n| {name:<42} |")?;
        for number in medians.iter().copied().chain(ratios) {
            match number.is_finite() {
                true => write!(out, " {number:>15.2} |")?,
                false => write!(out, " {:>15} |", "-")?,
            }
        }
    }
    out.push('\n');
    Ok(out)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
