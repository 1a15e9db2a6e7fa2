//! Tests of the fault model itself: what must survive does, and every fault that is promised
//! really occurs. A disk that is too kind would make every crash test above it worthless.

use super::*;
use crate::fs::os::OsFs;
use crate::fs::{read_exact_at, write_all_at};
use std::collections::BTreeSet;

const ROOT: &str = "/";

fn p(name: &str) -> PathBuf {
    Path::new(ROOT).join(name)
}

fn write(file: &Arc<dyn File>, offset: u64, bytes: &[u8]) {
    write_all_at(&**file, bytes, offset).unwrap();
}

/// All files with their lengths and hashes.
fn contents(fs: &SimFs) -> Vec<(PathBuf, u64, u32)> {
    let hash = |path: &Path| crc32fast::hash(&fs.read(path).unwrap());
    fs.files().into_iter().map(|(path, len)| (path.clone(), len, hash(&path))).collect()
}

/// The states worth trying now, and some more.
fn states(fs: &SimFs) -> impl Iterator<Item = SimFs> {
    (0..fs.states_at(fs.ops()).max(400)).map(|choice| fs.crash(choice))
}

/// Whether some state of the disk shows this.
fn occurs(fs: &SimFs, what: impl Fn(&SimFs) -> bool) -> bool {
    states(fs).any(|disk| what(&disk))
}

/// A disk with one file "f" of `durable` bytes, all synced.
fn with_file(seed: u64, durable: &[u8]) -> (SimFs, Arc<dyn File>) {
    let fs = SimFs::new(seed);
    let file = fs.create(&p("f")).unwrap();
    write(&file, 0, durable);
    file.sync().unwrap();
    fs.sync_dir(Path::new(ROOT)).unwrap();
    (fs, file)
}

fn kind<T>(result: io::Result<T>) -> ErrorKind {
    match result {
        Ok(_) => panic!("should have failed"),
        Err(e) => e.kind(),
    }
}

// -- what must hold --

#[test]
fn what_was_synced_survives_every_choice() {
    let (fs, file) = with_file(1, &[7; 3000]);
    assert_eq!(fs.states_at(fs.ops()), 1);
    write(&file, 2900, &[8; 1000]);
    fs.create(&p("g")).unwrap();
    fs.remove(&p("f")).unwrap();
    for (choice, disk) in states(&fs).enumerate() {
        // The removal is in doubt; the bytes are not.
        if let Ok(bytes) = disk.read(p("f")) {
            assert!(bytes.len() >= 3000 && bytes[..2900] == [7; 2900], "choice {choice}");
        }
    }
    fs.sync_dir(Path::new(ROOT)).unwrap();
    assert!(!occurs(&fs, |disk| disk.read(p("f")).is_ok()));
    assert!(states(&fs).all(|disk| disk.read(p("g")).unwrap().is_empty()));
}

/// What the oracle below knows of a file.
#[derive(Default)]
struct Known {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Bytes that every crash must show: written, synced, and not changed since.
    certain: Vec<Option<u8>>,
    named: bool,
}

#[test]
fn random_runs_never_lose_what_is_certain() {
    for seed in 0..6 {
        let mut rng = content::Rng(seed);
        let fs = SimFs::new(seed);
        let mut files = Vec::<(Arc<dyn File>, Known)>::new();
        for step in 0..60 {
            let (count, pick) = (files.len(), rng.below(files.len()));
            match (rng.below(12), files.get_mut(pick)) {
                (0 | 1, _) if count < 5 => {
                    let file = fs.create(&p(&count.to_string())).unwrap();
                    files.push((file, Known::default()));
                }
                (2, _) => {
                    fs.sync_dir(Path::new(ROOT)).unwrap();
                    files.iter_mut().for_each(|(_, known)| known.named = true);
                }
                (3 | 4, Some((file, known))) => {
                    file.sync().unwrap();
                    known.durable = known.live.clone();
                    known.certain.resize(known.live.len(), None);
                    // Written and synced: nonzero bytes are always written ones here.
                    for (certain, &byte) in known.certain.iter_mut().zip(&known.live) {
                        *certain = (byte != 0).then_some(byte);
                    }
                }
                (5, Some((file, known))) => {
                    let len = rng.below(6000);
                    file.allocate(len as u64).unwrap();
                    known.live.resize(known.live.len().max(len), 0);
                }
                (_, Some((file, known))) => {
                    let (at, len) = (rng.below(5000), 1 + rng.below(1500));
                    let value = 1 + rng.below(255) as u8;
                    write(file, at as u64, &vec![value; len]);
                    known.live.resize(known.live.len().max(at + len), 0);
                    known.live[at..at + len].fill(value);
                    for certain in known.certain.iter_mut().skip(at).take(len) {
                        *certain = certain.filter(|&byte| byte == value);
                    }
                }
                _ => {}
            }
            for (i, (file, known)) in files.iter().enumerate() {
                assert_eq!(fs.read(p(&i.to_string())).unwrap(), known.live);
                assert_eq!(file.len().unwrap(), known.live.len() as u64);
            }
            let choices = (0..6).chain((0..4).map(|_| 6 + rng.next() % 4200));
            for choice in choices {
                let disk = fs.crash(choice);
                for (i, (_, known)) in files.iter().enumerate() {
                    let Ok(found) = disk.read(p(&i.to_string())) else {
                        assert!(!known.named, "seed {seed} step {step} choice {choice}: a name is lost");
                        continue;
                    };
                    let len = known.durable.len()..=known.live.len();
                    assert!(len.contains(&found.len()), "seed {seed} step {step} choice {choice}");
                    for (at, certain) in known.certain.iter().enumerate() {
                        if let Some(byte) = certain {
                            assert_eq!(found[at], *byte, "seed {seed} step {step} choice {choice} at {at}");
                        }
                    }
                    if choice == 1 {
                        assert_eq!(found, known.live);
                    }
                }
            }
        }
    }
}

