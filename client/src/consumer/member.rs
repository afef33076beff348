//! A member of a consumer group: what it tells brokers of itself, and which queues of each topic are its own.

use std::sync::Arc;

use protocol::body::heartbeat::{
    CheckClientRequest, ConsumeFromWhere, ConsumeType, ConsumerData, HeartbeatData, MessageModel,
    SubscriptionData,
};
use protocol::body::queue::MessageQueue;
use protocol::code::{request, response};

use super::rebalance::{self, Allocation};
use crate::connection::refusal;
use crate::error::{Error, Result};
use crate::lock::Mutex;
use crate::routes::MASTER;
use crate::session::Session;

pub(crate) struct Member {
    pub session: Arc<Session>,
    /// As the brokers know it.
    pub group: String,
    pub model: MessageModel,
    pub kind: ConsumeType,
    pub from: ConsumeFromWhere,
    pub allocation: Allocation,
    /// Topics as the brokers know them.
    pub subscriptions: Mutex<Vec<SubscriptionData>>,
}

impl Member {
    pub fn heartbeat_data(&self) -> HeartbeatData {
        HeartbeatData {
            client_id: self.session.client_id.clone(),
            consumer_data_set: vec![ConsumerData {
                consume_from_where: self.from,
                consume_type: self.kind,
                group_name: self.group.clone(),
                message_model: self.model,
                subscription_data_set: self.subscriptions(),
                unit_mode: self.session.settings.unit_mode,
            }],
            ..HeartbeatData::default()
        }
    }

    pub fn subscriptions(&self) -> Vec<SubscriptionData> {
        self.subscriptions.lock().clone()
    }

    pub fn is_broadcasting(&self) -> bool {
        self.model == MessageModel::Broadcasting
    }

    /// At least one topic must be there; the others, and the retry topic, may come later.
    pub async fn find_routes(&self) -> Result<()> {
        let mut found = Ok(());
        for (number, subscription) in self.subscriptions().iter().enumerate() {
            match self.session.route(&subscription.topic).await {
                Ok(_) => found = Ok(()),
                Err(error) if number == 0 || found.is_err() => found = Err(error),
                Err(_) => {}
            }
        }
        match found {
            // A topic that nobody has made yet will have a route once somebody sends to it.
            Err(Error::NoRoute { .. }) => Ok(()),
            other => other,
        }
    }

    /// Lets a broker of each topic check the conditions that are not about tags: a wrong one must not look like a topic
    /// without messages.
    pub async fn check_filters(&self) -> Result<()> {
        for subscription in self.subscriptions() {
            if subscription.is_tag() {
                continue;
            }
            let route = match self.session.route(&subscription.topic).await {
                Ok(route) => route,
                // Nobody to ask yet; pulls will be refused.
                Err(Error::NoRoute { .. }) => continue,
                Err(error) => return Err(error),
            };
            let address = route
                .brokers
                .keys()
                .find_map(|name| route.replica(name, MASTER));
            if let Some(address) = address {
                self.check_filter(address, subscription).await?;
            }
        }
        Ok(())
    }

    async fn check_filter(&self, address: &str, subscription: SubscriptionData) -> Result<()> {
        let body = CheckClientRequest {
            client_id: self.session.client_id.clone(),
            group: self.group.clone(),
            namespace: None,
            subscription_data: Some(subscription),
        };
        let body = serde_json::to_vec(&body).expect("string keys");
        let connection = self.session.connections.get(address).await?;
        let limit = self.session.settings.call_limit;
        let answer = connection
            .call(request::CHECK_CLIENT_CONFIG, &[], &body, limit)
            .await?;
        match answer.command().code {
            // Brokers before 4.2 check when they are pulled from.
            response::SUCCESS | response::REQUEST_CODE_NOT_SUPPORTED => Ok(()),
            _ => Err(refusal(&answer.command())),
        }
    }

    /// The queues of a topic that are ours.
    pub async fn share(&self, subscription: &SubscriptionData) -> Result<Vec<MessageQueue>> {
        let route = self.session.route(&subscription.topic).await?;
        let queues = rebalance::readable(&route);
        if self.is_broadcasting() {
            return Ok(queues);
        }
        let members = rebalance::members(&self.session, &route, &self.group).await?;
        Ok(self
            .allocation
            .share(&queues, &members, &self.session.client_id))
    }

    pub async fn leave(&self) {
        self.session.connections.flush().await;
        self.session.unregister("consumerGroup", &self.group).await;
    }
}
