//! Tickets and watches: what is told of commits, and when.

use super::Write;
use super::machine::{Machine, Result, same};
use esker::Seq;
use std::time::Duration;

impl Machine {
    pub(super) fn submit(&mut self, slot: usize, writes: &[Write]) -> Result<()> {
        let mut batch = self.db().batch();
        let changes = self.fill(&mut batch, writes);
        if changes.bad || changes.operations == 0 {
            return Ok(());
        }
        if changes.conflict {
            return self.conflicts(|| batch.submit());
        }
        let ticket = batch.submit()?;
        self.committed(changes.list, changes.operations)?;
        same(&ticket.seq(), &self.db().visible_seq(), "a ticket's number")?;
        self.tickets[slot] = Some(ticket);
        Ok(())
    }

    pub(super) fn wait(&mut self, slot: usize) -> Result<()> {
        let Some(ticket) = self.tickets[slot].take() else { return Ok(()) };
        same(&ticket.wait()?, &ticket.seq(), "what a ticket waited for")?;
        same(&(self.db().durable_seq() >= ticket.seq()), &true, "durable after waiting")?;
        same(&ticket.is_done(), &true, "a ticket that was waited for")
    }

    /// A watch tells of each state once, and of the newest.
    pub(super) fn ask_watch(&mut self, durable: bool) -> Result<()> {
        let newest = |m: &Machine| if durable { m.db().durable_seq() } else { m.db().visible_seq() };
        let before = newest(self);
        let (watch, told) = &mut self.watches[usize::from(durable)];
        let last: Option<Seq> = *told;
        let watch = watch.as_mut().expect("watches while it is open");
        let found = watch.wait_timeout(Duration::ZERO)?;
        *told = found.or(last);
        let after = newest(self);
        match found {
            // The sync thread may have made more durable meanwhile.
            Some(seq) => same(
                &((before..=after).contains(&seq) && last.is_none_or(|last| last < seq)),
                &true,
                format_args!("told {seq} after {last:?}, newest {before} to {after}"),
            ),
            None => same(&last.is_some_and(|last| last >= before), &true, "nothing new to tell"),
        }
    }
}
