//! Where groups stand, and where they are to go on.

use orbitmq_client::admin::{Admin, Moved, Target};
use serde_json::json;

use super::{Done, Failure, group};
use crate::cli::Offset;
use crate::output::Output;
use crate::when;

pub async fn run(admin: &Admin, command: Offset, output: &Output) -> Done {
    match command {
        Offset::Show { group, topic } => {
            group::progress(admin, &group, topic.as_deref(), output).await
        }
        Offset::Reset {
            group,
            topic,
            to,
            queue,
            dry_run,
        } => {
            let target = when::target(&to).map_err(Failure::Told)?;
            let moved = match dry_run {
                true => admin.plan_reset(&group, &topic, target, queue).await?,
                false => admin.reset_offsets(&group, &topic, target, queue).await?,
            };
            show(&moved, output);
            if dry_run {
                output.note("nothing was moved");
            }
            Ok(())
        }
        Offset::Skip { group, topic } => {
            let moved = admin
                .reset_offsets(&group, &topic, Target::Latest, None)
                .await?;
            show(&moved, output);
            Ok(())
        }
        Offset::Clone { from, to, topic } => {
            admin.clone_offsets(&from, &to, &topic).await?;
            let sentence = format!("{to} stands where {from} stands in {topic}");
            output.done(
                &json!({ "from": from, "to": to, "topic": topic }),
                &sentence,
            );
            Ok(())
        }
    }
}

fn show(moved: &[Moved], output: &Output) {
    output.rows(moved, &["BROKER", "#QUEUE", "#FROM", "#TO"], |queue| {
        let from = queue.from.map(|from| from.to_string());
        vec![
            queue.broker.clone(),
            queue.queue.to_string(),
            from.unwrap_or_else(|| "-".to_owned()),
            queue.to.to_string(),
        ]
    });
}
