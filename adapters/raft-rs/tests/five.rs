//! Five nodes in one process, on disks that lose power: each crashes and comes back at random moments,
//! messages are lost and overtake each other, logs are compacted and snapshots installed. Proposals go
//! on being committed, none that was is lost, and the logs agree.
#![allow(clippy::unwrap_used)]

use esker::fs::sim::SimFs;
use esker::raft_log::RaftLogs;
use esker::{Batch, Db, Durability, Keyspace, Options};
use esker_raft_rs::{Snapshots, Store};
use protobuf::Message as _;
use raft::eraftpb::{ConfState, Entry, EntryType, Message, Snapshot};
use raft::{Config, RawNode, StateRole};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const NODES: u64 = 5;

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What was applied: the place of each proposal; and how far, in a row of its own.
#[derive(Clone)]
struct State(Keyspace);

impl State {
    fn applied(&self) -> (u64, u64) {
        let row = self.0.get("\0applied").unwrap();
        row.map_or((0, 0), |row| {
            let (index, term) = row.split_at(8);
            (u64::from_le_bytes(index.try_into().unwrap()), u64::from_le_bytes(term.try_into().unwrap()))
        })
    }

    fn set_applied(&self, batch: &mut Batch, index: u64, term: u64) {
        batch.put(&self.0, "\0applied", [index.to_le_bytes(), term.to_le_bytes()].concat());
    }

    fn all(&self) -> BTreeSet<u64> {
        let rows = self.0.prefix("p").map(|row| row.unwrap());
        rows.map(|row| u64::from_be_bytes(row.key()[1..].try_into().unwrap())).collect()
    }
}

fn members() -> ConfState {
    ConfState { voters: (1..=NODES).collect(), ..Default::default() }
}

impl Snapshots for State {
    fn snapshot(&self) -> esker::Result<Option<Snapshot>> {
        let mut snapshot = Snapshot::new();
        let (index, term) = self.applied();
        let meta = snapshot.mut_metadata();
        (meta.index, meta.term) = (index, term);
        meta.set_conf_state(members());
        snapshot.data = self.all().into_iter().flat_map(u64::to_be_bytes).collect::<Vec<_>>().into();
        Ok(Some(snapshot))
    }
}

struct Node {
    disk: SimFs,
    db: Db,
    store: Store,
    state: State,
    raw: RawNode<Store>,
}

impl Node {
    fn start(id: u64, disk: SimFs) -> Node {
        let options = Options::default().workers(0).segment_bytes(64 << 10).memtable_bytes(64 << 10);
        let db = Db::open("/db", options.fs(Arc::new(disk.clone()))).unwrap();
        let state = State(db.keyspace("state").unwrap());
        let log = RaftLogs::open(&db, "raft").unwrap().group(id);
        let store = Store::open(log, state.clone(), &members()).unwrap();
        let config = Config {
            election_tick: 10,
            heartbeat_tick: 3,
            applied: state.applied().0,
            max_size_per_msg: 4 << 10,
            max_inflight_msgs: 16,
            pre_vote: true,
            ..Config::new(id)
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&config, store.clone(), &logger).unwrap();
        Node { disk, db, store, state, raw }
    }
}

struct Cluster {
    rng: Rng,
    nodes: Vec<Node>,
    wires: Vec<Message>,
    /// By index: the term and the proposal of what anybody has applied.
    committed: BTreeMap<u64, (u64, Vec<u8>)>,
    acknowledged: BTreeSet<u64>,
    proposed: u64,
    crashes: u64,
    snapshots: u64,
    steps: u64,
    /// Until when a node stays down.
    down: [u64; NODES as usize],
}

impl Cluster {
    fn new(seed: u64) -> Cluster {
        Cluster {
            rng: Rng(seed),
            nodes: (1..=NODES).map(|id| Node::start(id, SimFs::new(seed + id))).collect(),
            wires: Vec::new(),
            committed: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            proposed: 0,
            crashes: 0,
            snapshots: 0,
            steps: 0,
            down: [0; NODES as usize],
        }
    }

