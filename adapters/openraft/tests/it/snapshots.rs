//! Snapshots: streamed, resumed, refused, and installed wholly or not at all.

use crate::{Map, Types};
use esker::fs::sim::SimFs;
use esker::raft_log::LogId as Id;
use esker::{Db, Options};
use esker_openraft::{Group, LogStore, SnapshotData, SnapshotError, StateMachine};
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine, Snapshot};
use openraft::testing::{blank_ent, log_id};
use openraft::{Entry, EntryPayload, RaftLogReader, RaftSnapshotBuilder};
use std::collections::BTreeMap;
use std::io::{self, SeekFrom};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

struct Node {
    group: Group,
    log: LogStore<Types>,
    state: StateMachine<Types, Map>,
}

fn node(disk: &SimFs) -> Node {
    let options = Options::default().workers(0).segment_bytes(64 << 10).memtable_bytes(64 << 10);
    let db = Db::open("/db", options.fs(Arc::new(disk.clone()))).unwrap();
    let group = Group::open(&db, "raft", 1).unwrap();
    let (log, state) = group.stores(Map).unwrap();
    Node { group, log, state }
}

fn put(term: u64, index: u64, request: String) -> Entry<Types> {
    Entry { log_id: log_id(term, 0, index), payload: EntryPayload::Normal(request) }
}

fn rows(node: &Node) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let rows = node.state.reader().prefix("").map(|row| row.unwrap());
    rows.map(|row| (row.key()[1..].to_vec(), row.value().to_vec())).collect()
}

/// Fifty rows at a time, up to some entry of term 3.
async fn source(rows: u64) -> Node {
    let mut node = node(&SimFs::new(1));
    for first in (1..=rows).step_by(50) {
        let entries = first..(first + 50).min(rows + 1);
        let entries =
            entries.map(|i| put(3, i, format!("key {i:06}={}", "v".repeat(i as usize * 7919 % 900))));
        node.state.apply(entries).await.unwrap();
    }
    node
}

/// A node that knows better, with a log of the entries 1..=8.
async fn target(disk: &SimFs) -> Node {
    let mut node = node(disk);
    node.log.blocking_append((1..9).map(|i| put(1, i, format!("stale {i}={i}")))).await.unwrap();
    node.state.apply((1..5).map(|i| put(1, i, format!("stale {i}={i}")))).await.unwrap();
    node
}

async fn bytes(snapshot: &mut SnapshotData) -> Vec<u8> {
    let mut all = Vec::new();
    snapshot.seek(SeekFrom::Start(0)).await.unwrap();
    snapshot.read_to_end(&mut all).await.unwrap();
    all
}

async fn built(node: &mut Node) -> Snapshot<Types> {
    node.state.get_snapshot_builder().await.build_snapshot().await.unwrap()
}

