//! When a failed send is worth another try, and where.

use protocol::code::response;

use crate::error::Error;

pub(crate) struct Attempts {
    left: usize,
    /// The broker of the attempt before, to be avoided by the next.
    last_broker: Option<String>,
}

impl Attempts {
    pub fn new(attempts: usize) -> Attempts {
        Attempts {
            left: attempts.max(1),
            last_broker: None,
        }
    }

    pub fn tried(&mut self, broker_name: &str) {
        self.last_broker = Some(broker_name.to_owned());
    }

    pub fn avoid(&self) -> Option<&str> {
        self.last_broker.as_deref()
    }

    /// Uses up an attempt; false when this was the last one or another would fail alike.
    pub fn another(&mut self, error: &Error) -> bool {
        self.again() && is_worth_retrying(error)
    }

    /// Uses up an attempt; false when this was the last one.
    pub fn again(&mut self) -> bool {
        self.left -= 1;
        self.left > 0
    }
}

fn is_worth_retrying(error: &Error) -> bool {
    match error {
        Error::Connect { .. } | Error::Disconnected { .. } | Error::Timeout { .. } => true,
        Error::Refused { code, .. } => matches!(
            *code,
            response::SYSTEM_ERROR
                | response::SYSTEM_BUSY
                | response::SERVICE_NOT_AVAILABLE
                | response::TOPIC_NOT_EXIST
                | response::NO_PERMISSION
                | response::NO_BUYER_ID
                | response::NOT_IN_CURRENT_UNIT
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: i32) -> Error {
        Error::Refused {
            code,
            remark: String::new(),
        }
    }

    #[test]
    fn a_busy_broker_is_tried_again_until_attempts_run_out() {
        let mut attempts = Attempts::new(3);
        attempts.tried("a");
        assert!(attempts.another(&refused(response::SYSTEM_BUSY)));
        assert_eq!(attempts.avoid(), Some("a"));
        assert!(attempts.another(&refused(response::SYSTEM_BUSY)));
        assert!(!attempts.another(&refused(response::SYSTEM_BUSY)));
    }

    #[test]
    fn an_illegal_message_is_not_tried_again() {
        assert!(!Attempts::new(3).another(&refused(response::MESSAGE_ILLEGAL)));
        assert!(!Attempts::new(3).another(&Error::ShutDown));
    }
}
