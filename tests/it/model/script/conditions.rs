//! Batches with conditions: the model says whether they hold.

use super::machine::{Failure, Machine, Result, reversed, same};
use super::{Is, NAMES, Require, Write};
use crate::model::empty;
use esker::{Batch, Durability, ErrorKind, Expect};
use std::hash::Hash;
use std::ops::Bound;

impl Machine {
    pub(super) fn commit_if(
        &mut self,
        durability: Durability,
        requires: &[Require],
        writes: &[Write],
    ) -> Result<()> {
        let mut batch = self.db().batch();
        let mut changes = self.fill(&mut batch, writes);
        let mut holds = !changes.conflict;
        for require in requires {
            let known = self.live.contains_key(&require.name) && !reversed(&require.range);
            if known && let Some(so) = self.require(&mut batch, require) {
                holds &= so;
            }
        }
        let before = self.db().visible_seq();
        let answer = batch.commit_with(durability);
        if changes.bad {
            return same(&answer.err().map(|e| e.kind()), &Some(ErrorKind::Invalid), "a reversed range");
        }
        holds.hash(&mut self.answers);
        if !holds {
            same(&answer.err().map(|e| e.kind()), &Some(ErrorKind::Conflict), "what does not hold")?;
            same(&self.db().visible_seq(), &before, "a conflict leaves no trace")?;
            return same(&(batch.len() as u64), &changes.operations, "a batch is kept for a retry");
        }
        answer?;
        self.committed(std::mem::take(&mut changes.list), changes.operations)
    }

    /// Adds a condition to the batch. Answers whether it holds; none if it cannot be said.
    fn require(&self, batch: &mut Batch, Require { name, range, is }: &Require) -> Option<bool> {
        let (space, now) = (self.model.space(NAMES[*name], self.model.now())?, self.model.now());
        let keyspace = &self.live[name];
        let rows = self.rows(*name, now, range);
        let one = match range {
            (Bound::Included(a), Bound::Included(b)) if a == b => Some(a),
            _ => None,
        };
        let (expect, holds) = match is {
            Is::Absent => (Expect::Absent, rows.is_empty()),
            Is::Present => (Expect::Present, !rows.is_empty()),
            Is::Value(value) => {
                let key = one?;
                (Expect::Value(value), rows.first().is_some_and(|row| row.0 == *key && row.1 == *value))
            }
            Is::Unchanged(slot) => {
                let kept = self.kept[*slot].as_ref()?;
                // Of a name that changed hands, and of no keys, there is nothing to compare.
                if self.model.space(NAMES[*name], kept.at) != Some(space) || empty(range) {
                    return None;
                }
                let touched = self.model.touched(space, range, kept.at);
                (Expect::Unchanged(&kept.snapshot), !touched)
            }
        };
        match one {
            Some(key) => batch.require(keyspace, key, expect),
            None => batch.require_range(keyspace, range.clone(), expect),
        };
        Some(holds)
    }
}

impl From<String> for Failure {
    fn from(why: String) -> Failure {
        Failure(why)
    }
}