    /// The power of a node goes, and with it what was not synced, or any part of that.
    fn crash(&mut self, at: usize) {
        self.crashes += 1;
        let node = &self.nodes[at];
        let choice = self.rng.below(node.disk.states_at(node.disk.ops()));
        let disk = node.disk.crash(choice);
        self.nodes[at] = Node::start(at as u64 + 1, disk);
        let others = self.down.iter().filter(|&&until| until > self.steps).count();
        if others < 2 && self.rng.one_in(3) {
            self.down[at] = self.steps + self.rng.below(8000);
        }
    }

    fn is_down(&self, at: usize) -> bool {
        self.down[at] > self.steps
    }

    fn apply(&mut self, at: usize, batch: &mut Batch, entries: Vec<Entry>) {
        let node = &self.nodes[at];
        for entry in entries {
            let known = (entry.term, entry.data.to_vec());
            let first = self.committed.entry(entry.index).or_insert_with(|| known.clone());
            assert_eq!(*first, known, "entry {} of node {}", entry.index, at + 1);
            assert_eq!(entry.get_entry_type(), EntryType::EntryNormal);
            if let Ok(id) = <[u8; 8]>::try_from(&entry.data[..]) {
                batch.put(&node.state.0, [b"p", &id[..]].concat(), "");
                self.acknowledged.insert(u64::from_be_bytes(id));
            }
            node.state.set_applied(batch, entry.index, entry.term);
        }
    }

    /// Does what the node is ready for. The power may go between any two steps.
    fn ready(&mut self, at: usize, crashes: bool) {
        if !self.nodes[at].raw.has_ready() {
            return;
        }
        let mut ready = self.nodes[at].raw.ready();
        self.wires.extend(ready.take_messages());
        let mut batch = self.nodes[at].db.batch();
        let node = &self.nodes[at];
        if *ready.snapshot() != Snapshot::default() {
            self.snapshots += 1;
            let snapshot = ready.snapshot();
            node.store.install(&mut batch, snapshot).unwrap();
            batch.clear_keyspace(&node.state.0);
            for id in snapshot.data.chunks(8) {
                batch.put(&node.state.0, [b"p", id].concat(), "");
            }
            let meta = snapshot.get_metadata();
            node.state.set_applied(&mut batch, meta.index, meta.term);
        }
        node.store.append(&mut batch, ready.entries()).unwrap();
        if let Some(hard_state) = ready.hs() {
            node.store.set_hard_state(&mut batch, hard_state).unwrap();
        }
        let entries = ready.take_committed_entries();
        self.apply(at, &mut batch, entries);
        let must = ready.must_sync() || *ready.snapshot() != Snapshot::default();
        if !batch.is_empty() {
            batch.commit_with(if must { Durability::Sync } else { Durability::Buffered }).unwrap();
        }
        if crashes && self.rng.one_in(2000) {
            return self.crash(at);
        }
        self.wires.extend(ready.take_persisted_messages());
        let mut light = self.nodes[at].raw.advance(ready);
        self.wires.extend(light.take_messages());
        if let Some(commit) = light.commit_index() {
            self.nodes[at].store.set_commit(&mut batch, commit).unwrap();
        }
        let entries = light.take_committed_entries();
        self.apply(at, &mut batch, entries);
        let node = &self.nodes[at];
        let (applied, _) = node.state.applied();
        let bounds = node.store.log().bounds().unwrap();
        if applied > bounds.start + 20 {
            node.store.compact(&mut batch, applied - 5).unwrap();
        }
        if !batch.is_empty() {
            batch.commit_with(Durability::Buffered).unwrap();
        }
        self.nodes[at].raw.advance_apply();
    }

