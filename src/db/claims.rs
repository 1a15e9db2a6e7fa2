//! Claims: which tables are being compacted, so that no two jobs take the same.

use crate::ids::FileNo;
use crate::sync::{Condvar, Mutex};
use std::collections::HashSet;

/// The tables of all keyspaces that some job has claimed. Chosen and claimed in one step, under the
/// version lock: what is chosen is there, and stays until the claim ends.
#[derive(Default)]
pub(crate) struct Claims {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    busy: HashSet<FileNo>,
    /// How many claims have ended.
    ended: u64,
}

/// Tables are somebody's as long as this lives.
pub(crate) struct Claim<'a> {
    claims: &'a Claims,
    tables: Vec<FileNo>,
}

impl Claims {
    /// Claims the tables that `choose` answers; it is asked with what is busy, and must not choose
    /// any of that.
    pub fn claim<T>(
        &self,
        choose: impl FnOnce(&dyn Fn(FileNo) -> bool) -> Option<(T, Vec<FileNo>)>,
    ) -> Option<(T, Claim<'_>)> {
        let mut state = self.state.lock();
        let (chosen, tables) = choose(&|no| state.busy.contains(&no))?;
        for &no in &tables {
            let free = state.busy.insert(no);
            debug_assert!(free, "table {no} is busy and was chosen");
        }
        Some((chosen, Claim { claims: self, tables }))
    }

    /// How many claims have ended, for [`await_end`](Claims::await_end).
    pub fn ended(&self) -> u64 {
        self.state.lock().ended
    }

    /// Waits until more than `ended` claims have ended, unless none is left that could. Not under a
    /// lock.
    pub fn await_end(&self, ended: u64) {
        let mut state = self.state.lock();
        while state.ended == ended && !state.busy.is_empty() {
            state = self.changed.wait(state);
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut state = self.claims.state.lock();
        for no in &self.tables {
            state.busy.remove(no);
        }
        state.ended += 1;
        self.claims.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_claimed_is_busy_until_the_claim_ends() {
        let claims = Claims::default();
        let busy = |no| {
            let asked = claims.claim(|busy| Some((busy(FileNo(no)), Vec::new())));
            asked.unwrap().0
        };
        let (_, one) = claims.claim(|_| Some(((), vec![FileNo(1), FileNo(2)]))).unwrap();
        let (_, two) = claims.claim(|_| Some(((), vec![FileNo(3)]))).unwrap();
        assert!(claims.claim(|_| None::<((), _)>).is_none());
        assert!(busy(1) && busy(2) && busy(3) && !busy(4));
        let ended = claims.ended();
        drop(one);
        assert!(!busy(1) && busy(3) && claims.ended() > ended);
        claims.await_end(ended);
        let ended = claims.ended();
        std::thread::scope(|s| {
            let waiter = s.spawn(|| claims.await_end(ended));
            drop(two);
            waiter.join().unwrap();
        });
        // Nobody would ever wake it.
        claims.await_end(claims.ended());
    }
}
