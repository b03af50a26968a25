//! Words and signs of a filter.

use super::FilterError;
use std::fmt;

/// A word or a sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Word(String),
    Open,
    Close,
    And,
    Or,
    Not,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => write!(f, "{word:?}"),
            Self::Open => f.write_str("\"(\""),
            Self::Close => f.write_str("\")\""),
            Self::And => f.write_str("\"and\""),
            Self::Or => f.write_str("\"or\""),
            Self::Not => f.write_str("\"not\""),
        }
    }
}

/// Takes an expression apart.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, FilterError> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '!' if !rest.starts_with("!=") => (Token::Not, 1),
            _ if rest.starts_with("&&") => (Token::And, 2),
            _ if rest.starts_with("||") => (Token::Or, 2),
            _ => word(rest)?,
        };
        tokens.push(token);
        rest = rest.get(length..).unwrap_or_default().trim_start();
    }
    Ok(tokens)
}

fn word(rest: &str) -> Result<(Token, usize), FilterError> {
    let length = rest.find(|c: char| c.is_whitespace() || "()!&|".contains(c)).unwrap_or(rest.len());
    let word = rest.get(..length).unwrap_or_default();
    if word.is_empty() || word.contains(['[', ']', '=', '<', '>', '+', '*', '^', '%']) {
        let what: String = if word.is_empty() { rest.chars().take(1).collect() } else { word.to_owned() };
        return Err(FilterError::Unsupported {
            what: format!("a test of packet bytes or lengths ({what:?})"),
            instead: "use host, net, port, tcp, udp, icmp, arp, vlan, and, or, not",
        });
    }
    // A backslash keeps pcap-filter from taking a protocol's name for a keyword; here nothing needs that.
    let plain = word.strip_prefix('\\').unwrap_or(word);
    let token = match plain {
        "and" => Token::And,
        "or" => Token::Or,
        "not" => Token::Not,
        _ => Token::Word(plain.to_owned()),
    };
    Ok((token, length))
}
