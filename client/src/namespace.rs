//! Namespaces: many tenants on one cluster, each with topics and groups of its own. On the wire a name stands behind
//! its namespace, `tenant%Orders`; the application sees neither.

use protocol::names;

const SEPARATOR: char = '%';

/// Empty: no namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Namespace(pub String);

impl Namespace {
    /// A topic or group as brokers know it. Those of the system belong to everybody.
    pub fn wrap(&self, name: &str) -> String {
        let (prefix, bare) = split(name);
        let system = names::is_system_topic(bare) || names::is_system_group(bare);
        if self.0.is_empty() || system || self.holds(bare) {
            return name.to_owned();
        }
        format!("{prefix}{}{SEPARATOR}{bare}", self.0)
    }

    /// A topic or group as the application knows it.
    pub fn unwrap<'a>(&self, name: &'a str) -> std::borrow::Cow<'a, str> {
        let (prefix, bare) = split(name);
        match bare.strip_prefix(self.0.as_str()) {
            Some(rest) if !self.0.is_empty() && rest.starts_with(SEPARATOR) => {
                [prefix, &rest[SEPARATOR.len_utf8()..]].concat().into()
            }
            _ => name.into(),
        }
    }

    fn holds(&self, bare: &str) -> bool {
        let rest = bare.strip_prefix(self.0.as_str());
        rest.is_some_and(|rest| rest.starts_with(SEPARATOR))
    }
}

/// The mark of a retry or dead-letter topic, and the rest.
fn split(name: &str) -> (&str, &str) {
    for prefix in [names::RETRY_PREFIX, names::DLQ_PREFIX] {
        if let Some(bare) = name.strip_prefix(prefix) {
            return (prefix, bare);
        }
    }
    ("", name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_wrapped_once_and_unwrapped_again() {
        let tenant = Namespace("tenant".into());
        for (bare, wrapped) in [
            ("Orders", "tenant%Orders"),
            ("%RETRY%g", "%RETRY%tenant%g"),
            ("%DLQ%g", "%DLQ%tenant%g"),
            ("TBW102", "TBW102"),
        ] {
            assert_eq!(tenant.wrap(bare), wrapped);
            assert_eq!(tenant.wrap(wrapped), wrapped);
            assert_eq!(tenant.unwrap(wrapped), bare);
        }
        assert_eq!(tenant.unwrap("tenants%Orders"), "tenants%Orders");
    }

    #[test]
    fn without_a_namespace_names_stay_as_they_are() {
        let none = Namespace::default();
        assert_eq!(none.wrap("Orders"), "Orders");
        assert_eq!(none.unwrap("a%Orders"), "a%Orders");
    }
}
