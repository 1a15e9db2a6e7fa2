//! Names and ids: what the catalog's rows say, in memory. Changed only by applying rows, in commit
//! order, by commits and by replay alike.

use crate::catalog::{self, Kind, Row};
use crate::db::throttle::Throttle;
use crate::db::tree::{Slot, Tree, put_in_order};
use crate::error::Result;
use crate::ids::{KeyspaceId, Seq};
use crate::memtable::{self, Pool};
use crate::options::KeyspaceOptions;
use crate::view::run::Run;
use crate::view::{Mem, View};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A tree no name stands for any more, until the manifest has forgotten it.
pub(crate) struct Dropped {
    pub seq: Seq,
    pub tree: Arc<Tree>,
}

#[derive(Default)]
pub(crate) struct Registry {
    /// By catalog key.
    pub slots: BTreeMap<Vec<u8>, Arc<Slot>>,
    /// By id, with the catalog key of the name that owns it.
    trees: HashMap<KeyspaceId, (Vec<u8>, Arc<Tree>)>,
    pub dropped: Vec<Dropped>,
    /// Slots whose history holds more than the present.
    aged: Vec<Arc<Slot>>,
    /// What is older than this has been taken out of them.
    forgotten: Seq,
    /// Where memtables have their memory from.
    pool: Arc<Pool>,
    /// The next id to give.
    pub next_id: u32,
    /// While opening: tables of keyspaces whose rows have not been read yet. The row of a keyspace
    /// may still be in the journal when its first tables are long in the manifest.
    pub unborn: HashMap<KeyspaceId, Unborn>,
    /// For every tree that is made.
    pub throttle: Arc<Throttle>,
}

/// The tables of a keyspace, and up to where they hold everything.
pub(crate) struct Unborn {
    pub runs: Vec<Arc<Run>>,
    pub flushed: Seq,
}

/// What applying a row made: a tree that needs a memtable writer.
pub(crate) struct Made {
    pub tree: Arc<Tree>,
    pub writer: memtable::Writer,
    pub kind: Kind,
}

/// A tree with an empty memtable over `tables`.
fn new_tree(
    id: KeyspaceId,
    options: KeyspaceOptions,
    tables: Option<Unborn>,
    pool: &Arc<Pool>,
    throttle: &Arc<Throttle>,
) -> Made {
    let (writer, table) = memtable::new_in(pool);
    let (runs, flushed) = tables.map_or((Vec::new(), Seq::ZERO), |t| (t.runs, t.flushed));
    let view = View { memtables: vec![Mem::new(table)], runs, flushed };
    let tree = Arc::new(Tree::new(id, options, view, throttle.clone()));
    Made { tree, writer, kind: Kind::Keyspace }
}

/// A tree that holds nothing.
pub(crate) fn empty_tree() -> Arc<Tree> {
    new_tree(KeyspaceId::CATALOG, KeyspaceOptions::default(), None, &Arc::default(), &Arc::default()).tree
}

impl Registry {
    pub fn new(pool: &Arc<Pool>) -> Registry {
        Registry { pool: pool.clone(), ..Registry::default() }
    }

    /// The catalog's own tree: it has no name.
    pub fn make_catalog(&mut self) -> Made {
        let id = KeyspaceId::CATALOG;
        let made =
            new_tree(id, KeyspaceOptions::default(), self.unborn.remove(&id), &self.pool, &self.throttle);
        self.trees.insert(id, (Vec::new(), made.tree.clone()));
        made
    }

    pub fn trees(&self) -> impl Iterator<Item = &Arc<Tree>> {
        self.trees.values().map(|(_, tree)| tree)
    }

    /// Every tree that may be read, each once.
    pub fn all_trees(&self) -> Vec<Arc<Tree>> {
        let dropped = self.dropped.iter().map(|d| d.tree.clone());
        let past = self.aged.iter().flat_map(|slot| slot.past());
        let mut all = self.trees().cloned().chain(dropped).chain(past).collect();
        put_in_order(&mut all);
        all
    }

    pub fn tree(&self, id: KeyspaceId) -> Option<&Arc<Tree>> {
        self.trees.get(&id).map(|(_, tree)| tree)
    }

    /// The name a tree goes by; none for the catalog, and for one that was dropped.
    pub fn name(&self, id: KeyspaceId) -> Option<String> {
        let (key, _) = self.trees.get(&id)?;
        catalog::name(key).ok().map(|(_, name)| name)
    }

    /// What stands under `name`, of whatever kind.
    pub fn named(&self, name: &str) -> Option<Kind> {
        let there = |kind: &Kind| catalog::key(*kind, name).is_ok_and(|key| self.slots.contains_key(&key));
        Kind::ALL.into_iter().find(there)
    }