#[test]
fn the_fixed_choices_are_what_they_say() {
    let (fs, old) = with_file(3, &[1; 512]);
    let new = fs.create(&p("g")).unwrap();
    write(&new, 0, &[2; 1024]);
    new.sync().unwrap();
    write(&new, 1024, &[3; 512]);
    write(&old, 512, &[4; 1024]);
    let f = |disk: &SimFs| disk.read(p("f")).unwrap();
    let g = |disk: &SimFs| disk.read(p("g")).ok();
    let cat = |parts: &[(u8, usize)]| -> Vec<u8> {
        parts.iter().flat_map(|&(byte, n)| std::iter::repeat_n(byte, n)).collect()
    };
    let (f_all, g_all) = (cat(&[(1, 512), (4, 1024)]), cat(&[(2, 1024), (3, 512)]));
    let (f_zero, g_zero) = (cat(&[(1, 512), (0, 1024)]), cat(&[(2, 1024), (0, 512)]));
    let found = |choice| (f(&fs.crash(choice)), g(&fs.crash(choice)));
    assert_eq!(found(0), (vec![1; 512], None));
    assert_eq!(found(1), (f_all.clone(), Some(g_all.clone())));
    assert_eq!(found(2), (f_zero.clone(), Some(g_zero)));
    let (noisy_f, noisy_g) = found(3);
    let noisy_g = noisy_g.unwrap();
    assert!(noisy_f[..512] == f_all[..512] && noisy_g[..1024] == g_all[..1024]);
    assert!(noisy_f.len() == 1536 && noisy_f[512..1024] != [4; 512] && noisy_f[512..1024] != [0; 512]);
    assert!(noisy_g.len() == 1536 && noisy_g[1024..] != [3; 512] && noisy_g[1024..] != [0; 512]);
    assert_eq!(found(4), (f_zero, Some(g_all)));
    assert_eq!(found(5), (f_all, None));
}

// -- every fault occurs --

#[test]
fn sectors_survive_out_of_order_in_one_file_and_between_files() {
    let (fs, a) = with_file(4, &[9; 2048]);
    let b = fs.create(&p("b")).unwrap();
    fs.sync_dir(Path::new(ROOT)).unwrap();
    write(&a, 0, &[1; 512]);
    write(&b, 0, &[2; 512]);
    write(&a, 1024, &[3; 512]);
    let at = |disk: &SimFs, name: &str, at: usize| disk.read(p(name)).unwrap().get(at).copied();
    for (first, second, third) in [(1, Some(2), 9), (9, Some(2), 9), (9, None, 3), (1, None, 9), (9, None, 9)]
    {
        assert!(occurs(&fs, |disk| {
            (at(disk, "f", 0), at(disk, "b", 0), at(disk, "f", 1024)) == (Some(first), second, Some(third))
        }));
    }
}

