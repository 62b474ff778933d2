//! The network: what is in a container's network namespace is inside, from its start and as it changes.

use husk_integration::{
    bundle::{Bundle, Image},
    census::Census,
    network::{Bridge, census, ip},
    running::Running,
    runtime::{Output, Runtime, run as run_command},
    scenario::{run, size},
};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// What a container sees of its interfaces, in an order that does not depend on their numbers. Not the numbers, nor the
/// other end of a veth, nor flags of an address (nobody has to look for duplicates twice).
pub const LOOK: &str = r#"
for i in $(ls /sys/class/net); do
    echo "$i $(cat /sys/class/net/$i/address /sys/class/net/$i/mtu | tr '\n' ' ')"
    ip addr show dev $i | sed -n 's/^ *\(inet6* [^ ]*\( brd [^ ]*\)*\( scope [a-z]*\)\).*/\1/p' | sort
done
echo routes; ip route | sed 's/ *$//' | sort; ip -6 route | sed 's/ *$//' | sort
echo neighbours; ip neigh | grep PERM | sort
echo links; ip link | grep -c ','"#;

pub fn in_namespace(runtime: Runtime, namespace: &str, script: &str) -> Output {
    run(runtime, Image::Busybox, &["sh", "-c", script], |bundle| {
        bundle.join(namespace);
        bundle.allow_network();
    })
}

/// Waits until `look` gives what is wanted; how long that took.
#[track_caller]
pub fn within_a_second(wanted: &str, mut look: impl FnMut() -> String) {
    let limit = Duration::from_millis(size(1000, 5000));
    let begun = Instant::now();
    loop {
        let seen = look();
        if seen == wanted {
            eprintln!("seen after {} ms", begun.elapsed().as_millis());
            return;
        }
        assert!(begun.elapsed() < limit, "after {limit:?}: {seen:?} instead of {wanted:?}");
    }
}

/// A container that sleeps in a namespace.
pub fn asleep(namespace: &str) -> Running {
    asleep_in(Image::Busybox, namespace)
}

pub fn asleep_in(image: Image, namespace: &str) -> Running {
    let mut bundle = Bundle::new(image, &["sleep", "1000"]);
    bundle.join(namespace);
    bundle.allow_network();
    Running::new(bundle, Stdio::null(), Stdio::null())
}

pub fn exec(container: &Running, script: &str) -> String {
    let caps = ["--cap", "CAP_NET_RAW", "--cap", "CAP_NET_ADMIN"];
    let words = ["exec"].into_iter().chain(caps).chain([container.id.as_str(), "sh", "-c", script]);
    Runtime::Husk.call(words).ok().stdout
}

pub fn kill(mut container: Running) {
    Runtime::Husk.call(["kill", &container.id, "KILL"]).ok();
    assert_eq!(container.end(), 137);
}

#[test]
fn interfaces_addresses_routes_and_neighbours_are_as_under_runc() {
    let before = Census::take();
    let mut bridge = Bridge::new();
    let namespace = bridge.namespace();
    // The second one first: neither their order nor their numbers may matter.
    bridge.plug(&namespace, "eth1", 3);
    bridge.plug(&namespace, "eth0", 2);
    ip(&format!("-n {namespace} link set eth0 mtu 1400"));
    ip(&format!("-n {namespace} route add default via {} dev eth0", bridge.ipv4(1)));
    ip(&format!("-n {namespace} -6 route add default via {} dev eth0", bridge.ipv6(1)));
    ip(&format!("-n {namespace} route add 192.0.2.0/24 via {} dev eth1 metric 50", bridge.ipv4(9)));
    ip(&format!("-n {namespace} route add blackhole 198.51.100.0/24"));
    ip(&format!(
        "-n {namespace} neigh add {} lladdr 02:00:00:00:00:09 dev eth0 nud permanent",
        bridge.ipv4(9)
    ));
    let left = census(&namespace);
    let expected = in_namespace(Runtime::Runc, &namespace, LOOK).ok().stdout;
    let seen = in_namespace(Runtime::Husk, &namespace, LOOK).ok().stdout;
    assert_eq!(seen, expected);
    assert!(seen.contains("default via") && seen.contains("02:00:00:00:00:09"), "{seen}");
    assert_eq!(census(&namespace), left, "links and queueing disciplines");
    drop(bridge);
    before.assert_unchanged();
}

