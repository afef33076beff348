use protocol::properties;

use super::*;

/// Expressions, and what RocketMQ's own classes made of them for a number of messages.
const ROCKETMQ: &str = include_str!("rocketmq.tsv");

fn unescaped(text: &str) -> String {
    let mut plain = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        plain.push(match (letter, letter == '\\') {
            (_, true) => match letters.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                Some('f') => '\x0c',
                Some(other) => other,
                None => break,
            },
            (letter, false) => letter,
        });
    }
    plain
}

/// From `a=1;b=2`; a name without a value is no property.
fn properties_of(row: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let pairs = row.split(';').filter_map(|pair| pair.split_once('='));
    for (name, value) in pairs.filter(|(_, value)| !value.is_empty()) {
        properties::append(&mut bytes, 0, name, value.as_bytes());
    }
    bytes
}

fn outcome(expression: &str, messages: &[Vec<u8>]) -> String {
    match SqlFilter::compile(expression) {
        Err(_) => "refused".to_owned(),
        Ok(filter) => messages
            .iter()
            .map(|message| if filter.accepts(message) { '1' } else { '0' })
            .collect(),
    }
}

#[test]
fn every_sentence_means_what_it_means_to_rocketmq() {
    let table = std::env::var("ORBIT_SQL_TABLE").ok();
    let table = table
        .map(|path| std::fs::read_to_string(path).expect("the table named by ORBIT_SQL_TABLE"));
    let table = table.as_deref().unwrap_or(ROCKETMQ);
    let (mut messages, mut compared, mut wrong) = (Vec::new(), 0, Vec::new());
    for line in table.lines().filter(|line| !line.starts_with("# ")) {
        let (first, second) = line.split_once('\t').expect("two columns");
        if first == "#row" {
            messages.push(properties_of(&unescaped(second)));
            continue;
        }
        let expression = unescaped(first);
        let ours = outcome(&expression, &messages);
        if ours != second {
            wrong.push(format!("{expression:?}: {second}, here {ours}"));
        }
        compared += 1;
    }
    assert!(compared > 1000, "the table has only {compared} lines");
    let shown = &wrong[..wrong.len().min(30)];
    assert!(
        wrong.is_empty(),
        "{} of {compared}: {shown:#?}",
        wrong.len()
    );
}

#[test]
fn nothing_that_nests_without_end_is_taken() {
    for open in ["(", "NOT ", "-", "+ "] {
        let deep = format!("{}a", open.repeat(200_000));
        assert!(SqlFilter::compile(&deep).is_err(), "{open}");
    }
    let chained = format!("a{}", " = b".repeat(200_000));
    assert_eq!(SqlFilter::compile(&chained), Err(Refused::TooDeep));
    let long = vec!["a = 1"; 50_000].join(" OR ");
    let long = SqlFilter::compile(&long).expect("long, but not deep");
    assert!(long.accepts(b"a\x011\x02"));
}

#[test]
fn a_rest_that_means_nothing_is_noticed() {
    let says = |text: &str| SqlFilter::compile(text).map(|filter| filter.passes_over_a_rest());
    assert_eq!(says("a = 1"), Ok(false));
    assert_eq!(says("a LIKE 'x'"), Ok(true));
}

#[test]
fn refusals_name_the_place() {
    let refused = SqlFilter::compile("a = 1 AND b >").expect_err("nothing to compare with");
    assert_eq!(
        refused.to_string(),
        "Invalid MessageSelector. Behind byte 13: expected a value"
    );
}
