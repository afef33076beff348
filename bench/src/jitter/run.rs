//! One broker's turn: filled, restarted with nothing of its store in the page cache, loaded, then loaded and read at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use indicatif::ProgressBar;
use serde::Serialize;

use super::cold_reader::{ColdReader, Read};
use crate::commands::plan_at;
use crate::contender::{Contender, Recipe};
use crate::error::{Error, Result};
use crate::fill;
use crate::hiccup::Meter;
use crate::load::{Lane, Live, Plan};
use crate::options::{Sending, Window};
use crate::page_cache;
use crate::process;
use crate::progress;
use crate::report::{Figures, Latency, SentFigures, ServerFigures};
use crate::wire::Encoding;

pub struct Settings {
    pub rate: f64,
    pub window: Duration,
    pub warmup: Duration,
    pub cold_bytes: u64,
}

#[derive(Serialize)]
pub struct Jittered {
    pub name: &'static str,
    pub sent: SentFigures,
    pub hiccups: Latency,
    /// What sends waited beyond what the meter saw.
    pub p999_above_us: f64,
    pub max_above_us: f64,
    /// The same load before, without a reader.
    pub alone: Alone,
    pub cold: Read,
    /// What the broker made the disks read since the reader began.
    pub disk_read_mib: Option<f64>,
    pub server: Option<ServerFigures>,
}

#[derive(Serialize)]
pub struct Alone {
    pub p999_us: f64,
    pub p999_above_us: f64,
}

/// The load without a reader takes this part of the time of the one with it.
const ALONE_PART: u32 = 3;
const POLL: Duration = Duration::from_millis(2);
const CONNECTIONS: u16 = 16;
/// Enough never to be what holds the rate back: 16 × 1,024 sends are 0.8 s of 20,000 a second.
const DEPTH: u16 = 1_024;

pub fn measure(
    recipe: &Recipe,
    folder: &Path,
    settings: &Settings,
    line: &ProgressBar,
) -> Result<Jittered> {
    let name = recipe.name;
    let home = folder.join(name);
    line.set_message(format!("{name}: filling what is read cold"));
    let contender = recipe.start(&home)?;
    let cold = fill::make_topic(contender.broker, "Cold")?;
    let filled = fill::with_messages(
        contender.broker,
        &cold,
        fill::messages_of(settings.cold_bytes),
    )?;
    let contender = contender.restart_cold()?;
    let files = sealed_files(&contender.store())?;

    let lanes = fill::make_topic(contender.broker, "Jitter")?;
    line.set_message(format!("{name}: load alone"));
    let before = Settings {
        window: settings.window / ALONE_PART,
        ..*settings
    };
    let (alone, hiccups_alone) = load(&contender, &lanes, &before)?;
    let alone_us = alone.sent.expect("the plan sends").latency.p999_us;

    line.set_message(format!(
        "{name}: {:.0} s of load",
        settings.window.as_secs_f64()
    ));
    let read_before = process::disk_read_bytes(contender.broker_pid());
    let reader = ColdReader::start(contender.broker, cold, filled, files)?;
    let outcome = load(&contender, &lanes, settings);
    let read_after = process::disk_read_bytes(contender.broker_pid());
    let cold = reader.stop()?;
    let (figures, hiccups) = outcome?;
    contender.stop()?;
    std::fs::remove_dir_all(&home).map_err(Error::io("removing a store"))?;

    let sent = figures.sent.expect("the plan sends");
    Ok(Jittered {
        name,
        p999_above_us: sent.latency.p999_us - hiccups.p999_us,
        max_above_us: sent.latency.max_us - hiccups.max_us,
        alone: Alone {
            p999_us: alone_us,
            p999_above_us: alone_us - hiccups_alone.p999_us,
        },
        sent,
        hiccups,
        cold,
        disk_read_mib: read_after
            .zip(read_before)
            .map(|(after, before)| (after - before) as f64 / f64::from(1 << 20)),
        server: figures.server,
    })
}

/// Sends for the window, and what a meter saw meanwhile.
fn load(contender: &Contender, lanes: &[Lane], settings: &Settings) -> Result<(Figures, Latency)> {
    let window = Window {
        duration: settings.window.as_secs_f64(),
        warmup: settings.warmup.as_secs_f64(),
    };
    let sending = Sending {
        connections: CONNECTIONS,
        depth: DEPTH,
        size: fill::BODY_BYTES,
        batch: 1,
        rate: Some(settings.rate),
    };
    let plan = Plan {
        produce: Some(sending.settings(Encoding::Json)),
        server_pid: Some(contender.broker_pid()),
        ..plan_at(contender.broker, lanes.to_vec(), &window)
    };
    let live = Arc::new(Live::default());
    let generator = progress::start(plan, live.clone())?;
    while !live.measuring.load(Ordering::Relaxed) && !generator.is_finished() {
        thread::sleep(POLL);
    }
    let meter = Meter::start()?;
    let outcome = progress::join(generator);
    let hiccups = meter.stop().latency;
    Ok((Figures::of(&outcome?), hiccups))
}

/// The log's files but the last, which is being written.
fn sealed_files(store: &Path) -> Result<Vec<PathBuf>> {
    let mut files = page_cache::files_under(&store.join("commitlog"))
        .map_err(Error::io("listing the log's files"))?;
    files.pop();
    Ok(files)
}