#[test]
fn length_and_data_survive_apart() {
    let (fs, file) = with_file(5, &[1; 700]);
    write(&file, 700, &[2; 900]);
    let found = |what: fn(&[u8]) -> bool| occurs(&fs, |disk| what(&disk.read(p("f")).unwrap()));
    assert!(found(|bytes| bytes.len() == 700), "length lost");
    assert!(found(|bytes| bytes.len() == 1600 && bytes[700..] == [0; 900]), "zeros");
    assert!(found(|bytes| bytes.len() == 1600 && ![0, 2].contains(&bytes[1100])), "garbage");
    assert!(found(|bytes| bytes.len() == 1600 && bytes[700..] == [2; 900]), "both");
    assert!(found(|bytes| (701..1600).contains(&bytes.len())), "a length on the way");
    // Data without the length is not seen even when the file grows again.
    for disk in states(&fs).filter(|disk| disk.read(p("f")).unwrap().len() == 700) {
        disk.open_write(&p("f")).unwrap().allocate(1600).unwrap();
        assert_eq!(disk.read(p("f")).unwrap()[700..], [0; 900]);
    }
}

#[test]
fn writes_are_torn_at_bytes() {
    let (fs, file) = with_file(6, &[0; 4096]);
    write(&file, 100, &[5; 50]);
    let prefix = |disk: &SimFs| {
        let bytes = disk.read(p("f")).unwrap();
        let n = bytes[100..150].iter().take_while(|&&b| b == 5).count();
        (n > 0 && n < 50 && bytes[100 + n..150].iter().all(|&b| b == 0)).then_some(n)
    };
    let places: BTreeSet<usize> = states(&fs).filter_map(|disk| prefix(&disk)).collect();
    assert!(places.len() > 10, "torn at {places:?}");

    // Across sectors: in order, with all before the tear and nothing behind, and out of order.
    let (fs, file) = with_file(7, &[0; 8192]);
    write(&file, 0, &[5; 8192]);
    let shape = |disk: &SimFs| {
        let bytes = disk.read(p("f")).unwrap();
        let n = bytes.iter().take_while(|&&b| b == 5).count();
        (n, bytes[n..].iter().all(|&b| b == 0))
    };
    assert!(occurs(&fs, |disk| matches!(shape(disk), (n, true) if n > 512 && n % 512 != 0)));
    assert!(occurs(&fs, |disk| matches!(shape(disk), (n, false) if n > 0 && n % 512 != 0)));
}

#[test]
fn a_sector_is_found_as_it_was_in_between() {
    let (fs, file) = with_file(8, &[0; 8192]);
    // More than 12 sectors, so that the states are seeded ones.
    for value in 1..=3 {
        write(&file, 0, &[value; 8192]);
    }
    let at = |disk: &SimFs, no: usize| disk.read(p("f")).unwrap()[no * 512];
    for value in 0..=3 {
        assert!(occurs(&fs, |disk| at(disk, 1) == value), "{value}");
    }
    // Each sector on its own: older before newer is not what a write torn in order shows.
    assert!(occurs(&fs, |disk| (1..16).any(|no| (at(disk, no - 1), at(disk, no)) == (1, 2))));
}

#[test]
fn names_are_lost_come_back_and_show_moments_between() {
    let (fs, _file) = with_file(9, b"kept");
    fs.remove(&p("f")).unwrap();
    fs.create(&p("new")).unwrap().sync().unwrap();
    fs.create(&p("brief")).unwrap().sync().unwrap();
    fs.remove(&p("brief")).unwrap();
    let has = |disk: &SimFs| ["f", "new", "brief"].map(|name| disk.read(p(name)).is_ok());
    let all: BTreeSet<_> = (6..6 + 8).map(|choice| has(&fs.crash(choice))).collect();
    assert_eq!(all.len(), 8, "every subset of the names");
    assert!(states(&fs).all(|disk| disk.read(p("f")).is_ok_and(|b| b == b"kept") || !has(&disk)[0]));
    fs.sync_dir(Path::new(ROOT)).unwrap();
    assert!(states(&fs).all(|disk| has(&disk) == [false, true, false]));
    // Gone, another in its place: nothing, the new and the one between are worth trying.
    fs.remove(&p("new")).unwrap();
    write(&fs.create(&p("new")).unwrap(), 0, b"");
    fs.remove(&p("new")).unwrap();
    assert!(fs.states_at(fs.ops()) > 6 + 2);
}

#[test]
fn a_name_may_survive_without_its_data_and_a_link_with_it() {
    let fs = SimFs::new(10);
    let file = fs.create(&p("a")).unwrap();
    write(&file, 0, b"data");
    assert!(occurs(&fs, |disk| disk.read(p("a")).is_ok_and(|b| b.is_empty())));
    assert!(occurs(&fs, |disk| disk.read(p("a")).is_ok_and(|b| b == [0; 4])));
    file.sync().unwrap();
    fs.link(&p("a"), &p("b")).unwrap();
    fs.remove(&p("a")).unwrap();
    let found = |disk: &SimFs| (disk.read(p("a")).ok(), disk.read(p("b")).ok());
    let data = || Some(b"data".to_vec());
    for names in [(None, None), (data(), None), (None, data()), (data(), data())] {
        assert!(occurs(&fs, |disk| found(disk) == names), "{names:?}");
    }
    // Both names are one file still.
    let both = states(&fs).find(|disk| found(disk) == (data(), data())).unwrap();
    write(&both.open_write(&p("a")).unwrap(), 0, b"DATA");
    assert_eq!(both.read(p("b")).unwrap(), b"DATA");
}

