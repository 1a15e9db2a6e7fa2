//! The small databases whose every byte is damaged in turn: together every kind of file in several
//! versions, however they came to rest.

use super::anatomy::kind;
use super::base::{Base, ENDS, End, Past};
use crate::state::small;
use crate::world::{How, LOGS, Name, Step, World, Write, rows, value};
use esker::fs::Fs;
use esker::{Durability, Options};

/// All of them, made one by one.
pub fn shapes() -> impl Iterator<Item = Base> {
    let ends = ENDS.into_iter().flat_map(|end| {
        let makers: [fn(End) -> Base; 7] =
            [journal, tables_and_journal, levels, mapped_levels, everything, logs, mapped_logs];
        makers.map(|make| make(end))
    });
    let last = || {
        let (world, past) = with_everything();
        Base::checkpoint("everything, in a checkpoint".into(), world, past)
    };
    ends.chain(std::iter::once_with(last))
}

fn options() -> Options {
    small().durability(Durability::Buffered).memtable_bytes(64 << 10)
}

fn start(options: Options) -> (World, Past) {
    let (mut world, mut past) = (World::new(options), Past::default());
    world.run_all(&[Step::Create("a"), Step::Create("b")]);
    fill(&mut world, 0);
    past.note(&world);
    (world, past)
}

fn fill(world: &mut World, round: usize) {
    world.run(&Step::Commit(How::Buffered, rows(&["a", "b"], round..round + 12, 40, round as u64)));
    world.run(&Step::Commit(How::Sync, vec![Write::Delete("a", b"key0003".to_vec())]));
}

fn journal(end: End) -> Base {
    let (world, past) = start(options());
    Base::at_rest(format!("journal, {end:?}"), world, past, end)
}

pub fn tables_and_journal(end: End) -> Base {
    let (mut world, mut past) = start(options());
    world.run(&Step::Flush);
    past.note(&world);
    fill(&mut world, 4);
    Base::at_rest(format!("tables and journal, {end:?}"), world, past, end)
}

fn levels(end: End) -> Base {
    Base::at_rest(format!("levels, {end:?}"), with_levels(options()).0, Past::default(), end)
}

/// Tables are read in place, and the journal is written through a window.
fn mapped_levels(end: End) -> Base {
    let (world, past) = with_levels(options().mapped(true));
    Base::at_rest(format!("levels, mapped, {end:?}"), world, past, end)
}

fn with_levels(options: Options) -> (World, Past) {
    let (mut world, mut past) = start(options);
    for round in 0..9 {
        fill(&mut world, round);
        let from = format!("key{round:04}").into_bytes();
        let range = Write::DeleteRange("b", from, b"key0020".to_vec());
        world.run(&Step::Commit(How::Buffered, vec![range]));
        world.run_all(&[Step::Flush, Step::Settle]);
        past.note(&world);
    }
    (world, past)
}

pub fn logs(end: End) -> Base {
    let (world, past) = with_logs(options());
    Base::at_rest(format!("logs, {end:?}"), world, past, end)
}

pub fn mapped_logs(end: End) -> Base {
    let (world, past) = with_logs(options().mapped(true));
    Base::at_rest(format!("logs, mapped, {end:?}"), world, past, end)
}

/// Entries in segments that are not replayed, moved and not, and in others; heads in tables and in the
/// journal; logs that were purged, truncated, reset and removed.
fn with_logs(options: Options) -> (World, Past) {
    let (mut world, mut past) = start(options);
    world.run(&Step::Create(LOGS));
    let push = |log, n: u64, len| Write::Push(log, n / 4, value(n << 8 | log, len));
    for n in 0..36 {
        let mut writes = vec![Write::Keep(2, 2)];
        match n % 12 {
            4 | 9 => writes.push(Write::CutLast(3, 2)),
            10 => writes.push(Write::Remove(4)),
            11 => writes.push(Write::Reset(5, n, n)),
            _ => {}
        }
        writes.extend([push(2, n, 900), push(3, n, 150), push(3, 64 + n, 80), push(1, n, 60)]);
        writes.extend([push(4, n, 10), push(5, n, 300), push(6, n, 0)]);
        world.run(&Step::Commit(if n % 6 == 3 { How::Sync } else { How::Buffered }, writes));
        if n % 8 == 5 {
            fill(&mut world, n as usize);
            world.run_all(&[Step::Flush, Step::Settle]);
            past.note(&world);
        }
    }
    world.run_all(&[Step::Flush, Step::Settle]);
    world.run(&Step::Commit(How::Sync, vec![push(1, 99, 60), push(1, 100, 60), push(6, 99, 1)]));
    (world, past)
}

