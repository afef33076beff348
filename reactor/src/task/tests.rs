//! The executor on a core without a driver's loop: polled by hand.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::rc::Rc;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::core::{Driver, spawn};
use crate::driver::ring::Ring;
use crate::launch::CoreConfig;

const POLLS_MAX: usize = 1000;

fn with_core(test: impl FnOnce(&Rc<Core>)) {
    let config = CoreConfig {
        ring_entries: 8,
        buffer_count: 1,
        ..CoreConfig::default()
    };
    let ring = Ring::new(&config).unwrap();
    let core = Core::new("test", Driver::Ring(ring.clone()), 1, 0);
    {
        let _entered = core.enter();
        test(&core);
        core.shutdown();
    }
    ring.close();
}

fn output<T>(task: Task<T>) -> Option<Option<T>> {
    let mut task = std::pin::pin!(task);
    match task.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

#[test]
fn a_task_that_panics_ends_alone() {
    with_core(|core| {
        let bad = spawn("bad", async { panic!("on purpose") });
        let good = spawn("good", async { 7 });
        core.run_ready(POLLS_MAX, |_| true);
        assert!(matches!(output::<()>(bad), Some(None)));
        assert_eq!(output(good), Some(Some(7)));
        assert_eq!(core.executor.panics.get(), 1);
        assert_eq!(core.executor.tasks_live(), 0);
    });
}

#[test]
fn a_panicking_destructor_ends_alone_too() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in a destructor");
        }
    }
    with_core(|core| {
        let task = spawn("bomb", async {
            let _bomb = Bomb;
            pending::<()>().await;
        });
        core.run_ready(POLLS_MAX, |_| true);
        task.cancel();
        assert_eq!(core.executor.panics.get(), 1);
        assert_eq!(core.executor.tasks_live(), 0);
    });
}

#[test]
fn cancelling_drops_the_future_and_tells_who_waits() {
    with_core(|core| {
        let dropped = Rc::new(Cell::new(false));
        struct Mark(Rc<Cell<bool>>);
        impl Drop for Mark {
            fn drop(&mut self) {
                self.0.set(true);
            }
        }
        let mark = Mark(dropped.clone());
        let task = spawn("waits", async move {
            let _mark = mark;
            pending::<()>().await;
        });
        core.run_ready(POLLS_MAX, |_| true);
        assert!(!dropped.get() && !task.is_finished());
        task.cancel();
        assert!(dropped.get() && task.is_finished());
        task.cancel();
        assert_eq!(output(task), Some(None));
    });
}

#[test]
fn a_task_may_cancel_itself() {
    with_core(|core| {
        let own: Rc<RefCell<Option<Task<()>>>> = Rc::default();
        let inside = own.clone();
        let task = spawn("itself", async move {
            inside.borrow().as_ref().unwrap().cancel();
            pending::<()>().await;
        });
        own.replace(Some(task));
        core.run_ready(POLLS_MAX, |_| true);
        assert!(own.borrow().as_ref().unwrap().is_finished());
        assert_eq!(core.executor.tasks_live(), 0);
    });
}

#[test]
fn a_stale_waker_of_a_reused_slot_wakes_nobody() {
    with_core(|core| {
        let stale: Rc<RefCell<Option<Waker>>> = Rc::default();
        let keep = stale.clone();
        spawn(
            "first",
            poll_fn(move |cx| {
                keep.replace(Some(cx.waker().clone()));
                Poll::Ready(())
            }),
        );
        core.run_ready(POLLS_MAX, |_| true);
        let polls = Rc::new(Cell::new(0));
        let count = polls.clone();
        spawn(
            "second",
            poll_fn(move |_| {
                count.set(count.get() + 1);
                Poll::<()>::Pending
            }),
        );
        core.run_ready(POLLS_MAX, |_| true);
        stale.borrow().as_ref().unwrap().wake_by_ref();
        core.run_ready(POLLS_MAX, |_| true);
        assert_eq!(polls.get(), 1);
    });
}

#[test]
fn yielding_lets_the_others_run_first() {
    with_core(|core| {
        let order = Rc::new(RefCell::new(Vec::new()));
        for name in ["a", "b"] {
            let order = order.clone();
            spawn("yields", async move {
                order.borrow_mut().push(name);
                yield_now().await;
                order.borrow_mut().push(name);
            });
        }
        core.run_ready(POLLS_MAX, |_| true);
        assert_eq!(*order.borrow(), ["a", "b", "a", "b"]);
    });
}

#[test]
fn wakes_from_many_threads_all_reach_the_task() {
    const THREADS: usize = 4;
    const WAKES: usize = 2000;
    with_core(|core| {
        let left = Arc::new(AtomicUsize::new(THREADS * WAKES));
        let seen = left.clone();
        let waker: Rc<RefCell<Option<Waker>>> = Rc::default();
        let give = waker.clone();
        let task = spawn(
            "counts",
            poll_fn(move |cx| {
                give.replace(Some(cx.waker().clone()));
                match seen.load(Ordering::Acquire) {
                    0 => Poll::Ready(()),
                    _ => Poll::Pending,
                }
            }),
        );
        core.run_ready(POLLS_MAX, |_| true);
        let waker = waker.borrow().clone().unwrap();
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let (waker, left) = (waker.clone(), left.clone());
                std::thread::spawn(move || {
                    for _ in 0..WAKES {
                        left.fetch_sub(1, Ordering::AcqRel);
                        waker.wake_by_ref();
                    }
                })
            })
            .collect();
        while threads.iter().any(|thread| !thread.is_finished()) {
            core.run_ready(POLLS_MAX, |_| true);
        }
        for thread in threads {
            thread.join().unwrap();
        }
        // The last wake may still be queued; after it nothing may be missing.
        core.run_ready(POLLS_MAX, |_| true);
        assert!(task.is_finished());
    });
}

#[test]
fn a_task_that_holds_the_core_is_counted_as_a_stall() {
    let config = CoreConfig {
        stall_ms: 1,
        ..CoreConfig::default()
    };
    let stats = crate::run(config, || async {
        let began = std::time::Instant::now();
        while began.elapsed().as_millis() < 3 {
            std::hint::spin_loop();
        }
        yield_now().await;
        crate::core_stats()
    })
    .unwrap();
    assert_eq!(stats.stalls, 1);
    assert!(stats.stall_ms_max >= 3);
}
