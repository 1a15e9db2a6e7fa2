//! Which files make up the database: levels of tables, the edits that change them, and the
//! manifest that keeps the edits.
//!
//! Data flows one way: a job answers with an [`Edit`], [`VersionSet::apply`] writes it to the
//! manifest, and only then does the [`State`] change.

// The layers, lowest first, as in the crate's root.
// == tables in order ==
mod levels;
// == changes ==
mod edit;
// == what the changes add up to ==
mod state;
// == where they are kept ==
mod manifest;
// == the one place that applies them ==
mod set;

pub(crate) use edit::{Change, Edit};
pub(crate) use levels::{Levels, MAX_LEVELS, Run, Span, TableMeta};
pub(crate) use manifest::{dump, found, load};
pub(crate) use set::VersionSet;
pub(crate) use state::{KeyspaceState, SegmentState, State};

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
