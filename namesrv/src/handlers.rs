//! What a name server does, by request code: this page is its table of contents.
//!
//! Handlers return an answer; how it is written, and that one-way requests get none, is decided here alone.

mod brokers;
mod kv;
mod registration;
mod route;
mod settings;
mod topics;

use std::borrow::Cow;
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;

use protocol::code::{request, response};
use protocol::{Asked, Command, DecodeError, FieldError, Value, write_response};
use reactor::Outbox;

use crate::routes::{ConnectionId, Refused};
use crate::server::Shared;

/// The connection a request came over.
pub(crate) struct Context {
    pub shared: Rc<Shared>,
    pub outbox: Outbox,
    pub connection: ConnectionId,
    pub peer: SocketAddr,
    /// A broker has registered over it, so its end has consequences.
    pub registered: Cell<bool>,
}

/// An answer about to be written.
#[derive(Debug)]
struct Answer {
    code: i32,
    remark: Option<Cow<'static, str>>,
    fields: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn done() -> Answer {
        Answer {
            code: response::SUCCESS,
            remark: None,
            fields: Vec::new(),
            body: Vec::new(),
        }
    }

    fn with_body(body: Vec<u8>) -> Answer {
        Answer {
            body,
            ..Answer::done()
        }
    }

    fn with_field(name: &'static str, value: String) -> Answer {
        Answer {
            fields: vec![(name, value)],
            ..Answer::done()
        }
    }

    fn refusal(code: i32, remark: impl Into<Cow<'static, str>>) -> Answer {
        Answer {
            code,
            remark: Some(remark.into()),
            ..Answer::done()
        }
    }

    fn write(&self, context: &Context, to: Asked) {
        let fields: Vec<_> = self
            .fields
            .iter()
            .map(|(name, value)| (*name, Value::Str(value)))
            .collect();
        context.outbox.with(|out| {
            write_response(
                out,
                to,
                self.code,
                self.remark.as_deref(),
                &fields,
                &self.body,
            );
        });
    }
}

impl From<FieldError> for Answer {
    fn from(error: FieldError) -> Answer {
        Answer::refusal(response::SYSTEM_ERROR, error.to_string())
    }
}

impl From<Refused> for Answer {
    fn from(refused: Refused) -> Answer {
        Answer::refusal(response::SYSTEM_ERROR, refused.to_string())
    }
}

/// A handler's result: a refusal is an answer, too, so that `?` may end a handler early.
type Outcome = Result<Answer, Answer>;

/// Serves a request that needs no waiting. False if it has to be served by `later`.
pub(crate) fn at_once(context: &Context, command: &Command<'_>) -> bool {
    if command.is_response() {
        // This server asks nobody anything.
        tracing::debug!(peer = %context.peer, code = command.code, "an answer to nothing");
        return true;
    }
    let outcome = match command.code {
        request::GET_ROUTEINFO_BY_TOPIC => route::get(context, command),

        request::QUERY_DATA_VERSION => registration::query_version(context, command),
        request::BROKER_HEARTBEAT => registration::heartbeat(context, command),
        request::UNREGISTER_BROKER => registration::unregister(context, command),
        request::REGISTER_TOPIC_IN_NAMESRV => registration::register_topic(context, command),

        request::GET_BROKER_CLUSTER_INFO => Ok(brokers::clusters(context)),
        request::GET_BROKER_MEMBER_GROUP => brokers::member_group(context, command),

        request::GET_SYSTEM_TOPIC_LIST_FROM_NS => Ok(topics::system(context)),
        request::DELETE_TOPIC_IN_NAMESRV => topics::delete(context, command),

        request::GET_KV_CONFIG => kv::get(context, command),
        request::GET_KVLIST_BY_NAMESPACE => kv::list(context, command),

        request::GET_NAMESRV_CONFIG => Ok(settings::get(context)),

        request::REGISTER_BROKER
        | request::PUT_KV_CONFIG
        | request::DELETE_KV_CONFIG
        | request::WIPE_WRITE_PERM_OF_BROKER
        | request::ADD_WRITE_PERM_OF_BROKER
        | request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER
        | request::GET_TOPICS_BY_CLUSTER
        | request::GET_UNIT_TOPIC_LIST
        | request::GET_HAS_UNIT_SUB_TOPIC_LIST
        | request::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST
        | request::UPDATE_NAMESRV_CONFIG => return false,

        code => Err(Answer::refusal(
            response::REQUEST_CODE_NOT_SUPPORTED,
            format!(" request type {code} not supported"),
        )),
    };
    answer(context, command, outcome);
    true
}

/// Serves a request that walks all topics, writes a file, or had to wait for one that did.
pub(crate) async fn later(context: &Context, frame: Vec<u8>) -> Result<(), DecodeError> {
    let command = Command::decode(&frame)?;
    let outcome = match command.code {
        request::REGISTER_BROKER => registration::register(context, &command).await,

        request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER => topics::all(context).await,
        request::GET_TOPICS_BY_CLUSTER => topics::of_cluster(context, &command).await,
        request::GET_UNIT_TOPIC_LIST
        | request::GET_HAS_UNIT_SUB_TOPIC_LIST
        | request::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST => {
            topics::of_units(context, command.code).await
        }

        request::WIPE_WRITE_PERM_OF_BROKER => brokers::wipe_write(context, &command).await,
        request::ADD_WRITE_PERM_OF_BROKER => brokers::add_write(context, &command).await,

        request::PUT_KV_CONFIG => kv::put(context, &command).await,
        request::DELETE_KV_CONFIG => kv::delete(context, &command).await,

        request::UPDATE_NAMESRV_CONFIG => settings::update(context, &command).await,

        code => {
            let served = at_once(context, &command);
            assert!(served, "request {code} is in one of the two tables");
            return Ok(());
        }
    };
    answer(context, &command, outcome);
    Ok(())
}

fn answer(context: &Context, command: &Command<'_>, outcome: Outcome) {
    let answer = outcome.unwrap_or_else(|refusal| {
        tracing::debug!(peer = %context.peer, code = command.code, ?refusal, "request refused");
        refusal
    });
    if !command.is_oneway() {
        answer.write(context, Asked::from(command));
    }
}
