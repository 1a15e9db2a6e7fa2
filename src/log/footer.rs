//! A footer: which entries of which logs lie where in a segment, in a file beside it. Derived from the
//! segment: one that is missing or damaged is made again.
//!
//! # Format
//!
//! Numbers are little-endian.
//!
//! ```text
//! offset  size  field
//!      0     8  magic "ESKRFOOT"
//!      8     4  format version: 1
//!     12     4  zero
//!     16     8  number of the segment
//!     24     8  salt of the segment
//!     32     4  number of runs
//!     36     4  number of extents
//!     40     4  checksum of the runs
//!     44     4  checksum of the fences
//!     48     4  checksum of bytes 0..48
//!     52    12  zero
//!     64    56  each run, in the order of keyspace, log and index
//!            4    keyspace
//!            4    number of its first extent
//!            8    log
//!            8    index of its first entry
//!            8    index behind its last
//!            8    sequence number of its first extent
//!            8    bytes that its entries take in the segment, about
//!            4    number of its extents
//!            4    zero
//!      -    16  each fence, one for every 64 extents
//!            8    index of the first entry of the first of them
//!            4    checksum of them
//!            4    zero
//!      -    32  each extent, those of a run together and in the order of their indexes
//!            8    index of its first entry
//!            8    sequence number
//!            8    tag
//!            4    where in the segment the operation stands, from its log on
//!            4    number of entries
//! ```
//!
//! A run is entries without a gap that were committed to one segment; what other segments hold of the
//! log is older than all of it or newer. Checksums are crc32, seeded with the segment's salt and the
//! offset of what they cover.

use crate::budget::OpenFile;
use crate::coding::{u32_at, u64_at};
use crate::dump::Dump;
use crate::error::{Error, Result};
use crate::fs::{File, SharedBytes, read_exact_at};
use crate::ids::{FileNo, KeyspaceId, Seq};
use crate::log::extent::{Extent, LogKey};
use crate::mutant::Mutant;
use crate::record::checksum;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: [u8; 8] = *b"ESKRFOOT";
const VERSION: u32 = 1;
pub(super) const HEAD: usize = 64;
const CHECKED: usize = 48;
pub(super) const RUN: usize = 56;
pub(super) const FENCE: usize = 16;
pub(super) const EXTENT: usize = 32;
/// So many extents have a fence.
pub(super) const BLOCK: u32 = 64;
/// No run can take more: offsets in a segment have 32 bits, and by itself no operation takes four times what
/// it takes beside others. Sums of these do not overflow.
const MAX_BYTES: u64 = 4 << 32;

/// Entries of a log without a gap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub key: LogKey,
    pub first: u64,
    pub next: u64,
    pub min_seq: Seq,
    pub bytes: u64,
    /// Which of the extents are its own.
    pub extents: Range,
}

/// Numbers of extents.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Range {
    pub start: u32,
    pub count: u32,
}

impl Range {
    /// The number behind the last.
    fn end(&self) -> u32 {
        self.start.saturating_add(self.count)
    }
}

/// A footer being built.
#[derive(Default)]
pub(crate) struct Builder {
    runs: Vec<Run>,
    extents: Vec<Extent>,
}

/// The footer of an open segment: its extents are read where they lie.
pub(crate) struct Footer {
    path: PathBuf,
    salt: u64,
    extents: u32,
    /// Index and checksum.
    fences: Vec<(u64, u32)>,
    /// Number and checksum of the runs.
    runs: (usize, u32),
    /// Where the extents begin.
    at: u64,
    source: Source,
    _count: Option<OpenFile>,
}

/// Where the bytes are.
pub(crate) enum Source {
    Shared(SharedBytes),
    File(Arc<dyn File>),
}

