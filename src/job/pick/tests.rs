//! Plans for layouts given as text, and a simulated keyspace that obeys the plans.

use super::{LAST, Manual, PickOptions, Plan, Since, held_until, manual, pick, worth_rewriting};
use crate::ids::{FileNo, Seq};
use crate::version::{Levels, Span, TableMeta};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const OPTIONS: PickOptions =
    PickOptions { l0_runs: 2, level_base: 1000, fanout: 10, table_bytes: 100, calm: false };

/// The plan as `inputs -> level@age`, and what is said of it.
fn show(plan: Option<Plan>) -> String {
    let Some(plan) = plan else { return "nothing".into() };
    let mut text = String::new();
    let mut level = None;
    for (l, no) in &plan.inputs {
        if level != Some(*l) {
            text += &format!("L{l} ");
            level = Some(*l);
        }
        text += &format!("{} ", no.0);
    }
    text += &format!("-> L{}@{}", plan.level_out, plan.run_out);
    for (said, word) in [(plan.bottom, " bottom"), (plan.trivial, " move")] {
        if said {
            text += word;
        }
    }
    text
}

fn planned(layout: &str, busy: &[u64]) -> String {
    let levels = Levels::parse(layout).unwrap();
    levels.check().unwrap();
    show(pick(&levels, &|no| busy.contains(&no.0), Seq::ZERO, &OPTIONS))
}

#[test]
fn level_0_goes_to_the_base_level() {
    for (layout, busy, expect) in [
        ("", &[][..], "nothing"),
        ("L0 age 1: 1[a-m)", &[], "nothing"),
        ("L0 age 2: 2[a-m) \n L0 age 1: 1[c-d)", &[], "L0 2 1 -> L7@0 bottom"),
        ("L0 age 2: 2[a-m) \n L0 age 1: 1[c-d)", &[1], "nothing"),
        // The tables that overlap, those in the gap between inputs, no others.
        (
            "L0 age 2: 2[c-d):200 \n L0 age 1: 1[k-m) \n L7 age 0: 3[a-b):300 4[b-c0) 5[f-g) 6[l-n) 7[n-z):90",
            &[],
            "L0 2 1 L7 4 5 6 -> L7@0 bottom",
        ),
        // What overlaps is on its way down; it has to wait.
        (
            "L0 age 2: 2[a-d) \n L0 age 1: 1[b-m) \n L6 age 0: 3[a-b) 4[l-p) \n L7 age 0: 5[x-y):999",
            &[4],
            "nothing",
        ),
        // With much data the base level is further up, and tombstones stay.
        ("L0 age 2: 2[a-d) \n L0 age 1: 1[b-m) \n L7 age 0: 5[a-y):100000", &[], "L0 2 1 -> L5@0"),
        ("L0 age 2: 2[a-d) \n L0 age 1: 1[b-m) \n L7 age 0: 5[p-y):100000", &[], "L0 2 1 -> L5@0 bottom"),
        // With little, but a level above in use from before, it is that one.
        (
            "L0 age 2: 2[a-d) \n L0 age 1: 1[b-m) \n L4 age 5: 3[l-n):40 \n L7 age 0: 5[a-y)",
            &[],
            "L0 2 1 L4 3 -> L4@5",
        ),
    ] {
        assert_eq!(planned(layout, busy), expect, "{layout}");
    }
}

#[test]
fn what_overlaps_nothing_moves() {
    for (layout, expect) in [
        ("L0 age 2: 2[c-d) \n L0 age 1: 1[a-b)", "L0 2 1 -> L7@0 bottom move"),
        ("L0 age 2: 2[c-d) \n L0 age 1: 1[a-b) \n L7 age 0: 3[d-e):300", "L0 2 1 -> L7@0 bottom move"),
        // Also round a table between them.
        ("L0 age 2: 2[e-f) \n L0 age 1: 1[a-b) \n L7 age 0: 3[c-d):900", "L0 2 1 -> L7@0 bottom move"),
        ("L0 age 2: 2[c-d) \n L0 age 1: 1[a-c0)", "L0 2 1 -> L7@0 bottom"),
        // Small ones are joined with those beside them, but not with much larger ones.
        (
            "L0 age 2: 2[h-i):9 \n L0 age 1: 1[f-g):9 \n L7 age 0: 3[a-b):99 4[b-c):20 5[c-d):18 6[x-y):99",
            "L0 2 1 L7 5 4 -> L7@0 bottom",
        ),
        ("L0 age 2: 2[h-i):9 \n L0 age 1: 1[f-g):9 \n L7 age 0: 4[b-c):19", "L0 2 1 -> L7@0 bottom move"),
    ] {
        assert_eq!(planned(layout, &[]), expect, "{layout}");
    }
    let small = "L0 age 2: 2[h-i):9 \n L0 age 1: 1[f-g):9 \n L7 age 0: 4[b-c):18";
    assert_eq!(planned(small, &[]), "L0 2 1 L7 4 -> L7@0 bottom");
    assert_eq!(planned(small, &[4]), "L0 2 1 -> L7@0 bottom move");
    // Tombstones that nothing is left to be hidden by would stay for ever.
    let mut levels = Levels::default();
    let table = TableMeta { deletes: 1, ..TableMeta::parse("1[a-b)") };
    levels.insert(0, Seq::ZERO, Arc::new(table)).unwrap();
    let options = PickOptions { l0_runs: 1, ..OPTIONS };
    assert_eq!(show(pick(&levels, &|_| false, Seq::ZERO, &options)), "L0 1 -> L7@0 bottom");
}

