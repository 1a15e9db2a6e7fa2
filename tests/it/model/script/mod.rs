//! Scripts: runs as data. The same calls can be made under other options and with background work
//! at other moments, and a run that fails is cut down to the few calls that matter and printed.

mod conditions;
mod logs;
mod machine;
mod random;
mod shrink;
mod tiny;
mod waiting;

use super::{Range, show, show_range};
use crate::state::Bytes;
use esker::{Durability, KeyspaceOptions};
use std::fmt;

/// The names of keyspaces; scripts say their numbers.
const NAMES: [&str; 3] = ["a", "b", "staging"];
/// So many snapshots, and so many iterators, can be held at once.
const SLOTS: usize = 4;

/// One operation of a batch.
#[derive(Clone)]
enum Write {
    Put(usize, Bytes, Bytes),
    Delete(usize, Bytes),
    DeleteRange(usize, Range),
    Clear(usize),
    /// On the log of this number.
    Log(u64, LogWrite),
}

/// One operation on a log, told from where the log begins or ends by then.
#[derive(Clone)]
enum LogWrite {
    /// Tag and bytes.
    Push(u64, Bytes),
    /// At so far from its end, where only 0 can be.
    Append(i64, u64, Bytes),
    /// So many entries from the end.
    Truncate(u64),
    /// So many entries from the beginning.
    Purge(u64),
    /// Index and tag.
    Reset(u64, u64),
    Remove,
    /// That it ends so far from its end, where only 0 holds.
    RequireNext(i64),
}

/// What a batch may require of a key or a range.
#[derive(Clone, Debug)]
enum Is {
    Absent,
    Present,
    Value(Bytes),
    /// Since the snapshot in a slot, if there is one.
    Unchanged(usize),
}

/// A condition; a range of one key is the key.
#[derive(Clone)]
struct Require {
    name: usize,
    range: Range,
    is: Is,
}

/// Who reads: a keyspace now, or as the snapshot in a slot saw it.
#[derive(Clone, Copy)]
struct Reader {
    name: usize,
    snapshot: Option<usize>,
}

/// A move of a cursor.
#[derive(Clone)]
enum Move {
    Next,
    Prev,
    Seek(Bytes),
}

/// How a database ends before it is opened again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Close,
    Drop,
    /// The power goes; of what the disk may then hold, this choice.
    Cut(u64),
}

/// One call. One that makes no sense (on a keyspace that is not there, say) does nothing, so that
/// others can be left out before it.
#[derive(Clone)]
enum Step {
    Create(usize),
    Tune(usize, KeyspaceOptions),
    Drop(usize),
    Replace(usize, usize),
    Commit(Durability, Vec<Write>),
    /// If all of these hold.
    Try(Durability, Vec<Require>, Vec<Write>),
    /// The ticket into a slot.
    Submit(usize, Vec<Write>),
    /// For the ticket in a slot.
    Await(usize),
    /// What a watch of visible (false) or durable commits has to tell.
    Told(bool),
    /// Into a slot; the newest state, or the newest durable one.
    Snapshot(usize, bool),
    Release(usize),
    Get(Reader, Vec<Bytes>),
    /// Front (true) or back, in turn, until both have met.
    Scan(Reader, Range, Vec<bool>),
    /// An iterator into a slot, kept while other things happen.
    Begin(usize, Reader, Range),
    Advance(usize, Vec<bool>),
    Walk(Reader, Range, Vec<Move>),
    /// What logs are in is made, or dropped.
    Logs(bool),
    /// Everything of a log, now or as the snapshot in a slot saw it.
    ReadLog(u64, Option<usize>),
    /// So many pieces of background work.
    Work(usize),
    /// All of it.
    Settle,
    Flush,
    Sync,
    Verify,
    /// By hand.
    Compact(usize, Range),
    /// A copy, which is opened with the options of this number.
    Checkpoint(usize),
    /// With the options of this number.
    Reopen(End, usize),
    /// Closed, and opened to be read only.
    Look(usize),
}

impl Step {
    /// How many operations that are: reads of a key, moves, writes; 1 for any other call.
    fn operations(&self) -> usize {
        match self {
            Step::Commit(_, writes) | Step::Submit(_, writes) => writes.len().max(1),
            Step::Try(_, requires, writes) => requires.len() + writes.len(),
            Step::Get(_, keys) => keys.len(),
            Step::Advance(_, ways) => ways.len(),
            Step::Walk(_, _, moves) => moves.len(),
            _ => 1,
        }
    }
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Write::Put(name, key, value) => {
                write!(f, "put {} {} ({} B)", NAMES[*name], show(key), value.len())
            }
            Write::Delete(name, key) => write!(f, "delete {} {}", NAMES[*name], show(key)),
            Write::DeleteRange(name, range) => write!(f, "delete {} {}", NAMES[*name], show_range(range)),
            Write::Clear(name) => write!(f, "clear {}", NAMES[*name]),
            Write::Log(id, write) => write!(f, "log {id} {write:?}"),
        }
    }
}