impl Builder {
    /// Adds a run; all of them in the order of their keys and indexes. Which extents are its own is
    /// filled in.
    pub fn add(&mut self, run: Run, extents: impl IntoIterator<Item = Extent>) {
        let start = self.extents.len() as u32;
        self.extents.extend(extents);
        let extents = Range { start, count: self.extents.len() as u32 - start };
        let missing = u64::from(Mutant::FooterEndsEarly.on() && run.next - run.first > 1);
        self.runs.push(Run { extents, next: run.next - missing, ..run });
    }

    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    pub fn encode(&self, no: FileNo, salt: u64) -> Vec<u8> {
        let fences = self.extents.len().div_ceil(BLOCK as usize);
        let (runs_len, fences_len) = (self.runs.len() * RUN, fences * FENCE);
        let at = HEAD + runs_len + fences_len;
        let mut out = Vec::with_capacity(at + self.extents.len() * EXTENT);
        out.resize(HEAD, 0);
        for run in &self.runs {
            out.extend_from_slice(&run.key.0.0.to_le_bytes());
            out.extend_from_slice(&run.extents.start.to_le_bytes());
            for n in [run.key.1, run.first, run.next, run.min_seq.get(), run.bytes] {
                out.extend_from_slice(&n.to_le_bytes());
            }
            out.extend_from_slice(&run.extents.count.to_le_bytes());
            out.extend_from_slice(&[0; 4]);
        }
        out.resize(at, 0);
        for e in &self.extents {
            for n in [e.first, e.seq.get(), e.tag] {
                out.extend_from_slice(&n.to_le_bytes());
            }
            out.extend_from_slice(&e.offset.to_le_bytes());
            out.extend_from_slice(&e.count.to_le_bytes());
        }
        let (head, blocks) = out.split_at_mut(at);
        let (top, fences) = head.split_at_mut(HEAD + runs_len);
        for (i, (fence, block)) in
            fences.chunks_exact_mut(FENCE).zip(blocks.chunks(BLOCK as usize * EXTENT)).enumerate()
        {
            let offset = at + i * BLOCK as usize * EXTENT;
            fence[..8].copy_from_slice(&block[..8]);
            fence[8..12].copy_from_slice(&checksum(salt, offset as u64, block).to_le_bytes());
        }
        let runs_crc = checksum(salt, HEAD as u64, &top[HEAD..]);
        let fences_crc = checksum(salt, (HEAD + runs_len) as u64, fences);
        top[..8].copy_from_slice(&MAGIC);
        top[8..12].copy_from_slice(&VERSION.to_le_bytes());
        top[16..24].copy_from_slice(&no.0.to_le_bytes());
        top[24..32].copy_from_slice(&salt.to_le_bytes());
        let numbers = [self.runs.len() as u32, self.extents.len() as u32, runs_crc, fences_crc];
        for (to, n) in top[32..CHECKED].chunks_exact_mut(4).zip(numbers) {
            to.copy_from_slice(&n.to_le_bytes());
        }
        let crc = checksum(salt, 0, &top[..CHECKED]);
        top[CHECKED..CHECKED + 4].copy_from_slice(&crc.to_le_bytes());
        out
    }
}

impl Footer {
    /// Reads the footer of the segment `no` with this salt, all of it: what is wrong is found here.
    pub fn open(
        (no, salt): (FileNo, u64),
        path: &Path,
        source: Source,
        count: Option<OpenFile>,
    ) -> Result<(Footer, Vec<Run>)> {
        let broken = |why: &str, at: usize| Error::corruption(why).at(path, at as u64);
        let len = source.len(path)?;
        let head = source.read(path, 0, HEAD, len)?;
        let head: &[u8] = head.as_ref();
        let number = |at| u32_at(head, at).unwrap_or_default();
        if !head.starts_with(&MAGIC) || number(CHECKED) != checksum(salt, 0, &head[..CHECKED]) {
            return Err(broken("the footer's head is not valid", 0));
        }
        if number(8) != VERSION {
            return Err(broken("the version of the footer's format is not known", 8));
        }
        if u64_at(head, 16) != Some(no.0) || head[12..16] != [0; 4] || head[CHECKED + 4..] != [0; 12] {
            return Err(broken("the footer belongs to another segment", 16));
        }
        let (runs, extents) = (number(32) as usize, number(36));
        let fences = extents.div_ceil(BLOCK) as usize;
        let fences_at = HEAD + runs * RUN;
        let at = (fences_at + fences * FENCE) as u64;
        if len != at + u64::from(extents) * EXTENT as u64 {
            return Err(broken("the footer has another length than it says", 32));
        }
        let bytes = source.read(path, fences_at as u64, fences * FENCE, len)?;
        if checksum(salt, fences_at as u64, bytes.as_ref()) != number(44) {
            return Err(broken("the footer's fences are not what was written", fences_at));
        }
        let fence = |f: &[u8]| (u64_at(f, 0).unwrap_or_default(), u32_at(f, 8).unwrap_or_default());
        let fences = bytes.as_ref().chunks_exact(FENCE).map(fence).collect();
        let runs = (runs, number(40));
        let footer = Footer { path: path.into(), salt, extents, fences, runs, at, source, _count: count };
        let list = footer.runs()?;
        for block in 0..footer.fences.len() as u32 {
            footer.block(block)?;
        }
        Ok((footer, list))
    }