#[test]
fn without_an_interface_there_is_only_the_loopback() {
    let look = "ls /sys/class/net; ping -c 1 127.0.0.1 >/dev/null && echo pong";
    let output = run(Runtime::Husk, Image::Busybox, &["sh", "-c", look], Bundle::allow_network);
    assert_eq!(output.ok().stdout, "lo\npong\n");
}

#[test]
fn the_hosts_network_is_refused_with_what_to_use_instead() {
    for path in [None, Some("/proc/1/ns/net")] {
        let output = run(Runtime::Husk, Image::Busybox, &["true"], |bundle| {
            let list = bundle.config["linux"]["namespaces"].as_array_mut().expect("a list");
            match path {
                None => list.retain(|entry| entry["type"] != "network"),
                Some(path) => {
                    let of_network = list.iter_mut().filter(|entry| entry["type"] == "network");
                    of_network.for_each(|entry| entry["path"] = path.into());
                }
            }
        });
        assert_eq!(output.code, 1);
        assert!(output.stderr.contains("docker run --network bridge"), "{}", output.stderr);
    }
}

#[test]
fn bytes_arrive_whole_both_ways() {
    let mut bridge = Bridge::new();
    let namespace = bridge.namespace();
    bridge.plug(&namespace, "eth0", 2);
    let bytes: Vec<u8> =
        (0..size(256 << 20, 4 << 20)).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let container = asleep(&namespace);
    for address in [bridge.ipv4(1), bridge.ipv6(1)] {
        // Out: it sends back what it gets, so both directions carry all of it.
        let listener = TcpListener::bind((address.as_str(), 0)).expect("the bridge has that address");
        let port = listener.local_addr().expect("it is bound").port();
        let serving = {
            let bytes = bytes.clone();
            std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("the container connects");
                let mut writer = stream.try_clone().expect("a descriptor");
                let begun = Instant::now();
                let length = bytes.len();
                let sending = std::thread::spawn(move || {
                    writer.write_all(&bytes).expect("it is taken");
                    writer.shutdown(std::net::Shutdown::Write).expect("it is open");
                });
                let mut back = Vec::new();
                stream.read_to_end(&mut back).expect("it comes back");
                sending.join().expect("all was sent");
                let rate = length as f64 / begun.elapsed().as_secs_f64() / 1e6;
                eprintln!("{rate:.1} MB/s each way at once");
                back
            })
        };
        exec(&container, &format!("nc {address} {port} -e cat"));
        assert!(serving.join().expect("no panic") == bytes);
    }
    // In.
    exec(&container, "nc -l -p 7000 -e cat >/dev/null 2>&1 & sleep 0.2");
    let mut stream = TcpStream::connect((bridge.ipv4(2), 7000)).expect("the container listens");
    stream.write_all(b"hello").expect("it is taken");
    stream.shutdown(std::net::Shutdown::Write).expect("it is open");
    let mut back = String::new();
    stream.read_to_string(&mut back).expect("it comes back");
    assert_eq!(back, "hello");
    kill(container);
}

#[test]
fn what_changes_in_the_namespace_changes_inside() {
    let before = Census::take();
    let mut bridge = Bridge::new();
    let namespace = bridge.namespace();
    let container = asleep(&namespace);
    let names = || exec(&container, "ls /sys/class/net | tr '\\n' ' '");
    assert_eq!(names(), "lo ");
    // It comes, as Docker brings it: under another name at first.
    bridge.plug(&namespace, "veth0", 2);
    ip(&format!("-n {namespace} link set veth0 name eth0"));
    ip(&format!("-n {namespace} route add default via {}", bridge.ipv4(1)));
    within_a_second("eth0 lo ", names);
    let ping = format!("ping -c 1 -w 5 {} >/dev/null && echo pong", bridge.ipv4(1));
    assert_eq!(exec(&container, &ping), "pong\n");
    // A second one; the first gets another address, MTU and MAC.
    bridge.plug(&namespace, "eth1", 3);
    within_a_second("eth0 eth1 lo ", names);
    ip(&format!("-n {namespace} addr del {}/24 dev eth0", bridge.ipv4(2)));
    ip(&format!("-n {namespace} addr add {}/24 dev eth0", bridge.ipv4(7)));
    ip(&format!("-n {namespace} link set eth0 mtu 1300 address 02:00:00:00:00:07"));
    let wanted = format!("inet {}/24 1300 02:00:00:00:00:07 ", bridge.ipv4(7));
    within_a_second(&wanted, || {
        exec(
            &container,
            "ip -4 addr show dev eth0 | sed -n 's/^ *\\(inet [^ ]*\\).*/\\1/p' | tr '\\n' ' '
             cat /sys/class/net/eth0/mtu /sys/class/net/eth0/address | tr '\\n' ' '",
        )
    });
    ip(&format!("-n {namespace} link del eth1"));
    within_a_second("eth0 lo ", names);
    // Removed while traffic flows, and back, and again, more often than there are slots.
    exec(&container, &format!("ping -i 0.01 {} >/dev/null 2>&1 &", bridge.ipv4(1)));
    for _ in 0..size(20, 10) {
        bridge.unplug(2);
        within_a_second("lo ", names);
        bridge.plug(&namespace, "eth0", 2);
        within_a_second("eth0 lo ", names);
    }
    assert_eq!(exec(&container, &ping), "pong\n");
    kill(container);
    drop(bridge);
    before.assert_unchanged();
}

