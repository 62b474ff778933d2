//! Pods: a sandbox makes a machine, containers join it, and each is a container of its own to whoever asks.

use husk_integration::{
    bundle::{Bundle, Image},
    census::Census,
    created::Created,
    pod::{bind, member, sandbox, share_namespace},
    runtime::{Output, Runtime},
    scenario::fresh_id,
};
use serde_json::json;
use std::fs;

const BOOT: &str = "cat /proc/sys/kernel/random/boot_id";

/// What is changed in a bundle, and what is said of it.
type Case<'a> = (&'a dyn Fn(&mut Bundle), &'a str);

/// Runs a container in the pod to its end, in the foreground.
#[track_caller]
fn run(bundle: &Bundle) -> Output {
    let path = bundle.write().to_owned();
    Runtime::Husk.call(["run".as_ref(), "-b".as_ref(), path.as_os_str(), fresh_id().as_ref()])
}

fn start(bundle: Bundle) -> Created {
    Created::started(Runtime::Husk, bundle)
}

#[test]
fn containers_join_their_sandboxs_machine_and_are_their_own() {
    let before = Census::take();
    {
        let pod = sandbox(|_| {});
        let serve = "echo up; while true; do echo from-first | nc -l -p 5000; done";
        let first = start(member(&pod, &["sh", "-c", serve]));
        first.wait_for_text("up");

        // One kernel, one network, one host name; a root, processes and a cgroup each.
        let script = format!(
            "{BOOT}; hostname; nc 127.0.0.1 5000 </dev/null; echo second > /mine; ls /; echo pid $$; \
             cat /proc/self/cgroup; exit 7"
        );
        let second = member(&pod, &["sh", "-c", &script]);
        let output = run(&second);
        assert_eq!(output.code, 7, "{output:?}");
        let lines: Vec<&str> = output.stdout.lines().collect();
        assert_eq!(lines[..3], [pod.sh(BOOT).ok().stdout.trim(), "the-pod", "from-first"], "{output:?}");
        assert!(lines.contains(&"mine") && lines.contains(&"pid 1") && lines.contains(&"0::/"), "{output:?}");
        assert_eq!(fs::read_to_string(second.rootfs().join("mine")).expect("it wrote it"), "second\n");
        assert!(!first.bundle.rootfs().join("mine").exists() && !pod.bundle.rootfs().join("mine").exists());

        // Another pod has another kernel, and its processes find nobody there.
        let other = sandbox(|_| {});
        let seen = other.sh(&format!("{BOOT}; nc 127.0.0.1 5000 </dev/null")).stdout;
        assert!(!seen.contains("from-first") && !seen.contains(lines[0]), "{seen}");
    }
    before.assert_unchanged();
}

#[test]
fn a_verb_is_for_the_container_that_it_names() {
    let before = Census::take();
    {
        let pod = sandbox(|_| {});
        let first = start(member(
            &pod,
            &["sh", "-c", "trap 'echo told' USR1; sleep 1000 & while true; do wait; done"],
        ));
        let second = Created::new(Runtime::Husk, member(&pod, &["sleep", "100000"]));
        assert_eq!(second.state()["status"], "created");
        let pids = [pod.pid(), first.pid(), second.pid()];
        assert!(pids[0] != pids[1] && pids[1] != pids[2] && pids[0] != pids[2], "{pids:?}");
        let network = |pid| fs::read_link(format!("/proc/{pid}/ns/net")).expect("a process");
        assert_eq!(network(first.pid()), network(pod.pid()), "its process is in the pod's network namespace");
        // Callers enter the mounts of a container's process and write there, as root.
        let root = fs::read_dir(format!("/proc/{}/root", first.pid())).expect("a process");
        assert_eq!(root.count(), 0, "of the host's files its process has none");

        let listed: serde_json::Value =
            serde_json::from_str(&Runtime::Husk.call(["list", "--format", "json"]).ok().stdout)
                .expect("JSON");
        for container in [&pod, &first, &second] {
            let mut all = listed.as_array().expect("a list").iter();
            let shown = all.find(|shown| shown["id"] == container.id.as_str()).expect("it is listed");
            assert_eq!(shown["pid"], container.pid());
        }
        assert_eq!(first.sh("echo $0; exit 3").code, 3);
        first.call("kill", &["USR1"]).ok();
        first.wait_for_text("told");
        assert!(first.call("ps", &[]).ok().stdout.contains("sleep 1000"));

        // Its counters are its own.
        second.call("start", &[]).ok();
        let stats = |container: &Created| {
            let told = container.call("events", &["--stats"]).ok().stdout;
            serde_json::from_str::<serde_json::Value>(&told).expect("JSON")
        };
        assert_eq!(stats(&second)["data"]["pids"]["current"], 1);
        assert!(stats(&first)["data"]["pids"]["current"].as_u64() >= Some(2));

        // One is paused, the others go on.
        first.call("pause", &[]).ok();
        assert_eq!(first.state()["status"], "paused");
        assert_eq!(second.state()["status"], "running");
        assert_eq!(second.sh("echo on").ok().stdout, "on\n");
        first.call("resume", &[]).ok();

        // One ends, the others go on.
        second.call("kill", &["KILL"]).ok();
        second.wait_for("stopped");
        let late = second.call("kill", &["TERM"]);
        assert!(late.stderr.contains("container not running"), "{late:?}");
        second.call("delete", &[]).ok();
        assert_eq!(first.sh("echo on").ok().stdout, "on\n");
        let refused = first.call("delete", &[]);
        assert!(refused.stderr.contains("that is not stopped: running"), "{refused:?}");
        first.call("delete", &["--force"]).ok();
        assert_eq!(pod.state()["status"], "running");
    }
    before.assert_unchanged();
}