    /// All runs.
    pub fn runs(&self) -> Result<Vec<Run>> {
        let broken = |why: &str| Error::corruption(why).at(&self.path, HEAD as u64);
        let (count, crc) = self.runs;
        let bytes = self.source.read(&self.path, HEAD as u64, count * RUN, u64::MAX)?;
        if checksum(self.salt, HEAD as u64, bytes.as_ref()) != crc {
            return Err(broken("the footer's runs are not what was written"));
        }
        let runs = bytes.as_ref().chunks_exact(RUN).map(|run| decode_run(run, self.extents));
        let runs = runs.collect::<Option<Vec<Run>>>();
        // Each extent is part of one run: who reads those of all runs reads no more than there are.
        let in_turn = |runs: &Vec<Run>| {
            let end = runs.iter().try_fold(0, |at, run| (run.extents.start == at).then(|| run.extents.end()));
            end == Some(self.extents)
        };
        runs.filter(in_turn).ok_or_else(|| broken("the footer's runs cannot be what they say"))
    }

    /// The bytes of a block of extents, checked.
    fn block(&self, block: u32) -> Result<Piece<'_>> {
        let first = block.saturating_mul(BLOCK);
        let count = self.extents.saturating_sub(first).min(BLOCK) as usize;
        let at = self.at + u64::from(first) * EXTENT as u64;
        let bytes = self.source.read(&self.path, at, count * EXTENT, u64::MAX)?;
        let crc = self.fences.get(block as usize).map(|fence| fence.1);
        if crc != Some(checksum(self.salt, at, bytes.as_ref())) {
            let why = "a block of the footer's extents is not what was written";
            return Err(Error::corruption(why).at(&self.path, at));
        }
        Ok(bytes)
    }

    /// The extent of a run, given by its extents, that the entry `index` is in.
    pub fn find(&self, of: Range, index: u64) -> Result<Option<Extent>> {
        let end = of.end();
        if of.count == 0 || end > self.extents {
            return Ok(None);
        }
        // The last block that begins within the run at or before the index; else the run's first.
        let (low, high) = (of.start / BLOCK, (end - 1) / BLOCK);
        let fences = self.fences.get(low as usize + 1..=high as usize).unwrap_or_default();
        let block = low + fences.partition_point(|fence| fence.0 <= index) as u32;
        let bytes = self.block(block)?;
        let first = block * BLOCK;
        let (from, to) = (of.start.max(first) - first, end.min(first + BLOCK) - first);
        let extent = |i: u32| decode_extent(bytes.as_ref(), i as usize * EXTENT);
        // The last one that begins at or before the index.
        let (mut low, mut high) = (from, to);
        while low < high {
            let middle = low + (high - low) / 2;
            match extent(middle) {
                Some(e) if e.first <= index => low = middle + 1,
                _ => high = middle,
            }
        }
        Ok(low.checked_sub(1).filter(|&i| i >= from).and_then(extent).filter(|e| index < e.next()))
    }

    /// All extents of a run.
    pub fn extents(&self, of: Range) -> Result<Vec<Extent>> {
        let end = of.end().min(self.extents);
        let mut found = Vec::with_capacity(of.count as usize);
        let mut at = of.start;
        while at < end {
            let block = at / BLOCK;
            let bytes = self.block(block)?;
            let stop = end.min((block + 1) * BLOCK);
            let of_block =
                (at..stop).map(|i| decode_extent(bytes.as_ref(), (i - block * BLOCK) as usize * EXTENT));
            found.extend(of_block.flatten());
            at = stop;
        }
        Ok(found)
    }
}

