//! Just enough reading of Rust for [`super`]: words and signs with their lines, without comments
//! and literals; which of them are test code; paths with their braces spelled out.

/// A word (`fn`, `crate`, `0x10`), `::`, or one sign.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Token<'a> {
    pub line: usize,
    pub text: &'a str,
}

/// The code of `text`. Space, comments and lifetimes are left out; a string or character is one
/// token `"`.
pub fn tokens(text: &str) -> Vec<Token<'_>> {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let (mut i, mut line) = (0, 1);
    while i < bytes.len() {
        let (end, what) = lexeme(bytes, i);
        let end = end.min(bytes.len());
        match what {
            Lexeme::Code => out.push(Token { line, text: text.get(i..end).unwrap_or("") }),
            Lexeme::Literal => out.push(Token { line, text: "\"" }),
            Lexeme::Nothing => {}
        }
        line += bytes[i..end].iter().filter(|&&b| b == b'\n').count();
        i = end;
    }
    out
}

enum Lexeme {
    Code,
    Literal,
    Nothing,
}

/// Where the lexeme at `i` ends, and what it is.
fn lexeme(bytes: &[u8], i: usize) -> (usize, Lexeme) {
    let at = |i: usize| bytes.get(i).copied().unwrap_or(0);
    let raw = |i: usize| at(i) == b'r' && (at(i + 1) == b'"' || (at(i + 1) == b'#' && !word(at(i + 2))));
    match bytes[i] {
        b'/' if at(i + 1) == b'/' => (find(bytes, i, b"\n"), Lexeme::Nothing),
        b'/' if at(i + 1) == b'*' => (block_comment_end(bytes, i), Lexeme::Nothing),
        b'"' => (string_end(bytes, i), Lexeme::Literal),
        b'b' if at(i + 1) == b'"' => (string_end(bytes, i + 1), Lexeme::Literal),
        b'b' if raw(i + 1) => (raw_string_end(bytes, i + 2), Lexeme::Literal),
        b'r' if raw(i) => (raw_string_end(bytes, i + 1), Lexeme::Literal),
        b'\'' => quote_end(bytes, i),
        b if word(b) => (word_end(bytes, i), Lexeme::Code),
        b':' if at(i + 1) == b':' => (i + 2, Lexeme::Code),
        b if b.is_ascii_punctuation() => (i + 1, Lexeme::Code),
        _ => (i + 1, Lexeme::Nothing),
    }
}

fn word_end(bytes: &[u8], from: usize) -> usize {
    from + bytes[from..].iter().take_while(|&&b| word(b)).count()
}

fn word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> usize {
    let tail = &bytes[from..];
    from + tail.windows(what.len()).position(|w| w == what).unwrap_or(tail.len())
}

fn block_comment_end(bytes: &[u8], from: usize) -> usize {
    let (mut i, mut depth) = (from, 0);
    while i < bytes.len() {
        if bytes[i..].starts_with(b"/*") {
            depth += 1;
            i += 2;
        } else if bytes[i..].starts_with(b"*/") {
            depth -= 1;
            i += 2;
            if depth == 0 {
                break;
            }
        } else {
            i += 1;
        }
    }
    i
}

fn string_end(bytes: &[u8], open: usize) -> usize {
    let mut i = open + 1;
    while i < bytes.len() && bytes[i] != b'"' {
        i += if bytes[i] == b'\\' { 2 } else { 1 };
    }
    i + 1
}

fn raw_string_end(bytes: &[u8], hashes: usize) -> usize {
    let n = bytes[hashes..].iter().take_while(|&&b| b == b'#').count();
    let mut close = b"\"".to_vec();
    close.resize(1 + n, b'#');
    find(bytes, hashes + n + 1, &close) + close.len()
}

/// The end of what a single quote opens: a character, or a lifetime.
fn quote_end(bytes: &[u8], open: usize) -> (usize, Lexeme) {
    let next = bytes.get(open + 1).copied().unwrap_or(0);
    if word(next) && bytes.get(open + 2) != Some(&b'\'') {
        return (word_end(bytes, open + 1), Lexeme::Nothing);
    }
    let skip = if next == b'\\' { 3 } else { 2 };
    (find(bytes, (open + skip).min(bytes.len()), b"'") + 1, Lexeme::Literal)
}

/// The index just behind the group that opens at `open` (`{`, `(` or `[`).
pub fn group_end(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0;
    for (i, t) in tokens.iter().enumerate().skip(open) {
        match t.text {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return i + 1;
        }
    }
    tokens.len()
}

/// Which tokens belong to items marked `#[cfg(test)]` (or `all(test, ..)`).
pub fn test_code(tokens: &[Token<'_>]) -> Vec<bool> {
    let mut marks = vec![false; tokens.len()];
    let text = |i: usize| tokens.get(i).map_or("", |t| t.text);
    let mut i = 0;
    while i < tokens.len() {
        let inner = text(i) == "#" && text(i + 1) == "!";
        let open = i + 1 + usize::from(inner);
        if text(i) != "#" || text(open) != "[" {
            i += 1;
            continue;
        }
        let end = group_end(tokens, open);
        let inside = &tokens[open..end];
        let negated = inside.windows(3).any(|w| w[0].text == "not" && w[2].text == "test");
        let test = text(open + 1) == "cfg" && inside.iter().any(|t| t.text == "test") && !negated;
        if test {
            let stop = if inner { tokens.len() } else { item_end(tokens, end) };
            marks[i..stop].fill(true);
            i = stop;
        } else {
            i = end;
        }
    }
    marks
}

/// The end of the item, field or statement at `from`, attributes before it included.
fn item_end(tokens: &[Token<'_>], mut from: usize) -> usize {
    while tokens.get(from).is_some_and(|t| t.text == "#") {
        from = group_end(tokens, from + 1);
    }
    let item = ["pub", "fn", "mod", "use", "impl", "struct", "enum", "trait", "const", "static", "type"];
    let comma_ends = !tokens.get(from).is_some_and(|t| item.contains(&t.text));
    let mut i = from;
    while let Some(t) = tokens.get(i) {
        match t.text {
            "{" => return group_end(tokens, i),
            "(" | "[" => i = group_end(tokens, i),
            ";" => return i + 1,
            "," if comma_ends => return i + 1,
            "}" => return i,
            _ => i += 1,
        }
    }
    tokens.len()
}

/// The paths that start at token `i` (a word), each as its words; braces are spelled out.
pub fn paths<'a>(tokens: &[Token<'a>], i: usize) -> Vec<Vec<&'a str>> {
    let mut out = Vec::new();
    tree(tokens, i, &mut Vec::new(), &mut out);
    out
}

fn tree<'a>(
    tokens: &[Token<'a>],
    mut i: usize,
    path: &mut Vec<&'a str>,
    out: &mut Vec<Vec<&'a str>>,
) -> usize {
    let depth = path.len();
    let text = |i: usize| tokens.get(i).map_or("", |t| t.text);
    loop {
        if text(i) == "{" {
            let end = group_end(tokens, i);
            i += 1;
            while i + 1 < end {
                i = tree(tokens, i, path, out);
                while i + 1 < end && text(i) != "," {
                    i += 1;
                }
                i += usize::from(text(i) == ",");
            }
            i = end;
            break;
        }
        path.push(tokens.get(i).map_or("", |t| t.text));
        i += 1;
        if text(i) != "::" || text(i + 1) == "<" {
            out.push(path.clone());
            break;
        }
        i += 1;
    }
    path.truncate(depth);
    i
}
