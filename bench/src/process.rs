//! What a process has cost: CPU time and anonymous memory from /proc. Reads only; the process need not be ours.

use std::fs;

use serde::Serialize;

/// USER_HZ: fixed at 100 in every Linux ABI.
const TICK_US: u64 = 10_000;

/// User and system time of all threads so far; `None` if there is no such process.
pub fn cpu_time_us(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses and may itself hold spaces and parentheses.
    let after_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * TICK_US)
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Memory {
    pub anonymous_kib: u64,
    pub resident_kib: u64,
}

pub fn memory(pid: u32) -> Option<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    Some(Memory {
        anonymous_kib: field("RssAnon:")?,
        resident_kib: field("VmRSS:")?,
    })
}

/// Bytes that the process has made the disks read; `None` if that is not for us to know.
pub fn disk_read_bytes(pid: u32) -> Option<u64> {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    let line = io
        .lines()
        .find_map(|line| line.strip_prefix("read_bytes: "))?;
    line.parse().ok()
}

/// CPU time of the calling thread.
pub fn own_thread_us() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

/// Keeps the calling thread on one CPU.
pub fn pin(cpu: usize) -> rustix::io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set)
}

/// The CPUs that the calling thread may run on.
pub fn usable_cpus() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU)
            .filter(|&cpu| set.is_set(cpu))
            .collect(),
        Err(_) => vec![0],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_cpu_to_run_on_and_reads_are_counted() {
        assert!(!usable_cpus().is_empty());
        assert!(disk_read_bytes(u32::MAX).is_none());
    }

    #[test]
    fn our_own_process_has_memory_and_cpu_time_grows() {
        let pid = std::process::id();
        let before = own_thread_us();
        while own_thread_us() < before + 30_000 {}
        assert!(cpu_time_us(pid).expect("we exist") >= 20_000);
        let memory = memory(pid).expect("we exist");
        assert!(memory.anonymous_kib > 0 && memory.resident_kib >= memory.anonymous_kib);
    }

    #[test]
    fn a_process_that_is_gone_has_no_figures() {
        assert!(cpu_time_us(u32::MAX).is_none() && memory(u32::MAX).is_none());
    }
}
