//! Limits, counters and clocks: what a container is given, what `update` changes, what `events` tells.

use husk_integration::{
    bundle::{Bundle, Image},
    created::Created,
    runtime::{Runtime, wait},
    scenario::{fresh_id, run_configured, same_as_runc},
};
use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_gettime, clock_settime},
};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Write},
    process::Stdio,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

fn sleeping(resources: Value) -> Created {
    let mut bundle = Bundle::new(Image::Busybox, &["sleep", "1000"]);
    bundle.set("/linux/resources", resources);
    Created::started(Runtime::Husk, bundle)
}

#[test]
fn free_and_nproc_say_what_the_limits_are() {
    let container =
        sleeping(json!({"memory": {"limit": 268_435_456}, "cpu": {"quota": 50_000, "period": 100_000}}));
    let seen = container
        .sh("nproc; free -m | awk '/^Mem/ {print $2}'; cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max")
        .ok()
        .stdout;
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[0], "1");
    let total: u32 = lines[1].parse().expect("a number");
    assert!((240..=290).contains(&total), "free shows {total} MiB for a limit of 256");
    assert_eq!(lines[2..], ["268435456", "50000 100000"]);
}

#[test]
fn vcpus_follow_a_cpu_limit_of_two() {
    let mut bundle = Bundle::new(Image::Busybox, &["sh", "-c", "nproc; cat /sys/devices/system/cpu/online"]);
    bundle.set("/process/terminal", json!(false));
    let output = run_configured(&bundle, "[machine]\nvcpus = 2\n").ok();
    assert_eq!(output.stdout, "2\n0-1\n");
}

#[test]
fn what_binds_the_machine_stands_in_its_group_outside() {
    let group = format!("/{}", fresh_id());
    let partitions = std::fs::read_to_string("/proc/partitions").expect("there is one");
    let disk: Vec<u32> = partitions
        .lines()
        .find(|line| line.ends_with("da"))
        .map(|line| line.split_whitespace().filter_map(|word| word.parse().ok()).collect())
        .expect("a disk");
    let mut bundle = Bundle::new(Image::Busybox, &["sleep", "1000"]);
    bundle.set("/linux/cgroupsPath", json!(group));
    bundle.set(
        "/linux/resources",
        json!({
            "cpu": {"cpus": "0"},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}],
            "blockIO": {"throttleReadBpsDevice": [{"major": disk[0], "minor": disk[1], "rate": 1_048_576}]},
            "unified": {"pids.max": "77", "cpuset.mems": "0"},
        }),
    );
    let container = Created::started(Runtime::Husk, bundle);
    let outside = |file: &str| {
        let path = format!("/sys/fs/cgroup{group}/{file}");
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    assert!(outside("cgroup.procs").lines().any(|pid| pid == container.pid().to_string()));
    assert_eq!((outside("cpuset.cpus"), outside("cpuset.mems")), ("0\n".into(), "0\n".into()));
    assert!(outside("io.max").starts_with(&format!("{}:{} rbps=1048576 ", disk[0], disk[1])));
    let inside = container.sh("cd /sys/fs/cgroup; cat hugetlb.2MB.max pids.max; nproc").ok().stdout;
    assert_eq!(inside, "4194304\n77\n1\n");
    drop(container);
    assert!(!std::path::Path::new(&format!("/sys/fs/cgroup{group}")).exists());
}

