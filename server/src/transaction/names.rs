//! Producer groups of open transactions, each name kept once however many there are.

use std::num::NonZeroU32;
use std::sync::Arc;

use hashbrown::HashMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupNo(NonZeroU32);

impl GroupNo {
    fn of(slot: usize) -> Self {
        let number = u32::try_from(slot + 1).ok().and_then(NonZeroU32::new);
        Self(number.expect("fewer than 4 billion groups"))
    }

    fn slot(self) -> usize {
        self.0.get() as usize - 1
    }
}

#[derive(Debug, Default)]
pub struct Groups {
    numbers: HashMap<Arc<str>, GroupNo>,
    /// By number; a name nobody uses is forgotten and its number given to the next one.
    slots: Vec<Slot>,
    free: Vec<GroupNo>,
}

#[derive(Debug)]
struct Slot {
    name: Arc<str>,
    users: u64,
}

impl Groups {
    pub fn enter(&mut self, name: &str) -> GroupNo {
        if let Some(&group) = self.numbers.get(name) {
            self.slots[group.slot()].users += 1;
            return group;
        }
        let name: Arc<str> = Arc::from(name);
        let slot = Slot {
            name: Arc::clone(&name),
            users: 1,
        };
        let group = match self.free.pop() {
            Some(group) => {
                self.slots[group.slot()] = slot;
                group
            }
            None => {
                self.slots.push(slot);
                GroupNo::of(self.slots.len() - 1)
            }
        };
        self.numbers.insert(name, group);
        group
    }

    pub fn leave(&mut self, group: GroupNo) {
        let slot = &mut self.slots[group.slot()];
        let left = slot.users.checked_sub(1);
        slot.users = left.expect("whoever leaves has entered");
        if slot.users == 0 {
            self.numbers.remove(&slot.name);
            slot.name = Arc::from("");
            self.free.push(group);
        }
    }

    pub fn name(&self, group: GroupNo) -> Arc<str> {
        Arc::clone(&self.slots[group.slot()].name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_once_and_forgotten_with_its_last_user() {
        let mut groups = Groups::default();
        let (a, b) = (groups.enter("a"), groups.enter("b"));
        assert_eq!(groups.enter("a"), a);
        groups.leave(a);
        assert_eq!(&*groups.name(a), "a");
        groups.leave(a);
        assert_eq!(groups.enter("c"), a, "numbers are used again");
        assert_eq!((&*groups.name(a), &*groups.name(b)), ("c", "b"));
        assert_eq!(groups.numbers.len(), 2);
    }
}
