//! Edits: what a job changed, and how that is written.
//!
//! # Format
//!
//! The payload of an edit record of the manifest (and, behind the database's id and where the
//! next segment starts, of a snapshot
//! record: the edit that makes the state from nothing). Numbers are varints unless a width is
//! given; `bytes` is a length and that many bytes.
//!
//! ```text
//! next file number | next keyspace id | durable journal position | last sequence number
//! changes, up to the end of the payload; the record's header counts them:
//!   tag (1 byte), then by tag
//!   1 add table         keyspace | level (1 byte) | age of the run | table
//!   2 remove table      keyspace | level (1 byte) | file number
//!   3 flushed           keyspace | sequence number
//!   4 drop keyspace     keyspace
//!   5 segment announced file number | salt of its header and records (8 bytes)
//!   6 segment sealed    file number | start | end (journal positions)
//!   7 segment gone      file number
//!   8 segment for logs  file number: a sealed segment that only log entries need, not replayed
//!   9 cold segment      file number | salt (8 bytes) | length: log entries moved there, not part of
//!                       the journal
//! table:
//!   file number | id (8 bytes) | size | smallest (bytes) | 0, or 1 and the end (bytes)
//!   smallest, largest sequence number | entries | deletes | range deletes | raw bytes
//!   superseded entries | 1 if it is dense in tombstones somewhere, else 0
//! ```
//!
//! An unknown tag is refused: whoever wrote it knows something about the files that we do not.

use crate::coding::{Reader, put_bytes, put_varint};
use crate::dump::{self, Dump};
use crate::error::{Error, Result};
use crate::ids::{FileNo, KeyspaceId, Position, Seq};
use crate::key::MAX_BOUND_LEN;
use crate::version::levels::TableMeta;

/// One change of the [state](crate::version::State).
///
/// The changes of one edit happen together: what goes is taken away before what comes is put in
/// its place, in whatever order they are listed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// Adds a table to the run of age `run`, which is made if need be.
    AddTable {
        keyspace: KeyspaceId,
        level: u8,
        run: Seq,
        table: TableMeta,
    },
    RemoveTable {
        keyspace: KeyspaceId,
        level: u8,
        no: FileNo,
    },
    /// Everything of this keyspace at or below `seq` is in tables. Makes the keyspace known.
    Flushed {
        keyspace: KeyspaceId,
        seq: Seq,
    },
    /// Forgets the keyspace and its tables. One that is not known is fine.
    DropKeyspace {
        keyspace: KeyspaceId,
    },
    /// A journal segment of this number may exist from here on.
    SegmentAnnounced {
        no: FileNo,
        salt: u64,
    },
    /// The announced segment is complete and durable, and holds this part of the journal.
    SegmentSealed {
        no: FileNo,
        start: Position,
        end: Position,
    },
    /// The segment is no longer needed; its file may be removed.
    SegmentGone {
        no: FileNo,
    },
    /// Of the sealed segment only entries of logs are needed from here on.
    SegmentForLogs {
        no: FileNo,
    },
    /// A complete and durable segment that only entries of logs were moved to.
    ColdSegment {
        no: FileNo,
        salt: u64,
        len: u64,
    },
}

impl Edit {
    /// Whether the edit adds table `no`.
    pub fn adds(&self, no: FileNo) -> bool {
        self.changes.iter().any(|c| matches!(c, Change::AddTable { table, .. } if table.no == no))
    }
}

/// Changes that become durable together.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Edit {
    /// The journal is durable up to here.
    pub durable: Position,
    /// The newest sequence number that is durable in the journal. No table of the edit, and
    /// nothing it calls flushed, is newer.
    pub last_seq: Seq,
    pub changes: Vec<Change>,
}

/// What the [set](crate::version::VersionSet) adds to an edit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Counters {
    /// The edit's number, one more than the last one's.
    pub number: u64,
    /// No file has this number or a larger one.
    pub next_file: FileNo,
    /// No keyspace has this id or a larger one.
    pub next_keyspace: u32,
}

const ADD_TABLE: u8 = 1;
const REMOVE_TABLE: u8 = 2;
const FLUSHED: u8 = 3;
const DROP_KEYSPACE: u8 = 4;
const SEGMENT_ANNOUNCED: u8 = 5;
const SEGMENT_SEALED: u8 = 6;
const SEGMENT_GONE: u8 = 7;
const SEGMENT_FOR_LOGS: u8 = 8;
const COLD_SEGMENT: u8 = 9;