#[tokio::test]
async fn a_snapshot_is_a_stream_that_can_be_taken_up_anywhere() {
    let mut source = source(12_000).await;
    let mut snapshot = built(&mut source).await;
    let data = &mut snapshot.snapshot;
    let len = data.seek(SeekFrom::End(0)).await.unwrap();
    let all = bytes(data).await;
    assert!(all.len() as u64 == len && len > 5 << 20);
    // Whatever was read before, also from behind the last mark and from before it.
    for at in [len, 4_300_000, 4_200_000, 10, 5_000_000, 0, len - 1, len + 7, 4_194_304, 70_000] {
        data.seek(SeekFrom::Start(at)).await.unwrap();
        let mut part = vec![0; 1000];
        let mut n = 0;
        while n < part.len() {
            match data.read(&mut part[n..]).await.unwrap() {
                0 => break,
                more => n += more,
            }
        }
        let at = (at as usize).min(all.len());
        assert!(part[..n] == all[at..(at + 1000).min(all.len())], "{at}");
    }
    // What is applied later is not in it, and the same state has the same name and bytes.
    source.state.apply([put(3, 12_001, "later=x".into())]).await.unwrap();
    assert!(bytes(&mut snapshot.snapshot).await == all);
    assert_ne!(built(&mut source).await.meta, snapshot.meta);

    // Received in pieces of odd sizes, some twice.
    let disk = SimFs::new(2);
    let mut target = target(&disk).await;
    let mut received = target.state.begin_receiving_snapshot().await.unwrap();
    let mut at = 0;
    for (n, size) in [1, 7, 3, 100_000, 65_536].iter().cycle().enumerate() {
        let end = (at + size).min(all.len());
        received.seek(SeekFrom::Start(at as u64)).await.unwrap();
        received.write_all(&all[at..end]).await.unwrap();
        if n % 3 == 1 {
            received.seek(SeekFrom::Start(at as u64)).await.unwrap();
            received.write_all(&all[at..end]).await.unwrap();
        }
        at = end;
        if at == all.len() {
            break;
        }
    }
    target.state.install_snapshot(&snapshot.meta, received).await.unwrap();
    let mut expected = rows(&source);
    assert!(expected.remove(&b"later"[..]).is_some());
    assert!(rows(&target) == expected);
    let current = target.state.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(current.meta, snapshot.meta);
    // The log goes on behind it, and purging it, as openraft will, changes nothing.
    target.log.purge(log_id(3, 0, 12_000)).await.unwrap();
    let state = target.log.get_log_state().await.unwrap();
    let last = Some(log_id(3, 0, 12_000));
    assert_eq!((state.last_purged_log_id, state.last_log_id), (last, last));
    target.log.blocking_append([blank_ent(3, 0, 12_001)]).await.unwrap();
    assert_eq!(target.log.try_get_log_entries(..).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_install_is_wholly_there_or_not_at_all() {
    let mut source = source(100).await;
    let snapshot = built(&mut source).await;
    let disk = SimFs::new(3);
    let mut target = target(&disk).await;
    target.group.log().db().sync().unwrap();
    let old = rows(&target);
    let (mut received, before) = (target.state.begin_receiving_snapshot().await.unwrap(), disk.ops());
    let mut data = snapshot.snapshot;
    received.write_all(&bytes(&mut data).await).await.unwrap();
    target.state.install_snapshot(&snapshot.meta, received).await.unwrap();
    let (after, new) = (disk.ops(), rows(&target));
    assert!(new == rows(&source));
    let mut seen = [0, 0];
    for op in before..=after {
        for choice in 0..disk.states_at(op) {
            let mut found = node(&disk.crash_at(op, choice));
            let log = found.group.log().state().unwrap();
            let (applied, _) = found.state.applied_state().await.unwrap();
            if applied == snapshot.meta.last_log_id {
                assert!(rows(&found) == new);
                assert_eq!((log.bounds, log.purged), (101..101, Some(Id::new(100, 3))));
                seen[1] += 1;
            } else {
                assert_eq!(applied, Some(log_id(1, 0, 4)));
                assert!(rows(&found) == old && op < after, "operation {op} of {after}");
                assert_eq!((log.bounds, log.last), (1..9, Some(Id::new(8, 1))));
                seen[0] += 1;
            }
            // Nothing is left lying about.
            assert!(
                found.group.log().db().names().unwrap().iter().all(|(name, _)| !name.contains("staging"))
            );
        }
    }
    println!("{} states with the old, {} with the new", seen[0], seen[1]);
    assert!(seen[0] > 0 && seen[1] > 0);
}

#[tokio::test]
async fn entries_behind_a_snapshot_stay_if_they_follow_it() {
    let mut source = node(&SimFs::new(1));
    source.state.apply((1..7).map(|i| put(1, i, format!("k={i}")))).await.unwrap();
    let snapshot = built(&mut source).await;
    let mut target = target(&SimFs::new(2)).await;
    target.state.install_snapshot(&snapshot.meta, snapshot.snapshot).await.unwrap();
    assert_eq!(target.group.log().bounds().unwrap(), 7..9);
    let state = target.log.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(1, 0, 6)), Some(log_id(1, 0, 8))));
}

