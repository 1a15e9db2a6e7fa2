//! Batches: what is to be written, on which conditions, and how it is committed.

mod logs;

use crate::batch::{Op, Ops};
use crate::catalog::Row;
use crate::cursor::visible::Bounds;
use crate::db::appender::CommitState;
use crate::db::clock::Deadline;
use crate::db::core::Core;
use crate::db::handle::{Db, Keyspace};
use crate::db::range::KeyRange;
use crate::db::room::Asked;
use crate::db::snapshot::Snapshot;
use crate::db::ticket::Ticket;
use crate::db::tree::{Slot, Tree, dropped};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{KeyspaceId, Seq};
use crate::key::{MAX_VALUE_LEN, check_len as check_key};
use crate::mutant::Mutant;
use crate::options::Durability;
use crate::record::MAX_PAYLOAD;
use crate::view::run::Passage;
use crate::view::{Lookup, View};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What a condition of a batch expects of a key, or of a range.
#[derive(Clone, Copy, Debug)]
pub enum Expect<'a> {
    /// The key has no value; the range is empty.
    Absent,
    /// The key has a value; the range is not empty.
    Present,
    /// The key has this value. Not for ranges.
    Value(&'a [u8]),
    /// No operation has touched the key, or any key of the range, since the snapshot: not even one
    /// that wrote the same value again.
    Unchanged(&'a Snapshot),
}

enum Expected {
    Absent,
    Present,
    Value(Box<[u8]>),
    Unchanged(Snapshot),
}

enum Subject {
    Key(Box<[u8]>),
    Range(Bounds),
}

struct Condition {
    slot: Arc<Slot>,
    subject: Subject,
    expected: Expected,
}

/// A keyspace the batch writes to.
struct Target {
    slot: Arc<Slot>,
    /// The tree the name stood for when the batch first named it.
    then: KeyspaceId,
    /// Where operations on the name go: another tree once the batch has replaced it, none once the
    /// batch has used it up.
    now: Option<KeyspaceId>,
}

/// Operations that are committed together: all or nothing, in one place of the order of commits,
/// on any number of keyspaces.
///
/// Owned and `Send`. Operations return `&mut Self`, so that they can be chained; a bad one is
/// remembered, and the commit returns the first with its index. A commit that succeeds empties the
/// batch and keeps its buffer; one that fails without having written leaves it for a retry.
///
/// Costs one buffer that is written to the journal as it is.
pub struct Batch {
    db: Db,
    ops: Ops,
    targets: Vec<Target>,
    conditions: Vec<Condition>,
    /// The first bad operation.
    bad: Option<Error>,
    /// Operations and conditions so far.
    calls: usize,
    deadline: Option<Duration>,
    replaces: bool,
    /// Conditions on where logs end.
    nexts: Vec<logs::Next>,
    /// The indexes that the last commit gave.
    pushed: Vec<u64>,
}

impl Batch {
    pub(crate) fn new(db: Db) -> Batch {
        Batch {
            db,
            ops: SPARE.try_with(Cell::take).ok().flatten().unwrap_or_default(),
            targets: Vec::new(),
            conditions: Vec::new(),
            bad: None,
            calls: 0,
            deadline: None,
            replaces: false,
            nexts: Vec::new(),
            pushed: Vec::new(),
        }
    }

    /// The number of operations.
    pub fn len(&self) -> usize {
        self.ops.count() as usize
    }

    /// Whether there are no operations.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes the journal will take, without framing.
    pub fn bytes(&self) -> usize {
        self.ops.size()
    }

    /// Forgets operations, conditions and errors; keeps the buffer and the deadline.
    pub fn clear(&mut self) -> &mut Self {
        self.ops.clear();
        self.targets.clear();
        self.conditions.clear();
        self.bad = None;
        self.calls = 0;
        self.replaces = false;
        self.nexts.clear();
        self.pushed.clear();
        self
    }

    /// How long the commit may wait for room. When the time is over it fails with
    /// [`ErrorKind::Busy`] and nothing is written. Without one it waits as long as it takes.
    pub fn deadline(&mut self, timeout: Duration) -> &mut Self {
        self.deadline = Some(timeout);
        self
    }

    /// Gives `key` a value.
    pub fn put(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Self {
        let (key, value) = (key.as_ref(), value.as_ref());
        self.op(keyspace, || check_put(key, value).map(|()| Some(Op::Put { key, value })))
    }

    /// Takes the value of `key` away.
    pub fn delete(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> &mut Self {
        let key = key.as_ref();
        self.op(keyspace, || check_key(key).map(|()| Some(Op::Delete { key })))
    }

    /// Takes the values of all keys of `range` away, for the cost of one operation.
    pub fn delete_range(&mut self, keyspace: &Keyspace, range: impl KeyRange) -> &mut Self {
        let bounds = range.bounds();
        self.op(keyspace, || {
            let bounds = bounds.as_ref().map_err(Clone::clone)?;
            Ok(delete_range_op(bounds))
        })
    }

    /// Takes all values of the keyspace away, for the cost of one operation.
    pub fn clear_keyspace(&mut self, keyspace: &Keyspace) -> &mut Self {
        self.delete_range(keyspace, ..)
    }

    /// `keyspace` becomes what `staging` is, and the name of `staging` is gone: how a state that
    /// was received from elsewhere takes the place of the old one at once. Costs two rows of the
    /// catalog. Handles of `keyspace` go on; those of `staging` answer [`ErrorKind::Closed`].
    pub fn replace(&mut self, keyspace: &Keyspace, staging: &Keyspace) -> &mut Self {
        self.try_call(|batch| {
            let to = batch.target(keyspace.db.core(), &keyspace.slot)?;
            let from = batch.target(staging.db.core(), &staging.slot)?;
            if to == from {
                return Err(Error::invalid("a keyspace cannot replace itself"));
            }
            let (key, staging_key) = (keyspace.slot.key.clone(), staging.slot.key.clone());
            let tree = staging.slot.tree.load_full().ok_or_else(dropped)?;
            let id = batch.targets[from].now.ok_or_else(dropped)?;
            if id != tree.id {
                return Err(Error::invalid("the staging keyspace was itself replaced in this batch"));
            }
            let row = Row { id, options: *tree.options.lock() }.encode();
            batch.ops.push(KeyspaceId::CATALOG, Op::Put { key: &key, value: &row });
            batch.ops.push(KeyspaceId::CATALOG, Op::Delete { key: &staging_key });
            batch.targets[to].now = Some(id);
            batch.targets[from].now = None;
            batch.replaces = true;
            Ok(())
        })
    }

    /// The commit writes only if this holds of `key`; else it fails with [`ErrorKind::Conflict`].
    /// All conditions are checked against the state before the batch, as one step with the write.
    pub fn require(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>, expect: Expect<'_>) -> &mut Self {
        let key = key.as_ref();
        self.try_call(|batch| {
            check_key(key)?;
            batch.condition(keyspace, Subject::Key(key.into()), expect)
        })
    }

    /// The commit writes only if this holds of the keys of `range`; else it fails with
    /// [`ErrorKind::Conflict`].
    pub fn require_range(
        &mut self,
        keyspace: &Keyspace,
        range: impl KeyRange,
        expect: Expect<'_>,
    ) -> &mut Self {
        let bounds = range.bounds();
        self.try_call(|batch| {
            if matches!(expect, Expect::Value(_)) {
                return Err(Error::invalid("a range has no value to expect"));
            }
            batch.condition(keyspace, Subject::Range(bounds?), expect)
        })
    }

    /// Commits with the durability of the database: see [`commit_with`](Batch::commit_with).
    pub fn commit(&mut self) -> Result<Seq> {
        self.commit_with(self.db.core().options.durability)
    }

    /// Writes all operations or none. When this returns, readers see them, and they survive what
    /// `durability` says. Answers the sequence number of the last one.
    ///
    /// An error means that nothing was written, except when the sync failed: then the commit is
    /// visible, the database read-only, and whether it survives is known after reopening.
    pub fn commit_with(&mut self, durability: Durability) -> Result<Seq> {
        let seq = self.write(durability)?;
        if durability == Durability::Sync {
            self.db.core().sync_to(seq)?;
        }
        Ok(seq)
    }

    /// Commits without waiting for the disk: readers see the operations when this returns; the
    /// ticket tells when they survive power loss.
    pub fn submit(&mut self) -> Result<Ticket> {
        let seq = self.write(Durability::Sync)?;
        self.db.core().ask_sync(seq);
        Ok(Ticket::new(self.db.core().clone(), seq))
    }

    fn write(&mut self, durability: Durability) -> Result<Seq> {
        if let Some(bad) = &self.bad {
            return Err(bad.clone());
        }
        if self.bytes() > MAX_PAYLOAD {
            return Err(Error::invalid(format!("a batch of {} bytes exceeds {MAX_PAYLOAD}", self.bytes())));
        }
        // Taken out, so that the check can change it.
        let mut ops = std::mem::take(&mut self.ops);
        let written = self.write_ops(&mut ops, durability);
        self.ops = ops;
        let seq = written?;
        let mut pushed = std::mem::take(&mut self.pushed);
        self.ops.pushed(&mut pushed);
        if self.replaces {
            self.db.core().work.want_drop();
        }
        self.clear();
        self.pushed = pushed;
        Ok(seq)
    }

    fn write_ops(&mut self, ops: &mut Ops, durability: Durability) -> Result<Seq> {
        let core = self.db.core().clone();
        let deadline = self.deadline.map(Deadline::after);
        ops.complete();
        let mut unpaid = ops.size();
        loop {
            core.writable()?;
            let trees = self.resolve(ops)?;
            let takes_away = ops.only_take_away();
            core.await_room(&trees, &Asked { bytes: std::mem::take(&mut unpaid), takes_away, deadline })?;
            let checked = self.check_outside(|| core.snapshots.visible())?;
            let on_logs = !ops.on_logs().is_empty() || !self.nexts.is_empty();
            let found = if on_logs { self.prepare_logs(&core, ops, &trees)? } else { Vec::new() };
            let mut check = |commit: &CommitState, ops: &mut Ops| {
                let held = self.check_inside(commit, &checked)?;
                Ok(held && (!on_logs || self.check_logs(&core.logs, ops, &found)?))
            };
            let committed = core.commit_ops(ops, durability, deadline, &mut check)?;
            if let Some(seq) = committed {
                return Ok(seq);
            }
        }
    }

    fn try_call(&mut self, call: impl FnOnce(&mut Batch) -> Result<()>) -> &mut Self {
        let index = self.calls;
        self.calls += 1;
        if self.bad.is_none()
            && let Err(e) = call(self)
        {
            self.bad = Some(e.context(format_args!("operation {index} of the batch")));
        }
        self
    }

    fn op<'a>(&mut self, keyspace: &Keyspace, op: impl FnOnce() -> Result<Option<Op<'a>>>) -> &mut Self {
        self.try_call(|batch| {
            let target = batch.target(keyspace.db.core(), &keyspace.slot)?;
            let id = batch.targets[target].now.ok_or_else(dropped)?;
            if let Some(op) = op()? {
                batch.ops.push(id, op);
            }
            Ok(())
        })
    }

    fn target(&mut self, core: &Arc<Core>, slot: &Arc<Slot>) -> Result<usize> {
        if !Arc::ptr_eq(core, self.db.core()) {
            return Err(Error::invalid("the keyspace belongs to another database"));
        }
        // Newest first: runs of operations on one keyspace are the rule.
        if let Some(at) = self.targets.iter().rposition(|t| Arc::ptr_eq(&t.slot, slot)) {
            return Ok(at);
        }
        let id = slot.tree.load().as_ref().map(|tree| tree.id).ok_or_else(dropped)?;
        self.targets.push(Target { slot: slot.clone(), then: id, now: Some(id) });
        Ok(self.targets.len() - 1)
    }

    fn condition(&mut self, keyspace: &Keyspace, subject: Subject, expect: Expect<'_>) -> Result<()> {
        self.target(keyspace.db.core(), &keyspace.slot)?;
        let expected = match expect {
            Expect::Absent => Expected::Absent,
            Expect::Present => Expected::Present,
            Expect::Value(value) => Expected::Value(value.into()),
            Expect::Unchanged(snapshot) if Arc::ptr_eq(snapshot.core(), self.db.core()) => {
                Expected::Unchanged(snapshot.clone())
            }
            Expect::Unchanged(_) => return Err(Error::invalid("the snapshot belongs to another database")),
        };
        self.conditions.push(Condition { slot: keyspace.slot.clone(), subject, expected });
        Ok(())
    }

    /// The trees the batch writes to. Names that were replaced since the batch named them lead to
    /// their new trees.
    fn resolve(&mut self, ops: &mut Ops) -> Result<Vec<Arc<Tree>>> {
        let mut trees = Vec::with_capacity(self.targets.len());
        for target in &mut self.targets {
            let tree = target.slot.tree.load_full().ok_or_else(dropped)?;
            if tree.id != target.then {
                if self.replaces {
                    return Err(Error::new(
                        ErrorKind::Conflict,
                        "a keyspace of the batch was replaced meanwhile",
                    ));
                }
                ops.redirect(target.then, tree.id)?;
                target.then = tree.id;
                target.now = Some(tree.id);
            }
            trees.push(tree);
        }
        Ok(trees)
    }

    /// Checks all conditions as of now, reading what must be read. Answers the point in the order of
    /// commits from which the check inside must go on.
    fn check_outside(&self, mut visible: impl FnMut() -> Seq) -> Result<Vec<Seq>> {
        let mut checked = Vec::with_capacity(self.conditions.len());
        for condition in &self.conditions {
            let tree = condition.slot.tree.load_full().ok_or_else(dropped)?;
            // Before the view: it lacks nothing at or below this. A memtable begun after the view was
            // loaded may hold what is newer; the check inside looks at that.
            let complete = visible();
            let view = tree.view.load_full();
            // After the view: nothing that a read here needs has been dropped from it.
            let now = visible();
            let since = condition.unchanged_since().ok_or_else(conflict)?;
            condition.check(&view, now, since)?;
            checked.push(complete);
        }
        Ok(checked)
    }

    /// Under the lock on commits: checks only what came after the check outside, and only in memory.
    fn check_inside(&self, _commit: &CommitState, checked: &[Seq]) -> Result<bool> {
        for target in &self.targets {
            if target.slot.tree.load().as_ref().map(|t| t.id) != Some(target.then) {
                return Ok(false);
            }
        }
        for (condition, &since) in self.conditions.iter().zip(checked) {
            let Some(tree) = condition.slot.tree.load_full() else { return Ok(false) };
            let view = tree.view.load();
            // What came since may have left the memtables already.
            if Mutant::ConditionUnseen.on() {
                continue;
            }
            if view.flushed > since || !condition.recheck(&view, since)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Condition {
    /// For `Unchanged`: the sequence number after which nothing may have happened; none if the
    /// keyspace was replaced since, which touched every key.
    fn unchanged_since(&self) -> Option<Seq> {
        match &self.expected {
            Expected::Unchanged(snapshot) => {
                let since = snapshot.seq();
                (!self.slot.changed_since(since)).then_some(since)
            }
            _ => Some(Seq::ZERO),
        }
    }

    fn check(&self, view: &Arc<View>, now: Seq, since: Seq) -> Result<()> {
        match &self.subject {
            Subject::Key(key) => view.get(key, now, |found| self.judge(found, since))?,
            Subject::Range(bounds) => {
                let holds = match &self.expected {
                    Expected::Unchanged(_) => !view.changed_since(bounds, since)?,
                    expected => {
                        let mut entries = view.scan(now, Arc::new(bounds.clone()), Passage::Lent);
                        entries.seek_first()?;
                        entries.valid() == matches!(expected, Expected::Present)
                    }
                };
                if holds { Ok(()) } else { Err(conflict()) }
            }
        }
    }

    /// Whether the condition still holds after what memory says came since `since`; `false`: it
    /// must be checked anew.
    fn recheck(&self, view: &View, since: Seq) -> Result<bool> {
        match &self.subject {
            Subject::Key(key) => {
                let newest = view.newest_in_memory(key);
                match newest.seq() {
                    Some(seq) if seq > since => self.judge(newest, since).map(|()| true),
                    _ => Ok(true),
                }
            }
            Subject::Range(bounds) => {
                let start = bounds.lower.as_deref().unwrap_or_default();
                if !view.changed_in_memory(start, bounds.upper.as_deref(), since) {
                    return Ok(true);
                }
                match self.expected {
                    Expected::Unchanged(_) => Err(conflict()),
                    _ => Ok(false),
                }
            }
        }
    }

    fn judge(&self, found: Lookup<'_>, since: Seq) -> Result<()> {
        let holds = match &self.expected {
            Expected::Unchanged(_) => found.seq().is_none_or(|seq| seq <= since),
            Expected::Absent => found.value().is_none(),
            Expected::Present => found.value().is_some(),
            Expected::Value(value) => found.value().is_some_and(|f| *f.value == **value),
        };
        if holds { Ok(()) } else { Err(conflict()) }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let mut ops = std::mem::take(&mut self.ops);
        ops.clear();
        if (1..=KEEP_ONE).contains(&ops.buffers()) {
            // Not where the thread ends.
            let _ = SPARE.try_with(|spare| spare.set(Some(ops)));
        }
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} operations, {} bytes)", self.len(), self.bytes())
    }
}

impl Db {
    /// An empty batch.
    pub fn batch(&self) -> Batch {
        Batch::new(self.clone())
    }
}

/// Writing: each call is a batch of one, with the durability of the database.
impl Keyspace {
    /// Gives `key` a value. A [`Buffered`](Durability::Buffered) put allocates nothing and, in a mapped
    /// journal, makes no system call; a [`Durability::Sync`] one waits for a sync of the disk.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<Seq> {
        let (key, value) = (key.as_ref(), value.as_ref());
        check_put(key, value)?;
        commit_one(self.db.core(), &self.slot, Op::Put { key, value })
    }

    /// Takes the value of `key` away, whether or not it has one.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<Seq> {
        let key = key.as_ref();
        check_key(key)?;
        commit_one(self.db.core(), &self.slot, Op::Delete { key })
    }

    /// Takes the values of all keys of `range` away. Costs one operation, whatever the range holds.
    pub fn delete_range(&self, range: impl KeyRange) -> Result<Seq> {
        let bounds = range.bounds()?;
        match delete_range_op(&bounds) {
            Some(op) => commit_one(self.db.core(), &self.slot, op),
            None => self.db.core().writable().map(|()| self.db.visible_seq()),
        }
    }

    /// Takes all values away. Costs one operation; the space comes back in the background.
    pub fn clear(&self) -> Result<Seq> {
        self.delete_range(..)
    }
}

thread_local! {
    /// Batches of one are encoded here, so that a put allocates nothing.
    static ONE: RefCell<Ops> = RefCell::new(Ops::default());
    /// The buffers of the batch that was dropped last, for the next one: growing them anew costs a batch of
    /// some size more than all else that is done to its bytes.
    static SPARE: Cell<Option<Ops>> = const { Cell::new(None) };
}

/// Larger buffers are not kept after a batch.
const KEEP_ONE: usize = 1 << 20;

/// Commits one operation on `slot`.
pub(crate) fn commit_one(core: &Core, slot: &Slot, op: Op<'_>) -> Result<Seq> {
    core.writable()?;
    let durability = core.options.durability;
    ONE.with(|ops| {
        // Borrowed already only if a commit called back into user code, which none does.
        let mut fallback = Ops::default();
        let mut borrowed = ops.try_borrow_mut();
        let ops = borrowed.as_deref_mut().unwrap_or(&mut fallback);
        let mut paid = false;
        let committed = loop {
            let changes = slot.changes();
            let tree = slot.tree.load();
            let tree = tree.as_ref().ok_or_else(dropped)?;
            ops.clear();
            ops.push(tree.id, op);
            let bytes = if std::mem::replace(&mut paid, true) { 0 } else { ops.bytes().len() };
            let asked = Asked { bytes, takes_away: ops.only_take_away(), deadline: None };
            core.await_room(std::slice::from_ref(tree), &asked)?;
            let current = |_: &CommitState, _: &mut Ops| Ok(slot.changes() == changes);
            if let Some(seq) = core.commit_known(ops, Some((tree.id, op)), durability, None, current)? {
                break seq;
            }
        };
        if ops.bytes().len() > KEEP_ONE {
            *ops = Ops::default();
        }
        Ok(committed)
    })
    .and_then(|seq| {
        if durability == Durability::Sync {
            core.sync_to(seq)?;
        }
        Ok(seq)
    })
}

/// The operation that deletes what lies within `bounds`; none if nothing can.
pub(crate) fn delete_range_op(bounds: &Bounds) -> Option<Op<'_>> {
    let start = bounds.lower.as_deref().unwrap_or_default();
    let end = bounds.upper.as_deref();
    end.is_none_or(|end| start < end).then_some(Op::DeleteRange { start, end })
}

