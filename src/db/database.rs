//! The verbs of the database itself: names, snapshots, syncing, flushing.

use crate::batch::{Op, Ops};
use crate::catalog::{self, Kind, Row};
use crate::db::handle::{Db, Keyspace};
use crate::db::snapshot::Snapshot;
use crate::db::ticket::Watch;
use crate::error::{Error, Result};
use crate::ids::{KeyspaceId, Seq};
use crate::options::{Durability, KeyspaceOptions};
use std::sync::Arc;

impl Db {
    /// The keyspace `name`, created with the database's [options](crate::Options::keyspaces) if there is
    /// none. Creating is a commit of its own; opening costs a look-up.
    pub fn keyspace(&self, name: &str) -> Result<Keyspace> {
        self.open_keyspace(name, None)
    }

    /// The keyspace `name`, created with `options` or changed to them.
    pub fn keyspace_with(&self, name: &str, options: KeyspaceOptions) -> Result<Keyspace> {
        options.check()?;
        self.open_keyspace(name, Some(options))
    }

    fn open_keyspace(&self, name: &str, options: Option<KeyspaceOptions>) -> Result<Keyspace> {
        let core = self.core();
        let key = catalog::key(name)?;
        loop {
            core.open()?;
            let found = core.registry.lock().slots.get(&key).cloned();
            let row = match &found {
                None => {
                    core.writable()?;
                    let id = core.new_keyspace_id()?;
                    Row { id, options: options.unwrap_or(core.options.keyspaces) }
                }
                Some(slot) => {
                    let Some(tree) = slot.tree.load_full() else { continue };
                    let now = *tree.options.lock();
                    match options {
                        Some(options) if options != now => Row { id: tree.id, options },
                        _ => return Ok(Keyspace { db: self.clone(), slot: slot.clone() }),
                    }
                }
            };
            // Somebody else may have been faster: then look again.
            let same = || {
                let registry = core.registry.lock();
                match (registry.slots.get(&key), &found) {
                    (None, None) => true,
                    (Some(now), Some(then)) => {
                        Arc::ptr_eq(now, then) && now.tree.load().as_ref().is_some_and(|t| t.id == row.id)
                    }
                    _ => false,
                }
            };
            let changed = self.commit_row(Op::Put { key: &key, value: &row.encode() }, same)?;
            if changed && found.is_none() {
                log::info!(target: "esker", "created keyspace {name:?} ({})", row.id);
            }
        }
    }

    /// Commits one change of the catalog if `still` holds under the lock on commits.
    fn commit_row(&self, op: Op<'_>, still: impl Fn() -> bool) -> Result<bool> {
        let core = self.core();
        let mut ops = Ops::default();
        ops.push(KeyspaceId::CATALOG, op);
        let durability = core.options.durability;
        let Some(seq) = core.commit_ops(&ops, durability, None, |_| Ok(still()))? else { return Ok(false) };
        if durability == Durability::Sync {
            core.sync_to(seq)?;
        }
        Ok(true)
    }

    /// The names there are, and what each stands for, in order.
    pub fn names(&self) -> Result<Vec<(String, Kind)>> {
        self.core().open()?;
        let registry = self.core().registry.lock();
        registry.slots.keys().map(|key| catalog::name(key).map(|(kind, name)| (name, kind))).collect()
    }

    /// Drops the keyspace `name` with all it holds. Its handles answer
    /// [`Closed`](crate::ErrorKind::Closed) from then on; snapshots from before still read it. Costs
    /// one commit; its files go in the background, once no snapshot or iterator needs them.
    pub fn drop_keyspace(&self, name: &str) -> Result<()> {
        let key = catalog::key(name)?;
        let core = self.core();
        core.open()?;
        let there = || core.registry.lock().slots.contains_key(&key);
        if !there() || !self.commit_row(Op::Delete { key: &key }, there)? {
            return Err(Error::invalid(format!("there is no keyspace \"{name}\"")));
        }
        core.work.want_drop();
        log::info!(target: "esker", "dropped keyspace {name:?}");
        Ok(())
    }

    /// The state as of the newest commit.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::visible(self.core())
    }

    /// The newest state that survives power loss: nothing it shows can be taken back.
    pub fn durable_snapshot(&self) -> Snapshot {
        Snapshot::durable(self.core())
    }

    /// Makes every commit so far survive power loss. Costs one `fdatasync`, or none if that is so
    /// already.
    pub fn sync(&self) -> Result<()> {
        self.core().open()?;
        self.core().sync_to(self.core().snapshots.visible())
    }

    /// The sequence number of the newest commit that readers see.
    pub fn visible_seq(&self) -> Seq {
        self.core().snapshots.visible()
    }

    /// The sequence number up to which everything survives power loss.
    pub fn durable_seq(&self) -> Seq {
        self.core().snapshots.durable()
    }

    /// Tells of new commits: as they become visible ([`Durability::Buffered`]) or durable
    /// ([`Durability::Sync`]).
    pub fn watch(&self, kind: Durability) -> Watch {
        Watch::new(self.core().clone(), kind)
    }

    /// Moves everything that was committed so far from memory to tables, and waits for it. The
    /// journal before it is no longer needed.
    pub fn flush(&self) -> Result<()> {
        let core = self.core();
        core.writable()?;
        core.freeze(None);
        core.await_flushed()
    }

    /// Does one piece of background work in this thread; `false` if there is none. For databases
    /// with no [workers](crate::Options::workers), where it makes runs repeatable.
    pub fn step(&self) -> Result<bool> {
        self.core().writable()?;
        self.core().step()
    }
}
