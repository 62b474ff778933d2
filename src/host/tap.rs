//! TAP interfaces: Ethernet frames through a descriptor, and joining one to an interface of the same namespace.
//!
//! ```text
//!   world --> eth0 ingress --redirect--> tap egress  --> read(descriptor)
//!   world <-- eth0 egress  <--redirect-- tap ingress <-- write(descriptor)
//! ```
//! A TAP is gone when its descriptor is closed, and with it what was redirected on its side. The queueing discipline on
//! the other interface's ingress stays: [`part`] removes it.
//!
//! /dev/net/tun is opened beforehand ([`Tun`]), while there are paths; making a TAP from it takes CAP_NET_ADMIN.
#![allow(unsafe_code)] // ioctl(2)

use super::netlink::Netlink;
use super::netlink::message::{Attributes, Message, Nest, number};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// /dev/net/tun, not yet an interface of any kind.
#[derive(Debug)]
pub struct Tun(File);

impl Tun {
    /// Opens it.
    pub fn open() -> io::Result<Tun> {
        File::options().read(true).write(true).open("/dev/net/tun").map(Tun)
    }

    /// Makes a TAP of it, in the network namespace in which it was opened.
    pub fn make(self) -> io::Result<Tap> {
        self.make_with(Vec::new())
    }

    /// Makes a TAP with several queues, of which the first is on.
    pub fn make_with(self, others: Vec<Tun>) -> io::Result<Tap> {
        let several = if others.is_empty() { 0 } else { libc::IFF_MULTI_QUEUE };
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | several;
        // The highest bit is a flag too.
        let flags = u16::try_from(flags).unwrap_or(0).cast_signed();
        let mut request = Request { name: [0; libc::IFNAMSIZ], flags, rest: [0; 22] };
        for (to, from) in request.name.iter_mut().zip(b"husk%d") {
            *to = *from;
        }
        let first = self.into_queue(&mut request)?;
        let header: libc::c_int = HEADER;
        // SAFETY: the request reads an int.
        let result = unsafe { libc::ioctl(first.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const header) };
        nix::errno::Errno::result(result)?;
        // The name is in the request now.
        let on = |tun| Queue { tun, on: AtomicBool::new(true) };
        let others = others
            .into_iter()
            .map(|other| other.into_queue(&mut request).map(on))
            .collect::<io::Result<_>>()?;
        let name = super::netlink::message::text(&request.name);
        let index = nix::net::if_::if_nametoindex(name.as_str())?;
        let mut tap = Tap { first, others, name, index, cuts_datagrams: true };
        tap.turn_others_off()?;
        // Linux 6.2. What is set here is set anew when a driver is ready.
        tap.cuts_datagrams = tap.set_offloads(offload::CSUM | offload::USO).is_ok();
        tap.set_offloads(0)?;
        Ok(tap)
    }

    fn into_queue(self, request: &mut Request) -> io::Result<OwnedFd> {
        let tun = OwnedFd::from(self.0);
        // SAFETY: the request reads and writes a `struct ifreq`, which `Request` is.
        let result = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, std::ptr::from_mut(request)) };
        nix::errno::Errno::result(result)?;
        nix::fcntl::fcntl(&tun, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
        Ok(tun)
    }
}

/// A TAP. Frames have a `struct virtio_net_hdr_v1` before them both ways. Its descriptors do not wait. Which of its
/// queues gets a frame is the kernel's to say: the one by which the same connection sends.
#[derive(Debug)]
pub struct Tap {
    first: OwnedFd,
    others: Vec<Queue>,
    /// Its name in its namespace.
    pub name: String,
    /// Its number there.
    pub index: u32,
    /// Whether its kernel takes UDP datagrams that are not yet cut.
    pub cuts_datagrams: bool,
}

#[derive(Debug)]
struct Queue {
    tun: OwnedFd,
    /// Whether the kernel gives it frames, and takes any from it.
    on: AtomicBool,
}

