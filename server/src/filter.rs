//! Which messages of a queue a consumer wants.

pub mod sql;
pub mod tags;

use engine::Accept;
use protocol::body::heartbeat::{EXPRESSION_SQL92, EXPRESSION_TAG, SubscriptionData};
use protocol::record::View;

use sql::SqlFilter;
use tags::TagFilter;

/// One subscription's filter. Immutable; shared by every pull of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    Tags(TagFilter),
    Sql(SqlFilter),
    /// A heartbeat said something that means nothing: its consumers get no messages, but an answer that says so.
    Broken,
}

impl Filter {
    /// As a heartbeat says it.
    pub fn of_subscription(subscription: &SubscriptionData) -> Self {
        if !subscription.is_tag() {
            let (kind, text) = (&subscription.expression_type, &subscription.sub_string);
            return Self::compile(kind, text).unwrap_or_else(|why| {
                tracing::warn!(
                    topic = subscription.topic,
                    expression = text,
                    why,
                    "a filter that means nothing"
                );
                Self::Broken
            });
        }
        // Clients send the hashes of their tags along; those of other languages may not.
        Self::Tags(match subscription.code_set.is_empty() {
            true => TagFilter::from_expression(&subscription.sub_string),
            false => TagFilter::from_hashes(subscription.code_set.iter().copied()),
        })
    }

    /// From an expression of a kind, `TAG` if that is empty; or why it is none.
    pub fn compile(kind: &str, expression: &str) -> Result<Self, String> {
        match kind {
            "" | EXPRESSION_TAG => Ok(Self::Tags(TagFilter::from_expression(expression))),
            EXPRESSION_SQL92 => {
                let filter = SqlFilter::compile(expression).map_err(|why| why.to_string())?;
                if filter.passes_over_a_rest() {
                    tracing::warn!(
                        expression,
                        "a part of this filter means nothing and is passed over, as in RocketMQ"
                    );
                }
                Ok(Self::Sql(filter))
            }
            kind => Err(format!("there are no filters of type {kind}")),
        }
    }

    pub fn is_by_tags(&self) -> bool {
        matches!(self, Self::Tags(_))
    }
}

impl Accept for &Filter {
    #[inline]
    fn by_hash(&mut self, tag_hash: i32) -> bool {
        match self {
            Filter::Tags(tags) => tags.accepts(tag_hash),
            Filter::Sql(_) => true,
            Filter::Broken => false,
        }
    }

    #[inline]
    fn looks_at_records(&self) -> bool {
        matches!(self, Filter::Sql(_))
    }

    fn by_record(&mut self, record: &[u8]) -> bool {
        match self {
            Filter::Sql(sql) => {
                View::properties_of(record).is_some_and(|properties| sql.accepts(properties))
            }
            Filter::Tags(_) | Filter::Broken => true,
        }
    }
}
