//! Verifying: everything on disk is read and held against what was written there, and against each
//! other.

use crate::db::core::Core;
use crate::db::handle::Db;
use crate::db::kept::Kept;
use crate::db::{logwork, open};
use crate::error::{Error, Result};
use crate::fs::names::Name;
use crate::journal::{self, Announced, Verify};
use crate::table::{self, Properties};
use crate::version::{self, State, TableMeta};
use std::fmt;
use std::io;
use std::sync::Arc;

/// The manifest is read so often, at most, until no edit comes in between.
const TRIES: usize = 10;

/// What [`Db::verify`] has read, and every place it found damaged.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Verification {
    /// Each names a file and, but for a file as a whole, the offset where the damage begins. The kind
    /// is [`Corruption`](crate::ErrorKind::Corruption), or [`Io`](crate::ErrorKind::Io) for what
    /// cannot be read at all.
    pub damage: Vec<Error>,
    /// Tables, read whole.
    pub tables: u64,
    /// Journal segments, read up to where the journal is durable.
    pub segments: u64,
    /// Bytes of all files, the manifest's included.
    pub bytes: u64,
}

impl Verification {
    /// Whether no damage was found.
    pub fn is_ok(&self) -> bool {
        self.damage.is_empty()
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verification { damage, tables, segments, bytes } = self;
        write!(f, "{tables} tables, {segments} journal segments, {bytes} bytes: ")?;
        match damage.len() {
            0 => f.write_str("no damage"),
            1 => write!(f, "damage in one place"),
            n => write!(f, "damage in {n} places"),
        }?;
        damage.iter().try_for_each(|e| write!(f, "\n{e}"))
    }
}

impl Db {
    /// Reads all tables, the journal as far as it is durable, the manifest and the hint from disk,
    /// past all caches and maps, and reports every place that is damaged; damage is no error of this
    /// call. Behind a damaged footer or index of a table, and behind a segment without a header, no
    /// more places can be told.
    ///
    /// Costs the reading of everything, and the memory of one table's index and filter at a time.
    /// Writes go on; journal segments are not removed while the journal is read. Works on a read-only
    /// database too.
    ///
    /// Errors: [`Closed`](crate::ErrorKind::Closed) if the database is closed meanwhile.
    pub fn verify(&self) -> Result<Verification> {
        let core = self.core();
        core.open()?;
        let mut found = Verification::default();
        let written = core.verify_manifest(&mut found)?;
        core.verify_journal(written.as_ref(), &mut found)?;
        core.verify_hint(&mut found);
        core.verify_tables(written.as_ref(), &mut found)?;
        Ok(found)
    }
}

impl Core {
    /// The manifest, against the state in memory. Answers what it says.
    fn verify_manifest(&self, found: &mut Verification) -> Result<Option<State>> {
        for _ in 0..TRIES {
            self.open()?;
            let before = self.state();
            let (written, bytes) = match self.read_manifest() {
                Ok(read) => read,
                Err(_) if self.state().map(|s| s.edit) != before.map(|s| s.edit) => continue,
                Err(e) => {
                    found.damage.push(e);
                    return Ok(None);
                }
            };
            let after = self.state();
            // A failed manifest may hold an edit more; it is read again by the next open.
            let Some(state) = after.filter(|_| self.failure().is_none()) else {
                found.bytes += bytes;
                return Ok(Some(written));
            };
            if state.edit != written.edit && before.is_some_and(|s| s.edit != state.edit) {
                continue;
            }
            found.bytes += bytes;
            if !state.is_written(&written) {
                let why = "the manifest does not hold what the database consists of";
                found.damage.push(Error::corruption(why).in_file(&self.dir));
            }
            return Ok(Some(written));
        }
        Ok(None)
    }

    fn state(&self) -> Option<State> {
        self.version.lock().as_ref().map(|set| set.state().clone())
    }

    /// What the newest manifest says, and its length.
    fn read_manifest(&self) -> Result<(State, u64)> {
        let names = self.fs.list(&self.dir).map_err(|e| Error::io("listing the directory", &self.dir, e))?;
        let manifest = |(name, len): (std::ffi::OsString, Option<u64>)| match Name::parse(&name) {
            Some(Name::Manifest(no)) => Some((no, len?)),
            _ => None,
        };
        let manifests: Vec<_> = names.into_iter().filter_map(manifest).collect();
        let loaded = version::load(&*self.fs, &self.dir, &manifests)?.ok_or_else(|| {
            let newest = manifests.iter().map(|m| Name::Manifest(m.0).path(&self.dir)).max();
            let why = Error::corruption("there is no complete manifest");
            why.in_file(newest.as_deref().unwrap_or(&self.dir))
        })?;
        let len = manifests.iter().find(|m| m.0 == loaded.no).map_or(0, |m| m.1);
        Ok((loaded.state, len))
    }

