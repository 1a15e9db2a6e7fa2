//! The check itself: what it must accept, and what it must not.

use crate::crash::cuts::{Cuts, Effort, Seen, cut_between};
use crate::crash::workloads::put;
use crate::state::{Row, Walks, small};
use crate::world::{How, Step, World, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

const ALL: Effort = Effort { budget: None, samples: 4, nested: 20, further: 8 };

fn world(steps: &[Step]) -> World {
    let mut world = World::new(small());
    world.run(&Step::Create("a"));
    world.dull = world.sim.ops();
    world.run_all(steps);
    world
}

fn puts(how: How, rows: &[(&str, &str)]) -> Step {
    Step::Commit(
        how,
        rows.iter().map(|(key, value)| Write::Put("a", (*key).into(), (*value).into())).collect(),
    )
}

/// Cuts everywhere in `world`, and answers why that fails.
fn complaint(world: &World) -> Option<String> {
    let ops = world.dull..=world.sim.ops();
    let cut = || cut_between("control", world, ops, ALL, &mut Seen::default());
    let panic = catch_unwind(AssertUnwindSafe(cut)).err()?;
    Some(*panic.downcast::<String>().expect("a panic with a message"))
}

/// What `found` left on its disk, judged by what `told` was told.
fn complaint_about(mut told: World, found: &World) -> Option<String> {
    assert_eq!(told.sim.ops(), found.sim.ops(), "the runs are to do the same to the disk");
    told.sim = found.sim.clone();
    complaint(&told)
}

#[test]
fn what_is_right_is_accepted() {
    let steps = [puts(How::Sync, &[("k", "1"), ("l", "1")]), put("a", How::Buffered, "k", "2"), Step::Flush];
    let (one, other) = (world(&steps), world(&steps));
    assert_eq!(complaint(&one), None);
    // Two runs are the same to the byte.
    assert_eq!(one.sim.digest(), other.sim.digest());
    assert_eq!(complaint_about(one, &other), None);
}

#[test]
fn a_lost_commit_is_noticed() {
    let told = world(&[put("a", How::Sync, "k", "1")]);
    assert_eq!(told.bounds(told.sim.ops(), false), (2, 2));
    assert_eq!(told.bounds(0, true), (0, 0));
    let (mut seen, ops) = (Seen::default(), told.sim.ops());
    let cuts = Cuts::new("control", &told, ALL, &mut seen);
    assert_eq!(cuts.recover(&told.sim.crash(0), 2, 2, "as it is").1, 2);
    // The state before the last operations is not one with both commits.
    let early = told.sim.crash_at(ops - 2, 0);
    assert!(catch_unwind(AssertUnwindSafe(|| cuts.recover(&early, 2, 2, "early").1)).is_err());
}

/// Commits are called durable a few operations before they are.
#[test]
fn a_promise_before_the_sync_is_noticed() {
    let mut told = world(&[put("a", How::Sync, "k", "1"), put("a", How::Sync, "l", "1")]);
    told.promise_early(3);
    assert!(complaint(&told).is_some_and(|why| why.contains("commits are there, must be")));
}

/// One half of a batch is there and the other is not.
#[test]
fn a_torn_batch_is_noticed() {
    let told = world(&[puts(How::Sync, &[("k", "1"), ("l", "1")])]);
    let torn = world(&[puts(How::Sync, &[("k", "1"), ("m", "1")])]);
    assert!(complaint_about(told, &torn).is_some_and(|why| why.contains("the state is wrong")));
}

/// What the first commit was to do only the second did: at the end all is as it should be.
#[test]
fn commits_in_another_order_are_noticed() {
    let (one, other) = (put("a", How::Sync, "k", "1"), put("a", How::Sync, "l", "2"));
    let (told, swapped) = (world(&[one.clone(), other.clone()]), world(&[other, one]));
    assert_eq!(told.state(), swapped.state());
    assert!(complaint_about(told, &swapped).is_some_and(|why| why.contains("the state is wrong")));
}

/// Something is there that nobody wrote, though all that was written is.
#[test]
fn invented_data_is_noticed() {
    let told = world(&[puts(How::Buffered, &[("k", "1"), ("k", "1")])]);
    let more = world(&[puts(How::Buffered, &[("j", "1"), ("k", "1")])]);
    assert!(complaint_about(told, &more).is_some_and(|why| why.contains("the state is wrong")));
}

#[test]
fn a_wrong_walk_is_noticed() {
    let row = |n: u8| -> Row { (vec![n], vec![n; 3]) };
    let rows: Vec<Row> = (0..5).map(row).collect();
    let right = Walks {
        forward: rows.clone(),
        backward: rows.clone(),
        meeting: rows.clone(),
        turning: rows.clone(),
        halves: rows,
    };
    assert_eq!(right.agree(), Ok(()));
    type Part = fn(&mut Walks) -> &mut Vec<Row>;
    let parts: [(&str, Part); 4] = [
        ("backward", |walks| &mut walks.backward),
        ("meeting", |walks| &mut walks.meeting),
        ("turning", |walks| &mut walks.turning),
        ("halves", |walks| &mut walks.halves),
    ];
    let wrongs: [fn(&mut Vec<Row>); 5] = [
        |rows| rows.swap(1, 2),
        |rows| drop(rows.pop()),
        |rows| drop(rows.remove(0)),
        |rows| rows.insert(2, rows[2].clone()),
        |rows| rows[3].1 = vec![9],
    ];
    for (name, part) in parts {
        for wrong in wrongs {
            let mut walks = right.clone();
            wrong(part(&mut walks));
            assert_eq!(walks.agree(), Err(name));
        }
    }
    let mut twice = right.clone();
    for (_, part) in parts {
        part(&mut twice).swap(0, 1);
    }
    twice.forward.swap(0, 1);
    assert_eq!(twice.agree(), Err("what ascends"));
}
