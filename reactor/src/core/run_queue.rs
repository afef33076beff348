//! How long this thread waited for its CPU while others ran on it: what the kernel counts in `/proc/thread-self/schedstat`
//! (proc(5): time on the CPU, time runnable but not on it, both in ns). The time that a hypervisor took is not in there.

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Two readings lie at least so far apart: one costs about two microseconds.
const INTERVAL_NS: u64 = 5_000_000;
/// Three numbers of up to 20 digits.
const LINE_BYTES_MAX: usize = 64;

/// Belongs to one thread.
pub(super) struct RunQueue {
    /// None: the kernel does not tell, or nobody asks.
    file: Option<File>,
    last: Cell<Reading>,
}

#[derive(Clone, Copy, Default)]
struct Reading {
    at_ns: u64,
    waited_ns: u64,
}

impl Reading {
    /// The least that was waited since `began_ns` if it is `waited_ns` by now: all of the time between the reading and the
    /// beginning may have been spent waiting.
    fn waited_since(self, began_ns: u64, waited_ns: u64) -> u64 {
        let before_ns = began_ns.saturating_sub(self.at_ns);
        waited_ns
            .saturating_sub(self.waited_ns)
            .saturating_sub(before_ns)
    }
}

impl RunQueue {
    /// For a thread that nobody watches.
    pub(super) fn unknown() -> RunQueue {
        RunQueue {
            file: None,
            last: Cell::default(),
        }
    }

    /// Of the calling thread.
    pub(super) fn of_this_thread() -> RunQueue {
        RunQueue {
            file: File::open("/proc/thread-self/schedstat").ok(),
            last: Cell::default(),
        }
    }

    /// To be called now and then.
    #[inline]
    pub(super) fn look(&self, now_ns: u64) {
        if now_ns.saturating_sub(self.last.get().at_ns) >= INTERVAL_NS {
            self.read(now_ns);
        }
    }

    /// How long the thread waited since `began_ns`, at least.
    pub(super) fn waited_since(&self, began_ns: u64, now_ns: u64) -> u64 {
        let before = self.last.get();
        before.waited_since(began_ns, self.read(now_ns))
    }

    fn read(&self, now_ns: u64) -> u64 {
        let known = self.last.get().waited_ns;
        let mut line = [0; LINE_BYTES_MAX];
        let read = self.file.as_ref().map(|file| file.read_at(&mut line, 0));
        let waited_ns = match read {
            Some(Ok(len)) => waited_ns(&line[..len]).unwrap_or(known),
            _ => known,
        };
        self.last.set(Reading {
            at_ns: now_ns,
            waited_ns,
        });
        waited_ns
    }
}

fn waited_ns(line: &[u8]) -> Option<u64> {
    let mut numbers = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    numbers.nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_number_of_the_line_is_the_wait() {
        assert_eq!(waited_ns(b"12 34567 89\n"), Some(34_567));
        for broken in [b"".as_slice(), b"12", b"12 x 3", b"\xff 1 2"] {
            assert_eq!(waited_ns(broken), None);
        }
    }

    #[test]
    fn what_may_have_been_waited_before_is_not_counted() {
        let before = Reading {
            at_ns: 1_000,
            waited_ns: 50,
        };
        assert_eq!(before.waited_since(1_000, 90), 40);
        assert_eq!(before.waited_since(1_030, 90), 10);
        assert_eq!(before.waited_since(9_000, 90), 0);
    }

    #[test]
    fn a_thread_that_is_alone_or_cannot_know_has_waited_for_nothing() {
        let unknown = RunQueue::unknown();
        unknown.look(INTERVAL_NS);
        assert_eq!(unknown.waited_since(INTERVAL_NS, 2 * INTERVAL_NS), 0);
        assert_eq!(unknown.last.get().at_ns, 2 * INTERVAL_NS);
    }
}
