//! The file server: directories and files of the host, shared over virtio-fs (virtio 1.2, section 5.11).
//!
//! ```text
//!   guest's kernel --virtqueue--> worker --Segments--> server --one name, one descriptor--> host's kernel
//!                                   ^                     |
//!                          interrupt, stop          exports (added and removed by the machine meanwhile)
//! ```
//! A device shows one directory that exists nowhere on the host; its entries are the [`Exports`]: directories, or files
//! alone. A machine has two devices, which differ in their [`Policy`] only: one for root filesystems, which the guest
//! has to itself, and one for what others change as well.
//!
//! The guest is hostile. What keeps it inside its exports: names are single components before anything sees them
//! (`name`, `request`); every step is made from a directory's descriptor (`server/reach.rs`); nothing but regular files
//! and directories is ever opened; and the number of descriptors is fixed (`descriptors`), whatever the guest does.
//! Why it is all ours and not a library: `docs/decisions/0003-file-server.md`.
//!
//! What is not here: permission checks (the guest's kernel makes them, on its own processes), locks on what the guest has
//! to itself (its kernel has them), DAX.

mod credentials;
mod descriptors;
mod exports;
#[cfg(fuzzing)]
#[allow(clippy::expect_used, missing_docs, reason = "a fuzzer ends by panicking")]
pub mod fuzzing;
mod handles;
mod inodes;
mod locks;
mod name;
mod ranges;
mod request;
mod segments;
mod server;
mod sockets;
mod state;
mod stream;
#[cfg(test)]
mod tests;
mod wire;
mod worker;

pub use exports::{Exports, FsError, Identity};
pub use sockets::{Alias, Made, Neighbour};
pub use state::StateError;

use self::server::{Place, Server};
use self::state::Saved;
use super::{ConfigSpace, Description, Device, DeviceError, Session};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Who else may change what is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Nobody: the guest may cache names, attributes and contents, and write back when it likes.
    Exclusive,
    /// Anybody, at any time: the guest asks each time, and writes through.
    Shared,
}

/// A virtio-fs device.
pub struct Fs {
    policy: Policy,
    exports: Arc<Exports>,
    config: Arc<ConfigSpace>,
    /// `/proc/self/fd`, opened while there is a /proc: the machine's own root will have none.
    proc: Result<Arc<OwnedFd>, Errno>,
    /// The server's thread, once it is ready to be that.
    place: Option<Place>,
    /// What a session that ended without an error knew, should it go on.
    server: Option<Server>,
}

impl Fs {
    /// A device that the guest mounts as `tag` (at most 36 bytes; more are cut off).
    ///
    /// To be called in the process that is going to run the device, before it leaves the host's root: `/proc` is
    /// opened here. Should that fail, [`Device::run`] tells.
    pub fn new(tag: &'static str, policy: Policy, exports: Arc<Exports>) -> Fs {
        let mut config = vec![0u8; TAG_SIZE];
        for (to, byte) in config.iter_mut().zip(tag.bytes()) {
            *to = byte;
        }
        config.extend(REQUEST_QUEUES.to_le_bytes());
        let proc = open_proc().map(Arc::new);
        Fs { policy, exports, config: ConfigSpace::new(config, 0..0), proc, place: None, server: None }
    }
}

impl Device for Fs {
    fn description(&self) -> Description {
        Description {
            name: match self.policy {
                Policy::Exclusive => "fs-root",
                Policy::Shared => "fs-share",
            },
            id: DEVICE_ID,
            // A request of 1 MiB has hundreds of parts: with indirect descriptors it takes one place in the ring.
            features: 1 << virtio_bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC,
            queue_sizes: vec![HIPRIO_SIZE, REQUEST_SIZE],
            config: self.config.clone(),
        }
    }

    fn settle(&mut self) -> std::io::Result<()> {
        self.place = Some(Place::take(&*self.proc.clone()?)?);
        if let Some(neighbour) = self.exports.neighbour() {
            neighbour.settle();
        }
        Ok(())
    }

    fn run(&mut self, session: &mut Session) -> Result<(), DeviceError> {
        let mut server = match (session.resumed, self.server.take()) {
            (true, Some(server)) => server,
            (true, None) => return Err(DeviceError::NothingSaved),
            (false, _) => self.open_server()?,
        };
        worker::run(&mut server, &self.exports, session)?;
        self.server = Some(server);
        Ok(())
    }

    fn reset(&mut self) {
        self.server = None;
    }

    fn save(&mut self) -> Result<Vec<u8>, DeviceError> {
        let Some(server) = &mut self.server else { return Ok(Vec::new()) };
        server.save().to_bytes().map_err(state)
    }

    fn restore(&mut self, saved: &[u8]) -> Result<(), DeviceError> {
        self.server = None;
        if saved.is_empty() {
            return Ok(());
        }
        let saved = Saved::from_bytes(saved).map_err(state)?;
        let mut server = self.open_server()?;
        let restored = server.restore(&saved).map_err(state)?;
        tracing::info!(inodes = restored.inodes, stale = restored.stale, "the file server goes on");
        self.server = Some(server);
        Ok(())
    }
}

impl Fs {
    /// A server for the calling thread.
    fn open_server(&self) -> Result<Server, DeviceError> {
        let host = |what| move |error: Errno| DeviceError::Host { what, source: error.into() };
        let proc = self.proc.clone().map_err(host("open /proc/self/fd"))?;
        let place = match self.place {
            Some(place) => place,
            None => Place::take(&proc).map_err(host("prepare the file server's thread"))?,
        };
        Ok(Server::new(self.policy, self.exports.clone(), proc, place, DESCRIPTORS))
    }
}

fn state(error: StateError) -> DeviceError {
    DeviceError::State(Box::new(error))
}

/// `/proc/self/fd`, as a mount of its own where we may make one: its `..` then leads nowhere.
fn open_proc() -> Result<OwnedFd, Errno> {
    const PATH: &str = "/proc/self/fd";
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, PATH, flags)
        .or_else(|_| openat(CWD, PATH, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()))
}

/// The most bytes that one READ or WRITE carries.
const MAX_PAYLOAD: u32 = 1 << 20;

/// How many descriptors one device may hold. The machine has 4,096 for two of them and everything else.
const DESCRIPTORS: usize = 1536;

/// Virtio 1.2, 5.11.1.
const DEVICE_ID: u32 = 26;
/// Virtio 1.2, 5.11.4: `tag`.
const TAG_SIZE: usize = 36;
/// Virtio 1.2, 5.11.4: `num_request_queues`.
const REQUEST_QUEUES: u32 = 1;
/// The queue for FORGET.
const HIPRIO_SIZE: u16 = 128;
/// The queue for everything else. Linux takes its size, less 4, for the most pages of a request.
const REQUEST_SIZE: u16 = 512;
