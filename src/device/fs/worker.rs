//! Between the virtqueues and the server: takes requests off the rings, puts replies on, calls the driver.

use super::MAX_PAYLOAD;
use super::exports::Exports;
use super::request::MAX_BODY;
use super::segments::Segments;
use super::server::Server;
use crate::device::{ActiveQueue, DeviceError, Interrupt, Memory, Session};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsRawFd, BorrowedFd};
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

/// Serves both queues until `session.stop`.
pub fn run(server: &mut Server, exports: &Exports, session: &mut Session) -> Result<(), DeviceError> {
    loop {
        let mut more = false;
        for queue in &mut session.queues {
            if queue.queue.ready() {
                more |= take_turn(server, queue, &session.memory, &*session.interrupt)?;
            }
        }
        match wait(session, exports, more)? {
            Woken { stop: true, .. } => return Ok(()),
            Woken { removed: true, .. } => server.drop_removed(),
            Woken { .. } => {}
        }
    }
}

/// Serves what a queue holds, up to a turn. Whether there is more.
fn take_turn(
    server: &mut Server,
    active: &mut ActiveQueue,
    memory: &Memory,
    interrupt: &dyn Interrupt,
) -> Result<bool, DeviceError> {
    let queue = &mut active.queue;
    let mut served = 0usize;
    queue.disable_notification(memory)?;
    while served < TURN
        && let Some(chain) = queue.iter(memory)?.next()
    {
        let head = chain.head_index();
        let used = match message(memory, chain) {
            Some((request, reply)) => server.serve(request, reply),
            None => 0,
        };
        queue.add_used(memory, head, u32::try_from(used).unwrap_or(0))?;
        served = served.saturating_add(1);
        if served.is_multiple_of(BATCH) && queue.needs_notification(memory)? {
            interrupt.used();
        }
    }
    if !served.is_multiple_of(BATCH) && queue.needs_notification(memory)? {
        interrupt.used();
    }
    // Full turns are not over: notifications stay off.
    Ok(served >= TURN || queue.enable_notification(memory)?)
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
struct Woken {
    stop: bool,
    removed: bool,
}

/// Waits for something to do, unless there is `more` already.
fn wait(session: &Session, exports: &Exports, more: bool) -> Result<Woken, DeviceError> {
    let kicks = session.queues.iter().map(|queue| &queue.kick);
    let events: Vec<&EventFd> =
        std::iter::once(&session.stop).chain(exports.changed()).chain(kicks).collect();
    let mut waited: Vec<PollFd<'_>> =
        events.iter().map(|event| PollFd::new(borrow(event), PollFlags::POLLIN)).collect();
    let timeout = if more { PollTimeout::ZERO } else { PollTimeout::NONE };
    match poll(&mut waited, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(error) => return Err(DeviceError::Host { what: "wait for requests", source: error.into() }),
    }
    let came: Vec<bool> = waited.iter().map(|event| event.any().unwrap_or(false)).collect();
    // `stop` stays as it is: whoever set it wants to see it.
    for (event, _) in events.iter().zip(&came).skip(1).filter(|(_, came)| **came) {
        let _ = event.read();
    }
    let removed = exports.changed().is_some() && came.get(1).copied().unwrap_or(false);
    Ok(Woken { stop: came.first().copied().unwrap_or(false), removed })
}

#[allow(unsafe_code, reason = "EventFd does not lend its descriptor")]
fn borrow(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is the event's, which outlives the result.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}
