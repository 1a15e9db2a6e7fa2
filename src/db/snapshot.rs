//! Snapshots, as callers hold them.

use crate::db::core::Core;
use crate::db::snapshots::Snapshots;
use crate::ids::Seq;
use std::fmt;
use std::sync::Arc;

/// One point in the order of commits, over all keyspaces. Owned: it outlives flushes, drops of
/// keyspaces and the closing of the database, and keeps the versions it sees from being dropped.
///
/// Read through [`Keyspace::at`](crate::Keyspace::at). Cloning is cheap.
#[derive(Clone)]
pub struct Snapshot(Arc<Taken>);

pub(crate) struct Taken {
    pub core: Arc<Core>,
    seq: Seq,
}

impl Snapshot {
    /// At the newest visible commit.
    pub(crate) fn visible(core: &Arc<Core>) -> Snapshot {
        let seq = core.snapshots.take(Snapshots::visible);
        Snapshot(Arc::new(Taken { core: core.clone(), seq }))
    }

    /// At the newest durable commit.
    pub(crate) fn durable(core: &Arc<Core>) -> Snapshot {
        let seq = core.snapshots.take(|s| s.durable().min(s.visible()));
        Snapshot(Arc::new(Taken { core: core.clone(), seq }))
    }

    /// The last operation the snapshot sees.
    pub fn seq(&self) -> Seq {
        self.0.seq
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.0.core
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot({})", self.seq())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let oldest = self.core.snapshots.release(self.seq);
        self.core.forget_before(oldest);
        self.core.work.snapshots_gone(oldest);
    }
}