#[test]
fn a_namespace_can_be_used_again_however_its_machine_ended() {
    let mut bridge = Bridge::new();
    let namespace = bridge.namespace();
    bridge.plug(&namespace, "eth0", 2);
    let left = census(&namespace);
    let ping = format!("ping -c 1 -w 5 {} >/dev/null && echo pong", bridge.ipv4(1));

    let mut container = asleep(&namespace);
    // Not by two at once.
    let second = in_namespace(Runtime::Husk, &namespace, "true");
    assert_eq!(second.code, 1);
    assert!(second.stderr.contains("another machine uses this network namespace"), "{}", second.stderr);
    assert_eq!(exec(&container, &ping), "pong\n", "the first one is as it was");

    nix::sys::signal::kill(nix::unistd::Pid::from_raw(container.pid), nix::sys::signal::Signal::SIGKILL)
        .expect("it runs");
    container.end();
    Runtime::Husk.call(["delete", "--force", &container.id]).ok();
    drop(container);
    assert_eq!(census(&namespace), left, "delete has cleared it");
    assert_eq!(in_namespace(Runtime::Husk, &namespace, &ping).ok().stdout, "pong\n");
    assert_eq!(census(&namespace), left);
}

#[test]
fn what_cannot_be_adopted_fails_with_a_reason_and_leaves_nothing() {
    let before = Census::take();
    let mut bridge = Bridge::new();
    let namespace = bridge.namespace();
    for member in 0..9 {
        bridge.plug_bare(&namespace, &format!("eth{member}"), member + 2);
    }
    let left = census(&namespace);
    let output = in_namespace(Runtime::Husk, &namespace, "true");
    assert_eq!(output.code, 1);
    assert!(output.stderr.contains("a container has at most 8"), "{}", output.stderr);
    assert_eq!(census(&namespace), left);
    // Somebody's own filter.
    ip(&format!("-n {namespace} link del eth8"));
    let mut tc = Command::new("tc");
    tc.args(["-n", &namespace, "qdisc", "add", "dev", "eth0", "ingress"]);
    run_command(tc).ok();
    let left = census(&namespace);
    let output = in_namespace(Runtime::Husk, &namespace, "true");
    assert_eq!(output.code, 1);
    assert!(output.stderr.contains("a traffic filter was put there"), "{}", output.stderr);
    assert_eq!(census(&namespace), left);
    drop(bridge);
    before.assert_unchanged();
}

