//! A table file in words: every byte and what it means. Golden files hold the format; `inspect`
//! prints tables with it.

use crate::dump::{Dump, text};
use crate::record::checksum;
use crate::table::block::{Block, KeyBuf, Layout};
use crate::table::format::{self, Codec, FOOTER_LEN, Footer, Properties, Section, TRAILER_LEN};
use crate::table::index::{BlockAt, Index};
use crate::table::{codec, filter};

/// Describes the table whose bytes these are. Damage is described, too.
pub(crate) fn dump(bytes: &[u8]) -> String {
    let Some((body, end)) = bytes.split_last_chunk::<FOOTER_LEN>() else {
        return "# too short for a table\n".into();
    };
    let mut id = Dump::new(end, 0);
    let id = id.number(8, "");
    let footer = Footer::decode(end, id, body.len() as u64);
    let mut out = match &footer {
        Ok(footer) => dump_body(body, footer),
        Err(e) => format!("# {e}\n"),
    };
    let mut d = Dump::new(end, body.len() as u64);
    d.title("footer");
    d.field(8, format_args!("table id {id:016x}"));
    for name in ["range tombstones", "filter", "index", "properties"] {
        d.number(8, &format!("{name}: length"));
        d.field(4, format_args!("{name}: checksum"));
    }
    d.number(4, "feature flags");
    d.number(4, "format version");
    d.field(4, "checksum");
    let magic = d.at();
    d.field(8, text(&end[magic..]));
    out.push_str(&d.finish());
    out
}