#[test]
fn a_directory_is_a_name_too() {
    let fs = SimFs::new(11);
    fs.create_dir_all(&p("a/b")).unwrap();
    fs.create(&p("a/b/f")).unwrap().sync().unwrap();
    fs.sync_dir(&p("a/b")).unwrap();
    assert!(occurs(&fs, |disk| disk.list(&p("a/b")).is_err()));
    assert!(occurs(&fs, |disk| disk.list(&p("a")).is_ok_and(|names| names.is_empty())));
    assert!(occurs(&fs, |disk| disk.read(p("a/b/f")).is_ok()));
    let lost = |disk: &SimFs| disk.list(&p("a")).is_err();
    assert!(states(&fs).filter(lost).all(|disk| disk.files().is_empty() && disk.list(&p("a/b")).is_err()));
    fs.sync_dir(&p("a")).unwrap();
    assert!(states(&fs).all(|disk| lost(&disk) || disk.read(p("a/b/f")).is_ok()));
    fs.sync_dir(Path::new(ROOT)).unwrap();
    assert!(states(&fs).all(|disk| disk.read(p("a/b/f")).is_ok()));
}

#[test]
fn space_never_written_turns_into_garbage_and_stays_so() {
    let fs = SimFs::new(12);
    let old = fs.create(&p("old")).unwrap();
    write(&old, 0, &[0xaa; 8192]);
    old.sync().unwrap();
    let file = fs.create(&p("f")).unwrap();
    file.allocate(8192).unwrap();
    write(&file, 0, b"head");
    file.sync().unwrap();
    fs.remove(&p("old")).unwrap();
    fs.sync_dir(Path::new(ROOT)).unwrap();
    assert_eq!(fs.read(p("f")).unwrap()[4..], [0; 8188]);
    assert!(fs.states_at(fs.ops()) > 1);
    let tail = |disk: &SimFs| disk.read(p("f")).unwrap()[512..].to_vec();
    assert!(occurs(&fs, |disk| tail(disk) == [0; 7680]), "zeros");
    assert!(occurs(&fs, |disk| tail(disk) == [0xaa; 7680]), "what a removed file held");
    let noisy = states(&fs).find(|disk| ![0, 0xaa].contains(&tail(disk)[0])).unwrap();
    for disk in states(&fs).chain([noisy.clone()]) {
        // Bytes beside what was written in a sector are what the program saw.
        assert_eq!(disk.read(p("f")).unwrap()[..512], fs.read(p("f")).unwrap()[..512]);
    }
    let again = noisy.crash(0);
    assert_eq!(tail(&again), tail(&noisy));
    // A write into it leaves the rest of the sector as it was seen; new space is zeros again.
    let file = again.open_write(&p("f")).unwrap();
    write(&file, 600, b"x");
    file.allocate(9000).unwrap();
    let mut expect = tail(&noisy);
    expect[600 - 512] = b'x';
    expect.resize(9000 - 512, 0);
    assert_eq!(tail(&again), expect);
    // Zeros that were only seen may still turn.
    let zeros = fs.crash(0);
    assert!(occurs(&zeros, |disk| tail(disk) != [0; 7680]));
}

#[test]
fn what_was_lost_may_show_in_a_file_of_the_next_life() {
    let (fs, _file) = with_file(21, &[0xbb; 4096]);
    fs.remove(&p("f")).unwrap();
    fs.sync_dir(Path::new(ROOT)).unwrap();
    let next = fs.crash(0);
    next.create(&p("g")).unwrap().allocate(4096).unwrap();
    assert!(occurs(&next, |disk| disk.read(p("g")).is_ok_and(|bytes| bytes == [0xbb; 4096])));
}

#[test]
fn garbage_spares_what_was_durable_and_what_was_written_as_it_was() {
    let (fs, file) = with_file(13, &[1; 700]);
    write(&file, 0, &[1; 700]);
    assert!(states(&fs).all(|disk| disk.read(p("f")).unwrap() == [1; 700]));
    write(&file, 600, &[2; 300]);
    let bytes = fs.crash(3).read(p("f")).unwrap();
    assert_eq!((&bytes[..600], bytes.len()), (&[1; 600][..], 900));
    assert!(bytes[600..].iter().all(|b| ![1, 2].contains(b) || bytes[600..].iter().any(|c| c != b)));
    assert!(bytes[600..900] != [2; 300] && bytes[700..900] != [0; 200]);
}