impl Tap {
    /// How many queues it has beside the first.
    pub fn others(&self) -> usize {
        self.others.len()
    }

    /// The descriptor of one of the other queues.
    pub fn other(&self, number: usize) -> Option<BorrowedFd<'_>> {
        self.others.get(number).map(|queue| queue.tun.as_fd())
    }

    /// Turns one of the other queues on or off, unless it is. What it held is lost when it is turned off. No privilege
    /// is needed.
    pub fn turn(&self, number: usize, on: bool) -> io::Result<()> {
        let Some(queue) = self.others.get(number) else { return Err(io::ErrorKind::NotFound.into()) };
        if queue.on.load(Ordering::Relaxed) == on {
            return Ok(());
        }
        let flags = if on { libc::IFF_ATTACH_QUEUE } else { libc::IFF_DETACH_QUEUE };
        let flags = i16::try_from(flags).unwrap_or(0);
        let mut request = Request { name: [0; libc::IFNAMSIZ], flags, rest: [0; 22] };
        // SAFETY: the request reads a `struct ifreq`, which `Request` is.
        let result = unsafe { libc::ioctl(queue.tun.as_raw_fd(), libc::TUNSETQUEUE, &raw mut request) };
        nix::errno::Errno::result(result)?;
        queue.on.store(on, Ordering::Relaxed);
        Ok(())
    }

    /// Turns all queues off but the first.
    pub fn turn_others_off(&self) -> io::Result<()> {
        (0..self.others.len()).try_for_each(|number| self.turn(number, false))
    }

    /// Says what kinds of frames the reader takes beside whole ones with their checksums: `TUN_F_*`. No privilege is
    /// needed.
    pub fn set_offloads(&self, offloads: u32) -> io::Result<()> {
        // SAFETY: the request takes its argument as a number.
        let result = unsafe {
            libc::ioctl(self.as_fd().as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(offloads))
        };
        nix::errno::Errno::result(result)?;
        Ok(())
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.first.as_fd()
    }
}

/// `struct ifreq`, as far as TUNSETIFF uses it.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: i16,
    rest: [u8; 22],
}

impl Tap {
    /// Takes out what it still holds for a reader, so that the next one does not hear what was for the last.
    pub fn drain(&self) {
        let mut frame = [0; 2048];
        // What it can hold (tx_queue_len), and a little.
        for _ in 0..MOST_HELD {
            if nix::unistd::read(self, &mut frame).is_err() {
                return;
            }
        }
    }
}

/// Joins a TAP to the interface of this number and MTU: everything that arrives at one leaves by the other. An error of
/// kind `AlreadyExists`: something else has the interface's ingress. After an error nothing is left on the interface.
pub fn join(netlink: &mut Netlink, tap: &Tap, interface: u32, mtu: u32) -> io::Result<()> {
    // Of its own accord it must not say a word: what it says, the guest hears.
    let quiet = Nest::new().attribute(IFLA_INET6_ADDR_GEN_MODE, &[ADDR_GEN_MODE_NONE]);
    let families = Nest::new().nest(libc::AF_INET6 as u16, quiet);
    // A kernel without IPv6 has nothing to be quiet about.
    let _ = netlink.request(of_link(tap.index, false).nest(IFLA_AF_SPEC, families));
    netlink.request(of_link(tap.index, false).number(libc::IFLA_MTU, mtu))?;
    netlink.request(of_link(tap.index, true))?;
    ingress(netlink, tap.index)?;
    redirect(netlink, tap.index, interface)?;
    ingress(netlink, interface)?;
    redirect(netlink, interface, tap.index).inspect_err(|_| part(netlink, interface))
}

