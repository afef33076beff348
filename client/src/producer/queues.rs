//! Where a message goes: the topic's route, the queue whose turn it is, and a connection to its broker.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use protocol::body::queue::MessageQueue;
use tokio::time::Instant;

use super::Producer;
use super::sending::Target;
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::routes::Route;

impl Producer {
    /// A topic without a route is one that its first message will make.
    pub(super) async fn route(&self, topic: &str) -> Result<Arc<Route>> {
        self.check_running()?;
        let session = &self.shared.session;
        if let Some(route) = session.routes.known(topic) {
            return Ok(route);
        }
        let options = &self.shared.options;
        let route = match session.route(topic).await {
            Err(Error::NoRoute { .. }) => {
                session
                    .routes
                    .borrow_default(
                        topic,
                        &options.create_topic_key,
                        options.new_topic_queues,
                        &session.connections,
                    )
                    .await
            }
            other => other,
        };
        self.shared.new_brokers.notify_one();
        route
    }

    pub(super) async fn refresh_route(&self, topic: &str) {
        let session = &self.shared.session;
        if let Err(error) = session.routes.refresh(topic, &session.connections).await {
            tracing::debug!(topic, %error, "the route stays as it was");
        }
    }

    pub(super) async fn choose(
        &self,
        target: &Target,
        topic: &str,
        avoid: Option<&str>,
    ) -> Result<(Arc<Connection>, MessageQueue)> {
        let route = self.route(topic).await?;
        let queue = match target {
            Target::Queue(queue) => queue.clone(),
            Target::InTurn => self.next_queue(&route, avoid, topic)?,
        };
        let session = &self.shared.session;
        let address = session.address_of_master(&route, &queue.broker_name)?;
        match session.connections.get(&address).await {
            Ok(connection) => Ok((connection, queue)),
            Err(error) => {
                let now = Instant::now();
                self.shared.latencies.failed(&queue.broker_name, now);
                Err(error)
            }
        }
    }

    /// The next queue in turn: of a broker that does well and is not the one to be avoided; or else of one that only does
    /// well; or else of any.
    fn next_queue(&self, route: &Route, avoid: Option<&str>, topic: &str) -> Result<MessageQueue> {
        let count = route.writable.len();
        let first = self.shared.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = || (0..count).map(|step| &route.writable[(first + step) % count]);
        let elsewhere = |queue: &&MessageQueue| Some(queue.broker_name.as_str()) != avoid;
        let now = Instant::now();
        let latencies = &self.shared.latencies;
        let usable = |queue: &&MessageQueue| latencies.is_usable(&queue.broker_name, now);
        let chosen = in_turn()
            .find(|queue| usable(queue) && elsewhere(queue))
            .or_else(|| in_turn().find(elsewhere))
            .or_else(|| in_turn().next());
        chosen.cloned().ok_or_else(|| Error::NoRoute {
            topic: topic.to_owned(),
        })
    }
}
