//! An Ethernet interface for the guest: virtio-net (virtio 1.2, 5.1), between its queues and a descriptor that carries
//! frames (a TAP).
//!
//! ```text
//!   guest sends:    tx queue -> header read, checked, copied -> writev(header, the guest's own buffers)
//!   guest receives: rx queue -> buffers kept ready ----------> readv(the guest's own buffers) -> used
//! ```
//! `header` is what stands before a frame, `vectors` the descriptor's reads and writes on guest memory, `transmit` and
//! `receive` the two queues, `worker` the loop: one thread, asleep unless there is something to do. A device with more
//! than one port has a pair of queues and a thread (`pairs`) for each that the driver uses, and a `control` queue for
//! the driver to say how many that are.
//!
//! Checksums and segmentation are left to whoever is last: what the guest does not finish, the host's kernel (or the
//! network card) does, and the other way round.
//!
//! | The guest can | and then |
//! |---|---|
//! | send a frame that is too short or too long, or a header that promises what the frame does not hold | it is dropped |
//! | ask for an offload that was not agreed upon | the frame is dropped |
//! | change a header while it is looked at | it is read once; what was checked is what is written |
//! | send faster than the network takes | its queue waits; nothing is kept here |
//! | give no room for what arrives | it stays in the TAP's queue, and is lost there when that is full |
//! | keep the device busy for ever | each pass takes at most [`BUDGET`] frames each way, then looks at `stop` |
//! | ask for something else than queue pairs that there are | it is told that this is an error |
//! | change its mind about the pairs as fast as it can | threads end and begin, one for each pair at most |
//! | send what it likes from any address | it reaches what a container with raw sockets on this interface reaches |
//!
//! What survives a session is what the device was made with ([`Saved`]) and how many pairs the driver uses; what was
//! agreed with the driver is told to the descriptor anew at each start. Not here: how a TAP is made and joined to the world (the host, the conductor).

mod control;
mod header;
mod pairs;
mod receive;
#[cfg(test)]
mod tests;
mod transmit;
#[allow(unsafe_code)] // scatter/gather system calls on guest memory, for which no safe wrapper exists
mod vectors;
mod worker;

pub use control::pairs_wanted;
pub use header::{Header, Refused};

use crate::device::{ConfigSpace, Description, Device, DeviceError, Session};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use worker::Surroundings;

/// Where frames go to and come from: each read or write of the descriptor is one frame with a header before it, and
/// never waits.
pub trait Port: AsFd + Send {
    /// Whether it can take and give UDP datagrams that are not yet cut; older hosts cannot. Asked once.
    fn cuts_datagrams(&self) -> bool;

    /// Called when the driver is ready: the kinds of unfinished frames that it takes.
    fn accept(&self, offloads: Offloads) -> io::Result<()>;

    /// Has frames that come for the interface come here too, or no more. The first port of a device is always on, and
    /// others are off at the beginning. Told what it is already, it does nothing.
    fn turn(&self, on: bool) -> io::Result<()>;
}

/// Kinds of unfinished frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Without checksums.
    pub checksum: bool,
    /// TCP over IPv4 not yet cut into segments.
    pub tcp4: bool,
    /// TCP over IPv6 not yet cut into segments.
    pub tcp6: bool,
    /// Such with ECN.
    pub ecn: bool,
    /// Several UDP datagrams in one, over IPv4 and IPv6.
    pub udp: bool,
}

/// The network device.
pub struct Net {
    config: Arc<ConfigSpace>,
    features: u64,
    /// One for each pair of queues; at least one.
    ports: Vec<Box<dyn Port>>,
    /// How many pairs the driver uses. Outlives a session that is suspended.
    in_use: u16,
    /// With more than one port, from the beginning of its thread on.
    events: Option<pairs::Events>,
}

/// What a device is made with again after a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The interface's address.
    pub mac: [u8; 6],
}

impl Net {
    /// A device with this address, with a pair of queues for each port.
    pub fn new(saved: Saved, ports: Vec<Box<dyn Port>>) -> Net {
        let mut features = FEATURES;
        if ports.first().is_some_and(|port| port.cuts_datagrams()) {
            features |= UDP_FEATURES;
        }
        if ports.len() > 1 {
            features |= PAIR_FEATURES;
        }
        // struct virtio_net_config, as far as the features have it: address, status, pairs.
        let mut config = saved.mac.to_vec();
        config.extend([0; 2]);
        config.extend(u16::try_from(ports.len()).unwrap_or(1).to_le_bytes());
        Net { config: ConfigSpace::new(config, 0..0), features, ports, in_use: 1, events: None }
    }
}

impl Device for Net {
    fn description(&self) -> Description {
        Description {
            name: if self.ports.len() > 1 { "nets" } else { "net" },
            id: DEVICE_ID,
            features: self.features,
            queue_sizes: match self.ports.len() {
                1 => vec![QUEUE_SIZE; 2],
                pairs => {
                    let mut sizes = vec![QUEUE_SIZE; pairs.saturating_mul(2)];
                    sizes.push(CONTROL_QUEUE_SIZE);
                    sizes
                }
            },
            config: self.config.clone(),
        }
    }

    fn settle(&mut self) -> io::Result<()> {
        if self.ports.len() > 1 && self.events.is_none() {
            self.events = Some(pairs::Events::open(self.ports.len())?);
        }
        Ok(())
    }

