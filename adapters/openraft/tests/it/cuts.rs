//! openraft's suite on a disk that loses power after every call that was answered.
//!
//! What openraft takes to be durable then (votes, entries, an installed snapshot) must be there after
//! each cut, whatever else the disk lost. What need not be (applying, purging, cutting, the committed
//! id) is synced before the cut, since the suite looks for it.

use crate::{Map, Types};
use esker::fs::sim::SimFs;
use esker::{Db, Options};
use esker_openraft::{Builder, Group, LogStore, SnapshotData, StateMachine};
use openraft::storage::{
    LogFlushed, LogState, RaftLogStorage, RaftLogStorageExt, RaftStateMachine, Snapshot,
};
use openraft::testing::{StoreBuilder, Suite};
use openraft::{
    Entry, LogId, OptionalSend, RaftLogReader, SnapshotMeta, StorageError, StoredMembership, Vote,
};
use std::fmt::Debug;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Mutex, MutexGuard};

type Result<T> = std::result::Result<T, StorageError<u64>>;

/// A call whose answer says that something is durable.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Call {
    Vote,
    Append,
    Install,
}

/// A machine, and what runs on it at the moment.
struct Machine {
    disk: SimFs,
    db: Db,
    cuts: u64,
    /// Entries are appended by a store that answers later.
    pipelined: bool,
    /// For the test of the test: what was done in such a call itself is lost, however durable.
    lossy: Option<Call>,
    before: u64,
}

fn open(disk: &SimFs) -> Db {
    let options = Options::default().workers(0).segment_bytes(64 << 10).memtable_bytes(64 << 10);
    // Little to replay: it is opened often.
    let options = options.journal_bytes(256 << 10);
    Db::open("/db", options.fs(Arc::new(disk.clone()))).unwrap()
}

impl Machine {
    fn new(pipelined: bool, lossy: Option<Call>) -> Machine {
        let disk = SimFs::new(7);
        let db = open(&disk);
        db.sync().unwrap();
        let before = disk.ops();
        Machine { disk, db, cuts: 0, pipelined, lossy, before }
    }

    fn stores(&self, group: u64) -> (LogStore<Types>, StateMachine<Types, Map>) {
        let (log, state) = Group::open(&self.db, "raft", group).unwrap().stores(Map).unwrap();
        (if self.pipelined { log.pipelined() } else { log }, state)
    }

    /// The power goes and comes back, after `call`.
    fn cut(&mut self, call: Option<Call>) {
        let op = if call.is_some() && call == self.lossy { self.before } else { self.disk.ops() };
        let states = self.disk.states_at(op);
        self.disk = self.disk.crash_at(op, self.cuts % states);
        self.cuts += 1;
        self.db = open(&self.disk);
        self.before = self.disk.ops();
    }
}

#[derive(Clone)]
struct Cut {
    machine: Arc<Mutex<Machine>>,
    group: u64,
}

impl Cut {
    async fn on(&self) -> (MutexGuard<'_, Machine>, LogStore<Types>, StateMachine<Types, Map>) {
        let mut machine = self.machine.lock().await;
        let (log, state) = machine.stores(self.group);
        machine.before = machine.disk.ops();
        (machine, log, state)
    }
}

impl RaftLogReader<Types> for Cut {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<Types>>> {
        self.on().await.1.try_get_log_entries(range).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry<Types>>> {
        self.on().await.1.limited_get_log_entries(start, end).await
    }
}

impl RaftLogStorage<Types> for Cut {
    type LogReader = Cut;

