//! The words of nft's text.

/// A word, a string in quotes, or a sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// `tcp`, `10.0.0.0/8`, `.`, `:`
    Word(&'a str),
    /// Without its quotes.
    Quoted(&'a str),
    /// `{ } ( ) , ; | & ^ ! == != < > <= >= << >>`
    Sign(&'a str),
}

impl<'a> Token<'a> {
    /// The word, or nothing.
    pub(super) fn word(self) -> &'a str {
        match self {
            Self::Word(word) => word,
            Self::Quoted(_) | Self::Sign(_) => "",
        }
    }

    /// A word or string.
    pub(super) fn text(self) -> Option<&'a str> {
        match self {
            Self::Word(text) | Self::Quoted(text) => Some(text),
            Self::Sign(_) => None,
        }
    }
}

const SIGNS: &[&str] =
    &["==", "!=", "<=", ">=", "<<", ">>", "{", "}", "(", ")", ",", ";", "|", "&", "^", "!", "<", ">"];

/// Splits a text. A string that does not end is cut off: it is left out with all that follows it.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let tail = if let Some(inner) = rest.strip_prefix('"') {
            let Some((string, tail)) = inner.split_once('"') else { break };
            tokens.push(Token::Quoted(string));
            tail
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            let (sign, tail) = rest.split_at(sign.len());
            tokens.push(Token::Sign(sign));
            tail
        } else {
            let end =
                |c: char| c.is_whitespace() || matches!(c, '{' | '}' | '(' | ')' | ',' | ';' | '|' | '&' | '^' | '"');
            // A word has at least one character, so that this ends.
            let first = rest.chars().next().map_or(1, char::len_utf8);
            let at = rest.get(first..).and_then(|tail| tail.find(end)).map_or(rest.len(), |at| at + first);
            let (word, tail) = rest.split_at(at);
            tokens.push(Token::Word(word));
            tail
        };
        rest = tail.trim_start();
    }
    tokens
}
