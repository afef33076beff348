//! How long the broker's threads were ready to run and had no CPU, from one look to the next: what a stall may be due to
//! where other programs run beside it.

use std::collections::HashMap;
use std::fs;

#[derive(Default)]
pub struct Waits {
    /// Nanoseconds so far, by thread.
    so_far: HashMap<u32, u64>,
    /// The longest of a thread, in the last two spans.
    longest_ns: [u64; 2],
}

impl Waits {
    pub fn sample(&mut self, pid: u32) {
        let before = std::mem::take(&mut self.so_far);
        let mut longest_ns = 0;
        for thread in threads(pid) {
            let path = format!("/proc/{pid}/task/{thread}/schedstat");
            let text = fs::read_to_string(path).unwrap_or_default();
            let Some(waited_ns) = waited_ns(&text) else {
                continue;
            };
            // A new thread has waited all of it since the last look.
            let earlier = before.get(&thread).copied().unwrap_or(0);
            longest_ns = longest_ns.max(waited_ns.saturating_sub(earlier));
            self.so_far.insert(thread, waited_ns);
        }
        self.longest_ns = [longest_ns, self.longest_ns[0]];
    }

    /// All waits of the thread that waited longest in the last or the last but one span.
    pub fn recent_ms(&self) -> u64 {
        self.longest_ns[0].max(self.longest_ns[1]) / 1_000_000
    }
}

fn threads(pid: u32) -> Vec<u32> {
    let Ok(folder) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let name = |entry: std::io::Result<fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
    let threads = folder.filter_map(|entry| name(entry)?.parse().ok());
    threads.collect()
}

/// The second number: running, waiting, slices.
fn waited_ns(schedstat: &str) -> Option<u64> {
    schedstat.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_number_is_the_time_without_a_cpu() {
        assert_eq!(waited_ns("4100 2200 17\n"), Some(2_200));
        assert_eq!(waited_ns(""), None);
    }

    #[test]
    fn our_own_threads_are_seen_and_those_of_nobody_are_not() {
        assert!(threads(std::process::id()).contains(&std::process::id()));
        let mut waits = Waits::default();
        waits.sample(u32::MAX);
        assert_eq!(waits.recent_ms(), 0);
    }
}
