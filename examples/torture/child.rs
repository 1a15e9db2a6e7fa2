//! A child process as its parent sees it: started from this same program, listened to, killed.

use crate::Outcome;
use crate::tell::Told;
use crate::writer::{Lie, Orders};
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child as Process, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

/// A running child. Dropping it kills it.
pub struct Child {
    process: Process,
    input: Option<ChildStdin>,
    told: Receiver<Told>,
    /// Where its standard error goes.
    log: PathBuf,
    started: Instant,
}

/// What a child had to say within a time.
pub enum Heard {
    Told(Told),
    Nothing,
    /// It has closed its output: it has ended.
    End,
}

impl Child {
    /// Starts a writer.
    pub fn writer(orders: &Orders, log: &Path) -> Outcome<Child> {
        Child::writer_with(orders, &[], log)
    }

    /// Starts a writer with these variables.
    pub fn writer_with(orders: &Orders, env: &[(&str, OsString)], log: &Path) -> Outcome<Child> {
        let mut args: Vec<OsString> = vec!["child-writer".into(), "--db".into(), orders.dir.clone().into()];
        let mut word = |word: &str| args.push(word.into());
        word("--seed");
        word(&orders.setup.seed.to_string());
        for (name, on) in [("--idle", orders.idle), ("--patient", orders.patient)] {
            if on {
                word(name);
            }
        }
        if let Some((name, _)) = Lie::ALL.iter().find(|(_, lie)| Some(*lie) == orders.lie) {
            word("--lie");
            word(name);
        }
        if let Some(steps) = orders.steps {
            word("--steps");
            word(&steps.to_string());
        }
        Child::start(&args, env, log)
    }

    /// Starts this program with these arguments and variables.
    pub fn start(args: &[OsString], env: &[(&str, OsString)], log: &Path) -> Outcome<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(log)?);
        command.envs(env.iter().map(|(name, value)| (name, value)));
        let mut process = command.spawn()?;
        let (tell, told) = channel();
        let mut out = BufReader::new(process.stdout.take().ok_or("no output")?);
        std::thread::spawn(move || {
            let mut line = String::new();
            while out.read_line(&mut line).is_ok() {
                // A line that is cut off by a kill was not told.
                let told = line.strip_suffix('\n').and_then(|line| line.parse().ok());
                if told.is_none_or(|told| tell.send(told).is_err()) {
                    break;
                }
                line.clear();
            }
        });
        let input = process.stdin.take();
        Ok(Child { process, input, told, log: log.into(), started: Instant::now() })
    }

    /// The next thing it says, if it says it by then.
    pub fn hear(&self, until: Instant) -> Heard {
        match self.told.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(told) => Heard::Told(told),
            Err(RecvTimeoutError::Timeout) => Heard::Nothing,
            Err(RecvTimeoutError::Disconnected) => Heard::End,
        }
    }

    /// What it has said by now.
    pub fn heard(&self) -> impl Iterator<Item = Told> {
        self.told.try_iter()
    }

    /// Sends it a line.
    pub fn say(&mut self, line: &str) -> Outcome {
        let input = self.input.as_mut().ok_or("no input")?;
        Ok(writeln!(input, "{line}").and_then(|()| input.flush())?)
    }

    pub fn started(&self) -> Instant {
        self.started
    }

    /// Kills it (SIGKILL), and returns what it had said before.
    pub fn kill(mut self) -> Outcome<Vec<Told>> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(self.told.iter().collect())
    }

    /// How it ended, once it has closed its output.
    pub fn end(&mut self) -> Outcome<ExitStatus> {
        Ok(self.process.wait()?)
    }

    /// What it wrote to its standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
