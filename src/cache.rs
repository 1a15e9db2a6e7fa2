//! The block cache: one budget of bytes, shared by everything that is open.
//!
//! Who caches has an array of [`Slots`], one per block, so that a hit is one load and not a search
//! in a shared map. Which blocks stay is decided over all of them by a clock: entries stand in a
//! ring in the order they came; when room is needed the oldest goes, unless it was used since it
//! was last looked at, which buys it another round.
//!
//! A block that was evicted lives on while somebody still holds it.

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use arc_swap::ArcSwapOption;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

/// What an entry costs beside its bytes.
const OVERHEAD: usize = 96;
/// One entry may take this part of the budget at most.
const LARGEST: usize = 8;
/// Entries that one insertion sends on another round, at most: the lock is not held for longer.
const PATIENCE: usize = 64;
/// Over how many counters hits are spread.
const STRIPES: usize = 16;

/// A block in the cache.
pub(crate) struct Entry {
    bytes: Box<[u8]>,
    used: AtomicBool,
}

impl AsRef<[u8]> for Entry {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Hits, misses and what is held, since the cache was made.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct CacheStats {
    pub hits: u64,
    pub misses: u64,
    pub entries: u64,
    pub bytes: u64,
}

/// A budget for cached blocks.
#[derive(Debug)]
pub(crate) struct Cache {
    budget: usize,
    ring: Mutex<Ring>,
    hits: [Counter; STRIPES],
    misses: AtomicU64,
}

/// Alone on its cache line.
#[derive(Default, Debug)]
#[repr(align(64))]
struct Counter(AtomicU64);

#[derive(Default, Debug)]
struct Ring {
    /// Bytes of all entries that are in their slots.
    used: usize,
    /// The oldest is in front.
    hand: VecDeque<Place>,
    /// Places whose slots are gone.
    dead: usize,
}

/// Where an entry is.
#[derive(Debug)]
struct Place {
    slots: Weak<Slots>,
    index: usize,
}

/// Room for the blocks of one user of the cache. Dropping it frees what it holds.
pub(crate) struct Slots {
    cache: Arc<Cache>,
    slots: Box<[ArcSwapOption<Entry>]>,
}

impl std::fmt::Debug for Slots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slots({})", self.slots.len())
    }
}

impl Cache {
    /// A cache of at most `budget` bytes; 0 caches nothing.
    pub fn new(budget: usize) -> Arc<Cache> {
        Arc::new(Cache {
            budget,
            ring: Mutex::new(Ring::default()),
            hits: Default::default(),
            misses: AtomicU64::new(0),
        })
    }

    /// Room for `n` blocks.
    pub fn slots(self: &Arc<Cache>, n: usize) -> Arc<Slots> {
        Arc::new(Slots { cache: self.clone(), slots: (0..n).map(|_| ArcSwapOption::empty()).collect() })
    }

    pub fn stats(&self) -> CacheStats {
        let ring = self.ring.lock();
        CacheStats {
            hits: self.hits.iter().map(|c| c.0.load(Ordering::Relaxed)).sum(),
            misses: self.misses.load(Ordering::Relaxed),
            entries: ring.hand.len().saturating_sub(ring.dead) as u64,
            bytes: ring.used as u64,
        }
    }
}

impl Slots {
    /// The block at `index`, if it is cached.
    #[inline]
    pub fn get(&self, index: usize) -> Option<Arc<Entry>> {
        let entry = self.slots.get(index)?.load_full();
        match &entry {
            Some(entry) => {
                // Read first: a store by every reader would pass the line around between cores.
                if !entry.used.load(Ordering::Relaxed) {
                    entry.used.store(true, Ordering::Relaxed);
                }
                self.cache.hits[index % STRIPES].0.fetch_add(1, Ordering::Relaxed);
            }
            None => {
                self.cache.misses.fetch_add(1, Ordering::Relaxed);
            }
        }
        entry
    }

    /// Puts a block at `index`, unless it is too large for the cache or somebody was faster; returns
    /// the one to use.
    pub fn insert(self: &Arc<Slots>, index: usize, bytes: Box<[u8]>) -> Arc<Entry> {
        let cost = bytes.len() + OVERHEAD;
        let entry = Arc::new(Entry { bytes, used: AtomicBool::new(false) });
        let Some(slot) = self.slots.get(index) else { return entry };
        if cost > self.cache.budget / LARGEST {
            return entry;
        }
        // What goes is dropped after the lock is: dropping slots takes it again.
        let mut evicted = Vec::new();
        let mut ring = self.cache.ring.lock();
        if let Some(theirs) = slot.load_full() {
            return theirs;
        }
        ring.make_room(self.cache.budget - cost, &mut evicted);
        slot.store(Some(entry.clone()));
        ring.used += cost;
        ring.hand.push_back(Place { slots: Arc::downgrade(self), index });
        drop(ring);
        entry
    }
}

