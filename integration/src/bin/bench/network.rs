//! What a network carries.

use crate::{contender::Background, table::table};
use husk_integration::{
    bundle::{Bundle, Image},
    network::Bridge,
    qemu::Qemu,
    runtime::Runtime,
    traffic::{self, Amount, Taken},
};
use std::time::Duration;

/// TCP between two containers on a bridge, and between one of them and the host: streams, and requests one by one. And with
/// QEMU's microvm on the same bridge, whose frames QEMU or the host's kernel (vhost-net) moves.
pub fn network(rounds: usize, kernel: &str) {
    std::thread::spawn(traffic::serve);
    let mut bridge = Bridge::new();
    let mut member = 1;
    let mut pairs = Vec::new();
    for runtime in [Runtime::Husk, Runtime::Runc] {
        let mut plugged = |words: &[&str]| {
            member += 1;
            let namespace = bridge.namespace();
            bridge.plug(&namespace, "eth0", member);
            let mut bundle = Bundle::new(Image::Busybox, words);
            bundle.join(&namespace);
            let this = std::env::current_exe().expect("it was started from a file");
            std::fs::copy(this, bundle.rootfs().join("bench")).expect("it can be copied");
            Background::start(runtime, bundle)
        };
        let server = plugged(&["/bench", "peer", "serve"]);
        let client = plugged(&["sleep", "100000"]);
        pairs.push((server, client, bridge.ipv4(member - 1)));
    }
    let kinds: &[bool] =
        if std::path::Path::new("/dev/vhost-net").exists() { &[false, true] } else { &[false] };
    let guests: Vec<(Qemu, String)> = (20..)
        .zip(kinds)
        .map(|(member, vhost)| (Qemu::start(kernel, &mut bridge, member, *vhost), bridge.ipv4(member)))
        .collect();

    let amount = Amount::usual();
    let (host, bytes, requests) = (bridge.ipv4(1), amount.stream.to_string(), amount.requests.to_string());
    let inside = |client: &Background, address: &str| {
        let words = ["exec", &client.id, "/bench", "peer", "ask", address, &bytes, &requests];
        Taken::read(&client.runtime.call(words).ok().stdout).expect("three numbers")
    };
    let mut samples: Vec<Vec<Taken>> = vec![Vec::new(); 6 + guests.len()];
    for round in 0..=rounds {
        let mut taken: Vec<Taken> = Vec::new();
        taken.extend(pairs.iter().map(|(_, client, server)| inside(client, server)));
        taken.extend(pairs.iter().map(|(_, client, _)| inside(client, &host)));
        let servers = pairs.iter().map(|(.., server)| server).chain(guests.iter().map(|(_, server)| server));
        taken.extend(servers.map(|server| traffic::ask(server, amount).expect("it answers")));
        if round > 0 {
            samples.iter_mut().zip(taken).for_each(|(samples, taken)| samples.push(taken));
        }
    }
    drop(guests);
    for (server, client, _) in &mut pairs {
        client.end();
        server.end();
    }
    let names = [
        "husk, between containers",
        "runc, between containers",
        "husk, container and host",
        "runc, container and host",
        "husk, host and container",
        "runc, host and container",
        "QEMU microvm, host and guest",
        "QEMU microvm with vhost-net, host and guest",
    ];
    let mebibytes = amount.stream >> 20;
    let stream: fn(&Taken) -> Duration = |taken| taken.stream;
    for (title, of) in [
        (format!("network: a TCP stream of {mebibytes} MiB from the first to the second"), stream),
        (format!("network: one of {mebibytes} MiB from the second to the first"), |taken| taken.back),
        (format!("network: {} TCP requests of a byte, one by one", amount.requests), |taken| taken.requests),
    ] {
        let mut times: Vec<Vec<Duration>> =
            samples.iter().map(|samples| samples.iter().map(of).collect()).collect();
        let (pairs, hosts) = times.split_at_mut(4);
        let (between, from) = pairs.split_at_mut(2);
        table(&title, &names[..2], between, 1);
        table(&title, &names[2..4], from, 1);
        table(&title, &names[4..], hosts, 1);
    }
}
