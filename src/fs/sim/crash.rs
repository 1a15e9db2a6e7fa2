//! What is left of a disk when the power goes: one of the states the fault model allows, picked by
//! a number.

use crate::fs::sim::content::{Content, Fill, Rng, SECTOR, Sector, mix, noise};
use crate::fs::sim::disk::{Dir, Disk, Inode, Node, Patch, Versions, is_root, split};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

/// The states with a meaning of their own; see the list in the parent module.
const FIXED: u64 = 6;
/// So many things in doubt are tried in all combinations.
const EXHAUSTIVE: u64 = 12;
/// Seeded states after all combinations: only they tear writes, and show moments between.
const TORN: u64 = 16;
/// Seeded states where there are too many combinations.
const SEEDED: u64 = 64;

/// The number of things that either survive or do not.
fn units(disk: &Disk) -> u64 {
    let names = disk.dirs.values().flat_map(|dir| dir.names.values()).filter(|v| v.len() > 1).count();
    let files = disk.reachable().into_iter().filter_map(|id| disk.files.get(&id));
    files.map(|f| f.dirty.len() as u64 + u64::from(f.lens.len() > 1)).sum::<u64>() + names as u64
}

/// How many choices are worth trying.
pub(super) fn states(disk: &Disk) -> u64 {
    let mut files = disk.reachable().into_iter().filter_map(|id| disk.files.get(&id));
    let mut names = disk.dirs.values().flat_map(|dir| dir.names.values());
    match units(disk) {
        // Only what was never written can differ: zeros in choice 0, garbage in choice 3.
        0 if files.any(|f| f.durable.has_blank_space()) => 4,
        0 => 1,
        // More than old and new can be found.
        n @ 1..=EXHAUSTIVE
            if files.any(|f| !f.dirty.is_empty() || f.lens.len() > 1) || names.any(|v| v.len() > 2) =>
        {
            FIXED + (1 << n) + TORN
        }
        n @ 1..=EXHAUSTIVE => FIXED + (1 << n),
        _ => FIXED + SEEDED,
    }
}

/// How the things in doubt are decided.
#[derive(Clone, Copy)]
enum Rule {
    Fixed(u64),
    /// A bit for each.
    Subset(u64),
    /// A coin for each, true so many times out of eight.
    Seeded {
        names: u64,
        lens: u64,
        data: u64,
    },
}

/// A write of which the first bytes arrived.
struct Tear {
    file: u64,
    sector: u64,
    /// Which patch of the sector, and how many of its bytes arrived.
    patch: usize,
    bytes: usize,
    /// The operation, if it arrived in order: all of it before the tear, nothing behind.
    op: Option<u64>,
}

/// What became of a sector.
enum Outcome {
    /// So many of its patches arrived.
    Patches(usize),
    /// So many, and so many bytes of the next one.
    Torn(usize, usize),
    Garbage,
}

struct Fate {
    rule: Rule,
    /// How many things were decided so far.
    decided: u64,
    rng: Rng,
    tear: Option<Tear>,
    /// The newest file with unsynced data.
    newest: Option<u64>,
    /// The files that have a name as the program sees it: nobody else gets their space.
    named: BTreeSet<u64>,
    seed: u64,
}

impl Fate {
    fn new(disk: &Disk, reachable: &BTreeSet<u64>, seed: u64, choice: u64) -> Fate {
        let mut rng = Rng(mix(seed, choice));
        let n = units(disk);
        let mut tear = None;
        let rule = if choice < FIXED {
            Rule::Fixed(choice)
        } else if n <= EXHAUSTIVE && choice - FIXED < 1 << n {
            Rule::Subset(choice - FIXED)
        } else {
            tear = Tear::new(disk, reachable, &mut rng);
            let mut odds = || [1, 4, 4, 7][rng.below(4)];
            Rule::Seeded { names: odds(), lens: odds(), data: odds() }
        };
        let dirty = |id: &u64| disk.files.get(id).is_some_and(|f| !f.dirty.is_empty());
        let newest = reachable.iter().copied().rev().find(dirty);
        Fate { rule, decided: 0, seed: rng.next(), rng, tear, newest, named: disk.named() }
    }

    /// The bit of the next thing in doubt.
    fn bit(&mut self, mask: u64) -> bool {
        self.decided += 1;
        mask >> (self.decided - 1) & 1 == 1
    }

    /// Which of `count` versions of a name or a length survived, the durable one being 0.
    fn version(&mut self, count: usize, odds: u64) -> usize {
        if self.rng.coin(odds) {
            count - 1
        } else if self.rng.coin(4) {
            0
        } else {
            self.rng.below(count)
        }
    }

