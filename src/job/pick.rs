//! What to compact next: a pure function of the levels.
//!
//! Level 0 holds flushed runs, which may overlap; each level below holds one run. The last level
//! holds nearly everything, and the level above may have a [`fanout`](PickOptions::fanout)th of it,
//! and so on up to the base level, the first that would be no larger than
//! [`level_base`](PickOptions::level_base). Level 0 is merged into the base level; what is between
//! is empty. So a small keyspace has one level, and levels come into use from the last one upwards
//! (RocksDB's dynamic level sizes).
//!
//! # Level 0
//!
//! What a merge into the base level costs is what it rewrites there, for each byte it adds. While
//! flushes keep coming, level 0 waits until that is at most [`BUSY`]; until then it is kept short by
//! merging runs of about the same size, so that each byte is rewritten once for many (lazy leveling).
//! When nothing is being written, reads count: then a byte that is added may cost [`CALM`].
//!
//! # What keeps the order
//!
//! A newer version of a key must never come to lie below an older one, nor two tables of a run
//! overlap, whatever else is being compacted at the same time. Hence:
//!
//! - The inputs are closed: of every run from the inputs' to the output's, each table that shares
//!   keys with the hull of the inputs (from their first key to their last, gaps included: an output
//!   table may span a gap) is an input.
//! - A table that is an input already (`busy`) is no input again; a plan that needs one has to wait.
//! - Of level 0, one plan at a time: two could write into the same gap of the base level.
//!
//! The plans from one level into the next need no further rule: their inputs above are disjoint
//! tables of one run, so if two of their hulls met below, they would meet in a table that is busy.
//!
//! # Tombstones
//!
//! With nothing else to do, tables that are mostly tombstones, or [dense](TableMeta::dense) in them
//! somewhere, go down until nothing lies below them that they may hide. What snapshots made them
//! keep there goes when the snapshots have gone: the table is written again in place, once, for no
//! tombstone and no second version of a key is left in it then.

use crate::ids::{FileNo, Seq};
use crate::version::{Levels, MAX_LEVELS, Run, Span, TableMeta};
use std::ops::Range;
use std::sync::Arc;

/// Settings of [`pick`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct PickOptions {
    /// Runs of level 0 at which they are merged; twice as many there are only for as long as merges take.
    pub l0_runs: usize,
    /// The largest target size of the base level, in bytes.
    pub level_base: u64,
    /// How much larger each level is than the one above.
    pub fanout: u64,
    /// Where outputs are cut: smaller tables are worth joining.
    pub table_bytes: u64,
    /// Nothing is being written: what helps reads alone may be done as well.
    pub calm: bool,
}

/// Bytes that a merge of level 0 may rewrite for each that it adds, while flushes keep coming.
const BUSY: u64 = 1;
/// Likewise when nothing is being written.
const CALM: u64 = 4;
/// Runs of level 0 differ in size by this factor at most where many are merged into one.
const ALIKE: u64 = 2;

/// A compaction: which tables are replaced by tables of one run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Plan {
    /// Newest run first.
    pub inputs: Vec<(u8, FileNo)>,
    pub level_out: u8,
    /// The age of the run the outputs belong to.
    pub run_out: Seq,
    /// Nothing older than the inputs lies below the output.
    pub bottom: bool,
    /// The tables move as they are.
    pub trivial: bool,
}

/// The last level. It has no target.
const LAST: u8 = MAX_LEVELS as u8 - 1;

/// The next compaction, if one is due and not in the way of those that have the `busy` tables. No
/// read asks for a state before `oldest`.
pub(crate) fn pick(
    levels: &Levels,
    busy: &dyn Fn(FileNo) -> bool,
    oldest: Seq,
    options: &PickOptions,
) -> Option<Plan> {
    let picker = Picker { levels, busy, options, shape: Shape::new(levels, options) };
    let due = picker.most_due().or_else(|| picker.tombstones(oldest)).or_else(|| picker.rewrite(oldest));
    due.or_else(|| options.calm.then(|| picker.level0(CALM).ok()).flatten())
}

