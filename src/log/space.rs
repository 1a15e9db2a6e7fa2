//! How much space logs may take, and what is done once they take more: a pure function of the segments
//! they have entries in.
//!
//! # The bound
//!
//! Less than twice what is live and two segments, whatever is kept and however it dies. A segment that is
//! written to counts as far as it is filled, since its file is there whole: so what counts is held to
//! twice what is live and *one* segment, and does not jump when the journal moves on.
//!
//! # Patience
//!
//! What dies by itself need not move, so it is given as much time as the bound leaves. A log that is purged at
//! its front never needs more than what is live and the segment that is dying. Where more is live than a
//! segment, two segments are little beside it, and what is to stay is best moved early: then the room is
//! somewhat less than twice what is live, and files beside those of logs fit within the bound, too: the
//! segment that lies ready, footers, heads, and copies in the making.
//!
//! # What is done
//!
//! A segment that memtables need is not given up however dead it is: they are flushed, oldest need first,
//! until what that gives back is enough. That takes little, and a while, so it is not put off to the last: one
//! log that is purged at its front leaves no more than one such segment. A segment that only logs need and that is less than half live gives
//! back more than its survivors take when they move: those with the least live move first, no more than
//! fit one segment at a time. So no more is ever moved than was written.

use crate::ids::FileNo;

/// So many small cold segments become one.
const FEW: usize = 4;

/// A segment that log entries were written to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub no: FileNo,
    pub by: By,
    /// What logs take of it: all of it, if nothing else needs it.
    pub bytes: u64,
    /// What of that is live.
    pub live: u64,
}

/// Who needs a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum By {
    /// Logs alone, as a segment of the journal, or as one that was made of survivors.
    Logs { cold: bool },
    /// Memtables, too.
    Memtables,
    /// It is written to, or sealed, or cannot be read.
    Others,
}

/// What is to be done.
#[derive(PartialEq, Eq, Default, Debug)]
pub(crate) struct Plan {
    /// The survivors of these move, into one segment.
    pub moved: Vec<FileNo>,
    /// Memtables that need the journal up to the end of this one are flushed.
    pub flushed: Option<FileNo>,
}

/// What logs may take before something is done, of which so much is live: all of the bound up to a
/// segment that is live, and less than twice that from nearly two on.
fn room(live: u64, segment: u64) -> u64 {
    let bound = bound(live, segment);
    let beyond = live.saturating_sub(segment).saturating_mul(2);
    bound.saturating_sub(beyond.min(segment / 4 * 7))
}

/// What one log needs that is purged at its front.
fn need(live: u64, segment: u64) -> u64 {
    live.saturating_add(segment).saturating_add(live.min(segment / 8))
}

/// What must not be exceeded.
fn bound(live: u64, segment: u64) -> u64 {
    live.saturating_mul(2).saturating_add(segment)
}

/// What to do with these `segments`, oldest first, where a new one has `segment` bytes.
pub(crate) fn plan(segments: &[Held], segment: u64) -> Plan {
    let live: u64 = segments.iter().map(|s| s.live).sum();
    let taken: u64 = segments.iter().map(|s| s.bytes).sum();
    let alone = |s: &&Held| matches!(s.by, By::Logs { .. });
    let is_dying = |s: &&Held| s.live.saturating_mul(2) < s.bytes;
    let mut dying: Vec<&Held> = segments.iter().filter(alone).filter(is_dying).collect();
    dying.sort_by_key(|s| (s.live, s.no));
    let mut excess = taken.saturating_sub(room(live, segment));
    if let Some(least) = dying.first() {
        // Its copy has to fit, too.
        excess = excess.max(taken.saturating_add(least.live).saturating_sub(bound(live, segment)));
    }
    let mut plan = Plan::default();
    let (wanted, mut given) = (excess.max(taken.saturating_sub(need(live, segment))), 0);
    for held in segments.iter().filter(|s| s.by == By::Memtables && is_dying(s)) {
        if given >= wanted {
            break;
        }
        plan.flushed = Some(held.no);
        given += held.bytes.saturating_sub(held.live);
    }
    excess = excess.saturating_sub(given);
    let mut bytes = 0;
    for held in dying {
        bytes += held.live;
        if excess == 0 || (bytes > segment && !plan.moved.is_empty()) {
            break;
        }
        plan.moved.push(held.no);
        excess = excess.saturating_sub(held.bytes - held.live);
    }
    if plan.moved.is_empty() {
        plan.moved = small(segments, segment);
    }
    plan
}

