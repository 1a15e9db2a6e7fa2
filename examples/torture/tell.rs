//! What a child tells its parent: a line each, through its standard output.

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

/// What a step is told to survive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Submitted: readers see it, nothing is promised before its ticket is done.
    Sent,
    /// The death of the process.
    Buffered,
    /// Power loss.
    Durable,
}

impl Level {
    const WORDS: [(&str, Level); 3] =
        [("sent", Level::Sent), ("buffered", Level::Buffered), ("durable", Level::Durable)];
}

/// One line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// The child is about to open the database.
    Opening,
    /// It is open.
    Open,
    /// A step was committed, and ended at this sequence number.
    Made { writer: usize, n: u64, seq: u64, level: Level },
    /// Everything up to here was synced.
    Synced { seq: u64 },
    /// Copy number `n` is there, of everything up to here, which is durable with it.
    Copied { n: u64, seq: u64 },
    /// The disk is full; the writer waits.
    Full { writer: usize },
    /// So many reads were made and found right.
    Read { times: u64 },
    /// So many operations of a script were made.
    Stepped { n: u64 },
    /// A call failed: the kind of the error, and what it says.
    Failed { writer: usize, kind: String, text: String },
    /// The child has done all it was to do.
    Done,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Told::Opening => f.write_str("opening"),
            Told::Open => f.write_str("open"),
            Told::Made { writer, n, seq, level } => {
                let word = Level::WORDS.iter().find(|(_, known)| known == level).map_or("", |w| w.0);
                write!(f, "{word} {writer} {n} {seq}")
            }
            Told::Synced { seq } => write!(f, "synced {seq}"),
            Told::Copied { n, seq } => write!(f, "copied {n} {seq}"),
            Told::Full { writer } => write!(f, "full {writer}"),
            Told::Read { times } => write!(f, "read {times}"),
            Told::Stepped { n } => write!(f, "stepped {n}"),
            Told::Failed { writer, kind, text } => {
                write!(f, "failed {writer} {kind} {}", text.replace('\n', "; "))
            }
            Told::Done => f.write_str("done"),
        }
    }
}

impl FromStr for Told {
    type Err = String;

    fn from_str(line: &str) -> Result<Told, String> {
        let mut words = line.splitn(4, ' ');
        let word = words.next().unwrap_or_default();
        let mut number =
            || words.next().and_then(|w| w.parse::<u64>().ok()).ok_or(format!("not understood: {line}"));
        if let Some((_, level)) = Level::WORDS.iter().find(|(known, _)| *known == word) {
            let (writer, n, seq) = (number()? as usize, number()?, number()?);
            return Ok(Told::Made { writer, n, seq, level: *level });
        }
        Ok(match word {
            "opening" => Told::Opening,
            "open" => Told::Open,
            "synced" => Told::Synced { seq: number()? },
            "copied" => Told::Copied { n: number()?, seq: number()? },
            "full" => Told::Full { writer: number()? as usize },
            "read" => Told::Read { times: number()? },
            "stepped" => Told::Stepped { n: number()? },
            "failed" => {
                let writer = number()? as usize;
                let (kind, text) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                Told::Failed { writer, kind: kind.into(), text: text.into() }
            }
            "done" => Told::Done,
            _ => return Err(format!("not understood: {line}")),
        })
    }
}

/// Tells the parent.
pub fn tell(told: Told) {
    let mut out = io::stdout().lock();
    // Nobody listens any more: then there is nothing left to do.
    if writeln!(out, "{told}").and_then(|()| out.flush()).is_err() {
        std::process::abort();
    }
}
