//! The other direction: whether what was found on some disk, a real one above all, is a state the
//! fault model allows. So the model can be held against real file systems.

use crate::fs::Fs;
use crate::fs::sim::SimFs;
use crate::fs::sim::content::SECTOR;
use crate::fs::sim::disk::{Disk, Inode, Node, Versions, is_root};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// All that is below a directory: paths from there on, with the bytes of files.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Tree(BTreeMap<PathBuf, Option<Vec<u8>>>);

impl Tree {
    /// Reads everything below `dir`.
    pub fn read(fs: &dyn Fs, dir: &Path) -> io::Result<Tree> {
        let mut tree = Tree::default();
        let mut dirs = vec![PathBuf::new()];
        while let Some(sub) = dirs.pop() {
            for (name, len) in fs.list(&dir.join(&sub))? {
                let path = sub.join(name);
                let mut bytes = None;
                match len {
                    None => dirs.push(path.clone()),
                    Some(len) => {
                        let bytes = bytes.insert(vec![0; usize::try_from(len).map_err(io::Error::other)?]);
                        crate::fs::read_exact_at(&*fs.open_read(&dir.join(&path))?, bytes, 0)?;
                    }
                }
                tree.0.insert(path, bytes);
            }
        }
        Ok(tree)
    }
}

/// How many things in doubt were found as they were at the last sync, as they were last, or as
/// something else that is allowed (a moment between, a torn write, garbage).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Tally {
    /// As at the last sync.
    pub old: u64,
    /// As they were last.
    pub new: u64,
    /// As something else.
    pub other: u64,
}

impl Tally {
    fn count(&mut self, old: bool, new: bool) {
        match (old, new) {
            // Nothing to tell apart.
            (true, true) => {}
            (true, false) => self.old += 1,
            (false, true) => self.new += 1,
            (false, false) => self.other += 1,
        }
    }
}

/// What became of everything that was in doubt.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Survived {
    /// Names created, removed or linked.
    pub names: Tally,
    /// Lengths of files that grew.
    pub lengths: Tally,
    /// Sectors written.
    pub sectors: Tally,
}

impl SimFs {
    /// Whether this disk could be found as `tree`, below `dir`, had the power gone right after operation
    /// number `op`: the question to which [`SimFs::crash_at`] gives one answer at a time. Tells what
    /// became of what was in doubt, or the first thing that the [fault model](crate::fs::sim) excludes.
    ///
    /// # Panics
    ///
    /// If there were fewer than `op` operations.
    pub fn allows(&self, op: u64, dir: &Path, tree: &Tree) -> Result<Survived, String> {
        Question { disk: self.state().at(op), dir, tree }.answer()
    }
}

struct Question<'a> {
    disk: &'a Disk,
    dir: &'a Path,
    tree: &'a Tree,
}

/// A file that was found, and the files of the model it may be.
struct Candidates<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    ids: Vec<u64>,
}