#[test]
fn a_level_above_its_target_gives_the_table_that_overlaps_least() {
    // 100000 below: the targets are 10000 and 1000.
    let below = "L7 age 0: 10[a-f):50000 11[f-k):10000 12[k-p):10000 13[p-z):30000";
    for (layout, busy, expect) in [
        ("L6 age 0: 1[a-b):9000 2[f-m):1000", &[][..], "nothing"),
        ("L6 age 0: 1[a-b):9000 2[f-m):4000 3[p-q):1000", &[], "L6 2 L7 11 12 -> L7@0 bottom"),
        ("L6 age 0: 1[a-b):9000 2[f-m):4000 3[p-q):1000", &[2], "nothing"),
        ("L6 age 0: 1[a-b):9000 2[f-m):4000 3[p-q):19000", &[2], "L6 3 L7 13 -> L7@0 bottom"),
        ("L6 age 0: 1[a-b):9000 2[f-m):4000 3[p-q):19000", &[2, 13], "L6 1 L7 10 -> L7@0 bottom"),
        ("L5 age 0: 1[a-b):900 2[f-m):400 3[p-q):100", &[], "L5 1 -> L6@0 move"),
        ("L5 age 0: 1[z-zz):1100 \n L6 age 0: 2[z-zzz):10", &[], "L5 1 L6 2 -> L6@0 bottom"),
        // The level that exceeds its target most.
        ("L5 age 0: 1[a-b):1200 \n L6 age 0: 2[a-b):13000", &[], "L6 2 L7 10 -> L7@0 bottom"),
        ("L5 age 0: 1[a-b):1400 \n L6 age 0: 2[a-b):13000", &[], "L5 1 L6 2 -> L6@0"),
        // Level 0 waits for the base level, where nothing new begins until then.
        (
            "L0 age 2: 8[a-d) \n L0 age 1: 7[a-d) \n L5 age 0: 1[a-b):700 2[f-m):1300",
            &[],
            "L5 1 -> L6@0 move",
        ),
        (
            "L0 age 3: 9[a-d):900 \n L0 age 2: 8[a-d):900 \n L0 age 1: 7[a-d):900 \n L5 age 0: 1[a-b):700 2[f-m):1300",
            &[1],
            "nothing",
        ),
    ] {
        assert_eq!(planned(&format!("{layout}\n{below}"), busy), expect, "{layout}");
    }
}

#[test]
fn level_0_grows_until_a_merge_adds_as_much_as_it_rewrites() {
    let base = "L7 age 0: 20[a-m):500 21[m-z):500";
    for (runs, expect) in [
        ("L0 age 4: 4[a-z):500 \n L0 age 3: 3[a-z):500", "L0 4 3 L7 20 21 -> L7@0 bottom"),
        ("L0 age 4: 4[a-m):250 \n L0 age 3: 3[a-m):250", "L0 4 3 L7 20 -> L7@0 bottom"),
        ("L0 age 4: 4[0-1):1 \n L0 age 3: 3[0-1):1", "L0 4 3 -> L7@0 bottom"),
        // Until then those of about the same size make one, the newest first.
        ("L0 age 4: 4[a-z):499 \n L0 age 3: 3[a-z):500", "L0 4 3 -> L0@4"),
        ("L0 age 4: 4[a-z):1 \n L0 age 3: 3[a-z):5", "nothing"),
        ("L0 age 4: 4[a-z):1 \n L0 age 3: 3[a-z):1 \n L0 age 2: 2[a-z):2", "L0 4 3 2 -> L0@4"),
        ("L0 age 4: 4[a-z):1 \n L0 age 3: 3[a-z):1 \n L0 age 2: 2[a-z):3", "L0 4 3 -> L0@4"),
        ("L0 age 4: 4[a-z):1 \n L0 age 3: 3[a-z):5 \n L0 age 2: 2[a-z):6", "L0 3 2 -> L0@3"),
        // Too many that are not: as many as are no larger than those before, two at least.
        ("L0 age 4: 4[a-z):1 \n L0 age 3: 3[a-z):3 \n L0 age 2: 2[a-z):9", "nothing"),
        ("L0 age 4: 5[a-z):1 4[z-zz):3 \n L0 age 3: 3[a-z):9 \n L0 age 2: 2[a-z):12", "L0 3 2 -> L0@3"),
        (
            "L0 age 4: 4[a-z):1 \n L0 age 3: 3[a-z):3 \n L0 age 2: 2[a-z):9 \n L0 age 1: 1[a-z):40",
            "L0 4 3 -> L0@4",
        ),
        // What is older and not in it may be on level 0 as well.
        ("L0 age 4: 4[0-1):1 \n L0 age 3: 3[0-1):1 \n L0 age 2: 2[1-z):9", "L0 4 3 -> L0@4 bottom"),
        ("L0 age 4: 4[0-1):1 \n L0 age 3: 3[0-1):1 \n L0 age 2: 2[00-z):9", "L0 4 3 -> L0@4"),
        ("L0 age 4: 4[0-1):1 \n L0 age 3: 3[0-1):1 5[a-m):1 \n L0 age 2: 2[z-zz):9", "L0 4 3 5 -> L0@4"),
    ] {
        assert_eq!(planned(&format!("{runs}\n{base}"), &[]), expect, "{runs}");
    }
}

