//! The workloads the power is cut in: each leads through one way in which files come and go.

use crate::crash::paths::Path;
use crate::world::{How, LOGS, Name, Step, World, Write, rows, value};
use esker::ErrorKind;

/// A run, how many states of it are a fair sample, and where it must lead through.
pub struct Workload {
    pub name: &'static str,
    pub sample: usize,
    pub run: fn(&mut World),
    pub through: &'static [Path],
}

const fn workload(
    name: &'static str,
    sample: usize,
    run: fn(&mut World),
    through: &'static [Path],
) -> Workload {
    Workload { name, sample, run, through }
}

pub const WORKLOADS: &[Workload] = &[
    workload("first commits", 120, first_commits, &[Path::Create]),
    workload("rotation", 110, rotation, &[Path::Rotation, Path::Flush, Path::Reused]),
    workload("flushes in place of syncs", 130, flushes_in_place_of_syncs, &[Path::Flush, Path::Rotation]),
    workload("large batches", 70, large_batches, &[Path::LargeSegment, Path::Rotation, Path::Flush]),
    workload("flush and merge", 150, flush_and_merge, &[Path::Flush, Path::Merge]),
    workload("catalog", 140, catalog, &[Path::Create, Path::Drop, Path::Dropped, Path::Replace]),
    workload("range deletes", 110, range_deletes, &[Path::RangeDelete, Path::Clear, Path::Snapshot]),
    workload("tickets", 80, tickets, &[Path::Ticket, Path::Rotation]),
    workload("closing and opening", 150, closing_and_opening, &[Path::Close, Path::Flush]),
    workload("full manifest", 40, full_manifest, &[Path::ManifestRoll]),
    workload("moves", 60, moves, &[Path::Move, Path::Merge]),
    workload("tables under a range delete", 70, tables_under_a_range_delete, &[Path::Unread]),
    workload("queue", 60, queue, &[Path::RangeDelete, Path::Rotation, Path::SegmentGone]),
    workload("compacted by hand", 70, compacted_by_hand, &[Path::CompactByHand, Path::Snapshot]),
    workload("replaced again and again", 60, replaced_again_and_again, &[Path::Replace, Path::Dropped]),
    workload("checkpoints", 150, checkpoints, &[Path::Checkpoint, Path::Merge, Path::Dropped]),
    workload("logs", 250, logs, &[Path::Rotation, Path::Footer, Path::Cold, Path::SegmentGone]),
    workload("a log in its place", 150, a_log_in_its_place, &[Path::Rotation, Path::Reused]),
    workload("full disk", 100, full_disk, &[Path::Spare, Path::Rotation, Path::Flush]),
];

pub fn put(name: Name, how: How, key: &str, value: impl Into<Vec<u8>>) -> Step {
    Step::Commit(how, vec![Write::Put(name, key.into(), value.into())])
}

fn first_commits(w: &mut World) {
    w.run(&Step::Create("a"));
    w.run(&put("a", How::Buffered, "k", "1"));
    w.run(&put("a", How::Sync, "k", "2"));
    w.run(&put("a", How::Buffered, "l", value(3, 700)));
    w.run(&Step::Create("b"));
    w.run(&Step::Commit(How::Buffered, rows(&["a", "b"], 0..3, 10, 1)));
    w.run(&Step::Sync);
}

fn rotation(w: &mut World) {
    w.run_all(&[Step::Create("a"), Step::Create("b")]);
    for i in 0..20 {
        let how = if i % 5 == 3 { How::Sync } else { How::Buffered };
        w.run(&Step::Commit(how, rows(&["a", "b"], i..i + 2, 600, i as u64)));
        if i % 7 == 3 {
            w.run(&Step::Work);
        }
    }
}

