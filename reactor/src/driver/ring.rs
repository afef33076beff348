//! The driver that runs on io_uring: one ring per core, owned by the core's thread.
//!
//! A turn of the loop: poll ready tasks, then one system call that submits what they asked for and waits for something to
//! happen, then hand completions to their owners, whose wake-ups make tasks ready. Memory that the kernel may touch
//! belongs to the operation's slot (`ops`) until its completion has come, whatever became of the future that waits for it.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};

use crate::core::Core;
use crate::launch::{CoreConfig, Unsupported};
use crate::time::{self, Instant};

mod file;
mod fixed;
mod listener;
mod op;
mod pool;
mod quiet;
mod receive;
mod send;
mod setup;
mod socket;
mod unpark;

pub(crate) use file::File;
pub(crate) use listener::Listener;
pub(crate) use pool::PooledBytes;
pub(crate) use socket::{DetachedSocket, Socket};
pub(crate) use unpark::Unpark;

use fixed::FixedFiles;
use op::{Keep, Op, Ops, Slot};
use pool::Pool;
use quiet::QuietSends;
use receive::Receiver;
use send::GatherSend;

/// After this many polls the ring gets its turn, so that ready tasks cannot keep completions waiting for long.
const POLLS_PER_TURN_MAX: usize = 512;

/// While something urgent is in flight the kernel is asked after so long whether it is done.
const URGENT_TURN: Duration = Duration::from_micros(20);

/// How long a closing ring waits for the kernel to give back its memory. What is still out after that is leaked.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// `user_data` of completions that belong to no slot.
const USER_DATA_IGNORED: u64 = u64::MAX;
/// A message from another core's ring: it only ends the wait.
const USER_DATA_WAKE: u64 = u64::MAX - 1;
/// The poll of the eventfd that foreign threads write to.
const USER_DATA_EVENTFD: u64 = u64::MAX - 2;

#[derive(Clone, Copy)]
struct Completion {
    user_data: u64,
    result: i32,
    flags: u32,
}

pub(crate) struct Ring {
    uring: RefCell<IoUring>,
    ops: RefCell<Ops>,
    /// Taken from the completion queue, not yet handed out.
    completions: RefCell<Vec<Completion>>,
    pool: Rc<Pool>,
    fixed: RefCell<FixedFiles>,
    /// Receivers that found no buffer; armed again once there is one.
    starved: RefCell<Vec<Rc<Receiver>>>,
    #[allow(clippy::vec_box)] // the box is what is kept: its address goes to the kernel
    gather_spares: RefCell<Vec<Box<GatherSend>>>,
    unpark: Unpark,
    /// Waiting is not accounted as I/O wait where the kernel can tell the difference.
    enter_flags: EnterFlags,
    closed: Cell<bool>,
    urgent: Cell<Urgent>,
    quiet: QuietSends,
}

/// Operations for which a turn of the loop ends early: so that they are begun, and so that their end is noticed.
#[derive(Clone, Copy, Default)]
struct Urgent {
    in_flight: u32,
    /// At least one of them was not submitted yet.
    is_new: bool,
}

/// While it lives, an operation of the ring is urgent.
pub(crate) struct Hurry(Rc<Ring>);

impl Drop for Hurry {
    fn drop(&mut self) {
        let mut urgent = self.0.urgent.get();
        urgent.in_flight -= 1;
        self.0.urgent.set(urgent);
    }
}

impl Ring {
    pub(crate) fn new(config: &CoreConfig) -> Result<Rc<Ring>, Unsupported> {
        let uring = setup::with_patience(|| setup::build(config.ring_entries))?;
        let pool = setup::with_patience(|| {
            Pool::register(&uring, config.buffer_count, config.buffer_bytes)
        })?;
        let fixed = FixedFiles::register(&uring);
        let unpark = Unpark::new(uring.as_raw_fd()).map_err(Unsupported::Other)?;
        let mut enter_flags = EnterFlags::GETEVENTS;
        if uring.params().is_feature_no_iowait() {
            enter_flags |= EnterFlags::NO_IOWAIT;
        }
        // Only asked of kernels that also defer completions (6.1).
        let quiet = QuietSends::new(uring.params().is_setup_single_issuer());
        let ring = Rc::new(Ring {
            uring: RefCell::new(uring),
            ops: RefCell::default(),
            completions: RefCell::default(),
            pool,
            fixed: RefCell::new(fixed),
            starved: RefCell::default(),
            gather_spares: RefCell::default(),
            unpark,
            enter_flags,
            closed: Cell::new(false),
            urgent: Cell::default(),
            quiet,
        });
        ring.arm_wake_poll();
        Ok(ring)
    }