/// Appends what stands before the changes.
pub(super) fn encode_head(out: &mut Vec<u8>, counters: Counters, durable: Position, last_seq: Seq) {
    put_varint(out, counters.next_file.0);
    put_varint(out, u64::from(counters.next_keyspace));
    put_varint(out, durable.0);
    put_varint(out, last_seq.get());
}

/// Appends one table as it is added.
pub(super) fn encode_add(out: &mut Vec<u8>, keyspace: KeyspaceId, level: u8, run: Seq, table: &TableMeta) {
    out.push(ADD_TABLE);
    put_varint(out, u64::from(keyspace.0));
    out.push(level);
    put_varint(out, run.get());
    put_varint(out, table.no.0);
    out.extend_from_slice(&table.id.to_le_bytes());
    put_varint(out, table.size);
    put_bytes(out, &table.smallest);
    out.push(u8::from(table.end.is_some()));
    if let Some(end) = &table.end {
        put_bytes(out, end);
    }
    for n in [
        table.min_seq.get(),
        table.max_seq.get(),
        table.entries,
        table.deletes,
        table.range_deletes,
        table.raw_bytes,
        table.superseded,
        u64::from(table.dense),
    ] {
        put_varint(out, n);
    }
}

impl Change {
    /// The keyspace whose tables it changes.
    pub(super) fn levels_of(&self) -> Option<KeyspaceId> {
        match self {
            Change::AddTable { keyspace, .. } | Change::RemoveTable { keyspace, .. } => Some(*keyspace),
            _ => None,
        }
    }

    /// Appends tag and fields.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let mut put = |tag: u8, fields: &[u64]| {
            out.push(tag);
            fields.iter().for_each(|&n| put_varint(out, n));
        };
        match self {
            Change::AddTable { keyspace, level, run, table } => {
                encode_add(out, *keyspace, *level, *run, table)
            }
            Change::RemoveTable { keyspace, level, no } => {
                put(REMOVE_TABLE, &[u64::from(keyspace.0)]);
                out.push(*level);
                put_varint(out, no.0);
            }
            Change::Flushed { keyspace, seq } => put(FLUSHED, &[u64::from(keyspace.0), seq.get()]),
            Change::DropKeyspace { keyspace } => put(DROP_KEYSPACE, &[u64::from(keyspace.0)]),
            Change::SegmentAnnounced { no, salt } => {
                put(SEGMENT_ANNOUNCED, &[no.0]);
                out.extend_from_slice(&salt.to_le_bytes());
            }
            Change::SegmentSealed { no, start, end } => put(SEGMENT_SEALED, &[no.0, start.0, end.0]),
            Change::SegmentGone { no } => put(SEGMENT_GONE, &[no.0]),
            Change::SegmentForLogs { no } => put(SEGMENT_FOR_LOGS, &[no.0]),
            Change::ColdSegment { no, salt, len } => {
                put(COLD_SEGMENT, &[no.0]);
                out.extend_from_slice(&salt.to_le_bytes());
                put_varint(out, *len);
            }
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Change> {
        let keyspace = |r: &mut Reader<'_>| Ok::<_, Error>(KeyspaceId(r.varint32()?));
        let file = |r: &mut Reader<'_>| Ok::<_, Error>(FileNo(r.varint()?));
        Ok(match r.u8()? {
            ADD_TABLE => Change::AddTable {
                keyspace: keyspace(r)?,
                level: r.u8()?,
                run: seq(r)?,
                table: decode_table(r)?,
            },
            REMOVE_TABLE => Change::RemoveTable { keyspace: keyspace(r)?, level: r.u8()?, no: file(r)? },
            FLUSHED => Change::Flushed { keyspace: keyspace(r)?, seq: seq(r)? },
            DROP_KEYSPACE => Change::DropKeyspace { keyspace: keyspace(r)? },
            SEGMENT_ANNOUNCED => Change::SegmentAnnounced { no: file(r)?, salt: r.u64()? },
            SEGMENT_SEALED => Change::SegmentSealed {
                no: file(r)?,
                start: Position(r.varint()?),
                end: Position(r.varint()?),
            },
            SEGMENT_GONE => Change::SegmentGone { no: file(r)? },
            SEGMENT_FOR_LOGS => Change::SegmentForLogs { no: file(r)? },
            COLD_SEGMENT => Change::ColdSegment { no: file(r)?, salt: r.u64()?, len: r.varint()? },
            tag => return Err(Error::corruption(format!("unknown change {tag} in an edit"))),
        })
    }
}

fn seq(r: &mut Reader<'_>) -> Result<Seq> {
    Seq::new(r.varint()?).ok_or_else(|| Error::corruption("a sequence number exceeds 56 bits"))
}