/// Memtables fill up without a sync. Beside the one that does, others hold little, or much, or need journal
/// from long before; one is dropped between its freeze and its flush.
fn flushes_in_place_of_syncs(w: &mut World) {
    w.run_all(&[Step::Create("a"), Step::Create("b"), Step::Work]);
    for round in 0..9usize {
        match round {
            2 => w.run(&put("b", How::Buffered, "little", "1")),
            4 => w.run(&Step::Commit(How::Buffered, rows(&["b"], 0..4, 500, 4))),
            6 => w.run(&put("b", How::Sync, "little", "2")),
            7 => w.run(&Step::Sync),
            _ => {}
        }
        for i in 0..3 {
            let row = round * 3 + i;
            w.run(&Step::Commit(How::Buffered, rows(&["a"], row..row + 3, 500, row as u64)));
        }
        if round == 5 {
            w.run_all(&[Step::Drop("b"), Step::Work, Step::Create("b")]);
        }
        w.run(&put("a", How::Buffered, "behind", value(round as u64, 10)));
        w.run_all(&[Step::Work, Step::Work]);
    }
    w.run_all(&[put("b", How::Buffered, "end", "1"), Step::Work, Step::Work]);
}

fn large_batches(w: &mut World) {
    w.run(&Step::Create("a"));
    w.run(&put("a", How::Buffered, "before", "1"));
    w.run(&Step::Commit(How::Buffered, rows(&["a"], 0..30, 1000, 1)));
    w.run(&put("a", How::Sync, "behind", "1"));
    // Written from where it lies.
    w.run(&put("a", How::Buffered, "huge", value(5, 70_000)));
    w.run(&Step::Commit(How::Sync, rows(&["a"], 10..40, 1000, 2)));
    w.run(&Step::Settle);
}

fn flush_and_merge(w: &mut World) {
    w.run_all(&[Step::Create("a"), Step::Create("b")]);
    for round in 0..6 {
        w.run(&Step::Commit(How::Buffered, rows(&["a"], round * 3..round * 3 + 8, 120, round as u64)));
        w.run(&put("b", How::Buffered, "round", value(round as u64, 20)));
        w.run(&Step::Commit(How::Buffered, vec![Write::Delete("a", b"key0004".to_vec())]));
        w.run(&if round % 2 == 0 { Step::Flush } else { Step::Settle });
        w.run(&Step::Flush);
        w.run(&Step::Settle);
    }
    w.run(&put("a", How::Buffered, "end", "1"));
}

fn catalog(w: &mut World) {
    for round in 0..3u64 {
        w.run(&Step::Create("a"));
        w.run(&Step::Commit(How::Buffered, rows(&["a"], 0..5, 50, round)));
        w.run(&Step::Flush);
        w.run(&Step::Create("staging"));
        w.run(&Step::Commit(How::Sync, rows(&["staging"], 3..9, 50, round + 10)));
        if round == 1 {
            w.run(&Step::Flush);
        }
        w.run(&Step::Replace("a", "staging"));
        w.run(&put("a", How::Buffered, "after", value(round, 10)));
        w.run(&if round == 0 { Step::Work } else { Step::Settle });
        w.run(&Step::Commit(How::Sync, rows(&["a"], 0..9, 500, round + 20)));
        w.run_all(&[Step::Drop("a"), Step::Work]);
        w.run_all(&[Step::Create("b"), Step::Work, Step::Work, Step::Drop("b"), Step::Settle]);
    }
}

fn range_deletes(w: &mut World) {
    let delete = |from: &str, to: &str| {
        Step::Commit(How::Buffered, vec![Write::DeleteRange("a", from.into(), to.into())])
    };
    w.run(&Step::Create("a"));
    w.run(&Step::Commit(How::Buffered, rows(&["a"], 0..20, 60, 1)));
    w.run(&Step::Flush);
    w.run(&delete("key0003", "key0011"));
    w.run(&put("a", How::Buffered, "key0005", "again"));
    w.run_all(&[Step::Snapshot, Step::Flush]);
    w.run(&delete("key0015", "zzz"));
    w.run(&Step::Settle);
    w.run(&Step::Commit(How::Buffered, vec![Write::Clear("a")]));
    w.run(&put("a", How::Buffered, "key0001", "anew"));
    w.run_all(&[Step::Flush, Step::Settle, Step::Release]);
    w.run(&delete("key0000", "key0001"));
    w.run_all(&[Step::Flush, Step::Settle]);
}

