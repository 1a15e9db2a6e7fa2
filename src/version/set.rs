//! The one place where edits are applied: written and synced first, then made.

use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::fs::names::Name;
use crate::ids::FileNo;
use crate::version::edit::Edit;
use crate::version::manifest::{Blank, Manifest};
use crate::version::state::State;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The size at which a manifest is replaced that had `bytes` when it was new.
fn roll_size(bytes: u64) -> u64 {
    bytes.saturating_mul(4).max(1 << 20)
}
/// After a replacement that found no room, the manifest grows by so much before the next try.
const ROLL_RETRY: u64 = 64 << 10;

/// The state and the manifest that keeps it.
pub(crate) struct VersionSet {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    state: State,
    manifest: Manifest,
    /// Where salts for new manifests come from.
    salts: Box<dyn FnMut() -> u64 + Send>,
    /// The size at which the manifest is replaced.
    roll_at: u64,
    /// Where `roll_at` comes from; tests put another in its place.
    roll_rule: fn(u64) -> u64,
    /// Edits applied and bytes written, to this manifest and those before it.
    edits: u64,
    bytes_written: u64,
    /// The first failure that left unknown what is on disk.
    failed: Option<Error>,
}

impl VersionSet {
    /// Begins a new manifest with a snapshot of `state`, whose `next_file` must be beyond every
    /// number in the directory, and removes the manifests `old`. When this returns, the new one is
    /// durable; that the old ones are gone is so with the next sync of the directory.
    pub fn open(
        fs: Arc<dyn Fs>,
        dir: &Path,
        mut state: State,
        old: &[FileNo],
        mut salts: Box<dyn FnMut() -> u64 + Send>,
    ) -> Result<VersionSet> {
        let no = state.next_file;
        state.saw_file(no)?;
        let manifest = Manifest::create(&*fs, dir, no, salts(), &state)?;
        let first_roll = roll_size(manifest.bytes());
        let bytes_written = manifest.bytes();
        let set = VersionSet {
            fs,
            dir: dir.into(),
            state,
            manifest,
            salts,
            roll_at: first_roll,
            roll_rule: roll_size,
            edits: 0,
            bytes_written,
            failed: None,
        };
        set.remove_old(old);
        Ok(set)
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// The number of the last edit that is durable.
    pub fn last_edit(&self) -> u64 {
        self.state.edit
    }

    /// How many edits were applied since opening.
    pub fn edits(&self) -> u64 {
        self.edits
    }

    /// Bytes of manifest written since opening.
    pub fn bytes_written(&self) -> u64 {
        self.bytes_written
    }

    /// The manifest being written.
    #[cfg(test)]
    pub fn manifest(&self) -> FileNo {
        self.manifest.no()
    }

    /// Why no edit can be applied any more.
    pub fn failed(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    /// A number for a new file. It becomes known on disk with the next edit; one that is never used
    /// is simply skipped.
    pub fn new_file_no(&mut self) -> FileNo {
        let no = self.state.next_file;
        self.state.next_file.0 += 1;
        no
    }

    /// Says that no keyspace has the id `n` or a larger one; the next edit carries it.
    pub fn set_next_keyspace(&mut self, n: u32) {
        self.state.next_keyspace = self.state.next_keyspace.max(n);
    }

    /// Makes the edit durable, then part of the state.
    ///
    /// An edit that contradicts the state is refused, and a full disk refuses it too: then nothing
    /// happened, and later edits may succeed. After any other failure every later edit fails with
    /// the same error, and whether this one is on disk is unknown: none of the files that it adds or
    /// removes may be deleted until the database was opened again.
    pub fn apply(&mut self, edit: &Edit) -> Result<()> {
        if let Some(e) = &self.failed {
            return Err(e.clone());
        }
        let counters = self.state.next_counters();
        let undo = self
            .state
            .change(counters, edit)
            .map_err(|e| Error::invalid(format!("the edit contradicts the state: {e}")))?;
        let before = self.manifest.bytes();
        if let Err(e) = self.manifest.append(counters, edit) {
            self.state.revert(undo);
            self.failed = self.manifest.failed().cloned();
            return Err(e);
        }
        self.edits += 1;
        self.bytes_written += self.manifest.bytes() - before;
        if self.manifest.bytes() > self.roll_at {
            self.roll();
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn set_roll_rule(&mut self, rule: fn(u64) -> u64) {
        self.roll_rule = rule;
        self.roll_at = rule(self.manifest.bytes());
    }

    /// Replaces the manifest by a new one. The last edit is durable whatever happens here.
    fn roll(&mut self) {
        let old = self.manifest.no();
        let no = self.new_file_no();
        let blank = match Blank::create(&*self.fs, &self.dir, no, &self.state) {
            Ok(blank) => blank,
            Err(e) => {
                // Nothing is in the new file, so the old one goes on.
                log::warn!(target: "esker", "the manifest could not be replaced for now: {e}");
                self.roll_at = self.manifest.bytes().saturating_add(ROLL_RETRY);
                return;
            }
        };
        // From here on the new file may count, without the edits that the old one would get.
        match blank.begin(&*self.fs, &self.dir, (self.salts)()) {
            Ok(new) => {
                self.roll_at = (self.roll_rule)(new.bytes());
                self.bytes_written += new.bytes();
                self.manifest = new;
                self.remove_old(&[old]);
                if let Err(e) = self.fs.sync_dir(&self.dir) {
                    log::warn!(target: "esker", "{}", Error::io("syncing the directory", &self.dir, e));
                }
            }
            Err(e) => {
                log::error!(target: "esker", "replacing the manifest failed: {e}");
                self.failed = Some(e.for_good());
            }
        }
    }

    /// Removes manifests that no longer count. The directory is synced afterwards: should one come back after
    /// a power loss, and the new one be destroyed, it must not be taken for the newest.
    fn remove_old(&self, old: &[FileNo]) {
        for &no in old {
            let path = Name::Manifest(no).path(&self.dir);
            match self.fs.remove(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    log::warn!(target: "esker", "{}", Error::io("removing an old manifest", &path, e));
                }
                _ => {}
            }
        }
    }
}

impl fmt::Debug for VersionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VersionSet")
            .field("manifest", &self.manifest.no())
            .field("edit", &self.state.edit)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}
