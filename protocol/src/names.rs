//! Names and sizes: what a topic, a group, a message may be called and how long it may be.

/// A topic a client names.
pub const TOPIC_CHARS_MAX: usize = 127;
/// A group, so that its retry topic still fits.
pub const GROUP_CHARS_MAX: usize = 120;
/// A topic the broker derives from a group.
pub const DERIVED_TOPIC_CHARS_MAX: usize = 255;
/// The encoded properties of one message.
pub const PROPERTIES_BYTES_MAX: usize = i16::MAX as usize;
/// The default limit of one body, on both sides (`maxMessageSize`).
pub const BODY_BYTES_MAX_DEFAULT: usize = 4 * 1024 * 1024;

pub const RETRY_PREFIX: &str = "%RETRY%";
pub const DLQ_PREFIX: &str = "%DLQ%";
pub const LMQ_PREFIX: &str = "%LMQ%";
pub const SYSTEM_TOPIC_PREFIX: &str = "rmq_sys_";
pub const SYSTEM_GROUP_PREFIX: &str = "CID_RMQ_SYS_";
/// Its offsets say how far half messages and the marks on them are done.
pub const TRANS_GROUP: &str = "CID_RMQ_SYS_TRANS";
/// Behind a cluster's name: the topic of request-reply.
pub const REPLY_TOPIC_SUFFIX: &str = "_REPLY_TOPIC";

/// The topic whose settings automatically created ones take over.
pub const AUTO_CREATE_TOPIC: &str = "TBW102";
pub const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
/// Messages that are due at a time of their own, named by their property `TIMER_OUT_MS`.
pub const TIMER_TOPIC: &str = "rmq_sys_wheel_timer";
pub const BENCHMARK_TOPIC: &str = "BenchmarkTest";
pub const TRANS_HALF_TOPIC: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
pub const TRANS_OP_HALF_TOPIC: &str = "RMQ_SYS_TRANS_OP_HALF_TOPIC";
pub const TRANS_CHECK_MAX_TIME_TOPIC: &str = "TRANS_CHECK_MAX_TIME_TOPIC";
pub const TRACE_TOPIC: &str = "RMQ_SYS_TRACE_TOPIC";
pub const SELF_TEST_TOPIC: &str = "SELF_TEST_TOPIC";
pub const OFFSET_MOVED_EVENT: &str = "OFFSET_MOVED_EVENT";
pub const CHECKPOINT_TOPIC: &str = "CHECKPOINT_TOPIC";

/// Topics that belong to the system whatever they hold.
pub const SYSTEM_TOPICS: [&str; 10] = [
    AUTO_CREATE_TOPIC,
    SCHEDULE_TOPIC,
    BENCHMARK_TOPIC,
    TRANS_HALF_TOPIC,
    TRACE_TOPIC,
    TRANS_OP_HALF_TOPIC,
    TRANS_CHECK_MAX_TIME_TOPIC,
    SELF_TEST_TOPIC,
    OFFSET_MOVED_EVENT,
    CHECKPOINT_TOPIC,
];

/// System topics no client may send to.
pub const CLOSED_TOPICS: [&str; 6] = [
    SCHEDULE_TOPIC,
    TRANS_HALF_TOPIC,
    TRANS_OP_HALF_TOPIC,
    TRANS_CHECK_MAX_TIME_TOPIC,
    SELF_TEST_TOPIC,
    OFFSET_MOVED_EVENT,
];

/// Groups every broker has.
pub const SYSTEM_GROUPS: [&str; 13] = [
    "DEFAULT_CONSUMER",
    "DEFAULT_PRODUCER",
    "TOOLS_CONSUMER",
    "SCHEDULE_CONSUMER",
    "FILTERSRV_CONSUMER",
    "__MONITOR_CONSUMER",
    "CLIENT_INNER_PRODUCER",
    "SELF_TEST_P_GROUP",
    "SELF_TEST_C_GROUP",
    "CID_ONS-HTTP-PROXY",
    "CID_ONSAPI_PERMISSION",
    "CID_ONSAPI_OWNER",
    "CID_ONSAPI_PULL",
];