fn tickets(w: &mut World) {
    w.run(&Step::Create("a"));
    for i in 0..12u64 {
        w.run(&put("a", How::Submit, "k", value(i, 100 + 200 * i as usize)));
        w.run(&put("a", How::Submit, "l", value(i, 40)));
        match i % 4 {
            1 => w.run_all(&[Step::Wait, Step::Wait]),
            2 => w.run(&put("a", How::Buffered, "m", value(i, 40))),
            3 => w.run(&Step::Work),
            _ => {}
        }
    }
    w.run(&Step::Wait);
}

fn closing_and_opening(w: &mut World) {
    w.run(&Step::Create("a"));
    for round in 0..4 {
        w.run(&Step::Commit(How::Buffered, rows(&["a"], round..round + 4, 200, round as u64)));
        w.run(&put("a", How::Sync, "round", value(round as u64, 20)));
        if round == 1 {
            w.run(&Step::Flush);
        }
        if round == 2 {
            w.run(&Step::Settle);
        }
        w.run(&Step::Reopen);
    }
    w.run(&Step::Reopen);
    w.run(&put("a", How::Buffered, "end", "1"));
}

/// Keys so long that a few flushes fill a manifest, and it is replaced. Only from there on is the
/// power cut.
fn full_manifest(w: &mut World) {
    let manifest =
        |w: &World| w.sim.files().into_iter().find(|f| f.0.extension().is_some_and(|x| x == "manifest"));
    let keys = ["0", "1"].map(|end| "k".repeat(60_000) + end);
    w.run(&Step::Create("a"));
    let (first, mut rounds) = (manifest(w).unwrap().0, 0);
    while manifest(w).unwrap().0 == first {
        w.dull = w.sim.ops();
        for key in &keys {
            w.run(&put("a", How::Buffered, key, value(rounds, 10)));
        }
        w.run(&Step::Settle);
        rounds += 1;
        assert!(rounds < 30, "the manifest is never replaced");
    }
    w.run(&put("a", How::Sync, "end", "1"));
    w.run(&Step::Flush);
}

/// In order and large, so that tables are moved to deeper levels as they are; then what lies across
/// them is merged with them.
fn moves(w: &mut World) {
    w.run(&Step::Create("a"));
    for i in 0..14u64 {
        w.run(&put("a", How::Buffered, &format!("key{i:04}"), value(i, 2000)));
        w.run_all(&[Step::Flush, Step::Settle]);
    }
    w.run(&Step::Commit(How::Buffered, rows(&["a"], 0..14, 30, 99)));
    w.run_all(&[Step::Flush, Step::Work, Step::Reopen, Step::Settle]);
    w.run(&Step::Compact("a", b"key0003".to_vec(), b"key0009".to_vec()));
}

/// Tables that are dropped without being read once nobody can see into them, and one that a snapshot
/// keeps a while.
fn tables_under_a_range_delete(w: &mut World) {
    let delete = |from: &str, to: &str| {
        Step::Commit(How::Buffered, vec![Write::DeleteRange("a", from.into(), to.into())])
    };
    w.run(&Step::Create("a"));
    for round in 0..4usize {
        w.run(&Step::Commit(How::Buffered, rows(&["a"], round * 6..round * 6 + 8, 400, round as u64)));
        w.run_all(&[Step::Flush, Step::Settle]);
    }
    w.run(&delete("key0002", "key0014"));
    w.run_all(&[Step::Flush, Step::Settle, Step::Snapshot]);
    w.run(&delete("key0010", "key0099"));
    w.run(&put("a", How::Buffered, "key0012", "behind the delete"));
    w.run_all(&[Step::Flush, Step::Settle, Step::Release]);
    w.run(&Step::Commit(How::Buffered, vec![Write::Clear("a")]));
    w.run_all(&[Step::Flush, Step::Settle]);
    w.run(&Step::Commit(How::Sync, rows(&["a"], 3..5, 20, 9)));
    w.run_all(&[Step::Reopen, Step::Settle]);
}