    async fn get_log_state(&mut self) -> Result<LogState<Types>> {
        self.on().await.1.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> Cut {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<()> {
        let (mut machine, mut log, _) = self.on().await;
        log.save_vote(vote).await?;
        machine.cut(Some(Call::Vote));
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>> {
        self.on().await.1.read_vote().await
    }

    async fn save_committed(&mut self, committed: Option<LogId<u64>>) -> Result<()> {
        let (mut machine, mut log, _) = self.on().await;
        log.save_committed(committed).await?;
        machine.db.sync().unwrap();
        machine.cut(None);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId<u64>>> {
        self.on().await.1.read_committed().await
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<()>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let (mut machine, mut log, _) = self.on().await;
        // Once it is told, however that comes.
        log.blocking_append(entries).await?;
        machine.cut(Some(Call::Append));
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId<u64>) -> Result<()> {
        let (mut machine, mut log, _) = self.on().await;
        log.truncate(log_id).await?;
        machine.db.sync().unwrap();
        machine.cut(None);
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId<u64>) -> Result<()> {
        let (mut machine, mut log, _) = self.on().await;
        log.purge(log_id).await?;
        machine.db.sync().unwrap();
        machine.cut(None);
        Ok(())
    }
}

impl RaftStateMachine<Types> for Cut {
    type SnapshotBuilder = Builder<Types>;

    async fn applied_state(&mut self) -> Result<(Option<LogId<u64>>, StoredMembership<u64, ()>)> {
        self.on().await.2.applied_state().await
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Option<String>>>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let (mut machine, _, mut state) = self.on().await;
        let answers = state.apply(entries).await?;
        machine.db.sync().unwrap();
        machine.cut(None);
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Builder<Types> {
        self.on().await.2.get_snapshot_builder().await
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotData>> {
        self.on().await.2.begin_receiving_snapshot().await
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, ()>,
        data: Box<SnapshotData>,
    ) -> Result<()> {
        let (mut machine, _, mut state) = self.on().await;
        state.install_snapshot(meta, data).await?;
        machine.cut(Some(Call::Install));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>> {
        self.on().await.2.get_current_snapshot().await
    }
}

struct Fresh {
    pipelined: bool,
    lossy: Option<Call>,
    cuts: Mutex<Vec<Arc<Mutex<Machine>>>>,
}

impl StoreBuilder<Types, Cut, Cut> for &Fresh {
    async fn build(&self) -> Result<((), Cut, Cut)> {
        let machine = Arc::new(Mutex::new(Machine::new(self.pipelined, self.lossy)));
        self.cuts.lock().await.push(machine.clone());
        let cut = Cut { machine, group: 1 };
        Ok(((), cut.clone(), cut))
    }
}

#[test]
fn with_a_disk_for_each_case() {
    for pipelined in [false, true] {
        let fresh = Fresh { pipelined, lossy: None, cuts: Mutex::default() };
        Suite::test_all(&fresh).unwrap();
        let cuts: u64 = fresh.cuts.into_inner().iter().map(|machine| machine.blocking_lock().cuts).sum();
        println!("the power was cut {cuts} times");
        assert!(cuts > 200);
    }
}

struct Shared {
    machine: Arc<Mutex<Machine>>,
    groups: AtomicU64,
}

impl StoreBuilder<Types, Cut, Cut> for &Shared {
    async fn build(&self) -> Result<((), Cut, Cut)> {
        let group = self.groups.fetch_add(1, Ordering::Relaxed);
        let cut = Cut { machine: self.machine.clone(), group };
        Ok(((), cut.clone(), cut))
    }
}

#[test]
fn with_all_cases_on_one_disk() {
    let machine = Arc::new(Mutex::new(Machine::new(false, None)));
    Suite::test_all(&Shared { machine: machine.clone(), groups: AtomicU64::new(0) }).unwrap();
    assert!(machine.blocking_lock().cuts > 200);
}

/// The suite notices when an answer was given too early, whichever.
#[test]
fn what_is_lost_is_noticed() {
    for call in [Call::Vote, Call::Append, Call::Install] {
        let fresh = Fresh { pipelined: false, lossy: Some(call), cuts: Mutex::default() };
        let run = std::panic::AssertUnwindSafe(|| Suite::test_all(&fresh).unwrap());
        assert!(std::panic::catch_unwind(run).is_err(), "{call:?}");
    }
}