    fn step(&mut self, crashes: bool) {
        self.steps += 1;
        let at = self.rng.below(NODES) as usize;
        match self.rng.below(20) {
            _ if self.is_down(at) => {}
            0..=2 => _ = self.nodes[at].raw.tick(),
            3 if self.nodes[at].raw.raft.state == StateRole::Leader => {
                self.proposed += 1;
                let id = self.proposed.to_be_bytes().to_vec();
                _ = self.nodes[at].raw.propose(Vec::new(), id);
            }
            4 => _ = self.nodes[at].db.step().unwrap(),
            5 if crashes && self.rng.one_in(50) => self.crash(at),
            6..=13 if !self.wires.is_empty() => {
                let n = self.rng.below(self.wires.len().min(8) as u64) as usize;
                let message = self.wires.remove(n);
                let to = message.to as usize - 1;
                let lost = self.is_down(to) || crashes && self.rng.one_in(50);
                if !lost {
                    _ = self.nodes[to].raw.step(message);
                }
            }
            _ => self.ready(at, crashes),
        }
        // Congested: what is oldest is lost.
        if self.wires.len() > 500 {
            self.wires.drain(..100);
        }
    }

    fn applied(&self, at: usize) -> u64 {
        self.nodes[at].state.applied().0
    }

    fn check(&self) {
        let all = self.nodes[0].state.all();
        let lost: Vec<_> = self.acknowledged.difference(&all).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        for node in &self.nodes {
            assert_eq!(node.state.all(), all);
            let log = node.store.log();
            for entry in log.log().range(..=node.state.applied().0) {
                let entry = Entry::parse_from_bytes(entry.unwrap().bytes()).unwrap();
                assert_eq!(self.committed[&entry.index], (entry.term, entry.data.to_vec()));
            }
        }
    }
}

fn run(seed: u64, steps: u64) -> (u64, u64, u64) {
    let mut cluster = Cluster::new(seed);
    let mut before = 0;
    for _ in 0..4 {
        for _ in 0..steps / 4 {
            cluster.step(true);
        }
        // Proposals go on being committed.
        let now = cluster.acknowledged.len();
        assert!(now > before, "nothing was committed");
        before = now;
    }
    // The weather clears.
    cluster.down = [0; NODES as usize];
    for _ in 0..200 {
        for _ in 0..1000 {
            cluster.step(false);
        }
        let newest = *cluster.committed.keys().last().unwrap();
        // Each write is followed by others here, so "all" is near, not at, the newest.
        if (0..NODES as usize).all(|at| cluster.applied(at) + 20 > newest) {
            break;
        }
    }
    // No more proposals; all catch up.
    for _ in 0..400_000 {
        let at = cluster.rng.below(NODES) as usize;
        match cluster.rng.below(8) {
            0 => _ = cluster.nodes[at].raw.tick(),
            1..=4 if !cluster.wires.is_empty() => {
                let message = cluster.wires.remove(0);
                let to = message.to as usize - 1;
                _ = cluster.nodes[to].raw.step(message);
            }
            _ => cluster.ready(at, false),
        }
        let newest = *cluster.committed.keys().last().unwrap();
        if (0..NODES as usize).all(|at| cluster.applied(at) == newest) {
            break;
        }
    }
    cluster.check();
    (cluster.acknowledged.len() as u64, cluster.crashes, cluster.snapshots)
}

#[test]
fn five_nodes_that_crash_agree_and_lose_nothing() {
    let seeds = match std::env::var("ESKER_RAFT_SEED") {
        Ok(seed) => seed.parse().unwrap()..seed.parse::<u64>().unwrap() + 1,
        Err(_) => 0..4,
    };
    let single = seeds.end - seeds.start == 1;
    let mut sum = (0, 0, 0);
    for seed in seeds {
        let one = std::panic::catch_unwind(|| run(seed, 60_000));
        let one = one.unwrap_or_else(|e| {
            eprintln!("ESKER_RAFT_SEED={seed}");
            std::panic::resume_unwind(e)
        });
        sum = (sum.0 + one.0, sum.1 + one.1, sum.2 + one.2);
    }
    println!("{} proposals committed, {} crashes, {} snapshots installed", sum.0, sum.1, sum.2);
    assert!(single || sum.1 > 20 && sum.2 > 0, "{sum:?}");
}
