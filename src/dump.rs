//! Annotated dumps: bytes and their meaning side by side. Golden tests hold every format against
//! one, and `inspect` prints them.

use std::fmt::{Display, Write};

/// Writes `offset  hex  meaning` lines over a run of bytes; walks forward, never past the end.
pub(crate) struct Dump<'a> {
    bytes: &'a [u8],
    at: usize,
    /// What is added to the offsets shown: where `bytes` stand in their file.
    base: u64,
    out: String,
}

/// Hex bytes in one line.
const PER_LINE: usize = 16;
/// Of a longer field only the first lines are shown.
const MAX_LINES: usize = 8;

impl<'a> Dump<'a> {
    pub fn new(bytes: &'a [u8], base: u64) -> Dump<'a> {
        Dump { bytes, at: 0, base, out: String::new() }
    }

    /// How far the dump has come, in bytes.
    pub fn at(&self) -> usize {
        self.at
    }

    /// A line of its own, without bytes.
    pub fn title(&mut self, text: impl Display) -> &mut Self {
        let _ = writeln!(self.out, "# {text}");
        self
    }

    /// The next `len` bytes (or what is left) and what they mean; returns them.
    pub fn field(&mut self, len: usize, meaning: impl Display) -> &'a [u8] {
        self.lines(len, meaning.to_string())
    }

    fn lines(&mut self, len: usize, mut meaning: String) -> &'a [u8] {
        let end = self.at.saturating_add(len).min(self.bytes.len());
        let field = &self.bytes[self.at..end];
        if field.len() < len {
            let _ = write!(meaning, " (cut: {} of {len} bytes)", field.len());
        }
        for (i, line) in field.chunks(PER_LINE).enumerate() {
            let offset = self.base + (self.at + i * PER_LINE) as u64;
            if i == MAX_LINES {
                let _ = writeln!(self.out, "{offset:08x}  ... {} more bytes", field.len() - i * PER_LINE);
                break;
            }
            let hex: Vec<String> = line.iter().map(|b| format!("{b:02x}")).collect();
            let text = if i == 0 { meaning.as_str() } else { "" };
            let _ =
                writeln!(self.out, "{}", format!("{offset:08x}  {:<47}  {text}", hex.join(" ")).trim_end());
        }
        self.at = end;
        field
    }

    /// Little-endian number of `len` (at most 8) bytes, shown with its value; returns it.
    pub fn number(&mut self, len: usize, meaning: &str) -> u64 {
        let end = self.at.saturating_add(len).min(self.bytes.len());
        let mut le = [0; 8];
        for (to, from) in le.iter_mut().zip(&self.bytes[self.at..end]) {
            *to = *from;
        }
        let n = u64::from_le_bytes(le);
        self.field(len, format_args!("{meaning} = {n}"));
        n
    }

    pub fn finish(self) -> String {
        self.out
    }
}

/// Bytes as text for dumps: ASCII as it is, the rest escaped, long ones cut.
pub(crate) fn text(bytes: &[u8]) -> String {
    const SHOWN: usize = 40;
    let cut = bytes.len().min(SHOWN);
    let more = if bytes.len() > cut { format!("... ({} bytes)", bytes.len()) } else { String::new() };
    format!("\"{}\"{more}", bytes[..cut].escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_offset_bytes_and_meaning_and_survives_a_cut() {
        let mut d = Dump::new(&[1, 0, 0, 0, b'h', b'i'], 16);
        assert_eq!(d.number(4, "count"), 1);
        assert_eq!(d.field(5, text(b"hi")), b"hi");
        let pad = |hex: &str| format!("{hex:<47}");
        assert_eq!(
            d.finish(),
            format!(
                "00000010  {}  count = 1\n00000014  {}  \"hi\" (cut: 2 of 5 bytes)\n",
                pad("01 00 00 00"),
                pad("68 69")
            )
        );
    }
}
