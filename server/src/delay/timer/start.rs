//! Timers that were parked before a start, of which there may be a million: what is due of them is delivered while the rest is
//! still looked at. What is withdrawn is not delivered, so that is found out first, from the places that the last checkpoint
//! names and from all that came after it.

use engine::ReadLimits;
use protocol::record::views;

use super::{LOOK, Timers};
use crate::delay::{Interrupted, timed};
use crate::reading::At;

/// What is looked at before that is delivered which is due of it.
const STEP: u64 = 1_024;
const ONE: ReadLimits = ReadLimits {
    messages_max: 1,
    ..LOOK
};

impl Timers {
    pub(super) async fn look_at_some(&self) -> Result<(), Interrupted> {
        self.hear().await?;
        let next = self.parked.borrow().next();
        self.look_up_to(next + STEP).await
    }

    /// Finds out what has been withdrawn until now.
    async fn hear(&self) -> Result<(), Interrupted> {
        let mut records = Vec::new();
        loop {
            let named = self.parked.borrow().named_withdrawal();
            let Some(at) = named else {
                break;
            };
            // It may have been appended again, and lie behind the checkpoint.
            if let At::Records(_) = self.read(at, &ONE, &mut records).await? {
                self.withdraw(&records)?;
            }
            self.parked.borrow_mut().heard_of(at);
        }
        let end = self.queue.max_offset();
        loop {
            let at = self.parked.borrow().heard();
            if at >= end {
                return Ok(());
            }
            let At::Records(next) = self.read(at, &LOOK, &mut records).await? else {
                return Ok(());
            };
            self.withdraw(&records)?;
            self.parked.borrow_mut().set_heard(next);
            reactor::yield_now().await;
        }
    }

    fn withdraw(&self, records: &[u8]) -> Result<(), Interrupted> {
        for view in views(records) {
            let view = view.map_err(Interrupted::unreadable)?;
            if let Some(name) = timed::withdraws(&view)
                && let Some(due_ms) = self.theirs.due_ms(&view)
            {
                let ends_ms = timed::withdrawal_ends_ms(due_ms, self.precision_ms);
                self.parked.borrow_mut().withdraw(name, ends_ms);
            }
        }
        Ok(())
    }

    /// To be called when nothing is delivered any more: a start that is not over is ended, so that the next one knows what
    /// was delivered in this one.
    pub async fn end(&self) {
        let is_starting = self.parked.borrow().is_starting();
        if is_starting && let Err(Interrupted::Refused(problem)) = self.look_at_all().await {
            tracing::warn!(
                problem,
                "timers that were delivered since the start may come again"
            );
        }
    }
}
