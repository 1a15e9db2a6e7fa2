//! What the files of a database are made of, told by their dumps: pieces with names, for damage to be
//! aimed at and counted by, and what journal and manifest say of each other.

use super::logs::Append;
use esker::fs::sim::SimFs;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A stretch of a file.
#[derive(Clone, Debug)]
pub struct Piece {
    pub range: Range<usize>,
    pub what: &'static str,
}

/// A file, and what it is to the database.
#[derive(Clone, Debug)]
pub struct FileAt {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
    pub pieces: Vec<Piece>,
    /// The manifest that counts names it, or is it.
    pub counts: bool,
}

impl FileAt {
    pub fn kind(&self) -> &'static str {
        kind(&self.path)
    }

    /// What stands at this offset.
    pub fn what(&self, at: usize) -> &'static str {
        let i = self.pieces.partition_point(|p| p.range.end <= at);
        self.pieces.get(i).map_or("behind the end", |p| p.what)
    }
}

pub fn kind(path: &Path) -> &'static str {
    match path.extension().and_then(|e| e.to_str()) {
        Some("journal") => "journal",
        Some("manifest") => "manifest",
        Some("table") => "table",
        Some("footer") => "footer",
        Some(other) => panic!("{other}"),
        None if path.ends_with("HINT") => "hint",
        None if path.ends_with("LOCK") => "lock",
        None => "reserve",
    }
}

/// A line of a dump: where, and what it says; a title has no place.
pub type Line = (Option<usize>, String);

fn lines(disk: &SimFs, path: &Path) -> Vec<Line> {
    let text = esker::inspect::dump(disk, path).unwrap();
    let mut lines: Vec<Line> = Vec::new();
    let mut unpacked = false;
    for line in text.lines() {
        match line.strip_prefix("# ") {
            // Rows belong to the block before them, and offsets in what was decompressed to nothing.
            Some(row) if row.starts_with(' ') => {}
            Some(title) => {
                unpacked = title.ends_with("decompressed");
                if !unpacked {
                    lines.push((None, title.into()));
                }
            }
            None if unpacked => {}
            None => {
                let at = usize::from_str_radix(&line[..8], 16).unwrap();
                lines.push((Some(at), line.get(59..).unwrap_or_default().into()));
            }
        }
    }
    lines
}