/// How far the oldest read has to move on before [`pick`] finds something to do that it does not
/// find at `oldest`; `None` if that would not help.
pub(crate) fn held_until(levels: &Levels, oldest: Seq) -> Option<Seq> {
    let level0 = levels.level(0).iter().flat_map(|run| &run.tables);
    let newest = level0.clone().map(|t| t.max_seq).max();
    let tombstones = newest.filter(|_| mostly_tombstones(level0));
    let rewritten = (1..=LAST).flat_map(|level| bottom_tables(levels, level, &worth_rewriting));
    rewritten.map(|(_, t)| t.max_seq).chain(tombstones).filter(|&seq| seq > oldest).min()
}

/// What a compaction by hand still has to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Manual {
    Carry(Plan),
    /// Nothing before some of the busy tables are free again.
    Wait,
    Done,
}

/// When a compaction by hand began: what came later is none of its business.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Since {
    /// The newest operation then.
    pub seq: Seq,
    /// No table had this number or a larger one.
    pub file: FileNo,
}

/// The next step of a compaction by hand: everything of `span` goes down level by level into one
/// run at the deepest level in use, and the tables there in which something was deleted or replaced
/// are written again, once. No read asks for a state before `oldest`.
pub(crate) fn manual(
    levels: &Levels,
    busy: &dyn Fn(FileNo) -> bool,
    (span, since): (Span<'_>, Since),
    oldest: Seq,
    options: &PickOptions,
) -> Manual {
    let picker = Picker { levels, busy, options, shape: Shape::new(levels, options) };
    let deepest = levels.deepest().filter(|&level| level > 0).unwrap_or(LAST);
    let mut wait = false;
    if levels.overlapping(0, span).any(|t| t.min_seq <= since.seq) {
        match picker.level0(u64::MAX) {
            Ok(plan) => return Manual::Carry(plan),
            Err(_) => wait = true,
        }
    }
    for level in 1..deepest {
        let tables = levels.level(level).last().map_or(&[][..], |run| run.overlapping(span));
        for table in tables.iter().filter(|t| t.min_seq <= since.seq) {
            match picker.table_down(level, table) {
                Some(plan) => return Manual::Carry(plan),
                None => wait = true,
            }
        }
    }
    if wait {
        return Manual::Wait;
    }
    let unclean = |t: &TableMeta| {
        // With a snapshot in its midst, nobody knows whether another time would help.
        let helps = t.max_seq <= oldest || t.no < since.file;
        helps && t.deletes.max(t.range_deletes).max(t.superseded) > 0
    };
    let wanted = |t: &TableMeta| unclean(t) && t.span().overlaps(span);
    for (at, table) in bottom_tables(levels, deepest, &wanted) {
        match busy(table.no) {
            false => return Manual::Carry(picker.in_place(deepest, at, &wanted)),
            true => wait = true,
        }
    }
    if wait { Manual::Wait } else { Manual::Done }
}

/// The tables of a level that are wanted and that nothing lies below, with their places in the
/// level's oldest run.
fn bottom_tables<'a>(
    levels: &'a Levels,
    level: u8,
    wanted: &dyn Fn(&TableMeta) -> bool,
) -> impl Iterator<Item = (usize, &'a Arc<TableMeta>)> {
    let tables = levels.level(level).last().map_or(&[][..], |run| &run.tables);
    tables.iter().enumerate().filter(move |(_, t)| wanted(t) && nothing_below(levels, level, t.span()))
}

fn nothing_below(levels: &Levels, level: u8, span: Span<'_>) -> bool {
    (level + 1..=LAST).all(|below| levels.overlapping(below, span).next().is_none())
}

/// Bytes by which levels below level 0 exceed their targets.
pub(crate) fn excess(levels: &Levels, options: &PickOptions) -> u64 {
    let Shape { targets, .. } = Shape::new(levels, options);
    let over = |level: u8| levels.bytes(level).saturating_sub(targets[usize::from(level)]);
    (1..LAST).map(over).fold(0, u64::saturating_add)
}