#[test]
fn a_window_is_in_doubt_like_any_write() {
    let (fs, file) = with_file(14, &[0; 8192]);
    let mut window = file.window(8192).unwrap().unwrap();
    window.populate(0, 4096).unwrap();
    window.write(510, b"pages").unwrap();
    let seen = |disk: &SimFs| disk.read(p("f")).unwrap()[510..515].to_vec();
    assert_eq!(seen(&fs), b"pages");
    for state in [b"pages", b"\0\0\0\0\0", b"pa\0\0\0", b"\0\0ges"] {
        assert!(occurs(&fs, |disk| seen(disk) == state), "{state:?}");
    }
    file.sync().unwrap();
    assert!(states(&fs).all(|disk| seen(&disk) == b"pages"));
    assert_eq!(kind(window.write(4095, b"xy")), ErrorKind::InvalidInput);
    assert_eq!(kind(window.populate(8192, 1)), ErrorKind::InvalidInput);
}

#[test]
fn few_things_in_doubt_are_tried_in_all_combinations() {
    let (fs, file) = with_file(15, &[0; 512 * 4]);
    for no in 0..4 {
        write(&file, no * 512, &[1 + no as u8; 512]);
    }
    fs.create(&p("x")).unwrap();
    fs.create(&p("y")).unwrap();
    assert_eq!(fs.states_at(fs.ops()), 6 + 64 + 16);
    let distinct: BTreeSet<_> = (6..6 + 64).map(|choice| contents(&fs.crash(choice))).collect();
    assert_eq!(distinct.len(), 64);
    for i in 0..7 {
        fs.create(&p(&i.to_string())).unwrap();
    }
    assert_eq!(fs.states_at(fs.ops()), 6 + 64, "13 things in doubt");
}

// -- the machinery --

/// A busy run over several files; returns the disk.
fn busy(seed: u64, ops: u64) -> SimFs {
    let fs = SimFs::new(seed);
    let mut rng = content::Rng(seed);
    let mut files = Vec::new();
    while fs.ops() < ops {
        let pick = rng.below(files.len());
        match (rng.below(20), files.get(pick)) {
            (0, _) | (_, None) => {
                let file = fs.create(&p(&format!("{:04}", files.len()))).unwrap();
                if fs.ops() < ops {
                    file.allocate(16 << 10).unwrap();
                }
                files.push(file);
            }
            (1, Some(file)) => file.sync().unwrap(),
            (2, _) => fs.sync_dir(Path::new(ROOT)).unwrap(),
            (3, _) if rng.coin(2) => drop(fs.remove(&p(&format!("{pick:04}")))),
            (_, Some(file)) => {
                write(file, rng.below(32 << 10) as u64, &vec![rng.next() as u8; 1 + rng.below(300)])
            }
        }
    }
    fs
}

#[test]
fn the_same_seed_gives_the_same_states_in_any_order_of_asking() {
    let (a, b, other) = (busy(1, 300), busy(1, 300), busy(2, 300));
    assert_eq!(a.log(), b.log());
    assert_eq!(contents(&a), contents(&b));
    let mut rng = content::Rng(3);
    let mut differs = 0;
    let points: Vec<(u64, u64)> = (0..40).map(|_| (rng.next() % 301, rng.next() % 70)).collect();
    let mut sorted = points.clone();
    sorted.sort();
    let found: BTreeMap<_, _> =
        sorted.iter().map(|&(op, choice)| ((op, choice), contents(&a.crash_at(op, choice)))).collect();
    for point in points {
        let (op, choice) = point;
        assert_eq!(found[&point], contents(&b.crash_at(op, choice)), "{point:?}");
        // A crash of the crash is determined as well.
        let again = |fs: &SimFs| contents(&fs.crash_at(op, choice).crash(9));
        assert_eq!(again(&a), again(&b));
        differs += u32::from(contents(&other.crash_at(op, choice)) != found[&point]);
    }
    assert!(differs > 20);
    assert_eq!(a.ops(), 300, "looking changes nothing");
}

