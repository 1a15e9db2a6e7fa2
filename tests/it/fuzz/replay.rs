//! What the fuzzer found worth keeping is run by every `cargo test`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// The folder of each target's seeds.
fn seeds() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds")
}

fn names(dir: &Path) -> Vec<PathBuf> {
    let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    names
}

/// Runs `target` on each seed in `dir`. Answers those that fail.
fn replay(dir: &Path, target: fn(&[u8])) -> Vec<PathBuf> {
    let fails = |path: &PathBuf| {
        let seed = std::fs::read(path).unwrap();
        catch_unwind(AssertUnwindSafe(|| target(&seed))).is_err()
    };
    names(dir).into_iter().filter(fails).collect()
}

#[test]
fn no_seed_fails() {
    type Target = (&'static str, fn(&[u8]));
    let targets: [Target; 3] =
        [("crash_recovery", super::crash_recovery), ("model", super::model), ("options", super::options)];
    for (name, target) in targets {
        assert_eq!(replay(&seeds().join(name), target), Vec::<PathBuf>::new(), "{name}");
    }
}

/// Those of the formats are replayed by the engine's own tests, which can see them.
#[test]
fn every_target_has_small_seeds_and_every_seed_a_target() {
    let manifest = std::fs::read_to_string(seeds().with_file_name("Cargo.toml")).unwrap();
    let bins = manifest.split("[[bin]]").skip(1);
    let mut targets: Vec<&str> = bins.map(|bin| bin.split('"').nth(1).unwrap()).collect();
    targets.sort();
    let folders = names(&seeds());
    let folders: Vec<&str> = folders.iter().map(|f| f.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(folders, targets);
    for target in targets {
        let sizes: Vec<u64> =
            names(&seeds().join(target)).iter().map(|f| f.metadata().unwrap().len()).collect();
        assert!((5..100).contains(&sizes.len()), "{target}: {} seeds", sizes.len());
        assert!(sizes.iter().all(|&size| size <= 4096), "{target}: a seed of more than 4 KiB");
    }
}

#[test]
fn a_target_that_fails_would_be_noticed() {
    let all = names(&seeds().join("model"));
    let broken = |data: &[u8]| {
        super::model(data);
        assert!(data.is_empty(), "not what the model says");
    };
    assert_eq!(replay(&seeds().join("model"), broken), all);
}
