//! The memory of a memtable: records and tree nodes, bump-allocated, freed together when the
//! memtable is dropped.
//!
//! Memory comes in chunks. Small memtables take small chunks, each twice as large as the one before
//! up to [`MAX_CHUNK`]; a large record gets one of its own. Records are named by 32 bits ([`Ref`]),
//! looked up in a table of chunks; nodes by their address. Chunks of full size go to the next
//! memtable through a [`Pool`]: memory fresh from the system costs a page fault each 4 KiB, which
//! can be a third of what an insert costs.
//!
//! ```text
//! record, at a multiple of eight:
//! offset  size  field
//!      0     8  trailer
//!      8     4  lengths: bit 31 says that an older version follows, bits 20 to 30 are the key's
//!               length and bits 0 to 19 the value's; all of bits 20 to 30: they are too long for that
//!     12     8  only if too long: key length, value length
//!      -    16  only with an older version: older, jump, depth, oldest (see `Chain`)
//!      -     -  key, value
//! ```

use crate::budget::{Budget, Use};
use crate::key::{MAX_KEY_LEN, MAX_VALUE_LEN, Trailer};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicPtr, Ordering};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::num::NonZeroU32;
use std::ptr::{self, NonNull};
use std::sync::Arc;

/// The largest chunk that records share.
const MAX_CHUNK: usize = 1 << 20;
/// The first chunk.
const MIN_CHUNK: usize = 1 << 10;
/// A record larger than this gets a chunk of its own, rather than end a shared one early.
const LARGE: usize = MAX_CHUNK / 8;
/// Records start at multiples of this many bytes; a [`Ref`] counts them.
const GRAIN: usize = 8;
/// Bits of a [`Ref`] that say where in its chunk a record starts; the others are the chunk's.
const OFFSET_BITS: u32 = (MAX_CHUNK / GRAIN).trailing_zeros();
/// As many chunks of records as a [`Ref`] can name. Each holds [`LARGE`] bytes at least, but for the
/// first few.
const MAX_CHUNKS: usize = 1 << (32 - OFFSET_BITS);
/// What a memtable can hold for sure, beside one batch of the largest size.
pub(super) const MAX_BYTES: usize = MAX_CHUNKS / 2 * LARGE;
/// Marks the lengths of a record that has an older version.
const OLDER: u32 = 1 << 31;
/// Bits of the lengths that are the value's.
const VALUE_BITS: u32 = 20;
/// A key length from here on is too long for a short record.
const LONG_KEY: u32 = (OLDER >> VALUE_BITS) - 1;
/// What lengths take that are too long for that.
const LONG: usize = size_of::<[u32; 2]>();
/// What a record begins with, at least.
const TOP: usize = std::mem::offset_of!(RecordTop, lens) + size_of::<u32>();

/// What chunks are made of: nodes start at these.
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "only its size and alignment count")] [u8; 64]);

type Lines = Box<[MaybeUninit<Line>]>;

/// What every chunk starts with. Takes one line.
struct Chunk {
    /// The chunk made before this one.
    next: *mut Chunk,
    /// Of the whole chunk, in lines.
    lines: usize,
}

const HEADER: usize = size_of::<Line>();

/// Where memtables have their memory from: counted, and kept for the next one where that is no more than
/// the budget allows.
#[derive(Debug)]
pub(crate) struct Pool {
    /// The most bytes to keep.
    limit: usize,
    budget: Arc<Budget>,
    chunks: Mutex<Vec<Lines>>,
}

impl Default for Pool {
    /// Keeps nothing, and counts for nobody.
    fn default() -> Pool {
        Pool { limit: 0, budget: Budget::unlimited(), chunks: Mutex::new(Vec::new()) }
    }
}

impl Pool {
    /// An empty pool that will keep up to `limit` bytes.
    pub fn new(limit: usize, budget: &Arc<Budget>) -> Arc<Pool> {
        Arc::new(Pool { limit, budget: budget.clone(), chunks: Mutex::new(Vec::new()) })
    }

    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// The bytes kept now.
    #[cfg(all(test, not(loom)))]
    pub fn bytes(&self) -> usize {
        self.chunks.lock().len() * MAX_CHUNK
    }

