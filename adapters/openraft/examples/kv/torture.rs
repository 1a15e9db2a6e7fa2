//! Clients that put and get, and somebody who kills, wipes, replaces and adds nodes meanwhile. Every call
//! is recorded; in the end the history of each key must be linearizable, in which a lost write is the
//! plainest thing that could not be, and all nodes must have the same.

use crate::check::{Call, linearizable};
use crate::node::{Reply, Request, Status, ask};
use crate::{Process, Result, free_address, insist};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const CLIENTS: u64 = 6;
const KEYS: u64 = 5;
const PATIENCE: Duration = Duration::from_secs(30);

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % n
    }
}

/// What clients and the one who breaks things share.
struct World {
    addresses: Mutex<Vec<String>>,
    history: Mutex<BTreeMap<String, Vec<Call>>>,
    over: AtomicBool,
    values: AtomicU64,
    began: Instant,
}

impl World {
    fn now(&self) -> u64 {
        // Zero is before everything.
        self.began.elapsed().as_nanos() as u64 + 1
    }

    fn record(&self, key: &str, call: Call) {
        self.history.lock().unwrap().entry(key.into()).or_default().push(call);
    }

    fn addresses(&self) -> Vec<String> {
        self.addresses.lock().unwrap().clone()
    }
}

/// Puts and gets at the leader, wherever that is.
async fn client(world: Arc<World>, mut rng: Rng) {
    let mut leader: Option<String> = None;
    while !world.over.load(Ordering::Relaxed) {
        let addresses = world.addresses();
        let any = || addresses.first().cloned();
        let n = rng.below(addresses.len().max(1) as u64) as usize;
        let Some(address) = leader.take().or_else(|| addresses.get(n).cloned()).or_else(any) else { break };
        let key = format!("key {}", rng.below(KEYS));
        let write = rng.below(2) == 0;
        // Long enough that logs and snapshots are of some size.
        let value = format!("{:-<200}", world.values.fetch_add(1, Ordering::Relaxed));
        let request =
            if write { Request::Put(key.clone(), value.clone()) } else { Request::Get(key.clone()) };
        let start = world.now();
        let reply = ask(&address, &request, Duration::from_secs(1)).await;
        let end = world.now();
        match reply {
            Ok(Reply::Value(read)) => {
                leader = Some(address);
                world.record(&key, Call { start, end, write, value: if write { Some(value) } else { read } });
            }
            other => {
                // It may have happened, or happen yet.
                if write {
                    world.record(&key, Call { start, end: u64::MAX, write, value: Some(value) });
                }
                match other {
                    Ok(Reply::Leader(Some(to))) => leader = Some(to),
                    _ => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        }
    }
}

/// The nodes, by number.
struct Nodes {
    dir: PathBuf,
    running: BTreeMap<u64, Process>,
    addresses: BTreeMap<u64, String>,
    next: u64,
    world: Arc<World>,
    kills: u64,
    replaced: u64,
    added: u64,
}

impl Nodes {
    fn dir(&self, id: u64) -> PathBuf {
        self.dir.join(format!("node {id}"))
    }

    fn start(&mut self, id: u64) -> Result<()> {
        let address = self.addresses.get(&id).ok_or("no such node")?;
        self.running.insert(id, Process::start(id, address, &self.dir(id))?);
        Ok(())
    }

    fn make(&mut self) -> Result<u64> {
        let id = self.next;
        self.next += 1;
        self.addresses.insert(id, free_address()?);
        self.start(id)?;
        self.tell();
        Ok(id)
    }

    /// Tells clients where the nodes are.
    fn tell(&self) {
        *self.world.addresses.lock().unwrap() = self.addresses.values().cloned().collect();
    }

    fn kill(&mut self, id: u64) {
        self.running.remove(&id);
        self.kills += 1;
    }

    async fn ask(&self, request: Request) -> Result<Reply> {
        let addresses: Vec<String> = self.addresses.values().cloned().collect();
        insist(&addresses, &request, PATIENCE).await
    }

    /// A node more: it learns, then votes in the place of `instead`, or beside all.
    async fn add(&mut self, instead: Option<u64>) -> Result<()> {
        let id = self.make()?;
        let address = self.addresses.get(&id).cloned().unwrap_or_default();
        self.ask(Request::Learner(id, address)).await?;
        let members: BTreeSet<u64> =
            self.addresses.keys().copied().filter(|&id| Some(id) != instead).collect();
        self.ask(Request::Members(members)).await?;
        if let Some(gone) = instead {
            self.remove(gone)?;
        }
        Ok(())
    }

    /// Its disk is gone, and its number is never used again: who has forgotten its vote must not vote.
    fn remove(&mut self, id: u64) -> Result<()> {
        self.running.remove(&id);
        self.addresses.remove(&id);
        self.tell();
        let dir = self.dir(id);
        if dir.exists() {
            std::fs::remove_dir_all(dir)?;
        }
        Ok(())
    }

    async fn leader(&self) -> Option<u64> {
        for address in self.addresses.values() {
            if let Ok(Reply::Status(status)) = ask(address, &Request::Status, Duration::from_secs(1)).await
                && let Some(leader) = status.leader
                // Who was removed is told of until another is elected.
                && self.addresses.contains_key(&leader)
            {
                return Some(leader);
            }
        }
        None
    }

    async fn harm(&mut self, rng: &mut Rng) -> Result<()> {
        let ids: Vec<u64> = self.addresses.keys().copied().collect();
        let any = ids[rng.below(ids.len() as u64) as usize];
        let pause = Duration::from_millis(50 + rng.below(800));
        match rng.below(8) {
            0 | 1 => {
                self.kill(any);
                tokio::time::sleep(pause).await;
                self.start(any)?;
            }
            2 | 3 => {
                let leader = self.leader().await.unwrap_or(any);
                self.kill(leader);
                tokio::time::sleep(pause).await;
                self.start(leader)?;
            }
            4 => {
                for id in &ids {
                    self.kill(*id);
                }
                for id in ids {
                    self.start(id)?;
                }
            }
            5 | 6 => {
                // Dead and wiped first; the others take a new one in.
                self.kill(any);
                std::fs::remove_dir_all(self.dir(any))?;
                self.replaced += 1;
                self.add(Some(any)).await?;
            }
            _ if ids.len() < 5 => {
                self.added += 1;
                self.add(None).await?;
            }
            _ => {
                let members: BTreeSet<u64> = ids.into_iter().filter(|&id| id != any).collect();
                self.ask(Request::Members(members)).await?;
                self.remove(any)?;
            }
        }
        Ok(())
    }

    /// Waits until all have applied the same, and answers that.
    async fn settle(&self) -> Result<Vec<Status>> {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut found = Vec::new();
            for address in self.addresses.values() {
                if let Ok(Reply::Status(status)) =
                    ask(address, &Request::Status, Duration::from_secs(1)).await
                {
                    found.push(status);
                }
            }
            let first = found.first().and_then(|status| status.applied);
            let same = found.iter().all(|status| status.applied == first && status.last == first);
            if found.len() == self.addresses.len() && same {
                return Ok(found);
            }
            if Instant::now() > end {
                return Err(format!("the nodes do not come together: {found:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

pub async fn run(time: Duration, seed: u64, dir: &Path) -> Result<()> {
    println!("seed {seed}");
    let world = Arc::new(World {
        addresses: Mutex::default(),
        history: Mutex::default(),
        over: AtomicBool::new(false),
        values: AtomicU64::new(0),
        began: Instant::now(),
    });
    let mut nodes = Nodes {
        dir: dir.to_owned(),
        running: BTreeMap::new(),
        addresses: BTreeMap::new(),
        next: 1,
        world: world.clone(),
        kills: 0,
        replaced: 0,
        added: 0,
    };
    for _ in 0..3 {
        nodes.make()?;
    }
    let first: Vec<String> = nodes.addresses.values().take(1).cloned().collect();
    insist(&first, &Request::Init(nodes.addresses.clone()), PATIENCE).await?;
    let mut rng = Rng(seed);
    let clients: Vec<_> =
        (0..CLIENTS).map(|_| tokio::spawn(client(world.clone(), Rng(rng.below(u64::MAX))))).collect();

    let end = Instant::now() + time;
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(100 + rng.below(700))).await;
        nodes.harm(&mut rng).await?;
    }
    world.over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await?;
    }

    // What is read now stands behind everything in each history.
    for key in (0..KEYS).map(|n| format!("key {n}")) {
        let start = world.now();
        let Reply::Value(value) = nodes.ask(Request::Get(key.clone())).await? else {
            return Err("no value".into());
        };
        world.record(&key, Call { start, end: world.now(), write: false, value });
    }
    let settled = nodes.settle().await?;
    for key in (0..KEYS).map(|n| format!("key {n}")) {
        let mut values = BTreeSet::new();
        for address in nodes.addresses.values() {
            if let Reply::Value(value) = ask(address, &Request::Local(key.clone()), PATIENCE).await? {
                values.insert(value);
            }
        }
        if values.len() != 1 {
            return Err(format!("{key} differs between nodes: {values:?}").into());
        }
    }
    let history = world.history.lock().unwrap();
    let (mut answered, mut unknown) = (0, 0);
    for (key, calls) in &*history {
        linearizable(key, calls)?;
        answered += calls.iter().filter(|call| call.end < u64::MAX).count();
        unknown += calls.iter().filter(|call| call.end == u64::MAX).count();
    }
    let purged = settled.iter().filter_map(|status| status.purged).max().unwrap_or(0);
    println!(
        "{answered} calls answered, {unknown} writes refused or not answered; {} kills, {} nodes wiped and replaced, {} added; \
         logs purged up to {purged}",
        nodes.kills, nodes.replaced, nodes.added
    );
    if answered < 50 {
        return Err(format!("only {answered} calls were answered").into());
    }
    println!("linearizable, and nothing is lost");
    Ok(())
}
