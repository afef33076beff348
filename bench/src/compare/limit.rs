//! What the disk allows for the batches that OrbitMQ made durable at once, measured right after each of its windows.

use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::cases::{COMMIT_BYTES, COMMIT_MESSAGES, Case, PER_SECOND};
use super::rounds::Sample;
use super::table::median;
use crate::contender::ORBIT;
use crate::disk::Space;
use crate::error::Result;
use crate::raw::{self, Settings};

/// How much of the disk's limit OrbitMQ reaches, medians over the rounds.
#[derive(Serialize)]
pub struct Share {
    pub case: Case,
    pub commit_bytes: f64,
    pub messages_per_commit: f64,
    pub orbitmq: f64,
    pub limit: f64,
    pub share: f64,
    pub asked: Option<f64>,
}

pub struct Limits {
    folder: PathBuf,
    window: Duration,
    measured: Vec<Limit>,
}

struct Limit {
    case: Case,
    per_second: f64,
}

const FILE_BYTES: u64 = 256 << 20;
/// The limit is what the best of them reaches.
const PIPELINES: [u8; 3] = [1, 2, 4];
/// Averages of batches are not whole.
const IN_FLIGHT_SLACK: f64 = 1.1;
const ASKED: [(Case, f64); 1] = [(Case::Sync256, 0.8)];

impl Limits {
    pub fn under(folder: &Path, window_s: f64) -> Limits {
        Limits {
            folder: folder.to_owned(),
            window: Duration::from_secs_f64(window_s / PIPELINES.len() as f64),
            measured: Vec::new(),
        }
    }

    pub fn measure_beside(&mut self, sample: &Sample) -> Result<()> {
        let figure = |name| sample.measured.get(name).copied();
        let (ORBIT, Some(commit_bytes), Some(messages_per_commit)) =
            (sample.broker, figure(COMMIT_BYTES), figure(COMMIT_MESSAGES))
        else {
            return Ok(());
        };
        let settings = Settings {
            file_bytes: FILE_BYTES,
            space: Space::Written,
            commit_bytes: commit_bytes.round() as usize,
            messages_per_commit,
            duration: self.window,
        };
        let pipelines = possible(sample.case.in_flight().unwrap_or(1), messages_per_commit);
        let limit = raw::best_of(&self.folder, &settings, &pipelines)?;
        self.measured.push(Limit {
            case: sample.case,
            per_second: limit.messages_per_second,
        });
        Ok(())
    }

    pub fn shares(&self, samples: &[Sample]) -> Vec<Share> {
        let share = |case: Case| {
            let of_orbit = |figure| {
                let of_case = samples
                    .iter()
                    .filter(|sample| sample.broker == ORBIT && sample.case == case);
                median(
                    of_case
                        .filter_map(|sample| sample.measured.get(figure).copied())
                        .collect(),
                )
            };
            let of_case = self.measured.iter().filter(|limit| limit.case == case);
            let limit = median(of_case.map(|limit| limit.per_second).collect())?;
            let orbitmq = of_orbit(PER_SECOND)?;
            Some(Share {
                case,
                commit_bytes: of_orbit(COMMIT_BYTES)?,
                messages_per_commit: of_orbit(COMMIT_MESSAGES)?,
                orbitmq,
                limit,
                share: orbitmq / limit,
                asked: ASKED
                    .iter()
                    .find(|asked| asked.0 == case)
                    .map(|asked| asked.1),
            })
        };
        Case::SYNC.into_iter().filter_map(share).collect()
    }
}

/// How many commits of this size can be under way when no more messages than these are in flight.
fn possible(in_flight: u32, messages_per_commit: f64) -> Vec<u8> {
    let most = f64::from(in_flight) * IN_FLIGHT_SLACK / messages_per_commit;
    let fits = |&pipeline: &u8| pipeline == 1 || f64::from(pipeline) <= most;
    PIPELINES.into_iter().filter(fits).collect()
}

impl Share {
    pub fn is_met(&self) -> bool {
        self.asked.is_none_or(|asked| self.share >= asked)
    }
}

impl Display for Share {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        write!(
            out,
            "{:<10} {:.0} % of what the disk allows: {:.0} of {:.0} messages/s in commits of {:.1} messages, {:.0} bytes{}",
            format!("{:?}", self.case),
            self.share * 100.0,
            self.orbitmq,
            self.limit,
            self.messages_per_commit,
            self.commit_bytes,
            match (self.asked, self.is_met()) {
                (None, _) => String::new(),
                (Some(asked), true) => format!(" (asked {:.0} % ok)", asked * 100.0),
                (Some(asked), false) => format!(" (asked {:.0} % NO)", asked * 100.0),
            }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::cases::Measured;

    #[test]
    fn no_more_commits_are_under_way_than_there_are_messages_for() {
        assert_eq!(possible(1, 1.0), [1]);
        assert_eq!(possible(256, 200.0), [1]);
        assert_eq!(possible(256, 128.0), [1, 2]);
        assert_eq!(possible(256, 66.0), [1, 2, 4]);
    }

    #[test]
    fn the_share_is_taken_between_medians_and_only_where_the_broker_told_its_batches() {
        let sample = |per_second| Sample {
            round: 0,
            broker: ORBIT,
            case: Case::Sync256,
            measured: Measured::from([
                (PER_SECOND, per_second),
                (COMMIT_BYTES, 1000.0),
                (COMMIT_MESSAGES, 10.0),
            ]),
        };
        let mut limits = Limits::under(Path::new("."), 1.0);
        for per_second in [50.0, 100.0, 200.0] {
            limits.measured.push(Limit {
                case: Case::Sync256,
                per_second,
            });
        }
        let shares = limits.shares(&[sample(60.0), sample(70.0), sample(90.0)]);
        assert_eq!((shares.len(), shares[0].share), (1, 0.7));
        assert!(!shares[0].is_met());
        assert!(
            Limits::under(Path::new("."), 1.0)
                .shares(&[sample(1.0)])
                .is_empty()
        );
    }
}
