//! Figures by RocketMQ's names: what `mqadmin statsAll`, the dashboard and the exporter draw.

use std::rc::Rc;

use protocol::Command;
use protocol::body::Body;
use protocol::code::response;
use protocol::header::admin::ViewStats;
use protocol::json::Dialect;

use crate::coordinator::{self, Coordinator};
use crate::handlers::{Answer, Handled, refuse};

/// 315
pub fn view(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let header = ViewStats::from(command)?;
    let now_s = coordinator::now_s();
    let found = coordinator.figures.named(&header.name, &header.key, now_s);
    let stats = found.ok_or_else(|| {
        let remark = format!("The stats <{}> <{}> not exist", header.name, header.key);
        refuse(response::SYSTEM_ERROR, remark)
    })?;
    Ok(Answer::with_body(stats.to_json(Dialect::Fastjson1)).into())
}
