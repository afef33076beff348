//! `jitter`: an open loop at a fixed rate while a consumer reads an old topic from its first message at full speed, and
//! a hiccup meter on the same CPUs. What a send waits beyond what the meter saw is the broker's own doing. The same for
//! RocketMQ, so that one table shows both.

mod cold_reader;
pub mod run;
pub mod table;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use self::run::{Jittered, Settings};
use self::table::Table;
use crate::contender::{Orbit, Recipe, RocketMq};
use crate::disk;
use crate::error::{Error, Result};
use crate::page_cache;
use crate::progress::bar;
use crate::report::write_json;

#[derive(Args)]
pub struct Jitter {
    #[command(flatten)]
    orbit: Orbit,
    #[command(flatten)]
    rocketmq: RocketMq,
    /// OrbitMQ alone
    #[arg(long)]
    no_rocketmq: bool,
    #[command(flatten)]
    load: Load,
    /// Fail unless OrbitMQ's p99.9 and max stay near what the hiccup meter saw
    #[arg(long)]
    strict: bool,
    /// Write the figures to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Args, Clone)]
pub struct Load {
    /// Sends a second
    #[arg(long, default_value_t = 20_000.0)]
    rate: f64,
    /// Seconds that are measured
    #[arg(long, default_value_t = 180.0)]
    seconds: f64,
    /// GB of log that the cold reader drags through, again and again
    #[arg(long, default_value_t = 20.0)]
    cold_gb: f64,
    /// Seconds of the same load before that
    #[arg(long, default_value_t = 5.0)]
    warmup: f64,
    /// The same for a JVM
    #[arg(long, default_value_t = 30.0)]
    jvm_warmup: f64,
    /// Percent of the available memory that the page cache is filled to before anything is measured
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u8).range(0..=95))]
    pub fill_cache: u8,
}

/// How much a send may wait beyond what the meter saw.
const P999_ABOVE_US_MAX: f64 = 2_000.0;
const MAX_ABOVE_US_MAX: f64 = 20_000.0;

pub fn run(command: Jitter) -> Result<()> {
    let mut recipes = vec![command.orbit.recipe()?];
    if !command.no_rocketmq {
        recipes.push(command.rocketmq.recipe()?);
    }
    let jittered = command.load.on(&recipes, &command.orbit)?;
    print!("{}", Table(&jittered));
    write_json(command.json.as_deref(), &jittered)?;
    jittered[0].judge(command.strict)
}

impl Load {
    /// One after the other: each has the machine and the disk to itself.
    pub fn on(&self, recipes: &[Recipe], orbit: &Orbit) -> Result<Vec<Jittered>> {
        let line = bar("jitter");
        line.enable_steady_tick(Duration::from_millis(200));
        let folder = orbit.folder()?;
        let cold_bytes = (self.cold_gb * 1e9) as u64;
        let store_bytes = cold_bytes + self.sent_bytes();
        disk::demand_room(folder.path(), store_bytes)?;
        line.set_message("filling the page cache");
        page_cache::fill(&folder.path().join("filler"), self.fill_cache, store_bytes)?;
        let mut jittered = Vec::new();
        for recipe in recipes {
            let warmup = match recipe.is_jvm() {
                true => self.jvm_warmup,
                false => self.warmup,
            };
            let settings = Settings {
                rate: self.rate,
                window: Duration::from_secs_f64(self.seconds),
                warmup: Duration::from_secs_f64(warmup),
                cold_bytes,
            };
            jittered.push(run::measure(recipe, folder.path(), &settings, &line)?);
        }
        line.finish_and_clear();
        Ok(jittered)
    }

    fn sent_bytes(&self) -> u64 {
        // Once alone, once beside the reader.
        let seconds = 2.0 * (self.seconds + self.warmup.max(self.jvm_warmup));
        (self.rate * seconds) as u64 * crate::fill::RECORD_BYTES
    }
}

impl Jittered {
    /// What is right is asked in any case, how fast it was only if `strict`.
    pub fn judge(&self, strict: bool) -> Result<()> {
        let mut wrong = Vec::new();
        if self.sent.refused > 0 || self.sent.messages == 0 {
            wrong.push("sends were refused");
        }
        if strict && self.sent.behind > 0 {
            wrong.push("the broker did not keep up with the rate");
        }
        if strict && self.p999_above_us > P999_ABOVE_US_MAX {
            wrong.push("p99.9 is more than 2 ms above the hiccups");
        }
        if strict && self.max_above_us > MAX_ABOVE_US_MAX {
            wrong.push("the slowest send is more than 20 ms above the hiccups");
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(Error::Failed(wrong.join("; "))),
        }
    }
}