impl Question<'_> {
    fn answer(&self) -> Result<Survived, String> {
        let mut survived = Survived::default();
        let mut files = Vec::new();
        let mut known = 0;
        for (dir, names) in &self.disk.dirs {
            let Ok(below) = dir.strip_prefix(self.dir) else { continue };
            // What is in a directory that was lost is lost with it.
            let there = is_root(below) || self.tree.0.get(below) == Some(&None);
            for (name, versions) in names.names.iter().filter(|_| there) {
                let path = below.join(name);
                let found = self.tree.0.get_key_value(&path);
                known += usize::from(found.is_some());
                let state = match found {
                    None => None,
                    Some((_, None)) => Some(Node::Dir),
                    Some((path, Some(bytes))) => {
                        let file = self.candidates(path, bytes, versions)?;
                        let id = file.ids[0];
                        files.push(file);
                        Some(Node::File(id))
                    }
                };
                if !versions.contains(&state) {
                    let what = if state.is_none() { "not there" } else { "a directory" };
                    return Err(format!(
                        "{} is {what}, which it never was since it was synced",
                        path.display()
                    ));
                }
                let last = versions.len() - 1;
                survived.names.count(versions[0] == state, versions[last] == state);
            }
        }
        if known < self.tree.0.len() {
            let known = |path: &Path| {
                let dir = self.dir.join(path);
                let names = dir.parent().and_then(|above| self.disk.dirs.get(above));
                path.file_name().is_some_and(|name| names.is_some_and(|dir| dir.names.contains_key(name)))
            };
            let path = self.tree.0.keys().find(|path| !known(path));
            return Err(format!(
                "{:?} was never made, or is gone for good",
                path.map(|p| p.display().to_string())
            ));
        }
        let mut given = BTreeMap::new();
        if !assign(&files, &mut given) {
            return Err("two names of one file show different bytes".into());
        }
        for (id, bytes) in given {
            if let Some(inode) = self.disk.files.get(&id) {
                tally(inode, bytes, &mut survived);
            }
        }
        Ok(survived)
    }

    /// Which of the files that `path` has stood for can show these bytes.
    fn candidates<'a>(
        &self,
        path: &'a Path,
        bytes: &'a [u8],
        versions: &Versions,
    ) -> Result<Candidates<'a>, String> {
        let (mut ids, mut why) =
            (Vec::new(), "is a file, which it never was since it was synced".to_string());
        // The newest first: it is the most likely.
        for node in versions.iter().rev() {
            let Some(Node::File(id)) = node else { continue };
            match self.disk.files.get(id).map(|inode| shows(inode, bytes)) {
                Some(Err(e)) => why = e,
                Some(Ok(())) if !ids.contains(id) => ids.push(*id),
                _ => {}
            }
        }
        if ids.is_empty() {
            return Err(format!("{} {why}", path.display()));
        }
        Ok(Candidates { path, bytes, ids })
    }
}

/// Finds a file of the model for each file found, the same bytes for each: tries all.
fn assign<'a>(files: &[Candidates<'a>], given: &mut BTreeMap<u64, &'a [u8]>) -> bool {
    let Some((file, rest)) = files.split_first() else { return true };
    debug_assert!(!file.ids.is_empty(), "{}", file.path.display());
    file.ids.iter().any(|id| match given.get(id) {
        Some(bytes) => *bytes == file.bytes && assign(rest, given),
        None => {
            given.insert(*id, file.bytes);
            let done = assign(rest, given);
            if !done {
                given.remove(id);
            }
            done
        }
    })
}

/// Whether a file can be found with these bytes.
fn shows(inode: &Inode, bytes: &[u8]) -> Result<(), String> {
    let (least, most) = (inode.lens[0], *inode.lens.last().unwrap_or(&0));
    if !(least..=most).contains(&(bytes.len() as u64)) {
        return Err(format!("has {} bytes, which must be {least} to {most}", bytes.len()));
    }
    for (no, found) in bytes.chunks(SECTOR).enumerate() {
        if let Some(at) = forbidden(inode, no as u64, found) {
            return Err(format!("shows {:#04x} at {}", found[at], no * SECTOR + at));
        }
    }
    Ok(())
}

/// The first byte of a sector that cannot be.
fn forbidden(inode: &Inode, no: u64, found: &[u8]) -> Option<usize> {
    let (durable, live) = (inode.durable.sector(no), inode.live.sector(no));
    let written = inode.durable.sectors.contains_key(&no);
    let blank = inode.durable.blank().start;
    let patches = inode.dirty.get(&no).map_or(&[][..], |patches| patches);
    (0..found.len()).find(|&i| {
        // Where nothing durable stands, anything may show.
        let free = !written && no * SECTOR as u64 + i as u64 >= blank;
        // Bytes that were changed are in danger; those written again as they were are not.
        let changed = durable[i] != live[i];
        let between = || {
            let covers = patches.iter().filter(|p| (p.at..p.at + p.bytes().len()).contains(&i));
            covers.into_iter().any(|p| p.bytes()[i - p.at] == found[i])
        };
        !(free || changed || found[i] == durable[i] || between())
    })
}

