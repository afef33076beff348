//! Which CPUs this process may use, and pinning a thread to one of them.

use std::io;
use std::mem;
use std::sync::OnceLock;

use crate::core;
use crate::driver::sim;

/// The number of CPUs this process may use: its affinity mask, which the kernel keeps inside the cgroup's cpuset.
/// On a simulated core: what its node was given.
pub fn cpu_count() -> usize {
    match core::sim() {
        Some(core) => sim::cpu_count(&core),
        None => at_start().len(),
    }
}

/// The numbers of the CPUs this process may use, ascending; never empty. Pinned threads do not make it fewer.
pub fn usable_cpus() -> Vec<usize> {
    at_start().to_vec()
}

/// The CPUs the calling thread may use.
fn of_this_thread() -> Vec<usize> {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the set lives through the call and its size is the one given.
    let answer = unsafe { libc::sched_getaffinity(0, mem::size_of_val(&set), &mut set) };
    let mut cpus: Vec<usize> = Vec::new();
    if answer == 0 {
        // SAFETY: the index stays below the set's capacity.
        cpus.extend((0..CPU_MAX).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }));
    } else if let Ok(count) = std::thread::available_parallelism() {
        // More CPUs than a static set can name: their number is all we learn.
        cpus.extend(0..count.get());
    }
    if cpus.is_empty() {
        cpus.push(0);
    }
    cpus
}

const CPU_MAX: usize = libc::CPU_SETSIZE as usize;

/// Pins the calling thread.
pub(crate) fn pin(cpu: usize) -> io::Result<()> {
    at_start(); // remembered before the first pin changes it
    set(&[cpu])
}

fn set(cpus: &[usize]) -> io::Result<()> {
    if cpus.iter().any(|&cpu| cpu >= CPU_MAX) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    for &cpu in cpus {
        // SAFETY: the index was checked above.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: the set lives through the call and its size is the one given.
    match unsafe { libc::sched_setaffinity(0, mem::size_of_val(&set), &set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The CPUs the process had before any of its threads was pinned.
fn at_start() -> &'static [usize] {
    static AT_START: OnceLock<Vec<usize>> = OnceLock::new();
    AT_START.get_or_init(of_this_thread)
}

/// Gives the calling thread, which inherited its creator's pin, all CPUs of the process back. Best effort: being on
/// fewer CPUs is slower, not wrong.
pub(crate) fn unpin() {
    if let Err(error) = set(at_start()) {
        tracing::debug!(%error, "a helper thread stays on its creator's CPU");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_may_use_its_cpu_only() {
        let cpus = std::thread::spawn(|| {
            let cpu = *usable_cpus().last().unwrap();
            pin(cpu).unwrap();
            (cpu, of_this_thread())
        });
        let (cpu, left) = cpus.join().unwrap();
        assert_eq!(left, [cpu]);
        assert_eq!(usable_cpus().last(), Some(&cpu));
        assert!(pin(CPU_MAX).is_err());
    }
}
