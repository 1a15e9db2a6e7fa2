//! The numbers everything is named by. Each is a type of its own, so that a file number cannot be
//! passed where a sequence number is meant.

use std::fmt;

/// A sequence number: the place of one operation in the order of all commits.
///
/// One is given to each operation of a batch, strictly increasing over the whole database; a
/// commit answers with its last. Numbers stay below 2^56. Numbers of commits that a crash took
/// back may be given again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Seq(u64);

impl Seq {
    /// Before every operation: a fresh database stands here.
    pub const ZERO: Seq = Seq(0);
    /// The largest sequence number there can be (2^56 - 1).
    pub const MAX: Seq = Seq((1 << 56) - 1);

    /// The sequence number as a plain number.
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// `n` as a sequence number; `None` at or above 2^56.
    #[inline]
    pub const fn new(n: u64) -> Option<Seq> {
        if n < 1 << 56 { Some(Seq(n)) } else { None }
    }

    /// The number `n` operations later, held at [`Seq::MAX`].
    #[inline]
    pub(crate) const fn plus(self, n: u64) -> Seq {
        let sum = self.0.saturating_add(n);
        if sum > Seq::MAX.0 { Seq::MAX } else { Seq(sum) }
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number a file of the database is named by. Tables, journal segments and manifests draw from
/// one counter; a number never returns.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub(crate) struct FileNo(pub u64);

impl fmt::Display for FileNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06}", self.0)
    }
}

/// The number of a keyspace. Given once, never again; 0 is the catalog.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub(crate) struct KeyspaceId(pub u32);

impl KeyspaceId {
    /// Keyspace 0: the sorted map from names to keyspaces.
    pub const CATALOG: KeyspaceId = KeyspaceId(0);
}

impl fmt::Display for KeyspaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place in the journal, counted in bytes over all its segments since the database was made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub(crate) struct Position(pub u64);

impl Position {
    /// The position `n` bytes further on.
    #[inline]
    pub const fn plus(self, n: u64) -> Position {
        Position(self.0.saturating_add(n))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seq_stays_below_2_to_56() {
        assert_eq!(Seq::new(1 << 56), None);
        assert_eq!(Seq::new((1 << 56) - 1), Some(Seq::MAX));
        assert_eq!(Seq::MAX.plus(5), Seq::MAX);
        assert_eq!(Seq::ZERO.plus(5).get(), 5);
    }
}
