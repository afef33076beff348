//! 41, 42: queues of ordered consumers, locked and unlocked.

use serde::{Deserialize, Serialize};

use super::null_as_default;
use super::queue::MessageQueue;

/// 41 and 42 have the same body.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LockBatchRequest {
    pub client_id: String,
    pub consumer_group: String,
    #[serde(deserialize_with = "null_as_default")]
    pub mq_set: Vec<MessageQueue>,
    /// Do not pass the lock on to the other replicas (5.x).
    pub only_this_broker: bool,
}

/// The answer to 41: the queues that are the asker's now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockBatchAnswer {
    #[serde(rename = "lockOKMQSet", deserialize_with = "null_as_default")]
    pub lock_ok_mq_set: Vec<MessageQueue>,
}
