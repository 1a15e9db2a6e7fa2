//! Undoing LZ4, as far as is wanted and no further: a block's columns stand in the order in which
//! a reader needs them, so a seek can do with the keys, and the first few values.
//!
//! Reads the block format that `lz4_flex` writes. Lengths and offsets are held against both sides
//! at each step; whatever the input, nothing outside of it is read and nothing else is written.

use crate::error::{Error, Result};

/// How far a block has been undone: between two of its sequences.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Progress {
    from: usize,
    to: usize,
}

/// What is copied at once.
const CHUNK: usize = 32;
const HALF: usize = CHUNK / 2;
const WORD: usize = 8;
/// Of a word that repeats so many bytes: the length of the repetitions that are whole.
const WHOLE: [usize; WORD] = [0, 8, 8, 6, 8, 5, 6, 7];
/// What a match is at least.
const MIN_MATCH: usize = 4;

impl Progress {
    /// Bytes that are there.
    #[inline]
    pub fn done(&self) -> usize {
        self.to
    }

    /// Goes on until at least `want` bytes of `out` are there, or all if that are fewer. `stored` and
    /// `out` are those of the calls before; all of `out` is what `stored` must be undone to. What is
    /// behind [`done`](Progress::done) may be anything.
    pub fn decode(&mut self, stored: &[u8], out: &mut [u8], want: usize) -> Result<()> {
        match self.go(stored, out, want) {
            Some(()) => Ok(()),
            None => Err(Error::corruption("a block does not decompress")),
        }
    }

    fn go(&mut self, stored: &[u8], out: &mut [u8], want: usize) -> Option<()> {
        let Progress { mut from, mut to } = *self;
        // When all is there nothing but the end may follow.
        while to < want.min(out.len()) || (to == out.len() && from < stored.len()) {
            let token = *stored.get(from)?;
            from += 1;
            let mut literals = usize::from(token >> 4);
            if literals == 15 {
                literals += more(stored, &mut from)?;
            }
            if literals > 0 {
                copy_literals(stored, from, out, to, literals)?;
                from += literals;
                to += literals;
            }
            if from == stored.len() {
                // The last sequence has no match.
                break;
            }
            let offset = u16::from_le_bytes(*stored.get(from..)?.first_chunk()?);
            from += 2;
            let mut len = usize::from(token & 15) + MIN_MATCH;
            if len == 15 + MIN_MATCH {
                len += more(stored, &mut from)?;
            }
            copy_match(out, to, offset.into(), len)?;
            to += len;
        }
        *self = Progress { from, to };
        (to >= want.min(out.len())).then_some(())
    }
}

/// The rest of a length: bytes up to the first that is not 255.
#[inline]
fn more(stored: &[u8], from: &mut usize) -> Option<usize> {
    let mut sum = 0;
    loop {
        let byte = *stored.get(*from)?;
        *from += 1;
        sum += usize::from(byte);
        if byte != 255 {
            return Some(sum);
        }
    }
}

/// Copies `len` bytes, and up to a chunk more where there is room: lengths known beforehand need no call.
#[inline]
fn copy_literals(stored: &[u8], from: usize, out: &mut [u8], to: usize, len: usize) -> Option<()> {
    if len <= 2 * CHUNK
        && let Some(source) = stored.get(from..).and_then(|s| s.first_chunk::<{ 2 * CHUNK }>())
        && let Some(target) = out.get_mut(to..).and_then(|t| t.first_chunk_mut::<{ 2 * CHUNK }>())
    {
        target[..CHUNK].copy_from_slice(&source[..CHUNK]);
        if len > CHUNK {
            target[CHUNK..].copy_from_slice(&source[CHUNK..]);
        }
        return Some(());
    }
    let source = stored.get(from..)?.get(..len)?;
    out.get_mut(to..)?.get_mut(..len)?.copy_from_slice(source);
    Some(())
}

/// Copies `len` bytes that stand `offset` bytes before `to`; they may reach beyond it.
#[inline]
fn copy_match(out: &mut [u8], to: usize, offset: usize, len: usize) -> Option<()> {
    let start = to.checked_sub(offset).filter(|_| offset > 0)?;
    if to + len + HALF > out.len() || to < HALF {
        return copy_slowly(out, start, to, len);
    }
    let (mut at, end) = (to, to + len);
    if offset >= HALF {
        // Each half chunk is there before the next is read.
        while at < end {
            let half: [u8; HALF] = *out.get(at - offset..)?.first_chunk()?;
            *out.get_mut(at..)?.first_chunk_mut()? = half;
            at += HALF;
        }
        return Some(());
    }
    if offset >= WORD {
        while at < end {
            let word: [u8; WORD] = *out.get(at - offset..)?.first_chunk()?;
            *out.get_mut(at..)?.first_chunk_mut()? = word;
            at += WORD;
        }
        return Some(());
    }
    // What is repeated, as often as it goes into a word.
    let mut word = u64::from_le_bytes(*out.get(..to)?.last_chunk()?) >> (8 * (WORD - offset));
    let mut filled = offset;
    while filled < WORD {
        word |= word << (8 * filled);
        filled *= 2;
    }
    let whole = WHOLE[offset];
    while at < end {
        *out.get_mut(at..)?.first_chunk_mut()? = word.to_le_bytes();
        at += whole;
    }
    Some(())
}

