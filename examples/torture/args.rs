//! What the program is asked to do.

use crate::Outcome;
use crate::script::Truth;
use crate::setup::Setup;
use crate::writer::{Lie, Orders};
use std::path::{Path, PathBuf};

pub const HELP: &str = "\
torture: real processes on a real disk, killed and cut off, and what they leave checked

    torture kill      [--cycles N]              a writer is killed (SIGKILL) at random moments
    torture power     [--cycles N] [--fs NAME]  a file system is shut down under the writer
    torture sim       [--cycles N] [--fs NAME]  the simulated disk is held against a file system
    torture full      [--cycles N]              a small file system fills up and grows
    torture preload   [--cycles N]              calls fail, by a library that cc compiles
    torture controls                            lies must be caught, and the truth must not

    --cycles N   how many times (default: 200; of power 50,
                 of sim and preload 100, of full 5)
    --fs NAME    ext4 or xfs
    --seed N     for other operations, options and moments (default: 1)
    --dir DIR    where the work is done: a new directory in it, removed at the end
                 (default: the system's own place for such)

All but kill and preload need root, and all but kill Linux: they are skipped with a message where something is missing.
They mount images in a mount namespace of their own, which ends with them. What failed is kept,
and told with its seed; the operations then are the same, the moments not quite.";

/// What a parent or a child was started with.
pub struct Args {
    pub mode: String,
    pub cycles: Option<u64>,
    pub seed: u64,
    pub dir: Option<PathBuf>,
    pub fs: Option<String>,
    db: Option<PathBuf>,
    pub truth: Truth,
    lie: Option<Lie>,
    idle: bool,
    patient: bool,
    steps: Option<u64>,
}

impl Args {
    /// `None` where help is asked for.
    pub fn parse(args: impl Iterator<Item = std::ffi::OsString>) -> Outcome<Option<Args>> {
        let mut out = Args {
            mode: String::new(),
            cycles: None,
            seed: 1,
            dir: None,
            fs: None,
            db: None,
            truth: Truth::Honest,
            lie: None,
            idle: false,
            patient: false,
            steps: None,
        };
        let mut args = args;
        while let Some(arg) = args.next() {
            let arg = arg.into_string().map_err(|_| "an argument that is not text")?;
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            let number = |value: std::ffi::OsString| -> Outcome<u64> {
                Ok(value
                    .to_str()
                    .and_then(|v| v.parse().ok())
                    .ok_or_else(|| format!("{arg} needs a number"))?)
            };
            match arg.as_str() {
                "--help" | "-h" => return Ok(None),
                "--cycles" => out.cycles = Some(number(value()?)?),
                "--seed" => out.seed = number(value()?)?,
                "--steps" => out.steps = Some(number(value()?)?),
                "--dir" => out.dir = Some(value()?.into()),
                "--db" => out.db = Some(value()?.into()),
                "--fs" => out.fs = Some(value()?.to_string_lossy().into_owned()),
                "--lie" => {
                    let name = value()?;
                    let known = Lie::ALL.iter().find(|(known, _)| name == *known);
                    out.lie = Some(known.ok_or("no such lie")?.1);
                }
                "--never-syncs" => out.truth = Truth::NeverSyncs,
                "--idle" => out.idle = true,
                "--patient" => out.patient = true,
                mode if out.mode.is_empty() && !mode.starts_with('-') => out.mode = mode.into(),
                other => return Err(format!("{other} is not understood").into()),
            }
        }
        Ok((!out.mode.is_empty()).then_some(out))
    }

    /// Where a child works.
    pub fn db(&self) -> Outcome<&Path> {
        Ok(self.db.as_deref().ok_or("--db is missing")?)
    }

    /// What a writing child is to do.
    pub fn orders(&self) -> Outcome<Orders> {
        let mut orders = Orders::new(self.db()?.into(), Setup::new(self.seed));
        orders.lie = self.lie;
        orders.idle = self.idle;
        orders.patient = self.patient;
        orders.steps = self.steps;
        Ok(orders)
    }
}
