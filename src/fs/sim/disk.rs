//! The state of a simulated disk: what a running program sees, what is certain to survive, and
//! everything in between.

use crate::fs::sim::content::{Content, mix, pieces};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Node {
    File(u64),
    Dir,
}

/// What a name stood for since its directory was last synced: what is durable first, what is seen
/// now last. Never empty.
pub(super) type Versions = Vec<Option<Node>>;

#[derive(Clone, Default, Debug)]
pub(super) struct Dir {
    pub names: BTreeMap<OsString, Versions>,
}

/// A part of one write that falls into one sector.
#[derive(Clone, Debug)]
pub(super) struct Patch {
    /// The number of the operation that wrote it.
    pub op: u64,
    data: Arc<[u8]>,
    from: Range<usize>,
    /// The place in the sector.
    pub at: usize,
}

impl Patch {
    pub fn bytes(&self) -> &[u8] {
        &self.data[self.from.clone()]
    }
}

#[derive(Clone, Debug)]
pub(super) struct Inode {
    /// The first name, for messages.
    pub path: PathBuf,
    /// What is read now.
    pub live: Arc<Content>,
    /// What is certain to survive.
    pub durable: Arc<Content>,
    /// What was written to which sector since the last sync, in order.
    pub dirty: BTreeMap<u64, Vec<Patch>>,
    /// The lengths since the last sync, ascending, the durable one first. Never empty.
    pub lens: Vec<u64>,
}

impl Inode {
    /// A file with nothing in doubt.
    pub fn at_rest(path: PathBuf, content: Arc<Content>) -> Inode {
        let lens = vec![content.len];
        Inode { path, live: content.clone(), durable: content, dirty: BTreeMap::new(), lens }
    }

    fn set_live_len(&mut self, len: u64) {
        if self.lens.last() != Some(&len) {
            self.lens.push(len);
        }
    }

    fn write(&mut self, op: u64, offset: u64, data: &Arc<[u8]>) {
        let live = Arc::make_mut(&mut self.live);
        live.write(offset, data);
        for (no, part, from) in pieces(offset, data.len()) {
            let patch = Patch { op, data: data.clone(), from, at: part.start };
            self.dirty.entry(no).or_default().push(patch);
        }
        let len = live.len;
        self.set_live_len(len);
    }

    fn sync(&mut self) {
        if self.dirty.is_empty() && self.lens.len() == 1 {
            return;
        }
        let durable = Arc::make_mut(&mut self.durable);
        for no in std::mem::take(&mut self.dirty).into_keys() {
            if let Some(sector) = self.live.sectors.get(&no) {
                durable.sectors.insert(no, sector.clone());
            }
        }
        durable.len = self.live.len;
        self.lens = vec![durable.len];
    }
}

/// One operation, with all that is needed to do it again.
#[derive(Clone, Debug)]
pub(super) enum Op {
    MakeDirs(Vec<PathBuf>),
    Create {
        path: PathBuf,
        id: u64,
    },
    Remove {
        path: PathBuf,
    },
    Link {
        id: u64,
        to: PathBuf,
    },
    SyncDir {
        dir: PathBuf,
    },
    Write {
        id: u64,
        offset: u64,
        data: Arc<[u8]>,
        window: bool,
    },
    Allocate {
        id: u64,
        len: u64,
    },
    Sync {
        id: u64,
    },
    /// The bytes at rest were changed behind the program's back.
    Damage {
        id: u64,
        content: Arc<Content>,
    },
}

#[derive(Clone, Default, Debug)]
pub(super) struct Disk {
    pub dirs: BTreeMap<PathBuf, Dir>,
    pub files: BTreeMap<u64, Inode>,
    pub next_id: u64,
}

/// Whether `dir` is there without ever being made: a root, or where relative paths begin.
pub(super) fn is_root(dir: &Path) -> bool {
    dir.parent().is_none()
}

/// Splits a path into its directory and its last name.
pub(super) fn split(path: &Path) -> Option<(&Path, &OsStr)> {
    Some((path.parent()?, path.file_name()?))
}

impl Disk {
    /// What `path` stands for now.
    pub fn node(&self, path: &Path) -> Option<Node> {
        if is_root(path) {
            return Some(Node::Dir);
        }
        let (dir, name) = split(path)?;
        *self.dirs.get(dir)?.names.get(name)?.last()?
    }

