//! From words to the expression: operators and parentheses. What stands between them is [`super::primitive`]'s.

use super::primitive::Qualifiers;
use super::token::{Token, tokens};
use super::{Expression, FilterError};

/// Parentheses and negations within each other.
const DEPTH: usize = 64;

/// What is left to read, and what was said last.
pub(super) struct Parser {
    tokens: std::vec::IntoIter<Token>,
    /// The qualifiers that a bare identifier takes up: `port 80 or 443`.
    pub(super) last: Option<Qualifiers>,
    depth: usize,
}

/// Understands a filter; `None` when it says nothing.
pub(super) fn parse(text: &str) -> Result<Option<Expression>, FilterError> {
    let mut parser = Parser { tokens: tokens(text)?.into_iter(), last: None, depth: 0 };
    if parser.peek().is_none() {
        return Ok(None);
    }
    let expression = parser.expression()?;
    match parser.next() {
        None => Ok(Some(expression)),
        Some(token) => Err(FilterError::Expected { expected: "and, or, or the end", found: token.to_string() }),
    }
}

impl Parser {
    pub(super) fn peek(&self) -> Option<&Token> {
        self.tokens.as_slice().first()
    }

    pub(super) fn peek_second(&self) -> Option<&Token> {
        self.tokens.as_slice().get(1)
    }

    pub(super) fn next(&mut self) -> Option<Token> {
        self.tokens.next()
    }

    /// The next word, if a word is next.
    pub(super) fn peek_word(&self) -> Option<&str> {
        match self.peek() {
            Some(Token::Word(word)) => Some(word),
            _ => None,
        }
    }

    /// `and` and `or` bind equally, from left to right.
    pub(super) fn expression(&mut self) -> Result<Expression, FilterError> {
        let mut left = self.operand()?;
        loop {
            left = match self.peek() {
                Some(Token::And) => {
                    self.next();
                    left.and(self.operand()?)
                }
                Some(Token::Or) => {
                    self.next();
                    left.or(self.operand()?)
                }
                _ => return Ok(left),
            };
        }
    }

    fn operand(&mut self) -> Result<Expression, FilterError> {
        match self.next() {
            Some(Token::Not) => self.deeper(|parser| Ok(Expression::Not(Box::new(parser.operand()?)))),
            Some(Token::Open) => self.group(),
            Some(Token::Word(word)) => self.primitive(word),
            other => Err(expected("a test like \"host 10.0.0.5\"", other.as_ref())),
        }
    }

    /// What stands between parentheses, after the opening one.
    pub(super) fn group(&mut self) -> Result<Expression, FilterError> {
        let inner = self.deeper(Self::expression)?;
        match self.next() {
            Some(Token::Close) => Ok(inner),
            other => Err(expected("\")\"", other.as_ref())),
        }
    }

    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, FilterError>) -> Result<T, FilterError> {
        if self.depth == DEPTH {
            return Err(FilterError::TooDeep(DEPTH));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }
}

pub(super) fn expected(expected: &'static str, found: Option<&Token>) -> FilterError {
    FilterError::Expected { expected, found: found.map_or_else(|| "the end".to_owned(), Token::to_string) }
}