/// Which level takes the merges of level 0, and how large each may become.
struct Shape {
    base: u8,
    targets: [u64; MAX_LEVELS],
}

impl Shape {
    fn new(levels: &Levels, options: &PickOptions) -> Shape {
        let fanout = options.fanout.max(2);
        // A level above the computed base is left from when there was more data. It drains.
        let mut targets = [(options.level_base / fanout).max(1); MAX_LEVELS];
        targets[usize::from(LAST)] = u64::MAX;
        let mut target = (1..=LAST).map(|level| levels.bytes(level)).max().unwrap_or(0);
        let mut base = LAST;
        while base > 1 && target > options.level_base {
            base -= 1;
            target /= fanout;
            targets[usize::from(base)] = target.max(1);
        }
        let first = (1..=LAST).find(|&level| !levels.level(level).is_empty());
        Shape { base: first.map_or(base, |first| first.min(base)), targets }
    }
}

struct Picker<'a> {
    levels: &'a Levels,
    busy: &'a dyn Fn(FileNo) -> bool,
    options: &'a PickOptions,
    shape: Shape,
}

/// Tables chosen for a plan, newest run first, and all keys between their first and last.
struct Inputs<'a> {
    tables: Vec<(u8, &'a Arc<TableMeta>)>,
    hull: Span<'a>,
}

impl Inputs<'_> {
    fn bytes(&self) -> u64 {
        self.tables.iter().fold(0, |sum, (_, t)| sum.saturating_add(t.size))
    }
}

/// Why level 0 is not compacted now.
enum Wait {
    /// It is being compacted.
    Level0,
    /// Tables of the base level are.
    Base,
    /// It would cost less later.
    More,
}

impl<'a> Picker<'a> {
    /// The level that exceeds its limit most, of those that can be compacted now.
    fn most_due(&self) -> Option<Plan> {
        let mut due: Vec<(f64, u8)> = (0..LAST).map(|level| (self.score(level), level)).collect();
        due.retain(|&(score, level)| score > 1.0 || level == 0 && score == 1.0);
        due.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut reserved = None;
        for (_, level) in due {
            if level == 0 {
                match self.level0(BUSY) {
                    Ok(plan) => return Some(plan),
                    // Its turn comes when the base level is at rest: nothing new begins there.
                    Err(Wait::Base) => reserved = Some(self.shape.base),
                    Err(Wait::Level0 | Wait::More) => {}
                }
            } else if reserved != Some(level)
                && let Some(plan) = self.down(level)
            {
                return Some(plan);
            }
        }
        None
    }

    /// How much of its limit a level uses: runs on level 0, bytes elsewhere. What is busy is on its
    /// way out.
    fn score(&self, level: u8) -> f64 {
        let runs = self.levels.level(level);
        if level == 0 {
            return runs.len() as f64 / self.options.l0_runs.max(1) as f64;
        }
        let tables = runs.iter().flat_map(|run| &run.tables);
        let bytes: u64 = tables.filter(|t| !(self.busy)(t.no)).fold(0, |sum, t| sum.saturating_add(t.size));
        bytes as f64 / self.shape.targets[usize::from(level)] as f64
    }

