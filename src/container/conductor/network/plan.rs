//! What the guest has to be told so that its network is what the namespace's is. Pure: no socket, no guest.

use super::adopt::Inside;
use crate::host::netlink::message::{Message, Nest};
use crate::host::network::{Link, Rank, Record, Snapshot};
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

/// Requests, in order, and what the guest has been told when they are done. `insides` by the interfaces' numbers on the host.
pub(super) fn requests(
    snapshot: &Snapshot,
    insides: &BTreeMap<u32, &Inside>,
    told: &Told,
) -> (Vec<NetworkRequest>, Told) {
    let pairs: Vec<(&Inside, &Link)> =
        snapshot.links.iter().filter_map(|(index, link)| Some((*insides.get(index)?, link))).collect();
    let mut requests = Vec::new();
    rename_apart(&pairs, &mut requests);
    pairs.iter().for_each(|(inside, link)| set_link(inside, link, &mut requests));

    let number = |index: u32| match index {
        LOOPBACK => Some(LOOPBACK),
        index => insides.get(&index).map(|inside| inside.index),
    };
    let known = snapshot.records.iter().filter(|record| !is_of_loopback(record));
    let mut ordered: Vec<Record> = known.filter_map(|record| record.for_interfaces(number)).collect();
    let wanted: BTreeSet<Record> = ordered.iter().cloned().collect();
    // In reverse: routes before the addresses that they need.
    for record in told.0.difference(&wanted).collect::<Vec<_>>().into_iter().rev() {
        requests.push(request(record.unset(), true));
    }
    // Each route comes before its like that is there already: so the last of them first.
    let routes = |record: &Record| matches!(record.rank, Rank::NearRoute | Rank::FarRoute);
    ordered.sort_by_key(|record| record.rank);
    ordered
        .chunk_by_mut(|one, other| one.rank == other.rank)
        .filter(|same| same.iter().all(routes))
        .for_each(<[Record]>::reverse);
    for record in ordered.iter().filter(|record| !told.0.contains(record)) {
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
    // A new one too: callers give an interface its address after they have put it into the namespace, and the device
    // may have been made before that.
    if let Some(mac) = link.mac
        && old.is_none_or(|old| old.mac != link.mac)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::netlink::message::{Attributes, Messages, number, text};

    fn link(name: &str, up: bool) -> Link {
        Link { name: name.into(), kind: 1, mac: Some([2, 0, 0, 0, 0, 1]), mtu: 1500, up, enslaved: false }
    }

    fn inside(index: u32, name: &str, told: Option<Link>) -> Inside {
        Inside { index, name: name.into(), link: told }
    }

    fn address(index: u32, last: u8) -> Record {
        let mut fixed = vec![libc::AF_INET as u8, 24, 0, 0];
        fixed.extend(index.to_ne_bytes());
        Record { rank: Rank::Address, fixed, attributes: vec![(libc::IFA_LOCAL, vec![10, 0, 0, last])] }
    }

    fn route(index: u32) -> Record {
        let fixed = vec![libc::AF_INET as u8, 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0];
        let attributes =
            vec![(libc::RTA_OIF, index.to_ne_bytes().to_vec()), (libc::RTA_GATEWAY, vec![10, 0, 0, 1])];
        Record { rank: Rank::FarRoute, fixed, attributes }
    }

    /// Kinds of requests, with the new name where one is given.
    fn words(requests: &[NetworkRequest]) -> Vec<(u16, u32, Option<String>)> {
        let one = |request: &NetworkRequest| {
            let message = Messages::of(&request.message).next().unwrap();
            let name = Attributes::behind(message.payload, 16).find(|(kind, _)| *kind == libc::IFLA_IFNAME);
            let name = name.filter(|_| message.kind == libc::RTM_NEWLINK).map(|(_, value)| text(value));
            (message.kind, number(message.payload, 4).unwrap(), name)
        };
        requests.iter().map(one).collect()
    }

    #[test]
    fn a_new_interface_is_named_then_up_then_addressed_then_routed() {
        let snapshot = Snapshot {
            links: BTreeMap::from([(7, link("net0", true))]),
            records: vec![address(7, 2), route(7)],
        };
        let eth0 = inside(2, "eth0", None);
        let (requests, told) = requests(&snapshot, &BTreeMap::from([(7, &eth0)]), &Told::default());
        let words = words(&requests);
        let kinds: Vec<u16> = words.iter().map(|(kind, ..)| *kind).collect();
        let new = libc::RTM_NEWLINK;
        assert_eq!(kinds, [new, new, new, libc::RTM_NEWADDR, libc::RTM_NEWROUTE]);
        assert!(words[..4].iter().all(|(_, index, _)| *index == 2), "the guest's number: {words:?}");
        assert_eq!(words[1].2.as_deref(), Some("net0"));
        let message = Messages::of(&requests[1].message).next().unwrap();
        let mac = Attributes::behind(message.payload, 16).find(|(kind, _)| *kind == libc::IFLA_ADDRESS);
        assert_eq!(mac.unwrap().1, [2, 0, 0, 0, 0, 1], "the device may have been made with another");
        let again = inside(2, "net0", Some(link("net0", true)));
        let (requests, same) = super::requests(&snapshot, &BTreeMap::from([(7, &again)]), &told);
        assert!(requests.is_empty() && same == told, "nothing has changed");
    }

    #[test]
    fn what_went_is_taken_away_before_what_came_is_set() {
        let links = BTreeMap::from([(7, link("eth0", true))]);
        let eth0 = inside(2, "eth0", Some(link("eth0", true)));
        let insides = BTreeMap::from([(7, &eth0)]);
        let old = Snapshot { links: links.clone(), records: vec![address(7, 2), route(7)] };
        let told = requests(&old, &insides, &Told::default()).1;
        let new = Snapshot { links, records: vec![address(7, 3)] };
        let (requests, told) = requests(&new, &insides, &told);
        let kinds: Vec<u16> = words(&requests).iter().map(|(kind, ..)| *kind).collect();
        assert_eq!(kinds, [libc::RTM_DELROUTE, libc::RTM_DELADDR, libc::RTM_NEWADDR]);
        assert!(requests[0].may_fail && requests[1].may_fail && !requests[2].may_fail);
        let mut told = told;
        told.forget(2);
        assert_eq!(told, Told::default());
    }

    /// The kernel puts each before the others, and takes the first.
    #[test]
    fn routes_to_one_place_by_two_ways_are_in_the_same_order_inside() {
        let links = BTreeMap::from([(7, link("eth0", true)), (8, link("eth1", true))]);
        let (eth0, eth1) = (inside(2, "eth0", None), inside(3, "eth1", None));
        let insides = BTreeMap::from([(7, &eth0), (8, &eth1)]);
        for first in [7, 8] {
            let records = vec![route(first), route(15 - first)];
            let (requests, told) =
                requests(&Snapshot { links: links.clone(), records }, &insides, &Told::default());
            let ways: Vec<u32> = requests
                .iter()
                .filter_map(|request| {
                    let message = Messages::of(&request.message).next().unwrap();
                    let way =
                        Attributes::behind(message.payload, 12).find(|(kind, _)| *kind == libc::RTA_OIF);
                    (message.kind == libc::RTM_NEWROUTE).then(|| number(way.unwrap().1, 0).unwrap())
                })
                .collect();
            assert_eq!(ways, [10 - first, first - 5], "the last is the first");
            assert_eq!(told.0.len(), 2);
        }
    }

    #[test]
    fn interfaces_that_swap_their_names_do_not_meet() {
        let links = BTreeMap::from([(7, link("eth1", true)), (8, link("eth0", true))]);
        let (one, other) = (inside(2, "eth0", None), inside(3, "eth1", None));
        let snapshot = Snapshot { links, records: Vec::new() };
        let (requests, _) = requests(&snapshot, &BTreeMap::from([(7, &one), (8, &other)]), &Told::default());
        let names: Vec<String> = words(&requests).into_iter().filter_map(|(_, _, name)| name).collect();
        assert_eq!(names, ["husk2", "husk3", "eth1", "eth0"]);
    }

    #[test]
    fn what_concerns_an_interface_that_is_not_the_guests_is_not_told() {
        let snapshot = Snapshot {
            links: BTreeMap::from([(7, link("tun0", true))]),
            records: vec![address(7, 2), route(7), address(1, 9)],
        };
        assert!(requests(&snapshot, &BTreeMap::new(), &Told::default()).0.is_empty());
    }
}