    fn run(&mut self, session: &mut Session) -> Result<(), DeviceError> {
        let has = |feature: u64| session.features & feature != 0;
        let guest = Offloads {
            checksum: has(feature::GUEST_CSUM),
            tcp4: has(feature::GUEST_TSO4),
            tcp6: has(feature::GUEST_TSO6),
            ecn: has(feature::GUEST_ECN),
            // A TAP knows both or none.
            udp: has(feature::GUEST_USO4) && has(feature::GUEST_USO6),
        };
        let Some(first) = self.ports.first() else { return Err(DeviceError::NothingSaved) };
        first
            .accept(guest)
            .map_err(|source| DeviceError::Host { what: "tell the TAP what the guest takes", source })?;
        if !session.resumed {
            self.in_use = 1;
        }
        if has(feature::CTRL_VQ) {
            let most = if has(feature::MQ) { self.ports.len() } else { 1 };
            let events = match &self.events {
                Some(events) => events,
                None => {
                    let failed =
                        |source| DeviceError::Host { what: "make what threads are told with", source };
                    self.events.insert(pairs::Events::open(self.ports.len()).map_err(failed)?)
                }
            };
            return pairs::serve(session, &self.ports, events, most, &mut self.in_use);
        }
        let Session { memory, queues, interrupt, stop, features, .. } = session;
        let around = Surroundings { memory, features: *features, interrupt: interrupt.as_ref() };
        worker::serve(queues, first.as_fd(), around, stop)
    }

    fn reset(&mut self) {
        self.in_use = 1;
    }

    fn save(&mut self) -> Result<Vec<u8>, DeviceError> {
        serde_json::to_vec(&State { pairs: self.in_use }).map_err(|error| DeviceError::State(error.into()))
    }

    fn restore(&mut self, saved: &[u8]) -> Result<(), DeviceError> {
        let State { pairs } =
            serde_json::from_slice(saved).map_err(|error| DeviceError::State(error.into()))?;
        if !(1..=self.ports.len()).contains(&pairs.into()) {
            return Err(DeviceError::State(format!("there are not {pairs} queue pairs").into()));
        }
        self.in_use = pairs;
        Ok(())
    }
}

/// What the device remembers between two sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// How many pairs the driver uses.
    pairs: u16,
}

impl Offloads {
    /// What the driver may send.
    fn of_driver(features: u64) -> Offloads {
        let has = |feature: u64| features & feature != 0;
        Offloads {
            checksum: has(feature::CSUM),
            tcp4: has(feature::HOST_TSO4),
            tcp6: has(feature::HOST_TSO6),
            ecn: has(feature::HOST_ECN),
            udp: has(feature::HOST_USO),
        }
    }
}

/// Most frames that one pass takes each way.
const BUDGET: usize = 128;
/// Linux gives a receive buffer of a page or less in every place, and a frame takes up to 43 of them.
const QUEUE_SIZE: u16 = 256;
/// A command at a time, in three pieces.
const CONTROL_QUEUE_SIZE: u16 = 16;

/// Bytes of the header before each frame (virtio 1.2, 5.1.6; always with num_buffers).
const HEADER: usize = 12;
/// An Ethernet header.
const SHORTEST: usize = 14;
/// 64 KiB of IP behind an Ethernet header with two VLAN tags, and a few spare.
const LONGEST: usize = 65_550;

/// Not VIRTIO_NET_F_STATUS: with it Linux finds out about its link later than it brings the interface up, and what a
/// process sends in its first moments is lost. Not VIRTIO_NET_F_MTU: it would be the most that the guest could ever
/// have, and the host's interface may get more.
const FEATURES: u64 = feature::CSUM
    | feature::GUEST_CSUM
    | feature::MAC
    | feature::GUEST_TSO4
    | feature::GUEST_TSO6
    | feature::GUEST_ECN
    | feature::HOST_TSO4
    | feature::HOST_TSO6
    | feature::HOST_ECN
    | feature::MRG_RXBUF;

/// With more than one port.
const PAIR_FEATURES: u64 = feature::CTRL_VQ | feature::MQ;

/// With a port that cuts datagrams.
const UDP_FEATURES: u64 = feature::GUEST_USO4 | feature::GUEST_USO6 | feature::HOST_USO;

/// Virtio 1.2, 5.1.3.
mod feature {
    pub const CSUM: u64 = 1;
    pub const GUEST_CSUM: u64 = 1 << 1;
    pub const MAC: u64 = 1 << 5;
    pub const GUEST_TSO4: u64 = 1 << 7;
    pub const GUEST_TSO6: u64 = 1 << 8;
    pub const GUEST_ECN: u64 = 1 << 9;
    pub const HOST_TSO4: u64 = 1 << 11;
    pub const HOST_TSO6: u64 = 1 << 12;
    pub const HOST_ECN: u64 = 1 << 13;
    pub const MRG_RXBUF: u64 = 1 << 15;
    pub const CTRL_VQ: u64 = 1 << 17;
    pub const MQ: u64 = 1 << 22;
    // Virtio 1.3.
    pub const GUEST_USO4: u64 = 1 << 54;
    pub const GUEST_USO6: u64 = 1 << 55;
    pub const HOST_USO: u64 = 1 << 56;
}

// Virtio 1.2, 5.1.1.
const DEVICE_ID: u32 = 1;
