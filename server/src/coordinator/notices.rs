//! "Your group has changed": to every member, so that they share the queues anew; soon after the change, and not more often
//! than `clients::telling` says.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use protocol::code::request;
use protocol::{Encoding, Value, write_request};
use reactor::{Instant, Notify};

use super::Coordinator;
use crate::clients::Telling;

/// Groups whose members are told of a change later. Lives on the coordinator's core.
#[derive(Default)]
pub struct Notices {
    later: RefCell<BTreeSet<(Instant, Arc<str>)>>,
    more: Notify,
}

impl Notices {
    fn put_off(&self, group: &str, until: Instant) {
        self.later.borrow_mut().insert((until, Arc::from(group)));
        self.more.notify();
    }

    /// The next group whose time has come.
    async fn next(&self) -> Arc<str> {
        loop {
            let first = self.later.borrow().first().cloned();
            let Some((until, group)) = first else {
                self.more.notified().await;
                continue;
            };
            let left = until.saturating_since(reactor::now());
            if left.is_zero() {
                self.later.borrow_mut().remove(&(until, Arc::clone(&group)));
                return group;
            }
            // Elapsed, or there is one that comes before it.
            let _ = reactor::timeout(left, self.more.notified()).await;
        }
    }
}

/// The task that tells what was put off.
pub(super) async fn run(coordinator: Rc<Coordinator>) {
    while !coordinator.is_stopped() {
        let group = coordinator.notices.next().await;
        coordinator.tell_put_off(&group);
        coordinator.outgoing.send_all().await;
    }
}

impl Coordinator {
    /// The members of a group have changed, or what they read. Those of broadcasting groups share nothing.
    pub fn tell_members(&self, group: &str) {
        let telling = self.tables().clients.telling(group, reactor::turn_time());
        self.tell_or_put_off(group, telling);
    }

    fn tell_put_off(&self, group: &str) {
        let now = reactor::now();
        let telling = self.tables().clients.telling_again(group, now);
        self.tell_or_put_off(group, telling);
    }

    fn tell_or_put_off(&self, group: &str, telling: Option<Telling>) {
        match telling {
            Some(Telling::Now) => self.tell_all(group),
            Some(Telling::At(until)) => self.notices.put_off(group, until),
            Some(Telling::Later) | None => {}
        }
    }

    fn tell_all(&self, group: &str) {
        let tables = self.tables();
        let enabled = tables
            .groups
            .get(group)
            .is_none_or(|config| config.notify_consumer_ids_changed_enable);
        let enabled = enabled && self.settings().notify_consumer_ids_changed;
        if !enabled || self.members_vanish.get() {
            return;
        }
        let Some(live) = tables.clients.consumer_group(group) else {
            return;
        };
        if live.is_broadcasting() {
            return;
        }
        for &conn in live.members.keys() {
            let mut frame = Vec::with_capacity(128 + group.len());
            write_request(
                &mut frame,
                Encoding::Json,
                request::NOTIFY_CONSUMER_IDS_CHANGED,
                self.outgoing.next_opaque(),
                true,
                &[("consumerGroup", Value::Str(group))],
                &[],
            );
            self.outgoing.tell(conn, frame);
        }
    }
}
