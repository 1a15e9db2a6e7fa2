//! Bytes as choices: what a fuzz target draws from its input, and damage made of it.
//!
//! An input that ends goes on as zeros, so every input means something. Nothing here knows the rest of the crate: the operation targets, which
//! see Esker from outside, include this file as it is.

use std::ops::Range;

/// Draws from a fuzz input, front to back.
#[derive(Clone)]
pub(crate) struct Choices<'a> {
    bytes: &'a [u8],
}

impl<'a> Choices<'a> {
    pub fn new(bytes: &'a [u8]) -> Choices<'a> {
        Choices { bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// A number below `n`; of one byte if that is enough.
    pub fn below(&mut self, n: usize) -> usize {
        let drawn = match n {
            0..=0x100 => u32::from(self.byte()),
            0x101..=0x1_0000 => u32::from_le_bytes([self.byte(), self.byte(), 0, 0]),
            _ => u32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()]),
        };
        drawn as usize % n.max(1)
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'b, T>(&mut self, from: &'b [T]) -> &'b T {
        &from[self.below(from.len())]
    }

    /// A number of the kind that breaks things: small, near a power of two, or anything.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..128 => small.into(),
            at @ 128..192 => (1u64 << (at - 128)).wrapping_sub(1),
            at @ 192..=254 => 1 << (at - 192),
            255 => {
                let mut n = [0; 8];
                n.iter_mut().for_each(|b| *b = self.byte());
                u64::from_le_bytes(n)
            }
        }
    }

    /// The next `n` bytes, or what is left.
    pub fn take(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at(n.min(self.bytes.len()));
        self.bytes = rest;
        taken
    }

    /// At most 255 bytes, often few.
    pub fn some(&mut self) -> &'a [u8] {
        let n = self.byte();
        self.take(if n < 192 { n % 16 } else { n }.into())
    }

    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }
}

/// A place in `hot`, which is not empty.
fn place(input: &mut Choices<'_>, hot: &[Range<usize>]) -> usize {
    let range = input.pick(hot).clone();
    range.start + input.below(range.len().max(1))
}

/// One piece of damage that every checksum notices whoever chose it: a burst of at most 32 bits, a
/// stretch of one byte, a cut, or a stretch that belongs elsewhere. Around `hot` places. Answers the
/// bytes from where on nothing need be as it was, and whether it was a burst.
pub(crate) fn hurt(input: &mut Choices<'_>, bytes: &mut Vec<u8>, hot: &[Range<usize>]) -> (usize, bool) {
    let at = place(input, hot).min(bytes.len());
    let left = bytes.len() - at;
    match input.byte() % 8 {
        0 => bytes.truncate(at),
        1 => {
            let (fill, len) = (*input.pick(&[0, 0xff, 1]), 1 + input.below(1 << 10));
            bytes[at..at + len.min(left)].fill(fill);
        }
        2 => {
            let (from, len) = (place(input, hot).min(bytes.len()), 8 + input.below(1 << 10));
            let len = len.min(left).min(bytes.len() - from);
            bytes.copy_within(from..from + len, at);
        }
        _ => {
            for (byte, flip) in bytes[at..].iter_mut().zip(input.take(4)) {
                *byte ^= flip;
            }
            return (at, true);
        }
    }
    (at, false)
}

/// Any edits whatever, around `hot` places, until the input says stop.
pub(crate) fn edit(input: &mut Choices<'_>, bytes: &mut Vec<u8>, hot: &[Range<usize>]) {
    for _ in 0..16 {
        if input.is_empty() || bytes.is_empty() {
            return;
        }
        let kind = input.byte() % 10;
        let at = place(input, hot).min(bytes.len() - 1);
        let left = bytes.len() - at;
        let mut put = |new: &[u8]| {
            let len = new.len().min(left);
            bytes[at..at + len].copy_from_slice(&new[..len]);
        };
        match kind {
            0 => bytes[at] = input.byte(),
            1 => bytes[at] ^= 1 << (input.byte() % 8),
            2 => put(&(input.number() as u16).to_le_bytes()),
            3 => put(&(input.number() as u32).to_le_bytes()),
            4 => put(&input.number().to_le_bytes()),
            5 => put(input.some()),
            6 => drop(bytes.drain(at..at + (1 + input.below(64)).min(left))),
            7 => drop(bytes.splice(at..at, input.some().iter().copied())),
            8 => {
                let (from, len) = (place(input, hot).min(bytes.len()), 1 + input.below(256));
                let len = len.min(left).min(bytes.len() - from);
                bytes.copy_within(from..from + len, at);
            }
            _ => return,
        }
    }
}
