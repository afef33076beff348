//! What the properties of a message being sent say to the broker, found in one pass, and what the broker makes of them.

use protocol::properties::{self, tag_hash};

use crate::delay::wish::Wish;
use crate::shard::sends::UniqueKey;
use crate::transaction;

/// Set by the broker on POP consumption; a message sent anew must not carry an old one.
const POP_CHECKPOINT: &str = "POP_CK";
const TIMED: [&str; 3] = [
    properties::TIMER_DELAY_SEC,
    properties::TIMER_DELAY_MS,
    properties::TIMER_DELIVER_MS,
];

/// What a message's properties say to the broker.
#[derive(Debug, Default)]
pub struct Facts {
    pub tag_hash: i32,
    pub unique_key: Option<UniqueKey>,
    pub delay_level: i32,
    /// Half of a transaction.
    pub prepared: bool,
    /// A delivery time of its own, rather than a level's delay.
    pub wish: Wish,
    /// Names a timed message that is not to be delivered.
    pub withdraws: bool,
    /// Its sender is to be told before the disk has it.
    pub no_wait: bool,
    /// Counts inner messages, which only a batch stored whole may do.
    pub inner_count: bool,
    /// Holds names that the broker sets or drops.
    has_reserved: bool,
}

impl Facts {
    pub fn read(sent: &[u8]) -> Self {
        let mut facts = Self::default();
        for (name, value) in properties::iter(sent) {
            facts.take(name, value);
        }
        facts
    }

    fn take(&mut self, name: &[u8], value: &[u8]) {
        let is = |known: &str| name == known.as_bytes();
        if is(properties::UNIQ_KEY) {
            self.unique_key = Some(UniqueKey::new(value));
        } else if is(properties::TAGS) {
            self.tag_hash = hash_of(value);
        } else if is(properties::DELAY) {
            self.delay_level = number(value);
            self.has_reserved = true;
        } else if is(properties::TRAN_MSG) {
            self.prepared = value.eq_ignore_ascii_case(b"true");
        } else if self.wish.take(name, value) {
            self.has_reserved = true;
        } else if is(properties::TIMER_DEL_UNIQKEY) {
            self.withdraws = true;
        } else if is(properties::WAIT) {
            self.no_wait = !value.eq_ignore_ascii_case(b"true");
        } else if is(properties::INNER_NUM) {
            self.inner_count = true;
        } else {
            self.has_reserved |= is(properties::CLUSTER)
                || is(properties::REAL_TOPIC)
                || is(properties::REAL_QID)
                || is(POP_CHECKPOINT)
                || transaction::HALF_PROPERTIES.iter().any(|known| is(known));
        }
    }
}

/// The hash under which a message's tags stand in the queue index; 0 for none.
pub fn tag_hash_of(sent: &[u8]) -> i32 {
    properties::get(sent, properties::TAGS).map_or(0, hash_of)
}

fn hash_of(tags: &[u8]) -> i32 {
    tag_hash(&String::from_utf8_lossy(tags))
}

fn number(value: &[u8]) -> i32 {
    let text = std::str::from_utf8(value).unwrap_or_default();
    text.parse().unwrap_or(0)
}

/// What the broker writes into a message's properties.
#[derive(Debug)]
pub struct Additions<'a> {
    pub cluster: &'a str,
    /// For a message that came without one.
    pub unique_key: Option<&'a [u8]>,
    /// Where a delayed message or a half message really goes.
    pub real: Option<(&'a str, u32)>,
    /// Of a half message. It keeps what it says of its delivery: that counts once it is committed.
    pub transaction_id: Option<&'a [u8]>,
    /// Of a message with a delivery time of its own.
    pub due_ms: Option<i64>,
    /// A message that ends in a dead-letter topic is not delayed any more.
    pub dead: bool,
}

/// Turns the properties as sent into those that are stored.
pub fn complete(stored: &mut Vec<u8>, facts: &Facts, add: &Additions<'_>) {
    if facts.has_reserved {
        drop_reserved(stored, add);
    }
    if let Some(key) = add.unique_key {
        properties::append(stored, 0, properties::UNIQ_KEY, key);
    }
    if add.dead {
        properties::append(stored, 0, properties::DELAY, b"-1");
    }
    properties::append(stored, 0, properties::CLUSTER, add.cluster.as_bytes());
    if let Some(id) = add.transaction_id {
        properties::append(stored, 0, properties::TRANSACTION_ID, id);
    }
    if let Some(due_ms) = add.due_ms {
        let due_ms = due_ms.to_string();
        properties::append(stored, 0, properties::TIMER_OUT_MS, due_ms.as_bytes());
    }
    if let Some((topic, queue_id)) = add.real {
        properties::append(stored, 0, properties::REAL_TOPIC, topic.as_bytes());
        let mut digits = [0; 10];
        let queue_id = decimal(queue_id, &mut digits);
        properties::append(stored, 0, properties::REAL_QID, queue_id);
    }
}