    fn name(&mut self, versions: &Versions) -> Option<Node> {
        let last = versions.len() - 1;
        if last == 0 {
            return versions[0];
        }
        let rule = self.rule;
        let pick = match rule {
            Rule::Fixed(0 | 5) => 0,
            Rule::Fixed(_) => last,
            Rule::Subset(mask) if self.bit(mask) => last,
            // Created and removed again: that only the first of it survived is the other state.
            Rule::Subset(_) => usize::from(versions[0] == versions[last]),
            Rule::Seeded { names, .. } => self.version(versions.len(), names),
        };
        versions[pick]
    }

    fn len(&mut self, lens: &[u64]) -> u64 {
        let last = lens.len() - 1;
        if last == 0 {
            return lens[0];
        }
        let pick = match self.rule {
            Rule::Fixed(0) => 0,
            Rule::Fixed(_) => last,
            Rule::Subset(mask) => last * usize::from(self.bit(mask)),
            Rule::Seeded { .. } if self.rng.coin(1) => {
                return lens[0] + self.rng.below((lens[last] - lens[0]) as usize) as u64;
            }
            Rule::Seeded { lens: odds, .. } => self.version(lens.len(), odds),
        };
        lens[pick]
    }

    fn sector(&mut self, file: u64, no: u64, patches: &[Patch]) -> Outcome {
        let all = patches.len();
        let survives = match self.rule {
            Rule::Fixed(1 | 5) => true,
            Rule::Fixed(3) => return Outcome::Garbage,
            Rule::Fixed(4) => Some(file) == self.newest,
            Rule::Fixed(_) => false,
            Rule::Subset(mask) => self.bit(mask),
            Rule::Seeded { data, .. } => {
                if let Some(outcome) = self.tear.as_ref().and_then(|t| t.decide(file, no, patches)) {
                    return outcome;
                }
                match self.rng.coin(data) {
                    false if self.rng.coin(1) => return Outcome::Garbage,
                    // A page may have been written back at any moment in between.
                    false if self.rng.coin(4) => return Outcome::Patches(self.rng.below(all)),
                    survives => survives,
                }
            }
        };
        Outcome::Patches(all * usize::from(survives))
    }

    /// What shows in space never written; `None` for zeros.
    fn fill(&mut self, disk: &Disk, file: u64) -> Option<Fill> {
        let seed = mix(self.seed, file);
        match self.rule {
            Rule::Fixed(3) => Some(Fill::Noise(seed)),
            Rule::Fixed(_) => None,
            Rule::Subset(_) => Some(Fill::Mixed(seed, None)),
            Rule::Seeded { .. } => match (self.rng.below(4), self.old_content(disk, file)) {
                (0, _) => None,
                (1, _) => Some(Fill::Noise(seed)),
                (2, Some(old)) => Some(Fill::Old(old)),
                (_, old) => Some(Fill::Mixed(seed, old)),
            },
        }
    }

    /// The bytes of some file that was removed or lost: its place on the disk may be this one's now.
    /// Half the time one of the same kind: what fits is what is dangerous.
    fn old_content(&mut self, disk: &Disk, file: u64) -> Option<Arc<Content>> {
        let gone = |(id, f): &(&u64, &Inode)| f.live.len > 0 && !self.named.contains(id);
        let mut others: Vec<&Inode> = disk.files.iter().filter(gone).map(|f| f.1).collect();
        let kind = |inode: &Inode| inode.path.extension().map(ToOwned::to_owned);
        let mine = disk.files.get(&file).and_then(kind);
        if self.rng.coin(4) && others.iter().any(|other| kind(other) == mine) {
            others.retain(|other| kind(other) == mine);
        }
        others.get(self.rng.below(others.len())).map(|other| other.live.clone())
    }
}

impl Tear {
    fn new(disk: &Disk, reachable: &BTreeSet<u64>, rng: &mut Rng) -> Option<Tear> {
        let files = || reachable.iter().filter_map(|id| Some((*id, disk.files.get(id)?)));
        let pick = rng.below(files().map(|(_, f)| f.dirty.len()).sum());
        let (file, (sector, patches)) =
            files().flat_map(|(id, f)| f.dirty.iter().map(move |dirty| (id, dirty))).nth(pick)?;
        let patch = if rng.coin(6) { patches.len() - 1 } else { rng.below(patches.len()) };
        let bytes = rng.below(patches[patch].bytes().len());
        let op = rng.coin(4).then_some(patches[patch].op);
        Some(Tear { file, sector: *sector, patch, bytes, op })
    }

