//! Compression of data blocks, with everything that can be reused between them.

use crate::error::{Error, Result};
use crate::table::format::{Codec, MAX_COMPRESSED};
use crate::table::lz4;

/// Compresses blocks one after another.
pub(crate) struct Compressor {
    codec: Codec,
    out: Vec<u8>,
    table: lz4_flex::block::CompressTable,
    #[cfg(feature = "zstd")]
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

#[cfg(feature = "zstd")]
const ZSTD_LEVEL: i32 = 3;

impl Compressor {
    pub fn new(codec: Codec) -> Compressor {
        Compressor {
            codec,
            out: Vec::new(),
            table: lz4_flex::block::CompressTable::default(),
            #[cfg(feature = "zstd")]
            zstd: None,
        }
    }

    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// The contents to store and how they are encoded: compressed only where that saves at least an
    /// eighth.
    pub fn compress<'a>(&'a mut self, raw: &'a [u8]) -> (Codec, &'a [u8]) {
        if self.codec == Codec::Raw || raw.len() > MAX_COMPRESSED {
            return (Codec::Raw, raw);
        }
        match self.attempt(raw) {
            Some(len) if len <= raw.len() - raw.len().div_ceil(8) => (self.codec, &self.out[..len]),
            _ => (Codec::Raw, raw),
        }
    }

    fn attempt(&mut self, raw: &[u8]) -> Option<usize> {
        match self.codec {
            Codec::Raw => None,
            Codec::Lz4 => {
                let need = lz4_flex::block::get_maximum_output_size(raw.len());
                if self.out.len() < need {
                    self.out.resize(need, 0);
                }
                lz4_flex::block::compress_into_with_table(raw, &mut self.out, &mut self.table).ok()
            }
            #[cfg(feature = "zstd")]
            Codec::Zstd => {
                let need = zstd::zstd_safe::compress_bound(raw.len());
                if self.out.len() < need {
                    self.out.resize(need, 0);
                }
                let zstd = match &mut self.zstd {
                    Some(zstd) => zstd,
                    none => none.insert(zstd::bulk::Compressor::new(ZSTD_LEVEL).ok()?),
                };
                zstd.compress_to_buffer(raw, self.out.as_mut_slice()).ok()
            }
            #[cfg(not(feature = "zstd"))]
            Codec::Zstd => None,
        }
    }
}

/// Whether `stored` may stand for `raw` bytes; asked before anything is allocated for them.
pub(crate) fn plausible(codec: Codec, stored: &[u8], raw: usize) -> Result<()> {
    let fits = match codec {
        Codec::Raw => raw <= stored.len(),
        // A byte of LZ4 stands for at most 255.
        Codec::Lz4 => raw <= MAX_COMPRESSED && raw / 255 <= stored.len(),
        #[cfg(feature = "zstd")]
        Codec::Zstd => {
            let says = zstd::zstd_safe::get_frame_content_size(stored).ok().flatten();
            raw <= MAX_COMPRESSED && says == Some(raw as u64)
        }
        #[cfg(not(feature = "zstd"))]
        Codec::Zstd => return Err(Error::invalid("reading Zstandard needs the zstd feature")),
    };
    if fits { Ok(()) } else { Err(Error::corruption("a block's lengths contradict each other")) }
}

/// Undoes the compression of `stored` into `raw`, whose length is that of the contents.
pub(crate) fn decompress(codec: Codec, stored: &[u8], raw: &mut [u8]) -> Result<()> {
    plausible(codec, stored, raw.len())?;
    let len = match codec {
        Codec::Raw => return Err(Error::corruption("a block is not compressed")),
        Codec::Lz4 => lz4::Progress::default().decode(stored, raw, raw.len()).map(|()| raw.len())?,
        #[cfg(feature = "zstd")]
        Codec::Zstd => zstd::bulk::decompress_to_buffer(stored, raw)
            .map_err(|e| Error::corruption(format!("a block does not decompress: {e}")))?,
        #[cfg(not(feature = "zstd"))]
        Codec::Zstd => return Err(Error::invalid("reading Zstandard needs the zstd feature")),
    };
    if len != raw.len() {
        return Err(Error::corruption("a block decompresses to another length"));
    }
    Ok(())
}

/// A block on its way from what is stored to its contents. Where the codec cannot stop on the way, the first
/// step is the whole.
pub(crate) struct Undone {
    codec: Codec,
    progress: lz4::Progress,
    all: bool,
}

impl Undone {
    pub fn new(codec: Codec) -> Undone {
        Undone { codec, progress: lz4::Progress::default(), all: false }
    }

    /// Makes the first `want` bytes of `out` be there. Both slices are those of the calls before, and `out` has
    /// the length of the contents; what follows in it may be anything.
    pub fn reach(&mut self, stored: &[u8], out: &mut [u8], want: usize) -> Result<()> {
        if self.codec == Codec::Lz4 {
            return self.progress.decode(stored, out, want);
        }
        if !self.all {
            decompress(self.codec, stored, out)?;
            self.all = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codecs() -> Vec<Codec> {
        let mut codecs = vec![Codec::Lz4];
        if cfg!(feature = "zstd") {
            codecs.push(Codec::Zstd);
        }
        codecs
    }

    #[test]
    fn what_saves_little_is_stored_as_it_is() {
        let mut x = 1u64;
        let mut random = || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x as u8
        };
        let noise: Vec<u8> = (0..4096).map(|_| random()).collect();
        let text = b"the same again ".repeat(300);
        for codec in codecs() {
            let mut c = Compressor::new(codec);
            assert_eq!(c.compress(&noise), (Codec::Raw, &noise[..]));
            let (used, packed) = c.compress(&text);
            assert_eq!(used, codec);
            assert!(packed.len() < text.len() / 8);
            let mut back = vec![0; text.len()];
            decompress(codec, packed, &mut back).unwrap();
            assert_eq!(back, text);
            assert!(decompress(codec, packed, &mut vec![0; text.len() - 1]).is_err());
            assert!(decompress(codec, packed, &mut vec![0; text.len() + 1]).is_err());
            assert!(decompress(codec, &packed[..packed.len() / 2], &mut back).is_err());
        }
    }

    #[test]
    fn lengths_are_judged_before_anything_is_allocated() {
        let stored = |len: usize| vec![0; len];
        assert!(plausible(Codec::Lz4, &stored(10), 2_600_000).is_err());
        assert!(plausible(Codec::Lz4, &stored(1 << 20), MAX_COMPRESSED + 1).is_err());
        assert!(plausible(Codec::Raw, &stored(10), 11).is_err());
        assert!(plausible(Codec::Raw, &stored(11), 10).is_ok());
        assert!(plausible(Codec::Lz4, &stored(17), 4000).is_ok());
        assert!(plausible(Codec::Zstd, &stored(17), 4000).is_err());
    }
}
