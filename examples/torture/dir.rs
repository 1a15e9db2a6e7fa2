//! A database directory over many lives of the child: what is known to be in it, one life, and the
//! look at what that life has left.

use crate::Outcome;
use crate::check::{Ack, End, Found, check};
use crate::child::{Child, Heard};
use crate::setup::Setup;
use crate::steps::Model;
use crate::tell::{Level, Told};
use crate::work;
use crate::writer::{Lie, Orders};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub struct Dir {
    pub orders: Orders,
    model: Model,
    /// Whether it was ever open: before, there may be no database yet.
    exists: bool,
}

/// How long a child lives.
#[derive(Clone, Copy)]
pub enum Span {
    /// From its start on: it may be gone before the database is open.
    Start(Duration),
    /// From the moment the database is open.
    Open(Duration),
}

/// What a child told.
#[derive(Default)]
pub struct Life {
    /// Before its death.
    pub told: Vec<Told>,
    /// What was read only afterwards.
    pub late: Vec<Told>,
}

impl Dir {
    pub fn new(path: PathBuf, seed: u64, lie: Option<Lie>) -> Outcome<Dir> {
        work::remove(&path)?;
        let setup = Setup::new(seed);
        Ok(Dir { orders: Orders { lie, ..Orders::new(path, setup) }, model: Model::new(seed), exists: false })
    }

    /// There is a database: somebody has said that it is open.
    pub fn exists(&mut self) {
        self.exists = true;
    }

    /// One life of a child, which ends by `death`, and at the latest by being killed then.
    pub fn live(&mut self, log: &Path, span: Span, death: impl FnOnce() -> Outcome) -> Outcome<Life> {
        let life = live(log, &self.orders, span, death)?;
        self.exists |= life.told.contains(&Told::Open);
        Ok(life)
    }

    /// A child that only opens the database. Whether it had not finished when it died.
    pub fn open(&mut self, log: &Path, long: Duration, death: impl FnOnce() -> Outcome) -> Outcome<bool> {
        let idle = Orders { idle: true, ..self.orders.clone() };
        let life = live(log, &idle, Span::Start(long), death)?;
        Ok(life.told == [Told::Opening])
    }

    /// Looks at what is left, first without changing anything, then, if asked to, opened for writing.
    /// What was there before that is kept in `before`.
    pub fn look(&mut self, before: &Path, made: &[Ack], end: End, write: bool) -> Outcome<Found> {
        let Dir { orders, model, exists } = self;
        let mut found = Found::default();
        if *exists {
            found = check(&orders.dir, &orders.setup, true, model, made, end)?;
        }
        if write || !*exists {
            work::copy(&orders.dir, before)?;
            let more = check(&orders.dir, &orders.setup, false, model, made, end)?;
            if *exists && more.steps > 0 {
                return Err("opened for writing there is more than there was read-only".into());
            }
            *exists = true;
        }
        Ok(found)
    }
}

impl Life {
    /// The acknowledgements. An error told before the death is one here.
    pub fn acks(&self, end: End) -> Result<Vec<Ack>, String> {
        match self.told.iter().find(|told| matches!(told, Told::Failed { .. })) {
            Some(failed) => Err(format!("the child: {failed}")),
            None => Ok(self.acknowledged(end)),
        }
    }

    /// The acknowledgements alone.
    pub fn acknowledged(&self, end: End) -> Vec<Ack> {
        // Only the order counts of what was read after the power had gone.
        let late = if end == End::Cut { Level::Sent } else { Level::Durable };
        let told = self.told.iter().map(|told| (told, Level::Durable));
        let all = told.chain(self.late.iter().map(|told| (told, late)));
        all.filter_map(|(told, most)| match *told {
            Told::Made { writer, n, seq, level } => Some(Ack { writer, n, seq, level: level.min(most) }),
            _ => None,
        })
        .collect()
    }
}

/// How many steps were acknowledged at this level or above.
pub fn acknowledged(acks: &[Ack], level: Level) -> u64 {
    let steps: BTreeSet<_> = acks.iter().filter(|a| a.level >= level).map(|a| (a.writer, a.n)).collect();
    steps.len() as u64
}

fn live(log: &Path, orders: &Orders, span: Span, death: impl FnOnce() -> Outcome) -> Outcome<Life> {
    let child = Child::writer(orders, log)?;
    let mut told = Vec::new();
    let (mut dies, mut until) = match span {
        Span::Start(long) => (true, child.started() + long),
        // Nobody may hang.
        Span::Open(_) => (false, child.started() + Duration::from_secs(60)),
    };
    loop {
        match child.hear(until) {
            Heard::Nothing if dies => break,
            Heard::Nothing => return Err("the child does not open the database".into()),
            Heard::Told(more) => {
                if let (Told::Open, Span::Open(long)) = (&more, span) {
                    (dies, until) = (true, Instant::now() + long);
                }
                told.push(more);
            }
            Heard::End => {
                let last = told.iter().rev().find(|t| matches!(t, Told::Failed { .. }));
                return Err(format!("the child has ended by itself: {last:?} {}", child.log()).into());
            }
        }
        // Not to listen for ever to a child that never pauses.
        if dies && Instant::now() >= until {
            break;
        }
    }
    told.extend(child.heard());
    death()?;
    Ok(Life { told, late: child.kill()? })
}
