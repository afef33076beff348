//! Consumer groups: who is in them, how far they are, made and deleted.

use orbitmq_client::admin::{Admin, Member, Running};
use orbitmq_client::time::show_ms;
use protocol::body::subscription_group::SubscriptionGroupConfig;
use serde::Serialize;
use serde_json::json;

use super::{Done, Failure, brokers, confirm};
use crate::cli::{Group, To};
use crate::output::{Output, rate};

pub async fn run(admin: &Admin, command: Group, output: &Output) -> Done {
    match command {
        Group::List { cluster } => list(admin, cluster.as_deref(), output).await,
        Group::Progress { group, topic } => progress(admin, &group, topic.as_deref(), output).await,
        Group::Connections { group } => connections(admin, &group, output).await,
        Group::Producers { group } => {
            let producers = admin.producers(&group).await?;
            members(&producers, output);
            Ok(())
        }
        Group::Running {
            group,
            client,
            stacks,
        } => running(admin, &group, client.as_deref(), stacks, output).await,
        Group::Show { group } => show(admin, &group, output).await,
        Group::Create {
            group,
            retries,
            retry_queues,
            consume,
            broadcast,
            orderly,
            to,
        } => {
            let change = |settings: &mut SubscriptionGroupConfig| {
                let known = settings.clone();
                settings.retry_max_times = retries.unwrap_or(known.retry_max_times);
                settings.retry_queue_nums = retry_queues.unwrap_or(known.retry_queue_nums);
                settings.consume_enable = consume.unwrap_or(known.consume_enable);
                settings.consume_broadcast_enable =
                    broadcast.unwrap_or(known.consume_broadcast_enable);
                settings.consume_message_orderly = orderly.unwrap_or(known.consume_message_orderly);
            };
            create(admin, &group, &to, change, output).await
        }
        Group::Delete {
            group,
            cluster,
            with_offsets,
            yes,
        } => {
            confirm(&format!("delete group {group}"), yes)?;
            admin
                .delete_group(&group, cluster.as_deref(), with_offsets)
                .await?;
            output.done(&json!({ "deleted": group }), &format!("{group} is deleted"));
            Ok(())
        }
        Group::Topics { group } => {
            let topics = admin.topics_read_by(&group).await?;
            output.rows(&topics, &["TOPIC"], |topic| vec![topic.clone()]);
            Ok(())
        }
    }
}

async fn list(admin: &Admin, cluster: Option<&str>, output: &Output) -> Done {
    let groups = admin.groups(cluster).await?;
    let heads = ["GROUP", "#MEMBERS", "MODEL", "TYPE", "#TPS", "#LAG"];
    output.rows(&groups, &heads, |group| {
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        vec![
            group.name.clone(),
            group.members.to_string(),
            or_none(&group.model),
            or_none(&group.kind),
            rate(group.tps),
            group.lag.to_string(),
        ]
    });
    Ok(())
}

pub async fn progress(admin: &Admin, group: &str, topic: Option<&str>, output: &Output) -> Done {
    let progress = admin.progress(group, topic).await?;
    if output.json {
        output.value(&progress);
        return Ok(());
    }
    let heads = [
        "TOPIC",
        "BROKER",
        "#QUEUE",
        "#BROKER OFFSET",
        "#CONSUMER OFFSET",
        "#LAG",
        "LAST CONSUMED (UTC)",
    ];
    output.rows(&progress.queues, &heads, |queue| {
        vec![
            queue.topic.clone(),
            queue.broker.clone(),
            queue.queue.to_string(),
            queue.broker_offset.to_string(),
            queue.consumer_offset.to_string(),
            queue.lag.to_string(),
            show_ms(queue.last_consumed_ms),
        ]
    });
    output.note(&format!(
        "lag {} at {} messages a second",
        progress.lag,
        rate(progress.tps)
    ));
    Ok(())
}

async fn connections(admin: &Admin, group: &str, output: &Output) -> Done {
    let connected = admin.members(group).await?;
    let subscriptions = admin.subscriptions(group).await?;
    if output.json {
        output.value(&json!({ "members": connected, "subscriptions": subscriptions }));
        return Ok(());
    }
    members(&connected, output);
    for (topic, expression) in subscriptions {
        output.note(&format!("{topic}: {expression}"));
    }
    Ok(())
}

