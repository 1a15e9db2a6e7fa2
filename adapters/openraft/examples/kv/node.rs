//! One node: a Raft group on a database, and the socket by which it is spoken to, a request and its reply
//! each a line of JSON.

use crate::Result;
use esker::{Db, Options};
use esker_openraft::{App, AppResult, Group, SnapshotData, StateReader, Writes};
use openraft::error::{
    ClientWriteError, InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError,
};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{BasicNode, Config, Raft, SnapshotPolicy};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

openraft::declare_raft_types!(
    pub Types: D = Put, R = Option<String>, NodeId = u64, Node = BasicNode, SnapshotData = SnapshotData
);

#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Put {
    key: String,
    value: String,
}

struct Map;

impl App<Types> for Map {
    fn apply(&mut self, state: &mut Writes<'_>, put: Put) -> AppResult<Option<String>> {
        let before = state.get(&put.key)?.map(String::from_utf8).transpose()?;
        state.put(put.key, put.value);
        Ok(before)
    }

    fn blank(&mut self) -> Option<String> {
        None
    }
}

#[derive(Serialize, Deserialize, Debug)]
pub enum Request {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<u64>),
    Snapshot(InstallSnapshotRequest<Types>),
    /// Makes these nodes a cluster.
    Init(BTreeMap<u64, String>),
    /// Adds a node that does not vote, and waits until it has what there is.
    Learner(u64, String),
    /// These nodes vote.
    Members(BTreeSet<u64>),
    Put(String, String),
    /// The newest value, as all agree.
    Get(String),
    /// The value this node has.
    Local(String),
    Status,
}

#[derive(Serialize, Deserialize, Debug)]
pub enum Reply {
    Append(std::result::Result<AppendEntriesResponse<u64>, RaftError<u64>>),
    Vote(std::result::Result<VoteResponse<u64>, RaftError<u64>>),
    Snapshot(std::result::Result<InstallSnapshotResponse<u64>, RaftError<u64, InstallSnapshotError>>),
    Done,
    /// Of a put: the value before.
    Value(Option<String>),
    /// Ask there.
    Leader(Option<String>),
    /// It may have happened or not.
    Failed(String),
    Status(Status),
}

#[derive(Serialize, Deserialize, Debug, Default, PartialEq)]
pub struct Status {
    pub leader: Option<u64>,
    pub last: Option<u64>,
    pub applied: Option<u64>,
    pub members: BTreeSet<u64>,
    /// How far the log was purged.
    pub purged: Option<u64>,
}

/// Longer lines are not listened to.
const MAX_LINE: u64 = 64 << 20;

/// A connection that requests are sent by, one at a time.
struct Line(BufReader<TcpStream>);

impl Line {
    async fn open(address: &str) -> std::io::Result<Line> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Line(BufReader::new(stream)))
    }

    async fn ask(&mut self, request: &Request) -> std::io::Result<Reply> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.0.write_all(&line).await?;
        line.clear();
        if self.0.read_until(b'\n', &mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_slice(&line)?)
    }
}

/// Asks the node at `address`, by a connection of its own.
pub async fn ask(address: &str, request: &Request, patience: Duration) -> Result<Reply> {
    let asked = async { Line::open(address).await?.ask(request).await };
    Ok(tokio::time::timeout(patience, asked).await??)
}

pub struct Network;

pub struct Peer {
    id: u64,
    address: String,
    line: Option<Line>,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        Peer { id: target, address: node.addr.clone(), line: None }
    }
}

type Failed<E> = RPCError<u64, BasicNode, E>;

impl Peer {
    async fn call<E: std::error::Error>(
        &mut self,
        request: Request,
        option: &RPCOption,
    ) -> std::result::Result<Reply, Failed<E>> {
        let mut line = self.line.take();
        let asked = async {
            let mut open = match line.take() {
                Some(line) => line,
                None => Line::open(&self.address).await?,
            };
            let reply = open.ask(&request).await?;
            Ok::<_, std::io::Error>((open, reply))
        };
        match tokio::time::timeout(option.hard_ttl(), asked).await {
            Ok(Ok((line, reply))) => {
                self.line = Some(line);
                Ok(reply)
            }
            Ok(Err(e)) => Err(RPCError::Network(NetworkError::new(&e))),
            Err(e) => Err(RPCError::Network(NetworkError::new(&e))),
        }
    }