/// Bytes of a footer: lent or read.
enum Piece<'a> {
    Lent(&'a [u8]),
    Read(Vec<u8>),
}

impl AsRef<[u8]> for Piece<'_> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Piece::Lent(bytes) => bytes,
            Piece::Read(bytes) => bytes,
        }
    }
}

impl Source {
    fn len(&self, path: &Path) -> Result<u64> {
        match self {
            Source::Shared(bytes) => Ok((**bytes).as_ref().len() as u64),
            Source::File(file) => file.len().map_err(|e| Error::io("asking for the length of", path, e)),
        }
    }

    /// The `n` bytes at `at`, of a file of the length `len`.
    fn read(&self, path: &Path, at: u64, n: usize, len: u64) -> Result<Piece<'_>> {
        let short = || Error::corruption("the footer ends too early").at(path, at);
        if at.checked_add(n as u64).is_none_or(|end| end > len) {
            return Err(short());
        }
        match self {
            Source::Shared(bytes) => {
                let piece = usize::try_from(at).ok().and_then(|at| (**bytes).as_ref().get(at..)?.get(..n));
                piece.map(Piece::Lent).ok_or_else(short)
            }
            Source::File(file) => {
                let mut bytes = vec![0; n];
                match read_exact_at(&**file, &mut bytes, at) {
                    Ok(()) => Ok(Piece::Read(bytes)),
                    Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Err(short()),
                    Err(e) => Err(Error::io("reading a footer", path, e)),
                }
            }
        }
    }
}

fn decode_run(bytes: &[u8], extents: u32) -> Option<Run> {
    let run = Run {
        key: (KeyspaceId(u32_at(bytes, 0)?), u64_at(bytes, 8)?),
        first: u64_at(bytes, 16)?,
        next: u64_at(bytes, 24)?,
        min_seq: Seq::new(u64_at(bytes, 32)?)?,
        bytes: u64_at(bytes, 40)?,
        extents: Range { start: u32_at(bytes, 4)?, count: u32_at(bytes, 48)? },
    };
    let end = run.extents.start.checked_add(run.extents.count)?;
    let possible = run.first < run.next && run.extents.count > 0 && end <= extents && run.bytes <= MAX_BYTES;
    (possible && bytes.get(52..) == Some(&[0; 4])).then_some(run)
}

fn decode_extent(bytes: &[u8], at: usize) -> Option<Extent> {
    Some(Extent {
        first: u64_at(bytes, at)?,
        seq: Seq::new(u64_at(bytes, at + 8)?)?,
        tag: u64_at(bytes, at + 16)?,
        offset: u32_at(bytes, at + 24)?,
        count: u32_at(bytes, at + 28)?,
    })
}