#[test]
fn update_takes_effect_inside_at_once() {
    let container = sleeping(json!({"memory": {"limit": 134_217_728}, "pids": {"limit": 50}}));
    let files = "cd /sys/fs/cgroup; cat memory.max memory.low pids.max cpu.max cpu.weight";
    assert!(container.sh(files).ok().stdout.starts_with("134217728\n0\n50\nmax 100000\n"));
    container
        .call_with(
            "update",
            &[
                "--memory",
                "64m",
                "--memory-reservation",
                "16m",
                "--pids-limit",
                "20",
                "--cpu-quota",
                "30000",
                "--cpu-period",
                "60000",
                "--cpu-share",
                "512",
            ],
            &[],
        )
        .ok();
    let seen = container.sh(files).ok().stdout;
    assert!(
        seen.starts_with("67108864\n16777216\n20\n30000 60000\n") && !seen.ends_with("\n100\n"),
        "{seen}"
    );
    // The new limit on processes holds for the next one that is made.
    let many = container.sh("i=0; while [ $i -lt 40 ]; do sleep 5 & i=$((i+1)); done; wait");
    assert!(many.stderr.contains("can't fork") || many.code != 0, "{many:?}");
    // By a file on standard input, as containerd does it.
    let mut child = Runtime::Husk
        .command(["update", "--resources", "-", &container.id])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("husk can be run");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(br#"{"pids": {"limit": 33}, "cpu": {"quota": -1}}"#).expect("it reads");
    drop(input);
    assert!(wait(&mut child, Duration::from_secs(60)).expect("it ends").success());
    let seen = container.sh("cd /sys/fs/cgroup; cat pids.max cpu.max").ok().stdout;
    assert!(seen.starts_with("33\nmax "), "{seen}");
}

#[test]
fn update_refuses_what_the_machine_cannot_give() {
    let container = sleeping(json!({"memory": {"limit": 134_217_728}}));
    let refused = container.call_with("update", &["--memory", "9000g"], &[]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("linux.resources.memory.limit")
            && refused.stderr.contains("bytes that the machine can have"),
        "{refused:?}"
    );
    for (option, value, field) in
        [("--kernel-memory", "1m", "memory.kernel"), ("--cpu-rt-runtime", "1", "cpu.realtimeRuntime")]
    {
        let refused = container.call_with("update", &[option, value], &[]);
        assert!(refused.code == 1 && refused.stderr.contains(field), "{refused:?}");
    }
    assert_eq!(container.sh("cat /sys/fs/cgroup/memory.max").ok().stdout, "134217728\n");
}

/// Podman says the device rules again with every update.
#[test]
fn update_takes_the_device_rules_that_are_in_force_and_no_others() {
    let rules = json!([{"allow": false, "access": "rwm"}]);
    let container = sleeping(json!({"devices": rules, "pids": {"limit": 50}}));
    let update = |devices: Value| {
        let path = container.bundle.path.join("resources.json");
        std::fs::write(&path, json!({"devices": devices, "pids": {"limit": 20}}).to_string())
            .expect("it can be written");
        container.call_with("update", &["--resources", path.to_str().expect("text")], &[])
    };
    let refused = update(json!([{"allow": true, "access": "rwm"}]));
    assert!(refused.code == 1 && refused.stderr.contains("linux.resources.devices"), "{refused:?}");
    update(rules.clone()).ok();
    assert_eq!(container.sh("cat /sys/fs/cgroup/pids.max").ok().stdout, "20\n");
}

/// A gigabyte that is not written to, in a container that may use 64 MiB.
#[test]
fn memory_may_be_reserved_beyond_the_limit_and_the_machine() {
    let mmap = "print syscall(9, 0, 1 << 30, 3, 0x22, -1, 0) == -1 ? $! : 'reserved'";
    let output = same_as_runc(Image::Debian, &["perl", "-e", mmap], |bundle| {
        bundle.set("/linux/resources", json!({"memory": {"limit": 67_108_864}}));
    });
    assert_eq!(output.stdout, "reserved");
}

#[test]
fn events_carry_the_counters_and_tell_of_kills_for_memory() {
    let container =
        sleeping(json!({"memory": {"limit": 67_108_864, "swap": 67_108_864}, "pids": {"limit": 40}}));
    let stats: Value = serde_json::from_str(&container.call_with("events", &["--stats"], &[]).ok().stdout)
        .expect("one line of JSON");
    assert_eq!((stats["type"].as_str(), stats["id"].as_str()), (Some("stats"), Some(&*container.id)));
    let data = &stats["data"];
    assert_eq!(data["memory"]["usage"]["limit"], 67_108_864);
    assert!(data["memory"]["usage"]["usage"].as_u64().is_some_and(|usage| usage > 0), "{stats}");
    assert_eq!((&data["pids"]["current"], &data["pids"]["limit"]), (&json!(1), &json!(40)));
    assert!(data["cpu"]["usage"]["total"].as_u64().is_some_and(|total| total > 0), "{stats}");

    let mut events = Runtime::Husk
        .command(["events", "--interval", "1s", &container.id])
        .stdout(Stdio::piped())
        .spawn()
        .expect("husk can be run");
    let lines = BufReader::new(events.stdout.take().expect("piped")).lines();
    let mut told = lines.map(|line| {
        serde_json::from_str::<Value>(&line.expect("a line")).expect("one line of JSON for each event")
    });
    // Who has told of the counters hears everything from then on.
    assert_eq!(told.next().expect("an event")["type"], "stats");
    // It keeps what it may have to print, and that is more than it may have.
    let killed = container.sh("head -c 150000000 /dev/zero | tail -c 149000000 >/dev/null && echo survived");
    assert!(!killed.stdout.contains("survived"), "{killed:?}");
    let other = told.by_ref().take(60).find(|event| event["type"] != "stats");
    assert_eq!(other, Some(json!({"type": "oom", "id": container.id})));
    Runtime::Husk.call(["kill", &container.id, "KILL"]).ok();
    assert!(wait(&mut events, Duration::from_secs(60)).expect("events ends with its container").success());
}

/// A container that answers each line on its stdin with its wall clock.
struct Clock {
    child: std::process::Child,
    answers: std::io::Lines<BufReader<std::process::ChildStdout>>,
    id: String,
    _bundle: Bundle,
}

impl Clock {
    fn start() -> Clock {
        let bundle = Bundle::new(
            Image::Debian,
            &["perl", "-MTime::HiRes=time", "-e", "$|=1; while (<STDIN>) { printf \"%.6f\\n\", time }"],
        );
        let id = husk_integration::scenario::fresh_id();
        let mut child = Runtime::Husk
            .command(["run".as_ref(), "-b".as_ref(), bundle.write().as_os_str(), id.as_ref()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("husk can be run");
        let answers = BufReader::new(child.stdout.take().expect("piped")).lines();
        Clock { child, answers, id, _bundle: bundle }
    }

    /// How far it is from ours, in milliseconds at the least: what the fastest of some questions leaves no doubt about. (At
    /// most it is as far as the question took, which is shown.)
    fn distance(&mut self) -> f64 {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
        let one = |clock: &mut Clock| {
            let before = now();
            clock.child.stdin.as_mut().expect("piped").write_all(b"?\n").expect("it listens");
            let inside: f64 =
                clock.answers.next().expect("an answer").expect("a line").parse().expect("a number");
            let after = now();
            let distance = if inside < before { before - inside } else { (inside - after).max(0.0) };
            (after - before, distance * 1000.0)
        };
        let mut all: Vec<(f64, f64)> = (0..20).map(|_| one(self)).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        let least = all.iter().map(|one| one.1).fold(0.0, f64::max);
        eprintln!("fastest of 20 questions {:.1} ms; distance at least {least:.2} ms", all[0].0 * 1000.0);
        least
    }
}

#[test]
fn the_wall_clock_is_the_hosts_also_after_a_pause() {
    let most = 10.0;
    let mut clock = Clock::start();
    assert!(clock.distance() < most);
    Runtime::Husk.call(["pause", &clock.id]).ok();
    std::thread::sleep(Duration::from_secs(5));
    Runtime::Husk.call(["resume", &clock.id]).ok();
    assert!(clock.distance() < most);
    std::thread::sleep(Duration::from_secs(20));
    assert!(clock.distance() < most);
    drop(clock.child.stdin.take());
    assert!(wait(&mut clock.child, Duration::from_secs(60)).expect("it ends").success());
}

/// Sets this machine's wall clock forward by `seconds`, and back when dropped.
struct Shifted(i64);

impl Shifted {
    fn by(seconds: i64) -> Shifted {
        shift(seconds);
        Shifted(seconds)
    }
}

impl Drop for Shifted {
    fn drop(&mut self) {
        shift(-self.0);
    }
}

fn shift(seconds: i64) {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).expect("there is one");
    clock_settime(ClockId::CLOCK_REALTIME, now + TimeSpec::new(seconds, 0)).expect("root may");
}

#[test]
fn the_wall_clock_follows_a_host_whose_clock_is_set() {
    if std::env::var_os("HUSK_EMULATED").is_none() {
        eprintln!("skipped: the clock of a machine in use is not for tests to set");
        return;
    }
    let mut clock = Clock::start();
    assert!(clock.distance() < 10.0);
    for seconds in [5000, -3] {
        let shifted = Shifted::by(seconds);
        let told = Instant::now() + Duration::from_secs(10);
        while clock.distance() >= 10.0 {
            assert!(Instant::now() < told, "set by {seconds} s, and not followed");
        }
        drop(shifted);
    }
    drop(clock.child.stdin.take());
    assert!(wait(&mut clock.child, Duration::from_secs(60)).expect("it ends").success());
}
