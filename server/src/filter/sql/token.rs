//! The words of an SQL92 condition. Names and words of the language know no difference between large and small letters; names
//! keep theirs.

use memchr::memchr;
use winnow::Parser;
use winnow::Result;
use winnow::ascii::{digit0, digit1};
use winnow::combinator::{alt, fail, opt, repeat};
use winnow::token::{one_of, take_till, take_until, take_while};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Token<'t> {
    Not,
    And,
    Or,
    Between,
    In,
    True,
    False,
    Null,
    Is,
    Contains,
    StartsWith,
    EndsWith,
    Equal,
    NotEqual,
    Greater,
    AtLeast,
    Less,
    AtMost,
    Open,
    Comma,
    Close,
    Plus,
    Minus,
    /// With the letter that may follow it.
    Whole(&'t str),
    Fraction(&'t str),
    /// With its quotes.
    Text(&'t str),
    Name(&'t str),
}

const WORDS: [(&str, Token<'static>); 12] = [
    ("NOT", Token::Not),
    ("AND", Token::And),
    ("OR", Token::Or),
    ("BETWEEN", Token::Between),
    ("IN", Token::In),
    ("TRUE", Token::True),
    ("FALSE", Token::False),
    ("NULL", Token::Null),
    ("IS", Token::Is),
    ("CONTAINS", Token::Contains),
    ("STARTSWITH", Token::StartsWith),
    ("ENDSWITH", Token::EndsWith),
];

/// Takes blanks and comments away, then the next word; none at the end of the text.
pub fn next<'t>(rest: &mut &'t str) -> Result<Option<Token<'t>>> {
    repeat::<_, _, (), _, _>(0.., blank).parse_next(rest)?;
    if rest.is_empty() {
        return Ok(None);
    }
    alt((fraction, whole, text, word, relation, sign))
        .map(Some)
        .parse_next(rest)
}

/// A comment to the end of its line needs that end: without one it is two signs.
fn blank(rest: &mut &str) -> Result<()> {
    let to_line_end = ("--", take_till(0.., ['\n', '\r']), one_of(['\n', '\r']));
    let between = ("/*", take_until(0.., "*/"), "*/");
    alt((
        one_of([' ', '\t', '\n', '\r', '\x0c']).void(),
        to_line_end.void(),
        between.void(),
    ))
    .parse_next(rest)
}

fn fraction<'t>(rest: &mut &'t str) -> Result<Token<'t>> {
    alt((
        (digit1, '.', digit0, opt(exponent)).void(),
        ('.', digit1, opt(exponent)).void(),
        (digit1, exponent).void(),
    ))
    .take()
    .map(Token::Fraction)
    .parse_next(rest)
}

fn exponent(rest: &mut &str) -> Result<()> {
    (one_of(['e', 'E']), opt(one_of(['+', '-'])), digit1)
        .void()
        .parse_next(rest)
}

/// A zero in front is a number of its own.
fn whole<'t>(rest: &mut &'t str) -> Result<Token<'t>> {
    let without_zero = (one_of('1'..='9'), digit0, opt(one_of(['l', 'L'])));
    alt(('0'.void(), without_zero.void()))
        .take()
        .map(Token::Whole)
        .parse_next(rest)
}

/// Two quotes within stand for one. If no end follows the last two, the first of them was the end.
fn text<'t>(rest: &mut &'t str) -> Result<Token<'t>> {
    let letters = rest.as_bytes();
    let mut from = 1;
    let mut end = 0;
    while letters[0] == b'\''
        && let Some(quote) = memchr(b'\'', letters.get(from..).unwrap_or_default())
    {
        end = from + quote + 1;
        if letters.get(end) != Some(&b'\'') {
            break;
        }
        from = end + 1;
    }
    if end == 0 {
        return fail(rest);
    }
    let (quoted, behind) = rest.split_at(end);
    *rest = behind;
    Ok(Token::Text(quoted))
}

fn word<'t>(rest: &mut &'t str) -> Result<Token<'t>> {
    let letter = |letter: char| letter.is_ascii_alphabetic() || "_$".contains(letter);
    let further = move |next: char| letter(next) || next.is_ascii_digit();
    let word = (one_of(letter), take_while(0.., further)).take();
    word.map(|word: &str| {
        let known = WORDS
            .iter()
            .find(|(name, _)| word.eq_ignore_ascii_case(name));
        known.map_or(Token::Name(word), |(_, token)| *token)
    })
    .parse_next(rest)
}

fn relation<'t>(rest: &mut &'t str) -> Result<Token<'t>> {
    alt((
        "<>".value(Token::NotEqual),
        ">=".value(Token::AtLeast),
        "<=".value(Token::AtMost),
        ">".value(Token::Greater),
        "<".value(Token::Less),
        "=".value(Token::Equal),
    ))
    .parse_next(rest)
}

fn sign<'t>(rest: &mut &'t str) -> Result<Token<'t>> {
    alt((
        "(".value(Token::Open),
        ",".value(Token::Comma),
        ")".value(Token::Close),
        "+".value(Token::Plus),
        "-".value(Token::Minus),
    ))
    .parse_next(rest)
}
