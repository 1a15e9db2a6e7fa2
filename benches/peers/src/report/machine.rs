//! What else one has to know to believe a number: the machine, the day, the versions.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// The crates whose versions are told, and what their engines are called.
const CRATES: [(&str, &str); 8] = [
    ("esker", "Esker"),
    ("rocksdb", "RocksDB, the crate"),
    ("librocksdb-sys", "RocksDB"),
    ("fjall", "fjall"),
    ("redb", "redb"),
    ("heed", "LMDB, the crate"),
    ("lmdb-master-sys", "LMDB"),
    ("raft-engine", "raft-engine"),
];

/// All that can be found out about this machine, this day and this program; `dir` is where the
/// databases lie.
pub fn facts(dir: &Path) -> Vec<(String, String)> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = after("/proc/meminfo", "MemTotal:").and_then(|kib| {
        let kib: f64 = kib.trim_end_matches("kB").trim().parse().ok()?;
        Some(format!("{:.1} GiB", kib / f64::from(1 << 20)))
    });
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|text| text.trim().to_string());
    let flags = if cfg!(target_feature = "avx2") { "for this processor" } else { "for any processor" };
    let known = [
        ("date", Some(date(seconds))),
        ("processor", after("/proc/cpuinfo", "model name")),
        ("cores", Some(cores.to_string())),
        ("memory", memory),
        ("kernel", kernel),
        ("file system", file_system(dir)),
        ("built", Some(flags.to_string())),
        ("commit", commit()),
    ];
    let known = known.into_iter().filter_map(|(name, value)| Some((name.to_string(), value?)));
    known.chain(versions(include_str!("../../Cargo.lock"))).collect()
}

/// What stands behind `name` and perhaps a colon in a file of lines.
fn after(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(rest.trim_start_matches([':', '\t', ' ']).trim().to_string())
}

fn file_system(dir: &Path) -> Option<String> {
    let dir = fs::canonicalize(dir).ok()?;
    mounted_at(&fs::read_to_string("/proc/mounts").ok()?, &dir)
}

/// The file system of the longest mount point that `dir` lies below, and its options.
fn mounted_at(mounts: &str, dir: &Path) -> Option<String> {
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let around = fields.filter(|mount| mount.len() > 3 && dir.starts_with(mount[1]));
    let nearest = around.max_by_key(|mount| mount[1].len())?;
    Some(format!("{} ({})", nearest[2], nearest[3]))
}

fn versions(lock: &str) -> Vec<(String, String)> {
    let version_of = |crate_name: &str| {
        let at = lock.find(&format!("name = \"{crate_name}\"\n"))?;
        let line = lock[at..].lines().nth(1)?;
        Some(line.strip_prefix("version = \"")?.trim_end_matches('"').to_string())
    };
    CRATES.iter().filter_map(|(name, title)| Some((title.to_string(), version_of(name)?))).collect()
}

/// The commit this was built from, if it lies in a repository.
fn commit() -> Option<String> {
    let here = env!("CARGO_MANIFEST_DIR");
    let out = Command::new("git").args(["-C", here, "describe", "--always", "--dirty"]).output().ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    Some(text.trim().to_string()).filter(|commit| !commit.is_empty())
}

/// The day, in the calendar of all of us, that lies so many seconds after the first of 1970.
/// (Howard Hinnant: chrono-compatible low-level date algorithms, `civil_from_days`.)
fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_right() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(951_782_400 + 86_400), "2000-03-01");
        assert_eq!(date(1_798_761_599), "2026-12-31");
        assert_eq!(date(1_798_761_600), "2027-01-01");
    }

    #[test]
    fn versions_are_those_of_the_lock_file() {
        let lock = "[[package]]\nname = \"fjall\"\nversion = \"3.1.0\"\n\n[[package]]\nname = \"librocksdb-sys\"\nversion = \"0.1.0+11.8.1\"\n";
        let expected = [("RocksDB", "0.1.0+11.8.1"), ("fjall", "3.1.0")];
        assert_eq!(versions(lock), expected.map(|(a, b)| (a.to_string(), b.to_string())));
        assert!(versions(include_str!("../../Cargo.lock")).iter().any(|(name, _)| name == "Esker"));
    }

    #[test]
    fn the_nearest_mount_point_counts() {
        let mounts = "/dev/a / ext4 rw,relatime 0 0\ntmpfs /tmp tmpfs rw 0 0\n";
        assert_eq!(mounted_at(mounts, Path::new("/tmp/x")).unwrap(), "tmpfs (rw)");
        assert_eq!(mounted_at(mounts, Path::new("/tmpx")).unwrap(), "ext4 (rw,relatime)");
        assert_eq!(mounted_at("", Path::new("/")), None);
    }

    #[test]
    fn this_machine_is_described() {
        let facts = facts(Path::new("/"));
        assert!(facts.iter().any(|(name, value)| name == "cores" && value != "0"));
        assert!(facts.iter().all(|(_, value)| !value.contains('\n')));
    }
}
