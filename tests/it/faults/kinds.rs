//! Which faults an operation can meet, and what a caller may then be told.

use esker::fs::fault::{Fault, Op, Struck};
use esker::{Error, ErrorKind};

/// The ways in which an operation fails; `bit` is the one that is flipped.
pub fn kinds(op: Op, bit: u64) -> Vec<Fault> {
    use Fault::*;
    match op {
        Op::Read => vec![Io, Interrupted, Short, FlipBit(bit)],
        Op::Write => vec![Io, IoAfter, Full, Interrupted, Short, FlipBit(bit)],
        Op::Store => vec![Io, IoAfter, Full, FlipBit(bit)],
        Op::Sync => vec![Io, IoAfter, Full, Interrupted, Forget, Revert],
        Op::Create => vec![Io, IoAfter, Full, Interrupted, NoFiles],
        Op::CreateDir | Op::SyncDir => vec![Io, IoAfter, Full, NoFiles],
        Op::Link | Op::Allocate => vec![Io, IoAfter, Full, Interrupted, Unsupported],
        Op::Remove => vec![Io, IoAfter],
        Op::List | Op::OpenRead | Op::OpenWrite | Op::Lock => vec![Io, Interrupted, NoFiles],
        Op::Map => vec![Io, Unsupported, FlipBit(bit)],
        Op::Window => vec![Io, Full, Unsupported],
        Op::Populate => vec![Io, Full],
        _ => vec![Io],
    }
}

/// Whether nobody may notice: the call goes on, or does it in another way.
fn is_harmless(s: &Struck) -> bool {
    match s.kind {
        Fault::Interrupted => matches!(s.op, Op::Read | Op::Write),
        Fault::Unsupported => matches!(s.op, Op::Map | Op::Window),
        Fault::Short => true,
        Fault::FlipBit(_) => !matches!(s.op, Op::Read | Op::Map | Op::Write | Op::Store),
        _ => false,
    }
}

/// Whether a wrong bit lies on the disk now.
pub fn is_rot(s: &Struck) -> bool {
    matches!(s.kind, Fault::FlipBit(_)) && matches!(s.op, Op::Write | Op::Store)
}

fn ends(s: &Struck, ends: &[&str]) -> bool {
    let extension = s.path.extension().and_then(|x| x.to_str()).unwrap_or("");
    ends.contains(&extension)
}

/// Whether the database must not be written to any more, if it was open.
pub fn must_end(s: &Struck) -> bool {
    s.op == Op::Sync && ends(s, &["journal", "manifest"]) && !is_harmless(s)
}

/// Whether it may be for good. A directory is among it where a manifest is being replaced: which of the
/// two the next opening finds is unknown then.
pub fn may_end(s: &Struck) -> bool {
    if s.op == Op::SyncDir {
        return true;
    }
    let written = matches!(s.op, Op::Sync | Op::Write | Op::Store | Op::Populate);
    written && ends(s, &["journal", "manifest"]) && !is_harmless(s)
}

/// Whether a call that met these may answer so.
pub fn is_fair(e: &Error, struck: &[Struck]) -> bool {
    let any = |of: fn(&Struck) -> bool| struck.iter().any(of);
    match e.kind() {
        ErrorKind::Io => any(|s| !is_harmless(s) && !matches!(s.kind, Fault::FlipBit(_))),
        ErrorKind::DiskFull => any(|s| s.kind == Fault::Full),
        ErrorKind::Corruption => any(|s| matches!(s.kind, Fault::FlipBit(_))) && e.file().is_some(),
        ErrorKind::ReadOnly => any(may_end),
        _ => false,
    }
}
