//! Between the virtqueues and the server: takes requests off the rings, puts replies on, calls the driver.
//!
//! A request that waits for a lock (or for somebody who stands in for a socket) keeps its place in the ring; what it waits
//! for is tried again when the guest lets go of a lock, and at short intervals. A process that gets a signal meanwhile has
//! its request given up: the guest's kernel says so (Linux 6.12 does not by itself, `kernel-config/patches`).

use super::MAX_PAYLOAD;
use super::exports::Exports;
use super::request::MAX_BODY;
use super::segments::Segments;
use super::server::{Answer, Server, Wait};
use crate::device::{ActiveQueue, DeviceError, Interrupt, Memory, Session};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use rustix::io::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{DescriptorChain, QueueOwnedT, QueueT};
use vm_memory::GuestMemory;
use vmm_sys_util::eventfd::EventFd;

/// How many requests of a queue are served before another queue, and `stop`, get their turn.
const TURN: usize = 64;

/// After how many requests the driver is told, if it wants to know.
const BATCH: usize = 8;

/// The longest half of a message.
const MAX_MESSAGE: usize = MAX_PAYLOAD as usize + MAX_BODY;

/// How many requests may wait for locks at a time; each keeps a place in the queue.
const MAX_WAITS: usize = 128;

/// How soon a lock that somebody else has is tried again, at first and at most.
const FIRST_RETRY: Duration = Duration::from_millis(1);
const LAST_RETRY: Duration = Duration::from_millis(25);

/// After how long without a request files are closed that nobody may be using.
const IDLE: Duration = Duration::from_secs(1);

/// Serves both queues until `session.stop`.
pub fn run(server: &mut Server, exports: &Exports, session: &mut Session) -> Result<(), DeviceError> {
    let events = Events::open(session, exports)?;
    let Session { memory, queues, interrupt, .. } = session;
    let mut waits = Waits { all: Vec::new(), interrupted: Vec::new(), pause: FIRST_RETRY, due: None };
    let mut idle = true;
    loop {
        let mut more = false;
        for (index, queue) in queues.iter_mut().enumerate() {
            if queue.queue.ready() {
                let (served, left) = take_turn(server, (index, queue), memory, &**interrupt, &mut waits)?;
                more |= left;
                idle &= served == 0;
            }
        }
        waits.interrupt(queues, memory, &**interrupt, more)?;
        if waits.are_due(server) {
            waits.try_again(server, queues, memory, &**interrupt)?;
        }
        match events.wait(timeout(more, idle, &waits))? {
            Woken { stop: true, .. } => {
                // Nobody may find the queues with something under way.
                return waits.give_up(queues, memory);
            }
            Woken { removed: true, .. } => server.drop_removed(),
            Woken { nothing: true, .. } if !idle && waits.due.is_none() => {
                server.close_idle();
                idle = true;
            }
            Woken { .. } => {}
        }
    }
}

/// How long to wait for something new at most.
fn timeout(more: bool, idle: bool, waits: &Waits<'_>) -> Option<Duration> {
    match waits.due {
        _ if more => Some(Duration::ZERO),
        Some(due) => Some(due.saturating_duration_since(Instant::now())),
        None if !idle => Some(IDLE),
        None => None,
    }
}

/// Requests that wait for locks.
struct Waits<'m> {
    all: Vec<Waiting<'m>>,
    /// Numbers of requests that processes inside have given up.
    interrupted: Vec<u64>,
    /// How long to wait before they are tried again, and when that is.
    pause: Duration,
    due: Option<Instant>,
}

struct Waiting<'m> {
    queue: usize,
    head: u16,
    wait: Wait<'m>,
}

impl<'m> Waits<'m> {
    fn add(&mut self, waiting: Waiting<'m>) {
        self.all.push(waiting);
        self.pause = FIRST_RETRY;
        self.due = Instant::now().checked_add(self.pause);
    }

