//! Ways to damage a database at rest, and all of them for a given one.

use super::anatomy::{FileAt, kind};
use super::base::Base;
use crate::rng::Rng;
use std::ops::Range;
use std::path::{Path, PathBuf};

const SECTOR: usize = 512;
/// Of space that nothing depends on, and of files that are nothing but that, one place in so many is
/// damaged, unless all are asked for.
const TASTE: usize = 509;

/// Both copies of the header, of a journal segment and of a manifest, with what lies between and
/// behind them.
const PAGES: Range<usize> = 0..8192;

/// Files are named by their index in the anatomy.
#[derive(Clone, Debug)]
pub enum Harm {
    Flip(usize, usize),
    Byte(usize, usize, u8),
    /// Zeros, or what is random.
    Zeros(usize, Range<usize>),
    Noise(usize, Range<usize>),
    Cut(usize, usize),
    /// Random bytes behind the end.
    Longer(usize, usize),
    Remove(usize),
    Swap(usize, usize),
    /// The contents of one also under another name.
    Double(usize, PathBuf),
    /// Two stretches of one length, each in the place of the other.
    SwapParts((usize, Range<usize>), (usize, Range<usize>)),
    /// The first stretch also in the place of the second.
    CopyPart((usize, Range<usize>), (usize, Range<usize>)),
    /// The file as it was at an earlier moment, or another in its place.
    Stale(usize, usize),
    /// The manifests of an earlier moment in the place of those that are there.
    OldManifest(usize),
}

/// What a file holds from now on; `None`: it is gone.
pub type Change = (PathBuf, Option<Vec<u8>>);

impl Harm {
    pub fn kind(&self) -> &'static str {
        match self {
            Harm::Flip(..) => "bit",
            Harm::Byte(..) => "byte",
            Harm::Zeros(_, range) | Harm::Noise(_, range) if *range == PAGES => "headers lost",
            Harm::Zeros(_, range) if range.len() > SECTOR => "the rest zeroed",
            Harm::Zeros(..) => "sector zeroed",
            Harm::Noise(..) => "sector garbled",
            Harm::Cut(..) => "cut",
            Harm::Longer(..) => "longer",
            Harm::Remove(..) => "removed",
            Harm::Swap(..) => "swapped",
            Harm::Double(..) => "doubled",
            Harm::SwapParts(..) | Harm::CopyPart(..) => "parts misplaced",
            Harm::Stale(..) | Harm::OldManifest(..) => "stale",
        }
    }

    /// The file, and the place if there is one, that it is counted under.
    pub fn place(&self) -> Option<(usize, Option<usize>)> {
        match *self {
            Harm::Flip(file, bit) => Some((file, Some(bit / 8))),
            Harm::Byte(file, at, _) => Some((file, Some(at))),
            Harm::Zeros(file, ref range) | Harm::Noise(file, ref range) => Some((file, Some(range.start))),
            Harm::SwapParts(_, (file, ref range)) | Harm::CopyPart(_, (file, ref range)) => {
                Some((file, Some(range.start)))
            }
            Harm::Cut(file, _) | Harm::Longer(file, _) | Harm::Remove(file) => Some((file, None)),
            Harm::Swap(file, _) | Harm::Double(file, _) | Harm::Stale(file, _) => Some((file, None)),
            Harm::OldManifest(_) => None,
        }
    }

    /// What the files look like then.
    pub fn changes(&self, base: &Base) -> Vec<Change> {
        let of = |file: usize| &base.anatomy.files[file];
        let change = |file: usize, change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = of(file).bytes.clone();
            change(&mut bytes);
            (of(file).path.clone(), Some(bytes))
        };
        match self {
            Harm::Flip(file, bit) => vec![change(*file, &|b| b[bit / 8] ^= 1 << (bit % 8))],
            Harm::Byte(file, at, byte) => vec![change(*file, &|b| b[*at] = *byte)],
            Harm::Zeros(file, range) => vec![change(*file, &|b| b[range.clone()].fill(0))],
            Harm::Noise(file, range) => vec![change(*file, &|b| {
                let mut rng = Rng::new(range.start as u64);
                b[range.clone()].fill_with(|| rng.next() as u8);
            })],
            Harm::Cut(file, len) => vec![change(*file, &|b| b.truncate(*len))],
            Harm::Longer(file, more) => vec![change(*file, &|b| {
                let mut rng = Rng::new(*more as u64);
                b.resize_with(b.len() + more, || rng.next() as u8);
            })],
            Harm::Remove(file) => vec![(of(*file).path.clone(), None)],
            Harm::Swap(one, other) => {
                let bytes = |from: usize, to: usize| (of(to).path.clone(), Some(of(from).bytes.clone()));
                vec![bytes(*one, *other), bytes(*other, *one)]
            }
            Harm::Double(file, name) => vec![(name.clone(), Some(of(*file).bytes.clone()))],
            Harm::SwapParts((one, from), (other, to)) if one == other => {
                let bytes = &of(*one).bytes;
                vec![change(*one, &|b| {
                    b[from.clone()].copy_from_slice(&bytes[to.clone()]);
                    b[to.clone()].copy_from_slice(&bytes[from.clone()]);
                })]
            }
            Harm::SwapParts((one, from), (other, to)) => vec![
                change(*one, &|b| b[from.clone()].copy_from_slice(&of(*other).bytes[to.clone()])),
                change(*other, &|b| b[to.clone()].copy_from_slice(&of(*one).bytes[from.clone()])),
            ],
            Harm::CopyPart((one, from), (other, to)) => {
                vec![change(*other, &|b| b[to.clone()].copy_from_slice(&of(*one).bytes[from.clone()]))]
            }
            Harm::Stale(file, n) => vec![(of(*file).path.clone(), Some(base.past[*n].1.clone()))],
            Harm::OldManifest(n) => {
                let manifests = base.anatomy.files.iter().filter(|f| f.kind() == "manifest");
                let old =
                    base.old_manifests[*n].iter().map(|(path, bytes)| (path.clone(), Some(bytes.clone())));
                manifests.map(|f| (f.path.clone(), None)).chain(old).collect()
            }
        }
    }
}

