//! Options: plain data, checked when the database is opened.

/// How data blocks of tables are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all: blocks are read in place, without a copy.
    None,
    /// LZ4: cheap, and the default.
    #[default]
    Lz4,
    /// Zstandard, level 3: smaller and slower. Needs the `zstd` feature.
    #[cfg(feature = "zstd")]
    Zstd,
}
