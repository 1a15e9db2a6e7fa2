//! What a snapshot is while it travels: bytes made from a view as they are read, and rows put into a
//! keyspace as they are written.
//!
//! # Format
//!
//! ```text
//! "esksnap1"
//! for each row, by ascending key: key length u32 (1..), value length u32 | key | value
//! 0 u32, 0 u32 | rows u64
//! ```
//!
//! Numbers are little-endian. A key has the byte before it that tells rows of the application.

use crate::state::DATA;
use esker::{Batch, Durability, Iter, Keyspace, KeyspaceView, MAX_KEY_LEN, MAX_VALUE_LEN, Prefix};
use std::io::{self, SeekFrom};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncSeek, AsyncWrite, ReadBuf};

const MAGIC: &[u8; 8] = b"esksnap1";
/// Bytes before a row.
const HEAD: usize = 8;
/// Bytes made at a time.
const CHUNK: usize = 64 << 10;
/// Bytes between places from which reading can go on.
const STRIDE: u64 = 4 << 20;
/// Bytes of rows in a batch.
const BATCH: usize = 1 << 20;

/// A snapshot on its way: openraft's `SnapshotData`. What is sent is read from a view of the state, row
/// by row; what is received goes to a keyspace of its own, row by row. Neither is in memory as a whole.
pub struct SnapshotData(Inner);

enum Inner {
    Sending(Box<Sender>),
    Receiving(Box<Receiver>),
}

/// Where the bytes of a row begin.
struct Place {
    at: u64,
    rows: u64,
    key: Vec<u8>,
}

struct Sender {
    view: KeyspaceView,
    /// Where the next byte is read.
    pos: u64,
    /// Made, and not let go of yet.
    made: Vec<u8>,
    made_at: u64,
    rows: u64,
    iter: Option<Iter>,
    ended: bool,
    places: Vec<Place>,
    len: Option<u64>,
}

struct Receiver {
    staging: Keyspace,
    batch: Batch,
    /// Where the next byte is written, and how many there are.
    pos: u64,
    len: u64,
    /// Of a row that is not whole yet.
    left: Vec<u8>,
    begun: bool,
    rows: u64,
    whole: bool,
}

impl SnapshotData {
    pub(crate) fn sending(view: KeyspaceView) -> SnapshotData {
        SnapshotData(Inner::Sending(Box::new(Sender {
            view,
            pos: 0,
            made: Vec::new(),
            made_at: 0,
            rows: 0,
            iter: None,
            ended: false,
            places: Vec::new(),
            len: None,
        })))
    }

    pub(crate) fn receiving(staging: Keyspace) -> SnapshotData {
        let batch = staging.db().batch();
        SnapshotData(Inner::Receiving(Box::new(Receiver {
            staging,
            batch,
            pos: 0,
            len: 0,
            left: Vec::new(),
            begun: false,
            rows: 0,
            whole: false,
        })))
    }

    /// The keyspace with all rows; `fresh` makes it if this is a snapshot that was never sent.
    pub(crate) fn finish(self, fresh: impl FnOnce() -> esker::Result<Keyspace>) -> io::Result<Keyspace> {
        let mut receiver = match self.0 {
            Inner::Receiving(receiver) => receiver,
            Inner::Sending(mut sender) => {
                let SnapshotData(Inner::Receiving(mut receiver)) = SnapshotData::receiving(fresh()?) else {
                    return Err(io::ErrorKind::Other.into());
                };
                sender.pos = 0;
                loop {
                    let bytes = sender.bytes()?;
                    if bytes.is_empty() {
                        break;
                    }
                    let n = bytes.len();
                    receiver.write(bytes)?;
                    sender.pos += n as u64;
                }
                receiver
            }
        };
        if !receiver.whole {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the snapshot ends early"));
        }
        receiver.commit()?;
        Ok(receiver.staging)
    }
}

fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

impl Sender {
    /// The bytes from `pos` on that are there now; makes some if there are none. Empty: the end.
    fn bytes(&mut self) -> io::Result<&[u8]> {
        if self.pos < self.made_at || self.pos > self.made_at + self.made.len() as u64 {
            self.go_to(self.pos);
        }
        while self.pos >= self.made_at + self.made.len() as u64 && !self.ended {
            self.make()?;
        }
        let from = usize::try_from(self.pos - self.made_at).unwrap_or(usize::MAX);
        Ok(self.made.get(from..).unwrap_or_default())
    }

    /// Goes on from the last known place at or before `pos`.
    fn go_to(&mut self, pos: u64) {
        let place = self.places.iter().rfind(|place| place.at <= pos);
        let (at, rows) = place.map_or((0, 0), |place| (place.at, place.rows));
        self.iter = place.map(|place| self.view.range(place.key.clone()..vec![DATA + 1]));
        (self.made_at, self.rows, self.ended) = (at, rows, false);
        self.made.clear();
    }

