//! What is in a network namespace: interfaces with their addresses, routes and neighbours.
//!
//! Addresses, routes and neighbours are kept as the kernel words them ([`Record`]): its fixed part and its attributes,
//! without what changes by itself (life times, counters) and without what belongs to this kernel alone (flags of the
//! moment). Two records are the same if they are equal. Only the interfaces' numbers in them have to be translated for
//! another kernel ([`Record::for_interfaces`]).

use super::netlink::Netlink;
use super::netlink::message::{Attributes, Message, half, number, text};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// One look at a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Interfaces by number.
    pub links: BTreeMap<u32, Link>,
    /// Addresses, then routes without and with a gateway, then neighbours: in an order in which they can be set.
    pub records: Vec<Record>,
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// ARPHRD_*.
    pub kind: u16,
    /// Its own address, if it is an Ethernet address.
    pub mac: Option<[u8; 6]>,
    /// Most bytes of a packet.
    pub mtu: u32,
    /// Whether it has been brought up.
    pub up: bool,
    /// Whether it is a port of a bridge or a bond.
    pub enslaved: bool,
}

/// An address, a route or a neighbour.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// What, and its place in the order of setting.
    pub rank: Rank,
    /// The fixed part. Where it names an interface, it is this kernel's number.
    pub fixed: Vec<u8>,
    /// The attributes.
    pub attributes: Vec<(u16, Vec<u8>)>,
}

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// An address.
    Address,
    /// A route to what is on the link.
    NearRoute,
    /// A route by way of a gateway.
    FarRoute,
    /// A neighbour that somebody set.
    Neighbour,
}

impl Snapshot {
    /// Looks at the namespace of `netlink`: at its interfaces, and only if `wanted` says so of one of them at the rest.
    pub fn take(netlink: &mut Netlink, wanted: impl Fn(u32, &Link) -> bool) -> io::Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        let mut links = BTreeMap::new();
        netlink.dump(Message::new(libc::RTM_GETLINK, &[0; LINK]), |kind, payload| {
            if kind == libc::RTM_NEWLINK {
                links.extend(link(payload));
            }
        })?;
        snapshot.links = links;
        if !snapshot.links.iter().any(|(index, link)| wanted(*index, link)) {
            return Ok(snapshot);
        }
        let questions =
            [(libc::RTM_GETADDR, ADDRESS), (libc::RTM_GETROUTE, ROUTE), (libc::RTM_GETNEIGH, NEIGHBOUR)];
        let mut connected = BTreeSet::new();
        for (question, fixed) in questions {
            let fixed = vec![0; fixed];
            netlink.dump(Message::new(question, &fixed), |kind, payload| {
                if kind == libc::RTM_NEWROUTE {
                    connected.extend(connected_route(payload));
                }
                snapshot.records.extend(match kind {
                    libc::RTM_NEWADDR => address(payload),
                    libc::RTM_NEWROUTE => route(payload),
                    libc::RTM_NEWNEIGH => neighbour(payload),
                    _ => None,
                });
            })?;
        }
        snapshot.mark_unconnected(&connected);
        // What is set first prevails over its like that come later, in the order in which the kernel tells of them.
        snapshot.records.sort_by_key(|record| record.rank);
        Ok(snapshot)
    }
}

impl Snapshot {
    /// With an address comes a route to its network, which the kernel makes; where somebody has removed that route (as
    /// some network plug-ins do), it must not be made elsewhere either.
    fn mark_unconnected(&mut self, connected: &BTreeSet<Connected>) {
        for record in self.records.iter_mut().filter(|record| record.rank == Rank::Address) {
            let up =
                number(&record.fixed, 4).and_then(|index| self.links.get(&index)).is_some_and(|link| link.up);
            let Some(wanted) = record.network().filter(|_| up) else { continue };
            if connected.contains(&wanted) {
                continue;
            }
            for (kind, value) in &mut record.attributes {
                if *kind == IFA_FLAGS {
                    let flags = number(value, 0).unwrap_or(0) | libc::IFA_F_NOPREFIXROUTE;
                    *value = flags.to_ne_bytes().to_vec();
                }
            }
        }
    }
}

/// A network on a link: interface, length of the prefix, prefix.
type Connected = (u32, u8, Vec<u8>);

impl Record {
    /// The network to which an address makes its kernel make a route.
    fn network(&self) -> Option<Connected> {
        let length = *self.fixed.get(1)?;
        let value = |wanted| self.attributes.iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        let mut prefix = value(libc::IFA_ADDRESS)?.clone();
        let own = value(libc::IFA_LOCAL).is_none_or(|local| *local == prefix);
        if own && usize::from(length) >= prefix.len().saturating_mul(8) {
            return None;
        }
        for (at, byte) in prefix.iter_mut().enumerate() {
            let bits = usize::from(length).saturating_sub(at.saturating_mul(8)).min(8);
            *byte &= u8::try_from(0xff00_u16 >> bits & 0xff).unwrap_or(0);
        }
        Some((number(&self.fixed, 4)?, length, prefix))
    }

