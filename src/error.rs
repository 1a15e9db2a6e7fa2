//! The one error type. A kind exists only where a caller would act differently.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The result of nearly every call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in the one word a caller branches on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system failed an operation on a file.
    Io,
    /// Bytes on disk are not what was written there. Names the file and, where known, the offset.
    Corruption,
    /// A condition of the batch did not hold. Nothing was written; read again and decide anew.
    Conflict,
    /// The deadline passed before there was room for the write. Nothing was written.
    Busy,
    /// The disk is full. Nothing of this batch was written; writes resume when space returns.
    DiskFull,
    /// The database was opened read-only, or an earlier failed sync made it so until reopened.
    ReadOnly,
    /// The database, or the keyspace this handle stands for, is closed or dropped.
    Closed,
    /// Another process, or another handle of this one, holds the directory.
    Locked,
    /// What was asked for existed, and was removed since.
    Gone,
    /// The call itself is at fault: a key too large, a reversed range, an impossible option.
    Invalid,
}

/// Why a call failed: a [kind](ErrorKind), a message, and where known the file and the offset in it.
///
/// Cheap to clone (one reference count), so that one failure can be reported to every waiter.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    file: Option<PathBuf>,
    offset: Option<u64>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error(Arc::new(Inner { kind, message: message.into(), file: None, offset: None, source: None }))
    }

    /// A call that can never succeed as it stands.
    pub(crate) fn invalid(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Invalid, message)
    }

    /// Damage without a place yet; the layer that knows the place adds it with [`Error::at`].
    pub(crate) fn corruption(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Corruption, message)
    }

    /// A failed operation on `file`. A full disk gets its own kind.
    pub(crate) fn io(doing: &str, file: &Path, source: io::Error) -> Error {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::DiskFull,
            _ => ErrorKind::Io,
        };
        Error(Arc::new(Inner {
            kind,
            message: doing.to_string(),
            file: Some(file.to_path_buf()),
            offset: None,
            source: Some(Arc::new(source)),
        }))
    }

    fn with(self, change: impl FnOnce(&mut Inner)) -> Error {
        let mut inner = match Arc::try_unwrap(self.0) {
            Ok(inner) => inner,
            Err(shared) => Inner {
                kind: shared.kind,
                message: shared.message.clone(),
                file: shared.file.clone(),
                offset: shared.offset,
                source: shared.source.clone(),
            },
        };
        change(&mut inner);
        Error(Arc::new(inner))
    }

    /// Adds the file and the offset, unless a layer below has already said where.
    pub(crate) fn at(self, file: &Path, offset: u64) -> Error {
        if self.0.file.is_some() {
            return self;
        }
        self.with(|e| {
            e.file = Some(file.to_path_buf());
            e.offset = Some(offset);
        })
    }

    /// Adds the file, unless a layer below has already named one.
    pub(crate) fn in_file(self, file: &Path) -> Error {
        if self.0.file.is_some() {
            return self;
        }
        self.with(|e| e.file = Some(file.to_path_buf()))
    }

    /// Puts `context` in front of the message.
    pub(crate) fn context(self, context: impl fmt::Display) -> Error {
        self.with(|e| e.message = format!("{context}: {}", e.message))
    }

    /// The same failure where no retry can help: a disk that is found full only when allocated space
    /// is written or synced has failed for good.
    pub(crate) fn for_good(self) -> Error {
        if self.is_retryable() { self.with(|e| e.kind = ErrorKind::Io) } else { self }
    }

    /// What went wrong, in one word.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What the system said, where it was asked.
    pub(crate) fn io_error(&self) -> Option<&io::Error> {
        self.0.source.as_ref()?.downcast_ref()
    }

    /// The file the error is about, where one is.
    pub fn file(&self) -> Option<&Path> {
        self.0.file.as_deref()
    }

    /// The offset in [`file`](Error::file), in bytes, where it is known.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// A condition did not hold; read again and decide anew.
    pub fn is_conflict(&self) -> bool {
        self.kind() == ErrorKind::Conflict
    }

    /// Data on disk is damaged.
    pub fn is_corruption(&self) -> bool {
        self.kind() == ErrorKind::Corruption
    }

    /// Nothing was written, and the same call may succeed later: the write had no room in time, or
    /// the disk is full.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind(), ErrorKind::Busy | ErrorKind::DiskFull)
    }

    /// No further write will succeed until the database is opened again.
    pub fn is_final(&self) -> bool {
        matches!(self.kind(), ErrorKind::ReadOnly | ErrorKind::Closed)
    }
}

/// The error of every call after the close.
#[cold]
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the database is closed")
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = &*self.0;
        f.write_str(&e.message)?;
        if let Some(file) = &e.file {
            write!(f, ", {}", file.display())?;
        }
        if let Some(offset) = e.offset {
            write!(f, " at offset {offset}")?;
        }
        if let Some(source) = &e.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|s| &**s as &(dyn std::error::Error + 'static))
    }
}

impl From<Error> for io::Error {
    fn from(e: Error) -> io::Error {
        let kind = match e.kind() {
            ErrorKind::Corruption => io::ErrorKind::InvalidData,
            ErrorKind::Invalid => io::ErrorKind::InvalidInput,
            ErrorKind::DiskFull => io::ErrorKind::StorageFull,
            ErrorKind::Busy => io::ErrorKind::TimedOut,
            ErrorKind::ReadOnly => io::ErrorKind::ReadOnlyFilesystem,
            ErrorKind::Locked => io::ErrorKind::ResourceBusy,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_file_and_offset_once() {
        let e = Error::corruption("bad checksum").at(Path::new("/db/000007.table"), 4096);
        let e = e.at(Path::new("/other"), 1).context("reading a block");
        assert_eq!(e.to_string(), "reading a block: bad checksum, /db/000007.table at offset 4096");
        assert!(e.is_corruption() && e.offset() == Some(4096));
    }

    #[test]
    fn a_full_disk_has_its_own_kind() {
        let e = Error::io("writing", Path::new("x"), io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(e.kind(), ErrorKind::DiskFull);
        assert!(e.is_retryable());
        let back: io::Error = e.clone().into();
        assert_eq!(back.kind(), io::ErrorKind::StorageFull);
        assert!(std::error::Error::source(&e).is_some());
    }
}
