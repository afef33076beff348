//! Members that went silent, and what follows when members are gone.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use protocol::body::subscription_group::SubscriptionGroupConfig;

use super::journal::Entry;
use super::{Coordinator, now_ms, subscriptions};
use crate::stats::tally::Counted;

const SCAN_EVERY: Duration = Duration::from_secs(10);

/// The scan: silent clients are closed and leave their groups, locks run out.
pub(super) async fn run(coordinator: Rc<Coordinator>) {
    while !coordinator.is_stopped() {
        reactor::sleep(SCAN_EVERY).await;
        coordinator.expire_clients();
        coordinator.tables().locks.expire(now_ms());
        coordinator.locks_changed();
        coordinator.expire_resets();
        coordinator.outgoing.send_all().await;
    }
}

impl Coordinator {
    /// As the operator wishes: a group that reads what is long gone from memory must not take the disk from all others.
    pub(super) fn disable_slow_readers(&self, counted: &Counted) {
        let Some(behind_max) = self.settings().slow_reader_bytes else {
            return;
        };
        let slow = counted
            .gets
            .iter()
            .filter(|(_, got)| got.behind_bytes > behind_max);
        for (reading, got) in slow {
            let mut tables = self.tables();
            let Some(config) = tables.groups.get(&reading.group) else {
                continue;
            };
            if !config.consume_enable {
                continue;
            }
            let config = SubscriptionGroupConfig {
                consume_enable: false,
                ..(**config).clone()
            };
            tracing::warn!(
                group = %reading.group,
                topic = %reading.topic,
                behind_bytes = got.behind_bytes,
                behind_max,
                "group disabled: it reads too far behind (disableConsumeIfConsumerReadSlowly)"
            );
            tables.groups.put(config.clone(), reactor::wall_ms());
            drop(tables);
            self.groups_changed();
            self.journal_entry(&Entry::Group(config));
        }
    }

    fn expire_clients(&self) {
        let expires_after_ms = self.settings().client_expires_after_ms;
        let silent = self.tables().clients.silent(now_ms(), expires_after_ms);
        for conn in silent {
            tracing::warn!(?conn, expires_after_ms, "no heartbeat: client closed");
            let left = self.tables().clients.connection_closed(conn);
            self.groups_lost_a_member(&left);
            self.outgoing.close(conn);
        }
    }

    /// Members have left these groups: pulls and the members that stay must know.
    pub fn groups_lost_a_member(&self, groups: &[Arc<str>]) {
        if groups.is_empty() || self.members_vanish.get() {
            return;
        }
        self.subscriptions_changed(groups.iter().map(|name| &**name));
        self.forget_resets(groups);
        for group in groups {
            self.tell_members(group);
        }
    }

    /// Who comes next to a group without members asks for its offset first.
    fn forget_resets(&self, groups: &[Arc<str>]) {
        let mut tables = self.tables();
        let tables = &mut *tables;
        let empty = groups
            .iter()
            .filter(|group| tables.clients.consumer_group(group).is_none());
        let forgotten = empty
            .filter(|group| tables.resets.forget_group(group))
            .count();
        if forgotten > 0 {
            self.shared.resets.publish(tables.resets.snapshot());
        }
    }

    pub fn subscriptions_changed<'a>(&self, groups: impl Iterator<Item = &'a str>) {
        let mut table = self.shared.subscriptions.load();
        let tables = self.tables();
        for group in groups {
            match tables.clients.consumer_group(group) {
                Some(live) => {
                    table.insert(Arc::from(group), Arc::new(subscriptions::of_group(live)));
                }
                None => {
                    table.remove(group);
                }
            }
        }
        drop(tables);
        self.shared.subscriptions.publish(table);
    }
}
