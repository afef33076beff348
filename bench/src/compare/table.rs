//! Medians over the rounds, their ratios, and what is asked of them.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use super::cases::{ANONYMOUS_MIB, CPU_US, Case, Measured, P50_US, P99_US, P999_US, PER_SECOND};
use super::rounds::Sample;
use crate::contender::{ORBIT, ROCKETMQ};

#[derive(Serialize)]
pub struct Table {
    /// Who is measured, and against whom.
    pub names: [&'static str; 2],
    pub rows: Vec<Row>,
}

#[derive(Serialize)]
pub struct Row {
    pub case: Case,
    pub figure: &'static str,
    /// Of each of the two.
    pub values: [f64; 2],
    /// How many times better the first is, in whichever direction better lies.
    pub better: f64,
    pub asked: Option<f64>,
}

const FIGURES: [&str; 6] = [PER_SECOND, CPU_US, P50_US, P99_US, P999_US, ANONYMOUS_MIB];

/// How many times better it is to be.
const ASKED: [(Case, &str, f64); 20] = [
    (Case::Send16x32, PER_SECOND, 8.0),
    (Case::Send16x32, CPU_US, 15.0),
    (Case::Send16x1, CPU_US, 8.0),
    (Case::Open20k, P999_US, 20.0),
    (Case::EndToEnd, P50_US, 4.0),
    (Case::EndToEnd, P999_US, 20.0),
    (Case::Consume, CPU_US, 4.0),
    (Case::Memory, ANONYMOUS_MIB, 10.0),
    (Case::Sync1, PER_SECOND, 2.2),
    (Case::Sync64, PER_SECOND, 5.0),
    (Case::Sync256, PER_SECOND, 5.0),
    (Case::Delayed, CPU_US, 5.0),
    (Case::DelayedLevel, CPU_US, 5.0),
    (Case::DelayedBurst, CPU_US, 5.0),
    (Case::Transactions, CPU_US, 5.0),
    (Case::TagFilter, CPU_US, 5.0),
    (Case::SqlFilter, CPU_US, 5.0),
    (Case::Orderly, CPU_US, 5.0),
    (Case::Pop, CPU_US, 5.0),
    (Case::PopBatch, CPU_US, 5.0),
];

impl Table {
    pub fn of(samples: &[Sample], cases: &[Case], names: [&'static str; 2]) -> Table {
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
            let of_both = [
                values(names[0], case, figure)?,
                values(names[1], case, figure)?,
            ];
            let [first, second] = of_both;
            let more_is_better = figure == PER_SECOND;
            Some(Row {
                case,
                figure,
                values: of_both,
                better: if more_is_better {
                    first / second
                } else {
                    second / first
                },
                asked: ASKED
                    .iter()
                    .find(|asked| (asked.0, asked.1) == (case, figure))
                    .filter(|_| names == [ORBIT, ROCKETMQ])
                    .map(|asked| asked.2),
            })
        };
        let pairs = cases
            .iter()
            .flat_map(|&case| FIGURES.map(|figure| (case, figure)));
        Table {
            names,
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

/// For a page: the same rows between bars.
pub struct Markdown<'a>(pub &'a Table);

impl Display for Markdown<'_> {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        let [first, second] = self.0.names;
        writeln!(
            out,
            "| case | median | {first} | {second} | {first} better by |"
        )?;
        writeln!(out, "|-|-|-|-|-|")?;
        for row in &self.0.rows {
            let [first, second] = row.values.map(Number);
            writeln!(
                out,
                "| {:?} | {} | {first} | {second} | {:.2} |",
                row.case, row.figure, row.better
            )?;
        }
        Ok(())
    }
}

impl Row {
    fn is_met(&self) -> Option<bool> {
        self.asked.map(|asked| self.better >= asked)
    }
}

pub fn median(mut values: Vec<f64>) -> Option<f64> {
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
            "{:<12} {:<16} {:>12} {:>12} {:>9} {:>7}",
            "case", "median", self.names[0], self.names[1], "better", "asked"
        )?;
        for row in &self.rows {
            let asked = match (row.asked, row.is_met()) {
                (Some(asked), Some(true)) => format!("{asked} ok"),
                (Some(asked), _) => format!("{asked} NO"),
                (None, _) => String::new(),
            };
            writeln!(
                out,
                "{:<12} {:<16} {:>12} {:>12} {:>8.1}x {:>7}",
                format!("{:?}", row.case),
                row.figure,
                Number(row.values[0]).to_string(),
                Number(row.values[1]).to_string(),
                row.better,
                asked
            )?;
        }
        Ok(())
    }
}

/// As many decimals as say something.
pub struct Number(pub f64);

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
        let table = Table::of(&samples, &[Case::Send16x32], [ORBIT, ROCKETMQ]);
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
