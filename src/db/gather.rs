//! How long a sync waits before it begins, for those whom the last one let go.
//!
//! They will be back with their next commits in a moment. A sync that begins at once leaves without them, and from then on two halves of the
//! clients take turns, each waiting for the rest of one sync and for another; one that waits takes all of them.
//! (PostgreSQL's `commit_delay` waits for a time that its user has to guess.)

use std::time::Duration;

/// A sync waits for at most this part of what the last one took: so long may the disk be without work.
const PART: u32 = 20;
/// What takes less than this is no disk.
const LEAST: Duration = Duration::from_micros(20);

/// Whom the last sync let go, and how long it took.
#[derive(Default, Debug)]
pub(crate) struct Gather {
    away: usize,
    took: Duration,
}

impl Gather {
    /// A sync has ended that `clients` had waited for.
    pub fn ended(&mut self, clients: usize, took: Duration) {
        (self.away, self.took) = (clients, took);
    }

    /// A commit waits for a sync.
    pub fn came(&mut self) {
        self.away = self.away.saturating_sub(1);
    }

    /// A sync begins: who is not back by now is not waited for any more.
    pub fn over(&mut self) {
        self.away = 0;
    }

    /// How long a sync that could begin now waits. `None`: not at all.
    pub fn patience(&self) -> Option<Duration> {
        (self.away > 0 && self.took >= LEAST).then_some(self.took / PART)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Duration = Duration::from_millis(4);

    #[test]
    fn a_sync_waits_until_all_are_back() {
        let mut gather = Gather::default();
        assert_eq!(gather.patience(), None, "nobody was let go yet");
        gather.ended(2, SLOW);
        assert_eq!(gather.patience(), Some(SLOW / PART));
        gather.came();
        assert_eq!(gather.patience(), Some(SLOW / PART));
        gather.came();
        assert_eq!(gather.patience(), None);
        gather.came();
        assert_eq!(gather.patience(), None, "somebody new is not waited for");
    }

    #[test]
    fn who_stays_away_is_waited_for_once() {
        let mut gather = Gather::default();
        gather.ended(3, SLOW);
        gather.over();
        assert_eq!(gather.patience(), None);
    }

    #[test]
    fn what_costs_nothing_is_not_shared() {
        let mut gather = Gather::default();
        gather.ended(63, LEAST / 2);
        assert_eq!(gather.patience(), None);
    }
}
