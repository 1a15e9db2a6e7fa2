//! Publishing what jobs made: the names of new tables become durable, then the edit that adds them.

use crate::db::core::{Core, Installed};
use crate::db::tree::Tree;
use crate::error::{Error, Result};
use crate::job::output::{OutputOptions, discard};
use crate::table::WriteOptions;
use crate::version::TableMeta;

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

    /// Makes the names of new tables durable, then installs them.
    pub fn publish(&self, installed: Installed, mut made: MadeTables<'_>) -> Result<()> {
        if !made.tables.is_empty() {
            self.fs.sync_dir(&self.dir).map_err(|e| Error::io("syncing the directory", &self.dir, e))?;
        }
        let result = self.install(installed);
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
