//! The catalog: keyspace 0, an ordinary sorted map from names to keyspaces. Creating and dropping
//! are ordinary batches on it, so they have a place in the order of commits.
//!
//! # Format
//!
//! ```text
//! key    kind u8 (1 keyspace, 2 logs) | name
//! value  format u8 (1) | id u32 | compression u8 (0 none, 1 LZ4, 2 Zstandard)
//!        | block bytes varint | filter bits varint
//! ```
//!
//! Keyspaces and logs share one space of names and of ids. The options of logs are those of the tree that
//! holds their heads. An id is given once: a row whose id changes drops the keyspace it named before.

use crate::coding::{Reader, put_varint};
use crate::error::{Error, Result};
use crate::ids::KeyspaceId;
use crate::options::{Compression, KeyspaceOptions};

/// The longest name, in bytes.
pub(crate) const MAX_NAME_LEN: usize = 255;
const FORMAT: u8 = 1;

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// A sorted map.
    Keyspace,
    /// Logs, addressed by number.
    Logs,
}

impl Kind {
    /// Every kind there is.
    pub(crate) const ALL: [Kind; 2] = [Kind::Keyspace, Kind::Logs];
}

/// A row of the catalog.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Row {
    pub id: KeyspaceId,
    pub options: KeyspaceOptions,
}

/// The key of the row for `name`.
pub(crate) fn key(kind: Kind, name: &str) -> Result<Vec<u8>> {
    if name.is_empty() || name.len() > MAX_NAME_LEN {
        return Err(Error::invalid(format!("a name has 1 to {MAX_NAME_LEN} bytes, not {}", name.len())));
    }
    let kind = match kind {
        Kind::Keyspace => 1,
        Kind::Logs => 2,
    };
    Ok([&[kind], name.as_bytes()].concat())
}

/// Kind and name of a row's key.
pub(crate) fn name(key: &[u8]) -> Result<(Kind, String)> {
    let (kind, name) = match key.split_first() {
        Some((1, name)) => (Kind::Keyspace, name),
        Some((2, name)) => (Kind::Logs, name),
        _ => return Err(Error::corruption("a row of the catalog is of unknown kind")),
    };
    let name = String::from_utf8(name.to_vec());
    Ok((kind, name.map_err(|_| Error::corruption("a name in the catalog is not UTF-8"))?))
}

impl Row {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        out.extend_from_slice(&self.id.0.to_le_bytes());
        out.push(match self.options.compression {
            Compression::None => 0,
            Compression::Lz4 => 1,
            #[cfg(feature = "zstd")]
            Compression::Zstd => 2,
        });
        put_varint(&mut out, self.options.block_bytes as u64);
        put_varint(&mut out, u64::from(self.options.filter_bits));
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Row> {
        let mut r = Reader::new(bytes);
        let format = r.u8()?;
        if format != FORMAT {
            return Err(Error::corruption(format!("a row of the catalog has unknown format {format}")));
        }
        let id = KeyspaceId(r.u32()?);
        let compression = match r.u8()? {
            0 => Compression::None,
            1 => Compression::Lz4,
            #[cfg(feature = "zstd")]
            2 => Compression::Zstd,
            #[cfg(not(feature = "zstd"))]
            2 => return Err(Error::invalid("a keyspace uses Zstandard: build with the `zstd` feature")),
            n => return Err(Error::corruption(format!("unknown compression {n} in the catalog"))),
        };
        let block_bytes = r.varint32()? as usize;
        let options = KeyspaceOptions { compression, block_bytes, filter_bits: r.varint32()? };
        options.check().map_err(|e| Error::corruption(e.to_string()))?;
        if !r.is_empty() || id == KeyspaceId::CATALOG {
            return Err(Error::corruption("a row of the catalog is malformed"));
        }
        Ok(Row { id, options })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let row = Row { id: KeyspaceId(7), options: KeyspaceOptions::default() };
        assert_eq!(row.encode(), [1, 7, 0, 0, 0, 1, 0x80, 0x20, 10]);
        assert_eq!(Row::decode(&row.encode()).unwrap(), row);
        for (kind, row) in [(Kind::Keyspace, &b"\x01users"[..]), (Kind::Logs, b"\x02users")] {
            assert_eq!(key(kind, "users").unwrap(), row);
            assert_eq!(name(row).unwrap(), (kind, "users".into()));
        }
    }

    #[test]
    fn hostile_rows_are_errors() {
        let good = Row { id: KeyspaceId(7), options: KeyspaceOptions::default() }.encode();
        for cut in 0..good.len() {
            assert!(Row::decode(&good[..cut]).is_err());
        }
        assert!(Row::decode(&[&good[..], &[0]].concat()).is_err());
        assert!(name(b"\x03x").is_err() && name(b"").is_err() && name(b"\x01\xff").is_err());
        assert!(key(Kind::Logs, "").is_err() && key(Kind::Keyspace, &"x".repeat(256)).is_err());
    }
}
