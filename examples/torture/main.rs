//! Real processes on a real disk: a writer is killed, or has its file system shut down under it, and
//! what it leaves is held against what it had told. Run it with `--help` to see how.

// Elsewhere only killing is possible.
#![cfg_attr(not(target_os = "linux"), allow(dead_code))]

mod args;
mod check;
mod child;
#[cfg(target_os = "linux")]
mod controls;
mod dir;
#[cfg(target_os = "linux")]
mod disk;
#[cfg(target_os = "linux")]
mod full;
mod kill;
#[cfg(target_os = "linux")]
mod power;
#[cfg(target_os = "linux")]
mod preload;
mod script;
mod setup;
#[cfg(target_os = "linux")]
mod sim;
mod steps;
mod tell;
mod work;
mod writer;

use args::{Args, HELP};
use std::error::Error;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args_os().skip(1)) {
        Ok(Some(args)) => args,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(e) => {
            eprintln!("torture: {e} (--help says more)");
            return ExitCode::from(2);
        }
    };
    let done = match args.mode.as_str() {
        "kill" => kill::run(&args),
        "child-script" => args.db().and_then(|dir| script::run(dir, args.seed, args.truth)),
        "child-writer" => args.orders().and_then(|orders| Ok(writer::run(&orders)?)),
        _ => with_disks(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("torture: {e}");
            ExitCode::FAILURE
        }
    }
}

/// What makes file systems of its own.
#[cfg(target_os = "linux")]
fn with_disks(args: &Args) -> Outcome {
    let run: fn(&Args) -> Outcome = match args.mode.as_str() {
        "power" => power::run,
        "sim" => sim::run,
        "full" => full::run,
        "preload" => return preload::run(args),
        "controls" => controls::run,
        other => return Err(format!("there is no {other} (--help says more)").into()),
    };
    if let Err(e) = disk::go_inside()
        && args.mode != "controls"
    {
        println!("skipped: {}: this needs root, and a mount namespace: {e}", args.mode);
        return Ok(());
    }
    run(args)
}

#[cfg(not(target_os = "linux"))]
fn with_disks(args: &Args) -> Outcome {
    println!("skipped: {}: this needs Linux", args.mode);
    Ok(())
}

/// Shows how far it is, where somebody looks.
fn progress(done: u64, of: u64, what: &str) {
    let mut err = std::io::stderr();
    if err.is_terminal() {
        let end = if done == of { "\n" } else { "" };
        let _ = write!(err, "\r{done} of {of} {what}{end}");
    }
}