/// The same where there is no room for more than is wanted.
#[cold]
fn copy_slowly(out: &mut [u8], start: usize, to: usize, len: usize) -> Option<()> {
    if len > out.len().checked_sub(to)? {
        return None;
    }
    // What is there repeats with the same period: each round can take all that was written.
    let (mut at, end) = (to, to + len);
    while at < end {
        let n = (end - at).min(at - start);
        out.copy_within(start..start + n, at);
        at += n;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Random(u64);

    impl Random {
        fn below(&mut self, n: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) as usize % n
        }

        fn byte(&mut self) -> u8 {
            self.below(256) as u8
        }

        /// Small ones as often as large ones.
        fn some(&mut self, sizes: [usize; 4]) -> usize {
            let below = sizes[self.below(4)] + 1;
            self.below(below)
        }

        /// A text with runs, repetitions over every distance, and noise.
        fn text(&mut self) -> Vec<u8> {
            let mut text = Vec::new();
            for _ in 0..self.below(60) {
                let len = self.some([4, 20, 70, 400]);
                match self.below(3) {
                    0 => text.extend((0..len).map(|_| self.byte())),
                    1 if !text.is_empty() => {
                        let back = (1 + self.some([0, 4, 40, 5000])).min(text.len());
                        (0..len).for_each(|_| text.push(text[text.len() - back]));
                    }
                    _ => text.extend(std::iter::repeat_n(self.byte(), len)),
                }
            }
            text
        }
    }

    #[test]
    fn gives_back_what_was_compressed_in_any_number_of_steps() {
        let mut random = Random(7);
        for _ in 0..3000 {
            let text = random.text();
            let stored = lz4_flex::block::compress(&text);
            let mut out = vec![0xaa; text.len()];
            let mut progress = Progress::default();
            let mut want = 0;
            while want < text.len() {
                want += 1 + random.some([0, 30, 300, 10_000]);
                progress.decode(&stored, &mut out, want).unwrap();
                assert!(progress.done() >= want.min(text.len()));
                assert_eq!(out[..progress.done()], text[..progress.done()]);
                // What is behind is nobody's.
                out[progress.done()..].fill(random.byte());
            }
            progress.decode(&stored, &mut out, text.len()).unwrap();
            assert_eq!(out, text);
        }
    }

    #[test]
    fn refuses_what_is_longer_or_shorter_or_cut() {
        let mut random = Random(9);
        for _ in 0..500 {
            let text = random.text();
            let stored = lz4_flex::block::compress(&text);
            let whole =
                |stored: &[u8], len: usize| Progress::default().decode(stored, &mut vec![0; len], len);
            whole(&stored, text.len()).unwrap();
            assert!(whole(&stored, text.len() + 1).is_err());
            assert!(text.is_empty() || whole(&stored, text.len() - 1).is_err());
            let cut = random.below(stored.len());
            assert!(text.is_empty() || whole(&stored[..cut], text.len()).is_err());
            let more = [&stored[..], &[0]].concat();
            assert!(whole(&more, text.len()).is_err());
        }
        assert!(Progress::default().decode(&[], &mut [0; 4], 4).is_err());
        // A match that starts before the beginning, or nowhere.
        assert!(Progress::default().decode(&[0x10, b'a', 2, 0, 0], &mut [0; 5], 5).is_err());
        assert!(Progress::default().decode(&[0x10, b'a', 0, 0, 0], &mut [0; 5], 5).is_err());
    }

    /// Any damage ends in an error or in other bytes, as with the crate that wrote it.
    #[test]
    fn survives_damage() {
        let mut random = Random(11);
        for _ in 0..3000 {
            let text = random.text();
            let mut stored = lz4_flex::block::compress(&text);
            for _ in 0..1 + random.below(4) {
                let at = random.below(stored.len());
                stored[at] = random.byte();
            }
            let (mut ours, mut theirs) = (vec![0; text.len()], vec![0; text.len()]);
            let fine = Progress::default().decode(&stored, &mut ours, text.len()).is_ok();
            let len = lz4_flex::block::decompress_into(&stored, &mut theirs);
            if len.is_ok_and(|len| len == text.len()) {
                assert!(fine);
                assert_eq!(ours, theirs);
            }
        }
    }

    #[test]
    #[ignore = "prints timings"]
    #[allow(clippy::disallowed_methods)]
    fn speed() {
        let mut random = Random(5);
        let mut text = Vec::new();
        for _ in 0..38 {
            text.extend((0..50).map(|_| random.byte()));
            text.extend([b'.'; 50]);
        }
        let stored = lz4_flex::block::compress(&text);
        let mut out = vec![0; text.len()];
        for _ in 0..5 {
            // The best of short rounds: others are on the machine.
            let time = |what: &mut dyn FnMut()| {
                let round = |_| {
                    let start = std::time::Instant::now();
                    (0..20).for_each(|_| what());
                    start.elapsed().as_nanos() / 20
                };
                (0..2000).map(round).min().unwrap()
            };
            let ours = time(&mut || {
                Progress::default().decode(std::hint::black_box(&stored), &mut out, text.len()).unwrap();
            });
            let theirs = time(&mut || {
                lz4_flex::block::decompress_into(std::hint::black_box(&stored), &mut out).unwrap();
            });
            println!("ours {ours} ns, lz4_flex {theirs} ns");
        }
    }
}
