//! Whether a history is linearizable: whether every call can have happened at one moment between its
//! beginning and its end, all answers being those of that order.
//!
//! Commits say their place themselves: their sequence numbers are a total order. What is left to
//! find out is linear. That order must not contradict real time; and every read must have a point in
//! it, a number of commits, at which its answer is right, which is no earlier than what had ended
//! before it began, and no later than what had begun before it ended. Taking for each read the first
//! such point, in the order in which they began, decides that: a later choice only leaves less to
//! those behind.

use std::collections::BTreeMap;
use std::fmt;

/// A keyspace and a key in it.
pub type Place = (u8, u8);
/// What is where. Values are never given twice.
pub type State = BTreeMap<Place, u64>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Write {
    Put(Place, u64),
    Delete(Place),
    /// From the first key of a keyspace to before the second.
    DeleteRange(u8, u8, u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Is {
    Absent,
    Present,
    Value(u64),
    /// Since this sequence number.
    Unchanged(u64),
}

/// A condition on the keys of a keyspace from the first to before the second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Require {
    pub keyspace: u8,
    pub from: u8,
    pub to: u8,
    pub is: Is,
}

/// A call and its answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// `seq`: none if it was a conflict. `durable`: it had returned as durable.
    Commit {
        requires: Vec<Require>,
        writes: Vec<Write>,
        seq: Option<u64>,
        durable: bool,
    },
    /// As of now, or of the snapshot with this number.
    Get {
        at: Option<u64>,
        keys: Vec<Place>,
        found: Vec<Option<u64>>,
    },
    Scan {
        at: Option<u64>,
        keyspace: u8,
        from: u8,
        to: u8,
        rows: Vec<(u8, u64)>,
    },
    /// A snapshot was taken, or the newest number was asked for, or told by a watch.
    Newest(u64),
    /// The same of what is durable.
    Durable(u64),
    /// Everything up to this number is durable.
    Awaited(u64),
    /// Everything so far is durable.
    Sync,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    pub thread: usize,
    pub begin: u64,
    pub end: u64,
    pub what: What,
}

/// What several threads did.
#[derive(Clone, Default, Debug)]
pub struct History {
    /// The sequence number before, when there was nothing.
    pub base: u64,
    pub calls: Vec<Call>,
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut calls: Vec<&Call> = self.calls.iter().collect();
        calls.sort_by_key(|call| call.begin);
        writeln!(f, "after {}:", self.base)?;
        calls
            .iter()
            .try_for_each(|c| writeln!(f, "  {}..{} thread {}: {:?}", c.begin, c.end, c.thread, c.what))
    }
}

type Result<T> = std::result::Result<T, String>;

/// The commits in order, and all states between them. A point is a number of commits.
struct Order<'a> {
    commits: Vec<(&'a Call, &'a [Write], u64)>,
    states: Vec<State>,
    seqs: Vec<u64>,
}

fn apply(state: &mut State, write: &Write) {
    match *write {
        Write::Put(place, value) => drop(state.insert(place, value)),
        Write::Delete(place) => drop(state.remove(&place)),
        Write::DeleteRange(keyspace, from, to) => {
            state.retain(|(k, key), _| *k != keyspace || *key < from || *key >= to);
        }
    }
}

/// Whether an operation says something about a key from `from` to before `to`.
fn touches(write: &Write, keyspace: u8, from: u8, to: u8) -> bool {
    match *write {
        Write::Put((k, key), _) | Write::Delete((k, key)) => k == keyspace && (from..to).contains(&key),
        Write::DeleteRange(k, first, last) => k == keyspace && first.max(from) < last.min(to),
    }
}

