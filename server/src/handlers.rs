//! What the broker does for each request code, by family.
//!
//! `send` and `pull` run on the shard that read the request; everything else here runs beside the coordinator, on its
//! tables. A handler answers at once or returns a future that will; it never waits while tables are borrowed.

pub mod admin;
pub mod client;
pub mod lock;
pub mod members;
pub mod missing;
pub mod offset;
pub mod pop;
pub mod pull;
pub mod query;
pub mod query_key;
pub mod recall;
pub mod relay;
pub mod reply;
pub mod reset;
pub mod send;
pub mod send_back;

use std::borrow::Cow;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;

use protocol::code::{request, response};
use protocol::{Asked, Command, FieldError, Value, json, write_response};

use crate::coordinator::Coordinator;
use crate::messages::{ConnId, Refusal};
use crate::transaction::end;

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    pub conn: ConnId,
    pub peer: SocketAddr,
}

/// What goes back, whatever the encoding.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    pub code: i32,
    pub remark: Option<Cow<'static, str>>,
    pub fields: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn ok() -> Self {
        Self {
            code: response::SUCCESS,
            ..Self::default()
        }
    }

    pub fn with_body(body: Vec<u8>) -> Self {
        Self { body, ..Self::ok() }
    }

    pub fn code(code: i32, remark: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            remark: Some(remark.into()),
            ..Self::default()
        }
    }

    pub fn field(mut self, name: &'static str, value: impl ToString) -> Self {
        self.fields.push((name, value.to_string()));
        self
    }

    pub fn write(&self, out: &mut Vec<u8>, asked: Asked) {
        let fields = self.fields.iter();
        let fields: Vec<_> = fields
            .map(|(name, value)| (*name, Value::Str(value)))
            .collect();
        write_response(
            out,
            asked,
            self.code,
            self.remark.as_deref(),
            &fields,
            &self.body,
        );
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Self::code(refusal.code, refusal.remark)
    }
}

impl From<FieldError> for Refusal {
    fn from(error: FieldError) -> Self {
        Self {
            code: response::SYSTEM_ERROR,
            remark: error.to_string(),
        }
    }
}

impl From<json::Error> for Refusal {
    fn from(error: json::Error) -> Self {
        Self {
            code: response::SYSTEM_ERROR,
            remark: format!("the body cannot be read: {error}"),
        }
    }
}

pub fn refuse(code: i32, remark: impl Into<String>) -> Refusal {
    Refusal {
        code,
        remark: remark.into(),
    }
}

/// What a handler hands back.
pub enum Reply {
    Now(Answer),
    Later(Pin<Box<dyn Future<Output = Answer>>>),
    /// Whoever has the request by now answers it.
    Elsewhere,
}

impl Reply {
    pub fn later(answer: impl Future<Output = Answer> + 'static) -> Self {
        Self::Later(Box::pin(answer))
    }
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self::Now(answer)
    }
}

pub type Handled = Result<Reply, Refusal>;

/// Handles one request. The answer is queued now or later; a one-way request gets none.
pub fn handle(coordinator: &Rc<Coordinator>, caller: Caller, command: &Command<'_>) {
    let asked = Asked::from(command);
    let wants_answer = !command.is_oneway();
    match dispatch(coordinator, caller, command) {
        Ok(Reply::Now(answer)) => {
            if wants_answer {
                coordinator.answer(caller, asked, &answer);
            }
        }
        Ok(Reply::Elsewhere) => {}
        Ok(Reply::Later(answer)) => {
            let coordinator = Rc::clone(coordinator);
            reactor::spawn("late answer", async move {
                let answer = answer.await;
                if wants_answer {
                    coordinator.answer(caller, asked, &answer);
                    coordinator.outgoing.send_all().await;
                }
            });
        }
        Err(refusal) => {
            tracing::debug!(
                code = command.code,
                answer = refusal.code,
                remark = refusal.remark,
                peer = %caller.peer,
                "request refused"
            );
            if wants_answer {
                coordinator.answer(caller, asked, &refusal.into());
            }
        }
    }
}

