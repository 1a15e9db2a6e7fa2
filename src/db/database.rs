//! The verbs of the database itself: names, snapshots, syncing, flushing.

use crate::batch::{Op, Ops};
use crate::catalog::{self, Kind, Row};
use crate::db::handle::{Db, Keyspace};
use crate::db::logs::Logs;
use crate::db::snapshot::Snapshot;
use crate::db::ticket::Watch;
use crate::db::tree::Slot;
use crate::error::{Error, Result};
use crate::ids::{KeyspaceId, Seq};
use crate::options::{Durability, KeyspaceOptions};
use std::sync::Arc;

impl Db {
    /// The keyspace `name`, created with the database's [options](crate::Options::keyspaces) if there is
    /// none. Creating is a commit of its own; opening costs a look-up. Fails with
    /// [`Invalid`](crate::ErrorKind::Invalid) if the name stands for logs.
    pub fn keyspace(&self, name: &str) -> Result<Keyspace> {
        let slot = self.open_named(Kind::Keyspace, name, None)?;
        Ok(Keyspace { db: self.clone(), slot })
    }

    /// The keyspace `name`, created with `options` or changed to them.
    pub fn keyspace_with(&self, name: &str, options: KeyspaceOptions) -> Result<Keyspace> {
        options.check()?;
        let slot = self.open_named(Kind::Keyspace, name, Some(options))?;
        Ok(Keyspace { db: self.clone(), slot })
    }

    /// The logs `name`, created if there are none: any number of logs, addressed by `u64`, each of them
    /// there as soon as it is written to. Creating is a commit of its own; opening costs a look-up.
    /// Fails with [`Invalid`](crate::ErrorKind::Invalid) if the name stands for a keyspace.
    pub fn logs(&self, name: &str) -> Result<Logs> {
        let slot = self.open_named(Kind::Logs, name, None)?;
        Ok(Logs { db: self.clone(), slot })
    }

    fn open_named(&self, kind: Kind, name: &str, options: Option<KeyspaceOptions>) -> Result<Arc<Slot>> {
        let core = self.core();
        let key = catalog::key(kind, name)?;
        let taken = || core.registry.lock().named(name).filter(|named| *named != kind);
        loop {
            core.open()?;
            if let Some(other) = taken() {
                return Err(Error::invalid(format!("the name \"{name}\" stands for {}", word(other))));
            }
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
                        _ => return Ok(slot.clone()),
                    }
                }
            };
            // Somebody else may have been faster: then look again.
            let same = || {
                let registry = core.registry.lock();
                if registry.named(name).is_some_and(|named| named != kind) {
                    return false;
                }
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
                log::info!(target: "esker", "created {} {name:?} ({})", word(kind), row.id);
            }
        }
    }

    /// Commits one change of the catalog if `still` holds under the lock on commits.
    fn commit_row(&self, op: Op<'_>, still: impl Fn() -> bool) -> Result<bool> {
        let core = self.core();
        let mut ops = Ops::default();
        ops.push(KeyspaceId::CATALOG, op);
        let durability = core.options.durability;
        let committed = core.commit_ops(&mut ops, durability, None, &mut |_, _| Ok(still()))?;
        let Some(seq) = committed else { return Ok(false) };
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
        self.drop_named(Kind::Keyspace, name)
    }

    /// Drops the logs `name` with all their entries. Their handles answer
    /// [`Closed`](crate::ErrorKind::Closed) from then on; snapshots from before still know the bounds,
    /// and that the entries are [`Gone`](crate::ErrorKind::Gone). Costs one commit; space comes back in the
    /// background.
    pub fn drop_logs(&self, name: &str) -> Result<()> {
        self.drop_named(Kind::Logs, name)
    }

    fn drop_named(&self, kind: Kind, name: &str) -> Result<()> {
        let key = catalog::key(kind, name)?;
        let core = self.core();
        core.open()?;
        let there = || core.registry.lock().slots.contains_key(&key);
        if !there() || !self.commit_row(Op::Delete { key: &key }, there)? {
            return Err(Error::invalid(format!("{} {} \"{name}\"", none(kind), word(kind))));
        }
        core.work.want_drop();
        log::info!(target: "esker", "dropped {} {name:?}", word(kind));
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

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Keyspace => "keyspace",
        Kind::Logs => "logs",
    }
}

fn none(kind: Kind) -> &'static str {
    match kind {
        Kind::Keyspace => "there is no",
        Kind::Logs => "there are no",
    }
}
