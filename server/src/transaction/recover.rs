//! Which transactions are open when the broker starts: the half messages that no mark names, from where the last run had
//! come; and what a crash left without its mark.

use std::io;

use engine::LogOffset;
use hashbrown::HashSet;
use protocol::names::{TRANS_CHECK_MAX_TIME_TOPIC, TRANS_HALF_TOPIC, TRANS_OP_HALF_TOPIC};
use protocol::record::{View, views};
use protocol::{properties, sysflag};

use super::half::Half;
use super::keep;
use super::marks::{self, Mark, Needed};
use super::open::Open;
use super::work::Work;

impl Work {
    pub async fn recover(&mut self) -> io::Result<()> {
        let halves_from = self.first(TRANS_HALF_TOPIC);
        let marks_from = self.first(TRANS_OP_HALF_TOPIC);
        self.unmarked.clear();
        self.open = Open::starting_at(halves_from);
        self.needed = Needed::starting_at(marks_from);
        let (decided, last_mark) = self.read_marks(halves_from).await?;
        self.read_halves(&decided).await?;
        self.find_unmarked(last_mark).await?;
        if self.halves.max_offset() > halves_from {
            tracing::info!(
                open = self.open.len(),
                halves_from,
                marks_from,
                unmarked = self.unmarked.len(),
                "transactions are recovered"
            );
        }
        if let Err(trouble) = self.mark_unmarked().await {
            // The disk is full: it is tried again before anything else is decided.
            tracing::warn!(%trouble, "decided transactions cannot be marked now");
            self.appender.forget();
            self.mark = Mark::default();
        }
        self.follow().await
    }

    /// Where the queue was left. A power cut may have taken what lay behind; what lay before may be reclaimed.
    fn first(&self, topic: &str) -> u64 {
        let queue = match topic {
            TRANS_HALF_TOPIC => &self.halves,
            _ => &self.marks,
        };
        let saved = keep::load(&self.coordinator, topic);
        let (min, max) = (queue.min_offset(), queue.max_offset());
        saved.unwrap_or(min).clamp(min, max)
    }

    /// The half messages that need no more attention, and where the newest mark ends.
    async fn read_marks(&mut self, halves_from: u64) -> io::Result<(HashSet<u64>, LogOffset)> {
        let mut decided = HashSet::new();
        let mut end = LogOffset(0);
        while let Some(records) = self.next_marks().await? {
            for view in views(&records) {
                let view = view.map_err(io::Error::other)?;
                let named = marks::offsets(&view);
                decided.extend(named.filter(|&offset| offset >= halves_from));
                self.add_mark(&view);
                end = LogOffset(view.log_offset + view.bytes.len() as u64);
            }
        }
        Ok((decided, end))
    }

    async fn read_halves(&mut self, decided: &HashSet<u64>) -> io::Result<()> {
        while let Some(records) = self.next_halves().await? {
            for view in views(&records) {
                let view = view.map_err(io::Error::other)?;
                let half = Half::of(&view);
                let by_origin = half.is_rocketmqs_copy
                    && half.origin.is_some_and(|origin| decided.contains(&origin));
                if !by_origin && !decided.contains(&half.offset) {
                    self.add(&half);
                    continue;
                }
                // Whatever it replaced is decided with it.
                let replaced = half.origin.and_then(|origin| self.open.current(origin));
                if let Some(offset) = replaced {
                    self.open.close(offset);
                    self.unmarked.push(offset);
                }
                self.open.skip_to(half.offset + 1);
            }
        }
        Ok(())
    }

    /// A crash may have cut the last append in two: then its mark is missing, and what it was about stands at the very end
    /// of the log. RocketMQ may leave without marks what it has decided last.
    async fn find_unmarked(&mut self, last_mark: LogOffset) -> io::Result<()> {
        if self.open.is_empty() {
            return Ok(());
        }
        let mut at = self.unmarked_from(last_mark);
        let end = self.log_end;
        while at < end {
            let Some(record) = self.record(at).await? else {
                at = self.next_segment(at);
                continue;
            };
            let view = View::parse(&record).map_err(io::Error::other)?;
            if let Some((offset, half)) = self.ended_by(&view)
                && (half > LogOffset(0) || self.is_made_of(&view, half).await?)
            {
                tracing::info!(
                    offset,
                    "a decided transaction gets the mark that a crash took"
                );
                self.open.close(offset);
                self.unmarked.push(offset);
            }
            at = LogOffset(at.0 + record.len() as u64);
        }
        Ok(())
    }

    fn unmarked_from(&self, last_mark: LogOffset) -> LogOffset {
        let (ours, read_from) = (self.store.rocketmqs_until(), self.store.recovered_from());
        if read_from >= ours {
            return read_from.max(last_mark);
        }
        // RocketMQ had the store since. It marks what it has carried out some seconds later, all of it at once, and not at
        // all what it has no time for when it stops.
        let first_open = self.open.first_place().unwrap_or(ours);
        let far = LogOffset(ours.0.saturating_sub(2 * self.store.config().segment_bytes));
        let last_segments = match far <= self.store.first() {
            true => self.store.first(),
            false => self.next_segment(far),
        };
        read_from.max(first_open).max(last_segments)
    }

    /// The open transaction of which this is the outcome, and where its half message lies.
    fn ended_by(&self, view: &View<'_>) -> Option<(u64, LogOffset)> {
        let is_final = sysflag::transaction(view.sys_flag) == sysflag::TRANSACTION_COMMIT;
        let is_given_up = view.topic == TRANS_CHECK_MAX_TIME_TOPIC.as_bytes();
        if !is_final && !is_given_up {
            return None;
        }
        let half = LogOffset(u64::try_from(view.prepared_transaction_offset).ok()?);
        Some((self.open.at_log_offset(half)?, half))
    }

    /// Whether it is the message that lies at `half`. Copies of other messages (given back, dead letters) name 0, where the
    /// first half message of a log may lie.
    async fn is_made_of(&self, view: &View<'_>, half: LogOffset) -> io::Result<bool> {
        let record = self.record(half).await?;
        let half = record
            .as_deref()
            .and_then(|record| View::parse(record).ok());
        Ok(half.is_some_and(|half| {
            let key = |view: &View<'_>| view.property(properties::UNIQ_KEY).map(<[u8]>::to_vec);
            half.born_ms == view.born_ms && key(&half) == key(view) && half.body == view.body
        }))
    }

    fn next_segment(&self, at: LogOffset) -> LogOffset {
        let (first, bytes) = (self.store.first().0, self.store.config().segment_bytes);
        let number = at.0.saturating_sub(first) / bytes;
        LogOffset(first + (number + 1) * bytes)
    }
}
