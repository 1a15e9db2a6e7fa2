//! Reading: the same verbs on a keyspace as it is now and as it was at a snapshot. Every read is a
//! view and a sequence number.

use crate::db::core::Core;
use crate::db::handle::Keyspace;
use crate::db::range::{KeyRange, Prefix};
use crate::db::registry::empty_tree;
use crate::db::scan::{Cursor, Iter, Scanned};
use crate::db::snapshot::Snapshot;
use crate::db::tree::{Tree, dropped};
use crate::error::{Error, Result};
use crate::ids::Seq;
use crate::key::check_len as check_key;
use crate::value::Value;
use crate::view::View;
use std::fmt;
use std::sync::Arc;

/// A keyspace as it was at a [`Snapshot`]: the read verbs of [`Keyspace`], all at one point in the
/// order of commits. Owned; it keeps the snapshot.
#[derive(Clone)]
pub struct KeyspaceView {
    snapshot: Snapshot,
    tree: Result<Arc<Tree>>,
}

impl KeyspaceView {
    pub(crate) fn new(keyspace: &Keyspace, snapshot: &Snapshot) -> KeyspaceView {
        let tree = if Arc::ptr_eq(keyspace.db.core(), snapshot.core()) {
            match keyspace.slot.tree_at(snapshot.seq()) {
                Ok(tree) => tree.ok_or_else(dropped),
                // Made after the snapshot: empty then.
                Err(_) => Ok(empty_tree()),
            }
        } else {
            Err(Error::invalid("the snapshot belongs to another database"))
        };
        KeyspaceView { snapshot: snapshot.clone(), tree }
    }

    #[inline]
    fn with_view<R>(&self, mut read: impl FnMut(&View, Seq) -> Result<R>) -> Result<R> {
        let tree = self.tree.as_ref().map_err(Error::clone)?;
        self.snapshot.core().reading(|| read(&tree.view.load(), self.snapshot.seq()))
    }

    fn scanned(&self, range: impl KeyRange) -> Result<Scanned> {
        let tree = self.tree.as_ref().map_err(Error::clone)?;
        self.snapshot.core().relieve();
        Ok(Scanned::new(tree.view.load_full(), self.snapshot.seq(), range.bounds()?))
    }
}

impl Keyspace {
    /// The keyspace as it was at `snapshot`.
    pub fn at(&self, snapshot: &Snapshot) -> KeyspaceView {
        KeyspaceView::new(self, snapshot)
    }

    #[inline]
    fn with_view<R>(&self, mut read: impl FnMut(&View, Seq) -> Result<R>) -> Result<R> {
        let core: &Core = self.db.core();
        core.open()?;
        core.reading(|| {
            let tree = self.slot.tree.load();
            let tree = tree.as_ref().ok_or_else(dropped)?;
            // The view first: whatever it lacks is newer than the sequence number read after it, or was
            // committed while this call ran. The other way round a compaction could have dropped, from
            // the newer view, a version that the older number needs.
            let view = tree.view.load();
            read(&view, core.snapshots.visible())
        })
    }

    fn scanned(&self, range: impl KeyRange) -> Result<Scanned> {
        let bounds = range.bounds()?;
        let core: &Core = self.db.core();
        core.open()?;
        core.relieve();
        let tree = self.slot.tree.load();
        let view = tree.as_ref().ok_or_else(dropped)?.view.load_full();
        Ok(Scanned::new(view, core.snapshots.visible(), bounds))
    }
}

macro_rules! read_verbs {
    ($type:ident, $now:literal) => {
        #[doc = concat!("Reading ", $now, ".")]
        impl $type {
            /// The value of `key`. Values over 30 bytes share the block or map they lie in; those
            /// from a memtable, or a compressed block that is not cached, are copied.
            pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
                self.get_value(key.as_ref())
            }

            #[inline]
            fn get_value(&self, key: &[u8]) -> Result<Option<Value>> {
                check_key(key)?;
                self.with_view(|view, read| {
                    view.get(key, read, |found| found.value().map(|f| Value::shared(f.value, f.owner)))
                })
            }

            /// Whether `key` has a value.
            pub fn contains(&self, key: impl AsRef<[u8]>) -> Result<bool> {
                self.get_with(key, |_| ()).map(|found| found.is_some())
            }

            /// Hands the value of `key` to `read`, in place: nothing is copied or allocated.
            pub fn get_with<R>(
                &self,
                key: impl AsRef<[u8]>,
                read: impl FnOnce(&[u8]) -> R,
            ) -> Result<Option<R>> {
                let key = key.as_ref();
                check_key(key)?;
                let mut read = Some(read);
                self.with_view(|view, at| {
                    view.get(key, at, |found| found.value().and_then(|f| Some(read.take()?(f.value))))
                })
            }

            /// Copies the value of `key` into `buf`, replacing what is there. `false`, with `buf`
            /// emptied, if there is none.
            pub fn get_into(&self, key: impl AsRef<[u8]>, buf: &mut Vec<u8>) -> Result<bool> {
                buf.clear();
                self.get_with(key, |value| buf.extend_from_slice(value)).map(|found| found.is_some())
            }

            /// The values of `keys`, in their order, all from one state.
            pub fn multi_get<K: AsRef<[u8]>>(
                &self,
                keys: impl IntoIterator<Item = K>,
            ) -> Result<Vec<Option<Value>>> {
                let keys: Vec<K> = keys.into_iter().collect();
                keys.iter().try_for_each(|key| check_key(key.as_ref()))?;
                self.with_view(|view, read| {
                    let mut values = vec![None; keys.len()];
                    view.get_many(&keys, read, |at, found| {
                        values[at] = found.value().map(|f| Value::shared(f.value, f.owner));
                    })?;
                    Ok(values)
                })
            }

            /// The entries of `range`, from both ends. A reversed range, and whatever else is wrong,
            /// is the iterator's first item.
            pub fn range(&self, range: impl KeyRange) -> Iter {
                Iter::new(self.scanned(range))
            }

            /// The entries whose keys start with `prefix`.
            pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Iter {
                self.range(Prefix(prefix))
            }

            /// All entries.
            pub fn iter(&self) -> Iter {
                self.range(..)
            }

            /// A cursor over `range`, before its first entry.
            pub fn cursor(&self, range: impl KeyRange) -> Cursor {
                Cursor::new(self.scanned(range))
            }
        }
    };
}

read_verbs!(Keyspace, "the newest commits: each call sees all that returned before it");
read_verbs!(KeyspaceView, "the state at the snapshot");

impl fmt::Debug for KeyspaceView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyspaceView({:?})", self.snapshot)
    }
}
