//! raft-engine 0.4.

use super::{Change, HEADER, LogEngine, Setup, room};
use crate::Outcome;
use protobuf::well_known_types::BytesValue;
use raft_engine::{Command, Config, Engine, LogBatch, MessageExt, ReadableSize};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

pub struct RaftEngine {
    engine: Arc<Engine>,
    /// Bytes appended since files were last purged, and after how many they are purged again.
    appended: AtomicUsize,
    every: usize,
    purge: Option<SyncSender<()>>,
    purger: Option<JoinHandle<()>>,
}

/// Its entries are protobuf messages. The smallest that holds bytes: our entries know their index.
struct Plain;

impl MessageExt for Plain {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        let index = entry.value.get(HEADER / 2..HEADER).and_then(|bytes| bytes.try_into().ok());
        index.map_or(u64::MAX, u64::from_be_bytes)
    }
}

impl RaftEngine {
    pub fn open(setup: &Setup) -> Outcome<RaftEngine> {
        let config = Config {
            dir: setup.dir.to_str().ok_or("a strange path")?.to_string(),
            target_file_size: ReadableSize(setup.memory as u64),
            purge_threshold: ReadableSize(room(setup.live, setup.memory)),
            batch_compression_threshold: ReadableSize(0),
            ..Config::default()
        };
        let engine = Arc::new(Engine::open(config)?);
        // As its users do: in the background, now and then, and what it asks for is done.
        let (purge, asked) = sync_channel(1);
        let (purging, keep) = (engine.clone(), setup.keep);
        let purger = std::thread::spawn(move || {
            for () in asked {
                match purging.purge_expired_files() {
                    Ok(groups) => groups.into_iter().for_each(|group| compact(&purging, group, keep)),
                    Err(e) => eprintln!("raft-engine could not purge: {e}"),
                }
            }
        });
        let (purge, purger) = (Some(purge), Some(purger));
        Ok(RaftEngine { engine, appended: AtomicUsize::new(0), every: setup.memory, purge, purger })
    }

    fn appended(&self, bytes: usize) {
        let before = self.appended.fetch_add(bytes, Ordering::Relaxed);
        if before / self.every != (before + bytes) / self.every
            && let Some(purge) = &self.purge
        {
            // If one is due already, that will do.
            let _ = purge.try_send(());
        }
    }
}

/// Lets go of what need not be kept.
fn compact(engine: &Engine, group: u64, keep: Option<u64>) {
    if let Some((last, keep)) = engine.last_index(group).zip(keep)
        && last >= keep
    {
        engine.compact_to(group, last + 1 - keep);
    }
}

impl Drop for RaftEngine {
    fn drop(&mut self) {
        self.purge = None;
        self.purger.take().map(JoinHandle::join);
    }
}

impl LogEngine for RaftEngine {
    fn commit(&self, changes: &[Change]) -> Outcome {
        let mut batch = LogBatch::default();
        let mut bytes = 0;
        for change in changes {
            let entry = |(_, bytes): (u64, &[u8])| BytesValue { value: bytes.to_vec(), ..Default::default() };
            let entries: Vec<BytesValue> = change.entries().map(entry).collect();
            batch.add_entries::<Plain>(change.group, &entries)?;
            if !change.purge.is_empty() {
                batch.add_command(change.group, Command::Compact { index: change.purge.end });
            }
            bytes += change.bytes.len();
        }
        self.engine.write(&mut batch, true)?;
        self.appended(bytes);
        Ok(())
    }

    fn bounds(&self, group: u64) -> Outcome<Range<u64>> {
        let of = |engine: &Engine| Some(engine.first_index(group)?..engine.last_index(group)? + 1);
        Ok(of(&self.engine).unwrap_or(0..0))
    }

    fn read(
        &self,
        group: u64,
        range: Range<u64>,
        most: usize,
        see: &mut dyn FnMut(u64, &[u8]) -> Outcome,
    ) -> Outcome<u64> {
        let mut entries = Vec::new();
        self.engine.fetch_entries_to::<Plain>(group, range.start, range.end, Some(most), &mut entries)?;
        for (index, entry) in (range.start..).zip(&entries) {
            see(index, &entry.value)?;
        }
        Ok(entries.len() as u64)
    }
}