#[test]
fn the_end_of_the_sandbox_is_the_end_of_its_containers() {
    let before = Census::take();
    {
        let pod = sandbox(|_| {});
        let mut first = start(member(&pod, &["sleep", "100000"]));
        pod.call("kill", &["KILL"]).ok();
        pod.wait_for("stopped");
        first.wait_for("stopped");
        let pid = nix::unistd::Pid::from_raw(first.pid());
        let status = nix::sys::wait::waitpid(pid, None).expect("the process that stands for it is ours");
        assert_eq!(status, nix::sys::wait::WaitStatus::Exited(pid, 137));
        first.call("delete", &[]).ok();

        // Nobody joins it any more.
        first.bundle.write();
        let late = run(&first.bundle);
        let words = format!("sandbox {}: it is not running", pod.id);
        assert!(late.code == 1 && late.stderr.contains(&words), "{late:?}");
        first.bundle.set("/annotations/io.kubernetes.cri.sandbox-id", json!("nobody"));
        let unknown = run(&first.bundle);
        assert!(unknown.stderr.contains("sandbox nobody: there is none of that name"), "{unknown:?}");
    }
    before.assert_unchanged();
}

#[test]
fn what_stands_for_a_container_takes_it_along_when_it_is_killed() {
    let before = Census::take();
    {
        let pod = sandbox(|_| {});
        let mut bundle = member(&pod, &["sleep", "4242"]);
        share_namespace(&mut bundle, "pid", Some(format!("/proc/{}/ns/pid", pod.pid())));
        let first = start(bundle);
        // The sandbox sees its processes.
        let gone = || !pod.sh("cat /proc/[0-9]*/cmdline; true").stdout.contains("4242");
        assert!(!gone());
        husk_integration::running::kill(first.pid(), libc::SIGKILL);
        first.wait_for("stopped");
        assert!((0..50).any(|_| gone()), "it lives on");
        assert_eq!(pod.state()["status"], "running");
    }
    before.assert_unchanged();
}

#[test]
fn what_a_pod_cannot_have_is_refused_in_words() {
    let before = Census::take();
    {
        let pod = sandbox(|_| {});
        let table: [Case<'_>; 6] = [
            (&|bundle| share_namespace(bundle, "network", None), "has its sandbox's network"),
            (
                &|bundle| share_namespace(bundle, "network", Some("/proc/self/ns/net".into())),
                "is not the one of its sandbox",
            ),
            (&|bundle| share_namespace(bundle, "ipc", Some("/proc/1/ns/ipc".into())), "cannot be joined"),
            (&|bundle| share_namespace(bundle, "user", None), "user namespace of its own"),
            (
                &|bundle| bundle.set("/linux/resources", json!({"memory": {"limit": 1_u64 << 40}})),
                "bytes that the machine can have",
            ),
            (
                &|bundle| bundle.set("/linux/resources", json!({"cpu": {"cpus": "0"}})),
                "one machine to the host",
            ),
        ];
        for (change, words) in table {
            let mut bundle = member(&pod, &["true"]);
            change(&mut bundle);
            let output = run(&bundle);
            assert!(output.code == 1 && output.stderr.contains(words), "{words}: {output:?}");
        }
        // One that is none cannot be joined.
        let alone = start(Bundle::new(Image::Busybox, &["sleep", "1000"]));
        let output = run(&member(&alone, &["true"]));
        assert!(output.stderr.contains("no sandbox that others can join"), "{output:?}");
        assert_eq!(run(&member(&pod, &["sh", "-c", "exit 5"])).code, 5);
    }
    before.assert_unchanged();
}

