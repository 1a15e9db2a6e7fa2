//! Part of a flush: what another thread may write, if one is free to before the flush comes to it.

use crate::error::{Error, ErrorKind, Result};
use crate::job::flush::Written;
use crate::job::output::OutputOptions;
use crate::job::retain::Horizon;
use crate::memtable::Memtable;
use crate::sync::{Condvar, Mutex};
use std::sync::Arc;

/// What memtables hold from a key on, to be written as tables of the run that the flush makes.
pub(crate) struct Part {
    pub memtables: Vec<Arc<Memtable>>,
    pub from: Box<[u8]>,
    pub horizon: Horizon,
    pub output: OutputOptions,
    state: Mutex<State>,
    ended: Condvar,
}

enum State {
    Offered,
    Taken,
    Ended(Result<Written>),
}

/// Who has taken a part. It ends with this, however that comes about: somebody waits for it.
pub(crate) struct Taken<'a>(&'a Part);

impl Part {
    pub fn new(memtables: Vec<Arc<Memtable>>, from: &[u8], horizon: Horizon, output: OutputOptions) -> Part {
        let (state, ended) = (Mutex::new(State::Offered), Condvar::new());
        Part { memtables, from: from.into(), horizon, output, state, ended }
    }

    /// Takes the part. `None`: somebody has.
    pub fn take(&self) -> Option<Taken<'_>> {
        let mut state = self.state.lock();
        if !matches!(*state, State::Offered) {
            return None;
        }
        *state = State::Taken;
        Some(Taken(self))
    }

    /// Waits for whoever has taken it, and answers what became of it, once.
    pub fn wait(&self) -> Result<Written> {
        let mut state = self.state.lock();
        loop {
            match std::mem::replace(&mut *state, State::Taken) {
                State::Ended(result) => return result,
                _ => state = self.ended.wait(state),
            }
        }
    }
}

impl Taken<'_> {
    pub fn end(self, result: Result<Written>) {
        *self.0.state.lock() = State::Ended(result);
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        if matches!(*state, State::Taken) {
            *state = State::Ended(Err(Error::new(ErrorKind::Io, "writing a part of a flush was given up")));
        }
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Seq;
    use crate::options::Compression;
    use crate::sync::thread;
    use crate::table::WriteOptions;

    fn part() -> Arc<Part> {
        let write = WriteOptions { block_bytes: 64, compression: Compression::None, filter_bits: 0 };
        let output = OutputOptions { write, table_bytes: 1 << 20 };
        Arc::new(Part::new(Vec::new(), b"m", Horizon::new([], Seq::ZERO), output))
    }

    #[test]
    fn one_takes_it_and_another_waits() {
        let part = part();
        let taken = part.take().unwrap();
        assert!(part.take().is_none());
        let waiting = {
            let part = part.clone();
            thread::spawn(move || part.wait())
        };
        taken.end(Ok((Vec::new(), Vec::new())));
        assert!(waiting.join().unwrap().is_ok() && part.take().is_none());
    }

    #[test]
    fn one_that_was_dropped_has_failed() {
        let part = part();
        drop(part.take().unwrap());
        assert!(part.wait().is_err_and(|e| e.kind() == ErrorKind::Io));
    }
}
