//! Cores, timers, offloading and wake-ups between threads.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reactor::{
    CoreConfig, Notify, core_stats, launch, mailbox, now, offload, offload_remote, probe, run,
    sleep, spawn, timeout, turn_time, wall_ms, yield_now,
};

fn config(name: &str) -> CoreConfig {
    CoreConfig {
        name: name.to_owned(),
        ..CoreConfig::default()
    }
}

fn on_core<T: 'static, Fut: Future<Output = T> + 'static>(main: impl FnOnce() -> Fut) -> T {
    run(config("test"), main).expect("io_uring is there")
}

#[test]
fn this_machine_is_supported() {
    probe().unwrap();
}

#[test]
fn sleeps_end_in_the_order_of_their_deadlines_and_not_early() {
    on_core(|| async {
        let order = Rc::new(RefCell::new(Vec::new()));
        let began = now();
        let tasks: Vec<_> = [30u64, 10, 20, 0]
            .into_iter()
            .map(|ms| {
                let order = order.clone();
                spawn("sleeper", async move {
                    sleep(Duration::from_millis(ms)).await;
                    assert!(began.elapsed() >= Duration::from_millis(ms));
                    order.borrow_mut().push(ms);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.borrow(), [0, 10, 20, 30]);
        assert!(turn_time() <= now());
        assert!(wall_ms() > 1_600_000_000_000);
    });
}

#[test]
fn a_timeout_drops_what_is_late_and_keeps_what_is_not() {
    on_core(|| async {
        let late = timeout(Duration::from_millis(1), sleep(Duration::from_secs(60))).await;
        assert!(late.is_err());
        assert_eq!(timeout(Duration::from_secs(60), async { 5 }).await, Ok(5));
    });
}

#[test]
fn a_panicking_task_leaves_its_core_alive() {
    on_core(|| async {
        let task = spawn("bad", async {
            yield_now().await;
            panic!("on purpose");
        });
        let ended: Option<()> = task.await;
        assert!(ended.is_none());
        sleep(Duration::from_millis(1)).await;
        assert_eq!(core_stats().panics, 1);
    });
}

#[test]
fn a_panic_of_main_reaches_who_ran_the_core() {
    let caught = std::panic::catch_unwind(|| on_core(|| async { panic!("main gave up") }));
    let message = caught.unwrap_err();
    assert_eq!(message.downcast_ref::<&str>(), Some(&"main gave up"));
    on_core(|| async {
        let core = launch(config("doomed"), || async { panic!("far away") }).unwrap();
        assert_eq!(core.finished().await.unwrap_err().message, "far away");
    });
}

#[test]
fn offloaded_work_does_not_hold_the_core() {
    on_core(|| async {
        let ticks = Rc::new(RefCell::new(0));
        let count = ticks.clone();
        spawn("ticks", async move {
            loop {
                *count.borrow_mut() += 1;
                sleep(Duration::from_millis(1)).await;
            }
        });
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let work = spawn("work", offload("block", move || stopped.recv().is_err()));
        while *ticks.borrow() < 5 {
            yield_now().await;
        }
        assert!(!work.is_finished());
        drop(stop);
        assert_eq!(work.await, Some(true));
        let panicked = spawn("panics", offload("panics", || panic!("blocked and gone")));
        let ended: Option<()> = panicked.await;
        assert!(ended.is_none());
        assert_eq!(offload("still there", || 3).await, 3);
    });
}

#[test]
fn what_waits_for_another_machine_holds_up_no_other_offloaded_work() {
    on_core(|| async {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let waits = move || stopped.recv().is_err();
        let lookup = spawn("lookup", offload_remote("lookup", waits));
        yield_now().await;
        assert_eq!(offload("disk", || 3).await, 3);
        drop(stop);
        assert_eq!(lookup.await, Some(true));
    });
}

#[test]
fn a_notify_wakes_a_task_of_the_same_core() {
    on_core(|| async {
        let notify = Rc::new(Notify::new());
        let waiting = notify.clone();
        let task = spawn("waits", async move { waiting.notified().await });
        yield_now().await;
        notify.notify();
        assert_eq!(task.await, Some(()));
    });
}

#[test]
fn no_wake_up_between_cores_is_lost() {
    const MESSAGES: u64 = 100_000;
    on_core(|| async {
        let (to_other, mut inbox) = mailbox::channel::<u64>(8);
        let (back, mut answers) = mailbox::channel::<u64>(8);
        let other = launch(config("other"), move || async move {
            while let Some(number) = inbox.recv().await {
                back.send(number + 1).await.ok().unwrap();
            }
        })
        .unwrap();
        let sender = spawn("sends", async move {
            for number in 0..MESSAGES {
                to_other.send(number).await.ok().unwrap();
            }
        });
        let receive = async {
            for number in 0..MESSAGES {
                assert_eq!(answers.recv().await, Some(number + 1));
            }
            assert_eq!(answers.recv().await, None);
        };
        timeout(Duration::from_secs(50), receive).await.unwrap();
        sender.await.unwrap();
        other.finished().await.unwrap();
    });
}

/// A message there and one back, each to a core that has nothing else to do.
fn ping_pong(rounds: u64, spin_us: u32) {
    let config = move |name| CoreConfig {
        spin_us,
        ..config(name)
    };
    let ran = run(config("near"), || async move {
        let (to_other, mut inbox) = mailbox::channel::<u64>(1);
        let (back, mut answers) = mailbox::channel::<u64>(1);
        let other = launch(config("far"), move || async move {
            while let Some(number) = inbox.recv().await {
                back.send(number).await.ok().unwrap();
            }
        })
        .unwrap();
        for round in 0..rounds {
            to_other.send(round).await.ok().unwrap();
            let answer = timeout(Duration::from_secs(10), answers.recv()).await;
            assert_eq!(answer, Ok(Some(round)));
        }
        drop(to_other);
        other.finished().await.unwrap();
    });
    ran.expect("io_uring is there");
}

#[test]
fn one_message_at_a_time_wakes_a_sleeping_core_each_time() {
    ping_pong(3000, 0);
}

#[test]
fn a_core_that_spins_before_it_sleeps_misses_nothing() {
    // Sometimes found spinning, sometimes asleep.
    ping_pong(3000, 20);
}

#[test]
fn a_thread_that_is_no_core_wakes_one() {
    on_core(|| async {
        let seen = Arc::new(AtomicU64::new(0));
        for round in 0..200u64 {
            let (reply, answer) = mailbox::oneshot::<u64>();
            let counted = seen.clone();
            let thread = std::thread::spawn(move || {
                counted.fetch_add(1, Ordering::Relaxed);
                reply.send(round);
            });
            let answer = timeout(Duration::from_secs(10), answer).await;
            assert_eq!(answer, Ok(Some(round)));
            thread.join().unwrap();
        }
        assert_eq!(seen.load(Ordering::Relaxed), 200);
    });
}

#[test]
fn a_pinned_core_runs_on_its_cpu() {
    let cpu = *reactor::usable_cpus().last().unwrap();
    let pinned = CoreConfig {
        cpu: Some(cpu),
        ..config("pinned")
    };
    on_core(|| async move {
        launch(pinned, move || async move {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let allowed = status
                .lines()
                .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
                .unwrap();
            assert_eq!(allowed.trim(), cpu.to_string());
        })
        .unwrap()
        .finished()
        .await
        .unwrap();
    });
    let nowhere = CoreConfig {
        cpu: Some(1_000_000),
        ..config("nowhere")
    };
    assert!(run(nowhere, || async {}).is_err());
}

#[test]
fn a_core_starts_within_a_small_locked_memory_limit() {
    // The default settings, many times over: nothing is left locked.
    for _ in 0..20 {
        on_core(|| async {});
    }
}

/// Makes io_uring_setup fail with `errno` for this thread, as a container's seccomp profile does.
fn forbid_io_uring(errno: i32) {
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    let mut program = [
        // The system call's number is the first field of what a filter sees.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter {
            jf: 1,
            ..statement(
                libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
                libc::SYS_io_uring_setup as u32,
            )
        },
        statement(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_ERRNO | errno as u32,
        ),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the program lives through both calls; they change the calling thread only.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let set = libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const filter,
        );
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    }
}

#[test]
fn where_io_uring_is_forbidden_the_reason_is_one_plain_sentence() {
    for (errno, words) in [
        (libc::EPERM, "may not use io_uring"),
        (libc::ENOSYS, "no io_uring"),
    ] {
        let answers = std::thread::spawn(move || {
            forbid_io_uring(errno);
            let ran = run(config("forbidden"), || async {});
            (
                probe().unwrap_err().to_string(),
                ran.unwrap_err().to_string(),
            )
        });
        let (probed, ran) = answers.join().unwrap();
        assert!(
            probed.contains(words) && probed.contains("seccomp"),
            "{probed}"
        );
        assert_eq!(probed, ran);
    }
}
