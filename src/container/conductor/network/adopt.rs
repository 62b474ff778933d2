//! Interfaces of the namespace become the guest's, and cease to be.

use super::{NetworkError, Worker};
use crate::device::net::{Net, Offloads, Port, Saved};
use crate::host::netlink::Netlink;
use crate::host::network::{Link, Snapshot};
use crate::host::tap::{self, Tap, offload};
use husk_protocol::Call;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// An interface that the guest has.
pub(super) struct Adopted {
    /// The slot of its device.
    pub slot: u32,
    pub tap: Arc<Tap>,
    /// As it was when the TAP was last changed with it.
    mtu: u32,
    /// In the guest, once the agent has found it.
    pub inside: Option<Inside>,
}

/// An interface in the guest.
pub(super) struct Inside {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What the guest was told of it.
    pub link: Option<Link>,
}

/// Whether an interface is one for the guest: Ethernet, and not there for another interface (a port of a bridge, a TAP
/// of ours).
pub(super) fn is_wanted(index: u32, link: &Link, ours: &[u32]) -> bool {
    link.kind == libc::ARPHRD_ETHER && link.mac.is_some() && !link.enslaved && !ours.contains(&index)
}

impl Worker {
    /// Gives the guest an interface, or follows what has changed of one that it has.
    pub(super) fn adopt(&mut self, index: u32, link: &Link) -> Result<(), NetworkError> {
        let name = || link.name.clone();
        if let Some(adopted) = self.adopted.get_mut(&index) {
            if adopted.mtu != link.mtu {
                let what = "follow the MTU of";
                tap::set_mtu(&mut self.netlink, adopted.tap.index, link.mtu)
                    .map_err(|source| NetworkError::Host { what, name: name(), source })?;
                adopted.mtu = link.mtu;
            }
            return Ok(());
        }
        let Some(mac) = link.mac else { return Ok(()) };
        let tap = self.take_tap(link)?;
        if let Err(source) = join(&mut self.netlink, &tap, index, link.mtu) {
            self.put_back(tap);
            return Err(match source.kind() {
                io::ErrorKind::AlreadyExists => NetworkError::Taken { name: name() },
                _ => NetworkError::Host { what: "join a TAP to", name: name(), source },
            });
        }
        if self.names {
            let spared = tap::spare_answers(&mut self.netlink, &tap, index);
            spared.map_err(|source| NetworkError::Host {
                what: "keep answers from",
                name: name(),
                source,
            })?;
        }
        let wire = |queue| Box::new(Wire { tap: Arc::clone(&tap), queue }) as Box<dyn Port>;
        let queues = std::iter::once(None).chain((0..tap.others()).map(Some));
        let device = Net::new(Saved { mac }, queues.map(wire).collect());
        match self.spares.plug(Box::new(device)) {
            Ok(slot) => {
                tracing::debug!(interface = link.name, tap = tap.name, slot, "an interface was adopted");
                self.adopted.insert(index, Adopted { slot, tap, mtu: link.mtu, inside: None });
                Ok(())
            }
            Err(source) => {
                tap::part(&mut self.netlink, index);
                self.put_back(tap);
                Err(NetworkError::Slot { name: name(), source })
            }
        }
    }

    /// Takes from the guest what is not in the namespace any more (or not for the guest any more).
    pub(super) fn let_go(&mut self, snapshot: &Snapshot, ours: &[u32]) -> Result<(), NetworkError> {
        let gone: Vec<u32> = self
            .adopted
            .keys()
            .copied()
            .filter(|index| !snapshot.links.get(index).is_some_and(|link| is_wanted(*index, link, ours)))
            .collect();
        let mut outcome = Ok(());
        for index in gone {
            let Some(adopted) = self.adopted.remove(&index) else { continue };
            if let (Some(guest), Some(inside)) = (self.shared.guest.get(), &adopted.inside) {
                let call = Call::DetachInterface { slot: adopted.slot };
                if let Err(source) = guest.call(call, super::deadline::CALL) {
                    outcome = Err(NetworkError::Guest { what: "let go of an interface", source });
                }
                self.told.forget(inside.index);
            }
            self.spares.unplug(adopted.slot);
            tap::part(&mut self.netlink, index);
            tracing::debug!(tap = adopted.tap.name, slot = adopted.slot, "an interface was let go");
            self.put_back(adopted.tap);
        }
        outcome
    }

    fn take_tap(&mut self, link: &Link) -> Result<Arc<Tap>, NetworkError> {
        let name = || link.name.clone();
        if let Some(tap) = self.idle.pop() {
            let _ = tap.turn_others_off();
            tap.drain();
            return Ok(tap);
        }
        match (self.tuns.spare.pop(), self.tuns.missing.take()) {
            (Some(tun), _) => {
                let more = &mut self.tuns.more;
                let others = more.split_off(more.len().saturating_sub(self.tuns.others));
                tun.make_with(others)
                    .map(Arc::new)
                    .map_err(|source| NetworkError::NoTun { name: name(), source })
            }
            (None, Some(missing)) => {
                let again =
                    missing.raw_os_error().map_or(missing.kind().into(), io::Error::from_raw_os_error);
                self.tuns.missing = Some(again);
                Err(NetworkError::NoTun { name: name(), source: missing })
            }
            (None, None) => Err(NetworkError::TooMany { name: name() }),
        }
    }

    /// Keeps a TAP for the next interface: there are no more where it came from.
    fn put_back(&mut self, tap: Arc<Tap>) {
        tap::part(&mut self.netlink, tap.index);
        // It goes with the namespace.
        let _ = tap::set_down(&mut self.netlink, tap.index);
        self.idle.push(tap);
    }
}

/// Joins them, also if a machine that is gone has left its traces there.
fn join(netlink: &mut Netlink, tap: &Tap, index: u32, mtu: u32) -> io::Result<()> {
    match tap::join(netlink, tap, index, mtu) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if !tap::is_abandoned(netlink, index)? {
                return Err(error);
            }
            tap::part(netlink, index);
            tap::part(netlink, tap.index);
            tap::join(netlink, tap, index, mtu)
        }
        other => other,
    }
}

/// A queue of a TAP as the network device wants it.
struct Wire {
    tap: Arc<Tap>,
    /// None: the first.
    queue: Option<usize>,
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.and_then(|queue| self.tap.other(queue)).unwrap_or(self.tap.as_fd())
    }
}

impl Port for Wire {
    fn cuts_datagrams(&self) -> bool {
        self.tap.cuts_datagrams
    }

    fn accept(&self, offloads: Offloads) -> io::Result<()> {
        let flags = [
            (offloads.checksum, offload::CSUM),
            (offloads.tcp4, offload::TSO4),
            (offloads.tcp6, offload::TSO6),
            (offloads.ecn, offload::TSO_ECN),
            (offloads.udp, offload::USO),
        ];
        let flags = flags.into_iter().filter(|(taken, _)| *taken).fold(0, |all, (_, flag)| all | flag);
        // Without checksums the kernel refuses all the others.
        self.tap.set_offloads(if offloads.checksum { flags } else { 0 })
    }

    fn turn(&self, on: bool) -> io::Result<()> {
        self.queue.map_or(Ok(()), |queue| self.tap.turn(queue, on))
    }
}
