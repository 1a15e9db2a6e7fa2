//! How long opening takes, with memtables full of what only the journal has.

use super::fill::{memtable_pairs, memtables};
use super::{MEMTABLE, Of, VICTIM, Worker, victim};
use crate::Outcome;
use crate::engines::Setup;
use crate::generate::key;
use std::time::Instant;

pub fn opens(worker: &Worker) -> Outcome {
    if worker.wants("openclosed") {
        let setup = setup(worker, "openclosed");
        drop(memtables(worker, &setup)?);
        worker.reopen("openclosed", &setup)?;
    }
    if worker.wants("openkilled") {
        let setup = setup(worker, "openkilled");
        victim::kill(worker, VICTIM.to_string())?;
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

/// Fills memtables, says so, and waits for the end.
pub fn victim(worker: &Worker) -> Outcome {
    let _db = memtables(worker, &setup(worker, "openkilled"))?;
    victim::wait("")
}