#[test]
fn a_crash_in_the_past_is_the_crash_that_would_have_been() {
    let fs = busy(5, 200);
    for op in [0, 1, 63, 64, 65, 128, 150, 199, 200] {
        let then = busy(5, op);
        for op in [op, op] {
            assert_eq!(fs.states_at(op), then.states_at(op));
            for choice in [0, 1, 3, 6, 20] {
                assert_eq!(
                    contents(&fs.crash_at(op, choice)),
                    contents(&then.crash(choice)),
                    "{op} {choice}"
                );
            }
        }
    }
}

#[test]
fn a_thousand_crashes_are_affordable() {
    let fs = busy(6, 1000);
    let mut bytes = 0;
    for op in 0..=1000 {
        let disk = fs.crash_at(op, op % 9);
        bytes += disk.files().iter().map(|(_, len)| len).sum::<u64>();
        if let Some((path, _)) = disk.files().first() {
            write(&disk.open_write(path).unwrap(), 0, b"recovered");
        }
    }
    assert!(bytes > 0);
}

#[test]
fn every_change_is_logged() {
    let fs = SimFs::new(16);
    fs.create_dir_all(&p("d/e")).unwrap();
    fs.create_dir_all(&p("d/e")).unwrap();
    let file = fs.create(&p("d/f")).unwrap();
    file.allocate(100).unwrap();
    write(&file, 3, b"abc");
    let mut window = file.window(50).unwrap().unwrap();
    window.populate(0, 50).unwrap();
    window.write(7, b"de").unwrap();
    file.sync().unwrap();
    fs.link(&p("d/f"), &p("d/g")).unwrap();
    fs.remove(&p("d/f")).unwrap();
    fs.sync_dir(&p("d")).unwrap();
    fs.damage(p("d/g"), |bytes| bytes[0] ^= 1).unwrap();
    let expect = [
        "create_dir_all /d /d/e",
        "create /d/f",
        "allocate /d/f 100",
        "write /d/f 3 bytes at 3",
        "write (window) /d/f 2 bytes at 7",
        "sync /d/f",
        "link /d/f /d/g",
        "remove /d/f",
        "sync_dir /d",
        "damage /d/f",
    ];
    assert_eq!(fs.log(), expect);
    assert_eq!(fs.ops(), expect.len() as u64);
    assert!(fs.crash(1).log().is_empty());
    assert!(format!("{fs:?} {file:?}").contains("/d/g"));
}

#[test]
fn damage_is_durable_and_may_change_the_length() {
    let (fs, _file) = with_file(17, &[1; 2000]);
    let before = fs.ops();
    fs.damage(p("f"), |bytes| {
        bytes[700] ^= 0x80;
        bytes.truncate(1500);
    })
    .unwrap();
    let mut expect = vec![1; 1500];
    expect[700] ^= 0x80;
    assert!(states(&fs).chain([fs.clone()]).all(|disk| disk.read(p("f")).unwrap() == expect));
    assert_eq!(fs.crash_at(before, 0).read(p("f")).unwrap(), [1; 2000]);
    fs.damage(p("f"), |bytes| bytes.extend([2; 1000])).unwrap();
    expect.extend([2; 1000]);
    assert_eq!(fs.crash(0).read(p("f")).unwrap(), expect);
    assert_eq!(kind(fs.damage(p("none"), |_| {})), ErrorKind::NotFound);
}

#[test]
fn a_full_disk_fails_growth_and_nothing_else() {
    let (fs, file) = with_file(18, &[1; 600]);
    fs.set_capacity(Some(1000));
    let ops = fs.ops();
    assert_eq!(kind(file.allocate(1001)), ErrorKind::StorageFull);
    assert_eq!(kind(file.write_at(&[2; 500], 501)), ErrorKind::StorageFull);
    assert_eq!(fs.ops(), ops, "nothing was done");
    write(&file, 500, &[2; 500]);
    write(&file, 0, &[3; 1000]);
    let other = fs.create(&p("g")).unwrap();
    assert_eq!(kind(other.write_at(b"x", 0)), ErrorKind::StorageFull);
    // A removed file holds its space until it is closed.
    fs.remove(&p("f")).unwrap();
    assert_eq!(kind(other.write_at(b"x", 0)), ErrorKind::StorageFull);
    drop(file);
    write(&other, 0, b"x");
    fs.set_capacity(Some(0));
    write(&other, 0, b"y");
    other.allocate(1).unwrap();
    fs.set_capacity(None);
    write(&other, 0, &[0; 5000]);
}

