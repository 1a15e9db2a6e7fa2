//! A replicated map on openraft and Esker: nodes on loopback sockets that speak lines of JSON.
//!
//! ```text
//! kv cluster [--dir DIR]                      three nodes, until interrupted
//! kv put ADDRESS KEY VALUE | get ADDRESS KEY  ask any of them
//! kv status ADDRESS                           what a node knows
//! kv torture [--seconds 20] [--seed N] [--dir DIR]
//!     kills, wipes, replaces and adds nodes under load, and checks that no acknowledged write was
//!     lost and that the history is linearizable
//! kv node --id N --listen ADDRESS --dir DIR   one node; it does nothing before it is made a member
//! ```
#![allow(clippy::unwrap_used, missing_docs)]

mod check;
mod node;
mod torture;

use node::{Reply, Request};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// A running node; killed with SIGKILL, also when it is dropped.
pub struct Process {
    child: Child,
}

impl Process {
    pub fn start(id: u64, address: &str, dir: &Path) -> Result<Process> {
        let child = Command::new(std::env::current_exe()?)
            .args(["node", "--id", &id.to_string(), "--listen", address, "--dir"])
            .arg(dir)
            .stdin(Stdio::null())
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

async fn cluster(dir: &Path) -> Result<()> {
    let mut nodes = Vec::new();
    let mut members = BTreeMap::new();
    for id in 1..=3 {
        let address = free_address()?;
        nodes.push(Process::start(id, &address, &dir.join(id.to_string()))?);
        members.insert(id, address);
    }
    let first: Vec<String> = members.values().take(1).cloned().collect();
    insist(&first, &Request::Init(members.clone()), Duration::from_secs(10)).await?;
    for (id, address) in &members {
        println!("node {id}: {address}");
    }
    let exe = std::env::current_exe()?;
    println!("try: {} put {} fruit apple", exe.display(), first.concat());
    println!("interrupt to stop");
    tokio::signal::ctrl_c().await?;
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
            node::serve(id, &listen, &dir).await
        }
        ["cluster", ..] => cluster(&dir).await,
        ["torture", ..] => {
            let seconds = option(args, "--seconds").map_or(Ok(20), |s| s.parse())?;
            let seed = match option(args, "--seed") {
                Some(seed) => seed.parse()?,
                None => std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs(),
            };
            torture::run(Duration::from_secs(seconds), seed, &dir).await
        }
        ["put", address, key, value] => {
            let request = Request::Put(key.into(), value.into());
            println!("{:?}", node::ask(address, &request, Duration::from_secs(5)).await?);
            Ok(())
        }
        ["get", address, key] => {
            println!("{:?}", node::ask(address, &Request::Get(key.into()), Duration::from_secs(5)).await?);
            Ok(())
        }
        ["status", address] => {
            println!("{:?}", node::ask(address, &Request::Status, Duration::from_secs(5)).await?);
            Ok(())
        }
        _ => Err("kv cluster | put | get | status | torture | node: see the top of main.rs".into()),
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
