//! A snapshot as bytes: made from a view while they are read, from any place on.

use super::{MAGIC, Sum};
use crate::state::DATA;
use esker::{Iter, KeyspaceView, Prefix};
use std::io;

/// Bytes made at a time.
const CHUNK: usize = 64 << 10;
/// Bytes between places from which reading can go on.
const STRIDE: u64 = 4 << 20;

/// Where the bytes of a row begin.
struct Place {
    at: u64,
    /// Of what is before them.
    sum: Sum,
    key: Vec<u8>,
}

/// A snapshot that is sent.
pub(super) struct Sender {
    view: KeyspaceView,
    /// Where the next byte is read.
    pub(super) pos: u64,
    /// Made, and not let go of yet.
    made: Vec<u8>,
    made_at: u64,
    /// Of what was made.
    sum: Sum,
    iter: Option<Iter>,
    ended: bool,
    places: Vec<Place>,
    len: Option<u64>,
}

impl Sender {
    pub(super) fn new(view: KeyspaceView) -> Sender {
        Sender {
            view,
            pos: 0,
            made: Vec::new(),
            made_at: 0,
            sum: Sum::default(),
            iter: None,
            ended: false,
            places: Vec::new(),
            len: None,
        }
    }

    /// The bytes from `pos` on that are there now; makes some if there are none. Empty: the end.
    pub(super) fn bytes(&mut self) -> io::Result<&[u8]> {
        if self.pos < self.made_at || self.pos > self.made_at + self.made.len() as u64 {
            self.go_to(self.pos);
        }
        while self.pos >= self.made_at + self.made.len() as u64 && !self.ended {
            self.make()?;
        }
        let from = usize::try_from(self.pos - self.made_at).unwrap_or(usize::MAX);
        Ok(self.made.get(from..).unwrap_or_default())
    }

    /// Goes on from the last known place at or before `pos`.
    fn go_to(&mut self, pos: u64) {
        let place = self.places.iter().rfind(|place| place.at <= pos);
        let (at, sum) = place.map_or_else(Default::default, |place| (place.at, place.sum));
        self.iter = place.map(|place| self.view.range(place.key.clone()..vec![DATA + 1]));
        (self.made_at, self.sum, self.ended) = (at, sum, false);
        self.made.clear();
    }

    /// Makes some bytes in place of those that are there.
    fn make(&mut self) -> io::Result<()> {
        self.made_at += self.made.len() as u64;
        self.made.clear();
        if self.made_at == 0 {
            self.made.extend_from_slice(MAGIC);
            self.sum.add(MAGIC);
            self.iter = None;
        }
        let iter = self.iter.get_or_insert_with(|| self.view.range(Prefix([DATA])));
        while self.made.len() < CHUNK {
            let Some(row) = iter.next() else {
                self.made.extend_from_slice(&self.sum.head(0, 0));
                self.ended = true;
                self.len = Some(self.made_at + self.made.len() as u64);
                return Ok(());
            };
            let row = row?;
            let (key, value) = (row.key(), row.value());
            let at = self.made_at + self.made.len() as u64;
            if self.places.last().map_or(0, |place| place.at) + STRIDE <= at {
                self.places.push(Place { at, sum: self.sum, key: key.to_vec() });
            }
            // Both are within what the engine takes.
            self.made.extend_from_slice(&self.sum.head(key.len() as u32, value.len() as u32));
            for part in [key, value] {
                self.sum.add(part);
                self.made.extend_from_slice(part);
            }
        }
        Ok(())
    }

    /// How many bytes there are: one walk over the view, if that is not known yet.
    pub(super) fn len(&mut self) -> io::Result<u64> {
        while self.len.is_none() {
            self.make()?;
        }
        Ok(self.len.unwrap_or_default())
    }
}