    /// The record in the words of a kernel that numbers its interfaces as `of` says; `None` if it concerns an
    /// interface that is not there.
    pub fn for_interfaces(&self, of: impl Fn(u32) -> Option<u32>) -> Option<Record> {
        let mut record = self.clone();
        match self.rank {
            Rank::Address | Rank::Neighbour => {
                translate(&mut record.fixed, 4, &of)?;
            }
            Rank::NearRoute | Rank::FarRoute => {
                for (kind, value) in &mut record.attributes {
                    match *kind {
                        libc::RTA_OIF => translate(value, 0, &of)?,
                        libc::RTA_MULTIPATH => translate_hops(value, &of)?,
                        _ => {}
                    }
                }
            }
        }
        Some(record)
    }

    /// The request that sets it. There can be several routes to one place that differ in their way alone: one more comes
    /// before the others, and one that is there already ends with EEXIST.
    pub fn set(&self) -> Message {
        let (kind, flags) = match self.rank {
            Rank::Address => (libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_REPLACE),
            Rank::NearRoute | Rank::FarRoute => (libc::RTM_NEWROUTE, libc::NLM_F_CREATE),
            Rank::Neighbour => (libc::RTM_NEWNEIGH, libc::NLM_F_CREATE | libc::NLM_F_REPLACE),
        };
        self.message(kind).flags(flags)
    }

    /// The request that takes it away.
    pub fn unset(&self) -> Message {
        self.message(match self.rank {
            Rank::Address => libc::RTM_DELADDR,
            Rank::NearRoute | Rank::FarRoute => libc::RTM_DELROUTE,
            Rank::Neighbour => libc::RTM_DELNEIGH,
        })
    }

    fn message(&self, kind: u16) -> Message {
        let message = Message::new(kind, &self.fixed);
        self.attributes.iter().fold(message, |message, (kind, value)| message.attribute(*kind, value))
    }
}

/// Changes the interface's number at `at`.
fn translate(bytes: &mut [u8], at: usize, of: impl Fn(u32) -> Option<u32>) -> Option<()> {
    let to = of(number(bytes, at)?)?;
    bytes.get_mut(at..at.checked_add(4)?)?.copy_from_slice(&to.to_ne_bytes());
    Some(())
}

/// Changes the interfaces' numbers in a list of `struct rtnexthop` (length, flags, hops, interface, attributes).
fn translate_hops(mut bytes: &mut [u8], of: impl Fn(u32) -> Option<u32>) -> Option<()> {
    while !bytes.is_empty() {
        let length = usize::from(half(bytes, 0)?);
        // Flags of the moment.
        *bytes.get_mut(2)? &= ONLINK;
        translate(bytes, 4, &of)?;
        let length = length.next_multiple_of(4).max(HOP).min(bytes.len());
        bytes = bytes.get_mut(length..)?;
    }
    Some(())
}

/// `struct ifinfomsg`: family, padding, kind (16 bits), index, flags, change.
fn link(payload: &[u8]) -> Option<(u32, Link)> {
    let index = number(payload, 4)?;
    let up = number(payload, 8)? & libc::IFF_UP.cast_unsigned() != 0;
    let mut link =
        Link { name: String::new(), kind: half(payload, 2)?, mac: None, mtu: 0, up, enslaved: false };
    for (kind, value) in Attributes::behind(payload, LINK) {
        match kind {
            libc::IFLA_IFNAME => link.name = text(value),
            libc::IFLA_ADDRESS => link.mac = value.try_into().ok(),
            libc::IFLA_MTU => link.mtu = number(value, 0)?,
            libc::IFLA_MASTER => link.enslaved = true,
            _ => {}
        }
    }
    Some((index, link))
}

/// `struct ifaddrmsg`: family, prefix length, flags, scope, index.
fn address(payload: &[u8]) -> Option<Record> {
    let mut fixed = payload.get(..ADDRESS)?.to_vec();
    let version_6 = i32::from(*fixed.first()?) == libc::AF_INET6;
    let mut attributes = Vec::new();
    let mut flags = u32::from(*fixed.get(2)?);
    for (kind, value) in Attributes::behind(payload, ADDRESS) {
        match kind {
            libc::IFA_ADDRESS | libc::IFA_LOCAL | libc::IFA_BROADCAST | IFA_RT_PRIORITY => {
                attributes.push((kind, value.to_vec()));
            }
            IFA_FLAGS => flags = number(value, 0)?,
            _ => {}
        }
    }
    // One that turned out to be somebody else's is not ours.
    if flags & libc::IFA_F_DADFAILED != 0 {
        return None;
    }
    let mut kept = flags & (libc::IFA_F_NOPREFIXROUTE | libc::IFA_F_HOMEADDRESS | libc::IFA_F_MCAUTOJOIN);
    if version_6 {
        // This kernel has looked, or was told not to, whether anybody else has it.
        kept |= libc::IFA_F_NODAD;
    }
    *fixed.get_mut(2)? = 0;
    attributes.push((IFA_FLAGS, kept.to_ne_bytes().to_vec()));
    attributes.sort();
    Some(Record { rank: Rank::Address, fixed, attributes })
}

