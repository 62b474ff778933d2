//! A device that has one queue to look at, chain by chain, and answers each at once.

use super::event::{borrow, look};
use super::{ActiveQueue, DeviceError, Memory, Session};
use nix::poll::{PollFd, PollFlags};
use virtio_queue::{DescriptorChain, QueueOwnedT, QueueT};
use vmm_sys_util::eventfd::EventFd;

/// Serves queue number `number` until the session stops. `answer` does what a chain asks for, and says how many bytes of it
/// were written.
pub(super) fn run(
    session: &mut Session,
    number: usize,
    mut answer: impl FnMut(&Memory, DescriptorChain<&Memory>) -> u32,
) -> Result<(), DeviceError> {
    let Session { memory, queues, interrupt, stop, .. } = session;
    let Some(active) = queues.get_mut(number) else {
        return Err(DeviceError::Driver("it lacks a queue"));
    };
    // What the driver put there before it was ready has no kick to come.
    let mut pending = active.queue.ready();
    loop {
        if wait(stop, &active.kick, !pending)? {
            return Ok(());
        }
        if active.queue.ready() {
            pending = serve(active, memory, &mut answer)?;
            if active.queue.needs_notification(memory)? {
                interrupt.used();
            }
        }
    }
}

/// Answers at most a queue's worth of chains, so that a driver that never stops does not keep the device from stopping;
/// true if there may be more.
pub(super) fn serve(
    active: &mut ActiveQueue,
    memory: &Memory,
    mut answer: impl FnMut(&Memory, DescriptorChain<&Memory>) -> u32,
) -> Result<bool, DeviceError> {
    let ActiveQueue { queue, .. } = active;
    for _ in 0..queue.size() {
        let Some(chain) = queue.iter(memory)?.next() else {
            return Ok(queue.enable_notification(memory)?);
        };
        let head = chain.head_index();
        let written = answer(memory, chain);
        queue.add_used(memory, head, written)?;
    }
    Ok(true)
}

/// Waits for a kick (or only looks, if `sleep` is false); true when the device has to stop.
fn wait(stop: &EventFd, kick: &EventFd, sleep: bool) -> Result<bool, DeviceError> {
    let mut fds =
        [PollFd::new(borrow(stop), PollFlags::POLLIN), PollFd::new(borrow(kick), PollFlags::POLLIN)];
    look(&mut fds, sleep).map_err(|errno| DeviceError::Host { what: "poll", source: errno.into() })?;
    let [stopped, kicked] = fds.map(|fd| fd.any().unwrap_or(false));
    if kicked {
        // Non-blocking; another kick may come after it, and is served then.
        let _ = kick.read();
    }
    Ok(stopped)
}
