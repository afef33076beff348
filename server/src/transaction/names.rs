//! Producer groups of open transactions, each name kept once however many there are.

use std::sync::Arc;

use hashbrown::HashMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupNo(u32);

#[derive(Debug, Default)]
pub struct Groups {
    numbers: HashMap<Arc<str>, u32>,
    /// By number; a name nobody uses is forgotten and its number given to the next one.
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    name: Arc<str>,
    users: u64,
}

impl Groups {
    pub fn enter(&mut self, name: &str) -> GroupNo {
        if let Some(&number) = self.numbers.get(name) {
            self.slots[number as usize].users += 1;
            return GroupNo(number);
        }
        let name: Arc<str> = Arc::from(name);
        let slot = Slot {
            name: Arc::clone(&name),
            users: 1,
        };
        let number = match self.free.pop() {
            Some(number) => {
                self.slots[number as usize] = slot;
                number
            }
            None => {
                self.slots.push(slot);
                u32::try_from(self.slots.len() - 1).expect("fewer than 4 billion groups")
            }
        };
        self.numbers.insert(name, number);
        GroupNo(number)
    }

    pub fn leave(&mut self, group: GroupNo) {
        let slot = &mut self.slots[group.0 as usize];
        let left = slot.users.checked_sub(1);
        slot.users = left.expect("whoever leaves has entered");
        if slot.users == 0 {
            self.numbers.remove(&slot.name);
            slot.name = Arc::from("");
            self.free.push(group.0);
        }
    }

    pub fn name(&self, group: GroupNo) -> Arc<str> {
        Arc::clone(&self.slots[group.0 as usize].name)
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
