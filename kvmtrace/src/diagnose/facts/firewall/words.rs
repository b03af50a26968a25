//! A rule's text as words: a string in quotes is one, and so is a set in braces.

/// A word of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::diagnose) enum Word<'a> {
    /// A word, without its quotes.
    Plain(&'a str),
    /// The elements of a set or map.
    Set(Vec<&'a str>),
}

impl<'a> Word<'a> {
    /// The word; nothing for a set.
    pub(in crate::diagnose) fn plain(&self) -> &'a str {
        match self {
            Self::Plain(word) => word,
            Self::Set(_) => "",
        }
    }
}

/// Splits a rule's text.
pub(in crate::diagnose) fn words(text: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (word, tail) = match first {
            '"' => {
                let inner = &rest[1..];
                // A backslash takes the meaning from the sign that follows (`xtables_save_string`).
                let mut escaped = false;
                let end = inner.find(|c| {
                    let ends = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends
                });
                let (word, tail) = end.map_or((inner, ""), |end| (&inner[..end], &inner[end + 1..]));
                (Word::Plain(word), tail)
            }
            '{' => {
                let inner = &rest[1..];
                let (set, tail) = inner.split_once('}').unwrap_or((inner, ""));
                (Word::Set(set.split(',').map(str::trim).collect()), tail)
            }
            _ => {
                let (word, tail) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                (Word::Plain(word), tail)
            }
        };
        words.push(word);
        rest = tail.trim_start();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::{Word, words};

    #[test]
    fn strings_and_sets_are_one_word_each() {
        let told = words(r#"iifname "br 0" tcp dport { 22, 80-90 } comment "a { b" drop"#);
        let plain = Word::Plain;
        let set = Word::Set(vec!["22", "80-90"]);
        let wanted = [
            plain("iifname"),
            plain("br 0"),
            plain("tcp"),
            plain("dport"),
            set,
            plain("comment"),
            plain("a { b"),
            plain("drop"),
        ];
        assert_eq!(told, wanted);
    }

    #[test]
    fn what_is_cut_off_ends_at_the_end() {
        assert_eq!(
            words("ip saddr { 10.0.0.1, 10.0"),
            [Word::Plain("ip"), Word::Plain("saddr"), Word::Set(vec!["10.0.0.1", "10.0"])]
        );
        assert_eq!(
            words(r#"--comment "a\" -s b" -j DROP"#)[1..],
            [Word::Plain(r#"a\" -s b"#), Word::Plain("-j"), Word::Plain("DROP")]
        );
        assert_eq!(words("comment \"half"), [Word::Plain("comment"), Word::Plain("half")]);
    }
}
