//! A shard's copies of what the coordinator publishes, renewed once per chunk of bytes, not per message.

use std::sync::Arc;

use crate::config::Settings;
use crate::groups::Forbidden;
use crate::messages::{GroupTable, Shared, SubscriptionTable, TopicTable};
use crate::published::Reader;
use crate::resets;

/// Lives on one core.
pub struct Views {
    pub settings: Reader<Arc<Settings>>,
    pub topics: Reader<TopicTable>,
    pub groups: Reader<GroupTable>,
    pub forbidden: Reader<Arc<Forbidden>>,
    pub subscriptions: Reader<SubscriptionTable>,
    pub ordered_groups: Reader<imbl::HashSet<Arc<str>>>,
    pub resets: Reader<resets::Offsets>,
}

impl Views {
    pub fn new(shared: &Shared) -> Self {
        Self {
            settings: shared.settings.reader(),
            topics: shared.topics.reader(),
            groups: shared.groups.reader(),
            forbidden: shared.forbidden.reader(),
            subscriptions: shared.subscriptions.reader(),
            ordered_groups: shared.ordered_groups.reader(),
            resets: shared.resets.reader(),
        }
    }

    /// Seven atomic loads, unless something changed.
    pub fn refresh(&mut self) {
        self.settings.refresh();
        self.topics.refresh();
        self.groups.refresh();
        self.forbidden.refresh();
        self.subscriptions.refresh();
        self.ordered_groups.refresh();
        self.resets.refresh();
    }
}
