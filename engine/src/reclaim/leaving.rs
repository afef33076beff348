//! Segments that are gone from the log and whose space has yet to come back.
//!
//! A reader may hold one for as long as its socket is slow. So nobody waits for that in front of anything else: they
//! wait here, those that are free first, and the disk is measured and further segments go meanwhile. What waits counts
//! as space that is on its way.

use super::remove;
use crate::segment::{Hot, Segment};
use reactor::{Instant, Notify, offload_bulk};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked whether the last user of a segment has gone.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A file that has been taken out of its log directory.
pub struct Gone {
    pub path: PathBuf,
    /// None of a file that an earlier process left.
    pub held: Option<Held>,
    pub bytes: u64,
    pub since: Instant,
}

/// What others may still be using.
pub struct Held {
    pub segment: Arc<Segment>,
    pub hot: Option<Arc<Hot>>,
}

impl Gone {
    fn is_unused(&self) -> bool {
        let held = self.held.as_ref();
        held.is_none_or(|held| held.segment.is_unused(held.hot.as_ref()))
    }
}

/// The writer's core only.
#[derive(Default)]
pub struct Leaving {
    waiting: RefCell<VecDeque<Gone>>,
    /// The file that is being shortened.
    current: RefCell<PathBuf>,
    current_bytes: Cell<u64>,
    wake: Notify,
}

impl Leaving {
    pub fn push(&self, gone: Gone) {
        self.waiting.borrow_mut().push_back(gone);
        self.wake.notify();
    }

    /// What will come back below this directory.
    pub fn bytes_below(&self, dir: &Path) -> u64 {
        let waiting = self.waiting.borrow();
        let below = waiting.iter().filter(|gone| gone.path.starts_with(dir));
        let waiting: u64 = below.map(|gone| gone.bytes).sum();
        match self.current.borrow().starts_with(dir) {
            true => waiting + self.current_bytes.get(),
            false => waiting,
        }
    }

    /// The task: one file at a time, at most so many bytes a second; one that is still in use after `longest` only loses
    /// its name.
    pub async fn run(
        &self,
        longest: impl Fn() -> Duration,
        bytes_per_second: impl Fn() -> Option<u64>,
    ) {
        loop {
            let next = self.next(longest());
            let Some((gone, is_free)) = next else {
                let is_idle = self.waiting.borrow().is_empty();
                match is_idle {
                    true => self.wake.notified().await,
                    false => reactor::sleep(LOOK_EVERY).await,
                }
                continue;
            };
            let path = gone.path.clone();
            *self.current.borrow_mut() = path.clone();
            self.current_bytes.set(gone.bytes);
            let ended = match is_free {
                true => {
                    if let Some(held) = gone.held {
                        offload_bulk("unmap an old log file", move || drop(held)).await;
                    }
                    remove::give_back(path, &self.current_bytes, &bytes_per_second).await
                }
                false => {
                    let path = path.display();
                    tracing::warn!(
                        %path,
                        "an old log file is still being read; its space comes back when that ends"
                    );
                    remove::unlink(gone.path).await
                }
            };
            if let Err(error) = ended {
                let path = self.current.borrow().display().to_string();
                tracing::error!(%error, path, "the space of an old log file comes back at the next start");
            }
            self.current.borrow_mut().clear();
            self.current_bytes.set(0);
        }
    }

    /// One that nobody uses any more, or else one that was waited for long enough; and which of the two.
    fn next(&self, longest: Duration) -> Option<(Gone, bool)> {
        let mut waiting = self.waiting.borrow_mut();
        let free = waiting.iter().position(Gone::is_unused);
        let latest = || {
            let now = reactor::now();
            waiting.iter().position(|gone| now >= gone.since + longest)
        };
        let at = free.or_else(latest)?;
        Some((waiting.remove(at)?, free.is_some()))
    }
}
