//! Keeping files: while some are linked or read by name, none is removed. One after another; a close
//! waits for it.

use crate::db::core::Core;
use crate::sync::MutexGuard;
use crate::view::View;
use std::sync::Arc;

/// As long as this lives no file is removed through [`Core::remove_file`].
pub(crate) struct Kept<'a> {
    core: &'a Core,
    _alone: MutexGuard<'a, ()>,
}

impl Kept<'_> {
    pub fn new(core: &Core) -> Kept<'_> {
        let alone = core.keeping.lock();
        *core.kept.lock() = Some(Vec::new());
        Kept { core, _alone: alone }
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        let removed = self.core.kept.lock().take();
        for name in removed.into_iter().flatten() {
            self.core.remove_file(name);
        }
    }
}

impl Core {
    /// The views of all trees, also of those the manifest has not forgotten yet. A table's file goes
    /// with the last view of it.
    pub fn all_views(&self) -> Vec<Arc<View>> {
        let registry = self.registry.lock();
        let trees = registry.trees().chain(registry.dropped.iter().map(|d| &d.tree));
        trees.map(|tree| tree.view.load_full()).collect()
    }
}
