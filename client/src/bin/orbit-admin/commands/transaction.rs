//! Transactions that are open.

use orbitmq_client::admin::Admin;
use protocol::names;
use serde::Serialize;
use serde_json::json;

use super::Done;
use crate::cli::Transaction;
use crate::output::Output;

/// The group in whose name a broker looks at half messages.
const GROUP: &str = "CID_RMQ_SYS_TRANS";

/// Half messages of a broker.
#[derive(Serialize)]
struct Row {
    broker: String,
    /// Half messages ever stored.
    halves: i64,
    /// Those before this place are decided.
    looked_at: i64,
    /// At most so many are open: decided ones may lie between them.
    open_at_most: i64,
    /// Decisions stored.
    decisions: i64,
}

pub async fn run(admin: &Admin, command: Transaction, output: &Output) -> Done {
    match command {
        Transaction::List => list(admin, output).await,
        Transaction::Resume { topic, id } => {
            admin.resume_check(&topic, &id).await?;
            output.done(
                &json!({ "asked_again": id }),
                &format!("{id} is asked about again"),
            );
            Ok(())
        }
    }
}

async fn list(admin: &Admin, output: &Output) -> Done {
    let mut rows = Vec::new();
    for broker in admin.masters(None).await? {
        let half = admin
            .end_of(&broker.address, names::TRANS_HALF_TOPIC)
            .await?;
        let decisions = admin
            .end_of(&broker.address, names::TRANS_OP_HALF_TOPIC)
            .await?;
        let topic = names::TRANS_HALF_TOPIC;
        let looked_at = admin.committed(&broker.address, GROUP, topic, 0).await?;
        let looked_at = looked_at.unwrap_or(0);
        rows.push(Row {
            broker: broker.name,
            halves: half,
            looked_at,
            open_at_most: (half - looked_at).max(0),
            decisions,
        });
    }
    let heads = [
        "BROKER",
        "#HALVES",
        "#DECIDED BEFORE",
        "#OPEN AT MOST",
        "#DECISIONS",
    ];
    output.rows(&rows, &heads, |row| {
        vec![
            row.broker.clone(),
            row.halves.to_string(),
            row.looked_at.to_string(),
            row.open_at_most.to_string(),
            row.decisions.to_string(),
        ]
    });
    Ok(())
}