    /// Gives back to the system what exceeds `keep` bytes.
    pub fn shrink(&self, keep: usize) {
        let mut chunks = self.chunks.lock();
        let from = chunks.len().min(keep / MAX_CHUNK);
        let spare = chunks.split_off(from);
        drop(chunks);
        self.budget.shrink(Use::Memtables, spare.len() * MAX_CHUNK);
        drop(spare);
    }

    fn take(&self, lines: usize) -> Lines {
        let bytes = lines * size_of::<Line>();
        let kept = if bytes == MAX_CHUNK { self.chunks.lock().pop() } else { None };
        kept.unwrap_or_else(|| {
            self.budget.grow(Use::Memtables, bytes);
            Box::new_uninit_slice(lines)
        })
    }

    fn put(&self, chunk: Lines) {
        let bytes = size_of_val(&*chunk);
        if bytes == MAX_CHUNK && self.budget.total() <= self.budget.limit() {
            let mut chunks = self.chunks.lock();
            if (chunks.len() + 1) * MAX_CHUNK <= self.limit {
                chunks.push(chunk);
                return;
            }
        }
        drop(chunk);
        self.budget.shrink(Use::Memtables, bytes);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

/// The readers' side: resolves [`Ref`]s, and frees everything in the end.
pub(super) struct Arena {
    /// The addresses of the record chunks. Replaced by a larger copy when full.
    table: AtomicPtr<*const u8>,
    /// Every allocation, newest first.
    chunks: AtomicPtr<Chunk>,
    pool: Option<Arc<Pool>>,
}

/// The writer's side: allocates. There is one for each arena.
pub(super) struct Allocator {
    records: Bump,
    nodes: Bump,
    /// The number of the chunk that records come from.
    current: usize,
    /// The newest table of the arena, how many chunks it names, and how many it could.
    table: *mut *const u8,
    named: usize,
    capacity: usize,
    /// The size of all chunks.
    bytes: usize,
}

// SAFETY: the pointers lead into memory of the arena that only this allocator hands out.
unsafe impl Send for Allocator {}

/// The unused rest of a chunk.
struct Bump {
    base: *mut u8,
    at: usize,
    end: usize,
    /// The chunk after this one.
    next_size: usize,
}

/// Where a record lies: chunk and offset. Means something only to the arena that made it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(super) struct Ref(NonZeroU32);

impl Ref {
    #[inline]
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// What [`Ref::get`] gave away, back again.
    #[inline]
    pub fn from_u32(n: u32) -> Ref {
        // The first bytes of each chunk are its own: no record lies at zero.
        Ref(NonZeroU32::new(n).expect("a slot that was published holds a record"))
    }
}

#[repr(C)]
struct RecordTop {
    /// Lets loom see who wrote and who reads this record.
    #[cfg(loom)]
    track: loom::cell::UnsafeCell<()>,
    trailer: Trailer,
    lens: u32,
}

/// Where the parts of a record lie.
#[derive(Clone, Copy)]
struct Shape {
    chain: usize,
    key: usize,
    key_len: usize,
    value_len: usize,
}

/// The two lengths as a short record has them; `None`: they are too long.
#[inline]
fn short(key_len: usize, value_len: usize) -> Option<u32> {
    let short = key_len < LONG_KEY as usize && value_len < 1 << VALUE_BITS;
    short.then_some((key_len as u32) << VALUE_BITS | value_len as u32)
}

/// How a record leads to the older versions of its key. A first version has none.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Chain {
    /// The version before this one.
    pub older: Ref,
    /// Some version further back, chosen by depth so that any version is found in logarithmic time
    /// (Myers' random-access list).
    pub jump: Ref,
    /// How many versions are older.
    pub depth: u32,
    /// The first version.
    pub oldest: Ref,
}

/// An entry, written once.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    top: NonNull<RecordTop>,
    arena: PhantomData<&'a Arena>,
}

