//! What goes over a container's interfaces: much of it, large pieces of it, and what goes on when somebody does not listen.

use crate::o_network::{asleep, asleep_in, exec, kill};
use husk_integration::{
    bundle::{Bundle, Image},
    census::Census,
    created::Created,
    network::{Bridge, Count, carried, inside, ip},
    runtime::{Output, Runtime, code, wait},
    scenario::{fresh_id, run, size},
};
use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    socket::{setsockopt, sockopt},
};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Stdio,
    sync::Barrier,
    time::{Duration, Instant},
};

/// As many connections at once as are asked for, first to it, then from it; over each comes back what was sent.
/// Its end says how many. Arguments: its port, how many, bytes over each, the other end's address (4 bytes, in hex) and port.
const CROWD: &str = r#"
use Socket; $| = 1;
my ($port, $count, $length, $host, $there) = @ARGV;
socket my $listener, PF_INET, SOCK_STREAM, 0 or die $!;
bind $listener, pack_sockaddr_in($port, INADDR_ANY) or die $!;
listen $listener, 4096 or die $!;
sub take { my ($from, $got) = (shift, '');
    while (length $got < $length) { sysread $from, $got, $length - length $got, length $got or die "lost: $!" }
    $got }
sub give { my ($to, $bytes) = @_; syswrite($to, $bytes) == $length or die "lost: $!" }
print "listening\n";
my (@in, @out);
for (1 .. $count) { accept my $one, $listener or die $!; push @in, $one }
for (@in) { give $_, take $_ }
print scalar @in, " in\n";
for (1 .. $count) { socket my $one, PF_INET, SOCK_STREAM, 0 or die $!;
    connect $one, pack_sockaddr_in($there, pack 'H8', $host) or die $!; push @out, $one }
