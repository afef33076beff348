//! The free settings of a topic (5.x): which there are, and how a request changes them.

use protocol::body::topic_config::Attributes;

/// Name and allowed values; none listed means any number.
const KNOWN: &[(&str, &[&str])] = &[
    ("queue.type", &["BatchCQ", "SimpleCQ"]),
    ("cleanup.policy", &["DELETE", "COMPACTION"]),
    (
        "message.type",
        &[
            "UNSPECIFIED",
            "NORMAL",
            "FIFO",
            "DELAY",
            "TRANSACTION",
            "MIXED",
        ],
    ),
    ("reserve.time", &[]),
];
pub const MESSAGE_TYPE: &str = "message.type";

/// `now` changed by `+key=value,-key`; the problem as a sentence if that is not possible.
pub fn change(now: &Attributes, changes: &str, is_new: bool) -> Result<Attributes, String> {
    let mut attributes = now.clone();
    let changes = changes.split(',').map(str::trim).filter(|c| !c.is_empty());
    for change in changes {
        if let Some(added) = change.strip_prefix('+') {
            let (key, value) = added
                .split_once('=')
                .ok_or_else(|| format!("attribute {added} has no value"))?;
            check(key, value)?;
            attributes.insert(key.to_owned(), value.to_owned());
        } else if let Some(key) = change.strip_prefix('-') {
            if is_new {
                return Err(format!(
                    "only add attribute is supported while creating topic. key: {key}"
                ));
            }
            if attributes.remove(key).is_none() {
                return Err(format!("attempt to delete a nonexistent key: {key}"));
            }
        } else {
            return Err(format!(
                "attribute {change} must start with + (set) or - (remove)"
            ));
        }
    }
    Ok(attributes)
}

fn check(key: &str, value: &str) -> Result<(), String> {
    let (_, allowed) = KNOWN
        .iter()
        .find(|(known, _)| *known == key)
        .ok_or_else(|| format!("unsupported key: {key}"))?;
    let fine = if allowed.is_empty() {
        value.parse::<u64>().is_ok()
    } else {
        allowed.contains(&value)
    };
    if fine {
        Ok(())
    } else {
        Err(format!("value is not in set or range: {key}={value}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_set_and_removed() {
        let set = change(
            &Attributes::new(),
            "+message.type=FIFO,+reserve.time=60",
            true,
        )
        .expect("known");
        assert_eq!(set["message.type"], "FIFO");
        let less = change(&set, "-reserve.time", false).expect("there");
        assert_eq!(less.len(), 1);
        assert_eq!(change(&set, "", false).expect("nothing"), set);
    }

    #[test]
    fn what_is_unknown_or_out_of_range_is_refused() {
        let none = Attributes::new();
        for bad in [
            "+color=red",
            "+message.type=SLOW",
            "+message.type",
            "message.type=FIFO",
            "-message.type",
            "+reserve.time=soon",
        ] {
            assert!(change(&none, bad, false).is_err(), "{bad}");
        }
    }
}
