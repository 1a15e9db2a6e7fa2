//! Rules of the house that the compiler does not know, checked over the sources themselves:
//! which way imports point, what is touched where, how large things may grow.

mod control;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tokens::{Token, group_end, paths, test_code, tokens};

/// What only the listed files of `src` may name outside of tests, and why.
const ONLY_IN: &[(&[&str], &[&str], &str)] = &[
    (&["std::fs", "rustix", "memmap2", "libc"], &["src/fs/os.rs"], "the OS is touched in one file"),
    (
        &["std::process"],
        &["src/fs/os.rs", "src/fs/sim/mod.rs"],
        "only who holds a lock says which process it is",
    ),
    (
        &["thread::spawn", "thread::Builder", "thread::scope"],
        &["src/db/worker.rs"],
        "threads start in one file",
    ),
    (
        &[
            "std::sync::atomic",
            "std::sync::Mutex",
            "std::sync::RwLock",
            "std::sync::Condvar",
            "std::sync::mpsc",
        ],
        &["src/sync.rs"],
        "atomics and locks come through crate::sync, so that loom can take their place",
    ),
    (&["Instant", "SystemTime"], &["src/db/clock.rs"], "the clock is read in one place"),
    (&["getrandom", "RandomState"], &["src/fs/mod.rs"], "randomness is read in one place"),
    (
        &["unsafe"],
        // The system's calls, the arena, and one instruction that only the processor's manual vouches for.
        &["src/fs/os.rs", "src/memtable/", "src/prefetch.rs"],
        "as few files as possible hold unsafe code",
    ),
    (&["println", "eprintln", "print", "eprint"], &[], "a library does not print"),
];

/// Owners of on-disk formats: each opens with its layout.
const FORMATS: &[&str] = &[
    "src/batch.rs",
    "src/catalog.rs",
    "src/entries.rs",
    "src/log/footer.rs",
    "src/log/head.rs",
    "src/raft_log.rs",
    "src/record.rs",
    "src/journal/segment.rs",
    "src/journal/hint.rs",
    "src/version/edit.rs",
    "src/version/manifest.rs",
    "src/table/format.rs",
    "src/table/block.rs",
    "src/table/index.rs",
    "src/table/filter.rs",
];

const MAX_FILE_LINES: usize = 900;
const MAX_FN_LINES: usize = 100;
const MAX_OPTIONS: usize = 15;

/// Functions that may be longer: (file, name, reason).
const LONG_FNS: &[(&str, &str, &str)] = &[];

/// One source file, read for the checks.
struct Source<'a> {
    path: &'a str,
    text: &'a str,
    tokens: Vec<Token<'a>>,
    /// For each token, whether it is test code.
    test: Vec<bool>,
    /// `src/fs/os.rs` is `[fs, os]`, `src/fs/mod.rs` is `[fs]`. Empty outside of `src` and for `lib.rs`.
    module: Vec<&'a str>,
}

impl<'a> Source<'a> {
    fn new(path: &'a str, text: &'a str) -> Source<'a> {
        let tokens = tokens(text);
        let test = test_code(&tokens);
        let module = match path.strip_prefix("src/").and_then(|p| p.strip_suffix(".rs")) {
            None | Some("lib") => Vec::new(),
            Some(module) => module.strip_suffix("/mod").unwrap_or(module).split('/').collect(),
        };
        Source { path, text, tokens, test, module }
    }

    fn in_src(&self) -> bool {
        self.path.starts_with("src/")
    }

    /// The indexes of tokens that are not test code.
    fn code(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.tokens.len()).filter(|&i| !self.test[i])
    }

    fn text_at(&self, i: usize) -> &'a str {
        self.tokens.get(i).map_or("", |t| t.text)
    }

    fn at(&self, i: usize) -> String {
        format!("{}:{}", self.path, self.tokens[i].line)
    }
}

/// Checks all files, given as (path from the root of the repository, text). One line per finding.
fn check(files: &[(&str, &str)]) -> Vec<String> {
    let mut sources: Vec<Source> = files
        .iter()
        .filter(|(path, _)| path.ends_with(".rs"))
        .map(|(path, text)| Source::new(path, text))
        .collect();
    mark_test_modules(&mut sources);
    let mut out = Vec::new();
    for source in &sources {
        whole_file(source, &mut out);
        sizes(source, &mut out);
        if source.in_src() {
            places(source, &mut out);
            option_counts(source, &mut out);
            log_targets(source, &mut out);
        }
    }
    imports(&sources, &mut out);
    if let Some((_, design)) = files.iter().find(|(path, _)| *path == "DESIGN.md") {
        printed_tree(design, &sources, &mut out);
    }
    out
}

