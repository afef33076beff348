//! What a consumer wants of a topic: everything, some tags, or what an SQL92 condition over the properties selects.

use protocol::body::heartbeat::{EXPRESSION_SQL92, SUB_ALL, SubscriptionData};

/// A selection of a topic's messages.
///
/// ```
/// use orbitmq_client::Filter;
///
/// let everything = Filter::all();
/// let some = Filter::tags("paid || sent");
/// let few = Filter::sql("price BETWEEN 10 AND 20 AND region = 'eu'");
/// // A string is an expression over tags.
/// assert_eq!(Filter::from("*"), everything);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    expression: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tags,
    Sql,
}

impl Filter {
    pub fn all() -> Filter {
        Filter::tags(SUB_ALL)
    }

    /// `*` for everything, or tags separated by `||`.
    pub fn tags(expression: impl Into<String>) -> Filter {
        Filter {
            expression: expression.into(),
            kind: Kind::Tags,
        }
    }

    /// A condition in RocketMQ's SQL92 over the properties of a message. Its grammar is checked by the broker when the
    /// consumer starts; the broker must have `enablePropertyFilter=true`.
    pub fn sql(condition: impl Into<String>) -> Filter {
        Filter {
            expression: condition.into(),
            kind: Kind::Sql,
        }
    }

    pub(crate) fn is_sql(&self) -> bool {
        self.kind == Kind::Sql
    }

    pub(crate) fn subscription(&self, topic: &str, version_ms: i64) -> SubscriptionData {
        match self.kind {
            Kind::Tags => SubscriptionData::by_tags(topic, &self.expression, version_ms),
            Kind::Sql => SubscriptionData {
                expression_type: EXPRESSION_SQL92.to_owned(),
                sub_string: self.expression.clone(),
                sub_version: version_ms,
                topic: topic.to_owned(),
                ..SubscriptionData::default()
            },
        }
    }
}

impl<T: Into<String>> From<T> for Filter {
    fn from(tags: T) -> Filter {
        Filter::tags(tags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_travels_as_it_was_written() {
        let subscription = Filter::sql("a > 1").subscription("t", 7);
        assert_eq!(subscription.expression_type, "SQL92");
        assert_eq!(subscription.sub_string, "a > 1");
        assert!(subscription.tags_set.is_empty() && !subscription.is_tag());
    }

    #[test]
    fn tags_travel_with_their_hashes() {
        let subscription = Filter::from("a || b").subscription("t", 7);
        assert_eq!(subscription.tags_set, ["a", "b"]);
        assert_eq!(subscription.code_set, [97, 98]);
    }
}