    fn answer<T, E: std::error::Error>(
        &self,
        answer: Option<std::result::Result<T, E>>,
    ) -> std::result::Result<T, Failed<E>> {
        match answer {
            Some(answer) => answer.map_err(|e| RPCError::RemoteError(RemoteError::new(self.id, e))),
            None => {
                let e = std::io::Error::from(std::io::ErrorKind::InvalidData);
                Err(RPCError::Network(NetworkError::new(&e)))
            }
        }
    }
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> std::result::Result<AppendEntriesResponse<u64>, Failed<RaftError<u64>>> {
        let reply = self.call(Request::Append(rpc), &option).await?;
        self.answer(if let Reply::Append(answer) = reply { Some(answer) } else { None })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> std::result::Result<VoteResponse<u64>, Failed<RaftError<u64>>> {
        let reply = self.call(Request::Vote(rpc), &option).await?;
        self.answer(if let Reply::Vote(answer) = reply { Some(answer) } else { None })
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<Types>,
        option: RPCOption,
    ) -> std::result::Result<InstallSnapshotResponse<u64>, Failed<RaftError<u64, InstallSnapshotError>>> {
        let reply = self.call(Request::Snapshot(rpc), &option).await?;
        self.answer(if let Reply::Snapshot(answer) = reply { Some(answer) } else { None })
    }
}

#[derive(Clone)]
struct Node {
    raft: Raft<Types>,
    state: StateReader,
}

fn done<T>(
    result: std::result::Result<T, RaftError<u64, ClientWriteError<u64, BasicNode>>>,
    reply: impl FnOnce(T) -> Reply,
) -> Reply {
    match result {
        Ok(value) => reply(value),
        Err(e) => match e.forward_to_leader::<BasicNode>() {
            Some(to) => Reply::Leader(to.leader_node.as_ref().map(|node| node.addr.clone())),
            None => Reply::Failed(e.to_string()),
        },
    }
}

impl Node {
    fn local(&self, key: &str) -> Reply {
        match self.state.get(key) {
            Ok(value) => Reply::Value(value.map(|v| String::from_utf8_lossy(&v).into_owned())),
            Err(e) => Reply::Failed(e.to_string()),
        }
    }

    fn status(&self) -> Status {
        let metrics = self.raft.metrics().borrow().clone();
        Status {
            leader: metrics.current_leader,
            last: metrics.last_log_index,
            applied: metrics.last_applied.map(|id| id.index),
            members: metrics.membership_config.voter_ids().collect(),
            purged: metrics.purged.map(|id| id.index),
        }
    }

    async fn answer(&self, request: Request) -> Reply {
        match request {
            Request::Append(rpc) => Reply::Append(self.raft.append_entries(rpc).await),
            Request::Vote(rpc) => Reply::Vote(self.raft.vote(rpc).await),
            Request::Snapshot(rpc) => Reply::Snapshot(self.raft.install_snapshot(rpc).await),
            Request::Init(members) => {
                let nodes: BTreeMap<u64, BasicNode> =
                    members.into_iter().map(|(id, address)| (id, BasicNode::new(address))).collect();
                match self.raft.initialize(nodes).await {
                    Ok(()) => Reply::Done,
                    Err(e) => Reply::Failed(e.to_string()),
                }
            }
            Request::Learner(id, address) => {
                done(self.raft.add_learner(id, BasicNode::new(address), true).await, |_| Reply::Done)
            }
            Request::Members(members) => {
                done(self.raft.change_membership(members, false).await, |_| Reply::Done)
            }
            Request::Put(key, value) => {
                done(self.raft.client_write(Put { key, value }).await, |put| Reply::Value(put.data))
            }
            Request::Get(key) => match self.raft.ensure_linearizable().await {
                Ok(_) => self.local(&key),
                Err(e) => match e.forward_to_leader::<BasicNode>() {
                    Some(to) => Reply::Leader(to.leader_node.as_ref().map(|node| node.addr.clone())),
                    None => Reply::Failed(e.to_string()),
                },
            },
            Request::Local(key) => self.local(&key),
            Request::Status => Reply::Status(self.status()),
        }
    }

    async fn talk(&self, stream: TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while (&mut stream).take(MAX_LINE).read_until(b'\n', &mut line).await? > 0 {
            if !line.ends_with(b"\n") {
                return Err("a line that does not end".into());
            }
            let reply = match serde_json::from_slice(&line) {
                Ok(request) => self.answer(request).await,
                Err(e) => Reply::Failed(format!("this is no request: {e}")),
            };
            line = serde_json::to_vec(&reply)?;
            line.push(b'\n');
            stream.write_all(&line).await?;
            line.clear();
        }
        Ok(())
    }
}

/// Runs a node. One that is attached ends with the process that started it, which holds the other end of
/// its standard input.
pub async fn serve(id: u64, listen: &str, dir: &Path, attached: bool) -> Result<()> {
    let (held, gone) = tokio::sync::oneshot::channel::<()>();
    if attached {
        std::thread::spawn(move || {
            _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            drop(held);
        });
    }
    tokio::select! {
        ended = run(id, listen, dir) => ended,
        _ = gone, if attached => Ok(()),
    }
}

async fn run(id: u64, listen: &str, dir: &Path) -> Result<()> {
    let config = Config {
        heartbeat_interval: 100,
        election_timeout_min: 400,
        election_timeout_max: 800,
        install_snapshot_timeout: 1000,
        snapshot_max_chunk_size: 64 << 10,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(200),
        max_in_snapshot_log_to_keep: 50,
        ..Config::default()
    };
    let listener = TcpListener::bind(listen).await?;
    let db = Db::open(dir, Options::default().segment_bytes(4 << 20).memtable_bytes(4 << 20))?;
    let (log, machine) = Group::open(&db, "kv", 1)?.stores(Map)?;
    let state = machine.reader();
    let raft = Raft::new(id, Arc::new(config.validate()?), Network, log, machine).await?;
    let node = Node { raft, state };
    loop {
        let (stream, _) = listener.accept().await?;
        let node = node.clone();
        tokio::spawn(async move { node.talk(stream).await });
    }
}