/// `#[cfg(test)] mod x;` makes x's file test code, and so do a folder or file called `tests`.
fn mark_test_modules(sources: &mut [Source<'_>]) {
    let mut test_modules: Vec<Vec<String>> = Vec::new();
    for source in sources.iter().filter(|s| s.in_src()) {
        for i in 0..source.tokens.len() {
            if source.test[i] && source.text_at(i) == "mod" && source.text_at(i + 2) == ";" {
                let name = source.text_at(i + 1);
                test_modules.push(source.module.iter().chain([&name]).map(|s| s.to_string()).collect());
            }
        }
    }
    for source in sources {
        let of_tests = test_modules
            .iter()
            .any(|m| source.module.len() >= m.len() && source.module.iter().zip(m).all(|(a, b)| a == b));
        if of_tests || source.module.contains(&"tests") {
            source.test.fill(true);
        }
    }
}

fn whole_file(source: &Source<'_>, out: &mut Vec<String>) {
    let path = source.path;
    if !source.text.starts_with("//!") {
        out.push(format!("{path}:1: a file opens with //!, saying what it is for"));
    }
    if FORMATS.contains(&path) && !source.text.lines().any(|l| l.trim_end() == "//! # Format") {
        out.push(format!("{path}:1: owns an on-disk format and has no `//! # Format`"));
    }
    // Spelled in halves, so that this file passes its own check.
    let words = [concat!("FIX", "ME"), concat!("TO", "DO"), concat!("XX", "X")];
    for (n, line) in source.text.lines().enumerate() {
        if let Some(c) = line.chars().find(|c| !c.is_ascii()) {
            out.push(format!("{path}:{}: {c:?} is not ASCII", n + 1));
        }
        let mut line_words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        if let Some(word) = line_words.find(|w| words.contains(w)) {
            out.push(format!("{path}:{}: {word}: finish it or say why it is as it is", n + 1));
        }
    }
    for (i, token) in source.tokens.iter().enumerate() {
        if matches!(token.text, "dbg" | "todo" | "unimplemented") && source.text_at(i + 1) == "!" {
            out.push(format!("{}: {}! left behind", source.at(i), token.text));
        }
    }
}

fn sizes(source: &Source<'_>, out: &mut Vec<String>) {
    let lines = source.text.lines().count();
    if lines > MAX_FILE_LINES {
        out.push(format!("{}: {lines} lines, more than {MAX_FILE_LINES}", source.path));
    }
    for i in 0..source.tokens.len() {
        let name = source.text_at(i + 1);
        if source.text_at(i) != "fn" || matches!(name, "(" | "") {
            continue;
        }
        let Some(open) = body(source, i) else { continue };
        let end = group_end(&source.tokens, open) - 1;
        let lines = source.tokens[end].line - source.tokens[i].line + 1;
        let listed = LONG_FNS.iter().any(|(path, long, _)| *path == source.path && *long == name);
        if lines > MAX_FN_LINES && !listed {
            out.push(format!("{}: fn {name} has {lines} lines, more than {MAX_FN_LINES}", source.at(i)));
        }
    }
}

/// Where the body of the item at `i` opens; `None` if it has none.
fn body(source: &Source<'_>, mut i: usize) -> Option<usize> {
    loop {
        match source.text_at(i) {
            "" | ";" => return None,
            "{" => return Some(i),
            "(" | "[" => i = group_end(&source.tokens, i),
            _ => i += 1,
        }
    }
}

fn places(source: &Source<'_>, out: &mut Vec<String>) {
    for i in source.code() {
        // Only where a path starts: `b` of `a::b` was seen with `a`.
        if i > 0 && matches!(source.text_at(i - 1), "::" | ".") || !starts_word(source.text_at(i)) {
            continue;
        }
        for path in paths(&source.tokens, i) {
            let spelled = path.join("::");
            for (names, homes, why) in ONLY_IN {
                let home = homes
                    .iter()
                    .any(|h| source.path == *h || (h.ends_with('/') && source.path.starts_with(h)));
                let named = names.iter().find(|name| names_it(&spelled, name));
                if let (false, Some(name)) = (home, named) {
                    let is_macro = name.contains("print") && source.text_at(i + 1) != "!";
                    if !is_macro {
                        out.push(format!("{}: {name} only in {homes:?}: {why}", source.at(i)));
                    }
                }
            }
        }
    }
}

/// All that is logged goes to one target, by which a program can choose it.
fn log_targets(source: &Source<'_>, out: &mut Vec<String>) {
    let levels = ["error", "warn", "info", "debug", "trace", "log_enabled"];
    for i in source.code().filter(|&i| source.text_at(i) == "log" && source.text_at(i + 1) == "::") {
        let logs = levels.contains(&source.text_at(i + 2)) && source.text_at(i + 3) == "!";
        if logs && source.text_at(i + 5) != "target" {
            out.push(format!("{}: logs without `target: \"esker\"`", source.at(i)));
        }
    }
}

fn starts_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

/// Whether `name` stands in `path`, whole words at a time.
fn names_it(path: &str, name: &str) -> bool {
    format!("::{path}::").contains(&format!("::{name}::"))
}

fn option_counts(source: &Source<'_>, out: &mut Vec<String>) {
    for i in source.code() {
        let name = source.text_at(i + 1);
        if source.text_at(i) != "struct" || !name.ends_with("Options") {
            continue;
        }
        let Some(open) = body(source, i) else { continue };
        let end = group_end(&source.tokens, open);
        let mut fields = 0;
        let mut j = open + 1;
        while j < end {
            match source.text_at(j) {
                "(" | "[" | "{" => j = group_end(&source.tokens, j),
                text => {
                    fields += usize::from(text == ":");
                    j += 1;
                }
            }
        }
        if fields > MAX_OPTIONS {
            out.push(format!("{}: {name} has {fields} options, more than {MAX_OPTIONS}", source.at(i)));
        }
    }
}

/// The modules of one folder: which group each is in (`None`: the folder names no groups), and
/// which submodule each re-exported item comes from.
#[derive(Default)]
struct Folder<'a> {
    groups: BTreeMap<&'a str, Option<usize>>,
    reexports: BTreeMap<&'a str, &'a str>,
}

