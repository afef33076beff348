//! 103: the body of a registration, plain JSON or (`compressed`) RocketMQ's own deflated form.
//!
//! ```text
//! plain:      { "filterServerList": [], "topicConfigSerializeWrapper": { .. } }
//! compressed: deflate of
//!   | len u32, data version JSON | topics: u32 | { len u32, "name read write perm filter attrs" }*
//!   | len u32, filter servers JSON | [5.x] mappings: u32, { len u32, JSON }* |
//! ```

use serde::{Deserialize, Serialize};

use super::null_as_default;
use super::topic_config::TopicConfigAndMapping;

mod compressed;

pub use compressed::CompressedError;

/// Topics and filter servers of a broker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegisterBrokerBody {
    #[serde(deserialize_with = "null_as_default")]
    pub filter_server_list: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub topic_config_serialize_wrapper: TopicConfigAndMapping,
}
