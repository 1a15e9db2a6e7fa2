//! The state machine: a keyspace that entries change, one batch for each call to apply.
//!
//! # Format
//!
//! The keyspace of a group, and the one a snapshot is received in:
//!
//! ```text
//! 0 'a'       the log id that was applied last, in MessagePack
//! 0 'm'       the membership that was applied last, and its log id, likewise
//! 1 key       a row of the application
//! ```

use crate::log::{any, commit_synced, id, purge};
use crate::snapshot::SnapshotData;
use crate::{Shared, Transfer, decode, encode};
use esker::raft_log::Row;
use esker::{Db, Durability, Iter, Keyspace, KeyspaceView, Prefix, Snapshot as View, Value};
use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{
    AnyError, Entry, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, RaftTypeConfig, SnapshotMeta,
    StorageError, StorageIOError, StoredMembership,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::error::Error;
use std::marker::PhantomData;
use std::sync::Arc;

const APPLIED: &[u8] = &[0, b'a'];
const MEMBERS: &[u8] = &[0, b'm'];
/// Before the keys of the application.
pub(crate) const DATA: u8 = 1;

/// What applying returns. An error stops the Raft node: only what went wrong in this node is one, never
/// what a request asked for.
pub type AppResult<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What your entries do to the state. Must do the same on every node: no clocks, no randomness, nothing
/// that is not in the state or the request.
pub trait App<C: RaftTypeConfig>: Send + Sync + 'static {
    /// Does what the request asks for, and answers it.
    fn apply(&mut self, state: &mut Writes<'_>, request: C::D) -> AppResult<C::R>;

    /// The answer to an entry without a request: a blank one, a change of members.
    fn blank(&mut self) -> C::R;
}

/// The state while entries are applied: reads see what was written before, also in the same call.
pub struct Writes<'a> {
    state: &'a Keyspace,
    written: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Writes<'_> {
    /// The value of `key`.
    pub fn get(&self, key: impl AsRef<[u8]>) -> esker::Result<Option<Vec<u8>>> {
        let key = data_key(key.as_ref());
        match self.written.get(&key) {
            Some(value) => Ok(value.clone()),
            None => Ok(self.state.get(key)?.map(Value::into_vec)),
        }
    }

    /// Gives `key` a value.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl Into<Vec<u8>>) -> &mut Self {
        self.written.insert(data_key(key.as_ref()), Some(value.into()));
        self
    }

    /// Takes the value of `key` away.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> &mut Self {
        self.written.insert(data_key(key.as_ref()), None);
        self
    }
}

/// Reads the state as it is applied on this node: what a majority may have got past already. For
/// linearizable reads, ask openraft's `ensure_linearizable` first. A cheap handle.
#[derive(Clone)]
pub struct StateReader(Arc<Shared>);

impl StateReader {
    /// The value of `key`.
    pub fn get(&self, key: impl AsRef<[u8]>) -> esker::Result<Option<Value>> {
        self.0.state.get(data_key(key.as_ref()))
    }

    /// The rows whose keys begin with `prefix`; keys come with one byte before them.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Iter {
        self.0.state.range(Prefix(data_key(prefix.as_ref())))
    }
}

fn data_key(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 1);
    out.push(DATA);
    out.extend_from_slice(key);
    out
}

/// The log id that `state` is at.
pub(crate) fn applied<C: RaftTypeConfig>(state: &Keyspace) -> Result<Option<LogId<C::NodeId>>, AnyError> {
    state.get(APPLIED).map_err(|e| any(&e))?.map(|bytes| decode(&bytes)).transpose()
}

/// Applied id and membership of a view.
type Place<C> = (
    Option<LogId<<C as RaftTypeConfig>::NodeId>>,
    StoredMembership<<C as RaftTypeConfig>::NodeId, <C as RaftTypeConfig>::Node>,
);

fn place<C: RaftTypeConfig>(view: &KeyspaceView) -> Result<Place<C>, AnyError> {
    let row = |key| view.get(key).map_err(|e| any(&e));
    let applied = row(APPLIED)?.map(|bytes| decode(&bytes)).transpose()?;
    let members = row(MEMBERS)?.map(|bytes| decode(&bytes)).transpose()?;
    Ok((applied, members.unwrap_or_default()))
}

/// The state machine of a group, for openraft.
pub struct StateMachine<C, A> {
    shared: Arc<Shared>,
    app: A,
    types: PhantomData<fn() -> C>,
}

impl<C, A> StateMachine<C, A>
where
    C: RaftTypeConfig<SnapshotData = SnapshotData>,
{
    pub(crate) fn new(shared: Arc<Shared>, app: A) -> Self {
        StateMachine { shared, app, types: PhantomData }
    }

    /// Reads the state, beside openraft.
    pub fn reader(&self) -> StateReader {
        StateReader(self.shared.clone())
    }

    fn db(&self) -> &Db {
        self.shared.log.db()
    }

    /// Puts the snapshot in the place of the state, and of the log before it, in one commit.
    async fn install(
        &self,
        meta: &SnapshotMeta<C::NodeId, C::Node>,
        snapshot: SnapshotData,
    ) -> Result<(), AnyError> {
        let fresh = || Ok((self.shared.fresh_staging()?, Transfer::begin(&self.shared)));
        let staging = snapshot.finish(fresh).map_err(|e| any(&e))?;
        let mut batch = self.db().batch();
        batch.put(&staging, MEMBERS, encode(&meta.last_membership)?);
        if let Some(last) = &meta.last_log_id {
            batch.put(&staging, APPLIED, encode(last)?);
            // Entries behind the snapshot stay if they follow it.
            let log = &self.shared.log;
            if log.term(last.index).is_ok_and(|term| term == id(last).term) {
                purge(log, &mut batch, last)?;
            } else {
                log.reset(&mut batch, id(last)).set(&mut batch, Row::Purged, encode(last)?);
            }
        }
        batch.replace(&self.shared.state, &staging);
        commit_synced(&mut batch).await.map_err(|e| any(&e))
    }
}