/// Sends `bytes` from their beginning, `piece` at a time, to their end.
async fn send(received: &mut SnapshotData, bytes: &[u8], piece: usize) -> Result<(), SnapshotError> {
    let why = |e: io::Error| *e.get_ref().unwrap().downcast_ref::<SnapshotError>().unwrap();
    received.seek(SeekFrom::Start(0)).await.unwrap();
    for part in bytes.chunks(piece) {
        received.write_all(part).await.map_err(why)?;
    }
    received.shutdown().await.map_err(why)
}

/// Three rows, one without a value.
async fn small() -> (Snapshot<Types>, Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>) {
    let mut source = node(&SimFs::new(1));
    let requests = ["fruit=apple", "none=", "tree=an old one"];
    source.state.apply((1..4).zip(requests).map(|(i, r)| put(3, i, r.into()))).await.unwrap();
    let mut snapshot = built(&mut source).await;
    let all = bytes(&mut snapshot.snapshot).await;
    (snapshot, all, rows(&source))
}

fn as_before(target: &Node) -> bool {
    let old = (1..5).map(|i| (format!("stale {i}").into_bytes(), i.to_string().into_bytes())).collect();
    rows(target) == old && target.group.log().bounds().unwrap() == (1..9)
}

#[tokio::test]
async fn every_flipped_bit_is_refused_and_changes_nothing() {
    let (snapshot, all, new) = small().await;
    let mut target = target(&SimFs::new(2)).await;
    let mut received = target.state.begin_receiving_snapshot().await.unwrap();
    for piece in [1, 7, all.len()] {
        for (at, bit) in (0..all.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut bad = all.clone();
            bad[at] ^= 1 << bit;
            let refused = send(&mut received, &bad, piece).await.unwrap_err();
            match refused {
                SnapshotError::Foreign => assert!(at < 8),
                // No later than at the next row: none has as many bytes.
                SnapshotError::Damaged { at: told } => {
                    assert!(at >= 8 && told + 40 > at as u64 && told < at as u64 + 40)
                }
                other => panic!("bit {bit} of byte {at}: {other}"),
            }
            // And so is what is sent behind it.
            assert!(received.write_all(&all[at..]).await.is_err() && received.shutdown().await.is_err());
        }
    }
    assert!(as_before(&target));
    // Sent again as it is, it is taken, and nothing of the others is left.
    send(&mut received, &all, 5).await.unwrap();
    target.state.install_snapshot(&snapshot.meta, received).await.unwrap();
    assert!(rows(&target) == new);
}

#[tokio::test]
async fn what_ends_early_or_late_is_refused_and_changes_nothing() {
    let (snapshot, all, new) = small().await;
    let mut target = target(&SimFs::new(2)).await;
    for cut in 0..all.len() {
        let mut received = target.state.begin_receiving_snapshot().await.unwrap();
        let refused = send(&mut received, &all[..cut], 16).await;
        assert_eq!(refused, Err(SnapshotError::Truncated { at: cut as u64 }));
        // Also if the end is not asked about.
        assert!(target.state.install_snapshot(&snapshot.meta, received).await.is_err());
        assert!(as_before(&target));
    }
    let (end, mut received) = (all.len() as u64, target.state.begin_receiving_snapshot().await.unwrap());
    for piece in [1, all.len(), all.len() + 1] {
        let longer = [&all[..], b"x"].concat();
        let refused = send(&mut received, &longer, piece).await;
        assert_eq!(refused, Err(SnapshotError::Trailing { at: end }));
    }
    // A part that never came; then it does.
    received.seek(SeekFrom::Start(0)).await.unwrap();
    received.write_all(&all[..20]).await.unwrap();
    received.seek(SeekFrom::Start(21)).await.unwrap();
    assert!(received.write_all(&all[21..]).await.is_err());
    assert!(as_before(&target));
    send(&mut received, &all, all.len()).await.unwrap();
    target.state.install_snapshot(&snapshot.meta, received).await.unwrap();
    assert!(rows(&target) == new);
}

