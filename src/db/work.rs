//! Background work: the doing of one piece of it. Threads take pieces one after another; with no
//! threads they are taken by hand.

use crate::db::core::{Core, Installed};
use crate::db::queue::Piece;
use crate::db::tree::{Tree, dropped};
use crate::db::trim::is_out_of_files;
use crate::error::{Result, closed};
use crate::fs::names::Name;
use crate::ids::{FileNo, Seq};
use crate::sync::atomic::Ordering;
use crate::version::Change;
use std::collections::HashSet;
use std::sync::Arc;

impl Core {
    /// Does the most urgent piece of work. `false`: there is none.
    pub fn step(&self) -> Result<bool> {
        match self.work.take() {
            Some((piece, _running)) => self.run(piece).map(|()| true),
            None => Ok(false),
        }
    }

    /// The body of a background thread.
    pub fn run_worker(&self) {
        while let Some((piece, _running)) = self.work.wait(|| self.snapshots.visible()) {
            if let Err(e) = self.run(piece) {
                if self.failure().is_some() {
                    return;
                }
                self.note_retry(&e);
            }
        }
    }

    /// Does one piece.
    pub fn run(&self, piece: Piece) -> Result<()> {
        let result = match &piece {
            Piece::Segment => self.prepare_segment(),
            Piece::Logs => self.use_reserve(|| self.work_on_logs()),
            // The others make space sooner or later.
            Piece::Drop => self.use_reserve(|| self.forget_dropped()),
            Piece::Flush(trees) => self.use_reserve(|| self.flush_trees(trees)),
            Piece::Part(part) => {
                self.write_part(part);
                Ok(())
            }
            Piece::Trim => {
                self.trim_tables();
                Ok(())
            }
            Piece::Compact(tree) => {
                self.use_reserve(|| self.compact_once(tree, false, &mut || self.give_way(tree)))
            }
            Piece::Calm(tree) => self.compact_once(tree, true, &mut || self.calm_way(tree)),
        };
        if result.as_ref().is_err_and(is_out_of_files) {
            self.trim_tables();
        }
        if let Err(e) = &result {
            self.note_failure(e);
        }
        if !self.reserve.is_whole() {
            self.reserve.make(&*self.fs, &self.dir);
        }
        let calm = matches!(piece, Piece::Calm(_));
        if self.is_short_of_space() {
            self.drop_left_segments();
        }
        self.work.done(piece, &result);
        self.trim_pool(calm);
        self.trim_memory();
        self.relieve();
        self.wake_writers();
        result
    }

    /// What a long job on `tree` asks now and then: does what writers wait for, if nobody else is free
    /// to. An error if nobody wants the job's outcome any more.
    pub fn give_way(&self, tree: &Tree) -> Result<()> {
        self.writable()?;
        if self.registry.lock().tree(tree.id).is_none() {
            return Err(dropped());
        }
        while let Some((piece, _running)) = self.work.take_urgent() {
            if let Err(e) = self.run(piece) {
                self.note_retry(&e);
                break;
            }
        }
        Ok(())
    }

    /// The same for a job that nobody waits for: it is given up where the disk is full, for those who
    /// need its space.
    fn calm_way(&self, tree: &Tree) -> Result<()> {
        self.give_way(tree)?;
        if self.is_short_of_space() { Err(closed()) } else { Ok(()) }
    }

    /// What is left of the disk is for those who must have it.
    pub fn is_short_of_space(&self) -> bool {
        !self.reserve.is_whole() || self.counters.disk_full.load(Ordering::Relaxed)
    }

    /// Takes dropped keyspaces and their tables out of the manifest; their files go when the last
    /// snapshot or iterator lets go of them.
    pub fn forget_dropped(&self) -> Result<()> {
        let dropped: Vec<(Seq, Arc<Tree>)> =
            self.registry.lock().dropped.iter().map(|d| (d.seq, d.tree.clone())).collect();
        let Some(last) = dropped.iter().map(|d| d.0).max() else { return Ok(()) };
        // Without this a crash could bring a keyspace back that has lost its tables.
        self.sync_to(last)?;
        let mut changes = Vec::new();
        let mut tables: Vec<FileNo> = Vec::new();
        if let Some(set) = self.version.lock().as_ref() {
            for (_, tree) in &dropped {
                if let Some(state) = set.state().keyspaces.get(&tree.id) {
                    changes.push(Change::DropKeyspace { keyspace: tree.id });
                    tables.extend(state.levels.tables().map(|(_, table)| table.no));
                }
            }
        }
        if !changes.is_empty() {
            self.install(Installed { changes, ..Installed::default() })?;
        }
        let mut held: HashSet<FileNo> = HashSet::new();
        for (_, tree) in &dropped {
            for table in tree.view.load().runs.iter().flat_map(|r| r.tables.iter()) {
                table.handle.obsolete();
                held.insert(table.meta.no);
            }
        }
        // Those that a job finished just when the keyspace was dropped: no view ever held them.
        for no in tables.into_iter().filter(|no| !held.contains(no)) {
            self.remove_file(Name::Table(no));
        }
        self.registry.lock().forget_dropped(last);
        log::debug!(target: "esker", "forgot {} dropped keyspaces", dropped.len());
        self.forget_before(self.snapshots.oldest());
        Ok(())
    }
}