fn read<NID: openraft::NodeId>(e: impl Into<AnyError>) -> StorageError<NID> {
    StorageIOError::read_state_machine(e).into()
}

fn write<NID: openraft::NodeId>(e: impl Into<AnyError>) -> StorageError<NID> {
    StorageIOError::write_state_machine(e).into()
}

/// A snapshot of now; none of a state that nothing was applied to.
fn snapshot<C>(shared: &Shared, view: &View) -> Result<Option<Snapshot<C>>, AnyError>
where
    C: RaftTypeConfig<SnapshotData = SnapshotData>,
{
    let rows = shared.state.at(view);
    let (last_log_id, last_membership) = place::<C>(&rows)?;
    let Some(last) = &last_log_id else { return Ok(None) };
    // The same state has the same name everywhere, and the same bytes.
    let snapshot_id = format!("{last}");
    let meta = SnapshotMeta { last_log_id, last_membership, snapshot_id };
    Ok(Some(Snapshot { meta, snapshot: Box::new(SnapshotData::sending(rows)) }))
}

/// Makes snapshots.
pub struct Builder<C> {
    shared: Arc<Shared>,
    types: PhantomData<fn() -> C>,
}

impl<C> RaftSnapshotBuilder<C> for Builder<C>
where
    C: RaftTypeConfig<SnapshotData = SnapshotData>,
{
    async fn build_snapshot(&mut self) -> Result<Snapshot<C>, StorageError<C::NodeId>> {
        let view = self.shared.log.db().snapshot();
        let made = snapshot(&self.shared, &view).map_err(read)?;
        Ok(made.unwrap_or_else(|| Snapshot {
            meta: SnapshotMeta::default(),
            snapshot: Box::new(SnapshotData::sending(self.shared.state.at(&view))),
        }))
    }
}

impl<C, A> RaftStateMachine<C> for StateMachine<C, A>
where
    C: RaftTypeConfig<SnapshotData = SnapshotData, Entry = Entry<C>>,
    Entry<C>: Serialize + DeserializeOwned,
    A: App<C>,
{
    type SnapshotBuilder = Builder<C>;

    async fn applied_state(&mut self) -> Result<Place<C>, StorageError<C::NodeId>> {
        place::<C>(&self.shared.state.at(&self.db().snapshot())).map_err(read)
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<C::R>, StorageError<C::NodeId>>
    where
        I: IntoIterator<Item = Entry<C>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let shared = self.shared.clone();
        let mut writes = Writes { state: &shared.state, written: BTreeMap::new() };
        let (mut answers, mut last, mut members) = (Vec::new(), None, None);
        for entry in entries {
            let log_id = entry.log_id.clone();
            answers.push(match entry.payload {
                EntryPayload::Normal(request) => {
                    let applied = self.app.apply(&mut writes, request);
                    let fail = |e: Box<dyn Error + Send + Sync>| AnyError::from_dyn(&*e, None);
                    applied.map_err(|e| StorageIOError::apply(log_id.clone(), fail(e)))?
                }
                EntryPayload::Membership(membership) => {
                    members = Some(StoredMembership::new(Some(log_id.clone()), membership));
                    self.app.blank()
                }
                EntryPayload::Blank => self.app.blank(),
            });
            last = Some(log_id);
        }
        let Some(last) = last else { return Ok(answers) };
        let mut batch = self.db().batch();
        for (key, value) in &writes.written {
            match value {
                Some(value) => batch.put(writes.state, key, value),
                None => batch.delete(writes.state, key),
            };
        }
        batch.put(writes.state, APPLIED, encode(&last).map_err(write)?);
        if let Some(members) = members {
            batch.put(writes.state, MEMBERS, encode(&members).map_err(write)?);
        }
        let committed = batch.commit_with(Durability::Buffered);
        committed.map_err(|e| StorageIOError::apply(last, any(&e)))?;
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Builder<C> {
        Builder { shared: self.shared.clone(), types: PhantomData }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotData>, StorageError<C::NodeId>> {
        let staging = self.shared.fresh_staging().map_err(|e| write(any(&e)))?;
        Ok(Box::new(SnapshotData::receiving(staging, Transfer::begin(&self.shared))))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<C::NodeId, C::Node>,
        snapshot: Box<SnapshotData>,
    ) -> Result<(), StorageError<C::NodeId>> {
        let _here = Transfer::begin(&self.shared);
        let installed = self.install(meta, *snapshot).await;
        self.shared.incoming.send_modify(|incoming| incoming.failed = installed.is_err());
        installed.map_err(|e| StorageIOError::write_snapshot(Some(meta.signature()), e).into())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<C>>, StorageError<C::NodeId>> {
        let view = self.db().snapshot();
        snapshot(&self.shared, &view).map_err(read)
    }
}
