//! What a batch does with logs. Indexes, and the tags that cuts carry, are settled under the lock on
//! commits, from what is in memory; what must be read for that is read before.

use crate::batch::Ops;
use crate::db::core::Core;
use crate::db::logs::Log;
use crate::db::tree::{Slot, Tree};
use crate::db::write::{Batch, conflict};
use crate::entries::{Cut, PURGE, REMOVE, RESET, TRUNCATE, Verb};
use crate::error::{Error, Result};
use crate::key::MAX_VALUE_LEN;
use crate::log::extent::LogKey;
use crate::log::head::{self, Head};
use crate::log::index::LogIndex;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

/// The log must go on at this index.
pub(super) struct Next {
    slot: Arc<Slot>,
    log: u64,
    next: u64,
}

/// The tag of the entry before a cut, as it was at some epoch of the log.
#[derive(Clone, Copy)]
pub(super) struct Found {
    at: u64,
    tag: u64,
    epoch: u32,
}

/// A log as it is after some operations of the batch.
struct Sim {
    head: Option<Head>,
    epoch: u32,
    /// Which operation of the batch has appended to it last.
    own: Option<usize>,
}

/// Writing to logs. A log is written to at its end, and forgotten at both.
impl Batch {
    /// Adds an entry at `index`, which must be where the log ends; else the commit fails with
    /// [`Conflict`](crate::ErrorKind::Conflict), and nothing is written. It never cuts: whoever is late
    /// must not erase what others have appended. Entries of one log that are added one after another take
    /// 8 bytes each beside their own.
    pub fn append(&mut self, log: &Log, index: u64, tag: u64, bytes: impl AsRef<[u8]>) -> &mut Self {
        let bytes = bytes.as_ref();
        self.log_call(log, |batch, id| {
            check_entry(bytes)?;
            if index == u64::MAX {
                return Err(Error::invalid("the largest index is kept for where a log ends"));
            }
            batch.ops.append(id.0, id.1, Some(index), tag, bytes);
            Ok(())
        })
    }

    /// Adds an entry wherever the log ends when the batch is committed: [`pushed`](Batch::pushed) tells
    /// its index then.
    pub fn push(&mut self, log: &Log, tag: u64, bytes: impl AsRef<[u8]>) -> &mut Self {
        let bytes = bytes.as_ref();
        self.log_call(log, |batch, id| {
            check_entry(bytes)?;
            batch.ops.append(id.0, id.1, None, tag, bytes);
            Ok(())
        })
    }

    /// The indexes that the entries [pushed](Batch::push) by the last commit of this batch got, in their
    /// order.
    pub fn pushed(&self) -> &[u64] {
        &self.pushed
    }

    /// Cuts the log's end off: `first..from` stay. Nothing happens if that is all of it; the commit fails
    /// with [`Conflict`](crate::ErrorKind::Conflict) if `from` is not within the bounds. Costs one
    /// operation, whatever goes.
    pub fn truncate(&mut self, log: &Log, from: u64) -> &mut Self {
        self.cut(log, TRUNCATE, Cut { at: from, tag: None })
    }

    /// Lets go of the log's beginning: `before..next` stay, and the tag of the last entry that went is
    /// remembered. Nothing happens at or below the first entry; beyond the end the commit fails with
    /// [`Conflict`](crate::ErrorKind::Conflict). Costs one operation, whatever goes.
    pub fn purge(&mut self, log: &Log, before: u64) -> &mut Self {
        self.cut(log, PURGE, Cut { at: before, tag: None })
    }

    /// Empties the log and has it go on at `first`, with `tag` for that of the entry before: for a Raft
    /// log, when a snapshot was installed.
    pub fn reset(&mut self, log: &Log, first: u64, tag: u64) -> &mut Self {
        self.cut(log, RESET, Cut { at: first, tag: Some(tag) })
    }

    /// Forgets the log: it is as if it had never been written.
    pub fn remove(&mut self, log: &Log) -> &mut Self {
        self.log_call(log, |batch, id| {
            batch.ops.cut(id.0, id.1, REMOVE, None);
            Ok(())
        })
    }

    /// The commit writes only if the log ends before `next`, without writing to it; else it fails with
    /// [`Conflict`](crate::ErrorKind::Conflict). Checked against the state before the batch.
    pub fn require_next(&mut self, log: &Log, next: u64) -> &mut Self {
        self.log_call(log, |batch, id| {
            batch.nexts.push(Next { slot: log.logs.slot.clone(), log: id.1, next });
            Ok(())
        })
    }

    fn cut(&mut self, log: &Log, code: u8, cut: Cut) -> &mut Self {
        self.log_call(log, |batch, id| {
            batch.ops.cut(id.0, id.1, code, Some(cut));
            Ok(())
        })
    }

    fn log_call(&mut self, log: &Log, call: impl FnOnce(&mut Batch, LogKey) -> Result<()>) -> &mut Self {
        self.try_call(|batch| {
            let target = batch.target(log.logs.db.core(), &log.logs.slot)?;
            call(batch, (batch.targets[target].then, log.id()))
        })
    }