    pub(crate) fn unpark(&self) -> Unpark {
        self.unpark.clone()
    }

    /// The core's loop, until `done`.
    pub(crate) fn run(&self, core: &Rc<Core>, spin_us: u32, done: impl Fn() -> bool) {
        let spin = Duration::from_micros(u64::from(spin_us));
        loop {
            let began = core.turn_time();
            core.run_ready(POLLS_PER_TURN_MAX, |now| !self.must_turn(began, now));
            if done() {
                return;
            }
            self.feed_starved();
            if core.has_ready() || core.has_waiting_bulk() {
                self.poll_kernel();
            } else {
                self.wait(core, spin);
            }
            self.dispatch();
            core.begin_turn(time::monotonic(), None);
        }
    }

    /// Takes back all memory the kernel still holds, then shuts. Called when the core's tasks are gone.
    pub(crate) fn drain(&self, core: &Rc<Core>) {
        let limit = time::monotonic() + DRAIN_LIMIT;
        self.push(
            &opcode::AsyncCancel2::new(CancelBuilder::any())
                .build()
                .user_data(USER_DATA_IGNORED),
        );
        while self.ops.borrow().live() > 0 && time::monotonic() < limit {
            self.enter(1, Some(Duration::from_millis(10)));
            self.dispatch();
            core.shutdown(); // completions may have woken nothing but stale tasks; keep it that way
        }
        self.close();
    }

    /// Shuts the ring: nothing is submitted any more.
    pub(crate) fn close(&self) {
        if self.closed.replace(true) {
            return;
        }
        self.unpark.ring_closed();
        let leaked = self.ops.take();
        if leaked.live() > 0 {
            tracing::warn!(
                operations = leaked.live(),
                "a closing core leaves operations to the kernel"
            );
            std::mem::forget(leaked);
        }
        self.starved.borrow_mut().clear();
        self.pool.unregister(&self.uring.borrow());
    }

    // ---- the loop's parts

    /// Whether something urgent is to be submitted or may have completed, in a turn that began at `began`.
    #[inline]
    fn must_turn(&self, began: Instant, now: Instant) -> bool {
        let urgent = self.urgent.get();
        urgent.is_new
            || urgent.in_flight > 0
                && now.saturating_since(began) >= URGENT_TURN
                && self.has_completions()
    }

    fn has_completions(&self) -> bool {
        let mut uring = self.uring.borrow_mut();
        uring.submission().taskrun() || !uring.completion().is_empty()
    }

    /// Submits and collects without waiting; no system call if there is nothing to do for the kernel.
    fn poll_kernel(&self) {
        let kernel_has_work = {
            let mut uring = self.uring.borrow_mut();
            let submission = uring.submission();
            !submission.is_empty() || submission.taskrun() || submission.cq_overflow()
        };
        if kernel_has_work {
            self.enter(0, None);
        } else {
            self.reap();
        }
    }

    /// Submits, and sleeps until a completion, a wake-up or the next deadline.
    fn wait(&self, core: &Rc<Core>, spin: Duration) {
        let timeout = match core.next_deadline() {
            None => None,
            Some(deadline) => {
                let now = time::monotonic();
                if deadline <= now {
                    return self.enter(0, None);
                }
                Some(deadline.saturating_since(now))
            }
        };
        if self.quiet.forbid_sleep() {
            return self.enter(0, None);
        }
        if !spin.is_zero() && self.spin(core, spin, timeout) {
            return;
        }
        // What was taken from the queue meanwhile (a full submission queue, the end of the spin) has woken nobody yet.
        if !self.completions.borrow().is_empty() {
            return self.enter(0, None);
        }
        let shared = &core.executor.shared;
        if shared.prepare_sleep() {
            self.enter(1, timeout);
            shared.finish_sleep();
        } else {
            self.enter(0, None);
        }
    }

    /// Looks for work for a short while before sleeping: a wake-up by system call costs both sides more. True: found.
    fn spin(&self, core: &Rc<Core>, spin: Duration, timeout: Option<Duration>) -> bool {
        self.enter(0, None);
        let end = time::monotonic() + timeout.map_or(spin, |timeout| timeout.min(spin));
        loop {
            if !self.completions.borrow().is_empty() || core.executor.shared.has_remote() {
                return true;
            }
            self.poll_kernel();
            if time::monotonic() >= end {
                return false;
            }
            std::hint::spin_loop();
        }
    }

