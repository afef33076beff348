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

/// One compiled expression. Immutable; shared by every pull of a group.
#[derive(Clone, Debug)]
pub struct SqlFilter {
    text: Box<str>,
    condition: Expression,
    passes_over: bool,
}

impl SqlFilter {
    pub fn compile(text: &str) -> Result<Self, Refused> {
        let parsed = parse::parse(text)?;
        Ok(Self {
            text: Box::from(text),
            condition: parsed.condition,
            passes_over: parsed.passes_over,
        })
    }

    /// Whether a message with these properties is wanted. An unknown outcome (NULL) means no, and so does a comparison that
    /// makes no sense, of a word with a number: the rest of the condition cannot save it.
    pub fn accepts(&self, properties: &[u8]) -> bool {
        evaluate::is_true(&self.condition, properties)
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