/// Whether what [`join`] once put on the interface leads nowhere any more: whoever did it is gone.
pub fn is_abandoned(netlink: &mut Netlink, interface: u32) -> io::Result<bool> {
    let question = Message::new(libc::RTM_GETTFILTER, &traffic(interface, 0, INGRESS_HANDLE, 0));
    let (mut filters, mut live) = (0_u32, false);
    netlink.dump(question, |kind, payload| {
        if kind != libc::RTM_NEWTFILTER
            || number(payload, TRAFFIC_INFO).map(|info| info >> 16) != Some(PRIORITY)
        {
            return;
        }
        for (kind, options) in Attributes::behind(payload, TRAFFIC) {
            if kind != TCA_OPTIONS {
                continue;
            }
            filters = filters.saturating_add(1);
            live |= target(options) != Some(0);
        }
    })?;
    Ok(filters > 0 && !live)
}

/// Where a filter of [`redirect`]'s kind sends things: 0 for an interface that is gone, `None` if it is of another kind.
fn target(options: &[u8]) -> Option<u32> {
    let inside =
        |bytes, wanted| Attributes::of(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let action = inside(inside(options, TCA_MATCHALL_ACT)?, 1)?;
    number(inside(inside(action, TCA_ACT_OPTIONS)?, TCA_MIRRED_PARMS)?, MIRRED_INTERFACE)
}

/// Takes away, from all interfaces of a network namespace, what machines that are gone have left there.
pub fn clear_abandoned(namespace: &File) -> io::Result<()> {
    // A namespace belongs to a thread; this one's end is its way back.
    let clear = || {
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)?;
        let mut netlink = Netlink::open()?;
        let links = super::network::Snapshot::take(&mut netlink, |_, _| false)?.links;
        for index in links.into_keys() {
            // Without an ingress there is no list of its filters.
            if is_abandoned(&mut netlink, index).unwrap_or(false) {
                part(&mut netlink, index);
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| scope.spawn(clear).join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into())))
}

/// Takes an interface down.
pub fn set_down(netlink: &mut Netlink, interface: u32) -> io::Result<()> {
    let mut fixed = vec![0; 4];
    fixed.extend(interface.to_ne_bytes());
    fixed.extend(0u32.to_ne_bytes());
    fixed.extend(libc::IFF_UP.cast_unsigned().to_ne_bytes());
    netlink.request(Message::new(libc::RTM_NEWLINK, &fixed))
}

/// Brings an interface up.
pub fn set_up(netlink: &mut Netlink, interface: u32) -> io::Result<()> {
    netlink.request(of_link(interface, true))
}

/// Follows a change of the interface's MTU.
pub fn set_mtu(netlink: &mut Netlink, tap: u32, mtu: u32) -> io::Result<()> {
    netlink.request(of_link(tap, false).number(libc::IFLA_MTU, mtu))
}

/// Takes away what [`join`] left on the interface, if it is there.
pub fn part(netlink: &mut Netlink, interface: u32) {
    let request = Message::new(libc::RTM_DELQDISC, &traffic(interface, INGRESS_HANDLE, INGRESS_PARENT, 0));
    // It goes with its interface.
    let _ = netlink.request(request.text(TCA_KIND, "ingress"));
}

/// A request about an interface, which may bring it up.
fn of_link(index: u32, up: bool) -> Message {
    let flags = if up { libc::IFF_UP.cast_unsigned() } else { 0 };
    let mut fixed = vec![0; 4];
    fixed.extend(index.to_ne_bytes());
    fixed.extend(flags.to_ne_bytes());
    fixed.extend(flags.to_ne_bytes());
    Message::new(libc::RTM_NEWLINK, &fixed)
}

fn ingress(netlink: &mut Netlink, interface: u32) -> io::Result<()> {
    let fixed = traffic(interface, INGRESS_HANDLE, INGRESS_PARENT, 0);
    let request = Message::new(libc::RTM_NEWQDISC, &fixed).flags(libc::NLM_F_CREATE | libc::NLM_F_EXCL);
    netlink.request(request.text(TCA_KIND, "ingress"))
}

/// Everything that comes in at `from` goes out at `to`.
fn redirect(netlink: &mut Netlink, from: u32, to: u32) -> io::Result<()> {
    let filter = filter(from, PRIORITY, ETH_P_ALL);
    netlink.request(pass_on(filter, [TC_ACT_STOLEN, TCA_EGRESS_REDIR, to]))
}

