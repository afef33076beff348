//! From text to tree: the grammar of RocketMQ's filters, read from left to right with two words of foresight.
//!
//! ```text
//! or         = and { OR and }
//! and        = equality { AND equality }
//! equality   = comparison { "=" comparison | "<>" comparison | IS [NOT] NULL }
//! comparison = unary { (">" | ">=" | "<" | "<=") unary | [NOT] BETWEEN unary AND unary | [NOT] IN "(" text {"," text} ")"
//!                    | [NOT] (CONTAINS | STARTSWITH | ENDSWITH) text }
//! unary      = "+" unary | "-" unary | NOT unary | constant | name | "(" or ")"
//! ```

use super::expression::{Constant, Expression, Part, Relation};
use super::token::{self, Token};

/// Brackets, NOT and signs within each other.
const NESTING_MAX: u32 = 100;
/// Operators that take the outcome of another of their kind, as in `a = b = c`.
const CHAINED_MAX: u32 = 64;

/// Why an expression is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("Invalid MessageSelector. Behind byte {at}: expected {expected}")]
    Expected { at: usize, expected: &'static str },
    #[error("Invalid MessageSelector. Behind byte {at}: no word of the language begins here")]
    NoWord { at: usize },
    #[error("Invalid MessageSelector. Near byte {at}: {why}")]
    Meaningless { at: usize, why: &'static str },
    #[error("Invalid MessageSelector. Nested too deeply")]
    TooDeep,
}

pub struct Parsed {
    pub condition: Expression,
    /// The properties it asks for.
    pub names: Vec<Box<str>>,
    /// Something follows the condition that was not read.
    pub passes_over: bool,
}

pub fn parse(text: &str) -> Result<Parsed, Refused> {
    let mut parser = Parser {
        text,
        rest: text,
        next: None,
        second: None,
        start: 0,
        names: Vec::new(),
        nested: 0,
        chained: 0,
    };
    parser.step()?;
    let condition = parser.or()?;
    Ok(Parsed {
        condition: parser.check(condition.into_condition())?,
        names: parser.names,
        passes_over: parser.next.is_some(),
    })
}

struct Parser<'t> {
    text: &'t str,
    /// Behind the words that were read.
    rest: &'t str,
    /// None: the end of the text.
    next: Option<Token<'t>>,
    /// Read already, behind `next`.
    second: Option<Option<Token<'t>>>,
    /// Where the text in front of the word that was read last ends.
    start: usize,
    names: Vec<Box<str>>,
    nested: u32,
    chained: u32,
}

