//! `make bench`: husk beside runc, crun and QEMU, measured in one run.
//!
//! Everything is measured in rounds: one sample of each contender a round, so that a slow moment of the machine hits all
//! alike. Medians are printed with their ratio to runc's. Absolute times mean little where the machine is emulated.
//!
//! Arguments: `bench KERNEL INITRD [ROUNDS [PART]]`; the environment is as for the tests. Parts: start, exec, network, memory.

use husk_integration::{
    bundle::{Bundle, Image},
    network::Bridge,
    outside::Outside,
    qemu::{self, Qemu},
    running::Running,
    runtime::{Runtime, run},
    scenario::fresh_id,
    traffic::{self, Amount, Taken},
};
use std::{
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const CONTENDERS: [Runtime; 3] = [Runtime::Husk, Runtime::Runc, Runtime::Crun];

fn main() {
    let mut args = std::env::args().skip(1).peekable();
    if args.next_if_eq("peer").is_some() {
        if let Err(error) = traffic::peer(args) {
            eprintln!("bench peer: {error}");
            std::process::exit(1);
        }
        return;
    }
    let (Some(kernel), Some(initrd)) = (args.next(), args.next()) else {
        eprintln!("usage: bench KERNEL INITRD [ROUNDS [PART]]");
        std::process::exit(2);
    };
    let rounds: usize = args.next().and_then(|rounds| rounds.parse().ok()).unwrap_or(10);
    println!("medians of {rounds} rounds, one sample of each a round\n");
    let part = args.next();
    let wanted = |name| part.as_deref().is_none_or(|part| part == name);
    if wanted("start") {
        runs(rounds, &kernel, &initrd);
        timeline();
    }
    if wanted("exec") {
        execs(rounds);
    }
    if wanted("network") {
        network(rounds, &kernel);
    }
    if wanted("memory") {
        memory();
    }
}

/// `run true`, whole: create, start, exit, delete. And QEMU to the agent's first line, which is not even a container.
fn runs(rounds: usize, kernel: &str, initrd: &str) {
    let templates = Outside::new("templates");
    let configure = |name: &str, line: &str| {
        let path = templates.0.join(name);
        std::fs::write(&path, format!("[machine]\n{line}\n")).expect("a file");
        path
    };
    let directory = templates.0.join("templates");
    let cold = configure("cold", "templates = \"never\"");
    let copy = configure("copy", &format!("template_directory = {directory:?}"));
    let make = ["--config".as_ref(), copy.as_os_str(), "template".as_ref(), "create".as_ref()];
    println!("{}", Runtime::Husk.call(make).ok().stdout);
    let contenders = [
        (Runtime::Husk, Some(&cold)),
        (Runtime::Husk, Some(&copy)),
        (Runtime::Runc, None),
        (Runtime::Crun, None),
    ];
    let bundles: Vec<Bundle> = contenders.iter().map(|_| Bundle::new(Image::Busybox, &["true"])).collect();
    let mut samples = vec![Vec::new(); contenders.len() + 1];
    // The first of each warms the page cache and is not counted.
    for round in 0..=rounds {
        for (((runtime, config), bundle), samples) in contenders.iter().zip(&bundles).zip(&mut samples) {
            let path = bundle.write().to_owned();
            let id = fresh_id();
            let config = config.map(|config| ["--config".as_ref(), config.as_os_str()]);
            let run = ["run".as_ref(), "-b".as_ref(), path.as_os_str(), id.as_ref()];
            let command = runtime.command(config.iter().flatten().copied().chain(run));
            let taken = time(command);
            if round > 0 {
                samples.push(taken);
            }
        }
        let taken = qemu::to_first_line(kernel, initrd);
        if round > 0 {
            samples.last_mut().expect("one more").push(taken);
        }
    }
    let names = [
        "husk run true, cold",
        "husk run true, from a template",
        "runc run true",
        "crun run true",
        "QEMU microvm to the agent's first line",
    ];
    table("start", &names, &mut samples, 2);
}

/// One start, step by step, by the machine's own debug log: seconds since `husk run` was started.
fn timeline() {
    let bundle = Bundle::new(Image::Busybox, &["true"]);
    let log = bundle.path.join("log");
    let path = bundle.write().to_owned();
    let mut command = Runtime::Husk.command(["--debug", "--log-format", "json"]);
    command.arg("--log").arg(&log).arg("run").arg("-b").arg(path).arg(fresh_id());
    let began = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let whole = time(command);
    println!("## one start, in seconds since the command\n\n| step | at |\n|---|---|");
    for line in std::fs::read_to_string(&log).expect("the log is there").lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("it is JSON");
        let (what, step) =
            (line["msg"].as_str().unwrap_or_default(), line["step"].as_str().unwrap_or_default());
        let at = seconds_of_day(line["time"].as_str().unwrap_or_default()) - began % 86_400.0;
        // The steps of the machine are logged together, with their own times since its process began its work.
        match line["microseconds"].as_f64() {
            Some(since) => println!("| {step} | + {:.3} since the first of them |", since / 1e6),
            None => println!("| {what} | {at:.3} |"),
        }
    }
    println!("| husk run has ended | {:.3} |\n", whole.as_secs_f64());
}