fn dump_body(body: &[u8], footer: &Footer) -> String {
    let section = |section: Section| {
        let (start, end) = (section.offset as usize, (section.offset + section.len) as usize);
        body.get(start..end).unwrap_or_default()
    };
    let mut out = String::new();
    let index = section(footer.index);
    let decoded = Index::decode(index, footer.data_len);
    match &decoded {
        Ok(index) => {
            for i in 0..index.len() {
                if let Some(at) = index.block(i) {
                    out.push_str(&dump_stored(body, footer.id, i, at));
                }
            }
        }
        Err(e) => out = format!("# {e}\n"),
    }
    for (name, at, dump) in [
        ("range tombstones", footer.tombstones, dump_tombstones as fn(&[u8], &mut Dump<'_>)),
        ("filter", footer.filter, dump_filter),
        ("index", footer.index, dump_index),
        ("properties", footer.properties, dump_properties),
    ] {
        let bytes = section(at);
        let mut d = Dump::new(bytes, at.offset);
        let state = if at.check(footer.id, bytes).is_ok() { "" } else { ", DAMAGED" };
        d.title(format_args!("{name}{state}"));
        dump(bytes, &mut d);
        let left = bytes.len() - d.at();
        if left > 0 {
            d.field(left, "bytes without a meaning");
        }
        out.push_str(&d.finish());
    }
    out
}

/// A data block as it is stored, then what it holds.
fn dump_stored(body: &[u8], id: u64, i: usize, at: BlockAt) -> String {
    let stored = body.get(at.offset as usize..at.end() as usize).unwrap_or_default();
    let contents = stored.len().saturating_sub(TRAILER_LEN);
    let codec = format::open_block(id, at.offset, stored);
    let mut d = Dump::new(stored, at.offset);
    let mut unpacked = Dump::new(&[], 0);
    d.title(format_args!("data block {i}"));
    let mut raw = Vec::new();
    match &codec {
        Ok((Codec::Raw, contents)) => {
            let raw = at.raw().min(contents.len());
            dump_block(&contents[..raw], &mut d);
            if raw < contents.len() {
                d.field(contents.len() - raw, "filling");
            }
        }
        Ok((codec, packed)) => {
            d.field(packed.len(), format_args!("contents, {codec:?}"));
            raw.resize(if codec::plausible(*codec, packed, at.raw()).is_ok() { at.raw() } else { 0 }, 0);
            let done = codec::decompress(*codec, packed, &mut raw);
            unpacked = Dump::new(&raw, 0);
            unpacked.title(format_args!("data block {i}, decompressed"));
            match done {
                Ok(()) => dump_block(&raw, &mut unpacked),
                Err(e) => drop(unpacked.title(e)),
            }
        }
        Err(e) => {
            d.title(e);
            d.field(contents, "contents");
        }
    }
    d.number(1, "codec");
    let covered = stored.len().saturating_sub(4);
    let sum = checksum(id, at.offset, stored.get(..covered).unwrap_or_default());
    let fits = stored.get(covered..) == Some(&sum.to_le_bytes()[..]);
    d.field(4, if fits { "checksum" } else { "checksum, DOES NOT MATCH" });
    d.finish() + &unpacked.finish()
}

/// The columns of a data block, then its rows.
fn dump_block(bytes: &[u8], d: &mut Dump<'_>) {
    let layout = match Layout::parse(bytes) {
        Ok(layout) => layout,
        Err(e) => {
            d.title(e);
            d.field(bytes.len(), "contents");
            return;
        }
    };
    d.number(4, "rows");
    d.number(1, "flags");
    d.number(1, "width of a trailer delta");
    d.number(1, "kind");
    d.number(1, "zero");
    d.number(8, "trailer base");
    d.number(4, "length of the prefix");
    d.number(4, "length of key rests");
    d.number(4, "length of values");
    for (name, column) in layout.columns() {
        if !column.is_empty() {
            let bytes = bytes.get(column.clone()).unwrap_or_default();
            let shown =
                if matches!(name, "prefix" | "key rests" | "values") { text(bytes) } else { String::new() };
            d.field(column.len(), format_args!("{name} {shown}"));
        }
    }
    let block = Block::new(bytes, &layout);
    if let Err(e) = block.check() {
        d.title(e);
        return;
    }
    let mut key = KeyBuf::default();
    block.read_prefix(&mut key);
    for row in 0..layout.rows() {
        block.change_key(row, block.head(row), &mut key);
        let trailer = block.trailer(row);
        let value = text(bytes.get(block.value_span(row)).unwrap_or_default());
        let key = text(key.as_slice());
        d.title(format_args!("  {row}: {key} {:?} at {} {value}", trailer.kind(), trailer.seq()));
    }
}

/// A varint and what it means; returns it.
fn dump_varint(bytes: &[u8], d: &mut Dump<'_>, meaning: &str) -> usize {
    let left = bytes.get(d.at()..).unwrap_or_default();
    let mut r = crate::coding::Reader::new(left);
    let n = r.varint().unwrap_or_default();
    d.field(r.at(), format_args!("{meaning} = {n}"));
    n as usize
}

/// A varint length and that many bytes.
fn dump_bytes(bytes: &[u8], d: &mut Dump<'_>, meaning: &str) {
    let len = dump_varint(bytes, d, &format!("{meaning}: length"));
    let start = d.at();
    let end = start.saturating_add(len).min(bytes.len());
    d.field(len, format_args!("{meaning} {}", text(&bytes[start..end])));
}

fn dump_end(bytes: &[u8], d: &mut Dump<'_>) {
    if d.number(1, "has an end") == 1 {
        dump_bytes(bytes, d, "end");
    }
}

fn dump_tombstones(bytes: &[u8], d: &mut Dump<'_>) {
    if bytes.is_empty() {
        return;
    }
    for _ in 0..dump_varint(bytes, d, "fragments") {
        if d.at() == bytes.len() {
            break;
        }
        dump_bytes(bytes, d, "start");
        dump_end(bytes, d);
        for _ in 0..dump_varint(bytes, d, "deletes") {
            if d.at() == bytes.len() {
                break;
            }
            d.number(8, "sequence number");
        }
    }
}

fn dump_filter(bytes: &[u8], d: &mut Dump<'_>) {
    if bytes.is_empty() {
        return;
    }
    d.number(1, "kind");
    d.number(1, "probes");
    d.number(2, "zero");
    let lines = d.number(4, "lines");
    for i in 0..lines {
        if d.at() == bytes.len() {
            break;
        }
        d.field(filter::LINE_LEN, format_args!("line {i}"));
    }
}

fn dump_index(bytes: &[u8], d: &mut Dump<'_>) {
    let n = d.number(4, "blocks");
    let prefix = d.number(4, "length of the prefix") as usize;
    let start = d.at();
    let end = start.saturating_add(prefix).min(bytes.len());
    if prefix > 0 {
        d.field(prefix, format_args!("prefix {}", text(&bytes[start..end])));
    }
    for (width, meaning) in [
        (8, "end of the block"),
        (4, "length of its contents (highest bit: compressed)"),
        (4, "end of its separator"),
    ] {
        for _ in 0..n {
            if d.at() == bytes.len() {
                break;
            }
            d.number(width, meaning);
        }
    }
    let rests = &bytes[d.at()..];
    d.field(rests.len(), format_args!("separators {}", text(rests)));
}

fn dump_properties(bytes: &[u8], d: &mut Dump<'_>) {
    if let Err(e) = Properties::decode(bytes) {
        d.title(e);
    }
    for name in ["entries", "deletes", "range deletes", "bytes of keys and values", "min seq", "max seq"] {
        d.number(8, name);
    }
    for name in ["blocks", "block size", "filter bits per key", "codec"] {
        d.number(4, name);
    }
    dump_bytes(bytes, d, "smallest");
    dump_end(bytes, d);
}
