//! The device's loop: one thread, one epoll set, no timer.
//!
//! ```text
//!   wait -> what happened? -> tx queue (inbound) -> rx queue (outbound) -> interrupt the driver once -> wait
//!             stop: return
//! ```
//! A pass takes a bounded number of buffers from each queue; if there was more, the next wait does not sleep.

use super::inbound::Inbound;
use super::link::{Io, Link, Tokens};
use super::outbound::Outbound;
use super::packet::Header;
use super::reset::Reset;
use super::switchboard::{Board, Offer};
use crate::device::event::borrow;
use crate::device::{ActiveQueue, DeviceError, Interrupt, Memory, Session};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use virtio_queue::{Queue, QueueT};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// The device while it runs.
pub(super) struct Worker<'m> {
    pub(super) inbound: Inbound<'m>,
    pub(super) outbound: Outbound<'m>,
    reset: Reset<'m>,
    pub(super) links: Links,
    pub(super) io: Io,
    pub(super) board: &'m Board,
    pub(super) guest_cid: u64,
    interrupt: &'m dyn Interrupt,
    memory: &'m Memory,
    /// Events of this session that are listened to.
    watched: [&'m EventFd; 5],
}

/// What it listens with.
pub(super) struct Ears {
    epoll: Arc<Epoll>,
    wake: Arc<EventFd>,
}

impl Ears {
    pub(super) fn open() -> io::Result<Ears> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wake = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        Ok(Ears { epoll: Arc::new(epoll), wake: Arc::new(wake) })
    }
}

impl<'m> Worker<'m> {
    pub(super) fn open(
        guest_cid: u64,
        board: &'m Board,
        ears: &'m Ears,
        session: &'m mut Session,
    ) -> Result<Worker<'m>, DeviceError> {
        let Session { memory, queues, interrupt, stop, resumed, .. } = session;
        let [rx, tx, event] = &mut queues[..] else { return Err(DeviceError::Driver("it has no queues")) };
        if !rx.queue.ready() || !tx.queue.ready() {
            return Err(DeviceError::Driver("it did not set up both queues"));
        }
        let host = |what| move |errno: Errno| DeviceError::Host { what, source: errno.into() };
        let Ears { epoll, wake } = ears;
        // Edge-triggered events need not be read back: one system call less for each kick.
        let edge = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        let fixed = [
            (&*stop, EpollFlags::EPOLLIN, STOP),
            (&rx.kick, edge, KICK_RX),
            (&tx.kick, edge, KICK_TX),
            (wake, edge, WAKE),
            (&event.kick, edge, KICK_EVENT),
        ];
        for (event, flags, token) in fixed {
            let mut wanted = EpollEvent::new(flags, token);
            match epoll.add(borrow(event), wanted) {
                // Of a session that did not come to be.
                Err(Errno::EEXIST) => epoll.modify(borrow(event), &mut wanted),
                other => other,
            }
            .map_err(host("epoll_ctl"))?;
        }
        board.set_wake(Some(Arc::clone(wake)));
        let (ActiveQueue { queue: rx, kick: rx_kick }, ActiveQueue { queue: tx, kick: tx_kick }) = (rx, tx);
        let ActiveQueue { queue: event, kick: event_kick } = event;
        Ok(Worker {
            inbound: Inbound::new(tx),
            outbound: Outbound::new(rx),
            reset: Reset::new(event, *resumed),
            links: Links::default(),
            io: Io { epoll: Arc::clone(epoll), shunt: Default::default() },
            watched: [stop, rx_kick, tx_kick, wake, event_kick],
            board,
            guest_cid,
            interrupt: &**interrupt,
            memory,
        })
    }

    /// Serves until told to stop.
    pub(super) fn serve(&mut self) -> Result<(), DeviceError> {
        self.reset.tell(self.memory)?;
        self.notify()?;
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let timeout = if self.is_busy() { EpollTimeout::ZERO } else { EpollTimeout::NONE };
            let count = match self.io.epoll.wait(&mut events, timeout) {
                Ok(count) => count,
                Err(Errno::EINTR) => 0,
                Err(errno) => return Err(DeviceError::Host { what: "epoll_wait", source: errno.into() }),
            };
            for event in events.iter().take(count) {
                match event.data() {
                    STOP => return Ok(()),
                    KICK_RX => self.outbound.starved = false,
                    KICK_TX => self.inbound.pending = true,
                    WAKE => self.abort_some(),
                    KICK_EVENT => self.reset.tell(self.memory)?,
                    token => self.link_event(token, event.events()),
                }
            }
            self.take_from_guest(self.memory)?;
            self.give_to_guest(self.memory)?;
            self.notify()?;
        }
    }

    /// After the last session: nothing of it stays open.
    pub(super) fn finish(&mut self) {
        self.board.set_wake(None);
        for event in self.watched {
            // It is in the set.
            let _ = self.io.epoll.delete(borrow(event));
        }
        for link in self.links.take_all() {
            let port = link.host_port;
            link.finish(&mut self.io);
            self.board.release(port);
        }
    }

    /// A guest connects to an offered port.
    pub(super) fn connect(&mut self, request: &Header, offer: Offer) {
        let io = &mut self.io;
        let index = self.links.insert(|tokens| Link::accept(request, offer, tokens, io));
        self.settle(index);
    }

    /// To be called after anything happened to a link: files it where it belongs, or removes it.
    pub(super) fn settle(&mut self, index: usize) {
        let Some(link) = self.links.get_mut(index) else { return };
        link.settle(&mut self.io);
        let (port, over) = (link.host_port, link.is_over());
        let control = link.connection.owes() && !link.in_control;
        let data = link.wanted() > 0 && !link.in_data;
        link.in_control |= control;
        link.in_data |= data;
        if control {
            self.links.control.push_back(index);
        }
        if data {
            self.links.data.push_back(index);
        }
        if over {
            self.links.remove(index);
            self.board.release(port);
        }
    }

    fn is_busy(&self) -> bool {
        let inbound = self.inbound.pending && !self.outbound.is_full();
        let outbound = !self.outbound.starved && (self.outbound.has_refusals() || self.links.have_work());
        inbound || outbound
    }

    fn link_event(&mut self, token: u64, events: EpollFlags) {
        let Some((index, is_output)) = self.links.find_token(token) else { return };
        let Some(link) = self.links.get_mut(index) else { return };
        if is_output {
            link.output_event(events, &mut self.io);
        } else {
            link.input_event();
        }
        self.settle(index);
    }

    fn abort_some(&mut self) {
        for port in self.board.take_aborts() {
            let Some(index) = self.links.find(port) else { continue };
            if let Some(link) = self.links.get_mut(index) {
                link.abort(&mut self.io);
            }
            self.settle(index);
        }
    }

    /// One interrupt for all that a pass has used, if the driver wants it.
    fn notify(&mut self) -> Result<(), DeviceError> {
        let mut wanted = false;
        let mut reset_used = std::mem::take(&mut self.reset.used);
        for (queue, used) in [
            (self.reset.queue(), &mut reset_used),
            (&mut *self.inbound.queue, &mut self.inbound.used),
            (&mut *self.outbound.queue, &mut self.outbound.used),
        ] {
            if std::mem::take(used) {
                wanted |= Queue::needs_notification(queue, self.memory)?;
            }
        }
        if wanted {
            self.interrupt.used();
        }
        Ok(())
    }
}

