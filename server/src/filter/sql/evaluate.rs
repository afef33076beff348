//! A condition over the properties of one message, in place: their values by the numbers that the condition has for them.
//!
//! Conditions are true, false or unknown. Properties are strings; next to a number they are read as one, and if they are
//! none the message is not wanted, whatever else the condition says.

use std::cmp::Ordering;

use super::expression::{Constant, Expression, Relation};
use super::number;

/// Lists of so many words are walked, longer ones searched.
const WALKED_MAX: usize = 8;

/// Two values without an order between them met.
struct Incomparable;

type Outcome<T> = Result<T, Incomparable>;

#[derive(Clone, Copy, Debug)]
enum Value<'v> {
    Null,
    Bool(bool),
    Int(i32),
    Long(i64),
    Double(f64),
    Text(&'v [u8]),
}

pub fn is_true(condition: &Expression, properties: &[Option<&[u8]>]) -> bool {
    matches!(truth(condition, properties), Ok(Some(true)))
}

/// None: unknown. What is no condition is none either; the parser lets no such thing come here.
fn truth(condition: &Expression, properties: &[Option<&[u8]>]) -> Outcome<Option<bool>> {
    Ok(match condition {
        Expression::And(all) => until(false, all, properties)?,
        Expression::Or(any) => until(true, any, properties)?,
        Expression::Not(condition) => truth(condition, properties)?.map(|truth| !truth),
        Expression::Compare(relation, left, right) => {
            return related(*relation, left, right, properties);
        }
        Expression::Equal(left, right) => {
            equal(value(left, properties)?, value(right, properties)?)?
        }
        Expression::In {
            property,
            among,
            negated,
        } => properties[*property].map(|text| is_among(among, text) != *negated),
        Expression::IsNull(of) => Some(matches!(value(of, properties)?, Value::Null)),
        Expression::Holds { of, part, negated } => {
            let found = match value(of, properties)? {
                Value::Text(text) => part.is_in(text),
                _ => None,
            };
            Some(found.is_some_and(|found| found != *negated))
        }
        Expression::AsCondition(of) => match value(of, properties)? {
            Value::Null => None,
            _ => Some(false),
        },
        Expression::Constant(Constant::Bool(truth)) => Some(*truth),
        Expression::Constant(_) | Expression::Property(_) | Expression::Negate(_) => None,
    })
}

fn value<'v>(expression: &'v Expression, properties: &[Option<&'v [u8]>]) -> Outcome<Value<'v>> {
    Ok(match expression {
        Expression::Constant(constant) => of_constant(constant),
        Expression::Property(number) => properties[*number].map_or(Value::Null, Value::Text),
        Expression::Negate(number) => match value(number, properties)? {
            Value::Int(number) => Value::Int(number.wrapping_neg()),
            Value::Long(number) => Value::Long(number.wrapping_neg()),
            Value::Double(number) => Value::Double(-number),
            _ => Value::Null,
        },
        condition => truth(condition, properties)?.map_or(Value::Null, Value::Bool),
    })
}

fn related(
    relation: Relation,
    left: &Expression,
    right: &Expression,
    properties: &[Option<&[u8]>],
) -> Outcome<Option<bool>> {
    // What most conditions are made of, without a detour over values of any kind.
    if let (Expression::Property(property), Expression::Constant(Constant::Int(bound))) =
        (left, right)
    {
        let Some(text) = properties[*property] else {
            return Ok(None);
        };
        return Ok(Some(relation.holds(Some(whole::<i32>(text)?.cmp(bound)))));
    }
    let left = value(left, properties)?;
    if matches!(left, Value::Null) {
        return Ok(None);
    }
    let right = value(right, properties)?;
    if matches!(right, Value::Null) {
        return Ok(None);
    }
    Ok(Some(relation.holds(order(left, right)?)))
}

fn is_among(words: &[Box<[u8]>], text: &[u8]) -> bool {
    if words.len() > WALKED_MAX {
        return words.binary_search_by(|word| (**word).cmp(text)).is_ok();
    }
    words.iter().any(|word| **word == *text)
}

/// `decisive` as soon as one of the conditions is that; unknown if one of the others is.
fn until(decisive: bool, of: &[Expression], properties: &[Option<&[u8]>]) -> Outcome<Option<bool>> {
    let mut outcome = Some(!decisive);
    for condition in of {
        match truth(condition, properties)? {
            Some(truth) if truth == decisive => return Ok(Some(decisive)),
            Some(_) => {}
            None => outcome = None,
        }
    }
    Ok(outcome)
}

fn of_constant(constant: &Constant) -> Value<'_> {
    match constant {
        Constant::Null => Value::Null,
        Constant::Bool(truth) => Value::Bool(*truth),
        Constant::Int(number) => Value::Int(*number),
        Constant::Long(number) => Value::Long(*number),
        Constant::Double(number) => Value::Double(*number),
        Constant::Text(text) => Value::Text(text.as_bytes()),
    }
}

