//! Logs in scripts: what batches do to them, and everything that can be read of one, now and at a snapshot.

use super::LogWrite;
use super::machine::{Changes, Machine, Result, same};
use crate::model::{Change, LOGS, LogChange, ModelLog, ModelLogs};
use esker::{Batch, ErrorKind, LogEntry, TagRun};
use std::hash::Hash;
use std::ops::Range;

/// So many logs.
pub const NUMBERS: u64 = 4;

/// The read verbs, which a log and a log at a snapshot share.
trait Reads {
    fn bounds(&self) -> esker::Result<Range<u64>>;
    fn tag(&self, index: u64) -> esker::Result<Option<u64>>;
    fn tag_runs(&self, range: Range<u64>) -> esker::Result<Vec<TagRun>>;
    fn get(&self, index: u64) -> esker::Result<Option<LogEntry>>;
    fn range(&self, range: Range<u64>) -> esker::Entries;
    fn read(&self, range: Range<u64>, bytes: usize) -> esker::Result<Vec<LogEntry>>;
}

macro_rules! reads {
    ($($name:ty),*) => {$(
        impl Reads for $name {
            fn bounds(&self) -> esker::Result<Range<u64>> {
                <$name>::bounds(self)
            }
            fn tag(&self, index: u64) -> esker::Result<Option<u64>> {
                <$name>::tag(self, index)
            }
            fn tag_runs(&self, range: Range<u64>) -> esker::Result<Vec<TagRun>> {
                <$name>::tag_runs(self, range)
            }
            fn get(&self, index: u64) -> esker::Result<Option<LogEntry>> {
                <$name>::get(self, index)
            }
            fn range(&self, range: Range<u64>) -> esker::Entries {
                <$name>::range(self, range)
            }
            fn read(&self, range: Range<u64>, bytes: usize) -> esker::Result<Vec<LogEntry>> {
                <$name>::read(self, range, bytes)
            }
        }
    )*};
}
reads!(esker::Log, esker::LogView);

/// What a read shows: of an entry that was cut off since, that it is gone.
type Shown<T> = std::result::Result<T, ErrorKind>;

fn shown<T>(read: esker::Result<T>) -> Result<Shown<T>> {
    match read {
        Ok(read) => Ok(Ok(read)),
        Err(e) if e.kind() == ErrorKind::Gone => Ok(Err(ErrorKind::Gone)),
        Err(e) => Err(e.into()),
    }
}

type Row = (u64, u64, Vec<u8>);

fn row(entry: LogEntry) -> Row {
    (entry.index(), entry.tag(), entry.into_value().into_vec())
}

impl Machine {
    /// Made, or dropped.
    pub(super) fn make_logs(&mut self, there: bool) -> Result<()> {
        if self.logs.is_some() == there {
            return Ok(());
        }
        if there {
            self.logs = Some(self.db().logs(LOGS)?);
        } else {
            self.logs = None;
            self.db().drop_logs(LOGS)?;
        }
        self.committed(vec![Change::Logs(there)], 1)
    }

    /// Puts an operation on a log into a batch, if there are logs.
    pub(super) fn fill_log(&self, batch: &mut Batch, changes: &mut Changes, id: u64, write: &LogWrite) {
        let (Some(logs), Some(now)) = (&self.logs, self.model.logs(self.model.now())) else { return };
        let (log, then) = (logs.log(id), now.log(id).next());
        let sim = changes.logs.get_or_insert_with(|| now.clone());
        let (first, next) = (sim.log(id).first, sim.log(id).next());
        let before = batch.len();
        let change = match write {
            LogWrite::Push(tag, bytes) => {
                batch.push(&log, *tag, bytes);
                changes.pushed.push(next);
                LogChange::Append(next, *tag, bytes.clone())
            }
            LogWrite::Append(off, tag, bytes) => {
                let index = next.saturating_add_signed(*off);
                batch.append(&log, index, *tag, bytes);
                LogChange::Append(index, *tag, bytes.clone())
            }
            LogWrite::Truncate(back) => {
                let from = next.saturating_sub(*back);
                batch.truncate(&log, from);
                LogChange::Truncate(from)
            }
            LogWrite::Purge(n) => {
                batch.purge(&log, first + n);
                LogChange::Purge(first + n)
            }
            LogWrite::Reset(to, tag) => {
                batch.reset(&log, *to, *tag);
                LogChange::Reset(*to, *tag)
            }
            LogWrite::Remove => {
                batch.remove(&log);
                LogChange::Remove
            }
            LogWrite::RequireNext(off) => {
                // Against the state before the batch.
                let next = then.saturating_add_signed(*off);
                batch.require_next(&log, next);
                changes.conflict |= next != then;
                return;
            }
        };
        changes.conflict |= !sim.apply(id, &change, 0);
        // Entries of one log that follow each other are one operation.
        changes.operations += (batch.len() - before) as u64;
        changes.list.push(Change::Log(id, change));
    }