    /// Level 0 into the base level, or where that would rewrite more than `most` bytes for each that it
    /// adds, runs of it into one.
    fn level0(&self, most: u64) -> Result<Plan, Wait> {
        let runs = self.levels.level(0);
        let above: Vec<_> = runs.iter().flat_map(|run| run.tables.iter().map(|t| (0, t))).collect();
        if above.iter().any(|(_, t)| (self.busy)(t.no)) {
            return Err(Wait::Level0);
        }
        let base = self.shape.base;
        let (count, bytes) = (above.len(), self.levels.bytes(0));
        let hull = hull(above.iter().map(|(_, t)| t.span())).ok_or(Wait::Level0)?;
        let mut inputs = self.close(Inputs { tables: above, hull }, 1..=base);
        let bottom = self.nothing_below(base, inputs.hull);
        let fit = self.fit_as_they_are(&inputs.tables[..count], bottom);
        if fit && inputs.tables.len() > count {
            // They go into gaps between tables that the hull as a whole would take in.
            inputs.tables.truncate(count);
            return Ok(self.plan(inputs, base, bottom, true));
        }
        let rewritten = inputs.bytes().saturating_sub(bytes);
        if rewritten > bytes.saturating_mul(most) {
            return self.within_level0(most).ok_or(Wait::More);
        }
        if inputs.tables.iter().any(|(_, t)| (self.busy)(t.no)) {
            return Err(Wait::Base);
        }
        let joined = self.join_small(&mut inputs);
        let bottom = self.nothing_below(base, inputs.hull);
        Ok(self.plan(inputs, base, bottom, fit && !joined))
    }

    /// Whether these tables of level 0 can be tables of the base level's run.
    fn fit_as_they_are(&self, tables: &[(u8, &Arc<TableMeta>)], bottom: bool) -> bool {
        let mut tables: Vec<&TableMeta> = tables.iter().map(|(_, t)| &***t).collect();
        tables.sort_by(|a, b| a.smallest.cmp(&b.smallest));
        let free = |t: &TableMeta| self.levels.overlapping(self.shape.base, t.span()).next().is_none();
        tables.iter().all(|t| free(t) && may_move(t, bottom))
            && tables.windows(2).all(|w| !w[0].span().overlaps(w[1].span()))
    }

    /// Some runs of level 0 into one, if that is worth it.
    fn within_level0(&self, most: u64) -> Option<Plan> {
        let runs = self.levels.level(0);
        let mut alike = (0..runs.len()).map(|from| from..from + alike(&runs[from..]));
        let many = alike.find(|which| which.len() >= self.options.l0_runs.max(2));
        let growing = || 0..growing(runs, most);
        let which = match many {
            Some(which) => which,
            None if self.options.calm => growing(),
            // Of very different sizes. The least of evils.
            None if runs.len() >= 2 * self.options.l0_runs => 0..growing().len().max(2),
            None => return None,
        };
        (which.len() > 1).then(|| self.join_runs(which))
    }

    /// These runs of level 0 into one.
    fn join_runs(&self, which: Range<usize>) -> Plan {
        let runs = self.levels.level(0);
        let tables: Vec<_> =
            runs[which.clone()].iter().flat_map(|run| run.tables.iter().map(|t| (0, t))).collect();
        let hull = hull(tables.iter().map(|(_, t)| t.span())).unwrap_or(Span::ALL);
        let older = runs[which.end..].iter().any(|run| !run.overlapping(hull).is_empty());
        let bottom = !older && self.nothing_below(0, hull);
        let inputs = tables.iter().map(|(level, t)| (*level, t.no)).collect();
        Plan { inputs, level_out: 0, run_out: runs[which.start].age, bottom, trivial: false }
    }

