//! Filters in SQL92, as RocketMQ defines it: a condition over a message's properties.
//!
//! An expression is parsed once, when a client subscribes, and evaluated on the property bytes of stored records, in place: no
//! map is built and nothing allocated per message. Which sentences are taken and what they mean was compared with RocketMQ's own
//! classes (`sql/rocketmq.tsv` is what they answered). Like there, what follows a complete condition is passed over:
//! `a = 1 b = 2` means `a = 1`.

mod evaluate;
mod expression;
mod number;
mod parse;
mod token;

use expression::Expression;
pub use parse::Refused;
use protocol::properties;

/// The values of so many properties need no allocation.
const FEW: usize = 8;

/// One compiled expression. Immutable; shared by every pull of a group.
#[derive(Clone, Debug)]
pub struct SqlFilter {
    text: Box<str>,
    condition: Expression,
    /// The properties it asks for, by number.
    names: Box<[Box<str>]>,
    passes_over: bool,
}

impl SqlFilter {
    pub fn compile(text: &str) -> Result<Self, Refused> {
        let parsed = parse::parse(text)?;
        Ok(Self {
            text: Box::from(text),
            condition: parsed.condition,
            names: parsed.names.into_boxed_slice(),
            passes_over: parsed.passes_over,
        })
    }

    /// Whether a message with these properties is wanted. An unknown outcome (NULL) means no, and so does a comparison that
    /// makes no sense, of a word with a number: the rest of the condition cannot save it.
    pub fn accepts(&self, properties: &[u8]) -> bool {
        if self.names.len() <= FEW {
            let mut values = [None; FEW];
            return self.accepts_with(properties, &mut values[..self.names.len()]);
        }
        self.accepts_with(properties, &mut vec![None; self.names.len()])
    }

    /// `values` are filled with one walk over the properties: of two with one name the last counts.
    fn accepts_with<'p>(&self, properties: &'p [u8], values: &mut [Option<&'p [u8]>]) -> bool {
        for (name, value) in properties::iter(properties) {
            let number = self.names.iter().position(|known| known.as_bytes() == name);
            if let Some(number) = number {
                values[number] = Some(value);
            }
        }
        evaluate::is_true(&self.condition, values)
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a part of the text means nothing, which its author may not know.
    pub fn passes_over_a_rest(&self) -> bool {
        self.passes_over
    }
}

impl PartialEq for SqlFilter {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for SqlFilter {}

#[cfg(test)]
mod tests;