fn members(all: &[Member], output: &Output) {
    let heads = ["CLIENT", "ADDRESS", "LANGUAGE", "#VERSION"];
    output.rows(all, &heads, |member| {
        vec![
            member.client_id.clone(),
            member.address.clone(),
            member.language.clone(),
            member.version.to_string(),
        ]
    });
}

async fn running(
    admin: &Admin,
    group: &str,
    client: Option<&str>,
    stacks: bool,
    output: &Output,
) -> Done {
    let mut all: Vec<Running> = Vec::new();
    for member in admin.members(group).await? {
        if client.is_none_or(|client| client == member.client_id) {
            all.push(admin.running(group, &member.client_id, stacks).await?);
        }
    }
    if all.is_empty() {
        return Err(Failure::Told(format!(
            "no such member of {group} is connected"
        )));
    }
    if output.json {
        output.value(&all);
        return Ok(());
    }
    let queues: Vec<_> = all
        .iter()
        .flat_map(|one| one.queues.iter().map(move |queue| (&one.client_id, queue)))
        .collect();
    let heads = [
        "CLIENT",
        "TOPIC",
        "BROKER",
        "#QUEUE",
        "#OFFSET",
        "#CACHED",
        "LOCKED",
        "LAST CONSUMED (UTC)",
    ];
    output.rows(&queues, &heads, |(client, queue)| {
        vec![
            (*client).clone(),
            queue.topic.clone(),
            queue.broker.clone(),
            queue.queue.to_string(),
            queue.offset.to_string(),
            queue.cached.to_string(),
            queue.locked.to_string(),
            show_ms(queue.last_consume_ms),
        ]
    });
    for one in &all {
        for topic in &one.topics {
            output.note(&format!(
                "{} {}: pulls {}/s in {:.1} ms, consumes {}/s in {:.1} ms, fails {}/s",
                one.client_id,
                topic.topic,
                rate(topic.pull_tps),
                topic.pull_ms,
                rate(topic.ok_tps),
                topic.consume_ms,
                rate(topic.failed_tps)
            ));
        }
        if let Some(stacks) = &one.stacks {
            output.note(&format!("{}:\n{stacks}", one.client_id));
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct Shown {
    broker: String,
    #[serde(flatten)]
    settings: SubscriptionGroupConfig,
}

async fn show(admin: &Admin, group: &str, output: &Output) -> Done {
    let mut rows = Vec::new();
    for broker in admin.masters(None).await? {
        let all = admin.group_settings(&broker.address).await?;
        let own = all.into_iter().find(|one| one.group_name == group);
        rows.extend(own.map(|settings| Shown {
            broker: broker.name,
            settings,
        }));
    }
    if rows.is_empty() {
        return Err(Failure::Told(format!("no broker has a group {group}")));
    }
    let heads = [
        "BROKER",
        "CONSUME",
        "BROADCAST",
        "ORDERLY",
        "#RETRIES",
        "#RETRY QUEUES",
    ];
    output.rows(&rows, &heads, |row| {
        let settings = &row.settings;
        vec![
            row.broker.clone(),
            settings.consume_enable.to_string(),
            settings.consume_broadcast_enable.to_string(),
            settings.consume_message_orderly.to_string(),
            settings.retry_max_times.to_string(),
            settings.retry_queue_nums.to_string(),
        ]
    });
    Ok(())
}

/// What is not said stays as it is.
async fn create(
    admin: &Admin,
    group: &str,
    to: &To,
    change: impl Fn(&mut SubscriptionGroupConfig),
    output: &Output,
) -> Done {
    let mut made = Vec::new();
    for broker in brokers(admin, to).await? {
        let known = admin.group_settings(&broker.address).await?;
        let known = known.into_iter().find(|one| one.group_name == group);
        let mut settings = known.unwrap_or_else(|| SubscriptionGroupConfig {
            group_name: group.to_owned(),
            ..SubscriptionGroupConfig::default()
        });
        change(&mut settings);
        admin.create_group(&broker.address, &settings).await?;
        made.push(broker.name);
    }
    let sentence = format!("{group} is on {}", made.join(", "));
    output.done(&json!({ "group": group, "brokers": made }), &sentence);
    Ok(())
}
