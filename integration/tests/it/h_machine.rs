//! The machine: its vcpus, its memory, and that two of them do not see each other.

use husk_integration::{
    bundle::{Bundle, Image},
    census::Census,
    created::Created,
    running::{Running, kill},
    runtime::{Runtime, wait},
    scenario::{run, run_configured, sh, size},
};
use serde_json::json;
use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    time::{Duration, Instant},
};

/// What `args` print in a machine for which the operator's configuration says `text`.
fn configured(text: &str, args: &[&str]) -> String {
    let bundle = Bundle::new(Image::Busybox, args);
    run_configured(&bundle, text).ok().stdout
}

#[test]
fn as_many_vcpus_as_the_operator_says() {
    for vcpus in ["1", "2", "4", "16"] {
        assert_eq!(configured(&format!("[machine]\nvcpus = {vcpus}\n"), &["nproc"]).trim(), vcpus);
    }
}

#[test]
fn a_cpu_limit_gives_no_more_vcpus_than_the_host_has() {
    let host = std::thread::available_parallelism().expect("it is known").get();
    let output = run(Runtime::Husk, Image::Busybox, &["nproc"], |bundle| {
        bundle.set("/linux/resources", json!({"cpu": {"quota": 350_000, "period": 100_000}}));
    });
    assert_eq!(output.ok().stdout.trim(), host.min(4).to_string());
}

#[test]
fn sixty_four_mebibytes_are_enough_and_the_kernel_says_how_much_it_has() {
    let text = configured("[machine]\nmemory_mib = 64\n", &["grep", "MemTotal", "/proc/meminfo"]);
    let kib: u64 = text.split_whitespace().nth(1).expect("a figure").parse().expect("a number");
    assert!((24 << 10..64 << 10).contains(&kib), "{kib} KiB");
}

#[test]
fn memory_follows_the_memory_limit() {
    let total = |limit: u64| {
        let output =
            run(Runtime::Husk, Image::Busybox, &["sh", "-c", "grep MemTotal /proc/meminfo"], |bundle| {
                bundle.set("/linux/resources", json!({"memory": {"limit": limit}}));
            });
        output.ok().stdout.split_whitespace().nth(1).expect("a figure").parse::<u64>().expect("a number")
            << 10
    };
    let (small, large) = (total(96 << 20), total(2 << 30));
    assert!(small > 80 << 20 && small < 256 << 20, "{small}");
    assert!(large > 1900 << 20 && large < 2500 << 20, "{large}");
}

#[test]
fn a_container_over_its_memory_limit_is_killed() {
    let output = run(
        Runtime::Husk,
        Image::Busybox,
        &["sh", "-c", "head -c 200m /dev/zero | tail | wc -c; echo unreached"],
        |bundle| {
            bundle.set("/linux/resources", json!({"memory": {"limit": 64 << 20, "swap": 64 << 20}}));
        },
    );
    assert!(!output.stdout.contains("209715200"), "{output:?}");
}

/// What the machine process holds, in MiB.
fn held(pid: i32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the machine is there");
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).expect("a line says it");
    line.split_whitespace().next().expect("a figure").parse::<u64>().expect("a number") >> 10
}

