//! Running a simulated scene under many seeds. `SIM_SEED=<n>` repeats one, `SIM_SEEDS=<n>` sets how many there are,
//! `SIM_FROM=<n>` where they begin.

use std::{env, panic};

/// Runs the scene with the seeds 0 .. `count`, or as the environment says. A seed that fails names itself.
pub fn each_seed(count: u64, scene: impl Fn(u64) + panic::RefUnwindSafe) {
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let from = number("SIM_FROM").unwrap_or(0);
            from..from + number("SIM_SEEDS").unwrap_or(count)
        }
    };
    for seed in seeds {
        if let Err(failure) = panic::catch_unwind(|| scene(seed)) {
            eprintln!("seed {seed} failed; SIM_SEED={seed} repeats it");
            panic::resume_unwind(failure);
        }
    }
}

/// Runs the scene twice with one seed and insists on the same trace. Returns the trace's hash.
pub fn twice(seed: u64, scene: impl Fn(u64) -> u64) -> u64 {
    let first = scene(seed);
    let second = scene(seed);
    assert_eq!(
        first, second,
        "seed {seed} ran differently the second time: something depends on more than the seed"
    );
    first
}

fn number(name: &str) -> Option<u64> {
    let value = env::var(name).ok()?;
    let number = value.parse();
    Some(number.unwrap_or_else(|_| panic!("{name}={value} is not a number")))
}
