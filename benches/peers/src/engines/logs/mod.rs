//! The engines as keepers of logs, behind one face: numbered groups, each a dense sequence of entries
//! from 0 on, of which the beginning is let go of. The settings and the reasons are in README.md.

mod esker;
#[cfg(feature = "fjall")]
mod fjall;
#[cfg(feature = "raft-engine")]
mod raft_engine;

use crate::Outcome;
use std::ops::Range;
use std::path::PathBuf;

/// Of the journal that opening may have to read, where an engine bounds that: fjall takes no less.
pub const JOURNAL: u64 = 64 << 20;

#[derive(Clone)]
pub struct Setup {
    pub dir: PathBuf,
    /// Bytes of a memtable, of a file of the log, and of the newest entries kept in memory.
    pub memory: usize,
    /// Bytes of entries that live in the end.
    #[cfg_attr(not(feature = "raft-engine"), expect(dead_code))]
    pub live: u64,
    /// Entries of each group that are kept.
    #[cfg_attr(not(feature = "raft-engine"), expect(dead_code))]
    pub keep: Option<u64>,
}

/// What the files of a log should take at most: twice what lives, and two of them.
pub fn room(live: u64, file: usize) -> u64 {
    2 * live + 2 * file as u64
}

/// What a commit does to one group.
pub struct Change<'a> {
    pub group: u64,
    /// Where the new entries go: at its end.
    pub first: u64,
    /// The entries, each `len` bytes, which begin with the group and the index: see [`header`].
    pub bytes: &'a [u8],
    pub len: usize,
    /// What goes, from the first entry there is.
    pub purge: Range<u64>,
}

impl<'a> Change<'a> {
    pub fn entries(&self) -> impl Iterator<Item = (u64, &'a [u8])> + use<'a> {
        (self.first..).zip(self.bytes.chunks_exact(self.len))
    }
}

pub const HEADER: usize = 16;

/// What an entry begins with.
pub fn header(group: u64, index: u64) -> [u8; HEADER] {
    let mut out = [0; HEADER];
    out[..8].copy_from_slice(&group.to_be_bytes());
    out[8..].copy_from_slice(&index.to_be_bytes());
    out
}

/// Logs. A commit survives power loss.
pub trait LogEngine: Sync {
    /// All in one commit.
    fn commit(&self, changes: &[Change]) -> Outcome;
    /// From the first entry of a group to the next there will be.
    fn bounds(&self, group: u64) -> Outcome<Range<u64>>;
    /// Shows the entries of a range, in order, until they exceed so many bytes together (at least one);
    /// how many. The range is not much longer than that.
    fn read(
        &self,
        group: u64,
        range: Range<u64>,
        most: usize,
        see: &mut dyn FnMut(u64, &[u8]) -> Outcome,
    ) -> Outcome<u64>;
    /// Syncs of the journal, if the engine counts them.
    fn syncs(&self) -> Option<u64> {
        None
    }
}

pub fn open(engine: &str, setup: &Setup) -> Outcome<Box<dyn LogEngine>> {
    match engine {
        "esker" => Ok(Box::new(esker::Esker::open(setup)?)),
        #[cfg(feature = "fjall")]
        "fjall" => Ok(Box::new(fjall::Fjall::open(setup)?)),
        #[cfg(feature = "raft-engine")]
        "raft-engine" => Ok(Box::new(raft_engine::RaftEngine::open(setup)?)),
        other => Err(format!("no engine called {other} keeps logs").into()),
    }
}