/// `struct rtmsg`: family, destination and source length, type of service, table, protocol, scope, type, flags.
fn route(payload: &[u8]) -> Option<Record> {
    let mut fixed = payload.get(..ROUTE)?.to_vec();
    let (table, protocol, kind) = (*fixed.get(4)?, *fixed.get(5)?, *fixed.get(7)?);
    let flags = number(&fixed, 8)?;
    // What the kernel makes by itself it makes by itself elsewhere too; what lies behind a redirect is of the moment.
    if matches!(protocol, libc::RTPROT_KERNEL | libc::RTPROT_REDIRECT)
        || table == libc::RT_TABLE_LOCAL
        || flags & libc::RTM_F_CLONED != 0
        || !ROUTES.contains(&kind)
    {
        return None;
    }
    let mut attributes = Vec::new();
    let mut rank = Rank::NearRoute;
    for (kind, value) in Attributes::behind(payload, ROUTE) {
        match kind {
            libc::RTA_GATEWAY | RTA_VIA | libc::RTA_MULTIPATH => rank = Rank::FarRoute,
            libc::RTA_DST
            | libc::RTA_SRC
            | libc::RTA_OIF
            | libc::RTA_PRIORITY
            | libc::RTA_PREFSRC
            | libc::RTA_METRICS
            | RTA_PREF => {}
            libc::RTA_TABLE if number(value, 0) == Some(u32::from(libc::RT_TABLE_LOCAL)) => return None,
            libc::RTA_TABLE => {}
            // Made of objects that would have to be made first.
            RTA_ENCAP | RTA_NH_ID => return None,
            _ => continue,
        }
        attributes.push((kind, value.to_vec()));
    }
    let kept = flags & u32::from(ONLINK);
    fixed.get_mut(8..ROUTE)?.copy_from_slice(&kept.to_ne_bytes());
    attributes.sort();
    Some(Record { rank, fixed, attributes })
}

/// A route that the kernel made for an address.
fn connected_route(payload: &[u8]) -> Option<Connected> {
    if *payload.get(5)? != libc::RTPROT_KERNEL || *payload.get(4)? == libc::RT_TABLE_LOCAL {
        return None;
    }
    let (mut interface, mut prefix) = (None, None);
    for (kind, value) in Attributes::behind(payload, ROUTE) {
        match kind {
            libc::RTA_OIF => interface = number(value, 0),
            libc::RTA_DST => prefix = Some(value.to_vec()),
            _ => {}
        }
    }
    Some((interface?, *payload.get(1)?, prefix?))
}

/// `struct ndmsg`: family, padding, index, state (16 bits), flags, type.
fn neighbour(payload: &[u8]) -> Option<Record> {
    let fixed = payload.get(..NEIGHBOUR)?.to_vec();
    let family = i32::from(*fixed.first()?);
    if half(&fixed, 8)? & libc::NUD_PERMANENT == 0 || !matches!(family, libc::AF_INET | libc::AF_INET6) {
        return None;
    }
    let attributes = Attributes::behind(payload, NEIGHBOUR)
        .filter(|(kind, _)| matches!(*kind, libc::NDA_DST | libc::NDA_LLADDR))
        .map(|(kind, value)| (kind, value.to_vec()))
        .collect();
    Some(Record { rank: Rank::Neighbour, fixed, attributes })
}

/// Lengths of the fixed parts.
const LINK: usize = 16;
const ADDRESS: usize = 8;
const ROUTE: usize = 12;
const NEIGHBOUR: usize = 12;
const HOP: usize = 8;