    /// Makes some bytes in place of those that are there.
    fn make(&mut self) -> io::Result<()> {
        self.made_at += self.made.len() as u64;
        self.made.clear();
        if self.made_at == 0 {
            self.made.extend_from_slice(MAGIC);
            self.iter = None;
        }
        let iter = self.iter.get_or_insert_with(|| self.view.range(Prefix([DATA])));
        while self.made.len() < CHUNK {
            let Some(row) = iter.next() else {
                self.made.extend_from_slice(&[0; HEAD]);
                self.made.extend_from_slice(&self.rows.to_le_bytes());
                self.ended = true;
                self.len = Some(self.made_at + self.made.len() as u64);
                return Ok(());
            };
            let row = row?;
            let (key, value) = (row.key(), row.value());
            let at = self.made_at + self.made.len() as u64;
            if self.places.last().map_or(0, |place| place.at) + STRIDE <= at {
                self.places.push(Place { at, rows: self.rows, key: key.to_vec() });
            }
            self.made.extend_from_slice(&(key.len() as u32).to_le_bytes());
            self.made.extend_from_slice(&(value.len() as u32).to_le_bytes());
            self.made.extend_from_slice(key);
            self.made.extend_from_slice(value);
            self.rows += 1;
        }
        Ok(())
    }

    /// How many bytes there are: one walk over the view, if that is not known yet.
    fn len(&mut self) -> io::Result<u64> {
        while self.len.is_none() {
            self.make()?;
        }
        Ok(self.len.unwrap_or_default())
    }
}

impl Receiver {
    /// Takes bytes at `pos`; those that were taken before are skipped.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let had =
            self.len.checked_sub(self.pos).ok_or_else(|| invalid("a part of the snapshot is missing"))?;
        let new = usize::try_from(had).ok().and_then(|had| bytes.get(had..)).unwrap_or_default();
        self.pos += bytes.len() as u64;
        self.len = self.len.max(self.pos);
        if self.whole && !new.is_empty() {
            return Err(invalid("bytes behind the end of the snapshot"));
        }
        self.left.extend_from_slice(new);
        let mut left = std::mem::take(&mut self.left);
        let mut rest = &left[..];
        let taken = self.rows(&mut rest);
        let used = left.len() - rest.len();
        left.drain(..used);
        self.left = left;
        taken
    }

    /// Takes the whole rows off the front of `rest`.
    fn rows(&mut self, rest: &mut &[u8]) -> io::Result<()> {
        if !self.begun {
            let Some((magic, behind)) = rest.split_first_chunk() else { return Ok(()) };
            if magic != MAGIC {
                return Err(invalid("this is no snapshot of Esker's"));
            }
            (self.begun, *rest) = (true, behind);
        }
        while let Some((head, behind)) = rest.split_first_chunk::<HEAD>() {
            let [k0, k1, k2, k3, v0, v1, v2, v3] = *head;
            let key_len = u32::from_le_bytes([k0, k1, k2, k3]) as usize;
            let value_len = u32::from_le_bytes([v0, v1, v2, v3]) as usize;
            if key_len == 0 {
                let Some((count, behind)) = behind.split_first_chunk() else { return Ok(()) };
                if u64::from_le_bytes(*count) != self.rows || !behind.is_empty() || value_len != 0 {
                    return Err(invalid("the snapshot does not end as it should"));
                }
                (self.whole, *rest) = (true, behind);
                return Ok(());
            }
            if key_len > MAX_KEY_LEN || value_len > MAX_VALUE_LEN {
                return Err(invalid(format!("a row of {key_len} and {value_len} bytes")));
            }
            let Some((key, behind)) = behind.split_at_checked(key_len) else { return Ok(()) };
            let Some((value, behind)) = behind.split_at_checked(value_len) else { return Ok(()) };
            if key.first() != Some(&DATA) {
                return Err(invalid("a row that is none of the application"));
            }
            self.batch.put(&self.staging, key, value);
            self.rows += 1;
            *rest = behind;
            if self.batch.bytes() >= BATCH {
                self.commit()?;
            }
        }
        Ok(())
    }

    fn commit(&mut self) -> io::Result<()> {
        if !self.batch.is_empty() {
            self.batch.commit_with(Durability::Buffered)?;
        }
        Ok(())
    }
}

fn unsupported(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("a snapshot {what}"))
}

impl AsyncRead for SnapshotData {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Inner::Sending(sender) = &mut self.0 else {
            return Poll::Ready(Err(unsupported("that is received is not read")));
        };
        let bytes = sender.bytes()?;
        let n = bytes.len().min(buf.remaining());
        buf.put_slice(bytes.get(..n).unwrap_or_default());
        sender.pos += n as u64;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SnapshotData {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Inner::Receiving(receiver) = &mut self.0 else {
            return Poll::Ready(Err(unsupported("that is sent is not written")));
        };
        receiver.write(bytes)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncSeek for SnapshotData {
    fn start_seek(mut self: Pin<&mut Self>, to: SeekFrom) -> io::Result<()> {
        let (pos, end) = match &mut self.0 {
            Inner::Sending(sender) => {
                let end = if let SeekFrom::End(_) = to { sender.len()? } else { 0 };
                (&mut sender.pos, end)
            }
            Inner::Receiving(receiver) => (&mut receiver.pos, receiver.len),
        };
        let to = match to {
            SeekFrom::Start(to) => Some(to),
            SeekFrom::End(by) => end.checked_add_signed(by),
            SeekFrom::Current(by) => pos.checked_add_signed(by),
        };
        *pos = to.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(match &self.0 {
            Inner::Sending(sender) => sender.pos,
            Inner::Receiving(receiver) => receiver.pos,
        }))
    }
}
