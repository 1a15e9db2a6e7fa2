//! A small seeded generator, so that a seed is all a failing run has to name.

/// xorshift64*: good enough to choose operations with.
#[derive(Clone)]
pub struct Rng {
    state: u64,
    /// Choices made elsewhere, if there are any, by a fuzzer say; behind their end all are the first.
    made: Option<std::vec::IntoIter<u8>>,
}

impl Rng {
    pub fn new(seed: u64) -> Rng {
        // Seeds that are close to each other shall not give sequences that are.
        let mixed = (seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        Rng { state: (mixed ^ (mixed >> 29)) | 1, made: None }
    }

    /// Chooses what `choices` say, a byte or two for each choice. Only what does not choose (the
    /// bytes of a value) still comes from a seed.
    pub fn made(choices: &[u8]) -> Rng {
        Rng { made: Some(Vec::from(choices).into_iter()), ..Rng::new(1) }
    }

    /// A generator for a part of the run: with a seed of its own, or all choices that are left.
    pub fn part(&mut self) -> Rng {
        match &mut self.made {
            Some(made) => Rng { made: Some(std::mem::take(made)), ..self.clone() },
            None => Rng::new(self.next()),
        }
    }

    /// Whether choices were made elsewhere, and there are no more.
    pub fn is_over(&self) -> bool {
        self.made.as_ref().is_some_and(|made| made.as_slice().is_empty())
    }

    pub fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        if let Some(made) = &mut self.made {
            let mut byte = || usize::from(made.next().unwrap_or(0));
            let choice = if n <= 0x100 { byte() } else { byte() | byte() << 8 };
            return choice % n.max(1);
        }
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// A key out of a few hundred that are close enough to collide: shared prefixes, all lengths, the
    /// ends of the byte range, and now and then a long one.
    pub fn key(&mut self) -> Vec<u8> {
        let n = self.below(60);
        match self.below(40) {
            0 => vec![],
            1 => vec![0; 1 + self.below(3)],
            2 => vec![0xff; 1 + self.below(3)],
            3 => [b"long".repeat(60), vec![self.below(4) as u8]].concat(),
            4..10 => vec![self.below(6) as u8 + b'a'],
            10..20 => format!("user/{n}").into_bytes(),
            20..30 => format!("user/{n:04}/name").into_bytes(),
            _ => (n as u64).to_be_bytes().to_vec(),
        }
    }

    /// A value no other call gives (unless it is very short): around the lengths at which the
    /// engine treats values differently.
    pub fn value(&mut self) -> Vec<u8> {
        let len = match self.below(30) {
            0 => 0,
            1 => 1,
            2..16 => 8 + self.below(40),
            16..29 => self.below(200),
            _ => 1000 + self.below(6000),
        };
        let mut out = self.next().to_le_bytes().to_vec();
        // Half of it compresses.
        while out.len() < len {
            let byte = if out.len() % 64 < 32 { self.next() as u8 } else { b'.' };
            out.push(byte);
        }
        out.truncate(len);
        out
    }
}