/// Appends of more than is read at once, where nothing is mapped.
pub fn large_appends(end: End) -> Base {
    let (mut world, mut past) = start(options().journal_bytes(1 << 20));
    world.run(&Step::Create(LOGS));
    let push = |log, n: u64, len| Write::Push(log, n, value(n << 8 | log, len));
    let large = [20_000, 30_000, 25_000, 0, 9].iter().enumerate();
    let large = large.map(|(n, len)| push(1, 7 + n as u64 / 2, *len)).collect();
    world.run(&Step::Commit(How::Buffered, large));
    for n in 0..12 {
        let writes = (2..5).map(|log| push(log, n, 500)).collect();
        world.run(&Step::Commit(How::Buffered, writes));
    }
    world.run_all(&[Step::Flush, Step::Settle]);
    past.note(&world);
    world.run(&Step::Commit(How::Sync, vec![push(2, 99, 60)]));
    Base::at_rest(format!("large appends, {end:?}"), world, past, end)
}

pub fn everything(end: End) -> Base {
    let (world, past) = with_everything();
    Base::at_rest(format!("everything, {end:?}"), world, past, end)
}

/// Segments that are sealed, recovered, larger than others, in use and prepared; tables of one and of
/// several blocks, raw and compressed, with values larger than a block, of nothing but a range
/// delete; a table that a crash has left over.
fn with_everything() -> (World, Past) {
    let (mut world, mut past) = start(options().journal_bytes(256 << 10));
    let put = |to: Name, key: &str, len| {
        Step::Commit(How::Buffered, vec![Write::Put(to, key.into(), value(len as u64, len))])
    };
    world.run_all(&[
        Step::Create("staging"),
        Step::Commit(How::Buffered, rows(&["a", "b", "staging"], 0..16, 40, 1)),
        put("a", "large", 1500),
        put("b", "large", 2500),
        Step::Flush,
        Step::Compact("a", b"".to_vec(), b"z".to_vec()),
    ]);
    past.note(&world);
    let delete = Write::DeleteRange("staging", b"key0004".to_vec(), b"key0009".to_vec());
    world.run_all(&[
        Step::Commit(How::Buffered, vec![delete]),
        Step::Commit(How::Buffered, rows(&["a"], 10..14, 30, 2)),
        Step::Flush,
        Step::Compact("a", b"".to_vec(), b"z".to_vec()),
    ]);
    past.note(&world);
    // A batch that no segment of the usual size takes, and what is killed and recovered around it.
    for (n, len) in [(3, 100), (4, 9000), (5, 100)] {
        fill(&mut world, n);
        world.run(&put("staging", &format!("batch {n}"), len));
        if len > 1000 {
            world.run(&Step::Commit(How::Sync, rows(&["b"], 0..9, 1000, 9)));
        }
        past.note(&world);
        let World { sim, options, states, seqs, .. } = world;
        world = World::at_rest(sim.crash(1), options, states, seqs);
        world.open();
    }
    let there: Vec<_> = world.sim.files().into_iter().map(|f| f.0).collect();
    let gone = past.tables.iter().find(|t| !there.contains(&t.0)).expect("a table that was replaced");
    drop(world.sim.create(&gone.0).unwrap());
    world.sim.damage(&gone.0, |b| b.clone_from(&gone.1)).unwrap();
    let tables = there.iter().filter(|path| kind(path) == "table").count();
    assert!(tables >= 5 && there.iter().filter(|path| kind(path) == "journal").count() >= 5, "{there:?}");
    (world, past)
}