    fn decide(&self, file: u64, no: u64, patches: &[Patch]) -> Option<Outcome> {
        if file != self.file {
            return None;
        }
        if no == self.sector {
            return Some(Outcome::Torn(self.patch, self.bytes));
        }
        let before = patches.iter().position(|patch| Some(patch.op) == self.op)?;
        Some(Outcome::Patches(if no < self.sector { before + 1 } else { before }))
    }
}

/// A disk on which everything is durable: what is left of `disk` under `choice`.
pub(super) fn rebuild(disk: &Disk, seed: u64, choice: u64) -> Disk {
    let reachable = disk.reachable();
    let mut fate = Fate::new(disk, &reachable, seed, choice);
    let mut dirs = BTreeMap::<PathBuf, Dir>::new();
    let mut alive = BTreeMap::new();
    // Directories come after the one they are in.
    for (path, dir) in &disk.dirs {
        let mut left = Dir::default();
        for (name, versions) in &dir.names {
            if let Some(node) = fate.name(versions) {
                left.names.insert(name.clone(), vec![Some(node)]);
            }
        }
        // One whose own name is lost is gone with all that is in it.
        let its_name = split(path).and_then(|(parent, name)| dirs.get(parent)?.names.get(name)?[0]);
        if is_root(path) || its_name == Some(Node::Dir) {
            for (name, versions) in &left.names {
                if let Some(Node::File(id)) = versions[0] {
                    alive.insert(id, path.join(name));
                }
            }
            dirs.insert(path.clone(), left);
        }
    }
    // What has no name any more is kept for what its place may show later.
    let gone = |(id, f): (&u64, &Inode)| (*id, Inode::at_rest(f.path.clone(), f.live.clone()));
    let mut files: BTreeMap<u64, Inode> = disk.files.iter().map(gone).collect();
    for id in reachable {
        let Some(inode) = disk.files.get(&id) else { continue };
        let content = survivor(disk, id, inode, &mut fate);
        if let Some(path) = alive.remove(&id) {
            files.insert(id, Inode::at_rest(path, content));
        }
    }
    Disk { dirs, files, next_id: disk.next_id }
}

/// What is left of a file's bytes.
fn survivor(disk: &Disk, id: u64, inode: &Inode, fate: &mut Fate) -> Arc<Content> {
    let len = fate.len(&inode.lens);
    let mut content = inode.durable.clone();
    for (&no, patches) in &inode.dirty {
        let sector = match fate.sector(id, no, patches) {
            Outcome::Patches(0) => continue,
            Outcome::Patches(n) if n == patches.len() => inode.live.sectors.get(&no).cloned(),
            Outcome::Patches(n) => Some(Arc::new(patched(inode, no, &patches[..n]))),
            Outcome::Torn(n, bytes) => {
                let mut sector = patched(inode, no, &patches[..n]);
                let torn = &patches[n];
                sector[torn.at..torn.at + bytes].copy_from_slice(&torn.bytes()[..bytes]);
                Some(Arc::new(sector))
            }
            Outcome::Garbage => garbage(inode, no, mix(fate.seed, id)).map(Arc::new),
        };
        if let Some(sector) = sector {
            Arc::make_mut(&mut content).sectors.insert(no, sector);
        }
    }
    if content.len != len || !inode.dirty.is_empty() {
        Arc::make_mut(&mut content).set_len(len);
    }
    if let Some(fill) = fate.fill(disk, id)
        && content.has_blank_space()
    {
        Arc::make_mut(&mut content).fill_blank_space(fill);
    }
    content
}

/// The durable sector with `patches` applied.
fn patched(inode: &Inode, no: u64, patches: &[Patch]) -> Sector {
    let mut sector = inode.durable.sector(no);
    for patch in patches {
        sector[patch.at..patch.at + patch.bytes().len()].copy_from_slice(patch.bytes());
    }
    sector
}

/// Garbage where unsynced writes changed the sector. Bytes that were durable, or were only written
/// again as they were, stay. A sector that was never durable becomes space never written: `None`.
fn garbage(inode: &Inode, no: u64, seed: u64) -> Option<Sector> {
    let mut sector = **inode.durable.sectors.get(&no)?;
    let (new, noise) = (inode.live.sector(no), noise(seed, no));
    for i in 0..SECTOR {
        if sector[i] != new[i] {
            sector[i] = noise[i];
        }
    }
    Some(sector)
}