#[test]
fn when_nothing_is_written_runs_become_few() {
    let base = "L7 age 0: 20[a-m):500 21[m-z):500";
    for (runs, expect) in [
        ("", "nothing"),
        ("L0 age 4: 4[a-z):249", "nothing"),
        ("L0 age 4: 4[a-z):250", "L0 4 L7 20 21 -> L7@0 bottom"),
        ("L0 age 4: 4[0-1):1", "L0 4 -> L7@0 bottom move"),
        ("L0 age 4: 4[a-z):1 \n L0 age 3: 3[a-z):4", "L0 4 3 -> L0@4"),
        ("L0 age 4: 4[a-z):1 \n L0 age 3: 3[a-z):5", "nothing"),
        ("L0 age 4: 4[a-z):1 \n L0 age 3: 3[a-z):9 \n L0 age 2: 2[a-z):40", "L0 4 3 2 -> L0@4"),
        ("L0 age 4: 4[a-z):1 \n L0 age 3: 3[a-z):9 \n L0 age 2: 2[a-z):41", "nothing"),
    ] {
        let levels = Levels::parse(&format!("{runs}\n{base}")).unwrap();
        let options = PickOptions { l0_runs: 9, calm: true, ..OPTIONS };
        assert_eq!(show(pick(&levels, &|_| false, Seq::ZERO, &options)), expect, "{runs}");
    }
}

#[test]
fn tombstones_go_down_when_nothing_else_is_due() {
    let layout = |level: u8, deletes: u64, range_deletes: u64| {
        let mut levels = Levels::parse("L5 age 0: 2[a-c):10 \n L7 age 0: 3[a-z):90000").unwrap();
        let table = TableMeta { entries: 10, deletes, range_deletes, ..TableMeta::parse("1[b-d):10") };
        levels.remove(5, Seq::ZERO, &TableMeta::parse("2[a-c)")).unwrap();
        levels.insert(level, Seq::ZERO, Arc::new(table)).unwrap();
        levels
    };
    for (level, deletes, range_deletes, expect) in [
        (0, 4, 0, "nothing"),
        (0, 5, 0, "L0 1 -> L6@0 move"),
        (0, 0, 10, "L0 1 -> L6@0 move"),
        (6, 0, 9, "nothing"),
        (6, 4, 1, "nothing"),
        (6, 5, 1, "L6 1 L7 3 -> L7@0 bottom"),
        (5, 10, 0, "L5 1 -> L6@0 move"),
    ] {
        let levels = layout(level, deletes, range_deletes);
        let options = PickOptions { level_base: 9000, ..OPTIONS };
        assert_eq!(
            show(pick(&levels, &|_| false, Seq::ZERO, &options)),
            expect,
            "L{level} {deletes} {range_deletes}"
        );
    }
    // Nothing below to delete.
    let mut levels = layout(5, 10, 0);
    levels.remove(7, Seq::ZERO, &TableMeta::parse("3[a-z)")).unwrap();
    assert_eq!(show(pick(&levels, &|_| false, Seq::ZERO, &OPTIONS)), "nothing");
}

/// The next step of a compaction by hand of `start..end`, which began when the newest operation had
/// number `seq`; later tables have a number of 100 or more.
fn by_hand(layout: &str, busy: &[u64], (start, end): (&str, &str), seq: u64) -> String {
    let mut levels = Levels::parse(layout).unwrap();
    levels.check().unwrap();
    // What has a number of 50 or more was deleted in part.
    let dirty: Vec<(u8, Seq, TableMeta)> = levels
        .runs()
        .flat_map(|(level, run)| run.tables.iter().map(move |t| (level, run.age, TableMeta::clone(t))))
        .filter(|(_, _, t)| t.no.0 >= 50)
        .collect();
    for (level, age, t) in dirty {
        levels.remove(level, age, &t).unwrap();
        let t = TableMeta { entries: 10, deletes: 1, superseded: 1, ..t };
        levels.insert(level, age, Arc::new(t)).unwrap();
    }
    let span = Span { start: start.as_bytes(), end: Some(end.as_bytes()) };
    let since = Since { seq: Seq::new(seq).unwrap(), file: FileNo(100) };
    match manual(&levels, &|no| busy.contains(&no.0), (span, since), Seq::ZERO, &OPTIONS) {
        Manual::Carry(plan) => show(Some(plan)),
        Manual::Wait => "wait".into(),
        Manual::Done => "done".into(),
    }
}

