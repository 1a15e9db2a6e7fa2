//! The fuzz targets for logs: footers, operations on logs, entries, heads.

use crate::choices::{Choices, edit, hurt};
use crate::entries::{self, Cut, Entries, LogOp, PER_RUN, Verb};
use crate::error::Result;
use crate::fuzz::damage;
use crate::ids::{FileNo, KeyspaceId, Seq};
use crate::log::extent::Extent;
use crate::log::footer::{BLOCK, Builder, EXTENT, FENCE, Footer, HEAD, RUN, Range, Run, Source};
use crate::log::head::{self, Head};
use crate::record::checksum;
use std::path::Path;
use std::sync::Arc;

const NO: FileNo = FileNo(12);
const SALT: u64 = 0x5a17_0000_0000_0002;

fn open(bytes: &[u8]) -> Result<(Footer, Vec<Run>)> {
    Footer::open((NO, SALT), Path::new("/000012.footer"), Source::Shared(Arc::new(bytes.to_vec())), None)
}

/// Footers that are whole, damaged, or valid in each of their checksums and wrong in what they say.
pub fn footer(data: &[u8]) {
    let mut input = Choices::new(data);
    let how = input.byte() % 8;
    let mut bytes = if how == 0 { input.rest().to_vec() } else { written(&mut input) };
    let hot = [0..HEAD.min(bytes.len()), HEAD.min(bytes.len())..bytes.len()];
    match how {
        1 => return any(&bytes),
        2 | 3 => {
            let before = bytes.clone();
            hurt(&mut input, &mut bytes, &hot);
            assert!(bytes == before || damage(open(&bytes)).is_none(), "damage that nobody notices");
            return;
        }
        _ => edit(&mut input, &mut bytes, &hot),
    }
    any(&bytes);
    seal(&mut bytes);
    any(&bytes);
}

/// A footer that lists what it was made of.
fn written(input: &mut Choices<'_>) -> Vec<u8> {
    let mut built = Builder::default();
    let mut lists = Vec::new();
    for n in 0..input.below(6) {
        let (mut next, first) = (input.number() >> 1, input.number() >> 8);
        let (key, start, mut list) = ((KeyspaceId(n as u32), input.number()), next, Vec::new());
        for i in 0..1 + input.below(150) as u64 {
            let count = 1 + u32::from(input.byte() % 9);
            let seq = Seq::new(first + i).unwrap_or(Seq::MAX);
            list.push(Extent { first: next, seq, tag: i / 3, offset: 8192 + i as u32, count });
            next += u64::from(count);
        }
        let run = Run { key, first: start, next, min_seq: list[0].seq, bytes: 99, extents: Range::default() };
        built.add(run, list.clone());
        lists.push(list);
    }
    let bytes = built.encode(NO, SALT);
    let (footer, runs) = open(&bytes).expect("what was written");
    assert_eq!(runs, built.runs());
    for (run, list) in runs.iter().zip(lists) {
        assert_eq!(footer.extents(run.extents).expect("what was written"), list);
        for e in [list[0], list[list.len() / 2], list[list.len() - 1]] {
            assert_eq!(footer.find(run.extents, e.next() - 1).expect("what was written"), Some(e));
        }
    }
    bytes
}

/// Makes the checksums right, as far as the numbers in the head lead nowhere.
fn seal(bytes: &mut [u8]) {
    let number = |bytes: &[u8], at| crate::coding::u32_at(bytes, at).unwrap_or_default() as usize;
    let (runs, extents) = (number(bytes, 32), number(bytes, 36));
    let fences = HEAD + runs * RUN;
    let at = fences + extents.div_ceil(BLOCK as usize) * FENCE;
    let block = BLOCK as usize * EXTENT;
    let put = |bytes: &mut [u8], at: usize, sum: u32| {
        if let Some(to) = bytes.get_mut(at..at + 4) {
            to.copy_from_slice(&sum.to_le_bytes());
        }
    };
    for (i, from) in (at..bytes.len()).step_by(block).enumerate() {
        let sum = checksum(SALT, from as u64, &bytes[from..bytes.len().min(from + block)]);
        put(bytes, (fences + i * FENCE + 8).min(at), sum);
    }
    for (to, range) in [(40, HEAD..fences), (44, fences..at)] {
        if let Some(sum) = bytes.get(range.clone()).map(|b| checksum(SALT, range.start as u64, b)) {
            put(bytes, to, sum);
        }
    }
    if let Some(sum) = bytes.get(..48).map(|b| checksum(SALT, 0, b)) {
        put(bytes, 48, sum);
    }
}

/// Whatever it says: what is found holds what was asked for, and what can be read is written as something
/// that reads the same.
fn any(bytes: &[u8]) {
    let Some((footer, runs)) = damage(open(bytes)) else { return };
    let mut again = Builder::default();
    let mut lists = Vec::new();
    for run in &runs {
        let Some(list) = damage(footer.extents(run.extents)) else { return };
        for index in list.iter().map(|e| e.first).chain([0, run.first, run.next - 1, run.next, u64::MAX]) {
            let found = damage(footer.find(run.extents, index)).flatten();
            assert!(found.is_none_or(|e| e.first <= index && index < e.next()), "{index}: {found:?}");
        }
        if list.len() < run.extents.count as usize {
            return;
        }
        again.add(*run, list.iter().copied());
        lists.push(list);
    }
    assert!(lists.iter().map(Vec::len).sum::<usize>() * EXTENT < bytes.len());
    let (footer, same) = open(&again.encode(NO, SALT)).expect("what was written");
    assert_eq!(same, runs);
    let extents = |run: &Run| footer.extents(run.extents).expect("what was written");
    assert!(same.iter().map(extents).eq(lists));
}

