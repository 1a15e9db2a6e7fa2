//! Memory for one compressed block, of which a point read undoes as much as it needs. Each thread keeps some.

use std::cell::Cell;

/// More is not kept: there may be many threads, and nobody counts it.
const KEPT: usize = 64 << 10;

/// Buffers that only grow.
#[derive(Default)]
pub(crate) struct Scratch {
    /// What is stored, where there is no map.
    pub stored: Vec<u8>,
    pub contents: Vec<u8>,
}

thread_local! {
    static SPARE: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

impl Scratch {
    /// The thread's own, if nobody has it, until it is [given back](Scratch::give_back).
    pub fn take() -> Box<Scratch> {
        SPARE.try_with(Cell::take).ok().flatten().unwrap_or_default()
    }

    pub fn give_back(self: Box<Scratch>) {
        if self.stored.capacity() + self.contents.capacity() <= KEPT {
            // A thread that ends keeps nothing.
            let _ = SPARE.try_with(|spare| spare.set(Some(self)));
        }
    }
}
