//! Tags compared by hash, as the queue index keeps them. Two tags may share a hash: the client compares the words.

use protocol::properties::tag_hash;

/// The tags one subscription asks for. Immutable; shared by every pull of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagFilter {
    All,
    /// Sorted, without duplicates.
    Hashes(Box<[i32]>),
}

impl TagFilter {
    /// From `a || b || c`; empty and `*` ask for everything.
    pub fn from_expression(expression: &str) -> Self {
        let trimmed = expression.trim();
        if trimmed.is_empty() || trimmed == "*" {
            return Self::All;
        }
        let words = expression.split("||").map(str::trim);
        Self::from_hashes(words.filter(|word| !word.is_empty()).map(tag_hash))
    }

    /// From the `codeSet` of a heartbeat. An empty set asks for everything, as in RocketMQ.
    pub fn from_hashes(hashes: impl IntoIterator<Item = i32>) -> Self {
        let mut hashes: Vec<i32> = hashes.into_iter().collect();
        if hashes.is_empty() {
            return Self::All;
        }
        hashes.sort_unstable();
        hashes.dedup();
        Self::Hashes(hashes.into_boxed_slice())
    }

    pub fn accepts(&self, hash: i32) -> bool {
        match self {
            Self::All => true,
            // A handful in practice: walking beats searching.
            Self::Hashes(hashes) => hashes.contains(&hash),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_and_nothing_take_everything() {
        for expression in ["*", "", "  ", " * "] {
            assert_eq!(TagFilter::from_expression(expression), TagFilter::All);
        }
    }

    #[test]
    fn words_are_trimmed_and_compared_by_hash() {
        let filter = TagFilter::from_expression("TagA ||Aa|| ");
        assert!(filter.accepts(tag_hash("TagA")));
        assert!(filter.accepts(tag_hash("BB")), "Aa and BB share a hash");
        assert!(!filter.accepts(tag_hash("TagB")));
        assert!(!filter.accepts(0), "no tag at all");
    }
}
