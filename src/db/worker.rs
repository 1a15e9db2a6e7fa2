//! The one place where threads start.

use crate::db::core::Core;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::os;
use crate::sync::thread;
use std::sync::Arc;

/// The background threads of a database.
#[derive(Default)]
pub(crate) struct Workers {
    threads: Vec<thread::JoinHandle<()>>,
}

impl Workers {
    /// Starts the workers and the sync thread that `core`'s options ask for.
    pub fn start(core: &Arc<Core>) -> Result<Workers> {
        let mut workers = Workers::default();
        if core.options.read_only || core.options.workers == 0 {
            return Ok(workers);
        }
        let started = (0..core.options.workers)
            .try_for_each(|i| {
                workers.spawn(core, &format!("esker-work-{i}"), |core| {
                    os::give_precedence();
                    core.run_worker();
                })
            })
            .and_then(|()| workers.spawn(core, "esker-sync", Core::run_sync_thread));
        if let Err(e) = started {
            workers.stop(core);
            return Err(e);
        }
        Ok(workers)
    }

    fn spawn(&mut self, core: &Arc<Core>, name: &str, run: fn(&Core)) -> Result<()> {
        let core = core.clone();
        let body = move || {
            // A panic in the background is a bug; the database must not go on as if the work were
            // being done.
            let survived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&core)));
            if survived.is_err() {
                core.fail(Error::new(ErrorKind::Io, "a background thread has panicked"));
            }
        };
        self.threads.push(start(name, body)?);
        Ok(())
    }

    /// Whether the calling thread is one of them. It cannot wait for itself.
    pub fn is_own(&self) -> bool {
        let this = thread::current().id();
        self.threads.iter().any(|t| t.thread().id() == this)
    }

    /// Ends the threads and waits for them. What they are doing is finished first.
    pub fn stop(&mut self, core: &Core) {
        core.work.stop();
        core.sync.stop();
        for thread in self.threads.drain(..) {
            // A panic was latched by the thread itself.
            let _ = thread.join();
        }
    }
}

/// Runs `close` in a thread of its own.
pub(crate) fn close_elsewhere(close: impl FnOnce() + Send + 'static) -> Result<()> {
    start("esker-close", close).map(drop)
}

fn start(name: &str, body: impl FnOnce() + Send + 'static) -> Result<thread::JoinHandle<()>> {
    let started = thread::Builder::new().name(name.to_string()).spawn(body);
    started.map_err(|e| Error::new(ErrorKind::Io, format!("no thread can be started: {e}")))
}
