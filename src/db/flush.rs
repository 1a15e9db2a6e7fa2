//! Flushing: frozen memtables become tables of level 0.

use crate::db::appender::Boundary;
use crate::db::clock::Moment;
use crate::db::core::{Core, Installed};
use crate::db::events::Sum;
use crate::db::publish::MadeTables;
use crate::db::tree::Tree;
use crate::error::Result;
use crate::ids::Seq;
use crate::job::flush;
use crate::memtable::Memtable;
use crate::mutant::Mutant;
use crate::table::Unsynced;
use crate::version::Change;
use std::sync::Arc;

/// So many tables are written before they are synced: open files are few.
const SYNCED_TOGETHER: usize = 64;

/// The frozen memtables of a tree, and the newest of their operations.
type Frozen<'a> = (&'a Arc<Tree>, Vec<Arc<Memtable>>, Seq);

impl Core {
    /// Flushes the frozen memtables of `trees`: one directory sync and one edit for all of them, and
    /// their tables synced together, since what the first sync costs the others are spared.
    pub fn flush_trees(&self, trees: &[Arc<Tree>]) -> Result<()> {
        let mut frozen: Vec<Frozen<'_>> = Vec::new();
        for tree in trees {
            let mems: Vec<_> = tree.view.load().memtables.iter().skip(1).map(|m| m.table.clone()).collect();
            if let Some(last) = mems.iter().map(|m| m.max_seq()).max() {
                frozen.push((tree, mems, last));
            }
        }
        let Some(last) = frozen.iter().map(|f| f.2).max() else { return Ok(()) };
        let began = Moment::now();
        self.snapshots.meet(began);
        // The state after a crash must be a prefix over all keyspaces. Either everything before some
        // place of the journal is in tables once these are published, or they are published only
        // once the journal is durable up to their newest operation.
        let alone = self.stands_alone(&frozen, last);
        if alone.is_none() && !Mutant::FlushBeforeJournal.on() {
            self.sync_to(last)?;
        }
        let horizon = self.snapshots.horizon();
        let mut installed = Installed::default();
        let mut made = MadeTables { core: self, tables: Vec::new() };
        let (mut done, mut claims, mut unsynced) = (Vec::new(), Vec::new(), Vec::new());
        for (tree, mems, last) in frozen {
            let id = tree.id;
            let new_table = &mut || self.new_table();
            let (tables, written) = flush::flush(&mems, &horizon, &self.store, self.output(tree), new_table)?;
            made.note(&tables);
            unsynced.extend(written);
            if unsynced.len() >= SYNCED_TOGETHER {
                unsynced.drain(..).try_for_each(Unsynced::sync)?;
            }
            done.push((tree, Sum::of(&tables)));
            if tables.iter().any(|t| t.range_deletes > 0) {
                let ranges: Vec<_> = mems.iter().filter_map(|m| m.range_sets()).collect();
                let thinned = horizon.thin(ranges.iter().flat_map(|sets| sets.deletes()));
                let hidden = self.claim_hidden(id, &thinned, &horizon);
                let (gone, claim) = hidden.unzip();
                installed.changes.extend(gone.into_iter().flatten());
                claims.extend(claim);
            }
            let add = |table| Change::AddTable { keyspace: id, level: 0, run: last, table };
            installed.changes.extend(tables.into_iter().map(add));
            installed.changes.push(Change::Flushed { keyspace: id, seq: last });
            installed.flushed.push((id, mems, last));
            installed.touched.push(id);
        }
        unsynced.into_iter().try_for_each(Unsynced::sync)?;
        self.publish(installed, made, alone)?;
        drop(claims);
        for (tree, made) in done {
            self.note_flush(tree, made, began);
        }
        for tree in trees {
            self.work.want_compact(tree.clone());
        }
        Ok(())
    }

    /// Behind which place of the journal nothing but these memtables needs it, if there is one at or
    /// behind `last`, the newest operation in them, and most of that is not durable anyway.
    fn stands_alone(&self, frozen: &[Frozen<'_>], last: Seq) -> Option<Boundary> {
        if self.snapshots.durable() >= last {
            return None;
        }
        let boundary = self.commit.lock().boundaries.iter().find(|b| b.seq >= last).copied()?;
        let flushed = |m: &Arc<Memtable>| frozen.iter().any(|f| f.1.iter().any(|g| Arc::ptr_eq(g, m)));
        self.is_needless_before(boundary, flushed).then_some(boundary)
    }

    /// Flushes what is frozen, when nobody else does any work any more.
    pub fn flush_last(&self) -> Result<()> {
        let trees: Vec<Arc<Tree>> = self.registry.lock().trees().cloned().collect();
        self.flush_trees(&trees)
    }
}