/// A [`Record`] without the borrow: for who owns a share of the memtable.
#[derive(Clone, Copy)]
pub(super) struct RawRecord(NonNull<RecordTop>);

// SAFETY: what it leads to never changes.
unsafe impl Send for RawRecord {}
// SAFETY: likewise.
unsafe impl Sync for RawRecord {}

impl RawRecord {
    /// The record again.
    ///
    /// # Safety
    /// The arena lives as long as `'a`.
    #[inline]
    pub unsafe fn record<'a>(self) -> Record<'a> {
        Record { top: self.0, arena: PhantomData }
    }
}

/// Asks the processor to fetch the line at `at`, if it can; changes nothing.
#[inline]
pub(super) fn prefetch<T>(at: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch is a hint: it may be given any address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = at;
}

impl<'a> Record<'a> {
    #[inline]
    fn top(self) -> &'a RecordTop {
        // SAFETY: a `Record` is only made for a record that is completely written; it does not
        // change and lives as long as the arena.
        unsafe { self.top.as_ref() }
    }

    #[inline]
    pub fn trailer(self) -> Trailer {
        self.top().trailer
    }

    /// The bytes `from..from + len` of the record.
    #[inline]
    fn bytes(self, from: usize, len: usize) -> &'a [u8] {
        // SAFETY: the callers pass what `Allocator::record` wrote with these lengths.
        unsafe { std::slice::from_raw_parts(self.top.as_ptr().cast::<u8>().add(from), len) }
    }

    #[inline]
    fn shape(self) -> Shape {
        let lens = self.top().lens;
        let (key_len, value_len) = ((lens & !OLDER) >> VALUE_BITS, lens & ((1 << VALUE_BITS) - 1));
        let (chain, key_len, value_len) = match key_len == LONG_KEY {
            false => (TOP, key_len, value_len),
            true => {
                // SAFETY: those bits say that `Allocator::record` wrote both lengths behind the top.
                let [key_len, value_len] = unsafe { self.top.byte_add(TOP).cast::<[u32; 2]>().read() };
                (TOP + LONG, key_len, value_len)
            }
        };
        let key = chain + if lens & OLDER == 0 { 0 } else { size_of::<Chain>() };
        Shape { chain, key, key_len: key_len as usize, value_len: value_len as usize }
    }

    #[inline]
    pub fn key(self) -> &'a [u8] {
        let shape = self.shape();
        self.bytes(shape.key, shape.key_len)
    }

    #[inline]
    pub fn value(self) -> &'a [u8] {
        let shape = self.shape();
        self.bytes(shape.key + shape.key_len, shape.value_len)
    }

    #[inline]
    pub fn raw(self) -> RawRecord {
        RawRecord(self.top)
    }

    /// Where the record lies, to prefetch it.
    #[inline]
    pub fn address(self) -> *const u8 {
        self.top.as_ptr().cast_const().cast()
    }

    #[inline]
    pub fn chain(self) -> Option<Chain> {
        if self.top().lens & OLDER == 0 {
            return None;
        }
        // SAFETY: the bit says that `Allocator::record` wrote a chain behind the lengths, where it is
        // aligned.
        Some(unsafe { self.top.byte_add(self.shape().chain).cast::<Chain>().read() })
    }
}

impl Arena {
    /// An arena and the only allocator for it. Allocates nothing yet.
    pub fn new(pool: Option<Arc<Pool>>) -> (Arena, Allocator) {
        let null = ptr::null_mut();
        let arena = Arena { table: AtomicPtr::new(null), chunks: AtomicPtr::new(ptr::null_mut()), pool };
        let bump = |next_size| Bump { base: ptr::null_mut(), at: 0, end: 0, next_size };
        let allocator = Allocator {
            records: bump(MIN_CHUNK),
            nodes: bump(MIN_CHUNK),
            current: 0,
            table: ptr::null_mut(),
            named: 0,
            capacity: 0,
            bytes: 0,
        };
        (arena, allocator)
    }

