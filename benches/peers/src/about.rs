//! What was asked for, and where: what the numbers are from.

use crate::generate::KEY;
use crate::plan::Plan;
use crate::report::machine;
use crate::sample::About;
use std::path::Path;

pub fn about(plan: &Plan, args: &[String], dir: &Path) -> About {
    let asked = [
        ("command", format!("peers {}", args.join(" ")).trim().to_string()),
        ("keys", plan.keys.to_string()),
        ("key bytes", KEY.to_string()),
        ("value bytes", crate::workloads::VALUE.to_string()),
        ("cache MiB", (plan.cache >> 20).to_string()),
        ("rounds", plan.rounds.to_string()),
        ("seconds", plan.time.as_secs_f64().to_string()),
    ];
    let asked = asked.into_iter().map(|(name, value)| (name.to_string(), value));
    About(asked.chain(machine::facts(dir)).collect())
}
