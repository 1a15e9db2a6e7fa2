//! The rules do fail where they should: small bad samples, each with the finding it must give.

use super::check;

const LIB: &str = "//! x\n// == low ==\nmod a;\nmod b;\n// == high ==\nmod c;\nmod d;\npub use a::Alpha;\n";

/// The findings for `files` on top of a crate of four modules in two groups.
fn findings(files: &[(&str, &str)]) -> Vec<String> {
    let mut all = vec![("src/lib.rs", LIB)];
    all.extend(files);
    check(&all)
}

#[track_caller]
fn fails(files: &[(&str, &str)], with: &str) {
    let found = findings(files);
    assert!(found.len() == 1 && found[0].contains(with), "wanted one finding with {with:?}, got {found:#?}");
}

#[track_caller]
fn passes(files: &[(&str, &str)]) {
    assert_eq!(findings(files), Vec::<String>::new());
}

#[test]
fn imports_point_down() {
    passes(&[("src/c.rs", "//! x\nuse crate::a::Alpha;\nuse crate::{a, b::{self, Beta}};\n")]);
    fails(&[("src/a.rs", "//! x\nuse crate::c::Gamma;\n")], "src/a.rs:2: crate::c::Gamma: a stands below c");
    fails(&[("src/a.rs", "//! x\nuse crate::b::Beta;\n")], "strangers");
    fails(&[("src/a.rs", "//! x\nuse super::b::Beta;\n")], "strangers");
    fails(&[("src/a.rs", "//! x\nfn f() {\n    crate::d::go();\n}\n")], "src/a.rs:3");
    fails(&[("src/a.rs", "//! x\nuse crate::{\n    c::{Gamma},\n};\n")], "crate::c::Gamma");
    fails(&[("src/a/deep.rs", "//! x\nuse crate::c::Gamma;\n")], "a stands below c");
    fails(&[("src/c.rs", "//! x\nuse crate::Alpha;\n")], "crate root");
    fails(&[("src/c.rs", "//! x\nuse crate::{Alpha};\n")], "crate root");
    fails(&[("src/c.rs", "//! x\nuse super::super::x;\n")], "out of the crate");
}

#[test]
fn events_have_one_target() {
    passes(&[(
        "src/a.rs",
        "//! x\nfn f() {\n    log::warn!(target: \"esker\", \"x\");\n    log::Level::Warn;\n}\n",
    )]);
    fails(&[("src/a.rs", "//! x\nfn f() {\n    log::warn!(\"x\");\n}\n")], "src/a.rs:3: logs without");
}

#[test]
fn tests_and_comments_may_name_anything() {
    passes(&[(
        "src/a.rs",
        "//! See [crate::c].\n// crate::d::x, /* std::fs */\nconst S: &str = \"crate::c::x\";\n",
    )]);
    passes(&[(
        "src/a.rs",
        "//! x\n#[cfg(test)]\nmod tests {\n    use crate::c::Gamma;\n    use std::fs;\n}\n",
    )]);
    passes(&[("src/a/tests.rs", "//! x\nuse crate::c::Gamma;\n")]);
    passes(&[
        ("src/a/mod.rs", "//! x\n#[cfg(all(test, loom))]\nmod races;\n"),
        ("src/a/races.rs", "//! x\nuse crate::c;\n"),
    ]);
    // What follows a test item is not test code.
    fails(
        &[("src/a.rs", "//! x\n#[cfg(test)]\nfn f<A, B>(x: u8) { g(); }\nuse crate::c::Gamma;\n")],
        "src/a.rs:4",
    );
    fails(&[("src/a.rs", "//! x\n#[cfg(not(test))]\nuse crate::c::Gamma;\n")], "src/a.rs:3");
}

#[test]
fn folders_have_an_order_too() {
    let ordered = (
        "src/c/mod.rs",
        "//! x\n// == one ==\nmod lo;\n// == two ==\nmod hi;\npub(crate) use hi::High;\nstruct Word;\n",
    );
    passes(&[ordered, ("src/c/hi.rs", "//! x\nuse super::lo::Low;\nuse crate::c::Word;\n")]);
    fails(&[ordered, ("src/c/lo.rs", "//! x\nuse super::hi::High;\n")], "lo stands below hi");
    fails(&[ordered, ("src/c/lo.rs", "//! x\nuse crate::c::hi::High;\n")], "lo stands below hi");
    fails(&[ordered, ("src/c/lo.rs", "//! x\nuse super::High;\n")], "lo stands below hi");
    let loose = ("src/c/mod.rs", "//! x\nmod lo;\nmod hi;\nmod mid;\n");
    let (lo, hi) =
        (("src/c/lo.rs", "//! x\nuse super::mid::M;\n"), ("src/c/hi.rs", "//! x\nuse super::lo::L;\n"));
    passes(&[loose, lo, hi]);
    fails(
        &[loose, lo, hi, ("src/c/mid.rs", "//! x\nuse crate::c::hi::H;\n")],
        "in a circle: hi -> lo -> mid -> hi",
    );
}

