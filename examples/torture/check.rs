//! What must be found after the child's death: every acknowledged step, a prefix of the order of
//! commits, whole batches, and nothing else.

use crate::setup::Setup;
use crate::steps::{self, COUNTS, Model, SHARED, WRITERS};
use crate::tell::Level;
use crate::writer::count;
use esker::{Db, Keyspace};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// How the child ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Only the process died: what it told was buffered must be there.
    Killed,
    /// The power went: what it told was durable must be there.
    Cut,
}

/// What was acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Ack {
    pub writer: usize,
    pub n: u64,
    pub seq: u64,
    pub level: Level,
}

/// What a life has claimed.
pub struct Claims {
    pub acks: Vec<Ack>,
    pub end: End,
    /// Everything up to this sequence number was told to be durable.
    pub durable: u64,
}

impl Claims {
    /// Nothing but what the last look has found.
    pub fn none() -> Claims {
        Claims { acks: Vec::new(), end: End::Cut, durable: 0 }
    }
}

/// What was found.
#[derive(Clone, Copy, Default, Debug)]
pub struct Found {
    /// Steps since the last check.
    pub steps: u64,
    /// Acknowledged steps that are gone, as they may be.
    pub lost: u64,
    /// The newest sequence number.
    pub newest: u64,
    /// Whether the journal ended in a torn tail.
    pub torn: bool,
}

/// Opens what a child left and looks at everything. `model` is what was found the last time, and
/// becomes what is found now.
pub fn check(
    dir: &Path,
    setup: &Setup,
    read_only: bool,
    model: &mut Model,
    claims: &Claims,
) -> Result<Found, String> {
    let how = if read_only { "read-only" } else { "for writing" };
    let open = Db::open(dir, setup.options().read_only(read_only));
    let db = open.map_err(|e| format!("opening {how}: {e}"))?;
    let found = look(&db, model, claims).map_err(|e| format!("opened {how}, {}: {e}", db.recovery()))?;
    db.close().map_err(|e| format!("closing: {e}"))?;
    Ok(found)
}

fn look(db: &Db, model: &mut Model, claims: &Claims) -> Result<Found, String> {
    let names: BTreeSet<String> = db.names().map_err(text)?.into_iter().map(|(name, _)| name).collect();
    let space = |name: &str| match names.contains(name) {
        true => db.keyspace(name).map(Some).map_err(text),
        false => Ok(None),
    };
    let counts = counts(space(COUNTS)?.as_ref())?;
    let before = model.counts;
    if let Some(writer) = (0..WRITERS).find(|&w| counts[w] < before[w]) {
        let (now, before) = (counts[writer], before[writer]);
        return Err(format!("writer {writer} is at step {now}, and was at {before} in the last check"));
    }
    let newest = db.visible_seq().get();
    if newest < claims.durable {
        return Err(format!("the newest commit is {newest}, {} was durable", claims.durable));
    }
    let lost = acknowledged(claims, &counts, newest)?;
    for (writer, n) in counts.iter().enumerate() {
        model.advance(writer, *n);
    }
    for (name, rows) in SHARED.iter().zip(&model.shared) {
        compare(space(name)?.as_ref(), rows).map_err(|e| format!("keyspace {name}: {e}"))?;
    }
    for (writer, rows) in model.own.iter().enumerate() {
        let own = space(&steps::own(writer))?;
        let mut same = compare(own.as_ref(), rows);
        if same.is_err() && model.may_have_dropped(writer) {
            same = compare(own.as_ref(), &BTreeMap::new());
        }
        same.map_err(|e| format!("the own keyspace of writer {writer} at step {}: {e}", counts[writer]))?;
    }
    let known = |name: &str| {
        SHARED.contains(&name) || name == COUNTS || name.starts_with("own-") || name.starts_with("staging-")
    };
    if let Some(name) = names.iter().find(|name| !known(name)) {
        return Err(format!("there is a keyspace {name}"));
    }
    let verified = db.verify().map_err(text)?;
    if !verified.is_ok() {
        return Err(format!("verifying: {verified}"));
    }
    let steps = counts.iter().sum::<u64>() - before.iter().sum::<u64>();
    Ok(Found { steps, lost, newest, torn: db.recovery().torn.is_some() })
}