    /// The names in `dir` now.
    pub fn names<'a>(&'a self, dir: &Path) -> impl Iterator<Item = (&'a OsString, Node)> {
        let names = self.dirs.get(dir).map(|dir| dir.names.iter());
        names.into_iter().flatten().filter_map(|(name, versions)| Some((name, (*versions.last()?)?)))
    }

    /// How many names the file has now.
    pub fn names_of(&self, id: u64) -> u64 {
        let nodes = self.dirs.keys().flat_map(|dir| self.names(dir)).map(|(_, node)| node);
        nodes.filter(|node| *node == Node::File(id)).count() as u64
    }

    /// The files that any version of any name stands for.
    pub fn reachable(&self) -> BTreeSet<u64> {
        let versions = self.dirs.values().flat_map(|dir| dir.names.values().flatten());
        versions.filter_map(|node| if let Some(Node::File(id)) = node { Some(*id) } else { None }).collect()
    }

    /// The files that have a name now.
    pub fn named(&self) -> BTreeSet<u64> {
        let nodes = self.dirs.keys().flat_map(|dir| self.names(dir)).map(|(_, node)| node);
        nodes.filter_map(|node| if let Node::File(id) = node { Some(id) } else { None }).collect()
    }

    fn set_name(&mut self, path: &Path, node: Option<Node>) {
        if let Some((dir, name)) = split(path) {
            let dir = self.dirs.entry(dir.to_path_buf()).or_default();
            dir.names.entry(name.to_os_string()).or_insert_with(|| vec![None]).push(node);
        }
    }

    /// Does operation number `no`, which is known to be possible.
    pub fn apply(&mut self, no: u64, op: &Op) {
        match op {
            Op::MakeDirs(dirs) => {
                for dir in dirs {
                    self.set_name(dir, Some(Node::Dir));
                    self.dirs.entry(dir.clone()).or_default();
                }
            }
            Op::Create { path, id } => {
                self.set_name(path, Some(Node::File(*id)));
                self.next_id = self.next_id.max(id + 1);
                self.files.insert(*id, Inode::at_rest(path.clone(), Arc::default()));
            }
            Op::Remove { path } => self.set_name(path, None),
            Op::Link { id, to } => self.set_name(to, Some(Node::File(*id))),
            Op::SyncDir { dir } => {
                if let Some(dir) = self.dirs.get_mut(dir) {
                    dir.names.values_mut().for_each(|versions| drop(versions.drain(..versions.len() - 1)));
                    dir.names.retain(|_, versions| versions[0].is_some());
                }
            }
            Op::Write { id, offset, data, .. } => self.change(*id, |f| f.write(no, *offset, data)),
            Op::Allocate { id, len } => self.change(*id, |f| {
                if *len > f.live.len {
                    Arc::make_mut(&mut f.live).len = *len;
                    f.set_live_len(*len);
                }
            }),
            Op::Sync { id } => self.change(*id, Inode::sync),
            Op::Damage { id, content } => {
                self.change(*id, |f| *f = Inode::at_rest(f.path.clone(), content.clone()))
            }
        }
    }

    fn change(&mut self, id: u64, how: impl FnOnce(&mut Inode)) {
        if let Some(inode) = self.files.get_mut(&id) {
            how(inode);
        }
    }

    /// See [`SimFs::digest`](crate::fs::sim::SimFs::digest).
    pub fn digest(&self) -> u64 {
        let (mut out, mut seen) = (0, BTreeMap::new());
        for dir in self.dirs.keys() {
            out = mix(out, xxh3_64(dir.as_os_str().as_encoded_bytes()));
            for (name, node) in self.names(dir) {
                out = mix(out, xxh3_64(name.as_encoded_bytes()));
                let Node::File(id) = node else { continue };
                // Files by the order of their first names, whatever their numbers.
                let count = seen.len() as u64;
                let (order, new) = (*seen.entry(id).or_insert(count), seen.len() as u64 > count);
                out = mix(out, order);
                if let Some(inode) = self.files.get(&id).filter(|_| new) {
                    out = mix(out, inode.live.len);
                    inode.live.for_each_shown(|no, sector| out = mix(mix(out, no), xxh3_64(sector)));
                }
            }
        }
        out
    }

    /// Writes an operation as a line of text.
    pub fn describe(&self, op: &Op, f: &mut dyn fmt::Write) -> fmt::Result {
        let file = |id: &u64| self.files.get(id).map_or(Path::new("?"), |inode| &inode.path).display();
        match op {
            Op::MakeDirs(dirs) => {
                f.write_str("create_dir_all")?;
                dirs.iter().try_for_each(|dir| write!(f, " {}", dir.display()))
            }
            Op::Create { path, .. } => write!(f, "create {}", path.display()),
            Op::Remove { path } => write!(f, "remove {}", path.display()),
            Op::Link { id, to } => write!(f, "link {} {}", file(id), to.display()),
            Op::SyncDir { dir } => write!(f, "sync_dir {}", dir.display()),
            Op::Write { id, offset, data, window } => {
                let how = if *window { "write (window)" } else { "write" };
                write!(f, "{how} {} {} bytes at {offset}", file(id), data.len())
            }
            Op::Allocate { id, len } => write!(f, "allocate {} {len}", file(id)),
            Op::Sync { id } => write!(f, "sync {}", file(id)),
            Op::Damage { id, .. } => write!(f, "damage {}", file(id)),
        }
    }
}
