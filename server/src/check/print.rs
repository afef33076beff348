//! A report as lines for people, or as one JSON object for programs.

use std::fmt::Write;

use engine::check::{Finding, Repair, Report, Severity};
use serde_json::{Value, json};

/// One line per finding, and a summary.
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{finding}");
    }
    let unlisted = report.problems + report.notes - report.findings.len() as u64;
    if unlisted > 0 {
        let _ = writeln!(text, "and {unlisted} findings more");
    }
    let _ = writeln!(
        text,
        "{} log files, {} records ({} messages in {} queues) from {} to {}; {} index files with {} entries",
        report.segments,
        report.records,
        report.messages,
        report.queues.len(),
        report.first,
        report.end,
        report.companions,
        report.entries,
    );
    let _ = writeln!(
        text,
        "{}: {} problems, {} repaired, {} notes",
        verdict(report),
        report.problems,
        report.repaired,
        report.notes,
    );
    text
}

/// Everything, as one object.
pub fn json(report: &Report) -> String {
    let findings: Vec<Value> = report.findings.iter().map(finding).collect();
    let whole = json!({
        "verdict": verdict(report),
        "problems": report.problems,
        "repaired": report.repaired,
        "notes": report.notes,
        "segments": report.segments,
        "segmentBytes": report.segment_bytes,
        "firstOffset": report.first,
        "endOffset": report.end,
        "logBytesRead": report.log_bytes_read,
        "records": report.records,
        "messages": report.messages,
        "queues": report.queues.len(),
        "indexFiles": report.companions,
        "indexEntries": report.entries,
        "closedInOrder": report.closed,
        "writtenByRocketMQ": report.rocketmqs,
        "findings": findings,
    });
    format!("{whole:#}\n")
}

fn verdict(report: &Report) -> &'static str {
    match (report.is_clean(), report.problems) {
        (true, 0) => "clean",
        (true, _) => "repaired",
        (false, _) => "damaged",
    }
}

fn finding(finding: &Finding) -> Value {
    let severity = match finding.severity {
        Severity::Note => "note",
        Severity::Problem => "problem",
    };
    let (repair, how) = match finding.repair {
        Repair::Unneeded => ("unneeded", ""),
        Repair::Possible(how) => ("possible", how),
        Repair::Done(how) => ("done", how),
        Repair::Impossible(advice) => ("impossible", advice),
    };
    json!({
        "severity": severity,
        "file": finding.file.to_string_lossy(),
        "offset": finding.offset,
        "what": finding.what,
        "repair": repair,
        "how": how,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_repaired_problem_is_no_problem_any_more_and_a_note_never_was() {
        let mut report = Report::default();
        report.note(Path::new("abort"), None, "not closed");
        assert!(text(&report).ends_with("clean: 0 problems, 0 repaired, 1 notes\n"));
        report.problem(
            Path::new("a.index"),
            None,
            "torn",
            Repair::Done("made again"),
        );
        assert!(report.is_clean());
        let line = "PROBLEM  a.index: torn; repaired: made again\n";
        assert!(text(&report).contains(line), "{}", text(&report));
        report.problem(
            Path::new("0"),
            Some(7),
            "damaged",
            Repair::Impossible("use a copy"),
        );
        assert!(!report.is_clean());
        let parsed: Value = serde_json::from_str(&json(&report)).expect("it is JSON");
        assert_eq!(parsed["verdict"], "damaged");
        assert_eq!(parsed["findings"][2]["offset"], 7);
        assert_eq!(parsed["findings"][2]["how"], "use a copy");
    }
}
