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

#[test]
fn a_whole_examination_says_something_about_everything_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let settings = crate::config::tests::settings(&[
        ("storePathRootDir", &dir.path().to_string_lossy()),
        ("bindAddress", "127.0.0.1"),
        ("listenPort", "20103"),
        ("namesrvListenPort", "20105"),
    ]);
    let remarks = [Remark::Warning("unknown key".to_owned())];
    let report = examine(&settings, &remarks);
    let text = report.to_string();
    for thing in [
        "settings: unknown key",
        "io_uring:",
        "open files:",
        "locked memory:",
        "CPUs:",
        "memory:",
        "clock:",
        "time of day:",
        "store time:",
        "store disk at",
        "space at",
        "port 20103: is free",
        "port 20101: is free",
        "advertised address 127.0.0.1:20103",
        "name server 127.0.0.1:20105: starts and ends with this broker",
    ] {
        assert!(text.contains(thing), "no `{thing}` in\n{text}");
    }
    let left = std::fs::read_dir(dir.path()).expect("still there").count();
    assert_eq!(left, 0);
}