#[test]
fn by_hand_everything_of_the_range_reaches_the_bottom() {
    let all = ("a", "z");
    for (layout, busy, range, expect) in [
        ("", &[][..], all, "done"),
        ("L0 age 1: 1[a-m)", &[], all, "L0 1 -> L7@0 bottom move"),
        ("L0 age 1: 1[a-m)", &[], ("m", "z"), "done"),
        ("L0 age 1: 1[a-m)", &[1], all, "wait"),
        ("L0 age 1: 1[a-m) \n L7 age 0: 2[b-c)", &[2], all, "wait"),
        ("L0 age 1: 50[a-m) \n L7 age 0: 2[x-z)", &[2], all, "L0 50 -> L7@0 bottom move"),
        // Level by level, one table at a time; round what is in the way.
        ("L5 age 0: 1[a-c) 2[d-f) \n L7 age 0: 3[b-e)", &[], all, "L5 1 -> L6@0 move"),
        ("L5 age 0: 1[a-c) 2[d-f) \n L7 age 0: 3[b-e)", &[1], all, "L5 2 -> L6@0 move"),
        ("L5 age 0: 1[a-c) 2[d-f) \n L7 age 0: 3[b-e)", &[], ("c", "e"), "L5 2 -> L6@0 move"),
        ("L6 age 0: 1[a-c) 2[d-f) \n L7 age 0: 3[b-e)", &[], all, "L6 1 L7 3 -> L7@0 bottom"),
        ("L6 age 0: 1[a-c) 2[d-f) \n L7 age 0: 3[b-e)", &[3], all, "wait"),
        // The deepest level in use is deep enough.
        ("L5 age 0: 1[a-c) 2[d-f)", &[], all, "done"),
        // What lies there with something dead in it is written again, side by side if little stays.
        ("L7 age 0: 1[a-b) 50[b-c) 51[c-d) 52[d-e):25", &[], all, "L7 50 -> L7@0 bottom"),
        ("L7 age 0: 1[a-b) 50[b-c) 52[d-e):25 53[e-f)", &[], all, "L7 50 52 -> L7@0 bottom"),
        ("L7 age 0: 1[a-b) 50[b-c) 52[d-e):25", &[50], all, "L7 52 -> L7@0 bottom"),
        ("L7 age 0: 1[a-b) 50[b-c) 52[d-e):25", &[52], all, "L7 50 -> L7@0 bottom"),
        ("L7 age 0: 50[b-c)", &[50], all, "wait"),
        ("L7 age 0: 50[b-c)", &[], ("a", "b"), "done"),
        // Once.
        ("L7 age 0: 1[a-b) 150[b-c)", &[], all, "done"),
        ("L7 age 0: 50[a-b) 150[b-c):1", &[], all, "L7 50 -> L7@0 bottom"),
    ] {
        assert_eq!(by_hand(layout, busy, range, 1000), expect, "{layout} {range:?}");
    }
}

#[test]
fn by_hand_what_came_later_is_left_alone() {
    let mut levels = Levels::default();
    let table = TableMeta { min_seq: Seq::new(7).unwrap(), ..TableMeta::parse("9[a-c)") };
    levels.insert(0, Seq::new(9).unwrap(), Arc::new(table)).unwrap();
    for (seq, expect) in [(6, true), (7, false)] {
        let since = Since { seq: Seq::new(seq).unwrap(), file: FileNo(10) };
        let step = manual(&levels, &|_| false, (Span::ALL, since), Seq::ZERO, &OPTIONS);
        assert_eq!(step == Manual::Done, expect, "{seq}");
    }
}

#[test]
fn dead_entries_go_from_the_bottom_once_no_snapshot_needs_them() {
    let meta = |entries, deletes, superseded, range_deletes, dense| TableMeta {
        entries,
        deletes,
        superseded,
        range_deletes,
        dense,
        ..TableMeta::parse("9[a-c)")
    };
    for (meta, level, expect) in [
        (meta(40, 0, 0, 0, false), 7, false),
        (meta(40, 9, 0, 0, false), 7, false),
        (meta(40, 9, 1, 0, false), 7, true),
        (meta(40, 0, 10, 0, false), 6, true),
        (meta(40, 0, 0, 1, false), 7, true),
        (meta(40, 1, 0, 0, true), 7, true),
    ] {
        let mut levels = Levels::parse("L7 age 0: 1[c-d)").unwrap();
        levels.insert(level, Seq::ZERO, Arc::new(meta.clone())).unwrap();
        for oldest in [8, 9] {
            let oldest = Seq::new(oldest).unwrap();
            let plan = show(pick(&levels, &|_| false, oldest, &OPTIONS));
            let now = expect && oldest >= meta.max_seq;
            let found = if now { format!("L{level} 9 -> L{level}@0 bottom") } else { "nothing".into() };
            assert_eq!(plan, found, "{meta:?}");
            let held = held_until(&levels, oldest);
            assert_eq!(held, (expect && !now).then_some(meta.max_seq), "{meta:?}");
            assert_eq!(show(pick(&levels, &|no| no.0 == 9, oldest, &OPTIONS)), "nothing");
        }
    }
}