    /// The journal, as the state names its segments; as `written` does in a read-only database.
    fn verify_journal(&self, written: Option<&State>, found: &mut Verification) -> Result<()> {
        let kept = Kept::new(self);
        self.open()?;
        // Before the state: it names every segment that holds anything durable by now.
        let (durable, _) = self.sync.durable_position();
        let Some(state) = self.state().or(written.cloned()) else { return Ok(()) };
        // Those that only logs are in, after those of the journal.
        let mut segments = open::announced(&state);
        let for_logs = open::for_logs(&state);
        segments.extend(for_logs.iter().map(|whole| {
            let (no, salt, start) = (whole.no, whole.salt, whole.start);
            Announced { no, salt, sealed: Some((start, start.plus(whole.len))) }
        }));
        let input = Verify {
            fs: &*self.fs,
            dir: &self.dir,
            db: self.id,
            segments: &segments,
            start: state.sealed_end,
            durable,
        };
        let verified = journal::verify(&input, &mut |e| found.damage.push(e));
        for whole in &for_logs {
            self.open()?;
            let access = &self.logs.access;
            match logwork::verify_footer(access, self.id, whole, &mut |e| found.damage.push(e)) {
                Ok(bytes) => found.bytes += bytes,
                Err(e) => found.damage.push(e),
            }
        }
        drop(kept);
        found.segments += verified.segments;
        found.bytes += verified.bytes;
        Ok(())
    }

    /// The hint is not relied on to be there, or whole; what it says must be true.
    fn verify_hint(&self, found: &mut Verification) {
        let Some(hint) = journal::read_hint(&*self.fs, &self.dir, self.id) else { return };
        let (durable, _) = self.sync.durable_position();
        if hint > durable {
            let why = format!("the hint names position {hint}, and the journal is durable up to {durable}");
            found.damage.push(Error::corruption(why).in_file(&Name::Hint.path(&self.dir)));
        }
    }

    /// The tables that the state names, or `written` in a read-only database.
    fn verify_tables(&self, written: Option<&State>, found: &mut Verification) -> Result<()> {
        let version = self.version.lock();
        // Their files stay as long as these do. Those of a keyspace that was dropped long ago may be
        // gone.
        let views = self.all_views();
        let state = version.as_ref().map(|set| set.state()).or(written);
        let is_named = |meta: &TableMeta| state.is_none_or(|s| s.table(meta.no).is_some());
        let tables = views.iter().flat_map(|v| &v.runs).flat_map(|run| run.tables.iter());
        let tables: Vec<Arc<TableMeta>> =
            tables.map(|table| table.meta.clone()).filter(|meta| is_named(meta)).collect();
        drop(version);
        for meta in tables {
            self.open()?;
            self.verify_table(&meta, found);
        }
        Ok(())
    }

    fn verify_table(&self, meta: &TableMeta, found: &mut Verification) {
        let path = Name::Table(meta.no).path(&self.dir);
        let file = match self.fs.open_read(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                found.damage.push(Error::corruption("a table is missing").in_file(&path));
                return;
            }
            Err(e) => {
                found.damage.push(Error::io("opening a table", &path, e));
                return;
            }
        };
        found.tables += 1;
        found.bytes += meta.size;
        let cache = self.store.cache();
        let damage = &mut found.damage;
        let said = table::verify(file, &path, (meta.id, meta.size), cache, &mut |e| damage.push(e));
        if said.is_some_and(|said| !agrees(meta, &said)) {
            let why = "a table is not what the manifest says of it";
            found.damage.push(Error::corruption(why).in_file(&path));
        }
    }
}

/// Whether a table says of itself what the manifest says of it. The manifest may have it answer for
/// more keys than there are in it.
fn agrees(meta: &TableMeta, said: &Properties) -> bool {
    let ends = match (&meta.end, &said.end) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(outer), Some(inner)) => inner <= outer,
    };
    let counts = (meta.entries, meta.deletes, meta.range_deletes, meta.raw_bytes);
    counts == (said.entries, said.deletes, said.range_deletes, said.raw_bytes)
        && (meta.min_seq, meta.max_seq) == (said.min_seq, said.max_seq)
        && meta.smallest <= said.smallest
        && ends
}
