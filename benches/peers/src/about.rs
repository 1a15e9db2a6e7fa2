//! The machine, the versions and the settings that the numbers are from.

use crate::engines;
use crate::plan::Plan;
use crate::sample::About;
use std::fs;
use std::path::Path;
use std::process::Command;

pub fn about(plan: &Plan, args: &[String], dir: &Path) -> About {
    let mut all = vec![("command".to_string(), format!("peers {}", args.join(" ")))];
    let mut add = |name: &str, value: String| all.push((name.to_string(), value));
    add("date", said("date", &["-u", "+%Y-%m-%d"]));
    add("cpu", line("/proc/cpuinfo", "model name"));
    add("cores", std::thread::available_parallelism().map_or(1, usize::from).to_string());
    add("memory", line("/proc/meminfo", "MemTotal"));
    add("kernel", fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_string());
    add("file system", said("stat", &["-f", "-c", "%T", &dir.display().to_string()]));
    add("rustc", said("rustc", &["--version"]));
    add("built for", if cfg!(target_feature = "avx2") { "the host" } else { "any processor" }.to_string());
    add("keys", plan.keys.to_string());
    add("key bytes", crate::generate::KEY.to_string());
    add("value bytes", "100".to_string());
    add("cache MiB", (plan.cache >> 20).to_string());
    add("rounds", plan.rounds.to_string());
    add("seconds", plan.time.as_secs_f64().to_string());
    add("engines", plan.engines.join(" "));
    all.extend(engines::versions());
    About(all)
}

/// What `command` prints; nothing if there is no such command.
fn said(command: &str, args: &[&str]) -> String {
    let output = Command::new(command).args(args).output();
    output.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_string()).unwrap_or_default()
}

/// What stands behind `name` and a colon.
fn line(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let found = text.lines().find_map(|line| line.strip_prefix(name));
    found.map(|rest| rest.trim_matches([' ', '\t', ':']).to_string()).unwrap_or_default()
}
