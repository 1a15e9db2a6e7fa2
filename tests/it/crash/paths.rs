//! Which paths through the engine a run took, told from what its calls did to the disk and which jobs
//! they ran: so that no workload stops leading where it should.

use crate::state::SEGMENT_BYTES;
use crate::world::{DIR, Step, Told, World, Write};
use std::collections::BTreeSet;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Path {
    /// The journal moved to its next segment.
    Rotation,
    /// A segment larger than others, for one batch.
    LargeSegment,
    /// A segment of which everything is in tables was removed.
    SegmentGone,
    /// A segment that had been written to went without a sync: a flush took the place of it.
    Unsynced,
    /// A segment that nothing needed any more became the next one.
    Reused,
    /// Stores into a mapped segment.
    Mapped,
    Flush,
    Merge,
    /// Tables went to another level as they are.
    Move,
    /// Tables left with a flush, unread, because all in them was deleted.
    Unread,
    /// A manifest was full, and another took its place.
    ManifestRoll,
    Create,
    Drop,
    /// The tables of a dropped keyspace went.
    Dropped,
    Replace,
    RangeDelete,
    Clear,
    /// A ticket was waited for.
    Ticket,
    /// Something was written while a snapshot held on to what was there before.
    Snapshot,
    CompactByHand,
    /// Closed in order and opened again.
    Close,
    Checkpoint,
    /// The footer of a segment was written.
    Footer,
    /// Log entries were moved to a segment of their own.
    Cold,
    /// The spare was given up on a full disk.
    Spare,
}

/// All that `world` took since it was made.
pub fn taken(world: &World) -> BTreeSet<Path> {
    let log = world.sim.log();
    let (mut journals, mut held, mut out) = (BTreeSet::new(), false, BTreeSet::new());
    let mut unsynced = BTreeSet::new();
    for told in &world.told {
        let lines = &log[told.ops.start as usize..told.ops.end as usize];
        called(told, held, &mut out);
        match told.step {
            Step::Snapshot => held = true,
            Step::Release => held = false,
            Step::Reopen => {
                held = false;
                journals.clear();
            }
            _ => {}
        }
        for line in lines {
            let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
            let file = rest.split(' ').find(|word| word.starts_with('/')).unwrap_or_default();
            let first = verb == "write" && file.ends_with(".journal") && journals.insert(file.to_string());
            let new = first && journals.len() > 1;
            match verb {
                "write" => drop(unsynced.insert(file)),
                "sync" => drop(unsynced.remove(file)),
                "remove" if file.ends_with(".journal") && unsynced.contains(file) => {
                    out.insert(Path::Unsynced);
                }
                _ => {}
            }
            if rest.starts_with("(window)") && file.ends_with(".journal") {
                out.insert(Path::Mapped);
            }
            // An opening does these in its own way.
            if !matches!(told.step, Step::Reopen) {
                out.extend(done(told, verb, file, new, rest));
            }
        }
    }
    out
}

/// What the call itself says.
fn called(told: &Told, held: bool, out: &mut BTreeSet<Path>) {
    let counts = [
        (told.jobs.flushes, Path::Flush),
        (told.jobs.compactions, Path::Merge),
        (told.jobs.moves, Path::Move),
    ];
    out.extend(counts.iter().filter(|(n, _)| *n > 0).map(|(_, path)| *path));
    match &told.step {
        Step::Create(_) => drop(out.insert(Path::Create)),
        Step::Drop(_) => drop(out.insert(Path::Drop)),
        Step::Replace(..) => drop(out.insert(Path::Replace)),
        Step::Wait => drop(out.insert(Path::Ticket)),
        Step::Compact(..) if told.jobs.compactions > 0 => drop(out.insert(Path::CompactByHand)),
        Step::Reopen => drop(out.insert(Path::Close)),
        Step::Commit(_, writes) => {
            out.extend(held.then_some(Path::Snapshot));
            out.extend(writes.iter().filter_map(|write| match write {
                Write::DeleteRange(..) => Some(Path::RangeDelete),
                Write::Clear(_) => Some(Path::Clear),
                _ => None,
            }));
        }
        _ => {}
    }
}

/// What an operation of the disk says.
fn done(told: &Told, verb: &str, file: &str, new: bool, rest: &str) -> Option<Path> {
    let (flushed, merged) = (told.jobs.flushes > 0, told.jobs.compactions + told.jobs.moves > 0);
    let worked = matches!(told.step, Step::Work | Step::Settle);
    if !file.starts_with(DIR) {
        // The file that is linked, of those in the copy.
        return None;
    }
    match (verb, file.rsplit_once('.').map_or(file, |(_, kind)| kind)) {
        ("write", "journal") if new => Some(Path::Rotation),
        ("allocate", "journal") => {
            let len = rest.rsplit(' ').next()?.parse::<u64>().ok()?;
            match len.cmp(&SEGMENT_BYTES) {
                std::cmp::Ordering::Greater => Some(Path::LargeSegment),
                std::cmp::Ordering::Equal => None,
                // Only what is as large as need be is smaller.
                std::cmp::Ordering::Less => Some(Path::Cold),
            }
        }
        ("remove", "journal") => Some(Path::SegmentGone),
        ("remove", "table") if flushed && !merged => Some(Path::Unread),
        ("remove", "table") if worked && !flushed && !merged => Some(Path::Dropped),
        ("create", "manifest") => Some(Path::ManifestRoll),
        ("create", "footer") => Some(Path::Footer),
        ("link", _) if matches!(told.step, Step::Checkpoint) => Some(Path::Checkpoint),
        ("link", "journal") => Some(Path::Reused),
        ("remove", name) if name.ends_with("SPARE") => Some(Path::Spare),
        _ => None,
    }
}