    /// The table of this level that costs least to merge into the next one.
    fn down(&self, level: u8) -> Option<Plan> {
        let mut best: Option<(f64, &Arc<TableMeta>)> = None;
        // Of several runs the oldest: nothing of this level lies below it.
        for table in &self.levels.level(level).last()?.tables {
            if (self.busy)(table.no) {
                continue;
            }
            let mut below = self.levels.overlapping(level + 1, table.span());
            let bytes =
                below.try_fold(0u64, |sum, t| (!(self.busy)(t.no)).then(|| sum.saturating_add(t.size)));
            let Some(bytes) = bytes else { continue };
            let cost = bytes as f64 / table.size.max(1) as f64;
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, table));
            }
        }
        self.table_down(level, best?.1)
    }

    /// One table of the oldest run of its level into the next level.
    fn table_down(&self, level: u8, table: &'a Arc<TableMeta>) -> Option<Plan> {
        let above = Inputs { tables: vec![(level, table)], hull: table.span() };
        let inputs = self.close(above, level + 1..=level + 1);
        if inputs.tables.iter().any(|(_, t)| (self.busy)(t.no)) {
            return None;
        }
        let bottom = self.nothing_below(level + 1, inputs.hull);
        let trivial = inputs.tables.len() == 1 && may_move(table, bottom);
        Some(self.plan(inputs, level + 1, bottom, trivial))
    }

    /// With nothing else to do: tables that are mostly tombstones, or dense in them, go down to what
    /// they delete. Level 0 is short, so there the whole counts; it also goes when its tombstones
    /// hide nothing any more.
    fn tombstones(&self, oldest: Seq) -> Option<Plan> {
        let deeper = |level: u8, span| !self.nothing_below(level, span);
        let level0 = self.levels.level(0).iter().flat_map(|run| &run.tables);
        let span = hull(level0.clone().map(|t| t.span()));
        let done = level0.clone().all(|t| t.max_seq <= oldest);
        if mostly_tombstones(level0) && span.is_some_and(|span| done || deeper(0, span)) {
            return self.level0(u64::MAX).ok();
        }
        (1..LAST).find_map(|level| {
            self.levels.level(level).last()?.tables.iter().find_map(|t| {
                let wanted = (t.dense || mostly_tombstones([t])) && deeper(level, t.span());
                if wanted { self.table_down(level, t) } else { None }
            })
        })
    }

    /// Adds every table of these levels that shares keys with the hull, until none is left that does.
    fn close(&self, mut inputs: Inputs<'a>, below: std::ops::RangeInclusive<u8>) -> Inputs<'a> {
        let above = inputs.tables.len();
        loop {
            let before = inputs.tables.len();
            inputs.tables.truncate(above);
            for level in below.clone() {
                let found = self.levels.overlapping(level, inputs.hull);
                inputs.tables.extend(found.map(|t| (level, t)));
            }
            let spans = inputs.tables.iter().map(|(_, t)| t.span());
            inputs.hull = hull(spans).unwrap_or(inputs.hull);
            // One run per level: the second round finds the same.
            if inputs.tables.len() == before {
                return inputs;
            }
        }
    }

    /// Small merges take in the tables beside them in the base level, while these are no larger than
    /// the merge is already. So tables grow together, each byte rewritten a few times only, where
    /// flushes are small and go beside each other.
    fn join_small(&self, inputs: &mut Inputs<'a>) -> bool {
        let base = self.shape.base;
        let [run] = self.levels.level(base) else { return false };
        let (before, mut bytes) = (inputs.tables.len(), inputs.bytes());
        loop {
            let (left, right) = beside(run, inputs.hull);
            let fits = |t: &&Arc<TableMeta>| {
                let small = bytes < self.options.table_bytes && t.size <= bytes;
                small && !(self.busy)(t.no)
            };
            let Some(table) = left.filter(fits).or(right.filter(fits)) else { break };
            bytes = bytes.saturating_add(table.size);
            inputs.hull = inputs.hull.join(table.span());
            inputs.tables.push((base, table));
        }
        inputs.tables.len() > before
    }

    /// Tables at the bottom that hold much nobody can see any more, written again where they are.
    fn rewrite(&self, oldest: Seq) -> Option<Plan> {
        let wanted = |t: &TableMeta| t.max_seq <= oldest && worth_rewriting(t) && !(self.busy)(t.no);
        (1..=LAST).find_map(|level| {
            let (at, _) = bottom_tables(self.levels, level, &wanted).next()?;
            Some(self.in_place(level, at, &wanted))
        })
    }

    /// Table `at` of the oldest run of a level, at the bottom, and those behind it that are `wanted`
    /// as well, as long as what is left of them fits into one table.
    fn in_place(&self, level: u8, at: usize, wanted: &dyn Fn(&TableMeta) -> bool) -> Plan {
        let run = self.levels.level(level).last();
        let tables = run.map_or(&[][..], |run| &run.tables[at..]);
        let mut left = 0u64;
        let fits = |t: &&Arc<TableMeta>| {
            left = left.saturating_add(left_of(t));
            let bottom = self.nothing_below(level, t.span());
            t.no == tables[0].no
                || left <= self.options.table_bytes && bottom && wanted(t) && !(self.busy)(t.no)
        };
        let inputs = tables.iter().take_while(fits).map(|t| (level, t.no)).collect();
        let run_out = run.map_or(Seq::ZERO, |run| run.age);
        Plan { inputs, level_out: level, run_out, bottom: true, trivial: false }
    }

    fn nothing_below(&self, level: u8, span: Span<'_>) -> bool {
        nothing_below(self.levels, level, span)
    }

    fn plan(&self, inputs: Inputs<'_>, level_out: u8, bottom: bool, trivial: bool) -> Plan {
        // Every first run below level 0 is of the same age, so that plans which fill an empty level
        // side by side make one run.
        let run_out = self.levels.level(level_out).first().map_or(Seq::ZERO, |run| run.age);
        let inputs = inputs.tables.iter().map(|(level, t)| (*level, t.no)).collect();
        Plan { inputs, level_out, run_out, bottom, trivial }
    }
}