/// The annotated bytes of a footer.
pub(crate) fn dump(bytes: &[u8]) -> String {
    let mut d = Dump::new(bytes, 0);
    d.title("footer of a journal segment");
    d.field(8, "magic");
    d.number(4, "format version");
    d.field(4, "zero");
    d.number(8, "segment number");
    d.number(8, "salt");
    let runs = d.number(4, "runs");
    let extents = d.number(4, "extents");
    d.number(4, "checksum of the runs");
    d.number(4, "checksum of the fences");
    d.number(4, "checksum of the head");
    d.field(12, "zero");
    let left = |d: &Dump<'_>, size: usize| (bytes.len().saturating_sub(d.at()) / size) as u64;
    for _ in 0..runs.min(left(&d, RUN)) {
        d.title("run");
        d.number(4, "keyspace");
        d.number(4, "its first extent");
        d.number(8, "log");
        d.number(8, "first entry");
        d.number(8, "behind the last");
        d.number(8, "sequence number of the first");
        d.number(8, "bytes");
        d.number(4, "extents");
        d.field(4, "zero");
    }
    for _ in 0..extents.div_ceil(u64::from(BLOCK)).min(left(&d, FENCE)) {
        d.title("fence");
        d.number(8, "first entry");
        d.field(4, "checksum of the extents");
        d.field(4, "zero");
    }
    for _ in 0..extents.min(left(&d, EXTENT)) {
        d.title("extent");
        d.number(8, "first entry");
        d.number(8, "sequence number");
        d.number(8, "tag");
        d.number(4, "offset");
        d.number(4, "entries");
    }
    let rest = bytes.len().saturating_sub(d.at());
    if rest > 0 {
        d.field(rest, "left over");
    }
    d.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO: FileNo = FileNo(12);
    const SALT: u64 = 0x0123_4567_89ab_cdef;

    fn seq(n: u64) -> Seq {
        Seq::new(n).unwrap()
    }

    /// Runs of so many extents of `count` entries each.
    fn sample(runs: &[(u32, u64, u32)], count: u32) -> Builder {
        let mut b = Builder::default();
        for &(keyspace, log, n) in runs {
            let extents = (0..n).map(|i| Extent {
                first: 100 + u64::from(i * count),
                seq: seq(u64::from(1 + i)),
                tag: u64::from(i / 3),
                offset: 8200 + i * 40,
                count,
            });
            let next = 100 + u64::from(n * count);
            let (key, range) = ((KeyspaceId(keyspace), log), Range::default());
            b.add(Run { key, first: 100, next, min_seq: seq(1), bytes: 77, extents: range }, extents);
        }
        b
    }

    fn open(bytes: Vec<u8>) -> Result<(Footer, Vec<Run>)> {
        Footer::open((NO, SALT), Path::new("/db/000012.footer"), Source::Shared(Arc::new(bytes)), None)
    }

    #[test]
    fn golden() {
        let bytes = sample(&[(3, 7, 2)], 5).encode(NO, SALT);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/footer.txt");
        let dump = dump(&bytes);
        if std::env::var_os("ESKER_REWRITE").is_some() {
            std::fs::write(&path, &dump).unwrap();
        }
        assert_eq!(dump, std::fs::read_to_string(&path).unwrap(), "the footer's format changed");
    }

    #[test]
    fn every_entry_is_found_in_its_extent() {
        let built = sample(&[(3, 1, 5), (3, 2, 200), (3, 9, 1), (4, 1, 64), (4, 2, 63)], 3);
        let (footer, runs) = open(built.encode(NO, SALT)).unwrap();
        assert_eq!(runs, built.runs());
        for run in runs {
            assert_eq!(footer.find(run.extents, 99).unwrap(), None);
            assert_eq!(footer.find(run.extents, run.next).unwrap(), None);
            for index in run.first..run.next {
                let found = footer.find(run.extents, index).unwrap().unwrap();
                assert!(found.first <= index && index < found.next());
                assert_eq!(found.offset, 8200 + (index as u32 - 100) / 3 * 40);
            }
            assert_eq!(footer.extents(run.extents).unwrap().len(), run.extents.count as usize);
        }
    }

    /// Under checksums that hold. Runs that all had all extents made whoever reads those of each run read
    /// without end; bytes that no segment holds overflowed where they were added up.
    #[test]
    fn runs_that_cannot_be_are_refused() {
        let runs = [(3, 1, 5), (3, 2, 9)];
        assert!(open(sample(&runs, 1).encode(NO, SALT)).is_ok());
        let lies: [fn(&mut Run); 5] = [
            |run| run.bytes = u64::MAX,
            |run| run.extents = Range { start: 0, count: 14 },
            |run| run.extents.count -= 1,
            |run| run.extents.start = u32::MAX,
            |run| run.next = run.first,
        ];
        for lie in lies {
            let mut built = sample(&runs, 1);
            lie(&mut built.runs[1]);
            assert!(open(built.encode(NO, SALT)).map(drop).unwrap_err().is_corruption());
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = sample(&[(3, 1, 2), (3, 2, 70)], 1).encode(NO, SALT);
        for cut in 0..bytes.len() {
            assert!(open(bytes[..cut].to_vec()).map(drop).unwrap_err().is_corruption(), "cut {cut}");
        }
        assert!(open([&bytes[..], &[0]].concat()).is_err());
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open(bad).map(drop).unwrap_err().is_corruption(), "bit {bit}");
        }
        let source = || Source::Shared(Arc::new(bytes.clone()));
        assert!(Footer::open((FileNo(13), SALT), Path::new("x"), source(), None).is_err());
        assert!(Footer::open((NO, 1), Path::new("x"), source(), None).is_err());
    }
}
