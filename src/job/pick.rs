//! What to compact next: a pure function of the levels.

use crate::ids::{FileNo, Seq};
use crate::version::Levels;

/// Settings of [`pick`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct PickOptions {
    /// Runs of level 0 at which they are merged.
    pub l0_runs: usize,
    /// The target size of the first level below level 0, in bytes.
    pub level_base: u64,
    /// How much larger each level is than the one above.
    pub fanout: u64,
}

/// A compaction: which tables are replaced by one run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub inputs: Vec<(u8, FileNo)>,
    pub level_out: u8,
    /// The age of the run the outputs belong to.
    pub run_out: Seq,
    /// Nothing older than the inputs lies below the output.
    pub bottom: bool,
    /// The tables move as they are.
    pub trivial: bool,
}

/// The next compaction, if one is due.
pub(crate) fn pick(levels: &Levels, _busy: &dyn Fn(FileNo) -> bool, options: &PickOptions) -> Option<Plan> {
    let runs = levels.level(0);
    if runs.len() < options.l0_runs {
        return None;
    }
    let inputs = levels.tables().map(|(level, t)| (level, t.no)).collect();
    let run_out = levels.tables().map(|(_, t)| t.max_seq).max()?;
    Some(Plan { inputs, level_out: 1, run_out, bottom: true, trivial: false })
}
