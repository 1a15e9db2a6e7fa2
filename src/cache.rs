//! The block cache: one budget of bytes, shared by everything that is open.
//!
//! Who caches has an array of [`Slots`], one per block, so that a hit is one load and not a search
//! in a shared map. Which blocks stay is decided over all of them by a clock: entries stand in a
//! ring in the order they came; when room is needed the oldest goes, unless it was used since it
//! was last looked at, which buys it another round.
//!
//! The cache takes what its own cap and the [`Budget`] leave to it, and gives way when others grow: with
//! each insertion, and when it is [told to](Cache::trim). A block that was evicted lives on, and counts,
//! while somebody still holds it. The [memory](Slots::buffer) of one that nobody holds is the next one's:
//! allocators keep memory by the thread that asked for it, and what one thread puts into a full cache
//! would else come on top of what others had put there before.

use crate::budget::{Budget, Share, Use};
use crate::mutant::Mutant;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use arc_swap::ArcSwapOption;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

/// What an entry costs beside its bytes.
const OVERHEAD: usize = 128;
/// One entry may take this part of the room there is at most.
const LARGEST: usize = 8;
/// Entries that one insertion sends on another round, at most: the lock is not held for longer.
const PATIENCE: usize = 64;
/// Entries that are evicted under one hold of the lock, at most.
const BATCH: usize = 256;
/// One miss in two to the power of this invites.
const INVITING: u32 = 5;
/// Over how many counters hits are spread.
const STRIPES: usize = 16;
/// The memory of so many evicted blocks at most waits for the next ones.
const SPARES: usize = 8;

/// A block in the cache.
#[derive(Debug)]
pub(crate) struct Entry {
    bytes: Vec<u8>,
    used: AtomicBool,
    /// Until the last reader lets go.
    _share: Share,
}

impl Entry {
    fn cost(&self) -> usize {
        self.bytes.capacity() + OVERHEAD
    }
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

/// Blocks in memory.
#[derive(Debug)]
pub(crate) struct Cache {
    /// Blocks take no more, however much the budget leaves.
    cap: usize,
    budget: Arc<Budget>,
    ring: Mutex<Ring>,
    /// Blocks that were evicted: their memory is for the next ones, and counts until then.
    spare: Mutex<Vec<Entry>>,
    /// The last block that was inserted found no room without evicting others.
    full: AtomicBool,
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

/// What went, or may stay for another round, and whose it was: to be dropped once nothing is locked.
type Evicted = Vec<(Arc<Slots>, Option<Arc<Entry>>)>;

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
    _share: Share,
}

impl std::fmt::Debug for Slots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slots({})", self.slots.len())
    }
}

impl Cache {
    /// A cache of at most `cap` bytes under no other limit; 0 caches nothing.
    #[cfg(any(test, fuzzing))]
    pub fn new(cap: usize) -> Arc<Cache> {
        Cache::within(&Budget::unlimited(), cap)
    }

    /// A cache of at most `cap` bytes, and of no more than others leave of the budget.
    pub fn within(budget: &Arc<Budget>, cap: usize) -> Arc<Cache> {
        Arc::new(Cache {
            cap,
            budget: budget.clone(),
            ring: Mutex::default(),
            spare: Mutex::default(),
            full: AtomicBool::new(false),
            hits: Default::default(),
            misses: AtomicU64::new(0),
        })
    }

    /// Room for `n` blocks.
    pub fn slots(self: &Arc<Cache>, n: usize) -> Arc<Slots> {
        let slots: Box<[_]> = (0..n).map(|_| ArcSwapOption::empty()).collect();
        let mut share = self.budget.share(Use::Tables);
        share.grow(size_of_val(&*slots));
        Arc::new(Slots { cache: self.clone(), slots, _share: share })
    }

    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Gives way to others who have grown, until the budget is kept or nothing is left to evict.
    pub fn trim(&self) {
        drop(std::mem::take(&mut *self.spare.lock()));
        while self.budget.total() > self.budget.limit() {
            let mut evicted = Vec::new();
            let mut ring = self.ring.lock();
            let room = self.room(&ring, 0);
            ring.make_room(room, &mut evicted);
            drop(ring);
            if evicted.is_empty() {
                return;
            }
        }
    }

    /// What blocks in their slots may take: what the budget leaves to blocks, but for those that only
    /// readers hold, and a new one of `cost` bytes.
    fn room(&self, ring: &Ring, cost: usize) -> usize {
        let read = self.budget.used(Use::Blocks).saturating_sub(ring.used + cost);
        self.cap.min(self.budget.left_to(Use::Blocks).saturating_sub(read))
    }

