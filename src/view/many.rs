//! Many keys at once: the memory that one get would wait for, step by step, is loaded for all of them side
//! by side.

use crate::error::Result;
use crate::ids::Seq;
use crate::key::hash;
use crate::table::{Opened, Pin, Table};
use crate::view::run::Run;
use crate::view::{Lookup, View, ask};

/// So many keys go from step to step together: more than the processor can have loads under way for.
const GROUP: usize = 32;

/// A key that nothing is known of yet.
#[derive(Clone, Copy, Default)]
struct Sought<'k> {
    /// Its place among the keys.
    at: usize,
    key: &'k [u8],
    hash: u64,
}

/// Where in a run a key may be.
#[derive(Default)]
struct Place<'r> {
    table: Option<&'r Table>,
    /// The first block that can hold it.
    block: usize,
    /// It was answered for.
    known: bool,
}

impl View {
    /// Looks `keys` up at `read`; hands each answer to `then`, with the key's place, in no order.
    pub fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        read: Seq,
        mut then: impl FnMut(usize, Lookup<'_>),
    ) -> Result<()> {
        for (n, group) in keys.chunks(GROUP).enumerate() {
            let mut sought = [Sought::default(); GROUP];
            let mut left = 0;
            for (i, key) in group.iter().enumerate() {
                let (key, at) = (key.as_ref(), n * GROUP + i);
                let hash = hash(key);
                match self.in_memory(key, hash, read) {
                    Some(lookup) => then(at, lookup),
                    None => {
                        sought[left] = Sought { at, key, hash };
                        left += 1;
                    }
                }
            }
            for run in &self.runs {
                left = run.get_many(&mut sought[..left], read, &mut then)?;
            }
            sought[..left].iter().for_each(|s| then(s.at, Lookup::Nothing));
        }
        Ok(())
    }
}

impl Run {
    /// Answers for what it knows of, and keeps the others, in front: so many.
    fn get_many(
        &self,
        sought: &mut [Sought<'_>],
        read: Seq,
        then: &mut impl FnMut(usize, Lookup<'_>),
    ) -> Result<usize> {
        let mut places: [Place<'_>; GROUP] = Default::default();
        for (s, place) in sought.iter().zip(&mut places) {
            let Some(table) = self.find(s.key) else { continue };
            match table.handle.table()? {
                Opened::Kept(table) => {
                    table.prefetch_filter(s.hash);
                    place.table = Some(table);
                }
                // Open for this key alone, so no others are opened meanwhile.
                Opened::Passing(table) => {
                    let mut pin = Pin::default();
                    let lookup = ask(&table, self.range_deletes, s.key, s.hash, read, &mut pin)?;
                    place.known = lookup.map(|lookup| then(s.at, lookup)).is_some();
                }
            }
        }
        if !self.range_deletes {
            self.find_blocks(sought, &mut places);
        }
        let mut left = 0;
        for (i, place) in places.iter().enumerate().take(sought.len()) {
            let (s, mut pin) = (sought[i], Pin::default());
            if place.known {
                continue;
            }
            let known = match place.table {
                None => None,
                Some(table) if self.range_deletes => ask(table, true, s.key, s.hash, read, &mut pin)?,
                Some(table) => {
                    let found = table.get_from(place.block, s.key, s.hash, read, &mut pin)?;
                    found.map(|found| Lookup::of(Some(found), None))
                }
            };
            match known {
                Some(lookup) => then(s.at, lookup),
                None => {
                    sought[left] = s;
                    left += 1;
                }
            }
        }
        Ok(left)
    }

    /// Leaves those tables whose filters let the keys pass, and names the blocks.
    fn find_blocks(&self, sought: &[Sought<'_>], places: &mut [Place<'_>; GROUP]) {
        for (s, place) in sought.iter().zip(&mut *places) {
            place.table = place.table.take().filter(|table| table.passes(s.hash));
            if let Some(table) = place.table {
                table.index().prefetch(s.key);
            }
        }
        for (s, place) in sought.iter().zip(places) {
            if let Some(table) = place.table {
                place.block = table.index().find(s.key);
                table.prefetch_block(place.block);
            }
        }
    }
}