/// The number of each writer's last step. What a step had seen of the others came before it, so it
/// must be there.
fn counts(keyspace: Option<&Keyspace>) -> Result<[u64; WRITERS], String> {
    let mut rows = Vec::new();
    for writer in 0..WRITERS as u8 {
        rows.push(keyspace.map(|k| k.get([writer])).transpose().map_err(text)?.flatten());
    }
    let counts = std::array::from_fn(|writer| count(rows[writer].as_ref(), 0));
    for (writer, row) in rows.iter().enumerate() {
        for (other, there) in counts.iter().enumerate() {
            let seen = count(row.as_ref(), 1 + other);
            if seen > *there {
                let n = counts[writer];
                return Err(format!(
                    "step {n} of writer {writer} is there, which followed on step {seen} of writer {other}, \
                     which is at {there}"
                ));
            }
        }
    }
    Ok(counts)
}

/// Holds what was told against what is there; how many steps were told and are gone.
fn acknowledged(claims: &Claims, counts: &[u64; WRITERS], newest: u64) -> Result<u64, String> {
    let must = match claims.end {
        End::Killed => Level::Buffered,
        End::Cut => Level::Durable,
    };
    let mut lost = BTreeSet::new();
    for ack in &claims.acks {
        let there = ack.n <= counts[ack.writer];
        if !there && ack.level >= must {
            return Err(format!("lost: {ack:?}, the writer is at step {}", counts[ack.writer]));
        }
        // A prefix: all up to the newest sequence number, and nothing behind it.
        if there != (ack.seq <= newest) {
            return Err(format!(
                "not a prefix: {ack:?}, the writer is at step {}, the database at {newest}",
                counts[ack.writer]
            ));
        }
        if !there {
            lost.insert((ack.writer, ack.n));
        }
    }
    Ok(lost.len() as u64)
}

/// Every row, forward, backward and by its key.
fn compare(keyspace: Option<&Keyspace>, rows: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<(), String> {
    let Some(keyspace) = keyspace else {
        return if rows.is_empty() { Ok(()) } else { Err("is missing".into()) };
    };
    same("forward", keyspace.iter(), rows.iter())?;
    same("backward", keyspace.iter().rev(), rows.iter().rev())?;
    for (key, value) in rows.iter().step_by(7) {
        let got = keyspace.get(key).map_err(text)?;
        if got.as_deref() != Some(&value[..]) {
            return Err(format!("{:?} answers {:?}", String::from_utf8_lossy(key), got));
        }
    }
    Ok(())
}

fn same<'a>(
    way: &str,
    mut found: impl Iterator<Item = esker::Result<esker::Entry>>,
    mut rows: impl Iterator<Item = (&'a Vec<u8>, &'a Vec<u8>)>,
) -> Result<(), String> {
    loop {
        let (got, want) = (found.next().transpose().map_err(text)?, rows.next());
        let row = |key: &[u8], value: &[u8]| {
            let head = String::from_utf8_lossy(&value[..value.len().min(16)]).into_owned();
            format!("{:?} = {head:?}, {} bytes", String::from_utf8_lossy(key), value.len())
        };
        match (&got, want) {
            (None, None) => return Ok(()),
            (Some(got), Some((key, value))) if got.key() == key && got.value() == value => {}
            _ => {
                let got = got.map(|e| row(e.key(), e.value()));
                let want = want.map(|(key, value)| row(key, value));
                return Err(format!("{way}: found {got:?} instead of {want:?}"));
            }
        }
    }
}

fn text(e: esker::Error) -> String {
    e.to_string()
}