/// Lets answers to name look-ups that the host itself makes from within the namespace reach it: those from port 53 to a
/// port of [`NAME_PORTS`]. The guest does not see them. So that the host finds its way to whom it asks, both hear ARP.
/// To be called once after [`join`].
pub fn spare_answers(netlink: &mut Netlink, tap: &Tap, interface: u32) -> io::Result<()> {
    let arp = filter(interface, PRIORITY_ARP, ETH_P_ARP);
    netlink.request(pass_on(arp, [TC_ACT_OK, TCA_EGRESS_MIRROR, tap.index]))?;
    for protocol in [libc::IPPROTO_UDP, libc::IPPROTO_TCP] {
        // Words of the packet: (mask, value, offset). A header without options, the protocol, the two ports.
        let ports = (53 << 16) | u32::from(*NAME_PORTS.start());
        let words = [
            (0x0f00_0000, 0x0500_0000, 0),
            (0x00ff_0000, protocol.cast_unsigned() << 16, 8),
            (0xffff_0000 | u32::from(*NAME_PORTS.start()), ports, 20),
        ];
        // struct tc_u32_sel: flags, shift, count, then five fields that are not used.
        let mut selector = vec![TC_U32_TERMINAL, 0, 3, 0];
        selector.extend([0; 12]);
        for (mask, value, offset) in words {
            selector.extend(u32::to_be_bytes(mask));
            selector.extend(u32::to_be_bytes(value));
            selector.extend(u32::to_ne_bytes(offset));
            selector.extend([0; 4]);
        }
        let options = Nest::new().attribute(TCA_U32_SEL, &selector);
        let filter = filter(interface, PRIORITY_NAMES, ETH_P_IP);
        netlink.request(filter.text(TCA_KIND, "u32").nest(TCA_OPTIONS, options))?;
    }
    Ok(())
}

/// The ports from which the host asks for names in a container's namespace: few, and above those from which Linux takes
/// ports by itself, so that the guest's own are others. Their first one is also the mask that selects them.
pub const NAME_PORTS: std::ops::RangeInclusive<u16> = 0xfe00..=0xffff;

/// A new filter for what comes in at an interface.
fn filter(interface: u32, priority: u32, protocol: u16) -> Message {
    let info = (priority << 16) | u32::from(protocol.to_be());
    Message::new(libc::RTM_NEWTFILTER, &traffic(interface, 0, INGRESS_HANDLE, info)).flags(libc::NLM_F_CREATE)
}

/// Has a filter send everything to an interface: what becomes of the packet itself, how, and where to.
fn pass_on(filter: Message, [then, how, to]: [u32; 3]) -> Message {
    // struct tc_mirred: index, capabilities, action, two counts, what to do, where.
    let numbers = [0, 0, then, 0, 0, how, to];
    let mirred: Vec<u8> = numbers.into_iter().flat_map(u32::to_ne_bytes).collect();
    let action = Nest::new()
        .attribute(TCA_ACT_KIND, b"mirred\0")
        .nest(TCA_ACT_OPTIONS, Nest::new().attribute(TCA_MIRRED_PARMS, &mirred));
    let options = Nest::new().nest(TCA_MATCHALL_ACT, Nest::new().nest(1, action));
    filter.text(TCA_KIND, "matchall").nest(TCA_OPTIONS, options)
}