    /// The one system call of a turn. Errors that pass by themselves are left to the next turn.
    fn enter(&self, want: usize, timeout: Option<Duration>) {
        let entered = {
            let mut uring = self.uring.borrow_mut();
            let pending = uring.submission().len();
            let timespec = timeout.map(Timespec::from);
            let mut args = SubmitArgs::new();
            let mut flags = self.enter_flags;
            if let Some(timespec) = &timespec {
                args = args.timespec(timespec);
                flags |= EnterFlags::EXT_ARG;
            }
            let args = timespec.is_some().then_some(&args);
            // SAFETY: every pushed entry points to memory that its slot owns; the arguments live through the call.
            unsafe {
                uring
                    .submitter()
                    .enter(pending as u32, want as u32, flags.bits(), args)
            }
        };
        self.urgent.set(Urgent {
            is_new: false,
            ..self.urgent.get()
        });
        if let Err(error) = entered {
            match error.raw_os_error() {
                // The timeout, a signal, a full completion queue, momentary lack of memory.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => {}
                _ => panic!("io_uring_enter refused a valid call: {error}"),
            }
        }
        self.reap();
    }

    /// Finds out what became of quiet sends. `completions` are all that were taken since the last time.
    fn settle_quiet(&self, completions: &mut Vec<Completion>) {
        self.quiet.hear(completions);
        let is_open = {
            let mut uring = self.uring.borrow_mut();
            let submission = uring.submission();
            !submission.is_empty() || submission.cq_overflow()
        };
        if is_open {
            // Not all were taken, or there was no room for what they say: after the next call, which is not to wait.
            self.quiet.ask();
        } else {
            self.quiet.settle(completions);
        }
    }

    fn reap(&self) {
        let mut uring = self.uring.borrow_mut();
        let mut completions = self.completions.borrow_mut();
        completions.extend(uring.completion().map(|entry| Completion {
            user_data: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        }));
    }

    /// Hands completions to their owners. They wake tasks but run none.
    fn dispatch(&self) {
        let mut completions = self.completions.take();
        self.settle_quiet(&mut completions);
        for completion in completions.drain(..) {
            self.complete(completion);
        }
        // Keep the vector's memory; completions that arrived meanwhile (a full submission queue) stay in order.
        let mut arrived = self.completions.borrow_mut();
        completions.append(&mut arrived);
        *arrived = completions;
    }

    fn complete(&self, completion: Completion) {
        match completion.user_data {
            USER_DATA_IGNORED | USER_DATA_WAKE => return,
            USER_DATA_EVENTFD => {
                // Ended: by an overflow, or because the ring is being drained.
                if !cqueue::more(completion.flags) && completion.result != -libc::ECANCELED {
                    self.arm_wake_poll();
                }
                return;
            }
            _ => {}
        }
        let key = completion.user_data as u32; // without the mark of a quiet send
        let more = cqueue::more(completion.flags);
        let mut ops = self.ops.borrow_mut();
        match ops.slot(key) {
            Slot::Single(single) => {
                debug_assert!(!more, "a single operation completes once");
                if single.abandoned {
                    let removed = ops.remove(key);
                    drop(ops);
                    drop(removed);
                } else {
                    single.result = Some(completion.result);
                    let waker = single.waker.take();
                    drop(ops);
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                }
            }
            Slot::Receive(receiver) => {
                let receiver = receiver.clone();
                let removed = (!more).then(|| ops.remove(key));
                drop(ops);
                receiver.complete(self, completion.result, completion.flags);
                drop(removed);
            }
            Slot::Accept(acceptor) => {
                let acceptor = acceptor.clone();
                let removed = (!more).then(|| ops.remove(key));
                drop(ops);
                acceptor.complete(completion.result, more);
                drop(removed);
            }
            Slot::CloseFixed(index) => {
                let index = *index;
                drop(ops.remove(key));
                self.fixed.borrow_mut().give_back(index);
            }
            Slot::Message(target) => {
                let target = target.clone();
                let removed = ops.remove(key);
                drop(ops);
                drop(removed);
                if completion.result < 0 {
                    target.write_eventfd();
                }
            }
            Slot::Free(_) => unreachable!("a completion without an operation"),
        }
    }

    /// Arms receivers again that found the pool empty, as soon as it is not.
    fn feed_starved(&self) {
        if self.starved.borrow().is_empty() {
            return;
        }
        if self.pool.is_exhausted() {
            self.unload_receivers();
        }
        if self.pool.is_exhausted() {
            return;
        }
        let mut starved = self.starved.take();
        for receiver in starved.drain(..) {
            receiver.feed(self);
        }
        self.starved.replace(starved);
    }

