//! How long opening takes, with memtables full of what only the journal has.

use super::fill::{memtable_pairs, memtables};
use super::{MEMTABLE, Of, VICTIM, Worker};
use crate::Outcome;
use crate::engines::Setup;
use crate::generate::key;
use crate::plan::Task;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

pub fn opens(worker: &Worker) -> Outcome {
    if worker.wants("openclosed") {
        let setup = setup(worker, "openclosed");
        drop(memtables(worker, &setup)?);
        worker.reopen("openclosed", &setup)?;
    }
    if worker.wants("openkilled") {
        let setup = setup(worker, "openkilled");
        kill_another(worker)?;
        worker.reopen("openkilled", &setup)?;
    }
    Ok(())
}

fn setup(worker: &Worker, name: &str) -> Setup {
    let mut setup = worker.setup(name);
    setup.memtable = 4 * MEMTABLE;
    // redb keeps nothing of what is not synced; the others show that a kill takes nothing from them.
    setup.synced = worker.kind.volatile;
    setup
}

impl Worker<'_> {
    /// Until the first get is answered; all that was written must be there.
    fn reopen(&self, name: &'static str, setup: &Setup) -> Outcome {
        let start = Instant::now();
        let db = self.open(setup)?;
        db.reader(true)?.get(&key(0))?;
        let took = start.elapsed();
        let there = db.reader(true)?.scan(false)?;
        let written = memtable_pairs(self);
        if there != written {
            return Err(format!("{there} of {written} commits survived").into());
        }
        self.tell(Of::reads(name, "", 1), &[("open_ms", took.as_secs_f64() * 1e3)]);
        Ok(())
    }
}

/// Has another process fill memtables, and kills it.
fn kill_another(worker: &Worker) -> Outcome {
    let task = Task { job: VICTIM.to_string(), ..worker.task.clone() };
    let mut child = Command::new(std::env::current_exe()?);
    child.args(std::env::args().skip(1)).args(["--task", &task.text()]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_line(&mut line)?;
    }
    child.kill()?;
    child.wait()?;
    if line.trim() == VICTIM { Ok(()) } else { Err("the process to be killed had not got that far".into()) }
}

/// Fills memtables, says so, and waits for the end.
pub fn victim(worker: &Worker) -> Outcome {
    let _db = memtables(worker, &setup(worker, "openkilled"))?;
    let mut out = std::io::stdout();
    writeln!(out, "{VICTIM}")?;
    out.flush()?;
    std::io::stdin().read_exact(&mut [0])?;
    Err("it was not killed".into())
}