/// Two properties that are both missing are equal; one that is missing on the left is unknown, on the right unequal.
fn equal(left: Value<'_>, right: Value<'_>) -> Outcome<Option<bool>> {
    Ok(match (left, right) {
        (Value::Null, Value::Null) => Some(true),
        (Value::Null, _) => None,
        (_, Value::Null) => Some(false),
        (Value::Text(left), Value::Text(right)) => Some(left == right),
        _ => Some(compare(left, right)? == Some(Ordering::Equal)),
    })
}

/// For greater and less: two texts have to be numbers.
fn order(left: Value<'_>, right: Value<'_>) -> Outcome<Option<Ordering>> {
    match (left, right) {
        (Value::Text(left), Value::Text(right)) => {
            Ok(Some(order_of_fractions(fraction(left)?, fraction(right)?)))
        }
        _ => compare(left, right),
    }
}

/// None: they are of kinds that are never equal.
fn compare(left: Value<'_>, right: Value<'_>) -> Outcome<Option<Ordering>> {
    use Value::{Bool, Double, Int, Long, Text};
    let ordering = match (left, right) {
        (Int(left), Int(right)) => left.cmp(&right),
        (Int(left), Long(right)) => i64::from(left).cmp(&right),
        (Long(left), Int(right)) => left.cmp(&i64::from(right)),
        (Long(left), Long(right)) => left.cmp(&right),
        (Double(left), Double(right)) => order_of_fractions(left, right),
        (Double(left), Int(right)) => order_of_fractions(left, f64::from(right)),
        (Int(left), Double(right)) => order_of_fractions(f64::from(left), right),
        (Double(left), Long(right)) => order_of_fractions(left, right as f64),
        (Long(left), Double(right)) => order_of_fractions(left as f64, right),
        (Text(left), Int(right)) => whole::<i32>(left)?.cmp(&right),
        (Int(left), Text(right)) => left.cmp(&whole(right)?),
        (Text(left), Long(right)) => whole::<i64>(left)?.cmp(&right),
        (Long(left), Text(right)) => left.cmp(&whole(right)?),
        (Text(left), Double(right)) => order_of_fractions(fraction(left)?, right),
        (Double(left), Text(right)) => order_of_fractions(left, fraction(right)?),
        (Text(left), Bool(right)) => left.eq_ignore_ascii_case(b"true").cmp(&right),
        (Bool(left), Bool(right)) => left.cmp(&right),
        // RocketMQ stumbles over this one, and passes the message over.
        (Bool(_), Text(_)) => return Err(Incomparable),
        _ => return Ok(None),
    };
    Ok(Some(ordering))
}

fn whole<T: TryFrom<i64>>(text: &[u8]) -> Outcome<T> {
    number::whole(text).ok_or(Incomparable)
}

fn fraction(text: &[u8]) -> Outcome<f64> {
    number::fraction(text).ok_or(Incomparable)
}

/// Java's order: NaN is equal to itself and above all, and zero is above minus zero.
fn order_of_fractions(left: f64, right: f64) -> Ordering {
    let nan_above = |number: f64| {
        if number.is_nan() {
            f64::NAN.abs()
        } else {
            number
        }
    };
    nan_above(left).total_cmp(&nan_above(right))
}

impl Relation {
    fn holds(self, ordering: Option<Ordering>) -> bool {
        // Values of kinds without an order count as less.
        let ordering = ordering.unwrap_or(Ordering::Less);
        match self {
            Self::Less => ordering.is_lt(),
            Self::AtMost => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::AtLeast => ordering.is_ge(),
        }
    }
}