/// How many of these runs, from the first on, are of about its size.
fn alike(runs: &[Arc<Run>]) -> usize {
    let largest = runs.first().map_or(0, |run| run.bytes.saturating_mul(ALIKE));
    runs.iter().take_while(|run| run.bytes <= largest).count()
}

/// How many of these runs, from the first on, make one if the last of them may be `most` times as large
/// as those before it together: so each byte is rewritten a few times only while level 0 grows.
fn growing(runs: &[Arc<Run>], most: u64) -> usize {
    let (mut sum, mut count) = (0u64, 0);
    for (at, run) in runs.iter().enumerate() {
        if run.bytes <= sum.saturating_mul(most) {
            count = at + 1;
        }
        sum = sum.saturating_add(run.bytes);
    }
    count
}

fn hull<'a>(spans: impl Iterator<Item = Span<'a>>) -> Option<Span<'a>> {
    spans.reduce(Span::join)
}

/// The tables of a run right before and right behind a span.
fn beside<'a>(run: &'a Run, span: Span<'_>) -> (Option<&'a Arc<TableMeta>>, Option<&'a Arc<TableMeta>>) {
    let first = run.tables.partition_point(|t| t.end.as_deref().is_some_and(|end| end <= span.start));
    let behind = span.end.map(|end| run.tables.partition_point(|t| *t.smallest < *end));
    let left = first.checked_sub(1).and_then(|at| run.tables.get(at));
    (left, behind.and_then(|at| run.tables.get(at)))
}

/// Whether a table may move down as it is: a merge at the bottom could leave tombstones out.
fn may_move(table: &TableMeta, bottom: bool) -> bool {
    !bottom || table.range_deletes == 0 && table.deletes <= table.entries / 4
}

/// Whether a quarter of a table that lies at the bottom would go, or what slows scans down, were
/// there no snapshots.
fn worth_rewriting(t: &TableMeta) -> bool {
    let gone = t.deletes.saturating_add(t.superseded);
    t.dense || t.range_deletes > 0 || gone > 0 && gone >= t.entries / 4
}

/// About how many bytes of a table at the bottom stay, were there no snapshots.
fn left_of(t: &TableMeta) -> u64 {
    let left = t.entries.saturating_sub(t.deletes).saturating_sub(t.superseded);
    (t.size as f64 * left as f64 / t.entries.max(1) as f64) as u64
}

/// At least as many tombstones as values.
fn mostly_tombstones<'a>(tables: impl IntoIterator<Item = &'a Arc<TableMeta>>) -> bool {
    let (mut all, mut deletes) = (0u64, 0u64);
    for t in tables {
        all = all.saturating_add(t.entries).saturating_add(t.range_deletes);
        deletes = deletes.saturating_add(t.deletes).saturating_add(t.range_deletes);
    }
    deletes > 0 && deletes >= all - deletes.min(all)
}

#[cfg(test)]
mod tests;