/// What somebody made up, with the right sums: nothing is waited for, or kept, that no row can have.
#[tokio::test]
async fn lengths_that_no_row_has_are_refused_at_once() {
    let mut target = target(&SimFs::new(2)).await;
    let mut received = target.state.begin_receiving_snapshot().await.unwrap();
    for (key_len, value_len) in
        [(0, 1), (1, u32::MAX), (u32::MAX, 0), (1, (256 << 20) + 1), ((64 << 10) + 1, 0)]
    {
        let lengths = [u32::to_le_bytes(key_len), u32::to_le_bytes(value_len)].concat();
        let sum = crc32fast::hash(&[b"esksnap2", &lengths[..]].concat());
        let row = [b"esksnap2", &lengths[..], &sum.to_le_bytes()].concat();
        assert_eq!(send(&mut received, &row, 9).await, Err(SnapshotError::Damaged { at: 8 }));
    }
    assert!(as_before(&target));
}

#[tokio::test]
async fn a_log_stays_after_an_install_that_failed() {
    let (snapshot, all, new) = small().await;
    let mut target = target(&SimFs::new(2)).await;
    let last = log_id(3, 0, 7);
    // Somebody went away in the middle: nobody waits for that for ever.
    let received = target.state.begin_receiving_snapshot().await.unwrap();
    let mut log = target.log.clone();
    let purge = tokio::spawn(async move { log.purge(last).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    drop(received);
    assert!(purge.await.unwrap().is_err());

    let received = target.state.begin_receiving_snapshot().await.unwrap();
    assert!(target.state.install_snapshot(&snapshot.meta, received).await.is_err());
    assert!(target.log.purge(last).await.is_err());
    assert!(as_before(&target));
    let mut received = target.state.begin_receiving_snapshot().await.unwrap();
    send(&mut received, &all, all.len()).await.unwrap();
    target.state.install_snapshot(&snapshot.meta, received).await.unwrap();
    target.log.purge(log_id(3, 0, 3)).await.unwrap();
    assert!(rows(&target) == new && target.group.log().bounds().unwrap() == (4..4));
}

/// openraft orders the purge along with the install, and does not wait for that.
#[tokio::test]
async fn a_purge_waits_for_the_snapshot_that_makes_it_possible() {
    let mut source = source(100).await;
    let last = log_id(3, 0, 100);
    for fails in [false, true] {
        let snapshot = built(&mut source).await;
        let mut target = target(&SimFs::new(2)).await;
        let mut received = target.state.begin_receiving_snapshot().await.unwrap();
        let mut data = snapshot.snapshot;
        let all = bytes(&mut data).await;
        received.write_all(&all[..if fails { 50 } else { all.len() }]).await.unwrap();
        let mut log = target.log.clone();
        let mut purge = tokio::spawn(async move { log.purge(last).await });
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut purge).await.is_err());
        assert_eq!(target.group.log().bounds().unwrap(), 1..9);
        let installed = target.state.install_snapshot(&snapshot.meta, received).await;
        assert_eq!(installed.is_err(), fails);
        assert_eq!(purge.await.unwrap().is_err(), fails);
        assert_eq!(target.group.log().bounds().unwrap(), if fails { 1..9 } else { 101..101 });
    }
}

#[tokio::test]
async fn a_hole_is_refused() {
    let mut target = target(&SimFs::new(1)).await;
    assert!(target.log.blocking_append([blank_ent(1, 0, 10)]).await.is_err());
    assert!(target.log.blocking_append([blank_ent(2, 0, 8)]).await.is_err());
    target.log.truncate(log_id(1, 0, 8)).await.unwrap();
    target.log.blocking_append([blank_ent(2, 0, 8)]).await.unwrap();
    assert_eq!(target.log.get_log_state().await.unwrap().last_log_id, Some(log_id(2, 0, 8)));
}

#[tokio::test]
async fn groups_go_without_a_trace() {
    let target = target(&SimFs::new(1)).await;
    let Node { group, log, state } = target;
    let db = group.log().db().clone();
    drop((log, state));
    group.remove().unwrap();
    let group = Group::open(&db, "raft", 1).unwrap();
    let (mut log, mut state) = group.stores::<Types, _>(Map).unwrap();
    assert_eq!(log.get_log_state().await.unwrap(), Default::default());
    assert_eq!((state.applied_state().await.unwrap().0, state.reader().prefix("").count()), (None, 0));
}
