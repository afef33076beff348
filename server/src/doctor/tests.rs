use super::*;

#[test]
fn the_worst_finding_is_the_exit_code() {
    let ok = Finding::ok("a", "b");
    let warn = Finding::warn("a", "b", "c");
    let fail = Finding::fail("a", "b", "c");
    let code = |findings: &[&Finding]| {
        let findings = findings.iter().map(|&finding| finding.clone()).collect();
        Report { findings }.exit_code()
    };
    assert_eq!(code(&[]), 0);
    assert_eq!(code(&[&ok]), 0);
    assert_eq!(code(&[&ok, &warn]), 1);
    assert_eq!(code(&[&fail, &warn, &ok]), 2);
}

#[test]
fn a_finding_is_one_line_and_the_report_is_json_too() {
    let report = Report {
        findings: vec![
            Finding::ok("clock", "goes on"),
            Finding::fail("ports", "10911 is taken", "stop who has it"),
        ],
    };
    assert_eq!(
        report.to_string(),
        "ok    clock: goes on\nFAIL  ports: 10911 is taken; stop who has it\n"
    );
    let json: serde_json::Value = serde_json::from_str(&report.to_json()).expect("valid JSON");
    assert_eq!(json["verdict"], "fail");
    assert_eq!(json["findings"][1]["thing"], "ports");
    assert!(json["findings"][0].get("advice").is_none());
}
