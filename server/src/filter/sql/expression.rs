//! The tree an SQL92 condition becomes, and what may be put together.
//!
//! RocketMQ refuses some combinations when they are written, others only meet when a message is looked at; both lists are kept.

use memchr::memmem::Finder;

/// Depth is bounded by the parser: it is walked recursively.
#[derive(Clone, Debug)]
pub enum Expression {
    Constant(Constant),
    /// A property of the message, by its number among those the condition names.
    Property(usize),
    Negate(Box<Self>),
    Not(Box<Self>),
    /// A property where a condition was expected: never true, since properties are strings.
    AsCondition(Box<Self>),
    And(Vec<Self>),
    Or(Vec<Self>),
    Equal(Box<Self>, Box<Self>),
    IsNull(Box<Self>),
    Compare(Relation, Box<Self>, Box<Self>),
    In {
        property: usize,
        /// Sorted.
        among: Box<[Box<[u8]>]>,
        negated: bool,
    },
    Holds {
        of: Box<Self>,
        part: Part,
        negated: bool,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Constant {
    Null,
    Bool(bool),
    Int(i32),
    Long(i64),
    Double(f64),
    Text(Box<str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    Less,
    AtMost,
    Greater,
    AtLeast,
}

/// What a text is searched for. An empty word is found nowhere, and missed nowhere either.
#[derive(Clone, Debug)]
pub enum Part {
    Anywhere(Box<Finder<'static>>),
    Start(Box<str>),
    End(Box<str>),
    Empty,
}

impl Expression {
    pub fn equal(left: Self, right: Self) -> Result<Self, &'static str> {
        let is_null = |side: &Self| matches!(side, Self::Constant(Constant::Null));
        if is_null(&left) || is_null(&right) {
            return Err("NULL cannot be compared, ask IS NULL");
        }
        if let (Self::Constant(Constant::Bool(_)), Self::Constant(other)) = (&left, &right)
            && !matches!(other, Constant::Bool(_))
        {
            return Err("TRUE and FALSE cannot be compared with other constants");
        }
        Ok(Self::Equal(Box::new(left), Box::new(right)))
    }

    pub fn compare(relation: Relation, left: Self, right: Self) -> Result<Self, &'static str> {
        for side in [&left, &right] {
            let has_order = match side {
                Self::Constant(constant) => constant.is_number(),
                other => !other.is_condition(),
            };
            if !has_order {
                return Err("only numbers and properties can be greater or less");
            }
        }
        Ok(Self::Compare(relation, Box::new(left), Box::new(right)))
    }

    pub fn between(value: Self, low: Self, high: Self) -> Result<Self, &'static str> {
        if let (Self::Constant(low), Self::Constant(high)) = (&low, &high)
            && low.is_number()
            && high.is_number()
            && low.as_f64_or_i64_exceeds(high)
        {
            return Err("the lower bound of BETWEEN is above the upper one");
        }
        let from = Self::compare(Relation::AtLeast, value.clone(), low)?;
        let to = Self::compare(Relation::AtMost, value, high)?;
        Ok(Self::And(vec![from, to]))
    }

    pub fn not_between(value: Self, low: Self, high: Self) -> Result<Self, &'static str> {
        let below = Self::compare(Relation::Less, value.clone(), low)?;
        let above = Self::compare(Relation::Greater, value, high)?;
        Ok(Self::Or(vec![below, above]))
    }

    pub fn is_in(value: Self, among: Vec<String>, negated: bool) -> Result<Self, &'static str> {
        let Self::Property(property) = value else {
            return Err("only a property can be IN a list");
        };
        let mut among: Vec<Box<[u8]>> = among
            .into_iter()
            .map(|word| word.into_bytes().into_boxed_slice())
            .collect();
        among.sort_unstable();
        Ok(Self::In {
            property,
            among: among.into_boxed_slice(),
            negated,
        })
    }

    pub fn into_condition(self) -> Result<Self, &'static str> {
        match self {
            Self::Property(_) => Ok(Self::AsCondition(Box::new(self))),
            condition if condition.is_condition() => Ok(condition),
            _ => Err("a condition is expected, not a value"),
        }
    }

    /// Whether it is true, false or unknown by its form, whatever the message.
    fn is_condition(&self) -> bool {
        match self {
            Self::Property(_) | Self::Negate(_) => false,
            Self::Constant(constant) => matches!(constant, Constant::Null | Constant::Bool(_)),
            _ => true,
        }
    }
}

impl Constant {
    fn is_number(&self) -> bool {
        matches!(self, Self::Int(_) | Self::Long(_) | Self::Double(_))
    }

    /// Of two numbers.
    fn as_f64_or_i64_exceeds(&self, other: &Self) -> bool {
        let whole = |constant: &Self| match constant {
            Self::Int(number) => Some(i64::from(*number)),
            Self::Long(number) => Some(*number),
            _ => None,
        };
        let rounded = |constant: &Self| match constant {
            Self::Double(number) => *number,
            other => whole(other).map_or(f64::NAN, |number| number as f64),
        };
        match (whole(self), whole(other)) {
            (Some(mine), Some(others)) => mine > others,
            _ => rounded(self) > rounded(other),
        }
    }
}

impl Part {
    pub fn anywhere(word: &str) -> Self {
        match word {
            "" => Self::Empty,
            word => Self::Anywhere(Box::new(Finder::new(word).into_owned())),
        }
    }

    pub fn start(word: &str) -> Self {
        match word {
            "" => Self::Empty,
            word => Self::Start(Box::from(word)),
        }
    }

    pub fn end(word: &str) -> Self {
        match word {
            "" => Self::Empty,
            word => Self::End(Box::from(word)),
        }
    }

    /// None: there is nothing to search for.
    pub fn is_in(&self, text: &[u8]) -> Option<bool> {
        match self {
            Self::Anywhere(finder) => Some(finder.find(text).is_some()),
            Self::Start(word) => Some(text.starts_with(word.as_bytes())),
            Self::End(word) => Some(text.ends_with(word.as_bytes())),
            Self::Empty => None,
        }
    }
}