fn tally(inode: &Inode, bytes: &[u8], survived: &mut Survived) {
    let (len, last) = (bytes.len() as u64, inode.lens.last());
    survived.lengths.count(len == inode.lens[0], Some(&len) == last);
    for no in inode.dirty.keys() {
        let start = (*no as usize * SECTOR).min(bytes.len());
        let found = &bytes[start..bytes.len().min(start + SECTOR)];
        let is = |sector: [u8; SECTOR]| sector[..found.len()] == *found;
        survived.sectors.count(is(inode.durable.sector(*no)), is(inode.live.sector(*no)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::sim::content::Rng;
    use crate::fs::{File, write_all_at};
    use std::sync::Arc;

    const ROOT: &str = "/";

    fn p(name: &str) -> PathBuf {
        Path::new(ROOT).join(name)
    }

    fn tree(fs: &SimFs) -> Tree {
        Tree::read(fs, Path::new(ROOT)).unwrap()
    }

    fn allows(fs: &SimFs, tree: &Tree) -> Result<Survived, String> {
        fs.allows(fs.ops(), Path::new(ROOT), tree)
    }

    /// A random script of everything there is.
    fn script(seed: u64) -> SimFs {
        let fs = SimFs::new(seed);
        let mut rng = Rng(seed);
        let mut files: Vec<Arc<dyn File>> = Vec::new();
        fs.create_dir_all(&p("d")).unwrap();
        for _ in 0..60 {
            let mut name = || p(["a", "b", "c", "d/x", "d/y"][rng.below(5)]);
            let (name, other) = (name(), name());
            // What is not possible is left out.
            match rng.below(9) {
                0 | 1 => files.extend(fs.create(&name).ok()),
                2 => drop(fs.remove(&name)),
                3 => drop(fs.link(&name, &other)),
                4 => fs.sync_dir(&p(["", "d"][rng.below(2)])).unwrap(),
                n => {
                    let file = fs.open_write(&name).ok();
                    let Some(file) = file.or_else(|| files.last().cloned()) else { continue };
                    let (at, len) = (rng.below(2000) as u64, rng.below(1500));
                    match n {
                        5 => file.sync().unwrap(),
                        6 => file.allocate(at).unwrap(),
                        _ => write_all_at(&*file, &vec![rng.next() as u8; len], at).unwrap(),
                    }
                }
            }
        }
        fs
    }

    #[test]
    fn every_state_after_a_crash_is_allowed() {
        let mut seen = Survived::default();
        for seed in 1..8 {
            let fs = script(seed);
            for op in (0..=fs.ops()).filter(|op| op % 7 == seed) {
                for choice in (0..fs.states_at(op)).step_by(13) {
                    let disk = fs.crash_at(op, choice);
                    let found = fs.allows(op, Path::new(ROOT), &tree(&disk));
                    let found =
                        found.unwrap_or_else(|e| panic!("seed {seed}, {op}, {choice}: {e}\n{:#?}", fs.log()));
                    for (seen, found) in [
                        (&mut seen.names, found.names),
                        (&mut seen.lengths, found.lengths),
                        (&mut seen.sectors, found.sectors),
                    ] {
                        seen.old += found.old;
                        seen.new += found.new;
                        seen.other += found.other;
                    }
                }
            }
            // And what is there without one.
            allows(&fs, &tree(&fs)).unwrap();
            // What crashed is a disk like any other.
            let disk = fs.crash(3);
            allows(&disk, &tree(&disk)).unwrap();
        }
        for tally in [seen.names, seen.lengths, seen.sectors] {
            assert!(tally.old > 20 && tally.new > 20 && tally.other > 0, "{seen:?}");
        }
    }

    /// A disk on which "f" of 1000 bytes is durable, and what it holds.
    fn durable() -> (SimFs, Arc<dyn File>, Tree) {
        let fs = SimFs::new(1);
        let file = fs.create(&p("f")).unwrap();
        write_all_at(&*file, &[7; 1000], 0).unwrap();
        file.sync().unwrap();
        fs.create_dir_all(&p("d")).unwrap();
        fs.sync_dir(Path::new(ROOT)).unwrap();
        let tree = tree(&fs);
        (fs, file, tree)
    }

    fn bytes<'a>(tree: &'a mut Tree, name: &str) -> &'a mut Vec<u8> {
        tree.0.get_mut(Path::new(name)).unwrap().as_mut().unwrap()
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let (fs, file, good) = durable();
        assert_eq!(allows(&fs, &good), Ok(Survived::default()));
        type Change = fn(&mut Tree);
        let changes: [(Change, &str); 9] = [
            (|t| drop(t.0.remove(Path::new("f"))), "f is not there"),
            (|t| drop(t.0.remove(Path::new("d"))), "d is not there"),
            (|t| drop(t.0.insert("f".into(), None)), "f is a directory"),
            (|t| drop(t.0.insert("d".into(), Some(vec![]))), "d is a file"),
            (|t| drop(t.0.insert("g".into(), Some(vec![]))), "never made"),
            (|t| drop(t.0.insert("d/g".into(), Some(vec![]))), "never made"),
            (|t| bytes(t, "f")[999] = 0, "f shows 0x00 at 999"),
            (|t| bytes(t, "f").truncate(999), "f has 999 bytes"),
            (|t| bytes(t, "f").push(0), "f has 1001 bytes"),
        ];
        for (change, why) in changes {
            let mut bad = good.clone();
            change(&mut bad);
            let e = allows(&fs, &bad).unwrap_err();
            assert!(e.contains(why), "{e}, not {why}");
        }
        // In doubt are the bytes that were changed, not those beside them, nor any before.
        write_all_at(&*file, &[8; 10], 500).unwrap();
        let found = |at: usize, byte| {
            let mut tree = good.clone();
            bytes(&mut tree, "f")[at] = byte;
            allows(&fs, &tree)
        };
        assert_eq!(found(505, 8).map(|s| s.sectors), Ok(Tally { old: 0, new: 0, other: 1 }));
        assert!(found(509, 99).is_ok() && found(510, 8).is_err() && found(499, 8).is_err());
        // Before that operation they were not.
        let mut early = good.clone();
        bytes(&mut early, "f")[505] = 8;
        assert!(fs.allows(fs.ops() - 1, Path::new(ROOT), &early).is_err());
        file.sync().unwrap();
        assert!(allows(&fs, &good).is_err(), "synced, and not there");
    }

    #[test]
    fn a_name_shows_what_it_stood_for_with_the_bytes_of_that() {
        let (fs, file, good) = durable();
        write_all_at(&*file, &[8; 1000], 0).unwrap();
        fs.link(&p("f"), &p("g")).unwrap();
        fs.remove(&p("f")).unwrap();
        write_all_at(&*fs.create(&p("f")).unwrap(), &[9; 2000], 0).unwrap();
        // "f" may be the old file as it was, or garbage of the new one; "g" is not there.
        let names = allows(&fs, &good).unwrap().names;
        assert_eq!((names.old + names.new, names.other), (2, 0));
        let mut both = good.clone();
        both.0.insert("g".into(), Some(vec![7; 1000]));
        assert!(allows(&fs, &both).is_ok());
        bytes(&mut both, "g")[0] = 8;
        assert!(allows(&fs, &both).is_ok(), "f may be the new file");
        // Longer than the old file may be, different in what the new one may not: there is no such.
        fs.open_write(&p("f")).unwrap().sync().unwrap();
        assert_eq!(allows(&fs, &both).unwrap_err(), "two names of one file show different bytes");
        bytes(&mut both, "f")[0] = 8;
        assert!(allows(&fs, &both).is_ok());
    }
}
