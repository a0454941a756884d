//! Words and signs to a condition: recursive descent, one method per rule of the grammar.

use std::ops::Range;

use super::token::Token;
use super::{Column, Expression, Operand, Value};
use crate::query::lex::bad;
use crate::{Error, Result};

/// Deepest nesting of parentheses and negations.
const DEPTH: usize = 50;

/// Most words and signs; SQLite takes expressions up to a depth of 1000.
const TOKENS: usize = 3000;

/// What is left to be read.
pub(super) struct Reading {
    tokens: Vec<(Token, Range<usize>)>,
    at: usize,
    end: Range<usize>,
    depth: usize,
}

impl Reading {
    /// Reads all of a condition. `span` is its place in the query text.
    pub(super) fn whole(tokens: Vec<(Token, Range<usize>)>, span: &Range<usize>) -> Result<Expression> {
        let mut reading = Reading { tokens, at: 0, end: span.end..span.end, depth: 0 };
        if reading.tokens.is_empty() {
            return Err(bad(span.clone(), "a condition looks like where:\"width > 1024 and NSFW = 'UNLIKELY'\""));
        }
        let expression = reading.any()?;
        match reading.peek() {
            None if reading.tokens.len() > TOKENS => Err(bad(span.clone(), "this condition is too long")),
            None => Ok(expression),
            Some(_) => Err(reading.wrong("and, or, or the end")),
        }
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(token, _)| token)
    }

    fn place(&self) -> Range<usize> {
        self.tokens.get(self.at).map_or(self.end.clone(), |(_, place)| place.clone())
    }

    fn wrong(&self, expected: &str) -> Error {
        let end = self.tokens.last().map_or(self.end.clone(), |(_, place)| place.clone());
        match self.peek() {
            Some(_) => bad(self.place(), format!("expected here: {expected}")),
            None => bad(end, format!("expected after this: {expected}")),
        }
    }

    /// Takes a keyword, in any case.
    fn keyword(&mut self, word: &str) -> bool {
        let there = matches!(self.peek(), Some(Token::Word(found)) if found.eq_ignore_ascii_case(word));
        self.at += usize::from(there);
        there
    }

    fn token(&mut self, token: &Token) -> bool {
        let there = self.peek() == Some(token);
        self.at += usize::from(there);
        there
    }

    fn any(&mut self) -> Result<Expression> {
        self.joined("or", Self::all, Expression::Any)
    }

    fn all(&mut self) -> Result<Expression> {
        self.joined("and", Self::one, Expression::All)
    }

    fn joined(
        &mut self,
        word: &str,
        part: impl Fn(&mut Self) -> Result<Expression>,
        join: impl Fn(Vec<Expression>) -> Expression,
    ) -> Result<Expression> {
        let first = part(self)?;
        let mut parts = vec![first];
        while self.keyword(word) {
            parts.push(part(self)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { join(parts) })
    }

    fn one(&mut self) -> Result<Expression> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(bad(self.place(), format!("nested more than {DEPTH} deep")));
        }
        let read = if self.keyword("not") {
            Expression::Not(Box::new(self.one()?))
        } else if self.token(&Token::Open) {
            let inner = self.any()?;
            if !self.token(&Token::Close) {
                return Err(self.wrong(")"));
            }
            inner
        } else {
            self.test()?
        };
        self.depth -= 1;
        Ok(read)
    }

    fn test(&mut self) -> Result<Expression> {
        let left = self.operand()?;
        if let Some(Token::Compare(comparison)) = self.peek() {
            let comparison = *comparison;
            self.at += 1;
            return Ok(Expression::Compare(left, comparison, self.operand()?));
        }
        let Operand::Column(column) = left else { return Err(self.wrong("a comparison: = != < <= > >=")) };
        if self.keyword("is") {
            let negated = self.keyword("not");
            return match self.keyword("null") {
                true => Ok(negate(Expression::IsNull(column), negated)),
                false => Err(self.wrong("null")),
            };
        }
        let negated = self.keyword("not");
        let test = if self.keyword("in") {
            Expression::In(column, self.list()?)
        } else if self.keyword("like") {
            match self.value()? {
                Value::Text(pattern) => Expression::Like(column, pattern),
                _ => return Err(bad(self.tokens[self.at - 1].1.clone(), "a pattern stands in 'single quotes'")),
            }
        } else if self.keyword("between") {
            let low = self.value()?;
            if !self.keyword("and") {
                return Err(self.wrong("and"));
            }
            Expression::Between(column, low, self.value()?)
        } else {
            return Err(self.wrong("= != < <= > >= in, like, between or is null"));
        };
        Ok(negate(test, negated))
    }

    fn operand(&mut self) -> Result<Operand> {
        let span = self.place();
        let name = match self.peek() {
            Some(Token::Name(name)) => name.clone(),
            Some(Token::Word(word)) if !is_reserved(word) && !is_truth(word) => word.clone(),
            _ => return self.value().map(Operand::Value),
        };
        self.at += 1;
        Ok(Operand::Column(Column { name, span }))
    }

    fn value(&mut self) -> Result<Value> {
        let value = match self.peek() {
            Some(Token::Value(value)) => value.clone(),
            Some(Token::Word(word)) if is_truth(word) => Value::Integer(word.eq_ignore_ascii_case("true").into()),
            Some(Token::Word(word)) if !is_reserved(word) => {
                return Err(bad(self.place(), format!("a text stands in single quotes: '{word}'")));
            }
            _ => return Err(self.wrong("a column or a value")),
        };
        self.at += 1;
        Ok(value)
    }

    fn list(&mut self) -> Result<Vec<Value>> {
        if !self.token(&Token::Open) {
            return Err(self.wrong("("));
        }
        let mut values = vec![self.value()?];
        while self.token(&Token::Comma) {
            values.push(self.value()?);
        }
        if self.token(&Token::Close) { Ok(values) } else { Err(self.wrong(", or )")) }
    }
}

fn negate(expression: Expression, negated: bool) -> Expression {
    if negated { Expression::Not(Box::new(expression)) } else { expression }
}

fn is_reserved(word: &str) -> bool {
    ["and", "or", "not", "in", "like", "between", "is", "null"].iter().any(|other| word.eq_ignore_ascii_case(other))
}

fn is_truth(word: &str) -> bool {
    word.eq_ignore_ascii_case("true") || word.eq_ignore_ascii_case("false")
}