impl fmt::Debug for LogWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogWrite::Push(tag, bytes) => write!(f, "push tag {tag} ({} B)", bytes.len()),
            LogWrite::Append(off, tag, bytes) => {
                write!(f, "append at end {off:+} tag {tag} ({} B)", bytes.len())
            }
            LogWrite::Truncate(n) => write!(f, "truncate the last {n}"),
            LogWrite::Purge(n) => write!(f, "purge the first {n}"),
            LogWrite::Reset(to, tag) => write!(f, "reset to {to} tag {tag}"),
            LogWrite::Remove => f.write_str("remove"),
            LogWrite::RequireNext(off) => write!(f, "if it ends at end {off:+}"),
        }
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", NAMES[self.name])?;
        self.snapshot.map_or(Ok(()), |slot| write!(f, " at snapshot {slot}"))
    }
}

impl fmt::Debug for Require {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} is {:?}", NAMES[self.name], show_range(&self.range), self.is)
    }
}

impl fmt::Debug for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Move::Next => f.write_str("next"),
            Move::Prev => f.write_str("prev"),
            Move::Seek(key) => write!(f, "seek {}", show(key)),
        }
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ways = |ways: &[bool]| ways.iter().map(|way| if *way { '>' } else { '<' }).collect::<String>();
        match self {
            Step::Create(name) => write!(f, "create {}", NAMES[*name]),
            Step::Tune(name, options) => write!(f, "tune {} {options:?}", NAMES[*name]),
            Step::Drop(name) => write!(f, "drop {}", NAMES[*name]),
            Step::Replace(name, staging) => write!(f, "replace {} by {}", NAMES[*name], NAMES[*staging]),
            Step::Commit(durability, writes) => write!(f, "commit {durability:?} {writes:?}"),
            Step::Try(durability, requires, writes) => {
                write!(f, "commit {durability:?} {writes:?} if {requires:?}")
            }
            Step::Submit(slot, writes) => write!(f, "submit {slot} {writes:?}"),
            Step::Await(slot) => write!(f, "await {slot}"),
            Step::Told(durable) => {
                write!(f, "told of what is {}", ["visible", "durable"][usize::from(*durable)])
            }
            Step::Look(options) => write!(f, "Close, read only with options {options}"),
            Step::Snapshot(slot, durable) => {
                write!(f, "snapshot {slot}{}", if *durable { " (durable)" } else { "" })
            }
            Step::Release(slot) => write!(f, "release {slot}"),
            Step::Get(reader, keys) => {
                write!(f, "get {reader:?} {:?}", keys.iter().map(|key| show(key)).collect::<Vec<_>>())
            }
            Step::Scan(reader, range, w) => write!(f, "scan {reader:?} {} {}", show_range(range), ways(w)),
            Step::Begin(slot, reader, range) => write!(f, "begin {slot}: {reader:?} {}", show_range(range)),
            Step::Advance(slot, w) => write!(f, "advance {slot} {}", ways(w)),
            Step::Walk(reader, range, moves) => write!(f, "walk {reader:?} {} {moves:?}", show_range(range)),
            Step::Logs(there) => write!(f, "{} logs", if *there { "create" } else { "drop" }),
            Step::ReadLog(id, None) => write!(f, "read log {id}"),
            Step::ReadLog(id, Some(slot)) => write!(f, "read log {id} at snapshot {slot}"),
            Step::Work(pieces) => write!(f, "work {pieces}"),
            Step::Settle => f.write_str("settle"),
            Step::Flush => f.write_str("flush"),
            Step::Sync => f.write_str("sync"),
            Step::Verify => f.write_str("verify"),
            Step::Compact(name, range) => write!(f, "compact {} {}", NAMES[*name], show_range(range)),
            Step::Checkpoint(options) => write!(f, "checkpoint, open with options {options}"),
            Step::Reopen(end, options) => write!(f, "{end:?}, open with options {options}"),
        }
    }
}

/// Runs the script that `rng` chooses, of at most so many calls.
pub fn fuzz(rng: &mut crate::rng::Rng, calls: usize) {
    let setup = random::setup(rng);
    let script = random::script(rng, calls, true);
    if let Err((at, machine::Failure(why))) = machine::Machine::run(&setup, &script) {
        panic!("call {at}: {why}\n{setup:#?}\n{script:#?}");
    }
}
