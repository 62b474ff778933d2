//! What the guest has to be told so that its network is what the namespace's is. Pure: no socket, no guest.

use super::adopt::{Adopted, Inside};
use crate::host::netlink::message::{Message, Nest};
use crate::host::network::{Link, Record, Snapshot};
use husk_protocol::NetworkRequest;
use std::collections::{BTreeMap, BTreeSet};

/// Addresses, routes and neighbours in the guest's numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Told(BTreeSet<Record>);

impl Told {
    /// An interface of the guest's is gone, and with it everything that names it.
    pub fn forget(&mut self, index: u32) {
        self.0.retain(|record| record.for_interfaces(|other| (other != index).then_some(other)).is_some());
    }
}

/// Requests, in order, and what the guest has been told when they are done.
pub(super) fn requests(
    snapshot: &Snapshot,
    adopted: &BTreeMap<u32, Adopted>,
    told: &Told,
) -> (Vec<NetworkRequest>, Told) {
    let inside = |index: u32| adopted.get(&index)?.inside.as_ref();
    let pairs: Vec<(&Inside, &Link)> =
        snapshot.links.iter().filter_map(|(index, link)| Some((inside(*index)?, link))).collect();
    let mut requests = Vec::new();
    rename_apart(&pairs, &mut requests);
    pairs.iter().for_each(|(inside, link)| set_link(inside, link, &mut requests));

    let number = |index: u32| match index {
        LOOPBACK => Some(LOOPBACK),
        index => inside(index).map(|inside| inside.index),
    };
    let wanted: BTreeSet<Record> = snapshot
        .records
        .iter()
        .filter(|record| !is_of_loopback(record))
        .filter_map(|record| record.for_interfaces(number))
        .collect();
    // In reverse: routes before the addresses that they need.
    for record in told.0.difference(&wanted).collect::<Vec<_>>().into_iter().rev() {
        requests.push(request(record.unset(), true));
    }
    for record in wanted.difference(&told.0) {
        requests.push(request(record.set(), false));
    }
    (requests, Told(wanted))
}

/// If more than one interface changes its name, each gets one that nobody else has first: they may have swapped.
fn rename_apart(pairs: &[(&Inside, &Link)], requests: &mut Vec<NetworkRequest>) {
    let renamed: Vec<&Inside> =
        pairs.iter().filter(|(inside, link)| inside.name != link.name).map(|(inside, _)| *inside).collect();
    if renamed.len() > 1 {
        for inside in renamed {
            let apart = of_link(inside.index).text(libc::IFLA_IFNAME, &format!("husk{}", inside.index));
            requests.push(request(apart, false));
        }
    }
}

/// What is different of an interface itself.
fn set_link(inside: &Inside, link: &Link, requests: &mut Vec<NetworkRequest>) {
    let old = inside.link.as_ref();
    if old == Some(link) {
        return;
    }
    if old.is_none() {
        // Its addresses are the host's to give: it must not make one of its own.
        let own = Nest::new().nest(
            libc::AF_INET6 as u16,
            Nest::new().attribute(IFLA_INET6_ADDR_GEN_MODE, &[ADDR_GEN_MODE_NONE]),
        );
        requests.push(request(of_link(inside.index).nest(IFLA_AF_SPEC, own), true));
    }
    let mut message = of_link(inside.index);
    if inside.name != link.name || old.is_none() {
        message = message.text(libc::IFLA_IFNAME, &link.name);
    }
    if old.is_none_or(|old| old.mtu != link.mtu) {
        message = message.number(libc::IFLA_MTU, link.mtu);
    }
    if let Some(mac) = link.mac
        && old.is_some_and(|old| old.mac != link.mac)
    {
        message = message.attribute(libc::IFLA_ADDRESS, &mac);
    }
    requests.push(request(message, false));
    if old.is_some_and(|old| old.up) != link.up {
        requests.push(request(up_or_down(inside.index, link.up), false));
    }
}

/// Those of the loopback are made by the guest's kernel.
fn is_of_loopback(record: &Record) -> bool {
    use crate::host::network::Rank;
    let of_it = record.fixed.get(4..8).is_some_and(|index| index == LOOPBACK.to_ne_bytes());
    matches!(record.rank, Rank::Address | Rank::Neighbour) && of_it
}

fn of_link(index: u32) -> Message {
    let mut fixed = vec![0; 4];
    fixed.extend(index.to_ne_bytes());
    fixed.extend([0; 8]);
    Message::new(libc::RTM_NEWLINK, &fixed)
}

fn up_or_down(index: u32, up: bool) -> Message {
    let flag = libc::IFF_UP.cast_unsigned();
    let mut fixed = vec![0; 4];
    fixed.extend(index.to_ne_bytes());
    fixed.extend(if up { flag } else { 0 }.to_ne_bytes());
    fixed.extend(flag.to_ne_bytes());
    Message::new(libc::RTM_NEWLINK, &fixed)
}

fn request(message: Message, may_fail: bool) -> NetworkRequest {
    NetworkRequest { message: message.finish(libc::NLM_F_ACK, 0), may_fail }
}

/// The loopback's number in every namespace.
const LOOPBACK: u32 = 1;
// linux/if_link.h
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_MODE_NONE: u8 = 1;
