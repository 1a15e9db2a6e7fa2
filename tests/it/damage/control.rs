//! The controls of the sweep: a twin that must pass, and twins that must fail.

use super::base::{Base, End};
use super::counts::{Counts, Found};
use super::harm::Harm;
use super::judge::{BEYOND, is_bounded};
use super::shapes::tables_and_journal;
use crate::alloc::grown;
use esker::fs::Fs;
use esker::fs::sim::SimFs;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What the judge says of it, if anything.
fn refused(base: &Base, harm: &Harm) -> Option<String> {
    let judged = catch_unwind(AssertUnwindSafe(|| {
        let mut counts = Counts::default();
        base.judge(harm, &mut counts);
        assert_eq!(counts.of(Found::Nothing), 1, "something was found");
    }));
    judged.err().map(|e| e.downcast_ref::<String>().cloned().unwrap_or_default())
}

fn index(base: &Base, kind: &str) -> usize {
    let counts = |kind: &str| ["journal", "manifest", "table"].contains(&kind);
    base.anatomy.files.iter().position(|f| f.kind() == kind && f.counts == counts(kind)).unwrap()
}

/// Damage that the base does not know of: as if the engine had overlooked it, or done it.
fn behind_its_back(base: &Base, change: impl Fn(&SimFs)) -> Base {
    let disk = base.disk.crash(1);
    change(&disk);
    Base { disk, ..base.clone() }
}

#[test]
fn the_judge_passes_what_is_right_and_nothing_else() {
    let base = tables_and_journal(End::PowerLoss);
    let file = |kind| base.anatomy.files[index(&base, kind)].clone();
    // Does nothing.
    let longer = Harm::Longer(index(&base, "reserve"), 1);
    assert_eq!(refused(&base, &longer), None);

    // A commit of the last sync is gone, which the rules allow only if something destroyed it.
    let last = base
        .anatomy
        .journal
        .iter()
        .rev()
        .find_map(|s| Some((s, s.records.iter().rfind(|r| r.batch.is_some())?)));
    let (segment, record) = last.unwrap();
    let (path, at) = (segment.path.clone(), record.range.start + 40);
    let lost = behind_its_back(&base, |disk| disk.damage(&path, |b| b[at] ^= 1).unwrap());
    assert!(refused(&lost, &longer).unwrap().contains("commits are gone"));
    // The same is right if that is where the damage was done.
    let at = base.anatomy.files.iter().position(|f| f.path == path).map(|i| Harm::Flip(i, at * 8));
    let mut counts = Counts::default();
    base.judge(&at.unwrap(), &mut counts);
    assert_eq!((counts.of(Found::Residue), counts.last_sync, counts.more), (1, 1, 0));

    // More is shown than can be there.
    let mut more = base.clone();
    more.states.pop();
    more.seqs.pop();
    assert!(refused(&more, &longer).unwrap().contains("no commit ended with"));
    // One byte of one value is another.
    let mut wrong = base.clone();
    let at = wrong.there;
    *wrong.states[at].get_mut("a").unwrap().values_mut().next().unwrap() = b"wrong".to_vec();
    assert!(refused(&wrong, &longer).unwrap().contains("wrong data"));
    // A table is found damaged that nobody has damaged.
    let table = file("table").path;
    let told = behind_its_back(&base, |disk| disk.damage(&table, |b| b[5] ^= 1).unwrap());
    assert!(refused(&told, &longer).unwrap().contains("checksum"));
    // Refused, though nothing that counts was harmed.
    let manifest = file("manifest").path;
    let refuses = behind_its_back(&base, |disk| disk.remove(&manifest).unwrap());
    assert!(refused(&refuses, &longer).is_some());
}

#[test]
fn what_is_allocated_is_bounded() {
    let file = 1000;
    let (_, within) = grown(|| vec![0u8; file + BEYOND]);
    assert!(is_bounded(within, file, true));
    let (_, beyond) = grown(|| vec![0u8; file + BEYOND + 1]);
    assert!(!is_bounded(beyond, file, false), "one that is too large");
    let (_, beyond) = grown(|| [vec![0u8; BEYOND], vec![0u8; BEYOND]]);
    assert!(is_bounded(beyond, file, false) && !is_bounded(beyond, file, true), "two at once");
    let (_, grew) = grown(|| {
        let mut bytes = vec![0u8; BEYOND];
        bytes.reserve_exact(BEYOND);
    });
    assert!(!is_bounded(grew, file, false), "one that is made larger");
}
