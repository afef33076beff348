//! Shows something again and again, a line for each look: it can be read by people and by programs.

use std::time::Duration;

use orbitmq_client::admin::Admin;
use orbitmq_client::time::show_ms;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Done, Failure};
use crate::cli::{Watch, Watched};
use crate::output::{Output, rate};
use crate::when::now_ms;

/// What was counted at a look.
#[derive(Clone, Copy)]
struct Look {
    at: Instant,
    count: i64,
}

pub async fn run(admin: &Admin, watch: Watch, output: &Output) -> Done {
    let name = match (watch.what, watch.name) {
        (Watched::Brokers, _) => String::new(),
        (_, Some(name)) => name,
        (_, None) => return Err(Failure::Told("whose? Give its name".to_owned())),
    };
    let mut before = None;
    let mut looks = 0;
    let mut every = tokio::time::interval(watch.interval.max(Duration::from_millis(10)));
    while watch.times.is_none_or(|times| looks < times) {
        every.tick().await;
        let (sentence, value) = look(admin, watch.what, &name, &mut before).await?;
        let line = match output.json {
            // One line each: a stream that can be read as it comes.
            true => value.to_string(),
            false => format!("{}  {sentence}", show_ms(now_ms())),
        };
        println!("{line}");
        looks += 1;
    }
    Ok(())
}

async fn look(
    admin: &Admin,
    what: Watched,
    name: &str,
    before: &mut Option<Look>,
) -> Result<(String, Value), Failure> {
    match what {
        Watched::Brokers => {
            let mut parts = Vec::new();
            let mut values = Vec::new();
            for broker in admin.brokers().await? {
                let runtime = admin.runtime(&broker.address).await?;
                let (put, get) = (runtime.rate("putTps"), runtime.rate("getTransferredTps"));
                parts.push(format!(
                    "{} put {}/s get {}/s",
                    broker.name,
                    rate(put),
                    rate(get)
                ));
                values.push(json!({ "broker": broker.name, "put_tps": put, "get_tps": get }));
            }
            Ok((
                parts.join("  "),
                json!({ "time_ms": now_ms(), "brokers": values }),
            ))
        }
        Watched::Topic => {
            let queues = admin.topic_status(name).await?;
            let stored = queues.iter().map(|queue| queue.max_offset).sum();
            let speed = per_second(before, stored);
            let sentence = format!("{name}: {stored} messages, {} more a second", rate(speed));
            let value =
                json!({ "time_ms": now_ms(), "topic": name, "messages": stored, "tps": speed });
            Ok((sentence, value))
        }
        Watched::Group => {
            let progress = admin.progress(name, None).await?;
            let done = progress
                .queues
                .iter()
                .map(|queue| queue.consumer_offset)
                .sum();
            let speed = per_second(before, done);
            let sentence = format!(
                "{name}: lag {}, {} consumed a second",
                progress.lag,
                rate(speed)
            );
            let value =
                json!({ "time_ms": now_ms(), "group": name, "lag": progress.lag, "tps": speed });
            Ok((sentence, value))
        }
    }
}

/// How fast a count has grown since the look before.
fn per_second(before: &mut Option<Look>, count: i64) -> f64 {
    let now = Look {
        at: Instant::now(),
        count,
    };
    let Some(last) = before.replace(now) else {
        return 0.0;
    };
    let seconds = now.at.duration_since(last.at).as_secs_f64();
    match seconds > 0.0 {
        true => (now.count - last.count) as f64 / seconds,
        false => 0.0,
    }
}