    /// Connections that nobody reads must not keep the buffers of those that are read: what lies in them is copied.
    #[cold]
    fn unload_receivers(&self) {
        let receivers: Vec<Rc<Receiver>> = self.ops.borrow().receivers();
        for receiver in receivers.iter().chain(self.starved.borrow().iter()) {
            receiver.unload();
        }
    }

    // ---- for the operations

    /// Queues an entry for the next submission.
    fn push(&self, entry: &squeue::Entry) {
        if self.closed.get() {
            return;
        }
        loop {
            {
                let mut uring = self.uring.borrow_mut();
                // SAFETY: whatever the entry points to is owned by its slot until its completion.
                if unsafe { uring.submission().push(entry) }.is_ok() {
                    return;
                }
            }
            // Full: make room. Completions wait in `completions` for the loop.
            self.enter(0, None);
        }
    }

    /// The next operation is urgent, until the guard is dropped.
    pub(crate) fn hurry(self: &Rc<Self>) -> Hurry {
        self.urgent.set(Urgent {
            in_flight: self.urgent.get().in_flight + 1,
            is_new: true,
        });
        Hurry(self.clone())
    }

    /// Starts an operation with one completion. The entry may point into `keep`.
    fn start(self: &Rc<Self>, keep: Keep, entry: squeue::Entry) -> Op {
        assert!(!self.closed.get(), "an operation on a core that has ended");
        let key = self.ops.borrow_mut().insert(Slot::single(keep));
        self.push(&entry.user_data(u64::from(key)));
        Op::new(self.clone(), key)
    }

    /// Starts a send that says nothing if it comes to `result`. The kernel must not be able to put it off.
    fn start_quiet(self: &Rc<Self>, keep: Keep, entry: squeue::Entry, result: i32) -> Op {
        assert!(!self.closed.get(), "an operation on a core that has ended");
        let key = self.ops.borrow_mut().insert(Slot::single(keep));
        let entry = entry.flags(squeue::Flags::SKIP_SUCCESS);
        self.push(&entry.user_data(QuietSends::user_data(key)));
        self.quiet.begin(key, result);
        Op::new(self.clone(), key)
    }

    /// Before it sleeps again, the core learns which quiet sends are done.
    pub(crate) fn notice(&self) {
        self.quiet.ask();
    }

    /// Starts an operation that completes until it is cancelled or fails.
    fn start_multishot(&self, slot: Slot, entry: squeue::Entry) -> u32 {
        assert!(!self.closed.get(), "an operation on a core that has ended");
        let key = self.ops.borrow_mut().insert(slot);
        self.push(&entry.user_data(u64::from(key)));
        key
    }

    /// Asks the kernel to end an operation; its completion comes in any case.
    fn cancel(&self, key: u32) {
        self.push(
            &opcode::AsyncCancel::new(u64::from(key))
                .build()
                .user_data(USER_DATA_IGNORED),
        );
    }

    /// Lets the ring hold on to an open file until its last operation is over, also those of a killed process.
    pub(crate) fn hold(&self, fd: RawFd) {
        let place = self.fixed.borrow_mut().insert(&self.uring.borrow(), fd);
        if place.is_none() {
            tracing::debug!("no place among the registered files");
        }
    }

    fn close_fixed(&self, index: u32) {
        if self.closed.get() {
            return;
        }
        let key = self.ops.borrow_mut().insert(Slot::CloseFixed(index));
        self.push(
            &opcode::Close::new(Fixed(index))
                .build()
                .user_data(u64::from(key)),
        );
    }

    /// Ends the wait of another core through its ring. False: this ring is closed.
    fn send_wake(&self, ring_fd: i32, target: &Unpark) -> bool {
        if self.closed.get() {
            return false;
        }
        let key = self.ops.borrow_mut().insert(Slot::Message(target.clone()));
        self.push(
            &opcode::MsgRingData::new(Fd(ring_fd), 0, USER_DATA_WAKE, None)
                .build()
                .user_data(u64::from(key)),
        );
        true
    }

    /// Every write to the eventfd is one completion. Its counter is never read: the poll sees writes, not the level.
    fn arm_wake_poll(&self) {
        let entry = opcode::PollAdd::new(Fd(self.unpark.eventfd()), libc::POLLIN as u32)
            .multi(true)
            .build();
        self.push(&entry.user_data(USER_DATA_EVENTFD));
    }
}

fn io_result(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}
