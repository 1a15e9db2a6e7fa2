//! Whether a history of reads and writes of one register is linearizable, where all writes differ.
//!
//! A write and the reads of its value form a cluster. They must have taken effect around each other, with
//! no other write between: if the first of them that ended did so before the last began, the register
//! held the value all that time (a forward zone); else some moment in between sufficed (a backward zone).
//! The history is linearizable if and only if no read ended before its write began, no two forward
//! zones overlap, and no backward zone lies within a forward one (Gibbons and Korach, 1997).

use std::collections::BTreeMap;

/// One call on the register. Times are from one clock; `end` is `u64::MAX` if it was never answered.
#[derive(Clone, Debug)]
pub struct Call {
    pub start: u64,
    pub end: u64,
    pub write: bool,
    /// `None`: never written.
    pub value: Option<String>,
}

struct Zone {
    low: u64,
    high: u64,
    forward: bool,
    value: Option<String>,
}

/// An error that says why the calls on `key` are not linearizable.
pub fn linearizable(key: &str, calls: &[Call]) -> Result<(), String> {
    let mut clusters: BTreeMap<Option<&str>, Vec<&Call>> = BTreeMap::new();
    let begin = Call { start: 0, end: 0, write: true, value: None };
    clusters.entry(None).or_default().push(&begin);
    // A read that was never answered says nothing.
    for call in calls.iter().filter(|call| call.write || call.end < u64::MAX) {
        clusters.entry(call.value.as_deref()).or_default().push(call);
    }
    let mut zones = Vec::new();
    for (value, calls) in clusters {
        let Some(write) = calls.iter().find(|call| call.write) else {
            return Err(format!("{key}: {value:?} was read and never written"));
        };
        if let Some(read) = calls.iter().find(|call| call.end < write.start) {
            return Err(format!("{key}: {value:?} was read before it was written: {read:?}, {write:?}"));
        }
        let first_end = calls.iter().map(|call| call.end).min().unwrap_or(0);
        let last_start = calls.iter().map(|call| call.start).max().unwrap_or(0);
        // Never answered and never read: it need not have happened.
        if first_end == u64::MAX {
            continue;
        }
        let forward = first_end < last_start;
        let (low, high) = (first_end.min(last_start), first_end.max(last_start));
        zones.push(Zone { low, high, forward, value: value.map(String::from) });
    }
    let (mut forward, backward): (Vec<Zone>, Vec<Zone>) = zones.into_iter().partition(|zone| zone.forward);
    forward.sort_by_key(|zone| zone.low);
    for pair in forward.windows(2) {
        if pair[1].low < pair[0].high {
            let [a, b] = [&pair[0].value, &pair[1].value];
            return Err(format!("{key}: {a:?} and {b:?} were held at the same time"));
        }
    }
    for back in &backward {
        let at = forward.partition_point(|zone| zone.low < back.low);
        if let Some(around) = at.checked_sub(1).map(|at| &forward[at]).filter(|zone| back.high < zone.high) {
            let [a, b] = [&back.value, &around.value];
            return Err(format!("{key}: {a:?} was held only while {b:?} was"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(start: u64, end: u64, value: &str) -> Call {
        Call { start, end, write: true, value: Some(value.into()) }
    }

    fn read(start: u64, end: u64, value: Option<&str>) -> Call {
        Call { start, end, write: false, value: value.map(String::from) }
    }

    fn ok(calls: &[Call]) -> bool {
        linearizable("k", calls).is_ok()
    }

    #[test]
    fn histories_that_are() {
        assert!(ok(&[]));
        assert!(ok(&[read(1, 2, None), write(3, 4, "a"), read(5, 6, Some("a"))]));
        // Overlapping: either order.
        assert!(ok(&[write(1, 10, "a"), write(2, 9, "b"), read(11, 12, Some("a"))]));
        assert!(ok(&[write(1, 10, "a"), read(2, 3, None), read(4, 5, Some("a"))]));
        // Never answered: it happened, or not, or late.
        assert!(ok(&[write(1, u64::MAX, "a"), read(5, 6, None)]));
        assert!(ok(&[
            write(1, u64::MAX, "a"),
            write(2, 3, "b"),
            read(5, 6, Some("b")),
            read(7, 8, Some("a"))
        ]));
    }

    #[test]
    fn histories_that_are_not() {
        // A lost write.
        assert!(!ok(&[write(1, 2, "a"), read(3, 4, None)]));
        assert!(!ok(&[write(1, 2, "a"), write(3, 4, "b"), read(5, 6, Some("a"))]));
        // A stale read behind a new one.
        assert!(!ok(&[write(1, 2, "a"), write(3, 9, "b"), read(4, 5, Some("b")), read(6, 7, Some("a"))]));
        // From nowhere, and from the future.
        assert!(!ok(&[read(1, 2, Some("a"))]));
        assert!(!ok(&[read(1, 2, Some("a")), write(3, 4, "a")]));
    }
}
