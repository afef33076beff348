//! The tables under `config/`: whether they can be read, and whether offsets make sense beside the log.

use std::path::{Path, PathBuf};

use engine::check::{Repair, Report};
use protocol::body::Body;
use protocol::body::offsets::{ConsumerOffsetTable, DelayOffsetTable};
use protocol::body::subscription_group::SubscriptionGroupTable;
use protocol::body::topic_config::TopicConfigTable;
use reactor::fs;

use crate::coordinator::state::{DELAY_OFFSETS, GROUPS, OFFSETS, TOPICS};

/// Topics whose queues RocketMQ 5.x lays out in a way of their own say so in this attribute.
const QUEUE_TYPE: &str = "queue.type";
const BATCH_QUEUE: &str = "BatchCQ";

/// Adds what is wrong with the tables to the report.
pub fn look(store: &Path, report: &mut Report) {
    let config = store.join("config");
    if let Some(topics) = read::<TopicConfigTable>(&config.join(TOPICS), report) {
        batch_topics(&config.join(TOPICS), &topics, report);
    }
    read::<SubscriptionGroupTable>(&config.join(GROUPS), report);
    read::<DelayOffsetTable>(&config.join(DELAY_OFFSETS), report);
    if let Some(offsets) = read::<ConsumerOffsetTable>(&config.join(OFFSETS), report) {
        beyond_end(&config.join(OFFSETS), &offsets, report);
    }
}

/// The table; a missing one is in order.
fn read<T: Body>(path: &Path, report: &mut Report) -> Option<T> {
    let problem = match load(path) {
        Ok(table) => return table,
        Err(problem) => problem,
    };
    let backup = PathBuf::from(format!("{}.bak", path.display()));
    match load(&backup) {
        Ok(Some(table)) => {
            let what = format!("{problem}; its backup is good, the next start uses that");
            report.note(path, None, what);
            Some(table)
        }
        _ => {
            const ADVICE: &str = "repair it, or delete it and its .bak to start with defaults";
            report.problem(path, None, problem, Repair::Impossible(ADVICE));
            None
        }
    }
}

fn load<T: Body>(path: &Path) -> Result<Option<T>, String> {
    if !fs::exists(path) {
        return Ok(None);
    }
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    T::from_json(&bytes)
        .map(Some)
        .map_err(|error| error.to_string())
}

fn batch_topics(path: &Path, table: &TopicConfigTable, report: &mut Report) {
    for (name, topic) in &table.topic_config_table {
        if topic.attributes.get(QUEUE_TYPE).map(String::as_str) == Some(BATCH_QUEUE) {
            let what = format!(
                "{name} has batch queues; OrbitMQ serves its batches, but does not count the messages in them"
            );
            report.note(path, None, what);
        }
    }
}

fn beyond_end(path: &Path, table: &ConsumerOffsetTable, report: &mut Report) {
    for (key, queues) in &table.offset_table {
        let topic = key.split('@').next().unwrap_or(key);
        for (id, offset) in queues {
            let Ok(queue) = u32::try_from(*id) else {
                continue;
            };
            let Some(known) = report.queues.get(&(topic.to_owned(), queue)) else {
                continue;
            };
            let end = known.end;
            if *offset > 0 && *offset as u64 > end {
                let what = format!("{key} stands at {offset} in queue {id}, which ends at {end}");
                report.note(path, None, what);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_cannot_be_read_is_a_problem_unless_its_backup_can() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config = dir.path().join("config");
        std::fs::create_dir(&config).expect("a temporary directory");
        std::fs::write(config.join(TOPICS), "{").expect("a temporary directory");
        let mut report = Report::default();
        look(dir.path(), &mut report);
        assert_eq!((report.problems, report.notes), (1, 0));
        std::fs::write(config.join("topics.json.bak"), "{}").expect("a temporary directory");
        let mut report = Report::default();
        look(dir.path(), &mut report);
        assert_eq!((report.problems, report.notes), (0, 1));
    }

    #[test]
    fn an_offset_beyond_the_end_of_its_queue_is_noted() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config = dir.path().join("config");
        std::fs::create_dir(&config).expect("a temporary directory");
        let table = r#"{"offsetTable":{"t@g":{0:5,1:7}}}"#;
        std::fs::write(config.join(OFFSETS), table).expect("a temporary directory");
        let mut report = Report::default();
        report.queues.insert(("t".to_owned(), 0), 0..5);
        report.queues.insert(("t".to_owned(), 1), 0..6);
        look(dir.path(), &mut report);
        assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
        assert!(report.findings[0].what.contains("queue 1"));
    }
}
