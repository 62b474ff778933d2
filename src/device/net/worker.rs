//! The loop of a queue pair: one thread, one poll call, no timer.

use super::receive::Receive;
use super::transmit::Transmit;
use crate::device::event::{borrow, look};
use crate::device::{ActiveQueue, DeviceError, Interrupt, Memory};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use std::os::fd::BorrowedFd;
use virtio_queue::QueueT;
use vmm_sys_util::eventfd::EventFd;

/// What all pairs of a device have in common.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'s> {
    pub memory: &'s Memory,
    /// What was agreed with the driver.
    pub features: u64,
    pub interrupt: &'s dyn Interrupt,
}

/// Serves the first two of `queues` until `stop` is readable.
pub(super) fn serve(
    queues: &mut [ActiveQueue],
    port: BorrowedFd<'_>,
    around: Surroundings<'_>,
    stop: &EventFd,
) -> Result<(), DeviceError> {
    let Surroundings { memory, features, interrupt } = around;
    let [rx, tx, ..] = queues else { return Err(DeviceError::Driver("it has no queues")) };
    if !rx.queue.ready() || !tx.queue.ready() {
        return Err(DeviceError::Driver("it did not set up both queues"));
    }
    let ActiveQueue { queue: rx_queue, kick: rx_kick } = rx;
    let ActiveQueue { queue: tx_queue, kick: tx_kick } = tx;
    let mut receive = Receive::new(rx_queue, memory, features);
    let mut transmit = Transmit::new(tx_queue, memory, features);
    let outcome = loop {
        // Both, always.
        let told = match (transmit.serve(port), receive.serve(port)) {
            (Ok(sent), Ok(received)) => sent | received,
            (Err(error), _) | (_, Err(error)) => break Err(error),
        };
        if told {
            interrupt.used();
        }
        let busy = (transmit.pending && !transmit.blocked) || (receive.pending && !receive.starved);
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::POLLIN, !receive.pending);
        wanted.set(PollFlags::POLLOUT, transmit.blocked);
        let mut fds = [
            PollFd::new(borrow(stop), PollFlags::POLLIN),
            PollFd::new(borrow(rx_kick), PollFlags::POLLIN),
            PollFd::new(borrow(tx_kick), PollFlags::POLLIN),
            PollFd::new(port, wanted),
        ];
        // A port that has nothing to say but that it is broken would never let us sleep.
        let watched = if wanted.is_empty() { 3 } else { 4 };
        if let Err(errno) = look(fds.get_mut(..watched).unwrap_or_default(), !busy) {
            break Err(DeviceError::Host { what: "poll", source: errno.into() });
        }
        let [stopped, room, frames, network] = fds.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        if !stopped.is_empty() {
            break Ok(());
        }
        if !room.is_empty() {
            let _ = rx_kick.read();
            receive.starved = false;
        }
        if !frames.is_empty() {
            let _ = tx_kick.read();
            transmit.pending = true;
        }
        if network.intersects(PollFlags::POLLERR | PollFlags::POLLNVAL) {
            break Err(DeviceError::Host { what: "reach the network", source: Errno::ENETDOWN.into() });
        }
        receive.pending |= network.contains(PollFlags::POLLIN);
        transmit.blocked &= !network.contains(PollFlags::POLLOUT);
    };
    receive.give_back();
    outcome
}