fn decode_table(r: &mut Reader<'_>) -> Result<TableMeta> {
    Ok(TableMeta {
        no: FileNo(r.varint()?),
        id: r.u64()?,
        size: r.varint()?,
        smallest: r.bytes(MAX_BOUND_LEN)?.into(),
        end: match r.u8()? {
            0 => None,
            1 => Some(r.bytes(MAX_BOUND_LEN)?.into()),
            n => return Err(Error::corruption(format!("a table's end is marked {n}, neither 0 nor 1"))),
        },
        min_seq: seq(r)?,
        max_seq: seq(r)?,
        entries: r.varint()?,
        deletes: r.varint()?,
        range_deletes: r.varint()?,
        raw_bytes: r.varint()?,
        superseded: r.varint()?,
        dense: match r.u8()? {
            0 => false,
            1 => true,
            n => return Err(Error::corruption(format!("a table's density is {n}, neither 0 nor 1"))),
        },
    })
}

impl Edit {
    /// Appends the payload. Its record's header holds `counters.number` and the number of changes.
    pub(super) fn encode(&self, out: &mut Vec<u8>, counters: Counters) {
        encode_head(out, counters, self.durable, self.last_seq);
        self.changes.iter().for_each(|change| change.encode(out));
    }

    /// Reads `count` changes and what stands before them, to the end of `payload`.
    pub(super) fn decode(payload: &[u8], number: u64, count: u32) -> Result<(Counters, Edit)> {
        let r = &mut Reader::new(payload);
        let counters = Counters { number, next_file: FileNo(r.varint()?), next_keyspace: r.varint32()? };
        let mut edit = Edit { durable: Position(r.varint()?), last_seq: seq(r)?, changes: Vec::new() };
        // A change takes two bytes at least, so a claimed count ends with the payload.
        for _ in 0..count {
            edit.changes.push(Change::decode(r)?);
        }
        match r.is_empty() {
            true => Ok((counters, edit)),
            false => Err(Error::corruption("bytes follow the last change of an edit")),
        }
    }
}

/// Shows an edit's payload, which begins where the dump stands and ends after `len` bytes.
pub(super) fn dump_payload(d: &mut Dump<'_>, payload: &[u8], count: u32) {
    let r = &mut Reader::new(payload);
    let shown = (|| {
        for what in ["next file", "next keyspace", "durable position", "last sequence number"] {
            dump_varint(d, r, what)?;
        }
        for _ in 0..count {
            let at = r.at();
            let change = Change::decode(r)?;
            d.field(r.at() - at, describe(&change));
        }
        Ok::<_, Error>(())
    })();
    let left = payload.len() - r.at().min(payload.len());
    if let Err(e) = shown {
        d.field(left, format_args!("unreadable: {e}"));
    } else if left > 0 {
        d.field(left, "left over");
    }
}

fn dump_varint(d: &mut Dump<'_>, r: &mut Reader<'_>, what: &str) -> Result<()> {
    let at = r.at();
    let n = r.varint()?;
    d.field(r.at() - at, format_args!("{what} = {n}"));
    Ok(())
}

fn describe(change: &Change) -> String {
    match change {
        Change::AddTable { keyspace, level, run, table: t } => {
            let end = t.end.as_ref().map_or("the last key".into(), |end| dump::text(end));
            format!(
                "add table {} to keyspace {keyspace}, level {level}, run {run}: id {:016x}, {} bytes, {} to {end}, \
                 sequence {} to {}, {} entries, {} deletes, {} range deletes, {} raw bytes, {} superseded{}",
                t.no,
                t.id,
                t.size,
                dump::text(&t.smallest),
                t.min_seq,
                t.max_seq,
                t.entries,
                t.deletes,
                t.range_deletes,
                t.raw_bytes,
                t.superseded,
                if t.dense { ", dense" } else { "" }
            )
        }
        Change::RemoveTable { keyspace, level, no } => {
            format!("remove table {no} from keyspace {keyspace}, level {level}")
        }
        Change::Flushed { keyspace, seq } => format!("keyspace {keyspace} flushed to {seq}"),
        Change::DropKeyspace { keyspace } => format!("drop keyspace {keyspace}"),
        Change::SegmentAnnounced { no, salt } => format!("segment {no} announced, salt {salt:016x}"),
        Change::SegmentSealed { no, start, end } => format!("segment {no} sealed, {start} to {end}"),
        Change::SegmentGone { no } => format!("segment {no} gone"),
        Change::SegmentForLogs { no } => format!("segment {no} is for logs only"),
        Change::ColdSegment { no, salt, len } => {
            format!("cold segment {no} of {len} bytes, salt {salt:016x}")
        }
    }
}