/// `struct tcmsg`.
fn traffic(interface: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    [0, interface, handle, parent, info].into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// Bytes of `struct virtio_net_hdr_v1`.
pub const HEADER: libc::c_int = 12;

/// `TUN_F_*`, linux/if_tun.h.
pub mod offload {
    /// Checksums may be missing.
    pub const CSUM: u32 = 0x01;
    /// TCP over IPv4 may be unsegmented.
    pub const TSO4: u32 = 0x02;
    /// TCP over IPv6 too.
    pub const TSO6: u32 = 0x04;
    /// With ECN.
    pub const TSO_ECN: u32 = 0x08;
    /// Several UDP datagrams in one, over IPv4 and IPv6: the kernel takes both bits or none.
    pub const USO: u32 = 0x20 | 0x40;
}

// linux/if_link.h, linux/pkt_sched.h, linux/pkt_cls.h, linux/tc_act/tc_mirred.h
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_MODE_NONE: u8 = 1;
const INGRESS_PARENT: u32 = 0xffff_fff1;
const INGRESS_HANDLE: u32 = 0xffff_0000;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_MATCHALL_ACT: u16 = 2;
const TCA_MIRRED_PARMS: u16 = 2;
const TCA_U32_SEL: u16 = 5;
const TC_U32_TERMINAL: u8 = 1;
const TC_ACT_OK: u32 = 0;
const TC_ACT_STOLEN: u32 = 4;
const TCA_EGRESS_REDIR: u32 = 1;
const TCA_EGRESS_MIRROR: u32 = 2;
const ETH_P_ALL: u16 = 3;
const ETH_P_IP: u16 = 0x800;
const ETH_P_ARP: u16 = 0x806;
const PRIORITY: u32 = 100;
const PRIORITY_ARP: u32 = 1;
const PRIORITY_NAMES: u32 = 2;
/// Bytes of `struct tcmsg`, and the offset of the interface in `struct tc_mirred`.
const TRAFFIC: usize = 20;
const TRAFFIC_INFO: usize = 16;
const MIRRED_INTERFACE: usize = 24;
const MOST_HELD: usize = 2048;

#[cfg(test)]
mod tests {
    use super::super::network::Snapshot;
    use super::*;
    use nix::poll::{PollFd, PollFlags, poll};

    /// Runs `story` in a network namespace of its own, if that can be had.
    fn alone(story: impl FnOnce() + Send) {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let made = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET);
                let can = || {
                    let (one, other) = (Tun::open()?.make()?, Tun::open()?.make()?);
                    join(&mut Netlink::open()?, &one, other.index, 1500)
                };
                match made.map_err(io::Error::from).and_then(|()| can()) {
                    Ok(()) => story(),
                    Err(error) => {
                        eprintln!("skipped: needs root, /dev/net/tun, sch_ingress, cls_matchall, act_mirred ({error})");
                    }
                }
            });
        });
    }

    fn frame(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; usize::try_from(HEADER).unwrap()];
        frame.extend([0xff; 6]);
        frame.extend([2, 0, 0, 0, 0, 9]);
        frame.extend(kind.to_be_bytes());
        frame.extend(payload);
        frame.resize(frame.len().max(12 + 60), 0);
        frame
    }

    fn hear(tap: &Tap) -> Option<Vec<u8>> {
        let mut ready = [PollFd::new(tap.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, 200_u8).unwrap();
        let mut bytes = [0; 2048];
        nix::unistd::read(tap, &mut bytes).ok().map(|length| bytes[..length].to_vec())
    }

    fn udp(from: u16, to: u16) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 17, 0, 0, 8, 8, 8, 8, 10, 0, 0, 2];
        packet.extend(from.to_be_bytes());
        packet.extend(to.to_be_bytes());
        packet.extend([0, 20, 0, 0]);
        frame(ETH_P_IP, &packet)
    }

    #[test]
    fn what_comes_in_at_one_goes_out_at_the_other() {
        alone(|| {
            let mut netlink = Netlink::open().unwrap();
            // A TAP in the place of the container's interface: what the world sends is written to it.
            let world = Tun::open().unwrap().make().unwrap();
            let guest = Tun::open().unwrap().make().unwrap();
            set_up(&mut netlink, world.index).unwrap();
            join(&mut netlink, &guest, world.index, 1400).unwrap();
            let links = Snapshot::take(&mut netlink, |_, _| false).unwrap().links;
            assert!(links[&guest.index].up && links[&guest.index].mtu == 1400, "{links:?}");
            let sent = frame(0x88b5, b"in");
            nix::unistd::write(&world, &sent).unwrap();
            // Before it, what the kernel says of its own accord at an interface that comes up.
            let heard = std::iter::from_fn(|| hear(&guest)).any(|heard| heard[12..] == sent[12..]);
            assert!(heard, "the guest hears the world");
            let sent = frame(0x88b5, b"out");
            nix::unistd::write(&guest, &sent).unwrap();
            let heard = std::iter::from_fn(|| hear(&world)).any(|heard| heard[12..] == sent[12..]);
            assert!(heard, "the world hears the guest");
            let again = join(&mut netlink, &Tun::open().unwrap().make().unwrap(), world.index, 1400);
            assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        });
    }

    #[test]
    fn a_queue_that_is_off_gets_nothing_and_one_that_is_on_does() {
        alone(|| {
            let mut netlink = Netlink::open().unwrap();
            let others = vec![Tun::open().unwrap(), Tun::open().unwrap()];
            let tap = Tun::open().unwrap().make_with(others).unwrap();
            set_up(&mut netlink, tap.index).unwrap();
            assert_eq!(tap.others(), 2);
            let sent = frame(0x88b5, b"out");
            let write = |number| nix::unistd::write(tap.other(number).unwrap(), &sent);
            assert_eq!(write(0), Err(nix::errno::Errno::EBADFD), "off at the beginning");
            for on in [true, true, false, false, true] {
                tap.turn(0, on).unwrap();
                assert_eq!(write(0).is_ok(), on);
                assert!(write(1).is_err());
            }
            tap.turn_others_off().unwrap();
            assert!(write(0).is_err() && nix::unistd::write(&tap, &sent).is_ok());
            assert_eq!(tap.turn(2, true).unwrap_err().kind(), io::ErrorKind::NotFound);
        });
    }

    #[test]
    fn answers_to_the_hosts_own_look_ups_are_not_the_guests() {
        alone(|| {
            let mut netlink = Netlink::open().unwrap();
            let world = Tun::open().unwrap().make().unwrap();
            let guest = Tun::open().unwrap().make().unwrap();
            set_up(&mut netlink, world.index).unwrap();
            join(&mut netlink, &guest, world.index, 1500).unwrap();
            spare_answers(&mut netlink, &guest, world.index).unwrap();
            for (sent, reaches) in [
                (udp(53, 0xfe00), false),
                (udp(53, 0xffff), false),
                (udp(53, 0xfdff), true),
                (udp(54, 0xfe00), true),
                (frame(ETH_P_ARP, &[0; 28]), true),
            ] {
                nix::unistd::write(&world, &sent).unwrap();
                let heard = std::iter::from_fn(|| hear(&guest)).any(|heard| heard[12..] == sent[12..]);
                assert_eq!(heard, reaches, "{sent:?}");
            }
        });
    }

    #[test]
    fn what_a_machine_that_is_gone_has_left_is_known_and_cleared() {
        alone(|| {
            let mut netlink = Netlink::open().unwrap();
            let world = Tun::open().unwrap().make().unwrap();
            let guest = Tun::open().unwrap().make().unwrap();
            set_up(&mut netlink, world.index).unwrap();
            join(&mut netlink, &guest, world.index, 1500).unwrap();
            spare_answers(&mut netlink, &guest, world.index).unwrap();
            assert!(!is_abandoned(&mut netlink, world.index).unwrap());
            drop(guest);
            assert!(is_abandoned(&mut netlink, world.index).unwrap());
            clear_abandoned(&File::open("/proc/thread-self/ns/net").unwrap()).unwrap();
            let next = Tun::open().unwrap().make().unwrap();
            join(&mut netlink, &next, world.index, 1500).unwrap();
            // A filter of somebody else's is nobody's traces.
            part(&mut netlink, world.index);
            ingress(&mut netlink, world.index).unwrap();
            assert!(!is_abandoned(&mut netlink, world.index).unwrap());
        });
    }
}