#[cold]
fn drop_reserved(stored: &mut Vec<u8>, add: &Additions<'_>) {
    let mut unwanted = vec![POP_CHECKPOINT, properties::CLUSTER];
    if add.real.is_some() {
        unwanted.extend([properties::REAL_TOPIC, properties::REAL_QID]);
    }
    if add.transaction_id.is_some() {
        unwanted.push(properties::TRANSACTION_ID);
        unwanted.extend(transaction::HALF_PROPERTIES);
    } else if add.real.is_some() && add.due_ms.is_none() {
        // The level wins over a delivery time.
        unwanted.extend(TIMED);
    }
    if add.dead {
        unwanted.push(properties::DELAY);
    }
    let mut kept = Vec::with_capacity(stored.len());
    properties::append_without(&mut kept, stored, &unwanted);
    *stored = kept;
}

fn decimal(mut number: u32, digits: &mut [u8; 10]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: &[u8] = b"UNIQ_KEY\x01A1\x02WAIT\x01true\x02TAGS\x01TagA\x02DELAY\x013";

    fn completed(sent: &[u8], add: &Additions<'_>) -> String {
        let mut stored = sent.to_vec();
        complete(&mut stored, &Facts::read(sent), add);
        String::from_utf8(stored).expect("text")
    }

    fn plain() -> Additions<'static> {
        Additions {
            cluster: "c",
            unique_key: None,
            real: None,
            transaction_id: None,
            due_ms: None,
            dead: false,
        }
    }

    #[test]
    fn what_concerns_the_broker_is_found_in_one_pass() {
        let facts = Facts::read(SENT);
        let key = facts.unique_key.as_ref().map(UniqueKey::as_bytes);
        assert_eq!(key, Some(&b"A1"[..]));
        assert_eq!(facts.tag_hash, tag_hash("TagA"));
        assert_eq!(facts.delay_level, 3);
        assert!(!facts.prepared && !facts.wish.is_any());
    }

    #[test]
    fn broken_pairs_say_nothing() {
        let facts =
            Facts::read(b"\x02\x01x\x02TAGS\x01\x02DELAY\x02DELAY\x01x\x02TRAN_MSG\x01TRUE");
        assert!(facts.prepared);
        assert_eq!((facts.tag_hash, facts.delay_level), (0, 0));
    }

    #[test]
    fn a_plain_message_is_kept_as_sent_and_gets_the_cluster_s_name() {
        assert_eq!(
            completed(b"a\x01b\x02TAGS\x01t", &plain()),
            "a\x01b\x02TAGS\x01t\x02CLUSTER\x01c\x02"
        );
    }

    #[test]
    fn the_broker_s_own_names_are_not_taken_from_the_sender() {
        let sent = b"CLUSTER\x01other\x02POP_CK\x01x\x02REAL_TOPIC\x01t\x02";
        assert_eq!(
            completed(sent, &plain()),
            "REAL_TOPIC\x01t\x02CLUSTER\x01c\x02"
        );
    }

    #[test]
    fn a_delayed_message_remembers_where_it_really_goes() {
        let add = Additions {
            real: Some(("topic", 4_294_967_295)),
            ..plain()
        };
        let sent = b"DELAY\x013\x02REAL_TOPIC\x01old\x02TIMER_DELAY_MS\x015\x02";
        assert_eq!(
            completed(sent, &add),
            "DELAY\x013\x02CLUSTER\x01c\x02REAL_TOPIC\x01topic\x02REAL_QID\x014294967295\x02"
        );
    }

    #[test]
    fn a_half_message_starts_anew_and_keeps_its_delivery_time() {
        let add = Additions {
            real: Some(("topic", 1)),
            transaction_id: Some(b"ID"),
            ..plain()
        };
        let sent = b"TRAN_MSG\x01true\x02TRANSACTION_CHECK_TIMES\x013\x02TIMER_DELAY_MS\x015\x02";
        assert_eq!(
            completed(sent, &add),
            "TRAN_MSG\x01true\x02TIMER_DELAY_MS\x015\x02CLUSTER\x01c\x02__transactionId__\x01ID\x02\
             REAL_TOPIC\x01topic\x02REAL_QID\x011\x02"
        );
    }

    #[test]
    fn a_dead_letter_is_not_delayed() {
        let add = Additions {
            dead: true,
            ..plain()
        };
        assert_eq!(
            completed(b"DELAY\x015\x02", &add),
            "DELAY\x01-1\x02CLUSTER\x01c\x02"
        );
    }
}
