//! The syntax of iptables-save, ip6tables-save, ebtables and arptables (1.8).

mod bridge;
mod matches;
mod sets;
mod target;

use super::elements::Range;
use super::key::{Key, Version};
use super::names::Scope;
use super::rule::{Condition, Expression, Operand, Statement, Verdict};
use super::value::Kind;

/// The statements of a rule: `-A FORWARD -s 10.0.0.0/24 -j DROP`. A chain of ebtables that is only jumped to has its policy for
/// its last rule: `-P mine ACCEPT`.
pub(super) fn statements(text: &str, scope: &Scope<'_>) -> Vec<Statement> {
    let words = words(text);
    if let [policy, _, verdict] = words.as_slice()
        && policy == "-P"
    {
        return vec![match verdict.as_str() {
            "DROP" => Statement::Verdict(Verdict::Drop),
            "RETURN" => Statement::Verdict(Verdict::Return),
            _ => Statement::Verdict(Verdict::Accept),
        }];
    }
    let mut reader = Reader {
        words: &words,
        at: 0,
        scope,
        version: if scope.chain.family == "ip6" { Version::V6 } else { Version::V4 },
        negated: false,
        module: "",
        protocol: None,
        conditions: Vec::new(),
        unknown: Vec::new(),
    };
    let target = reader.read();
    let Reader { conditions, unknown, .. } = reader;
    let mut statements: Vec<Statement> = conditions.into_iter().map(Statement::Test).collect();
    statements.extend(unknown.into_iter().map(|text| Statement::Test(Condition::Unknown(text))));
    statements.extend(target);
    statements
}

/// A rule's words being read.
struct Reader<'a> {
    words: &'a [String],
    at: usize,
    scope: &'a Scope<'a>,
    version: Version,
    /// `!` stands before the option.
    negated: bool,
    /// The last `-m`.
    module: &'a str,
    /// The protocol of `-p`.
    protocol: Option<u128>,
    conditions: Vec<Condition>,
    unknown: Vec<String>,
}

impl<'a> Reader<'a> {
    /// Reads tests until the words end; the statements of the target come back.
    fn read(&mut self) -> Vec<Statement> {
        let mut target = Vec::new();
        while let Some(option) = self.take() {
            match option {
                "!" => {
                    self.negated = true;
                    continue;
                }
                "-A" => {
                    self.take();
                }
                "-m" | "--match" => self.module = self.take().unwrap_or_default(),
                "-c" | "--set-counters" => {
                    self.take();
                    self.take();
                }
                "-j" | "--jump" => target = self.target(),
                "-g" | "--goto" => {
                    let chain = self.take().and_then(|name| self.scope.target(name));
                    target = vec![Statement::Verdict(Verdict::Goto(chain))];
                }
                option => {
                    let before = self.conditions.len();
                    let at = self.at;
                    if self.test(option).is_none() {
                        self.conditions.truncate(before);
                        self.at = at;
                        self.not_understood(option);
                    }
                }
            }
            self.negated = false;
        }
        target
    }

    /// An option that is not understood, with its values: all words up to the next option.
    fn not_understood(&mut self, option: &str) {
        let mut text = option.to_owned();
        while let Some(word) = self.words.get(self.at).filter(|word| !word.starts_with('-') && *word != "!") {
            text.push(' ');
            text.push_str(word);
            self.at += 1;
        }
        self.unknown.push(text);
    }

    fn take(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.at)?;
        self.at += 1;
        Some(word)
    }

    /// Older tools write the exclamation mark behind the option.
    fn value(&mut self) -> Option<&'a str> {
        if self.words.get(self.at).is_some_and(|word| word == "!") {
            self.at += 1;
            self.negated = true;
        }
        self.take()
    }

    fn is(&mut self, key: Key, ranges: Vec<Range>) {
        self.masked(key, None, ranges);
    }

    fn masked(&mut self, key: Key, mask: Option<u128>, ranges: Vec<Range>) {
        let keys = vec![Expression { key, mask }];
        self.conditions.push(Condition::Is { keys, negated: self.negated, set: Operand::Ranges(ranges) });
    }

    /// One value, range or network of the key's own kind.
    fn value_of(&mut self, key: Key) -> Option<()> {
        let text = self.value()?;
        self.value_is(key, text)
    }

    fn value_is(&mut self, key: Key, text: &str) -> Option<()> {
        // A netmask may have holes; an address and its mask are written with a slash.
        if let (Kind::Ipv4 | Kind::Ipv6 | Kind::Mac, Some((value, mask))) = (key.kind(), text.split_once('/'))
            && let Some(mask) = key.kind().value(mask)
        {
            let value = key.kind().value(value)? & mask;
            self.masked(key, Some(mask), vec![Range::one(value)]);
            return Some(());
        }
        let range = key.kind().range(text)?;
        self.is(key, vec![range]);
        Some(())
    }

    /// Several, with commas between.
    fn list_of(&mut self, key: Key) -> Option<()> {
        let ranges: Option<Vec<_>> = self.value()?.split(',').map(|value| key.kind().range(value)).collect();
        self.is(key, ranges?);
        Some(())
    }
}

/// Words as the shell would split them, so that a comment is one.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let (mut quoted, mut escaped) = (false, false);
    for character in text.chars() {
        match character {
            _ if escaped => {
                escaped = false;
                word.get_or_insert_default().push(character);
            }
            '\\' => escaped = true,
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' | '\t' if !quoted => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}
