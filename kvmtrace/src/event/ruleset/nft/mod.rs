//! nft's own syntax (`nft list ruleset`, versions 0.9 to 1.1).

pub(super) mod action;
mod operand;
mod selector;
mod token;

use super::elements::Range;
use super::key::{Key, Meta, Version};
use super::names::Scope;
use super::rule::{Condition, Expression, Operand, Statement, Verdict};
use token::{Token, tokens};

/// The statements of a rule. The last is [`Statement::Unknown`] where the rest of the text is not understood.
pub(super) fn statements(text: &str, scope: &Scope<'_>) -> Vec<Statement> {
    let mut parser = Parser { tokens: tokens(text), at: 0, scope };
    let mut statements = Vec::new();
    while parser.at < parser.tokens.len() {
        let before = parser.at;
        let known = statements.len();
        if parser.statement(&mut statements).is_none() || parser.at == before {
            statements.truncate(known);
            statements.push(Statement::Unknown(parser.rest(before)));
            break;
        }
    }
    if scope.chain.family == "bridge" {
        ask_for_ethernet(&mut statements);
    }
    statements
}

/// Before an ICMP header that no test of the IP header precedes, nft compares the frame's type, which of a tagged frame is 802.1Q
/// (`payload_gen_special_dependency`; `nft_payload_copy_vlan` in the kernel). It does not list that test.
fn ask_for_ethernet(statements: &mut Vec<Statement>) {
    let tests = |statement: &Statement, wanted: &dyn Fn(&Key) -> bool| {
        let Statement::Test(Condition::Is { keys, .. }) = statement else { return false };
        keys.iter().any(|expression| wanted(&expression.key))
    };
    let is_icmp = |key: &Key| matches!(key, Key::Icmp(..));
    let Some(at) = statements.iter().position(|statement| tests(statement, &is_icmp)) else { return };
    let network = |key: &Key| matches!(key, Key::Ip(..) | Key::EtherType | Key::Meta(Meta::Protocol));
    if statements.iter().take(at).any(|statement| tests(statement, &network)) {
        return;
    }
    let v6 = statements.get(at).is_some_and(|found| tests(found, &|key| matches!(key, Key::Icmp(Version::V6, _))));
    let keys = vec![Expression { key: Key::EtherType, mask: None }];
    let set = Operand::Ranges(vec![Range::one(if v6 { 0x86dd } else { 0x0800 })]);
    statements.insert(at, Statement::Test(Condition::Is { keys, negated: false, set }));
}