impl<'t> Parser<'t> {
    fn word(&mut self) -> Result<Option<Token<'t>>, Refused> {
        let before = self.rest.len();
        let word = token::next(&mut self.rest);
        self.start = self.text.len() - before;
        word.map_err(|_| Refused::NoWord { at: self.start })
    }

    fn step(&mut self) -> Result<(), Refused> {
        self.next = match self.second.take() {
            Some(second) => second,
            None => self.word()?,
        };
        Ok(())
    }

    fn second(&mut self) -> Result<Option<Token<'t>>, Refused> {
        match self.second {
            Some(second) => Ok(second),
            None => {
                let second = self.word()?;
                self.second = Some(second);
                Ok(second)
            }
        }
    }

    fn number_of(&mut self, name: &str) -> usize {
        let known = self.names.iter().position(|other| **other == *name);
        known.unwrap_or_else(|| {
            self.names.push(Box::from(name));
            self.names.len() - 1
        })
    }

    fn take(&mut self, wanted: Token<'_>) -> Result<bool, Refused> {
        if self.next != Some(wanted) {
            return Ok(false);
        }
        self.step()?;
        Ok(true)
    }

    fn expect(&mut self, wanted: Token<'_>, name: &'static str) -> Result<(), Refused> {
        match self.take(wanted)? {
            true => Ok(()),
            false => Err(self.expected(name)),
        }
    }

    fn expected(&self, expected: &'static str) -> Refused {
        let at = self.start;
        Refused::Expected { at, expected }
    }

    fn check<T>(&self, made: Result<T, &'static str>) -> Result<T, Refused> {
        let at = self.start;
        made.map_err(|why| Refused::Meaningless { at, why })
    }

    fn or(&mut self) -> Result<Expression, Refused> {
        let first = self.and()?;
        if self.next != Some(Token::Or) {
            return Ok(first);
        }
        let mut any = vec![self.check(first.into_condition())?];
        while self.take(Token::Or)? {
            let next = self.and()?;
            any.push(self.check(next.into_condition())?);
        }
        Ok(Expression::Or(any))
    }

    fn and(&mut self) -> Result<Expression, Refused> {
        let first = self.equality()?;
        if self.next != Some(Token::And) {
            return Ok(first);
        }
        let mut all = vec![self.check(first.into_condition())?];
        while self.take(Token::And)? {
            let next = self.equality()?;
            all.push(self.check(next.into_condition())?);
        }
        Ok(Expression::And(all))
    }

    fn equality(&mut self) -> Result<Expression, Refused> {
        let mut left = self.comparison()?;
        let mut is_first = true;
        while let Some(word @ (Token::Equal | Token::NotEqual | Token::Is)) = self.next {
            self.link(&mut is_first)?;
            self.step()?;
            if word == Token::Is {
                let negated = self.take(Token::Not)?;
                self.expect(Token::Null, "NULL")?;
                left = negated_if(negated, Expression::IsNull(Box::new(left)));
                continue;
            }
            let right = self.comparison()?;
            let equal = self.check(Expression::equal(left, right))?;
            left = negated_if(word == Token::NotEqual, equal);
        }
        Ok(left)
    }

    fn comparison(&mut self) -> Result<Expression, Refused> {
        let mut left = self.unary()?;
        let mut is_first = true;
        while let Some(word) = self.next {
            if let Some(relation) = relation(word) {
                self.link(&mut is_first)?;
                self.step()?;
                let right = self.unary()?;
                left = self.check(Expression::compare(relation, left, right))?;
                continue;
            }
            let negated = word == Token::Not;
            let operator = match negated {
                true => self.second()?,
                false => Some(word),
            };
            if !operator.is_some_and(tests_a_value) {
                return match negated {
                    true => Err(self.expected("an operator after NOT")),
                    false => Ok(left),
                };
            }
            self.link(&mut is_first)?;
            if negated {
                self.step()?;
            }
            left = self.test(left, negated)?;
        }
        Ok(left)
    }

    /// `next` is what `tests_a_value`.
    fn test(&mut self, left: Expression, negated: bool) -> Result<Expression, Refused> {
        let operator = self.next;
        self.step()?;
        match operator {
            Some(Token::Between) => {
                let low = self.unary()?;
                self.expect(Token::And, "AND")?;
                let high = self.unary()?;
                let made = match negated {
                    true => Expression::not_between(left, low, high),
                    false => Expression::between(left, low, high),
                };
                self.check(made)
            }
            Some(Token::In) => {
                self.expect(Token::Open, "(")?;
                let mut among = vec![self.text()?];
                while self.take(Token::Comma)? {
                    among.push(self.text()?);
                }
                self.expect(Token::Close, ")")?;
                self.check(Expression::is_in(left, among, negated))
            }
            other => {
                let word = self.text()?;
                let part = match other {
                    Some(Token::StartsWith) => Part::start(&word),
                    Some(Token::EndsWith) => Part::end(&word),
                    _ => Part::anywhere(&word),
                };
                Ok(Expression::Holds {
                    of: Box::new(left),
                    part,
                    negated,
                })
            }
        }
    }

    fn unary(&mut self) -> Result<Expression, Refused> {
        self.nested += 1;
        if self.nested > NESTING_MAX {
            return Err(Refused::TooDeep);
        }
        let read = self.unary_within();
        self.nested -= 1;
        read
    }

    fn unary_within(&mut self) -> Result<Expression, Refused> {
        let Some(word) = self.next else {
            return Err(self.expected("a value"));
        };
        let constant = match word {
            Token::Plus => {
                self.step()?;
                return self.unary();
            }
            Token::Minus => {
                self.step()?;
                return Ok(Expression::Negate(Box::new(self.unary()?)));
            }
            Token::Not => {
                self.step()?;
                let of = self.unary()?;
                return Ok(negated_if(true, self.check(of.into_condition())?));
            }
            Token::Open => {
                self.step()?;
                let within = self.or()?;
                self.expect(Token::Close, ")")?;
                return Ok(within);
            }
            Token::Name(name) => {
                self.step()?;
                return Ok(Expression::Property(self.number_of(name)));
            }
            Token::Text(_) => Constant::Text(self.text()?.into_boxed_str()),
            other => {
                let constant = self.check(constant(other))?;
                let constant = constant.ok_or_else(|| self.expected("a value"))?;
                self.step()?;
                constant
            }
        };
        Ok(Expression::Constant(constant))
    }

    /// A text without its quotes; two of them within stand for one.
    fn text(&mut self) -> Result<String, Refused> {
        let Some(Token::Text(quoted)) = self.next else {
            return Err(self.expected("a text in quotes"));
        };
        self.step()?;
        Ok(quoted[1..quoted.len() - 1].replace("''", "'"))
    }

    fn link(&mut self, is_first: &mut bool) -> Result<(), Refused> {
        if !std::mem::take(is_first) {
            self.chained += 1;
            if self.chained > CHAINED_MAX {
                return Err(Refused::TooDeep);
            }
        }
        Ok(())
    }
}

fn negated_if(negated: bool, condition: Expression) -> Expression {
    match negated {
        true => Expression::Not(Box::new(condition)),
        false => condition,
    }
}

fn relation(word: Token<'_>) -> Option<Relation> {
    Some(match word {
        Token::Greater => Relation::Greater,
        Token::AtLeast => Relation::AtLeast,
        Token::Less => Relation::Less,
        Token::AtMost => Relation::AtMost,
        _ => return None,
    })
}

fn tests_a_value(word: Token<'_>) -> bool {
    matches!(
        word,
        Token::Between | Token::In | Token::Contains | Token::StartsWith | Token::EndsWith
    )
}

/// None: the word is no constant.
fn constant(word: Token<'_>) -> Result<Option<Constant>, &'static str> {
    Ok(Some(match word {
        Token::True => Constant::Bool(true),
        Token::False => Constant::Bool(false),
        Token::Null => Constant::Null,
        Token::Whole(digits) => {
            let digits = digits.trim_end_matches(['l', 'L']);
            let number: i64 = digits.parse().map_err(|_| "a number beyond 64 bits")?;
            match i32::try_from(number) {
                Ok(number) => Constant::Int(number),
                Err(_) => Constant::Long(number),
            }
        }
        Token::Fraction(digits) => {
            let number: f64 = digits.parse().map_err(|_| "no number")?;
            // Zero is refused too, in this form: RocketMQ takes it for smaller than the smallest number there is.
            if !number.is_finite() || number <= 0.0 {
                return Err("a number too large or too small");
            }
            Constant::Double(number)
        }
        _ => return Ok(None),
    }))
}
