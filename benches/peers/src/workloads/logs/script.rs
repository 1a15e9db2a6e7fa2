//! What a load does to the logs, commit by commit: from a seed, so that whoever checks it later knows
//! what must be there.

use crate::Outcome;
use crate::engines::logs::{Change, HEADER, header};
use crate::generate::Rng;
use std::ops::Range;

/// A kind of load. Entries of a group are kept, once there are so many, in that number.
pub struct Load {
    pub name: &'static str,
    pub groups: u64,
    /// So many groups in ten are written to once and never again. They come one after another until the
    /// end, so that each file of the log has some.
    pub cold: u64,
    /// Groups, and entries of each, in a commit.
    pub touched: usize,
    pub entries: u64,
    /// Bytes of an entry.
    pub len: usize,
    pub keep: Option<u64>,
}

const RAFT: Load =
    Load { name: "lograft256", groups: 1, cold: 0, touched: 1, entries: 256, len: 256, keep: Some(10_000) };
const GROUPS: Load =
    Load { name: "loggroups", groups: 1000, touched: 16, entries: 16, keep: Some(64), ..RAFT };

pub const LOADS: &[Load] = &[
    RAFT,
    Load { name: "lograft4k", entries: 16, len: 4 << 10, keep: Some(2000), ..RAFT },
    GROUPS,
    Load { name: "loggroupslong", keep: Some(1000), ..GROUPS },
    Load { name: "logcold", groups: 10_000, cold: 9, ..GROUPS },
    Load { name: "logevents", keep: None, ..RAFT },
];

impl Load {
    /// Bytes of the entries of a commit.
    pub fn commit_bytes(&self) -> u64 {
        self.touched as u64 * self.entries * self.len as u64
    }

    /// Bytes that live after so many commits.
    pub fn live(&self, commits: u64) -> u64 {
        let mut script = Script::new(self, commits);
        while script.step() {}
        (0..script.groups()).map(|group| script.bounds(group)).map(|b| b.end - b.start).sum::<u64>()
            * self.len as u64
    }
}

pub struct Script<'a> {
    load: &'a Load,
    commits: u64,
    done: u64,
    rng: Rng,
    /// Where each group ends; the cold ones come last.
    ends: Vec<u64>,
    hot: u64,
    /// The groups of the commit that was made last.
    touched: Vec<u64>,
}

impl<'a> Script<'a> {
    /// Of so many commits.
    pub fn new(load: &'a Load, commits: u64) -> Script<'a> {
        // In a short run not all the cold ones would come.
        let groups = if load.cold > 0 { load.groups.min(2 * commits).max(400) } else { load.groups };
        let hot = groups - groups * load.cold / 10;
        let (ends, touched) = (vec![0; groups as usize], Vec::new());
        Script { load, commits, done: 0, rng: Rng::new(7), ends, hot, touched }
    }

    pub fn groups(&self) -> u64 {
        self.ends.len() as u64
    }

    /// Makes the next commit, if there is one more.
    pub fn step(&mut self) -> bool {
        if self.done == self.commits {
            return false;
        }
        let cold = self.groups() - self.hot;
        let come = |commits: u64| self.hot + cold * commits / self.commits;
        self.touched.clear();
        self.touched.extend((come(self.done)..come(self.done + 1)).take(self.load.touched));
        while self.touched.len() < self.load.touched {
            let group = self.rng.below(self.hot);
            if !self.touched.contains(&group) {
                self.touched.push(group);
            }
        }
        for group in &self.touched {
            self.ends[*group as usize] += self.load.entries;
        }
        self.done += 1;
        true
    }

    /// What a group holds now.
    pub fn bounds(&self, group: u64) -> Range<u64> {
        let end = self.ends.get(group as usize).copied().unwrap_or(0);
        self.first(end)..end
    }

    /// Where a group begins that ends there.
    fn first(&self, end: u64) -> u64 {
        self.load.keep.map_or(0, |keep| end.saturating_sub(keep))
    }

    /// The entries of the commit that was made last, side by side.
    pub fn fill(&self, noise: &Noise, out: &mut Vec<u8>) {
        out.clear();
        for group in &self.touched {
            let end = self.bounds(*group).end;
            (end - self.load.entries..end).for_each(|index| noise.entry(*group, index, self.load.len, out));
        }
    }

    /// The same commit, of such entries.
    pub fn changes<'b>(&self, bytes: &'b [u8]) -> Vec<Change<'b>> {
        let each = bytes.chunks_exact(self.load.entries as usize * self.load.len);
        let change = |(group, bytes): (&u64, &'b [u8])| {
            let end = self.bounds(*group).end;
            let first = end - self.load.entries;
            let purge = self.first(first)..self.first(end);
            Change { group: *group, first, bytes, len: self.load.len, purge }
        };
        self.touched.iter().zip(each).map(change).collect()
    }

    /// A group that the commit made last wrote to.
    pub fn last(&self) -> u64 {
        self.touched.first().copied().unwrap_or(0)
    }
}

