//! Says what is wrong, why, and what to do.

use std::process::ExitCode;

use orbitmq_client::admin::{Admin, Severity};

use crate::output::Output;

/// Fails if something is bad: a script may ask.
pub async fn run(
    admin: &Admin,
    topic: Option<String>,
    group: Option<String>,
    output: &Output,
) -> ExitCode {
    let found = admin.doctor(topic.as_deref(), group.as_deref()).await;
    if output.json {
        output.value(&found);
    }
    for finding in &found {
        let mark = match finding.severity {
            Severity::Good => "ok  ",
            Severity::Warning => "warn",
            Severity::Bad => "BAD ",
        };
        output.note(&format!("{mark}  {}", finding.what));
        if !finding.advice.is_empty() {
            output.note(&format!("      {}", finding.advice));
        }
    }
    match found
        .iter()
        .any(|finding| finding.severity == Severity::Bad)
    {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}
