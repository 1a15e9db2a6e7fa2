//! Processes that do something, say so, and are killed.

use super::Worker;
use crate::Outcome;
use crate::plan::Task;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

/// What such a process says before what else it has to say.
const DONE: &str = "victim";

/// Has another process do `job` and kills it when it says that it has. Hands on the measurements it
/// tells before, and answers what it says in the end.
pub fn kill(worker: &Worker, job: String) -> Outcome<String> {
    let task = Task { job, ..worker.task.clone() };
    let mut child = Command::new(std::env::current_exe()?);
    child.args(std::env::args().skip(1)).args(["--task", &task.text()]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut said = None;
    if let Some(out) = child.stdout.take() {
        for line in BufReader::new(out).lines() {
            let line = line?;
            said = line.strip_prefix(DONE).map(|rest| rest.trim().to_string());
            if said.is_some() {
                break;
            }
            println!("{line}");
        }
    }
    child.kill()?;
    child.wait()?;
    said.ok_or_else(|| "the process to be killed had not got that far".into())
}

/// Says that it is done, and waits for the end.
pub fn wait(words: &str) -> Outcome {
    let mut out = std::io::stdout();
    writeln!(out, "{DONE} {words}")?;
    out.flush()?;
    std::io::stdin().read_exact(&mut [0])?;
    Err("it was not killed".into())
}
