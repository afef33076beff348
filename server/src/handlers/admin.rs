//! What operators ask for: topics, groups, settings, figures.
//!
//! `dispatch` is the second half of the table of contents: codes that only tools send. What does harm in the wrong hands
//! (paths, code, other people's messages) is not among them, or is fenced in its handler.

mod attributes;
pub mod batches;
pub mod cold;
pub mod consumption;
pub mod elsewhere;
pub mod figures;
pub mod groups;
pub mod producers;
pub mod queue;
pub mod retention;
pub mod runtime;
pub mod settings;
pub mod static_topics;
pub mod stats;
pub mod topics;

use std::rc::Rc;

use protocol::Command;
use protocol::code::{request, response};

use super::{Caller, Handled, refuse};
use crate::coordinator::Coordinator;

pub fn dispatch(coordinator: &Rc<Coordinator>, caller: Caller, command: &Command<'_>) -> Handled {
    match command.code {
        request::UPDATE_AND_CREATE_TOPIC_LIST => batches::topics(coordinator, caller, command),
        request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST => {
            batches::groups(coordinator, caller, command)
        }
        request::UPDATE_AND_CREATE_STATIC_TOPIC => {
            static_topics::create(coordinator, caller, command)
        }
        request::VIEW_BROKER_STATS_DATA => figures::view(coordinator, command),
        request::GET_BROKER_CONSUME_STATS => consumption::of_broker(coordinator, command),
        request::QUERY_CONSUME_TIME_SPAN => consumption::time_spans(coordinator, command),
        request::QUERY_CORRECTION_OFFSET => consumption::correction(coordinator, command),
        request::QUERY_TOPICS_BY_CONSUMER => consumption::topics_of_group(coordinator, command),
        request::QUERY_SUBSCRIPTION_BY_CONSUMER => consumption::subscription(coordinator, command),
        request::QUERY_CONSUME_QUEUE => queue::entries(coordinator, command),
        request::UPDATE_AND_GET_GROUP_FORBIDDEN => groups::may_read(coordinator, caller, command),
        request::GET_ALL_PRODUCER_INFO => producers::all(coordinator),
        request::CLEAN_UNUSED_TOPIC => retention::clean_topics(),
        request::UPDATE_COLD_DATA_FLOW_CTR_CONFIG => cold::set(coordinator, caller, command),
        request::REMOVE_COLD_DATA_FLOW_CTR_CONFIG => cold::remove(coordinator, caller, command),
        request::GET_COLD_DATA_FLOW_CTR_INFO => cold::info(coordinator),
        request::SET_COMMITLOG_READ_MODE => cold::read_mode(command),
        request::GET_BROKER_HA_STATUS => elsewhere::replication(coordinator),
        request::RESET_MASTER_FLUSH_OFFSET => elsewhere::reset_flush_offset(),
        request::GET_BROKER_EPOCH_CACHE => elsewhere::epochs(),
        request::CHECK_ROCKSDB_CQ_WRITE_PROGRESS => elsewhere::rocksdb_queues(),
        request::EXPORT_ROCKSDB_CONFIG_TO_JSON => elsewhere::rocksdb_config(),
        request::SWITCH_TIMER_ENGINE => elsewhere::timer_engine(command),
        request::AUTH_CREATE_USER..=request::AUTH_LIST_ACL => elsewhere::access_lists(),
        code => Err(refuse(
            response::REQUEST_CODE_NOT_SUPPORTED,
            format!(" request type {code} not supported"),
        )),
    }
}