/// Small cold segments, if there are several: each has files of its own.
fn small(segments: &[Held], segment: u64) -> Vec<FileNo> {
    let is_small = |s: &&Held| s.by == By::Logs { cold: true } && s.bytes < segment / 8;
    let small: Vec<FileNo> = segments.iter().filter(is_small).map(|s| s.no).collect();
    if small.len() < FEW { Vec::new() } else { small }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 1600;

    fn held(no: u64, by: By, bytes: u64, live: u64) -> Held {
        Held { no: FileNo(no), by, bytes, live }
    }

    const LOGS: By = By::Logs { cold: false };
    const COLD: By = By::Logs { cold: true };

    fn planned(segments: &[Held]) -> (Vec<u64>, Option<u64>) {
        let Plan { moved, flushed } = plan(segments, SEGMENT);
        (moved.iter().map(|no| no.0).collect(), flushed.map(|no| no.0))
    }

    /// The survivors of one log, purged at its front, never move: whatever it keeps.
    #[test]
    fn what_dies_by_itself_does_not_move() {
        for keep in [10, 100, 800, 1600, 1700, 5000, 40_000] {
            for end in (keep..keep + 3 * SEGMENT).step_by(7) {
                let (from, last) = (end - keep, (end - 1) / SEGMENT);
                let segments: Vec<Held> = (from / SEGMENT..=last)
                    .map(|no| {
                        let (start, stop) = (no * SEGMENT, end.min((no + 1) * SEGMENT));
                        let by = if no == last { By::Others } else { LOGS };
                        held(no, by, stop - start, stop - from.max(start))
                    })
                    .collect();
                assert_eq!(planned(&segments), (vec![], None), "{keep} of {end}: {segments:?}");
            }
        }
    }

    #[test]
    fn beyond_that_those_with_the_least_live_move() {
        let active = held(9, By::Others, 600, 400);
        let rest = [held(1, LOGS, 1600, 700), held(2, COLD, 1600, 300), held(3, LOGS, 1600, 900)];
        // Twice what is live is less than what is taken, by less than one of them gives back.
        assert_eq!(planned(&[rest[0], rest[1], rest[2], active]), (vec![2], None));
        let more = [held(4, LOGS, 1600, 100), held(5, LOGS, 1600, 100), held(6, LOGS, 1600, 790)];
        assert_eq!(planned(&[&rest[..], &more].concat()), (vec![4, 5, 2, 1], None));
        // What is half live or more stays, whatever is taken.
        assert_eq!(planned(&[held(1, LOGS, 1600, 800), held(2, By::Others, 16_000, 0)]), (vec![], None));
        // One segment's worth at a time, but one in any case.
        let many: Vec<Held> = (0..9).map(|no| held(no, LOGS, 1600, 700)).chain([active]).collect();
        assert_eq!(planned(&many[..]), (vec![0, 1], None));
        assert_eq!(planned(&[held(1, LOGS, 9000, 2000), held(2, LOGS, 9000, 2100)]), (vec![1], None));
    }

    #[test]
    fn what_memtables_need_is_flushed_for_oldest_first() {
        let needed = |no, live| held(no, By::Memtables, 1600, live);
        let active = held(9, By::Others, 150, 100);
        assert_eq!(planned(&[needed(1, 0), active]), (vec![], None), "as much as may be");
        assert_eq!(planned(&[needed(1, 0), needed(2, 0), active]), (vec![], Some(1)));
        assert_eq!(planned(&[needed(1, 0), needed(2, 0), needed(3, 0), active]), (vec![], Some(2)));
        // Where much is live that is not put off as moving is.
        let live = held(4, LOGS, 4000, 4000);
        assert_eq!(planned(&[live, needed(5, 100), needed(6, 100), active]), (vec![], Some(5)));
        // That which a flush would not give back is no reason for one.
        let alive = [needed(1, 1600), needed(2, 1500), held(3, LOGS, 1600, 0), held(4, LOGS, 1600, 0)];
        assert_eq!(planned(&[&alive[..], &[held(5, LOGS, 1600, 0), active]].concat()), (vec![3, 4], None));
    }

    #[test]
    fn small_cold_ones_are_joined() {
        let small: Vec<Held> = (0..4).map(|no| held(no, COLD, 150, 150)).collect();
        assert_eq!(planned(&small), (vec![0, 1, 2, 3], None));
        assert_eq!(planned(&small[1..]), (vec![], None));
    }

    /// Whatever lives however long, what is taken stays within the bound, at every step, copies included; and
    /// no more is moved than was written.
    #[test]
    fn the_bound_holds_for_any_mix() {
        for seed in 1..200u64 {
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut below = |n: u64| {
                random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                (random >> 33) % n
            };
            let (mut written, mut moved, mut next) = (0, 0, 1);
            let mut segments = vec![held(0, By::Others, 0, 0)];
            let (keep, lasting) = (below(5000), below(4));
            for _ in 0..1500 {
                let last = segments.len() - 1;
                if segments[last].bytes + 40 > SEGMENT {
                    segments[last].by = if below(2) == 0 { By::Memtables } else { LOGS };
                    segments.push(held(next, By::Others, 0, 0));
                    next += 1;
                } else {
                    segments[last].bytes += 40;
                    segments[last].live += 40;
                    written += 40;
                }
                // A part of it dies soon; of the rest whatever there is too much of, anywhere.
                let live = |segments: &[Held]| segments.iter().map(|s| s.live).sum::<u64>();
                while live(&segments) > keep {
                    let of = below(segments.len() as u64) as usize;
                    let oldest = segments.iter().position(|s| s.live > 0).unwrap_or(of);
                    let of = if below(4) < lasting { of } else { oldest };
                    segments[of].live = segments[of].live.saturating_sub(20);
                }
                let is_over = |s: &Held| s.live == 0 && matches!(s.by, By::Logs { .. });
                segments.retain(|s| !is_over(s));
                loop {
                    let Plan { moved: victims, flushed } = plan(&segments, SEGMENT);
                    if let Some(to) = flushed {
                        let needed = segments.iter_mut().filter(|s| s.no <= to && s.by == By::Memtables);
                        needed.for_each(|s| s.by = LOGS);
                        segments.retain(|s| !is_over(s));
                        continue;
                    }
                    let taken: u64 = segments.iter().map(|s| s.bytes).sum();
                    let is_victim = |s: &&Held| victims.contains(&s.no);
                    let copy: u64 = segments.iter().filter(is_victim).map(|s| s.live).sum();
                    let bound = bound(live(&segments), SEGMENT);
                    // It is seen after the step that goes beyond it.
                    assert!(taken + copy <= bound + 160, "seed {seed}: {taken} and {copy} of {bound}");
                    if victims.is_empty() {
                        break;
                    }
                    moved += copy;
                    segments.retain(|s| !victims.contains(&s.no));
                    segments.insert(0, held(next, COLD, copy, copy));
                    next += 1;
                }
            }
            assert!(moved <= written * 3 / 2, "seed {seed}: {moved} of {written} were moved");
        }
    }
}
