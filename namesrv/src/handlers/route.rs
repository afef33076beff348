//! 105: who serves a topic. What clients ask all day.

use protocol::Command;
use protocol::code::response;
use protocol::header::namesrv::Route;

use super::{Answer, Context, Outcome};
use crate::kv_config::ORDER_TOPIC_CONFIG;

pub(super) fn get(context: &Context, command: &Command<'_>) -> Outcome {
    let header = Route::from(command)?;
    let shared = &context.shared;
    let kv = shared.kv.borrow();
    let ordered = shared.live.borrow().order_message_enable;
    let order_conf = if ordered {
        kv.get(ORDER_TOPIC_CONFIG, &header.topic)
    } else {
        None
    };
    let mut body = Vec::new();
    if shared.routes.borrow().append_route(
        &mut body,
        &header.topic,
        order_conf,
        header.dialect(command),
    ) {
        return Ok(Answer::with_body(body));
    }
    let remark = format!(
        "No topic route info in name server for the topic: {}",
        header.topic
    );
    Err(Answer::refusal(response::TOPIC_NOT_EXIST, remark))
}
