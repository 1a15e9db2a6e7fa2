//! A database directory over many lives of the child: what is known to be in it, one life, and the
//! look at what that life has left.

use crate::Outcome;
use crate::check::{Ack, Claims, End, Found, check};
use crate::child::{Child, Heard};
use crate::setup::Setup;
use crate::steps::{Model, Rng};
use crate::tell::{Level, Told};
use crate::work;
use crate::writer::{Lie, Orders};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A child that is to make some steps is not waited for any longer.
const LONGEST: Duration = Duration::from_secs(1);

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
    /// From its telling of so many steps, or from long after the open.
    Made(u64, Duration),
    /// From the moment it begins to close the database, after so many steps of each writer.
    Close(u64, Duration),
}

impl Span {
    /// One of all sorts: now and then too short to open the database, mostly by steps, so that something
    /// happens on slow machines too.
    pub fn draw(rng: &mut Rng) -> Span {
        let mut long = |most: u64| Duration::from_micros(rng.next() % most);
        let (opening, short) = (long(15_000), long(5_000));
        match rng.below(9) {
            0 => Span::Start(opening),
            1 | 2 => Span::Open(short),
            3..6 => Span::Made(rng.next() % 40, short),
            6 | 7 => Span::Made(rng.next() % 300, short),
            _ => Span::Close(rng.next() % 20, short),
        }
    }
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
        let orders = Orders { lie, ..Orders::new(path, Setup::new(seed)) };
        work::remove(&orders.dir)?;
        work::remove(&orders.copies())?;
        Ok(Dir { orders, model: Model::new(seed), exists: false })
    }

    /// There is a database: somebody has said that it is open.
    pub fn exists(&mut self) {
        self.exists = true;
    }

    /// One life of a child, which ends by `death`, and at the latest by being killed then.
    pub fn live(&mut self, log: &Path, span: Span, death: impl FnOnce() -> Outcome) -> Outcome<Life> {
        let mut orders = self.orders.clone();
        if let Span::Close(steps, _) = span {
            orders.steps = Some(steps);
        }
        let life = live(log, &orders, span, death)?;
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
    pub fn look(&mut self, before: &Path, claims: &Claims, write: bool) -> Outcome<Found> {
        let Dir { orders, model, exists } = self;
        let mut found = Found::default();
        if *exists {
            found = check(&orders.dir, &orders.setup, true, model, claims)?;
        }
        if write || !*exists {
            work::copy(&orders.dir, before)?;
            let more = check(&orders.dir, &orders.setup, false, model, claims)?;
            if *exists && more.steps > 0 {
                return Err("opened for writing there is more than there was read-only".into());
            }
            *exists = true;
        }
        Ok(found)
    }

    /// Looks at the copies that a life has made, then removes them: those it has told of must be whole,
    /// others whole or refused. How many were whole.
    pub fn look_at_copies(&self, life: &Life, claims: &Claims) -> Outcome<u64> {
        let (mut told, mut whole) = (life.copies(claims.end), 0);
        let copies = self.orders.copies();
        // A copy may be of any moment.
        let acks = claims.acks.iter().map(|ack| Ack { level: Level::Sent, ..*ack }).collect();
        let any = Claims { acks, end: End::Cut, durable: 0 };
        for entry in copies.read_dir().into_iter().flatten() {
            let path = entry?.path();
            let n = path.file_name().and_then(|name| name.to_str()?.parse().ok());
            let seq = told.remove(&n.ok_or("a copy without a number")?);
            let mut model = Model::new(self.orders.setup.seed);
            match (check(&path, &self.orders.setup, true, &mut model, &any), seq) {
                (Ok(found), Some(seq)) if found.newest != seq => {
                    let newest = found.newest;
                    return Err(format!(
                        "{} goes up to {newest}, and was told to up to {seq}",
                        path.display()
                    )
                    .into());
                }
                (Ok(_), _) => whole += 1,
                // Never completed.
                (Err(e), None) if e.starts_with("opening") => {}
                (Err(e), _) => return Err(format!("{}: {e}", path.display()).into()),
            }
        }
        if let Some((n, seq)) = told.first_key_value() {
            return Err(format!("copy {n}, of all up to {seq}, is gone").into());
        }
        work::remove(&copies)?;
        Ok(whole)
    }
}

impl Life {
    /// What was told. An error told before the death is one here.
    pub fn claims(&self, end: End) -> Result<Claims, String> {
        match self.told.iter().find(|told| matches!(told, Told::Failed { .. })) {
            Some(failed) => Err(format!("the child: {failed}")),
            None => Ok(self.all_claims(end)),
        }
    }

    /// What was told, whatever failed.
    pub fn all_claims(&self, end: End) -> Claims {
        let mut claims = Claims { acks: Vec::new(), end, durable: 0 };
        let late = self.late.iter().map(|told| (told, end == End::Killed));
        for (told, counts) in self.told.iter().map(|told| (told, true)).chain(late) {
            match *told {
                // Only the order counts of what was read after the power had gone.
                Told::Made { writer, n, seq, level } => {
                    let level = if counts { level } else { Level::Sent };
                    claims.acks.push(Ack { writer, n, seq, level });
                }
                Told::Synced { seq } | Told::Copied { seq, .. } if counts => {
                    claims.durable = claims.durable.max(seq);
                }
                _ => {}
            }
        }
        claims
    }

    /// The copies that must be there, by number: up to where they go.
    fn copies(&self, end: End) -> BTreeMap<u64, u64> {
        let late = self.late.iter().filter(|_| end == End::Killed);
        let copied = |told: &Told| match *told {
            Told::Copied { n, seq } => Some((n, seq)),
            _ => None,
        };
        self.told.iter().chain(late).filter_map(copied).collect()
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
    // Nobody may hang.
    let mut until = child.started() + Duration::from_secs(60);
    let mut dies = false;
    let mut steps = 0;
    if let Span::Start(long) = span {
        (dies, until) = (true, child.started() + long);
    }
    // Not to listen for ever to a child that never pauses.
    while !dies || Instant::now() < until {
        match child.hear(until) {
            Heard::Nothing if dies => break,
            Heard::Nothing => return Err("the child does not open the database".into()),
            Heard::Told(more) => {
                steps += u64::from(matches!(more, Told::Made { .. }));
                match (&more, span) {
                    (Told::Open, Span::Open(long)) => (dies, until) = (true, Instant::now() + long),
                    (Told::Open, Span::Made(..)) => (dies, until) = (true, Instant::now() + LONGEST),
                    (Told::Done, Span::Close(_, long)) => (dies, until) = (true, Instant::now() + long),
                    (Told::Made { .. }, Span::Made(n, long)) if steps == n => until = Instant::now() + long,
                    _ => {}
                }
                told.push(more);
            }
            // It was through with closing.
            Heard::End if dies && matches!(span, Span::Close(..)) => break,
            Heard::End => {
                let last = told.iter().rev().find(|t| matches!(t, Told::Failed { .. }));
                return Err(format!("the child has ended by itself: {last:?} {}", child.log()).into());
            }
        }
    }
    told.extend(child.heard());
    death()?;
    Ok(Life { told, late: child.kill()? })
}