/// Rows are added at one end and deleted by range at the other.
fn queue(w: &mut World) {
    w.run(&Step::Create("a"));
    for i in 0..10usize {
        let mut writes = rows(&["a"], i * 8..i * 8 + 8, 150, i as u64);
        let done = format!("key{:04}", i * 8 - i.min(3));
        writes.push(Write::DeleteRange("a", b"key".to_vec(), done.into()));
        w.run(&Step::Commit(How::Buffered, writes));
        w.run(&if i % 3 == 1 { Step::Flush } else { Step::Work });
    }
    w.run_all(&[Step::Settle, Step::Reopen]);
}

/// In parts, all of it, with deletes and a snapshot, and what is compacted already.
fn compacted_by_hand(w: &mut World) {
    let compact = |from: &str, to: &str| Step::Compact("a", from.into(), to.into());
    w.run(&Step::Create("a"));
    for round in 0..3usize {
        w.run(&Step::Commit(How::Buffered, rows(&["a"], round * 5..round * 5 + 15, 200, round as u64)));
        w.run(&compact("key0004", "key0012"));
    }
    let delete = Write::DeleteRange("a", b"key0003".to_vec(), b"key0016".to_vec());
    w.run_all(&[Step::Snapshot, Step::Commit(How::Buffered, vec![delete]), compact("", "z"), Step::Release]);
    w.run_all(&[compact("", "z"), compact("", "z"), Step::Reopen]);
    w.run_all(&[Step::Commit(How::Sync, vec![Write::Clear("a")]), compact("", "z"), Step::Settle]);
}

/// The contents of a name change hands, with tables of both, and with readers of the old.
fn replaced_again_and_again(w: &mut World) {
    w.run(&Step::Create("a"));
    for round in 0..4u64 {
        w.run(&Step::Create("staging"));
        w.run(&Step::Commit(How::Buffered, rows(&["staging"], 0..6, 300, round)));
        w.run(&if round % 2 == 0 { Step::Flush } else { Step::Work });
        w.run(&Step::Snapshot);
        w.run(&Step::Replace("a", "staging"));
        w.run(&Step::Commit(
            How::Buffered,
            vec![Write::DeleteRange("a", b"key0002".to_vec(), b"key0004".to_vec())],
        ));
        w.run(&if round % 2 == 0 { Step::Work } else { Step::Settle });
        w.run_all(&[Step::Release, if round == 2 { Step::Reopen } else { Step::Work }]);
    }
    w.run_all(&[Step::Flush, Step::Settle, Step::Drop("a"), Step::Settle]);
}

/// Copies are made, of nothing, of everything there can be, of the same once more; the original goes on
/// and lets go of what they share.
fn checkpoints(w: &mut World) {
    w.run_all(&[Step::Checkpoint, Step::Create("a"), Step::Create("b")]);
    w.run(&Step::Commit(How::Buffered, rows(&["a", "b"], 0..6, 100, 1)));
    w.run_all(&[Step::Flush, Step::Commit(How::Buffered, rows(&["a"], 3..9, 100, 2)), Step::Checkpoint]);
    w.run_all(&[Step::Checkpoint, put("b", How::Submit, "k", value(3, 700)), Step::Drop("a")]);
    // One by one, so that it shows which of them takes the tables of "a".
    (0..8).for_each(|_| w.run(&Step::Work));
    w.run_all(&[Step::Settle, put("b", How::Sync, "l", value(4, 50)), Step::Checkpoint]);
    w.run_all(&[put("b", How::Buffered, "m", "1"), Step::Flush, Step::Compact("b", vec![], b"z".to_vec())]);
    w.run_all(&[Step::Settle, Step::Reopen, put("b", How::Buffered, "n", "1"), Step::Settle]);
}

