//! A search engine for text files, in one file: an inverted index over whatever lies below some
//! folders, kept in Esker. Run it with `--help` to see how.
//!
//! What it shows: several keyspaces in one atomic batch (a file is indexed wholly or not at all, so
//! the program may be killed at any moment and continues where it was), prefix scans, cursors that
//! leap over each other to intersect words, snapshots, and buffered durability with one sync at the
//! end.

use esker::{Db, Durability, Keyspace, Options, Prefix, Snapshot};
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use std::collections::hash_map::{Entry, HashMap};
use std::collections::{BTreeSet, HashSet};
use std::error::Error;
use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Instant, UNIX_EPOCH};

const HELP: &str = "\
search: an index of every word in the text files below some folders

    search [PATH ...] [--db DIR] [--query WORDS ...] [--count] [--no-index]

    PATH            what to index: files or folders (default: the current folder).
                    Binary files, symbolic links, .git and target are left out.
    --db DIR        where the index is kept (default: target/search.esker if there is
                    a folder called target, else .esker-search)
    --query WORDS   asks for the lines that hold all these words, then ends. May be
                    given several times. Without it, a terminal gets a prompt.
    --count         answers with the number of lines alone
    --no-index      asks the index as it is, opened read-only

Words are runs of letters, digits and underscores, without regard to ASCII case. A second
run only reads files that changed; a run that was killed is continued by the next one.";

