//! Medians over the rounds, their ratios, and what is asked of them.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use super::cases::{ANONYMOUS_MIB, CPU_US, Case, Measured, P50_US, P99_US, P999_US, PER_SECOND};
use super::{ORBIT, ROCKETMQ, Sample};

#[derive(Serialize)]
pub struct Table {
    pub rows: Vec<Row>,
}

#[derive(Serialize)]
pub struct Row {
    pub case: Case,
    pub figure: &'static str,
    pub orbitmq: f64,
    pub rocketmq: f64,
    /// How many times better OrbitMQ is, in whichever direction better lies.
    pub better: f64,
    pub asked: Option<f64>,
}

const FIGURES: [&str; 6] = [PER_SECOND, CPU_US, P50_US, P99_US, P999_US, ANONYMOUS_MIB];

/// How many times better it is to be.
const ASKED: [(Case, &str, f64); 8] = [
    (Case::Send16x32, PER_SECOND, 8.0),
    (Case::Send16x32, CPU_US, 15.0),
    (Case::Send16x1, CPU_US, 8.0),
    (Case::Open20k, P999_US, 20.0),
    (Case::EndToEnd, P50_US, 4.0),
    (Case::EndToEnd, P999_US, 20.0),
    (Case::Consume, CPU_US, 4.0),
    (Case::Memory, ANONYMOUS_MIB, 10.0),
];

impl Table {
    pub fn of(samples: &[Sample], cases: &[Case]) -> Table {
        let values = |broker: &str, case: Case, figure: &str| -> Option<f64> {
            let of_case = samples
                .iter()
                .filter(|sample| sample.broker == broker && sample.case == case);
            median(
                of_case
                    .filter_map(|sample: &Sample| Measured::get(&sample.measured, figure).copied())
                    .collect(),
            )
        };
        let row = |case: Case, figure: &'static str| {
            let orbitmq = values(ORBIT, case, figure)?;
            let rocketmq = values(ROCKETMQ, case, figure)?;
            let more_is_better = figure == PER_SECOND;
            Some(Row {
                case,
                figure,
                orbitmq,
                rocketmq,
                better: if more_is_better {
                    orbitmq / rocketmq
                } else {
                    rocketmq / orbitmq
                },
                asked: ASKED
                    .iter()
                    .find(|asked| (asked.0, asked.1) == (case, figure))
                    .map(|asked| asked.2),
            })
        };
        let pairs = cases
            .iter()
            .flat_map(|&case| FIGURES.map(|figure| (case, figure)));
        Table {
            rows: pairs
                .filter_map(|(case, figure)| row(case, figure))
                .collect(),
        }
    }

    pub fn missed(&self) -> usize {
        self.rows
            .iter()
            .filter(|row| row.is_met() == Some(false))
            .count()
    }
}

impl Row {
    fn is_met(&self) -> Option<bool> {
        self.asked.map(|asked| self.better >= asked)
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

impl Display for Table {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        writeln!(
            out,
            "{:<10} {:<16} {:>12} {:>12} {:>9} {:>7}",
            "case", "median", "OrbitMQ", "RocketMQ", "better", "asked"
        )?;
        for row in &self.rows {
            let asked = match (row.asked, row.is_met()) {
                (Some(asked), Some(true)) => format!("{asked} ok"),
                (Some(asked), _) => format!("{asked} NO"),
                (None, _) => String::new(),
            };
            writeln!(
                out,
                "{:<10} {:<16} {:>12} {:>12} {:>8.1}x {:>7}",
                format!("{:?}", row.case),
                row.figure,
                Number(row.orbitmq).to_string(),
                Number(row.rocketmq).to_string(),
                row.better,
                asked
            )?;
        }
        Ok(())
    }
}

/// As many decimals as say something.
struct Number(f64);

impl Display for Number {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        match self.0 {
            small if small < 10.0 => write!(out, "{small:.2}"),
            middle if middle < 100.0 => write!(out, "{middle:.1}"),
            large => write!(out, "{large:.0}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(broker: &'static str, round: u32, per_second: f64, cpu: f64) -> Sample {
        Sample {
            round,
            broker,
            case: Case::Send16x32,
            measured: Measured::from([(PER_SECOND, per_second), (CPU_US, cpu)]),
        }
    }

    #[test]
    fn ratios_are_taken_between_medians_and_in_the_direction_of_better() {
        let samples = [
            sample(ORBIT, 0, 800.0, 1.0),
            sample(ROCKETMQ, 0, 100.0, 10.0),
            sample(ORBIT, 1, 900.0, 2.0),
            sample(ROCKETMQ, 1, 90.0, 40.0),
            sample(ORBIT, 2, 9_000.0, 3.0),
            sample(ROCKETMQ, 2, 1.0, 20.0),
        ];
        let table = Table::of(&samples, &[Case::Send16x32]);
        let better: Vec<f64> = table.rows.iter().map(|row| row.better).collect();
        assert_eq!(better, [10.0, 10.0]);
        assert_eq!(table.missed(), 1, "throughput is met, CPU is not");
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }
}