#[test]
fn a_namespace_that_is_none_is_refused() {
    let directory = std::env::temp_dir().join(format!("husk-it-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("it can be made");
    let pipe = directory.join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).expect("it can be made");
    // A pipe that nobody writes to, and whose opening waits for that, among them.
    for (path, words) in [
        ("/run/netns/nothing", "no such file"),
        ("/etc/hostname", "/etc/hostname is not a network namespace"),
        ("/proc/1/ns/mnt", "/proc/1/ns/mnt is not a network namespace"),
        ("/dev/null", "/dev/null is not a network namespace"),
        ("/run", "/run is not a network namespace"),
        (pipe.to_str().expect("it is text"), "is not a network namespace"),
    ] {
        let output = run(Runtime::Husk, Image::Busybox, &["true"], |bundle| {
            let list = bundle.config["linux"]["namespaces"].as_array_mut().expect("a list");
            let of_network = list.iter_mut().filter(|entry| entry["type"] == "network");
            of_network.for_each(|entry| entry["path"] = path.into());
        });
        assert_eq!(output.code, 1, "{path}");
        assert!(output.stderr.to_lowercase().contains(words), "{path}: {}", output.stderr);
    }
    std::fs::remove_dir_all(directory).expect("it can be removed");
}

#[test]
fn without_a_tun_device_an_interface_is_refused_and_nothing_else() {
    let before = Census::take();
    let mut bridge = Bridge::new();
    let namespace = bridge.namespace();
    let run = |script: &str| {
        let mut bundle = Bundle::new(Image::Busybox, &["sh", "-c", "ls /sys/class/net"]);
        bundle.join(&namespace);
        // In a mount namespace: others on this machine may need it.
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &format!("{script} && exec \"$@\""), "sh"]);
        command.arg(Runtime::Husk.program()).args(["run", "-b"]).arg(bundle.write());
        command.arg(husk_integration::scenario::fresh_id());
        run_command(command)
    };
    let nothing = "mount -t tmpfs none /dev/net";
    assert_eq!(run(nothing).ok().stdout, "lo\n", "without an interface it is not needed");
    bridge.plug(&namespace, "eth0", 2);
    let left = census(&namespace);
    for script in [nothing, "mount --bind /dev/null /dev/net/tun"] {
        let output = run(script);
        assert_eq!(output.code, 1, "{script}");
        let words = "cannot make a TAP for the interface eth0: this takes /dev/net/tun";
        assert!(output.stderr.contains(words), "{script}: {}", output.stderr);
        assert_eq!(census(&namespace), left, "{script}");
    }
    assert_eq!(run("true").ok().stdout, "eth0\nlo\n");
    drop(bridge);
    before.assert_unchanged();
}

#[test]
fn an_interface_without_an_address_or_that_is_down_is_as_under_runc() {
    let mut bridge = Bridge::new();
    let namespace = bridge.namespace();
    bridge.plug_bare(&namespace, "eth0", 2);
    bridge.plug_bare(&namespace, "eth1", 3);
    ip(&format!("-n {namespace} link set eth1 down"));
    // Its address of version 6 that the kernel makes is looked for twice, which takes a moment.
    while ip(&format!("-n {namespace} addr")).contains("tentative") {
        std::thread::sleep(Duration::from_millis(50));
    }
    let look = format!(
        "{LOOK}; for i in eth0 eth1; do ip link show $i | grep -q ',UP' && echo up || echo down; done"
    );
    let expected = in_namespace(Runtime::Runc, &namespace, &look).ok().stdout;
    assert_eq!(in_namespace(Runtime::Husk, &namespace, &look).ok().stdout, expected);
    assert!(expected.contains("fe80::") && expected.ends_with("up\ndown\n"), "{expected}");
}

#[test]
fn an_interface_too_many_waits_for_another_to_go() {
    let before = Census::take();
    let mut bridge = Bridge::new();
    let namespace = bridge.namespace();
    for member in 0..8 {
        bridge.plug_bare(&namespace, &format!("eth{member}"), member + 2);
    }
    let container = asleep(&namespace);
    let names = || exec(&container, "echo $(ls /sys/class/net)");
    assert_eq!(names(), "eth0 eth1 eth2 eth3 eth4 eth5 eth6 eth7 lo\n");
    // The ninth is not had, and keeps nobody from following what becomes of the others.
    bridge.plug_bare(&namespace, "eth8", 10);
    ip(&format!("-n {namespace} link set eth3 down"));
    ip(&format!("-n {namespace} link set eth3 name last"));
    within_a_second("eth0 eth1 eth2 eth4 eth5 eth6 eth7 last lo\n", names);
    bridge.unplug(4);
    within_a_second("eth0 eth1 eth4 eth5 eth6 eth7 eth8 last lo\n", names);
    kill(container);
    drop(bridge);
    before.assert_unchanged();
}

#[test]
fn two_containers_on_a_network_reach_each_other() {
    let mut bridge = Bridge::new();
    let (first, second) = (bridge.namespace(), bridge.namespace());
    bridge.plug(&first, "eth0", 2);
    bridge.plug(&second, "eth0", 3);
    let listening = asleep(&first);
    exec(&listening, "nc -l -p 7000 -e echo hello >/dev/null 2>&1 & sleep 0.2");
    let output = in_namespace(Runtime::Husk, &second, &format!("nc {} 7000", bridge.ipv4(2)));
    assert_eq!(output.ok().stdout, "hello\n");
    kill(listening);
}
