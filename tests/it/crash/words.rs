//! All words: every sequence of up to four calls out of eight, on a small database, cut at every
//! operation of its last call. What came before that was cut in a shorter word.

use super::{number, quick, thorough, ways};
use crate::crash::cuts::{Counts, Effort, Seen, cut_between};
use crate::crash::workloads::put;
use crate::world::{How, Step, World, Write, rows, value};
use esker::Options;

const LETTERS: [&str; 8] = ["put", "delete", "batch", "sync", "flush", "compact", "reopen", "snapshot"];

/// Both keyspaces have a table, one of them something newer in the journal.
fn start(options: Options) -> World {
    let mut world = World::new(options);
    world.run_all(&[Step::Create("a"), Step::Create("b")]);
    world.run(&Step::Commit(How::Buffered, rows(&["a", "b"], 0..3, 40, 1)));
    world.run_all(&[Step::Flush, Step::Settle, put("a", How::Sync, "key0001", value(2, 300))]);
    world
}

/// What a letter means at its place: the same key again and again, values within a sector and across.
fn step(word: &[usize], place: usize, how: How) -> Step {
    let value =
        |n: usize| value((place * 10 + n) as u64, if (place + n).is_multiple_of(2) { 30 } else { 600 });
    let key = |n: usize| format!("key{n:04}").into_bytes();
    match LETTERS[word[place]] {
        "put" => Step::Commit(how, vec![Write::Put("a", key(1 + place % 2), value(0))]),
        "delete" => Step::Commit(how, vec![Write::Delete("a", key(1 - place % 2))]),
        "batch" => Step::Commit(
            how,
            vec![
                Write::Put("a", key(3), value(1)),
                Write::Delete("b", key(place)),
                Write::DeleteRange("a", key(0), key(2)),
                Write::Put("b", key(1), value(2)),
            ],
        ),
        "sync" => Step::Sync,
        "flush" => Step::Flush,
        "compact" => Step::Compact("a", key(0), key(9)),
        "reopen" => Step::Reopen,
        _ if word[..place].iter().filter(|letter| LETTERS[**letter] == "snapshot").count() % 2 == 1 => {
            Step::Release
        }
        _ => Step::Snapshot,
    }
}

fn cut_word(way: &str, options: &Options, word: &[usize], effort: Effort, seen: &mut Seen) -> Counts {
    let how = if way == "sync" { How::Sync } else { How::Buffered };
    let mut world = start(options.clone());
    for place in 0..word.len() {
        world.dull = world.sim.ops() + 1;
        world.run(&step(word, place, how));
    }
    // A call that did nothing to the disk may still have promised something.
    let ops = world.sim.ops();
    let spelled: Vec<_> = word.iter().map(|letter| LETTERS[*letter]).collect();
    let name = format!("{}, {way}", spelled.join(" "));
    cut_between(&name, &world, world.dull.min(ops)..=ops, effort, seen)
}

/// Every word of up to so many letters, in every way; answers how many that were.
fn cut_words(longest: u32, effort: impl Fn(&[usize]) -> Effort, counts: &mut Counts) -> usize {
    let mut words = 0;
    for (way, options) in ways() {
        let mut seen = Seen::default();
        for len in 1..=longest {
            for n in 0..LETTERS.len().pow(len) {
                let word: Vec<usize> = (0..len).map(|place| n >> (3 * place) & 7).collect();
                counts.add(cut_word(way, &options, &word, effort(&word), &mut seen));
                words += 1;
            }
        }
    }
    words
}

#[test]
fn a_sample_of_cuts_in_short_words() {
    let mut counts = Counts::default();
    let words = cut_words(2, |_| quick(5), &mut counts);
    counts.print("short words");
    assert_eq!(words, 3 * (8 + 64));
}

#[test]
#[ignore = "takes long"]
fn all_cuts_in_all_words() {
    let mut counts = Counts::default();
    let longest = number("ESKER_CRASH_WORDS").unwrap_or(4);
    let words = cut_words(longest as u32, |_| thorough(5, 50), &mut counts);
    counts.print(&format!("proof: crash: {words} words of up to {longest} calls"));
}
