//! The bytes of one simulated file: a sparse map of sectors, cheap to copy, over what shows where
//! nothing was ever written.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// What a disk writes at once.
pub(super) const SECTOR: usize = 512;

pub(super) type Sector = [u8; SECTOR];

/// Scrambles two numbers into one (the finisher of splitmix64).
pub(super) fn mix(a: u64, b: u64) -> u64 {
    let mut z = a ^ b.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A small generator; the same seed gives the same numbers.
#[derive(Clone, Debug)]
pub(super) struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0, 0)
    }

    /// A number below `n`; 0 if there is none.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// True `eighths` times out of eight.
    pub fn coin(&mut self, eighths: u64) -> bool {
        self.next() % 8 < eighths
    }
}

/// Seeded garbage for one sector.
pub(super) fn noise(seed: u64, no: u64) -> Sector {
    let mut rng = Rng(mix(seed, no));
    let mut out = [0; SECTOR];
    for word in out.chunks_exact_mut(8) {
        word.copy_from_slice(&rng.next().to_le_bytes());
    }
    out
}

/// What shows where a file was never written. Zeros need no `Fill`.
#[derive(Clone, Debug)]
pub(super) enum Fill {
    /// Garbage from this seed.
    Noise(u64),
    /// What another file once held at the same place.
    Old(Arc<Content>),
    /// Each sector one of zeros, garbage and another file's.
    Mixed(u64, Option<Arc<Content>>),
}

impl Fill {
    fn sector(&self, no: u64) -> Sector {
        let written = |old: &Content| old.sectors.get(&no).map_or([0; SECTOR], |s| **s);
        match self {
            Fill::Noise(seed) => noise(*seed, no),
            Fill::Old(old) => written(old),
            Fill::Mixed(seed, old) => match (mix(*seed, no) % 3, old) {
                (0, _) => [0; SECTOR],
                (1, Some(old)) => written(old),
                _ => noise(*seed, no),
            },
        }
    }
}

/// The bytes of a file. Nothing is ever held beyond `len`.
#[derive(Clone, Default, Debug)]
pub(super) struct Content {
    pub len: u64,
    /// What was written, by sector number. Bytes of a sector beyond `len` are zero.
    pub sectors: BTreeMap<u64, Arc<Sector>>,
    /// What shows elsewhere, in ascending order of place; zeros where nothing is said.
    stale: Vec<(Range<u64>, Fill)>,
}

/// Cuts `len` bytes at `offset` at sector borders: sector, place in the sector, place in the bytes.
pub(super) fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, Range<usize>, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let start = (at % SECTOR as u64) as usize;
        let n = (SECTOR - start).min(len - done);
        let piece = (at / SECTOR as u64, start..start + n, done..done + n);
        done += n;
        (n > 0).then_some(piece)
    })
}

impl Content {
    /// What a read of this sector shows.
    pub fn sector(&self, no: u64) -> Sector {
        if let Some(sector) = self.sectors.get(&no) {
            return **sector;
        }
        let mut out = [0; SECTOR];
        let first = no * SECTOR as u64;
        for (range, fill) in &self.stale {
            let start = range.start.max(first);
            let end = range.end.min(first + SECTOR as u64);
            if start < end {
                let part = (start - first) as usize..(end - first) as usize;
                out[part.clone()].copy_from_slice(&fill.sector(no)[part]);
            }
        }
        out
    }

    pub fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let n = buf.len().min(left);
        let buf = &mut buf[..n];
        if n == 0 {
            return 0;
        }
        if self.stale.is_empty() {
            buf.fill(0);
            let first = offset / SECTOR as u64;
            let last = (offset + n as u64 - 1) / SECTOR as u64;
            for (&no, sector) in self.sectors.range(first..=last) {
                let start = (no * SECTOR as u64).max(offset);
                let end = ((no + 1) * SECTOR as u64).min(offset + n as u64);
                let from = (start - no * SECTOR as u64) as usize;
                let part = &sector[from..from + (end - start) as usize];
                buf[(start - offset) as usize..][..part.len()].copy_from_slice(part);
            }
        } else {
            for (no, part, to) in pieces(offset, n) {
                buf[to].copy_from_slice(&self.sector(no)[part]);
            }
        }
        n
    }

    /// Hands on each sector that shows anything but zeros.
    pub fn for_each_shown(&self, mut show: impl FnMut(u64, &Sector)) {
        let mut shown = |no, sector: &Sector| {
            if *sector != [0; SECTOR] {
                show(no, sector);
            }
        };
        if self.stale.is_empty() {
            return self.sectors.iter().for_each(|(no, sector)| shown(*no, sector));
        }
        // Anything may show anywhere.
        (0..self.len.div_ceil(SECTOR as u64)).for_each(|no| shown(no, &self.sector(no)));
    }

    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = vec![0; usize::try_from(self.len).unwrap_or(usize::MAX)];
        self.read(&mut out, 0);
        out
    }

    pub fn write(&mut self, offset: u64, data: &[u8]) {
        for (no, part, from) in pieces(offset, data.len()) {
            if !self.sectors.contains_key(&no) {
                let shown = self.sector(no);
                self.sectors.insert(no, Arc::new(shown));
            }
            if let Some(sector) = self.sectors.get_mut(&no) {
                Arc::make_mut(sector)[part].copy_from_slice(&data[from]);
            }
        }
        self.len = self.len.max(offset + data.len() as u64);
    }

    /// Makes `len` the length: what lies beyond is gone, and reads as zeros when it comes back.
    pub fn set_len(&mut self, len: u64) {
        self.sectors.split_off(&len.div_ceil(SECTOR as u64));
        let (last, keep) = (len / SECTOR as u64, (len % SECTOR as u64) as usize);
        if let Some(sector) = self.sectors.get_mut(&last)
            && sector[keep..].iter().any(|&b| b != 0)
        {
            Arc::make_mut(sector)[keep..].fill(0);
        }
        for (range, _) in &mut self.stale {
            range.end = range.end.min(len);
        }
        self.stale.retain(|(range, _)| range.start < range.end);
        self.len = len;
    }

    /// Whether there is space that was never written and still reads as zeros for that.
    pub fn has_blank_space(&self) -> bool {
        let written = self.sectors.len() as u64;
        written < self.len.div_ceil(SECTOR as u64) && self.blank().start < self.len
    }

    /// Lets `fill` show in all space never written that reads as zeros so far.
    pub fn fill_blank_space(&mut self, fill: Fill) {
        let blank = self.blank();
        if blank.start < blank.end {
            self.stale.push((blank, fill));
        }
    }

    /// Space that was never written and of which nothing is said.
    pub fn blank(&self) -> Range<u64> {
        self.stale.last().map_or(0, |(range, _)| range.end)..self.len
    }
}
