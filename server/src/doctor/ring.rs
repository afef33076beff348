//! io_uring: whether a core could be started at all.

use super::Finding;

pub fn examine() -> Finding {
    judge(reactor::probe().err().map(|error| error.to_string()))
}

/// The refusal names the way out itself.
fn judge(refused: Option<String>) -> Finding {
    match refused {
        None => Finding::ok("io_uring", "usable"),
        Some(sentence) => Finding::fail("io_uring", sentence, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn without_io_uring_the_broker_does_not_start() {
        assert_eq!(judge(None).verdict, Verdict::Ok);
        let refused = judge(Some("switched off: run sysctl".to_owned()));
        assert_eq!(refused.verdict, Verdict::Fail);
        assert!(refused.to_string().ends_with("switched off: run sysctl"));
    }
}
