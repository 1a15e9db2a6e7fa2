//! Publishing what jobs made: the names of new tables become durable, then the edit that adds them.

use crate::db::appender::Boundary;
use crate::db::claims::Claim;
use crate::db::core::{Core, Installed};
use crate::db::tree::Tree;
use crate::error::{Error, Result};
use crate::ids::KeyspaceId;
use crate::job::output::{OutputOptions, discard};
use crate::job::retain::{self, Horizon};
use crate::mutant::Mutant;
use crate::table::WriteOptions;
use crate::tombstones::RangeTombstones;
use crate::version::{Change, TableMeta};
use std::sync::Arc;

impl Core {
    /// How tables of this keyspace are written.
    pub fn output(&self, tree: &Tree) -> OutputOptions {
        let o = *tree.options.lock();
        let write = WriteOptions {
            block_bytes: o.block_bytes,
            compression: o.compression,
            filter_bits: o.filter_bits,
        };
        OutputOptions { write, table_bytes: self.options.table_bytes }
    }

    /// The tables of a keyspace of which no read can see anything behind these range deletes, which
    /// are about to be published: they are to go with the same edit, without being read. None that a
    /// job is at.
    pub fn claim_hidden(
        &self,
        keyspace: KeyspaceId,
        thinned: &RangeTombstones,
        horizon: &Horizon,
    ) -> Option<(Vec<Change>, Claim<'_>)> {
        if thinned.is_empty() {
            return None;
        }
        let version = self.version.lock();
        let levels = &version.as_ref()?.state().keyspaces.get(&keyspace)?.levels;
        self.claims.claim(|busy| {
            let hidden = retain::hidden(levels, thinned, horizon).filter(|(_, t)| !busy(t.no));
            let remove =
                |(level, t): (u8, &Arc<TableMeta>)| (Change::RemoveTable { keyspace, level, no: t.no }, t.no);
            let (changes, tables): (Vec<_>, Vec<_>) = hidden.map(remove).unzip();
            (!tables.is_empty()).then_some((changes, tables))
        })
    }

    /// Makes the names of new tables durable, then installs them. `alone`: after that nothing needs the
    /// journal before there.
    pub fn publish(
        &self,
        installed: Installed,
        mut made: MadeTables<'_>,
        alone: Option<Boundary>,
    ) -> Result<()> {
        if !made.tables.is_empty() && !Mutant::SkipDirSyncOfTables.on() {
            self.fs.sync_dir(&self.dir).map_err(|e| Error::io("syncing the directory", &self.dir, e))?;
        }
        let result = match alone {
            Some(boundary) => self.install_for_sync(installed, boundary),
            None => self.install(installed),
        };
        match &result {
            Ok(edit) => made.tables.retain(|no| !edit.adds(*no)),
            // After a failure that leaves unknown what the manifest holds, nothing is removed.
            Err(_) if self.failure().is_some() => made.tables.clear(),
            Err(_) => {}
        }
        result.map(|_| ())
    }
}

/// New tables that no manifest names yet: removed if the job ends before one does.
pub(crate) struct MadeTables<'a> {
    pub core: &'a Core,
    pub tables: Vec<crate::ids::FileNo>,
}

impl MadeTables<'_> {
    pub fn note(&mut self, tables: &[TableMeta]) {
        self.tables.extend(tables.iter().map(|t| t.no));
    }
}

impl Drop for MadeTables<'_> {
    fn drop(&mut self) {
        for &no in &self.tables {
            discard(&self.core.store, no);
        }
    }
}
