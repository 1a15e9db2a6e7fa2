//! A replicated map on openraft and Esker: nodes on loopback sockets that speak lines of JSON.
//!
//! ```text
//! kv cluster [--dir DIR] [--port 21001]       three nodes, until interrupted
//! kv put ADDRESS KEY VALUE                    ask any of them: who leads is found
//! kv get ADDRESS KEY
//! kv status ADDRESS                           what that node knows
//! kv node --id N --listen ADDRESS --dir DIR   one node; it does nothing before it is made a member
//! kv add ADDRESS N ITS-ADDRESS                makes it one, once it has what there is
//! kv remove ADDRESS N
//! kv torture [--seconds 20] [--seed N] [--dir DIR]
//!     kills, wipes, replaces and adds nodes under load, and checks that no acknowledged write was
//!     lost and that the history is linearizable
//! ```
#![allow(clippy::unwrap_used, missing_docs)]

mod check;
mod node;
mod torture;

use node::{Reply, Request, Status};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// How long a command waits for the cluster.
const PATIENCE: Duration = Duration::from_secs(10);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const USAGE: &str = "kv cluster | put | get | status | node | add | remove | torture: see the top of main.rs";

/// A running node; killed with SIGKILL, also when it is dropped. It ends by itself when this process does.
pub struct Process {
    child: Child,
}

impl Process {
    pub fn start(id: u64, address: &str, dir: &Path) -> Result<Process> {
        let child = Command::new(std::env::current_exe()?)
            .args(["node", "--id", &id.to_string(), "--listen", address, "--dir"])
            .arg(dir)
            .arg("--attached")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Process { child })
    }

    pub fn kill(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A loopback address nobody listens at.
pub fn free_address() -> Result<String> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.to_string())
}

/// Asks until somebody says that it is done.
pub async fn insist(addresses: &[String], request: &Request, patience: Duration) -> Result<Reply> {
    let end = Instant::now() + patience;
    let mut said = String::from("nobody");
    while Instant::now() < end {
        for address in addresses {
            match node::ask(address, request, Duration::from_secs(2)).await {
                Ok(Reply::Failed(why)) => said = why,
                Ok(Reply::Leader(_)) => said = "no leader".into(),
                Ok(reply) => return Ok(reply),
                Err(e) => said = e.to_string(),
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(format!("no answer in {patience:?}: {said}").into())
}

/// Three nodes; those of a cluster that was in `dir` before, if there was one.
async fn cluster(dir: &Path, port: u16) -> Result<()> {
    let exe = std::env::current_exe()?;
    let mut nodes = Vec::new();
    let mut members = BTreeMap::new();
    for id in 1..=3 {
        // Where its members found it before.
        let address = format!("127.0.0.1:{}", port + (id as u16 - 1));
        let dir = dir.join(id.to_string());
        let node = Process::start(id, &address, &dir)?;
        println!("node {id}: {address}, process {}; to start it again:", node.child.id());
        println!("    {} node --id {id} --listen {address} --dir {}", exe.display(), dir.display());
        nodes.push(node);
        members.insert(id, address);
    }
    let addresses: Vec<String> = members.values().cloned().collect();
    let mut blank = true;
    for address in &addresses {
        let status = insist(std::slice::from_ref(address), &Request::Status, PATIENCE).await?;
        blank &= matches!(status, Reply::Status(Status { last: None, .. }));
    }
    // Not only the first: that may have been wiped, and must not begin another cluster.
    if blank {
        insist(&addresses[..1], &Request::Init(members), PATIENCE).await?;
    }
    until_led(&addresses).await?;
    println!("try: {} put {} fruit apple", exe.display(), addresses[0]);
    println!("interrupt to stop");
    tokio::signal::ctrl_c().await?;
    Ok(())
}

/// Returns once one of the nodes knows who leads.
async fn until_led(addresses: &[String]) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        for address in addresses {
            let asked = node::ask(address, &Request::Status, PATIENCE).await;
            if matches!(asked, Ok(Reply::Status(Status { leader: Some(_), .. }))) {
                return Ok(());
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err("no leader was elected: do most of the members run?".into())
}

/// Asks whoever leads, which the node at `address` knows.
async fn ask_leader(address: &str, request: &Request) -> Result<Reply> {
    let end = Instant::now() + PATIENCE;
    let mut to = address.to_owned();
    loop {
        let asked = node::ask(&to, request, PATIENCE).await;
        let late = Instant::now() > end;
        match asked {
            Ok(Reply::Leader(Some(leader))) if !late => to = leader,
            // Who led is gone, and another is being elected. It did not begin with the request.
            Ok(Reply::Leader(_)) if !late => to = address.to_owned(),
            Ok(Reply::Leader(_)) => return Err("there is no leader".into()),
            Ok(Reply::Failed(why)) => return Err(why.into()),
            Ok(reply) => return Ok(reply),
            Err(e) if to == address || late => return Err(format!("{to}: {e}").into()),
            Err(_) => to = address.to_owned(),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Who votes, besides or without `id`.
async fn change(address: &str, id: u64, member: bool) -> Result<Reply> {
    let Reply::Status(Status { mut members, .. }) = node::ask(address, &Request::Status, PATIENCE).await?
    else {
        return Err("no status".into());
    };
    if member {
        members.insert(id)
    } else {
        members.remove(&id)
    };
    ask_leader(address, &Request::Members(members)).await
}

/// Replies are told as they come over the wire.
fn say(reply: &Reply) -> Result<()> {
    println!("{}", serde_json::to_string(reply)?);
    Ok(())
}

/// The value of the option `name`.
fn option(args: &[String], name: &str) -> Option<String> {
    args.windows(2).find(|pair| pair[0] == name).map(|pair| pair[1].clone())
}

async fn run(args: &[String]) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let dir = option(args, "--dir").map_or_else(|| scratch.path().to_owned(), PathBuf::from);
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["node", ..] => {
            let id = option(args, "--id").ok_or("--id is missing")?.parse()?;
            let listen = option(args, "--listen").ok_or("--listen is missing")?;
            let attached = args.iter().any(|arg| arg == "--attached");
            if option(args, "--dir").is_none() {
                return Err("--dir is missing".into());
            }
            node::serve(id, &listen, &dir, attached).await
        }
        ["cluster", ..] => cluster(&dir, option(args, "--port").map_or(Ok(21001), |s| s.parse())?).await,
        ["torture", ..] => {
            let seconds = option(args, "--seconds").map_or(Ok(20), |s| s.parse())?;
            let seed = match option(args, "--seed") {
                Some(seed) => seed.parse()?,
                None => std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs(),
            };
            torture::run(Duration::from_secs(seconds), seed, &dir).await
        }
        ["put", address, key, value] => {
            say(&ask_leader(address, &Request::Put(key.into(), value.into())).await?)
        }
        ["get", address, key] => say(&ask_leader(address, &Request::Get(key.into())).await?),
        ["status", address] => say(&node::ask(address, &Request::Status, PATIENCE).await?),
        ["add", address, id, new] => {
            let id = id.parse()?;
            ask_leader(address, &Request::Learner(id, new.into())).await?;
            say(&change(address, id, true).await?)
        }
        ["remove", address, id] => say(&change(address, id.parse()?, false).await?),
        _ => Err(USAGE.into()),
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run(&args))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("kv: {e}");
            ExitCode::FAILURE
        }
    }
}
