//! Reads a whole table by position and reports every place that is not what was written there.

use crate::cache::Cache;
use crate::cursor::Cursor;
use crate::error::{Error, Result};
use crate::fs::File;
use crate::key::{self, Kind, Trailer};
use crate::table::cursor::TableCursor;
use crate::table::format::Properties;
use crate::table::reader::{ReadOptions, Table};
use std::cmp::Ordering;
use std::path::Path;
use std::sync::Arc;

/// Verifies the table in `file`, which has the given id and length: each section and each block, and
/// what they say of each other. Every place that is damaged is told to `report`; a damaged footer
/// or index hides what is behind. Answers the properties, if they can be read.
///
/// Holds the table's index and filter in memory, and one block.
pub(crate) fn verify(
    file: Arc<dyn File>,
    path: &Path,
    (id, size): (u64, u64),
    cache: &Arc<Cache>,
    report: &mut dyn FnMut(Error),
) -> Option<Properties> {
    let mut whole = true;
    let mut lacking = |e| {
        whole = false;
        report(e);
        Ok(())
    };
    let options = ReadOptions { mapped: false };
    let table = match Table::open_without(file, path, id, size, options, cache, &mut lacking) {
        Ok(table) => Arc::new(table),
        Err(e) => {
            report(e);
            return None;
        }
    };
    table.check(whole, report);
    whole.then(|| table.properties().clone())
}

/// What was counted in the blocks that could be read.
#[derive(Default)]
struct Counted {
    entries: u64,
    deletes: u64,
    raw_bytes: u64,
    /// The last entry.
    last: Option<(Vec<u8>, Trailer)>,
}

impl Table {
    /// The first thing that is wrong with it.
    #[cfg(any(test, fuzzing))]
    pub fn verify(self: &Arc<Table>) -> Result<()> {
        let mut first = Ok(());
        self.check(true, &mut |e| {
            if first.is_ok() {
                first = Err(e);
            }
        });
        first
    }

    /// Reads every block by position and holds it against everything else the table says, if that
    /// is `whole`: order, filter, properties.
    fn check(self: &Arc<Table>, mut whole: bool, report: &mut dyn FnMut(Error)) {
        let mut cursor = TableCursor::streaming(self.clone());
        let mut counted = Counted::default();
        let parts = whole;
        for no in 0..self.index().len() {
            if let Err(e) = self.check_block(no, &mut cursor, parts, &mut counted) {
                report(self.at_block(e, no));
                // The next block is compared with the index only.
                counted.last = None;
                whole = false;
            }
        }
        let properties = self.properties();
        let range_deletes = self.tombstones().deletes().count() as u64;
        let counts = (counted.entries, counted.deletes, counted.raw_bytes, range_deletes);
        let said = (properties.entries, properties.deletes, properties.raw_bytes, properties.range_deletes);
        if whole && counts != said {
            report(self.at_block(Error::corruption("a table's properties do not add up"), 0));
        }
    }

    /// The first thing that is wrong with block `no`.
    fn check_block(
        &self,
        no: usize,
        cursor: &mut TableCursor,
        parts: bool,
        counted: &mut Counted,
    ) -> Result<()> {
        let properties = self.properties();
        let wrong = |what: &str| Err(Error::corruption(what));
        let rows = cursor.first_of(no)?;
        for row in 0..rows {
            if row > 0 {
                cursor.step(row);
            }
            let (key, trailer) = (cursor.key(), cursor.trailer());
            let last = counted.last.as_ref();
            let in_order = last.is_none_or(|l| key::compare((&l.0, l.1), (key, trailer)).is_lt());
            let before = no.checked_sub(1).is_none_or(|before| self.index().compare(before, key).is_le());
            if !in_order || !before || self.index().compare(no, key) == Ordering::Less {
                return wrong("keys of a table are out of order");
            }
            let inside = *properties.smallest <= *key && properties.end.as_ref().is_none_or(|e| **e > *key);
            let numbers = properties.min_seq..=properties.max_seq;
            if parts && !(inside && numbers.contains(&trailer.seq())) {
                return wrong("a key of a table is outside of its bounds");
            }
            let hash = key::hash(key);
            let found = cursor.block().find(key, hash, trailer.seq());
            if !self.may_contain(hash) || found != Some(cursor.row()) {
                return wrong("a key of a table cannot be found");
            }
            counted.entries += 1;
            counted.deletes += u64::from(trailer.kind() == Kind::Delete);
            counted.raw_bytes += (key.len() + cursor.value().len()) as u64;
            match &mut counted.last {
                Some((last, before)) => {
                    last.clear();
                    last.extend_from_slice(key);
                    *before = trailer;
                }
                none => *none = Some((key.to_vec(), trailer)),
            }
        }
        Ok(())
    }
}