    fn are_due(&self, server: &mut Server) -> bool {
        server.take_unlocked() && self.due.is_some() || self.due.is_some_and(|due| due <= Instant::now())
    }

    fn try_again(
        &mut self,
        server: &mut Server,
        queues: &mut [ActiveQueue],
        memory: &Memory,
        interrupt: &dyn Interrupt,
    ) -> Result<(), DeviceError> {
        let mut told = false;
        for Waiting { queue, head, wait } in std::mem::take(&mut self.all) {
            match server.try_again(wait.waiting) {
                Some(outcome) => told |= finish(queues, queue, head, wait.answer(outcome), memory)?,
                None => self.all.push(Waiting { queue, head, wait }),
            }
        }
        if told {
            interrupt.used();
        }
        self.pause = self.pause.saturating_mul(2).min(LAST_RETRY);
        self.due = if self.all.is_empty() { None } else { Instant::now().checked_add(self.pause) };
        Ok(())
    }

    /// Answers the waits that processes inside have given up. If there is `more` in the queues, a request may be in there that
    /// is given up already.
    fn interrupt(
        &mut self,
        queues: &mut [ActiveQueue],
        memory: &Memory,
        interrupt: &dyn Interrupt,
        more: bool,
    ) -> Result<(), DeviceError> {
        let mut told = false;
        for unique in std::mem::take(&mut self.interrupted) {
            let Some(at) = self.all.iter().position(|waiting| waiting.wait.unique == unique) else {
                self.interrupted.extend(more.then_some(unique));
                continue;
            };
            let Waiting { queue, head, wait } = self.all.swap_remove(at);
            told |= finish(queues, queue, head, wait.answer(Err(Errno::INTR)), memory)?;
        }
        if told {
            interrupt.used();
        }
        Ok(())
    }

    /// As if the processes inside had been interrupted: those that go on elsewhere ask again.
    fn give_up(self, queues: &mut [ActiveQueue], memory: &Memory) -> Result<(), DeviceError> {
        for Waiting { queue, head, wait } in self.all {
            finish(queues, queue, head, wait.answer(Err(Errno::INTR)), memory)?;
        }
        Ok(())
    }
}

/// Gives a message back to the driver. Whether the driver wants to be told.
fn finish(
    queues: &mut [ActiveQueue],
    index: usize,
    head: u16,
    used: usize,
    memory: &Memory,
) -> Result<bool, DeviceError> {
    let Some(ActiveQueue { queue, .. }) = queues.get_mut(index) else { return Ok(false) };
    queue.add_used(memory, head, u32::try_from(used).unwrap_or(0))?;
    Ok(queue.needs_notification(memory)?)
}

/// Serves what a queue holds, up to a turn. How much that was, and whether there is more.
fn take_turn<'m>(
    server: &mut Server,
    (index, active): (usize, &mut ActiveQueue),
    memory: &'m Memory,
    interrupt: &dyn Interrupt,
    waits: &mut Waits<'m>,
) -> Result<(usize, bool), DeviceError> {
    let queue = &mut active.queue;
    let mut served = 0usize;
    queue.disable_notification(memory)?;
    while served < TURN
        && let Some(chain) = queue.iter(memory)?.next()
    {
        let head = chain.head_index();
        let answer = match message(memory, chain) {
            Some((request, reply)) => server.serve(request, reply),
            None => Answer::Used(0),
        };
        served = served.saturating_add(1);
        let used = match answer {
            Answer::Used(used) => used,
            Answer::Wait(wait) if waits.all.len() < MAX_WAITS => {
                waits.add(Waiting { queue: index, head, wait });
                continue;
            }
            Answer::Wait(wait) => wait.answer_at_once(Errno::NOLCK),
            Answer::Interrupt(unique) => {
                // The wait may be in another queue than this one. There cannot be more of them than waits.
                if waits.interrupted.len() < MAX_WAITS {
                    waits.interrupted.push(unique);
                }
                0
            }
        };
        queue.add_used(memory, head, u32::try_from(used).unwrap_or(0))?;
        if served.is_multiple_of(BATCH) && queue.needs_notification(memory)? {
            interrupt.used();
        }
    }
    if !served.is_multiple_of(BATCH) && queue.needs_notification(memory)? {
        interrupt.used();
    }
    // Full turns are not over: notifications stay off.
    Ok((served, served >= TURN || queue.enable_notification(memory)?))
}