    /// The record at `r`.
    ///
    /// # Safety
    /// `r` was made by this arena's allocator, and reached this thread by an acquiring load of what
    /// the writer released after making it.
    #[inline]
    pub unsafe fn record(&self, r: Ref) -> Record<'_> {
        let (chunk, offset) = (r.get() >> OFFSET_BITS, r.get() & ((1 << OFFSET_BITS) - 1));
        let table = self.table.load(Ordering::Acquire);
        // SAFETY: the table that names the chunk was stored before `r` was published, so this load
        // sees it or a longer one; its entries do not change once named. The offset lies in the
        // chunk, at a record's start.
        let top = unsafe {
            let base = *table.add(chunk as usize);
            NonNull::new_unchecked(base.add(offset as usize * GRAIN).cast_mut().cast::<RecordTop>())
        };
        let record = Record { top, arena: PhantomData };
        #[cfg(loom)]
        record.top().track.with(|_| ());
        record
    }

    /// A chunk of `size` bytes, its header included, and a multiple of a line.
    fn chunk(&self, size: usize) -> *mut u8 {
        let lines = size / size_of::<Line>();
        debug_assert!(lines > 1 && size.is_multiple_of(size_of::<Line>()));
        let memory = match &self.pool {
            Some(pool) => pool.take(lines),
            None => Box::new_uninit_slice(lines),
        };
        let chunk = Box::into_raw(memory).cast::<Chunk>();
        // SAFETY: at least one line is there, which is large enough and aligned for the header.
        unsafe { chunk.write(Chunk { next: self.chunks.load(Ordering::Relaxed), lines }) };
        // Only the writer comes here, and only the drop reads the list.
        self.chunks.store(chunk, Ordering::Release);
        chunk.cast()
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        const { assert!(size_of::<Chunk>() <= size_of::<Line>() && align_of::<Chunk>() <= align_of::<Line>()) };
        let mut chunk = self.chunks.load(Ordering::Acquire);
        while !chunk.is_null() {
            // SAFETY: the list holds each chunk once, as it was taken out of a box of as many lines;
            // nobody else has the arena anymore.
            let memory = unsafe {
                let Chunk { next, lines } = chunk.read();
                let memory = ptr::slice_from_raw_parts_mut(chunk.cast::<MaybeUninit<Line>>(), lines);
                chunk = next;
                Box::from_raw(memory)
            };
            match &self.pool {
                Some(pool) => pool.put(memory),
                None => drop(memory),
            }
        }
    }
}

impl Bump {
    /// Room for `size` bytes at a multiple of `align`; `None` if the chunk is too small.
    #[inline]
    fn take(&mut self, size: usize, align: usize) -> Option<usize> {
        let at = self.at.next_multiple_of(align);
        if self.end < at + size {
            return None;
        }
        self.at = at + size;
        Some(at)
    }

    /// Takes up a new chunk with room for `size` bytes at least. Answers how large it is.
    #[cold]
    fn refill(&mut self, arena: &Arena, size: usize) -> usize {
        let size = self.next_size.max((HEADER + size).next_power_of_two());
        self.base = arena.chunk(size);
        (self.at, self.end) = (HEADER, size);
        self.next_size = (size * 2).min(MAX_CHUNK);
        size
    }
}