/// Seconds since midnight of a time like 2026-01-02T03:04:05.678Z.
fn seconds_of_day(time: &str) -> f64 {
    let clock = time.split(['T', 'Z']).nth(1).unwrap_or_default();
    clock.split(':').filter_map(|part| part.parse::<f64>().ok()).fold(0.0, |sum, part| sum * 60.0 + part)
}

/// `exec true` in a running container.
fn execs(rounds: usize) {
    let mut containers: Vec<Background> = CONTENDERS
        .iter()
        .map(|runtime| Background::start(*runtime, Bundle::new(Image::Busybox, &["sleep", "100000"])))
        .collect();
    let mut samples = vec![Vec::new(); containers.len()];
    for round in 0..=rounds {
        for (container, samples) in containers.iter().zip(&mut samples) {
            let taken = time(container.runtime.command(["exec", &container.id, "true"]));
            if round > 0 {
                samples.push(taken);
            }
        }
    }
    containers.iter_mut().for_each(Background::end);
    table("exec", &["husk exec true", "runc exec true", "crun exec true"], &mut samples, 1);
}

/// TCP between two containers on a bridge, and between one of them and the host: streams, and requests one by one. And with
/// QEMU's microvm on the same bridge, whose frames QEMU or the host's kernel (vhost-net) moves.
fn network(rounds: usize, kernel: &str) {
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

/// A container in the background.
struct Background {
    runtime: Runtime,
    id: String,
    child: std::process::Child,
    _bundle: Bundle,
}

impl Background {
    /// Starts it and waits until it runs.
    fn start(runtime: Runtime, bundle: Bundle) -> Background {
        let id = fresh_id();
        let child = runtime
            .command(["run".as_ref(), "-b".as_ref(), bundle.write().as_os_str(), id.as_ref()])
            .stdout(Stdio::null())
            .spawn()
            .expect("it can be run");
        while !runtime.call(["state", &id]).stdout.contains("running") {
            std::thread::sleep(Duration::from_millis(50));
        }
        Background { runtime, id, child, _bundle: bundle }
    }

    fn end(&mut self) {
        self.runtime.call(["kill", &self.id, "KILL"]).ok();
        let _ = self.child.wait();
    }
}

/// Proportional set size of the machine process of an idle container, and what of it is the guest's memory.
fn memory() {
    let mut container =
        Running::new(Bundle::new(Image::Busybox, &["sleep", "100000"]), Stdio::null(), Stdio::inherit());
    std::thread::sleep(Duration::from_secs(3));
    let maps = std::fs::read_to_string(format!("/proc/{}/smaps", container.pid)).expect("root may");
    let mut total = 0u64;
    // Writable anonymous mappings that follow each other without a gap: their size, and what of them is there.
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let (mut end, mut in_run) = (0, false);
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if first.contains('-') && !first.ends_with(':') {
            let (from, to) = first.split_once('-').expect("a range");
            let number = |text| u64::from_str_radix(text, 16).expect("hex");
            let words: Vec<_> = words.collect();
            let before = in_run && end == number(from);
            in_run = words[0] == "rw-p" && words.len() == 4;
            if in_run && !before {
                runs.push((0, 0));
            }
            if let Some(run) = runs.last_mut().filter(|_| in_run) {
                run.0 += number(to) - number(from);
            }
            end = number(to);
        } else if first == "Pss:" {
            let size: u64 = words.next().expect("a figure").parse().expect("a number");
            total += size;
            if let Some(run) = runs.last_mut().filter(|_| in_run) {
                run.1 += size;
            }
        }
    }
    // Nothing but a guest's memory is that large.
    let guest: u64 = runs.iter().filter(|(size, _)| *size >= 64 << 20).map(|(_, there)| there).sum();
    println!("## memory of an idle busybox container, PSS\n\n| part | KiB |\n|---|---|");
    println!(
        "| machine process in all | {total} |\n| of it the guest's memory, kernel included | {guest} |\n| outside the guest | {} |\n",
        total - guest
    );
    Runtime::Husk.call(["kill", &container.id, "KILL"]).ok();
    container.end();
}

fn time(command: Command) -> Duration {
    let started = Instant::now();
    run(command).ok();
    started.elapsed()
}

/// Prints medians, spreads and ratios; `reference` is the row that counts as 1.
fn table(title: &str, names: &[&str], samples: &mut [Vec<Duration>], reference: usize) {
    for samples in samples.iter_mut() {
        samples.sort_unstable();
    }
    let median = |samples: &[Duration]| samples[samples.len() / 2].as_secs_f64();
    let one = median(&samples[reference]);
    println!("## {title}\n\n| what | median s | from - to | ratio |\n|---|---|---|---|");
    for (name, samples) in names.iter().zip(samples.iter()) {
        let (from, to) = (samples[0].as_secs_f64(), samples[samples.len() - 1].as_secs_f64());
        println!("| {name} | {:.3} | {from:.3} - {to:.3} | {:.2} |", median(samples), median(samples) / one);
    }
    println!();
}