/// The table of contents; what only tools send goes on in [`admin::dispatch`].
fn dispatch(coordinator: &Rc<Coordinator>, caller: Caller, command: &Command<'_>) -> Handled {
    match command.code {
        request::HEART_BEAT => client::heartbeat(coordinator, caller, command),
        request::UNREGISTER_CLIENT => client::unregister(coordinator, caller, command),
        request::CHECK_CLIENT_CONFIG => client::check(coordinator, command),
        request::GET_CONSUMER_LIST_BY_GROUP => members::of_group(coordinator, command),
        request::GET_CONSUMER_CONNECTION_LIST => members::consumers(coordinator, command),
        request::GET_PRODUCER_CONNECTION_LIST => members::producers(coordinator, command),
        request::END_TRANSACTION => end::decision(coordinator, caller, command),
        request::RESUME_CHECK_HALF_MESSAGE => end::resume(coordinator, command),
        request::CONSUMER_SEND_MSG_BACK => send_back::handle(coordinator, command),
        request::QUERY_CONSUMER_OFFSET => offset::query(coordinator, command),
        request::INVOKE_BROKER_TO_RESET_OFFSET => reset::handle(coordinator, caller, command),
        request::CLONE_GROUP_OFFSET => reset::clone(coordinator, caller, command),
        request::GET_CONSUMER_RUNNING_INFO => relay::running_info(coordinator, command),
        request::CONSUME_MESSAGE_DIRECTLY => relay::consume_directly(coordinator, command),
        request::INVOKE_BROKER_TO_GET_CONSUMER_STATUS => relay::status(coordinator, command),
        request::SEND_REPLY_MESSAGE | request::SEND_REPLY_MESSAGE_V2 => {
            reply::handle(coordinator, caller, command)
        }
        request::UPDATE_CONSUMER_OFFSET => offset::update(coordinator, command),
        request::GET_ALL_CONSUMER_OFFSET => offset::all(coordinator),
        request::GET_ALL_DELAY_OFFSET => offset::all_delayed(coordinator),
        request::SEARCH_OFFSET_BY_TIMESTAMP => query::offset_by_time(coordinator, command),
        request::GET_MAX_OFFSET => query::max_offset(coordinator, command),
        request::GET_MIN_OFFSET => query::min_offset(coordinator, command),
        request::QUERY_MESSAGE => query_key::handle(coordinator, command),
        request::RECALL_MESSAGE => recall::handle(coordinator, caller, command),
        request::VIEW_MESSAGE_BY_ID => query::message(coordinator, command),
        request::GET_EARLIEST_MSG_STORETIME => query::earliest_time(coordinator, command),
        request::POP_MESSAGE => pop::pop(coordinator, caller, command),
        request::ACK_MESSAGE => pop::ack::one(coordinator, caller, command),
        request::BATCH_ACK_MESSAGE => pop::ack::batch(coordinator, caller, command),
        request::CHANGE_MESSAGE_INVISIBLETIME => pop::ack::change(coordinator, caller, command),
        request::PEEK_MESSAGE => pop::peek(coordinator, caller, command),
        request::NOTIFICATION => pop::notify(coordinator, caller, command),
        request::POLLING_INFO => pop::polling_info(coordinator, caller, command),
        request::POP_ROLLBACK => pop::export(),
        request::QUERY_ASSIGNMENT => pop::assignment::query(coordinator, command),
        request::SET_MESSAGE_REQUEST_MODE => pop::assignment::set_mode(coordinator, command),
        request::LOCK_BATCH_MQ => lock::lock(coordinator, command),
        request::UNLOCK_BATCH_MQ => lock::unlock(coordinator, command),
        request::UPDATE_AND_CREATE_TOPIC => admin::topics::create(coordinator, caller, command),
        request::DELETE_TOPIC_IN_BROKER => admin::topics::delete(coordinator, caller, command),
        request::GET_TOPIC_CONFIG => admin::topics::get(coordinator, command),
        request::GET_ALL_TOPIC_CONFIG => admin::topics::all(coordinator, command),
        request::GET_SYSTEM_TOPIC_LIST_FROM_BROKER => admin::topics::system_list(coordinator),
        request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP => {
            admin::groups::create(coordinator, caller, command)
        }
        request::DELETE_SUBSCRIPTIONGROUP => admin::groups::delete(coordinator, caller, command),
        request::GET_SUBSCRIPTIONGROUP_CONFIG => admin::groups::get(coordinator, command),
        request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG => admin::groups::all(coordinator, command),
        request::UPDATE_BROKER_CONFIG => admin::settings::update(coordinator, caller, command),
        request::GET_BROKER_CONFIG => admin::settings::get(coordinator),
        request::DELETE_EXPIRED_COMMITLOG => admin::retention::delete_expired(coordinator, caller),
        request::CLEAN_EXPIRED_CONSUMEQUEUE => admin::retention::clean_queues(),
        request::GET_BROKER_RUNTIME_INFO => admin::runtime::info(coordinator),
        request::GET_TOPIC_STATS_INFO => admin::stats::of_topic(coordinator, command),
        request::GET_CONSUME_STATS => admin::stats::of_group(coordinator, command),
        request::QUERY_TOPIC_CONSUME_BY_WHO => admin::stats::groups_of_topic(coordinator, command),
        _ => admin::dispatch(coordinator, caller, command),
    }
}
