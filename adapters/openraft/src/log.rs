//! The log store: openraft's calls as batches on a Raft log.

use crate::{Shared, decode, encode, state};
use esker::raft_log::{self, LogId as Id, RaftLog, Row};
use esker::{Batch, Durability, Ticket};
use openraft::log_id::RaftLogId;
use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{
    AnyError, AsyncRuntime, LogId, OptionalSend, RaftLogReader, RaftTypeConfig, StorageError, StorageIOError,
    Vote,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::ops::RangeBounds;
use std::sync::Arc;
use tokio::sync::mpsc;

/// How much of the log one read for replication takes.
const READ_BYTES: usize = 1 << 20;

/// Appends that are not durable yet, and whom to tell.
type Pending<C> = mpsc::UnboundedSender<(Option<Ticket>, LogFlushed<C>)>;

/// The log of a group, for openraft. Clones are for reading.
pub struct LogStore<C: RaftTypeConfig> {
    shared: Arc<Shared>,
    pipelined: bool,
    pending: Option<Pending<C>>,
}

impl<C: RaftTypeConfig> Clone for LogStore<C> {
    fn clone(&self) -> Self {
        LogStore { shared: self.shared.clone(), pipelined: self.pipelined, pending: None }
    }
}

impl<C: RaftTypeConfig> LogStore<C> {
    pub(crate) fn new(shared: Arc<Shared>) -> LogStore<C> {
        LogStore { shared, pipelined: false, pending: None }
    }

    /// Appends return once they can be read, and openraft is told when they are durable, in their order.
    /// Then the next append is built while the disk works for this one. Not the default: it takes a
    /// library that never counts its own entries before it is told.
    #[must_use]
    pub fn pipelined(mut self) -> Self {
        self.pipelined = true;
        self
    }

    /// Has `callback` told when `ticket` is done, after those before; with none, right after them.
    fn tell_later(&mut self, ticket: Option<Ticket>, callback: LogFlushed<C>) {
        let pending = self.pending.get_or_insert_with(|| {
            let (sender, mut waiting) = mpsc::unbounded_channel::<(Option<Ticket>, LogFlushed<C>)>();
            // Runs on when the handle is dropped.
            let _task = C::AsyncRuntime::spawn(async move {
                while let Some((ticket, callback)) = waiting.recv().await {
                    let done = match ticket {
                        Some(ticket) => ticket.await.map(|_| ()),
                        None => Ok(()),
                    };
                    callback.log_io_completed(done.map_err(std::io::Error::from));
                }
            });
            sender
        });
        // Its receiver lives as long as it does.
        if let Err(mpsc::error::SendError((_, callback))) = pending.send((ticket, callback)) {
            callback.log_io_completed(Err(std::io::ErrorKind::BrokenPipe.into()));
        }
    }

    fn log(&self) -> &RaftLog {
        &self.shared.log
    }

    fn batch(&self) -> Batch {
        self.log().db().batch()
    }
}

/// Commits, and returns once the commit survives power loss; blocks no thread meanwhile.
pub(crate) async fn commit_synced(batch: &mut Batch) -> esker::Result<()> {
    batch.submit()?.await.map(|_| ())
}

fn read_logs<NID: openraft::NodeId>(e: impl Into<AnyError>) -> StorageError<NID> {
    StorageIOError::read_logs(e).into()
}

fn write_logs<NID: openraft::NodeId>(e: impl Into<AnyError>) -> StorageError<NID> {
    StorageIOError::write_logs(e).into()
}

pub(crate) fn any(e: &(impl std::error::Error + 'static)) -> AnyError {
    AnyError::new(e)
}

/// The part of a log id that Esker's log knows.
pub(crate) fn id<NID: openraft::NodeId>(log_id: &LogId<NID>) -> Id {
    Id::new(log_id.index, log_id.leader_id.get_term())
}

/// Purges up to `upto` in `batch`, and keeps who its leader was.
pub(crate) fn purge<NID: openraft::NodeId>(
    log: &RaftLog,
    batch: &mut Batch,
    upto: &LogId<NID>,
) -> Result<(), AnyError> {
    let first = log.bounds().map_err(|e| any(&e))?.start;
    log.purge(batch, id(upto)).map_err(|e| any(&e))?;
    if upto.index.saturating_add(1) >= first {
        log.set(batch, Row::Purged, encode(upto)?);
    }
    Ok(())
}

impl<C> LogStore<C>
where
    C: RaftTypeConfig,
    C::Entry: Serialize + DeserializeOwned,
{
    fn row<T: DeserializeOwned>(&self, row: Row) -> Result<Option<T>, AnyError> {
        let bytes = self.log().row(row).map_err(|e| any(&e))?;
        bytes.map(|bytes| decode(&bytes)).transpose()
    }

    fn entry(&self, entry: &esker::LogEntry) -> Result<C::Entry, StorageError<C::NodeId>> {
        decode(entry.bytes()).map_err(|e| StorageIOError::read_log_at_index(entry.index(), e).into())
    }

    fn state(&self) -> Result<LogState<C>, StorageError<C::NodeId>> {
        let bounds = self.log().bounds().map_err(|e| read_logs(any(&e)))?;
        let purged = if bounds.start > 0 { self.row(Row::Purged).map_err(read_logs)? } else { None };
        let last = match bounds.end.checked_sub(1).filter(|_| !bounds.is_empty()) {
            Some(last) => {
                let entry = self.log().entry(last).map_err(|e| read_logs(any(&e)))?;
                Some(self.entry(&entry)?.get_log_id().clone())
            }
            None => purged.clone(),
        };
        Ok(LogState { last_purged_log_id: purged, last_log_id: last })
    }

    /// Whether entry `index` was purged: then it is in the state machine, and not wanted in the log.
    fn was_purged(&self, index: u64) -> Result<bool, AnyError> {
        let purged: Option<LogId<C::NodeId>> = self.row(Row::Purged)?;
        Ok(purged.is_some_and(|purged| index <= purged.index))
    }
}

impl<C> RaftLogReader<C> for LogStore<C>
where
    C: RaftTypeConfig,
    C::Entry: Serialize + DeserializeOwned,
{
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<C::Entry>, StorageError<C::NodeId>> {
        let range = (range.start_bound().cloned(), range.end_bound().cloned());
        let entries = self.log().log().range(range);
        entries.map(|entry| self.entry(&entry.map_err(|e| read_logs(any(&e)))?)).collect()
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<C::Entry>, StorageError<C::NodeId>> {
        let read = self.log().entries(start..end, READ_BYTES);
        let read = read.map_err(|e: raft_log::Error| read_logs(any(&e)))?;
        read.iter().map(|entry| self.entry(entry)).collect()
    }
}

impl<C> RaftLogStorage<C> for LogStore<C>
where
    C: RaftTypeConfig,
    C::Entry: Serialize + DeserializeOwned,
{
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<C>, StorageError<C::NodeId>> {
        self.state()
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<C::NodeId>) -> Result<(), StorageError<C::NodeId>> {
        let fail = |e| StorageError::from(StorageIOError::write_vote(e));
        let mut batch = self.batch();
        self.log().set(&mut batch, Row::Vote, encode(vote).map_err(fail)?);
        commit_synced(&mut batch).await.map_err(|e| fail(any(&e)))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<C::NodeId>>, StorageError<C::NodeId>> {
        self.row(Row::Vote).map_err(|e| StorageIOError::read_vote(e).into())
    }

    async fn save_committed(
        &mut self,
        committed: Option<LogId<C::NodeId>>,
    ) -> Result<(), StorageError<C::NodeId>> {
        let mut batch = self.batch();
        match committed {
            Some(committed) => {
                let bytes = encode(&committed).map_err(write_logs)?;
                self.log().set(&mut batch, Row::Committed, bytes);
            }
            None => _ = self.log().unset(&mut batch, Row::Committed),
        }
        batch.commit_with(Durability::Buffered).map_err(|e| write_logs(any(&e)))?;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId<C::NodeId>>, StorageError<C::NodeId>> {
        self.row(Row::Committed).map_err(read_logs)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<C>) -> Result<(), StorageError<C::NodeId>>
    where
        I: IntoIterator<Item = C::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut batch = self.batch();
        let bounds = self.log().bounds().map_err(|e| read_logs(any(&e)))?;
        for entry in entries {
            let log_id = entry.get_log_id().clone();
            if log_id.index < bounds.start && self.was_purged(log_id.index).map_err(read_logs)? {
                continue;
            }
            // The first entry there ever is says where the log begins.
            if batch.is_empty() && bounds.end == 0 && log_id.index > 0 {
                batch.require_next(self.log().log(), 0);
                self.log().reset(&mut batch, Id::new(log_id.index - 1, 0));
            }
            let fail = |e| StorageError::from(StorageIOError::write_log_entry(log_id.clone(), e));
            self.log().append(&mut batch, id(&log_id), encode(&entry).map_err(fail)?);
        }
        if self.pipelined {
            let ticket = if batch.is_empty() { Ok(None) } else { batch.submit().map(Some) };
            self.tell_later(ticket.map_err(|e| write_logs(any(&e)))?, callback);
            return Ok(());
        }
        // Appended by one and synced: whoever came before has been answered.
        let done = if batch.is_empty() { Ok(()) } else { commit_synced(&mut batch).await };
        callback.log_io_completed(done.clone().map_err(std::io::Error::from));
        done.map_err(|e| write_logs(any(&e)))
    }

    async fn truncate(&mut self, log_id: LogId<C::NodeId>) -> Result<(), StorageError<C::NodeId>> {
        let bounds = self.log().bounds().map_err(|e| read_logs(any(&e)))?;
        if log_id.index >= bounds.end {
            return Ok(());
        }
        let mut batch = self.batch();
        self.log().truncate(&mut batch, log_id.index);
        // In order before the next append, which is synced.
        batch.commit_with(Durability::Buffered).map_err(|e| write_logs(any(&e)))?;
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId<C::NodeId>) -> Result<(), StorageError<C::NodeId>> {
        self.installed(log_id.index).await.map_err(write_logs)?;
        let mut batch = self.batch();
        purge(self.log(), &mut batch, &log_id).map_err(write_logs)?;
        if !batch.is_empty() {
            batch.commit_with(Durability::Buffered).map_err(|e| write_logs(any(&e)))?;
        }
        Ok(())
    }
}

impl<C> LogStore<C>
where
    C: RaftTypeConfig,
{
    /// Waits for the snapshot that takes the state machine to `index`, if one is on its way. openraft
    /// gives the order to purge along with the order to install, and a log that went without the
    /// state that covers it could not be mended.
    async fn installed(&self, index: u64) -> Result<(), AnyError> {
        let behind = || -> Result<bool, AnyError> {
            let applied = state::applied::<C>(&self.shared.state)?;
            Ok(applied.is_none_or(|applied| applied.index < index))
        };
        let mut incoming = self.shared.incoming.subscribe();
        let mut waited = false;
        loop {
            let now = *incoming.borrow_and_update();
            if !behind()? {
                return Ok(());
            }
            if now.transfers == 0 && !now.failed && !waited {
                return Ok(());
            }
            if now.transfers == 0 || now.failed {
                break;
            }
            // Its sender is in `shared`.
            _ = incoming.changed().await;
            waited = true;
        }
        Err(AnyError::error(format!(
            "entries up to {index} are to be purged, and the snapshot that holds them was not installed"
        )))
    }
}