impl Base {
    /// Every bit flipped, every byte zeroed, everything from each place on zeroed, every cut, every
    /// sector zeroed and garbled, of every file. `all`: also where nothing was ever written.
    pub fn bytes_harmed(&self, all: bool) -> impl Iterator<Item = Harm> + '_ {
        let files = self.anatomy.files.iter().enumerate();
        files.flat_map(move |(i, file)| {
            let taste = move |at: usize| all || !is_idle(file, at) || at.is_multiple_of(TASTE);
            let places = move || (0..file.bytes.len()).filter(move |&at| taste(at));
            let len = file.bytes.len();
            let flips = places().flat_map(move |at| (0..8).map(move |bit| Harm::Flip(i, at * 8 + bit)));
            let zeros = places().filter(|&at| file.bytes[at] != 0).map(move |at| Harm::Byte(i, at, 0));
            let written = file.bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
            let rest =
                places().filter(move |&at| at + SECTOR < written).map(move |at| Harm::Zeros(i, at..len));
            let cuts = places().map(move |at| Harm::Cut(i, at));
            let sectors = (0..len).step_by(SECTOR).filter(move |&at| all || at < written || taste(at));
            let sectors = sectors.flat_map(move |at| {
                let range = at..len.min(at + SECTOR);
                [Harm::Zeros(i, range.clone()), Harm::Noise(i, range)]
            });
            let longer = [1, 7, 512, 5000].map(|more| Harm::Longer(i, more));
            flips.chain(zeros).chain(rest).chain(cuts).chain(sectors).chain(longer)
        })
    }

    /// Whole files: each lost, or its headers, each in the place of another of its kind, each twice, each as it was
    /// earlier or as an earlier one was, and the manifests of the past.
    pub fn files_harmed(&self) -> Vec<Harm> {
        let files = &self.anatomy.files;
        let mut all: Vec<Harm> = (0..self.old_manifests.len()).map(Harm::OldManifest).collect();
        for (i, one) in files.iter().enumerate() {
            all.push(Harm::Remove(i));
            if one.bytes.len() > PAGES.end {
                all.extend([Harm::Zeros(i, PAGES), Harm::Noise(i, PAGES)]);
            }
            let alike = |other: &FileAt| other.kind() == one.kind() && other.kind() != "reserve";
            all.extend((i + 1..files.len()).filter(|&j| alike(&files[j])).take(4).map(|j| Harm::Swap(i, j)));
            if let Some(extension) = one.path.extension() {
                all.push(Harm::Double(i, self.dir.join("900000").with_extension(extension)));
            }
            let stale = self.past.iter().enumerate().filter(|(_, past)| kind(&past.0) == one.kind());
            all.extend(stale.map(|(n, _)| Harm::Stale(i, n)));
        }
        all
    }

    /// Pieces (blocks, sections, records, headers) in each other's place, in one file and in two.
    pub fn pieces_harmed(&self) -> Vec<Harm> {
        let mut all = Vec::new();
        let pieces = |i: usize| {
            let file = &self.anatomy.files[i];
            file.pieces.iter().filter(|p| !IDLE.contains(&p.what)).map(move |p| (i, p.range.clone()))
        };
        for i in 0..self.anatomy.files.len() {
            for j in i..self.anatomy.files.len() {
                if self.anatomy.files[i].kind() != self.anatomy.files[j].kind() {
                    continue;
                }
                for (one, other) in pieces(i).flat_map(|one| pieces(j).map(move |other| (one.clone(), other)))
                {
                    if i == j && one.1.start >= other.1.start {
                        continue;
                    }
                    let len = one.1.len().min(other.1.len());
                    let front = |part: &(usize, Range<usize>)| (part.0, part.1.start..part.1.start + len);
                    all.push(Harm::CopyPart(front(&one), front(&other)));
                    all.push(Harm::CopyPart(front(&other), front(&one)));
                    all.push(Harm::SwapParts(front(&one), front(&other)));
                }
            }
        }
        all
    }

    /// Space of one segment or manifest that was never written shows what another holds at the same
    /// offsets, or from its first record on: as if the space had been that one's before.
    pub fn space_reused(&self) -> Vec<Harm> {
        let files = &self.anatomy.files;
        let mut all = Vec::new();
        for (i, file) in files.iter().enumerate().filter(|(_, f)| ["journal", "manifest"].contains(&f.kind()))
        {
            let unwritten = file.pieces.iter().filter(|p| p.what.starts_with("never"));
            for (to, j) in unwritten.flat_map(|p| (0..files.len()).map(move |j| (p.range.clone(), j))) {
                let other = &files[j];
                if j == i || other.kind() != file.kind() {
                    continue;
                }
                let same = to.start..to.end.min(other.bytes.len());
                if !same.is_empty() {
                    all.push(Harm::CopyPart((j, same.clone()), (i, same)));
                }
                let records = ["record", "snapshot"];
                let Some(first) = other.pieces.iter().find(|p| records.contains(&p.what)) else { continue };
                let len = to.len().min(other.bytes.len() - first.range.start);
                let from = first.range.start..first.range.start + len;
                all.push(Harm::CopyPart((j, from), (i, to.start..to.start + len)));
            }
        }
        all
    }

    /// One of the above, and others, drawn.
    pub fn some_harm(&self, rng: &mut Rng) -> Harm {
        let filled: Vec<usize> =
            (0..self.anatomy.files.len()).filter(|&i| !self.anatomy.files[i].bytes.is_empty()).collect();
        let i = *rng.pick(&filled);
        let file = &self.anatomy.files[i];
        let mut at = rng.below(file.bytes.len());
        if !rng.one_in(4) {
            // Most of some files is space that was never written.
            let len = file.bytes.len();
            at = (at..len).chain(0..at).find(|&at| file.bytes[at] != 0).unwrap_or(at);
        }
        let sector = at / SECTOR * SECTOR..file.bytes.len().min(at / SECTOR * SECTOR + SECTOR);
        match rng.below(20) {
            0..9 => Harm::Flip(i, at * 8 + rng.below(8)),
            9..12 => Harm::Byte(i, at, *rng.pick(&[0, 1, 0x7f, 0xff])),
            12 => Harm::Zeros(i, sector),
            13 => Harm::Zeros(i, at..file.bytes.len()),
            14 => Harm::Noise(i, sector),
            15 | 16 => Harm::Cut(i, at),
            17 => Harm::Longer(i, 1 + rng.below(5000)),
            18 => Harm::Remove(i),
            _ => Harm::Swap(i, *rng.pick(&filled)),
        }
    }
}

const IDLE: [&str; 4] = ["never written", "never used", "not looked at", "all of it"];

/// Whether nothing depends on what stands there.
fn is_idle(file: &FileAt, at: usize) -> bool {
    IDLE.contains(&file.what(at))
}

/// Whether a file of this name is looked at for more than its length.
pub fn is_read(path: &Path) -> bool {
    !["lock", "reserve"].contains(&kind(path))
}