// linux/if_addr.h, linux/rtnetlink.h; not in the libc crate.
const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;
const RTA_VIA: u16 = 18;
const RTA_PREF: u16 = 20;
const RTA_ENCAP: u16 = 22;
const RTA_NH_ID: u16 = 30;
/// RTNH_F_ONLINK.
const ONLINK: u8 = 4;
/// Unicast, blackhole, unreachable, prohibit, throw.
const ROUTES: [u8; 5] = [1, 6, 7, 8, 9];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::netlink::message::put;

    fn payload(message: Message) -> Vec<u8> {
        message.finish(0, 0)[16..].to_vec()
    }

    #[test]
    fn an_address_is_kept_without_what_changes_by_itself() {
        let fixed = |flags| [libc::AF_INET as u8, 24, flags, 0, 7, 0, 0, 0];
        let seen = |flags: u8, life: u32| {
            let message = Message::new(libc::RTM_NEWADDR, &fixed(flags))
                .number(libc::IFA_LOCAL, 1)
                .number(libc::IFA_CACHEINFO, life)
                .number(IFA_FLAGS, flags.into());
            address(&payload(message)).unwrap()
        };
        assert_eq!(seen(0x80, 1), seen(0xc0, 2), "tentative and permanent are of the moment");
        let there = seen(0, 0).for_interfaces(|index| (index == 7).then_some(2)).unwrap();
        assert_eq!(there.fixed[4..], 2u32.to_ne_bytes());
        assert_eq!(seen(0, 0).for_interfaces(|_| None), None);
    }

    #[test]
    fn an_address_without_its_connected_route_is_told_without_one() {
        let of = |length: u8, last: u8| {
            let mut fixed = vec![libc::AF_INET as u8, length, 0, 0];
            fixed.extend(7u32.to_ne_bytes());
            let local = vec![10, 1, 2, last];
            let attributes =
                vec![(libc::IFA_ADDRESS, local.clone()), (libc::IFA_LOCAL, local), (IFA_FLAGS, vec![0; 4])];
            Record { rank: Rank::Address, fixed, attributes }
        };
        assert_eq!(of(24, 3).network(), Some((7, 24, vec![10, 1, 2, 0])));
        assert_eq!(of(23, 3).network(), Some((7, 23, vec![10, 1, 2, 0])));
        assert_eq!(of(31, 3).network(), Some((7, 31, vec![10, 1, 2, 2])));
        assert_eq!(of(32, 3).network(), None);
        let link = Link { name: "eth0".into(), kind: 1, mac: None, mtu: 1500, up: true, enslaved: false };
        let mut snapshot =
            Snapshot { links: BTreeMap::from([(7, link)]), records: vec![of(24, 3), of(25, 200)] };
        let fixed = [libc::AF_INET as u8, 24, 0, 0, 254, 2, 253, 1, 0, 0, 0, 0];
        let made = Message::new(libc::RTM_NEWROUTE, &fixed)
            .attribute(libc::RTA_DST, &[10, 1, 2, 0])
            .number(libc::RTA_OIF, 7);
        snapshot.mark_unconnected(&connected_route(&payload(made)).into_iter().collect());
        let flags = |record: &Record| number(&record.attributes[2].1, 0).unwrap();
        assert_eq!(flags(&snapshot.records[0]), 0);
        assert_eq!(flags(&snapshot.records[1]), libc::IFA_F_NOPREFIXROUTE);
    }

    #[test]
    fn routes_that_the_kernel_makes_itself_are_left_out() {
        let of = |table, protocol, kind| {
            let fixed = [libc::AF_INET as u8, 0, 0, 0, table, protocol, 0, kind, 0, 0, 0, 0];
            route(&payload(Message::new(libc::RTM_NEWROUTE, &fixed).number(libc::RTA_OIF, 3)))
        };
        assert!(of(254, 4, 1).is_some());
        assert!(of(254, 2, 1).is_none(), "connected");
        assert!(of(255, 4, 1).is_none(), "local table");
        assert!(of(254, 4, 5).is_none(), "multicast");
    }

    #[test]
    fn routes_to_the_link_come_before_those_by_way_of_a_gateway() {
        let fixed = [libc::AF_INET as u8, 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0];
        let near = Message::new(libc::RTM_NEWROUTE, &fixed).number(libc::RTA_DST, 9);
        let far = Message::new(libc::RTM_NEWROUTE, &fixed).number(libc::RTA_GATEWAY, 1);
        assert!(route(&payload(near)).unwrap() < route(&payload(far)).unwrap());
    }

    #[test]
    fn every_hop_of_a_route_is_translated() {
        let mut hops = Vec::new();
        for index in [5u32, 6] {
            hops.extend([16, 0, 0x11, 0]);
            hops.extend(index.to_ne_bytes());
            put(&mut hops, libc::RTA_GATEWAY, &[10, 0, 0, 1]);
        }
        let fixed = [libc::AF_INET as u8, 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0];
        let message = Message::new(libc::RTM_NEWROUTE, &fixed).attribute(libc::RTA_MULTIPATH, &hops);
        let record = route(&payload(message)).unwrap();
        let there = record.for_interfaces(|index| Some(index + 10)).unwrap();
        let (_, hops) = &there.attributes[0];
        assert_eq!((hops[4], hops[20], hops[2]), (15, 16, 0));
        assert_eq!(record.for_interfaces(|index| (index == 5).then_some(1)), None);
    }
}