/// Longer words are left out; nobody types them.
const MAX_WORD: usize = 64;
/// Larger files are left out: one file is one batch.
const MAX_FILE: u64 = 32 << 20;
/// How many lines of an answer are shown.
const SHOWN: usize = 20;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args_os().skip(1)) {
        Ok(Some(args)) => args,
        Ok(None) => {
            let shown = writeln!(io::stdout(), "{HELP}");
            return if shown.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        Err(e) => {
            eprintln!("search: {e} (--help says more)");
            return ExitCode::from(2);
        }
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of our output has seen enough.
        Err(e) if e.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => {
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("search: {e}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Default)]
struct Args {
    paths: Vec<PathBuf>,
    db: PathBuf,
    queries: Vec<String>,
    count: bool,
    no_index: bool,
}

impl Args {
    /// `None` asks for help.
    fn parse(args: impl Iterator<Item = std::ffi::OsString>) -> Outcome<Option<Args>> {
        let mut out = Args::default();
        let mut args = args.peekable();
        let is_flag = |a: &std::ffi::OsString| a.to_str().is_some_and(|a| a.starts_with("--"));
        while let Some(arg) = args.next() {
            match arg.to_str() {
                Some("--help" | "-h") => return Ok(None),
                Some("--count") => out.count = true,
                Some("--no-index") => out.no_index = true,
                Some("--db") => out.db = args.next().ok_or("--db needs a folder")?.into(),
                Some("--query") => {
                    let mut words = Vec::new();
                    while let Some(word) = args.next_if(|a| !is_flag(a)) {
                        words.push(word.to_string_lossy().into_owned());
                    }
                    if words.is_empty() {
                        return Err("--query needs a word".into());
                    }
                    out.queries.push(words.join(" "));
                }
                Some(flag) if flag.starts_with('-') => return Err(format!("{flag}: no such option").into()),
                _ => out.paths.push(arg.into()),
            }
        }
        if out.db.as_os_str().is_empty() {
            let target = Path::new("target");
            out.db = if target.is_dir() { target.join("search.esker") } else { ".esker-search".into() };
        }
        if out.paths.is_empty() {
            out.paths.push(".".into());
        }
        Ok(Some(out))
    }
}

fn run(args: &Args) -> Outcome {
    let options = Options::default().durability(Durability::Buffered).read_only(args.no_index);
    let db = Db::open(&args.db, options)?;
    let index = Index::open(&db)?;
    if !args.no_index {
        index.build(&args.paths, &args.db)?;
    }
    for query in &args.queries {
        index.answer(query, args.count)?;
    }
    if args.queries.is_empty() && io::stdin().is_terminal() {
        converse(&index)?;
    }
    db.close()?;
    Ok(())
}

fn converse(index: &Index) -> Outcome {
    writeln!(io::stdout(), "Words to look for; an empty line ends.")?;
    let mut line = String::new();
    loop {
        let mut out = io::stdout();
        write!(out, "> ")?;
        out.flush()?;
        line.clear();
        if io::stdin().lock().read_line(&mut line)? == 0 || line.trim().is_empty() {
            return Ok(());
        }
        index.answer(&line, false)?;
    }
}

/// The keyspaces, and what their keys and values are. Numbers are big-endian, so that they sort.
struct Index<'a> {
    db: &'a Db,
    /// path -> [`Record`]
    files: Keyspace,
    /// file id -> path
    paths: Keyspace,
    /// word, 0, file id, line -> nothing
    postings: Keyspace,
    /// file id -> the file's words, each once, with a 0 after each: what to delete when it changes
    words: Keyspace,
}

/// What is known of an indexed file.
#[derive(Clone, Copy, PartialEq)]
struct Record {
    id: u64,
    modified: u64,
    size: u64,
}

impl Record {
    fn encode(self) -> [u8; 24] {
        let mut out = [0; 24];
        out[..8].copy_from_slice(&self.id.to_be_bytes());
        out[8..16].copy_from_slice(&self.modified.to_be_bytes());
        out[16..].copy_from_slice(&self.size.to_be_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Outcome<Record> {
        let number = |i: usize| Some(u64::from_be_bytes(bytes.get(i..i + 8)?.try_into().ok()?));
        let record = || Some(Record { id: number(0)?, modified: number(8)?, size: number(16)? });
        record().ok_or_else(|| "the index holds a file record of a strange length".into())
    }
}

/// What a build did.
#[derive(Default)]
struct Tally {
    files: u64,
    bytes: u64,
    postings: u64,
    known: u64,
    gone: u64,
    passed_over: u64,
}

impl<'a> Index<'a> {
    fn open(db: &'a Db) -> Outcome<Index<'a>> {
        let keyspace = |name: &str| db.keyspace(name);
        Ok(Index {
            db,
            files: keyspace("files")?,
            paths: keyspace("paths")?,
            postings: keyspace("postings")?,
            words: keyspace("words")?,
        })
    }

    /// Brings the index up to date with what lies below `roots`.
    fn build(&self, roots: &[PathBuf], store: &Path) -> Outcome {
        let start = Instant::now();
        let store = fs::canonicalize(store)?;
        let mut found = Vec::new();
        for root in roots {
            let root = fs::canonicalize(root).map_err(|e| format!("{}: {e}", root.display()))?;
            walk(&root, &store, &mut found);
        }
        found.sort();
        found.dedup();

        let bar = ProgressBar::new(found.iter().map(|f| f.size).sum());
        if let Ok(style) =
            ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {eta} left  {wide_msg}")
        {
            bar.set_style(style);
        }
        let mut tally = Tally::default();
        let mut next_id =
            self.paths.iter().next_back().transpose()?.map_or(Ok(0), |e| id_of(e.key()).map(|id| id + 1))?;
        for file in &found {
            bar.set_message(file.path.clone());
            self.index_file(file, &mut next_id, &mut tally)?;
            bar.inc(file.size);
        }
        self.forget_missing(roots, &found, &mut tally)?;
        self.db.sync()?;
        bar.finish_and_clear();
        report(&tally, start.elapsed().as_secs_f64(), &store)
    }

    fn index_file(&self, file: &Found, next_id: &mut u64, tally: &mut Tally) -> Outcome {
        let old = self.files.get(&file.path)?.map(|v| Record::decode(&v)).transpose()?;
        if old.is_some_and(|old| old.modified == file.modified && old.size == file.size) {
            tally.known += 1;
            return Ok(());
        }
        let text = match fs::read(&file.path) {
            Ok(text) if !text.contains(&0) => text,
            _ => {
                tally.passed_over += 1;
                return Ok(());
            }
        };
        let mut batch = self.db.batch();
        if let Some(old) = old {
            self.unindex(&mut batch, &file.path, old.id)?;
        }
        let id = *next_id;
        *next_id += 1;
        let mut words = BTreeSet::new();
        let mut key = Vec::new();
        for (line, text) in text.split(|&b| b == b'\n').enumerate() {
            let mut here: Vec<Vec<u8>> = words_of(text).collect();
            here.sort_unstable();
            here.dedup();
            tally.postings += here.len() as u64;
            for word in here {
                start_posting(&mut key, &word);
                key.extend_from_slice(&Place::new(id, line as u32 + 1).encode());
                batch.put(&self.postings, &key, b"");
                words.insert(word);
            }
        }
        let mut list = Vec::new();
        for word in &words {
            list.extend_from_slice(word);
            list.push(0);
        }
        let record = Record { id, modified: file.modified, size: file.size };
        batch.put(&self.words, id.to_be_bytes(), &list);
        batch.put(&self.paths, id.to_be_bytes(), &file.path);
        batch.put(&self.files, &file.path, record.encode());
        batch.commit()?;
        tally.files += 1;
        tally.bytes += text.len() as u64;
        Ok(())
    }

    /// Adds to `batch` what makes a file unknown.
    fn unindex(&self, batch: &mut esker::Batch, path: &str, id: u64) -> Outcome {
        let mut key = Vec::new();
        if let Some(list) = self.words.get(id.to_be_bytes())? {
            for word in list.split(|&b| b == 0).filter(|w| !w.is_empty()) {
                start_posting(&mut key, word);
                key.extend_from_slice(&id.to_be_bytes());
                for entry in self.postings.prefix(&key) {
                    batch.delete(&self.postings, entry?.key());
                }
            }
        }
        batch.delete(&self.words, id.to_be_bytes());
        batch.delete(&self.paths, id.to_be_bytes());
        batch.delete(&self.files, path);
        Ok(())
    }

    /// Forgets indexed files below `roots` that are there no more.
    fn forget_missing(&self, roots: &[PathBuf], found: &[Found], tally: &mut Tally) -> Outcome {
        let there: HashSet<&str> = found.iter().map(|f| f.path.as_str()).collect();
        for root in roots {
            let root = fs::canonicalize(root)?;
            let Some(root) = root.to_str() else { continue };
            for entry in self.files.prefix(root) {
                let entry = entry?;
                let path = String::from_utf8_lossy(entry.key()).into_owned();
                if !there.contains(path.as_str()) && Path::new(&path).starts_with(root) {
                    let mut batch = self.db.batch();
                    self.unindex(&mut batch, &path, Record::decode(entry.value())?.id)?;
                    batch.commit()?;
                    tally.gone += 1;
                }
            }
        }
        Ok(())
    }

    /// Prints the lines that hold all words of `query`.
    fn answer(&self, query: &str, count_only: bool) -> Outcome {
        let start = Instant::now();
        let words: BTreeSet<Vec<u8>> = words_of(query.as_bytes()).collect();
        let snapshot = self.db.snapshot();
        let hits = if words.is_empty() { Vec::new() } else { self.lines_with_all(&snapshot, &words)? };
        let took = start.elapsed();
        let mut out = io::stdout().lock();
        if count_only {
            writeln!(out, "{}", hits.len())?;
            return Ok(());
        }
        let paths = self.paths.at(&snapshot);
        let mut texts: HashMap<u64, (String, Vec<u8>)> = HashMap::new();
        for hit in hits.iter().take(SHOWN) {
            let id = hit.file();
            if let Entry::Vacant(entry) = texts.entry(id) {
                let path = paths.get(id.to_be_bytes())?;
                let path = path.map_or("?".into(), |p| String::from_utf8_lossy(&p).into_owned());
                let text = fs::read(&path).unwrap_or_default();
                entry.insert((path, text));
            }
            let (path, text) = &texts[&id];
            // The text as it is now; it may have changed since it was indexed.
            let line = text.split(|&b| b == b'\n').nth(hit.line() as usize - 1).unwrap_or_default();
            writeln!(out, "{}:{}: {}", shorten(path), hit.line(), String::from_utf8_lossy(line).trim())?;
        }
        if hits.len() > SHOWN {
            writeln!(out, "... and {} more", HumanCount((hits.len() - SHOWN) as u64))?;
        }
        let files = hits.iter().map(|h| h.file()).collect::<HashSet<_>>().len();
        let (lines, files) = (HumanCount(hits.len() as u64), HumanCount(files as u64));
        writeln!(out, "{}: {lines} lines in {files} files, found in {took:.1?}", query.trim())?;
        Ok(())
    }

    /// The lines at which all words stand. One cursor per word; each in turn leaps to the
    /// furthest place any has reached, until all stand at the same one.
    fn lines_with_all(&self, snapshot: &Snapshot, words: &BTreeSet<Vec<u8>>) -> Outcome<Vec<Place>> {
        let postings = self.postings.at(snapshot);
        let mut lanes = Vec::new();
        for word in words {
            let mut prefix = Vec::new();
            start_posting(&mut prefix, word);
            lanes.push((postings.cursor(Prefix(prefix.clone())), prefix));
        }
        let mut hits = Vec::new();
        let (mut goal, mut agreed, mut turn) = (Place(0), 0, 0);
        let mut key = Vec::new();
        loop {
            let (cursor, prefix) = &mut lanes[turn];
            turn = (turn + 1) % words.len();
            key.clear();
            key.extend_from_slice(prefix);
            key.extend_from_slice(&goal.encode());
            cursor.seek(&key)?;
            let Some((found, _)) = cursor.next()? else { return Ok(hits) };
            let place = Place::decode(&found[prefix.len()..])?;
            agreed = if place == goal { agreed + 1 } else { 1 };
            goal = place;
            if agreed == words.len() {
                hits.push(place);
                goal = Place(place.0 + 1);
                agreed = 0;
            }
        }
    }
}

/// Where a word stands: the file's id and the line (from 1), as one number of twelve bytes.
#[derive(Clone, Copy, PartialEq)]
struct Place(u128);

impl Place {
    fn new(file: u64, line: u32) -> Place {
        Place(u128::from(file) << 32 | u128::from(line))
    }

    fn file(self) -> u64 {
        (self.0 >> 32) as u64
    }

    fn line(self) -> u32 {
        self.0 as u32
    }

    fn encode(self) -> [u8; 12] {
        let mut out = [0; 12];
        out.copy_from_slice(&self.0.to_be_bytes()[4..]);
        out
    }

    fn decode(bytes: &[u8]) -> Outcome<Place> {
        let bytes: &[u8; 12] =
            bytes.try_into().map_err(|_| "the index holds a posting of a strange length")?;
        let mut wide = [0; 16];
        wide[4..].copy_from_slice(bytes);
        Ok(Place(u128::from_be_bytes(wide)))
    }
}

/// A file's id, as it is in keys.
fn id_of(bytes: &[u8]) -> Outcome<u64> {
    Ok(u64::from_be_bytes(bytes.try_into().map_err(|_| "the index holds a file id of a strange length")?))
}

/// A path as seen from the current folder.
fn shorten(path: &str) -> &str {
    let here = std::env::current_dir().and_then(fs::canonicalize).unwrap_or_default();
    let short = Path::new(path).strip_prefix(here).ok().and_then(Path::to_str);
    short.filter(|s| !s.is_empty()).unwrap_or(path)
}

/// Starts the key of a posting in `key`: the word and a zero, which no word holds.
fn start_posting(key: &mut Vec<u8>, word: &[u8]) {
    key.clear();
    key.extend_from_slice(word);
    key.push(0);
}

/// The words of a line, in lower case. Bytes beyond ASCII count as letters.
fn words_of(line: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    line.split(|b| !(b.is_ascii_alphanumeric() || *b == b'_' || *b >= 0x80))
        .filter(|word| !word.is_empty() && word.len() <= MAX_WORD)
        .map(<[u8]>::to_ascii_lowercase)
}

/// A file that is to be in the index.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    path: String,
    modified: u64,
    size: u64,
}

/// Collects the files below `path`. What cannot be read or named is passed over.
fn walk(path: &Path, store: &Path, out: &mut Vec<Found>) {
    let Ok(about) = fs::symlink_metadata(path) else { return };
    if about.is_dir() {
        let left_out = path.file_name().is_some_and(|n| n == ".git" || n == "target");
        let Ok(entries) = fs::read_dir(path) else { return };
        if !left_out && path != store {
            entries.flatten().for_each(|entry| walk(&entry.path(), store, out));
        }
    } else if let (true, Some(name)) = (about.is_file() && about.len() <= MAX_FILE, path.to_str()) {
        let modified = about.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        let modified = modified.map_or(0, |d| d.as_nanos() as u64);
        out.push(Found { path: name.to_string(), modified, size: about.len() });
    }
}

fn report(tally: &Tally, seconds: f64, store: &Path) -> Outcome {
    let mut out = io::stdout().lock();
    let Tally { files, bytes, postings, known, gone, passed_over } = *tally;
    writeln!(
        out,
        "indexed {} files, {}, {} postings in {seconds:.2} s ({:.0} files/s, {:.1} MB/s, {} postings/s)",
        HumanCount(files),
        HumanBytes(bytes),
        HumanCount(postings),
        files as f64 / seconds,
        bytes as f64 / 1e6 / seconds,
        HumanCount((postings as f64 / seconds) as u64),
    )?;
    writeln!(
        out,
        "{} files were known already, {} are gone, {} were passed over (binary or unreadable)",
        HumanCount(known),
        HumanCount(gone),
        HumanCount(passed_over),
    )?;
    let (mut tables, mut rest) = (0, 0);
    for entry in fs::read_dir(store).into_iter().flatten().flatten() {
        let size = entry.metadata().map_or(0, |m| m.len());
        match entry.path().extension() {
            Some(e) if e == "table" => tables += size,
            _ => rest += size,
        }
    }
    writeln!(
        out,
        "the index is in {}: {} of tables, {} set aside for the journal",
        store.display(),
        HumanBytes(tables),
        HumanBytes(rest)
    )?;
    Ok(())
}
