//! A stream whose messages come in any order: a bit for each number and each thing that can be said of it.

use super::Bits;

/// What the senders of a stream know.
#[derive(Default)]
pub(super) struct Sent {
    next: u64,
    acknowledged: Bits,
    doubtful: Bits,
    forbidden: Bits,
}

/// What a group got of a stream.
#[derive(Default)]
pub(super) struct Got {
    taken: Bits,
    refused: Bits,
    /// Refused, and came back as it should.
    retried: Bits,
}

/// What a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    First,
    /// To be refused: it has to come back.
    Refused,
    /// It was refused, and is back.
    Back,
    Duplicate,
}

impl Sent {
    pub fn begin(&mut self, is_forbidden: bool) -> u64 {
        let number = self.next;
        self.next += 1;
        if is_forbidden {
            self.forbidden.insert(number);
        }
        number
    }

    pub fn acknowledged(&mut self, number: u64) {
        debug_assert!(number < self.next);
        if !self.forbidden.contains(number) {
            self.acknowledged.insert(number);
        }
    }

    pub fn doubtful(&mut self, number: u64) {
        debug_assert!(number < self.next);
        self.doubtful.insert(number);
    }

    pub fn is_doubtful(&self, number: u64) -> bool {
        self.doubtful.contains(number)
    }

    /// It is never to be delivered: rolled back, or never sent.
    pub fn is_forbidden(&self, number: u64) -> bool {
        number >= self.next || self.forbidden.contains(number)
    }

    pub fn promised_count(&self) -> u64 {
        self.acknowledged.len()
    }

    pub fn forbidden_count(&self) -> u64 {
        self.forbidden.len()
    }

    pub fn doubtful_count(&self) -> u64 {
        self.doubtful.len()
    }
}

impl Got {
    pub fn deliver(&mut self, number: u64, is_retry: bool, may_refuse: bool) -> Verdict {
        let is_back = is_retry && self.refused.contains(number) && self.retried.insert(number);
        let was_refused = self.refused.contains(number);
        if !is_back && !was_refused && may_refuse && !self.taken.contains(number) {
            self.refused.insert(number);
            return Verdict::Refused;
        }
        let is_first = self.taken.insert(number);
        match (is_back, was_refused, is_first) {
            (true, _, _) => Verdict::Back,
            (false, false, true) => Verdict::First,
            // Refused once, and here once more though not by the retry topic: a second delivery of the first.
            _ => Verdict::Duplicate,
        }
    }

    pub fn missing<'a>(&'a self, sent: &'a Sent) -> impl Iterator<Item = u64> + 'a {
        sent.acknowledged.without(&self.taken)
    }

    pub fn retried_count(&self) -> u64 {
        self.retried.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_comes_back_once_and_is_no_duplicate() {
        let mut got = Got::default();
        assert_eq!(got.deliver(5, false, true), Verdict::Refused);
        assert_eq!(got.deliver(5, true, true), Verdict::Back);
        assert_eq!(got.deliver(5, true, true), Verdict::Duplicate);
        assert_eq!(got.deliver(6, false, false), Verdict::First);
        assert_eq!(got.deliver(6, false, false), Verdict::Duplicate);
        assert_eq!(got.deliver(6, false, true), Verdict::Duplicate);
        assert_eq!(got.retried_count(), 1);
    }

    #[test]
    fn a_second_first_delivery_of_what_was_refused_is_a_duplicate_and_takes_it() {
        let mut sent = Sent::default();
        let number = sent.begin(false);
        sent.acknowledged(number);
        let mut got = Got::default();
        assert_eq!(got.deliver(number, false, true), Verdict::Refused);
        assert_eq!(got.missing(&sent).count(), 1);
        assert_eq!(got.deliver(number, false, true), Verdict::Duplicate);
        assert_eq!(got.missing(&sent).count(), 0);
        assert_eq!(got.deliver(number, true, true), Verdict::Back);
    }

    #[test]
    fn only_what_was_acknowledged_can_be_missed_and_never_what_is_rolled_back() {
        let mut sent = Sent::default();
        let (kept, doubtful, rolled_back) =
            (sent.begin(false), sent.begin(false), sent.begin(true));
        sent.acknowledged(kept);
        sent.doubtful(doubtful);
        sent.acknowledged(rolled_back);
        let got = Got::default();
        assert_eq!(got.missing(&sent).collect::<Vec<_>>(), [kept]);
        assert!(sent.is_forbidden(rolled_back) && !sent.is_forbidden(doubtful));
        assert!(sent.is_forbidden(3), "a number that nobody sent");
        assert_eq!((sent.promised_count(), sent.forbidden_count()), (1, 1));
    }
}
