//! Which ports the guest may connect to, and to whom it is then talking.
//!
//! ```text
//!   offer --REQUEST--> connected --both descriptors closed, guest told--> port free again
//!     |
//!     +--withdraw, abort--> over
//! ```
//! The board is the only thing that the vsock device shares with other threads. Its lock is held for look-ups only.

use super::descriptor::Descriptor;
use super::stream::Stream;
use crate::device::rng;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vmm_sys_util::eventfd::EventFd;

/// Where the machine's other threads offer streams to the guest.
#[derive(Clone)]
pub struct Switchboard {
    board: Arc<Board>,
}

/// The host's end of a stream. Both may be the same file (a socket, a terminal), duplicated.
#[derive(Debug, Default)]
pub struct Endpoint {
    /// Where what the guest sends is written. Without it, the guest is told that nobody listens when it sends something.
    pub from_guest: Option<OwnedFd>,
    /// Where what the guest receives is read. Without it, the guest reads the end of the file at once.
    pub to_guest: Option<OwnedFd>,
}

/// Why a stream could not be offered.
#[derive(Debug, thiserror::Error)]
pub enum VsockError {
    /// The port is offered or connected already.
    #[error("vsock port {port} is in use")]
    PortInUse {
        /// Which.
        port: u32,
    },
    /// There are as many streams as there may be.
    #[error("no more than {MAX_STREAMS} vsock streams at a time")]
    TooManyStreams,
    /// No random number for a port.
    #[error("cannot choose a vsock port")]
    Random(#[source] std::io::Error),
    /// No descriptor left.
    #[error("cannot duplicate a descriptor")]
    Descriptor(#[source] std::io::Error),
}

impl Switchboard {
    pub(super) fn new(board: Arc<Board>) -> Switchboard {
        Switchboard { board }
    }

    /// The guest may connect once to this port of the host (CID 2). Then the stream's bytes go straight between the
    /// virtqueues and these descriptors.
    pub fn offer_at(&self, port: u32, endpoint: Endpoint) -> Result<Arc<Stream>, VsockError> {
        let mut inner = self.board.lock();
        if inner.is_used(port) {
            return Err(VsockError::PortInUse { port });
        }
        inner.offer(port, endpoint, false, &self.board)
    }

    /// As [`Switchboard::offer_at`], at an unused port that cannot be guessed (65536 or more).
    pub fn offer(&self, endpoint: Endpoint) -> Result<(u32, Arc<Stream>), VsockError> {
        self.offer_anywhere(endpoint, false)
    }

    /// As [`Switchboard::offer`], for a connected socket that nobody else holds: what ends one way is shut down that way, so
    /// that its peer learns of it while the other way goes on.
    pub fn offer_connection(&self, socket: OwnedFd) -> Result<(u32, Arc<Stream>), VsockError> {
        let to_guest = socket.try_clone().map_err(VsockError::Descriptor)?;
        self.offer_anywhere(Endpoint { from_guest: Some(socket), to_guest: Some(to_guest) }, true)
    }

    fn offer_anywhere(&self, endpoint: Endpoint, shuts: bool) -> Result<(u32, Arc<Stream>), VsockError> {
        let mut inner = self.board.lock();
        loop {
            let mut bytes = [0; 4];
            rng::random(&mut bytes).map_err(VsockError::Random)?;
            let port = u32::from_ne_bytes(bytes);
            // The last one means "any port" to bind(2).
            if (FIRST_RANDOM_PORT..u32::MAX).contains(&port) && !inner.is_used(port) {
                let stream = inner.offer(port, endpoint, shuts, &self.board)?;
                return Ok((port, stream));
            }
        }
    }

    /// Takes an offer back, if the guest has not connected to it yet.
    pub fn withdraw(&self, port: u32) {
        self.board.withdraw(port);
    }
}

/// What switchboards, streams and the device share.
#[derive(Default)]
pub(super) struct Board {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    offers: BTreeMap<u32, Offer>,
    connected: BTreeSet<u32>,
    /// Connected ports that are to be reset.
    aborts: BTreeSet<u32>,
    /// Wakes the device, while it runs.
    wake: Option<Arc<EventFd>>,
}

/// A stream that waits for the guest.
pub(super) struct Offer {
    pub(super) from_guest: Option<Descriptor>,
    pub(super) to_guest: Option<Descriptor>,
    pub(super) stream: Arc<Stream>,
    /// The endpoint is one socket, and ours alone.
    pub(super) shuts: bool,
}

impl Board {
    /// The guest connects: the offer, if there is one; nobody else gets it.
    pub(super) fn connect(&self, port: u32) -> Option<Offer> {
        let mut inner = self.lock();
        let offer = inner.offers.remove(&port)?;
        inner.connected.insert(port);
        Some(offer)
    }

    /// A connection is over; its port may be offered again.
    pub(super) fn release(&self, port: u32) {
        let mut inner = self.lock();
        inner.connected.remove(&port);
        inner.aborts.remove(&port);
    }

    /// Ports whose connections are to be reset.
    pub(super) fn take_aborts(&self) -> BTreeSet<u32> {
        std::mem::take(&mut self.lock().aborts)
    }

    /// How to wake the device; `None` when it does not run.
    pub(super) fn set_wake(&self, wake: Option<Arc<EventFd>>) {
        self.lock().wake = wake;
    }

    pub(super) fn abort(&self, port: u32, stream: &Stream) {
        let mut inner = self.lock();
        // The port may have been offered again to somebody else since.
        if inner.offers.get(&port).is_some_and(|offer| std::ptr::eq(&*offer.stream, stream)) {
            let offer = inner.offers.remove(&port);
            drop(inner);
            stream.set_over();
            // Its descriptors are closed after the lock is released.
            drop(offer);
            return;
        }
        if inner.connected.contains(&port) && !stream.is_over() {
            inner.aborts.insert(port);
            if let Some(wake) = &inner.wake {
                // It can only fail when the counter is full, and then the device is being woken anyway.
                let _ = wake.write(1);
            }
        }
    }

    fn withdraw(&self, port: u32) {
        // The descriptors are closed after the lock is released.
        let offer = self.lock().offers.remove(&port);
        if let Some(offer) = offer {
            offer.stream.set_over();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Board {
    /// Neither device nor switchboard is left: nobody will ever connect.
    fn drop(&mut self) {
        for offer in std::mem::take(&mut self.lock().offers).into_values() {
            offer.stream.set_over();
        }
    }
}

impl Inner {
    fn is_used(&self, port: u32) -> bool {
        self.offers.contains_key(&port) || self.connected.contains(&port)
    }

    fn offer(
        &mut self,
        port: u32,
        endpoint: Endpoint,
        shuts: bool,
        board: &Arc<Board>,
    ) -> Result<Arc<Stream>, VsockError> {
        if self.offers.len().saturating_add(self.connected.len()) >= MAX_STREAMS {
            return Err(VsockError::TooManyStreams);
        }
        let stream = Stream::new(port, board);
        // Looked at here, so that the device's thread need not.
        let (from_guest, to_guest) =
            (endpoint.from_guest.map(Descriptor::new), endpoint.to_guest.map(Descriptor::new));
        self.offers.insert(port, Offer { from_guest, to_guest, stream: stream.clone(), shuts });
        Ok(stream)
    }
}

/// Offers and connections at a time.
pub(super) const MAX_STREAMS: usize = 1023;

const FIRST_RANDOM_PORT: u32 = 65536;