#[test]
fn the_system_is_touched_where_listed() {
    passes(&[("src/fs/os.rs", "//! x\nuse std::fs::File;\nuse std::io;\nunsafe fn f() {}\n")]);
    fails(&[("src/a.rs", "//! x\nuse std::fs::File;\n")], "std::fs only in");
    fails(&[("src/a.rs", "//! x\nuse std::{fs::File, io};\n")], "std::fs only in");
    fails(&[("src/a.rs", "//! x\nfn f() { thread::spawn(|| ()); }\n")], "thread::spawn only in");
    fails(&[("src/a.rs", "//! x\nuse std::sync::{Arc, Mutex};\n")], "std::sync::Mutex only in");
    fails(&[("src/a.rs", "//! x\nuse std::time::Instant;\n")], "Instant only in");
    fails(&[("src/a.rs", "//! x\nfn f(b: &mut [u8]) { getrandom::fill(b); }\n")], "getrandom only in");
    fails(&[("src/a.rs", "//! x\nfn f() { unsafe { g() } }\n")], "unsafe only in");
    fails(&[("src/a.rs", "//! x\nfn f() { println!(); }\n")], "does not print");
    passes(&[("src/a.rs", "//! x\nuse std::sync::Arc;\nuse std::time::Duration;\nfn print() {}\n")]);
}

#[test]
fn files_and_functions_stay_small_and_clean() {
    let lines = |n: usize| "// line\n".repeat(n);
    passes(&[("src/a.rs", &format!("//! x\n{}", lines(899)))]);
    fails(&[("src/a.rs", &format!("//! x\n{}", lines(900)))], "901 lines");
    passes(&[("src/a.rs", &format!("//! x\nfn f(a: [u8; 2]) {{\n{}}}\n", lines(98)))]);
    fails(&[("src/a.rs", &format!("//! x\nfn f(a: [u8; 2]) {{\n{}}}\n", lines(99)))], "fn f has 101 lines");
    let fields = |n: usize| (0..n).map(|i| format!("    pub f{i}: Vec<(u8, u8)>,\n")).collect::<String>();
    passes(&[("src/a.rs", &format!("//! x\npub struct Options {{\n{}}}\n", fields(15)))]);
    fails(&[("src/a.rs", &format!("//! x\npub struct Options {{\n{}}}\n", fields(16)))], "16 options");
    fails(&[("src/a.rs", "use std::io;\n")], "opens with //!");
    fails(&[("src/record.rs", "//! x\n")], "# Format");
    fails(&[("tests/it/x.rs", "//! \u{e9}\n")], "not ASCII");
    fails(&[("src/a.rs", concat!("//! x\n// FIX", "ME: y\n"))], "src/a.rs:2");
    fails(&[("src/a.rs", concat!("//! x\nfn f() { to", "do!() }\n"))], "left behind");
}

#[test]
fn the_printed_tree_is_the_real_one() {
    let design = |tree: &str| format!("# D\n<!-- tree -->\n```\n{tree}```\n<!-- tree -->\n");
    let real = ("src/c/deep.rs", "//! x\n");
    let good = design("src/\n  lib.rs   the tour\n  c/\n    deep.rs\n");
    passes(&[real, ("DESIGN.md", &good)]);
    fails(&[real, ("DESIGN.md", &design("src/\n  lib.rs\n"))], "lacks src/c/deep.rs");
    let stale = design("src/\n  lib.rs\n  c/\n    deep.rs\n  old.rs\n");
    fails(&[real, ("DESIGN.md", &stale)], "shows src/old.rs");
    fails(&[("DESIGN.md", "# D\n")], "no tree");
}

#[test]
fn literals_are_seen_as_such() {
    let tricky = r####"//! x
const Q: char = '"';
const E: char = '\'';
const L: &'static str = r#"crate::c::x " crate::c"#;
const B: &[u8] = b"\"std::fs";
fn f<'a>(x: &'a str) -> u8 { b'{' }
/* nested /* crate::c::x */ crate::d */
use crate::c::Gamma;
"####;
    fails(&[("src/a.rs", tricky)], "src/a.rs:8");
}
