//! Sends that the kernel finishes in the call that submits them, and that complete only if they fail or leave something over: what
//! says nothing by the end of the call has sent everything. So an answer does not end the sleep that follows it.

use std::cell::{Cell, RefCell};

use super::Completion;

/// In the `user_data` of a quiet send, so that its failure is found among completions; the slot's index is below it.
const QUIET_BIT: u64 = 1 << 32;

/// Sends submitted or to be submitted, whose end nobody has heard of.
pub(super) struct QuietSends {
    are_possible: bool,
    unsettled: RefCell<Vec<QuietSend>>,
    /// Somebody wants to know before the core sleeps.
    is_asked: Cell<bool>,
}

#[derive(Clone, Copy)]
struct QuietSend {
    user_data: u64,
    /// What it comes to when it says nothing.
    result: i32,
}

impl QuietSends {
    /// `are_possible`: of a send that stopped midway the kernel says how far it came (Linux 6.1).
    pub(super) fn new(are_possible: bool) -> QuietSends {
        QuietSends {
            are_possible,
            unsettled: RefCell::default(),
            is_asked: Cell::new(false),
        }
    }

    pub(super) fn are_possible(&self) -> bool {
        self.are_possible
    }

    pub(super) fn user_data(key: u32) -> u64 {
        QUIET_BIT | u64::from(key)
    }

    pub(super) fn begin(&self, key: u32, result: i32) {
        let user_data = QuietSends::user_data(key);
        self.unsettled
            .borrow_mut()
            .push(QuietSend { user_data, result });
    }

    /// The core does not sleep before the next `settle`.
    pub(super) fn ask(&self) {
        self.is_asked.set(true);
    }

    /// Whether the core may not sleep yet. Asked once per sleep.
    pub(super) fn forbid_sleep(&self) -> bool {
        self.is_asked.take() && !self.unsettled.borrow().is_empty()
    }

    /// Takes note of those that do say something. Called for all completions, before they are handed out.
    pub(super) fn hear(&self, completions: &[Completion]) {
        let mut unsettled = self.unsettled.borrow_mut();
        if unsettled.is_empty() {
            return;
        }
        for told in completions.iter().map(|completion| completion.user_data) {
            // Rare.
            if told >> 32 == QUIET_BIT >> 32 {
                unsettled.retain(|send| send.user_data != told);
            }
        }
    }

    /// Once everything was submitted and all completions were heard. Who said nothing is put in front of them: who has sent goes on
    /// before what has come is answered.
    pub(super) fn settle(&self, completions: &mut Vec<Completion>) {
        let mut unsettled = self.unsettled.borrow_mut();
        let silent = unsettled.drain(..).map(|send| Completion {
            user_data: send.user_data,
            result: send.result,
            flags: 0,
        });
        completions.splice(0..0, silent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completion(user_data: u64, result: i32) -> Completion {
        Completion {
            user_data,
            result,
            flags: 0,
        }
    }

    #[test]
    fn who_says_nothing_has_sent_all_and_comes_first() {
        let quiet = QuietSends::new(true);
        for (key, len) in [(3, 30), (4, 40), (5, 50), (u32::MAX, 60)] {
            quiet.begin(key, len);
        }
        quiet.ask();
        assert!(quiet.forbid_sleep());
        // 4 as another operation's number says nothing of the send; the ring's own numbers do not either.
        let mut completions = vec![
            completion(4, 1),
            completion(super::super::USER_DATA_WAKE, 0),
            completion(QuietSends::user_data(3), -libc::EAGAIN),
            completion(QuietSends::user_data(5), 20),
        ];
        quiet.hear(&completions);
        quiet.settle(&mut completions);
        let seen: Vec<(u64, i32)> = completions
            .iter()
            .map(|completion| (completion.user_data, completion.result))
            .collect();
        let expected = [
            (QuietSends::user_data(4), 40),
            (QuietSends::user_data(u32::MAX), 60),
            (4, 1),
            (super::super::USER_DATA_WAKE, 0),
            (QuietSends::user_data(3), -libc::EAGAIN),
            (QuietSends::user_data(5), 20),
        ];
        assert_eq!(seen, expected);
        // Nothing in flight: nobody is kept awake.
        quiet.ask();
        assert!(!quiet.forbid_sleep());
    }

    #[test]
    fn who_was_heard_is_not_settled_later() {
        let quiet = QuietSends::new(true);
        quiet.begin(3, 30);
        quiet.begin(4, 40);
        // Not all that was submitted has been taken yet, so nothing is settled this time.
        quiet.hear(&[completion(QuietSends::user_data(3), -libc::EPIPE)]);
        quiet.begin(5, 50);
        let mut completions = Vec::new();
        quiet.hear(&completions);
        quiet.settle(&mut completions);
        let seen: Vec<u64> = completions.iter().map(|told| told.user_data).collect();
        assert_eq!(seen, [4, 5].map(QuietSends::user_data));
    }
}
