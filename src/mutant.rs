//! Deliberate faults, for the test of the tests: each breaks one promise in the way an engineer might.
//!
//! Without `--cfg esker_mutants` none of them exists: [`Mutant::on`] is the constant `false`. With
//! it, the environment variable `ESKER_MUTANT` names the one that is on. `.ci/prove mutants` runs the tests
//! against each in turn, and fails if one survives.

/// A place where the engine goes wrong on demand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mutant {
    /// A `Sync` commit returns before its sync.
    AckBeforeSync,
    /// The sync stage leaves out the active segment.
    SkipJournalSync,
    /// The sync stage leaves out the segments that the journal has left.
    SkipSyncAtRotation,
    /// A segment is announced before its name is durable.
    SkipDirSyncOfSegment,
    /// Tables are published before their names are durable.
    SkipDirSyncOfTables,
    /// A manifest counts before its name is durable.
    SkipDirSyncOfManifest,
    /// The directory's own name is not synced when it is made.
    SkipDirSyncOfParent,
    /// Tables are published before they are synced.
    PublishUnsyncedTable,
    /// Edits count before they are synced.
    SkipManifestSync,
    /// A flush is published although the journal is not durable that far.
    FlushBeforeJournal,
    /// A flush passes for all there is before a place of the journal although others need that.
    FlushIgnoresOthers,
    /// A record's header is not covered by its checksum, but for length and payload.
    HeaderOutsideChecksum,
    /// The payload of a record is taken as it is.
    PayloadUnchecked,
    /// Any bad record is the tail, whatever witnesses say.
    BadRecordIsTail,
    /// No mark says what the sync before made durable.
    SkipMark,
    /// Records claim more to be durable than is.
    WatermarkAhead,
    /// What recovery read may never have reached the disk, and is built upon.
    TrustPageCache,
    /// New commits go to a segment that was recovered.
    AppendToRecovered,
    /// Records are not bound to their segment: those of another are as good.
    AcceptRecycledRecord,
    /// Segments go while memtables need them.
    DeleteSegmentEarly,
    /// Recovery forgets the last sequence number.
    ReuseSequenceNumber,
    /// Recovery forgets which file numbers were given.
    ReuseFileNumber,
    /// An older manifest is taken when the newest looks odd.
    TakeOlderManifest,
    /// A merge drops tombstones that still hide something below.
    DropTombstoneEarly,
    /// A merge does not know of snapshots.
    IgnoreSnapshots,
    /// A merge takes a failed read for the end of its input.
    SwallowReadError,
    /// Versions of one key are split over two tables of a level.
    SplitUserKey,
    /// A merge forgets the range deletes of its inputs.
    ForgetRangeDeletes,
    /// A range delete hides what was written after it.
    RangeHidesNewer,
    /// Inputs of a compaction are removed before the edit is durable.
    RemoveInputsEarly,
    /// A scan does not enter the last block of a table.
    SkipLastBlock,
    /// The filter of a table leaves keys out.
    FilterForgetsKey,
    /// Blocks are used unchecked.
    BlockUnchecked,
    /// Checksums of blocks do not say where the block belongs.
    BlockAnywhere,
    /// The cache takes one table's block for another's.
    CacheMixup,
    /// Lengths from disk are believed, and allocated.
    AllocateUnbounded,
    /// A commit is visible before all of it is.
    VisibleBeforeApplied,
    /// A condition does not look at what came since it was read.
    ConditionUnseen,
    /// A failed sync is tried again, and believed.
    RetryFailedSync,
    /// A full disk makes the database read-only.
    FullDiskIsFinal,
    /// The name of a checkpoint is not made durable.
    CheckpointUnsynced,
    /// A keyspace that was dropped loses its tables while a snapshot sees them.
    DropIgnoresSnapshots,
    /// The footer of a segment leaves out the last entry of a log.
    FooterEndsEarly,
    /// A footer leaves out entries although what took them away may be lost.
    FooterAheadOfJournal,
    /// Log entries are moved without their tags.
    MoveForgetsTags,
    /// A purge that is replayed changes nothing.
    PurgeNotReplayed,
    /// A segment goes when no log entry in it is live, though what took the last may be lost.
    ReleaseLogSegmentEarly,
    /// A segment is written to again though a checkpoint has it.
    ReuseLinkedSegment,
    /// A segment is written to again though somebody reads its old entries.
    ReuseReadSegment,
    /// Checksums of log entries do not say which log and index they belong to.
    EntryAnywhere,
    /// A snapshot takes an entry that was appended later for the one that was there.
    SnapshotTakesNewer,
}

impl Mutant {
    #[cfg(not(esker_mutants))]
    #[inline(always)]
    pub const fn on(self) -> bool {
        false
    }

    #[cfg(esker_mutants)]
    pub fn on(self) -> bool {
        use std::sync::OnceLock;
        static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
        let chosen = CHOSEN.get_or_init(|| std::env::var("ESKER_MUTANT").ok());
        chosen.as_deref().is_some_and(|name| {
            // Without an allocation: some tests count them.
            let mut same = Same { name, so: false };
            std::fmt::write(&mut same, format_args!("{self:?}")).is_ok() && same.so
        })
    }
}

/// Compares a name with one that is written in one piece.
#[cfg(esker_mutants)]
struct Same<'a> {
    name: &'a str,
    so: bool,
}

#[cfg(esker_mutants)]
impl std::fmt::Write for Same<'_> {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        self.so = s == self.name;
        Ok(())
    }
}
