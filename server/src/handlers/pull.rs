//! Pulls (11, 361): checked, read, answered with ranges of the log, or parked until the queue grows.
//!
//! Codes and remarks follow RocketMQ 5.4. What a parked pull needs is kept here, not its frame: it is not decoded twice.

mod answer;
mod check;
mod cold;
mod look;
mod reset;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use engine::{Queue, QueueNo};
use protocol::code::response;
use protocol::header::pull::PullHeader;
use protocol::sysflag::pull as flags;
use protocol::{Asked, Command};
use reactor::Instant;

pub use cold::ColdReads;

use crate::filter::Filter;
use crate::handlers::missing::{self, NotDone};
use crate::long_poll::Looked;
use crate::messages::{ConnId, OffsetCommit, TopicSubscription};
use crate::shard::topics::Topic;
use crate::shard::{Connection, Shard};

/// A client may ask for any time; what it left behind on a closed connection must vanish some day.
const SUSPEND_MAX: Duration = Duration::from_secs(120);
/// Parked pulls of one connection; further ones are answered at once.
const PARKED_PER_CONNECTION_MAX: u32 = 200_000;
/// A pull whose filter passed over new messages is answered after this, so that its group's offset moves on.
const PASSED_OVER_ANSWER_AFTER: Duration = Duration::from_secs(5);

/// A pull after its checks, as it is read, parked and answered. Lives on its shard's core.
pub struct Pull {
    conn: ConnId,
    asked: Asked,
    group: Arc<str>,
    topic: Rc<Topic>,
    queue: Arc<Queue>,
    /// As asked for; negative ones are below every queue's start.
    offset: i64,
    /// Everything before it was looked at, and the filter passed it over.
    looked_until: u64,
    messages_max: u32,
    wanted: Wanted,
    topic_sys_flag: i32,
    group_sys_flag: i32,
    suggested_broker: i64,
    /// When the last look began, and whether it needed the disk: time in which it was parked does not count.
    looked_at: Instant,
    from_disk: bool,
    /// The version of the groups' settings that it was checked against.
    rights_as_of: u64,
}

enum Wanted {
    Subscription(Arc<TopicSubscription>),
    /// Came with the request.
    Own(Filter),
}

impl Wanted {
    fn filter(&self) -> &Filter {
        match self {
            Self::Subscription(subscription) => &subscription.filter,
            Self::Own(filter) => filter,
        }
    }
}

pub fn handle(shard: &Rc<Shard>, connection: &Rc<Connection>, command: &Command<'_>, frame: &[u8]) {
    missing::run(attempt, shard, connection, command, frame);
}

fn attempt(
    shard: &Rc<Shard>,
    connection: &Rc<Connection>,
    command: &Command<'_>,
) -> Result<(), NotDone> {
    let header = PullHeader::from(command)
        .map_err(|error| NotDone::refused(response::SYSTEM_ERROR, error.to_string()))?;
    let pull = check::check(shard, connection, command, &header)?;
    if header.sys_flag & flags::COMMIT_OFFSET != 0 {
        shard.offset_commits.add(OffsetCommit {
            group: Arc::clone(&pull.group),
            topic: Arc::clone(pull.topic.name()),
            queue_id: header.queue_id,
            offset: header.commit_offset,
            peer: connection.peer(),
        });
    }
    let suspend = suspend_time(shard, &header);
    if reset::sent_elsewhere(shard, connection, &pull) {
        return Ok(());
    }
    match look::look(shard, connection, pull) {
        look::Outcome::Done => {}
        look::Outcome::Nothing(pull) => match suspend {
            Some(suspend) if connection.parked_pulls().get() < PARKED_PER_CONNECTION_MAX => {
                park(shard, connection, pull, suspend);
            }
            _ => answer::nothing(shard, &pull),
        },
    }
    Ok(())
}

/// How long the pull may be held; none: not at all.
fn suspend_time(shard: &Shard, header: &PullHeader<'_>) -> Option<Duration> {
    if header.sys_flag & flags::SUSPEND == 0 {
        return None;
    }
    let views = shard.views.borrow();
    let settings = views.settings.value();
    let wanted_ms = if settings.long_polling {
        u64::try_from(header.suspend_ms).unwrap_or(0)
    } else {
        settings.short_polling_ms
    };
    Some(Duration::from_millis(wanted_ms).min(SUSPEND_MAX))
}

fn park(shard: &Rc<Shard>, connection: &Connection, pull: Pull, suspend: Duration) {
    let parked = connection.parked_pulls();
    parked.set(parked.get() + 1);
    shard.stats().parked_pulls.add(1);
    let queue = Arc::clone(&pull.queue);
    let offset = pull.looked_until;
    let deadline = reactor::turn_time() + suspend;
    if !shard.polls.park(&queue, offset, deadline, pull) {
        wake(shard, queue.no());
    }
}

/// The queue has grown: everybody who waits for it looks again.
pub fn wake(shard: &Rc<Shard>, queue: QueueNo) {
    let all_looked = shard.polls.wake(queue, |pull| {
        let Some(connection) = shard.connections.get(pull.conn) else {
            unpark(shard, None);
            return Looked::Answered;
        };
        match take_up(shard, &connection, pull) {
            look::Outcome::Done => {
                unpark(shard, Some(&connection));
                Looked::Answered
            }
            look::Outcome::Nothing(pull) => Looked::StillWaiting {
                offset: pull.looked_until,
                deadline: reactor::turn_time() + PASSED_OVER_ANSWER_AFTER,
                pull,
            },
        }
    });
    if !all_looked {
        // The rest follows behind what else this shard has been told meanwhile.
        let rest = wake_rest(Rc::clone(shard), queue);
        reactor::spawn("wake parked pulls", rest);
    }
}

fn take_up(shard: &Rc<Shard>, connection: &Rc<Connection>, mut pull: Pull) -> look::Outcome {
    match check::check_again(shard, &mut pull) {
        Err(NotDone::Refused(refusal)) => {
            answer::refused(shard, &pull, &refusal);
            look::Outcome::Done
        }
        // A group that is gone is made again by who comes next.
        Ok(()) | Err(NotDone::Missing(_)) => look::look_again(shard, connection, pull),
    }
}

/// An operator has set offsets of this queue: parked pulls that are elsewhere hear of it now.
pub fn tell_of_reset(shard: &Rc<Shard>, queue: QueueNo) {
    for pull in shard
        .polls
        .take_out(queue, |pull| reset::is_elsewhere(shard, pull))
    {
        let connection = shard.connections.get(pull.conn);
        unpark(shard, connection.as_deref());
        if let Some(connection) = connection {
            reset::sent_elsewhere(shard, &connection, &pull);
        }
    }
}

async fn wake_rest(shard: Rc<Shard>, queue: QueueNo) {
    reactor::yield_now().await;
    wake(&shard, queue);
    shard.connections.commit();
}

/// Nothing came in time.
pub fn time_is_up(shard: &Shard, pull: Pull) {
    let connection = shard.connections.get(pull.conn);
    unpark(shard, connection.as_deref());
    answer::nothing(shard, &pull);
}

fn unpark(shard: &Shard, connection: Option<&Connection>) {
    shard.stats().parked_pulls.sub(1);
    if let Some(connection) = connection {
        let parked = connection.parked_pulls();
        let left = parked.get().checked_sub(1);
        parked.set(left.expect("what leaves was counted when it came"));
    }
}
