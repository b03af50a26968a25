//! Nothing that a guest or a packet says may steer the operator's terminal: control characters, and characters that
//! turn the direction of text or are invisible, are shown by their code.

/// The text with every unsafe character as `\u{…}`.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) {
            safe.extend(c.escape_unicode());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Control characters, directional marks and overrides, zero-width characters, line and paragraph separators, tags.
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn what_steers_a_terminal_or_turns_text_is_shown_by_its_code() {
        assert_eq!(escape("web\u{1b}[2J1"), "web\\u{1b}[2J1");
        assert_eq!(escape("a\u{202e}b\nc"), "a\\u{202e}b\\u{a}c");
        assert_eq!(escape("Größe → 12"), "Größe → 12");
    }
}
