//! The report as one JSON object. Keys stand in the contract's order.

use super::escape::is_unsafe;
use crate::diagnose::report::Report;
use serde::Serialize;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter};
use std::io::{self, Write};

/// Writes the report and a line break.
pub fn report(report: &Report, out: &mut impl Write) -> io::Result<()> {
    line(report, out)
}

pub(super) fn line(value: &impl Serialize, out: &mut impl Write) -> io::Result<()> {
    let mut serializer = serde_json::Serializer::with_formatter(&mut *out, Safe);
    value.serialize(&mut serializer).map_err(io::Error::from)?;
    out.write_all(b"\n")
}

/// Compact, with the unsafe characters that JSON would let pass as `\uXXXX`: the text stays the same for who parses it,
/// and harmless for who looks at it.
struct Safe;

impl Formatter for Safe {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut plain = 0;
        for (at, c) in fragment.char_indices().filter(|(_, c)| is_unsafe(*c)) {
            writer.write_all(fragment.get(plain..at).unwrap_or_default().as_bytes())?;
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                write!(writer, "\\u{unit:04x}")?;
            }
            plain = at + c.len_utf8();
        }
        writer.write_all(fragment.get(plain..).unwrap_or_default().as_bytes())
    }

    fn write_char_escape<W: ?Sized + Write>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()> {
        CompactFormatter.write_char_escape(writer, escape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_characters_are_escaped_and_read_back_the_same() {
        let text = "a\u{1b}[0m\u{202e}b\u{e0041}\"ü";
        let mut out = Vec::new();
        line(&text, &mut out).unwrap();
        assert!(out.iter().all(|byte| *byte >= 0x20 || *byte == b'\n'));
        let written = String::from_utf8(out).unwrap();
        assert!(!written.contains('\u{202e}'));
        assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
    }
}