#[test]
fn huge_sparse_files_cost_nothing() {
    let fs = SimFs::new(19);
    let file = fs.create(&p("f")).unwrap();
    file.allocate(1 << 50).unwrap();
    write(&file, 1 << 40, b"far");
    file.sync().unwrap();
    fs.sync_dir(Path::new(ROOT)).unwrap();
    for disk in (0..20).map(|choice| fs.crash(choice)) {
        let mut buf = [0; 3];
        read_exact_at(&*disk.open_read(&p("f")).unwrap(), &mut buf, 1 << 40).unwrap();
        assert_eq!(&buf, b"far");
    }
    assert_eq!(kind(file.write_at(b"x", u64::MAX)), ErrorKind::InvalidInput);
    assert_eq!(file.read_at(&mut [0; 4], u64::MAX).unwrap(), 0);
}

#[test]
fn locks_hold_within_the_process_and_end_with_a_crash() {
    let fs = SimFs::new(20);
    assert_eq!(kind(fs.lock(&p("LOCK"), true)), ErrorKind::NotFound);
    let lock = fs.lock(&p("LOCK"), false).unwrap();
    assert_eq!((fs.ops(), fs.log()), (1, vec!["create /LOCK".to_string()]));
    let e = fs.clone().lock(&p("LOCK"), true).unwrap_err();
    let expect = format!("held by process {}", std::process::id());
    assert_eq!((e.kind(), e.to_string()), (ErrorKind::WouldBlock, expect));
    drop(fs.crash(1).lock(&p("LOCK"), false).unwrap());
    drop(lock);
    let readers = [fs.lock(&p("LOCK"), true).unwrap(), fs.lock(&p("LOCK"), true).unwrap()];
    for reader in readers {
        assert_eq!(kind(fs.lock(&p("LOCK"), false)), ErrorKind::WouldBlock);
        drop(reader);
    }
    drop(fs.lock(&p("LOCK"), false).unwrap());
}

#[test]
fn disks_that_show_the_same_have_the_same_digest() {
    let (a, file) = with_file(22, &[1; 3000]);
    let (b, other) = with_file(23, &[1; 3000]);
    assert_eq!(a.digest(), b.digest());
    // However it came to be, and whatever is in doubt of it.
    write(&file, 100, &[1; 10]);
    a.create(&p("x")).unwrap();
    a.remove(&p("x")).unwrap();
    other.allocate(5000).unwrap();
    file.allocate(4999).unwrap();
    write(&file, 4999, &[0]);
    assert_eq!(a.digest(), b.digest());
    let mut seen = BTreeSet::from([a.digest(), SimFs::new(1).digest()]);
    let mut new = |fs: &SimFs| assert!(seen.insert(fs.digest()), "{fs:?}");
    write(&file, 1, &[2]);
    new(&a);
    a.link(&p("f"), &p("g")).unwrap();
    new(&a);
    // A copy is not a link.
    a.remove(&p("g")).unwrap();
    write(&a.create(&p("g")).unwrap(), 0, &a.read(p("f")).unwrap());
    new(&a);
    a.create_dir_all(&p("d")).unwrap();
    new(&a);
    other.allocate(5001).unwrap();
    new(&b);
    // Garbage is bytes.
    new(&b.crash(3));
    assert_eq!(b.crash(3).digest(), b.crash(3).digest());
}

#[test]
fn random_numbers_follow_the_seed_and_never_repeat() {
    let draw = |fs: &SimFs| (0..4).map(|_| fs.random().unwrap()).collect::<Vec<_>>();
    let (a, b) = (SimFs::new(1), SimFs::new(1));
    let (drawn, crashed) = (draw(&a), draw(&a.crash(0)));
    assert_eq!((&drawn, &crashed), (&draw(&b), &draw(&b.crash(0))));
    let lists = [drawn, crashed, draw(&a), draw(&SimFs::new(2)), draw(&a.crash(1))];
    assert_eq!(lists.iter().flatten().collect::<BTreeSet<_>>().len(), 20);
}

// -- the same answers as the real one --

