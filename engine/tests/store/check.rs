//! What `check` finds in a store that nobody has open, and what it repairs.

use super::support::*;
use engine::Config;
use engine::check::{self, CannotCheck, Repair, Report, Request, Severity};
use reactor::{File, OpenOptions, fs};
use std::path::{Path, PathBuf};

async fn look(root: &Path, repair: bool) -> Report {
    let request = Request {
        root: root.to_path_buf(),
        log_dirs: Vec::new(),
        repair,
    };
    let report = check::check(&request, |_| {}).await;
    report.unwrap_or_else(|error| panic!("{error}"))
}

/// Some full segments, parts of the last one, closed in order.
async fn filled(root: &Path) -> (Config, Sent) {
    let config = small(root);
    let mut broker = Broker::open(config.clone()).await;
    for n in 0..300u32 {
        let topic = ["a", "b", "c"][n as usize % 3];
        broker.send(&[(topic, n % 2, 900, Some("tag"))]).await;
    }
    (config, broker.close().await)
}

fn flip(path: &Path, at: u64) {
    let options = OpenOptions {
        read: true,
        write: true,
        ..OpenOptions::default()
    };
    let file = File::open(path, options).expect("a file of the store");
    let mut byte = [0];
    file.read_exact_at_blocking(&mut byte, at).expect("inside");
    byte[0] ^= 0x10;
    file.write_all_at_blocking(&byte, at).expect("inside");
}

fn companions(root: &Path, suffix: &str) -> Vec<PathBuf> {
    let dir = root.join("orbit");
    let names = fs::list(&dir).expect("the companions' directory");
    let ours = names.into_iter().filter(|name| name.ends_with(suffix));
    ours.map(|name| dir.join(name)).collect()
}

fn problems(report: &Report) -> Vec<String> {
    let problems = report.findings.iter();
    let problems = problems.filter(|finding| finding.severity == Severity::Problem);
    problems.map(|finding| finding.to_string()).collect()
}

#[test]
fn a_look_changes_nothing_not_even_the_lock() {
    on_both(|root| async move {
        filled(&root).await;
        let lock = root.join("lock");
        let before = fs::read(&lock).expect("every store has one");
        look(&root, false).await;
        assert_eq!(fs::read(&lock).expect("it stays"), before);
        fs::remove_file(&lock).expect("nobody has it open");
        look(&root, false).await;
        assert!(!fs::exists(&lock));
        look(&root, true).await;
        assert!(fs::exists(&lock), "a repair keeps others out");
    });
}

#[test]
fn a_store_closed_in_order_is_clean_and_everything_in_it_was_looked_at() {
    on_both(|root| async move {
        let (_, sent) = filled(&root).await;
        let report = look(&root, false).await;
        assert!(report.is_clean() && report.closed, "{:?}", report.findings);
        let messages: usize = sent.queues.values().map(Vec::len).sum();
        assert_eq!((report.messages, report.records), (300, messages as u64));
        assert!(report.entries >= 300, "{}", report.entries);
        for (name, messages) in &sent.queues {
            assert_eq!(report.queues[name], 0..messages.len() as u64);
        }
    });
}

#[test]
fn any_damaged_companion_is_found_and_repaired() {
    on_both(|root| async move {
        let (config, sent) = filled(&root).await;
        let mut damaged = companions(&root, ".index");
        damaged.extend(companions(&root, ".part"));
        for path in &damaged {
            let len = fs::read(path).expect("a companion").len() as u64;
            flip(path, len - 200);
        }
        let report = look(&root, false).await;
        // Behind the first damaged part the others are not looked at.
        let expected = companions(&root, ".index").len() as u64 + 1;
        assert_eq!(report.problems, expected, "{:?}", problems(&report));
        let possible = |finding: &check::Finding| matches!(finding.repair, Repair::Possible(_));
        assert_eq!(
            report.findings.iter().filter(|f| possible(f)).count() as u64,
            expected
        );
        let report = look(&root, true).await;
        assert!(report.is_clean(), "{:?}", problems(&report));
        assert_eq!(report.repaired, expected);
        let report = look(&root, false).await;
        assert_eq!(report.problems, 0, "{:?}", problems(&report));
        let broker = Broker::reopen(config, sent).await;
        broker.check().await;
        broker.close().await;
    });
}

#[test]
fn a_flipped_bit_in_the_log_is_found_at_its_place_and_the_rest_is_still_read() {
    on_both(|root| async move {
        let (_, sent) = filled(&root).await;
        let hit = sent.queues[&("a".to_owned(), 0)][3].clone();
        flip(
            &root.join("commitlog").join(format!("{:020}", 0)),
            hit.log_offset + 300,
        );
        let report = look(&root, true).await;
        assert!(!report.is_clean());
        let found = report.findings.iter().find(|finding| {
            finding.offset == Some(hit.log_offset) && finding.what.contains("checksum")
        });
        let found = found.unwrap_or_else(|| panic!("{:?}", report.findings));
        assert!(matches!(found.repair, Repair::Impossible(_)));
        assert_eq!(report.records, 299);
    });
}

#[test]
fn a_store_in_use_is_refused_by_the_process_that_has_it() {
    on_ring(|root| async move {
        let broker = Broker::open(small(&root)).await;
        let request = Request {
            root: root.clone(),
            log_dirs: Vec::new(),
            repair: false,
        };
        match check::check(&request, |_| {}).await {
            Err(CannotCheck::InUse { holder, .. }) => {
                assert_eq!(holder, std::process::id().to_string());
            }
            other => panic!("{other:?}"),
        }
        broker.close().await;
    });
}

#[test]
fn a_killed_store_has_notes_and_no_problems() {
    on_both(|root| async move {
        let mut broker = Broker::open(small(&root)).await;
        for _ in 0..100 {
            broker.send(&[("t", 0, 900, None)]).await;
        }
        broker.kill();
        reactor::sleep(std::time::Duration::from_millis(100)).await;
        let report = look(&root, false).await;
        assert!(report.is_clean() && !report.closed, "{:?}", report.findings);
        assert!(report.notes > 0);
    });
}

#[test]
fn files_that_do_not_belong_there_are_named() {
    on_ring(|root| async move {
        filled(&root).await;
        let log = root.join("commitlog");
        fs::rename(&log.join(format!("{:020}", 64 << 10)), &log.join("kept")).expect("it is there");
        let report = look(&root, false).await;
        let problems = problems(&report);
        assert!(
            problems
                .iter()
                .any(|text| text.contains("kept: this is not a log file"))
        );
        assert!(
            problems.iter().any(|text| text.contains("is missing")),
            "{problems:?}"
        );
    });
}
