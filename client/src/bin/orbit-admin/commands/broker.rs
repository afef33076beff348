//! Brokers and name servers: how they are, their settings.

use orbitmq_client::admin::{Admin, Broker as Known, Setting};
use serde_json::json;

use super::{Done, Failure, brokers, cluster};
use crate::cli::{Broker, Config, Namesrv, To};
use crate::output::Output;

pub async fn run(admin: &Admin, command: Broker, output: &Output) -> Done {
    match command {
        Broker::List => cluster::list(admin, output).await,
        Broker::Status { broker, filter } => {
            status(admin, broker, filter.as_deref().unwrap_or(""), output).await
        }
        Broker::Config(Config::Get { broker, word }) => {
            let known = one(admin, &broker).await?;
            let all = admin.broker_settings(&known.address).await?;
            settings(all, word.as_deref(), output)
        }
        Broker::Config(Config::Set { name, value, to }) => {
            let mut changed = Vec::new();
            for broker in brokers(admin, &to).await? {
                let address = &broker.address;
                admin.set_broker_setting(address, &name, &value).await?;
                changed.push(broker.name);
            }
            let sentence = format!("{name}={value} on {}", changed.join(", "));
            output.done(
                &json!({ "name": name, "value": value, "brokers": changed }),
                &sentence,
            );
            Ok(())
        }
        Broker::Writable { broker, writable } => {
            let topics = admin.set_broker_writable(&broker, writable).await?;
            let takes = if writable { "takes" } else { "does not take" };
            let sentence = format!("{broker} {takes} messages ({topics} topics changed)");
            let shown = json!({ "broker": broker, "writable": writable, "topics": topics });
            output.done(&shown, &sentence);
            Ok(())
        }
    }
}

async fn one(admin: &Admin, broker: &str) -> Result<Known, Failure> {
    let to = To {
        broker: Some(broker.to_owned()),
        cluster: None,
    };
    Ok(brokers(admin, &to).await?.remove(0))
}

async fn status(admin: &Admin, broker: Option<String>, word: &str, output: &Output) -> Done {
    let to = To {
        broker,
        cluster: None,
    };
    let word = word.to_lowercase();
    let mut all = Vec::new();
    for broker in brokers(admin, &to).await? {
        let runtime = admin.runtime(&broker.address).await?;
        let named = runtime.0.into_iter();
        let wanted = named.filter(|(name, _)| name.to_lowercase().contains(&word));
        all.extend(wanted.map(|(name, value)| (broker.name.clone(), name, value)));
    }
    if output.json {
        let mut shown = serde_json::Map::new();
        for (broker, name, value) in all {
            let own = shown.entry(broker).or_insert_with(|| json!({}));
            own[name] = json!(value);
        }
        output.value(&shown);
        return Ok(());
    }
    output.rows(
        &all,
        &["BROKER", "NAME", "VALUE"],
        |(broker, name, value)| vec![broker.clone(), name.clone(), value.clone()],
    );
    Ok(())
}

fn settings(mut all: Vec<Setting>, word: Option<&str>, output: &Output) -> Done {
    if let Some(word) = word {
        let word = word.to_lowercase();
        all.retain(|one| one.name.to_lowercase().contains(&word));
        if all.is_empty() {
            return Err(Failure::Told(format!(
                "there is no setting with {word} in its name"
            )));
        }
    }
    output.rows(&all, &["NAME", "VALUE"], |one| {
        vec![one.name.clone(), one.value.clone()]
    });
    Ok(())
}

pub async fn namesrv(admin: &Admin, command: Namesrv, output: &Output) -> Done {
    match command {
        Namesrv::Config { word } => {
            let first = admin.name_servers()[0].clone();
            let all = admin.name_server_settings(&first).await?;
            settings(all, word.as_deref(), output)
        }
        Namesrv::Set { name, value } => {
            for address in admin.name_servers() {
                admin
                    .set_name_server_setting(address, &name, &value)
                    .await?;
            }
            let sentence = format!("{name}={value}");
            output.done(&json!({ "name": name, "value": value }), &sentence);
            Ok(())
        }
    }
}
