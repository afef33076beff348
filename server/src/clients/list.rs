//! The list of a group's clients in the form in which it is asked for. All members of a group ask for it after a change and
//! now and then: it is made once for each change, not once for each of them.

use std::cell::RefCell;

use protocol::body::Body;
use protocol::body::lists::ConsumerList;
use protocol::json::Dialect;

/// Of one group.
#[derive(Debug, Default)]
pub struct ListAnswer {
    made: RefCell<Option<Vec<u8>>>,
}

impl ListAnswer {
    /// Somebody has come or gone.
    pub fn is_old(&mut self) {
        *self.made.get_mut() = None;
    }

    pub fn of(&self, client_ids: impl FnOnce() -> Vec<String>) -> Vec<u8> {
        let mut made = self.made.borrow_mut();
        let made = made.get_or_insert_with(|| {
            let list = ConsumerList {
                consumer_id_list: client_ids(),
            };
            list.to_json(Dialect::Fastjson1)
        });
        made.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn it_is_made_once_for_each_change() {
        let (mut answer, times) = (ListAnswer::default(), Cell::new(0));
        let ids = |ids: &[&str]| {
            times.set(times.get() + 1);
            ids.iter().map(|&id| id.to_owned()).collect()
        };
        let first = answer.of(|| ids(&["a"]));
        assert_eq!(answer.of(|| ids(&["b"])), first);
        assert_eq!(times.get(), 1);
        answer.is_old();
        assert_eq!(answer.of(|| ids(&["b"])), br#"{"consumerIdList":["b"]}"#);
        assert_eq!(times.get(), 2);
    }
}
