//! The handles: `Db` and `Keyspace`, cheap to clone, `Send + Sync`, without lifetimes. What can be
//! done with them is said in the files above: `database`, `read`, `write`.

use crate::db::core::Core;
use crate::db::open::{self, Recovery};
use crate::db::tree::Slot;
use crate::db::worker::{Workers, close_elsewhere};
use crate::error::Result;
use crate::options::Options;
use crate::sync::Mutex;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// An open database: a directory with one journal and any number of keyspaces.
///
/// A cheap handle; clones share the database. It closes with [`close`](Db::close), which reports
/// errors, or when the last handle (of it or of a keyspace or batch of it) is dropped. Snapshots,
/// iterators and cursors go on after that.
#[derive(Clone)]
pub struct Db(Arc<Open>);

struct Open {
    core: Arc<Core>,
    workers: Mutex<Workers>,
    recovery: Recovery,
}

impl Db {
    /// Opens the database in the directory `path`, or creates it there if the directory is missing
    /// or empty.
    ///
    /// Replays what the journal holds and no table does, which takes time in proportion to
    /// [`Options::journal_bytes`] at most; after a clean close that is next to nothing. What a crash
    /// cut off is reported by [`recovery`](Db::recovery). A creation that was interrupted is
    /// completed. When this returns, the state it shows survives power loss.
    ///
    /// Errors: [`Locked`](crate::ErrorKind::Locked) with the holder's process id if somebody has it
    /// open; [`Corruption`](crate::ErrorKind::Corruption), with file and offset, if anything is
    /// damaged that had been durable (nothing is changed then); [`Invalid`](crate::ErrorKind::Invalid)
    /// for impossible options and for a directory that holds foreign files.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Db> {
        let (core, recovery) = open::open(path.as_ref(), options)?;
        let workers = Mutex::new(Workers::start(&core)?);
        log::info!(target: "esker", "opened {}: {recovery}", core.dir.display());
        Ok(Db(Arc::new(Open { core, workers, recovery })))
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.0.core
    }

    /// What opening found and did.
    pub fn recovery(&self) -> &Recovery {
        &self.0.recovery
    }

    /// Closes the database: makes all commits durable, ends the background threads and lets go of
    /// the directory. Every other handle answers [`Closed`](crate::ErrorKind::Closed) from then on.
    /// The next open has next to nothing to replay.
    pub fn close(self) -> Result<()> {
        self.0.close()
    }
}

impl Open {
    fn close(&self) -> Result<()> {
        let mut workers = self.workers.lock();
        open::close(&self.core, || workers.stop(&self.core))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut workers = std::mem::take(&mut *self.workers.lock());
        let elsewhere = workers.is_own();
        let core = self.core.clone();
        let mut close = move || {
            if let Err(e) = open::close(&core, || workers.stop(&core)) {
                log::error!(target: "esker", "closing the database: {e}");
            }
        };
        if !elsewhere {
            return close();
        }
        // The last handle went with a waker, in the thread that wakes.
        if let Err(e) = close_elsewhere(close) {
            log::error!(target: "esker", "closing the database: {e}");
        }
    }
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Db({})", self.core().dir.display())
    }
}

/// A sorted map of byte strings in a database.
///
/// A cheap handle; it keeps the database open. It stands for the name: after a
/// [`replace`](crate::Batch::replace) it reads and writes the new contents.
#[derive(Clone)]
pub struct Keyspace {
    pub(crate) db: Db,
    pub(crate) slot: Arc<Slot>,
}

impl Keyspace {
    /// The name.
    pub fn name(&self) -> &str {
        self.slot.key.get(1..).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default()
    }

    /// The database it belongs to.
    pub fn db(&self) -> &Db {
        &self.db
    }
}

impl fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyspace({:?})", self.name())
    }
}