    /// The trees of logs.
    pub fn logs(&self) -> Vec<Arc<Tree>> {
        let is_logs = |key: &[u8]| catalog::name(key).is_ok_and(|(kind, _)| kind == Kind::Logs);
        self.trees.values().filter(|(key, _)| is_logs(key)).map(|(_, tree)| tree.clone()).collect()
    }

    /// Applies a row that was put at `seq`. Answers a tree if this made one.
    pub fn put(&mut self, key: &[u8], row: &[u8], seq: Seq) -> Result<Option<Made>> {
        let (kind, _) = catalog::name(key)?;
        let row = Row::decode(row)?;
        self.next_id = self.next_id.max(row.id.0.saturating_add(1));
        if let Some((owner, tree)) = self.trees.get_mut(&row.id)
            && owner == key
        {
            *tree.options.lock() = row.options;
            return Ok(None);
        }
        let (tree, made) = match self.trees.get_mut(&row.id) {
            // The tree changes its name: the one it had goes with a row of its own.
            Some((owner, tree)) => {
                *owner = key.to_vec();
                (tree.clone(), None)
            }
            None => {
                let unborn = self.unborn.remove(&row.id);
                let made = Made { kind, ..new_tree(row.id, row.options, unborn, &self.pool, &self.throttle) };
                self.trees.insert(row.id, (key.to_vec(), made.tree.clone()));
                (made.tree.clone(), Some(made))
            }
        };
        match self.slots.get(key).cloned() {
            Some(slot) => {
                self.release(&slot, seq);
                slot.change(seq, Some(tree));
                self.aged.push(slot);
            }
            None => {
                self.slots.insert(key.to_vec(), Arc::new(Slot::new(key.to_vec(), seq, tree)));
            }
        }
        Ok(made)
    }

    /// Applies the removal of a row at `seq`.
    pub fn delete(&mut self, key: &[u8], seq: Seq) {
        if let Some(slot) = self.slots.remove(key) {
            self.release(&slot, seq);
            slot.change(seq, None);
            self.aged.push(slot);
        }
    }

    /// The tree that `slot` stands for is dropped, unless it goes on under another name.
    fn release(&mut self, slot: &Arc<Slot>, seq: Seq) {
        let Some(tree) = slot.tree.load_full() else { return };
        if self.trees.get(&tree.id).is_some_and(|(owner, _)| *owner == slot.key) {
            self.trees.remove(&tree.id);
            tree.discount();
            self.dropped.push(Dropped { seq, tree });
        }
    }

    /// Lets go of what was dropped at `seq` or before: the manifest has forgotten it.
    pub fn forget_dropped(&mut self, seq: Seq) {
        // They come in the order of commits.
        let first = self.dropped.partition_point(|d| d.seq <= seq);
        self.dropped.drain(..first);
    }

    /// Takes out what only snapshots older than `oldest` could read.
    pub fn forget_before(&mut self, oldest: Seq) -> Vec<Arc<Tree>> {
        let mut forgotten = Vec::new();
        // Whatever came since has become old at a later number.
        if oldest > self.forgotten {
            self.forgotten = oldest;
            self.aged.retain(|slot| slot.forget_before(oldest, &mut forgotten));
        }
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: u32) -> Vec<u8> {
        Row { id: KeyspaceId(id), options: KeyspaceOptions::default() }.encode()
    }

    fn seq(n: u64) -> Seq {
        Seq::new(n).unwrap()
    }

    #[test]
    fn a_replaced_keyspace_is_dropped_and_the_staging_tree_lives_on() {
        let mut r = Registry::default();
        let [users_key, staging_key] = ["users", "staging"].map(|n| catalog::key(Kind::Keyspace, n).unwrap());
        assert!(r.put(&users_key, &row(1), seq(1)).unwrap().is_some());
        assert!(r.put(&staging_key, &row(2), seq(2)).unwrap().is_some());
        let users = r.slots[&users_key].clone();
        let staging = r.slots[&staging_key].clone();
        // Replacing is these two rows in one batch.
        assert!(r.put(&users_key, &row(2), seq(3)).unwrap().is_none());
        r.delete(&staging_key, seq(4));
        assert_eq!(users.tree.load().as_ref().unwrap().id, KeyspaceId(2));
        assert!(staging.tree.load().is_none());
        assert_eq!(r.dropped.iter().map(|d| d.tree.id.0).collect::<Vec<_>>(), [1]);
        assert!(r.tree(KeyspaceId(1)).is_none() && r.tree(KeyspaceId(2)).is_some());
        // A snapshot from before still reads the old tree, one from before the start nothing.
        assert_eq!(users.tree_at(seq(2)).ok().flatten().unwrap().id, KeyspaceId(1));
        assert!(users.tree_at(seq(0)).is_err());
        assert_eq!(r.forget_before(seq(9)).len(), 2);
        assert!(r.aged.is_empty());
        assert_eq!(users.tree_at(seq(9)).ok().flatten().unwrap().id, KeyspaceId(2));
    }
}