/// The two halves of a message, or `None` for a chain that no driver makes.
fn message<'m>(
    memory: &'m Memory,
    chain: DescriptorChain<&'m Memory>,
) -> Option<(Segments<'m>, Segments<'m>)> {
    let (mut request, mut reply) = (Half::default(), Half::default());
    for descriptor in chain {
        if descriptor.is_write_only() {
            reply.add(memory, &descriptor)?;
        } else if reply.slices.is_empty() {
            request.add(memory, &descriptor)?;
        } else {
            return None;
        }
    }
    Some((Segments::new(request.slices), Segments::new(reply.slices)))
}

#[derive(Default)]
struct Half<'m> {
    slices: Vec<vm_memory::VolatileSlice<'m>>,
    len: usize,
}

impl<'m> Half<'m> {
    fn add(&mut self, memory: &'m Memory, descriptor: &Descriptor) -> Option<()> {
        let len = usize::try_from(descriptor.len()).ok()?;
        self.len = self.len.checked_add(len).filter(|len| *len <= MAX_MESSAGE)?;
        for slice in memory.get_slices(descriptor.addr(), len) {
            self.slices.push(slice.ok()?);
        }
        Some(())
    }
}

/// Why the wait is over; also when a queue has requests.
#[derive(Default)]
struct Woken {
    stop: bool,
    removed: bool,
    /// It has been long enough.
    nothing: bool,
}

/// What there is to wait for. Each event is told of once and stays set: reading it would be one more call for each
/// request, and whoever set `stop` wants to see it.
struct Events {
    epoll: Epoll,
}

const STOP: u64 = 0;
const REMOVED: u64 = 1;
const KICK: u64 = 2;

impl Events {
    fn open(session: &Session, exports: &Exports) -> Result<Events, DeviceError> {
        let failed =
            |error: nix::Error| DeviceError::Host { what: "wait for requests", source: error.into() };
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        let kicks = session.queues.iter().map(|queue| (KICK, &queue.kick));
        let removed = exports.changed().map(|changed| (REMOVED, changed));
        for (what, event) in std::iter::once((STOP, &session.stop)).chain(removed).chain(kicks) {
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
            epoll.add(borrow(event), EpollEvent::new(flags, what)).map_err(failed)?;
        }
        Ok(Events { epoll })
    }

    /// Waits for something to do, or until it has been long enough.
    fn wait(&self, timeout: Option<Duration>) -> Result<Woken, DeviceError> {
        let timeout = match timeout {
            None => EpollTimeout::NONE,
            // Rounded up: a millisecond too early is a turn for nothing.
            Some(time) => {
                EpollTimeout::from(u16::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u16::MAX))
            }
        };
        let mut events = [EpollEvent::empty(); 8];
        let count = match self.epoll.wait(&mut events, timeout) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => return Ok(Woken::default()),
            Err(error) => {
                return Err(DeviceError::Host { what: "wait for requests", source: error.into() });
            }
        };
        let mut woken = Woken { nothing: count == 0, ..Woken::default() };
        for event in events.iter().take(count) {
            match event.data() {
                STOP => woken.stop = true,
                REMOVED => woken.removed = true,
                _ => {}
            }
        }
        Ok(woken)
    }
}

#[allow(unsafe_code, reason = "EventFd does not lend its descriptor")]
fn borrow(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is the event's, which outlives the result.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}