impl<'a> Order<'a> {
    fn new(history: &'a History) -> Result<Order<'a>> {
        let mut commits = Vec::new();
        for call in &history.calls {
            if let What::Commit { writes, seq: Some(seq), .. } = &call.what
                && !writes.is_empty()
            {
                commits.push((call, &writes[..], *seq));
            }
        }
        commits.sort_by_key(|c| c.2);
        let (mut state, mut seq) = (State::new(), history.base);
        let (mut states, mut seqs) = (vec![state.clone()], vec![seq]);
        let mut begun = 0;
        for (call, writes, last) in &commits {
            seq += writes.len() as u64;
            if seq != *last {
                return Err(format!(
                    "{last} is not the number after the commits before, which is {seq}: {call:?}"
                ));
            }
            if call.end < begun {
                return Err(format!("ended before an earlier commit had begun: {call:?}"));
            }
            begun = begun.max(call.begin);
            writes.iter().for_each(|write| apply(&mut state, write));
            states.push(state.clone());
            seqs.push(seq);
        }
        Ok(Order { commits, states, seqs })
    }

    /// The points a call may be at: behind all commits that had ended when it began, before all that
    /// had not begun when it ended.
    fn window(&self, call: &Call) -> (usize, usize) {
        let least = self.commits.iter().rposition(|c| c.0.end < call.begin).map_or(0, |i| i + 1);
        let most = self.commits.iter().position(|c| c.0.begin > call.end).unwrap_or(self.commits.len());
        (least, most)
    }

    /// The point with this sequence number.
    fn point(&self, seq: u64) -> Result<usize> {
        self.seqs
            .binary_search(&seq)
            .map_err(|_| format!("{seq} is in the middle of a commit, or beyond all"))
    }

    /// Whether all conditions hold at a point.
    fn hold(&self, requires: &[Require], point: usize) -> Result<bool> {
        for r in requires {
            let state = &self.states[point];
            let mut rows = state.range((r.keyspace, r.from)..(r.keyspace, r.to)).map(|(_, value)| *value);
            let holds = match r.is {
                Is::Absent => rows.next().is_none(),
                Is::Present => rows.next().is_some(),
                Is::Value(value) => rows.next() == Some(value),
                Is::Unchanged(seq) => {
                    let since = self.point(seq)?;
                    let mut writes = self.commits[since.min(point)..point].iter().flat_map(|c| c.1);
                    !writes.any(|w| touches(w, r.keyspace, r.from, r.to))
                }
            };
            if !holds {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a read at `point` gives this answer.
    fn answers(&self, what: &What, point: usize) -> Result<bool> {
        let state = &self.states[point];
        Ok(match what {
            What::Get { keys, found, .. } => {
                keys.iter().zip(found).all(|(key, found)| state.get(key) == found.as_ref())
            }
            What::Scan { keyspace, from, to, rows, .. } => {
                let expected = state.range((*keyspace, *from)..(*keyspace, *to));
                expected.map(|(place, value)| (place.1, *value)).eq(rows.iter().copied())
            }
            What::Newest(seq) => self.seqs[point] == *seq,
            What::Commit { requires, seq: None, .. } => !self.hold(requires, point)?,
            What::Commit { requires, writes, seq: Some(seq), .. } if writes.is_empty() => {
                self.seqs[point] >= *seq && self.hold(requires, point)?
            }
            _ => true,
        })
    }
}

/// What was checked.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Checked {
    pub commits: usize,
    pub conflicts: usize,
    pub reads: usize,
    /// Of these, how many could have been at several points: something was going on.
    pub wide: usize,
}

pub fn check(history: &History) -> Result<Checked> {
    let order = Order::new(history)?;
    let mut checked = Checked::default();
    for (i, (call, ..)) in order.commits.iter().enumerate() {
        let What::Commit { requires, .. } = &call.what else { continue };
        if !order.hold(requires, i)? {
            return Err(format!("a condition did not hold: {call:?}"));
        }
        checked.commits += 1;
    }
    let mut reads: Vec<&Call> = history.calls.iter().collect();
    reads.sort_by_key(|call| call.begin);
    // (end, point) of reads that were placed.
    let mut placed: Vec<(u64, usize)> = Vec::new();
    for call in reads {
        match &call.what {
            What::Commit { writes, seq: Some(_), .. } if !writes.is_empty() => continue,
            What::Durable(_) | What::Awaited(_) | What::Sync => continue,
            What::Get { at: Some(seq), .. } | What::Scan { at: Some(seq), .. } => {
                let point = order.point(*seq)?;
                if !order.answers(&call.what, point)? {
                    return Err(format!("not what was there at {seq}: {call:?}"));
                }
            }
            what => {
                let (least, most) = order.window(call);
                checked.wide += usize::from(least < most);
                let before = placed.iter().filter(|(end, _)| *end < call.begin).map(|(_, point)| *point);
                let least = least.max(before.max().unwrap_or(0));
                let mut point = None;
                for at in least..=most {
                    if order.answers(what, at)? {
                        point = Some(at);
                        break;
                    }
                }
                let Some(point) = point else {
                    return Err(format!("no point from {least} to {most} commits gives this: {call:?}"));
                };
                checked.conflicts += usize::from(matches!(what, What::Commit { .. }));
                placed.push((call.end, point));
            }
        }
        checked.reads += 1;
    }
    check_durable(history, &order)?;
    Ok(checked)
}

/// What is said to be durable grows, holds all that was acknowledged, and nothing that is not visible.
fn check_durable(history: &History, order: &Order) -> Result<()> {
    // (when it was known, what was)
    let mut known: Vec<(u64, u64)> = Vec::new();
    for call in &history.calls {
        match &call.what {
            What::Commit { seq: Some(seq), durable: true, .. } | What::Durable(seq) | What::Awaited(seq) => {
                known.push((call.end, *seq));
            }
            What::Sync => known.push((call.end, order.seqs[order.window(call).0])),
            _ => {}
        }
    }
    for call in &history.calls {
        let What::Durable(seq) = call.what else { continue };
        let least = known.iter().filter(|(end, _)| *end < call.begin).map(|(_, seq)| *seq).max();
        if least.is_some_and(|least| seq < least) {
            return Err(format!("{least:?} was durable before: {call:?}"));
        }
        if order.point(seq)? > order.window(call).1 {
            return Err(format!("durable before it was begun: {call:?}"));
        }
    }
    Ok(())
}

/// All that was acknowledged as durable, and the state behind each commit by its sequence number.
pub fn promises(history: &History) -> Result<(u64, BTreeMap<u64, State>)> {
    let order = Order::new(history)?;
    let durable = history.calls.iter().filter_map(|call| match call.what {
        What::Commit { seq, durable: true, .. } => seq,
        What::Durable(seq) | What::Awaited(seq) => Some(seq),
        What::Sync => Some(order.seqs[order.window(call).0]),
        _ => None,
    });
    let durable = durable.max().unwrap_or(history.base);
    Ok((durable, order.seqs.into_iter().zip(order.states).collect()))
}