    /// Reads all there is to a log, now or at the snapshot in a slot.
    pub(super) fn read_log(&mut self, id: u64, slot: Option<usize>) -> Result<()> {
        let now = self.model.logs(self.model.now());
        let Some(slot) = slot else {
            let (Some(logs), Some(now)) = (&self.logs, now) else { return Ok(()) };
            check(&logs.log(id), id, now, Some(now))?;
            now.log(id).next().hash(&mut self.answers);
            return Ok(());
        };
        let Some(kept) = &self.kept[slot] else { return Ok(()) };
        let (Some(logs), Some(then)) = (&kept.logs, self.model.logs(kept.at)) else { return Ok(()) };
        let next = check(&logs.log(id).at(&kept.snapshot), id, then, now);
        next?.hash(&mut self.answers);
        Ok(())
    }

    /// Reads all logs, now and at every snapshot.
    pub(super) fn check_logs(&self) -> Result<()> {
        let now = self.model.logs(self.model.now());
        if let (Some(logs), Some(now)) = (&self.logs, now) {
            let found =
                logs.iter().map(|log| log.map(|log| log.id())).collect::<esker::Result<Vec<u64>>>()?;
            same(&found, &now.logs.keys().copied().collect(), "the logs there are")?;
            (0..NUMBERS).try_for_each(|id| check(&logs.log(id), id, now, Some(now)).map(drop))?;
        }
        for kept in self.kept.iter().flatten() {
            let (Some(logs), Some(then)) = (&kept.logs, self.model.logs(kept.at)) else { continue };
            for id in 0..NUMBERS {
                check(&logs.log(id).at(&kept.snapshot), id, then, now)?;
            }
        }
        Ok(())
    }
}

/// Reads a log in every way. It is as it was `then`; what of it is there no more `now` is gone. Answers how
/// much of it there is.
fn check(log: &dyn Reads, id: u64, then: &ModelLogs, now: Option<&ModelLogs>) -> Result<usize> {
    let what = |what: &str| format!("{what} of log {id}");
    let (same_made, now) = match now {
        Some(now) => (now.made == then.made, now.log(id)),
        None => (false, ModelLog::default()),
    };
    let then = then.log(id);
    let (first, next) = (then.first, then.next());
    let is_there = |index| same_made && now.entry(index) == then.entry(index);
    let all: Vec<Shown<Row>> = (first..next)
        .zip(&then.entries)
        .map(
            |(index, e)| {
                if is_there(index) { Ok((index, e.tag, e.bytes.to_vec())) } else { Err(ErrorKind::Gone) }
            },
        )
        .collect();
    same(&log.bounds()?, &(first..next), what("bounds"))?;
    for index in first.saturating_sub(2)..next + 2 {
        // The tags at the ends are kept.
        let kept = index + 1 == next || !(first..next).contains(&index) || is_there(index);
        let expected = if kept { Ok(then.tag(index)) } else { Err(ErrorKind::Gone) };
        same(&shown(log.tag(index))?, &expected, what(&format!("tag {index}")))?;
        let at = index.checked_sub(first).and_then(|at| all.get(at as usize).cloned());
        same(&shown(log.get(index))?.map(|e| e.map(row)), &at.transpose(), what(&format!("entry {index}")))?;
    }
    // A walk ends with the first entry that is gone.
    let upto = |rows: &mut dyn Iterator<Item = &Shown<Row>>| {
        let mut expected = Vec::new();
        for row in rows {
            expected.push(row.clone());
            if row.is_err() {
                break;
            }
        }
        expected
    };
    let walk = |entries: &mut dyn Iterator<Item = esker::Result<LogEntry>>| {
        entries.map(|e| shown(e).map(|e| e.map(row))).collect::<Result<Vec<Shown<Row>>>>()
    };
    same(&walk(&mut log.range(0..u64::MAX))?, &upto(&mut all.iter()), what("the entries"))?;
    same(
        &walk(&mut log.range(first..next).rev())?,
        &upto(&mut all.iter().rev()),
        what("the entries, backward"),
    )?;
    let (from, to) = (first + all.len() as u64 / 3, next - all.len() as u64 / 4);
    let some = &all[(from - first) as usize..(to - first) as usize];
    same(&walk(&mut log.range(from..to))?, &upto(&mut some.iter()), what("some entries"))?;
    // As much as fits, or one.
    let mut expected = Ok(Vec::new());
    let mut bytes = 0;
    for row in some {
        let (Ok(rows), Ok(row)) = (&mut expected, row) else {
            expected = Err(ErrorKind::Gone);
            break;
        };
        bytes += row.2.len();
        if bytes > 300 && !rows.is_empty() {
            break;
        }
        rows.push(row.clone());
    }
    let read = shown(log.read(from..to, 300))?.map(|read| read.into_iter().map(row).collect::<Vec<_>>());
    same(&read, &expected, what("what is read"))?;
    let tags = shown(log.tag_runs(first..next))?.map(|runs| {
        let apart =
            runs.windows(2).all(|two| two[0].tag != two[1].tag && two[0].range.end == two[1].range.start);
        let tags = runs.iter().flat_map(|run| run.range.clone().map(|index| (index, run.tag)));
        (apart, tags.collect::<Vec<_>>())
    });
    let expected = all.iter().map(|row| row.clone().map(|(index, tag, _)| (index, tag)));
    let expected = expected.collect::<Shown<Vec<_>>>().map(|tags| (true, tags));
    same(&tags, &expected, what("tags"))?;
    Ok(all.len())
}
