//! One core's part of the broker: the connections it was given, their sends on the way to the writer, their parked pulls.
//!
//! Everything here lives on one core and is touched by its tasks only; other cores send messages (`ToShard`). The mailbox
//! task never waits for another mailbox, so whoever waits for a shard will be served.

mod connections;
mod gate;
mod inbox;
mod offset_commits;
mod outgoing;
pub mod sends;
pub mod slab;
mod stop;
pub mod topics;
mod views;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use engine::{Queue, QueueOffset, ReleaseAt};
use reactor::mailbox::Receiver;
use reactor::{Gather, Instant};

pub use connections::{Connection, Connections};
pub use offset_commits::OffsetCommits;
pub use outgoing::Outgoing;
pub use views::Views;

use crate::handlers::pull::{self, Pull};
use crate::long_poll::LongPolls;
use crate::memory::Budget;
use crate::messages::{Shared, ToShard};
use crate::shard::sends::PendingSends;
use crate::shard::topics::Topics;
use crate::stats::ShardStats;
use crate::stats::tally::Tally;

/// How often idle connections are looked for.
const IDLE_SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Lives on one core.
pub struct Shard {
    number: u16,
    pub shared: Shared,
    pub connections: Connections,
    pub topics: Topics,
    pub views: RefCell<Views>,
    pub outgoing: Rc<Outgoing>,
    pub sends: RefCell<PendingSends>,
    pub offset_commits: Rc<OffsetCommits>,
    pub tally: Rc<Tally>,
    pub polls: LongPolls<Pull>,
    pub cold_reads: pull::ColdReads,
    pub scratch: Scratch,
    stopping: Cell<bool>,
}

/// Memory used over and over while a request is handled; empty in between.
#[derive(Default)]
pub struct Scratch {
    pub properties: RefCell<Vec<u8>>,
    pub gather: RefCell<Gather>,
    pub message_id: RefCell<String>,
}

impl Shard {
    /// Makes the shard on the current core and starts its tasks.
    pub fn start(number: u16, shared: Shared, inbox: Receiver<ToShard>) -> Rc<Self> {
        let hurries = shared.store.release_at() != ReleaseAt::Written;
        let memory_bytes = shared.settings.reader().value().memory_bytes;
        let of_connections = Budget::of(memory_bytes).connections_bytes as usize;
        let of_shard = of_connections / shared.shards.len().max(1);
        let shard = Rc::new(Self {
            number,
            connections: Connections::new(number, of_shard),
            topics: Topics::default(),
            views: RefCell::new(Views::new(&shared)),
            outgoing: Rc::new(Outgoing::new(number, shared.writer.clone(), hurries)),
            sends: RefCell::default(),
            offset_commits: Rc::new(OffsetCommits::new(shared.coordinator.clone())),
            tally: Rc::new(Tally::new(shared.coordinator.clone())),
            polls: LongPolls::new(number),
            cold_reads: pull::ColdReads::of_shard(),
            scratch: Scratch::default(),
            stopping: Cell::new(false),
            shared,
        });
        reactor::spawn("shard inbox", inbox::run(Rc::clone(&shard), inbox));
        reactor::spawn("shard flush", {
            let outgoing = Rc::clone(&shard.outgoing);
            flush(Rc::clone(&shard), outgoing.run())
        });
        if hurries {
            reactor::spawn_urgent("shard flush, hurried", {
                let outgoing = Rc::clone(&shard.outgoing);
                flush(Rc::clone(&shard), outgoing.run_hurried())
            });
        }
        reactor::spawn("shard offsets", Rc::clone(&shard.offset_commits).run());
        reactor::spawn("shard tally", Rc::clone(&shard.tally).run());
        reactor::spawn("long poll deadlines", deadlines(Rc::clone(&shard)));
        reactor::spawn("idle connections", close_idle(Rc::clone(&shard)));
        shard
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    pub fn stats(&self) -> &ShardStats {
        self.shared.stats.shard(self.number)
    }

    /// Takes over what the coordinator has published. Once per chunk of bytes.
    pub fn refresh(&self) {
        self.views.borrow_mut().refresh();
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// For tasks of the broker on this core: true once the queue has a message at `offset`, false at the deadline.
    pub async fn wait_for(
        &self,
        queue: &Arc<Queue>,
        offset: QueueOffset,
        deadline: Instant,
    ) -> bool {
        self.polls.wait_for(queue, offset, deadline).await
    }
}

/// Without a writer nothing can be acknowledged: better no connection than one that never answers.
async fn flush(shard: Rc<Shard>, handing_over: impl Future<Output = ()>) {
    handing_over.await;
    if shard.stopping.replace(true) {
        return;
    }
    tracing::error!(
        shard = shard.number,
        "the writer ended before its shards: closing all connections, the broker needs a restart"
    );
    for connection in shard.connections.all() {
        connection.outbox().close();
    }
}

async fn deadlines(shard: Rc<Shard>) {
    let answer = |pull: Pull| pull::time_is_up(&shard, pull);
    let done = || shard.connections.commit();
    shard.polls.run_deadlines(answer, done).await;
}

async fn close_idle(shard: Rc<Shard>) {
    loop {
        reactor::sleep(IDLE_SWEEP_EVERY).await;
        shard.refresh();
        let idle_ms = shard.views.borrow().settings.value().idle_close_ms;
        if idle_ms == 0 {
            continue;
        }
        for connection in shard.connections.silent_for(Duration::from_millis(idle_ms)) {
            tracing::info!(peer = %connection.peer(), idle_ms, "closing an idle connection");
            connection.socket().shutdown();
        }
    }
}
