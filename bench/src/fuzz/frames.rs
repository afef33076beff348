//! The unbroken requests that mutations start from: for every request code that a broker or a name server takes, the
//! fields and the body that a real client sends. They touch only topics, groups and brokers made for the purpose.

use crate::record;
use crate::wire::request;

pub const TOPIC: &str = "orbit-bench-fuzz";
pub const QUEUES: u32 = 4;
pub const GROUP: &str = "orbit-bench-fuzz-group";
const BROKER: &str = "orbit-bench-fuzz-broker";
const CLUSTER: &str = "orbit-bench-fuzz-cluster";
/// Not there: a send to a topic that a mutation has renamed must not create it, or memory would rightly grow.
const NO_DEFAULT_TOPIC: &str = "orbit-bench-fuzz-none";

/// Values that mutations leave alone most of the time; else the servers would collect rubbish under new names.
pub const PROTECTED: [&str; 4] = [TOPIC, GROUP, BROKER, CLUSTER];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Broker,
    NameServer,
}

#[derive(Clone, Debug)]
pub struct Frame {
    pub code: i32,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

fn frame(code: i32, fields: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Frame {
    Frame {
        code,
        fields: fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        body: body.into(),
    }
}

pub fn of(role: Role) -> Vec<Frame> {
    match role {
        Role::Broker => [sends(), pulls(), membership(), offsets(), others()].concat(),
        Role::NameServer => name_server(),
    }
}

fn sends() -> Vec<Frame> {
    let properties = "KEYS\u{1}k\u{2}UNIQ_KEY\u{1}0B17000000000F220000000000000001\u{2}TAGS\u{1}a\u{2}WAIT\u{1}true\u{2}";
    let long = [
        ("producerGroup", GROUP),
        ("topic", TOPIC),
        ("defaultTopic", NO_DEFAULT_TOPIC),
        ("defaultTopicQueueNums", "4"),
        ("queueId", "1"),
        ("sysFlag", "0"),
        ("bornTimestamp", "1700000000000"),
        ("flag", "0"),
        ("properties", properties),
        ("reconsumeTimes", "0"),
        ("unitMode", "false"),
        ("batch", "false"),
    ];
    let short = |batch| {
        [
            ("a", GROUP),
            ("b", TOPIC),
            ("c", NO_DEFAULT_TOPIC),
            ("d", "4"),
            ("e", "2"),
            ("f", "0"),
            ("g", "1700000000000"),
            ("h", "0"),
            ("i", properties),
            ("j", "0"),
            ("k", "false"),
            ("m", batch),
        ]
    };
    let batch =
        record::batch([&b"one"[..], b"two", b"three"].map(|body| (body, "TAGS\u{1}a\u{2}")));
    let send_back = [
        ("offset", "0"),
        ("group", GROUP),
        ("delayLevel", "3"),
        ("originMsgId", "7F00000100002A9F0000000000000000"),
        ("originTopic", TOPIC),
        ("unitMode", "false"),
        ("maxReconsumeTimes", "16"),
    ];
    vec![
        frame(10, &long, "body of a message"),
        frame(
            request::SEND_MESSAGE_V2,
            &short("false"),
            "body of a message",
        ),
        frame(request::SEND_MESSAGE_V2, &short("false"), vec![b'x'; 600]),
        frame(request::SEND_BATCH_MESSAGE, &short("true"), batch),
        frame(36, &send_back, ""),
    ]
}

fn pulls() -> Vec<Frame> {
    let pull = [
        ("consumerGroup", GROUP),
        ("topic", TOPIC),
        ("queueId", "0"),
        ("queueOffset", "0"),
        ("maxMsgNums", "2"),
        ("sysFlag", "6"),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", "100"),
        ("subscription", "a || b"),
        ("subVersion", "1700000000000"),
        ("expressionType", "TAG"),
    ];
    vec![
        frame(request::PULL_MESSAGE, &pull, ""),
        frame(361, &pull, ""),
        frame(
            12,
            &[
                ("topic", TOPIC),
                ("key", "k"),
                ("maxNum", "8"),
                ("beginTimestamp", "0"),
                ("endTimestamp", "1800000000000"),
            ],
            "",
        ),
        frame(33, &[("offset", "0")], ""),
    ]
}

fn membership() -> Vec<Frame> {
    let heartbeat = format!(
        r#"{{"clientID":"127.0.0.1@fuzz","consumerDataSet":[{{"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","consumeType":"CONSUME_PASSIVELY","groupName":"{GROUP}","messageModel":"CLUSTERING","subscriptionDataSet":[{{"classFilterMode":false,"codeSet":[97],"expressionType":"TAG","subString":"a","subVersion":1700000000000,"tagsSet":["a"],"topic":"{TOPIC}"}}],"unitMode":false}}],"heartbeatFingerprint":0,"producerDataSet":[{{"groupName":"{GROUP}"}}],"withoutSub":false}}"#
    );
    let queues = format!(
        r#"{{"clientId":"127.0.0.1@fuzz","consumerGroup":"{GROUP}","mqSet":[{{"brokerName":"{BROKER}","queueId":0,"topic":"{TOPIC}"}}]}}"#
    );
    let client = [
        ("clientID", "127.0.0.1@fuzz"),
        ("consumerGroup", GROUP),
        ("producerGroup", GROUP),
    ];
    vec![
        frame(34, &[], heartbeat),
        frame(35, &client, ""),
        frame(38, &[("consumerGroup", GROUP)], ""),
        frame(41, &[], queues.clone()),
        frame(42, &[], queues),
        frame(
            46,
            &[],
            r#"{"clientId":"127.0.0.1@fuzz","group":"g","subscriptionData":null}"#,
        ),
    ]
}

fn offsets() -> Vec<Frame> {
    let queue = [("topic", TOPIC), ("queueId", "0"), ("committed", "true")];
    let group = [
        ("consumerGroup", GROUP),
        ("topic", TOPIC),
        ("queueId", "0"),
        ("commitOffset", "1"),
    ];
    vec![
        frame(14, &group, ""),
        frame(15, &group, ""),
        frame(request::GET_MAX_OFFSET, &queue, ""),
        frame(request::GET_MIN_OFFSET, &queue, ""),
        frame(32, &queue, ""),
        frame(
            29,
            &[
                ("topic", TOPIC),
                ("queueId", "0"),
                ("timestamp", "1700000000000"),
                ("boundaryType", "LOWER"),
            ],
            "",
        ),
    ]
}

fn others() -> Vec<Frame> {
    let topic = [
        ("topic", TOPIC),
        ("defaultTopic", NO_DEFAULT_TOPIC),
        ("readQueueNums", "4"),
        ("writeQueueNums", "4"),
        ("perm", "6"),
        ("topicFilterType", "SINGLE_TAG"),
        ("topicSysFlag", "0"),
        ("order", "false"),
    ];
    let end = [
        ("producerGroup", GROUP),
        ("tranStateTableOffset", "0"),
        ("commitLogOffset", "0"),
        ("commitOrRollback", "8"),
        ("fromTransactionCheck", "false"),
        ("msgId", "7F00000100002A9F0000000000000000"),
    ];
    vec![
        frame(request::UPDATE_AND_CREATE_TOPIC, &topic, ""),
        frame(21, &[], ""),
        frame(26, &[], ""),
        frame(28, &[], ""),
        frame(37, &end, ""),
        frame(203, &[("consumerGroup", GROUP)], ""),
        frame(999_999, &[("topic", TOPIC)], "no such request"),
    ]
}

fn name_server() -> Vec<Frame> {
    let broker = [
        ("brokerName", BROKER),
        ("brokerAddr", "127.0.0.1:1"),
        ("clusterName", CLUSTER),
        ("haServerAddr", "127.0.0.1:2"),
        ("brokerId", "0"),
        ("compressed", "false"),
        ("bodyCrc32", "0"),
        ("enableActingMaster", "false"),
    ];
    let table = format!(
        r#"{{"filterServerList":[],"topicConfigSerializeWrapper":{{"dataVersion":{{"counter":1,"timestamp":1700000000000}},"topicConfigTable":{{"{TOPIC}":{{"order":false,"perm":6,"readQueueNums":4,"topicFilterType":"SINGLE_TAG","topicName":"{TOPIC}","topicSysFlag":0,"writeQueueNums":4}}}}}}}}"#
    );
    let version = r#"{"counter":1,"timestamp":1700000000000}"#;
    let setting = [("namespace", GROUP), ("key", TOPIC), ("value", "v")];
    vec![
        frame(103, &broker, table),
        frame(104, &broker, ""),
        frame(322, &broker, version),
        frame(request::GET_ROUTEINFO_BY_TOPIC, &[("topic", TOPIC)], ""),
        frame(request::GET_BROKER_CLUSTER_INFO, &[], ""),
        frame(206, &[], ""),
        frame(100, &setting, ""),
        frame(101, &setting, ""),
        frame(102, &setting, ""),
        frame(219, &[("namespace", GROUP)], ""),
        frame(224, &[("cluster", CLUSTER)], ""),
        frame(999_999, &[], "no such request"),
    ]
}