impl<'a> Folder<'a> {
    fn new(source: &Source<'a>) -> Folder<'a> {
        let mut headings = Vec::new();
        for (n, line) in source.text.lines().enumerate() {
            if line.starts_with("// == ") && line.ends_with(" ==") {
                headings.push(n + 1);
            }
        }
        let mut folder = Folder::default();
        for i in source.code() {
            let (word, name) = (source.text_at(i), source.text_at(i + 1));
            if word == "mod" && source.text_at(i + 2) == ";" {
                let line = source.tokens[i].line;
                let group = headings.iter().filter(|&&h| h < line).count();
                folder.groups.insert(name, if headings.is_empty() { None } else { Some(group) });
            }
        }
        for i in source.code().filter(|&i| source.text_at(i) == "use") {
            for path in paths(&source.tokens, i + 1) {
                let path = if path[0] == "self" { &path[1..] } else { &path[..] };
                if let [module, .., item] = path
                    && folder.groups.contains_key(module)
                {
                    folder.reexports.insert(item, module);
                }
            }
        }
        folder
    }
}

/// Imports point to groups before their own; siblings without groups at least form no cycle.
fn imports(sources: &[Source<'_>], out: &mut Vec<String>) {
    let mut folders: BTreeMap<Vec<&str>, Folder> = BTreeMap::new();
    for source in sources {
        if source.path == "src/lib.rs" || source.path.ends_with("/mod.rs") && source.in_src() {
            folders.insert(source.module.clone(), Folder::new(source));
        }
    }
    let mut edges: BTreeMap<Vec<&str>, BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
    for source in sources.iter().filter(|s| !s.module.is_empty()) {
        for i in source.code() {
            let starts = matches!(source.text_at(i), "crate" | "super" | "self");
            if !starts || source.text_at(i + 1) != "::" || i > 0 && source.text_at(i - 1) == "::" {
                continue;
            }
            for path in paths(&source.tokens, i) {
                match arrow(source, &path, &folders) {
                    Ok(None) => {}
                    Ok(Some((depth, to))) => {
                        let (folder, from) = (source.module[..depth].to_vec(), source.module[depth]);
                        edges.entry(folder).or_default().entry(from).or_default().insert(to);
                    }
                    Err(why) => out.push(format!("{}: {}: {why}", source.at(i), path.join("::"))),
                }
            }
        }
    }
    for (folder, edges) in &edges {
        if let Some(cycle) = cycle(edges) {
            out.push(format!("src/{}: modules import in a circle: {}", folder.join("/"), cycle.join(" -> ")));
        }
    }
}

/// Where the import `path` leads: the depth of the folder in which it goes from one module to
/// another, and that other module. `None`: it stays at home.
fn arrow<'a>(
    source: &Source<'a>,
    path: &[&'a str],
    folders: &BTreeMap<Vec<&'a str>, Folder<'a>>,
) -> Result<Option<(usize, &'a str)>, String> {
    let own = &source.module;
    let supers = path.iter().take_while(|&&word| word == "super").count();
    let mut full = match path[0] {
        "crate" => Vec::new(),
        "super" if supers <= own.len() => own[..own.len() - supers].to_vec(),
        "super" => return Err("leads out of the crate".into()),
        _ => own.clone(),
    };
    full.extend(&path[supers.max(1)..]);
    let depth = own.iter().zip(&full).take_while(|(a, b)| a == b).count();
    if depth == own.len() || depth == full.len() {
        return Ok(None);
    }
    let from = own[depth];
    let Some(folder) = folders.get(&own[..depth]) else { return Ok(None) };
    let to = match folder.groups.get_key_value(full[depth]) {
        Some((to, _)) => *to,
        None if depth == 0 => {
            return Err("names something of the crate root; use the module's own path".into());
        }
        None => match folder.reexports.get(full[depth]) {
            Some(to) if *to == from => return Ok(None),
            Some(to) => *to,
            // The folder's own words, which stand in its mod.rs.
            None => return Ok(None),
        },
    };
    match (folder.groups.get(from).copied().flatten(), folder.groups[to]) {
        (Some(from_group), Some(to_group)) if to_group > from_group => {
            Err(format!("{from} stands below {to}"))
        }
        (Some(from_group), Some(to_group)) if to_group == from_group => {
            Err(format!("{from} and {to} are of one group, hence strangers"))
        }
        _ => Ok(Some((depth, to))),
    }
}

/// Some circle in the graph, if there is one.
fn cycle<'a>(edges: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Option<Vec<&'a str>> {
    fn walk<'a>(
        at: &'a str,
        edges: &BTreeMap<&'a str, BTreeSet<&'a str>>,
        trail: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> bool {
        if let Some(start) = trail.iter().position(|&t| t == at) {
            trail.drain(..start);
            trail.push(at);
            return true;
        }
        if done.contains(at) {
            return false;
        }
        trail.push(at);
        for &to in edges.get(at).into_iter().flatten() {
            if walk(to, edges, trail, done) {
                return true;
            }
        }
        trail.pop();
        done.insert(at);
        false
    }
    let mut done = BTreeSet::new();
    edges.keys().find_map(|&start| {
        let mut trail = Vec::new();
        walk(start, edges, &mut trail, &mut done).then_some(trail)
    })
}

/// The block between the `tree` markers of DESIGN.md lists every folder and file of `src`, one per
/// line, indented by two spaces per folder, folders ending in `/`.
fn printed_tree(design: &str, sources: &[Source<'_>], out: &mut Vec<String>) {
    let Some(block) = design.split("<!-- tree -->").nth(1) else {
        out.push("DESIGN.md: no tree between two `<!-- tree -->` marks".into());
        return;
    };
    let mut printed = BTreeSet::new();
    let mut folders: Vec<&str> = Vec::new();
    for line in block.lines().filter(|l| !l.starts_with("```")) {
        let Some(name) = line.split_whitespace().next() else { continue };
        let depth = (line.len() - line.trim_start().len()) / 2;
        folders.truncate(depth);
        if let Some(folder) = name.strip_suffix('/') {
            folders.push(folder);
        } else if name.ends_with(".rs") {
            printed.insert(format!("{}/{name}", folders.join("/")));
        }
    }
    let real: BTreeSet<String> = sources.iter().filter(|s| s.in_src()).map(|s| s.path.to_string()).collect();
    for path in real.difference(&printed) {
        out.push(format!("DESIGN.md: the tree lacks {path}"));
    }
    for path in printed.difference(&real) {
        out.push(format!("DESIGN.md: the tree shows {path}, which is not there"));
    }
}

/// Reads what `check` checks: every source of the package, and DESIGN.md if there is one.
fn read_tree(root: &Path) -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut folders: Vec<_> = ["src", "tests", "examples", "benches", "fuzz"]
        .iter()
        .map(|f| root.join(f))
        .filter(|f| f.is_dir())
        .collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.extend(Some(root.join("DESIGN.md")).filter(|p| p.is_file()));
    files.sort();
    let name = |p: &Path| p.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
    files.iter().map(|p| (name(p), std::fs::read_to_string(p).unwrap())).collect()
}

#[test]
fn the_sources_keep_the_rules() {
    let files = read_tree(Path::new(env!("CARGO_MANIFEST_DIR")));
    let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
    for needed in FORMATS.iter().chain(&["src/lib.rs"]) {
        assert!(files.iter().any(|(path, _)| path == needed), "{needed} is not where it was");
    }
    let findings = check(&files);
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn every_listed_exception_is_needed() {
    let files = read_tree(Path::new(env!("CARGO_MANIFEST_DIR")));
    for (path, name, reason) in LONG_FNS {
        let text = files.iter().find(|(p, _)| p == path).map(|(_, t)| t.as_str()).unwrap_or("");
        let source = Source::new(path, text);
        let long = (0..source.tokens.len()).any(|i| {
            let here = source.text_at(i) == "fn" && source.text_at(i + 1) == *name;
            here && body(&source, i).is_some_and(|open| {
                let end = group_end(&source.tokens, open) - 1;
                source.tokens[end].line - source.tokens[i].line >= MAX_FN_LINES
            })
        });
        assert!(long && !reason.is_empty(), "{path}: fn {name} needs no exception any more");
    }
}
