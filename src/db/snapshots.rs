//! The live snapshots: sequence numbers that reads may still happen at.

use crate::db::clock::Moment;
use crate::ids::Seq;
use crate::job::retain::Horizon;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};
use std::collections::BTreeMap;

/// The live snapshots, and the two sequence numbers new ones are made at.
#[derive(Default)]
pub(crate) struct Snapshots {
    live: Mutex<BTreeMap<Seq, Live>>,
    visible: AtomicU64,
    durable: AtomicU64,
}

/// The snapshots at one sequence number.
#[derive(Default)]
struct Live {
    count: usize,
    /// When they were first met. Taking a snapshot reads no clock.
    met: Option<Moment>,
}

impl Snapshots {
    /// The newest sequence number reads see.
    #[inline]
    pub fn visible(&self) -> Seq {
        // Acquire: pairs with `publish`; what the commit put into memtables is seen with it.
        Seq::new(self.visible.load(Ordering::Acquire)).unwrap_or(Seq::MAX)
    }

    /// The newest sequence number that survives power loss.
    #[inline]
    pub fn durable(&self) -> Seq {
        Seq::new(self.durable.load(Ordering::Acquire)).unwrap_or(Seq::MAX)
    }

    pub fn publish(&self, seq: Seq) {
        self.visible.store(seq.get(), Ordering::Release);
    }

    pub fn publish_durable(&self, seq: Seq) {
        self.durable.store(seq.get(), Ordering::Release);
    }

    pub fn take(&self, at: impl FnOnce(&Self) -> Seq) -> Seq {
        // Under the lock, so that a horizon taken meanwhile holds either this snapshot or a point
        // at or below it.
        let mut live = self.live.lock();
        let seq = at(self);
        live.entry(seq).or_default().count += 1;
        seq
    }

    /// Ends one snapshot at `seq`. The oldest that remains, or the present.
    pub fn release(&self, seq: Seq) -> Seq {
        let mut live = self.live.lock();
        if let Some(here) = live.get_mut(&seq) {
            here.count -= 1;
            if here.count == 0 {
                live.remove(&seq);
            }
        }
        self.oldest_of(&live)
    }

    fn oldest_of(&self, live: &BTreeMap<Seq, Live>) -> Seq {
        let now = self.visible().min(self.durable());
        live.keys().next().map_or(now, |&s| s.min(now))
    }

    /// The oldest sequence number a read can still ask for.
    pub fn oldest(&self) -> Seq {
        self.oldest_of(&self.live.lock())
    }

    /// Notes when the snapshots were met that nobody met before. Answers at how many sequence
    /// numbers there are any, and the oldest, with the moment it was met.
    pub fn meet(&self, now: Moment) -> (usize, Option<(Seq, Moment)>) {
        let mut live = self.live.lock();
        for here in live.values_mut() {
            here.met.get_or_insert(now);
        }
        let oldest = live.iter().next().map(|(&seq, here)| (seq, here.met.unwrap_or(now)));
        (live.len(), oldest)
    }

    /// What reads there can be from now on.
    pub fn horizon(&self) -> Horizon {
        let live = self.live.lock();
        // No snapshot will be made below the durable sequence number, whatever kind it is.
        Horizon::new(live.keys().copied(), self.visible().min(self.durable()))
    }
}

/// Every interleaving of a snapshot that is taken and a merge that begins.
#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use crate::job::retain::Retain;
    use crate::key::{Kind, Trailer};
    use crate::sync::{Arc, thread};

    /// Whatever a snapshot sees is kept by a merge that does not know of it yet.
    #[test]
    fn a_merge_keeps_what_a_new_snapshot_sees() {
        let seq = |n| Seq::new(n).unwrap();
        loom::model(move || {
            let snapshots = Arc::new(Snapshots::default());
            snapshots.publish(seq(1));
            snapshots.publish_durable(seq(1));
            let reader = {
                let snapshots = snapshots.clone();
                thread::spawn(move || snapshots.take(Snapshots::visible))
            };
            snapshots.publish(seq(2));
            snapshots.publish_durable(seq(2));
            let horizon = snapshots.horizon();
            let read = reader.join().unwrap();
            let tombstones = Default::default();
            let mut retain = Retain::new(&horizon, &tombstones, true);
            let kept = [2, 1].map(|n| retain.keep(b"k", Trailer::new(seq(n), Kind::Put), n == 1).is_some());
            assert!(kept[0] && (kept[1] || read == seq(2)), "{read:?} {horizon:?}");
        });
    }
}