/// What entries are cut from: nothing that could be compressed.
pub struct Noise(Vec<u8>);

const NOISE: usize = 1 << 20;
const LONGEST: usize = 4 << 10;

impl Noise {
    pub fn new() -> Noise {
        let mut rng = Rng::new(11);
        Noise((0..(NOISE + LONGEST) / 8).flat_map(|_| rng.next().to_le_bytes()).collect())
    }

    /// What stands behind the header of an entry.
    fn body(&self, group: u64, index: u64, len: usize) -> &[u8] {
        let at = Rng::new(group << 40 ^ index).below(NOISE as u64) as usize;
        &self.0[at..at + len - HEADER]
    }

    pub fn entry(&self, group: u64, index: u64, len: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&header(group, index));
        out.extend_from_slice(self.body(group, index, len));
    }

    /// Complains unless `bytes` are that entry.
    pub fn check(&self, group: u64, index: u64, len: usize, bytes: &[u8]) -> Outcome {
        let is = bytes.len() == len
            && bytes[..HEADER] == header(group, index)
            && bytes[HEADER..] == *self.body(group, index, len);
        if is { Ok(()) } else { Err(format!("entry {index} of group {group} is another").into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(name: &str) -> &'static Load {
        LOADS.iter().find(|load| load.name == name).unwrap()
    }

    #[test]
    fn a_load_appends_where_groups_end_and_keeps_so_many() {
        let noise = Noise::new();
        for load in LOADS {
            let mut script = Script::new(load, 700);
            let mut held = vec![0..0; script.groups() as usize];
            let mut bytes = Vec::new();
            while script.step() {
                script.fill(&noise, &mut bytes);
                assert_eq!(bytes.len() as u64, load.commit_bytes());
                for change in script.changes(&bytes) {
                    let held = &mut held[change.group as usize];
                    assert_eq!(change.first, held.end);
                    for (index, entry) in change.entries() {
                        noise.check(change.group, index, load.len, entry).unwrap();
                        held.end = index + 1;
                    }
                    if !change.purge.is_empty() {
                        assert_eq!(change.purge.start, held.start);
                        held.start = change.purge.end;
                    }
                }
            }
            assert!((0..).zip(&held).all(|(group, held)| script.bounds(group) == *held), "{}", load.name);
            let living: u64 = held.iter().map(|held| held.end - held.start).sum();
            assert_eq!(load.live(700), living * load.len as u64);
            assert!(load.keep.is_none_or(|keep| held.iter().all(|held| held.end - held.start <= keep)));
        }
    }

    #[test]
    fn nine_groups_of_ten_go_cold_and_all_of_them_come() {
        for commits in [300, 1000, 8192] {
            let mut script = Script::new(load("logcold"), commits);
            while script.step() {}
            let once = (0..script.groups()).filter(|group| script.bounds(*group) == (0..16)).count() as u64;
            assert!(once >= script.groups() * 9 / 10, "{once} of {}", script.groups());
            assert!((0..script.groups()).all(|group| !script.bounds(group).is_empty()));
        }
    }
}
