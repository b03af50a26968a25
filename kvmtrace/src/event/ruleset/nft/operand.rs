//! Tests of nft: what is compared with what.

use super::super::elements::{Elements, Range};
use super::super::key::Key;
use super::super::rule::{Condition, Expression, Operand, Statement, Verdict};
use super::super::value::{self, Kind};
use super::Parser;
use super::token::Token;
use std::sync::Arc;

/// How values are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    /// No sign stands there: for flags one of them, else equality.
    Implicit,
    Equal,
    NotEqual,
    /// None of the flags (`!`).
    NoneOf,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Parser<'_> {
    /// `ip saddr . tcp dport`
    pub(super) fn keys(&mut self) -> Option<Vec<Key>> {
        let mut keys = vec![self.selector()?];
        while self.skip(".") {
            keys.push(self.selector()?);
        }
        Some(keys)
    }

    /// A test, or `KEY set VALUE`.
    pub(super) fn test_or_change(&mut self, statements: &mut Vec<Statement>) -> Option<()> {
        let start = self.at;
        let keys = self.keys()?;
        if self.skip("set") {
            let [key] = keys.as_slice() else { return None };
            statements.extend(self.change(key)?);
            return Some(());
        }
        let kinds: Vec<Kind> = keys.iter().map(Key::kind).collect();
        let mut expressions: Vec<Expression> = keys.into_iter().map(|key| Expression { key, mask: None }).collect();
        if let ([expression], [kind]) = (expressions.as_mut_slice(), kinds.as_slice())
            && (self.skip("&") || self.skip("and"))
        {
            expression.mask = Some(self.bits(*kind)?);
        }
        if self.skip("vmap") {
            statements.push(self.verdict_map(expressions, &kinds)?);
            return Some(());
        }
        let operator = self.operator();
        if kinds.contains(&Kind::Text) {
            self.skip_value()?;
            statements.push(Statement::Test(Condition::Unknown(self.text_between(start))));
            return Some(());
        }
        statements.push(Statement::Test(self.comparison(expressions, &kinds, operator)?));
        Some(())
    }

    fn operator(&mut self) -> Operator {
        let operator = match self.peek() {
            Some(Token::Sign("==")) => Operator::Equal,
            Some(Token::Sign("!=")) => Operator::NotEqual,
            Some(Token::Sign("!")) => Operator::NoneOf,
            Some(Token::Sign("<")) => Operator::Less,
            Some(Token::Sign("<=")) => Operator::LessOrEqual,
            Some(Token::Sign(">")) => Operator::Greater,
            Some(Token::Sign(">=")) => Operator::GreaterOrEqual,
            _ => return Operator::Implicit,
        };
        self.at += 1;
        operator
    }

    fn comparison(&mut self, mut keys: Vec<Expression>, kinds: &[Kind], operator: Operator) -> Option<Condition> {
        let negated = operator == Operator::NotEqual;
        if let Some(name) = self.peek_word().strip_prefix('@') {
            self.at += 1;
            let set = Operand::Named(name.to_owned(), self.scope.set(name, kinds));
            return Some(Condition::Is { keys, negated, set });
        }
        if self.skip("{") {
            let mut elements = Vec::new();
            while !self.skip("}") {
                elements.push((self.element(kinds)?, ()));
                self.skip(",");
            }
            let set = match kinds {
                [_] if elements.len() <= 8 => {
                    Operand::Ranges(elements.into_iter().filter_map(|(element, ())| element.first().copied()).collect())
                }
                _ => Operand::Set(Arc::new(Elements::new(elements, true))),
            };
            return Some(Condition::Is { keys, negated, set });
        }
        let [kind] = kinds else {
            let element = self.element(kinds)?;
            let set = Operand::Set(Arc::new(Elements::new([(element, ())], true)));
            return Some(Condition::Is { keys, negated, set });
        };
        let is = |keys, negated, range| Some(Condition::Is { keys, negated, set: Operand::Ranges(vec![range]) });
        if kind.is_flags() {
            let first = self.flags(*kind)?;
            let masked = keys.first().is_some_and(|key| key.mask.is_some());
            // `syn / fin,syn`: of these bits only that one.
            if self.skip("/") {
                let mask = self.flags(*kind)?;
                set_mask(&mut keys, mask);
                return is(keys, negated, Range::one(first));
            }
            return match operator {
                Operator::Equal | Operator::NotEqual => is(keys, negated, Range::one(first)),
                Operator::Implicit if masked => is(keys, false, Range::one(first)),
                Operator::Implicit | Operator::NoneOf => {
                    set_mask(&mut keys, first);
                    is(keys, operator == Operator::Implicit, Range::one(0))
                }
                Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual => None,
            };
        }
        // `exists`: a look into the routing table found something.
        if *kind == Kind::RouteDevice && self.skip("exists") {
            return is(keys, !negated, Range::one(0));
        }
        let range = kind.range(self.take()?.text()?)?;
        let Range { low, high } = range;
        let range = match operator {
            Operator::Implicit | Operator::Equal | Operator::NotEqual => range,
            Operator::Less => Range { low: 0, high: low.checked_sub(1)? },
            Operator::LessOrEqual => Range { low: 0, high },
            Operator::Greater => Range { low: high.checked_add(1)?, high: kind.full() },
            Operator::GreaterOrEqual => Range { low, high: kind.full() },
            Operator::NoneOf => return None,
        };
        is(keys, negated, range)
    }

    /// An element of a set in braces; what it says of time and counts is passed over.
    fn element(&mut self, kinds: &[Kind]) -> Option<Vec<Range>> {
        let mut element = Vec::with_capacity(kinds.len());
        for (number, kind) in kinds.iter().enumerate() {
            if number > 0 {
                self.skip(".").then_some(())?;
            }
            element.push(if kind.is_flags() {
                Range::one(self.flags_by(*kind, "|")?)
            } else {
                kind.range(self.take()?.text()?)?
            });
        }
        loop {
            if self.skip_any(&["timeout", "expires", "comment"]) {
                self.take()?;
            } else if self.skip("counter") {
                self.skip("packets").then_some(())?;
                self.at += 1;
                self.skip("bytes").then(|| self.at += 1)?;
            } else {
                return Some(element);
            }
        }
    }

    /// `vmap { established : accept, … }` or `vmap @ways`
    fn verdict_map(&mut self, keys: Vec<Expression>, kinds: &[Kind]) -> Option<Statement> {
        let token = self.take()?;
        if let Some(name) = token.word().strip_prefix('@') {
            let map = self.scope.verdict_map(name, kinds);
            return map.map(|map| Statement::Map(keys, map));
        }
        (token == Token::Sign("{")).then_some(())?;
        let mut elements = Vec::new();
        while !self.skip("}") {
            let element = self.element(kinds)?;
            self.skip(":").then_some(())?;
            elements.push((element, self.verdict()?));
            self.skip(",");
        }
        Some(Statement::Map(keys, Arc::new(Elements::<Verdict>::new(elements, true))))
    }

    /// The pairs of a map in braces; the answers are left as text.
    pub(super) fn pairs(&mut self, kinds: &[Kind]) -> Option<Vec<(Vec<Range>, String)>> {
        let mut pairs = Vec::new();
        while !self.skip("}") {
            let element = self.element(kinds)?;
            self.skip(":").then_some(())?;
            let mut answer = Vec::new();
            while !matches!(self.peek()?, Token::Sign("," | "}")) {
                answer.push(self.take()?.text()?);
            }
            pairs.push((element, answer.join(" ")));
            self.skip(",");
        }
        Some(pairs)
    }

    /// Bits of a mask: a number, an address, or flags in parentheses.
    pub(super) fn bits(&mut self, kind: Kind) -> Option<u128> {
        if self.skip("(") {
            let bits = self.flags(kind)?;
            return self.skip(")").then_some(bits);
        }
        let text = self.take()?.text()?;
        kind.value(text).or_else(|| value::number(text))
    }

    /// `fin,syn` or `fin | syn`
    fn flags(&mut self, kind: Kind) -> Option<u128> {
        let parenthesis = self.skip("(");
        let mut bits = kind.value(self.take()?.text()?)?;
        while self.skip(",") || self.skip("|") {
            bits |= kind.value(self.take()?.text()?)?;
        }
        if parenthesis && !self.skip(")") {
            return None;
        }
        Some(bits)
    }

    /// Flags with this sign between them.
    fn flags_by(&mut self, kind: Kind, sign: &str) -> Option<u128> {
        let mut bits = kind.value(self.take()?.text()?)?;
        while self.skip(sign) {
            bits |= kind.value(self.take()?.text()?)?;
        }
        Some(bits)
    }

    /// Passes over the value of a test that is not understood.
    fn skip_value(&mut self) -> Option<()> {
        if self.skip("{") {
            while self.take()? != Token::Sign("}") {}
            return Some(());
        }
        self.take()?.text()?;
        while self.skip(",") || self.peek_word().starts_with('-') {
            if self.peek_word().starts_with('-') {
                self.at += 1;
                // `"08:00"-"17:00"`
                if matches!(self.peek(), Some(Token::Quoted(_))) {
                    self.at += 1;
                }
            } else {
                self.take()?;
            }
        }
        Some(())
    }

    fn text_between(&self, from: usize) -> String {
        let all = self.rest(from);
        let behind = self.rest(self.at);
        all.strip_suffix(&behind).unwrap_or(&all).trim_end().to_owned()
    }
}

fn set_mask(keys: &mut [Expression], mask: u128) {
    for key in keys {
        key.mask = Some(mask);
    }
}