/// Runs a script on `fs` under `dir`, and tells everything it was answered.
fn script(fs: &dyn Fs, dir: &Path) -> Vec<String> {
    let mut told = Vec::new();
    let mut tell = |what: &str, answer: String| told.push(format!("{what}: {answer}"));
    let kind_of = |result: io::Result<()>| format!("{:?}", result.map_err(|e| e.kind()));
    let d = dir.join("db/inner");
    fs.create_dir_all(&d).unwrap();
    fs.create_dir_all(&d).unwrap();
    let at = |name: &str| d.join(name);
    let (f, g) = (at("f"), at("g"));
    tell("open missing", kind_of(fs.open_read(&f).map(drop)));
    tell("open for writing, missing", kind_of(fs.open_write(&f).map(drop)));
    tell("remove missing", kind_of(fs.remove(&f)));
    tell("link missing", kind_of(fs.link(&f, &g)));
    tell("list missing", kind_of(fs.list(&at("none")).map(drop)));
    tell("create under nothing", kind_of(fs.create(&at("none/f")).map(drop)));
    tell("sync_dir missing", kind_of(fs.sync_dir(&at("none"))));
    tell("shared lock, missing", kind_of(fs.lock(&at("LOCK"), true).map(drop)));

    let file = fs.create(&f).unwrap();
    tell("create twice", kind_of(fs.create(&f).map(drop)));
    tell("create over a directory", kind_of(fs.create(&d).map(drop)));
    tell("directory over a file", kind_of(fs.create_dir_all(&f)));
    tell("directory under a file", kind_of(fs.create_dir_all(&f.join("x"))));
    tell("create under a file", kind_of(fs.create(&f.join("x")).map(drop)));
    tell("open a directory", kind_of(fs.open_read(&d).map(drop)));
    tell("write a directory", kind_of(fs.open_write(&d).map(drop)));
    tell("list a file", kind_of(fs.list(&f).map(drop)));
    tell("sync_dir a file", kind_of(fs.sync_dir(&f)));
    tell("empty map", format!("{:?}", file.map().unwrap().map(|map| (*map).as_ref().to_vec())));
    write(&file, 10, b"positioned");
    write(&file, 5, b"");
    tell("len", format!("{:?}", file.len().unwrap()));
    for len in [0, 9000, 100] {
        file.allocate(len).unwrap();
        tell("allocated", format!("{:?}", file.len().unwrap()));
    }
    match file.window(8192).unwrap() {
        None => write(&file, 4093, b"window"),
        Some(mut window) => {
            assert_eq!(kind(window.write(0, b"x")), ErrorKind::InvalidInput);
            window.populate(4000, 200).unwrap();
            window.populate(4200, 0).unwrap();
            assert_eq!(kind(window.write(4199, b"xy")), ErrorKind::InvalidInput);
            assert_eq!(kind(window.populate(8000, 193)), ErrorKind::InvalidInput);
            window.write(4093, b"window").unwrap();
        }
    }
    tell("no window", format!("{:?}", file.window(0).unwrap().is_some()));
    tell("window too long", kind_of(file.window(9001).map(drop)));
    file.sync().unwrap();
    let mut buf = vec![0xff; 9001];
    let n = file.read_at(&mut buf, 0).unwrap();
    tell("read", format!("{n} {:?}", &buf[..n]));
    tell("read at the end", format!("{:?}", file.read_at(&mut buf, 9000).unwrap()));
    tell("read beyond", format!("{:?}", file.read_at(&mut buf, 1 << 40).unwrap()));
    tell("read too much", kind_of(read_exact_at(&*file, &mut buf, 0)));
    tell("map", format!("{:?}", file.map().unwrap().map(|map| (*map).as_ref() == &buf[..9000])));

    fs.link(&f, &g).unwrap();
    tell("link twice", kind_of(fs.link(&f, &g)));
    fs.remove(&f).unwrap();
    tell("remove a directory", kind_of(fs.remove(&d).map_err(|_| ErrorKind::Other.into())));
    write(&file, 8999, b"still open");
    fs.sync_dir(&d).unwrap();
    let reader = fs.open_read(&g).unwrap();
    tell("linked", format!("{:?}", reader.len().unwrap()));
    tell("write a reader", format!("{}", reader.write_at(b"x", 0).is_err()));
    fs.create_dir_all(&at("sub")).unwrap();
    let lock = fs.lock(&at("LOCK"), false).unwrap();
    for shared in [true, false] {
        let message = fs.lock(&at("LOCK"), shared).unwrap_err();
        tell("locked", format!("{:?} {message}", message.kind()));
    }
    drop(lock);
    let readers = [fs.lock(&at("LOCK"), true).unwrap(), fs.lock(&at("LOCK"), true).unwrap()];
    tell("lock against readers", kind_of(fs.lock(&at("LOCK"), false).map(drop)));
    drop(readers);
    fs.lock(&at("LOCK"), false).unwrap();
    let mut names = fs.list(&d).unwrap();
    names.sort();
    tell("names", format!("{names:?}"));
    told
}

#[test]
fn the_real_and_the_simulated_disk_answer_alike() {
    let dir = tempfile::tempdir().unwrap();
    let (real, simulated) = (script(&OsFs, dir.path()), script(&SimFs::new(0), Path::new("/x")));
    assert!(real.len() > 30);
    for (real, simulated) in real.iter().zip(&simulated) {
        assert_eq!(real, simulated);
    }
    assert_eq!(real.len(), simulated.len());
}