    /// Makes the heads known that the check will need, and looks the tags up.
    pub(super) fn prepare_logs(
        &self,
        core: &Core,
        ops: &Ops,
        trees: &[Arc<Tree>],
    ) -> Result<Vec<Option<Found>>> {
        for next in &self.nexts {
            if let Some(tree) = next.slot.tree.load_full() {
                know(core, &tree, next.log)?;
            }
        }
        let mut last = None;
        let mut found = Vec::with_capacity(ops.on_logs().len());
        for op in ops.on_logs() {
            let key = (op.keyspace, op.log);
            if last != Some(key) {
                if let Some(tree) = trees.iter().find(|tree| tree.id == op.keyspace) {
                    know(core, tree, op.log)?;
                }
                last = Some(key);
            }
            found.push(match ops.on_log(op).verb() {
                Ok(Verb::Truncate(cut) | Verb::Purge(cut)) => look_up(&core.logs, key, cut.at)?,
                _ => None,
            });
        }
        Ok(found)
    }

    /// Under the lock on commits: an error if an operation cannot be, `false` if memory does not tell.
    pub(super) fn check_logs(
        &self,
        index: &LogIndex,
        ops: &mut Ops,
        found: &[Option<Found>],
    ) -> Result<bool> {
        for Next { slot, log, next } in &self.nexts {
            let Some(tree) = slot.tree.load_full() else { return Ok(false) };
            let Some(known) = index.known((tree.id, *log)) else { return Ok(false) };
            if known.head.unwrap_or_default().next != *next {
                return Err(conflict());
            }
        }
        settle(index, ops, found)
    }
}

/// Gives every operation on a log its index and its tag.
fn settle(index: &LogIndex, ops: &mut Ops, found: &[Option<Found>]) -> Result<bool> {
    let mut logs: BTreeMap<LogKey, Sim> = BTreeMap::new();
    // Of each operation the append to the same log before it.
    let mut before: Vec<Option<usize>> = Vec::with_capacity(ops.on_logs().len());
    for i in 0..ops.on_logs().len() {
        let op = ops.on_logs()[i];
        let key = (op.keyspace, op.log);
        let sim = match logs.entry(key) {
            Entry::Occupied(sim) => sim.into_mut(),
            Entry::Vacant(place) => {
                let Some(known) = index.known(key) else { return Ok(false) };
                place.insert(Sim { head: known.head, epoch: known.epoch, own: None })
            }
        };
        before.push(sim.own);
        let told = |e: Error| e.context(format_args!("operation {} of the batch", op.nth));
        let head = sim.head.unwrap_or_default();
        ops.bind(i, head.next).map_err(told)?;
        let mut verb = ops.on_log(&op).verb()?;
        let cut = match verb {
            Verb::Truncate(cut) | Verb::Purge(cut) => Some(cut),
            _ => None,
        };
        // Only one that takes some entries away and leaves others needs to know.
        if let Some(Cut { at, .. }) = cut.filter(|cut| head.first < cut.at && cut.at < head.next) {
            let own = std::iter::successors(sim.own, |&own| before[own]);
            let own = own.into_iter().find_map(|own| match ops.on_log(&ops.on_logs()[own]).verb() {
                Ok(Verb::Append(entries)) => entries.tag(at - 1),
                _ => None,
            });
            let known = found.get(i).copied().flatten();
            let known = known.filter(|found| found.at == at && found.epoch == sim.epoch);
            let Some(tag) = own.or(known.map(|found| found.tag)) else { return Ok(false) };
            ops.set_tag(i, Cut { at, tag: Some(tag) });
            verb = ops.on_log(&op).verb()?;
        }
        sim.head = head::after(sim.head, &verb).map_err(told)?;
        if let Verb::Append(_) = verb {
            sim.own = Some(i);
        }
    }
    Ok(true)
}

/// Reads the head of a log, unless it is known.
fn know(core: &Core, tree: &Tree, log: u64) -> Result<()> {
    let key = (tree.id, log);
    if core.logs.known(key).is_some() {
        return Ok(());
    }
    core.reading(|| {
        let stamp = core.logs.stamp(key);
        let view = tree.view.load();
        let seq = core.snapshots.visible();
        let head = view.log_head(log, seq)?;
        core.logs.offer(key, head, stamp);
        Ok(())
    })
}

/// The tag of the entry before `at`, if that is in the log now.
fn look_up(index: &LogIndex, key: LogKey, at: u64) -> Result<Option<Found>> {
    let Some(before) = at.checked_sub(1) else { return Ok(None) };
    let found = index.find(key, before)?;
    Ok(found.map(|(found, epoch)| Found { at, tag: found.extent.tag, epoch }))
}

fn check_entry(bytes: &[u8]) -> Result<()> {
    if bytes.len() > MAX_VALUE_LEN {
        return Err(Error::invalid(format!("an entry of {} bytes exceeds {MAX_VALUE_LEN}", bytes.len())));
    }
    Ok(())
}
