//! What a snapshot is while it travels: bytes made from a view as they are read, and rows put into a
//! keyspace as they are written.
//!
//! # Format
//!
//! ```text
//! "esksnap2"
//! for each row, by ascending key: key length u32 (1..), value length u32, sum u32 | key | value
//! 0 u32, 0 u32, sum u32
//! ```
//!
//! Numbers are little-endian. A key has the byte before it that tells rows of the application. A sum is the
//! CRC-32 of everything before it but the other sums (behind one of its own sums, a CRC has forgotten what
//! came before): no length is believed that was damaged, and damage ends a transfer at the next row.

mod receive;
mod send;

use crate::Transfer;
use esker::{Keyspace, KeyspaceView};
use receive::Receiver;
use send::Sender;
use std::io::{self, SeekFrom};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::{error, fmt};
use tokio::io::{AsyncRead, AsyncSeek, AsyncWrite, ReadBuf};

const MAGIC: &[u8; 8] = b"esksnap2";
/// Bytes before a row: its lengths, and a sum.
const HEAD: usize = 12;

/// The sum of a stream as far as it has come.
#[derive(Clone, Copy, Default)]
struct Sum(u32);

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
        hasher.update(bytes);
        self.0 = hasher.finalize();
    }

    /// What stands before a row of these lengths; two zeros are the end.
    fn head(&mut self, key_len: u32, value_len: u32) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&key_len.to_le_bytes());
        head[4..8].copy_from_slice(&value_len.to_le_bytes());
        self.add(&head[..8]);
        head[8..].copy_from_slice(&self.0.to_le_bytes());
        head
    }
}

/// Why the bytes that were received are no snapshot. It is inside of the [`io::Error`] that writing them
/// fails with, and shutting down behind the last of them; nothing of theirs reaches the state. Written
/// again from their beginning they are looked at anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SnapshotError {
    /// They do not begin as snapshots of this version do.
    Foreign,
    /// They are not what was sent, up to `at` or there.
    Damaged {
        /// Where a row begins, or the end.
        at: u64,
    },
    /// What is written begins behind `at`, where those before end.
    Missing {
        /// Where they go on.
        at: u64,
    },
    /// They end before their end.
    Truncated {
        /// Where.
        at: u64,
    },
    /// There are more behind their end.
    Trailing {
        /// Where that is.
        at: u64,
    },
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotError::Foreign => f.write_str("this is no snapshot that this version knows"),
            SnapshotError::Damaged { at } => write!(f, "the snapshot is damaged at or before byte {at}"),
            SnapshotError::Missing { at } => write!(f, "byte {at} of the snapshot is missing"),
            SnapshotError::Truncated { at } => write!(f, "the snapshot ends early, at byte {at}"),
            SnapshotError::Trailing { at } => {
                write!(f, "bytes behind the end of the snapshot, which is at {at}")
            }
        }
    }
}

impl error::Error for SnapshotError {}

impl From<SnapshotError> for io::Error {
    fn from(e: SnapshotError) -> io::Error {
        let kind = match e {
            SnapshotError::Truncated { .. } => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, e)
    }
}

/// A snapshot on its way: openraft's `SnapshotData`. What is sent is read from a view of the state, row
/// by row; what is received goes to a keyspace of its own, row by row. Neither is in memory as a whole.
pub struct SnapshotData(Inner);

enum Inner {
    Sending(Box<Sender>),
    Receiving(Box<Receiver>),
}

impl SnapshotData {
    pub(crate) fn sending(view: KeyspaceView) -> SnapshotData {
        SnapshotData(Inner::Sending(Box::new(Sender::new(view))))
    }

    pub(crate) fn receiving(staging: Keyspace, transfer: Transfer) -> SnapshotData {
        SnapshotData(Inner::Receiving(Box::new(Receiver::new(staging, transfer))))
    }

    /// The keyspace with all rows; `fresh` makes it if this is a snapshot that was never sent.
    pub(crate) fn finish(
        self,
        fresh: impl FnOnce() -> esker::Result<(Keyspace, Transfer)>,
    ) -> io::Result<Keyspace> {
        match self.0 {
            Inner::Receiving(receiver) => receiver.finish(),
            Inner::Sending(mut sender) => {
                let (staging, transfer) = fresh()?;
                let mut receiver = Receiver::new(staging, transfer);
                sender.pos = 0;
                loop {
                    let bytes = sender.bytes()?;
                    if bytes.is_empty() {
                        return receiver.finish();
                    }
                    let n = bytes.len();
                    receiver.write(bytes)?;
                    sender.pos += n as u64;
                }
            }
        }
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

    /// Refuses to be the end if the bytes have none: openraft then answers the sender, where an install
    /// that fails stops the node.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match &self.0 {
            Inner::Sending(_) => Ok(()),
            Inner::Receiving(receiver) => receiver.whole().map_err(io::Error::from),
        })
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
