//! Flushing: frozen memtables become tables of level 0.

use crate::db::appender::Boundary;
use crate::db::clock::Moment;
use crate::db::core::{Core, Installed};
use crate::db::events::Sum;
use crate::db::part::Part;
use crate::db::publish::MadeTables;
use crate::db::tree::Tree;
use crate::error::Result;
use crate::ids::Seq;
use crate::job::flush::{self, Keys, Written};
use crate::job::output::OutputOptions;
use crate::job::retain::Horizon;
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
            let (tables, written) = self.write_tables(tree, &mems, &horizon, &mut made)?;
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

    /// Writes what memtables of a tree hold. Where writers come near to waiting for that, half of it is for
    /// another thread, if one is free.
    fn write_tables(
        &self,
        tree: &Tree,
        mems: &[Arc<Memtable>],
        horizon: &Horizon,
        made: &mut MadeTables<'_>,
    ) -> Result<Written> {
        let output = self.output(tree);
        let middle = if self.may_share(mems) { middle(mems) } else { None };
        let Some(middle) = middle else {
            let written = self.write_keys(mems, Keys::default(), horizon, output)?;
            made.note(&written.0);
            return Ok(written);
        };
        let part = Arc::new(Part::new(mems.to_vec(), middle, horizon.clone(), output));
        self.work.offer(&part);
        let first = self.write_keys(mems, Keys { from: None, to: Some(middle) }, horizon, output);
        self.work.withdraw(&part);
        let rest = match part.take() {
            Some(_) if first.is_err() => Ok((Vec::new(), Vec::new())),
            Some(_) => self.write_keys(mems, Keys { from: Some(middle), to: None }, horizon, output),
            None => part.wait(),
        };
        // Whatever failed, what was written is known by then and goes.
        [&first, &rest].into_iter().flatten().for_each(|(tables, _)| made.note(tables));
        let ((mut tables, mut unsynced), rest) = (first?, rest?);
        tables.extend(rest.0);
        unsynced.extend(rest.1);
        Ok((tables, unsynced))
    }

    fn write_keys(
        &self,
        mems: &[Arc<Memtable>],
        keys: Keys<'_>,
        horizon: &Horizon,
        output: OutputOptions,
    ) -> Result<Written> {
        flush::flush(mems, keys, horizon, &self.store, output, &mut || self.new_table())
    }

    /// Whether another thread may write part of what these memtables hold: there is much of it, and what
    /// was written meanwhile fills a quarter of the next memtable already, or more.
    fn may_share(&self, mems: &[Arc<Memtable>]) -> bool {
        let limit = self.options.memtable_limit();
        let bytes: usize = mems.iter().map(|m| m.bytes()).sum();
        self.options.workers > 1
            && bytes >= limit / 2
            && self.commit.lock().writers.active_bytes() >= limit / 4
    }

    /// Writes part of the flush that another thread is at, unless that has come to it already.
    pub fn write_part(&self, part: &Part) {
        let Some(taken) = part.take() else { return };
        let keys = Keys { from: Some(&part.from), to: None };
        taken.end(self.write_keys(&part.memtables, keys, &part.horizon, part.output));
    }

    /// Behind which place of the journal nothing but these memtables needs it, if there is one at or
    /// behind `last`, the newest operation in them, and most of that is not durable anyway.
    fn stands_alone(&self, frozen: &[Frozen<'_>], last: Seq) -> Option<Boundary> {
        if self.snapshots.durable() >= last {
            return None;
        }
        let boundary = self.commit.lock().boundaries.iter().find(|b| b.seq >= last).copied()?;
        let flushed = |m: &Arc<Memtable>| frozen.iter().any(|f| f.1.iter().any(|g| Arc::ptr_eq(g, m)));
        self.is_needless_before(boundary, &flushed).then_some(boundary)
    }

    /// Flushes what is frozen, when nobody else does any work any more.
    pub fn flush_last(&self) -> Result<()> {
        let trees: Vec<Arc<Tree>> = self.registry.lock().trees().cloned().collect();
        self.flush_trees(&trees)
    }
}

/// A key in the middle of what these memtables hold.
fn middle(mems: &[Arc<Memtable>]) -> Option<&[u8]> {
    mems.iter().max_by_key(|m| m.bytes()).and_then(|m| m.middle())
}

#[cfg(test)]
mod tests {
    use crate::db::handle::Db;
    use crate::fs::sim::SimFs;
    use crate::options::{Durability, Options};
    use std::sync::Arc;

    /// Writers are ahead, and nobody is there to take the other half.
    #[test]
    fn a_flush_in_two_parts_is_one_run() {
        let options = Options::default().durability(Durability::Buffered).memtable_bytes(256 << 10);
        let db = Db::open("/db", options.workers(2).fs(Arc::new(SimFs::new(1)))).unwrap();
        let map = db.keyspace("map").unwrap();
        let core = db.core();
        core.work.stop();
        let key = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        let mut count = 0;
        // As soon as one is frozen, a third of the next is filled.
        while core.commit.lock().writers.active_bytes() < 90 << 10
            || map.slot.tree.load_full().unwrap().view.load().memtables.len() == 1
        {
            map.put(key(count), [7; 100]).unwrap();
            count += 1;
        }
        core.flush_last().unwrap();
        let view = map.slot.tree.load_full().unwrap().view.load_full();
        let tables: Vec<u64> =
            view.runs.iter().flat_map(|run| run.tables.iter().map(|t| t.meta.entries)).collect();
        assert_eq!((view.runs.len(), tables.len(), view.memtables.len()), (1, 2, 1));
        assert!(tables.iter().all(|&entries| entries > count / 5), "{tables:?} of {count}");
        assert!((0..count).all(|i| map.get(key(i)).unwrap().is_some()));
    }
}
