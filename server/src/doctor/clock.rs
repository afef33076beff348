//! The clocks: records carry times, and everything that waits waits by them.

use std::fs;
use std::mem;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use super::Finding;
use crate::config::Settings;

const READINGS: u32 = 10_000;
/// A clock read without entering the kernel takes a tenth of this.
const READING_NS_MAX: u128 = 300;
const SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
/// Files are written a little later than they are stamped, and clocks of network disks differ a little.
const FUTURE_TOLERATED: Duration = Duration::from_secs(5);

pub fn examine(settings: &Settings) -> Vec<Finding> {
    let source = fs::read_to_string(SOURCE).unwrap_or_else(|_| "unknown source".to_owned());
    let newest = settings.log_dirs.iter().filter_map(|dir| newest_in(dir));
    vec![
        judge_reading(source.trim(), reading_ns(), steps_back()),
        judge_synchronised(synchronised()),
        judge_store_time(newest.max(), SystemTime::now()),
    ]
}

fn reading_ns() -> u128 {
    let start = Instant::now();
    for _ in 0..READINGS {
        std::hint::black_box(SystemTime::now());
    }
    start.elapsed().as_nanos() / u128::from(READINGS)
}

/// How often the monotonic clock was before its last reading, as the kernel tells it.
fn steps_back() -> u32 {
    use rustix::time::{ClockId, clock_gettime};
    let mut last = clock_gettime(ClockId::Monotonic);
    let mut steps = 0;
    for _ in 0..READINGS {
        let now = clock_gettime(ClockId::Monotonic);
        steps += u32::from((now.tv_sec, now.tv_nsec) < (last.tv_sec, last.tv_nsec));
        last = now;
    }
    steps
}

/// Whether the kernel's clock is kept by somebody (NTP, PTP, the host); `None` if that cannot be told.
fn synchronised() -> Option<bool> {
    // SAFETY: an all-zero timex asks for nothing to be changed; it is plain numbers.
    let mut state: libc::timex = unsafe { mem::zeroed() };
    // SAFETY: the structure lives through the call.
    let answer = unsafe { libc::adjtimex(&mut state) };
    (answer >= 0).then_some(answer != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0)
}

/// When the youngest file of a log directory was written.
fn newest_in(directory: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(directory).ok()?.flatten();
    let times = entries.filter_map(|entry| entry.metadata().ok()?.modified().ok());
    times.max()
}

fn judge_reading(source: &str, reading_ns: u128, steps_back: u32) -> Finding {
    let thing = "clock";
    if steps_back > 0 {
        return Finding::fail(
            thing,
            format!("{source}: the monotonic clock went back {steps_back} times"),
            "choose another clock source (clocksource= on the kernel's command line)",
        );
    }
    let found = format!("{source}, {reading_ns} ns a reading");
    if reading_ns > READING_NS_MAX {
        return Finding::warn(
            thing,
            found,
            "each reading enters the kernel: choose tsc or the hypervisor's own source",
        );
    }
    Finding::ok(thing, found)
}

fn judge_synchronised(synchronised: Option<bool>) -> Finding {
    let thing = "time of day";
    match synchronised {
        Some(true) => Finding::ok(thing, "synchronised"),
        Some(false) => Finding::warn(
            thing,
            "nobody keeps the kernel's clock right",
            "run chrony or systemd-timesyncd; store times, delays and look-ups by time go by this clock",
        ),
        None => Finding::warn(
            thing,
            "this process may not ask whether it is synchronised",
            "look at the host: chronyc tracking, timedatectl",
        ),
    }
}

/// A store that was written in the future: its clock was ahead, or ours went back.
fn judge_store_time(newest: Option<SystemTime>, now: SystemTime) -> Finding {
    let thing = "store time";
    let ahead = newest.and_then(|newest| newest.duration_since(now).ok());
    match ahead {
        Some(ahead) if ahead > FUTURE_TOLERATED => Finding::warn(
            thing,
            format!(
                "the log was last written {} s after what this clock says",
                ahead.as_secs()
            ),
            "set the clock right first; store times never go back, so new messages would all carry that time until it comes",
        ),
        _ => Finding::ok(thing, "not in the future"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn slow_and_backward_clocks_are_told_apart() {
        assert_eq!(judge_reading("tsc", 25, 0).verdict, Verdict::Ok);
        assert_eq!(judge_reading("hpet", 1400, 0).verdict, Verdict::Warn);
        assert_eq!(judge_reading("tsc", 25, 1).verdict, Verdict::Fail);
    }

    #[test]
    fn a_clock_nobody_keeps_is_a_warning() {
        assert_eq!(judge_synchronised(Some(true)).verdict, Verdict::Ok);
        assert_eq!(judge_synchronised(Some(false)).verdict, Verdict::Warn);
        assert_eq!(judge_synchronised(None).verdict, Verdict::Warn);
    }

    #[test]
    fn a_store_from_the_future_is_a_warning() {
        let now = SystemTime::now();
        let at = |seconds| judge_store_time(Some(now + Duration::from_secs(seconds)), now);
        assert_eq!(judge_store_time(None, now).verdict, Verdict::Ok);
        assert_eq!(at(0).verdict, Verdict::Ok);
        assert_eq!(at(3600).verdict, Verdict::Warn);
        let past = judge_store_time(Some(now - Duration::from_secs(9)), now);
        assert_eq!(past.verdict, Verdict::Ok);
    }

    #[test]
    fn this_machines_clock_can_be_read() {
        assert!(reading_ns() > 0);
        assert_eq!(steps_back(), 0);
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(newest_in(dir.path()), None);
        fs::write(dir.path().join("0"), "x").expect("a temporary file");
        assert!(newest_in(dir.path()).is_some());
    }
}
