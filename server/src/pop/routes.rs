//! All queues of a topic, on this broker and on the others of its name servers: a group shares all of them.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use hashbrown::HashMap;
use protocol::body::queue::MessageQueue;
use protocol::body::route::TopicRouteData;
use protocol::permission;
use reactor::Instant;

use crate::coordinator::Coordinator;
use crate::registration;

/// How long an answer of the name servers is good.
const FRESH_FOR: Duration = Duration::from_secs(30);
/// Topics that are remembered; then everything is asked again.
const TOPICS_MAX: usize = 10_000;

/// A topic's queues, and when they were asked for.
type Known = (Instant, Rc<[MessageQueue]>);

/// Lives on the coordinator's core.
#[derive(Default)]
pub struct Routes {
    known: RefCell<HashMap<String, Known>>,
}

impl Routes {
    /// In order. None if nobody knows the topic.
    pub async fn queues(
        &self,
        coordinator: &Rc<Coordinator>,
        topic: &str,
    ) -> Option<Vec<MessageQueue>> {
        let own = own_queues(coordinator, topic);
        let mut queues = match self.fresh(topic) {
            Some(others) => others.to_vec(),
            None => self.ask(coordinator, topic).await,
        };
        queues.extend(own);
        queues.sort_unstable_by(|a, b| {
            (&a.topic, &a.broker_name, a.queue_id).cmp(&(&b.topic, &b.broker_name, b.queue_id))
        });
        (!queues.is_empty()).then_some(queues)
    }

    fn fresh(&self, topic: &str) -> Option<Rc<[MessageQueue]>> {
        let known = self.known.borrow();
        let (asked, queues) = known.get(topic)?;
        (asked.elapsed() < FRESH_FOR).then(|| Rc::clone(queues))
    }

    /// The queues of other brokers. Without an answer those that were known before.
    async fn ask(&self, coordinator: &Rc<Coordinator>, topic: &str) -> Vec<MessageQueue> {
        let settings = coordinator.settings();
        let route = registration::route::ask(&settings, topic).await;
        let others = match route {
            Some(route) => others(&route, &settings.broker_name, topic),
            None => {
                let known = self.known.borrow();
                known
                    .get(topic)
                    .map_or(Vec::new(), |(_, queues)| queues.to_vec())
            }
        };
        let mut known = self.known.borrow_mut();
        if known.len() >= TOPICS_MAX {
            known.clear();
        }
        let entry = (reactor::now(), Rc::from(others.as_slice()));
        known.insert(topic.to_owned(), entry);
        others
    }
}

fn own_queues(coordinator: &Coordinator, topic: &str) -> Vec<MessageQueue> {
    let settings = coordinator.settings();
    let tables = coordinator.tables();
    let Some(config) = tables.topics.get(topic) else {
        return Vec::new();
    };
    if !permission::is_readable(config.perm & settings.broker_permission) {
        return Vec::new();
    }
    numbered(topic, &settings.broker_name, config.read_queue_nums)
}

fn others(route: &TopicRouteData, own: &str, topic: &str) -> Vec<MessageQueue> {
    let queues = route.queue_datas.iter();
    let others =
        queues.filter(|data| data.broker_name != own && permission::is_readable(data.perm));
    others
        .flat_map(|data| numbered(topic, &data.broker_name, data.read_queue_nums))
        .collect()
}

fn numbered(topic: &str, broker_name: &str, count: i32) -> Vec<MessageQueue> {
    let queue = |queue_id| MessageQueue {
        topic: topic.to_owned(),
        broker_name: broker_name.to_owned(),
        queue_id,
    };
    (0..count).map(queue).collect()
}
