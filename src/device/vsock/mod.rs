//! Streams between guest and host: virtio-vsock (virtio 1.2, 5.10) wholly in this process, without vhost and without
//! unix sockets.
//!
//! ```text
//!   machine's threads                        the device's thread                            guest
//!   Switchboard::offer(Endpoint) -> Board <- worker -- tx queue: REQUEST port --------------- connect()
//!                                              |
//!                                            link = connection (protocol, pure) + descriptors of the caller
//!   from_guest (stdout ...)  <-- pwritev -- straight from tx buffers, or by way of a ring --- write()
//!   to_guest   (stdin ...)   --- preadv --> straight into rx buffers ------------------------ read()
//! ```
//! `packet` is the header, `connection` one connection's protocol without I/O, `link` a connection joined to its
//! endpoint, `reset` the event queue, `worker` the loop with `inbound` (the tx queue) and `outbound` (the rx queue), `descriptor` the
//! ways of never waiting on a caller's file, `switchboard` and `stream` what other threads see.
//!
//! Only the guest connects, and only to ports that were offered, each once. Back-pressure is exact: the guest may send
//! `WINDOW` bytes on a connection before the host's reader takes them; they are kept in a ring of that size, so a
//! reader that stops reading stops its own stream, costs at most that much, and nobody else notices.
//!
//! | The guest can | and then |
//! |---|---|
//! | connect to a port that was not offered, or a second time, to another CID, with another socket type | RST |
//! | send more than its window, lie about what it has read, send impossible operations | RST, that connection alone |
//! | send packets cut short, or in buffers outside memory | RST if it has a connection, else nothing |
//! | ask for answers and give no room for them | a connection owes at most one packet of each kind; `MAX_REFUSALS` refusals wait, then nothing more is taken from it until it gives room |
//! | keep the device busy for ever | each pass takes at most `BUDGET` buffers a queue, then looks at `stop` and at everybody else |
//! | never answer a shutdown | the host's descriptors are closed all the same; one of `MAX_STREAMS` places stays taken |
//!
//! Nothing survives a session: when the driver resets the device, connections are over, and offers stay. So there is
//! nothing to be saved but what the transport saves; a driver that goes on elsewhere is told by a transport reset
//! (`reset`), and connects anew.

mod connection;
mod descriptor;
#[cfg(fuzzing)]
#[allow(clippy::expect_used, missing_docs, reason = "a fuzzer ends by panicking")]
pub mod fuzzing;
mod inbound;
mod link;
mod outbound;
mod packet;
mod reset;
mod ring;
mod stream;
mod switchboard;
#[cfg(test)]
mod tests;
mod worker;

pub use stream::Stream;
pub use switchboard::{Endpoint, Switchboard, VsockError};

use crate::device::{ConfigSpace, Description, Device, DeviceError, Session};
use std::sync::Arc;
use switchboard::Board;
use worker::{Ears, Worker};

/// The vsock device.
pub struct Vsock {
    guest_cid: u64,
    config: Arc<ConfigSpace>,
    board: Arc<Board>,
    /// Made once, for all sessions.
    ears: Option<Ears>,
}

/// What its thread and messages call it.
pub const NAME: &str = "vsock";

impl Vsock {
    /// A device for the guest of this CID ([`GUEST_CID`], unless there is a reason), and where to offer it streams.
    pub fn new(guest_cid: u64) -> (Vsock, Switchboard) {
        let board = Arc::new(Board::default());
        let config = ConfigSpace::new(guest_cid.to_le_bytes().to_vec(), 0..0);
        (Vsock { guest_cid, config, board: board.clone(), ears: None }, Switchboard::new(board))
    }
}

impl Device for Vsock {
    fn description(&self) -> Description {
        Description {
            name: NAME,
            id: DEVICE_ID,
            // No SEQPACKET; streams need no bit.
            features: 0,
            queue_sizes: vec![RX_SIZE, TX_SIZE, EVENT_SIZE],
            config: self.config.clone(),
        }
    }

    fn settle(&mut self) -> std::io::Result<()> {
        self.ears = Some(Ears::open()?);
        Ok(())
    }

    fn run(&mut self, session: &mut Session) -> Result<(), DeviceError> {
        let ears = match &self.ears {
            Some(ears) => ears,
            None => {
                let opened = Ears::open();
                let failed = |source| DeviceError::Host { what: "make what it waits with", source };
                self.ears.insert(opened.map_err(failed)?)
            }
        };
        let mut worker = Worker::open(self.guest_cid, &self.board, ears, session)?;
        let outcome = worker.serve();
        worker.finish();
        outcome
    }
}

/// The CID that a guest has when nothing else was decided; it need not be unique on the host, which never sees it.
pub const GUEST_CID: u64 = 3;

/// The host's CID (virtio 1.2, 5.10.4).
pub const HOST_CID: u64 = 2;

// Virtio 1.2, 5.10.1. Linux keeps a buffer of 4 KiB in every place of the rx queue.
const DEVICE_ID: u32 = 19;
const RX_SIZE: u16 = 128;
const TX_SIZE: u16 = 128;
const EVENT_SIZE: u16 = 8;
