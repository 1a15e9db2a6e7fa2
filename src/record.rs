//! The framing shared by journal and manifest: one record, its header with a checksum of its own,
//! its payload with another.
//!
//! # Format
//!
//! Records are contiguous, never split, and start at multiples of eight bytes. All numbers are
//! little-endian.
//!
//! ```text
//! offset  size  field
//!      0     4  header checksum: crc32 over bytes 4..32, seeded (see below)
//!      4     4  payload checksum: crc32 over the payload, seeded likewise
//!      8     4  payload length in bytes
//!     12     4  count: operations in the payload
//!     16     8  first sequence number in the low 56 bits, record kind in the high 8
//!     24     8  watermark: a position known to be durable when the record was built
//!     32     -  payload, then zero bytes up to the next multiple of eight
//! ```
//!
//! Both checksums start from a seed made of the file's random salt and the record's offset, so a
//! valid record at the wrong place, in the wrong file, or left by an earlier use of the space is
//! not valid. The header has its own checksum so that a scan for later records (witnesses of
//! damage) costs time linear in the file, whatever lengths the damage claims.

use crate::coding::{u32_at, u64_at};
use crate::ids::Seq;
use crate::mutant::Mutant;

/// The bytes of a record before its payload.
pub(crate) const HEADER_LEN: usize = 32;
/// Where records may start.
pub(crate) const ALIGN: usize = 8;
/// The largest payload.
pub(crate) const MAX_PAYLOAD: usize = 1 << 30;

/// What a record holds. On disk; the numbers never change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum RecordKind {
    /// The operations of one commit (journal).
    Batch = 1,
    /// No operations: only the watermark matters (journal).
    Mark = 2,
    /// A complete state (manifest).
    Snapshot = 3,
    /// A change of the state (manifest).
    Edit = 4,
}

impl RecordKind {
    fn from_u8(n: u8) -> Option<RecordKind> {
        match n {
            1 => Some(RecordKind::Batch),
            2 => Some(RecordKind::Mark),
            3 => Some(RecordKind::Snapshot),
            4 => Some(RecordKind::Edit),
            _ => None,
        }
    }
}

/// What a record says beside its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Meta {
    pub kind: RecordKind,
    pub first_seq: Seq,
    /// Operations in the payload.
    pub count: u32,
    /// A position known to be durable when the record was built.
    pub watermark: u64,
}

/// A valid header, read back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub meta: Meta,
    /// Payload length in bytes.
    pub len: u32,
    payload_crc: u32,
}

/// The space a record with a payload of `len` bytes takes, padding included.
#[inline]
pub(crate) const fn size(len: usize) -> usize {
    (HEADER_LEN + len).next_multiple_of(ALIGN)
}

#[inline]
fn seed(salt: u64, offset: u64) -> u32 {
    // One round of a 64-bit mixer (splitmix64's), so that neighbouring offsets share no pattern.
    let salt = if Mutant::AcceptRecycledRecord.on() { 0 } else { salt };
    let mut x = salt ^ offset.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x ^ (x >> 32)) as u32
}

/// The seeded checksum used for headers, payloads and, by the formats' owners, file headers.
#[inline]
pub(crate) fn checksum(salt: u64, offset: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed(salt, offset));
    hasher.update(bytes);
    hasher.finalize()
}

/// What the checksum of a header covers.
#[inline]
fn covered() -> std::ops::Range<usize> {
    4..if Mutant::HeaderOutsideChecksum.on() { 12 } else { HEADER_LEN }
}

/// The header bytes of a record that will stand at `offset`. The caller writes them, the payload
/// and zero bytes up to [`size`].
#[inline]
pub(crate) fn encode_header(salt: u64, offset: u64, meta: Meta, payload: &[u8]) -> [u8; HEADER_LEN] {
    let Meta { kind, first_seq, count, watermark } = meta;
    debug_assert!(payload.len() <= MAX_PAYLOAD && offset.is_multiple_of(ALIGN as u64));
    let mut h = [0; HEADER_LEN];
    h[4..8].copy_from_slice(&checksum(salt, offset, payload).to_le_bytes());
    h[8..12].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    h[12..16].copy_from_slice(&count.to_le_bytes());
    h[16..24].copy_from_slice(&(first_seq.get() | (kind as u64) << 56).to_le_bytes());
    h[24..32].copy_from_slice(&watermark.to_le_bytes());
    let crc = checksum(salt, offset, &h[covered()]);
    h[..4].copy_from_slice(&crc.to_le_bytes());
    h
}

