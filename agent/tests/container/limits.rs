//! What a container may use: resources, devices, system calls.

use super::stand::{Stand, container, shell};
use husk_protocol::*;

#[test]
fn limits_hold_counters_count_and_the_oom_killer_is_told_of() {
    let Some(mut stand) = Stand::open("limits") else { return };
    if !stand.has_controller("memory") {
        return eprintln!("skipped: limits: no memory controller");
    }
    let mut container =
        container("cat /sys/fs/cgroup/pids.max; head -c 200m /dev/zero | tail -c 200m > /dev/null; exit 0");
    let file = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    container.resources.files =
        vec![file("memory.max", "33554432"), file("memory.swap.max", "0"), file("pids.max", "50")];
    let mut running = stand.start(container);
    let key = ContainerKey(0);
    stand.told(|message| matches!(message, FromAgent::OutOfMemory { container } if *container == key));
    let Answer::Stats(stats) = stand.ask(Call::Stats { container: key }).unwrap() else { panic!() };
    assert!(stats.oom_kills >= 1 && stats.cpu_total > 0 && stats.memory_peak > 20 << 20, "{stats:?}");
    assert_eq!((stats.memory_limit, stats.pids_limit), (33_554_432, 50));
    let exited = stand.exited(running.key);
    assert_eq!(running.finish(exited).stdout, "50\n");
}

#[test]
fn only_allowed_devices_can_be_used() {
    let Some(mut stand) = Stand::open("devices") else { return };
    let script =
        "echo x > /dev/null && echo null; mknod /tmp/kmsg c 1 11 && echo made; head -c1 /tmp/kmsg 2>&1";
    let mut container = container(script);
    container.process.capabilities.bounding |= 1 << 27;
    container.process.capabilities.permitted |= 1 << 27;
    container.process.capabilities.effective |= 1 << 27; // mknod
    let run = stand.run(container);
    assert_eq!(run.stdout, "null\nmade\nhead: /tmp/kmsg: Operation not permitted\n", "{}", run.stderr);
}

#[test]
fn a_seccomp_filter_holds_in_the_first_process_and_in_execs() {
    let Some(mut stand) = Stand::open("seccomp") else { return };
    // if nr == mkdir (83) or mkdirat (258): errno EPERM; else allow
    let filter: Vec<(u16, u8, u8, u32)> = vec![
        (0x20, 0, 0, 0),
        (0x15, 1, 0, 83),
        (0x15, 0, 1, 258),
        (0x06, 0, 0, 0x0005_0001),
        (0x06, 0, 0, 0x7fff_0000),
    ];
    let bytes: Vec<u8> = filter
        .iter()
        .flat_map(|(code, jt, jf, k)| [&code.to_ne_bytes()[..], &[*jt, *jf], &k.to_ne_bytes()].concat())
        .collect();
    for no_new_privileges in [true, false] {
        let script = "mkdir /tmp/x 2>&1; grep Seccomp: /proc/self/status; read line";
        let mut container = container(script);
        container.process.seccomp = bytes.clone();
        container.process.no_new_privileges = no_new_privileges;
        let mut running = stand.start(container);
        let mut process = shell("mkdir /tmp/y 2>&1; grep Seccomp: /proc/self/status");
        process.seccomp = bytes.clone();
        process.no_new_privileges = no_new_privileges;
        let mut exec = stand.exec(process).unwrap();
        let exited = stand.exited(exec.key);
        let words = "Operation not permitted\nSeccomp:\t2\n";
        assert!(exec.finish(exited).stdout.ends_with(words));
        drop(running.stdin.take());
        let exited = stand.exited(running.key);
        assert!(running.finish(exited).stdout.ends_with(words));
        stand.ask(Call::Delete { container: ContainerKey(0) }).unwrap();
    }
}

#[test]
fn a_container_that_governs_cgroups_of_its_own_takes_execs_and_is_deleted() {
    let Some(mut stand) = Stand::open("nested cgroups") else { return };
    let script =
        "mkdir -p /sys/fs/cgroup/a/b/c && echo $$ > /sys/fs/cgroup/a/b/cgroup.procs && echo moved && read l";
    let mut container = container(script);
    for mount in &mut container.mounts {
        if mount.destination == "/sys/fs/cgroup" {
            mount.attributes.set = 0;
        }
    }
    let mut running = stand.start(container);
    use std::io::Read;
    running.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    let target = Target::Container(ContainerKey(0));
    stand.ask(Call::Signal { target, signal: libc::SIGTERM }).unwrap();
    stand.ask(Call::Signal { target, signal: libc::SIGKILL }).unwrap();
    assert_eq!(stand.exited(running.key).status, ProcessStatus::Signal(9));
    stand.ask(Call::Delete { container: ContainerKey(0) }).unwrap();
    assert!(!stand.cgroup().exists());
}

#[test]
fn an_update_changes_limits_and_device_rules() {
    let Some(mut stand) = Stand::open("update") else { return };
    let mut running = stand.start(container("read l; echo x > /dev/zero"));
    let container = ContainerKey(0);
    let all = DeviceRule { allow: true, kind: None, major: None, minor: None, access: 7 };
    let mut resources = Resources { devices: vec![all], ..Resources::default() };
    let file = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    resources.files = vec![file("cgroup.max.depth", "5")];
    stand.ask(Call::Update { container, resources: Box::new(resources.clone()) }).unwrap();
    let depth = std::fs::read_to_string(stand.cgroup().join("cgroup.max.depth")).unwrap();
    assert_eq!(depth.trim(), "5");
    resources.files = vec![file("no.such", "1")];
    let failure = stand.ask(Call::Update { container, resources: Box::new(resources) }).unwrap_err();
    let words = "error setting cgroup config: write \"1\" to no.such: no such file or directory";
    assert_eq!(failure.message, words);
    drop(running.stdin.take());
    let exited = stand.exited(running.key);
    assert_eq!(running.finish(exited).stderr, "");
}