/// Some logs of which one keeps all, one a few, one is cut at its end, and one comes and goes: their
/// entries stay in segments that nothing else needs, move, and go.
fn logs(w: &mut World) {
    w.run_all(&[Step::Create("a"), Step::Create(LOGS)]);
    for i in 0..26u64 {
        let mut writes = vec![Write::Keep(2, 2)];
        if i % 5 == 4 {
            writes.push(Write::CutLast(3, 2));
        }
        if i % 11 == 10 {
            writes.push(Write::Remove(4));
        }
        for (log, len) in [(2, 900), (3, 200), (1, 60), (2, 40), (4, 10)] {
            writes.push(Write::Push(log, i / 4, value(i << 8 | log, len)));
        }
        writes.extend(rows(&["a"], i as usize % 3..i as usize % 3 + 1, 300, i));
        let how = if i % 6 == 3 { How::Sync } else { How::Buffered };
        w.run(&Step::Commit(how, writes));
        match i % 8 {
            2 => w.run(&Step::Work),
            5 => w.run_all(&[Step::Flush, Step::Settle]),
            6 if i == 14 => w.run(&Step::Reopen),
            _ => {}
        }
    }
    w.run_all(&[Step::Flush, Step::Settle, Step::Checkpoint, Step::Reopen, Step::Settle]);
    w.run(&Step::Commit(How::Sync, vec![Write::Keep(1, 0), Write::Keep(3, 0), Write::Keep(2, 0)]));
    w.run_all(&[Step::Flush, Step::Settle]);
}

/// A log that is purged as it grows, so that its segments come back, beside rows that are flushed now and then.
fn a_log_in_its_place(w: &mut World) {
    w.run_all(&[Step::Create("a"), Step::Create(LOGS)]);
    for i in 0..24u64 {
        let mut writes = vec![Write::Keep(1, 4)];
        writes.extend((0..3).map(|n| Write::Push(1, i, value(i << 8 | n, 900))));
        if i % 3 == 0 {
            writes.extend(rows(&["a"], i as usize % 5..i as usize % 5 + 2, 200, i));
        }
        w.run(&Step::Commit(if i % 4 == 1 { How::Buffered } else { How::Sync }, writes));
        match i % 8 {
            3 => w.run_all(&[Step::Flush, Step::Settle]),
            7 if i == 15 => w.run_all(&[Step::Checkpoint, Step::Reopen]),
            _ => w.run(&Step::Work),
        }
    }
    w.run_all(&[Step::Flush, Step::Settle]);
}

/// There is no space for a while, twice; what frees some goes on.
fn full_disk(w: &mut World) {
    w.run(&Step::Create("a"));
    w.run(&Step::Commit(How::Buffered, rows(&["a"], 0..10, 200, 1)));
    w.run_all(&[Step::Flush, Step::Settle]);
    for round in 0..2 {
        let used: u64 = w.sim.files().iter().map(|file| file.1).sum();
        w.sim.set_capacity(Some(used + 100));
        let mut full = false;
        for i in 0..60 {
            let big = rows(&["a"], i..i + 4, 300, 100 * round + i as u64);
            let refused = w.try_run(&Step::Commit(How::Buffered, big));
            full |= refused.is_err_and(|e| e.kind() == ErrorKind::DiskFull);
            let _ = w.try_run(&Step::Work);
        }
        assert!(full, "it never was");
        // Taking away is possible.
        w.run(&Step::Commit(How::Sync, vec![Write::DeleteRange("a", b"key0001".to_vec(), b"l".to_vec())]));
        let _ = w.try_run(&Step::Flush);
        w.sim.set_capacity(None);
        w.run_all(&[Step::Flush, Step::Settle, put("a", How::Sync, "there is space", "again")]);
    }
}
