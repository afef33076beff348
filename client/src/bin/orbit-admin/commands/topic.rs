//! Topics: where they are, how full, made and deleted.

use orbitmq_client::admin::{Admin, NewTopic, Topic as Kept};
use orbitmq_client::time::show_ms;
use serde::Serialize;
use serde_json::json;

use super::{Done, Failure, brokers, confirm};
use crate::cli::{To, Topic};
use crate::output::Output;

/// How a broker keeps a topic.
#[derive(Serialize)]
struct Shown {
    broker: String,
    #[serde(flatten)]
    topic: Kept,
}

pub async fn run(admin: &Admin, command: Topic, output: &Output) -> Done {
    match command {
        Topic::List { all } => list(admin, all, output).await,
        Topic::Route { topic } => route(admin, &topic, output).await,
        Topic::Status { topic } => status(admin, &topic, output).await,
        Topic::Show { topic } => show(admin, &topic, output).await,
        Topic::Create {
            topic,
            queues,
            read,
            write,
            perm,
            order,
            attributes,
            to,
        } => {
            let wanted = NewTopic {
                name: topic,
                read_queues: read.unwrap_or(queues),
                write_queues: write.unwrap_or(queues),
                perm,
                order,
                attributes,
            };
            create(admin, &wanted, &to, output).await
        }
        Topic::Perm { topic, perm, to } => set_perm(admin, &topic, perm, &to, output).await,
        Topic::Delete {
            topic,
            cluster,
            yes,
        } => {
            confirm(&format!("delete topic {topic} and its messages"), yes)?;
            admin.delete_topic(&topic, cluster.as_deref()).await?;
            output.done(&json!({ "deleted": topic }), &format!("{topic} is deleted"));
            Ok(())
        }
        Topic::Groups { topic } => {
            let groups = admin.readers(&topic).await?;
            output.rows(&groups, &["GROUP"], |group| vec![group.clone()]);
            Ok(())
        }
    }
}

async fn list(admin: &Admin, all: bool, output: &Output) -> Done {
    let mut topics = admin.topics().await?;
    if !all {
        topics.retain(|topic| !is_of_the_system(topic));
    }
    output.rows(&topics, &["TOPIC"], |topic| vec![topic.clone()]);
    Ok(())
}

fn is_of_the_system(topic: &str) -> bool {
    use protocol::names;

    let bare = topic.ends_with(names::REPLY_TOPIC_SUFFIX);
    bare || names::is_system_topic(topic)
        || names::is_retry_topic(topic)
        || names::is_dlq_topic(topic)
}

async fn route(admin: &Admin, topic: &str, output: &Output) -> Done {
    let route = admin.route(topic).await?;
    if output.json {
        output.value(&route);
        return Ok(());
    }
    let heads = ["CLUSTER", "BROKER", "ADDRESSES", "#READ", "#WRITE", "PERM"];
    output.rows(&route.queues, &heads, |queues| {
        let broker = route.brokers.iter().find(|one| one.name == queues.broker);
        let addresses = broker.map(|broker| {
            let each = broker.addresses.iter();
            let each = each.map(|(id, address)| format!("{id}={address}"));
            each.collect::<Vec<_>>().join(" ")
        });
        vec![
            broker
                .map(|broker| broker.cluster.clone())
                .unwrap_or_default(),
            queues.broker.clone(),
            addresses.unwrap_or_default(),
            queues.read_queues.to_string(),
            queues.write_queues.to_string(),
            queues.perm.clone(),
        ]
    });
    Ok(())
}

pub async fn status(admin: &Admin, topic: &str, output: &Output) -> Done {
    let queues = admin.topic_status(topic).await?;
    let heads = [
        "BROKER",
        "#QUEUE",
        "#MIN",
        "#MAX",
        "#MESSAGES",
        "LAST STORED (UTC)",
    ];
    output.rows(&queues, &heads, |queue| {
        vec![
            queue.broker.clone(),
            queue.queue.to_string(),
            queue.min_offset.to_string(),
            queue.max_offset.to_string(),
            queue.messages.to_string(),
            show_ms(queue.last_stored_ms),
        ]
    });
    Ok(())
}

async fn show(admin: &Admin, topic: &str, output: &Output) -> Done {
    let mut rows = Vec::new();
    for broker in admin.masters(None).await? {
        if let Some(topic) = admin.topic_on(&broker.address, topic).await? {
            rows.push(Shown {
                broker: broker.name,
                topic,
            });
        }
    }
    if rows.is_empty() {
        return Err(Failure::Told(format!("no broker has a topic {topic}")));
    }
    let heads = ["BROKER", "#READ", "#WRITE", "PERM", "ORDER", "ATTRIBUTES"];
    output.rows(&rows, &heads, |row| {
        let topic = &row.topic;
        let attributes = topic.attributes.iter();
        let attributes = attributes.map(|(name, value)| format!("{name}={value}"));
        vec![
            row.broker.clone(),
            topic.read_queues.to_string(),
            topic.write_queues.to_string(),
            topic.perm.clone(),
            topic.order.to_string(),
            attributes.collect::<Vec<_>>().join(" "),
        ]
    });
    Ok(())
}

async fn create(admin: &Admin, wanted: &NewTopic, to: &To, output: &Output) -> Done {
    let mut made = Vec::new();
    for broker in brokers(admin, to).await? {
        admin.create_topic(&broker.address, wanted).await?;
        made.push(broker.name);
    }
    let (topic, queues) = (&wanted.name, wanted.write_queues);
    let sentence = format!("{topic} has {queues} queues on {}", made.join(", "));
    output.done(&json!({ "topic": topic, "brokers": made }), &sentence);
    Ok(())
}

async fn set_perm(admin: &Admin, topic: &str, perm: i32, to: &To, output: &Output) -> Done {
    let mut changed = Vec::new();
    for broker in brokers(admin, to).await? {
        admin.set_topic_perm(&broker.address, topic, perm).await?;
        changed.push(broker.name);
    }
    let shown = protocol::permission::to_text(perm);
    let sentence = format!("{topic} is {shown} on {}", changed.join(", "));
    output.done(
        &json!({ "topic": topic, "perm": shown, "brokers": changed }),
        &sentence,
    );
    Ok(())
}