/// The links, and who of them has something for the guest. Places are used again; a place's round tells an event for
/// the link that had it before.
#[derive(Default)]
pub(super) struct Links {
    places: Vec<Place>,
    free: Vec<usize>,
    by_port: BTreeMap<u32, usize>,
    /// Owe the guest a packet without payload.
    pub(super) control: VecDeque<usize>,
    /// Have bytes for the guest, and credit.
    pub(super) data: VecDeque<usize>,
}

struct Place {
    link: Option<Link>,
    round: u32,
}

impl Links {
    /// The link at a port of the host; there is at most one, because a port is offered once.
    pub(super) fn find(&self, host_port: u32) -> Option<usize> {
        self.by_port.get(&host_port).copied()
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut Link> {
        self.places.get_mut(index)?.link.as_mut()
    }

    fn insert(&mut self, make: impl FnOnce(Tokens) -> Link) -> usize {
        let index = self.free.pop().unwrap_or(self.places.len());
        if index == self.places.len() {
            self.places.push(Place { link: None, round: 0 });
        }
        if let Some(place) = self.places.get_mut(index) {
            place.round = place.round.wrapping_add(1);
            // Neither wraps: there are at most a thousand places, and the round has its own half.
            let token = LINK | (u64::from(place.round & ROUNDS) << 32) | (index as u64) << 1;
            let link = make(Tokens { output: token, input: token | INPUT });
            self.by_port.insert(link.host_port, index);
            place.link = Some(link);
        }
        index
    }

    fn remove(&mut self, index: usize) {
        let Some(link) = self.places.get_mut(index).and_then(|place| place.link.take()) else { return };
        self.by_port.remove(&link.host_port);
        self.free.push(index);
        // It owes nothing and wants nothing any more, but may still be listed; a successor must not be listed twice.
        if link.in_control {
            self.control.retain(|listed| *listed != index);
        }
        if link.in_data {
            self.data.retain(|listed| *listed != index);
        }
    }

    fn take_all(&mut self) -> Vec<Link> {
        std::mem::take(self).places.into_iter().filter_map(|place| place.link).collect()
    }

    /// Whom an event is for, and whether it is about the output.
    fn find_token(&self, token: u64) -> Option<(usize, bool)> {
        let index = usize::try_from((token & 0xffff_ffff) >> 1).ok()?;
        let place = self.places.get(index)?;
        let same = token & LINK != 0 && (token >> 32) & u64::from(ROUNDS) == u64::from(place.round & ROUNDS);
        same.then_some((index, token & INPUT == 0))
    }

    fn have_work(&self) -> bool {
        !self.control.is_empty() || !self.data.is_empty()
    }
}

/// Most buffers that one pass takes from a queue.
pub(super) const BUDGET: usize = 256;

// What epoll calls the descriptors: these five, and for links LINK | round << 32 | index << 1 | INPUT.
const STOP: u64 = 0;
const KICK_RX: u64 = 1;
const KICK_TX: u64 = 2;
const WAKE: u64 = 3;
const KICK_EVENT: u64 = 4;
const LINK: u64 = 1 << 63;
const INPUT: u64 = 1;
const ROUNDS: u32 = 0x7fff_ffff;
