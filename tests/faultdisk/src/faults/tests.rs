use super::*;

fn faults(lines: &[&str]) -> Faults {
    let mut faults = Faults::default();
    for line in lines {
        match parse(line).expect("a command") {
            Command::Fail(rule) => faults.add_rule(rule),
            Command::Slow(slow) => faults.set_slow(slow),
            Command::Flip(flip) => faults.add_flip(flip),
            Command::Bad(bad) => faults.add_bad(bad),
            other => panic!("{other:?} is not about faults"),
        }
    }
    faults
}

#[test]
fn a_rule_strikes_its_operations_on_its_paths_as_often_as_said() {
    let mut faults = faults(&["fail fsync,write EIO commitlog/* 2"]);
    assert_eq!(faults.fate(Op::Read, "commitlog/0"), Fate::Fine);
    assert_eq!(faults.fate(Op::Fsync, "config/topics"), Fate::Fine);
    assert_eq!(
        faults.fate(Op::Fsync, "commitlog/0"),
        Fate::Errno(libc::EIO)
    );
    assert_eq!(
        faults.fate(Op::Write, "commitlog/1"),
        Fate::Errno(libc::EIO)
    );
    assert_eq!(faults.fate(Op::Write, "commitlog/1"), Fate::Fine);
    assert_eq!(faults.struck, 2);
}

#[test]
fn patterns_reach_over_slashes() {
    assert!(matches("*", "store/commitlog/0"));
    assert!(matches("*/commitlog/*", "store/commitlog/0"));
    assert!(!matches("*/commitlog/*", "commitlog/0"));
    assert!(matches("a", "a") && !matches("a", "ab"));
    assert!(matches("*.spare", "orbit/1.spare"));
}

#[test]
fn a_bad_range_is_widened_to_sectors() {
    let mut faults = faults(&["bad log 1000 10"]);
    assert!(faults.is_bad("log", 512, 1));
    assert!(faults.is_bad("log", 0, 4096));
    assert!(!faults.is_bad("log", 0, 512));
    assert!(!faults.is_bad("log", 1024, 512));
    assert!(!faults.is_bad("other", 512, 1));
}

#[test]
fn a_flipped_bit_is_wrong_in_every_read_that_covers_it() {
    let mut faults = faults(&["flip log 5 7"]);
    let mut bytes = [0; 4];
    faults.flip("log", 4, &mut bytes);
    assert_eq!(bytes, [0, 128, 0, 0]);
    faults.flip("log", 6, &mut bytes);
    assert_eq!(bytes, [0, 128, 0, 0]);
}

#[test]
fn slowness_is_per_operation_and_cleared_with_the_rest() {
    let mut faults = faults(&["slow 1500 fsync", "fail read EIO"]);
    assert_eq!(faults.delay(Op::Fsync), Duration::from_micros(1500));
    assert_eq!(faults.delay(Op::Read), Duration::ZERO);
    faults.clear();
    assert_eq!(faults.delay(Op::Fsync), Duration::ZERO);
    assert_eq!(faults.fate(Op::Read, "x"), Fate::Fine);
}

#[test]
fn what_is_not_a_command_is_refused_in_words() {
    for line in [
        "",
        "fail",
        "fail fsync ENOENT",
        "slow much",
        "bad x 1",
        "fail read EIO * 0",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
    assert_eq!(
        parse("mark ack t 1  2"),
        Ok(Command::Mark("ack t 1  2".into()))
    );
}
