//! The spec's `linux` section and the rarer fields of `process`: as under runc where runc can do it, else as the spec has it.

use husk_integration::{
    bundle::{Bundle, Image},
    created::Created,
    runtime::Runtime,
    scenario::{run, run_configured, same_as_runc},
};
use serde_json::{Value, json};

/// Adds a namespace.
fn with_namespace(bundle: &mut Bundle, kind: &str) {
    bundle.set("/linux/namespaces/-", json!({"type": kind}));
}

#[test]
fn kernel_parameters_are_set() {
    let output = same_as_runc(
        Image::Busybox,
        &[
            "sh",
            "-c",
            "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced /proc/sys/fs/mqueue/msg_max",
        ],
        |bundle| {
            bundle.set(
                "/linux/sysctl",
                json!({"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1", "fs.mqueue.msg_max": "21"}),
            );
        },
    );
    assert_eq!(output.stdout, "1\n1\n21\n");
}

#[test]
fn the_roots_propagation_is_as_said() {
    // runc 1.1 leaves a shared root private, which the OCI's own validation program finds wrong.
    for (word, expected) in [
        ("shared", "root shared\n"),
        ("rslave", "root \n"),
        ("private", "root \n"),
        ("runbindable", "root unbindable\n"),
    ] {
        let script = "awk '$5 == \"/\" {line=\"\"; for (i = 7; $i != \"-\"; i++) {sub(/:.*/, \"\", $i); line = line $i} print \"root\", line}' /proc/self/mountinfo";
        let output = run(Runtime::Husk, Image::Busybox, &["sh", "-c", script], |bundle| {
            bundle.set("/linux/rootfsPropagation", json!(word));
        });
        assert_eq!(output.ok().stdout, expected, "{word}");
    }
}

#[test]
fn a_user_namespace_with_mappings_and_devices() {
    let output = same_as_runc(
        Image::Busybox,
        &[
            "sh",
            "-c",
            "id -u; cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '; cat /proc/self/setgroups; \
             ls -ln /dev/null /dev/zero | awk '{print $1, $3, $4, $5, $6, $NF}'; ls -ln /dev/fuse | awk '{print $3, $4, $5, $6, $NF}'; echo x > /dev/null && echo null; \
             head -c 3 /dev/zero | wc -c; touch /tmp/made && stat -c '%u %g' /tmp/made; hostname; \
             grep -E '^(CapEff|CapBnd)' /proc/self/status; mount -t tmpfs none /mnt 2>/dev/null || echo no mount",
        ],
        |bundle| {
            with_namespace(bundle, "user");
            let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
            bundle.set("/linux/uidMappings", map.clone());
            bundle.set("/linux/gidMappings", map);
            bundle.set(
                "/linux/devices",
                json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666, "uid": 0, "gid": 0}]),
            );
            let tmp = bundle.rootfs().join("tmp");
            std::os::unix::fs::chown(&tmp, Some(100_000), Some(100_000)).expect("it can be given away");
        },
    );
    assert!(output.stdout.contains("0 100000 65536"), "{output:?}");
}

#[test]
fn the_clocks_of_a_time_namespace_are_moved() {
    let output = run(
        Runtime::Husk,
        Image::Busybox,
        &["sh", "-c", "cut -d. -f1 /proc/uptime; cat /proc/self/timens_offsets | tr -s ' '; readlink /proc/self/ns/time > /tmp/a; sleep 0; readlink /proc/self/ns/time_for_children | diff - /tmp/a && echo same"],
        |bundle| {
            with_namespace(bundle, "time");
            bundle.set(
                "/linux/timeOffsets",
                json!({"boottime": {"secs": 864_000, "nanosecs": 5}, "monotonic": {"secs": 7}}),
            );
        },
    )
    .ok();
    let mut lines = output.stdout.lines();
    let uptime: u64 = lines.next().unwrap_or("").parse().expect("a number");
    assert!((864_000..864_600).contains(&uptime), "{output:?}");
    assert!(
        output.stdout.contains("monotonic 7 0") && output.stdout.contains("boottime 864000 5"),
        "{output:?}"
    );
    assert!(output.stdout.contains("same"), "{output:?}");
}

