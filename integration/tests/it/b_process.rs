//! The process: what it sees of itself, field by field as under runc.

use husk_integration::{
    bundle::Image,
    runtime::Runtime,
    scenario::{same_as_runc, sh},
};
use serde_json::json;

/// The fields of /proc/self/status that a container's configuration decides. Not SigIgn: under runc that is the caller's.
const STATUS: &str = "grep -E '^(Name|Umask|Uid|Gid|Groups|NStgid|NSpid|NSpgid|NSsid|CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp|Seccomp_filters):' /proc/self/status";

#[test]
fn the_default_process_has_the_same_status_as_under_runc() {
    same_as_runc(Image::Busybox, &["sh", "-c", STATUS], |_| {});
}

#[test]
fn user_groups_and_umask_are_applied() {
    same_as_runc(Image::Busybox, &["sh", "-c", &format!("id; umask; {STATUS}")], |bundle| {
        bundle.set(
            "/process/user",
            json!({"uid": 1000, "gid": 1000, "additionalGids": [10, 20], "umask": 0o027}),
        );
    });
}

#[test]
fn no_capabilities_and_new_privileges_allowed() {
    same_as_runc(Image::Busybox, &["sh", "-c", STATUS], |bundle| {
        bundle.set("/process/capabilities", json!({}));
        bundle.set("/process/noNewPrivileges", json!(false));
    });
}

#[test]
fn ambient_capabilities_reach_an_unprivileged_user() {
    same_as_runc(Image::Busybox, &["sh", "-c", STATUS], |bundle| {
        let set = json!(["CAP_NET_BIND_SERVICE", "CAP_KILL"]);
        bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
        bundle.set(
            "/process/capabilities",
            json!({"bounding": set, "effective": set, "permitted": set, "inheritable": set, "ambient": set}),
        );
    });
}

#[test]
fn a_seccomp_profile_is_in_force() {
    let output = same_as_runc(
        Image::Busybox,
        &[
            "sh",
            "-c",
            "grep ^Seccomp: /proc/self/status; mkdir /made || echo refused; chmod 700 /tmp && echo changed",
        ],
        |bundle| {
            bundle.set(
                "/linux/seccomp",
                json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
                   "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}),
            );
        },
    );
    assert!(output.stdout.contains("Seccomp:\t2") && output.stdout.contains("refused"), "{output:?}");
}

#[test]
fn resource_limits_are_applied() {
    same_as_runc(Image::Busybox, &["sh", "-c", "ulimit -a | grep -v pending"], |bundle| {
        bundle.set(
            "/process/rlimits",
            json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
                   {"type": "RLIMIT_STACK", "soft": 4194304, "hard": 8388608}, {"type": "RLIMIT_NPROC", "soft": 77, "hard": 88}]),
        );
    });
}

#[test]
fn working_directory_environment_and_host_name() {
    same_as_runc(
        Image::Busybox,
        &["sh", "-c", "pwd; env | sort; hostname; cat /proc/sys/kernel/hostname"],
        |bundle| {
            bundle.set("/process/cwd", json!("/tmp"));
            bundle.set("/process/env", json!(["PATH=/bin:/usr/bin", "A=1", "B=two words", "EMPTY="]));
            bundle.set("/hostname", json!("some-host"));
        },
    );
}

#[test]
fn namespaces_are_the_containers_own() {
    let links =
        sh("for n in cgroup ipc mnt pid uts; do readlink /proc/self/ns/$n; done; ps | wc -l").ok().stdout;
    assert_eq!(links.lines().count(), 6, "{links}");
    same_as_runc(Image::Busybox, &["sh", "-c", "ps -o pid,comm"], |_| {});
}

#[test]
fn masked_and_read_only_paths_look_as_under_runc() {
    same_as_runc(
        Image::Busybox,
        &[
            "sh",
            "-c",
            "for p in /proc/keys /proc/timer_list /proc/sched_debug; do [ -e $p ] && { stat -c '%n %F' $p; head -c 10 $p | wc -c; }; done; \
             ls /proc/scsi /sys/firmware/* 2>/dev/null | wc -w; \
             for p in /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/irq; do [ -w $p ] && (echo x > $p) 2>/dev/null && echo $p writable; done; true",
        ],
        |_| {},
    );
}

#[test]
fn mounts_are_those_of_the_bundle_with_their_options() {
    // The root and the cgroup file system have other types or options in a guest, and its kernel has no kcore, acpi or
    // sysrq-trigger to hide. What hides a file is the agent's own /dev/null, not the container's: its times differ.
    // Everything else must be the same.
    let script = "awk '$2 != \"/\" && $3 != \"cgroup2\" && $3 != \"cgroup\" {print $2, $3, $4}' /proc/mounts | grep -vE '^/proc/(kcore|acpi|sysrq-trigger) ' \
        | sed -e 's/,size=[0-9]*k//' -e 's/,nr_inodes=[0-9]*//' -e 's/,inode64//' -e '/^.proc.*tmpfs/s/,relatime//' | sort";
    same_as_runc(Image::Busybox, &["sh", "-c", script], |_| {});
}

#[test]
fn each_file_system_of_the_kernel_can_be_mounted() {
    let kinds = ["ramfs", "mqueue", "bpf", "securityfs", "hugetlbfs", "tmpfs", "proc", "sysfs"];
    let output =
        same_as_runc(
            Image::Busybox,
            &["sh", "-c", "awk '/ .made-/ {print $2, $3}' /proc/mounts"],
            |bundle| {
                let mut mounts = bundle.config["mounts"].as_array().expect("a list").clone();
                mounts.extend(kinds.map(
                    |kind| json!({"destination": format!("/made-{kind}"), "type": kind, "source": kind}),
                ));
                bundle.set("/mounts", json!(mounts));
            },
        );
    assert_eq!(output.stdout.lines().count(), kinds.len(), "{output:?}");
}

#[test]
fn the_score_of_the_oom_killer_is_moved() {
    let output = same_as_runc(Image::Busybox, &["cat", "/proc/self/oom_score_adj"], |bundle| {
        bundle.set("/process/oomScoreAdj", json!(-500));
    });
    assert_eq!(output.stdout, "-500\n");
}

#[test]
fn devices_are_the_default_ones() {
    same_as_runc(
        Image::Busybox,
        &[
            "sh",
            "-c",
            "cd /dev; ls -l | awk '{print $1,$3,$4,$5,$6,$NF}' | grep -v ^total | sed -e 's/ [A-Z][a-z][a-z] / /'",
        ],
        |_| {},
    );
}

#[test]
fn a_read_only_root_cannot_be_written() {
    same_as_runc(
        Image::Busybox,
        &["sh", "-c", "echo x > /file || echo refused; echo x > /dev/shm/file && echo ok"],
        |bundle| {
            bundle.set("/root/readonly", json!(true));
        },
    );
}

#[test]
fn a_program_that_cannot_be_run_is_named_as_by_runc() {
    for program in ["nonexistent", "/nonexistent", "/etc/passwd", "/etc"] {
        let run = |runtime| husk_integration::scenario::run(runtime, Image::Busybox, &[program], |_| {});
        let (husk, runc) = (run(Runtime::Husk), run(Runtime::Runc));
        assert_eq!(husk.code, runc.code, "{program}: {husk:?} {runc:?}");
        let reason =
            |text: &str| text[text.find("exec: ").unwrap_or(0)..].trim_end().trim_end_matches('"').to_owned();
        assert!(
            husk.stderr.contains(&reason(&runc.stderr)),
            "{program}: {husk:?} should hold {:?}",
            reason(&runc.stderr)
        );
    }
}
