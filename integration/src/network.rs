//! A network on the test's machine: a bridge with network namespaces around it, as callers of a runtime make them.

use crate::{bundle::Bundle, runtime};
use serde_json::{Value, json};
use std::{
    fs::File,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A bridge, 10.N.0.1/24 and fd00:N::1/64 on the host's side. Gone on drop, with its namespaces.
pub struct Bridge {
    number: u32,
    /// Its interface.
    pub name: String,
    namespaces: Vec<String>,
    taps: Vec<String>,
}

impl Bridge {
    /// A new one.
    pub fn new() -> Bridge {
        let number = 100 + NEXT.fetch_add(1, Ordering::Relaxed);
        let bridge =
            Bridge { number, name: format!("it-br{number}"), namespaces: Vec::new(), taps: Vec::new() };
        let name = &bridge.name;
        ip(&format!("link add {name} type bridge"));
        ip(&format!("addr add {}/24 dev {name}", bridge.ipv4(1)));
        ip(&format!("addr add {}/64 dev {name} nodad", bridge.ipv6(1)));
        ip(&format!("link set {name} up"));
        bridge
    }

    /// The address of member `member`.
    pub fn ipv4(&self, member: u32) -> String {
        format!("10.{}.0.{member}", self.number)
    }

    /// The address of member `member`.
    pub fn ipv6(&self, member: u32) -> String {
        format!("fd00:{}::{member}", self.number)
    }

    /// A namespace with nothing but its loopback, up.
    pub fn namespace(&mut self) -> String {
        let name = format!("it-{}-{}", self.number, self.namespaces.len());
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
        self.namespaces.push(name.clone());
        name
    }

    /// Puts an interface called `interface` with the addresses of `member` into a namespace, and joins it to the bridge.
    pub fn plug(&self, namespace: &str, interface: &str, member: u32) {
        self.plug_bare(namespace, interface, member);
        ip(&format!("-n {namespace} addr add {}/24 dev {interface}", self.ipv4(member)));
        ip(&format!("-n {namespace} addr add {}/64 dev {interface} nodad", self.ipv6(member)));
    }

    /// The same, without addresses.
    pub fn plug_bare(&self, namespace: &str, interface: &str, member: u32) {
        let outside = self.port(member);
        ip(&format!("link add {outside} type veth peer name {interface} netns {namespace}"));
        ip(&format!("link set {outside} master {} up", self.name));
        ip(&format!("-n {namespace} link set {interface} up"));
    }

    /// A TAP that is a port of the bridge, for somebody who makes a guest of it: there until the bridge goes.
    pub fn tap(&mut self, member: u32) -> String {
        let name = self.port(member);
        ip(&format!("tuntap add dev {name} mode tap vnet_hdr"));
        ip(&format!("link set {name} master {} up", self.name));
        self.taps.push(name.clone());
        name
    }

    /// Removes the interface of a member.
    pub fn unplug(&self, member: u32) {
        ip(&format!("link del {}", self.port(member)));
    }

    /// Changes what the way from the host to a member carries: the bridge, its port, and the member's interface.
    pub fn set_mtu(&self, namespace: &str, interface: &str, member: u32, mtu: u32) {
        ip(&format!("-n {namespace} link set {interface} mtu {mtu}"));
        ip(&format!("link set {} mtu {mtu}", self.port(member)));
        ip(&format!("link set {} mtu {mtu}", self.name));
    }

    fn port(&self, member: u32) -> String {
        format!("itp{}-{member}", self.number)
    }
}

impl Default for Bridge {
    fn default() -> Bridge {
        Bridge::new()
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            let _ = Command::new("ip").args(["netns", "del", namespace]).status();
        }
        for link in self.taps.iter().chain([&self.name]) {
            let _ = Command::new("ip").args(["link", "del", link]).status();
        }
        // Ports go with their namespaces, a moment later.
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
}

/// Runs `ip`; the arguments are separated by spaces. What it printed.
#[track_caller]
pub fn ip(arguments: &str) -> String {
    let mut command = Command::new("ip");
    command.args(arguments.split_whitespace());
    runtime::run(command).ok().stdout
}

/// What is left in a namespace: links and queueing disciplines.
pub fn census(namespace: &str) -> String {
    let mut tc = Command::new("tc");
    tc.args(["-n", namespace, "qdisc"]);
    let links = ip(&format!("-n {namespace} -br link"));
    links + &runtime::run(tc).ok().stdout
}

/// Does something in a network namespace.
#[track_caller]
pub fn inside<T: Send>(namespace: &str, what: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(format!("/run/netns/{namespace}")).expect("it is there");
    std::thread::scope(|scope| {
        let enter = || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("root may");
            what()
        };
        scope.spawn(enter).join().expect("no panic")
    })
}

/// What a TAP has carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carried {
    /// Frames that the guest has sent.
    pub from_guest: Count,
    /// Frames that the guest's machine has fetched.
    pub to_guest: Count,
}

/// How much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Frames, whole or not yet cut.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Count {
    /// What came since `before`.
    pub fn since(self, before: Count) -> Count {
        Count { packets: self.packets - before.packets, bytes: self.bytes - before.bytes }
    }
}

/// What a TAP of a namespace has carried until now.
#[track_caller]
pub fn carried(namespace: &str, tap: &str) -> Carried {
    let links = ip(&format!("-n {namespace} -s -j link show dev {tap}"));
    let links: Value = serde_json::from_str(&links).expect("it is JSON");
    let count = |way: &str| {
        let number = |what: &str| links[0]["stats64"][way][what].as_u64().expect("a number");
        Count { packets: number("packets"), bytes: number("bytes") }
    };
    Carried { from_guest: count("rx"), to_guest: count("tx") }
}

impl Bundle {
    /// Has the container join a network namespace.
    pub fn join(&mut self, namespace: &str) {
        let namespaces = self.config["linux"]["namespaces"].as_array_mut().expect("runc writes a list");
        for entry in namespaces.iter_mut().filter(|entry| entry["type"] == "network") {
            entry["path"] = json!(format!("/run/netns/{namespace}"));
        }
    }

    /// Allows raw sockets and changes to the network.
    pub fn allow_network(&mut self) {
        for set in ["bounding", "effective", "permitted"] {
            let set = self.config["process"]["capabilities"][set].as_array_mut().expect("runc writes a list");
            set.extend([json!("CAP_NET_RAW"), json!("CAP_NET_ADMIN")]);
        }
    }
}