impl Allocator {
    /// The memory taken so far.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes a record. Readers do not see it before its reference is published.
    #[inline]
    pub fn record(
        &mut self,
        arena: &Arena,
        key: &[u8],
        trailer: Trailer,
        value: &[u8],
        chain: Option<Chain>,
    ) -> Ref {
        assert!(key.len() <= MAX_KEY_LEN && value.len() <= MAX_VALUE_LEN, "the batch checked the limits");
        let lens = short(key.len(), value.len());
        let long_len = if lens.is_none() { LONG } else { 0 };
        let chain_len = if chain.is_some() { size_of::<Chain>() } else { 0 };
        let size = TOP + long_len + chain_len + key.len() + value.len();
        let size = size.max(size_of::<RecordTop>()).next_multiple_of(GRAIN);
        let (base, chunk, at) = match self.records.take(size, GRAIN) {
            Some(at) => (self.records.base, self.current, at),
            None => self.more_records(arena, size),
        };
        let older = if chain.is_some() { OLDER } else { 0 };
        let top = RecordTop {
            #[cfg(loom)]
            track: loom::cell::UnsafeCell::new(()),
            trailer,
            lens: lens.unwrap_or(LONG_KEY << VALUE_BITS) | older,
        };
        // SAFETY: `size` bytes at `at` of the chunk were just taken for this record alone, and are enough
        // for its top even where that ends in padding.
        unsafe {
            let to = base.add(at);
            to.cast::<RecordTop>().write(top);
            #[cfg(loom)]
            (*to.cast::<RecordTop>()).track.with_mut(|_| ());
            let mut to = to.add(TOP);
            if lens.is_none() {
                to.cast::<[u32; 2]>().write([key.len() as u32, value.len() as u32]);
                to = to.add(LONG);
            }
            if let Some(chain) = chain {
                to.cast::<Chain>().write(chain);
                to = to.add(chain_len);
            }
            ptr::copy_nonoverlapping(key.as_ptr(), to, key.len());
            ptr::copy_nonoverlapping(value.as_ptr(), to.add(key.len()), value.len());
        }
        Ref::from_u32((chunk << OFFSET_BITS) as u32 | (at / GRAIN) as u32)
    }

    /// Room for a record of `size` bytes in a new chunk: the chunk, its number, the offset in it.
    #[cold]
    fn more_records(&mut self, arena: &Arena, size: usize) -> (*mut u8, usize, usize) {
        if size > LARGE {
            // The current chunk goes on being filled.
            let size = (HEADER + size).next_multiple_of(size_of::<Line>());
            let base = arena.chunk(size);
            self.bytes += size;
            return (base, self.name(arena, base), HEADER);
        }
        self.bytes += self.records.refill(arena, size);
        self.current = self.name(arena, self.records.base);
        let at = self.records.take(size, GRAIN).expect("the new chunk has room");
        (self.records.base, self.current, at)
    }

    /// Gives a chunk of records the next number.
    fn name(&mut self, arena: &Arena, base: *mut u8) -> usize {
        assert!(self.named < MAX_CHUNKS, "a memtable is flushed before it holds MAX_BYTES");
        if self.named == self.capacity {
            let capacity = (self.capacity * 2).max(8);
            let size = HEADER + capacity * size_of::<*const u8>();
            // SAFETY: the new table has room for all of the old one's entries; they do not overlap.
            // Readers of the old table find it as it was: it is freed with the arena.
            unsafe {
                let table = arena.chunk(size).add(HEADER).cast::<*const u8>();
                if self.named > 0 {
                    ptr::copy_nonoverlapping(self.table, table, self.named);
                }
                self.table = table;
            }
            self.capacity = capacity;
            self.bytes += size;
        }
        // SAFETY: below the capacity. No reader looks at this entry before a record in the chunk is
        // published.
        unsafe { self.table.add(self.named).write(base) };
        arena.table.store(self.table, Ordering::Release);
        self.named += 1;
        self.named - 1
    }

    /// Uninitialized memory for one `T` (a tree node), for as long as the arena lives. `T` is not
    /// dropped.
    pub fn node<T>(&mut self, arena: &Arena) -> NonNull<T> {
        const { assert!(align_of::<T>() <= align_of::<Line>()) };
        let (size, align) = (size_of::<T>(), align_of::<T>());
        let at = self.nodes.take(size, align).unwrap_or_else(|| {
            self.bytes += self.nodes.refill(arena, size);
            self.nodes.take(size, align).expect("the new chunk has room")
        });
        // SAFETY: inside of the chunk, so not null.
        unsafe { NonNull::new_unchecked(self.nodes.base.add(at).cast()) }
    }
}
