//! A consumer that reads topics from their first message to their end, again and again, until it is told to stop; what
//! the page cache has learnt of the files meanwhile is forgotten before each pass. Every message is checked.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::fill::{self, Filled};
use crate::load::{self, Lane, Live};
use crate::page_cache;

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Read {
    pub messages: u64,
    pub mib: f64,
    pub seconds: f64,
    /// Passes that came to the end of the topic.
    pub passes: u32,
}

pub struct ColdReader {
    live: Arc<Live>,
    thread: JoinHandle<Result<Read>>,
}

/// More do not make it faster; one would share its connection between all queues.
const CONNECTIONS: usize = 2;

impl ColdReader {
    /// `files` are those that hold the topic.
    pub fn start(
        broker: SocketAddr,
        lanes: Vec<Lane>,
        filled: Filled,
        files: Vec<PathBuf>,
    ) -> Result<ColdReader> {
        let live = Arc::new(Live::default());
        let shared = live.clone();
        let thread = thread::Builder::new()
            .name("cold-reader".into())
            .spawn(move || read_on(broker, &lanes, filled, &files, &shared))
            .map_err(Error::io("starting the cold reader"))?;
        Ok(ColdReader { live, thread })
    }

    pub fn stop(self) -> Result<Read> {
        self.live.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(read) => read,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

fn read_on(
    broker: SocketAddr,
    lanes: &[Lane],
    filled: Filled,
    files: &[PathBuf],
    live: &Live,
) -> Result<Read> {
    let mut read = Read::default();
    let began = Instant::now();
    while !live.stop.load(Ordering::Relaxed) {
        page_cache::forget_files(files)?;
        let outcome = load::run(fill::reading(broker, lanes, CONNECTIONS), live)?;
        let figures = fill::checked(&outcome, filled.refused)?;
        let consumed = figures.consumed.expect("the plan reads");
        read.messages += consumed.messages;
        read.mib += consumed.mib_per_second * figures.window_s;
        read.passes += u32::from(!live.stop.load(Ordering::Relaxed));
    }
    read.seconds = began.elapsed().as_secs_f64();
    Ok(read)
}
