//! Waiting for commits: tickets for one of them, watches for whatever comes next.

use crate::db::core::Core;
use crate::db::stage::Place;
use crate::error::Result;
use crate::ids::Seq;
use crate::options::Durability;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// A commit that readers see and that is being made durable. Completes in commit order.
///
/// Wait for it by [`wait`](Ticket::wait), or as a [`Future`] under any runtime or none. Dropping it
/// changes nothing: the commit becomes durable all the same.
pub struct Ticket {
    core: Arc<Core>,
    seq: Seq,
    /// Where its waker stands, while it is polled.
    place: Option<Place>,
}

impl Ticket {
    pub(crate) fn new(core: Arc<Core>, seq: Seq) -> Ticket {
        Ticket { core, seq, place: None }
    }

    /// The sequence number of the commit's last operation.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Whether the commit survives power loss by now. Costs one load.
    pub fn is_done(&self) -> bool {
        self.core.snapshots.durable() >= self.seq
    }

    /// Returns once the commit survives power loss. An error means that a sync has failed: whether
    /// it survives is known after reopening.
    pub fn wait(&self) -> Result<Seq> {
        self.core.sync_to(self.seq).map(|()| self.seq)
    }

    /// Like [`wait`](Ticket::wait), at most for `timeout`; `None` when the time is over. With no
    /// background threads it syncs itself and may take longer.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<Seq>> {
        if self.core.options.workers == 0 {
            return self.wait().map(Some);
        }
        Ok(self.core.await_past(Durability::Sync, self.before(), Some(timeout))?.map(|_| self.seq))
    }

    /// What is durable must pass this.
    fn before(&self) -> Seq {
        Seq::new(self.seq.get().saturating_sub(1)).unwrap_or_default()
    }
}

impl Future for Ticket {
    type Output = Result<Seq>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Seq>> {
        if self.is_done() {
            return Poll::Ready(Ok(self.seq));
        }
        if self.core.options.workers == 0 {
            return Poll::Ready(self.wait());
        }
        let before = self.before();
        let Ticket { core, seq, place } = &mut *self;
        match core.poll_past(Durability::Sync, before, cx.waker(), place) {
            Some(result) => Poll::Ready(result.map(|_| *seq)),
            None => Poll::Pending,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.core.leave(&mut self.place);
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({}, {})", self.seq, if self.is_done() { "done" } else { "pending" })
    }
}

/// Tells of commits as they come: of each state past the last one told, never of the same twice.
pub struct Watch {
    core: Arc<Core>,
    kind: Durability,
    told: Option<Seq>,
}

impl Watch {
    pub(crate) fn new(core: Arc<Core>, kind: Durability) -> Watch {
        Watch { core, kind, told: None }
    }

    fn tell(&mut self, seq: Seq) -> Seq {
        self.told = Some(seq);
        seq
    }

    /// The newest sequence number, once it is past the last one returned. The first call returns at
    /// once. Fails once the database is closed or has failed.
    pub fn wait(&mut self) -> Result<Seq> {
        loop {
            if let Some(seq) = self.wait_timeout(Duration::MAX)? {
                return Ok(seq);
            }
        }
    }

    /// Like [`wait`](Watch::wait), at most for `timeout`; `None` when the time is over.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<Option<Seq>> {
        let Some(told) = self.told else {
            return Ok(Some(self.tell(self.core.newest(self.kind))));
        };
        let newest = self.core.await_past(self.kind, told, Some(timeout))?;
        Ok(newest.map(|seq| self.tell(seq)))
    }

    /// Like [`wait`](Watch::wait), without blocking a thread. Needs no runtime.
    pub fn changed(&mut self) -> impl Future<Output = Result<Seq>> + Send + '_ {
        Changed { watch: self, place: None }
    }
}

struct Changed<'a> {
    watch: &'a mut Watch,
    place: Option<Place>,
}

impl Future for Changed<'_> {
    type Output = Result<Seq>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Seq>> {
        let Changed { watch, place } = &mut *self;
        let newest = match watch.told {
            None => Some(Ok(watch.core.newest(watch.kind))),
            Some(told) => watch.core.poll_past(watch.kind, told, cx.waker(), place),
        };
        match newest {
            Some(newest) => Poll::Ready(newest.map(|seq| watch.tell(seq))),
            None => Poll::Pending,
        }
    }
}

impl Drop for Changed<'_> {
    fn drop(&mut self) {
        self.watch.core.leave(&mut self.place);
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({:?}, told {:?})", self.kind, self.told)
    }
}

#[cfg(test)]
mod tests {
    use crate::db::handle::Db;
    use crate::fs::sim::SimFs;
    use crate::options::{Durability, Options};
    use std::future::Future;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake, Waker};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A commit that has published but not yet looked for watchers meets one that has seen it
    /// already. It must not take that watcher off the list: the next commit has to wake it.
    #[test]
    fn a_late_teller_does_not_forget_who_waits_for_the_next_commit() {
        let options = Options::default().fs(Arc::new(SimFs::new(1))).durability(Durability::Buffered);
        let db = Db::open("/db", options.segment_bytes(16 << 10).workers(0)).unwrap();
        let ks = db.keyspace("k").unwrap();
        ks.put("a", "1").unwrap();
        let mut watch = db.watch(Durability::Buffered);
        watch.wait().unwrap();
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        let mut changed = pin!(watch.changed());
        assert!(changed.as_mut().poll(&mut cx).is_pending());
        db.core().sync.tell_visible(db.visible_seq());
        assert_eq!(count.0.load(Ordering::SeqCst), 0);
        let seq = ks.put("a", "2").unwrap();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert!(matches!(changed.as_mut().poll(&mut cx), std::task::Poll::Ready(Ok(s)) if s == seq));
    }
}
