//! CPUs against the cores the settings ask for.

use super::Finding;
use super::cgroup::Limits;
use crate::broker::cores::Plan;
use crate::config::Settings;

pub fn examine(settings: &Settings, limits: Limits) -> Finding {
    let cpus = reactor::usable_cpus();
    let plan = Plan::of(settings, cpus.len());
    let cores = plan.shards.len() + usize::from(plan.writer.is_some());
    let missing = settings.writer_cpu.filter(|cpu| !cpus.contains(cpu));
    judge(cpus.len(), cores, limits.cpus, missing)
}

/// `missing`: the CPU that `writerCpu` names and this process may not use.
fn judge(cpus: usize, cores: usize, quota: Option<f64>, missing: Option<usize>) -> Finding {
    let thing = "CPUs";
    let found = format!("{cpus} usable for {cores} cores of the broker");
    if let Some(cpu) = missing {
        return Finding::fail(
            thing,
            format!("writerCpu={cpu} is none of those this process may use"),
            "name another one, or give the process that CPU (CPUAffinity=, --cpuset-cpus)",
        );
    }
    if cores > cpus {
        return Finding::warn(
            thing,
            found,
            "cores that share a CPU wait for each other: leave `shards` to the broker, or lower it",
        );
    }
    match quota {
        Some(quota) if quota < cores as f64 => Finding::warn(
            thing,
            format!("{found}, but the control group allows the time of {quota:.1} only"),
            "when it is used up everything stands still for the rest of a tenth of a second: give CPUs (cpuset) in place \
             of a quota, or lower `shards`",
        ),
        _ => Finding::ok(thing, found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn more_cores_than_cpus_or_a_quota_below_them_is_a_warning() {
        assert_eq!(judge(8, 8, None, None).verdict, Verdict::Ok);
        assert_eq!(judge(8, 8, Some(8.0), None).verdict, Verdict::Ok);
        assert_eq!(judge(2, 3, None, None).verdict, Verdict::Warn);
        let throttled = judge(8, 8, Some(2.5), None);
        assert_eq!(throttled.verdict, Verdict::Warn);
        assert!(throttled.found.contains("2.5"), "{throttled}");
    }

    #[test]
    fn a_writer_cpu_that_is_not_ours_is_a_failure() {
        assert_eq!(judge(4, 4, None, Some(9)).verdict, Verdict::Fail);
    }
}