/// Why a name is refused. `Display` is the remark of the answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("The specified {kind} is blank.")]
    Blank { kind: &'static str },
    #[error(
        "The specified {kind}: {name}, contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$"
    )]
    Characters { kind: &'static str, name: String },
    #[error("The specified {kind}: {name}, is longer than {kind} max length: {chars_max}")]
    TooLong {
        kind: &'static str,
        name: String,
        chars_max: usize,
    },
}

/// A topic as the broker accepts it.
pub fn validate_topic(topic: &str) -> Result<(), NameError> {
    let derived = topic.starts_with(RETRY_PREFIX) || topic.starts_with(DLQ_PREFIX);
    let chars_max = if derived {
        DERIVED_TOPIC_CHARS_MAX
    } else {
        TOPIC_CHARS_MAX
    };
    validate("topic", topic, chars_max)
}

/// A group as the broker accepts it.
pub fn validate_group(group: &str) -> Result<(), NameError> {
    validate("group", group, GROUP_CHARS_MAX)
}

fn validate(kind: &'static str, name: &str, chars_max: usize) -> Result<(), NameError> {
    if name.trim().is_empty() {
        return Err(NameError::Blank { kind });
    }
    if !name.bytes().all(is_name_byte) {
        let name = shown(name);
        return Err(NameError::Characters { kind, name });
    }
    if name.len() > chars_max {
        let name = shown(name);
        return Err(NameError::TooLong {
            kind,
            name,
            chars_max,
        });
    }
    Ok(())
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'%' | b'|' | b'-' | b'_')
}

/// A name as far as an answer repeats it: a refused one may be megabytes long.
fn shown(name: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 300;
    name.chars().take(SHOWN_CHARS_MAX).collect()
}

pub fn is_system_topic(topic: &str) -> bool {
    SYSTEM_TOPICS.contains(&topic) || topic.starts_with(SYSTEM_TOPIC_PREFIX)
}

/// Whether clients must not send to it.
pub fn is_closed_topic(topic: &str) -> bool {
    CLOSED_TOPICS.contains(&topic)
}

pub fn is_system_group(group: &str) -> bool {
    SYSTEM_GROUPS.contains(&group) || group.starts_with(SYSTEM_GROUP_PREFIX)
}

pub fn is_retry_topic(topic: &str) -> bool {
    topic.starts_with(RETRY_PREFIX)
}

pub fn is_dlq_topic(topic: &str) -> bool {
    topic.starts_with(DLQ_PREFIX)
}

pub fn retry_topic(group: &str) -> String {
    [RETRY_PREFIX, group].concat()
}

pub fn dlq_topic(group: &str) -> String {
    [DLQ_PREFIX, group].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_accepted_up_to_the_limit_and_not_beyond() {
        let name = |chars: usize| "a".repeat(chars);
        assert!(validate_topic(&name(127)).is_ok());
        assert!(matches!(
            validate_topic(&name(128)),
            Err(NameError::TooLong { chars_max: 127, .. })
        ));
        assert!(validate_group(&name(120)).is_ok() && validate_group(&name(121)).is_err());
        assert!(validate_topic(&format!("%RETRY%{}", name(248))).is_ok());
        assert!(validate_topic(&format!("%DLQ%{}", name(251))).is_err());
    }

    #[test]
    fn only_the_allowed_characters_pass() {
        assert!(validate_topic("aZ09_-%|").is_ok());
        for wrong in ["", "  ", "a b", "a.b", "a/b", "ä", "a\u{1}", "a@b"] {
            assert!(validate_topic(wrong).is_err(), "{wrong:?}");
        }
        let remark = validate_topic("a.b").unwrap_err().to_string();
        assert!(remark.contains("a.b") && remark.contains("^[%|a-zA-Z0-9_-]+$"));
    }

    #[test]
    fn a_refused_name_is_repeated_only_in_part() {
        let remark = validate_topic(&".".repeat(1 << 20))
            .unwrap_err()
            .to_string();
        assert!(remark.len() < 500);
    }

    #[test]
    fn system_topics_are_known_and_some_are_closed() {
        assert!(is_system_topic("TBW102") && !is_closed_topic("TBW102"));
        assert!(is_system_topic("rmq_sys_wheel_timer"));
        assert!(is_closed_topic(SCHEDULE_TOPIC));
        assert!(!is_system_topic("orders"));
        assert_eq!(dlq_topic("g"), "%DLQ%g");
        assert_eq!(retry_topic("g"), "%RETRY%g");
    }
}