fn pieces_of(kind: &str, lines: &[Line], len: usize) -> Vec<Piece> {
    let titles: Vec<usize> = (0..lines.len()).filter(|&i| lines[i].0.is_none()).collect();
    let last_edit = titles.iter().rfind(|&&i| lines[i].1.starts_with("Edit")).copied();
    let mut starts: Vec<(usize, &'static str)> = Vec::new();
    for i in titles {
        let title = &lines[i].1;
        let number = |text: Option<&str>| text.and_then(|n| n.trim().parse::<usize>().ok());
        let next = lines[i + 1..].iter().find_map(|l| l.0);
        let (at, what) = match kind {
            "journal" if title == "journal segment" => {
                starts.extend([(0, "header"), (84, "not looked at"), (4096, "header")]);
                (Some(4180), "not looked at")
            }
            "journal" if title.starts_with("no record") => {
                (number(title.split("offset").nth(1)), "never written")
            }
            "journal" => (next, "record"),
            "manifest" if title.starts_with("header") => (next, "header"),
            "manifest" if title.starts_with("Snapshot") => (next, "snapshot"),
            "manifest" if Some(i) == last_edit => (next, "last edit"),
            "manifest" if title.starts_with("Edit") => (next, "edit"),
            "manifest" if title == "not valid" => (next, "never written"),
            "manifest" => (number(title.split(' ').next()).map(|zeros| len - zeros), "never written"),
            "table" => {
                let sections = ["range tombstones", "filter", "index", "properties", "footer"];
                (next, sections.into_iter().find(|s| *s == title).unwrap_or("data block"))
            }
            "hint" => (next, "slot"),
            "footer" => {
                let parts = ["run", "fence", "extent"];
                (next, parts.into_iter().find(|s| s == title).unwrap_or("head"))
            }
            other => panic!("{other}"),
        };
        starts.extend(at.map(|at| (at, what)));
    }
    // An empty section begins where the next one does.
    let ends = starts.iter().skip(1).map(|s| s.0).chain([len]).collect::<Vec<_>>();
    let pieces = starts.iter().zip(ends).map(|(&(at, what), end)| Piece { range: at..end, what });
    pieces.filter(|p| !p.range.is_empty()).collect()
}

/// A record of the journal.
#[derive(Clone, Debug)]
pub struct Record {
    pub range: Range<usize>,
    pub watermark: u64,
    /// The first sequence number; a mark has none.
    pub batch: Option<u64>,
}

/// A segment that was used, as it was written.
#[derive(Clone, Debug)]
pub struct Segment {
    pub path: PathBuf,
    pub start: u64,
    pub durable: u64,
    pub capacity: usize,
    pub bytes: Vec<u8>,
    pub records: Vec<Record>,
}

impl Segment {
    fn new(path: &Path, bytes: &[u8], lines: &[Line], pieces: &[Piece]) -> Option<Segment> {
        if lines.iter().any(|l| l.1 == "this header is not valid") {
            return None;
        }
        let field = |within: &Range<usize>, name: &str| -> u64 {
            let here = |l: &&Line| l.0.is_some_and(|at| within.contains(&at));
            let value = lines.iter().filter(here).find_map(|l| l.1.strip_prefix(name)?.strip_prefix(" = "));
            let value = value.unwrap_or_else(|| panic!("{name} in {path:?} at {within:?}"));
            value.split(',').next().unwrap().parse().unwrap()
        };
        // One that is to be reused has the header of its earlier life until it is.
        if path.file_stem().unwrap().to_str().unwrap().parse() != Ok(field(&(0..84), "segment number")) {
            return None;
        }
        let records = pieces.iter().filter(|p| p.what == "record").map(|p| Record {
            range: p.range.clone(),
            watermark: field(&p.range, "watermark"),
            batch: (field(&p.range, "count") > 0).then(|| field(&p.range, "first sequence number")),
        });
        Some(Segment {
            path: path.into(),
            start: field(&(0..84), "start position"),
            durable: field(&(0..84), "durable position"),
            capacity: field(&(0..84), "capacity") as usize,
            bytes: bytes.into(),
            records: records.collect(),
        })
    }
}

/// A segment that is not replayed.
#[derive(Clone, Debug)]
pub struct LogOnly {
    /// How many bytes of it count.
    pub len: u64,
    pub cold: bool,
}

/// What the manifest that counts says.
#[derive(Clone, Default, Debug)]
pub struct Named {
    pub durable: u64,
    /// Where the last sealed segment ended.
    pub sealed_end: u64,
    /// Announced and, if it was sealed, from where to where; without those that only logs need.
    pub segments: BTreeMap<PathBuf, Option<(u64, u64)>>,
    /// Those that only logs need.
    pub log_only: BTreeMap<PathBuf, LogOnly>,
    pub tables: BTreeSet<PathBuf>,
}

impl Named {
    fn new(dir: &Path, lines: &[Line]) -> Named {
        let mut named = Named::default();
        for (_, text) in lines {
            let words: Vec<&str> = text.split([' ', ',']).filter(|w| !w.is_empty()).collect();
            let number = |word: &str| word.parse::<u64>().unwrap();
            match words[..] {
                ["segment", no, "announced", ..] => {
                    named.segments.insert(dir.join(format!("{no}.journal")), None);
                }
                ["segment", no, "sealed", from, "to", to] => {
                    let range = (number(from), number(to));
                    named.segments.insert(dir.join(format!("{no}.journal")), Some(range));
                    named.sealed_end = named.sealed_end.max(range.1);
                }
                ["segment", no, "gone"] => {
                    let path = dir.join(format!("{no}.journal"));
                    named.segments.remove(&path);
                    named.log_only.remove(&path);
                }
                ["segment", no, "is", "for", "logs", "only"] => {
                    let path = dir.join(format!("{no}.journal"));
                    let (from, to) = named.segments.remove(&path).flatten().expect("a sealed segment");
                    named.log_only.insert(path, LogOnly { len: to - from, cold: false });
                }
                ["cold", "segment", no, "of", len, ..] => {
                    let cold = LogOnly { len: number(len), cold: true };
                    named.log_only.insert(dir.join(format!("{no}.journal")), cold);
                }
                ["durable", "position", "=", at] => named.durable = named.durable.max(number(at)),
                ["next", "segment", "starts", "at", "=", at] => named.sealed_end = number(at),
                ["add", "table", no, "to", ..] => {
                    named.tables.insert(dir.join(format!("{no}.table")));
                }
                ["remove", "table", no, ..] => {
                    named.tables.remove(&dir.join(format!("{no}.table")));
                }
                _ => {}
            }
        }
        named
    }
}

/// All files of a database at rest.
#[derive(Clone, Debug)]
pub struct Anatomy {
    pub files: Vec<FileAt>,
    pub named: Named,
    /// Those that were used and that the manifest names, in the order of the journal.
    pub journal: Vec<Segment>,
    /// Appends to logs, wherever the manifest names the segment.
    pub appends: Vec<Append>,
}

impl Anatomy {
    /// `manifest`: the one that counts.
    pub fn new(disk: &SimFs, dir: &Path, manifest: &Path) -> Anatomy {
        let named = Named::new(dir, &lines(disk, manifest));
        let (mut files, mut journal, mut appends) = (Vec::new(), Vec::new(), Vec::new());
        for (path, len) in disk.files().into_iter().filter(|f| f.0.starts_with(dir)) {
            let (kind, bytes) = (kind(&path), disk.read(&path).unwrap());
            let log_only = named.log_only.contains_key(&path.with_extension("journal"));
            let replayed = named.segments.contains_key(&path);
            let counts = path == manifest
                || replayed
                || log_only && ["journal", "footer"].contains(&kind)
                || named.tables.contains(&path)
                || kind == "hint";
            let mut pieces = vec![Piece { range: 0..len as usize, what: "all of it" }];
            if !["lock", "reserve"].contains(&kind) && len > 0 {
                let lines = lines(disk, &path);
                match kind {
                    "journal" => {
                        match Segment::new(&path, &bytes, &lines, &pieces_of(kind, &lines, len as usize)) {
                            Some(segment) => {
                                pieces = pieces_of(kind, &lines, len as usize);
                                if counts {
                                    appends.extend(Append::all(&segment, &lines));
                                }
                                if replayed {
                                    journal.push(segment);
                                }
                            }
                            None => pieces[0].what = "never used",
                        }
                    }
                    _ => pieces = pieces_of(kind, &lines, len as usize),
                }
            }
            files.push(FileAt { path, bytes, pieces, counts });
        }
        journal.sort_by_key(|s| s.start);
        Anatomy { files, named, journal, appends }
    }

    pub fn file(&self, path: &Path) -> Option<&FileAt> {
        self.files.iter().find(|f| f.path == path)
    }
}