/// Appends a whole record (header, payload, padding) to `out`.
pub(crate) fn encode(out: &mut Vec<u8>, salt: u64, offset: u64, meta: Meta, payload: &[u8]) {
    let start = out.len();
    out.extend_from_slice(&encode_header(salt, offset, meta, payload));
    out.extend_from_slice(payload);
    out.resize(start + size(payload.len()), 0);
}

/// The header at the start of `bytes` (which stand at `offset` of their file), if its checksum
/// holds and its fields can be. `bytes` may be shorter than the record.
#[inline]
pub(crate) fn decode_header(salt: u64, offset: u64, bytes: &[u8]) -> Option<Header> {
    let h = bytes.get(..HEADER_LEN)?;
    let len = u32_at(h, 8)?;
    let word = u64_at(h, 16)?;
    // Cheap tests first: a scan for witnesses asks this at every eighth byte.
    let kind = RecordKind::from_u8((word >> 56) as u8)?;
    if len as usize > MAX_PAYLOAD || u32_at(h, 0)? != checksum(salt, offset, &h[covered()]) {
        return None;
    }
    Some(Header {
        meta: Meta {
            kind,
            first_seq: Seq::new(word & Seq::MAX.get())?,
            count: u32_at(h, 12)?,
            watermark: u64_at(h, 24)?,
        },
        len,
        payload_crc: u32_at(h, 4)?,
    })
}

/// Where in `bytes` a header may start that says no more to be durable than `most`, every eighth byte looked at: a
/// sieve for who looks for headers in megabytes of anything.
pub(crate) fn candidates(bytes: &[u8], most: u64) -> impl Iterator<Item = usize> {
    bytes.as_chunks::<ALIGN>().0.windows(HEADER_LEN / ALIGN).enumerate().filter_map(move |(i, words)| {
        let [_, _, word, watermark] = words else { return None };
        let kind = word[ALIGN - 1];
        let may_be = RecordKind::from_u8(kind).is_some() && u64::from_le_bytes(*watermark) <= most;
        may_be.then_some(i * ALIGN)
    })
}

impl Header {
    /// Whether `payload` is what was written after this header.
    pub fn matches(&self, salt: u64, offset: u64, payload: &[u8]) -> bool {
        payload.len() == self.len as usize
            && (Mutant::PayloadUnchecked.on() || checksum(salt, offset, payload) == self.payload_crc)
    }
}

/// The record at `offset` of the file whose bytes from `offset` on are `bytes`: header and payload,
/// if both are valid and the padding is zero.
pub(crate) fn decode(salt: u64, offset: u64, bytes: &[u8]) -> Option<(Header, &[u8])> {
    let header = decode_header(salt, offset, bytes)?;
    let whole = bytes.get(..size(header.len as usize))?;
    let (payload, padding) = whole[HEADER_LEN..].split_at(header.len as usize);
    (padding.iter().all(|&b| b == 0) && header.matches(salt, offset, payload)).then_some((header, payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut out = Vec::new();
        let meta = Meta { kind: RecordKind::Batch, first_seq: Seq::new(9).unwrap(), count: 2, watermark: 40 };
        encode(&mut out, 7, 64, meta, b"payload");
        out
    }

    #[test]
    fn comes_back_whole() {
        let bytes = sample();
        assert_eq!(bytes.len(), size(7));
        let (h, payload) = decode(7, 64, &bytes).unwrap();
        let m = h.meta;
        assert_eq!((m.kind, m.count, m.first_seq.get(), m.watermark), (RecordKind::Batch, 2, 9, 40));
        assert_eq!(payload, b"payload");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = sample();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(7, 64, &bad).is_none(), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(decode(7, 64, &bytes[..cut]).is_none(), "cut {cut}");
        }
    }

    #[test]
    fn a_sieve_lets_headers_through() {
        let mut bytes = vec![0xff; 400];
        let record = sample();
        for at in [0, 8, 64, 400 - record.len()] {
            let mut with = bytes.clone();
            with[at..at + record.len()].copy_from_slice(&record);
            assert!(candidates(&with, 40).any(|i| i == at), "{at}");
            // It says that 40 are durable.
            assert!(candidates(&with, 39).all(|i| i != at), "{at}");
        }
        assert_eq!(candidates(&bytes, u64::MAX).count(), 0);
        bytes.truncate(HEADER_LEN - 1);
        assert_eq!(candidates(&bytes, u64::MAX).count(), 0);
    }

    #[test]
    fn is_bound_to_file_and_offset() {
        let bytes = sample();
        assert!(decode(8, 64, &bytes).is_none());
        assert!(decode(7, 72, &bytes).is_none());
    }
}