pub(crate) fn check_put(key: &[u8], value: &[u8]) -> Result<()> {
    if value.len() > MAX_VALUE_LEN {
        return Err(Error::invalid(format!("a value of {} bytes exceeds {MAX_VALUE_LEN}", value.len())));
    }
    check_key(key)
}

#[cold]
fn conflict() -> Error {
    Error::new(ErrorKind::Conflict, "a condition of the batch does not hold")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::sim::SimFs;
    use crate::options::Options;

    /// Between the view of a check and its sequence number, another commit began a new memtable and
    /// a third wrote to that: the check had not seen it and took it for seen.
    #[test]
    fn a_commit_that_the_check_outside_missed_is_found_inside() {
        let options = Options::default().workers(0).fs(Arc::new(SimFs::new(1)));
        let db = Db::open("/db", options).unwrap();
        let a = db.keyspace("a").unwrap();
        let core = db.core();
        for expect in [Expect::Value(b"1"), Expect::Unchanged(&db.snapshot())] {
            a.put("k", "1").unwrap();
            let snapshot = db.snapshot();
            let expect =
                if let Expect::Unchanged(_) = expect { Expect::Unchanged(&snapshot) } else { expect };
            let mut batch = db.batch();
            batch.require(&a, "k", expect).put(&a, "k", "3");
            let mut ops = std::mem::take(&mut batch.ops);
            batch.resolve(&mut ops).unwrap();
            let mut calls = 0;
            let checked = batch.check_outside(|| {
                calls += 1;
                if calls == 2 {
                    core.freeze(None);
                    a.put("k", "2").unwrap();
                }
                core.snapshots.visible()
            });
            let checked = checked.unwrap();
            let committed = core.commit_ops(&mut ops, Durability::Buffered, None, &mut |commit, _| {
                batch.check_inside(commit, &checked)
            });
            assert_eq!(committed.unwrap_err().kind(), ErrorKind::Conflict);
        }
    }
}
