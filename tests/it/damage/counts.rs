//! What became of each kind of damage in each kind of place.

use super::base::Base;
use super::harm::Harm;
use std::collections::BTreeMap;
use std::fmt;

/// Where damage is found, the earliest way first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Found {
    Open,
    Read,
    Write,
    Verify,
    /// By nothing, and nothing is missing.
    Nothing,
    /// Commits are gone that were not durable.
    Unsynced,
    /// Durable commits are gone, and no witness was left.
    Residue,
}

const FOUND: [&str; 7] = ["open", "read", "write", "verify", "harmless", "unsynced", "residue"];

#[derive(Default)]
pub struct Counts {
    rows: BTreeMap<(String, &'static str), [u64; 7]>,
    /// Durable commits that no witness vouched for: of the last sync alone, and of more.
    pub last_sync: u64,
    pub more: u64,
    /// The largest allocation, and the most that was held by one opening, in bytes.
    pub largest: usize,
    pub peak: usize,
}

impl Counts {
    pub fn add(&mut self, base: &Base, harm: &Harm, found: Found) {
        let row = match harm.place() {
            None => "manifest: all of it".into(),
            Some((file, at)) => {
                let file = &base.anatomy.files[file];
                let what = at.map_or("all of it", |at| file.what(at));
                let counts = if file.counts { "" } else { " (not needed)" };
                format!("{}: {what}{counts}", file.kind())
            }
        };
        self.rows.entry((row, harm.kind())).or_default()[found as usize] += 1;
    }

    pub fn add_lost(&mut self, base: &Base, at: usize) {
        if at < base.before_last_sync {
            self.more += 1;
        } else if at < base.durable {
            self.last_sync += 1;
        }
    }

    pub fn merge(&mut self, other: Counts) {
        for (key, counts) in other.rows {
            let row = self.rows.entry(key).or_default();
            row.iter_mut().zip(counts).for_each(|(to, n)| *to += n);
        }
        self.last_sync += other.last_sync;
        self.more += other.more;
        self.largest = self.largest.max(other.largest);
        self.peak = self.peak.max(other.peak);
    }

    pub fn of(&self, found: Found) -> u64 {
        self.rows.values().map(|row| row[found as usize]).sum()
    }

    pub fn of_kind(&self, kind: &str) -> u64 {
        self.rows.iter().filter(|(key, _)| key.1 == kind).flat_map(|(_, row)| row).sum()
    }

    pub fn all(&self) -> u64 {
        self.rows.values().flatten().sum()
    }
}

/// The table, and the line.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<34} {:<16} {:>9}",
            "where",
            "damage",
            FOUND.map(|name| format!("{name:>9}")).join("")
        )?;
        for ((place, kind), row) in &self.rows {
            writeln!(f, "{place:<34} {kind:<16} {}", row.map(|n| format!("{n:>9}")).join(""))?;
        }
        write!(f, "proof: damage: {} cases", self.all())?;
        for (kind, name) in [("bit", "bits flipped"), ("byte", "bytes zeroed"), ("cut", "cuts")] {
            write!(f, ", {} {name}", self.of_kind(kind))?;
        }
        let others =
            ["the rest zeroed", "sector zeroed", "sector garbled", "headers lost", "longer", "removed"];
        let others = others.into_iter().chain(["swapped", "doubled", "parts misplaced", "stale"]);
        for kind in others.filter(|kind| self.of_kind(kind) > 0) {
            write!(f, ", {} {kind}", self.of_kind(kind))?;
        }
        let [open, read, write, verify, harmless, unsynced, residue] = [
            Found::Open,
            Found::Read,
            Found::Write,
            Found::Verify,
            Found::Nothing,
            Found::Unsynced,
            Found::Residue,
        ]
        .map(|found| self.of(found));
        write!(
            f,
            "; found at open {open}, read {read}, write {write}, by verify alone {verify}; harmless {harmless}, \
             commits lost that were not durable {unsynced}, residue {residue} (only the last sync's {}, more {}); \
             largest allocation {} bytes, peak of opening {} bytes; 0 failures",
            self.last_sync, self.more, self.largest, self.peak
        )
    }
}
