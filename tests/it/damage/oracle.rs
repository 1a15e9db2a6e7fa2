//! What must come of damage to the journal, worked out from the rules in DESIGN.md ("Torn tail or
//! damage") and from the bytes as they were written: nothing is trusted that is not, byte for byte,
//! what was put there.

use super::anatomy::{Anatomy, LogOnly, Segment};
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    /// A witness has survived what it vouches for, or a segment says that it was harmed.
    Refused,
    /// Open, with all commits whose first sequence number is below.
    Before(u64),
    /// Open, with all commits.
    Whole,
}

/// Whether the bytes at `range` of a segment, now found as `now`, are those that were written.
fn intact(segment: &Segment, now: &[u8], range: std::ops::Range<usize>) -> bool {
    now.get(range.clone()) == segment.bytes.get(range)
}

fn header_is_intact(segment: &Segment, now: &[u8]) -> bool {
    intact(segment, now, 0..84) || intact(segment, now, 4096..4180)
}

/// How far the slots of the hint vouch that are found in `now` as they were.
fn hint(whole: &[u8], now: &[u8]) -> u64 {
    let slot = |at: usize| {
        let slot = whole.get(at..at + 32).filter(|slot| now.get(at..at + 32) == Some(slot))?;
        slot.starts_with(b"EHNT").then(|| u64::from_le_bytes(slot[24..].try_into().unwrap()))
    };
    slot(0).max(slot(512)).unwrap_or(0)
}

impl Anatomy {
    /// With the files as `now` shows them; the manifest and all tables are unharmed.
    pub fn expect<'b>(&self, now: &dyn Fn(&Path) -> Option<&'b [u8]>) -> Expect {
        // What they hold is looked at when it is read, or when their footers are made again.
        let cut = |(path, segment): (&PathBuf, &LogOnly)| {
            now(path).is_none_or(|bytes| (bytes.len() as u64) < segment.len)
        };
        if self.named.log_only.iter().any(cut) {
            return Expect::Refused;
        }
        let Some(sealed_end) = self.sealed_is_whole(now) else { return Expect::Refused };
        let open = |path: &Path| self.named.segments.get(path) == Some(&None);
        for path in self.named.segments.keys().filter(|path| open(path)) {
            let len = now(path).unwrap_or_default().len();
            let segment = self.journal.iter().find(|s| s.path == *path);
            let least = segment.filter(|s| header_is_intact(s, now(path).unwrap_or_default()));
            if len < least.map_or(8192, |s| s.capacity) {
                return Expect::Refused;
            }
        }
        // The chain, up to the first place where something is wrong.
        let (mut end, mut broken) = (sealed_end, None);
        let slots = self.files.iter().find(|f| f.kind() == "hint");
        let hint = slots.map_or(0, |f| hint(&f.bytes, now(&f.path).unwrap_or_default()));
        let mut vouched = self.named.durable.max(hint);
        for segment in self.journal.iter().filter(|s| open(&s.path)) {
            let bytes = now(&segment.path).unwrap_or_default();
            let headed = header_is_intact(segment, bytes);
            if headed {
                vouched = vouched.max(segment.durable);
            }
            if headed && segment.start <= end && broken.is_none() {
                end = segment.start + 8192;
            } else {
                broken.get_or_insert(segment.records.first().and_then(|r| r.batch));
            }
            for record in &segment.records {
                let whole = intact(segment, bytes, record.range.clone());
                if broken.is_none() && whole {
                    end = segment.start + record.range.end as u64;
                }
                if !whole && broken.is_none() {
                    broken = Some(record.batch);
                }
                if let Some(first) = broken.as_mut()
                    && first.is_none()
                {
                    // A mark holds no commit: the next batch is the first that is gone.
                    *first = record.batch;
                }
                // The manifest knows the salt of those whose header is gone.
                if intact(segment, bytes, record.range.start..record.range.start + 32) {
                    vouched = vouched.max(record.watermark);
                }
            }
        }
        match broken {
            _ if vouched > end => Expect::Refused,
            Some(Some(first)) => Expect::Before(first),
            _ => Expect::Whole,
        }
    }

    /// Where the sealed part ends, if all of it is there.
    fn sealed_is_whole<'b>(&self, now: &dyn Fn(&Path) -> Option<&'b [u8]>) -> Option<u64> {
        for (path, sealed) in &self.named.segments {
            let bytes = now(path)?;
            let Some((from, to)) = sealed.filter(|(from, to)| from != to) else { continue };
            let segment = self.journal.iter().find(|s| s.path == *path)?;
            let len = (to - from) as usize;
            let records = segment.records.iter().filter(|r| r.range.end <= len);
            let whole = records.into_iter().all(|r| intact(segment, bytes, r.range.clone()));
            if !whole || bytes.len() < len || !header_is_intact(segment, bytes) {
                return None;
            }
        }
        Some(self.named.sealed_end)
    }
}