/// Operations on logs, their entries, and heads.
pub fn entries(data: &[u8]) {
    let mut input = Choices::new(data);
    match input.byte() % 4 {
        0 => any_op(&LogOp { code: 3 + input.byte() % 7, body: input.rest() }),
        1 => any_head(input.rest()),
        2 => append(&mut input),
        _ => heads(&mut input),
    }
}

fn any_head(bytes: &[u8]) {
    if let Some(head) = damage(Head::decode(bytes)) {
        assert!(head.first <= head.next);
        let mut row = Vec::new();
        head.encode(&mut row);
        assert_eq!(Head::decode(&row).expect("what was written"), head);
    }
    if let Some(log) = damage(head::log(bytes)) {
        assert_eq!(head::key(log), *bytes);
    }
}

fn any_op(op: &LogOp<'_>) {
    entries::describe(op);
    let checked = damage(op.check()).is_some();
    match damage(op.verb()) {
        Some(Verb::Append(e)) => {
            for index in [0, e.first, e.first + u64::from(e.count) / 2, e.next() - 1, e.next(), u64::MAX] {
                let bytes = damage(e.checked(index));
                assert!(!checked || bytes.is_some() == (e.first..e.next()).contains(&index));
                e.tag(index);
            }
            if checked {
                same_again(&e);
            }
        }
        Some(Verb::Truncate(cut) | Verb::Purge(cut) | Verb::Reset(cut)) => {
            let again = LogOp { body: &cut.encode(op.log()), ..*op };
            assert_eq!(again.verb().expect("what was written"), op.verb().expect("what was read"));
        }
        Some(Verb::Remove) => assert!(checked),
        None => assert!(!checked),
    }
}

/// Entries that are right are written as entries that are the same.
fn same_again(e: &Entries<'_>) {
    let (mut out, mut again) = (Vec::new(), entries::Builder::default());
    again.begin(&mut out, e.log, e.first);
    let bytes = |index| e.checked(index).expect("what was checked");
    for index in e.first..e.next() {
        let crc = crc32fast::hash(bytes(index)) ^ entries::place(e.log, index);
        again.add(&mut out, e.tag(index).expect("what was checked"), bytes(index), crc);
    }
    again.close(&mut out, 0);
    let same = Entries::read(&out).expect("what was written");
    assert_eq!((same.log, same.first, same.next()), (e.log, e.first, e.next()));
    assert!(same.len() <= e.len() && (e.len() - same.len()).is_multiple_of(PER_RUN), "but for runs");
    for index in e.first..e.next() {
        assert_eq!((same.checked(index).ok(), same.tag(index)), (Some(bytes(index)), e.tag(index)));
    }
}

/// Entries that were bound to no index yet, then to one; and what becomes of them when they are damaged.
fn append(input: &mut Choices<'_>) {
    let (log, first) = (input.number(), input.number() >> 1);
    let (mut body, mut builder) = (Vec::new(), entries::Builder::default());
    let mut wanted = Vec::new();
    builder.begin(&mut body, log, 0);
    for _ in 0..1 + input.below(40) {
        let (tag, bytes) = (input.number() % 3, input.some());
        builder.add(&mut body, tag, bytes, crc32fast::hash(bytes));
        wanted.push((tag, bytes));
    }
    builder.close(&mut body, 0);
    entries::rebind(&mut body, None, first).expect("what was written");
    let op = LogOp { code: entries::APPEND, body: &body };
    op.check().expect("what was written");
    let read = Entries::read(&body).expect("what was written");
    for (index, (tag, bytes)) in (first..).zip(&wanted) {
        assert_eq!((read.tag(index), read.checked(index).ok()), (Some(*tag), Some(*bytes)));
    }
    assert_eq!(LogOp::len(op.code, &body).expect("what was written"), body.len());
    // Whatever is done to it: an entry is what it was, or none.
    let all = 0..body.len();
    edit(input, &mut body, &[all, 0..entries::APPEND_HEAD]);
    any_op(&LogOp { code: entries::APPEND, body: &body });
    let Some(read) = damage(Entries::read(&body)) else { return };
    for (index, (_, bytes)) in (first..).zip(&wanted) {
        if read.log == log
            && let Some(found) = damage(read.checked(index))
        {
            assert_eq!(found, *bytes, "another entry's bytes");
        }
    }
}

/// Operations one after another: bounds stay bounds, and what is remembered of tags is what was said.
fn heads(input: &mut Choices<'_>) {
    let mut head = None;
    while !input.is_empty() {
        let Head { first, next, .. } = head.unwrap_or_default();
        let near =
            *input.pick(&[first, next, first.wrapping_sub(1), next.wrapping_add(1), input.clone().number()]);
        let cut = Cut { at: near, tag: Some(7) };
        let verb = match input.byte() % 5 {
            0 => Verb::Truncate(cut),
            1 => Verb::Purge(cut),
            2 => Verb::Reset(cut),
            3 => Verb::Remove,
            _ => continue,
        };
        match head::after(head, &verb) {
            Ok(after) => head = after,
            Err(e) => assert!(e.is_conflict(), "{e:?}"),
        }
        if let Some(head) = head {
            assert!(head.first <= head.next);
            let mut row = Vec::new();
            head.encode(&mut row);
            any_head(&row);
        }
    }
}
