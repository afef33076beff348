//! Asking the name servers where a topic is, over a connection of its own: what the others have is not known here.

use std::rc::Rc;
use std::time::Duration;

use protocol::body::Body;
use protocol::body::route::TopicRouteData;
use protocol::code::{request, response};
use protocol::{Command, Value};
use reactor::Notify;

use super::link::Link;
use crate::config::Settings;

/// A name server that takes longer is passed over.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The first answer there is; none without one. A topic that a name server does not know is nowhere.
pub async fn ask(settings: &Settings, topic: &str) -> Option<TopicRouteData> {
    for addr in settings.namesrv_list() {
        let wake = Rc::new(Notify::new());
        let Ok(link) = Link::open(&addr, TIMEOUT, wake).await else {
            continue;
        };
        let fields = [
            ("topic", Value::Str(topic)),
            ("acceptStandardJsonOnly", Value::Bool(true)),
        ];
        let code = request::GET_ROUTEINFO_BY_TOPIC;
        let Ok(frame) = link.ask(code, &fields, &[]).await else {
            continue;
        };
        let Ok(answer) = Command::decode(&frame) else {
            continue;
        };
        match answer.code {
            response::SUCCESS => return TopicRouteData::from_json(answer.body).ok(),
            response::TOPIC_NOT_EXIST => return Some(TopicRouteData::default()),
            _ => {}
        }
    }
    None
}