#[test]
fn personality_scheduler_and_io_priority_are_applied_to_execs_too() {
    let mut bundle = Bundle::new(
        Image::Busybox,
        &[
            "sh",
            "-c",
            "uname -m; echo policy $(cut -d' ' -f41 /proc/self/stat); ionice -p $$; echo done; exec sleep 1000",
        ],
    );
    bundle.set("/linux/personality", json!({"domain": "LINUX32"}));
    bundle.set("/process/scheduler", json!({"policy": "SCHED_BATCH", "nice": 5}));
    bundle.set("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 6}));
    let container = Created::started(Runtime::Husk, bundle);
    container.wait_for_text("done");
    let seen = container.stdout();
    for words in ["i686", "policy 3", "best-effort: prio 6"] {
        assert!(seen.contains(words), "{words}: {seen}");
    }
    let seen = container.sh("uname -m; cut -d' ' -f19 /proc/self/stat").ok().stdout;
    assert_eq!(seen, "i686\n5\n", "an exec has the container's personality and scheduler");
}

#[test]
fn realtime_is_given_to_who_may_have_it() {
    let output = run(
        Runtime::Husk,
        Image::Busybox,
        &["sh", "-c", "cut -d' ' -f40,41 /proc/self/stat; true"],
        |bundle| {
            bundle.set("/process/scheduler", json!({"policy": "SCHED_FIFO", "priority": 7}));
        },
    )
    .ok();
    assert_eq!(output.stdout, "7 1\n", "priority, policy");
}

#[test]
fn an_exec_runs_on_the_cpus_that_its_container_names_and_in_the_group_it_asks_for() {
    let mut bundle =
        Bundle::new(Image::Busybox, &["sh", "-c", "grep Cpus_allowed_list /proc/self/status; sleep 1000"]);
    bundle.set("/process/execCPUAffinity", json!({"initial": "0", "final": "1"}));
    bundle.set("/annotations", json!({"io.husk.vcpus": "2"}));
    with_writable_cgroup(&mut bundle);
    let config = bundle.path.join("husk.toml");
    std::fs::write(&config, "[container]\nannotations = [\"io.husk.vcpus\"]\n").expect("it can be written");
    let container = Created::configured(bundle, &config);
    container.call("start", &[]).ok();
    container.wait_for_text("Cpus_allowed_list:\t0-1\n");
    assert_eq!(
        container.sh("grep Cpus_allowed_list /proc/self/status").ok().stdout,
        "Cpus_allowed_list:\t1\n"
    );
    container.sh("mkdir /sys/fs/cgroup/below").ok();
    let group =
        container.call_with("exec", &["--cgroup", "below"], &["cat", "/proc/self/cgroup"]).ok().stdout;
    assert_eq!(group, "0::/below\n");
    assert_eq!(container.sh("cat /proc/self/cgroup").ok().stdout, "0::/\n");
    let missing = container.call_with("exec", &["--cgroup", "missing"], &["true"]);
    assert_eq!(missing.code, 255, "{missing:?}");
}

fn with_writable_cgroup(bundle: &mut Bundle) {
    for mount in bundle.config["mounts"].as_array_mut().expect("an array") {
        if mount["type"] == "cgroup" {
            mount["options"] = json!(["nosuid", "noexec", "nodev", "relatime", "rw"]);
        }
    }
}

#[test]
fn devices_and_device_rules_are_as_under_runc() {
    let script = "ls -ln /dev/extra | awk '{print $1, $3, $4, $5, $6, $NF}'; head -c 4 /dev/extra | wc -c; \
         (head -c 1 /dev/kmsg-like > /dev/null) 2>/dev/null || echo denied; \
         mknod /tmp/zero c 1 5 && head -c 2 /tmp/zero | wc -c; mknod /tmp/mem c 1 1 2>/dev/null && { head -c 1 /tmp/mem >/dev/null 2>&1 || echo mem denied; }";
    same_as_runc(Image::Busybox, &["sh", "-c", script], |bundle| {
        bundle.set(
            "/linux/devices",
            json!([
                {"path": "/dev/extra", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 7, "gid": 8},
                {"path": "/dev/kmsg-like", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666},
            ]),
        );
        let caps: Value = json!(["CAP_MKNOD", "CAP_CHOWN", "CAP_DAC_OVERRIDE"]);
        bundle.set("/process/capabilities", json!({"bounding": caps, "effective": caps, "permitted": caps}));
        bundle.set(
            "/linux/resources",
            json!({"devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm"},
                               {"allow": true, "type": "c", "major": 1, "minor": 1, "access": "m"}]}),
        );
    });
}

#[test]
fn labels_are_refused_or_ignored_as_the_operator_says() {
    let refused = run(Runtime::Husk, Image::Busybox, &["true"], |bundle| {
        bundle.set("/process/apparmorProfile", json!("docker-default"));
    });
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("process.apparmorProfile"), "{refused:?}");
    let mut bundle = Bundle::new(Image::Busybox, &["true"]);
    bundle.set("/process/apparmorProfile", json!("docker-default"));
    bundle.set("/process/selinuxLabel", json!("system_u:system_r:container_t:s0"));
    run_configured(&bundle, "[container]\nsecurity_labels = \"ignore\"\n").ok();
}