#[test]
fn containers_of_a_pod_share_volumes_memory_and_processes_if_they_are_to() {
    let before = Census::take();
    {
        let volume = std::path::PathBuf::from(format!("/var/tmp/husk-it/{}", fresh_id()));
        fs::create_dir_all(&volume).expect("a directory");
        let pod = sandbox(|_| {});
        let sharing = |args: &[&str], options: &[&str]| {
            let mut bundle = member(&pod, args);
            bundle.set("/mounts/-", bind(&volume, "/volume", options));
            let pids = format!("/proc/{}/ns/pid", pod.pid());
            share_namespace(&mut bundle, "pid", Some(pids));
            bundle
        };
        let first = start(sharing(&["sleep", "4242"], &["rw"]));
        let second = start(sharing(&["sleep", "2424"], &["ro"]));
        first.sh("echo one > /volume/file").ok();
        assert_eq!(second.sh("cat /volume/file").ok().stdout, "one\n");
        assert_ne!(second.sh("echo two > /volume/file").code, 0, "it is read-only for this one");
        // A file that is replaced by a link, as projected volumes are.
        fs::create_dir(volume.join("v2")).expect("a directory");
        fs::write(volume.join("v2/key"), "new").expect("a file");
        std::os::unix::fs::symlink("v2", volume.join("..tmp")).expect("a link");
        fs::rename(volume.join("..tmp"), volume.join("data")).expect("renamed");
        assert_eq!(second.sh("cat /volume/data/key").ok().stdout, "new");

        // Each sees the other's processes, and the sandbox's as the first.
        let all = first.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout;
        assert!(all.contains("sleep 2424") && all.contains("sleep 100000"), "{all}");
        second.call("kill", &["TERM"]).ok();
        second.wait_for("stopped");
        assert_eq!(first.state()["status"], "running");
        drop(second);
        let all = first.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout;
        assert!(!all.contains("2424"), "{all}");

        // The same bundle again, in the pod that lives on: twice.
        for _ in 0..2 {
            let again = start(sharing(&["sleep", "2424"], &["ro"]));
            assert_eq!(again.sh("cat /volume/file").ok().stdout, "one\n");
        }
        drop((first, pod));
        let _ = fs::remove_dir_all(&volume);
    }
    before.assert_unchanged();
}

#[test]
fn limits_are_each_containers_and_the_machine_has_what_was_announced() {
    let before = Census::take();
    {
        let pod = sandbox(|bundle| {
            bundle.set("/annotations/io.kubernetes.cri.sandbox-memory", json!("134217728"));
            bundle.set("/annotations/io.kubernetes.cri.sandbox-cpu-quota", json!("150000"));
            bundle.set("/annotations/io.kubernetes.cri.sandbox-cpu-period", json!("100000"));
        });
        let total = pod.sh("grep MemTotal /proc/meminfo").ok().stdout;
        let kib: u64 = total.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number");
        assert!(kib > 600 << 10, "512 and 128 MiB, and not {kib} KiB");
        let limited = |args: &[&str], limit: u64| {
            let mut bundle = member(&pod, args);
            bundle.set("/linux/resources", json!({"memory": {"limit": limit}, "pids": {"limit": 20}}));
            bundle
        };
        let keeps = start(limited(&["sleep", "100000"], 64 << 20));
        assert_eq!(
            keeps.sh("cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max").ok().stdout,
            "67108864\n20\n"
        );
        // One that takes too much is killed, alone.
        let greedy = run(&limited(&["tail", "/dev/zero"], 32 << 20));
        assert_eq!(greedy.code, 137, "{greedy:?}");
        assert_eq!(keeps.sh("echo on").ok().stdout, "on\n");
        // What those that live have is counted, and what those that have gone had is not.
        let output = run(&limited(&["true"], 520 << 20));
        assert_eq!(output.code, 0, "{output:?}");
        assert_eq!(pod.sh("grep MemTotal /proc/meminfo").ok().stdout, total, "nothing was plugged");
        let output = run(&limited(&["true"], 1 << 40));
        assert!(output.stderr.contains("67108864 for the others"), "{output:?}");
    }
    before.assert_unchanged();
}