for my $at (0 .. $#out) { give $out[$at], pack "(A8)*", (sprintf "%08d", $at) x ($length / 8) }
for my $at (0 .. $#out) { take($out[$at]) eq pack "(A8)*", (sprintf "%08d", $at) x ($length / 8) or die "other bytes" }
print scalar @out, " out\n";
"#;

/// Bytes over each connection.
const EACH: usize = 1024;

#[test]
fn a_thousand_connections_at_once_lose_nothing() {
    let count: usize = 1000;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("it has a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(16_384), hard).expect("within what is allowed");
    for runtime in size(&[Runtime::Husk, Runtime::Runc][..], &[Runtime::Husk]) {
        let begun = Instant::now();
        assert_eq!(crowd(*runtime, count), format!("{count} in\n{count} out\n"));
        eprintln!("{runtime:?}: {:.1} s", begun.elapsed().as_secs_f64());
    }
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("it was so before");
}

/// What the container says at its end.
fn crowd(runtime: Runtime, count: usize) -> String {
    let mut bridge = Bridge::new();
    let namespace = bridge.namespace();
    bridge.plug(&namespace, "eth0", 2);
    let listener = TcpListener::bind((bridge.ipv4(1), 0)).expect("the bridge has that address");
    let IpAddr::V4(host) = listener.local_addr().expect("it is bound").ip() else {
        panic!("it is version 4")
    };
    let host: String = host.octets().iter().map(|byte| format!("{byte:02x}")).collect();
    let port = listener.local_addr().expect("it is bound").port().to_string();
    let (number, length) = (count.to_string(), EACH.to_string());
    let mut bundle =
        Bundle::new(Image::Debian, &["perl", "-e", CROWD, "7000", &number, &length, &host, &port]);
    bundle.join(&namespace);
    for limit in ["soft", "hard"] {
        bundle.set(&format!("/process/rlimits/0/{limit}"), 4096.into());
    }
    let mut child = runtime
        .command(["run".as_ref(), "-b".as_ref(), bundle.write().as_os_str(), fresh_id().as_ref()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it can be run");
    let mut said = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    said.read_line(&mut line).expect("it speaks");
    assert_eq!(line, "listening\n");

    let echo = std::thread::spawn(move || {
        let all: Vec<TcpStream> =
            (0..count).map(|_| listener.accept().expect("the container connects").0).collect();
        for mut one in &all {
            let mut bytes = [0; EACH];
            one.read_exact(&mut bytes).expect("nothing is lost");
            one.write_all(&bytes).expect("it is taken");
        }
        all
    });
    let (address, together) =
        (SocketAddr::new(bridge.ipv4(2).parse().expect("an address"), 7000), Barrier::new(count));
    std::thread::scope(|scope| {
        for at in 0..count {
            let together = &together;
            let visit = move || {
                let mut stream = TcpStream::connect(address).expect("the container accepts");
                let sent = [at.to_le_bytes(); EACH / 8].concat();
                stream.write_all(&sent).expect("it is taken");
                let mut back = vec![0; EACH];
                stream.read_exact(&mut back).expect("it comes back");
                assert!(back == sent, "other bytes");
                // None is closed before the last has its answer.
                together.wait();
            };
            std::thread::Builder::new().stack_size(128 << 10).spawn_scoped(scope, visit).expect("a thread");
        }
    });
    let mut rest = String::new();
    said.read_to_string(&mut rest).expect("it is text");
    drop(echo.join().expect("no panic"));
    assert_eq!(code(wait(&mut child, Duration::from_secs(60)).expect("it ends")), 0, "{rest}");
    rest
}

#[test]
fn datagrams_as_large_as_there_are_arrive_both_ways() {
    let mut bridge = Bridge::new();
    let namespace = bridge.namespace();
    bridge.plug(&namespace, "eth0", 2);
    // With the headers that is 64 KiB less one byte: in version 6 its own header does not count.
    for (host, most) in [(bridge.ipv4(1), 65_507_usize), (bridge.ipv6(1), 65_527)] {
        let socket = UdpSocket::bind((host.as_str(), 0)).expect("the bridge has that address");
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a time-out");
        let port = socket.local_addr().expect("it is bound").port();
        let rounds = size(200, 5);
        let echo = std::thread::spawn(move || {
            let mut datagram = vec![0; 70_000];
            for _ in 0..rounds {
                let (length, from) = socket.recv_from(&mut datagram).expect("it arrives");
                socket.send_to(&datagram[..length], from).expect("it is sent back");
            }
            socket
        });
        let perl = format!(
            "use IO::Socket::IP; my $s = IO::Socket::IP->new(Proto => 'udp', PeerHost => '{host}', PeerPort => {port}) or die $@;
             for my $n (1 .. {rounds}) {{
                 my $sent = substr pack('N*', map $_ * 2654435761 + $n, 1 .. 16400), 0, {most};
                 $s->send($sent) == {most} or die $!; $s->recv(my $back, 70000); $back eq $sent or die length $back }}
             print 'whole'"
        );
        let output =
            run(Runtime::Husk, Image::Debian, &["perl", "-e", &perl], |bundle| bundle.join(&namespace));
        assert_eq!(output.ok().stdout, "whole", "{most} bytes to {host}");
        echo.join().expect("no panic");
    }
}

/// Says how many bytes came, and what the kernel was told of the way: that packets were too large for it.
const SEND_FAR: &str = "
for far in 198.51.100.2 fd00:99::2; do
    head -c LENGTH /dev/zero | nc $far 7000; echo
done
awk '/^Icmp:/ && $5 + 0 > 0 {print \"told\"; exit}' /proc/net/snmp
awk '/^Icmp6InPktTooBigs/ && $2 + 0 > 0 {print \"told\"}' /proc/net/snmp6";

#[test]
fn a_smaller_mtu_on_the_way_is_found_out() {
    let length: u64 = size(64 << 20, 1 << 20);
    for runtime in [Runtime::Runc, Runtime::Husk] {
        // container --1500-- router --1300--> <--1500-- far: what is as large as the ends say does not get through.
        let mut bridge = Bridge::new();
        let (namespace, router, far) = (bridge.namespace(), bridge.namespace(), bridge.namespace());
        bridge.plug(&namespace, "eth0", 2);
        bridge.plug(&router, "eth0", 3);
        ip(&format!("link add far0 netns {router} mtu 1300 type veth peer name eth0 netns {far}"));
        for (namespace, interface, member) in [(&router, "far0", 1), (&far, "eth0", 2)] {
            ip(&format!("-n {namespace} addr add 198.51.100.{member}/24 dev {interface}"));
            ip(&format!("-n {namespace} addr add fd00:99::{member}/64 dev {interface} nodad"));
            ip(&format!("-n {namespace} link set {interface} up"));
        }
        for forwarding in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            let write = || std::fs::write(format!("/proc/sys/{forwarding}"), "1");
            inside(&router, write).expect("root may");
        }
        ip(&format!("-n {namespace} route add default via {}", bridge.ipv4(3)));
        ip(&format!("-n {namespace} -6 route add default via {}", bridge.ipv6(3)));
        ip(&format!("-n {far} route add default via 198.51.100.1"));
        ip(&format!("-n {far} -6 route add default via fd00:99::1"));
        let listener = inside(&far, || TcpListener::bind("[::]:7000").expect("nobody has it"));
        let counting = std::thread::spawn(move || {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().expect("it connects");
                let count = std::io::copy(&mut stream, &mut std::io::sink()).expect("it can be read");
                write!(stream, "{count}").expect("it is taken");
            }
            listener
        });
        let script = SEND_FAR.replace("LENGTH", &length.to_string());
        let output = run(runtime, Image::Busybox, &["sh", "-c", &script], |bundle| bundle.join(&namespace));
        assert_eq!(output.ok().stdout, format!("{length}\n{length}\ntold\ntold\n"), "{runtime:?}");
        counting.join().expect("no panic");
    }
}

#[test]
fn a_jumbo_frame_passes_whole() {
    let mut bridge = Bridge::new();
    let namespace = bridge.namespace();
    bridge.plug(&namespace, "eth0", 2);
    bridge.set_mtu(&namespace, "eth0", 2, 9000);
    let socket = UdpSocket::bind((bridge.ipv4(1), 7000)).expect("the bridge has that address");
    // IP_MTU_DISCOVER, IP_PMTUDISC_DO: in one piece or not at all. 9000 bytes with the headers.
    let perl = format!(
        "use IO::Socket::IP; my $s = IO::Socket::IP->new(Proto => 'udp', PeerHost => '{}', PeerPort => 7000) or die $@;
         setsockopt $s, 0, 10, pack 'i', 2 or die $!;
         print $s->send('x' x 8973) // $!, \"\\n\"; print $s->send('x' x 8972), \"\\n\"; $s->recv(my $back, 9000); print length $back",
        bridge.ipv4(1)
    );
    let echo = std::thread::spawn(move || {
        let mut datagram = vec![0; 70_000];
        let (length, from) = socket.recv_from(&mut datagram).expect("it arrives");
        // The route's MTU is the bridge's: it goes in one piece too.
        socket.send_to(&datagram[..length], from).expect("it is sent back");
        socket
    });
    let output = run(Runtime::Husk, Image::Debian, &["perl", "-e", &perl], |bundle| bundle.join(&namespace));
    assert_eq!(output.ok().stdout, "Message too long\n8972\n8972");
    echo.join().expect("no panic");
}

#[test]
fn a_stalled_peer_harms_nobody_else() {
    let (mut one, mut other) = (Bridge::new(), Bridge::new());
    let (busy, stalled, third) = (one.namespace(), other.namespace(), other.namespace());
    one.plug(&busy, "eth0", 2);
    other.plug(&busy, "eth1", 2);
    other.plug(&stalled, "eth0", 3);
    other.plug(&third, "eth0", 4);
    let before = Census::take();
    let (busy_one, stalled_one, third_one) = (asleep(&busy), asleep(&stalled), asleep(&third));
    let reached = |from: &husk_integration::running::Running, to: &str| {
        let all = exec(from, &format!("ping -c 5 -i 0.1 -w 60 {to}"));
        all.contains("5 packets received, 0% packet loss")
    };
    assert!(reached(&busy_one, &other.ipv4(3)) && reached(&third_one, &other.ipv4(3)), "all is well");

    // It takes nothing any more: what comes for it fills the TAP's queue of 1000.
    Runtime::Husk.call(["pause", &stalled_one.id]).ok();
    let flood = UdpSocket::bind((other.ipv4(1), 0)).expect("the bridge has that address");
    let target = (other.ipv4(3), 9);
    for at in 0..size(100_000, 5_000) {
        // The host may say that nobody is there; it is not to say that it cannot send.
        if let Err(error) = flood.send_to(&[0; 1400], &target) {
            assert!(error.raw_os_error() != Some(nix::libc::ENOBUFS), "{error} at {at}");
        }
    }
    // A second stalled peer: it has accepted, and does not read.
    let listener = TcpListener::bind((one.ipv4(1), 0)).expect("the bridge has that address");
    let port = listener.local_addr().expect("it is bound").port();
    exec(&busy_one, &format!("(cat /dev/zero | nc {} {port}) >/dev/null 2>&1 &", one.ipv4(1)));
    let (unread, _) = listener.accept().expect("it connects");
    // And a flood from the container, over the other interface, to the first.
    exec(&busy_one, &format!("(cat /dev/zero | nc -u {} 9) >/dev/null 2>&1 &", other.ipv4(3)));

    let begun = Instant::now();
    assert!(reached(&busy_one, &one.ipv4(1)), "over the interface with the connection that is not read");
    assert!(reached(&busy_one, &other.ipv4(1)), "over the interface with the flood");
    assert!(reached(&busy_one, &other.ipv4(4)), "from one container to the other");
    assert!(reached(&third_one, &other.ipv4(1)), "from the other");
    eprintln!("twenty answers in {:.1} s", begun.elapsed().as_secs_f64());

    exec(&busy_one, "killall nc");
    Runtime::Husk.call(["resume", &stalled_one.id]).ok();
    assert!(reached(&stalled_one, &other.ipv4(1)), "it is there again");
    drop(unread);
    [busy_one, stalled_one, third_one].into_iter().for_each(kill);
    drop((listener, flood));
    before.assert_unchanged();
}

#[test]
fn several_interfaces_each_carry_their_own() {
    let (mut one, other) = (Bridge::new(), Bridge::new());
    let namespace = one.namespace();
    one.plug(&namespace, "eth0", 2);
    other.plug(&namespace, "eth1", 2);
    let container = asleep(&namespace);
    let send = |address: &str, bytes: u32| {
        let listener = TcpListener::bind((address, 0)).expect("the bridge has that address");
        let port = listener.local_addr().expect("it is bound").port();
        let receiving = std::thread::spawn(move || {
            let (mut stream, from) = listener.accept().expect("it connects");
            (std::io::copy(&mut stream, &mut std::io::sink()).expect("it can be read"), from.ip().to_string())
        });
        exec(&container, &format!("head -c {bytes} /dev/zero | nc {address} {port}"));
        receiving.join().expect("no panic")
    };
    let bytes: u32 = size(64 << 20, 1 << 20);
    let sent = || ["husk0", "husk1"].map(|tap| carried(&namespace, tap).from_guest.bytes);
    let mut before = sent();
    for (address, from) in [
        (one.ipv4(1), one.ipv4(2)),
        (other.ipv4(1), other.ipv4(2)),
        (one.ipv6(1), one.ipv6(2)),
        (other.ipv6(1), other.ipv6(2)),
    ] {
        // As the standard library writes it.
        let from: IpAddr = from.parse().expect("an address");
        assert_eq!(send(&address, bytes), (bytes.into(), from.to_string()));
        let now = sent();
        let (first, second) = (now[0] - before[0], now[1] - before[1]);
        assert!(first.max(second) > u64::from(bytes) && first.min(second) < 10_000, "{first} {second}");
        before = now;
    }
    kill(container);
}

#[test]
fn two_vcpus_have_a_pair_of_queues_each() {
    let mut bridge = Bridge::new();
    let namespace = bridge.namespace();
    bridge.plug(&namespace, "eth0", 2);
    let before = Census::take();
    let mut bundle = Bundle::new(Image::Busybox, &["sleep", "1000"]);
    bundle.join(&namespace);
    bundle.allow_network();
    let config = bundle.path.join("husk.toml");
    std::fs::write(&config, "[machine]\nvcpus = 2\n").expect("it can be written");
    let container = Created::configured(bundle, &config);
    container.call("start", &[]).ok();
    let seen = container.sh("ls /sys/class/net/eth0/queues; nproc").ok().stdout;
    assert_eq!(seen, "rx-0\nrx-1\ntx-0\ntx-1\n2\n");
    let threads = || {
        let names = std::fs::read_dir(format!("/proc/{}/task", container.pid())).expect("it runs").flatten();
        let name =
            |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        names.map(name).filter(|name| name.starts_with("net-")).count()
    };
    assert_eq!(threads(), 2);

    // Many connections from both vcpus at once, and a pause in their midst.
    let (many, each) = (16, size(16 << 20, 256 << 10));
    let listener = TcpListener::bind((bridge.ipv4(1), 0)).expect("the bridge has that address");
    let port = listener.local_addr().expect("it is bound").port();
    let counting = std::thread::spawn(move || {
        let streams: Vec<TcpStream> = (0..many).map(|_| listener.accept().expect("it connects").0).collect();
        let count = |mut stream: TcpStream| {
            std::thread::spawn(move || {
                let count = std::io::copy(&mut stream, &mut std::io::sink()).expect("it can be read");
                write!(stream, "{count}").expect("it is taken");
                count
            })
        };
        let counts: Vec<_> = streams.into_iter().map(count).collect();
        counts.into_iter().map(|count| count.join().expect("no panic")).collect::<Vec<u64>>()
    });
    container
        .sh(&format!(
            "for i in $(seq {many}); do (head -c {each} /dev/zero | nc {} {port}) >/dev/null 2>&1 & done",
            bridge.ipv4(1)
        ))
        .ok();
    container.call("pause", &[]).ok();
    std::thread::sleep(Duration::from_millis(300));
    container.call("resume", &[]).ok();
    assert_eq!(counting.join().expect("no panic"), vec![each; many]);
    assert_eq!(threads(), 2, "they are as they were");
    let carried = carried(&namespace, "husk0");
    assert!(carried.from_guest.bytes > each * many as u64, "{carried:?}");

    // It goes, and comes back in the same TAP.
    bridge.unplug(2);
    let looking = "while [ -e /sys/class/net/eth0 ]; do sleep 0.1; done; echo gone";
    assert_eq!(container.sh(looking).ok().stdout, "gone\n");
    bridge.plug(&namespace, "eth0", 2);
    let ping = format!(
        "until ip addr show eth0 2>/dev/null | grep -q {}/; do sleep 0.1; done; ping -c 3 -i 0.2 -w 20 {} | grep -o ' 0% packet loss'",
        bridge.ipv4(2),
        bridge.ipv4(1)
    );
    assert_eq!(container.sh(&ping).ok().stdout, " 0% packet loss\n");
    assert_eq!(threads(), 2);
    drop(container);
    before.assert_unchanged();
}

/// Sends what is given as one, to be cut every so many bytes (UDP_SEGMENT). Arguments: address, port, bytes, and of each.
const SEND_AS_ONE: &str = r#"
use IO::Socket::IP;
my ($host, $port, $all, $each) = @ARGV;
my $s = IO::Socket::IP->new(Proto => 'udp', PeerHost => $host, PeerPort => $port) or die $@;
setsockopt $s, 17, 103, pack 'i', $each or die $!;
$s->send('x' x $all) == $all or die $!"#;

/// Receives datagrams until all bytes are there. Prints how many they were.
const RECEIVE: &str = r#"
use IO::Socket::IP; $| = 1;
my ($port, $all) = @ARGV;
my $s = IO::Socket::IP->new(Proto => 'udp', LocalAddr => '::', LocalPort => $port) or die $@;
print "listening\n";
my ($count, $bytes) = (0, 0);
while ($bytes < $all) { $s->recv(my $one, 70000); $count++; $bytes += length $one }
print "$count\n""#;

#[test]
fn segments_and_checksums_are_left_to_the_last() {
    let mut bridge = Bridge::new();
    let namespace = bridge.namespace();
    bridge.plug(&namespace, "eth0", 2);
    let container = asleep_in(Image::Debian, &namespace);
    // Virtio 1.3, 5.1.3: checksums, TCP over versions 4 and 6, and UDP, each way.
    let features = exec(&container, "cat /sys/class/net/eth0/device/features");
    let agreed: Vec<usize> =
        features.bytes().enumerate().filter(|(_, bit)| *bit == b'1').map(|(at, _)| at).collect();
    for wanted in [0, 1, 7, 8, 11, 12, 54, 55, 56] {
        assert!(agreed.contains(&wanted), "{wanted} is not agreed upon: {agreed:?}");
    }

    // A stream: frames are several times as large as what the link carries.
    let bytes: u32 = size(64 << 20, 4 << 20);
    for host in [bridge.ipv4(1), bridge.ipv6(1)] {
        let before = carried(&namespace, "husk0");
        let listener = TcpListener::bind((host.as_str(), 0)).expect("the bridge has that address");
        let port = listener.local_addr().expect("it is bound").port();
        let echo = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("it connects");
            let received = std::io::copy(&mut stream, &mut std::io::sink()).expect("it can be read");
            stream.write_all(&vec![0; received as usize]).expect("it is taken");
            received
        });
        let perl = "use IO::Socket::IP; my ($host, $port, $all) = @ARGV;
            my $s = IO::Socket::IP->new(PeerHost => $host, PeerPort => $port) or die $@;
            my $chunk = 'x' x 65536; for (1 .. $all / 65536) { print $s $chunk } $s->flush; shutdown $s, 1;
            my $got = 0; while (my $n = sysread $s, my $some, 65536) { $got += $n } print $got";
        let back =
            exec_perl(&container.id, perl, &[&host, &port.to_string(), &bytes.to_string()]).ok().stdout;
        assert_eq!(back, bytes.to_string());
        assert_eq!(echo.join().expect("no panic"), u64::from(bytes));
        let now = carried(&namespace, "husk0");
        for (way, count) in
            [("out", now.from_guest.since(before.from_guest)), ("in", now.to_guest.since(before.to_guest))]
        {
            // Acknowledgements of the other direction are among them, and small.
            let mean = count.bytes / count.packets;
            eprintln!("{way}: {} frames of {mean} bytes on average", count.packets);
            assert!(count.bytes > u64::from(bytes) && mean > 3000, "{way}: {count:?}");
        }
    }

    // Datagrams that are sent as one leave the guest, and come to it, as one.
    let (all, each) = (42_000_u64, 1400);
    for (host, guest) in [(bridge.ipv4(1), bridge.ipv4(2)), (bridge.ipv6(1), bridge.ipv6(2))] {
        let socket = UdpSocket::bind((host.as_str(), 0)).expect("the bridge has that address");
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a time-out");
        let port = socket.local_addr().expect("it is bound").port().to_string();
        let before = carried(&namespace, "husk0");
        exec_perl(&container.id, SEND_AS_ONE, &[&host, &port, &all.to_string(), &each.to_string()]).ok();
        let mut datagram = [0; 70_000];
        for _ in 0..all / each {
            assert_eq!(socket.recv(&mut datagram).expect("it arrives") as u64, each);
        }
        let now = carried(&namespace, "husk0");
        assert_large("out", now.from_guest.since(before.from_guest), all);

        let mut receiving = Runtime::Husk
            .command(["exec", &container.id, "perl", "-e", RECEIVE, "7000", &all.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("husk can be run");
        let mut said = BufReader::new(receiving.stdout.take().expect("piped"));
        let mut lines = String::new();
        said.read_line(&mut lines).expect("it speaks");
        let before = carried(&namespace, "husk0");
        setsockopt(&socket, sockopt::UdpGsoSegment, &1400).expect("Linux 4.18");
        socket.send_to(&vec![0; all as usize], (guest.as_str(), 7000)).expect("it is taken");
        said.read_to_string(&mut lines).expect("it is text");
        assert_eq!(lines, format!("listening\n{}\n", all / each));
        assert_eq!(code(wait(&mut receiving, Duration::from_secs(30)).expect("it ends")), 0);
        assert_large("in", carried(&namespace, "husk0").to_guest.since(before.to_guest), all);
    }
    kill(container);
}

/// All of it went in one frame, with a few others (neighbours being looked for) beside it.
#[track_caller]
fn assert_large(way: &str, count: Count, bytes: u64) {
    eprintln!("{way}: {count:?}");
    assert!(count.bytes > bytes && count.packets < 10, "{way}: {count:?}");
}

fn exec_perl(id: &str, program: &str, args: &[&str]) -> Output {
    Runtime::Husk.call([&["exec", id, "perl", "-e", program], args].concat())
}
