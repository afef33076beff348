//! Which cores a broker has, and on which CPUs they run.

use reactor::CoreConfig;

use crate::config::Settings;

/// With fewer CPUs everything shares one core: a hand-off between two would cost more than it gains.
const CPUS_FOR_A_WRITER_MIN: usize = 4;

/// The cores of one broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// At least one; shard 0 is the core that starts the broker.
    pub shards: Vec<Place>,
    /// None: the writer is a task on shard 0's core.
    pub writer: Option<Place>,
}

/// Where one core runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// None: where the kernel likes.
    pub cpu: Option<usize>,
}

impl Place {
    pub fn config(&self, name: &str) -> CoreConfig {
        CoreConfig {
            name: name.to_owned(),
            cpu: self.cpu,
            ..CoreConfig::default()
        }
    }
}

impl Plan {
    pub fn of(settings: &Settings, cpus: usize) -> Self {
        let enough = cpus >= CPUS_FOR_A_WRITER_MIN;
        let shards = settings.shards.unwrap_or(if enough { cpus - 1 } else { 1 });
        let own_writer = shards > 1 || settings.writer_cpu.is_some();
        let cores = shards + usize::from(own_writer);
        let mut plan = Self {
            shards: vec![Place::default(); shards],
            writer: own_writer.then(Place::default),
        };
        // Two pinned to one CPU would wait for each other; one alone gains nothing from it.
        if enough && cores <= cpus {
            plan.pin(settings.writer_cpu);
        } else if let Some(writer) = &mut plan.writer {
            writer.cpu = settings.writer_cpu;
        }
        plan
    }

    /// The writer first, then the shards on what is left.
    fn pin(&mut self, writer_cpu: Option<usize>) {
        let mut free = reactor::usable_cpus();
        if let Some(writer) = &mut self.writer {
            let at = writer_cpu.and_then(|cpu| free.iter().position(|&c| c == cpu));
            writer.cpu = match at {
                Some(at) => Some(free.remove(at)),
                None if writer_cpu.is_some() => writer_cpu,
                None if free.is_empty() => None,
                None => Some(free.remove(0)),
            };
        }
        for (place, cpu) in self.shards.iter_mut().zip(free) {
            place.cpu = Some(cpu);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::settings;

    fn shape(pairs: &[(&str, &str)], cpus: usize) -> (usize, bool) {
        let plan = Plan::of(&settings(pairs), cpus);
        (plan.shards.len(), plan.writer.is_some())
    }

    #[test]
    fn few_cpus_share_one_core_and_many_leave_one_to_the_writer() {
        assert_eq!(shape(&[], 1), (1, false));
        assert_eq!(shape(&[], 3), (1, false));
        assert_eq!(shape(&[], 4), (3, true));
        assert_eq!(shape(&[], 16), (15, true));
    }

    #[test]
    fn the_settings_have_the_last_word() {
        assert_eq!(shape(&[("shards", "2")], 2), (2, true));
        assert_eq!(shape(&[("shards", "1")], 16), (1, false));
        assert_eq!(shape(&[("shards", "1"), ("writerCpu", "0")], 2), (1, true));
    }
}
