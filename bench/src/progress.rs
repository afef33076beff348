//! Runs a generator on a thread of its own and shows on this one how it goes. The line appears only on a terminal.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::error::{Error, Result};
use crate::load::{self, Live, Outcome, Plan};

const REDRAW: Duration = Duration::from_millis(250);

pub fn run(title: &str, plan: Plan) -> Result<Outcome> {
    let live = Arc::new(Live::default());
    let bar = bar(title);
    let ends = Instant::now() + plan.warmup + plan.duration;
    let generator = start(plan, live.clone())?;
    let mut before = (Instant::now(), 0, 0);
    while !generator.is_finished() {
        thread::sleep(
            REDRAW
                .min(Duration::from_millis(20).max(ends.saturating_duration_since(Instant::now()))),
        );
        let now = (
            Instant::now(),
            live.acknowledged.load(Ordering::Relaxed),
            live.consumed.load(Ordering::Relaxed),
        );
        let seconds = (now.0 - before.0).as_secs_f64();
        let stage = if live.measuring.load(Ordering::Relaxed) {
            "measuring"
        } else {
            "warming up"
        };
        bar.set_message(format!(
            "{stage}, {} s left: {:.0} sent/s, {:.0} consumed/s",
            ends.saturating_duration_since(now.0).as_secs(),
            (now.1 - before.1) as f64 / seconds,
            (now.2 - before.2) as f64 / seconds,
        ));
        bar.tick();
        before = now;
    }
    bar.finish_and_clear();
    join(generator)
}

pub type Generator = thread::JoinHandle<Result<Outcome>>;

/// A generator in the background.
pub fn start(plan: Plan, live: Arc<Live>) -> Result<Generator> {
    thread::Builder::new()
        .name("generator".into())
        .spawn(move || load::run(plan, &live))
        .map_err(Error::io("starting the generator"))
}

pub fn join(generator: Generator) -> Result<Outcome> {
    match generator.join() {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// A line that moves, or nothing at all when nobody looks.
pub fn bar(title: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{spinner} {prefix} {msg}").expect("a constant template");
    ProgressBar::new_spinner()
        .with_style(style)
        .with_prefix(title.to_owned())
}