#[test]
fn memory_that_was_used_and_freed_is_the_hosts_again() {
    const USED: u64 = 512;
    let mut bundle = Bundle::new(Image::Debian, &["sleep", "1000"]);
    bundle.set("/linux/resources", json!({"memory": {"limit": 1 << 30}}));
    let mut running = Running::new(bundle, Stdio::null(), Stdio::null());
    // It gives back what its own start has freed as well.
    std::thread::sleep(Duration::from_secs(5));
    let before = held(running.pid);
    // By a number that it does not know beforehand: perl would make a constant of it, and then a copy.
    let script = "$x = \"x\" x (shift() << 20); $| = 1; print \"full\\n\"; <STDIN>";
    let mut user = Runtime::Husk
        .command(["exec", &running.id, "perl", "-e", script, &USED.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("husk can be run");
    let mut line = String::new();
    BufReader::new(user.stdout.take().expect("piped")).read_line(&mut line).expect("it says a word");
    assert_eq!(line, "full\n");
    let full = held(running.pid);
    assert!(full > before + USED - 32, "{before} MiB, then {full}");
    drop(user.stdin.take());
    assert!(wait(&mut user, Duration::from_secs(60)).expect("it ends").success());
    let freed = Instant::now();
    let limit = Duration::from_secs(size(10, 40));
    while held(running.pid) > before + 32 {
        assert!(
            freed.elapsed() < limit,
            "{before} MiB before, {full} in use, {} after {limit:?}",
            held(running.pid)
        );
        std::thread::sleep(Duration::from_millis(250));
    }
    eprintln!("{before} MiB, {full} in use, {} again after {:.1?}", held(running.pid), freed.elapsed());
    Runtime::Husk.call(["kill", &running.id, "KILL"]).ok();
    assert_eq!(running.end(), 137);
}

#[test]
fn two_containers_do_not_see_each_other() {
    let before = Census::take();
    {
        let first = Bundle::new(Image::Busybox, &["sh", "-c", "echo secret > /dev/shm/x; exec sleep 1000"]);
        let mut first = Running::new(first, Stdio::null(), Stdio::inherit());
        let seen = sh("ls /dev/shm; ps; hostname").ok().stdout;
        assert!(!seen.contains("sleep 1000") && !seen.starts_with('x'), "{seen}");
        Runtime::Husk.call(["kill", &first.id, "KILL"]).ok();
        assert_eq!(first.end(), 137);
    }
    before.assert_unchanged();
}

/// The operator alone can take a wall away, and is told so.
#[test]
fn a_wall_that_the_operator_takes_away_is_not_there_and_is_missed_aloud() {
    let bundle = Bundle::new(Image::Busybox, &["sleep", "1000"]);
    let config = bundle.path.join("husk.toml");
    std::fs::write(&config, "[host]\nsystem_calls = \"allow\"\n").expect("it can be written");
    let container = Created::configured(bundle, &config);
    let status = std::fs::read_to_string(format!("/proc/{}/status", container.pid())).expect("it runs");
    assert!(status.contains("Seccomp:\t0"), "{status}");
    let ran = run_configured(&Bundle::new(Image::Busybox, &["true"]), "[host]\nsystem_calls = \"log\"\n");
    assert!(ran.stderr.contains("level=warning") && ran.stderr.contains("host.system_calls"), "{ran:?}");
    assert_eq!(ran.code, 0, "{ran:?}");
}

/// By an operator, a frozen cgroup, a host that sleeps: its threads come back into their waits by another system call.
#[test]
fn a_machine_process_that_is_stopped_goes_on() {
    let bundle = Bundle::new(Image::Busybox, &["sleep", "1000"]);
    let mut container = Running::new(bundle, Stdio::inherit(), Stdio::inherit());
    for _ in 0..3 {
        kill(container.pid, libc::SIGSTOP);
        std::thread::sleep(Duration::from_millis(300));
        kill(container.pid, libc::SIGCONT);
        let said =
            Runtime::Husk.call(["exec", &container.id, "sh", "-c", "echo on; cat /bin/busybox | wc -c"]);
        assert!(said.ok().stdout.starts_with("on\n"));
    }
    Runtime::Husk.call(["kill", &container.id, "KILL"]).ok();
    assert_eq!(container.end(), 137);
}

#[test]
fn the_machine_process_is_walled_in() {
    let bundle = Bundle::new(Image::Busybox, &["sleep", "1000"]);
    let mut container = Running::new(bundle, Stdio::inherit(), Stdio::inherit());
    let pid = container.pid;
    let link = |name: &str| std::fs::read_link(format!("/proc/{pid}/ns/{name}")).expect("it runs");
    let own = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).expect("proc is there");
    assert_ne!(link("mnt"), own("mnt"));
    assert_ne!(link("net"), own("net"));
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("it runs");
    assert!(mounts.lines().count() <= 3, "its mounts are more than its root and the share:\n{mounts}");
    let root: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/root"))
        .expect("root may")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert!(root.len() <= 2, "its root holds {root:?}");
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten() {
        let status = std::fs::read_to_string(task.path().join("status")).expect("it runs");
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).expect("a field");
            line.split_whitespace().nth(1).expect("a value").to_owned()
        };
        assert_eq!(field("NoNewPrivs:"), "1", "{status}");
        // Each thread has its system calls.
        assert_eq!(field("Seccomp:"), "2", "{status}");
        let effective = u64::from_str_radix(&field("CapEff:"), 16).expect("hexadecimal");
        // SYS_ADMIN, SYS_PTRACE, SYS_MODULE, SYS_RAWIO are in nobody's hands, and NET_ADMIN in one thread's.
        if field("Name:") == "network" {
            assert_eq!(effective, 1 << 12, "{status}");
            continue;
        }
        for capability in [21, 12, 19, 16, 17] {
            assert_eq!(
                effective & (1 << capability),
                0,
                "capability {capability} in {}: {status}",
                field("Name:")
            );
        }
        if field("Name:").starts_with("vcpu") {
            assert_eq!(effective, 0, "{status}");
        }
    }
    Runtime::Husk.call(["kill", &container.id, "KILL"]).ok();
    assert_eq!(container.end(), 137);
}
