//! What became of a message, as its clients have told the trace topic.

use orbitmq_client::admin::Admin;
use orbitmq_client::time::show_ms;
use serde::Serialize;

use crate::commands::{Done, Failure};
use crate::output::Output;

const FIELD_END: char = '\u{1}';
const LINE_END: char = '\u{2}';
/// Trace messages of one broker that are looked at.
const MESSAGES_MAX: i32 = 64;

/// One event of a message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Event {
    time_ms: i64,
    what: &'static str,
    group: String,
    cost_ms: i64,
    good: bool,
    more: String,
}

pub async fn run(admin: &Admin, id: &str, trace_topic: &str, output: &Output) -> Done {
    let span = [0, i64::MAX];
    let messages = admin
        .messages_by_key(trace_topic, id, MESSAGES_MAX, span)
        .await?;
    let mut events: Vec<Event> = messages
        .iter()
        .flat_map(|message| {
            let text = String::from_utf8_lossy(&message.body).into_owned();
            let lines = text.split(LINE_END).filter_map(|line| event(line, id));
            lines.collect::<Vec<_>>()
        })
        .collect();
    events.sort();
    events.dedup();
    if events.is_empty() {
        return Err(Failure::Told(format!(
            "nobody has told {trace_topic} of {id}: clients do if enableTrace is set"
        )));
    }
    let heads = ["TIME (UTC)", "WHAT", "GROUP", "#MS", "RESULT", "MORE"];
    output.rows(&events, &heads, |event| {
        vec![
            show_ms(event.time_ms),
            event.what.to_owned(),
            event.group.clone(),
            event.cost_ms.to_string(),
            if event.good { "good" } else { "failed" }.to_owned(),
            event.more.clone(),
        ]
    });
    Ok(())
}

/// A line of a trace message if it is about this message.
fn event(line: &str, id: &str) -> Option<Event> {
    let fields: Vec<&str> = line.split(FIELD_END).collect();
    let at = |place: usize| fields.get(place).copied().unwrap_or_default();
    let number = |place: usize| at(place).parse().unwrap_or(0);
    let event = match at(0) {
        "Pub" if at(5).split(',').any(|one| one == id) => Event {
            time_ms: number(1),
            what: "sent",
            group: at(3).to_owned(),
            cost_ms: number(10),
            good: at(13) != "false",
            more: format!("to {} on {}", at(4), at(8)),
        },
        "SubBefore" if at(5) == id => Event {
            time_ms: number(1),
            what: "delivered",
            group: at(3).to_owned(),
            cost_ms: 0,
            good: true,
            more: format!("in vain {} times before", at(6)),
        },
        "SubAfter" if at(2) == id => Event {
            time_ms: number(7),
            what: "consumed",
            group: at(8).to_owned(),
            cost_ms: number(3),
            good: at(4) == "true",
            more: String::new(),
        },
        "EndTransaction" if at(5) == id => Event {
            time_ms: number(1),
            what: "decided",
            group: at(3).to_owned(),
            cost_ms: 0,
            good: true,
            more: at(11).to_owned(),
        },
        _ => return None,
    };
    Some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_other_messages_are_passed_over() {
        let line = |id: &str| {
            [
                "Pub", "7", "R", "g", "t", id, "a", "k", "b:1", "5", "3", "0", "OFF", "true",
            ]
            .join(&FIELD_END.to_string())
        };
        let sent = event(&line("ID"), "ID").expect("about it");
        assert_eq!(
            (sent.what, sent.time_ms, sent.cost_ms, sent.good),
            ("sent", 7, 3, true)
        );
        assert_eq!(sent.more, "to t on b:1");
        assert_eq!(event(&line("OTHER"), "ID"), None);
        assert!(event(&line("X,ID"), "ID").is_some(), "a batch");
    }
}
