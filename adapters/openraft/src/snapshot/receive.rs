//! A snapshot from bytes: rows are put into a keyspace as they come, and nobody looks at it before all have.

use super::{HEAD, MAGIC, SnapshotError, Sum};
use crate::Transfer;
use crate::state::DATA;
use esker::{Batch, Durability, Keyspace, MAX_KEY_LEN, MAX_VALUE_LEN};
use std::io;

/// Bytes of rows in a batch.
const BATCH: usize = 1 << 20;

/// A snapshot that is received.
pub(super) struct Receiver {
    staging: Keyspace,
    _transfer: Transfer,
    batch: Batch,
    /// Where the next byte is written, and how many there are.
    pub(super) pos: u64,
    pub(super) len: u64,
    /// Of a row that is not whole yet: never more than the largest row and what is written at a time.
    left: Vec<u8>,
    /// Of the rows that are whole.
    sum: Sum,
    begun: bool,
    ended: bool,
    refused: Option<SnapshotError>,
}

impl Receiver {
    pub(super) fn new(staging: Keyspace, transfer: Transfer) -> Receiver {
        let batch = staging.db().batch();
        Receiver {
            staging,
            _transfer: transfer,
            batch,
            pos: 0,
            len: 0,
            left: Vec::new(),
            sum: Sum::default(),
            begun: false,
            ended: false,
            refused: None,
        }
    }

    /// Takes bytes at `pos`; those that were taken before are skipped. Bytes that are no snapshot are
    /// refused, and so is everything behind them, until somebody begins again.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.refused {
            Some(_) if self.pos == 0 => self.start_over()?,
            Some(e) => return Err(e.into()),
            None => {}
        }
        let Some(had) = self.len.checked_sub(self.pos) else {
            return Err(SnapshotError::Missing { at: self.len }.into());
        };
        let new = usize::try_from(had).ok().and_then(|had| bytes.get(had..)).unwrap_or_default();
        self.pos += bytes.len() as u64;
        self.len = self.len.max(self.pos);
        self.left.extend_from_slice(new);
        let mut left = std::mem::take(&mut self.left);
        let mut rest = &left[..];
        let taken = self.rows(&mut rest);
        let used = left.len() - rest.len();
        left.drain(..used);
        self.left = left;
        taken
    }

    /// Forgets everything: the sender begins again.
    fn start_over(&mut self) -> io::Result<()> {
        self.batch.clear();
        self.batch.clear_keyspace(&self.staging).commit_with(Durability::Buffered)?;
        self.left.clear();
        (self.len, self.sum, self.begun, self.ended, self.refused) = (0, Sum::default(), false, false, None);
        Ok(())
    }

    /// Takes the whole rows off the front of `rest`.
    fn rows(&mut self, rest: &mut &[u8]) -> io::Result<()> {
        loop {
            match self.row(rest) {
                Ok(true) if self.batch.bytes() >= BATCH => self.commit()?,
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(e) => {
                    self.refused = Some(e);
                    return Err(e.into());
                }
            }
        }
    }

    /// Takes the magic, a row or the end off the front of `rest`, if it is whole.
    fn row(&mut self, rest: &mut &[u8]) -> Result<bool, SnapshotError> {
        let at = self.len - rest.len() as u64;
        if !self.begun {
            let known = rest.len().min(MAGIC.len());
            if rest[..known] != MAGIC[..known] {
                return Err(SnapshotError::Foreign);
            }
            let Some(behind) = rest.strip_prefix(MAGIC) else { return Ok(false) };
            self.sum.add(MAGIC);
            (self.begun, *rest) = (true, behind);
            return Ok(true);
        }
        if self.ended {
            return if rest.is_empty() { Ok(false) } else { Err(SnapshotError::Trailing { at }) };
        }
        let Some((head, behind)) = rest.split_first_chunk::<HEAD>() else { return Ok(false) };
        let [k0, k1, k2, k3, v0, v1, v2, v3, ..] = *head;
        let (key_len, value_len) =
            (u32::from_le_bytes([k0, k1, k2, k3]), u32::from_le_bytes([v0, v1, v2, v3]));
        let mut sum = self.sum;
        if *head != sum.head(key_len, value_len) {
            return Err(SnapshotError::Damaged { at });
        }
        if (key_len, value_len) == (0, 0) {
            (self.ended, *rest) = (true, behind);
            return Ok(true);
        }
        let (key_len, value_len) = (key_len as usize, value_len as usize);
        // Before any of it is waited for, so that no more than a row is ever held.
        if key_len == 0 || key_len > MAX_KEY_LEN || value_len > MAX_VALUE_LEN {
            return Err(SnapshotError::Damaged { at });
        }
        let Some((key, behind)) = behind.split_at_checked(key_len) else { return Ok(false) };
        let Some((value, behind)) = behind.split_at_checked(value_len) else { return Ok(false) };
        if key.first() != Some(&DATA) {
            return Err(SnapshotError::Damaged { at });
        }
        sum.add(key);
        sum.add(value);
        self.batch.put(&self.staging, key, value);
        (self.sum, *rest) = (sum, behind);
        Ok(true)
    }

    fn commit(&mut self) -> io::Result<()> {
        if !self.batch.is_empty() {
            self.batch.commit_with(Durability::Buffered)?;
        }
        Ok(())
    }

    /// An error unless all of it is there.
    pub(super) fn whole(&self) -> Result<(), SnapshotError> {
        match self.refused {
            Some(e) => Err(e),
            None if !self.ended => Err(SnapshotError::Truncated { at: self.len }),
            None => Ok(()),
        }
    }

    /// The keyspace with all rows.
    pub(super) fn finish(mut self) -> io::Result<Keyspace> {
        self.whole()?;
        self.commit()?;
        Ok(self.staging)
    }
}
