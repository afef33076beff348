//! Runs that were merged: their files have no name any more, and queries may still read them.
//!
//! Who closes such a file last gives its disk space and its page cache back, a millisecond for every four megabytes: on a
//! core nobody must. So each is held here until nobody else has it, and closed beside the cores.

use reactor::offload_bulk;
use std::cell::RefCell;
use std::sync::Arc;

/// The writer's core only.
pub struct Retired<File>(RefCell<Vec<Arc<File>>>);

impl<File> Default for Retired<File> {
    fn default() -> Self {
        Retired(RefCell::default())
    }
}

impl<File: Send + Sync + 'static> Retired<File> {
    pub fn add(&self, files: impl IntoIterator<Item = Arc<File>>) {
        self.0.borrow_mut().extend(files);
    }

    /// Closes those that nobody else has any more.
    pub async fn close_idle(&self) {
        // Nobody gets at one who has not got it.
        let is_idle = |file: &mut Arc<File>| Arc::get_mut(file).is_some();
        let idle: Vec<_> = self.0.borrow_mut().extract_if(.., is_idle).collect();
        if !idle.is_empty() {
            offload_bulk("close merged key runs", move || drop(idle)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reactor::CoreConfig;
    use std::sync::Mutex;
    use std::thread::{self, ThreadId};

    type Closed = Arc<Mutex<Vec<ThreadId>>>;

    struct File(Closed);

    impl Drop for File {
        fn drop(&mut self) {
            let mut closed = self.0.lock().expect("nobody panics");
            closed.push(thread::current().id());
        }
    }

    #[test]
    fn a_file_is_closed_beside_the_core_once_nobody_else_has_it() {
        let config = CoreConfig::default();
        let done = reactor::run(config, || async {
            let (closed, retired) = (Closed::default(), Retired::default());
            let count = || closed.lock().expect("nobody panics").len();
            let file = || Arc::new(File(closed.clone()));
            let read = file();
            retired.add([read.clone(), file()]);
            assert_eq!(count(), 0);
            retired.close_idle().await;
            assert_eq!(count(), 1);
            drop(read);
            assert_eq!(count(), 1, "not by the reader");
            retired.close_idle().await;
            let core = thread::current().id();
            let by = closed.lock().expect("nobody panics");
            assert!(by.len() == 2 && !by.contains(&core));
        });
        done.expect("io_uring is available");
    }
}