impl Ring {
    /// Evicts until at most `budget` bytes are used.
    fn make_room(&mut self, budget: usize, evicted: &mut Vec<(Arc<Slots>, Option<Arc<Entry>>)>) {
        let mut patience = PATIENCE;
        while self.used > budget {
            let Some(place) = self.hand.pop_front() else { return };
            let Some(slots) = place.slots.upgrade() else {
                self.dead = self.dead.saturating_sub(1);
                continue;
            };
            let Some(slot) = slots.slots.get(place.index) else { continue };
            let used = slot.load().as_ref().is_some_and(|e| e.used.swap(false, Ordering::Relaxed));
            if used && patience > 0 {
                patience -= 1;
                self.hand.push_back(place);
                evicted.push((slots, None));
            } else {
                let entry = slot.swap(None);
                self.used -= entry.as_ref().map_or(0, |e| e.bytes.len() + OVERHEAD);
                evicted.push((slots, entry));
            }
        }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        let (mut count, mut bytes) = (0, 0);
        for slot in &self.slots {
            if let Some(entry) = slot.swap(None) {
                count += 1;
                bytes += entry.bytes.len() + OVERHEAD;
            }
        }
        if count == 0 {
            return;
        }
        let mut ring = self.cache.ring.lock();
        ring.used -= bytes;
        ring.dead += count;
        if ring.dead > ring.hand.len() / 2 {
            ring.hand.retain(|place| place.slots.strong_count() > 0);
            ring.dead = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(n: usize, len: usize) -> Box<[u8]> {
        vec![n as u8; len].into()
    }

    #[test]
    fn what_is_used_stays_and_the_budget_holds() {
        let cache = Cache::new(64 << 10);
        let slots = cache.slots(1000);
        for n in 0..1000 {
            slots.insert(n, block(n, 1000));
            assert!(cache.stats().bytes <= 64 << 10);
            // The first is asked for again and again.
            let first = slots.get(0).expect("stays");
            assert_eq!((*first).as_ref(), &*block(0, 1000));
        }
        assert!(slots.get(1).is_none() && slots.get(999).is_some());
        let stats = cache.stats();
        assert_eq!((stats.hits, stats.misses), (1001, 1));
        assert!(stats.entries > 50 && stats.entries < 65, "{stats:?}");
    }

    #[test]
    fn the_first_to_insert_wins_and_evicted_blocks_live_on() {
        let cache = Cache::new(8 << 10);
        let slots = cache.slots(100);
        let one = slots.insert(0, block(1, 500));
        let two = slots.insert(0, block(2, 500));
        assert!(Arc::ptr_eq(&one, &two));
        for n in 1..100 {
            slots.insert(n, block(n, 500));
        }
        assert!(slots.get(0).is_none());
        assert_eq!((*one).as_ref(), &*block(1, 500));
    }

    #[test]
    fn what_is_too_large_or_out_of_place_passes_by() {
        let cache = Cache::new(8 << 10);
        let slots = cache.slots(1);
        assert_eq!((*slots.insert(0, block(7, 4000))).as_ref().len(), 4000);
        assert!(slots.get(0).is_none() && slots.get(1).is_none());
        slots.insert(1, block(7, 10));
        assert_eq!(Cache::new(0).slots(1).insert(0, block(1, 1)).bytes.len(), 1);
        assert_eq!(cache.stats().bytes, 0);
    }

    #[test]
    fn dropped_slots_leave_nothing_behind() {
        let cache = Cache::new(1 << 20);
        let kept = cache.slots(10);
        kept.insert(3, block(3, 100));
        for _ in 0..100 {
            let slots = cache.slots(100);
            for n in 0..100 {
                slots.insert(n, block(n, 100));
            }
        }
        assert_eq!(cache.stats().bytes as usize, 100 + OVERHEAD);
        assert!(cache.ring.lock().hand.len() < 300);
        assert!(kept.get(3).is_some());
    }

    #[test]
    fn many_threads_share_it() {
        let cache = Cache::new(32 << 10);
        std::thread::scope(|scope| {
            for t in 0..4 {
                let cache = &cache;
                scope.spawn(move || {
                    for round in 0..20 {
                        let slots = cache.slots(50);
                        for n in 0..200 {
                            let i = (n * 7 + t + round) % 50;
                            let entry = slots.get(i).unwrap_or_else(|| slots.insert(i, block(i, 300)));
                            assert_eq!((*entry).as_ref()[0], i as u8);
                        }
                    }
                });
            }
        });
        assert_eq!(cache.stats().bytes, 0);
        assert_eq!(cache.stats().hits + cache.stats().misses, 4 * 20 * 200);
    }
}