    /// Keeps the memory of some that were evicted, if it is not much of what there may be.
    fn keep(&self, evicted: Evicted) {
        let kept = |entry: &Entry| entry.cost() <= self.cap / LARGEST / SPARES;
        for entry in evicted.into_iter().filter_map(|(_, entry)| Arc::into_inner(entry?)).filter(kept) {
            let mut spare = self.spare.lock();
            if spare.len() == SPARES {
                // Blocks may be of another size by now.
                spare.remove(0);
            }
            spare.push(entry);
        }
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
        let mut entry = self.slots.get(index)?.load_full();
        if Mutant::CacheMixup.on() && entry.is_none() {
            entry = self.slots.first()?.load_full();
        }
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

    /// Whether a miss should put the `len` bytes it missed in their place: while there is room; then one miss in a few, so
    /// that what is missed often comes to be there, and what is read once costs neither its copy nor others
    /// their place.
    #[inline]
    pub fn admits(&self, len: usize) -> bool {
        len + OVERHEAD <= self.cache.cap / LARGEST
            && (!self.cache.full.load(Ordering::Relaxed) || self.invites())
    }

    /// One miss in a few, any: whether what was missed should be put in its place by who would rather not.
    pub fn invites(&self) -> bool {
        let misses = self.cache.misses.load(Ordering::Relaxed);
        misses.wrapping_mul(0x9e37_79b9_7f4a_7c15).leading_zeros() >= INVITING
    }

    /// Memory for a block of `len` bytes; what stands in it is to be replaced.
    pub fn buffer(&self, len: usize) -> Vec<u8> {
        // Up to an eighth more, so that a block of about the same size can have it next.
        let capacity = len.next_multiple_of((len / 8).next_power_of_two());
        let mut spare = self.cache.spare.lock();
        let fits = spare.iter().rposition(|entry| entry.bytes.capacity() == capacity);
        let taken = fits.map(|at| spare.swap_remove(at));
        drop(spare);
        let mut buffer = taken.map_or_else(|| Vec::with_capacity(capacity), |entry| entry.bytes);
        buffer.resize(len, 0);
        buffer
    }

    /// A block that is read once, and gone.
    pub fn lend(&self, bytes: Vec<u8>) -> Arc<Entry> {
        let mut share = self.cache.budget.share(Use::Blocks);
        share.grow(bytes.capacity() + OVERHEAD);
        Arc::new(Entry { bytes, used: AtomicBool::new(false), _share: share })
    }

    /// Puts a block at `index`, unless it is too large for the cache or somebody was faster; returns
    /// the one to use.
    pub fn insert(self: &Arc<Slots>, index: usize, bytes: Vec<u8>) -> Arc<Entry> {
        let entry = self.lend(bytes);
        let cost = entry.cost();
        let Some(slot) = self.slots.get(index) else { return entry };
        if cost > self.cache.cap / LARGEST {
            return entry;
        }
        // What goes is dropped after the lock is: dropping slots takes it again.
        let mut evicted = Vec::new();
        let mut ring = self.cache.ring.lock();
        if let Some(theirs) = slot.load_full() {
            return theirs;
        }
        let room = self.cache.room(&ring, cost);
        let lost = ring.make_room(room.saturating_sub(cost), &mut evicted);
        // Under the lock, and read by every miss: stored only where it changes.
        let full = !evicted.is_empty() || ring.used + cost + lost > room;
        if self.cache.full.load(Ordering::Relaxed) != full {
            self.cache.full.store(full, Ordering::Relaxed);
        }
        if ring.used + cost + lost > room {
            // Others need the memory: it is read once, and gone.
            return entry;
        }
        slot.store(Some(entry.clone()));
        ring.used += cost;
        ring.hand.push_back(Place { slots: Arc::downgrade(self), index });
        drop(ring);
        self.cache.keep(evicted);
        entry
    }
}

impl Ring {
    /// Evicts until at most `room` bytes are used, or as far as one hold of the lock may go. Answers how
    /// much of what was evicted lives on, held by readers.
    fn make_room(&mut self, room: usize, evicted: &mut Evicted) -> usize {
        let (mut patience, mut lost) = (PATIENCE, 0);
        while self.used + lost > room && evicted.len() < BATCH {
            let Some(place) = self.hand.pop_front() else { break };
            let Some(slots) = place.slots.upgrade() else {
                self.dead = self.dead.saturating_sub(1);
                continue;
            };
            let Some(slot) = slots.slots.get(place.index) else { continue };
            // Evicting what a reader holds makes no room.
            let held = slot.load().as_ref().is_some_and(|e| Arc::strong_count(e) > 1);
            let used = slot.load().as_ref().is_some_and(|e| e.used.swap(false, Ordering::Relaxed));
            if (used || held) && patience > 0 {
                patience -= 1;
                self.hand.push_back(place);
                evicted.push((slots, None));
            } else {
                let entry = slot.swap(None);
                let cost = entry.as_ref().map_or(0, |e| e.cost());
                self.used -= cost;
                lost += if held { cost } else { 0 };
                evicted.push((slots, entry));
            }
        }
        lost
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        let (mut count, mut bytes) = (0, 0);
        for slot in &self.slots {
            if let Some(entry) = slot.swap(None) {
                count += 1;
                bytes += entry.cost();
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

    fn block(n: usize, len: usize) -> Vec<u8> {
        vec![n as u8; len]
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
    fn the_first_to_insert_wins_and_what_is_held_stays() {
        let cache = Cache::new(8 << 10);
        let slots = cache.slots(100);
        let one = slots.insert(0, block(1, 500));
        let two = slots.insert(0, block(2, 500));
        assert!(Arc::ptr_eq(&one, &two));
        for n in 1..100 {
            slots.insert(n, block(n, 500));
        }
        assert!(slots.get(0).is_some_and(|e| Arc::ptr_eq(&e, &one)));
        assert_eq!((*one).as_ref(), &*block(1, 500));
        drop((one, two));
        for n in 1..100 {
            slots.insert(n, block(n, 500));
            slots.insert(100 - n, block(n, 500));
        }
        assert!(slots.get(0).is_none());
    }

    #[test]
    fn a_full_cache_admits_what_is_missed_often() {
        let cache = Cache::new(64 << 10);
        let slots = cache.slots(1000);
        assert!(!slots.admits(8 << 10) && !Cache::new(0).slots(1).admits(1));
        for n in 0..50 {
            assert!(slots.get(n).is_none() && slots.admits(1000));
            slots.insert(n, block(n, 1000));
        }
        (50..100).for_each(|n| drop(slots.insert(n, block(n, 1000))));
        let admitted = (200..1000).filter(|&n| slots.get(n).is_none() && slots.admits(1000)).count();
        assert!((10..45).contains(&admitted), "{admitted} of 800");
        // There is room again.
        drop(slots);
        let slots = cache.slots(10);
        slots.insert(0, block(0, 1000));
        assert!((1..10).all(|n| slots.get(n).is_none() && slots.admits(1000)));
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
    fn what_goes_leaves_its_memory_to_what_comes() {
        let cache = Cache::new(256 << 10);
        let slots = cache.slots(1000);
        let insert = |n: usize| slots.insert(n, slots.buffer(1000 + n % 20)).as_ref().as_ref().as_ptr();
        let first: Vec<*const u8> = (0..300).map(insert).collect();
        assert!(cache.stats().bytes as usize > 240 << 10);
        assert!((300..600).all(|n| first.contains(&insert(n))));
        // For what has another size there is other memory, and soon that is kept.
        let large = |n: usize| slots.insert(n, slots.buffer(3000)).as_ref().as_ref().as_ptr();
        let second: Vec<*const u8> = (600..800).map(large).collect();
        assert!((800..900).all(|n| second.contains(&large(n))));
        let spare = |cache: &Cache| cache.spare.lock().len();
        assert_eq!(spare(&cache), SPARES);
        cache.trim();
        assert_eq!((spare(&cache), slots.buffer(1).len()), (0, 1));
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
    fn it_gives_way_to_others_and_counts_what_readers_hold() {
        let budget = Budget::new(100 << 10, 10);
        let cache = Cache::within(&budget, 64 << 10);
        let slots = cache.slots(200);
        let tables = budget.used(Use::Tables);
        let blocks = || budget.used(Use::Blocks);
        let read: Vec<Arc<Entry>> = (0..20).map(|n| slots.insert(n, block(n, 1000))).collect();
        for n in 20..200 {
            slots.insert(n, block(n, 1000));
            assert!(budget.total() <= budget.limit());
        }
        assert!(blocks() >= (55 << 10) && cache.stats().bytes as usize <= 64 << 10);
        // What a reader holds stays in its slot as long as others can go: it costs nothing there.
        assert!((0..20).all(|n| slots.get(n).is_some()));
        let mut others = budget.share(Use::Jobs);
        others.grow(70 << 10);
        cache.trim();
        assert!(budget.total() <= budget.limit(), "{budget:?}");
        assert!(blocks() >= 20 * 1000);
        // Nothing is left for the cache, but blocks can be read.
        others.grow(30 << 10);
        cache.trim();
        assert_eq!((cache.stats().bytes, cache.stats().entries), (0, 0));
        assert_eq!(blocks(), 20 * (1000 + OVERHEAD));
        assert_eq!((*slots.insert(50, block(50, 1000))).as_ref(), &*block(50, 1000));
        assert!(slots.get(50).is_none());
        drop(read);
        assert_eq!(blocks(), 0);
        drop(others);
        slots.insert(50, block(50, 1000));
        assert!(slots.get(50).is_some());
        drop(slots);
        assert!(tables > 0 && budget.total() == 0, "{budget:?}");
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