/// A rule's text being read.
struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    scope: &'a Scope<'a>,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).copied()
    }

    fn peek_word(&self) -> &'a str {
        self.peek().map_or("", Token::word)
    }

    fn take(&mut self) -> Option<Token<'a>> {
        let token = self.peek()?;
        self.at += 1;
        Some(token)
    }

    /// Takes the next token if it is this word or sign.
    fn skip(&mut self, text: &str) -> bool {
        let is = matches!(self.peek(), Some(Token::Word(word) | Token::Sign(word)) if word == text);
        self.at += usize::from(is);
        is
    }

    /// Takes a word if it is one of these.
    fn skip_any(&mut self, words: &[&str]) -> bool {
        let is = words.contains(&self.peek_word());
        self.at += usize::from(is);
        is
    }

    fn number(&mut self) -> Option<u128> {
        super::value::number(self.take()?.word())
    }

    /// The text from a token on.
    fn rest(&self, from: usize) -> String {
        let mut text = String::new();
        for token in self.tokens.iter().skip(from) {
            if !text.is_empty() {
                text.push(' ');
            }
            match token {
                Token::Word(word) | Token::Sign(word) => text.push_str(word),
                Token::Quoted(word) => {
                    text.push('"');
                    text.push_str(word);
                    text.push('"');
                }
            }
        }
        text
    }

    /// Reads one statement; none where it is not understood.
    fn statement(&mut self, statements: &mut Vec<Statement>) -> Option<()> {
        let start = self.at;
        let statement = match self.peek_word() {
            "accept" | "drop" | "return" | "continue" | "jump" | "goto" | "queue" | "reject" => {
                Statement::Verdict(self.verdict()?)
            }
            "counter" => {
                self.at += 1;
                if self.skip("packets") {
                    self.at += 1;
                    self.skip("bytes").then(|| self.at += 1)?;
                } else if self.skip("name") {
                    self.take()?;
                }
                return Some(());
            }
            "comment" => {
                self.at += 2;
                return Some(());
            }
            "log" => {
                self.at += 1;
                while self.skip_any(&["prefix", "level", "group", "snaplen", "queue-threshold", "flags"]) {
                    self.take()?;
                    while self.skip(",") || self.skip_any(&["sequence", "options"]) {
                        self.skip_any(&["sequence", "options"]);
                    }
                }
                return Some(());
            }
            "notrack" => {
                self.at += 1;
                Statement::NoTrack
            }
            "limit" => self.limit()?,
            "quota" => self.quota()?,
            "last" => {
                self.at += 1;
                self.skip_any(&["used"]).then(|| self.at += 1);
                return Some(());
            }
            "add" | "update" | "delete" => self.fill(statements)?,
            "masquerade" | "snat" | "dnat" | "redirect" => self.nat()?,
            "tproxy" | "synproxy" | "fwd" => {
                let text = self.rest(start);
                self.at = self.tokens.len();
                Statement::Verdict(Verdict::Taken(text))
            }
            // A copy goes elsewhere; the packet itself goes on.
            "dup" => {
                self.at += 1;
                self.skip("to").then_some(())?;
                self.take()?;
                if self.skip("device") {
                    self.take()?;
                }
                return Some(());
            }
            // Later packets of the connection pass the flowtable by; this one goes on.
            "flow" => {
                self.at += 1;
                self.skip("add").then_some(())?;
                self.take()?;
                return Some(());
            }
            "tcp" if self.tokens.get(self.at + 1).is_some_and(|token| token.word() == "option") => {
                return self.tcp_option(statements);
            }
            "ct" if self.tokens.get(self.at + 1).is_some_and(|token| token.word() == "count") => self.count()?,
            _ => return self.test_or_change(statements),
        };
        statements.push(statement);
        Some(())
    }

    fn limit(&mut self) -> Option<Statement> {
        self.skip("limit");
        if self.skip("name") {
            self.take()?;
            // What a named limit is, stands elsewhere; most let pass what is below them.
            return Some(Statement::Test(Condition::Unknown("a named limit".to_owned())));
        }
        self.skip("rate").then_some(())?;
        let over = self.skip("over");
        // `10/second` or `1 mbytes/second`
        if !self.take()?.word().contains('/') {
            self.take()?;
        }
        if self.skip("burst") {
            self.take()?;
            self.take()?;
        }
        Some(Statement::Test(Condition::Limit { over }))
    }

    fn count(&mut self) -> Option<Statement> {
        self.at += 2;
        let over = self.skip("over");
        self.number()?;
        Some(Statement::Test(Condition::Limit { over }))
    }

    /// `quota over 10 mbytes used 3 kbytes`
    fn quota(&mut self) -> Option<Statement> {
        self.skip("quota");
        if self.skip("name") {
            self.take()?;
            return Some(Statement::Test(Condition::Unknown("a named quota".to_owned())));
        }
        let over = self.skip("over");
        self.skip("until");
        let all = self.bytes()?;
        let used = if self.skip("used") { self.bytes()? } else { 0 };
        Some(Statement::Test(Condition::Constant((used > all) == over)))
    }

    fn bytes(&mut self) -> Option<u128> {
        let count = self.number()?;
        Some(match self.take()?.word() {
            "bytes" => count,
            "kbytes" => count.checked_shl(10)?,
            "mbytes" => count.checked_shl(20)?,
            "gbytes" => count.checked_shl(30)?,
            _ => return None,
        })
    }

    /// `update @talkers { ip saddr timeout 1m limit rate over 10/second }`
    fn fill(&mut self, statements: &mut Vec<Statement>) -> Option<Statement> {
        self.at += 1;
        let set = self.take()?.word().strip_prefix('@')?.to_owned();
        self.skip("{").then_some(())?;
        self.keys()?;
        loop {
            if self.skip("}") {
                break;
            } else if self.skip_any(&["timeout", "expires"]) {
                self.take()?;
            } else if self.skip(":") {
                // A map's answer.
                while !matches!(self.peek()?, Token::Sign("}")) {
                    self.at += 1;
                }
            } else {
                self.statement(statements)?;
            }
        }
        Some(Statement::Fill(set))
    }

    /// `tcp option maxseg size set rt mtu`; as a test it is not understood.
    fn tcp_option(&mut self, statements: &mut Vec<Statement>) -> Option<()> {
        let start = self.at;
        self.at += 2;
        while let Some(token) = self.take() {
            match token.word() {
                "set" => {
                    if self.take()?.word() == "rt" {
                        self.take()?;
                    }
                    return Some(());
                }
                "maxseg" | "size" => {}
                _ => break,
            }
        }
        self.at = self.tokens.len();
        statements.push(Statement::Unknown(self.rest(start)));
        Some(())
    }

    /// A verdict, as a statement or as a map's answer.
    fn verdict(&mut self) -> Option<Verdict> {
        Some(match self.take()?.word() {
            "accept" => Verdict::Accept,
            "drop" => Verdict::Drop,
            "return" => Verdict::Return,
            "continue" => Verdict::Continue,
            "jump" => Verdict::Jump(self.scope.target(self.take()?.text()?)),
            "goto" => Verdict::Goto(self.scope.target(self.take()?.text()?)),
            "reject" => {
                if self.skip("with") {
                    if self.skip("tcp") {
                        self.skip("reset").then_some(())?;
                    } else {
                        self.take()?;
                        self.skip("type");
                        self.take()?;
                    }
                }
                Verdict::Reject
            }
            "queue" => self.queue()?,
            _ => return None,
        })
    }

    /// `queue flags bypass,fanout to 1-3`, and of older versions `queue num 1-3 bypass,fanout`.
    fn queue(&mut self) -> Option<Verdict> {
        let (mut number, mut bypass) = (0, false);
        loop {
            match self.peek_word() {
                "bypass" => {
                    bypass = true;
                    self.at += 1;
                }
                "flags" | "fanout" => self.at += 1,
                "num" | "to" => {
                    self.at += 1;
                    let numbers = self.take()?.word();
                    number = numbers.split('-').next()?.parse().ok()?;
                }
                _ if self.skip(",") => {}
                _ => return Some(Verdict::Queue { number, bypass }),
            }
        }
    }
}
