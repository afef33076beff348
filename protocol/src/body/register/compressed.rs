//! The deflated form of a registration. Inflating is bounded, whatever the sender claims.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

use super::RegisterBrokerBody;
use crate::body::topic_config::{
    TopicConfig, TopicConfigAndMapping, TopicFilterType, TopicQueueMappingInfo,
};
use crate::json::{self, Dialect};

/// A million topics need less.
const INFLATED_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Why a compressed registration could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CompressedError {
    #[error("cannot be inflated: {0}")]
    Inflate(#[from] std::io::Error),
    #[error("inflates to more than {INFLATED_BYTES_MAX} bytes")]
    TooLarge,
    #[error("ends within its {0}")]
    Truncated(&'static str),
    #[error("broken {what}: {source}")]
    Json {
        what: &'static str,
        source: json::Error,
    },
    #[error("broken topic: {0}")]
    Topic(String),
}

impl RegisterBrokerBody {
    pub fn from_compressed(bytes: &[u8]) -> Result<RegisterBrokerBody, CompressedError> {
        let mut inflated = Vec::new();
        ZlibDecoder::new(bytes)
            .take(INFLATED_BYTES_MAX + 1)
            .read_to_end(&mut inflated)?;
        if inflated.len() as u64 > INFLATED_BYTES_MAX {
            return Err(CompressedError::TooLarge);
        }
        read(&inflated)
    }

    pub fn to_compressed(&self) -> Vec<u8> {
        // 9 is what brokers use for this, and it is done every 30 s at most.
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder
            .write_all(&write(self))
            .and_then(|()| encoder.finish())
            .expect("deflating into memory does not fail")
    }
}

fn read(inflated: &[u8]) -> Result<RegisterBrokerBody, CompressedError> {
    let mut rest = inflated;
    let mut wrapper = TopicConfigAndMapping {
        data_version: parse("data version", take(&mut rest, "data version")?)?,
        ..TopicConfigAndMapping::default()
    };
    for _ in 0..take_count(&mut rest, "topic count")? {
        let topic = take(&mut rest, "topics")?;
        let topic = read_topic(&String::from_utf8_lossy(topic))?;
        wrapper
            .topic_config_table
            .insert(topic.topic_name.clone(), topic);
    }
    let filter_server_list = parse("filter servers", take(&mut rest, "filter servers")?)?;
    // 4.9 ends here.
    if !rest.is_empty() {
        for _ in 0..take_count(&mut rest, "mapping count")? {
            let info: TopicQueueMappingInfo = parse("mapping", take(&mut rest, "mappings")?)?;
            wrapper
                .topic_queue_mapping_info_map
                .insert(info.topic.clone(), info);
        }
    }
    Ok(RegisterBrokerBody {
        filter_server_list,
        topic_config_serialize_wrapper: wrapper,
    })
}

fn take_count(rest: &mut &[u8], what: &'static str) -> Result<u32, CompressedError> {
    let (count, behind) = rest
        .split_first_chunk()
        .ok_or(CompressedError::Truncated(what))?;
    *rest = behind;
    Ok(u32::from_be_bytes(*count))
}

fn take<'a>(rest: &mut &'a [u8], what: &'static str) -> Result<&'a [u8], CompressedError> {
    let length = take_count(rest, what)?;
    let (part, behind) = rest
        .split_at_checked(length as usize)
        .ok_or(CompressedError::Truncated(what))?;
    *rest = behind;
    Ok(part)
}

fn parse<T: serde::de::DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
) -> Result<T, CompressedError> {
    json::from_slice(bytes).map_err(|source| CompressedError::Json { what, source })
}

/// `name read write perm filter [attributes]`, separated by blanks.
fn read_topic(line: &str) -> Result<TopicConfig, CompressedError> {
    let broken = || CompressedError::Topic(line.chars().take(200).collect());
    let mut parts = line.splitn(6, ' ');
    let name = parts.next().filter(|name| !name.is_empty());
    let name = name.ok_or_else(broken)?.to_string();
    let mut number = || parts.next().and_then(|part| part.parse::<i32>().ok());
    let (Some(read), Some(write), Some(perm)) = (number(), number(), number()) else {
        return Err(broken());
    };
    let filter = parts.next().ok_or_else(broken)?;
    let attributes = parts.next().unwrap_or_default();
    Ok(TopicConfig {
        // RocketMQ, too, goes on without attributes it cannot read.
        attributes: json::from_slice(attributes.as_bytes()).unwrap_or_default(),
        perm,
        read_queue_nums: read,
        topic_filter_type: TopicFilterType::from_name(filter),
        topic_name: name,
        write_queue_nums: write,
        ..TopicConfig::default()
    })
}

fn write(body: &RegisterBrokerBody) -> Vec<u8> {
    let wrapper = &body.topic_config_serialize_wrapper;
    let mut out = Vec::new();
    let json = |value: Vec<u8>, out: &mut Vec<u8>| {
        append_count(out, value.len());
        out.extend_from_slice(&value);
    };
    json(
        json::to_vec(&wrapper.data_version, Dialect::Fastjson1),
        &mut out,
    );
    append_count(&mut out, wrapper.topic_config_table.len());
    for topic in wrapper.topic_config_table.values() {
        json(write_topic(topic), &mut out);
    }
    json(
        json::to_vec(&body.filter_server_list, Dialect::Fastjson1),
        &mut out,
    );
    append_count(&mut out, wrapper.topic_queue_mapping_info_map.len());
    for info in wrapper.topic_queue_mapping_info_map.values() {
        json(json::to_vec(info, Dialect::Fastjson1), &mut out);
    }
    out
}

fn append_count(out: &mut Vec<u8>, count: usize) {
    assert!(count <= i32::MAX as usize, "a registration fits a frame");
    out.extend_from_slice(&(count as u32).to_be_bytes());
}

fn write_topic(topic: &TopicConfig) -> Vec<u8> {
    let filter = match topic.topic_filter_type {
        TopicFilterType::SingleTag => "SINGLE_TAG",
        TopicFilterType::MultiTag => "MULTI_TAG",
    };
    let mut line = format!(
        "{} {} {} {} {filter} ",
        topic.topic_name, topic.read_queue_nums, topic.write_queue_nums, topic.perm
    )
    .into_bytes();
    line.extend_from_slice(&json::to_vec(&topic.attributes, Dialect::Fastjson1));
    line
}