#[test]
fn dense_tombstones_go_down_to_what_they_delete() {
    let dense = TableMeta { entries: 9000, deletes: 4000, dense: true, ..TableMeta::parse("1[a-c):10") };
    for (below, expect) in [
        ("L7 age 0: 2[b-d):90000", "L5 1 -> L6@0 move"),
        ("L6 age 0: 3[a-b):10 \n L7 age 0: 2[b-d):90000", "L5 1 L6 3 -> L6@0"),
        ("L7 age 0: 2[c-d):90000", "nothing"),
    ] {
        let mut levels = Levels::parse(below).unwrap();
        levels.insert(5, Seq::ZERO, Arc::new(dense.clone())).unwrap();
        assert_eq!(show(pick(&levels, &|_| false, Seq::ZERO, &OPTIONS)), expect, "{below}");
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
}

/// What a simulated table holds: versions of keys, newest first, and whether each is a delete; and
/// range deletes `start..end`.
#[derive(Clone, Default, Debug)]
struct Content {
    entries: BTreeMap<(u64, Reverse<u64>), bool>,
    ranges: Vec<(u64, u64, u64)>,
}

impl Content {
    /// The newest range delete at or below `read` over a key.
    fn cover(&self, key: u64, read: u64) -> u64 {
        let over = self.ranges.iter().filter(|r| r.0 <= key && key < r.1 && r.2 <= read);
        over.map(|r| r.2).max().unwrap_or(0)
    }

    /// The part from key `from` to before `to`.
    fn clip(&self, from: u64, to: u64) -> Content {
        let ranges = self.ranges.iter().map(|r| (r.0.max(from), r.1.min(to), r.2)).filter(|r| r.0 < r.1);
        let entries = self.entries.range((from, Reverse(u64::MAX))..(to, Reverse(u64::MAX)));
        Content { entries: entries.map(|(&k, &v)| (k, v)).collect(), ranges: ranges.collect() }
    }

    fn meta(&self, no: FileNo) -> TableMeta {
        let bytes = |key: u64| -> Box<[u8]> { format!("{key:05}").into_bytes().into() };
        let starts = self.entries.keys().map(|k| k.0).chain(self.ranges.iter().map(|r| r.0));
        let ends = self.entries.keys().map(|k| k.0 + 1).chain(self.ranges.iter().map(|r| r.1));
        let end = ends.max().unwrap();
        let seqs = || self.entries.keys().map(|k| k.1.0).chain(self.ranges.iter().map(|r| r.2));
        let keys: BTreeSet<u64> = self.entries.keys().map(|k| k.0).collect();
        let deletes: Vec<bool> = self.entries.values().copied().collect();
        TableMeta {
            no,
            id: no.0,
            size: 10 * (self.entries.len() + self.ranges.len()) as u64,
            smallest: bytes(starts.min().unwrap()),
            end: (end < KEYS).then(|| bytes(end)),
            min_seq: Seq::new(seqs().min().unwrap()).unwrap(),
            max_seq: Seq::new(seqs().max().unwrap()).unwrap(),
            entries: self.entries.len() as u64,
            deletes: deletes.iter().filter(|&&d| d).count() as u64,
            range_deletes: self.ranges.len() as u64,
            raw_bytes: 0,
            superseded: (self.entries.len() - keys.len()) as u64,
            dense: deletes.windows(8).any(|w| w.iter().filter(|&&d| d).count() >= 6),
        }
    }

    /// What a compaction writes for these inputs while one snapshot lives, at `oldest`.
    fn merge(inputs: &[&Content], bottom: bool, oldest: u64) -> Content {
        let mut all = Content::default();
        for content in inputs {
            all.ranges.extend(&content.ranges);
            all.entries.extend(&content.entries);
        }
        let mut last = (u64::MAX, false);
        let ranges = Content { ranges: all.ranges.clone(), ..Content::default() };
        all.entries.retain(|&(key, Reverse(seq)), delete| {
            let old = seq <= oldest;
            let hidden = last == (key, old);
            last = (key, old);
            let covered = ranges.cover(key, if old { oldest } else { u64::MAX }) > seq;
            !(hidden || covered || old && bottom && *delete)
        });
        all.ranges.retain(|r| !bottom || r.2 > oldest);
        all
    }
}

const KEYS: u64 = 2000;

/// A compaction under way.
struct Job {
    plan: Plan,
    outputs: Vec<Content>,
}

struct Keyspace {
    options: PickOptions,
    random: Random,
    levels: Levels,
    contents: BTreeMap<FileNo, Content>,
    /// The newest operation of each live key.
    model: BTreeMap<u64, u64>,
    /// A snapshot, and what it sees.
    snapshot: Option<(u64, BTreeMap<u64, u64>)>,
    jobs: Vec<Job>,
    busy: BTreeSet<FileNo>,
    seq: u64,
    next: u64,
    /// Bytes flushed, and bytes written by compactions.
    flushed: u64,
    written: u64,
    most_runs: usize,
    picked: u64,
    /// Outputs are cut anywhere.
    ragged: bool,
}

impl Keyspace {
    fn new(seed: u64, options: PickOptions) -> Keyspace {
        Keyspace {
            options,
            random: Random(seed),
            levels: Levels::default(),
            contents: BTreeMap::new(),
            model: BTreeMap::new(),
            snapshot: None,
            jobs: Vec::new(),
            busy: BTreeSet::new(),
            seq: 0,
            next: 1,
            flushed: 0,
            written: 0,
            most_runs: 0,
            picked: 0,
            ragged: true,
        }
    }

    fn write(&mut self, content: &mut Content, key: u64, delete: bool) {
        self.seq += 1;
        content.entries.insert((key, Reverse(self.seq)), delete);
        match delete {
            true => self.model.remove(&key),
            false => self.model.insert(key, self.seq),
        };
    }

    fn delete_range(&mut self, content: &mut Content, start: u64, end: u64) {
        self.seq += 1;
        self.model.retain(|&k, _| k < start || k >= end);
        content.ranges.push((start, end, self.seq));
    }

    fn flush(&mut self, content: Content) {
        let (level, age) = (0, Seq::new(self.seq).unwrap());
        self.flushed += content.meta(FileNo(0)).size;
        self.add(level, age, &[content]);
        self.most_runs = self.most_runs.max(self.levels.level(0).len());
    }

    fn add(&mut self, level: u8, age: Seq, outputs: &[Content]) {
        for content in outputs {
            let no = FileNo(self.next);
            self.next += 1;
            self.levels.insert(level, age, Arc::new(content.meta(no))).unwrap();
            self.contents.insert(no, content.clone());
        }
    }

    /// The oldest state anybody can ask for.
    fn oldest(&self) -> u64 {
        self.snapshot.as_ref().map_or(self.seq, |s| s.0)
    }

    /// Begins the next compaction, if there is one; a move is done at once.
    fn begin(&mut self) -> bool {
        let oldest = Seq::new(self.oldest()).unwrap();
        let plan = pick(&self.levels, &|no| self.busy.contains(&no), oldest, &self.options);
        plan.map(|plan| self.carry_out(plan)).is_some()
    }

    fn carry_out(&mut self, plan: Plan) {
        self.picked += 1;
        assert!(self.picked < 100_000, "this will never end: {plan:?} {:?}", self.levels);
        assert!(plan.inputs.iter().all(|(_, no)| self.busy.insert(*no)), "a busy table is an input");
        if plan.trivial {
            for (level, no) in &plan.inputs {
                let table = self.remove(*level, *no);
                self.levels.insert(plan.level_out, plan.run_out, table).unwrap();
            }
            return;
        }
        let inputs: Vec<&Content> = plan.inputs.iter().map(|(_, no)| &self.contents[no]).collect();
        let merged = Content::merge(&inputs, plan.bottom, self.oldest());
        // Cut where the table is full, so that a table may span a gap.
        let mut outputs = Vec::new();
        let (mut from, mut count, mut last) = (0, 0, 0);
        let full = match self.ragged {
            true => 1 + self.random.below(self.options.table_bytes / 5),
            false => self.options.table_bytes / 10,
        };
        for &(key, _) in merged.entries.keys() {
            if count >= full && key != last {
                outputs.push(merged.clip(from, key));
                (from, count) = (key, 0);
            }
            count += 1;
            last = key;
        }
        outputs.push(merged.clip(from, KEYS));
        outputs.retain(|c| !c.entries.is_empty() || !c.ranges.is_empty());
        self.written += outputs.iter().map(|c| c.meta(FileNo(0)).size).sum::<u64>();
        self.jobs.push(Job { plan, outputs });
    }

    fn remove(&mut self, level: u8, no: FileNo) -> Arc<TableMeta> {
        assert!(self.busy.remove(&no));
        let (age, table) = {
            let at = |run: &&Arc<crate::version::Run>| run.tables.iter().any(|t| t.no == no);
            let run = self.levels.level(level).iter().find(at).unwrap();
            (run.age, run.tables.iter().find(|t| t.no == no).unwrap().clone())
        };
        self.levels.remove(level, age, &table).unwrap()
    }

    /// Ends one of the compactions under way.
    fn end(&mut self) {
        let at = self.random.below(self.jobs.len() as u64) as usize;
        let Job { plan, outputs } = self.jobs.swap_remove(at);
        for (level, no) in &plan.inputs {
            self.remove(*level, *no);
            self.contents.remove(no);
        }
        self.add(plan.level_out, plan.run_out, &outputs);
    }

    /// Begins the next compaction if none is under way; the bytes it writes.
    fn next_job(&mut self) -> Option<u64> {
        while self.jobs.is_empty() && self.begin() {}
        let outputs = &self.jobs.first()?.outputs;
        Some(outputs.iter().map(|c| c.meta(FileNo(0)).size).sum())
    }

    /// Ends all, and goes on until nothing is due.
    fn settle(&mut self) {
        while !self.jobs.is_empty() || self.begin() {
            if !self.jobs.is_empty() {
                self.end();
            }
        }
    }

    /// Compacts a range by hand, with others at it too.
    fn compact(&mut self, from: u64, to: u64) {
        let (start, end) = (format!("{from:05}"), format!("{to:05}"));
        let span = Span { start: start.as_bytes(), end: (to < KEYS).then_some(end.as_bytes()) };
        let since = Since { seq: Seq::new(self.seq).unwrap(), file: FileNo(self.next) };
        loop {
            let oldest = Seq::new(self.oldest()).unwrap();
            let busy = |no| self.busy.contains(&no);
            let step = manual(&self.levels, &busy, (span, since), oldest, &self.options);
            match step {
                Manual::Carry(plan) => self.carry_out(plan),
                Manual::Wait => self.end(),
                Manual::Done => break,
            }
            match self.random.below(6) {
                0 => random_flush(self),
                1 => _ = self.begin(),
                2 if !self.jobs.is_empty() => self.end(),
                _ => {}
            }
        }
        let deepest = self.levels.deepest();
        for (level, table) in self.levels.tables().filter(|(_, t)| t.span().overlaps(span)) {
            assert!(Some(level) == deepest || table.min_seq > since.seq, "{table:?} of {:?}", self.levels);
            let clean = self.contents[&table.no].entries.values().all(|delete| !delete);
            let dead = self.snapshot.is_none() && (!clean || table.superseded > 0);
            assert!(table.min_seq > since.seq || !dead, "{table:?} of {:?}", self.levels);
        }
    }

    /// Ends the snapshot; what it had held back goes.
    fn let_go(&mut self) {
        let oldest = Seq::new(self.oldest()).unwrap();
        let waits = held_until(&self.levels, oldest).is_some();
        self.snapshot = None;
        let before = self.picked;
        self.settle();
        assert!(waits || self.picked == before, "nobody would have looked");
        let dead = |level| super::bottom_tables(&self.levels, level, &worth_rewriting).count();
        assert_eq!((1..=LAST).map(dead).sum::<usize>(), 0, "{:?}", self.levels);
    }

    /// Reads every key the way reads do: the first run that knows it decides.
    fn read(&self, at: u64) -> BTreeMap<u64, u64> {
        let mut found: BTreeMap<u64, (u64, bool)> = BTreeMap::new();
        let mut newest: BTreeMap<u64, u64> = BTreeMap::new();
        let mut covers = vec![0; KEYS as usize];
        for (_, run) in self.levels.runs() {
            for table in &run.tables {
                for r in self.contents[&table.no].ranges.iter().filter(|r| r.2 <= at) {
                    covers[r.0 as usize..r.1 as usize].iter_mut().for_each(|c| *c = r.2.max(*c));
                }
            }
            for table in &run.tables {
                let mut oldest: BTreeMap<u64, u64> = BTreeMap::new();
                for (&(key, Reverse(seq)), &delete) in &self.contents[&table.no].entries {
                    let above = newest.get(&key).is_none_or(|&n| n > seq);
                    assert!(above, "an older version of {key} lies above a newer one");
                    oldest.insert(key, seq);
                    if seq <= at {
                        found.entry(key).or_insert((seq, delete || covers[key as usize] > seq));
                    }
                }
                newest.extend(oldest);
            }
        }
        found.into_iter().filter(|(_, v)| !v.1).map(|(key, v)| (key, v.0)).collect()
    }

    fn check(&self) {
        self.levels.check().unwrap();
        assert_eq!(self.read(u64::MAX), self.model, "{:?}", self.levels);
        if let Some((at, model)) = &self.snapshot {
            assert_eq!(self.read(*at), *model, "at {at}: {:?}", self.levels);
        }
    }

    fn tables(&self) -> usize {
        self.levels.tables().count()
    }
}

/// A memtable's worth of operations on a few ranges of keys.
fn random_flush(k: &mut Keyspace) {
    let mut content = Content::default();
    let count = 1 + k.random.below(40);
    let (from, width) = (k.random.below(KEYS), 1 + k.random.below(KEYS / 2));
    for _ in 0..count {
        let key = (from + k.random.below(width)) % KEYS;
        match k.random.below(30) {
            0 => {
                let end = (key + 1 + k.random.below(60)).min(KEYS);
                k.delete_range(&mut content, key, end);
            }
            1..=6 => k.write(&mut content, key, true),
            _ => k.write(&mut content, key, false),
        }
    }
    k.flush(content);
}

#[test]
fn the_newest_version_is_found_whatever_is_compacted_side_by_side() {
    let (mut together, mut held) = (0, 0);
    for seed in 0..16 {
        let options = PickOptions {
            l0_runs: 1 + seed as usize % 5,
            level_base: 200 << (seed % 4),
            fanout: 2 + seed % 5,
            table_bytes: 50 << (seed % 3),
            calm: false,
        };
        let mut k = Keyspace::new(seed, options);
        for step in 0..300 {
            match k.random.below(6) {
                0 => random_flush(&mut k),
                5 if step % 4 == 0 => k.snapshot = k.snapshot.is_none().then(|| (k.seq, k.model.clone())),
                1..=2 if k.jobs.len() < 4 => {
                    k.begin();
                }
                _ if !k.jobs.is_empty() => k.end(),
                _ => {}
            }
            together += usize::from(k.jobs.len() > 1);
            if step % 8 == 0 {
                k.check();
            }
        }
        let (from, to) = (k.random.below(KEYS), k.random.below(KEYS));
        k.compact(from.min(to), from.max(to) + 1);
        k.check();
        k.settle();
        k.check();
        assert!(k.levels.level(0).len() < 2 * options.l0_runs, "{:?}", k.levels);
        held += usize::from(k.snapshot.is_some());
        k.let_go();
        k.check();
    }
    assert!(together > 200 && held > 3, "{together} {held}");
}

/// Writes with one compaction at a time, keeping up.
fn run(options: PickOptions, flushes: u64, flush: impl Fn(&mut Keyspace, u64)) -> Keyspace {
    let mut k = Keyspace { ragged: false, ..Keyspace::new(1, options) };
    for i in 0..flushes {
        flush(&mut k, i);
        k.settle();
    }
    k.check();
    k
}

#[test]
fn what_it_costs() {
    let options = PickOptions { l0_runs: 4, level_base: 1600, fanout: 10, table_bytes: 400, calm: false };
    let random = |count: u64| {
        move |k: &mut Keyspace, _| {
            let mut content = Content::default();
            for _ in 0..count {
                let key = k.random.below(KEYS);
                k.write(&mut content, key, false);
            }
            k.flush(content);
        }
    };
    let ascending = |count: u64| {
        move |k: &mut Keyspace, i: u64| {
            let mut content = Content::default();
            for key in i * count..(i + 1) * count {
                k.write(&mut content, key % KEYS, false);
            }
            k.flush(content);
        }
    };
    // Bytes that compactions write for each byte flushed, and tables of 400 bytes for 20000 in all.
    for (name, k, cost, tables) in [
        ("random", run(options, 300, random(40)), 9.0, 120),
        ("random, tiny flushes", run(options, 1000, random(1)), 18.0, 80),
        ("ascending", run(options, 50, ascending(40)), 0.0, 50),
        ("ascending, tiny flushes", run(options, 1500, ascending(1)), 4.0, 130),
    ] {
        let found = k.written as f64 / k.flushed as f64;
        assert!(found <= cost && k.tables() <= tables, "{name}: {found:.1} times, {} tables", k.tables());
        assert!(k.most_runs <= 8, "{name}: {} runs", k.most_runs);
        let upper: u64 = (0..LAST).map(|level| k.levels.bytes(level)).sum();
        assert!(upper <= k.levels.bytes(LAST) / 4 + 2000, "{name}: {:?}", k.levels);
    }
}

#[test]
fn space_comes_back_when_all_is_deleted() {
    let options = PickOptions { l0_runs: 4, level_base: 400, fanout: 4, table_bytes: 200, calm: false };
    for by_range in [false, true] {
        let mut k = run(options, 60, |k, _| {
            let mut content = Content::default();
            for _ in 0..40 {
                let key = k.random.below(KEYS);
                k.write(&mut content, key, false);
            }
            k.flush(content);
        });
        assert!(k.tables() > 20);
        let mut content = Content::default();
        if by_range {
            k.delete_range(&mut content, 0, KEYS);
        } else {
            for key in k.model.keys().copied().collect::<Vec<_>>() {
                k.write(&mut content, key, true);
            }
        }
        k.flush(content);
        k.settle();
        k.check();
        assert_eq!(k.tables(), 0, "{:?}", k.levels);
    }
}

/// What a phase of writing cost.
#[derive(Debug)]
struct Cost {
    /// Bytes that flushes and merges wrote for each byte flushed.
    passes: f64,
    /// Runs at most, in all when it had settled, and how much larger they were than what is alive.
    most_runs: usize,
    runs: usize,
    space: f64,
}

/// Four million pairs through memtables of `flush` thousand, scaled down two thousandfold: written
/// once each in random order, then overwritten. Merges write `speed` bytes while one is flushed.
fn fill_and_overwrite(flush: usize, speed: u64) -> Vec<Cost> {
    let flush = flush / 2;
    let memtable = 24 * flush as u64;
    let (l0_runs, level_base, table_bytes) = (12, 32 * memtable, memtable);
    let options = PickOptions { l0_runs, level_base, fanout: 10, table_bytes, calm: false };
    let mut k = Keyspace { ragged: false, ..Keyspace::new(1, options) };
    let mut phase = || {
        let mut keys: Vec<u64> = (0..KEYS).collect();
        for i in (1..keys.len()).rev() {
            keys.swap(i, k.random.below(i as u64 + 1) as usize);
        }
        (k.flushed, k.written, k.most_runs) = (0, 0, 0);
        let mut budget = 0;
        for keys in keys.chunks(flush) {
            let mut content = Content::default();
            keys.iter().for_each(|&key| k.write(&mut content, key, false));
            k.flush(content);
            budget += speed * 10 * flush as u64;
            while let Some(bytes) = k.next_job().filter(|&bytes| bytes <= budget) {
                budget -= bytes;
                k.end();
            }
            budget = if k.jobs.is_empty() { 0 } else { budget };
        }
        k.options.calm = true;
        k.settle();
        k.options.calm = false;
        k.check();
        let bytes: u64 = k.levels.tables().map(|(_, t)| t.size).sum();
        Cost {
            passes: (k.flushed + k.written) as f64 / k.flushed as f64,
            most_runs: k.most_runs,
            runs: k.levels.runs().count(),
            space: bytes as f64 / (10 * KEYS) as f64,
        }
    };
    vec![phase(), phase()]
}

#[test]
fn what_a_fill_and_an_overwrite_cost() {
    for flush in [70, 93, 120] {
        // Merges that barely keep up, that do, and that take no time.
        for (speed, runs) in [(2, 27), (4, 27), (100, 15)] {
            for cost in fill_and_overwrite(flush, speed) {
                let fine = cost.passes <= 3.2 && cost.most_runs <= runs && cost.runs <= 4 && cost.space < 1.3;
                assert!(fine, "{flush} thousand, {speed}: {cost:?}");
            }
        }
    }
}
