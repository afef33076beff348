//! What a producer does by itself: routes stay fresh, brokers informed, and their questions are answered.

use std::sync::Arc;

use protocol::body::heartbeat::{HeartbeatData, ProducerData};
use protocol::code::request;
use tokio::sync::{Notify, mpsc};

use super::request::Replies;
use super::transaction::{self, Outcome};
use crate::caught::BoxFuture;
use crate::connection::Asked;
use crate::received::Received;
use crate::session::Session;
use crate::trace::Trace;

/// Says what became of a half message.
pub(super) type Checker = Arc<dyn Fn(Received) -> BoxFuture<Outcome> + Send + Sync>;

pub(super) struct LookedAfter {
    pub session: Arc<Session>,
    pub group: String,
    pub new_brokers: Arc<Notify>,
    pub replies: Arc<Replies>,
    /// Unset: this producer sends no transactions.
    pub checker: Option<Checker>,
    pub trace: Option<Trace>,
}

pub(super) fn heartbeat_of(session: &Session, group: &str) -> HeartbeatData {
    HeartbeatData {
        client_id: session.client_id.clone(),
        producer_data_set: vec![ProducerData {
            group_name: group.to_owned(),
        }],
        ..HeartbeatData::default()
    }
}

pub(super) async fn upkeep(own: LookedAfter, mut asked: mpsc::Receiver<Asked>) {
    let session = &own.session;
    let heartbeat = heartbeat_of(session, &own.group);
    let mut routes = tokio::time::interval(session.settings.route_interval);
    let mut heartbeats = tokio::time::interval(session.settings.heartbeat_interval);
    loop {
        tokio::select! {
            _ = routes.tick() => session.routes.refresh_all(&session.connections).await,
            _ = heartbeats.tick() => session.heartbeat(&heartbeat, true).await,
            () = own.new_brokers.notified() => session.heartbeat_to_new(&heartbeat, true).await,
            Some(asked) = asked.recv() => answer(&own, asked),
        }
    }
}

fn answer(own: &LookedAfter, asked: Asked) {
    match asked.command().code {
        request::PUSH_REPLY_MESSAGE_TO_CLIENT => {
            own.replies.take(&asked, &own.session.settings.namespace);
        }
        request::CHECK_TRANSACTION_STATE => {
            if let Some(checker) = &own.checker {
                let check = transaction::Check {
                    session: own.session.clone(),
                    group: own.group.clone(),
                    checker: checker.clone(),
                    trace: own.trace.clone(),
                };
                tokio::spawn(check.answer(asked));
            }
        }
        code => {
            let address = asked.address();
            tracing::debug!(address, code, "a request that is not answered");
        }
    }
}
